/**
 * Start of the compiled program with an empty state folder, until `/readyz` says that the node is ready, beside a
 * compiled "hello" of the same runtime: time, and largest memory until then.
 *
 * usage: deno run -A bench/start.ts [PAIRS]
 *
 * Ours makes its keys, forms a network, writes all that durably, opens QUIC, TCP, the status page and its socket; hello
 * answers HTTP. Bar: 2.5 times the time and 1.3 times the memory; to aim at: 1.5 and 1.15 (`performance.md`, row 1).
 *
 * @module
 */

import { BINARY, buildSkeleton, figures, freePort, type Pair, report, requireBinary, sleep } from "./processes.ts";

const PAIRS = Number(Deno.args[0] ?? 9);
const LOOPBACK = ["--listen", "127.0.0.1", "--port", "0", "--no-mdns", "--no-multicast", "--no-broadcast"];

interface Start {
  readonly ms: number;
  readonly peakMb: number;
  readonly cpuMs: number;
}

/** Starts a program and waits until a path of it answers 200. */
async function start(program: string, args: readonly string[], port: number, path: string): Promise<Start> {
  const startedMs = performance.now();
  const child = new Deno.Command(program, { args: [...args], stdin: "null", stdout: "null", stderr: "null" }).spawn();
  try {
    while (!(await answers(port, path))) {
      if (performance.now() - startedMs > 20_000) throw new Error(`${program} is not ready after 20 s`);
      await sleep(1);
    }
    const ms = performance.now() - startedMs;
    const { peakMb, cpuMs } = figures(child.pid);
    return { ms, peakMb, cpuMs };
  } finally {
    child.kill("SIGKILL");
    await child.status;
  }
}

/** Whether the path answers 200 now; a bare socket, since what `fetch` keeps would be in the way of the next start. */
async function answers(port: number, path: string): Promise<boolean> {
  try {
    using socket = await Deno.connect({ hostname: "127.0.0.1", port });
    await socket.write(new TextEncoder().encode(`GET ${path} HTTP/1.1\r\nhost: 127.0.0.1:${port}\r\n\r\n`));
    const buffer = new Uint8Array(32);
    const length = await socket.read(buffer) ?? 0;
    return new TextDecoder().decode(buffer.subarray(0, length)).startsWith("HTTP/1.1 200");
  } catch {
    return false;
  }
}

async function ours(): Promise<Start> {
  const state = await Deno.makeTempDir({ prefix: "myc-bench-" });
  try {
    const port = freePort();
    const args = ["up", "--network", "bench", "--state", state, "--http", `127.0.0.1:${port}`, ...LOOPBACK];
    return await start(BINARY, args, port, "/readyz");
  } finally {
    await Deno.remove(state, { recursive: true });
  }
}

requireBinary();
const skeleton = await buildSkeleton();
const hello = () => {
  const port = freePort();
  return start(skeleton, [String(port)], port, "/");
};
// The first start of each reads the file from disk.
await ours();
await hello();
const time: Pair[] = [];
const memory: Pair[] = [];
const cpu: Pair[] = [];
for (let i = 0; i < PAIRS; i++) {
  const first = i % 2 === 0 ? await hello() : undefined;
  const one = await ours();
  const other = first ?? await hello();
  time.push({ ours: one.ms, reference: other.ms });
  memory.push({ ours: one.peakMb, reference: other.peakMb });
  cpu.push({ ours: one.cpuMs, reference: other.cpuMs });
}
report({ name: "start: empty folder to ready, against hello", unit: "ms", bar: 2.5, extreme: 1.5, pairs: time });
report({ name: "start: peak memory, against hello", unit: "MB", bar: 1.3, extreme: 1.15, pairs: memory });
report({ name: "start: CPU time, against hello", unit: "ms", bar: 2.5, extreme: 1.5, pairs: cpu });
