import assert from "node:assert/strict";
import { join } from "node:path";
import { fromBase64Url, toBase64Url, utf8 } from "../../src/core/bytes.ts";
import { encodeCbor } from "../../src/core/codec.ts";
import { nodeIdOf } from "../../src/core/ids.ts";
import { exportSeed } from "../../src/bootstrap/seed_document.ts";
import { signedEpochValue } from "../../src/identity/authority.ts";
import { sealBundle, spellBundle } from "../../src/spore/seed_bundle.ts";
import { chainOf, GENESIS_ENVELOPE, keyOf, NETWORK_ID } from "../identity/fixture.ts";
import { AgentSocket, run, temporaryFolder } from "../testkit/cli.ts";
import { singleNodeStatus } from "../testkit/status_fixture.ts";

const NOW = 1_800_000_000_000;
const ISSUER = keyOf("issuer 0");
const ADDRESS = "/ip4/192.0.2.7/udp/4871/quic-v1";

function bundle(signer = ISSUER): string {
  const manifest = {
    kind: "master" as const,
    networkId: NETWORK_ID,
    seq: 7,
    issuedMs: NOW,
    expiresMs: NOW + 86_400_000,
    addresses: [ADDRESS],
  };
  const epochs = chainOf(ISSUER).since(1).map((one) => encodeCbor(signedEpochValue(one)));
  return spellBundle(sealBundle(manifest, { genesis: GENESIS_ENVELOPE, epochs, records: [] }, signer));
}

const EXPORTED = {
  text: bundle(),
  kind: "service",
  seq: 7,
  content: "00",
  addresses: [ADDRESS],
  records: 3,
  leftOut: 2,
  bytes: 1_000,
  expiresMs: NOW + 3_600_000,
};

const REPORT = {
  applied: true,
  kind: "full",
  seq: 9,
  signer: nodeIdOf(ISSUER.publicKey),
  issuedMs: NOW,
  expiresMs: NOW + 60_000,
  stale: false,
  addresses: 1,
  epoch: { before: 4, after: 3 },
  replaces: { fromEpoch: 2, issuersBefore: ["old"], issuersAfter: ["new"] },
  counts: { "new": 1, "record-unproved": 1 },
  records: [{ key: "app/a\u001b[2J", outcome: "new" }, { key: "app/b", outcome: "record-unproved" }],
};

Deno.test("[3.2a] seed export writes a file whole or prints; what does not fit is said; the kind is checked before anything", async () => {
  using folder = temporaryFolder();
  await using agent = new AgentSocket(folder.path, {
    status: singleNodeStatus(),
    control: () => ({ ok: true, result: EXPORTED }),
  });
  const options = { nowMs: NOW, cwd: folder.path };
  const socket = ["--socket", agent.socket];
  const printed = await run(["seed", "export", ...socket], options);
  assert.deepEqual([printed.code, printed.stdout], [0, EXPORTED.text]);
  assert.match(printed.stderr, /2 records did not fit/);
  assert.match(printed.stderr, /service: 1 addresses, 3 records, 1000 B, fresh for 1h/);
  const written = await run(["spore", "export", "--out", "x.seed", "--ttl", "1h", ...socket], options);
  assert.deepEqual([written.code, written.stdout], [0, ""]);
  assert.equal(await Deno.readTextFile(join(folder.path, "x.seed")), EXPORTED.text);
  const document = JSON.parse((await run(["seed", "export", "--kind", "master", "--json", ...socket], options)).stdout);
  assert.equal(document.text, EXPORTED.text);
  assert.deepEqual(
    agent.requests.map(({ verb, kind, ttlMs }) => [verb, kind, ttlMs]),
    [["seed-export", "service", undefined], ["seed-export", "full", 3_600_000], ["seed-export", "master", undefined]],
  );
  for (const flags of [["--kind", "everything"], ["--ttl", "soon"]]) {
    assert.equal((await run(["seed", "export", ...flags, ...socket], options)).code, 2);
  }
  const nowhere = await run(["seed", "export", "--out", "none/x.seed", ...socket], options);
  assert.equal(nowhere.code, 1);
  assert.match(nowhere.stderr, /Cannot write "none\/x\.seed"/);
});

