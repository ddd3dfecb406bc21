import assert from "node:assert/strict";
import fc from "fast-check";
import { encodeCbor, WireError } from "../../src/core/codec.ts";
import { LIMITS } from "../../src/core/limits.ts";
import {
  decodeFrame,
  encodeFrame,
  type GossipFrame,
  ID_BYTES,
  idBytes,
  type MessageId,
  messageId,
} from "../../src/spore/gossip_wire.ts";

/** Objects as a program writes them. */
const PLAIN = { noNullPrototype: true } as const;
const id: fc.Arbitrary<MessageId> = fc.uint8Array({ minLength: ID_BYTES, maxLength: ID_BYTES }).map((raw) =>
  String.fromCharCode(...raw)
);
const ids = fc.array(id, { maxLength: 40 });
const topic = fc.stringMatching(/^[a-z][a-z0-9-]{0,15}$/);
const topics = fc.array(topic, { maxLength: 16 });

/** Any frame. */
const frames: fc.Arbitrary<GossipFrame> = fc.record({
  messages: fc.array(fc.record({ topic, body: fc.uint8Array({ maxLength: 300 }) }, PLAIN), { maxLength: 5 }),
  ihave: ids,
  iwant: ids,
  idontwant: ids,
  graft: topics,
  prune: fc.array(fc.record({ topic, backoffS: fc.nat(3_600) }, PLAIN), { maxLength: 16 }),
  choke: topics,
  unchoke: topics,
}, PLAIN);

Deno.test("[3.5a] gossip frames: what is written is read, whatever it is", () => {
  fc.assert(fc.property(frames, (frame) => assert.deepEqual(decodeFrame(encodeFrame(frame)), frame)));
});

Deno.test("[3.5a] gossip frames: a message of 249 bytes takes 261 in its frame, an announcement 20", () => {
  assert.equal(encodeFrame({ messages: [{ topic: "news", body: new Uint8Array(249) }] }).length, 249 + 12);
  assert.equal(encodeFrame({ ihave: ["0123456789abcdef"] }).length, 16 + 4);
  assert.equal(encodeFrame({}).length, 1);
});

Deno.test("[3.5a] gossip frames: a single message is read in short as in full, also where a byte is off", () => {
  const single = fc.record({ topic, body: fc.uint8Array({ maxLength: 300 }) }, PLAIN);
  fc.assert(
    fc.property(single, fc.nat(30), fc.nat(255), (message, at, xor) => {
      const bytes = encodeFrame({ messages: [message] });
      bytes[at % bytes.length]! ^= xor;
      // The same in full: with one more entry the short way is not taken.
      const full = new Uint8Array([0xa2, ...bytes.subarray(1), 0x62, 0x7a, 0x7a, 0x01]);
      const read = (input: Uint8Array) => {
        try {
          return decodeFrame(input);
        } catch (error) {
          if (error instanceof WireError) return "none";
          throw error;
        }
      };
      if (bytes[0] === 0xa1) assert.deepEqual(read(bytes), read(full));
    }),
    { numRuns: 3_000 },
  );
});

Deno.test("[3.3b] gossip frames: cut off, changed or random bytes give a WireError and nothing else", () => {
  const attempt = (bytes: Uint8Array) => {
    try {
      decodeFrame(bytes);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
    }
  };
  fc.assert(fc.property(frames, fc.nat(), fc.nat(255), (frame, at, xor) => {
    const bytes = encodeFrame(frame);
    attempt(bytes.subarray(0, at % bytes.length));
    const changed = bytes.slice();
    changed[at % bytes.length]! ^= xor;
    attempt(changed);
  }));
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), attempt), { numRuns: 2_000 });
});

Deno.test("[3.3b] [3.5b] gossip frames: whatever is over a bound or out of form is refused whole", () => {
  const message = (body: Uint8Array) => ["news", body];
  const bad: readonly (readonly [string, Parameters<typeof encodeCbor>[0]])[] = [
    ["a body that is too long", { m: [message(new Uint8Array(LIMITS.gossipBodyBytesMax + 1))] }],
    ["too many messages", {
      m: Array.from({ length: LIMITS.gossipMessagesPerFrameMax + 1 }, () => message(new Uint8Array(1))),
    }],
    ["too many ids", { h: new Uint8Array(ID_BYTES * (LIMITS.gossipIdsPerFrameMax + 1)) }],
    ["half an id", { w: new Uint8Array(ID_BYTES + 1) }],
    ["ids as a list", { n: [new Uint8Array(ID_BYTES)] }],
    ["a message of three", { m: [["news", new Uint8Array(1), 1]] }],
    ["a message that is none", { m: [1] }],
    ["a topic in capitals", { g: ["NEWS"] }],
    ["a topic that is too long", { c: ["a".repeat(17)] }],
    ["too many topics", { u: Array.from({ length: 17 }, () => "news") }],
    ["a back-off of more than an hour", { p: [["news", 3_601]] }],
    ["a negative back-off", { p: [["news", -1]] }],
    ["a frame that is a list", []],
  ];
  for (const [what, value] of bad) assert.throws(() => decodeFrame(encodeCbor(value)), WireError, what);
  assert.deepEqual(decodeFrame(encodeCbor({ zz: "of a newer node" })), decodeFrame(encodeCbor({})));
});

Deno.test("[3.3b] message ids: name topic and content, and nothing else", () => {
  const body = Uint8Array.of(1, 2, 3);
  assert.equal(messageId({ topic: "news", body }), messageId({ topic: "news", body: body.slice() }));
  assert.notEqual(messageId({ topic: "news", body }), messageId({ topic: "spores", body }));
  assert.notEqual(messageId({ topic: "news", body }), messageId({ topic: "news", body: Uint8Array.of(1, 2) }));
  assert.equal(messageId({ topic: "news", body }).length, ID_BYTES);
  fc.assert(fc.property(id, (one) => assert.equal(String.fromCharCode(...idBytes(one)), one)));
});
