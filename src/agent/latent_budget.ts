/**
 * How much checking each peer may cause: a bucket of tokens, one for each signature.
 *
 * @module
 */

import { LIMITS } from "../core/limits.ts";

/** Checks that a peer may cause in a second, and at once. One takes some 60 µs. */
const PEER_CHECKS_PER_S = 400;
/** What a peer that was quiet may cause at once: as much as a device missed in an hour. */
export const PEER_CHECKS_MAX = 4_000;

/** The buckets of the peers. */
export class PeerBudget {
  readonly #buckets = new Map<string, { tokens: number; atMs: number }>();

  /** Takes tokens where they are there. */
  take(nodeId: string, cost: number, nowMs: number): boolean {
    const bucket = this.#bucket(nodeId, nowMs);
    if (bucket.tokens < cost) return false;
    bucket.tokens -= cost;
    return true;
  }

  /** How long until so many records can be checked, a proof of one signature each. */
  waitMs(nodeId: string, records: number, nowMs: number): number {
    const missing = Math.min(PEER_CHECKS_MAX, 2 * records) - this.#bucket(nodeId, nowMs).tokens;
    return missing <= 0 ? 0 : Math.ceil(missing * 1_000 / PEER_CHECKS_PER_S);
  }

  /** Forgets what was used. */
  clear(): void {
    this.#buckets.clear();
  }

  #bucket(nodeId: string, nowMs: number): { tokens: number; atMs: number } {
    let bucket = this.#buckets.get(nodeId);
    if (!bucket) {
      // As many as there are channels: whoever comes in place of the oldest has a channel of his own.
      if (this.#buckets.size >= LIMITS.channelsMax) this.#buckets.delete(this.#buckets.keys().next().value!);
      this.#buckets.set(nodeId, bucket = { tokens: PEER_CHECKS_MAX, atMs: nowMs });
    }
    const earned = Math.floor((nowMs - bucket.atMs) * PEER_CHECKS_PER_S / 1_000);
    if (earned > 0) {
      bucket.tokens = Math.min(PEER_CHECKS_MAX, bucket.tokens + earned);
      bucket.atMs = nowMs;
    }
    return bucket;
  }
}
