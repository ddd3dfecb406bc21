/**
 * The part of the replicated state that agreement governs: who votes, what shows each agreed record, what was applied.
 *
 * @module
 */

import { equalBytes } from "../core/bytes.ts";
import { array, bytes, type CborValue, type Read, record, text, uint, WireError } from "../core/codec.ts";
import { LIMITS } from "../core/limits.ts";
import { type DecisionName, ELECTORATE_RECORD, type Law } from "./law.ts";

/** A decision that was applied. */
export interface Remembered {
  readonly index: number;
  readonly expiresMs: number;
  /** Codes of its operations, one byte each. */
  readonly outcomes: Uint8Array;
}

interface Proposer {
  /** What ends by then may have been applied and forgotten. */
  floorMs: number;
  /** By instance. */
  readonly known: Map<string, Remembered>;
}

type Memory = Map<string, Proposer>;

/**
 * A decision may be applied until so long after its instance has ended: an hour. The primaries may be without a leader when
 * it is made; a certificate does not get worse by it.
 */
export const DECISION_GRACE_MS = 3_600_000;
/** Longest warrant: certificate, operation, and 32 bytes for each operation of its batch. */
const WARRANT_BYTES_MAX: number = LIMITS.consensusOperationBytesMax + 32 * LIMITS.consensusBatchMax + (16 << 10);

/** Electorate, warrants, applied decisions. */
export class AgreedState {
  /** Missing where no law is known: then nothing is decided. */
  readonly law: Law | undefined;
  #electorate: Uint8Array;
  /** Warrants of all electorates since the first, in order: a chain that anybody can follow. */
  #links: readonly Uint8Array[] = [];
  #linkBytes = 0;
  /** By key, of the version that stands there; but the electorate's, which is the last link. */
  #warrants = new Map<string, Uint8Array>();
  #warrantBytes = 0;
  /** Applied under the electorate that is, and under the one before. */
  #memory: readonly [Memory, Memory] = [new Map(), new Map()];

  constructor(law: Law | undefined) {
    this.law = law;
    this.#electorate = law?.genesis ?? new Uint8Array(0);
  }

  /** Who votes, in the encoding of the law. */
  get electorate(): Uint8Array {
    return this.#electorate;
  }

  /** Warrants of all electorates since the first. */
  get links(): readonly Uint8Array[] {
    return this.#links;
  }

  /** Keys with a warrant, but for the electorate's. */
  get keys(): Iterable<string> {
    return this.#warrants.keys();
  }

  /** What shows the record that stands under an agreed key. */
  warrantOf(key: string): Uint8Array | undefined {
    return key === ELECTORATE_RECORD ? this.#links.at(-1) : this.#warrants.get(key);
  }

