/**
 * The status endpoint under load, beside an empty `Deno.serve` in the same program.
 *
 * usage: deno run -A bench/status.ts [SECONDS_PER_ROUND] [ROUNDS]
 *
 * 16 connections ask `GET /status` (20 kB of JSON of a node of eight) as fast as they are answered, with `wrk`
 * where it is installed and with a loop of this program else. Three servers take turns, so that other work on
 * the machine hits all: ours, an empty one, and one that sends the same bytes from a constant. All three are one program,
 * compiled with the runtime and the flags of the real one: with those of the Deno that runs this, JavaScript is optimized
 * sooner, and the figures are of another version. Prints one JSON line: requests per second of ours and the empty one
 * (median of the rounds), their ratio, the same by CPU time per request (which other work on the machine disturbs less),
 * the ratio to the constant, the 99th percentiles, and how much our memory grew. Target: ratio 0.5, at best 0.85.
 *
 * Where the time goes, µs of CPU a request, the smallest of eight rounds on a busy machine: an empty answer 10.6, 20 kB of
 * constant text 4.7 more, so that nobody who sends this document comes to more than 0.7. Ours takes another 5.3: 2.0 for
 * the tag (`If-None-Match` is read, `ETag` sent), the rest for the address and five more headers.
 *
 * @module
 */

import { buildServer } from "./processes.ts";

const CONNECTIONS = 16;

const SECONDS = Number(Deno.args[0] ?? 3);
const ROUNDS = Number(Deno.args[1] ?? 5);

interface Load {
  readonly requestsPerSecond: number;
  readonly requests: number;
  readonly p99Ms: number;
}

interface Round extends Load {
  readonly cpuUsPerRequest: number;
}

class Server implements AsyncDisposable {
  readonly #process: Deno.ChildProcess;
  readonly #lines: ReadableStreamDefaultReader<string>;
  readonly #input: WritableStreamDefaultWriter<Uint8Array>;
  port = 0;

  constructor(program: string, kind: "ours" | "empty" | "body") {
    this.#process = new Deno.Command(program, {
      args: [kind],
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    this.#input = this.#process.stdin.getWriter();
    this.#lines = this.#process.stdout.pipeThrough(new TextDecoderStream()).getReader();
  }

  async start(): Promise<this> {
    this.port = Number((await this.#lines.read()).value);
    return this;
  }

  /** Resident bytes and CPU milliseconds. */
  async stat(): Promise<readonly [number, number]> {
    await this.#input.write(new Uint8Array([10]));
    const [rss = 0, cpu = 0] = ((await this.#lines.read()).value ?? "").trim().split(" ").map(Number);
    return [rss, cpu];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.kill("SIGKILL");
    await this.#process.status;
    await this.#input.abort().catch(() => {});
    await this.#lines.cancel().catch(() => {});
  }
}

/** Load by `wrk`, or `undefined` where it is not installed. */
async function wrk(url: string, seconds: number): Promise<Load | undefined> {
  try {
    const { stdout } = await new Deno.Command("wrk", {
      args: ["-t1", `-c${CONNECTIONS}`, `-d${seconds}s`, "--latency", url],
    }).output();
    const text = new TextDecoder().decode(stdout);
    const [, p99 = "0", unit = "ms"] = /99%\s+([\d.]+)(us|ms|s)/.exec(text) ?? [];
    return {
      requests: Number(/(\d+) requests in/.exec(text)?.[1] ?? 0),
      requestsPerSecond: Number(/Requests\/sec:\s+([\d.]+)/.exec(text)?.[1] ?? 0),
      p99Ms: Number(p99) * (unit === "us" ? 0.001 : unit === "s" ? 1000 : 1),
    };
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** Load by this program; it is itself the bottleneck, so the ratio comes out too good. */
async function ownLoop(url: string, seconds: number): Promise<Load> {
  const end = performance.now() + seconds * 1000;
  const times: number[] = [];
  await Promise.all(Array.from({ length: CONNECTIONS }, async () => {
    while (performance.now() < end) {
      const begin = performance.now();
      await (await fetch(url)).arrayBuffer();
      times.push(performance.now() - begin);
    }
  }));
  times.sort((a, b) => a - b);
  return {
    requests: times.length,
    requestsPerSecond: times.length / seconds,
    p99Ms: times[Math.floor(times.length * 0.99)] ?? 0,
  };
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}

const program = await buildServer();
await using ours = await new Server(program, "ours").start();
await using empty = await new Server(program, "empty").start();
await using body = await new Server(program, "body").start();
let tool = "wrk";

async function measure(server: Server, seconds: number): Promise<Round> {
  const url = `http://127.0.0.1:${server.port}/status`;
  const [, before] = await server.stat();
  let load = await wrk(url, seconds);
  if (!load) {
    tool = "own loop";
    load = await ownLoop(url, seconds);
  }
  const [, after] = await server.stat();
  return { ...load, cpuUsPerRequest: (after - before) * 1000 / Math.max(1, load.requests) };
}

for (const server of [ours, empty, body]) await measure(server, 1);
const [rssBefore] = await ours.stat();
const rounds: { readonly ours: Round; readonly empty: Round; readonly body: Round }[] = [];
for (let round = 0; round < ROUNDS; round++) {
  rounds.push({
    ours: await measure(ours, SECONDS),
    empty: await measure(empty, SECONDS),
    body: await measure(body, SECONDS),
  });
}
const [rssAfter] = await ours.stat();
const middle = (read: (round: typeof rounds[number]) => number, digits = 0) => {
  return Number(median(rounds.map(read)).toFixed(digits));
};
console.log(JSON.stringify({
  name: "status endpoint, requests per second",
  ours: middle((round) => round.ours.requestsPerSecond),
  reference: middle((round) => round.empty.requestsPerSecond),
  ratio: middle((round) => round.ours.requestsPerSecond / round.empty.requestsPerSecond, 3),
  cpuRatio: middle((round) => round.empty.cpuUsPerRequest / round.ours.cpuUsPerRequest, 3),
  cpuRatioToSameBody: middle((round) => round.body.cpuUsPerRequest / round.ours.cpuUsPerRequest, 3),
  cpuUsPerRequest: middle((round) => round.ours.cpuUsPerRequest, 1),
  p99Ms: middle((round) => round.ours.p99Ms, 2),
  referenceP99Ms: middle((round) => round.empty.p99Ms, 2),
  rssGrowthBytes: rssAfter - rssBefore,
  tool,
}));
