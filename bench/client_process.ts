/** A client process of a bench: it says that it is ready, then does what each line asks and answers with a line. @module */

import { join } from "node:path";

/** A client process. */
export class ClientProcess implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #lines: ReadableStreamDefaultReader<string>;
  #rest = "";

  /**
   * Starts it and waits until it is ready.
   *
   * @param script Path below this folder.
   */
  static async start(script: string, args: readonly string[]): Promise<ClientProcess> {
    const client = new ClientProcess(script, args);
    await client.#line();
    return client;
  }

  private constructor(script: string, args: readonly string[]) {
    this.#child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--no-check", join(import.meta.dirname!, script), ...args],
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    this.#writer = this.#child.stdin.getWriter();
    this.#lines = this.#child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  }

  /** Asks for something and waits for the answer. */
  async ask<T>(line: string): Promise<T> {
    await this.#writer.write(new TextEncoder().encode(`${line}\n`));
    return await this.#line<T>();
  }

  async #line<T>(): Promise<T> {
    for (;;) {
      const end = this.#rest.indexOf("\n");
      if (end >= 0) {
        const line = this.#rest.slice(0, end);
        this.#rest = this.#rest.slice(end + 1);
        if (line.startsWith("{")) return JSON.parse(line) as T;
        continue;
      }
      const { value, done } = await this.#lines.read();
      if (done) throw new Error("the client ended");
      this.#rest += value;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writer.close().catch(() => {});
    const timer = setTimeout(() => this.#child.kill("SIGKILL"), 5_000);
    await this.#child.status;
    clearTimeout(timer);
    await this.#lines.cancel();
  }
}

/** How one run of writers went. */
export interface WritersRun {
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** Longest time in which nobody's write was acknowledged. */
  readonly gapMs: number;
  readonly acknowledged: number;
}

/**
 * Writers that each write one thing after the other for a while.
 *
 * @param write Writes once more for a writer.
 */
export async function runWriters(
  writers: number,
  runMs: number,
  write: (writer: number, i: number) => Promise<void>,
): Promise<WritersRun> {
  const took: number[] = [];
  const startMs = performance.now();
  const endMs = startMs + runMs;
  let lastMs = startMs;
  let gapMs = 0;
  await Promise.all(Array.from({ length: writers }, async (_, w) => {
    for (let i = 0; performance.now() < endMs; i++) {
      const atMs = performance.now();
      await write(w, i);
      const nowMs = performance.now();
      took.push(nowMs - atMs);
      gapMs = Math.max(gapMs, nowMs - lastMs);
      lastMs = nowMs;
    }
  }));
  const elapsedMs = performance.now() - startMs;
  took.sort((a, b) => a - b);
  return {
    perSecond: took.length / elapsedMs * 1_000,
    p50Ms: took[took.length >> 1] ?? NaN,
    p99Ms: took[Math.floor(took.length * 0.99)] ?? NaN,
    gapMs,
    acknowledged: took.length,
  };
}

/** Lines of standard input, until it ends. */
export async function* requestLines(): AsyncGenerator<readonly string[]> {
  let rest = "";
  for await (const text of Deno.stdin.readable.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    for (const line of lines) yield line.split(" ");
  }
}
