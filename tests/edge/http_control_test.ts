/** The app of the unix socket, without the socket. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { readControlRequest } from "../../src/agent/control.ts";
import { createControlApp, type HttpApp } from "../../src/edge/http/app.ts";
import { CONTROL_BODY_BYTES_MAX, type ControlRoutesDeps, type ExecLine } from "../../src/edge/http/control.ts";
import { WireError } from "../../src/core/codec.ts";
import { FixtureSource } from "../testkit/status_fixture.ts";

const JSON_TYPE = { "content-type": "application/json" };

interface Probe extends Disposable {
  readonly app: HttpApp;
  readonly requests: unknown[];
  readonly errors: unknown[][];
}

function probe(over: Partial<ControlRoutesDeps> = {}): Probe {
  const source = new FixtureSource();
  const requests: unknown[] = [];
  const errors: unknown[][] = [];
  const app = createControlApp({
    getStatus: source.getStatus,
    subscribe: source.subscribe,
    control: (request) => {
      requests.push(request);
      return Promise.resolve({ ok: true, result: { got: request } });
    },
    exec: async function* () {
      yield { type: "output", text: "hello" };
      yield { type: "end", code: 0, message: "" };
    },
    logs: { error: (...args) => void errors.push(args) },
    ...over,
  });
  return { app, requests, errors, [Symbol.dispose]: () => app[Symbol.dispose]() };
}

function post(app: HttpApp, path: string, body: BodyInit, headers: HeadersInit = JSON_TYPE): Promise<Response> {
  return app.request(path, { method: "POST", body, headers });
}

async function lines(response: Response): Promise<ExecLine[]> {
  return (await response.text()).split("\n").filter(Boolean).map((line) => JSON.parse(line));
}

Deno.test("POST /control hands over the decoded request and answers with the result", async () => {
  using p = probe();
  const answer = await post(p.app, "/control", '{"verb":"invite-list"}');
  assert.equal(answer.status, 200);
  assert.deepEqual(await answer.json(), { ok: true, result: { got: { verb: "invite-list" } } });
  assert.deepEqual(p.requests, [{ verb: "invite-list" }]);
});

Deno.test("[9.1c] a refusal of the agent keeps its code, message and cure, and its code gives the HTTP status", async () => {
  for (
    const [code, status] of [["not-found", 404], ["exists", 409], ["bad-request", 400], ["stopping", 503], [
      "odd-one",
      422,
    ]] as const
  ) {
    using p = probe({ control: () => Promise.resolve({ ok: false, error: { code, message: "m", cure: "c" } }) });
    const answer = await post(p.app, "/control", "{}");
    assert.equal(answer.status, status, code);
    assert.deepEqual(await answer.json(), { ok: false, error: { code, message: "m", cure: "c" } });
  }
});

Deno.test("[9.1c] an agent that throws is a logged 500, without its words in the answer", async () => {
  using p = probe({ control: () => Promise.reject(new Error("inner words")) });
  const answer = await post(p.app, "/control", "{}");
  assert.equal(answer.status, 500);
  const { error } = await answer.json();
  assert.equal(error.code, "internal");
  assert.ok(!JSON.stringify(error).includes("inner words"));
  assert.ok(error.message.includes((p.errors[0]?.[2] as { id: string }).id));
});

Deno.test("what is not JSON, not said to be JSON, not UTF-8, or too large is refused with a cure and not handed over", async () => {
  using p = probe();
  const cases: readonly (readonly [BodyInit, HeadersInit, number, string])[] = [
    ["{}", { "content-type": "text/plain" }, 415, "bad-content-type"],
    ["{}", { "content-type": "application/jsonp" }, 415, "bad-content-type"],
    [new Uint8Array([123, 125]), {}, 415, "bad-content-type"],
    ["", JSON_TYPE, 400, "bad-json"],
    ["{", JSON_TYPE, 400, "bad-json"],
    ["{}{}", JSON_TYPE, 400, "bad-json"],
    [new Uint8Array([0xff, 0xfe, 0x7b]), JSON_TYPE, 400, "bad-json"],
    ["x".repeat(CONTROL_BODY_BYTES_MAX + 1), JSON_TYPE, 413, "body-too-large"],
    ["{}", { ...JSON_TYPE, origin: "https://evil.example" }, 403, "forbidden"],
  ];
  for (const [body, headers, status, code] of cases) {
    const answer = await post(p.app, "/control", body, headers);
    const { ok, error } = await answer.json();
    assert.deepEqual([answer.status, ok, error.code], [status, false, code]);
    assert.ok(error.message.length > 10 && error.cure.length > 5, code);
  }
  assert.deepEqual(p.requests, []);
  const largest = await post(p.app, "/control", JSON.stringify("x".repeat(CONTROL_BODY_BYTES_MAX - 2)));
  assert.equal(largest.status, 200);
  await largest.body?.cancel();
});

Deno.test("a body without a length is counted as it comes and cut at the bound", async () => {
  using p = probe();
  let sent = 0;
  const endless = new ReadableStream<Uint8Array>({
    pull: (controller) => {
      sent += 65_536;
      controller.enqueue(new Uint8Array(65_536).fill(0x20));
    },
  });
  const answer = await post(p.app, "/control", endless);
  assert.equal(answer.status, 413);
  await answer.body?.cancel();
  assert.ok(sent <= CONTROL_BODY_BYTES_MAX + 4 * 65_536, `${sent} bytes were read`);
});

Deno.test("POST /exec streams lines as they come", async () => {
  let release = () => {};
  const held = new Promise<void>((resolve) => release = resolve);
  using p = probe({
    exec: async function* () {
      yield { type: "output", text: "first" };
      await held;
      yield { type: "output", text: "second" };
      yield { type: "end", code: 3, message: "done" };
    },
  });
  const answer = await post(p.app, "/exec", "{}");
  assert.equal(answer.headers.get("content-type"), "application/x-ndjson");
  const reader = answer.body?.getReader();
  assert.ok(reader);
  const first = await reader.read();
  assert.equal(new TextDecoder().decode(first.value), '{"type":"output","text":"first"}\n');
  release();
  let rest = "";
  for (let read = await reader.read(); !read.done; read = await reader.read()) {
    rest += new TextDecoder().decode(read.value);
  }
  assert.equal(rest, '{"type":"output","text":"second"}\n{"type":"end","code":3,"message":"done"}\n');
});

Deno.test("POST /exec that is refused at once is a plain error with its status", async () => {
  using p = probe({
    exec: async function* () {
      yield { type: "error", code: "not-authorised", message: "No operator key here.", cure: "Run it on attic." };
    },
  });
  const answer = await post(p.app, "/exec", "{}");
  assert.equal(answer.status, 403);
  assert.deepEqual(await answer.json(), {
    ok: false,
    error: { code: "not-authorised", message: "No operator key here.", cure: "Run it on attic." },
  });
});

Deno.test("a command that throws or stops without a word still ends, and not with success", async () => {
  using throwing = probe({
    exec: async function* () {
      yield { type: "output", text: "a" };
      throw new Error("cable pulled");
    },
  });
  const broken = await lines(await post(throwing.app, "/exec", "{}"));
  assert.deepEqual(broken.map((line) => line.type), ["output", "error", "end"]);
  assert.deepEqual(broken.at(-1), { type: "end", code: 1, message: "cable pulled" });

  using silent = probe({ exec: async function* () {} });
  assert.deepEqual(await lines(await post(silent.app, "/exec", "{}")), [
    { type: "end", code: 1, message: "The command ended early." },
  ]);

  using refusing = probe({
    // deno-lint-ignore require-yield
    exec: async function* () {
      throw new Error("at once");
    },
  });
  const answer = await post(refusing.app, "/exec", "{}");
  assert.equal(answer.status, 500);
  await answer.body?.cancel();
});

Deno.test("a slow reader slows the command down, and one that goes ends it", async () => {
  let made = 0;
  let ended = false;
  let signal: AbortSignal | undefined;
  using p = probe({
    exec: async function* (_, _by, given) {
      signal = given;
      try {
        while (true) {
          made++;
          yield { type: "output", text: "x".repeat(1_000) };
        }
      } finally {
        ended = true;
      }
    },
  });
  const answer = await post(p.app, "/exec", "{}");
  const reader = answer.body?.getReader();
  await reader?.read();
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.ok(made <= 3, `${made} lines were made for one that was read`);
  await reader?.cancel();
  assert.ok(ended, "the command's clean-up ran");
  assert.ok(signal?.aborted);
});

Deno.test("POST /shutdown begins the stop; where it is not offered, it says how to stop", async () => {
  let stopped = 0;
  using p = probe({ shutdown: () => void stopped++ });
  const answer = await p.app.request("/shutdown", { method: "POST" });
  assert.deepEqual(await answer.json(), { ok: true, result: null });
  assert.equal(stopped, 1);
  using without = probe();
  const refused = await without.app.request("/shutdown", { method: "POST" });
  assert.equal(refused.status, 501);
  assert.match((await refused.json()).error.cure, /SIGTERM/);
  const get = await p.app.request("/shutdown");
  assert.equal(get.status, 405);
  await get.body?.cancel();
  assert.equal(stopped, 1);
});

Deno.test("GET /logs gives recent lines, as many and as grave as asked for", async () => {
  const asked: unknown[] = [];
  using p = probe({
    recentLogs: (options) => {
      asked.push(options);
      return [{ msg: "a" }, { msg: "b" }];
    },
  });
  assert.equal(await (await p.app.request("/logs?n=2&level=warn")).text(), '{"msg":"a"}\n{"msg":"b"}\n');
  assert.deepEqual(asked, [{ count: 2, level: "warn" }]);
  for (const query of ["n=0", "n=x", "n=1e9", "level=loud", "n=1.5"]) {
    const answer = await p.app.request(`/logs?${query}`);
    assert.equal(answer.status, 400, query);
    await answer.body?.cancel();
  }
});

Deno.test("the control app serves the status routes too, whatever the Host header says", async () => {
  using p = probe();
  const answer = await p.app.request("/status", { headers: { host: "agent.sock" } });
  assert.equal(answer.status, 200);
  await answer.body?.cancel();
});

Deno.test("any JSON is answered with a readable refusal or a result, never with 500: the real parser behind it", async () => {
  using p = probe({
    control: (request) => {
      try {
        return Promise.resolve({ ok: true, result: readControlRequest(request).verb });
      } catch (error) {
        if (!(error instanceof WireError)) throw error;
        return Promise.resolve({
          ok: false,
          error: { code: "bad-request", message: error.message, cure: "See `mycelium --help`." },
        });
      }
    },
  });
  await fc.assert(
    fc.asyncProperty(
      fc.oneof(
        fc.json(),
        fc.record({
          verb: fc.constantFrom("init", "join", "invite-create", "set-mode", "sign-command", "__proto__", "toString"),
        })
          .chain((base) => fc.jsonValue().map((extra) => JSON.stringify({ ...Object(extra), ...base }))),
        fc.string(),
      ),
      async (body) => {
        const answer = await post(p.app, "/control", body);
        const parsed = await answer.json();
        assert.ok([200, 400, 413].includes(answer.status), `${answer.status} for ${body.slice(0, 200)}`);
        assert.equal(parsed.ok, answer.status === 200);
      },
    ),
    { numRuns: 300 },
  );
  assert.deepEqual(p.errors, []);
});
