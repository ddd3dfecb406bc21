/**
 * Agreement among machines that may lie, for the other parts: drives the consensus core, judges what is proposed, hands
 * what was decided to the Primary Spore, and tells all members.
 *
 * @module
 */

import { equalBytes, toHex } from "../core/bytes.ts";
import { array, bytes, type CborValue, oneOf, optional, record, text, uint, WireError } from "../core/codec.ts";
import { envelopeHash } from "../core/envelope.ts";
import { LIMITS } from "../core/limits.ts";
import { type Certificate, verifyCertificate } from "../consensus/certificate.ts";
import { Consensus, type ConsensusView } from "../consensus/consensus.ts";
import type { ConsensusEffect, ConsensusEvent, VoterFact } from "../consensus/effects.ts";
import type { Evidence } from "../consensus/evidence.ts";
import {
  bitmapOf,
  bitOf,
  type Header,
  instanceId,
  type Operation,
  OPERATION_CLASSES,
} from "../consensus/statements.ts";
import { type WeightTable } from "../consensus/weights.ts";
import { KEY_CHARS_MAX } from "../spore/keys.ts";
import { readSpore, type Spore } from "../spore/record.ts";
import { decodeRecordPut, ELECTORATE_KEY, emergencyHash, encodeElectorate, RECORD_PUT, TRUST_KEY } from "./agreed.ts";
import { NetworkLaw } from "./agreed_law.ts";
import { AgreementChain } from "./agreement_chain.ts";
import { AgreementConsole } from "./agreement_console.ts";
import type { AgreementRequest } from "./agreement_requests.ts";
import type { Weigh } from "./agreement_electorate.ts";
import { Handovers } from "./agreement_handover.ts";
import { Operations } from "./agreement_operations.ts";
import { builtInClass, type Rule, Rules } from "./agreement_rules.ts";
import {
  AgreementStore,
  decodeDecision,
  encodeDecision,
  encodeProof,
  proofsOf,
  type RecordProof,
  type StoredAgreement,
} from "./agreement_store.ts";
import { Steward } from "./agreement_steward.ts";
import { AgreementTransport, MESSAGES_METHOD, readMessages } from "./agreement_transport.ts";
import type { Decision, DecisionSink } from "./certified.ts";
import { type Context, DEFERRED, Refusal } from "./context.ts";
import type { ControlRequest } from "./control.ts";
import type { PeerView } from "./effects.ts";
import type { Part } from "./part.ts";
import type { AgreementStatus, DecisionStatus } from "./status.ts";

/** What agreement needs of the other parts. */
export interface AgreementPorts {
  /** The state of this node's replica, where it runs one. */
  replica(): { readonly index: number; readonly links: readonly Uint8Array[] } | undefined;
  /** What stands under a key, as the primaries have agreed. */
  current(key: string): Spore | undefined;
  /** Raft's leader. */
  leader(): string | undefined;
  /** Where decisions are applied. */
  readonly sink: DecisionSink;
  /** Tells all members; at most `LIMITS.gossipBodyBytesMax` bytes. */
  publish(body: Uint8Array): void;
}

/**
 * Δ at first, and at least. Who has not opened five of them after the set was frozen counts as withholding: a pause for the disk or
 * the garbage collector must not look like it. Where nobody is late, nobody waits for it.
 */
const DELAY_MS = 200;
const DELAY_MS_MIN = 100;
/** And at most: a queue at one moment must not make every round long for the next ten. Rounds grow by themselves. */
const DELAY_MS_MAX = 1_000;
/** Own instances under way: what comes meanwhile goes into the next one together. */
const PIPELINE_MAX = 2;
/** Decisions that a person may look at. */
const RECENT_MAX = 64;
/** Proofs that a node remembers beside those of `agreed/…`. */
const PROOFS_MAX = 512;
/** What cannot be judged yet is looked at again so often, whatever has changed. */
const JUDGE_MS = 1_000;
/** A wish of another node that does not say how long it waits. */
const SERVE_MS = 30_000;
/** Decisions whose content is remembered. */
const SAID_MAX = 128;
/** Decisions of an electorate that is not known here. */
const UNREAD_MAX = 32;
/** Links are asked for no more often. */
const LINKS_MS = 1_000;
/** Links in one answer. */
const LINKS_MAX = 16;
/** The clock's highest value is stored this often without other reason. */
const CLOCK_MS = 60_000;

