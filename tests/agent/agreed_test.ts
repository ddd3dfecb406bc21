/** What is agreed, among whole agents in the simulator's world: from the voters to the last device. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { toBase64Url, utf8 } from "../../src/core/bytes.ts";
import { type CborValue, decodeCbor, encodeCbor } from "../../src/core/codec.ts";
import type { KeyPair } from "../../src/core/crypto.ts";
import { decodeElectorate, ELECTORATE_KEY, encodeRecordPut, RECORD_PUT } from "../../src/agent/agreed.ts";
import { UNSHOWN_MS } from "../../src/agent/agreed_watch.ts";
import { encodeDecision } from "../../src/agent/agreement_store.ts";
import { type Certificate, joinSignatures } from "../../src/consensus/certificate.ts";
import { instanceId, operationsHash, signStatement } from "../../src/consensus/statements.ts";
import { tableHash, type WeightTable } from "../../src/consensus/weights.ts";
import { pushValue } from "../../src/spore/messages.ts";
import { signRank } from "../../src/spore/proof.ts";
import { RECORD_LIFE_MS_MAX, sealSpore, type Spore } from "../../src/spore/record.ts";
import { StateMachine } from "../../src/spore/state_machine.ts";
import { Net } from "./kit.ts";
import type { Host } from "../sim/world.ts";

interface Submitted {
  readonly index: number;
  readonly instance: string;
}
interface Shown {
  readonly class: string;
  readonly epoch: number;
  readonly seats: number;
  readonly of: number;
  readonly latent: boolean;
  readonly primary?: boolean;
}

/** Three issuers and a device, all seen by each other; all but the device vote. */
function network(seed: number): { readonly net: Net; readonly issuers: readonly Host[]; readonly hypha: Host } {
  const net = new Net(seed);
  const issuers = [net.founder];
  for (let i = 1; i < 3; i++) issuers.push(net.join(`issuer${i}`, { as: "sclerotium" }));
  const hypha = net.join("hypha", { as: "hypha" });
  net.meshed(...issuers, hypha);
  net.world.until("three vote in both", () => {
    const leader = leaderOf(issuers);
    return leader?.view.primary?.config.voters.length === 3 &&
      net.world.status(hypha).agreement?.voters.length === 3;
  }, 240_000);
  return { net, issuers, hypha };
}

function leaderOf(hosts: readonly Host[]): Host | undefined {
  return hosts.find((one) => one.agent && one.view.primary?.role === "leader");
}

function submit(net: Net, host: Host, key: string, value: string): Submitted {
  return net.world.ask(host, { verb: "agreement-submit", key, value: toBase64Url(utf8(value)) });
}

function standing(host: Host, key: string): string | undefined {
  const value = host.view.spores.get(key)?.winner.spore.record.value;
  return value && new TextDecoder().decode(value);
}

function tableOf(host: Host): WeightTable {
  return decodeElectorate(host.view.spores.get(ELECTORATE_KEY)!.winner.spore.record.value!).table;
}

Deno.test("[4.5a] [4.5d] agreed: what voters decide reaches every node, and a device verifies it from the founder's key", () => {
  const { net, issuers, hypha } = network(401);
  const all = [...issuers, hypha];
  submit(net, issuers[1]!, "agreed/notes/x", "decided");
  net.world.until("all hold it", () => all.every((one) => standing(one, "agreed/notes/x") === "decided"));
  for (const host of all) {
    const shown = net.world.ask<Shown>(host, { verb: "agreed-show", key: "agreed/notes/x" });
    assert.deepEqual([shown.class, shown.seats, shown.of, shown.latent], ["critical", 3, 3, true], host.name);
    assert.equal(shown.primary, host === hypha ? undefined : true);
    const elected = net.world.ask<Shown>(host, { verb: "agreed-show", key: ELECTORATE_KEY });
    assert.ok(elected.epoch < shown.epoch, "each electorate by the one before");
  }
  const missing = net.world.control(hypha, { verb: "agreed-show", key: "agreed/notes/y" });
  assert.ok(!missing.ok && missing.error.code === "not-agreed");
  net.world.run(30_000);
  for (const host of all) {
    const { keys, shown, mismatches } = net.world.status(host).agreed!;
    assert.deepEqual([keys >= 2, shown, mismatches], [true, keys, 0], host.name);
  }
});

Deno.test("[4.5a] agreed: nobody writes there by himself, at any door", () => {
  const { net, issuers, hypha } = network(402);
  for (const host of [issuers[0]!, hypha]) {
    for (const verb of ["spore-put", "primary-put"] as const) {
      const answer = net.world.control(host, { verb, key: "agreed/notes/x", value: "aGVsbG8" });
      assert.ok(!answer.ok && /not-allowed|not-permitted/.test(answer.error.code), `${host.name} ${verb}`);
    }
  }
});

