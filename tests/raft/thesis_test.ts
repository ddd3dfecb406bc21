/** One test per sentence of Ongaro's thesis that matters, with its section. @module */

import assert from "node:assert/strict";
import { utf8 } from "../../src/core/bytes.ts";
import { sha256 } from "../../src/core/crypto.ts";
import { type Rng, seededRng } from "../../src/core/rng.ts";
import { configOf } from "../../src/raft/config.ts";
import { NOTHING_STORED, type RaftEffect, type RaftEvent, type StoredRaft } from "../../src/raft/effects.ts";
import type { Entry, RaftMessage } from "../../src/raft/messages.ts";
import { Raft } from "../../src/raft/raft.ts";
import { describeEffect } from "./describe.ts";

const FIXED: Rng = { below: () => 0 };

/** A log whose entries have these terms. */
function logOf(terms: readonly number[]): Entry[] {
  return terms.map((term, i) => ({ kind: "data", term, index: i + 1, data: utf8(`${i + 1}@${term}`) }));
}

function stored(terms: readonly number[], term = terms.at(-1) ?? 0, votedFor?: string): StoredRaft {
  return { ...NOTHING_STORED, hardState: { term, votedFor }, entries: logOf(terms) };
}

/** A node of three (a, b, c), or more, driven by hand; its disk answers at once unless `slow`. */
class Driven {
  readonly raft: Raft;
  readonly lines: string[] = [];
  readonly sent: { readonly to: string; readonly message: RaftMessage }[] = [];
  readonly pending: (RaftEffect & { readonly type: "persist" })[] = [];
  nowMs = 0;

  constructor(options: { readonly stored?: StoredRaft; readonly slow?: boolean; readonly voters?: string } = {}) {
    const voters = configOf([...options.voters ?? "abc"]);
    this.slow = options.slow ?? false;
    this.raft = new Raft({
      id: "a",
      rng: FIXED,
      incarnation: 1,
      founding: voters,
      stored: options.stored ?? NOTHING_STORED,
    });
    this.step({ type: "start", nowMs: 0 });
  }

  readonly slow: boolean;

  step(event: RaftEvent): void {
    this.#carryOut(this.raft.step(event));
  }

  receive(from: string, message: RaftMessage): void {
    this.step({ type: "message", from, message, nowMs: this.nowMs });
  }

  /** All pending writes are durable. */
  disk(): void {
    for (const one of this.pending.splice(0)) {
      this.#carryOut(one.then);
      this.step({ type: "persisted", seq: one.seq, nowMs: this.nowMs });
    }
  }

  /** Makes it leader of the next term, with the votes of everybody. */
  lead(): this {
    this.step({ type: "campaign", nowMs: this.nowMs });
    const { term } = this.raft.view;
    for (const from of this.raft.view.config.voters) {
      if (from !== "a") this.receive(from, { type: "pre-vote-response", term: term + 1, granted: true });
    }
    for (const from of this.raft.view.config.voters) {
      if (from !== "a") this.receive(from, { type: "vote-response", term: term + 1, granted: true });
    }
    assert.equal(this.raft.view.role, "leader");
    return this;
  }

  take(): RaftMessage[] {
    return this.sent.splice(0).map((one) => one.message);
  }

  #carryOut(effects: readonly RaftEffect[]): void {
    for (const effect of effects) {
      this.lines.push(describeEffect(effect));
      if (effect.type === "send") this.sent.push(effect);
      if (effect.type === "apply") {
        this.step({ type: "applied", index: effect.entries.at(-1)!.index, nowMs: this.nowMs });
      }
      if (effect.type === "persist") {
        this.pending.push(effect);
        if (!this.slow) this.disk();
      }
    }
  }
}

