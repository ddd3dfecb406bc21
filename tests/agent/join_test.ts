import assert from "node:assert/strict";
import { LIMITS } from "../../src/core/limits.ts";
import { decodeCbor } from "../../src/core/codec.ts";
import { toHex } from "../../src/core/bytes.ts";
import { proveFactor } from "../../src/identity/join_proof.ts";
import { registerHash } from "../../src/agent/registrar.ts";
import { workOf } from "../../src/bootstrap/capability_check.ts";
import { SERVER } from "../sim/world.ts";
import { Net, Newcomer, outcome } from "./kit.ts";

const DAY_MS = 86_400_000;

Deno.test("[1.2a] a node alone is a whole network: verified at once, its own issuer, ready", () => {
  const { world, founder } = new Net(1);
  const status = world.status(founder);
  assert.equal(status.bootstrap.stage, "verified");
  assert.deepEqual(status.network!.authority, { epoch: 1, issuers: [founder.nodeId], threshold: 1 });
  assert.equal(status.health.ready, true);
  assert.equal(status.tolerance.members, 1);
  assert.equal(status.tolerance.crashFaults, 0);
  assert.match(status.tolerance.note, /f = 0/);
  const again = world.control(founder, { verb: "init", name: "other", approval: false });
  assert.equal(again.ok ? "" : again.error.code, "has-network");
});

Deno.test("[1.2a] [1.2b] [1.2d] [1.2e] a newcomer joins: credential, profile, issuers and members are handed over, and it is seen", () => {
  const net = new Net(2);
  const beta = net.join("beta");
  const took = net.verified(net.join("gamma"));
  const gamma = net.world.hosts[2]!;
  net.meshed(net.founder, beta, gamma);
  assert.ok(took < 5_000);
  for (const host of [beta, gamma]) {
    const { state } = host.view;
    assert.equal(state.network!.credential!.credential.role, "rhizomorph");
    assert.deepEqual(state.network!.credential!.envelope.signer, net.founder.view.state.keyPair.publicKey);
    assert.equal(state.network!.profile!.profile.name, "forest");
    assert.equal(state.members.size, 3);
    assert.equal(state.invite, undefined, "the invite is forgotten once it is used");
    assert.ok(host.disk.has("credential") && host.disk.has("genesis") && !host.disk.has("secret/invite"));
    const stages = net.world.status(host).bootstrap.timeline.map((one) => one.stage);
    assert.deepEqual(stages.slice(-4), ["registering", "handoff", "verifying", "verified"]);
  }
  // The profile that came with the handoff is signed by an issuer, and one more member than the registrar sees gamma.
  assert.ok(beta.view.sessions.get(gamma.nodeId)?.member);
});

Deno.test("[1.2a] addresses that a newcomer has only since its registration are told as well", () => {
  // An answer is quicker here than the sockets are bound.
  const net = new Net(12, { latencyMs: { min: 1, max: 1 }, lan: false });
  const hosts = [net.founder, net.join("beta"), net.join("gamma")];
  net.meshed(...hosts);
  for (const host of hosts.slice(1)) assert.equal(host.view.state.self!.record.addresses.length, 1, host.name);
});

Deno.test("[1.3d] a registrar that dies during a registration and comes back is asked again as soon as it may be", () => {
  for (let seed = 1; seed <= 20; seed++) {
    const net = new Net(seed);
    const { world, founder } = net;
    const beta = net.start("beta", net.invite());
    world.until("registers", () => beta.view.stage === "registering");
    // Nobody says that the process is gone: the call has to run into its timeout, ten seconds.
    world.crash(founder, true);
    world.boot(founder);
    assert.ok(net.verified(beta) < 13_000, `seed ${seed}: the address waits for half a second, and for nothing else`);
  }
});

Deno.test("[1.2e] a node that no member sees is not verified", () => {
  const net = new Net(3);
  net.world.onMessage = (one) => one.method === "seen" ? "drop" : "pass";
  const beta = net.start("beta", net.invite());
  net.failing(beta, "not-seen");
  assert.notEqual(beta.view.stage, "verified");
  net.world.onMessage = undefined;
  net.verified(beta);
});

