import assert from "node:assert/strict";
import { WireError } from "../../src/core/codec.ts";
import { sha256 } from "../../src/core/crypto.ts";
import { sealEnvelope } from "../../src/core/envelope.ts";
import { LIMITS } from "../../src/core/limits.ts";
import { createRevocation, openRevocation, type Revocation, RevocationSet } from "../../src/identity/revocation.ts";
import { keyOf, NETWORK_ID, OTHER_NETWORK_ID, START_MS } from "./fixture.ts";

const ISSUER = keyOf("issuer 0");
const revoke = (subject: Uint8Array, change: Partial<Revocation> = {}): Revocation => ({
  kind: "node",
  subject,
  reason: "lost",
  atMs: START_MS,
  ...change,
});

Deno.test("[2.1c] a revocation reads in its network only, and only as it was signed", () => {
  const revocation = revoke(keyOf("node").publicKey);
  const envelope = createRevocation(revocation, NETWORK_ID, ISSUER);
  assert.deepEqual(openRevocation(envelope, NETWORK_ID), revocation);
  assert.throws(() => openRevocation(envelope, OTHER_NETWORK_ID), WireError);
  for (let bit = 0; bit < 8 * envelope.payload.length; bit++) {
    const payload = envelope.payload.slice();
    payload[bit >> 3]! ^= 1 << (bit & 7);
    assert.throws(() => openRevocation({ ...envelope, payload }, NETWORK_ID), WireError, `bit ${bit}`);
  }
});

Deno.test("openRevocation() wants a subject as long as its kind says: none that names nothing fills the set", () => {
  const lengths = [["node", 32], ["invite", 16]] as const;
  for (const [kind, length] of lengths) {
    for (const other of [0, 8, 15, 16, 17, 31, 32]) {
      const open = () =>
        openRevocation(createRevocation(revoke(new Uint8Array(other), { kind }), NETWORK_ID, ISSUER), NETWORK_ID);
      if (other === length) assert.equal(open().subject.length, length);
      else assert.throws(open, WireError, `${kind} of ${other} bytes`);
    }
  }
  const seal = (value: { kind: string; reason: string; at: number }) =>
    sealEnvelope({ ...value, subject: new Uint8Array(32) }, {
      type: "revocation/1",
      networkId: NETWORK_ID,
      signer: ISSUER,
    });
  const good = { kind: "node", reason: "x", at: 1 };
  assert.ok(openRevocation(seal(good), NETWORK_ID));
  for (const bad of [{ kind: "issuer" }, { reason: "x".repeat(201) }, { reason: "\u001b]0;x" }, { at: -1 }]) {
    assert.throws(() => openRevocation(seal({ ...good, ...bad }), NETWORK_ID), WireError, JSON.stringify(bad));
  }
});

Deno.test("RevocationSet keeps the first of a subject, tells kinds apart, and when full forgets none", () => {
  const set = new RevocationSet();
  const envelope = createRevocation(revoke(new Uint8Array(32)), NETWORK_ID, ISSUER);
  const subject = (i: number) => sha256(Uint8Array.of(i >> 16, i >> 8, i));
  assert.ok(set.add(revoke(subject(0), { reason: "first" }), envelope));
  assert.ok(!set.add(revoke(subject(0), { reason: "second" }), envelope));
  assert.equal(set.get("node", subject(0))?.reason, "first");
  assert.equal(set.get("invite", subject(0)), undefined);
  for (let i = 1; i < LIMITS.revocationsMax; i++) assert.ok(set.add(revoke(subject(i)), envelope));
  assert.equal(set.size, LIMITS.revocationsMax);
  assert.ok(!set.add(revoke(subject(LIMITS.revocationsMax)), envelope));
  assert.equal(set.get("node", subject(LIMITS.revocationsMax)), undefined);
  assert.equal(set.get("node", subject(0))?.reason, "first");
  assert.equal([...set.entries()].length, LIMITS.revocationsMax);
});
