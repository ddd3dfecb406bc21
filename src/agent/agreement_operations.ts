/**
 * What this node wants decided: from the wish to the answer of the Primary Spore.
 *
 * One wish per key is under way at a time, since each names the version that it replaces. A node that does not vote asks
 * one that does.
 *
 * @module
 */

import { equalBytes } from "../core/bytes.ts";
import { type CborValue, optional, record, text, uint, WireError } from "../core/codec.ts";
import type { Envelope } from "../core/envelope.ts";
import type { Certificate } from "../consensus/certificate.ts";
import type { RefusalReason, Submit } from "../consensus/effects.ts";
import { bitOf, type Operation, type OperationClass } from "../consensus/statements.ts";
import type { Voter } from "../consensus/weights.ts";
import { ownerOf } from "../spore/keys.ts";
import { readSpore, RECORD_LIFE_MS_MAX, sealSpore, type Spore } from "../spore/record.ts";
import { decodeRecordPut, encodeRecordPut, RECORD_PUT, suffices } from "./agreed.ts";
import type { CertifiedResult } from "./certified.ts";
import { type Context, Refusal } from "./context.ts";

/** How a wish ended. */
export type OperationResult =
  | {
    readonly ok: true;
    /** Hexadecimal. */
    readonly instance: string;
    /** Place in the Primary Spore's log; missing where it is certified and not applied yet. */
    readonly index?: number;
    readonly round: number;
    readonly signers: number;
    readonly tookMs: number;
  }
  | { readonly ok: false; readonly code: string; readonly message: string };

/** A wish. */
export interface PutRequest {
  readonly key: string;
  /** Missing: deletes. */
  readonly value: Uint8Array | undefined;
  /** At least what the key asks for, which is the default. */
  readonly class?: OperationClass;
  /** 0 (background) to 7 (urgent). */
  readonly priority?: number;
  /** Whose it is: lanes take turns. */
  readonly lane?: string;
  readonly basis?: Uint8Array;
  readonly proofs?: readonly Envelope[];
  /** Date of the record; now, unless its content depends on it. Such a wish is not made anew by itself. */
  readonly atMs?: number;
  /** The version that is to be replaced, empty for none; missing: whatever stands there. */
  readonly expect?: Uint8Array;
  /** @default 60 s */
  readonly timeoutMs?: number;
}

/** Where a wish stands. */
export type OperationState = "waiting" | "queued" | "voting" | "decided" | "applied" | "failed" | "cancelled";

/** A wish, for lists. */
export interface OperationView {
  readonly id: number;
  readonly key: string;
  readonly class: string;
  readonly priority: number;
  readonly lane: string;
  readonly state: OperationState;
  readonly instance?: string;
  readonly createdMs: number;
  readonly endedMs?: number;
  readonly reason?: string;
}

interface Op {
  readonly id: number;
  readonly key: string;
  readonly class: OperationClass;
  readonly priority: number;
  readonly lane: string;
  /** Missing where the operation was made elsewhere. */
  readonly request?: PutRequest;
  operation: Operation | undefined;
  /** The version that it is to replace. */
  replaces: Uint8Array;
  state: OperationState;
  instance: string | undefined;
  certificate: Certificate | undefined;
  readonly createdMs: number;
  deadlineMs: number;
  endedMs: number | undefined;
  reason: string | undefined;
  tries: number;
  notBeforeMs: number;
  cancelling: ((done: boolean) => void)[];
  done: ((result: OperationResult) => void) | undefined;
}

/** What it needs. */
export interface OperationsPort {
  readonly ctx: Context;
  readonly current: (key: string) => Spore | undefined;
  readonly classOf: (key: string) => OperationClass | undefined;
  readonly voters: () => readonly Voter[];
  readonly submit: (submits: readonly Submit[]) => void;
  readonly cancel: (id: number) => void;
}

