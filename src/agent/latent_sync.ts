/**
 * Repair: one run at a time, with one member, until both hold the same; and when the next one is due.
 *
 * @module
 */

import { type CborValue, WireError } from "../core/codec.ts";
import { type DigestPart, packIds, Repair } from "../spore/digest.ts";
import {
  deltaAskValue,
  digestAskValue,
  readDeltaAnswer,
  readDigestAnswer,
  squeezed,
  VersionBatch,
  WANTED_MAX,
  type WireVersion,
} from "../spore/messages.ts";
import { type SporeTable, type Version } from "../spore/table.ts";
import type { Context } from "./context.ts";

/** Time between two runs where nothing changes. */
export const SYNC_IDLE_MS = 60_000;
/** Shortest time between two runs that were not asked for. */
export const SYNC_BUSY_MS = 5_000;
/** Time for one answer. */
const ANSWER_MS = 20_000;
/** Runs with members that have just come up, and wait for their turn. */
const WAITING_MAX = 4;
/** Exchanges of messages in one run: what a table of the greatest size takes, and some. */
const ROUNDS_MAX = 4_000;

/** What the pace of repair follows. */
export interface PaceFacts {
  /** Entries that the last runs found to differ, smoothed. */
  readonly churn: number;
  readonly members: number;
  /** Smoothed round trip to the members, milliseconds; 0 where it is not known. */
  readonly rttMs: number;
  /** Whether bytes or joules are dear. */
  readonly sparing: boolean;
}

/**
 * Time until the next run: shorter where runs find differences, longer in a large network (others repair too), over
 * slow paths, and on devices that live on a battery.
 */
export function syncEveryMs(facts: PaceFacts): number {
  const idle = facts.sparing ? 4 * SYNC_IDLE_MS : SYNC_IDLE_MS;
  // Each run with differences halves the wait: 60, 30, 15, 7 s.
  const halvings = Math.min(3, Math.ceil(facts.churn));
  const wait = Math.floor(idle / 2 ** halvings);
  // A record that was lost is repaired by whoever asks first: of many nodes each may ask less often.
  const crowd = facts.members > 64 ? 2 : 1;
  return Math.min(4 * idle, Math.max(SYNC_BUSY_MS, crowd * wait, 100 * Math.ceil(facts.rttMs)));
}

/** What a run came to. */
export interface SyncReport {
  readonly nodeId: string;
  readonly ok: boolean;
  /** Entries that differed. */
  readonly differing: number;
  /** Versions received and sent. */
  readonly received: number;
  readonly sent: number;
  readonly rounds: number;
  readonly elapsedMs: number;
}

interface Run {
  readonly nodeId: string;
  readonly repair: Repair;
  readonly give: string[];
  readonly want: { readonly zone: number; readonly node: number; readonly id: string }[];
  readonly startedMs: number;
  /** Since when an answer is awaited. */
  askedMs: number;
  rounds: number;
  differing: number;
  received: number;
  sent: number;
  /** Codecs that the other reads. */
  codecs: number;
}

/** What the sync asks of the part that it belongs to. */
export interface SyncHost {
  readonly table: SporeTable;
  /** Zones that this node keeps whole. */
  zones(): readonly number[];
  /** Checks and merges what a member gave. */
  learn(versions: readonly WireVersion[], from: string): void;
  /** How long to wait until so many versions of a member may be checked. */
  waitMs(nodeId: string, versions: number): number;
  done(report: SyncReport): void;
}

/** Runs repairs. */
export class SporeSync {
  /** Smoothed number of runs that found differences, 0 to 3. */
  churn = 0;
  readonly #waiting: string[] = [];
  #run: Run | undefined;
  /** A run that waits until more may be checked. */
  #pausedUntilMs: number | undefined;
  #nextMs = 0;

  constructor(readonly ctx: Context, readonly host: SyncHost) {}

