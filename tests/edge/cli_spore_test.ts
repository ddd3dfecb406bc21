/** `mycelium spore …`: over a real unix socket, against the product's own control app. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { fromBase64Url, fromUtf8, toBase64Url, utf8 } from "../../src/core/bytes.ts";
import { AgentSocket, type AgentSocketOptions, run, type RunOptions, temporaryFolder } from "../testkit/cli.ts";
import { fixtureNodeId, singleNodeStatus } from "../testkit/status_fixture.ts";

const NOW = 1_800_000_000_000;
const author = fixtureNodeId("porch");

const row = (key: string, change: object = {}) => ({
  key,
  tier: "primary",
  state: "live",
  author,
  authorName: "porch",
  seq: NOW - 60_000,
  term: 3,
  index: 41,
  provenUntilMs: NOW + 86_400_000,
  issuedMs: NOW - 60_000,
  expiresMs: NOW + 3_600_000,
  hash: "ab".repeat(32),
  sizeBytes: 5,
  provisional: false,
  ...change,
});

const ROWS = [
  row("app/greeting"),
  row("service/web/a", { tier: "latent", authorName: "attic\u001b[31m", index: undefined }),
  row("service/web/b", { tier: "seed", state: "deleted" }),
  row("service/web/c", { challenger: { ...row("service/web/c"), tier: "latent", confirmation: "denied" } }),
  row("service/web/d", { provisional: true, expiresMs: NOW - 60_000 + 14 * 86_400_000 }),
];

/** Runs a command against an agent that answers so. */
async function against(
  control: NonNullable<AgentSocketOptions["control"]>,
  args: readonly string[],
  options: RunOptions & { readonly files?: Readonly<Record<string, Uint8Array>> } = {},
) {
  using folder = temporaryFolder();
  for (const [name, bytes] of Object.entries(options.files ?? {})) await Deno.writeFile(join(folder.path, name), bytes);
  await using agent = new AgentSocket(folder.path, { status: singleNodeStatus(), control });
  const result = await run(["spore", ...args, "--socket", agent.socket], { cwd: folder.path, ...options });
  return { ...result, requests: agent.requests };
}

const refuse = (code: string, message: string, cure: string) => () =>
  ({ ok: false, error: { code, message, cure } }) as const;

Deno.test("[3.5e] spore list: a table of what lives, page by page; --all, --json, --quiet, --max", async () => {
  const pages = (request: { readonly [field: string]: unknown }) => ({
    ok: true as const,
    result: request.after === undefined
      ? { rows: ROWS.slice(0, 2), after: "service/web/a", nowMs: NOW, from: author }
      : { rows: ROWS.slice(2), nowMs: NOW, from: author },
  });
  const { code, stdout, stderr, requests } = await against(pages, ["list", "se"]);
  assert.equal(code, 0);
  assert.equal(stderr, "");
  assert.deepEqual(requests.map(({ verb, prefix, after }) => [verb, prefix, after]), [
    ["spore-list", "se", undefined],
    ["spore-list", "se", "service/web/a"],
  ]);
  const lines = stdout.trimEnd().split("\n");
  assert.match(lines[0]!, /^KEY +TIER +AUTHOR +SEQ +SIZE +AGE +EXPIRES +STATE$/);
  assert.equal(lines.length, 5, "the deleted one is not shown");
  assert.match(lines[1]!, /^app\/greeting +primary +porch +\d+ +5 B +1m +in 1h +live$/);
  assert.match(stdout, /service\/web\/d .* kept +provisional/);
  assert.match(stdout, /service\/web\/c .*contradicted/);
  assert.match(stdout, /service\/web\/d .*provisional/);
  assert.ok(!stdout.includes("\u001b"), "names from other machines do not steer the terminal");
  assert.match((await against(pages, ["list", "--all"])).stdout, /service\/web\/b .*deleted/);
  const json = JSON.parse((await against(pages, ["list", "--json"])).stdout);
  assert.deepEqual(
    json.rows.map((one: { key: string }) => one.key),
    ROWS.filter((one) => one.state === "live").map((one) => one.key),
  );
  assert.equal((await against(pages, ["ls", "-q"])).stdout.split("\n")[0], "app/greeting");
  const capped = await against(pages, ["list", "--max", "1"]);
  assert.equal(capped.stdout.trimEnd().split("\n").length, 2);
  assert.match(capped.stderr, /more than 1 record/);
  const none = await against(() => ({ ok: true, result: { rows: [], nowMs: NOW, from: author } }), ["list"]);
  assert.match(none.stderr, /mycelium spore put/);
});

Deno.test("spore show: what is known of a record, its value alone, and exit code 1 where it has none", async () => {
  const answer = (change: object) => () => ({
    ok: true as const,
    result: { ...row("app/greeting", change), nowMs: NOW },
  });
  const value = toBase64Url(utf8("hello\n\u001b[31mred"));
  const shown = await against(answer({ value }), ["show", "app/greeting"]);
  assert.equal(shown.code, 0);
  assert.match(shown.stdout, /Tier +primary, term 3 index 41, proven until/);
  assert.match(shown.stdout, /hello\n/);
  assert.ok(!shown.stdout.includes("\u001b"));
  // The value as it is: for a file, not for a terminal.
  assert.equal((await against(answer({ value }), ["show", "app/greeting", "--value"])).stdout, "hello\n\u001b[31mred");
  const doubted = await against(answer({ value, challenger: { ...row("x"), confirmation: "unanswered" } }), [
    "show",
    "x",
  ]);
  assert.match(doubted.stderr, /not used, confirmation unanswered/);
  const deleted = await against(answer({ state: "deleted" }), ["show", "app/greeting"]);
  assert.equal(deleted.code, 1);
  const noValue = await against(answer({ state: "deleted" }), ["show", "app/greeting", "--value", "--json"]);
  assert.equal(JSON.parse(noValue.stdout).error.code, "spore-deleted");
  const binary = await against(answer({ value: toBase64Url(Uint8Array.of(0xff, 0xfe)) }), ["show", "x", "--value"]);
  assert.equal(binary.code, 1);
  assert.match(binary.stderr, /no text: 2 B\n.*base64url/);
  const missing = await against(refuse("not-found", "nothing is known", "List keys: mycelium spore list"), [
    "show",
    "x",
  ]);
  assert.equal(missing.code, 1);
  assert.match(missing.stderr, /mycelium spore list/);
});

