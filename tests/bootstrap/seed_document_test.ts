import assert from "node:assert/strict";
import fc from "fast-check";
import {
  decodeSeed,
  exportSeed,
  SEED_ADDRESSES_MAX,
  SEED_BYTES_MAX,
  seedBytes,
  type SeedDocument,
} from "../../src/bootstrap/seed_document.ts";
import { fromBase64Url, utf8 } from "../../src/core/bytes.ts";
import { decodeCbor, encodeCbor, WireError } from "../../src/core/codec.ts";
import { keyPairFromSeed } from "../../src/core/crypto.ts";
import { nodeIdOf } from "../../src/core/ids.ts";

const NOW = 1_800_000_000_000;
const NETWORK = new Uint8Array(32).fill(7);
const ISSUER = keyPairFromSeed(new Uint8Array(32).fill(1));
const STRANGER = keyPairFromSeed(new Uint8Array(32).fill(2));
const ADDRESS = `/ip4/10.0.0.1/udp/4871/quic-v1/p2p/${nodeIdOf(ISSUER.publicKey)}`;
const DOCUMENT: SeedDocument = {
  networkId: NETWORK,
  addresses: [ADDRESS, "/dns/spore.example.org/tcp/4871"],
  issuedMs: NOW - 1_000,
  expiresMs: NOW + 1_000,
  seq: 4,
};

function decode(bytes: Uint8Array, change: Partial<Parameters<typeof decodeSeed>[1]> = {}) {
  return decodeSeed(bytes, { networkId: NETWORK, signers: [ISSUER.publicKey], nowMs: NOW, ...change });
}

Deno.test("[1.1d] a seed document reads as text, with white space around it, and raw", () => {
  const spelled = exportSeed(DOCUMENT, ISSUER);
  for (const form of [utf8(spelled), utf8(`\r\n  ${spelled}\n`), fromBase64Url(spelled.trim())!]) {
    const result = decode(form);
    assert.ok(result.ok);
    assert.deepEqual(result.document, DOCUMENT);
    assert.equal(result.stale, false);
    assert.deepEqual(result.signer, ISSUER.publicKey);
  }
});

Deno.test("[1.1d] an expired seed document is stale, not refused", () => {
  const result = decode(seedBytes(DOCUMENT, ISSUER), { nowMs: DOCUMENT.expiresMs });
  assert.ok(result.ok && result.stale);
});

Deno.test("[1.1d] strangers, other networks, rollbacks and forgeries are refused, each with its reason", () => {
  const reason = (bytes: Uint8Array, change: Partial<Parameters<typeof decodeSeed>[1]> = {}) => {
    const result = decode(bytes, change);
    return result.ok ? "ok" : result.reason;
  };
  const good = seedBytes(DOCUMENT, ISSUER);
  assert.equal(reason(seedBytes(DOCUMENT, STRANGER)), "unknown-signer");
  assert.equal(reason(good, { signers: [] }), "unknown-signer");
  assert.equal(reason(seedBytes({ ...DOCUMENT, networkId: new Uint8Array(32).fill(8) }, ISSUER)), "foreign");
  assert.equal(reason(good, { seqSeen: () => 5 }), "rollback");
  assert.equal(reason(good, { seqSeen: () => 4 }), "ok");
  assert.equal(reason(new Uint8Array(SEED_BYTES_MAX + 1)), "oversize");
  assert.equal(reason(utf8("<html>it works!</html>")), "malformed");

  const envelope = decodeCbor(fromBase64Url(exportSeed(DOCUMENT, ISSUER).trim())!) as { [key: string]: Uint8Array };
  const payload = decodeCbor(envelope.p!) as { [key: string]: never };
  const changed = encodeCbor({ ...envelope, p: encodeCbor({ ...payload, a: ["/ip4/6.6.6.6/tcp/1"] }) });
  assert.equal(reason(changed), "bad-signature");
  // Signed as another type of record: not a seed document.
  assert.equal(reason(encodeCbor({ ...envelope, t: "member/1" } as never)), "bad-signature");
});

Deno.test("decodeSeed() survives any bytes and any change of one byte", () => {
  const raw = fromBase64Url(exportSeed(DOCUMENT, ISSUER).trim())!;
  fc.assert(fc.property(fc.uint8Array({ maxLength: 600 }), (bytes) => assert.equal(decode(bytes).ok, false)));
  fc.assert(fc.property(fc.nat(raw.length - 1), fc.integer({ min: 1, max: 255 }), (at, flip) => {
    const bytes = raw.slice();
    bytes[at]! ^= flip;
    assert.equal(decode(bytes).ok, false);
  }));
});

Deno.test("exportSeed() refuses what it could not read again", () => {
  assert.throws(() => exportSeed({ ...DOCUMENT, addresses: ["http://x"] }, ISSUER), WireError);
  const many = Array.from({ length: SEED_ADDRESSES_MAX + 1 }, () => ADDRESS);
  assert.throws(() => exportSeed({ ...DOCUMENT, addresses: many }, ISSUER), WireError);
  assert.ok(decode(seedBytes({ ...DOCUMENT, addresses: many.slice(1) }, ISSUER)).ok);
});
