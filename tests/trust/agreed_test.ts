/** Agreed scores: the rule by which they change. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { WireError } from "../../src/core/codec.ts";
import {
  ABSENCE_MS,
  decodeTrust,
  encodeTrust,
  initialTrust,
  isWorth,
  LISTED_MAX,
  OFFENCE_LIFE_MS,
  OFFENCES_MAX,
  rowOf,
  ROWS_MAX,
  type TrustState,
  UPDATE_MS_MIN,
} from "../../src/trust/agreed.ts";
import { OFFENCE_KINDS, type OffenceKind } from "../../src/trust/offence.ts";
import { VOUCHED_MAX } from "../../src/trust/policy.ts";
import { VALUE_BYTES_MAX } from "../../src/spore/record.ts";
import { NEUTRAL_PPM, SCORE_MAX } from "../../src/trust/score.ts";
import { DAY_MS, FOUNDED_MS, idOf, keyOf, offence, signedBy, step } from "./kit.ts";

const START = initialTrust(FOUNDED_MS);
const ppm = (state: TrustState, n: number) => rowOf(state, idOf(n)).ppm;

/** Days of work of some nodes, one update a day. */
function work(state: TrustState, days: number, ...nodes: readonly number[]): TrustState {
  for (let day = 0; day < days; day++) {
    const atMs = state.atMs + DAY_MS;
    state = step(state, { atMs, participations: [signedBy(atMs + 1, ...nodes)] });
  }
  return state;
}

Deno.test("[4.2a] [2.3c] trust: who takes part earns slowly: half of the way to the top in a month", () => {
  assert.equal(ppm(START, 1), NEUTRAL_PPM);
  const day = ppm(work(START, 1, 1), 1) - NEUTRAL_PPM;
  assert.ok(day > 11_000 && day < 12_000, `${day}`);
  const month = ppm(work(START, 30, 1), 1);
  assert.ok(Math.abs(month - 750_000) < 200, `${month}`);
  assert.equal(ppm(work(START, 30, 1), 2), NEUTRAL_PPM);
});

Deno.test("[4.2a] trust: many decisions in a day earn no more than few, and a long time away is not credited", () => {
  let busy = START;
  for (let minute = 1; minute <= 1_440; minute += 60) {
    const atMs = FOUNDED_MS + minute * 60_000;
    busy = step(busy, { atMs, participations: Array.from({ length: 16 }, (_, i) => signedBy(atMs + 1 + i, 1)) });
  }
  const one = ppm(work(START, 1, 1), 1);
  assert.ok(Math.abs(ppm(busy, 1) - one) < 700, `${ppm(busy, 1)} and ${one}`);
  const late = step(START, { atMs: FOUNDED_MS + 100 * DAY_MS, participations: [signedBy(FOUNDED_MS + 1, 1)] });
  assert.equal(ppm(late, 1), one);
});

Deno.test("[4.2a] trust: a certificate counts once, whoever lists it again", () => {
  const participations = [signedBy(FOUNDED_MS + 5_000, 1)];
  const once = step(START, { atMs: FOUNDED_MS + DAY_MS, participations });
  const again = step(once, { atMs: FOUNDED_MS + 2 * DAY_MS, participations });
  assert.ok(ppm(once, 1) > NEUTRAL_PPM);
  assert.ok(ppm(again, 1) < ppm(once, 1), "it decays: nothing new was signed");
});

Deno.test("[4.2b] trust: what a fault costs: withholding as much as a wrong vote, two of equal words everything", () => {
  const cost = (kind: OffenceKind) => ppm(step(START, { atMs: FOUNDED_MS, offences: [offence(1, kind)] }), 1);
  assert.deepEqual(OFFENCE_KINDS.map((kind) => [kind, cost(kind)]), [
    ["safety", 0],
    ["vote", 300_000],
    ["withheld", 300_000],
    ["words", 300_000],
  ]);
});

Deno.test("[4.2b] trust: a safety fault is for good; nothing earns it back", () => {
  let state = step(START, { atMs: FOUNDED_MS, offences: [offence(1, "safety")] });
  state = work(state, 400, 1);
  assert.deepEqual(rowOf(state, idOf(1)), { publicKey: keyOf(1), ppm: 0, banned: true });
});

