/**
 * Who votes, and with how much: weights, their caps, seats, committees. Integers only.
 *
 * Quorums count *seats*: weights in parts per million, capped below a third each and rounded down to a small total, so
 * that the threshold of secret sharing and the quorum meet exactly (ADR 14).
 *
 * @module
 */

import { assert } from "../core/assert.ts";
import { equalBytes, toHex, utf8 } from "../core/bytes.ts";
import { array, bytes, type CborValue, encodeCbor, type Reader, record, text, uint, WireError } from "../core/codec.ts";
import { hashParts } from "../core/crypto.ts";
import { LIMITS } from "../core/limits.ts";

/** Seats of a table whose voters do not all weigh the same, at most: shares of a secret are points of GF(256). */
export const SEATS_MAX = 96;
/** Voters of one table, at most; seats of equal voters may be as many. */
export const VOTERS_MAX: number = LIMITS.consensusVotersMax;

/** One voter of a frozen table. */
export interface Voter {
  /** Node id. */
  readonly id: string;
  /** Ed25519, 32 bytes. */
  readonly publicKey: Uint8Array;
  /** At least 1; below a third of all where there are four voters or more. */
  readonly seats: number;
}

/** The frozen weights: what an instance counts with from its first round to its last. */
export interface WeightTable {
  /** Grows with each certified change of the weights. */
  readonly epoch: number;
  /** Public randomness that nobody could choose, 32 bytes: committees are drawn from it. */
  readonly seed: Uint8Array;
  /** Sorted by id, distinct. */
  readonly voters: readonly Voter[];
}

/** A candidate for a seat: its weight in parts per million, or any other integers that compare. */
export interface Weighed {
  readonly id: string;
  readonly publicKey: Uint8Array;
  readonly weightPpm: number;
}

/**
 * Caps weights so that each is strictly below a third of what remains, which needs four positive ones; with fewer all
 * become equal.
 *
 * @param weights Integers, at least 0.
 * @returns Weights in the same order; none grew.
 */
export function capWeights(weights: readonly number[]): readonly number[] {
  const positive = weights.filter((one) => one > 0).sort((a, b) => b - a);
  if (positive.length === 0) return weights;
  if (positive.length < 4) return weights.map((one) => one > 0 ? 1 : 0);
  const [first, second] = positive as [number, number];
  const sum = positive.reduce((total, one) => total + one, 0);
  // The heaviest, or the two heaviest, weigh `cap` each: 3·cap < cap + rest, or 3·cap < 2·cap + rest. The third heaviest is
  // below the latter by itself.
  let cap = first;
  if (3 * first >= sum) {
    cap = Math.ceil((sum - first) / 2) - 1;
    if (second > cap) cap = sum - first - second - 1;
  }
  return weights.map((one) => Math.min(one, cap));
}

/**
 * Freezes weights into a table. Voters with less than a seat do not vote; of too many the lightest do not.
 *
 * @throws {InvariantError} When an id comes twice or nobody weighs anything.
 */
export function freezeTable(
  options: { readonly epoch: number; readonly seed: Uint8Array; readonly weights: readonly Weighed[] },
): WeightTable {
  const sorted = [...options.weights]
    .filter((one) => one.weightPpm > 0)
    .sort((a, b) => b.weightPpm - a.weightPpm || (a.id < b.id ? -1 : 1))
    .slice(0, VOTERS_MAX);
  const capped = capWeights(sorted.map((one) => one.weightPpm));
  const equal = capped.every((one) => one === capped[0]);
  const total = capped.reduce((sum, one) => sum + one, 0);
  // BigInt: parts per million of a hundred voters times seats stay small, but a caller's integers need not be ppm.
  const shares = capped.map((one) => Number(BigInt(one) * BigInt(SEATS_MAX) / BigInt(total)));
  // More voters than seats that weigh almost the same: none of them comes to one.
  const seats = equal || shares.every((one) => one === 0) ? capped.map(() => 1) : capWeights(shares);
  const voters = sorted.map(({ id, publicKey }, i) => ({ id, publicKey, seats: seats[i]! }))
    .filter((one) => one.seats > 0)
    .sort((a, b) => a.id < b.id ? -1 : 1);
  const table = { epoch: options.epoch, seed: options.seed, voters };
  checkTable(table, (cause) => assert(false, cause));
  return table;
}

/** Sum of all seats. */
export function totalSeats(table: WeightTable): number {
  let sum = 0;
  for (const one of table.voters) sum += one.seats;
  return sum;
}

/** Fewest seats that are more than two thirds of `total`. */
export function quorumSeats(total: number): number {
  return Math.floor((2 * total) / 3) + 1;
}

/** Fewest seats that are more than a third of `total`: at least one of any such set is honest. Threshold of the sharing, too. */
export function blockingSeats(total: number): number {
  return Math.floor(total / 3) + 1;
}

/**
 * How many voters may lie at least, whichever they are: the largest f whose f heaviest weigh less than a third. What
 * status shows as the tolerated f; 0 with fewer than four.
 */
export function toleratedFaults(table: WeightTable): number {
  const total = totalSeats(table);
  let sum = 0;
  let faults = 0;
  for (const seats of table.voters.map((one) => one.seats).sort((a, b) => b - a)) {
    sum += seats;
    if (3 * sum >= total) break;
    faults++;
  }
  return faults;
}