const heartbeat = (term: number, commitIndex = 0): RaftMessage => ({ type: "heartbeat", term, commitIndex, round: 1 });
const vote = (term: number, lastLogIndex = 9, lastLogTerm = 9): RaftMessage => ({
  type: "vote",
  term,
  lastLogIndex,
  lastLogTerm,
  transfer: false,
});
const append = (
  term: number,
  prev: readonly [number, number],
  terms: readonly number[],
  commitIndex = 0,
): RaftMessage => ({
  type: "append",
  term,
  prevLogIndex: prev[0],
  prevLogTerm: prev[1],
  entries: terms.map((one, i) => ({
    kind: "data",
    term: one,
    index: prev[0] + 1 + i,
    data: utf8(`${prev[0] + 1 + i}@${one}`),
  })),
  commitIndex,
});

Deno.test("[3.1c] Thesis 3.3: a candidate or leader whose term is out of date immediately reverts to follower", () => {
  const leader = new Driven().lead();
  const candidate = new Driven();
  candidate.step({ type: "campaign", nowMs: 0 });
  candidate.receive("b", { type: "pre-vote-response", term: 1, granted: true });
  assert.equal(candidate.raft.view.role, "candidate");
  for (const node of [leader, candidate]) {
    node.receive("b", heartbeat(7));
    assert.deepEqual([node.raft.view.role, node.raft.view.term, node.raft.view.leader], ["follower", 7, "b"]);
  }
});

Deno.test("[3.1c] Thesis 3.3: a request with a stale term number is rejected", () => {
  const node = new Driven({ stored: stored([1, 2], 5) });
  for (
    const message of [append(4, [2, 2], [4]), heartbeat(4), vote(4), { ...vote(4), type: "pre-vote" } as RaftMessage]
  ) {
    node.receive("b", message);
    const [answer] = node.take();
    assert.equal(answer!.term, 5);
    assert.ok(answer!.type === "append-reject" || "granted" in answer! && !answer.granted);
  }
  assert.equal(node.raft.view.lastIndex, 2);
});

Deno.test("[3.1c] Thesis 3.4: at most one vote in a term, first come, first served, and again to the same one", () => {
  const node = new Driven();
  const ask = (from: string) => {
    node.receive(from, vote(3));
    return node.take().some((one) => one.type === "vote-response" && one.granted);
  };
  assert.deepEqual([ask("b"), ask("c"), ask("b")], [true, false, true]);
  node.receive("c", vote(4));
  assert.ok(node.take().some((one) => one.type === "vote-response" && one.granted), "a new term, a new vote");
});

Deno.test("[3.1c] Thesis 3.4: election timeouts are chosen randomly from [T, 2T)", () => {
  const times = Array.from({ length: 300 }, (_, seed) => {
    const raft = new Raft({ id: "a", rng: seededRng(seed), incarnation: 1, founding: configOf(["a", "b", "c"]) });
    const wake = raft.step({ type: "start", nowMs: 1_000 }).find((one) => one.type === "wakeAt");
    return wake!.atMs - 1_000;
  });
  assert.ok(Math.min(...times) >= 500 && Math.max(...times) < 1_000);
  assert.ok(Math.min(...times) < 520 && Math.max(...times) > 980, "the whole range is used");
});

Deno.test("[3.1c] Thesis 3.4: a candidate that hears from a leader of its term recognises it", () => {
  const node = new Driven();
  node.step({ type: "campaign", nowMs: 0 });
  node.receive("b", { type: "pre-vote-response", term: 1, granted: true });
  node.receive("c", heartbeat(1));
  assert.deepEqual([node.raft.view.role, node.raft.view.leader, node.raft.view.term], ["follower", "c", 1]);
});

Deno.test("[3.1c] Thesis 3.4: a vote for itself counts only when it is durable (3.8)", () => {
  const node = new Driven({ slow: true });
  node.step({ type: "campaign", nowMs: 0 });
  node.receive("b", { type: "pre-vote-response", term: 1, granted: true });
  assert.deepEqual(node.take().map((one) => one.type), ["pre-vote", "pre-vote"], "votes are not asked for before");
  node.receive("b", { type: "vote-response", term: 1, granted: true });
  assert.equal(node.raft.view.role, "candidate");
  node.disk();
  assert.equal(node.raft.view.role, "leader");
});

