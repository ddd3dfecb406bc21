/**
 * The command line's side of the agent's unix socket: HTTP with JSON, server-sent events and NDJSON.
 *
 * @module
 */

import type { Status } from "../agent/status.ts";
import { utf8 } from "../core/bytes.ts";
import { deadlineOf } from "../edge/deadline.ts";
import type { LocalNode } from "./deps.ts";
import type { RequestLine } from "./session_file.ts";
import { CliError, EXIT, exitCodeOf } from "./exit.ts";

/** Largest answer that is read. */
const ANSWER_BYTES_MAX = 32 << 20;
/** Largest line of a stream. */
const LINE_CHARS_MAX = 16 << 20;
/** Time for an answer that is not a stream. */
const ANSWER_MS_MAX = 60_000;
/** `sun_path` of Linux without its final zero. */
const SOCKET_PATH_BYTES_MAX = 107;

/** A line of a remote command's output. */
export type ExecLine =
  | { readonly type: "output"; readonly text: string }
  | { readonly type: "error"; readonly text: string }
  | { readonly type: "end"; readonly code: number; readonly message: string };

/** An entry of the agent's log: an object with whatever fields it has. */
export type LogLine = Readonly<Record<string, unknown>>;

/** A command for a node. */
export interface ExecRequest {
  readonly verb: string;
  readonly args: Readonly<Record<string, string>>;
  /** Full id, unique suffix, or name. */
  readonly node: string;
  readonly timeoutMs: number;
}

/** A running agent. */
export interface ControlClient extends Disposable {
  readonly socket: string;
  /** The document of `/status`. */
  status(): Promise<Status>;
  /** Sends a control request; the answer is its result. Throws {@linkcode CliError} where it is refused. */
  control(request: { readonly verb: string; readonly [field: string]: unknown }): Promise<unknown>;
  /** Runs a command and yields its output; the last line is of type `end`. */
  exec(request: ExecRequest, signal: AbortSignal): AsyncGenerator<ExecLine>;
  /** Yields statuses as the agent sends them, until aborted or the agent is gone. */
  statuses(signal: AbortSignal): AsyncGenerator<Status>;
  /** The newest entries of the agent's log, the oldest first. */
  logs(options: { readonly count: number; readonly level?: string }): Promise<readonly LogLine[]>;
  /** Asks the agent to stop. */
  shutdown(): Promise<void>;
}

/** What following a node takes. */
export type StatusClient = Pick<ControlClient, "status" | "control">;

/** How the command line shows who it is. */
export interface ControlOptions {
  /** `Authorization` header of a request; `undefined` for none. */
  readonly authorization?: (request: RequestLine) => string | undefined;
  /** Asks for a code of the second factor; `undefined` where nobody can be asked. */
  readonly code?: () => Promise<string | undefined>;
  /** Certificates to trust beside those of the system, PEM. */
  readonly caCerts?: readonly string[];
}

/** Speaks to a node of this process. */
export function localClient(node: LocalNode): StatusClient {
  return {
    // deno-lint-ignore require-await -- as from afar
    status: async () => node.status(),
    async control(request) {
      const answer = await node.control(request);
      if (answer.ok) return answer.result;
      throw errorOf(answer, 500);
    },
  };
}

/**
 * Connects to the agent behind a unix socket, or behind an address that begins with `http://` or `https://`.
 *
 * @param socket Path of the socket, or the address.
 * @throws {CliError} `no-agent` (exit code 3) where nothing answers, `socket-denied` (4) where this user may not.
 */
export async function openControl(socket: string, options: ControlOptions = {}): Promise<ControlClient> {
  if (/^https?:\/\//.test(socket)) {
    const http = Deno.createHttpClient({ caCerts: [...options.caCerts ?? []] });
    return clientOf({ socket, base: socket.replace(/\/+$/, ""), http }, options);
  }
  if (new TextEncoder().encode(socket).length > SOCKET_PATH_BYTES_MAX) {
    throw new CliError(`Cannot use socket "${socket}": it is longer than the ${SOCKET_PATH_BYTES_MAX} bytes of Linux`, {
      code: "socket-too-long",
      cure: "Use a state folder with a shorter path, or --socket",
      exitCode: EXIT.usage,
    });
  }
  // A plain connection tells apart what fetch reports as one error: nothing there, nobody listening, not allowed.
  try {
    (await Deno.connect({ transport: "unix", path: socket })).close();
  } catch (error) {
    if (error instanceof Deno.errors.PermissionDenied || error instanceof Deno.errors.NotCapable) {
      throw new CliError(`Cannot use socket "${socket}": this user may not`, {
        code: "socket-denied",
        cure: "Use sudo, or join the group: sudo usermod -aG mycelium $USER, then log in again",
        exitCode: EXIT.refused,
        cause: error,
      });
    }
    const stale = error instanceof Deno.errors.ConnectionRefused;
    throw new CliError(`${socket}: ${stale ? "left behind, nobody listens" : "not there"}`, {
      code: "no-agent",
      exitCode: EXIT.noAgent,
      cause: error,
    });
  }
  const http = Deno.createHttpClient({ proxy: { transport: "unix", path: socket } });
  return clientOf({ socket, base: "http://agent", http }, options);
}

