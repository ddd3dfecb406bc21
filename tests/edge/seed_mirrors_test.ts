/** Bundles on several mirrors, read by a whole node. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { fromBase64Url, toBase64Url } from "../../src/core/bytes.ts";
import type { SeedSourceStatus } from "../../src/agent/status.ts";
import { temporaryFolder } from "../testkit/cli.ts";
import { RunningNode } from "../testkit/running_node.ts";
import { warmUp } from "../testkit/p2p.ts";

// libp2p opens a channel of its own once in a process.
await warmUp();

/** A mirror that answers with what it holds, and with 304 where that is known. */
class Mirror implements AsyncDisposable {
  body: string | undefined;
  requests = 0;
  unchanged = 0;
  readonly #server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen: () => {} }, (request) => {
    const known = request.headers.get("if-none-match");
    this.requests += 1;
    if (this.body === undefined) return new Response("no", { status: 503 });
    const etag = `"${this.body.length}-${this.body.slice(-24).trim()}"`;
    if (known?.endsWith(etag)) {
      this.unchanged += 1;
      return new Response(null, { status: 304 });
    }
    return new Response(this.body, { headers: { etag } });
  });

  constructor(body?: string) {
    this.body = body;
  }

  get url(): string {
    return `http://127.0.0.1:${this.#server.addr.port}/home.seed`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.shutdown();
  }
}

Deno.test("[3.2a] [3.2d] [3.2e] of several mirrors the newest counts; those that lag, lie or are gone are named, with the reason", async () => {
  using folder = temporaryFolder();
  await using alpha = await RunningNode.start({ stateDir: join(folder.path, "alpha"), form: "forest" });
  await alpha.until("a member", (status) => status.bootstrap.stage === "verified");
  const exported = async (kind: string) =>
    await alpha.ask<{ text: string; seq: number }>({ verb: "seed-export", kind });
  const old = await exported("full");
  await alpha.ask({ verb: "spore-put", key: "app/greeting", value: toBase64Url(new TextEncoder().encode("hello")) });
  const fresh = await exported("full");
  const master = await exported("master");
  const raw = fromBase64Url(fresh.text.trim())!;
  raw[raw.length - 40]! ^= 1;
  await using good = new Mirror(fresh.text);
  await using behind = new Mirror(old.text);
  await using other = new Mirror(master.text);
  await using tampered = new Mirror(toBase64Url(raw));
  await using foreign = new Mirror();
  await using down = new Mirror();
  {
    await using stranger = await RunningNode.start({ stateDir: join(folder.path, "stranger"), form: "desert" });
    await stranger.until("a member", (status) => status.bootstrap.stage === "verified");
    foreign.body = (await stranger.ask<{ text: string }>({ verb: "seed-export", kind: "full" })).text;
  }
  const mirrors = [behind, good, other, tampered, foreign, down];
  const flags = { "discovery.seedUrls": mirrors.map((one) => one.url) };
  const stateDir = join(folder.path, "beta");
  // A node that was a member and finds nobody: it asks its mirrors.
  const { token } = await alpha.ask<{ token: string }>({ verb: "invite-create" });
  {
    await using beta = await RunningNode.start({ stateDir, name: "beta", invite: token });
    await beta.until("a member", (status) => status.bootstrap.stage === "verified");
  }
  const alphaId = alpha.nodeId;
  await alpha.stop();
  {
    await using beta = await RunningNode.start({ stateDir, name: "beta", flags });
    const all = (status: { seeds?: { sources: readonly SeedSourceStatus[] } }) => status.seeds?.sources ?? [];
    const status = await beta.until("all mirrors were asked", (one) => all(one).length === mirrors.length);
    const shown = all(status).map(({ state, seq, kind, reason }) => [state, seq, kind, reason.replace(/ .*/, "")]);
    // Which of the two was read first, nobody knows: the lagging one is behind, or a rollback.
    const [lagging, ...others] = shown;
    const isBehind = lagging![3] === "behind:";
    assert.deepEqual(
      lagging,
      isBehind ? ["behind", old.seq, "full", "behind:"] : ["behind", undefined, undefined, "rollback:"],
    );
    assert.deepEqual(others, [
      ["ok", fresh.seq, "full", ""],
      ["ok", master.seq, "master", ""],
      ["failed", undefined, undefined, "tampered:"],
      ["failed", undefined, undefined, "foreign:"],
      ["failed", undefined, undefined, "the"],
    ]);
    if (isBehind) assert.ok(all(status)[0]!.reason.includes(`${good.url} has ${fresh.seq}`));
    assert.equal(all(status)[1]!.signer, alphaId);
    const greeting = await beta.ask<{ tier: string }>({ verb: "spore-show", key: "app/greeting" });
    assert.ok(["seed", "primary"].includes(greeting.tier), greeting.tier);
    // Asked again, the good one need not send it again; the lagging one is a rollback from now on.
    await beta.until(
      "asked again",
      (one) => good.unchanged > 0 && all(one)[0]!.reason.startsWith("rollback") && one.refusals["tampered"]! > 0,
    );
    const page = await (await fetch(`${beta.statusUrl}/`)).text();
    assert.ok(page.includes("Seeds outside") && page.includes("behind"));
  }
  // All of them are down, and the node starts anew: its copies serve, and say so.
  for (const one of mirrors) one.body = undefined;
  await using beta = await RunningNode.start({ stateDir, name: "beta", flags });
  const status = await beta.until("the copies", (one) => one.seeds?.sources.length === mirrors.length);
  const states = status.seeds!.sources.map((one) => one.state);
  assert.deepEqual(states.slice(1), ["copy", "copy", "failed", "failed", "failed"]);
  assert.equal(status.seeds!.sources[1]!.seq, fresh.seq);
  assert.deepEqual(status.seeds!.taken.map((one) => one.kind).sort(), ["full", "master"]);
});
