/**
 * Serves the apps: the status app on a TCP port, the control app on a unix socket.
 *
 * @module
 */

import { dirname, join } from "node:path";
import type { HttpApp } from "./app.ts";
import { hostOf, isLoopbackHost, TOKEN_CHARS_MIN } from "./guard.ts";

/** Port of the status endpoint unless another is set. */
export const STATUS_PORT = 4873;

/** Ports tried after the wanted one where that is allowed. */
const NEXT_PORTS = 16;

/** Longest path of a unix socket in bytes: `sun_path` holds 108 with its final zero. */
const SOCKET_PATH_BYTES_MAX = 107;

/** A server that could not be started, with what would cure it. */
export class ServeError extends Error {
  override readonly name = "ServeError";
  /** Stable, lower-case, dashes. */
  readonly code: "port-taken" | "not-protected" | "bad-address" | "socket-taken" | "bad-path" | "bad-certificate";
  /** What a person can do about it. */
  readonly cure: string;

  /** @param options Code, message, cure and cause. */
  constructor(
    options: {
      readonly code: ServeError["code"];
      readonly message: string;
      readonly cure: string;
      readonly cause?: unknown;
    },
  ) {
    super(options.message, "cause" in options ? { cause: options.cause } : undefined);
    this.code = options.code;
    this.cure = options.cure;
  }
}

/** A running server. */
export interface RunningServer {
  /** `http://127.0.0.1:4873`, or the path of the socket. */
  readonly url: string;
  /** Port, or 0 for a socket. */
  readonly port: number;
  /**
   * Ends streams, stops to accept, and waits for requests under way.
   *
   * @param drainMs Longest wait in milliseconds; what is left then is cut. @default 3000
   */
  stop(drainMs?: number): Promise<void>;
}

/** How the status app is served. */
export interface ServeStatusOptions {
  /** Gets what the guards must know, and makes the app. */
  readonly app: (guard: { readonly hosts: readonly string[]; readonly token?: string }) => HttpApp;
  /** IP address. @default "127.0.0.1" */
  readonly hostname?: string;
  /** 0 takes any free port. @default 4873 */
  readonly port?: number;
  /** Where the port is taken: fail, or try the next ones, then any. @default "fail" */
  readonly whenTaken?: "fail" | "next";
  /** Further names under which the page is opened. */
  readonly hosts?: readonly string[];
  /** Bearer token, at least 24 characters. Needed elsewhere than on loopback. */
  readonly token?: string;
  /** Certificate chain and key, PEM. Needed elsewhere than on loopback. */
  readonly tls?: { readonly cert: string; readonly key: string };
}

/**
 * Serves the status app.
 *
 * @throws {ServeError} Where the port is taken, or the address would be open to others without protection.
 */
export function serveStatus(options: ServeStatusOptions): RunningServer {
  const { hostname = "127.0.0.1", port = STATUS_PORT, whenTaken = "fail", hosts = [], token, tls } = options;
  const host = hostOf(hostname.includes(":") ? `[${hostname}]` : hostname);
  if (host === undefined || !/^[0-9.]+$|:/.test(host)) {
    throw new ServeError({
      code: "bad-address",
      message: `Cannot serve status on "${hostname}": wanted an IP address`,
      cure: "Set http.listen (--http) to an address of this machine, for example 127.0.0.1:4873.",
    });
  }
  if (!isLoopbackHost(host)) requireProtection(hostname, token, tls !== undefined);
  if (token !== undefined) requireToken(token);
  const app = options.app({ hosts: [...hosts, hostname], ...(token === undefined ? {} : { token }) });
  try {
    const server = listen(app, { hostname, port, whenTaken, tls });
    const scheme = tls ? "https" : "http";
    const name = hostname.includes(":") ? `[${hostname}]` : hostname;
    return running(app, server, { url: `${scheme}://${name}:${server.addr.port}`, port: server.addr.port });
  } catch (error) {
    app[Symbol.dispose]();
    throw error;
  }
}

