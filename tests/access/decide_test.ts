/** The decision: nothing is allowed that no role grants; properties over all policies. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { decide, type Need, type Policy, type Subject } from "../../src/access/decide.ts";
import { covers, formatGrant, type Grant, parseGrant, PERMISSIONS } from "../../src/access/permission.ts";
import type { RoleSpec } from "../../src/access/roles.ts";

const NOW = 1_800_000_000_000;

const segment = fc.constantFrom("app", "shop", "bank", "x", "y");
const resource = fc.option(fc.array(segment, { minLength: 1, maxLength: 4 }).map((parts) => parts.join("/")), {
  nil: undefined,
});
const permission = fc.constantFrom(...PERMISSIONS);
const grant: fc.Arbitrary<Grant> = fc.tuple(
  fc.oneof(
    fc.constant("*"),
    permission,
    permission.map((one) => `${one.split(".")[0]}.*`),
  ),
  fc.oneof(
    fc.constant("*"),
    fc.tuple(fc.array(fc.oneof(segment, fc.constant("$service")), { minLength: 1, maxLength: 3 }), fc.boolean())
      .map(([parts, all]) => parts.join("/") + (all ? "/*" : "")),
  ),
).map(([one, two]) => ({ permission: one, resource: two }));
const subject: fc.Arbitrary<Subject> = fc.record({
  kind: fc.constantFrom("local", "self", "operator", "service", "node", "reader", "anyone" as const),
  id: fc.constantFrom("", "a", "b"),
  name: fc.constant("somebody"),
  service: fc.constantFrom("shop", "bank"),
  secondFactor: fc.constantFrom("none", "enrolled", "fresh" as const),
});
const need: fc.Arbitrary<Need> = fc.record({ permission, resource, danger: fc.boolean() }).map(
  ({ permission, resource, danger }) => ({ permission, danger, ...(resource === undefined ? {} : { resource }) }),
);
const grants = fc.array(grant, { maxLength: 5 });

function policyOf(given: readonly Grant[], suspended = false): Policy {
  const role: RoleSpec = { name: "r", description: "", grants: given };
  return {
    rolesOf: () => ["gone", "r"],
    role: (name) => name === "r" ? role : undefined,
    suspended: () => suspended ? "for a reason" : undefined,
  };
}

/** The same by another way: patterns become regular expressions. */
function oracle(one: Grant, asked: Need, service: string): boolean {
  const permission = new RegExp(
    `^${one.permission === "*" ? ".*" : one.permission.replace(/\./g, "\\.").replace(/\*$/, ".*")}$`,
  );
  if (!permission.test(asked.permission)) return false;
  if (one.resource === "*") return true;
  const resource = new RegExp(`^${one.resource.replaceAll("$service", service).replace(/\*$/, ".*")}$`);
  return asked.resource !== undefined && resource.test(asked.resource);
}

Deno.test("[2.4b] nothing is allowed that no role grants, and what one grants is, as an oracle has it", () => {
  fc.assert(
    fc.property(grants, subject, need, (given, who, asked) => {
      const wanted = given.some((one) => oracle(one, asked, who.service!));
      const decision = decide(who, asked, policyOf(given), NOW);
      const kept = asked.danger && (who.kind === "service" || who.kind === "node" || who.secondFactor === "enrolled");
      assert.equal(decision.ok, wanted && !kept);
      if (!decision.ok) {
        const reason = !wanted
          ? "not-granted"
          : who.kind === "service" || who.kind === "node"
          ? "too-dangerous"
          : "second-factor";
        assert.equal(decision.reason, reason);
        assert.ok(decision.message.length > 0 && decision.cure.length > 0);
      }
    }),
    { numRuns: 2_000 },
  );
});

Deno.test("[2.4b] a further grant never takes anything away, and no grants at all allow nothing", () => {
  fc.assert(
    fc.property(grants, grant, subject, need, (given, more, who, asked) => {
      const before = decide(who, asked, policyOf(given), NOW);
      const after = decide(who, asked, policyOf([...given, more]), NOW);
      if (before.ok) assert.ok(after.ok);
      assert.equal(decide(who, asked, policyOf([]), NOW).ok, false);
    }),
    { numRuns: 1_000 },
  );
});

Deno.test("[2.4b] who has no role, or a role that is gone, may nothing; who is suspended neither", () => {
  fc.assert(fc.property(subject, need, (who, asked) => {
    const all = policyOf([parseGrant("*")!], true);
    assert.deepEqual(reason(decide(who, asked, all, NOW)), "suspended");
    assert.equal(reason(decide(who, asked, { ...all, suspended: () => undefined, rolesOf: () => [] }, NOW)), "no-role");
    assert.equal(
      reason(decide(who, asked, { ...all, suspended: () => undefined, role: () => undefined }, NOW)),
      "not-granted",
    );
  }));
});

Deno.test("[2.4c] a grant for a service's own resources is of no use to another service, nor to who has none", () => {
  const own = parseGrant("spore.write:app/$service/*")!;
  assert.ok(covers(own, "spore.write", "app/shop/x", "shop"));
  for (const key of ["app/shop", "app/shopping/x", "app/bank/x", "app/shop-2/x", "app/$service/x", "shop/x", ""]) {
    assert.ok(!covers(own, "spore.write", key, "shop"), key);
  }
  assert.ok(!covers(own, "spore.write", "app/shop/x", "bank"));
  assert.ok(!covers(own, "spore.write", "app/shop/x", undefined));
  assert.ok(!covers(own, "spore.write", undefined, "shop"));
  assert.ok(!covers(own, "spore.read", "app/shop/x", "shop"));
});

Deno.test("grants are written and read in one way, and nothing else is one", () => {
  fc.assert(fc.property(grant, (one) => assert.deepEqual(parseGrant(formatGrant(one)), one)));
  const bad = [
    "",
    "x",
    "status",
    "status.",
    ".read",
    "status.read:",
    "status.read:a*",
    "status.read:*a",
    "status.read:a b",
    "nothing.*",
    "spore.write:app/$servicex/*",
    "spore.write:$other/*",
    "*.*",
    "**",
    "status.read:a/**",
    "spore.writ",
  ];
  for (const one of bad) assert.equal(parseGrant(one), undefined, one);
  fc.assert(fc.property(fc.string({ maxLength: 60 }), (text) => {
    const read = parseGrant(text);
    if (read) assert.deepEqual(parseGrant(formatGrant(read)), read);
  }));
});

function reason(decision: ReturnType<typeof decide>): string {
  return decision.ok ? "ok" : decision.reason;
}
