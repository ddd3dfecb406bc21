/**
 * This node as a client of the Primary Spore: a session, numbered writes, and who to ask.
 *
 * A write is tried again until it is answered or its time is over; with the session's numbers it counts once,
 * however often it arrives. Whoever leads is asked directly; where that is not known or not reachable, any issuer
 * passes the request on.
 *
 * @module
 */

import { array, type CborValue, optional, record, uint, WireError } from "../core/codec.ts";
import { type Envelope, envelopeValue, readEnvelope } from "../core/envelope.ts";
import { readNodeId } from "../core/ids.ts";
import { LIMITS } from "../core/limits.ts";
import { type Command, type CommandResult, readResultCode, type ResultCode } from "../spore/state_machine.ts";

/** How a write ended. */
export type WriteResult =
  | { readonly ok: true; readonly code: "ok" | "unchanged"; readonly index: number }
  /** `timeout`: it may still happen. */
  | {
    readonly ok: false;
    readonly code: Exclude<ResultCode, "ok" | "unchanged"> | "timeout" | "overloaded";
    readonly index: number;
  };

/** One request of a client, without the date that the leader gives it. */
export type ClientRequest =
  | { readonly op: "open" }
  | {
    readonly op: "write";
    readonly session: number;
    readonly seq: number;
    readonly floor: number;
    readonly envelope: Envelope;
    readonly expect?: number;
  };

/** What a batch of requests led to: answers in order, or who leads as far as that is known. */
export type BatchAnswer =
  | { readonly ok: true; readonly results: readonly CommandResult[] }
  | { readonly ok: false; readonly leader: string | undefined };

/** Requests in one batch. */
export const BATCH_MAX = 64;
/** Bytes of records in one batch: with what surrounds them it fits a frame. */
const BATCH_BYTES_MAX = 400 << 10;
/** Batches under way. */
const IN_FLIGHT_MAX = 4;
/**
 * While a batch is under way those that come wait so long for its answer, to go together: each batch costs the primaries
 * as much as a dozen writes.
 */
const GATHER_MS = 10;
/** Writes that wait, all together; more are refused `overloaded`. */
const WAITING_MAX = 4_096;
/** First wait before a batch is tried again. */
const RETRY_MS = 30;

const readRequest = record({
  s: optional(uint()),
  n: optional(uint(Number.MAX_SAFE_INTEGER, 1)),
  f: optional(uint()),
  e: optional(readEnvelope),
  x: optional(uint()),
});
const readResult = (value: CborValue | undefined, path: string): CommandResult => {
  if (!Array.isArray(value) || value.length !== 2) throw new WireError(`Cannot read ${path}: wanted code and index`);
  const [code, index] = value as readonly CborValue[];
  return { code: readResultCode(code, path), index: uint()(index, path) };
};
const readAnswer = record({
  r: optional(array(readResult, BATCH_MAX)),
  l: optional(readNodeId),
});

/** Reads the requests of a batch. @throws {WireError} */
export const readRequests = (value: CborValue | undefined, path: string): readonly ClientRequest[] =>
  array(readRequest, BATCH_MAX)(value, path).map(({ s, n, f, e, x }): ClientRequest => {
    if (s === undefined) return { op: "open" };
    if (n === undefined || f === undefined || e === undefined) throw new WireError(`Cannot read ${path}: half a write`);
    return { op: "write", session: s, seq: n, floor: f, envelope: e, ...(x === undefined ? {} : { expect: x }) };
  });

/** Requests as a value for the codec. */
export function requestsValue(requests: readonly ClientRequest[]): CborValue {
  return requests.map((one) =>
    one.op === "open" ? {} : { s: one.session, n: one.seq, f: one.floor, e: envelopeValue(one.envelope), x: one.expect }
  );
}

/** An answer as a value for the codec. */
export function answerValue(answer: BatchAnswer): CborValue {
  return answer.ok ? { r: answer.results.map((one) => [one.code, one.index]) } : { l: answer.leader };
}

/** Reads an answer. @throws {WireError} */
export function readBatchAnswer(value: CborValue): BatchAnswer {
  const { r, l } = readAnswer(value, "primary.propose");
  return r ? { ok: true, results: r } : { ok: false, leader: l };
}

/** A request as the command that the leader puts into the log. */
export function commandOf(request: ClientRequest, client: string, timeMs: number): Command {
  return { ...request, client, timeMs };
}

