/**
 * Replays one seed of the Raft swarm and prints its trace, or runs many.
 *
 * `deno run tests/raft/run.ts --seed=7` prints the end of the trace; `--count=1000` runs that many from the seed on;
 * `--history=FILE` (with `--allow-write`) writes what the clients of the last one did, one line of JSON each.
 *
 * @module
 */

import { runSwarm } from "./swarm.ts";

const flag = (name: string) => Deno.args.find((one) => one.startsWith(`--${name}=`))?.split("=")[1];
const seed = Number(flag("seed") ?? 1);
const count = Number(flag("count") ?? 1);
const path = flag("history");
const totals = new Map<string, number>();
for (let i = 0; i < count; i++) {
  const { counts, lines, traceHash, history } = runSwarm({ seed: seed + i });
  if (path) Deno.writeTextFileSync(path, history.map((one) => JSON.stringify(one) + "\n").join(""));
  if (count === 1) console.log([...lines, `trace ${traceHash}`].join("\n"));
  for (const [what, by] of counts) totals.set(what, (totals.get(what) ?? 0) + by);
}
console.log(totals);
