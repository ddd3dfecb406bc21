import assert from "node:assert/strict";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { SeedReading } from "../../src/agent/seeds.ts";
import { toHex, utf8 } from "../../src/core/bytes.ts";
import { seededRng } from "../../src/core/rng.ts";
import { nodeIdOf } from "../../src/core/ids.ts";
import {
  type MadeBundle,
  type PublishOutcome,
  SeedPublisher,
  type SeedPublisherOptions,
  type SeedTarget,
} from "../../src/edge/disk/seed_publisher.ts";
import { contentHash, openBundle, sealBundle, spellBundle } from "../../src/spore/seed_bundle.ts";
import { temporaryFolder } from "../testkit/cli.ts";
import { keyOf, NETWORK_ID } from "../identity/fixture.ts";

const DAY = 86_400_000;
const [ALPHA, BETA] = ["alpha", "beta"].map((name) => keyOf(name)) as [
  ReturnType<typeof keyOf>,
  ReturnType<typeof keyOf>,
];

/** Made by the test that runs: their timers end with it. */
const issuers: Issuer[] = [];

Deno.test.afterEach(async () => {
  for (const issuer of issuers.splice(0)) await issuer.publisher.stop();
});

/** An issuer: it makes real bundles of what it knows, and believes those of both issuers. */
class Issuer {
  addresses: string[] = ["/ip4/10.0.0.1/tcp/4871"];
  ahead: string[] = [];
  isIssuer = true;
  seq = 100;
  nowMs = 1_800_000_000_000;
  readonly lines: string[] = [];
  readonly publisher: SeedPublisher;

  constructor(
    targets: readonly Partial<SeedTarget>[],
    readonly key = ALPHA,
    change: Partial<SeedPublisherOptions> = {},
  ) {
    this.publisher = new SeedPublisher({
      targets: targets.map((one) => ({ to: "", kind: "master", everyMs: 60_000, keep: 2, ...one })),
      make: (request) => Promise.resolve(this.make(request)),
      read: (content) => this.read(content),
      turn: () => this.isIssuer ? { ahead: this.ahead } : undefined,
      nameOf: (nodeId) => nodeId === nodeIdOf(ALPHA.publicKey) ? "alpha" : "beta",
      log: (_level, event, message) => void this.lines.push(`${event} ${message}`),
      changed: () => {},
      now: () => this.nowMs,
      rng: seededRng(1),
      timing: { firstMs: 20, retryMs: 20, requestMs: 1_000 },
      ...change,
    });
    issuers.push(this);
  }

  make(request: { readonly unless?: string; readonly above?: number } = {}): MadeBundle | "unchanged" {
    const { nowMs, addresses } = this;
    const what = { kind: "master" as const, networkId: NETWORK_ID, addresses };
    const content = toHex(contentHash({ ...what, epochs: [], records: [] }));
    if (request.unless === content) return "unchanged";
    this.seq = Math.max(this.seq, request.above ?? 0) + 1;
    const manifest = { ...what, seq: this.seq, issuedMs: nowMs, expiresMs: nowMs + 14 * DAY };
    const raw = sealBundle(manifest, { epochs: [], records: [] }, this.key);
    return { text: spellBundle(raw), seq: this.seq, content, renewAtMs: nowMs + 7 * DAY };
  }

  read(content: Uint8Array): SeedReading {
    const opened = openBundle(content, NETWORK_ID);
    if (!opened.ok) return opened;
    const { bundle } = opened;
    const signer = nodeIdOf(bundle.signer);
    if (![ALPHA, BETA].some((one) => nodeIdOf(one.publicKey) === signer)) {
      return { ok: false, reason: "unknown-signer", detail: "a stranger" };
    }
    const { kind, seq, addresses, issuedMs, expiresMs } = bundle;
    const shown = { ok: true, kind, seq, signer, addresses, issuedMs, expiresMs, records: 0 } as const;
    return { ...shown, stale: false, content: toHex(contentHash(bundle)) };
  }

  async look(force = false): Promise<PublishOutcome> {
    return (await this.publisher.publish(force))[0]!;
  }

  /** What a text says, for comparison. */
  said(text: string): readonly [seq: number, signer: string, address: string] {
    const read = this.read(utf8(text));
    assert.ok(read.ok, text.slice(0, 80));
    return [read.seq, read.signer === nodeIdOf(ALPHA.publicKey) ? "alpha" : "beta", read.addresses[0]!];
  }
}

