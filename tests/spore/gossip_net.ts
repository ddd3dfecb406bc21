/**
 * Many gossip cores on a simulated network: loss, delay, churn, and nodes that behave badly.
 *
 * @module
 */

import { type Rng, seededRng, shuffled } from "../../src/core/rng.ts";
import { Gossip, type GossipEffect, type GossipEvent, type Verdict } from "../../src/spore/gossip.ts";
import { Agenda } from "../sim/heap.ts";

/** Options of a {@linkcode GossipNet}. */
export interface GossipNetOptions {
  readonly nodes: number;
  readonly seed: number;
  /** @default 1 to 10 ms */
  readonly latencyMs?: { readonly min: number; readonly max: number };
  /** Frames in a million that are lost. @default 0 */
  readonly lossPpm?: number;
  /** @default news */
  readonly topics?: readonly string[];
  readonly thrifty?: boolean;
  /** What a node says of a message. @default accept */
  readonly judge?: (node: GossipNode, topic: string, body: Uint8Array) => Verdict;
}

/** One node. */
export class GossipNode {
  core: Gossip;
  up = true;
  upSinceMs = 0;
  wakeAtMs = Infinity;
  timer = 0;
  /** When each body came, by its text. */
  readonly got = new Map<string, number>();
  /** Hops from its publisher, by text. */
  readonly hops = new Map<string, number>();
  readonly misbehaved = new Map<string, number>();
  readonly peers = new Set<GossipNode>();
  /** A bad node does this with what comes, instead of gossip. */
  bad: ((from: GossipNode, bytes: Uint8Array) => void) | undefined;
  /** Looks at what goes out; `false` drops it. */
  filter: ((effect: GossipEffect & { type: "send" }) => boolean) | undefined;
  steps = 0;
  wakes = 0;
  frames = 0;
  bytes = 0;

  constructor(readonly id: string, readonly index: number, core: Gossip) {
    this.core = core;
  }
}

/** Nodes and what is between them. */
export class GossipNet {
  nowMs = 1_000_000;
  readonly nodes: GossipNode[] = [];
  readonly rng: Rng;
  readonly #agenda = new Agenda();
  readonly #byId = new Map<string, GossipNode>();
  /** Channels that there would be if all nodes were up. */
  readonly #wanted = new Map<GossipNode, Set<GossipNode>>();
  lossPpm: number;
  readonly latencyMs: { readonly min: number; readonly max: number };

  constructor(readonly options: GossipNetOptions) {
    this.rng = seededRng(options.seed);
    this.lossPpm = options.lossPpm ?? 0;
    this.latencyMs = options.latencyMs ?? { min: 1, max: 10 };
    for (let i = 0; i < options.nodes; i++) this.add();
  }

  add(): GossipNode {
    const index = this.nodes.length;
    const node = new GossipNode(`n${index}`, index, this.#core());
    this.nodes.push(node);
    this.#byId.set(node.id, node);
    return node;
  }

  #core(): Gossip {
    return new Gossip({
      topics: this.options.topics ?? ["news"],
      rng: seededRng(this.rng.below(2 ** 32)),
      thrifty: this.options.thrifty ?? false,
    });
  }

  /** The channels that `src/agent/links.ts` keeps: everybody of few, ring fingers of many; the order is random. */
  connectAll(): void {
    const pairs: [GossipNode, GossipNode][] = [];
    const count = this.nodes.length;
    const seen = new Set<number>();
    const pair = (a: number, b: number) => {
      const key = Math.min(a, b) * count + Math.max(a, b);
      if (a === b || seen.has(key)) return;
      seen.add(key);
      pairs.push([this.nodes[a]!, this.nodes[b]!]);
    };
    for (let i = 0; i < count; i++) {
      if (count <= 32) { for (let j = i + 1; j < count; j++) pair(i, j); }
      else for (let step = 1; step < count; step *= 2) pair(i, (i + step) % count);
    }
    for (const [a, b] of shuffled(pairs, this.rng)) {
      this.connect(a, b);
      for (const [one, other] of [[a, b], [b, a]] as const) {
        this.#wanted.set(one, (this.#wanted.get(one) ?? new Set()).add(other));
      }
    }
  }

  connect(a: GossipNode, b: GossipNode): void {
    if (!a.up || !b.up || a.peers.has(b)) return;
    a.peers.add(b);
    b.peers.add(a);
    this.step(a, { type: "peer-up", nowMs: this.nowMs, nodeId: b.id, outbound: true });
    this.step(b, { type: "peer-up", nowMs: this.nowMs, nodeId: a.id, outbound: false });
  }

