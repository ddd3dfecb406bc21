/**
 * Spore records in the store: what is worth a write, when it is written, and how it is read again.
 *
 * Own words are stored before they leave. Those of others are written behind, some seconds later and together:
 * whoever has them tells them again. What lives for less than an hour is not stored at all.
 *
 * @module
 */

import { equalBytes, toHex, utf8 } from "../core/bytes.ts";
import {
  anything,
  array,
  bool,
  bytes,
  type CborValue,
  decodeAs,
  encodeCbor,
  record,
  uint,
  WireError,
} from "../core/codec.ts";
import { hashParts } from "../core/crypto.ts";
import { ownerOf, readKey } from "../spore/keys.ts";
import { readVersion, versionValue } from "../spore/messages.ts";
import { readSpore } from "../spore/record.ts";
import type { Version } from "../spore/table.ts";
import { type Equivocation, equivocationOf } from "../spore/validation.ts";
import type { Put } from "./state.ts";

/** What this node has said itself and keeps saying. */
export interface OwnWord {
  readonly key: string;
  /** Last number that it used under the key. */
  readonly seq: number;
  /** Life of each word. */
  readonly ttlMs: number;
  /** Whether it says it again when half of the life is over. */
  readonly refresh: boolean;
}

/** Time until what others said is written. */
export const WRITE_BEHIND_MS = 5_000;
/** Keys in one write. */
const WRITE_BATCH = 256;
/** What ends sooner is heard again after a restart, or is over. */
const WORTH_MS = 3_600_000;

const readStored = record({
  v: anything,
  /** Hash of `v`: signatures are not checked again, and a bent one would be held against this node. */
  s: bytes({ length: 8 }),
});
const readVersions = array(readVersion, 2);
const readOwn = record({ k: readKey, n: uint(), t: uint(), r: bool });

/** Key of the store for what is known under a key. */
export function storeKey(key: string): string {
  return `spore/${nameOf(key)}`;
}

/** Key of the store for what this node says under a key. */
export function ownKey(key: string): string {
  return `spore-own/${nameOf(key)}`;
}

/** Key of the store for what shows that an author said two things at once. */
export function evidenceKey(one: Equivocation): string {
  return `spore-evidence/${toHex(one.words[0].hash.subarray(0, 16))}`;
}

/** Whether a key of the store belongs to spores. */
export function isSporeKey(name: string): boolean {
  return name.startsWith("spore/") || name.startsWith("spore-own/") || name.startsWith("spore-evidence/");
}

/** What the store holds of spores. */
export interface StoredSpores {
  readonly versions: readonly Version[];
  readonly own: readonly OwnWord[];
  readonly evidence: readonly Equivocation[];
  /** Entries that do not read, and are to be deleted. */
  readonly unreadable: readonly string[];
}

/** Reads the entries of the store that are about spores. */
export function loadSpores(entries: Iterable<readonly [string, Uint8Array]>): StoredSpores {
  const versions: Version[] = [];
  const own: OwnWord[] = [];
  const evidence: Equivocation[] = [];
  const unreadable: string[] = [];
  for (const [name, value] of entries) {
    try {
      if (name.startsWith("spore/")) versions.push(...readChecked(name, value));
      else if (name.startsWith("spore-evidence/")) {
        const [a, b] = readChecked(name, value);
        const pair = a && b && equivocationOf(a.spore, b.spore);
        if (!pair) throw new WireError(`Cannot read "${name}": it shows nothing`);
        evidence.push(pair);
      } else if (name.startsWith("spore-own/")) {
        const { k, n, t, r } = decodeAs(value, readOwn);
        own.push({ key: k, seq: n, ttlMs: t, refresh: r });
      }
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      unreadable.push(name);
    }
  }
  return { versions, own, evidence, unreadable };
}

/** The write for evidence. */
export function evidencePut(one: Equivocation): Put {
  return [evidenceKey(one), storedBytes(one.words.map((spore) => ({ spore, proof: undefined })))];
}

/** The write for an own word. */
export function ownPut(one: OwnWord): Put {
  return [ownKey(one.key), encodeCbor({ k: one.key, n: one.seq, t: one.ttlMs, r: one.refresh })];
}

/** The write for what is known under a key; deletes where nothing of it is worth keeping. */
export function sporePut(key: string, versions: readonly Version[], nowMs: number): Put {
  const kept = versions.filter((one) => isWorth(one, nowMs));
  if (kept.length === 0) return [storeKey(key), null];
  return [storeKey(key), storedBytes(kept)];
}

function storedBytes(versions: readonly Version[]): Uint8Array {
  const v = versions.map(versionValue);
  return encodeCbor({ v, s: checkOf(v) });
}

function readChecked(name: string, value: Uint8Array): Version[] {
  const { v, s } = decodeAs(value, readStored);
  if (!equalBytes(s, checkOf(v))) throw new WireError(`Cannot read "${name}": it was changed`);
  return readVersions(v, name).map(({ envelope, proof }) => ({ spore: readSpore(envelope), proof }));
}

function checkOf(stored: CborValue): Uint8Array {
  return hashParts("mycelium/stored-spore/v1", encodeCbor(stored)).slice(0, 8);
}

function isWorth({ spore, proof }: Version, nowMs: number): boolean {
  // A tombstone that is forgotten lets come back what it deleted.
  return proof !== undefined || spore.record.value === undefined || spore.record.expiresMs - nowMs >= WORTH_MS ||
    ownerOf(spore.record.key)?.kind === "issuers";
}

function nameOf(key: string): string {
  return toHex(hashParts("mycelium/spore-name/v1", utf8(key)).subarray(0, 16));
}

/** Keys whose state in the store is behind. */
export class WriteBehind {
  readonly #dirty = new Set<string>();
  #dueMs = Infinity;

  /** When something has to be written. */
  get dueMs(): number {
    return this.#dueMs;
  }

  /** A key changed. `now`: it is written in this step, and what waits with it. */
  note(key: string, nowMs: number, now = false): void {
    this.#dirty.add(key);
    this.#dueMs = Math.min(this.#dueMs, now ? nowMs : nowMs + WRITE_BEHIND_MS);
  }

  /** A key was written otherwise. */
  settle(key: string): void {
    this.#dirty.delete(key);
  }

  /** The keys to write now; the rest follows in the next step. */
  take(nowMs: number): string[] {
    if (nowMs < this.#dueMs) return [];
    const keys = [...this.#dirty].slice(0, WRITE_BATCH);
    for (const key of keys) this.#dirty.delete(key);
    this.#dueMs = this.#dirty.size > 0 ? nowMs : Infinity;
    return keys;
  }

  /** Forgets everything. */
  clear(): void {
    this.#dirty.clear();
    this.#dueMs = Infinity;
  }

  /** Times that were set with another clock count no longer. */
  clockSetBack(nowMs: number): void {
    if (this.#dirty.size > 0) this.#dueMs = nowMs;
  }
}
