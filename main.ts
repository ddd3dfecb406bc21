/** Entry of the program: flags → configuration → node. The only place that ends the process. @module */

import { runCli, systemDeps } from "./src/cli/mod.ts";
import { runNode } from "./src/edge/node.ts";
import { BUILD_INFO } from "./src/edge/process/build_info.ts";
import { readStoredState } from "./src/edge/stored_state.ts";

// A handshake that the other side refused can surface in the runtime after we have dealt with it.
globalThis.addEventListener("unhandledrejection", (event) => {
  event.preventDefault();
  console.error(
    JSON.stringify({ level: "error", event: "unhandled-rejection", msg: String(event.reason?.stack ?? event.reason) }),
  );
});

using deps = systemDeps({
  startNode: runNode,
  readState: readStoredState,
  version: {
    version: BUILD_INFO.version,
    commit: BUILD_INFO.commit,
    builtAt: BUILD_INFO.builtAt,
    runtime: `deno ${Deno.version.deno}`,
  },
}, Deno.exit);
const code = await runCli(Deno.args, deps);
Deno.exit(code);
