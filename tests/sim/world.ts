/**
 * A world of whole agents in one process: network, disks, clocks and discovery are simulated, all from one seed.
 *
 * What the real edges promise holds here as well: one channel per pair of nodes, authenticated on both ends; a
 * call is answered once or fails; what was persisted is there after a crash and nothing else is; a timer fires
 * no earlier than asked. What they do not promise is withheld: calls overtake each other, packets need to be sent
 * again, links go down in one direction, hosts die between two effects of one step.
 *
 * @module
 */

import { LOCAL } from "../../src/agent/access.ts";
import { Agent, type AgentView } from "../../src/agent/agent.ts";
import type { SignedCommand } from "../../src/agent/commands.ts";
import type { AgentConfig } from "../../src/agent/context.ts";
import type { ControlError, ControlRequest } from "../../src/agent/control.ts";
import type { AgentEffect, AgentEvent, CallFailure, PeerView } from "../../src/agent/effects.ts";
import type { Status } from "../../src/agent/status.ts";
import { AUTHORITY, type CandidateSource, NEVER_MS, type Verification } from "../../src/bootstrap/candidates.ts";
import { toHex, utf8 } from "../../src/core/bytes.ts";
import type { Capabilities } from "../../src/core/capabilities.ts";
import { encodeCbor } from "../../src/core/codec.ts";
import { type KeyPair, sha256 } from "../../src/core/crypto.ts";
import { nodeIdOf, parseAddress, publicKeyOf } from "../../src/core/ids.ts";
import { type Entropy, type Rng, seededRng } from "../../src/core/rng.ts";
import type { Role } from "../../src/core/roles.ts";
import { CREDENTIAL_LIFETIME_MS } from "../../src/identity/credential.ts";
import type { Said } from "./byzantine.ts";
import { Agenda } from "./heap.ts";
import { Trace } from "./trace.ts";

/** 2026-01-01, milliseconds since the epoch: when every world begins. */
export const WORLD_START_MS = 1_767_225_600_000;

/** An ordinary server. */
export const SERVER: Capabilities = {
  cpus: 4,
  memoryBytes: 8 * 2 ** 30,
  diskBytes: 100 * 2 ** 30,
  diskFreeBytes: 60 * 2 ** 30,
  arch: "x86_64",
  os: "Debian 13",
  kernel: "6.12",
  systemd: true,
  battery: false,
  hashesPerSecond: 400_000,
};

/** What every message goes through on its way. */
export interface Message {
  readonly from: string;
  readonly to: string;
  readonly kind: "request" | "answer";
  readonly method: string;
  readonly body: Uint8Array;
}

/** Options of a {@linkcode World}. */
export interface WorldOptions {
  readonly seed: number;
  /** One-way delay of a message, drawn evenly: messages overtake each other within it. @default 1 to 20 ms */
  readonly latencyMs?: { readonly min: number; readonly max: number };
  /** Messages in a million that have to be sent again, half a second later; datagrams are gone. @default 0 */
  readonly lossPpm?: number;
  /** Datagrams in a million that arrive twice. @default 0 */
  readonly repeatPpm?: number;
  /** Messages and datagrams in a million that take up to two seconds more: all others overtake them. @default 0 */
  readonly latePpm?: number;
  /** Whether nodes on the same segment hear each other's beacons. @default true */
  readonly lan?: boolean;
  /** Silence after which a channel is closed. @default 15000 */
  readonly idleTimeoutMs?: number;
  /** Called after each step of an agent: throws where something that must hold does not. */
  readonly check?: (host: Host) => void;
}

/** Options of {@linkcode World.addHost}. */
export interface HostOptions {
  readonly role?: Role | "auto";
  readonly capabilities?: Partial<Capabilities>;
  readonly config?: Partial<AgentConfig>;
  /** How far its clock is ahead of the world's. */
  readonly clockOffsetMs?: number;
  /** By how many millionths its clock is fast. */
  readonly driftPpm?: number;
  /**
   * Longest time until what it stores is durable: what it wants stored meanwhile is stored with it, all or nothing,
   * and what follows waits. Nothing of it is there when it dies before. 0: at once. @default 0
   */
  readonly diskMs?: number;
}

/** How a request ended. */
export type Answer =
  | { readonly ok: true; readonly body: Uint8Array }
  | { readonly ok: true; readonly command: SignedCommand }
  | { readonly ok: false; readonly code: string; readonly message: string };

/** What the agent answered to a person. */
export type ControlAnswer =
  | { readonly ok: true; readonly value: unknown }
  | { readonly ok: false; readonly error: ControlError };

interface Channel {
  readonly id: number;
  readonly ends: readonly [Host, Host | Puppet];
  /** Whom each end had at the other: a machine that lost its disk is somebody else. */
  readonly ids: readonly [string, string];
  readonly lives: readonly [number, number];
  readonly binding: Uint8Array | undefined;
  /** Since when no packet gets through in one direction or the other. */
  silentSinceMs: number | undefined;
}

/** What a host sent. */
export interface Sent {
  /** Requests and answers, lost ones included, each once. */
  messages: number;
  /** Bytes of their bodies. */
  bytes: number;
  datagrams: number;
  datagramBytes: number;
  /** Sends of each kind: a method, or the first byte of a datagram. */
  readonly kinds: Map<string | number, number>;
}

