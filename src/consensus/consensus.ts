/**
 * Commit-reveal agreement as a pure core: one `step`, events in, effects out. ADR 14 is the paper.
 *
 * Holds the queue of own operations and the instances of all; each {@linkcode Instance} runs its rounds.
 *
 * @module
 */

import { assert, unreachable } from "../core/assert.ts";
import { equalBytes, fromHex, toHex, utf8 } from "../core/bytes.ts";
import { encodeCbor } from "../core/codec.ts";
import { hmacSha256, type KeyPair, verifySignature } from "../core/crypto.ts";
import { LIMITS } from "../core/limits.ts";
import { type Certificate, joinSignatures, verifyCertificate } from "./certificate.ts";
import {
  type ConsensusEffect,
  type ConsensusEvent,
  type ConsensusOptions,
  DEFAULT_CONSENSUS_OPTIONS,
  type StoredInstance,
  type Submit,
} from "./effects.ts";
import { type Evidence, headerOf } from "./evidence.ts";
import { Instance, type VoterSelf } from "./instance.ts";
import type { ConsensusMessage } from "./messages.ts";
import { OperationQueue, PRIORITY_MAX, type Queued } from "./queue.ts";
import {
  electorate,
  type Header,
  headerValue,
  instanceId,
  isBitmap,
  isStatedBy,
  operationsHash,
  type Proposal,
  signStatement,
  type Verify,
} from "./statements.ts";
import { DelayEstimate } from "./timing.ts";
import { tableHash, toleratedFaults, type WeightTable } from "./weights.ts";

/** What a node's core is made of. */
export interface ConsensusSetup {
  readonly networkId: Uint8Array;
  /** Node id, as in the tables. */
  readonly id: string;
  readonly key: KeyPair;
  readonly table: WeightTable;
  readonly options?: Partial<ConsensusOptions>;
  /** @default verifySignature */
  readonly verify?: Verify;
}

/** What status shows. */
export interface ConsensusView {
  readonly epoch: number;
  readonly voters: number;
  /** Liars that are borne, whoever they are; 0 with fewer than four voters. */
  readonly toleratedFaults: number;
  readonly queued: number;
  readonly voting: number;
  readonly settled: number;
  readonly delayMs: number;
}

/** A number of a proposer may be so far from its highest: numbers cannot be tried until a committee fits. */
const SEQ_WINDOW = 16;
/** Proposers whose numbers are remembered: as many as two tables have. */
const PROPOSERS_MAX = 2 * LIMITS.consensusVotersMax;
/** Evidence that was given out, by what it is against. */
const ACCUSED_MAX = 1_024;
/** Decisions of others that are remembered: the rest is for what this node has signed, and must not be filled from outside. */
const FOREIGN_MAX = LIMITS.consensusSettledMax / 2;

interface Settled {
  readonly expiresMs: number;
  readonly certificate: Certificate | undefined;
  /** A fast certificate that came before its proposal: nobody has looked at the operations yet. */
  readonly unaudited?: boolean;
}

interface FastInstance {
  readonly proposal: Proposal;
  readonly table: WeightTable;
  vote: Uint8Array | undefined;
  certificate: Certificate | undefined;
  /** The certificate came first, and `decided` was said then. */
  readonly told: boolean;
}

/** One node's part in all agreement. */
export class Consensus {
  readonly #self: VoterSelf;
  readonly #options: ConsensusOptions;
  readonly #delay: DelayEstimate;
  readonly #queue = new OperationQueue();
  /** The newest table first; the one before it still counts for instances that come late. */
  #tables: readonly { readonly hash: Uint8Array; readonly table: WeightTable }[];
  readonly #instances = new Map<string, Instance>();
  readonly #fast = new Map<string, FastInstance>();
  readonly #settled = new Map<string, Settled>();
  /** Per table and proposer: recent numbers and the instances under them. */
  readonly #numbers = new Map<string, Map<number, { readonly header: Header; readonly signature: Uint8Array }>>();
  readonly #startedMs = new Map<string, number>();
  readonly #accused = new Set<string>();
  #committeeSize: number;
  #silent: ReadonlySet<string> = new Set();
  #seq = 0;
  #numberUsed = false;
  #persistSeq = 0;
  #durableSeq = 0;
  #nowMs = 0;
  #wakeMs = 0;
  #changed = new Map<string, StoredInstance>();
  #forgotten: Uint8Array[] = [];
  #out: ConsensusEffect[] = [];