Deno.test("[3.1c] Thesis 3.5: a follower that has no entry with prevLogIndex and prevLogTerm refuses the new ones", () => {
  const node = new Driven({ stored: stored([1, 1, 2]) });
  node.receive("b", append(3, [3, 3], [3]));
  node.receive("b", append(3, [4, 2], [3]));
  assert.deepEqual(node.take().map((one) => one.type), ["append-reject", "append-reject"]);
  assert.equal(node.raft.view.lastIndex, 3);
});

Deno.test("[3.1c] Thesis 3.5: entries that are there already are ignored; a late, shorter append cuts nothing off", () => {
  const node = new Driven({ stored: stored([1]) });
  node.receive("b", append(2, [1, 1], [2, 2, 2]));
  node.receive("b", append(2, [1, 1], [2]));
  node.receive("b", append(2, [0, 0], [1]));
  assert.deepEqual(node.take().map((one) => one.type === "append-response" && one.index), [4, 2, 1]);
  assert.equal(node.raft.view.lastIndex, 4);
});

Deno.test("[3.1c] Thesis 3.5: a follower commits no further than the last new entry, whatever else its log holds", () => {
  const node = new Driven({ stored: stored([1, 1, 1], 1) });
  node.receive("b", append(2, [1, 1], [], 3));
  assert.equal(node.raft.view.commitIndex, 1);
});

