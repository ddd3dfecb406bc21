/**
 * The agent: everything that a node decides, as one machine.
 *
 * `step` takes what happened and returns what to do. It never waits and never throws on what comes from
 * outside: a bad request is answered with its code.
 *
 * @module
 */

import { unreachable } from "../core/assert.ts";
import { equalBytes, fromHex, toHex as hex } from "../core/bytes.ts";
import type { Capabilities } from "../core/capabilities.ts";
import { type CborValue, decodeCbor, encodeCbor, record, WireError } from "../core/codec.ts";
import { keyPairFromSeed } from "../core/crypto.ts";
import { readEnvelope } from "../core/envelope.ts";
import { formatAddress, nodeIdOf, parseAddress, publicKeyOf, shortNodeId } from "../core/ids.ts";
import { LIMITS } from "../core/limits.ts";
import type { Entropy, Rng } from "../core/rng.ts";
import type { Subject } from "../access/decide.ts";
import { BINDING_PREFIX, ROLE_PREFIX } from "../access/policy.ts";
import type { IncidentSettings } from "../access/incidents.ts";
import { AUTHORITY, type Candidate, CandidateSet, NEVER_MS } from "../bootstrap/candidates.ts";
import { JoinMachine, type Stage } from "../bootstrap/join_machine.ts";
import { AuthorityChain, encodeEpoch, signEpoch } from "../identity/authority.ts";
import { openCredential } from "../identity/credential.ts";
import { createGenesis } from "../identity/genesis.ts";
import { formatInvite, parseInvite } from "../identity/invite.ts";
import { sealMember } from "../membership/record.ts";
import type { Member } from "../membership/table.ts";
import { openAssignment, sealAssignment, sealProfile } from "../spore/profile.ts";
import type { GossipView } from "../spore/gossip.ts";
import type { Spore } from "../spore/record.ts";
import type { SporeTable } from "../spore/table.ts";
import { Access, ANYONE, SELF } from "./access.ts";
import { commandNeed, controlNeed, isMethod, METHOD_NEEDS } from "./access_table.ts";
import { AuditHeads } from "./audit_heads.ts";
import { TRUST_KEY } from "./agreed.ts";
import { Agreement } from "./agreement.ts";
import { AuthorityKeeper } from "./authority_keeper.ts";
import { Broadcast } from "./broadcast.ts";
import { COMMAND_VERBS, commandBody, CommandGate, type CommandVerb, sealCommand } from "./commands.ts";
import { type AgentConfig, Context, DEFERRED, Refusal, type Session } from "./context.ts";
import type { ControlRequest, CoreRequest } from "./control.ts";
import type { AgentEffect, AgentEvent, PeerView } from "./effects.ts";
import { Detector } from "./detector.ts";
import { Exchange, readSeen } from "./exchange.ts";
import { IncidentKeeper } from "./incidents.ts";
import { Joiner } from "./joiner.ts";
import { Latent } from "./latent.ts";
import type { SporePage } from "./latent_console.ts";
import { Links } from "./links.ts";
import type { Part } from "./part.ts";
import { Primary, type PrimaryView } from "./primary.ts";
import { Registrar } from "./registrar.ts";
import { type SeedReading, Seeds, shelfOf } from "./seeds.ts";
import { envelopeBytes, epochBytes, KEYS, type Mode, NodeState, openRow, type Put, rowValue } from "./state.ts";
import { type EdgeView, statusOf } from "./status_view.ts";
import type { Status } from "./status.ts";
import { AgreedRecords } from "./agreed_records.ts";
import { POLICY_KEY, Trust } from "./trust.ts";

/** Options of an {@linkcode Agent}. */
export interface AgentOptions {
  readonly config: AgentConfig;
  /** The whole store as it stands. */
  readonly entries: ReadonlyMap<string, Uint8Array>;
  readonly rng: Rng;
  readonly entropy: Entropy;
  /** Rules about incidents. @default as they are */
  readonly incidents?: IncidentSettings;
}

/** What {@linkcode Agent.inspect} shows. */
export interface AgentView {
  readonly state: NodeState;
  /** Open channels by node. */
  readonly sessions: ReadonlyMap<string, Readonly<Session>>;
  readonly stage: Stage;
  /** Addresses that discovery has named. */
  readonly candidates: number;
  readonly gossip: GossipView;
  /** The replica of the Primary Spore; missing where this node runs none. */
  readonly primary: PrimaryView | undefined;
  /** The records that this node knows. */
  readonly spores: SporeTable;
  readonly agreement: Pick<Agreement, "said" | "faults" | "chain">;
  readonly trust: Pick<Trust, "state">;
}

/** Stages in which a node shows its credential to whom it dialed: it is fresh, or the network has taken it already. */
const GREETING: ReadonlySet<Stage> = new Set(["verifying", "verified"]);

/** Everything that a node decides. */
export class Agent {
  readonly #ctx: Context;
  readonly #access: Access;
  readonly #machine: JoinMachine;
  readonly #candidates = new CandidateSet();
  readonly #exchange: Exchange;
  readonly #registrar: Registrar;
  readonly #joiner: Joiner;
  readonly #keeper: AuthorityKeeper;
  readonly #links: Links;
  readonly #gate: CommandGate;
  readonly #primary: Primary;
  readonly #agreement: Agreement;
  readonly #broadcast: Broadcast;
  readonly #detector: Detector;
  readonly #latent: Latent;
  readonly #seeds: Seeds;
  readonly #records: AgreedRecords;
  readonly #trust: Trust;
  readonly #incidents: IncidentKeeper;
  readonly #heads: AuditHeads;
  /** The protocols that stand by themselves. */
  readonly #parts: readonly Part[];
  readonly #served: ReadonlyMap<string, Part>;
  readonly #answered: ReadonlyMap<string, Part>;
  /** Datagrams of nodes that have not shown that they are members yet; the entry goes with the channel. */
  readonly #early = new Map<string, readonly Uint8Array[]>();
  #startedMs = 0;
  /** When the channels of removed nodes close; the entry goes with the channel. */
  readonly #evictAtMs = new Map<string, number>();
  /** When a node that leaves forgets its network. */
  #forgetAtMs: number | undefined;
  /** Addresses changed before there was a record to publish them in. */
  #started = false;
  #partsStarted = false;

