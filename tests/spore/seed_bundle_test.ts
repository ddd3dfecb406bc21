import assert from "node:assert/strict";
import fc from "fast-check";
import { fromBase64Url, utf8 } from "../../src/core/bytes.ts";
import { decodeCbor, encodeCbor, WireError } from "../../src/core/codec.ts";
import { envelopeValue, sealEnvelope } from "../../src/core/envelope.ts";
import { nodeIdOf } from "../../src/core/ids.ts";
import { type RankStatement, signRank } from "../../src/spore/proof.ts";
import { sealSpore, type Spore } from "../../src/spore/record.ts";
import {
  BUNDLE_BYTES_MAX,
  BUNDLE_RECORDS_MAX,
  BUNDLE_TEXT_BYTES_MAX,
  type BundleContent,
  type BundleManifest,
  chooseRecords,
  contentBytes,
  contentHash,
  looksLikeBundle,
  openBundle,
  sealBundle,
  spellBundle,
} from "../../src/spore/seed_bundle.ts";
import { exportSeed } from "../../src/bootstrap/seed_document.ts";
import { GENESIS_ENVELOPE, keyOf, NETWORK_ID, OTHER_NETWORK_ID } from "../identity/fixture.ts";

const NOW = 1_800_000_000_000;
const ISSUER = keyOf("issuer 0");
const AUTHOR = keyOf("author");
const ADDRESS = `/ip4/10.0.0.1/udp/4871/quic-v1/p2p/${nodeIdOf(ISSUER.publicKey)}`;

const MANIFEST: BundleManifest = {
  kind: "service",
  networkId: NETWORK_ID,
  seq: 7,
  issuedMs: NOW,
  expiresMs: NOW + 1_000,
  addresses: [ADDRESS, "/dns/spore.example.org/tcp/4871"],
};

function spore(key: string, value: Uint8Array | "tombstone" = utf8("here")): Spore {
  const said = value === "tombstone" ? undefined : value;
  return sealSpore({ key, seq: NOW, value: said, issuedMs: NOW, expiresMs: NOW + 60_000 }, NETWORK_ID, AUTHOR);
}

function lifted(one: Spore, index = 7) {
  const statement: RankStatement = { tier: "seed", term: 0, index, epoch: 1, untilMs: NOW + 60_000 };
  const subject = { networkId: NETWORK_ID, key: one.record.key, hash: one.hash };
  return { envelope: one.envelope, proof: { ...statement, signatures: [signRank(subject, statement, ISSUER)] } };
}

const CONTENT: BundleContent = {
  genesis: GENESIS_ENVELOPE,
  epochs: [new Uint8Array([1, 2, 3]), new Uint8Array([4])],
  records: [lifted(spore(`service/web/${nodeIdOf(AUTHOR.publicKey)}`)), lifted(spore("app/a"))],
};

const RAW = sealBundle(MANIFEST, CONTENT, ISSUER);

function reason(input: Uint8Array, networkId: Uint8Array | undefined = NETWORK_ID): string {
  const opened = openBundle(input, networkId);
  return opened.ok ? "ok" : opened.reason;
}

Deno.test("[3.2a] a seed bundle reads as text, with white space around it, and raw; nothing of it is lost", () => {
  for (const form of [RAW, utf8(spellBundle(RAW)), utf8(`\r\n  ${spellBundle(RAW)}\n`)]) {
    assert.ok(looksLikeBundle(form));
    const opened = openBundle(form, NETWORK_ID);
    assert.ok(opened.ok);
    const { signer, hash, sizeBytes, ...rest } = opened.bundle;
    assert.deepEqual(rest, { ...MANIFEST, ...CONTENT, profile: undefined, decision: undefined });
    assert.deepEqual(signer, ISSUER.publicKey);
    assert.equal(hash.length, 32);
    assert.equal(sizeBytes, RAW.length);
  }
  // The form before bundles is told apart, raw and as text.
  const old = exportSeed({ ...MANIFEST, networkId: NETWORK_ID }, ISSUER);
  assert.ok(!looksLikeBundle(utf8(old)) && !looksLikeBundle(fromBase64Url(old.trim())!));
});

