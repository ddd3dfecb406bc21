/** What a node has seen itself. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { WireError } from "../../src/core/codec.ts";
import {
  DAY_GAIN_PPM_MAX,
  LIVENESS_FLOOR_PPM,
  LOCAL_FACTS,
  LOCAL_NODES_MAX,
  LocalScores,
} from "../../src/trust/local.ts";
import { LOCAL_HALF_LIFE_MS, NEUTRAL_PPM, SCORE_MAX } from "../../src/trust/score.ts";
import { DEFAULT_POLICY, thresholdOf } from "../../src/trust/policy.ts";
import { DAY_MS, FOUNDED_MS, idOf } from "./kit.ts";

const facts = fc.array(fc.tuple(fc.constantFrom(...LOCAL_FACTS), fc.integer({ min: 0, max: DAY_MS })), {
  maxLength: 60,
});

/** The score after facts, each some time after the one before. */
function after(list: readonly (readonly [typeof LOCAL_FACTS[number], number])[]) {
  const scores = new LocalScores();
  let nowMs = FOUNDED_MS;
  for (const [fact, ms] of list) scores.observe("a", fact, nowMs += ms);
  return { scores, nowMs, ppm: scores.ppm("a", nowMs) };
}

Deno.test("[2.3c] local: whatever is seen, the score stays in bounds", () => {
  fc.assert(fc.property(facts, (list) => {
    const { ppm } = after(list);
    assert.ok(Number.isSafeInteger(ppm) && ppm >= 0 && ppm <= SCORE_MAX);
  }));
});

Deno.test("[2.3c] local: a good fact never lowers a score, a bad one never raises it", () => {
  fc.assert(fc.property(facts, fc.constantFrom(...LOCAL_FACTS), (list, fact) => {
    const { scores, nowMs, ppm } = after(list);
    scores.observe("a", fact, nowMs);
    const good = ["correct", "stored", "up"].includes(fact);
    assert.ok(good ? scores.ppm("a", nowMs) >= ppm : scores.ppm("a", nowMs) <= ppm);
  }));
});

Deno.test("[2.3c] local: slow to earn: a thousand good facts in a day count as little as twenty", () => {
  const { ppm } = after(Array.from({ length: 1_000 }, () => ["correct", 1] as const));
  assert.equal(ppm, NEUTRAL_PPM + DAY_GAIN_PPM_MAX);
  assert.ok(after([["wrong", 0]]).ppm <= NEUTRAL_PPM - 10 * DAY_GAIN_PPM_MAX);
});

Deno.test("[2.3c] local: who is slow or away, however often, stays above the threshold of a record", () => {
  const always = ["missing", "down", "slow", "limited"] as const;
  const { ppm } = after(Array.from({ length: 1_000 }, (_, i) => [always[i % 4]!, 1] as const));
  assert.equal(ppm, LIVENESS_FLOOR_PPM);
  assert.ok(ppm > thresholdOf("record", DEFAULT_POLICY));
  // What is below already is not raised by it.
  assert.ok(after([["wrong", 0], ["wrong", 0], ["missing", 0]]).ppm <= 180_000);
});

Deno.test("[4.2c] local: what nobody speaks of goes back to neutral, from above and from below", () => {
  const low = after([["wrong", 0]]);
  assert.equal(low.scores.ppm("a", low.nowMs + LOCAL_HALF_LIFE_MS), 400_002);
  assert.ok(Math.abs(low.scores.ppm("a", low.nowMs + 30 * LOCAL_HALF_LIFE_MS) - NEUTRAL_PPM) <= 1);
});

Deno.test("[2.3c] local: time that is split by facts is not lost", () => {
  const scores = new LocalScores();
  scores.observe("a", "withheld", FOUNDED_MS);
  // One fact a second: each alone is no part of the half-life.
  for (let second = 1; second <= 6_000; second++) scores.observe("a", "limited", FOUNDED_MS + second * 1_000);
  const still = new LocalScores();
  still.observe("b", "withheld", FOUNDED_MS);
  assert.equal(scores.view("a", FOUNDED_MS).counts.limited, 6_000);
  assert.ok(scores.ppm("a", FOUNDED_MS + 6_000_000) < still.ppm("b", FOUNDED_MS + 6_000_000));
  assert.ok(scores.ppm("a", FOUNDED_MS + 6_000_000 + LOCAL_HALF_LIFE_MS) >= 240_000);
});

Deno.test("[2.3a] [4.2e] local: what is stored reads again as it was", () => {
  fc.assert(fc.property(facts, (list) => {
    const { scores, nowMs } = after([...list, ["correct", 1]]);
    const again = new LocalScores();
    again.load("a", scores.encode("a")!);
    assert.deepEqual(again.view("a", nowMs + DAY_MS), scores.view("a", nowMs + DAY_MS));
  }));
  const good = after([["correct", 1]]).scores.encode("a")!;
  fc.assert(fc.property(fc.nat(good.length - 1), fc.integer({ min: 1, max: 255 }), (at, bits) => {
    try {
      new LocalScores().load("a", good.with(at, good[at]! ^ bits));
    } catch (error) {
      assert.ok(error instanceof WireError, String(error));
    }
  }));
});

Deno.test("[2.3a] local: of too many nodes the one nearest to neutral is forgotten", () => {
  const scores = new LocalScores();
  scores.observe(idOf(0), "wrong", FOUNDED_MS);
  scores.observe(idOf(1), "correct", FOUNDED_MS);
  for (let n = 2; n < LOCAL_NODES_MAX; n++) assert.equal(scores.observe(idOf(n), "missing", FOUNDED_MS), undefined);
  assert.equal(scores.observe(idOf(LOCAL_NODES_MAX), "missing", FOUNDED_MS), idOf(1), "who stores it deletes it");
  assert.equal(scores.observe(idOf(2), "missing", FOUNDED_MS), undefined);
  assert.equal(scores.nodes.length, LOCAL_NODES_MAX);
  assert.throws(() => scores.load(idOf(1), scores.encode(idOf(2))!), WireError);
  assert.equal(scores.nodes.includes(idOf(1)), false);
  assert.equal(scores.ppm(idOf(0), FOUNDED_MS), 300_000);
});