/** Says what stands where another version was expected; index 0: nothing does. */
export function conflictText(index: number): string {
  return index > 0 ? `another version stands there, index ${index}` : "nothing stands there";
}

/** What the client needs of its part. */
export interface ClientPort {
  readonly nowMs: number;
  /** Asks whoever is best asked after so many tries; `done` is called once, later. `false`: nobody is there. */
  ask(
    requests: readonly ClientRequest[],
    tries: number,
    timeoutMs: number,
    done: (answer: BatchAnswer | undefined) => void,
  ): boolean;
}

interface Op {
  readonly envelope: Envelope;
  readonly expect: number | undefined;
  deadlineMs: number;
  readonly bytes: number;
  readonly done: (result: WriteResult) => void;
  seq: number;
  sent: boolean;
  notBeforeMs: number;
  tries: number;
  /** An earlier session may have carried it out. */
  doubtful: boolean;
}

/** This node as a client. */
export class PrimaryClient {
  readonly #port: ClientPort;
  #session: number | undefined;
  #opening = false;
  #openAfterMs = 0;
  #openTries = 0;
  #seq = 1;
  /** Writes without an answer, in the order of their numbers. */
  #ops: Op[] = [];
  #inFlight = 0;
  #sentMs = 0;
  #life = 0;

  constructor(port: ClientPort) {
    this.#port = port;
  }

  /** Writes without an answer. */
  get waiting(): number {
    return this.#ops.length;
  }

