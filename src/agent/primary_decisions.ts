/**
 * Decisions on their way into the log: handed to whoever leads, tried again until they are answered.
 *
 * A decision counts once by itself (its instance is remembered), so there is no session. The leader verifies it before it
 * proposes it; every replica does before it applies it.
 *
 * @module
 */

import { array, bytes, type CborValue, encodeCbor, optional, record, uint, WireError } from "../core/codec.ts";
import { readNodeId } from "../core/ids.ts";
import { LIMITS } from "../core/limits.ts";
import { type CommandResult, encodeCommand, readResultCode, type StateMachine } from "../spore/state_machine.ts";
import { encodeDecision } from "./agreement_store.ts";
import type { CertifiedResult, Decision, DecisionSink, OperationCode } from "./certified.ts";
import { type Context, DEFERRED, Refusal } from "./context.ts";
import type { PeerView } from "./effects.ts";

/** Decisions that wait for an answer; a further one is `overloaded`. */
const WAITING_MAX = 256;
/** Decisions under way at once. */
const IN_FLIGHT_MAX = 8;
const CALL_MS = 4_000;
const RETRY = { baseMs: 30, maxMs: 1_000 } as const;

/** What the leader says of a decision, or who leads as far as that is known. */
type Answer = CommandResult | { readonly leader: string | undefined };

const readAsk = record({ d: bytes({ max: LIMITS.raftEntryBytesMax }), w: optional(uint(1)) });
const readAnswer = record({
  c: optional(readResultCode),
  i: optional(uint()),
  o: optional(array(readResultCode, LIMITS.consensusBatchMax)),
  l: optional(readNodeId),
});

function answerValue(answer: Answer): CborValue {
  return "code" in answer ? { c: answer.code, i: answer.index, o: answer.outcomes } : { l: answer.leader };
}

/** What is needed of the Primary Spore. */
export interface DecisionsPort {
  readonly leads: boolean;
  readonly leader: string | undefined;
  /** State of the replica that runs here. */
  readonly state: StateMachine | undefined;
  /** Whom to ask after so many tries. */
  whom(tries: number): string | undefined;
  /** Puts a command into the log of this leader. */
  propose(data: Uint8Array, done: (answer: Answer) => void): void;
  /** A node did not answer. */
  doubt(nodeId: string): void;
}

interface Waiting {
  readonly decision: Uint8Array;
  untilMs: number;
  notBeforeMs: number;
  tries: number;
  sent: boolean;
  readonly done: (result: CertifiedResult) => void;
}

/** Hands over decisions, and takes those of others. */
export class PrimaryDecisions implements DecisionSink {
  readonly #ctx: Context;
  readonly #port: DecisionsPort;
  #waiting: Waiting[] = [];

  constructor(ctx: Context, port: DecisionsPort) {
    this.#ctx = ctx;
    this.#port = port;
  }

  /** Decisions without an answer. */
  get waiting(): number {
    return this.#waiting.length;
  }

