import assert from "node:assert/strict";
import { WireError } from "../../src/core/codec.ts";
import { sealEnvelope } from "../../src/core/envelope.ts";
import { openDecision, sealDecision } from "../../src/identity/decision.ts";
import { GENESIS_KEY, keyOf, NETWORK_ID, OTHER_NETWORK_ID, seedOf } from "./fixture.ts";

const DECISION = { epoch: 3, hash: seedOf("epoch"), seq: 9, recoveredMs: 0 };
const envelope = sealDecision(DECISION, NETWORK_ID, GENESIS_KEY);
const open = (one: typeof envelope, networkId = NETWORK_ID) => openDecision(one, networkId, GENESIS_KEY.publicKey);

Deno.test("[3.2b] a decision about a split counts with the signature of the genesis key, in its network, and of no other", () => {
  assert.deepEqual(open(envelope), DECISION);
  const stranger = keyOf("issuer 0");
  const wrong = [
    () => open(sealDecision(DECISION, NETWORK_ID, stranger)),
    () => open({ ...sealDecision(DECISION, NETWORK_ID, stranger), signer: GENESIS_KEY.publicKey }),
    () => open(envelope, OTHER_NETWORK_ID),
    () => open({ ...envelope, type: "decision/2" }),
    () =>
      open(
        sealEnvelope({ e: 0, h: DECISION.hash, q: 1, r: 0 }, {
          type: "decision/1",
          networkId: NETWORK_ID,
          signer: GENESIS_KEY,
        }),
      ),
    () =>
      open(
        sealEnvelope({ e: 1, h: new Uint8Array(31), q: 1, r: 0 }, {
          type: "decision/1",
          networkId: NETWORK_ID,
          signer: GENESIS_KEY,
        }),
      ),
  ];
  for (const [i, one] of wrong.entries()) assert.throws(one, WireError, `case ${i}`);
});
