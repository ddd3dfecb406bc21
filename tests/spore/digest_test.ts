import assert from "node:assert/strict";
import fc from "fast-check";
import { encodeCbor } from "../../src/core/codec.ts";
import {
  answerDigest,
  Digest,
  type DigestItem,
  keysOfIds,
  packIds,
  placeOf,
  Repair,
  unpackIds,
  ZONES,
} from "../../src/spore/digest.ts";
import { digestAnswerValue, digestAskValue, readDigestAnswer, readDigestAsk } from "../../src/spore/messages.ts";
import { SporeTable } from "../../src/spore/table.ts";
import { paper, stateOf, T0 } from "./table_kit.ts";

const ALL = ZONES.map((_, i) => i);

/** Runs a repair to its end as two nodes would, over the real encoding; counts what it takes. */
function repair(asking: SporeTable, other: SporeTable, zones = ALL): { bytes: number; rounds: number; moved: number } {
  const run = new Repair(asking.digest, zones);
  let bytes = 0, rounds = 0, moved = 0;
  for (let ask = run.next(); ask; ask = run.next()) {
    rounds += 1;
    const question = encodeCbor(digestAskValue(ask));
    const answer = encodeCbor(digestAnswerValue(answerDigest(other.digest, readDigestAsk(digestAskValue(ask), "ask"))));
    bytes += question.length + answer.length;
    const { give, want } = run.take(
      readDigestAnswer(digestAnswerValue(answerDigest(other.digest, ask)), "answer").parts,
    );
    const given = give.flatMap((key) => asking.versions(key));
    for (const { ids, ...name } of want) {
      for (const key of keysOfIds(other.digest, name, ids)) {
        for (const one of other.versions(key)) moved += Number(asking.merge(one, T0).changed);
      }
    }
    // What is wanted is looked up before what is given changes it.
    for (const one of given) moved += Number(other.merge(one, T0).changed);
    assert.ok(rounds < 10_000, "it comes to an end");
  }
  return { bytes, rounds, moved };
}

function filled(count: number): SporeTable {
  const table = new SporeTable();
  for (let i = 0; i < count; i++) {
    table.merge(paper({ key: `app/key-${i}`, author: i % 50, seq: T0 + i, value: "a" }), T0);
  }
  return table;
}

Deno.test("[3.3b] Repair: two tables with anything in them hold the same afterwards", () => {
  const version = fc.record({
    key: fc.tuple(fc.constantFrom(...ZONES), fc.integer({ min: 0, max: 40 })).map(([zone, i]) => `${zone}/k${i}/x`),
    author: fc.nat(2),
    seq: fc.integer({ min: 0, max: 3 }).map((n) => T0 + n),
    value: fc.option(fc.constantFrom("a", "b"), { nil: undefined }),
    proof: fc.option(fc.record({ tier: fc.constant("seed" as const), index: fc.integer({ min: 1, max: 3 }) }), {
      nil: undefined,
    }),
  }).map(paper);
  fc.assert(
    fc.property(fc.array(version, { maxLength: 120 }), fc.array(version, { maxLength: 120 }), (left, right) => {
      const [a, b, both] = [new SporeTable(), new SporeTable(), new SporeTable()];
      for (const one of left) for (const table of [a, both]) table.merge(one, T0);
      for (const one of right) for (const table of [b, both]) table.merge(one, T0);
      repair(a, b);
      assert.equal(stateOf(a), stateOf(both));
      assert.equal(stateOf(b), stateOf(both));
      assert.deepEqual(repair(b, a), { ...repair(b, a), rounds: 1, moved: 0 });
    }),
    { numRuns: 60 },
  );
});

Deno.test("[3.3b] [3.5a] Repair: one difference costs bytes by the logarithm of the table, and few round trips", () => {
  const costs = [10, 100, 1_000, 10_000].map((count) => {
    const [a, b] = [filled(count), filled(count)];
    const same = repair(a, b);
    assert.ok(same.rounds === 1 && same.bytes < 120, `equal tables: ${same.bytes} bytes in ${same.rounds} rounds`);
    b.merge(paper({ key: "app/key-3", author: 3, seq: T0 + 1_000_000, value: "b" }), T0);
    const cost = repair(a, b);
    assert.equal(cost.moved, 1);
    assert.equal(stateOf(a), stateOf(b));
    assert.ok(cost.rounds <= 3, `${cost.rounds} round trips at ${count}`);
    return cost.bytes;
  });
  assert.ok(costs[3]! < 1_000, `${costs}`);
  // A hundred times the records, less than twice the bytes.
  assert.ok(costs[3]! < 2 * costs[1]!, `${costs}`);
});

Deno.test("[3.3b] Repair: an empty table is filled, and one that stops may go on with another", () => {
  const full = filled(3_000);
  const empty = new SporeTable();
  // A few questions with one, then the rest with another.
  const first = new Repair(empty.digest, ALL);
  for (let i = 0; i < 2; i++) {
    const { want } = first.take(answerDigest(full.digest, first.next()!));
    for (const { ids, ...name } of want) {
      for (const key of keysOfIds(full.digest, name, ids)) for (const one of full.versions(key)) empty.merge(one, T0);
    }
  }
  const { rounds } = repair(empty, full);
  assert.equal(stateOf(empty), stateOf(full));
  assert.ok(rounds < 40, `${rounds} rounds`);
});