const readAsk = record({ e: uint() });
const readLinks = record({ n: uint(), l: array(bytes({ max: LIMITS.frameBytesMax }), LINKS_MAX) });
const readKeyAsk = record({ k: text(KEY_CHARS_MAX) });
const readSubmit = record({
  b: bytes({ max: LIMITS.consensusOperationBytesMax }),
  c: oneOf(OPERATION_CLASSES),
  p: optional(uint(7)),
  t: optional(uint(600_000)),
});

/** Agreement on one node. */
export class Agreement implements Part {
  readonly methods = [MESSAGES_METHOD, "agreement.submit", "agreement.certificate", "agreement.links"] as const;
  readonly verbs: readonly string[] = [
    "agreement-list",
    "agreement-submit",
    "agreement-cancel",
    "agreement-emergency",
  ];
  /** Weighs electors; all alike, unless somebody knows better. */
  weigh: Weigh = (electors) => electors.map(() => 1);
  /** What was seen of voters in an instance. */
  facts: (facts: readonly { readonly voter: string; readonly fact: VoterFact }[], certificate: Certificate) => void =
    () => {};
  /** A decision is proved, by whomever it was made. */
  certified: (certificate: Certificate, table: WeightTable) => void = () => {};
  /** Something was decided and verified here, once. */
  taken: (decision: Decision) => void = () => {};
  /** Somebody has done what he must not: it can be shown. */
  evidence: (evidence: Evidence, table: WeightTable | undefined) => void = () => {};
  /** Raises what a key asks for. */
  policyClass: (key: string) => Header["class"] | undefined = () => undefined;
  readonly #ctx: Context;
  readonly #ports: AgreementPorts;
  readonly #store = new AgreementStore();
  readonly #transport: AgreementTransport;
  readonly #rules: Rules;
  readonly #steward: Steward;
  readonly #operations: Operations;
  readonly #handovers: Handovers;
  readonly #console: AgreementConsole;
  #entries: ReadonlyMap<string, Uint8Array>;
  #core: Consensus | undefined;
  #chain: AgreementChain | undefined;
  #law: NetworkLaw | undefined;
  #broken: string | undefined;
  readonly #todo: (ConsensusEffect | { readonly type: "durable"; readonly seq: number })[] = [];
  #running = false;
  #wakeMs = Infinity;
  /** Highest wall clock ever seen, and by how much the clock was set back since the start. */
  #clockMs = 0;
  #setBackMs = 0;
  #clockStoredMs = 0;
  #lastMs = 0;
  /** Instances whose operations wait for a verdict. */
  readonly #judging = new Map<
    string,
    {
      readonly id: Uint8Array;
      readonly header: Header;
      votes: (boolean | undefined)[];
      readonly operations: readonly Operation[];
    }
  >();
  #judgedAt = "";
  #judgeMs = 0;
  #proofs = new Map<string, { readonly seq: number; readonly proof: RecordProof }>();
  readonly #recent: DecisionStatus[] = [];
  readonly #told = new Set<string>();
  readonly #said = new Map<string, string>();
  readonly #faults = new Set<string>();
  readonly #unread = new Map<string, { readonly decision: Decision; readonly from: string }>();
  #linksMs = 0;
  #linksFrom: string | undefined;
  readonly #counts = { decided: 0, failed: 0, evidence: 0, disputed: 0, dropped: 0, refusedNews: 0 };
  readonly #faulty: boolean[] = [];

