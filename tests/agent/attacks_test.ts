/**
 * Attacks on a network of agents, each as the one who found it would run it. Every one of these worked once.
 *
 * @module
 */

import assert from "node:assert/strict";
import { toHex, utf8 } from "../../src/core/bytes.ts";
import { bytes, type CborValue, decodeAs, decodeCbor, encodeCbor, record } from "../../src/core/codec.ts";
import { keyPairFromSeed, sha256 } from "../../src/core/crypto.ts";
import { envelopeValue, readEnvelope } from "../../src/core/envelope.ts";
import { nodeIdOf, publicKeyOf } from "../../src/core/ids.ts";
import { LIMITS } from "../../src/core/limits.ts";
import type { Role } from "../../src/core/roles.ts";
import {
  AuthorityChain,
  decodeEpoch,
  encodeEpoch,
  epochHash,
  readSignedEpoch,
  signedEpochValue,
  signEpoch,
} from "../../src/identity/authority.ts";
import { issueCredential } from "../../src/identity/credential.ts";
import { proveFactor } from "../../src/identity/join_proof.ts";
import { registerHash } from "../../src/agent/registrar.ts";
import { rowValue } from "../../src/agent/state.ts";
import { parseInvite } from "../../src/identity/invite.ts";
import { createRevocation } from "../../src/identity/revocation.ts";
import { sealMember } from "../../src/membership/record.ts";
import { invite, issuers, join, network, Node, SERVER, World } from "./attack_kit.ts";

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

/** A key of nobody. */
const THIEF = keyPairFromSeed(sha256(utf8("a thief's own key")));

/** A network that has removed an issuer, whose key is in a thief's hands. */
function robbed() {
  const { world, alpha, others } = issuers("beta", "gamma", "delta", "epsilon");
  const [beta, gamma] = others as [Node, Node];
  const stolen = beta.keyPair;
  alpha.ask({ verb: "node-remove", node: beta.id });
  beta.kill();
  world.run(90_000);
  assert.equal(alpha.agent.inspect().state.network!.chain!.isIssuer(stolen.publicKey), false, "it is no issuer now");
  return { world, alpha, gamma, others, beta, stolen };
}

/** Record and credential of the thief's key, signed with the stolen one and dated as he likes. */
function forged(at: Node, stolen: ReturnType<typeof keyPairFromSeed>, issuedMs: number, role: Role = "sclerotium") {
  const credential = issueCredential(
    {
      subject: THIEF.publicKey,
      name: "thief",
      role,
      pool: "default",
      issuedMs,
      expiresMs: issuedMs + DAY_MS,
      epoch: at.epoch - 1,
    },
    at.networkId,
    stolen,
  );
  const record = sealMember(
    {
      seq: 1,
      name: "thief",
      role,
      addresses: [],
      capabilities: SERVER,
      version: "0",
      startedMs: 1,
      left: false,
      drained: false,
    },
    at.networkId,
    THIEF,
  );
  return { m: envelopeValue(record), c: envelopeValue(credential) };
}

Deno.test("[10.3e] [2.1e] D1 the stolen key of a removed issuer: a back-dated credential is not renewed", () => {
  const { world, alpha, stolen } = robbed();
  const wire = alpha.strangerOf(THIEF);
  for (const ageMs of [40 * DAY_MS, DAY_MS + 1, 2 * HOUR_MS, HOUR_MS, 0]) {
    alpha.feed({ type: "peer-up", peer: wire });
    const answer = alpha.called(wire, "renew", { ...forged(alpha, stolen, world.nowMs - ageMs), e: 0 });
    assert.equal(answer?.ok, false, `${ageMs} ms old`);
    assert.equal(alpha.member(wire.nodeId), undefined, "it is no member");
  }
});

Deno.test("[10.3e] [2.1e] D1 the stolen key of a removed issuer: a back-dated credential opens no session, and spreads to nobody", () => {
  const { world, alpha, gamma, stolen } = robbed();
  const wire = alpha.strangerOf(THIEF);
  alpha.feed({ type: "peer-up", peer: wire });
  for (const ageMs of [10 * 60_000, HOUR_MS, 20 * HOUR_MS]) {
    const row = forged(alpha, stolen, world.nowMs - ageMs);
    const answer = alpha.called(wire, "session.hello", { v: 1, ...row, e: 0 });
    assert.equal(answer?.ok, false, `hello, ${ageMs} ms old`);
    // A member that he has turned passes it on.
    alpha.called(alpha.view(gamma, "inbound"), "push", { m: [row] });
    assert.equal(alpha.member(wire.nodeId), undefined, "it is no member");
  }
  world.run(10 * 60_000);
  assert.equal(alpha.agent.inspect().state.network!.chain!.isIssuer(THIEF.publicKey), false);
});

