/** A whole node in this process, over its real socket: start and stop, configuration, commands, and what leaks. */

import assert from "node:assert/strict";
import { join } from "node:path";
import type { Status } from "../../src/agent/status.ts";
import { toBase64Url, toHex } from "../../src/core/bytes.ts";
import { bytes, decodeAs, record } from "../../src/core/codec.ts";
import { verifyAudit } from "../../src/edge/disk/audit_log.ts";
import { openStore, StateError } from "../../src/edge/disk/store.ts";
import { readStoredState } from "../../src/edge/stored_state.ts";
import { releasePorts } from "../../src/edge/p2p/quic_transport.ts";
import { settle, warmUp } from "../testkit/p2p.ts";
import { loopbackConfig, RunningNode } from "../testkit/running_node.ts";

await warmUp();

function folder(): Disposable & { readonly path: string } {
  const path = Deno.makeTempDirSync({ prefix: "node-" });
  return { path, [Symbol.dispose]: () => Deno.removeSync(path, { recursive: true }) };
}

const bytes32 = bytes({ length: 32 });

function ports(addresses: readonly string[]): readonly string[] {
  return addresses.map((one) => /\/(udp|tcp)\/(\d+)/.exec(one)![0]!).sort();
}

async function answers(node: RunningNode): Promise<boolean> {
  const response = await fetch(`${node.statusUrl}/healthz`).catch(() => undefined);
  await response?.body?.cancel();
  return response?.ok ?? false;
}

Deno.test("[9.1e] start and stop twenty times: the same node each time, nothing is left open", async () => {
  using dir = folder();
  let nodeId = "", networkId = "";
  for (let i = 0; i < 20; i++) {
    const node = await RunningNode.start({ stateDir: dir.path, form: "forest" });
    const status = await node.until("verified", ({ bootstrap }) => bootstrap.stage === "verified");
    if (i === 0) [nodeId, networkId] = [node.nodeId, status.network!.networkId];
    assert.equal(node.nodeId, nodeId);
    assert.equal(status.network!.networkId, networkId);
    assert.ok(await answers(node));
    assert.equal(await node.stop(), 0);
    assert.ok(node.lines.some((line) => line.includes('"stopped"')), "stopped in order");
    assert.ok(!node.lines.some((line) => /"level":"error"/.test(line)), node.lines.join("\n"));
    await settle();
  }
  assert.equal(verifyAudit(Deno.readTextFileSync(join(dir.path, "audit.log"))), undefined);
});

Deno.test("[9.1e] stopped while it starts: in order, at any moment", async () => {
  using dir = folder();
  for (const waitMs of [0, 0, 1, 3, 10, 30, 80]) {
    const node = await RunningNode.start({ stateDir: dir.path, form: "forest" });
    if (waitMs > 0) await new Promise((resolve) => setTimeout(resolve, waitMs));
    assert.equal(await node.stop(), 0);
    await settle();
  }
});

Deno.test("[9.1c] what is wrong at the start is said, and leaves nothing running", async () => {
  using dir = folder();
  const taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = taken.addr as Deno.NetAddr;
  // The status page's port was asked for and is taken.
  await assert.rejects(
    RunningNode.start({ stateDir: dir.path, form: "forest", flags: { "http.listen": `127.0.0.1:${port}` } }),
    /another program has the port/,
  );
  // The network's port.
  const node = await RunningNode.start({ stateDir: dir.path, form: "forest", flags: { port } });
  await assert.rejects(
    node.ended,
    (error) => error instanceof Error && /--port/.test((error as { cure?: string }).cure!),
  );
  await node[Symbol.asyncDispose]();
  taken.close();
  // A port that was asked for by number is kept for a network that starts again, here until the process ends.
  releasePorts();
  // A folder that another node uses.
  const first = await RunningNode.start({ stateDir: dir.path, form: "forest" });
  await assert.rejects(RunningNode.start({ stateDir: dir.path }), StateError);
  assert.ok(await answers(first), "the first one goes on");
  assert.equal(await first.stop(), 0);
  // A key of the wrong length.
  Deno.writeFileSync(join(dir.path, "secret", "node.key"), new Uint8Array(5));
  await assert.rejects(
    RunningNode.start({ stateDir: dir.path }),
    (error) => error instanceof StateError && /backup/.test(error.cure),
  );
  await settle();
});

