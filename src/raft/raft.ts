/**
 * Leader-based log replication after Ongaro's thesis ("Consensus: Bridging Theory and Practice", 2014).
 *
 * One class, one `step`; the role dispatch stays whole here. Formulas, log, configurations and bookkeeping of
 * followers are files of their own. Section numbers in comments are the thesis'. See DESIGN.md for the states
 * and ADR 0009 for where we choose.
 *
 * @module
 */

import { assert } from "../core/assert.ts";
import { sha256 } from "../core/crypto.ts";
import { LIMITS } from "../core/limits.ts";
import type { Rng } from "../core/rng.ts";
import {
  changedConfig,
  type ClusterConfig,
  type ConfigChange,
  EMPTY_CONFIG,
  isJoint,
  isVoter,
  membersOf,
  type Transition,
  votersOf,
} from "./config.ts";
import {
  DEFAULT_RAFT_OPTIONS,
  type DropReason,
  NOTHING_STORED,
  type Proposal,
  type RaftEffect,
  type RaftEvent,
  type RaftOptions,
  type RefusalReason,
  type Role,
  type StoredRaft,
} from "./effects.ts";
import { IncomingSnapshot } from "./incoming_snapshot.ts";
import { RaftLog } from "./log.ts";
import {
  APPEND_ENTRIES_MAX,
  type Entry,
  ENTRY_BYTES_MAX,
  entryBytes,
  INDEX_MAX,
  type RaftMessage,
  type Snapshot,
  SNAPSHOT_BYTES_MAX,
} from "./messages.ts";
import { Progress } from "./progress.ts";
import { reachedByQuorum, voteResult } from "./quorum.ts";
import { ReadQueue, type WaitingRead } from "./reads.ts";
import type { RaftParts, RaftView } from "./view.ts";

export type { RaftParts, RaftView } from "./view.ts";

/** A term this far ahead of ours was not reached by elections; taking it would bring the last term near. */
export const TERM_JUMP_MAX = 2 ** 32;

/** Elections in a row that nobody won before a node waits longer for the next one. */
const HASTY_ELECTIONS = 2;
/** How often it doubles its timeout then, and up to which, milliseconds: answers that take longer come too late. */
const PATIENCE_DOUBLINGS = 3;
const PATIENCE_MS = 2_500;

/** One `persist` that is not durable yet. */
interface PendingPersist {
  readonly seq: number;
  /** First index that it writes; infinity for none. */
  readonly from: number;
  /** Last index of the log once it is durable. */
  readonly last: number;
}

/** One Raft node. */
export class Raft {
  readonly id: string;
  /** Bounds and times; the times change with {@linkcode RaftEvent} `pace`. */
  options: RaftOptions;
  readonly #rng: Rng;
  readonly #incarnation: number;

  #role: Role = "follower";
  #term: number;
  #votedFor: string | undefined;
  #leader: string | undefined;
  readonly #log: RaftLog;
  #snapshot: Snapshot | undefined;
  readonly #incoming = new IncomingSnapshot();
  /** Configurations in log order; the last one counts, committed or not (4.1). */
  #configs: { readonly index: number; readonly config: ClusterConfig }[];
  #commitIndex: number;
  #appliedIndex: number;
  /** Where the state machine will be when it has answered. */
  #applyingIndex: number;

  // A leader's.
  readonly #progress = new Map<string, Progress>();
  #uncommittedBytes = 0;
  #round = 0;
  readonly #reads = new ReadQueue();
  #transfer: { readonly to: string; readonly untilMs: number } | undefined;
  /** First entry of its term; until that is committed it does not know what is (6.4). */
  #firstOfTerm = 0;

  /** Elections that it began since it heard from a leader, or from a quorum as one. */
  #elections = 0;

  // A candidate's.
  readonly #votes = new Map<string, boolean>();
  /** The persist that holds the vote for itself. */
  #ownVoteSeq = 0;

  /** Reads of this node that are confirmed and wait for the state machine. */
  #confirmed: { readonly id: number; readonly index: number }[] = [];
  /** Reads asked of the leader, with their deadline. */
  readonly #asked = new Map<number, number>();

  // Times, in milliseconds of a clock of its own that never goes back.
  #nowMs = 0;
  #clockOffsetMs = 0;
  #electionAtMs = Infinity;
  #heartbeatAtMs = Infinity;
  #quorumCheckAtMs = Infinity;
  /** When followers that were not told of a commit by then are. */
  #noticeAtMs = Infinity;
  #heardMs = -Infinity;
  #armedMs = Infinity;

  // Durability.
  #seq = 0;
  #pending: PendingPersist[] = [];
  #durableLast: number;

  // Of the present step.
  #atOnce: RaftEffect[] = [];
  #then: RaftEffect[] = [];
  #hardDirty = false;
  #appendedFrom = Infinity;
  #snapshotDirty = false;
  #restoring = false;
  #dropThrough: { readonly index: number; readonly term: number } | undefined;
  #shown = "";
  #shownConfig = -1;