Deno.test("[10.3e] [2.1e] D1 the stolen key of a removed issuer does not raise a member's role", () => {
  const { world, alpha, beta } = (() => {
    const made = issuers("beta", "gamma", "delta", "epsilon");
    return { ...made, beta: made.others[0]! };
  })();
  const turned = world.add("turned");
  join(turned, invite(alpha, { role: "rhizomorph" }).token);
  const stolen = beta.keyPair;
  alpha.ask({ verb: "node-remove", node: beta.id });
  beta.kill();
  world.run(90_000);
  const issuedMs = alpha.member(turned)!.membership.issuedMs + 1;
  const risen = issueCredential(
    {
      subject: turned.keyPair.publicKey,
      name: "turned",
      role: "sclerotium",
      pool: "default",
      issuedMs,
      expiresMs: issuedMs + DAY_MS,
      epoch: alpha.epoch - 1,
    },
    alpha.networkId,
    stolen,
  );
  const m = envelopeValue(turned.agent.inspect().state.self!.recordEnvelope);
  alpha.called(alpha.view(turned, "inbound"), "session.hello", { v: 1, m, c: envelopeValue(risen), e: 0 });
  alpha.called(alpha.view(turned, "inbound"), "push", { m: [{ m, c: envelopeValue(risen) }] });
  world.run(60_000);
  assert.equal(alpha.member(turned)!.membership.role, "rhizomorph");
  assert.equal(alpha.agent.inspect().state.network!.chain!.isIssuer(turned.keyPair.publicKey), false);
});

Deno.test("[10.3e] [2.1e] D1 the stolen key of a removed issuer revokes nobody", () => {
  const { world, alpha, gamma, stolen } = robbed();
  const subject = publicKeyOf(gamma.id)!;
  for (const atMs of [world.nowMs, world.nowMs - HOUR_MS, world.nowMs - 30 * DAY_MS]) {
    const revocation = createRevocation({ kind: "node", subject, reason: "", atMs }, alpha.networkId, stolen);
    alpha.called(alpha.view(gamma, "inbound"), "push", { r: [envelopeValue(revocation)] });
  }
  assert.equal(alpha.agent.inspect().state.revocations.get("node", subject), undefined);
  assert.ok(alpha.lines(/^REFUSED unknown-issuer/).length >= 3);
});

Deno.test("[10.3e] [2.1e] D1 the stolen key of a removed issuer takes in no newcomer, with the newest chain and a date from before", () => {
  const { world, alpha, beta, stolen } = robbed();
  const { genesis, chain, profile } = alpha.agent.inspect().state.network!;
  const row = alpha.member(beta)!;
  const token = invite(alpha).token;
  const zeta = world.add("zeta");
  for (const one of world.nodes) one.mayReach = () => false;
  zeta.mayReach = (other) => other === beta;
  beta.down = false;
  const nonce = sha256(utf8("thief"));
  let joinerNonce = new Uint8Array(0);
  let taken = 0;
  beta.intercept = (method, body) => {
    const es = chain!.since(1).map(signedEpochValue);
    if (method === "join.hello") {
      joinerNonce = (decodeCbor(body) as { n: Uint8Array<ArrayBuffer> }).n;
      const s = rowValue(row);
      return { ok: true, body: { v: 1, g: envelopeValue(genesis!.envelope), es, s, n: nonce, t: world.nowMs } };
    }
    if (method !== "join.register") return "drop";
    taken += 1;
    const read = decodeAs(body, record({ g: readEnvelope, m: readEnvelope, w: bytes({ length: 32 }) }));
    const transcript = {
      networkId: alpha.networkId,
      registrarKey: stolen.publicKey,
      joinerKey: zeta.keyPair.publicKey,
      registrarNonce: nonce,
      joinerNonce,
      channelBinding: new Uint8Array(0),
      requestHash: registerHash(read),
    };
    // From before the change of the issuers, when it still was one.
    const issuedMs = world.nowMs - 10 * 60_000;
    const credential = issueCredential(
      {
        subject: zeta.keyPair.publicKey,
        name: "zeta",
        role: "rhizomorph",
        pool: "default",
        issuedMs,
        expiresMs: issuedMs + DAY_MS,
        epoch: 1,
      },
      alpha.networkId,
      stolen,
    );
    const x = proveFactor("registrar", transcript, stolen);
    const p = envelopeValue(profile!.envelope);
    return { ok: true, body: { s: "accepted", c: envelopeValue(credential), p, es, ms: [], r: [], x } };
  };
  zeta.control({ verb: "join", invite: token });
  beta.connect(zeta);
  world.run(60_000);
  zeta.feed({
    type: "candidate",
    candidate: {
      address: beta.address,
      source: "mdns",
      authority: 1,
      seenMs: world.nowMs,
      expiresMs: world.nowMs + DAY_MS,
      verification: "unverified",
    },
  });
  world.run(60_000);
  assert.ok(taken > 0, "the thief was asked");
  assert.equal(zeta.isMember, false);
  assert.ok(zeta.lines(/handoff-incomplete.*not of a present issuer/).length > 0);
});

