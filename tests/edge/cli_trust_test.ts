/** `mycelium trust` and `mycelium evidence`: over a real unix socket, answered by a whole agent in the simulator's world. */

import assert from "node:assert/strict";
import { join } from "node:path";
import type { ControlRequest } from "../../src/agent/control.ts";
import { pushValue } from "../../src/spore/messages.ts";
import { encodeCbor } from "../../src/core/codec.ts";
import { keyPairFromSeed } from "../../src/core/crypto.ts";
import { KEYS } from "../../src/agent/state.ts";
import { sealSpore } from "../../src/spore/record.ts";
import { Net } from "../agent/kit.ts";
import type { Host } from "../sim/world.ts";
import { AgentSocket, run, temporaryFolder } from "../testkit/cli.ts";
import { singleNodeStatus } from "../testkit/status_fixture.ts";

/** Four voters; the last one has said two things under one number, and all have agreed on what that costs. */
function network(): { readonly net: Net; readonly hosts: readonly Host[] } {
  const net = new Net(61);
  const { world } = net;
  const hosts = [net.founder];
  for (let i = 1; i < 4; i++) hosts.push(net.join(`voter${i}`, { as: "sclerotium" }));
  const until = (what: string, holds: () => boolean) => {
    for (let tries = 0; !holds(); tries++) {
      assert.ok(tries < 600, what);
      world.run(500);
    }
  };
  until("all vote", () => hosts.every((one) => world.status(one).agreement?.voters.length === 4));
  const liar = hosts[3]!;
  const pair = keyPairFromSeed(liar.disk.get(KEYS.nodeSeed)!);
  const nowMs = world.local(liar);
  for (const [i, host] of hosts.slice(0, 3).entries()) {
    const word = sealSpore(
      {
        key: `node/${liar.nodeId}/name`,
        seq: nowMs,
        value: new Uint8Array([i % 2]),
        issuedMs: nowMs,
        expiresMs: nowMs + 3_600_000,
      },
      liar.view.state.networkId,
      pair,
    );
    world.callOf(liar, host.nodeId, "spore.push", encodeCbor(pushValue([{ spore: word, proof: undefined }])));
  }
  until("it is agreed on", () => hosts.every((one) => world.status(one).trust!.version > 0));
  return { net, hosts };
}

Deno.test("[2.3b] [2.3d] [4.2b] trust, evidence: what the commands say of a network with a liar, and a policy from file to force", async () => {
  const { net, hosts } = network();
  using folder = temporaryFolder();
  await using agent = new AgentSocket(folder.path, {
    status: singleNodeStatus(),
    control: (request) => {
      const answer = net.world.control(net.founder, request as unknown as ControlRequest);
      return answer.ok ? { ok: true, result: answer.value } : answer;
    },
  });
  const cli = (...args: readonly string[]) => run([...args, "--socket", agent.socket], { cwd: folder.path });

  const list = await cli("trust", "list");
  assert.equal(list.code, 0);
  assert.match(list.stdout, /^NODE +ROLE +AGREED +SEEN HERE +SEATS +MAY NOT\n/);
  assert.match(list.stdout, /^alpha +sclerotium +50\.0 % +50\.0 % +\d+ +storage\/sensitive, place\/trusted$/m);
  assert.match(
    list.stdout,
    /^voter3 +sclerotium +30\.0 % +4\d\.\d % +(–|\d+) +storage\/sensitive, place\/trusted$/m,
  );

  const show = await cli("trust", "show", "voter3");
  assert.equal(show.code, 0);
  assert.match(show.stdout, /^Agreed +30\.0 %, version 1$/m);
  assert.match(show.stdout, /^Facts +.*denied 1/m);
  assert.match(show.stdout, /voter3 +words +.* yes +two signed records under one number/);

  const explain = await cli("trust", "explain", "voter3");
  assert.equal(explain.code, 0, "it may still vote");
  assert.match(explain.stdout, /^place\/standard +yes +30\.0 % +/m);
  assert.equal((await cli("trust", "show", "nobody")).code, 1);

  const [proof] = (JSON.parse((await cli("evidence", "list", "--json")).stdout) as { rows: { hash: string }[] }).rows;
  assert.equal((await cli("evidence", "list", "--quiet")).stdout, `${proof!.hash}\n`);
  assert.match((await cli("evidence", "verify")).stderr, /1 proof checked: all hold/);
  assert.equal((await cli("evidence", "verify", proof!.hash.slice(0, 8))).code, 0);
  assert.equal((await cli("evidence", "verify", "ffffffff")).code, 1);

  const policy = join(folder.path, "policy.yaml");
  await Deno.writeTextFile(
    policy,
    "min:\n  vote: 40%\n  place/standard: 550000\nvouched: [voter1]\nclasses:\n  net/: critical\n",
  );
  const dry = await cli("trust", "policy", "set", policy, "--dry-run");
  assert.equal(dry.code, 0);
  assert.match(dry.stdout, /^vote +40\.0 % +50\.0 % +policy/m);
  assert.match(dry.stdout, /^voter3 may no longer vote$/m);
  assert.match(dry.stdout, /^alpha may no longer place\/standard$/m);
  assert.equal((await cli("trust", "policy", "set", policy)).code, 4, "nobody to ask");
  assert.match((await cli("trust", "policy", "show")).stdout, /^vote +30\.0 % +50\.0 % +built in/m);
  assert.equal((await cli("trust", "policy", "set", policy, "--yes")).code, 0);
  assert.match((await cli("trust", "policy", "show")).stdout, /^vote +40\.0 % +50\.0 % +policy/m);
  assert.equal((await cli("trust", "explain", "voter3")).code, 1, "no vote any more");

  for (
    const [text, wanted] of [
      ["min: {vote: 80%}", /at most 500000 is allowed/],
      ["min: {vote: much}", /wanted for example 40% or 400000/],
      ["mni: {}", /no key "mni"/],
      ["vouched: [nobody]", /Cannot find node "nobody"/],
      ["classes: {node/: critical}", /Cannot read/],
      ["min: [", /line 1/],
    ] as const
  ) {
    await Deno.writeTextFile(policy, text);
    const { code, stderr } = await cli("trust", "policy", "set", policy, "--dry-run");
    assert.notEqual(code, 0, text);
    assert.match(stderr, wanted);
  }
  assert.equal(hosts.length, 4);
});
