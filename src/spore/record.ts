/**
 * Spore records: what a member says under a key, signed by it.
 *
 * @module
 */

import { bytes, decodeAs, optional, type Read, record, uint, WireError } from "../core/codec.ts";
import type { KeyPair } from "../core/crypto.ts";
import { type Envelope, envelopeHash, openEnvelope, sealEnvelope } from "../core/envelope.ts";
import { nodeIdOf } from "../core/ids.ts";
import { readKey } from "./keys.ts";

/** What a member says under a key. */
export interface SporeRecord {
  /** See `keys.ts`. */
  readonly key: string;
  /**
   * Milliseconds since the epoch, or one more than the number of what it replaces, whichever is greater: a clock that
   * only goes on. At least `issuedMs`. Order and lifetime of words go by it, so that what lost never outlives what won.
   */
  readonly seq: number;
  /** Missing: a tombstone, the key is deleted. */
  readonly value: Uint8Array | undefined;
  /** Wall clock of the author. */
  readonly issuedMs: number;
  /**
   * From then on it counts no longer, at most {@linkcode RECORD_LIFE_MS_MAX} after `issuedMs`. A life of exactly that
   * length has no end of its own: what a Primary Spore holds stays, its proof being renewed in its place.
   */
  readonly expiresMs: number;
}

/** A spore record with what proves it. */
export interface Spore {
  readonly record: SporeRecord;
  readonly envelope: Envelope;
  /** Hash of type, payload and author: 32 bytes. Names this word for good. */
  readonly hash: Uint8Array;
  /** Node that signed it. */
  readonly author: string;
}

/** Longest value of a record, bytes. */
export const VALUE_BYTES_MAX: number = 8 << 10;

/**
 * Longest life of a record outside a Primary Spore: 14 days. Tombstones live as long, so that nothing that was
 * deleted comes back however long a network was split: what would bring it back has run out as well.
 */
export const RECORD_LIFE_MS_MAX: number = 14 * 86_400_000;

const TYPE = "spore/1";

const readRecord = record({
  k: readKey,
  n: uint(),
  v: optional(bytes({ max: VALUE_BYTES_MAX })),
  i: uint(),
  x: uint(),
});

/** Signs a spore record. @throws {WireError} When it is too long. */
export function sealSpore(one: SporeRecord, networkId: Uint8Array, author: KeyPair): Spore {
  const envelope = sealEnvelope({ k: one.key, n: one.seq, v: one.value, i: one.issuedMs, x: one.expiresMs }, {
    type: TYPE,
    networkId,
    signer: author,
  });
  return { record: one, envelope, hash: envelopeHash(envelope), author: authorOf(author.publicKey) };
}

/**
 * Reads a spore record and checks its signature; not whether its author may write there, see `mayWrite`.
 *
 * @throws {WireError} When it is malformed, not validly signed in this network, or of a life that no record has.
 */
export function openSpore(envelope: Envelope, networkId: Uint8Array): Spore {
  return sporeOf(envelope, openEnvelope(envelope, { type: TYPE, networkId, reader: readRecord }));
}

/**
 * Reads a spore record without checking its signature: one that was checked before it was stored, or whose
 * content decides whether checking it is worth the time.
 *
 * @throws {WireError} When it is malformed, or of a life that no record has.
 */
export function readSpore(envelope: Envelope): Spore {
  if (envelope.type !== TYPE) throw new WireError(`Cannot open record "${envelope.type}": wanted type "${TYPE}"`);
  return sporeOf(envelope, decodeAs(envelope.payload, readRecord));
}

/** Reads a spore record from memory, where it was put after its signature was checked. */
export function keptSpore(parts: {
  readonly hash: Uint8Array;
  readonly signature: Uint8Array;
  readonly payload: Uint8Array;
  readonly signer: Uint8Array;
  readonly author: string;
}): Spore {
  const { hash, signature, payload, signer, author } = parts;
  return {
    record: recordOf(decodeAs(payload, readRecord)),
    envelope: { type: TYPE, payload, signer, signature },
    hash,
    author,
  };
}

function recordOf(read: Read<typeof readRecord>): SporeRecord {
  return { key: read.k, seq: read.n, value: read.v, issuedMs: read.i, expiresMs: read.x };
}

function sporeOf(envelope: Envelope, read: Read<typeof readRecord>): Spore {
  const one = recordOf(read);
  if (one.expiresMs <= one.issuedMs || one.expiresMs - one.issuedMs > RECORD_LIFE_MS_MAX) {
    throw new WireError(`Cannot open record "${one.key}": it lives for ${one.expiresMs - one.issuedMs} ms`);
  }
  return { record: one, envelope, hash: envelopeHash(envelope), author: authorOf(envelope.signer) };
}

/** Spelling a node id takes as long as half a signature check, and most records are of few authors. */
const AUTHORS = new Map<string, string>();
const AUTHORS_MAX = 1_024;

function authorOf(publicKey: Uint8Array): string {
  const name = String.fromCharCode(...publicKey);
  let author = AUTHORS.get(name);
  if (author === undefined) {
    author = nodeIdOf(publicKey);
    if (AUTHORS.size >= AUTHORS_MAX) AUTHORS.delete(AUTHORS.keys().next().value!);
    AUTHORS.set(name, author);
  }
  return author;
}
