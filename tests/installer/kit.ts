/** Releases, servers with faults and roots, for the tests of the installer. @module */

import { createHash } from "node:crypto";
import { join } from "node:path";

export const ROOT = join(import.meta.dirname!, "..", "..");

/** What a command came to. */
export interface Result {
  readonly code: number;
  readonly stdout: string;
  /** Both streams. */
  readonly text: string;
}

/** Options of {@linkcode sh}. */
export interface ShOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly path?: string;
  readonly stdin?: string | Uint8Array;
  /** Milliseconds until it is ended. */
  readonly timeoutMs?: number;
}

/** Runs a command with nothing of this process's environment but PATH. */
export async function sh(args: readonly string[], options: ShOptions = {}): Promise<Result> {
  const child = new Deno.Command(args[0]!, {
    args: args.slice(1),
    env: { PATH: options.path ?? Deno.env.get("PATH") ?? "", TMPDIR: Deno.env.get("TMPDIR") ?? "/tmp", ...options.env },
    clearEnv: true,
    stdin: options.stdin === undefined ? "null" : "piped",
    stdout: "piped",
    stderr: "piped",
    signal: AbortSignal.timeout(options.timeoutMs ?? 60_000),
  }).spawn();
  const fed = options.stdin === undefined ? undefined : (async () => {
    const writer = child.stdin.getWriter();
    const { stdin } = options;
    // A shell that has ended does not read.
    await writer.write(typeof stdin === "string" ? new TextEncoder().encode(stdin) : stdin!).catch(() => {});
    await writer.close().catch(() => {});
  })();
  const { code, stdout, stderr } = await child.output();
  await fed;
  const [out, err] = [stdout, stderr].map((one) => new TextDecoder().decode(one)) as [string, string];
  return { code, stdout: out, text: out + err };
}

/** Whether a program is installed here. */
export async function has(program: string): Promise<boolean> {
  return (await sh(["sh", "-c", `command -v ${program}`])).code === 0;
}

/** A temporary folder that goes when the test ends. */
export async function folder(): Promise<{ readonly path: string } & AsyncDisposable> {
  const path = await Deno.makeTempDir({ prefix: "mycelium-installer-" });
  return { path, [Symbol.asyncDispose]: () => Deno.remove(path, { recursive: true }) };
}

/** Options of {@linkcode makeRelease}. */
export interface ReleaseOptions {
  readonly folder: string;
  readonly version: string;
  /** Contents of the program for this machine; the other's is a few bytes. */
  readonly program: string | Uint8Array;
  /** A key file; made where there is none by whoever made the test. */
  readonly key: string;
  readonly url?: string;
  readonly epochSec?: number;
}

/** Makes a release with `tools/release.ts`, with a program that is given; returns its folder. */
export async function makeRelease(options: ReleaseOptions): Promise<string> {
  const { folder, version, program, key } = options;
  const output = join(folder, `release-${version}`);
  const binary = join(folder, `program-${version}`);
  if (typeof program === "string") await Deno.writeTextFile(binary, program, { mode: 0o755 });
  else await Deno.writeFile(binary, program, { mode: 0o755 });
  const other = join(folder, "program-other");
  await Deno.writeTextFile(other, "#!/bin/sh\n");
  const result = await sh([
    Deno.execPath(),
    "run",
    "-A",
    join(ROOT, "tools", "release.ts"),
    ...["--dirty", "--level", "1", "--version", version, "--key", key, "--output", output],
    ...(options.url === undefined ? [] : ["--url", options.url]),
    ...["x86_64", "aarch64"].flatMap((
      arch,
    ) => ["--binary", `${arch}-unknown-linux-gnu=${arch === Deno.build.arch ? binary : other}`]),
  ], {
    env: {
      SOURCE_DATE_EPOCH: String(options.epochSec ?? 1_790_000_000),
      HOME: Deno.env.get("HOME") ?? "/root",
      DENO_NO_UPDATE_CHECK: "1",
    },
  });
  if (result.code !== 0) throw new Error(result.text);
  return output;
}

/** Makes an Ed25519 key file as an operator would. */
export async function makeKey(path: string): Promise<string> {
  const result = await sh(["openssl", "genpkey", "-algorithm", "ed25519", "-out", path]);
  if (result.code !== 0) throw new Error(result.text);
  await Deno.chmod(path, 0o600);
  return path;
}

