/** The log: schema, secrets, repetition, bounds. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { createLogger, type LoggerOptions, type RootLogger } from "../../src/edge/telemetry/log.ts";
import { isSecretKey, redact, REDACTED } from "../../src/edge/telemetry/redact.ts";

const NOW_MS = Date.UTC(2026, 10, 23, 4, 55, 6, 789);

interface Probe {
  readonly log: RootLogger;
  readonly output: () => string[];
  clock: number;
}

function probe(options: LoggerOptions = {}): Probe {
  const written: string[] = [];
  const result: Probe = {
    clock: NOW_MS,
    output: () => written,
    log: createLogger({
      format: "json",
      now: () => result.clock,
      write: (line) => void written.push(new TextDecoder().decode(line)),
      ...options,
    }),
  };
  return result;
}

Deno.test("[9.1c] a line is one JSON object of the fixed schema, its fields after it", () => {
  const { log, output } = probe();
  log.child("http", { node: "attic" }).warn("slow-answer", "Took long", { ms: 12, path: "/status", absent: undefined });
  assert.deepEqual(output(), [
    '{"ts":"2026-11-23T04:55:06.789Z","level":"warn","component":"http","event":"slow-answer","msg":"Took long",' +
    '"node":"attic","ms":12,"path":"/status"}\n',
  ]);
});

Deno.test("a field cannot take the place of one of the schema", () => {
  const { log, output } = probe();
  log.info("e", "m", { ts: 1, level: "error", msg: "other", event: "x", component: "y" });
  const line = JSON.parse(output()[0] ?? "");
  assert.deepEqual([line.level, line.msg, line.event, line.component], ["info", "m", "e", "agent"]);
  assert.deepEqual([line.level_, line.msg_], ["error", "other"]);
});

Deno.test("lines below the level are not written, and the level can be changed while running", () => {
  const { log, output } = probe({ level: "warn" });
  log.info("a", "a");
  log.error("b", "b");
  assert.equal(output().length, 1);
  log.level = "debug";
  log.child("x").debug("c", "c");
  assert.equal(output().length, 2);
  assert.deepEqual(log.counts.written, { debug: 1, info: 0, warn: 0, error: 1 });
});

Deno.test("[9.1c] secrets are not written, neither under their names nor in the text", () => {
  const { log, output } = probe();
  const token = "myc1" + "q9wPz".repeat(12);
  log.error("join-failed", `Cannot use invite ${token}`, {
    invite: token,
    discoverySecret: "aaaa1111",
    node_seed: new Uint8Array(32).fill(0xab),
    nested: { bearerToken: "bbbb2222", deep: [{ psk: "cccc3333" }] },
    header: "Bearer dddd4444eeee5555",
    error: new Error(`used ${token}`, { cause: { password: "ffff6666" } }),
    inviteId: "c01dbeef",
    tokenCount: 3,
    pem: "-----BEGIN PRIVATE KEY-----\ngggg7777\n-----END PRIVATE KEY-----",
    map: new Map([["secret", "hhhh8888"]]),
  });
  const line = output()[0] ?? "";
  for (
    const secret of [
      "q9wPz",
      "aaaa1111",
      "abab",
      "bbbb2222",
      "cccc3333",
      "dddd4444",
      "ffff6666",
      "gggg7777",
      "hhhh8888",
    ]
  ) {
    assert.ok(!line.includes(secret), secret);
  }
  assert.ok(line.includes("c01dbeef") && line.includes('"tokenCount":3'), "what only names a secret stays");
  assert.ok(!JSON.stringify(log.recent()).includes("q9wPz"), "nor kept");
});

Deno.test("isSecretKey() goes by the words of a name", () => {
  for (
    const key of [
      "secret",
      "clientSecret",
      "SEED",
      "node_seed",
      "invite",
      "inviteToken",
      "x-authorization",
      "privateKey",
      "tokens",
      "Password",
    ]
  ) {
    assert.ok(isSecretKey(key), key);
  }
  for (
    const key of [
      "inviteId",
      "tokenFile",
      "seeds",
      "seedling",
      "secretary",
      "nodeId",
      "invitesMax",
      "seedPath",
      "tokenCount",
    ]
  ) {
    assert.ok(!isSecretKey(key), key);
  }
});

Deno.test("a message forges no second line and moves no cursor of a terminal", () => {
  const evil = 'a\n{"level":"error"}\r\u001b[2J\u009b31m\u202e\u2028b';
  const json = probe();
  json.log.info("e", evil, { [evil]: evil });
  assert.equal((json.output()[0] ?? "").split(/[\n\r\u2028\u0085]/).length, 2, "one line feed, at the end");
  // deno-lint-ignore no-control-regex
  assert.ok(!/[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/.test(json.output()[0] ?? ""));
  assert.equal(JSON.parse(json.output()[0] ?? "").msg, evil);
  const text = probe({ format: "text", colour: false });
  text.log.info("e", evil, { [evil]: evil });
  // deno-lint-ignore no-control-regex
  assert.ok(!/[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e\u2028]/.test(text.output()[0] ?? ""));
});

Deno.test("text for a person holds time, level, component, message and fields; colours only where asked for", () => {
  const plain = probe({ format: "text", colour: false });
  plain.log.child("p2p").warn("dial-failed", "Cannot reach cellar", {
    tries: 3,
    address: "/ip4/10.0.0.1",
    note: "a b",
  });
  assert.deepEqual(plain.output(), [
    '04:55:06.789 WARN  p2p: Cannot reach cellar  dial-failed tries=3 address=/ip4/10.0.0.1 note="a b"\n',
  ]);
  const coloured = probe({ format: "text", colour: true });
  coloured.log.error("e", "m");
  assert.ok((coloured.output()[0] ?? "").includes("\x1b[31m"));
});

Deno.test("lines that repeat are counted, and the count is written when the window ends or the log is flushed", () => {
  const p = probe({ burstMax: 3, windowMs: 1_000 });
  for (let i = 0; i < 100; i++) p.log.warn("beacon-refused", `from ${i}`);
  p.log.warn("other", "still written");
  assert.equal(p.output().length, 4);
  assert.equal(p.log.counts.suppressed, 97);
  p.clock += 1_001;
  p.log.warn("beacon-refused", "next");
  const tail = p.output().slice(-2).map((line) => JSON.parse(line));
  assert.deepEqual([tail[0].suppressed, tail[0].event, tail[1].msg], [97, "beacon-refused", "next"]);
  for (let i = 0; i < 5; i++) p.log.warn("beacon-refused", "x");
  p.log.flush();
  assert.equal(JSON.parse(p.output().at(-1) ?? "").suppressed, 3);
  p.log.flush();
  assert.equal(p.output().filter((line) => line.includes("suppressed")).length, 2, "reported once");
});

Deno.test("a clock that is set back does not silence a kind of line", () => {
  const p = probe({ burstMax: 1, windowMs: 1_000 });
  p.log.info("e", "1");
  p.clock -= 3_600_000;
  p.log.info("e", "2");
  assert.equal(p.output().length, 2);
});

Deno.test("the kinds watched for repetition are bounded, and a forgotten one reports its count", () => {
  const p = probe({ burstMax: 1 });
  p.log.info("first", "m");
  p.log.info("first", "m");
  for (let i = 0; i < 2_000; i++) p.log.info(`kind-${i}`, "m");
  assert.ok(p.output().some((line) => JSON.parse(line).event === "first" && JSON.parse(line).suppressed === 1));
});

Deno.test("recent() gives the newest lines, oldest first, as many and as grave as asked for, and no more than the ring holds", () => {
  const { log } = probe({ ringMax: 10, burstMax: 1_000 });
  for (let i = 0; i < 25; i++) log[i % 5 === 0 ? "error" : "info"](`e${i}`, "m");
  assert.equal(log.recent().length, 10);
  assert.deepEqual(log.recent({ count: 2 }).map((line) => line.event), ["e23", "e24"]);
  assert.deepEqual(log.recent({ level: "error" }).map((line) => line.event), ["e15", "e20"]);
  assert.deepEqual(log.recent({ count: 0 }), []);
});

Deno.test("an output that fails loses the line, counts it, and does not throw", () => {
  const { log } = probe({
    write: () => {
      throw new Deno.errors.WouldBlock("full");
    },
  });
  log.error("e", "m");
  assert.equal(log.counts.lost, 1);
  assert.equal(log.counts.written.error, 0);
  assert.equal(log.recent().length, 1);
});

Deno.test("whatever is logged, a line is one JSON object of at most 16000 characters, and nothing throws", () => {
  const cyclic: Record<string, unknown> = { a: 1 };
  cyclic.self = cyclic;
  const hostile = {
    get boom() {
      throw new Error("boom");
    },
  };
  const odd = [
    cyclic,
    hostile,
    Symbol("s"),
    () => 1,
    10n,
    NaN,
    new Date(NaN),
    new Uint8Array(100_000),
    "x".repeat(1e6),
  ];
  for (const value of odd) {
    const { log, output } = probe();
    log.info("e", "m", { value });
    assert.ok(JSON.parse(output()[0] ?? "").ts);
  }
  fc.assert(
    fc.property(
      fc.string(),
      fc.dictionary(
        fc.string(),
        fc.anything({ withBigInt: true, withMap: true, withTypedArray: true, withSet: true, withDate: true }),
      ),
      (msg, fields) => {
        const { log, output } = probe();
        log.info("event", msg, fields);
        const line = output()[0] ?? "";
        assert.ok(line.length <= 40_000 && line.endsWith("\n") && !line.slice(0, -1).includes("\n"));
        const parsed = JSON.parse(line);
        assert.deepEqual(Object.keys(parsed).slice(0, 5), ["ts", "level", "component", "event", "msg"]);
      },
    ),
    { numRuns: 300 },
  );
  const { log, output } = probe();
  log.info("big", "m", Object.fromEntries(Array.from({ length: 64 }, (_, i) => [`k${i}`, "y".repeat(1_999)])));
  assert.deepEqual(Object.keys(JSON.parse(output()[0] ?? "")).at(-1), "truncatedFrom");
});

Deno.test("redact() cuts what is deep, long or many, and says so", () => {
  assert.deepEqual(redact({ a: { b: { c: { d: { e: { f: 1 } } } } } }), { a: { b: { c: { d: { e: "[deep]" } } } } });
  assert.equal((redact(Array.from({ length: 70 }, (_, i) => i)) as unknown[]).at(-1), "… 6 more");
  assert.match(String(redact("z".repeat(3_000))), /… \(3000 characters\)$/);
  assert.equal((redact({ secret: { any: "thing" } }) as Record<string, unknown>).secret, REDACTED);
});

Deno.test("the log of a process that ends at once is whole: writes are synchronous", async () => {
  const module = new URL("../../src/edge/telemetry/log.ts", import.meta.url).href;
  const code = `import { createLogger } from ${JSON.stringify(module)};
    const log = createLogger({ burstMax: 1e9 });
    for (let i = 0; i < 5000; i++) log.info("line", "x".repeat(200), { i });
    Deno.exit(0);`;
  const { stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["eval", "--ext=ts", code],
    env: { NO_COLOR: "1" },
  }).output();
  const lines = new TextDecoder().decode(stderr).trim().split("\n").filter((line) => line.startsWith("{"));
  assert.equal(lines.length, 5_000);
  assert.equal(JSON.parse(lines.at(-1) ?? "").i, 4_999);
});