/** A server that keeps what is put there, as WebDAV servers and object stores do. */
class Shelf implements AsyncDisposable {
  body: string | undefined;
  version = 0;
  readonly seen: { readonly method: string; readonly headers: Headers }[] = [];
  /** Answers in the place of the shelf. */
  instead: ((request: Request) => Response | Promise<Response> | undefined) | undefined;
  /** Called before a PUT is looked at. */
  beforePut: (() => void) | undefined;
  readonly #server = Deno.serve(
    { port: 0, hostname: "127.0.0.1", onListen: () => {} },
    (request) => this.#serve(request),
  );

  get url(): string {
    return `http://127.0.0.1:${this.#server.addr.port}/home.seed?key=hush`;
  }

  get etag(): string {
    return `"v${this.version}"`;
  }

  put(body: string): void {
    this.body = body;
    this.version += 1;
  }

  async #serve(request: Request): Promise<Response> {
    const headers = new Headers(request.headers);
    this.seen.push({ method: request.method, headers });
    const given = await this.instead?.(request);
    if (given) return given;
    if (request.method === "GET") {
      if (this.body === undefined) return new Response("no", { status: 404 });
      return new Response(this.body, { headers: { etag: this.etag } });
    }
    if (request.method !== "PUT") return new Response("no", { status: 405 });
    const text = await request.text();
    this.beforePut?.();
    this.beforePut = undefined;
    const match = headers.get("if-match");
    if (headers.get("if-none-match") === "*" && this.body !== undefined) return new Response("", { status: 412 });
    if (match !== null && match !== this.etag) return new Response("", { status: 412 });
    this.put(text);
    return new Response(null, { status: 204, headers: { etag: this.etag } });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.shutdown();
  }
}

Deno.test("[3.2a] [3.2e] a file is written when it is not there, when what is known changes and at half life; older ones stay", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "home.seed");
  const issuer = new Issuer([{ to: path }]);
  const read = (version = "") => Deno.readTextFile(path + version);
  assert.deepEqual((await issuer.look()).published, true);
  const first = await read();
  assert.equal((await Deno.stat(path)).mode! & 0o777, 0o644);
  // The same is known: nothing is written.
  const again = await issuer.look();
  assert.deepEqual([again.published, again.state, again.seq], [false, "ok", 101]);
  assert.equal(await read(), first);
  issuer.addresses = ["/ip4/10.0.0.2/tcp/4871"];
  assert.ok((await issuer.look()).published);
  assert.equal(await read(".1"), first);
  // Half of its life is over.
  issuer.nowMs += 7 * DAY;
  assert.ok((await issuer.look()).published);
  assert.deepEqual(issuer.said(await read())[2], "/ip4/10.0.0.2/tcp/4871");
  assert.equal(await read(".2"), first);
  // Only as many older ones as asked for, and those in order.
  issuer.addresses = ["/ip4/10.0.0.3/tcp/4871"];
  assert.ok((await issuer.look()).published);
  const seqs = await Promise.all(["", ".1", ".2"].map(async (version) => issuer.said(await read(version))[0]));
  assert.deepEqual(seqs, [104, 103, 102]);
  await assert.rejects(Deno.stat(`${path}.3`), Deno.errors.NotFound);
  // What somebody put in its place is replaced, and pushes no older version out.
  await Deno.writeTextFile(path, "garbage");
  assert.ok((await issuer.look()).published);
  assert.deepEqual(issuer.said(await read(".1"))[0], 103);
  // A number that is higher already is exceeded.
  const far = new Issuer([], BETA);
  far.seq = 5_000;
  await Deno.writeTextFile(path, (far.make() as MadeBundle).text);
  assert.ok((await issuer.look()).published);
  assert.equal(issuer.said(await read())[0], 5_002);
  // Nothing half-done lies about.
  const names = [...Deno.readDirSync(folder.path)].map((one) => one.name).sort();
  assert.deepEqual(names, ["home.seed", "home.seed.1", "home.seed.2"]);
});

