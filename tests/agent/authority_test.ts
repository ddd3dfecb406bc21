import assert from "node:assert/strict";
import { toHex } from "../../src/core/bytes.ts";
import { decodeCbor, encodeCbor } from "../../src/core/codec.ts";
import { superMajority } from "../../src/core/quorum.ts";
import { encodeEpoch } from "../../src/identity/authority.ts";
import { renewAtMs } from "../../src/identity/credential.ts";
import type { Host } from "../sim/world.ts";
import { meshed, Net, Newcomer, outcome } from "./kit.ts";

function credentialOf(host: Host) {
  return host.view.state.network!.credential!.credential;
}

function chainOf(host: Host) {
  return host.view.state.network!.chain!;
}

Deno.test("[2.1e] each Sclerotium that joins becomes an issuer, epoch by epoch, each signed by more than two thirds", () => {
  const net = new Net(1);
  const issuers = [net.founder];
  for (const name of ["beta", "gamma", "delta"]) {
    issuers.push(net.join(name, { as: "sclerotium" }));
    net.world.until(
      `epoch ${issuers.length} everywhere`,
      () => issuers.every((one) => chainOf(one).epoch === issuers.length && one.view.state.isIssuer),
      120_000,
    );
  }
  net.meshed(...issuers);
  const chain = chainOf(issuers[3]!);
  const epochs = chain.since(1);
  // The founder alone may sign the second epoch, both the third, and so on: the genesis key is not needed.
  for (const [i, one] of epochs.entries()) {
    const signers = new Set(one.signatures.map((s) => toHex(s.key)));
    if (i === 0) continue;
    assert.ok(signers.size >= superMajority(i), `epoch ${i + 1} has ${signers.size} signatures`);
    assert.ok(!signers.has(toHex(chain.genesisKey)), "the genesis key did not sign");
  }
  assert.equal(net.world.status(net.founder).network!.authority.threshold, 3);
  const ordinary = net.join("epsilon");
  net.world.run(30_000);
  assert.equal(chainOf(ordinary).epoch, 4, "an ordinary machine changes nothing");
});

Deno.test("[2.1e] the genesis node is gone and its key was taken offline: joins and renewals go on", () => {
  const net = new Net(2);
  const others = ["beta", "gamma"].map((name) => net.join(name, { as: "sclerotium" }));
  const [beta, gamma] = others as [Host, Host];
  const plain = net.join("plain");
  net.world.until("three issuers", () => [...others, plain].every((one) => chainOf(one).issuers.length === 3), 120_000);
  net.world.ask(net.founder, { verb: "genesis-export", path: "stick" });
  assert.ok(!net.founder.disk.has("secret/genesis.key"));
  net.world.crash(net.founder);
  const invite = net.invite({ at: beta });
  const late = net.join("late", { invite });
  assert.ok([beta.nodeId, gamma.nodeId].includes(net.world.status(late).credential!.issuer));
  net.world.run(net.lifetimeMs * 1.5);
  for (const host of [beta, gamma, plain, late]) {
    assert.ok(credentialOf(host).expiresMs > net.world.nowMs, `${host.name} was renewed`);
    assert.equal(host.view.stage, "verified");
  }
  // And it comes back by itself after longer than its own credential lasts.
  net.world.boot(net.founder);
  net.meshed(net.founder, beta, gamma, plain, late);
  assert.ok(credentialOf(net.founder).expiresMs > net.world.nowMs);
});

Deno.test("[2.1e] credentials are renewed by themselves after two thirds of their life; sessions stay open", () => {
  const net = new Net(3);
  const beta = net.join("beta");
  net.meshed(net.founder, beta);
  const first = credentialOf(beta);
  const dueMs = renewAtMs(first);
  assert.ok(dueMs >= first.issuedMs + (net.lifetimeMs * 2) / 3);
  assert.ok(dueMs <= first.issuedMs + (net.lifetimeMs * 5) / 6);
  const opened = beta.view.sessions.get(net.founder.nodeId)!.peer.openedMs;
  net.world.run(dueMs - net.world.nowMs - 1_000);
  assert.equal(credentialOf(beta).issuedMs, first.issuedMs, "not before");
  net.world.run(60_000);
  assert.ok(credentialOf(beta).issuedMs >= dueMs, "soon after");
  assert.equal(beta.view.sessions.get(net.founder.nodeId)!.peer.openedMs, opened, "on the same channel");
  net.world.run(3 * net.lifetimeMs);
  assert.ok(credentialOf(beta).expiresMs > net.world.nowMs);
  assert.ok(credentialOf(net.founder).expiresMs > net.world.nowMs, "an issuer renews itself");
  assert.ok(meshed([net.founder, beta]));
  assert.equal(net.founder.view.state.members.get(beta.nodeId)!.membership.issuedMs, credentialOf(beta).issuedMs);
});