Deno.test("[10.3e] [2.1e] D1 members that a removed issuer had admitted stay members", () => {
  const { world, alpha, others } = issuers("beta", "gamma", "delta", "epsilon");
  const beta = others[0]!;
  const zeta = world.add("zeta");
  join(zeta, invite(beta).token);
  assert.ok(zeta.isMember);
  alpha.ask({ verb: "node-remove", node: beta.id });
  beta.kill();
  world.run(2.5 * world.lifetimeMs);
  assert.equal(zeta.stage, "verified");
  const { credential, envelope } = zeta.agent.inspect().state.network!.credential!;
  assert.ok(credential.expiresMs > world.nowMs, "its credential is renewed");
  assert.notEqual(nodeIdOf(envelope.signer), beta.id, "by an issuer that stays");
});

Deno.test("[2.1e] D2 two epochs after the founder was removed joins and renewals go on, and newcomers hear of the removal", () => {
  const { world, alpha, others } = issuers("beta", "gamma", "delta", "epsilon");
  const beta = others[0]!;
  beta.ask({ verb: "node-remove", node: alpha.id });
  alpha.kill();
  world.run(90_000);
  const before = beta.epoch;
  const zeta = world.add("zeta", "sclerotium");
  join(zeta, invite(beta, { role: "sclerotium" }).token);
  world.run(90_000);
  assert.ok(zeta.isMember, "one epoch after");
  assert.ok(zeta.isIssuer && beta.epoch > before, "the next epoch has come");
  const eta = world.add("eta");
  join(eta, invite(beta).token);
  world.run(60_000);
  assert.equal(eta.stage, "verified", "two epochs after");
  for (const late of [zeta, eta]) {
    const { revocations, network } = late.agent.inspect().state;
    assert.ok(revocations.get("node", publicKeyOf(alpha.id)!), `${late.name} knows that the founder was removed`);
    assert.ok(network!.chain!.isIssuer(network!.profile!.envelope.signer), "its profile is signed by a present issuer");
  }
  world.run(2.5 * world.lifetimeMs);
  for (const one of [...others, zeta, eta]) {
    const { credential, envelope } = one.agent.inspect().state.network!.credential!;
    assert.ok(credential.expiresMs > world.nowMs, `${one.name} is renewed`);
    assert.ok(beta.agent.inspect().state.network!.chain!.isIssuer(envelope.signer), `${one.name}: by a present issuer`);
    assert.equal(one.stage, "verified");
  }
});

/** The same machine and key with an empty store, as after a theft or a new installation. */
function reborn(node: Node, role: Role | "auto"): void {
  const seed = node.store.get("secret/node.key")!;
  node.kill();
  node.store = new Map([["secret/node.key", seed]]);
  node.role = role;
  node.boot();
}

Deno.test("[10.5c] [2.1b] D3 a known member with a second invite does not rise without the approval that it asks for", () => {
  const { world, alpha } = network();
  const mallory = world.add("mallory");
  join(mallory, invite(alpha).token);
  assert.equal(alpha.member(mallory)?.membership.role, "rhizomorph");
  reborn(mallory, "sclerotium");
  join(mallory, invite(alpha, { role: "sclerotium", approval: true }).token);
  world.run(60_000);
  assert.equal(alpha.member(mallory)?.membership.role, "rhizomorph", "it has not risen");
  assert.equal(mallory.stage, "awaiting-approval");
  assert.ok(alpha.lines(/^approval-wanted/).length === 1, "an operator is asked");
  assert.equal(alpha.agent.inspect().state.network!.chain!.isIssuer(mallory.keyPair.publicKey), false);
  // With the operator's word it rises, and that is written down.
  alpha.ask({ verb: "node-approve", node: mallory.id });
  world.run(60_000);
  assert.equal(alpha.member(mallory)?.membership.role, "sclerotium");
  assert.equal(alpha.lines(/^AUDIT role-changed .*rhizomorph -> sclerotium/).length, 1);
});

Deno.test("[10.5c] [2.1b] D3 an approval for one invite does not count for another", () => {
  const { world, alpha } = network();
  const mallory = world.add("mallory", "sclerotium");
  join(mallory, invite(alpha, { role: "hypha", approval: true }).token);
  assert.equal(mallory.stage, "awaiting-approval");
  alpha.ask({ verb: "node-approve", node: mallory.id });
  // Before it comes back for its answer it takes another invite, for a higher role.
  const second = invite(alpha, { role: "sclerotium", approval: true });
  reborn(mallory, "sclerotium");
  join(mallory, second.token);
  world.run(60_000);
  assert.equal(alpha.member(mallory), undefined, "not admitted by an approval for something else");
  assert.equal(mallory.stage, "awaiting-approval");
});