  /** Writes a record. `done` is called once, at once or in a later step. */
  write(
    envelope: Envelope,
    options: { readonly expect?: number; readonly timeoutMs: number },
    done: (result: WriteResult) => void,
  ): void {
    if (this.#ops.length >= WAITING_MAX) return done({ ok: false, code: "overloaded", index: 0 });
    this.#ops.push({
      envelope,
      expect: options.expect,
      deadlineMs: this.#port.nowMs + options.timeoutMs,
      bytes: envelope.payload.length + 200,
      done,
      seq: 0,
      sent: false,
      notBeforeMs: 0,
      tries: 0,
      doubtful: false,
    });
  }

  /** Nothing is waited for any more. */
  clear(): void {
    this.#life += 1;
    const ops = this.#ops;
    this.#ops = [];
    this.#session = undefined;
    this.#opening = false;
    this.#inFlight = 0;
    for (const op of ops) op.done({ ok: false, code: "timeout", index: 0 });
  }

  /** Who leads has changed: those that wait for their next try need not. */
  hurry(): void {
    this.#openAfterMs = 0;
    for (const op of this.#ops) op.notBeforeMs = 0;
  }

  /** The clock was set back: deadlines that were set with it count from now. */
  clockSetBack(): void {
    for (const op of this.#ops) {
      op.deadlineMs = this.#port.nowMs + 5_000;
      op.notBeforeMs = 0;
    }
    this.#openAfterMs = 0;
  }

  /** Sends what can be sent; returns when it wants to be woken. */
  wake(): number {
    const { nowMs } = this.#port;
    const late = this.#ops.filter((op) => op.deadlineMs <= nowMs);
    if (late.length > 0) {
      this.#ops = this.#ops.filter((op) => op.deadlineMs > nowMs);
      for (const op of late) op.done({ ok: false, code: "timeout", index: 0 });
    }
    if (this.#ops.length === 0) return Infinity;
    if (this.#session === undefined) {
      if (!this.#opening && nowMs >= this.#openAfterMs) this.#open();
    } else while (this.#sendBatch(this.#session));
    let nextMs = this.#session === undefined && !this.#opening ? this.#openAfterMs : Infinity;
    for (const op of this.#ops) {
      nextMs = Math.min(nextMs, op.deadlineMs);
      if (op.sent || this.#session === undefined) continue;
      if (op.notBeforeMs > nowMs) nextMs = Math.min(nextMs, op.notBeforeMs);
      else if (this.#sentMs + GATHER_MS > nowMs) nextMs = Math.min(nextMs, this.#sentMs + GATHER_MS);
    }
    return nextMs;
  }

  #open(): void {
    this.#opening = true;
    const life = this.#life;
    const tries = this.#openTries++;
    const asked = this.#port.ask([{ op: "open" }], tries, timeoutOf(tries), (answer) => {
      if (life !== this.#life) return;
      this.#opening = false;
      const result = answer?.ok ? answer.results[0] : undefined;
      if (result?.code === "ok") {
        this.#session = result.index;
        this.#seq = 1;
        this.#openTries = 0;
      } else this.#openAfterMs = this.#port.nowMs + waitOf(tries);
    });
    if (!asked) {
      this.#opening = false;
      this.#openAfterMs = this.#port.nowMs + waitOf(tries);
    }
  }

  #sendBatch(session: number): boolean {
    if (this.#inFlight >= IN_FLIGHT_MAX) return false;
    const { nowMs } = this.#port;
    if (this.#inFlight > 0 && nowMs >= this.#sentMs && nowMs < this.#sentMs + GATHER_MS) {
      const ready = this.#ops.reduce((count, op) => count + Number(!op.sent && op.notBeforeMs <= nowMs), 0);
      if (ready < BATCH_MAX) return false;
    }
    const batch: Op[] = [];
    let size = 0;
    // No more than answers are kept for, counted from the oldest without one.
    const lowest = this.#ops.find((op) => op.seq > 0)?.seq ?? this.#seq;
    for (const op of this.#ops) {
      if (op.sent || op.notBeforeMs > nowMs) continue;
      if (batch.length > 0 && size + op.bytes > BATCH_BYTES_MAX || batch.length >= BATCH_MAX) break;
      if (op.seq === 0) {
        if (this.#seq - lowest >= LIMITS.primaryWindowMax / 2) break;
        op.seq = this.#seq++;
      }
      batch.push(op);
      size += op.bytes;
    }
    if (batch.length === 0) return false;
    const floor = Math.min(...this.#ops.filter((op) => op.seq > 0).map((op) => op.seq));
    const tries = Math.max(...batch.map((op) => op.tries));
    for (const op of batch) {
      op.sent = true;
      op.tries += 1;
    }
    this.#inFlight += 1;
    this.#sentMs = nowMs;
    const life = this.#life;
    const requests = batch.map((op): ClientRequest => ({
      op: "write",
      session,
      seq: op.seq,
      floor,
      envelope: op.envelope,
      ...(op.expect === undefined ? {} : { expect: op.expect }),
    }));
    const asked = this.#port.ask(requests, tries, timeoutOf(tries), (answer) => {
      if (life !== this.#life) return;
      this.#inFlight -= 1;
      this.#settle(session, batch, answer);
    });
    if (!asked) {
      this.#inFlight -= 1;
      for (const op of batch) this.#again(op, tries);
      return false;
    }
    return true;
  }

  #settle(session: number, batch: readonly Op[], answer: BatchAnswer | undefined): void {
    for (const [i, op] of batch.entries()) {
      const result = answer?.ok ? answer.results[i] : undefined;
      if (!result || result.code === "window") {
        // Told that another one leads, nothing happened here; without an answer it may have.
        if (!answer) op.doubtful = true;
        this.#again(op, answer && !answer.ok ? Math.min(op.tries - 1, 3) : op.tries - 1);
      } else if (result.code === "session-unknown") {
        if (this.#session === session) this.#session = undefined;
        op.sent = false;
      } else this.#finish(op, result);
    }
    // Numbers of a session that is over mean nothing to the next one.
    if (this.#session !== session) {
      for (const op of this.#ops.filter((one) => !one.sent && one.seq > 0)) this.#renumber(op);
    }
  }

  #renumber(op: Op): void {
    op.seq = 0;
    if (op.doubtful) this.#finish(op, { code: "session-unknown", index: 0 });
  }

  #again(op: Op, tries: number): void {
    op.sent = false;
    op.notBeforeMs = this.#port.nowMs + waitOf(tries);
  }

  #finish(op: Op, { code, index }: CommandResult): void {
    if (!this.#ops.includes(op)) return;
    this.#ops = this.#ops.filter((one) => one !== op);
    op.done(code === "ok" || code === "unchanged" ? { ok: true, code, index } : { ok: false, code, index });
  }
}

/** How long an answer is waited for: longer each time, since a slow one is better than two. */
function timeoutOf(tries: number): number {
  return Math.min(4_000, 400 * 2 ** Math.min(tries, 8));
}

function waitOf(tries: number): number {
  return Math.min(1_000, RETRY_MS * 2 ** Math.min(tries, 8));
}