Deno.test("[3.3e] Repair: zones that a device does not keep are not compared", () => {
  const [device, whole] = [new SporeTable(), new SporeTable()];
  for (const zone of ZONES) whole.merge(paper({ key: `${zone}/a/b`, seq: T0, value: "a" }), T0);
  repair(device, whole, [ZONES.indexOf("service"), ZONES.indexOf("net")]);
  assert.deepEqual(device.keys("").sort(), ["net/a/b", "service/a/b"]);
});

Deno.test("Repair: an answer that was made up gives no endless run", () => {
  const table = filled(100);
  const run = new Repair(table.digest, ALL);
  let rounds = 0;
  for (let ask = run.next(); ask; ask = run.next()) {
    rounds += 1;
    assert.ok(rounds < 200, "it comes to an end");
    // Everything differs, always: what the liar says of nodes that were not asked for leads nowhere either.
    run.take(
      [...ask.parts, { zone: 3, node: 0 }, { zone: 1, node: 17 }].map(({ zone, node }) => (
        node >= 273
          ? { zone, node, list: packIds(["ffffffffffffffff"]) }
          : { zone, node, sums: new Uint8Array(128).fill(9) }
      )),
    );
    if (rounds > 150) break;
  }
  assert.ok(rounds <= 151);
});

Deno.test("[3.5b] Repair: an answer counts for what was asked, and once for each node", () => {
  const table = filled(2_000);
  const run = new Repair(table.digest, ALL);
  run.next();
  const app = ZONES.indexOf("app");
  const nothing = packIds([]);
  const roots = Array.from({ length: 500 }, () => ({ zone: app, node: 0, list: nothing }));
  assert.equal(run.take(roots).give.length, 2_000, "every key once, however often its root is said to be empty");
  assert.equal(run.take(roots).give.length, 0, "and not without a question");
  const other = new Repair(table.digest, ALL);
  other.next();
  const leaf = placeOf("app/key-7") % 4_096 + 1 + 16 + 256;
  assert.deepEqual(
    other.take([{ zone: app, node: leaf, list: nothing }]),
    { give: [], want: [] },
    "nobody asked there",
  );
});

Deno.test("Digest: sums are those of a 64-bit adder, whatever is taken in and out in what order", () => {
  const half = fc.integer({ min: 0, max: 0xffff_ffff });
  const entry = fc.record({ n: fc.nat(30), high: half, low: fc.oneof(half, fc.constant(0xffff_ffff)) });
  fc.assert(
    fc.property(fc.uniqueArray(entry, { selector: (one) => one.n, maxLength: 20 }), fc.nat(19), (entries, drop) => {
      const items = new Map<string, DigestItem>();
      const digest = new Digest((key) => items.get(key));
      let sum = 0n;
      for (const { n, high, low } of entries) {
        const item = { place: placeOf(`app/${n}`), high, low };
        items.set(`app/${n}`, item);
        digest.add(`app/${n}`, item);
        sum += (BigInt(high) << 32n) + BigInt(low);
      }
      const dropped = entries[drop];
      if (dropped) {
        digest.remove(`app/${dropped.n}`, items.get(`app/${dropped.n}`)!);
        sum -= (BigInt(dropped.high) << 32n) + BigInt(dropped.low);
      }
      const bytes = digest.sum({ zone: 3, node: 0 });
      assert.equal(new DataView(bytes.buffer).getBigUint64(0), BigInt.asUintN(64, sum));
      assert.equal(digest.count({ zone: 3, node: 0 }), entries.length - Number(dropped !== undefined));
      // The sums of the children of a node add up to its own, level by level.
      const children = digest.childSums({ zone: 3, node: 0 });
      let total = 0n;
      for (let i = 0; i < 16; i++) total += new DataView(children.buffer).getBigUint64(8 * i);
      assert.equal(BigInt.asUintN(64, total), BigInt.asUintN(64, sum));
    }),
  );
});

Deno.test("Digest: keys() of a node are those of its children", () => {
  const { digest } = filled(300);
  const children = Array.from({ length: 16 }, (_, i) => digest.keys({ zone: 3, node: 1 + i })).flat();
  assert.deepEqual(children.sort(), digest.keys({ zone: 3, node: 0 }).sort());
  assert.equal(children.length, 300);
  const grandchildren = Array.from({ length: 16 }, (_, i) => digest.keys({ zone: 3, node: 17 + 16 * 4 + i })).flat();
  assert.deepEqual(grandchildren.sort(), digest.keys({ zone: 3, node: 1 + 4 }).sort());
});

Deno.test("placeOf() spreads keys evenly, also such as differ in a digit", () => {
  for (const name of ["app/key-", "service/web/", "node/12D3KooWARttnwUhRVpbQLkkXbgVgByyWoBxTpdJUi6m7ap7dkqG/"]) {
    const counts = new Map<number, number>();
    for (let i = 0; i < 40_960; i++) counts.set(placeOf(name + i), (counts.get(placeOf(name + i)) ?? 0) + 1);
    // Ten a leaf on average: even as chance would have it.
    assert.ok(counts.size > 4_080, `${counts.size} leaves used`);
    assert.ok(Math.max(...counts.values()) < 32, `${Math.max(...counts.values())} in one leaf`);
  }
});

Deno.test("packIds() and unpackIds() are inverse", () => {
  const ids = ["0000000000000001", "ffffffff00000000", "89abcdef01234567"];
  assert.deepEqual(unpackIds(packIds(ids)), ids);
  assert.throws(() => unpackIds(new Uint8Array(9)), { name: "WireError" });
});
