/** Credentials that run out, issuers that go away. @module */

import assert from "node:assert/strict";
import { join } from "node:path";
import { hostsTest, pause, seeEachOther } from "../testkit/hosts.ts";

const LIFETIME_MS = 3_000;

hostsTest(
  "[2.1e, 2.2b] a node that was off for ten lifetimes of its credential comes back without a person",
  async (lab) => {
    const [h1, h2] = await lab.hosts(2);
    const env = { MYCELIUM_TEST_CREDENTIAL_LIFETIME_MS: String(LIFETIME_MS) };
    const n1 = await lab.founder({ name: "n1", host: h1!, env });
    const n2 = lab.node({ name: "n2", host: h2!, env });
    n2.join(await n1.invite());
    await seeEachOther([n1, n2], 15_000);
    const { credential, node } = await n2.status();
    assert.ok(credential!.expiresMs - credential!.issuedMs <= LIFETIME_MS);
    await n2.kill();
    await pause(10 * LIFETIME_MS + 500);
    assert.ok(Date.now() - credential!.expiresMs > 9 * LIFETIME_MS);
    n2.start();
    const { value, tookMs } = await n2.verified();
    console.log(`verified ${Math.round(tookMs)} ms after the start`);
    assert.equal(value.node.nodeId, node.nodeId);
    assert.ok(value.credential!.issuedMs > credential!.expiresMs);
    await seeEachOther([n1, n2], 10_000);
  },
);

hostsTest("[2.2b] credentials are renewed on running nodes, and their channels stay", async (lab) => {
  const [h1, h2] = await lab.hosts(2);
  const env = { MYCELIUM_TEST_CREDENTIAL_LIFETIME_MS: String(LIFETIME_MS) };
  const n1 = await lab.founder({ name: "n1", host: h1!, env });
  const n2 = lab.node({ name: "n2", host: h2!, env });
  n2.join(await n1.invite());
  await seeEachOther([n1, n2], 15_000);
  const before = await n2.status();
  const since = before.members.find((one) => one.name === "n1")!.path!.sinceMs;
  let issuedMs = before.credential!.issuedMs;
  // Three times, each before the one in force has run out.
  for (let i = 0; i < 3; i++) {
    const { value } = await n2.until("renews", 3 * LIFETIME_MS, (status) => status.credential!.issuedMs > issuedMs);
    issuedMs = value.credential!.issuedMs;
    assert.equal(value.bootstrap.stage, "verified");
  }
  for (const node of [n1, n2]) {
    const status = await node.status();
    assert.equal(status.members.filter((one) => one.state === "alive").length, 1);
    assert.equal(status.refusals.expired ?? 0, 0, "nothing ran out");
  }
  assert.equal((await n2.status()).members.find((one) => one.name === "n1")!.path!.sinceMs, since);
});

hostsTest("[2.1e] the genesis key offline and the founder dead: a second Sclerotium admits and renews", async (lab) => {
  const hosts = await lab.hosts(3);
  // Long enough to sign in peace, short enough to see a renewal.
  const env = { MYCELIUM_TEST_CREDENTIAL_LIFETIME_MS: "15000" };
  const n1 = await lab.founder({ name: "n1", host: hosts[0]!, env });
  const n2 = lab.node({ name: "n2", host: hosts[1]!, env, flags: ["--role", "sclerotium"] });
  n2.join(await n1.invite({ role: "sclerotium" }));
  await seeEachOther([n1, n2], 15_000);
  const { value: second } = await n2.until(
    "is an issuer",
    10_000,
    (status) => status.network!.authority.issuers.length === 2 && status.network!.authority.epoch === 2,
  );
  assert.equal(second.node.role, "sclerotium");

  const path = join(lab.home, "genesis.key");
  assert.equal((await n1.status()).network!.genesisKey, "here");
  await n1.control({ verb: "genesis-export", path });
  await n1.until("has no genesis key", 2_000, (status) => status.network!.genesisKey === "offline");
  const { size, mode } = await Deno.stat(path);
  assert.equal(size, 32);
  assert.equal(mode! & 0o777, 0o600);
  await assert.rejects(Deno.stat(join(n1.state, "secret", "genesis.key")), Deno.errors.NotFound);
  await n1.kill();

  const made = await n2.cli("invite", "create", "--quiet");
  assert.equal(made.code, 0, made.stderr);
  const n3 = lab.node({ name: "n3", host: hosts[2]! });
  n3.join(made.stdout);
  const { value } = await n3.verified();
  assert.equal(value.credential!.issuer, n2.nodeId);
  const { value: later } = await n3.until(
    "is renewed",
    30_000,
    (status) => status.credential!.issuedMs > value.credential!.issuedMs,
  );
  assert.equal(later.credential!.issuer, n2.nodeId);
  // n2 itself goes on as well, and the founder is welcome when it is back.
  await n2.until("has renewed itself", 15_000, (status) => status.credential!.issuedMs > second.credential!.issuedMs);
  n1.start();
  await seeEachOther([n1, n2, n3], 20_000);
});
