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
