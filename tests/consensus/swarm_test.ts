import assert from "node:assert/strict";
import { toleratedFaults } from "../../src/consensus/weights.ts";
import { LIES, runSwarm } from "./swarm.ts";

Deno.test("[10.1b] Consensus swarm: the same seed twice gives the same trace, another seed another one", () => {
  const first = runSwarm({ seed: 3 });
  assert.equal(runSwarm({ seed: 3 }).traceHash, first.traceHash);
  assert.notEqual(runSwarm({ seed: 6 }).traceHash, first.traceHash);
});

for (const from of [100, 105, 110, 115]) {
  Deno.test(`[4.1b] [4.1d] [10.1b] Consensus swarm: seeds ${from} to ${from + 4}: no two certificates, the honest vote wins, all is decided`, () => {
    const totals = new Map<string, number>();
    for (let seed = from; seed < from + 5; seed++) {
      for (const [what, by] of runSwarm({ seed }).counts) totals.set(what, (totals.get(what) ?? 0) + by);
    }
    for (const what of ["crashes", "lost", "decided", "decided in round 1"]) {
      assert.ok((totals.get(what) ?? 0) > 0, `no ${what} in seeds from ${from}`);
    }
  });
}

for (const [i, lie] of LIES.entries()) {
  Deno.test(`[4.1d] [4.4d] Consensus: f of seven liars that "${lie}": agreement, validity, a decision`, () => {
    const { convicted, liars, table } = runSwarm({ seed: 200 + i, nodes: 7, lie, liars: 2, calm: true, proposals: 2 });
    assert.equal(liars.size, toleratedFaults(table));
    const found = new Set([...convicted.values()].flatMap((what) => [...what]));
    // Only liars are convicted here: the network loses nothing.
    for (const id of convicted.keys()) assert.ok(liars.has(id), `${id} is honest`);
    const expected: Partial<Record<typeof lie, string>> = {
      "withhold": "liveness withheld",
      "equivocate": "safety two-commitments",
      "wrong": "vote wrong-vote",
      "bad-shares": "safety bad-dealing",
    };
    const wanted = expected[lie];
    if (wanted !== undefined) assert.ok(found.has(wanted), `found ${[...found].join(", ") || "nothing"}`);
  });
}

Deno.test("[4.1d] Consensus: with f + 1 silent voters nothing is decided: here the guarantee ends", () => {
  const { complete, counts } = runSwarm({
    seed: 300,
    nodes: 4,
    lie: "silent",
    liars: 2,
    calm: true,
    proposals: 2,
    giveUpMs: 20_000,
  });
  assert.equal(complete, false);
  assert.equal(counts.get("decided"), undefined);
});
