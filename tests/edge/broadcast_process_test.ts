import assert from "node:assert/strict";
import { join } from "node:path";
import { RunningNode } from "../testkit/running_node.ts";
import { warmUp } from "../testkit/p2p.ts";

// libp2p opens a channel of its own once in a process.
await warmUp();

Deno.test("[3.3a] [3.3c] broadcast over real sockets: meshes form, and what one node says of itself the others hear", async () => {
  const folder = await Deno.makeTempDir();
  try {
    await using alpha = await RunningNode.start({ stateDir: join(folder, "a"), name: "alpha", form: "forest" });
    const { token } = await alpha.ask<{ readonly token: string }>({ verb: "invite-create", uses: 2 });
    await using beta = await RunningNode.start({ stateDir: join(folder, "b"), name: "beta", invite: token });
    await using gamma = await RunningNode.start({ stateDir: join(folder, "c"), name: "gamma", invite: token });
    const nodes = [alpha, beta, gamma];
    for (const node of nodes) {
      await node.until(
        "it has links to both others",
        ({ gossip }) => gossip !== undefined && gossip.peers === 2 && gossip.topics.every(({ links }) => links === 2),
      );
    }
    const before = await gamma.until("its counts are there", ({ gossip }) => gossip !== undefined);
    await beta.ask({ verb: "set-mode", mode: "drained" });
    for (const node of [alpha, gamma]) {
      await node.until(
        "it knows that beta is drained",
        ({ members }) => members.some((one) => one.name === "beta" && one.drained),
      );
    }
    const after = await gamma.until("it is counted", ({ gossip }) => gossip!.accepted > before.gossip!.accepted);
    assert.equal(after.gossip!.rejected, 0);
    assert.equal(after.gossip!.shunned, 0);
    const metrics = await (await gamma.fetch("/metrics")).text();
    assert.match(metrics, /mycelium_gossip_links\{topic="news",kind="(eager|lazy)"\} [12]/);
    assert.match(metrics, /mycelium_gossip_messages_total\{outcome="accepted"\} [1-9]/);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
