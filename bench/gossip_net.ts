/**
 * Gossip over sockets: 100 nodes in 10 processes over QUIC on loopback, a signed record of 249 bytes that each node
 * verifies, against 100 agents of serf and a user event of as many bytes.
 *
 * Ours are networks and gossip cores, without the rest of a node; each keeps the channels that a node would keep
 * among 100. Needs `serf` (Debian: serf) for the reference. The clock of serf starts when the agent that was told
 * has logged the event, so that the start of its client is not counted.
 *
 * usage: deno run -A bench/gossip_net.ts [--processes=10] [--nodes=10] [--pairs=20]
 *
 * @module
 */

import { join } from "node:path";
import type { Answer, Ask } from "./gossip_net_child.ts";
import { channels, RECORD_BYTES } from "./gossip_world.ts";
import { works } from "../tests/testkit/hosts.ts";
import { median, type Pair, report, round, sleep } from "./processes.ts";

function flag(name: string, missing: number): number {
  return Number(Deno.args.find((one) => one.startsWith(`--${name}=`))?.split("=")[1] ?? missing);
}

const PROCESSES = flag("processes", 10);
const PER_PROCESS = flag("nodes", 10);
const COUNT = PROCESSES * PER_PROCESS;
const PAIRS = flag("pairs", 20);

/** Milliseconds from the publication to half of the nodes and to the last. */
interface Spread {
  readonly p50Ms: number;
  readonly lastMs: number;
}

function spreadOf(startMs: number, times: readonly number[]): Spread {
  const sorted = times.toSorted((a, b) => a - b);
  if (sorted.length !== COUNT) throw new Error(`${sorted.length} of ${COUNT} nodes have it`);
  return { p50Ms: sorted[COUNT >> 1]! - startMs, lastMs: sorted.at(-1)! - startMs };
}

class Child {
  readonly #process: Deno.ChildProcess;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #answers: AsyncIterator<string>;

  constructor() {
    this.#process = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--no-check", join(import.meta.dirname!, "gossip_net_child.ts"), `${PER_PROCESS}`],
      stdin: "piped",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    this.#writer = this.#process.stdin.getWriter();
    this.#answers = linesOf(this.#process.stdout)[Symbol.asyncIterator]();
  }

  async answer(): Promise<Answer> {
    const { value, done } = await this.#answers.next();
    if (done) throw new Error("A process of the bench has ended");
    return JSON.parse(value) as Answer;
  }

  async ask(ask: Ask): Promise<Answer> {
    await this.#writer.write(new TextEncoder().encode(JSON.stringify(ask) + "\n"));
    return await this.answer();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await end(this.#process);
  }
}

async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncIterable<string> {
  let rest = "";
  for await (const text of stream.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    yield* lines;
  }
}

class Ours {
  readonly #children: Child[] = [];
  #records = 0;
  #before = { sends: 0, frames: 0 };
  /** Sent and of any kind, per delivery of the last record. */
  sends = 0;
  frames = 0;

  async start(): Promise<void> {
    const addresses: string[] = [];
    for (let i = 0; i < PROCESSES; i++) {
      const child = new Child();
      this.#children.push(child);
      addresses.push(...(await child.answer()).addresses!);
    }
    const pairs: [number, string][][] = this.#children.map(() => []);
    for (const [a, b] of channels(COUNT)) pairs[Math.floor(a / PER_PROCESS)]!.push([a % PER_PROCESS, addresses[b]!]);
    // One after the other: all at once, two cores are busy with handshakes for longer than one may take.
    for (const [i, child] of this.#children.entries()) {
      const { dialed } = await child.ask({ ask: "dial", pairs: pairs[i]! });
      if (dialed !== pairs[i]!.length) throw new Error(`${dialed} of ${pairs[i]!.length} channels are open`);
    }
  }

