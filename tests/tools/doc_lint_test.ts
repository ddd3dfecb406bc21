import assert from "node:assert/strict";
import { undocumentedExports } from "../../tools/doc_lint.ts";

Deno.test("undocumentedExports() takes exports and leaves members", () => {
  const output = [
    "error[missing-jsdoc]: exported symbol is missing JSDoc documentation",
    "  --> src/cli/deps.ts:12:3",
    "   | ",
    "12 |   write(text: string): void;",
    "",
    "error[private-type-ref]: public type 'A' references private type 'B'",
    "   --> src/cli/deps.ts:30:1",
    "",
    "error[missing-jsdoc]: exported symbol is missing JSDoc documentation",
    "   --> src/cli/deps.ts:120:14",
    "    | ",
    '120 | export const a = "write(";',
    "    |              ^^^^^^^^^^^",
  ].join("\n");
  assert.deepEqual(undocumentedExports(output), ["src/cli/deps.ts:120"]);
});
