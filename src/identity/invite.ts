/**
 * Invites: `myc1…`, the one thing that a person carries from a network to a new machine.
 *
 * An invite holds a secret key of its own. The issuer signs a grant for the matching public key, so that
 * any issuer can check the grant and the newcomer's signature, and the secret itself never travels.
 *
 * @module
 */

import { concatBytes, equalBytes, fromBase64Url, toBase64Url } from "../core/bytes.ts";
import { array, bool, bytes, decodeCbor, encodeCbor, optional, record, text, uint, WireError } from "../core/codec.ts";
import { hashParts, type KeyPair, keyPairFromSeed, sha256 } from "../core/crypto.ts";
import { type Envelope, envelopeValue, openEnvelope, readEnvelope, sealEnvelope } from "../core/envelope.ts";
import { readAddress } from "../core/ids.ts";
import { LIMITS } from "../core/limits.ts";
import { readRole, type Role } from "../core/roles.ts";

/** What an issuer allows the holder of an invite. */
export interface InviteGrant {
  /** 16 bytes, derived from the key. */
  readonly id: Uint8Array;
  /** Ed25519 public key of the invite, 32 bytes. */
  readonly key: Uint8Array;
  /** Role that the newcomer may take; missing: whatever its machine is fit for, except Sclerotium. */
  readonly role?: Role;
  /** Resource pool that the newcomer enters. */
  readonly pool: string;
  /** Machines that may join with it, at least 1. */
  readonly uses: number;
  readonly createdMs: number;
  /** First millisecond at which it counts no longer. */
  readonly expiresMs: number;
  /** Whether an operator has to approve each join as well. */
  readonly approval: boolean;
}

/** An invite as its holder has it. */
export interface Invite {
  readonly networkId: Uint8Array;
  /** Key to the network's beacons and to its TCP transport; no proof of membership. 32 bytes. */
  readonly discoverySecret: Uint8Array;
  /** Secret half of the invite's key. */
  readonly keyPair: KeyPair;
  /** Grant in its envelope, for the registrar. */
  readonly grantEnvelope: Envelope;
  readonly grant: InviteGrant;
  /** Multiaddrs where the network was last seen, at most 8. */
  readonly addresses: readonly string[];
  /**
   * Newest authority epoch when it was made: a chain that lacks it is an old one, shown perhaps by an issuer
   * that was removed since.
   */
  readonly anchor: { readonly epoch: number; readonly hash: Uint8Array };
}

const TYPE = "invite/1";
const PREFIX = "myc1";
/** Room for 8 of the longest addresses: what was made can be read. */
const TOKEN_CHARS_MAX = 6_144;

const readGrant = record({
  key: bytes({ length: 32 }),
  role: optional(readRole),
  pool: text(LIMITS.nameCharsMax, /^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/),
  uses: uint(100_000, 1),
  created: uint(),
  expires: uint(),
  approval: bool,
});

const readToken = record({
  n: bytes({ length: 32 }),
  d: bytes({ length: 32 }),
  k: bytes({ length: 32 }),
  g: readEnvelope,
  a: array(readAddress, 8),
  e: uint(4_096),
  h: bytes({ length: 32 }),
});

/** Makes an invite: signs the grant for the public half of `seed` (32 random bytes). */
export function createInvite(
  options: Omit<InviteGrant, "id" | "key"> & {
    readonly seed: Uint8Array;
    readonly networkId: Uint8Array;
    readonly discoverySecret: Uint8Array;
    readonly addresses: readonly string[];
    readonly anchor: Invite["anchor"];
    readonly issuer: KeyPair;
  },
): Invite {
  const keyPair = keyPairFromSeed(options.seed);
  const grantEnvelope = sealEnvelope({
    key: keyPair.publicKey,
    role: options.role,
    pool: options.pool,
    uses: options.uses,
    created: options.createdMs,
    expires: options.expiresMs,
    approval: options.approval,
  }, { type: TYPE, networkId: options.networkId, signer: options.issuer });
  return {
    networkId: options.networkId,
    discoverySecret: options.discoverySecret,
    keyPair,
    grantEnvelope,
    grant: openGrant(grantEnvelope, options.networkId),
    addresses: options.addresses.slice(0, 8),
    anchor: options.anchor,
  };
}

/**
 * Reads a grant and checks its signature, not whether its signer may issue nor its time.
 *
 * @throws {WireError} When it is malformed or not validly signed in this network.
 */
export function openGrant(envelope: Envelope, networkId: Uint8Array): InviteGrant {
  const read = openEnvelope(envelope, { type: TYPE, networkId, reader: readGrant });
  return {
    id: hashParts("mycelium/invite-id/v1", read.key).slice(0, 16),
    key: read.key,
    ...(read.role ? { role: read.role } : {}),
    pool: read.pool,
    uses: read.uses,
    createdMs: read.created,
    expiresMs: read.expires,
    approval: read.approval,
  };
}

/** The text of an invite: `myc1`, then base64url of its CBOR and four bytes of checksum. */
export function formatInvite(invite: Invite): string {
  const body = encodeCbor({
    n: invite.networkId,
    d: invite.discoverySecret,
    k: invite.keyPair.seed,
    g: envelopeValue(invite.grantEnvelope),
    a: invite.addresses,
    e: invite.anchor.epoch,
    h: invite.anchor.hash,
  });
  return PREFIX + toBase64Url(concatBytes(body, sha256(body).subarray(0, 4)));
}

/**
 * Reads the text of an invite; white space around and inside it (a wrapped line) does not matter.
 *
 * @throws {WireError} Saying whether it is no invite, cut off or changed.
 */
export function parseInvite(input: string): Invite {
  const token = input.length <= 2 * TOKEN_CHARS_MAX ? input.replace(/\s+/g, "") : "";
  if (!token.startsWith(PREFIX)) {
    throw new WireError(
      `Cannot read invite: wanted a text that starts with "${PREFIX}"; get one with "mycelium invite create"`,
    );
  }
  const raw = token.length <= TOKEN_CHARS_MAX ? fromBase64Url(token.slice(PREFIX.length)) : undefined;
  const body = raw && raw.length > 4 ? raw.subarray(0, raw.length - 4) : undefined;
  if (!raw || !body || !equalBytes(sha256(body).subarray(0, 4), raw.subarray(raw.length - 4))) {
    throw new WireError("Cannot read invite: it is cut off or was changed on the way; copy it whole");
  }
  const read = readToken(decodeCbor(body, TOKEN_CHARS_MAX), "invite");
  const keyPair = keyPairFromSeed(read.k);
  const grant = openGrant(read.g, read.n);
  if (!equalBytes(grant.key, keyPair.publicKey)) {
    throw new WireError("Cannot read invite: its grant is for another key");
  }
  return {
    networkId: read.n,
    discoverySecret: read.d,
    keyPair,
    grantEnvelope: read.g,
    grant,
    addresses: read.a,
    anchor: { epoch: read.e, hash: read.h },
  };
}
