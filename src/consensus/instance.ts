/**
 * One instance: the rounds of one voter until a certificate. DESIGN.md has the picture; names are the model's (docs/models).
 *
 * Holds the branches and the state; commitments, certificates and evidence are computed by their own files. Everything that it
 * says to itself goes through the same handlers as what others say.
 *
 * @module
 */

import { assert } from "../core/assert.ts";
import { equalBytes, toHex } from "../core/bytes.ts";
import type { KeyPair } from "../core/crypto.ts";
import { type Certificate, checkSignatures, joinSignatures, verifyFreeze } from "./certificate.ts";
import {
  type CommitmentPlace,
  dealCommitment,
  type Dealing,
  openCommitment,
  recoverNonce,
  shareFits,
} from "./commitment.ts";
import type { ConsensusEffect, DropReason, Lock, StoredInstance, VoterFact } from "./effects.ts";
import { type Evidence, sameVote, type SignedVote, voteStatement } from "./evidence.ts";
import {
  beaconOf,
  type ConsensusMessage,
  type FrozenSet,
  type OpenedSet,
  setHash,
  type SignedCommitment,
} from "./messages.ts";
import {
  bitmapBytes,
  bitmapOf,
  bitOf,
  type Header,
  instanceId,
  isBitmap,
  isStatedBy,
  type Proposal,
  SHARE_HASH_BYTES,
  signStatement,
  statementBytes,
  type Verify,
} from "./statements.ts";
import { blockingSeats, DrawStream, quorumSeats, totalSeats, type WeightTable } from "./weights.ts";

/** Who a node is, for all its instances. */
export interface VoterSelf {
  readonly id: string;
  readonly networkId: Uint8Array;
  readonly key: KeyPair;
  /** 32 bytes that never leave it: nonces come from them. */
  readonly secret: Uint8Array;
  readonly verify: Verify;
  readonly roundsMax: number;
  /** Δ now, milliseconds. */
  readonly delayMs: () => number;
  /** Whether a voter is known not to answer: then a round that it leads is not waited for. */
  readonly isSilent: (id: string) => boolean;
}

/** What an instance is made of. */
export interface InstanceOptions {
  readonly proposal: Proposal;
  /** The whole frozen table. */
  readonly table: WeightTable;
  /** Who votes: the table or a committee of it. */
  readonly electorate: WeightTable;
  readonly stored: StoredInstance["voting"];
}

/** How an instance stands. */
export type InstanceState = "voting" | "decided" | "failed";

type Message<T extends ConsensusMessage["type"]> = Extract<ConsensusMessage, { readonly type: T }>;

interface Held {
  readonly signed: SignedCommitment;
  readonly digest: Uint8Array;
  /** This node's shares of it, where they fit. */
  shares: Uint8Array | undefined;
}

/**
 * Least time until an opening counts as withheld. The estimated delay of a fast network is some milliseconds, and a machine that
 * is busy for a moment has withheld nothing: the proof costs as much as a wrong vote.
 */
const RECOVER_MS_MIN = 1_000;
/** Delays that a recovered set waits for the proof against who withheld; what is on its way takes less. */
const PROVING_DELAYS = 2;

/** A set that is frozen in the current round, while it is being opened. */
interface Opening {
  readonly set: FrozenSet;
  readonly value: Uint8Array;
  readonly certificate: OpenedSet["certificate"];
  readonly sinceMs: number;
  /** Voters that open second. */
  readonly late: ReadonlySet<number>;
  readonly nonces: Map<number, Uint8Array>;
  readonly votes: Map<number, Uint8Array>;
  /** Dealers, holders, shares that fit. */
  readonly shares: Map<number, Map<number, Uint8Array>>;
  readonly withheld: Map<number, Map<number, Uint8Array>>;
  readonly recovered: Set<number>;
  /** Dealers whose shares give no opening, or whose withholding is proved already. */
  readonly convicted: Set<number>;
  opened: boolean;
  passedOn: boolean;
  sharesGiven: boolean;
  /** When the first opening had to be recovered here. */
  recoveredMs: number | undefined;
  /** All is open, and the precommit waits for the proof of who withheld. */
  proving: boolean;
}

/** A voter's part in one instance. */
export class Instance {
  readonly header: Header;
  readonly id: Uint8Array;
  readonly proposal: Proposal;
  readonly table: WeightTable;
  readonly electorate: WeightTable;
  /** This node's index in the electorate, or -1: it only proposes. */
  readonly me: number;
  readonly #self: VoterSelf;
  readonly #quorum: number;
  readonly #blocking: number;
  readonly #leaders: readonly number[];

  state: InstanceState = "voting";
  round = -1;
  certificate: Certificate | undefined;
  /** Something that must survive a crash has changed. */
  dirty = false;
  /** When the first round's set was frozen. */
  frozenMs: number | undefined;

  #vote: Uint8Array | undefined;
  #verifying = false;
  #freezeVote: { readonly round: number; readonly value: Uint8Array } | undefined;
  #lock: Lock | undefined;
  #valid: OpenedSet | undefined;
  /** What the entries of `#valid` have voted, in their order: opened once. */
  #validVotes: readonly Uint8Array[] = [];
  #dealing: Dealing | undefined;

  /** Commitments of this round and the next, and of the set that is being opened, by round. */
  #commitments = new Map<number, Map<number, Held>>();
  /** Highest round that each voter has said it is in. */
  readonly #announced = new Map<number, number>();
  /** Who could not vote for a set because of a dealer, by dealer. */
  readonly #objections = new Map<number, Set<number>>();
  #opening: Opening | undefined;
  /** Openings that came before their set, one per voter. */
  #earlyOpens = new Map<number, { readonly value: Uint8Array; readonly nonce: Uint8Array }>();
  /** The leader's request that waits for commitments or shares. */
  #pendingRequest: Message<"freeze-request"> | undefined;
  /** As the leader of this round. */
  #requested:
    | { readonly set: FrozenSet; readonly value: Uint8Array; readonly carried: OpenedSet | undefined }
    | undefined;
  #frozen: Message<"frozen"> | undefined;
  #votes = { freeze: new Map<number, SignedVote>(), precommit: new Map<number, SignedVote>() };
  #quorumSinceMs: number | undefined;

