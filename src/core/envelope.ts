/**
 * Signed envelopes: the one construction for every record that leaves a node.
 *
 * After libp2p RFC 0002: what is signed is the domain, the payload type and the payload, each preceded by
 * its length. The domain holds the network id, so that a record of one network is never valid in another.
 *
 * @module
 */

import { utf8 } from "./bytes.ts";
import { bytes, type CborValue, decodeCbor, encodeCbor, type Reader, record, text, WireError } from "./codec.ts";
import { hashParts, type KeyPair, signBytes, verifySignature } from "./crypto.ts";
import { LIMITS } from "./limits.ts";

/** A payload with the signature of one key over it. */
export interface Envelope {
  /** What the payload is, for example `member/1`; at most 32 characters. */
  readonly type: string;
  /** Deterministic CBOR. */
  readonly payload: Uint8Array;
  /** Ed25519 public key of the signer, 32 bytes. */
  readonly signer: Uint8Array;
  /** 64 bytes. */
  readonly signature: Uint8Array;
}

const readParts = record({
  t: text(32),
  p: bytes({ max: LIMITS.recordBytesMax }),
  k: bytes({ length: 32 }),
  s: bytes({ length: 64 }),
});

/** Reads an envelope from a decoded value. Says nothing about its signature. */
export const readEnvelope: Reader<Envelope> = (value, path) => {
  const parts = readParts(value, path);
  return { type: parts.t, payload: parts.p, signer: parts.k, signature: parts.s };
};

/** An envelope as a value for {@linkcode encodeCbor}. */
export function envelopeValue(envelope: Envelope): CborValue {
  return { t: envelope.type, p: envelope.payload, k: envelope.signer, s: envelope.signature };
}

/**
 * Signs a value as a record of one type in one network.
 *
 * @throws {WireError} When the value cannot be encoded, or is longer than any reader accepts.
 */
export function sealEnvelope(
  value: CborValue,
  options: { readonly type: string; readonly networkId: Uint8Array; readonly signer: KeyPair },
): Envelope {
  const payload = encodeCbor(value);
  if (payload.length > LIMITS.recordBytesMax) {
    throw new WireError(
      `Cannot seal record "${options.type}": ${payload.length} bytes, at most ${LIMITS.recordBytesMax}`,
    );
  }
  const signature = signBytes(options.signer, signedMessage(options.networkId, options.type, payload));
  return { type: options.type, payload, signer: options.signer.publicKey, signature };
}

/**
 * Verifies an envelope and reads its payload.
 *
 * @throws {WireError} When the type is another, the signature is not valid in this network or the payload does not read.
 */
export function openEnvelope<T>(
  envelope: Envelope,
  options: { readonly type: string; readonly networkId: Uint8Array; readonly reader: Reader<T> },
): T {
  if (envelope.type !== options.type) {
    throw new WireError(`Cannot open record "${envelope.type}": wanted type "${options.type}"`);
  }
  const message = signedMessage(options.networkId, envelope.type, envelope.payload);
  if (!verifySignature(envelope.signer, message, envelope.signature)) {
    throw new WireError(`Cannot open record "${envelope.type}": its signature is not valid in this network`);
  }
  return options.reader(decodeCbor(envelope.payload, LIMITS.recordBytesMax), envelope.type);
}

/** Whether the signature of an envelope is valid in a network, whatever its payload is. */
export function isSigned(envelope: Envelope, networkId: Uint8Array): boolean {
  return verifySignature(
    envelope.signer,
    signedMessage(networkId, envelope.type, envelope.payload),
    envelope.signature,
  );
}

/** Hash of an envelope's content, for references; 32 bytes. */
export function envelopeHash(envelope: Envelope): Uint8Array {
  return hashParts("mycelium/envelope/v1", utf8(envelope.type), envelope.payload, envelope.signer);
}

/** What the signer of an envelope signs, 32 bytes: for keys that lie elsewhere. */
export function signedMessage(networkId: Uint8Array, type: string, payload: Uint8Array): Uint8Array {
  return hashParts("mycelium/record/v1", networkId, utf8(type), payload);
}