Deno.test("[3.2d] seed verify without an agent: a bundle that proves itself is shown with its network, another is refused", async () => {
  using folder = temporaryFolder();
  const file = join(folder.path, "x.seed");
  const verify = async (content: string | Uint8Array, ...flags: string[]) => {
    await Deno.writeFile(file, typeof content === "string" ? utf8(content) : content);
    return await run(["seed", "verify", file, "--state", join(folder.path, "none"), ...flags], { nowMs: NOW });
  };
  const good = JSON.parse((await verify(bundle(), "--json")).stdout);
  assert.equal(good.signer, nodeIdOf(ISSUER.publicKey));
  assert.deepEqual([good.epoch, good.addresses, good.stale], [1, [ADDRESS], false]);
  const raw = fromBase64Url(bundle().trim())!;
  assert.equal((await verify(raw)).code, 0, "raw bytes too");
  raw[raw.length - 30]! ^= 1;
  const cases: readonly (readonly [string, string | Uint8Array])[] = [
    ["tampered", toBase64Url(raw)],
    ["unknown-signer", bundle(keyOf("stranger"))],
    ["malformed", "<html>it works</html>"],
    ["malformed", exportSeed({ networkId: NETWORK_ID, addresses: [], issuedMs: 1, expiresMs: 2, seq: 1 }, ISSUER)],
  ];
  for (const [code, content] of cases) {
    const refused = await verify(content, "--json");
    assert.deepEqual([refused.code, JSON.parse(refused.stdout).error.code], [4, code]);
  }
  assert.equal((await run(["seed", "verify", join(folder.path, "absent")])).code, 2);
});

Deno.test("[3.2d] seed verify and spore import say of what is no bundle why not, and ask no agent", async () => {
  using folder = temporaryFolder();
  await using agent = new AgentSocket(folder.path, { status: singleNodeStatus(), control: () => assert.fail("asked") });
  const file = join(folder.path, "x.seed");
  const whole = bundle();
  const raw = fromBase64Url(whole.trim())!;
  const cases: readonly (readonly [what: string, string, string | Uint8Array, RegExp])[] = [
    ["binary", "malformed", new Uint8Array(400).map((_, i) => i * 37), /it is no bundle, wanted a bundle/],
    ["zeros", "malformed", new Uint8Array(400), /it is empty, wanted a bundle/],
    ["empty", "malformed", "", /it is empty, wanted a bundle/],
    ["white space", "malformed", " \r\n\n", /it is empty, wanted a bundle/],
    ["a web page", "malformed", "<html>it works</html>", /it is no bundle, wanted a bundle/],
    ["text cut short", "malformed", whole.slice(0, 400), /it is damaged or not whole \(.+\), wanted a bundle/],
    ["bytes cut short", "malformed", raw.subarray(0, raw.length - 1), /it is damaged or not whole \(.+\), wanted a/],
    ["10 MB", "oversize", new Uint8Array(10 << 20), /more than 262144 bytes, wanted a bundle/],
  ];
  for (const [what, code, content, message] of cases) {
    await Deno.writeFile(file, typeof content === "string" ? utf8(content) : content);
    for (const command of [["seed", "verify"], ["spore", "import"]]) {
      const asked = [...command, file, "--socket", agent.socket];
      const { error } = JSON.parse((await run([...asked, "--json"])).stdout);
      assert.deepEqual([error.code, error.message.startsWith(`Cannot read "${file}": `)], [code, true], what);
      assert.match(error.message, message, what);
      assert.match(error.cure, /mycelium seed export/, what);
      assert.equal((await run(asked)).code, 4, what);
    }
  }
  const piped = await run(["seed", "verify", "-", "--socket", agent.socket], { stdin: "o".repeat(300_000) });
  assert.match(piped.stderr, /Cannot read "-": more than 262144 bytes/);
});

Deno.test("[3.2a] spore import takes a bundle or a list of addresses, raw or as text, and spells it one way", async () => {
  using folder = temporaryFolder();
  await using agent = new AgentSocket(folder.path, {
    status: singleNodeStatus(),
    control: () => ({ ok: true, result: REPORT }),
  });
  const file = join(folder.path, "x.seed");
  const list = exportSeed({ networkId: NETWORK_ID, addresses: [], issuedMs: 1, expiresMs: 2, seq: 1 }, ISSUER);
  for (const text of [bundle(), list]) {
    for (const form of [utf8(text), utf8(`\r\n ${text.trim()}\r\n`), fromBase64Url(text.trim())!]) {
      await Deno.writeFile(file, form);
      assert.equal((await run(["spore", "import", file, "--socket", agent.socket], { nowMs: NOW })).code, 0);
      assert.equal(agent.requests.at(-1)!.text, text);
    }
  }
});

Deno.test("[3.2a] seed verify and spore import read from a server, within bounds", async () => {
  using folder = temporaryFolder();
  await using agent = new AgentSocket(folder.path, {
    status: singleNodeStatus(),
    control: () => ({ ok: true, result: REPORT }),
  });
  await using server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen: () => {} }, (request) => {
    const { pathname } = new URL(request.url);
    if (pathname === "/huge") return new Response(new Uint8Array(400_000));
    return pathname === "/x.seed" ? new Response(bundle()) : new Response("no", { status: 404 });
  });
  const url = `http://127.0.0.1:${server.addr.port}`;
  const socket = ["--socket", agent.socket];
  assert.equal((await run(["seed", "verify", `${url}/x.seed`, ...socket], { nowMs: NOW })).code, 0);
  assert.equal((await run(["spore", "import", `${url}/x.seed`, "--force", ...socket], { nowMs: NOW })).code, 0);
  assert.deepEqual(
    agent.requests.map(({ verb, text, dryRun, force }) => [verb, text, dryRun, force]),
    [["seed-import", bundle(), true, false], ["seed-import", bundle(), false, true]],
  );
  for (const [path, code] of [["/none", 2], ["/huge", 4]] as const) {
    assert.equal((await run(["seed", "verify", url + path, ...socket])).code, code, path);
  }
});

