import assert from "node:assert/strict";
import fc from "fast-check";
import { type CborValue, decodeAs, encodeCbor, WireError } from "../../src/core/codec.ts";
import type { KeyPair } from "../../src/core/crypto.ts";
import { type Envelope, envelopeValue, readEnvelope, sealEnvelope } from "../../src/core/envelope.ts";
import {
  CLOCK_SKEW_MS,
  type Credential,
  CREDENTIAL_LIFETIME_MS,
  CREDENTIAL_LIFETIME_MS_MAX,
  issueCredential,
  openCredential,
  renewAtMs,
  verifyCredential,
  type VerifyCredentialOptions,
} from "../../src/identity/credential.ts";
import { createRevocation, openRevocation, RevocationSet } from "../../src/identity/revocation.ts";
import { chainOf, credentialOf, keyOf, NETWORK_ID, nextEpoch, OTHER_NETWORK_ID, START_MS } from "./fixture.ts";

const ISSUER = keyOf("issuer 0");
const NODE = keyOf("node");
const CHAIN = chainOf(ISSUER);
const NOTHING_REVOKED = new RevocationSet();

const issue = (change: Partial<Credential> = {}, issuer: KeyPair = ISSUER, networkId = NETWORK_ID) =>
  issueCredential(credentialOf(NODE, change), networkId, issuer);

/** "ok", or the reason of the refusal. */
function judge(envelope: Envelope, options: Partial<VerifyCredentialOptions> = {}): string {
  const verified = verifyCredential(envelope, {
    chain: CHAIN,
    revocations: NOTHING_REVOKED,
    nowMs: START_MS + 1_000,
    subject: NODE.publicKey,
    ...options,
  });
  return verified.ok ? "ok" : verified.reason;
}

Deno.test("[1.2b] [2.1c] a credential of an issuer of the chain proves membership of its subject", () => {
  const verified = verifyCredential(issue({ name: "spruce.eu", role: "hypha" }), {
    chain: CHAIN,
    revocations: NOTHING_REVOKED,
    nowMs: START_MS,
    subject: NODE.publicKey,
  });
  assert.deepEqual(verified, {
    ok: true,
    credential: { ...credentialOf(NODE, { name: "spruce.eu", role: "hypha" }), network: NETWORK_ID.slice(0, 8) },
  });
  assert.equal(judge(issue(), { nowMs: START_MS + CREDENTIAL_LIFETIME_MS - 1 }), "ok");
});

Deno.test("[2.1c] verifyCredential() says tampered for each changed bit of payload or signature", () => {
  const envelope = issue();
  const seen = new Set<string>();
  for (const part of ["payload", "signature", "signer"] as const) {
    for (let bit = 0; bit < 8 * envelope[part].length; bit++) {
      const changed = envelope[part].slice();
      changed[bit >> 3]! ^= 1 << (bit & 7);
      const reason = judge({ ...envelope, [part]: changed });
      assert.notEqual(reason, "ok", `${part}, bit ${bit}`);
      if (part !== "payload") assert.equal(reason, "tampered");
      seen.add(reason);
    }
  }
  // A changed payload may also have stopped being one, or name another network.
  assert.deepEqual([...seen].sort(), ["foreign-network", "malformed", "tampered"]);
});

Deno.test("[2.1a] [2.1d] verifyCredential() says foreign-network for a credential of another network, though the same keys issued it", () => {
  assert.equal(judge(issue({}, ISSUER, OTHER_NETWORK_ID)), "foreign-network");
  // Signed for this network, but saying that it is of another: its issuer contradicts itself.
  const value = { ...fields(), net: OTHER_NETWORK_ID.slice(0, 8) };
  assert.equal(judge(sealAs(value)), "foreign-network");
});

Deno.test("[2.1c] verifyCredential() says unknown-issuer for one that the chain does not hold, however valid its signature", () => {
  assert.equal(judge(issue({}, keyOf("stranger"))), "unknown-issuer");
  assert.equal(judge(issue({}, NODE)), "unknown-issuer", "a node vouches for itself");
  assert.equal(judge(issue({}, keyOf("genesis"))), "unknown-issuer", "the genesis key signs epochs only");
});

