/** Networks of several hosts: three nodes, two networks on one segment, a partition. @module */

import assert from "node:assert/strict";
import { type HostNode, hostsTest, type Lab, pause, seeEachOther, WITHOUT_BINARY } from "../testkit/hosts.ts";
import { COMPILED, FROM_SOURCE, type ProgramCommand } from "../testkit/program.ts";

/** Most milliseconds from the last start until three nodes see each other (the figure). */
const SEE_EACH_OTHER_MS = 5_000;

async function threeNodes(lab: Lab, command: ProgramCommand): Promise<void> {
  const [h1, h2, h3] = await lab.hosts(3);
  const n1 = await lab.founder({ name: "n1", host: h1!, command });
  const made = await n1.cli("invite", "create", "--uses", "2", "--quiet");
  assert.equal(made.code, 0, made.stderr);
  const n2 = lab.node({ name: "n2", host: h2!, command });
  const n3 = lab.node({ name: "n3", host: h3!, command });
  const all = [n1, n2, n3];
  n2.join(made.stdout);
  n3.join(made.stdout);
  // The clock starts when both programs have started: how long that takes on a busy machine is for a bench.
  for (const node of [n2, n3]) await node.line("starts to join", 15_000, (line) => line.event === "stage");
  const tookMs = await seeEachOther(all, SEE_EACH_OTHER_MS);
  console.log(`three nodes see each other ${tookMs} ms after the second join began`);
  const views = await Promise.all([n1, n2, n3].map((node) => node.status()));
  assert.equal(new Set(views.map((one) => one.network!.networkId)).size, 1);
  assert.equal(new Set(views.map((one) => one.node.nodeId)).size, 3);
  for (const view of views) {
    for (const member of view.members.filter((one) => one.state !== "self")) {
      assert.ok(member.path, `${view.node.name} has a channel to ${member.name}`);
      assert.match(member.path.address, /^\/(ip4\/10\.77\.0\.|ip6\/fd77::)\d+\//);
    }
  }
}

hostsTest(
  "[11.2a, 1.2a, 1.2e] three hosts: up, an invite, two joins; all see each other in 5 s (source)",
  (lab) => threeNodes(lab, FROM_SOURCE),
);

hostsTest(
  "[11.2a, 1.2a, 1.2e] three hosts: up, an invite, two joins; all see each other in 5 s (compiled)",
  (lab) => threeNodes(lab, COMPILED),
  { needs: WITHOUT_BINARY ? [`the compiled binary: ${WITHOUT_BINARY}`] : [] },
);

hostsTest("[2.1d, 2.1a] two networks on one segment, same groups: neither lists anybody of the other", async (lab) => {
  const hosts = await lab.hosts(4);
  const node = (name: string, i: number) => lab.node({ name, host: hosts[i]! });
  const pairs: HostNode[][] = [];
  for (const [i, network] of ["red", "blue"].entries()) {
    const first = node(`${network}1`, 2 * i);
    first.start("up", "--network", network);
    await first.verified();
    const second = node(`${network}2`, 2 * i + 1);
    second.join(await first.invite());
    pairs.push([first, second]);
  }
  for (const pair of pairs) await seeEachOther(pair, 10_000);
  // The second of each comes back and looks for its own: the other network hears it.
  for (const [, second] of pairs) {
    assert.equal(await second!.end("SIGTERM"), 0);
    second!.start();
    await second!.verified();
  }
  for (const pair of pairs) await seeEachOther(pair, 15_000);
  await pause(2_000);
  for (const [i, pair] of pairs.entries()) {
    const foreign = pairs[1 - i]!;
    const ids = foreign.map((one) => one.nodeId);
    const hostsOfForeign = foreign.flatMap((one) => [`/${one.host.v4}/`, `/${one.host.v6}/`]);
    for (const one of pair) {
      const { members, bootstrap, refusals } = await one.status();
      assert.equal(members.length, 2);
      for (const { nodeId } of members) assert.ok(!ids.includes(nodeId));
      for (const { address } of bootstrap.candidates) {
        assert.ok(!ids.some((id) => address.includes(id)), `${one.name} has candidate ${address}`);
        assert.ok(!hostsOfForeign.some((host) => address.includes(host)), `${one.name} has candidate ${address}`);
      }
      // The first has listened all the time, while both seconds were looking.
      if (one === pair[0]) assert.ok((refusals.foreign ?? 0) > 0, `${one.name} counts: ${JSON.stringify(refusals)}`);
    }
  }
});

hostsTest(
  "[1.3e, 10.3b, 11.2d] a partition of 30 s and its healing: suspect, dead, isolated; then all alive, nothing lost",
  async (lab) => {
    const [h1, h2, h3] = await lab.hosts(3);
    const n1 = await lab.founder({ name: "n1", host: h1! });
    const invite = await n1.invite({ uses: 2 });
    const n2 = lab.node({ name: "n2", host: h2! });
    const n3 = lab.node({ name: "n3", host: h3! });
    n2.join(invite);
    n3.join(invite);
    const all = [n1, n2, n3];
    await seeEachOther(all, 10_000);
    const before = await Promise.all(all.map((one) => one.status()));

    await lab.cut([h1!], [h2!, h3!]);
    const cutMs = performance.now();
    const stateOf =
      (name: string, wanted: readonly string[]) =>
      (status: { readonly members: readonly { readonly name: string; readonly state: string }[] }) =>
        wanted.includes(status.members.find((one) => one.name === name)?.state ?? "");
    const suspected = await n2.until("suspects n1", 40_000, stateOf("n1", ["suspect"]));
    console.log(`n1 is suspect at n2 ${Math.round(performance.now() - cutMs)} ms after the cut`);
    assert.ok(stateOf("n3", ["alive"])(suspected.value), "those on one side keep each other");
    // It tries what it knows between its waits: the stage may be another one at each moment that one looks.
    await n1.line("is isolated", 50_000, (line) => line.event === "stage" && line.stage === "isolated");
    console.log(`n1 is isolated ${Math.round(performance.now() - cutMs)} ms after the cut`);
    const { value: alone } = await n1.until(
      "says what it waits for",
      30_000,
      (status) => status.bootstrap.waitingFor.length > 0,
    );
    assert.equal(alone.health.health, "degraded");
    await n2.until("calls n1 dead", 50_000, stateOf("n1", ["dead"]));
    await n3.until("calls n1 dead", 10_000, stateOf("n1", ["dead"]));
    console.log(`n1 is dead at n2 and n3 ${Math.round(performance.now() - cutMs)} ms after the cut`);
    assert.ok(performance.now() - cutMs > 25_000, "the partition lasted");

    await lab.heal();
    const tookMs = await seeEachOther(all, 20_000);
    console.log(`all alive ${tookMs} ms after healing`);
    const after = await Promise.all(all.map((one) => one.status()));
    for (const [i, status] of after.entries()) {
      assert.equal(status.node.nodeId, before[i]!.node.nodeId);
      assert.equal(status.network!.networkId, before[i]!.network!.networkId);
      assert.equal(status.network!.authority.epoch, before[i]!.network!.authority.epoch);
      assert.equal(status.members.length, 3);
      assert.equal(status.health.ready, true);
    }
  },
);
