/**
 * A cluster from a seed: Raft nodes on a simulated network, disk and clock, with clients, faults and checkers.
 *
 * The seed draws all: how many nodes, how the network loses, delays, repeats and reorders, who is cut off or
 * crashes when (with what was not durable), who joins and leaves. Then the faults stop, and the cluster has to
 * work again.
 *
 * @module
 */

import assert from "node:assert/strict";
import { fromUtf8, utf8 } from "../../src/core/bytes.ts";
import { type Rng, seededRng } from "../../src/core/rng.ts";
import { type ConfigChange, configOf, membersOf } from "../../src/raft/config.ts";
import type { RaftEffect, RaftEvent, RaftOptions } from "../../src/raft/effects.ts";
import { decodeMessage, encodeMessage, type RaftMessage } from "../../src/raft/messages.ts";
import { Raft } from "../../src/raft/raft.ts";
import { Agenda } from "../sim/heap.ts";
import { History, type HistoryLine, type OpenOperation } from "../sim/history.ts";
import { checkLinearizable } from "../sim/linearizable.ts";
import { Checkers } from "./checkers.ts";
import { describeEffect } from "./describe.ts";
import { Disk, type Persist } from "./disk.ts";

/** How long faults go on, and how long a cluster may take to be whole afterwards. Simulated milliseconds. */
const FAULTS_MS = 12_000;
const LIVENESS_MS = 20_000;
const KEYS = 4;

/** What a run did. */
export interface SwarmResult {
  readonly traceHash: number;
  readonly counts: ReadonlyMap<string, number>;
  readonly lines: readonly string[];
  /** What the clients did and were told. */
  readonly history: readonly HistoryLine[];
}

/** Options of {@linkcode runSwarm}. */
export interface SwarmOptions {
  readonly seed: number;
  /** Voters at first; drawn where missing. */
  readonly nodes?: number;
  /** A further check after each step of a node. */
  readonly check?: (raft: Raft) => void;
}

interface WaitingWrite {
  readonly operation: OpenOperation;
  readonly id: number;
  index?: number;
  term?: number;
}

interface SimNode {
  readonly id: string;
  readonly disk: Disk;
  raft: Raft | undefined;
  incarnation: number;
  /** Grows with each crash: what was planned before is void. */
  epoch: number;
  diskFreeMs: number;
  /** The state machine takes what it is given in order. */
  machineFreeMs: number;
  wakeMs: number;
  state: Map<string, string>;
  appliedIndex: number;
  writes: WaitingWrite[];
  reads: { readonly operation: OpenOperation; readonly id: number }[];
}

/** Runs a cluster from a seed. A failure names the seed and the command that replays it. */
export function runSwarm(options: SwarmOptions): SwarmResult {
  const swarm = new Swarm(options);
  try {
    return swarm.run();
  } catch (error) {
    const replay = `deno run tests/raft/run.ts --seed=${options.seed}`;
    throw new Error(
      `Raft: seed ${options.seed} failed at ${swarm.nowMs} ms; replay it with: ${replay}\n${swarm.recent()}\n${
        error instanceof Error ? error.stack : error
      }`,
      { cause: error },
    );
  }
}

class Swarm {
  nowMs = 0;
  readonly #rng: Rng;
  readonly #agenda = new Agenda();
  readonly #nodes = new Map<string, SimNode>();
  readonly #checkers = new Checkers();
  readonly #counts = new Map<string, number>();
  readonly #lines: string[] = [];
  readonly #founders: readonly string[];
  readonly #options: Partial<RaftOptions>;
  #hash = 0x811c9dc5;
  #faults = true;
  #cut = new Set<string>();
  #nextId = 1;
  readonly #history = new History();
  /** What reads found last, by key. */
  readonly #known = new Map<string, string | null>();

  readonly #lossPercent: number;
  readonly #repeatPercent: number;
  readonly #delayMs: number;
  readonly #diskMs: number;
  readonly #wire: boolean;
  readonly #check: (raft: Raft) => void;

