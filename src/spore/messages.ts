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
 * Each body has a version `v`; who gets a greater one than it knows reads what it knows of it.
 *
 * @module
 */

import {
  array,
  bytes,
  type CborValue,
  encodeCbor,
  oneOf,
  optional,
  type Reader,
  record,
  text,
  uint,
  WireError,
} from "../core/codec.ts";
import { type Envelope, envelopeValue, readEnvelope } from "../core/envelope.ts";
import { LIMITS } from "../core/limits.ts";
import { type DigestAsk, type DigestPart, ID_BYTES, NODES, PARTS_MAX, ZONES } from "./digest.ts";
import { KEY_CHARS_MAX, readKey } from "./keys.ts";
import { proofValue, type RankProof, readProof } from "./proof.ts";
import type { Version } from "./table.ts";

/** Version of these messages. */
export const SPORE_PROTOCOL = 1;

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
export const readPush: Reader<readonly WireVersion[]> = (value, path) => readPushParts(value, path).g;

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
  r: optional(array(record({ z: uint(ZONES.length - 1), s: bytes({ length: ID_BYTES }) }), ZONES.length)),
  q: optional(array(readPart, PARTS_MAX)),
});

/** Reads the body of `spore.digest`. */
export const readDigestAsk: Reader<DigestAsk> = (value, path) => {
  const { r, q } = readDigestParts(value, path);
  return { ...(r ? { roots: new Map(r.map((one) => [one.z, one.s])) } : {}), parts: q ?? [] };
};

/** Body of `spore.digest`. */
export function digestAskValue(ask: DigestAsk): CborValue {
  return {
    v: SPORE_PROTOCOL,
    r: ask.roots && [...ask.roots].map(([z, s]) => ({ z, s })),
    q: ask.parts.length > 0 ? ask.parts.map(partValue) : undefined,
  };
}

const readAnswerParts = record({ v: uint(), a: array(readPart, 16 * PARTS_MAX) });

/** Reads the answer of `spore.digest`. */
export const readDigestAnswer: Reader<readonly DigestPart[]> = (value, path) => readAnswerParts(value, path).a;

/** Answer of `spore.digest`. */
export function digestAnswerValue(parts: readonly DigestPart[]): CborValue {
  return { v: SPORE_PROTOCOL, a: parts.map(partValue) };
}

function partValue({ zone, node, sums, list }: DigestPart): CborValue {
  return { z: zone, n: node, s: sums, l: list };
}

/** What is given and wanted in `spore.delta`. */
export interface DeltaAsk {
  readonly given: readonly WireVersion[];
  readonly wanted: readonly DigestPart[];
}

/** Ids wanted in one `spore.delta`. */
export const WANTED_MAX = VERSIONS_MAX;

const readDeltaParts = record({ v: uint(), g: readVersions, w: array(readPart, WANTED_MAX) });

/** Reads the body of `spore.delta`. */
export const readDeltaAsk: Reader<DeltaAsk> = (value, path) => {
  const { g, w } = readDeltaParts(value, path);
  const ids = w.reduce((sum, one) => sum + (one.list?.length ?? 0) / ID_BYTES, 0);
  if (ids > WANTED_MAX) throw new WireError(`Cannot read ${path}: wants ${ids} records, at most ${WANTED_MAX}`);
  return { given: g, wanted: w };
};

/** Body of `spore.delta`. */
export function deltaAskValue(given: readonly Version[], wanted: readonly DigestPart[]): CborValue {
  return { v: SPORE_PROTOCOL, g: given.map(versionValue), w: wanted.map(partValue) };
}

const readDeltaAnswerParts = record({ v: uint(), g: readVersions, k: uint(WANTED_MAX) });

/** Reads the answer of `spore.delta`: the versions, and how many of the wanted ids were looked up, in their order. */
export const readDeltaAnswer: Reader<{ readonly given: readonly WireVersion[]; readonly done: number }> = (
  value,
  path,
) => {
  const { g, k } = readDeltaAnswerParts(value, path);
  return { given: g, done: k };
};

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
export const readRead: Reader<{ readonly p: string; readonly a?: string }> = record({
  v: uint(),
  p: text(KEY_CHARS_MAX),
  a: optional(text(KEY_CHARS_MAX)),
}) as Reader<{ readonly p: string; readonly a?: string }>;

/** Body of `spore.read`. */
export function readValue(prefix: string, after: string | undefined): CborValue {
  return { v: SPORE_PROTOCOL, p: prefix, a: after };
}

/** Reads the answer of `spore.read`: versions, and the key to go on after where there are more. */
export const readReadAnswer: Reader<{ readonly g: readonly WireVersion[]; readonly a?: string }> = record({
  v: uint(),
  g: readVersions,
  a: optional(text(KEY_CHARS_MAX)),
}) as Reader<{ readonly g: readonly WireVersion[]; readonly a?: string }>;

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
