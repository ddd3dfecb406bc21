/**
 * The floor of `raft_net.ts`: as many processes that do nothing of a primary but its transport and its disk.
 *
 * A client process asks over one kept stream of bare QUIC; a leader sends a datagram to two followers and writes a row
 * with the store of a node; each follower writes one and answers with a datagram; the first answer is answered. No
 * signatures, no Raft, no codec, no agent. What a commit takes beyond this is ours to lessen; what it takes here is
 * Deno's QUIC and SQLite.
 *
 * usage: deno run -A --unstable-net bench/raft_floor.ts [--ms=2000] [--dir=/dev/shm]
 *
 * @module
 */

import { join } from "node:path";
import { setImmediate } from "node:timers";
import { keyPairFromSeed } from "../src/core/crypto.ts";
import { openStore } from "../src/edge/disk/store.ts";
import { createAnchor, createLeaf, serverNameOf } from "../src/edge/p2p/certificate.ts";
import { lineGroups, numberFlag, round } from "./processes.ts";
import { ALPN, NETWORK_ID } from "./quic_world.ts";

const keyPair = keyPairFromSeed(new Uint8Array(32).fill(9));
const RECORD_BYTES = 420;

async function connect(port: number): Promise<Deno.QuicConn> {
  return await Deno.connectQuic<false>({
    hostname: "127.0.0.1",
    port,
    serverName: serverNameOf(NETWORK_ID, keyPair.publicKey),
    alpnProtocols: [ALPN],
    caCerts: [createAnchor(NETWORK_ID, keyPair.publicKey)],
  });
}

/** Listens, says where, and gives the connections. */
async function* listen(): AsyncGenerator<Deno.QuicConn> {
  const endpoint = new Deno.QuicEndpoint({ hostname: "127.0.0.1", port: 0 });
  const leaf = createLeaf(keyPair, { networkId: NETWORK_ID, nowMs: Date.now(), lifetimeMs: 3_600_000 });
  const listener = endpoint.listen({ cert: leaf.cert, key: leaf.key, alpnProtocols: [ALPN] });
  console.log(JSON.stringify({ port: endpoint.addr.port }));
  for await (const incoming of listener) yield await incoming.accept();
}

/** Writes a row, durably. */
function disk(dir: string): (bytes: Uint8Array) => void {
  Deno.mkdirSync(dir, { recursive: true });
  const store = openStore(dir);
  let count = 0;
  return (bytes) => store.apply([[`raft/log/${String(count++ % 4_096).padStart(16, "0")}`, bytes]]);
}

async function follow(dir: string): Promise<void> {
  const write = disk(dir);
  for await (const conn of listen()) {
    void (async () => {
      for (;;) {
        const bytes = await conn.readDatagram();
        write(bytes);
        void conn.sendDatagram(bytes.slice(0, 8));
      }
    })().catch(() => {});
  }
}

async function lead(dir: string, ports: readonly number[]): Promise<void> {
  const write = disk(dir);
  const followers = await Promise.all(ports.map(connect));
  const waiting = new Map<number, () => void>();
  for (const conn of followers) {
    void (async () => {
      for (;;) {
        const number = new DataView((await conn.readDatagram()).slice().buffer).getUint32(0);
        waiting.get(number)?.();
        waiting.delete(number);
      }
    })();
  }
  let next = 0;
  for await (const conn of listen()) {
    void (async () => {
      for await (const { readable, writable } of conn.incomingBidirectionalStreams) {
        const [reader, writer] = [readable.getReader(), writable.getWriter()];
        for (;;) {
          const { value } = await reader.read();
          if (!value) return;
          const number = next++;
          const bytes = new Uint8Array(RECORD_BYTES);
          new DataView(bytes.buffer).setUint32(0, number);
          for (const one of followers) void one.sendDatagram(bytes);
          const agreed = new Promise<void>((resolve) => waiting.set(number, resolve));
          // The datagrams leave when the loop turns.
          await new Promise((resolve) => setImmediate(resolve));
          write(bytes);
          await agreed;
          await writer.write(value.slice(0, 8));
        }
      }
    })().catch(() => {});
  }
}

/** One process of this file. */
async function start(...args: string[]): Promise<{ readonly child: Deno.ChildProcess; readonly port: number }> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", "--unstable-net", import.meta.filename!, ...args],
    stdout: "piped",
  }).spawn();
  for await (const lines of lineGroups(child.stdout)) return { child, port: JSON.parse(lines[0]!).port };
  throw new Error("it ended");
}

const [role, dir = "", ...ports] = Deno.args;
if (role === "follow") await follow(dir);
else if (role === "lead") await lead(dir, ports.map(Number));
else {
  const parent = Deno.args.find((one) => one.startsWith("--dir="))?.slice(6) ?? "/dev/shm";
  const home = Deno.makeTempDirSync({ dir: parent, prefix: "floor-" });
  const followers = [await start("follow", join(home, "f1")), await start("follow", join(home, "f2"))];
  const leader = await start("lead", join(home, "l"), ...followers.map(({ port }) => String(port)));
  try {
    const conn = await connect(leader.port);
    const { readable, writable } = await conn.createBidirectionalStream();
    const [reader, writer] = [readable.getReader(), writable.getWriter()];
    const took: number[] = [];
    const endMs = performance.now() + 2 * numberFlag("ms", 2_000);
    while (performance.now() < endMs) {
      const atMs = performance.now();
      await writer.write(new Uint8Array(RECORD_BYTES));
      await reader.read();
      took.push(performance.now() - atMs);
    }
    // The first half is for the optimizing compiler.
    const counted = took.slice(took.length >> 1).sort((a, b) => a - b);
    const at = (share: number) => round(counted[Math.floor(counted.length * share)]!);
    console.log(JSON.stringify({ name: "raft-floor 1", unit: "ms", p50: at(0.5), p90: at(0.9), p99: at(0.99) }));
  } finally {
    for (const { child } of [leader, ...followers]) child.kill("SIGKILL");
    Deno.removeSync(home, { recursive: true });
  }
  Deno.exit(0);
}
