/** The network profile: what an issuer signs for everybody, and the assignments of services to nodes. @module */

import { bool, bytes, oneOf, record, text, uint } from "../core/codec.ts";
import type { KeyPair } from "../core/crypto.ts";
import { type Envelope, openEnvelope, sealEnvelope } from "../core/envelope.ts";
import { LIMITS } from "../core/limits.ts";

/** Settings of the whole network. The higher `seq` wins, then the greater hash. */
export interface Profile {
  readonly seq: number;
  /** Name for people. */
  readonly name: string;
  /** Whether an operator approves each join, whatever the invite says. */
  readonly approval: boolean;
  readonly issuedMs: number;
}

const PROFILE = "profile/1";

const readProfile = record({
  seq: uint(),
  name: text(LIMITS.nameCharsMax),
  approval: bool,
  issued: uint(),
});

/** Signs a profile. */
export function sealProfile(profile: Profile, networkId: Uint8Array, issuer: KeyPair): Envelope {
  const { seq, name, approval, issuedMs } = profile;
  return sealEnvelope({ seq, name, approval, issued: issuedMs }, { type: PROFILE, networkId, signer: issuer });
}

/**
 * Reads a profile and checks its signature, not whether its signer may issue.
 *
 * @throws {WireError} When it is malformed or not validly signed in this network.
 */
export function openProfile(envelope: Envelope, networkId: Uint8Array): Profile {
  const { seq, name, approval, issued } = openEnvelope(envelope, { type: PROFILE, networkId, reader: readProfile });
  return { seq, name, approval, issuedMs: issued };
}

/** That a node shall run a service, or no longer. Signed by an issuer. */
export interface Assignment {
  /** Stable name of the assignment, unique in the network. */
  readonly id: string;
  /** Rises with every change. */
  readonly seq: number;
  readonly service: string;
  /** Node that it is for: its key. */
  readonly node: Uint8Array;
  readonly action: "run" | "stop";
  /** Specification as CBOR, opaque here. */
  readonly spec: Uint8Array;
  readonly issuedMs: number;
}

const ASSIGNMENT = "assignment/1";

const readAssignment = record({
  id: text(LIMITS.nameCharsMax, /^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/),
  seq: uint(),
  service: text(LIMITS.nameCharsMax, /^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/),
  node: bytes({ length: 32 }),
  action: oneOf(["run", "stop"]),
  spec: bytes({ max: 8 << 10 }),
  issued: uint(),
});

/** Signs an assignment. */
export function sealAssignment(assignment: Assignment, networkId: Uint8Array, issuer: KeyPair): Envelope {
  const { id, seq, service, node, action, spec, issuedMs } = assignment;
  return sealEnvelope({ id, seq, service, node, action, spec, issued: issuedMs }, {
    type: ASSIGNMENT,
    networkId,
    signer: issuer,
  });
}

/**
 * Reads an assignment and checks its signature, not whether its signer may issue.
 *
 * @throws {WireError} When it is malformed or not validly signed in this network.
 */
export function openAssignment(envelope: Envelope, networkId: Uint8Array): Assignment {
  const { issued, ...rest } = openEnvelope(envelope, { type: ASSIGNMENT, networkId, reader: readAssignment });
  return { ...rest, issuedMs: issued };
}