  async publish(): Promise<Spread> {
    const record = this.#records++;
    const node = (record * 7_919) % COUNT;
    const child = this.#children[Math.floor(node / PER_PROCESS)]!;
    const { published } = await child.ask({ ask: "publish", node: node % PER_PROCESS, record });
    const times: number[] = [];
    let sum = { sends: 0, frames: 0 };
    // Announcements and questions included; where the machine is busy, until all have it.
    for (let tries = 0; tries < 10 && times.length < COUNT; tries++) {
      await sleep(1_000);
      sum = { sends: 0, frames: 0 };
      for (const one of this.#children) {
        const { delivered, sends, frames } = await one.ask({ ask: "report" });
        times.push(...delivered!);
        sum.sends += sends!;
        sum.frames += frames!;
      }
    }
    this.sends = (sum.sends - this.#before.sends) / (COUNT - 1);
    this.frames = (sum.frames - this.#before.frames) / (COUNT - 1);
    this.#before = sum;
    return spreadOf(published!, times);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const one of this.#children) await one[Symbol.asyncDispose]();
  }
}

/** Agents of serf, one process each. */
class Serf {
  readonly #agents: Deno.ChildProcess[] = [];
  readonly #rpc: string[] = [];
  #joined: number[] = [];
  #events = 0;
  #times: number[] = [];

  async start(): Promise<void> {
    let first = "";
    for (let i = 0; i < COUNT; i++) {
      const bind = `127.0.0.1:${freePort()}`;
      const rpc = `127.0.0.1:${freePort()}`;
      const join = first === "" ? [] : [`-join=${first}`];
      if (first === "") first = bind;
      const agent = new Deno.Command("serf", {
        args: ["agent", `-node=s${i}`, `-bind=${bind}`, `-rpc-addr=${rpc}`, ...join],
        stdin: "null",
        stdout: "piped",
        stderr: "null",
      }).spawn();
      this.#agents.push(agent);
      this.#rpc.push(rpc);
      this.#joined.push(0);
      this.#follow(i, agent.stdout);
      await sleep(i === 0 ? 1_000 : 50);
    }
    const endMs = performance.now() + 120_000;
    while (this.#joined.some((one) => one < COUNT)) {
      if (performance.now() > endMs) throw new Error(`serf's agents do not see each other: ${this.#joined}`);
      await sleep(200);
    }
  }

  async publish(): Promise<Spread> {
    this.#times = [];
    const at = (this.#events * 7_919) % COUNT;
    const { success } = await new Deno.Command("serf", {
      args: ["event", `-rpc-addr=${this.#rpc[at]}`, "-coalesce=false", `bench${this.#events++}`, payload()],
      stdout: "null",
      stderr: "inherit",
    }).output();
    if (!success) throw new Error("serf did not take the event");
    const endMs = performance.now() + 10_000;
    while (this.#times.length < COUNT && performance.now() < endMs) await sleep(20);
    return spreadOf(Math.min(...this.#times), this.#times);
  }

  async #follow(index: number, output: ReadableStream<Uint8Array>): Promise<void> {
    for await (const line of linesOf(output)) {
      if (line.includes("user-event: bench")) this.#times.push(performance.now());
      else if (line.includes("EventMemberJoin:")) this.#joined[index]! += 1;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const agent of this.#agents) await end(agent);
  }
}

/** Kills a process, unless it has ended by itself. */
async function end(child: Deno.ChildProcess): Promise<void> {
  try {
    child.kill("SIGKILL");
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
  }
  await child.status;
}

/** Letters and digits of a record's size, which compress little. */
function payload(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(RECORD_BYTES));
  return btoa(String.fromCharCode(...bytes)).slice(0, RECORD_BYTES);
}

/** Ports below those that the kernel gives to connections, so that none is taken between the look and the start. */
let nextPort = 21_000 + crypto.getRandomValues(new Uint16Array(1))[0]! % 8_000;
function freePort(): number {
  for (;;) {
    try {
      Deno.listen({ hostname: "127.0.0.1", port: ++nextPort }).close();
      return nextPort;
    } catch (error) {
      if (!(error instanceof Deno.errors.AddrInUse)) throw error;
    }
  }
}

const withSerf = await works("serf", "version");
if (!withSerf) console.error("serf is not installed (Debian: serf): without the reference");
await using ours = new Ours();
await using serf = new Serf();
await ours.start();
if (withSerf) await serf.start();
await sleep(5_000);
for (let i = 0; i < 10; i++) await ours.publish();
const p50: Pair[] = [];
const last: Pair[] = [];
const sends: number[] = [];
const frames: number[] = [];
for (let i = 0; i < PAIRS; i++) {
  const early = withSerf && i % 2 === 0 ? await serf.publish() : undefined;
  const one = await ours.publish();
  const other = early ?? (withSerf ? await serf.publish() : { p50Ms: NaN, lastMs: NaN });
  p50.push({ ours: one.p50Ms, reference: other.p50Ms });
  last.push({ ours: one.lastMs, reference: other.lastMs });
  sends.push(ours.sends);
  frames.push(ours.frames);
  await sleep(500);
}
const more = { sends: round(median(sends)), frames: round(median(frames)), processes: PROCESSES };
const common = { unit: "ms", bar: 0.25, extreme: 0.05 };
report({ ...common, name: `gossip over sockets, N=${COUNT}: half of the nodes, against serf`, pairs: p50 });
report({ ...common, name: `gossip over sockets, N=${COUNT}: the last node, against serf`, pairs: last, more });