/** One machine. */
export class Host {
  /** What survives a crash. */
  readonly disk = new Map<string, Uint8Array>();
  agent: Agent | undefined;
  /** Rises with every start. */
  life = 0;
  /** Id of the network that its sockets serve, in hex. */
  network: string | undefined;
  discoveryMode: "seeking" | "member" | "isolated" | "off" = "off";
  readonly channels = new Map<string, Channel>();
  readonly audits: { readonly action: string; readonly by: string; readonly detail: string }[] = [];
  readonly refused = new Map<string, number>();
  readonly controls = new Map<number, ControlAnswer>();
  /** Effects that are still carried out before it dies; `undefined`: it lives. */
  diesAfter: number | undefined;
  /** Steps in the present second of the world, and which second that is. */
  stepsInSecond = 0;
  second = 0;
  stepsPerSecondMax = 0;
  timer = 0;
  pacer = 0;
  /** How far its clock is ahead, drift apart; may jump. */
  clockOffsetMs: number;
  /** Effects from the first one on that is to be stored, where its disk takes time: all of them wait for it. */
  held: AgentEffect[] = [];
  syncing = false;
  /** What leaves it in the place of what its agent says, if it lies. */
  tamper: ((said: Said) => readonly Uint8Array[]) | undefined;
  /** What it sent since the counters were reset. */
  readonly sent: Sent = { messages: 0, bytes: 0, datagrams: 0, datagramBytes: 0, kinds: new Map() };
  readonly calls = new Map<
    number,
    { readonly channel: Channel | undefined; readonly method: string; readonly sentMs: number }
  >();

  constructor(readonly name: string, readonly index: number, readonly options: HostOptions) {
    this.clockOffsetMs = options.clockOffsetMs ?? 0;
  }

  /** Known from its first start on. */
  nodeId = "";

  get view(): AgentView {
    if (!this.agent) throw new Error(`${this.name} is down`);
    return this.agent.inspect();
  }

  get ip(): string {
    return `10.1.${this.index >> 7}.${(this.index & 127) + 1}`;
  }

  get capabilities(): Capabilities {
    return { ...SERVER, ...this.options.capabilities };
  }
}

/** A node that is no agent: it says what a test wants it to say. */
export class Puppet {
  readonly nodeId: string;
  readonly life = 1;
  /** Answers what agents call; throws a text that becomes the code. */
  serve: (method: string, body: Uint8Array) => Uint8Array = () => {
    throw "unknown-method";
  };

  constructor(readonly name: string, readonly keyPair: KeyPair, readonly ip: string) {
    this.nodeId = nodeIdOf(keyPair.publicKey);
  }
}

/** Hosts and what is between them. */
export class World {
  nowMs = WORLD_START_MS;
  readonly hosts: Host[] = [];
  readonly puppets: Puppet[] = [];
  /** Directions in which nothing gets through, as `from>to` by name. */
  readonly blocked = new Set<string>();
  /** Looks at every message: `drop` loses it, bytes replace its body. */
  onMessage: ((message: Message) => "pass" | "drop" | Uint8Array) | undefined;
  /** Hears every answer that a person gets. */
  onControl: ((host: Host, controlId: number, answer: ControlAnswer) => void) | undefined;
  readonly rng: Rng;
  latencyMs: { readonly min: number; readonly max: number };
  lossPpm: number;
  repeatPpm: number;
  latePpm: number;
  steps = 0;
  /** What people asked for, in the present second and in the one before. */
  #asked = { second: 0, now: 0, before: 0 };
  readonly #options: WorldOptions;
  readonly #agenda = new Agenda();
  readonly #trace = new Trace(160);
  readonly #byIp = new Map<string, Host | Puppet>();
  readonly #inbound = new Map<number, (answer: Answer) => void>();
  #nextId = 1;

  constructor(options: WorldOptions) {
    this.#options = options;
    this.rng = seededRng(options.seed);
    this.latencyMs = options.latencyMs ?? { min: 1, max: 20 };
    this.lossPpm = options.lossPpm ?? 0;
    this.repeatPpm = options.repeatPpm ?? 0;
    this.latePpm = options.latePpm ?? 0;
  }

  /** Milliseconds since the world began. */
  get sinceMs(): number {
    return this.nowMs - WORLD_START_MS;
  }

  /** A number for a request of a person that nobody else has. */
  nextControlId(): number {
    return this.#nextId++;
  }

  /** How much people asked for, of any host, in the present second and in the one before. */
  get askedLately(): number {
    return this.#askedSince(Math.floor(this.nowMs / 1000) - 1);
  }

