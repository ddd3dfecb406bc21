/**
 * Bytes that a member sends while nothing happens, in a network of 20, beside serf agents that do the same.
 *
 * usage: deno run -A bench/idle.ts [SECONDS] [NODES]     (root; hosts are network namespaces on two switches)
 *
 * Each node is a process of the compiled program on a host of its own with every discovery on; the kernel counts what
 * its interface sends, headers of Ethernet, IP and UDP included. serf runs through the same seconds on its own switch.
 * Limit: 5 MB an hour, 1,389 B/s (T11); to aim at: 300 B/s. serf's LAN profile: 268 B/s (`performance.md`).
 *
 * @module
 */

import { BINARY, load, median, requireBinary, round, sleep } from "./processes.ts";
import { type Host, type HostNode, Lab, MISSING, works } from "../tests/testkit/hosts.ts";

const SECONDS = Number(Deno.args[0] ?? 180);
const NODES = Number(Deno.args[1] ?? 20);
const SETTLE_MS = 40_000;
const BYTES_PER_HOUR_MAX = 5e6;
const EXTREME_BYTES_PER_SECOND = 300;

/** What an interface has counted. */
interface Counted {
  readonly bytes: number;
  readonly packets: number;
  readonly received: number;
}

requireBinary();
if (MISSING.length > 0) {
  console.error(`SKIP idle: needs ${MISSING.join(", ")}`);
  Deno.exit(0);
}
await using lab = await Lab.make();
const ours = await lab.hosts(NODES);
const nodes = await startOurs(ours);
const withSerf = await works("serf", "version");
await using peerLab = await Lab.make();
const theirs = withSerf ? await peerLab.hosts(NODES) : [];
if (!withSerf) console.error("serf is not installed (Debian: serf): without the reference");
theirs.forEach((host, i) => {
  const join = i === 0 ? [] : [`-retry-join=${theirs[0]!.v4}`, "-retry-interval=1s"];
  peerLab.service(host, ["serf", "agent", `-node=s${i}`, `-bind=${host.v4}`, ...join]);
});
await sleep(SETTLE_MS);
const before = await Promise.all([count(lab, ours), count(peerLab, theirs)]);
const startedMs = performance.now();
await sleep(SECONDS * 1_000);
const after = await Promise.all([count(lab, ours), count(peerLab, theirs)]);
const seconds = (performance.now() - startedMs) / 1_000;
const alive = await Promise.all(nodes.map(async (node) => aliveIn(await node.status())));
if (Math.min(...alive) < NODES) throw new Error(`Not all nodes were alive at the end: ${alive.join(" ")}`);
const [mine, serf] = [0, 1].map((side) => perSecond(before[side]!, after[side]!, seconds));
console.log(JSON.stringify({
  name: `idle bytes sent per node, N=${NODES}`,
  unit: "B/s",
  ours: mine!.bytes,
  reference: withSerf ? serf!.bytes : null,
  ratio: withSerf ? round(mine!.bytes / serf!.bytes) : null,
  megabytesPerHour: round(mine!.bytes * 3_600 / 1e6),
  limit: round(BYTES_PER_HOUR_MAX / 3_600),
  extreme: EXTREME_BYTES_PER_SECOND,
  held: mine!.bytes * 3_600 <= BYTES_PER_HOUR_MAX,
  mine,
  serf: withSerf ? serf : null,
  seconds: round(seconds),
  load: load(),
}));

async function startOurs(hosts: readonly Host[]): Promise<HostNode[]> {
  const settings = { command: [BINARY] as const, flags: ["--log-level", "info"] };
  const founder = await lab.founder({ ...settings, name: "n0", host: hosts[0]! });
  const invite = await founder.invite({ uses: Math.max(1, NODES - 1) });
  const nodes = [founder];
  for (const [i, host] of hosts.slice(1).entries()) {
    const node = lab.node({ ...settings, name: `n${i + 1}`, host });
    node.join(invite);
    nodes.push(node);
    await node.verified(60_000);
  }
  for (const node of nodes) await node.until(`${NODES} members`, 60_000, (status) => aliveIn(status) >= NODES);
  return nodes;
}

function aliveIn(status: { readonly members: readonly { readonly state: string }[] }): number {
  return status.members.filter(({ state }) => state === "self" || state === "alive").length;
}

/** Reads the counters of all interfaces. */
async function count(lab: Lab, hosts: readonly Host[]): Promise<readonly Counted[]> {
  return await Promise.all(hosts.map(async (host) => {
    const { stdout } = await lab.inside(host, ["cat", "/proc/net/dev"]);
    const fields = /eth0:\s*(.*)/.exec(stdout)?.[1]?.trim().split(/\s+/).map(Number) ?? [];
    // Source: proc_net(5); eight fields of what came in, then eight of what went out.
    return { received: fields[0]!, bytes: fields[8]!, packets: fields[9]! };
  }));
}

function perSecond(before: readonly Counted[], after: readonly Counted[], seconds: number) {
  const rates = (field: keyof Counted) => after.map((one, i) => (one[field] - before[i]![field]) / seconds);
  const mean = (values: readonly number[]) => values.reduce((sum, one) => sum + one, 0) / Math.max(1, values.length);
  const bytes = rates("bytes");
  return {
    bytes: round(mean(bytes)),
    median: round(bytes.length === 0 ? 0 : median(bytes)),
    largest: round(Math.max(0, ...bytes)),
    packets: round(mean(rates("packets"))),
    received: round(mean(rates("received"))),
  };
}
