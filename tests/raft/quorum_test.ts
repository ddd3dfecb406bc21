import assert from "node:assert/strict";
import fc from "fast-check";
import { WireError } from "../../src/core/codec.ts";
import {
  changedConfig,
  type ClusterConfig,
  type ConfigChange,
  configOf,
  configToCbor,
  EMPTY_CONFIG,
  isJoint,
  membersOf,
  readConfig,
  type Transition,
} from "../../src/raft/config.ts";
import { reachedByQuorum, voteResult } from "../../src/raft/quorum.ts";

const NAMES = ["a", "b", "c", "d", "e", "f", "g"];
const names = fc.uniqueArray(fc.constantFrom(...NAMES), { minLength: 1 });
const configs = fc.record({ voters: names, old: fc.option(names) }).map(({ voters, old }): ClusterConfig => ({
  ...EMPTY_CONFIG,
  voters: [...voters].sort(),
  votersOutgoing: [...old ?? []].sort(),
}));

/** Whether more than half of the voters of each half satisfy it: the definition. */
function agreed(config: ClusterConfig, satisfies: (voter: string) => boolean): boolean {
  return [config.voters, config.votersOutgoing].every((half) =>
    half.length === 0 || 2 * half.filter(satisfies).length > half.length
  );
}

Deno.test("[10.1b] reachedByQuorum() is the largest index that a majority of each half has (brute force)", () => {
  fc.assert(
    fc.property(configs, fc.array(fc.nat(9), { minLength: 7, maxLength: 7 }), (config, values) => {
      const reached = (voter: string) => values[NAMES.indexOf(voter)]!;
      let largest = 0;
      for (let index = 0; index <= 9; index++) if (agreed(config, (one) => reached(one) >= index)) largest = index;
      assert.equal(reachedByQuorum(config, reached), largest);
    }),
    { numRuns: 2_000, seed: 1 },
  );
  assert.equal(reachedByQuorum(EMPTY_CONFIG, () => 5), 0, "nobody commits nothing");
});

Deno.test("[10.1b] voteResult() is won or lost as soon as the missing votes cannot change it (all completions)", () => {
  fc.assert(
    fc.property(
      configs,
      fc.array(fc.constantFrom(true, false, undefined), { minLength: 7, maxLength: 7 }),
      (config, drawn) => {
        const votes = new Map(NAMES.flatMap((name, i) => drawn[i] === undefined ? [] : [[name, drawn[i]]] as const));
        const missing = NAMES.filter((_, i) => drawn[i] === undefined);
        const ends = new Set<boolean>();
        for (let bits = 0; bits < 1 << missing.length; bits++) {
          const full = new Map(votes);
          missing.forEach((name, i) => full.set(name, (bits >> i & 1) === 1));
          ends.add(agreed(config, (one) => full.get(one)!));
        }
        const expected = ends.size === 2 ? "open" : ends.has(true) ? "won" : "lost";
        assert.equal(voteResult(config, votes), expected);
      },
    ),
    { numRuns: 1_000, seed: 1 },
  );
  assert.equal(voteResult(EMPTY_CONFIG, new Map()), "lost");
});

const changes = fc.uniqueArray(
  fc.record({ op: fc.constantFrom("add-voter", "add-learner", "remove"), node: fc.constantFrom(...NAMES) }),
  { minLength: 1, maxLength: 4, selector: (one) => one.node },
) as fc.Arbitrary<ConfigChange[]>;

Deno.test("[10.1b] changedConfig(): each step of a change shares a voter with every quorum of the one before", () => {
  let joint = 0, direct = 0;
  const transitions = fc.constantFrom<Transition>("auto", "joint", "joint-explicit");
  fc.assert(
    fc.property(names, changes, transitions, (voters, list, transition) => {
      const before = configOf(voters, NAMES.filter((one) => !voters.includes(one)).slice(0, 1));
      const changed = changedConfig(before, list, transition);
      if (!changed.ok) return assert.equal(changed.reason, "no-voters");
      const steps = [before, changed.config];
      if (isJoint(changed.config)) {
        joint++;
        const left = changedConfig(changed.config, []);
        assert.ok(left.ok && !isJoint(left.config));
        steps.push(left.config);
        assert.deepEqual(changedConfig(changed.config, list), { ok: false, reason: "joint" });
      } else direct++;
      for (const [i, one] of steps.entries()) {
        assert.deepEqual(readConfig(configToCbor(one), "$"), one, "what it makes can be read");
        const next = steps[i + 1];
        if (next) assertOverlap(one, next);
      }
      const last = steps.at(-1)!;
      for (const { op, node } of list) {
        assert.equal(last.voters.includes(node), op === "add-voter");
        assert.equal(last.learners.includes(node), op === "add-learner");
      }
    }),
    { numRuns: 400, seed: 1 },
  );
  assert.ok(joint > 50 && direct > 30, `${joint} joint, ${direct} direct`);
});

/** No two disjoint sets of nodes are quorums of the two. */
function assertOverlap(a: ClusterConfig, b: ClusterConfig): void {
  const all = [...new Set([...membersOf(a), ...membersOf(b)])];
  for (let bits = 0; bits < 1 << all.length; bits++) {
    const inside = (name: string) => (bits >> all.indexOf(name) & 1) === 1;
    assert.ok(!agreed(a, inside) || !agreed(b, (one) => !inside(one)), "two quorums without a common voter");
  }
}

Deno.test("changedConfig() refuses what contradicts itself, and what has no end", () => {
  const three = configOf(["a", "b", "c"]);
  const twice: ConfigChange[] = [{ op: "remove", node: "a" }, { op: "add-voter", node: "a" }];
  assert.deepEqual(changedConfig(three, twice), { ok: false, reason: "contradiction" });
  assert.deepEqual(changedConfig(three, []), { ok: false, reason: "not-joint" });
  const many = Array.from({ length: 40 }, (_, i): ConfigChange => ({ op: "add-learner", node: `x${i}` }));
  assert.deepEqual(changedConfig(three, many), { ok: false, reason: "too-many-members" });
});

Deno.test("readConfig() refuses configurations that contradict themselves", () => {
  const bad: Partial<ClusterConfig>[] = [
    { voters: ["b", "a"] },
    { voters: ["a", "a"] },
    { voters: ["a"], learners: ["a"] },
    { voters: [], learners: ["a"] },
    { voters: ["a"], votersOutgoing: ["b"], learners: ["b"] },
    { voters: ["a"], learnersNext: ["b"] },
    { voters: ["a"], autoLeave: true },
    { voters: ["a b"] },
  ];
  for (const one of bad) {
    assert.throws(() => readConfig(configToCbor({ ...EMPTY_CONFIG, ...one }), "$"), WireError, JSON.stringify(one));
  }
});
