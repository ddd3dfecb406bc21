/** Trust among whole agents in the simulator's world. */

import assert from "node:assert/strict";
import { type CborValue, decodeAs, decodeCbor, encodeCbor } from "../../src/core/codec.ts";
import { fromHex, toHex, utf8 } from "../../src/core/bytes.ts";
import { type KeyPair, keyPairFromSeed, sha256 } from "../../src/core/crypto.ts";
import { decodeElectorate } from "../../src/agent/agreed.ts";
import { PROOFS_PER_NODE_MAX } from "../../src/agent/trust.ts";
import { encodeProof } from "../../src/agent/trust_proofs.ts";
import { readEvidence } from "../../src/consensus/evidence.ts";
import { decodeMessage, encodeMessage } from "../../src/consensus/messages.ts";
import { type Header, instanceId, operationsHash, signStatement } from "../../src/consensus/statements.ts";
import { tableHash, type WeightTable } from "../../src/consensus/weights.ts";
import { listedHash } from "../../src/trust/agreed.ts";
import type { TrustStatus } from "../../src/agent/status.ts";
import type { ProofRow, TrustDetail, TrustRow } from "../../src/agent/trust_console.ts";
import { KEYS } from "../../src/agent/state.ts";
import { pushValue } from "../../src/spore/messages.ts";
import { sealSpore } from "../../src/spore/record.ts";
import type { Host } from "../sim/world.ts";
import vectors from "../wire/vectors/consensus_evidence.json" with { type: "json" };
import { Net } from "./kit.ts";

/** A network whose members all have a seat. */
function voters(seed: number, count: number): { readonly net: Net; readonly hosts: readonly Host[] } {
  const net = new Net(seed);
  const hosts = [net.founder];
  for (let i = 1; i < count; i++) hosts.push(net.join(`voter${i}`, { as: "sclerotium" }));
  seated(net, hosts, hosts);
  return { net, hosts };
}

/** Waits until something holds, looking twice a second: asking for a status at each message takes longer than all else. */
function until(net: Net, what: string, holds: () => boolean, withinMs = 180_000): void {
  const { world } = net;
  const startMs = world.nowMs;
  while (!holds()) {
    assert.ok(world.nowMs - startMs < withinMs, `${what}: not within ${withinMs} ms\n${world.describe()}`);
    world.run(500);
  }
}

/** Waits until hosts see all of some in the electorate, and nobody else. */
function seated(net: Net, hosts: readonly Host[], wanted: readonly Host[], withinMs = 180_000): void {
  const ids = wanted.map((one) => one.nodeId).sort().join();
  until(net, `${wanted.map((one) => one.name)} vote`, () =>
    hosts.every((one) => {
      const { agreement } = net.world.status(one);
      return agreement?.voters.map((voter) => voter.nodeId).sort().join() === ids;
    }), withinMs);
}

function trust(net: Net, host: Host): TrustStatus {
  return net.world.status(host).trust!;
}

function row(net: Net, at: Host, of: Host): TrustRow {
  const { rows } = net.world.ask<{ readonly rows: readonly TrustRow[] }>(at, { verb: "trust-list" });
  return rows.find((one) => one.nodeId === of.nodeId)!;
}

/** Two words of a host under one number, told to others: what an honest node never says. */
function sayTwice(net: Net, liar: Host, to: readonly Host[], name = "name"): void {
  const { networkId } = liar.view.state;
  const pair = keyPairFromSeed(liar.disk.get(KEYS.nodeSeed)!);
  const nowMs = net.world.local(liar);
  for (const [i, host] of to.entries()) {
    const spore = sealSpore(
      {
        key: `node/${liar.nodeId}/${name}`,
        seq: nowMs,
        value: new Uint8Array([i % 2]),
        issuedMs: nowMs,
        expiresMs: nowMs + 3_600_000,
      },
      networkId,
      pair,
    );
    const body: CborValue = pushValue([{ spore, proof: undefined }]);
    net.world.callOf(liar, host.nodeId, "spore.push", encodeCbor(body));
  }
}

