import assert from "node:assert/strict";
import { utf8 } from "../../src/core/bytes.ts";
import { encodeCbor } from "../../src/core/codec.ts";
import { type KeyPair, keyPairFromSeed, sha256 } from "../../src/core/crypto.ts";
import { sealEnvelope } from "../../src/core/envelope.ts";
import { nodeIdOf } from "../../src/core/ids.ts";
import type { WireVersion } from "../../src/spore/messages.ts";
import { type RankProof, type RankStatement, signRank } from "../../src/spore/proof.ts";
import { openSpore, readSpore, RECORD_LIFE_MS_MAX, sealSpore, type Spore } from "../../src/spore/record.ts";
import { checkVersion, equivocationOf, type SporeFacts } from "../../src/spore/validation.ts";

const NETWORK = sha256(utf8("a network"));
const NOW = 1_800_000_000_000;
const SKEW = 300_000;
const key = (name: string): KeyPair => keyPairFromSeed(sha256(utf8(name)));
const [ann, bob, eve] = [key("ann"), key("bob"), key("eve")];
const issuers = [key("i1"), key("i2"), key("i3")];
const stolen = key("stolen");
const keysOf = (pairs: readonly KeyPair[]) => pairs.map((one) => one.publicKey);
const same = (a: Uint8Array, b: Uint8Array) => a.every((byte, i) => byte === b[i]);

const members = new Set([ann, bob, ...issuers].map((one) => nodeIdOf(one.publicKey)));

const facts: SporeFacts = {
  networkId: NETWORK,
  nowMs: NOW,
  skewMs: SKEW,
  member: (nodeId) => members.has(nodeId),
  revoked: (one) => same(one, stolen.publicKey),
  issuer: (one) => keysOf(issuers).some((each) => same(each, one)),
  issuersOf: (epoch) => epoch === 1 ? "old" : epoch === 2 ? [...keysOf(issuers)] : undefined,
  distrusted: (nodeId) => nodeId === nodeIdOf(bob.publicKey),
};

function word(author: KeyPair, change: Partial<Spore["record"]> = {}): Spore {
  const seq = change.seq ?? NOW;
  return sealSpore(
    { key: "app/x", seq, value: utf8("a"), issuedMs: seq, expiresMs: seq + RECORD_LIFE_MS_MAX, ...change },
    NETWORK,
    author,
  );
}

function prove(
  spore: Spore,
  signers: readonly KeyPair[],
  change: Partial<RankStatement> = {},
): RankProof {
  const statement: RankStatement = {
    tier: "primary",
    term: 1,
    index: 7,
    epoch: 2,
    untilMs: NOW + 86_400_000,
    ...change,
  };
  const subject = { networkId: NETWORK, key: spore.record.key, hash: spore.hash };
  return { ...statement, signatures: signers.map((one) => signRank(subject, statement, one)) };
}

function check(spore: Spore, proof?: RankProof, change: Partial<SporeFacts> = {}) {
  const verdict = checkVersion({ envelope: spore.envelope, proof }, { ...facts, ...change });
  if (!verdict.ok) return verdict.reason;
  return verdict.proofRefused ?? verdict.suspicion ?? verdict.version.proof?.tier ?? "latent";
}

Deno.test("[3.4d] checkVersion() takes a member's word, and a word with a proof of its rank", () => {
  assert.equal(check(word(ann)), "latent");
  assert.equal(check(word(ann), prove(word(ann), issuers.slice(0, 2))), "primary");
  assert.equal(check(word(ann), prove(word(ann), [issuers[1]!], { tier: "seed", term: 0 })), "seed");
});

Deno.test("[3.4b] [3.4d] checkVersion() refuses what was changed on its way, in any byte of it", () => {
  const { envelope } = word(ann);
  for (let i = 0; i < envelope.payload.length; i++) {
    const payload = envelope.payload.slice();
    payload[i]! ^= 1;
    const verdict = checkVersion({ envelope: { ...envelope, payload }, proof: undefined }, facts);
    assert.ok(!verdict.ok && verdict.reason === "spore-tampered", `byte ${i}`);
  }
  const signature = envelope.signature.map((byte, i) => i === 3 ? byte ^ 4 : byte);
  const forged: WireVersion[] = [
    { envelope: { ...envelope, signature }, proof: undefined },
    { envelope: { ...envelope, signer: bob.publicKey }, proof: undefined },
  ];
  for (const one of forged) assert.equal(checkVersion(one, facts).ok, false);
});

