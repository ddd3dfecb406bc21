import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import dnsPacket from "dns-packet";
import { toHex } from "../../src/core/bytes.ts";
import { nodeIdOf } from "../../src/core/ids.ts";
import { seededRng } from "../../src/core/rng.ts";
import { orderSrv, readTxt } from "../../src/edge/discovery/dns_records.ts";
import { Resolver } from "../../src/edge/discovery/resolver.ts";
import { keyPair, makeNode, NETWORK, until, withNodes } from "./discovery_kit.ts";

const NID = toHex(NETWORK).slice(0, 16);
const PEER = nodeIdOf(keyPair(7).publicKey);
const PEER2 = nodeIdOf(keyPair(8).publicKey);

type Zone = { readonly [question: string]: readonly unknown[] };

/** A DNS server on loopback that knows `name TYPE` -> data; NXDOMAIN for all else. `silent` ones never answer. */
class DnsServer {
  readonly #conn = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
  readonly #serving: Promise<void>;
  readonly asked: string[] = [];

  constructor(readonly zone: Zone, readonly silent = false) {
    this.#serving = this.#serve();
  }

  get port(): number {
    return (this.#conn.addr as Deno.NetAddr).port;
  }

  async close(): Promise<void> {
    this.#conn.close();
    await this.#serving;
  }

  async #serve(): Promise<void> {
    // The type of the packet is that of an untyped module.
    const codec = dnsPacket as unknown as {
      decode(b: Uint8Array): { id: number; questions: { name: string; type: string }[] };
      encode(m: unknown): Uint8Array;
    };
    for (;;) {
      let got: [Uint8Array, Deno.Addr];
      try {
        got = await this.#conn.receive();
      } catch {
        return;
      }
      const query = codec.decode(Buffer.from(got[0]));
      const { name, type } = query.questions[0]!;
      this.asked.push(`${name} ${type}`);
      if (this.silent) continue;
      const data = this.zone[`${name.toLowerCase()} ${type}`];
      const exists = Object.keys(this.zone).some((key) => key.startsWith(`${name.toLowerCase()} `));
      const answer = codec.encode({
        id: query.id,
        type: "response",
        flags: (1 << 10) | (1 << 8) | (1 << 7) | (exists ? 0 : 3),
        questions: query.questions,
        answers: (data ?? []).map((one) => ({ name, type, ttl: 60, class: "IN", data: one })),
      });
      try {
        await this.#conn.send(answer, got[1]);
      } catch {
        return;
      }
    }
  }
}

const SRV = (port: number, target: string, priority = 0, weight = 10) => ({ port, target, priority, weight });

