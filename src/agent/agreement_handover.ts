/**
 * Decisions on their way into the Primary Spore: handed over until they are applied, by whoever is left to do it.
 *
 * @module
 */

import type { CertifiedResult, Decision, DecisionSink } from "./certified.ts";
import type { Context } from "./context.ts";

/** What it needs. */
export interface HandoversPort {
  readonly ctx: Context;
  readonly sink: DecisionSink;
  /** Whether this node leads the Raft group. */
  readonly leads: () => boolean;
  /** Whether what was decided stands already. */
  readonly stands: (decision: Decision) => boolean;
  readonly store: (name: string, decision: Decision | undefined) => void;
  readonly done: (name: string, result: CertifiedResult) => void;
}

interface Handover {
  readonly decision: Decision;
  readonly mine: boolean;
  readonly sinceMs: number;
  nextMs: number;
  tries: number;
  busy: boolean;
}

/** Decisions that wait; the oldest of others makes room. */
const WAITING_MAX = 256;
/** Who neither leads nor proposed waits so long: most of the time there is nothing left to do then. */
const OTHERS_MS = 3_000;
const OTHERS_SPREAD_MS = 3_000;
const RETRY_MS = 200;
const RETRY_MS_MAX = 10_000;
const TIMEOUT_MS = 5_000;
/** Given up: by then a decision is too old to be applied. */
const GIVE_UP_MS = 3_600_000;

/** Hands decisions over. */
export class Handovers {
  readonly #port: HandoversPort;
  #all = new Map<string, Handover>();

  constructor(port: HandoversPort) {
    this.#port = port;
  }

  /** Decisions that wait to be applied. */
  get size(): number {
    return this.#all.size;
  }

  clear(): void {
    this.#all = new Map();
  }

  clockSetBack(): void {
    const { nowMs } = this.#port.ctx;
    for (const [name, one] of this.#all) this.#all.set(name, { ...one, sinceMs: nowMs, nextMs: nowMs, busy: false });
  }

  /** Takes a decision. `mine`: this node proposed it. `stored`: it comes from the store. */
  add(name: string, decision: Decision, mine: boolean, stored: boolean): void {
    if (this.#all.has(name)) return;
    const { ctx } = this.#port;
    if (this.#all.size >= WAITING_MAX) {
      const victim = [...this.#all].find(([, one]) => !one.mine)?.[0] ?? this.#all.keys().next().value!;
      this.#forget(victim);
    }
    const first = mine || this.#port.leads();
    const waitMs = first ? 0 : OTHERS_MS + ctx.rng.below(OTHERS_SPREAD_MS);
    this.#all.set(name, { decision, mine, sinceMs: ctx.nowMs, nextMs: ctx.nowMs + waitMs, tries: 0, busy: false });
    // Who votes keeps it, so that it outlives the proposer; the proposer because it has promised an answer.
    if (!stored) this.#port.store(name, decision);
    ctx.wakeAt(ctx.nowMs + waitMs);
  }

  /** Hands over what is due; returns when it wants to be woken. */
  wake(): number {
    const { ctx } = this.#port;
    let next = Infinity;
    for (const [name, one] of [...this.#all]) {
      if (one.busy) continue;
      if (ctx.nowMs < one.nextMs) {
        next = Math.min(next, one.nextMs);
        continue;
      }
      if (ctx.nowMs - one.sinceMs > GIVE_UP_MS || !one.mine && this.#port.stands(one.decision)) {
        this.#forget(name);
        continue;
      }
      this.#handOver(name, one);
    }
    return next;
  }

  #handOver(name: string, one: Handover): void {
    const { ctx } = this.#port;
    one.busy = true;
    one.tries += 1;
    this.#port.sink.certified(one.decision, { timeoutMs: TIMEOUT_MS }, (result) => {
      if (this.#all.get(name) !== one) return;
      one.busy = false;
      if (!result.ok && AGAIN.has(result.code)) {
        one.nextMs = ctx.nowMs + Math.min(RETRY_MS_MAX, RETRY_MS * 2 ** Math.min(10, one.tries));
        return ctx.wakeAt(one.nextMs);
      }
      if (!result.ok) {
        ctx.log("warn", "agreement-not-applied", `A decision was not applied: ${result.code}`, {
          instance: name,
          code: result.code,
        });
      }
      this.#forget(name);
      this.#port.done(name, result);
    });
  }

  #forget(name: string): void {
    this.#all.delete(name);
    this.#port.store(name, undefined);
  }
}

/** Ends after which the same decision may still be applied. */
const AGAIN: ReadonlySet<string> = new Set(["timeout", "overloaded"]);
