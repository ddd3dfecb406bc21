import assert from "node:assert/strict";
import { encodeCbor } from "../../src/core/codec.ts";
import type { KeyPair } from "../../src/core/crypto.ts";
import { type AuthorityVerdict, forkOf, type SeedKnowledge, verifyAuthority } from "../../src/agent/seed_authority.ts";
import { type AuthorityChain, signedEpochValue } from "../../src/identity/authority.ts";
import { sealDecision } from "../../src/identity/decision.ts";
import { openBundle, sealBundle, type SeedBundle } from "../../src/spore/seed_bundle.ts";
import { chainOf, GENESIS_ENVELOPE, GENESIS_KEY, keyOf, NETWORK_ID, nextEpoch, START_MS } from "../identity/fixture.ts";

const [A, B, C, D] = ["a", "b", "c", "d"].map((name) => keyOf(`issuer ${name}`)) as [
  KeyPair,
  KeyPair,
  KeyPair,
  KeyPair,
];

/** Epoch 1 of A, B and C, which both halves have; then each half went on with the genesis key. */
const COMMON = chainOf(A, B, C);
const follow = (chain: AuthorityChain, issuers: readonly KeyPair[], signers: readonly KeyPair[]) =>
  chain.extended(nextEpoch(chain, issuers, signers, { createdMs: START_MS + 1_000 * chain.epoch + issuers.length }));
const LEFT = follow(COMMON, [A], [GENESIS_KEY]);
const RIGHT = follow(follow(COMMON, [B, C], [GENESIS_KEY]), [B, C, D], [B, C]);

function decisionFor(chain: AuthorityChain, epoch: number, seq = 1) {
  const decision = { epoch, hash: chain.hashAt(epoch)!, seq, recoveredMs: 0 };
  return { decision, envelope: sealDecision(decision, NETWORK_ID, GENESIS_KEY) };
}

function bundle(chain: AuthorityChain, signer: KeyPair, change: {
  readonly from?: number;
  readonly decision?: ReturnType<typeof decisionFor>;
  readonly genesis?: boolean;
  readonly issuedMs?: number;
} = {}): SeedBundle {
  const issuedMs = change.issuedMs ?? START_MS + 5_000;
  const raw = sealBundle(
    { kind: "master", networkId: NETWORK_ID, seq: 1, issuedMs, expiresMs: issuedMs + 1, addresses: [] },
    {
      genesis: change.genesis === false ? undefined : GENESIS_ENVELOPE,
      epochs: chain.since(change.from ?? 1).map((one) => encodeCbor(signedEpochValue(one))),
      decision: change.decision?.envelope,
      records: [],
    },
    signer,
  );
  const opened = openBundle(raw, NETWORK_ID);
  assert.ok(opened.ok);
  return opened.bundle;
}

function said(verdict: AuthorityVerdict): string {
  if (!verdict.ok) return verdict.reason;
  const replaces = verdict.replacesFrom === undefined ? "" : ` replaces ${verdict.replacesFrom}`;
  return `epoch ${verdict.chain?.epoch ?? "?"}${replaces}${verdict.decision ? " decided" : ""}`;
}

const judge = (one: SeedBundle, known: SeedKnowledge) => said(verifyAuthority(one, known));

Deno.test("[3.2d] verifyAuthority(): what follows is merged, whoever knows more or less; a signer of before counts for what it signed then", () => {
  assert.equal(judge(bundle(RIGHT, B), { chain: COMMON }), "epoch 3");
  assert.equal(judge(bundle(RIGHT, B), { chain: RIGHT }), "epoch 3");
  assert.equal(judge(bundle(COMMON, B), { chain: RIGHT }), "epoch 3");
  assert.equal(judge(bundle(RIGHT, B, { from: 2, genesis: false }), { chain: COMMON }), "epoch 3");
  assert.equal(judge(bundle(RIGHT, GENESIS_KEY), { chain: COMMON }), "epoch 3", "the genesis key always counts");
  // A is out since epoch 2, and epoch 3 is the newest: neither old nor new words of it count.
  assert.equal(judge(bundle(COMMON, A), { chain: RIGHT }), "unknown-signer");
  assert.equal(judge(bundle(COMMON, A, { issuedMs: START_MS - 1 }), { chain: RIGHT }), "unknown-signer");
  // In the epoch right after its own what it signed before still counts, and nothing that it dates later.
  const second = RIGHT.upTo(2);
  assert.equal(judge(bundle(COMMON, A, { issuedMs: START_MS }), { chain: second }), "epoch 2");
  assert.equal(judge(bundle(COMMON, A, { issuedMs: START_MS + 3_600_000 }), { chain: second }), "unknown-signer");
  const revoked = (key: Uint8Array) => key === undefined || key.join() === B.publicKey.join();
  assert.equal(judge(bundle(RIGHT, B), { chain: RIGHT, revoked }), "unknown-signer");
  // A gap cannot be bridged.
  assert.equal(judge(bundle(RIGHT, B, { from: 3 }), { chain: COMMON }), "tampered");
});