Deno.test("[1.1b] SRV and TXT records of several domains give candidates, those of other networks none", async () => {
  const server = new DnsServer({
    "_mycelium._udp.one.test SRV": [SRV(4871, "h1.one.test", 10), SRV(4872, "H2.one.test.", 5)],
    "_mycelium._udp.one.test TXT": [
      [`nid=${NID};host=h1.one.test;p2p=${PEER}`],
      ["v=spf1 -all"],
      [`nid=${"ee".repeat(8)};dnsaddr=/ip4/127.0.0.9/tcp/9`],
      [`nid=${NID}`, `dnsaddr=/ip4/127.0.0.3/udp/4871/quic-v1/p2p/${PEER2}`],
      [`nid=xyz;dnsaddr=/ip4/127.0.0.8/tcp/9`],
    ],
    "h1.one.test A": ["8.8.4.4"],
    "h1.one.test AAAA": ["2a00:1450::1"],
    "h2.one.test A": ["8.8.4.5"],
    // All records here speak for another network, so its SRV records do too.
    "_mycelium._udp.two.test SRV": [SRV(4871, "h1.one.test")],
    "_mycelium._udp.two.test TXT": [[`nid=${"dd".repeat(8)};p2p=${PEER}`]],
    // One server and one node id: they belong together.
    "_mycelium._udp.three.test SRV": [SRV(5000, "h3.three.test")],
    "_mycelium._udp.three.test TXT": [[`nid=${NID};p2p=${PEER2}`]],
    "h3.three.test A": ["8.8.4.6"],
  });
  const node = makeNode(1, {
    domains: ["one.test", "two.test.", "three.test", "absent.test"],
    nameServers: [{ ipAddr: "127.0.0.1", port: server.port }],
  });
  try {
    await withNodes([node], async () => {
      await until("DNS has answered", () => node.reports.some((one) => one.source === "dns" && one.state === "found"));
      const found = new Set(node.candidates.map((one) => one.address));
      const wanted4 = [
        `/ip4/8.8.4.4/udp/4871/quic-v1/p2p/${PEER}`,
        `/ip4/8.8.4.4/tcp/4871/p2p/${PEER}`,
        `/ip4/8.8.4.5/udp/4872/quic-v1`,
        `/ip4/8.8.4.5/tcp/4872`,
        `/ip4/8.8.4.6/udp/5000/quic-v1/p2p/${PEER2}`,
      ];
      for (const address of wanted4) assert.ok(found.has(address), `${address} in ${[...found].join(", ")}`);
      assert.ok(![...found].some((one) => one.includes("127.0.0.")), "loopback from DNS is refused");
      assert.ok(node.refused.some((one) => one.reason === "loopback" && one.from.includes("127.0.0.3")));
      assert.equal(node.refused.filter((one) => one.reason === "foreign").length, 2);
      assert.equal(node.refused.filter((one) => one.reason === "malformed").length, 1);
      const rank = (part: string) => node.candidates.find((one) => one.address.includes(part))!.authority;
      assert.ok(rank("8.8.4.5") > rank("8.8.4.4"), "the lower priority number comes first");
      const { detail } = node.reports.find((one) => one.state === "found")!;
      assert.match(detail, /one\.test: \d+ addresses, 1 records of other networks ignored/);
      assert.match(detail, /absent\.test: .*no SRV record/);
      assert.ok(node.candidates.every((one) => one.source === "dns" && one.verification === "unverified"));
    });
  } finally {
    await server.close();
  }
});

Deno.test("[1.1e] a dead DNS server costs its deadline, then the next one is asked", async () => {
  const dead = new DnsServer({}, true);
  const server = new DnsServer({
    "_mycelium._udp.one.test SRV": [SRV(4871, "h1.one.test")],
    "h1.one.test A": ["8.8.4.4"],
  });
  const node = makeNode(1, {
    domains: ["one.test"],
    nameServers: [{ ipAddr: "127.0.0.1", port: dead.port }, { ipAddr: "127.0.0.1", port: server.port }],
    timing: { dnsTimeoutMs: 300 },
  });
  try {
    await withNodes([node], async () => {
      const tookMs = await until("an address", () => node.candidates.length > 0, 4_000);
      assert.ok(tookMs >= 550, "both deadlines of 300 ms passed: one for the records, one for the address");
      assert.ok(dead.asked.length > 0);
    });
  } finally {
    await Promise.all([dead.close(), server.close()]);
  }
});

Deno.test("[1.1e] with DNS silent the source says so, in time, and keeps asking", async () => {
  const dead = new DnsServer({}, true);
  const node = makeNode(1, {
    domains: ["one.test"],
    nameServers: [{ ipAddr: "127.0.0.1", port: dead.port }],
    timing: { dnsTimeoutMs: 200, dnsBaseMs: 100, dnsMaxMs: 200 },
  });
  try {
    await withNodes([node], async () => {
      await until("it fails", () => node.reports.some((one) => one.source === "dns" && one.state === "failed"), 1_500);
      assert.match(node.reports.find((one) => one.state === "failed")!.detail, /no answer in 200 ms/);
      await until("it asks again", () => dead.asked.length > 4);
    });
  } finally {
    await dead.close();
  }
});

