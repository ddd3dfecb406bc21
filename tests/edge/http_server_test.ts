/** The servers: real ports on loopback, real unix sockets, real bytes. */

import assert from "node:assert/strict";
import { join } from "node:path";
import fc from "fast-check";
import { createControlApp, createStatusApp } from "../../src/edge/http/app.ts";
import {
  type RunningServer,
  serveControl,
  ServeError,
  serveStatus,
  type ServeStatusOptions,
} from "../../src/edge/http/server.ts";
import { FixtureSource } from "../testkit/status_fixture.ts";

interface Served extends AsyncDisposable {
  readonly server: RunningServer;
  readonly source: FixtureSource;
  readonly errors: unknown[][];
}

function serve(options: Partial<ServeStatusOptions> = {}): Served {
  const source = new FixtureSource();
  const errors: unknown[][] = [];
  const server = serveStatus({
    port: 0,
    app: (guard) =>
      createStatusApp({
        getStatus: source.getStatus,
        subscribe: source.subscribe,
        logs: { error: (...args) => void errors.push(args) },
        ...guard,
      }),
    ...options,
  });
  return { server, source, errors, [Symbol.asyncDispose]: () => server.stop(1_000) };
}

function controlApp() {
  const source = new FixtureSource();
  return createControlApp({
    getStatus: source.getStatus,
    subscribe: source.subscribe,
    control: (request) => Promise.resolve({ ok: true, result: request }),
    exec: async function* () {
      yield { type: "end", code: 0, message: "" };
    },
  });
}

async function folder(): Promise<{ readonly path: string } & AsyncDisposable> {
  const path = await Deno.makeTempDir({ prefix: "mycelium-http-" });
  return { path, [Symbol.asyncDispose]: () => Deno.remove(path, { recursive: true }) };
}

/** Sends bytes and reads until the other end closes, or `ms` have gone. */
async function exchange(port: number, bytes: Uint8Array, ms = 1_000): Promise<string> {
  const connection = await Deno.connect({ hostname: "127.0.0.1", port });
  const timer = setTimeout(() => close(), ms);
  const close = () => {
    try {
      connection.close();
    } catch {
      // Closed already.
    }
  };
  let text = "";
  try {
    for (let sent = 0; sent < bytes.length;) sent += await connection.write(bytes.subarray(sent));
    // Not half-closed: the runtime of the compiled program takes that for a client that has gone.
    const buffer = new Uint8Array(65_536);
    for (let read = await connection.read(buffer); read !== null; read = await connection.read(buffer)) {
      text += new TextDecoder("latin1").decode(buffer.subarray(0, read));
    }
  } catch {
    // Reset by the other end: an answer too.
  } finally {
    clearTimeout(timer);
    close();
  }
  return text;
}

function request(line: string, headers = "host: localhost\r\nconnection: close\r\n"): Uint8Array {
  return new TextEncoder().encode(`${line}\r\n${headers}\r\n`);
}

Deno.test("serveStatus() serves on loopback, and stops with a stream open", async () => {
  const served = serve();
  const { url } = served.server;
  assert.match(url, /^http:\/\/127\.0\.0\.1:\d+$/);
  const answer = await fetch(`${url}/healthz`);
  assert.equal(answer.status, 200);
  await answer.body?.cancel();
  const events = await fetch(`${url}/events`);
  const reader = events.body?.getReader();
  assert.ok(!(await reader?.read())?.done);
  const begin = performance.now();
  await served.server.stop(3_000);
  assert.ok(performance.now() - begin < 2_000, "the stream did not hold it up");
  while (!(await reader?.read())?.done);
  await assert.rejects(fetch(`${url}/healthz`));
  await served.server.stop();
});

Deno.test("[9.1e] serveStatus() lets a request under way finish when it stops", async () => {
  let release = () => {};
  const held = new Promise<void>((resolve) => release = resolve);
  const source = new FixtureSource();
  const server = serveStatus({
    port: 0,
    app: (guard) => {
      const app = createStatusApp({ getStatus: source.getStatus, subscribe: source.subscribe, ...guard });
      return {
        request: app.request.bind(app),
        start: () => {},
        sample: () => {},
        subscribers: 0,
        [Symbol.dispose]: () => app[Symbol.dispose](),
        fetch: async (request) => {
          await held;
          return await app.fetch(request);
        },
      };
    },
  });
  const answer = fetch(`${server.url}/healthz`);
  await new Promise((resolve) => setTimeout(resolve, 50));
  const stopped = server.stop(5_000);
  release();
  assert.equal((await (await answer).json()).status, "alive");
  await stopped;
});

