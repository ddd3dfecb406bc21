/** Invites for tests: really signed, of a network that does not exist. @module */

import { keyPairFromSeed, sha256 } from "../../src/core/crypto.ts";
import { utf8 } from "../../src/core/bytes.ts";
import { createInvite, formatInvite } from "../../src/identity/invite.ts";

/** A whole invite that is good until `expiresMs`. */
export function testInvite(expiresMs: number): string {
  const options = {
    seed: sha256(utf8("invite")),
    networkId: sha256(utf8("network")),
    discoverySecret: sha256(utf8("secret")),
    issuer: keyPairFromSeed(sha256(utf8("issuer"))),
    addresses: ["/ip4/192.0.2.7/udp/4871/quic-v1"],
    pool: "default",
    uses: 1,
    createdMs: expiresMs - 86_400_000,
    expiresMs,
    approval: false,
    anchor: { epoch: 0, hash: sha256(utf8("epoch")) },
  };
  return formatInvite(createInvite(options));
}
