/** Trust policy and the one function that enforces it. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { encodeCbor, WireError } from "../../src/core/codec.ts";
import {
  decodePolicy,
  DEFAULT_POLICY,
  encodePolicy,
  may,
  thresholdMaxOf,
  thresholdOf,
  TRUST_ACTIONS,
  type TrustPolicy,
} from "../../src/trust/policy.ts";
import { LIVENESS_FLOOR_PPM } from "../../src/trust/local.ts";
import { NEUTRAL_PPM, SCORE_MAX } from "../../src/trust/score.ts";
import { idOf } from "./kit.ts";

const newcomer = { agreedPpm: NEUTRAL_PPM, localPpm: NEUTRAL_PPM, banned: false };

Deno.test("[2.3b] may(): a newcomer may what needs no record of good work", () => {
  const allowed = TRUST_ACTIONS.filter((one) => may(newcomer, one, DEFAULT_POLICY).ok);
  assert.deepEqual(allowed, ["vote", "lead", "record", "seed", "relay", "storage/standard", "place/standard"]);
  const trusted = { ...newcomer, agreedPpm: 700_000 };
  assert.deepEqual(TRUST_ACTIONS.filter((one) => !may(trusted, one, DEFAULT_POLICY).ok), []);
});

Deno.test("[2.3b] may(): being slow or away alone takes neither a seat nor a vote among the primaries", () => {
  const away = { ...newcomer, agreedPpm: LIVENESS_FLOOR_PPM };
  assert.deepEqual((["vote", "lead"] as const).filter((one) => !may(away, one, DEFAULT_POLICY).ok), []);
});

Deno.test("[2.3b] [4.2d] may(): a banned node may nothing, whatever its scores", () => {
  const banned = { agreedPpm: SCORE_MAX, localPpm: SCORE_MAX, banned: true };
  assert.deepEqual(TRUST_ACTIONS.filter((one) => may(banned, one, DEFAULT_POLICY).ok), []);
  assert.deepEqual(may(banned, "vote", DEFAULT_POLICY), { ok: false, reason: "banned", ppm: 0, minPpm: 300_000 });
});

Deno.test("[2.3b] may(): what this node has seen decides about records, not about votes", () => {
  const seen = { agreedPpm: 800_000, localPpm: 100_000, banned: false };
  assert.equal(may(seen, "record", DEFAULT_POLICY).ok, false);
  assert.equal(may(seen, "vote", DEFAULT_POLICY).ok, true);
  assert.equal(may(seen, "storage/sensitive", DEFAULT_POLICY).ok, true);
});

Deno.test("[2.3b] may(): a policy that asks for more lets no more through", () => {
  const ppm = fc.integer({ min: 0, max: SCORE_MAX });
  fc.assert(fc.property(fc.constantFrom(...TRUST_ACTIONS), ppm, ppm, ppm, ppm, (action, agreedPpm, localPpm, a, b) => {
    const policy = (min: number): TrustPolicy => ({ ...DEFAULT_POLICY, min: new Map([[action, min]]) });
    const standing = { agreedPpm, localPpm, banned: false };
    if (may(standing, action, policy(Math.max(a, b))).ok) assert.ok(may(standing, action, policy(Math.min(a, b))).ok);
  }));
});

Deno.test("[2.3b] policy: reads what it writes, and nothing that would lock everybody out", () => {
  const policy: TrustPolicy = {
    min: new Map([["vote", 400_000], ["storage/sensitive", 700_000]]),
    vouched: [idOf(1)],
    classes: [{ prefix: "net/", class: "critical" }],
  };
  assert.deepEqual(decodePolicy(encodePolicy(policy)), policy);
  for (const action of TRUST_ACTIONS) {
    assert.ok(thresholdOf(action, DEFAULT_POLICY) <= thresholdMaxOf(action));
    const tooHigh = encodeCbor({ m: { [action]: thresholdMaxOf(action) + 1 }, v: [], c: [] });
    assert.throws(() => decodePolicy(tooHigh), /is allowed/);
  }
  assert.ok(thresholdMaxOf("vote") <= NEUTRAL_PPM, "a newcomer, and one who has served its time, can vote");
  assert.throws(() => decodePolicy(encodeCbor({ m: { fly: 1 }, v: [], c: [] })), /no action "fly"/);
  assert.throws(() => decodePolicy(encodeCbor({ m: {}, v: [], c: [["node/", "critical"]] })), WireError);
  assert.throws(() => decodePolicy(encodeCbor({ m: {}, v: [], c: [["net/", "fast"]] })), WireError);
});

Deno.test("policy: one that does not read is a WireError and nothing else", () => {
  const good = encodePolicy({
    min: new Map([["vote", 400_000]]),
    vouched: [idOf(1), idOf(2)],
    classes: [{ prefix: "net/", class: "critical" }],
  });
  fc.assert(
    fc.property(fc.nat(good.length - 1), fc.integer({ min: 1, max: 255 }), fc.boolean(), (at, bits, cut) => {
      const bad = cut ? good.slice(0, at) : good.with(at, good[at]! ^ bits);
      try {
        decodePolicy(bad);
      } catch (error) {
        assert.ok(error instanceof WireError, String(error));
      }
    }),
    { numRuns: 2_000 },
  );
});
