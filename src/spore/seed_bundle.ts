/**
 * Seed bundles: numbered, signed sets of records for files and web servers outside the network (Seed Spores).
 *
 * A bundle is a signed manifest and a rest that the manifest names by its hash. The rest holds the genesis record, the
 * authority epochs, the profile, a decision about a split, and records with proofs of rank; what is not of this
 * folder travels as it is and is verified by the agent. Whoever serves a bundle needs no trust.
 *
 * @module
 */

import { equalBytes, rawOrBase64Url, toBase64Url } from "../core/bytes.ts";
import {
  array,
  bytes,
  type CborValue,
  decodeAs,
  decodeCbor,
  encodeCbor,
  oneOf,
  optional,
  record,
  uint,
  WireError,
} from "../core/codec.ts";
import { hashParts, type KeyPair } from "../core/crypto.ts";
import {
  type Envelope,
  envelopeHash,
  envelopeValue,
  openEnvelope,
  readEnvelope,
  sealEnvelope,
} from "../core/envelope.ts";
import { readAddress } from "../core/ids.ts";
import { LIMITS } from "../core/limits.ts";
import { proofValue, type RankProof, readProof } from "./proof.ts";
import type { Spore } from "./record.ts";

/** What a bundle is for. */
export type BundleKind =
  /** Genesis, epochs, addresses, profile, decision about a split: what a network is. */
  | "master"
  /** Those, and where services run: services are found while the primaries are gone. */
  | "service"
  /** Those, and every record. */
  | "full";

/** Kinds of bundles. */
export const BUNDLE_KINDS: readonly BundleKind[] = ["master", "service", "full"];

/** Largest bundle, raw. Spelled as text it has a third more, and both fit what a control request may carry. Bytes. */
export const BUNDLE_BYTES_MAX: number = 180 << 10;

/** Largest file that may hold a bundle: as text, with white space around it. Bytes. */
export const BUNDLE_TEXT_BYTES_MAX: number = 256 << 10;

/** Addresses in one bundle. */
export const BUNDLE_ADDRESSES_MAX = 64;

/** Records in one bundle. */
export const BUNDLE_RECORDS_MAX = 1_000;

/** Authority epochs in one bundle; of a longer chain the newest. */
export const BUNDLE_EPOCHS_MAX = 256;

/** A record with the proof of its rank, as it stands in a bundle. */
export interface BundleRecord {
  /** A `spore/1` record, see `record.ts`. */
  readonly envelope: Envelope;
  readonly proof: RankProof;
}

/** What a bundle holds besides its manifest. */
export interface BundleContent {
  readonly genesis?: Envelope | undefined;
  /** Signed authority epochs in order, each as deterministic CBOR. */
  readonly epochs: readonly Uint8Array[];
  readonly profile?: Envelope | undefined;
  /** Which of two halves of a split network counts, signed by the genesis key. */
  readonly decision?: Envelope | undefined;
  readonly records: readonly BundleRecord[];
}

/** What a manifest says of its bundle. */
export interface BundleManifest {
  readonly kind: BundleKind;
  /** 32 bytes. */
  readonly networkId: Uint8Array;
  /** Rises with each bundle of one signer: a lower one than seen before is a rollback. */
  readonly seq: number;
  /** Wall clock of the signer, milliseconds since the epoch. */
  readonly issuedMs: number;
  /** From then on it is stale: its addresses are still tried, since an old one beats none. */
  readonly expiresMs: number;
  /** Multiaddrs of members, the issuers' first. */
  readonly addresses: readonly string[];
}

/** A bundle whose signature is valid. Says nothing about the authority of its signer. */
export interface SeedBundle extends BundleManifest, BundleContent {
  /** Ed25519 public key, 32 bytes. */
  readonly signer: Uint8Array;
  /** Hash of the manifest: names this bundle. 32 bytes. */
  readonly hash: Uint8Array;
  /** Size as it was read, raw. Bytes. */
  readonly sizeBytes: number;
}

/** Why a bundle does not open; becomes a metric label. */
export type BundleRefusal = "malformed" | "oversize" | "foreign" | "tampered";

/** Outcome of {@linkcode openBundle}. */
export type BundleResult =
  | { readonly ok: true; readonly bundle: SeedBundle }
  | { readonly ok: false; readonly reason: BundleRefusal; readonly detail: string };

const TYPE = "seed/2";

const readManifest = record({
  a: array(readAddress, BUNDLE_ADDRESSES_MAX),
  e: uint(),
  h: bytes({ length: 32 }),
  i: uint(),
  k: oneOf(BUNDLE_KINDS),
  n: bytes({ length: 32 }),
  q: uint(),
});

