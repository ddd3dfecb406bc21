import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { equalBytes, fromHex, toHex, utf8 } from "../../src/core/bytes.ts";
import { decodeAs, decodeCbor, encodeCbor, WireError } from "../../src/core/codec.ts";
import { sha256 } from "../../src/core/crypto.ts";
import { LIMITS } from "../../src/core/limits.ts";
import {
  type Certificate,
  certificateValue,
  joinSignatures,
  readCertificate,
  verifyCertificate,
} from "../../src/consensus/certificate.ts";
import { Consensus } from "../../src/consensus/consensus.ts";
import { evidenceValue, readEvidence, verifyEvidence } from "../../src/consensus/evidence.ts";
import {
  beaconOf,
  type ConsensusMessage,
  decodeMessage,
  encodeMessage,
  type OpenedSet,
  setHash,
  type SignedCommitment,
} from "../../src/consensus/messages.ts";
import {
  bitOf,
  electorate,
  type Header,
  instanceId,
  type OperationClass,
  signStatement,
} from "../../src/consensus/statements.ts";
import { DrawStream, readTable, tableHash, type WeightTable } from "../../src/consensus/weights.ts";
import { NETWORK_ID } from "../identity/fixture.ts";
import { NETWORK, tableOf, testVoters } from "./kit.ts";
import { Net } from "./net.ts";

/** Golden bytes of every message and every kind of evidence. */
const VECTORS = join(import.meta.dirname!, "..", "wire", "vectors");
type Vector = Readonly<Record<string, string>>;

for (const [count, faults] of [[1, 0], [2, 0], [3, 0], [4, 1]] as const) {
  Deno.test(`[4.1a] [4.1b] Consensus: ${count} voter(s) decide without a clock, f = ${faults}`, () => {
    const net = new Net(count);
    net.submit("n01", {}, { operation: { kind: "test/bad", body: new Uint8Array(0) } });
    net.run();
    assert.equal(net.decided.size, count);
    const certificate = net.certificate();
    assert.deepEqual([bitOf(certificate.outcome, 0), bitOf(certificate.outcome, 1)], [true, false]);
    assert.equal(verifyCertificate(certificate, net.table, NETWORK).ok, true);
    assert.equal(net.cores.get("n01")!.view().toleratedFaults, faults);
  });
}

Deno.test("[4.1a] Consensus: a certificate holds the hash of all openings; one withheld is in it as well", () => {
  const beacons = [false, true].map((withholds) => {
    const net = new Net(4);
    if (withholds) net.passes = (from, _to, { type }) => from !== "n03" || type !== "open";
    net.submit("n01", {});
    net.run(60_000);
    const opened = new Map(
      net.effects.flatMap(({ effect }) => effect.type === "persist" ? effect.put : [])
        .flatMap(({ voting }) => voting?.valid ? [[toHex(voting.valid.certificate.value), voting.valid] as const] : []),
    );
    const certificate = net.certificate();
    const set = opened.get(toHex(certificate.value))!;
    assert.equal(set.nonces.length >= 3, true);
    assert.deepEqual(certificate.beacon, beaconOf(set.nonces, instanceId(certificate.header, NETWORK)));
    assert.equal(verifyCertificate(certificate, net.table, NETWORK).ok, true);
    const other = { ...certificate, beacon: certificate.beacon.map((byte) => byte ^ 1) };
    assert.deepEqual(verifyCertificate(other, net.table, NETWORK), { ok: false, reason: "bad-signature" });
    return toHex(certificate.beacon);
  });
  assert.equal(beacons[0], beacons[1], "withholding changed what is drawn");
});

Deno.test("[4.1a] Consensus: nothing that a fast certificate does not sign can vary in it", () => {
  const net = new Net(4);
  net.submit("n01", { class: "fast" });
  net.run();
  const certificate = net.certificate();
  const of = (one: Partial<Certificate>) => verifyCertificate({ ...certificate, ...one }, net.table, NETWORK);
  assert.equal(of({}).ok, true);
  const hash = new Uint8Array(32).fill(1);
  for (const one of [{ beacon: hash }, { value: hash }, { round: 1 }]) {
    assert.deepEqual(of(one), { ok: false, reason: "malformed" });
  }
});