/** Hash of a table in a network, 32 bytes: what headers and certificates name. */
export function tableHash(table: WeightTable, networkId: Uint8Array): Uint8Array {
  const kept = HASHES.get(table);
  if (kept && equalBytes(kept.networkId, networkId)) return kept.hash;
  const hash = hashParts("mycelium/consensus/table/v1", networkId, encodeCbor(tableValue(table)));
  HASHES.set(table, { networkId, hash });
  return hash;
}

/** Tables do not change; their hash is asked for with every certificate. */
const HASHES = new WeakMap<WeightTable, { readonly networkId: Uint8Array; readonly hash: Uint8Array }>();

/** A table as a value for `encodeCbor`. */
export function tableValue(table: WeightTable): CborValue {
  return {
    e: table.epoch,
    r: table.seed,
    v: table.voters.map((one) => [one.id, one.publicKey, one.seats]),
  };
}

const readParts = record({
  e: uint(),
  r: bytes({ length: 32 }),
  v: array((value, path) => {
    const [id, key, seats] = array((one) => one, 3)(value, path);
    return {
      id: text(128)(id, `${path}.id`),
      publicKey: bytes({ length: 32 })(key, `${path}.key`),
      seats: uint(VOTERS_MAX, 1)(seats, `${path}.seats`),
    };
  }, VOTERS_MAX),
});

/** Reads a table; checks order, seats and caps. */
export const readTable: Reader<WeightTable> = (value, path) => {
  const parts = readParts(value, path);
  const table = { epoch: parts.e, seed: parts.r, voters: parts.v };
  checkTable(table, (cause) => {
    throw new WireError(`Cannot read ${path}: ${cause}`);
  });
  return table;
};

function checkTable(table: WeightTable, fail: (cause: string) => void): void {
  const total = totalSeats(table);
  if (table.voters.length === 0) fail("a weight table has no voters");
  if (total > Math.max(SEATS_MAX, VOTERS_MAX)) fail(`a weight table has ${total} seats`);
  for (const [i, one] of table.voters.entries()) {
    if (i > 0 && table.voters[i - 1]!.id >= one.id) fail(`voters are not sorted or not distinct at "${one.id}"`);
    const capped = table.voters.length >= 4 ? 3 * one.seats < total : one.seats === 1;
    if (!capped) fail(`voter "${one.id}" has ${one.seats} of ${total} seats, below a third is allowed`);
  }
}

/**
 * Draws a committee by weight, without putting back; each has one seat. The whole table where it is not larger.
 *
 * Weighed sampling by exact integers: a voter is drawn with probability seats / seats left.
 *
 * @param draw What the drawing is for: a table's seed and this give the same committee everywhere.
 */
export function drawCommittee(table: WeightTable, draw: Uint8Array, size: number): WeightTable {
  assert(Number.isInteger(size) && size >= 1, `committee size is ${size}, at least 1`);
  if (table.voters.length <= size) return table;
  const left = [...table.voters];
  let seats = totalSeats(table);
  const drawn: Voter[] = [];
  const stream = new DrawStream("mycelium/consensus/committee/v1", table.seed, draw);
  while (drawn.length < size) {
    let at = stream.below(seats);
    const i = left.findIndex((one) => (at -= one.seats) < 0);
    const [voter] = left.splice(i, 1);
    seats -= voter!.seats;
    drawn.push({ ...voter!, seats: 1 });
  }
  return { epoch: table.epoch, seed: table.seed, voters: drawn.sort((a, b) => a.id < b.id ? -1 : 1) };
}

/** Public drawing from a hash: the same numbers on every node. */
export class DrawStream {
  readonly #domain: string;
  readonly #parts: readonly Uint8Array[];
  #block: Uint8Array = new Uint8Array(0);
  #at = 0;
  #counter = 0;

  constructor(domain: string, ...parts: readonly Uint8Array[]) {
    this.#domain = domain;
    this.#parts = parts;
  }

  /** An integer in [0, bound); `bound` is 1 to 2^16. */
  below(bound: number): number {
    assert(Number.isInteger(bound) && bound >= 1 && bound <= 1 << 16, `bound is ${bound}, 1 to 65536`);
    const limit = (1 << 16) - (1 << 16) % bound;
    for (;;) {
      if (this.#at >= this.#block.length) {
        this.#block = hashParts(this.#domain, ...this.#parts, utf8(`${this.#counter++}`));
        this.#at = 0;
      }
      const value = this.#block[this.#at]! << 8 | this.#block[this.#at + 1]!;
      this.#at += 2;
      if (value < limit) return value % bound;
    }
  }

  /** The indexes 0 to `count` - 1 in drawn order. */
  order(count: number): readonly number[] {
    const out = Array.from({ length: count }, (_, i) => i);
    for (let i = count - 1; i > 0; i--) {
      const j = this.below(i + 1);
      [out[i], out[j]] = [out[j]!, out[i]!];
    }
    return out;
  }
}

/** Name of a table in logs: `epoch 3 (4 voters, 4 seats) 1a2b3c4d`. */
export function describeTable(table: WeightTable, networkId: Uint8Array): string {
  const hash = toHex(tableHash(table, networkId)).slice(0, 8);
  return `epoch ${table.epoch} (${table.voters.length} voters, ${totalSeats(table)} seats) ${hash}`;
}
