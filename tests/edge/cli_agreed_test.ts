/** `mycelium agreement show`: over a real unix socket, answered by whole agents in the simulator's world. */

import assert from "node:assert/strict";
import type { ControlRequest } from "../../src/agent/control.ts";
import { toBase64Url, utf8 } from "../../src/core/bytes.ts";
import { Net } from "../agent/kit.ts";
import { AgentSocket, run, temporaryFolder } from "../testkit/cli.ts";
import { singleNodeStatus } from "../testkit/status_fixture.ts";

Deno.test("[4.5d] agreement show: a device tells a person what shows an agreed record, and says no where nothing does", async () => {
  const net = new Net(62);
  const hypha = net.join("hypha", { as: "hypha" });
  net.world.ask(net.founder, { verb: "agreement-submit", key: "agreed/notes/x", value: toBase64Url(utf8("hello")) });
  net.world.until("it is there", () => hypha.view.spores.get("agreed/notes/x") !== undefined);
  using folder = temporaryFolder();
  await using agent = new AgentSocket(folder.path, {
    status: singleNodeStatus(),
    control: (request) => {
      const answer = net.world.control(hypha, request as unknown as ControlRequest);
      return answer.ok ? { ok: true, result: answer.value } : answer;
    },
  });
  const cli = (...args: readonly string[]) => run([...args, "--socket", agent.socket], { cwd: folder.path });
  const shown = await cli("agreement", "show", "agreed/notes/x");
  assert.equal(shown.code, 0, shown.stderr);
  assert.match(shown.stdout, /decided by {3}critical: 1 of 1 seats of electorate 0/);
  assert.match(shown.stdout, /on this node the same/);
  const json = JSON.parse((await cli("agreement", "show", "agreed/notes/x", "--json")).stdout);
  assert.deepEqual([json.class, json.seats, json.of, json.valueBytes, json.latent], ["critical", 1, 1, 5, true]);
  const missing = await cli("agreement", "show", "agreed/notes/y");
  assert.notEqual(missing.code, 0);
  assert.match(missing.stderr, /nothing was decided about it/);
});
