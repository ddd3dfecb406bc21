/**
 * The challenge-response of joining: who signs what, over what.
 *
 * Both sides sign one transcript that holds the network, both node keys, a nonce from each side, what
 * binds it to the channel, and the hash of the request. A recorded proof is worth nothing in another
 * channel, for another request or to another registrar; the registrar's nonce is good for one use.
 *
 * @module
 */

import { hashParts, type KeyPair, signBytes, verifySignature } from "../core/crypto.ts";

/** What a proof is over. */
export interface JoinTranscript {
  readonly networkId: Uint8Array;
  readonly registrarKey: Uint8Array;
  readonly joinerKey: Uint8Array;
  /** 32 random bytes of the registrar, good once. */
  readonly registrarNonce: Uint8Array;
  /** 32 random bytes of the joiner. */
  readonly joinerNonce: Uint8Array;
  /** 32 bytes that both ends of the channel share, or empty where the transport gives none. */
  readonly channelBinding: Uint8Array;
  /** Hash of the request that the proof goes with. */
  readonly requestHash: Uint8Array;
}

/** Who signs: the factors of a join and the answer to them. */
export type ProofFactor = "node" | "invite" | "registrar";

/** Hash of a transcript as one factor signs it; 32 bytes. */
export function transcriptHash(factor: ProofFactor, transcript: JoinTranscript): Uint8Array {
  return hashParts(
    `mycelium/join/${factor}/v1`,
    transcript.networkId,
    transcript.registrarKey,
    transcript.joinerKey,
    transcript.registrarNonce,
    transcript.joinerNonce,
    transcript.channelBinding,
    transcript.requestHash,
  );
}

/** One factor's signature, 64 bytes. */
export function proveFactor(factor: ProofFactor, transcript: JoinTranscript, key: KeyPair): Uint8Array {
  return signBytes(key, transcriptHash(factor, transcript));
}

/** Whether one factor's signature is valid. */
export function verifyFactor(
  factor: ProofFactor,
  transcript: JoinTranscript,
  publicKey: Uint8Array,
  signature: Uint8Array,
): boolean {
  return verifySignature(publicKey, transcriptHash(factor, transcript), signature);
}
