import assert from "node:assert/strict";
import fc from "fast-check";
import { WireError } from "../../src/core/codec.ts";
import { LIMITS } from "../../src/core/limits.ts";
import { ELECTORATE_KEY } from "../../src/agent/agreed.ts";
import { NetworkLaw, verifyAgreedRecord } from "../../src/agent/agreed_law.ts";
import { encodeDecision } from "../../src/agent/agreement_store.ts";
import type { Decision } from "../../src/agent/certified.ts";
import { type Certificate, joinSignatures } from "../../src/consensus/certificate.ts";
import { instanceId, type Operation, operationsHash, signStatement } from "../../src/consensus/statements.ts";
import { tableHash, totalSeats } from "../../src/consensus/weights.ts";
import { encodePolicy } from "../../src/trust/policy.ts";
import { DECISION_GRACE_MS } from "../../src/spore/agreed_state.ts";
import { encodeCommand, StateMachine } from "../../src/spore/state_machine.ts";
import { decide, electorateRecord, emergency, keyOf, Log, NETWORK, put, record, ROOT, same, T0 } from "./agreed_kit.ts";

type Certified = Extract<Decision, { readonly certificate: Certificate }>;

const POLICY = { min: new Map(), vouched: [], classes: [] };
const policy = (classes: readonly { readonly prefix: string; readonly class: "standard" | "critical" }[]) =>
  encodePolicy({ ...POLICY, classes });

/** A log whose electorate is keys 1 to `count`. */
function electedLog(count = 4): Log {
  const log = new Log();
  assert.deepEqual(log.elect(Array.from({ length: count }, (_, i) => i + 1)).outcomes, ["ok"]);
  return log;
}

Deno.test("[4.5a] law: what the voters decide stands in the state, signed by its proposer, with what shows it", () => {
  const log = electedLog();
  assert.equal(log.table.voters.length, 4);
  assert.equal(log.table.epoch, 1);
  const spore = record("agreed/role/guard", "may look", { by: 2 });
  const result = log.decided(decide(log.table, [put(spore)], { by: 2 }));
  assert.deepEqual(result, { code: "ok", index: log.machine.index, outcomes: ["ok"] });
  assert.deepEqual(log.get("agreed/role/guard")!.hash, spore.hash);
  const warrant = log.machine.agreed.warrantOf("agreed/role/guard")!;
  assert.deepEqual(log.law.shown(warrant, [log.machine.agreed.electorate]), spore.hash);
});

Deno.test("[4.5a] law: operations that the voters refuse do nothing; those beside them are carried out", () => {
  const log = electedLog();
  const [good, bad] = [record("agreed/role/a", "good"), record("agreed/role/b", "bad")];
  const operations = [put(good), put(bad)];
  const decision = decide(log.table, operations, { refuses: (one) => one === operations[1] });
  assert.deepEqual(log.decided(decision).outcomes, ["ok", "rejected"]);
  assert.equal(log.get("agreed/role/b"), undefined);
  assert.equal(log.machine.agreed.warrantOf("agreed/role/b"), undefined);
});

Deno.test("[4.5a] law: a decision counts once, by whomever and however often it is brought", () => {
  const log = electedLog();
  const [first, second] = [record("app/x", "1"), record("app/x", "2", { issuedMs: T0 + 1 })];
  const decision = decide(log.table, [put(first)], { class: "fast" });
  const { index } = log.decided(decision);
  assert.deepEqual(log.decided(decide(log.table, [put(second, first)], { class: "fast" })).outcomes, ["ok"]);
  assert.deepEqual(log.decided(decision), { code: "unchanged", index, outcomes: ["ok"] });
  assert.deepEqual(log.machine.examine(encodeDecision(decision)), { code: "unchanged", index, outcomes: ["ok"] });
  assert.deepEqual(log.get("app/x")!.hash, second.hash);
  // Also when another electorate votes since: who is late must hear that it was carried out.
  const elected = log.electorate([1, 2, 3, 4, 5]);
  const election = decide(log.table, [put(elected, log.get(ELECTORATE_KEY))]);
  const at = log.decided(election).index;
  assert.deepEqual(log.decided(election), { code: "unchanged", index: at, outcomes: ["ok"] });
  assert.deepEqual(log.decided(decision), { code: "unchanged", index, outcomes: ["ok"] });
});