Deno.test("[1.3d] half a network in the store, as older versions left it after a crash, does not keep a node from forming one", async () => {
  using dir = folder();
  const first = await RunningNode.start({ stateDir: dir.path, form: "forest" });
  await first.until("verified", ({ bootstrap }) => bootstrap.stage === "verified");
  await first.stop();
  // Only the secrets had been written.
  const store = openStore(dir.path);
  const lost = [...store.load().keys()].filter((key) => !key.startsWith("secret/"));
  store.apply(lost.map((key) => [key, null] as const));
  store.close();
  await using node = await RunningNode.start({ stateDir: dir.path, form: "forest" });
  await node.until("verified", ({ bootstrap }) => bootstrap.stage === "verified");
  assert.equal(await node.stop(), 0);
  await settle();
});

Deno.test("[9.1b] SIGHUP with a bad configuration changes nothing; with a good one it counts", async () => {
  using dir = folder();
  let next: () => ReturnType<typeof loopbackConfig> = () => {
    throw new Error("Cannot read configuration: line 3 is no YAML");
  };
  await using node = await RunningNode.start({
    stateDir: dir.path,
    form: "forest",
    reload: () => Promise.resolve().then(() => next()),
  });
  const before = await node.until("listening", ({ node }) => node.addresses.length > 0);
  const reloaded = async (event: string) => {
    const seen = node.lines.length;
    Deno.kill(Deno.pid, "SIGHUP");
    for (let i = 0; i < 100; i++) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      if (node.lines.slice(seen).some((line) => line.includes(`"${event}"`))) return;
    }
    assert.fail(`no ${event}: ${node.lines.slice(seen).join("\n")}`);
  };
  await reloaded("reload-failed");
  assert.deepEqual(ports((await node.status()).node.addresses), ports(before.node.addresses));
  // Valid, and not to be listened on.
  next = () => loopbackConfig("alpha", { listen: ["192.0.2.1"] });
  await reloaded("reload-failed");
  await node.until("listening again", ({ node }) => node.addresses.length > 0);
  next = () => loopbackConfig("alpha", { advertise: ["/ip4/203.0.113.9/tcp/4871"] });
  await reloaded("reloaded");
  await node.until("advertised", ({ node }) => node.addresses.some((one) => one.includes("203.0.113.9")));
  assert.equal((await node.status()).bootstrap.stage, "verified");
  assert.equal(await node.stop(), 0);
  await settle();
});

Deno.test("[9.1b] [1.4c] config try, confirm, revert and expiry; a try that breaks listening takes itself back", async () => {
  using dir = folder();
  await using node = await RunningNode.start({ stateDir: dir.path, form: "forest" });
  await node.until("verified", ({ bootstrap }) => bootstrap.stage === "verified");
  const text = "log:\n  level: warn\n";
  const tried = await node.ask<{ version: number; untilMs: number }>({ verb: "config-try", text });
  assert.equal(tried.version, 1);
  await node.until("says that it is a trial", ({ config }) => config.tryUntilMs !== undefined);
  const second = await node.control({ verb: "config-try", text });
  assert.match(second.error!.message, /another one is being tried/);
  await node.ask({ verb: "config-confirm" });
  const again = await node.control({ verb: "config-confirm" });
  assert.match(again.error!.message, /no configuration is being tried/);
  assert.equal((await node.ask<{ version: number }>({ verb: "config-get" })).version, 1);
  // What is not valid is refused as a whole.
  for (const bad of ["log: [", "log:\n  level: shout\n", "nonsense: 1\n", "\u0000", "&a [*a]"]) {
    const refused = await node.control({ verb: "config-try", text: bad });
    assert.equal(refused.error?.code, "bad-request", bad);
  }
  await node.until("version 1", ({ config }) => config.version === 1 && config.tryUntilMs === undefined);
  // Valid, and nothing can listen there: the node says so and is as before.
  const broken = await node.control({ verb: "config-try", text: 'listen: ["192.0.2.1"]\n' });
  assert.equal(broken.ok, false);
  const after = await node.until("listening again", ({ node }) => node.addresses.length > 0);
  assert.equal(after.config.version, 1);
  assert.equal(after.config.tryUntilMs, undefined);
  assert.ok(after.node.addresses.every((one) => one.includes("127.0.0.1")));
  // What nobody confirms ends by itself.
  await node.ask({ verb: "config-try", text: "discovery:\n  mdns: false\n", confirmWithinMs: 5_000 });
  await node.until("is a trial", ({ config }) => config.version === 2);
  await node.until("the time is over", ({ config }) => config.version === 1 && !config.tryUntilMs, 8_000);
  await node.ask({ verb: "config-revert" });
  await node.until("nothing is left", ({ config }) => config.version === 0);
  const none = await node.control({ verb: "config-revert" });
  assert.match(none.error!.message, /no earlier/);
  const actions = Deno.readTextFileSync(join(dir.path, "audit.log")).trimEnd().split("\n").map((line) =>
    JSON.parse(line).action
  ).filter((action) => action?.startsWith("config-"));
  assert.deepEqual(actions, [
    "config-try",
    "config-confirm",
    "config-try",
    "config-revert",
    "config-try",
    "config-expired",
    "config-revert",
    "config-revert",
  ]);
  assert.equal(await node.stop(), 0);
  await settle();
});