/** A decision that only some have signed. */
function forged(table: WeightTable, networkId: Uint8Array, spore: Spore, signers: readonly KeyPair[]): Uint8Array {
  const none = new Uint8Array(0);
  const put = encodeRecordPut({ envelope: spore.envelope, replaces: none, basis: none, proofs: [] });
  const operations = [{ kind: RECORD_PUT, body: put }];
  const header = {
    table: tableHash(table, networkId),
    class: "critical" as const,
    size: 1,
    proposer: table.voters[0]!.id,
    seq: 1_000_000,
    expiresMs: spore.record.issuedMs + 300_000,
    operations: operationsHash(operations),
    count: 1,
  };
  const part = { round: 0, value: new Uint8Array(32), outcome: Uint8Array.of(1), beacon: new Uint8Array(32) };
  const statement = { type: "precommit", instance: instanceId(header, networkId), ...part } as const;
  const signatures = table.voters.map((one, i) => {
    const key = signers.find((pair) => pair.publicKey.join() === one.publicKey.join()) ?? signers[0]!;
    return [i, signStatement(statement, networkId, key)] as const;
  });
  const certificate: Certificate = { header, ...part, ...joinSignatures(table.voters.length, new Map(signatures)) };
  return encodeDecision({ certificate, operations });
}

function seal(host: Host, key: string, nowMs: number): Spore {
  const { networkId, keyPair } = host.view.state;
  const record = { key, seq: nowMs, value: utf8("forged"), issuedMs: nowMs, expiresMs: nowMs + RECORD_LIFE_MS_MAX };
  return sealSpore(record, networkId, keyPair);
}

Deno.test("[4.5b] [10.1a] agreed: a leader that puts a forged decision into the log changes nothing, on no replica", () => {
  const { net, issuers, hypha } = network(403);
  const { world } = net;
  const leader = leaderOf(issuers)!;
  const other = issuers.find((one) => one !== leader)!;
  const { networkId, keyPair } = leader.view.state;
  const spore = seal(leader, "agreed/notes/forged", world.nowMs);
  const decision = forged(tableOf(leader), networkId, spore, [keyPair]);
  const hand = (): CborValue => {
    const peer = { ...leader.view.sessions.get(other.nodeId)!.peer };
    const answer = world.inject(leader, peer, "primary.decided", encodeCbor({ d: decision }));
    assert.ok(answer.ok && "body" in answer);
    return decodeCbor(answer.body);
  };
  const before = leader.view.primary!.commitIndex;
  assert.equal((hand() as { readonly c: string }).c, "not-certified", "an honest leader does not propose it");
  assert.equal(leader.view.primary!.commitIndex, before);
  // Only a leader asks that question: with this answer it puts everything into the log.
  const honest = StateMachine.prototype.examine;
  try {
    StateMachine.prototype.examine = () => undefined;
    assert.equal((hand() as { readonly c: string }).c, "not-certified", "what it finds itself when it applies");
  } finally {
    StateMachine.prototype.examine = honest;
  }
  assert.ok(leader.view.primary!.commitIndex > before, "it was in the log");
  world.until("all have applied it", () => {
    const { stateIndex } = leader.view.primary!;
    return issuers.every((one) => one.view.primary!.stateIndex >= stateIndex);
  });
  world.run(20_000);
  for (const host of [...issuers, hypha]) {
    assert.equal(standing(host, "agreed/notes/forged"), undefined, host.name);
    const answer = world.control(host, { verb: "agreed-show", key: "agreed/notes/forged" });
    assert.ok(!answer.ok && answer.error.code === "not-agreed");
    assert.equal(world.status(host).agreed!.mismatches, 0);
  }
  submit(net, other, "agreed/notes/real", "still works");
});

Deno.test("[10.1a] agreed: whatever a member asks or hands over, it is answered, and nothing of it stands", () => {
  const { net, issuers, hypha } = network(407);
  const { world } = net;
  const leader = leaderOf(issuers)!;
  const peer = leader.view.sessions.get(hypha.nodeId)!.peer;
  const spore = seal(leader, "agreed/notes/forged", world.nowMs);
  const decision = forged(tableOf(leader), leader.view.state.networkId, spore, [leader.view.state.keyPair]);
  const mutated = fc.tuple(fc.nat(decision.length - 1), fc.integer({ min: 1, max: 255 }), fc.nat(decision.length))
    .map(([at, by, end]) =>
      decision.map((one, i) => i === at ? one ^ by : one).subarray(0, end % 3 === 0 ? end : undefined)
    );
  const bodies = fc.oneof(
    fc.uint8Array({ maxLength: 100 }),
    fc.record({ d: fc.oneof(mutated, fc.uint8Array({ maxLength: 60 }), fc.nat()) }).map((one) => encodeCbor(one)),
    fc.record({
      k: fc.oneof(fc.string({ maxLength: 30 }), fc.constant(ELECTORATE_KEY)),
      f: fc.oneof(fc.maxSafeInteger(), fc.nat(3)),
    })
      .map((one) => encodeCbor(one)),
  );
  fc.assert(
    fc.property(fc.constantFrom("primary.decided", "agreed.warrant"), bodies, (method, body) => {
      const answer = world.inject(leader, peer, method, body);
      if (!answer.ok || !("body" in answer)) return;
      const said = decodeCbor(answer.body) as { readonly c?: string; readonly n?: number };
      assert.ok(method === "agreed.warrant" ? said.n! > 0 : said.c !== "ok", JSON.stringify(said));
    }),
    { numRuns: 150 },
  );
  assert.equal(standing(leader, "agreed/notes/forged"), undefined);
});

