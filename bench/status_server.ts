/**
 * One of the servers of `bench/status.ts`: `ours` is the status endpoint of a node of eight with a status that
 * changes, `body` sends the same document from a constant with no header of ours, `empty` sends nothing.
 * Prints its port, then its resident bytes and CPU milliseconds for each line that it reads.
 *
 * @module
 */

import { createStatusApp } from "../src/edge/http/app.ts";
import { serveStatus } from "../src/edge/http/server.ts";
import { readProcessStat } from "../src/edge/process/proc_stat.ts";
import { FixtureSource, troubledStatus } from "../tests/testkit/status_fixture.ts";

const source = new FixtureSource(troubledStatus(Date.now()));

function start(kind: string): number {
  if (kind === "ours") {
    const getStatus = () => ({ ...source.status, nowMs: Date.now() });
    return serveStatus({
      port: 0,
      app: (guard) => createStatusApp({ getStatus, subscribe: source.subscribe, ...guard }),
    }).port;
  }
  const body = kind === "body" ? JSON.stringify(source.status) : null;
  return Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, () => new Response(body)).addr.port;
}

console.log(start(Deno.args[0] ?? "empty"));
for await (const _ of Deno.stdin.readable) {
  const { rssBytes, cpuMs } = readProcessStat();
  console.log(`${rssBytes} ${cpuMs}`);
}