Deno.test("[1.4c] a port by number: a try that breaks listening gives it back, and members come back", async () => {
  using one = folder();
  using two = folder();
  const { port } = (() => {
    using probe = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    return probe.addr as Deno.NetAddr;
  })();
  await using alpha = await RunningNode.start({ stateDir: one.path, form: "forest", flags: { port } });
  await alpha.until("verified", ({ bootstrap }) => bootstrap.stage === "verified");
  const { token } = await alpha.ask<{ token: string }>({ verb: "invite-create" });
  await using beta = await RunningNode.start({ stateDir: two.path, name: "beta", invite: token });
  await beta.until("verified", ({ bootstrap }) => bootstrap.stage === "verified");
  const before = (await alpha.status()).node.addresses;
  for (let i = 0; i < 3; i++) {
    const broken = await alpha.control({ verb: "config-try", text: 'listen: ["127.0.0.1", "192.0.2.1"]\n' });
    assert.equal(broken.ok, false);
    assert.match(broken.error!.message, /192\.0\.2\.1/);
  }
  await alpha.until("as before", ({ node }) => node.addresses.join() === before.join());
  const seen = ({ members }: Status) => members.some((one) => one.state === "alive");
  await alpha.until("sees beta again", seen, 30_000);
  await beta.until("sees alpha again", seen, 30_000);
  assert.equal(await beta.stop(), 0);
  assert.equal(await alpha.stop(), 0);
  releasePorts();
  await settle();
});

Deno.test("[1.4c] what is tried is gone after a restart, what was confirmed stays, and what is not valid any more does not keep the node down", async () => {
  using dir = folder();
  const first = await RunningNode.start({ stateDir: dir.path, form: "forest" });
  await first.until("verified", ({ bootstrap }) => bootstrap.stage === "verified");
  await first.ask({ verb: "config-try", text: "log:\n  level: warn\n" });
  await first.ask({ verb: "config-confirm" });
  await first.ask({ verb: "config-try", text: "log:\n  level: error\n" });
  assert.equal(await first.stop(), 0);
  const second = await RunningNode.start({ stateDir: dir.path });
  assert.equal((await second.status()).config.version, 1);
  assert.equal(await second.stop(), 0);
  const store = openStore(dir.path);
  store.apply([["config/2", new TextEncoder().encode("gone: true\n")], ["config/3", new Uint8Array([0xff])]]);
  store.close();
  const third = await RunningNode.start({ stateDir: dir.path });
  const status = await third.until("verified", ({ bootstrap }) => bootstrap.stage === "verified");
  assert.match(JSON.stringify(status.health), /configuration version 2/);
  await third.ask({ verb: "config-revert" });
  await third.until("version 1", ({ config }) => config.version === 1);
  assert.equal(await third.stop(), 0);
  await settle();
});

