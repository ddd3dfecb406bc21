import assert from "node:assert/strict";
import { CAUSES } from "../../src/bootstrap/diagnosis.ts";
import { EXIT, EXIT_MEANINGS, exitCodeOf } from "../../src/cli/exit.ts";

Deno.test("exitCodeOf() tells refusals and timeouts from failures", () => {
  const refused = [
    "invite-expired",
    "invite-used-up",
    "invite-revoked",
    "revoked",
    "approval-denied",
    "command-not-operator",
  ];
  for (const code of refused) assert.equal(exitCodeOf(code), EXIT.refused, code);
  for (const code of ["timeout", "budget-exhausted"]) assert.equal(exitCodeOf(code), EXIT.timedOut, code);
  for (const code of ["unreachable", "internal", ""]) assert.equal(exitCodeOf(code), EXIT.failed, code);
  assert.equal(exitCodeOf("whatever", 403), EXIT.refused);
  assert.equal(exitCodeOf("whatever", 504), EXIT.timedOut);
});

Deno.test("Every cause of a failed join that a person must settle has an exit code of refusal or failure", () => {
  for (const [code, cause] of Object.entries(CAUSES)) {
    const exit = exitCodeOf(code);
    assert.ok(exit === EXIT.refused || exit === EXIT.failed || exit === EXIT.timedOut, code);
    if (code.startsWith("invite-")) assert.ok(cause.needsPerson && exit === EXIT.refused, code);
  }
});

Deno.test("Every exit code is explained once", () => {
  assert.deepEqual(
    EXIT_MEANINGS.map(([code]) => code).sort((a, b) => a - b),
    Object.values(EXIT).sort((a, b) => a - b),
  );
});
