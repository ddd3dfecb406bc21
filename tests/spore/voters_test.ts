/** Who votes, situation by situation, and what holds in all of them. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { DEFAULT_VOTER_POLICY, planVoters, type VoterCandidate, type VoterConfig } from "../../src/spore/voters.ts";

const NOW = 1_000_000;
const LONG = NOW - 500_000;

/** A node that has been there for long and lacks nothing. */
function node(id: string, more: Partial<VoterCandidate> = {}): VoterCandidate {
  return { id, reachable: true, sinceMs: LONG, tier: 0, drained: false, lag: 0, rttMs: 1, ...more };
}

function config(voters: string, learners = "", changing = false): VoterConfig {
  const list = (text: string) => text.split(" ").filter((one) => one !== "");
  return { voters: list(voters), learners: list(learners), changing };
}

/** The plan as a line: `+a` a voter, `~a` a learner, `-a` nobody any more; `@` and when to look again. */
function plan(one: VoterConfig, candidates: readonly VoterCandidate[], nowMs = NOW): string {
  const { changes, atMs } = planVoters(one, candidates, nowMs);
  const sign = { "add-voter": "+", "add-learner": "~", "remove": "-" };
  const line = changes.map(({ op, node }) => sign[op] + node).join(" ");
  return line || (atMs === Infinity ? "nothing" : `@${atMs - nowMs}`);
}

Deno.test("[3.1b] voters: a newcomer listens first", () => {
  assert.equal(plan(config("a"), [node("a"), node("b", { sinceMs: NOW })]), "~b");
  assert.equal(plan(config("a", "b"), [node("a"), node("b"), node("c", { sinceMs: NOW })]), "~c");
  assert.equal(plan(config("a"), [node("a"), node("b", { reachable: false })]), "nothing");
});

Deno.test("[3.1b] voters: of two issuers one votes and one listens", () => {
  assert.equal(plan(config("a", "b"), [node("a"), node("b")]), "nothing");
});

Deno.test("[3.1b] voters: from one to three at once, when both are stable and have caught up", () => {
  const three = [node("a"), node("b"), node("c")];
  assert.equal(plan(config("a", "b c"), three), "+b +c");
  const fresh = [node("a"), node("b"), node("c", { sinceMs: NOW - 4_000 })];
  assert.equal(plan(config("a", "b c"), fresh), "@6000");
  assert.equal(plan(config("a", "b c"), fresh, NOW + 6_000), "+b +c");
  const behind = [node("a"), node("b"), node("c", { lag: DEFAULT_VOTER_POLICY.lagMax + 1 })];
  assert.equal(plan(config("a", "b c"), behind), "nothing");
  const { lag: _, ...unknown } = node("c");
  assert.equal(plan(config("a", "b c"), [node("a"), node("b"), unknown]), "nothing");
});

Deno.test("[2.3e] [3.1b] voters: one that is not trusted listens and does not vote; nobody trusted: nothing changes", () => {
  const low = { tier: -1 };
  assert.equal(plan(config("a", "b c"), [node("a"), node("b"), node("c", low)]), "nothing");
  assert.equal(plan(config("a b c"), [node("a"), node("b"), node("c", low)]), "~b ~c");
  assert.equal(plan(config("a b c", "d"), [node("a"), node("b"), node("c", low), node("d")]), "+d ~c");
  assert.equal(plan(config("a b c"), [node("a", low), node("b", low), node("c", low)]), "nothing");
});

Deno.test("[3.1b] voters: a fourth issuer listens, a fifth makes it five, then seven", () => {
  const all = "abcdefg".split("").map((id) => node(id));
  assert.equal(plan(config("a b c", "d"), all.slice(0, 4)), "nothing");
  assert.equal(plan(config("a b c", "d e"), all.slice(0, 5)), "+d +e");
  assert.equal(plan(config("a b c d e", "f"), all.slice(0, 6)), "nothing");
  assert.equal(plan(config("a b c d e", "f g"), all), "+f +g");
  assert.equal(plan(config("a", "b c d e f g"), all), "+b +c", "two at a time");
});

Deno.test("[3.1b] voters: one that is away is replaced when it stays away, and comes back as a listener", () => {
  const away = (
    forMs: number,
  ) => [node("a"), node("b"), node("c", { reachable: false, sinceMs: NOW - forMs }), node("d")];
  assert.equal(plan(config("a b c", "d"), away(20_000)), "@40000");
  assert.equal(plan(config("a b c", "d"), away(60_000)), "+d ~c");
  assert.equal(plan(config("a b d", "c"), [node("a"), node("b"), node("c"), node("d")]), "nothing");
});

