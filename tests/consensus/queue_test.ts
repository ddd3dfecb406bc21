import assert from "node:assert/strict";
import fc from "fast-check";
import { AGE_MS, OperationQueue, type Queued } from "../../src/consensus/queue.ts";
import { COMMITTEE_MAX, COMMITTEE_MIN, committeeSize, quorumHealth } from "../../src/consensus/sizing.ts";
import { DelayEstimate } from "../../src/consensus/timing.ts";

const ALL = { countMax: 100, bytesMax: 1_000 };

function waiting(id: number, more: Partial<Queued> = {}): Queued {
  return {
    id,
    class: "standard",
    lane: "a",
    priority: 1,
    operation: { kind: "test/good", body: new Uint8Array(10) },
    sinceMs: 0,
    ...more,
  };
}

const ids = (batch: readonly Queued[]) => batch.map((one) => one.id);

Deno.test("[4.1c] OperationQueue takes the urgent first, then lanes in turn, then by arrival", () => {
  const queue = new OperationQueue();
  for (const one of [waiting(1), waiting(2), waiting(3, { lane: "b" }), waiting(4, { priority: 5 })]) queue.add(one);
  assert.deepEqual(ids(queue.take(0, ALL)), [4, 3, 1, 2]);
  assert.equal(queue.size, 0);
});

Deno.test("[4.1c] OperationQueue: a lane that floods does not keep another one waiting", () => {
  const queue = new OperationQueue();
  for (let id = 0; id < 500; id++) queue.add(waiting(id, { lane: "loud" }));
  queue.add(waiting(1_000, { lane: "quiet" }));
  assert.ok(ids(queue.take(0, { ...ALL, countMax: 2 })).includes(1_000));
});

Deno.test("[4.1c] OperationQueue: what waits long enough comes before the urgent that came later", () => {
  const queue = new OperationQueue();
  queue.add(waiting(1, { priority: 0 }));
  queue.add(waiting(2, { priority: 6, sinceMs: 7 * AGE_MS }));
  assert.deepEqual(ids(queue.take(7 * AGE_MS, { ...ALL, countMax: 1 })), [1]);
});

Deno.test("[4.4e] OperationQueue batches one class at a time, within count and bytes; a large one goes alone", () => {
  const queue = new OperationQueue();
  queue.add(waiting(1, { class: "critical", priority: 3 }));
  queue.add(waiting(2, { class: "critical" }));
  for (let id = 3; id < 6; id++) queue.add(waiting(id));
  assert.deepEqual(ids(queue.take(0, ALL)), [1, 2]);
  assert.deepEqual(ids(queue.take(0, { countMax: 100, bytesMax: 25 })), [3, 4]);
  queue.add(waiting(6, { priority: 7, operation: { kind: "x", body: new Uint8Array(5_000) } }));
  assert.deepEqual(ids(queue.take(0, ALL)), [6]);
  assert.deepEqual(ids(queue.take(0, ALL)), [5]);
});

Deno.test("[4.1c] OperationQueue: what is cancelled does not come; twice is once", () => {
  const queue = new OperationQueue();
  queue.add(waiting(1));
  queue.add(waiting(2));
  assert.equal(queue.cancel(1), true);
  assert.equal(queue.cancel(1), false);
  assert.deepEqual(ids(queue.take(0, ALL)), [2]);
});

Deno.test("[4.1c] OperationQueue: when full the fullest lane gives way to another one, never to itself", () => {
  const queue = new OperationQueue(4);
  for (let id = 0; id < 4; id++) assert.equal(queue.add(waiting(id, { lane: "loud" })), undefined);
  assert.equal(queue.add(waiting(4, { lane: "loud" })), 4);
  assert.equal(queue.add(waiting(5, { lane: "quiet" })), 3);
  assert.equal(queue.add(waiting(6, { lane: "loud", priority: 7 })), 2);
  assert.equal(queue.size, 4);
});

Deno.test("[4.1c] [10.1b] OperationQueue gives each operation once, or says that it has no room", () => {
  const one = fc.record({ lane: fc.constantFrom("a", "b", "c"), priority: fc.nat(7) });
  fc.assert(fc.property(fc.array(one, { maxLength: 60 }), (drawn) => {
    const queue = new OperationQueue(20);
    const refused = drawn.flatMap((more, id) => queue.add(waiting(id, { ...more, sinceMs: id })) ?? []);
    const taken: number[] = [];
    while (queue.size > 0) taken.push(...ids(queue.take(100, { countMax: 7, bytesMax: 1_000 })));
    assert.deepEqual([...refused, ...taken].sort((a, b) => a - b), drawn.map((_, id) => id));
  }));
});

const GOOD = { voters: 100, healthyPpm: 1_000_000, rttMs: 10, churnPpm: 0, faultPpm: 0 };

Deno.test("[4.3a] [10.1b] committeeSize(): 3f + 1, within its bounds, more for faults, silence and churn, fewer on slow networks", () => {
  assert.equal(committeeSize(GOOD), 16);
  assert.equal(committeeSize({ ...GOOD, faultPpm: 100_000 }), 31);
  assert.ok(committeeSize({ ...GOOD, healthyPpm: 700_000 }) > 16);
  assert.ok(committeeSize({ ...GOOD, churnPpm: 500_000 }) > 16);
  assert.ok(committeeSize({ ...GOOD, rttMs: 2_000 }) < 16);
  assert.deepEqual([1, 2, 3, 4, 10].map((voters) => committeeSize({ ...GOOD, voters })), [1, 2, 3, 4, 10]);
  const ppm = fc.nat(1_000_000);
  const any = fc.record({
    voters: fc.integer({ min: 33, max: 5_000 }),
    healthyPpm: ppm,
    rttMs: fc.nat(5_000),
    churnPpm: ppm,
    faultPpm: ppm,
  });
  fc.assert(fc.property(any, (condition) => {
    const size = committeeSize(condition);
    assert.ok(size >= COMMITTEE_MIN && size <= COMMITTEE_MAX && size % 3 === 1, `${size}`);
    assert.ok(committeeSize({ ...condition, faultPpm: 1_000_000 }) >= size);
  }));
});

Deno.test("quorumHealth(): full, sound, fragile, lost", () => {
  const voters = Array.from({ length: 7 }, (_, i) => ({ id: `${i}`, seats: 1 }));
  const health = (count: number) => quorumHealth(voters, new Set(voters.slice(0, count).map((one) => one.id))).health;
  assert.deepEqual([7, 6, 5, 4, 0].map(health), ["full", "sound", "fragile", "lost", "lost"]);
});

Deno.test("[4.1d] DelayEstimate follows what rounds take, within its bounds, and grows when they run out", () => {
  const delay = new DelayEstimate({ delayMs: 100, delayMsMin: 10, delayMsMax: 1_000 });
  for (let i = 0; i < 60; i++) delay.observe(20);
  assert.ok(delay.delayMs >= 20 && delay.delayMs < 40, `${delay.delayMs}`);
  for (let i = 0; i < 60; i++) delay.observe(300);
  assert.ok(delay.delayMs >= 300 && delay.delayMs < 450, `${delay.delayMs}`);
  const before = delay.delayMs;
  delay.ranOut();
  assert.ok(delay.delayMs > before);
  for (let i = 0; i < 100; i++) delay.ranOut();
  assert.equal(delay.delayMs, 1_000);
  for (let i = 0; i < 100; i++) delay.observe(0);
  assert.equal(delay.delayMs, 10);
});
