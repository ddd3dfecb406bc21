/**
 * A member that writes to the Primary Spore: the client process of `raft_net.ts`.
 *
 * usage: raft_net_client.ts <invite> <state folder>; then a line `write|chain <writers> <milliseconds>` each
 *
 * @module
 */

import { join } from "node:path";
import { requestLines, runWriters } from "./client_process.ts";
import { runNode } from "../src/edge/node.ts";
import { loopbackConfig } from "../tests/testkit/running_node.ts";

const [invite, stateDir] = Deno.args as [string, string];
Deno.mkdirSync(stateDir, { recursive: true });
const loaded = loopbackConfig("client", { "log.level": "error" });
const stop = new AbortController();
type Node = Parameters<Parameters<typeof runNode>[0]["onListening"]>[0]["node"];
const listening = Promise.withResolvers<Node>();
const ended = runNode({
  config: loaded.config,
  stateDir,
  socketPath: join(stateDir, "agent.sock"),
  invite,
  signal: stop.signal,
  reloadConfig: () => Promise.resolve(loaded),
  onListening: ({ node }) => listening.resolve(node),
  writeLog: (line) => console.error(line),
});
const node = await listening.promise;

async function put(key: string, value: string, expect?: number): Promise<number> {
  const answer = await node.control({ verb: "primary-put", key, value, ...(expect === undefined ? {} : { expect }) });
  if (answer.ok) return (answer.result as { readonly index: number }).index;
  throw new Error(JSON.stringify(answer));
}

while (node.status().bootstrap.stage !== "verified") await new Promise((resolve) => setTimeout(resolve, 100));
await put("app/bench/ready", "1");
console.log(JSON.stringify({ ready: true }));

/** Version that each writer has written last. */
const versions = new Map<number, number>();
for await (const [what, writers, runMs] of requestLines()) {
  const run = await runWriters(Number(writers), Number(runMs), async (w, i) => {
    const value = `${i} `.padEnd(256, "x");
    if (what === "write") return void await put(`app/bench/${w}`, value);
    // Each on the condition that the one before is there: an acknowledged write that is lost ends the bench.
    versions.set(w, await put(`app/chain/${w}`, value, versions.get(w)));
  });
  console.log(JSON.stringify(run));
}
stop.abort();
await ended;
Deno.exit(0);
