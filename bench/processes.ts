/** What the benches of whole programs share: the programs, their figures in /proc, and the arithmetic. @module */

import { join } from "node:path";
import { openControl } from "../src/cli/client.ts";
import { COMPILED } from "../tests/testkit/program.ts";

const ROOT = join(import.meta.dirname!, "..");

/** The compiled program. */
export const BINARY: string = COMPILED[0];

/** Figures of a process, from `/proc`. */
export interface Figures {
  /** Resident memory and its largest value so far, MB of 10^6 bytes. */
  readonly rssMb: number;
  readonly peakMb: number;
  /** Resident memory that no file backs. */
  readonly anonMb: number;
  /** Resident memory, shared pages divided by their users; 0 where the kernel does not say. */
  readonly pssMb: number;
  /** Time on a CPU since the start, all threads, milliseconds. */
  readonly cpuMs: number;
  /** How often its threads went to sleep by themselves: each time, something woke them. */
  readonly sleeps: number;
  readonly fds: number;
}

/** Reads the figures of a process now. */
export function figures(pid: number): Figures {
  const status = Deno.readTextFileSync(`/proc/${pid}/status`);
  let cpuNs = 0;
  let sleeps = 0;
  for (const { name } of Deno.readDirSync(`/proc/${pid}/task`)) {
    try {
      cpuNs += Number(Deno.readTextFileSync(`/proc/${pid}/task/${name}/schedstat`).split(" ")[0]);
      const task = Deno.readTextFileSync(`/proc/${pid}/task/${name}/status`);
      sleeps += Number(/^voluntary_ctxt_switches:\s+(\d+)/m.exec(task)?.[1] ?? 0);
    } catch {
      // A thread that ended meanwhile.
    }
  }
  let pssKb = 0;
  try {
    pssKb = Number(/^Pss:\s+(\d+)/m.exec(Deno.readTextFileSync(`/proc/${pid}/smaps_rollup`))?.[1] ?? 0);
  } catch {
    // Another user's process.
  }
  const kb = (field: string) => Number(new RegExp(`^${field}:\\s+(\\d+) kB`, "m").exec(status)?.[1] ?? 0);
  return {
    rssMb: megabytes(kb("VmRSS")),
    peakMb: megabytes(kb("VmHWM")),
    anonMb: megabytes(kb("RssAnon")),
    pssMb: megabytes(pssKb),
    cpuMs: cpuNs / 1e6,
    sleeps,
    fds: [...Deno.readDirSync(`/proc/${pid}/fd`)].length,
  };
}

function megabytes(kb: number): number {
  return kb * 1024 / 1e6;
}

/** The middle value. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** One measurement of ours and one of the reference, taken one after the other. */
export interface Pair {
  readonly ours: number;
  readonly reference: number;
}

/** A line of a bench: medians of both, the median of the ratios of the pairs, and whether the bar is held. */
export function report(
  result: {
    readonly name: string;
    readonly unit: string;
    /** Largest ratio that holds, and the one to aim at. */
    readonly bar: number;
    readonly extreme: number;
    readonly pairs: readonly Pair[];
    readonly more?: Readonly<Record<string, unknown>>;
  },
): void {
  const { name, unit, bar, extreme, pairs, more = {} } = result;
  const ratio = median(pairs.map(({ ours, reference }) => ours / reference));
  console.log(JSON.stringify({
    name,
    unit,
    ours: round(median(pairs.map(({ ours }) => ours))),
    reference: round(median(pairs.map(({ reference }) => reference))),
    ratio: round(ratio),
    bar,
    extreme,
    held: ratio <= bar,
    pairs: pairs.length,
    load: load(),
    ...more,
  }));
}

/** Rounds to three significant digits after the point of small numbers, one of large ones. */
export function round(value: number): number {
  const digits = Math.abs(value) < 10 ? 1_000 : 10;
  return Math.round(value * digits) / digits;
}

/** Load of the machine in the last minute: other work on it stretches every time. */
export function load(): number {
  return round(Deno.loadavg()[0]!);
}