Deno.test("[3.2d] verifyAuthority(): a newcomer needs the whole way from the genesis, up to what its invite names", () => {
  const invite = (chain: AuthorityChain, issuer = B) => ({
    invite: { anchor: { epoch: chain.epoch, hash: chain.head }, issuer: issuer.publicKey },
  });
  assert.equal(judge(bundle(RIGHT, B), invite(COMMON)), "epoch 3");
  assert.equal(judge(bundle(RIGHT, B), invite(RIGHT)), "epoch 3");
  assert.equal(judge(bundle(COMMON, A), invite(RIGHT)), "stale-authority");
  assert.equal(judge(bundle(LEFT, A), invite(RIGHT.upTo(2))), "fork");
  assert.equal(judge(bundle(RIGHT, A), invite(COMMON)), "unknown-signer");
  assert.equal(judge(bundle(RIGHT, B), {}), "epoch 3", "without an invite it proves itself, and no more");
  // Of a chain that is too long for a bundle only the word of the invite's own issuer is left.
  assert.equal(judge(bundle(RIGHT, B, { from: 2 }), invite(RIGHT, B)), "epoch ?");
  assert.equal(judge(bundle(RIGHT, C, { from: 2 }), invite(RIGHT, B)), "unknown-signer");
});

Deno.test("[3.2b] verifyAuthority(): of two halves the one that the genesis key has named; the newer decision overrules", () => {
  assert.equal(forkOf(LEFT, RIGHT.since(1)), 2);
  assert.equal(judge(bundle(RIGHT, B), { chain: LEFT }), "fork");
  for (const epoch of [2, 3]) {
    const decision = decisionFor(RIGHT, epoch);
    assert.equal(judge(bundle(RIGHT, B, { decision }), { chain: LEFT }), "epoch 3 replaces 2 decided", `${epoch}`);
    assert.equal(judge(bundle(RIGHT, GENESIS_KEY, { decision }), { chain: LEFT }), "epoch 3 replaces 2 decided");
    // Whoever has not followed the other half learns it as well.
    assert.equal(judge(bundle(RIGHT, B, { decision }), { chain: COMMON }), "epoch 3 decided");
    assert.equal(judge(bundle(RIGHT, B, { decision }), { chain: RIGHT }), "epoch 3 decided");
    // The decision in the mouth of the half that it is against.
    assert.equal(judge(bundle(LEFT, A, { decision }), { chain: LEFT }), "fork");
    assert.equal(judge(bundle(LEFT, A, { decision }), { chain: RIGHT }), "fork");
    assert.equal(judge(bundle(LEFT, A, { decision }), { chain: COMMON }), "fork");
    assert.equal(judge(bundle(LEFT, A, { decision }), {}), "fork");
    // Who has adopted it does not go back, with or without an older decision.
    const known = { chain: RIGHT, decision: decision.decision };
    assert.equal(judge(bundle(LEFT, A), known), "fork");
    assert.equal(judge(bundle(LEFT, A, { decision: decisionFor(LEFT, 2, 0) }), known), "fork");
    assert.equal(judge(bundle(LEFT, A, { decision: decisionFor(LEFT, 2, 2) }), known), "epoch 2 replaces 2 decided");
  }
  // About the common part nothing is decided.
  assert.equal(judge(bundle(RIGHT, B, { decision: decisionFor(RIGHT, 1) }), { chain: LEFT }), "fork");
  // A decision of before does not decide about a fork after it.
  const further = follow(RIGHT, [B, C], [B, C, D]);
  const astray = follow(RIGHT, [D], [GENESIS_KEY]);
  const old = decisionFor(RIGHT, 3);
  assert.equal(judge(bundle(astray, D, { decision: old }), { chain: further, decision: old.decision }), "fork");
  // Signed by another key than that of the genesis.
  const { decision } = decisionFor(RIGHT, 2);
  const forged = { decision, envelope: sealDecision(decision, NETWORK_ID, B) };
  assert.equal(judge(bundle(RIGHT, B, { decision: forged }), { chain: LEFT }), "tampered");
  // A signer that is none in the half that counts.
  const right = decisionFor(RIGHT, 2);
  assert.equal(judge(bundle(RIGHT, A, { decision: right }), { chain: LEFT }), "unknown-signer");
});
