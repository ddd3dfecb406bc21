/**
 * From scores to weights: who may vote, how much it counts, and why a crowd of newcomers cannot.
 *
 * @module
 */

import { compareBytes } from "../core/bytes.ts";
import type { VotingPolicy } from "./agreed.ts";

/** A node that could vote. */
export interface Elector {
  readonly id: string;
  readonly publicKey: Uint8Array;
  /** Its agreed score. */
  readonly ppm: number;
  readonly banned: boolean;
  /** Since when it votes, milliseconds since the epoch; missing: not yet. */
  readonly sinceMs: number | undefined;
}

/** What its tenure is measured by. */
export interface TenureOptions {
  /** Time of the change, milliseconds. */
  readonly nowMs: number;
  /** When the network was founded. */
  readonly foundedMs: number;
  readonly voting: VotingPolicy;
}

/** A weight, as tables are frozen from them. */
export interface ElectorWeight {
  readonly id: string;
  readonly publicKey: Uint8Array;
  /** 0: no vote. Small integers, so that a table changes only where a score has changed by much. */
  readonly weightPpm: number;
  readonly standing: "established" | "fresh" | "waiting" | "distrusted";
}

/** A voter counts in full after so long: 7 days. */
export const PROBATION_MS: number = 7 * 86_400_000;
/** The person who founds a network starts its first machines: within a day ... */
export const FOUNDING_MS: number = 86_400_000;
/** ... and so many, the founder included. */
export const FOUNDERS_MAX = 7;
/**
 * Of more established voters each counts the same and newcomers wait: seats are few, and a voter of less than one would have
 * none at all.
 */
export const WEIGHED_MAX = 48;
/** Step of a weight, ppm of score. */
const STEP_PPM = 100_000;

/**
 * Weighs those who could vote. Established voters weigh by their score. Fresh ones weigh at most half of the lightest
 * established one, and there are fewer than half as many of them: so they stay below a third of the seats together,
 * however seats are capped and rounded, since both keep the order of weights. The others wait.
 *
 * @returns In the order of the electors.
 */
export function weightsOf(electors: readonly Elector[], options: TenureOptions): readonly ElectorWeight[] {
  const { nowMs, voting } = options;
  const trusted = electors.filter((one) => !one.banned && one.ppm >= voting.minPpm);
  const founders = foundersOf(trusted, options);
  const established = new Set(
    trusted.filter((one) =>
      founders.has(one.id) || voting.vouched.some((key) => compareBytes(key, one.publicKey) === 0) ||
      one.sinceMs !== undefined && nowMs - one.sinceMs >= PROBATION_MS
    ).map((one) => one.id),
  );
  const alike = established.size > WEIGHED_MAX;
  const weigh = (one: Elector) => alike ? 2 : 2 * Math.max(1, Math.floor(one.ppm / STEP_PPM));
  const lightest = Math.min(...trusted.filter((one) => established.has(one.id)).map(weigh));
  const room = alike ? 0 : Math.max(0, Math.floor((established.size - 1) / 2));
  const fresh = new Set(
    trusted.filter((one) => !established.has(one.id))
      .sort((a, b) => (a.sinceMs ?? nowMs) - (b.sinceMs ?? nowMs) || b.ppm - a.ppm || (a.id < b.id ? -1 : 1))
      .slice(0, room)
      .map((one) => one.id),
  );
  const known = new Set(trusted.map((one) => one.id));
  return electors.map((one): ElectorWeight => {
    const { id, publicKey } = one;
    if (!known.has(id)) return { id, publicKey, weightPpm: 0, standing: "distrusted" };
    if (established.has(id)) return { id, publicKey, weightPpm: weigh(one), standing: "established" };
    if (fresh.has(id)) {
      return {
        id,
        publicKey,
        weightPpm: Math.max(1, Math.floor(Math.min(weigh(one), lightest) / 2)),
        standing: "fresh",
      };
    }
    return { id, publicKey, weightPpm: 0, standing: "waiting" };
  });
}

/** The first voters of the first day; a newcomer of now counts as of now. */
function foundersOf(trusted: readonly Elector[], { nowMs, foundedMs }: TenureOptions): ReadonlySet<string> {
  return new Set(
    trusted.filter((one) => (one.sinceMs ?? nowMs) < foundedMs + FOUNDING_MS)
      .sort((a, b) => (a.sinceMs ?? nowMs) - (b.sinceMs ?? nowMs) || (a.id < b.id ? -1 : 1))
      .slice(0, FOUNDERS_MAX)
      .map((one) => one.id),
  );
}