  certified(
    decision: Decision,
    options: { readonly timeoutMs: number },
    done: (result: CertifiedResult) => void,
  ): void {
    if (this.#waiting.length >= WAITING_MAX) return done({ ok: false, code: "overloaded" });
    const { nowMs } = this.#ctx;
    this.#waiting.push({
      decision: encodeDecision(decision),
      untilMs: nowMs + options.timeoutMs,
      notBeforeMs: 0,
      tries: 0,
      sent: false,
      done,
    });
    this.#ctx.wakeAt(nowMs);
  }

  /** Nobody is asked any more. */
  clear(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const one of waiting) one.done({ ok: false, code: "timeout" });
  }

  /** Who leads has changed. */
  hurry(): void {
    for (const one of this.#waiting) one.notBeforeMs = 0;
  }

  /** The clock was set back. */
  clockSetBack(): void {
    for (const one of this.#waiting) {
      one.notBeforeMs = 0;
      one.untilMs = this.#ctx.nowMs + 5_000;
    }
  }

  /** Sends what can be sent; returns when it wants to be woken. */
  wake(): number {
    const { nowMs } = this.#ctx;
    for (const one of this.#waiting.filter((each) => each.untilMs <= nowMs)) {
      this.#finish(one, { ok: false, code: "timeout" });
    }
    for (const one of [...this.#waiting]) {
      if (this.#waiting.filter((each) => each.sent).length >= IN_FLIGHT_MAX) break;
      if (!one.sent && one.notBeforeMs <= nowMs && this.#waiting.includes(one)) this.#send(one);
    }
    let nextMs = Infinity;
    for (const one of this.#waiting) {
      nextMs = Math.min(nextMs, one.untilMs, one.sent || one.notBeforeMs <= nowMs ? Infinity : one.notBeforeMs);
    }
    return nextMs;
  }

  #send(one: Waiting): void {
    const port = this.#port;
    one.sent = true;
    const tries = one.tries++;
    if (port.leads) return this.#lead(one.decision, (answer) => this.#take(one, answer));
    const node = port.whom(tries);
    if (node === undefined) return this.#again(one);
    this.#ctx.call(node, "primary.decided", { d: one.decision }, CALL_MS, (result) => {
      if (!result.ok) {
        port.doubt(node);
        return this.#again(one);
      }
      try {
        const { c, i, o, l } = readAnswer(result.body, "primary.decided");
        this.#take(one, c === undefined ? { leader: l } : { code: c, index: i ?? 0, ...(o ? { outcomes: o } : {}) });
      } catch (error) {
        if (!(error instanceof WireError)) throw error;
        this.#ctx.refuse("bad-answer", node);
        this.#again(one);
      }
    });
  }

  #take(one: Waiting, answer: Answer): void {
    if (!("code" in answer)) return this.#again(one);
    const { code, index } = answer;
    const outcomes = (answer.outcomes ?? []) as readonly OperationCode[];
    switch (code) {
      case "ok":
      case "unchanged":
        return this.#finish(one, { ok: true, again: code === "unchanged", index, outcomes });
      case "foreign-table":
      case "not-certified":
      case "class-too-low":
      case "expired":
        return this.#finish(one, { ok: false, code });
      default:
        return this.#finish(one, { ok: false, code: "malformed" });
    }
  }

  #again(one: Waiting): void {
    one.sent = false;
    one.notBeforeMs = this.#ctx.nowMs + Math.min(RETRY.maxMs, RETRY.baseMs * 2 ** Math.min(one.tries, 8));
    this.#ctx.wakeAt(one.notBeforeMs);
  }

  #finish(one: Waiting, result: CertifiedResult): void {
    if (!this.#waiting.includes(one)) return;
    this.#waiting = this.#waiting.filter((each) => each !== one);
    one.done(result);
  }

  /** As the leader: refuses what the state would refuse, and puts the rest into the log. */
  #lead(decision: Uint8Array, done: (answer: Answer) => void): void {
    const refused = this.#port.state!.examine(decision);
    if (refused) return done(refused);
    this.#port.propose(encodeCommand({ op: "decided", timeMs: this.#ctx.nowMs, decision }), done);
  }

  /** Serves `primary.decided`. */
  serve(peer: PeerView, body: CborValue, inboundId: number): CborValue | typeof DEFERRED {
    const port = this.#port;
    const { d, w } = readAsk(body, "primary.decided");
    if (!port.state) throw new Refusal("not-issuer", "this node runs no replica");
    if (port.leads) {
      this.#lead(d, (answer) => this.#reply(inboundId, answerValue(answer)));
      return DEFERRED;
    }
    const { leader } = port;
    if (w === 1 || leader === undefined || leader === peer.nodeId || !this.#ctx.sessions.get(leader)?.member) {
      return answerValue({ leader });
    }
    this.#ctx.call(leader, "primary.decided", { d, w: 1 }, CALL_MS, (result) => {
      if (!result.ok) port.doubt(leader);
      this.#reply(inboundId, result.ok ? result.body : answerValue({ leader: undefined }));
    });
    return DEFERRED;
  }

  #reply(inboundId: number, value: CborValue): void {
    this.#ctx.emit({ type: "reply", inboundId, body: encodeCbor(value) });
  }
}
