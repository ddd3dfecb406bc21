/**
 * How fast the group goes: heartbeats close to each other while something happens, far apart while nothing does, and
 * timeouts that follow stalls of the processes.
 *
 * @module
 */

import type { RaftEvent } from "../raft/effects.ts";
import type { Raft } from "../raft/raft.ts";
import type { Context } from "./context.ts";

/** Times while there is something to do. Heartbeats go five to a timeout. */
export const ACTIVE_MS = 300;
/** Times while nothing happens: the channels and the detector notice more. */
export const IDLE_MS = 10_000;
/** A timer that is later is a stall of the process. */
const STALL_MS = 40;
/** Longest stall that timeouts follow. */
const LAG_MS_MAX = 200;
/** Without a write or a read for so long a leader slows down. */
const IDLE_AFTER_MS = 3_000;
/** Heartbeats that tell the followers of it first. */
const IDLE_NOTICE = 4;

/** What the pace needs of its part. */
export interface PacePort {
  raft(): Raft | undefined;
  step(event: RaftEvent): void;
}

/** Times of this node's replica. */
export class PrimaryPace {
  readonly #ctx: Context;
  readonly #port: PacePort;
  /** Last write, read or change at this leader. */
  #busyMs = 0;
  #idle = false;
  #idleNotices = 0;
  /** How late timers of this process are, the worst of the last seconds; and those of followers, as they say. */
  #lagMs = 0;
  #lagAtMs = 0;
  readonly #lags = new Map<string, number>();
  #stalled = false;

  constructor(ctx: Context, port: PacePort) {
    this.#ctx = ctx;
    this.#port = port;
  }

  /** Nothing happens, and the group knows. */
  get idle(): boolean {
    return this.#idle;
  }

  /** Election timeout that a leader tells its followers to go by. */
  toldMs(raft: Raft): number {
    return this.#idleNotices > 0 ? IDLE_MS : raft.options.electionTimeoutMs;
  }

  /** How late timers of this process are, where a leader should know. */
  get lagMs(): number | undefined {
    return this.#lagMs >= STALL_MS ? Math.round(this.#lagMs) : undefined;
  }

  /** A replica begins to run. */
  begin(): void {
    this.#idle = false;
    this.#busyMs = this.#ctx.nowMs;
  }

  clockSetBack(): void {
    this.#busyMs = Math.min(this.#busyMs, this.#ctx.nowMs);
  }

  /** The role of this replica has changed. */
  roleChanged(): void {
    this.#lags.clear();
  }

  /** A follower says how late its timers are. */
  lags(replica: string, lagMs: number): void {
    // A node may make up names of replicas without end.
    if (this.#port.raft()?.view.progress.has(replica)) this.#lags.set(replica, Math.min(lagMs, LAG_MS_MAX));
  }

  /**
   * The core's time came `lateMs` ago. After a stall of this process its messages wait in the sockets behind the timer:
   * they come first, or each stall of a follower would be the silence of its leader.
   *
   * @returns How long they get; 0: the core is to be woken now.
   */
  holdBack(lateMs: number): number {
    const { nowMs } = this.#ctx;
    // Forgotten within two seconds: a timeout that is too long costs more than one that is too short.
    const leftMs = this.#lagMs - Math.floor((nowMs - this.#lagAtMs) / 10);
    this.#lagMs = Math.max(0, Math.min(lateMs, LAG_MS_MAX), leftMs);
    this.#lagAtMs = nowMs;
    this.#stalled = lateMs >= STALL_MS && !this.#stalled;
    return this.#stalled ? STALL_MS / 2 : 0;
  }

  /** Something goes on: heartbeats are close to each other. */
  busy(): void {
    this.#busyMs = this.#ctx.nowMs;
    this.#idleNotices = 0;
    if (this.#idle) this.hurry();
  }

  /** Takes the times of a group that has something to do: longer where processes stall, here or at followers; in steps. */
  hurry(): void {
    let lagMs = this.#lagMs;
    const progress = this.#port.raft()?.view.progress;
    for (const [replica, one] of this.#lags) {
      if (progress?.has(replica)) lagMs = Math.max(lagMs, one);
      else this.#lags.delete(replica);
    }
    this.take(ACTIVE_MS + Math.floor(4 * lagMs / 200) * 200);
  }

  /** Takes an election timeout, within bounds. */
  take(electionTimeoutMs: number): void {
    const raft = this.#port.raft();
    const wantedMs = Math.min(IDLE_MS, Math.max(ACTIVE_MS, electionTimeoutMs));
    if (!raft || raft.options.electionTimeoutMs === wantedMs) return;
    this.#idle = wantedMs === IDLE_MS;
    this.#port.step({
      type: "pace",
      nowMs: this.#ctx.nowMs,
      electionTimeoutMs: wantedMs,
      heartbeatMs: Math.floor(wantedMs / (this.#idle ? 3 : 5)),
    });
  }

  /**
   * Slows a leader down: with nothing to do the followers are told to expect little, and then get little.
   *
   * @returns When to look again.
   */
  slowDown(raft: Raft): number {
    const { nowMs } = this.#ctx;
    const { view } = raft;
    if (this.#idle || view.progress.size === 0) return Infinity;
    const behind = view.commitIndex < view.lastIndex ||
      [...view.progress.values()].some((one) => one.state === "snapshot");
    if (behind) this.#busyMs = nowMs;
    const idleMs = this.#busyMs + IDLE_AFTER_MS;
    if (nowMs < idleMs) return idleMs;
    this.#idleNotices += 1;
    const slowMs = idleMs + IDLE_NOTICE * raft.options.heartbeatMs + 20;
    if (nowMs < slowMs) return slowMs;
    this.#idleNotices = 0;
    this.take(IDLE_MS);
    return Infinity;
  }
}