Deno.test("[4.2c] trust: who had two wrong votes comes back to the threshold in time, faster by work", () => {
  const low = step(START, { atMs: FOUNDED_MS, offences: [offence(1, "vote", 1), offence(1, "vote", 2)] });
  assert.equal(ppm(low, 1), 180_000);
  const daysTo = (state: TrustState, works: boolean) => {
    let days = 0;
    for (; ppm(state, 1) < 300_000 && days < 365; days++) {
      const atMs = state.atMs + DAY_MS;
      state = step(state, { atMs, participations: works ? [signedBy(atMs, 1)] : [] });
    }
    return days;
  };
  assert.equal(daysTo(low, true), 7);
  assert.equal(daysTo(low, false), 21);
});

Deno.test("[4.2b] trust: one deed counts once, however it is proved, and an old one not at all", () => {
  const vote = offence(1, "vote");
  const once = step(START, { atMs: FOUNDED_MS, offences: [vote, vote] });
  assert.equal(ppm(once, 1), 300_000);
  const again = step(once, { atMs: FOUNDED_MS + 60_000, offences: [vote] });
  assert.ok(ppm(again, 1) >= 300_000);
  const old = step(START, { atMs: FOUNDED_MS + OFFENCE_LIFE_MS, offences: [vote] });
  assert.equal(ppm(old, 1), NEUTRAL_PPM);
  const ban = step(START, { atMs: FOUNDED_MS + 50 * OFFENCE_LIFE_MS, offences: [offence(1, "safety")] });
  assert.equal(ppm(ban, 1), 0);
});

Deno.test("[4.2b] trust: absence costs a tenth at most once an hour, and nothing to who has signed", () => {
  const absent = [idOf(1), idOf(1), idOf(2)];
  const first = step(START, { atMs: FOUNDED_MS + ABSENCE_MS, absent, participations: [signedBy(FOUNDED_MS + 9, 2)] });
  assert.equal(ppm(first, 1), 450_000);
  assert.ok(ppm(first, 2) > NEUTRAL_PPM);
  const soon = step(first, { atMs: first.atMs + ABSENCE_MS - 60_000, absent });
  assert.ok(ppm(soon, 1) >= 450_000);
  let state = first;
  for (let hour = 0; hour < 4; hour++) state = step(state, { atMs: state.atMs + ABSENCE_MS, absent });
  assert.ok(ppm(state, 1) < 300_000, "five hours away: no vote");
  const back = step(state, { atMs: state.atMs + 2 * DAY_MS });
  assert.ok(ppm(back, 1) >= 300_000, "it comes back within two days");
});

const anyOffence = fc.tuple(
  fc.integer({ min: 0, max: 5 }),
  fc.constantFrom(...OFFENCE_KINDS),
  fc.integer({ min: 0, max: 9 }),
  fc.integer({ min: -10, max: 1 }),
).map(([n, kind, deed, days]) => offence(n, kind, deed, FOUNDED_MS + days * DAY_MS));
const anyInputs = fc.record({
  gapMs: fc.integer({ min: 0, max: 3 * DAY_MS }),
  offences: fc.array(anyOffence, { maxLength: 6 }),
  participations: fc.array(
    fc.tuple(fc.integer({ min: 0, max: 40 * DAY_MS }), fc.array(fc.integer({ min: 0, max: 9 }), { maxLength: 8 }))
      .map(([ms, nodes]) => signedBy(FOUNDED_MS + ms, ...nodes)),
    { maxLength: 4 },
  ),
  absent: fc.array(fc.integer({ min: 0, max: 9 }).map(idOf), { maxLength: 4 }),
});

Deno.test("[4.2a] trust: whatever is listed, scores stay in bounds, bans stay, rows are sorted and read again", () => {
  fc.assert(fc.property(fc.array(anyInputs, { maxLength: 12 }), (updates) => {
    let state = START;
    for (const { gapMs, ...inputs } of updates) {
      const next = step(state, { atMs: state.atMs + gapMs, ...inputs });
      for (const row of next.rows) {
        assert.ok(Number.isSafeInteger(row.ppm) && row.ppm >= 0 && row.ppm <= SCORE_MAX);
        assert.ok(!row.banned || row.ppm === 0);
      }
      for (const row of state.rows) {
        if (row.banned) assert.ok(next.rows.some((one) => one.banned && one.publicKey === row.publicKey));
      }
      assert.deepEqual(decodeTrust(encodeTrust(next)), next);
      state = next;
    }
  }));
});

