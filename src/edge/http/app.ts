/**
 * The HTTP interface of a node: the status app, read-only, and the control app on top of it.
 *
 * @module
 */

import { type Context, Hono } from "hono";
import type { Subject } from "../../access/decide.ts";
import { type Route, ROUTE_NEEDS } from "../../agent/access_table.ts";
import type { Health, Status } from "../../agent/status.ts";
import { KEY_CHARS_MAX } from "../../spore/keys.ts";
import { HISTORY_STEP_MS } from "../telemetry/history.ts";
import { type Exposition, METRICS_CONTENT_TYPE } from "../telemetry/metrics.ts";
import { ControlFailure, ControlRoutes, type ControlRoutesDeps, type RouteGate } from "./control.ts";
import { mainPart, page } from "./dashboard.ts";
import { EventHub, type EventHubOptions } from "./events.ts";
import { hostCheck, PAGE_HEADERS, SECURITY_HEADERS } from "./guard.ts";
import { type AccessDoor, builtInDoor, type Entrance, Identifier } from "./identity.ts";
import { openApiDocument } from "./openapi.ts";
import { type Problem, ProblemError, problemResponse } from "./problem.ts";
import { type RenderedBody, type StatusSource, StatusView, type StatusViewOptions } from "./view.ts";

export type { StatusChange, StatusSource } from "./view.ts";

/** Where the app reports what went wrong inside it; `Logger` of `telemetry/log.ts` fits. */
export interface AppLog {
  /** An error of ours, with its cause in `fields.error`. */
  error(event: string, message: string, fields?: Readonly<Record<string, unknown>>): void;
}

/** What the status app needs, and how it is guarded. */
export interface StatusAppDeps extends StatusSource, StatusViewOptions {
  /** Shares caches and history with another app of the same node. @default a view of its own */
  readonly view?: StatusView;
  /** Errors go there; without it they go to standard error. */
  readonly logs?: AppLog;
  /** Further values of the `Host` header that are served; `"any"` on a unix socket. @default [] */
  readonly hosts?: readonly string[] | "any";
  /** Asked of every request where it is set, unless it shows who it is of in another way. */
  readonly token?: string;
  /** The gate of the node. @default the built-in roles, where nobody can log in */
  readonly access?: AccessDoor;
  /** Where the app is reached. @default "tcp" */
  readonly entrance?: Entrance;
  /** Bounds and rhythm of `/events`. */
  readonly events?: EventHubOptions;
}

/** What the control app needs on top. */
export interface ControlAppDeps extends StatusAppDeps, ControlRoutesDeps {}

/** An app with what must be closed when its server ends. */
export interface HttpApp extends Disposable {
  /** Answers a request; never rejects. `from`: address of the other end. */
  fetch(request: Request, from?: string): Response | Promise<Response>;
  /** Answers a request without a socket, for tests: `app.request("/status")`. */
  request(path: string, init?: RequestInit): Promise<Response>;
  /** Takes samples for the plots and measures timer lag until it is disposed of; a server calls it. */
  start(): void;
  /** Takes one sample for the plots. */
  sample(): void;
  /** Streams of `/events` open now. */
  readonly subscribers: number;
}

/** The read-only app: `/healthz`, `/readyz`, `/status`, `/metrics`, `/events`, `/openapi.json` and the dashboard. */
export function createStatusApp(deps: StatusAppDeps): HttpApp {
  return new App(deps);
}

/** The app of the unix socket, and of TCP for who shows who he is: the status app with `POST /control`, `POST /exec`, `POST /shutdown` and `GET /logs`. */
export function createControlApp(deps: ControlAppDeps): HttpApp {
  return new App({ hosts: "any", entrance: "socket", ...deps }, new ControlRoutes(deps));
}

/** Methods by path; anything else is 405 or 404. */
const STATUS_ROUTES: readonly (readonly [Route, string])[] = [
  ["/", "GET"],
  ["/healthz", "GET"],
  ["/readyz", "GET"],
  ["/status", "GET"],
  ["/spores", "GET"],
  ["/metrics", "GET"],
  ["/events", "GET"],
  ["/openapi.json", "GET"],
];

