/**
 * Hosts for tests: network namespaces on one switch, and nodes of `mycelium` in them.
 *
 * The switch is a bridge in a namespace of its own, so that this machine's network stays as it is. Every name holds
 * this process's id; all that was made goes with the {@linkcode Lab}, and what a killed run left behind goes at the
 * start of the next one.
 *
 * @module
 */

import { join } from "node:path";
import type { Status } from "../../src/agent/status.ts";
import { openControl } from "../../src/cli/client.ts";
import { keyPairFromSeed } from "../../src/core/crypto.ts";
import { nodeIdOf } from "../../src/core/ids.ts";
import { formatInvite, parseInvite } from "../../src/identity/invite.ts";
import { COMPILED, eventually, type Finished, FROM_SOURCE, type ProgramCommand } from "./program.ts";

/** A line of a node's log, or a record that it printed. */
export interface LogLine {
  readonly level?: string;
  readonly event?: string;
  readonly msg?: string;
  readonly [field: string]: unknown;
}

/** How a host is connected. */
export interface HostOptions {
  /** @default {true} */
  readonly v4?: boolean;
  /** Without it the whole family is off. @default {true} */
  readonly v6?: boolean;
}

/** A host: a network namespace with `lo` and `eth0`. */
export interface Host {
  readonly name: string;
  readonly space: string;
  /** 10.77.0.x */
  readonly v4: string;
  /** fd77::x */
  readonly v6: string;
}

/** What starts a node. */
export interface NodeSettings {
  /** Also the name of its state folder. */
  readonly name: string;
  readonly host: Host;
  /** @default {FROM_SOURCE} */
  readonly command?: ProgramCommand;
  readonly env?: Readonly<Record<string, string>>;
  /** Flags of each start. */
  readonly flags?: readonly string[];
  /** Text of a configuration file. */
  readonly config?: string;
}

/** Discovery from nothing but what a test adds. */
export const SILENT: readonly string[] = ["--no-mdns", "--no-multicast", "--no-broadcast"];

/** Namespaces take names of 15 characters at most where an interface carries them; hosts count from 1. */
const PREFIX = `myc${Deno.pid}-`;

/** What hosts need and this machine lacks; empty where tests can run. */
export const MISSING: readonly string[] = await missing();

/** Why there is no binary to test; undefined where there is one that is as new as the source. */
export const WITHOUT_BINARY: string | undefined = await withoutBinary();

async function missing(): Promise<readonly string[]> {
  if (Deno.build.os !== "linux") return ["Linux"];
  if (Deno.uid() !== 0) return ["root"];
  const out: string[] = [];
  for (const [tool, argument] of [["ip", "-V"], ["nft", "--version"], ["nsenter", "--version"]] as const) {
    if (!await works(tool, argument)) {
      out.push(`${tool} (${{ ip: "iproute2", nft: "nftables", nsenter: "util-linux" }[tool]})`);
    }
  }
  if (out.length > 0) return out;
  const probe = `${PREFIX}probe`;
  if ((await run("ip", ["netns", "add", probe])).code !== 0) {
    return ["leave to make network namespaces (CAP_SYS_ADMIN)"];
  }
  await run("ip", ["netns", "del", probe]);
  return [];
}

/** Whether a program is there and starts. */
export async function works(program: string, argument: string): Promise<boolean> {
  try {
    return (await new Deno.Command(program, { args: [argument], stdout: "null", stderr: "null" }).output()).success;
  } catch {
    return false;
  }
}

async function withoutBinary(): Promise<string | undefined> {
  const binary = await Deno.stat(COMPILED[0]).catch(() => undefined);
  if (!binary?.mtime) return `there is no ${COMPILED[0].split("/").slice(-2).join("/")}, run "deno task compile"`;
  // Whoever names a binary means that one.
  if (Deno.env.has("MYCELIUM_BINARY")) return undefined;
  const newest = await newestIn(join(import.meta.dirname!, "..", "..", "src"));
  return newest > binary.mtime.getTime() ? 'the source is newer than the binary, run "deno task compile"' : undefined;
}

