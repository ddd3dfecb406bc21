/**
 * A client of etcd for `raft_net.ts`: `Put` over gRPC, which is HTTP/2 and some bytes of Protocol Buffers, on ten
 * connections that are spread over the members.
 *
 * usage: etcd_client.ts <url> …; then a line `<writers> <milliseconds>` for each run
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { type ClientHttp2Session, connect } from "node:http2";

const CONNECTIONS = 10;
const sessions: ClientHttp2Session[] = Array.from(
  { length: CONNECTIONS },
  (_, i) => connect(Deno.args[i % Deno.args.length]!),
);

/** `etcdserverpb.PutRequest`: field 1 the key, field 2 the value, both bytes. */
function putRequest(key: string, value: string): Buffer {
  const [k, v] = [Buffer.from(key), Buffer.from(value)];
  const body = Buffer.concat([field(1, k), field(2, v)]);
  const head = Buffer.alloc(5);
  head.writeUInt32BE(body.length, 1);
  return Buffer.concat([head, body]);
}

function field(number: number, value: Buffer): Buffer {
  const size: number[] = [];
  for (let left = value.length;;) {
    size.push(left > 127 ? left & 127 | 128 : left);
    left >>= 7;
    if (left === 0) break;
  }
  return Buffer.concat([Buffer.from([number << 3 | 2, ...size]), value]);
}

function put(session: ClientHttp2Session, key: string, value: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const stream = session.request({
      ":method": "POST",
      ":path": "/etcdserverpb.KV/Put",
      "content-type": "application/grpc",
      te: "trailers",
    });
    let status: string | undefined;
    stream.on("trailers", (trailers) => status = String(trailers["grpc-status"]));
    stream.on("data", () => {});
    stream.on(
      "end",
      () => status === undefined || status === "0" ? resolve() : reject(new Error(`grpc-status ${status}`)),
    );
    stream.on("error", reject);
    stream.end(putRequest(key, value));
  });
}

await put(sessions[0]!, "bench/ready", "1");
console.log(JSON.stringify({ ready: true }));
for await (const text of Deno.stdin.readable.pipeThrough(new TextDecoderStream())) {
  const [writers, runMs] = text.trim().split(" ").map(Number) as [number, number];
  const took: number[] = [];
  const startMs = performance.now();
  const endMs = startMs + runMs;
  await Promise.all(Array.from({ length: writers }, async (_, w) => {
    for (let i = 0; performance.now() < endMs; i++) {
      const atMs = performance.now();
      await put(sessions[w % CONNECTIONS]!, `bench/${w}`, `${i} `.padEnd(256, "x"));
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
for (const session of sessions) session.destroy();
Deno.exit(0);