Deno.test("[2.1e] a node that was off for ten lifetimes of its credential comes back without a person", () => {
  const net = new Net(4, { lan: false });
  const beta = net.join("beta");
  const gamma = net.join("gamma");
  net.meshed(net.founder, beta, gamma);
  net.world.crash(beta);
  net.world.run(10 * net.lifetimeMs);
  net.world.boot(beta);
  assert.ok(credentialOf(beta).expiresMs < net.world.nowMs);
  net.verified(beta);
  net.meshed(net.founder, beta, gamma);
  assert.ok(credentialOf(beta).expiresMs > net.world.nowMs);
});

Deno.test("[2.1e] cut off from all issuers past its expiry, but not from all members: renewed when one is back", () => {
  for (let seed = 30; seed < 34; seed++) {
    const net = new Net(seed, { lan: false });
    const [beta, gamma] = [net.join("beta"), net.join("gamma")];
    net.meshed(net.founder, beta, gamma);
    net.world.cut([beta], [net.founder]);
    net.world.run(2 * net.lifetimeMs);
    assert.ok(credentialOf(beta).expiresMs < net.world.nowMs, "it ran out");
    assert.equal(gamma.view.sessions.get(beta.nodeId)?.member ?? false, false, "and nobody counts it any more");
    net.world.heal();
    const took = net.world.until("beta is renewed", () => credentialOf(beta).expiresMs > net.world.nowMs, 180_000);
    net.meshed(net.founder, beta, gamma);
    assert.ok(took < 180_000);
  }
});

Deno.test("[2.1e] a member that never heard of the last three epochs checks them when it is back", () => {
  const net = new Net(5, { lan: false });
  const old = net.join("old");
  net.world.crash(old);
  const issuers = [net.founder, ...["b", "c", "d"].map((name) => net.join(name, { as: "sclerotium" }))];
  net.world.until("four issuers", () => issuers.every((one) => chainOf(one).issuers.length === 4), 240_000);
  // The only issuer that it knew leaves for good.
  net.world.ask(issuers[1]!, { verb: "node-remove", node: "alpha" });
  net.world.until("alpha is out", () => issuers.slice(1).every((one) => chainOf(one).issuers.length === 3), 240_000);
  net.world.run(3 * net.lifetimeMs);
  net.world.boot(old);
  net.world.until("it is back", () => old.view.stage === "verified" && chainOf(old).epoch >= 4, 600_000);
  assert.ok(credentialOf(old).expiresMs > net.world.nowMs);
});

