/** Three members of etcd on loopback, for benches that divide by it. @module */

import { join } from "node:path";
import { freePort, sleep } from "../processes.ts";

/** A cluster. */
export class Etcd implements AsyncDisposable {
  readonly clientUrls: readonly string[];
  readonly #dir: string;
  readonly #commands: readonly Deno.Command[];
  readonly #children: Deno.ChildProcess[] = [];

  private constructor(dir: string, clientUrls: readonly string[], commands: readonly Deno.Command[]) {
    this.#dir = dir;
    this.clientUrls = clientUrls;
    this.#commands = commands;
  }

  /** Starts a cluster; `undefined` where the program is not there. */
  static async start(binary: string, count: number, parent: string): Promise<Etcd | undefined> {
    const ports: number[] = [];
    for (let i = 0; i < 2 * count; i++) ports.push(await freePort());
    const peers = Array.from({ length: count }, (_, i) => `m${i}=http://127.0.0.1:${ports[i]}`).join(",");
    const clientUrls = ports.slice(count).map((port) => `http://127.0.0.1:${port}`);
    const dir = Deno.makeTempDirSync({ dir: parent, prefix: "etcd-" });
    const commands = clientUrls.map((client, i) => {
      const peer = `http://127.0.0.1:${ports[i]}`;
      return new Deno.Command(binary, {
        args: [
          ...["--name", `m${i}`, "--data-dir", join(dir, `m${i}`), "--initial-cluster", peers],
          ...["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer],
          ...["--listen-client-urls", client, "--advertise-client-urls", client, "--log-level", "error"],
        ],
        stdin: "null",
        stdout: "null",
        stderr: "null",
      });
    });
    const cluster = new Etcd(dir, clientUrls, commands);
    try {
      for (let i = 0; i < count; i++) cluster.restart(i);
    } catch (error) {
      await cluster[Symbol.asyncDispose]();
      if (!(error instanceof Deno.errors.NotFound)) throw error;
      console.error(`no "${binary}" here: figures without a reference (Debian: etcd-server, or --etcd=PATH)`);
      return undefined;
    }
    await cluster.healthy();
    return cluster;
  }

  /** Starts a member that does not run. */
  restart(i: number): void {
    this.#children[i] = this.#commands[i]!.spawn();
  }

  /** Kills a member. */
  async kill(i: number): Promise<void> {
    this.#children[i]!.kill("SIGKILL");
    await this.#children[i]!.status;
  }

  /** Waits until all members are well. */
  async healthy(): Promise<void> {
    for (let tries = 0; tries < 200; tries++) {
      const all = await Promise.all(
        this.clientUrls.map((url) => fetch(`${url}/health`).then((one) => one.json(), () => ({}))),
      );
      if (all.every((one) => one.health === "true")) return;
      await sleep(100);
    }
    throw new Error("etcd does not become healthy");
  }

  /** Number of the member that leads. */
  async leader(): Promise<number> {
    for (;;) {
      const all = await Promise.all(
        this.clientUrls.map((url) => fetch(`${url}/metrics`).then((one) => one.text(), () => "")),
      );
      const found = all.findIndex((one) => /^etcd_server_is_leader 1$/m.test(one));
      if (found >= 0) return found;
      await sleep(50);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const child of this.#children) {
      try {
        child.kill("SIGKILL");
      } catch (error) {
        // It has ended already.
        if (!(error instanceof TypeError)) throw error;
      }
    }
    await Promise.all(this.#children.map((child) => child.status));
    Deno.removeSync(this.#dir, { recursive: true });
  }
}