Deno.test("[3.2e] killed at any step of writing: the file is the old one or the new one, whole, and so are the older versions", async () => {
  using folder = temporaryFolder();
  const child = fileURLToPath(new URL("../testkit/seed_child.ts", import.meta.url));
  const write = (path: string, content: string, diesAt: number) =>
    new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--no-check", child, path, content, "2", String(diesAt)],
      stdout: "piped",
      stderr: "null",
    }).output();
  // A whole run: how many steps there are.
  const probe = join(folder.path, "probe");
  for (const content of ["one", "two"]) await write(probe, content, 99);
  const steps = Number(/steps (\d+)/.exec(new TextDecoder().decode((await write(probe, "three", 99)).stdout))![1]);
  assert.ok(steps >= 5, `${steps} steps`);
  for (let diesAt = 1; diesAt <= steps; diesAt++) {
    const path = join(folder.path, `seed-${diesAt}`);
    await Deno.writeTextFile(path, "newest");
    await Deno.writeTextFile(`${path}.1`, "before");
    await Deno.writeTextFile(`${path}.2`, "long ago");
    assert.equal((await write(path, "next", diesAt)).signal, "SIGKILL");
    const there = await Deno.readTextFile(path);
    assert.ok(there === "newest" || there === "next", `step ${diesAt}: ${there}`);
    for (const version of [".1", ".2"]) {
      const older = await Deno.readTextFile(path + version).catch(() => undefined);
      assert.ok([undefined, "newest", "before", "long ago"].includes(older), `step ${diesAt}: ${version} ${older}`);
    }
    // The next one goes through, whatever was left.
    assert.ok((await write(path, "after", 99)).success);
    assert.equal(await Deno.readTextFile(path), "after");
  }
});

Deno.test("[3.2a] [3.2e] a server gets it by PUT: only where nothing is there, or what was there is what was read", async () => {
  await using shelf = new Shelf();
  const issuer = new Issuer([{ to: shelf.url }]);
  assert.ok((await issuer.look()).published);
  const [, put, back] = shelf.seen;
  assert.deepEqual(shelf.seen.map((one) => one.method), ["GET", "PUT", "GET"]);
  assert.equal(put!.headers.get("if-none-match"), "*");
  assert.equal(back!.method, "GET", "it is read back");
  assert.deepEqual(issuer.said(shelf.body!)[1], "alpha");
  assert.equal((await issuer.look()).published, false);
  issuer.addresses = ["/ip4/10.0.0.2/tcp/4871"];
  assert.ok((await issuer.look()).published);
  assert.equal(shelf.seen.at(-2)!.headers.get("if-match"), '"v1"');
  assert.equal(issuer.said(shelf.body!)[2], "/ip4/10.0.0.2/tcp/4871");
  // The address is shown without what may be a secret in it.
  assert.ok(!JSON.stringify([issuer.publisher.view(), issuer.lines]).includes("hush"));
});

Deno.test("[3.2e] another issuer writes at the same time: the conflict is seen, and what is there then is looked at anew", async () => {
  await using shelf = new Shelf();
  const issuer = new Issuer([{ to: shelf.url }]);
  await issuer.look();
  const other = new Issuer([], BETA);
  other.seq = 500;
  // The other knows the same as we do by now: nothing is left to do.
  issuer.addresses = other.addresses = ["/ip4/10.0.0.2/tcp/4871"];
  shelf.beforePut = () => shelf.put((other.make() as MadeBundle).text);
  const outcome = await issuer.look();
  assert.deepEqual([outcome.published, outcome.state, outcome.seq], [false, "ok", 501]);
  assert.deepEqual(issuer.said(shelf.body!), [501, "beta", "/ip4/10.0.0.2/tcp/4871"]);
  // It knows something else: ours goes over it, with a number that exceeds it.
  issuer.addresses = ["/ip4/10.0.0.3/tcp/4871"];
  other.addresses = ["/ip4/10.0.0.9/tcp/4871"];
  shelf.beforePut = () => shelf.put((other.make() as MadeBundle).text);
  assert.ok((await issuer.look()).published);
  assert.deepEqual(issuer.said(shelf.body!), [503, "alpha", "/ip4/10.0.0.3/tcp/4871"]);
  // Somebody who changes it all the time is a failure, and not an endless loop.
  let n = 0;
  shelf.instead = (request) => {
    if (request.method === "GET") shelf.put(`${(other.make({ above: 1_000 + n++ }) as MadeBundle).text}`);
    return undefined;
  };
  const lost = new Issuer([{ to: shelf.url }]);
  const stale = shelf.etag;
  shelf.instead = (request) => request.method === "PUT" ? new Response("", { status: 412 }) : undefined;
  const failed = await lost.look(true);
  assert.equal(failed.state, "failed");
  assert.match(failed.reason, /at the same time/);
  assert.equal(shelf.etag, stale);
  // WebDAV: the folder is missing.
  shelf.body = undefined;
  shelf.instead = (request) => request.method === "PUT" ? new Response("", { status: 409 }) : undefined;
  assert.match((await lost.look()).reason, /folder is missing/);
});

