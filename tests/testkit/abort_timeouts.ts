/**
 * Makes `AbortSignal.timeout` give back its timer.
 *
 * libp2p guards each handshake and stream by a signal of that kind and has no way to end it early, so that the
 * sanitizers of `deno test` see a timer that outlives the test. With this they keep watching everything else.
 *
 * @module
 */

const timers = new Set<ReturnType<typeof setTimeout>>();

/** Replaces `AbortSignal.timeout` for this process; the same behaviour, but the timers can be taken back. */
export function trackAbortTimeouts(): void {
  AbortSignal.timeout = (ms: number): AbortSignal => {
    const aborter = new AbortController();
    const timer = setTimeout(() => {
      timers.delete(timer);
      aborter.abort(new DOMException("Signal timed out.", "TimeoutError"));
    }, ms);
    timers.add(timer);
    return aborter.signal;
  };
}

/** Takes back all timers under way. */
export function clearAbortTimeouts(): void {
  for (const timer of timers) clearTimeout(timer);
  timers.clear();
}