const readRest = record({
  d: optional(readEnvelope),
  es: array(bytes({ max: LIMITS.recordBytesMax }), BUNDLE_EPOCHS_MAX),
  g: optional(readEnvelope),
  p: optional(readEnvelope),
  s: array(record({ p: readProof, r: readEnvelope }), BUNDLE_RECORDS_MAX),
});

const readParts = record({ m: readEnvelope, r: bytes({ max: BUNDLE_BYTES_MAX }) });

/** A map of two entries: tells a raw bundle from text, and from the seed documents before it, which have four. */
const FIRST_BYTE = 0xa2;

/**
 * Makes and signs a bundle.
 *
 * @returns Raw bytes; see {@linkcode spellBundle}.
 * @throws {WireError} When it would be too large, or holds what no reader accepts.
 */
export function sealBundle(manifest: BundleManifest, content: BundleContent, signer: KeyPair): Uint8Array {
  const rest = restValue(content);
  readRest(rest, TYPE);
  const restBytes = encodeCbor(rest);
  const value = {
    a: manifest.addresses,
    e: manifest.expiresMs,
    h: restHash(manifest.networkId, restBytes),
    i: manifest.issuedMs,
    k: manifest.kind,
    n: manifest.networkId,
    q: manifest.seq,
  };
  readManifest(value, TYPE);
  const envelope = sealEnvelope(value, { type: TYPE, networkId: manifest.networkId, signer });
  const out = encodeCbor({ m: envelopeValue(envelope), r: restBytes });
  if (out.length > BUNDLE_BYTES_MAX) {
    throw new WireError(`Cannot seal bundle: ${out.length} bytes, at most ${BUNDLE_BYTES_MAX}; put fewer records in`);
  }
  return out;
}

/** A bundle as text with a line end, for mail, a file or a web server. */
export function spellBundle(raw: Uint8Array): string {
  return toBase64Url(raw) + "\n";
}

/** Whether an input claims to be a bundle and not a seed document of the form before it. */
export function looksLikeBundle(input: Uint8Array): boolean {
  // "o" is what the first byte of a bundle becomes in base64url; "p" that of a seed document.
  const first = input.find((byte) => byte > 0x20);
  return first === FIRST_BYTE || first === 0x6f;
}

/**
 * Reads a bundle, raw or as text with white space around it, and checks its signature and that nothing in it was
 * changed; not whether the signer may sign, which takes the authority chain.
 *
 * @param networkId Network that it has to be of; missing: the one that it names itself.
 */
export function openBundle(input: Uint8Array, networkId?: Uint8Array): BundleResult {
  const refuse = (reason: BundleRefusal, detail: string): BundleResult => ({ ok: false, reason, detail });
  if (input.length > BUNDLE_TEXT_BYTES_MAX) {
    return refuse("oversize", `${input.length} bytes, at most ${BUNDLE_TEXT_BYTES_MAX}`);
  }
  try {
    const raw = bundleBytes(input);
    if (raw.length > BUNDLE_BYTES_MAX) return refuse("oversize", `${raw.length} bytes, at most ${BUNDLE_BYTES_MAX}`);
    const { m, r } = decodeAs(raw, readParts, BUNDLE_BYTES_MAX);
    // Said in its own words before the signature, which a bundle of another network fails too.
    const claimed = readManifest(decodeCbor(m.payload, LIMITS.recordBytesMax), TYPE);
    if (networkId && !equalBytes(claimed.n, networkId)) return refuse("foreign", "it belongs to another network");
    let manifest: typeof claimed;
    try {
      manifest = openEnvelope(m, { type: TYPE, networkId: claimed.n, reader: readManifest });
    } catch (error) {
      if (error instanceof WireError) return refuse("tampered", error.message);
      throw error;
    }
    // Before it is decoded: what somebody else put there need not be looked at.
    if (!equalBytes(manifest.h, restHash(manifest.n, r))) {
      return refuse("tampered", "its content is not what its signer signed");
    }
    const rest = decodeAs(r, readRest, BUNDLE_BYTES_MAX);
    return {
      ok: true,
      bundle: {
        kind: manifest.k,
        networkId: manifest.n,
        seq: manifest.q,
        issuedMs: manifest.i,
        expiresMs: manifest.e,
        addresses: manifest.a,
        genesis: rest.g,
        epochs: rest.es,
        profile: rest.p,
        decision: rest.d,
        records: rest.s.map((one) => ({ envelope: one.r, proof: one.p })),
        signer: m.signer,
        hash: envelopeHash(m),
        sizeBytes: raw.length,
      },
    };
  } catch (error) {
    if (error instanceof WireError) return refuse("malformed", error.message);
    throw error;
  }
}

