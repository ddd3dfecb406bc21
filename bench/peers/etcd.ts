/** Three members of etcd on loopback, for benches that divide by it. @module */

import { join } from "node:path";
import { freePort, sleep } from "../processes.ts";

/** A cluster. */
export class Etcd implements AsyncDisposable {
  readonly clientUrls: readonly string[];
  readonly #dir: string;
  readonly #children: Deno.ChildProcess[];

  private constructor(dir: string, clientUrls: readonly string[], children: Deno.ChildProcess[]) {
    this.#dir = dir;
    this.clientUrls = clientUrls;
    this.#children = children;
  }

  /** Starts a cluster; `undefined` where the program is not there. */
  static async start(binary: string, count: number, parent: string): Promise<Etcd | undefined> {
    const ports: number[] = [];
    for (let i = 0; i < 2 * count; i++) ports.push(await freePort());
    const peers = Array.from({ length: count }, (_, i) => `m${i}=http://127.0.0.1:${ports[i]}`).join(",");
    const clientUrls = ports.slice(count).map((port) => `http://127.0.0.1:${port}`);
    const dir = Deno.makeTempDirSync({ dir: parent, prefix: "etcd-" });
    const children: Deno.ChildProcess[] = [];
    try {
      for (let i = 0; i < count; i++) {
        const [peer, client] = [`http://127.0.0.1:${ports[i]}`, clientUrls[i]!];
        children.push(
          new Deno.Command(binary, {
            args: [
              ...["--name", `m${i}`, "--data-dir", join(dir, `m${i}`), "--initial-cluster", peers],
              ...["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer],
              ...["--listen-client-urls", client, "--advertise-client-urls", client, "--log-level", "error"],
            ],
            stdin: "null",
            stdout: "null",
            stderr: "null",
          }).spawn(),
        );
      }
    } catch (error) {
      Deno.removeSync(dir, { recursive: true });
      if (!(error instanceof Deno.errors.NotFound)) throw error;
      console.error(`no "${binary}" here: figures without a reference (Debian: etcd-server, or --etcd=PATH)`);
      return undefined;
    }
    const cluster = new Etcd(dir, clientUrls, children);
    for (let tries = 0; tries < 100; tries++) {
      const healthy = await fetch(`${clientUrls[0]}/health`).then((one) => one.json(), () => ({}));
      if (healthy.health === "true") return cluster;
      await sleep(100);
    }
    await cluster[Symbol.asyncDispose]();
    throw new Error("etcd does not become healthy");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const child of this.#children) child.kill("SIGKILL");
    await Promise.all(this.#children.map((child) => child.status));
    Deno.removeSync(this.#dir, { recursive: true });
  }
}