Deno.test("[1.2d] [1.3c] approval: the newcomer waits, an operator approves, it goes on", () => {
  const net = new Net(4);
  const beta = net.start("beta", net.invite({ approval: true }));
  net.world.until("beta waits", () => beta.view.stage === "awaiting-approval");
  const waiting = net.world.status(beta).bootstrap.waitingFor[0]!;
  assert.equal(waiting.code, "operator-approval");
  assert.match(waiting.what, /mycelium node approve/);
  net.world.run(60_000);
  assert.equal(beta.view.stage, "awaiting-approval", "it waits for as long as it takes");
  assert.deepEqual(net.world.status(net.founder).pending.map((one) => one.name), ["beta"]);
  net.world.ask(net.founder, { verb: "node-approve", node: "beta" });
  const took = net.world.until("beta is in", () => beta.view.stage === "verified");
  assert.ok(took <= 12_000, `${took} ms`);
  assert.equal(net.founder.view.state.pending.size, 0);
});

Deno.test("[1.2d] approval by the network's profile holds for every invite", () => {
  const net = new Net(5, { approval: true });
  const beta = net.start("beta", net.invite({ approval: false }));
  net.world.until("beta waits", () => beta.view.stage === "awaiting-approval");
});

Deno.test("[1.2d] [1.3b] denied: the newcomer says so and hardly asks any more; an approval later lets it in", () => {
  const net = new Net(6);
  const beta = net.start("beta", net.invite({ approval: true }));
  net.world.until("beta waits", () => beta.view.stage === "awaiting-approval");
  net.world.ask(net.founder, { verb: "node-deny", node: "beta", reason: "not ours" });
  net.failing(beta, "approval-denied");
  assert.equal(beta.view.stage, "isolated");
  assert.match(net.world.status(beta).bootstrap.failures.at(-1)!.cure, /operator/);
  const before = net.founder.refused.get("approval-denied") ?? 0;
  net.world.run(600_000);
  const asked = (net.founder.refused.get("approval-denied") ?? 0) - before;
  assert.ok(asked >= 1 && asked <= 20, `asked ${asked} times in ten minutes`);
  net.world.ask(net.founder, { verb: "node-approve", node: "beta" });
  net.world.ask(beta, { verb: "bootstrap-retry" });
  net.verified(beta);
});

Deno.test("[1.2d] the registrar restarts while a newcomer waits: the decision is kept on disk", () => {
  const net = new Net(7);
  const beta = net.start("beta", net.invite({ approval: true }));
  net.world.until("beta waits", () => beta.view.stage === "awaiting-approval");
  net.world.ask(net.founder, { verb: "node-approve", node: "beta" });
  net.world.restart(net.founder);
  net.verified(beta);
});

Deno.test("[1.3d] a newcomer that is killed while it waits goes on waiting after its restart", () => {
  const net = new Net(8, { lan: false });
  const beta = net.start("beta", net.invite({ approval: true }));
  net.world.until("beta waits", () => beta.view.stage === "awaiting-approval");
  net.world.restart(beta);
  net.world.until("beta waits again", () => beta.view.stage === "awaiting-approval");
  net.world.ask(net.founder, { verb: "node-approve", node: "beta" });
  net.verified(beta);
});

Deno.test("[1.2a] a member that is no issuer sends a newcomer to one", () => {
  const net = new Net(9, { lan: false });
  const beta = net.join("beta");
  const invite = net.invite();
  // The newcomer reaches beta only, at first.
  const gamma = net.world.boot(net.host("gamma"));
  net.world.cut([gamma], [net.founder]);
  net.world.ask(gamma, { verb: "join", invite: invite.token });
  net.world.ask(gamma, {
    verb: "bootstrap-force-endpoint",
    address: `/ip4/${beta.ip}/udp/4871/quic-v1/p2p/${beta.nodeId}`,
  });
  net.failing(gamma, "not-issuer");
  net.world.heal();
  net.verified(gamma);
  assert.equal(outcome(new Newcomer(net, "delta", invite).call(beta, "join.register", {})), "bad-request");
  const stranger = new Newcomer(net, "epsilon", invite);
  assert.equal(outcome(stranger.send(beta, stranger.registration(stranger.hello(beta)))), "not-issuer");
});