Deno.test("[2.3d] [4.2e] trust: the order of what is listed says nothing", () => {
  fc.assert(
    fc.property(fc.array(anyInputs, { minLength: 1, maxLength: 5 }), fc.infiniteStream(fc.nat()), (updates, draws) => {
      const shuffled = <T>(list: readonly T[]) =>
        list.map((one) => [draws.next().value!, one] as const).sort(([a], [b]) => a - b).map(([, one]) => one);
      let [a, b] = [START, START];
      for (const { gapMs, offences, participations, absent } of updates) {
        // Two kinds under one id are no set of offences.
        const deeds = new Map(offences.map((one) => [`${one.id}`, one]));
        const list = [...deeds.values()];
        a = step(a, { atMs: a.atMs + gapMs, offences: list, participations, absent });
        b = step(b, {
          atMs: b.atMs + gapMs,
          offences: shuffled([...list, ...list]),
          participations: shuffled(participations),
          absent: shuffled(absent),
        });
        assert.deepEqual(encodeTrust(a), encodeTrust(b));
      }
    }),
  );
});

Deno.test("[4.2a] trust: more work never makes a score lower, more faults never higher", () => {
  fc.assert(fc.property(anyInputs, anyInputs, anyOffence, (before, { gapMs, ...inputs }, extra) => {
    const state = step(START, { atMs: FOUNDED_MS + before.gapMs, ...before });
    const atMs = state.atMs + gapMs;
    const plain = step(state, { atMs, ...inputs });
    const worse = step(state, { atMs, ...inputs, offences: [...inputs.offences, extra] });
    const fresh = signedBy(FOUNDED_MS + 50 * DAY_MS, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9);
    const better = step(state, { atMs, ...inputs, participations: [...inputs.participations, fresh] });
    for (let n = 0; n < 10; n++) {
      const twin = inputs.offences.some((one) => one.nodeId === extra.nodeId);
      if (!twin) assert.ok(ppm(worse, n) <= ppm(plain, n), `worse ${n}`);
      assert.ok(ppm(better, n) >= ppm(plain, n), `better ${n}`);
    }
  }));
});

Deno.test("[4.2b] trust: no honest node is slashed in runs of faults of others", () => {
  fc.assert(fc.property(fc.array(anyInputs, { maxLength: 20 }), (updates) => {
    let state = START;
    for (const { gapMs, offences, participations } of updates) {
      state = step(state, { atMs: state.atMs + gapMs, offences, participations });
    }
    // 6 to 9 never commit a fault; absence needs more than two thirds who saw it, and is not said of them here.
    for (const n of [6, 7, 8, 9]) assert.ok(ppm(state, n) >= NEUTRAL_PPM);
  }));
});

Deno.test("trust: of too many rows the ones nearest to neutral are forgotten, banned ones never", () => {
  const many = Array.from({ length: ROWS_MAX }, (_, i) => i);
  let state = step(START, { atMs: FOUNDED_MS, offences: many.slice(0, 16).map((n) => offence(n, "safety")) });
  state = step(state, { atMs: FOUNDED_MS + DAY_MS, participations: [signedBy(FOUNDED_MS + 1, ...many)] });
  assert.equal(state.rows.length, ROWS_MAX);
  state = step(state, { atMs: FOUNDED_MS + DAY_MS, offences: [offence(500, "vote", 0, FOUNDED_MS + DAY_MS)] });
  assert.equal(state.rows.length, ROWS_MAX);
  assert.equal(ppm(state, 500), 300_000);
  assert.equal(state.rows.filter((one) => one.banned).length, 16);

  // As full as it gets, it still is a record.
  const basis = {
    previous: keyOf(1),
    proofs: Array.from({ length: LISTED_MAX }, (_, i) => keyOf(i).slice(0, 16)),
    certificates: Array.from({ length: LISTED_MAX }, (_, i) => keyOf(i).slice(0, 16)),
    absent: Array.from({ length: LISTED_MAX }, (_, i) => keyOf(i)),
  };
  const deeds = Array.from({ length: OFFENCES_MAX }, (_, i) => ({ id: keyOf(i).slice(0, 16), untilMs: FOUNDED_MS }));
  const voting = { minPpm: 300_000, vouched: Array.from({ length: VOUCHED_MAX }, (_, i) => keyOf(i)) };
  const full = { ...state, basis, offences: deeds, voting, countedMs: FOUNDED_MS, absenceMs: FOUNDED_MS };
  assert.deepEqual(decodeTrust(encodeTrust(full)), full);
  assert.ok(encodeTrust(full).length < VALUE_BYTES_MAX, `${encodeTrust(full).length} bytes`);
});