/** Wishes that are not over; more are refused. */
const OPEN_MAX = 1_024;
/** The same of one lane: a member that asks, a part of this node. */
const OPEN_PER_LANE_MAX = 256;
/** Wishes that are over and still shown. */
const ENDED_MAX = 128;
const TIMEOUT_MS = 60_000;
/** A wish that was overtaken is made anew so often. */
const TRIES_MAX = 3;
const AGAIN_MS = 300;
const FINAL: ReadonlySet<OperationState> = new Set(["applied", "failed", "cancelled"]);

const readForwarded = record({
  ok: uint(1),
  i: optional(text(64)),
  x: optional(uint()),
  c: optional(text(64)),
  m: optional(text(400)),
});

/** Wishes of this node. */
export class Operations {
  readonly #port: OperationsPort;
  readonly #ops = new Map<number, Op>();
  readonly #byInstance = new Map<string, readonly number[]>();
  #next = 1;

  constructor(port: OperationsPort) {
    this.#port = port;
  }

  clear(): void {
    for (const op of this.#ops.values()) this.#end(op, "failed", "network-forgotten");
    this.#ops.clear();
    this.#byInstance.clear();
  }

  clockSetBack(): void {
    for (const op of this.#ops.values()) {
      op.deadlineMs = this.#port.ctx.nowMs + TIMEOUT_MS;
      op.notBeforeMs = 0;
    }
  }

  /** Wishes, oldest first. */
  list(): readonly OperationView[] {
    return [...this.#ops.values()].map((one) => ({
      id: one.id,
      key: one.key,
      class: one.class,
      priority: one.priority,
      lane: one.lane,
      state: one.state,
      createdMs: one.createdMs,
      ...(one.instance === undefined ? {} : { instance: one.instance }),
      ...(one.endedMs === undefined ? {} : { endedMs: one.endedMs }),
      ...(one.reason === undefined ? {} : { reason: one.reason }),
    }));
  }

  /** Whether a wish for a key is under way. */
  isBusy(key: string): boolean {
    for (const one of this.#ops.values()) if (one.key === key && !FINAL.has(one.state)) return true;
    return false;
  }

  /**
   * Has a record changed by agreement. `done` is called once, now or in a later step.
   *
   * @returns Number of the wish, for {@linkcode cancel}.
   */
  put(request: PutRequest, done: (result: OperationResult) => void): number {
    if (!ownerOf(request.key)) {
      done(failure("bad-request", 'it is no key, wanted one such as "app/…", "net/…" or "agreed/…"'));
      return 0;
    }
    const wanted = this.#port.classOf(request.key);
    if (!wanted) {
      done(failure("not-agreeable", `Nothing is agreed under "${request.key}": that is one node's own word`));
      return 0;
    }
    const level = request.class ?? wanted;
    if (!suffices(level, wanted)) {
      done(failure("class-too-low", `"${request.key}" asks for ${wanted} agreement, ${level} is less`));
      return 0;
    }
    return this.#add({
      key: request.key,
      class: level,
      priority: request.priority ?? (level === "critical" ? 5 : 3),
      lane: request.lane ?? "local",
      request,
      operation: undefined,
      timeoutMs: request.timeoutMs ?? TIMEOUT_MS,
    }, done);
  }

  /** Has an operation decided that its author has made. */
  take(
    operation: Operation,
    options: {
      readonly class: OperationClass;
      readonly priority: number;
      readonly lane: string;
      /** @default 60 s */
      readonly timeoutMs?: number;
    },
    done: (result: OperationResult) => void,
  ): number {
    const { key } = readSpore(decodeRecordPut(operation.body).envelope).record;
    const wanted = this.#port.classOf(key);
    if (!wanted || !suffices(options.class, wanted)) {
      done(failure("class-too-low", `"${key}" asks for ${wanted ?? "no"} agreement`));
      return 0;
    }
    const { timeoutMs = TIMEOUT_MS, ...rest } = options;
    return this.#add({ key, ...rest, operation, timeoutMs }, done);
  }

  #add(
    one: Pick<Op, "key" | "class" | "priority" | "lane" | "operation"> & {
      readonly request?: PutRequest;
      readonly timeoutMs: number;
    },
    done: (result: OperationResult) => void,
  ): number {
    const { ctx } = this.#port;
    const { timeoutMs, ...rest } = one;
    const open = [...this.#ops.values()].filter((op) => !FINAL.has(op.state));
    // One who asks for much does not take the room of the others.
    if (open.length >= OPEN_MAX || open.filter((op) => op.lane === one.lane).length >= OPEN_PER_LANE_MAX) {
      done(failure("overloaded", "too much waits to be decided"));
      return 0;
    }
    const id = this.#next++;
    this.#ops.set(id, {
      id,
      ...rest,
      replaces: new Uint8Array(0),
      state: "waiting",
      instance: undefined,
      certificate: undefined,
      createdMs: ctx.nowMs,
      deadlineMs: ctx.nowMs + timeoutMs,
      endedMs: undefined,
      reason: undefined,
      tries: 0,
      notBeforeMs: 0,
      cancelling: [],
      done,
    });
    ctx.wakeAt(ctx.nowMs);
    return id;
  }

  /** Takes a wish back; `done` hears whether that was in time. */
  cancel(id: number, done: (done: boolean) => void): void {
    const op = this.#ops.get(id);
    if (!op || FINAL.has(op.state) || op.state === "decided" || op.state === "voting") return done(false);
    if (op.state === "waiting") {
      this.#end(op, "cancelled", "cancelled");
      return done(true);
    }
    op.cancelling.push(done);
    this.#port.cancel(id);
  }

  // --- What the core says.

  queued(id: number): void {
    const op = this.#ops.get(id);
    if (op && op.state === "waiting") op.state = "queued";
  }

  refused(id: number, reason: RefusalReason): void {
    const op = this.#ops.get(id);
    if (op) this.#end(op, "failed", reason);
  }

  cancelled(id: number, done: boolean): void {
    const op = this.#ops.get(id);
    if (!op) return;
    if (done) this.#end(op, "cancelled", "cancelled");
    for (const tell of op.cancelling.splice(0)) tell(done);
  }

  proposed(instance: string, ids: readonly number[]): void {
    this.#byInstance.set(instance, ids);
    for (const id of ids) {
      const op = this.#ops.get(id);
      if (!op) continue;
      op.state = "voting";
      op.instance = instance;
    }
  }

  decided(instance: string, certificate: Certificate): void {
    for (const [i, id] of (this.#byInstance.get(instance) ?? []).entries()) {
      const op = this.#ops.get(id);
      if (!op || FINAL.has(op.state)) continue;
      op.certificate = certificate;
      if (bitOf(certificate.outcome, i)) op.state = "decided";
      else this.#again(op, "rejected", "the voters have refused it");
    }
  }

  failed(instance: string, reason: string): void {
    const ids = this.#byInstance.get(instance) ?? [];
    this.#byInstance.delete(instance);
    for (const id of ids) {
      const op = this.#ops.get(id);
      if (op && !FINAL.has(op.state)) this.#again(op, "not-decided", `no decision: ${reason}`);
    }
  }

  /** The Primary Spore has said what became of a decision. */
  applied(instance: string, result: CertifiedResult): void {
    const ids = this.#byInstance.get(instance) ?? [];
    this.#byInstance.delete(instance);
    for (const [i, id] of ids.entries()) {
      const op = this.#ops.get(id);
      if (!op || op.state !== "decided") continue;
      if (!result.ok) {
        this.#again(op, result.code, `the Primary Spore has refused it: ${result.code}`);
        continue;
      }
      const code = result.outcomes[i] ?? "ok";
      if (code === "ok" || code === "unchanged") this.#end(op, "applied", undefined, result.index);
      else this.#again(op, code, `the Primary Spore has refused it: ${code}`);
    }
  }

  /** Another voter signed alone what this node would not have: a committee is to look at it. */
  dispute(operations: readonly Operation[]): void {
    for (const operation of operations) {
      try {
        this.take(operation, { class: "standard", priority: 6, lane: "audit" }, () => {});
      } catch (error) {
        if (!(error instanceof WireError)) throw error;
      }
    }
  }

  /** Starts what can be started; returns when it wants to be woken. */
  wake(): number {
    const { ctx } = this.#port;
    let next = Infinity;
    const busy = new Set<string>();
    for (const op of this.#ops.values()) {
      if (op.state !== "waiting" && !FINAL.has(op.state)) busy.add(op.key);
    }
    const submits: Submit[] = [];
    for (const op of [...this.#ops.values()]) {
      if (FINAL.has(op.state)) continue;
      if (ctx.nowMs >= op.deadlineMs) {
        this.#late(op);
        continue;
      }
      next = Math.min(next, op.deadlineMs);
      if (op.state !== "waiting") continue;
      if (op.notBeforeMs > ctx.nowMs) {
        next = Math.min(next, op.notBeforeMs);
        continue;
      }
      if (busy.has(op.key)) continue;
      busy.add(op.key);
      const submit = this.#launch(op);
      if (submit) submits.push(submit);
    }
    if (submits.length > 0) this.#port.submit(submits);
    return next;
  }

  #launch(op: Op): Submit | undefined {
    const { ctx } = this.#port;
    op.tries += 1;
    if (op.request) {
      const made = this.#make(op.request);
      if ("code" in made) return void this.#end(op, "failed", made.code, undefined, made.message);
      op.operation = made;
      op.replaces = this.#port.current(op.key)?.hash ?? new Uint8Array(0);
    }
    const { nodeId } = ctx.state;
    const voters = this.#port.voters();
    if (voters.some((one) => one.id === nodeId)) {
      op.state = "queued";
      return { id: op.id, class: op.class, lane: op.lane, priority: op.priority, operation: op.operation! };
    }
    this.#forward(op, voters);
    return undefined;
  }

  #make(request: PutRequest): Operation | { readonly code: string; readonly message: string } {
    const { ctx } = this.#port;
    const { state } = ctx;
    const current = this.#port.current(request.key);
    const standing = current?.hash ?? new Uint8Array(0);
    if (request.expect && !equalBytes(request.expect, standing)) {
      return { code: "conflict", message: `Another version stands under "${request.key}" than was expected` };
    }
    const issuedMs = request.atMs ?? ctx.nowMs;
    try {
      const { envelope } = sealSpore(
        {
          key: request.key,
          seq: Math.max(issuedMs, (current?.record.seq ?? 0) + 1),
          value: request.value,
          issuedMs,
          expiresMs: issuedMs + RECORD_LIFE_MS_MAX,
        },
        state.networkId,
        state.keyPair,
      );
      const { basis = new Uint8Array(0), proofs = [] } = request;
      return { kind: RECORD_PUT, body: encodeRecordPut({ envelope, replaces: standing, basis, proofs }) };
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      return { code: "bad-request", message: error.message };
    }
  }

  /** Asks a voter, the nearest one first, another one each time. */
  #forward(op: Op, voters: readonly Voter[]): void {
    const { ctx } = this.#port;
    const near = voters.filter((one) => ctx.sessions.get(one.id)?.member)
      .sort((a, b) => (ctx.sessions.get(a.id)!.rttMs ?? 1_000) - (ctx.sessions.get(b.id)!.rttMs ?? 1_000));
    const voter = near[(op.tries - 1) % Math.max(1, near.length)];
    if (!voter) return this.#again(op, "no-voter", "no voter can be reached");
    op.state = "voting";
    // It answers before this node stops waiting for it.
    const timeoutMs = Math.max(1_000, op.deadlineMs - ctx.nowMs);
    const body: CborValue = { b: op.operation!.body, c: op.class, p: op.priority, t: timeoutMs };
    ctx.call(voter.id, "agreement.submit", body, timeoutMs, (result) => {
      if (this.#ops.get(op.id) !== op || FINAL.has(op.state)) return;
      if (!result.ok) return this.#again(op, result.code, result.message);
      try {
        const { ok, i, x, c, m } = readForwarded(result.body, "agreement.submit");
        op.instance = i;
        if (ok === 1) this.#end(op, "applied", undefined, x);
        else this.#again(op, c ?? "failed", m ?? "");
      } catch (error) {
        if (!(error instanceof WireError)) throw error;
        this.#again(op, "bad-answer", error.message);
      }
    });
  }

  /** Once more, where that can help; otherwise it has failed. */
  #again(op: Op, code: string, message: string): void {
    const { ctx } = this.#port;
    // Who says no says it again, unless another version stands there now.
    const moved = op.request !== undefined &&
      !equalBytes(op.replaces, this.#port.current(op.key)?.hash ?? new Uint8Array(0));
    const helps = op.request?.atMs === undefined && op.tries < TRIES_MAX && RETRIED.has(code) &&
      (moved || !STATE_CODES.has(code));
    if (!helps) return this.#end(op, "failed", code, undefined, message);
    op.state = "waiting";
    op.notBeforeMs = ctx.nowMs + AGAIN_MS * op.tries;
    ctx.wakeAt(op.notBeforeMs);
  }

  #late(op: Op): void {
    if (op.state === "decided" && op.certificate) return this.#end(op, "applied", "not applied yet");
    this.#port.cancel(op.id);
    this.#end(op, "failed", "timeout", undefined, "no answer in time: it may still happen");
  }

  #end(op: Op, state: OperationState, reason: string | undefined, index?: number, message?: string): void {
    if (FINAL.has(op.state)) return;
    const { ctx } = this.#port;
    op.state = state;
    op.reason = reason;
    op.endedMs = ctx.nowMs;
    op.operation = undefined;
    const { done } = op;
    op.done = undefined;
    ctx.wakeAt(ctx.nowMs);
    done?.(
      state === "applied"
        ? {
          ok: true,
          instance: op.instance ?? "",
          ...(index === undefined ? {} : { index }),
          round: op.certificate?.round ?? 0,
          signers: (op.certificate?.signatures.length ?? 0) / 64,
          tookMs: ctx.nowMs - op.createdMs,
        }
        : failure(reason ?? state, message ?? reasonText(reason ?? state)),
    );
    const ended = [...this.#ops.values()].filter((one) => FINAL.has(one.state));
    for (const one of ended.slice(0, Math.max(0, ended.length - ENDED_MAX))) this.#ops.delete(one.id);
  }
}