Deno.test("[2.1e] verifyCredential() follows the chain: an issuer taken out loses what it dates after the change", () => {
  const changedMs = START_MS + 3_600_000;
  const after = CHAIN.extended(nextEpoch(CHAIN, [keyOf("issuer 1")], [ISSUER], { createdMs: changedMs }));
  const at = (issuedMs: number) => issue({ issuedMs, expiresMs: issuedMs + CREDENTIAL_LIFETIME_MS });
  const options = { chain: after, nowMs: changedMs + 2 * CLOCK_SKEW_MS };
  assert.equal(judge(at(changedMs - 1), options), "ok");
  assert.equal(judge(at(changedMs + CLOCK_SKEW_MS + 1), options), "unknown-issuer");
  // Back-dating helps a thief only as long as a life is.
  const longest = issue({ issuedMs: changedMs, expiresMs: changedMs + CREDENTIAL_LIFETIME_MS_MAX });
  assert.equal(judge(longest, { ...options, nowMs: changedMs + CREDENTIAL_LIFETIME_MS_MAX }), "expired");
  const two = after.extended(nextEpoch(after, [keyOf("issuer 2")], [keyOf("issuer 1")]));
  assert.equal(judge(at(START_MS), { ...options, chain: two }), "unknown-issuer");
});

Deno.test("[1.2b] verifyCredential() says wrong-subject for a credential that another node shows", () => {
  assert.equal(judge(issue(), { subject: keyOf("thief").publicKey }), "wrong-subject");
  const { subject: _, ...unasked } = {
    chain: CHAIN,
    revocations: NOTHING_REVOKED,
    nowMs: START_MS,
    subject: NODE.publicKey,
  };
  assert.ok(verifyCredential(issue(), unasked).ok, "without a channel to compare with it is only read");
});

Deno.test("[2.1c] verifyCredential() says not-yet-valid and expired at the very millisecond", () => {
  const future = issue({ issuedMs: START_MS + CLOCK_SKEW_MS, expiresMs: START_MS + CREDENTIAL_LIFETIME_MS });
  assert.equal(judge(future, { nowMs: START_MS }), "ok");
  assert.equal(judge(future, { nowMs: START_MS - 1 }), "not-yet-valid");
  assert.equal(judge(issue(), { nowMs: START_MS + CREDENTIAL_LIFETIME_MS - 1 }), "ok");
  assert.equal(judge(issue(), { nowMs: START_MS + CREDENTIAL_LIFETIME_MS }), "expired");
  const late = { nowMs: START_MS + 10 * CREDENTIAL_LIFETIME_MS };
  assert.equal(judge(issue(), late), "expired");
  assert.equal(
    judge(issue(), { ...late, allowExpired: true }),
    "ok",
    "after ten lives it still serves to ask for another",
  );
  assert.equal(judge(issue({}, keyOf("stranger")), { ...late, allowExpired: true }), "unknown-issuer");
  assert.equal(judge(issue(), { ...late, allowExpired: true, subject: ISSUER.publicKey }), "wrong-subject");
});

Deno.test("[2.1c] verifyCredential() says revoked, in its life and after it, also to a node that asks for renewal", () => {
  const revocations = new RevocationSet();
  const envelope = createRevocation(
    { kind: "node", subject: NODE.publicKey, reason: "stolen", atMs: START_MS },
    NETWORK_ID,
    ISSUER,
  );
  revocations.add(openRevocation(envelope, NETWORK_ID), envelope);
  assert.equal(judge(issue(), { revocations }), "revoked");
  const late = { revocations, nowMs: START_MS + 10 * CREDENTIAL_LIFETIME_MS };
  assert.equal(judge(issue(), late), "revoked");
  assert.equal(judge(issue(), { ...late, allowExpired: true }), "revoked");
  const neighbour = issueCredential(credentialOf(ISSUER), NETWORK_ID, ISSUER);
  assert.equal(judge(neighbour, { revocations, subject: ISSUER.publicKey }), "ok");
});

Deno.test("[2.1e] verifyCredential() says unknown-issuer for what a removed issuer dates after its removal, before the next epoch", () => {
  const revocations = new RevocationSet();
  const removedMs = START_MS + 3_600_000;
  const envelope = createRevocation(
    { kind: "node", subject: ISSUER.publicKey, reason: "key stolen", atMs: removedMs },
    NETWORK_ID,
    keyOf("issuer 1"),
  );
  revocations.add(openRevocation(envelope, NETWORK_ID), envelope);
  const options = { revocations, nowMs: removedMs + 2 * CLOCK_SKEW_MS };
  const at = (issuedMs: number) => issue({ issuedMs, expiresMs: issuedMs + CREDENTIAL_LIFETIME_MS });
  assert.equal(judge(at(removedMs - 1), options), "ok");
  assert.equal(judge(at(removedMs + CLOCK_SKEW_MS + 1), options), "unknown-issuer");
  assert.equal(judge(at(removedMs + CLOCK_SKEW_MS + 1), { ...options, allowExpired: true }), "unknown-issuer");
});

