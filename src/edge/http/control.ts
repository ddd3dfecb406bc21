/**
 * What may be asked of the running agent, over its unix socket and over HTTP.
 *
 * Answers are `{ "ok": true, "result": … }` or `{ "ok": false, "error": { "code", "message", "cure" } }`.
 *
 * @module
 */

import type { Need, Subject } from "../../access/decide.ts";
import { ROUTE_NEEDS } from "../../agent/access_table.ts";
import type { ControlError } from "../../agent/control.ts";

/** Largest body of a request in bytes. */
export const CONTROL_BODY_BYTES_MAX = 256 << 10;

/** Longest wait for the body of a request in milliseconds. */
const BODY_MS_MAX = 10_000;

/** What a control request comes to. */
export type ControlAnswer =
  | { readonly ok: true; readonly result: unknown }
  | { readonly ok: false; readonly error: ControlError };

/** One line of the answer to `/exec`. */
export type ExecLine =
  | { readonly type: "output"; readonly text: string }
  | { readonly type: "error"; readonly code: string; readonly message: string; readonly cure: string }
  | { readonly type: "end"; readonly code: number; readonly message: string };

/** What the control app asks of the agent. Requests are decoded JSON, unchecked. */
export interface ControlRoutesDeps {
  /** Carries out a request of `POST /control`, or refuses it to who asks. */
  control(request: unknown, by: Subject): Promise<ControlAnswer>;
  /** Runs a command, or refuses it; `signal` aborts when the asker has gone. */
  exec(request: unknown, by: Subject, signal: AbortSignal): AsyncIterable<ExecLine>;
  /** Begins to stop the agent; the answer is sent when it resolves. */
  shutdown?(): void | Promise<void>;
  /** Recent log lines as JSON objects, oldest first. */
  recentLogs?(options: { readonly count: number; readonly level?: string }): readonly unknown[];
  /** Errors of ours go there. */
  readonly logs?: { error(event: string, message: string, fields?: Readonly<Record<string, unknown>>): void };
}

/** A route of the control app. */
export interface ControlRoute {
  readonly method: "GET" | "POST";
  readonly path: string;
  handle(request: Request, gate: RouteGate): Promise<Response>;
}

/** How a route finds out who asks, and whether he may. */
export interface RouteGate {
  /** Once for each request, with its whole body. @throws {ControlFailure} */
  identify(body: Uint8Array): Subject;
  /** @throws {ControlFailure} */
  demand(by: Subject, need: Need): void;
}

/** HTTP status by error code; an unknown code is 422, since the request was understood. */
const STATUS_BY_CODE: Readonly<Record<string, number>> = {
  "bad-request": 400,
  "bad-json": 400,
  "bad-content-type": 415,
  "body-too-large": 413,
  "body-timeout": 408,
  "unauthorized": 401,
  "challenge-expired": 401,
  "challenge-foreign": 401,
  "login-replayed": 401,
  "signature-invalid": 401,
  "session-unknown": 401,
  "session-expired": 401,
  "request-expired": 401,
  "request-replayed": 401,
  "token-invalid": 401,
  "second-factor-wrong": 401,
  "sessions-full": 429,
  "throttled": 429,
  "no-role": 403,
  "not-granted": 403,
  "suspended": 403,
  "too-dangerous": 403,
  "second-factor": 403,
  "not-authorised": 403,
  "forbidden": 403,
  "not-found": 404,
  "unknown-verb": 404,
  "conflict": 409,
  "exists": 409,
  "overloaded": 429,
  "internal": 500,
  "not-supported": 501,
  "unavailable": 503,
  "stopping": 503,
  "timeout": 504,
};

/** A request that is refused, with its code and cure. */
export class ControlFailure extends Error {
  override readonly name = "ControlFailure";
  readonly error: ControlError;

  constructor(code: string, message: string, cure: string) {
    super(message);
    this.error = { code, message, cure };
  }
}

/** The routes of the control app. */
export class ControlRoutes {
  readonly #deps: ControlRoutesDeps;

