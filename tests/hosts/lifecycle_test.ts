/** Start and stop of a node as a service manager and a person do it. @module */

import assert from "node:assert/strict";
import { join } from "node:path";
import { hostsTest, seeEachOther, SILENT } from "../testkit/hosts.ts";

/** Most milliseconds from SIGTERM to the end. */
const STOP_MS = 3_000;

hostsTest("[9.1e] SIGTERM ends a node in 3 s with code 0, leaves no socket, and the others know", async (lab) => {
  const [h1, h2] = await lab.hosts(2);
  const n1 = await lab.founder({ name: "n1", host: h1! });
  const n2 = lab.node({ name: "n2", host: h2! });
  n2.join(await n1.invite());
  await seeEachOther([n1, n2], 15_000);
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    const startedMs = performance.now();
    assert.equal(await n2.end(signal), 0, n2.output);
    const tookMs = performance.now() - startedMs;
    assert.ok(tookMs < STOP_MS, `${signal} took ${tookMs} ms`);
    console.log(`${signal}: ended after ${Math.round(tookMs)} ms`);
    await assert.rejects(Deno.lstat(n2.socket), Deno.errors.NotFound);
    await n1.until(
      "has lost n2",
      3_000,
      (status) => status.members.some((one) => one.name === "n2" && one.state === "suspect"),
    );
    n2.start();
    await seeEachOther([n1, n2], 15_000);
  }
});

hostsTest("[9.1b, 9.3d] SIGHUP reads the configuration again; a mistake in it changes nothing", async (lab) => {
  const host = await lab.host();
  const file = join(lab.home, "n1.yaml");
  const node = lab.node({ name: "n1", host, flags: ["--http", "off"], config: "discovery:\n  mdns: true\n" });
  node.start("up", "--network", "lab");
  await node.verified();
  await node.until("uses mDNS", 5_000, (status) => status.bootstrap.sources.some((one) => one.source === "mdns"));
  await Deno.writeTextFile(file, "discovery:\n  mdns: false\n");
  let from = node.lines.length;
  node.signal("SIGHUP");
  await node.line("has read it", 5_000, (line) => line.event === "reloaded", from);
  await node.until(
    "is without mDNS",
    2_000,
    (status) => status.bootstrap.sources.length > 0 && !status.bootstrap.sources.some((one) => one.source === "mdns"),
  );
  // Another port: the network starts anew, and once more on the first one.
  for (const port of [4875, 4871]) {
    await Deno.writeTextFile(file, `port: ${port}\ndiscovery:\n  mdns: false\n`);
    node.signal("SIGHUP");
    await node.until(
      `listens on ${port}`,
      5_000,
      (status) => status.node.addresses.length > 0 && status.node.addresses.every((one) => one.includes(`/${port}`)),
    );
  }
  await Deno.writeTextFile(file, "discovery:\n  mdsn: false\n");
  from = node.lines.length;
  node.signal("SIGHUP");
  const { msg } = await node.line("says what is wrong", 5_000, (line) => line.event === "reload-failed", from);
  assert.match(String(msg), /n1\.yaml:2/);
  assert.match(String(msg), /mdns/, "the near miss is named");
  assert.equal((await node.status()).bootstrap.stage, "verified");
  assert.equal(await node.end(), 0);
});

hostsTest("[9.1e] a port that is taken, and a state folder in use: a clear error, a cure, no trace", async (lab) => {
  const host = await lab.host();
  const first = await lab.founder({ name: "first", host, flags: SILENT });
  const second = lab.node({ name: "second", host, flags: ["--http", "off", ...SILENT] });
  second.start("up", "--network", "other");
  assert.equal(await second.exited(15_000), 1);
  assert.match(second.output, /4871/);
  assert.match(second.output, /another program has that port/);
  await assert.rejects(Deno.lstat(second.socket), Deno.errors.NotFound);

  // The same folder: the agent answers on its socket.
  const again = await first.cli("up", "--port", "0", "--http", "off");
  assert.equal(again.code, 1, again.stdout);
  assert.match(again.stderr, /already with this state folder/);
  assert.match(again.stderr, /--state/);
  // The same folder and another socket: the lock of the store says no.
  const socket = join(lab.home, "other.sock");
  const locked = await first.cli("up", "--port", "0", "--http", "off", "--socket", socket);
  assert.equal(locked.code, 1, locked.stdout);
  assert.match(locked.stderr, /another agent uses it/);
  for (const { stderr } of [again, locked]) assert.doesNotMatch(stderr, /\n\s+at .*:\d+:\d+/);
  await assert.rejects(Deno.lstat(socket), Deno.errors.NotFound);

  // A status port that was asked for and is taken is an error; the usual one gives way.
  const third = lab.node({ name: "third", host, flags: ["--port", "0", "--http", "127.0.0.1:4999", ...SILENT] });
  lab.service(host, [
    Deno.execPath(),
    "eval",
    'Deno.serve({ hostname: "127.0.0.1", port: 4999 }, () => new Response())',
  ]);
  await new Promise((resolve) => setTimeout(resolve, 1_500));
  third.start("up", "--network", "third");
  assert.equal(await third.exited(15_000), 1);
  assert.match(third.output, /4999/);
  const fourth = lab.node({ name: "fourth", host, flags: ["--port", "0", ...SILENT] });
  fourth.start("up", "--network", "fourth");
  await fourth.verified();
  assert.equal(await fourth.end(), 0);
  assert.equal(await first.end(), 0);
});

hostsTest("[1.3b, 1.3d] a node that was reset joins again without a restart, on the same port", async (lab) => {
  const [h1, h2] = await lab.hosts(2);
  const n1 = await lab.founder({ name: "n1", host: h1! });
  const n2 = lab.node({ name: "n2", host: h2! });
  n2.join(await n1.invite());
  await seeEachOther([n1, n2], 15_000);
  const reset = await n2.cli("bootstrap", "reset", "--yes");
  assert.equal(reset.code, 0, reset.stderr);
  await n2.until("has no network", 5_000, (status) => status.bootstrap.stage === "idle" && !status.network);
  const file = join(lab.home, "again.invite");
  await Deno.writeTextFile(file, await n1.invite());
  const again = await n2.cli("join", "--invite-file", file);
  assert.equal(again.code, 0, again.stderr);
  await seeEachOther([n1, n2], 15_000);
  const { node } = await n2.status();
  assert.ok(node.addresses.every((one) => one.includes("/4871")), node.addresses.join());
});
