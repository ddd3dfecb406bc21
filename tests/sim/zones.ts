/**
 * Whether a history of one register could have happened in some order of moments.
 *
 * @module
 */

/** One operation of a client. Times are places in the history, not clock times: each is unique and above 0. */
export interface Operation {
  readonly kind: "write" | "read";
  /** Written, or read. No value is written twice; `undefined` is the register before the first write. */
  readonly value: string | undefined;
  readonly calledAt: number;
  /** Infinity where nobody knows how it ended: such a read says nothing, such a write may have happened or not. */
  readonly returnedAt: number;
}

/**
 * Whether the history is linearizable, in the time that sorting takes.
 *
 * Every value together with its reads was in the register for one stretch of time: at least from the first
 * return of its operations to the last call, if that is later (a forward zone); otherwise it may have been there
 * for a moment, somewhere between the two (a backward zone). So no two forward zones may overlap, and none may
 * contain a backward one.
 *
 * Source: P. Gibbons, E. Korach, "Testing Shared Memories", 1997, section 4 (a read mapping is given).
 */
export function isLinearizable(history: readonly Operation[]): boolean {
  const clusters = new Map<string | undefined, Operation[]>([[undefined, []]]);
  for (const one of history) if (one.kind === "write") clusters.set(one.value, []);
  for (const one of history) {
    if (one.kind === "read" && one.returnedAt === Infinity) continue;
    const cluster = clusters.get(one.value);
    if (!cluster) return false;
    cluster.push(one);
  }
  const forward: { readonly from: number; readonly to: number }[] = [];
  const backward: { readonly from: number; readonly to: number }[] = [];
  for (const [value, cluster] of clusters) {
    const write = cluster.find((one) => one.kind === "write");
    const wroteFrom = write?.calledAt ?? -1;
    const reads = cluster.filter((one) => one.kind === "read");
    if (reads.some((one) => one.returnedAt < wroteFrom)) return false;
    if (reads.length === 0 && (value === undefined || write!.returnedAt === Infinity)) continue;
    // The first value was written before all.
    const firstReturn = Math.min(value === undefined ? 0 : write!.returnedAt, ...reads.map((one) => one.returnedAt));
    const lastCall = Math.max(wroteFrom, ...reads.map((one) => one.calledAt));
    if (firstReturn < lastCall) forward.push({ from: firstReturn, to: lastCall });
    else backward.push({ from: lastCall, to: firstReturn });
  }
  // Nothing comes before the first value, read or not.
  backward.push({ from: -1, to: 0 });
  forward.sort((a, b) => a.from - b.from);
  return forward.every((one, i) => i === 0 || forward[i - 1]!.to < one.from) &&
    backward.every((inner) => !forward.some((one) => one.from < inner.from && inner.to < one.to));
}

/**
 * The same by trying all orders: the oracle for small histories.
 *
 * Source: J. Wing, C. Gong, "Testing and Verifying Concurrent Objects", 1993, with the memory of what was
 * visited of G. Lowe, "Testing for Linearizability", 2017.
 */
export function isLinearizableByTrying(history: readonly Operation[]): boolean {
  const operations = history.filter((one) => one.kind === "write" || one.returnedAt !== Infinity);
  const visited = new Set<string>();
  const done = operations.map(() => false);
  const search = (value: string | undefined, left: number): boolean => {
    if (left === 0) return true;
    const key = `${done.map((one) => one ? 1 : 0).join("")}|${value}`;
    if (visited.has(key)) return false;
    visited.add(key);
    // Only what was called before the first of the rest returned can come next.
    const firstReturn = Math.min(...operations.filter((_, i) => !done[i]).map((one) => one.returnedAt));
    for (const [i, one] of operations.entries()) {
      if (done[i] || one.calledAt > firstReturn || one.kind === "read" && one.value !== value) continue;
      done[i] = true;
      const answered = one.returnedAt !== Infinity ? 1 : 0;
      if (search(one.kind === "write" ? one.value : value, left - answered)) return true;
      done[i] = false;
    }
    return false;
  };
  return search(undefined, operations.filter((one) => one.returnedAt !== Infinity).length);
}