Deno.test("[3.2d] a bundle of another network, changed, cut or too large is refused, each with its reason", () => {
  assert.equal(reason(RAW, OTHER_NETWORK_ID), "foreign");
  // Without a network to compare with, its own counts.
  assert.ok(openBundle(RAW).ok);
  assert.equal(reason(new Uint8Array(BUNDLE_TEXT_BYTES_MAX + 1)), "oversize");
  assert.equal(reason(utf8("<html>it works!</html>")), "malformed");
  assert.equal(reason(RAW.subarray(0, RAW.length - 1)), "malformed");

  const parts = decodeCbor(RAW) as unknown as { m: { p: Uint8Array }; r: Uint8Array };
  const put = (change: object) => encodeCbor({ ...parts, ...change } as never);
  // A record swapped for another, all signatures in it being valid.
  const other = decodeCbor(sealBundle(MANIFEST, { ...CONTENT, records: [] }, ISSUER)) as unknown as { r: Uint8Array };
  assert.equal(reason(put({ r: other.r })), "tampered");
  // A number raised without the key.
  const manifest = decodeCbor(parts.m.p) as object;
  assert.equal(reason(put({ m: { ...parts.m, p: encodeCbor({ ...manifest, q: 8 }) } })), "tampered");
  // Signed, but as another kind of record.
  const wrong = sealEnvelope(manifest as never, { type: "seed/1", networkId: NETWORK_ID, signer: ISSUER });
  const envelope = { t: wrong.type, p: wrong.payload, k: wrong.signer, s: wrong.signature };
  assert.equal(reason(put({ m: envelope })), "tampered");
});

Deno.test("[3.2d] openBundle() survives any bytes, any change of one byte and any cut, with a refusal and nothing else", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 600 }), (input) => assert.equal(openBundle(input).ok, false)));
  // Random structures behind the right first byte.
  fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), (input) => {
    assert.equal(openBundle(new Uint8Array([0xa2, ...input])).ok, false);
  }));
  fc.assert(
    fc.property(fc.nat(RAW.length - 1), fc.integer({ min: 1, max: 255 }), (at, flip) => {
      const changed = RAW.slice();
      changed[at]! ^= flip;
      assert.equal(openBundle(changed, NETWORK_ID).ok, false);
    }),
    { numRuns: 300 },
  );
  for (let end = 0; end < RAW.length; end += 7) assert.equal(openBundle(RAW.subarray(0, end)).ok, false);
});

Deno.test("[3.2a] whatever sealBundle() accepts, openBundle() gives back", () => {
  const key = fc.stringMatching(/^[a-z][a-z0-9]{0,12}$/).map((name) => `app/${name}`);
  const record = fc.tuple(key, fc.option(fc.uint8Array({ maxLength: 100 }), { nil: "tombstone" as const }))
    .map(([name, value]) => lifted(spore(name, value)));
  fc.assert(
    fc.property(
      fc.array(record, { maxLength: 5 }),
      fc.array(fc.uint8Array({ maxLength: 50 }), { maxLength: 4 }),
      fc.constantFrom("master" as const, "service" as const, "full" as const),
      fc.nat(),
      (records, epochs, kind, seq) => {
        const opened = openBundle(sealBundle({ ...MANIFEST, kind, seq }, { epochs, records }, ISSUER), NETWORK_ID);
        assert.ok(opened.ok);
        assert.deepEqual(opened.bundle.records, records);
        assert.deepEqual(opened.bundle.epochs, epochs);
        assert.equal(opened.bundle.kind, kind);
        assert.equal(opened.bundle.seq, seq);
      },
    ),
    { numRuns: 40 },
  );
});

