/** Incidents in whole agents: who guesses is held up and shut out, who does not is left alone; people respond; logs are watched. */

import assert from "node:assert/strict";
import type { AuditHead } from "../../src/access/audit.ts";
import fc from "fast-check";
import { auditWord, contradiction, readAuditWord } from "../../src/agent/audit_heads.ts";
import { type CborValue, decodeCbor, encodeCbor, WireError } from "../../src/core/codec.ts";
import { seededRng } from "../../src/core/rng.ts";
import { commandBody, sealCommand } from "../../src/agent/commands.ts";
import { Context } from "../../src/agent/context.ts";
import { IncidentKeeper, type IncidentView } from "../../src/agent/incidents.ts";
import type { Answer, Host } from "../sim/world.ts";
import { Net, Newcomer, registrationValue } from "./kit.ts";

const codeOf = (answer: Answer): string => answer.ok ? "ok" : answer.code;

function incidents(net: Net, host: Host, all = false): readonly IncidentView[] {
  return net.world.ask(host, { verb: "incident-list", all });
}

/** Tries an invite with a secret that is not in it, as fast as it is let. */
function guess(net: Net, thief: Newcomer): string {
  const hello = thief.call(net.founder, "join.hello", { v: 1, n: new Uint8Array(32) });
  if (!hello.ok) return hello.code;
  // The answer is to its own nonce: the proofs fit as little as the invite's.
  const { n } = decodeCbor((hello as { readonly body: Uint8Array }).body) as unknown as { readonly n: Uint8Array };
  const good = thief.registration({
    networkId: thief.invite.networkId,
    registrarKey: net.founder.view.state.keyPair.publicKey,
    joinerKey: thief.key.publicKey,
    registrarNonce: n,
    joinerNonce: new Uint8Array(32),
    channelBinding: new Uint8Array(0),
    requestHash: new Uint8Array(32),
  });
  return codeOf(thief.call(net.founder, "join.register", registrationValue({ ...good, pi: good.pn })));
}

Deno.test("[2.4e] a node that guesses invites is throttled, then quarantined, for a time; honest nodes are not", () => {
  const net = new Net(901);
  const settings = { dryRun: false, rules: [{ rule: "invite-guessing", holdMs: 600_000 }] };
  net.world.dispatch(net.founder, { type: "incident-settings", nowMs: net.world.nowMs, settings });
  const invite = net.invite({ uses: 50 });
  const honest = net.join("honest", { invite });
  const thief = new Newcomer(net, "thief", invite);
  const codes: string[] = [];
  for (let i = 0; i < 6; i++) codes.push(guess(net, thief));
  assert.ok(codes.includes("proof-invalid"));
  const [throttled] = incidents(net, net.founder);
  assert.deepEqual(
    [throttled?.rule, throttled?.subject, throttled?.state],
    ["invite-guessing", `node:${thief.puppet.nodeId}`, "open"],
  );
  assert.deepEqual(throttled?.measures.map((one) => one.response), ["throttle"]);
  // It goes on, and is let through a few times only.
  let tried = 0;
  let refused = 0;
  while (tried < 400 && !incidents(net, net.founder)[0]!.measures.some((one) => one.response === "quarantine")) {
    if (guess(net, thief) === "throttled") refused += 1;
    tried += 1;
    net.world.run(1_000);
  }
  assert.ok(refused > tried / 2, `${refused} of ${tried} tries were held up`);
  const [found] = incidents(net, net.founder);
  assert.deepEqual(found?.measures.map((one) => one.response), ["throttle", "quarantine"]);
  // Its channel is closed, and one that it opens anew is of no use.
  net.world.run(100);
  assert.equal(net.founder.view.sessions.has(thief.puppet.nodeId), false);
  assert.equal(codeOf(thief.call(net.founder, "join.hello", { v: 1, n: new Uint8Array(32) })), "quarantined");
  // All of it is in the audit log.
  const actions = net.founder.audits.map((one) => one.action);
  for (const one of ["incident-opened", "incident-response", "refused"]) assert.ok(actions.includes(one), one);
  assert.equal(net.world.status(net.founder).incidents?.open, 1);
  // Others come and stay as if nothing was.
  assert.equal(honest.view.stage, "verified");
  const second = net.join("second", { invite });
  assert.equal(second.view.stage, "verified");
  assert.equal(net.world.status(net.founder).incidents?.measures.length, 2);
  // It ends by itself.
  net.world.run(620_000);
  assert.deepEqual(net.world.status(net.founder).incidents?.measures, []);
  assert.ok(net.founder.audits.some((one) => one.action === "incident-response-ended"));
  assert.equal(codeOf(thief.call(net.founder, "join.hello", { v: 1, n: new Uint8Array(32).fill(1) })), "ok");
});