/** What a {@linkcode Mirror} does with one request. */
export interface Fault {
  /** Body bytes after which the connection is closed. */
  readonly cutAfter?: number;
  /** Bytes that are put in the place of the file's. */
  readonly bytes?: Uint8Array;
}

/** A server of a folder on loopback, with ranges as real ones have them, and faults. */
export class Mirror implements AsyncDisposable {
  /** Body bytes sent, by file name. */
  readonly sent = new Map<string, number>();
  /** Addresses asked for, whole: a proxy sees the host's name in them. */
  readonly asked: string[] = [];
  /** What happens to requests for a file; asked at each request. */
  fault: (name: string) => Fault = () => ({});
  readonly #server: Deno.HttpServer<Deno.NetAddr>;
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
    this.#server = Deno.serve(
      { hostname: "127.0.0.1", port: 0, onListen: () => {} },
      (request) => this.#answer(request),
    );
  }

  get url(): string {
    return `http://127.0.0.1:${this.#server.addr.port}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.shutdown();
  }

  async #answer(request: Request): Promise<Response> {
    this.asked.push(request.url);
    const name = new URL(request.url).pathname.slice(1);
    const { cutAfter, bytes: other } = this.fault(name);
    const bytes = other ?? await Deno.readFile(join(this.#folder, name)).catch(() => undefined);
    if (!bytes) return new Response("not found", { status: 404 });
    const from = Number(/^bytes=(\d+)-/.exec(request.headers.get("range") ?? "")?.[1] ?? 0);
    if (from > 0 && from >= bytes.length) return new Response(null, { status: 416 });
    const rest = bytes.subarray(from);
    const headers = {
      "content-length": String(rest.length),
      "accept-ranges": "bytes",
      ...(from > 0 ? { "content-range": `bytes ${from}-${bytes.length - 1}/${bytes.length}` } : {}),
    };
    const body = cutAfter === undefined || cutAfter >= rest.length ? rest : rest.subarray(0, cutAfter);
    this.sent.set(name, (this.sent.get(name) ?? 0) + body.length);
    const stream = new ReadableStream<Uint8Array>({
      start(controller) {
        controller.enqueue(Uint8Array.from(body));
        if (body.length === rest.length) controller.close();
      },
      // Only after what is there was taken: the client has it when the connection goes.
      async pull(controller) {
        await new Promise((resolve) => setTimeout(resolve, 200));
        // Shorter than the length that was promised: the connection ends.
        controller.close();
      },
    });
    return new Response(stream, { status: from > 0 ? 206 : 200, headers });
  }
}

/** Checksums by path and state of the file: a whole system is read once. */
const sums = new Map<string, string>();

/** Every file, folder and link below `root`: mode, owner and contents, by path; `skip` names folders left out. */
export async function snapshot(root: string, skip: RegExp = /^$/): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  const walk = async (folder: string): Promise<void> => {
    for await (const { name } of Deno.readDir(join(root, folder))) {
      const path = `${folder}/${name}`;
      if (skip.test(path)) continue;
      const info = await Deno.lstat(join(root, path));
      const who = `${((info.mode ?? 0) & 0o7777).toString(8)} ${info.uid}:${info.gid}`;
      if (info.isSymlink) found.set(path, `link ${await Deno.readLink(join(root, path))}`);
      else if (info.isDirectory) {
        found.set(path, `folder ${who}`);
        await walk(path);
      } else if (info.isFile) {
        const state = `${root}${path} ${info.ino} ${info.size} ${info.mtime?.getTime()} ${info.ctime?.getTime()}`;
        let sum = sums.get(state);
        if (sum === undefined) {
          sum = createHash("sha256").update(await Deno.readFile(join(root, path))).digest("hex");
          sums.set(state, sum);
        }
        found.set(path, `file ${who} ${sum}`);
      } else found.set(path, `other ${who}`);
    }
  };
  await walk("");
  return found;
}

/** Lines that say what differs between two snapshots: `+`, `-` and `!` before the path. */
export function difference(before: ReadonlyMap<string, string>, after: ReadonlyMap<string, string>): string[] {
  return [
    ...[...before.keys()].filter((path) => !after.has(path)).map((path) => `-${path}`),
    ...[...after].filter(([path]) => !before.has(path)).map(([path]) => `+${path}`),
    ...[...after].filter(([path, what]) => before.has(path) && before.get(path) !== what).map(([path]) => `!${path}`),
  ].sort();
}