Deno.test("[4.4b] electorate(): a proposer has one committee per table, whatever it numbers and proposes", () => {
  const voters = testVoters(40);
  const table = tableOf(voters);
  const header = (proposer: string, seq: number, operations: number, of: WeightTable = table): Header => ({
    table: tableHash(of, NETWORK),
    class: "standard",
    size: 16,
    proposer,
    seq,
    expiresMs: 5_000,
    operations: new Uint8Array(32).fill(operations),
    count: 1,
  });
  const names = (one: Header, of: WeightTable = table) =>
    electorate(one, of, NETWORK)!.voters.map(({ id }) => id).join();
  const first = names(header("n01", 1, 1));
  for (let i = 2; i < 50; i++) assert.equal(names(header("n01", i, i)), first);
  assert.notEqual(names(header("n02", 1, 1)), first);
  const next = { ...table, epoch: 2, seed: new Uint8Array(32).fill(7) };
  assert.notEqual(names(header("n01", 1, 1, next), next), first);
});

Deno.test("[4.1d] Consensus: of three voters all are needed; the certificate comes when the third is back", () => {
  const net = new Net(3);
  net.passes = (from, to) => from !== "n03" && to !== "n03";
  net.submit("n01", {});
  net.run(5_000);
  assert.equal(net.decided.size, 0);
  net.passes = () => true;
  net.run(60_000);
  assert.equal(net.decided.size, 3);
});

Deno.test("[4.1d] Consensus: a round whose leader is known not to answer takes one delay, and makes the estimate no longer", () => {
  const options = { delayMs: 900, delayMsMax: 1_000 };
  // Of seven, two are gone: those that would lead the first two rounds.
  const leaders = (proposer: string) => {
    const net = new Net(7, options);
    net.submit(proposer, {});
    const header = net.sent.flatMap(({ message }) => message.type === "propose" ? [message.proposal.header] : [])[0]!;
    const order = new DrawStream("mycelium/consensus/leaders/v1", instanceId(header, NETWORK)).order(7);
    return order.slice(0, 2).map((i) => net.table.voters[i]!.id);
  };
  const proposer = testVoters(7).map(({ id }) => id).find((id) => !leaders(id).includes(id))!;
  const gone = new Set(leaders(proposer));
  const net = new Net(7, options);
  net.passes = (from, to) => !gone.has(from) && !gone.has(to);
  for (const id of net.cores.keys()) net.step(id, { type: "silent", nowMs: net.nowMs, ids: gone });
  const { delayMs } = net.cores.get(proposer)!.view();
  net.submit(proposer, {});
  net.run(2 * delayMs + 10);
  assert.equal(net.decided.size, 5);
  assert.equal(net.certificate().round, 2);
  for (const [id, core] of net.cores) if (!gone.has(id)) assert.equal(core.view().delayMs, delayMs);
});

Deno.test("[4.1a] Consensus: nothing is opened before the set is frozen", () => {
  const net = new Net(7);
  net.submit("n01", {});
  net.run();
  const types = net.sent.map((one) => one.message.type);
  assert.ok(
    types.indexOf("open") > types.indexOf("frozen") && types.indexOf("frozen") > types.lastIndexOf("freeze-request"),
  );
  // Of a commitment a voter gets the shares of its own seats, and no others.
  for (const { message } of net.sent) if (message.type === "commit") assert.equal(message.shares?.length, 32);
});

Deno.test("[4.1a] [4.1b] Consensus: half of the set opens only when the other half has", () => {
  const net = new Net(7);
  net.submit("n01", {});
  net.run();
  const first = new Map<string, number>();
  net.sent.forEach(({ from, message }, i) => message.type === "open" && !first.has(from) && first.set(from, i));
  assert.equal(first.size, 7);
  const starts = [...first.values()].sort((a, b) => a - b);
  // The fifth to open saw the openings of the four before it: theirs to it were sent earlier.
  const early = [...first].filter(([, at]) => at < starts[4]!).map(([id]) => id);
  assert.equal(early.length, 4);
});