Deno.test("[1.2a] another issuer sends a newcomer to the one that gave the invite while that one is there", () => {
  const net = new Net(10);
  const beta = net.join("beta", { as: "sclerotium" });
  net.world.until("beta issues", () => beta.view.state.isIssuer);
  const invite = net.invite();
  const newcomer = new Newcomer(net, "gamma", invite);
  assert.equal(outcome(newcomer.register(beta)), "redirect");
  assert.equal(net.founder.view.state.members.get(newcomer.puppet.nodeId), undefined);
  net.world.crash(net.founder);
  net.world.until("beta notices", () => !beta.view.sessions.has(net.founder.nodeId));
  assert.equal(outcome(newcomer.register(beta)), "accepted", "and admits it itself when it is gone");
});

Deno.test("[2.1b] an invite is good for as many machines as it says, also for those that come at the same moment", () => {
  const net = new Net(11);
  const invite = net.invite({ uses: 2 });
  const hosts = ["b", "c", "d", "e"].map((name) => net.start(name, invite));
  net.world.run(120_000);
  assert.equal(hosts.filter((one) => one.view.stage === "verified").length, 2);
  for (const host of hosts.filter((one) => one.view.stage !== "verified")) {
    assert.equal(net.lastFailure(host), "invite-used-up");
  }
  const status = net.world.status(net.founder).invites.find((one) => one.id === invite.id)!;
  assert.deepEqual([status.state, status.usesLeft, status.usedBy.length], ["used-up", 0, 2]);
});

Deno.test("[2.1b] [1.3b] an invite that is expired, revoked, unknown or of another network is refused by name", () => {
  const net = new Net(12);
  const [old, revoked, forgotten] = [net.invite({ ttlMs: 60_000 }), net.invite(), net.invite()];
  net.world.ask(net.founder, { verb: "invite-revoke", id: revoked.id });
  net.world.run(61_000);
  assert.equal(outcome(new Newcomer(net, "b", old).register(net.founder)), "invite-expired");
  assert.equal(outcome(new Newcomer(net, "c", revoked).register(net.founder)), "invite-revoked");
  const beta = net.start("beta", revoked);
  net.failing(beta, "invite-revoked");
  // An invite of another network: the grant is not of this one, whatever else fits.
  const other = new Net(13);
  const foreign = new Newcomer(other, "d", other.invite());
  const here = new Newcomer(net, "d2", forgotten);
  const transcript = here.hello(net.founder);
  const request = { g: foreign.invite.grantEnvelope, m: here.record(), w: workOf(transcript.registrarNonce) };
  const whole = { ...transcript, requestHash: registerHash(request) };
  const answer = here.send(net.founder, {
    n: transcript.registrarNonce,
    ...request,
    pn: proveFactor("node", whole, here.key),
    pi: proveFactor("invite", whole, foreign.invite.keyPair),
  });
  assert.equal(outcome(answer), "invite-unknown");
  assert.deepEqual(
    ["b", "c", "d2"].map((name) => net.founder.view.state.members.all().some((m) => m.record.name === name)),
    [
      false,
      false,
      false,
    ],
  );
});

Deno.test("[2.1a] [2.1d] a newcomer never takes another network's node for its own", () => {
  const net = new Net(14, { lan: false });
  const invite = net.invite();
  const stranger = net.world.boot(net.host("stranger"));
  net.world.ask(stranger, { verb: "init", name: "forest", approval: false });
  const beta = net.world.boot(net.host("beta"));
  net.world.cut([beta], [net.founder]);
  net.world.ask(beta, { verb: "join", invite: invite.token });
  net.world.ask(beta, {
    verb: "bootstrap-force-endpoint",
    address: `/ip4/${stranger.ip}/udp/4871/quic-v1/p2p/${stranger.nodeId}`,
  });
  net.failing(beta, "foreign-network");
  assert.equal(stranger.view.state.members.size, 1);
  net.world.heal();
  net.verified(beta);
});