Deno.test("[3.2e] the first issuer within reach publishes; the others look, and take over when it does not", async () => {
  await using shelf = new Shelf();
  const [alpha, beta] = [new Issuer([{ to: shelf.url }]), new Issuer([{ to: shelf.url }], BETA)];
  beta.ahead = [nodeIdOf(ALPHA.publicKey)];
  const first = await beta.look();
  assert.deepEqual([first.state, first.reason], ["waiting", "alpha comes first"]);
  assert.equal(shelf.body, undefined);
  await alpha.look();
  // Even where they know different things: no back and forth.
  beta.addresses = ["/ip4/10.0.0.7/tcp/4871"];
  for (let i = 0; i < 5; i++) {
    beta.nowMs += 60_000;
    assert.deepEqual([(await beta.look()).published, beta.publisher.view()[0]!.reason], [false, "alpha publishes"]);
  }
  // Alpha is gone: what it left is beta's to keep up to date.
  beta.ahead = [];
  assert.ok((await beta.look()).published);
  assert.equal(beta.said(shelf.body!)[1], "beta");
  // Alpha is back within reach and does not publish (it has no such target): after a while beta does.
  beta.ahead = [nodeIdOf(ALPHA.publicKey)];
  beta.addresses = ["/ip4/10.0.0.8/tcp/4871"];
  assert.equal((await beta.look()).state, "waiting");
  beta.nowMs += 89_000;
  assert.equal((await beta.look()).state, "waiting");
  beta.nowMs += 2_000;
  assert.ok((await beta.look()).published);
  // An operator need not wait.
  beta.addresses = ["/ip4/10.0.0.9/tcp/4871"];
  assert.equal((await beta.look()).published, false);
  assert.ok((await beta.look(true)).published);
  // Where redundancy is wanted nobody waits for anybody.
  await using second = new Shelf();
  const eager = new Issuer([{ to: second.url, redundant: true }], BETA);
  eager.ahead = [nodeIdOf(ALPHA.publicKey)];
  assert.ok((await eager.look()).published);
  // One that is no issuer puts nothing anywhere.
  await using third = new Shelf();
  const member = new Issuer([{ to: third.url }]);
  member.isIssuer = false;
  assert.deepEqual([(await member.look(true)).state, third.seen.length], ["waiting", 0]);
});

Deno.test("[3.2d] a token comes from a file that only its owner may read, goes to the server only, and is never shown", async () => {
  using folder = temporaryFolder();
  await using shelf = new Shelf();
  const tokenFile = join(folder.path, "token");
  const target = { to: shelf.url, tokenFile };
  const issuer = new Issuer([target]);
  const outcome = async (content: string, mode: number) => {
    await Deno.writeTextFile(tokenFile, content, { mode });
    await Deno.chmod(tokenFile, mode);
    const { state, reason } = await issuer.look(true);
    return `${state} ${reason}`;
  };
  assert.match((await issuer.look()).reason, /No such file/);
  assert.match(await outcome("s3cret\n", 0o644), /mode 0600/);
  assert.equal(shelf.seen.length, 0, "nothing left this machine");
  assert.match(await outcome("two\nlines\n", 0o600), /holds no token/);
  assert.equal(await outcome("s3cret\n", 0o600), "ok ");
  assert.ok(shelf.seen.every((one) => one.headers.get("authorization") === "Bearer s3cret"));
  assert.equal(await outcome("Basic czNjcmV0\n", 0o600), "ok ");
  assert.equal(shelf.seen.at(-1)!.headers.get("authorization"), "Basic czNjcmV0");
  assert.ok(!JSON.stringify([issuer.publisher.view(), issuer.lines]).includes("s3cret"));
  // Over plain HTTP to another machine it would be anybody's; nothing is even looked up.
  const far = new Issuer([{ to: "http://192.0.2.1/home.seed", tokenFile }]);
  assert.match((await far.look()).reason, /https only/);
  // A server that sends elsewhere gets no second request with it.
  await using thief = new Shelf();
  shelf.instead = () => new Response(null, { status: 307, headers: { location: thief.url } });
  const sent = await issuer.look(true);
  assert.match(sent.reason, /sends elsewhere/);
  assert.equal(thief.seen.length, 0);
});

