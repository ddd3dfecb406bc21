/**
 * What reaches the consensus core and what it wants done: the contract between the pure core and its driver.
 *
 * **Order.** The effects of one step are carried out in their order, those of one step before those of the next.
 *
 * **Durability.** A `persist` effect is atomic. When it is durable, the driver carries out `then` in order and afterwards
 * steps `persisted` with its `seq`. Nothing that a node has signed leaves before the record of it is durable, so a node that
 * crashes never says two things.
 *
 * @module
 */

import type { Certificate } from "./certificate.ts";
import type { Evidence } from "./evidence.ts";
import type { ConsensusMessage, OpenedSet } from "./messages.ts";
import type { Header, Operation, OperationClass, Proposal } from "./statements.ts";
import type { WeightTable } from "./weights.ts";

/** What can happen to the core. `nowMs` is the wall clock; it enters no message but as `expiresMs`. */
export type ConsensusEvent =
  /** First of all, with what `persist` has stored; `number` is 0 at first. */
  | {
    readonly type: "start";
    readonly nowMs: number;
    readonly stored: readonly StoredInstance[];
    readonly number: number;
  }
  | { readonly type: "wake"; readonly nowMs: number }
  /** `from` is the node that the channel has proved. */
  | { readonly type: "message"; readonly nowMs: number; readonly from: string; readonly message: ConsensusMessage }
  /**
   * Have these decided, in one batch where they fit; each is answered by `queued` or `refused`, later by `proposed`, and by
   * `decided` or `failed` of the instance that takes it.
   */
  | { readonly type: "submit"; readonly nowMs: number; readonly submits: readonly Submit[] }
  /** Not wanted any more; answered by `cancelled`. What is proposed already goes on: the others may have decided it. */
  | { readonly type: "cancel"; readonly nowMs: number; readonly id: number }
  /** The result of `verify`: one bit per operation. The same on every honest node. */
  | { readonly type: "verified"; readonly nowMs: number; readonly instance: Uint8Array; readonly vote: Uint8Array }
  /** Weights for instances to come; those under way keep theirs. */
  | { readonly type: "table"; readonly nowMs: number; readonly table: WeightTable }
  /** How many voters the next standard committee has, from quorum sizing. */
  | { readonly type: "committee"; readonly nowMs: number; readonly size: number }
  /** Voters that do not answer, all of them: rounds that they lead are left sooner. Wrong or missing, it costs time and nothing else. */
  | { readonly type: "silent"; readonly nowMs: number; readonly ids: ReadonlySet<string> }
  | { readonly type: "persisted"; readonly nowMs: number; readonly seq: number };

/** An operation that somebody wants decided. */
export interface Submit {
  /** The caller's own number for it, distinct. */
  readonly id: number;
  readonly class: OperationClass;
  /** Whose it is: lanes take turns. */
  readonly lane: string;
  /** 0 (background) to 7 (urgent). */
  readonly priority: number;
  readonly operation: Operation;
}

/** Why something asked for is not done. */
export type RefusalReason =
  /** Bounds are reached: slow down. */
  | "overloaded"
  /** No seat in the current table. */
  | "not-voter"
  | "too-large";

/** A fact about one voter in one instance, as this node has seen it: for the local trust score. */
export type VoterFact =
  /** Opened what was decided. */
  | "correct"
  /** Opened something else. */
  | "wrong"
  /** Not in the set that was decided. */
  | "missing"
  /** Committed, and its opening had to be recovered here. */
  | "withheld";