Deno.test("[2.1e] an issuer signs one payload for an epoch, also across a restart", () => {
  const net = new Net(6);
  const beta = net.join("beta", { as: "sclerotium" });
  net.world.until("two issuers", () => [net.founder, beta].every((one) => chainOf(one).issuers.length === 2), 120_000);
  const spare = net.join("spare", { as: "sclerotium" });
  net.world.until(
    "three issuers",
    () => [net.founder, beta].every((one) => chainOf(one).issuers.length === 3),
    120_000,
  );
  net.meshed(net.founder, beta, spare);
  const chain = chainOf(beta);
  const key = net.founder.view.state.keyPair.publicKey;
  const sign = (issuers: readonly Uint8Array[], createdMs: number) => {
    const payload = encodeEpoch({ epoch: chain.epoch + 1, previous: chain.head, issuers, createdMs });
    return askAs(net, net.founder, beta, "authority.sign", { p: payload });
  };
  const all = chain.issuers;
  assert.equal(sign(all, net.world.nowMs), "ok");
  assert.equal(sign(all, net.world.nowMs + 1), "stale-epoch", "another payload of the same number");
  net.world.restart(beta);
  net.world.until("beta is back", () => beta.view.sessions.get(net.founder.nodeId)?.member === true);
  assert.equal(sign(all, net.world.nowMs + 2), "stale-epoch", "and after a restart");
  assert.equal(
    sign(all.filter((one) => toHex(one) !== toHex(key)), net.world.nowMs),
    "unfit-issuer",
    "nobody is left out",
  );
  const stranger = new Uint8Array(32).fill(9);
  assert.equal(sign([...all, stranger], net.world.nowMs), "unfit-issuer", "nobody unknown comes in");
  const payload = encodeEpoch({
    epoch: chain.epoch + 2,
    previous: chain.head,
    issuers: all,
    createdMs: net.world.nowMs,
  });
  assert.equal(askAs(net, net.founder, beta, "authority.sign", { p: payload }), "stale-epoch", "no epoch is skipped");
  const plain = net.join("plain");
  net.meshed(beta, plain);
  const fine = encodeEpoch({ epoch: chain.epoch + 1, previous: chain.head, issuers: all, createdMs: net.world.nowMs });
  assert.equal(askAs(net, plain, beta, "authority.sign", { p: fine }), "not-issuer", "nobody but an issuer may ask");
});

Deno.test("[2.1e] the genesis key signs a new set of issuers when those that are left are too few", () => {
  const net = new Net(7);
  const others = ["b", "c", "d"].map((name) => net.join(name, { as: "sclerotium" }));
  net.world.until(
    "four issuers",
    () => [net.founder, ...others].every((one) => chainOf(one).issuers.length === 4),
    240_000,
  );
  // Two of four are lost: three signatures are wanted, so that the rest can change nothing.
  const { epoch } = chainOf(net.founder);
  net.world.crash(others[1]!);
  net.world.crash(others[2]!);
  net.world.ask(net.founder, { verb: "node-remove", node: "c" });
  net.world.run(120_000);
  assert.equal(chainOf(net.founder).epoch, epoch, "two signatures are too few");
  net.world.ask(net.founder, { verb: "authority-recover", without: ["d"] });
  net.world.until("b follows", () => chainOf(others[0]!).epoch === epoch + 1);
  assert.equal(chainOf(net.founder).issuers.length, 2);
  const refused = net.world.control(others[0]!, { verb: "authority-recover", without: [] });
  assert.equal(refused.ok ? "" : refused.error.code, "no-genesis-key");
});

Deno.test("[2.1e] one of two or three issuers is removed: the founder's genesis key stands in for its signature", () => {
  for (const count of [2, 3]) {
    const net = new Net(40 + count, { lan: false });
    const others = ["b", "c"].slice(0, count - 1).map((name) => net.join(name, { as: "sclerotium" }));
    const all = [net.founder, ...others];
    net.world.until("all issue", () => all.every((one) => chainOf(one).issuers.length === count), 240_000);
    net.meshed(...all);
    const { epoch } = chainOf(net.founder);
    const [gone, ...stay] = others as [Host, ...Host[]];
    net.world.crash(gone);
    // Asked of whoever stays beside the founder, where there is one.
    net.world.ask(stay[0] ?? net.founder, { verb: "node-remove", node: "b" });
    stay.push(net.founder);
    net.world.until("it is out", () => stay.every((one) => chainOf(one).issuers.length === count - 1), 60_000);
    assert.equal(chainOf(net.founder).epoch, epoch + 1);
    const late = net.join("late", { as: "sclerotium" });
    net.world.until(
      "the next one comes in",
      () => [...stay, late].every((one) => chainOf(one).issuers.length === count),
    );
  }
});