Deno.test("[2.4e] a command that is sent again raises an incident, and is not carried out again", () => {
  const net = new Net(902);
  const member = net.join("member");
  const { state } = net.founder.view;
  const signed = sealCommand(
    {
      verb: "ping",
      args: new Map(),
      target: member.view.state.keyPair.publicKey,
      issuedMs: net.world.nowMs,
      expiresMs: net.world.nowMs + 60_000,
      nonce: new Uint8Array(16).fill(3),
    },
    state.networkId,
    state.operatorPair!,
  );
  const body = encodeCbor(commandBody(signed));
  const mallory = new Newcomer(net, "mallory", net.invite());
  const say = () => net.world.callAs(mallory.puppet, member, "exec", body);
  say();
  assert.deepEqual(incidents(net, member), []);
  assert.equal(codeOf(say()), "command-replayed");
  const [found] = incidents(net, member);
  assert.deepEqual([found?.rule, found?.subject], ["replay", `node:${mallory.puppet.nodeId}`]);
  assert.deepEqual(found?.measures, [], "once is an alert");
  for (let i = 0; i < 4; i++) say();
  net.world.run(50);
  assert.deepEqual(incidents(net, member)[0]!.measures.map((one) => one.response), ["throttle"]);
  assert.equal(member.audits.filter((one) => one.action === "command").length, 1);
});

Deno.test("[2.4e] a person responds to an incident and takes it back: a quarantined member is shut out here and comes back", () => {
  const net = new Net(903);
  const [a, b] = [net.join("a"), net.join("b")];
  net.meshed(net.founder, a, b);
  // Something of a's that is worth an incident, and of which a member is blamed.
  for (let i = 0; i < 12; i++) {
    net.world.dispatch(net.founder, { type: "refused", nowMs: net.world.nowMs, reason: "tampered", from: a.nodeId });
  }
  const [found] = incidents(net, net.founder);
  assert.equal(found?.subject, `node:${a.nodeId}`);
  assert.deepEqual(
    found.measures.map((one) => one.response),
    ["throttle"],
    "a member is slowed down, and not shut out",
  );
  // What members need of each other goes on.
  net.world.run(60_000);
  assert.equal(net.founder.view.sessions.get(a.nodeId)?.member, true);
  const id = found.id;
  const dry = net.world.ask<{ readonly dryRun: boolean; readonly untilMs: number }>(net.founder, {
    verb: "incident-respond",
    id,
    response: "quarantine",
    forMs: 600_000,
    dryRun: true,
  });
  assert.ok(dry.dryRun && dry.untilMs > net.world.nowMs);
  assert.equal(net.founder.view.sessions.has(a.nodeId), true);
  net.world.ask(net.founder, { verb: "incident-respond", id, response: "quarantine", forMs: 600_000 });
  net.world.run(30_000);
  assert.notEqual(net.founder.view.sessions.get(a.nodeId)?.member, true, "no session here");
  assert.equal(b.view.sessions.get(a.nodeId)?.member, true, "it is a matter of this node alone");
  // A restart does not end it.
  net.world.crash(net.founder);
  net.world.boot(net.founder);
  net.world.run(20_000);
  assert.notEqual(net.founder.view.sessions.get(a.nodeId)?.member, true);
  net.world.ask(net.founder, { verb: "incident-respond", id, response: "release" });
  net.meshed(net.founder, a, b);
  const shown = net.world.ask<IncidentView>(net.founder, { verb: "incident-ack", id, note: "a cable" });
  assert.deepEqual([shown.state, shown.note], ["acknowledged", "a cable"]);
  assert.equal(net.world.status(net.founder).incidents?.open, 0);
  // What cannot be done is refused with what can.
  assert.throws(() => net.world.ask(net.founder, { verb: "incident-show", id: 99 }), /there is none/);
});