  #nowMs = 0;
  #roundSinceMs = 0;
  #together = false;
  #resendAtMs = 0;
  #resendMs = 0;
  #selfQueue: ConsensusMessage[] = [];
  #effects: ConsensusEffect[] = [];

  constructor(self: VoterSelf, options: InstanceOptions) {
    this.#self = self;
    this.proposal = options.proposal;
    this.header = options.proposal.header;
    this.id = instanceId(this.header, self.networkId);
    this.table = options.table;
    this.electorate = options.electorate;
    this.me = options.electorate.voters.findIndex((one) => one.id === self.id);
    const total = totalSeats(options.electorate);
    this.#quorum = quorumSeats(total);
    this.#blocking = blockingSeats(total);
    this.#leaders = new DrawStream("mycelium/consensus/leaders/v1", this.id).order(options.electorate.voters.length);
    const { stored } = options;
    if (stored) {
      this.round = stored.round;
      this.#vote = stored.vote;
      this.#freezeVote = stored.freezeVote;
      this.#lock = stored.lock;
      this.#valid = stored.valid;
      this.#validVotes = stored.valid ? this.#votesIn(stored.valid) : [];
    }
  }

  /** Enters round 0, or the round that it was in before it restarted. */
  start(nowMs: number): readonly ConsensusEffect[] {
    return this.#step(nowMs, () => {
      if (this.me >= 0 && !this.#vote) {
        this.#verifying = true;
        this.#effects.push({
          type: "verify",
          instance: this.id,
          header: this.header,
          operations: this.proposal.operations,
        });
      }
      this.#enterRound(Math.max(0, this.round));
    });
  }

  /** The operations are verified: the vote. */
  verified(vote: Uint8Array, nowMs: number): readonly ConsensusEffect[] {
    assert(isBitmap(vote, this.header.count), `a vote has ${vote.length} bytes for ${this.header.count} operations`);
    return this.#step(nowMs, () => {
      if (!this.#verifying || this.#vote) return;
      this.#verifying = false;
      this.#vote = vote;
      this.dirty = true;
      this.#announce();
    });
  }

  /** A message about this instance, from a node that the channel has proved. */
  receive(from: string, message: ConsensusMessage, nowMs: number): readonly ConsensusEffect[] {
    return this.#step(nowMs, () => this.#receive(from, message));
  }

  /** Time has passed. */
  wake(nowMs: number): readonly ConsensusEffect[] {
    return this.#step(nowMs, () => {
      if (nowMs >= this.#roundEndMs() && this.#mayLeave()) this.#enterRound(this.round + 1);
      else {
        this.#lead();
        this.#open();
        this.#passOn();
        this.#recover();
        if (this.#opening?.proving) this.#tally();
      }
      if (this.state === "voting" && nowMs >= this.#resendAtMs) this.#resend();
    });
  }

  /** When {@linkcode wake} has something to do. */
  wakeAtMs(): number {
    if (this.state !== "voting") return Number.MAX_SAFE_INTEGER;
    let at = this.#mayLeave() ? Math.min(this.#roundEndMs(), this.#resendAtMs) : this.#resendAtMs;
    const delay = this.#delayMs();
    if (this.#quorumSinceMs !== undefined && !this.#requested) at = Math.min(at, this.#quorumSinceMs + delay);
    const opening = this.#opening;
    if (opening && this.me >= 0) {
      if (!opening.opened) at = Math.min(at, opening.sinceMs + 2 * delay);
      if (!opening.passedOn) at = Math.min(at, opening.sinceMs + 3 * delay);
      if (!opening.sharesGiven) at = Math.min(at, opening.sinceMs + this.#recoverMs());
      if (opening.proving) at = Math.min(at, opening.recoveredMs! + PROVING_DELAYS * delay);
    }
    return Math.max(at, this.#nowMs + 1);
  }

  /** What must survive a crash. */
  stored(): StoredInstance {
    return {
      instance: this.id,
      expiresMs: this.header.expiresMs,
      settled: this.state === "voting" ? undefined : { certificate: this.certificate },
      voting: this.state !== "voting" ? undefined : {
        proposal: this.proposal,
        table: this.table,
        round: this.round,
        vote: this.#vote,
        freezeVote: this.#freezeVote,
        lock: this.#lock,
        valid: this.#valid,
      },
    };
  }

  /** What this node has seen of each voter, once it is decided. */
  facts(): readonly { readonly voter: string; readonly fact: VoterFact }[] {
    const { certificate } = this;
    const opening = this.#opening;
    const valid = this.#valid;
    if (!certificate || !valid || !equalBytes(valid.certificate.value, certificate.value)) return [];
    return this.electorate.voters.map(({ id }, voter) => {
      const at = valid.set.entries.findIndex((one) => one.voter === voter);
      if (at < 0) return { voter: id, fact: "missing" };
      const vote = this.#validVotes[at];
      if (opening?.recovered.has(voter)) return { voter: id, fact: "withheld" };
      return { voter: id, fact: vote && equalBytes(vote, certificate.outcome) ? "correct" : "wrong" };
    });
  }

  #step(nowMs: number, act: () => void): readonly ConsensusEffect[] {
    this.#nowMs = Math.max(nowMs, this.#nowMs);
    this.#effects = [];
    if (this.state === "voting") act();
    for (let next = this.#selfQueue.shift(); next && this.state === "voting"; next = this.#selfQueue.shift()) {
      this.#receive(this.#self.id, next);
    }
    this.#selfQueue = [];
    return this.#effects;
  }

  #receive(from: string, message: ConsensusMessage): void {
    const voter = this.electorate.voters.findIndex((one) => one.id === from);
    if (voter < 0 && message.type !== "decided") return this.#drop(from, "unexpected");
    switch (message.type) {
      case "commit":
        return this.#onCommit(voter, message);
      case "lock":
        return this.#onLock(voter, message);
      case "freeze-request":
        return this.#onFreezeRequest(voter, message);
      case "freeze-vote":
      case "precommit":
        return this.#onVote(voter, message);
      case "frozen":
        return this.#onFrozen(voter, message);
      case "open":
        return this.#onOpen(voter, message);
      case "share":
        return this.#onShare(voter, message);
      case "missing":
        return this.#onMissing(voter, message);
      case "decided":
        return this.#onDecided(from, message);
      case "unknown":
        return this.#send(from, { type: "propose", proposal: this.proposal });
      case "propose":
        return;
      default:
        return message satisfies never;
    }
  }

  // Rounds.

  #enterRound(round: number): void {
    if (round >= this.#self.roundsMax) {
      this.state = "failed";
      this.dirty = true;
      this.#effects.push({ type: "failed", instance: this.id, reason: "rounds" });
      return;
    }
    this.dirty = true;
    this.round = round;
    this.#roundSinceMs = this.#nowMs;
    this.#together = false;
    this.#gather();
    this.#objectToSpoilers();
    this.#opening = undefined;
    this.#pendingRequest = undefined;
    this.#requested = undefined;
    this.#frozen = undefined;
    this.#quorumSinceMs = undefined;
    this.#votes = { freeze: new Map(), precommit: new Map() };
    this.#earlyOpens = new Map();
    for (const old of this.#commitments.keys()) if (old < round) this.#commitments.delete(old);
    this.#resendMs = 4 * this.#delayMs();
    this.#resendAtMs = this.#nowMs + this.#resendMs;
    this.#announce();
  }

  /** Commits in this round, or shows the opened set that it would carry. */
  #announce(): void {
    if (this.me < 0) return;
    if (this.#valid) {
      return this.#broadcast({ type: "lock", instance: this.id, round: this.round, opened: this.#valid });
    }
    if (!this.#vote) return;
    this.#dealing = dealCommitment(this.#place(this.me, this.round), this.#vote, this.#self.secret);
    this.#sendCommitment(this.electorate.voters.map((_, i) => i));
  }

  #sendCommitment(to: readonly number[]): void {
    const dealing = this.#dealing;
    if (!dealing || dealing.statement.round !== this.round) return;
    const own = this.#commitments.get(this.round)?.get(this.me)?.signed;
    const commitment = own ??
      {
        voter: this.me,
        statement: dealing.statement,
        signature: signStatement(dealing.statement, this.#self.networkId, this.#self.key),
      };
    for (const voter of to) {
      this.#sendTo(voter, { type: "commit", instance: this.id, commitment, shares: dealing.shares[voter] });
    }
  }

  /** Notes which round a voter is in; true where this node has followed more than a third into a later one. */
  #hearRound(voter: number, round: number): void {
    if (round <= (this.#announced.get(voter) ?? -1)) return;
    this.#announced.set(voter, round);
    this.#gather();
    if (round <= this.round) return;
    // The highest round that at least one honest voter is in.
    const byRound = [...this.#announced].sort((a, b) => b[1] - a[1]);
    let seats = 0;
    for (const [one, at] of byRound) {
      if (at <= this.round) return;
      seats += this.#seats(one);
      if (seats >= this.#blocking) return this.#enterRound(at);
    }
  }

  /** The time of a round runs from when its quorum is there: so all of it leave within a message's time of each other. */
  #gather(): void {
    if (this.#together || !this.#mayLeave()) return;
    this.#together = true;
    this.#roundSinceMs = this.#nowMs;
  }

  /** Whether more than two thirds are in this round or a later one: nobody runs ahead alone, where no quorum would follow. */
  #mayLeave(): boolean {
    let seats = this.#seats(this.me);
    for (const [voter, round] of this.#announced) {
      if (voter !== this.me && round >= this.round) seats += this.#seats(voter);
    }
    return seats >= this.#quorum;
  }

  #leader(): number {
    return this.#leaders[this.round % this.#leaders.length]!;
  }

  // 1. Commit.

  #onCommit(from: number, { commitment, shares }: Message<"commit">): void {
    const { voter, statement, signature } = commitment;
    const name = this.#name(from);
    if (!equalBytes(statement.instance, this.id) || voter >= this.electorate.voters.length) {
      return this.#drop(name, "invalid");
    }
    if (from === voter) this.#hearRound(voter, statement.round);
    // A voter two rounds ahead says it again when this node has followed.
    if (statement.round < this.round || statement.round > this.round + 1) return this.#drop(name, "stale");
    const wellFormed = statement.sealed.length === bitmapBytes(this.header.count) &&
      statement.shareHashes.length === SHARE_HASH_BYTES * this.electorate.voters.length;
    if (!wellFormed) return this.#drop(name, "invalid");
    const digest = statementBytes(statement, this.#self.networkId);
    const round = this.#commitments.get(statement.round) ?? new Map<number, Held>();
    let held = round.get(voter);
    if (!held || !equalBytes(held.digest, digest)) {
      const own = from === this.me && voter === this.me;
      if (!own && !this.#isSigned(voter, digest, signature)) return this.#drop(name, "invalid");
      if (held) {
        this.#accuse({ type: "two-commitments", header: this.header, a: held.signed, b: commitment });
        // The leader's set may hold the other one.
        if (!this.#wanted(voter, digest)) return;
      }
      held = { signed: commitment, digest, shares: undefined };
      this.#commitments.set(statement.round, round.set(voter, held));
    }
    if (
      shares && !held.shares && shareFits(this.#place(voter, statement.round), held.signed.statement, this.me, shares)
    ) {
      held.shares = shares;
    }
    if (statement.round !== this.round) return;
    this.#lead();
    this.#considerRequest();
    this.#readEarlyOpens();
  }

  #wanted(voter: number, digest: Uint8Array): boolean {
    const set = this.#opening?.set ?? this.#pendingRequest?.set;
    return set?.entries.some((one) => one.voter === voter && equalBytes(one.digest, digest)) ?? false;
  }

  #onLock(from: number, { round, opened }: Message<"lock">): void {
    const known = this.#valid;
    const newer = !known || known.certificate.round < opened.certificate.round;
    // Older ones are not worth their verification; a liar is not told from a laggard by them.
    if (newer && !this.#adopt(opened)) return this.#drop(this.#name(from), "invalid");
    this.#hearRound(from, round);
    this.#lead();
  }

  /** Checks an opened set, and keeps it where it is newer than what is known. */
  #adopt(opened: OpenedSet): boolean {
    const known = this.#valid;
    const { round, value } = opened.certificate;
    if (known && known.certificate.round === round && equalBytes(known.certificate.value, value)) return true;
    if (!this.#isOpened(opened)) return false;
    if (!known || known.certificate.round < round) {
      this.#valid = opened;
      this.#validVotes = this.#votesIn(opened);
      this.dirty = true;
      this.#fillFromValid();
    }
    return true;
  }

  /** Where the set being opened is known opened from an earlier round, there is nothing to wait for. */
  #fillFromValid(): void {
    const [opening, valid] = [this.#opening, this.#valid];
    if (!opening || !valid || !equalBytes(opening.value, valid.certificate.value)) return;
    opening.opened = true;
    opening.passedOn = true;
    opening.sharesGiven = true;
    valid.set.entries.forEach(({ voter }, at) => {
      opening.nonces.set(voter, valid.nonces[at]!);
      opening.votes.set(voter, this.#validVotes[at]!);
      this.#keep(valid.commitments[at]!, voter);
    });
    this.#tally();
  }

  #isOpened(opened: OpenedSet): boolean {
    const { certificate, set, commitments, nonces } = opened;
    const count = set.entries.length;
    if (commitments.length !== count || nonces.length !== count || set.round > certificate.round) return false;
    if (!equalBytes(setHash(set, this.id), certificate.value)) return false;
    for (const [at, { voter, digest }] of set.entries.entries()) {
      const commitment = commitments[at]!;
      const fits = voter < this.electorate.voters.length && commitment.voter === voter &&
        commitment.statement.round === set.round && equalBytes(commitment.statement.instance, this.id) &&
        equalBytes(statementBytes(commitment.statement, this.#self.networkId), digest);
      if (!fits || !this.#voteIn(opened, at)) return false;
      // The set holds no signatures: with another one here the proof against a guilty voter would be lost.
      const held = this.#heldAs(set.round, set.entries[at]!)?.signed;
      const known = held !== undefined && equalBytes(held.signature, commitment.signature);
      if (!known && !this.#isSigned(voter, digest, commitment.signature)) return false;
    }
    return verifyFreeze(this.id, certificate, this.#checking());
  }

  #votesIn(opened: OpenedSet): readonly Uint8Array[] {
    return opened.set.entries.map((_, at) => this.#voteIn(opened, at)!);
  }

  #voteIn(opened: OpenedSet, at: number): Uint8Array | undefined {
    const { voter, statement } = opened.commitments[at]!;
    return openCommitment(this.#place(voter, opened.set.round), statement, opened.nonces[at]!, this.header.count);
  }

  // 2. Freeze.

  /** As the leader: names a set when there is a reason to. */
  #lead(): void {
    if (this.me < 0 || this.#leader() !== this.me || this.#requested) return;
    if (this.#valid && this.#valid.certificate.round < this.round) return this.#request(this.#valid.set, this.#valid);
    const held = [...this.#commitments.get(this.round) ?? []].filter(([, one]) => one.shares !== undefined)
      .sort(([a], [b]) => a - b);
    const seats = (voters: readonly (readonly [number, Held])[]) =>
      voters.reduce((sum, [voter]) => sum + this.#seats(voter), 0);
    if (seats(held) < this.#quorum) return;
    this.#quorumSinceMs ??= this.#nowMs;
    // Who is known not to answer is not waited for.
    const there = new Set(held.map(([voter]) => voter));
    const all = this.electorate.voters.every(({ id }, i) => there.has(i) || this.#self.isSilent(id));
    if (!all && this.#nowMs < this.#quorumSinceMs + this.#delayMs()) return;
    // Without those that others could not vote for, or that spoiled a round; but never too few for that reason.
    const objected = (voter: number) =>
      [...this.#objections.get(voter) ?? []].reduce((sum, one) => sum + this.#seats(one), 0);
    const byTrouble = held.toSorted(([a], [b]) => objected(a) - objected(b) || a - b);
    let chosen = byTrouble.filter(([voter]) => objected(voter) === 0);
    for (let i = chosen.length; seats(chosen) < this.#quorum; i++) chosen = byTrouble.slice(0, i + 1);
    const entries = chosen.sort(([a], [b]) => a - b).map(([voter, { digest }]) => ({ voter, digest }));
    this.#request({ round: this.round, entries }, undefined);
  }

  #request(set: FrozenSet, carried: OpenedSet | undefined): void {
    const value = setHash(set, this.id);
    this.#requested = { set, value, carried };
    this.#broadcast({ type: "freeze-request", instance: this.id, round: this.round, set, carried });
  }

  #onFreezeRequest(from: number, message: Message<"freeze-request">): void {
    this.#hearRound(from, message.round);
    if (message.round !== this.round) return this.#drop(this.#name(from), "stale");
    if (from !== this.#leader()) return this.#drop(this.#name(from), "unexpected");
    const { set, carried } = message;
    if (carried) {
      const proved = carried.certificate.round < message.round &&
        equalBytes(setHash(set, this.id), carried.certificate.value) && this.#adopt(carried);
      if (!proved) return this.#drop(this.#name(from), "invalid");
    } else {
      const seats = set.entries.reduce((sum, { voter }) => sum + this.#seats(voter), 0);
      if (set.round !== this.round || seats < this.#quorum) return this.#drop(this.#name(from), "invalid");
    }
    if (this.#opening) return;
    this.#pendingRequest = message;
    this.#considerRequest();
    if (this.#pendingRequest && !carried) this.#tellMissing(set);
  }

  /** Signs the leader's set where the lock allows it and everything of it is here. */
  #considerRequest(): void {
    const request = this.#pendingRequest;
    if (!request || this.me < 0) return;
    const { set, carried } = request;
    const value = setHash(set, this.id);
    if (this.#freezeVote?.round === this.round && !equalBytes(this.#freezeVote.value, value)) {
      this.#pendingRequest = undefined;
      return;
    }
    // Tendermint's rule: a lock yields to a freeze certificate of its round or a later one, to nothing else.
    const lock = this.#lock;
    const free = !lock || equalBytes(lock.value, value) ||
      carried !== undefined && carried.certificate.round >= lock.round;
    if (!free || !carried && this.#valid) {
      this.#pendingRequest = undefined;
      // The others have to know why, or they would try fresh sets in vain.
      if (this.#valid) {
        this.#broadcast({ type: "lock", instance: this.id, round: this.round, opened: this.#valid });
      }
      return;
    }
    if (!carried && set.entries.some((one) => !this.#heldAs(set.round, one)?.shares)) return;
    this.#pendingRequest = undefined;
    this.#freezeVote = { round: this.round, value };
    this.dirty = true;
    this.#sendTo(this.#leader(), {
      type: "freeze-vote",
      instance: this.id,
      round: this.round,
      value,
      signature: signStatement(
        { type: "freeze", instance: this.id, round: this.round, value },
        this.#self.networkId,
        this.#self.key,
      ),
    });
  }

  #heldAs(round: number, entry: FrozenSet["entries"][number]): Held | undefined {
    const held = this.#commitments.get(round)?.get(entry.voter);
    return held && equalBytes(held.digest, entry.digest) ? held : undefined;
  }

  /** Says what is missing of a set: the leader sends commitments, the dealers shares, and all know why there is no vote. */
  #tellMissing(set: FrozenSet): void {
    if (this.me < 0) return;
    const held = set.entries.map((one) => [one.voter, this.#heldAs(set.round, one)] as const);
    const bits = (missing: (one: Held | undefined) => boolean) => {
      const voters = new Set(held.flatMap(([voter, one]) => missing(one) ? [voter] : []));
      return bitmapOf(this.electorate.voters.map((_, i) => voters.has(i)));
    };
    const commitments = bits((one) => one === undefined);
    const shares = bits((one) => one?.shares === undefined);
    if (shares.every((byte) => byte === 0)) return;
    this.#broadcast({ type: "missing", instance: this.id, round: set.round, commitments, shares });
  }

  #onMissing(from: number, { round, commitments, shares }: Message<"missing">): void {
    if (from === this.me) return;
    const count = this.electorate.voters.length;
    if (!isBitmap(commitments, count) || !isBitmap(shares, count)) return this.#drop(this.#name(from), "invalid");
    if (round !== this.round) return this.#drop(this.#name(from), "stale");
    for (let voter = 0; voter < count; voter++) {
      if (bitOf(shares, voter)) this.#object(voter, from);
      if (voter === this.me) {
        if (bitOf(shares, voter) || bitOf(commitments, voter)) this.#sendCommitment([from]);
        continue;
      }
      const held = this.#commitments.get(round)?.get(voter);
      if (bitOf(commitments, voter) && held) {
        this.#sendTo(from, { type: "commit", instance: this.id, commitment: held.signed, shares: undefined });
      }
    }
  }

  #object(dealer: number, by: number): void {
    this.#objections.set(dealer, (this.#objections.get(dealer) ?? new Set()).add(by));
  }

  /** A dealer whose opening was neither given nor recovered has spoiled the round. */
  #objectToSpoilers(): void {
    const opening = this.#opening;
    if (!opening) return;
    for (const { voter } of opening.set.entries) {
      if (!opening.votes.has(voter)) this.electorate.voters.forEach((_, by) => this.#object(voter, by));
    }
  }

  #onVote(from: number, message: Message<"freeze-vote"> | Message<"precommit">): void {
    const vote: SignedVote = message.type === "freeze-vote"
      ? { type: "freeze", round: message.round, value: message.value, signature: message.signature }
      : {
        type: "precommit",
        round: message.round,
        value: message.value,
        outcome: message.outcome,
        beacon: message.beacon,
        signature: message.signature,
      };
    const name = this.#name(from);
    this.#hearRound(from, message.round);
    if (message.round !== this.round) return this.#drop(name, "stale");
    if (this.#leader() !== this.me) return this.#drop(name, "unexpected");
    const votes = this.#votes[vote.type];
    const before = votes.get(from);
    if (before && sameVote(before, vote)) return;
    const statement = voteStatement(vote, this.id);
    const { publicKey } = this.electorate.voters[from]!;
    if (
      from !== this.me && !isStatedBy(statement, vote.signature, publicKey, this.#self.networkId, this.#self.verify)
    ) {
      return this.#drop(name, "invalid");
    }
    if (before) {
      return this.#accuse({ type: "two-votes", header: this.header, voter: from, a: before, b: vote });
    }
    votes.set(from, vote);
    const same = new Map([...votes].filter(([, one]) => sameVote(one, vote)).map(([v, one]) => [v, one.signature]));
    let seats = 0;
    for (const voter of same.keys()) seats += this.#seats(voter);
    if (seats < this.#quorum) return;
    const signatures = joinSignatures(this.electorate.voters.length, same);
    if (vote.type === "precommit") {
      const { round, value, outcome, beacon } = vote;
      const certificate: Certificate = { header: this.header, round, value, outcome, beacon, ...signatures };
      return this.#decide(certificate);
    }
    const requested = this.#requested;
    if (this.#frozen || !requested || !equalBytes(requested.value, vote.value)) return;
    const certificate = { round: this.round, value: vote.value, ...signatures };
    this.#frozen = { type: "frozen", instance: this.id, certificate, set: requested.set };
    this.#broadcast(this.#frozen);
  }

  // 3. Open.

  #onFrozen(from: number, message: Message<"frozen">): void {
    const { certificate, set } = message;
    const name = this.#name(from);
    if (certificate.round < this.round || this.#opening && certificate.round === this.round) return;
    if (!equalBytes(setHash(set, this.id), certificate.value)) return this.#drop(name, "invalid");
    if (set.entries.some(({ voter }) => voter >= this.electorate.voters.length)) return this.#drop(name, "invalid");
    if (from !== this.me && !verifyFreeze(this.id, certificate, this.#checking())) return this.#drop(name, "invalid");
    // More than two thirds are in that round.
    if (certificate.round > this.round) this.#enterRound(certificate.round);
    if (this.state !== "voting") return;
    const order = new DrawStream("mycelium/consensus/order/v1", this.id, certificate.value).order(set.entries.length);
    // Who is late is not known before the set is frozen. With three or fewer there is nothing to play for.
    const late = this.electorate.voters.length < 4 ? [] : order.slice(Math.ceil(order.length / 2));
    if (this.round === 0) this.frozenMs ??= this.#nowMs;
    this.#opening = {
      set,
      value: certificate.value,
      certificate,
      sinceMs: this.#nowMs,
      late: new Set(late.map((at) => set.entries[at]!.voter)),
      nonces: new Map(),
      votes: new Map(),
      shares: new Map(),
      withheld: new Map(),
      recovered: new Set(),
      convicted: new Set(),
      opened: false,
      passedOn: false,
      sharesGiven: false,
      recoveredMs: undefined,
      proving: false,
    };
    this.#pendingRequest = undefined;
    this.#fillFromValid();
    if (this.#opening.opened) return;
    if (set.round === this.round) this.#tellMissing(set);
    this.#readEarlyOpens();
    this.#open();
  }

  #keep(signed: SignedCommitment, voter: number): void {
    const round = this.#commitments.get(signed.statement.round) ?? new Map<number, Held>();
    const digest = statementBytes(signed.statement, this.#self.networkId);
    const shares = round.get(voter)?.shares;
    this.#commitments.set(signed.statement.round, round.set(voter, { signed, digest, shares }));
  }

  /** Opens, when it is this voter's turn. */
  #open(): void {
    const opening = this.#opening;
    if (!opening || opening.opened || this.me < 0) return;
    const mine = opening.set.entries.find((one) => one.voter === this.me);
    if (!mine || !this.#dealing || !this.#heldAs(opening.set.round, mine)) {
      opening.opened = true;
      return;
    }
    const first = opening.set.entries.filter(({ voter }) => !opening.late.has(voter));
    const turn = !opening.late.has(this.me) || first.every(({ voter }) => opening.votes.has(voter)) ||
      this.#nowMs >= opening.sinceMs + 2 * this.#delayMs();
    if (!turn) return;
    opening.opened = true;
    this.#broadcast(this.#ownOpening(opening));
  }

  #ownOpening(opening: Opening): ConsensusMessage {
    return { type: "open", instance: this.id, value: opening.value, voter: this.me, nonce: this.#dealing!.nonce };
  }

  #onOpen(from: number, { voter, value, nonce }: Message<"open">): void {
    const opening = this.#opening;
    if (!opening || !equalBytes(opening.value, value)) {
      // The frozen set is on its way. Only a voter's own word is kept: one place each.
      if (!opening && voter === from) this.#earlyOpens.set(from, { value, nonce });
      return;
    }
    if (opening.votes.has(voter)) return;
    const entry = opening.set.entries.find((one) => one.voter === voter);
    if (!entry) return this.#drop(this.#name(from), "unexpected");
    const held = this.#heldAs(opening.set.round, entry);
    if (!held) {
      if (voter === from) this.#earlyOpens.set(from, { value, nonce });
      return;
    }
    const vote = openCommitment(this.#place(voter, opening.set.round), held.signed.statement, nonce, this.header.count);
    if (!vote) return this.#drop(this.#name(from), "invalid");
    opening.nonces.set(voter, nonce);
    opening.votes.set(voter, vote);
    this.#open();
    this.#tally();
  }

  #readEarlyOpens(): void {
    if (!this.#opening || this.#earlyOpens.size === 0) return;
    const early = this.#earlyOpens;
    this.#earlyOpens = new Map();
    for (const [voter, { value, nonce }] of early) {
      this.#onOpen(voter, { type: "open", instance: this.id, value, voter, nonce });
    }
  }

  /** Shows the frozen set to those that have not opened: a leader could hide it from them, and have them convicted. */
  #passOn(): void {
    const opening = this.#opening;
    if (!opening || opening.passedOn || this.me < 0) return;
    if (this.#nowMs < opening.sinceMs + 3 * this.#delayMs()) return;
    opening.passedOn = true;
    const { certificate, set } = opening;
    for (const { voter } of set.entries) {
      if (opening.votes.has(voter) || voter === this.me) continue;
      this.#sendTo(voter, { type: "frozen", instance: this.id, certificate, set });
    }
  }

  /** Gives out its shares of those that have not opened in time, with its word for it. */
  #recover(): void {
    const opening = this.#opening;
    if (!opening || opening.sharesGiven || this.me < 0) return;
    if (this.#nowMs < opening.sinceMs + this.#recoverMs()) return;
    opening.sharesGiven = true;
    this.#giveShares(opening);
  }

  #giveShares(opening: Opening): void {
    for (const entry of opening.set.entries) {
      const shares = this.#heldAs(opening.set.round, entry)?.shares;
      // What others have recovered meanwhile was withheld all the same.
      const opened = opening.votes.has(entry.voter) && !opening.recovered.has(entry.voter);
      if (opened || !shares || entry.voter === this.me) continue;
      const signature = signStatement(
        { type: "withheld", instance: this.id, value: opening.value, voter: entry.voter },
        this.#self.networkId,
        this.#self.key,
      );
      const { value } = opening;
      this.#broadcast({ type: "share", instance: this.id, value, dealer: entry.voter, shares, signature });
    }
  }

  #onShare(from: number, { value, dealer, shares, signature }: Message<"share">): void {
    const opening = this.#opening;
    const name = this.#name(from);
    if (!opening || !equalBytes(opening.value, value)) return this.#drop(name, "stale");
    const entry = opening.set.entries.find((one) => one.voter === dealer);
    const held = entry && this.#heldAs(opening.set.round, entry);
    if (!held) return this.#drop(name, "unexpected");
    const known = opening.nonces.get(dealer);
    if (known && from !== this.me && !opening.recovered.has(dealer)) {
      // It has opened, to us at least.
      this.#sendTo(from, { type: "open", instance: this.id, value, voter: dealer, nonce: known });
      return;
    }
    const place = this.#place(dealer, opening.set.round);
    if (!shareFits(place, held.signed.statement, from, shares)) return this.#drop(name, "invalid");
    const statement = { type: "withheld", instance: this.id, value, voter: dealer } as const;
    const given = opening.shares.get(dealer) ?? new Map<number, Uint8Array>();
    if (given.has(from)) return;
    const { publicKey } = this.electorate.voters[from]!;
    if (from !== this.me && !isStatedBy(statement, signature, publicKey, this.#self.networkId, this.#self.verify)) {
      return this.#drop(name, "invalid");
    }
    opening.shares.set(dealer, given.set(from, shares));
    const said = opening.withheld.get(dealer) ?? new Map<number, Uint8Array>();
    opening.withheld.set(dealer, said.set(from, signature));
    this.#convictWithheld(opening, dealer, said);
    if (opening.votes.has(dealer)) {
      if (opening.proving) this.#tally();
      return;
    }
    const nonce = recoverNonce(this.electorate, given);
    if (!nonce) return;
    const vote = openCommitment(place, held.signed.statement, nonce, this.header.count);
    if (!vote) {
      if (opening.convicted.has(dealer)) return;
      opening.convicted.add(dealer);
      this.#accuse({
        type: "bad-dealing",
        header: this.header,
        commitment: held.signed,
        shares: [...given].map(([holder, one]) => ({ holder, shares: one })),
      });
      // This set will never be open, and everybody sees it: no use in waiting for the round to end.
      return this.#enterRound(this.round + 1);
    }
    opening.nonces.set(dealer, nonce);
    opening.votes.set(dealer, vote);
    opening.recovered.add(dealer);
    opening.recoveredMs ??= this.#nowMs;
    this.#open();
    this.#tally();
  }

  #convictWithheld(opening: Opening, voter: number, said: ReadonlyMap<number, Uint8Array>): void {
    let seats = 0;
    for (const one of said.keys()) seats += this.#seats(one);
    const before = seats - this.#seats([...said.keys()].at(-1)!);
    if (seats < this.#quorum || before >= this.#quorum) return;
    const signatures = joinSignatures(this.electorate.voters.length, said);
    this.#accuse({ type: "withheld", header: this.header, value: opening.value, voter, ...signatures });
  }

  // 4. Tally and precommit.

  #tally(): void {
    const opening = this.#opening;
    if (!opening || opening.set.entries.some(({ voter }) => !opening.votes.has(voter))) return;
    const held = opening.set.entries.map((one) => this.#heldAs(opening.set.round, one));
    if (held.some((one) => one === undefined)) return;
    if (!this.#valid || this.#valid.certificate.round < opening.certificate.round) {
      this.#valid = {
        certificate: opening.certificate,
        set: opening.set,
        commitments: held.map((one) => one!.signed),
        nonces: opening.set.entries.map(({ voter }) => opening.nonces.get(voter)!),
      };
      this.#validVotes = opening.set.entries.map(({ voter }) => opening.votes.get(voter)!);
      this.dirty = true;
    }
    if (this.me < 0) return;
    // A third of the shares gives the opening, two thirds of the statements the proof. Who is done with the former would settle
    // the instance, and drop what is on its way: a withholder behind a fast network would never be convicted.
    opening.proving = this.#isProving(opening);
    if (opening.proving) return;
    const { value } = opening;
    // With more than f liars a second set can be frozen; who restarts in between must not precommit that one, too.
    if (this.#lock?.round === this.round && !equalBytes(this.#lock.value, value)) return;
    const outcome = this.#outcome(opening);
    const beacon = beaconOf(opening.set.entries.map(({ voter }) => opening.nonces.get(voter)!), this.id);
    this.#lock = { round: this.round, value, outcome, beacon };
    this.dirty = true;
    this.#sendTo(this.#leader(), this.#precommit(this.#lock));
  }

  #isProving(opening: Opening): boolean {
    const { recoveredMs } = opening;
    if (recoveredMs === undefined || this.#nowMs >= recoveredMs + PROVING_DELAYS * this.#delayMs()) return false;
    return [...opening.recovered].some((dealer) => {
      let seats = 0;
      for (const one of opening.withheld.get(dealer)?.keys() ?? []) seats += this.#seats(one);
      return seats < this.#quorum;
    });
  }

  #precommit({ value, outcome, beacon }: Lock): ConsensusMessage {
    const statement = { type: "precommit", instance: this.id, round: this.round, value, outcome, beacon } as const;
    return { ...statement, signature: signStatement(statement, this.#self.networkId, this.#self.key) };
  }

  /** Accepted by more than half of the opened seats: the honest are the majority of them (ADR 14). */
  #outcome(opening: Opening): Uint8Array {
    const counts = new Array<number>(this.header.count).fill(0);
    let all = 0;
    for (const { voter } of opening.set.entries) {
      const seats = this.#seats(voter);
      const vote = opening.votes.get(voter)!;
      all += seats;
      for (let i = 0; i < counts.length; i++) if (bitOf(vote, i)) counts[i]! += seats;
    }
    return bitmapOf(counts.map((seats) => 2 * seats > all));
  }

  #onDecided(from: string, { certificate }: Message<"decided">): void {
    const { header, round, value, outcome, beacon } = certificate;
    const known = equalBytes(instanceId(header, this.#self.networkId), this.id) && isBitmap(outcome, header.count);
    if (!known) return this.#drop(from, "invalid");
    const seats = checkSignatures(
      { type: "precommit", instance: this.id, round, value, outcome, beacon },
      certificate,
      {
        ...this.#checking(),
        wantedSeats: this.#quorum,
      },
    );
    if (typeof seats !== "number") return this.#drop(from, "invalid");
    this.#settle(certificate);
  }

  #decide(certificate: Certificate): void {
    this.#settle(certificate);
    for (const { id } of this.#audience()) this.#send(id, { type: "decided", certificate });
  }

  #settle(certificate: Certificate): void {
    this.state = "decided";
    this.certificate = certificate;
    this.dirty = true;
    const valid = this.#valid;
    if (valid && equalBytes(valid.certificate.value, certificate.value)) {
      for (const [at, commitment] of valid.commitments.entries()) {
        const vote = this.#validVotes[at];
        if (!vote || equalBytes(vote, certificate.outcome)) continue;
        this.#accuse({ type: "wrong-vote", certificate, commitment, nonce: valid.nonces[at]! });
      }
    }
  }

  // Sending.

  /** Says again what the round still waits for: nothing here is lost for good. */
  #resend(): void {
    this.#resendAtMs = this.#nowMs + this.#resendMs;
    this.#resendMs = Math.min(2 * this.#resendMs, 16 * this.#delayMs());
    if (this.header.proposer === this.#self.id) {
      for (const [voter, { id }] of this.electorate.voters.entries()) {
        if (!this.#announced.has(voter)) this.#send(id, { type: "propose", proposal: this.proposal });
      }
    }
    if (this.me < 0) return;
    const opening = this.#opening;
    if (this.#requested && (!opening || this.#requested.carried)) {
      const { set, carried } = this.#requested;
      this.#broadcast({ type: "freeze-request", instance: this.id, round: this.round, set, carried });
    }
    if (this.#frozen) this.#broadcast(this.#frozen);
    if (!opening) {
      if (this.#valid) {
        this.#broadcast({ type: "lock", instance: this.id, round: this.round, opened: this.#valid });
      } else this.#sendCommitment(this.electorate.voters.map((_, i) => i));
      if (this.#pendingRequest) this.#tellMissing(this.#pendingRequest.set);
      const voted = this.#freezeVote;
      if (voted?.round === this.round) {
        this.#sendTo(this.#leader(), {
          type: "freeze-vote",
          instance: this.id,
          round: this.round,
          value: voted.value,
          signature: signStatement(
            { type: "freeze", instance: this.id, round: this.round, value: voted.value },
            this.#self.networkId,
            this.#self.key,
          ),
        });
      }
      return;
    }
    if (opening.set.round === this.round) this.#tellMissing(opening.set);
    if (opening.opened && this.#dealing && opening.votes.has(this.me) && opening.set.round === this.round) {
      this.#broadcast(this.#ownOpening(opening));
    }
    if (opening.sharesGiven) this.#giveShares(opening);
    if (this.#lock?.round === this.round) {
      this.#sendTo(this.#leader(), this.#precommit(this.#lock));
    }
  }

  #broadcast(message: ConsensusMessage): void {
    for (let voter = 0; voter < this.electorate.voters.length; voter++) this.#sendTo(voter, message);
  }

  /** The voters, and the proposer where it has no vote. */
  #audience(): readonly { readonly id: string }[] {
    const { proposer } = this.header;
    const voters = this.electorate.voters.filter((one) => one.id !== this.#self.id);
    const outside = proposer !== this.#self.id && !this.electorate.voters.some((one) => one.id === proposer);
    return outside ? [...voters, { id: proposer }] : voters;
  }

  #sendTo(voter: number, message: ConsensusMessage): void {
    if (voter === this.me) this.#selfQueue.push(message);
    else this.#send(this.#name(voter), message);
  }

  #send(to: string, message: ConsensusMessage): void {
    this.#effects.push({ type: "send", to, message });
  }

  #accuse(evidence: Evidence): void {
    this.#effects.push({ type: "evidence", evidence });
  }

  #drop(from: string, reason: DropReason): void {
    this.#effects.push({ type: "drop", from, reason });
  }

  #name(voter: number): string {
    return this.electorate.voters[voter]!.id;
  }

  #seats(voter: number): number {
    return this.electorate.voters[voter]?.seats ?? 0;
  }

  #place(voter: number, round: number): CommitmentPlace {
    return { networkId: this.#self.networkId, instance: this.id, round, voter, electorate: this.electorate };
  }

  #checking(): { readonly table: WeightTable; readonly networkId: Uint8Array; readonly verify: Verify } {
    return { table: this.electorate, networkId: this.#self.networkId, verify: this.#self.verify };
  }

  #isSigned(voter: number, message: Uint8Array, signature: Uint8Array): boolean {
    return this.#self.verify(this.electorate.voters[voter]!.publicKey, message, signature);
  }

  /** Δ of this round: half as much again with each round, so that in the end it covers what the network takes. */
  #delayMs(): number {
    return Math.floor(this.#self.delayMs() * (2 + Math.min(this.round, 30)) / 2);
  }

  /** Whether nothing is to be expected of this round: its leader is known not to answer, and has frozen nothing. */
  get isIdle(): boolean {
    const leader = this.#leader();
    return !this.#opening && leader !== this.me && this.#self.isSilent(this.#name(leader));
  }

  /**
   * Fourteen message delays: five until the set is frozen, five until shares are given, three until the decision, one to spare.
   * An idle round has one, however many were before it: f leaders of f rounds may be silent. Times are no part of safety.
   */
  #roundEndMs(): number {
    if (this.isIdle) return this.#roundSinceMs + this.#self.delayMs();
    const plainMs = this.#roundSinceMs + 14 * this.#delayMs();
    const opening = this.#opening;
    const isOpen = opening?.recoveredMs === undefined &&
      opening?.set.entries.every(({ voter }) => opening.votes.has(voter));
    // A frozen set has the time to be recovered, whatever the delay is estimated at.
    return !opening || isOpen ? plainMs : Math.max(plainMs, opening.sinceMs + this.#recoverMs() + 6 * this.#delayMs());
  }

  /** How long an opening is waited for before it counts as withheld. */
  #recoverMs(): number {
    return Math.max(5 * this.#delayMs(), RECOVER_MS_MIN);
  }

  /** For logs and scripts: `round 2, locked 1, valid 1`, hashes by their first bytes. */
  describe(): string {
    const lock = this.#lock ? `, locked ${this.#lock.round} ${toHex(this.#lock.value).slice(0, 6)}` : "";
    return `${this.state} round ${this.round}${lock}${this.#valid ? `, valid ${this.#valid.certificate.round}` : ""}`;
  }
}
