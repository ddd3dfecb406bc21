/**
 * Whether a history of registers with compare-and-set is linearizable: whether each operation can be given a moment
 * between its call and its end, so that each read finds what was written last.
 *
 * Keys are independent of each other, since linearizability is local (Herlihy, Wing 1990, theorem 1), so each is
 * searched alone: from the beginning on, any operation may come next that was called before the first of the rest
 * returned; where none fits, go back and try another. A place where the search was before, the same operations
 * done and the same value, is not entered again.
 *
 * Source: J. Wing, C. Gong, "Testing and Verifying Concurrent Objects", 1993; the memory of places is that of
 * G. Lowe, "Testing for Linearizability", 2017.
 *
 * @module
 */

import type { HistoryLine, OperationKind } from "./history.ts";

/** One operation of a history, its two lines together. Times are places in the history. */
export interface Operation {
  readonly process: number;
  readonly f: OperationKind;
  /** What a read found, a write wrote, `[expected, new]` of a `cas`. */
  readonly value: HistoryLine["value"];
  readonly calledAt: number;
  /** Infinity where nobody knows how it ended: a read says nothing, others may have happened at any later time, or never. */
  readonly returnedAt: number;
}

/** What the checker found. */
export type Verdict =
  | { readonly linearizable: true; readonly states: number }
  /** `stuck`: where the longest explanation ends, what could have come next and fits with none; `value`: what is there. */
  | { readonly linearizable: false; readonly key: string; readonly stuck: readonly Operation[]; readonly value: Value }
  /** More places than allowed. */
  | { readonly linearizable: undefined; readonly key: string; readonly states: number };

type Value = string | null;

/** Options of {@linkcode checkLinearizable}. */
export interface CheckOptions {
  /** Places to look at for each key, at most. @default 2000000 */
  readonly statesMax?: number;
}

/** Judges a history. @throws {TypeError} Where its lines do not belong together. */
export function checkLinearizable(lines: readonly HistoryLine[], options: CheckOptions = {}): Verdict {
  let states = 0;
  for (const [key, operations] of operationsOf(lines)) {
    const verdict = checkKey(key, operations, options.statesMax ?? 2_000_000);
    if (!verdict.linearizable) return verdict;
    states += verdict.states;
  }
  return { linearizable: true, states };
}

/** The operations of each key, in the order of their calls; those that failed did not happen and are left out. */
export function operationsOf(lines: readonly HistoryLine[]): Map<string, Operation[]> {
  const open = new Map<number, { readonly line: HistoryLine; readonly at: number }>();
  const out = new Map<string, Operation[]>();
  const add = (line: HistoryLine, value: HistoryLine["value"], calledAt: number, returnedAt: number) => {
    const list = out.get(line.key) ?? [];
    if (list.length === 0) out.set(line.key, list);
    list.push({ process: line.process, f: line.f, value, calledAt, returnedAt });
  };
  for (const [at, line] of lines.entries()) {
    const call = open.get(line.process);
    if (line.type === "invoke") {
      if (call) throw new TypeError(`Line ${at + 1}: process ${line.process} does two things at once`);
      open.set(line.process, { line, at });
      continue;
    }
    if (!call || call.line.key !== line.key || call.line.f !== line.f) {
      throw new TypeError(`Line ${at + 1}: process ${line.process} ends what it did not begin`);
    }
    open.delete(line.process);
    if (line.type === "ok") add(line, line.value, call.at, at);
    else if (line.type === "info" && line.f !== "read") add(line, call.line.value, call.at, Infinity);
  }
  for (const { line, at } of open.values()) if (line.f !== "read") add(line, line.value, at, Infinity);
  for (const list of out.values()) list.sort((a, b) => a.calledAt - b.calledAt);
  return out;
}

/** The value after an operation, or `undefined` where it cannot happen now. */
function after(operation: Operation, value: Value): Value | undefined {
  if (operation.f === "cas") {
    const [expected, wanted] = operation.value as readonly [Value, Value];
    return expected === value ? wanted : undefined;
  }
  if (operation.f === "write") return operation.value as Value;
  return operation.value === value ? value : undefined;
}

