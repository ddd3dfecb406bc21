import assert from "node:assert/strict";
import fc from "fast-check";
import { toHex } from "../../src/core/bytes.ts";
import { LIMITS } from "../../src/core/limits.ts";
import { seededRng, shuffled } from "../../src/core/rng.ts";
import { bucketOf, DIGEST_BUCKETS, type Member, MemberTable, supersedes } from "../../src/membership/table.ts";
import { rowOf } from "./kit.ts";

/** What counts of a table: each node with its record and its credential. */
function content(table: MemberTable): string[] {
  return table.all().map((one) =>
    `${one.nodeId} ${one.record.seq} ${one.membership.issuedMs} ${toHex(one.recordEnvelope.payload)} ${
      toHex(one.credentialEnvelope.payload)
    }`
  ).sort();
}

function digestOf(table: MemberTable): string {
  return table.digest().map(toHex).join();
}

function tableOf(rows: readonly Member[]): MemberTable {
  const table = new MemberTable();
  for (const row of rows) table.merge(row);
  return table;
}

/** Also rows that a node signed twice under one number. */
const anyRow = fc.tuple(
  fc.integer({ min: 1, max: 5 }),
  fc.integer({ min: 1, max: 4 }),
  fc.integer({ min: 1, max: 4 }),
  fc.constantFrom("0.1.0", "0.1.1"),
).map(([n, seq, issued, version]) => rowOf(n, seq, issued, 0, version));
const anyRows = fc.array(anyRow, { maxLength: 16 });

Deno.test("[10.1b] merge(): any order and any number of repetitions of the same rows give the same table", () => {
  fc.assert(fc.property(anyRows, fc.nat(), (rows, seed) => {
    const table = tableOf(rows);
    const other = tableOf(shuffled([...rows, ...rows], seededRng(seed)));
    assert.deepEqual(content(other), content(table));
    assert.equal(digestOf(other), digestOf(table));
  }));
});

Deno.test("[10.1b] merge(): two tables that exchange their rows in either direction, in any grouping, end equal", () => {
  fc.assert(fc.property(anyRows, anyRows, anyRows, (a, b, c) => {
    const left = tableOf([...tableOf([...a, ...b]).all(), ...c]);
    const right = tableOf([...a, ...tableOf([...b, ...c]).all()]);
    assert.deepEqual(content(left), content(right));
  }));
});

Deno.test("[10.1b] merge(): a row that brings nothing new changes nothing and says so", () => {
  fc.assert(fc.property(anyRows, (rows) => {
    const table = tableOf(rows);
    const before = digestOf(table);
    for (const row of rows) assert.equal(table.merge(row), undefined);
    assert.equal(digestOf(table), before);
  }));
});

Deno.test("merge(): record and credential win each for itself", () => {
  const table = tableOf([rowOf(1, 5, 1), rowOf(1, 2, 9)]);
  const merged = table.all()[0]!;
  assert.deepEqual([merged.record.seq, merged.membership.issuedMs], [5, 9]);
  assert.deepEqual(merged.recordEnvelope, rowOf(1, 5, 1).recordEnvelope);
  assert.deepEqual(merged.credentialEnvelope, rowOf(1, 2, 9).credentialEnvelope);
});

Deno.test("merge(): a node that signs two records under one number divides nobody: all keep the same one", () => {
  const [one, other] = [rowOf(1, 3, 1, 0, "0.1.0"), rowOf(1, 3, 1, 0, "0.1.1")];
  const [left, right] = [tableOf([one]), tableOf([other])];
  assert.notEqual(digestOf(left), digestOf(right), "they see that they differ");
  left.merge(other);
  right.merge(one);
  assert.deepEqual(content(left), content(right));
  assert.equal(supersedes(one, left.all()[0]!) || supersedes(other, left.all()[0]!), false, "and nothing wins over it");
});

Deno.test("[10.1b] digest(): equal exactly where the tables are equal, and differs only in the buckets that differ", () => {
  fc.assert(fc.property(anyRows, anyRows, (a, b) => {
    const [left, right] = [tableOf(a), tableOf(b)];
    assert.equal(digestOf(left) === digestOf(right), content(left).join() === content(right).join());
    const theirs = right.digest();
    const differing = left.digest().flatMap((hash, i) => toHex(hash) === toHex(theirs[i]!) ? [] : [i]);
    const rows = (table: MemberTable) => content(table);
    const only = new Set(
      [...rows(left), ...rows(right)].filter((one) => rows(left).includes(one) !== rows(right).includes(one)),
    );
    assert.deepEqual(
      new Set(differing),
      new Set([...only].map((one) => bucketOf(one.split(" ")[0]!))),
      "the buckets of what differs, and no other",
    );
  }));
});