  /** How much was asked for from this second on, which is at most one ago. */
  #askedSince(since: number): number {
    const { second, now, before } = this.#asked;
    return (second >= since ? now : 0) + (second - 1 >= since ? before : 0);
  }

  /** Hash over everything that happened so far. */
  traceHash(): string {
    return this.#trace.digest();
  }

  /** The last things that happened, for a failure's message. */
  recent(): string {
    return this.#trace.recent();
  }

  /** Adds a machine; it is off until {@linkcode boot}. */
  addHost(name: string, options: HostOptions = {}): Host {
    const host = new Host(name, this.hosts.length, options);
    this.hosts.push(host);
    this.#byIp.set(host.ip, host);
    return host;
  }

  /** Adds a node that is no agent. */
  addPuppet(name: string, keyPair: KeyPair): Puppet {
    const puppet = new Puppet(name, keyPair, `10.2.0.${this.puppets.length + 1}`);
    this.puppets.push(puppet);
    this.#byIp.set(puppet.ip, puppet);
    return puppet;
  }

  /** Starts the program on a machine. */
  boot(host: Host): Host {
    host.life += 1;
    host.diesAfter = undefined;
    const seed = this.rng.below(2 ** 32);
    host.agent = new Agent({
      config: {
        name: host.name,
        role: host.options.role ?? "auto",
        pool: "default",
        version: "0.1.0",
        addresses: [],
        credentialLifetimeMs: CREDENTIAL_LIFETIME_MS,
        ...host.options.config,
      },
      entries: new Map(host.disk),
      rng: seededRng(seed),
      entropy: entropyOf(`${this.#options.seed} ${host.index} ${host.life}`),
    });
    host.nodeId = host.agent.nodeId;
    this.dispatch(host, { type: "start", nowMs: this.local(host), capabilities: host.capabilities });
    return host;
  }

  /** The program dies at once: what it persisted stays. `quiet`: the others only notice by silence. */
  crash(host: Host, quiet = false): void {
    this.#note(`${host.name} crashes`);
    host.agent = undefined;
    host.network = undefined;
    host.discoveryMode = "off";
    host.timer += 1;
    host.pacer += 1;
    host.calls.clear();
    host.held = [];
    host.syncing = false;
    const open = [...host.channels.values()];
    host.channels.clear();
    for (const channel of open) {
      const other = otherEnd(channel, host);
      if (!quiet && other instanceof Host) {
        this.#after(this.#delay(), () => this.#closeEnd(channel, other, "closed by the peer"));
      }
    }
  }

  /** The machine is given a new disk: what comes back is a stranger, with a new key and without a network. */
  wipe(host: Host): void {
    if (host.agent) this.crash(host);
    this.#note(`${host.name} loses its disk`);
    host.disk.clear();
    host.nodeId = "";
  }

  /** Sets a host's clock. */
  jumpClock(host: Host, ms: number): void {
    this.#note(`${host.name} clock jumps ${ms}`);
    host.clockOffsetMs += ms;
  }

  /** Begins to count anew what each host sends. */
  resetSent(): void {
    for (const { sent } of this.hosts) {
      Object.assign(sent, { messages: 0, bytes: 0, datagrams: 0, datagramBytes: 0 });
      sent.kinds.clear();
    }
  }

  /** Crashes and starts again. */
  restart(host: Host): void {
    this.crash(host);
    this.boot(host);
  }

  /** The time that a host's clock shows. */
  local(host: Host): number {
    const { driftPpm = 0 } = host.options;
    return Math.floor(this.nowMs + host.clockOffsetMs + ((this.nowMs - WORLD_START_MS) * driftPpm) / 1e6);
  }

  /** Lets no packet through from any of `from` to any of `to`; both ways unless `oneWay`. */
  cut(from: readonly (Host | Puppet)[], to: readonly (Host | Puppet)[], oneWay = false): void {
    for (const a of from) {
      for (const b of to) {
        if (a === b) continue;
        this.blocked.add(`${a.name}>${b.name}`);
        if (!oneWay) this.blocked.add(`${b.name}>${a.name}`);
      }
    }
  }

  /** Lets everything through again. */
  heal(): void {
    this.blocked.clear();
  }

  /** Closes the channel between two hosts, as a router would that forgets a flow. */
  sever(a: Host, b: Host): void {
    const channel = a.channels.get(b.nodeId);
    if (!channel) return;
    this.#closeEnd(channel, a, "severed");
    this.#closeEnd(channel, b, "severed");
  }

  /** Asks the agent of a host as a person would, and runs the world until there is an answer. */
  control(host: Host, request: ControlRequest): ControlAnswer {
    const id = this.#nextId++;
    this.dispatch(host, { type: "control", nowMs: this.local(host), controlId: id, request, by: LOCAL });
    const endMs = this.nowMs + 30_000;
    while (!host.controls.has(id) && this.nowMs < endMs && this.advance()) { /* until it is answered */ }
    const answer = host.controls.get(id);
    host.controls.delete(id);
    if (!answer) throw new Error(`${host.name} did not answer ${request.verb}`);
    return answer;
  }

  /** As {@linkcode control}; throws where it is refused. */
  ask<T = unknown>(host: Host, request: ControlRequest): T {
    const answer = this.control(host, request);
    if (!answer.ok) {
      throw new Error(`${host.name} refused ${request.verb}: ${answer.error.code} ${answer.error.message}`);
    }
    return answer.value as T;
  }

  /** Asks the agent of a host and does not wait; the result gives the answer, as soon as there is one. */
  later(host: Host, request: ControlRequest): () => { readonly value?: unknown; readonly error?: ControlError } {
    const id = this.#nextId++;
    this.dispatch(host, { type: "control", nowMs: this.local(host), controlId: id, request, by: LOCAL });
    return () => {
      const answer = host.controls.get(id);
      return answer === undefined ? {} : answer.ok ? { value: answer.value } : { error: answer.error };
    };
  }

  /** How a puppet looks to a host. */
  peerView(puppet: Puppet, host: Host, direction: "inbound" | "outbound" = "inbound"): PeerView {
    return {
      nodeId: puppet.nodeId,
      publicKey: puppet.keyPair.publicKey,
      remoteAddress: `/ip4/${puppet.ip}/udp/4871/quic-v1`,
      transport: "quic",
      direction,
      openedMs: this.local(host),
      channelBinding: host.channels.get(puppet.nodeId)?.binding,
    };
  }

  /** Opens a channel from a puppet to a host. */
  open(puppet: Puppet, host: Host): void {
    const channel = this.#newChannel(host, puppet);
    host.channels.set(puppet.nodeId, channel);
    this.dispatch(host, { type: "peer-up", nowMs: this.local(host), peer: this.peerView(puppet, host) });
  }

  /** Calls a method of a host as a puppet; the answer comes in the same step. */
  callAs(puppet: Puppet, host: Host, method: string, body: Uint8Array): Answer {
    if (!host.channels.has(puppet.nodeId)) this.open(puppet, host);
    return this.inject(host, this.peerView(puppet, host), method, body);
  }

  /** Calls a method of a host as a puppet, without waiting: `answer` is there when it has come. */
  callLater(puppet: Puppet, host: Host, method: string, body: Uint8Array): { readonly answer: Answer | undefined } {
    if (!host.channels.has(puppet.nodeId)) this.open(puppet, host);
    return this.#begin(host, this.peerView(puppet, host), method, body);
  }

  /** A call that arrives on a channel, whoever sent it; time passes where the host asks others first. */
  inject(host: Host, peer: PeerView, method: string, body: Uint8Array): Answer {
    const call = this.#begin(host, peer, method, body);
    const endMs = this.nowMs + 30_000;
    while (!call.answer && this.nowMs < endMs && this.advance());
    if (!call.answer) throw new Error(`${host.name} left ${method} unanswered`);
    return call.answer;
  }

  #begin(host: Host, peer: PeerView, method: string, body: Uint8Array): { answer: Answer | undefined } {
    const inboundId = this.#nextId++;
    const call: { answer: Answer | undefined } = { answer: undefined };
    this.#inbound.set(inboundId, (one) => {
      call.answer = one;
      this.#inbound.delete(inboundId);
    });
    this.dispatch(host, { type: "inbound", nowMs: this.local(host), inboundId, peer, method, body });
    return call;
  }

  /** A call in a host's name that its agent knows nothing of. */
  callOf(host: Host, nodeId: string, method: string, body: Uint8Array): void {
    this.#call(host, { type: "call", callId: -this.#nextId++, nodeId, method, body, timeoutMs: 5_000 });
  }

  /** A datagram in a host's name that its agent knows nothing of. */
  datagramAs(host: Host, nodeId: string, bytes: Uint8Array): void {
    this.#datagram(host, nodeId, bytes);
  }

  /** The status document of a host. */
  status(host: Host): Status {
    return host.agent!.status({
      nowMs: this.local(host),
      version: { version: "0.1.0", commit: "", builtAt: "", runtime: "" },
      sources: [],
      traffic: { bytesIn: 0, bytesOut: 0, callsIn: 0, callsOut: 0, channels: host.channels.size },
      refusals: Object.fromEntries(host.refused),
      process: { pid: 1, rssBytes: 1, cpuMs: 1, uptimeMs: 1, openFiles: 1 },
      components: [],
      events: [],
      config: { version: 1 },
    });
  }

  /** Carries out the next thing; `false` where there is none. */
  advance(): boolean {
    const next = this.#agenda.take();
    if (!next) return false;
    this.nowMs = Math.max(this.nowMs, next.atMs);
    next.run();
    return true;
  }

  /** Lets time pass. */
  run(ms: number): void {
    const endMs = this.nowMs + ms;
    while ((this.#agenda.nextMs ?? Infinity) <= endMs) this.advance();
    this.nowMs = endMs;
  }

  /** Lets time pass until something holds; returns the milliseconds that it took, throws after `withinMs`. */
  until(what: string, holds: () => boolean, withinMs = 60_000): number {
    const startMs = this.nowMs;
    while (!holds()) {
      if ((this.#agenda.nextMs ?? Infinity) > startMs + withinMs) {
        throw new Error(`Not within ${withinMs} ms: ${what}\n${this.describe()}\n${this.recent()}`);
      }
      this.advance();
    }
    return this.nowMs - startMs;
  }

  /** Does something later. */
  at(atMs: number, run: () => void): void {
    this.#agenda.add(atMs, run);
  }

  /** A line per host. */
  describe(): string {
    return this.hosts.map((host) => {
      if (!host.agent) return `${host.name}: down`;
      const { state, sessions, stage } = host.view;
      const shown = [...sessions].map(([id, one]) => `${this.#nameOf(id)}${one.member ? "" : "?"}`).join(" ");
      const failed = this.status(host).bootstrap.failures.at(-1);
      return `${host.name}: ${stage} mode=${state.mode} members=${state.members.size} epoch=${
        state.network?.chain?.epoch ?? 0
      } sessions=[${shown}]${failed ? ` last=${failed.code} (${failed.tried})` : ""}`;
    }).join("\n");
  }

  /** Hands an event to a host's agent and carries out what it wants. */
  dispatch(host: Host, event: AgentEvent): void {
    if (!host.agent) return;
    this.steps += 1;
    const second = Math.floor(this.nowMs / 1000);
    if (second !== host.second) [host.second, host.stepsInSecond] = [second, 0];
    host.stepsInSecond += 1;
    if (event.type === "control") {
      if (second !== this.#asked.second) this.#asked = { second, now: 0, before: this.#askedSince(second - 1) };
      this.#asked.now += 1;
    }
    host.stepsPerSecondMax = Math.max(host.stepsPerSecondMax, host.stepsInSecond);
    this.#note(`${host.name} <- ${describeEvent(event)}`, "body" in event ? event.body : undefined);
    const life = host.life;
    let effects: readonly AgentEffect[];
    try {
      effects = host.agent.step(event);
    } catch (error) {
      throw new Error(`${host.name} threw on ${describeEvent(event)}: ${error}\n${this.recent()}`, { cause: error });
    }
    this.#carryOut(host, life, effects);
    if (host.life === life && host.agent) this.#options.check?.(host);
  }

  #carryOut(host: Host, life: number, effects: readonly AgentEffect[]): void {
    for (const effect of effects) {
      if (host.life !== life || !host.agent) return;
      // What follows something that is to be stored waits for it, whichever step it is of.
      if (host.held.length > 0 || effect.type === "persist" && host.options.diskMs) {
        host.held.push(effect);
        this.#sync(host);
        continue;
      }
      if (host.diesAfter !== undefined && host.diesAfter-- <= 0) return this.crash(host, this.rng.below(2) === 0);
      this.#run(host, life, effect);
    }
  }

  #run(host: Host, life: number, effect: AgentEffect): void {
    if (effect.type !== "log") this.#note(`${host.name} -> ${describeEffect(effect)}`, bodyOf(effect));
    switch (effect.type) {
      case "persist":
        store(host, effect.puts);
        return this.#carryOut(host, life, effect.then);
      case "start-network":
        host.network = toHex(effect.networkId);
        return this.#later(host, 5, () => {
          const addresses = [`/ip4/${host.ip}/udp/4871/quic-v1/p2p/${host.nodeId}`];
          this.dispatch(host, { type: "addresses", nowMs: this.local(host), addresses });
          this.#pace(host);
        });
      case "stop-network":
        host.network = undefined;
        for (const channel of [...host.channels.values()]) this.#hangUp(host, channel, "stopped");
        return;
      case "discovery":
        host.discoveryMode = effect.mode;
        return this.#pace(host);
      case "dial":
        return this.#dial(host, effect.dialId, effect.address);
      case "hang-up": {
        const channel = host.channels.get(effect.nodeId);
        if (channel) this.#hangUp(host, channel, effect.reason);
        return;
      }
      case "call": {
        const [body] = host.tamper?.({ kind: "call", method: effect.method, body: effect.body }) ?? [effect.body];
        // What it withholds ends as if it had been lost.
        return this.#call(host, body ? { ...effect, body } : { ...effect, nodeId: "" });
      }
      case "datagram":
        for (const bytes of host.tamper?.({ kind: "datagram", method: "", body: effect.bytes }) ?? [effect.bytes]) {
          this.#datagram(host, effect.nodeId, bytes);
        }
        return;
      case "reply": {
        const [body] = host.tamper?.({ kind: "answer", method: "", body: effect.body }) ?? [effect.body];
        if (!body) return void this.#inbound.delete(effect.inboundId);
        return this.#answer(effect.inboundId, { ok: true, body });
      }
      case "reply-error":
        return this.#answer(effect.inboundId, { ok: false, code: effect.code, message: effect.message });
      case "run-command":
        this.#answer(effect.inboundId, { ok: true, command: effect.command });
        return this.#command(host, effect.command);
      case "control-reply":
        host.controls.set(effect.controlId, effect.result);
        this.onControl?.(host, effect.controlId, effect.result);
        return;
      case "export-secret":
        host.disk.delete(effect.key);
        host.controls.set(effect.controlId, { ok: true, value: { path: effect.path, exported: true } });
        return;
      case "wakeAt": {
        const timer = ++host.timer;
        const waitMs = Math.max(5, effect.atMs - this.local(host));
        return this.#later(host, waitMs, () => {
          if (host.timer === timer) this.dispatch(host, { type: "wake", nowMs: this.local(host) });
        });
      }
      case "audit":
        host.audits.push({ action: effect.action, by: effect.by, detail: effect.detail });
        return;
      case "refused":
        host.refused.set(effect.reason, (host.refused.get(effect.reason) ?? 0) + 1);
        return;
      case "log":
        return;
      default:
        effect satisfies never;
    }
  }

  /** Group commit: all that waits when the disk is ready is stored together, then carried on with in order. */
  #sync(host: Host): void {
    if (host.syncing) return;
    host.syncing = true;
    this.#later(host, this.rng.below(host.options.diskMs!) + 1, () => {
      host.syncing = false;
      const group = host.held;
      host.held = [];
      const puts = new Map<string, Uint8Array | null>();
      const effects = flattened(group, puts);
      if (puts.size > 0) store(host, [...puts]);
      this.#carryOut(host, host.life, effects);
      // Until now its memory was ahead of what it would come back with.
      if (host.agent) this.#options.check?.(host);
    });
  }

  /** What `edge/commands.ts` does with the verbs that change the node. */
  #command(host: Host, command: SignedCommand): void {
    const mode = ({
      "drain": "drained",
      "isolate": "isolated",
      "safe-mode": "safe",
      "undrain": "normal",
      "rejoin": "normal",
      "normal-mode": "normal",
    } as const)[command.verb as string];
    const request: ControlRequest | undefined = mode
      ? { verb: "set-mode", mode }
      : command.verb === "leave"
      ? { verb: "leave" }
      : undefined;
    if (!request) return;
    this.#later(host, 1, () => {
      const controlId = this.#nextId++;
      this.dispatch(host, { type: "control", nowMs: this.local(host), controlId, request, by: LOCAL });
      host.controls.delete(controlId);
    });
  }

  #dial(host: Host, dialId: number, address: string): void {
    const parsed = parseAddress(address);
    const end = (result: { readonly ok: true; readonly nodeId: string } | CallFailure) =>
      this.dispatch(host, { type: "dial-done", nowMs: this.local(host), dialId, result });
    const fail = (code: string, waitMs: number) =>
      this.#later(host, waitMs, () => end({ ok: false, code, message: `dial ${address}` }));
    this.#later(host, this.#delay() + this.#delay(), () => {
      const target = parsed && this.#byIp.get(parsed.host);
      if (!host.network || !target || this.#isBlocked(host, target)) return fail("timeout", 5_000);
      if (target instanceof Host && (!target.agent || !target.network)) {
        return this.rng.below(2) === 0 ? fail("unreachable", 1) : fail("timeout", 5_000);
      }
      if (parsed?.nodeId !== undefined && parsed.nodeId !== target.nodeId) return fail("wrong-identity", 1);
      if (target instanceof Host && target.network !== host.network) return fail("foreign-network", 1);
      this.#connect(host, target);
      end({ ok: true, nodeId: target.nodeId });
    });
  }

  #connect(host: Host, target: Host | Puppet): void {
    const known = host.channels.get(target.nodeId);
    if (known && known.lives[known.ends.indexOf(target)] === target.life) {
      if (target instanceof Puppet || target.channels.get(host.nodeId) === known) return;
      // The other end has given this channel up already: it is replaced.
      this.#closeEnd(known, host, "replaced");
    } else if (known) this.#closeEnd(known, host, "replaced");
    const channel = this.#newChannel(host, target);
    if (target instanceof Host) {
      const stale = target.channels.get(host.nodeId);
      if (stale) this.#closeEnd(stale, target, "replaced");
    }
    if (!host.agent) return;
    const up = (end: Host, other: Host | Puppet, direction: "inbound" | "outbound") => {
      end.channels.set(other.nodeId, channel);
      const publicKey = publicKeyOf(other.nodeId)!;
      this.dispatch(end, {
        type: "peer-up",
        nowMs: this.local(end),
        peer: {
          nodeId: other.nodeId,
          publicKey,
          remoteAddress: `/ip4/${other.ip}/udp/4871/quic-v1`,
          transport: "quic",
          direction,
          openedMs: this.local(end),
          channelBinding: channel.binding,
        },
      });
    };
    if (target instanceof Host && this.rng.below(2) === 0) {
      up(target, host, "inbound");
      if (host.agent && target.agent) up(host, target, "outbound");
    } else {
      up(host, target, "outbound");
      if (target instanceof Host && host.agent && target.agent) up(target, host, "inbound");
    }
    this.#keepAlive(channel);
  }

  #newChannel(a: Host, b: Host | Puppet): Channel {
    const id = this.#nextId++;
    // One in four has no binding, as over TCP.
    const binding = this.rng.below(4) === 0 ? undefined : sha256(utf8(`channel ${this.#options.seed} ${id}`));
    return { id, ends: [a, b], ids: [a.nodeId, b.nodeId], lives: [a.life, b.life], binding, silentSinceMs: undefined };
  }

  /** Both ends notice silence: packets lost in one direction take the acknowledgements with them. */
  #keepAlive(channel: Channel): void {
    const idleMs = this.#options.idleTimeoutMs ?? 15_000;
    this.#after(idleMs / 3, () => {
      const [a, b] = channel.ends;
      const open = channel.ends.filter((end): end is Host =>
        end instanceof Host && end.agent !== undefined && this.#holds(end, channel)
      );
      if (open.length === 0) return;
      const silent = this.#isBlocked(a, b) ||
        channel.ends.some((end, i) =>
          end.life !== channel.lives[i] || end instanceof Host && (!end.agent || !this.#holds(end, channel))
        );
      if (!silent) channel.silentSinceMs = undefined;
      else {
        channel.silentSinceMs ??= this.nowMs;
        if (this.nowMs - channel.silentSinceMs >= idleMs) {
          for (const end of open) {
            this.#after(this.rng.below(3_000), () => this.#closeEnd(channel, end, "idle-timeout"));
          }
          return;
        }
      }
      this.#keepAlive(channel);
    });
  }

  #holds(end: Host, channel: Channel): boolean {
    return end.channels.get(otherId(channel, end)) === channel;
  }

  /** One end closes: it knows at once, the other one message later. */
  #hangUp(host: Host, channel: Channel, reason: string): void {
    const other = otherEnd(channel, host);
    // The driver reports the end in an event of its own, after the present step.
    this.#after(0, () => this.#closeEnd(channel, host, reason));
    if (other instanceof Host && !this.#isBlocked(host, other)) {
      this.#after(this.#delay(), () => this.#closeEnd(channel, other, "closed by the peer"));
    }
  }

  #closeEnd(channel: Channel, end: Host, reason: string): void {
    if (!end.agent) return;
    const nodeId = otherId(channel, end);
    if (end.channels.get(nodeId) !== channel) return;
    end.channels.delete(nodeId);
    const life = end.life;
    this.dispatch(end, { type: "peer-down", nowMs: this.local(end), nodeId, reason });
    for (const [callId, call] of [...end.calls]) {
      if (call.channel !== channel || end.life !== life) continue;
      this.#callDone(end, callId, { ok: false, code: "unreachable", message: `The channel closed: ${reason}` });
    }
  }

  /** A datagram goes once, whatever becomes of it. */
  #datagram(host: Host, nodeId: string, bytes: Uint8Array): void {
    const channel = host.channels.get(nodeId);
    if (!channel) return;
    const target = otherEnd(channel, host);
    host.sent.datagrams += 1;
    host.sent.datagramBytes += bytes.length;
    host.sent.kinds.set(bytes[0]!, (host.sent.kinds.get(bytes[0]!) ?? 0) + 1);
    if (!(target instanceof Host) || this.blocked.size > 0 && this.blocked.has(`${host.name}>${target.name}`)) return;
    if (this.lossPpm > 0 && this.rng.below(1_000_000) < this.lossPpm) return;
    const [from, { life }] = [host.nodeId, target];
    const copies = this.repeatPpm > 0 && this.rng.below(1_000_000) < this.repeatPpm ? 2 : 1;
    for (let i = 0; i < copies; i++) {
      this.#after(this.#delay(), () => {
        if (target.life !== life || !this.#holds(target, channel)) return;
        this.dispatch(target, { type: "datagram", nowMs: this.local(target), from, bytes });
      });
    }
  }

  #call(host: Host, effect: AgentEffect & { readonly type: "call" }): void {
    const { callId, method, timeoutMs } = effect;
    const channel = host.channels.get(effect.nodeId);
    host.calls.set(callId, { channel, method, sentMs: this.nowMs });
    if (!channel) {
      return this.#later(
        host,
        0,
        () => this.#callDone(host, callId, { ok: false, code: "unreachable", message: "no channel" }),
      );
    }
    this.#later(host, timeoutMs, () => this.#callDone(host, callId, { ok: false, code: "timeout", message: method }));
    const target = otherEnd(channel, host);
    const caller = host.life;
    this.#send(host, target, "request", method, effect.body, (body) => {
      const answer = (one: Answer) => {
        if (one.ok && !("body" in one)) return;
        const bytes = one.ok ? one.body : encodeCbor({ c: one.code, x: one.message });
        this.#send(target, host, "answer", method, bytes, (received) => {
          if (host.life !== caller || !this.#holds(host, channel)) return;
          this.#callDone(host, callId, one.ok ? { ok: true, body: received, elapsedMs: 0 } : one);
        });
      };
      if (target instanceof Puppet) {
        try {
          return answer({ ok: true, body: target.serve(method, body) });
        } catch (error) {
          if (typeof error !== "string") throw error;
          return answer({ ok: false, code: error, message: error });
        }
      }
      const lives = channel.lives[channel.ends.indexOf(target)] === target.life;
      if (!target.agent || !lives || !this.#holds(target, channel)) return;
      const inboundId = this.#nextId++;
      this.#inbound.set(inboundId, answer);
      const peer = target.view.sessions.get(host.nodeId)?.peer;
      if (!peer) return;
      this.dispatch(target, { type: "inbound", nowMs: this.local(target), inboundId, peer, method, body });
      if (!this.#inbound.has(inboundId)) return;
      const { life } = target;
      const check = () => {
        const left = this.#inbound.delete(inboundId);
        if (left && target.agent && target.life === life) {
          throw new Error(`${target.name} left ${method} of ${host.name} unanswered\n${this.recent()}`);
        }
      };
      // It may have to ask another node first, which ends with its own deadline.
      this.#after(Math.max(timeoutMs, 30_000), check);
    });
  }

  /** A message on its way: later, again where it is lost, and as long as its sender lives. */
  #send(
    from: Host | Puppet,
    to: Host | Puppet,
    kind: "request" | "answer",
    method: string,
    body: Uint8Array,
    arrive: (body: Uint8Array) => void,
    tries = 0,
  ): void {
    const life = from.life;
    if (tries === 0 && from instanceof Host) {
      from.sent.messages += 1;
      from.sent.bytes += body.length;
      from.sent.kinds.set(method, (from.sent.kinds.get(method) ?? 0) + 1);
    }
    this.#after(this.#delay(), () => {
      if (from.life !== life || from instanceof Host && !from.agent) return;
      if (
        this.blocked.size > 0 && this.blocked.has(`${from.name}>${to.name}`) ||
        this.lossPpm > 0 && this.rng.below(1_000_000) < this.lossPpm
      ) {
        if (tries < 60) this.#after(500, () => this.#send(from, to, kind, method, body, arrive, tries + 1));
        return;
      }
      const verdict = this.onMessage?.({ from: from.name, to: to.name, kind, method, body }) ?? "pass";
      if (verdict !== "drop") arrive(verdict === "pass" ? body : verdict);
    });
  }

  #callDone(
    host: Host,
    callId: number,
    result: { readonly ok: true; readonly body: Uint8Array; readonly elapsedMs: number } | CallFailure,
  ): void {
    const call = host.calls.get(callId);
    if (!call || !host.agent) return;
    host.calls.delete(callId);
    const timed = result.ok ? { ...result, elapsedMs: this.nowMs - call.sentMs } : result;
    this.dispatch(host, { type: "call-done", nowMs: this.local(host), callId, result: timed });
  }

  #answer(inboundId: number, answer: Answer): void {
    const done = this.#inbound.get(inboundId);
    if (!done) throw new Error(`inbound call ${inboundId} is answered twice or unknown\n${this.recent()}`);
    this.#inbound.delete(inboundId);
    done(answer);
  }

  /** Discovery: tells candidates now and then, as often as its mode wants. */
  #pace(host: Host): void {
    const pacer = ++host.pacer;
    const everyMs = { seeking: 3_000, isolated: 15_000, member: 60_000, off: 0 }[host.discoveryMode];
    if (everyMs === 0) return;
    const tell = () => {
      if (host.pacer !== pacer || !host.agent || !host.network) return;
      for (const one of this.#sightings(host)) {
        if (host.pacer !== pacer || !host.agent) return;
        const candidate = { ...one, authority: AUTHORITY[one.source], seenMs: this.local(host) };
        this.dispatch(host, { type: "candidate", nowMs: this.local(host), candidate });
      }
      this.#later(host, everyMs + this.rng.below(1_000), tell);
    };
    this.#later(host, 20 + this.rng.below(200), tell);
  }

  #sightings(host: Host): {
    readonly address: string;
    readonly source: CandidateSource;
    readonly verification: Verification;
    readonly expiresMs: number;
  }[] {
    const out = [];
    for (const address of host.view.state.invite?.addresses ?? []) {
      out.push({ address, source: "invite", verification: "unverified", expiresMs: NEVER_MS } as const);
    }
    const nowMs = this.local(host);
    if (host.discoveryMode !== "member") {
      for (const member of host.agent!.knownMembers()) {
        for (const address of member.record.addresses) {
          const expiresMs = nowMs + 30 * 86_400_000;
          out.push({ address, source: "cache", verification: "verified", expiresMs } as const);
        }
      }
    }
    if (this.#options.lan ?? true) {
      for (const other of this.hosts) {
        if (other === host || !other.agent?.isMember || other.network !== host.network) continue;
        if (other.discoveryMode === "off" || this.blocked.has(`${other.name}>${host.name}`)) continue;
        const address = `/ip4/${other.ip}/udp/4871/quic-v1/p2p/${other.nodeId}`;
        out.push({ address, source: "multicast", verification: "signed", expiresMs: nowMs + 90_000 } as const);
      }
    }
    return out;
  }

  #isBlocked(a: Host | Puppet, b: Host | Puppet): boolean {
    if (this.blocked.size === 0) return false;
    return this.blocked.has(`${a.name}>${b.name}`) || this.blocked.has(`${b.name}>${a.name}`);
  }

  #delay(): number {
    const late = this.latePpm > 0 && this.rng.below(1_000_000) < this.latePpm ? this.rng.below(2_000) : 0;
    return this.latencyMs.min + this.rng.below(this.latencyMs.max - this.latencyMs.min + 1) + late;
  }

  #after(waitMs: number, run: () => void): void {
    this.#agenda.add(this.nowMs + waitMs, run);
  }

  /** Later, unless the host has died since. */
  #later(host: Host, waitMs: number, run: () => void): void {
    const { life } = host;
    this.#after(waitMs, () => {
      if (host.life === life && host.agent) run();
    });
  }

  #nameOf(nodeId: string): string {
    return [...this.hosts, ...this.puppets].find((one) => one.nodeId === nodeId)?.name ?? nodeId.slice(-6);
  }

  #note(line: string, body?: Uint8Array): void {
    this.#trace.add(`${this.nowMs - WORLD_START_MS} ${line}`, body);
  }
}

