/**
 * The Primary Spore over loopback: three processes and a client process, values of 256 bytes, 1, 10 and 100 writers;
 * beside it three members of etcd with their data on tmpfs and a client of ours in a process of its own.
 *
 * Ours is the whole way of a write: the client is a member that signs each record and sends it over QUIC; the leader
 * verifies it, all three verify, agree on and apply it, and store it in SQLite (synchronous=FULL, on tmpfs as well). The
 * bars of `performance.md` (row 7) are ratios of commits per second to etcd's. Etcd's client speaks gRPC (HTTP/2, ten
 * connections) without signatures.
 *
 * usage: deno run -A bench/raft_net.ts [--pairs=5] [--ms=3000] [--source] [--etcd=PATH]
 *
 * @module
 */

import { join } from "node:path";
import { COMPILED, FROM_SOURCE } from "../tests/testkit/program.ts";
import { PrimaryGroup } from "../tests/testkit/primary_group.ts";
import { Etcd } from "./peers/etcd.ts";
import { median, type Pair, round } from "./processes.ts";

const WRITERS = [1, 10, 100] as const;
/** Commits per second over etcd's, at least: the bar and the aim by writers. */
const BARS = { 1: [1, 1.5], 10: [2, 4], 100: [5, 15] } as const;

interface Run {
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

function flag(name: string, missing: number): number {
  return Number(Deno.args.find((one) => one.startsWith(`--${name}=`))?.split("=")[1] ?? missing);
}

/** A client process that runs one measurement for each line that it gets. */
class Client implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #lines: ReadableStreamDefaultReader<string>;
  #rest = "";

  constructor(script: string, args: readonly string[]) {
    this.#child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--no-check", join(import.meta.dirname!, script), ...args],
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    this.#writer = this.#child.stdin.getWriter();
    this.#lines = this.#child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  }

  /** The next line that is JSON. */
  async line<T>(): Promise<T> {
    for (;;) {
      const end = this.#rest.indexOf("\n");
      if (end >= 0) {
        const line = this.#rest.slice(0, end);
        this.#rest = this.#rest.slice(end + 1);
        if (line.startsWith("{")) return JSON.parse(line) as T;
        continue;
      }
      const { value, done } = await this.#lines.read();
      if (done) throw new Error("the client ended");
      this.#rest += value;
    }
  }

  async run(writers: number, runMs: number): Promise<Run> {
    await this.#writer.write(new TextEncoder().encode(`${writers} ${runMs}\n`));
    return await this.line<Run>();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writer.close().catch(() => {});
    const timer = setTimeout(() => this.#child.kill("SIGKILL"), 5_000);
    await this.#child.status;
    clearTimeout(timer);
    await this.#lines.cancel();
  }
}

const [pairs, runMs] = [flag("pairs", 5), flag("ms", 3_000)];
if (!Deno.env.get("PRIMARY_DIR")) Deno.env.set("PRIMARY_DIR", "/dev/shm");
const binary = Deno.args.find((one) => one.startsWith("--etcd="))?.slice(7) ?? "etcd";
await using etcd = await Etcd.start(binary, 3, "/dev/shm");
await using group = await PrimaryGroup.start(Deno.args.includes("--source") ? FROM_SOURCE : COMPILED, 3);
await using ours = new Client("raft_net_client.ts", [await group.invite("rhizomorph"), join(group.home, "client")]);
await ours.line();
await using reference = etcd ? new Client("peers/etcd_client.ts", etcd.clientUrls) : undefined;
await reference?.line();
for (const writers of WRITERS) {
  // The first run is for the optimizing compiler.
  await ours.run(writers, runMs);
  await reference?.run(writers, 500);
  const [own, theirs]: [Run[], Run[]] = [[], []];
  for (let i = 0; i < pairs; i++) {
    own.push(await ours.run(writers, runMs));
    if (reference) theirs.push(await reference.run(writers, runMs));
  }
  const of = (runs: readonly Run[], field: keyof Run) => round(median(runs.map((one) => one[field])));
  const found: Pair[] = theirs.map((one, i) => ({ ours: own[i]!.perSecond, reference: one.perSecond }));
  const ratio = found.length > 0 ? round(median(found.map((one) => one.ours / one.reference))) : undefined;
  const [bar, extreme] = BARS[writers];
  console.log(JSON.stringify({
    name: `raft-net ${writers}`,
    unit: "commits/s",
    ours: of(own, "perSecond"),
    reference: found.length > 0 ? of(theirs, "perSecond") : undefined,
    ratio,
    bar,
    extreme,
    held: ratio === undefined ? undefined : ratio >= bar,
    pairs,
    p50Ms: of(own, "p50Ms"),
    p99Ms: of(own, "p99Ms"),
    ...(found.length > 0 ? { referenceP50Ms: of(theirs, "p50Ms"), referenceP99Ms: of(theirs, "p99Ms") } : {}),
    load: Deno.loadavg()[0],
  }));
}
