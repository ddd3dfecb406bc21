import assert from "node:assert/strict";
import { exportSeed, SEED_BYTES_MAX, type SeedDocument } from "../../src/bootstrap/seed_document.ts";
import { toHex } from "../../src/core/bytes.ts";
import { nodeIdOf } from "../../src/core/ids.ts";
import { type DiscoveryOptions, writeSeedFile } from "../../src/edge/discovery/mod.ts";
import { keyPair, makeNode, NETWORK, seedReader, type TestNode, until, withNodes } from "./discovery_kit.ts";

const ISSUER = keyPair(50);
const STRANGER = keyPair(51);

function document(seq: number, change: Partial<SeedDocument> = {}): SeedDocument {
  return {
    networkId: NETWORK,
    addresses: [`/ip4/8.8.4.${seq}/udp/4871/quic-v1/p2p/${nodeIdOf(keyPair(7).publicKey)}`],
    issuedMs: Date.now(),
    expiresMs: Date.now() + 3_600_000,
    seq,
    ...change,
  };
}

function seedNode(options: Partial<DiscoveryOptions>): TestNode {
  return makeNode(1, {
    openSeed: seedReader(ISSUER.publicKey, NETWORK),
    timing: { httpBaseMs: 100, httpMaxMs: 200, fileBaseMs: 100, fileMaxMs: 200, httpTimeoutMs: 1_000 },
    ...options,
  });
}

/** An HTTP server on loopback. */
function serve(handler: (request: Request, path: string) => Response | Promise<Response>) {
  const requests: { readonly ifNoneMatch: string | null }[] = [];
  const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen: () => {} }, (request) => {
    // Read now: an older runtime drops the headers with the answer.
    requests.push({ ifNoneMatch: request.headers.get("if-none-match") });
    return handler(request, new URL(request.url).pathname);
  });
  return { url: `http://127.0.0.1:${server.addr.port}`, requests, stop: () => server.shutdown() };
}

function seqs(node: TestNode): number[] {
  return [...new Set(node.candidates.map((one) => Number(/8\.8\.4\.(\d+)/.exec(one.address)![1])))];
}

const settled = (node: TestNode) =>
  node.reports.some((one) => one.source === "seed-http" && one.state !== "asking" && one.detail !== "");