Deno.test("[2.4e] very many invites raise an incident; a person takes back those that are open", () => {
  const net = new Net(904);
  const settings = { dryRun: false, rules: [{ rule: "mass-invites", threshold: 5 }] };
  net.world.dispatch(net.founder, { type: "incident-settings", nowMs: net.world.nowMs, settings });
  for (let i = 0; i < 5; i++) net.invite();
  const [found] = incidents(net, net.founder);
  assert.equal(found?.rule, "mass-invites");
  assert.equal(net.world.status(net.founder).invites.filter((one) => one.state === "open").length, 5);
  net.world.ask(net.founder, { verb: "incident-respond", id: found.id, response: "revoke" });
  assert.equal(net.world.status(net.founder).invites.filter((one) => one.state === "open").length, 0);
});

Deno.test("[2.4e] a clock that jumps is an incident of this machine, and blames nobody", () => {
  const net = new Net(905);
  net.world.run(1_000);
  net.world.dispatch(net.founder, { type: "wake", nowMs: net.world.nowMs + 3_600_000 });
  net.world.dispatch(net.founder, { type: "wake", nowMs: net.world.nowMs });
  const found = incidents(net, net.founder);
  assert.deepEqual(found.map((one) => [one.rule, one.subject, one.possible]), [["clock-jump", "this-node", []]]);
});

const head = (seq: number, byte: number): AuditHead => ({ seq, hash: byte.toString(16).padStart(2, "0").repeat(32) });

Deno.test("[2.4d] the others notice when a node's audit log goes back or was written anew", () => {
  const net = new Net(906);
  const [a, b] = [net.join("a"), net.join("b")];
  net.meshed(net.founder, a, b);
  const sealed = (one: AuditHead) =>
    net.world.dispatch(a, { type: "audit-sealed", nowMs: net.world.nowMs, head: one, kept: 1 });
  sealed(head(10, 1));
  net.world.run(90_000);
  sealed(head(20, 2));
  net.world.run(90_000);
  const known = net.world.ask<{ readonly heads: readonly { readonly seq: number; readonly from: string }[] }>(a, {
    verb: "audit-heads",
  });
  const others = known.heads.filter((one) => one.from !== a.nodeId);
  assert.deepEqual(new Set(others.map((one) => one.from)), new Set([net.founder.nodeId, b.nodeId]));
  assert.ok(others.some((one) => one.seq === 20));
  for (const host of [net.founder, b]) assert.deepEqual(incidents(net, host), []);
  // Cut: the node starts anew with a log that ends before.
  net.world.crash(a);
  net.world.boot(a);
  sealed(head(15, 3));
  net.world.run(150_000);
  for (const host of [net.founder, b]) {
    assert.deepEqual(incidents(net, host).map((one) => [one.rule, one.subject]), [[
      "audit-damage",
      `node:${a.nodeId}`,
    ]]);
  }
  // It notices by itself as well, by what it had said.
  assert.ok(incidents(net, a).some((one) => one.rule === "audit-damage" && one.subject === "this-node"));
});

Deno.test("[2.4d] a place of a log that is another one now is noticed, and a log that goes on is not", () => {
  const net = new Net(907);
  const a = net.join("a");
  net.meshed(net.founder, a);
  const sealed = (one: AuditHead) =>
    net.world.dispatch(a, { type: "audit-sealed", nowMs: net.world.nowMs, head: one, kept: 1 });
  for (let i = 1; i <= 30; i++) {
    sealed(head(i * 10, i));
    net.world.run(20_000);
  }
  net.world.crash(a);
  net.world.boot(a);
  sealed(head(310, 31));
  net.world.run(90_000);
  assert.deepEqual(incidents(net, net.founder), []);
  // A thief of the key says it by hand, with a place that was another one.
  sealed(head(305, 99));
  sealed(head(310, 98));
  sealed(head(320, 32));
  net.world.run(90_000);
  assert.deepEqual(incidents(net, net.founder).map((one) => one.rule), ["audit-damage"]);
});

