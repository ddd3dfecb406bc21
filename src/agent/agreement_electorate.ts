/**
 * Who is to vote: the next electorate from who may and what each weighs. Integers only; whoever knows the same comes to the
 * same, so that a voter checks a proposal by making it anew.
 *
 * @module
 */

import { nodeIdOf } from "../core/ids.ts";
import { freezeTable, type WeightTable } from "../consensus/weights.ts";
import type { Electorate } from "./agreed.ts";

/** Voters that the agents choose by themselves: all verify all, and between any two there is to be a channel. */
export const ELECTORATE_MAX = 32;

/** A node that could vote. */
export interface Elector {
  readonly id: string;
  readonly publicKey: Uint8Array;
  /** Since when it votes; missing: not yet. */
  readonly sinceMs: number | undefined;
}

/**
 * Weighs electors, the same on every node that knows the agreed scores.
 *
 * @param nowMs Date of the change.
 * @returns In their order; 0: no vote.
 */
export type Weigh = (electors: readonly Elector[], nowMs: number) => readonly number[];

/**
 * Makes the next electorate; `undefined` where nobody would vote.
 *
 * @param electors Who may vote.
 * @param atMs Date of the record: newcomers vote since then.
 */
export function makeElectorate(
  electors: readonly Elector[],
  weigh: Weigh,
  follows: { readonly epoch: number; readonly previous: Uint8Array; readonly seed: Uint8Array },
  atMs: number,
): Electorate | undefined {
  const sorted = [...electors].sort((a, b) => a.id < b.id ? -1 : 1);
  const weights = weigh(sorted, atMs);
  if (!weights.some((one) => one > 0)) return undefined;
  const table = freezeTable({
    epoch: follows.epoch,
    seed: follows.seed,
    weights: sorted.map(({ id, publicKey }, i) => ({ id, publicKey, weightPpm: weights[i]! })),
  });
  if (table.voters.length < sorted.length) {
    // Who has no seat weighs nothing: the same comes out where only those are known that have one.
    const seated = new Set(table.voters.map((one) => one.id));
    return makeElectorate(sorted.filter((one) => seated.has(one.id)), weigh, follows, atMs);
  }
  const since = new Map(sorted.map((one) => [one.id, one.sinceMs ?? atMs]));
  return { table, previous: follows.previous, sinceMs: table.voters.map((one) => since.get(one.id)!) };
}

/** Voters of an electorate as electors. */
export function electorsOf({ table, sinceMs }: Electorate): readonly Elector[] {
  return table.voters.map(({ id, publicKey }, i) => ({ id, publicKey, sinceMs: sinceMs[i]! }));
}

/** A newcomer as an elector. */
export function newElector(publicKey: Uint8Array): Elector {
  return { id: nodeIdOf(publicKey), publicKey, sinceMs: undefined };
}

/** Whether two tables give the same voters the same seats. */
export function sameSeats(a: WeightTable, b: WeightTable): boolean {
  return a.voters.length === b.voters.length &&
    a.voters.every((one, i) => one.id === b.voters[i]!.id && one.seats === b.voters[i]!.seats);
}
