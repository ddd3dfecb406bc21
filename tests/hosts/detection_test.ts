/** Who finds out, and how soon: killed, cut off and stopped nodes on hosts of their own. @module */

import assert from "node:assert/strict";
import { type HostNode, hostsTest, type Lab, pause, seeEachOther, SILENT } from "../testkit/hosts.ts";

/** The requirement (T4): from the death of a node until all others say so. */
const KNOWN_MS = 5_000;
const NODES = 5;

/** Nodes that see each other and have done so for long enough to know each other's ways. */
async function network(lab: Lab): Promise<HostNode[]> {
  const hosts = await lab.hosts(NODES);
  const first = await lab.founder({ name: "n1", host: hosts[0]!, flags: SILENT });
  const invite = await first.invite({ uses: NODES });
  const nodes = [first];
  for (let i = 1; i < NODES; i++) {
    const node = lab.node({ name: `n${i + 1}`, host: hosts[i]!, flags: SILENT });
    node.join(invite);
    nodes.push(node);
  }
  await seeEachOther(nodes, 40_000);
  await pause(5_000);
  return nodes;
}

/** Waits until all call one dead; gives the milliseconds that it took each, the quickest first. */
async function knowDead(nodes: readonly HostNode[], nodeId: string, from: readonly number[], startMs: number) {
  const times = await Promise.all(nodes.map(async (node, i) => {
    await node.line(
      "calls it dead",
      30_000,
      (line) => line.event === "member-dead" && line.node === nodeId,
      from[i],
    );
    return Math.round(performance.now() - startMs);
  }));
  return times.sort((a, b) => a - b);
}

/** What nodes say of each other that is not so. */
function wronged(nodes: readonly HostNode[], from: readonly number[], exempt: readonly string[] = []): string[] {
  const names = new Map(nodes.map((node) => [node.nodeId, node.name]));
  return nodes.flatMap((node, i) =>
    node.lines.slice(from[i]).filter((line) =>
      (line.event === "member-dead" || line.event === "member-suspect") && names.has(String(line.node)) &&
      !exempt.includes(String(line.node)) && !exempt.includes(node.nodeId)
    ).map((line) => `${node.name}: ${line.msg}`)
  );
}

hostsTest(
  "[3.3c] [10.3c] kill -9 of one of five: all others know within five seconds, and take it back",
  async (lab) => {
    const nodes = await network(lab);
    for (const victim of [nodes[4]!, nodes[2]!]) {
      const others = nodes.filter((one) => one !== victim);
      const nodeId = victim.nodeId;
      const from = others.map((one) => one.lines.length);
      const startMs = performance.now();
      await victim.kill();
      const times = await knowDead(others, nodeId, from, startMs);
      console.log(`killed: the others know after ${times.join(", ")} ms`);
      assert.ok(times.at(-1)! <= KNOWN_MS, `${times.at(-1)} ms`);
      assert.deepEqual(wronged(others, from), []);
      victim.start();
      await seeEachOther(nodes, 20_000);
      await pause(3_000);
    }
  },
);

hostsTest(
  "[3.3c] [10.3b] one of five loses its network: the others know within five seconds, and see it heal",
  async (lab) => {
    const nodes = await network(lab);
    const [lost, ...others] = nodes;
    const from = others.map((one) => one.lines.length);
    const startMs = performance.now();
    await lab.cut([lost!.host], others.map((one) => one.host));
    const times = await knowDead(others, lost!.nodeId, from, startMs);
    console.log(`cut off: the others know after ${times.join(", ")} ms`);
    assert.ok(times.at(-1)! <= KNOWN_MS, `${times.at(-1)} ms`);
    await pause(5_000);
    assert.deepEqual(wronged(others, from), []);
    await lab.heal();
    console.log(`healed after ${await seeEachOther(nodes, 40_000)} ms`);
  },
);

hostsTest(
  "[3.3c] [10.3c] one of five is stopped ten seconds of fifteen, again and again: nobody else flaps",
  async (lab) => {
    const nodes = await network(lab);
    const [stopped, ...others] = nodes.toReversed();
    const from = nodes.map((one) => one.lines.length);
    for (let i = 0; i < 2; i++) {
      stopped!.signal("SIGSTOP");
      await pause(10_000);
      stopped!.signal("SIGCONT");
      await pause(5_000);
    }
    assert.deepEqual(wronged(nodes, from, [stopped!.nodeId]), []);
    const said = stopped!.lines.slice(from.at(-1)).filter((line) => line.event === "member-dead");
    assert.deepEqual(said, [], "what it missed is not held against others");
    const seen = others[0]!.lines.some((line) => line.event === "member-dead" && line.node === stopped!.nodeId);
    assert.ok(seen, "while it was stopped it was dead");
    await seeEachOther(nodes, 20_000);
  },
);
