/**
 * Replays one seed of the Raft swarm and prints its trace, or runs many.
 *
 * `deno run tests/raft/run.ts --seed=7` prints the end of the trace; `--count=1000` runs that many from the seed on.
 *
 * @module
 */

import { runSwarm } from "./swarm.ts";

const flag = (name: string) => Deno.args.find((one) => one.startsWith(`--${name}=`))?.split("=")[1];
const seed = Number(flag("seed") ?? 1);
const count = Number(flag("count") ?? 1);
const totals = new Map<string, number>();
for (let i = 0; i < count; i++) {
  const { counts, lines, traceHash } = runSwarm({ seed: seed + i });
  if (count === 1) console.log([...lines, `trace ${traceHash}`].join("\n"));
  for (const [what, by] of counts) totals.set(what, (totals.get(what) ?? 0) + by);
}
console.log(totals);
