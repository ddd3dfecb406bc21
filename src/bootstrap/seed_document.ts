/**
 * Seed documents: a signed list of addresses that a file, a USB stick or a web server can hold.
 *
 * Whoever serves it needs no trust: the signer must be one that the caller already knows (the issuer of its
 * invite, an issuer of its network), the network id is in the signature, and a lower `seq` than one already
 * seen is a rollback. An expired document is still used, marked stale: an old address beats none.
 *
 * @module
 */

import { equalBytes, rawOrBase64Url, toBase64Url, utf8 } from "../core/bytes.ts";
import { array, bytes, decodeCbor, encodeCbor, record, uint, WireError } from "../core/codec.ts";
import type { KeyPair } from "../core/crypto.ts";
import { envelopeValue, openEnvelope, readEnvelope, sealEnvelope } from "../core/envelope.ts";
import { readAddress } from "../core/ids.ts";
import { LIMITS } from "../core/limits.ts";

/** Largest seed document that is read, in either form. Bytes. */
export const SEED_BYTES_MAX = 256 << 10;

/** Addresses in one document. */
export const SEED_ADDRESSES_MAX = 64;

/** What a seed document says. */
export interface SeedDocument {
  /** 32 bytes. */
  readonly networkId: Uint8Array;
  /** Multiaddrs; those of QUIC end in `/p2p/<nodeId>`. */
  readonly addresses: readonly string[];
  /** Milliseconds since the epoch. */
  readonly issuedMs: number;
  /** From then on the document is stale. Milliseconds since the epoch. */
  readonly expiresMs: number;
  /** Grows with each document of one signer. */
  readonly seq: number;
}

/** Why a document was refused; becomes a metric label. */
export type SeedRefusal = "malformed" | "foreign" | "unknown-signer" | "bad-signature" | "rollback" | "oversize";

/** Outcome of {@linkcode decodeSeed}. */
export type SeedResult =
  | { readonly ok: true; readonly document: SeedDocument; readonly signer: Uint8Array; readonly stale: boolean }
  | { readonly ok: false; readonly reason: SeedRefusal; readonly detail: string };

/** Options of {@linkcode decodeSeed}. */
export interface SeedDecodeOptions {
  readonly networkId: Uint8Array;
  /** Public keys whose word counts. */
  readonly signers: readonly Uint8Array[];
  /** Our wall clock. */
  readonly nowMs: number;
  /** Highest `seq` already seen of a signer; lower ones are refused, the same one is not. Absent: none seen. */
  readonly seqSeen?: (signer: Uint8Array) => number | undefined;
}

const SEED_TYPE = "seed/1";

/** First byte of a raw document: a CBOR map of four entries. */
export const SEED_FIRST_BYTE = 0xa4;

const readSeed = record({
  a: array(readAddress, SEED_ADDRESSES_MAX),
  e: uint(),
  i: uint(),
  n: bytes({ length: 32 }),
  q: uint(),
});

/**
 * Signs a seed document and spells it in base64url with a line end, for a file or a web server.
 *
 * @throws {WireError} When it holds too many addresses or something that is none.
 */
export function exportSeed(document: SeedDocument, signer: KeyPair): string {
  const value = {
    a: document.addresses,
    e: document.expiresMs,
    i: document.issuedMs,
    n: document.networkId,
    q: document.seq,
  };
  readSeed(value, SEED_TYPE);
  const envelope = sealEnvelope(value, { type: SEED_TYPE, networkId: document.networkId, signer });
  if (envelope.payload.length > LIMITS.recordBytesMax) {
    throw new WireError(
      `Cannot export seed: ${envelope.payload.length} bytes, at most ${LIMITS.recordBytesMax}; name fewer addresses`,
    );
  }
  return toBase64Url(encodeCbor(envelopeValue(envelope))) + "\n";
}

/** Reads a seed document: raw CBOR, or base64url text with white space around it. */
export function decodeSeed(input: Uint8Array, options: SeedDecodeOptions): SeedResult {
  const refuse = (reason: SeedRefusal, detail: string): SeedResult => ({ ok: false, reason, detail });
  if (input.length > SEED_BYTES_MAX) return refuse("oversize", `${input.length} bytes, at most ${SEED_BYTES_MAX}`);
  try {
    const envelope = readEnvelope(decodeCbor(rawBytes(input), SEED_BYTES_MAX), "seed");
    if (!options.signers.some((signer) => equalBytes(signer, envelope.signer))) {
      return refuse("unknown-signer", "it is signed by a key that this node does not know");
    }
    // Said in its own words before the signature, which a document of another network fails too.
    const claimed = readSeed(decodeCbor(envelope.payload, LIMITS.recordBytesMax), SEED_TYPE);
    if (!equalBytes(claimed.n, options.networkId)) return refuse("foreign", "it belongs to another network");
    let read: typeof claimed;
    try {
      read = openEnvelope(envelope, { type: SEED_TYPE, networkId: options.networkId, reader: readSeed });
    } catch (error) {
      if (error instanceof WireError) return refuse("bad-signature", error.message);
      throw error;
    }
    const seen = options.seqSeen?.(envelope.signer);
    if (seen !== undefined && read.q < seen) return refuse("rollback", `its seq is ${read.q}, already seen ${seen}`);
    const document = { networkId: read.n, addresses: read.a, issuedMs: read.i, expiresMs: read.e, seq: read.q };
    return { ok: true, document, signer: envelope.signer, stale: options.nowMs >= read.e };
  } catch (error) {
    if (error instanceof WireError) return refuse("malformed", error.message);
    throw error;
  }
}

function rawBytes(input: Uint8Array): Uint8Array {
  const raw = rawOrBase64Url(input, SEED_FIRST_BYTE);
  if (!raw) throw new WireError("Cannot read seed: neither CBOR nor base64url text");
  return raw;
}

/** Bytes of a document's text, as a file or a web server would give them. */
export function seedBytes(document: SeedDocument, signer: KeyPair): Uint8Array {
  return utf8(exportSeed(document, signer));
}