/**
 * What a bundle says, whoever says it and when: 32 bytes that change with the kind, an address, an epoch or a record,
 * and not with the number, the dates, the signer and the proofs. Two with the same need not both be published.
 */
export function contentHash(
  what: Pick<BundleManifest, "kind" | "networkId" | "addresses"> & BundleContent,
): Uint8Array {
  const of = (one: Envelope | undefined) => one ? envelopeHash(one) : null;
  const records = what.records.map((one) => envelopeHash(one.envelope));
  return hashParts(
    "mycelium/seed-content/v1",
    what.networkId,
    encodeCbor({
      k: what.kind,
      a: what.addresses,
      g: of(what.genesis),
      e: hashParts("mycelium/seed-epochs/v1", ...what.epochs),
      p: of(what.profile),
      d: of(what.decision),
      s: hashParts("mycelium/seed-records/v1", ...records),
    }),
  );
}

/**
 * Chooses the records of a bundle: sorted by key, and where not all fit, one instance of every service before the
 * second of any, values before tombstones.
 *
 * @param all Records that would belong into it.
 * @param bytesMax Room for them with their proofs.
 * @param proofBytes Size of the proof that a record gets; one with one signature where not given.
 * @returns Those that fit, by key, and how many do not.
 */
export function chooseRecords(
  all: readonly Spore[],
  bytesMax: number,
  proofBytes: (spore: Spore) => number = () => SEED_PROOF_BYTES,
): { readonly chosen: readonly Spore[]; readonly leftOut: number } {
  const byKey = [...all].sort((a, b) => a.record.key < b.record.key ? -1 : 1);
  const turns = new Map<string, number>();
  const ranked = byKey.map((spore) => {
    const { key, value } = spore.record;
    const group = key.startsWith("service/") ? key.slice(0, key.lastIndexOf("/")) : key;
    const turn = turns.get(group) ?? 0;
    turns.set(group, turn + 1);
    const dead = value === undefined ? 1 : 0;
    const other = key.startsWith("service/") ? 0 : 1;
    return { spore, rank: [dead, other, turn] as const };
  });
  // A stable sort: equal ranks stay in the order of their keys, on every issuer.
  ranked.sort((a, b) => a.rank[0] - b.rank[0] || a.rank[1] - b.rank[1] || a.rank[2] - b.rank[2]);
  const chosen: Spore[] = [];
  let left = bytesMax;
  for (const { spore } of ranked) {
    const size = encodeCbor(envelopeValue(spore.envelope)).length + proofBytes(spore);
    if (size > left || chosen.length >= BUNDLE_RECORDS_MAX) continue;
    left -= size;
    chosen.push(spore);
  }
  chosen.sort((a, b) => a.record.key < b.record.key ? -1 : 1);
  return { chosen, leftOut: all.length - chosen.length };
}

/** Size of a proof with one signature, and of what stands around it and its record. */
export const SEED_PROOF_BYTES = 160;

/** Size of a proof and of what stands around it and its record. */
export function proofBytes(proof: RankProof): number {
  return encodeCbor(proofValue(proof)).length + 8;
}

/** Size of the content, encoded. */
export function contentBytes(content: BundleContent): number {
  return encodeCbor(restValue(content)).length;
}

function restValue(content: BundleContent): CborValue {
  const of = (one: Envelope | undefined) => one ? envelopeValue(one) : undefined;
  return {
    d: of(content.decision),
    es: content.epochs,
    g: of(content.genesis),
    p: of(content.profile),
    s: content.records.map((one) => ({ p: proofValue(one.proof), r: envelopeValue(one.envelope) })),
  };
}

function restHash(networkId: Uint8Array, rest: Uint8Array): Uint8Array {
  return hashParts("mycelium/seed-rest/v1", networkId, rest);
}

/**
 * A bundle's bytes, whichever way it is spelled; says nothing about whether they open.
 *
 * @throws {WireError} Where the input is neither CBOR of a bundle nor base64url.
 */
export function bundleBytes(input: Uint8Array): Uint8Array {
  const raw = rawOrBase64Url(input, FIRST_BYTE);
  if (!raw) throw new WireError("Cannot read bundle: neither CBOR nor base64url text");
  return raw;
}