Deno.test("[4.5a] law: a decision is applied until an hour after its end, then refused, remembered or not", () => {
  const log = electedLog();
  const spore = record("app/x", "late");
  const decision = decide(log.table, [put(spore)], { class: "fast", nowMs: T0, lifeMs: 60_000 }) as Certified;
  const copy = new Log();
  for (const { data } of log.entries.slice(1)) copy.raw(data);
  log.timeMs = decision.certificate.header.expiresMs + DECISION_GRACE_MS - 1;
  assert.equal(log.decided(decision).code, "ok");
  log.timeMs += 1;
  assert.equal(log.decided(decision).code, "unchanged");
  copy.timeMs = log.timeMs;
  assert.equal(copy.decided(decision).code, "expired");
});

Deno.test("[4.5a] law: of one proposer a bounded number is remembered; what ends as early as the forgotten is refused", () => {
  const log = electedLog(1);
  const decisions: Certified[] = [];
  const max = LIMITS.agreedInstancesPerProposerMax;
  for (let i = 0; i <= max; i++) {
    const spore = record(`app/k${i}`, "x");
    decisions.push(decide(log.table, [put(spore)], { class: "fast", nowMs: T0 + i }) as Certified);
    assert.equal(log.decided(decisions[i]!).code, "ok");
  }
  assert.equal(log.decided(decisions[0]!).code, "expired");
  assert.equal(log.decided(decisions[1]!).code, "unchanged");
  assert.equal(log.decided(decisions.at(-1)!).code, "unchanged");
});

/** A certificate with another content, signed anew by these keys. */
function signed(
  log: Log,
  operations: readonly Operation[],
  keys: readonly number[],
  over: Partial<Certificate["header"]> = {},
): Certified {
  const table = log.table;
  const proposer = table.voters[0]!.id;
  const header = {
    table: tableHash(table, NETWORK),
    class: "critical" as const,
    size: 1,
    proposer,
    seq: 9,
    expiresMs: T0 + 60_000,
    operations: operationsHash(operations),
    count: operations.length,
    ...over,
  };
  const outcome = new Uint8Array((operations.length + 7) >> 3).fill(0);
  for (let i = 0; i < operations.length; i++) outcome[i >> 3]! |= 1 << (i & 7);
  const part = { round: 0, value: new Uint8Array(32).fill(1), outcome, beacon: new Uint8Array(32).fill(2) };
  const statement = { type: "precommit", instance: instanceId(header, NETWORK), ...part } as const;
  const signatures = new Map(keys.flatMap((n) => {
    const at = table.voters.findIndex((one) => one.publicKey.join() === keyOf(n).publicKey.join());
    return at < 0 ? [] : [[at, signStatement(statement, NETWORK, keyOf(n))] as const];
  }));
  return { certificate: { header, ...part, ...joinSignatures(table.voters.length, signatures) }, operations };
}