Deno.test("[2.3d] [4.2b] trust: who says two things under one number loses the same on every node, and its lie is kept as proof", () => {
  const { net, hosts } = voters(41, 4);
  const { world } = net;
  const liar = hosts[3]!;
  const honest = hosts.slice(0, 3);
  sayTwice(net, liar, honest);
  until(net, "all agree", () => honest.every((one) => row(net, one, liar).agreedPpm < 310_000));
  for (const one of honest) {
    const proofs = world.ask<{ readonly rows: readonly ProofRow[] }>(one, { verb: "evidence-list" }).rows;
    assert.deepEqual(proofs.map((proof) => [proof.nodeId, proof.kind, proof.counted]), [[liar.nodeId, "words", true]]);
    const checked = world.ask<{ readonly rows: readonly { readonly result: string }[] }>(one, {
      verb: "evidence-verify",
    });
    assert.deepEqual(checked.rows.map((each) => each.result), ["holds"]);
    assert.equal(row(net, one, honest[0]!).agreedPpm, 500_000);
  }
  assert.equal(new Set(honest.map((one) => row(net, one, liar).agreedPpm)).size, 1);
});

/** The key of a host. */
function keyOf(host: Host): KeyPair {
  return keyPairFromSeed(host.disk.get(KEYS.nodeSeed)!);
}

/** The electorate as it stands. */
function tableOf(at: Host): WeightTable {
  const { record } = at.view.spores.get("agreed/electorate")!.winner.spore;
  return decodeElectorate(record.value!).table;
}

/** Two proposals of a voter under one number, as nobody honest signs them. */
function proposeTwice(net: Net, liar: Host, to: Host): void {
  const { networkId } = liar.view.state;
  for (const text of ["one", "another"]) {
    const operations = [{ kind: "record/put", body: utf8(text) }];
    const header: Header = {
      table: tableHash(tableOf(liar), networkId),
      class: "critical",
      size: 1,
      proposer: liar.nodeId,
      seq: 7,
      expiresMs: net.world.local(liar) + 60_000,
      operations: operationsHash(operations),
      count: 1,
    };
    const statement = { type: "proposal", instance: instanceId(header, networkId) } as const;
    const signature = signStatement(statement, networkId, keyOf(liar));
    const message = encodeMessage({ type: "propose", proposal: { header, operations, signature } });
    net.world.callOf(liar, to.nodeId, "agreement.msg", encodeCbor({ m: [message] }));
  }
}

Deno.test("[4.2b] [4.2d] [2.3d] trust: a voter that proposes two things under one number is banned by all and loses its seat for good", () => {
  const { net, hosts } = voters(42, 5);
  const { world } = net;
  net.checkers.decisions.liars = true;
  const liar = hosts[4]!;
  const honest = hosts.slice(0, 4);
  // One alone has seen it: the others learn it from the record that it writes.
  proposeTwice(net, liar, honest[1]!);
  until(net, "all know the proof", () => honest.every((one) => trust(net, one).banned.includes(liar.nodeId)));
  until(net, "all agree", () => honest.every((one) => trust(net, one).version > 0));
  seated(net, honest, honest, 900_000);
  for (const one of honest) {
    assert.deepEqual(trust(net, one).banned, [liar.nodeId]);
    assert.equal(trust(net, one).lies, 0);
    const { agreedPpm, denied } = row(net, one, liar);
    assert.equal(agreedPpm, 0);
    assert.ok(denied.includes("vote") && denied.includes("record") && denied.includes("lead"));
    for (const other of honest) assert.equal(row(net, one, other).agreedPpm, 500_000);
  }
  // It does not come back by staying, nor by starting again; and the others remember after a restart.
  world.restart(liar);
  world.restart(honest[2]!);
  world.run(120_000);
  seated(net, honest, honest);
  assert.deepEqual(trust(net, honest[2]!).banned, [liar.nodeId]);
  assert.equal(row(net, honest[2]!, liar).agreedPpm, 0);
});

