/** Server-sent events: bounds, replay, backpressure, rhythm. */

import assert from "node:assert/strict";
import { createStatusApp, type HttpApp } from "../../src/edge/http/app.ts";
import type { EventHubOptions } from "../../src/edge/http/events.ts";
import { FixtureSource, singleNodeStatus, troubledStatus } from "../testkit/status_fixture.ts";

/** One event of a stream. */
interface Sse {
  readonly event: string;
  readonly id?: string;
  readonly data: string;
}

class Reader implements AsyncDisposable {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  readonly #decoder = new TextDecoder();
  #text = "";

  constructor(response: Response) {
    assert.equal(response.status, 200);
    assert.equal(response.headers.get("content-type"), "text/event-stream");
    assert.ok(response.body);
    this.#reader = response.body.getReader();
  }

  /** The next event or comment (as event ":"), `undefined` at the end. */
  async next(): Promise<Sse | undefined> {
    while (!this.#text.includes("\n\n")) {
      const { done, value } = await this.#reader.read();
      if (done) return undefined;
      this.#text += this.#decoder.decode(value, { stream: true });
    }
    const end = this.#text.indexOf("\n\n");
    const block = this.#text.slice(0, end);
    this.#text = this.#text.slice(end + 2);
    if (block.startsWith(":")) return { event: ":", data: block };
    const field = (name: string) => new RegExp(`^${name}: ?(.*)$`, "m").exec(block)?.[1];
    const id = field("id");
    return {
      event: field("event") ?? (field("retry") ? "retry" : "message"),
      data: field("data") ?? "",
      ...(id ? { id } : {}),
    };
  }

