/**
 * The spore records that a node knows, and which of several versions of one key counts.
 *
 * A version is a signed record ("word") with or without a proof of rank. Versions of one key have a total order:
 * (tier, term, index, seq, hash). Of each key the table keeps two maxima and forgets the rest:
 *
 * - `lifted`: the greatest version that has a proof, for as long as its proof counts;
 * - `word`: the greatest by (seq, hash) of all whose number is less than {@linkcode RECORD_LIFE_MS_MAX} old,
 *   whatever proof it has.
 *
 * The winner is `lifted`, else `word`; where `word` is newer than a `lifted` that says something else it is the
 * challenger. Both are maxima over everything that was ever merged, so the order of arrival does not matter. And
 * since the number of a word is a clock, what lost against a word never outlives it: forgetting it is safe, and
 * nothing that was deleted or replaced comes back, however long a network was split (DESIGN.md has the argument).
 *
 * @module
 */

import { compareBytes } from "../core/bytes.ts";
import { encodeCbor } from "../core/codec.ts";
import { hashParts } from "../core/crypto.ts";
import { LIMITS } from "../core/limits.ts";
import { Digest, type DigestItem, placeOf } from "./digest.ts";
import { proofValue, type RankProof, type Tier, TIERS } from "./proof.ts";
import { RECORD_LIFE_MS_MAX, type Spore } from "./record.ts";

/** A word with what lifts it. Whoever makes one has checked it: see `validation.ts`. */
export interface Version {
  readonly spore: Spore;
  readonly proof: RankProof | undefined;
}

/** What a table holds under a key. */
export interface SporeEntry {
  readonly key: string;
  /** The version that counts by the order of authority. */
  readonly winner: Version;
  readonly tier: Tier;
  /** A newer word that has no such rank: suspicious until it is confirmed. */
  readonly challenger: Version | undefined;
}

/** What merging a version came to. */
export interface MergeOutcome {
  readonly changed: boolean;
  readonly reason:
    /** The key was not known. */
    | "new"
    /** It counts now in the place of another. */
    | "won"
    /** It is the challenger now. */
    | "challenges"
    /** A better proof for what was known. */
    | "renewed"
    /** Exactly this is known. */
    | "known"
    /** A greater one is known. */
    | "lost"
    /** Its time is over. */
    | "expired"
    /** There is no room for another key, or not for another of this author. */
    | "full";
  /** Another word of the same author under the same number: it says two things at once. */
  readonly equivocation?: Spore;
}

/** Options of a {@linkcode SporeTable}. */
export interface SporeTableOptions {
  /** Most keys. @default LIMITS.sporesMax */
  readonly keysMax?: number;
  /** Most bytes of records and proofs. @default LIMITS.sporeBytesMax */
  readonly bytesMax?: number;
}

/** Order of two versions of one key: negative, zero or positive. Zero means the same word with the same rank. */
export function compareVersions(a: Version, b: Version): number {
  return compareRank(a.proof, b.proof) || compareWords(a.spore, b.spore);
}

/** Rank of a version. */
export function tierOf(version: Version): Tier {
  return version.proof?.tier ?? "latent";
}

/** When a version counts no longer, at the latest: what it replaced is over by then too. */
export function horizonMs(version: Version): number {
  return Math.max(version.spore.record.seq + RECORD_LIFE_MS_MAX, version.proof?.untilMs ?? 0);
}

/** Whether a version has a value now: it is no tombstone and has not run out. */
export function isAlive(version: Version, nowMs: number): boolean {
  const { value, issuedMs, expiresMs } = version.spore.record;
  if (value === undefined) return false;
  if (nowMs < expiresMs) return true;
  // A life of the greatest length is one without an end of its own: what a Primary Spore holds stays while its proof
  // is renewed. A shorter one was meant.
  return expiresMs - issuedMs === RECORD_LIFE_MS_MAX && version.proof?.tier === "primary" &&
    nowMs < version.proof.untilMs;
}

interface Slot extends DigestItem {
  lifted: Version | undefined;
  word: Version | undefined;
}

