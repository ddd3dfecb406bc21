/** Quorum arithmetic. @module */

/** Fewest of `n` that are more than two thirds: any two such sets share more than a third. `n` is at least 1. */
export function superMajority(n: number): number {
  return Math.floor((2 * n) / 3) + 1;
}

/** Fewest of `n` that are more than half. `n` is at least 1. */
export function majority(n: number): number {
  return Math.floor(n / 2) + 1;
}

/** Most Byzantine nodes that `n` voters tolerate (n ≥ 3f + 1). */
export function byzantineFaults(n: number): number {
  return Math.max(0, Math.floor((n - 1) / 3));
}

/** Most crashed nodes that `n` voters tolerate (n ≥ 2f + 1). */
export function crashFaults(n: number): number {
  return Math.max(0, Math.floor((n - 1) / 2));
}
