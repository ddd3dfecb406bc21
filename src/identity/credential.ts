/**
 * Membership credentials: an issuer's word, for a day, that a node key belongs to the network.
 *
 * @module
 */

import { equalBytes } from "../core/bytes.ts";
import { bytes, decodeAs, optional, record, text, uint, WireError } from "../core/codec.ts";
import { hashParts, type KeyPair } from "../core/crypto.ts";
import { type Envelope, openEnvelope, sealEnvelope } from "../core/envelope.ts";
import { LIMITS } from "../core/limits.ts";
import { readRole, type Role } from "../core/roles.ts";
import { type AuthorityChain, CLOCK_SKEW_MS } from "./authority.ts";
import type { RevocationSet } from "./revocation.ts";

/** What an issuer says about a node. */
export interface Credential {
  /** First 8 bytes of the network id: tells a foreign credential from a forged one. */
  readonly network: Uint8Array;
  /** Ed25519 node key, 32 bytes. */
  readonly subject: Uint8Array;
  /** Name of the node, a DNS name in lower case (RFC 1123), at most 63 characters. */
  readonly name: string;
  readonly role: Role;
  /** Resource pool, a DNS label. */
  readonly pool: string;
  readonly issuedMs: number;
  /** First millisecond at which it counts no longer. */
  readonly expiresMs: number;
  /** Authority epoch in which it was issued. */
  readonly epoch: number;
  /** Invite by which the node joined, 16 bytes: uses of an invite are counted by it. Missing for the founder. */
  readonly via?: Uint8Array;
}

/** How long a credential counts. It is renewed after two thirds of that. */
export const CREDENTIAL_LIFETIME_MS = 24 * 3_600_000;

/**
 * Longest life that a verifier accepts, whoever signed: a stolen issuer key is worth that much and no more.
 * Twice the usual one, so that the usual one may change while a network runs two versions.
 */
export const CREDENTIAL_LIFETIME_MS_MAX: number = 2 * CREDENTIAL_LIFETIME_MS;

export { CLOCK_SKEW_MS };

/** Why a credential does not count. Stable: these are metric labels. */
export type CredentialRefusal =
  | "malformed"
  | "foreign-network"
  | "tampered"
  | "unknown-issuer"
  | "wrong-subject"
  | "not-yet-valid"
  | "expired"
  | "revoked";

const TYPE = "credential/1";

const readCredential = record({
  net: bytes({ length: 8 }),
  subject: bytes({ length: 32 }),
  name: text(LIMITS.nameCharsMax, /^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/),
  role: readRole,
  pool: text(LIMITS.nameCharsMax, /^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/),
  issued: uint(),
  expires: uint(),
  epoch: uint(),
  via: optional(bytes({ length: 16 })),
});

/**
 * Signs a credential.
 *
 * @throws {WireError} When a field is not what verifiers accept, for example a name that a newcomer asked for.
 */
export function issueCredential(
  credential: Omit<Credential, "network">,
  networkId: Uint8Array,
  issuer: KeyPair,
): Envelope {
  const envelope = sealEnvelope({
    net: networkId.subarray(0, 8),
    subject: credential.subject,
    name: credential.name,
    role: credential.role,
    pool: credential.pool,
    issued: credential.issuedMs,
    expires: credential.expiresMs,
    epoch: credential.epoch,
    via: credential.via,
  }, { type: TYPE, networkId, signer: issuer });
  openCredential(envelope, networkId);
  return envelope;
}

/** Options of {@linkcode verifyCredential}. */
export interface VerifyCredentialOptions {
  readonly chain: AuthorityChain;
  readonly revocations: RevocationSet;
  readonly nowMs: number;
  /** Key that the channel proved; the credential must be about it. */
  readonly subject?: Uint8Array;
  /** Accept one that has expired (a node asking for renewal). */
  readonly allowExpired?: boolean;
}

