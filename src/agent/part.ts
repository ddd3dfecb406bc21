/**
 * What a part of the agent is to the whole: one protocol, joined to the others by the {@linkcode Context}.
 *
 * The agent asks its parts in their order. A part serves the methods that it names, does its regular work at
 * every step, and asks to be woken. Below it lies a pure protocol core that knows nothing of the other parts.
 *
 * @module
 */

import type { CborValue } from "../core/codec.ts";
import type { Method } from "./access_table.ts";
import type { DEFERRED } from "./context.ts";
import type { ControlRequest } from "./control.ts";
import type { PeerView } from "./effects.ts";

/** One protocol of the agent. */
export interface Part {
  /** Methods that it serves; who may call them stands in `access_table.ts`. */
  readonly methods: readonly Method[];
  /** Verbs of the person at the machine that it answers. */
  readonly verbs: readonly string[];
  /**
   * Serves a call of a member. `DEFERRED`: it answers with `ctx.reply` or `reply-error` in a later step.
   *
   * @throws {Refusal} With the code that the caller gets.
   * @throws {WireError} Where the body does not read.
   */
  serve(peer: PeerView, method: string, body: CborValue, inboundId: number): CborValue | typeof DEFERRED;
  /** Answers the person at the machine; `DEFERRED`: by a `control-reply` in a later step. @throws {Refusal} */
  answer(controlId: number, request: ControlRequest): unknown;
  /** First byte of the datagrams that are for it. */
  readonly datagramKind?: number;
  /** A datagram of a member, without that byte: lost, doubled and overtaken as datagrams are. Throws nothing but {@linkcode WireError}. */
  datagram?(from: string, bytes: Uint8Array): void;
  /** The node has started, or has just become a member of a network: what is in the store is in `ctx.state`. */
  start(): void;
  /** The network was forgotten; the part is as new. Its entries of the store are deleted by {@linkcode keys}. */
  clear(): void;
  /** Keys of the store that belong to the network and are deleted with it. */
  keys(): readonly string[];
  /** A member has shown its credential on a channel. */
  sessionUp?(nodeId: string): void;
  /** The channel to a node has closed, for a reason as {@linkcode NetworkHandlers.onPeerGone} gives it. */
  sessionDown?(nodeId: string, reason: string): void;
  /** Regular work, after every event; returns when it wants to be woken, `Infinity` for never. */
  wake(): number;
  /**
   * The chain of authority was replaced by that of the other half of a split: what rests on the old one is void.
   *
   * @param newPrimary The Primary Spore was recovered from a lost majority on one side since: the replicas of this
   * side have another history.
   */
  authorityReplaced?(newPrimary: boolean): void;
  /** The clock was set back: times that were set with it count no longer. */
  clockSetBack(): void;
}
