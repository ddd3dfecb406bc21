/**
 * Joining: one more node, until every node lists it, beside serf agents.
 *
 * usage: deno run -A bench/join.ts [NODES …] [--rounds=N]     (default: 3 10 30; 100 takes some minutes and 9 GB)
 *
 * For each size, a network of ours and a cluster of serf agents run on loopback at the same time, one member short; then
 * each gets one more in turn, `rounds` times (5) in each of two ways, so that the sizes measured are N to N + 9.
 *
 * - *Programs running*: both programs run already and know of nobody, as the unit of an installed machine has it; the
 *   clock starts when ours is told to join on its control socket, serf on its RPC port. The bar counts for this one: the
 *   figures that `performance.md` (row 2) divides by come from serf as a library, many nodes in one process, in which no
 *   program had to start. What a start costs has a bench of its own (`bench/start.ts`).
 * - *From process start*: the clock starts with the process, which is told to join by its arguments.
 *
 * A node lists another when its log says that it is a member: serf on the word of others, ours on a signed record and
 * credential that it has verified. Ours goes on from there to an authenticated channel between any two, which has no
 * counterpart in serf; `channelsMs` says when the last one was open. Above 32 members not every pair has one, and the
 * figure is left out. Neither side has discovery: the newcomer is given an invite, or an address.
 *
 * @module
 */

import { works } from "../tests/testkit/hosts.ts";
import {
  connect,
  freePort,
  killAll,
  lineGroups,
  LISTED,
  median,
  numberFlag,
  type Pair,
  report,
  requireBinary,
  round,
  sleep,
  spawnNode,
  spawnSerf,
} from "./processes.ts";

const SIZES = Deno.args.filter((one) => /^\d+$/.test(one)).map(Number);
const ROUNDS = numberFlag("rounds", 5);
const TIMEOUT_MS = 60_000;
/** Above this, ours has channels to some members only. */
const FULL_MESH_MAX = 32;

/** Lines of one kind that our log writes in ten seconds at most: who has more to say than that is asked. */
const LOG_BURST_MAX = 20;
/** Time between two such questions. */
const ASK_MS = 25;

/** Told to join by its arguments, or once it runs. */
type Way = "start" | "told";

interface Joined {
  /** Milliseconds until all list all. */
  readonly ms: number;
  /** Milliseconds until every pair had a channel; NaN where that is not to come. */
  readonly channelsMs: number;
}

/** Members of one kind; each says whom it lists. */
abstract class Cluster implements AsyncDisposable {
  protected readonly children: Deno.ChildProcess[] = [];
  /** How many members each node lists, itself among them, in the order of their start. */
  readonly #listed: number[] = [];
  /** To how many others each node has a channel. */
  readonly #channels: number[] = [];
  #told = Promise.withResolvers<void>();

  /** Starts a program; where it is to be told, it runs when this returns, and what is returned tells it. */
  protected abstract start(index: number, way: Way): Promise<() => Promise<void>>;

  /** Counts the names in the lines that say of a member that it is listed, or that there is a channel to it. */
  protected async follow(
    index: number,
    output: ReadableStream<Uint8Array>,
    lines: { readonly listed: RegExp; readonly channel?: RegExp; readonly own: number },
  ): Promise<void> {
    const listed = new Set<string>();
    const channels = new Set<string>();
    for await (const group of lineGroups(output)) {
      for (const line of group) {
        const name = lines.listed.exec(line)?.[1];
        if (name) listed.add(name);
        const open = lines.channel?.exec(line)?.[1];
        if (open) channels.add(open);
      }
      this.note(index, listed.size + lines.own, channels.size);
    }
  }

  /** So many does a node list, and has channels to; what it said before may have been more. */
  protected note(index: number, listed: number, channels: number): void {
    this.#listed[index] = Math.max(this.#listed[index]!, listed);
    this.#channels[index] = Math.max(this.#channels[index]!, channels);
    this.#told.resolve();
    this.#told = Promise.withResolvers();
  }