/** Header with a code of the second factor. */
const CODE_HEADER = "mycelium-code";

/** The client of an agent that can be reached. */
function clientOf(
  agent: { readonly socket: string; readonly base: string; readonly http: Deno.HttpClient },
  options: ControlOptions,
): ControlClient {
  const { socket, base, http } = agent;

  const call = async (path: string, init: RequestInit, signal: AbortSignal): Promise<Response> => {
    const headers = new Headers(init.headers);
    const body = typeof init.body === "string" ? utf8(init.body) : new Uint8Array(0);
    // A prefix of the address belongs to a proxy, and not to what the agent sees.
    const shown = options.authorization?.({ method: init.method ?? "GET", path, body });
    if (shown !== undefined) headers.set("authorization", shown);
    try {
      return await fetch(`${base}${path}`, { ...init, headers, client: http, signal });
    } catch (error) {
      if (error instanceof DOMException && error.name === "TimeoutError") {
        throw new CliError(`The agent at ${socket} did not answer ${path} in time`, {
          code: "timeout",
          cure: "It may be overloaded: look at its log",
          exitCode: EXIT.timedOut,
          cause: error,
        });
      }
      if (error instanceof DOMException) throw error;
      throw new CliError(`The agent at ${socket} went away`, {
        code: "agent-gone",
        cure: "Look at its log, or start it: mycelium up",
        exitCode: EXIT.noAgent,
        cause: error,
      });
    }
  };
  const json = async (path: string, init: RequestInit = {}): Promise<{ status: number; body: unknown }> => {
    using deadline = deadlineOf(ANSWER_MS_MAX);
    const response = await call(path, init, deadline.signal);
    const text = await readAll(response);
    try {
      return { status: response.status, body: text === "" ? {} : JSON.parse(text) };
    } catch (cause) {
      throw badAnswer(path, cause);
    }
  };
  const post = (body: unknown): RequestInit => ({
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });

  return {
    socket,
    async status() {
      const { status, body } = await json("/status");
      if (status !== 200) throw errorOf(body, status);
      return readStatus(body);
    },
    async control(request) {
      const ask = async (init: RequestInit): Promise<unknown> => {
        const { status, body } = await json("/control", init);
        const answer = asObject(body);
        if (status >= 400 || answer.ok !== true) throw errorOf(body, status);
        return answer.result;
      };
      try {
        return await ask(post(request));
      } catch (error) {
        const code = await codeFor(error, options);
        if (code === undefined) throw error;
        return await ask(withCode(post(request), code));
      }
    },
    async *exec(request, signal) {
      // The node ends the command in time; the margin is for the way there and back.
      using deadline = deadlineOf(request.timeoutMs + 10_000, signal);
      let response = await call("/exec", post(request), deadline.signal);
      if (response.status === 403 && options.code) {
        const refused = errorOf(await response.json().catch(() => ({})), response.status);
        const code = await codeFor(refused, options);
        if (code === undefined) throw refused;
        response = await call("/exec", withCode(post(request), code), deadline.signal);
      }
      if (response.status !== 200) {
        const text = await readAll(response);
        let body: unknown;
        try {
          body = JSON.parse(text);
        } catch {
          body = {};
        }
        throw errorOf(body, response.status);
      }
      let end: ExecLine | undefined;
      for await (const line of linesOf(response)) {
        if (line.trim() === "" || end) continue;
        const read = readExecLine(line);
        // The end is told when the stream has ended too: leaving earlier would look like Ctrl-C to the agent.
        if (read.type === "end") end = read;
        else yield read;
      }
      if (!end) {
        throw new CliError("The output broke off before the command ended", {
          code: "stream-broken",
          cure: "The command may have run to its end: look with mycelium status",
        });
      }
      yield end;
    },
    async *statuses(signal) {
      const response = await call("/events", { headers: { accept: "text/event-stream" } }, signal);
      if (response.status !== 200) {
        await response.body?.cancel();
        throw errorOf({}, response.status);
      }
      let event = "", data: string[] = [];
      for await (const line of linesOf(response)) {
        if (line.startsWith("event:")) event = line.slice(6).trim();
        else if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
        else if (line === "") {
          if (event === "status" && data.length > 0) {
            let body: unknown;
            try {
              body = JSON.parse(data.join("\n"));
            } catch (cause) {
              throw badAnswer("/events", cause);
            }
            yield readStatus(body);
          }
          [event, data] = ["", []];
        }
      }
    },
    async logs({ count, level }) {
      const query = `n=${count}${level === undefined ? "" : `&level=${encodeURIComponent(level)}`}`;
      using deadline = deadlineOf(ANSWER_MS_MAX);
      const response = await call(`/logs?${query}`, {}, deadline.signal);
      const text = await readAll(response);
      const lines = text.split("\n").filter((line) => line.trim() !== "");
      try {
        if (response.status !== 200) throw errorOf(JSON.parse(text), response.status);
        return lines.map((line) => asObject(JSON.parse(line)));
      } catch (cause) {
        if (cause instanceof CliError) throw cause;
        throw badAnswer("/logs", cause);
      }
    },
    async shutdown() {
      const { status, body } = await json("/shutdown", post({}));
      if (status >= 400) throw errorOf(body, status);
    },
    [Symbol.dispose]() {
      http.close();
    },
  };
}