// The logs of figure 3.6: what a follower may look like when the leader of term 8 comes to power.
const LEADER_36 = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6];
const FOLLOWERS_36: readonly (readonly number[])[] = [
  [1, 1, 1, 4, 4, 5, 5, 6, 6],
  [1, 1, 1, 4],
  [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
  [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
  [1, 1, 1, 4, 4, 4, 4],
  [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
];
for (const [i, terms] of FOLLOWERS_36.entries()) {
  Deno.test(`[3.1c] Thesis 3.5, figure 3.6 (${"abcdef"[i]}): the leader makes the follower's log the same as its own`, () => {
    const leader = new Driven({ stored: stored(LEADER_36, 7) });
    leader.lead();
    const follower = new Driven({ stored: stored(terms, 7) });
    let queue = leader.sent.splice(0).filter((one) => one.to === "b");
    let rounds = 0;
    for (; queue.length > 0; rounds++) {
      assert.ok(rounds < 20, "it ends");
      for (const { message } of queue) follower.receive("x", message);
      for (const message of follower.take()) leader.receive("b", message);
      queue = leader.sent.splice(0).filter((one) => one.to === "b");
    }
    assert.equal(follower.raft.view.lastIndex, LEADER_36.length + 1);
    for (let index = 1; index <= LEADER_36.length + 1; index++) {
      assert.deepEqual(follower.raft.entryAt(index), leader.raft.entryAt(index));
    }
    // One refusal skips a term that the other does not have.
    assert.ok(rounds <= 6, `${rounds} rounds`);
  });
}

Deno.test("[3.1c] Thesis 3.6.1: a voter denies its vote if its own log is more up to date", () => {
  const table: readonly (readonly [readonly number[], number, number, boolean])[] = [
    [[1], 1, 1, true],
    [[1], 2, 1, true],
    [[1, 1], 1, 1, false],
    [[1], 1, 2, true],
    [[1, 1], 1, 2, true],
    [[2], 2, 1, false],
    [[1, 2], 9, 1, false],
    [[], 0, 0, true],
  ];
  for (const [terms, lastLogIndex, lastLogTerm, expected] of table) {
    for (const type of ["vote", "pre-vote"] as const) {
      const node = new Driven({ stored: stored(terms) });
      node.receive("b", { type, term: 5, lastLogIndex, lastLogTerm, transfer: false });
      const [answer] = node.take();
      assert.equal(
        answer && "granted" in answer && answer.granted,
        expected,
        `${type} ${terms} ${lastLogIndex}@${lastLogTerm}`,
      );
    }
  }
});

Deno.test("[3.1c] Thesis 3.6.2, figure 3.7: entries of earlier terms are not committed by counting replicas", () => {
  const leader = new Driven({ stored: stored([1, 2], 3) }).lead();
  leader.receive("b", { type: "append-response", term: 4, index: 2 });
  leader.receive("c", { type: "append-response", term: 4, index: 2 });
  assert.equal(leader.raft.view.commitIndex, 0, "entry 2 of term 2 is on all three");
  leader.receive("b", { type: "append-response", term: 4, index: 3 });
  assert.equal(leader.raft.view.commitIndex, 3, "the entry of its own term commits all before it");
});

Deno.test("[3.1c] Thesis 3.8: nothing is acknowledged before it is durable, also when it is repeated", () => {
  const node = new Driven({ slow: true });
  node.receive("b", append(1, [0, 0], [1, 1]));
  node.receive("b", append(1, [0, 0], [1, 1]));
  assert.deepEqual(node.take(), []);
  node.disk();
  assert.deepEqual(node.take().map((one) => one.type), ["append-response", "append-response"]);
  const voter = new Driven({ slow: true });
  voter.receive("b", vote(3));
  assert.deepEqual(voter.take(), []);
  assert.deepEqual(voter.pending[0]!.hardState, { term: 3, votedFor: "b" });
});

Deno.test("[3.1c] Thesis 3.8: a vote in a term that is stored already is durable before it is answered", () => {
  const voter = new Driven({ slow: true, stored: stored([1], 3) });
  voter.receive("b", vote(3));
  assert.deepEqual(voter.take(), []);
  assert.deepEqual(voter.pending.map((one) => one.hardState), [{ term: 3, votedFor: "b" }]);
  voter.disk();
  assert.deepEqual(voter.take(), [{ type: "vote-response", term: 3, granted: true }]);
});

Deno.test("[3.1c] Thesis 3.8: a restarted node keeps its term and its vote, and applies its state machine again", () => {
  const node = new Driven({ stored: stored([1, 1], 6, "b") });
  node.receive("c", vote(6));
  assert.ok(node.take().every((one) => "granted" in one && !one.granted));
  node.receive("b", heartbeat(6, 2));
  assert.ok(node.lines.some((one) => one === 'apply 1@1 "1@1", 2@1 "2@1"'), node.lines.join("\n"));
});

Deno.test("[3.1c] Thesis 4.1: a configuration counts from when it is appended, and no longer when it is cut off", () => {
  const node = new Driven();
  const config = configOf(["a", "b"]);
  node.receive(
    "b",
    { ...append(1, [0, 0], []), entries: [{ kind: "config", term: 1, index: 1, config }] } as RaftMessage,
  );
  assert.deepEqual(node.raft.view.config, config);
  assert.equal(node.raft.view.configCommitted, false);
  node.receive("c", append(2, [0, 0], [2]));
  assert.deepEqual(node.raft.view.config, configOf(["a", "b", "c"]));
});

Deno.test("[3.1c] Thesis 4.1, corrected 2015: no configuration is changed before an entry of the term is committed", () => {
  const leader = new Driven().lead();
  const change = {
    type: "change-config",
    id: 1,
    changes: [{ op: "remove", node: "c" }],
    transition: "auto",
    nowMs: 0,
  } as const;
  leader.step(change);
  assert.ok(leader.lines.includes("refused 1: change-pending, leader a"));
  leader.receive("b", { type: "append-response", term: 1, index: 1 });
  leader.step(change);
  assert.deepEqual(leader.raft.view.config, configOf(["a", "b"]));
});

Deno.test("[3.1c] Thesis 6.4: a leader answers no read before a round of heartbeats that began after it", () => {
  const leader = new Driven().lead();
  leader.receive("b", { type: "append-response", term: 1, index: 1 });
  const ready = () => leader.lines.filter((one) => one.startsWith("read "));
  // A round that began before the read proves nothing about it.
  leader.nowMs = 50;
  leader.step({ type: "wake", nowMs: 50 });
  leader.step({ type: "read", id: 1, nowMs: 50 });
  leader.receive("b", { type: "heartbeat-response", term: 1, round: 1 });
  assert.deepEqual(ready(), []);
  leader.receive("b", { type: "heartbeat-response", term: 1, round: 2 });
  assert.deepEqual(ready(), ["read 1 ready at 1"]);
});

Deno.test("[3.1c] Thesis 6.4: an answer to an earlier life's read answers none of this", () => {
  const node = new Driven();
  node.receive("b", heartbeat(1));
  node.step({ type: "read", id: 1, nowMs: 0 });
  node.receive("b", { type: "read-response", term: 1, incarnation: 0, id: 1, index: 0 });
  assert.ok(!node.lines.some((one) => one.startsWith("read ")));
  node.receive("b", { type: "read-response", term: 1, incarnation: 1, id: 1, index: 0 });
  assert.ok(node.lines.includes("read 1 ready at 0"));
});

Deno.test("[3.1c] Thesis 10.2.1: the leader writes to its disk in parallel, and counts itself only afterwards", () => {
  const leader = new Driven({ slow: true });
  leader.step({ type: "campaign", nowMs: 0 });
  leader.receive("b", { type: "pre-vote-response", term: 1, granted: true });
  leader.receive("b", { type: "vote-response", term: 1, granted: true });
  leader.disk();
  assert.ok(
    leader.take().some((one) => one.type === "append" && one.entries.length === 1),
    "sent before its own disk has it",
  );
  assert.equal(leader.raft.view.stableIndex, 0);
  leader.receive("b", { type: "append-response", term: 1, index: 1 });
  assert.equal(leader.raft.view.commitIndex, 0, "one durable copy of three");
  leader.receive("c", { type: "append-response", term: 1, index: 1 });
  assert.equal(leader.raft.view.commitIndex, 1, "two, without its own");
  assert.equal(leader.raft.view.appliedIndex, 0, "applied is what is durable here");
  leader.disk();
  assert.equal(leader.raft.view.appliedIndex, 1);
});

Deno.test("[3.1c] what contradicts a commit, a second leader, or a term out of reach is dropped and changes nothing", () => {
  const node = new Driven();
  node.receive("b", append(2, [0, 0], [1, 1], 2));
  node.receive("b", append(2, [1, 1], [2]));
  node.receive("c", heartbeat(2));
  node.receive("c", heartbeat(2 ** 40));
  assert.deepEqual(node.lines.filter((one) => one.startsWith("drop")), [
    "drop from c: conflict",
    "drop from c: term-jump",
  ]);
  node.receive("b", append(2, [1, 1], [2, 2]));
  assert.ok(node.lines.includes("drop from b: conflict"));
  assert.deepEqual([node.raft.view.term, node.raft.view.lastIndex, node.raft.view.leader], [2, 2, "b"]);
});

Deno.test("[3.1c] a clock that is set back moves what was planned, and elections still come", () => {
  const node = new Driven();
  node.step({ type: "wake", nowMs: 400 });
  const before = node.lines.length;
  node.step({ type: "wake", nowMs: -10_000 });
  assert.deepEqual(node.lines.slice(before), ["wake at -9900"], "100 ms were left of T");
  node.step({ type: "wake", nowMs: -9_900 });
  assert.equal(node.raft.view.role, "pre-candidate");
});

Deno.test("[3.1c] Thesis 3.8: the end of an earlier write does not make the vote for itself durable", () => {
  const node = new Driven({ slow: true });
  node.receive("b", append(1, [0, 0], [1]));
  node.step({ type: "campaign", nowMs: 0 });
  node.receive("c", { type: "pre-vote-response", term: 2, granted: true });
  node.receive("c", { type: "vote-response", term: 2, granted: true });
  assert.deepEqual(node.pending.map((one) => one.hardState?.term), [1, 2]);
  node.step({ type: "persisted", seq: node.pending[0]!.seq, nowMs: 0 });
  assert.equal(node.raft.view.role, "candidate", "a crash now would forget the vote");
  node.step({ type: "persisted", seq: node.pending[1]!.seq, nowMs: 0 });
  assert.equal(node.raft.view.role, "leader");
});

const META = {
  index: 9,
  term: 2,
  config: configOf(["a", "b", "c"]),
  sizeBytes: 4,
  digest: sha256(utf8("good")),
};
const chunk = (term: number, offset: number, data: string): RaftMessage => ({
  type: "snapshot",
  term,
  meta: META,
  offset,
  data: utf8(data),
});
const offsets = (node: Driven) =>
  node.take().map((one) =>
    one.type === "snapshot-response" ? one.offset : one.type === "append-response" ? "done" : one.type
  );

Deno.test("[3.1e] Thesis 5.1: a snapshot goes on where it ended, under another leader too", () => {
  const node = new Driven();
  node.receive("b", chunk(3, 0, "go"));
  node.receive("b", chunk(3, 0, "go"));
  node.receive("b", chunk(3, 3, "d"));
  assert.deepEqual(offsets(node), [2, 2, 2], "repeated and out of order: nothing is lost or taken twice");
  node.receive("c", chunk(4, 2, "od"));
  assert.deepEqual(offsets(node), ["done"]);
  assert.ok(node.lines.includes("restore 9@2"));
  assert.deepEqual([node.raft.view.commitIndex, node.raft.view.lastIndex, node.raft.view.prevIndex], [9, 9, 9]);
});

Deno.test("[3.1e] Thesis 5.1: a snapshot whose bytes are not what its digest says is not installed, and asked for anew", () => {
  const node = new Driven();
  node.receive("b", chunk(3, 0, "go"));
  node.receive("b", chunk(3, 2, "ne"));
  assert.deepEqual(offsets(node), [2, 0]);
  assert.equal(node.raft.view.commitIndex, 0);
  node.receive("b", chunk(3, 0, "good"));
  assert.deepEqual(offsets(node), ["done"]);
});

Deno.test("[3.1e] Thesis 5.1: a snapshot of what the log already holds replaces nothing", () => {
  const node = new Driven({ stored: stored([1, 1, 1, 1, 1, 1, 1, 2, 2, 2], 2) });
  node.receive("b", chunk(3, 0, "go"));
  assert.deepEqual(offsets(node), ["done"]);
  assert.deepEqual([node.raft.view.commitIndex, node.raft.view.lastIndex], [9, 10]);
});

Deno.test("[3.1c] reads are bounded, and one that nobody answers ends", () => {
  const raft = new Raft({
    id: "a",
    rng: FIXED,
    incarnation: 1,
    founding: configOf(["a", "b", "c"]),
    options: { readsMax: 2 },
  });
  raft.step({ type: "message", from: "b", message: heartbeat(1), nowMs: 0 });
  const read = (id: number) => raft.step({ type: "read", id, nowMs: 0 }).map(describeEffect);
  assert.deepEqual(read(1).filter((one) => one.startsWith("->")), ["-> b read-request term 1 read 1"]);
  read(2);
  assert.deepEqual(read(3), ["refused 3: overloaded, leader b"]);
  // The leader is heard from, but its answer was lost.
  raft.step({ type: "message", from: "b", message: heartbeat(1), nowMs: 900 });
  const late = raft.step({ type: "wake", nowMs: 1_000 }).map(describeEffect);
  assert.deepEqual(late.filter((one) => one.startsWith("refused")), [
    "refused 1: read-lost, leader b",
    "refused 2: read-lost, leader b",
  ]);
});
