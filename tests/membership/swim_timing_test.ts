/** Timeouts and suspicion: the integers against the formulas of the papers. @module */

import assert from "node:assert/strict";
import fc from "fast-check";
import { AttemptStats, Rtt, suspicionMs } from "../../src/membership/swim_timing.ts";

Deno.test("[10.1b] suspicionMs() is Lifeguard's max − ln(c+1)/ln(k+1) · (max − min), never below min, to a thousandth", () => {
  fc.assert(fc.property(
    fc.integer({ min: 1, max: 60_000 }),
    fc.integer({ min: 1, max: 3 }),
    fc.nat(3),
    (minMs, k, some) => {
      const c = Math.min(some, k);
      const maxMs = 6 * minMs;
      const formula = Math.max(minMs, maxMs - Math.log(c + 1) / Math.log(k + 1) * (maxMs - minMs));
      const ms = suspicionMs(minMs, c, k);
      assert.ok(Number.isInteger(ms));
      assert.ok(Math.abs(ms - formula) <= 1 + maxMs / 1_000, `${ms}, ${formula}`);
    },
  ));
});

Deno.test("suspicionMs(): each confirmation shortens it, the last to the least; nobody to confirm: the least at once", () => {
  assert.equal(suspicionMs(1_000, 0, 0), 1_000);
  for (const k of [1, 2, 3]) {
    const times = Array.from({ length: k + 1 }, (_, c) => suspicionMs(1_000, c, k));
    assert.equal(times[0], 6_000);
    assert.equal(times.at(-1), 1_000);
    assert.deepEqual(times, times.toSorted((a, b) => b - a));
  }
});

Deno.test("Rtt follows RFC 6298 within its bounds", () => {
  const rtt = new Rtt();
  assert.equal(rtt.isKnown, false);
  assert.equal(rtt.timeoutMs(), 500, "memberlist's, before the first answer");
  let srtt = 0;
  let variance = 0;
  let seed = 7;
  for (let i = 0; i < 500; i++) {
    seed = (seed * 1_103_515_245 + 12_345) & 0x7fffffff;
    const ms = 200 + seed % 200;
    rtt.sample(ms);
    if (i === 0) [srtt, variance] = [ms, ms / 2];
    else {
      variance += (Math.abs(ms - srtt) - variance) / 4;
      srtt += (ms - srtt) / 8;
    }
    const float = srtt + 4 * variance;
    assert.ok(Math.abs(rtt.timeoutMs() - float) <= 0.05 * float + 8, `${i}: ${rtt.timeoutMs()}, ${float}`);
  }
  const quick = new Rtt();
  for (let i = 0; i < 50; i++) quick.sample(0);
  assert.equal(quick.timeoutMs(), 150, "a node that is busy for a moment is not missed");
});

Deno.test("Rtt: one answer after a long stand-still does not make the next timeouts useless", () => {
  const rtt = new Rtt();
  for (let i = 0; i < 20; i++) rtt.sample(2);
  rtt.sample(10_000);
  assert.ok(rtt.timeoutMs() <= 500, `${rtt.timeoutMs()}`);
  const fresh = new Rtt();
  fresh.sample(60_000);
  assert.ok(fresh.timeoutMs() <= 1_500, `${fresh.timeoutMs()}`);
  const slow = new Rtt();
  for (let i = 0; i < 100; i++) slow.sample(60_000);
  assert.equal(slow.timeoutMs(), 3_000, "bounded");
});

Deno.test("AttemptStats: the loss that is seen settles near the real one, and more of it asks for more silence", () => {
  const needed: number[] = [];
  for (const perMille of [0, 80, 150, 250, 350, 450, 700]) {
    const stats = new AttemptStats();
    let sum = 0;
    for (let i = 0; i < 4_000; i++) {
      stats.note((i * 7_919) % 1_000 < perMille);
      if (i >= 1_000) sum += stats.lossPerMille / 3_000;
    }
    assert.ok(Math.abs(sum - perMille) <= 20, `${perMille}: ${sum}`);
    needed.push(stats.attemptsNeeded());
  }
  assert.deepEqual(needed, needed.toSorted((a, b) => a - b));
  assert.ok(needed[0]! >= 6);
});

Deno.test("AttemptStats.attemptsNeeded(): so much silence of a healthy node has a chance of one in ten million", () => {
  // At the upper end of each class the bound of the class is what protects.
  for (const perMille of [49, 99, 199, 299, 399, 499]) {
    const stats = new AttemptStats();
    let guard = 0;
    while (stats.lossPerMille !== perMille && guard++ < 100_000) stats.note(stats.lossPerMille < perMille);
    const chance = (perMille / 1_000) ** stats.attemptsNeeded();
    assert.ok(chance <= 1e-7, `${perMille}: ${stats.attemptsNeeded()} attempts, ${chance}`);
  }
});
