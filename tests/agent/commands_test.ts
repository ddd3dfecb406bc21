import assert from "node:assert/strict";
import { utf8 } from "../../src/core/bytes.ts";
import { type CborValue, decodeCbor, encodeCbor } from "../../src/core/codec.ts";
import { type KeyPair, keyPairFromSeed, sha256 } from "../../src/core/crypto.ts";
import { AUDITED_MAX } from "../../src/agent/context.ts";
import { COMMAND_VERBS, commandBody, sealCommand, type SignedCommand } from "../../src/agent/commands.ts";
import { sealAssignment } from "../../src/spore/profile.ts";
import type { Host } from "../sim/world.ts";
import { keyOf, Net, Newcomer, outcome } from "./kit.ts";

/** The operator's key, as it lies on the founder. */
function operatorOf(net: Net): KeyPair {
  return keyPairFromSeed(net.founder.disk.get("secret/operator.key")!);
}

function command(net: Net, target: Host, change: Partial<SignedCommand> = {}, signer?: KeyPair): Uint8Array {
  const nowMs = net.world.nowMs;
  const envelope = sealCommand(
    {
      verb: "ping",
      args: new Map(),
      target: target.view.state.keyPair.publicKey,
      issuedMs: nowMs,
      expiresMs: nowMs + 60_000,
      nonce: sha256(utf8(`${net.world.steps}`)).slice(0, 16),
      ...change,
    },
    net.founder.view.state.networkId,
    signer ?? operatorOf(net),
  );
  return encodeCbor(commandBody(envelope));
}

/** A world with one member and somebody whom nobody knows. */
function netWithStranger(seed: number) {
  const net = new Net(seed);
  const beta = net.join("beta");
  net.meshed(net.founder, beta);
  return { net, beta, stranger: net.world.addPuppet("laptop", keyOf("laptop")) };
}

Deno.test("[1.4d] a command of the operator is run, audited, and counts once, also after a restart", () => {
  const { net, beta, stranger } = netWithStranger(1);
  const body = command(net, beta);
  const answer = net.world.callAs(stranger, beta, "exec", body);
  assert.ok(answer.ok && "command" in answer && answer.command.verb === "ping", "whoever carries it");
  assert.deepEqual(beta.audits.filter((one) => one.action === "command").map((one) => one.detail), ["ping"]);
  assert.equal(outcome(net.world.callAs(stranger, beta, "exec", body)), "command-replayed");
  net.world.restart(beta);
  net.verified(beta);
  assert.equal(outcome(net.world.callAs(stranger, beta, "exec", body)), "command-replayed");
});

Deno.test("[2.4d] who holds one signed command cannot fill the audit log with it, and is held up for sending it again", () => {
  const { net, beta, stranger } = netWithStranger(11);
  const other = command(net, net.founder);
  const refusals = () => beta.audits.filter((one) => one.action === "command-refused");
  for (let i = 0; i < 200; i++) {
    assert.equal(outcome(net.world.callAs(stranger, beta, "exec", other)), "command-other-node");
  }
  assert.equal(refusals().length, AUDITED_MAX);
  assert.match(refusals().at(-1)!.detail, /more in this minute are only counted/);
  assert.equal(beta.refused.get("command-other-node"), 200);
  net.world.run(61_000);
  net.world.callAs(stranger, beta, "exec", other);
  assert.equal(refusals().length, AUDITED_MAX + 1, "the next minute has entries of its own");
  const body = command(net, beta);
  const answers = Array.from({ length: 10 }, () => {
    net.world.run(50);
    return outcome(net.world.callAs(stranger, beta, "exec", body));
  });
  assert.equal(answers[1], "command-replayed");
  assert.equal(answers.at(-1), "throttled");
  const phone = net.world.addPuppet("phone", keyOf("phone"));
  const answer = net.world.callAs(phone, beta, "exec", command(net, beta));
  assert.ok(answer.ok && "command" in answer, "who carries a good one is not held up for others");
});

