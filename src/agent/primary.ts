/**
 * The Primary Spore: drives the Raft core among the issuers, and serves everybody else.
 *
 * Each issuer runs a replica. The founder's begins as the only voter; the others are added when they become
 * issuers, first as learners. Members that are no issuers are clients of any issuer.
 *
 * What the core wants durable becomes one `persist` effect. The order of effects carries the rest: what follows a
 * `persist` leaves only when it is durable, so the core can be told at once that it is.
 *
 * @module
 */

import { equalBytes, toHex } from "../core/bytes.ts";
import {
  array,
  bool,
  type CborValue,
  decodeCbor,
  encodeCbor,
  optional,
  record,
  text,
  uint,
  WireError,
} from "../core/codec.ts";
import { type Envelope, envelopeValue, readEnvelope } from "../core/envelope.ts";
import type { KeyPair } from "../core/crypto.ts";
import { nodeIdOf, readNodeId, shortNodeId } from "../core/ids.ts";
import { type ConfigChange, configOf, isJoint, membersOf } from "../raft/config.ts";
import type { RaftEffect, RaftEvent, RefusalReason, Role, StoredRaft } from "../raft/effects.ts";
import { decodeMessage, type Entry, type Snapshot } from "../raft/messages.ts";
import { Raft } from "../raft/raft.ts";
import type { RaftView } from "../raft/view.ts";
import { openSpore, type Spore } from "../spore/record.ts";
import { type Command, type CommandResult, encodeCommand, StateMachine, type Version } from "../spore/state_machine.ts";
import { Attestation } from "./attestation.ts";
import type { Method } from "./access_table.ts";
import { type Context, DEFERRED, Refusal } from "./context.ts";
import type { ControlRequest } from "./control.ts";
import type { PeerView } from "./effects.ts";
import type { Part } from "./part.ts";
import {
  answerValue,
  type BatchAnswer,
  type ClientRequest,
  commandOf,
  PrimaryClient,
  readBatchAnswer,
  readRequests,
  requestsValue,
  type WriteResult,
} from "./primary_client.ts";
import { NetworkLaw } from "./agreed_law.ts";
import type { CertifiedResult, Decision } from "./certified.ts";
import { PrimaryDecisions } from "./primary_decisions.ts";
import { PrimaryFence } from "./primary_fence.ts";
import { ACTIVE_MS, PrimaryPace } from "./primary_pace.ts";
import { INFO_MS, PrimaryPolicy, readInfo } from "./primary_policy.ts";
import { type LogEnd, PrimaryConsole, type PrimaryRequest } from "./primary_console.ts";
import { recovered, sealRecovery } from "./primary_recovery.ts";
import { nodeOfReplica, PrimaryStore } from "./primary_store.ts";
import { DATAGRAM_KIND, type Packet, PrimaryTransport, readPacket } from "./primary_transport.ts";
import type { PrimaryStatus } from "./status.ts";

/** An issuer that is none any more stays in the group for so long, to be taken out of it. */
const LEAVING_MS = 30_000;
/** Requests that wait for a leader, and for how long. */
const PARKED_MAX = 256;
const PARKED_MS = 2_000;
/** Bytes of records in one answer to a read. */
const READ_BYTES_MAX = 400 << 10;
/** Log on disk that is worth a snapshot. */
const COMPACT_BYTES_MIN: number = 4 << 20;
const COMPACT_ENTRIES = 10_000;
/** Entries that are kept behind a snapshot, for who is a little behind. */
const TRAILING_ENTRIES = 256;
/** A commit waits so long for the next append that tells of it: under load it costs no message of its own. */
const COMMIT_NOTICE_MS = 20;
/** Time for a person's request. */
const CONTROL_MS = 10_000;

/** What the simulator's checkers look at. */
export interface PrimaryView extends RaftView {
  /** Index and hash of the replicated state: nodes with the same index have the same hash. */
  readonly stateIndex: number;
  readonly stateHash: Uint8Array;
  /** An entry of the log in memory. */
  entryAt(index: number): Entry | undefined;
  /** What was decided, with what shows it. */
  readonly agreed: StateMachine["agreed"] & {
    /** Hash of the record that stands under a key. */
    hashOf(key: string): Uint8Array | undefined;
  };
}

/** What a read gives. */
export type ReadResult =
  | {
    readonly ok: true;
    readonly versions: readonly Version[];
    /** Last index that the answering node had applied. */
    readonly index: number;
    /** Ask again for what is behind this key. */
    readonly after: string | undefined;
  }
  | { readonly ok: false; readonly code: string };

/** What is asked of a read. */
export interface ReadRequest {
  /** The key, or what the keys begin with. */
  readonly key: string;
  readonly prefix: boolean;
  /** Whatever this or the next issuer holds, without asking the leader. */
  readonly stale: boolean;
  /** Only keys behind this one. */
  readonly after?: string;
}

const readPropose = record({
  b: (value, path) => readRequests(value, path),
  c: optional(readNodeId),
  w: optional(uint(1)),
});
const readRead = record({ k: text(200), p: optional(bool), s: optional(bool), a: optional(text(200)) });
const readVersions = record({
  v: array(record({ e: readEnvelope, i: uint(), m: uint() }), 1_000),
  x: uint(),
  a: optional(text(200)),
});

/** What waits for the Raft core, by number. */
type Waiting =
  | {
    readonly kind: "propose";
    readonly done: (result: CommandResult | { readonly leader: string | undefined }) => void;
  }
  | { readonly kind: "change" }
  | {
    readonly kind: "transfer";
    readonly done: (result: { readonly leader: string | undefined } | { readonly refused: string }) => void;
  }
  | { readonly kind: "read"; readonly done: (ok: boolean) => void };

