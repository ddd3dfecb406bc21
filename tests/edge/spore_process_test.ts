import assert from "node:assert/strict";
import { join } from "node:path";
import { toBase64Url, utf8 } from "../../src/core/bytes.ts";
import type { SporeRow } from "../../src/agent/status.ts";
import { RunningNode } from "../testkit/running_node.ts";
import { warmUp } from "../testkit/p2p.ts";

// libp2p opens a channel of its own once in a process.
await warmUp();

const put = (node: RunningNode, key: string, value: string) =>
  node.ask<{ readonly tier: string; readonly seq: number }>({
    verb: "spore-put",
    key,
    value: toBase64Url(utf8(value)),
  });

/** Waits until a node shows a record as it should be; returns how long it took. */
async function shows(node: RunningNode, key: string, holds: (row: SporeRow | undefined) => boolean): Promise<number> {
  const startMs = performance.now();
  for (;;) {
    const { ok, result } = await node.control({ verb: "spore-show", key });
    if (holds(ok ? result as SporeRow : undefined)) return performance.now() - startMs;
    assert.ok(performance.now() - startMs < 15_000, `${key}: ${JSON.stringify(result)}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

Deno.test("[3.3b] [3.4a] [3.5e] records over real sockets: written, agreed on, read elsewhere, deleted, kept over a restart", async () => {
  const folder = await Deno.makeTempDir();
  try {
    await using alpha = await RunningNode.start({ stateDir: join(folder, "a"), name: "alpha", form: "forest" });
    const { token } = await alpha.ask<{ readonly token: string }>({ verb: "invite-create", uses: 2 });
    const options = { stateDir: join(folder, "b"), name: "beta", invite: token };
    let beta = await RunningNode.start(options);
    try {
      await beta.until("beta is a member", (status) => status.bootstrap.stage === "verified");
      await put(beta, "app/greeting", "hello");
      // What a member writes comes to the others with the word of the primaries.
      await shows(alpha, "app/greeting", (row) => row?.tier === "primary" && row.state === "live");
      await shows(beta, "app/greeting", (row) => row?.tier === "primary" && row.state === "live");
      await put(beta, `service/web/${beta.nodeId}`, "10.0.0.1");
      await shows(alpha, `service/web/${beta.nodeId}`, (row) => row?.state === "live");

      // The listing of the status page: all keys, no values.
      const page = await (await alpha.fetch("/spores?prefix=service/")).json();
      assert.deepEqual(page.rows.map((one: SporeRow) => [one.key, one.authorName, one.value]), [
        [`service/web/${beta.nodeId}`, "beta", undefined],
      ]);
      const { spores } = await alpha.until("it is counted", (status) => (status.spores?.tiers.primary ?? 0) >= 2);
      assert.equal(spores?.equivocations, 0);
      assert.match(await (await alpha.fetch("/metrics")).text(), /mycelium_spore_records\{tier="primary"\} [1-9]/);

      assert.equal(await beta.stop(), 0);
      await alpha.ask({ verb: "spore-delete", key: "app/greeting" });
      await put(alpha, "net/policy", "strict");
      beta = await RunningNode.start({ stateDir: options.stateDir, name: options.name });
      await shows(beta, "net/policy", (row) => row?.tier === "primary");
      await shows(beta, "app/greeting", (row) => row?.state === "deleted");
      assert.equal((await beta.ask<SporeRow>({ verb: "spore-show", key: `service/web/${beta.nodeId}` })).state, "live");

      const same = await beta.ask<{ readonly same: boolean }>({ verb: "spore-diff", node: "alpha" });
      assert.equal(same.same, true);
      const { checked, bad } = await beta.ask<{ readonly checked: number; readonly bad: readonly string[] }>({
        verb: "spore-verify",
      });
      assert.ok(checked >= 3 && bad.length === 0, `${checked} ${bad}`);
    } finally {
      await beta[Symbol.asyncDispose]();
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