Deno.test("incidents: their requests are read strictly, and calls about heads take any body", () => {
  const net = new Net(908);
  const a = net.join("a");
  net.meshed(net.founder, a);
  for (const body of [{}, { n: 1 }, { n: "x" }, [], "text"] as CborValue[]) {
    const session = net.founder.view.sessions.get(a.nodeId)!;
    const answer = net.world.inject(net.founder, session.peer, "audit.head", encodeCbor(body));
    assert.equal(codeOf(answer), "bad-request");
  }
});

Deno.test("[2.4d] what a node says of its log reads back, and bytes that do not read are refused", () => {
  const good = auditWord({ kept: 3, heads: [head(3, 1), head(9, 2), head(20, 3)] });
  assert.deepEqual(readAuditWord(good), { kept: 3, heads: [head(3, 1), head(9, 2), head(20, 3)] });
  assert.throws(() => readAuditWord(auditWord({ kept: 1, heads: [] })), WireError);
  assert.throws(() => readAuditWord(auditWord({ kept: 1, heads: [head(9, 1), head(9, 2)] })), WireError);
  assert.equal(
    readAuditWord(auditWord({ kept: 1, heads: Array.from({ length: 40 }, (_, i) => head(i + 1, i)) })).heads.length,
    8,
  );
  fc.assert(
    fc.property(fc.nat(), fc.nat(255), fc.nat(2), (at, byte, how) => {
      const i = at % good.length;
      const bad = how === 0 ? good.with(i, byte) : how === 1 ? good.slice(0, i) : new Uint8Array([...good, byte]);
      try {
        const word = readAuditWord(bad);
        assert.ok(word.heads.length > 0 && word.heads.every((one) => /^[0-9a-f]{64}$/.test(one.hash)));
      } catch (error) {
        assert.ok(error instanceof WireError, String(error));
      }
    }),
    { numRuns: 2_000 },
  );
  // What is said later fits what was said, or does not.
  const heads = [head(3, 1), head(9, 2)];
  assert.equal(contradiction(heads, [head(9, 2), head(12, 4)], 1), undefined);
  assert.equal(contradiction(heads, [head(30, 5)], 20), undefined);
  assert.match(contradiction(heads, [head(3, 1)], 1)!, /ended at 9/);
  assert.match(contradiction(heads, [head(9, 7), head(12, 4)], 1)!, /entry 9/);
  assert.match(contradiction(heads, [head(12, 4)], 99)!, /first/);
  assert.equal(contradiction([], [head(1, 1)], 1), undefined);
});

Deno.test("[2.4e] a label that anybody can forge in the name of an address holds nobody up who has it", () => {
  const net = new Net(909);
  const refused = (reason: string, from: string) =>
    net.world.dispatch(net.founder, { type: "refused", nowMs: net.world.nowMs, reason, from });
  const joiner = new Newcomer(net, "joiner", net.invite());
  for (let i = 0; i < 30; i++) refused("discovery-forged", `${joiner.puppet.ip}:4872`);
  const [found] = incidents(net, net.founder);
  assert.deepEqual([found?.rule, found?.subject, found?.measures], ["forged", `label:${joiner.puppet.ip}`, []]);
  for (let i = 0; i < 5; i++) {
    assert.equal(codeOf(joiner.call(net.founder, "join.hello", { v: 1, n: new Uint8Array(32).fill(i) })), "ok");
  }
  // What a channel has shown is another matter: an address that others may share is held up at four times the number.
  for (let i = 0; i < 39; i++) refused("tampered", `/ip4/${joiner.puppet.ip}/udp/4871/quic-v1`);
  assert.deepEqual(net.world.status(net.founder).incidents!.measures.map((one) => one.subject), [
    `node:${joiner.puppet.nodeId}`,
  ]);
  refused("tampered", `/ip4/${joiner.puppet.ip}/udp/4871/quic-v1`);
  net.world.run(20);
  assert.equal(net.world.status(net.founder).incidents!.measures.length, 2);
});