async function newestIn(folder: string): Promise<number> {
  let newest = 0;
  for await (const entry of Deno.readDir(folder)) {
    const path = join(folder, entry.name);
    const ms = entry.isDirectory ? await newestIn(path) : (await Deno.stat(path)).mtime?.getTime() ?? 0;
    newest = Math.max(newest, ms);
  }
  return newest;
}

/** No test takes longer: a suite that hangs says nothing. */
const TEST_MS_MAX = 90_000;

/** Options of {@linkcode hostsTest}. */
export interface HostsTestOptions {
  /** What the test needs besides what all need, where it is missing. */
  readonly needs?: readonly string[];
}

/** Registers a test with a {@linkcode Lab} of its own; skipped aloud where this machine cannot run it. */
export function hostsTest(name: string, body: (lab: Lab) => Promise<void>, options: HostsTestOptions = {}): void {
  const needs = [...MISSING, ...options.needs ?? []];
  if (needs.length > 0) console.warn(`SKIP ${name}: needs ${needs.join(", ")}`);
  Deno.test({
    name,
    ignore: needs.length > 0,
    fn: async () => {
      await using lab = await Lab.make();
      try {
        await within(TEST_MS_MAX, name, body(lab));
      } catch (error) {
        console.error(lab.report());
        throw error;
      }
    },
  });
}

/** A switch, hosts and nodes. Dispose of it. */
export class Lab implements AsyncDisposable {
  static #labs = 0;
  readonly #prefix: string;
  readonly #spaces: string[] = [];
  readonly #children = new Set<Deno.ChildProcess>();
  readonly #nodes: HostNode[] = [];
  #hosts = 0;

  private constructor(readonly home: string) {
    this.#prefix = `${PREFIX}${Lab.#labs++}`;
  }

