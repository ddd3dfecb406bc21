import assert from "node:assert/strict";
import { runSwarm } from "./swarm.ts";

/** Runs of one test; all together are what the gate runs. */
const SEEDS_PER_TEST = 25;
const TESTS = 12;

Deno.test("[3.1c] Raft swarm: the same seed twice gives the same trace, another seed another one", () => {
  const first = runSwarm({ seed: 5 });
  assert.equal(runSwarm({ seed: 5 }).traceHash, first.traceHash);
  assert.notEqual(runSwarm({ seed: 6 }).traceHash, first.traceHash);
});

Deno.test("Raft swarm: a run that fails names its seed and the command that replays it", () => {
  const check = () => assert.fail("SAFETY: nothing may happen");
  assert.throws(
    () => runSwarm({ seed: 7, check }),
    /Raft: seed 7 failed at 0 ms; replay it with: deno run tests\/raft\/run\.ts --seed=7\n[\s\S]*nothing may happen/,
  );
});

for (let i = 0; i < TESTS; i++) {
  const from = 1 + i * SEEDS_PER_TEST;
  const to = from + SEEDS_PER_TEST - 1;
  Deno.test(`[3.1a] [3.1c] [3.1e] [10.1b] Raft swarm: seeds ${from} to ${to}: safe under faults, whole again after`, () => {
    const totals = new Map<string, number>();
    for (let seed = from; seed <= to; seed++) {
      for (const [what, by] of runSwarm({ seed }).counts) totals.set(what, (totals.get(what) ?? 0) + by);
    }
    // The runs are worth something only where things went wrong, and went on.
    for (
      const what of [
        "crashes",
        "partitions",
        "one-way cuts",
        "configurations",
        "snapshots restored",
        "elections",
        "refused overloaded",
        "drop leader-alive",
        "compared and set",
        "compared in vain",
      ]
    ) assert.ok((totals.get(what) ?? 0) > 0, `no ${what} in seeds ${from} to ${to}`);
    assert.ok(
      totals.get("operations answered")! > 100 * SEEDS_PER_TEST,
      `${totals.get("operations answered")} answered`,
    );
    assert.ok(totals.get("committed")! > 50 * SEEDS_PER_TEST, `${totals.get("committed")} committed`);
  });
}