/** Result of {@linkcode verifyCredential}. */
export type VerifiedCredential =
  | { readonly ok: true; readonly credential: Credential }
  | { readonly ok: false; readonly reason: CredentialRefusal };

/** Checks a credential: network, signature, issuer, subject, revocation and time, in this order. */
export function verifyCredential(envelope: Envelope, options: VerifyCredentialOptions): VerifiedCredential {
  const { chain, revocations, nowMs, subject } = options;
  let credential: Credential;
  try {
    credential = openCredential(envelope, chain.networkId);
  } catch (error) {
    if (!(error instanceof WireError)) throw error;
    return { ok: false, reason: refusalOf(envelope, chain.networkId) };
  }
  const refuse = (reason: CredentialRefusal) => ({ ok: false, reason }) as const;
  if (!chain.counts(envelope.signer, credential.issuedMs)) return refuse("unknown-issuer");
  // An issuer that was removed stays in the chain until the others have signed the next epoch: what it dates
  // after its removal does not count, what it issued before goes on until it runs out.
  const removed = revocations.get("node", envelope.signer);
  if (removed && credential.issuedMs > removed.atMs + CLOCK_SKEW_MS) return refuse("unknown-issuer");
  if (subject && !equalBytes(subject, credential.subject)) return refuse("wrong-subject");
  if (revocations.get("node", credential.subject)) return refuse("revoked");
  if (credential.issuedMs > nowMs + CLOCK_SKEW_MS) return refuse("not-yet-valid");
  if (credential.expiresMs <= nowMs && !options.allowExpired) return refuse("expired");
  return { ok: true, credential };
}

/**
 * Reads a credential and checks its signature, not whether its signer may issue nor its time.
 *
 * @throws {WireError} When it is malformed or not validly signed in this network.
 */
export function openCredential(envelope: Envelope, networkId: Uint8Array): Credential {
  const read = openEnvelope(envelope, { type: TYPE, networkId, reader: readCredential });
  if (!equalBytes(read.net, networkId.subarray(0, 8))) {
    throw new WireError("Cannot open credential: it names another network than the one that it is signed for");
  }
  const lifeMs = read.expires - read.issued;
  if (lifeMs <= 0 || lifeMs > CREDENTIAL_LIFETIME_MS_MAX) {
    throw new WireError(`Cannot open credential: its life is ${lifeMs} ms, wanted 1 to ${CREDENTIAL_LIFETIME_MS_MAX}`);
  }
  return {
    network: read.net,
    subject: read.subject,
    name: read.name,
    role: read.role,
    pool: read.pool,
    issuedMs: read.issued,
    expiresMs: read.expires,
    epoch: read.epoch,
    ...(read.via ? { via: read.via } : {}),
  };
}

/** When a credential should be renewed: after two thirds of its life, spread by node over a sixth of it. */
export function renewAtMs(credential: Credential): number {
  const known = RENEW_AT_MS.get(credential);
  if (known !== undefined) return known;
  const life = credential.expiresMs - credential.issuedMs;
  const spread = hashParts("mycelium/renew/v1", credential.subject)[0]! / 256;
  const atMs = credential.issuedMs + Math.floor((life * 2) / 3 + (life / 6) * spread);
  RENEW_AT_MS.set(credential, atMs);
  return atMs;
}

/** A node asks at every step. */
const RENEW_AT_MS = new WeakMap<Credential, number>();

/** Which word of refusal helps the person who reads it. The payload is not trusted here. */
function refusalOf(envelope: Envelope, networkId: Uint8Array): CredentialRefusal {
  if (envelope.type !== TYPE) return "malformed";
  try {
    const { net, issued, expires } = decodeAs(envelope.payload, readCredential, LIMITS.recordBytesMax);
    if (!equalBytes(net, networkId.subarray(0, 8))) return "foreign-network";
    return expires <= issued || expires - issued > CREDENTIAL_LIFETIME_MS_MAX ? "malformed" : "tampered";
  } catch (error) {
    if (!(error instanceof WireError)) throw error;
    return "malformed";
  }
}