Deno.test("[3.5d] checkVersion() refuses a record of another network, and one that is none", () => {
  const record = { key: "app/x", seq: NOW, value: utf8("a"), issuedMs: NOW, expiresMs: NOW + 1_000 };
  assert.equal(check(sealSpore(record, sha256(utf8("another network")), ann)), "spore-tampered");
  const signed = (value: Parameters<typeof encodeCbor>[0]) =>
    checkVersion({
      envelope: sealEnvelope(value, { type: "spore/1", networkId: NETWORK, signer: ann }),
      proof: undefined,
    }, facts);
  const good = { k: "app/x", n: NOW, v: utf8("a"), i: NOW, x: NOW + 1_000 };
  assert.equal(signed(good).ok, true);
  const bad = [
    { ...good, k: "elsewhere/x" },
    { ...good, k: "app" },
    { ...good, k: "app/../x" },
    { ...good, x: NOW },
    { ...good, x: NOW + RECORD_LIFE_MS_MAX + 1 },
    { ...good, n: -1 },
    { ...good, v: new Uint8Array(8_193) },
    "nothing of the kind",
  ];
  for (const one of bad) {
    const verdict = signed(one);
    assert.ok(!verdict.ok && verdict.reason === "spore-malformed", JSON.stringify(one));
  }
});

Deno.test("[3.4e] checkVersion() holds authors to their keys", () => {
  const id = nodeIdOf(ann.publicKey);
  assert.equal(check(word(ann, { key: `node/${id}/load` })), "latent");
  assert.equal(check(word(ann, { key: `service/web/${id}` })), "latent");
  assert.equal(check(word(issuers[0]!, { key: `service/web/${id}` })), "spore-not-allowed");
  // An issuer takes out what a node left behind; it does not speak in its name.
  assert.equal(check(word(issuers[0]!, { key: `service/web/${id}`, value: undefined })), "latent");
  assert.equal(check(word(ann, { key: "net/policy" })), "spore-not-allowed");
  assert.equal(check(word(issuers[0]!, { key: "net/policy" })), "latent");
  assert.equal(check(word(eve)), "spore-unknown-author");
  assert.equal(check(word(stolen)), "spore-revoked-author");
});

Deno.test("[4.5b] checkVersion(): under agreed/ no word counts by itself, nor by one issuer: a majority has to hold it", () => {
  for (const author of [ann, issuers[0]!, stolen]) {
    for (const value of [utf8("x"), undefined]) {
      const spore = word(author, { key: "agreed/role/x", value });
      assert.match(check(spore), /^spore-(not-allowed|revoked-author)$/);
      assert.match(check(spore, prove(spore, [issuers[0]!], { tier: "seed" })), /^spore-(not-allowed|revoked-author)$/);
      assert.match(check(spore, prove(spore, [issuers[0]!])), /^spore-(not-allowed|revoked-author)$/);
      // What was decided stands, whatever became of who proposed it.
      assert.equal(check(spore, prove(spore, issuers.slice(0, 2))), "primary");
    }
  }
});

Deno.test("[3.4e] checkVersion() believes a proof only by a majority of the issuers of an epoch that counts", () => {
  const spore = word(ann);
  const cases: readonly [string, RankProof][] = [
    ["one of three", prove(spore, [issuers[0]!])],
    ["one twice", prove(spore, [issuers[0]!, issuers[0]!])],
    ["none", prove(spore, [])],
    ["members that are no issuers", prove(spore, [ann, bob, eve])],
    ["of another record", prove(word(bob), issuers)],
    ["another place", { ...prove(spore, issuers), index: 8 }],
    ["another tier", { ...prove(spore, [issuers[0]!], { tier: "seed" }), tier: "primary" }],
    ["another end", { ...prove(spore, issuers), untilMs: NOW + 9 }],
  ];
  for (const [what, proof] of cases) assert.equal(check(spore, proof), "proof-forged", what);
  assert.equal(check(spore, prove(spore, [ann], { tier: "seed" })), "proof-forged");
  assert.equal(check(spore, prove(spore, issuers, { epoch: 1 })), "proof-old-epoch");
  assert.equal(check(spore, prove(spore, issuers, { epoch: 3 })), "proof-unknown-epoch");
  assert.equal(check(spore, prove(spore, issuers, { untilMs: NOW })), "proof-expired");
  const tooLong = NOW + RECORD_LIFE_MS_MAX + SKEW + 1;
  assert.equal(check(spore, prove(spore, issuers, { untilMs: tooLong })), "proof-too-long");
  // The word itself stands, as what it is.
  const verdict = checkVersion({ envelope: spore.envelope, proof: prove(spore, []) }, facts);
  assert.ok(verdict.ok && verdict.version.proof === undefined);
});

