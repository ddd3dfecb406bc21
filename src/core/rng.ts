/** Randomness as an input: everything below `edge/` draws from a seeded generator. @module */

import { assert } from "./assert.ts";

/** Source of randomness for decisions (back-off, order, sampling), never for secrets. */
export interface Rng {
  /** An integer in [0, bound); `bound` is 1 to 2^32. */
  below(bound: number): number;
}

/** Source of secret randomness: the operating system's in production, a seeded one in the simulator. */
export interface Entropy {
  /** New unpredictable bytes, `length` of them. */
  bytes(length: number): Uint8Array;
}

/**
 * A seeded generator: sfc32 by Chris Doty-Humphrey (PractRand), 128 bits of state, period at least 2^32.
 *
 * @param seed Any 32-bit integer; the same seed gives the same sequence on every engine.
 */
export function seededRng(seed: number): Rng {
  let a = seed | 0, b = (seed ^ 0x9e3779b9) | 0, c = (seed ^ 0x85ebca6b) | 0, counter = 1;
  const next = () => {
    const t = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (c << 21) | (c >>> 11);
    c = (c + t) | 0;
    return t >>> 0;
  };
  for (let i = 0; i < 12; i++) next();
  return {
    below(bound) {
      // A bound out of range would reject every draw and never return.
      assert(Number.isInteger(bound) && bound >= 1 && bound <= 2 ** 32, `bound is ${bound}, an integer from 1 to 2^32`);
      // Rejection keeps the distribution even.
      const limit = 2 ** 32 - (2 ** 32 % bound);
      for (;;) {
        const value = next();
        if (value < limit) return value % bound;
      }
    },
  };
}

/** A new array with the same items in random order (Fisher-Yates). */
export function shuffled<T>(items: readonly T[], rng: Rng): T[] {
  const out = [...items];
  for (let i = out.length - 1; i > 0; i--) {
    const j = rng.below(i + 1);
    [out[i], out[j]] = [out[j]!, out[i]!];
  }
  return out;
}

/** Options of {@linkcode backoffMs}. */
export interface BackoffOptions {
  /** Ceiling of the first wait. */
  readonly baseMs: number;
  /** Ceiling of all waits, below 2^32 (49 days). */
  readonly maxMs: number;
}

/**
 * Exponential back-off with full jitter: uniform in [0, min(max, base · 2^attempt)].
 *
 * Source: M. Brooker, "Exponential Backoff and Jitter", 2015.
 *
 * @param attempt Failures so far, from 0.
 */
export function backoffMs(attempt: number, options: BackoffOptions, rng: Rng): number {
  const ceiling = Math.min(options.maxMs, 2 ** 32 - 1, options.baseMs * 2 ** Math.min(attempt, 30));
  return rng.below(Math.max(1, Math.floor(ceiling)) + 1);
}