Deno.test("[2.4e] a rule without proof throttles a member at the most, whatever is set; nothing is done in a dry run", () => {
  const net = new Net(910);
  const a = net.join("a");
  net.meshed(net.founder, a);
  const settings = {
    dryRun: false,
    rules: [{ rule: "removed-node", threshold: 2, response: "quarantine" as const }],
  };
  net.world.dispatch(net.founder, { type: "incident-settings", nowMs: net.world.nowMs, settings });
  for (let i = 0; i < 2; i++) {
    net.world.dispatch(net.founder, { type: "refused", nowMs: net.world.nowMs, reason: "revoked", from: a.nodeId });
    net.world.dispatch(a, { type: "refused", nowMs: net.world.nowMs, reason: "revoked", from: net.founder.nodeId });
  }
  const responses = () => net.world.status(net.founder).incidents!.measures.map((one) => one.response);
  assert.deepEqual(responses(), ["throttle"], "a rule without proof throttles a member, whatever is set");
  assert.equal(net.founder.view.sessions.get(a.nodeId)?.member, true);
  const dry = { ...settings, dryRun: true };
  net.world.dispatch(a, { type: "incident-settings", nowMs: net.world.nowMs, settings: dry });
  for (let i = 0; i < 20; i++) {
    net.world.dispatch(a, { type: "refused", nowMs: net.world.nowMs, reason: "tampered", from: net.founder.nodeId });
  }
  assert.deepEqual(net.world.status(a).incidents!.measures, []);
  assert.equal(incidents(net, a)[0]!.measures[0]!.dryRun, true);
});

Deno.test("[2.4e] a proof shuts out a member and only slows down an issuer; who is slowed down can still vote and be watched", () => {
  const net = new Net(911);
  const member = net.join("member");
  const issuer = net.join("issuer", { as: "sclerotium" });
  net.world.until("it issues", () => issuer.view.state.isIssuer);
  net.meshed(net.founder, member, issuer);
  // The part alone, with what the founder knows: a proof takes a voter that lies.
  const { state, sessions } = net.founder.view;
  const config = {
    name: "alpha",
    role: "auto",
    pool: "default",
    version: "0",
    addresses: [],
    credentialLifetimeMs: net.lifetimeMs,
  } as const;
  const ctx = new Context(state, config, seededRng(1), { bytes: (length) => new Uint8Array(length) });
  for (const [nodeId, session] of sessions) ctx.sessions.set(nodeId, session);
  ctx.nowMs = net.world.nowMs;
  const deps = { removeNode: () => assert.fail("removed"), revokeInvites: () => assert.fail("revoked") };
  const keeper = new IncidentKeeper(ctx, new Map(), { dryRun: false, rules: [] }, deps);
  for (const one of [member, issuer]) ctx.watch!.proved(one.nodeId, "proof");
  keeper.wake();
  assert.deepEqual(
    keeper.status().measures.map((one) => [one.response, one.subject]),
    [["quarantine", `node:${member.nodeId}`], ["throttle", `node:${issuer.nodeId}`]],
  );
  assert.deepEqual([member, issuer].map((one) => keeper.isQuarantined(one.nodeId)), [true, false]);
  assert.deepEqual(
    ctx.effects.filter((one) => one.type === "hang-up").map((one) => one.nodeId),
    [member.nodeId],
  );
  const { peer } = sessions.get(issuer.nodeId)!;
  assert.throws(() => {
    for (let i = 0; i < 100; i++) keeper.admit(peer, true, "sync");
  }, { code: "throttled" });
  for (const method of ["raft", "swim.ping", "agreement.msg", "gossip", "renew"]) keeper.admit(peer, true, method);
  // Others behind the address of a member are not held up for what he does.
  for (let i = 0; i < 100; i++) ctx.refuse("tampered", peer.remoteAddress);
  keeper.wake();
  assert.deepEqual(keeper.status().measures.filter((one) => one.subject.startsWith("address:")), []);
});
