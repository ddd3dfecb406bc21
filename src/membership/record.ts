/** Member records: what a node says of itself, signed by itself. @module */

import { type Capabilities, capabilitiesValue, readCapabilities } from "../core/capabilities.ts";
import { array, bool, record, text, uint } from "../core/codec.ts";
import type { KeyPair } from "../core/crypto.ts";
import { type Envelope, openEnvelope, sealEnvelope } from "../core/envelope.ts";
import { readAddress } from "../core/ids.ts";
import { LIMITS } from "../core/limits.ts";
import { readRole, type Role } from "../core/roles.ts";

/** What a node says of itself. Its key is the signer of the envelope. */
export interface MemberRecord {
  /** Rises with every change and every start; survives restarts. The higher one wins. */
  readonly seq: number;
  /** Name that the node would like; the credential says which it has. */
  readonly name: string;
  /** Role that the node would like; the credential says which it has. */
  readonly role: Role;
  /** Multiaddrs where it listens, the best first. */
  readonly addresses: readonly string[];
  readonly capabilities: Capabilities;
  /** Version of the program. */
  readonly version: string;
  readonly startedMs: number;
  /** Whether it left for good: others forget it after a while and do not call it dead. */
  readonly left: boolean;
  /** Whether it takes no new work. */
  readonly drained: boolean;
}

const TYPE = "member/1";

const readMember = record({
  seq: uint(),
  name: text(LIMITS.nameCharsMax, /^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/),
  role: readRole,
  addr: array(readAddress, LIMITS.addressesPerNodeMax),
  can: readCapabilities,
  ver: text(64),
  start: uint(),
  left: bool,
  drained: bool,
});

/** Signs a member record. */
export function sealMember(member: MemberRecord, networkId: Uint8Array, node: KeyPair): Envelope {
  return sealEnvelope({
    seq: member.seq,
    name: member.name,
    role: member.role,
    addr: member.addresses,
    can: capabilitiesValue(member.capabilities),
    ver: member.version,
    start: member.startedMs,
    left: member.left,
    drained: member.drained,
  }, { type: TYPE, networkId, signer: node });
}

/**
 * Reads a member record and checks its signature.
 *
 * @throws {WireError} When it is malformed or not validly signed in this network.
 */
export function openMember(envelope: Envelope, networkId: Uint8Array): MemberRecord {
  const read = openEnvelope(envelope, { type: TYPE, networkId, reader: readMember });
  return {
    seq: read.seq,
    name: read.name,
    role: read.role,
    addresses: read.addr,
    capabilities: read.can,
    version: read.ver,
    startedMs: read.start,
    left: read.left,
    drained: read.drained,
  };
}
