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
import { decodeCbor, encodeCbor } from "../core/codec.ts";
import { hashParts } from "../core/crypto.ts";
import { LIMITS } from "../core/limits.ts";
import { Arena, type Place } from "./arena.ts";
import { Digest, type DigestItem, placeOf } from "./digest.ts";
import { proofValue, type RankProof, type RankStatement, readProof, type Tier, TIERS } from "./proof.ts";
import { keptSpore, RECORD_LIFE_MS_MAX, type Spore } from "./record.ts";

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
  return TIERS.indexOf(tierOf(a)) - TIERS.indexOf(tierOf(b)) ||
    (a.proof?.term ?? 0) - (b.proof?.term ?? 0) || (a.proof?.index ?? 0) - (b.proof?.index ?? 0) ||
    a.spore.record.seq - b.spore.record.seq || compareBytes(a.spore.hash, b.spore.hash);
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
  lifted: Kept | undefined;
  word: Kept | undefined;
}

/** Rank and id of a proof; its signatures are in the arena. */
interface Rank extends Omit<RankStatement, "tier"> {
  /** Index into {@linkcode TIERS}. */
  readonly tier: number;
  /** 8 bytes that name the proof, in two halves. */
  readonly high: number;
  readonly low: number;
}

/** A version as the table keeps it: what decides between versions, and where the rest is. */
interface Kept {
  readonly author: Author;
  readonly seq: number;
  /** `expiresMs` − `seq`: where its use ends, for making room. */
  readonly useMs: number;
  readonly deleted: boolean;
  readonly rank: Rank | undefined;
  /** In the arena: hash (32 bytes), signature (64), payload, proof. Before it is settled there: the version itself. */
  place: Place | Version;
  readonly payloadBytes: number;
  readonly proofBytes: number;
}

/** An author, once for all its words. */
interface Author {
  readonly nodeId: string;
  readonly publicKey: Uint8Array;
  /** Words in the table. */
  words: number;
  /** Bytes of those that have no proof. */
  bareBytes: number;
}

