/** Rate limits for what comes from and goes to the LAN. @module */

/** Options of {@linkcode TokenBucket}. */
export interface TokenBucketOptions {
  /** Tokens when full. */
  readonly burst: number;
  /** Tokens that come back, per second. */
  readonly perSecond: number;
}

/** A token bucket. Time is an input, so that a clock set back does no more than pause the refill. */
export class TokenBucket {
  #tokens: number;
  #atMs: number | undefined;

  constructor(readonly options: TokenBucketOptions) {
    this.#tokens = options.burst;
  }

  /** Takes one token; `false` where there is none. */
  take(nowMs: number): boolean {
    const elapsedMs = Math.max(0, nowMs - (this.#atMs ?? nowMs));
    this.#atMs = nowMs;
    this.#tokens = Math.min(this.options.burst, this.#tokens + elapsedMs * this.options.perSecond / 1_000);
    if (this.#tokens < 1) return false;
    this.#tokens--;
    return true;
  }
}

/** One bucket for each sender and one for all together. */
export class SenderLimits {
  readonly #total: TokenBucket;
  readonly #senders = new Map<string, TokenBucket>();

  /**
   * @param perSender Limit of each sender.
   * @param total Limit of all.
   * @param sendersMax Senders remembered; the first one seen goes first.
   */
  constructor(
    readonly perSender: TokenBucketOptions,
    total: TokenBucketOptions,
    readonly sendersMax = 1_024,
  ) {
    this.#total = new TokenBucket(total);
  }

  /** Whether a datagram of `sender` is within both limits. One that floods does not use up the others' share. */
  take(sender: string, nowMs: number): boolean {
    let bucket = this.#senders.get(sender);
    if (!bucket) {
      if (this.#senders.size >= this.sendersMax) this.#senders.delete(this.#senders.keys().next().value!);
      bucket = new TokenBucket(this.perSender);
      this.#senders.set(sender, bucket);
    }
    return bucket.take(nowMs) && this.#total.take(nowMs);
  }
}
