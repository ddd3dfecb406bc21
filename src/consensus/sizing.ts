/**
 * How many voters a standard decision needs, from what the network is like. Integers, so that all who know the same come to the
 * same; frozen into the header of each instance by its proposer.
 *
 * @module
 */

import { quorumSeats, VOTERS_MAX } from "./weights.ts";

/** What the size is chosen from. */
export interface NetworkCondition {
  /** Voters of the table. */
  readonly voters: number;
  /** Share of their weight that answers, parts per million. */
  readonly healthyPpm: number;
  /** Median round trip between them, milliseconds. */
  readonly rttMs: number;
  /** Share of members that came or went in the last hour, parts per million. */
  readonly churnPpm: number;
  /** Share of recent decisions with evidence against somebody, parts per million. */
  readonly faultPpm: number;
}

/**
 * Smallest committee: tolerates four. Its proposer chooses the size, so this is what a standard certificate is worth: liars with 10,
 * 20, 30 % of the weight are nine of thirteen for one proposer in 2 million, 6 000, 250 of one table.
 */
export const COMMITTEE_MIN = 13;
/** Largest committee: all verify all, and that grows with the square (performance.md). */
export const COMMITTEE_MAX = 32;

/**
 * Size of a standard committee.
 *
 * 16 where all is well: f = 5, and a drawn majority of liars is unlikely while they hold a fifth of the weight. More
 * for faults seen (up to twice as many), for voters that do not answer (their places must not stop the rest) and for churn.
 * Fewer where round trips are long, since the slowest of the committee sets the pace; never below {@linkcode COMMITTEE_MIN}.
 *
 * @returns Voters: 3f + 1 of some f, or the whole table where it is no larger.
 */
export function committeeSize(condition: NetworkCondition): number {
  const { voters, healthyPpm, rttMs, churnPpm, faultPpm } = condition;
  const bounded = (ppm: number) => Math.max(0, Math.min(1_000_000, ppm));
  let size = 16;
  size += Math.floor(16 * Math.min(100_000, bounded(faultPpm)) / 100_000);
  size += Math.floor(12 * Math.min(300_000, 1_000_000 - bounded(healthyPpm)) / 300_000);
  size += Math.floor(6 * Math.min(500_000, bounded(churnPpm)) / 500_000);
  // A slow network pays for size in time only: take back at most what makes it safer than usual, and a bit.
  if (rttMs > 200) size -= 3;
  if (rttMs > 1_000) size -= 6;
  size = Math.max(COMMITTEE_MIN, Math.min(COMMITTEE_MAX, size));
  if (voters <= size) return Math.max(1, Math.min(voters, VOTERS_MAX));
  // One more voter than 3f + 1 costs messages and tolerates nobody more.
  return size - (size - 1) % 3;
}

/** How a quorum is doing. */
export type QuorumHealth =
  /** All seats answer. */
  | "full"
  /** More than two thirds answer, and one more fault of the heaviest is borne. */
  | "sound"
  /** More than two thirds answer; the heaviest that answers must not fail. */
  | "fragile"
  /** Nothing can be decided. */
  | "lost";

/** Health of an electorate from who answers: what status shows and alarms watch. */
export function quorumHealth(
  voters: readonly { readonly id: string; readonly seats: number }[],
  answering: ReadonlySet<string>,
): { readonly health: QuorumHealth; readonly seats: number; readonly of: number; readonly needed: number } {
  const of = voters.reduce((sum, one) => sum + one.seats, 0);
  const there = voters.filter((one) => answering.has(one.id));
  const seats = there.reduce((sum, one) => sum + one.seats, 0);
  const heaviest = there.reduce((most, one) => Math.max(most, one.seats), 0);
  const needed = quorumSeats(of);
  const health = seats < needed ? "lost" : seats === of ? "full" : seats - heaviest >= needed ? "sound" : "fragile";
  return { health, seats, of, needed };
}