Deno.test("[4.5b] law: a leader that forges is refused, by every replica and before that by itself", () => {
  const log = electedLog(4);
  const spore = record("agreed/role/root", "all", { by: 2 });
  const operations = [put(spore)];
  const genuine = decide(log.table, operations) as Certified;
  const other = new Log();
  other.elect([5, 6, 7, 8]);
  const flipped = (field: "signatures" | "outcome" | "value" | "beacon") => {
    const bytes = genuine.certificate[field].slice();
    bytes[0]! ^= 1;
    return { ...genuine, certificate: { ...genuine.certificate, [field]: bytes } };
  };
  const forged: readonly (readonly [string, Decision, string])[] = [
    ["two of four", signed(log, operations, [1, 2]), "not-certified"],
    ["three of four, one of them no voter", signed(log, operations, [1, 2, 9]), "not-certified"],
    ["another signature", flipped("signatures"), "not-certified"],
    ["another outcome", flipped("outcome"), "not-certified"],
    ["another set", flipped("value"), "not-certified"],
    ["another beacon", flipped("beacon"), "not-certified"],
    ["a foreign table", decide(other.table, operations, { by: 5 }), "foreign-table"],
    ["the genesis table, when another one votes", decide(new Log().table, operations), "foreign-table"],
    ["a class that is too low", decide(log.table, operations, { class: "standard" }), "class-too-low"],
    ["one voter's word", decide(log.table, operations, { class: "fast" }), "class-too-low"],
    ["operations of another certificate", { ...genuine, operations: [put(record("agreed/role/x", "y"))] }, "malformed"],
    ["an operator's word for something else", {
      ...emergency(log.law, log.machine.agreed.electorate, spore),
    }, "class-too-low"],
    [
      "a stranger's word for an electorate",
      emergency(log.law, log.machine.agreed.electorate, log.electorate([1]), keyOf(2)),
      "not-certified",
    ],
  ];
  const before = log.machine.snapshot();
  for (const [what, decision, code] of forged) {
    assert.equal(log.machine.examine(encodeDecision(decision))?.code, code, `${what}: by itself`);
    const replica = new StateMachine(NETWORK, new NetworkLaw(ROOT));
    replica.restore(before);
    const data = encodeCommand({ op: "decided", timeMs: T0, decision: encodeDecision(decision) });
    const { result, changed } = replica.apply({ index: replica.index + 1, term: 1, data });
    assert.equal(result.code, code, what);
    assert.deepEqual([...changed], []);
    assert.equal(replica.get("agreed/role/root"), undefined, what);
  }
  assert.equal(log.machine.examine(encodeDecision(genuine)), undefined, "the genuine one passes");
  assert.equal(log.decided(genuine).code, "ok");
});

Deno.test("[4.5b] law: nobody writes under agreed/ by himself, issuer or not, nor deletes there", () => {
  const log = electedLog();
  const session = log.raw(encodeCommand({ op: "open", timeMs: T0, client: log.table.voters[0]!.id })).index;
  for (const [i, spore] of [record("agreed/role/x", "1"), record(ELECTORATE_KEY, undefined)].entries()) {
    const { envelope } = spore;
    const client = log.table.voters[0]!.id;
    const write = { op: "write", timeMs: T0, client, session, seq: i + 1, floor: 1, envelope } as const;
    assert.equal(log.raw(encodeCommand(write)).code, "not-permitted");
  }
});

Deno.test("[4.5b] law: a certificate is no right to speak for another node, nor for issuers", () => {
  const log = electedLog();
  const node = log.table.voters[1]!.id;
  const foreign = record(`node/${node}/name`, "x", { by: 1 });
  const net = record("net/motd", "x", { by: 9 });
  assert.deepEqual(log.decided(decide(log.table, [put(foreign), put(net)])).outcomes, [
    "not-permitted",
    "not-permitted",
  ]);
});

Deno.test("[4.5b] law: an operation counts against the very version that it was decided about", () => {
  const log = electedLog();
  const [a, b, c] = ["1", "2", "3"].map((value, i) => record("agreed/role/x", value, { issuedMs: T0 + i }));
  assert.deepEqual(log.decided(decide(log.table, [put(a!)])).outcomes, ["ok"]);
  const late = decide(log.table, [put(c!, a)]);
  assert.deepEqual(log.decided(decide(log.table, [put(b!, a)])).outcomes, ["ok"]);
  assert.deepEqual(log.decided(late).outcomes, ["conflict"]);
  assert.deepEqual(log.decided(decide(log.table, [put(c!, b, a)])).outcomes, ["conflict"], "its basis is replaced");
  const based = record("agreed/role/y", "1");
  assert.deepEqual(log.decided(decide(log.table, [put(based, undefined, b)])).outcomes, ["ok"]);
  assert.deepEqual(log.get("agreed/role/x")!.hash, b!.hash);
});