Deno.test("[3.2e] one target that is slow, full, lying or gone holds up no other, and is tried again ever more slowly", async () => {
  using folder = temporaryFolder();
  await using slow = new Shelf();
  await using liar = new Shelf();
  await using full = new Shelf();
  await using huge = new Shelf();
  const gone = new Shelf();
  const goneUrl = gone.url;
  await gone[Symbol.asyncDispose]();
  const release = Promise.withResolvers<void>();
  slow.instead = () => release.promise.then(() => new Response("late"));
  liar.instead = (request) => request.method === "PUT" ? new Response("yes", { status: 200 }) : undefined;
  full.instead = (request) => request.method === "PUT" ? new Response("", { status: 507 }) : undefined;
  huge.instead = () =>
    new Response(
      new ReadableStream({ pull: (controller) => controller.enqueue(new Uint8Array(65_536).fill(65)) }),
    );
  const path = join(folder.path, "home.seed");
  const issuer = new Issuer([slow.url, liar.url, full.url, huge.url, goneUrl, join(folder.path, "none", "x"), path]
    .map((to) => ({ to })));
  issuer.publisher.start();
  try {
    const startedAt = performance.now();
    while (!(await Deno.stat(path).catch(() => undefined))) await new Promise((resolve) => setTimeout(resolve, 10));
    assert.ok(performance.now() - startedAt < 900, "the good one is there while the slow one still waits");
    const reasons = [
      "does not answer in time",
      "gives out nothing",
      "507",
      "more than",
      "cannot be reached",
      "No such file",
    ];
    const settled = () => issuer.publisher.view().every((one, i) => i === 6 ? one.state === "ok" : one.failures >= 2);
    const endsAt = performance.now() + 10_000;
    while (!settled() && performance.now() < endsAt) await new Promise((resolve) => setTimeout(resolve, 20));
    const view = issuer.publisher.view();
    for (const [i, wanted] of reasons.entries()) {
      assert.equal(view[i]!.state, "failed");
      assert.ok(view[i]!.reason.includes(wanted), `${i}: ${view[i]!.reason}`);
      assert.ok(view[i]!.failures >= 2);
    }
    // Said once each, and not with every try.
    assert.equal(issuer.lines.filter((line) => line.startsWith("seed-publish-failed")).length, 6);
    // The server has room again.
    full.instead = undefined;
    while (issuer.publisher.view()[2]!.state !== "ok") {
      assert.ok(performance.now() < endsAt + 10_000);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    assert.equal(issuer.publisher.view()[2]!.failures, 0);
  } finally {
    release.resolve();
    await issuer.publisher.stop();
  }
});

Deno.test("[3.2a] a command gets the bundle on stdin, without a shell and without our own variables; its end is what counts", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "out");
  const script = join(folder.path, "put.sh");
  await Deno.writeTextFile(
    script,
    `#!/bin/sh\ncat > "$1"\nenv > "$1.env"\n[ -z "$2" ] || { echo "quota: $2" >&2; exit 3; }\n`,
  );
  await Deno.chmod(script, 0o700);
  Deno.env.set("MYCELIUM_INVITE_TEST", "hush");
  try {
    const issuer = new Issuer([{ to: { command: [script, path] } }]);
    assert.ok((await issuer.look()).published);
    assert.equal(issuer.said(await Deno.readTextFile(path))[1], "alpha");
    assert.ok(!(await Deno.readTextFile(`${path}.env`)).includes("MYCELIUM_INVITE_TEST"));
    // It cannot be looked at: what was put there last has to do.
    assert.equal((await issuer.look()).published, false);
    issuer.nowMs += 7 * DAY + 1;
    assert.ok((await issuer.look()).published);
    const failing = new Issuer([{ to: { command: [script, path, "$(reboot) full"] } }]);
    const { state, reason } = await failing.look();
    assert.equal(`${state}: ${reason}`, "failed: it ended with 3: quota: $(reboot) full");
    assert.equal(failing.publisher.view()[0]!.to, `command ${script}`, "arguments may be secret");
    const missing = await new Issuer([{ to: { command: [join(folder.path, "none")] } }]).look();
    assert.equal(missing.state, "failed");
    const hanging = await new Issuer([{ to: { command: ["sleep", "60"] } }], ALPHA, {
      timing: { firstMs: 1, retryMs: 1, requestMs: 300 },
    }).look();
    assert.equal(hanging.state, "failed");
  } finally {
    Deno.env.delete("MYCELIUM_INVITE_TEST");
  }
});