Deno.test("[9.1c] a port that is taken gives an error with the way out, or the next free port", async () => {
  await using first = serve();
  const { port } = first.server;
  assert.throws(() => serve({ port }), (error: unknown) => {
    assert.ok(error instanceof ServeError);
    assert.equal(error.code, "port-taken");
    assert.match(error.message, new RegExp(`Cannot serve status on "127.0.0.1:${port}"`));
    assert.match(error.cure, /--http/);
    return true;
  });
  await using second = serve({ port, whenTaken: "next" });
  assert.notEqual(second.server.port, port);
  const answer = await fetch(`${second.server.url}/healthz`);
  assert.equal(answer.status, 200);
  await answer.body?.cancel();
});

Deno.test("elsewhere than on loopback it refuses to serve without a token of some length and TLS", () => {
  const token = "correct-horse-battery-staple";
  const tls = { cert: "x", key: "y" };
  const cases: readonly (readonly [Partial<ServeStatusOptions>, RegExp])[] = [
    [{ hostname: "0.0.0.0" }, /a bearer token and TLS/],
    [{ hostname: "0.0.0.0", token }, /wanted TLS/],
    [{ hostname: "0.0.0.0", tls }, /wanted a bearer token$/],
    [{ hostname: "::" }, /a bearer token and TLS/],
    [{ hostname: "10.1.2.3" }, /a bearer token and TLS/],
    [{ hostname: "0.0.0.0", token: "short", tls }, /at least 24 characters/],
    [{ hostname: "127.0.0.1", token: "short" }, /at least 24 characters/],
    [{ hostname: "example.com" }, /wanted an IP address/],
    [{ hostname: "0.0.0.0", token, tls }, /Cannot serve status with TLS/],
  ];
  for (const [options, message] of cases) {
    assert.throws(() => serve(options), (error: unknown) => {
      assert.ok(error instanceof ServeError, `${JSON.stringify(options)}: ${error}`);
      assert.match(error.message, message);
      assert.ok(error.cure.length > 20);
      return true;
    });
  }
});

Deno.test("with token and TLS it serves on every address: the page by address, with the token only", async () => {
  const probe = await new Deno.Command("sh", { args: ["-c", "command -v openssl"], stdout: "null" }).output();
  if (!probe.success) {
    console.error("SKIPPED: no openssl on this machine to make a certificate with");
    return;
  }
  await using dir = await folder();
  const at = (name: string) => join(dir.path, name);
  const openssl = async (...args: string[]) => {
    const { success } = await new Deno.Command("openssl", { args, stderr: "null" }).output();
    assert.ok(success, `openssl ${args.join(" ")}`);
  };
  const fresh = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
  await openssl("req", "-x509", ...fresh, "-subj", "/CN=ca", "-keyout", at("ca.key"), "-out", at("ca.pem"));
  await openssl(
    ...["req", "-x509", ...fresh, "-subj", "/CN=node", "-CA", at("ca.pem"), "-CAkey", at("ca.key")],
    ...["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"],
    ...["-keyout", at("node.key"), "-out", at("node.pem")],
  );
  const [ca, cert, key] = await Promise.all(
    ["ca.pem", "node.pem", "node.key"].map((name) => Deno.readTextFile(at(name))),
  );
  const token = "correct-horse-battery-staple";
  await using served = serve({ hostname: "0.0.0.0", token, tls: { cert: cert ?? "", key: key ?? "" } });
  using client = Deno.createHttpClient({ caCerts: [ca ?? ""] });
  const url = `https://127.0.0.1:${served.server.port}/status`;
  const without = await fetch(url, { client });
  assert.equal(without.status, 401);
  await without.body?.cancel();
  const withToken = await fetch(url, { client, headers: { authorization: `Bearer ${token}` } });
  assert.equal(withToken.status, 200);
  await withToken.body?.cancel();
});

