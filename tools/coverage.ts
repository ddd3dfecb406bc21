/**
 * Which lines of `src/` the tests reach.
 *
 * usage: deno task coverage [SUITE …] [--html]
 *
 * Runs the suites (default: pure) of `deno task test` with coverage, prints a line per file, the whole in the last
 * line, and writes `.cache/coverage/lcov.info`; `--html` makes pages of it beside that.
 *
 * @module
 */

import { join } from "node:path";

const ROOT = join(import.meta.dirname!, "..");
const FOLDER = join(ROOT, ".cache", "coverage");

async function deno(args: readonly string[]): Promise<boolean> {
  const { success } = await new Deno.Command(Deno.execPath(), { args: [...args], cwd: ROOT, stdin: "null" })
    .spawn().status;
  return success;
}

if (import.meta.main) {
  const html = Deno.args.includes("--html");
  const suites = Deno.args.filter((one) => one !== "--html");
  await Deno.remove(FOLDER, { recursive: true }).catch((error) => {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  });
  const profiles = join(FOLDER, "profiles");
  const passed = await deno([
    "run",
    "-A",
    "tools/test.ts",
    ...(suites.length > 0 ? suites : ["pure"]),
    "--",
    `--coverage=${profiles}`,
  ]);
  const report = ["coverage", profiles, "--include=/src/"];
  const told = await deno(report) && await deno([...report, "--lcov", `--output=${join(FOLDER, "lcov.info")}`]) &&
    (!html || await deno([...report, "--html"]));
  Deno.exit(passed && told ? 0 : 1);
}