  disconnect(a: GossipNode, b: GossipNode): void {
    if (!a.peers.delete(b)) return;
    b.peers.delete(a);
    this.step(a, { type: "peer-down", nowMs: this.nowMs, nodeId: b.id });
    this.step(b, { type: "peer-down", nowMs: this.nowMs, nodeId: a.id });
  }

  /** The node dies; the others notice. */
  kill(node: GossipNode): void {
    for (const peer of [...node.peers]) this.disconnect(node, peer);
    node.up = false;
    node.timer += 1;
  }

  /** It is back, and has forgotten everything. */
  revive(node: GossipNode): void {
    node.up = true;
    node.upSinceMs = this.nowMs;
    node.core = this.#core();
    for (const peer of this.#wanted.get(node) ?? []) this.connect(node, peer);
  }

  publish(node: GossipNode, text: string, topic = "news"): void {
    node.got.set(text, this.nowMs);
    node.hops.set(text, 0);
    this.step(node, { type: "publish", nowMs: this.nowMs, topic, body: new TextEncoder().encode(text) });
  }

  /** Sends bytes from a node that makes its own. */
  raw(from: GossipNode, to: GossipNode, bytes: Uint8Array): void {
    from.frames += 1;
    from.bytes += bytes.length;
    if (!from.peers.has(to) || this.rng.below(1_000_000) < this.lossPpm) return;
    this.after(this.#delay(), () => {
      if (!to.up || !to.peers.has(from)) return;
      if (to.bad) return to.bad(from, bytes);
      this.step(to, { type: "frame", nowMs: this.nowMs, from: from.id, bytes });
    });
  }

  step(node: GossipNode, event: GossipEvent): void {
    if (!node.up) return;
    node.steps += 1;
    for (const effect of node.core.step(event)) this.#run(node, effect);
  }

  after(waitMs: number, run: () => void): void {
    this.#agenda.add(this.nowMs + waitMs, run);
  }

  run(ms: number): void {
    const endMs = this.nowMs + ms;
    while ((this.#agenda.nextMs ?? Infinity) <= endMs) {
      const next = this.#agenda.take()!;
      this.nowMs = Math.max(this.nowMs, next.atMs);
      next.run();
    }
    this.nowMs = endMs;
  }

  /** Sums over all nodes. */
  totals(): { frames: number; bytes: number; messages: number; received: number; pulled: number; duplicates: number } {
    const out = { frames: 0, bytes: 0, messages: 0, received: 0, pulled: 0, duplicates: 0 };
    for (const node of this.nodes) {
      const { counters } = node.core.view(this.nowMs);
      out.frames += counters.framesOut;
      out.bytes += counters.bytesOut;
      out.messages += counters.messagesOut;
      out.received += counters.received;
      out.pulled += counters.pulled;
      out.duplicates += counters.duplicates;
    }
    return out;
  }

  #delay(): number {
    return this.latencyMs.min + this.rng.below(this.latencyMs.max - this.latencyMs.min + 1);
  }

  #run(node: GossipNode, effect: GossipEffect): void {
    switch (effect.type) {
      case "send": {
        if (node.filter && !node.filter(effect)) return;
        return this.raw(node, this.#byId.get(effect.to)!, effect.bytes);
      }
      case "deliver": {
        const text = new TextDecoder().decode(effect.body);
        const verdict = this.options.judge?.(node, effect.topic, effect.body) ?? "accept";
        if (verdict === "accept") {
          if (!node.got.has(text)) node.got.set(text, this.nowMs);
          node.hops.set(text, (this.#byId.get(effect.from)?.hops.get(text) ?? 0) + 1);
        }
        return this.step(node, { type: "verdict", nowMs: this.nowMs, id: effect.id, verdict });
      }
      case "misbehaved":
        node.misbehaved.set(effect.what, (node.misbehaved.get(effect.what) ?? 0) + 1);
        return;
      case "wakeAt": {
        const timer = ++node.timer;
        if (effect.atMs === Infinity) return;
        return this.after(Math.max(1, effect.atMs - this.nowMs), () => {
          if (node.timer !== timer || !node.up) return;
          node.wakes += 1;
          this.step(node, { type: "wake", nowMs: this.nowMs });
        });
      }
      default:
        effect satisfies never;
    }
  }
}
