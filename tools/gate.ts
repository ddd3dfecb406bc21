/**
 * The gate: everything that must hold before a change lands. `deno task ok` here, the same in CI.
 *
 * Runs every step even where one has failed, so that one run shows all there is to mend.
 *
 * @module
 */

import { join } from "node:path";

const ROOT = join(import.meta.dirname ?? ".", "..");

/** One command of the gate: what it holds, and the arguments of `deno`. */
interface Step {
  readonly name: string;
  readonly args: readonly string[];
}

const steps: readonly Step[] = [
  { name: "layout", args: ["fmt", "--check"] },
  { name: "lint, the import rule included", args: ["lint"] },
  { name: "types", args: ["check"] },
  { name: "documentation of exports", args: ["run", "-A", join("tools", "doc_lint.ts")] },
  { name: "tests", args: ["run", "-A", join("tools", "test.ts"), "--reuse"] },
];

const failed: string[] = [];
for (const step of steps) {
  console.log(`\n--- ${step.name}: deno ${step.args.slice(0, 3).join(" ")}`);
  const started = performance.now();
  const { success } = await new Deno.Command(Deno.execPath(), {
    args: [...step.args],
    cwd: ROOT,
    env: { DENO_TLS_CA_STORE: "system,mozilla", DENO_NO_UPDATE_CHECK: "1" },
    stdin: "null",
    stderr: "inherit",
    stdout: "inherit",
  }).output();
  console.log(`${success ? "ok" : "FAILED"} in ${((performance.now() - started) / 1000).toFixed(1)} s`);
  if (!success) failed.push(step.name);
}
console.log(failed.length === 0 ? "\nthe gate is open" : `\nTHE GATE IS CLOSED: ${failed.join(", ")}`);
Deno.exit(failed.length === 0 ? 0 : 1);
