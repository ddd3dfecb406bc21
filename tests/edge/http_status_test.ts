/** The read-only app, without a socket. */

import assert from "node:assert/strict";
import type { Status } from "../../src/agent/status.ts";
import { createStatusApp, type HttpApp } from "../../src/edge/http/app.ts";
import { StatusView } from "../../src/edge/http/view.ts";
import {
  fixtureNodeId,
  FixtureSource,
  isolatedStatus,
  singleNodeStatus,
  troubledStatus,
} from "../testkit/status_fixture.ts";

interface Probe extends Disposable {
  readonly app: HttpApp;
  readonly source: FixtureSource;
  readonly errors: unknown[][];
}

function probe(status?: Status, clock?: () => number): Probe {
  const source = new FixtureSource(status);
  const errors: unknown[][] = [];
  const app = createStatusApp({
    getStatus: source.getStatus,
    subscribe: source.subscribe,
    logs: { error: (...args) => void errors.push(args) },
    ...(clock ? { clock } : {}),
  });
  return { app, source, errors, [Symbol.dispose]: () => app[Symbol.dispose]() };
}

Deno.test("GET /healthz says that the process answers, as JSON or as text", async () => {
  using p = probe(isolatedStatus());
  const json = await p.app.request("/healthz");
  assert.equal(json.status, 200);
  assert.deepEqual(await json.json(), { status: "alive" });
  const text = await p.app.request("/healthz", { headers: { accept: "text/plain" } });
  assert.equal(await text.text(), "alive\n");
});

Deno.test("[9.1d] GET /readyz is 200 when ready, and 503 with reasons, stage and what is waited for when not", async () => {
  using ready = probe(singleNodeStatus());
  const good = await ready.app.request("/readyz");
  assert.equal(good.status, 200);
  assert.equal((await good.json()).status, "ready");

  using alone = probe(isolatedStatus());
  const bad = await alone.app.request("/readyz");
  assert.equal(bad.status, 503);
  const body = await bad.json();
  assert.equal(body.status, "not-ready");
  assert.equal(body.stage, "isolated");
  assert.deepEqual(body.reasons, ["join: nobody answers at any known address"]);
  assert.equal(body.waitingFor[0].code, "no-candidate-answers");
  assert.equal(body.components.find((one: { name: string }) => one.name === "membership").health, "failed");

  const text = await alone.app.request("/readyz", { headers: { accept: "text/plain, application/json;q=0.5" } });
  assert.equal(text.status, 503);
  assert.equal(await text.text(), "not-ready\n- join: nobody answers at any known address\n");
});

Deno.test("GET /readyz answers JSON to a browser and to curl", async () => {
  using p = probe();
  for (
    const accept of [
      "*/*",
      "text/html,application/xhtml+xml,*/*;q=0.8",
      "text/plain;q=0.2, application/json",
      ";;,q=",
      "text/*;q=zero",
    ]
  ) {
    const answer = await p.app.request("/readyz", { headers: { accept } });
    assert.match(answer.headers.get("content-type") ?? "", /^application\/json/, accept);
    await answer.body?.cancel();
  }
});

Deno.test("[11.1e] GET /status of one node alone holds identity, stage, f = 0 and the plots' history", async () => {
  using p = probe(singleNodeStatus());
  const answer = await p.app.request("/status");
  assert.equal(answer.headers.get("content-type"), "application/json");
  const status: Status = await answer.json();
  assert.equal(status.node.nodeId, fixtureNodeId("attic"));
  assert.equal(status.bootstrap.stage, "verified");
  assert.equal(status.tolerance.crashFaults, 0);
  assert.match(status.tolerance.note, /f = 0/);
  assert.equal(status.history?.length, 61);
});

Deno.test("GET /status is built once in 250 ms and tagged; the tag answers 304 until it is built again", async () => {
  let now = 1_000;
  using p = probe(singleNodeStatus(), () => now);
  const first = await p.app.request("/status");
  const tag = first.headers.get("etag") ?? "";
  await first.body?.cancel();
  now += 200;
  const again = await p.app.request("/status", { headers: { "if-none-match": tag } });
  assert.equal(again.status, 304);
  assert.equal(again.headers.get("etag"), tag);
  assert.equal(p.source.asked, 1);
  for (const tags of [`W/${tag}`, `"x", ${tag}`]) {
    assert.equal((await p.app.request("/status", { headers: { "if-none-match": tags } })).status, 304, tags);
  }

  now += 60;
  p.source.status = troubledStatus();
  const fresh = await p.app.request("/status", { headers: { "if-none-match": tag } });
  assert.equal(fresh.status, 200);
  assert.notEqual(fresh.headers.get("etag"), tag);
  assert.equal((await fresh.json() as Status).members.length, 8);
  assert.equal(p.source.asked, 2);
});

