/**
 * Failure detection: a member is killed with -9, until all others know, beside serf agents.
 *
 * usage: deno run -A bench/detect.ts [NODES …] [--rounds=N] [--hogs=SECONDS]     (default: 10, 5 rounds, 60 s)
 *
 * For each size a network of ours and a cluster of serf agents run on loopback at the same time, `rounds` members more
 * than the size. In turn one member of each is killed, until all that remain say so in their logs: serf that it has
 * failed, ours that it is dead. Then, with all that are left, busy loops take the processors for a while, two for each,
 * and who is called dead (serf: failed) although it runs is counted. The default of performance.md (row 5): 0.4 of serf
 * and none.
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
const HOGS_S = numberFlag("hogs", 60);
const TIMEOUT_MS = 60_000;
/** Above this, ours has channels to some members only. */
const FULL_MESH_MAX = 32;

/** A member, and what it says of the others. */
interface Running {
  readonly name: string;
  /** What the others call it in their logs. */
  key: string;
  readonly child: Deno.ChildProcess;
  readonly listed: Set<string>;
  /** When it called whom dead. */
  readonly dead: Map<string, number>;
}

/** Members of one kind. */
abstract class Cluster implements AsyncDisposable {
  readonly running: Running[] = [];
  /** Killed here. */
  readonly killed = new Set<string>();

  abstract add(): Promise<void>;

  /** Reads who joined and who failed out of what a member prints. */
  protected follow(one: Running, output: ReadableStream<Uint8Array>, lines: { listed: RegExp; dead: RegExp }): void {
    (async () => {
      for await (const group of lineGroups(output)) {
        for (const line of group) {
          const listed = lines.listed.exec(line)?.[1];
          if (listed) one.listed.add(listed);
          const dead = lines.dead.exec(line)?.[1];
          if (dead && !one.dead.has(dead)) one.dead.set(dead, performance.now());
        }
      }
    })().catch(() => {});
  }

  /** Waits until all list all others. */
  async whole(): Promise<void> {
    const deadlineMs = performance.now() + TIMEOUT_MS;
    const knows = (one: Running) => this.running.every((other) => other === one || one.listed.has(other.key));
    while (!this.running.every(knows)) {
      if (performance.now() > deadlineMs) throw new Error("Not all list all");
      await sleep(50);
    }
  }

  /** Kills one that is not the first; gives the milliseconds until the first and until all others know. */
  async kill(): Promise<{ readonly firstMs: number; readonly allMs: number }> {
    const [victim] = this.running.splice(1 + Math.floor(Math.random() * (this.running.length - 1)), 1);
    this.killed.add(victim!.key);
    for (const one of this.running) one.dead.delete(victim!.key);
    const startMs = performance.now();
    victim!.child.kill("SIGKILL");
    await victim!.child.status;
    const times = () => this.running.map((one) => one.dead.get(victim!.key) ?? Infinity);
    while (!times().every(Number.isFinite)) {
      if (performance.now() - startMs > TIMEOUT_MS) throw new Error(`Not all know that ${victim!.name} is dead`);
      await sleep(5);
    }
    return { firstMs: Math.min(...times()) - startMs, allMs: Math.max(...times()) - startMs };
  }

  /** Who was called dead, by how many, although it runs. */
  falseDeaths(): number {
    let count = 0;
    for (const one of this.running) for (const key of one.dead.keys()) if (!this.killed.has(key)) count++;
    return count;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await killAll(this.running.map(({ child }) => child));
  }
}

class Ours extends Cluster {
  readonly #home = Deno.makeTempDirSync({ prefix: "myc-bench-" });
  #count = 0;
  #hasInvite = false;