function store(host: Host, puts: readonly (readonly [string, Uint8Array | null])[]): void {
  for (const [key, value] of puts) {
    if (value) host.disk.set(key, value.slice());
    else host.disk.delete(key);
  }
}

/** Effects in their order without those that store, whose puts are taken out: the last one for a key counts. */
function flattened(effects: readonly AgentEffect[], puts: Map<string, Uint8Array | null>): AgentEffect[] {
  return effects.flatMap((effect) => {
    if (effect.type !== "persist") return [effect];
    for (const [key, value] of effect.puts) puts.set(key, value);
    return flattened(effect.then, puts);
  });
}

/** Secret randomness that follows from a seed. */
export function entropyOf(seed: string): Entropy {
  let counter = 0;
  return {
    bytes(length) {
      const out = new Uint8Array(length);
      for (let at = 0; at < length; at += 32) {
        out.set(sha256(utf8(`${seed} ${counter++}`)).subarray(0, Math.min(32, length - at)), at);
      }
      return out;
    },
  };
}

function otherEnd(channel: Channel, host: Host): Host | Puppet {
  return channel.ends[0] === host ? channel.ends[1] : channel.ends[0];
}

function otherId(channel: Channel, host: Host): string {
  return channel.ends[0] === host ? channel.ids[1] : channel.ids[0];
}