/** The runtime compresses what may be transformed: a waste on loopback, and it would weaken the tag. */
const JSON_HEADERS = { "content-type": "application/json", "cache-control": "no-cache, no-transform" };

const EMPTY = new Uint8Array(0);
const TOKEN_CURE =
  "Send `Authorization: Bearer <token>` with the content of the file http.tokenFile, or a service token; in a browser, " +
  "enter it as the password with any user name.";

/** Spore records in one answer. */
const SPORES_PAGE = 1_000;

/** Names under which one node is asked for its status. */
const FAST_URLS_MAX = 8;

class App implements HttpApp {
  /** Routed by the path as it was sent, which is the one that was asked about: `/%73pores` is nothing. */
  readonly #hono = new Hono({ getPath: (request) => new URL(request.url).pathname });
  readonly #view: StatusView;
  readonly #source: StatusSource;
  readonly #hub: EventHub;
  readonly #log: AppLog;
  readonly #checkHost: ((header: string) => Problem | undefined) | undefined;
  readonly #door: AccessDoor;
  readonly #who: Identifier;
  /** Whether a request that shows nothing may be of a reader. */
  readonly #open: boolean;
  /** Paths of the control routes. */
  readonly #controls = new Set<string>();
  /** Methods that a path takes. */
  readonly #methods = new Map<string, string>();
  /** Answers by route and status class; routes are ours, so this is bounded. */
  readonly #served = new Map<string, number>();
  readonly #openApi: string;
  /** Addresses of `/status` that the guards have let pass; empty where each request needs a token. */
  readonly #fastUrls = new Set<string>();
  #fastCount = 0;
  #sampler: ReturnType<typeof setInterval> | undefined;
  #lag: Disposable | undefined;
  #statusTag = "";
  #statusResponse = new Response();

