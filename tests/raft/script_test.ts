import { utf8 } from "../../src/core/bytes.ts";
import type { Rng } from "../../src/core/rng.ts";
import { type ConfigChange, configOf, type Transition } from "../../src/raft/config.ts";
import type { RaftEffect, RaftEvent, RaftOptions } from "../../src/raft/effects.ts";
import type { RaftMessage } from "../../src/raft/messages.ts";
import { Raft } from "../../src/raft/raft.ts";
import { type ScriptCommand, testScripts } from "../testkit/script_runner.ts";
import { describeConfig, describeEffect, describeEntry, describeMessage } from "./describe.ts";
import { Disk, type Persist } from "./disk.ts";

interface Node {
  readonly id: string;
  readonly disk: Disk;
  readonly founding: boolean;
  raft: Raft | undefined;
  /** Persist effects wait for the command `disk`. */
  slow: boolean;
  writes: Persist[];
  wakeMs: number;
  starts: number;
}

interface Sent {
  readonly from: string;
  readonly to: string;
  readonly message: RaftMessage;
}

/** A few nodes, a queue of messages between them, and a clock that commands move. */
class Cluster {
  readonly #nodes = new Map<string, Node>();
  readonly #voters: readonly string[];
  readonly #learners: readonly string[];
  readonly #options: Partial<RaftOptions>;
  #queue: Sent[] = [];
  #cut = new Set<string>();
  #nowMs = 0;
  #lines: string[] = [];
  #proposals = 0;

