/**
 * Endless runs of the simulator.
 *
 * usage: deno task sim [--seed=N] [--nodes=N] [--steps=N] [--count=N]
 *
 * With `--seed` that one seed runs; without, seeds from the clock on, until one fails or `--count` have passed.
 *
 * @module
 */

import { runSwarm } from "./swarm.ts";

function flag(name: string): number | undefined {
  const given = Deno.args.find((arg) => arg.startsWith(`--${name}=`));
  if (given === undefined) return undefined;
  const value = Number(given.slice(name.length + 3));
  if (!Number.isSafeInteger(value) || value < 0) throw new TypeError(`Cannot read --${name}: wanted a whole number`);
  return value;
}

if (import.meta.main) {
  const [seed, nodes, steps] = [flag("seed"), flag("nodes"), flag("steps")];
  const count = flag("count") ?? (seed === undefined ? Infinity : 1);
  const first = seed ?? Date.now() % 2 ** 32;
  for (let i = 0; i < count; i++) {
    const result = runSwarm({
      seed: (first + i) % 2 ** 32,
      ...(nodes === undefined ? {} : { nodes }),
      ...(steps === undefined ? {} : { steps }),
    });
    console.log(
      `seed ${result.seed}: ${result.nodes} nodes, ${result.issuers} issuers, ${result.agentSteps} steps, ` +
        `faults for ${Math.round(result.faultsMs / 1000)} s, whole again after ${
          Math.round(result.healMs / 1000)
        } s, ` +
        `at most ${result.stepsPerSecondMax} steps a second, trace ${result.traceHash.slice(0, 16)}`,
    );
  }
}
