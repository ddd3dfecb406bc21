import assert from "node:assert/strict";
import fc from "fast-check";
import {
  decodeElectorate,
  decodeRecordPut,
  encodeElectorate,
  encodeRecordPut,
  genesisTable,
  requiredClass,
} from "../../src/agent/agreed.ts";
import { type Elector, makeElectorate } from "../../src/agent/agreement_electorate.ts";
import {
  AgreementStore,
  decodeDecision,
  decodeInstance,
  decodeProof,
  encodeDecision,
  encodeInstance,
  encodeProof,
  proofsOf,
} from "../../src/agent/agreement_store.ts";
import { equalBytes, utf8 } from "../../src/core/bytes.ts";
import { WireError } from "../../src/core/codec.ts";
import { sha256 } from "../../src/core/crypto.ts";
import { nodeIdOf } from "../../src/core/ids.ts";
import { Consensus } from "../../src/consensus/consensus.ts";
import type { ConsensusEffect } from "../../src/consensus/effects.ts";
import { toleratedFaults, totalSeats } from "../../src/consensus/weights.ts";
import { RECORD_LIFE_MS_MAX, sealSpore } from "../../src/spore/record.ts";
import { keyOf } from "./kit.ts";

const NETWORK = sha256(utf8("network"));
const KEY = keyOf("founder");

/** One voter decides one write: what it stores, and what came of it. */
function decide(): {
  readonly stored: readonly Uint8Array[];
  readonly decision: Uint8Array;
  readonly proof: Uint8Array;
} {
  const core = new Consensus({
    networkId: NETWORK,
    id: nodeIdOf(KEY.publicKey),
    key: KEY,
    table: genesisTable(NETWORK, KEY.publicKey),
  });
  const { envelope } = sealSpore(
    { key: "app/x", seq: 5, value: utf8("v"), issuedMs: 5, expiresMs: 5 + RECORD_LIFE_MS_MAX },
    NETWORK,
    KEY,
  );
  const body = encodeRecordPut({ envelope, replaces: new Uint8Array(0), basis: new Uint8Array(0), proofs: [] });
  assert.ok(equalBytes(encodeRecordPut(decodeRecordPut(body)), body));
  const stored: Uint8Array[] = [];
  const todo: ConsensusEffect[] = [];
  const submit = { id: 1, class: "critical", lane: "x", priority: 1, operation: { kind: "record/put", body } } as const;
  todo.push(...core.step({ type: "start", nowMs: 10, stored: [], number: 0 }));
  todo.push(...core.step({ type: "submit", nowMs: 10, submits: [submit] }));
  let found: { readonly decision: Uint8Array; readonly proof: Uint8Array } | undefined;
  for (let next = todo.shift(); next; next = todo.shift()) {
    if (next.type === "persist") {
      stored.push(...next.put.map(encodeInstance));
      todo.push(...next.then, ...core.step({ type: "persisted", nowMs: 11, seq: next.seq }));
    } else if (next.type === "verify") {
      todo.push(...core.step({ type: "verified", nowMs: 12, instance: next.instance, vote: Uint8Array.of(1) }));
    } else if (next.type === "decided") {
      const { certificate, operations } = next;
      found = {
        decision: encodeDecision({ certificate, operations: operations! }),
        proof: encodeProof(proofsOf(certificate, operations!)[0]!),
      };
    }
  }
  return { stored, ...found! };
}

