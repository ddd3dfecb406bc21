/** Proofs of faults: what they come to, and that no bytes hurt who checks them. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { fromHex, utf8 } from "../../src/core/bytes.ts";
import { decodeAs, decodeCbor, encodeCbor } from "../../src/core/codec.ts";
import { keyPairFromSeed, sha256 } from "../../src/core/crypto.ts";
import { nodeIdOf } from "../../src/core/ids.ts";
import { checkProof, encodeProof, type ProofFacts } from "../../src/agent/trust_proofs.ts";
import { readEvidence } from "../../src/consensus/evidence.ts";
import { readTable } from "../../src/consensus/weights.ts";
import { sealSpore } from "../../src/spore/record.ts";
import vectors from "../wire/vectors/consensus_evidence.json" with { type: "json" };

const NETWORK_ID = sha256(utf8("trust proofs"));
const LIAR = keyPairFromSeed(sha256(utf8("liar")));
const OTHER = keyPairFromSeed(sha256(utf8("other")));
const NODE = nodeIdOf(LIAR.publicKey);
const FACTS: ProofFacts = { networkId: NETWORK_ID, table: () => undefined };

/** A word under a key of the liar. */
function word(value: number, more: { readonly seq?: number; readonly key?: string; readonly by?: typeof LIAR } = {}) {
  const { seq = 1_000, key = `node/${NODE}/name`, by = LIAR } = more;
  return sealSpore({ key, seq, value: new Uint8Array([value]), issuedMs: 900, expiresMs: 5_000 }, NETWORK_ID, by)
    .envelope;
}

Deno.test("[4.2b] proofs: two words under one number convict their author, in whichever order; anything less nobody", () => {
  const verdict = checkProof(encodeProof({ type: "words", a: word(1), b: word(2) }), FACTS);
  assert.ok(verdict.ok);
  assert.deepEqual({ ...verdict.offence, id: 0 }, { id: 0, nodeId: NODE, kind: "words", atMs: 900 });
  const turned = checkProof(encodeProof({ type: "words", a: word(2), b: word(1) }), FACTS);
  const third = checkProof(encodeProof({ type: "words", a: word(2), b: word(3) }), FACTS);
  // One deed, however it is shown: it costs once.
  assert.deepEqual(turned, verdict);
  assert.deepEqual(third, verdict);
  const innocent = [
    [word(1), word(1)],
    [word(1), word(2, { seq: 1_001 })],
    [word(1), word(2, { key: `node/${NODE}/other` })],
    [word(1), word(2, { by: OTHER })],
  ] as const;
  for (const [a, b] of innocent) {
    assert.deepEqual(checkProof(encodeProof({ type: "words", a, b }), FACTS), { ok: false, reason: "invalid" });
  }
  const elsewhere = checkProof(encodeProof({ type: "words", a: word(1), b: word(2) }), {
    ...FACTS,
    networkId: sha256(NETWORK_ID),
  });
  assert.deepEqual(elsewhere, { ok: false, reason: "invalid" });
});

Deno.test("[4.2b] proofs: evidence waits for its electorate, and does not convict under another one", () => {
  const table = decodeAs(fromHex(vectors.table)!, readTable);
  const kinds = Object.keys(vectors).filter((one) => !["table", "tableHash", "certificate"].includes(one));
  assert.ok(kinds.length >= 7);
  for (const kind of kinds) {
    const evidence = decodeAs(fromHex(vectors[kind as keyof typeof vectors])!, readEvidence);
    const proof = encodeProof({ type: "vote", evidence });
    assert.deepEqual(checkProof(proof, FACTS), { ok: false, reason: "unknown" }, kind);
    const foreign = checkProof(proof, { ...FACTS, table: () => table });
    assert.deepEqual(foreign, { ok: false, reason: "invalid" }, "of another network");
  }
});

Deno.test("proofs: whatever bytes come, they convict nobody and break nothing", () => {
  const table = decodeAs(fromHex(vectors.table)!, readTable);
  const facts = { ...FACTS, table: () => table };
  const kinds = ["two-votes", "withheld", "wrong-vote", "bad-dealing"] as const;
  const goods = [
    encodeProof({ type: "words", a: word(1), b: word(2) }),
    ...kinds.map((kind) => encodeCbor({ t: "vote", e: decodeCbor(fromHex(vectors[kind])!) })),
  ];
  const good = fc.constantFrom(...goods);
  fc.assert(
    fc.property(good, fc.nat(), fc.integer({ min: 1, max: 255 }), fc.boolean(), (bytes, place, bits, cut) => {
      const at = place % bytes.length;
      const bad = cut ? bytes.slice(0, at) : bytes.with(at, bytes[at]! ^ bits);
      assert.equal(checkProof(bad, facts).ok, false);
    }),
    { numRuns: 1_000 },
  );
});