Deno.test("[4.1b] [4.1d] Consensus: who crashes after its commitment is recovered from shares, and is known to have withheld", () => {
  const net = new Net(4);
  net.passes = (from, _, message) => from !== "n04" || message.type === "commit" || message.type === "freeze-vote";
  net.votes = () => true;
  net.submit("n01", {});
  net.run(3_000);
  const facts = [...net.decided].filter(([id]) => id !== "n04").flatMap(([, [one]]) => one!.facts);
  assert.ok(net.decided.has("n01") && net.decided.has("n02") && net.decided.has("n03"));
  const ofFourth = facts.filter((one) => one.voter === "n04").map((one) => one.fact);
  const led = net.certificate().round > 0;
  assert.ok(led || ofFourth.every((one) => one === "withheld"), ofFourth.join(" "));
  const evidence = net.effects.flatMap(({ effect }) => effect.type === "evidence" ? [effect.evidence] : []);
  assert.ok(led || evidence.some((one) => one.type === "withheld"));
  for (const one of evidence) {
    const read = readEvidence(decodeCbor(encodeCbor(evidenceValue(one))), "$");
    const verdict = verifyEvidence(read, net.table, NETWORK);
    assert.ok(verdict.ok && verdict.voter === "n04" && verdict.fault === "liveness");
    assert.equal(verifyEvidence(read, net.table, sha256(utf8("another"))).ok, false);
  }
});

Deno.test("[4.1b] Consensus: a leader that hides the frozen set from a voter does not have it convicted of withholding", () => {
  const net = new Net(4);
  const leader = () => net.sent.find(({ message }) => message.type === "freeze-request")?.from;
  net.submit("n01", {});
  let hidden = 0;
  const victim = () => leader() === "n04" ? "n03" : "n04";
  net.passes = (from, to, { type }) => {
    const hides = type === "frozen" && from === leader() && to === victim();
    if (hides) hidden++;
    return !hides;
  };
  net.run(60_000);
  assert.ok(hidden > 0);
  assert.equal(net.decided.size, 4);
  assert.deepEqual(net.effects.filter(({ effect }) => effect.type === "evidence"), []);
  assert.ok(net.sent.some(({ from, message }) => from === victim() && message.type === "open"));
});

Deno.test("[4.1b] Consensus: of four, f = 1 wrong vote changes nothing; with f + 1 = 2 a good operation is refused: here the guarantee ends", () => {
  for (const [liars, accepted] of [[1, true], [2, false]] as const) {
    const net = new Net(4);
    net.votes = (id) => id > `n0${liars}`;
    net.submit("n04", {});
    net.run();
    assert.equal(net.decided.size, 4);
    assert.equal(bitOf(net.certificate().outcome, 0), accepted, `${liars} of 4`);
    assert.equal(net.cores.get("n04")!.view().toleratedFaults, 1);
  }
});

Deno.test("Consensus: facts name who voted with the decision, and the wrong vote is evidence", () => {
  const net = new Net(4);
  net.votes = (id) => id !== "n02";
  net.submit("n01", {});
  net.run();
  const { facts } = net.decided.get("n01")![0]!;
  assert.deepEqual(facts.map((one) => one.fact), ["correct", "wrong", "correct", "correct"]);
  const wrong = net.effects.flatMap(({ effect }) => effect.type === "evidence" ? [effect.evidence] : []);
  assert.ok(wrong.length > 0);
  for (const one of wrong) {
    assert.deepEqual(verifyEvidence(one, net.table, NETWORK), { ok: true, voter: "n02", fault: "vote" });
  }
});

