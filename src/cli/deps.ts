/**
 * What the command line needs of the world, so that tests give it theirs.
 *
 * @module
 */

import type { Status } from "../agent/status.ts";
import type { Config, LoadedConfig } from "../edge/config.ts";
import type { StoredState } from "../edge/stored_state.ts";
import { type ControlClient, type ControlOptions, openControl } from "./client.ts";

export type { StoredState };

/** Where text goes. */
export interface OutputStream {
  write(text: string): void;
  readonly isTerminal: boolean;
  /** Width of the terminal; 80 where it is none. */
  readonly columns: number;
  /** Height of the terminal; 24 where it is none. */
  readonly rows: number;
}

/** Where answers come from. */
export interface InputStream {
  readonly isTerminal: boolean;
  /** One line without its end, or `undefined` at the end of input. */
  readLine(): Promise<string | undefined>;
  /** Everything, at most `charsMax` characters. */
  readAll(charsMax: number): Promise<string>;
}

/** What a started node tells once it listens; the rest is in its status. */
export interface NodeListening {
  readonly nodeId: string;
  /** Unix socket that it answers on. */
  readonly socket: string;
  /** Missing where the status page is off. */
  readonly statusUrl?: string;
  /** The node itself. An HTTP client for its socket, in its own process, costs 4 MB that it never gives back. */
  readonly node?: LocalNode;
}

/** A node of this process. */
export interface LocalNode {
  /** The document of `/status`. */
  status(): Status;
  /** Answers a control request. */
  control(
    request: unknown,
  ): Promise<{ readonly ok: true; readonly result: unknown } | { readonly ok: false; readonly error: unknown }>;
}

/** How to start a node in this process. */
export interface StartNodeOptions {
  readonly config: Config;
  /** Folder for everything that must last; made, with mode 0700, where it is not there. */
  readonly stateDir: string;
  readonly socketPath: string;
  /** Form a network where the node has none. */
  readonly form?: { readonly name: string; readonly approval: boolean };
  /** Join with this invite where the node has no network. */
  readonly invite?: string;
  /** Aborted at the first SIGINT or SIGTERM: stop in order, within `config.limits.drainMs`. */
  readonly signal: AbortSignal;
  /** Reads the configuration anew, for SIGHUP. Throws `ConfigError`. */
  reloadConfig(): Promise<LoadedConfig>;
  /** Called once, as soon as the socket answers. */
  onListening(listening: NodeListening): void;
  /** Writes a finished log line (without line end) so that it does not tear the progress on the terminal. */
  writeLog(line: string): void;
}

/** Version of this program. */
export interface VersionInfo {
  readonly version: string;
  readonly commit: string;
  readonly builtAt: string;
  readonly runtime: string;
}

/** Everything outside. */
export interface CliDeps {
  readonly stdout: OutputStream;
  readonly stderr: OutputStream;
  readonly stdin: InputStream;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Current folder. */
  readonly cwd: string;
  readonly hostName: string;
  /** User id; 0 is root. */
  readonly userId: number;
  readonly version: VersionInfo;
  /** Runs a node until it is stopped; the result is the exit code. */
  startNode(options: StartNodeOptions): Promise<number>;
  /** Reads the state folder of a node that does not run; `undefined` where there is nothing readable. */
  readState?(stateDir: string): Promise<StoredState | undefined>;
  /** Connects to an agent; see {@linkcode openControl}. */
  openControl(socketPath: string, options?: ControlOptions): Promise<ControlClient>;
  now(): number;
  /** Aborted by the first Ctrl-C. */
  readonly signal: AbortSignal;
}

/** What the program itself has to bring for {@linkcode systemDeps}. */
export type ProgramParts = Pick<CliDeps, "startNode" | "readState" | "version">;

/**
 * The real world. The first SIGINT or SIGTERM aborts `signal`; the second calls `end`.
 *
 * @param parts What the command line does not know how to do.
 * @param end Ends the process at once, for example `Deno.exit`.
 */
export function systemDeps(parts: ProgramParts, end: (code: number) => void): CliDeps & Disposable {
  const controller = new AbortController();
  const stop = (code: number) => () => {
    if (controller.signal.aborted) end(code);
    controller.abort();
  };
  const handlers = [["SIGINT", stop(130)], ["SIGTERM", stop(143)]] as const;
  for (const [name, handler] of handlers) Deno.addSignalListener(name, handler);
  const quietly = <T>(read: () => T, otherwise: T): T => {
    try {
      return read();
    } catch {
      return otherwise;
    }
  };
  return {
    ...parts,
    stdout: outputOf(Deno.stdout),
    stderr: outputOf(Deno.stderr),
    stdin: systemInput(),
    env: Deno.env.toObject(),
    cwd: quietly(() => Deno.cwd(), "/"),
    hostName: quietly(() => Deno.hostname(), "node"),
    userId: quietly(() => Deno.uid(), null) ?? -1,
    openControl,
    now: () => Date.now(),
    signal: controller.signal,
    [Symbol.dispose]() {
      for (const [name, handler] of handlers) Deno.removeSignalListener(name, handler);
    },
  };
}

function outputOf(file: typeof Deno.stdout): OutputStream {
  const encoder = new TextEncoder();
  const isTerminal = file.isTerminal();
  const size = () => {
    const preset = { columns: 80, rows: 24 };
    if (!isTerminal) return preset;
    try {
      const { columns, rows } = Deno.consoleSize();
      return { columns: columns || preset.columns, rows: rows || preset.rows };
    } catch {
      return preset;
    }
  };
  return {
    isTerminal,
    write(text) {
      const bytes = encoder.encode(text);
      try {
        for (let done = 0; done < bytes.length;) done += file.writeSync(bytes.subarray(done));
      } catch (error) {
        // `mycelium status | head`: the reader has seen enough, which is no failure of ours.
        if (!(error instanceof Deno.errors.BrokenPipe)) throw error;
      }
    },
    get columns() {
      return size().columns;
    },
    get rows() {
      return size().rows;
    },
  };
}

function systemInput(): InputStream {
  const decoder = new TextDecoder();
  const buffer = new Uint8Array(4096);
  let rest = "";
  const more = async (): Promise<boolean> => {
    const count = await Deno.stdin.read(buffer);
    rest += count === null ? decoder.decode() : decoder.decode(buffer.subarray(0, count), { stream: true });
    return count !== null;
  };
  return {
    isTerminal: Deno.stdin.isTerminal(),
    async readLine() {
      while (!rest.includes("\n") && rest.length < 65_536) if (!await more()) break;
      const end = rest.indexOf("\n");
      if (end < 0 && rest === "") return undefined;
      const line = end < 0 ? rest : rest.slice(0, end);
      rest = end < 0 ? "" : rest.slice(end + 1);
      return line.replace(/\r$/, "");
    },
    async readAll(charsMax) {
      while (rest.length <= charsMax && await more());
      return rest.slice(0, charsMax);
    },
  };
}