Deno.test("spore put and delete: from a word, a file, stdin; conditions, refusals and warnings", async () => {
  const done = (change: object = {}) => () => ({
    ok: true as const,
    result: { key: "app/x", seq: 1, hash: "00", tier: "primary", index: 9, challenges: false, ...change },
  });
  const given = async (args: readonly string[], options: Parameters<typeof against>[2] = {}) => {
    const { code, requests } = await against(done(), ["put", "app/x", ...args], options);
    assert.equal(code, 0);
    const { value, ttlMs, expect } = requests[0]!;
    return [fromUtf8(fromBase64Url(String(value))!), ttlMs, expect];
  };
  assert.deepEqual(await given(["hello"]), ["hello", undefined, undefined]);
  assert.deepEqual(await given(["-", "--ttl", "90s"], { stdin: "from stdin" }), ["from stdin", 90_000, undefined]);
  assert.deepEqual(await given(["--file", "f", "--expect", "0"], { files: { f: utf8("in a file") } }), [
    "in a file",
    undefined,
    0,
  ]);
  assert.deepEqual(await given([""]), ["", undefined, undefined]);
  const written = await against(done(), ["put", "app/x", "v"]);
  assert.match(written.stderr, /the primaries agreed, index 9/);
  const doubted = await against(done({ tier: "latent", index: undefined, challenges: true }), ["put", "app/x", "v"]);
  assert.match(doubted.stderr, /not used until it is confirmed/);
  const removed = await against(done(), ["delete", "app/x", "--expect", "9", "--json"]);
  assert.deepEqual([removed.code, removed.requests[0]!.verb, removed.requests[0]!.expect], [0, "spore-delete", 9]);
  assert.equal(JSON.parse(removed.stdout).index, 9);

  const usage = async (args: readonly string[], options: Parameters<typeof against>[2] = {}) => {
    const { code, requests, stderr } = await against(done(), ["put", "app/x", ...args], options);
    assert.deepEqual([code, requests.length], [2, 0], stderr);
    return stderr;
  };
  assert.match(await usage([]), /wanted a value, or --file/);
  assert.match(await usage(["a", "--file", "b"]), /wanted a value, or --file/);
  assert.match(await usage(["--file", "missing"]), /Cannot read "missing"/);
  assert.match(await usage(["v", "--ttl", "soon"]), /not a duration/);
  assert.match(await usage(["v", "--expect", "-1"]), /whole number/);
  assert.match(await usage(["x".repeat(8_193)]), /at most 8.0 KiB/);
  const denied = await against(refuse("not-allowed", "only the issuers may", "Run it there"), ["put", "net/x", "v"]);
  assert.deepEqual([denied.code, /Run it there/.test(denied.stderr)], [4, true]);
  assert.equal((await against(refuse("conflict", "another version", ""), ["put", "app/x", "v"])).code, 1);
});

Deno.test("spore diff and verify: exit code 1 where something is wrong", async () => {
  const diff = (same: boolean) => () => ({
    ok: true as const,
    result: {
      nodeId: author,
      same,
      differences: same ? [] : [{ key: "app/x", here: row("app/x") }, { key: "app/y", there: row("app/y") }],
      more: 0,
    },
  });
  assert.equal((await against(diff(true), ["diff", "--with", "beta"])).code, 0);
  const differing = await against(diff(false), ["diff", "--with", "beta"]);
  assert.equal(differing.code, 1);
  assert.match(differing.stdout, /app\/x +primary live \d+ by porch +not there\n/);
  assert.equal((await against(diff(true), ["diff"])).code, 2);
  const verify = (bad: readonly string[]) => () => ({ ok: true as const, result: { checked: 12, bad } });
  assert.equal((await against(verify([]), ["verify"])).code, 0);
  const broken = await against(verify(["app/x: proof-forged"]), ["verify"]);
  assert.deepEqual([broken.code, broken.stdout], [1, "app/x: proof-forged\n"]);
});

Deno.test("spore watch: prints what changes until it is interrupted", async () => {
  const stop = new AbortController();
  let looks = 0;
  const states = [
    [row("app/a")],
    [row("app/a", { hash: "cd".repeat(32) }), row("app/b")],
    [row("app/b", { state: "deleted" })],
  ];
  let out = "";
  const { code } = await against(
    () => ({ ok: true, result: { rows: states[Math.min(looks++, 2)]!, nowMs: NOW, from: author } }),
    ["watch", "app/", "--json"],
    {
      signal: stop.signal,
      onOutput: (text) => {
        out += text;
        if (out.split("\n").length > 4) stop.abort();
      },
    },
  );
  assert.equal(code, 0);
  const lines = out.trim().split("\n").map((line) => JSON.parse(line));
  assert.deepEqual(lines.map((one) => [one.key, one.change]), [
    ["app/a", "changed"],
    ["app/b", "new"],
    ["app/b", "deleted"],
    ["app/a", "gone"],
  ]);
});