Deno.test("[4.4a] [4.4c] Consensus: fast needs one signature, and everybody looks at it afterwards", () => {
  const net = new Net(4);
  net.votes = (id) => id === "n01";
  net.submit("n01", { class: "fast" });
  net.run();
  assert.equal(net.decided.size, 4);
  const certificate = net.certificate();
  assert.deepEqual(verifyCertificate(certificate, net.table, NETWORK), { ok: true, seats: 1, of: 4 });
  // The others would not have signed it.
  const disputed = net.effects.filter(({ effect }) => effect.type === "disputed").map((one) => one.at);
  assert.deepEqual(disputed, ["n02", "n03", "n04"]);
  // They have it decided by all: then it is evidence.
  const { operations } = net.decided.get("n02")![0]!;
  net.decided.clear();
  net.submit("n02", { class: "critical", operation: operations![0]! });
  net.run();
  const evidence = { type: "wrong-fast", fast: certificate, audit: net.certificate() } as const;
  assert.deepEqual(verifyEvidence(evidence, net.table, NETWORK), { ok: true, voter: "n01", fault: "vote" });
  assert.equal(verifyEvidence({ ...evidence, audit: certificate }, net.table, NETWORK).ok, false);
});

Deno.test("[4.4c] Consensus: a fast certificate that comes before its proposal is looked at all the same", () => {
  const net = new Net(4);
  net.votes = (id) => id !== "n02";
  net.passes = (_, __, { type }) => type !== "propose";
  net.submit("n01", { class: "fast" });
  net.run();
  assert.equal(net.decided.size, 4);
  const proposal = net.sent.find(({ message }) => message.type === "propose")!.message;
  for (const id of ["n02", "n03"]) {
    net.step(id, { type: "message", nowMs: net.nowMs, from: "n01", message: proposal });
  }
  net.run();
  assert.deepEqual(net.effects.filter(({ effect }) => effect.type === "disputed").map((one) => one.at), ["n02"]);
  // Told once.
  assert.equal(net.decided.get("n02")!.length, 1);
});

Deno.test("[10.1b] Consensus: decisions of others, however many and however long they live, leave room for own ones", () => {
  const table = tableOf(testVoters(4));
  const { key } = testVoters(1)[0]!;
  const core = new Consensus({ networkId: NETWORK, id: "n01", key, table, verify: () => true });
  const certificate = (seq: number, expiresMs: number): Certificate => ({
    header: {
      table: tableHash(table, NETWORK),
      class: "fast",
      size: 1,
      proposer: "n02",
      seq,
      expiresMs,
      operations: new Uint8Array(32),
      count: 1,
    },
    round: 0,
    value: new Uint8Array(32),
    outcome: Uint8Array.of(1),
    beacon: new Uint8Array(32),
    signers: Uint8Array.of(2),
    signatures: new Uint8Array(64),
  });
  const nowMs = 1_000;
  const answer = (one: Certificate, at = nowMs) =>
    core.step({ type: "message", nowMs: at, from: "n02", message: { type: "decided", certificate: one } })
      .map((effect) => effect.type === "drop" ? effect.reason : effect.type)[0];
  assert.equal(answer(certificate(1, 2 ** 48)), "stale");
  const half = LIMITS.consensusSettledMax / 2;
  for (let seq = 1; seq <= half; seq++) assert.equal(answer(certificate(seq, 2_000)), "persist");
  assert.equal(answer(certificate(half + 1, 2_000)), "overloaded");
  // What has expired makes room.
  assert.equal(answer(certificate(half + 2, 9_000), 2_001), "persist");
});

Deno.test("[4.3e] [4.4a] [4.4d] Consensus: standard asks a drawn committee, critical all voters", () => {
  const parties = (of: OperationClass) => {
    const net = new Net(13);
    for (const core of net.cores.values()) core.step({ type: "committee", nowMs: net.nowMs, size: 7 });
    net.submit("n01", { class: of });
    net.run();
    assert.equal(verifyCertificate(net.certificate(), net.table, NETWORK).ok, true);
    return new Set(net.sent.filter((one) => one.message.type === "commit").map((one) => one.from)).size;
  };
  assert.equal(parties("standard"), 7);
  assert.equal(parties("critical"), 13);
});

Deno.test("[4.4e] Consensus: what is submitted together is one instance and one certificate", () => {
  const net = new Net(4);
  net.submit("n01", ...Array.from({ length: 256 }, () => ({})));
  net.run();
  assert.equal(net.decided.get("n03")!.length, 1);
  assert.equal(net.certificate().header.count, 256);
});

