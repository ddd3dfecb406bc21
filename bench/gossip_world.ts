/**
 * Many nodes in one process that broadcast signed records of 249 bytes to each other over arrays for a network:
 * our gossip, or the floor under any such protocol.
 *
 * usage: deno run -A bench/gossip_world.ts ours|floor NODES MESSAGES
 *
 * Prints one line of JSON, a {@linkcode GossipRun}.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { createPublicKey, verify } from "node:crypto";
import process from "node:process";
import { keyPairFromSeed, sha256, signBytes } from "../src/core/crypto.ts";
import { concatBytes, utf8 } from "../src/core/bytes.ts";
import { type Rng, seededRng, shuffled } from "../src/core/rng.ts";
import { Gossip, type GossipEvent } from "../src/spore/gossip.ts";
import { Agenda } from "../tests/sim/heap.ts";
import { median } from "./processes.ts";

/** What one run came to; medians over its messages. */
export interface GossipRun {
  readonly nodes: number;
  /** From the publication to the delivery at half of the nodes, and at the last. */
  readonly p50Ms: number;
  readonly lastMs: number;
  /** Processor time that went by until the last: what it would take on a machine with nothing else to do. */
  readonly lastCpuMs: number;
  /** Processor time of the whole process per message and node, everything that follows a message included. */
  readonly cpuMs: number;
  /** Times that a message was sent per delivery, and frames of any kind. */
  readonly sends: number;
  readonly frames: number;
}

/** Size of a record, key and signature included. */
export const RECORD_BYTES = 249;
const KEY = keyPairFromSeed(sha256(utf8("bench gossip")));
const PUBLIC_KEY = createPublicKey({
  key: Buffer.concat([Buffer.from("302a300506032b6570032100", "hex"), KEY.publicKey]),
  format: "der",
  type: "spki",
});

/** A record that every node can check by itself. */
export function makeRecord(n: number): Uint8Array {
  const content = new Uint8Array(RECORD_BYTES - 96);
  content.set(sha256(utf8(`record ${n}`)));
  return concatBytes(KEY.publicKey, signBytes(KEY, content), content);
}

/**
 * Whether a record is what its author signed. Not by `core/crypto.ts`: that knows again what it has verified, and
 * all nodes of this process would be one to it.
 */
export function isValid(record: Uint8Array): boolean {
  return verify(null, record.subarray(96), PUBLIC_KEY, record.subarray(32, 96));
}

/** Pairs of nodes with a channel, as `src/agent/links.ts` keeps them: everybody of few, ring fingers of many. */
export function channels(count: number): [number, number][] {
  const pairs: [number, number][] = [];
  const seen = new Set<number>();
  for (let i = 0; i < count; i++) {
    for (let step = 1; step < count; step = count <= 32 ? step + 1 : step * 2) {
      const j = (i + step) % count;
      const key = Math.min(i, j) * count + Math.max(i, j);
      if (!seen.has(key)) pairs.push([i, j]);
      seen.add(key);
    }
  }
  return pairs;
}

/** A kind of broadcast. */
interface Kind {
  /** Says something and carries on until nothing is left to do; `told` is called at each delivery. */
  publish(from: number, record: Uint8Array, told: () => void): void;
  counts(): { readonly sends: number; readonly frames: number };
}

class Ours implements Kind {
  nowMs = 1_000_000;
  readonly #nodes: Gossip[] = [];
  readonly #index = new Map<string, number>();
  readonly #agenda = new Agenda();
  readonly #timer: number[] = [];
  readonly #queue: { readonly to: number; readonly from: string; readonly bytes: Uint8Array }[] = [];
  #told = () => {};

  constructor(count: number) {
    for (let i = 0; i < count; i++) {
      this.#nodes.push(new Gossip({ topics: ["news"], rng: seededRng(i) }));
      this.#index.set(`n${i}`, i);
      this.#timer.push(0);
    }
    for (const [a, b] of shuffled(channels(count), seededRng(count))) {
      this.#step(a, { type: "peer-up", nowMs: this.nowMs, nodeId: `n${b}`, outbound: true });
      this.#step(b, { type: "peer-up", nowMs: this.nowMs, nodeId: `n${a}`, outbound: false });
    }
    this.#settle(10_000);
  }

  publish(from: number, record: Uint8Array, told: () => void): void {
    this.#told = told;
    told();
    this.#step(from, { type: "publish", nowMs: this.nowMs, topic: "news", body: record });
    // Announcements, heartbeats and the end of the cache are part of what a message costs.
    this.#settle(8_000);
  }

  counts() {
    let sends = 0;
    let frames = 0;
    for (const one of this.#nodes) {
      const { counters } = one.view(this.nowMs);
      sends += counters.messagesOut;
      frames += counters.framesOut;
    }
    return { sends, frames };
  }

