/** Three Raft nodes in one process, with a queue for a network and memory for a disk: what `raft.ts` measures. @module */

import { seededRng } from "../src/core/rng.ts";
import { configOf } from "../src/raft/config.ts";
import type { RaftEffect, RaftEvent } from "../src/raft/effects.ts";
import { decodeMessage, encodeMessage, type RaftMessage } from "../src/raft/messages.ts";
import { Raft } from "../src/raft/raft.ts";

/** What a run came to. */
export interface RaftRun {
  readonly perSecond: number;
  readonly p50Us: number;
  readonly p99Us: number;
}

/** Options of {@linkcode runRaft}. */
export interface RaftRunOptions {
  readonly clients: number;
  readonly runMs: number;
  readonly valueBytes: number;
  readonly nodes?: number;
  /** Whether messages are encoded and decoded on their way, as between machines. @default false */
  readonly wire?: boolean;
}

const NAMES = ["n0", "n1", "n2", "n3", "n4", "n5", "n6"];

/**
 * Clients that each propose one value and wait until it is applied by the leader, over and over.
 *
 * The nodes take turns: what came while the others worked is handed over together, as a runtime's queue would.
 */
export function runRaft(options: RaftRunOptions): RaftRun {
  const { clients, runMs, valueBytes, nodes = 3, wire = false } = options;
  const names = NAMES.slice(0, nodes);
  let nowMs = 0;
  const inbox: { to: Raft; from: string; message: RaftMessage | Uint8Array }[] = [];
  const rafts = new Map<string, Raft>();
  /** Applied values of each node; the last one is kept as a state machine would. */
  const last = new Map<string, Uint8Array>();
  let leader: Raft | undefined;
  const waiting = new Map<number, number>();
  const began = new Float64Array(clients);
  let ready: number[] = [];
  const took: number[] = [];

  const step = (raft: Raft, event: RaftEvent) => carryOut(raft, raft.step(event));
  const carryOut = (raft: Raft, effects: readonly RaftEffect[]): void => {
    for (const effect of effects) {
      switch (effect.type) {
        case "send": {
          const message = wire ? encodeMessage(effect.message) : effect.message;
          inbox.push({ to: rafts.get(effect.to)!, from: raft.id, message });
          break;
        }
        case "persist":
          carryOut(raft, effect.then);
          step(raft, { type: "persisted", seq: effect.seq, nowMs });
          break;
        case "accepted":
          waiting.set(effect.index, effect.id);
          break;
        case "apply": {
          const { entries } = effect;
          for (const entry of entries) {
            if (entry.kind !== "data") continue;
            last.set(raft.id, entry.data);
            if (raft !== leader) continue;
            const client = waiting.get(entry.index);
            if (client === undefined) continue;
            waiting.delete(entry.index);
            took.push(performance.now() - began[client]!);
            ready.push(client);
          }
          const { index } = entries.at(-1)!;
          step(raft, { type: "applied", index, nowMs });
          // A log that nobody cuts grows without end: the program compacts as well.
          if (index % 8_192 === 0 || index - raft.view.snapshotIndex > 16_384) {
            step(raft, { type: "compact", index, data: last.get(raft.id)!, nowMs });
          }
          break;
        }
        case "role":
          if (effect.role === "leader") leader = raft;
          break;
        case "refused":
          throw new Error(`A proposal was refused: ${effect.reason}`);
        default:
      }
    }
  };
  const drain = () => {
    for (let at = 0; at < inbox.length; at++) {
      const { to, from, message } = inbox[at]!;
      step(to, {
        type: "message",
        from,
        message: message instanceof Uint8Array ? decodeMessage(message) : message,
        nowMs,
      });
    }
    inbox.length = 0;
  };

  for (const id of names) {
    rafts.set(id, new Raft({ id, rng: seededRng(1), incarnation: 1, founding: configOf(names) }));
    step(rafts.get(id)!, { type: "start", nowMs });
  }
  step(rafts.get("n0")!, { type: "campaign", nowMs });
  drain();
  if (!leader) throw new Error("Nobody leads");

  const turn = () => {
    const asking = ready;
    ready = [];
    const at = performance.now();
    const proposals = asking.map((id) => {
      began[id] = at;
      return { id, data: new Uint8Array(valueBytes) };
    });
    step(leader!, { type: "propose", proposals, nowMs });
    drain();
  };
  const during = (ms: number) => {
    const startMs = performance.now();
    for (let at = startMs; at - startMs < ms; at = performance.now()) {
      nowMs = at;
      for (const raft of rafts.values()) if (at - heartbeatMs >= 50) step(raft, { type: "wake", nowMs });
      if (at - heartbeatMs >= 50) heartbeatMs = at;
      turn();
    }
    return performance.now() - startMs;
  };
  let heartbeatMs = performance.now();
  ready = Array.from({ length: clients }, (_, i) => i);
  during(300);
  took.length = 0;
  const elapsedMs = during(runMs);
  took.sort((a, b) => a - b);
  return {
    perSecond: took.length / elapsedMs * 1000,
    p50Us: took[took.length >> 1]! * 1000,
    p99Us: took[Math.floor(took.length * 0.99)]! * 1000,
  };
}

if (import.meta.main) {
  const [clients = 1, runMs = 2_000, valueBytes = 256] = Deno.args.map(Number);
  console.log(JSON.stringify(runRaft({ clients, runMs, valueBytes, wire: Deno.args.includes("wire") })));
}