Deno.test("[4.1c] Consensus: more than the pipeline waits in the queue, and can be cancelled there", () => {
  const net = new Net(4);
  for (let id = 1; id <= 6; id++) net.submit("n01", { id });
  assert.equal(net.cores.get("n01")!.view().queued, 2);
  net.step("n01", { type: "cancel", nowMs: net.nowMs, id: 6 });
  net.step("n01", { type: "cancel", nowMs: net.nowMs, id: 1 });
  const cancelled = net.effects.flatMap(({ effect }) => effect.type === "cancelled" ? [[effect.id, effect.done]] : []);
  assert.deepEqual(cancelled, [[6, true], [1, false]]);
  net.run();
  assert.equal(net.decided.get("n04")!.length, 5);
});

Deno.test("[4.1d] Consensus: a voter that restarts at any point says nothing that contradicts what it has said", () => {
  for (const point of ["commit", "freeze-vote", "open", "precommit"] as const) {
    const net = new Net(4);
    net.submit("n01", {});
    let crashed = false;
    net.passes = (from, _, message) => {
      if (from === "n02" && message.type === point && !crashed) crashed = true;
      return from !== "n02" || !crashed;
    };
    net.run(0);
    net.passes = () => true;
    net.votes = () => false;
    net.restart("n02");
    net.run(30_000);
    assert.ok(net.decided.has("n02"), `n02 does not decide after a crash at its ${point}`);
    const accused = net.effects.filter(({ effect }) =>
      effect.type === "evidence" && effect.evidence.type !== "withheld"
    );
    assert.deepEqual(accused, [], `evidence after a crash at ${point}`);
  }
});

Deno.test("[4.1d] Consensus: where liars froze a second set in a round, who restarts in between precommits one of them only", () => {
  const net = new Net(4);
  net.passes = (_, __, { type }) => type !== "precommit";
  net.submit("n01", {});
  net.run(0);
  // More than f: the keys of three sign the freeze of a smaller set of the same round.
  const { message: frozen } = net.sent.find(({ message }) => message.type === "frozen")!;
  assert.ok(frozen.type === "frozen");
  const { instance, set: { entries }, certificate: { round } } = frozen;
  const set = { round: 0, entries: entries.filter(({ voter }) => voter !== 1) };
  const value = setHash(set, instance);
  const signatures = [0, 2, 3].map((voter) =>
    [
      voter,
      signStatement({ type: "freeze", instance, round, value }, NETWORK, testVoters(4)[voter]!.key),
    ] as const
  );
  const certificate = { round, value, ...joinSignatures(4, new Map(signatures)) };
  const before = net.sent.length;
  assert.ok(net.sent.some(({ from, message }) => from === "n02" && message.type === "precommit"));
  net.restart("n02");
  const tell = (from: string, message: ConsensusMessage) =>
    net.step("n02", { type: "message", nowMs: net.nowMs, from, message });
  const told = net.sent.slice(0, before).filter(({ to }) => to === "n02");
  for (const { from, message } of told) if (message.type === "commit") tell(from, message);
  tell("n03", { type: "frozen", instance, certificate, set });
  for (const { message } of net.sent.slice(0, before)) {
    if (message.type === "open") tell(`n0${message.voter + 1}`, { ...message, value });
  }
  const precommits = net.sent.slice(before).filter(({ from, message }) =>
    from === "n02" && message.type === "precommit"
  );
  assert.deepEqual(precommits, []);
  assert.match(
    net.cores.get("n02")!.describe().join(),
    new RegExp(`locked 0 ${toHex(frozen.certificate.value).slice(0, 6)}`),
  );
});

Deno.test("[4.1d] Consensus: an opened set with a commitment whose signature was changed is refused: it would be no proof against its voter", () => {
  const net = new Net(4);
  net.submit("n01", {});
  net.passes = (_, to, { type }) => type !== "precommit" && to !== "n04";
  net.run(9_000);
  const lock = net.sent.find(({ message }) => message.type === "lock")?.message;
  const propose = net.sent.find(({ message }) => message.type === "propose")!.message;
  assert.ok(lock?.type === "lock");
  const drops = (opened: OpenedSet) => {
    const key = testVoters(4)[3]!.key;
    const core = new Consensus({ networkId: NETWORK, id: "n04", key, table: net.table });
    core.step({ type: "message", nowMs: net.nowMs, from: "n01", message: propose });
    return core.step({ type: "message", nowMs: net.nowMs, from: "n01", message: { ...lock, opened } })
      .flatMap((one) => one.type === "drop" ? [one.reason] : []);
  };
  const [first, ...rest] = lock.opened.commitments as [SignedCommitment, ...SignedCommitment[]];
  assert.deepEqual(drops(lock.opened), []);
  const changed = { ...first, signature: first.signature.map((byte) => byte ^ 1) };
  assert.deepEqual(drops({ ...lock.opened, commitments: [changed, ...rest] }), ["invalid"]);
});