Deno.test("[2.1e] the genesis key stands in for nobody where it is offline, or another payload may have been signed", () => {
  const net = new Net(44, { lan: false });
  const others = ["b", "c", "d"].map((name) => net.join(name, { as: "sclerotium" }));
  const all = [net.founder, ...others];
  net.world.until("four issuers", () => all.every((one) => chainOf(one).issuers.length === 4), 240_000);
  net.meshed(...all);
  const { epoch } = chainOf(net.founder);
  net.world.crash(others[1]!);
  net.world.crash(others[2]!);
  for (const node of ["c", "d"]) net.world.ask(net.founder, { verb: "node-remove", node });
  net.world.run(120_000);
  assert.equal(chainOf(net.founder).epoch, epoch, "the other three may have signed something");

  const two = new Net(45, { lan: false });
  const beta = two.join("beta", { as: "sclerotium" });
  two.world.until("two issuers", () => [two.founder, beta].every((one) => chainOf(one).issuers.length === 2), 120_000);
  two.world.ask(two.founder, { verb: "genesis-export", path: "stick" });
  two.world.restart(two.founder);
  two.meshed(two.founder, beta);
  two.world.crash(beta);
  two.world.ask(two.founder, { verb: "node-remove", node: "beta" });
  two.world.run(120_000);
  assert.equal(chainOf(two.founder).epoch, 2, "nobody can sign for the other one");
});

Deno.test("[2.1b] revocation: the removed node has no session anywhere, spreads through partitions, and is refused by name", () => {
  const net = new Net(8, { lan: false });
  const [beta, gamma, bad] = [net.join("beta"), net.join("gamma"), net.join("bad")];
  net.meshed(net.founder, beta, gamma, bad);
  net.world.cut([gamma, bad], [net.founder, beta]);
  net.world.run(60_000);
  assert.ok(gamma.view.sessions.get(bad.nodeId)?.member, "on its side of the partition it goes on");
  net.world.ask(net.founder, { verb: "node-remove", node: "bad", reason: "stolen" });
  net.world.run(60_000);
  net.world.heal();
  net.world.until("gamma hears of it", () => gamma.view.state.revocations.size === 1, 180_000);
  net.world.run(60_000);
  for (const host of [net.founder, beta, gamma]) {
    assert.notEqual(host.view.sessions.get(bad.nodeId)?.member, true, `${host.name} has no session with it`);
    assert.ok(!net.world.status(host).members.some((one) => one.nodeId === bad.nodeId));
  }
  net.failing(bad, "revoked", 600_000);
  assert.notEqual(bad.view.stage, "verified");
  // Over restarts of everybody.
  for (const host of [net.founder, beta, gamma, bad]) net.world.restart(host);
  net.world.run(120_000);
  assert.notEqual(bad.view.stage, "verified");
  // With a new invite and after a reset it stays out: the key is revoked, not the invite.
  net.world.ask(bad, { verb: "bootstrap-reset" });
  net.world.ask(bad, { verb: "join", invite: net.invite().token });
  net.failing(bad, "revoked", 120_000);
  assert.ok((net.world.status(net.founder).refusals["revoked"] ?? 0) > 0, "counted by reason");
});

Deno.test("[2.1b] a removed node is refused whatever method it calls", () => {
  const net = new Net(9);
  const beta = net.join("beta");
  const newcomer = new Newcomer(net, "bad", net.invite({ uses: 2 }));
  assert.equal(outcome(newcomer.register(net.founder)), "accepted");
  net.world.ask(net.founder, { verb: "node-remove", node: "bad" });
  net.world.until("beta knows", () => beta.view.state.revocations.size === 1);
  assert.equal(outcome(newcomer.register(net.founder)), "revoked");
  const row = net.founder.view.state.members.get(newcomer.puppet.nodeId)!;
  const { t, p, k, s } = envelope(row.credentialEnvelope);
  const hello = { v: 1, m: envelope(row.recordEnvelope), c: { t, p, k, s }, e: 1, es: [] };
  for (const host of [net.founder, beta]) {
    assert.equal(outcome(newcomer.call(host, "session.hello", hello)), "revoked");
    assert.equal(outcome(newcomer.call(host, "push", {})), "not-a-member");
    assert.equal(outcome(newcomer.call(host, "sync", {})), "not-a-member");
  }
  assert.equal(outcome(newcomer.call(net.founder, "renew", { m: hello.m, c: hello.c })), "revoked");
});

