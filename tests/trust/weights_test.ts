/** Weights: who votes, and that a crowd of newcomers does not decide. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { freezeTable, totalSeats } from "../../src/consensus/weights.ts";
import { DEFAULT_POLICY } from "../../src/trust/policy.ts";
import { votingOf, type VotingPolicy } from "../../src/trust/agreed.ts";
import { NEUTRAL_PPM, SCORE_MAX } from "../../src/trust/score.ts";
import { type Elector, FOUNDERS_MAX, PROBATION_MS, WEIGHED_MAX, weightsOf } from "../../src/trust/weights.ts";
import { DAY_MS, FOUNDED_MS, idOf, keyOf } from "./kit.ts";

const NOW = FOUNDED_MS + 365 * DAY_MS;
const VOTING = votingOf(DEFAULT_POLICY);
const OLD = FOUNDED_MS + 100 * DAY_MS;

function elector(n: number, more: Partial<Elector> = {}): Elector {
  return { id: idOf(n), publicKey: keyOf(n), ppm: NEUTRAL_PPM, banned: false, sinceMs: OLD, ...more };
}

function weigh(electors: readonly Elector[], voting: VotingPolicy = VOTING, nowMs = NOW) {
  return weightsOf(electors, { nowMs, foundedMs: FOUNDED_MS, voting });
}

/** Seats of the fresh ones and of all, as the consensus freezes them. */
function seats(electors: readonly Elector[], voting = VOTING) {
  const weights = weigh(electors, voting);
  const table = freezeTable({ epoch: 1, seed: new Uint8Array(32), weights });
  const fresh = new Set(weights.filter((one) => one.standing === "fresh").map((one) => one.id));
  const of = table.voters.filter((one) => fresh.has(one.id)).reduce((sum, one) => sum + one.seats, 0);
  return { fresh: of, all: totalSeats(table) };
}

Deno.test("[4.2d] Sybil: a hundred fresh nodes together stay below a third of the seats", () => {
  for (const ppm of [VOTING.minPpm, NEUTRAL_PPM]) {
    for (let old = 1; old <= 99; old++) {
      const electors = [
        ...Array.from({ length: old }, (_, i) => elector(i, { ppm })),
        ...Array.from({ length: 100 }, (_, i) => elector(1_000 + i, { sinceMs: undefined, ppm: SCORE_MAX })),
      ];
      const { fresh, all } = seats(electors);
      assert.ok(3 * fresh < all, `${fresh} of ${all} with ${old} established of ${ppm}`);
    }
  }
});

Deno.test("[4.2d] Sybil: whatever the scores, fresh voters stay below a third of the seats", () => {
  const any = fc.record({
    ppm: fc.integer({ min: 0, max: SCORE_MAX }),
    fresh: fc.boolean(),
    sinceMs: fc.integer({ min: NOW - PROBATION_MS + 1, max: NOW }),
  });
  fc.assert(
    fc.property(fc.array(any, { maxLength: 150 }), fc.integer({ min: 300_000, max: SCORE_MAX }), (rest, first) => {
      const electors = rest.map((one, i) => elector(i + 1, { ppm: one.ppm, sinceMs: one.fresh ? one.sinceMs : OLD }));
      const { fresh, all } = seats([elector(0, { ppm: first }), ...electors]);
      assert.ok(3 * fresh < all, `${fresh} of ${all}`);
    }),
  );
});

Deno.test("[4.2d] weights: who is below the threshold or banned has no vote", () => {
  const [low, banned, fine] = weigh([elector(1, { ppm: 299_999 }), elector(2, { banned: true }), elector(3)]);
  assert.deepEqual([low!.weightPpm, low!.standing], [0, "distrusted"]);
  assert.deepEqual([banned!.weightPpm, banned!.standing], [0, "distrusted"]);
  assert.equal(fine!.standing, "established");
  const strict = { ...VOTING, minPpm: 500_000 };
  assert.deepEqual(weigh([elector(1, { ppm: 499_999 })], strict)[0]!.weightPpm, 0);
});

Deno.test("[4.2d] weights: a newcomer waits, is fresh, and counts in full after a week of voting", () => {
  const old = [elector(1), elector(2), elector(3)];
  const standing = (sinceMs: number | undefined) => weigh([...old, elector(9, { sinceMs })])[3]!;
  assert.equal(standing(undefined).standing, "fresh");
  assert.equal(standing(undefined).weightPpm * 2, weigh(old)[0]!.weightPpm);
  assert.equal(standing(NOW - PROBATION_MS + 1).standing, "fresh");
  assert.equal(standing(NOW - PROBATION_MS).standing, "established");
  const two = weigh([elector(1), elector(2), elector(9, { sinceMs: undefined })]);
  assert.equal(two[2]!.standing, "waiting", "of three votes one would be a third");
});

Deno.test("[4.2d] weights: the first seven of the first day found the network; who comes later does not", () => {
  const first = Array.from({ length: 10 }, (_, i) => elector(i, { sinceMs: undefined }));
  const founding = weigh([elector(99, { sinceMs: FOUNDED_MS }), ...first], VOTING, FOUNDED_MS + 60_000);
  const founders = founding.filter((one) => one.standing === "established");
  assert.equal(founders.length, FOUNDERS_MAX);
  assert.ok(founders.some((one) => one.id === idOf(99)));
  assert.equal(founding.filter((one) => one.standing === "fresh").length, 3);
  const later = weigh([elector(99, { sinceMs: FOUNDED_MS }), ...first]);
  assert.deepEqual(later.filter((one) => one.weightPpm > 0).map((one) => one.id), [idOf(99)]);
});

Deno.test("[4.2d] weights: of more established voters than seats can tell apart all count the same, and newcomers wait", () => {
  const old = Array.from({ length: WEIGHED_MAX }, (_, i) => elector(i, { ppm: i % 2 ? SCORE_MAX : NEUTRAL_PPM }));
  const newcomer = elector(1_000, { sinceMs: undefined });
  const few = weigh([...old, newcomer]);
  assert.equal(new Set(few.map((one) => one.weightPpm)).size, 3);
  assert.equal(few.at(-1)!.standing, "fresh");
  const many = weigh([...old, elector(WEIGHED_MAX), newcomer]);
  assert.equal(new Set(many.slice(0, -1).map((one) => one.weightPpm)).size, 1);
  assert.deepEqual([many.at(-1)!.standing, many.at(-1)!.weightPpm], ["waiting", 0]);
});

Deno.test("[4.2d] weights: the network may vouch for newcomers", () => {
  const policy = votingOf({ ...DEFAULT_POLICY, vouched: [idOf(7)] });
  const [, vouched, other] = weigh(
    [elector(1), elector(7, { sinceMs: undefined }), elector(8, { sinceMs: undefined })],
    policy,
  );
  assert.equal(vouched!.standing, "established");
  assert.equal(other!.standing, "waiting");
});

Deno.test("[4.2d] weights: a higher score never weighs less", () => {
  const ppm = fc.integer({ min: 0, max: SCORE_MAX });
  fc.assert(fc.property(fc.array(ppm, { minLength: 1, maxLength: 20 }), ppm, ppm, (others, a, b) => {
    const rest = others.map((one, i) => elector(i + 1, { ppm: one }));
    const of = (score: number) => weigh([elector(0, { ppm: score }), ...rest])[0]!.weightPpm;
    assert.ok(of(Math.max(a, b)) >= of(Math.min(a, b)));
  }));
});
