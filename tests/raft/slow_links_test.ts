/** Elections where an answer takes longer than an election timeout. @module */

import assert from "node:assert/strict";
import { utf8 } from "../../src/core/bytes.ts";
import { type Rng, seededRng } from "../../src/core/rng.ts";
import { configOf } from "../../src/raft/config.ts";
import { NOTHING_STORED, type RaftEffect, type RaftEvent } from "../../src/raft/effects.ts";
import { Raft } from "../../src/raft/raft.ts";
import { Agenda } from "../sim/heap.ts";

const VOTERS = ["a", "b", "c", "d", "e", "f", "g"];

/** Voters of seven that are up, on links that take so long each way; disks answer at once. */
class Group {
  nowMs = 0;
  elections = 0;
  readonly #agenda = new Agenda();
  readonly #rafts = new Map<string, Raft>();
  readonly #rng: Rng;

  constructor(seed: number, readonly options: { readonly up: number; readonly minMs: number; readonly maxMs: number }) {
    this.#rng = seededRng(seed);
    for (const id of VOTERS.slice(0, options.up)) {
      const raft = new Raft({
        id,
        rng: seededRng(this.#rng.below(2 ** 32)),
        incarnation: 1,
        founding: configOf(VOTERS),
        stored: NOTHING_STORED,
        options: { electionTimeoutMs: 300, heartbeatMs: 60 },
      });
      this.#rafts.set(id, raft);
      this.#step(raft, { type: "start", nowMs: 0 });
    }
  }

  /** Lets time pass until a write of the leader is committed; returns how long it took. */
  commit(withinMs: number): number {
    const startMs = this.nowMs;
    let asked: { readonly raft: Raft; readonly term: number; readonly index: number } | undefined;
    for (;;) {
      const next = this.#agenda.take()!;
      this.nowMs = Math.max(this.nowMs, next.atMs);
      assert.ok(
        this.nowMs - startMs < withinMs,
        `nothing is committed within ${withinMs} ms, ${this.elections} elections`,
      );
      next.run();
      const leader = [...this.#rafts.values()].find((one) => one.view.role === "leader");
      if (leader && (asked?.raft !== leader || asked.term !== leader.view.term)) {
        asked = { raft: leader, term: leader.view.term, index: leader.view.lastIndex + 1 };
        this.#step(leader, { type: "propose", proposals: [{ id: 1, data: utf8("x") }], nowMs: this.nowMs });
      } else if (leader && leader.view.commitIndex >= asked!.index) return this.nowMs - startMs;
    }
  }

  /** The leader is gone; the others go on. */
  loseLeader(): void {
    for (const [id, raft] of this.#rafts) if (raft.view.role === "leader") this.#rafts.delete(id);
  }

  #step(raft: Raft, event: RaftEvent): void {
    this.#carryOut(raft, raft.step(event));
  }

  #carryOut(raft: Raft, effects: readonly RaftEffect[]): void {
    const { minMs, maxMs } = this.options;
    for (const effect of effects) {
      switch (effect.type) {
        case "send":
          this.#agenda.add(this.nowMs + minMs + this.#rng.below(maxMs - minMs + 1), () => {
            const to = this.#rafts.get(effect.to);
            if (to) this.#step(to, { type: "message", from: raft.id, message: effect.message, nowMs: this.nowMs });
          });
          break;
        case "persist":
          this.#carryOut(raft, effect.then);
          this.#step(raft, { type: "persisted", seq: effect.seq, nowMs: this.nowMs });
          break;
        case "apply":
          this.#step(raft, { type: "applied", index: effect.entries.at(-1)!.index, nowMs: this.nowMs });
          break;
        case "role":
          if (effect.role === "candidate") this.elections += 1;
          break;
        case "wakeAt":
          this.#agenda.add(Math.max(this.nowMs + 1, effect.atMs), () => {
            if (this.#rafts.get(raft.id) === raft) this.#step(raft, { type: "wake", nowMs: this.nowMs });
          });
          break;
        default:
          break;
      }
    }
  }
}

Deno.test("[3.1e] Raft: one is elected, and elected anew, on links that are slower than the election timeout", () => {
  for (let seed = 1; seed <= 20; seed++) {
    const group = new Group(seed, { up: 6, minMs: 20, maxMs: 800 });
    group.commit(30_000);
    group.loseLeader();
    group.commit(30_000);
  }
});