Deno.test("Consensus: who comes with this node's own id is not believed as itself", () => {
  const net = new Net(4);
  net.submit("n01", {});
  net.run();
  const core = new Consensus({ networkId: NETWORK, id: "n02", key: testVoters(2)[1]!.key, table: net.table });
  for (const { message } of net.sent) {
    const effects = core.step({ type: "message", nowMs: net.nowMs, from: "n02", message });
    assert.deepEqual(effects, [{ type: "drop", from: "n02", reason: "unexpected" }]);
  }
});

Deno.test("[4.1d] Consensus: what is signed leaves after its record", () => {
  const net = new Net(4);
  net.submit("n01", {});
  net.run();
  const signed = new Set(["commit", "freeze-vote", "precommit", "propose"]);
  // None stands directly among the effects of a step: all wait inside a persist.
  const core = new Consensus({ networkId: NETWORK, id: "n01", key: testVoters(1)[0]!.key, table: net.table });
  const operation = { kind: "x", body: new Uint8Array(0) };
  const submits = [{ id: 1, class: "critical" as const, lane: "a", priority: 1, operation }];
  const [proposed] = core.step({ type: "submit", nowMs: 5, submits });
  assert.ok(proposed?.type === "persist" && proposed.number === 1);
  const verify = proposed.then.find((one) => one.type === "verify")!;
  assert.ok(verify.type === "verify");
  const effects = core.step({ type: "verified", nowMs: 6, instance: verify.instance, vote: Uint8Array.of(1) });
  assert.ok(!effects.some((one) => one.type === "send" && signed.has(one.message.type)));
  assert.ok(effects.some((one) => one.type === "persist" && one.then.some((two) => two.type === "send")));
});

Deno.test("[4.1d] Consensus: an instance that has used up its rounds fails, and is decided all the same when the certificate comes", () => {
  const net = new Net(4, { roundsMax: 4 });
  net.passes = (_, __, message) => message.type !== "precommit";
  net.submit("n01", {});
  net.run(60_000);
  const failed = net.effects.filter(({ effect }) => effect.type === "failed");
  assert.deepEqual(failed.map(({ at }) => at).sort(), ["n01", "n02", "n03", "n04"]);
  // The same in a network that loses nothing.
  const other = new Net(4);
  other.submit("n01", {});
  other.run();
  const message = { type: "decided", certificate: other.certificate() } as const;
  net.step("n04", { type: "message", nowMs: net.nowMs, from: "n01", message });
  assert.deepEqual(net.decided.get("n04")?.map((one) => one.certificate), [other.certificate()]);
});

Deno.test("[4.1d] [4.4d] Consensus: a lock outlives its round: a set that one voter has precommitted is carried, not replaced", () => {
  const net = new Net(4);
  net.submit("n01", {});
  // The leader's decision reaches nobody, itself included: precommits are lost.
  net.passes = (_, __, message) => message.type !== "precommit";
  net.run(1_450);
  net.passes = () => true;
  net.run(60_000);
  const carried = net.sent.some(({ message }) => message.type === "freeze-request" && message.carried !== undefined);
  assert.ok(carried && net.certificate().round > 0);
  assert.equal(new Set([...net.decided.values()].map(([one]) => toHex(one!.certificate.value))).size, 1);
});