/** The spore records that a node knows. */
export class SporeTable {
  readonly #slots = new Map<string, Slot>();
  readonly digest: Digest = new Digest((key) => this.#slots.get(key));
  /** Keys by their first two segments: one key, or many. */
  readonly #groups = new Map<string, string | Set<string>>();
  readonly #authors = new Map<string, Author>();
  #arena = new Arena();
  /** Versions that were read lately: the same object for the same version, as long as it is in here. */
  readonly #read = new Map<Kept, Version>();
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

  /** Bytes that arrays of records take, room that is not used included. */
  get heldBytes(): number {
    return this.#arena.heldBytes;
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
    return slot && this.#entry(key, slot);
  }

  /** All versions held under a key: what another node has to be told for its table to be the same there. */
  versions(key: string): readonly Version[] {
    const slot = this.#slots.get(key);
    if (!slot) return [];
    return held(slot).map((one) => this.#version(one));
  }

  /** Entries whose key begins with `prefix`, in order of their keys; `after` leaves out keys up to it. */
  list(prefix: string, options: { readonly after?: string; readonly max?: number } = {}): SporeEntry[] {
    const keys = this.keys(prefix).filter((key) => options.after === undefined || key > options.after).sort();
    return keys.slice(0, options.max).map((key) => this.#entry(key, this.#slots.get(key)!));
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
      const judged = held(slot).map((one) => ({ one, verdict: stands(this.#version(one)) }));
      if (judged.every(({ verdict }) => verdict === "whole")) continue;
      const left = judged.flatMap(({ one, verdict }): Kept[] =>
        verdict === "whole"
          ? [one]
          : verdict === "bare" && one.rank
          ? [this.#bared(one)]
          : verdict === "bare"
          ? [one]
          : []
      );
      // A word that lost its proof may still be the greatest that is left.
      this.#set(key, slot, left.find((one) => one.rank && one === slot.lifted), left.reduce(this.#maxWord, undefined));
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
    this.#read.clear();
    this.#arena = new Arena();
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
    const kept = this.#offer(version);
    this.#set(key, slot, kept.rank && kept, isInTime(kept, nowMs) ? kept : undefined);
    this.#noteExpiry(slot);
    return { changed: true, reason: "new" };
  }

  #replace(key: string, slot: Slot, version: Version, nowMs: number): MergeOutcome {
    const { spore } = version;
    const doubled = held(slot).find((one) =>
      one.seq === spore.record.seq && one.author.nodeId === spore.author &&
      compareBytes(this.#hash(one), spore.hash) !== 0
    );
    const said = doubled ? { equivocation: this.#version(doubled).spore } : {};
    const offered = this.#offer(version);
    const lifted = offered.rank ? this.#maxLifted(slot.lifted, offered) : slot.lifted;
    const word = isInTime(offered, nowMs) ? this.#maxWord(slot.word, offered) : slot.word;
    if (lifted === slot.lifted && word === slot.word) {
      const known = held(slot).some((one) => this.#isSame(one, offered));
      return { changed: false, reason: known ? "known" : "lost", ...said };
    }
    // Longer words in the place of short ones may not fill the memory either, nor challengers beside what stands.
    const grows = sizeOfAll(held({ lifted, word: this.#joined(lifted, word) })) - sizeOfAll(held(slot));
    if (grows > 0 && !this.#hasRoom(version, nowMs, grows)) return { changed: false, reason: "full", ...said };
    const before = slot.lifted ?? slot.word!;
    const same = compareBytes(this.#hash(before), spore.hash) === 0;
    this.#set(key, slot, lifted, word);
    this.#noteExpiry(slot);
    const wins = (slot.lifted ?? slot.word) === offered;
    const reason = wins && !same ? "won" : challengerOf(slot) === offered ? "challenges" : "renewed";
    return { changed: true, reason, ...said };
  }

  /** Puts two versions in the place of what a slot holds; none of both removes it. */
  #set(key: string, slot: Slot, lifted: Kept | undefined, given: Kept | undefined): void {
    const word = this.#joined(lifted, given);
    const before = held(slot);
    this.#count(slot, -1);
    if (before.length > 0) this.digest.remove(key, slot);
    slot.lifted = lifted;
    slot.word = word;
    this.#count(slot, 1);
    const after = held(slot);
    for (const one of before) if (!after.includes(one)) this.#drop(one);
    for (const one of after) this.#settle(one);
    if (after.length === 0) {
      this.#slots.delete(key);
      const group = groupOf(key);
      const others = this.#groups.get(group);
      if (others instanceof Set && others.size > 1) others.delete(key);
      else this.#groups.delete(group);
    } else {
      slot.high = 0;
      slot.low = 0;
      for (const one of after) {
        const hash = this.#hash(one);
        const view = new DataView(hash.buffer, hash.byteOffset, 8);
        // Halves with a sign: such numbers need no object of their own.
        slot.high = (slot.high + (view.getInt32(0) ^ (one.rank?.high ?? 0))) | 0;
        const low = (slot.low >>> 0) + ((view.getInt32(4) ^ (one.rank?.low ?? 0)) >>> 0);
        if (low > 0xffff_ffff) slot.high = (slot.high + 1) | 0;
        slot.low = low | 0;
      }
      this.digest.add(key, slot);
    }
    if (this.#arena.heldBytes > 2 * this.#arena.liveBytes + COMPACT_BYTES) this.#compact();
  }

  /** One object where both are the same word: the word then knows its best proof, and costs nothing. */
  #joined(lifted: Kept | undefined, word: Kept | undefined): Kept | undefined {
    return lifted && word && compareBytes(this.#hash(lifted), this.#hash(word)) === 0 ? lifted : word;
  }

  #count(slot: Slot, sign: 1 | -1): void {
    const winner = slot.lifted ?? slot.word;
    if (winner) {
      this.#tiers[TIERS[winner.rank?.tier ?? 0]!] += sign;
      if (winner.deleted) this.#tombstones += sign;
    }
    for (const one of held(slot)) {
      this.#bytes += sign * sizeOf(one);
      if (!one.rank) one.author.bareBytes += sign * sizeOf(one);
    }
  }

  /** Whether there is room; what has a proof takes the place of a word without one, the one that ends first. */
  #hasRoom(version: Version, nowMs: number, grows?: number): boolean {
    const adds = grows ?? sizeOfVersion(version);
    const fits = () =>
      (grows !== undefined || this.#slots.size < this.#keysMax) && this.#bytes + adds <= this.#bytesMax;
    if (!version.proof) {
      const own = this.#authors.get(version.spore.author)?.bareBytes ?? 0;
      return fits() && own + adds <= this.#bytesMax / AUTHOR_SHARE;
    }
    if (fits()) return true;
    // Not the key itself: what stands there is about to be joined by this version.
    const weak = [...this.#slots].filter(([key, slot]) => !slot.lifted && key !== version.spore.record.key)
      .sort(([, a], [, b]) => endMs(a, nowMs) - endMs(b, nowMs)).slice(0, EVICT_BATCH);
    for (const [key, slot] of weak) {
      this.#set(key, slot, undefined, undefined);
      if (fits()) return true;
    }
    return fits();
  }

  // --- what is kept, and in what form -------------------------------------------------------------------------

  /** A version in the form in which it may be kept; nothing is taken up by it yet. */
  #offer(version: Version): Kept {
    const { spore: { author, envelope, record }, proof } = version;
    const encoded = proof && encodeCbor(proofValue(proof));
    return {
      author: this.#authors.get(author) ?? { nodeId: author, publicKey: envelope.signer, words: 0, bareBytes: 0 },
      seq: record.seq,
      useMs: Math.max(-1, record.expiresMs - record.seq),
      deleted: record.value === undefined,
      rank: proof && rankOf(proof, encoded!),
      place: version,
      payloadBytes: envelope.payload.length,
      proofBytes: encoded?.length ?? 0,
    };
  }

  /** Takes an offered version into the arena. */
  #settle(one: Kept): void {
    if (typeof one.place === "number") return;
    const { spore: { envelope, hash }, proof } = one.place;
    const encoded = proof ? encodeCbor(proofValue(proof)) : NOTHING;
    this.#read.set(one, one.place);
    this.#forgetRead();
    one.place = this.#arena.add(hash, envelope.signature, envelope.payload, encoded);
    one.author.words += 1;
    this.#authors.set(one.author.nodeId, one.author);
  }

  /** The same word without its proof. */
  #bared(one: Kept): Kept {
    return this.#offer({ spore: this.#version(one).spore, proof: undefined });
  }

  #drop(one: Kept): void {
    if (typeof one.place !== "number") return;
    this.#read.delete(one);
    this.#arena.remove(one.place, bytesOf(one));
    one.author.words -= 1;
    if (one.author.words === 0) this.#authors.delete(one.author.nodeId);
  }

  #forgetRead(): void {
    if (this.#read.size > READ_MAX) this.#read.delete(this.#read.keys().next().value!);
  }

  /** Moves everything together. */
  #compact(): void {
    const arena = new Arena();
    for (const slot of this.#slots.values()) {
      for (const one of held(slot)) {
        one.place = arena.add(this.#bytesOf(one));
      }
    }
    this.#arena = arena;
  }

  #bytesOf(one: Kept): Uint8Array {
    return this.#arena.view(one.place as Place, bytesOf(one));
  }

  #hash(one: Kept): Uint8Array {
    return typeof one.place === "number" ? this.#arena.view(one.place, 32) : one.place.spore.hash;
  }

  /** A version as others see it. */
  #version(one: Kept): Version {
    const known = typeof one.place === "number" ? this.#read.get(one) : one.place;
    if (known) return known;
    const bytes = this.#bytesOf(one);
    const end = HEAD_BYTES + one.payloadBytes;
    const version: Version = {
      spore: keptSpore({
        hash: bytes.slice(0, 32),
        signature: bytes.slice(32, HEAD_BYTES),
        payload: bytes.slice(HEAD_BYTES, end),
        signer: one.author.publicKey,
        author: one.author.nodeId,
      }),
      proof: one.rank ? readProof(decodeCbor(bytes.subarray(end)), "proof") : undefined,
    };
    this.#read.set(one, version);
    this.#forgetRead();
    return version;
  }

  #entry(key: string, slot: Slot): SporeEntry {
    const winner = this.#version((slot.lifted ?? slot.word)!);
    const challenger = challengerOf(slot);
    return { key, winner, tier: tierOf(winner), challenger: challenger && this.#version(challenger) };
  }

  #maxLifted(a: Kept | undefined, b: Kept): Kept {
    return !a || (compareRanks(b.rank, a.rank) || this.#compareWords(b, a) || compareProofs(b.rank!, a.rank!)) > 0
      ? b
      : a;
  }

  readonly #maxWord = (a: Kept | undefined, b: Kept): Kept => {
    if (!a) return b;
    const order = this.#compareWords(b, a) || compareRanks(b.rank, a.rank) ||
      (a.rank && b.rank ? compareProofs(b.rank, a.rank) : 0);
    return order > 0 ? b : a;
  };

  #compareWords(a: Kept, b: Kept): number {
    return a.seq - b.seq || compareBytes(this.#hash(a), this.#hash(b));
  }

  #isSame(a: Kept, b: Kept): boolean {
    return this.#compareWords(a, b) === 0 && compareRanks(a.rank, b.rank) === 0 &&
      (!a.rank || !b.rank || compareProofs(a.rank, b.rank) === 0);
  }

  #expireSlot(key: string, slot: Slot, nowMs: number): boolean {
    const lifted = slot.lifted && slot.lifted.rank!.untilMs > nowMs ? slot.lifted : undefined;
    let word = slot.word && isInTime(slot.word, nowMs) ? slot.word : undefined;
    if (word?.rank && word.rank.untilMs <= nowMs) word = this.#bared(word);
    if (lifted === slot.lifted && word === slot.word) return false;
    this.#set(key, slot, lifted, word);
    return true;
  }

  #noteExpiry({ lifted, word }: Slot): void {
    const endsMs = Math.min(
      lifted?.rank?.untilMs ?? Infinity,
      word?.rank?.untilMs ?? Infinity,
      word ? word.seq + RECORD_LIFE_MS_MAX : Infinity,
    );
    if (endsMs < this.#nextExpiryMs) this.#nextExpiryMs = endsMs;
  }
}

const NOTHING = new Uint8Array(0);
/** Hash and signature. */
const HEAD_BYTES = 96;
/** Versions that stay read. */
const READ_MAX = 1_024;
/** Unused room that is worth moving everything. */
const COMPACT_BYTES = 1 << 20;
/** One author may take this part of the table with words that nobody has lifted. */
const AUTHOR_SHARE = 4;
/** Words that give way at once where there is no room for one of rank. */
const EVICT_BATCH = 64;

/** Bytes that a version takes, its fixed parts included. */
function sizeOf(one: Kept): number {
  return bytesOf(one) + KEPT_BYTES;
}

function sizeOfAll(some: readonly Kept[]): number {
  return some.reduce((sum, one) => sum + sizeOf(one), 0);
}

/** Its bytes in the arena. */
function bytesOf(one: Kept): number {
  return HEAD_BYTES + one.payloadBytes + one.proofBytes;
}

function sizeOfVersion({ spore, proof }: Version): number {
  return HEAD_BYTES + spore.envelope.payload.length + (proof ? encodeCbor(proofValue(proof)).length : 0) + KEPT_BYTES;
}

/** What a record takes beside its bytes, measured: see bench/spore_table.ts. */
const KEPT_BYTES = 450;

/** When the use of a slot without proof ends: what has run out goes first. */
function endMs(slot: Slot, nowMs: number): number {
  const { seq, useMs } = slot.word!;
  return seq + useMs <= nowMs ? 0 : seq + useMs;
}

/** Whether a word counts without a proof. */
function isInTime(one: Kept, nowMs: number): boolean {
  return one.seq + RECORD_LIFE_MS_MAX > nowMs;
}

function held({ lifted, word }: Pick<Slot, "lifted" | "word">): Kept[] {
  if (!lifted || lifted === word) return word ? [word] : [];
  return word ? [lifted, word] : [lifted];
}

/** A newer word without a proof: one that has a proof was overtaken in the order of its tier, and challenges nobody. */
function challengerOf({ lifted, word }: Slot): Kept | undefined {
  return lifted && word && !word.rank && word.seq > lifted.seq ? word : undefined;
}

function compareRanks(a: Rank | undefined, b: Rank | undefined): number {
  return (a?.tier ?? 0) - (b?.tier ?? 0) || (a?.term ?? 0) - (b?.term ?? 0) || (a?.index ?? 0) - (b?.index ?? 0);
}

/** Of two proofs of the same rank the one of the newer epoch, then the longer one, then any. */
function compareProofs(a: Rank, b: Rank): number {
  return a.epoch - b.epoch || a.untilMs - b.untilMs || a.high - b.high || a.low - b.low;
}

function rankOf(proof: RankProof, encoded: Uint8Array): Rank {
  const { tier, term, index, epoch, untilMs } = proof;
  const id = hashParts("mycelium/proof-id/v1", encoded);
  const view = new DataView(id.buffer, id.byteOffset, 8);
  return { tier: TIERS.indexOf(tier), term, index, epoch, untilMs, high: view.getInt32(0), low: view.getInt32(4) };
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

/** 64 bits that name a version in digests, in two halves. */
export function idOf({ spore, proof }: Version): readonly [high: number, low: number] {
  const view = new DataView(spore.hash.buffer, spore.hash.byteOffset, 8);
  const rank = proof && rankOf(proof, encodeCbor(proofValue(proof)));
  return [
    (view.getInt32(0) ^ (rank?.high ?? 0)) >>> 0,
    (view.getInt32(4) ^ (rank?.low ?? 0)) >>> 0,
  ];
}