Deno.test("[3.1b] voters: one of three that is away with nobody to replace it stays a voter", () => {
  const two = [node("a"), node("b"), node("c", { reachable: false, sinceMs: LONG })];
  assert.equal(plan(config("a b c"), two), "nothing");
});

Deno.test("[3.1b] voters: who is no issuer any more goes; the number stays odd", () => {
  assert.equal(plan(config("a b c", "d"), [node("a"), node("b"), node("d")]), "+d -c");
  assert.equal(plan(config("a b c"), [node("a"), node("b")]), "~b -c", "down to one rather than two");
  assert.equal(plan(config("a b c", "d"), [node("a"), node("b"), node("c")]), "-d");
  assert.equal(plan(config("a b c"), [node("b"), node("c")]).includes("-a"), true, "the leader as well");
});

Deno.test("[3.1b] voters: a drained voter makes way where another one can vote", () => {
  assert.equal(plan(config("a b c", "d"), [node("a"), node("b", { drained: true }), node("c"), node("d")]), "+d ~b");
  assert.equal(plan(config("a b c"), [node("a"), node("b", { drained: true }), node("c")]), "nothing");
  assert.equal(plan(config("a", "b c"), [node("a"), node("b"), node("c", { drained: true })]), "nothing");
});

Deno.test("[3.1b] voters: of those that could vote the more trusted, then the longer there, then the nearer", () => {
  const base = [node("a"), node("b"), node("c")];
  assert.equal(plan(config("a b c", "d"), [...base, node("d", { tier: 1 })]), "+d ~c");
  assert.equal(
    plan(config("a b c", "d"), [...base, node("d", { sinceMs: 0, rttMs: 0 })]),
    "nothing",
    "no change for little",
  );
  const two = [node("a"), node("b", { sinceMs: LONG + 1 }), node("c"), node("d")];
  assert.equal(plan(config("a", "b c d"), two), "+c +d");
  assert.equal(plan(config("a", "b c d"), [node("a"), node("b", { rttMs: 9 }), node("c"), node("d")]), "+c +d");
});

Deno.test("[3.1b] voters: nothing while a change is under way, and none that could not be committed", () => {
  assert.equal(plan(config("a", "b c", true), [node("a"), node("b"), node("c")]), "nothing");
  const dead = { reachable: false, sinceMs: LONG };
  assert.equal(plan(config("a b c"), [node("a", dead), node("b", dead), node("c")]), "nothing");
});

Deno.test("[3.1b] [10.1b] voters: whatever happens, an odd number, never two, in few steps, and then nothing", () => {
  const anyNode = fc.record({
    reachable: fc.boolean(),
    sinceMs: fc.constantFrom(LONG, NOW - 1_000),
    tier: fc.nat(2),
    drained: fc.boolean(),
    lag: fc.constantFrom(0, 1_000),
  });
  fc.assert(
    fc.property(fc.array(anyNode, { minLength: 1, maxLength: 7 }), fc.integer({ min: 1, max: 4 }), (nodes, half) => {
      const candidates = nodes.map((one, i) => node(`n${i}`, one));
      // The leader is there: it makes the plan.
      candidates[0] = node("n0");
      let now = config(Array.from({ length: 2 * half - 1 }, (_, i) => `n${i}`).join(" "));
      let steps = 0;
      for (;;) {
        const { changes } = planVoters(now, candidates, NOW);
        if (changes.length === 0) break;
        assert.ok(++steps <= 20, "it comes to an end");
        const voters = new Set(now.voters);
        const learners = new Set(now.learners);
        for (const { op, node } of changes) {
          voters.delete(node);
          learners.delete(node);
          if (op === "add-voter") voters.add(node);
          if (op === "add-learner") learners.add(node);
          if (op === "add-voter") assert.ok(now.learners.includes(node), "a learner first");
        }
        assert.equal(voters.size % 2, 1, `${[...voters]}`);
        const alive = candidates.filter((one) => voters.has(one.id) && one.reachable).length;
        if (voters.size !== now.voters.length || [...voters].some((id) => !now.voters.includes(id))) {
          assert.ok(alive * 2 > voters.size, "a quorum of the new voters is there");
        }
        now = { voters: [...voters].sort(), learners: [...learners].sort(), changing: false };
      }
    }),
    { numRuns: 500 },
  );
});
