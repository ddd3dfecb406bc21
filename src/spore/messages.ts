/**
 * What nodes send each other about spore records: every form is read here, once.
 *
 * | method | body | answer |
 * | --- | --- | --- |
 * | `spore.push` | versions | – |
 * | `spore.digest` | roots or parts of the tree | parts |
 * | `spore.delta` | versions given, ids wanted | versions, how many of the ids were looked up |
 * | `spore.confirm` | key and hash | what stands there |
 * | `spore.read` | prefix, where to go on | versions, where to go on |
 *
 * Each body has a version `v`; who gets a greater one than it knows reads what it knows of it. `c` says what codecs its
 * sender reads: large bodies with versions then come as `z`, the same CBOR compressed.
 *
 * @module
 */

import {
  array,
  bytes,
  type CborValue,
  decodeCbor,
  encodeCbor,
  oneOf,
  optional,
  type Reader,
  record,
  text,
  uint,
  WireError,
} from "../core/codec.ts";
import { compressBytes, decompressBytes, hasZstd } from "../core/compress.ts";
import { type Envelope, envelopeValue, readEnvelope } from "../core/envelope.ts";
import { LIMITS } from "../core/limits.ts";
import { type DigestAsk, type DigestPart, ID_BYTES, NODES, PARTS_MAX, ZONES } from "./digest.ts";
import { KEY_CHARS_MAX, readKey } from "./keys.ts";
import { proofValue, type RankProof, readProof } from "./proof.ts";
import type { Version } from "./table.ts";

/** A body from so many bytes on is worth compressing. */
const COMPRESS_BYTES_MIN = 2_048;
/** Bit of zstd among the codecs that a node says it reads. */
const ZSTD = 1;

/** Codecs that this node reads. */
function ownCodecs(): number {
  return hasZstd() ? ZSTD : 0;
}

/**
 * A body as it is sent to one that reads `codecs`: compressed where that pays.
 *
 * @param codecs What the other has said in its last `spore.digest`, its answer, or this very question; 0: nothing.
 */
export function squeezed(body: CborValue, codecs: number): CborValue {
  if ((codecs & ZSTD) === 0 || !hasZstd()) return body;
  const encoded = encodeCbor(body);
  const packed = encoded.length < COMPRESS_BYTES_MIN ? undefined : compressBytes(encoded);
  return packed ? { v: SPORE_PROTOCOL, z: packed } : body;
}

/** A reader of a body that may be compressed. */
function unsqueezed<T>(reader: Reader<T>): Reader<T> {
  return (value, path) => {
    const packed = value !== null && typeof value === "object" && "z" in value ? value.z : undefined;
    if (packed === undefined) return reader(value, path);
    const bytes = bytesReader(packed as CborValue, `${path}.z`);
    return reader(decodeCbor(decompressBytes(bytes, LIMITS.frameBytesMax)), path);
  };
}
const bytesReader = bytes({ max: LIMITS.frameBytesMax });

/** Version of these messages. */
export const SPORE_PROTOCOL = 1;

/** What a message says of who sent it. */
export interface Spoken {
  /** Codecs that the sender reads, one bit each: 1 is zstd. */
  readonly codecs: number;
}

/** A version as it travels: nothing of it is checked yet. */
export interface WireVersion {
  readonly envelope: Envelope;
  readonly proof: RankProof | undefined;
}

/** Versions of one message. */
export const VERSIONS_MAX = 256;
/** Encoded versions of one message, bytes: checking them takes some 15 ms. */
export const VERSIONS_BYTES_MAX: number = 128 << 10;

const readVersionParts = record({ e: readEnvelope, p: optional(readProof) });

/** Reads a version. */
export const readVersion: Reader<WireVersion> = (value, path) => {
  const { e, p } = readVersionParts(value, path);
  return { envelope: e, proof: p };
};

/** A version as a value for the codec. */
export function versionValue({ spore, proof }: Version): CborValue {
  return { e: envelopeValue(spore.envelope), p: proof && proofValue(proof) };
}

