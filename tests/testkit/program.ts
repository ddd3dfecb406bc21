/** `mycelium` as a child process, from source or compiled, for tests that use it as a person does. @module */

import { join } from "node:path";

/** What a command came to. */
export interface Finished {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** The record that `mycelium up --json` prints when the node is a member. */
export interface Ready {
  readonly nodeId: string;
  readonly networkId: string;
  readonly statusUrl: string;
  readonly socket: string;
  readonly invite?: string;
}

/** How to start `mycelium`: a program and its first arguments. */
export type ProgramCommand = readonly [program: string, ...args: string[]];

const ROOT = join(import.meta.dirname!, "..", "..");

/** From source, on the Deno that runs the test. */
export const FROM_SOURCE: ProgramCommand = [Deno.execPath(), "run", "-A", "--no-check", join(ROOT, "main.ts")];

/** The compiled binary for this machine, wherever `MYCELIUM_BINARY` or the compile task put it. */
export const COMPILED: ProgramCommand = [
  Deno.env.get("MYCELIUM_BINARY") ?? join(ROOT, "dist", `mycelium-${Deno.build.target}`),
];

/** Flags for a node that speaks to nothing but loopback. */
export const LOOPBACK_NODE: readonly string[] = [
  "--listen",
  "127.0.0.1",
  "--port",
  "0",
  "--http",
  "127.0.0.1:0",
  "--no-mdns",
  "--no-multicast",
  "--no-broadcast",
];

/** Environment without anything of the machine's own mycelium. */
function cleanEnv(home: string): Record<string, string> {
  const kept = ["PATH", "LANG", "DENO_DIR", "DENO_TLS_CA_STORE"].flatMap((name) => {
    const value = Deno.env.get(name);
    return value === undefined ? [] : [[name, value]];
  });
  return { ...Object.fromEntries(kept), HOME: home, TMPDIR: home, NO_COLOR: "1", DENO_NO_UPDATE_CHECK: "1" };
}

/** Runs one command to its end, at most `timeoutMs`; then it is killed and the code is that of the signal. */
export async function runProgram(
  command: ProgramCommand,
  args: readonly string[],
  options: { readonly home: string; readonly timeoutMs?: number },
): Promise<Finished> {
  const output = await new Deno.Command(command[0], {
    args: [...command.slice(1), ...args],
    clearEnv: true,
    env: cleanEnv(options.home),
    cwd: options.home,
    stdin: "null",
    signal: AbortSignal.timeout(options.timeoutMs ?? 30_000),
  }).output();
  const text = new TextDecoder();
  return { code: output.code, stdout: text.decode(output.stdout), stderr: text.decode(output.stderr) };
}

/** A node in the foreground of a child process. Dispose of it: it is killed where it still runs. */
export class RunningNode implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #streams: Promise<unknown>;
  readonly #ready: Promise<Ready>;
  #output = "";
  #ended = false;

  /**
   * Starts `mycelium up` or `mycelium join …` with JSON output.
   *
   * @param args From the verb on; `--json` is added.
   */
  constructor(command: ProgramCommand, args: readonly string[], options: { readonly home: string }) {
    this.#child = new Deno.Command(command[0], {
      args: [...command.slice(1), ...args, "--json"],
      clearEnv: true,
      env: cleanEnv(options.home),
      cwd: options.home,
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const ready = Promise.withResolvers<Ready>();
    this.#ready = ready.promise;
    this.#ready.catch(() => {});
    this.#streams = Promise.all([
      this.#read(this.#child.stdout, (line) => {
        const record = parseRecord(line);
        if (record?.event === "ready") ready.resolve(record as unknown as Ready);
      }),
      this.#read(this.#child.stderr, () => {}),
      this.#child.status.then(({ code, signal }) => {
        this.#ended = true;
        ready.reject(
          new Error(`mycelium ${args[0]} ended with ${signal ?? code} before it was ready:\n${this.#output}`),
        );
      }),
    ]);
  }

  async #read(stream: ReadableStream<Uint8Array>, online: (line: string) => void): Promise<void> {
    let rest = "";
    for await (const chunk of stream.pipeThrough(new TextDecoderStream())) {
      this.#output += chunk;
      const lines = (rest + chunk).split("\n");
      rest = lines.pop()!;
      lines.forEach(online);
    }
  }

  /** Everything that the node printed so far. */
  get output(): string {
    return this.#output;
  }

  /** Waits for the node to be a verified member, at most `timeoutMs`. */
  async ready(timeoutMs = 20_000): Promise<Ready> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`no ready node after ${timeoutMs} ms:\n${this.#output}`)), timeoutMs);
    });
    try {
      return await Promise.race([this.#ready, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Sends a signal and waits for the end; returns the exit code (128 + number for a signal). */
  async end(signal: Deno.Signal = "SIGTERM"): Promise<number> {
    if (!this.#ended) this.#child.kill(signal);
    await this.#streams;
    return (await this.#child.status).code;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end("SIGKILL");
  }
}

function parseRecord(line: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === "object" && value !== null ? value as Record<string, unknown> : undefined;
  } catch {
    return undefined;
  }
}

/** Polls `check` every 50 ms until it returns something, at most `timeoutMs`; returns it with the time it took. */
export async function eventually<T>(
  what: string,
  timeoutMs: number,
  check: () => Promise<T | undefined>,
): Promise<{ readonly value: T; readonly tookMs: number }> {
  const started = performance.now();
  for (;;) {
    const value = await check();
    const tookMs = performance.now() - started;
    if (value !== undefined) return { value, tookMs };
    if (tookMs > timeoutMs) throw new Error(`${what}: not within ${timeoutMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
