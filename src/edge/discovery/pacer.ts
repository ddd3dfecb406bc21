/** When a source asks: at once, then with full jitter ever slower, for ever. @module */

import { backoffMs, type Rng } from "../../core/rng.ts";
import type { DiscoveryMode } from "./types.ts";

/** Options of {@linkcode Pacer}. */
export interface PacerOptions {
  /** Asks once. Must not throw; ends early when the signal aborts. */
  readonly ask: (signal: AbortSignal) => Promise<void>;
  /** Ceiling of the first wait while seeking. */
  readonly baseMs: number;
  /** Ceiling of later waits while seeking. */
  readonly maxMs: number;
  /** Longest wait while isolated; at least half of it passes. */
  readonly isolatedMs: number;
  /** Wait of a member, prolonged by up to a fifth; absent: a member does not ask. */
  readonly memberMs?: number;
  readonly rng: Rng;
  /** Told when the next question is planned (milliseconds from now) or that none is. */
  readonly onPlan?: (waitMs: number | undefined) => void;
}

/** Asks one source again and again; never twice at the same time. */
export class Pacer {
  readonly #options: PacerOptions;
  #mode: DiscoveryMode = "seeking";
  #timer: ReturnType<typeof setTimeout> | undefined;
  #asking: Promise<void> | undefined;
  #again = false;
  #attempt = 0;
  #askedAt = -Infinity;
  #abort = new AbortController();

  constructor(options: PacerOptions) {
    this.#options = options;
  }

  /** Changes the rate; seeking starts anew with a question at once. */
  setMode(mode: DiscoveryMode): void {
    const before = this.#mode;
    this.#mode = mode;
    if (mode === "seeking" && before !== "seeking") {
      this.#attempt = 0;
      this.askNow();
    } else if (mode !== before && !this.#asking) this.#plan();
  }

  /** Asks now, unless it did so in the last 200 ms; then as soon as these have passed. */
  askNow(): void {
    if (this.#abort.signal.aborted || this.#mode === "off") return;
    if (this.#asking) {
      this.#again = true;
      return;
    }
    const waitMs = MIN_WAIT_MS - (performance.now() - this.#askedAt);
    if (waitMs <= 0) this.#run();
    else this.#schedule(waitMs);
  }

  /** Ends; waits for the question under way. */
  async stop(): Promise<void> {
    this.#abort.abort();
    clearTimeout(this.#timer);
    await this.#asking;
  }

  #run(): void {
    clearTimeout(this.#timer);
    this.#askedAt = performance.now();
    this.#asking = this.#options.ask(this.#abort.signal).finally(() => {
      this.#asking = undefined;
      if (this.#abort.signal.aborted) return;
      if (this.#again) {
        this.#again = false;
        this.askNow();
      } else this.#plan();
    });
  }

  #plan(): void {
    const { baseMs, maxMs, isolatedMs, memberMs, rng } = this.#options;
    let waitMs: number | undefined;
    if (this.#mode === "seeking") waitMs = Math.max(MIN_WAIT_MS, backoffMs(this.#attempt++, { baseMs, maxMs }, rng));
    else if (this.#mode === "isolated") waitMs = isolatedMs / 2 + rng.below(Math.ceil(isolatedMs / 2));
    else if (this.#mode === "member" && memberMs !== undefined) waitMs = memberMs + rng.below(Math.ceil(memberMs / 5));
    if (waitMs === undefined) clearTimeout(this.#timer);
    else this.#schedule(waitMs);
    this.#options.onPlan?.(waitMs);
  }

  #schedule(waitMs: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#run(), waitMs);
  }
}

const MIN_WAIT_MS = 200;

/** Waits; returns at once when the signal aborts. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done, { once: true });
  });
}