  constructor(options: AgentOptions) {
    const state = new NodeState(options.entries, options.entropy.bytes(32));
    this.#ctx = new Context(state, options.config, options.rng, options.entropy);
    this.#access = new Access(this.#ctx, options.entries);
    this.#gate = new CommandGate(state.nonces);
    this.#machine = new JoinMachine(options.rng);
    this.#exchange = new Exchange(this.#ctx, (what) => this.#changed(what));
    this.#exchange.sessionUp = (nodeId) => {
      if (this.#partsStarted) { for (const part of this.#parts) part.sessionUp?.(nodeId); }
      const early = this.#early.get(nodeId) ?? [];
      this.#early.delete(nodeId);
      for (const bytes of early) this.#datagram(nodeId, bytes);
    };
    this.#broadcast = new Broadcast(this.#ctx);
    this.#broadcast.handle("news", (from, body) => this.#exchange.hear(from, body) ? "accept" : "ignore");
    this.#exchange.broadcast = (body, has) => this.#broadcast.publish("news", body, has);
    this.#registrar = new Registrar(this.#ctx, this.#exchange);
    this.#keeper = new AuthorityKeeper(this.#ctx, this.#exchange);
    this.#links = new Links(this.#ctx, (reachable) => this.#connectivity(reachable));
    this.#detector = new Detector(this.#ctx, options.entries, {
      watched: () => this.#links.wanted(),
      publish: (body) => this.#broadcast.publish("health", body),
      doubted: (nodeId) => this.#primary.suspect(nodeId),
    });
    this.#links.failed = (nodeId) => this.#detector.dialFailed(nodeId);
    this.#broadcast.handle("health", (_from, body) => this.#detector.news(body));
    this.#latent = new Latent(this.#ctx, options.entries);
    this.#broadcast.handle("spores", (from, body) => this.#latent.heard(from, body));
    this.#latent.broadcast = { publish: (body, has) => this.#broadcast.publish("spores", body, has) };
    const shelf = shelfOf(this.#latent.table, this.#ctx);
    this.#seeds = new Seeds({
      ctx: this.#ctx,
      exchange: this.#exchange,
      entries: options.entries,
      shelf: { ...shelf, offer: (spore, proof) => this.#latent.onProven(spore, proof) },
      members: () => this.knownMembers(),
      recoveredMs: () => this.#primary.recoveredMs,
      replaced: (newPrimary) => this.#parts.forEach((part) => part.authorityReplaced?.(newPrimary)),
      rejoin: () => this.#rejoin(),
      distrusted: (nodeId) => !this.#trust.may(nodeId, "seed").ok,
    });
    this.#exchange.contradicted = (nodeId) => this.#seeds.contradicted(nodeId);
    this.#primary = new Primary(this.#ctx, options.entries);
    this.#keeper.primary = () => ({ runs: this.#primary.view !== undefined, leader: this.#primary.leader });
    this.#latent.primary = {
      reachable: () => this.#primary.reachable,
      held: (key) => this.#primary.state?.get(key)?.spore,
      propose: (spore, expect, done) =>
        this.#primary.write(
          spore,
          { timeoutMs: PROPOSE_MS, ...(expect === undefined ? {} : { expect }) },
          (result) => done(result.ok ? result : { ...result, known: !OPEN_ENDS.has(result.code) }),
        ),
    };
    this.#primary.attestation.sink = {
      proven: (spore, proof) => void this.#latent.onProven(spore, proof),
      proofOf: (key, hash) => {
        const winner = this.#latent.table.get(key)?.winner;
        return winner?.proof?.tier === "primary" && equalBytes(winner.spore.hash, hash) ? winner.proof : undefined;
      },
    };
    this.#trust = new Trust(this.#ctx, options.entries, {
      agreed: (key) => this.#settled(key),
      say: (key, value, ttlMs) => void this.#latent.say(key, value, { ttlMs }),
      value: (key) => this.#latent.value(key),
      conduct: () => this.#latent.conduct,
      equivocations: () => this.#latent.evidence,
      leads: () => this.#primary.leader === this.nodeId,
    });
    this.#latent.watch("node/", (key) => this.#trust.reported(key), { keeps: false });
    this.#primary.tierOf = (nodeId) => this.#trust.tier(nodeId);
    this.#latent.distrusted = (nodeId) => !this.#trust.may(nodeId, "record").ok;
    this.#incidents = new IncidentKeeper(
      this.#ctx,
      options.entries,
      options.incidents ?? { dryRun: false, rules: [] },
      {
        removeNode: (nodeId, reason) => this.#registrar.removeNode(this.#findMember(nodeId), reason),
        revokeInvites: (sinceMs) => this.#registrar.revokeInvites(sinceMs),
      },
    );
    this.#links.avoided = (nodeId) => this.#incidents.isQuarantined(nodeId);
    this.#heads = new AuditHeads(this.#ctx, {
      say: (key, value) => void this.#latent.say(key, value, { refresh: true }),
      read: (key) => {
        const record = this.#latent.table.get(key)?.winner.spore.record;
        return record?.value && { seq: record.seq, value: record.value };
      },
      damaged: (nodeId, why) => this.#auditDamage(nodeId, why),
    });
    this.#agreement = new Agreement(this.#ctx, options.entries, {
      replica: () => {
        const held = this.#primary.state;
        return held && { index: held.index, links: held.agreed.links };
      },
      current: (key) => this.#settled(key),
      leader: () => this.#primary.leader,
      sink: this.#primary,
      publish: (body) => this.#broadcast.publish("agreement", body),
    });
    this.#broadcast.handle("agreement", (from, body) => this.#agreement.heard(from, body));
    this.#records = new AgreedRecords(this.#ctx, {
      state: () => this.#primary.state,
      law: () => this.#primary.law,
      latent: () =>
        this.#latent.table.list("agreed/", { max: LIMITS.agreedKeysMax + 1 })
          .map(({ key, winner }) => ({ key, spore: winner.spore, proof: winner.proof })),
    });
    this.#latent.watch("agreed/", () => this.#records.changed());
    this.#joinAgreement();
    this.#parts = [
      this.#incidents,
      this.#detector,
      this.#broadcast,
      this.#latent,
      this.#seeds,
      this.#primary,
      // Behind those that hold the records: it reads them when it starts.
      this.#access,
      this.#agreement,
      this.#records,
      this.#trust,
      // After the records: it begins with what stands there.
      this.#heads,
    ];
    this.#served = new Map(this.#parts.flatMap((part) => part.methods.map((method) => [method, part])));
    this.#answered = new Map(this.#parts.flatMap((part) => part.verbs.map((verb) => [verb, part])));
    this.#joiner = new Joiner(
      this.#ctx,
      this.#machine,
      this.#candidates,
      this.#exchange,
      this.#registrar,
      (stage) => {
        if (GREETING.has(stage)) this.#greetOpened();
        // Its addresses may have changed while it was registered with those that it had before.
        if (stage === "verified") this.#refreshSelf();
      },
    );
  }

  /** This node's id. */
  get nodeId(): string {
    return this.#ctx.state.nodeId;
  }

  /** Whether this node has been admitted to a network. */
  get isMember(): boolean {
    return this.#ctx.state.network?.credential !== undefined;
  }

  /** What the agent holds, to be looked at and not changed: the simulator's checkers read it after every step. */
  inspect(): AgentView {
    const { state, sessions } = this.#ctx;
    const { stage } = this.#machine;
    const primary = this.#primary;
    const broadcast = this.#broadcast;
    return {
      state,
      sessions,
      stage,
      candidates: this.#candidates.size,
      spores: this.#latent.table,
      agreement: this.#agreement,
      trust: this.#trust,
      get gossip() {
        return broadcast.view();
      },
      get primary() {
        return primary.view;
      },
    };
  }

  /** Who it is that asks, and whether he may: the entrances of the edge ask here, as those of the agent do. */
  get access(): Access {
    return this.#access;
  }

  /** Members that discovery may use as its cache: not this node, not removed, not gone for good. */
  knownMembers(): readonly Member[] {
    const { state } = this.#ctx;
    return state.members.all().filter((one) =>
      one.nodeId !== state.nodeId && !one.record.left && !state.revocations.get("node", one.publicKey)
    );
  }

  /** Reads a seed that was found, and says whether it counts; the event `seed` takes it in. */
  readSeed(content: Uint8Array): SeedReading {
    return this.#seeds.read(content);
  }

  /** Whose turn it is to publish seeds: issuers before this node; `undefined` where it is none itself. */
  seedTurn(): { readonly ahead: readonly string[] } | undefined {
    return this.#seeds.turn();
  }

  /** Public keys that speak for the network, as far as this node knows. */
  seedSigners(): readonly Uint8Array[] {
    const { state } = this.#ctx;
    const issuers = state.network?.chain?.issuers ?? [];
    return state.invite ? [...issuers, state.invite.grantEnvelope.signer] : issuers;
  }

  /** A page of the spore records that this node keeps, without their values. */
  spores(prefix: string, after?: string, max?: number): SporePage {
    return this.#partsStarted ? this.#latent.rows(prefix, after, max) : { rows: [] };
  }

  /** Takes one event and returns what to do, in order. */
  step(event: AgentEvent): AgentEffect[] {
    return this.steps([event]);
  }

  /** Takes events that have come together; regular work is done once, behind them. Returns what to do, in order. */
  steps(events: readonly AgentEvent[]): AgentEffect[] {
    const ctx = this.#ctx;
    ctx.effects = [];
    for (const event of events) {
      this.#tick(event.nowMs);
      this.#dispatch(event);
    }
    this.#work();
    this.#access.flush();
    const atMs = ctx.takeWake();
    if (atMs !== undefined) ctx.emit({ type: "wakeAt", atMs });
    return ctx.effects;
  }

  /** Takes in the time. Small steps back are evened out; a clock that was set back takes its plans with it. */
  #tick(nowMs: number): void {
    const ctx = this.#ctx;
    const backMs = ctx.nowMs - nowMs;
    if (backMs <= CLOCK_JITTER_MS) {
      ctx.nowMs = Math.max(ctx.nowMs, nowMs);
      return;
    }
    ctx.nowMs = nowMs;
    ctx.log("warn", "clock-set-back", `The clock was set back by ${Math.round(backMs / 1000)} s`, { backMs });
    this.#machine.clockSetBack(backMs);
    this.#exchange.clockSetBack();
    this.#registrar.clockSetBack();
    this.#keeper.clockSetBack();
    this.#links.clockSetBack();
    for (const part of this.#parts) part.clockSetBack();
  }

  /** The status document. */
  status(edge: EdgeView): Status {
    return statusOf({
      ctx: this.#ctx,
      machine: this.#machine,
      candidates: this.#candidates,
      registrar: this.#registrar,
      startedMs: this.#startedMs,
      edge,
      seeds: this.#seeds.view(),
      detection: this.#detector.status(),
      incidents: this.#incidents.status(),
      auditHeads: { published: this.#heads.published, watched: this.#heads.watched },
      ...(this.#partsStarted
        ? {
          spores: this.#latent.status(),
          primary: this.#primary.status(),
          agreement: this.#agreement.status(),
          agreed: this.#records.status(),
          gossip: this.#broadcast.status(),
          trust: this.#trust.status(),
        }
        : {}),
    });
  }

  #dispatch(event: AgentEvent): void {
    const ctx = this.#ctx;
    switch (event.type) {
      case "start":
        return this.#start(event.capabilities);
      case "wake":
        // Those that had failed may be tried again by now.
        if (this.#machine.joining) this.#joiner.noteCandidates();
        this.#joiner.feed({ type: "wake", nowMs: ctx.nowMs });
        return;
      case "addresses":
        ctx.addresses = event.addresses;
        return this.#refreshSelf();
      case "capabilities":
        ctx.capabilities = event.capabilities;
        return this.#refreshSelf();
      case "candidate":
        this.#addCandidate(event.candidate);
        return this.#joiner.noteCandidates();
      case "peer-up":
        return this.#peerUp(event.peer);
      case "peer-down":
        return this.#peerDown(event.nodeId, event.reason);
      case "peer-gone":
        return this.#gone(event.nodeId);
      case "dial-done":
        return ctx.dialDone(event.dialId, event.result);
      case "call-done":
        return ctx.callDone(event.callId, event.result);
      case "inbound":
        return this.#inbound(event);
      case "datagram":
        return this.#datagram(event.from, event.bytes);
      case "seed": {
        const taken = this.#seeds.take(event.content, event.from);
        if (!taken.ok) ctx.refuse(`seed-${taken.reason}`, event.from);
        return;
      }
      case "secret-exported":
        if (event.key !== KEYS.genesisSeed) return;
        ctx.state.genesisPair = undefined;
        return ctx.audit("genesis-exported", this.nodeId, `the genesis key was taken offline, to ${event.path}`);
      case "refused":
        // The driver has counted it.
        return this.#incidents.observe(`refused:${event.reason}`, event.from, "");
      case "audit-sealed":
        return this.#heads.sealed(event.head, event.kept);
      case "audit-damage":
        return this.#auditDamage(this.nodeId, event.why);
      case "incident-settings":
        return this.#incidents.configure(event.settings);
      case "control":
        return this.#control(event.controlId, event.request, event.by);
      default:
        return unreachable(event);
    }
  }

  /** Work that is due, whatever the event was. */
  #work(): void {
    const ctx = this.#ctx;
    if (!this.#started) return;
    if (this.#forgetAtMs !== undefined && ctx.nowMs >= this.#forgetAtMs) {
      this.#forgetAtMs = undefined;
      this.#clear();
    }
    for (const [nodeId, atMs] of this.#evictAtMs) {
      if (ctx.nowMs < atMs) continue;
      this.#evictAtMs.delete(nodeId);
      ctx.emit({ type: "hang-up", nodeId, reason: "revoked" });
    }
    const times = [this.#links.wake()];
    if (ctx.state.network?.chain && ctx.state.network.credential) {
      times.push(this.#exchange.wake(), this.#registrar.wake(), this.#keeper.wake());
      if (!this.#partsStarted) {
        this.#partsStarted = true;
        for (const part of this.#parts) part.start();
      }
      for (const part of this.#parts) times.push(part.wake());
    }
    this.#candidates.expire(ctx.nowMs);
    if (this.#forgetAtMs !== undefined) times.push(this.#forgetAtMs);
    times.push(...this.#evictAtMs.values());
    const joinMs = this.#machine.nextWakeMs();
    if (joinMs !== undefined) times.push(joinMs);
    // An address that waits for its next try wakes nobody by itself.
    const retryMs = this.#machine.joining ? this.#candidates.nextRetryMs(ctx.nowMs) : undefined;
    if (retryMs !== undefined) times.push(retryMs);
    const next = Math.min(...times);
    if (Number.isFinite(next)) ctx.wakeAt(next);
  }

  /** The audit log of a node is not what it was: said on this node, and for others to see. */
  #auditDamage(nodeId: string, why: string): void {
    this.#ctx.audit("audit-contradicted", this.nodeId, why, { target: nodeId, outcome: "failed" });
    this.#incidents.observe("log:damaged", nodeId, why);
  }

  #start(capabilities: Capabilities): void {
    const ctx = this.#ctx;
    const { state } = ctx;
    this.#started = true;
    this.#startedMs = ctx.nowMs;
    this.#exchange.startedMs = ctx.nowMs;
    ctx.capabilities = capabilities;
    this.#access.begin();
    ctx.persist([[KEYS.nodeSeed, state.keyPair.seed]]);
    if (state.unreadable.length > 0) {
      ctx.log(
        "error",
        "store-unreadable",
        `${state.unreadable.length} entries of the store cannot be read: ${state.unreadable.slice(0, 4).join(", ")}`,
      );
    }
    for (const address of ctx.config.addresses) this.#addForced(address);
    // A node that was killed while it joined has nothing else to go by where no source on its segment answers.
    for (const address of state.invite?.addresses ?? []) this.#addAddress(address, "invite");
    if (state.network && !state.network.credential && !state.invite) {
      ctx.log("error", "network-incomplete", "The store holds half of a network, which is of no use: it is forgotten");
      this.#clear();
    }
    if (!state.network) return;
    this.#startNetwork();
    if (state.mode === "isolated") return;
    if (state.network.credential && state.network.chain) {
      this.#exchange.renewedSelf({
        startedMs: ctx.nowMs,
        capabilities,
        version: ctx.config.version,
        left: false,
        drained: state.mode === "drained",
      });
      // An issuer is its own proof; everybody else has to find the others first.
      if (state.isIssuer) {
        this.#joiner.feed({ type: "start", plan: "form", nowMs: ctx.nowMs });
        this.#joiner.feed({ type: "advanced", to: "verified", nowMs: ctx.nowMs });
        return;
      }
      this.#joiner.feed({ type: "start", plan: "rejoin", nowMs: ctx.nowMs });
      return this.#joiner.noteCandidates();
    }
    if (!state.invite) return;
    this.#joiner.feed({ type: "start", plan: "join", nowMs: ctx.nowMs });
    this.#joiner.noteCandidates();
  }

  #startNetwork(): void {
    const { state } = this.#ctx;
    const network = state.network!;
    this.#ctx.emit({
      type: "start-network",
      seed: state.keyPair.seed,
      networkId: network.networkId,
      discoverySecret: network.discoverySecret,
      trusted: this.seedSigners(),
    });
  }

  /** Goes back to the start as a member: its chain was replaced, and with it who vouches for whom. */
  #rejoin(): void {
    const ctx = this.#ctx;
    for (const nodeId of ctx.sessions.keys()) {
      ctx.emit({ type: "hang-up", nodeId, reason: "the authority was replaced" });
    }
    this.#joiner.feed({ type: "override", action: "reset", nowMs: ctx.nowMs });
    this.#joiner.feed({ type: "start", plan: ctx.state.isIssuer ? "form" : "rejoin", nowMs: ctx.nowMs });
    if (ctx.state.isIssuer) this.#joiner.feed({ type: "advanced", to: "verified", nowMs: ctx.nowMs });
  }

  #refreshSelf(): void {
    const ctx = this.#ctx;
    const self = ctx.state.self;
    if (!self || !ctx.state.network?.credential || !ctx.capabilities) return;
    const addresses = ctx.addresses.slice(0, 16);
    const same = addresses.length === self.record.addresses.length &&
      addresses.every((one, i) => one === self.record.addresses[i]);
    const old = self.record.capabilities;
    // Free space changes all the time: only a change that matters is worth telling the network.
    const moved = Math.abs(old.diskFreeBytes - ctx.capabilities.diskFreeBytes) > old.diskBytes / 10;
    if (same && !moved && self.record.startedMs === this.#startedMs) return;
    this.#exchange.publishSelf({ addresses, capabilities: ctx.capabilities, startedMs: this.#startedMs });
  }

  #peerUp(peer: PeerView): void {
    const ctx = this.#ctx;
    if (ctx.state.revocations.get("node", peer.publicKey) && ctx.state.network?.chain) {
      // It may ask why, the answer to its hello says `revoked`; then the channel closes.
      this.#evictAtMs.set(peer.nodeId, ctx.nowMs + EVICT_MS);
      ctx.wakeAt(ctx.nowMs + EVICT_MS);
      ctx.log("info", "revoked-node", `A removed node connected: ${shortNodeId(peer.nodeId)}`, { node: peer.nodeId });
    }
    if (this.#incidents.isQuarantined(peer.nodeId)) {
      return ctx.emit({ type: "hang-up", nodeId: peer.nodeId, reason: "quarantined" });
    }
    ctx.sessions.set(peer.nodeId, { peer, member: false, introduced: false });
    const dialled = peer.direction === "outbound";
    if (dialled && ctx.state.network?.credential && GREETING.has(this.#machine.stage)) {
      this.#exchange.greet(peer.nodeId);
    }
    if (this.#machine.joining && ctx.state.network?.credential && ctx.state.mode !== "isolated") {
      // Whoever of the two dialed, and for whatever purpose: here is somebody to come back by.
      this.#joiner.feed({ type: "contact", nodeId: peer.nodeId, nowMs: ctx.nowMs });
    }
  }

  /** Channels that were opened from here before this node could show itself to their other ends. */
  #greetOpened(): void {
    const { stage, contact } = this.#machine;
    for (const [nodeId, session] of this.#ctx.sessions) {
      // The node that it joins by hears of it from the joiner.
      if (stage === "verifying" && nodeId === contact) continue;
      // One that was removed would ask all of them again each time that one of them has said so.
      if (this.#exchange.refusedBy(nodeId)) continue;
      if (session.peer.direction === "outbound" && !session.introduced) this.#exchange.greet(nodeId);
    }
  }

  /** The machine of a node says that its process is gone. Members are pinged before that counts; a join does not wait. */
  #gone(nodeId: string): void {
    if (this.#machine.joining && this.#machine.contact === nodeId) {
      return this.#ctx.emit({ type: "hang-up", nodeId, reason: "gone" });
    }
    this.#detector.gone(nodeId);
  }

  #peerDown(nodeId: string, reason: string): void {
    const ctx = this.#ctx;
    const session = ctx.sessions.get(nodeId);
    ctx.sessions.delete(nodeId);
    this.#early.delete(nodeId);
    this.#exchange.closed(nodeId);
    if (this.#partsStarted) { for (const part of this.#parts) part.sessionDown?.(nodeId, reason); }
    this.#links.closed(nodeId, session?.member ?? false);
    this.#evictAtMs.delete(nodeId);
    if (session?.member) {
      ctx.log("info", "member-lost", `The channel to ${this.#nameOf(nodeId)} closed: ${reason}`, { node: nodeId });
    }
    const busy = ["authenticating", "registering", "handoff", "verifying"].includes(this.#machine.stage);
    if (busy && this.#machine.contact === nodeId) {
      this.#joiner.feed({
        type: "failed",
        code: "unreachable",
        tried: session?.peer.remoteAddress ?? nodeId,
        nowMs: ctx.nowMs,
      });
    }
  }

  #connectivity(reachable: boolean): void {
    const before = this.#machine.stage;
    this.#joiner.feed({ type: "connectivity", reachable, nowMs: this.#ctx.nowMs });
    if (before !== this.#machine.stage) {
      this.#ctx.log("info", "connectivity", reachable ? "Other members are reachable" : "No other member is reachable");
    }
  }

  #changed(what: "member" | "authority" | "revocation" | "session" | "expelled"): void {
    if (what === "expelled") {
      return this.#joiner.feed({ type: "expelled", tried: "an issuer said so", nowMs: this.#ctx.nowMs });
    }
    this.#keeper.nudge();
    this.#ctx.wakeAt(this.#ctx.nowMs);
    if (what === "session") this.#ctx.log("debug", "session", "A member session changed");
  }

  #inbound(event: AgentEvent & { readonly type: "inbound" }): void {
    const ctx = this.#ctx;
    const { inboundId, peer, method } = event;
    try {
      if (method === "exec") return this.#exec(event);
      const member = ctx.sessions.get(peer.nodeId)?.member ?? false;
      this.#incidents.admit(peer, member, method);
      this.#admit(peer.nodeId, member, method);
      if (ctx.state.mode === "isolated") throw new Refusal("isolated", "an operator has isolated this node");
      if (member) {
        ctx.state.members.noteSeen(peer.nodeId, ctx.nowMs);
        this.#detector.heard(peer.nodeId);
      }
      const before = ctx.effects.length;
      const answer = this.#serve(peer, method, decodeCbor(event.body), inboundId);
      if (answer !== DEFERRED) ctx.reply(inboundId, answer, before);
    } catch (error) {
      if (error instanceof Refusal) {
        ctx.emit({ type: "reply-error", inboundId, code: error.code, message: error.message });
      } else if (error instanceof WireError) {
        ctx.refuse("bad-request", peer.remoteAddress);
        ctx.emit({ type: "reply-error", inboundId, code: "bad-request", message: error.message });
      } else throw error;
    }
  }

  /** Asks whether a node may call a method. @throws {Refusal} */
  #admit(nodeId: string, member: boolean, method: string): void {
    const known = isMethod(method);
    if (!known && member) throw new Refusal("unknown-method", `no method "${method}"`);
    const subject = member ? this.#asNode(nodeId) : ANYONE;
    const decision = known ? this.#access.authorize(subject, METHOD_NEEDS[method]) : undefined;
    if (decision?.ok) return;
    // A stranger is told one thing, whether there is such a method or not.
    if (!member || !decision) throw new Refusal("not-a-member", "show a credential first: session.hello");
    throw new Refusal(decision.reason, decision.message, decision.cure);
  }

  #asNode(nodeId: string): Subject {
    return { kind: "node", id: nodeId, name: nodeId, secondFactor: "none" };
  }

  /** Datagrams of members go to the part whose number stands first in them. */
  #datagram(from: string, bytes: Uint8Array): void {
    const ctx = this.#ctx;
    const session = ctx.sessions.get(from);
    if (!session || !this.#partsStarted || ctx.state.mode === "isolated") return;
    if (!session.member) {
      // It has seen this node's credential, and its own is on the way: a graft that was lost here would leave it with a
      // link that nothing ever comes over.
      const early = this.#early.get(from) ?? [];
      if (early.length < LIMITS.earlyDatagramsMax) this.#early.set(from, [...early, bytes]);
      return;
    }
    const part = this.#parts.find((one) => one.datagramKind !== undefined && one.datagramKind === bytes[0]);
    try {
      if (!part?.datagram) return ctx.refuse("bad-datagram", from);
      ctx.state.members.noteSeen(from, ctx.nowMs);
      if (part !== this.#detector) this.#detector.heard(from);
      part.datagram(from, bytes.subarray(1));
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      ctx.refuse("bad-datagram", from);
    }
  }

  #serve(peer: PeerView, method: string, body: CborValue, inboundId: number): CborValue | typeof DEFERRED {
    const ctx = this.#ctx;
    switch (method) {
      case "session.hello":
        return this.#exchange.hello(peer, body);
      case "join.hello":
        return this.#registrar.hello(peer, body);
      case "join.register":
        return this.#registrar.register(peer, body, inboundId);
      case "invite.reserve":
        return this.#registrar.reserve(peer, body);
      case "renew":
        if (!ctx.state.network?.chain) throw new Refusal("not-a-member", "this node is joining itself");
        return this.#registrar.renew(peer, body);
      case "push":
        return this.#exchange.push(peer, body);
      case "sync":
        return this.#exchange.sync(body);
      case "seen": {
        const { n } = readSeen(body, "seen");
        const member = ctx.state.members.get(n);
        return {
          seen: member && (n === this.nodeId || ctx.sessions.get(n)?.member) ? 1 : 0,
          seq: member?.record.seq ?? 0,
        };
      }
      case "authority.sign":
        return this.#keeper.sign(peer, body);
      case "assign":
        return this.#assign(body);
      case "status.report":
        return this.#report();
      default: {
        const part = this.#served.get(method);
        if (!part) throw new Refusal("unknown-method", `no method "${method}"`);
        if (!this.#partsStarted) throw new Refusal("not-a-member", "this node is joining itself");
        return part.serve(peer, method, body, inboundId);
      }
    }
  }

  /** Serves `status.report`: the node's own summary, for the one who manages it. */
  #report(): CborValue {
    const { state, nowMs } = this.#ctx;
    return {
      seq: state.self?.record.seq ?? 0,
      stage: this.#machine.stage,
      mode: state.mode,
      up: nowMs - this.#startedMs,
      members: state.members.size,
      channels: this.#ctx.sessions.size,
      epoch: state.network?.chain?.epoch ?? 0,
      profile: state.network?.profile?.profile.seq ?? 0,
      assignments: [...state.assignments.values()].map(({ assignment }) => ({
        id: assignment.id,
        seq: assignment.seq,
        state: assignment.action === "stop" ? "stopped" : "waiting",
      })),
    };
  }

  /** Serves `assign`: an issuer's word that this node shall run a service. */
  #assign(body: CborValue): CborValue {
    const ctx = this.#ctx;
    const { state } = ctx;
    const { a } = record({ a: readEnvelope })(body, "assign");
    const assignment = openAssignment(a, state.networkId);
    if (!state.network!.chain!.counts(a.signer)) {
      throw new Refusal("unknown-issuer", "the assignment is not signed by an issuer");
    }
    if (nodeIdOf(assignment.node) !== this.nodeId) {
      throw new Refusal("wrong-subject", "the assignment is for another node");
    }
    if (state.mode === "safe" || state.mode === "drained") {
      throw new Refusal("drained", `this node takes no work: it is in ${state.mode} mode`);
    }
    const known = state.assignments.get(assignment.id);
    if (known && known.assignment.seq >= assignment.seq) return { seq: known.assignment.seq, state: "kept" };
    if (!known && state.assignments.size >= 1_000) throw new Refusal("full", "too many assignments");
    // A stop is kept as well: an older word to run, sent again by whoever, must not undo it.
    state.assignments.set(assignment.id, { assignment, envelope: a });
    ctx.persist([[KEYS.assignment(assignment.id), envelopeBytes(a)]]);
    ctx.audit(
      "assignment",
      nodeIdOf(a.signer),
      `${assignment.action} ${assignment.service} (${assignment.id}, ${assignment.seq})`,
    );
    return { seq: assignment.seq, state: assignment.action === "stop" ? "stopped" : "waiting" };
  }

  /** Serves `exec`: commands of an operator, whatever state this node is in. */
  #exec(event: AgentEvent & { readonly type: "inbound" }): void {
    const ctx = this.#ctx;
    const genesis = ctx.state.network?.genesis?.record;
    const member = ctx.sessions.get(event.peer.nodeId)?.member ?? false;
    this.#incidents.admit(event.peer, member, event.method);
    this.#admit(event.peer.nodeId, false, event.method);
    if (!genesis) {
      return ctx.emit({
        type: "reply-error",
        inboundId: event.inboundId,
        code: "not-a-member",
        message: "this node knows no operator yet",
      });
    }
    const checked = this.#gate.check(event.body, {
      networkId: ctx.state.networkId,
      isOperator: (key) => this.#access.isOperator(key),
      nodeKey: ctx.state.keyPair.publicKey,
      nowMs: ctx.nowMs,
    });
    const refused = checked.ok ? this.#mayCommand(checked.signer, checked.command.verb) : checked.reason;
    if (!checked.ok || refused) {
      const reason = refused ?? "command-not-allowed";
      ctx.refuse(reason, event.peer.remoteAddress);
      // What the operator did not sign anybody can send: it is counted, and worth no entry on disk.
      const signed = reason !== "command-forged" && reason !== "command-not-operator";
      if (signed) ctx.auditBounded("command-refused", event.peer.nodeId, reason);
      return ctx.emit({
        type: "reply-error",
        inboundId: event.inboundId,
        code: reason,
        message: `the command is refused: ${reason}`,
      });
    }
    ctx.audit("command", event.peer.nodeId, checked.command.verb);
    // Remembered before it is carried out: a command counts once, over a restart as well.
    ctx.persist([
      [KEYS.nonce(checked.nonce), encodeCbor(checked.command.expiresMs)],
      ...checked.expired.map((nonce): Put => [KEYS.nonce(nonce), null]),
    ]);
    ctx.emit({ type: "run-command", inboundId: event.inboundId, command: checked.command, by: event.peer.nodeId });
  }

  /** Whether who signed a command may have it carried out here. */
  #mayCommand(signer: Uint8Array, verb: CommandVerb): "command-not-allowed" | undefined {
    const self = this.#ctx.state.self?.membership.name ?? this.#ctx.config.name;
    const decision = this.#access.authorize(this.#access.signer(signer), commandNeed(verb, self));
    return decision.ok ? undefined : "command-not-allowed";
  }

  #control(controlId: number, request: ControlRequest, by: Subject): void {
    const ctx = this.#ctx;
    ctx.by = by;
    try {
      this.#access.demand(by, controlNeed(request));
      const value = this.#answer(controlId, request);
      if (value === DEFERRED) return;
      const reply = { type: "control-reply", controlId, result: { ok: true, value } } as const;
      const persist = ctx.effects.findLast((one) => one.type === "persist");
      if (persist?.type === "persist") (persist.then as AgentEffect[]).push(reply);
      else ctx.emit(reply);
    } catch (error) {
      if (!(error instanceof Refusal) && !(error instanceof WireError)) throw error;
      const code = error instanceof Refusal ? error.code : "bad-request";
      const cure = error instanceof Refusal ? error.cure : "";
      ctx.emit({
        type: "control-reply",
        controlId,
        result: { ok: false, error: { code, message: error.message, cure } },
      });
    } finally {
      ctx.by = SELF;
    }
  }

  #answer(controlId: number, asked: ControlRequest): unknown {
    const ctx = this.#ctx;
    const { state } = ctx;
    const part = this.#answered.get(asked.verb);
    if (part) {
      // Who asks for who he is need not belong to a network.
      if (part !== this.#access) this.#needNetwork();
      return part.answer(controlId, asked);
    }
    const request = asked as CoreRequest;
    switch (request.verb) {
      case "init":
        return this.#form(request.name, request.approval);
      case "join":
        return this.#accept(request.invite);
      case "invite-create":
        this.#needNetwork();
        return this.#registrar.createInvite(request);
      case "invite-revoke":
        this.#needNetwork();
        return this.#registrar.revokeInvite(request.id);
      case "node-approve":
      case "node-deny": {
        const pending = this.#findPending(request.node);
        this.#registrar.decide(
          pending,
          request.verb === "node-approve" ? "approved" : "denied",
          request.verb === "node-deny" ? request.reason ?? "" : "",
        );
        return { nodeId: pending };
      }
      case "node-remove": {
        const member = this.#findMember(request.node);
        if (member.nodeId === this.nodeId) {
          throw new Refusal(
            "own-node",
            "Cannot remove this node from itself",
            "Run on another issuer, or on this node: mycelium exec leave --on " + member.membership.name,
          );
        }
        if (request.dryRun) return { nodeId: member.nodeId, name: member.membership.name, removed: false };
        this.#registrar.removeNode(member, request.reason ?? "removed by an operator");
        return { nodeId: member.nodeId, name: member.membership.name, removed: true };
      }
      case "bootstrap-retry":
        this.#joiner.feed({ type: "override", action: "retry", nowMs: ctx.nowMs });
        return { stage: this.#machine.stage };
      case "bootstrap-reset":
        return this.#reset(request.dryRun ?? false);
      case "bootstrap-force-endpoint":
        this.#addForced(request.address);
        // Whoever names it wants it tried now, however often it failed before.
        this.#candidates.forgive(request.address);
        this.#joiner.feed({ type: "override", action: "retry", nowMs: ctx.nowMs });
        this.#joiner.noteCandidates();
        return { stage: this.#machine.stage };
      case "genesis-export":
        if (!state.genesisPair) {
          throw new Refusal(
            "not-found",
            "Cannot export the genesis key: it is not on this node",
            "It stays with the founder until it is taken offline",
          );
        }
        if (request.dryRun) return { path: request.path, exported: false };
        // Taken out of memory once it is safe where it was wanted: a full stick must not cost the key.
        ctx.emit({ type: "export-secret", controlId, key: KEYS.genesisSeed, path: request.path });
        return DEFERRED;
      case "authority-recover": {
        this.#needNetwork();
        const pair = request.genesisSeed ? keyPairFromSeed(request.genesisSeed) : state.genesisPair;
        if (!pair || hex(pair.publicKey) !== hex(state.network!.genesis!.record.genesisKey)) {
          throw new Refusal(
            "no-genesis-key",
            "Cannot recover the authority: this is not the genesis key of the network",
            "Name the file that holds it",
          );
        }
        const without = request.without.map((node) => this.#findMember(node).publicKey);
        const { epoch } = state.network!.chain!;
        this.#keeper.recover(pair, without);
        return { epoch: epoch + 1, issuers: state.network!.chain!.issuers.map(nodeIdOf) };
      }
      case "assign":
        return this.#giveAssignment(controlId, request);
      case "sign-command":
        return this.#signCommand(request);
      case "set-mode":
        return this.#setMode(request.mode);
      case "leave":
        this.#needNetwork();
        this.#exchange.publishSelf({ left: true });
        ctx.audit("left", this.nodeId, "this node leaves the network");
        // The others hear of it first; then this node forgets the network.
        this.#forgetAtMs = ctx.nowMs + FAREWELL_MS;
        return { left: true };
      default:
        return unreachable(request);
    }
  }

  /** Founds a network with this node as its first issuer. */
  #form(name: string, approval: boolean): unknown {
    const ctx = this.#ctx;
    const { state, entropy } = ctx;
    if (state.network) {
      throw new Refusal(
        "has-network",
        "Cannot form a network: this node has one already",
        "To start over: mycelium bootstrap reset",
      );
    }
    if (!/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(name)) {
      throw new Refusal("bad-request", `Cannot form network "${name}": wanted lower-case letters, digits and dashes`);
    }
    const [genesisPair, operatorPair] = [keyPairFromSeed(entropy.bytes(32)), keyPairFromSeed(entropy.bytes(32))];
    const discoverySecret = entropy.bytes(32);
    const genesis = {
      name,
      genesisKey: genesisPair.publicKey,
      operatorKey: operatorPair.publicKey,
      createdMs: ctx.nowMs,
      nonce: entropy.bytes(16),
    };
    const { networkId, envelope } = createGenesis(genesis, genesisPair);
    const payload = encodeEpoch({
      epoch: 1,
      previous: new Uint8Array(32),
      issuers: [state.keyPair.publicKey],
      createdMs: ctx.nowMs,
    });
    const signed = { payload, signatures: [signEpoch(networkId, payload, genesisPair)] };
    const chain = AuthorityChain.empty(networkId, genesisPair.publicKey).extended(signed);
    const profile = { seq: 1, name, approval, issuedMs: ctx.nowMs };
    const profileEnvelope = sealProfile(profile, networkId, state.keyPair);
    state.genesisPair = genesisPair;
    state.operatorPair = operatorPair;
    state.network = {
      networkId,
      discoverySecret,
      genesis: { record: genesis, envelope },
      chain,
      profile: { profile, envelope: profileEnvelope },
    };
    this.#joiner.feed({ type: "start", plan: "form", nowMs: ctx.nowMs });
    // The founder serves whatever its machine can do: somebody has to be the first issuer.
    const credentialEnvelope = this.#registrar.issueSelf("sclerotium", ctx.config.pool, ctx.config.name);
    state.network.credential = {
      credential: openCredential(credentialEnvelope, networkId),
      envelope: credentialEnvelope,
    };
    state.seq = ctx.nowMs;
    const recordEnvelope = sealMember(
      {
        seq: state.seq,
        name: ctx.config.name,
        role: "sclerotium",
        addresses: ctx.addresses.slice(0, 16),
        capabilities: ctx.capabilities!,
        version: ctx.config.version,
        startedMs: this.#startedMs,
        left: false,
        drained: false,
      },
      networkId,
      state.keyPair,
    );
    const row = openRow({ m: recordEnvelope, c: credentialEnvelope }, networkId);
    state.members.merge(row);
    const puts: Put[] = [
      [KEYS.genesisSeed, genesisPair.seed],
      [KEYS.operatorSeed, operatorPair.seed],
      [KEYS.discoverySecret, encodeCbor({ n: networkId, d: discoverySecret })],
      [KEYS.genesis, envelopeBytes(envelope)],
      [KEYS.epoch(1), epochBytes(signed)],
      [KEYS.credential, envelopeBytes(credentialEnvelope)],
      [KEYS.profile, envelopeBytes(profileEnvelope)],
      [KEYS.member(state.nodeId), encodeCbor(rowValue(row))],
      [KEYS.self, encodeCbor(state.seq)],
    ];
    ctx.persist(puts, () => this.#startNetwork());
    ctx.audit("network-formed", state.nodeId, name);
    this.#joiner.feed({ type: "advanced", to: "verified", nowMs: ctx.nowMs });
    return { networkId: hex(networkId), name, nodeId: state.nodeId };
  }

  /** Starts joining by an invite. */
  #accept(token: string): unknown {
    const ctx = this.#ctx;
    const { state } = ctx;
    const invite = parseInvite(token);
    const same = state.network && hex(state.network.networkId) === hex(invite.networkId);
    if (state.network?.credential) {
      if (same) return { networkId: hex(invite.networkId), stage: this.#machine.stage, already: true };
      throw new Refusal(
        "has-network",
        "Cannot join: this node is a member of another network",
        "To leave it: mycelium bootstrap reset",
      );
    }
    if (state.network && !same) this.#clear();
    const fresh = !state.network;
    state.invite = invite;
    state.network ??= { networkId: invite.networkId, discoverySecret: invite.discoverySecret };
    for (const address of invite.addresses) this.#addAddress(address, "invite");
    ctx.persist([
      [KEYS.invite, new TextEncoder().encode(formatInvite(invite))],
      [KEYS.discoverySecret, encodeCbor({ n: invite.networkId, d: invite.discoverySecret })],
    ], () => fresh ? this.#startNetwork() : undefined);
    this.#joiner.feed({ type: "start", plan: "join", nowMs: ctx.nowMs });
    this.#joiner.noteCandidates();
    return { networkId: hex(invite.networkId), stage: this.#machine.stage };
  }

  /** Forgets the network; the node's key stays. */
  #reset(dryRun: boolean): unknown {
    const ctx = this.#ctx;
    const { state } = ctx;
    const lost = {
      network: state.network?.genesis?.record.name ?? null,
      members: state.members.size,
      genesisKey: state.genesisPair !== undefined,
      operatorKey: state.operatorPair !== undefined,
    };
    if (dryRun) return { ...lost, reset: false };
    this.#clear();
    ctx.audit("bootstrap-reset", this.nodeId, `forgot ${lost.network ?? "no network"}`);
    return { ...lost, reset: true };
  }

  #clear(): void {
    const ctx = this.#ctx;
    const { state } = ctx;
    const network = state.network;
    const keys: string[] = [
      KEYS.genesisSeed,
      KEYS.operatorSeed,
      KEYS.discoverySecret,
      KEYS.invite,
      KEYS.genesis,
      KEYS.credential,
      KEYS.profile,
      KEYS.stage,
      KEYS.signedEpoch,
      KEYS.mode,
      ...Array.from({ length: network?.chain?.epoch ?? 0 }, (_, i) => KEYS.epoch(i + 1)),
      ...state.members.all().map((one) => KEYS.member(one.nodeId)),
      ...[...state.revocations.entries()].map(([name]) => KEYS.revocation(name)),
      ...[...state.grants.values()].map((one) => KEYS.grant(one.grant.id)),
      ...[...state.pending.keys()].map(KEYS.pending),
      ...[...state.assignments.keys()].map(KEYS.assignment),
      ...[...state.uses].flatMap(([id, nodes]) => [...nodes].map((nodeId) => KEYS.use(fromHex(id)!, nodeId))),
    ];
    for (const part of this.#parts) {
      keys.push(...part.keys());
      part.clear();
    }
    this.#partsStarted = false;
    ctx.persist(keys.map((key) => [key, null]), () => ctx.emit({ type: "stop-network" }));
    state.forgetNetwork();
    ctx.sessions.clear();
    this.#early.clear();
    ctx.forgetCalls();
    this.#joiner.feed({ type: "override", action: "reset", nowMs: ctx.nowMs });
  }

  #setMode(mode: Mode): unknown {
    const ctx = this.#ctx;
    const before = ctx.state.mode;
    ctx.state.mode = mode;
    ctx.persist([[KEYS.mode, encodeCbor(mode)]]);
    ctx.audit("mode", this.nodeId, `${before} -> ${mode}`);
    if (mode === "isolated") {
      for (const nodeId of ctx.sessions.keys()) {
        ctx.emit({ type: "hang-up", nodeId, reason: "isolated by an operator" });
      }
      this.#joiner.feed({ type: "override", action: "reset", nowMs: ctx.nowMs });
    }
    if ((mode === "drained") !== (before === "drained") && mode !== "isolated") {
      this.#exchange.publishSelf({ drained: mode === "drained" });
    }
    if (before === "isolated" && mode !== "isolated" && ctx.state.network) {
      this.#joiner.feed({ type: "start", plan: ctx.state.network.credential ? "rejoin" : "join", nowMs: ctx.nowMs });
      if (ctx.state.isIssuer) this.#joiner.feed({ type: "advanced", to: "verified", nowMs: ctx.nowMs });
    }
    return { mode, before };
  }

  #signCommand(request: ControlRequest & { readonly verb: "sign-command" }): unknown {
    const ctx = this.#ctx;
    const { state } = ctx;
    this.#needNetwork();
    if (!state.operatorPair) {
      throw new Refusal(
        "no-operator-key",
        "Cannot sign a command: this node holds no operator key",
        "Run it on the founder, or copy secret/operator.key there with mode 0600 and restart",
      );
    }
    const verb = COMMAND_VERBS.find((one) => one === request.command);
    if (!verb) {
      throw new Refusal("bad-request", `Cannot run "${request.command}": wanted one of ${COMMAND_VERBS.join(", ")}`);
    }
    const member = this.#findMember(request.node);
    const envelope = sealCommand(
      {
        verb: verb as CommandVerb,
        args: new Map(Object.entries(request.args)),
        target: member.publicKey,
        issuedMs: ctx.nowMs,
        expiresMs: ctx.nowMs + request.ttlMs,
        nonce: ctx.entropy.bytes(16),
      },
      state.networkId,
      state.operatorPair,
    );
    ctx.audit("command-signed", this.nodeId, `${verb} for ${member.membership.name}`);
    return {
      nodeId: member.nodeId,
      body: encodeCbor(commandBody(envelope)),
      connected: ctx.sessions.has(member.nodeId),
      addresses: member.record.addresses,
    };
  }

  #giveAssignment(controlId: number, request: ControlRequest & { readonly verb: "assign" }): unknown {
    const ctx = this.#ctx;
    const { state } = ctx;
    this.#needNetwork();
    if (!state.isIssuer) {
      throw new Refusal("not-issuer", "Cannot assign a service: this node is not an issuer", "Run it on a Sclerotium");
    }
    const member = this.#findMember(request.node);
    const envelope = sealAssignment(
      {
        id: request.id,
        seq: ctx.nowMs,
        service: request.service,
        node: member.publicKey,
        action: request.action,
        spec: encodeCbor({}),
        issuedMs: ctx.nowMs,
      },
      state.networkId,
      state.keyPair,
    );
    const body = { a: { t: envelope.type, p: envelope.payload, k: envelope.signer, s: envelope.signature } };
    if (member.nodeId === this.nodeId) return this.#assign(body);
    ctx.call(member.nodeId, "assign", body, 10_000, (result) => {
      const reply = result.ok ? { ok: true, value: result.body } as const : {
        ok: false,
        error: {
          code: result.code,
          message: `Cannot assign to ${member.membership.name}: ${result.message}`,
          cure: "Check: mycelium peers",
        },
      } as const;
      ctx.emit({ type: "control-reply", controlId, result: reply });
    });
    return DEFERRED;
  }

  /** QUIC needs to know who answers; where nobody said, TCP on the same port finds out. */
  #addCandidate(candidate: Candidate): void {
    const parsed = parseAddress(candidate.address);
    const blind = parsed?.transport === "quic" && parsed.nodeId === undefined;
    this.#candidates.add(blind ? { ...candidate, address: formatAddress({ ...parsed, transport: "tcp" }) } : candidate);
  }

  #addForced(address: string): void {
    this.#addAddress(address, "config");
  }

  #addAddress(address: string, source: "config" | "invite"): void {
    this.#addCandidate({
      address,
      source,
      authority: AUTHORITY[source],
      seenMs: this.#ctx.nowMs,
      expiresMs: NEVER_MS,
      verification: "unverified",
    });
  }

  /** Agreement with those that make use of it. */
  #joinAgreement(): void {
    const agreement = this.#agreement;
    this.#primary.changed = (spore) => agreement.stands(spore);
    this.#latent.watch("agreed/", (key) => {
      const spore = this.#settled(key);
      if (spore) agreement.stands(spore);
    });
    agreement.weigh = (electors, nowMs) => this.#trust.weigh(electors, nowMs).map((one) => one.weightPpm);
    agreement.facts = (facts) => this.#trust.facts(facts);
    agreement.evidence = (evidence) => this.#trust.evidence(evidence);
    agreement.taken = (decision) => this.#records.decided(decision);
    this.#records.mismatch = ({ by }) => by.forEach((nodeId) => this.#trust.observe(nodeId, "invalid"));
    agreement.certified = (certificate, table) => this.#trust.certificate(certificate, table);
    agreement.policyClass = (key) => this.#trust.classOf(key);
    agreement.rule(TRUST_KEY, ({ spore }) => {
      const { key, value } = spore.record;
      const verdict = key === TRUST_KEY && value !== undefined && this.#trust.checkUpdate(value, spore.author);
      return verdict === undefined ? "later" : verdict ? "accept" : "refuse";
    });
    agreement.rule(POLICY_KEY, ({ put, spore, current }) => {
      const { key, value, issuedMs } = spore.record;
      if (key !== POLICY_KEY || value === undefined || !this.#trust.checkPolicy(value)) return "refuse";
      return this.#access.judge({ key, value, issuedMs, currentMs: current?.record.issuedMs }, put.proofs);
    });
    this.#trust.agreement = {
      table: () => agreement.chain?.electorate.table,
      tableOf: (hash) => agreement.chain?.table(hash),
      put: (key, value, replaces, done) =>
        agreement.operations.put(
          {
            key,
            value,
            expect: replaces,
            lane: "trust",
            // Scores follow from proofs; what counts as enough is for a person to say.
            ...(key === POLICY_KEY ? { proofs: [this.#access.signChange(key, value)] } : {}),
          },
          (result) => done({ ok: result.ok, code: result.ok ? "ok" : result.code }),
        ),
    };
    this.#trust.prepare = (key, value) => this.#access.prepareChange(key, value);
    for (const prefix of [ROLE_PREFIX, BINDING_PREFIX]) {
      agreement.rule(prefix, ({ put, spore, current }) => {
        const { key, value, issuedMs } = spore.record;
        return this.#access.judge({ key, value, issuedMs, currentMs: current?.record.issuedMs }, put.proofs);
      });
      this.#latent.watch(prefix, (key) => this.#access.changed(key));
    }
    this.#access.records = {
      current: (key) => this.#settled(key)?.record,
      keys: (prefix) => this.#latent.table.keys(prefix),
      write: ({ key, value, proof }, done) =>
        agreement.operations.put(
          { key, value, proofs: [proof], lane: "access" },
          (result) => done(result.ok ? undefined : { code: result.code, message: result.message, cure: "" }),
        ),
    };
  }

  /** What the primaries have agreed on under a key, as far as this node knows. */
  #settled(key: string): Spore | undefined {
    const held = this.#primary.state?.get(key)?.spore;
    const winner = this.#latent.table.get(key)?.winner;
    const heard = winner?.proof?.tier === "primary" && !this.#records.isWrong(key, winner.spore.hash)
      ? winner.spore
      : undefined;
    return held && heard ? (heard.record.seq > held.record.seq ? heard : held) : held ?? heard;
  }

  #needNetwork(): void {
    if (this.#ctx.state.network?.credential) return;
    throw new Refusal(
      "no-network",
      "This node is not a member of a network yet",
      "Form one: mycelium init; or join one: mycelium join <invite>",
    );
  }

  /** A member by full id, unique end of an id, or name. */
  #findMember(wanted: string): Member {
    this.#needNetwork();
    const all = this.#ctx.state.members.all();
    const found = publicKeyOf(wanted)
      ? all.filter((one) => one.nodeId === wanted)
      : all.filter((one) => one.membership.name === wanted || wanted.length >= 4 && one.nodeId.endsWith(wanted));
    if (found.length === 1) return found[0]!;
    throw new Refusal(
      found.length === 0 ? "not-found" : "ambiguous",
      `Cannot find node "${wanted}": ${found.length} members match`,
      "List them: mycelium node list",
    );
  }

  #findPending(wanted: string): string {
    this.#needNetwork();
    const found = [...this.#ctx.state.pending.values()].filter((one) =>
      one.nodeId === wanted || one.record.name === wanted || wanted.length >= 4 && one.nodeId.endsWith(wanted)
    );
    if (found.length === 1) return found[0]!.nodeId;
    throw new Refusal(
      found.length === 0 ? "not-found" : "ambiguous",
      `Cannot find a waiting node "${wanted}": ${found.length} match`,
      "List them: mycelium node list",
    );
  }

  /** Whether a channel to an issuer is open: it knows who leads. */
  #issuerIsNear(): boolean {
    const chain = this.#ctx.state.network?.chain;
    return [...this.#ctx.sessions.values()].some((one) => one.member && chain?.isIssuer(one.peer.publicKey));
  }

  #nameOf(nodeId: string): string {
    return this.#ctx.state.members.get(nodeId)?.membership.name ?? shortNodeId(nodeId);
  }
}

/** Time for the primaries to agree on a record, before it is told without their word. */
const PROPOSE_MS = 3_000;
/** Ends of a write after which it may still have happened. */
const OPEN_ENDS: ReadonlySet<string> = new Set(["timeout", "session-unknown"]);

/** Steps back of the clock that are no setting of it. */
const CLOCK_JITTER_MS = 2_000;

/** Time for a removed node to ask why it is refused. */
const EVICT_MS = 1_000;

/** Time for the others to hear that this node leaves. */
const FAREWELL_MS = 1_500;