Deno.test("[9.1c] the control socket takes garbage of every kind and answers with an error that helps", async () => {
  using dir = folder();
  await using node = await RunningNode.start({ stateDir: dir.path, form: "forest" });
  const deep = "[".repeat(5_000) + "]".repeat(5_000);
  const bad: unknown[] = [
    "",
    "null",
    "[]",
    "7",
    '"up"',
    "{",
    deep,
    { verb: 7 },
    { verb: "no-such-verb" },
    { verb: "constructor" },
    { verb: "__proto__" },
    { verb: "join", invite: "myc1" + "A".repeat(500) },
    { verb: "join", invite: 9 },
    { verb: "invite-create", uses: -1 },
    { verb: "invite-create", uses: 1e300 },
    { verb: "invite-create", role: "king" },
    { verb: "invite-revoke", id: "" },
    { verb: "node-remove", node: "\u0000" },
    { verb: "node-remove", node: "x".repeat(10_000) },
    { verb: "node-drain", node: "nobody", on: "yes" },
    { verb: "node-drain", node: "nobody" },
    { verb: "bootstrap-force-endpoint", address: "/ip4/999.0.0.1/tcp/1" },
    { verb: "set-mode", mode: "wild" },
    { verb: "config-try", text: { toString: "x" } },
    { verb: "config-try", text: "a: 1", confirmWithinMs: 1 },
    { verb: "sign-command", node: "alpha", command: "rm", args: {}, ttlMs: 1_000 },
    { verb: "sign-command", node: "alpha", command: "ping", args: { a: 1 }, ttlMs: 1_000 },
    { verb: "authority-recover", keyFile: "/dev/zero" },
    { verb: "authority-recover", keyFile: "/nonexistent" },
    { verb: "authority-recover", keyFile: dir.path },
    { verb: "authority-recover", without: "alpha" },
    { verb: "genesis-export", path: join(dir.path, "audit.log") },
    { verb: "genesis-export", path: "/nonexistent/key" },
  ];
  for (const body of bad) {
    const what = JSON.stringify(body).slice(0, 80);
    const { ok, status, error } = await node.control(body);
    assert.equal(ok, false, what);
    assert.ok(status >= 400 && status < 500, `${status} for ${what}: ${error?.message}`);
    assert.ok(error!.code !== "internal" && error!.message.length > 0, what);
  }
  for (
    const body of [
      null,
      7,
      {},
      { verb: "ping" },
      { verb: "ping", node: 7 },
      { verb: "ping", node: "this", args: [1] },
      { verb: "ping", node: "this", args: { a: {} } },
      { verb: "ping", node: "this", timeoutMs: -1 },
      { verb: "rm -rf", node: "this" },
      { verb: "ping", node: "nobody" },
      { verb: "config-revert", node: "this" },
      { verb: "config-try", node: "this" },
      { verb: "config-try", node: "this", args: { text: "a: [" } },
    ]
  ) {
    const [first] = await node.exec(body);
    assert.equal(first?.type, "error", JSON.stringify(body));
    assert.notEqual(first?.type === "error" && first.code, "internal", JSON.stringify(first));
  }
  const status = await node.status();
  assert.equal(status.bootstrap.stage, "verified", "and goes on");
  assert.equal(status.network!.genesisKey, "here", "a key that could not be moved is still there");
  assert.equal(await node.stop(), 0);
  await settle();
});