  constructor(options: SwarmOptions) {
    this.#check = options.check ?? (() => {});
    this.#rng = seededRng(options.seed);
    const rng = this.#rng;
    const voters = options.nodes ?? [1, 2, 3, 3, 3, 4, 5, 5, 7][rng.below(9)]!;
    this.#founders = Array.from({ length: voters }, (_, i) => `n${i + 1}`);
    this.#lossPercent = [0, 1, 5, 20][rng.below(4)]!;
    this.#repeatPercent = [0, 2, 15][rng.below(3)]!;
    this.#delayMs = [2, 20, 120][rng.below(3)]!;
    this.#diskMs = [0, 0, 5, 40][rng.below(4)]!;
    this.#wire = rng.below(4) === 0;
    this.#options = {
      appendBytesMax: [80, 400, 65_536][rng.below(3)]!,
      inflightsMax: [1, 3, 64][rng.below(3)]!,
      uncommittedBytesMax: [300, 100_000][rng.below(2)]!,
      applyEntriesMax: [1, 5, 1_000][rng.below(3)]!,
      chunkBytes: [7, 50, 10_000][rng.below(3)]!,
      trailingEntries: [0, 3, 1_000][rng.below(3)]!,
      commitNoticeMs: [0, 20][rng.below(2)]!,
    };
    const spare = rng.below(3);
    for (let i = 1; i <= voters + spare; i++) {
      this.#nodes.set(`n${i}`, {
        id: `n${i}`,
        disk: new Disk(),
        raft: undefined,
        incarnation: 0,
        epoch: 0,
        diskFreeMs: 0,
        machineFreeMs: 0,
        wakeMs: Infinity,
        state: new Map(),
        appliedIndex: 0,
        writes: [],
        reads: [],
      });
    }
  }

  run(): SwarmResult {
    for (const node of this.#nodes.values()) this.#start(node);
    this.#plan(() => this.#client(), 30);
    this.#plan(() => this.#accident(), 500);
    this.#plan(() => this.#operator(), 900);
    this.#runUntil(FAULTS_MS);
    this.#faults = false;
    this.#cut.clear();
    this.#note("faults stop");
    for (const node of this.#nodes.values()) if (!node.raft) this.#start(node);
    // All works again within the time, and stays so.
    const deadlineMs = this.nowMs + LIVENESS_MS;
    while (!this.#whole()) {
      assert.ok(
        this.nowMs < deadlineMs,
        `LIVENESS: the cluster is not whole ${LIVENESS_MS} ms after the faults stopped`,
      );
      this.#runUntil(this.nowMs + 500);
    }
    this.#writeOnce(deadlineMs);
    this.#checkHistory();
    this.#count("committed", this.#checkers.committed.length - 1);
    return { traceHash: this.#hash, counts: this.#counts, lines: this.#lines, history: this.#history.lines };
  }

  /** Not only quiet but of use: a write is taken, and reaches all members. */
  #writeOnce(deadlineMs: number): void {
    const data = utf8("end=after");
    // A leader that is handing over, or that nobody follows any more, may refuse it or lose it.
    for (let atMs = this.nowMs; this.#newest()?.state.get("end") !== "after" || !this.#whole(); atMs = this.nowMs) {
      assert.ok(atMs < deadlineMs, "LIVENESS: a write after the faults does not reach all members");
      const leader = this.#newest();
      const proposals = [{ id: this.#nextId++, data }];
      if (leader) this.#step(leader, { type: "propose", proposals, nowMs: atMs });
      this.#runUntil(atMs + 300);
    }
  }

  /** The leader of the newest term. */
  #newest(): SimNode | undefined {
    return [...this.#nodes.values()].filter((one) => one.raft?.view.role === "leader")
      .sort((a, b) => b.raft!.view.term - a.raft!.view.term)[0];
  }

  recent(): string {
    return this.#lines.slice(-60).join("\n");
  }

  /** A leader, a new entry in all its members, and equal states. */
  #whole(): boolean {
    const leader = this.#newest();
    if (!leader) return false;
    const { view } = leader.raft!;
    if (view.commitIndex < view.lastIndex || view.appliedIndex < view.commitIndex) return false;
    const state = JSON.stringify([...leader.state].sort());
    return membersOf(view.config).every((id) => {
      const node = this.#nodes.get(id)!;
      return node.appliedIndex === leader.appliedIndex && JSON.stringify([...node.state].sort()) === state;
    });
  }

  #checkHistory(): void {
    this.#history.close(this.nowMs);
    const { lines } = this.#history;
    this.#count("operations answered", lines.filter((one) => one.type === "ok").length);
    const verdict = checkLinearizable(lines);
    assert.ok(verdict.linearizable, `SAFETY: the history is not linearizable: ${JSON.stringify(verdict)}`);
  }

  // --- The world.

  #runUntil(atMs: number): void {
    while ((this.#agenda.nextMs ?? Infinity) <= atMs) {
      const next = this.#agenda.take()!;
      this.nowMs = next.atMs;
      next.run();
    }
    this.nowMs = atMs;
  }

  /** Again and again while there are faults, at random times around `meanMs`. */
  #plan(what: () => void, meanMs: number): void {
    this.#agenda.add(this.nowMs + 1 + this.#rng.below(2 * meanMs), () => {
      if (!this.#faults) return;
      what();
      this.#plan(what, meanMs);
    });
  }

  #note(line: string): void {
    const full = `${this.nowMs} ${line}`;
    for (let i = 0; i < full.length; i++) this.#hash = Math.imul(this.#hash ^ full.charCodeAt(i), 0x01000193) >>> 0;
    this.#lines.push(full);
    if (this.#lines.length > 4_000) this.#lines.splice(0, 2_000);
  }

  #count(what: string, by = 1): void {
    this.#counts.set(what, (this.#counts.get(what) ?? 0) + by);
  }

  #start(node: SimNode): void {
    const { disk, id } = node;
    node.incarnation += 1;
    const founder = this.#founders.includes(id);
    const stored = disk.stored;
    node.raft = new Raft({
      id,
      rng: seededRng(this.#rng.below(2 ** 32)),
      incarnation: node.incarnation,
      stored,
      options: this.#options,
      ...(founder ? { founding: configOf(this.#founders) } : {}),
    });
    node.state = stateOf(stored.snapshot?.data);
    node.appliedIndex = stored.appliedIndex;
    node.diskFreeMs = node.machineFreeMs = this.nowMs;
    node.wakeMs = Infinity;
    this.#checkers.started(node.raft);
    this.#step(node, { type: "start", nowMs: this.nowMs });
  }

  #crash(node: SimNode): void {
    node.raft = undefined;
    node.epoch += 1;
    // Nobody will tell how these end.
    for (const { operation } of [...node.writes, ...node.reads]) this.#history.end(operation, "info", this.nowMs);
    node.writes = [];
    node.reads = [];
    this.#note(`${node.id} crashes`);
    this.#count("crashes");
  }

  #step(node: SimNode, event: RaftEvent): void {
    const raft = node.raft;
    if (!raft) return;
    const effects = raft.step(event);
    this.#checkers.stepped(raft);
    this.#check(raft);
    this.#carryOut(node, effects);
  }

  #later(node: SimNode, afterMs: number, run: () => void): void {
    const { epoch } = node;
    this.#agenda.add(this.nowMs + afterMs, () => {
      if (node.epoch === epoch && node.raft) run();
    });
  }

  #carryOut(node: SimNode, effects: readonly RaftEffect[]): void {
    for (const effect of effects) {
      if (effect.type !== "wakeAt") this.#note(`${node.id} ${describeEffect(effect)}`);
      switch (effect.type) {
        case "send":
          this.#send(node.id, effect.to, effect.message);
          break;
        case "persist":
          this.#checkers.persisting(node.raft!, effect);
          this.#persist(node, effect);
          break;
        case "apply":
          node.machineFreeMs = Math.max(node.machineFreeMs, this.nowMs + (this.#diskMs > 0 ? this.#rng.below(4) : 0));
          this.#later(node, node.machineFreeMs - this.nowMs, () => {
            this.#checkers.applying(node.id, effect.entries, node.appliedIndex);
            for (const entry of effect.entries) {
              node.appliedIndex = entry.index;
              if (entry.kind === "data") {
                this.#settleWrites(node, entry.index, entry.term, perform(node.state, fromUtf8(entry.data)));
              } else this.#settleWrites(node, entry.index, entry.term, false);
            }
            this.#step(node, { type: "applied", index: node.appliedIndex, nowMs: this.nowMs });
            if (this.#rng.below(20) === 0) this.#compact(node);
          });
          break;
        case "restore":
          node.machineFreeMs = Math.max(node.machineFreeMs, this.nowMs);
          this.#later(node, node.machineFreeMs - this.nowMs, () => {
            node.state = stateOf(effect.snapshot.data);
            node.appliedIndex = effect.snapshot.meta.index;
            // Whether what it had accepted is in there cannot be seen.
            const covered = (one: WaitingWrite) => one.index !== undefined && one.index <= node.appliedIndex;
            for (const one of node.writes.filter(covered)) this.#history.end(one.operation, "info", this.nowMs);
            node.writes = node.writes.filter((one) => !covered(one));
            this.#count("snapshots restored");
            this.#step(node, { type: "applied", index: node.appliedIndex, nowMs: this.nowMs });
          });
          break;
        case "accepted": {
          const write = node.writes.find((one) => one.id === effect.id);
          if (write) [write.index, write.term] = [effect.index, effect.term];
          break;
        }
        case "refused":
          // It never happened.
          for (const one of [...node.writes, ...node.reads]) {
            if (one.id === effect.id) this.#history.end(one.operation, "fail", this.nowMs);
          }
          node.writes = node.writes.filter((one) => one.id !== effect.id);
          node.reads = node.reads.filter((one) => one.id !== effect.id);
          this.#count(`refused ${effect.reason}`);
          break;
        case "read-ready": {
          const read = node.reads.find((one) => one.id === effect.id);
          if (!read) break;
          const { operation } = read;
          this.#history.end(operation, "ok", this.nowMs, node.state.get(operation.key) ?? null);
          this.#known.set(operation.key, node.state.get(operation.key) ?? null);
          node.reads = node.reads.filter((one) => one !== read);
          break;
        }
        case "role":
          if (effect.role === "leader") this.#count("elections");
          break;
        case "config":
          this.#count("configurations");
          break;
        case "wakeAt":
          node.wakeMs = effect.atMs;
          this.#later(node, Math.max(0, effect.atMs - this.nowMs), () => {
            if (effect.atMs === node.wakeMs) this.#step(node, { type: "wake", nowMs: this.nowMs });
          });
          break;
        case "drop":
          this.#count(`drop ${effect.reason}`);
          // No node of ours lies.
          assert.ok(effect.reason !== "conflict" && effect.reason !== "term-jump", `drop ${effect.reason}`);
          break;
      }
    }
  }

  #persist(node: SimNode, effect: Persist): void {
    const finish = () => {
      node.disk.write(effect);
      this.#carryOut(node, effect.then);
      this.#step(node, { type: "persisted", seq: effect.seq, nowMs: this.nowMs });
    };
    if (this.#diskMs === 0) return finish();
    // Disks are slow but keep their order; a crash before loses it.
    node.diskFreeMs = Math.max(node.diskFreeMs, this.nowMs + this.#rng.below(this.#diskMs));
    this.#later(node, node.diskFreeMs - this.nowMs, finish);
  }

  #send(from: string, to: string, message: RaftMessage): void {
    if (message.type === "vote-response" && message.granted) this.#checkers.voted(from, message.term, to);
    if (this.#faults && this.#rng.below(100) < this.#lossPercent) return;
    const copies = this.#faults && this.#rng.below(100) < this.#repeatPercent ? 2 : 1;
    for (let i = 0; i < copies; i++) {
      const slow = this.#faults && this.#rng.below(50) === 0 ? 2_000 : 0;
      const delayMs = 1 + this.#rng.below(this.#faults ? this.#delayMs : 5) + (slow && this.#rng.below(slow));
      this.#agenda.add(this.nowMs + delayMs, () => {
        // One-way cuts: the pair is named in its direction.
        if (this.#cut.has(`${from}>${to}`)) return;
        const node = this.#nodes.get(to);
        if (!node?.raft) return;
        const arrived = this.#wire ? decodeMessage(encodeMessage(message)) : message;
        this.#step(node, { type: "message", from, message: arrived, nowMs: this.nowMs });
      });
    }
  }

  // --- Who does what.

  #pick(): SimNode {
    const all = [...this.#nodes.values()];
    return all[this.#rng.below(all.length)]!;
  }

  /** A client asks the leader that it knows of, or anybody. */
  #client(): void {
    const leaders = [...this.#nodes.values()].filter((one) => one.raft?.view.role === "leader");
    const node = leaders.length > 0 && this.#rng.below(3) > 0
      ? leaders[this.#rng.below(leaders.length)]!
      : this.#pick();
    if (!node.raft) return;
    const key = `k${this.#rng.below(KEYS)}`;
    const id = this.#nextId++;
    const client = `client ${id}`;
    if (this.#rng.below(2) === 0) {
      node.reads.push({ operation: this.#history.invoke(client, "read", key, null, this.nowMs), id });
      this.#step(node, { type: "read", id, nowMs: this.nowMs });
      return;
    }
    const value = `v${id}`;
    // One in three compares first, with what was there when somebody looked last.
    const expected = this.#known.get(key) ?? null;
    const operation = this.#rng.below(3) === 0
      ? this.#history.invoke(client, "cas", key, [expected, value], this.nowMs)
      : this.#history.invoke(client, "write", key, value, this.nowMs);
    node.writes.push({ operation, id });
    const data = utf8(operation.f === "cas" ? `${key}=${value}=${expected ?? ""}` : `${key}=${value}`);
    this.#step(node, { type: "propose", proposals: [{ id, data }], nowMs: this.nowMs });
  }

  /** @param changed Whether the entry did what it said, as far as it compared. */
  #settleWrites(node: SimNode, index: number, term: number, changed: boolean): void {
    for (const write of node.writes.filter((one) => one.index === index)) {
      // Where the term is another one, another entry has its place for good.
      const ok = write.term === term && changed;
      this.#history.end(write.operation, ok ? "ok" : "fail", this.nowMs);
      if (write.operation.f === "cas") this.#count(ok ? "compared and set" : "compared in vain");
      node.writes = node.writes.filter((one) => one !== write);
    }
  }

  #compact(node: SimNode): void {
    const data = utf8(JSON.stringify([...node.state].sort()));
    this.#step(node, { type: "compact", index: node.appliedIndex, data, nowMs: this.nowMs });
  }

  #accident(): void {
    const node = this.#pick();
    switch (this.#rng.below(6)) {
      case 0:
      case 1:
        if (!node.raft) return;
        this.#crash(node);
        this.#agenda.add(this.nowMs + 50 + this.#rng.below(1_500), () => {
          if (!node.raft) this.#start(node);
        });
        return;
      case 2: {
        // A symmetric partition.
        this.#cut.clear();
        const side = new Set([...this.#nodes.keys()].filter(() => this.#rng.below(2) === 0));
        for (const a of this.#nodes.keys()) {
          for (const b of this.#nodes.keys()) if (side.has(a) !== side.has(b)) this.#cut.add(`${a}>${b}`);
        }
        this.#note(`parted: ${[...side].join(" ")}`);
        this.#count("partitions");
        return;
      }
      case 3: {
        const other = this.#pick();
        this.#cut.add(`${node.id}>${other.id}`);
        this.#note(`cut ${node.id}>${other.id}`);
        this.#count("one-way cuts");
        return;
      }
      default:
        this.#cut.clear();
        this.#note("healed");
    }
  }

  #operator(): void {
    const leader = [...this.#nodes.values()].find((one) => one.raft?.view.role === "leader");
    const node = leader ?? this.#pick();
    const { nowMs } = this;
    const id = this.#nextId++;
    switch (this.#rng.below(6)) {
      case 0:
        return this.#step(node, { type: "transfer", id, to: this.#pick().id, nowMs });
      case 1:
        return this.#step(this.#pick(), { type: "campaign", nowMs });
      case 2:
        return this.#step(this.#pick(), { type: "forget-leader", nowMs });
      default: {
        const count = this.#rng.below(4);
        const changes: ConfigChange[] = [];
        for (let i = 0; i < count; i++) {
          const target = this.#pick().id;
          const op = (["add-voter", "add-voter", "add-learner", "remove"] as const)[this.#rng.below(4)]!;
          if (!changes.some((one) => one.node === target)) changes.push({ op, node: target });
        }
        const transition = (["auto", "joint", "joint-explicit"] as const)[this.#rng.below(3)]!;
        return this.#step(node, { type: "change-config", id, changes, transition, nowMs });
      }
    }
  }
}

/** Carries out `key=value`, or `key=value=expected`. Returns whether it changed something. */
function perform(state: Map<string, string>, command: string): boolean {
  const [key, value, expected] = command.split("=");
  if (expected !== undefined && (state.get(key!) ?? "") !== expected) return false;
  state.set(key!, value!);
  return true;
}

function stateOf(snapshot: Uint8Array | undefined): Map<string, string> {
  return new Map(snapshot ? JSON.parse(fromUtf8(snapshot)) as [string, string][] : []);
}
