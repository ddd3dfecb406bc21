/**
 * Joining: from the start of one more process until every node says that all are alive, beside serf agents.
 *
 * usage: deno run -A bench/join.ts [NODES …] [--rounds=N]     (default: 3 10)
 *
 * For each size, a network of ours and a cluster of serf agents run on loopback at the same time, one member short; then
 * each gets one more in turn, five times, so that the sizes measured are N to N + 4. What counts is the line in each
 * agent's log that another member is alive; all of ours may have dialed each other, serf's have been told. Neither has
 * discovery: the joiner is given an invite, or an address. Bar: 0.5 of serf; to aim at: 0.1 (`performance.md`, row 2).
 *
 * The compiled program needs some 0.2 s of CPU to start, serf's 10 ms; "without the start" leaves both out: it counts
 * from the moment when the joiner answers on its socket.
 *
 * @module
 */

import { openControl } from "../src/cli/client.ts";
import { works } from "../tests/testkit/hosts.ts";
import { BINARY, freePort, type Pair, report, requireBinary, sleep } from "./processes.ts";

const SIZES = Deno.args.filter((one) => /^\d+$/.test(one)).map(Number);
const ROUNDS = Number(Deno.args.find((one) => one.startsWith("--rounds="))?.slice(9) ?? 5);
const TIMEOUT_MS = 60_000;

type Client = Awaited<ReturnType<typeof openControl>>;

/** Members of one kind; each says how many it knows alive. */
abstract class Cluster implements AsyncDisposable {
  protected readonly children: Deno.ChildProcess[] = [];
  /** How many members each node knows alive, in the order of their start. */
  protected readonly known: number[] = [];
  /** When the newest member was there to be asked. */
  protected upMs = 0;
  #told = Promise.withResolvers<void>();

  protected abstract start(index: number): Promise<void>;

  protected tell(index: number, alive: number): void {
    this.known[index] = alive;
    this.#told.resolve();
    this.#told = Promise.withResolvers();
  }

  /** Counts the names in the log lines that say of another member that it is alive. */
  protected async follow(index: number, output: ReadableStream<Uint8Array>, name: RegExp, own: number): Promise<void> {
    const names = new Set<string>();
    let rest = "";
    for await (const text of output.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + text).split("\n");
      rest = lines.pop()!;
      for (const line of lines) {
        const found = name.exec(line)?.[1];
        if (found) names.add(found);
      }
      this.tell(index, names.size + own);
    }
  }

  /** Adds a member; milliseconds until all know all, from the start of its process and from when it was up. */
  async add(): Promise<{ readonly ms: number; readonly afterUpMs: number }> {
    const index = this.known.push(0) - 1;
    const startedMs = performance.now();
    const timer = AbortSignal.timeout(TIMEOUT_MS);
    await this.start(index);
    while (this.known.some((one) => one < this.known.length)) {
      await Promise.race([this.#told.promise, sleep(100)]);
      if (timer.aborted) throw new Error(`Not all know all of ${this.known.length}: ${this.known.join(" ")}`);
    }
    const nowMs = performance.now();
    return { ms: nowMs - startedMs, afterUpMs: nowMs - this.upMs };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const child of this.children) {
      try {
        child.kill("SIGKILL");
      } catch {
        // It has ended by itself.
      }
      await child.status;
    }
  }
}

class Ours extends Cluster {
  readonly #home = Deno.makeTempDirSync({ prefix: "myc-bench-" });
  #invite = "";

  protected override async start(index: number): Promise<void> {
    const state = `${this.#home}/${index}`;
    const verb = index === 0 ? ["up", "--network", "bench"] : ["join", "--invite-file", this.#invite];
    const args = [...verb, "--name", `n${index}`, "--state", state, "--listen", "127.0.0.1", "--port", "0"];
    const quiet = ["--http", "off", "--no-mdns", "--no-multicast", "--no-broadcast"];
    const log = ["--log-format", "json"];
    const child = new Deno.Command(BINARY, {
      args: [...args, ...quiet, ...log],
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    }).spawn();
    this.children.push(child);
    using client = await this.#connect(`${state}/agent.sock`);
    this.upMs = performance.now();
    this.follow(index, child.stderr, /"member-alive".*"node":"(\w+)"/, 1);
    if (index > 0) return;
    while ((await client.status()).bootstrap.stage !== "verified") await sleep(20);
    const { token } = await client.control({ verb: "invite-create", uses: 64 }) as { readonly token: string };
    this.#invite = `${this.#home}/invite`;
    await Deno.writeTextFile(this.#invite, token, { mode: 0o600 });
  }

  async #connect(socket: string): Promise<Client> {
    const deadlineMs = performance.now() + TIMEOUT_MS;
    for (;;) {
      try {
        return await openControl(socket);
      } catch (error) {
        if (performance.now() > deadlineMs) throw error;
        await sleep(5);
      }
    }
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    await super[Symbol.asyncDispose]();
    await Deno.remove(this.#home, { recursive: true });
  }
}

class Serf extends Cluster {
  #first = 0;

  // deno-lint-ignore require-await -- the other kind has to wait
  protected override async start(index: number): Promise<void> {
    const port = freePort();
    const join = index === 0 ? [] : [`-join=127.0.0.1:${this.#first}`];
    if (index === 0) this.#first = port;
    const args = ["agent", `-node=s${index}`, `-bind=127.0.0.1:${port}`, `-rpc-addr=127.0.0.1:${freePort()}`, ...join];
    const child = new Deno.Command("serf", { args, stdin: "null", stdout: "piped", stderr: "null" }).spawn();
    this.children.push(child);
    this.upMs = performance.now();
    this.follow(index, child.stdout, /EventMemberJoin: (\S+)/, 0);
  }
}

async function bench(size: number, withSerf: boolean): Promise<void> {
  await using ours = new Ours();
  await using serf = new Serf();
  for (let i = 0; i < size - 1; i++) {
    await ours.add();
    if (withSerf) await serf.add();
  }
  // serf sends by the tick; let both come to rest.
  await sleep(3_000);
  const whole: Pair[] = [];
  const afterUp: Pair[] = [];
  for (let i = 0; i < ROUNDS; i++) {
    const first = withSerf && i % 2 === 0 ? await serf.add() : undefined;
    const one = await ours.add();
    const other = first ?? (withSerf ? await serf.add() : { ms: NaN, afterUpMs: NaN });
    whole.push({ ours: one.ms, reference: other.ms });
    afterUp.push({ ours: one.afterUpMs, reference: other.afterUpMs });
    await sleep(500);
  }
  const common = { unit: "ms", bar: 0.5, extreme: 0.1 };
  const sizes = `N=${size} to ${size + ROUNDS - 1}`;
  report({ ...common, name: `join: process start to all alive everywhere, ${sizes}, against serf`, pairs: whole });
  report({ ...common, name: `join: without the start of the process, ${sizes}, against serf`, pairs: afterUp });
}

requireBinary();
const withSerf = await works("serf", "version");
if (!withSerf) console.error("serf is not installed (Debian: serf): without the reference");
for (const size of SIZES.length > 0 ? SIZES : [3, 10]) await bench(size, withSerf);
Deno.exit(0);
