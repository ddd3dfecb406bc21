/** The bytes of failure detection: round trips, sizes, and what is refused. @module */

import assert from "node:assert/strict";
import fc from "fast-check";
import { encodeCbor, WireError } from "../../src/core/codec.ts";
import { sealEnvelope } from "../../src/core/envelope.ts";
import { LIMITS } from "../../src/core/limits.ts";
import {
  decodeSwim,
  encodeSwim,
  handleOf,
  INCARNATION_MAX,
  NEXT_MS_MAX,
  openNews,
  sealNews,
  SEQ_MAX,
  type SwimMessage,
  type SwimUpdate,
} from "../../src/membership/swim_messages.ts";
import { keyOf, NETWORK_ID, OTHER_NETWORK_ID } from "./kit.ts";

const handle = fc.uint8Array({ minLength: 32, maxLength: 32 }).map(handleOf);
const incarnation = fc.integer({ min: 0, max: INCARNATION_MAX });
const seq = fc.integer({ min: 0, max: SEQ_MAX });
const update: fc.Arbitrary<SwimUpdate> = fc.record({
  kind: fc.constantFrom("alive" as const, "suspect" as const, "dead" as const),
  subject: handle,
  incarnation,
  accuser: handle,
}, { requiredKeys: ["kind", "subject", "incarnation"], noNullPrototype: true });
const updates = fc.array(update, { maxLength: LIMITS.swimUpdatesPerMessageMax });
const message: fc.Arbitrary<SwimMessage> = fc.oneof(
  fc.record({
    type: fc.constant("ping" as const),
    seq,
    incarnation,
    nextMs: fc.integer({ min: 0, max: NEXT_MS_MAX / 100 }).map((one) => one * 100),
    updates,
  }, { noNullPrototype: true }),
  fc.record({ type: fc.constant("ack" as const), seq, incarnation, updates }, { noNullPrototype: true }),
  fc.record({ type: fc.constant("ping-req" as const), seq, target: handle, updates }, { noNullPrototype: true }),
  fc.record({ type: fc.constant("indirect-ack" as const), seq }, { noNullPrototype: true }),
  fc.record({ type: fc.constant("nack" as const), seq, tried: fc.boolean() }, { noNullPrototype: true }),
  fc.record({ type: fc.constant("news" as const), updates }, { noNullPrototype: true }),
);

Deno.test("[3.3b] [10.1b] encodeSwim() and decodeSwim(): every message comes back as it was, in one datagram", () => {
  fc.assert(fc.property(message, (one) => {
    const bytes = encodeSwim(one);
    assert.ok(bytes.length + 1 <= LIMITS.datagramBytesMax);
    assert.deepEqual(decodeSwim(bytes), one);
  }));
});

Deno.test("[3.3e] encodeSwim(): a ping without news takes ten bytes, one with the news of a death some twenty more", () => {
  const ping = { type: "ping", seq: 40_000, incarnation: 300, nextMs: 1_000, updates: [] } as const;
  assert.equal(encodeSwim(ping).length, 10);
  const news = { kind: "dead", subject: "0123456789abcdef", incarnation: 20 } as const;
  assert.equal(encodeSwim({ ...ping, updates: [news] }).length, 22);
  assert.equal(encodeSwim({ ...ping, updates: [{ ...news, accuser: "fedcba9876543210" }] }).length, 31);
});

Deno.test("encodeSwim(): a promise of the next ping is rounded up, and cut off at its largest", () => {
  const promised = (nextMs: number) => {
    const read = decodeSwim(encodeSwim({ type: "ping", seq: 1, incarnation: 1, nextMs, updates: [] }));
    return read.type === "ping" ? read.nextMs : NaN;
  };
  assert.deepEqual([0, 1, 100, 950, 1e9].map(promised), [0, 100, 100, 1_000, NEXT_MS_MAX]);
});

Deno.test("[10.1a] decodeSwim() fuzz: cut, flipped and random input gives a WireError or a message", () => {
  const read = (bytes: Uint8Array) => {
    try {
      decodeSwim(bytes);
    } catch (error) {
      assert.ok(error instanceof WireError, String(error));
    }
  };
  fc.assert(fc.property(fc.uint8Array({ maxLength: 2_000 }), read));
  fc.assert(fc.property(message, fc.nat(), fc.integer({ min: 0, max: 7 }), (one, at, bit) => {
    const bytes = encodeSwim(one);
    for (let length = 0; length < bytes.length; length++) {
      assert.throws(() => decodeSwim(bytes.subarray(0, length)), WireError, "a piece is no message");
    }
    bytes[at % bytes.length]! ^= 1 << bit;
    read(bytes);
    // What is read is written in one way only.
    try {
      assert.deepEqual(encodeSwim(decodeSwim(bytes)), bytes);
    } catch (error) {
      assert.ok(error instanceof WireError, String(error));
    }
  }));
});

Deno.test("[3.4b] decodeSwim() refuses what is out of range, too long, or of a type that there is not", () => {
  const subject = new Uint8Array(8);
  const refused: readonly (readonly [string, Parameters<typeof encodeCbor>[0]])[] = [
    ["no array", { t: 0 }],
    ["no type", []],
    ["unknown type", [6, 1]],
    ["too few items", [0, 1, 1, 0]],
    ["too many items", [3, 1, 1]],
    ["seq too large", [3, SEQ_MAX + 1]],
    ["negative", [3, -1]],
    ["incarnation too large", [1, 1, INCARNATION_MAX + 1, []]],
    ["promise too long", [0, 1, 1, 256, []]],
    ["handle too short", [2, 1, new Uint8Array(7), []]],
    ["handle too long", [2, 1, new Uint8Array(9), []]],
    ["tried is neither", [4, 1, 2]],
    ["unknown kind", [5, [[3, subject, 1]]]],
    ["update of two items", [5, [[0, subject]]]],
    ["update of five items", [5, [[0, subject, 1, subject, 1]]]],
    ["too much news", [5, Array.from({ length: LIMITS.swimUpdatesPerMessageMax + 1 }, () => [0, subject, 1])]],
    ["news of text", [5, "news"]],
  ];
  for (const [what, value] of refused) assert.throws(() => decodeSwim(encodeCbor(value)), WireError, what);
  assert.throws(() => decodeSwim(new Uint8Array(LIMITS.datagramBytesMax + 1)), WireError);
});

Deno.test("[3.4b] [3.5d] openNews(): news is read as it was signed, and in no other network, nor changed by a bit", () => {
  fc.assert(
    fc.property(updates, fc.nat(), (some, at) => {
      const news = { atMs: 1_000 + at, updates: some };
      const envelope = sealNews(news, NETWORK_ID, keyOf(1));
      assert.deepEqual(openNews(envelope, NETWORK_ID), news);
      assert.throws(() => openNews(envelope, OTHER_NETWORK_ID), WireError);
      const payload = envelope.payload.slice();
      payload[at % payload.length]! ^= 1 << at % 8;
      assert.throws(() => openNews({ ...envelope, payload }, NETWORK_ID), WireError);
      assert.throws(() => openNews({ ...envelope, signer: keyOf(2).publicKey }, NETWORK_ID), WireError);
    }),
    { numRuns: 30 },
  );
  const record = sealEnvelope({ t: 1, u: [[9, new Uint8Array(8), 1]] }, {
    type: "health/1",
    networkId: NETWORK_ID,
    signer: keyOf(1),
  });
  assert.throws(() => openNews(record, NETWORK_ID), WireError, "signed nonsense is nonsense");
});