Deno.test("[10.5c] [2.1b] D3 an invite's uses stay used when the member takes another one", () => {
  const { world, alpha } = network();
  const first = invite(alpha);
  const mallory = world.add("mallory");
  join(mallory, first.token);
  reborn(mallory, "auto");
  join(mallory, invite(alpha).token);
  assert.equal(mallory.stage, "verified");
  const friend = world.add("friend");
  join(friend, first.token);
  assert.equal(friend.isMember, false, "the first invite was good for one");
  assert.ok(alpha.lines(/^AUDIT join-refused invite-used-up/).length > 0);
  // The registrar remembers over a restart as well.
  alpha.kill();
  alpha.boot();
  world.run(60_000);
  assert.equal(friend.isMember, false);
});

for (const method of ["join.hello", "join.register", "session.hello", "seen", "sync", "renew"]) {
  Deno.test(`[10.5e] D4 reset while a call is in flight does not end the process: ${method}`, () => {
    const { world, alpha } = network();
    const beta = world.add("beta");
    let caught = false;
    // The answer is on its way when the operator resets.
    alpha.intercept = (called, body, from) => {
      if (called !== method || from !== beta || caught) return undefined;
      caught = true;
      const answer = alpha.called(alpha.view(beta, "inbound"), called, body);
      beta.ask({ verb: "bootstrap-reset" });
      return answer;
    };
    join(beta, invite(alpha).token);
    // Renewals come with time.
    if (!caught) beta.control({ verb: "set-mode", mode: "drained" });
    for (let hours = 0; hours < 30 && !caught; hours++) world.run(HOUR_MS);
    assert.ok(caught, "the call was caught");
    world.run(60_000);
    assert.equal(beta.stage, "idle");
    assert.equal(beta.isMember, false);
    join(beta, invite(alpha).token);
    assert.equal(beta.stage, "verified", "it can join again");
  });
}

Deno.test("[10.5e] D4 reset of the founder while members call it, and answers of another network's time, change nothing", () => {
  const { world, alpha } = network();
  const beta = world.add("beta");
  join(beta, invite(alpha).token);
  const late: (() => void)[] = [];
  beta.intercept = (method, body) => {
    const answer = beta.called(beta.view(alpha, "inbound"), method, body);
    late.push(() => void answer);
    return answer;
  };
  alpha.ask({ verb: "bootstrap-reset" });
  for (const method of ["renew", "sync", "push", "seen", "authority.sign", "assign", "status.report", "exec"]) {
    const answer = alpha.called(alpha.view(beta, "inbound"), method, {});
    assert.equal(answer?.ok, false, method);
  }
  alpha.ask({ verb: "init", name: "second", approval: false });
  world.run(60_000);
  assert.equal(alpha.stage, "verified");
  assert.equal(alpha.member(beta), undefined);
});

Deno.test("[2.1e] D5 two issuers that locked each other out of an epoch are freed by the genesis key", () => {
  const { world, alpha, others } = issuers("beta");
  const beta = others[0]!;
  const epoch = alpha.epoch;
  // The link between them breaks; each side admits one more.
  alpha.drop(beta.id);
  const gamma = world.add("gamma", "sclerotium");
  const delta = world.add("delta", "sclerotium");
  const near: [Node, Node][] = [[alpha, gamma], [beta, delta]];
  const apart = (a: Node, b: Node) => !near.some((pair) => pair.includes(a) && pair.includes(b));
  for (const one of world.nodes) one.mayReach = (other) => !apart(one, other);
  join(gamma, invite(alpha, { role: "sclerotium" }).token);
  join(delta, invite(beta, { role: "sclerotium" }).token);
  world.run(60_000);
  assert.ok(gamma.isMember && delta.isMember);
  for (const one of world.nodes) one.mayReach = () => true;
  world.run(HOUR_MS);
  if (alpha.epoch === epoch) {
    // Each has signed its own payload for the epoch: nobody can complete one.
    assert.notDeepEqual(
      alpha.agent.inspect().state.signedEpoch?.payload,
      beta.agent.inspect().state.signedEpoch?.payload,
    );
  }
  const before = alpha.epoch;
  alpha.ask({ verb: "authority-recover", without: [] });
  world.run(10 * 60_000);
  assert.ok(alpha.epoch > before);
  for (const one of world.nodes) {
    assert.equal(one.epoch, alpha.epoch, `${one.name} follows`);
    assert.ok(one.isIssuer, `${one.name} is an issuer`);
  }
  assert.ok(alpha.lines(/^AUDIT authority-recovered/).length === 1);
});

