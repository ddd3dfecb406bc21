/**
 * Clients of the Primary Spore in a simulated network: they read, write, delete, and compare and set a few keys
 * through whatever machine they happen to ask, and remember what they were told.
 *
 * @module
 */

import { LOCAL } from "../../src/agent/access.ts";
import type { Rng } from "../../src/core/rng.ts";
import { History, type OpenOperation } from "./history.ts";
import type { ControlAnswer, Host, World } from "./world.ts";

const KEYS = 2;

/** What says for sure that a write did not happen. All else that is no answer leaves it open. */
const REFUSED = new Set(["conflict", "not-permitted", "from-future", "malformed", "full", "stale-seq", "bad-request"]);

interface Open {
  readonly operation: OpenOperation;
  readonly host: Host;
  readonly life: number;
}

/** The clients. */
export class Clients {
  readonly history: History = new History();
  /** Operations that were answered with `ok`. */
  ended = 0;
  readonly #world: World;
  readonly #rng: Rng;
  readonly #open = new Map<number, Open>();
  /** What is known of a key: its value and the index of that version. */
  readonly #known = new Map<string, { readonly value: string | null; readonly index: number }>();
  #next = 0;

  constructor(world: World, rng: Rng) {
    this.#world = world;
    this.#rng = rng;
  }

  /** One client asks one of these machines for something. */
  ask(hosts: readonly Host[]): void {
    this.sweep();
    const rng = this.#rng;
    const host = hosts[rng.below(Math.max(1, hosts.length))];
    if (!host?.agent?.isMember) return;
    const key = `app/k${rng.below(KEYS)}`;
    const known = this.#known.get(key);
    const value = `v${this.#next++}`;
    const kind = rng.below(10);
    const { history } = this;
    const timeMs = this.#world.sinceMs;
    if (kind < 4) {
      const operation = history.invoke(`c${this.#next}`, "read", key, null, timeMs);
      return this.#begin(host, operation, { verb: "primary-get", key });
    }
    if (kind < 7 && known) {
      const operation = history.invoke(`c${this.#next}`, "cas", key, [known.value, value], timeMs);
      return this.#begin(host, operation, { verb: "primary-put", key, value, expect: known.index });
    }
    if (kind === 7) {
      const operation = history.invoke(`c${this.#next}`, "write", key, null, timeMs);
      return this.#begin(host, operation, { verb: "primary-put", key });
    }
    const operation = history.invoke(`c${this.#next}`, "write", key, value, timeMs);
    return this.#begin(host, operation, { verb: "primary-put", key, value });
  }

  /** Whoever asked a machine that has died since does not hear of it any more. */
  sweep(): void {
    for (const [id, { operation, host, life }] of this.#open) {
      if (host.agent && host.life === life) continue;
      this.#open.delete(id);
      this.history.end(operation, "info", this.#world.sinceMs);
    }
  }

  /** Operations that wait for an answer. */
  get waiting(): number {
    return this.#open.size;
  }

  #begin(
    host: Host,
    operation: OpenOperation,
    request:
      | { readonly verb: "primary-get"; readonly key: string }
      | { readonly verb: "primary-put"; readonly key: string; readonly value?: string; readonly expect?: number },
  ): void {
    const controlId = this.#world.nextControlId();
    this.#open.set(controlId, { operation, host, life: host.life });
    this.#world.dispatch(host, { type: "control", nowMs: this.#world.local(host), controlId, request, by: LOCAL });
  }

  /** An answer came, for one of these clients or for somebody else. */
  answered(host: Host, controlId: number, answer: ControlAnswer): void {
    const open = this.#open.get(controlId);
    if (!open) return;
    this.#open.delete(controlId);
    host.controls.delete(controlId);
    const { operation } = open;
    const timeMs = this.#world.sinceMs;
    if (!answer.ok) {
      // A read changes nothing, however it ends.
      const failed = operation.f === "read" || REFUSED.has(answer.error.code);
      return this.history.end(operation, failed ? "fail" : "info", timeMs);
    }
    this.ended += 1;
    if (operation.f === "read") {
      const { versions } = answer.value as {
        readonly versions: readonly { readonly value?: string; readonly index: number }[];
      };
      const found = versions[0];
      const value = found?.value ?? null;
      this.#known.set(operation.key, { value, index: found?.index ?? 0 });
      return this.history.end(operation, "ok", timeMs, value);
    }
    this.history.end(operation, "ok", timeMs);
  }
}
