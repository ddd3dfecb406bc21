/** The arithmetic of scores. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { AGREED_HALF_LIFE_MS, lose, NEUTRAL_PPM, SCORE_MAX, towards } from "../../src/trust/score.ts";

const score = fc.integer({ min: 0, max: SCORE_MAX });
const MINUTE_MS = 60_000;

Deno.test("[4.2c] towards() goes half of the way in a half-life", () => {
  const gone = (from: number, lives: number) =>
    towards(from, NEUTRAL_PPM, lives * AGREED_HALF_LIFE_MS, AGREED_HALF_LIFE_MS);
  // Rounded down in each binary digit of the time: a little ahead, never behind.
  assert.equal(gone(0, 1), 250_002);
  assert.equal(gone(SCORE_MAX, 1), 749_998);
  assert.equal(gone(0, 2), 375_001);
  assert.equal(towards(0, NEUTRAL_PPM, Number.MAX_SAFE_INTEGER, AGREED_HALF_LIFE_MS), NEUTRAL_PPM);
});

Deno.test("towards() agrees with the exponential within 20 ppm, for any time", () => {
  fc.assert(fc.property(score, score, fc.integer({ min: 0, max: 1_000_000 }), (from, to, minutes) => {
    const exact = to + (from - to) * 2 ** (-minutes * MINUTE_MS / AGREED_HALF_LIFE_MS);
    const ours = towards(from, to, minutes * MINUTE_MS, AGREED_HALF_LIFE_MS);
    assert.ok(Math.abs(ours - exact) <= 20, `${ours} for ${exact}`);
  }));
});

Deno.test("[4.2c] towards() never passes its target, and more time never leads away from it", () => {
  const time = fc.integer({ min: 0, max: 400 * 86_400_000 });
  fc.assert(fc.property(score, score, time, time, (from, to, a, b) => {
    const [short, long] = [Math.min(a, b), Math.max(a, b)];
    const left = (ms: number) => (to - towards(from, to, ms, AGREED_HALF_LIFE_MS)) * Math.sign(to - from);
    assert.ok(left(short) >= 0 && left(long) >= 0);
    // Rounding may hold one part of the distance back in each of the factors.
    assert.ok(left(long) <= left(short) + 20);
  }));
});

Deno.test("[4.2a] towards() keeps the order of scores", () => {
  fc.assert(fc.property(score, score, score, fc.integer({ min: 0, max: 1e11 }), (a, b, to, ms) => {
    const [x, y] = [towards(a, to, ms, AGREED_HALF_LIFE_MS), towards(b, to, ms, AGREED_HALF_LIFE_MS)];
    assert.ok(a <= b ? x <= y : x >= y);
  }));
});

Deno.test("[4.2b] lose() takes a share, stays in bounds, and two losses may come in any order", () => {
  assert.equal(lose(NEUTRAL_PPM, 400_000), 300_000);
  assert.equal(lose(SCORE_MAX, SCORE_MAX), 0);
  fc.assert(fc.property(score, score, score, (from, a, b) => {
    const after = lose(from, a);
    assert.ok(after >= 0 && after <= from && Number.isSafeInteger(after));
    assert.ok(Math.abs(lose(lose(from, a), b) - lose(lose(from, b), a)) <= 1);
  }));
});
