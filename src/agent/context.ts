/**
 * What the parts of the agent share while one step runs: the state, the time, and the effects so far.
 *
 * @module
 */

import { type CborValue, decodeCbor, encodeCbor, WireError } from "../core/codec.ts";
import type { Entropy, Rng } from "../core/rng.ts";
import type { Role } from "../core/roles.ts";
import type { Capabilities } from "../core/capabilities.ts";
import type { AuditEvent } from "../access/audit.ts";
import type { Subject } from "../access/decide.ts";
import type { AgentEffect, CallFailure, PeerView } from "./effects.ts";
import type { NodeState, Put } from "./state.ts";

/** What the person at the machine has set. */
export interface AgentConfig {
  /** Name that the node would like, a DNS label. */
  readonly name: string;
  /** Role that it would like; `auto`: what the machine is fit for. */
  readonly role: Role | "auto";
  readonly pool: string;
  /** Version of the program. */
  readonly version: string;
  /** Addresses of members that a person named. */
  readonly addresses: readonly string[];
  /** Lifetime of credentials that it issues. */
  readonly credentialLifetimeMs: number;
}

/** How a call of ours ended. */
export type CallResult = { readonly ok: true; readonly body: CborValue; readonly elapsedMs: number } | CallFailure;

/** A channel and whether the other end has shown that it is a member. */
export interface Session {
  readonly peer: PeerView;
  member: boolean;
  /** Our side has been shown to the other. */
  introduced: boolean;
  /** Smoothed time of small calls, network and the other end's work together. */
  rttMs?: number;
}

/** Ways in, for the audit log, by who came. */
const ENTRANCES: { readonly [K in Subject["kind"]]: string } = {
  local: "socket",
  self: "node",
  operator: "http",
  service: "http",
  node: "rpc",
  reader: "http",
  anyone: "http",
};

/** Entries of one action that others can bring about without end, in a minute. */
export const AUDITED_MAX = 30;

/** Actions that did not come to pass. */
const REFUSED = /-(refused|denied|replayed|wrong)$|^(denied|locked-out)$/;

/** Shared by the parts of one agent. */
export class Context {
  nowMs = 0;
  effects: AgentEffect[] = [];
  /** Open channels by node. */
  readonly sessions: Map<string, Session> = new Map();
  /** Addresses where this node listens. */
  addresses: readonly string[] = [];
  capabilities: Capabilities | undefined;
  /** Who asks, while a control request is answered. */
  by: Subject = { kind: "self", id: "", name: "this node", secondFactor: "none" };
  /** Told of what is written down and of what is refused, at once: it looks for incidents. */
  watch: {
    audited(action: string, by: string, target: string): void;
    refused(reason: string, from: string): void;
    /** A proof was checked that a node has done what no honest one does. */
    proved(nodeId: string, what: string): void;
  } | undefined;
  #nextId = 1;
  /** Entries of the running minute by action, of those that are bounded. */
  readonly #audited = new Map<string, { readonly sinceMs: number; count: number }>();
  readonly #calls = new Map<number, (result: CallResult) => void>();
  readonly #dials = new Map<number, (result: { readonly ok: true; readonly nodeId: string } | CallFailure) => void>();
  #wakeAtMs: number | undefined;

  constructor(
    readonly state: NodeState,
    readonly config: AgentConfig,
    readonly rng: Rng,
    readonly entropy: Entropy,
  ) {}

  emit(...effects: readonly AgentEffect[]): void {
    this.effects.push(...effects);
  }

  /** Stores; what `then` emits follows only once it is durable. */
  persist(puts: readonly Put[], then: () => void = () => {}): void {
    const outer = this.effects;
    this.effects = [];
    try {
      then();
    } finally {
      const inner = this.effects;
      this.effects = outer;
      outer.push({ type: "persist", puts, then: inner });
    }
  }

