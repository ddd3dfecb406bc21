/**
 * Who is to vote: the next electorate from the one before, who comes and who goes. Integers only; whoever knows the same
 * comes to the same, so that a voter checks a proposal by making it anew.
 *
 * @module
 */

import { compareBytes } from "../core/bytes.ts";
import { nodeIdOf } from "../core/ids.ts";
import { capWeights, freezeTable, totalSeats, type WeightTable } from "../consensus/weights.ts";
import type { Electorate } from "./agreed.ts";

/**
 * So many voters are established from their first day: somebody has to be the first, and with seven two may fail. Later ones
 * are newcomers for {@linkcode PROBATION_MS}.
 */
export const FOUNDERS_MAX = 7;
/** How long a later voter counts as a newcomer: a week, longer than an attack is likely to go unseen. */
export const PROBATION_MS: number = 7 * 86_400_000;
/** Established voters from which newcomers are held below a third: fewer tolerate nobody anyway. */
export const ESTABLISHED_MIN = 4;
/** Voters that the agents choose by themselves: all verify all, and a small network has a channel between any two. */
export const ELECTORATE_MAX = 32;
/** What a voter weighs where nothing says otherwise, parts per million. */
export const WEIGHT_PPM = 1_000_000;

/** A voter to be, or one that stays. */
export interface Candidate {
  readonly publicKey: Uint8Array;
  /** At least 1. */
  readonly weightPpm: number;
  /** Missing: new. */
  readonly sinceMs?: number;
}

/**
 * Makes the next electorate.
 *
 * @param all Who votes from then on, at least one.
 * @param atMs Date of the record: newcomers vote since then.
 */
export function makeElectorate(
  all: readonly Candidate[],
  follows: { readonly epoch: number; readonly previous: Uint8Array; readonly seed: Uint8Array },
  atMs: number,
): Electorate {
  const sorted = [...all].sort((a, b) => compareBytes(a.publicKey, b.publicKey));
  const isEstablished = (sinceMs: number | undefined) => sinceMs !== undefined && sinceMs + PROBATION_MS <= atMs;
  let established = sorted.filter((one) => isEstablished(one.sinceMs)).length;
  const voters = sorted.map((one) => {
    if (one.sinceMs !== undefined) return { ...one, sinceMs: one.sinceMs, fresh: !isEstablished(one.sinceMs) };
    // A founder: since ever.
    const founds = established < FOUNDERS_MAX;
    if (founds) established += 1;
    return { ...one, sinceMs: founds ? 0 : atMs, fresh: !founds };
  });
  const weights = held(voters, established);
  const table = freezeTable({
    epoch: follows.epoch,
    seed: follows.seed,
    weights: voters.map(({ publicKey }, i) => ({ id: nodeIdOf(publicKey), publicKey, weightPpm: weights[i]! })),
  });
  const since = new Map(voters.map((one) => [nodeIdOf(one.publicKey), one.sinceMs]));
  return { table, previous: follows.previous, sinceMs: table.voters.map((one) => since.get(one.id)!) };
}

/** Weights with those of newcomers scaled so that together they hold less than a third of the seats. */
function held(
  voters: readonly { readonly publicKey: Uint8Array; readonly weightPpm: number; readonly fresh: boolean }[],
  established: number,
): readonly number[] {
  const own = voters.map((one) => one.weightPpm);
  const count = voters.length - established;
  if (established < ESTABLISHED_MIN || count === 0) return own;
  // The heaviest are capped first, as the table does: what a newcomer may have is a part of what counts.
  const old = capWeights(voters.flatMap((one) => one.fresh ? [] : [one.weightPpm])).reduce((sum, one) => sum + one, 0);
  const total = own.reduce((sum, one, i) => voters[i]!.fresh ? sum + one : sum, 0);
  // new < (old + new) / 3; seats are rounded, so the first guess may be too much.
  let allowed = Math.floor((old - 1) / 2);
  for (;;) {
    const weights = own.map((one, i) =>
      voters[i]!.fresh && total > allowed ? Number(BigInt(one) * BigInt(allowed) / BigInt(total)) : one
    );
    const table = freezeTable({
      epoch: 0,
      seed: new Uint8Array(32),
      weights: voters.map(({ publicKey }, i) => ({ id: nodeIdOf(publicKey), publicKey, weightPpm: weights[i]! })),
    });
    const fresh = new Set(voters.flatMap((one) => one.fresh ? [nodeIdOf(one.publicKey)] : []));
    const seats = table.voters.reduce((sum, one) => fresh.has(one.id) ? sum + one.seats : sum, 0);
    if (3 * seats < totalSeats(table)) return weights;
    allowed = Math.floor(allowed * 9 / 10);
  }
}

/** Voters of one table that are missing in another. */
export function without(table: WeightTable, other: WeightTable): readonly string[] {
  const there = new Set(other.voters.map((one) => one.id));
  return table.voters.flatMap((one) => there.has(one.id) ? [] : [one.id]);
}
