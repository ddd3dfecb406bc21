/**
 * What a leader knows of one follower, and how much it sends to it.
 *
 *                 ack                        next entry compacted away
 *      probe ───────────────► replicate ──────────────────────────────► snapshot
 *        ▲  ◄─────────────────    │                                        │
 *        │        reject          └── many appends under way               │
 *        └──────────────────── ack at or past the snapshot ◄───────────────┘
 *
 * `probe` looks for the place where the logs agree, one append at a time; `replicate` sends on before the
 * acknowledgement, within bounds; `snapshot` sends chunks, one at a time, and no entries.
 *
 * @module
 */

import type { Snapshot } from "./messages.ts";

/** How the leader sends to a follower. */
export type ProgressState = "probe" | "replicate" | "snapshot";

/** A leader's knowledge of one follower. */
export class Progress {
  state: ProgressState = "probe";
  /** Its log is known to agree up to here. */
  matchIndex = 0;
  /** What to send next. */
  nextIndex: number;
  /** A probe is under way: nothing more until an answer, or a heartbeat's answer, comes. */
  probing = false;
  /** It has answered since quorum was last checked. New ones get the benefit of the doubt once. */
  active = true;
  /** Last heartbeat round that it answered. */
  round = 0;
  /** Commit index that it was told last. */
  toldCommit = 0;
  /** The snapshot on its way; the same one to the end, or a slow link would never see an end. */
  snapshot: Snapshot | undefined;
  /** Bytes of the snapshot that it has. */
  offset = 0;
  /** When the last chunk was sent. */
  chunkMs = 0;
  /** Appends under way: last index and size of each, oldest first. */
  #inflights: { readonly index: number; readonly bytes: number }[] = [];
  #inflightBytes = 0;

  constructor(nextIndex: number) {
    this.nextIndex = nextIndex;
  }

  /** Appends under way. */
  get inflights(): number {
    return this.#inflights.length;
  }

  /** Whether the window of appends is full. */
  isFull(bounds: { readonly inflightsMax: number; readonly inflightBytesMax: number }): boolean {
    return this.#inflights.length >= bounds.inflightsMax || this.#inflightBytes >= bounds.inflightBytesMax;
  }

  /** An append with entries up to `index` left. */
  sent(index: number, bytes: number): void {
    if (this.state === "replicate") {
      this.nextIndex = index + 1;
      this.#inflights.push({ index, bytes });
      this.#inflightBytes += bytes;
    } else this.probing = true;
  }

  /** Its log agrees up to `index`. Returns whether that is news. */
  acknowledged(index: number): boolean {
    this.probing = false;
    while (this.#inflights.length > 0 && this.#inflights[0]!.index <= index) {
      this.#inflightBytes -= this.#inflights.shift()!.bytes;
    }
    this.nextIndex = Math.max(this.nextIndex, index + 1);
    if (index <= this.matchIndex) return false;
    this.matchIndex = index;
    return true;
  }

  /**
   * It refused an append behind `index`. Returns whether that says something new: a late refusal does not.
   *
   * @param agreeing Where the logs may agree at most, by the follower's hint.
   */
  rejected(index: number, agreeing: number): boolean {
    if (this.state === "snapshot" || index <= this.matchIndex) return false;
    if (this.state === "replicate") {
      if (index >= this.nextIndex) return false;
      this.become("probe");
      this.nextIndex = this.matchIndex + 1;
      return true;
    }
    if (index !== this.nextIndex - 1) return false;
    this.nextIndex = Math.max(Math.min(index, agreeing + 1), this.matchIndex + 1);
    this.probing = false;
    return true;
  }

  /** Enters a state, with an empty window. */
  become(state: "probe" | "replicate"): void {
    this.state = state;
    this.probing = false;
    this.snapshot = undefined;
    this.#inflights = [];
    this.#inflightBytes = 0;
    this.nextIndex = this.matchIndex + 1;
  }

  /** Begins to send a snapshot. */
  beginSnapshot(snapshot: Snapshot): void {
    this.become("probe");
    this.state = "snapshot";
    this.snapshot = snapshot;
    this.offset = 0;
    this.nextIndex = snapshot.meta.index + 1;
  }
}