Deno.test("a status that takes long to build is built more seldom: a large network keeps the CPU", () => {
  let now = 0;
  const source = new FixtureSource();
  const view = new StatusView({
    getStatus: () => {
      now += 100;
      return source.getStatus();
    },
    subscribe: source.subscribe,
  }, { clock: () => now });
  view.status();
  for (let elapsed = 0; elapsed < 1_900; elapsed += 100) {
    view.status();
    now += 100;
  }
  assert.equal(source.asked, 1);
  now += 200;
  view.status();
  assert.equal(source.asked, 2);
});

Deno.test("the history takes one sample in five seconds, at most 61, and starts again when the clock is set back", () => {
  let clock = 0;
  const { history: _, ...plain } = singleNodeStatus(0);
  let nowMs = 1_000_000;
  const view = new StatusView({ getStatus: () => ({ ...plain, nowMs }), subscribe: () => () => {} }, {
    clock: () => clock,
  });
  for (let second = 0; second < 1_000; second++) {
    view.sample();
    clock += 1_000;
    nowMs += 1_000;
  }
  const samples = view.status().history ?? [];
  assert.equal(samples.length, 61);
  assert.equal((samples.at(-1)?.atMs ?? 0) - (samples[0]?.atMs ?? 0), 300_000);
  nowMs -= 500_000;
  clock += 1_000;
  assert.equal(view.status().history?.length, 1);
});

Deno.test("HEAD is answered like GET without a body, on /events too, where it opens no stream", async () => {
  using p = probe();
  for (const path of ["/", "/healthz", "/status", "/metrics", "/openapi.json", "/events"]) {
    const answer = await p.app.request(path, { method: "HEAD" });
    assert.equal(answer.status, 200, path);
    assert.equal(await answer.text(), "", path);
  }
  assert.equal(p.app.subscribers, 0);
});

Deno.test("[9.1c] another path is 404 and another method 405, as problem documents with cause and cure", async () => {
  using p = probe();
  const missing = await p.app.request("/nothing/here?x=1");
  assert.equal(missing.status, 404);
  assert.equal(missing.headers.get("content-type"), "application/problem+json");
  const problem = await missing.json();
  assert.equal(problem.type, "urn:mycelium:problem:not-found");
  assert.match(problem.cause, /\/nothing\/here/);
  assert.match(problem.cure, /\/status/);

  for (const method of ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"]) {
    const answer = await p.app.request("/status", { method });
    assert.equal(answer.status, 405, method);
    assert.equal(answer.headers.get("allow"), "GET, HEAD");
    assert.match((await answer.json()).cause, new RegExp(method));
  }
  const control = await p.app.request("/control", { method: "POST" });
  assert.equal(control.status, 404);
  await control.body?.cancel();
});

Deno.test("[9.1c] a status that cannot be built is a logged 500 with an id and a cure, not a crash", async () => {
  using p = probe();
  p.source.status = new Proxy(singleNodeStatus(), {
    get: (_, key) => {
      throw new Error(`Cannot read ${String(key)}`);
    },
  });
  for (const path of ["/status", "/readyz", "/metrics", "/"]) {
    const answer = await p.app.request(path);
    assert.equal(answer.status, 500, path);
    const problem = await answer.json();
    assert.equal(problem.code, "internal");
    assert.ok(!JSON.stringify(problem).includes("Cannot read"), "the cause stays in the log");
    const [event, , fields] = p.errors.shift() ?? [];
    assert.equal(event, "http-error");
    assert.ok(problem.cause.includes((fields as { id: string }).id));
  }
  assert.equal((await p.app.request("/healthz")).status, 200);
});

Deno.test("a log that throws does not keep the answer back", async () => {
  const source = new FixtureSource();
  using app = createStatusApp({
    getStatus: () => {
      throw new Error("no status");
    },
    subscribe: source.subscribe,
    logs: {
      error: () => {
        throw new Error("no log");
      },
    },
  });
  const silenced = console.error;
  console.error = () => {};
  try {
    assert.equal((await app.request("/status")).status, 500);
    app.sample();
  } finally {
    console.error = silenced;
  }
});