Deno.test("[2.1e] D5 recovery needs the genesis key, offline or on this node, and leaves an issuer", () => {
  const { world, alpha, others } = issuers("beta");
  const beta = others[0]!;
  const refused = beta.control({ verb: "authority-recover", without: [] });
  assert.ok(!refused.ok && refused.error.code === "no-genesis-key");
  const wrong = beta.control({ verb: "authority-recover", without: [], genesisSeed: THIEF.seed });
  assert.ok(!wrong.ok && wrong.error.code === "no-genesis-key");
  const genesisSeed = alpha.store.get("secret/genesis.key")!;
  const nobody = beta.control({ verb: "authority-recover", without: ["alpha", "beta"], genesisSeed });
  assert.ok(!nobody.ok && nobody.error.code === "no-issuer");
  alpha.kill();
  world.run(60_000);
  // One of two is gone for good: more than two thirds of the old set cannot sign any more.
  beta.ask({ verb: "node-remove", node: alpha.id });
  world.run(HOUR_MS);
  assert.equal(beta.epoch, 2);
  beta.ask({ verb: "authority-recover", without: [], genesisSeed });
  assert.equal(beta.epoch, 3);
  assert.equal(beta.store.has("secret/genesis.key"), false, "the key that was named is not kept");
  const gamma = world.add("gamma", "sclerotium");
  join(gamma, invite(beta, { role: "sclerotium" }).token);
  world.run(60_000);
  assert.ok(gamma.isIssuer, "the set goes on changing by itself");
});

Deno.test("[10.3e] [2.1e] D6 an epoch that is dated far from now is not signed, and locks nobody", () => {
  const { world, alpha, others } = issuers("beta", "gamma", "delta");
  const [beta, ...honest] = others as [Node, ...Node[]];
  const chain = alpha.agent.inspect().state.network!.chain!;
  for (const createdMs of [8.64e15, world.nowMs + HOUR_MS, world.nowMs - HOUR_MS, 0]) {
    const payload = encodeEpoch({ epoch: chain.epoch + 1, previous: chain.head, issuers: chain.issuers, createdMs });
    for (const one of [alpha, ...honest]) {
      const answer = one.called(one.view(beta, "inbound"), "authority.sign", { p: payload });
      assert.ok(answer && !answer.ok && answer.code === "clock-skew", `${one.name}, dated ${createdMs}`);
      assert.notEqual(one.agent.inspect().state.signedEpoch?.epoch, chain.epoch + 1);
    }
  }
  alpha.ask({ verb: "node-remove", node: beta.id });
  beta.kill();
  world.run(90_000);
  assert.equal(alpha.epoch, chain.epoch + 1, "the next epoch comes about");
});

Deno.test("[10.5e] D7 one peer cannot push out the challenges of others", () => {
  const { world, alpha } = network();
  const [beta, mallory] = [world.add("beta"), world.add("mallory")];
  const token = invite(alpha).token;
  const wire = alpha.view(mallory, "inbound");
  let floods = 0;
  alpha.intercept = (method, body, from) => {
    if (method !== "join.register" || from !== beta) return undefined;
    // Between the newcomer's challenge and its answer.
    for (let i = 0; i < 3_000; i++) alpha.called(wire, "join.hello", { v: 1, n: sha256(utf8(String(i))) });
    floods += 1;
    return alpha.called(alpha.view(beta, "inbound"), method, body);
  };
  join(beta, token);
  assert.equal(floods, 1, "it went through at the first try");
  assert.equal(beta.stage, "verified");
});

Deno.test("[10.5e] [1.4c] D8 an assignment that was sent before is not taken again after its stop", () => {
  const { world, alpha } = network();
  const beta = world.add("beta");
  join(beta, invite(alpha).token);
  const heard: Uint8Array[] = [];
  beta.intercept = (method, body) => {
    if (method === "assign") heard.push(body);
    return undefined;
  };
  alpha.control({ verb: "assign", node: "beta", id: "web", service: "web", action: "run" });
  world.run(1_000);
  alpha.control({ verb: "assign", node: "beta", id: "web", service: "web", action: "stop" });
  world.run(1_000);
  assert.equal(heard.length, 2);
  const action = () => beta.agent.inspect().state.assignments.get("web")?.assignment.action;
  assert.equal(action(), "stop");
  beta.called(beta.view(alpha, "inbound"), "assign", heard[0]!);
  assert.equal(action(), "stop", "the old word to run is not followed");
  beta.kill();
  beta.boot();
  world.run(20_000);
  beta.called(beta.view(alpha, "inbound"), "assign", heard[0]!);
  assert.equal(action(), "stop", "nor after a restart");
});

Deno.test("[1.4e] D9 a joining node that was isolated is quiet", () => {
  const { world, alpha } = network();
  const token = invite(alpha).token;
  alpha.kill();
  const beta = world.add("beta");
  join(beta, token);
  assert.ok(beta.reachedOut > 0);
  beta.ask({ verb: "set-mode", mode: "isolated" });
  world.run(1_000);
  beta.reachedOut = 0;
  world.run(HOUR_MS);
  beta.kill();
  beta.boot();
  world.run(HOUR_MS);
  assert.equal(beta.reachedOut, 0, "no dial, no discovery, over a restart as well");
  alpha.boot();
  beta.ask({ verb: "set-mode", mode: "normal" });
  world.run(5 * 60_000);
  assert.equal(beta.stage, "verified", "and goes on when it may");
});

