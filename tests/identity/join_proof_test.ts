import assert from "node:assert/strict";
import fc from "fast-check";
import {
  type JoinTranscript,
  type ProofFactor,
  proveFactor,
  transcriptHash,
  verifyFactor,
} from "../../src/identity/join_proof.ts";
import { keyOf, NETWORK_ID, OTHER_NETWORK_ID, seedOf } from "./fixture.ts";

const NODE = keyOf("node");
const INVITE = keyOf("invite");
const REGISTRAR = keyOf("registrar");
const FACTORS: readonly ProofFactor[] = ["node", "invite", "registrar"];
const TRANSCRIPT: JoinTranscript = {
  networkId: NETWORK_ID,
  registrarKey: REGISTRAR.publicKey,
  joinerKey: NODE.publicKey,
  registrarNonce: seedOf("nonce of the registrar"),
  joinerNonce: seedOf("nonce of the joiner"),
  channelBinding: seedOf("channel"),
  requestHash: seedOf("request"),
};

Deno.test("[1.2b] [2.1b] each factor is proved by its own key over the same transcript", () => {
  const keys = { node: NODE, invite: INVITE, registrar: REGISTRAR };
  for (const factor of FACTORS) {
    const proof = proveFactor(factor, TRANSCRIPT, keys[factor]);
    for (const [name, key] of Object.entries(keys)) {
      assert.equal(verifyFactor(factor, TRANSCRIPT, key.publicKey, proof), name === factor, `${factor} by ${name}`);
    }
  }
});

Deno.test("[2.1b] factors do not stand for each other, though one key made them all", () => {
  for (const signed of FACTORS) {
    const proof = proveFactor(signed, TRANSCRIPT, NODE);
    for (const asked of FACTORS) {
      assert.equal(verifyFactor(asked, TRANSCRIPT, NODE.publicKey, proof), asked === signed, `${signed} as ${asked}`);
    }
  }
});

Deno.test("[2.1b] [2.1d] each field of the transcript matters: no replay in another network, channel, round or request", () => {
  const proof = proveFactor("node", TRANSCRIPT, NODE);
  for (const field of Object.keys(TRANSCRIPT) as (keyof JoinTranscript)[]) {
    for (let bit = 0; bit < 256; bit += 5) {
      const changed = TRANSCRIPT[field].slice();
      changed[bit >> 3]! ^= 1 << (bit & 7);
      assert.ok(
        !verifyFactor("node", { ...TRANSCRIPT, [field]: changed }, NODE.publicKey, proof),
        `${field}, bit ${bit}`,
      );
    }
    assert.ok(!verifyFactor("node", { ...TRANSCRIPT, [field]: new Uint8Array(0) }, NODE.publicKey, proof), field);
  }
  assert.ok(!verifyFactor("node", { ...TRANSCRIPT, networkId: OTHER_NETWORK_ID }, NODE.publicKey, proof));
});

Deno.test("[2.1b] fields do not run into each other: moving or swapping bytes between them changes the hash", () => {
  const fields = Object.keys(TRANSCRIPT) as (keyof JoinTranscript)[];
  const hash = String(transcriptHash("node", TRANSCRIPT));
  for (const a of fields) {
    for (const b of fields) {
      if (a === b) continue;
      const swapped = { ...TRANSCRIPT, [a]: TRANSCRIPT[b], [b]: TRANSCRIPT[a] };
      assert.notEqual(String(transcriptHash("node", swapped)), hash, `${a} and ${b}`);
      const moved = {
        ...TRANSCRIPT,
        [a]: Uint8Array.of(...TRANSCRIPT[a], ...TRANSCRIPT[b]),
        [b]: new Uint8Array(0),
      };
      assert.notEqual(String(transcriptHash("node", moved)), hash, `${b} into ${a}`);
    }
  }
});

Deno.test("[10.1a] verifyFactor() is false for whatever is no proof, and never throws", () => {
  fc.assert(
    fc.property(fc.constantFrom(...FACTORS), fc.uint8Array({ maxLength: 40 }), fc.uint8Array({ maxLength: 70 }), (
      factor,
      key,
      proof,
    ) => {
      assert.equal(verifyFactor(factor, TRANSCRIPT, key, proof), false);
      assert.equal(verifyFactor(factor, TRANSCRIPT, NODE.publicKey, proof), false);
    }),
  );
});
