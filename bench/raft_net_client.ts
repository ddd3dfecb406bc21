/**
 * A member that writes to the Primary Spore: the client process of `raft_net.ts`.
 *
 * usage: raft_net_client.ts <invite> <state folder>; then a line `<writers> <milliseconds>` for each run
 *
 * @module
 */

import { join } from "node:path";
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

async function put(key: string, value: string): Promise<void> {
  const answer = await node.control({ verb: "primary-put", key, value });
  if (!answer.ok) throw new Error(JSON.stringify(answer));
}

while (node.status().bootstrap.stage !== "verified") await new Promise((resolve) => setTimeout(resolve, 100));
await put("app/bench/ready", "1");
console.log(JSON.stringify({ ready: true }));

for await (const text of Deno.stdin.readable.pipeThrough(new TextDecoderStream())) {
  const [writers, runMs] = text.trim().split(" ").map(Number) as [number, number];
  const took: number[] = [];
  const endMs = performance.now() + runMs;
  const startMs = performance.now();
  await Promise.all(Array.from({ length: writers }, async (_, w) => {
    for (let i = 0; performance.now() < endMs; i++) {
      const atMs = performance.now();
      await put(`app/bench/${w}`, `${i} `.padEnd(256, "x"));
      took.push(performance.now() - atMs);
    }
  }));
  const elapsedMs = performance.now() - startMs;
  took.sort((a, b) => a - b);
  console.log(JSON.stringify({
    perSecond: took.length / elapsedMs * 1_000,
    p50Ms: took[took.length >> 1],
    p99Ms: took[Math.floor(took.length * 0.99)],
  }));
}
stop.abort();
await ended;
Deno.exit(0);