  /** Asks a node whose words do not say all; nothing to do where they do. */
  protected ask(_index: number): Promise<void> {
    return Promise.resolve();
  }

  /** Adds a member. */
  async add(way: Way, channels = false): Promise<Joined> {
    const index = this.#listed.push(0) - 1;
    this.#channels.push(0);
    let fromMs = performance.now();
    const join = await this.start(index, way);
    if (way === "told") {
      // What the start of the program left to do is no part of the join.
      await sleep(500);
      fromMs = performance.now();
      await join();
    }
    const size = this.#listed.length;
    const deadlineMs = performance.now() + TIMEOUT_MS;
    await this.#until(this.#listed, size, deadlineMs);
    const ms = performance.now() - fromMs;
    if (!channels) return { ms, channelsMs: NaN };
    await this.#until(this.#channels, size - 1, deadlineMs);
    return { ms, channelsMs: performance.now() - fromMs };
  }

  async #until(counts: readonly number[], wanted: number, deadlineMs: number): Promise<void> {
    while (!counts.every((one) => one >= wanted)) {
      // The log of one that has said as much as it may goes on in silence.
      const silent = counts.findIndex((one) => one >= LOG_BURST_MAX && one < wanted);
      if (silent >= 0) await Promise.all([this.ask(silent), sleep(ASK_MS)]);
      else await Promise.race([this.#told.promise, sleep(100)]);
      if (performance.now() < deadlineMs) continue;
      throw new Error(`Not all of ${this.#listed.length} list all: ${this.#listed.join(" ")}; ${this.#channels}`);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await killAll(this.children);
  }
}

class Ours extends Cluster {
  readonly #home = Deno.makeTempDirSync({ prefix: "myc-bench-" });
  #token = "";

  protected override async start(index: number, way: Way): Promise<() => Promise<void>> {
    const state = `${this.#home}/${index}`;
    const first = index === 0;
    const verb = first ? ["up", "--network", "bench"] : way === "told" ? ["up"] : ["join", "--invite-file", this.#file];
    const child = spawnNode(`n${index}`, state, verb);
    this.children.push(child);
    this.follow(index, child.stderr, {
      listed: LISTED.ours,
      channel: /"member-alive".*"node":"(\w+)"/,
      own: 1,
    });
    if (!first && way === "start") return () => Promise.resolve();
    const client = await connect(`${state}/agent.sock`);
    if (!first) {
      return async () => {
        using told = client;
        await told.control({ verb: "join", invite: this.#token });
      };
    }
    using founder = client;
    while ((await founder.status()).bootstrap.stage !== "verified") await sleep(20);
    const uses = Math.max(...SIZES, 64) + 2 * ROUNDS;
    const { token } = await founder.control({ verb: "invite-create", uses }) as { readonly token: string };
    this.#token = token;
    await Deno.writeTextFile(this.#file, token, { mode: 0o600 });
    return () => Promise.resolve();
  }

  get #file(): string {
    return `${this.#home}/invite`;
  }

  protected override async ask(index: number): Promise<void> {
    using client = await connect(`${this.#home}/${index}/agent.sock`);
    const { members } = await client.status();
    this.note(index, members.length, members.filter((one) => one.path).length);
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    await super[Symbol.asyncDispose]();
    await Deno.remove(this.#home, { recursive: true });
  }
}

class Serf extends Cluster {
  #first = 0;

  protected override async start(index: number, way: Way): Promise<() => Promise<void>> {
    const [port, rpc] = [freePort(), freePort()];
    const join = index === 0 || way === "told" ? [] : [`-join=127.0.0.1:${this.#first}`];
    if (index === 0) this.#first = port;
    const child = spawnSerf(`s${index}`, port, rpc, join);
    this.children.push(child);
    this.follow(index, child.stdout, { listed: LISTED.serf, own: 0 });
    if (way === "start") return () => Promise.resolve();
    const conn = await connectRpc(rpc);
    return async () => {
      using told = conn;
      await told.write(messagePack([{ Command: "join", Seq: 1 }, {
        Existing: [`127.0.0.1:${this.#first}`],
        Replay: false,
      }]));
      // The answer comes when the join is through; leaving before that would end it.
      await told.read(new Uint8Array(1_024));
    };
  }
}

/** A connection to the RPC port of a serf agent, greeted. */
async function connectRpc(port: number): Promise<Deno.TcpConn> {
  const deadlineMs = performance.now() + TIMEOUT_MS;
  for (;;) {
    try {
      const conn = await Deno.connect({ hostname: "127.0.0.1", port });
      conn.setNoDelay();
      await conn.write(messagePack([{ Command: "handshake", Seq: 0 }, { Version: 1 }]));
      await conn.read(new Uint8Array(1_024));
      return conn;
    } catch (error) {
      if (!(error instanceof Deno.errors.ConnectionRefused) || performance.now() > deadlineMs) throw error;
      await sleep(20);
    }
  }
}

type Packed = string | number | boolean | readonly Packed[] | { readonly [key: string]: Packed };

/** Values one after the other as MessagePack: texts below 256 bytes, numbers below 128, lists and maps below 16. */
function messagePack(values: readonly Packed[]): Uint8Array<ArrayBuffer> {
  const out: number[] = [];
  const put = (value: Packed): void => {
    if (typeof value === "string") {
      // Raw of the old specification, which serf speaks: up to 31 bytes, or with a length of 16 bits.
      const bytes = new TextEncoder().encode(value);
      if (bytes.length < 32) out.push(0xa0 | bytes.length, ...bytes);
      else out.push(0xda, bytes.length >> 8, bytes.length & 0xff, ...bytes);
    } else if (typeof value === "number") out.push(value);
    else if (typeof value === "boolean") out.push(value ? 0xc3 : 0xc2);
    else if (Array.isArray(value)) {
      out.push(0x90 | value.length);
      for (const one of value) put(one);
    } else {
      const entries = Object.entries(value);
      out.push(0x80 | entries.length);
      for (const [key, one] of entries) {
        put(key);
        put(one);
      }
    }
  };
  for (const value of values) put(value);
  return Uint8Array.from(out);
}

async function bench(size: number, withSerf: boolean): Promise<void> {
  await using ours = new Ours();
  await using serf = new Serf();
  for (let i = 0; i < size - 1; i++) {
    await ours.add("start");
    if (withSerf) await serf.add("start");
  }
  // serf sends by the tick; let both come to rest.
  await sleep(3_000);
  const pairs: Record<Way, Pair[]> = { told: [], start: [] };
  const channels: Record<Way, number[]> = { told: [], start: [] };
  const last = size + 2 * ROUNDS - 1;
  for (let i = 0; i < ROUNDS; i++) {
    for (const way of ["told", "start"] as const) {
      const first = withSerf && i % 2 === 0 ? await serf.add(way) : undefined;
      const one = await ours.add(way, last <= FULL_MESH_MAX);
      const other = first ?? (withSerf ? await serf.add(way) : { ms: NaN });
      pairs[way].push({ ours: one.ms, reference: other.ms });
      channels[way].push(one.channelsMs);
      await sleep(500);
    }
  }
  const sizes = `N=${size} to ${last}`;
  const line = (what: string, way: Way) =>
    report({
      name: `join: ${what}, until all list all, ${sizes}, against serf`,
      unit: "ms",
      bar: 0.5,
      extreme: 0.1,
      pairs: pairs[way],
      more: last <= FULL_MESH_MAX ? { channelsMs: round(median(channels[way])) } : {},
    });
  line("programs running", "told");
  line("from process start", "start");
}

requireBinary();
const withSerf = await works("serf", "version");
if (!withSerf) console.error("serf is not installed (Debian: serf): without the reference");
for (const size of SIZES.length > 0 ? SIZES : [3, 10, 30]) await bench(size, withSerf);
Deno.exit(0);
