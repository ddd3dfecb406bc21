/**
 * Operations that wait for their turn: by priority, lanes in turn, batched.
 *
 * Whatever waits long rises: one priority for every {@linkcode AGE_MS}, so that nothing starves. Within one priority lanes take turns,
 * so that a lane that asks for much cannot keep the others waiting.
 *
 * @module
 */

import { LIMITS } from "../core/limits.ts";
import type { Operation, OperationClass } from "./statements.ts";

/** Waiting for so long counts as one priority. */
export const AGE_MS = 2_000;
/** Highest priority. */
export const PRIORITY_MAX = 7;

/** An operation that waits. */
export interface Queued {
  readonly id: number;
  readonly class: OperationClass;
  readonly lane: string;
  /** 0 to {@linkcode PRIORITY_MAX}. */
  readonly priority: number;
  readonly operation: Operation;
  readonly sinceMs: number;
}

/** What {@linkcode OperationQueue.take} may take. */
export interface BatchLimits {
  /** Operations. */
  readonly countMax: number;
  /** Bodies together; a single larger one still goes. */
  readonly bytesMax: number;
}

/** A bounded queue of one node's own operations. */
export class OperationQueue {
  readonly #max: number;
  /** By class and lane, each in order of arrival. */
  readonly #lanes = new Map<string, Queued[]>();
  readonly #byId = new Map<number, Queued>();
  /** When a lane was last served: the smallest is next. */
  readonly #served = new Map<string, number>();
  #turn = 0;

  constructor(max: number = LIMITS.consensusQueueMax) {
    this.#max = max;
  }

  /** Operations waiting. */
  get size(): number {
    return this.#byId.size;
  }

  /**
   * Adds an operation.
   *
   * When full, the newest of the lowest priority of the fullest lane makes room; where that is the new one itself, or it would be of
   * no lower priority in a lane as full, the new one is refused.
   *
   * @returns What is not in the queue any more, or never was: its id, to be refused `overloaded`.
   */
  add(one: Queued): number | undefined {
    if (this.#byId.has(one.id)) return one.id;
    if (this.#byId.size < this.#max) {
      this.#put(one);
      return undefined;
    }
    const lengthOf = (key: string) => this.#lanes.get(key)?.length ?? 0;
    const fullest = [...this.#lanes.keys()].reduce((a, b) => lengthOf(b) > lengthOf(a) ? b : a);
    const lane = this.#lanes.get(fullest)!;
    const victim = lane.reduce((a, b) => b.priority <= a.priority ? b : a);
    const own = laneKey(one);
    if (own === fullest ? victim.priority >= one.priority : lengthOf(own) + 1 >= lane.length) {
      if (victim.priority >= one.priority) return one.id;
    }
    this.#remove(victim);
    this.#put(one);
    return victim.id;
  }

  /** Takes an operation out; false where it does not wait here. */
  cancel(id: number): boolean {
    const one = this.#byId.get(id);
    if (one) this.#remove(one);
    return one !== undefined;
  }

  /** The next batch, all of one class: the class of whatever is first by priority and age. Empty where nothing waits. */
  take(nowMs: number, limits: BatchLimits): readonly Queued[] {
    const batch: Queued[] = [];
    let bytes = 0;
    while (batch.length < limits.countMax) {
      const next = this.#next(nowMs, batch[0]?.class);
      if (!next) break;
      bytes += next.operation.body.length;
      if (batch.length > 0 && bytes > limits.bytesMax) break;
      this.#remove(next);
      this.#served.set(laneKey(next), ++this.#turn);
      batch.push(next);
    }
    return batch;
  }

  /** First by urgency, then the lane that waits longest for its turn, then by arrival. */
  #next(nowMs: number, only: OperationClass | undefined): Queued | undefined {
    let best: Queued | undefined;
    let bestUrgency = -1;
    let bestTurn = 0;
    for (const [key, lane] of this.#lanes) {
      const turn = this.#served.get(key) ?? 0;
      for (const one of lane) {
        if (only !== undefined && one.class !== only) break;
        const urgency = urgencyOf(one, nowMs);
        if (urgency > bestUrgency || urgency === bestUrgency && turn < bestTurn) {
          [best, bestUrgency, bestTurn] = [one, urgency, turn];
        }
        // What came later is of this urgency at most, unless its priority is higher.
        if (urgency >= PRIORITY_MAX) break;
      }
    }
    return best;
  }

  #put(one: Queued): void {
    const key = laneKey(one);
    const lane = this.#lanes.get(key) ?? [];
    lane.push(one);
    this.#lanes.set(key, lane);
    this.#byId.set(one.id, one);
    // A new lane is not owed the turns of those before it.
    if (!this.#served.has(key)) this.#served.set(key, this.#oldestTurn());
  }

  #remove(one: Queued): void {
    const key = laneKey(one);
    const lane = this.#lanes.get(key)!;
    lane.splice(lane.indexOf(one), 1);
    this.#byId.delete(one.id);
    if (lane.length > 0) return;
    this.#lanes.delete(key);
    this.#served.delete(key);
  }

  #oldestTurn(): number {
    const turns = [...this.#served.values()];
    return turns.length === 0 ? this.#turn : Math.min(...turns);
  }
}

/** Priority with age, at most the highest. */
function urgencyOf(one: Queued, nowMs: number): number {
  return Math.min(PRIORITY_MAX, one.priority + Math.floor(Math.max(0, nowMs - one.sinceMs) / AGE_MS));
}

function laneKey(one: Queued): string {
  return `${one.class} ${one.lane}`;
}
