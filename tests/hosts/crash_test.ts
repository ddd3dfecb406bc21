/** kill -9 at every stage of joining, of the joining node, of its registrar, and of everybody. @module */

import assert from "node:assert/strict";
import { readStoredState } from "../../src/edge/stored_state.ts";
import {
  type Host,
  type HostNode,
  hostsTest,
  type Lab,
  seeEachOther,
  SILENT,
  withAddresses,
} from "../testkit/hosts.ts";

/** Each way. Every call of a stage takes twice that: time enough to kill a node within. */
const DELAY_MS = 150;
/** From the log's line of a stage until it is stored, and not yet over. */
const STORED_MS = 60;
const RELAY = new URL("./fixtures/relay.ts", import.meta.url).pathname;

/** A founder, and the address of a slow way to it. */
async function slowWay(lab: Lab): Promise<{ n1: HostNode; host: Host; address: string }> {
  const [h1, h2, h3] = await lab.hosts(3);
  const n1 = await lab.founder({ name: "n1", host: h1!, flags: ["--no-mdns", "--no-broadcast"] });
  const command = [Deno.execPath(), "run", "-A", "--no-check", "--no-lock", "--unstable-net", RELAY];
  await lab.ready(h3!, [...command, `${h3!.v4}:4871`, `${h1!.v4}:4871`, String(DELAY_MS)]);
  return { n1, host: h2!, address: `/ip4/${h3!.v4}/udp/4871/quic-v1/p2p/${n1.nodeId}` };
}

/** Kills a node with -9 as soon as its log shows a stage; returns the stage that its folder then holds. */
async function killAt(node: HostNode, stage: string): Promise<string | undefined> {
  const reached = Promise.withResolvers<void>();
  node.onLine = (line) => {
    if (line.event !== "stage" || line.stage !== stage) return;
    node.onLine = undefined;
    // The line comes just before the stage is stored; a handoff is over too soon to wait for that.
    setTimeout(() => {
      node.signal("SIGKILL");
      reached.resolve();
    }, stage === "handoff" ? 0 : STORED_MS);
  };
  const timer = setTimeout(() => reached.reject(new Error(`${node.name} did not come to ${stage}`)), 15_000);
  try {
    await reached.promise;
  } finally {
    clearTimeout(timer);
    node.onLine = undefined;
  }
  await node.exited();
  return (await readStoredState(node.state))?.stage;
}

/** After the restart: the same node, verified, and the network has it once. */
async function comesIn(n1: HostNode, node: HostNode, nodeId: string): Promise<void> {
  const { value } = await node.verified();
  assert.equal(value.node.nodeId, nodeId);
  const { value: seen } = await n1.until(
    `sees ${node.name}`,
    5_000,
    (status) => status.members.some((one) => one.nodeId === nodeId && one.state === "alive"),
  );
  assert.equal(seen.members.filter((one) => one.name.startsWith(node.name)).length, 1);
  // Gone for good: the next one shall not ask it for a witness.
  await n1.control({ verb: "node-remove", node: nodeId });
  await node.kill();
}

for (
  const group of [["discovering", "contacting", "authenticating"], ["registering", "handoff", "verifying", "verified"]]
) {
  hostsTest(
    `[1.3d] kill -9 while ${group.join(", ")}, and start again: the join goes on and ends verified`,
    async (lab) => {
      const { n1, host, address } = await slowWay(lab);
      for (const stage of group) {
        const multicast = stage === "discovering";
        const node = lab.node({
          name: stage,
          host,
          flags: multicast ? ["--no-mdns", "--no-broadcast"] : SILENT,
        });
        const held = multicast || stage === "contacting";
        if (held) await lab.filter(`iifname "${host.name}" drop`);
        node.join(withAddresses(await n1.invite(), multicast ? [] : [address]));
        const stored = await killAt(node, stage);
        if (held) await lab.heal();
        const wanted = stage === "handoff" ? ["registering", "handoff", "verifying"] : [stage];
        assert.ok(wanted.includes(stored ?? "none"), `killed at ${stage}, stored ${stored}`);
        const { nodeId } = node;
        node.start();
        await comesIn(n1, node, nodeId);
        console.log(`killed at ${stage} (stored ${stored}): verified after the restart`);
      }
    },
  );
}

hostsTest(
  "[1.3d, 1.2b] kill -9 while awaiting approval: it asks again after the restart, and is let in",
  async (lab) => {
    const { n1, host, address } = await slowWay(lab);
    const node = lab.node({ name: "n2", host, flags: SILENT });
    node.join(withAddresses(await n1.invite({ approval: true }), [address]));
    assert.equal(await killAt(node, "awaiting-approval"), "awaiting-approval");
    const { nodeId } = node;
    node.start();
    await node.until("waits again", 15_000, (status) => status.bootstrap.stage === "awaiting-approval");
    assert.equal((await n1.status()).pending.length, 1);
    await n1.control({ verb: "node-approve", node: nodeId });
    await comesIn(n1, node, nodeId);
  },
);

hostsTest(
  "[1.3d] kill -9 of the registrar while a node is registering and while it verifies: the join completes",
  async (lab) => {
    const { n1, host, address } = await slowWay(lab);
    for (const stage of ["registering", "verifying"]) {
      const node = lab.node({ name: stage, host, flags: SILENT });
      node.onLine = (line) => {
        if (line.event === "stage" && line.stage === stage) n1.signal("SIGKILL");
      };
      node.join(withAddresses(await n1.invite(), [address]));
      await node.line(`comes to ${stage}`, 15_000, (line) => line.event === "stage" && line.stage === stage);
      node.onLine = undefined;
      await n1.exited();
      n1.start();
      await comesIn(n1, node, node.nodeId);
    }
  },
);

hostsTest(
  "[1.3d, 10.3a, 10.3c, 11.2d] kill -9 of all nodes at once: after the restart the same network of the same nodes",
  async (lab) => {
    const hosts = await lab.hosts(3);
    const n1 = await lab.founder({ name: "n1", host: hosts[0]! });
    const invite = await n1.invite({ uses: 2 });
    const all = [n1];
    for (const [i, host] of hosts.slice(1).entries()) {
      const node = lab.node({ name: `n${i + 2}`, host });
      node.join(invite);
      all.push(node);
    }
    await seeEachOther(all, 15_000);
    const before = await Promise.all(all.map((one) => one.status()));
    for (const node of all) node.signal("SIGKILL");
    for (const node of all) assert.equal(await node.exited(), 137);
    for (const node of all) node.start();
    const tookMs = await seeEachOther(all, 20_000);
    console.log(`three killed nodes see each other ${tookMs} ms after the restart`);
    for (const [i, node] of all.entries()) {
      const status = await node.status();
      assert.equal(status.node.nodeId, before[i]!.node.nodeId);
      assert.equal(status.network!.networkId, before[i]!.network!.networkId);
      assert.equal(status.network!.authority.epoch, before[i]!.network!.authority.epoch);
    }
  },
);
