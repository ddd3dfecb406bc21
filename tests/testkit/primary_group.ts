/**
 * A group of primaries as child processes on loopback, and what asks them.
 *
 * @module
 */

import { join } from "node:path";
import type { PrimaryStatus, Status } from "../../src/agent/status.ts";
import { type ControlClient, openControl } from "../../src/cli/client.ts";
import { LOOPBACK_NODE, type ProgramCommand, RunningNode } from "./program.ts";

/** A port that is free for UDP and TCP now. */
function freePort(): number {
  for (;;) {
    const udp = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
    const { port } = udp.addr as Deno.NetAddr;
    try {
      Deno.listen({ hostname: "127.0.0.1", port }).close();
      return port;
    } catch (error) {
      if (!(error instanceof Deno.errors.AddrInUse)) throw error;
    } finally {
      udp.close();
    }
  }
}

/** One issuer. */
export class Primary {
  readonly name: string;
  readonly dir: string;
  nodeId = "";
  node: RunningNode | undefined;
  /** The same over restarts: nobody else tells the others where it is. */
  readonly port: number = freePort();
  readonly #command: ProgramCommand;
  #client: ControlClient | undefined;

  constructor(command: ProgramCommand, home: string, name: string) {
    this.#command = command;
    this.name = name;
    this.dir = join(home, name);
    Deno.mkdirSync(this.dir, { recursive: true });
  }

  get socket(): string {
    return join(this.dir, "state", "agent.sock");
  }

  /** Starts it: as founder, by an invite, or as what it was. */
  async start(args: readonly string[] = ["up"]): Promise<void> {
    const loopback = LOOPBACK_NODE.map((one, i) => LOOPBACK_NODE[i - 1] === "--port" ? String(this.port) : one);
    const flags = ["--state", join(this.dir, "state"), "--name", this.name, "--log-level", "warn", ...loopback];
    this.node = new RunningNode(this.#command, [...args, ...flags], { home: this.dir });
    this.nodeId = (await this.node.ready(40_000)).nodeId;
    this.#client = await openControl(this.socket);
  }

  /** Its control socket. */
  get client(): ControlClient {
    if (!this.#client) throw new Error(`${this.name} does not run`);
    return this.#client;
  }

  status(): Promise<Status> {
    return this.client.status();
  }

  async primary(): Promise<PrimaryStatus> {
    return (await this.status()).primary!;
  }

  async put(key: string, value: string, expect?: number): Promise<{ readonly index: number; readonly code: string }> {
    const request = { verb: "primary-put", key, value, ...(expect === undefined ? {} : { expect }) };
    return await this.client.control(request) as { readonly index: number; readonly code: string };
  }

  async get(key: string, stale = false): Promise<string | undefined> {
    const found = await this.client.control({ verb: "primary-get", key, stale }) as {
      readonly versions: readonly { readonly value?: string }[];
    };
    return found.versions[0]?.value;
  }

  /** Ends it, at once unless told otherwise. */
  async end(signal: Deno.Signal = "SIGKILL"): Promise<void> {
    this.#client?.[Symbol.dispose]();
    this.#client = undefined;
    await this.node?.end(signal);
    this.node = undefined;
  }
}

/** Some issuers. */
export class PrimaryGroup implements AsyncDisposable {
  readonly home: string = Deno.makeTempDirSync({
    prefix: "primary-",
    // What the disk costs is measured elsewhere.
    ...(Deno.env.get("PRIMARY_DIR") ? { dir: Deno.env.get("PRIMARY_DIR")! } : {}),
  });
  readonly members: Primary[] = [];
  readonly #command: ProgramCommand;

  private constructor(command: ProgramCommand) {
    this.#command = command;
  }

  /** Starts a founder and further issuers, and waits until as many vote. */
  static async start(command: ProgramCommand, count: number, voters = count): Promise<PrimaryGroup> {
    const group = new PrimaryGroup(command);
    try {
      const founder = group.add("p0");
      await founder.start(["up", "--network", "forest"]);
      for (let i = 1; i < count; i++) await group.add(`p${i}`).start(["join", await group.invite("sclerotium")]);
      await group.until(`${voters} vote`, async () => {
        const { voters: now, changing } = await founder.primary();
        return now.length === voters && !changing;
      });
      return group;
    } catch (error) {
      await group[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Adds one that does not run yet; another program than the rest, where one is given. */
  add(name: string, command: ProgramCommand = this.#command): Primary {
    const one = new Primary(command, this.home, name);
    this.members.push(one);
    return one;
  }

  /** Another program in the place of one that has ended, with its disk. */
  replace(one: Primary, command: ProgramCommand): Primary {
    const other = new Primary(command, this.home, one.name);
    this.members[this.members.indexOf(one)] = other;
    return other;
  }

  async invite(role: string): Promise<string> {
    const given = await this.members[0]!.client.control({ verb: "invite-create", role, uses: 1 });
    return (given as { readonly token: string }).token;
  }

  /** Those that run. */
  get alive(): Primary[] {
    return this.members.filter((one) => one.node);
  }

  /** The one that leads, as itself says; waits for it. */
  async leader(withinMs = 20_000): Promise<Primary> {
    let found: Primary | undefined;
    await this.until("somebody leads", async () => {
      for (const one of this.alive) if ((await one.primary()).role === "leader") found = one;
      return found !== undefined;
    }, withinMs);
    return found!;
  }

  async until(what: string, holds: () => Promise<boolean>, withinMs = 40_000): Promise<void> {
    const endMs = performance.now() + withinMs;
    while (!await holds()) {
      if (performance.now() > endMs) {
        const seen = await Promise.all(
          this.alive.map(async (one) => `${one.name}: ${JSON.stringify(await one.primary())}`),
        );
        throw new Error(`Not within ${withinMs} ms: ${what}\n${seen.join("\n")}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.members.map((one) => one.end()));
    Deno.removeSync(this.home, { recursive: true });
  }
}