function checkKey(
  key: string,
  all: readonly Operation[],
  statesMax: number,
): Verdict {
  // Whoever nobody saw the result of need not have happened; leaving those out keeps the rest few.
  const seen = new Set<Value>();
  for (const one of all) {
    if (one.f === "read") seen.add(one.value as Value);
    if (one.f === "cas") seen.add((one.value as readonly [Value, Value])[0]);
  }
  const written = (one: Operation) => one.f === "cas" ? (one.value as readonly [Value, Value])[1] : one.value as Value;
  const sure = all.filter((one) => one.returnedAt !== Infinity);
  const open = all.filter((one) => one.returnedAt === Infinity && seen.has(written(one)));
  const count = sure.length;
  const done = new Uint8Array(count);
  const doneOpen = new Uint8Array(open.length);
  const visited = new Set<string>();
  const path: {
    readonly open: boolean;
    readonly at: number;
    readonly before: Value;
    readonly low: number;
    readonly forced: boolean;
  }[] = [];
  let value: Value = null;
  /** All before it are done. */
  let low = 0;
  let furthest = -1;
  let stuck: Verdict = { linearizable: false, key, stuck: [], value };
  // Where to go on looking for the next operation: of those with an end first, then of the open ones.
  let from = 0;
  for (;;) {
    if (low === count) return { linearizable: true, states: visited.size };
    // Only what was called before the first of the rest returned can come next.
    let deadline = Infinity;
    for (let i = low; i < count && sure[i]!.calledAt < deadline; i++) {
      if (!done[i] && sure[i]!.returnedAt < deadline) deadline = sure[i]!.returnedAt;
    }
    let stepped = false;
    for (let i = Math.max(from, low); i < count + open.length; i++) {
      const isOpen = i >= count;
      if (!isOpen && sure[i]!.calledAt >= deadline) {
        i = count - 1;
        continue;
      }
      const at = isOpen ? i - count : i;
      const one = isOpen ? open[at]! : sure[at]!;
      if (isOpen ? doneOpen[at] || one.calledAt >= deadline : done[at]) continue;
      const next = after(one, value);
      if (next === undefined) continue;
      (isOpen ? doneOpen : done)[at] = 1;
      // A read that fits changes nothing: whatever comes later may as well come after it.
      const before = { open: isOpen, at, before: value, low, forced: one.f === "read" };
      while (low < count && done[low]) low++;
      const place = placeOf(low, sure, done, doneOpen, next);
      if (visited.has(place)) {
        (isOpen ? doneOpen : done)[at] = 0;
        low = before.low;
        if (before.forced) break;
        continue;
      }
      visited.add(place);
      if (visited.size > statesMax) return { linearizable: undefined, key, states: visited.size };
      path.push(before);
      value = next;
      stepped = true;
      break;
    }
    if (stepped) {
      from = 0;
      continue;
    }
    if (path.length > furthest) {
      furthest = path.length;
      const rest = sure.filter((one, i) => !done[i] && one.calledAt < deadline);
      stuck = { linearizable: false, key, stuck: rest, value };
    }
    for (;;) {
      const back = path.pop();
      if (!back) return stuck;
      (back.open ? doneOpen : done)[back.at] = 0;
      value = back.before;
      low = back.low;
      from = (back.open ? count : 0) + back.at + 1;
      if (!back.forced) break;
    }
  }
}

/** Which operations are done, and the value: as short as those that overlap are few. */
function placeOf(
  low: number,
  sure: readonly Operation[],
  done: Uint8Array,
  doneOpen: Uint8Array,
  value: Value,
): string {
  let place = `${low}`;
  // What was done before the first that is not done was called before that one returned.
  const end = sure[low]?.returnedAt ?? -1;
  for (let i = low + 1; i < sure.length && sure[i]!.calledAt < end; i++) if (done[i]) place += `,${i - low}`;
  for (let i = 0; i < doneOpen.length; i++) if (doneOpen[i]) place += `;${i}`;
  return value === null ? place : `${place}=${value}`;
}
