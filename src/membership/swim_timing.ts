/** How long to wait, and how much silence is enough: the figures of failure detection, in integers. @module */

/** Timeout of a ping before the first answer (memberlist, LAN: ProbeTimeout). */
const TIMEOUT_FIRST_MS = 500;
/** Least timeout: a node that is busy for a moment is no dead one. */
const TIMEOUT_MIN_MS = 150;
const TIMEOUT_MAX_MS = 3_000;

/** Smoothed round-trip time and its deviation (RFC 6298), in eighths and quarters of milliseconds. */
export class Rtt {
  #srtt8 = -1;
  #var4 = 0;

  /** Takes the time from a ping to its answer; one that is far beyond what is usual counts as twice that. */
  sample(rttMs: number): void {
    const maxMs = this.isKnown ? 2 * this.timeoutMs() : TIMEOUT_FIRST_MS;
    const ms = Math.min(maxMs, Math.max(0, Math.round(rttMs)));
    if (!this.isKnown) {
      this.#srtt8 = 8 * ms;
      this.#var4 = 2 * ms;
      return;
    }
    const error = ms - (this.#srtt8 >> 3);
    this.#srtt8 += error;
    this.#var4 += Math.abs(error) - (this.#var4 >> 2);
  }

  /** Whether there was an answer. */
  get isKnown(): boolean {
    return this.#srtt8 >= 0;
  }

  /** Milliseconds within which an answer is to be expected. */
  timeoutMs(): number {
    if (this.#srtt8 < 0) return TIMEOUT_FIRST_MS;
    return Math.min(TIMEOUT_MAX_MS, Math.max(TIMEOUT_MIN_MS, (this.#srtt8 >> 3) + this.#var4));
  }
}

/** ln(c + 1) / ln(k + 1) in thousandths, by k and c: the table spares the logarithm, which engines may round apart. */
const CONFIRMED: readonly (readonly number[])[] = [[1_000], [0, 1_000], [0, 631, 1_000], [0, 500, 792, 1_000]];
/** Longest duration of a suspicion over the least one (memberlist: SuspicionMaxTimeoutMult). */
const SUSPICION_MAX_MULT = 6;

/**
 * Duration of a suspicion that `c` of `k` wanted others have confirmed.
 *
 * Source: Lifeguard, section IV-B; memberlist, `remainingSuspicionTime`.
 *
 * @param minMs Duration when all have.
 * @param c Confirmations, 0 to `k`.
 * @param k Confirmations wanted, 0 to 3; 0: nobody could confirm, and the least duration counts.
 */
export function suspicionMs(minMs: number, c: number, k: number): number {
  const spanMs = (SUSPICION_MAX_MULT - 1) * minMs;
  return minMs + spanMs - Math.floor(CONFIRMED[k]![c]! * spanMs / 1_000);
}

/** Unanswered pings that are no accident where so many of a thousand go unanswered: the loss to that power is ≤ 10⁻⁷. */
const NEEDED: readonly (readonly [lossPerMille: number, attempts: number])[] = [
  [50, 6],
  [100, 8],
  [200, 11],
  [300, 15],
  [400, 20],
  [500, 26],
  [1_000, 40],
];

/** How many pings of healthy nodes go unanswered here, and what follows for silence. */
export class AttemptStats {
  /** In 1/64 of a thousandth. Begins in the middle: a node that has just started knows nothing of its paths. */
  #loss = 100 * 64;

  /** The first ping of a probe was answered in time, or was not. */
  note(isMissed: boolean): void {
    this.#loss += Math.trunc(((isMissed ? 64_000 : 0) - this.#loss) / 32);
  }

  /** Smoothed, of a thousand. */
  get lossPerMille(): number {
    return this.#loss >> 6;
  }

  /** Unanswered pings, own ones and those of others, before silence is enough. */
  attemptsNeeded(): number {
    const loss = this.lossPerMille;
    return NEEDED.find(([limit]) => loss < limit)?.[1] ?? 40;
  }
}