Deno.test("every answer forbids sniffing, framing and reading by other origins", async () => {
  using p = probe();
  for (const path of ["/", "/status", "/healthz", "/metrics", "/openapi.json", "/none"]) {
    const { headers, body } = await p.app.request(path);
    assert.equal(headers.get("x-content-type-options"), "nosniff", path);
    assert.equal(headers.get("cross-origin-resource-policy"), "same-origin", path);
    assert.match(headers.get("content-security-policy") ?? "", /default-src 'none';.*frame-ancestors 'none'/, path);
    if (path === "/") assert.equal(headers.get("referrer-policy"), "no-referrer");
    assert.equal(headers.get("access-control-allow-origin"), null, path);
    await body?.cancel();
  }
});

Deno.test("a Host header of another site is refused with 421: DNS rebinding", async () => {
  using p = probe();
  for (const host of ["127.0.0.1:4873", "localhost", "LOCALHOST:4873", "[::1]:4873", "127.8.9.1", "node.localhost"]) {
    const answer = await p.app.request("/status", { headers: { host } });
    assert.equal(answer.status, 200, host);
    await answer.body?.cancel();
  }
  for (
    const host of [
      "evil.example",
      "127.0.0.1.evil.example",
      "localhost.evil.example:4873",
      "10.0.0.1",
      "a b",
      "",
      "[::1",
      "x".repeat(3_000),
    ]
  ) {
    const answer = await p.app.request("/status", { headers: { host } });
    assert.equal(answer.status, 421, host);
    assert.match((await answer.json()).cure, /127\.0\.0\.1/);
  }
});

Deno.test("the second request for the status takes a shorter way to the same answer, and to the same refusals", async () => {
  using p = probe(troubledStatus());
  const answers = [await p.app.request("/status"), await p.app.request("/status"), await p.app.request("/status")];
  const bodies = await Promise.all(answers.map((answer) => answer.text()));
  const headers = answers.map((answer) => JSON.stringify([...answer.headers]));
  assert.equal(new Set(bodies).size, 1);
  assert.equal(new Set(headers).size, 1);
  assert.ok(/^[\x20-\x7e]+\n$/.test(bodies[0] ?? ""), "ASCII, whatever the names are");
  assert.equal((await p.app.request("http://evil.example/status")).status, 421);
  assert.equal((await p.app.request("/status", { method: "POST" })).status, 405);
  assert.equal((await p.app.request("/status", { method: "HEAD" })).status, 200);
  assert.match(await (await p.app.request("/metrics")).text(), /route="\/status",code="200"} 4\n/);
});

Deno.test("a token is asked for by every route, and taken as Bearer or as the password of Basic", async () => {
  const source = new FixtureSource();
  const token = "correct-horse-battery-staple";
  using app = createStatusApp({ getStatus: source.getStatus, subscribe: source.subscribe, token });
  const ask = async (path: string, authorization?: string) => {
    const answer = await app.request(path, authorization === undefined ? {} : { headers: { authorization } });
    await answer.body?.cancel();
    return answer;
  };
  for (const path of ["/", "/healthz", "/readyz", "/status", "/metrics", "/events", "/openapi.json", "/none"]) {
    assert.equal((await ask(path)).status, 401, path);
  }
  assert.match((await ask("/")).headers.get("www-authenticate") ?? "", /Bearer.*Basic/);
  for (
    const wrong of [
      "Bearer x",
      `Bearer ${token}x`,
      `bearer ${token.slice(1)}`,
      "Basic !!!!",
      `Digest ${token}`,
      `Basic ${btoa("u:x")}`,
    ]
  ) {
    assert.equal((await ask("/status", wrong)).status, 401, wrong);
  }
  assert.equal((await ask("/status", `Bearer ${token}`)).status, 200);
  assert.equal((await ask("/status", `Bearer ${token}`)).status, 200);
  assert.equal((await ask("/status")).status, 401, "also after it was served to others");
  assert.equal((await ask("/", `Basic ${btoa(`me:${token}`)}`)).status, 200);
});

Deno.test("names with markup in them stay text on the page", async () => {
  const evil = `<script>alert(1)</script>"'\`&`;
  const status = troubledStatus();
  using p = probe({
    ...status,
    node: { ...status.node, name: evil },
    network: status.network && { ...status.network, name: evil },
    members: status.members.map((member) => ({ ...member, name: evil, version: evil, pool: evil })),
    pending: status.pending.map((one) => ({ ...one, name: evil, nodeId: evil, address: evil })),
    refusals: { [evil]: 1 },
    events: [{ atMs: 1, level: "info", event: evil, message: evil }],
    health: { ...status.health, reasons: [evil] },
  } as Status);
  const page = await (await p.app.request("/")).text();
  assert.ok(!page.includes("<script>alert"), "no element");
  assert.equal(page.match(/<script/g)?.length, 1, "one script: ours");
  assert.ok(!/=\s*"[^"]*<script/.test(page), "no attribute");
});