Deno.test("[2.1a] [2.1d] credentials and records of another network are counted as foreign, whoever carries them", () => {
  const [net, other] = [new Net(10), new Net(11)];
  const spy = new Newcomer(net, "spy", net.invite());
  const theirs = other.founder.view.state.self!;
  const twin = new Newcomer(other, "spy", other.invite());
  assert.equal(outcome(twin.register(other.founder)), "accepted");
  const row = other.founder.view.state.members.get(spy.puppet.nodeId)!;
  const hello = { v: 1, m: envelope(row.recordEnvelope), c: envelope(row.credentialEnvelope), e: 1, es: [] };
  assert.equal(outcome(spy.call(net.founder, "session.hello", hello)), "foreign-network");
  // Their founder's epochs do not enter our chain either.
  const epochs = other.founder.view.state.network!.chain!.since(1).map((one) => ({
    p: one.payload,
    s: one.signatures.map((x) => ({ k: x.key, s: x.signature })),
  }));
  assert.equal(outcome(spy.call(net.founder, "session.hello", { ...hello, es: epochs })), "foreign-network");
  assert.equal(chainOf(net.founder).epoch, 1);
  assert.equal(net.founder.view.state.members.get(theirs.nodeId), undefined);
  assert.ok((net.founder.refused.get("foreign-network") ?? 0) >= 2, "counted by reason");
});

Deno.test("[2.1c] tampered, replayed by another, expired and not yet valid credentials: each refused by its name", () => {
  const net = new Net(12);
  const honest = new Newcomer(net, "honest", net.invite());
  const thief = new Newcomer(net, "thief", net.invite());
  assert.equal(outcome(honest.register(net.founder)), "accepted");
  const row = net.founder.view.state.members.get(honest.puppet.nodeId)!;
  const m = envelope(row.recordEnvelope);
  const c = envelope(row.credentialEnvelope);
  const hello = (change: object = {}) => ({ v: 1, m, c, e: 1, es: [], ...change });
  assert.equal(outcome(thief.call(net.founder, "session.hello", hello())), "wrong-subject", "a stolen credential");
  const bent = { ...c, s: c.s.map((byte, i) => i === 5 ? byte ^ 1 : byte) };
  assert.equal(outcome(honest.call(net.founder, "session.hello", hello({ c: bent }))), "tampered");
  assert.equal(outcome(honest.call(net.founder, "session.hello", hello({ c: m }))), "malformed");
  assert.equal(
    outcome(
      honest.call(net.founder, "session.hello", hello({ m: envelope(net.founder.view.state.self!.recordEnvelope) })),
    ),
    "bad-request",
  );
  assert.equal(outcome(honest.call(net.founder, "session.hello", hello({ v: 0 }))), "version-unsupported");
  assert.equal(outcome(honest.call(net.founder, "session.hello", hello())), "ok");
  assert.equal(outcome(honest.call(net.founder, "seen", { n: honest.puppet.nodeId })), "ok");
  // Its session ends with its credential, on the same channel.
  net.world.run(net.lifetimeMs + 6 * 60_000);
  assert.equal(outcome(honest.call(net.founder, "session.hello", hello())), "expired");
  assert.equal(outcome(honest.call(net.founder, "push", {})), "not-a-member");
  // And its key alone gets it a new one.
  const answer = honest.call(net.founder, "renew", { m, c });
  assert.equal(outcome(answer), "ok");
  if (answer.ok && "body" in answer) {
    const renewed = decodeCbor(answer.body) as unknown as { c: typeof c };
    assert.equal(outcome(honest.call(net.founder, "session.hello", hello({ c: renewed.c }))), "ok");
    assert.equal(outcome(thief.call(net.founder, "renew", { m, c: renewed.c })), "unknown-member");
  }
});

/** An envelope as it travels. */
function envelope(one: { type: string; payload: Uint8Array; signer: Uint8Array; signature: Uint8Array }) {
  return { t: one.type, p: one.payload, k: one.signer, s: one.signature };
}

/** Calls a method of `to` on the session of `from`, past `from`'s own agent. */
function askAs(net: Net, from: Host, to: Host, method: string, body: object): string {
  const peer = to.view.sessions.get(from.nodeId)!.peer;
  return outcome(net.world.inject(to, peer, method, encodeCbor(body as never)));
}