Deno.test("[2.1b] [2.1c] a registration is good once, for one node, on one channel, at one registrar", () => {
  const net = new Net(15);
  const beta = net.join("beta", { as: "sclerotium" });
  net.world.until("beta issues", () => beta.view.state.isIssuer);
  const invite = net.invite({ uses: 5 });
  const honest = new Newcomer(net, "honest", invite);
  const thief = new Newcomer(net, "thief", invite);
  const registration = honest.registration(honest.hello(net.founder));
  // Captured on its way and sent by another node first.
  assert.equal(outcome(thief.send(net.founder, registration)), "replayed");
  // It is used up by that, so that the honest node asks again, which is what an agent does.
  assert.equal(outcome(honest.send(net.founder, registration)), "replayed");
  const second = honest.registration(honest.hello(net.founder));
  assert.equal(outcome(honest.send(net.founder, second)), "accepted");
  assert.equal(outcome(honest.send(net.founder, second)), "replayed", "the same bytes twice");
  assert.equal(outcome(honest.send(beta, second)), "replayed", "another registrar");
  // The thief's own challenge does not fit the honest node's proofs either.
  const own = thief.hello(net.founder);
  assert.equal(outcome(thief.send(net.founder, { ...second, n: own.registrarNonce })), "proof-invalid");
  // Another channel of the same node: its binding differs.
  const late = new Newcomer(net, "late", invite);
  const transcript = late.hello(net.founder);
  const elsewhere = { ...transcript, channelBinding: new Uint8Array(32).fill(7) };
  assert.equal(outcome(late.send(net.founder, late.registration(elsewhere))), "proof-invalid");
  // A challenge runs out.
  const slow = late.registration(late.hello(net.founder));
  net.world.run(61_000);
  assert.equal(outcome(late.send(net.founder, slow)), "replayed");
  assert.equal(net.founder.view.state.members.get(thief.puppet.nodeId), undefined);
  assert.equal(net.founder.view.state.members.get(late.puppet.nodeId), undefined);
});

Deno.test("[2.1b] every field of a registration is under its proofs: a change of any bit is refused", () => {
  const net = new Net(16);
  // So many tries are an incident: its rules are shown elsewhere.
  const settings = { dryRun: true, rules: [] };
  net.world.dispatch(net.founder, { type: "incident-settings", nowMs: net.world.nowMs, settings });
  const invite = net.invite({ uses: 50 });
  const other = net.invite({ uses: 50 });
  const newcomer = new Newcomer(net, "honest", invite);
  const flip = (bytes: Uint8Array, at = 0) => bytes.map((byte, i) => i === at ? byte ^ 1 : byte);
  const tamper: { readonly [field: string]: (r: ReturnType<Newcomer["registration"]>) => object } = {
    n: (r) => ({ n: flip(r.n) }),
    "g payload": (r) => ({ g: { ...r.g, payload: flip(r.g.payload, r.g.payload.length - 1) } }),
    "g signature": (r) => ({ g: { ...r.g, signature: flip(r.g.signature) } }),
    "g of another invite": () => ({ g: new Newcomer(net, "other", other).invite.grantEnvelope }),
    "m payload": (r) => ({ m: { ...r.m, payload: flip(r.m.payload, 40) } }),
    "m signature": (r) => ({ m: { ...r.m, signature: flip(r.m.signature) } }),
    "m type": (r) => ({ m: { ...r.m, type: "member/2" } }),
    "m signer": (r) => ({ m: { ...r.m, signer: net.founder.view.state.keyPair.publicKey } }),
    "m another record": () => ({ m: newcomer.record({ name: "other" }) }),
    w: (r) => ({ w: flip(r.w) }),
    pn: (r) => ({ pn: flip(r.pn) }),
    pi: (r) => ({ pi: flip(r.pi) }),
    "pn and pi swapped": (r) => ({ pn: r.pi, pi: r.pn }),
  };
  for (const [field, change] of Object.entries(tamper)) {
    const good = newcomer.registration(newcomer.hello(net.founder));
    const answer = newcomer.send(net.founder, { ...good, ...change(good) });
    assert.ok(
      ["proof-invalid", "replayed", "invite-unknown", "bad-request"].includes(outcome(answer)),
      `${field}: ${outcome(answer)}`,
    );
    assert.equal(net.founder.view.state.members.get(newcomer.puppet.nodeId), undefined, field);
  }
  assert.equal(outcome(newcomer.register(net.founder)), "accepted", "and untouched it is accepted");
});