const readVersions = array(readVersion, VERSIONS_MAX);

const readPushParts = record({ v: uint(), g: readVersions });

/** Reads the body of `spore.push`, and of a broadcast. */
export const readPush: Reader<readonly WireVersion[]> = unsqueezed((value, path) => readPushParts(value, path).g);

/** Body of `spore.push`. */
export function pushValue(versions: readonly Version[]): CborValue {
  return { v: SPORE_PROTOCOL, g: versions.map(versionValue) };
}

const LIST_BYTES_MAX = ID_BYTES * LIMITS.sporesMax;

const readPartFields = record({
  z: uint(ZONES.length - 1),
  n: uint(NODES - 1),
  s: optional(bytes({ length: 16 * ID_BYTES })),
  l: optional(bytes({ max: LIST_BYTES_MAX })),
});

const readPart: Reader<DigestPart> = (value, path) => {
  const { z, n, s, l } = readPartFields(value, path);
  if (l && l.length % ID_BYTES !== 0) throw new WireError(`Cannot read ${path}: half an id`);
  return { zone: z, node: n, ...(s ? { sums: s } : {}), ...(l ? { list: l } : {}) };
};

const readDigestParts = record({
  v: uint(),
  c: optional(uint()),
  r: optional(array(record({ z: uint(ZONES.length - 1), s: bytes({ length: ID_BYTES }) }), ZONES.length)),
  q: optional(array(readPart, PARTS_MAX)),
});

/** Reads the body of `spore.digest`. */
export const readDigestAsk: Reader<DigestAsk & Spoken> = (value, path) => {
  const { c, r, q } = readDigestParts(value, path);
  return { codecs: c ?? 0, ...(r ? { roots: new Map(r.map((one) => [one.z, one.s])) } : {}), parts: q ?? [] };
};

/** Body of `spore.digest`. */
export function digestAskValue(ask: DigestAsk): CborValue {
  return {
    v: SPORE_PROTOCOL,
    c: ownCodecs(),
    r: ask.roots && [...ask.roots].map(([z, s]) => ({ z, s })),
    q: ask.parts.length > 0 ? ask.parts.map(partValue) : undefined,
  };
}

const readAnswerParts = record({ v: uint(), c: optional(uint()), a: array(readPart, 16 * PARTS_MAX) });

/** Reads the answer of `spore.digest`. */
export const readDigestAnswer: Reader<{ readonly parts: readonly DigestPart[] } & Spoken> = (value, path) => {
  const { c, a } = readAnswerParts(value, path);
  return { codecs: c ?? 0, parts: a };
};

/** Answer of `spore.digest`. */
export function digestAnswerValue(parts: readonly DigestPart[]): CborValue {
  return { v: SPORE_PROTOCOL, c: ownCodecs(), a: parts.map(partValue) };
}

function partValue({ zone, node, sums, list }: DigestPart): CborValue {
  return { z: zone, n: node, s: sums, l: list };
}

/** What is given and wanted in `spore.delta`. */
export interface DeltaAsk extends Spoken {
  readonly given: readonly WireVersion[];
  readonly wanted: readonly DigestPart[];
}

/** Ids wanted in one `spore.delta`. */
export const WANTED_MAX = VERSIONS_MAX;

const readDeltaParts = record({ v: uint(), c: optional(uint()), g: readVersions, w: array(readPart, WANTED_MAX) });

/** Reads the body of `spore.delta`. */
export const readDeltaAsk: Reader<DeltaAsk> = unsqueezed((value, path) => {
  const { c, g, w } = readDeltaParts(value, path);
  const ids = w.reduce((sum, one) => sum + (one.list?.length ?? 0) / ID_BYTES, 0);
  if (ids > WANTED_MAX) throw new WireError(`Cannot read ${path}: wants ${ids} records, at most ${WANTED_MAX}`);
  return { codecs: c ?? 0, given: g, wanted: w };
});