for (const code of ["revoked", "full", "invite-revoked", "approval-denied"]) {
  Deno.test(`[1.3a] [10.5e] D10 a stranger that answers "${code}" does not send a joiner into the slow rate`, () => {
    const { world, alpha } = network();
    const mallory = world.add("mallory");
    const token = invite(alpha).token;
    let asked = 0;
    mallory.intercept = (method) => {
      if (method !== "join.hello") return undefined;
      asked += 1;
      return { ok: false, code, message: "\u202eha" };
    };
    alpha.down = true;
    const beta = world.add("beta");
    beta.control({ verb: "join", invite: token });
    const candidate = {
      address: mallory.address,
      source: "mdns",
      authority: 1,
      seenMs: world.nowMs,
      expiresMs: world.nowMs + DAY_MS,
      verification: "unverified",
    } as const;
    beta.feed({ type: "candidate", candidate });
    world.run(20 * 60_000);
    assert.ok(asked > 0);
    assert.ok(beta.reachedOut >= 40, `${beta.reachedOut} tries in 20 minutes: half a minute apart at most`);
    alpha.boot();
    world.run(62_000);
    assert.equal(beta.stage, "verified", "within a minute of the registrar's return");
    assert.ok(beta.lines(/^REFUSED/).every((one) => !one.includes("ha")), "its words are no label");
  });
}

Deno.test("the clock jumps ahead by years and back: timers go on", () => {
  const { world, alpha } = network();
  const beta = world.add("beta");
  join(beta, invite(alpha).token);
  const nowMs = world.nowMs;
  for (const jumpMs of [70 * 365 * DAY_MS, 10_000, -5 * HOUR_MS]) {
    world.nowMs = nowMs + jumpMs;
    for (const one of [alpha, beta]) one.feed({ type: "wake" });
    world.nowMs = nowMs + 30_000;
    for (const one of [alpha, beta]) one.feed({ type: "wake" });
    for (const one of [alpha, beta]) {
      assert.ok(one.wakeMs <= world.nowMs + HOUR_MS, `${one.name} wakes within the hour, not in years`);
    }
  }
  world.run(2 * HOUR_MS);
  assert.equal(beta.stage, "verified");
  const gamma = world.add("gamma");
  join(gamma, invite(alpha).token);
  assert.equal(gamma.stage, "verified", "newcomers are admitted");
});

Deno.test("the clock is set back while a node joins: it still gets in", () => {
  const { world, alpha } = network();
  const token = invite(alpha).token;
  alpha.kill();
  const beta = world.add("beta");
  join(beta, token);
  world.nowMs -= 2 * HOUR_MS;
  beta.feed({ type: "wake" });
  // The invite's date is from then on ahead of the clock: the founder's clock is right, and comes back first.
  alpha.boot();
  world.nowMs += 2 * HOUR_MS;
  world.run(10 * 60_000);
  assert.equal(beta.stage, "verified");
});

Deno.test("[10.3e] [2.1e] an old chain, shown by an issuer that was removed since, takes in nobody", () => {
  const { world, alpha, others } = issuers("beta", "gamma", "delta");
  const beta = others[0]!;
  const before = new Map(beta.store);
  alpha.ask({ verb: "node-remove", node: beta.id });
  beta.kill();
  world.run(90_000);
  const token = invite(alpha).token;
  assert.equal(parseInvite(token).anchor.epoch, alpha.epoch);
  // The removed one comes back with what it knew, alone with the newcomer.
  const zeta = world.add("zeta");
  for (const one of world.nodes) one.mayReach = () => false;
  zeta.mayReach = (other) => other === beta;
  beta.store = before;
  beta.boot();
  world.run(1_000);
  zeta.control({ verb: "join", invite: token });
  const address = beta.address;
  zeta.feed({
    type: "candidate",
    candidate: {
      address,
      source: "mdns",
      authority: 1,
      seenMs: world.nowMs,
      expiresMs: world.nowMs + DAY_MS,
      verification: "unverified",
    },
  });
  world.run(60_000);
  assert.equal(zeta.isMember, false);
  assert.ok(zeta.lines(/^join-failure not-a-member.*older than the invite/).length > 0);
  zeta.mayReach = (other) => other !== beta;
  world.run(10 * 60_000);
  assert.equal(zeta.stage, "verified", "an honest one admits it");
});

