/**
 * The last minutes of a node's own figures, for the plots.
 *
 * @module
 */

import type { HistorySample, Status } from "../../agent/status.ts";

/** Milliseconds between two samples. */
export const HISTORY_STEP_MS = 5_000;

/** Samples kept: five minutes and the one before. */
export const HISTORY_SAMPLES_MAX = 61;

/** A ring of samples, oldest first; at most {@linkcode HISTORY_SAMPLES_MAX}. */
export class StatusHistory {
  #samples: readonly HistorySample[] = [];

  /**
   * Takes a sample where the last one is old enough.
   *
   * A clock that was set back empties the ring, since its order would be wrong.
   *
   * @returns Whether it was taken.
   */
  record(status: Status): boolean {
    const last = this.#samples.at(-1);
    if (last && status.nowMs < last.atMs) this.#samples = [];
    // A timer of exactly one step may fire a little early.
    else if (last && status.nowMs - last.atMs < HISTORY_STEP_MS * 0.9) return false;
    const sample: HistorySample = {
      atMs: status.nowMs,
      bytesIn: status.traffic.bytesIn,
      bytesOut: status.traffic.bytesOut,
      rssBytes: status.process.rssBytes,
      cpuMs: status.process.cpuMs,
    };
    // A new array each time: the one before is part of a status that was handed out.
    this.#samples = [...this.#samples.slice(-(HISTORY_SAMPLES_MAX - 1)), sample];
    return true;
  }

  /** The samples, oldest first. */
  get samples(): readonly HistorySample[] {
    return this.#samples;
  }
}