Deno.test("[4.4a] [4.5b] law: a policy raises what a key asks for, for decisions and for plain writes; it lowers nothing", () => {
  const log = electedLog();
  const classes = policy([{ prefix: "app/pay/", class: "critical" }, { prefix: "agreed/", class: "standard" }]);
  assert.deepEqual(log.decided(decide(log.table, [put(record("agreed/policy", classes))])).outcomes, ["ok"]);
  const pay = record("app/pay/a", "1");
  assert.equal(log.decided(decide(log.table, [put(pay)], { class: "standard" })).code, "class-too-low");
  assert.deepEqual(log.decided(decide(log.table, [put(pay)])).outcomes, ["ok"]);
  const role = record("agreed/role/x", "1");
  assert.equal(log.decided(decide(log.table, [put(role)], { class: "standard" })).code, "class-too-low");
  const client = log.table.voters[0]!.id;
  const session = log.raw(encodeCommand({ op: "open", timeMs: T0, client })).index;
  const write = (key: string, seq: number) =>
    log.raw(encodeCommand({
      op: "write",
      timeMs: T0,
      client,
      session,
      seq,
      floor: 1,
      envelope: record(key, "2").envelope,
    })).code;
  assert.equal(write("app/pay/a", 1), "class-too-low");
  assert.equal(write("app/other", 2), "ok");
});

Deno.test("[4.5b] law: a drawn committee below the smallest proves nothing", () => {
  const log = electedLog(40);
  const scores = record("agreed/trust", "scores");
  assert.equal(
    log.decided(decide(log.table, [put(scores)], { class: "standard", committee: 7 })).code,
    "class-too-low",
  );
  assert.deepEqual(log.decided(decide(log.table, [put(scores)], { class: "standard", committee: 16 })).outcomes, [
    "ok",
  ]);
});

Deno.test("[4.5c] law: electorates follow each other one by one, each decided by the one before, seeded by what was opened", () => {
  const log = new Log();
  assert.deepEqual([log.table.epoch, log.table.voters.map((one) => one.id)], [0, [log.table.voters[0]!.id]]);
  const seeds: string[] = [];
  for (const voters of [[1, 2], [1, 2, 3, 4], [2, 3, 4, 5], [6, 7, 8, 9]]) {
    const by = voters.includes(1) ? 1 : log.table.epoch === 2 ? 2 : 3;
    assert.deepEqual(log.elect(voters, by).outcomes, ["ok"], voters.join());
    assert.equal(log.table.voters.length, voters.length);
    seeds.push(log.table.seed.join());
  }
  assert.equal(log.table.epoch, 4);
  assert.equal(new Set(seeds).size, 4);
  assert.equal(log.machine.agreed.links.length, 4);
  // What does not follow: an epoch left out, another seed, another table before it.
  const seed = new Uint8Array(32);
  const before = log.get(ELECTORATE_KEY);
  for (const over of [{ epoch: 6 }, { epoch: 4 }, { seed }]) {
    const spore = log.electorate([6, 7], { by: 6, over });
    assert.deepEqual(log.decided(decide(log.table, [put(spore, before)], { by: 6 })).outcomes, ["malformed"]);
  }
  const foreign = electorateRecord(log.law, log.law.genesis, [6], { by: 6 });
  assert.deepEqual(log.decided(decide(log.table, [put(foreign, before)], { by: 6 })).outcomes, ["malformed"]);
  const gone = record(ELECTORATE_KEY, undefined, { by: 6 });
  assert.deepEqual(log.decided(decide(log.table, [put(gone, before)], { by: 6 })).outcomes, ["malformed"]);
  // Two in one decision: the second would follow from one that never voted.
  const [one, two] = [log.electorate([6, 7]), log.electorate([8, 9])];
  assert.deepEqual(log.decided(decide(log.table, [put(one, before), put(two, one)], { by: 6 })).outcomes, [
    "ok",
    "conflict",
  ]);
  assert.deepEqual(log.table.voters.length, 2);
});

