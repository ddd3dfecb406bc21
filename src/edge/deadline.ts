/** Deadlines whose timer ends with the work. @module */

/**
 * Like `AbortSignal.timeout`, which keeps its timer until it fires: a timer that nobody waits for any more is memory,
 * and a wake-up.
 *
 * @param outer Aborts as well.
 */
export function deadlineOf(ms: number, outer?: AbortSignal): Disposable & { readonly signal: AbortSignal } {
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(new DOMException("Timed out", "TimeoutError")), ms);
  return {
    signal: outer ? AbortSignal.any([outer, controller.signal]) : controller.signal,
    [Symbol.dispose]: () => clearTimeout(timer),
  };
}

/** One of {@linkcode Deadlines}. */
export interface Deadline {
  /** It is not waited for any more. */
  cancel(): void;
}

interface Entry extends Deadline {
  readonly atMs: number;
  readonly passed: () => void;
}

/**
 * Many deadlines, few of which ever pass, on one timer: a call of a few hundred microseconds would spend a tenth of
 * them on timers of its own. The timer stays where nobody waits any more; it fires once and finds nothing.
 */
export class Deadlines {
  readonly #entries = new Set<Entry>();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #armedMs = Infinity;
  #closed = false;

  /** Calls `passed` after `ms`, unless it is cancelled. */
  after(ms: number, passed: () => void): Deadline {
    const atMs = performance.now() + ms;
    const entry: Entry = { atMs, passed, cancel: () => this.#entries.delete(entry) };
    if (this.#closed) return entry;
    this.#entries.add(entry);
    if (atMs < this.#armedMs) this.#arm(atMs, ms);
    return entry;
  }

  /** None passes any more. */
  close(): void {
    this.#closed = true;
    this.#entries.clear();
    clearTimeout(this.#timer);
  }

  #arm(atMs: number, ms: number): void {
    clearTimeout(this.#timer);
    this.#armedMs = atMs;
    this.#timer = setTimeout(() => this.#fire(), Math.ceil(ms));
  }

  #fire(): void {
    this.#armedMs = Infinity;
    const nowMs = performance.now();
    let nextMs = Infinity;
    for (const entry of [...this.#entries]) {
      // A timer may fire a little early by another clock.
      if (entry.atMs > nowMs + 1) nextMs = Math.min(nextMs, entry.atMs);
      else if (this.#entries.delete(entry)) entry.passed();
    }
    // What passed may have asked for more.
    if (nextMs < this.#armedMs && !this.#closed) this.#arm(nextMs, nextMs - nowMs);
  }
}