Deno.test("[4.2b] trust: offences that there is no room for wait, a ban does not; none is worth an update meanwhile", () => {
  const deeds = (from: number, count: number) => Array.from({ length: count }, (_, i) => offence(from + i, "vote"));
  let state = step(START, { atMs: FOUNDED_MS, offences: deeds(0, OFFENCES_MAX - 1) });
  state = step(state, { atMs: FOUNDED_MS, offences: deeds(100, 2) });
  assert.equal(state.offences.length, OFFENCES_MAX);
  assert.deepEqual([ppm(state, 100), ppm(state, 101)], [300_000, NEUTRAL_PPM]);
  assert.deepEqual(decodeTrust(encodeTrust(state)), state);
  const worth = (one: ReturnType<typeof offence>, atMs = FOUNDED_MS) =>
    isWorth(state, { atMs, offences: [one], participations: [], absent: [], voting: state.voting });
  assert.equal(worth(offence(101, "vote")), false);
  assert.equal(worth(offence(101, "safety", 1)), true);
  const laterMs = FOUNDED_MS + OFFENCE_LIFE_MS;
  const later = step(state, { atMs: laterMs, offences: [offence(101, "vote", 0, laterMs - 1)] });
  assert.ok(ppm(later, 101) < NEUTRAL_PPM, "there is room once others are forgotten");
  assert.equal(later.offences.length, 1);
});

Deno.test("[4.2b] trust: an offence that is dated far ahead does not count: it would be remembered for as long", () => {
  const ahead = (ms: number) => offence(1, "words", 0, FOUNDED_MS + ms);
  assert.equal(ppm(step(START, { atMs: FOUNDED_MS, offences: [ahead(OFFENCE_LIFE_MS)] }), 1), 300_000);
  assert.equal(ppm(step(START, { atMs: FOUNDED_MS, offences: [ahead(OFFENCE_LIFE_MS + 1)] }), 1), NEUTRAL_PPM);
});

Deno.test("trust: a state that does not read is a WireError and nothing else", () => {
  let state = step(START, { atMs: FOUNDED_MS, offences: [offence(1, "vote"), offence(2, "safety")] });
  state = step(state, { atMs: FOUNDED_MS + DAY_MS, participations: [signedBy(FOUNDED_MS + 1, 1, 3)] });
  const good = encodeTrust(state);
  fc.assert(
    fc.property(fc.nat(good.length - 1), fc.integer({ min: 1, max: 255 }), fc.boolean(), (at, bits, cut) => {
      const bad = cut ? good.slice(0, at) : good.with(at, good[at]! ^ bits);
      try {
        decodeTrust(bad);
      } catch (error) {
        assert.ok(error instanceof WireError, String(error));
      }
    }),
    { numRuns: 2_000 },
  );
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
    assert.throws(() => decodeTrust(bytes), WireError);
  }));
  const scored = { ...state, rows: state.rows.map((one) => one.banned ? { ...one, ppm: 1 } : one) };
  assert.throws(() => decodeTrust(encodeTrust(scored)), /a banned node has a score/);
});

Deno.test("[4.2e] trust: an update that says nothing is worth nothing before ten minutes are over", () => {
  const inputs = { offences: [], participations: [], absent: [], voting: START.voting };
  const worth = (more: Partial<Parameters<typeof isWorth>[1]>) =>
    isWorth(START, { ...inputs, atMs: FOUNDED_MS + UPDATE_MS_MIN - 1, ...more });
  assert.equal(worth({}), false);
  assert.equal(worth({ offences: [offence(1, "vote")] }), true);
  assert.equal(worth({ offences: [offence(1, "vote", 0, FOUNDED_MS - OFFENCE_LIFE_MS)] }), false);
  assert.equal(worth({ absent: [idOf(1)] }), true);
  assert.equal(worth({ voting: { ...START.voting, minPpm: 400_000 } }), true);
  assert.equal(worth({ atMs: FOUNDED_MS + UPDATE_MS_MIN }), true);
});
