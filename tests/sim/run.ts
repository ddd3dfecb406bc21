/**
 * Endless runs of the simulator.
 *
 * usage: deno task sim [--seed=N] [--count=N] [--nodes=N] [--steps=N] [--faults=A,B|none] [--history=FILE]
 *
 * With `--seed` that one seed runs (with `--count` those after it as well); without, seeds from the clock on, until
 * one fails or `--count` have passed. `--history FILE` writes what the clients of the last run did, a line of JSON
 * for each call and each answer, for a linearizability checker. `--keep-going` prints what fails and goes on;
 * `--jobs=N` lets N processes share the seeds (needs the right to run programs: `-A`).
 *
 * @module
 */

import { parseArgs } from "node:util";
import { type Fault, FAULTS } from "./faults.ts";
import { runSwarm } from "./swarm.ts";

function whole(name: string, given: string | undefined): number | undefined {
  if (given === undefined) return undefined;
  const value = Number(given);
  if (!Number.isSafeInteger(value) || value < 0) throw new TypeError(`Cannot read --${name}: wanted a whole number`);
  return value;
}

function faultsIn(given: string): readonly Fault[] {
  if (given === "none") return [];
  return given.split(",").map((name) => {
    const fault = FAULTS.find((one) => one === name);
    if (!fault) throw new TypeError(`Cannot read --faults "${name}": wanted some of ${FAULTS.join(", ")}, or none`);
    return fault;
  });
}

/** Runs the seeds in several processes, one stretch each; returns the status to exit with. */
async function share(first: number, count: number, jobs: number): Promise<number> {
  if (!Number.isFinite(count)) throw new TypeError("Cannot share endless runs: wanted --count");
  const kept = Deno.args.filter((arg) => !/^--(seed|count|jobs)=/.test(arg));
  const size = Math.ceil(count / jobs);
  const codes = await Promise.all(Array.from({ length: jobs }, async (_, i) => {
    const args = [`--seed=${first + i * size}`, `--count=${Math.min(size, count - i * size)}`, ...kept];
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--no-check", import.meta.filename!, ...args],
      stdin: "null",
    }).spawn();
    return (await child.status).code;
  }));
  return Math.max(...codes);
}

if (import.meta.main) {
  const { values } = parseArgs({
    args: Deno.args,
    options: {
      seed: { type: "string" },
      count: { type: "string" },
      nodes: { type: "string" },
      steps: { type: "string" },
      faults: { type: "string" },
      history: { type: "string" },
      "keep-going": { type: "boolean" },
      jobs: { type: "string" },
    },
  });
  const [seed, nodes, steps] = (["seed", "nodes", "steps"] as const).map((name) => whole(name, values[name]));
  const count = whole("count", values.count) ?? (seed === undefined ? Infinity : 1);
  const first = seed ?? Date.now() % 2 ** 32;
  const jobs = whole("jobs", values.jobs) ?? 1;
  if (jobs > 1) Deno.exit(await share(first, count, jobs));
  let failed = 0;
  for (let i = 0; i < count; i++) {
    const startMs = performance.now();
    try {
      const result = runSwarm({
        seed: (first + i) % 2 ** 32,
        ...(nodes === undefined ? {} : { nodes }),
        ...(steps === undefined ? {} : { steps }),
        ...(values.faults === undefined ? {} : { faults: faultsIn(values.faults) }),
      });
      const seconds = (ms: number) => `${Math.round(ms / 1000)} s`;
      console.log(
        `seed ${result.seed}: ${result.nodes} nodes, ${result.issuers} issuers, ${result.agentSteps} steps, faults (${
          result.faults.join(" ")
        }) for ${seconds(result.faultsMs)}, whole again after ${
          seconds(result.healMs)
        }, ${result.elections} elections, ` +
          `${result.committed} committed, ${result.answered} answered, ${result.records} records, ${result.notes} notes, ${result.lies} lies, at most ` +
          `${result.stepsPerSecondMax} steps a second, trace ${result.traceHash} in ${
            seconds(performance.now() - startMs)
          }`,
      );
      if (values.history !== undefined) {
        Deno.writeTextFileSync(values.history, result.history.map((one) => JSON.stringify(one) + "\n").join(""));
      }
    } catch (error) {
      if (!values["keep-going"]) throw error;
      failed += 1;
      const text = error instanceof Error ? error.message : String(error);
      console.log(text.split("\n").slice(0, 6).map((line) => line.slice(0, 300)).join("\n"));
    }
  }
  if (failed > 0) {
    console.log(`${failed} of ${count} failed`);
    Deno.exit(1);
  }
}