Deno.test("agreement's store: what was signed, decided and proved comes back as it was; damaged, it is a WireError and nothing else", () => {
  const { stored, decision, proof } = decide();
  assert.ok(stored.length >= 2);
  for (const one of stored) assert.ok(equalBytes(encodeInstance(decodeInstance(one)), one));
  assert.ok(equalBytes(encodeDecision(decodeDecision(decision)), decision));
  assert.ok(equalBytes(encodeProof(decodeProof(proof)), proof));
  const table = genesisTable(NETWORK, KEY.publicKey);
  const electorate = encodeElectorate({ table, previous: new Uint8Array(32), sinceMs: [7] });
  assert.ok(equalBytes(encodeElectorate(decodeElectorate(electorate)), electorate));
  const readers: readonly [Uint8Array, (input: Uint8Array) => unknown][] = [
    ...stored.map((one) => [one, decodeInstance] as [Uint8Array, (input: Uint8Array) => unknown]),
    [decision, decodeDecision],
    [proof, decodeProof],
    [electorate, decodeElectorate],
  ];
  fc.assert(
    fc.property(fc.constantFrom(...readers), fc.nat(), fc.nat(7), fc.nat(), ([wire, read], at, bit, cut) => {
      const damaged = wire.slice(0, cut % 3 === 0 ? cut % wire.length : wire.length);
      if (damaged.length > 0) damaged[at % damaged.length]! ^= 1 << bit;
      try {
        read(damaged);
      } catch (error) {
        assert.ok(error instanceof WireError, String(error));
      }
    }),
    { numRuns: 1_000 },
  );
});

Deno.test("agreement's store: a record of what was signed that does not read is no reason to forget it", () => {
  const store = new AgreementStore();
  const entries = (key: string) => new Map([[key, Uint8Array.of(1, 2, 3)]]);
  assert.throws(() => store.load(entries("agreement/instance/ab")), WireError);
  assert.throws(() => store.load(entries("agreement/number")), WireError);
  assert.deepEqual(store.load(entries("agreement/proof/app/x")).unreadable, ["agreement/proof/app/x"]);
});

Deno.test("[4.3b] makeElectorate(): in any order the same; who has no seat changes nothing; one voter below a third from four on", () => {
  const electors = (count: number): Elector[] =>
    Array.from({ length: count }, (_, i) => {
      const { publicKey } = keyOf(`elector ${i}`);
      return { id: nodeIdOf(publicKey), publicKey, sinceMs: i % 2 === 0 ? i : undefined };
    });
  const follows = { epoch: 3, previous: sha256(utf8("p")), seed: sha256(utf8("s")) };
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 32 }),
      fc.array(fc.nat(40), { minLength: 32, maxLength: 32 }),
      (count, raw) => {
        const all = electors(count);
        const weightOf = new Map(all.map((one, i) => [one.id, raw[i]!]));
        const weigh = (some: readonly Elector[]) => some.map((one) => weightOf.get(one.id)!);
        const made = makeElectorate(all, weigh, follows, 99);
        if (!made) return assert.ok(raw.slice(0, count).every((one) => one === 0));
        const again = makeElectorate([...all].reverse(), weigh, follows, 99)!;
        assert.ok(equalBytes(encodeElectorate(made), encodeElectorate(again)));
        // A voter checks it with those alone that are in it.
        const seated = all.filter((one) => made.table.voters.some((voter) => voter.id === one.id));
        assert.ok(equalBytes(encodeElectorate(makeElectorate(seated, weigh, follows, 99)!), encodeElectorate(made)));
        const { voters } = made.table;
        if (voters.length >= 4) assert.ok(voters.every((one) => 3 * one.seats < totalSeats(made.table)));
        if (voters.length < 4) assert.equal(toleratedFaults(made.table), 0);
        assert.ok(made.sinceMs.every((ms, i) => ms === (all.find((one) => one.id === voters[i]!.id)!.sinceMs ?? 99)));
      },
    ),
    { numRuns: 200 },
  );
});

Deno.test("[4.4a] requiredClass(): by key, and none for one node's own word", () => {
  const classes = ["agreed/electorate", "agreed/policy", "agreed/role/x", "agreed/trust", "net/a", "app/a", "node/n/x"]
    .map(requiredClass);
  assert.deepEqual(classes, ["critical", "critical", "critical", "standard", "standard", "fast", undefined]);
});