Deno.test("[4.2b] trust: who accuses somebody by a proof that does not hold hurts itself alone", () => {
  const { net, hosts } = voters(43, 4);
  const { world } = net;
  const [judge, , victim, liar] = hosts as [Host, Host, Host, Host];
  const pair = keyOf(victim);
  const { networkId } = liar.view.state;
  const nowMs = world.local(liar);
  const word = (value: number, signer: KeyPair) =>
    sealSpore(
      {
        key: `node/${victim.nodeId}/name`,
        seq: nowMs,
        value: new Uint8Array([value]),
        issuedMs: nowMs,
        expiresMs: nowMs + 3_600_000,
      },
      networkId,
      signer,
    );
  // One true word of the victim, and one that the liar signed with its own key.
  const proof = encodeProof({ type: "words", a: word(1, pair).envelope, b: word(2, keyOf(liar)).envelope });
  const hash = listedHash(proof);
  const report = sealSpore(
    {
      key: `node/${liar.nodeId}/evidence/${toHex(hash)}`,
      seq: nowMs,
      value: encodeCbor({ n: victim.nodeId, h: hash, b: proof }),
      issuedMs: nowMs,
      expiresMs: nowMs + 3_600_000,
    },
    networkId,
    keyOf(liar),
  );
  world.callOf(liar, judge.nodeId, "spore.push", encodeCbor(pushValue([{ spore: report, proof: undefined }])));
  until(net, "all have seen the lie", () => hosts.slice(0, 3).every((one) => trust(net, one).lies === 1));
  world.run(30_000);
  for (const one of hosts.slice(0, 3)) {
    assert.equal(trust(net, one).proofs, 0);
    assert.equal(row(net, one, victim).agreedPpm, 500_000);
    assert.ok(row(net, one, liar).localPpm <= 451_000, `${row(net, one, liar).localPpm}`);
    assert.equal(row(net, one, liar).agreedPpm, 500_000);
  }
});

Deno.test("[4.2b] [10.5e] trust: who accuses without end, by what nobody can check, takes no other's place", () => {
  const { net, hosts } = voters(50, 4);
  const { world } = net;
  const [judge, other, , liar] = hosts as [Host, Host, Host, Host];
  const { networkId } = liar.view.state;
  const nowMs = world.local(liar);
  const evidence = decodeAs(fromHex(vectors["two-proposals"])!, readEvidence);
  assert.ok(evidence.type === "two-proposals");
  const asked = new Set<string>();
  judge.tamper = ({ method, body }) => {
    if (method === "trust.item") asked.add(toHex(body));
    return [body];
  };
  for (let i = 0; i < 5 * PROOFS_PER_NODE_MAX; i++) {
    // Of an electorate that nobody knows; and of things that nobody has.
    const header = { ...evidence.a.header, table: sha256(utf8(`table ${i}`)) };
    const proof = encodeProof({ type: "vote", evidence: { ...evidence, a: { ...evidence.a, header } } });
    for (const [hash, more] of [[listedHash(proof), { b: proof }], [listedHash(utf8(`nothing ${i}`)), {}]] as const) {
      const report = sealSpore(
        {
          key: `node/${liar.nodeId}/evidence/${toHex(hash)}`,
          seq: nowMs,
          value: encodeCbor({ n: other.nodeId, h: hash, ...more }),
          issuedMs: nowMs,
          expiresMs: nowMs + 3_600_000,
        },
        networkId,
        keyOf(liar),
      );
      world.callOf(liar, judge.nodeId, "spore.push", encodeCbor(pushValue([{ spore: report, proof: undefined }])));
    }
    world.run(200);
  }
  world.run(20_000);
  assert.equal(trust(net, judge).proofsUndecided, PROOFS_PER_NODE_MAX);
  assert.equal(asked.size, PROOFS_PER_NODE_MAX);
});

