import assert from "node:assert/strict";
import { checkLinearizable } from "./linearizable.ts";
import { runSwarm } from "./swarm.ts";
import type { Host } from "./world.ts";

Deno.test("[10.3a] simulator: the same seed twice gives the same trace, another seed another one", () => {
  const options = { nodes: 4, steps: 6 };
  const first = runSwarm({ seed: 6, ...options });
  assert.equal(runSwarm({ seed: 6, ...options }).traceHash, first.traceHash);
  assert.notEqual(runSwarm({ seed: 4, ...options }).traceHash, first.traceHash);
});

Deno.test("[10.3a] simulator: a run that fails names its seed and the command that replays it", () => {
  const check = (host: Host) => assert.ok(host.view.state.members.size < 2, "SAFETY: nobody may join");
  assert.throws(
    () => runSwarm({ seed: 77, nodes: 3, faults: ["loss", "crash"], check }),
    /Seed 77 failed at \d+ ms; replay it with: deno task sim --seed=77 --nodes=3 --faults=loss,crash\nfaults: loss crash\naccidents: [\s\S]*nobody may join/,
  );
});

Deno.test("[3.3a] simulator: without faults nobody is called dead, and all is whole at once", () => {
  const result = runSwarm({ seed: 3, nodes: 9, steps: 8, faults: [] });
  assert.ok(result.healMs < 30_000, `${result.healMs} ms`);
});

Deno.test("[3.1c] [3.4c] [10.3e] simulator: a member that lies stops nobody", () => {
  const result = runSwarm({ seed: 11, nodes: 5, steps: 8, faults: ["byzantine", "loss"] });
  assert.ok(result.lies > 100, `${result.lies} lies`);
  assert.ok(result.answered > 10, `${result.answered} answers`);
});

/** Small networks that are cheap enough for everybody's gate; `deno task sim` runs others. */
const SEEDS = [1, 6, 7];

for (const seed of SEEDS) {
  Deno.test(
    `[3.1c] [10.1b] [10.2a] [10.3a] [10.3b] [10.3c] [10.3d] simulator: seed ${seed}: safe under faults, whole again when they stop`,
    () => {
      const result = runSwarm({ seed });
      assert.ok(result.accidents.length > 5, "the run had accidents");
      assert.equal(checkLinearizable(result.history).linearizable, true);
    },
  );
}