/** The spore records that a node knows. */
export class SporeTable {
  readonly #slots = new Map<string, Slot>();
  readonly digest: Digest = new Digest((key) => this.#slots.get(key));
  /** Keys by their first two segments: one key, or many. */
  readonly #groups = new Map<string, string | Set<string>>();
  /** Bytes by author, of words without a proof. */
  readonly #authors = new Map<string, number>();
  readonly #keysMax: number;
  readonly #bytesMax: number;
  #bytes = 0;
  readonly #tiers = { latent: 0, seed: 0, primary: 0 };
  #tombstones = 0;
  /** No entry has anything to expire before. */
  #nextExpiryMs = Infinity;

  constructor(options: SporeTableOptions = {}) {
    this.#keysMax = options.keysMax ?? LIMITS.sporesMax;
    this.#bytesMax = options.bytesMax ?? LIMITS.sporeBytesMax;
  }

  /** Keys, those of tombstones and of records that have run out included. */
  get size(): number {
    return this.#slots.size;
  }

  /** Bytes of records and proofs held. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Keys by the tier of their winner. */
  get tiers(): { readonly [T in Tier]: number } {
    return { ...this.#tiers };
  }

  /** Keys whose winner is a tombstone. */
  get tombstones(): number {
    return this.#tombstones;
  }

  /** No entry has anything to expire before this time; `Infinity` where there is none. */
  get nextExpiryMs(): number {
    return this.#nextExpiryMs;
  }

  /** What is known under a key, dead or alive. Call {@linkcode expire} before where time has passed. */
  get(key: string): SporeEntry | undefined {
    const slot = this.#slots.get(key);
    return slot && entryOf(key, slot);
  }

  /** All versions held under a key: what another node has to be told for its table to be the same there. */
  versions(key: string): readonly Version[] {
    const slot = this.#slots.get(key);
    if (!slot) return [];
    return [slot.lifted, slot.word].filter((one, i, all): one is Version =>
      one !== undefined && all.indexOf(one) === i
    );
  }

  /** Entries whose key begins with `prefix`, in order of their keys; `after` leaves out keys up to it. */
  list(prefix: string, options: { readonly after?: string; readonly max?: number } = {}): SporeEntry[] {
    const keys = this.keys(prefix).filter((key) => options.after === undefined || key > options.after).sort();
    return keys.slice(0, options.max).map((key) => entryOf(key, this.#slots.get(key)!));
  }

  /** Keys that begin with `prefix`, in no order. */
  keys(prefix: string): string[] {
    const out: string[] = [];
    const take = (keys: string | Set<string>) => {
      for (const key of typeof keys === "string" ? [keys] : keys) if (key.startsWith(prefix)) out.push(key);
    };
    const group = groupOfPrefix(prefix);
    if (group === undefined) { for (const keys of this.#groups.values()) take(keys); }
    else {
      const keys = this.#groups.get(group);
      if (keys !== undefined) take(keys);
    }
    return out;
  }

  /** Merges a version that was checked. */
  merge(offered: Version, nowMs: number): MergeOutcome {
    const version = offered.proof && offered.proof.untilMs <= nowMs
      ? { spore: offered.spore, proof: undefined }
      : offered;
    if (horizonMs(version) <= nowMs) return { changed: false, reason: "expired" };
    const { key } = version.spore.record;
    const slot = this.#slots.get(key);
    if (slot) this.#expireSlot(key, slot, nowMs);
    const present = this.#slots.get(key);
    if (!present) return this.#insert(key, version, nowMs);
    return this.#replace(key, present, version, nowMs);
  }

  /** Forgets what has run out; returns the keys where anything changed. */
  expire(nowMs: number): string[] {
    if (nowMs < this.#nextExpiryMs) return [];
    const changed: string[] = [];
    this.#nextExpiryMs = Infinity;
    for (const [key, slot] of this.#slots) {
      if (this.#expireSlot(key, slot, nowMs)) changed.push(key);
      else this.#noteExpiry(slot);
    }
    for (const key of changed) {
      const slot = this.#slots.get(key);
      if (slot) this.#noteExpiry(slot);
    }
    return changed;
  }

  /**
   * Forgets what does not stand any more: words of a removed author without proof, proofs of an epoch that is over.
   *
   * @param stands Whether a version still counts as it is: `bare` keeps its word without the proof.
   * @returns Keys where anything changed.
   */
  review(stands: (version: Version) => "whole" | "bare" | "not"): string[] {
    const changed: string[] = [];
    for (const [key, slot] of this.#slots) {
      const before = [slot.lifted, slot.word];
      const judge = (one: Version | undefined): Version | undefined => {
        if (!one) return undefined;
        const verdict = stands(one);
        if (verdict === "whole") return one;
        if (verdict === "not" || !one.proof) return undefined;
        return { spore: one.spore, proof: undefined };
      };
      const lifted = judge(slot.lifted);
      const shared = slot.lifted !== undefined && slot.lifted === slot.word;
      const word = shared ? lifted : judge(slot.word);
      const nextLifted = lifted?.proof ? lifted : undefined;
      // A word that lost its proof may still be the greatest that is left.
      const nextWord = lifted?.proof ? word : maxWord(word, lifted);
      if (nextLifted === before[0] && nextWord === before[1]) continue;
      this.#set(key, slot, nextLifted, nextWord);
      this.#noteExpiry(slot);
      changed.push(key);
    }
    return changed;
  }

  /** Forgets everything. */
  clear(): void {
    this.#slots.clear();
    this.#groups.clear();
    this.#authors.clear();
    this.#bytes = 0;
    Object.assign(this.#tiers, { latent: 0, seed: 0, primary: 0 });
    this.#tombstones = 0;
    this.#nextExpiryMs = Infinity;
    this.digest.clear();
  }

  #insert(key: string, version: Version, nowMs: number): MergeOutcome {
    if (!this.#hasRoom(version, nowMs)) return { changed: false, reason: "full" };
    const slot: Slot = { lifted: undefined, word: undefined, place: placeOf(key), high: 0, low: 0 };
    this.#slots.set(key, slot);
    const group = groupOf(key);
    const others = this.#groups.get(group);
    if (others === undefined) this.#groups.set(group, key);
    else if (typeof others === "string") this.#groups.set(group, new Set([others, key]));
    else others.add(key);
    this.#set(key, slot, version.proof ? version : undefined, isInTime(version, nowMs) ? version : undefined);
    this.#noteExpiry(slot);
    return { changed: true, reason: "new" };
  }

  #replace(key: string, slot: Slot, version: Version, nowMs: number): MergeOutcome {
    const doubled = [slot.word, slot.lifted].find((one) =>
      one && one.spore.author === version.spore.author && one.spore.record.seq === version.spore.record.seq &&
      compareBytes(one.spore.hash, version.spore.hash) !== 0
    );
    const said = doubled ? { equivocation: doubled.spore } : {};
    const lifted = maxLifted(slot.lifted, version);
    const word = isInTime(version, nowMs) ? maxWord(slot.word, version) : slot.word;
    if (lifted === slot.lifted && word === slot.word) {
      const known = [slot.lifted, slot.word].some((one) => one && sameVersion(one, version));
      return { changed: false, reason: known ? "known" : "lost", ...said };
    }
    // Longer words in the place of short ones may not fill the memory either.
    const grows = sizeOf(version) - Math.min(...this.versions(key).map(sizeOf));
    if (grows > 0 && !this.#hasRoom(version, nowMs, grows)) return { changed: false, reason: "full", ...said };
    const before = entryOf(key, slot);
    this.#set(key, slot, lifted, word);
    this.#noteExpiry(slot);
    const after = entryOf(key, slot);
    const wins = after.winner === version;
    const reason = wins
      ? compareBytes(before.winner.spore.hash, version.spore.hash) === 0 ? "renewed" : "won"
      : after.challenger === version
      ? "challenges"
      : "renewed";
    return { changed: true, reason, ...said };
  }

  /** Puts two versions in the place of what a slot holds; none of both removes it. */
  #set(key: string, slot: Slot, lifted: Version | undefined, given: Version | undefined): void {
    // One object where both are the same word: the word then knows its best proof, and costs nothing.
    const word = lifted && given && sameWord(lifted, given) ? maxLifted(lifted, given) : given;
    this.#count(slot, -1);
    if (slot.lifted || slot.word) this.digest.remove(key, slot);
    slot.lifted = lifted;
    slot.word = word;
    this.#count(slot, 1);
    if (!lifted && !word) {
      this.#slots.delete(key);
      const group = groupOf(key);
      const others = this.#groups.get(group);
      if (others instanceof Set && others.size > 1) others.delete(key);
      else this.#groups.delete(group);
      return;
    }
    slot.high = 0;
    slot.low = 0;
    for (const one of lifted === word ? [lifted] : [lifted, word]) {
      if (!one) continue;
      const [high, low] = idOf(one);
      slot.high = (slot.high + high) >>> 0;
      slot.low = (slot.low + low) >>> 0;
    }
    this.digest.add(key, slot);
  }

  #count(slot: Slot, sign: 1 | -1): void {
    const winner = slot.lifted ?? slot.word;
    if (winner) {
      this.#tiers[tierOf(winner)] += sign;
      if (winner.spore.record.value === undefined) this.#tombstones += sign;
    }
    for (const one of slot.lifted === slot.word ? [slot.lifted] : [slot.lifted, slot.word]) {
      if (!one) continue;
      const size = sizeOf(one);
      this.#bytes += sign * size;
      if (one.proof) continue;
      const { author } = one.spore;
      const left = (this.#authors.get(author) ?? 0) + sign * size;
      if (left > 0) this.#authors.set(author, left);
      else this.#authors.delete(author);
    }
  }

  /** Whether there is room; what has a proof takes the place of a word without one, the one that ends first. */
  #hasRoom(version: Version, nowMs: number, adds = sizeOf(version)): boolean {
    const fits = () =>
      (adds < sizeOf(version) || this.#slots.size < this.#keysMax) && this.#bytes + adds <= this.#bytesMax;
    if (!version.proof) {
      const own = this.#authors.get(version.spore.author) ?? 0;
      return fits() && own + adds <= this.#bytesMax / AUTHOR_SHARE;
    }
    if (fits()) return true;
    const weak = [...this.#slots].filter(([, slot]) => !slot.lifted)
      .sort(([, a], [, b]) => endMs(a, nowMs) - endMs(b, nowMs)).slice(0, EVICT_BATCH);
    for (const [key, slot] of weak) {
      this.#set(key, slot, undefined, undefined);
      if (fits()) return true;
    }
    return fits();
  }

  #expireSlot(key: string, slot: Slot, nowMs: number): boolean {
    const lifted = slot.lifted && slot.lifted.proof!.untilMs > nowMs ? slot.lifted : undefined;
    let word = slot.word && isInTime(slot.word, nowMs) ? slot.word : undefined;
    if (word?.proof && word.proof.untilMs <= nowMs) word = { spore: word.spore, proof: undefined };
    if (lifted === slot.lifted && word === slot.word) return false;
    this.#set(key, slot, lifted, word);
    return true;
  }

  #noteExpiry(slot: Slot): void {
    const { lifted, word } = slot;
    const endsMs = Math.min(
      lifted?.proof?.untilMs ?? Infinity,
      word?.proof?.untilMs ?? Infinity,
      word ? word.spore.record.seq + RECORD_LIFE_MS_MAX : Infinity,
    );
    if (endsMs < this.#nextExpiryMs) this.#nextExpiryMs = endsMs;
  }
}

/** One author may take this part of the table with words that nobody has lifted. */
const AUTHOR_SHARE = 4;
/** Words that give way at once where there is no room for one of rank. */
const EVICT_BATCH = 64;

/** Bytes that a version takes, its fixed parts included. */
function sizeOf({ spore, proof }: Version): number {
  return spore.envelope.payload.length + 200 + (proof ? 64 + 96 * proof.signatures.length : 0);
}

/** When the use of a slot without proof ends: what has run out goes first. */
function endMs(slot: Slot, nowMs: number): number {
  const { record } = slot.word!.spore;
  return record.expiresMs <= nowMs ? 0 : record.expiresMs;
}

/** Whether a word counts without a proof. */
function isInTime({ spore }: Version, nowMs: number): boolean {
  return spore.record.seq + RECORD_LIFE_MS_MAX > nowMs;
}

function entryOf(key: string, slot: Slot): SporeEntry {
  const { lifted, word } = slot;
  const winner = (lifted ?? word)!;
  // A word that has a proof of its own was overtaken in the order of its tier, and challenges nobody.
  const challenges = lifted && word && !word.proof && word.spore.record.seq > lifted.spore.record.seq;
  return { key, winner, tier: tierOf(winner), challenger: challenges ? word : undefined };
}

function maxLifted(a: Version | undefined, b: Version): Version | undefined {
  if (!b.proof) return a;
  return !a || (compareVersions(b, a) || compareProofs(b.proof, a.proof!)) > 0 ? b : a;
}

function maxWord(a: Version | undefined, b: Version | undefined): Version | undefined {
  if (!a || !b) return a ?? b;
  return (compareWords(b.spore, a.spore) || compareRank(b.proof, a.proof) || compareProofs(b.proof, a.proof)) > 0
    ? b
    : a;
}

function compareRank(a: RankProof | undefined, b: RankProof | undefined): number {
  return TIERS.indexOf(a?.tier ?? "latent") - TIERS.indexOf(b?.tier ?? "latent") ||
    (a?.term ?? 0) - (b?.term ?? 0) || (a?.index ?? 0) - (b?.index ?? 0);
}

function compareWords(a: Spore, b: Spore): number {
  return a.record.seq - b.record.seq || compareBytes(a.hash, b.hash);
}

/** Of two proofs of the same rank the one of the newer epoch, then the longer one, then any. */
function compareProofs(a: RankProof | undefined, b: RankProof | undefined): number {
  if (!a || !b || a === b) return Number(a !== undefined) - Number(b !== undefined);
  return a.epoch - b.epoch || a.untilMs - b.untilMs || compareBytes(proofId(a), proofId(b));
}

function sameWord(a: Version, b: Version): boolean {
  return compareBytes(a.spore.hash, b.spore.hash) === 0;
}

function sameVersion(a: Version, b: Version): boolean {
  return sameWord(a, b) && compareRank(a.proof, b.proof) === 0 && compareProofs(a.proof, b.proof) === 0;
}

/** The first two segments of a key. */
function groupOf(key: string): string {
  const second = key.indexOf("/", key.indexOf("/") + 1);
  return second < 0 ? key : key.slice(0, second);
}

/** The group that holds all keys of a prefix, or `undefined` where they may be in several. */
function groupOfPrefix(prefix: string): string | undefined {
  const second = prefix.indexOf("/", prefix.indexOf("/") + 1);
  return second < 0 ? undefined : prefix.slice(0, second);
}

const PROOF_IDS = new WeakMap<RankProof, Uint8Array>();

/** 8 bytes that name a proof. */
function proofId(proof: RankProof): Uint8Array {
  let id = PROOF_IDS.get(proof);
  if (!id) PROOF_IDS.set(proof, id = hashParts("mycelium/proof-id/v1", encodeCbor(proofValue(proof))).slice(0, 8));
  return id;
}

/** 64 bits that name a version, in two halves. */
export function idOf({ spore, proof }: Version): readonly [high: number, low: number] {
  const view = new DataView(spore.hash.buffer, spore.hash.byteOffset, 8);
  const [high, low] = [view.getUint32(0), view.getUint32(4)];
  if (!proof) return [high, low];
  const id = proofId(proof);
  const mixed = new DataView(id.buffer, id.byteOffset, 8);
  return [(high ^ mixed.getUint32(0)) >>> 0, (low ^ mixed.getUint32(4)) >>> 0];
}
