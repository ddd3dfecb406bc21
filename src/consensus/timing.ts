/**
 * Δ, the time that one message takes at most, from how long rounds really take. Integers.
 *
 * After RFC 6298: smoothed mean plus four times the smoothed deviation. A round that ran out makes it a
 * quarter longer (rounds grow by themselves, too), decisions let it come down again. Safety does not rest on it.
 *
 * @module
 */

/** An estimate of Δ. */
export class DelayEstimate {
  readonly #minMs: number;
  readonly #maxMs: number;
  /** In 1/8 ms and 1/4 ms, as in the RFC's integer form. */
  #mean8: number;
  #deviation4: number;

  constructor(options: { readonly delayMs: number; readonly delayMsMin: number; readonly delayMsMax: number }) {
    this.#minMs = options.delayMsMin;
    this.#maxMs = options.delayMsMax;
    this.#mean8 = options.delayMs * 4;
    this.#deviation4 = Math.ceil(options.delayMs / 2);
  }

  /** Δ now, within its bounds, milliseconds. */
  get delayMs(): number {
    const ms = Math.ceil(this.#mean8 / 8) + this.#deviation4;
    return Math.max(this.#minMs, Math.min(this.#maxMs, ms));
  }

  /** One exchange (a message and its answer) took so long. */
  observe(roundTripMs: number): void {
    const error = Math.max(0, Math.floor(roundTripMs)) - (this.#mean8 >> 3);
    this.#mean8 += error;
    this.#deviation4 += Math.abs(error) - (this.#deviation4 >> 2);
  }

  /** A round ran out of time. */
  ranOut(): void {
    if (this.delayMs < this.#maxMs) this.#mean8 += Math.max(8, this.#mean8 >> 2);
  }
}