Deno.test("serveControl() makes a socket of mode 0660 in a folder of mode 0700, serves, and takes it away", async () => {
  await using dir = await folder();
  const path = join(dir.path, "state", "agent.sock");
  const server = await serveControl({ path, app: controlApp() });
  assert.equal((await Deno.stat(path)).mode! & 0o777, 0o660);
  assert.equal((await Deno.stat(join(dir.path, "state"))).mode! & 0o777, 0o700);
  using client = Deno.createHttpClient({ proxy: { transport: "unix", path } });
  const answer = await fetch("http://agent/control", {
    client,
    method: "POST",
    body: '{"verb":"leave"}',
    headers: { "content-type": "application/json" },
  });
  assert.deepEqual(await answer.json(), { ok: true, result: { verb: "leave" } });
  await server.stop();
  await assert.rejects(Deno.stat(path), Deno.errors.NotFound);
});

Deno.test("serveControl() removes a socket that is left over, but not one that answers, and nothing else", async () => {
  await using dir = await folder();
  const path = join(dir.path, "agent.sock");
  // A socket whose process was killed: the file stays.
  const killed = new Deno.Command(Deno.execPath(), {
    args: ["eval", `Deno.listen({ transport: "unix", path: ${JSON.stringify(path)} }); Deno.kill(Deno.pid, "SIGKILL")`],
    stderr: "null",
  });
  await killed.output();
  assert.ok((await Deno.lstat(path)).isSocket);
  const server = await serveControl({ path, app: controlApp() });
  using unused = controlApp();
  await assert.rejects(serveControl({ path, app: unused }), (error: unknown) => {
    assert.ok(error instanceof ServeError);
    assert.equal(error.code, "socket-taken");
    assert.match(error.cure, /mycelium status/);
    return true;
  });
  await server.stop();

  await Deno.writeTextFile(path, "precious");
  await assert.rejects(serveControl({ path, app: unused }), /something else is there/);
  assert.equal(await Deno.readTextFile(path), "precious");
  await assert.rejects(serveControl({ path: join(dir.path, "x".repeat(120)), app: unused }), /longer than 107 bytes/);
});

Deno.test("serveControl() that stops leaves the socket of a later agent alone", async () => {
  await using dir = await folder();
  const path = join(dir.path, "agent.sock");
  const first = await serveControl({ path, app: controlApp() });
  await Deno.remove(path);
  const second = await serveControl({ path, app: controlApp() });
  await first.stop();
  assert.ok((await Deno.lstat(path)).isSocket);
  await second.stop();
});

Deno.test("a request that is no HTTP is answered 4xx or cut, is never a 500, and the server goes on", async () => {
  await using served = serve();
  const { port } = served.server;
  const cases = [
    request("GET / HTTP/9.9"),
    request("GET  HTTP/1.1"),
    request("\0\0\0\0"),
    request("GET /status HTTP/1.1", "host: localhost\r\ncontent-length: -1\r\n"),
    request("GET /status HTTP/1.1", "host: localhost\r\ncontent-length: 5\r\ncontent-length: 6\r\n"),
    request("GET /status HTTP/1.1", "host: localhost\r\ntransfer-encoding: chunked\r\ncontent-length: 6\r\n"),
    request("GET /status HTTP/1.1", `host: localhost\r\nx: ${"y".repeat(1_000_000)}\r\n`),
    request(`GET /${"a".repeat(100_000)} HTTP/1.1`),
    request("GET /status HTTP/1.1", ""),
    request("GET http://evil.example/status HTTP/1.1"),
    request("GET /status HTTP/1.1", "host: evil.example\r\nconnection: close\r\n"),
    request("CONNECT localhost:1 HTTP/1.1"),
    request("GET //evil.example/status HTTP/1.1"),
    request("GET /%00%ff%2e%2e%2fetc/passwd HTTP/1.1"),
    request("GET /../../../etc/passwd HTTP/1.1"),
    request("OPTIONS * HTTP/1.1"),
    new Uint8Array(100_000).fill(0x41),
  ];
  for (const bytes of cases) {
    const answer = await exchange(port, bytes);
    const status = /^HTTP\/1\.\d (\d{3})/.exec(answer)?.[1];
    assert.ok(status === undefined || (status >= "200" && status < "500"), `${status}: ${answer.slice(0, 200)}`);
    assert.ok(!answer.includes("root:"), "no file");
  }
  const good = await exchange(port, request("GET /healthz HTTP/1.1"));
  assert.match(good, /^HTTP\/1\.1 200/);
  assert.deepEqual(served.errors, []);
});