/** Waits. */
export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/**
 * Ends the run where the program to measure is not there; what it inherits is as where it is installed.
 *
 * A node that finds a variable it does not know looks for one that was meant, which heats V8's optimizer up: 7 MB. The
 * machine's certificates, which the tasks of this repository choose for downloads, are not what a node starts with.
 */
export function requireBinary(): void {
  Deno.env.delete("MYCELIUM_BINARY");
  Deno.env.delete("DENO_TLS_CA_STORE");
  try {
    Deno.statSync(BINARY);
  } catch {
    console.error(`Cannot run this bench: there is no ${BINARY}. Make it with: deno task compile`);
    Deno.exit(2);
  }
}

/** Compiles {@linkcode skeleton.ts} with the runtime and the flags of the program; returns where it is. */
export async function buildSkeleton(): Promise<string> {
  return await buildPlain("bench/skeleton.ts", "bench-skeleton");
}

/** Compiles {@linkcode status_server.ts} with the runtime and the flags of the program; returns where it is. */
export async function buildServer(): Promise<string> {
  return await buildPlain("bench/status_server.ts", "bench-status-server");
}

async function buildPlain(entry: string, name: string): Promise<string> {
  const output = join(ROOT, "dist", name);
  const { success, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "tools/compile.ts", "--plain", "--entry", entry, "--output", output],
    cwd: ROOT,
    env: { DENO_TLS_CA_STORE: "system,mozilla" },
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  }).output();
  if (!success) throw new Error(`Cannot compile ${entry}: ${new TextDecoder().decode(stderr)}`);
  return output;
}

/** A whole number given as `--name=N`. */
export function numberFlag(name: string, missing: number): number {
  return Number(Deno.args.find((one) => one.startsWith(`--${name}=`))?.slice(name.length + 3) ?? missing);
}

/**
 * Starts a member of ours that speaks to nothing but loopback and logs JSON to the standard error that is piped.
 *
 * @param verb What it is to do, such as `["up", "--network", "bench"]`.
 */
export function spawnNode(name: string, state: string, verb: readonly string[]): Deno.ChildProcess {
  return new Deno.Command(BINARY, {
    args: [
      ...[...verb, "--name", name, "--state", state, "--listen", "127.0.0.1", "--port", "0", "--http", "off"],
      ...["--no-mdns", "--no-multicast", "--no-broadcast", "--log-format", "json"],
    ],
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  }).spawn();
}

/** Starts a serf agent on loopback whose log is the standard output that is piped. */
export function spawnSerf(name: string, port: number, rpc: number, args: readonly string[]): Deno.ChildProcess {
  return new Deno.Command("serf", {
    args: ["agent", `-node=${name}`, `-bind=127.0.0.1:${port}`, `-rpc-addr=127.0.0.1:${rpc}`, ...args],
    stdin: "null",
    stdout: "piped",
    stderr: "null",
  }).spawn();
}

/** What serf and a node of ours print when they list a member. */
export const LISTED = {
  ours: /"(?:member-listed|node-admitted|member-alive)".*"node":"(\w+)"/,
  serf: /EventMemberJoin: (\S+)/,
} as const;

/** The control socket of a node, once it answers. */
export async function connect(socket: string, withinMs = 60_000): ReturnType<typeof openControl> {
  const deadlineMs = performance.now() + withinMs;
  for (;;) {
    try {
      const client = await openControl(socket);
      await client.status();
      return client;
    } catch (error) {
      if (performance.now() > deadlineMs) throw error;
      await sleep(20);
    }
  }
}

/** Ends children at once, those that have ended by themselves as well. */
export async function killAll(children: readonly Deno.ChildProcess[]): Promise<void> {
  for (const child of children) {
    try {
      child.kill("SIGKILL");
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
    }
    await child.status;
  }
}

/** Lines of what a child prints, as they come: those of one read together. */
export async function* lineGroups(output: ReadableStream<Uint8Array>): AsyncGenerator<readonly string[]> {
  let rest = "";
  for await (const text of output.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    yield lines;
  }
}

/** A free TCP port of loopback; nobody else is likely to take it in the next second. */
export function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return (listener.addr as Deno.NetAddr).port;
}
