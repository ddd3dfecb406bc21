/**
 * How late this process's timers fire: the first sign of work that blocks it.
 *
 * @module
 */

/** Milliseconds between two measurements: rare enough to leave an idle node idle. */
const STEP_MS = 1_000;

/** Measurements kept: one minute. */
const STEPS_MAX = 60;

/** Measures event-loop lag until disposed of. */
export class LoopLag implements Disposable {
  readonly #lags: number[] = [];
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** Starts measuring. The timer does not keep the process alive. */
  constructor() {
    this.#arm();
  }

  /** Mean and largest lag of the last minute in milliseconds; `undefined` before the first measurement. */
  read(): { readonly mean: number; readonly max: number } | undefined {
    if (this.#lags.length === 0) return undefined;
    const sum = this.#lags.reduce((total, lag) => total + lag, 0);
    return { mean: round(sum / this.#lags.length), max: round(Math.max(...this.#lags)) };
  }

  /** Stops measuring. */
  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #arm(): void {
    const dueAt = performance.now() + STEP_MS;
    this.#timer = setTimeout(() => {
      this.#lags.push(Math.max(0, performance.now() - dueAt));
      if (this.#lags.length > STEPS_MAX) this.#lags.shift();
      this.#arm();
    }, STEP_MS);
    Deno.unrefTimer(this.#timer);
  }
}

function round(ms: number): number {
  return Math.round(ms * 100) / 100;
}