Deno.test("[2.1e] the genesis key is moved once the file is safe; a place that will not do costs nothing", async () => {
  using dir = folder();
  await using node = await RunningNode.start({ stateDir: dir.path, form: "forest" });
  await node.until("verified", ({ bootstrap }) => bootstrap.stage === "verified");
  const seed = Deno.readFileSync(join(dir.path, "secret", "genesis.key"));
  const path = join(dir.path, "moved.key");
  Deno.writeTextFileSync(path, "something else");
  assert.equal((await node.control({ verb: "genesis-export", path })).ok, false);
  assert.equal(Deno.readTextFileSync(path), "something else");
  Deno.removeSync(path);
  await node.ask({ verb: "genesis-export", path });
  assert.deepEqual(Deno.readFileSync(path), seed);
  assert.equal(Deno.statSync(path).mode! & 0o777, 0o600);
  assert.throws(() => Deno.statSync(join(dir.path, "secret", "genesis.key")), Deno.errors.NotFound);
  assert.equal((await node.control({ verb: "genesis-export", path: path + "2" })).error?.code, "not-found");
  // And it still counts, from where it is.
  const { epoch } = await node.ask<{ epoch: number }>({ verb: "authority-recover", keyFile: path });
  assert.equal(epoch, 2);
  const log = Deno.readTextFileSync(join(dir.path, "audit.log"));
  assert.equal(log.match(/"genesis-exported"/g)?.length, 1, "only what happened is in the audit log");
  assert.equal(await node.stop(), 0);
  await settle();
});

Deno.test("[1.4d] commands: streamed, cancelled by who asked, ended by their time, on this node and on another", async () => {
  using one = folder();
  using two = folder();
  await using alpha = await RunningNode.start({ stateDir: one.path, form: "forest" });
  await alpha.until("verified", ({ bootstrap }) => bootstrap.stage === "verified");
  const { token } = await alpha.ask<{ token: string }>({ verb: "invite-create" });
  await using beta = await RunningNode.start({ stateDir: two.path, name: "beta", invite: token });
  await beta.until("verified", ({ bootstrap }) => bootstrap.stage === "verified");
  await alpha.until("sees beta", ({ members }) => members.some((one) => one.name === "beta" && one.state === "alive"));
  for (const node of ["this", "beta"]) {
    const [pong, end] = await alpha.exec({ verb: "ping", node });
    assert.equal(pong?.type === "output" && pong.text, `pong from ${node === "this" ? "alpha" : "beta"}\n`);
    assert.deepEqual(end, { type: "end", code: 0, message: "" });
    // Lines come while the command goes on; the time that was given ends it.
    const startMs = Date.now();
    const followed = await alpha.exec({ verb: "logs", node, args: { follow: "true", lines: "3" }, timeoutMs: 700 });
    const tookMs = Date.now() - startMs;
    assert.ok(followed.length >= 4, JSON.stringify(followed));
    const last = followed.at(-1)!;
    assert.notEqual(last.type === "end" && last.code, 0, "a command that was cut off has not succeeded");
    assert.ok(followed.some((line) => line.type === "error" && line.code === "timeout"), JSON.stringify(last));
    assert.ok(tookMs >= 600 && tookMs < 5_000, `${tookMs} ms`);
    // Whoever asked goes away: the other end hears of it and stops.
    const gone = new AbortController();
    const response = await alpha.fetch("/exec", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ verb: "logs", node, args: { follow: "true", lines: "1" }, timeoutMs: 60_000 }),
      signal: gone.signal,
    });
    const reader = response.body!.getReader();
    await reader.read();
    gone.abort();
    await reader.closed.catch(() => {});
  }
  const status = await alpha.exec({ verb: "status", node: "beta" });
  const document = status.filter((line) => line.type === "output").map((line) => line.type === "output" && line.text);
  assert.equal(JSON.parse(document.join("")).node.name, "beta");
  // Not every member is an operator.
  const [refused] = await beta.exec({ verb: "ping", node: "alpha" });
  assert.equal(refused?.type === "error" && refused.code, "no-operator-key");
  const audit = Deno.readTextFileSync(join(two.path, "audit.log"));
  assert.match(
    audit,
    /"action":"command","by":"12D3KooW[^"]*","entrance":"\w+","target":"[^"]*","outcome":"ok","detail":"ping"/,
  );
  assert.equal(verifyAudit(audit), undefined);
  assert.equal(await beta.stop(), 0);
  assert.equal(await alpha.stop(), 0);
  await settle();
});