/** A code, where that is what is missing and somebody can be asked for one. */
async function codeFor(error: unknown, options: ControlOptions): Promise<string | undefined> {
  return error instanceof CliError && error.code === "second-factor" ? await options.code?.() : undefined;
}

function withCode(init: RequestInit, code: string): RequestInit {
  const headers = new Headers(init.headers);
  headers.set(CODE_HEADER, code);
  return { ...init, headers };
}

/** Reads a `/status` document as far as the command line relies on it. */
export function readStatus(value: unknown): Status {
  const status = asObject(value);
  if (status.schema !== 1) {
    throw new CliError(`Cannot read the agent's status: schema is ${JSON.stringify(status.schema)}, expected 1`, {
      code: "version-mismatch",
      cure: "The agent is of another version than this command: restart it after an upgrade",
    });
  }
  const objects = ["version", "node", "bootstrap", "tolerance", "health", "config", "process", "traffic"];
  const lists = ["members", "invites", "pending", "events"];
  const missing = objects.find((key) => typeof status[key] !== "object" || status[key] === null) ??
    lists.find((key) => !Array.isArray(status[key]));
  if (missing !== undefined) throw badAnswer("/status", new Error(`"${missing}" is missing`));
  return value as Status;
}

function readExecLine(line: string): ExecLine {
  let value: Record<string, unknown>;
  try {
    value = asObject(JSON.parse(line));
  } catch (cause) {
    throw badAnswer("/exec", cause);
  }
  const text = typeof value.text === "string" ? value.text : typeof value.message === "string" ? value.message : "";
  if (value.type === "output" || value.type === "error") return { type: value.type, text };
  if (value.type === "end") {
    return { type: "end", code: typeof value.code === "number" ? value.code : 1, message: text };
  }
  throw badAnswer("/exec", new Error(`no line of type ${JSON.stringify(value.type)}`));
}

/** Errors come as `{error: {code, message, cure}}` from the control routes and as problem documents from the others. */
function errorOf(body: unknown, httpStatus: number): CliError {
  const answer = asObject(body);
  const error = typeof answer.error === "object" && answer.error !== null ? asObject(answer.error) : answer;
  const word = (...keys: string[]) => keys.map((key) => error[key]).find((one) => typeof one === "string") as string;
  const code = word("code") ?? `http-${httpStatus}`;
  return new CliError(word("message", "cause", "detail", "title") ?? `The agent answered with HTTP ${httpStatus}`, {
    code,
    cure: word("cure") ?? "",
    exitCode: exitCodeOf(code, httpStatus),
  });
}

function badAnswer(path: string, cause: unknown): CliError {
  const why = cause instanceof Error ? cause.message : "unreadable";
  return new CliError(`Cannot read the agent's answer to ${path}: ${why}`, {
    code: "bad-answer",
    cure: "The agent may be of another version: compare mycelium version and restart it",
    cause,
  });
}

function asObject(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? value as Record<string, unknown> : {};
}

async function readAll(response: Response): Promise<string> {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let size = 0;
  for await (const part of response.body ?? []) {
    size += part.length;
    if (size > ANSWER_BYTES_MAX) throw badAnswer("a request", new Error(`more than ${ANSWER_BYTES_MAX} bytes`));
    parts.push(part);
  }
  return await new Blob(parts).text();
}

async function* linesOf(response: Response): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for await (const part of response.body ?? []) {
      rest += decoder.decode(part, { stream: true });
      if (rest.length > LINE_CHARS_MAX) throw badAnswer("a stream", new Error("a line without end"));
      const lines = rest.split("\n");
      rest = lines.pop()!;
      for (const line of lines) yield line.replace(/\r$/, "");
    }
  } catch (error) {
    if (error instanceof CliError || error instanceof DOMException) throw error;
    throw new CliError("The agent went away", { code: "agent-gone", exitCode: EXIT.noAgent, cause: error });
  }
  if (rest !== "") yield rest;
}