  /** Whether a warrant for a key finds room. */
  hasRoom(key: string, warrant: Uint8Array): boolean {
    if (key === ELECTORATE_RECORD) return this.#linkBytes + warrant.length <= LIMITS.agreedLinkBytesMax;
    const known = this.#warrants.get(key);
    if (!known && this.#warrants.size >= LIMITS.agreedKeysMax) return false;
    return this.#warrantBytes + warrant.length - (known?.length ?? 0) <= LIMITS.agreedWarrantBytesMax;
  }

  /** Notes what shows the record that stands under a key now. */
  warrant(key: string, warrant: Uint8Array): void {
    this.forget(key);
    this.#warrants.set(key, warrant);
    this.#warrantBytes += warrant.length;
  }

  /** The key is forgotten. */
  forget(key: string): void {
    this.#warrantBytes -= this.#warrants.get(key)?.length ?? 0;
    this.#warrants.delete(key);
  }

  /** Another electorate from here on: decisions of the one before it are foreign now, and remembered as applied. */
  succeed(electorate: Uint8Array, warrant: Uint8Array): void {
    this.#electorate = electorate;
    this.#links = [...this.#links, warrant];
    this.#linkBytes += warrant.length;
    this.#memory = [new Map(), this.#memory[0]];
  }

  /** What is remembered of a decision; `"expired"`: it may have been applied and forgotten. */
  recall(name: DecisionName, nowMs: number): Remembered | "expired" | undefined {
    for (const memory of this.#memory) {
      const known = memory.get(name.proposer)?.known.get(name.instance);
      if (known) return known;
    }
    const floorMs = this.#memory[0].get(name.proposer)?.floorMs ?? 0;
    return name.expiresMs <= floorMs || name.expiresMs + DECISION_GRACE_MS <= nowMs ? "expired" : undefined;
  }

  /**
   * Remembers a decision that is being applied. Of one proposer a bounded number is: of more the one that ends first goes,
   * and what ends as early is refused from then on.
   */
  remember(name: DecisionName, what: Omit<Remembered, "expiresMs">, nowMs: number): void {
    const [memory] = this.#memory;
    const proposer = memory.get(name.proposer) ?? { floorMs: 0, known: new Map<string, Remembered>() };
    memory.set(name.proposer, proposer);
    for (const [instance, one] of proposer.known) {
      if (one.expiresMs + DECISION_GRACE_MS <= nowMs) proposer.known.delete(instance);
    }
    proposer.known.set(name.instance, { ...what, expiresMs: name.expiresMs });
    if (proposer.known.size <= LIMITS.agreedInstancesPerProposerMax) return;
    let first: readonly [string, number] | undefined;
    for (const [instance, { expiresMs }] of proposer.known) {
      if (!first || expiresMs < first[1]) first = [instance, expiresMs];
    }
    proposer.known.delete(first![0]);
    proposer.floorMs = Math.max(proposer.floorMs, first![1]);
  }

  /** As values for the codec, one part of the snapshot each. */
  *parts(): Generator<CborValue> {
    for (const one of this.#links) yield one;
    for (const key of [...this.#warrants.keys()].sort()) yield [key, this.#warrants.get(key)!];
    for (const memory of this.#memory) {
      for (const proposer of [...memory.keys()].sort()) {
        const { floorMs, known } = memory.get(proposer)!;
        const instances = [...known.keys()].sort();
        yield {
          p: proposer,
          f: floorMs,
          k: instances.map((instance) => {
            const { index, expiresMs, outcomes } = known.get(instance)!;
            return [instance, index, expiresMs, outcomes];
          }),
        };
      }
    }
  }

  /** How many parts there are of each kind: links, warrants, proposers of either memory. */
  get counts(): readonly number[] {
    return [this.#links.length, this.#warrants.size, this.#memory[0].size, this.#memory[1].size];
  }

  /**
   * Reads what {@linkcode parts} gave, into a new state. Each electorate is verified against the one before it, and each record
   * against its own: a snapshot is believed as little as a command.
   *
   * Without a law nothing of that is verified: who only looks into a backup of his own has none.
   *
   * @param hashOf Hash of the record that stands under an agreed key, from the same snapshot.
   * @throws {WireError} Where they are none, or do not hold.
   */
  static read(
    counts: readonly number[],
    next: () => CborValue,
    options: { readonly law: Law | undefined; readonly hashOf: (key: string) => Uint8Array | undefined },
  ): AgreedState {
    const { law, hashOf } = options;
    const state = new AgreedState(law);
    const [links, warrants, now, before] = counts as [number, number, number, number];
    const electorates: Uint8Array[] = [state.#electorate];
    const all: Uint8Array[] = [];
    for (let i = 0; i < links; i++) {
      const link = bytes({ max: WARRANT_BYTES_MAX })(next(), `link ${i}`);
      const followed = law ? law.follow(electorates.at(-1)!, link) : state.#electorate;
      if (!followed) throw new WireError(`Cannot restore: electorate ${i + 1} does not follow from the one before`);
      electorates.push(followed);
      all.push(link);
      state.#linkBytes += link.length;
    }
    state.#links = all;
    state.#electorate = electorates.at(-1)!;
    if (law && links > 0) checkShown(law, ELECTORATE_RECORD, all.at(-1)!, electorates, hashOf);
    for (let i = 0, last = ""; i < warrants; i++) {
      const [key, warrant] = readWarrant(next(), `warrant ${i}`);
      if (key <= last) throw new WireError(`Cannot restore: the warrant of "${key}" is misplaced`);
      last = key;
      if (law) checkShown(law, key, warrant, electorates, hashOf);
      state.warrant(key, warrant);
    }
    state.#memory = [readMemory(now, next), readMemory(before, next)];
    return state;
  }
}

function checkShown(
  law: Law,
  key: string,
  warrant: Uint8Array,
  electorates: readonly Uint8Array[],
  hashOf: (key: string) => Uint8Array | undefined,
): void {
  const hash = hashOf(key);
  const shown = law.shown(warrant, electorates);
  if (!hash || !shown || !equalBytes(hash, shown)) {
    throw new WireError(`Cannot restore: nobody decided what stands under "${key}"`);
  }
}

const readPair = (value: CborValue | undefined, path: string, length: number): readonly CborValue[] => {
  if (!Array.isArray(value) || value.length !== length) {
    throw new WireError(`Cannot read ${path}: wanted ${length} parts`);
  }
  return value as readonly CborValue[];
};
const readWarrant = (value: CborValue | undefined, path: string): readonly [string, Uint8Array] => {
  const [key, warrant] = readPair(value, path, 2);
  return [text(200)(key, path), bytes({ max: WARRANT_BYTES_MAX })(warrant, path)];
};
const readProposer = record({
  p: text(128),
  f: uint(),
  k: array((value, path) => {
    const [instance, index, expiresMs, outcomes] = readPair(value, path, 4);
    return [
      text(64, /^[0-9a-f]{64}$/)(instance, path),
      {
        index: uint()(index, path),
        expiresMs: uint()(expiresMs, path),
        outcomes: bytes({ max: LIMITS.consensusBatchMax })(outcomes, path),
      },
    ] as const;
  }, LIMITS.agreedInstancesPerProposerMax),
});

function readMemory(count: number, next: () => CborValue): Memory {
  const memory: Memory = new Map();
  for (let i = 0; i < count; i++) {
    const { p, f, k }: Read<typeof readProposer> = readProposer(next(), `proposer ${i}`);
    if (memory.has(p)) throw new WireError(`Cannot restore: proposer "${p}" is there twice`);
    const known = new Map(k);
    if (known.size !== k.length) throw new WireError(`Cannot restore: a decision of "${p}" is there twice`);
    memory.set(p, { floorMs: f, known });
  }
  return memory;
}