Deno.test("the page allows only what carries its nonce, and the nonce is new each time", async () => {
  using p = probe();
  const nonces = new Set<string>();
  for (let i = 0; i < 3; i++) {
    const answer = await p.app.request("/");
    const policy = answer.headers.get("content-security-policy") ?? "";
    const nonce = /script-src 'nonce-([0-9a-f]{32})'/.exec(policy)?.[1] ?? "none";
    const page = await answer.text();
    assert.ok(page.includes(`<script nonce="${nonce}">`) && page.includes(`<style nonce="${nonce}">`));
    assert.ok(!/unsafe-inline|unsafe-eval|\*/.test(policy));
    assert.ok(!/ style="| on[a-z]+="/.test(page), "neither inline styles nor inline handlers");
    assert.ok(!/(src|href)="(https?:)?\/\//.test(page), "nothing from elsewhere");
    nonces.add(nonce);
  }
  assert.equal(nonces.size, 3);
});

Deno.test("[11.1e] the page without its script says who, where, how, what is waited for and what would cure it", async () => {
  using alone = probe(singleNodeStatus());
  const single = await (await alone.app.request("/")).text();
  for (
    const text of [
      "home",
      "attic",
      "Sclerotium",
      "Ready",
      "One node alone: f = 0",
      "f = 0",
      "mycelium invite create",
      "verified",
    ]
  ) {
    assert.ok(single.toLowerCase().includes(text.toLowerCase()), text);
  }
  using many = probe(troubledStatus());
  const page = await (await many.app.request("/")).text();
  const newcomer = fixtureNodeId("porch-camera").slice(-8);
  for (
    const text of [
      "Ready, with trouble",
      "van-2",
      "suspect",
      "dead",
      "left",
      `mycelium node approve ${newcomer}`,
      "beacon-bad-mac",
      "c01dbeef",
      "Check that the machine has power",
      "seed-http answers 502",
      "/ip4/10.20.0.77/udp/4871/quic-v1",
      "member-suspect",
      "0.59 ms",
    ]
  ) assert.ok(page.includes(text), text);
  using lost = probe(isolatedStatus());
  const isolated = await (await lost.app.request("/")).text();
  for (
    const text of ["Not ready", "No network yet", "Waiting for", "one of 2 known addresses to answer", "force-endpoint"]
  ) {
    assert.ok(isolated.includes(text), text);
  }
});

Deno.test("the page stays small with ten thousand members, and says how many it does not show", async () => {
  const status = troubledStatus();
  const [first] = status.members;
  assert.ok(first);
  const members = Array.from(
    { length: 10_000 },
    (_, index) => ({ ...first, nodeId: fixtureNodeId(`m${index}`), state: "alive" as const, name: `m${index}` }),
  );
  using p = probe({ ...status, members });
  const page = await (await p.app.request("/")).text();
  assert.ok(page.length < 400_000, `${page.length} characters`);
  assert.match(page, /and 9\u202f900 more in/);
});

Deno.test("[3.5e] GET /spores lists records page by page, and says what a query wants", async () => {
  const source = new FixtureSource();
  const asked: unknown[] = [];
  const page = { rows: [{ key: "service/web/a" }], after: "service/web/a" };
  using app = createStatusApp({
    getStatus: source.getStatus,
    subscribe: source.subscribe,
    listSpores: (query) => {
      asked.push(query);
      return page;
    },
  });
  const answer = await app.request("/spores?prefix=service/&after=app/x&max=7");
  assert.equal(answer.status, 200);
  assert.deepEqual(await answer.json(), page);
  await (await app.request("/spores")).body?.cancel();
  assert.deepEqual(asked, [{ prefix: "service/", after: "app/x", max: 7 }, { prefix: "", max: 1_000 }]);
  for (const query of ["max=0", "max=1001", "max=x", `prefix=${"a".repeat(201)}`]) {
    const refused = await app.request(`/spores?${query}`);
    assert.equal(refused.status, 400, query);
    assert.equal((await refused.json()).code, "bad-query");
  }
  assert.equal(asked.length, 2);
});