Deno.test("[1.2c] adverts that no machine can have are refused, whatever the newcomer proves", () => {
  const net = new Net(17);
  const invite = net.invite({ uses: 50 });
  const lies: { readonly [what: string]: Partial<typeof SERVER> } = {
    "1 billion hashes a second": { hashesPerSecond: 1_000_000_000 },
    "no hashes": { hashesPerSecond: 10 },
    "no processor": { cpus: 0 },
    "a million processors": { cpus: 1_000_000 },
    "1 EiB of memory": { memoryBytes: 2 ** 52 },
    "1 MiB of memory": { memoryBytes: 2 ** 20 },
    "an endless disk": { diskBytes: 2 ** 53 - 1, diskFreeBytes: 1 },
    "more free than there is": { diskFreeBytes: 2 ** 45 },
    "4096 processors with 4 GiB": { cpus: 4_096, memoryBytes: 4 * 2 ** 30 },
    "a foreign architecture": { arch: "mips" },
  };
  for (const [what, can] of Object.entries(lies)) {
    const newcomer = new Newcomer(net, `liar-${Object.keys(lies).indexOf(what)}`, invite);
    assert.equal(outcome(newcomer.register(net.founder, { can, role: "hypha" })), "capability-implausible", what);
    assert.equal(net.founder.view.state.members.get(newcomer.puppet.nodeId), undefined, what);
  }
  assert.equal(outcome(new Newcomer(net, "honest", invite).register(net.founder)), "accepted");
});

Deno.test("[1.2c] the timed hash chain: wrong, too slow for the claim, too fast for the claim", () => {
  const net = new Net(18);
  const invite = net.invite({ uses: 50 });
  const wrong = new Newcomer(net, "wrong", invite);
  const good = wrong.registration(wrong.hello(net.founder));
  // The right proofs over a wrong chain.
  const transcript = wrong.hello(net.founder);
  const request = { g: good.g, m: good.m, w: new Uint8Array(32) };
  const whole = { ...transcript, requestHash: registerHash(request) };
  const forged = {
    n: transcript.registrarNonce,
    ...request,
    pn: proveFactor("node", whole, wrong.key),
    pi: proveFactor("invite", whole, wrong.invite.keyPair),
  };
  assert.equal(outcome(wrong.send(net.founder, forged)), "capability-implausible");
  // 50 million a second are claimed, and 4096 take six seconds.
  const slow = new Newcomer(net, "slow", invite);
  const late = slow.registration(slow.hello(net.founder), { can: { hashesPerSecond: 50_000_000 } });
  net.world.run(6_000);
  assert.equal(outcome(slow.send(net.founder, late)), "capability-implausible");
  // 2000 a second are claimed, which is two seconds, and the answer is there at once: it is a stronger machine.
  const fast = new Newcomer(net, "fast", invite);
  const early = fast.register(net.founder, { can: { hashesPerSecond: 2_000 } });
  assert.equal(outcome(early), "capability-implausible");
});