/** Ends after which the same wish, made anew on what stands now, may succeed. */
const RETRIED: ReadonlySet<string> = new Set([
  "rejected",
  "conflict",
  "not-decided",
  "foreign-table",
  "no-voter",
  "not-voter",
  "unreachable",
  "timeout",
  "unavailable",
]);
/** Of these, those that come from another version standing there: the same operation would fail again. */
const STATE_CODES: ReadonlySet<string> = new Set(["rejected", "conflict"]);

function failure(code: string, message: string): OperationResult & { readonly ok: false } {
  return { ok: false, code, message };
}

function reasonText(reason: string): string {
  switch (reason) {
    case "overloaded":
      return "too much waits to be decided: try later";
    case "not-voter":
      return "this node does not vote any more";
    case "too-large":
      return "it is too large";
    case "cancelled":
      return "it was taken back";
    default:
      return reason;
  }
}

/** The result as an answer for a person. @throws {Refusal} Where it has failed. */
export function answerOf(key: string, result: OperationResult): object {
  if (!result.ok) throw new Refusal(result.code, `Cannot agree on "${key}": ${result.message}`, cureOf(result.code));
  const { ok: _, ...rest } = result;
  return { key, ...rest };
}

/** What would cure it. */
export function cureOf(code: string): string {
  switch (code) {
    case "class-too-low":
      return "Leave --class away, or name a higher one";
    case "not-decided":
    case "timeout":
    case "no-voter":
      return "See who answers: mycelium agreement status";
    case "rejected":
      return "The voters say no: see the rules in docs/guide/agreement.md";
    default:
      return "";
  }
}
