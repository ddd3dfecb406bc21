import assert from "node:assert/strict";
import fc from "fast-check";
import { utf8 } from "../../src/core/bytes.ts";
import { type CborValue, decodeCbor, encodeCbor, type Reader, WireError } from "../../src/core/codec.ts";
import { compressBytes } from "../../src/core/compress.ts";
import { keyPairFromSeed, sha256 } from "../../src/core/crypto.ts";
import { LIMITS } from "../../src/core/limits.ts";
import {
  confirmAnswerValue,
  confirmValue,
  deltaAnswerValue,
  deltaAskValue,
  digestAnswerValue,
  digestAskValue,
  pushValue,
  readAnswerValue,
  readConfirm,
  readConfirmAnswer,
  readDeltaAnswer,
  readDeltaAsk,
  readDigestAnswer,
  readDigestAsk,
  readPush,
  readRead,
  readReadAnswer,
  readValue,
  readVersion,
  squeezed,
  VersionBatch,
  VERSIONS_BYTES_MAX,
  VERSIONS_MAX,
  versionValue,
  WANTED_MAX,
} from "../../src/spore/messages.ts";
import { readProof, signRank } from "../../src/spore/proof.ts";
import { readSpore, RECORD_LIFE_MS_MAX, sealSpore, VALUE_BYTES_MAX } from "../../src/spore/record.ts";
import type { Version } from "../../src/spore/table.ts";
import { checkVersion, type SporeFacts } from "../../src/spore/validation.ts";

const NETWORK = sha256(utf8("a network"));
const NOW = 1_800_000_000_000;
const ann = keyPairFromSeed(sha256(utf8("ann")));

function version(value = "a", withProof = true): Version {
  const spore = sealSpore(
    { key: "app/x", seq: NOW, value: utf8(value), issuedMs: NOW, expiresMs: NOW + RECORD_LIFE_MS_MAX },
    NETWORK,
    ann,
  );
  const statement = { tier: "primary", term: 3, index: 9, epoch: 1, untilMs: NOW + 1_000 } as const;
  const subject = { networkId: NETWORK, key: "app/x", hash: spore.hash };
  return { spore, proof: withProof ? { ...statement, signatures: [signRank(subject, statement, ann)] } : undefined };
}

const list = new Uint8Array(24).map((_, i) => i);
const part = { zone: 3, node: 17, list };
const sums = { zone: 3, node: 1, sums: new Uint8Array(128) };

/** Each message with an example. */
const MESSAGES: Readonly<Record<string, readonly [Reader<unknown>, CborValue]>> = {
  version: [readVersion, versionValue(version())],
  push: [readPush, pushValue([version(), version("b", false)])],
  "digest ask": [readDigestAsk, digestAskValue({ roots: new Map([[0, new Uint8Array(8)]]), parts: [sums] })],
  "digest answer": [readDigestAnswer, digestAnswerValue([part, sums])],
  "delta ask": [readDeltaAsk, deltaAskValue([version()], [part])],
  "delta answer": [readDeltaAnswer, deltaAnswerValue([versionValue(version())], 3)],
  confirm: [readConfirm, confirmValue("app/x", new Uint8Array(32))],
  "confirm answer": [readConfirmAnswer, confirmAnswerValue("replaced")],
  read: [readRead, readValue("app/", "app/x")],
  "read answer": [readReadAnswer, readAnswerValue([versionValue(version())], "app/x")],
};

const facts: SporeFacts = {
  networkId: NETWORK,
  nowMs: NOW,
  skewMs: 300_000,
  member: () => true,
  revoked: () => false,
  issuer: () => true,
  issuersOf: () => [ann.publicKey],
  distrusted: () => false,
};

function onlyWireError(read: () => unknown): unknown {
  try {
    return read();
  } catch (error) {
    assert.ok(error instanceof WireError, `${error}`);
    return undefined;
  }
}

for (const [name, [reader, example]] of Object.entries(MESSAGES)) {
  const encoded = encodeCbor(example);

  Deno.test(`[3.5a] ${name}: what is written reads, and a newer one with more in it reads as well`, () => {
    const read = reader(decodeCbor(encoded), "$");
    assert.ok(read !== undefined);
    const newer = { ...(example as Record<string, CborValue>), zz: [1, 2], v: 9 };
    if (name !== "version") assert.deepEqual(reader(decodeCbor(encodeCbor(newer)), "$") !== undefined, true);
  });

  Deno.test(`${name}: cut, bent and invented bytes give WireError and nothing else`, () => {
    for (let end = 0; end < encoded.length; end++) {
      assert.equal(onlyWireError(() => reader(decodeCbor(encoded.subarray(0, end)), "$")), undefined, `cut at ${end}`);
    }
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(encoded.length - 1), fc.nat(255)), { minLength: 1, maxLength: 6 }),
        (flips) => {
          const bent = encoded.slice();
          for (const [at, byte] of flips) bent[at] = byte;
          const read = onlyWireError(() => reader(decodeCbor(bent), "$"));
          // What still reads is judged, and judging throws nothing either.
          for (const one of name === "push" && Array.isArray(read) ? read : []) {
            checkVersion(one, facts);
            onlyWireError(() => readSpore(one.envelope));
          }
        },
      ),
      { numRuns: 300 },
    );
    const values = fc.letrec<{ value: CborValue }>((tie) => ({
      value: fc.oneof(
        { maxDepth: 4 },
        fc.integer(),
        fc.string(),
        fc.boolean(),
        fc.constant(null),
        fc.uint8Array({ maxLength: 70 }),
        fc.array(tie("value"), { maxLength: 4 }),
        fc.dictionary(
          fc.constantFrom("v", "g", "w", "q", "r", "a", "z", "n", "s", "l", "k", "h", "e", "p", "t"),
          tie("value"),
        ),
      ) as fc.Arbitrary<CborValue>,
    }));
    fc.assert(fc.property(values.value, (value) => void onlyWireError(() => reader(value, "$"))), { numRuns: 300 });
  });
}