  constructor(command: ScriptCommand) {
    this.#voters = words(command.text("voters"));
    this.#learners = words(command.text("learners", ""));
    const joining = words(command.text("joining", ""));
    this.#options = {
      heartbeatMs: 100,
      electionTimeoutMs: 1_000,
      appendBytesMax: command.int("append-bytes", 65_536),
      inflightsMax: command.int("inflights", 64),
      uncommittedBytesMax: command.int("uncommitted-bytes", 65_536),
      trailingEntries: command.int("trailing", 0),
      chunkBytes: command.int("chunk", 1_000),
      commitNoticeMs: command.int("commit-notice", 0),
    };
    for (const id of [...this.#voters, ...this.#learners, ...joining]) {
      const founding = !joining.includes(id);
      this.#nodes.set(id, {
        id,
        disk: new Disk(),
        founding,
        raft: undefined,
        slow: false,
        writes: [],
        wakeMs: Infinity,
        starts: 0,
      });
    }
  }

  /** Carries out a command and returns what was seen. */
  run(command: ScriptCommand): readonly string[] {
    this.#lines = [];
    const { name } = command;
    const nowMs = this.#nowMs;
    const node = () => this.#node(command.text("node"));
    const step = (event: RaftEvent) => this.#step(node(), event);
    switch (name) {
      case "cluster":
        for (const one of this.#nodes.values()) this.#start(one);
        // Most scripts begin behind an election, which `campaign.txt` shows.
        if (command.has("leader")) {
          this.#step(this.#node(command.text("leader")), { type: "campaign", nowMs });
          this.#deliver(command);
        }
        if (command.name === "cluster" && !command.has("show")) return [];
        break;
      case "campaign":
      case "forget-leader":
        step({ type: name, nowMs });
        break;
      case "propose": {
        const proposals = words(command.text("data")).map((data) => ({ id: ++this.#proposals, data: utf8(data) }));
        step({ type: "propose", proposals, nowMs });
        break;
      }
      case "change": {
        const changes: ConfigChange[] = (["add-voter", "add-learner", "remove"] as const).flatMap((op) =>
          words(command.text(op, "")).map((id) => ({ op, node: id }))
        );
        const transition = command.text("transition", "auto") as Transition;
        step({ type: "change-config", id: ++this.#proposals, changes, transition, nowMs });
        break;
      }
      case "read":
        step({ type: "read", id: command.int("id"), nowMs });
        break;
      case "transfer":
        step({ type: "transfer", id: ++this.#proposals, to: command.text("to"), nowMs });
        break;
      case "compact": {
        const { appliedIndex } = node().raft!.view;
        step({ type: "compact", index: appliedIndex, data: utf8(`state at ${appliedIndex}`), nowMs });
        break;
      }
      case "pass":
        this.#pass(command.int("ms"));
        break;
      case "deliver":
        this.#deliver(command);
        break;
      case "inject": {
        // A message that was under way for long, or from somebody who is not in the script.
        const target = this.#node(command.text("to"));
        this.#step(target, { type: "message", from: command.text("from"), message: injected(command), nowMs });
        break;
      }
      case "drop": {
        const dropped = this.#take(command);
        this.#lines.push(...dropped.map(({ from, to, message }) => `${from} -> ${to} ${describeMessage(message)}`));
        break;
      }
      case "cut":
        this.#cut = new Set(words(command.text("nodes", "")));
        break;
      case "slow":
        node().slow = true;
        break;
      case "disk": {
        // Writes finish in their order; all of them unless a number is given.
        const target = node();
        const done = target.writes.splice(0, command.int("count", target.writes.length));
        for (const one of done) this.#durable(target, one);
        break;
      }
      case "crash": {
        const target = node();
        this.#lines.push(`${target.id} loses ${target.writes.length} writes`);
        target.raft = undefined;
        target.writes = [];
        break;
      }
      case "start":
        this.#start(node());
        break;
      case "status":
        for (const one of this.#nodes.values()) this.#status(one);
        break;
      case "log": {
        const { prevIndex, lastIndex } = node().raft!.view;
        for (let i = prevIndex + 1; i <= lastIndex; i++) this.#lines.push(describeEntry(node().raft!.entryAt(i)!));
        break;
      }
      default:
        throw command.unknown();
    }
    return command.has("quiet") ? [] : this.#lines;
  }

  #node(id: string): Node {
    const node = this.#nodes.get(id);
    if (!node) throw new Error(`there is no node ${id}`);
    return node;
  }

  #start(node: Node): void {
    node.wakeMs = Infinity;
    // Spread, but known beforehand: node n stands n·10 ms after T.
    const rng: Rng = { below: (bound) => (Number(node.id) * 10) % bound };
    node.raft = new Raft({
      id: node.id,
      rng,
      incarnation: ++node.starts,
      stored: node.disk.stored,
      options: this.#options,
      ...(node.founding ? { founding: configOf(this.#voters, this.#learners) } : {}),
    });
    this.#step(node, { type: "start", nowMs: this.#nowMs });
  }

  #step(node: Node, event: RaftEvent): void {
    if (!node.raft) return;
    this.#carryOut(node, node.raft.step(event));
  }

  #carryOut(node: Node, effects: readonly RaftEffect[]): void {
    for (const effect of effects) {
      if (effect.type === "wakeAt") {
        node.wakeMs = effect.atMs;
        continue;
      }
      this.#lines.push(`${node.id} ${describeEffect(effect)}`);
      if (effect.type === "send") this.#queue.push({ from: node.id, to: effect.to, message: effect.message });
      if (effect.type === "persist") {
        if (node.slow) node.writes.push(effect);
        else this.#durable(node, effect);
      }
      if (effect.type === "apply") {
        this.#step(node, { type: "applied", index: effect.entries.at(-1)!.index, nowMs: this.#nowMs });
      }
      if (effect.type === "restore") {
        this.#step(node, { type: "applied", index: effect.snapshot.meta.index, nowMs: this.#nowMs });
      }
    }
  }

  #durable(node: Node, effect: Persist): void {
    node.disk.write(effect);
    if (node.slow) this.#lines.push(`${node.id} persisted ${effect.seq}`);
    this.#carryOut(node, effect.then);
    this.#step(node, { type: "persisted", seq: effect.seq, nowMs: this.#nowMs });
  }

  #pass(ms: number): void {
    const end = this.#nowMs + ms;
    for (;;) {
      const next = [...this.#nodes.values()].filter((one) => one.raft && one.wakeMs <= end)
        .sort((a, b) => a.wakeMs - b.wakeMs || (a.id < b.id ? -1 : 1))[0];
      if (!next) break;
      this.#nowMs = Math.max(this.#nowMs, next.wakeMs);
      next.wakeMs = Infinity;
      const before = this.#lines.length;
      this.#step(next, { type: "wake", nowMs: this.#nowMs });
      if (this.#lines.length > before) this.#lines.splice(before, 0, `at ${this.#nowMs}`);
    }
    this.#nowMs = end;
  }

  /** Takes messages out of the queue by `from`, `to` and `type`; all where none is given. */
  #take(command: ScriptCommand): Sent[] {
    const from = words(command.text("from", ""));
    const to = words(command.text("to", ""));
    const type = words(command.text("type", ""));
    const taken = this.#queue.filter((one) =>
      (from.length === 0 || from.includes(one.from)) && (to.length === 0 || to.includes(one.to)) &&
      (type.length === 0 || type.includes(one.message.type))
    );
    this.#queue = this.#queue.filter((one) => !taken.includes(one));
    return taken;
  }

  /** Delivers what is under way, and what that leads to, unless `once` is given. */
  #deliver(command: ScriptCommand): void {
    const once = command.has("once");
    for (let round = 0; round < 100; round++) {
      const taken = this.#take(command);
      if (taken.length === 0) return;
      for (const { from, to, message } of taken) {
        if (this.#cut.has(from) !== this.#cut.has(to)) continue;
        this.#step(this.#node(to), { type: "message", from, message, nowMs: this.#nowMs });
      }
      if (once) return;
    }
    throw new Error("messages go round and round");
  }

  #status(node: Node): void {
    if (!node.raft) {
      this.#lines.push(`${node.id} down`);
      return;
    }
    const { view } = node.raft;
    this.#lines.push(
      `${node.id} ${view.role} term ${view.term} leader ${
        view.leader ?? "unknown"
      } log (${view.prevIndex}, ${view.lastIndex}] ` +
        `stable ${view.stableIndex} commit ${view.commitIndex} applied ${view.appliedIndex}, ${
          describeConfig(view.config)
        }`,
    );
    for (const [id, one] of view.progress) {
      this.#lines.push(
        `  ${id} ${one.state} match ${one.matchIndex} next ${one.nextIndex}${one.probing ? " waiting" : ""}` +
          `${one.inflights > 0 ? ` under way ${one.inflights}` : ""}${one.active ? "" : " silent"}`,
      );
    }
  }
}

function injected(command: ScriptCommand): RaftMessage {
  const place = (text: string) => text.split("@").map(Number) as [number, number];
  const term = command.int("term");
  if (command.text("type") === "vote") {
    const [lastLogIndex, lastLogTerm] = place(command.text("log"));
    return { type: "vote", term, lastLogIndex, lastLogTerm, transfer: false };
  }
  const [prevLogIndex, prevLogTerm] = place(command.text("prev"));
  const entries = words(command.text("entries")).map((one) => {
    const [index, entryTerm] = place(one.split(":")[0]!);
    return { kind: "data", term: entryTerm, index, data: utf8(one.split(":")[1]!) } as const;
  });
  return { type: "append", term, prevLogIndex, prevLogTerm, entries, commitIndex: command.int("commit") };
}

function words(text: string): string[] {
  return text.split(" ").filter((one) => one !== "");
}

testScripts(import.meta.dirname + "/testdata", () => {
  let cluster: Cluster | undefined;
  return (command) => {
    if (command.name === "cluster") cluster = new Cluster(command);
    return cluster!.run(command);
  };
});