  /** Calls a method; `done` runs in a later step. */
  call(nodeId: string, method: string, value: CborValue, timeoutMs: number, done: (result: CallResult) => void): void {
    const callId = this.#nextId++;
    this.#calls.set(callId, (result) => {
      const session = this.sessions.get(nodeId);
      // Smoothed as in RFC 6298: an eighth of each new sample.
      if (result.ok && session) session.rttMs = (session.rttMs ?? result.elapsedMs) * 0.875 + result.elapsedMs * 0.125;
      done(result);
    });
    this.emit({ type: "call", callId, nodeId, method, body: encodeCbor(value), timeoutMs });
  }

  /** Open calls and dials are not answered any more. */
  forgetCalls(): void {
    this.#calls.clear();
    this.#dials.clear();
  }

  /** Dials an address; `done` runs in a later step. */
  dial(
    address: string,
    trusted: boolean,
    done: (result: { readonly ok: true; readonly nodeId: string } | CallFailure) => void,
  ): void {
    const dialId = this.#nextId++;
    this.#dials.set(dialId, done);
    this.emit({ type: "dial", dialId, address, trusted });
  }

  /** The driver reports the end of a call. */
  callDone(
    callId: number,
    result: { readonly ok: true; readonly body: Uint8Array; readonly elapsedMs: number } | CallFailure,
  ): void {
    const done = this.#calls.get(callId);
    this.#calls.delete(callId);
    if (!done) return;
    if (!result.ok) return done(result);
    let body: CborValue;
    try {
      body = decodeCbor(result.body);
    } catch (error) {
      // A peer's answer that does not read is its fault, not ours.
      if (!(error instanceof WireError)) throw error;
      return done({ ok: false, code: "bad-answer", message: error.message });
    }
    done({ ok: true, body, elapsedMs: result.elapsedMs });
  }

  /** The driver reports the end of a dial. */
  dialDone(dialId: number, result: { readonly ok: true; readonly nodeId: string } | CallFailure): void {
    const done = this.#dials.get(dialId);
    this.#dials.delete(dialId);
    done?.(result);
  }

  /**
   * Answers a call of another node. What was stored on the way to the answer is durable before it leaves.
   *
   * @param before Effects that the step had when the work on the call began.
   */
  reply(inboundId: number, value: CborValue, before: number): void {
    const reply = { type: "reply", inboundId, body: encodeCbor(value) } as const;
    const persist = this.effects.slice(before).findLast((one) => one.type === "persist");
    if (persist?.type === "persist") (persist.then as AgentEffect[]).push(reply);
    else this.emit(reply);
  }

  /** Asks to be woken at a time; the earliest of a step counts. */
  wakeAt(atMs: number): void {
    if (this.#wakeAtMs === undefined || atMs < this.#wakeAtMs) this.#wakeAtMs = atMs;
  }

  /** Takes the wake-up that the step asked for. */
  takeWake(): number | undefined {
    const atMs = this.#wakeAtMs;
    this.#wakeAtMs = undefined;
    return atMs;
  }

  log(
    level: "debug" | "info" | "warn" | "error",
    event: string,
    message: string,
    fields: { readonly [name: string]: string | number | boolean } = {},
  ): void {
    this.emit({ type: "log", level, event, message, fields });
  }

  /**
   * Writes something down that matters for security.
   *
   * @param by Who did it; the id of this node while somebody's request is answered: whoever asks.
   */
  audit(
    action: string,
    by: string,
    detail: string,
    more: Pick<AuditEvent, "target" | "outcome" | "entrance"> = {},
  ): void {
    const { kind, id } = this.by;
    const who = by !== this.state.nodeId || kind === "self" ? by : id === "" ? kind : `${kind}:${id}`;
    const outcome = REFUSED.test(action) ? "refused" : "ok";
    this.emit({ type: "audit", action, by: who, detail, entrance: ENTRANCES[kind], outcome, ...more });
    this.watch?.audited(action, who, more.target ?? "");
  }

  /**
   * As {@linkcode Context.audit}, of what others can bring about without end: an entry costs a sync of the disk, and pushes
   * the oldest ones out of the log. Beyond {@linkcode AUDITED_MAX} of one action in a minute only the rules are told.
   */
  auditBounded(
    action: string,
    by: string,
    detail: string,
    more: Pick<AuditEvent, "target" | "outcome" | "entrance"> = {},
  ): void {
    const known = this.#audited.get(action);
    const minute = known && Math.abs(this.nowMs - known.sinceMs) <= 60_000 ? known : { sinceMs: this.nowMs, count: 0 };
    this.#audited.set(action, minute);
    minute.count += 1;
    if (minute.count < AUDITED_MAX) this.audit(action, by, detail, more);
    else if (minute.count > AUDITED_MAX) this.watch?.audited(action, by, more.target ?? "");
    else this.audit(action, by, `${detail}; more in this minute are only counted`, more);
  }

  /** Counts a refusal. @param from Node or address that asked. */
  refuse(reason: string, from: string): void {
    this.emit({ type: "refused", reason, from });
    this.watch?.refused(reason, from);
  }

  /** Nodes with a channel that have shown that they are members. */
  memberPeers(): string[] {
    return [...this.sessions].filter(([, session]) => session.member).map(([nodeId]) => nodeId);
  }
}

/** The answer to a request comes in a later step. */
export const DEFERRED: unique symbol = Symbol("deferred");

/** A request that is answered with an error: the code travels, the message is for people. */
export class Refusal extends Error {
  override readonly name = "Refusal";
  constructor(readonly code: string, message: string, readonly cure: string = "") {
    super(message);
  }
}