Deno.test("[2.3b] [2.3e] trust: records of a node below the threshold are confirmed before they are used", () => {
  const { net, hosts } = voters(44, 4);
  const [a, b, c, liar] = hosts as [Host, Host, Host, Host];
  const honest = [a, b, c];
  for (let deed = 0; deed < 3; deed++) {
    sayTwice(net, liar, honest, `name${deed}`);
    net.world.run(4_000);
  }
  until(net, "all agree", () => honest.every((one) => row(net, one, liar).agreedPpm < 200_000), 600_000);
  assert.ok(honest.every((one) => row(net, one, liar).denied.includes("record")));
  const before = net.world.status(a).spores!.suspects;
  net.world.ask(liar, { verb: "spore-put", key: `node/${liar.nodeId}/motto`, value: "aGVsbG8" });
  until(net, "the word was confirmed", () => net.world.status(a).spores!.confirmed > before.confirmed);
  // And it lost its seat: two wrong words are less than a vote is worth.
  seated(net, honest, honest, 900_000);
});

Deno.test("[2.3b] trust: a policy is agreed on, tried first, and counts on every node", () => {
  const { net, hosts } = voters(45, 4);
  const { world } = net;
  const [a, b] = hosts as [Host, Host];
  const policy = {
    min: new Map([["place/standard", 600_000]]),
    vouched: [hosts[3]!.nodeId],
    classes: new Map([["net/", "critical"]]),
  };
  interface Answer {
    readonly changes: readonly { readonly name: string; readonly action: string; readonly may: boolean }[];
    readonly set: boolean;
  }
  const dry = world.ask<Answer>(a, { verb: "trust-policy-set", ...policy, dryRun: true });
  assert.equal(dry.set, false);
  assert.deepEqual(dry.changes.map((one) => [one.name, one.action, one.may]).sort(), [
    ["alpha", "place/standard", false],
    ["voter1", "place/standard", false],
    ["voter2", "place/standard", false],
    ["voter3", "place/standard", false],
  ]);
  assert.ok(hosts.every((one) => !trust(net, one).policySet));
  // An issuer, or all of them, set no policy: a person has to sign it, and the founder's node holds such a key.
  const unsigned = world.control(b, { verb: "trust-policy-set", ...policy });
  assert.equal(unsigned.ok ? "" : unsigned.error.code, "no-operator-key");
  const prepared = world.ask<{ readonly value: string }>(b, { verb: "trust-policy-set", ...policy, prepare: true });
  const forced = world.control(b, {
    verb: "agreement-submit",
    key: "agreed/policy",
    value: prepared.value,
    class: "critical",
  });
  assert.equal(forced.ok ? "" : forced.error.code, "rejected");
  assert.ok(hosts.every((one) => !trust(net, one).policySet));
  assert.equal(world.ask<Answer>(a, { verb: "trust-policy-set", ...policy }).set, true);
  until(net, "all follow", () => hosts.every((one) => row(net, one, a).denied.includes("place/standard")));
  // What seats go by is agreed with the scores.
  until(net, "an update tells of it", () => hosts.every((one) => trust(net, one).version === 1));
  const bad = world.control(a, { verb: "trust-policy-set", ...policy, min: new Map([["vote", 600_000]]) });
  assert.equal(bad.ok ? "" : bad.error.code, "bad-policy");
});

Deno.test("[2.3a] [4.2e] trust: what a node has seen survives a crash", () => {
  const { net, hosts } = voters(46, 4);
  const { world } = net;
  const [a, b] = hosts as [Host, Host];
  sayTwice(net, b, [a, hosts[2]!, hosts[3]!]);
  until(net, "it is agreed", () => row(net, a, b).agreedPpm < 310_000);
  world.run(20_000);
  const seen = world.ask<TrustDetail>(a, { verb: "trust-show", node: b.nodeId });
  assert.ok(seen.facts.denied >= 1 && seen.localPpm < 500_000);
  world.crash(a, true);
  world.boot(a);
  world.run(3_000);
  const again = world.ask<TrustDetail>(a, { verb: "trust-show", node: b.nodeId });
  assert.equal(again.facts.denied, seen.facts.denied);
  assert.ok(Math.abs(again.localPpm - seen.localPpm) < 2_000, `${again.localPpm} after ${seen.localPpm}`);
  assert.equal(again.proofs.length, 1);
  until(net, "the agreed score is back", () => row(net, a, b).agreedPpm === row(net, hosts[2]!, b).agreedPpm);
});