Deno.test("[3.4e] checkVersion(): the word of one issuer counts no longer than the issuer", () => {
  const spore = word(ann);
  const withStolen = { issuersOf: () => [...keysOf(issuers), stolen.publicKey] };
  assert.equal(check(spore, prove(spore, [stolen], { tier: "seed" }), withStolen), "proof-forged");
  assert.equal(check(spore, prove(spore, [issuers[0]!], { tier: "seed" }), withStolen), "seed");
  // What a majority has agreed on stands, whoever wrote it and was removed since.
  assert.equal(check(word(stolen), prove(word(stolen), issuers)), "primary");
  assert.equal(check(word(stolen), prove(word(stolen), [issuers[0]!], { tier: "seed" })), "spore-revoked-author");
});

Deno.test("[3.4c] checkVersion() finds suspicious what is dated ahead, and whose author is distrusted", () => {
  assert.equal(check(word(ann, { seq: NOW + SKEW })), "latent");
  assert.equal(check(word(ann, { seq: NOW + SKEW + 1 })), "future");
  assert.equal(check(word(bob)), "distrusted");
  // Where a majority says so as well nobody needs to be asked.
  assert.equal(check(word(bob), prove(word(bob), issuers)), "primary");
  assert.equal(check(word(bob), prove(word(bob), [issuers[0]!], { tier: "seed" })), "distrusted");
});

Deno.test("[3.5c] checkVersion() refuses what is over, and numbers that are no clock", () => {
  assert.equal(check(word(ann, { seq: NOW - RECORD_LIFE_MS_MAX + 1 })), "latent");
  assert.equal(check(word(ann, { seq: NOW - RECORD_LIFE_MS_MAX })), "spore-expired");
  assert.equal(check(word(ann, { seq: 7, issuedMs: NOW, expiresMs: NOW + 1_000 })), "spore-bad-seq");
  const old = word(ann, { seq: NOW - RECORD_LIFE_MS_MAX });
  assert.equal(check(old, prove(old, issuers)), "primary");
});

Deno.test("[3.5c] checkVersion() does not verify twice what was verified before", () => {
  const spore = word(ann);
  const broken = { ...spore.envelope, signature: new Uint8Array(64) };
  assert.equal(checkVersion({ envelope: broken, proof: undefined }, facts).ok, false);
  assert.equal(checkVersion({ envelope: broken, proof: undefined }, facts, { known: spore }).ok, true);
});

Deno.test("[3.4b] equivocationOf() keeps both words, the same pair whoever finds it", () => {
  const [a, b] = [word(ann, { value: utf8("a") }), word(ann, { value: utf8("b") })];
  const found = equivocationOf(a, b);
  assert.ok(found);
  assert.deepEqual(found, equivocationOf(b, a));
  assert.equal(found.author, nodeIdOf(ann.publicKey));
  assert.equal(equivocationOf(a, a), undefined);
  assert.equal(equivocationOf(a, word(bob, { value: utf8("b") })), undefined);
  assert.equal(equivocationOf(a, word(ann, { seq: NOW + 1, value: utf8("b") })), undefined);
});

Deno.test("readSpore() reads without checking, openSpore() checks", () => {
  const { envelope } = word(ann);
  assert.deepEqual(readSpore(envelope), word(ann));
  const forged = { ...envelope, signature: new Uint8Array(64) };
  assert.deepEqual(readSpore(forged).record, word(ann).record);
  assert.throws(() => openSpore(forged, NETWORK), { name: "WireError" });
  assert.throws(() => readSpore({ ...envelope, type: "spore/2" }), { name: "WireError" });
});