Deno.test("[10.5e] no key, invite or token is in the log, the status, the events or the audit log", async () => {
  using one = folder();
  using two = folder();
  await using alpha = await RunningNode.start({ stateDir: one.path, form: "forest" });
  await alpha.until("verified", ({ bootstrap }) => bootstrap.stage === "verified");
  const { token } = await alpha.ask<{ token: string }>({ verb: "invite-create", uses: 2 });
  await using beta = await RunningNode.start({ stateDir: two.path, name: "beta", invite: token });
  await beta.until("verified", ({ bootstrap }) => bootstrap.stage === "verified");
  // Mistakes repeat what they were given more often than successes do.
  await beta.control({ verb: "join", invite: token });
  await beta.control({ verb: "join", invite: token.slice(0, -3) });
  await alpha.control({ verb: "invite-revoke", id: token });
  await alpha.control({ verb: "node-remove", node: token.slice(0, 128) });
  const outputs: string[] = [];
  for (const node of [alpha, beta]) {
    for (const path of ["/status", "/logs?n=10000", "/metrics", "/openapi.json", "/", "/readyz"]) {
      outputs.push(await (await node.fetch(path)).text());
    }
    outputs.push(JSON.stringify(await node.control({ verb: "config-get" })));
    outputs.push(JSON.stringify(await node.control({ verb: "invite-list" })));
    outputs.push(JSON.stringify(await node.exec({ verb: "logs", node: "this", args: { lines: "1000" } })));
    outputs.push(JSON.stringify(await node.exec({ verb: "doctor", node: "this" })));
    outputs.push(node.lines.join("\n"), Deno.readTextFileSync(join(node.stateDir, "audit.log")));
  }
  const text = outputs.join("\n");
  assert.ok(text.length > 10_000);
  const secrets = [...Deno.readDirSync(join(one.path, "secret")), ...Deno.readDirSync(join(two.path, "secret"))];
  assert.ok(secrets.length >= 5);
  const forms = (bytes: Uint8Array) => [
    toHex(bytes),
    toBase64Url(bytes),
    bytes.toBase64(),
    [...bytes].join(","),
  ];
  for (const [dir, state] of [[one.path, "alpha"], [two.path, "beta"]] as const) {
    for (const { name } of Deno.readDirSync(join(dir, "secret"))) {
      const stored = Deno.readFileSync(join(dir, "secret", name));
      // The discovery secret is stored beside the id of the network, which everybody may know.
      const secret = name === "discovery.key" ? decodeAs(stored, record({ n: bytes32, d: bytes32 })).d : stored;
      for (const form of [...forms(stored), ...forms(secret)]) {
        assert.ok(!text.includes(form), `${state}: ${name} is not told`);
      }
    }
  }
  assert.ok(!text.includes(token.slice(4, 60)), "no invite");
  assert.ok(!text.includes(token.slice(-60)), "nor its end");
  assert.equal(await beta.stop(), 0);
  assert.equal(await alpha.stop(), 0);
  await settle();
});

Deno.test("[1.3b] what a killed node left in its folder can be looked at, and so can a spoilt key", async () => {
  using dir = folder();
  const main = new URL("../../main.ts", import.meta.url).pathname;
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      ...["run", "-A", "--no-check", main, "up", "--state", dir.path, "--network", "forest"],
      ...["--port", "0", "--http", "off"],
    ],
    stdout: "null",
    stderr: "null",
    env: {
      MYCELIUM_LISTEN: "127.0.0.1",
      MYCELIUM_DISCOVERY_MDNS: "false",
      MYCELIUM_DISCOVERY_MULTICAST: "false",
      MYCELIUM_DISCOVERY_BROADCAST: "false",
    },
  }).spawn();
  try {
    for (let i = 0; i < 300; i++) {
      if ([...Deno.readDirSync(dir.path)].some((one) => one.name === "audit.log")) {
        if (Deno.readTextFileSync(join(dir.path, "audit.log")).includes("network-formed")) break;
      }
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  } finally {
    child.kill("SIGKILL");
    await child.status;
  }
  const state = await readStoredState(dir.path);
  assert.equal(state?.networkName, "forest");
  assert.match(state?.nodeId ?? "", /^12D3KooW/);
  Deno.writeFileSync(join(dir.path, "secret", "node.key"), new Uint8Array(3));
  assert.equal(await readStoredState(dir.path), undefined);
});