  /** Carries frames, and lets so much of the nodes' time pass; it is not waited for. */
  #settle(ms: number): void {
    const endMs = this.nowMs + ms;
    for (;;) {
      // Not `shift`: it moves the rest.
      for (let at = 0; at < this.#queue.length; at++) {
        const { to, from, bytes } = this.#queue[at]!;
        this.#step(to, { type: "frame", nowMs: this.nowMs, from, bytes });
      }
      this.#queue.length = 0;
      if ((this.#agenda.nextMs ?? Infinity) > endMs) break;
      const next = this.#agenda.take()!;
      this.nowMs = Math.max(this.nowMs, next.atMs);
      next.run();
    }
    this.nowMs = endMs;
  }

  #step(i: number, event: GossipEvent): void {
    for (const effect of this.#nodes[i]!.step(event)) {
      switch (effect.type) {
        case "send":
          this.#queue.push({ to: this.#index.get(effect.to)!, from: `n${i}`, bytes: effect.bytes });
          break;
        case "deliver": {
          const valid = isValid(effect.body);
          if (valid) this.#told();
          this.#step(i, { type: "verdict", nowMs: this.nowMs, id: effect.id, verdict: valid ? "accept" : "reject" });
          break;
        }
        case "wakeAt": {
          const timer = this.#timer[i]! + 1;
          this.#timer[i] = timer;
          if (effect.atMs === Infinity) break;
          this.#agenda.add(effect.atMs, () => {
            if (this.#timer[i] === timer) this.#step(i, { type: "wake", nowMs: this.nowMs });
          });
          break;
        }
        case "misbehaved":
          throw new Error(`${effect.nodeId}: ${effect.what}`);
        default:
          effect satisfies never;
      }
    }
  }
}

/** Push to six on receipt, one verification a node, nothing else: no repair, no scores, ids that are believed. */
class Floor implements Kind {
  readonly #links: number[][];
  readonly #seen: Set<string>[];
  readonly #queue: { readonly to: number; readonly from: number; readonly bytes: Uint8Array }[] = [];
  #sends = 0;

  constructor(count: number) {
    const rng: Rng = seededRng(count);
    this.#links = Array.from({ length: count }, (_, i) => {
      // The next one as well, so that everybody is reached.
      const others = new Set<number>([(i + 1) % count]);
      while (others.size < Math.min(6, count - 1)) {
        const j = rng.below(count);
        if (j !== i) others.add(j);
      }
      return [...others];
    });
    this.#seen = Array.from({ length: count }, () => new Set());
  }

  publish(from: number, record: Uint8Array, told: () => void): void {
    told();
    this.#seen[from]!.add(idOf(record));
    this.#push(from, from, record);
    for (let at = 0; at < this.#queue.length; at++) {
      const { to, from, bytes } = this.#queue[at]!;
      const id = idOf(bytes);
      if (this.#seen[to]!.has(id) || !isValid(bytes)) continue;
      this.#seen[to]!.add(id);
      told();
      this.#push(to, from, bytes);
    }
    this.#queue.length = 0;
  }

  counts() {
    return { sends: this.#sends, frames: this.#sends };
  }

  #push(i: number, except: number, bytes: Uint8Array): void {
    for (const to of this.#links[i]!) {
      if (to === except) continue;
      this.#sends += 1;
      this.#queue.push({ to, from: i, bytes });
    }
  }
}

/** The first bytes of a record's content, a hash. */
function idOf(record: Uint8Array): string {
  return String.fromCharCode(...record.subarray(96, 112));
}

/** Publishes so many messages one after the other, from node after node. */
export function runGossip(kind: Kind, nodes: number, messages: number): GossipRun {
  const p50: number[] = [];
  const last: number[] = [];
  const lastCpu: number[] = [];
  const publish = (n: number) => {
    const record = makeRecord(n);
    let delivered = 0;
    const startCpuMs = cpuMs();
    const startMs = performance.now();
    let [halfMs, lastMs] = [0, 0];
    kind.publish((n * 7_919) % nodes, record, () => {
      delivered += 1;
      const nowMs = performance.now() - startMs;
      if (delivered === Math.ceil(nodes / 2)) halfMs = nowMs;
      lastMs = nowMs;
      if (delivered === nodes) lastCpu.push(cpuMs() - startCpuMs);
    });
    if (delivered !== nodes) throw new Error(`${delivered} of ${nodes} nodes have message ${n}`);
    p50.push(halfMs);
    last.push(lastMs);
  };
  // The machine's caches, the engine's, and the links that turn lazy.
  const warm = Math.max(20, Math.min(200, 20_000 / nodes));
  for (let i = 0; i < warm; i++) publish(i);
  for (const one of [p50, last, lastCpu]) one.length = 0;
  const before = kind.counts();
  const cpuBefore = cpuMs();
  for (let i = 0; i < messages; i++) publish(warm + i);
  const cpu = cpuMs() - cpuBefore;
  const after = kind.counts();
  const deliveries = messages * (nodes - 1);
  return {
    nodes,
    p50Ms: median(p50),
    lastMs: median(last),
    lastCpuMs: median(lastCpu),
    cpuMs: cpu / messages / nodes,
    sends: (after.sends - before.sends) / deliveries,
    frames: (after.frames - before.frames) / deliveries,
  };
}

/** Processor time of this process so far. */
export function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1_000;
}

if (import.meta.main) {
  const [kind, nodes, messages] = [Deno.args[0], Number(Deno.args[1]), Number(Deno.args[2])];
  const run = runGossip(kind === "floor" ? new Floor(nodes) : new Ours(nodes), nodes, messages);
  console.log(JSON.stringify(run));
}
