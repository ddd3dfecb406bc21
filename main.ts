/** Entry of the program: flags → configuration → node. The only place that ends the process. @module */

import { runCli, systemDeps } from "./src/cli/mod.ts";
import { BUILD_INFO } from "./src/edge/process/build_info.ts";

// A handshake that the other side refused can surface in the runtime after we have dealt with it.
globalThis.addEventListener("unhandledrejection", (event) => {
  event.preventDefault();
  console.error(
    JSON.stringify({ level: "error", event: "unhandled-rejection", msg: String(event.reason?.stack ?? event.reason) }),
  );
});

/** Resolves never: the program ends with the exit code of its command. */
export const ended: Promise<never> = main();

async function main(): Promise<never> {
  // Loaded when a node is started: commands that only talk to one take half of the time and memory without libp2p.
  using deps = systemDeps({
    startNode: async (options) => (await import("./src/edge/node.ts")).runNode(options),
    readState: async (stateDir) => (await import("./src/edge/stored_state.ts")).readStoredState(stateDir),
    version: {
      version: BUILD_INFO.version,
      commit: BUILD_INFO.commit,
      builtAt: BUILD_INFO.builtAt,
      runtime: `deno ${Deno.version.deno}`,
    },
  }, Deno.exit);
  const code = await runCli(Deno.args, deps);
  Deno.exit(code);
}
