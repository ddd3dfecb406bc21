import assert from "node:assert/strict";
import fc from "fast-check";
import { utf8 } from "../../src/core/bytes.ts";
import { decodeCbor, encodeCbor, WireError } from "../../src/core/codec.ts";
import { sha256 } from "../../src/core/crypto.ts";
import {
  blockingSeats,
  capWeights,
  drawCommittee,
  freezeTable,
  quorumSeats,
  readTable,
  SEATS_MAX,
  tableHash,
  tableValue,
  toleratedFaults,
  totalSeats,
  VOTERS_MAX,
} from "../../src/consensus/weights.ts";
import { NETWORK, tableOf, testVoters } from "./kit.ts";

const sum = (numbers: readonly number[]) => numbers.reduce((a, b) => a + b, 0);

Deno.test("[10.1b] capWeights() leaves everybody below a third, and takes no more than it must", () => {
  fc.assert(fc.property(fc.array(fc.nat(1_000_000), { minLength: 4, maxLength: 40 }), (weights) => {
    const capped = capWeights(weights);
    const positive = weights.filter((one) => one > 0).length;
    capped.forEach((one, i) => {
      assert.ok(one <= weights[i]!);
      if (positive >= 4) assert.ok(3 * one < sum(capped), `${one} of ${capped}`);
      assert.equal(one > 0, weights[i]! > 0);
    });
    // Order is kept: who weighs more never ends up with less.
    for (let i = 1; i < weights.length; i++) {
      if (positive >= 4 && weights[i]! > weights[i - 1]!) assert.ok(capped[i]! >= capped[i - 1]!);
    }
    if (weights.every((one) => 3 * one < sum(weights))) assert.deepEqual(capped, weights);
  }));
});

Deno.test("[10.1b] freezeTable(): any quorum and any blocking set share a voter, and less than a third is never a share of the secret", () => {
  const voters = testVoters(12);
  const weights = fc.array(fc.integer({ min: 1, max: 1_000_000 }), { minLength: 4, maxLength: 12 });
  fc.assert(fc.property(weights, fc.integer({ min: 0, max: 4095 }), (drawn, subset) => {
    const table = tableOf(voters.slice(0, drawn.length), drawn);
    const total = totalSeats(table);
    // Fewer than four are left where the others have no seat: all of them are needed then.
    assert.ok(table.voters.length >= 3 && total <= Math.max(SEATS_MAX, drawn.length));
    const seats = sum(table.voters.filter((_, i) => subset >> i & 1).map((one) => one.seats));
    // Less than a third holds too few shares; what is left of a quorum without it holds enough.
    if (3 * seats < total) {
      assert.ok(seats < blockingSeats(total));
      assert.ok(quorumSeats(total) - seats >= blockingSeats(total));
    }
    // Two quorums share more than less than a third can be.
    assert.ok(3 * (2 * quorumSeats(total) - total) > total);
    assert.deepEqual(readTable(decodeCbor(encodeCbor(tableValue(table))), "$"), table);
  }));
});

Deno.test("a hundred fresh nodes have no seat beside ten old ones", () => {
  const weights = testVoters(99).map(({ id, key }, i) => ({
    id,
    publicKey: key.publicKey,
    weightPpm: i < 10 ? 900_000 : 5_000,
  }));
  const table = freezeTable({ epoch: 1, seed: sha256(utf8("x")), weights });
  const fresh = table.voters.filter((one) => weights.findIndex((two) => two.id === one.id) >= 10);
  assert.deepEqual(fresh, []);
  assert.equal(table.voters.length, 10);
});

Deno.test("tolerated faults: none of one, two and three voters, then one of every three more", () => {
  const faults = [1, 2, 3, 4, 6, 7, 9, 10, 13, 16].map((n) => toleratedFaults(tableOf(testVoters(n))));
  assert.deepEqual(faults, [0, 0, 0, 1, 1, 2, 2, 3, 4, 5]);
  // The heaviest count: two of these together have a third.
  assert.equal(toleratedFaults(tableOf(testVoters(7), [300, 300, 100, 100, 100, 100, 100])), 1);
});

Deno.test("freezeTable(): more voters than seats that weigh almost the same have one each", () => {
  const weights = Array.from({ length: VOTERS_MAX }, (_, i) => ({
    id: `n${1_000 + i}`,
    publicKey: new Uint8Array(32).fill(i),
    weightPpm: 500_000 + i,
  }));
  const table = freezeTable({ epoch: 1, seed: new Uint8Array(32), weights });
  assert.equal(table.voters.length, VOTERS_MAX);
  assert.ok(table.voters.every((one) => one.seats === 1));
});

Deno.test("drawCommittee(): the same draw gives the same committee; who weighs more is drawn more often; none twice", () => {
  const table = tableOf(testVoters(20), Array.from({ length: 20 }, (_, i) => i < 5 ? 100_000 : 10_000));
  const heavy = new Set(testVoters(5).map((one) => one.id));
  let drawn = 0;
  for (let i = 0; i < 200; i++) {
    const committee = drawCommittee(table, utf8(`draw ${i}`), 7);
    assert.deepEqual(drawCommittee(table, utf8(`draw ${i}`), 7), committee);
    assert.equal(new Set(committee.voters.map((one) => one.id)).size, 7);
    assert.ok(committee.voters.every((one) => one.seats === 1));
    drawn += committee.voters.filter((one) => heavy.has(one.id)).length;
  }
  // A quarter of the voters with ten times the weight: some four of seven, not 1.75.
  assert.ok(drawn / 200 > 3.5, `${drawn / 200}`);
  assert.equal(drawCommittee(table, utf8("x"), 20), table);
});

Deno.test("[4.1a] a table's hash is of one network, and of all that stands in it", () => {
  const table = tableOf(testVoters(4));
  const other = sha256(utf8("another network"));
  const hashes = [
    tableHash(table, NETWORK),
    tableHash(table, other),
    tableHash({ ...table, epoch: 2 }, NETWORK),
    tableHash({ ...table, voters: table.voters.slice(1) }, NETWORK),
  ].map(String);
  assert.equal(new Set(hashes).size, hashes.length);
});

Deno.test("readTable() refuses voters out of order, twice, or with a third", () => {
  const table = tableOf(testVoters(5));
  const [first, ...rest] = table.voters;
  for (const voters of [[...rest, first!], [first!, first!, ...rest], [{ ...first!, seats: 2 }, ...rest], []]) {
    assert.throws(() => readTable(decodeCbor(encodeCbor(tableValue({ ...table, voters }))), "$"), WireError);
  }
});