  constructor(deps: StatusAppDeps, control?: ControlRoutes) {
    this.#view = deps.view ?? new StatusView(deps, deps);
    this.#source = deps;
    this.#log = deps.logs ?? { error: (event, message, fields) => console.error(event, message, fields?.error) };
    this.#hub = new EventHub(this.#view, (view) => view.rendering("page", pageEvent), deps.events);
    this.#checkHost = deps.hosts === "any" ? undefined : hostCheck(deps.hosts);
    this.#door = deps.access ?? builtInDoor();
    this.#open = deps.token === undefined;
    this.#who = new Identifier({
      door: this.#door,
      entrance: deps.entrance ?? "tcp",
      ...(deps.token === undefined ? {} : { token: deps.token }),
    });
    this.#openApi = JSON.stringify(
      openApiDocument({ control: control !== undefined, token: deps.token !== undefined }),
    );
    this.#routes(control);
  }

  get subscribers(): number {
    return this.#hub.subscribers;
  }

  start(): void {
    if (this.#sampler !== undefined) return;
    this.#lag = this.#view.measureLag();
    this.#sampler = setInterval(() => this.sample(), HISTORY_STEP_MS);
    Deno.unrefTimer(this.#sampler);
  }

  sample(): void {
    this.#guarded(() => this.#view.sample());
  }

  request(path: string, init?: RequestInit): Promise<Response> {
    // As a server does it: the Host header makes the address.
    const host = new Headers(init?.headers).get("host") ?? "localhost";
    const base = URL.canParse(`http://${host}`) ? `http://${host}` : "http://malformed.invalid";
    return Promise.resolve(this.fetch(new Request(new URL(path, base), init)));
  }

  fetch(request: Request, from = ""): Response | Promise<Response> {
    try {
      const fast = this.#fastStatus(request);
      if (fast) return fast;
      const refusal = this.#refusal(request, from);
      if (refusal) return this.#finish(refusal, "refused");
      return this.#route(request, from);
    } catch (error) {
      return this.#finish(this.#failed(error, request), "error");
    }
  }

  [Symbol.dispose](): void {
    clearInterval(this.#sampler);
    this.#sampler = undefined;
    this.#lag?.[Symbol.dispose]();
    this.#hub[Symbol.dispose]();
  }

  /**
   * Answers `GET /status` under an address that was served before, which is by far the most frequent request,
   * past the router and the guards: the address holds the host, so what the guards said of it still holds.
   *
   * The copy of an answer costs 0.2 µs, one of its own with these six headers 8 µs, as much as the rest of the request
   * (Deno 2.7): the runtime sorts and checks them each time.
   */
  #fastStatus(request: Request): Response | undefined {
    if (!this.#fastUrls.has(request.url) || request.method !== "GET") return undefined;
    this.#fastCount++;
    const body = this.#view.body();
    if (matchesTag(request.headers.get("if-none-match"), body.etag)) return this.#unchanged(body);
    if (this.#statusTag !== body.etag) {
      this.#statusTag = body.etag;
      this.#statusResponse = new Response(body.text, {
        headers: { ...SECURITY_HEADERS, ...JSON_HEADERS, etag: body.etag },
      });
    }
    return this.#statusResponse.clone();
  }

  /** What keeps a request out: the wrong host; or, for all but the control routes, that who asks may not. */
  #refusal(request: Request, from: string): Response | undefined {
    if (this.#checkHost) {
      // Without a server (tests) there is no Host header, and the URL says it.
      const problem = this.#checkHost(request.headers.get("host") ?? new URL(request.url).host);
      if (problem) return problemResponse(problem);
    }
    const path = new URL(request.url).pathname;
    // They find out themselves who asks: what a session signed covers the body.
    if (this.#controls.has(path)) return undefined;
    const known = this.#who.identify(request, EMPTY, { from, reads: true });
    if (!known.ok) return this.#unauthorized(known.code === "throttled" ? 429 : 401, known);
    const need = Object.hasOwn(ROUTE_NEEDS, path) ? ROUTE_NEEDS[path as Route] : ROUTE_NEEDS["/"];
    const decision = this.#door.authorize(known.subject, need);
    if (decision.ok) return undefined;
    if (known.subject.kind === "anyone") return this.#unauthorized(401, undefined);
    return problemResponse({
      status: 403,
      code: decision.reason,
      title: "This is not allowed",
      cause: decision.message,
      cure: decision.cure,
    });
  }

  #unauthorized(
    status: 401 | 429,
    why: { readonly code: string; readonly message: string; readonly cure: string } | undefined,
  ): Response {
    const response = problemResponse({
      status,
      code: why?.code === "throttled" ? "throttled" : "unauthorized",
      title: "A token is needed",
      cause: why?.message ?? "The request carries no bearer token.",
      cure: status === 429 ? why?.cure ?? "Wait" : TOKEN_CURE,
    });
    response.headers.append("www-authenticate", `Bearer realm="mycelium"`);
    response.headers.append("www-authenticate", `Basic realm="mycelium", charset="UTF-8"`);
    return response;
  }

  /** How the control routes find out who asks, and whether he may. */
  #gate(request: Request, from: string): RouteGate {
    return {
      identify: (body): Subject => {
        const known = this.#who.identify(request, body, { from, reads: false });
        if (known.ok) return known.subject;
        throw new ControlFailure(known.code, known.message, known.cure);
      },
      demand: (by, need) => {
        const decision = this.#door.authorize(by, need);
        if (!decision.ok) throw new ControlFailure(decision.reason, decision.message, decision.cure);
      },
    };
  }

  async #route(request: Request, from: string): Promise<Response> {
    try {
      const response = await this.#hono.fetch(request, { from });
      const path = new URL(request.url).pathname;
      return this.#finish(response, this.#methods.has(path) ? path : "other");
    } catch (error) {
      return this.#finish(this.#failed(error, request), "error");
    }
  }

  #routes(control: ControlRoutes | undefined): void {
    const hono = this.#hono;
    for (const [path, methods] of STATUS_ROUTES) this.#methods.set(path, methods);
    hono.get("/", () => this.#dashboard());
    hono.get("/healthz", (context) => answerHealth(context, { status: "alive" }, 200));
    hono.get("/readyz", (context) => this.#readyz(context));
    hono.get("/status", (context) => this.#statusAnswer(context.req.raw));
    hono.get("/spores", (context) => this.#spores(context));
    hono.get("/metrics", () => {
      const text = this.#view.metrics((out) => this.#httpMetrics(out));
      return new Response(text, { headers: { "content-type": METRICS_CONTENT_TYPE, "cache-control": "no-store" } });
    });
    hono.get("/events", (context) => this.#events(context));
    hono.get("/openapi.json", () => {
      return new Response(this.#openApi, {
        headers: { "content-type": "application/json", "cache-control": "no-cache" },
      });
    });
    if (control) {
      for (const route of control.routes) {
        this.#methods.set(route.path, route.method);
        this.#controls.add(route.path);
        hono.on(route.method, route.path, (context) => {
          const { from } = context.env as { readonly from: string };
          return route.handle(context.req.raw, this.#gate(context.req.raw, from));
        });
      }
    }
    hono.notFound((context) => this.#notFound(context));
    hono.onError((error, context) => this.#failed(error, context.req.raw));
  }

  #statusAnswer(request: Request): Response {
    const { url } = request;
    if (this.#open && this.#fastUrls.size < FAST_URLS_MAX && url.length < 100 && url.endsWith("/status")) {
      this.#fastUrls.add(url);
    }
    const body = this.#view.body();
    if (matchesTag(request.headers.get("if-none-match"), body.etag)) return this.#unchanged(body);
    return new Response(body.text, { headers: { ...JSON_HEADERS, etag: body.etag } });
  }

  /** Spore records without their values, page by page. */
  #spores(context: Context): Response {
    const { prefix = "", after, max } = context.req.query();
    const count = max === undefined ? SPORES_PAGE : /^\d{1,4}$/.test(max) ? Number(max) : 0;
    if (count < 1 || count > SPORES_PAGE || prefix.length > KEY_CHARS_MAX || (after?.length ?? 0) > KEY_CHARS_MAX) {
      return problemResponse({
        status: 400,
        code: "bad-query",
        title: "This query cannot be answered",
        cause: `Wanted max from 1 to ${SPORES_PAGE}, and keys of at most ${KEY_CHARS_MAX} characters.`,
        cure: "Ask for example /spores?prefix=service/&max=100, and go on with after.",
      });
    }
    const query = { prefix, max: count, ...(after === undefined ? {} : { after }) };
    const page = this.#source.listSpores?.(query) ?? { rows: [] };
    return new Response(JSON.stringify(page), { headers: JSON_HEADERS });
  }

  #unchanged(body: RenderedBody): Response {
    return new Response(null, { status: 304, headers: { ...SECURITY_HEADERS, etag: body.etag } });
  }

  #dashboard(): Response {
    const nonce = crypto.randomUUID().replaceAll("-", "");
    const text = page(this.#view.status(), nonce);
    return new Response(text, {
      headers: {
        ...PAGE_HEADERS,
        "content-type": "text/html; charset=utf-8",
        "cache-control": "no-store, no-transform",
        "content-security-policy": `default-src 'none'; style-src 'nonce-${nonce}'; script-src 'nonce-${nonce}'; ` +
          "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
      },
    });
  }

  #readyz(context: Context): Response {
    const status = this.#view.status();
    return answerHealth(context, readiness(status), status.health.ready ? 200 : 503);
  }

  #events(context: Context): Response {
    const headers = {
      "content-type": "text/event-stream",
      "cache-control": "no-store, no-transform",
      "x-accel-buffering": "no",
    };
    if (context.req.raw.method === "HEAD") return new Response(null, { headers });
    const kind = context.req.query("view") === "page" ? "page" : "status";
    const stream = this.#hub.open(kind, context.req.header("last-event-id"));
    if (stream) return new Response(stream, { headers });
    return problemResponse({
      status: 503,
      code: "too-many-subscribers",
      title: "Too many readers of /events",
      cause: `${this.#hub.subscribers} streams are open, which is as many as are served, or the node is stopping.`,
      cure: "Close a dashboard that nobody looks at, or ask /status every few seconds instead.",
    }, { "retry-after": "10" });
  }

  #notFound(context: Context): Response {
    const { path, method } = context.req;
    const allowed = this.#methods.get(path);
    if (allowed) {
      return problemResponse({
        status: 405,
        code: "method-not-allowed",
        title: "This method is not served here",
        cause: `${path} does not take ${method.slice(0, 20)}.`,
        cure: `Use ${allowed}.`,
      }, { allow: allowed === "GET" ? "GET, HEAD" : allowed });
    }
    return problemResponse({
      status: 404,
      code: "not-found",
      title: "Nothing is here",
      cause: `There is no ${path.slice(0, 200)}.`,
      cure: `There is ${[...this.#methods.keys()].join(", ")}; /openapi.json describes them.`,
    });
  }

  #failed(error: unknown, request: Request): Response {
    if (error instanceof ProblemError) return problemResponse(error.problem);
    const id = crypto.randomUUID().slice(0, 8);
    this.#guarded(() => this.#log.error("http-error", `Cannot answer ${request.method} ${request.url}`, { id, error }));
    return problemResponse({
      status: 500,
      code: "internal",
      title: "The node failed to answer",
      cause: `An error inside the node, logged as ${id}.`,
      cure: "Try again; if it stays, read `mycelium logs` and report it.",
    });
  }

  /** The interface never takes the node down with it. */
  #guarded(work: () => void): void {
    try {
      work();
    } catch (error) {
      console.error("http", error);
    }
  }

  #finish(response: Response, route?: string): Response {
    for (const [name, value] of Object.entries(SECURITY_HEADERS)) {
      if (!response.headers.has(name)) response.headers.set(name, value);
    }
    if (route) this.#count(route, response.status);
    return response;
  }

  #count(route: string, status: number): void {
    const key = status === 200 ? route : `${route} ${status}`;
    this.#served.set(key, (this.#served.get(key) ?? 0) + 1);
  }

  #httpMetrics(out: Exposition): void {
    out.family(
      "mycelium_http_requests_total",
      "counter",
      "Requests answered by this interface, by route and HTTP status.",
      [...this.#served].map(([key, times]) => {
        const [route = "", code = "200"] = key.split(" ");
        return [{ route, code }, times + (key === "/status" ? this.#fastCount : 0)] as const;
      }),
    );
    out.gauge("mycelium_http_event_streams", "Open streams of /events.", this.#hub.subscribers);
  }
}

