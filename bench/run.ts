/**
 * Runs the benches one after another; each prints its results as JSON lines on stdout.
 *
 * usage: deno task bench [NAME …]     (names of files in bench/, without the ending; default: all)
 *
 * @module
 */

import { join } from "node:path";

/** In the order in which they run: what measures whole machines comes last, when nothing else is left over. */
const BENCHES = [
  "codec_bench",
  "spore_table",
  "journal",
  "raft",
  "bft",
  "agree",
  "gossip",
  "gossip_net",
  "quic_throughput",
  "rpc_latency",
  "status",
  "start",
  "join",
  "detect",
  "raft_net",
  "raft_failover",
  "footprint",
  "idle",
];

const stray = Deno.args.find((name) => !BENCHES.includes(name));
if (stray !== undefined) {
  console.error(`Cannot run bench "${stray}": wanted one of ${BENCHES.join(", ")}`);
  Deno.exit(2);
}
const failed: string[] = [];
for (const name of BENCHES.filter((one) => Deno.args.length === 0 || Deno.args.includes(one))) {
  console.error(`--- ${name}`);
  const how = name.endsWith("_bench") ? ["bench", "-A"] : ["run", "-A"];
  const { success } = await new Deno.Command(Deno.execPath(), {
    args: [...how, join(import.meta.dirname!, `${name}.ts`)],
    stdin: "null",
    stdout: "inherit",
    stderr: "inherit",
  }).spawn().status;
  if (!success) failed.push(name);
}
if (failed.length > 0) {
  console.error(`Failed: ${failed.join(", ")}`);
  Deno.exit(1);
}
