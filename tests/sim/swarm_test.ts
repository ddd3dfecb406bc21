import assert from "node:assert/strict";
import { runSwarm } from "./swarm.ts";
import type { Host } from "./world.ts";

Deno.test("[10.3a] simulator: the same seed twice gives the same trace, another seed another one", () => {
  const first = runSwarm({ seed: 6 });
  assert.equal(runSwarm({ seed: 6 }).traceHash, first.traceHash);
  assert.notEqual(runSwarm({ seed: 4 }).traceHash, first.traceHash);
});

Deno.test("[10.3a] simulator: a run that fails names its seed and the command that replays it", () => {
  const check = (host: Host) => assert.ok(host.view.state.members.size < 2, "SAFETY: nobody may join");
  assert.throws(
    () => runSwarm({ seed: 77, nodes: 3, check }),
    /Seed 77 failed at \d+ ms; replay it with: deno task sim --seed=77 --nodes=3\naccidents: [\s\S]*nobody may join/,
  );
});

/** Thirty that are cheap enough for everybody's gate; `deno task sim` runs others. */
const SEEDS = Array.from({ length: 33 }, (_, i) => i + 1).filter((seed) => ![18, 24, 25].includes(seed));

for (const seed of SEEDS) {
  Deno.test(
    `[10.2a] [10.3a] [10.3b] [10.3c] simulator: seed ${seed}: safe under faults, whole again when they stop`,
    () => {
      const result = runSwarm({ seed });
      assert.ok(result.accidents.length > 5, "the run had accidents");
    },
  );
}
