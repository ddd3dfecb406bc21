/**
 * What a member costs while nothing happens: memory, CPU, wake-ups and descriptors of the compiled program, alone and
 * in a network of three, beside a compiled program of the same runtime with an HTTP server and a QUIC listener only.
 *
 * usage: deno run -A bench/footprint.ts [SECONDS]     (root; hosts are network namespaces)
 *
 * Every discovery is on, as in production. Nodes settle for 30 s first, then all are watched through the same SECONDS.
 * Budget (`performance.md`): at most 80 MB, 40 MB of them anonymous, 0.6 % of a CPU, 27 wake-ups a second; to aim at:
 * 1.15 times the skeleton, 0.3 %, 12 a second.
 *
 * @module
 */

import { createLeaf } from "../src/edge/p2p/certificate.ts";
import { keyPairFromSeed } from "../src/core/crypto.ts";
import { type HostNode, Lab, MISSING } from "../tests/testkit/hosts.ts";
import { BINARY, buildSkeleton, type Figures, figures, load, requireBinary, round, sleep } from "./processes.ts";

const SECONDS = Number(Deno.args[0] ?? 60);
const SETTLE_MS = 30_000;
const BUDGET = { rssMb: 80, anonMb: 40, cpuPercent: 0.6, wakeupsPerSecond: 27 };
const EXTREME = { rssOfSkeleton: 1.15, anonMb: 28, cpuPercent: 0.3, wakeupsPerSecond: 12 };

/** A process that is watched, and its figures at the start. */
interface Watched {
  readonly name: string;
  readonly pid: number;
  before?: Figures;
}

requireBinary();
if (MISSING.length > 0) {
  console.error(`SKIP footprint: needs ${MISSING.join(", ")}`);
  Deno.exit(0);
}
const skeletonProgram = await buildSkeleton();
await using lab = await Lab.make();
const watched: Watched[] = [{ name: "skeleton", pid: await startSkeleton() }];
const settings = { command: [BINARY] as const, flags: ["--log-level", "info"] };
const alone = await lab.founder({ ...settings, name: "alone", host: await lab.host() }, "alone");
const founder = await lab.founder({ ...settings, name: "n1", host: await lab.host() });
const invite = await founder.invite({ uses: 2 });
const members: HostNode[] = [founder];
for (const name of ["n2", "n3"]) {
  const node = lab.node({ ...settings, name, host: await lab.host() });
  node.join(invite);
  await node.verified(60_000);
  members.push(node);
}
watched.push({ name: "N=1", pid: alone.pid });
for (const node of members) watched.push({ name: `N=3 ${node.name}`, pid: node.pid });
await sleep(SETTLE_MS);
for (const one of watched) one.before = figures(one.pid);
const startedMs = performance.now();
await sleep(SECONDS * 1_000);
const seconds = (performance.now() - startedMs) / 1_000;
const results = watched.map((one) => measure(one, seconds));
const [skeleton, ...nodes] = results;
for (const node of nodes) {
  console.log(JSON.stringify({
    name: `footprint: idle member, ${node.name}, against an HTTP and QUIC skeleton`,
    ours: node.figures,
    reference: skeleton!.figures,
    ratio: round(node.figures.rssMb / skeleton!.figures.rssMb),
    budget: BUDGET,
    extreme: EXTREME,
    held: Object.fromEntries(
      (Object.keys(BUDGET) as (keyof typeof BUDGET)[]).map((key) => [key, node.figures[key] <= BUDGET[key]]),
    ),
    seconds: round(seconds),
    load: load(),
  }));
}

async function startSkeleton(): Promise<number> {
  const host = await lab.host();
  const pair = keyPairFromSeed(crypto.getRandomValues(new Uint8Array(32)));
  const leaf = createLeaf(pair, { networkId: new Uint8Array(32), nowMs: Date.now(), lifetimeMs: 3_600_000 });
  const [certificate, key] = [`${lab.home}/leaf.pem`, `${lab.home}/leaf.key`];
  await Deno.writeTextFile(certificate, leaf.cert);
  await Deno.writeTextFile(key, leaf.key, { mode: 0o600 });
  const options = { stdin: "null", stdout: "null", stderr: "null" } as const;
  return lab.spawn(host, [skeletonProgram, "0", certificate, key], options).pid;
}

function measure({ name, pid, before }: Watched, seconds: number) {
  const after = figures(pid);
  return {
    name,
    figures: {
      rssMb: round(after.rssMb),
      anonMb: round(after.anonMb),
      pssMb: round(after.pssMb),
      peakMb: round(after.peakMb),
      cpuPercent: round((after.cpuMs - before!.cpuMs) / seconds / 10),
      wakeupsPerSecond: round((after.sleeps - before!.sleeps) / seconds),
      fds: after.fds,
    },
  };
}
