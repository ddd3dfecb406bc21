/** Replays seeds of the consensus swarm: `deno run tests/consensus/run.ts --seed=N [--count=N] [--lie=NAME]`. @module */

import { type Lie, LIES, runSwarm } from "./swarm.ts";

const flag = (name: string) => Deno.args.find((one) => one.startsWith(`--${name}=`))?.slice(name.length + 3);
const from = Number(flag("seed") ?? 1);
const lie = LIES.find((one): one is Lie => one === flag("lie"));
for (let seed = from; seed < from + Number(flag("count") ?? 1); seed++) {
  const { counts, endedMs, liars, convicted } = runSwarm({ seed, ...(lie ? { lie } : {}) });
  const found = [...convicted].map(([id, what]) => `${id}: ${[...what].join(", ")}`);
  console.log(seed, endedMs, [...liars].join(" "), JSON.stringify(Object.fromEntries(counts)), found.join("; "));
}