Deno.test("[3.5a] squeezed(): large bodies are compressed for who reads that, and read as the same", () => {
  const many = Array.from({ length: 40 }, (_, i) => versionValue(version(`value ${i}`)));
  const body = deltaAnswerValue(many, 40);
  const packed = squeezed(body, 1);
  assert.ok("z" in (packed as object));
  assert.ok(encodeCbor(packed).length < encodeCbor(body).length * 0.7);
  assert.deepEqual(readDeltaAnswer(packed, "$"), readDeltaAnswer(body, "$"));
  // An older node, or one whose runtime cannot, gets it plain; so does everybody what is small.
  assert.equal(squeezed(body, 0), body);
  assert.equal(squeezed(body, 2), body);
  const small = deltaAnswerValue(many.slice(0, 1), 1);
  assert.equal(squeezed(small, 1), small);
});

Deno.test("squeezed(): what was bent, or is a bomb, gives WireError and nothing else", () => {
  const many = Array.from({ length: 40 }, (_, i) => versionValue(version(`value ${i}`)));
  const { z } = squeezed(deltaAnswerValue(many, 40), 1) as { readonly z: Uint8Array };
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(z.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 }), (flips) => {
      const bent = z.slice();
      for (const [at, byte] of flips) bent[at] = byte;
      onlyWireError(() => readDeltaAnswer({ v: 1, z: bent }, "$"));
    }),
    { numRuns: 200 },
  );
  const bomb = compressBytes(new Uint8Array(64 << 20))!;
  assert.ok(bomb.length < 10_000, `${bomb.length}`);
  assert.throws(() => readDeltaAnswer({ v: 1, z: bomb }, "$"), WireError);
  // Compressed twice is not read twice.
  const twice = compressBytes(encodeCbor({ v: 1, z, pad: new Uint8Array(9_000) }))!;
  assert.throws(() => readDeltaAnswer({ v: 1, z: twice }, "$"), WireError);
  assert.throws(() => readDeltaAnswer({ v: 1, z: "text" }, "$"), WireError);
});

Deno.test("[3.5b] messages: more than the bounds is refused", () => {
  const many = Array.from({ length: VERSIONS_MAX + 1 }, () => versionValue(version("a", false)));
  assert.throws(() => readPush({ v: 1, g: many }, "$"), WireError);
  const ids = { zone: 3, node: 17, list: new Uint8Array(8 * (WANTED_MAX + 1)) };
  assert.throws(() => readDeltaAsk(deltaAskValue([], [ids]), "$"), WireError);
  assert.throws(() => readDigestAsk({ v: 1, q: Array.from({ length: 65 }, () => ({ z: 0, n: 0 })) }, "$"), WireError);
  assert.throws(() => readDigestAnswer({ v: 1, a: [{ z: 0, n: 0, l: new Uint8Array(12) }] }, "$"), WireError);
  const key = new Uint8Array(32), signature = new Uint8Array(64);
  const signatures = Array.from({ length: LIMITS.issuersMax + 1 }, () => ({ k: key, s: signature }));
  assert.throws(() => readProof({ t: "primary", m: 1, i: 1, e: 1, u: 1, s: signatures }, "$"), WireError);
});

Deno.test("[3.5b] VersionBatch: a message of versions stays within its bytes, and always holds one", () => {
  const batch = new VersionBatch();
  const large = version("a".repeat(VALUE_BYTES_MAX));
  let count = 0;
  while (batch.add(large)) count += 1;
  assert.ok(count > 8 && count <= 16, `${count}`);
  const encoded = encodeCbor({ v: 1, g: batch.values });
  assert.ok(encoded.length <= VERSIONS_BYTES_MAX + 2_048, `${encoded.length}`);
  const small = new VersionBatch();
  for (let i = 0; i < VERSIONS_MAX; i++) assert.ok(small.add(version("a", false)));
  assert.equal(small.add(version("a", false)), false);
});
