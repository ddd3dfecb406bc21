/**
 * What reaches a Raft node and what it wants done: the contract between the pure core and its driver.
 *
 * **Order.** The effects of one step are carried out in their order, those of one step before those of the next.
 *
 * **Durability.** A `persist` effect is atomic: after a crash it is there whole or not at all, and never
 * without those before it. When it is durable, the driver carries out `then` in order and afterwards steps
 * `persisted` with its `seq`. A driver that writes synchronously does all three at once. One that does not may
 * have several under way and join them in one write; one `persisted` then speaks for all up to its `seq`.
 * What stands before a `persist` in a step may leave before the disk has answered: a leader's entries go to
 * its followers while its own disk writes them (thesis, 10.2.1).
 *
 * **Applying.** `apply` and `restore` reach the state machine in the order in which they are given, and are
 * answered by `applied`; until then there is no further `apply`. A `restore` may follow an unanswered `apply`.
 *
 * @module
 */

import type { ClusterConfig, ConfigChange, Transition } from "./config.ts";
import type { Entry, HardState, RaftMessage, Snapshot } from "./messages.ts";

/** Where a node stands. A `learner` is whoever has no vote in the configuration that it knows. */
export type Role = "follower" | "learner" | "pre-candidate" | "candidate" | "leader";

/** What can happen to a Raft node. `nowMs` never enters a message; a clock that is set back only delays. */
export type RaftEvent =
  /** First of all: arms the timers. */
  | { readonly type: "start"; readonly nowMs: number }
  | { readonly type: "wake"; readonly nowMs: number }
  | { readonly type: "message"; readonly nowMs: number; readonly from: string; readonly message: RaftMessage }
  /** Append all of these or none; each is answered by `accepted` or `refused`. */
  | { readonly type: "propose"; readonly nowMs: number; readonly proposals: readonly Proposal[] }
  /** Answered by `accepted` or `refused`. An empty list of changes leaves a joint configuration. */
  | {
    readonly type: "change-config";
    readonly nowMs: number;
    readonly id: number;
    readonly changes: readonly ConfigChange[];
    readonly transition: Transition;
  }
  /** A linearizable read is wanted; answered by `read-ready` or `refused`. */
  | { readonly type: "read"; readonly nowMs: number; readonly id: number }
  /** Hand leadership to this voter; answered by `refused` or by the new leader. */
  | { readonly type: "transfer"; readonly nowMs: number; readonly id: number; readonly to: string }
  /** Stand for election now, with a pre-vote. */
  | { readonly type: "campaign"; readonly nowMs: number }
  /** Something better informed says that the leader is gone: do not protect it any longer. */
  | { readonly type: "forget-leader"; readonly nowMs: number }
  /**
   * Other times from now on: all members, the followers before their leader where it slows down. Safety does not
   * rest on them.
   */
  | { readonly type: "pace"; readonly nowMs: number; readonly heartbeatMs: number; readonly electionTimeoutMs: number }
  /** Persist effects up to `seq` are durable, and their `then` is carried out. */
  | { readonly type: "persisted"; readonly nowMs: number; readonly seq: number }
  /** Entries, or a restored snapshot, up to `index` are in the state machine. */
  | { readonly type: "applied"; readonly nowMs: number; readonly index: number }
  /** The state machine as of `index`, which it has applied: keep it and forget the log up to there, less a trail. */
  | { readonly type: "compact"; readonly nowMs: number; readonly index: number; readonly data: Uint8Array };

/** Something to be agreed on. */
export interface Proposal {
  /** The caller's own number for it. */
  readonly id: number;
  /** At most `ENTRY_BYTES_MAX` bytes. */
  readonly data: Uint8Array;
}

/** Why something asked for is not done. */
export type RefusalReason =
  /** Ask `leader`, where it is known. */
  | "not-leader"
  /** Bounds are reached: slow down. */
  | "overloaded"
  /** Leadership is being handed over. */
  | "transferring"
  | "too-large"
  /** A configuration that is not committed yet, or no entry of this term is. */
  | "change-pending"
  /** The change contradicts the configuration; `detail` of the refusal says how. */
  | "bad-change"
  /** No vote, or no such node. */
  | "not-voter"
  /** Nobody answered in time, or leadership moved: ask again. A read changes nothing. */
  | "read-lost";