Deno.test("[2.1c] verifyCredential() says malformed for what is none, whoever signed it", () => {
  assert.equal(judge({ ...issue(), type: "invite/1" }), "malformed");
  const good = fields();
  assert.equal(judge(sealAs(good)), "ok");
  const bad: Record<string, CborValue>[] = [
    { ...good, subject: new Uint8Array(31) },
    { ...good, net: new Uint8Array(7) },
    { ...good, role: "king" },
    { ...good, issued: -1 },
    { ...good, expires: good.issued },
    { ...good, expires: good.issued - 1 },
    { ...good, expires: good.issued + CREDENTIAL_LIFETIME_MS_MAX + 1 },
    { ...good, expires: Number.MAX_SAFE_INTEGER },
    ...["", "Upper", "a b", "a\n", "-a", "a-", "a..b", ".a", "a.", "a.-b", "a_b", "ä", "x".repeat(64)].map((name) => ({
      ...good,
      name,
    })),
    ...["", "a.b", "-a", "A"].map((pool) => ({ ...good, pool })),
  ];
  for (const value of bad) assert.equal(judge(sealAs(value)), "malformed", JSON.stringify(value));
  for (const key of Object.keys(good)) {
    const { [key]: _, ...rest } = good as Record<string, CborValue>;
    assert.equal(judge(sealAs(rest)), "malformed", `without ${key}`);
  }
  assert.equal(judge(sealAs({ ...good, later: 1 })), "ok", "a newer version may say more");
  assert.throws(() => openCredential(sealAs({ ...good, expires: 0 }), NETWORK_ID), WireError);
});

Deno.test("issueCredential() makes nothing that verifyCredential() would refuse as malformed", () => {
  for (
    const change of [{ name: "a..b" }, { name: "Upper" }, { pool: "a.b" }, { expiresMs: START_MS }, { issuedMs: -1 }]
  ) {
    assert.throws(() => issue(change), WireError, JSON.stringify(change));
  }
});

Deno.test("[10.1a] verifyCredential() fuzz: never throws, and changed bytes never count", () => {
  const wire = encodeCbor(envelopeValue(issue()));
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(wire.length - 1), fc.integer({ min: 1, max: 255 })), { minLength: 1, maxLength: 3 }),
      (
        changes,
      ) => {
        const changed = wire.slice();
        for (const [at, mask] of changes) changed[at]! ^= mask;
        if (changed.every((byte, i) => byte === wire[i])) return;
        let envelope: Envelope;
        try {
          envelope = decodeAs(changed, readEnvelope);
        } catch (error) {
          assert.ok(error instanceof WireError);
          return;
        }
        assert.notEqual(judge(envelope), "ok");
      },
    ),
    { numRuns: 500 },
  );
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), (payload) => {
      assert.notEqual(judge({ ...issue(), payload }), "ok");
    }),
  );
});

Deno.test("[2.1e] renewAtMs() is between two thirds and five sixths of the life, and spreads over it by node", () => {
  const at = (name: string) => renewAtMs({ ...credentialOf(keyOf(name)), network: new Uint8Array(8) });
  const third = CREDENTIAL_LIFETIME_MS / 3;
  const times = Array.from({ length: 200 }, (_, i) => at(`node ${i}`) - START_MS);
  for (const time of times) assert.ok(Number.isInteger(time) && time >= 2 * third && time < 2.5 * third);
  assert.equal(at("node 1"), at("node 1"));
  const early = times.filter((time) => time < 2.25 * third).length;
  assert.ok(early > 70 && early < 130, `${early} of 200 in the first half`);
  fc.assert(fc.property(fc.integer({ min: 1, max: CREDENTIAL_LIFETIME_MS_MAX }), (life) => {
    const renew = renewAtMs({ ...credentialOf(NODE, { expiresMs: START_MS + life }), network: new Uint8Array(8) });
    assert.ok(renew >= START_MS && renew < START_MS + life);
  }));
});

/** A credential's fields as they are on the wire. */
function fields() {
  return {
    net: NETWORK_ID.slice(0, 8),
    subject: NODE.publicKey,
    name: "node-1",
    role: "rhizomorph",
    pool: "default",
    issued: START_MS,
    expires: START_MS + CREDENTIAL_LIFETIME_MS,
    epoch: 1,
  };
}

function sealAs(value: CborValue): Envelope {
  return sealEnvelope(value, { type: "credential/1", networkId: NETWORK_ID, signer: ISSUER });
}
