/**
 * Raft in one process: three nodes, memory for a network and for disks, values of 256 bytes, 1, 10 and 100 clients.
 *
 * Each client waits for its commit before the next one, so time per commit falls with the clients as far as
 * batching carries. References: hashicorp/raft with its own in-memory transport and store (needs Go, and its
 * modules once), and liferaft, the Raft library of npm, where commands may not overlap. Both hand over objects, as
 * ours does; what encoding adds stands beside it.
 *
 * usage: deno run -A bench/raft.ts [--pairs=5] [--ms=1500]
 *
 * @module
 */

import { join } from "node:path";
import { median, type Pair, report, round } from "./processes.ts";
import type { RaftRun } from "./raft_world.ts";

const PEERS = join(import.meta.dirname!, "peers");
const VALUE_BYTES = "256";

function flag(name: string, missing: number): number {
  return Number(Deno.args.find((one) => one.startsWith(`--${name}=`))?.split("=")[1] ?? missing);
}

async function run(command: string, args: readonly string[], cwd?: string): Promise<string | undefined> {
  try {
    const { success, stdout, stderr } = await new Deno.Command(command, {
      args: [...args],
      stdin: "null",
      ...(cwd === undefined ? {} : { cwd }),
    }).output();
    if (success) return new TextDecoder().decode(stdout);
    console.error(`${command} failed: ${new TextDecoder().decode(stderr).slice(-500)}`);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  return undefined;
}

async function measure(command: string, args: readonly string[]): Promise<RaftRun | undefined> {
  const out = await run(command, args);
  return out === undefined ? undefined : JSON.parse(out) as RaftRun;
}

if (import.meta.main) {
  const pairs = flag("pairs", 5);
  const ms = `${flag("ms", 1_500)}`;
  const folder = await Deno.makeTempDir({ prefix: "mycelium-bench-raft-" });
  try {
    const hashicorp = join(folder, "hashicorp_raft");
    const built = await run("go", ["build", "-o", hashicorp, "."], join(PEERS, "hashicorp_raft"));
    if (built === undefined) console.error("Without hashicorp/raft: there is no Go here, or not its modules");
    const ours = (clients: number, wire = false) =>
      measure(Deno.execPath(), [
        "run",
        "-A",
        join(import.meta.dirname!, "raft_world.ts"),
        `${clients}`,
        ms,
        VALUE_BYTES,
        ...(wire ? ["wire"] : []),
      ]);
    const liferaft = () =>
      measure(Deno.execPath(), [
        "run",
        "-A",
        "--no-config",
        "--no-lock",
        "--node-modules-dir=none",
        join(PEERS, "liferaft.ts"),
        ms,
        VALUE_BYTES,
      ]);
    /** Runs both in turn; as many pairs as asked for, or none where the reference is not there. */
    const compare = async (
      name: string,
      bars: { readonly bar: number; readonly extreme: number },
      one: () => Promise<RaftRun | undefined>,
      other: () => Promise<RaftRun | undefined>,
      wire?: () => Promise<RaftRun | undefined>,
    ) => {
      const taken: Pair[] = [];
      const runs: { readonly mine: RaftRun; readonly theirs: RaftRun; readonly encoded: RaftRun | undefined }[] = [];
      for (let i = 0; i < pairs; i++) {
        const mine = await one();
        const theirs = await other();
        if (!mine || !theirs) return console.error(`${name}: left out`);
        runs.push({ mine, theirs, encoded: await wire?.() });
        taken.push({ ours: 1e6 / mine.perSecond, reference: 1e6 / theirs.perSecond });
      }
      const of = (what: (run: typeof runs[number]) => number | undefined) =>
        round(median(runs.map((one) => what(one) ?? 0)));
      report({
        name,
        unit: "us per commit",
        ...bars,
        pairs: taken,
        more: {
          perSecond: of(({ mine }) => mine.perSecond),
          referencePerSecond: of(({ theirs }) => theirs.perSecond),
          p50Us: of(({ mine }) => mine.p50Us),
          referenceP50Us: of(({ theirs }) => theirs.p50Us),
          p99Us: of(({ mine }) => mine.p99Us),
          referenceP99Us: of(({ theirs }) => theirs.p99Us),
          ...(wire ? { encodedPerSecond: of(({ encoded }) => encoded?.perSecond) } : {}),
        },
      });
    };
    if (built !== undefined) {
      for (const clients of [1, 10, 100]) {
        await compare(
          `raft in process, ${clients} clients, against hashicorp/raft`,
          // Half of its commits a second; as many with one client, three times as many with a hundred.
          { bar: 2, extreme: clients === 1 ? 1 : 1 / 3 },
          () => ours(clients),
          () => measure(hashicorp, [`${clients}`, ms, VALUE_BYTES]),
          () => ours(clients, true),
        );
      }
    }
    await compare("raft in process, 1 client, against liferaft", { bar: 0.1, extreme: 0.1 }, () => ours(1), liferaft);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