/** Whether an `If-None-Match` header holds the tag; a proxy may have weakened it. */
function matchesTag(header: string | null, etag: string): boolean {
  return header !== null &&
    (header === etag || header.split(",").some((one) => one.trim().replace(/^W\//, "") === etag));
}

interface HealthAnswer {
  readonly status: "alive" | "ready" | "not-ready";
  readonly health?: Health;
  readonly stage?: string;
  readonly reasons?: readonly string[];
  readonly waitingFor?: readonly unknown[];
  readonly components?: readonly unknown[];
}

function readiness(status: Status): HealthAnswer {
  return {
    status: status.health.ready ? "ready" : "not-ready",
    health: status.health.health,
    stage: status.bootstrap.stage,
    reasons: status.health.reasons,
    waitingFor: status.bootstrap.waitingFor,
    components: status.health.components,
  };
}

/** JSON, or one line of text and a line per reason where the reader prefers that. */
function answerHealth(context: Context, answer: HealthAnswer, code: 200 | 503): Response {
  const headers = { "cache-control": "no-store", vary: "accept" };
  if (!prefersText(context.req.header("accept"))) {
    return Response.json(answer, { status: code, headers });
  }
  const lines = [answer.status, ...(answer.reasons ?? []).map((reason) => `- ${reason}`)];
  return new Response(lines.join("\n") + "\n", {
    status: code,
    headers: { ...headers, "content-type": "text/plain; charset=utf-8" },
  });
}

/** Whether an `Accept` header ranks plain text above JSON. */
function prefersText(accept: string | undefined): boolean {
  if (!accept) return false;
  const rank = (type: string) => {
    let best = 0;
    for (const part of accept.slice(0, 1_000).split(",")) {
      const [range = "", ...parameters] = part.split(";").map((text) => text.trim().toLowerCase());
      if (range !== type) continue;
      const quality = parameters.find((text) => text.startsWith("q="));
      best = Math.max(best, quality ? Number(quality.slice(2)) || 0 : 1);
    }
    return best;
  };
  return Math.max(rank("text/plain"), rank("text/*")) > rank("application/json");
}

/** Data of a `page` event: one line of JSON. */
function pageEvent(status: Status): string {
  return JSON.stringify({ html: mainPart(status).text, nowMs: status.nowMs });
}
