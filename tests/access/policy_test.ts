/** Roles, bindings, tokens, throttle: what reads, what counts, what is bounded. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { toHex, utf8 } from "../../src/core/bytes.ts";
import { encodeCbor, WireError } from "../../src/core/codec.ts";
import { equalSecrets, keyPairFromSeed, sha256 } from "../../src/core/crypto.ts";
import { sealEnvelope } from "../../src/core/envelope.ts";
import { LIMITS } from "../../src/core/limits.ts";
import { type Binding, decodeBinding, encodeBinding } from "../../src/access/bindings.ts";
import {
  CHANGE_MS,
  CHANGE_TYPE,
  changeValue,
  judgeChange,
  policyChange,
  TRUST_POLICY_KEY,
} from "../../src/access/change.ts";
import type { Subject } from "../../src/access/decide.ts";
import { AccessPolicy, BINDING_PREFIX, ROLE_PREFIX } from "../../src/access/policy.ts";
import { BUILT_IN_ROLES, builtInRole, decodeRole, encodeRole } from "../../src/access/roles.ts";
import { formatToken, isToken, makeToken, parseToken, tokenHash } from "../../src/access/tokens.ts";
import { Throttle } from "../../src/access/throttle.ts";
import { formatGrant, parseGrant } from "../../src/access/permission.ts";

const NOW = 1_800_000_000_000;
const NETWORK = new Uint8Array(32).fill(1);
const pairOf = (name: string) => keyPairFromSeed(sha256(utf8(name)));
const [FOUNDER, ANNA, MALLORY] = [pairOf("founder"), pairOf("anna"), pairOf("mallory")];

function operator(name: string, role: string, pair = ANNA, expiresMs?: number): Binding {
  return {
    name,
    role,
    subject: { kind: "operator", key: pair.publicKey },
    createdMs: NOW,
    ...(expiresMs === undefined ? {} : { expiresMs }),
  };
}

function subjectOf(pair = ANNA): Subject {
  return { kind: "operator", id: toHex(pair.publicKey), name: "somebody", secondFactor: "none" };
}

Deno.test("every built-in role reads, and names permissions that there are", () => {
  for (const name of BUILT_IN_ROLES) {
    const role = builtInRole(name)!;
    assert.ok(role.grants.length > 0 && role.description.length > 0, name);
    for (const grant of role.grants) assert.deepEqual(parseGrant(formatGrant(grant)), grant);
  }
});

Deno.test("[2.4b] a binding counts from its record until it runs out or is taken back", () => {
  const policy = new AccessPolicy();
  const put = (one: Binding) => policy.put(BINDING_PREFIX + one.name, encodeBinding(one));
  assert.deepEqual(policy.rolesOf(subjectOf(), NOW), []);
  assert.equal(put(operator("anna", "operator", ANNA, NOW + 10)), "taken");
  assert.equal(put(operator("anna-too", "viewer")), "taken");
  assert.deepEqual(policy.rolesOf(subjectOf(), NOW), ["operator", "viewer"]);
  assert.deepEqual(policy.rolesOf(subjectOf(), NOW + 10), ["viewer"]);
  assert.deepEqual(policy.rolesOf(subjectOf(MALLORY), NOW), []);
  // Its record is spoilt: it counts as none, and not as what it was.
  assert.equal(policy.put(`${BINDING_PREFIX}anna-too`, utf8("garbage")), "unreadable");
  assert.deepEqual(policy.rolesOf(subjectOf(), NOW + 10), []);
  put(operator("anna-too", "viewer"));
  assert.equal(policy.put(`${BINDING_PREFIX}anna-too`, undefined), "taken");
  assert.deepEqual(policy.rolesOf(subjectOf(), NOW + 10), []);
  assert.equal(policy.put("app/x", new Uint8Array(0)), "foreign");
});

Deno.test("[2.4b] the founder is admin without a record, and only of his own network", () => {
  const policy = new AccessPolicy();
  assert.deepEqual(policy.rolesOf(subjectOf(FOUNDER), NOW), []);
  policy.setFounder(FOUNDER.publicKey);
  assert.deepEqual(policy.rolesOf(subjectOf(FOUNDER), NOW), ["admin"]);
  policy.clear();
  assert.deepEqual(policy.rolesOf(subjectOf(FOUNDER), NOW), []);
});

Deno.test("[2.4b] what nobody can be given is not given: being a node, being the operator by a token", () => {
  for (const role of ["node", "anyone", "reader", "service", "Admin", "../x", ""]) {
    assert.throws(() => decodeBinding("x", encodeBinding(operator("x", role))), WireError, role);
  }
  const token = (role: string): Binding => ({
    name: "x",
    role,
    subject: { kind: "service", tokenId: "00".repeat(8), hash: new Uint8Array(32), service: "shop" },
    createdMs: NOW,
  });
  for (const role of ["operator", "admin", "node", "anyone"]) {
    assert.throws(() => decodeBinding("x", encodeBinding(token(role))), WireError, role);
  }
  for (const role of ["service", "viewer", "backup"]) decodeBinding("x", encodeBinding(token(role)));
  // Several subjects in one record, or none.
  const both = { r: "viewer", c: 0, k: ANNA.publicKey, n: "node" };
  assert.throws(() => decodeBinding("x", encodeCbor(both)), WireError);
  assert.throws(() => decodeBinding("x", encodeCbor({ r: "viewer", c: 0 })), WireError);
  // No role of that name makes another one of a built-in one.
  for (const name of [...BUILT_IN_ROLES, "A", "a/b", ""]) {
    assert.throws(() => decodeRole(name, encodeCbor({ g: ["*"] })), WireError, name);
  }
});

Deno.test("roles and bindings are bounded; a further one counts as none", () => {
  const policy = new AccessPolicy();
  const role = encodeRole({ name: "a", description: "", grants: [parseGrant("status.read")!] });
  for (let i = 0; i < LIMITS.accessRolesMax; i++) assert.equal(policy.put(`${ROLE_PREFIX}r${i}`, role), "taken");
  assert.equal(policy.put(`${ROLE_PREFIX}more`, role), "full");
  assert.equal(policy.put(`${ROLE_PREFIX}r1`, role), "taken", "one that is there is replaced");
  const grants = Array.from({ length: LIMITS.accessGrantsMax + 1 }, () => "status.read");
  assert.throws(() => decodeRole("a", encodeCbor({ g: grants })), WireError);
  for (let i = 0; i < LIMITS.accessBindingsMax; i++) {
    assert.equal(policy.put(`${BINDING_PREFIX}b${i}`, encodeBinding(operator("b", "viewer", ANNA))), "taken");
  }
  assert.equal(policy.put(`${BINDING_PREFIX}more`, encodeBinding(operator("more", "admin"))), "full");
  assert.ok(!policy.rolesOf(subjectOf(), NOW).includes("admin"));
});

Deno.test("[10.5e] records of garbage are read as none, whatever they are", () => {
  const policy = new AccessPolicy();
  const good = [
    encodeBinding(operator("x", "viewer")),
    encodeRole({ name: "a", description: "d", grants: [parseGrant("spore.write:app/x/*")!] }),
  ];
  const key = fc.constantFrom(`${ROLE_PREFIX}x`, `${BINDING_PREFIX}x`, ROLE_PREFIX, `${BINDING_PREFIX}../x`);
  const value = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc.tuple(fc.constantFrom(...good), fc.nat(200), fc.integer({ min: 1, max: 255 })).map(([bytes, at, bit]) => {
      const out = bytes.slice();
      out[at % out.length]! ^= bit;
      return out;
    }),
  );
  fc.assert(fc.property(key, value, (name, bytes) => {
    assert.ok(["taken", "unreadable"].includes(policy.put(name, bytes)));
  }));
});

Deno.test("[2.4b] who is suspended may nothing, until it ends; the local person cannot be", () => {
  const policy = new AccessPolicy();
  policy.setFounder(FOUNDER.publicKey);
  const founder = subjectOf(FOUNDER);
  assert.ok(policy.suspend(founder, NOW + 10, "too many codes"));
  assert.equal(policy.suspended(founder, NOW), "too many codes");
  assert.equal(policy.suspended(founder, NOW + 10), undefined);
  assert.ok(policy.resume(founder) && !policy.resume(founder));
  for (const kind of ["local", "self", "reader", "anyone"] as const) {
    assert.ok(!policy.suspend({ kind, id: "" }, NOW + 10, "x"));
  }
  for (let i = 0; i < 2 * LIMITS.accessSuspendedMax; i++) policy.suspend({ kind: "node", id: `${i}` }, NOW + i, "x");
  const held = (i: number) => policy.suspended({ ...founder, kind: "node", id: `${i}` }, NOW - 1) !== undefined;
  assert.deepEqual([0, LIMITS.accessSuspendedMax - 1, LIMITS.accessSuspendedMax].map(held), [false, false, true]);
  assert.ok(policy.suspended({ ...founder, kind: "node", id: `${2 * LIMITS.accessSuspendedMax - 1}` }, NOW));
});

Deno.test("[2.4c] a token is of one service: its record cannot be made to name another", () => {
  const token = makeToken(new Uint8Array(40).fill(5));
  const hash = tokenHash(token, "shop");
  assert.ok(isToken(token, hash, "shop"));
  assert.ok(!isToken(token, hash, "bank"));
  assert.ok(!isToken({ ...token, id: "11".repeat(8) }, hash, "shop"));
  assert.ok(!isToken({ ...token, secret: new Uint8Array(32).fill(6) }, hash, "shop"));
  assert.deepEqual(parseToken(formatToken(token)), token);
  assert.ok(!toHex(hash).includes(toHex(token.secret)));
});

Deno.test("[10.5e] tokens of garbage are none", () => {
  const good = formatToken(makeToken(new Uint8Array(40).fill(5)));
  fc.assert(fc.property(
    fc.oneof(
      fc.string({ maxLength: 120 }),
      fc.tuple(fc.nat(good.length - 1), fc.string({ minLength: 1, maxLength: 1 })).map(([at, char]) =>
        good.slice(0, at) + char + good.slice(at + 1)
      ),
    ),
    (text) => {
      const read = parseToken(text);
      if (read) assert.equal(formatToken(read), text);
    },
  ));
  assert.equal(parseToken(good.slice(0, -1)), undefined);
  assert.equal(parseToken(`${good}.x`), undefined);
});

Deno.test("secrets are compared by a function that takes the same time, whatever differs", () => {
  // The time itself is not tested: it is the runtime's timingSafeEqual. Here is that it is right, and total.
  fc.assert(fc.property(fc.uint8Array({ maxLength: 40 }), fc.uint8Array({ maxLength: 40 }), (a, b) => {
    assert.equal(equalSecrets(a, b), toHex(a) === toHex(b));
    assert.ok(equalSecrets(a, a.slice()));
  }));
});

Deno.test("[2.4a] failures are slowed down, twice as long each time, and forgotten in time", () => {
  const throttle = new Throttle({ max: 4 });
  for (let i = 0; i < 4; i++) assert.equal(throttle.fail("a", NOW), false);
  assert.equal(throttle.waitMs("a", NOW), 0);
  assert.equal(throttle.fail("a", NOW), true);
  assert.equal(throttle.waitMs("a", NOW), 30_000);
  assert.equal(throttle.waitMs("b", NOW), 0, "others do not wait for it");
  throttle.fail("a", NOW + 30_000);
  assert.equal(throttle.waitMs("a", NOW + 30_000), 60_000);
  for (let i = 0; i < 40; i++) throttle.fail("a", NOW + 30_000);
  assert.equal(throttle.waitMs("a", NOW + 30_000), 3_600_000);
  throttle.fail("a", NOW + 30_000 + 2 * 3_600_000 + 1);
  assert.equal(throttle.waitMs("a", NOW + 30_000 + 2 * 3_600_000 + 1), 0, "an hour without one: from the beginning");
  // Others that fail once do not push out one that waits.
  const full = new Throttle({ max: 4 });
  for (let i = 0; i < 5; i++) full.fail("a", NOW);
  for (let i = 0; i < 100; i++) full.fail(`x${i}`, NOW);
  assert.equal(full.size, 4);
  assert.ok(full.waitMs("a", NOW) > 0);
  full.succeed("a");
  assert.equal(full.waitMs("a", NOW), 0);
});

Deno.test("[2.4b] a change of the policy counts by the signature of one who may, for this record alone", () => {
  const policy = new AccessPolicy();
  policy.setFounder(FOUNDER.publicKey);
  policy.put(`${BINDING_PREFIX}anna`, encodeBinding(operator("anna", "operator")));
  const key = `${BINDING_PREFIX}boss`;
  const value = encodeBinding(operator("boss", "admin", MALLORY));
  const proof = (
    pair: typeof FOUNDER,
    over: { key?: string; value?: Uint8Array | undefined; atMs?: number; network?: Uint8Array } = {},
  ) =>
    sealEnvelope(changeValue(policyChange(over.key ?? key, "value" in over ? over.value : value, over.atMs ?? NOW)), {
      type: CHANGE_TYPE,
      networkId: over.network ?? NETWORK,
      signer: pair,
    });
  const judge = (
    proofs: Parameters<typeof judgeChange>[1],
    over: Partial<Parameters<typeof judgeChange>[0]> = {},
  ) =>
    judgeChange({ key, value, issuedMs: NOW, currentMs: undefined, ...over }, proofs, { networkId: NETWORK, policy });
  assert.equal(judge([proof(FOUNDER)]), "accept");
  assert.equal(judge([]), "refuse", "all nodes together are nobody's signature");
  assert.equal(judge([proof(ANNA)]), "refuse", "an operator that may not change it");
  assert.equal(judge([proof(MALLORY)]), "later", "a key that is not known here yet");
  assert.equal(judge([proof(FOUNDER, { network: new Uint8Array(32).fill(2) })]), "refuse");
  assert.equal(judge([proof(FOUNDER, { key: `${BINDING_PREFIX}other` })]), "refuse");
  assert.equal(judge([proof(FOUNDER, { value: encodeBinding(operator("boss", "viewer", MALLORY)) })]), "refuse");
  assert.equal(judge([proof(FOUNDER, { value: undefined })]), "refuse", "a deletion is not a value");
  assert.equal(judge([proof(FOUNDER, { value: undefined })], { value: undefined }), "accept");
  // Told again after it was taken back, or much later.
  assert.equal(judge([proof(FOUNDER)], { currentMs: NOW }), "refuse");
  assert.equal(judge([proof(FOUNDER)], { currentMs: NOW - 1 }), "accept");
  assert.equal(judge([proof(FOUNDER)], { issuedMs: NOW + CHANGE_MS + 1 }), "refuse");
  // One too many would count on some nodes only.
  for (let i = 0; policy.hasRoom(key); i++) {
    policy.put(`${BINDING_PREFIX}b${i}`, encodeBinding(operator("b", "viewer")));
  }
  assert.equal(judge([proof(FOUNDER)]), "refuse");
  const there = `${BINDING_PREFIX}b0`;
  assert.equal(judge([proof(FOUNDER, { key: there })], { key: there }), "accept");
  assert.equal(judge([proof(FOUNDER, { value: undefined })], { value: undefined }), "accept");
  // What does not read is no record, whoever signs it.
  const spoilt = utf8("x");
  assert.equal(judge([proof(FOUNDER, { value: spoilt })], { value: spoilt }), "refuse");
  assert.equal(judge([proof(FOUNDER, { key: "agreed/trust" })], { key: "agreed/trust" }), "refuse");
  // The policy of trust, by a permission of its own. It is not deleted: one that says nothing takes its place.
  policy.clear();
  policy.setFounder(FOUNDER.publicKey);
  for (const [name, pair, grant] of [["a", ANNA, "policy.write"], ["m", MALLORY, "access.write"]] as const) {
    policy.put(ROLE_PREFIX + name, encodeRole({ name, description: "", grants: [parseGrant(grant)!] }));
    policy.put(BINDING_PREFIX + name, encodeBinding(operator(name, name, pair)));
  }
  const trust = { key: TRUST_POLICY_KEY };
  const said = (pair: typeof FOUNDER) => [judge([proof(pair, trust)], trust), judge([proof(pair)])];
  assert.deepEqual(said(FOUNDER), ["accept", "accept"]);
  assert.deepEqual(said(ANNA), ["accept", "refuse"]);
  assert.deepEqual(said(MALLORY), ["refuse", "accept"]);
  assert.equal(judge([proof(FOUNDER, { ...trust, value: undefined })], { ...trust, value: undefined }), "refuse");
});
