/**
 * A program of its own for tests of what only a process shows: the command line with a node that is slow to stop.
 *
 * @module
 */

import { runCli, systemDeps } from "../../src/cli/mod.ts";

using deps = systemDeps({
  version: { version: "0.1.0", commit: "0123abc", builtAt: "", runtime: `deno ${Deno.version.deno}` },
  startNode: async ({ signal }) => {
    console.log("started");
    const alive = setInterval(() => {}, 1_000_000);
    await new Promise((resolve) => signal.addEventListener("abort", resolve));
    console.log("stopping");
    if (Deno.env.get("STOPS") === "never") await new Promise(() => {});
    clearInterval(alive);
    return 0;
  },
}, Deno.exit);
Deno.exit(await runCli(Deno.args, deps));
