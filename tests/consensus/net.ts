/** Consensus cores on a network of one queue: what tests steer by hand and scripts print. @module */

import { toHex } from "../../src/core/bytes.ts";
import type { Certificate } from "../../src/consensus/certificate.ts";
import { Consensus } from "../../src/consensus/consensus.ts";
import type {
  ConsensusEffect,
  ConsensusEvent,
  ConsensusOptions,
  StoredInstance,
  Submit,
} from "../../src/consensus/effects.ts";
import { type ConsensusMessage, decodeMessage, encodeMessage } from "../../src/consensus/messages.ts";
import { bitmapOf } from "../../src/consensus/statements.ts";
import { NETWORK, tableOf, testVoters } from "./kit.ts";

/** A network that loses nothing, as long as the test does not say so; time moves when nothing else is left. */
export class Net {
  readonly cores = new Map<string, Consensus>();
  readonly decided = new Map<string, Extract<ConsensusEffect, { readonly type: "decided" }>[]>();
  readonly effects: { readonly at: string; readonly effect: ConsensusEffect }[] = [];
  readonly sent: { readonly from: string; readonly to: string; readonly message: ConsensusMessage }[] = [];
  readonly disks = new Map<string, Map<string, StoredInstance>>();
  /** Drops where it says false. */
  passes: (from: string, to: string, message: ConsensusMessage) => boolean = () => true;
  votes: (id: string) => boolean = () => true;
  nowMs = 1_000;
  readonly table;
  readonly #voters;
  readonly #queue: { readonly to: string; readonly event: ConsensusEvent }[] = [];
  readonly #wakes = new Map<string, number>();

  constructor(count: number, readonly options: Partial<ConsensusOptions> = {}) {
    this.#voters = testVoters(count);
    this.table = tableOf(this.#voters);
    for (const { id } of this.#voters) this.restart(id);
  }

  restart(id: string): void {
    const { key } = this.#voters.find((one) => one.id === id)!;
    this.cores.set(id, new Consensus({ networkId: NETWORK, id, key, table: this.table, options: this.options }));
    const stored = [...this.disks.get(id)?.values() ?? []];
    this.step(id, { type: "start", nowMs: this.nowMs, stored, number: this.numbers.get(id) ?? 0 });
  }

  readonly numbers = new Map<string, number>();

  submit(id: string, ...submits: readonly Partial<Submit>[]): void {
    const operation = { kind: "test/good", body: new Uint8Array(0) };
    this.step(id, {
      type: "submit",
      nowMs: this.nowMs,
      submits: submits.map((one, i) => ({ id: i + 1, class: "critical", lane: "a", priority: 1, operation, ...one })),
    });
  }

  step(id: string, event: ConsensusEvent): void {
    this.#carryOut(id, this.cores.get(id)!.step(event));
  }

  #carryOut(id: string, effects: readonly ConsensusEffect[]): void {
    for (const effect of effects) {
      this.effects.push({ at: id, effect });
      if (effect.type === "persist") {
        const disk = this.disks.get(id) ?? new Map();
        for (const one of effect.put) disk.set(toHex(one.instance), one);
        this.disks.set(id, disk);
        if (effect.number !== undefined) this.numbers.set(id, effect.number);
        this.#carryOut(id, effect.then);
        this.#queue.push({ to: id, event: { type: "persisted", nowMs: this.nowMs, seq: effect.seq } });
      } else if (effect.type === "send") {
        this.sent.push({ from: id, to: effect.to, message: effect.message });
        if (!this.passes(id, effect.to, effect.message)) continue;
        const message = decodeMessage(encodeMessage(effect.message));
        this.#queue.push({ to: effect.to, event: { type: "message", nowMs: this.nowMs, from: id, message } });
      } else if (effect.type === "verify") {
        const vote = bitmapOf(effect.operations.map((one) => this.votes(id) === (one.kind !== "test/bad")));
        this.#queue.push({ to: id, event: { type: "verified", nowMs: this.nowMs, instance: effect.instance, vote } });
      } else if (effect.type === "decided") {
        this.decided.set(id, [...this.decided.get(id) ?? [], effect]);
      } else if (effect.type === "wakeAt") this.#wakes.set(id, effect.atMs);
    }
  }

  /** Until nothing is left to be done, or `forMs` are over. */
  run(forMs = 0): void {
    const end = this.nowMs + forMs;
    for (;;) {
      const next = this.#queue.shift();
      if (next) {
        this.step(next.to, { ...next.event, nowMs: this.nowMs });
        continue;
      }
      const atMs = Math.min(...this.#wakes.values());
      if (atMs > end) return;
      this.nowMs = Math.max(this.nowMs, atMs);
      for (const [id, at] of [...this.#wakes]) {
        if (at > this.nowMs) continue;
        this.#wakes.delete(id);
        this.step(id, { type: "wake", nowMs: this.nowMs });
      }
    }
  }

  certificate(): Certificate {
    return [...this.decided.values()][0]![0]!.certificate;
  }
}