Deno.test("[1.4d] forged, of somebody else, for another node, expired, too far ahead: refused by name and counted", () => {
  const { net, beta, stranger } = netWithStranger(2);
  const { nowMs } = net.world;
  const good = command(net, beta);
  const flipped = good.slice();
  flipped[good.length - 1]! ^= 1;
  const cases: readonly (readonly [string, Uint8Array])[] = [
    ["command-forged", flipped],
    ["command-forged", new Uint8Array([0xa0])],
    ["command-forged", new Uint8Array([0xff, 0xff])],
    ["command-not-operator", command(net, beta, {}, keyOf("somebody"))],
    ["command-not-operator", command(net, beta, {}, net.founder.view.state.keyPair)],
    ["command-other-node", command(net, net.founder)],
    ["command-expired", command(net, beta, { expiresMs: nowMs })],
    ["command-expired", command(net, beta, { expiresMs: nowMs + 3_600_000 })],
  ];
  for (const [wanted, body] of cases) {
    const before = beta.refused.get(wanted) ?? 0;
    assert.equal(outcome(net.world.callAs(stranger, beta, "exec", body)), wanted);
    assert.equal(beta.refused.get(wanted), before + 1);
  }
  assert.equal(beta.audits.filter((one) => one.action === "command").length, 0);
  // A command of another network's operator, by the same person with the same key even, is of another domain.
  const other = new Net(3);
  const envelope = sealCommand(
    {
      verb: "leave",
      args: new Map(),
      target: beta.view.state.keyPair.publicKey,
      issuedMs: nowMs,
      expiresMs: nowMs + 60_000,
      nonce: new Uint8Array(16),
    },
    other.founder.view.state.networkId,
    operatorOf(net),
  );
  assert.equal(outcome(net.world.callAs(stranger, beta, "exec", encodeCbor(commandBody(envelope)))), "command-forged");
});

Deno.test("[1.4d] the founder signs for a member by name; who holds no operator key cannot", () => {
  const { net, beta, stranger } = netWithStranger(4);
  const signed = net.world.ask<{ nodeId: string; body: Uint8Array; connected: boolean }>(net.founder, {
    verb: "sign-command",
    node: "beta",
    command: "drain",
    args: { why: "upgrade" },
    ttlMs: 60_000,
  });
  assert.deepEqual([signed.nodeId, signed.connected], [beta.nodeId, true]);
  const answer = net.world.callAs(stranger, beta, "exec", signed.body);
  assert.ok(answer.ok && "command" in answer && answer.command.args.get("why") === "upgrade");
  net.world.run(100);
  assert.equal(beta.view.state.mode, "drained");
  const refused = net.world.control(beta, {
    verb: "sign-command",
    node: "alpha",
    command: "ping",
    args: {},
    ttlMs: 60_000,
  });
  assert.equal(refused.ok ? "" : refused.error.code, "no-operator-key");
  const odd = net.world.control(net.founder, {
    verb: "sign-command",
    node: "beta",
    command: "rm -rf",
    args: {},
    ttlMs: 60_000,
  });
  assert.equal(odd.ok ? "" : odd.error.code, "bad-request");
  assert.ok(!odd.ok && COMMAND_VERBS.every((verb) => odd.error.message.includes(verb)), "it names the closed list");
});