Deno.test("stop() does not wait for a dead DNS server", async () => {
  const dead = new DnsServer({}, true);
  const node = makeNode(1, {
    domains: ["one.test"],
    nameServers: [{ ipAddr: "127.0.0.1", port: dead.port }],
    timing: { dnsTimeoutMs: 60_000 },
  });
  node.discovery.start();
  await until("it was asked", () => dead.asked.length > 0);
  const startedAt = performance.now();
  await node.discovery.stop();
  assert.ok(performance.now() - startedAt < 500);
  await dead.close();
});

Deno.test("[1.1a] names of the invite and the configuration are resolved, and loopback is the user's choice", async () => {
  const server = new DnsServer({ "spore.example.test A": ["127.0.0.1"], "spore.example.test AAAA": [] });
  const node = makeNode(1, {
    inviteAddresses: [`/dns/spore.example.test/tcp/4871/p2p/${PEER}`, `/ip4/127.0.0.1/udp/1/quic-v1/p2p/${PEER}`],
    configAddresses: ["/dns/absent.example.test/tcp/1"],
    nameServers: [{ ipAddr: "127.0.0.1", port: server.port }],
  });
  try {
    await withNodes([node], async () => {
      await until("the invite's addresses", () => node.candidates.length >= 2);
      assert.deepEqual(
        new Set(node.candidates.map((one) => one.address)),
        new Set([
          `/ip4/127.0.0.1/tcp/4871/p2p/${PEER}`,
          `/ip4/127.0.0.1/udp/1/quic-v1/p2p/${PEER}`,
        ]),
      );
      assert.ok(node.candidates.every((one) => one.source === "invite" && one.authority === 90));
      await until("the unknown name is reported", () => node.refused.some((one) => one.reason === "unresolved-name"));
    });
  } finally {
    await server.close();
  }
});

Deno.test("the resolver tells an absent name from a dead server", async () => {
  const server = new DnsServer({ "a.test A": ["8.8.8.8"] });
  const resolver = new Resolver({ nameServers: [{ ipAddr: "127.0.0.1", port: server.port }], timeoutMs: 1_000 });
  const { signal } = new AbortController();
  try {
    const found = await resolver.ask("a.test", "A", signal);
    assert.deepEqual(found, { ok: true, records: ["8.8.8.8"] });
    const none = await resolver.ask("a.test", "AAAA", signal);
    assert.equal(!none.ok && none.reason, "absent");
    const unknown = await resolver.ask("b.test", "SRV", signal);
    assert.equal(!unknown.ok && unknown.reason, "absent");
  } finally {
    await server.close();
  }
});

Deno.test("readTxt() takes what is ours and counts the rest", () => {
  const facts = readTxt([
    [`NID=${NID.toUpperCase()}`, "host=H1.Example.", `p2p=${PEER}`],
    ["nid=abcdef"],
    [`nid=${NID};p2p=nonsense;dnsaddr=/ip4/1.2.3.4`],
    [],
  ], NETWORK);
  assert.deepEqual([...facts.nodeIds], [["h1.example", PEER]]);
  assert.deepEqual([facts.ours, facts.foreign, facts.malformed], [2, 0, 3]);
});

Deno.test("orderSrv() goes by priority, then by weight (RFC 2782)", () => {
  const records = [
    { priority: 20, weight: 0, name: "last" },
    { priority: 10, weight: 30, name: "heavy" },
    { priority: 10, weight: 10, name: "light" },
    { priority: 10, weight: 0, name: "zero" },
  ];
  const first = new Map<string, number>();
  const rng = seededRng(1);
  for (let i = 0; i < 4_000; i++) {
    const order = orderSrv(records, rng).map((one) => one.name);
    assert.equal(order.length, 4);
    assert.equal(order[3], "last");
    first.set(order[0]!, (first.get(order[0]!) ?? 0) + 1);
  }
  const share = (name: string) => (first.get(name) ?? 0) / 4_000;
  assert.ok(Math.abs(share("heavy") - 0.73) < 0.05, `${share("heavy")}`);
  assert.ok(Math.abs(share("light") - 0.24) < 0.05, `${share("light")}`);
  assert.ok(share("zero") > 0 && share("zero") < 0.06, `${share("zero")}`);
});
