/**
 * Slows down who fails: after some failures a source waits, and longer each time.
 *
 * @module
 */

/** Options of a {@linkcode Throttle}. */
export interface ThrottleOptions {
  /** Failures that cost nothing. @default 5 */
  readonly freeFailures?: number;
  /** First wait; each further failure doubles it. @default 30 s */
  readonly firstMs?: number;
  /** Longest wait. @default 1 h */
  readonly longestMs?: number;
  /** Failures are forgotten after this time without one. @default 1 h */
  readonly forgetMs?: number;
  /** Sources that are remembered. */
  readonly max: number;
}

interface Failures {
  count: number;
  lastMs: number;
  untilMs: number;
}

/** Counts failures by source. */
export class Throttle {
  /** The one that failed longest ago is the first. */
  readonly #sources = new Map<string, Failures>();
  readonly #options: Required<ThrottleOptions>;

  constructor(options: ThrottleOptions) {
    this.#options = { freeFailures: 5, firstMs: 30_000, longestMs: 3_600_000, forgetMs: 3_600_000, ...options };
  }

  /** Sources that are remembered now. */
  get size(): number {
    return this.#sources.size;
  }

  /** How long a source has to wait, milliseconds; 0: it may try. */
  waitMs(source: string, nowMs: number): number {
    return Math.max(0, (this.#sources.get(source)?.untilMs ?? 0) - nowMs);
  }

  /** Notes a failure. Returns whether it is the one that locks the source out, or locks it out anew. */
  fail(source: string, nowMs: number): boolean {
    const { freeFailures, firstMs, longestMs, forgetMs, max } = this.#options;
    let found = this.#sources.get(source);
    if (found && nowMs - Math.max(found.lastMs, found.untilMs) > forgetMs) found = undefined;
    const next = found ?? { count: 0, lastMs: nowMs, untilMs: 0 };
    next.count += 1;
    next.lastMs = nowMs;
    const over = next.count - freeFailures;
    if (over >= 0) next.untilMs = nowMs + Math.min(longestMs, firstMs * 2 ** Math.min(over, 20));
    this.#sources.delete(source);
    if (this.#sources.size >= max) this.#makeRoom(nowMs);
    this.#sources.set(source, next);
    return over >= 0;
  }

  /** A success: what failed before is forgotten. */
  succeed(source: string): void {
    this.#sources.delete(source);
  }

  /** The clock was set back: nobody waits for a time that is far away now. */
  clockSetBack(): void {
    this.#sources.clear();
  }

  /** One that waits is not made room of by others that fail, as long as there is one that does not wait. */
  #makeRoom(nowMs: number): void {
    for (const [source, { untilMs }] of this.#sources) {
      if (untilMs > nowMs) continue;
      this.#sources.delete(source);
      return;
    }
    this.#sources.delete(this.#sources.keys().next().value!);
  }
}