Deno.test("[4.2a] [4.2b] trust: voters that take part earn, one that stays away loses a tenth", () => {
  const { net, hosts } = voters(47, 4);
  const { world } = net;
  const away = hosts[3]!;
  const here = hosts.slice(0, 3);
  world.crash(away, true);
  until(
    net,
    "its absence is agreed on",
    () => here.every((one) => row(net, one, away).agreedPpm === 450_000),
    1_800_000,
  );
  for (const one of here) {
    for (const other of here) assert.ok(row(net, one, other).agreedPpm >= 500_000);
  }
  until(net, "who signed has earned", () => row(net, here[0]!, here[0]!).agreedPpm > 500_000, 7_200_000);
  until(net, "all say the same", () => new Set(here.map((one) => trust(net, one).version)).size === 1);
});

Deno.test("[2.3d] [4.2e] trust: after a partition both sides come to the same scores", () => {
  const { net, hosts } = voters(48, 5);
  const { world } = net;
  const [a, b, c, d, liar] = hosts as [Host, Host, Host, Host, Host];
  const [near, far] = [[a, b, c, liar], [d]];
  world.cut(near, far);
  world.cut(far, near);
  world.run(30_000);
  sayTwice(net, liar, [a, b, c]);
  until(net, "the majority agrees", () => [a, b, c].every((one) => row(net, one, liar).agreedPpm < 310_000), 600_000);
  assert.equal(row(net, d, liar).agreedPpm, 500_000, "nothing gets through");
  world.heal();
  until(net, "all agree", () => {
    const seen = [a, b, c, d].map((one) =>
      `${trust(net, one).version} ${row(net, one, liar).agreedPpm} ${trust(net, one).proofs}`
    );
    return new Set(seen).size === 1;
  }, 600_000);
  assert.ok(row(net, d, liar).agreedPpm < 310_000);
});

Deno.test("[4.2b] [4.2d] [4.1e] trust: a voter that commits and withholds its opening is proved, slashed and in the end unseated; what it withheld is decided", () => {
  const { net, hosts } = voters(49, 5);
  const { world } = net;
  net.checkers.decisions.liars = true;
  const liar = hosts[4]!;
  const honest = hosts.slice(0, 4);
  liar.tamper = ({ method, body }) => {
    if (method !== "agreement.msg") return [body];
    const { m } = decodeCbor(body) as { readonly m: readonly Uint8Array[] };
    const own = tableOf(liar).voters.findIndex((one) => one.id === liar.nodeId);
    const said = m.filter((one) => {
      const message = decodeMessage(one);
      return !(message.type === "open" && message.voter === own);
    });
    return [encodeCbor({ m: said })];
  };
  const score = () => row(net, honest[0]!, liar).agreedPpm;
  for (let i = 0; score() >= 300_000 || i === 0; i++) {
    assert.ok(i < 40, `after ${i} decisions it stands at ${score()}`);
    const key = `app/word${i}`;
    world.ask(honest[i % 4]!, { verb: "agreement-submit", key, value: "aGVsbG8", class: "critical" });
    world.run(10_000);
  }
  // Two openings that were withheld are more than a vote is worth.
  seated(net, honest, honest, 900_000);
  for (const one of honest) {
    const proofs = world.ask<{ readonly rows: readonly ProofRow[] }>(one, { verb: "evidence-list" }).rows;
    assert.ok(proofs.length >= 2 && proofs.every((proof) => proof.nodeId === liar.nodeId && proof.kind === "withheld"));
    for (const other of honest) assert.ok(row(net, one, other).agreedPpm >= 500_000, "no honest one is slashed");
    assert.equal(trust(net, one).lies, 0);
  }
});
