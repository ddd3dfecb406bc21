/**
 * Runs the command line in this process, against the real control app on a real unix socket.
 *
 * @module
 */

import { join } from "node:path";
import type { Status } from "../../src/agent/status.ts";
import { readControlRequest } from "../../src/agent/control.ts";
import { WireError } from "../../src/core/codec.ts";
import { openControl } from "../../src/cli/client.ts";
import type { CliDeps, StartNodeOptions } from "../../src/cli/deps.ts";
import { runCli } from "../../src/cli/program.ts";
import { createControlApp } from "../../src/edge/http/app.ts";
import type { ControlAnswer, ExecLine } from "../../src/edge/http/control.ts";
import type { StatusChange } from "../../src/edge/http/view.ts";

/** A temporary folder that goes with the test. */
export function temporaryFolder(): Disposable & { readonly path: string } {
  const path = Deno.makeTempDirSync({ prefix: "cli-" });
  return { path, [Symbol.dispose]: () => Deno.removeSync(path, { recursive: true }) };
}

/** What an {@linkcode AgentSocket} answers. */
export interface AgentSocketOptions {
  readonly status: Status;
  /** Answers to control requests that the agent's own reader has accepted; others get `{}`. */
  readonly control?: (request: { readonly verb: string; readonly [field: string]: unknown }) => ControlAnswer;
  readonly exec?: (request: unknown, signal: AbortSignal) => AsyncIterable<ExecLine>;
  readonly logs?: readonly unknown[];
  /** Called by `POST /shutdown`. */
  readonly shutdown?: () => void;
}

/** Verbs that the runtime answers before the agent's reader. */
const RUNTIME_VERBS = new Set([
  "config-get",
  "config-try",
  "config-confirm",
  "config-revert",
  "authority-recover",
  "seed-decide",
  "seed-publish",
]);

/** The control app of the product, served on `<folder>/agent.sock`, with a given status behind it. */
export class AgentSocket implements AsyncDisposable {
  readonly socket: string;
  /** Control requests in the order in which they came. */
  readonly requests: { readonly verb: string; readonly [field: string]: unknown }[] = [];
  readonly #listeners = new Set<(change: StatusChange) => void>();
  readonly #app: ReturnType<typeof createControlApp>;
  readonly #server: Deno.HttpServer;
  #status: Status;

  /** Serves at once. */
  constructor(folder: string, options: AgentSocketOptions) {
    this.socket = join(folder, "agent.sock");
    this.#status = options.status;
    this.#app = createControlApp({
      getStatus: () => this.#status,
      subscribe: (listener) => {
        this.#listeners.add(listener);
        return () => this.#listeners.delete(listener);
      },
      control: (request) => Promise.resolve(this.#control(request, options)),
      exec: (request, _by, signal) => (options.exec ?? (async function* () {}))(request, signal),
      recentLogs: ({ count }) => (options.logs ?? []).slice(-count),
      ...(options.shutdown ? { shutdown: options.shutdown } : {}),
      events: { statusMsMin: 20 },
    });
    this.#server = Deno.serve({ path: this.socket, onListen: () => {} }, (request) => this.#app.fetch(request));
  }

  /** The status from now on. */
  set status(status: Status) {
    this.#status = status;
    for (const listener of this.#listeners) listener({ type: "status" });
  }

  get status(): Status {
    return this.#status;
  }

  #control(request: unknown, options: AgentSocketOptions): ControlAnswer {
    const named = request as { readonly verb: string };
    try {
      const read = RUNTIME_VERBS.has(named.verb) ? named : readControlRequest(request);
      this.requests.push({ ...read });
      return options.control?.({ ...read }) ?? { ok: true, result: {} };
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      return { ok: false, error: { code: "bad-request", message: error.message, cure: "" } };
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#app[Symbol.dispose]();
    await this.#server.shutdown();
  }
}

/** What a run is given; everything has a default. */
export interface RunOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** Text on stdin. */
  readonly stdin?: string;
  /** Whether stdin, stdout and stderr are terminals. */
  readonly terminal?: boolean;
  readonly columns?: number;
  readonly nowMs?: number;
  readonly signal?: AbortSignal;
  readonly startNode?: (options: StartNodeOptions) => Promise<number>;
  readonly readState?: NonNullable<CliDeps["readState"]>;
  /** Told of each piece of stdout. */
  readonly onOutput?: (text: string) => void;
}

/** What a run came to. */
export interface RunResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs one command line. */
export async function run(args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  let stdout = "", stderr = "";
  const lines = (options.stdin ?? "").split("\n");
  const { terminal = false, columns = 100 } = options;
  const code = await runCli(args, {
    stdout: {
      write: (text) => {
        stdout += text;
        options.onOutput?.(text);
      },
      isTerminal: terminal,
      columns,
      rows: 24,
    },
    stderr: { write: (text) => void (stderr += text), isTerminal: terminal, columns, rows: 24 },
    stdin: {
      isTerminal: terminal,
      readLine: () => Promise.resolve(lines.shift()),
      readAll: (max) => Promise.resolve(lines.join("\n").slice(0, max)),
    },
    env: options.env ?? {},
    cwd: options.cwd ?? "/nonexistent",
    hostName: "testhost",
    userId: 1000,
    version: { version: "0.1.0", commit: "0123abc", builtAt: "2026-11-20T00:00:00Z", runtime: "deno 2.9.6" },
    startNode: options.startNode ?? (() => Promise.reject(new Error("This test starts no node"))),
    ...(options.readState ? { readState: options.readState } : {}),
    openControl,
    now: () => options.nowMs ?? Date.now(),
    signal: options.signal ?? new AbortController().signal,
  });
  return { code, stdout, stderr };
}