/** The Primary Spore of one node. */
export class Primary implements Part {
  readonly methods: readonly Method[] = [
    "raft",
    "primary.propose",
    "primary.decided",
    "primary.read",
    "primary.info",
    "primary.attest",
    "primary.fence",
  ];
  readonly verbs: readonly string[];
  readonly datagramKind: number = DATAGRAM_KIND;
  /** How much a node is trusted with a vote, below 0 not at all; trust says so. */
  tierOf: (nodeId: string) => number = () => 0;
  /** Proofs for what was agreed on. */
  readonly attestation: Attestation;
  /** Another record stands under its key, in the replica of this node. */
  changed: (spore: Spore) => void = () => {};
  readonly #ctx: Context;
  readonly #store = new PrimaryStore();
  readonly #client: PrimaryClient;
  #stored: StoredRaft | undefined;
  /** Why there is no replica here, though there should be. */
  #broken: string | undefined;
  #started = false;
  #raft: Raft | undefined;
  #state: StateMachine | undefined;
  #wakeMs = Infinity;
  readonly #todo: (RaftEffect | { readonly type: "durable"; readonly seq: number })[] = [];
  #running = false;
  /** Something is to be stored in this step of the agent. */
  #storing = false;
  readonly #waiting = new Map<number, Waiting>();
  /** Proposals in the log, by index. */
  readonly #accepted = new Map<
    number,
    {
      readonly term: number;
      readonly done: (result: CommandResult | { readonly leader: string | undefined }) => void;
    }[]
  >();
  #nextId = 1;
  /** Requests of others that came while nobody led. */
  #parked: {
    readonly requests: readonly ClientRequest[];
    readonly client: string;
    /** Another issuer has passed it on already. */
    readonly passed: boolean;
    readonly inboundId: number;
    readonly untilMs: number;
  }[] = [];
  #leavingMs: number | undefined;
  #logBytes = 0;
  #chainEpoch = 0;
  #leaderHint: string | undefined;
  readonly #console: PrimaryConsole;
  readonly #transport: PrimaryTransport;
  readonly #pace: PrimaryPace;
  readonly #policy: PrimaryPolicy;
  readonly #fence: PrimaryFence;
  readonly #decisions: PrimaryDecisions;
  #law: NetworkLaw | undefined;
  /** Said by an operator here, and not in the log yet. */
  #recovery: { readonly without: readonly string[]; readonly statement: Envelope } | undefined;
  constructor(ctx: Context, entries: ReadonlyMap<string, Uint8Array>) {
    this.#ctx = ctx;
    try {
      this.#stored = this.#store.load(entries);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      this.#broken = error.message;
    }
    this.#console = new PrimaryConsole(ctx, this);
    this.verbs = this.#console.verbs;
    this.attestation = new Attestation(ctx, () => this.#state);
    this.#pace = new PrimaryPace(ctx, { raft: () => this.#raft, step: (event) => this.#step(event) });
    this.#transport = new PrimaryTransport(ctx, {
      sender: () => this.#sender(),
      renamed: (nodeId, replica) => this.#policy.note(nodeId, replica),
    });
    this.#fence = new PrimaryFence(ctx, () => this.#state, (nodeId) => this.#policy.forget(nodeId));
    this.#policy = new PrimaryPolicy(ctx, {
      fence: (nodeId, replica) => this.#fence.fence(nodeId, replica),
      isGivenUp: (replica) => this.#fence.isGivenUp(replica) !== undefined,
      propose: (command) => this.#proposeOwn(command),
      tier: (nodeId) => this.tierOf(nodeId),
      change: (changes) => this.#change(changes),
    });
    // deno-lint-ignore no-this-alias -- the getters of the port below have a `this` of their own
    const primary = this;
    this.#decisions = new PrimaryDecisions(ctx, {
      get leads() {
        return primary.leads;
      },
      get leader() {
        return primary.leader;
      },
      get state() {
        return primary.#state;
      },
      whom: (tries) => {
        this.#rouse();
        return this.#whom(tries);
      },
      propose: (data, done) => this.#proposeOne(data, done),
      doubt: (nodeId) => this.#doubt(nodeId),
    });
    this.#client = new PrimaryClient({
      get nowMs() {
        return ctx.nowMs;
      },
      ask: (requests, tries, timeoutMs, done) => this.#ask(requests, tries, timeoutMs, done),
    });
  }

  // --- As a part of the agent.

  start(): void {
    this.#started = true;
    if (this.#broken) {
      this.#ctx.log("error", "primary-unreadable", `The replica of the Primary Spore cannot be read: ${this.#broken}`);
    }
  }

  clear(): void {
    this.#stop();
    this.#client.clear();
    this.#decisions.clear();
    this.#store.clear();
    this.#stored = undefined;
    this.#broken = undefined;
    this.#started = false;
    this.#policy.clear();
    this.#transport.clear();
    this.#chainEpoch = 0;
    this.#leaderHint = undefined;
    this.#leavingMs = undefined;
    for (const { inboundId } of this.#parked) {
      this.#ctx.emit({ type: "reply-error", inboundId, code: "not-issuer", message: "this node runs no replica" });
    }
    this.#parked = [];
    this.#console.clear();
    this.#recovery = undefined;
    this.#fence.clear();
  }

  keys(): readonly string[] {
    return this.#store.keys();
  }

  /** When the group was last recovered from a lost majority; 0 for never; missing where this replica holds no state. */
  get recoveredMs(): number | undefined {
    if (!this.#state || !this.#raft || this.#raft.view.commitIndex === 0) return undefined;
    return this.#state.recoveries.at(-1)?.timeMs ?? 0;
  }

  /**
   * Where the two halves of a split have two histories, this replica comes back as a new one that learns from those of
   * the other half, and never founds a group of its own. Where they have one, it goes on.
   */
  authorityReplaced(newPrimary: boolean): void {
    const { ctx } = this;
    if (!newPrimary || !this.#store.identity) return;
    const before = this.keys();
    this.clear();
    const id = `${ctx.state.nodeId}.${toHex(ctx.entropy.bytes(4))}`;
    const identity = this.#store.identify({ id, founder: false, incarnation: 0 });
    const gone = before.filter((key) => !identity.some(([kept]) => kept === key));
    ctx.persist([...gone.map((key) => [key, null] as const), ...identity]);
    this.start();
  }

  sessionUp(nodeId: string): void {
    this.#policy.sessionUp(nodeId);
    this.#client.hurry();
    this.#decisions.hurry();
  }

  sessionDown(nodeId: string): void {
    this.#policy.sessionDown(nodeId);
    this.#transport.sessionDown(nodeId);
    if (this.#leaderHint === nodeId) this.#leaderHint = undefined;
    this.suspect(nodeId);
  }

  clockSetBack(): void {
    this.#wakeMs = 0;
    this.#policy.clockSetBack();
    this.#pace.clockSetBack();
    this.#client.clockSetBack();
    this.#decisions.clockSetBack();
    this.attestation.clockSetBack();
    this.#console.clockSetBack();
    this.#parked = this.#parked.map((one) => ({ ...one, untilMs: this.#ctx.nowMs }));
    this.#fence.clear();
  }

  wake(): number {
    const { ctx } = this;
    this.#replica();
    if (this.#raft && ctx.nowMs >= this.#wakeMs) this.#wakeRaft(this.#raft);
    let nextMs = Math.min(
      this.#console.wake(),
      this.#unpark(),
      this.#lead(),
      this.#client.wake(),
      this.#decisions.wake(),
      this.attestation.wake(),
    );
    // The client may have found work for the replica.
    this.#transport.flush();
    this.#storing = false;
    if (this.#raft) nextMs = Math.min(nextMs, this.#wakeMs);
    if (this.#leavingMs !== undefined) nextMs = Math.min(nextMs, this.#leavingMs + LEAVING_MS);
    return nextMs;
  }

  serve(peer: PeerView, method: string, body: CborValue, inboundId: number): CborValue | typeof DEFERRED {
    switch (method) {
      case "raft":
        return this.#onRaft(peer.nodeId, body);
      case "primary.propose":
        return this.#onPropose(peer, body, inboundId);
      case "primary.decided":
        return this.#decisions.serve(peer, body, inboundId);
      case "primary.read":
        return this.#onRead(body, inboundId);
      case "primary.fence":
        return this.#onFence(body);
      case "primary.attest":
        return this.attestation.serve(peer, body);
      default:
        return this.#info();
    }
  }

  answer(controlId: number, request: ControlRequest): unknown {
    return this.#console.answer(controlId, request as ControlRequest & PrimaryRequest);
  }

  datagram(from: string, input: Uint8Array): void {
    const packet = readPacket(decodeCbor(input));
    if (this.#raft && packet.t === this.#raft.id) this.#receive(from, packet);
  }

  // --- For other parts.

  /** What the simulator's checkers look at; missing where this node runs no replica. */
  get view(): PrimaryView | undefined {
    const [raft, state] = [this.#raft, this.#state];
    if (!raft || !state) return undefined;
    return {
      ...raft.view,
      stateIndex: state.index,
      stateHash: state.hash,
      entryAt: (index) => raft.entryAt(index),
      agreed: {
        electorate: state.agreed.electorate,
        links: state.agreed.links,
        keys: state.agreed.keys,
        warrantOf: (key) => state.agreed.warrantOf(key),
        hashOf: (key) => state.get(key)?.spore.hash,
      },
    };
  }

  /** The replicated state of this node, if it runs a replica: what it reads without asking anybody. */
  get state(): StateMachine | undefined {
    return this.#state;
  }

  /** Whether this node leads. */
  get leads(): boolean {
    return this.#raft?.view.role === "leader";
  }

  /** Node that leads, as far as this one knows. */
  get leader(): string | undefined {
    if (!this.#raft) return this.#leaderHint;
    const { leader } = this.#raft.view;
    return leader === undefined ? undefined : nodeOfReplica(leader);
  }

  /** Whether there is somebody to ask. */
  get reachable(): boolean {
    if (this.#raft) return this.leader !== undefined;
    return this.#whom(1) !== undefined;
  }

  /** Something better informed says that a node is gone: if it leads, it is not protected any longer. */
  suspect(nodeId: string): void {
    const raft = this.#raft;
    this.#policy.soon();
    if (!raft || this.leader !== nodeId || this.leads) return;
    this.#step({ type: "forget-leader", nowMs: this.ctx.nowMs });
    this.#pace.hurry();
  }

  /** Writes a record; `done` is called once. */
  write(
    spore: Spore,
    options: { readonly expect?: number; readonly timeoutMs?: number },
    done: (result: WriteResult) => void,
  ): void {
    const { expect, timeoutMs = CONTROL_MS } = options;
    this.#client.write(spore.envelope, { timeoutMs, ...(expect === undefined ? {} : { expect }) }, done);
    this.ctx.wakeAt(this.ctx.nowMs);
  }

  /** Has a decision applied; see `DecisionSink`. */
  certified(
    decision: Decision,
    options: { readonly timeoutMs: number },
    done: (result: CertifiedResult) => void,
  ): void {
    this.#decisions.certified(decision, options, done);
  }

  /** What certificates, electorates and warrants of this network mean; missing before it is known. */
  get law(): NetworkLaw | undefined {
    const { genesis, chain } = this.#ctx.state.network ?? {};
    const [founder] = chain?.issuersAt(1) ?? [];
    if (!genesis || !founder) return undefined;
    if (!this.#law || !equalBytes(this.#law.root.networkId, this.#ctx.state.networkId)) {
      const { genesisKey, operatorKey } = genesis.record;
      this.#law = new NetworkLaw({
        networkId: this.#ctx.state.networkId,
        founder,
        operators: [genesisKey, operatorKey],
      });
    }
    return this.#law;
  }

  /** Reads keys; `done` is called once. */
  read(request: ReadRequest, done: (result: ReadResult) => void): void {
    if (!this.#raft) return this.#readAfar(request, 0, done);
    this.#readHere(request, (result) => {
      // What was asked of the leader is lost, or takes longer than it is waited for: once more, as a call.
      if (result.ok || this.leads || this.leader === undefined) return done(result);
      this.#readAfar(request, 0, done);
    });
  }

  /** Voters and learners of the configuration that this replica knows. */
  members():
    | { readonly self: string; readonly voters: readonly string[]; readonly learners: readonly string[] }
    | undefined {
    const raft = this.#raft;
    if (!raft) return undefined;
    const { config } = raft.view;
    // In a joint configuration both halves have to agree: all of them count.
    const voters = [...new Set([...config.voters, ...config.votersOutgoing])].sort();
    return { self: raft.id, voters, learners: config.learners.filter((one) => !voters.includes(one)) };
  }

  /** Hands leadership to a voter; `done` is told who leads then, as far as that is known. */
  transfer(
    to: string,
    done: (result: { readonly leader: string | undefined } | { readonly refused: string }) => void,
  ): void {
    if (!this.#raft) return done({ refused: "not-leader" });
    const id = this.#nextId++;
    this.#waiting.set(id, { kind: "transfer", done });
    this.#step({ type: "transfer", nowMs: this.ctx.nowMs, id, to });
  }

  /** Where the log of this replica ends; those of others that answer are told to `done`. */
  survey(of: readonly string[], done: (found: ReadonlyMap<string, LogEnd>) => void): LogEnd {
    const found = new Map<string, LogEnd>();
    let open = 1;
    const ended = () => {
      if (--open === 0) done(found);
    };
    for (const replica of of) {
      const node = nodeOfReplica(replica);
      if (!this.ctx.sessions.get(node)?.member) continue;
      open += 1;
      this.ctx.call(node, "primary.info", {}, INFO_MS, (result) => {
        if (result.ok) {
          try {
            const { r, i, e, c } = readInfo(result.body, "primary.info");
            if (r === replica) found.set(replica, { term: e, index: i, commitIndex: c });
          } catch (error) {
            if (!(error instanceof WireError)) throw error;
            this.ctx.refuse("bad-answer", node);
          }
        }
        ended();
      });
    }
    // After the answer is in the hands of who asked.
    this.ctx.wakeAt(this.ctx.nowMs);
    this.#console.soon(ended);
    return this.#logEnd();
  }

  /** Goes on as the only voter, without those that are given up. */
  recover(learners: readonly string[], without: readonly string[], signer: KeyPair): void {
    const { ctx } = this;
    const raft = this.#raft;
    if (!raft) return;
    const end = this.#logEnd();
    const said = { without, by: ctx.state.nodeId, index: end.index, term: end.term, atMs: ctx.nowMs };
    this.#recovery = { without, statement: sealRecovery(said, ctx.state.networkId, signer) };
    this.#stop();
    const { stored, entry } = recovered(this.#stored!, raft.id, learners);
    ctx.persist(this.#store.puts({ type: "persist", seq: 0, hardState: stored.hardState, entries: [entry], then: [] }));
    this.#stored = stored;
    this.#run();
  }

  #logEnd(): LogEnd {
    const { lastIndex, commitIndex, snapshotIndex } = this.#raft!.view;
    const term = this.#raft!.entryAt(lastIndex)?.term ??
      (snapshotIndex === lastIndex ? this.#raft!.toStored().logStart.term : 0);
    return { term, index: lastIndex, commitIndex };
  }

  /** For the status document. */
  status(): PrimaryStatus {
    const view = this.#raft?.view;
    const size = this.#state?.size ?? { keys: 0, bytes: 0, sessions: 0 };
    const leader = this.leader;
    return {
      role: view ? view.role : this.#broken ? "failed" : "client",
      term: view?.term ?? 0,
      ...(leader === undefined ? {} : { leader }),
      voters: view ? [...view.config.voters].map(nodeOfReplica) : [],
      learners: view ? [...view.config.learners, ...view.config.learnersNext].map(nodeOfReplica) : [],
      changing: view ? isJoint(view.config) || !view.configCommitted : false,
      commitIndex: view?.commitIndex ?? 0,
      appliedIndex: view?.appliedIndex ?? 0,
      logEntries: view ? view.lastIndex - view.prevIndex : 0,
      logBytes: this.#logBytes,
      snapshotIndex: view?.snapshotIndex ?? 0,
      ...size,
      stateHash: this.#state ? toHex(this.#state.hash) : "",
      recoveries: (this.#state?.recoveries ?? []).map(({ index, timeMs, by, without }) => ({
        index,
        timeMs,
        by,
        without,
      })),
      waiting: this.#client.waiting,
      unproven: this.attestation.figures.waiting,
    };
  }

  get ctx(): Context {
    return this.#ctx;
  }

  // --- The replica of this node.

  /** Starts and stops the replica as this node becomes an issuer, and ceases to be one. */
  #replica(): void {
    const { ctx } = this;
    const { state } = ctx;
    const chain = state.network?.chain;
    if (!chain || !this.#started) return;
    if (chain.epoch !== this.#chainEpoch) {
      this.#chainEpoch = chain.epoch;
      this.#policy.soon();
      this.#client.hurry();
    }
    const wanted = state.isIssuer && state.mode !== "isolated" &&
      !state.revocations.get("node", state.keyPair.publicKey);
    if (wanted) this.#leavingMs = undefined;
    if (!this.#raft) {
      if (wanted && !this.#broken) this.#run();
      return;
    }
    if (wanted) return;
    if (this.#leavingMs === undefined) {
      this.#leavingMs = ctx.nowMs;
      this.#policy.soon();
    }
    const member = membersOf(this.#raft.view.config).includes(this.#raft.id);
    if (!member || state.mode === "isolated" || ctx.nowMs >= this.#leavingMs + LEAVING_MS) {
      this.#leavingMs = undefined;
      this.#stop();
    }
  }

  #run(): void {
    const { ctx } = this;
    const { state } = ctx;
    const known = this.#store.identity;
    const founder = known?.founder ?? this.#founds();
    const replica = known?.id ?? `${state.nodeId}.${toHex(ctx.entropy.bytes(4))}`;
    const identity = { id: replica, founder, incarnation: (known?.incarnation ?? 0) + 1 };
    ctx.persist(this.#store.identify(identity));
    const machine = new StateMachine(state.networkId, this.law);
    const stored = this.#stored;
    if (stored?.snapshot) {
      try {
        machine.restore(stored.snapshot.data, stored.snapshot.meta);
      } catch (error) {
        if (!(error instanceof WireError)) throw error;
        this.#broken = error.message;
        return ctx.log(
          "error",
          "primary-unreadable",
          `The replica of the Primary Spore cannot be read: ${error.message}`,
        );
      }
    }
    this.#state = machine;
    this.#logBytes = (stored?.entries ?? []).reduce(
      (sum, one) => sum + (one.kind === "data" ? one.data.length : 64),
      0,
    );
    this.#raft = new Raft({
      id: replica,
      rng: ctx.rng,
      incarnation: identity.incarnation,
      ...(stored ? { stored } : {}),
      ...(founder ? { founding: configOf([replica]) } : {}),
      options: {
        electionTimeoutMs: ACTIVE_MS,
        heartbeatMs: ACTIVE_MS / 5,
        commitNoticeMs: COMMIT_NOTICE_MS,
        trailingEntries: TRAILING_ENTRIES,
      },
    });
    // What is on disk from here on, the replica itself knows.
    this.#stored = undefined;
    this.#pace.begin();
    this.#step({ type: "start", nowMs: ctx.nowMs });
  }

  /** Whether this node begins the group: as first issuer, and only where it cannot have been another life of it. */
  #founds(): boolean {
    const { state } = this.ctx;
    const chain = state.network!.chain!;
    const first = chain.issuersAt(1);
    return first.length === 1 && equalBytes(first[0]!, state.keyPair.publicKey) &&
      (state.genesisPair !== undefined || chain.epoch === 1);
  }

  #stop(): void {
    const raft = this.#raft;
    if (!raft) return;
    // Should it be wanted again, it goes on from what is on disk.
    this.#stored = raft.toStored();
    this.#raft = undefined;
    this.#state = undefined;
    this.attestation.lead(false);
    this.#todo.length = 0;
    this.#wakeMs = Infinity;
    this.#failAll();
  }

  /** Nobody here leads any more, or the replica is gone: clients ask again, elsewhere. */
  #failAll(): void {
    const leader = this.leader;
    const accepted = [...this.#accepted.values()].flat();
    const waiting = [...this.#waiting.values()];
    this.#accepted.clear();
    this.#waiting.clear();
    for (const { done } of accepted) done({ leader });
    for (const one of waiting) {
      if (one.kind === "propose") one.done({ leader });
      if (one.kind === "read") one.done(false);
      if (one.kind === "transfer") one.done({ leader });
    }
  }

  #step(event: RaftEvent): void {
    if (!this.#raft) return;
    this.#todo.push(...this.#raft.step(event));
    if (this.#running) return;
    this.#running = true;
    try {
      for (let next = this.#todo.shift(); next; next = this.#todo.shift()) this.#carryOut(next);
    } finally {
      this.#running = false;
    }
  }

  #carryOut(effect: RaftEffect | { readonly type: "durable"; readonly seq: number }): void {
    const { ctx } = this;
    switch (effect.type) {
      case "send":
        return this.#transport.send(effect.to, effect.message);
      case "persist": {
        // What stands before the first one need not wait for the disk; what comes of it does.
        if (!this.#storing) this.#transport.flush();
        this.#storing = true;
        const puts = this.#store.puts(effect);
        if (puts.length > 0) ctx.persist(puts);
        for (const one of effect.entries) this.#logBytes += one.kind === "data" ? one.data.length + 64 : 64;
        // All that is emitted from here on follows the persist in the order of effects, so it is durable by then.
        this.#todo.unshift(...effect.then, { type: "durable", seq: effect.seq });
        return;
      }
      case "durable":
        return this.#step({ type: "persisted", nowMs: ctx.nowMs, seq: effect.seq });
      case "apply":
        return this.#apply(effect.entries);
      case "restore":
        return this.#restore(effect.snapshot);
      case "accepted": {
        const waiting = this.#waiting.get(effect.id);
        this.#waiting.delete(effect.id);
        if (waiting?.kind !== "propose") return;
        const list = this.#accepted.get(effect.index) ?? [];
        list.push({ term: effect.term, done: waiting.done });
        this.#accepted.set(effect.index, list);
        return;
      }
      case "refused":
        return this.#refused(effect.id, effect.reason, effect.leader, effect.detail);
      case "read-ready": {
        const waiting = this.#waiting.get(effect.id);
        this.#waiting.delete(effect.id);
        if (waiting?.kind === "read") waiting.done(true);
        return;
      }
      case "role":
        return this.#onRole(effect.role, effect.term, effect.leader);
      case "config":
        this.#policy.soon();
        ctx.log(
          "info",
          "primary-config",
          `Voters: ${names(effect.config.voters)}; learners: ${names(effect.config.learners)}`,
          {
            index: effect.index,
          },
        );
        return;
      case "wakeAt":
        this.#wakeMs = Math.min(this.#wakeMs, effect.atMs);
        return;
      case "drop":
        if (effect.reason === "conflict" || effect.reason === "term-jump") {
          ctx.refuse(`raft-${effect.reason}`, effect.from);
        }
        return;
      default:
        effect satisfies never;
    }
  }

  #onRole(role: Role, term: number, leader: string | undefined): void {
    const { ctx } = this;
    ctx.log(
      "info",
      "primary-role",
      `${role} in term ${term}${leader ? `, led by ${shortNodeId(nodeOfReplica(leader))}` : ""}`,
      {
        role,
        term,
      },
    );
    if (leader !== undefined) this.#leaderHint = nodeOfReplica(leader);
    this.attestation.lead(role === "leader");
    this.#pace.roleChanged();
    if (role !== "leader") this.#failAll();
    else {
      this.#policy.soon();
      this.#pace.busy();
      const recovery = this.#recovery;
      this.#recovery = undefined;
      if (recovery) {
        const without = recovery.without.map(nodeOfReplica);
        const { statement } = recovery;
        this.#proposeOwn({ op: "recovered", timeMs: ctx.nowMs, by: ctx.state.nodeId, without, statement });
      }
    }
    // Whoever looks for a leader wants one soon.
    if (leader === undefined) this.#pace.hurry();
    this.#client.hurry();
  }

  #apply(entries: readonly Entry[]): void {
    const state = this.#state!;
    for (const entry of entries) {
      const { index, term } = entry;
      const applied = state.apply(entry.kind === "data" ? entry : { index, term });
      for (const one of this.#accepted.get(index) ?? []) {
        one.done(one.term === term ? applied.result : { leader: this.leader });
      }
      this.#accepted.delete(index);
      for (const one of applied.changed) {
        this.attestation.changed(one);
        this.changed(one.spore);
      }
    }
    this.#step({ type: "applied", nowMs: this.ctx.nowMs, index: entries.at(-1)!.index });
    this.#compact();
  }

  #restore({ meta, data }: Snapshot): void {
    const { index } = meta;
    try {
      this.#state!.restore(data, meta);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      // Its leader is broken or lies; on disk it is already, so this replica ends here.
      this.#broken = error.message;
      this.ctx.log("error", "primary-unreadable", `The leader's snapshot cannot be read: ${error.message}`);
      this.ctx.refuse("raft-bad-snapshot", this.leader ?? "");
      return this.#stop();
    }
    for (const [at, list] of this.#accepted) {
      if (at > index) continue;
      this.#accepted.delete(at);
      for (const { done } of list) done({ leader: this.leader });
    }
    this.#logBytes = 0;
    this.#step({ type: "applied", nowMs: this.ctx.nowMs, index });
  }

  /** Replaces the log by the state where it has grown larger than that. */
  #compact(): void {
    const { view } = this.#raft!;
    const state = this.#state!;
    const entries = view.appliedIndex - view.snapshotIndex;
    if (this.#logBytes < Math.max(COMPACT_BYTES_MIN, 2 * state.size.bytes) && entries < COMPACT_ENTRIES) return;
    if (state.index !== view.appliedIndex || entries === 0) return;
    this.#logBytes = 0;
    this.#step({ type: "compact", nowMs: this.ctx.nowMs, index: state.index, data: state.snapshot() });
  }

  #refused(id: number, reason: RefusalReason, leader: string | undefined, detail: string | undefined): void {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    const node = leader === undefined ? undefined : nodeOfReplica(leader);
    switch (waiting?.kind) {
      case "propose":
        return waiting.done({ leader: node });
      case "read":
        return waiting.done(false);
      case "transfer":
        return waiting.done({ refused: reason });
      case "change":
        this.#policy.refused();
        return this.ctx.log("debug", "primary-change-refused", `${reason} ${detail ?? ""}`);
    }
  }

  // --- Messages.

  /** What goes with every packet; a leader's followers are told what to expect, and tell it how late they are. */
  #sender(): Pick<Packet, "f" | "p" | "g"> | undefined {
    const raft = this.#raft;
    if (!raft) return undefined;
    const leads = raft.view.role === "leader";
    return { f: raft.id, p: leads ? this.#pace.toldMs(raft) : undefined, g: leads ? undefined : this.#pace.lagMs };
  }

  #onRaft(from: string, body: CborValue): CborValue {
    const raft = this.#raft;
    if (!raft) throw new Refusal("not-issuer", "this node runs no replica");
    const packet = readPacket(body);
    if (packet.t !== raft.id) return { r: raft.id };
    this.#receive(from, packet);
    return {};
  }

  #receive(from: string, packet: Packet): void {
    const { ctx } = this;
    const raft = this.#raft!;
    const key = ctx.sessions.get(from)?.peer.publicKey;
    const chain = ctx.state.network!.chain!;
    // Who was removed hands over what it leads, for as long as its channel lasts: a second.
    const known = key && (membersOf(raft.view.config).includes(packet.f) ||
      chain.isIssuer(key) && !ctx.state.revocations.get("node", key));
    if (nodeOfReplica(packet.f) !== from || !known) return ctx.refuse("raft-stranger", from);
    if (this.#fence.fence(from, packet.f)) return;
    this.#policy.note(from, packet.f);
    for (const one of packet.m) {
      this.#step({ type: "message", nowMs: ctx.nowMs, from: packet.f, message: decodeMessage(one) });
    }
    // A leader's word counts; anybody's, where it wants things to go faster.
    const { leader, role } = raft.view;
    if (packet.p !== undefined && role !== "leader" && leader === packet.f) this.#pace.take(packet.p);
    else if (packet.p !== undefined && packet.p <= ACTIVE_MS && this.#pace.idle) {
      role === "leader" ? this.#pace.busy() : this.#pace.hurry();
    }
    if (role === "leader") this.#pace.lags(packet.f, packet.g ?? 0);
  }

  /** Serves `primary.fence`: the group went on without this replica, which makes way for a new one. */
  #onFence(body: CborValue): CborValue {
    const { ctx } = this;
    const said = this.#fence.read(body);
    const identity = this.#store.identity;
    if (!identity || !said.without.includes(identity.id)) return {};
    ctx.log("warn", "primary-given-up", "An operator recovered the primaries without this replica: it begins anew");
    ctx.audit("primary-given-up", said.by, `replica ${identity.id}`);
    this.authorityReplaced(true);
    return {};
  }

  #info(): CborValue {
    const raft = this.#raft;
    if (!raft) throw new Refusal("not-issuer", "this node runs no replica");
    const { term, index, commitIndex } = this.#logEnd();
    return { r: raft.id, i: index, e: term, c: commitIndex, l: this.leader };
  }

  // --- A leader's work.

  /** Wakes the core when its time has come. */
  #wakeRaft(raft: Raft): void {
    const { nowMs } = this.ctx;
    const waitMs = this.#pace.holdBack(nowMs - this.#wakeMs);
    if (waitMs > 0) {
      this.#wakeMs = nowMs + waitMs;
      return;
    }
    this.#wakeMs = Infinity;
    this.#step({ type: "wake", nowMs });
    if (raft.view.role === "leader" && !this.#pace.idle) this.#pace.hurry();
  }

  /** Keeps the group in shape; returns when it wants to be woken. */
  #lead(): number {
    const raft = this.#raft;
    if (!raft || raft.view.role !== "leader") return Infinity;
    return Math.min(this.#policy.wake(raft, this.#state!), this.#pace.slowDown(raft));
  }

  #change(changes: readonly ConfigChange[]): void {
    const { nowMs } = this.ctx;
    const id = this.#nextId++;
    this.#waiting.set(id, { kind: "change" });
    this.#pace.busy();
    this.#step({ type: "change-config", nowMs, id, changes, transition: "auto" });
  }

  /** A command of the leader itself; should it be lost, its cause is still there. */
  #proposeOwn(command: Command): void {
    const id = this.#nextId++;
    this.#waiting.set(id, { kind: "propose", done: () => {} });
    this.#step({ type: "propose", nowMs: this.ctx.nowMs, proposals: [{ id, data: encodeCommand(command) }] });
  }

  /** One command of somebody, answered when it is applied, or where this node leads no more. */
  #proposeOne(data: Uint8Array, done: (answer: CommandResult | { readonly leader: string | undefined }) => void): void {
    this.#pace.busy();
    const id = this.#nextId++;
    this.#waiting.set(id, { kind: "propose", done });
    this.#step({ type: "propose", nowMs: this.ctx.nowMs, proposals: [{ id, data }] });
  }

  // --- Writes.

  /** Puts requests into the log of this leader; `done` gets all results, or who leads. */
  #propose(requests: readonly ClientRequest[], client: string, done: (answer: BatchAnswer) => void): void {
    const { ctx } = this;
    const raft = this.#raft;
    if (!raft || raft.view.role !== "leader") return done({ ok: false, leader: this.leader });
    this.#pace.busy();
    const results: (CommandResult | undefined)[] = requests.map((one) => {
      if (one.op === "open") return undefined;
      try {
        this.#state!.verify(one.envelope);
        return undefined;
      } catch (error) {
        if (!(error instanceof WireError)) throw error;
        return { code: "malformed", index: 0 };
      }
    });
    let left = requests.length;
    let lost: { readonly leader: string | undefined } | undefined;
    const one = (i: number, result: CommandResult | { readonly leader: string | undefined }) => {
      if ("leader" in result) lost = result;
      else results[i] = result;
      if (--left > 0) return;
      done(lost ? { ok: false, leader: lost.leader } : { ok: true, results: results as CommandResult[] });
    };
    const proposals = requests.flatMap((request, i) => {
      const early = results[i];
      if (early) {
        left -= 1;
        return [];
      }
      const id = this.#nextId++;
      this.#waiting.set(id, { kind: "propose", done: (result) => one(i, result) });
      return [{ id, data: encodeCommand(commandOf(request, client, ctx.nowMs)) }];
    });
    if (proposals.length === 0) return done({ ok: true, results: results as CommandResult[] });
    this.#step({ type: "propose", nowMs: ctx.nowMs, proposals });
  }

  #onPropose(peer: PeerView, body: CborValue, inboundId: number): CborValue | typeof DEFERRED {
    const { ctx } = this;
    const { b, c, w } = readPropose(body, "primary.propose");
    const raft = this.#raft;
    if (!raft) throw new Refusal("not-issuer", "this node runs no replica");
    if (c !== undefined && !ctx.state.network!.chain!.isIssuer(peer.publicKey)) {
      throw new Refusal("not-issuer", "only issuers pass on what others write");
    }
    const client = c ?? peer.nodeId;
    if (raft.view.role === "leader") {
      this.#propose(b, client, (answer) => this.#reply(inboundId, answerValue(answer)));
      return DEFERRED;
    }
    const leader = this.leader;
    // While one is being elected the request waits for it: its client would only ask again.
    if (leader === undefined && this.#parked.length < PARKED_MAX) {
      this.#parked.push({ requests: b, client, passed: w === 1, inboundId, untilMs: ctx.nowMs + PARKED_MS });
      return DEFERRED;
    }
    if (w === 1 || leader === undefined || leader === peer.nodeId || !ctx.sessions.get(leader)?.member) {
      return answerValue({ ok: false, leader });
    }
    this.#passOn(leader, b, client, inboundId);
    return DEFERRED;
  }

  #passOn(leader: string, requests: readonly ClientRequest[], client: string, inboundId: number): void {
    this.#rouse();
    this.ctx.call(leader, "primary.propose", { b: requestsValue(requests), c: client, w: 1 }, 4_000, (result) => {
      if (result.ok) return this.#reply(inboundId, result.body);
      this.#doubt(leader);
      this.#reply(inboundId, answerValue({ ok: false, leader: undefined }));
    });
  }

  /** Requests that waited for a leader: carried out, passed on, or told that there is none. Returns when to look again. */
  #unpark(): number {
    const { ctx } = this;
    if (this.#parked.length === 0) return Infinity;
    const leader = this.leader;
    const parked = this.#parked;
    this.#parked = [];
    for (const one of parked) {
      const { requests, client, inboundId } = one;
      if (this.leads) this.#propose(requests, client, (answer) => this.#reply(inboundId, answerValue(answer)));
      else if (leader !== undefined && !one.passed && ctx.sessions.get(leader)?.member) {
        this.#passOn(leader, requests, client, inboundId);
      } else if (leader !== undefined || !this.#raft || ctx.nowMs >= one.untilMs) {
        this.#reply(inboundId, answerValue({ ok: false, leader }));
      } else this.#parked.push(one);
    }
    return Math.min(Infinity, ...this.#parked.map((one) => one.untilMs));
  }

  #reply(inboundId: number, value: CborValue): void {
    this.ctx.emit({ type: "reply", inboundId, body: encodeCbor(value) });
  }

  /** This node's own requests: to its own replica where that leads, else to the leader, else to any issuer. */
  #ask(
    requests: readonly ClientRequest[],
    tries: number,
    timeoutMs: number,
    done: (answer: BatchAnswer | undefined) => void,
  ): boolean {
    const { ctx } = this;
    if (this.leads) {
      this.#propose(requests, ctx.state.nodeId, done);
      return true;
    }
    const node = this.#whom(tries);
    if (node === undefined) return false;
    this.#rouse();
    ctx.call(node, "primary.propose", { b: requestsValue(requests) }, timeoutMs, (result) => {
      if (!result.ok) {
        this.#doubt(node);
        return done(undefined);
      }
      try {
        const answer = readBatchAnswer(result.body);
        if (answer.ok) this.#leaderHint ??= node;
        else if (answer.leader !== node) this.#leaderHint = answer.leader;
        done(answer);
      } catch (error) {
        if (!(error instanceof WireError)) throw error;
        ctx.refuse("bad-answer", node);
        done(undefined);
      }
    });
    return true;
  }

  /** Whom to ask: the leader where that is known, and every other time somebody else. */
  #whom(tries: number): string | undefined {
    const { ctx } = this;
    const issuers = (ctx.state.network?.chain?.issuers ?? []).map(nodeIdOf)
      .filter((one) => one !== ctx.state.nodeId && ctx.sessions.get(one)?.member);
    const leader = this.leader;
    if (leader !== undefined && tries % 2 === 0 && issuers.includes(leader)) return leader;
    // A replica knows who leads before others tell: it asks nobody else.
    if (this.#raft && leader === undefined) return undefined;
    const others = issuers.filter((one) => one !== leader);
    return others.length === 0 ? issuers[0] : others[ctx.rng.below(others.length)];
  }

  /** It did not answer. */
  #doubt(nodeId: string): void {
    if (this.leader === nodeId && !this.#raft) this.#leaderHint = undefined;
    if (this.leader === nodeId) this.#rouse();
  }

  /** Something is wanted of a leader that had nothing to do: if it is there, it says so now. */
  #rouse(): void {
    const raft = this.#raft;
    if (!raft || this.leads || !this.#pace.idle) return;
    this.#pace.hurry();
    for (const to of membersOf(raft.view.config)) {
      const node = nodeOfReplica(to);
      if (to === raft.id || !this.ctx.sessions.get(node)?.member) continue;
      this.#transport.datagram({ f: raft.id, t: to, m: [], p: ACTIVE_MS, g: undefined });
    }
  }

  // --- Reads.

  #readHere(request: ReadRequest, done: (result: ReadResult) => void): void {
    const { ctx } = this;
    if (request.stale) return done(this.#select(request));
    if (this.leads) this.#pace.busy();
    else this.#rouse();
    const id = this.#nextId++;
    this.#waiting.set(id, {
      kind: "read",
      done: (ok) => done(ok && this.#state ? this.#select(request) : { ok: false, code: "no-leader" }),
    });
    this.#step({ type: "read", nowMs: ctx.nowMs, id });
  }

  #select(request: ReadRequest): ReadResult {
    const state = this.#state!;
    const one = request.prefix ? undefined : state.get(request.key);
    const found = request.prefix ? state.list(request.key, request.after ?? "", 1_000) : one ? [one] : [];
    const versions: Version[] = [];
    let size = 0;
    let after: string | undefined;
    for (const version of found) {
      size += version.spore.envelope.payload.length + 200;
      if (versions.length > 0 && size > READ_BYTES_MAX) break;
      versions.push(version);
      after = version.spore.record.key;
    }
    const more = request.prefix && (versions.length < found.length || found.length === 1_000);
    return { ok: true, versions, index: state.index, after: more ? after : undefined };
  }

  #onRead(body: CborValue, inboundId: number): CborValue | typeof DEFERRED {
    const { k, p, s, a } = readRead(body, "primary.read");
    if (!this.#raft) throw new Refusal("not-issuer", "this node runs no replica");
    this.#readHere(
      { key: k, prefix: p ?? false, stale: s ?? false, ...(a === undefined ? {} : { after: a }) },
      (result) => {
        if (result.ok) {
          const v = result.versions.map((one) => ({ e: envelopeValue(one.spore.envelope), i: one.index, m: one.term }));
          return this.#reply(inboundId, { v, x: result.index, a: result.after });
        }
        this.ctx.emit({ type: "reply-error", inboundId, code: result.code, message: "nobody leads here; ask again" });
      },
    );
    return DEFERRED;
  }

  #readAfar(request: ReadRequest, tries: number, done: (result: ReadResult) => void): void {
    const { ctx } = this;
    const node = this.#whom(tries);
    if (node === undefined) return done({ ok: false, code: "no-leader" });
    const body: CborValue = { k: request.key, p: request.prefix, s: request.stale, a: request.after };
    ctx.call(node, "primary.read", body, 2_000, (result) => {
      if (!result.ok) {
        this.#doubt(node);
        return tries < 3 ? this.#readAfar(request, tries + 1, done) : done({ ok: false, code: result.code });
      }
      try {
        const { v, x, a } = readVersions(result.body, "primary.read");
        const versions = v.map((one): Version => ({
          spore: openSpore(one.e, ctx.state.networkId),
          index: one.i,
          term: one.m,
        }));
        done({ ok: true, versions, index: x, after: a });
      } catch (error) {
        if (!(error instanceof WireError)) throw error;
        ctx.refuse("bad-answer", node);
        done({ ok: false, code: "bad-answer" });
      }
    });
  }
}

function names(replicas: readonly string[]): string {
  return replicas.length === 0 ? "none" : replicas.map((one) => shortNodeId(nodeOfReplica(one))).join(" ");
}
