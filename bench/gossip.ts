/**
 * Gossip in one process: 10, 100 and 1000 nodes, arrays for a network, a signed record of 249 bytes that every node
 * verifies once before it passes it on.
 *
 * References: the floor (push to six on receipt and that one verification, no repair, no scores, ids that are
 * believed), and at N = 100 js-libp2p with @libp2p/gossipsub over its memory transport, which needs the registry of
 * npm once. Three lines each: time to the last delivery, the processor time that went by until then, which other
 * work on the machine does not stretch, and the processor time per message and node with all that follows (aim:
 * 0.15 ms, three times the floor). The sends per delivery stand beside them, `frames` with announcements, questions
 * and control and all.
 *
 * usage: deno run -A bench/gossip.ts [--pairs=5] [N …]
 *
 * @module
 */

import { join } from "node:path";
import type { GossipRun } from "./gossip_world.ts";
import { median, type Pair, report, round } from "./processes.ts";

const DENO = Deno.execPath();
const WORLD = join(import.meta.dirname!, "gossip_world.ts");
const PEER = join(import.meta.dirname!, "peers/gossipsub.ts");
const PAIRS = Number(Deno.args.find((one) => one.startsWith("--pairs="))?.slice(8) ?? 5);
const SIZES = Deno.args.filter((one) => /^\d+$/.test(one)).map(Number);

async function measure(args: readonly string[]): Promise<GossipRun | undefined> {
  const { success, stdout, stderr } = await new Deno.Command(DENO, { args: [...args], stdin: "null" }).output();
  if (success) return JSON.parse(new TextDecoder().decode(stdout)) as GossipRun;
  console.error(new TextDecoder().decode(stderr).slice(-1_000));
  return undefined;
}

const world = (kind: "ours" | "floor", nodes: number) =>
  measure(["run", "-A", WORLD, kind, `${nodes}`, `${nodes < 1_000 ? 200 : 40}`]);
const gossipsub = (nodes: number) =>
  measure(["run", "-A", "--no-config", "--no-lock", "--node-modules-dir=none", PEER, `${nodes}`, "20"]);

async function compare(
  nodes: number,
  against: string,
  other: () => Promise<GossipRun | undefined>,
  bars: { readonly bar: number; readonly extreme: number; readonly cpuBar: number },
): Promise<void> {
  const pairs: { readonly ours: GossipRun; readonly reference: GossipRun }[] = [];
  for (let i = 0; i < PAIRS; i++) {
    const first = i % 2 === 0 ? await world("ours", nodes) : undefined;
    const reference = await other();
    const ours = first ?? await world("ours", nodes);
    if (!ours || !reference) return console.error(`Without ${against} at N=${nodes}`);
    pairs.push({ ours, reference });
  }
  const of = (key: keyof GossipRun): Pair[] =>
    pairs.map(({ ours, reference }) => ({ ours: ours[key], reference: reference[key] }));
  const ours = (key: keyof GossipRun) => round(median(pairs.map((one) => one.ours[key])));
  const more = {
    sends: ours("sends"),
    frames: ours("frames"),
    sendsOfReference: round(median(pairs.map((one) => one.reference.sends))),
  };
  const { bar, extreme, cpuBar } = bars;
  const name = (what: string) => `gossip in process, N=${nodes}: ${what}, against ${against}`;
  report({ name: name("last delivery"), unit: "ms", bar, extreme, pairs: of("lastMs"), more });
  report({ name: name("processor time until it"), unit: "ms", bar, extreme, pairs: of("lastCpuMs") });
  report({
    name: name("processor time per message and node"),
    unit: "ms",
    bar: cpuBar,
    extreme: cpuBar,
    pairs: of("cpuMs"),
  });
}

for (const nodes of SIZES.length > 0 ? SIZES : [10, 100, 1_000]) {
  await compare(nodes, "the floor", () => world("floor", nodes), { bar: 2, extreme: 2, cpuBar: 3 });
  if (nodes !== 100) continue;
  const bars = { bar: 0.25, extreme: 0.1, cpuBar: 0.1 };
  await compare(nodes, "js-libp2p", () => gossipsub(nodes), bars);
}