Deno.test("a Host header of another site is refused by the real server, also when the status was served before", async () => {
  await using served = serve();
  const { port } = served.server;
  const ask = (host: string) =>
    exchange(port, request("GET /status HTTP/1.1", `host: ${host}\r\nconnection: close\r\n`));
  const own = [`127.0.0.1:${port}`, "localhost", `LOCALHOST:${port}`, "[::1]", "a.localhost"];
  for (const host of [...own, ...own]) assert.match(await ask(host), /^HTTP\/1\.1 200/, host);
  for (
    const host of [
      "evil.example",
      `evil.example:${port}`,
      "127.0.0.1.evil.example",
      "localhost.evil.example",
      "evil.example/status",
      "10.0.0.1",
      "a b",
      "127.0.0.1 evil.example",
    ]
  ) {
    assert.match(await ask(host), /^HTTP\/1\.1 4\d\d/, host);
  }
});

Deno.test("random paths, methods and headers are answered without a 500 and without an error of ours", async () => {
  await using served = serve();
  const { port } = served.server;
  const token = fc.string({ minLength: 1, maxLength: 12, unit: fc.constantFrom(..."ABCabc-_!#$%&'*+.^`|~019") });
  await fc.assert(
    fc.asyncProperty(
      fc.oneof(fc.constantFrom("GET", "HEAD", "POST", "get", "TRACE"), token),
      fc.oneof(
        fc.webPath(),
        fc.string({ maxLength: 60 }),
        fc.constantFrom("/", "/status", "/events?view=page&view=x", "/readyz"),
      ),
      fc.array(
        fc.tuple(
          fc.oneof(
            fc.constantFrom("accept", "authorization", "if-none-match", "cookie", "range", "expect", "content-length"),
            token,
          ),
          fc.string({ maxLength: 40 }),
        ),
        { maxLength: 6 },
      ),
      async (method, path, headers) => {
        const text = `${method} ${path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n` +
          headers.map(([name, value]) => `${name}: ${value}\r\n`).join("") + "\r\n";
        // A stream of events does not end by itself.
        const answer = await exchange(port, new TextEncoder().encode(text), 150);
        const status = Number(/^HTTP\/1\.\d (\d{3})/.exec(answer)?.[1] ?? 0);
        assert.ok(status < 500, `${status} for ${JSON.stringify(text)}`);
      },
    ),
    { numRuns: 150 },
  );
  assert.deepEqual(served.errors, []);
  assert.match(await exchange(port, request("GET /healthz HTTP/1.1")), /^HTTP\/1\.1 200/);
});

Deno.test("a server measures how late timers fire, as long as it runs", async () => {
  await using served = serve();
  await new Promise((resolve) => setTimeout(resolve, 1_100));
  const status = await (await fetch(`${served.server.url}/status`)).json();
  // The fixture brings figures of its own; without them the measured ones are shown.
  const { loopLagMs: _, ...process } = served.source.status.process;
  served.source.status = { ...served.source.status, process };
  await new Promise((resolve) => setTimeout(resolve, 300));
  const measured = await (await fetch(`${served.server.url}/status`)).json();
  assert.deepEqual(status.process.loopLagMs, { mean: 0.31, max: 2.2 });
  assert.ok(measured.process.loopLagMs.max >= 0 && measured.process.loopLagMs.mean <= measured.process.loopLagMs.max);
});

Deno.test("a reader that goes in the middle of a stream is forgotten", async () => {
  await using served = serve();
  const abort = new AbortController();
  const answer = await fetch(`${served.server.url}/events`, { signal: abort.signal });
  await answer.body?.getReader().read();
  abort.abort();
  const until = performance.now() + 3_000;
  let text = "";
  while (performance.now() < until) {
    served.source.emit({ type: "status" });
    text = await (await fetch(`${served.server.url}/metrics`)).text();
    if (/^mycelium_http_event_streams 0$/m.test(text)) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assert.fail(text.match(/.*event_streams.*/g)?.join("\n") ?? text);
});