Deno.test("[1.2c] roles: an agent whose figures are lies keeps its reason; the invite bounds the role", () => {
  const net = new Net(19);
  const liar = net.start("liar", net.invite(), { capabilities: { hashesPerSecond: 1_000_000_000 } });
  net.failing(liar, "capability-implausible");
  assert.equal(liar.view.stage, "isolated");
  // A small machine with an invite for servers is refused the role.
  const small = net.start("small", net.invite({ role: "sclerotium" }), {
    role: "sclerotium",
    capabilities: { memoryBytes: 2 ** 29, diskBytes: 2 ** 33, diskFreeBytes: 2 ** 32 },
  });
  net.failing(small, "capability-implausible");
  // A server without an invite for servers becomes an ordinary machine.
  const server = net.join("server", { role: "sclerotium" });
  assert.equal(server.view.state.network!.credential!.credential.role, "rhizomorph");
  // An invite for Hyphae makes a Hypha of a server.
  const hypha = net.join("hypha", { invite: net.invite({ role: "hypha" }) });
  assert.equal(hypha.view.state.network!.credential!.credential.role, "hypha");
  // A server with the right invite that would rather be an ordinary machine gets its wish.
  const modest = net.join("modest", { invite: net.invite({ role: "sclerotium" }), role: "rhizomorph" });
  assert.equal(modest.view.state.network!.credential!.credential.role, "rhizomorph");
  const status = net.world.status(modest);
  assert.equal(status.node.role, "rhizomorph");
});

Deno.test("[1.2a] two machines of one name: the second gets a name of its own, for good", () => {
  const net = new Net(20);
  const first = net.join("twin");
  const second = net.join("twin");
  assert.equal(first.view.state.self!.membership.name, "twin");
  const name = second.view.state.self!.membership.name;
  assert.match(name, /^twin-[0-9a-f]{6}$/);
  net.world.restart(second);
  net.verified(second);
  net.world.run(3 * net.lifetimeMs);
  assert.equal(second.view.state.self!.membership.name, name, "renewal keeps it");
  assert.equal(new Set(net.world.status(net.founder).members.map((one) => one.name)).size, 3);
  const long = net.join("a".repeat(63));
  const longer = net.join("a".repeat(63));
  assert.equal(long.view.state.self!.membership.name.length, 63);
  assert.ok(longer.view.state.self!.membership.name.length <= LIMITS.nameCharsMax);
});

Deno.test("[1.2a] [1.3d] the answer to a registration is lost: asking again is no second use", () => {
  const net = new Net(21);
  const invite = net.invite({ uses: 1 });
  let lost = 0;
  net.world.onMessage = (one) =>
    one.method === "join.register" && one.kind === "answer" && lost++ < 2 ? "drop" : "pass";
  const beta = net.start("beta", invite);
  net.verified(beta);
  assert.ok(lost >= 2);
  assert.equal(net.founder.view.state.members.size, 2);
  assert.equal(net.world.status(net.founder).invites.find((one) => one.id === invite.id)!.usesLeft, 0);
});

Deno.test("[1.3d] the registrar dies at any moment of a join: afterwards the join is whole, and counted once", () => {
  for (let after = 0; after < 24; after++) {
    const net = new Net(100 + after, { lan: after % 2 === 0 });
    const invite = net.invite({ uses: 1 });
    net.checkers.issuersParted = false;
    net.founder.diesAfter = after;
    const beta = net.start("beta", invite);
    net.world.run(3_000);
    if (!net.founder.agent) net.world.boot(net.founder);
    net.founder.diesAfter = undefined;
    net.world.until(`beta is in (${after})`, () => beta.view.stage === "verified", 120_000);
    net.meshed(net.founder, beta);
    assert.equal(net.founder.view.state.members.size, 2);
  }
});

Deno.test("[1.3d] kill -9 of the newcomer at any moment of a join: it goes on where it was", () => {
  const left = new Set<string>();
  for (let after = 1; after < 60; after += 2) {
    const net = new Net(200 + after, { lan: after % 3 === 0 });
    const invite = net.invite({ uses: 1 });
    const beta = net.world.boot(net.host("beta"));
    net.world.run(100);
    net.world.ask(beta, { verb: "join", invite: invite.token });
    beta.diesAfter = after;
    net.world.run(3_000);
    const stored = beta.disk.get("stage");
    left.add(stored ? String(decodeCbor(stored)) : "none");
    if (!beta.agent) net.world.boot(beta);
    beta.diesAfter = undefined;
    net.world.until(`beta is in (${after})`, () => beta.view.stage === "verified", 120_000);
    net.meshed(net.founder, beta);
    assert.equal(net.founder.view.state.members.size, 2);
  }
  assert.ok(left.size >= 4, `it was killed in different stages: ${[...left]}`);
});