Deno.test("[3.2e] the content hash follows what is said, and not the number, the dates and the proofs", () => {
  const of = (change: object = {}) => contentHash({ ...MANIFEST, ...CONTENT, ...change }).join();
  const one = CONTENT.records[0]!;
  assert.equal(of({ seq: 9, issuedMs: NOW + 5, expiresMs: NOW + 9 }), of());
  assert.equal(
    of({ records: CONTENT.records.map((record) => ({ ...record, proof: { ...record.proof, index: 9 } })) }),
    of(),
  );
  for (
    const change of [
      { kind: "full" },
      { networkId: OTHER_NETWORK_ID },
      { addresses: [ADDRESS] },
      { genesis: undefined },
      { epochs: [new Uint8Array([1, 2]), new Uint8Array([3, 4])] },
      { decision: GENESIS_ENVELOPE },
      { profile: GENESIS_ENVELOPE },
      { records: [one] },
      { records: [...CONTENT.records].reverse() },
    ]
  ) assert.notEqual(of(change), of(), Object.keys(change)[0]!);
});

/** Room that some records take, each with a proof of one signature. */
function sizeOf(records: readonly Spore[]): number {
  return records.reduce((sum, one) => sum + encodeCbor(envelopeValue(one.envelope)).length + 160, 0);
}

Deno.test("[3.2c] where not all records fit, each service keeps an instance before any has two, and values go before tombstones", () => {
  const nodes = ["x", "y", "z"].map((name) => nodeIdOf(keyOf(name).publicKey)).sort();
  const all = [
    spore("app/settings"),
    spore("app/old", "tombstone"),
    ...nodes.map((node) => spore(`service/web/${node}`)),
    ...nodes.slice(0, 2).map((node) => spore(`service/dns/${node}`)),
  ];
  const keys = (bytesMax: number) => chooseRecords(all, bytesMax).chosen.map((one) => one.record.key);
  const whole = contentBytes({ epochs: [], records: all.map((one) => lifted(one)) }) + all.length * 20;
  assert.equal(keys(whole).length, all.length);
  const each = whole / all.length;
  const two = keys(2.5 * each);
  assert.deepEqual(two, [`service/dns/${nodes[0]}`, `service/web/${nodes[0]}`]);
  const values = all.filter((one) => one.record.value);
  const six = chooseRecords(all, sizeOf(values) + 50);
  assert.deepEqual(six.leftOut, 1);
  assert.ok(!six.chosen.some((one) => one.record.key === "app/old"));
  // The same on every issuer, whatever order it knows them in.
  fc.assert(
    fc.property(
      fc.shuffledSubarray(all, { minLength: all.length }),
      fc.integer({ min: 0, max: 3_000 }),
      (mixed, max) => {
        const chosen = (from: readonly Spore[]) => chooseRecords(from, max).chosen.map((one) => one.record.key);
        assert.deepEqual(chosen(mixed), chosen(all));
      },
    ),
  );
});

Deno.test("[3.2a] a bundle is bounded: the chosen records fit, and one that does not is not made", () => {
  const many = Array.from({ length: 700 }, (_, i) => spore(`app/record-${i}`, new Uint8Array(400)));
  const room = BUNDLE_BYTES_MAX - (16 << 10);
  const { chosen, leftOut } = chooseRecords(many, room);
  assert.ok(leftOut > 0 && chosen.length > 150, `${chosen.length} chosen`);
  assert.ok(chosen.length <= BUNDLE_RECORDS_MAX);
  const records = chosen.map((one) => lifted(one));
  assert.ok(contentBytes({ epochs: [], records }) <= room);
  const raw = sealBundle(MANIFEST, { epochs: [], records }, ISSUER);
  assert.ok(raw.length <= BUNDLE_BYTES_MAX && utf8(spellBundle(raw)).length <= BUNDLE_TEXT_BYTES_MAX);
  assert.ok(openBundle(utf8(spellBundle(raw)), NETWORK_ID).ok);
  assert.throws(
    () => sealBundle(MANIFEST, { epochs: [], records: many.map((one) => lifted(one)) }, ISSUER),
    (error) => error instanceof WireError && /fewer records/.test(error.message),
  );
});
