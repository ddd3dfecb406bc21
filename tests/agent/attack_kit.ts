/**
 * A handful of agents in one process, with a wire between them that a test may listen to, cut or speak into.
 *
 * Smaller than the simulator on purpose: no loss, no delay, one clock, so that an attack is read line by line.
 *
 * @module
 */

import assert from "node:assert/strict";
import { LOCAL } from "../../src/agent/access.ts";
import { Agent } from "../../src/agent/agent.ts";
import type { ControlError, ControlRequest } from "../../src/agent/control.ts";
import type { AgentEffect, AgentEvent, CallFailure, PeerView } from "../../src/agent/effects.ts";
import type { Capabilities } from "../../src/core/capabilities.ts";
import { utf8 } from "../../src/core/bytes.ts";
import { type CborValue, decodeCbor, encodeCbor } from "../../src/core/codec.ts";
import { hashParts, type KeyPair, keyPairFromSeed } from "../../src/core/crypto.ts";
import { nodeIdOf, publicKeyOf } from "../../src/core/ids.ts";
import { seededRng } from "../../src/core/rng.ts";
import type { Role } from "../../src/core/roles.ts";
import type { Member } from "../../src/membership/table.ts";

/** A server that is fit for every role. */
export const SERVER: Capabilities = {
  cpus: 4,
  memoryBytes: 8 * 2 ** 30,
  diskBytes: 64 * 2 ** 30,
  diskFreeBytes: 32 * 2 ** 30,
  arch: "x86_64",
  os: "Debian",
  kernel: "6.1",
  systemd: true,
  battery: false,
  hashesPerSecond: 500_000,
};

/** How a call into a node ended. */
export type Answer = { readonly ok: true; readonly body: CborValue } | {
  readonly ok: false;
  readonly code: string;
  readonly message: string;
};

type Outcome = { readonly ok: true; readonly body: Uint8Array; readonly elapsedMs: number } | CallFailure;

type ControlResult = { readonly ok: true; readonly value: unknown } | {
  readonly ok: false;
  readonly error: ControlError;
};

// Without the time, which the world adds; distributes over the union.
type Untimed<E> = E extends AgentEvent ? Omit<E, "nowMs"> : never;

/** One agent with its store. */
export class Node {
  store: Map<string, Uint8Array> = new Map();
  agent!: Agent;
  wakeMs = Infinity;
  down = false;
  readonly peers: Map<string, Node> = new Map();
  /** Log, audit and refusals, as `<what> <text>`. */
  readonly told: string[] = [];
  /** Dials, and discovery that was switched on. */
  reachedOut = 0;
  /** Addresses dialed, in order. */
  readonly dialed: string[] = [];
  /** Sees every call that reaches the node; what it returns is the answer, `drop` is none at all. */
  intercept: ((method: string, body: Uint8Array, from: Node) => Answer | "drop" | undefined) | undefined;
  /** Whether this node may open a channel to another. */
  mayReach: (other: Node) => boolean = () => true;
  role: Role | "auto";
  #entropy = 0;
  readonly #controls = new Map<number, ControlResult>();

  constructor(readonly name: string, readonly world: World, role: Role | "auto") {
    this.role = role;
    this.boot();
  }

