import assert from "node:assert/strict";
import fc from "fast-check";
import { InvariantError } from "../../src/core/assert.ts";
import { type CborValue, decodeAs, decodeCbor, encodeCbor, WireError } from "../../src/core/codec.ts";
import { envelopeValue, readEnvelope, sealEnvelope } from "../../src/core/envelope.ts";
import { createGenesis, networkIdOf, verifyGenesis } from "../../src/identity/genesis.ts";
import { GENESIS, GENESIS_ENVELOPE, GENESIS_KEY, keyOf, NETWORK_ID, OTHER_NETWORK_ID } from "./fixture.ts";

Deno.test("[2.1a] the network id is the hash of the genesis record: any other name, key, date or nonce is another network", () => {
  assert.deepEqual(verifyGenesis(GENESIS_ENVELOPE, NETWORK_ID), GENESIS);
  assert.deepEqual(networkIdOf(GENESIS_ENVELOPE.payload), NETWORK_ID);
  const other = keyOf("other");
  const ids = [
    NETWORK_ID,
    createGenesis({ ...GENESIS, name: "forest2" }, GENESIS_KEY).networkId,
    createGenesis({ ...GENESIS, operatorKey: other.publicKey }, GENESIS_KEY).networkId,
    createGenesis({ ...GENESIS, genesisKey: other.publicKey }, other).networkId,
    createGenesis({ ...GENESIS, createdMs: GENESIS.createdMs + 1 }, GENESIS_KEY).networkId,
    OTHER_NETWORK_ID,
  ];
  assert.equal(new Set(ids.map(String)).size, ids.length);
});

Deno.test("[2.1a] [2.1d] verifyGenesis() refuses a record of another network and one that the genesis key did not sign", () => {
  assert.throws(() => verifyGenesis(GENESIS_ENVELOPE, OTHER_NETWORK_ID), /another network/);
  // The right payload, signed by somebody else: the id fits, the signer does not.
  const value = decodeCbor(GENESIS_ENVELOPE.payload);
  const forged = sealEnvelope(value, { type: "genesis/1", networkId: NETWORK_ID, signer: keyOf("thief") });
  assert.throws(() => verifyGenesis(forged, NETWORK_ID), /not signed by the genesis key/);
  assert.throws(() => verifyGenesis({ ...GENESIS_ENVELOPE, signature: new Uint8Array(64) }, NETWORK_ID), WireError);
  assert.throws(() => verifyGenesis({ ...GENESIS_ENVELOPE, type: "genesis/2" }, NETWORK_ID), WireError);
});

Deno.test("[2.1a] verifyGenesis() refuses each flipped bit of the record, also where the id is computed from the changed one", () => {
  const wire = encodeCbor(envelopeValue(GENESIS_ENVELOPE));
  for (let bit = 0; bit < 8 * wire.length; bit++) {
    const changed = wire.slice();
    changed[bit >> 3]! ^= 1 << (bit & 7);
    assert.throws(
      () => {
        const envelope = decodeAs(changed, readEnvelope);
        try {
          verifyGenesis(envelope, NETWORK_ID);
        } catch (error) {
          if (!(error instanceof WireError)) throw error;
          verifyGenesis(envelope, networkIdOf(envelope.payload));
        }
      },
      WireError,
      `bit ${bit}`,
    );
  }
});

Deno.test("[10.1a] verifyGenesis() fuzz: any value, signed by any key as genesis of its own network, reads or is a WireError", () => {
  const field = fc.oneof(fc.string(), fc.integer(), fc.uint8Array({ maxLength: 40 }), fc.boolean(), fc.constant(null));
  const shape = fc.record({ name: field, genesis: field, operator: field, created: field, nonce: field }, {
    requiredKeys: [],
  });
  const signer = keyOf("fuzz");
  fc.assert(fc.property(shape, fc.boolean(), (fields, fits) => {
    const value = { ...fields, ...(fits ? { genesis: signer.publicKey } : {}) } as CborValue;
    const networkId = networkIdOf(encodeCbor(value));
    const envelope = sealEnvelope(value, { type: "genesis/1", networkId, signer });
    try {
      const read = verifyGenesis(envelope, networkId);
      assert.match(read.name, /^[a-z0-9-]{1,63}$/);
    } catch (error) {
      assert.ok(error instanceof WireError, String(error));
    }
  }));
});

Deno.test("createGenesis() makes nothing that verifyGenesis() would refuse", () => {
  for (const name of ["", "Forest", "a.b", "-a", "a-", "a\n", "ä", "a".repeat(64)]) {
    assert.throws(() => createGenesis({ ...GENESIS, name }, GENESIS_KEY), WireError, name);
  }
  assert.throws(() => createGenesis({ ...GENESIS, nonce: new Uint8Array(15) }, GENESIS_KEY), WireError);
  assert.throws(() => createGenesis(GENESIS, keyOf("other")), InvariantError);
});

Deno.test("networkIdOf() refuses a second spelling of one record, which would be a second id of one network", () => {
  assert.throws(() => networkIdOf(Uint8Array.of(...GENESIS_ENVELOPE.payload, 0)), WireError);
  assert.throws(() => networkIdOf(Uint8Array.of(0xb8, 5, ...GENESIS_ENVELOPE.payload.subarray(1))), WireError);
});
