/** Members of a network that exists on paper only: really signed. @module */

import { utf8 } from "../../src/core/bytes.ts";
import type { Capabilities } from "../../src/core/capabilities.ts";
import { type KeyPair, keyPairFromSeed, sha256 } from "../../src/core/crypto.ts";
import { sealEnvelope } from "../../src/core/envelope.ts";
import { nodeIdOf } from "../../src/core/ids.ts";
import { type MemberRecord, sealMember } from "../../src/membership/record.ts";
import type { Member } from "../../src/membership/table.ts";

export const NETWORK_ID: Uint8Array = sha256(utf8("membership test network"));
export const OTHER_NETWORK_ID: Uint8Array = sha256(utf8("membership test network 2"));

export const CAPABILITIES: Capabilities = {
  cpus: 4,
  memoryBytes: 8 * 2 ** 30,
  diskBytes: 100 * 2 ** 30,
  diskFreeBytes: 60 * 2 ** 30,
  arch: "x86_64",
  os: "Debian 13",
  kernel: "6.12",
  systemd: true,
  battery: false,
  hashesPerSecond: 400_000,
};

export const RECORD: MemberRecord = {
  seq: 1,
  name: "node-1",
  role: "rhizomorph",
  addresses: ["/ip4/10.0.0.1/udp/4871/quic-v1"],
  capabilities: CAPABILITIES,
  version: "0.1.0",
  startedMs: 1_000,
  left: false,
  drained: false,
};

/** The key that follows from a number. */
export function keyOf(n: number): KeyPair {
  return keyPairFromSeed(sha256(utf8(`membership test ${n}`)));
}

const ROWS = new Map<string, Member>();

/** A row of node `n` with this `seq` and credential date; the same arguments give the same row. */
export function rowOf(n: number, seq: number, issuedMs: number, via = 0, version = "0.1.0"): Member {
  const name = `${n} ${seq} ${issuedMs} ${via} ${version}`;
  const known = ROWS.get(name);
  if (known) return known;
  const key = keyOf(n);
  const record = { ...RECORD, seq, name: `node-${n}`, version };
  const row: Member = {
    nodeId: nodeIdOf(key.publicKey),
    publicKey: key.publicKey,
    record,
    recordEnvelope: sealMember(record, NETWORK_ID, key),
    membership: {
      name: `node-${n}`,
      role: "rhizomorph",
      pool: "default",
      issuedMs,
      expiresMs: issuedMs + 86_400_000,
      ...(via > 0 ? { via: new Uint8Array(16).fill(via) } : {}),
    },
    credentialEnvelope: sealEnvelope({ n, issuedMs, version }, {
      type: "credential/1",
      networkId: NETWORK_ID,
      signer: keyOf(0),
    }),
  };
  ROWS.set(name, row);
  return row;
}