/** What the driver must do, in order. */
export type RaftEffect =
  | { readonly type: "send"; readonly to: string; readonly message: RaftMessage }
  /**
   * Make durable, atomically: the snapshot, then `dropThrough`, then `truncateFrom`, then the entries. With no
   * fields but `then` it is a barrier: `then` follows what was to be made durable before.
   */
  | {
    readonly type: "persist";
    readonly seq: number;
    readonly hardState?: HardState;
    readonly snapshot?: Snapshot;
    /** Forget entries up to this index; the term of that one stays known (`logStart`). */
    readonly dropThrough?: { readonly index: number; readonly term: number };
    /** Forget entries from this index on. */
    readonly truncateFrom?: number;
    readonly entries: readonly Entry[];
    readonly then: readonly RaftEffect[];
  }
  /** Committed and durable here, in order, each once per start. Answer with `applied`. */
  | { readonly type: "apply"; readonly entries: readonly Entry[] }
  /** Replace the state machine by this one. Answer with `applied`. */
  | { readonly type: "restore"; readonly snapshot: Snapshot }
  /**
   * The proposal is in the leader's log, not committed. It is committed if the entry applied at `index` has
   * this `term`, and lost if that has another one.
   */
  | { readonly type: "accepted"; readonly id: number; readonly index: number; readonly term: number }
  | {
    readonly type: "refused";
    readonly id: number;
    readonly reason: RefusalReason;
    readonly leader: string | undefined;
    readonly detail?: string;
  }
  /** The state machine holds everything that was committed when the read was asked for: answer it now. */
  | { readonly type: "read-ready"; readonly id: number; readonly index: number }
  | { readonly type: "role"; readonly role: Role; readonly term: number; readonly leader: string | undefined }
  /** The configuration that counts has changed; it may not be committed yet. */
  | { readonly type: "config"; readonly config: ClusterConfig; readonly index: number }
  | { readonly type: "wakeAt"; readonly atMs: number }
  /** A message was not acted on: for the counters. */
  | { readonly type: "drop"; readonly from: string; readonly reason: DropReason };

/** Why a message was not acted on. */
export type DropReason =
  /** Of a term that is over. */
  | "stale"
  /** A candidate disturbs a leader that is heard from (thesis, 4.2.3). */
  | "leader-alive"
  /** Not a member, or of a role that it cannot have. */
  | "unexpected"
  /** Contradicts what is committed, or a second leader in one term: its sender is broken or lies. */
  | "conflict"
  /** A term so far ahead that elections cannot have led to it. */
  | "term-jump";

/** Bounds and times of a node. All nodes of a cluster should have the same. */
export interface RaftOptions {
  /** T: a follower stands after [T, 2T) without its leader. Milliseconds. */
  readonly electionTimeoutMs: number;
  /** Time between heartbeats: a tenth of T. Milliseconds. */
  readonly heartbeatMs: number;
  /**
   * How long a leader waits for an append that tells of a commit in passing, before it tells the followers of it with
   * an empty one; 0: not at all. What is no data is told of at once. Milliseconds.
   */
  readonly commitNoticeMs: number;
  /** Entries of one append, bytes; a single larger one still goes. */
  readonly appendBytesMax: number;
  /** Appends on their way to one follower. */
  readonly inflightsMax: number;
  /** Bytes on their way to one follower. */
  readonly inflightBytesMax: number;
  /** Entries that are not committed, bytes; past it proposals are refused `overloaded`. */
  readonly uncommittedBytesMax: number;
  /** Entries of one `apply`. */
  readonly applyEntriesMax: number;
  /** Bytes of one `apply`; a single larger entry still goes. */
  readonly applyBytesMax: number;
  /** Reads waiting; past it they are refused `overloaded`. */
  readonly readsMax: number;
  /** One chunk of a snapshot, bytes. */
  readonly chunkBytes: number;
  /** Entries before a snapshot that a leader keeps for followers that are a little behind. */
  readonly trailingEntries: number;
}

/** For a network of machines in one place or one country. */
export const DEFAULT_RAFT_OPTIONS: RaftOptions = {
  electionTimeoutMs: 500,
  heartbeatMs: 50,
  commitNoticeMs: 0,
  appendBytesMax: 256 << 10,
  inflightsMax: 64,
  inflightBytesMax: 2 << 20,
  uncommittedBytesMax: 8 << 20,
  applyEntriesMax: 1_024,
  applyBytesMax: 1 << 20,
  readsMax: 4_096,
  chunkBytes: 256 << 10,
  trailingEntries: 1_000,
};

/** What a node finds on its disk when it starts. */
export interface StoredRaft {
  readonly hardState: HardState;
  readonly snapshot: Snapshot | undefined;
  /** Last entry that was dropped, from `dropThrough`; index 0, term 0 at first. */
  readonly logStart: { readonly index: number; readonly term: number };
  /** What follows it, without gaps. */
  readonly entries: readonly Entry[];
  /** Last index that the state machine holds, at least that of the snapshot: one in memory is restored from it first. */
  readonly appliedIndex: number;
}

/** What a node finds that was never started. */
export const NOTHING_STORED: StoredRaft = {
  hardState: { term: 0, votedFor: undefined },
  snapshot: undefined,
  logStart: { index: 0, term: 0 },
  entries: [],
  appliedIndex: 0,
};
