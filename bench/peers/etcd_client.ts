/**
 * A client of etcd for `raft_net.ts`: `Put` over gRPC, which is HTTP/2 and some bytes of Protocol Buffers, on ten
 * connections that are spread over the members.
 *
 * usage: etcd_client.ts <url> …; then a line `write <writers> <milliseconds>` each
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { type ClientHttp2Session, connect } from "node:http2";
import { requestLines, runWriters } from "../client_process.ts";

const CONNECTIONS = 10;
/** A member that does not answer for so long is not waited for. */
const TRY_MS = 1_000;
const sessions: (ClientHttp2Session | undefined)[] = [];

/** The n-th connection, opened again where it was lost. */
function session(n: number): ClientHttp2Session {
  const known = sessions[n];
  if (known && !known.closed && !known.destroyed) return known;
  const fresh = connect(Deno.args[n % Deno.args.length]!);
  fresh.on("error", () => fresh.destroy());
  return sessions[n] = fresh;
}

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
    const timer = setTimeout(() => reject(new Error("timeout")), TRY_MS);
    const stream = session.request({
      ":method": "POST",
      ":path": "/etcdserverpb.KV/Put",
      "content-type": "application/grpc",
      te: "trailers",
    });
    let status: string | undefined;
    stream.on("trailers", (trailers) => status = String(trailers["grpc-status"]));
    stream.on("data", () => {});
    stream.on("close", () => {
      clearTimeout(timer);
      status === "0" ? resolve() : reject(new Error(`grpc-status ${status}`));
    });
    stream.on("error", reject);
    stream.end(putRequest(key, value));
  });
}

/** Writes, on another connection where one fails. */
async function write(first: number, key: string, value: string): Promise<void> {
  for (let tries = 0;; tries++) {
    try {
      return await put(session((first + tries) % CONNECTIONS), key, value);
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

await write(0, "bench/ready", "1");
console.log(JSON.stringify({ ready: true }));
for await (const [, writers, runMs] of requestLines()) {
  console.log(JSON.stringify(
    await runWriters(Number(writers), Number(runMs), (w, i) => write(w, `bench/${w}`, `${i} `.padEnd(256, "x"))),
  ));
}
Deno.exit(0);