Deno.test("[1.4e] isolate: no session, no service, no dial for anybody; operator commands still reach it, rejoin ends it", () => {
  const { net, beta, stranger } = netWithStranger(5);
  net.world.callAs(stranger, beta, "exec", command(net, beta, { verb: "isolate" }));
  net.world.run(60_000);
  assert.equal(beta.view.state.mode, "isolated");
  assert.ok([...beta.view.sessions.values()].every((one) => !one.member));
  assert.equal(beta.discoveryMode, "off");
  assert.equal(
    outcome(net.world.callAs(stranger, beta, "join.hello", encodeCbor({ v: 1, n: new Uint8Array(32) }))),
    "isolated",
  );
  assert.equal(net.world.status(beta).health.ready, false);
  net.world.run(600_000);
  assert.notEqual(net.founder.view.sessions.get(beta.nodeId)?.member, true);
  net.world.restart(beta);
  net.world.run(60_000);
  assert.equal(beta.view.state.mode, "isolated", "it stays so over a restart");
  assert.notEqual(net.founder.view.sessions.get(beta.nodeId)?.member, true);
  const answer = net.world.callAs(stranger, beta, "exec", command(net, beta, { verb: "rejoin" }));
  assert.ok(answer.ok);
  net.verified(beta);
  net.meshed(net.founder, beta);
});

Deno.test("[1.4e] an issuer that is isolated and back is verified and admits again", () => {
  const net = new Net(6);
  const invite = net.invite();
  net.world.ask(net.founder, { verb: "set-mode", mode: "isolated" });
  const beta = net.start("beta", invite);
  net.world.run(30_000);
  assert.notEqual(beta.view.stage, "verified");
  net.world.ask(net.founder, { verb: "set-mode", mode: "normal" });
  assert.equal(net.founder.view.stage, "verified");
  net.verified(beta);
});

Deno.test("[1.4e] safe mode: keeps its sessions, admits nobody, takes no work", () => {
  const { net, beta } = netWithStranger(7);
  const invite = net.invite();
  net.world.ask(net.founder, { verb: "set-mode", mode: "safe" });
  net.world.ask(beta, { verb: "set-mode", mode: "safe" });
  net.world.run(60_000);
  assert.equal(net.founder.view.sessions.get(beta.nodeId)?.member, true);
  const newcomer = new Newcomer(net, "gamma", invite);
  assert.equal(outcome(newcomer.register(net.founder)), "not-issuer");
  const refused = net.world.control(net.founder, { verb: "invite-create" });
  assert.equal(refused.ok ? "" : refused.error.code, "not-issuer");
  const work = net.world.control(net.founder, {
    verb: "assign",
    node: "beta",
    id: "web-1",
    service: "web",
    action: "run",
  });
  assert.equal(work.ok ? "" : work.error.code, "drained");
  assert.deepEqual(
    net.world.status(beta).health.components.find((one) => one.name === "membership")?.reason,
    "in safe mode",
  );
  net.world.ask(net.founder, { verb: "set-mode", mode: "normal" });
  assert.equal(outcome(newcomer.register(net.founder)), "accepted");
});

Deno.test("[1.4e] drained: told to all, takes no work, stays a member; undrain ends it", () => {
  const { net, beta } = netWithStranger(8);
  net.world.ask(beta, { verb: "set-mode", mode: "drained" });
  net.world.until("alpha knows", () => net.founder.view.state.members.get(beta.nodeId)!.record.drained);
  const work = net.world.control(net.founder, {
    verb: "assign",
    node: "beta",
    id: "web-1",
    service: "web",
    action: "run",
  });
  assert.equal(work.ok ? "" : work.error.code, "drained");
  net.world.restart(beta);
  net.verified(beta);
  assert.equal(beta.view.state.mode, "drained");
  net.world.ask(beta, { verb: "set-mode", mode: "normal" });
  net.world.until("alpha knows", () => !net.founder.view.state.members.get(beta.nodeId)!.record.drained);
  net.world.ask(net.founder, { verb: "assign", node: "beta", id: "web-1", service: "web", action: "run" });
});

