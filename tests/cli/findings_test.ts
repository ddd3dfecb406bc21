import assert from "node:assert/strict";
import fc from "fast-check";
import type { Failure, JoinStage, Status } from "../../src/agent/status.ts";
import { diskFinding, findingsOf, SEVERITIES, sortFindings } from "../../src/cli/findings.ts";
import { FIXTURE_NOW_MS, singleNodeStatus, troubledStatus } from "../testkit/status_fixture.ts";

const codes = (status: Status, nowMs = FIXTURE_NOW_MS) => findingsOf(status, nowMs).map((one) => one.code);

function joining(stage: JoinStage, failures: readonly Failure[] = []): Status {
  const base = singleNodeStatus();
  const { network: _, credential: __, ...rest } = base;
  return { ...rest, bootstrap: { ...base.bootstrap, stage, failures } };
}

function failure(code: string): Failure {
  return {
    code,
    stage: "contacting",
    tried: "/ip4/10.0.0.1/tcp/4871",
    what: "W",
    cure: "C",
    atMs: FIXTURE_NOW_MS - 5_000,
    count: 3,
  };
}

Deno.test("findingsOf() finds nothing but the missing tolerance in a healthy node alone", () => {
  assert.deepEqual(codes(singleNodeStatus()), ["no-tolerance"]);
});

Deno.test("findingsOf() names lost members, recent failures and waiting machines of a network in trouble", () => {
  const found = codes(troubledStatus());
  for (const code of ["member-dead", "member-suspect", "dial-timeout", "joins-pending"]) {
    assert.ok(found.includes(code), code);
  }
});

Deno.test("[1.3b] findingsOf() gives each failure with what was tried and its cure", () => {
  const [found] = findingsOf(joining("discovering", [failure("unreachable")]), FIXTURE_NOW_MS);
  assert.deepEqual(found, {
    severity: "warning",
    code: "unreachable",
    what: "W",
    tried: "/ip4/10.0.0.1/tcp/4871, 3 times, at stage contacting, 5s ago",
    cure: "C",
  });
});

Deno.test("findingsOf() calls a failure that only a person can settle an error", () => {
  assert.equal(findingsOf(joining("discovering", [failure("invite-expired")]), FIXTURE_NOW_MS)[0]?.severity, "error");
});

Deno.test("findingsOf() tells a node without a network what to type, one that waits whom to ask", () => {
  assert.match(findingsOf(joining("idle"), FIXTURE_NOW_MS)[0]?.cure ?? "", /mycelium init/);
  const [waiting] = findingsOf(joining("awaiting-approval", [failure("approval-pending")]), FIXTURE_NOW_MS);
  assert.equal(waiting?.code, "approval-pending");
  assert.match(waiting?.cure ?? "", /node approve [1-9A-Za-z]{8}$/);
});

Deno.test("findingsOf() sees isolation, a credential that ran out or is renewed late, and a clock that is wrong", () => {
  assert.ok(codes(joining("isolated")).includes("isolated"));
  const base = singleNodeStatus();
  const credential = base.credential!;
  const expired = { ...base, credential: { ...credential, expiresMs: base.nowMs - 1 } };
  assert.ok(codes(expired).includes("expired"));
  const late = {
    ...base,
    credential: { ...credential, renewAtMs: base.nowMs - 9_000_000, expiresMs: base.nowMs + 9_000_000 },
  };
  assert.ok(codes(late).includes("renewal-late"));
  assert.ok(codes(base, Date.parse(base.version.builtAt) - 3_600_000).includes("clock-behind"));
  const ahead = { ...base, credential: { ...credential, issuedMs: FIXTURE_NOW_MS + 120_000 } };
  assert.ok(codes(ahead).includes("clock-skew"));
});

Deno.test("findingsOf() reports components that are not well, and the mode that an operator set", () => {
  const base = singleNodeStatus();
  const sick: Status = {
    ...base,
    node: { ...base.node, mode: "safe" },
    health: { ...base.health, components: [{ name: "store", health: "failed", reason: "disk is gone", sinceMs: 1 }] },
  };
  assert.deepEqual(codes(sick), ["no-tolerance", "component-failed", "mode"]);
});

Deno.test("[2.1e] findingsOf() says when too few issuers are left to change who is one, and what signs for them", () => {
  const base = singleNodeStatus();
  const issuers = (gone: number, threshold: number): Status => ({
    ...base,
    network: {
      ...base.network!,
      authority: { epoch: 2, issuers: [base.node.nodeId, ...["lost1", "lost2"].slice(0, gone)], threshold },
    },
  });
  assert.deepEqual(codes(issuers(1, 1)), ["no-tolerance"]);
  const [, found] = findingsOf(issuers(1, 2), FIXTURE_NOW_MS);
  assert.deepEqual(found, {
    severity: "error",
    code: "authority-short",
    what: "1 issuer of 2 is gone, and 2 have to sign who takes the place",
    tried: "lost1",
    cure: "On an issuer, with the genesis key: mycelium genesis recover --key <file>",
  });
});

Deno.test("diskFinding() is an error when next to nothing is left", () => {
  assert.equal(diskFinding(400 << 20, "/x").severity, "warning");
  assert.equal(diskFinding(1 << 20, "/x").severity, "error");
});

Deno.test("sortFindings() puts the worst first and keeps the order within", () => {
  fc.assert(fc.property(fc.array(fc.constantFrom(...SEVERITIES), { maxLength: 12 }), (severities) => {
    const findings = severities.map((severity, i) => ({ severity, code: String(i), what: "", tried: "", cure: "" }));
    const sorted = sortFindings(findings);
    for (let i = 1; i < sorted.length; i++) {
      const [a, b] = [sorted[i - 1]!, sorted[i]!];
      const order = SEVERITIES.indexOf(a.severity) - SEVERITIES.indexOf(b.severity);
      assert.ok(order < 0 || order === 0 && Number(a.code) < Number(b.code));
    }
    assert.equal(sorted.length, findings.length);
  }));
});