  async until(event: string): Promise<Sse> {
    for (let read = await this.next(); read; read = await this.next()) if (read.event === event) return read;
    throw new Error(`The stream ended before ${event}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#reader.cancel();
  }
}

function probe(events: EventHubOptions = {}): { readonly app: HttpApp; readonly source: FixtureSource } {
  const source = new FixtureSource();
  return { source, app: createStatusApp({ getStatus: source.getStatus, subscribe: source.subscribe, events }) };
}

function info(event: string) {
  return { type: "event", event: { atMs: 1, level: "info", event, message: event } } as const;
}

Deno.test("/events gives the status at once, and again when it has changed", async () => {
  const { app, source } = probe({ statusMsMin: 20 });
  using _ = app;
  await using reader = new Reader(await app.request("/events"));
  assert.equal((await reader.next())?.event, "retry");
  assert.equal(JSON.parse((await reader.until("status")).data).members.length, 1);
  source.status = troubledStatus();
  source.emit({ type: "status" });
  assert.equal(
    JSON.parse((await reader.until("status")).data).members.length,
    8,
    "the change is in it, not the cached one",
  );
});

Deno.test("/events gives events with ids, and after Last-Event-ID those that were missed", async () => {
  const { app, source } = probe();
  using _ = app;
  let last: string | undefined;
  {
    await using reader = new Reader(await app.request("/events"));
    await reader.until("status");
    source.emit(info("one"));
    last = (await reader.until("event")).id;
  }
  assert.equal(app.subscribers, 0, "a reader that went is forgotten");
  source.emit(info("two"));
  source.emit(info("three"));
  await using reader = new Reader(await app.request("/events", { headers: { "last-event-id": last ?? "" } }));
  assert.equal(JSON.parse((await reader.until("event")).data).event, "two");
  assert.equal(JSON.parse((await reader.until("event")).data).event, "three");
});

Deno.test("an id of another run of the node brings all events of this one, and one too old brings a gap", async () => {
  const { app, source } = probe({ ringMax: 3, queueMax: 10 });
  using _ = app;
  for (let i = 1; i <= 5; i++) source.emit(info(`e${i}`));
  await using other = new Reader(await app.request("/events", { headers: { "last-event-id": "00000000.77" } }));
  assert.deepEqual(JSON.parse((await other.until("gap")).data), { dropped: 2 });
  assert.equal(JSON.parse((await other.until("event")).data).event, "e3");
  for (const id of ["", "junk", "x".repeat(5_000), "00000000.-1", "00000000.99999999999999999999"]) {
    await using reader = new Reader(await app.request("/events", { headers: { "last-event-id": id } }));
    await reader.until("status");
  }
});

Deno.test("a reader that does not read loses the oldest events, is told how many, and gets the newest status", async () => {
  const { app, source } = probe({ queueMax: 4, statusMsMin: 1 });
  using _ = app;
  await using reader = new Reader(await app.request("/events"));
  for (let i = 1; i <= 10; i++) source.emit(info(`e${i}`));
  source.status = troubledStatus();
  assert.deepEqual(JSON.parse((await reader.until("gap")).data).dropped, 10 - 4 + 1, "the retry line took a place");
  assert.equal(JSON.parse((await reader.until("event")).data).event, "e7");
  await reader.until("status");
});

Deno.test("one reader too many is refused with 503 and a cure, until another one goes", async () => {
  const { app } = probe({ subscribersMax: 2 });
  using _ = app;
  await using _first = new Reader(await app.request("/events"));
  {
    await using _second = new Reader(await app.request("/events"));
    const refused = await app.request("/events");
    assert.equal(refused.status, 503);
    assert.equal(refused.headers.get("retry-after"), "10");
    assert.match((await refused.json()).cure, /\/status/);
  }
  await using third = new Reader(await app.request("/events"));
  await third.until("status");
});

Deno.test("a silent stream carries a comment, and a status from time to time although nothing changed", async () => {
  const beats = probe({ heartbeatMs: 30, statusMsMax: 60_000 });
  using _ = beats.app;
  await using reader = new Reader(await beats.app.request("/events"));
  await reader.until("status");
  await reader.until(":");

  const statuses = probe({ statusMsMax: 40, statusMsMin: 10 });
  using __ = statuses.app;
  await using other = new Reader(await statuses.app.request("/events"));
  await other.until("status");
  await other.until("status");
});

Deno.test("many changes at once make few statuses", async () => {
  const { app, source } = probe({ statusMsMin: 50 });
  using _ = app;
  await using reader = new Reader(await app.request("/events"));
  await reader.until("status");
  const asked = source.asked;
  for (let i = 0; i < 1_000; i++) source.emit({ type: "status" });
  await reader.until("status");
  assert.ok(source.asked - asked <= 2, `${source.asked - asked} statuses were built`);
});

Deno.test("/events?view=page gives the page's content as HTML, without the log of events", async () => {
  const { app, source } = probe();
  using _ = app;
  await using reader = new Reader(await app.request("/events?view=page"));
  source.emit(info("hidden"));
  await reader.until("retry");
  const page = await reader.next();
  assert.equal(page?.event, "page");
  const { html, nowMs } = JSON.parse(page?.data ?? "{}");
  assert.match(html, /^<div id="app"/);
  assert.equal(nowMs, singleNodeStatus().nowMs);
});

Deno.test("disposing of the app ends the streams, stops its timers and leaves its source", async () => {
  const { app, source } = probe();
  const reader = new Reader(await app.request("/events"));
  await reader.until("status");
  app[Symbol.dispose]();
  assert.equal(await reader.next(), undefined);
  assert.equal(source.listeners, 0);
  assert.equal((await app.request("/events")).status, 503);
});

Deno.test("a status that cannot be built does not end a stream", async () => {
  const { app, source } = probe({ statusMsMin: 10 });
  using _ = app;
  await using reader = new Reader(await app.request("/events"));
  await reader.until("status");
  const good = source.status;
  source.status = undefined as never;
  source.emit({ type: "status" });
  assert.match((await reader.until(":")).data, /unavailable/);
  source.status = good;
  source.emit({ type: "status" });
  await reader.until("status");
});