  override async add(): Promise<void> {
    const name = `n${this.#count++}`;
    const state = `${this.#home}/${name}`;
    const verb = this.#hasInvite ? ["join", "--invite-file", `${this.#home}/invite`] : ["up", "--network", "bench"];
    const child = spawnNode(name, state, verb);
    const one: Running = { name, key: "", child, listed: new Set(), dead: new Map() };
    this.running.push(one);
    this.follow(one, child.stderr, {
      listed: LISTED.ours,
      dead: /"member-dead".*"node":"(\w+)"/,
    });
    using client = await connect(`${state}/agent.sock`);
    for (;;) {
      const status = await client.status();
      one.key = status.node.nodeId;
      if (status.bootstrap.stage === "verified") break;
      await sleep(20);
    }
    if (this.#hasInvite) return;
    const { token } = await client.control({ verb: "invite-create", uses: 200 }) as { readonly token: string };
    await Deno.writeTextFile(`${this.#home}/invite`, token, { mode: 0o600 });
    this.#hasInvite = true;
  }

  /** By its status: of many lines at once the log leaves some out. */
  override async whole(): Promise<void> {
    const deadlineMs = performance.now() + TIMEOUT_MS;
    for (const { name } of this.running) {
      using client = await connect(`${this.#home}/${name}/agent.sock`);
      for (;;) {
        const { members } = await client.status();
        const mesh = this.running.length <= FULL_MESH_MAX;
        const seen = members.filter((one) => one.state === "self" || one.state === "alive" && (one.path || !mesh));
        if (seen.length === this.running.length) break;
        if (performance.now() > deadlineMs) throw new Error(`${name} sees ${seen.length} of ${this.running.length}`);
        await sleep(50);
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
  #count = 0;

  // deno-lint-ignore require-await -- as its other kind
  override async add(): Promise<void> {
    const [port, rpc] = [freePort(), freePort()];
    const join = this.#first === 0 ? [] : [`-join=127.0.0.1:${this.#first}`];
    if (this.#first === 0) this.#first = port;
    const name = `s${this.#count++}`;
    const child = spawnSerf(name, port, rpc, join);
    const one: Running = { name, key: name, child, listed: new Set(), dead: new Map() };
    this.running.push(one);
    this.follow(one, child.stdout, { listed: LISTED.serf, dead: /EventMemberFailed: (\S+)/ });
  }
}

/** Takes the processors from everybody else for a while, as far as their scheduler lets it. */
async function hog(seconds: number): Promise<void> {
  const hogs = Array.from(
    { length: 2 * navigator.hardwareConcurrency },
    () => new Deno.Command("sh", { args: ["-c", "while :; do :; done"] }).spawn(),
  );
  try {
    await sleep(1_000 * seconds);
  } finally {
    for (const one of hogs) {
      one.kill("SIGKILL");
      await one.status;
    }
  }
}

async function bench(size: number, withSerf: boolean): Promise<void> {
  await using ours = new Ours();
  await using serf = new Serf();
  for (let i = 0; i < size + ROUNDS; i++) {
    await ours.add();
    if (withSerf) await serf.add();
  }
  await ours.whole();
  if (withSerf) await serf.whole();
  await sleep(10_000);
  const pairs: Pair[] = [];
  const firsts: number[] = [];
  const all: number[] = [];
  for (let i = 0; i < ROUNDS; i++) {
    const one = await ours.kill();
    const other = withSerf ? await serf.kill() : { allMs: NaN };
    pairs.push({ ours: one.allMs, reference: other.allMs });
    firsts.push(round(one.firstMs));
    all.push(round(one.allMs));
    await sleep(1_000);
  }
  report({
    name: `detect: SIGKILL of one of N=${size} to ${size + ROUNDS}, until all others know, against serf`,
    unit: "ms",
    bar: 0.4,
    extreme: 0.1,
    pairs,
    more: { all, firsts, falseDeaths: ours.falseDeaths(), serfFalseDeaths: serf.falseDeaths() },
  });
  if (HOGS_S === 0) return;
  await hog(HOGS_S);
  const falseDeaths = ours.falseDeaths();
  console.log(JSON.stringify({
    name: `detect: false deaths in ${HOGS_S} s of busy processors, N=${size}`,
    ours: falseDeaths,
    reference: serf.falseDeaths(),
    bar: 0,
    held: falseDeaths === 0,
  }));
}

requireBinary();
const withSerf = await works("serf", "version");
if (!withSerf) console.error("serf is not installed (Debian: serf): without the reference");
for (const size of SIZES.length > 0 ? SIZES : [10]) await bench(size, withSerf);
Deno.exit(0);