  /** Method and path of each, with its handler. */
  readonly routes: readonly ControlRoute[] = [
    {
      method: "POST",
      path: "/control",
      handle: (request, gate) => this.#answer(request, () => this.#control(request, gate)),
    },
    {
      method: "POST",
      path: "/exec",
      handle: (request, gate) => this.#answer(request, () => this.#exec(request, gate)),
    },
    {
      method: "POST",
      path: "/shutdown",
      handle: (request, gate) => this.#answer(request, () => this.#shutdown(request, gate)),
    },
    { method: "GET", path: "/logs", handle: (request, gate) => this.#answer(request, () => this.#logs(request, gate)) },
  ];

  /** @param deps The agent. */
  constructor(deps: ControlRoutesDeps) {
    this.#deps = deps;
  }

  async #answer(request: Request, work: () => Promise<Response>): Promise<Response> {
    try {
      // No browser reaches a unix socket, except through a proxy that someone put before it.
      if (request.headers.has("origin")) {
        throw new ControlFailure("forbidden", "The request comes from a web page.", "Use the command line.");
      }
      return await work();
    } catch (error) {
      if (error instanceof ControlFailure) return refusal(error.error);
      const id = crypto.randomUUID().slice(0, 8);
      const path = new URL(request.url).pathname;
      this.#deps.logs?.error("control-error", `Cannot carry out ${path}`, { id, error });
      return refusal({
        code: "internal",
        message: `An error inside the node, logged as ${id}.`,
        cure: "Try again; if it stays, read `mycelium logs` and report it.",
      });
    }
  }

  async #control(request: Request, gate: RouteGate): Promise<Response> {
    const { value, by } = await readJson(request, gate);
    const answer = await this.#deps.control(value, by);
    return answer.ok ? json(200, { ok: true, result: answer.result ?? null }) : refusal(answer.error);
  }

  async #exec(request: Request, gate: RouteGate): Promise<Response> {
    const { value, by } = await readJson(request, gate);
    const abort = new AbortController();
    const lines = this.#deps.exec(value, by, abort.signal)[Symbol.asyncIterator]();
    // The first line is awaited here, so that a refused command is a plain error with a status of its own.
    const first = await lines.next();
    if (!first.done && first.value.type === "error") {
      abort.abort();
      await lines.return?.();
      return refusal(first.value);
    }
    return new Response(ndjson(lines, first, abort), {
      headers: { "content-type": "application/x-ndjson", "cache-control": "no-store" },
    });
  }

  async #shutdown(request: Request, gate: RouteGate): Promise<Response> {
    gate.demand(gate.identify(await readBody(request)), ROUTE_NEEDS["/shutdown"]);
    if (!this.#deps.shutdown) {
      throw new ControlFailure("not-supported", "This node is not stopped that way.", "Send it SIGTERM.");
    }
    await this.#deps.shutdown();
    return json(200, { ok: true, result: null });
  }

  #logs(request: Request, gate: RouteGate): Promise<Response> {
    gate.demand(gate.identify(new Uint8Array(0)), ROUTE_NEEDS["/logs"]);
    const query = new URL(request.url).searchParams;
    const count = Number(query.get("n") ?? 200);
    const level = query.get("level") ?? undefined;
    if (!Number.isInteger(count) || count < 1 || count > 10_000) {
      throw new ControlFailure("bad-request", "n is not a count of lines.", "Use a number from 1 to 10000.");
    }
    if (level !== undefined && !["debug", "info", "warn", "error"].includes(level)) {
      throw new ControlFailure("bad-request", "There is no such level.", "Use debug, info, warn or error.");
    }
    const lines = this.#deps.recentLogs?.({ count, ...(level === undefined ? {} : { level }) }) ?? [];
    return Promise.resolve(
      new Response(lines.map((line) => JSON.stringify(line) + "\n").join(""), {
        headers: { "content-type": "application/x-ndjson", "cache-control": "no-store" },
      }),
    );
  }
}