  /** A member has come up: it has what we missed, or misses what we have. */
  up(nodeId: string): void {
    if (this.#run?.nodeId === nodeId || this.#waiting.includes(nodeId)) return;
    if (this.#waiting.length < WAITING_MAX) this.#waiting.push(nodeId);
    this.ctx.wakeAt(this.ctx.nowMs);
  }

  /** A member is gone. */
  down(nodeId: string): void {
    const at = this.#waiting.indexOf(nodeId);
    if (at >= 0) this.#waiting.splice(at, 1);
    if (this.#run?.nodeId === nodeId) this.#end(false);
  }

  /** Forgets runs and plans. */
  clear(): void {
    this.#run = undefined;
    this.#waiting.length = 0;
    this.#pausedUntilMs = undefined;
    this.#nextMs = 0;
    this.churn = 0;
  }

  /** Times that were set with another clock count no longer. */
  clockSetBack(): void {
    this.#nextMs = 0;
    if (this.#pausedUntilMs !== undefined) this.#pausedUntilMs = this.ctx.nowMs;
    if (this.#run) this.#run.askedMs = this.ctx.nowMs;
  }

  /** Regular work; returns when it wants to be woken. */
  wake(facts: () => PaceFacts): number {
    const { ctx } = this;
    if (this.#run) {
      if (this.#pausedUntilMs !== undefined && ctx.nowMs >= this.#pausedUntilMs) {
        this.#pausedUntilMs = undefined;
        this.#go();
      }
      return this.#run ? this.#pausedUntilMs ?? this.#run.askedMs + 2 * ANSWER_MS : ctx.nowMs;
    }
    const waiting = this.#waiting.shift();
    if (waiting !== undefined) {
      if (ctx.sessions.get(waiting)?.member) this.#start(waiting);
      return ctx.nowMs;
    }
    const peers = ctx.memberPeers();
    if (peers.length === 0) return Infinity;
    const everyMs = syncEveryMs(facts());
    if (this.#nextMs === 0) this.#nextMs = ctx.nowMs + everyMs - ctx.rng.below(Math.ceil(everyMs / 5));
    if (ctx.nowMs >= this.#nextMs) {
      this.#nextMs = ctx.nowMs + everyMs - Math.floor(everyMs / 10) + ctx.rng.below(Math.ceil(everyMs / 5));
      this.#start(peers[ctx.rng.below(peers.length)]!);
    }
    return this.#nextMs;
  }

  #start(nodeId: string): void {
    const { ctx, host } = this;
    host.table.expire(ctx.nowMs);
    this.#run = {
      nodeId,
      repair: new Repair(host.table.digest, host.zones()),
      give: [],
      want: [],
      startedMs: ctx.nowMs,
      askedMs: ctx.nowMs,
      rounds: 0,
      differing: 0,
      received: 0,
      sent: 0,
      codecs: 0,
    };
    this.#go();
  }

  /** The next message of the run: what is known to differ first, so that little is remembered at a time. */
  #go(): void {
    const run = this.#run!;
    if (++run.rounds > ROUNDS_MAX) return this.#end(false);
    if (run.want.length > 0 || run.give.length > 0) return this.#delta(run);
    const ask = run.repair.next();
    if (!ask) return this.#end(true);
    this.#call(run, "spore.digest", digestAskValue(ask), (body) => {
      const { parts, codecs } = readDigestAnswer(body, "spore.digest");
      run.codecs = codecs;
      const { give, want } = run.repair.take(parts);
      // One by one: a list may hold more than a call takes arguments.
      for (const key of give) run.give.push(key);
      for (const { zone, node, ids } of want) for (const id of ids) run.want.push({ zone, node, id });
      run.differing += Math.max(give.length, want.reduce((sum, one) => sum + one.ids.length, 0));
    });
  }

  #delta(run: Run): void {
    const { ctx, host } = this;
    const waitMs = run.want.length > 0 ? host.waitMs(run.nodeId, Math.min(WANTED_MAX, run.want.length)) : 0;
    if (waitMs > 0) {
      this.#pausedUntilMs = ctx.nowMs + waitMs;
      run.rounds -= 1;
      return ctx.wakeAt(this.#pausedUntilMs);
    }
    const batch: Version[] = [];
    const room = new VersionBatch();
    // What is given changes what the other holds under the same key: what is wanted is fetched before.
    while (run.give.length > 0 && run.want.length <= WANTED_MAX) {
      const versions = host.table.versions(run.give.at(-1)!);
      if (!versions.every((one) => room.add(one))) break;
      batch.push(...versions);
      run.give.pop();
    }
    const asked = run.want.slice(0, WANTED_MAX);
    const parts: DigestPart[] = [];
    for (const { zone, node, id } of asked) {
      const last = parts.at(-1);
      const bytes = packIds([id]);
      if (last && last.zone === zone && last.node === node) {
        parts[parts.length - 1] = { zone, node, list: Uint8Array.from([...last.list!, ...bytes]) };
      } else parts.push({ zone, node, list: bytes });
    }
    run.sent += batch.length;
    this.#call(run, "spore.delta", squeezed(deltaAskValue(batch, parts), run.codecs), (body) => {
      const { given, done } = readDeltaAnswer(body, "spore.delta");
      // Who looks nothing up would keep us asking for ever.
      run.want.splice(0, asked.length > 0 ? Math.max(1, done) : 0);
      run.received += given.length;
      host.learn(given, run.nodeId);
    });
  }

  #call(run: Run, method: string, value: CborValue, take: (body: CborValue) => void): void {
    run.askedMs = this.ctx.nowMs;
    this.ctx.call(run.nodeId, method, value, ANSWER_MS, (result) => {
      if (this.#run !== run) return;
      if (!result.ok) {
        this.ctx.refuse(result.code === "rate-limited" ? "spore-peer-busy" : "spore-sync-failed", run.nodeId);
        return this.#end(false);
      }
      try {
        take(result.body);
      } catch (error) {
        if (!(error instanceof WireError)) throw error;
        this.ctx.refuse("bad-answer", run.nodeId);
        return this.#end(false);
      }
      this.#go();
    });
  }

  #end(ok: boolean): void {
    const run = this.#run!;
    this.#run = undefined;
    this.#pausedUntilMs = undefined;
    // A quarter of each new sample, so that one quiet run does not end the haste.
    this.churn = Math.max(0, Math.min(3, this.churn * 0.75 + (run.differing > 0 ? 1 : 0) - 0.05));
    if (run.differing > 0 && this.#nextMs > this.ctx.nowMs + SYNC_BUSY_MS) {
      this.#nextMs = this.ctx.nowMs + SYNC_BUSY_MS + this.ctx.rng.below(SYNC_BUSY_MS);
    }
    this.ctx.wakeAt(this.ctx.nowMs);
    this.host.done({
      nodeId: run.nodeId,
      ok,
      differing: run.differing,
      received: run.received,
      sent: run.sent,
      rounds: run.rounds,
      elapsedMs: this.ctx.nowMs - run.startedMs,
    });
  }
}