/** What the driver must do, in order. */
export type ConsensusEffect =
  | { readonly type: "send"; readonly to: string; readonly message: ConsensusMessage }
  /** Make durable, atomically; a record replaces the one of the same instance. Without content: a barrier. */
  | {
    readonly type: "persist";
    readonly seq: number;
    readonly put: readonly StoredInstance[];
    /** Instances that have expired. */
    readonly remove: readonly Uint8Array[];
    /** Highest number of an own proposal, where it has changed: kept for ever, a second proposal under one number is a fault. */
    readonly number: number | undefined;
    readonly then: readonly ConsensusEffect[];
  }
  /** Verify each operation and step `verified`. */
  | {
    readonly type: "verify";
    readonly instance: Uint8Array;
    readonly header: Header;
    readonly operations: readonly Operation[];
  }
  | { readonly type: "queued"; readonly id: number }
  | { readonly type: "refused"; readonly id: number; readonly reason: RefusalReason }
  | { readonly type: "cancelled"; readonly id: number; readonly done: boolean }
  /** The submitted operations with these ids go into this instance, in its order. */
  | { readonly type: "proposed"; readonly instance: Uint8Array; readonly ids: readonly number[] }
  /** Decided, once per instance and start. The certificate proves it to anybody. */
  | {
    readonly type: "decided";
    readonly instance: Uint8Array;
    readonly certificate: Certificate;
    /** Missing where only the certificate came. */
    readonly operations: readonly Operation[] | undefined;
    /** By node id; empty where this node has not seen the openings. */
    readonly facts: readonly { readonly voter: string; readonly fact: VoterFact }[];
  }
  /** Not decided here: too many rounds or too late. The network may have decided it all the same. */
  | { readonly type: "failed"; readonly instance: Uint8Array; readonly reason: "rounds" | "expired" }
  /** Anybody can check it. */
  | { readonly type: "evidence"; readonly evidence: Evidence }
  /** This node would not have signed that fast decision: have a committee look at it. */
  | { readonly type: "disputed"; readonly certificate: Certificate; readonly operations: readonly Operation[] }
  | { readonly type: "wakeAt"; readonly atMs: number }
  /** A message was not acted on: for the counters. */
  | { readonly type: "drop"; readonly from: string; readonly reason: DropReason };

/** Why a message was not acted on. */
export type DropReason =
  /** Of a round or an instance that is over. */
  | "stale"
  /** Not a voter, not the leader, or a part that it cannot have. */
  | "unexpected"
  /** Does not prove what it says: its sender is broken or lies. */
  | "invalid"
  /** Bounds are reached. */
  | "overloaded"
  /** Made under a table that is not known here. */
  | "foreign-table";

/** What a voter has said in an instance and must not contradict after a restart. */
export interface StoredInstance {
  readonly instance: Uint8Array;
  /** When it may be forgotten. */
  readonly expiresMs: number;
  /** Over: nothing is signed in it any more. */
  readonly settled: { readonly certificate: Certificate | undefined } | undefined;
  readonly voting: StoredVoting | undefined;
}

/** The part of a {@linkcode StoredInstance} that is under way. */
export interface StoredVoting {
  readonly proposal: Proposal;
  /** The table of the instance, before a committee was drawn. */
  readonly table: WeightTable;
  readonly round: number;
  readonly vote: Uint8Array | undefined;
  /** The one set that it has signed in its latest round. */
  readonly freezeVote: { readonly round: number; readonly value: Uint8Array } | undefined;
  /** The last precommit. */
  readonly lock: Lock | undefined;
  /** The newest opened set that it knows. */
  readonly valid: OpenedSet | undefined;
}

/** A precommit: what its voter may not leave for another set but by a later freeze certificate. */
export interface Lock {
  readonly round: number;
  readonly value: Uint8Array;
  readonly outcome: Uint8Array;
  readonly beacon: Uint8Array;
}

/** Bounds and times. */
export interface ConsensusOptions {
  /** Δ at first: what one message takes at most, milliseconds. Adapts between the two below. */
  readonly delayMs: number;
  readonly delayMsMin: number;
  readonly delayMsMax: number;
  /** Rounds until an instance has failed. */
  readonly roundsMax: number;
  /** Life of a proposal, milliseconds. */
  readonly lifeMs: number;
  /** Own instances under way at once. */
  readonly pipelineMax: number;
  /** Operations of one own instance. */
  readonly batchMax: number;
  /** Committee of a standard instance, until the sizing says otherwise. */
  readonly committeeSize: number;
}

/** For a network of machines in one place or one country. */
export const DEFAULT_CONSENSUS_OPTIONS: ConsensusOptions = {
  delayMs: 100,
  delayMsMin: 10,
  delayMsMax: 5_000,
  roundsMax: 32,
  lifeMs: 5 * 60_000,
  pipelineMax: 4,
  batchMax: 256,
  committeeSize: 16,
};