/** Lines as they come, one at a time as they are read: a slow reader slows the command down. */
function ndjson(
  lines: AsyncIterator<ExecLine>,
  first: IteratorResult<ExecLine>,
  abort: AbortController,
): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  let held: IteratorResult<ExecLine> | undefined = first;
  let ended = false;
  const encode = (line: ExecLine) => encoder.encode(JSON.stringify(line) + "\n");
  return new ReadableStream<Uint8Array>({
    pull: async (controller) => {
      try {
        const { done, value } = held ?? await lines.next();
        held = undefined;
        if (done) {
          // A command that stops without a word has not succeeded.
          if (!ended) controller.enqueue(encode({ type: "end", code: 1, message: "The command ended early." }));
          controller.close();
          return;
        }
        ended ||= value.type === "end";
        controller.enqueue(encode(value));
      } catch (error) {
        const message = error instanceof Error ? error.message : String(error);
        const cure = "Look at the log of the node, and try again.";
        controller.enqueue(encode({ type: "error", code: "internal", message, cure }));
        controller.enqueue(encode({ type: "end", code: 1, message }));
        controller.close();
      }
    },
    cancel: async () => {
      abort.abort();
      await lines.return?.();
    },
  }, { highWaterMark: 0 });
}

/** Reads a body, finds out who sent it, and only then looks at what is in it. */
async function readJson(request: Request, gate: RouteGate): Promise<{ readonly value: unknown; readonly by: Subject }> {
  const type = request.headers.get("content-type") ?? "";
  if (!/^application\/json *(;|$)/i.test(type)) {
    throw new ControlFailure(
      "bad-content-type",
      `The content type is ${JSON.stringify(type.slice(0, 100))}, wanted application/json.`,
      "Send the header `content-type: application/json`.",
    );
  }
  const body = await readBody(request);
  const by = gate.identify(body);
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(body);
  } catch {
    throw new ControlFailure("bad-json", "The body is not UTF-8.", "Send JSON in UTF-8.");
  }
  try {
    return { value: JSON.parse(text), by };
  } catch (error) {
    throw new ControlFailure(
      "bad-json",
      `The body is not JSON: ${error instanceof Error ? error.message.slice(0, 200) : "unreadable"}.`,
      'Send one JSON object, for example {"verb":"invite-list"}.',
    );
  }
}

async function readBody(request: Request): Promise<Uint8Array> {
  const tooLarge = new ControlFailure(
    "body-too-large",
    `The body is larger than ${CONTROL_BODY_BYTES_MAX} bytes.`,
    "Send a smaller request.",
  );
  if (Number(request.headers.get("content-length") ?? 0) > CONTROL_BODY_BYTES_MAX) throw tooLarge;
  if (!request.body) return new Uint8Array(0);
  const reader = request.body.getReader();
  const timer = setTimeout(() => {
    reader.cancel(new ControlFailure("body-timeout", "The body did not come in time.", "Send it at once."))
      .catch(() => {});
    late = true;
  }, BODY_MS_MAX);
  let late = false;
  const chunks: Uint8Array[] = [];
  let size = 0;
  try {
    while (true) {
      const { done, value } = await reader.read();
      if (done) break;
      size += value.byteLength;
      if (size > CONTROL_BODY_BYTES_MAX) {
        await reader.cancel().catch(() => {});
        throw tooLarge;
      }
      chunks.push(value);
    }
  } finally {
    clearTimeout(timer);
  }
  if (late) throw new ControlFailure("body-timeout", "The body did not come in time.", "Send it at once.");
  const whole = new Uint8Array(size);
  let offset = 0;
  for (const chunk of chunks) {
    whole.set(chunk, offset);
    offset += chunk.byteLength;
  }
  return whole;
}

function refusal(error: ControlError): Response {
  const { code, message, cure } = error;
  return json(STATUS_BY_CODE[code] ?? 422, { ok: false, error: { code, message, cure } });
}

function json(status: number, body: unknown): Response {
  return new Response(JSON.stringify(body) + "\n", {
    status,
    headers: { "content-type": "application/json", "cache-control": "no-store" },
  });
}