/** How the control app is served. */
export interface ServeControlOptions {
  readonly app: HttpApp;
  /** Where the socket is made, at most 107 bytes. Its folder is made, 0700, where there is none. */
  readonly path: string;
  /** Group that may use the socket; nothing happens where the machine has no such group. @default "mycelium" */
  readonly group?: string;
}

/**
 * Serves the control app on a unix socket, 0660.
 *
 * A socket that is left over is removed, but only when nobody answers on it.
 *
 * @throws {ServeError} Where another agent answers on it, or the path cannot be a socket.
 */
export async function serveControl(options: ServeControlOptions): Promise<RunningServer> {
  const { app, path, group = "mycelium" } = options;
  // The runtime removes the path that it listened on when it stops, whoever has it by then. So it listens on a
  // name of its own, which is renamed when owner and mode are right.
  const first = join(dirname(path), `.${Deno.pid}.sock`);
  for (const one of [path, first]) {
    if (new TextEncoder().encode(one).length <= SOCKET_PATH_BYTES_MAX) continue;
    throw new ServeError({
      code: "bad-path",
      message: `Cannot make the control socket "${one}": the path is longer than ${SOCKET_PATH_BYTES_MAX} bytes`,
      cure: "Use a state folder with a shorter path.",
    });
  }
  await Deno.mkdir(dirname(path), { recursive: true, mode: 0o700 });
  await removeStaleSocket(path);
  await removeStaleSocket(first);
  const server = listenUnix(app, first);
  try {
    await Deno.chmod(first, 0o660);
    await giveToGroup(first, group);
    await Deno.rename(first, path);
  } catch (error) {
    await server.shutdown();
    throw error;
  }
  const mine = await Deno.stat(path);
  return running(app, server, {
    url: path,
    port: 0,
    cleanUp: async () => {
      const now = await Deno.stat(path).catch(() => undefined);
      if (now && now.ino === mine.ino && now.dev === mine.dev) await Deno.remove(path).catch(() => {});
    },
  });
}

function listenUnix(app: HttpApp, path: string): Deno.HttpServer<Deno.UnixAddr> {
  // The mode counts from the first moment: others must not connect before chmod.
  const mask = Deno.umask(0o117);
  try {
    return Deno.serve({ path, onListen: () => {}, onError }, (request) => app.fetch(request, "socket"));
  } catch (error) {
    throw new ServeError({
      code: "bad-path",
      message: `Cannot make the control socket "${path}": ${error instanceof Error ? error.message : error}`,
      cure: "Check who owns the state folder and that its disk is not full.",
      cause: error,
    });
  } finally {
    Deno.umask(mask);
  }
}

function requireProtection(hostname: string, token: string | undefined, tls: boolean): void {
  const missing = [token === undefined ? "a bearer token" : "", tls ? "" : "TLS"].filter((part) => part !== "");
  if (missing.length === 0) return;
  throw new ServeError({
    code: "not-protected",
    message: `Cannot serve status on "${hostname}": others can reach that address, wanted ${missing.join(" and ")}`,
    cure: "Set http.tokenFile, http.tlsCert and http.tlsKey, or listen on 127.0.0.1 and use an SSH tunnel.",
  });
}

function requireToken(token: string): void {
  if (token.length >= TOKEN_CHARS_MIN && /^[A-Za-z0-9._~+/=-]+$/.test(token)) return;
  throw new ServeError({
    code: "not-protected",
    message:
      `Cannot serve status with this token: wanted at least ${TOKEN_CHARS_MIN} characters of A-Z a-z 0-9 . _ ~ + / = -`,
    cure: "Make one: head -c 24 /dev/urandom | base64, and put it into the file of http.tokenFile.",
  });
}

interface ListenOptions {
  readonly hostname: string;
  readonly port: number;
  readonly whenTaken: "fail" | "next";
  readonly tls: ServeStatusOptions["tls"];
}

