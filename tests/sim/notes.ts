/**
 * Issuers who have notes decided (`agreed/notes/…`), and what has to come of it: what stands was asked for, what was
 * acknowledged has not vanished, and at last it is the same everywhere.
 *
 * @module
 */

import { LOCAL } from "../../src/agent/access.ts";
import { fromUtf8, toBase64Url, utf8 } from "../../src/core/bytes.ts";
import type { Rng } from "../../src/core/rng.ts";
import type { Host, World } from "./world.ts";

const KEYS = ["agreed/notes/a", "agreed/notes/b"];
/** Submissions that wait for an answer. */
const OPEN_MAX = 8;

/** Who submits, and the checks of it. */
export class Notes {
  readonly #world: World;
  readonly #rng: Rng;
  readonly #open = new Map<number, { readonly host: Host; readonly key: string }>();
  /** All values that were ever asked for. */
  readonly #asked = new Set<string>();
  /** Keys of which something was acknowledged. */
  readonly #stand = new Set<string>();
  /** Submissions that were acknowledged. */
  acknowledged = 0;
  #next = 0;

  constructor(world: World, rng: Rng) {
    this.#world = world;
    this.#rng = rng;
  }

  /** An issuer among these machines has a note decided. */
  write(hosts: readonly Host[]): void {
    const issuers = hosts.filter((one) => one.agent?.isMember && one.view.state.isIssuer);
    const host = issuers[this.#rng.below(Math.max(1, issuers.length))];
    if (!host || this.#open.size >= OPEN_MAX) return;
    const key = KEYS[this.#rng.below(KEYS.length)]!;
    const value = `note ${this.#next++}`;
    this.#asked.add(value);
    const controlId = this.#world.nextControlId();
    this.#open.set(controlId, { host, key });
    this.#world.dispatch(host, {
      type: "control",
      by: LOCAL,
      nowMs: this.#world.local(host),
      controlId,
      request: { verb: "agreement-submit", key, value: toBase64Url(utf8(value)), timeoutMs: 20_000 },
    });
  }

  /** An answer came. Returns whether it was for one of these. */
  answered(host: Host, controlId: number, ok: boolean): boolean {
    const one = this.#open.get(controlId);
    if (one?.host !== host) return false;
    host.controls.delete(controlId);
    this.#open.delete(controlId);
    if (!ok) return true;
    this.acknowledged += 1;
    this.#stand.add(one.key);
    return true;
  }

  /** Nobody answers any more what a machine was asked before it went down. */
  sweep(): void {
    for (const [controlId, { host }] of this.#open) if (!host.agent) this.#open.delete(controlId);
  }

  /** What is not as it should be at last on these hosts; at most one sentence. */
  unsettled(hosts: readonly Host[]): string | undefined {
    for (const key of KEYS) {
      let first: string | undefined;
      for (const host of hosts) {
        const bytes = host.view.spores.get(key)?.winner.spore.record.value;
        const value = bytes === undefined ? "nothing" : fromUtf8(bytes) ?? "no text";
        first ??= value;
        if (value !== first) return `${key} is "${value}" at ${host.name}, elsewhere "${first}"`;
        if (bytes === undefined && this.#stand.has(key)) return `${key} was acknowledged and is nowhere`;
        if (bytes !== undefined && !this.#asked.has(value)) return `${key} is "${value}", nobody asked for that`;
      }
    }
    return undefined;
  }
}