Deno.test("[4.5e] agreed: what all issuers sign together and no voter decided is found by who compares", () => {
  const { net, issuers, hypha } = network(404);
  const { world } = net;
  net.checkers.agreed = undefined;
  const { networkId, network: known } = hypha.view.state;
  const spore = seal(issuers[0]!, "agreed/notes/forged", world.nowMs);
  const epoch = known!.chain!.epoch;
  const statement = { tier: "primary", term: 1, index: 2, epoch, untilMs: world.nowMs + 86_400_000 } as const;
  const subject = { networkId, key: "agreed/notes/forged", hash: spore.hash };
  const proof = {
    ...statement,
    signatures: issuers.map((one) => signRank(subject, statement, one.view.state.keyPair)),
  };
  const peer = hypha.view.sessions.get(issuers[0]!.nodeId)!.peer;
  world.inject(hypha, peer, "spore.push", encodeCbor(pushValue([{ spore, proof }])));
  assert.equal(standing(hypha, "agreed/notes/forged"), "forged", "to the Latent Spore a majority's word is enough");
  assert.equal(world.status(hypha).agreed!.mismatches, 0);
  world.until("the device has found it", () => world.status(hypha).agreed!.mismatches === 1, 4 * UNSHOWN_MS);
  const [found] = world.status(hypha).agreed!.recent;
  assert.deepEqual([found!.kind, found!.key, found!.by.length], ["unshown", "agreed/notes/forged", 3]);
  assert.ok(hypha.audits.some((one) => one.action === "agreed-mismatch"));
  // It spreads; who runs a replica sees at once that it is not what stands there.
  world.until(
    "issuers have found it",
    () => issuers.every((one) => world.status(one).agreed!.recent[0]?.kind === "latent-differs"),
    180_000,
  );
});

Deno.test("[4.5a] [4.1d] agreed: decided while Raft has no leader, it is applied when there is one, once", () => {
  const { net, issuers, hypha } = network(405);
  const { world } = net;
  submit(net, issuers[0]!, "agreed/notes/x", "1");
  const leader = leaderOf(issuers)!;
  const others = issuers.filter((one) => one !== leader);
  world.restart(leader);
  assert.equal(leaderOf(issuers), undefined);
  const { index } = submit(net, others[0]!, "agreed/notes/x", "2");
  assert.ok(index > 0);
  world.until(
    "all hold it",
    () => [...issuers, hypha].every((one) => standing(one, "agreed/notes/x") === "2"),
    120_000,
  );
  world.run(70_000);
  for (const host of [...issuers, hypha]) {
    const { late, mismatches, waiting } = world.status(host).agreed!;
    assert.deepEqual([late, mismatches, waiting], [0, 0, 0], host.name);
  }
});

Deno.test("[4.5b] [4.5d] agreed: after all have restarted everything still stands, and shows itself", () => {
  const { net, issuers, hypha } = network(406);
  const { world } = net;
  submit(net, issuers[0]!, "agreed/notes/x", "kept");
  world.until("all hold it", () => [...issuers, hypha].every((one) => standing(one, "agreed/notes/x") === "kept"));
  const { stateIndex } = leaderOf(issuers)!.view.primary!;
  for (const host of [...issuers, hypha]) world.restart(host);
  net.meshed(...issuers, hypha);
  world.until(
    "all have come so far again",
    () => issuers.every((one) => one.view.primary!.stateIndex > stateIndex),
    60_000,
  );
  world.until(
    "all hold it again",
    () => [...issuers, hypha].every((one) => standing(one, "agreed/notes/x") === "kept"),
  );
  for (const host of [...issuers, hypha]) {
    const shown = world.ask<Shown>(host, { verb: "agreed-show", key: "agreed/notes/x" });
    assert.deepEqual([shown.latent, shown.seats], [true, 3], host.name);
  }
  submit(net, issuers[2]!, "agreed/notes/x", "and goes on");
});