  constructor(ctx: Context, entries: ReadonlyMap<string, Uint8Array>, ports: AgreementPorts) {
    this.#ctx = ctx;
    this.#ports = ports;
    this.#entries = new Map([...entries].filter(([key]) => key.startsWith("agreement/")));
    this.#transport = new AgreementTransport(ctx);
    const chain = () => this.#chain!;
    const weigh: Weigh = (electors, nowMs) => this.weigh(electors, nowMs);
    this.#rules = new Rules({
      ctx,
      chain,
      current: (key) => ports.current(key),
      classOf: (key) => this.classOf(key),
      weigh,
    });
    this.#operations = new Operations({
      ctx,
      current: (key) => ports.current(key),
      classOf: (key) => this.classOf(key),
      voters: () => this.#chain?.electorate.table.voters ?? [],
      submit: (submits) => this.#step({ type: "submit", nowMs: this.#nowMs, submits }),
      cancel: (id) => this.#step({ type: "cancel", nowMs: this.#nowMs, id }),
    });
    this.#handovers = new Handovers({
      ctx,
      sink: ports.sink,
      leads: () => ports.leader() === ctx.state.nodeId,
      stands: (decision) => this.#stands(decision),
      store: (name, decision) => ctx.persist(this.#store.handover(name, decision)),
      done: (name, result) => this.#operations.applied(name, result),
    });
    this.#steward = new Steward({
      ctx,
      chain,
      weigh,
      leader: () => ports.leader(),
      busy: () => this.#operations.isBusy(ELECTORATE_KEY),
      propose: (electorate, proofs, atMs) => {
        this.#operations.put({
          key: ELECTORATE_KEY,
          value: encodeElectorate(electorate),
          atMs,
          class: "critical",
          priority: 6,
          lane: "electorate",
          basis: ports.current(TRUST_KEY)?.hash ?? new Uint8Array(0),
          proofs,
        }, (result) => {
          if (!result.ok) ctx.log("info", "electorate-not-changed", result.message, { code: result.code });
        });
      },
      replace: (without) => this.#console.release(without),
      silent: (ids) => this.#step({ type: "silent", nowMs: this.#nowMs, ids }),
      resize: (size) => this.#step({ type: "committee", nowMs: this.#nowMs, size }),
      faultPpm: () => Math.floor(this.#faulty.filter(Boolean).length * 1_000_000 / Math.max(20, this.#faulty.length)),
    });
    this.#console = new AgreementConsole({
      ctx,
      chain,
      weigh,
      steward: this.#steward,
      operations: this.#operations,
      recent: () => this.#recent,
      current: (key) => ports.current(key),
      decide: (decision) => this.#learn(decision, undefined),
    });
  }

  // --- For other parts.

  /** Whether this node votes. */
  get votes(): boolean {
    return this.#chain?.electorate.table.voters.some((one) => one.id === this.#ctx.state.nodeId) ?? false;
  }

  /** The electorates of the network; missing before this node is a member. */
  get chain(): AgreementChain | undefined {
    return this.#chain;
  }

  /** Changes records by agreement. */
  get operations(): Operations {
    return this.#operations;
  }

  /** Least class of a key: what is built in, or what the policy asks for where that is more. */
  classOf(key: string): Header["class"] | undefined {
    const least = builtInClass(key);
    if (!least) return undefined;
    const raised = this.policyClass(key);
    const rank = OPERATION_CLASSES.indexOf(least);
    return raised && OPERATION_CLASSES.indexOf(raised) > rank ? raised : least;
  }

  /** A version of a key stands now. */
  stands(spore: Spore): void {
    this.#rules.note(spore);
  }

  /** Judges writes under a prefix by a rule of their own. */
  rule(prefix: string, rule: Rule): void {
    this.#rules.add(prefix, rule);
  }

  /** What was decided lately: frozen set and outcome by instance, hexadecimal. For checkers. */
  get said(): ReadonlyMap<string, string> {
    return this.#said;
  }

  /** Kinds of faults that this node has found since the start. For checkers. */
  get faults(): ReadonlySet<string> {
    return this.#faults;
  }

  /** What shows the newest record of a key that this node has heard of. */
  proof(key: string): RecordProof | undefined {
    return this.#proofs.get(key)?.proof;
  }

  /** Judges what was broadcast about a decision. @throws {WireError} Where it does not read. */
  heard(from: string, body: Uint8Array): "accept" | "reject" | "ignore" {
    const decision = decodeDecision(body);
    if (!this.#chain || this.#told.has(this.#nameOf(decision))) return "ignore";
    return this.#learn(decision, from);
  }

  // --- Part.

  start(): void {
    const { state } = this.#ctx;
    const { networkId } = state;
    const genesis = state.network!.genesis!.record;
    const founder = state.network!.chain!.issuersAt(1)[0]!;
    this.#law = new NetworkLaw({ networkId, founder, operators: [genesis.operatorKey, genesis.genesisKey] });
    this.#chain = new AgreementChain(this.#law, networkId, genesis.createdMs);
    let stored: StoredAgreement;
    try {
      stored = this.#store.load(this.#entries);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      this.#broken = error.message;
      this.#ctx.log("error", "agreement-unreadable", `This node does not vote: ${error.message}`);
      return;
    }
    this.#entries = new Map();
    if (stored.unreadable.length > 0) this.#ctx.persist(stored.unreadable.map((key) => [key, null]));
    this.#chain.offer(0, stored.links);
    for (const [key, proof] of stored.proofs) this.#remember(key, proof);
    this.#clockMs = Math.max(stored.clockMs, this.#ctx.nowMs);
    if (stored.clockMs > this.#ctx.nowMs + 60_000) {
      this.#ctx.log("warn", "agreement-clock", "The clock is behind what it was: proposals of others look too new");
    }
    this.#core = new Consensus({
      networkId,
      id: state.nodeId,
      key: state.keyPair,
      table: this.#chain.electorate.table,
      options: {
        delayMs: DELAY_MS,
        delayMsMin: DELAY_MS_MIN,
        delayMsMax: DELAY_MS_MAX,
        pipelineMax: PIPELINE_MAX,
      },
    });
    this.#step({ type: "start", nowMs: this.#nowMs, stored: stored.instances, number: stored.number });
    for (const [name, decision] of stored.handovers) this.#handovers.add(name, decision, false, true);
    for (const nodeId of this.#ctx.memberPeers()) this.sessionUp(nodeId);
  }

  clear(): void {
    this.#store.clear();
    this.#transport.clear();
    this.#operations.clear();
    this.#handovers.clear();
    this.#steward.clockSetBack();
    this.#entries = new Map();
    this.#core = undefined;
    this.#chain = undefined;
    this.#law = undefined;
    this.#broken = undefined;
    this.#todo.length = 0;
    this.#judging.clear();
    this.#proofs.clear();
    this.#recent.length = 0;
    this.#told.clear();
    this.#said.clear();
    this.#faults.clear();
    this.#unread.clear();
    this.#wakeMs = Infinity;
    this.#clockMs = this.#setBackMs = 0;
  }

  keys(): readonly string[] {
    return [...this.#store.keys, ...this.#entries.keys()];
  }

  sessionUp(nodeId: string): void {
    this.#askLinks(nodeId);
  }

  sessionDown(nodeId: string): void {
    this.#transport.sessionDown(nodeId);
    if (this.#linksFrom === nodeId) this.#linksFrom = undefined;
  }

  clockSetBack(): void {
    this.#setBackMs += Math.max(0, this.#lastMs - this.#ctx.nowMs);
    this.#lastMs = this.#ctx.nowMs;
    this.#judgeMs = this.#linksMs = 0;
    this.#steward.clockSetBack();
    this.#operations.clockSetBack();
    this.#handovers.clockSetBack();
  }

  serve(peer: PeerView, method: string, body: CborValue, inboundId: number): CborValue | typeof DEFERRED {
    const chain = this.#chain;
    if (!this.#core || !chain) throw new Refusal("unavailable", "this node takes no part in agreement");
    switch (method) {
      case MESSAGES_METHOD:
        for (const message of readMessages(body)) {
          this.#step({ type: "message", nowMs: this.#nowMs, from: peer.nodeId, message });
        }
        return {};
      case "agreement.links": {
        const all = chain.since(readAsk(body, method).e);
        let size = 0;
        const some = all.slice(0, LINKS_MAX).filter((one, i) => (size += one.length) <= 256 << 10 || i === 0);
        return { n: chain.epoch, l: some };
      }
      case "agreement.certificate": {
        const { k } = readKeyAsk(body, method);
        const proof = this.#proofs.get(k)?.proof;
        return { p: proof && encodeProof(proof) };
      }
      case "agreement.submit": {
        const { b, c, p, t } = readSubmit(body, method);
        if (!this.votes) throw new Refusal("not-voter", "this node does not vote");
        const operation = { kind: RECORD_PUT, body: b };
        const { envelope } = decodeRecordPut(b);
        if (!equalBytes(envelope.signer, peer.publicKey)) {
          throw new Refusal("not-permitted", "a record is submitted by its author");
        }
        const timeoutMs = Math.floor(0.8 * Math.min(t ?? SERVE_MS, SERVE_MS));
        const options = { class: c, priority: Math.min(p ?? 3, 5), lane: peer.nodeId, timeoutMs };
        this.#operations.take(operation, options, (result) => {
          const value = result.ok
            ? { ok: 1, i: result.instance, x: result.index ?? 0 }
            : { ok: 0, c: result.code, m: result.message.slice(0, 200) };
          this.#ctx.reply(inboundId, value, this.#ctx.effects.length);
        });
        return DEFERRED;
      }
      default:
        throw new Refusal("unknown-method", `no method "${method}"`);
    }
  }

  answer(controlId: number, request: ControlRequest): unknown {
    if (this.#broken) {
      throw new Refusal(
        "agreement-unreadable",
        `This node does not vote: ${this.#broken}`,
        "See docs/guide/agreement.md",
      );
    }
    return this.#console.answer(controlId, request as AgreementRequest);
  }

  wake(): number {
    const { ctx } = this;
    if (!this.#core) return Infinity;
    this.#syncChain();
    this.#judge();
    if (this.#nowMs >= this.#wakeMs) {
      this.#wakeMs = Infinity;
      this.#step({ type: "wake", nowMs: this.#nowMs });
    }
    const times = [this.#operations.wake(), this.#steward.wake(), this.#handovers.wake()];
    if (ctx.nowMs >= this.#clockStoredMs + CLOCK_MS && this.votes) {
      this.#clockStoredMs = ctx.nowMs;
      ctx.persist(this.#store.clock(this.#clockMs));
    }
    this.#transport.flush();
    if (this.#judging.size > 0) times.push(this.#judgeMs);
    return Math.min(this.#wakeMs - this.#setBackMs, ...times);
  }

  // --- Status.

  /** How agreement stands. */
  status(): AgreementStatus | undefined {
    const chain = this.#chain;
    if (!chain) return undefined;
    const view: ConsensusView | undefined = this.#core?.view();
    const quorum = this.#steward.view();
    const { table, sinceMs } = chain.electorate;
    const answering = this.#steward.answering();
    const { emergency } = chain;
    const undone = emergency &&
      emergency.superseded.table.voters.every((one) =>
        table.voters.some((voter) => voter.id === one.id) ||
        this.ctx.state.revocations.get("node", one.publicKey) !== undefined
      );
    return {
      ...(this.#broken ? { broken: this.#broken } : {}),
      epoch: table.epoch,
      votes: this.votes,
      voters: table.voters.map((one, i) => ({
        nodeId: one.id,
        seats: one.seats,
        sinceMs: sinceMs[i]!,
        answers: answering.has(one.id),
      })),
      tolerated: view?.toleratedFaults ?? 0,
      health: quorum.health,
      healthSinceMs: quorum.sinceMs,
      seats: quorum.seats,
      seatsOf: quorum.of,
      seatsNeeded: quorum.needed,
      committee: quorum.committee,
      delayMs: view?.delayMs ?? 0,
      queued: view?.queued ?? 0,
      voting: view?.voting ?? 0,
      waiting: this.#judging.size,
      handovers: this.#handovers.size,
      proofs: this.#proofs.size,
      messages: this.#transport.sent.messages,
      messageBytes: this.#transport.sent.bytes,
      ...this.#counts,
      recent: this.#recent.slice(-8),
      ...(emergency && !undone
        ? {
          emergency: {
            epoch: emergency.epoch,
            reason: emergency.reason,
            issuedMs: emergency.issuedMs,
            without: emergency.superseded.table.voters.flatMap((one) =>
              table.voters.some((voter) => voter.id === one.id) ? [] : [one.id]
            ),
          },
        }
        : {}),
    };
  }

  get ctx(): Context {
    return this.#ctx;
  }

  // --- The core.

  /** Time of the core: never falls, over restarts too. */
  get #nowMs(): number {
    this.#lastMs = this.#ctx.nowMs;
    this.#clockMs = Math.max(this.#clockMs, this.#ctx.nowMs + this.#setBackMs);
    return this.#clockMs;
  }

  #step(event: ConsensusEvent): void {
    if (!this.#core) return;
    this.#todo.push(...this.#core.step(event));
    if (this.#running) return;
    this.#running = true;
    try {
      for (let next = this.#todo.shift(); next; next = this.#todo.shift()) this.#carryOut(next);
    } finally {
      this.#running = false;
    }
  }

  #carryOut(effect: ConsensusEffect | { readonly type: "durable"; readonly seq: number }): void {
    const ctx = this.#ctx;
    switch (effect.type) {
      case "send":
        return this.#transport.send(effect.to, effect.message);
      case "persist":
        // What stands before it need not wait for the disk; what is emitted from here on is durable by then.
        this.#transport.flush();
        ctx.persist(this.#store.puts(effect, this.#clockMs));
        this.#todo.unshift(...effect.then, { type: "durable", seq: effect.seq });
        return;
      case "durable":
        return this.#step({ type: "persisted", nowMs: this.#nowMs, seq: effect.seq });
      case "verify": {
        const { instance, header, operations } = effect;
        this.#judging.set(toHex(instance), {
          id: instance,
          header,
          operations,
          votes: operations.map(() => undefined),
        });
        this.#judgedAt = "";
        return ctx.wakeAt(ctx.nowMs);
      }
      case "queued":
        return this.#operations.queued(effect.id);
      case "refused":
        return this.#operations.refused(effect.id, effect.reason);
      case "cancelled":
        return this.#operations.cancelled(effect.id, effect.done);
      case "proposed":
        return this.#operations.proposed(toHex(effect.instance), effect.ids);
      case "decided":
        return this.#decided(effect);
      case "failed":
        this.#counts.failed += 1;
        this.#judging.delete(toHex(effect.instance));
        ctx.log("warn", "agreement-failed", `Not decided: ${effect.reason}`, { instance: toHex(effect.instance) });
        return this.#operations.failed(toHex(effect.instance), effect.reason);
      case "evidence": {
        this.#counts.evidence += 1;
        this.#faults.add(effect.evidence.type);
        this.#noteFault(true);
        ctx.log("warn", "agreement-evidence", `A voter did what it must not: ${effect.evidence.type}`, {
          kind: effect.evidence.type,
        });
        return this.evidence(effect.evidence, this.#chain?.electorate.table);
      }
      case "disputed":
        this.#counts.disputed += 1;
        return this.#operations.dispute(effect.operations);
      case "wakeAt":
        this.#wakeMs = effect.atMs;
        return;
      case "drop":
        this.#counts.dropped += 1;
        if (effect.reason === "invalid") ctx.refuse("agreement-invalid", effect.from);
        if (effect.reason === "foreign-table") this.#askLinks(effect.from);
        return;
      default:
        effect satisfies never;
    }
  }

  #note(name: string, { value, outcome }: Certificate): void {
    this.#said.set(name, `${toHex(value)} ${toHex(outcome)}`);
    if (this.#said.size > SAID_MAX) this.#said.delete(this.#said.keys().next().value!);
  }

  #noteFault(faulty: boolean): void {
    this.#faulty.push(faulty);
    if (this.#faulty.length > 100) this.#faulty.shift();
  }

  /** Judges what waits, where something has changed. */
  #judge(): void {
    if (this.#judging.size === 0) return;
    const { ctx } = this;
    const now = `${this.#ports.replica()?.index} ${ctx.state.members.version} ${ctx.state.revocations.size} ${
      this.#chain!.epoch
    }`;
    if (now === this.#judgedAt && ctx.nowMs < this.#judgeMs) return;
    this.#judgedAt = now;
    this.#judgeMs = ctx.nowMs + JUDGE_MS;
    for (const [name, one] of [...this.#judging]) {
      one.votes = one.votes.map((known, i) => {
        if (known !== undefined) return known;
        const vote = this.#rules.judge(one.header, one.operations[i]!);
        return vote === "later" ? undefined : vote === "accept";
      });
      if (one.votes.includes(undefined)) continue;
      this.#judging.delete(name);
      const vote = bitmapOf(one.votes as readonly boolean[]);
      this.#step({ type: "verified", nowMs: this.#nowMs, instance: one.id, vote });
    }
  }

  #decided(effect: ConsensusEffect & { readonly type: "decided" }): void {
    const { certificate, operations } = effect;
    const name = toHex(effect.instance);
    this.#note(name, certificate);
    this.#judging.delete(name);
    this.#noteFault(false);
    if (effect.facts.length > 0) this.facts(effect.facts, certificate);
    if (!operations) return;
    const first = !this.#told.has(name);
    if (first) this.#take({ certificate, operations }, name);
    this.#operations.decided(name, certificate);
    const mine = certificate.header.proposer === this.#ctx.state.nodeId;
    // The proposer tells all; the others would say the same, should it fail.
    if (mine) this.#tell({ certificate, operations });
  }

  #tell(decision: Decision): void {
    const body = encodeDecision(decision);
    if (body.length <= LIMITS.gossipBodyBytesMax) this.#ports.publish(body);
  }

  /** A decision that this node has not made: verified, remembered, handed over should nobody else do it. */
  #learn(decision: Decision, from: string | undefined): "accept" | "reject" | "ignore" {
    const name = this.#nameOf(decision);
    if ("statement" in decision) {
      const standing = this.#law!.judge(encodeDecision(decision), this.#chain!.recent.at(-1)!);
      if (!standing.ok) {
        if (standing.code === "foreign-table" && from) this.#askLinks(from);
        return standing.code === "foreign-table" ? "ignore" : "reject";
      }
      this.#take(decision, name);
      this.#ctx.log("warn", "agreement-emergency", "An operator has put an electorate in the place of a lost quorum");
      this.#ctx.audit("agreement-emergency", from ?? this.#ctx.state.nodeId, name);
      this.#tell(decision);
      return "accept";
    }
    const { certificate } = decision;
    const table = this.#chain!.table(certificate.header.table);
    if (!table) {
      if (!from) return "ignore";
      // Of an electorate that this node has not heard of: looked at again when it has.
      this.#unread.set(name, { decision, from });
      if (this.#unread.size > UNREAD_MAX) this.#unread.delete(this.#unread.keys().next().value!);
      this.#askLinks(from);
      return "ignore";
    }
    if (!verifyCertificate(certificate, table, this.#ctx.state.networkId).ok) {
      this.#counts.refusedNews += 1;
      return "reject";
    }
    this.#take(decision, name);
    // Who votes in it and has not seen the end of it, does now.
    if (from) {
      const message = { type: "decided", certificate } as const;
      this.#step({ type: "message", nowMs: this.#nowMs, from, message });
    }
    return "accept";
  }

  #take(decision: Decision, name: string): void {
    const ctx = this.#ctx;
    this.taken(decision);
    this.#told.add(name);
    if (this.#told.size > 1_024) this.#told.delete(this.#told.keys().next().value!);
    if ("certificate" in decision) {
      const { certificate, operations } = decision;
      this.#counts.decided += 1;
      this.#note(name, certificate);
      const table = this.#chain!.table(certificate.header.table);
      if (table) this.certified(certificate, table);
      const keys: string[] = [];
      for (const [i, proof] of proofsOf(certificate, operations).entries()) {
        if (!bitOf(certificate.outcome, i) || proof.operation.kind !== RECORD_PUT) continue;
        const key = this.#remember(undefined, proof);
        if (key === undefined) continue;
        keys.push(key);
        ctx.persist(this.#store.proof(key, proof));
      }
      const { header } = certificate;
      this.#recent.push({
        instance: name,
        atMs: ctx.nowMs,
        class: header.class,
        proposer: header.proposer,
        round: certificate.round,
        signers: certificate.signatures.length / 64,
        voters: table?.voters.length ?? 0,
        accepted: operations.filter((_, i) => bitOf(certificate.outcome, i)).length,
        operations: operations.length,
        keys: keys.slice(0, 8),
      });
      if (this.#recent.length > RECENT_MAX) this.#recent.shift();
    }
    const mine = "statement" in decision || decision.certificate.header.proposer === ctx.state.nodeId;
    if (mine || this.votes || this.#ports.replica()) this.#handovers.add(name, decision, mine, false);
  }

  /** Remembers what shows a key's newest record; returns the key where it is news. */
  #remember(known: string | undefined, proof: RecordProof): string | undefined {
    if ("statement" in proof) return undefined;
    const spore = this.#sporeOf(proof.operation);
    if (!spore || known !== undefined && known !== spore.record.key) return undefined;
    const { key, seq } = spore.record;
    if ((this.#proofs.get(key)?.seq ?? -1) >= seq) return undefined;
    this.#proofs.delete(key);
    this.#proofs.set(key, { seq, proof });
    if (this.#proofs.size > PROOFS_MAX) {
      const oldest = [...this.#proofs.keys()].find((one) => !one.startsWith("agreed/"));
      if (oldest !== undefined) {
        this.#proofs.delete(oldest);
        this.#ctx.persist(this.#store.proof(oldest, undefined));
      }
    }
    return key;
  }

  /** Whether what a decision wrote stands already. */
  #stands(decision: Decision): boolean {
    if ("statement" in decision) return equalBytes(this.#chain!.recordHash, envelopeHash(decision.record));
    const { certificate, operations } = decision;
    return operations.every((operation, i) => {
      if (!bitOf(certificate.outcome, i)) return true;
      const spore = this.#sporeOf(operation);
      if (!spore) return true;
      const current = this.#ports.current(spore.record.key);
      return current !== undefined && current.record.seq >= spore.record.seq;
    });
  }

  #sporeOf(operation: Operation): Spore | undefined {
    try {
      return readSpore(decodeRecordPut(operation.body).envelope);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      return undefined;
    }
  }

  #nameOf(decision: Decision): string {
    return "statement" in decision
      ? toHex(emergencyHash(decision.statement))
      : toHex(instanceId(decision.certificate.header, this.#ctx.state.networkId));
  }

  // --- Electorates.

  /** Follows the electorate of this node's replica, or asks others where the record says that there is a newer one. */
  #syncChain(): void {
    const chain = this.#chain!;
    const replica = this.#ports.replica();
    if (replica) {
      if (chain.mirror(replica.links)) this.#adopt();
      return;
    }
    const record = this.#ports.current(ELECTORATE_KEY);
    if (!record || equalBytes(record.hash, chain.recordHash) || this.#ctx.nowMs < this.#linksMs) return;
    const peer = this.#ctx.memberPeers();
    if (peer.length > 0) this.#askLinks(peer[this.#ctx.rng.below(peer.length)]!);
  }

  #askLinks(nodeId: string): void {
    const chain = this.#chain;
    const ctx = this.#ctx;
    if (!chain || this.#ports.replica() || this.#linksFrom || !ctx.sessions.get(nodeId)?.member) return;
    if (ctx.nowMs < this.#linksMs) return;
    this.#linksMs = ctx.nowMs + LINKS_MS;
    this.#linksFrom = nodeId;
    // One before the newest: a chain that was replaced is seen by it.
    const from = Math.max(0, chain.epoch - 1);
    ctx.call(nodeId, "agreement.links", { e: from }, 5_000, (result) => {
      this.#linksFrom = undefined;
      if (!result.ok || this.#chain !== chain) return;
      try {
        const { n, l } = readLinks(result.body, "agreement.links");
        if (chain.offer(from, l)) this.#adopt();
        if (n > chain.epoch && l.length === LINKS_MAX) {
          this.#linksMs = 0;
          this.#askLinks(nodeId);
        }
      } catch (error) {
        if (!(error instanceof WireError)) throw error;
        ctx.refuse("bad-answer", nodeId);
      }
    });
  }

  #adopt(): void {
    const chain = this.#chain!;
    const ctx = this.#ctx;
    ctx.persist(this.#store.links(chain.since(0)));
    const { table } = chain.electorate;
    this.#step({ type: "table", nowMs: this.#nowMs, table });
    ctx.log("info", "electorate", `Electorate ${table.epoch}: ${table.voters.length} voters`, {
      epoch: table.epoch,
      voters: table.voters.length,
    });
    const unread = [...this.#unread.values()];
    this.#unread.clear();
    for (const one of unread) if (!this.#told.has(this.#nameOf(one.decision))) this.#learn(one.decision, one.from);
    this.#judgedAt = "";
    ctx.wakeAt(ctx.nowMs);
  }
}
