/** A machine that boots: a Debian root with systemd as PID 1, in namespaces of its own. Needs root. @module */

import { join } from "node:path";
import { type Result, ROOT, sh } from "./kit.ts";

/** A bare root, made by `base_root.sh`. */
export const BASE = join(ROOT, ".cache", "roots", "debian");
const PATHS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/** Why no machine can be booted here; undefined where one can. */
export async function whyNoMachine(): Promise<string | undefined> {
  if (Deno.build.os !== "linux" || Deno.uid() !== 0) return "needs Linux and root";
  if (!await Deno.stat(join(BASE, "etc/debian_version")).catch(() => undefined)) {
    return "there is no bare root: run tests/installer/base_root.sh (mmdebstrap, Debian's packages)";
  }
  try {
    await using machine = await Machine.create();
    await machine.boot();
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/** One machine: an overlay over {@linkcode BASE}, a network of its own. */
export class Machine implements AsyncDisposable {
  /** Its root, as seen from here. */
  readonly root: string;
  readonly #folder: string;
  readonly #name: string;
  #process: Deno.ChildProcess | undefined;
  #pid = 0;

  private constructor(folder: string, name: string) {
    this.#folder = folder;
    this.#name = name;
    this.root = join(folder, "root");
  }

  /** Makes one that is off. */
  static async create(): Promise<Machine> {
    const folder = await Deno.makeTempDir({ prefix: "mycelium-machine-" });
    const machine = new Machine(folder, `mycelium-${folder.slice(-8).toLowerCase()}`);
    try {
      const [upper, work] = [join(folder, "upper"), join(folder, "work")];
      for (const path of [upper, work, machine.root]) await Deno.mkdir(path);
      await must([
        "mount",
        "-t",
        "overlay",
        machine.#name,
        "-o",
        `lowerdir=${BASE},upperdir=${upper},workdir=${work}`,
        machine.root,
      ]);
      await must(["ip", "netns", "add", machine.#name]);
      await must(["ip", "-n", machine.#name, "link", "set", "lo", "up"]);
      await Deno.writeTextFile(join(machine.root, "etc/hostname"), "bare\n");
      return machine;
    } catch (error) {
      await machine[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Name of its network namespace. */
  get netns(): string {
    return this.#name;
  }

  /** Puts a cable between this and another one: 10.77.0.1 here, 10.77.0.2 there. */
  async link(other: Machine): Promise<void> {
    await must([
      "ip",
      "link",
      "add",
      "eth0",
      "netns",
      this.#name,
      "type",
      "veth",
      "peer",
      "name",
      "eth0",
      "netns",
      other.#name,
    ]);
    for (const [name, address] of [[this.#name, "10.77.0.1/24"], [other.#name, "10.77.0.2/24"]] as const) {
      await must(["ip", "-n", name, "addr", "add", address, "dev", "eth0"]);
      await must(["ip", "-n", name, "link", "set", "eth0", "up"]);
    }
  }

  /** Boots it and waits until systemd has started all. */
  async boot(): Promise<void> {
    this.#process = new Deno.Command("bash", {
      args: [join(import.meta.dirname!, "boot.sh"), this.root, this.#name, this.#name],
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
    await this.up();
  }

  /** Waits until it runs. */
  async up(): Promise<void> {
    let said = "";
    for (const end = Date.now() + 60_000; Date.now() < end; await sleep(100)) {
      const { text } = await this.run("systemctl is-system-running", 3_000).catch((error) => ({
        text: String(error.message),
      }));
      said = text.trim();
      if (said === "running" || said === "degraded") return;
    }
    throw new Error(`Cannot boot a machine: systemd says "${said}"`);
  }

  /** Runs a script in it as root, in its groups. */
  async run(script: string, timeoutMs = 60_000): Promise<Result> {
    this.#pid = await this.#init();
    return await sh([
      // By KILL: one that enters while the machine goes down is stopped with it, and hears nothing else.
      ...["timeout", "--signal=KILL", String(timeoutMs / 1000)],
      "bash",
      "-c",
      `for f in $(find /sys/fs/cgroup -maxdepth 2 -type d -name "$0"); do echo $$ >"$f/cgroup.procs" 2>/dev/null; done
      exec nsenter -t "$1" -m -u -i -n -p -C env -i PATH=${PATHS} HOME=/root TERM=dumb bash -c "$2"`,
      this.#name,
      String(this.#pid),
      script,
    ], { timeoutMs: timeoutMs + 10_000 });
  }

  /** Ends it without a warning and takes away all that it was. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#process) {
      // Killing PID 1 ends everything in its namespace; the loop around it then sees no reboot.
      const init = await this.#init().catch(() => 0);
      if (init > 0) await sh(["kill", "-9", String(init)]);
      const late = setTimeout(() => this.#process?.kill("SIGKILL"), 5_000);
      await this.#process.status;
      clearTimeout(late);
    }
    await sh(["umount", "-l", this.root]);
    await sh(["ip", "netns", "del", this.#name]);
    for (let tries = 0; tries < 50; tries++) {
      const { stdout } = await sh([
        "bash",
        "-c",
        'for d in /sys/fs/cgroup /sys/fs/cgroup/*/; do [ ! -d "$d/$0" ] || find "$d/$0" -depth -type d -exec rmdir {} + || echo busy; done 2>/dev/null',
        this.#name,
      ]);
      if (stdout === "") break;
      await sleep(100);
    }
    await Deno.remove(this.#folder, { recursive: true });
  }

  /** PID of its systemd, as seen from here. */
  async #init(): Promise<number> {
    const child = async (pid: number) =>
      Number((await Deno.readTextFile(`/proc/${pid}/task/${pid}/children`).catch(() => "")).trim().split(" ")[0]);
    let pid = this.#process?.pid ?? 0;
    // bash, nsenter that became unshare, its child.
    for (let depth = 0; depth < 2 && pid > 0; depth++) pid = await child(pid);
    if (!pid) throw new Error("the machine is off");
    return pid;
  }
}

async function must(args: readonly string[]): Promise<void> {
  const result = await sh(args);
  if (result.code !== 0) throw new Error(`Cannot make a machine: ${args[0]}: ${result.text.trim()}`);
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