  /** Starts the agent from what the store holds. */
  boot(): void {
    this.down = false;
    this.wakeMs = Infinity;
    this.agent = new Agent({
      config: {
        name: this.name,
        role: this.role,
        pool: "default",
        version: "0.1.0",
        addresses: [],
        credentialLifetimeMs: this.world.lifetimeMs,
      },
      entries: this.store,
      rng: seededRng(this.name.length * 77 + 1),
      entropy: {
        bytes: (length) =>
          hashParts("mycelium/attack-kit/v1", utf8(this.name), utf8(String(this.#entropy++))).slice(0, length),
      },
    });
    this.feed({ type: "start", capabilities: SERVER });
    this.feed({ type: "addresses", addresses: [this.address] });
  }

  get id(): string {
    return this.agent.nodeId;
  }

  get address(): string {
    const at = this.world.nodes.indexOf(this);
    return `/ip4/10.0.0.${at < 0 ? this.world.nodes.length + 1 : at + 1}/udp/4871/quic-v1/p2p/${this.id}`;
  }

  get keyPair(): KeyPair {
    return keyPairFromSeed(this.store.get("secret/node.key")!);
  }

  get isMember(): boolean {
    return this.agent.isMember;
  }

  get stage(): string {
    return this.agent.inspect().stage;
  }

  get epoch(): number {
    return this.agent.inspect().state.network?.chain?.epoch ?? 0;
  }

  get networkId(): Uint8Array {
    return this.agent.inspect().state.networkId;
  }

  get isIssuer(): boolean {
    return this.agent.inspect().state.isIssuer;
  }

  /** What this node knows of another, `undefined` where nothing. */
  member(other: Node | string): Member | undefined {
    const { members } = this.agent.inspect().state;
    return members.get(typeof other === "string" ? other : other.id);
  }

  /** Lines told so far that match. */
  lines(match: RegExp): readonly string[] {
    return this.told.filter((one) => match.test(one));
  }

  feed(event: Untimed<AgentEvent>): void {
    this.#carryOut(this.agent.step({ ...event, nowMs: this.world.nowMs } as AgentEvent));
  }

  /** Asks as the person at the machine does. */
  control(request: ControlRequest): ControlResult {
    const controlId = this.world.nextId++;
    this.feed({ type: "control", controlId, request, by: LOCAL });
    this.world.run(0);
    const result = this.#controls.get(controlId);
    assert.ok(result, `${request.verb} was answered`);
    return result;
  }

  /** Asks and wants a yes. */
  ask<T>(request: ControlRequest): T {
    const result = this.control(request);
    assert.ok(result.ok, `${request.verb}: ${result.ok || result.error.message}`);
    return result.value as T;
  }

  /** How another end of a channel looks from here. */
  view(other: { readonly id: string; readonly address: string }, direction: PeerView["direction"]): PeerView {
    return {
      nodeId: other.id,
      publicKey: publicKeyOf(other.id)!,
      remoteAddress: other.address.replace(/\/p2p.*/, ""),
      transport: "quic",
      direction,
      openedMs: this.world.nowMs,
      channelBinding: undefined,
    };
  }

  /** A call that reaches this node from whoever; the answer where there is one at once. */
  called(peer: PeerView, method: string, value: CborValue | Uint8Array): Answer | undefined {
    const inboundId = this.world.nextId++;
    let answer: Answer | undefined;
    this.world.waiting.set(inboundId, (outcome) => {
      answer = outcome.ok ? { ok: true, body: decodeCbor(outcome.body) } : outcome;
    });
    this.feed({
      type: "inbound",
      inboundId,
      peer,
      method,
      body: value instanceof Uint8Array ? value : encodeCbor(value),
    });
    return answer;
  }

  /** Opens a channel to another node. */
  connect(other: Node): void {
    if (this.peers.has(other.id)) return;
    this.peers.set(other.id, other);
    other.peers.set(this.id, this);
    this.feed({ type: "peer-up", peer: this.view(other, "outbound") });
    other.feed({ type: "peer-up", peer: other.view(this, "inbound") });
  }

  /** Closes the channel to another node. */
  drop(nodeId: string): void {
    const other = this.peers.get(nodeId);
    if (!other) return;
    this.peers.delete(nodeId);
    other.peers.delete(this.id);
    if (!this.down) this.feed({ type: "peer-down", nodeId, reason: "closed" });
    if (!other.down) other.feed({ type: "peer-down", nodeId: this.id, reason: "closed" });
  }

  /** `kill -9`: what is in memory is gone. */
  kill(): void {
    this.down = true;
    for (const nodeId of [...this.peers.keys()]) this.drop(nodeId);
  }

  /** A wire to whoever holds a key, for tests that speak by hand. */
  strangerOf(pair: KeyPair): PeerView {
    const id = nodeIdOf(pair.publicKey);
    return this.view({ id, address: `/ip4/192.0.2.66/udp/9/quic-v1/p2p/${id}` }, "inbound");
  }

  #carryOut(effects: readonly AgentEffect[]): void {
    const { world } = this;
    for (const effect of effects) {
      switch (effect.type) {
        case "persist":
          for (const [key, value] of effect.puts) {
            if (value === null) this.store.delete(key);
            else this.store.set(key, value);
          }
          this.#carryOut(effect.then);
          break;
        case "wakeAt":
          this.wakeMs = effect.atMs;
          break;
        case "dial":
          this.reachedOut += 1;
          this.dialed.push(effect.address);
          world.later(() => this.#dial(effect));
          break;
        case "call":
          world.nowMs += 5;
          world.later(() => this.#call(effect));
          break;
        case "datagram":
          world.later(() => this.#datagram(effect));
          break;
        case "reply":
          world.answer(effect.inboundId, { ok: true, body: effect.body, elapsedMs: 5 });
          break;
        case "reply-error":
          world.answer(effect.inboundId, { ok: false, code: effect.code, message: effect.message });
          break;
        case "run-command":
          this.told.push(`RUN ${effect.command.verb}`);
          world.answer(effect.inboundId, { ok: true, body: encodeCbor({ e: 0 }), elapsedMs: 5 });
          break;
        case "control-reply":
          this.#controls.set(effect.controlId, effect.result);
          break;
        case "hang-up":
          world.later(() => this.drop(effect.nodeId));
          break;
        case "discovery":
          if (effect.mode !== "off") this.reachedOut += 1;
          break;
        case "stop-network":
          for (const nodeId of [...this.peers.keys()]) world.later(() => this.drop(nodeId));
          break;
        case "audit":
          this.told.push(`AUDIT ${effect.action} ${effect.detail}`);
          break;
        case "refused":
          this.told.push(`REFUSED ${effect.reason}`);
          break;
        case "log":
          this.told.push(`${effect.event} ${effect.message}`);
          break;
      }
    }
  }

  #dial(effect: AgentEffect & { readonly type: "dial" }): void {
    if (this.down) return;
    const other = this.world.nodes.find((one) => effect.address.includes(one.id));
    if (!other || other.down || other === this || !this.mayReach(other)) {
      const result = { ok: false, code: "unreachable", message: "no way there" } as const;
      return this.feed({ type: "dial-done", dialId: effect.dialId, result });
    }
    this.connect(other);
    this.feed({ type: "dial-done", dialId: effect.dialId, result: { ok: true, nodeId: other.id } });
  }

  #datagram(effect: AgentEffect & { readonly type: "datagram" }): void {
    const other = this.peers.get(effect.nodeId);
    if (this.down || !other || other.down) return;
    other.feed({ type: "datagram", from: this.id, bytes: effect.bytes });
  }

  #call(effect: AgentEffect & { readonly type: "call" }): void {
    if (this.down) return;
    const done = (result: Outcome) => {
      this.world.later(() => this.down || this.feed({ type: "call-done", callId: effect.callId, result }));
    };
    const other = this.peers.get(effect.nodeId);
    if (!other || other.down) return done({ ok: false, code: "unreachable", message: "the channel closed" });
    const instead = other.intercept?.(effect.method, effect.body, this);
    if (instead === "drop") return;
    if (instead) {
      return done(instead.ok ? { ok: true, body: encodeCbor(instead.body), elapsedMs: 5 } : instead);
    }
    const inboundId = this.world.nextId++;
    this.world.waiting.set(inboundId, done);
    const { method, body } = effect;
    other.feed({ type: "inbound", inboundId, peer: other.view(this, "inbound"), method, body });
  }
}

/** Some nodes and one clock. */
export class World {
  readonly nodes: Node[] = [];
  nowMs = 1_750_000_000_000;
  /** Life of the credentials that are issued here. */
  lifetimeMs = 6 * 3_600_000;
  nextId = 1;
  readonly waiting: Map<number, (outcome: Outcome) => void> = new Map();
  readonly #queue: (() => void)[] = [];

  later(work: () => void): void {
    this.#queue.push(work);
  }

  answer(inboundId: number, outcome: Outcome): void {
    const done = this.waiting.get(inboundId);
    this.waiting.delete(inboundId);
    done?.(outcome);
  }

  add(name: string, role: Role | "auto" = "auto"): Node {
    const node = new Node(name, this, role);
    this.nodes.push(node);
    return node;
  }

  /** Lets time pass. */
  run(ms: number): void {
    const endMs = this.nowMs + ms;
    for (let steps = 0; steps < 1_000_000; steps++) {
      const work = this.#queue.shift();
      if (work) {
        work();
        continue;
      }
      const live = this.nodes.filter((one) => !one.down);
      const atMs = Math.min(...live.map((one) => one.wakeMs));
      if (atMs > endMs) {
        this.nowMs = Math.max(this.nowMs, endMs);
        return;
      }
      // As the driver does: at least some milliseconds, so that no mistake can spin.
      this.nowMs = Math.max(this.nowMs + 5, atMs);
      for (const one of live) {
        if (one.wakeMs > this.nowMs) continue;
        one.wakeMs = Infinity;
        one.feed({ type: "wake" });
      }
    }
    assert.fail("the world does not come to rest");
  }
}

/** What `invite-create` answers. */
export interface Given {
  readonly token: string;
  readonly id: string;
}

/** A network with its founder, `alpha`. */
export function network(
  options: { readonly approval?: boolean } = {},
): { readonly world: World; readonly alpha: Node } {
  const world = new World();
  const alpha = world.add("alpha");
  alpha.ask({ verb: "init", name: "forest", approval: options.approval ?? false });
  return { world, alpha };
}

/** An invite of an issuer. */
export function invite(
  by: Node,
  options: { readonly role?: Role; readonly uses?: number; readonly approval?: boolean } = {},
): Given {
  return by.ask<Given>({ verb: "invite-create", uses: 1, ...options });
}

/** A new node joins; it is given 20 s. */
export function join(node: Node, token: string): void {
  node.control({ verb: "join", invite: token });
  node.world.run(20_000);
}

/** A founder and further Sclerotia, all of them issuers. */
export function issuers(...names: readonly string[]): {
  readonly world: World;
  readonly alpha: Node;
  readonly others: readonly Node[];
} {
  const { world, alpha } = network();
  // Short lives: a test need not go through a day.
  world.lifetimeMs = 1_800_000;
  const others = names.map((name) => {
    const node = world.add(name, "sclerotium");
    join(node, invite(alpha, { role: "sclerotium" }).token);
    assert.ok(node.isMember, `${name} has joined`);
    return node;
  });
  world.run(60_000);
  for (const one of others) assert.ok(one.isIssuer, `${one.name} is an issuer`);
  return { world, alpha, others };
}