  constructor(parts: RaftParts) {
    const stored = parts.stored ?? NOTHING_STORED;
    this.id = parts.id;
    this.options = { ...DEFAULT_RAFT_OPTIONS, ...parts.options };
    const { electionTimeoutMs, heartbeatMs, chunkBytes, appendBytesMax } = this.options;
    assert(heartbeatMs * 2 <= electionTimeoutMs, "two heartbeats fit an election timeout");
    assert(chunkBytes >= 1 && chunkBytes * 2 <= LIMITS.frameBytesMax, "a chunk fits half a frame");
    assert(appendBytesMax * 2 <= LIMITS.frameBytesMax, "an append fits half a frame");
    this.#rng = parts.rng;
    this.#incarnation = parts.incarnation;
    this.#term = stored.hardState.term;
    this.#votedFor = stored.hardState.votedFor;
    this.#snapshot = stored.snapshot;
    this.#log = new RaftLog(stored.logStart.index, stored.logStart.term, stored.entries);
    const base = stored.snapshot?.meta.index ?? 0;
    assert(this.#log.prevIndex <= base && base <= this.#log.lastIndex, "log and snapshot meet");
    assert(
      base <= stored.appliedIndex && stored.appliedIndex <= this.#log.lastIndex,
      `applied ${stored.appliedIndex} is in [${base}, ${this.#log.lastIndex}]`,
    );
    this.#configs = [{ index: base, config: stored.snapshot?.meta.config ?? parts.founding ?? EMPTY_CONFIG }];
    for (const entry of stored.entries) if (entry.index > base) this.#noteConfig(entry);
    this.#durableLast = this.#log.lastIndex;
    this.#commitIndex = Math.max(base, stored.appliedIndex);
    this.#appliedIndex = this.#applyingIndex = stored.appliedIndex;
    assert(this.#term >= this.#log.lastTerm, `term ${this.#term} is at least that of the log`);
  }

  /** What it holds, for status and tests. */
  get view(): RaftView {
    return {
      id: this.id,
      role: this.#shownRole(),
      term: this.#term,
      votedFor: this.#votedFor,
      leader: this.#leader,
      prevIndex: this.#log.prevIndex,
      lastIndex: this.#log.lastIndex,
      stableIndex: this.#stableIndex(),
      commitIndex: this.#commitIndex,
      appliedIndex: this.#appliedIndex,
      config: this.#config,
      configCommitted: this.#configs.at(-1)!.index <= this.#commitIndex,
      transferringTo: this.#transfer?.to,
      uncommittedBytes: this.#uncommittedBytes,
      snapshotIndex: this.#snapshot?.meta.index ?? 0,
      progress: this.#progress,
    };
  }

  /** An entry of the log in memory; `undefined` where it was compacted away or is not there yet. */
  entryAt(index: number): Entry | undefined {
    return index > this.#log.prevIndex && index <= this.#log.lastIndex ? this.#log.at(index) : undefined;
  }

  /** All that it holds, as a disk would that has written everything: to start from where it was. */
  toStored(): StoredRaft {
    return {
      hardState: { term: this.#term, votedFor: this.#votedFor },
      snapshot: this.#snapshot,
      logStart: { index: this.#log.prevIndex, term: this.#log.termAt(this.#log.prevIndex)! },
      entries: this.#entriesFrom(this.#log.prevIndex + 1),
      appliedIndex: this.#snapshot?.meta.index ?? 0,
    };
  }

  /** Carries out one event. */
  step(event: RaftEvent): RaftEffect[] {
    this.#tellTime(event.nowMs);
    switch (event.type) {
      case "start":
        this.#resetElection();
        // Nobody else can lead: waiting would help nobody.
        if (this.#soleVoter()) this.#campaign(false);
        break;
      case "wake":
        this.#armedMs = Infinity;
        this.#wake();
        break;
      case "message":
        this.#onMessage(event.from, event.message);
        break;
      case "propose":
        this.#propose(event.proposals);
        break;
      case "change-config":
        this.#changeConfig(event.id, event.changes, event.transition);
        break;
      case "read":
        this.#read(event.id);
        break;
      case "transfer":
        this.#beginTransfer(event.id, event.to);
        break;
      case "campaign":
        if (this.#role !== "leader" && this.#mayStand()) this.#preCampaign();
        break;
      case "forget-leader":
        if (this.#role === "follower") this.#leader = undefined;
        break;
      case "persisted":
        this.#onPersisted(event.seq);
        break;
      case "applied":
        this.#appliedIndex = Math.max(this.#appliedIndex, Math.min(event.index, this.#applyingIndex));
        break;
      case "pace":
        this.#setPace(event.heartbeatMs, event.electionTimeoutMs);
        break;
      case "compact":
        this.#compact(event.index, event.data);
        break;
      default:
        event satisfies never;
    }
    return this.#finish();
  }

  // --- What every step ends with.

  #finish(): RaftEffect[] {
    const shown = `${this.#shownRole()} ${this.#term} ${this.#leader}`;
    if (shown !== this.#shown) {
      this.#shown = shown;
      this.#atOnce.push({ type: "role", role: this.#shownRole(), term: this.#term, leader: this.#leader });
    }
    const { index, config } = this.#configs.at(-1)!;
    if (index !== this.#shownConfig) {
      this.#shownConfig = index;
      this.#atOnce.push({ type: "config", config, index });
    }
    const effects = this.#atOnce;
    this.#persist(effects);
    this.#applyMore(effects);
    this.#releaseReads(effects);
    const deadlineMs = this.#deadlineMs();
    // A later deadline needs no new wake-up: the one that is armed finds out.
    if (deadlineMs < this.#armedMs) {
      this.#armedMs = deadlineMs;
      effects.push({ type: "wakeAt", atMs: deadlineMs - this.#clockOffsetMs });
    }
    this.#atOnce = [];
    return effects;
  }

  /** Wraps up what must be durable and what may only follow it. */
  #persist(effects: RaftEffect[]): void {
    const entries = this.#appendedFrom <= this.#log.lastIndex ? this.#entriesFrom(this.#appendedFrom) : [];
    const dirty = this.#hardDirty || entries.length > 0 || this.#snapshotDirty;
    // An answer repeats what an earlier step wrote, a duplicate's for one: it waits for that as well.
    if (!dirty && this.#pending.length === 0) {
      effects.push(...this.#then);
    } else if (dirty || this.#then.length > 0) {
      const seq = ++this.#seq;
      effects.push({
        type: "persist",
        seq,
        ...(this.#hardDirty ? { hardState: { term: this.#term, votedFor: this.#votedFor } } : {}),
        ...(this.#snapshotDirty ? { snapshot: this.#snapshot! } : {}),
        ...(this.#dropThrough ? { dropThrough: this.#dropThrough } : {}),
        ...(this.#restoring || entries.length > 0 ? { truncateFrom: this.#appendedFrom } : {}),
        entries,
        then: this.#then,
      });
      this.#pending.push({ seq, from: this.#appendedFrom, last: this.#log.lastIndex });
    }
    this.#then = [];
    this.#hardDirty = this.#snapshotDirty = this.#restoring = false;
    this.#appendedFrom = Infinity;
    this.#dropThrough = undefined;
  }

  #entriesFrom(index: number): Entry[] {
    return this.#log.slice(index, this.#log.lastIndex, { countMax: Infinity, bytesMax: Infinity });
  }

  #onPersisted(seq: number): void {
    while (this.#pending.length > 0 && this.#pending[0]!.seq <= seq) {
      const done = this.#pending.shift()!;
      if (done.from !== Infinity) this.#durableLast = done.last;
    }
    // A vote counts once it cannot be forgotten; so does its own (3.4, 3.8).
    if (this.#role === "candidate" && seq >= this.#ownVoteSeq && !this.#votes.has(this.id)) {
      this.#votes.set(this.id, true);
      this.#tally();
    }
    if (this.#role === "leader") this.#maybeCommit();
  }

  /**
   * Up to where the log in memory is the one on disk. What was written there and is still to be overwritten
   * does not count, even where the same entry came back in the meantime.
   */
  #stableIndex(): number {
    return this.#pending.reduce((least, one) => Math.min(least, one.from - 1), this.#durableLast);
  }

  #applyMore(effects: RaftEffect[]): void {
    if (this.#appliedIndex < this.#applyingIndex) return;
    const to = Math.min(this.#commitIndex, this.#stableIndex());
    if (to <= this.#appliedIndex) return;
    const bounds = { countMax: this.options.applyEntriesMax, bytesMax: this.options.applyBytesMax };
    const entries = this.#log.slice(this.#appliedIndex + 1, to, bounds);
    this.#applyingIndex = entries.at(-1)!.index;
    effects.push({ type: "apply", entries });
  }

  #releaseReads(effects: RaftEffect[]): void {
    if (this.#confirmed.length === 0) return;
    const ready = this.#confirmed.filter((one) => one.index <= this.#appliedIndex);
    if (ready.length === 0) return;
    this.#confirmed = this.#confirmed.filter((one) => one.index > this.#appliedIndex);
    for (const { id, index } of ready) effects.push({ type: "read-ready", id, index });
  }

  // --- Time.

  #tellTime(nowMs: number): void {
    // Set back, time goes on from where it was; what was planned keeps its distance from now.
    if (nowMs + this.#clockOffsetMs < this.#nowMs) {
      this.#clockOffsetMs = this.#nowMs - nowMs;
      this.#armedMs = Infinity;
    }
    this.#nowMs = nowMs + this.#clockOffsetMs;
  }

  #deadlineMs(): number {
    let deadlineMs = this.#role === "leader"
      // Alone there is nobody to tell, and nobody to hear from.
      ? this.#progress.size === 0 ? Infinity : Math.min(
        this.#heartbeatAtMs,
        this.#quorumCheckAtMs,
        this.#noticeAtMs,
        this.#transfer?.untilMs ?? Infinity,
      )
      : this.#mayStand()
      ? this.#electionAtMs
      : Infinity;
    for (const untilMs of this.#asked.values()) deadlineMs = Math.min(deadlineMs, untilMs);
    return deadlineMs;
  }

  #wake(): void {
    for (const [id, untilMs] of this.#asked) {
      if (untilMs <= this.#nowMs) {
        this.#asked.delete(id);
        this.#refuse(id, "read-lost");
      }
    }
    if (this.#role !== "leader") {
      if (this.#nowMs < this.#electionAtMs) return;
      if (this.#mayStand()) this.#preCampaign();
      return;
    }
    if (this.#transfer && this.#nowMs >= this.#transfer.untilMs) this.#transfer = undefined;
    if (this.#nowMs >= this.#quorumCheckAtMs) this.#checkQuorum();
    if (this.#role === "leader" && this.#nowMs >= this.#heartbeatAtMs) this.#heartbeat();
    if (this.#role === "leader" && this.#nowMs >= this.#noticeAtMs) {
      this.#noticeAtMs = Infinity;
      this.#sendAppends();
    }
  }

  /** Other times from now on: what was planned with the old ones is planned anew. */
  #setPace(heartbeatMs: number, electionTimeoutMs: number): void {
    assert(heartbeatMs * 2 <= electionTimeoutMs, "two heartbeats fit an election timeout");
    const slower = electionTimeoutMs > this.options.electionTimeoutMs;
    this.options = { ...this.options, heartbeatMs, electionTimeoutMs };
    if (this.#role === "leader") {
      this.#heartbeatAtMs = Math.min(this.#heartbeatAtMs, this.#nowMs + heartbeatMs);
      this.#quorumCheckAtMs = this.#nowMs + electionTimeoutMs;
    } else if (slower || this.#electionAtMs > this.#nowMs + 2 * electionTimeoutMs) this.#resetElection();
  }

  /** Randomised in [T, 2T), so that split votes are rare (3.4). */
  #resetElection(): void {
    const timeoutMs = this.#patienceMs();
    this.#electionAtMs = this.#nowMs + timeoutMs + this.#rng.below(timeoutMs);
  }

  /**
   * The election timeout, longer once elections in a row came to nothing: on links whose answers take longer than it,
   * each candidate would be overtaken by the next one before its votes are there, for ever.
   */
  #patienceMs(): number {
    const { electionTimeoutMs } = this.options;
    const doublings = Math.min(PATIENCE_DOUBLINGS, Math.max(0, this.#elections - HASTY_ELECTIONS));
    return Math.max(electionTimeoutMs, Math.min(PATIENCE_MS, electionTimeoutMs * 2 ** doublings));
  }

  /** Whether a leader is heard from, so that candidates have to wait (4.2.3, 9.6). */
  #leaderAlive(): boolean {
    return this.#role === "leader" ||
      this.#leader !== undefined && this.#nowMs - this.#heardMs < this.options.electionTimeoutMs;
  }

  // --- Roles.

  get #config(): ClusterConfig {
    return this.#configs.at(-1)!.config;
  }

  #shownRole(): Role {
    return this.#role === "follower" && !this.#mayStand() ? "learner" : this.#role;
  }

  /**
   * Whether it stands for election: as a voter, and as one whose removal is not known to be committed. It may be
   * the only one who has that entry, and those who lack it cannot be elected without its vote (4.2.2): of voters
   * 1 and 2, node 2 leads, appends that it is removed, and is cut off before node 1 hears of it. Its own vote
   * does not count, unless it is a voter.
   */
  #mayStand(): boolean {
    for (let at = this.#configs.length - 1; at >= 0; at--) {
      const { index, config } = this.#configs[at]!;
      if (isVoter(config, this.id)) return true;
      if (index <= this.#commitIndex) return false;
    }
    return false;
  }

  #soleVoter(): boolean {
    const voters = votersOf(this.#config);
    return voters.length === 1 && voters[0] === this.id;
  }

  /** Steps down, or up to a newer term. */
  #becomeFollower(term: number, leader: string | undefined): void {
    if (term > this.#term) {
      this.#term = term;
      this.#votedFor = undefined;
      this.#hardDirty = true;
    }
    const led = this.#role === "leader";
    const reads = led ? this.#reads.takeAll() : [];
    if (led) {
      this.#progress.clear();
      this.#transfer = undefined;
      this.#uncommittedBytes = 0;
      this.#heartbeatAtMs = this.#quorumCheckAtMs = this.#noticeAtMs = Infinity;
    }
    if (leader === undefined || leader !== this.#leader) {
      for (const id of this.#asked.keys()) this.#refuse(id, "read-lost");
      this.#asked.clear();
    }
    // Whoever steps down keeps its timeout unless it led: a candidate that loses must not wait longer for it.
    if (led || leader !== undefined) this.#resetElection();
    this.#role = "follower";
    this.#leader = leader;
    this.#votes.clear();
    for (const read of reads) this.#answerRead(read, undefined);
  }

  /** Asks first whether an election could be won, without a new term (9.6). */
  #preCampaign(): void {
    this.#becomeFollower(this.#term, undefined);
    this.#elections += 1;
    this.#resetElection();
    if (this.#term + 1 > INDEX_MAX) return;
    this.#role = "pre-candidate";
    this.#votes.set(this.id, true);
    this.#askVotes("pre-vote", this.#term + 1, false);
    this.#tally();
  }

  #campaign(transfer: boolean): void {
    this.#becomeFollower(this.#term + 1, undefined);
    this.#resetElection();
    this.#role = "candidate";
    this.#votedFor = this.id;
    this.#hardDirty = true;
    // Counts when it is durable: the next persist has it.
    this.#ownVoteSeq = this.#seq + 1;
    this.#askVotes("vote", this.#term, transfer);
  }

  #askVotes(type: "pre-vote" | "vote", term: number, transfer: boolean): void {
    const { lastIndex: lastLogIndex, lastTerm: lastLogTerm } = this.#log;
    for (const to of votersOf(this.#config)) {
      if (to === this.id) continue;
      // A request for votes follows its durable term: a node that forgot that it stood could stand once more
      // in the same term with a shorter log, and count the votes for the longer one.
      this.#send(to, { type, term, lastLogIndex, lastLogTerm, transfer }, type === "vote");
    }
  }

  #tally(): void {
    const result = voteResult(this.#config, this.#votes);
    if (result === "lost") this.#becomeFollower(this.#term, undefined);
    else if (result === "won" && this.#role === "pre-candidate") this.#campaign(false);
    else if (result === "won") this.#becomeLeader();
  }

  #becomeLeader(): void {
    assert(this.#role === "candidate", `a ${this.#role} cannot become leader`);
    assert(this.#votedFor === this.id, "a leader has its own vote");
    this.#role = "leader";
    this.#leader = this.id;
    this.#votes.clear();
    this.#progress.clear();
    this.#round = 0;
    this.#uncommittedBytes = 0;
    for (let index = this.#commitIndex + 1; index <= this.#log.lastIndex; index++) {
      this.#uncommittedBytes += entryBytes(this.#log.at(index));
    }
    this.#quorumCheckAtMs = this.#nowMs + this.#patienceMs();
    this.#heartbeatAtMs = this.#nowMs + this.options.heartbeatMs;
    this.#firstOfTerm = this.#log.lastIndex + 1;
    this.#syncProgress();
    // Entries of former terms are committed by one of this (3.6.2), and only then it knows what is committed (6.4).
    this.#append([{ kind: "noop", term: this.#term, index: this.#firstOfTerm }]);
    this.#sendAppends();
  }

  /** A leader that a majority does not answer steps down: its clients should look for another (6.2). */
  #checkQuorum(): void {
    this.#quorumCheckAtMs = this.#nowMs + this.options.electionTimeoutMs;
    const active = new Map([...this.#progress].map(([id, progress]) => [id, progress.active]));
    active.set(this.id, true);
    if (voteResult(this.#config, active) !== "won") return this.#becomeFollower(this.#term, undefined);
    this.#elections = 0;
    for (const progress of this.#progress.values()) progress.active = false;
  }

  // --- Messages.

  #onMessage(from: string, message: RaftMessage): void {
    if (from === this.id) return this.#drop(from, "unexpected");
    if (message.term > this.#term) {
      if (message.term - this.#term > TERM_JUMP_MAX) return this.#drop(from, "term-jump");
      switch (message.type) {
        case "vote":
        case "pre-vote":
          // Who hears from a leader keeps it, and keeps its term: a node that was cut off, or removed, must not
          // depose it.
          if (!message.transfer && this.#leaderAlive()) return this.#drop(from, "leader-alive");
          if (message.type === "vote") this.#becomeFollower(message.term, undefined);
          break;
        case "pre-vote-response":
          // Granted, it names the term that would be.
          if (!message.granted) this.#becomeFollower(message.term, undefined);
          break;
        case "append":
        case "heartbeat":
        case "snapshot":
          this.#becomeFollower(message.term, from);
          break;
        default:
          this.#becomeFollower(message.term, undefined);
      }
    } else if (message.term < this.#term) return this.#onOldTerm(from, message);

    switch (message.type) {
      case "pre-vote":
      case "vote":
        return this.#onVoteRequest(from, message);
      case "pre-vote-response":
        if (this.#role === "pre-candidate" && (!message.granted || message.term === this.#term + 1)) {
          return this.#onVote(from, message.granted);
        }
        return this.#drop(from, "stale");
      case "vote-response":
        if (this.#role === "candidate") return this.#onVote(from, message.granted);
        return this.#drop(from, "stale");
      case "append":
      case "heartbeat":
      case "snapshot":
        if (this.#role === "leader") return this.#drop(from, "conflict");
        if (this.#leader !== undefined && this.#leader !== from) return this.#drop(from, "conflict");
        if (this.#role !== "follower" || this.#leader !== from) this.#becomeFollower(this.#term, from);
        this.#heardMs = this.#nowMs;
        this.#elections = 0;
        this.#resetElection();
        if (message.type === "append") return this.#onAppend(from, message);
        if (message.type === "snapshot") return this.#onSnapshot(from, message);
        this.#commitTo(Math.min(message.commitIndex, this.#log.lastIndex));
        // Needs no disk: it says only that no newer term was known here. Should the term itself be forgotten in a
        // crash, an older one can still not be won: those who elected this leader have it on disk.
        return this.#send(from, { type: "heartbeat-response", term: this.#term, round: message.round }, false);
      case "append-response":
      case "append-reject":
      case "heartbeat-response":
      case "snapshot-response":
        return this.#onFollower(from, message);
      case "timeout-now":
        // At once and without a pre-vote: the leader itself asks for it (3.10).
        if (this.#role !== "follower" || this.#leader !== from) return this.#drop(from, "unexpected");
        if (!this.#mayStand()) return this.#drop(from, "unexpected");
        return this.#campaign(true);
      case "read-request":
        return this.#onReadRequest(from, message.incarnation, message.id);
      case "read-response":
        return this.#onReadResponse(from, message.incarnation, message.id, message.index);
    }
  }

  /** What comes from a term that is over is answered only where the answer lets its sender catch up. */
  #onOldTerm(from: string, message: RaftMessage): void {
    switch (message.type) {
      case "pre-vote":
        return this.#send(from, { type: "pre-vote-response", term: this.#term, granted: false }, true);
      case "vote":
        return this.#send(from, { type: "vote-response", term: this.#term, granted: false }, true);
      case "append":
      case "heartbeat":
      case "snapshot": {
        // Without an answer this node could be stuck: it will not follow an older term, and with pre-vote
        // nobody takes its newer one while the old leader is heard from.
        const index = this.#log.lastIndex;
        return this.#send(
          from,
          { type: "append-reject", term: this.#term, index, hintIndex: index, hintTerm: this.#log.lastTerm },
          true,
        );
      }
      case "read-request":
        return this.#send(from, {
          type: "read-response",
          term: this.#term,
          incarnation: message.incarnation,
          id: message.id,
          index: undefined,
        }, false);
      default:
        return this.#drop(from, "stale");
    }
  }

  /** Votes are given to whoever asks, also to one that is not in this node's configuration: it may be behind (4.2.2). */
  #onVoteRequest(from: string, message: RaftMessage & { readonly type: "vote" | "pre-vote" }): void {
    const upToDate = this.#log.isUpToDate(message.lastLogIndex, message.lastLogTerm);
    if (message.type === "pre-vote") {
      const granted = upToDate && message.term > this.#term;
      const term = granted ? message.term : this.#term;
      return this.#send(from, { type: "pre-vote-response", term, granted }, false);
    }
    const free = this.#votedFor === from || this.#votedFor === undefined && this.#leader === undefined;
    const granted = free && upToDate;
    if (granted) {
      if (this.#votedFor === undefined) this.#hardDirty = true;
      this.#votedFor = from;
      this.#resetElection();
    }
    this.#send(from, { type: "vote-response", term: this.#term, granted }, true);
  }

  #onVote(from: string, granted: boolean): void {
    // The first word counts: a network that repeats or reorders changes nothing.
    if (this.#votes.has(from)) return this.#drop(from, "stale");
    if (!isVoter(this.#config, from)) return this.#drop(from, "unexpected");
    this.#votes.set(from, granted);
    this.#tally();
  }

  // --- A follower's part.

  #onAppend(from: string, message: RaftMessage & { readonly type: "append" }): void {
    const { prevLogIndex, prevLogTerm, entries } = message;
    const ack = (index: number) => this.#send(from, { type: "append-response", term: this.#term, index }, true);
    // What is committed agrees already, whatever the message says of it (3.6.3).
    if (prevLogIndex < this.#commitIndex) {
      const last = prevLogIndex + entries.length;
      if (last <= this.#commitIndex) return ack(this.#commitIndex);
    } else if (this.#log.termAt(prevLogIndex) !== prevLogTerm) {
      const hintIndex = this.#log.lastOfTerm(prevLogIndex, prevLogTerm);
      const hintTerm = this.#log.termAt(hintIndex)!;
      return this.#send(
        from,
        { type: "append-reject", term: this.#term, index: prevLogIndex, hintIndex, hintTerm },
        true,
      );
    }
    // Only what disagrees is replaced: an append that was overtaken by a later one must not cut that off.
    const fresh = entries.findIndex((one) =>
      one.index > this.#log.prevIndex && this.#log.termAt(one.index) !== one.term
    );
    if (fresh >= 0) {
      if (entries[fresh]!.index <= this.#commitIndex) return this.#drop(from, "conflict");
      if (entries[fresh]!.term < (this.#log.termAt(entries[fresh]!.index - 1) ?? Infinity)) {
        return this.#drop(from, "conflict");
      }
      this.#append(entries.slice(fresh));
    }
    const last = prevLogIndex + entries.length;
    // Beyond `last` this log may hold what the leader does not.
    this.#commitTo(Math.min(message.commitIndex, last));
    ack(Math.max(last, this.#commitIndex));
  }

  #onSnapshot(from: string, message: RaftMessage & { readonly type: "snapshot" }): void {
    const { meta, offset, data } = message;
    const ack = (index: number) => this.#send(from, { type: "append-response", term: this.#term, index }, true);
    if (meta.index <= this.#commitIndex) return ack(this.#commitIndex);
    if (this.#log.termAt(meta.index) === meta.term) {
      // The log has it all; nothing needs to be sent (5.1).
      this.#incoming.forget();
      this.#commitTo(meta.index);
      return ack(meta.index);
    }
    if (meta.sizeBytes > SNAPSHOT_BYTES_MAX) return this.#drop(from, "unexpected");
    const whole = this.#incoming.take(meta, offset, data);
    if (whole) {
      this.#install({ meta, data: whole });
      return ack(meta.index);
    }
    const response = {
      type: "snapshot-response",
      term: this.#term,
      index: meta.index,
      offset: this.#incoming.sizeBytes,
    } as const;
    this.#send(from, response, true);
  }

  /** Replaces log and state by a snapshot. */
  #install(snapshot: Snapshot): void {
    const { index, term, config } = snapshot.meta;
    assert(index > this.#commitIndex, `snapshot ${index} is past what is committed, ${this.#commitIndex}`);
    this.#log.reset(index, term);
    this.#configs = [{ index, config }];
    this.#snapshot = snapshot;
    this.#commitIndex = index;
    this.#applyingIndex = index;
    this.#snapshotDirty = this.#restoring = true;
    this.#dropThrough = { index, term };
    this.#appendedFrom = index + 1;
    this.#then.push({ type: "restore", snapshot });
  }

  #commitTo(index: number): void {
    if (index <= this.#commitIndex) return;
    assert(index <= this.#log.lastIndex, `commit ${index} is in the log, which ends at ${this.#log.lastIndex}`);
    this.#commitIndex = index;
    this.#incoming.forget(index);
  }

  /** Puts entries into the log, and their configurations into force. */
  #append(entries: readonly Entry[]): void {
    const first = entries[0]!.index;
    assert(first > this.#commitIndex, `entry ${first} is past what is committed, ${this.#commitIndex}`);
    if (this.#role === "leader") {
      assert(first === this.#log.lastIndex + 1, "a leader only appends (3.6)");
      for (const one of entries) this.#uncommittedBytes += entryBytes(one);
    }
    this.#log.append(entries);
    this.#appendedFrom = Math.min(this.#appendedFrom, first);
    // A configuration that is cut off makes way for the one before it.
    while (this.#configs.at(-1)!.index >= first) this.#configs.pop();
    for (const entry of entries) this.#noteConfig(entry);
    if (this.#role === "leader" && entries.some((one) => one.kind === "config")) this.#syncProgress();
  }

  #noteConfig(entry: Entry): void {
    if (entry.kind === "config") this.#configs.push({ index: entry.index, config: entry.config });
  }

  // --- A leader's part.

  #onFollower(
    from: string,
    message: RaftMessage & {
      readonly type: "append-response" | "append-reject" | "heartbeat-response" | "snapshot-response";
    },
  ): void {
    const progress = this.#progress.get(from);
    if (this.#role !== "leader" || !progress) return this.#drop(from, "stale");
    progress.active = true;
    switch (message.type) {
      case "append-response": {
        if (message.index > this.#log.lastIndex) return this.#drop(from, "conflict");
        const news = progress.acknowledged(message.index);
        if (progress.state === "probe" && (news || message.index === progress.matchIndex)) progress.become("replicate");
        else if (progress.state === "snapshot") {
          // It has the one that was sent, though the log may be shorter by now and the next one follow; or it
          // came to what it lacked in another way, and needs none.
          const { index } = progress.snapshot!.meta;
          if (message.index >= Math.min(index, this.#log.prevIndex)) progress.become("replicate");
        }
        if (news) this.#maybeCommit();
        if (this.#role !== "leader") return;
        this.#sendAppend(from);
        if (this.#transfer?.to === from) this.#continueTransfer();
        return;
      }
      case "append-reject": {
        const agreeing = this.#log.lastOfTerm(message.hintIndex, message.hintTerm);
        if (!progress.rejected(message.index, agreeing)) return this.#drop(from, "stale");
        return this.#sendAppend(from);
      }
      case "heartbeat-response":
        progress.round = Math.max(progress.round, Math.min(message.round, this.#round));
        progress.probing = false;
        if (progress.state === "snapshot") {
          // A chunk or its answer was lost, or the link is slow: not faster than once per timeout.
          if (this.#nowMs - progress.chunkMs >= this.options.electionTimeoutMs) this.#sendChunk(from, progress);
        } else if (progress.matchIndex < this.#log.lastIndex) {
          // Perhaps an append was lost: an empty one finds out, even past a full window.
          this.#sendAppend(from, true);
        }
        return this.#confirmReads();
      case "snapshot-response": {
        if (progress.state !== "snapshot" || progress.snapshot!.meta.index !== message.index) {
          return this.#drop(from, "stale");
        }
        const more = message.offset > progress.offset;
        progress.offset = Math.min(message.offset, progress.snapshot!.data.length);
        // Only progress is answered: a repeated answer must not double every chunk after it.
        if (more && progress.offset < progress.snapshot!.data.length) this.#sendChunk(from, progress);
        return;
      }
    }
  }

  #matchOf = (id: string): number => id === this.id ? this.#stableIndex() : this.#progress.get(id)?.matchIndex ?? 0;

  #maybeCommit(): void {
    const index = reachedByQuorum(this.#config, this.#matchOf);
    // By counting only entries of its own term, the rest with them: figure 3.7 shows why.
    if (index <= this.#commitIndex || this.#log.termAt(index) !== this.#term) return;
    let urgent = this.options.commitNoticeMs === 0;
    for (let at = this.#commitIndex + 1; at <= index; at++) {
      const entry = this.#log.at(at);
      this.#uncommittedBytes -= entryBytes(entry);
      if (entry.kind !== "data") urgent = true;
    }
    this.#commitIndex = index;
    this.#noticeAtMs = urgent ? Infinity : Math.min(this.#noticeAtMs, this.#nowMs + this.options.commitNoticeMs);
    this.#confirmReads();
    const last = this.#configs.at(-1)!;
    if (last.index <= index && isJoint(last.config) && last.config.autoLeave) {
      const left = changedConfig(last.config, []);
      assert(left.ok, "a joint configuration can be left");
      this.#append([{ kind: "config", term: this.#term, index: this.#log.lastIndex + 1, config: left.config }]);
      // A single voter commits it when it is durable.
    }
    this.#sendAppends();
    if (last.index <= index && !isVoter(last.config, this.id)) this.#retire();
  }

  /** Removed, and that is committed: somebody else leads from here (4.2.2). The best one is told to stand at once. */
  #retire(): void {
    const best = this.#config.voters.find((one) => this.#progress.get(one)?.matchIndex === this.#log.lastIndex);
    if (best !== undefined) this.#send(best, { type: "timeout-now", term: this.#term }, false);
    this.#becomeFollower(this.#term, undefined);
  }

  /** One follower for each other member; who is new begins at the end of the log. */
  #syncProgress(): void {
    const others = membersOf(this.#config).filter((one) => one !== this.id);
    for (const id of this.#progress.keys()) if (!others.includes(id)) this.#progress.delete(id);
    for (const id of others) {
      if (!this.#progress.has(id)) this.#progress.set(id, new Progress(this.#log.lastIndex + 1));
    }
    if (this.#transfer && !isVoter(this.#config, this.#transfer.to)) this.#transfer = undefined;
  }

  #sendAppends(): void {
    for (const id of this.#progress.keys()) this.#sendAppend(id);
  }

  /**
   * Sends what a follower lacks, as far as its window lets.
   *
   * @param test Send one append in any case, be it empty, to see whether the last ones arrived.
   */
  #sendAppend(to: string, test = false): void {
    const progress = this.#progress.get(to);
    if (!progress) return;
    for (;;) {
      if (progress.state === "snapshot" || progress.state === "probe" && progress.probing) return;
      const prevLogIndex = progress.nextIndex - 1;
      const prevLogTerm = this.#log.termAt(prevLogIndex);
      if (prevLogTerm === undefined) return this.#beginSnapshot(to, progress);
      const full = progress.state === "replicate" && progress.isFull(this.options);
      const entries = full ? [] : this.#log.slice(progress.nextIndex, this.#log.lastIndex, {
        countMax: APPEND_ENTRIES_MAX,
        bytesMax: this.options.appendBytesMax,
      });
      // It cannot know more committed than it is sent. The next entries will tell, if they come soon.
      const news = (this.#noticeAtMs === Infinity || this.#nowMs >= this.#noticeAtMs) &&
        Math.min(this.#commitIndex, prevLogIndex + entries.length) > progress.toldCommit;
      if (entries.length === 0 && !test && !news && progress.state !== "probe") return;
      test = false;
      progress.toldCommit = Math.max(progress.toldCommit, Math.min(this.#commitIndex, prevLogIndex + entries.length));
      const { commitIndex } = this;
      this.#send(to, { type: "append", term: this.#term, prevLogIndex, prevLogTerm, entries, commitIndex }, false);
      if (progress.state === "probe") progress.probing = true;
      if (entries.length === 0) return;
      progress.sent(entries.at(-1)!.index, entries.reduce((sum, one) => sum + entryBytes(one), 0));
    }
  }

  /** Last index that is known to be committed. */
  get commitIndex(): number {
    return this.#commitIndex;
  }

  #beginSnapshot(to: string, progress: Progress): void {
    assert(this.#snapshot && this.#snapshot.meta.index >= this.#log.prevIndex, "what was dropped is in the snapshot");
    progress.beginSnapshot(this.#snapshot);
    this.#sendChunk(to, progress);
  }

  #sendChunk(to: string, progress: Progress): void {
    const { meta, data } = progress.snapshot!;
    const { offset } = progress;
    progress.chunkMs = this.#nowMs;
    const chunk = data.subarray(offset, offset + this.options.chunkBytes);
    this.#send(to, { type: "snapshot", term: this.#term, meta, offset, data: chunk }, false);
  }

  /** Tells all that it leads, and begins a round that proves it. */
  #heartbeat(): void {
    this.#heartbeatAtMs = this.#nowMs + this.options.heartbeatMs;
    this.#round += 1;
    this.#startReads();
    for (const [id, progress] of this.#progress) {
      const commitIndex = Math.min(this.#commitIndex, progress.matchIndex);
      progress.toldCommit = Math.max(progress.toldCommit, commitIndex);
      this.#send(id, { type: "heartbeat", term: this.#term, commitIndex, round: this.#round }, false);
    }
    this.#confirmReads();
  }

  // --- Proposals.

  #propose(proposals: readonly Proposal[]): void {
    if (proposals.length === 0) return;
    const bytes = proposals.reduce((sum, one) => sum + 32 + one.data.length, 0);
    const refusal: RefusalReason | undefined = this.#role !== "leader"
      ? "not-leader"
      : proposals.some((one) => one.data.length > ENTRY_BYTES_MAX)
      ? "too-large"
      : this.#transfer
      ? "transferring"
      // A batch larger than the bound gets through where nothing else is under way.
      : this.#uncommittedBytes > 0 && this.#uncommittedBytes + bytes > this.options.uncommittedBytesMax
      ? "overloaded"
      : undefined;
    if (refusal) {
      for (const { id } of proposals) this.#refuse(id, refusal);
      return;
    }
    const term = this.#term;
    const first = this.#log.lastIndex + 1;
    this.#append(proposals.map(({ data }, i) => ({ kind: "data", term, index: first + i, data })));
    for (const [i, { id }] of proposals.entries()) this.#atOnce.push({ type: "accepted", id, index: first + i, term });
    this.#sendAppends();
    if ([...this.#progress.values()].every((one) => one.toldCommit >= this.#commitIndex)) this.#noticeAtMs = Infinity;
  }

  #changeConfig(id: number, changes: readonly ConfigChange[], transition: Transition): void {
    if (this.#role !== "leader") return this.#refuse(id, "not-leader");
    if (this.#transfer) return this.#refuse(id, "transferring");
    // One at a time, and none before an entry of this term is committed: two leaders' first changes need not
    // share a voter otherwise (4.1, and the correction to it on raft-dev, 2015).
    if (this.#configs.at(-1)!.index > this.#commitIndex || this.#commitIndex < this.#firstOfTerm) {
      return this.#refuse(id, "change-pending");
    }
    const changed = changedConfig(this.#config, changes, transition);
    if (!changed.ok) return this.#refuse(id, "bad-change", changed.reason);
    const entry: Entry = { kind: "config", term: this.#term, index: this.#log.lastIndex + 1, config: changed.config };
    this.#append([entry]);
    this.#atOnce.push({ type: "accepted", id, index: entry.index, term: entry.term });
    this.#sendAppends();
  }

  #beginTransfer(id: number, to: string): void {
    if (this.#role !== "leader") return this.#refuse(id, "not-leader");
    if (to === this.id) return;
    if (!this.#config.voters.includes(to)) return this.#refuse(id, "not-voter");
    if (this.#transfer) {
      if (this.#transfer.to !== to) this.#refuse(id, "transferring");
      return;
    }
    // Should it not lead within a timeout, this one goes on (3.10).
    this.#transfer = { to, untilMs: this.#nowMs + this.options.electionTimeoutMs };
    this.#continueTransfer();
  }

  #continueTransfer(): void {
    const { to } = this.#transfer!;
    if (this.#progress.get(to)!.matchIndex < this.#log.lastIndex) return this.#sendAppend(to);
    this.#send(to, { type: "timeout-now", term: this.#term }, false);
  }

  // --- Reads (6.4).

  #read(id: number): void {
    const waiting = this.#reads.size + this.#asked.size + this.#confirmed.length;
    if (waiting >= this.options.readsMax) return this.#refuse(id, "overloaded");
    if (this.#role === "leader") return this.#waitForRound({ from: this.id, incarnation: this.#incarnation, id });
    if (this.#leader === undefined) return this.#refuse(id, "not-leader");
    this.#asked.set(id, this.#nowMs + 2 * this.options.electionTimeoutMs);
    const message = { type: "read-request", term: this.#term, incarnation: this.#incarnation, id } as const;
    this.#send(this.#leader, message, false);
  }

  #onReadRequest(from: string, incarnation: number, id: number): void {
    const read: WaitingRead = { from, incarnation, id };
    if (this.#role !== "leader" || !this.#progress.has(from) || this.#reads.size >= this.options.readsMax) {
      return this.#answerRead(read, undefined);
    }
    this.#waitForRound(read);
  }

  #onReadResponse(from: string, incarnation: number, id: number, index: number | undefined): void {
    if (incarnation !== this.#incarnation || from !== this.#leader || !this.#asked.delete(id)) {
      return this.#drop(from, "stale");
    }
    if (index === undefined) return this.#refuse(id, "read-lost");
    this.#confirmed.push({ id, index });
  }

  #waitForRound(read: WaitingRead): void {
    this.#reads.add(read);
    // While a round is under way the next one waits for it: a hundred reads cost two rounds, not a hundred.
    if (this.#confirmedRound() >= this.#round && this.#commitIndex >= this.#firstOfTerm) this.#heartbeat();
  }

  /** Reads that were here before the round began are confirmed by it. */
  #startReads(): void {
    if (this.#commitIndex < this.#firstOfTerm) return;
    this.#reads.begin(this.#round, this.#commitIndex);
  }

  #confirmedRound(): number {
    return reachedByQuorum(
      this.#config,
      (id) => id === this.id ? this.#round : this.#progress.get(id)?.round ?? 0,
    );
  }

  #confirmReads(): void {
    if (this.#reads.size === 0) return;
    const confirmed = this.#confirmedRound();
    for (const read of this.#reads.take(confirmed)) this.#answerRead(read, read.index);
    if (this.#reads.allNew && confirmed >= this.#round && this.#commitIndex >= this.#firstOfTerm) this.#heartbeat();
  }

  #answerRead(read: WaitingRead, index: number | undefined): void {
    const { from, incarnation, id } = read;
    if (from !== this.id) {
      return this.#send(from, { type: "read-response", term: this.#term, incarnation, id, index }, false);
    }
    if (index === undefined) this.#refuse(id, "read-lost");
    else this.#confirmed.push({ id, index });
  }

  // --- Compaction.

  #compact(index: number, data: Uint8Array): void {
    assert(index <= this.#appliedIndex, `the state machine holds ${this.#appliedIndex}, not ${index}`);
    assert(data.length <= SNAPSHOT_BYTES_MAX, `a snapshot has ${data.length} bytes, at most ${SNAPSHOT_BYTES_MAX}`);
    const term = this.#log.termAt(index);
    if (index <= (this.#snapshot?.meta.index ?? 0) || term === undefined) return;
    const base = this.#configs.findLastIndex((one) => one.index <= index);
    const { config } = this.#configs[base]!;
    const meta = { index, term, config, sizeBytes: data.length, digest: sha256(data) };
    this.#snapshot = { meta, data };
    this.#snapshotDirty = true;
    this.#configs = this.#configs.slice(base);
    const drop = Math.max(this.#log.prevIndex, index - this.options.trailingEntries);
    if (drop > this.#log.prevIndex) {
      this.#dropThrough = { index: drop, term: this.#log.termAt(drop)! };
      this.#log.dropThrough(drop);
    }
  }

  // --- Small ones.

  /** @param durable Whether it may only leave when everything so far is durable. */
  #send(to: string, message: RaftMessage, durable: boolean): void {
    (durable ? this.#then : this.#atOnce).push({ type: "send", to, message });
  }

  #refuse(id: number, reason: RefusalReason, detail?: string): void {
    const leader = this.#role === "leader" ? this.id : this.#leader;
    this.#atOnce.push({ type: "refused", id, reason, leader, ...(detail === undefined ? {} : { detail }) });
  }

  #drop(from: string, reason: DropReason): void {
    this.#atOnce.push({ type: "drop", from, reason });
  }
}