Deno.test("[4.4d] verifyCertificate(): any changed byte, fewer signers, another table or network is refused", () => {
  const net = new Net(4);
  net.submit("n01", {});
  net.run();
  const certificate = net.certificate();
  assert.equal(verifyCertificate(certificate, tableOf(testVoters(5)), NETWORK).ok, false);
  assert.equal(verifyCertificate(certificate, net.table, sha256(utf8("other"))).ok, false);
  const two = { signers: Uint8Array.of(3), signatures: certificate.signatures.subarray(0, 128) };
  assert.deepEqual(verifyCertificate({ ...certificate, ...two }, net.table, NETWORK), { ok: false, reason: "too-few" });
  const wire = encodeCbor(certificateValue(certificate));
  assert.ok(wire.length < 500);
  let changed = 0;
  for (let i = 0; i < wire.length; i++) {
    const other = wire.slice();
    other[i]! ^= 1 << (i % 8);
    let read: Certificate;
    try {
      read = readCertificate(decodeCbor(other), "$");
    } catch (error) {
      assert.ok(error instanceof WireError);
      continue;
    }
    assert.equal(verifyCertificate(read, net.table, NETWORK).ok, false, `byte ${i}`);
    changed++;
  }
  assert.ok(changed > 250, `${changed}`);
});

Deno.test("[10.1b] decodeMessage(): all messages come back as they were; damaged ones give a WireError or a message", () => {
  const net = new Net(4);
  net.votes = (id) => id !== "n02";
  let lost = 0;
  net.passes = (_, __, message) => message.type !== "precommit" || lost++ > 8;
  net.submit("n01", {});
  net.run(30_000);
  const hex = Object.values(JSON.parse(readFileSync(join(VECTORS, "consensus_messages.json"), "utf8")) as Vector);
  // Those of this instance, which the core acts on, and one of each type.
  const byType = new Map(net.sent.map((one) => [one.message.type, one.message]));
  assert.ok(byType.size >= 8 && hex.length === 12, [...byType.keys()].join(" "));
  const wires = [...[...byType.values()].map(encodeMessage), ...hex.map((one) => fromHex(one)!)];
  for (const wire of wires) assert.ok(equalBytes(encodeMessage(decodeMessage(wire)), wire));
  const core = net.cores.get("n01")!;
  fc.assert(
    fc.property(fc.constantFrom(...wires), fc.nat(), fc.nat(7), fc.nat(), (wire, at, bit, cut) => {
      const damaged = wire.slice(0, cut % 3 === 0 ? cut % wire.length : wire.length);
      if (damaged.length > 0) damaged[at % damaged.length]! ^= 1 << bit;
      let message: ConsensusMessage;
      try {
        message = decodeMessage(damaged);
      } catch (error) {
        return assert.ok(error instanceof WireError, String(error));
      }
      // Whatever reads is handled: the core neither throws nor decides anything else.
      for (const effect of core.step({ type: "message", nowMs: net.nowMs, from: "n03", message })) {
        assert.notEqual(effect.type, "decided");
      }
    }),
    { numRuns: 1_500 },
  );
});

Deno.test("[10.1b] readEvidence(): damaged evidence of any kind gives a WireError or proves nothing", () => {
  const vector = JSON.parse(readFileSync(join(VECTORS, "consensus_evidence.json"), "utf8")) as Vector;
  const { table: tableHex, tableHash: _, certificate: __, ...kinds } = vector;
  const table = decodeAs(fromHex(tableHex!)!, readTable);
  const wires = Object.values(kinds).map((one) => fromHex(one)!);
  const proves = (wire: Uint8Array) => verifyEvidence(decodeAs(wire, readEvidence), table, NETWORK_ID).ok;
  assert.deepEqual([wires.length, wires.filter(proves).length], [7, 5]);
  fc.assert(
    fc.property(fc.constantFrom(...wires), fc.nat(), fc.nat(7), fc.nat(), (wire, at, bit, cut) => {
      const damaged = wire.slice(0, cut % 4 === 0 ? cut % wire.length : wire.length);
      if (damaged.length > 0) damaged[at % damaged.length]! ^= 1 << bit;
      try {
        assert.equal(proves(damaged), false);
      } catch (error) {
        assert.ok(error instanceof WireError, String(error));
      }
    }),
    { numRuns: 1_500 },
  );
});
