/**
 * Preload for the pure tests: whatever reads a clock, waits or draws randomness throws.
 *
 * `deno test --preload=tests/testkit/no_ambient.ts …` turns "time and randomness arrive as inputs"
 * from a promise into a test result, for the code under test and for the tests themselves.
 *
 * @module
 */

// Loaded before the globals are replaced: it keeps the real clock for its own seed, which it prints on failure.
import "fast-check";

/** Somebody below `edge/` reached for the world. */
export class AmbientError extends Error {
  override readonly name = "AmbientError";
}

function forbidden(what: string): () => never {
  return () => {
    throw new AmbientError(`Cannot use ${what} in a pure test: time and randomness arrive as inputs`);
  };
}

const RealDate = Date;

/** A Date that can be made from a given time only. */
class GivenDate extends RealDate {
  constructor(...args: [] | [number | string | Date]) {
    if (args.length === 0) forbidden("new Date()")();
    super(...(args as [number]));
  }
  static override now = forbidden("Date.now()");
}

globalThis.Date = GivenDate as unknown as DateConstructor;
Math.random = forbidden("Math.random()");
for (
  const name of ["setTimeout", "setInterval", "setImmediate", "queueMicrotask", "fetch", "WebSocket", "Worker"] as const
) {
  Object.defineProperty(globalThis, name, { value: forbidden(name), configurable: true, writable: true });
}
for (const name of ["getRandomValues", "randomUUID"] as const) {
  Object.defineProperty(crypto, name, { value: forbidden(`crypto.${name}`), configurable: true, writable: true });
}
Object.defineProperty(performance, "now", { value: forbidden("performance.now()"), configurable: true });
AbortSignal.timeout = forbidden("AbortSignal.timeout()");
