/**
 * The Primary Spore over loopback: three processes and a client process, values of 256 bytes, 1, 10 and 100 writers;
 * beside it three members of etcd with their data on tmpfs and a client of ours in a process of its own.
 *
 * Ours is the whole way of a write: the client is a member that signs each record and sends it over QUIC; the leader
 * verifies it, all three verify, agree on and apply it, and store it in SQLite (synchronous=FULL, on tmpfs as well). The
 * bars are those of `performance.md` (row 7). Etcd's client speaks gRPC (HTTP/2, ten connections) without signatures.
 *
 * usage: deno run -A bench/raft_net.ts [--pairs=5] [--ms=3000] [--source] [--etcd=PATH]
 *
 * @module
 */

import type { WritersRun } from "./client_process.ts";
import { startPrimaryWorld } from "./primary_world.ts";
import { median, numberFlag, type Pair, report, round } from "./processes.ts";

const WRITERS = [1, 10, 100] as const;
/** Time per commit, all writers together, over etcd's, at most: the bar and the aim by writers. */
const BARS = { 1: [1, 0.67], 10: [0.5, 0.25], 100: [0.2, 0.067] } as const;

const [pairs, runMs] = [numberFlag("pairs", 5), numberFlag("ms", 3_000)];
await using world = await startPrimaryWorld();
const { ours, reference } = world;
for (const writers of WRITERS) {
  // The first run is for the optimizing compiler.
  await ours.ask<WritersRun>(`write ${writers} ${runMs}`);
  await reference?.client.ask(`write ${writers} ${runMs}`);
  const [own, theirs]: [WritersRun[], WritersRun[]] = [[], []];
  for (let i = 0; i < pairs; i++) {
    own.push(await ours.ask<WritersRun>(`write ${writers} ${runMs}`));
    if (reference) theirs.push(await reference.client.ask<WritersRun>(`write ${writers} ${runMs}`));
  }
  const of = (runs: readonly WritersRun[], field: keyof WritersRun) => round(median(runs.map((one) => one[field])));
  const more = {
    perSecond: of(own, "perSecond"),
    p50Ms: of(own, "p50Ms"),
    p99Ms: of(own, "p99Ms"),
    ...(theirs.length > 0
      ? {
        referencePerSecond: of(theirs, "perSecond"),
        referenceP50Ms: of(theirs, "p50Ms"),
        referenceP99Ms: of(theirs, "p99Ms"),
      }
      : {}),
  };
  const name = `raft-net ${writers}`;
  const [bar, extreme] = BARS[writers];
  const found: Pair[] = theirs.map((one, i) => ({ ours: 1e6 / own[i]!.perSecond, reference: 1e6 / one.perSecond }));
  if (found.length > 0) report({ name, unit: "us per commit", bar, extreme, pairs: found, more });
  else console.log(JSON.stringify({ name, ...more }));
}