  /** A lab with an empty switch. */
  static async make(): Promise<Lab> {
    await sweep();
    const lab = new Lab(await Deno.makeTempDir({ prefix: "myc-hosts-" }));
    try {
      const space = await lab.#space("sw");
      await ip("-n", space, "link", "add", "br0", "type", "bridge", "forward_delay", "0");
      await ip("-n", space, "link", "set", "br0", "up");
      return lab;
    } catch (error) {
      await lab[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** A new host: `h1`, `h2` …, without default route. */
  async host(options: HostOptions = {}): Promise<Host> {
    const { v4 = true, v6 = true } = options;
    const number = ++this.#hosts;
    const name = `h${number}`;
    const space = await this.#space(name);
    const host = { name, space, v4: `10.77.0.${number}`, v6: `fd77::${number}` };
    if (!v6) {
      // /proc/sys/net is that of the namespace of whoever writes.
      for (const which of ["all", "default"]) {
        await must("nsenter", [
          `--net=/run/netns/${space}`,
          "sh",
          "-c",
          `echo 1 >/proc/sys/net/ipv6/conf/${which}/disable_ipv6`,
        ]);
      }
    }
    await ip("link", "add", "eth0", "netns", space, "type", "veth", "peer", "name", name, "netns", this.#switch);
    await ip("-n", this.#switch, "link", "set", name, "master", "br0", "up");
    if (v4) await ip("-n", space, "addr", "add", `${host.v4}/24`, "brd", "+", "dev", "eth0");
    if (v6) await ip("-n", space, "addr", "add", `${host.v6}/64`, "dev", "eth0", "nodad");
    await ip("-n", space, "link", "set", "eth0", "up");
    return host;
  }

  /** Several hosts at once. */
  async hosts(count: number): Promise<Host[]> {
    const hosts: Host[] = [];
    for (let i = 0; i < count; i++) hosts.push(await this.host());
    return hosts;
  }

  /** Gives a host other addresses in place of those it has. */
  async renumber(host: Host): Promise<Host> {
    const number = ++this.#hosts;
    const moved = { ...host, v4: `10.77.0.${number}`, v6: `fd77::${number}` };
    await ip("-n", host.space, "addr", "flush", "dev", "eth0");
    await ip("-n", host.space, "addr", "add", `${moved.v4}/24`, "brd", "+", "dev", "eth0");
    await ip("-n", host.space, "addr", "add", `${moved.v6}/64`, "dev", "eth0", "nodad");
    return moved;
  }

  /** Lets nothing pass between two groups of hosts, in either direction. */
  async cut(one: readonly Host[], other: readonly Host[]): Promise<void> {
    const set = (hosts: readonly Host[]) => `{ ${hosts.map((host) => `"${host.name}"`).join(", ")} }`;
    await this.filter(
      `iifname ${set(one)} oifname ${set(other)} drop`,
      `iifname ${set(other)} oifname ${set(one)} drop`,
    );
  }

  /** Rules of nftables in the forwarding of the switch, in place of those before. */
  async filter(...rules: readonly string[]): Promise<void> {
    const chain = ["chain cut {", "type filter hook forward priority 0; policy accept;", ...rules, "}"];
    const text = ["table bridge myc {", "}", "delete table bridge myc", "table bridge myc {", ...chain, "}", ""].join(
      "\n",
    );
    const child = new Deno.Command("nsenter", {
      args: [`--net=/run/netns/${this.#switch}`, "nft", "-f", "-"],
      stdin: "piped",
      stdout: "null",
      stderr: "piped",
    }).spawn();
    const writer = child.stdin.getWriter();
    await writer.write(new TextEncoder().encode(text));
    await writer.close();
    const { success, stderr } = await child.output();
    if (!success) throw new Error(`Cannot load rules:\n${text}\n${new TextDecoder().decode(stderr)}`);
  }

  /** Ends what {@linkcode cut} and {@linkcode filter} began. */
  async heal(): Promise<void> {
    await this.filter();
  }

  /** A node that is not started yet. */
  node(settings: NodeSettings): HostNode {
    const node = new HostNode(this, settings);
    this.#nodes.push(node);
    return node;
  }

  /** A founder on `host`, ready. */
  async founder(settings: NodeSettings, network = "lab", flags: readonly string[] = []): Promise<HostNode> {
    const node = this.node(settings);
    node.start("up", "--network", network, ...flags);
    await node.verified();
    return node;
  }

  /** Runs a program in a host until the lab goes; its output is dropped. */
  service(host: Host, command: readonly string[]): Deno.ChildProcess {
    return this.spawn(host, command, { stdin: "null", stdout: "null", stderr: "null" });
  }

  /** Like {@linkcode service}, and waits until it has printed its first line. */
  async ready(host: Host, command: readonly string[]): Promise<void> {
    const child = this.spawn(host, command, { stdin: "null", stdout: "piped", stderr: "null" });
    const reader = child.stdout.getReader();
    const { done } = await within(15_000, `${command.join(" ")} prints a line`, reader.read());
    await reader.cancel();
    if (done) throw new Error(`${command.join(" ")} ended at once`);
  }

  /** Starts a program in a host; it is killed with the lab. */
  spawn(host: Host, command: readonly string[], options: Deno.CommandOptions): Deno.ChildProcess {
    const child = new Deno.Command("nsenter", {
      ...options,
      args: [`--net=/run/netns/${host.space}`, ...command],
    }).spawn();
    this.#children.add(child);
    return child;
  }

  /** Runs a program in a host to its end, within 20 s. */
  async inside(host: Host, command: readonly string[]): Promise<Finished> {
    return await run("nsenter", [`--net=/run/netns/${host.space}`, ...command]);
  }

  /** The last lines of all nodes, for a test that failed; all of them in the folder `MYCELIUM_TEST_LOGS`. */
  report(): string {
    const folder = Deno.env.get("MYCELIUM_TEST_LOGS");
    return this.#nodes.map((node) => {
      if (folder) Deno.writeTextFileSync(join(folder, `${this.#prefix}-${node.name}.log`), node.output);
      const lines = node.output.split("\n").filter((line) => line.startsWith("{")).map((line) => line.slice(0, 400));
      return [`--- ${node.name}`, ...lines.slice(-40)].join("\n");
    }).join("\n");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const node of this.#nodes) await node.kill();
    for (const child of this.#children) {
      try {
        child.kill("SIGKILL");
      } catch {
        // Already gone.
      }
      await child.status;
    }
    for (const space of this.#spaces.reverse()) await run("ip", ["netns", "del", space]);
    await Deno.remove(this.home, { recursive: true });
  }

  get #switch(): string {
    return `${this.#prefix}-sw`;
  }

  async #space(name: string): Promise<string> {
    const space = `${this.#prefix}-${name}`;
    await ip("netns", "add", space);
    this.#spaces.push(space);
    await ip("-n", space, "link", "set", "lo", "up");
    return space;
  }
}

/** A node of `mycelium` on a host. It can be stopped and started again; its folder stays. */
export class HostNode {
  readonly name: string;
  readonly state: string;
  readonly socket: string;
  /** Lines of the log and records on stdout, of all starts. */
  readonly lines: LogLine[] = [];
  /** Called for each line as it comes. */
  onLine: ((line: LogLine) => void) | undefined;
  readonly #lab: Lab;
  readonly #settings: NodeSettings;
  #host: Host;
  #child: Deno.ChildProcess | undefined;
  #ended: Promise<number> | undefined;
  #output = "";

  constructor(lab: Lab, settings: NodeSettings) {
    this.#lab = lab;
    this.#settings = settings;
    this.#host = settings.host;
    this.name = settings.name;
    this.state = join(lab.home, settings.name);
    this.socket = join(this.state, "agent.sock");
  }

  get host(): Host {
    return this.#host;
  }

  /** Everything that it printed. */
  get output(): string {
    return this.#output;
  }

  get pid(): number {
    if (!this.#child) throw new Error(`${this.name} does not run`);
    return this.#child.pid;
  }

  /** This node's id, from the key in its folder. */
  get nodeId(): string {
    return nodeIdOf(keyPairFromSeed(Deno.readFileSync(join(this.state, "secret", "node.key"))).publicKey);
  }

  /** The same node on another host, or on the same one under another address, from the next start. */
  move(host: Host): void {
    this.#host = host;
  }

  /** Starts `mycelium <verb> …`, by default `up`. */
  start(...args: readonly string[]): void {
    if (this.#child) throw new Error(`${this.name} runs already`);
    const { command = FROM_SOURCE, env = {}, flags = [], config } = this.#settings;
    const words = args.length > 0 ? args : ["up"];
    const file = join(this.#lab.home, `${this.name}.yaml`);
    if (config !== undefined) Deno.writeTextFileSync(file, config);
    const child = this.#lab.spawn(this.#host, [
      ...command,
      ...words,
      "--name",
      this.name,
      "--state",
      this.state,
      ...(config === undefined ? [] : ["--config", file]),
      "--log-format",
      "json",
      "--log-level",
      "debug",
      "--json",
      ...flags,
    ], {
      clearEnv: true,
      env: { ...cleanEnv(this.#lab.home), ...env },
      cwd: this.#lab.home,
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    });
    this.#child = child;
    this.#ended = Promise.all([child.status, this.#read(child.stdout), this.#read(child.stderr)]).then(([status]) => {
      if (this.#child === child) this.#child = undefined;
      return status.code;
    });
  }

  /** Starts `mycelium join` with an invite in a file. */
  join(invite: string, ...flags: readonly string[]): void {
    const file = join(this.#lab.home, `${this.name}.invite`);
    Deno.writeTextFileSync(file, invite);
    this.start("join", "--invite-file", file, ...flags);
  }

  /** The status document over the socket. */
  async status(): Promise<Status> {
    using client = await openControl(this.socket);
    return await client.status();
  }

  /** A control request over the socket. */
  async control(request: { readonly verb: string; readonly [field: string]: unknown }): Promise<unknown> {
    using client = await openControl(this.socket);
    return await client.control(request);
  }

  /** A new invite. */
  async invite(options: Readonly<Record<string, unknown>> = {}): Promise<string> {
    return (await this.control({ verb: "invite-create", ...options }) as { readonly token: string }).token;
  }

  /** A command of the command line, to its end. */
  async cli(...args: readonly string[]): Promise<Finished> {
    const [program, ...first] = this.#settings.command ?? FROM_SOURCE;
    return await run(program, [...first, ...args, "--state", this.state], cleanEnv(this.#lab.home));
  }

  /** Waits until its status is as wanted; returns it and the time it took. */
  async until(
    what: string,
    timeoutMs: number,
    holds: (status: Status) => boolean,
  ): Promise<{ readonly value: Status; readonly tookMs: number }> {
    let last: Status | undefined;
    try {
      return await eventually(`${this.name}: ${what}`, timeoutMs, async () => {
        // While it starts there is no socket yet.
        last = await this.status().catch(() => undefined) ?? last;
        return last && holds(last) ? last : undefined;
      });
    } catch (error) {
      if (last && error instanceof Error) error.message += `\n${summary(last)}`;
      throw error;
    }
  }

  /** Waits until it is a verified member. */
  async verified(timeoutMs = 20_000): Promise<{ readonly value: Status; readonly tookMs: number }> {
    return await this.until("verified", timeoutMs, (status) => status.bootstrap.stage === "verified");
  }

  /** Waits for a line of the log, from the line with this index on. */
  async line(what: string, timeoutMs: number, wanted: (line: LogLine) => boolean, from = 0): Promise<LogLine> {
    return (await eventually(
      `${this.name}: ${what}`,
      timeoutMs,
      () => Promise.resolve(this.lines.slice(from).find(wanted)),
    )).value;
  }

  /** Sends a signal. */
  signal(signal: Deno.Signal): void {
    this.#child?.kill(signal);
  }

  /** Sends a signal and waits for the end. Returns the exit code, 128 + number for a signal. */
  async end(signal: Deno.Signal = "SIGTERM", timeoutMs = 20_000): Promise<number> {
    const ended = this.#ended;
    if (!ended) throw new Error(`${this.name} was never started`);
    try {
      this.#child?.kill(signal);
    } catch (error) {
      // Ended by itself meanwhile; its code says how.
      if (!(error instanceof Deno.errors.NotFound) && !(error instanceof TypeError)) throw error;
    }
    return await this.exited(timeoutMs);
  }

  /** Waits for its end. */
  async exited(timeoutMs = 20_000): Promise<number> {
    return await within(timeoutMs, `${this.name} ends`, this.#ended!);
  }

  /** kill -9, where it runs. */
  async kill(): Promise<void> {
    if (this.#ended) await this.end("SIGKILL");
  }

  async #read(stream: ReadableStream<Uint8Array>): Promise<void> {
    let rest = "";
    for await (const chunk of stream.pipeThrough(new TextDecoderStream())) {
      this.#output += chunk;
      const lines = (rest + chunk).split("\n");
      rest = lines.pop()!;
      for (const text of lines) {
        const line = parse(text);
        if (!line) continue;
        this.lines.push(line);
        this.onLine?.(line);
      }
    }
  }
}

/** The names of the members that a node holds for alive, itself included, sorted. */
export function aliveIn(status: Status): string[] {
  return status.members.filter((one) => one.state === "self" || one.state === "alive").map((one) => one.name).sort();
}

/** Waits until all nodes are verified and hold all of them for alive, and nobody else for a member. */
export async function seeEachOther(nodes: readonly HostNode[], timeoutMs: number): Promise<number> {
  const wanted = nodes.map((node) => node.name).sort().join();
  const startedMs = performance.now();
  const left = () => Math.max(1, timeoutMs - (performance.now() - startedMs));
  for (const node of nodes) {
    await node.until(
      `sees ${wanted}`,
      left(),
      (status) =>
        status.bootstrap.stage === "verified" && aliveIn(status).join() === wanted &&
        status.members.length === nodes.length,
    );
  }
  return Math.round(performance.now() - startedMs);
}

/** The same invite with other addresses: those of an invite are not signed, they only help to find the network. */
export function withAddresses(invite: string, addresses: readonly string[]): string {
  return formatInvite({ ...parseInvite(invite), addresses });
}

/** Stages that a node went through, by its log. */
export function stagesOf(node: HostNode): string[] {
  return node.lines.filter((line) => line.event === "stage").map((line) => String(line.stage));
}

/** What a failing wait needs to know of a node. */
export function summary(status: Status): string {
  const members = status.members.map((one) => `${one.name} ${one.state}`).join(", ");
  const failures = status.bootstrap.failures.slice(-4).map((one) => `${one.code} at ${one.stage}: ${one.tried}`);
  return [
    `stage ${status.bootstrap.stage}, members: ${members}`,
    `candidates: ${status.bootstrap.candidates.map((one) => `${one.address} by ${one.source}`).join(", ")}`,
    `refusals: ${JSON.stringify(status.refusals)}`,
    ...failures,
  ].join("\n");
}

/** Pause of a test: for what must *not* happen within a time. */
export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** The outcome of `work`, or a failure when it takes longer. */
async function within<T>(timeoutMs: number, what: string, work: Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${timeoutMs} ms`)), timeoutMs);
  });
  // What comes too late has nobody to tell.
  work.catch(() => {});
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

function parse(text: string): LogLine | undefined {
  if (!text.startsWith("{")) return undefined;
  try {
    return JSON.parse(text) as LogLine;
  } catch {
    return undefined;
  }
}

/** Environment without anything of the machine's own mycelium. */
function cleanEnv(home: string): Record<string, string> {
  const kept = ["PATH", "LANG", "DENO_TLS_CA_STORE"].flatMap((name) => {
    const value = Deno.env.get(name);
    return value === undefined ? [] : [[name, value]];
  });
  // What this machine has fetched: hosts have no way to a registry.
  const cache = Deno.env.get("DENO_DIR") ?? join(Deno.env.get("HOME") ?? "/", ".cache", "deno");
  return {
    ...Object.fromEntries(kept),
    DENO_DIR: cache,
    HOME: home,
    TMPDIR: home,
    NO_COLOR: "1",
    DENO_NO_UPDATE_CHECK: "1",
  };
}

async function run(program: string, args: readonly string[], env?: Record<string, string>): Promise<Finished> {
  const stop = new AbortController();
  const timer = setTimeout(() => stop.abort(), 20_000);
  try {
    const { code, stdout, stderr } = await new Deno.Command(program, {
      args: [...args],
      ...(env ? { clearEnv: true, env, cwd: env.HOME! } : {}),
      stdin: "null",
      signal: stop.signal,
    }).output();
    const text = new TextDecoder();
    return { code, stdout: text.decode(stdout), stderr: text.decode(stderr) };
  } finally {
    clearTimeout(timer);
  }
}

async function must(program: string, args: readonly string[]): Promise<void> {
  const { code, stderr } = await run(program, args);
  if (code !== 0) throw new Error(`Cannot run "${program} ${args.join(" ")}": ${stderr.trim()}`);
}

const ip = (...args: readonly string[]) => must("ip", args);

/** Removes hosts of runs that were killed: their names hold the id of a process that is gone. */
async function sweep(): Promise<void> {
  const { stdout } = await run("ip", ["netns", "list"]);
  for (const space of stdout.split("\n").map((line) => line.split(" ")[0]!)) {
    const pid = /^myc(\d+)-/.exec(space)?.[1];
    if (pid === undefined || await Deno.stat(`/proc/${pid}`).then(() => true, () => false)) continue;
    const { stdout: pids } = await run("ip", ["netns", "pids", space]);
    for (const one of pids.split("\n").filter((line) => line !== "")) {
      try {
        Deno.kill(Number(one), "SIGKILL");
      } catch {
        // Gone by itself.
      }
    }
    await run("ip", ["netns", "del", space]);
  }
}