Deno.test("[1.3c] reset forgets the network and keeps the key; with a new invite the machine comes back", () => {
  const net = new Net(22);
  const beta = net.join("beta");
  const id = beta.nodeId;
  const dry = net.world.ask<{ reset: boolean }>(beta, { verb: "bootstrap-reset", dryRun: true });
  assert.equal(dry.reset, false);
  assert.equal(beta.view.stage, "verified");
  net.world.ask(beta, { verb: "bootstrap-reset" });
  assert.equal(beta.view.stage, "idle");
  assert.deepEqual([...beta.disk.keys()].filter((key) => !["secret/node.key", "self", "stage"].includes(key)), []);
  net.world.ask(beta, { verb: "join", invite: net.invite().token });
  net.verified(beta);
  assert.equal(beta.nodeId, id);
  net.meshed(net.founder, beta);
});

Deno.test("[1.1e] [1.3c] no source names any node: isolated, for ever at a bounded rate, until an operator forces an endpoint", () => {
  const net = new Net(23, { lan: false });
  const beta = net.world.boot(net.host("beta"));
  const invite = net.invite();
  net.world.cut([beta], [net.founder]);
  net.world.ask(beta, { verb: "join", invite: invite.token });
  net.world.until("beta is isolated", () => beta.view.stage === "isolated", 120_000);
  const before = net.world.steps;
  net.world.run(2 * 3_600_000);
  assert.ok((net.world.steps - before) / 7_200 < 3, "bounded rate");
  assert.ok(["unreachable", "timeout", "no-candidates"].includes(net.lastFailure(beta)!));
  net.world.heal();
  net.world.ask(beta, {
    verb: "bootstrap-force-endpoint",
    address: `/ip4/${net.founder.ip}/udp/4871/quic-v1/p2p/${net.founder.nodeId}`,
  });
  assert.ok(net.verified(beta) < 10_000);
});

Deno.test("[2.1b] an impostor that answers at the invite's address learns nothing and admits nobody", () => {
  const net = new Net(24, { lan: false });
  const invite = net.invite();
  const genuine = new Newcomer(net, "mallory", net.invite());
  // Mallory is a member with a valid credential, but no issuer; then a stranger who replays the founder's hello.
  const replayed: Uint8Array[] = [];
  net.world.onMessage = (one) => {
    if (one.kind === "answer" && one.method === "join.hello") replayed.push(one.body);
    return "pass";
  };
  net.join("beta");
  net.world.onMessage = undefined;
  assert.equal(outcome(genuine.register(net.founder)), "accepted");
  const seen: string[] = [];
  genuine.puppet.serve = (method) => {
    seen.push(method);
    return replayed[0]!;
  };
  const gamma = net.world.boot(net.host("gamma"));
  net.world.cut([gamma], [net.founder]);
  net.world.ask(gamma, { verb: "join", invite: invite.token });
  net.world.ask(gamma, {
    verb: "bootstrap-force-endpoint",
    address: `/ip4/${genuine.puppet.ip}/udp/4871/quic-v1/p2p/${genuine.puppet.nodeId}`,
  });
  net.failing(gamma, "not-a-member");
  assert.deepEqual([...new Set(seen)], ["join.hello"], "no registration, no proof, is sent to it");
  assert.equal(gamma.view.state.network!.credential, undefined);
  net.world.heal();
  net.verified(gamma);
  assert.equal(
    toHex(gamma.view.state.network!.credential!.envelope.signer),
    toHex(net.founder.view.state.keyPair.publicKey),
  );
});

Deno.test("[1.2a] a clock that is wrong by more than five minutes is named as the cause", () => {
  const net = new Net(25);
  const beta = net.start("beta", net.invite(), { clockOffsetMs: 20 * 60_000 });
  net.failing(beta, "clock-skew");
  const gamma = net.start("gamma", net.invite({ ttlMs: 30 * DAY_MS }), { clockOffsetMs: -20 * 60_000 });
  net.failing(gamma, "clock-skew");
});