function bodyOf(effect: AgentEffect): Uint8Array | undefined {
  return "body" in effect ? effect.body : undefined;
}

function describeEvent(event: AgentEvent): string {
  switch (event.type) {
    case "inbound":
      return `${event.method} from ${event.peer.nodeId.slice(-6)}`;
    case "peer-up":
      return `peer-up ${event.peer.nodeId.slice(-6)} ${event.peer.direction}`;
    case "peer-down":
      return `peer-down ${event.nodeId.slice(-6)} ${event.reason}`;
    case "dial-done":
    case "call-done":
      return `${event.type} ${event.type === "dial-done" ? event.dialId : event.callId} ${
        event.result.ok ? "ok" : event.result.code
      }`;
    case "control":
      return `control ${event.request.verb}`;
    case "candidate":
      return `candidate ${event.candidate.source} ${event.candidate.address}`;
    default:
      return event.type;
  }
}

function describeEffect(effect: AgentEffect): string {
  switch (effect.type) {
    case "persist":
      return `persist ${effect.puts.map(([key, value]) => (value ? "" : "-") + key).join(" ")}`;
    case "call":
      return `call ${effect.callId} ${effect.method} of ${effect.nodeId.slice(-6)}`;
    case "dial":
      return `dial ${effect.dialId} ${effect.address}`;
    case "hang-up":
      return `hang-up ${effect.nodeId.slice(-6)} ${effect.reason}`;
    case "reply-error":
      return `reply-error ${effect.code}`;
    case "discovery":
      return `discovery ${effect.mode}`;
    case "wakeAt":
      return `wakeAt ${effect.atMs - WORLD_START_MS}`;
    case "refused":
      return `refused ${effect.reason}`;
    case "audit":
      return `audit ${effect.action} ${effect.detail}`;
    case "control-reply":
      return `control-reply ${effect.result.ok ? "ok" : effect.result.error.code}`;
    default:
      return effect.type;
  }
}