Deno.test("[4.3d] [4.5b] law: an operator's word takes the place of a lost quorum, once, for the table that it names", () => {
  const log = electedLog(4);
  const spore = log.electorate([1, 2], { by: 1 });
  const decision = emergency(log.law, log.machine.agreed.electorate, spore);
  assert.equal(log.decided(decision).code, "ok");
  assert.equal(log.table.voters.length, 2);
  assert.equal(log.decided(decision).code, "unchanged");
  assert.deepEqual(log.elect([1, 2, 3]).outcomes, ["ok"]);
  const copy = electedLog(4);
  assert.deepEqual(copy.elect([1, 2, 3]).outcomes, ["ok"]);
  assert.equal(copy.decided(decision).code, "foreign-table", "it was for another table");
});

/** A log in which something of each kind was decided. */
function full(): Log {
  const log = electedLog(4);
  const role = record("agreed/role/x", "1");
  log.decided(decide(log.table, [put(role), put(record("app/a", "1"))]));
  log.decided(decide(log.table, [put(record("agreed/trust", "scores"))], { class: "standard" }));
  log.elect([1, 2, 3, 4, 5]);
  log.decided(decide(log.table, [put(record("agreed/role/y", "2"))]));
  log.decided(decide(log.table, [put(record("agreed/role/x", undefined), role)]));
  return log;
}

Deno.test("[4.5b] law: a snapshot holds all of it, is the same on all replicas, and is believed as little as a command", () => {
  const log = full();
  const bytes = log.machine.snapshot();
  const replica = new StateMachine(NETWORK, new NetworkLaw(ROOT));
  replica.restore(bytes);
  assert.ok(same(replica, log.machine));
  const again = new StateMachine(NETWORK, new NetworkLaw(ROOT));
  for (const entry of log.entries) again.apply(entry);
  assert.ok(same(again, log.machine), "from the log alone");
  // What is remembered came along.
  const decision = decide(log.table, [put(record("agreed/role/z", "3"))]);
  assert.equal(log.decided(decision).code, "ok");
  const late = new StateMachine(NETWORK, new NetworkLaw(ROOT));
  late.restore(log.machine.snapshot());
  assert.equal(late.examine(encodeDecision(decision))?.code, "unchanged");
  // Another founder's network has another chain.
  const foreign = new NetworkLaw({ ...ROOT, founder: keyOf(2).publicKey });
  assert.throws(() => new StateMachine(NETWORK, foreign).restore(bytes), WireError);
});

Deno.test("[4.5b] law: what a lax leader lets into its own state stays there: nobody restores its snapshot", () => {
  const log = full();
  const forged = record("agreed/role/forged", "x", { by: 2 });
  const warrant = log.machine.agreed.warrantOf("agreed/role/y")!;
  // To this one everything is decided; what shows the record shows another one.
  log.law.judge = () => ({
    ok: true,
    rank: 3,
    operations: [{ accepted: true, put: { envelope: forged.envelope, basis: new Uint8Array(0) }, warrant }],
  });
  assert.deepEqual(log.decided(signed(log, [put(forged)], [1])).outcomes, ["ok"]);
  assert.deepEqual(log.get("agreed/role/forged")!.hash, forged.hash);
  assert.throws(
    () => new StateMachine(NETWORK, new NetworkLaw(ROOT)).restore(log.machine.snapshot()),
    { name: "WireError", message: /nobody decided what stands under "agreed\/role\/forged"/ },
  );
});