Deno.test("[1.1e] a seed file alone gives candidates; a new one replaces it; a bad one does no harm", async () => {
  const dir = await Deno.makeTempDir();
  const path = `${dir}/seed.txt`;
  const node = seedNode({ seedFiles: [path, `${dir}/absent`] });
  try {
    await withNodes([node], async () => {
      await until("a missing file is reported", () => node.reports.some((one) => one.state === "failed"));
      await writeSeedFile(path, document(4), ISSUER);
      await until("the file is found", () => node.candidates.length > 0);
      assert.equal(node.candidates[0]!.source, "seed-file");
      assert.equal(node.candidates[0]!.verification, "signed");
      await writeSeedFile(path, document(5), ISSUER);
      await until("the newer one is read", () => seqs(node).includes(5));
      await writeSeedFile(path, document(3), ISSUER);
      await until("the older one is a rollback", () => node.refused.some((one) => one.reason === "rollback"));
      await Deno.writeTextFile(path, "garbage");
      await until("garbage is malformed", () => node.refused.some((one) => one.reason === "malformed"));
      await Deno.writeFile(path, new Uint8Array(SEED_BYTES_MAX + 5_000));
      await until("a huge file is oversize", () => node.refused.some((one) => one.reason === "oversize"));
      await writeSeedFile(path, document(9), STRANGER);
      await until("a stranger's is refused", () => node.refused.some((one) => one.reason === "unknown-signer"));
      assert.deepEqual(seqs(node), [4, 5]);
    });
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

Deno.test("[1.1e] an HTTP seed is fetched, revalidated by its ETag, and its copy serves when the server is gone", async () => {
  const cacheDir = await Deno.makeTempDir();
  let current = document(1);
  let down = false;
  const server = serve((request) => {
    if (down) return new Response("maintenance", { status: 503 });
    // A server that compresses marks the tag as weak, as Deno.serve did in 2.6.
    const etag = `"${current.seq}"`;
    if (request.headers.get("if-none-match")?.endsWith(etag)) return new Response(null, { status: 304 });
    return new Response(exportSeed(current, ISSUER), { headers: { etag } });
  });
  const options = { seedUrls: [`${server.url}/seed`], cacheDir };
  try {
    const first = seedNode(options);
    await withNodes([first], async () => {
      await until("the first document", () => seqs(first).includes(1));
      await until("a revalidation", () => server.requests.some((one) => one.ifNoneMatch?.endsWith('"1"')));
      current = document(2);
      await until("the second document", () => seqs(first).includes(2));
      // A server that was set back to an older document is not believed.
      current = document(1);
      await until("a rollback is refused", () => first.refused.some((one) => one.reason === "rollback"));
      down = true;
      const before = first.candidates.length;
      await until("the copy serves", () => first.candidates.length > before + 1);
      assert.equal(first.candidates.at(-1)!.address, document(2).addresses[0]);
    });
    // Another start, the server still down: the copy on disk is all there is.
    const second = seedNode(options);
    await withNodes([second], async () => {
      await until("the copy on disk", () => seqs(second).includes(2));
      assert.match(
        second.reports.find((one) => one.state === "found")!.detail,
        /from our copy: the server answered 503/,
      );
    });
    // Only our owner may read the copies.
    for await (const entry of Deno.readDir(cacheDir)) {
      assert.equal((await Deno.stat(`${cacheDir}/${entry.name}`)).mode! & 0o077, 0, entry.name);
      assert.ok(!entry.name.endsWith(".new"));
    }
  } finally {
    await server.stop();
    await Deno.remove(cacheDir, { recursive: true });
  }
});

Deno.test("[1.1e] an expired seed document is used, marked stale", async () => {
  const server = serve(() => new Response(exportSeed(document(6, { expiresMs: Date.now() - 1 }), ISSUER)));
  const node = seedNode({ seedUrls: [server.url] });
  try {
    await withNodes([node], async () => {
      await until("it is used", () => node.candidates.length > 0);
      assert.match(node.candidates[0]!.detail!, /stale/);
    });
  } finally {
    await server.stop();
  }
});

Deno.test("[1.1e] of several mirrors one is enough; a mirror that lags behind another is a rollback", async () => {
  const good = serve(() => new Response(exportSeed(document(8), ISSUER)));
  const behind = serve(() => new Response(exportSeed(document(7), ISSUER)));
  const broken = serve(() => new Response("no", { status: 500 }));
  // Nobody listens here: the port was free a moment ago.
  const gone = serve(() => new Response());
  await gone.stop();
  const node = seedNode({ seedUrls: [broken.url, gone.url, good.url] });
  const late = seedNode({ seedUrls: [good.url, behind.url] });
  try {
    await withNodes([node, late], async () => {
      await until("the good mirror", () => seqs(node).includes(8) && seqs(late).includes(8));
      await until("the lagging one is refused", () => late.refused.some((one) => one.reason === "rollback"));
      const { detail } = node.reports.find((one) => one.state === "found")!;
      assert.match(detail, /the server answered 500/);
    });
  } finally {
    await Promise.all([good.stop(), behind.stop(), broken.stop()]);
  }
});

Deno.test("HTTP seeds: loops, too many bytes, foreign redirects, other schemes and slow servers are refused in time", async () => {
  const slow = new AbortController();
  const server = serve((_, path) => {
    switch (path) {
      case "/loop":
        return Response.redirect(`${server.url}/loop`, 302);
      case "/declared":
        return new Response(new Uint8Array(SEED_BYTES_MAX + 1));
      case "/endless":
        return new Response(
          new ReadableStream({
            pull(controller) {
              controller.enqueue(new Uint8Array(65_536).fill(65));
            },
          }),
        );
      case "/metadata":
        return new Response(null, { status: 302, headers: { location: "http://169.254.169.254/latest/meta-data" } });
      case "/file":
        return new Response(null, { status: 301, headers: { location: "file:///etc/passwd" } });
      case "/moved":
        return new Response(null, { status: 307, headers: { location: "/real" } });
      case "/real":
        return new Response(exportSeed(document(3), ISSUER));
      case "/slow":
        return new Promise<Response>((resolve) =>
          slow.signal.addEventListener("abort", () => resolve(new Response("late")))
        );
      default:
        return new Response("<html>", { status: 200 });
    }
  });
  const once = { httpBaseMs: 60_000, httpMaxMs: 60_000, httpTimeoutMs: 700 };
  const outcome = async (path: string) => {
    const node = seedNode({ seedUrls: [path.startsWith("/") ? server.url + path : path], timing: once });
    let tookMs = 0;
    await withNodes([node], async () => {
      tookMs = await until(`${path} settles`, () => settled(node));
    });
    return { node, tookMs, reasons: node.refused.map((one) => one.reason) };
  };
  try {
    assert.deepEqual((await outcome("/loop")).reasons, ["redirect-loop"]);
    assert.ok(server.requests.length <= 4, `${server.requests.length} requests`);
    assert.deepEqual((await outcome("/declared")).reasons, ["oversize"]);
    assert.deepEqual((await outcome("/endless")).reasons, ["oversize"]);
    assert.deepEqual((await outcome("/metadata")).reasons, ["redirect-refused"]);
    assert.deepEqual((await outcome("/file")).reasons, ["redirect-refused"]);
    assert.deepEqual((await outcome("ftp://example.org/seed")).reasons, ["bad-url"]);
    assert.deepEqual((await outcome("/page")).reasons, ["malformed"]);
    const late = await outcome("/slow");
    assert.ok(late.tookMs >= 600 && late.tookMs < 2_000, `${late.tookMs}`);
    assert.deepEqual(seqs((await outcome("/moved")).node), [3]);
  } finally {
    slow.abort();
    await server.stop();
  }
});

Deno.test("HTTP seeds: a damaged copy on disk is reported and replaced", async () => {
  const cacheDir = await Deno.makeTempDir();
  const content = exportSeed(document(2), ISSUER);
  const server = serve(() => new Response(content, { headers: { etag: '"x"' } }));
  const options = { seedUrls: [server.url], cacheDir };
  const copyPath = async () => {
    for await (const { name } of Deno.readDir(cacheDir)) if (name.startsWith("seed-")) return `${cacheDir}/${name}`;
    throw new Error("no copy");
  };
  try {
    const first = seedNode(options);
    await withNodes([first], async () => {
      await until("a copy", () => settled(first));
    });
    const path = await copyPath();
    const whole = await Deno.readFile(path);
    await Deno.writeFile(path, whole.subarray(0, 50));
    const second = seedNode(options);
    await withNodes([second], async () => {
      await until("it is fetched again", () => seqs(second).includes(2));
    });
    assert.ok(second.refused.some((one) => one.reason === "bad-copy"));
    assert.equal(toHex(await Deno.readFile(path)), toHex(whole));
  } finally {
    await server.stop();
    await Deno.remove(cacheDir, { recursive: true });
  }
});

Deno.test("[1.1d] members known before are candidates until they expire", async () => {
  const nowMs = Date.now();
  const address = `/ip4/8.8.4.1/tcp/4871/p2p/${nodeIdOf(keyPair(7).publicKey)}`;
  const gone = `/ip4/8.8.4.2/tcp/4871/p2p/${nodeIdOf(keyPair(8).publicKey)}`;
  const node = makeNode(1, {
    cachedMembers: () => [
      { addresses: [address], seenMs: nowMs - 5_000, expiresMs: nowMs + 60_000, verification: "verified" },
      { addresses: [gone], seenMs: nowMs - 5_000, expiresMs: nowMs - 1, verification: "verified" },
    ],
  });
  await withNodes([node], async () => {
    await until("the known member", () => node.candidates.length > 0);
    assert.ok(node.candidates.every((one) => one.address === address && one.verification === "verified"));
    assert.equal(node.candidates[0]!.seenMs, nowMs - 5_000);
    assert.ok(node.refused.some((one) => one.reason === "expired"));
  });
});

Deno.test("the incarnation grows with each start, also when the clock goes back", async () => {
  const cacheDir = await Deno.makeTempDir();
  try {
    const seen: number[] = [];
    for (const nowMs of [1_800_000_000_000, 1_000, 1_800_000_000_000]) {
      const node = makeNode(1, { cacheDir, now: () => nowMs });
      await withNodes([node], async () => {
        seen.push(Number(await Deno.readTextFile(`${cacheDir}/incarnation`)));
      });
    }
    assert.deepEqual(seen, [1_800_000_000_000, 1_800_000_000_001, 1_800_000_000_002]);
  } finally {
    await Deno.remove(cacheDir, { recursive: true });
  }
});
