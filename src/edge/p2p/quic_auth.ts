/**
 * Mutual authentication on the first stream of a QUIC connection.
 *
 * TLS has proved the server to the dialer already. What follows proves the dialer to the server, binds both
 * keys, both nonces and the leaf certificate into one transcript that only these two processes share, and
 * lets the server refuse with a reason.
 *
 * ```
 * dialer → server   version, dialer key, dialer nonce, dialer instance
 * server → dialer   verdict, server nonce, server instance, leaf hash, server signature
 * dialer → server   dialer signature
 * server → dialer   verdict
 * ```
 *
 * Both signatures cover the transcript, each under its own label, so that neither can be played back as the
 * other, in another connection, to another server or in another network.
 *
 * @module
 */

import { concatBytes, equalBytes } from "../../core/bytes.ts";
import { hashParts, type KeyPair, signBytes, verifySignature } from "../../core/crypto.ts";

/** Why a server refused a channel. */
export type Verdict = "ok" | "bad-version" | "bad-client-signature" | "overloaded" | "duplicate" | "wrong-identity";

const VERDICTS: readonly Verdict[] = [
  "ok",
  "bad-version",
  "bad-client-signature",
  "overloaded",
  "duplicate",
  "wrong-identity",
];
const VERSION = 1;

/** Bytes of each message. */
export const AUTH_BYTES = { hello: 1 + 32 + 32 + 16, challenge: 1 + 32 + 16 + 32 + 64, proof: 64, verdict: 1 } as const;

/** The dialer's first message. */
export interface AuthHello {
  readonly clientKey: Uint8Array;
  readonly clientNonce: Uint8Array;
  /** 16 random bytes of the process: a peer that comes back with another one was restarted. */
  readonly clientInstance: Uint8Array;
}

/** The server's answer. */
export interface AuthChallenge {
  readonly serverNonce: Uint8Array;
  readonly serverInstance: Uint8Array;
  /** SHA-256 of the server's leaf certificate. */
  readonly leafHash: Uint8Array;
  readonly signature: Uint8Array;
}

/** The bytes of a hello. */
export function encodeHello(hello: AuthHello): Uint8Array {
  return concatBytes(Uint8Array.of(VERSION), hello.clientKey, hello.clientNonce, hello.clientInstance);
}

/** The hello, or `undefined` when it is of another version. */
export function decodeHello(bytes: Uint8Array): AuthHello | undefined {
  if (bytes.length !== AUTH_BYTES.hello || bytes[0] !== VERSION) return undefined;
  return { clientKey: bytes.slice(1, 33), clientNonce: bytes.slice(33, 65), clientInstance: bytes.slice(65, 81) };
}

/** A challenge; a verdict other than `ok` ends the connection and makes the rest meaningless. */
export function encodeChallenge(verdict: Verdict, challenge: AuthChallenge | undefined): Uint8Array {
  if (!challenge) return concatBytes(encodeVerdict(verdict), new Uint8Array(AUTH_BYTES.challenge - 1));
  return concatBytes(
    encodeVerdict(verdict),
    challenge.serverNonce,
    challenge.serverInstance,
    challenge.leafHash,
    challenge.signature,
  );
}

/** Reads a challenge of exactly `AUTH_BYTES.challenge` bytes; it proves nothing before its signature is verified. */
export function decodeChallenge(bytes: Uint8Array): { readonly verdict: Verdict; readonly challenge: AuthChallenge } {
  return {
    verdict: decodeVerdict(bytes[0]),
    challenge: {
      serverNonce: bytes.slice(1, 33),
      serverInstance: bytes.slice(33, 49),
      leafHash: bytes.slice(49, 81),
      signature: bytes.slice(81, 145),
    },
  };
}

/** The one byte of a verdict. */
export function encodeVerdict(verdict: Verdict): Uint8Array {
  return Uint8Array.of(VERDICTS.indexOf(verdict));
}

/** An unknown verdict is read as a refusal for the version: a newer server may have more of them. */
export function decodeVerdict(byte: number | undefined): Verdict {
  return VERDICTS[byte ?? -1] ?? "bad-version";
}

/** What both ends sign; its hash under another label is the channel binding. */
export function authTranscript(parts: {
  readonly networkId: Uint8Array;
  readonly serverKey: Uint8Array;
  readonly hello: AuthHello;
  readonly challenge: Omit<AuthChallenge, "signature">;
}): Uint8Array {
  return hashParts(
    "mycelium/quic-auth/v1",
    parts.networkId,
    parts.challenge.serverNonce,
    parts.hello.clientNonce,
    parts.serverKey,
    parts.hello.clientKey,
    parts.challenge.leafHash,
    parts.challenge.serverInstance,
    parts.hello.clientInstance,
  );
}

/** Which end signs. */
export type AuthSide = "client" | "server";

/** One end's signature over the transcript, 64 bytes. */
export function signTranscript(pair: KeyPair, side: AuthSide, transcript: Uint8Array): Uint8Array {
  return signBytes(pair, hashParts(`mycelium/quic-auth-${side}/v1`, transcript));
}

/** Whether a signature is that end's over the transcript. Never throws. */
export function verifyTranscript(
  publicKey: Uint8Array,
  side: AuthSide,
  transcript: Uint8Array,
  signature: Uint8Array,
): boolean {
  return verifySignature(publicKey, hashParts(`mycelium/quic-auth-${side}/v1`, transcript), signature);
}

/** 32 bytes that the two ends of this one channel share and no other channel has. */
export function channelBindingOf(transcript: Uint8Array): Uint8Array {
  return hashParts("mycelium/channel-binding/v1", transcript);
}

/** Whether a dialer claims the key of the server itself: a reflection, or a node that found its own address. */
export function isSelf(hello: AuthHello, serverKey: Uint8Array): boolean {
  return equalBytes(hello.clientKey, serverKey);
}