/** Body of `spore.delta`. */
export function deltaAskValue(given: readonly Version[], wanted: readonly DigestPart[]): CborValue {
  return { v: SPORE_PROTOCOL, c: ownCodecs(), g: given.map(versionValue), w: wanted.map(partValue) };
}

const readDeltaAnswerParts = record({ v: uint(), g: readVersions, k: uint(WANTED_MAX) });

/** Reads the answer of `spore.delta`: the versions, and how many of the wanted ids were looked up, in their order. */
export const readDeltaAnswer: Reader<{ readonly given: readonly WireVersion[]; readonly done: number }> = unsqueezed((
  value,
  path,
) => {
  const { g, k } = readDeltaAnswerParts(value, path);
  return { given: g, done: k };
});

/** Answer of `spore.delta`. */
export function deltaAnswerValue(given: readonly CborValue[], done: number): CborValue {
  return { v: SPORE_PROTOCOL, g: given, k: done };
}

/** What stands under a key at the node that was asked. */
export const STANDINGS = ["current", "replaced", "unknown"] as const;
/** One of {@linkcode STANDINGS}. */
export type Standing = typeof STANDINGS[number];

const readConfirmParts = record({ v: uint(), k: readKey, h: bytes({ length: 32 }) });

/** Reads the body of `spore.confirm`. */
export const readConfirm: Reader<{ readonly key: string; readonly hash: Uint8Array }> = (value, path) => {
  const { k, h } = readConfirmParts(value, path);
  return { key: k, hash: h };
};

/** Body of `spore.confirm`. */
export function confirmValue(key: string, hash: Uint8Array): CborValue {
  return { v: SPORE_PROTOCOL, k: key, h: hash };
}

/** Reads the answer of `spore.confirm`. */
export const readConfirmAnswer: Reader<{ readonly s: Standing }> = record({ v: uint(), s: oneOf(STANDINGS) });

/** Answer of `spore.confirm`. */
export function confirmAnswerValue(standing: Standing): CborValue {
  return { v: SPORE_PROTOCOL, s: standing };
}

/** Reads the body of `spore.read`. */
export const readRead: Reader<{ readonly p: string; readonly a?: string; readonly c?: number }> = record({
  v: uint(),
  c: optional(uint()),
  p: text(KEY_CHARS_MAX),
  a: optional(text(KEY_CHARS_MAX)),
}) as Reader<{ readonly p: string; readonly a?: string; readonly c?: number }>;

/** Body of `spore.read`. */
export function readValue(prefix: string, after: string | undefined): CborValue {
  return { v: SPORE_PROTOCOL, c: ownCodecs(), p: prefix, a: after };
}

/** Reads the answer of `spore.read`: versions, and the key to go on after where there are more. */
export const readReadAnswer: Reader<{ readonly g: readonly WireVersion[]; readonly a?: string }> = unsqueezed(
  record({ v: uint(), g: readVersions, a: optional(text(KEY_CHARS_MAX)) }) as Reader<
    { readonly g: readonly WireVersion[]; readonly a?: string }
  >,
);

/** Answer of `spore.read`. */
export function readAnswerValue(given: readonly CborValue[], after: string | undefined): CborValue {
  return { v: SPORE_PROTOCOL, g: given, a: after };
}

/** Gathers encoded versions up to the bounds of one message. */
export class VersionBatch {
  readonly values: CborValue[] = [];
  #bytes = 0;

  /** Takes a version where it still fits; the first always does. */
  add(version: Version): boolean {
    const value = versionValue(version);
    const size = version.spore.envelope.payload.length + 140 +
      (version.proof ? encodeCbor(proofValue(version.proof)).length : 0);
    if (this.values.length > 0 && (this.values.length >= VERSIONS_MAX || this.#bytes + size > VERSIONS_BYTES_MAX)) {
      return false;
    }
    this.#bytes += size;
    this.values.push(value);
    return true;
  }
}