Deno.test("[10.5e] addresses that a stranger names do not come before those of members", () => {
  const { world, alpha } = network();
  const beta = world.add("beta");
  join(beta, invite(alpha).token);
  for (const one of [alpha, beta]) one.kill();
  const mallory = world.add("mallory");
  const elsewhere = Array.from({ length: 60 }, (_, i) => `/ip4/203.0.113.${i + 1}/tcp/22`);
  const asked: string[] = [];
  mallory.intercept = (method) => {
    asked.push(method);
    if (method === "renew") return { ok: true, body: { to: elsewhere } };
    return { ok: false, code: "unknown-issuer", message: elsewhere.join(" ") };
  };
  // Its credential has run out: it asks whoever is there for a new one.
  world.nowMs += 3 * DAY_MS;
  beta.boot();
  mallory.connect(beta);
  world.run(10_000);
  assert.ok(asked.includes("renew"));
  const known = {
    address: alpha.address,
    source: "cache",
    authority: 70,
    seenMs: world.nowMs,
    expiresMs: world.nowMs + DAY_MS,
    verification: "verified",
  } as const;
  alpha.boot();
  beta.dialed.length = 0;
  beta.feed({ type: "candidate", candidate: known });
  world.run(60_000);
  const first = beta.dialed.findIndex((one) => one.includes(alpha.id));
  // The member may have come by itself before any dial.
  const tried = first < 0 ? beta.dialed : beta.dialed.slice(0, first);
  const before = tried.filter((one) => one.includes("203.0.113.")).length;
  assert.ok(before <= 1, `${before} of the stranger's addresses were tried first`);
  assert.ok(beta.agent.inspect().candidates <= 20, `${beta.agent.inspect().candidates} candidates`);
  assert.equal(beta.stage, "verified");
});

Deno.test("[1.2d] a bad row in a handoff does not keep a newcomer out", () => {
  const { world, alpha } = network();
  const beta = world.add("beta");
  join(beta, invite(alpha).token);
  const gamma = world.add("gamma");
  const good = alpha.member(beta)!;
  let spoilt = 0;
  alpha.intercept = (method, body) => {
    if (method !== "join.register") return undefined;
    const answer = alpha.called(alpha.view(gamma, "inbound"), method, body);
    if (!answer?.ok) return answer;
    spoilt += 1;
    const row = {
      m: { ...envelopeValue(good.recordEnvelope) as object, s: new Uint8Array(64) },
      c: envelopeValue(good.credentialEnvelope),
    };
    return { ok: true, body: { ...answer.body as object, ms: [row] } as CborValue };
  };
  join(gamma, invite(alpha).token);
  world.run(90_000);
  assert.equal(spoilt, 1);
  assert.equal(gamma.stage, "verified", "at the first try");
  assert.ok(gamma.member(beta), "the row comes by digest");
  gamma.kill();
  gamma.boot();
  assert.ok(gamma.isMember, "what was handed over is stored");
});

Deno.test("[2.1e] more than 64 epochs: joining, restarting and coming back still work", () => {
  const { world, alpha, others } = issuers("beta", "gamma");
  const [beta, gamma] = others as [Node, Node];
  const away = world.add("away");
  join(away, invite(alpha).token);
  assert.equal(away.stage, "verified");
  away.kill();
  for (let i = 0; i < 33; i++) {
    alpha.ask({ verb: "authority-recover", without: ["gamma"] });
    world.run(12_000);
    assert.equal(beta.epoch, alpha.epoch, "the next one brings it back by itself");
  }
  world.run(60_000);
  assert.ok(alpha.epoch > 64, `${alpha.epoch} epochs`);
  const zeta = world.add("zeta");
  join(zeta, invite(beta).token);
  assert.equal(zeta.stage, "verified");
  assert.equal(zeta.epoch, alpha.epoch);
  // Everybody was asleep for long.
  world.nowMs += 12 * DAY_MS;
  world.run(60_000);
  away.boot();
  world.run(10 * 60_000);
  assert.equal(away.stage, "verified", "after ten lifetimes and seventy epochs");
  assert.equal(away.epoch, alpha.epoch);
  gamma.kill();
  gamma.boot();
  world.run(60_000);
  assert.equal(gamma.stage, "verified");
});

Deno.test("[1.3d] rows of the store that cannot be read do not stop the start", () => {
  const { world, alpha } = network();
  const beta = world.add("beta");
  join(beta, invite(alpha).token);
  invite(alpha);
  alpha.control({ verb: "assign", node: "alpha", id: "web", service: "web", action: "run" });
  world.run(1_000);
  alpha.kill();
  const kinds = [`member/${beta.id}`, "grant/", "assignment/", "use/"].map((prefix) => {
    const key = [...alpha.store.keys()].find((one) => one.startsWith(prefix));
    assert.ok(key, prefix);
    return key;
  });
  for (const key of kinds.slice(0, 3)) alpha.store.set(key, utf8("\u0000not what was written"));
  alpha.store.set(`pending/${nodeIdOf(THIEF.publicKey)}`, new Uint8Array([0xff]));
  alpha.store.set("nonce/00", new Uint8Array(0));
  alpha.boot();
  world.run(5 * 60_000);
  assert.equal(alpha.stage, "verified");
  assert.equal(alpha.lines(/^store-unreadable 5 entries/).length, 1);
  assert.ok(alpha.member(beta), "what was lost is heard again");
});

