import assert from "node:assert/strict";
import fc from "fast-check";
import { decodeAs, encodeCbor, record, text, uint, WireError } from "../../src/core/codec.ts";
import { keyPairFromSeed, sha256 } from "../../src/core/crypto.ts";
import {
  type Envelope,
  envelopeHash,
  envelopeValue,
  openEnvelope,
  readEnvelope,
  sealEnvelope,
} from "../../src/core/envelope.ts";
import { LIMITS } from "../../src/core/limits.ts";

const NETWORK = sha256(Uint8Array.of(1));
const OTHER_NETWORK = sha256(Uint8Array.of(2));
const SIGNER = keyPairFromSeed(sha256(Uint8Array.of(3)));
const reader = record({ a: uint(), b: text(20) });
const open = (envelope: Envelope, networkId = NETWORK, type = "thing/1") =>
  openEnvelope(envelope, { type, networkId, reader });
const seal = (value = { a: 1, b: "x" }) => sealEnvelope(value, { type: "thing/1", networkId: NETWORK, signer: SIGNER });

Deno.test("an envelope opens in its network as its type, and comes back from the wire", () => {
  const envelope = seal();
  assert.deepEqual({ ...open(envelope) }, { a: 1, b: "x" });
  const back = decodeAs(encodeCbor(envelopeValue(envelope)), readEnvelope);
  assert.deepEqual(back, envelope);
  assert.deepEqual({ ...open(back) }, { a: 1, b: "x" });
});

Deno.test("[2.1a] [2.1d] openEnvelope() refuses a record of another network, of another type, and one whose type was changed", () => {
  const envelope = seal();
  assert.throws(() => open(envelope, OTHER_NETWORK), /not valid in this network/);
  assert.throws(() => open(envelope, NETWORK, "thing/2"), /wanted type "thing\/2"/);
  assert.throws(() => open({ ...envelope, type: "thing/2" }, NETWORK, "thing/2"), WireError);
  // What is signed says where the type ends and the payload starts.
  assert.throws(() => open({ ...envelope, type: "thing/" }, NETWORK, "thing/"), WireError);
});

Deno.test("[10.5b] openEnvelope() refuses each flipped bit of payload, signer and signature", () => {
  const envelope = seal();
  for (const part of ["payload", "signer", "signature"] as const) {
    for (let bit = 0; bit < 8 * envelope[part].length; bit++) {
      const changed = envelope[part].slice();
      changed[bit >> 3]! ^= 1 << (bit & 7);
      assert.throws(() => open({ ...envelope, [part]: changed }), WireError, `${part}, bit ${bit}`);
    }
  }
});

Deno.test("openEnvelope() refuses a signed payload that does not read", () => {
  assert.throws(
    () => open(sealEnvelope({ a: -1, b: "x" }, { type: "thing/1", networkId: NETWORK, signer: SIGNER })),
    /thing\/1\.a/,
  );
  assert.throws(() => open(sealEnvelope([1], { type: "thing/1", networkId: NETWORK, signer: SIGNER })), WireError);
});

Deno.test("sealEnvelope() refuses what no reader would take: too long, or without a deterministic form", () => {
  const options = { type: "thing/1", networkId: NETWORK, signer: SIGNER };
  assert.throws(() => sealEnvelope({ b: new Uint8Array(LIMITS.recordBytesMax) }, options), /at most 16384/);
  assert.throws(() => sealEnvelope({ a: 1.5 }, options), WireError);
});

Deno.test("[10.1a] readEnvelope() fuzz: any changed byte on the wire is refused, as malformed or as not signed", () => {
  const wire = encodeCbor(envelopeValue(seal()));
  fc.assert(
    fc.property(fc.nat(wire.length - 1), fc.integer({ min: 1, max: 255 }), (at, mask) => {
      const changed = wire.slice();
      changed[at]! ^= mask;
      assert.throws(() => open(decodeAs(changed, readEnvelope)), WireError);
    }),
    { numRuns: 500 },
  );
});

Deno.test("envelopeHash() differs by type, payload and signer, and is the same for every signature of one record", () => {
  const envelope = seal();
  const hashes = [
    envelope,
    { ...envelope, type: "thing/2" },
    seal({ a: 2, b: "x" }),
    { ...envelope, signer: NETWORK },
  ].map((one) => envelopeHash(one).join());
  assert.equal(new Set(hashes).size, 4);
  assert.deepEqual(envelopeHash({ ...envelope, signature: new Uint8Array(64) }), envelopeHash(envelope));
});