  constructor(setup: ConsensusSetup) {
    this.#options = { ...DEFAULT_CONSENSUS_OPTIONS, ...setup.options };
    assert(this.#options.batchMax <= LIMITS.consensusBatchMax, `batchMax is ${this.#options.batchMax}`);
    this.#delay = new DelayEstimate(this.#options);
    this.#committeeSize = this.#options.committeeSize;
    this.#self = {
      id: setup.id,
      networkId: setup.networkId,
      key: setup.key,
      secret: hmacSha256(setup.key.seed, utf8("mycelium/consensus/secret/v1")),
      verify: setup.verify ?? verifySignature,
      roundsMax: Math.min(this.#options.roundsMax, LIMITS.consensusRoundsMax),
      delayMs: () => this.#delay.delayMs,
      isSilent: (id) => this.#silent.has(id),
    };
    this.#tables = [{ hash: tableHash(setup.table, setup.networkId), table: setup.table }];
  }

  /** What status shows. */
  view(): ConsensusView {
    const { table } = this.#tables[0]!;
    return {
      epoch: table.epoch,
      voters: table.voters.length,
      toleratedFaults: toleratedFaults(table),
      queued: this.#queue.size,
      voting: this.#instances.size + this.#fast.size,
      settled: this.#settled.size,
      delayMs: this.#delay.delayMs,
    };
  }

  /** Where the instances stand, for logs and scripts. */
  describe(): readonly string[] {
    return [...this.#instances].map(([name, one]) => `${name.slice(0, 8)} ${one.describe()}`);
  }

  /** Handles one event; see `effects.ts` for the order and durability of what it returns. */
  step(event: ConsensusEvent): readonly ConsensusEffect[] {
    this.#nowMs = Math.max(this.#nowMs, event.nowMs);
    this.#out = [];
    switch (event.type) {
      case "start":
        this.#seq = event.number;
        this.#start(event.stored);
        break;
      case "wake":
        this.#wake();
        break;
      case "message":
        this.#receive(event.from, event.message);
        break;
      case "submit":
        for (const one of event.submits) this.#submit(one);
        break;
      case "cancel":
        this.#out.push({ type: "cancelled", id: event.id, done: this.#queue.cancel(event.id) });
        break;
      case "verified":
        this.#verified(event.instance, event.vote);
        break;
      case "table": {
        const hash = tableHash(event.table, this.#self.networkId);
        if (!equalBytes(hash, this.#tables[0]!.hash)) {
          this.#tables = [{ hash, table: event.table }, this.#tables[0]!];
        }
        break;
      }
      case "committee":
        this.#committeeSize = Math.max(1, Math.min(LIMITS.consensusVotersMax, Math.floor(event.size)));
        break;
      case "silent":
        this.#silent = event.ids;
        break;
      case "persisted":
        this.#durableSeq = Math.max(this.#durableSeq, event.seq);
        break;
      default:
        unreachable(event);
    }
    this.#propose();
    return this.#finish();
  }

  /** What is signed leaves after its record; what needs no record waits for those before it. */
  #finish(): readonly ConsensusEffect[] {
    const put = [...this.#changed.values()];
    const remove = this.#forgotten;
    this.#changed = new Map();
    this.#forgotten = [];
    const out: ConsensusEffect[] = [];
    const then = this.#out;
    const number = this.#numberUsed ? this.#seq : undefined;
    this.#numberUsed = false;
    const leaves = then.some((one) => one.type === "send" || one.type === "decided");
    if (put.length > 0 || remove.length > 0 || number !== undefined || leaves && this.#durableSeq < this.#persistSeq) {
      out.push({ type: "persist", seq: ++this.#persistSeq, put, remove, number, then });
    } else out.push(...then);
    const wakeMs = this.#nextWakeMs();
    if (wakeMs !== this.#wakeMs && wakeMs < Number.MAX_SAFE_INTEGER) out.push({ type: "wakeAt", atMs: wakeMs });
    this.#wakeMs = wakeMs;
    return out;
  }

  #nextWakeMs(): number {
    let at = Number.MAX_SAFE_INTEGER;
    for (const one of this.#instances.values()) at = Math.min(at, one.wakeAtMs(), one.header.expiresMs);
    for (const one of this.#fast.values()) at = Math.min(at, one.proposal.header.expiresMs);
    return at;
  }

  #start(stored: readonly StoredInstance[]): void {
    for (const one of stored) {
      const name = toHex(one.instance);
      if (one.expiresMs <= this.#nowMs) this.#forgotten.push(one.instance);
      else if (one.settled || !one.voting) {
        this.#settled.set(name, { expiresMs: one.expiresMs, certificate: one.settled?.certificate });
      } else {
        const { proposal, table } = one.voting;
        const voters = electorate(proposal.header, table, this.#self.networkId);
        assert(voters !== undefined, "a stored instance is of its own table");
        this.#note(proposal);
        const instance = new Instance(this.#self, { proposal, table, electorate: voters, stored: one.voting });
        this.#begin(instance);
      }
    }
  }

  // Own operations.

  #submit(submit: Submit): void {
    const { id, operation, lane } = submit;
    const refuse = (reason: "overloaded" | "not-voter" | "too-large") =>
      this.#out.push({ type: "refused", id, reason });
    if (!this.#tables[0]!.table.voters.some((one) => one.id === this.#self.id)) return void refuse("not-voter");
    if (operation.body.length > LIMITS.consensusOperationBytesMax || operation.kind.length > 64) {
      return void refuse("too-large");
    }
    const priority = Math.max(0, Math.min(PRIORITY_MAX, submit.priority));
    const out = this.#queue.add({ id, class: submit.class, lane, priority, operation, sinceMs: this.#nowMs });
    if (out !== id) this.#out.push({ type: "queued", id });
    if (out !== undefined) this.#out.push({ type: "refused", id: out, reason: "overloaded" });
  }

  #propose(): void {
    if (this.#queue.size === 0) return;
    const { hash, table } = this.#tables[0]!;
    for (;;) {
      const mine = [...this.#instances.values(), ...this.#fast.values()].filter((one) =>
        one.proposal.header.proposer === this.#self.id
      ).length;
      if (mine >= Math.min(this.#options.pipelineMax, LIMITS.consensusInstancesPerProposerMax)) {
        return;
      }
      if (this.#instances.size + this.#fast.size >= LIMITS.consensusInstancesMax) {
        return;
      }
      if (
        !table.voters.some((one) =>
          one.id === this.#self.id
        )
      ) return;
      const batch = this.#queue.take(this.#nowMs, {
        countMax: this.#options.batchMax,
        bytesMax: LIMITS.consensusBatchBytesMax - 64 * LIMITS.consensusBatchMax,
      });
      if (batch.length === 0) return;
      this.#open(batch, hash, table);
    }
  }

  #open(batch: readonly Queued[], hash: Uint8Array, table: WeightTable): void {
    const operations = batch.map((one) => one.operation);
    this.#seq++;
    this.#numberUsed = true;
    const header: Header = {
      table: hash,
      class: batch[0]!.class,
      size: batch[0]!.class === "standard" ? this.#committeeSize : 1,
      proposer: this.#self.id,
      seq: this.#seq,
      expiresMs: this.#nowMs + this.#options.lifeMs,
      operations: operationsHash(operations),
      count: operations.length,
    };
    const instance = instanceId(header, this.#self.networkId);
    const signature = signStatement({ type: "proposal", instance }, this.#self.networkId, this.#self.key);
    const proposal: Proposal = { header, operations, signature };
    this.#out.push({ type: "proposed", instance, ids: batch.map((one) => one.id) });
    this.#note(proposal);
    const voters = electorate(header, table, this.#self.networkId)!;
    for (const { id } of voters.voters) {
      if (id !== this.#self.id) this.#out.push({ type: "send", to: id, message: { type: "propose", proposal } });
    }
    this.#join(proposal, table, voters);
  }

  // Instances.

  #join(proposal: Proposal, table: WeightTable, voters: WeightTable): void {
    if (proposal.header.class === "fast") {
      const name = toHex(instanceId(proposal.header, this.#self.networkId));
      const certificate = this.#settled.get(name)?.certificate;
      this.#fast.set(name, { proposal, table, vote: undefined, certificate, told: certificate !== undefined });
      const { header, operations } = proposal;
      this.#out.push({ type: "verify", instance: instanceId(header, this.#self.networkId), header, operations });
      return;
    }
    this.#begin(new Instance(this.#self, { proposal, table, electorate: voters, stored: undefined }));
  }

  #begin(instance: Instance): void {
    const name = toHex(instance.id);
    this.#instances.set(name, instance);
    this.#startedMs.set(name, this.#nowMs);
    this.#absorb(name, instance, instance.start(this.#nowMs));
  }

  /** Takes what an instance wants, and what has become of it. */
  #absorb(name: string, instance: Instance, effects: readonly ConsensusEffect[]): void {
    for (const one of effects) {
      if (one.type === "evidence") this.#accuse(one.evidence);
      else this.#out.push(one);
    }
    if (instance.dirty) {
      instance.dirty = false;
      this.#changed.set(name, instance.stored());
    }
    if (instance.state === "voting") return;
    if (instance.certificate) {
      // Four messages one behind the other, and the wait for who is missing. Not what comes after: where an opening has to be
      // recovered it is Δ itself that is waited for, and one who withholds would make it grow without end.
      const { frozenMs } = instance;
      if (frozenMs !== undefined) this.#delay.observe((frozenMs - this.#startedMs.get(name)!) >> 1);
      this.#out.push({
        type: "decided",
        instance: instance.id,
        certificate: instance.certificate,
        operations: instance.proposal.operations,
        facts: instance.facts(),
      });
    }
    this.#instances.delete(name);
    this.#startedMs.delete(name);
    this.#settled.set(name, { expiresMs: instance.header.expiresMs, certificate: instance.certificate });
  }

  #accuse(evidence: Evidence): void {
    const against = "voter" in evidence
      ? evidence.voter
      : "commitment" in evidence
      ? evidence.commitment.voter
      : evidence.type === "two-commitments"
      ? evidence.a.voter
      : evidence.type === "two-proposals"
      ? evidence.a.header.proposer
      : evidence.fast.header.proposer;
    const name = `${evidence.type} ${against} ${toHex(instanceId(headerOf(evidence), this.#self.networkId))}`;
    if (this.#accused.has(name)) return;
    if (this.#accused.size >= ACCUSED_MAX) this.#accused.delete(this.#accused.keys().next().value!);
    this.#accused.add(name);
    this.#out.push({ type: "evidence", evidence });
  }

  #verified(id: Uint8Array, vote: Uint8Array): void {
    const name = toHex(id);
    const instance = this.#instances.get(name);
    if (instance) return this.#absorb(name, instance, instance.verified(vote, this.#nowMs));
    const fast = this.#fast.get(name);
    if (!fast || fast.vote) return;
    assert(isBitmap(vote, fast.proposal.header.count), "a vote has one bit per operation");
    fast.vote = vote;
    if (fast.proposal.header.proposer === this.#self.id) this.#signFast(id, fast, vote);
    this.#audit(name, fast);
  }

  // Messages.

  #receive(from: string, message: ConsensusMessage): void {
    // An instance believes itself without checking signatures; a copy of this machine must not profit from that.
    if (from === this.#self.id) return this.#drop(from, "unexpected");
    if (message.type === "propose") return this.#onPropose(from, message.proposal);
    const id = message.type === "decided"
      ? instanceId(message.certificate.header, this.#self.networkId)
      : message.instance;
    const name = toHex(id);
    const instance = this.#instances.get(name);
    if (instance) return this.#absorb(name, instance, instance.receive(from, message, this.#nowMs));
    const fast = this.#fast.get(name);
    if (fast) {
      if (message.type === "decided") this.#onFast(name, fast, from, message.certificate);
      else if (message.type === "unknown") {
        this.#out.push({ type: "send", to: from, message: { type: "propose", proposal: fast.proposal } });
      }
      return;
    }
    const settled = this.#settled.get(name);
    // What failed here may have been decided by the others.
    if (settled && (settled.certificate || message.type !== "decided")) {
      // Who still asks does not know; who answers, does.
      if (message.type === "decided" || !settled.certificate) return;
      return void this.#out.push({
        type: "send",
        to: from,
        message: { type: "decided", certificate: settled.certificate },
      });
    }
    if (message.type === "decided") return this.#onForeignDecision(from, message.certificate);
    const known = this.#tables.some(({ table }) => table.voters.some((one) => one.id === from));
    if (!known || message.type === "unknown") return this.#drop(from, "unexpected");
    this.#out.push({ type: "send", to: from, message: { type: "unknown", instance: id } });
  }

  #onPropose(from: string, proposal: Proposal): void {
    const { header, signature } = proposal;
    const { networkId } = this.#self;
    const instance = instanceId(header, networkId);
    const name = toHex(instance);
    if (this.#instances.has(name) || this.#fast.has(name)) return;
    const settled = this.#settled.get(name);
    if (settled && !settled.unaudited) {
      if (!settled.certificate) return;
      const message = { type: "decided", certificate: settled.certificate } as const;
      return void this.#out.push({ type: "send", to: from, message });
    }
    const known = this.#tables.find(({ hash }) => equalBytes(hash, header.table));
    const voters = known && electorate(header, known.table, networkId);
    if (!known || !voters) return this.#drop(from, "foreign-table");
    if (!this.#isTimely(header)) return this.#drop(from, "stale");
    if (!voters.voters.some((one) => one.id === this.#self.id)) return this.#drop(from, "unexpected");
    const { publicKey } = known.table.voters.find((one) => one.id === header.proposer)!;
    if (!isStatedBy({ type: "proposal", instance }, signature, publicKey, networkId, this.#self.verify)) {
      return this.#drop(from, "invalid");
    }
    if (!this.#note(proposal)) return this.#drop(from, "stale");
    if (this.#settled.size >= LIMITS.consensusSettledMax) this.#forgetExpired();
    const ofProposer = [...this.#instances.values(), ...this.#fast.values()]
      .filter((one) => one.proposal.header.proposer === header.proposer).length;
    const full = this.#instances.size + this.#fast.size >= LIMITS.consensusInstancesMax ||
      this.#settled.size >= LIMITS.consensusSettledMax || ofProposer >= LIMITS.consensusInstancesPerProposerMax;
    if (full) return this.#drop(from, "overloaded");
    this.#join(proposal, known.table, voters);
  }

  /** Far in the future is as wrong as over: what is known of it would have to be kept for so long. */
  #isTimely({ expiresMs }: Header): boolean {
    return expiresMs > this.#nowMs && expiresMs <= this.#nowMs + 2 * this.#options.lifeMs;
  }

  /** Remembers a proposer's number; false where it is too old, or too far ahead. Two proposals under one number are evidence. */
  #note({ header, signature }: Proposal): boolean {
    const key = `${toHex(header.table)} ${header.proposer}`;
    const numbers = this.#numbers.get(key) ??
      new Map<number, { readonly header: Header; readonly signature: Uint8Array }>();
    const highest = Math.max(0, ...numbers.keys());
    // The first number heard may be any: this node may have been away.
    if (numbers.size > 0 && Math.abs(header.seq - highest) > SEQ_WINDOW) return false;
    const before = numbers.get(header.seq);
    if (before) {
      const same = equalBytes(encodeCbor(headerValue(before.header)), encodeCbor(headerValue(header)));
      if (!same) this.#accuse({ type: "two-proposals", a: before, b: { header, signature } });
      // The first one goes on: the others may have heard it first, too.
      return same;
    }
    numbers.set(header.seq, { header, signature });
    for (const seq of numbers.keys()) if (seq < Math.max(highest, header.seq) - SEQ_WINDOW) numbers.delete(seq);
    this.#numbers.delete(key);
    this.#numbers.set(key, numbers);
    if (this.#numbers.size > PROPOSERS_MAX) this.#numbers.delete(this.#numbers.keys().next().value!);
    return true;
  }

  /** A decision in which this node has no part: proved by itself. */
  #onForeignDecision(from: string, certificate: Certificate): void {
    const known = this.#tables.find(({ hash }) => equalBytes(hash, certificate.header.table));
    if (!known) return this.#drop(from, "foreign-table");
    if (!this.#isTimely(certificate.header)) return this.#drop(from, "stale");
    if (this.#settled.size >= FOREIGN_MAX) this.#forgetExpired();
    if (this.#settled.size >= FOREIGN_MAX) return this.#drop(from, "overloaded");
    if (!verifyCertificate(certificate, known.table, this.#self.networkId, this.#self.verify).ok) {
      return this.#drop(from, "invalid");
    }
    const instance = instanceId(certificate.header, this.#self.networkId);
    const { expiresMs } = certificate.header;
    this.#settled.set(toHex(instance), { expiresMs, certificate, unaudited: certificate.header.class === "fast" });
    this.#changed.set(toHex(instance), { instance, expiresMs, settled: { certificate }, voting: undefined });
    this.#out.push({ type: "decided", instance, certificate, operations: undefined, facts: [] });
  }

  // The fast class: one signature, audited by everyone who hears of it.

  #signFast(instance: Uint8Array, fast: FastInstance, outcome: Uint8Array): void {
    const { header } = fast.proposal;
    const { voters } = fast.table;
    const me = voters.findIndex((one) => one.id === this.#self.id);
    const signature = signStatement({ type: "fast", instance, outcome }, this.#self.networkId, this.#self.key);
    fast.certificate = {
      header,
      round: 0,
      value: new Uint8Array(32),
      outcome,
      beacon: new Uint8Array(32),
      ...joinSignatures(voters.length, new Map([[me, signature]])),
    };
    for (const { id } of voters) {
      if (id === this.#self.id) continue;
      this.#out.push({ type: "send", to: id, message: { type: "decided", certificate: fast.certificate } });
    }
  }

  #onFast(name: string, fast: FastInstance, from: string, certificate: Certificate): void {
    if (fast.certificate) return;
    if (!verifyCertificate(certificate, fast.table, this.#self.networkId, this.#self.verify).ok) {
      return this.#drop(from, "invalid");
    }
    fast.certificate = certificate;
    this.#audit(name, fast);
  }

  #audit(name: string, fast: FastInstance): void {
    const { certificate, vote, proposal } = fast;
    if (!certificate || !vote) return;
    const instance = instanceId(proposal.header, this.#self.networkId);
    const { operations, header: { expiresMs } } = proposal;
    this.#fast.delete(name);
    this.#settled.set(name, { expiresMs, certificate });
    this.#changed.set(name, { instance, expiresMs, settled: { certificate }, voting: undefined });
    if (!fast.told) this.#out.push({ type: "decided", instance, certificate, operations, facts: [] });
    if (!equalBytes(vote, certificate.outcome)) this.#out.push({ type: "disputed", certificate, operations });
  }

  #forgetExpired(): void {
    for (const [name, one] of this.#settled) {
      if (one.expiresMs > this.#nowMs) continue;
      this.#settled.delete(name);
      this.#forgotten.push(fromHex(name)!);
    }
  }

  #wake(): void {
    this.#forgetExpired();
    for (const [name, one] of this.#fast) {
      if (one.proposal.header.expiresMs > this.#nowMs) continue;
      this.#fast.delete(name);
      if (one.told) continue;
      this.#out.push({ type: "failed", instance: fromHex(name)!, reason: "expired" });
    }
    for (const [name, instance] of [...this.#instances]) {
      if (instance.header.expiresMs <= this.#nowMs) {
        this.#instances.delete(name);
        this.#startedMs.delete(name);
        this.#forgotten.push(instance.id);
        this.#out.push({ type: "failed", instance: instance.id, reason: "expired" });
        continue;
      }
      if (instance.wakeAtMs() > this.#nowMs) continue;
      const { round, isIdle } = instance;
      const effects = instance.wake(this.#nowMs);
      // A round that nobody leads says nothing about how long messages take.
      if (instance.round > round && !isIdle) this.#delay.ranOut();
      this.#absorb(name, instance, effects);
    }
  }

  #drop(from: string, reason: Extract<ConsensusEffect, { readonly type: "drop" }>["reason"]): void {
    this.#out.push({ type: "drop", from, reason });
  }
}