Deno.test("[3.2b] spore import says what it replaces, and lets no record steer the terminal", async () => {
  using folder = temporaryFolder();
  let applied = false;
  await using agent = new AgentSocket(folder.path, {
    status: singleNodeStatus(),
    control: ({ verb, dryRun }) => {
      if (verb !== "seed-import") return { ok: true, result: {} };
      applied = dryRun !== true;
      return { ok: true, result: { ...REPORT, applied } };
    },
  });
  const options = { nowMs: NOW, stdin: bundle() };
  const dry = await run(["spore", "import", "-", "--dry-run", "--socket", agent.socket], options);
  assert.equal(dry.code, 0);
  assert.match(dry.stdout, /would replace epochs from 2 on\n {2}issuers before: old\n {2}issuers after: {2}new/);
  assert.match(dry.stdout, /Records: 1 new, 1 record-unproved/);
  assert.match(dry.stderr, /Nothing was changed/);
  assert.ok(!dry.stdout.includes("\u001b"));
  assert.equal(applied, false);
  const done = await run(["spore", "import", "-", "--socket", agent.socket], options);
  assert.match(done.stdout, /A decision of the genesis key replaces epochs/);
  assert.match(done.stderr, /Imported/);
});

Deno.test("[3.2b] seed decide asks before it decides, and writes the Master Seed", async () => {
  using folder = temporaryFolder();
  const decided = { epoch: 4, hash: "ab".repeat(32), issuers: ["x"], names: ["alpha"] };
  await using agent = new AgentSocket(folder.path, {
    status: singleNodeStatus(),
    control: ({ dryRun }) => ({
      ok: true,
      result: dryRun ? { ...decided, decided: false } : { ...decided, text: bundle() },
    }),
  });
  const socket = ["--socket", agent.socket];
  const options = { cwd: folder.path };
  const shown = await run(["seed", "decide", "--dry-run", ...socket], options);
  assert.equal(shown.stdout, "Would decide for epoch 4 (abababababababab) with alpha\n");
  assert.equal((await run(["seed", "decide", ...socket], options)).code, 4, "nobody can be asked");
  const done = await run(["seed", "decide", "--yes", "--key", "genesis.key", "--out", "d.seed", ...socket], options);
  assert.equal(done.code, 0);
  assert.equal(await Deno.readTextFile(join(folder.path, "d.seed")), bundle());
  assert.equal(agent.requests.at(-1)!.keyFile, join(folder.path, "genesis.key"));
  assert.ok(agent.requests.slice(0, -1).every((one) => one.dryRun === true));
});

Deno.test("[3.2e] seed publish and seed status show each place, and a failure is the exit code", async () => {
  using folder = temporaryFolder();
  const healthy = singleNodeStatus();
  const seeds = {
    made: 7,
    seen: [],
    taken: [],
    sources: [{
      from: "http://a/x",
      state: "behind",
      seq: 3,
      kind: "full",
      reason: "behind: http://b/x has 9",
      atMs: NOW,
    }],
    targets: [{ to: "/srv/x", kind: "full", state: "ok", seq: 9, failures: 0, reason: "" }],
  } as const;
  let state = "ok";
  await using agent = new AgentSocket(folder.path, {
    status: { ...healthy, seeds },
    control: () => ({
      ok: true,
      result: [{ to: "/srv/x", kind: "full", published: state === "ok", state, seq: 9, reason: "" }],
    }),
  });
  const socket = ["--socket", agent.socket];
  const status = await run(["seed", "status", ...socket]);
  assert.match(status.stdout, /http:\/\/a\/x\s+behind\s+full\s+3.*behind: http:\/\/b\/x has 9/);
  assert.match(status.stdout, /\/srv\/x\s+ok\s+full\s+9/);
  assert.deepEqual(JSON.parse((await run(["seed", "status", "--json", ...socket])).stdout), seeds);
  const published = await run(["seed", "publish", "--now", ...socket]);
  assert.match(published.stdout, /\/srv\/x\s+full\s+published\s+9/);
  assert.equal(agent.requests.at(-1)!.force, true);
  state = "failed";
  assert.equal((await run(["seed", "publish", ...socket])).code, 1);
  const shown = await run(["status", ...socket]);
  assert.match(shown.stdout, /Seeds +read from 1, published to 1, 1 in trouble: mycelium seed status/);
  const findings = await run(["doctor", ...socket]);
  assert.match(findings.stdout, /seed-behind/);
});