Deno.test("[1.4d] [10.5e] a remote command counts once, over a restart as well", () => {
  const { world, alpha } = network();
  const beta = world.add("beta");
  join(beta, invite(alpha).token);
  const { body } = alpha.ask<{ body: Uint8Array }>({
    verb: "sign-command",
    node: "beta",
    command: "ping",
    args: {},
    ttlMs: 300_000,
  });
  const send = () => beta.called(beta.view(alpha, "inbound"), "exec", body);
  assert.equal(send()?.ok, true);
  const again = send();
  assert.ok(again && !again.ok && again.code === "command-replayed");
  beta.kill();
  beta.boot();
  world.run(20_000);
  const later = send();
  assert.ok(later && !later.ok && later.code === "command-replayed");
  assert.equal(beta.lines(/^RUN ping/).length, 1);
  world.run(10 * 60_000);
  const expired = send();
  assert.ok(expired && !expired.ok && expired.code === "command-expired");
  // What it remembers for that does not pile up.
  const fresh = alpha.ask<{ body: Uint8Array }>({
    verb: "sign-command",
    node: "beta",
    command: "ping",
    args: {},
    ttlMs: 1_000,
  });
  assert.equal(beta.called(beta.view(alpha, "inbound"), "exec", fresh.body)?.ok, true);
  assert.equal([...beta.store.keys()].filter((key) => key.startsWith("nonce/")).length, 1);
});

Deno.test("[2.1d] an epoch of one network, and a signature made in it, mean nothing in another", () => {
  const { alpha } = network();
  const other = new World();
  const founder = other.add("founder");
  founder.ask({ verb: "init", name: "forest", approval: false });
  const stored = [...founder.store].filter(([key]) => key.startsWith("epoch/")).map(([, value]) =>
    decodeAs(value, readSignedEpoch)
  );
  const { chain } = alpha.agent.inspect().state.network!;
  assert.throws(() => chain!.merged(stored));
  assert.throws(() => AuthorityChain.empty(alpha.networkId, chain!.genesisKey).merged(stored));
  assert.notEqual(toHex(alpha.networkId), toHex(founder.networkId));
  const grant = decodeAs([...founder.store].find(([key]) => key.startsWith("genesis"))![1], readEnvelope);
  assert.ok(grant);
  const mine = decodeAs(alpha.store.get("epoch/00001")!, readSignedEpoch);
  const payload = encodeEpoch({
    ...decodeEpoch(mine.payload),
    epoch: 2,
    previous: epochHash(mine.payload),
    issuers: [THIEF.publicKey],
  });
  const signed = { payload, signatures: [signEpoch(founder.networkId, payload, alpha.keyPair)] };
  assert.throws(() => chain!.extended(signed), /signed by 0 of 1/, "a signature made in one network");
  assert.ok(encodeCbor({}).length > 0);
});

Deno.test("[10.5e] who holds an invite does not fill the disk with refusals", () => {
  const { world, alpha } = network();
  const given = invite(alpha);
  join(world.add("beta"), given.token);
  const mallory = world.add("mallory");
  mallory.control({ verb: "join", invite: given.token });
  // Each time as a fresh attempt: the registrar's answer is what slows an honest node down.
  for (let i = 0; i < 120; i++) {
    mallory.control({ verb: "bootstrap-retry" });
    world.run(50);
  }
  const audited = alpha.lines(/^AUDIT join-refused/).length;
  assert.ok(alpha.lines(/^REFUSED invite-used-up/).length > 40, "each is counted");
  assert.ok(audited >= 30 && audited <= 31, `${audited} entries`);
  assert.equal(alpha.lines(/only counted$/).length, 1);
});

Deno.test("invites that ran out long ago, and who used them, are forgotten", () => {
  const { world, alpha } = network();
  for (let i = 0; i < 20; i++) invite(alpha);
  const given = invite(alpha);
  join(world.add("beta"), given.token);
  const kept = () => [...alpha.store.keys()].filter((key) => /^(grant|use)\//.test(key)).length;
  assert.equal(kept(), 22);
  world.nowMs += 20 * DAY_MS;
  world.run(2 * HOUR_MS);
  assert.equal(kept(), 22);
  world.nowMs += 20 * DAY_MS;
  world.run(2 * HOUR_MS);
  assert.equal(kept(), 0);
  const late = world.add("late");
  join(late, given.token);
  assert.equal(late.isMember, false, "it does not count again");
});

Deno.test("[2.1e] a removal that cannot be kept is refused, not said to be done", () => {
  const { world, alpha } = network();
  const beta = world.add("beta");
  join(beta, invite(alpha).token);
  const { revocations } = alpha.agent.inspect().state;
  for (let i = 0; revocations.size < LIMITS.revocationsMax; i++) {
    const subject = sha256(utf8(`invite ${i}`)).slice(0, 16);
    const one = { kind: "invite", subject, reason: "", atMs: world.nowMs } as const;
    revocations.add(one, createRevocation(one, alpha.networkId, alpha.keyPair));
  }
  const result = alpha.control({ verb: "node-remove", node: "beta" });
  assert.ok(!result.ok && result.error.code === "full");
  assert.equal(alpha.lines(/^AUDIT node-removed/).length, 0);
});