Deno.test("digest(): rows outside the differing buckets are not sent", () => {
  const table = tableOf(Array.from({ length: 40 }, (_, i) => rowOf(i + 1, 1, 1)));
  assert.equal(table.digest().length, DIGEST_BUCKETS);
  assert.ok(table.digest().every((hash) => hash.length === 8));
  const all = Array.from({ length: DIGEST_BUCKETS }, (_, i) => table.inBuckets([i]));
  assert.equal(all.flat().length, 40, "each row is in one bucket");
  assert.deepEqual(table.inBuckets([]), []);
});

Deno.test("digest(): removing and adding again gives the digest of before", () => {
  const rows = [rowOf(1, 1, 1), rowOf(2, 1, 1)];
  const table = tableOf(rows);
  const before = digestOf(table);
  assert.equal(table.remove(rows[0]!.nodeId), true);
  assert.notEqual(digestOf(table), before);
  assert.equal(table.remove(rows[0]!.nodeId), false);
  table.merge(rows[0]!);
  assert.equal(digestOf(table), before);
});

Deno.test("merge(): full at the limit: a further one is refused, a known one still changes", () => {
  const table = new MemberTable();
  const row = rowOf(1, 1, 1);
  for (let i = 0; i < LIMITS.membersMax; i++) table.merge({ ...row, nodeId: `node ${i}` });
  assert.equal(table.size, LIMITS.membersMax);
  assert.equal(table.merge({ ...row, nodeId: "one too many" }), undefined);
  assert.equal(table.get("one too many"), undefined);
  assert.ok(table.merge({ ...rowOf(1, 2, 1), nodeId: "node 7" }));
  assert.equal(table.size, LIMITS.membersMax);
});

Deno.test("[3.3c] observations: what is found replaces what was found, and says since when", () => {
  const table = tableOf([rowOf(1, 1, 1)]);
  const { nodeId } = rowOf(1, 1, 1);
  assert.deepEqual(table.observation(nodeId), { state: "suspect", sinceMs: 0, seenMs: 0, reachable: false });
  table.noteSeen(nodeId, 500);
  assert.equal(table.observation(nodeId).seenMs, 0, "what a node says before it has shown itself proves nothing");
  assert.equal(table.noteAlive(nodeId, 1_000), true);
  assert.equal(table.noteAlive(nodeId, 2_000), false);
  assert.deepEqual(table.observation(nodeId), { state: "alive", sinceMs: 1_000, seenMs: 2_000, reachable: true });
  assert.equal(table.observe(nodeId, { state: "alive", reachable: false }, 2_500), true);
  assert.deepEqual(table.observation(nodeId), { state: "alive", sinceMs: 1_000, seenMs: 2_000, reachable: false });
  assert.equal(table.observe(nodeId, { state: "suspect", reachable: false }, 3_000), true);
  assert.equal(table.observe(nodeId, { state: "suspect", reachable: false }, 9_000), false, "since the first time");
  assert.equal(table.observe(nodeId, { state: "dead", reachable: false }, 10_000), true);
  assert.deepEqual(table.observation(nodeId), { state: "dead", sinceMs: 10_000, seenMs: 2_000, reachable: false });
  table.noteSeen(nodeId, 11_000);
  assert.equal(table.observation(nodeId).state, "dead", "to be heard is not to answer");
  assert.equal(table.noteAlive(nodeId, 100_000), true);
  assert.equal(table.observation(nodeId).state, "alive");
  assert.equal(table.remove(nodeId), true);
  assert.equal(table.observation(nodeId).sinceMs, 0, "forgotten with the member");
});

Deno.test("joinedBy(): the nodes whose credential names the invite", () => {
  const table = tableOf([rowOf(1, 1, 1, 7), rowOf(2, 1, 1, 8), rowOf(3, 1, 1, 7), rowOf(4, 1, 1)]);
  assert.deepEqual(
    table.joinedBy(new Uint8Array(16).fill(7)).sort(),
    [rowOf(1, 1, 1, 7).nodeId, rowOf(3, 1, 1, 7).nodeId].sort(),
  );
  assert.deepEqual(table.joinedBy(new Uint8Array(16)), []);
});
