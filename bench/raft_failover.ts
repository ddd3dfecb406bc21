/**
 * Failover: four writers write without pause, the leader is killed (SIGKILL), and the longest time without an
 * acknowledged write counts; beside it three members of etcd, treated the same way.
 *
 * Ours writes each value on the condition that the writer's last one is there: a write that was acknowledged and lost
 * would end the bench with a conflict. Between two rounds the killed node starts again and catches up. The clients try
 * another member where one does not answer: ours as the program does, etcd's after one second or at once where the
 * connection ends. The bar is 0.4 of etcd's gap (`performance.md`, row 8).
 *
 * usage: deno run -A bench/raft_failover.ts [--rounds=20] [--source] [--etcd=PATH]
 *
 * @module
 */

import type { WritersRun } from "./client_process.ts";
import { startPrimaryWorld } from "./primary_world.ts";
import { numberFlag, type Pair, report, round, sleep } from "./processes.ts";

const RUN_MS = 5_000;
const KILL_AFTER_MS = 1_000;

const rounds = numberFlag("rounds", 20);
await using world = await startPrimaryWorld();
const { group, ours, reference } = world;
const gaps: number[] = [];
const found: Pair[] = [];
let acknowledged = 0;
for (let i = 0; i < rounds; i++) {
  const leader = await group.leader();
  const running = ours.ask<WritersRun>(`chain 4 ${RUN_MS}`);
  await sleep(KILL_AFTER_MS);
  await leader.end("SIGKILL");
  const run = await running;
  acknowledged += run.acknowledged;
  gaps.push(run.gapMs);
  await leader.start();
  await group.until("it has caught up", async () => {
    const all = await Promise.all(group.members.map((one) => one.primary()));
    return all.every((one) => one.appliedIndex === all[0]!.appliedIndex);
  });
  if (!reference) continue;
  const { etcd, client } = reference;
  const member = await etcd.leader();
  const theirs = client.ask<WritersRun>(`write 4 ${RUN_MS}`);
  await sleep(KILL_AFTER_MS);
  await etcd.kill(member);
  found.push({ ours: run.gapMs, reference: (await theirs).gapMs });
  etcd.restart(member);
  await etcd.healthy();
}
gaps.sort((a, b) => a - b);
const more = {
  medianMs: round(gaps[gaps.length >> 1]!),
  p99Ms: round(gaps[Math.floor(gaps.length * 0.99)]!),
  rounds,
  acknowledged,
  lost: 0,
};
if (found.length > 0) {
  report({
    name: "raft-failover",
    unit: "ms without an acknowledged write",
    bar: 0.4,
    extreme: 0.15,
    pairs: found,
    more,
  });
} else console.log(JSON.stringify({ name: "raft-failover", unit: "ms", ...more }));
