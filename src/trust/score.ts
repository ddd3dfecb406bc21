/**
 * The arithmetic of trust: scores in parts per million, and how they move. Integers only, so that a score may be voted on.
 *
 * Slow to earn: half of the way to the top in a month, however much work is done in it. Quick to lose: each fault takes a
 * share of what is there. What nobody speaks of any more goes back to neutral. Reasons and ranges: ADR 16.
 *
 * @module
 */

import { assert } from "../core/assert.ts";

/** The highest score. */
export const SCORE_MAX = 1_000_000;
/** Where a node starts, and where a score goes back to when nothing is heard of it. */
export const NEUTRAL_PPM = 500_000;
/** Time in which an agreed score goes half of its way: 30 days. */
export const AGREED_HALF_LIFE_MS: number = 30 * 86_400_000;
/** The same for what a node has seen itself: 7 days. */
export const LOCAL_HALF_LIFE_MS: number = 7 * 86_400_000;

/** Parts of 2^30 that are left of a distance after 2^k parts of 43,200 of a half-life: 2^30 · 2^(−2^k / 43200), rounded. */
const LEFT: readonly number[] = [
  1073724596,
  1073707368,
  1073672913,
  1073604007,
  1073466207,
  1073190661,
  1072639781,
  1071538869,
  1069340433,
  1064957085,
  1056244217,
  1039031749,
  1005443722,
  941489896,
  825527332,
  634692028,
  375168371,
  131084869,
  16003142,
  238512,
];
const ONE = 2 ** 30;
/** Parts of a half-life that are told apart: a minute of 30 days. */
const PARTS = 43_200;

/**
 * A score that has gone towards a target for some time. Never past it; the same in one long step and in many short ones up
 * to one part per million for each of them.
 *
 * @param score In [0, {@linkcode SCORE_MAX}].
 * @param elapsedMs At least 0; counted in 43,200th parts of the half-life, rounded down.
 */
export function towards(score: number, target: number, elapsedMs: number, halfLifeMs: number): number {
  checkScore(score);
  checkScore(target);
  assert(Number.isSafeInteger(elapsedMs) && elapsedMs >= 0, `elapsed time is ${elapsedMs}`);
  const parts = Math.floor(elapsedMs / (halfLifeMs / PARTS));
  // 2^20 parts are more than 24 half-lives: less than one ppm is left of any distance.
  if (parts >= 2 ** LEFT.length) return target;
  let distance = Math.abs(target - score);
  for (const [k, left] of LEFT.entries()) {
    // Below 2^50: exact.
    if (parts & (1 << k)) distance = Math.floor((distance * left) / ONE);
  }
  return target > score ? target - distance : target + distance;
}

/** The time that {@linkcode towards} counts of some, so that what it leaves out is not lost: whole parts of a half-life. */
export function countedMs(elapsedMs: number, halfLifeMs: number): number {
  const part = halfLifeMs / PARTS;
  return Math.floor(elapsedMs / part) * part;
}

/** What is left of a score that loses a share. @param lossPpm In [0, {@linkcode SCORE_MAX}]. */
export function lose(score: number, lossPpm: number): number {
  checkScore(score);
  checkScore(lossPpm);
  return Math.floor((score * (SCORE_MAX - lossPpm)) / SCORE_MAX);
}

/** Throws unless a number is a score. @throws {InvariantError} */
export function checkScore(score: number): void {
  assert(
    Number.isSafeInteger(score) && score >= 0 && score <= SCORE_MAX,
    `a score is ${score}, wanted an integer from 0 to ${SCORE_MAX}`,
  );
}