Deno.test("[4.5d] law: with the network's id and the founder's key alone anybody verifies an agreed record", () => {
  const log = full();
  const { agreed } = log.machine;
  for (const key of [ELECTORATE_KEY, "agreed/trust", "agreed/role/y"]) {
    const verdict = verifyAgreedRecord(ROOT, agreed.links, agreed.warrantOf(key)!);
    assert.ok(verdict.ok, key);
    assert.deepEqual(verdict.spore.hash, log.get(key)!.hash);
    assert.ok(verdict.seats * 3 > verdict.of * 2);
  }
  const trust = verifyAgreedRecord(ROOT, agreed.links, agreed.warrantOf("agreed/trust")!);
  assert.ok(trust.ok && trust.epoch === 1 && trust.class === "standard", "by the electorate of its time");
  // With a link missing, out of order, or of another network there is nothing.
  const warrant = agreed.warrantOf("agreed/role/y")!;
  const fails = (root: typeof ROOT, links: readonly Uint8Array[]) =>
    assert.equal(verifyAgreedRecord(root, links, warrant).ok, false);
  fails(ROOT, agreed.links.slice(1));
  fails(ROOT, agreed.links.toReversed());
  fails(ROOT, agreed.links.slice(0, 1));
  fails({ ...ROOT, founder: keyOf(2).publicKey }, agreed.links);
  fails({ ...ROOT, networkId: new Uint8Array(32) }, agreed.links);
  for (const byte of [3, warrant.length >> 1, warrant.length - 40]) {
    const bad = warrant.map((one, i) => i === byte ? one ^ 1 : one);
    assert.equal(verifyAgreedRecord(ROOT, agreed.links, bad).ok, false, `byte ${byte}`);
  }
});

Deno.test("[10.1a] law: whatever is in the log, replicas neither fall nor differ, and nothing of it is agreed", () => {
  const base = full();
  const snapshot = base.machine.snapshot();
  const genuine = encodeDecision(decide(base.table, [put(record("agreed/role/fuzz", "x"))]));
  const mutate = fc.array(fc.tuple(fc.nat(genuine.length - 1), fc.integer({ min: 1, max: 255 })), {
    minLength: 1,
    maxLength: 4,
  });
  fc.assert(
    fc.property(fc.oneof(mutate, fc.uint8Array({ maxLength: 300 })), fc.nat(genuine.length), (what, cut) => {
      const bytes = what instanceof Uint8Array ? what : genuine.slice();
      if (Array.isArray(what)) { for (const [at, by] of what) bytes[at]! ^= by; }
      const decision = what instanceof Uint8Array ? bytes : cut % 5 === 0 ? bytes.subarray(0, cut) : bytes;
      const replicas = [0, 1].map(() => {
        const machine = new StateMachine(NETWORK, new NetworkLaw(ROOT));
        machine.restore(snapshot);
        const data = encodeCommand({ op: "decided", timeMs: T0, decision });
        const { result } = machine.apply({ index: machine.index + 1, term: 1, data });
        assert.notEqual(result.code, "ok");
        assert.equal(machine.get("agreed/role/fuzz"), undefined);
        return machine;
      });
      assert.ok(same(replicas[0]!, replicas[1]!));
    }),
    { numRuns: 60 },
  );
});

Deno.test("[10.1a] law: a snapshot whose agreed part was changed anywhere is refused or is the same", () => {
  const honest = full().machine;
  const snapshot = honest.snapshot();
  fc.assert(
    fc.property(fc.nat(snapshot.length - 1), fc.integer({ min: 1, max: 255 }), (at, by) => {
      const bytes = snapshot.slice();
      bytes[at]! ^= by;
      const machine = new StateMachine(NETWORK, new NetworkLaw(ROOT));
      try {
        machine.restore(bytes);
      } catch (error) {
        assert.ok(error instanceof WireError, String(error));
        return;
      }
      // What no signature covers (times, places, sessions) may differ; what was decided may not.
      for (const key of [ELECTORATE_KEY, "agreed/trust", "agreed/role/y"]) {
        assert.deepEqual(machine.get(key)?.spore.hash, honest.get(key)!.spore.hash);
      }
      assert.equal(totalSeats(new NetworkLaw(ROOT).standing(machine.agreed.electorate).table), 5);
    }),
    { numRuns: 60 },
  );
});