Deno.test("[1.4c] assignments: signed by an issuer, for one node, newest wins, over restarts; a stop is not undone by replay", () => {
  const { net, beta } = netWithStranger(9);
  net.world.ask(net.founder, { verb: "assign", node: "beta", id: "web-1", service: "web", action: "run" });
  assert.deepEqual(net.world.status(beta).assignments.map((one) => [one.id, one.service]), [["web-1", "web"]]);
  net.world.restart(beta);
  net.verified(beta);
  net.meshed(net.founder, beta);
  assert.equal(net.world.status(beta).assignments.length, 1);
  const { networkId, keyPair } = net.founder.view.state;
  const peer = () => beta.view.sessions.get(net.founder.nodeId)!.peer;
  const give = (change: object, signer: KeyPair = keyPair) => {
    const one = sealAssignment(
      {
        id: "web-2",
        seq: net.world.nowMs,
        service: "web",
        node: beta.view.state.keyPair.publicKey,
        action: "run",
        spec: new Uint8Array(),
        issuedMs: net.world.nowMs,
        ...change,
      },
      networkId,
      signer,
    );
    const body: CborValue = { a: { t: one.type, p: one.payload, k: one.signer, s: one.signature } };
    return { body: encodeCbor(body), send: () => net.world.inject(beta, peer(), "assign", encodeCbor(body)) };
  };
  const run = give({ seq: 10 });
  assert.equal(outcome(run.send()), "ok");
  assert.equal(outcome(give({ seq: 11, action: "stop" }).send()), "ok");
  const replay = run.send();
  assert.ok(replay.ok && "body" in replay);
  assert.equal(
    (decodeCbor((replay as { body: Uint8Array }).body) as { state: string }).state,
    "kept",
    "the stop stands",
  );
  assert.equal(outcome(give({}, keyOf("nobody")).send()), "unknown-issuer");
  assert.equal(outcome(give({}, beta.view.state.keyPair).send()), "unknown-issuer", "not even its own word");
  assert.equal(outcome(give({ node: keyPair.publicKey }).send()), "wrong-subject");
  const refused = net.world.control(beta, {
    verb: "assign",
    node: "alpha",
    id: "web-3",
    service: "web",
    action: "run",
  });
  assert.equal(refused.ok ? "" : refused.error.code, "not-issuer");
  for (let i = 0; i < 1_100; i++) {
    give({ id: `many-${i}`, seq: 1 }).send();
    net.world.run(10);
  }
  assert.ok(beta.view.state.assignments.size <= 1_000, "bounded");
});

Deno.test("[1.4b] a member reports its own state to who asks, and its capabilities reach everybody", () => {
  const { net, beta } = netWithStranger(10);
  const peer = beta.view.sessions.get(net.founder.nodeId)!.peer;
  const answer = net.world.inject(beta, peer, "status.report", encodeCbor({}));
  assert.ok(answer.ok && "body" in answer);
  const report = decodeCbor((answer as { body: Uint8Array }).body) as { [key: string]: unknown };
  assert.equal(report.stage, "verified");
  assert.equal(report.mode, "normal");
  assert.equal(report.members, 2);
  assert.equal(report.epoch, 1);
  assert.ok((report.up as number) > 0);
  assert.deepEqual(net.founder.view.state.members.get(beta.nodeId)!.record.capabilities, beta.capabilities);
  const less = { ...beta.capabilities, diskFreeBytes: 2 ** 30 };
  net.world.dispatch(beta, { type: "capabilities", nowMs: net.world.local(beta), capabilities: less });
  net.world.until(
    "alpha hears of the full disk",
    () => net.founder.view.state.members.get(beta.nodeId)!.record.capabilities.diskFreeBytes === 2 ** 30,
  );
});

Deno.test("[1.4e] leave: the others hear of it, it is not called dead, and it forgets the network", () => {
  const { net, beta } = netWithStranger(11);
  net.world.ask(beta, { verb: "leave" });
  net.world.run(10_000);
  assert.equal(beta.view.stage, "idle");
  assert.equal(beta.view.state.network, undefined);
  assert.equal(net.founder.view.state.members.get(beta.nodeId)!.record.left, true);
  net.world.run(120_000);
  const status = net.world.status(net.founder);
  assert.equal(status.members.find((one) => one.nodeId === beta.nodeId)!.state, "left");
  assert.equal(status.health.ready, true);
});