function listen(app: HttpApp, options: ListenOptions): Deno.HttpServer<Deno.NetAddr> {
  const { hostname, port, whenTaken, tls } = options;
  const ports = [port];
  if (whenTaken === "next" && port !== 0) {
    for (let next = port + 1; next <= Math.min(65_535, port + NEXT_PORTS); next++) ports.push(next);
    ports.push(0);
  }
  let taken: unknown;
  for (const candidate of ports) {
    try {
      const base = { hostname, port: candidate, onListen: () => {}, onError };
      return Deno.serve(
        tls ? { ...base, ...tls } : base,
        (request, info) => app.fetch(request, info.remoteAddr.hostname),
      );
    } catch (error) {
      if (error instanceof Deno.errors.AddrInUse) {
        taken = error;
      } else if (error instanceof Deno.errors.AddrNotAvailable) {
        throw new ServeError({
          code: "bad-address",
          message: `Cannot serve status on "${hostname}": no interface of this machine has that address`,
          cure: "Set http.listen (--http) to an address of this machine, for example 127.0.0.1:4873.",
          cause: error,
        });
      } else if (tls && !(error instanceof Deno.errors.PermissionDenied)) {
        throw new ServeError({
          code: "bad-certificate",
          message: `Cannot serve status with TLS: ${error instanceof Error ? error.message : error}`,
          cure: "Check that http.tlsCert and http.tlsKey are PEM files and belong together.",
          cause: error,
        });
      } else {
        throw error;
      }
    }
  }
  throw new ServeError({
    code: "port-taken",
    message: `Cannot serve status on "${hostname}:${port}": another program has the port`,
    cure: `Another node may run here (mycelium status). Else find the program with \`ss -ltnp 'sport = :${port}'\`, ` +
      "or choose another port with --http 127.0.0.1:<port>.",
    cause: taken,
  });
}

/** Only reached when the app itself fails to make an answer, which its own handler is there to prevent. */
function onError(error: unknown): Response {
  console.error("http", error);
  return new Response("internal error\n", { status: 500 });
}

async function removeStaleSocket(path: string): Promise<void> {
  const info = await Deno.lstat(path).catch((error) => {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  });
  if (!info) return;
  if (!info.isSocket) {
    throw new ServeError({
      code: "bad-path",
      message: `Cannot make the control socket "${path}": something else is there, wanted nothing or a socket`,
      cure: "Move it away, or use another state folder.",
    });
  }
  try {
    (await Deno.connect({ transport: "unix", path })).close();
  } catch (error) {
    if (!(error instanceof Deno.errors.ConnectionRefused)) throw error;
    await Deno.remove(path);
    return;
  }
  throw new ServeError({
    code: "socket-taken",
    message: `Cannot make the control socket "${path}": another agent answers on it`,
    cure: "Use that agent (mycelium status), stop it, or use another state folder.",
  });
}

/** Lets the members of a group use the socket; a machine without the group keeps it to its owner. */
async function giveToGroup(path: string, group: string): Promise<void> {
  try {
    const line = (await Deno.readTextFile("/etc/group")).split("\n").find((line) => line.startsWith(`${group}:`));
    const gid = Number(line?.split(":")[2]);
    if (line && Number.isInteger(gid)) await Deno.chown(path, null, gid);
  } catch {
    // Not root and not in the group: the owner alone uses it.
  }
}

function running(
  app: HttpApp,
  server: Deno.HttpServer,
  place: { readonly url: string; readonly port: number; readonly cleanUp?: () => Promise<void> },
): RunningServer {
  app.start();
  let stopped: Promise<void> | undefined;
  const stop = async (drainMs: number) => {
    app[Symbol.dispose]();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<void>((resolve) => timer = setTimeout(resolve, drainMs));
    // An idle connection that a client keeps open ends with the wait, not before.
    await Promise.race([server.shutdown(), late]);
    clearTimeout(timer);
    await place.cleanUp?.();
  };
  return { url: place.url, port: place.port, stop: (drainMs = 3_000) => stopped ??= stop(drainMs) };
}
