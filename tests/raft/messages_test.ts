import assert from "node:assert/strict";
import fc from "fast-check";
import { encodeCbor, WireError } from "../../src/core/codec.ts";
import { configOf } from "../../src/raft/config.ts";
import {
  decodeEntry,
  decodeHardState,
  decodeMessage,
  decodeSnapshotMeta,
  encodeEntry,
  encodeHardState,
  encodeMessage,
  encodeSnapshotMeta,
  type Entry,
  type RaftMessage,
} from "../../src/raft/messages.ts";

const index = fc.nat(2 ** 31 - 1);
const flag = fc.boolean();
const config = fc.constantFrom(configOf(["a", "b", "c"]), configOf(["a"], ["b"]));
const entries = (from: number, term: number) =>
  fc.array(fc.tuple(fc.nat(2), fc.uint8Array({ maxLength: 40 }), config), { maxLength: 5 }).map((drawn) =>
    drawn.map(([kind, data, one], i): Entry =>
      kind === 0
        ? { kind: "noop", term, index: from + 1 + i }
        : kind === 1
        ? { kind: "data", term, index: from + 1 + i, data }
        : { kind: "config", term, index: from + 1 + i, config: one }
    )
  );
const meta = fc.record({
  index: fc.integer({ min: 1, max: 1_000 }),
  term: fc.integer({ min: 1, max: 5 }),
  config,
  sizeBytes: fc.constant(1_000),
  digest: fc.uint8Array({ minLength: 32, maxLength: 32 }),
});

/** Any message of each type. */
const messages: fc.Arbitrary<RaftMessage> = fc.oneof(
  fc.record({
    type: fc.constantFrom("pre-vote", "vote"),
    term: index,
    lastLogIndex: index,
    lastLogTerm: index,
    transfer: flag,
  }),
  fc.record({ type: fc.constantFrom("pre-vote-response", "vote-response"), term: index, granted: flag }),
  fc.tuple(index, fc.integer({ min: 1, max: 9 }), index).chain(([prev, term, commitIndex]) =>
    entries(prev, term).map((list) => ({
      type: "append" as const,
      term: term + 1,
      prevLogIndex: prev,
      prevLogTerm: term - 1,
      entries: list,
      commitIndex,
    }))
  ),
  fc.record({ type: fc.constant("append-response"), term: index, index }),
  fc.record({ type: fc.constant("append-reject"), term: index, index, hintIndex: index, hintTerm: index }),
  fc.record({ type: fc.constant("heartbeat"), term: index, commitIndex: index, round: index }),
  fc.record({ type: fc.constant("heartbeat-response"), term: index, round: index }),
  fc.record({
    type: fc.constant("snapshot"),
    term: fc.integer({ min: 5, max: 9 }),
    meta,
    offset: fc.nat(900),
    data: fc.uint8Array({ maxLength: 100 }),
  }),
  fc.record({ type: fc.constant("snapshot-response"), term: index, index, offset: fc.nat(1_000) }),
  fc.record({ type: fc.constant("timeout-now"), term: index }),
  fc.record({ type: fc.constant("read-request"), term: index, incarnation: index, id: index }),
  fc.record({
    type: fc.constant("read-response"),
    term: index,
    incarnation: index,
    id: index,
    index: fc.option(index, { nil: undefined }),
  }),
) as fc.Arbitrary<RaftMessage>;

Deno.test("[10.1b] decodeMessage() gives back what encodeMessage() was given", () => {
  const seen = new Set<string>();
  fc.assert(
    fc.property(messages, (message) => {
      seen.add(message.type);
      const back = decodeMessage(encodeMessage(message));
      assert.deepEqual(encodeMessage(back), encodeMessage(message));
      assert.equal(back.type, message.type);
      if (message.type === "append") assert.deepEqual(back, message);
    }),
    { numRuns: 1_500, seed: 1 },
  );
  assert.equal(seen.size, 14);
});

/** Calls it; anything but a value or a WireError fails. Returns whether it gave a value. */
function survives(decode: () => unknown): boolean {
  try {
    decode();
    return true;
  } catch (error) {
    assert.ok(error instanceof WireError, `${error}`);
    return false;
  }
}

Deno.test("[10.1b] decoders: flipped, cut and random bytes give a WireError or a value, nothing else", () => {
  let refused = 0;
  const harm = fc.record({ at: fc.nat(), bit: fc.nat(7), cut: fc.nat(3) });
  fc.assert(
    fc.property(messages, harm, fc.uint8Array({ maxLength: 60 }), (message, { at, bit, cut }, random) => {
      const bytes = encodeMessage(message);
      bytes[at % bytes.length]! ^= 1 << bit;
      if (!survives(() => decodeMessage(bytes))) refused++;
      survives(() => decodeMessage(bytes.subarray(0, bytes.length - 1 - cut)));
      for (const decode of [decodeMessage, decodeEntry, decodeHardState, decodeSnapshotMeta]) {
        survives(() => decode(random));
        survives(() => decode(bytes));
      }
    }),
    { numRuns: 1_500, seed: 1 },
  );
  assert.ok(refused > 300, `${refused} harmed messages were refused`);
});

Deno.test("decodeMessage() refuses terms that fall, entries of a later term than the leader's, chunks past the end", () => {
  const append = (terms: readonly number[], prev: number, term: number) =>
    encodeCbor([4, term, { c: 0, e: terms.map((one) => [one, null]), i: 7, l: prev }]);
  assert.equal(decodeMessage(append([2, 3], 2, 3)).type, "append");
  for (const bad of [append([3, 2], 2, 3), append([1], 2, 3), append([4], 2, 3), append([0], 0, 3)]) {
    assert.throws(() => decodeMessage(bad), /does not follow/);
  }
  const snapshot: RaftMessage = {
    type: "snapshot",
    term: 3,
    meta: { index: 4, term: 2, config: configOf(["a"]), sizeBytes: 5, digest: new Uint8Array(32) },
    offset: 3,
    data: new Uint8Array(3),
  };
  assert.throws(() => decodeMessage(encodeMessage(snapshot)), /longer than the snapshot/);
  assert.throws(() => decodeMessage(encodeMessage({ ...snapshot, offset: 0, term: 1 })), /no such snapshot/);
});

Deno.test("what is stored reads back: entries, hard state, snapshot meta", () => {
  fc.assert(
    fc.property(entries(8, 3), meta, (list, one) => {
      for (const entry of list) assert.deepEqual(decodeEntry(encodeEntry(entry)), entry);
      assert.deepEqual(decodeSnapshotMeta(encodeSnapshotMeta(one)), { ...one });
    }),
    { numRuns: 200, seed: 1 },
  );
  for (const votedFor of [undefined, "a"]) {
    assert.deepEqual(decodeHardState(encodeHardState({ term: 4, votedFor })), { term: 4, votedFor });
  }
});
