import assert from "node:assert/strict";
import { beaconKeys, encodeBeacon } from "../../src/bootstrap/beacon.ts";
import { toHex } from "../../src/core/bytes.ts";
import { decodeCbor, encodeCbor } from "../../src/core/codec.ts";
import type { DiscoveryOptions } from "../../src/edge/discovery/mod.ts";
import { decodeDns, type DnsRecord, encodeDns } from "../../src/edge/discovery/dns_wire.ts";
import { serviceName } from "../../src/edge/discovery/mdns.ts";
import { freeUdpPort, keyPair, makeNode, NETWORK, rest, SECRET, until, withNodes } from "./discovery_kit.ts";

const ADDRESS = "/ip4/127.0.0.1/udp/4871/quic-v1";

for (const source of ["multicast", "broadcast", "mdns"] as const) {
  Deno.test(`[1.1c] two nodes on one host find each other by ${source} alone`, async () => {
    const ports = { beaconPort: freeUdpPort(), mdnsPort: freeUdpPort() };
    const member = makeNode(1, { [source]: true, ...ports });
    const joiner = makeNode(2, { [source]: true, ...ports });
    member.discovery.announce([ADDRESS]);
    member.discovery.setMode("member");
    await withNodes([member, joiner], async () => {
      await until("the member is found", () => joiner.candidates.length > 0);
      const [found] = joiner.candidates;
      assert.equal(found!.address, `${ADDRESS}/p2p/${member.nodeId}`);
      assert.equal(found!.source, source);
      assert.equal(found!.verification, source === "mdns" ? "authenticated" : "signed");
      assert.ok(found!.expiresMs > found!.seenMs);
      await until(
        "the source says so",
        () => joiner.reports.some((one) => one.source === source && one.state === "found"),
      );
      assert.deepEqual(member.candidates, [], "a node that announces nothing is nobody's candidate");
      const view = joiner.discovery.describe();
      assert.ok(view.packetsOut > 0 && view.bytesIn > 0);
      assert.deepEqual(view.interfaces, ["lo 127.0.0.1", "lo ::1"]);
    });
  });
}

Deno.test("[2.1d] two networks on one group never exchange a candidate", async () => {
  const ports = { beaconPort: freeUdpPort(), mdnsPort: freeUdpPort(), mdns: true, multicast: true, broadcast: true };
  const other: Partial<DiscoveryOptions> = {
    ...ports,
    networkId: new Uint8Array(32).fill(0x11),
    discoverySecret: new Uint8Array(32).fill(0x12),
  };
  // One key in both networks, the hardest case.
  const nodes = [makeNode(1, ports), makeNode(2, ports), makeNode(1, other), makeNode(2, other)];
  nodes.forEach((node, i) => node.discovery.announce([`/ip4/127.0.0.1/tcp/${5_000 + i}`]));
  await withNodes(nodes, async () => {
    await until("each network finds its own", () => nodes.every((node) => node.candidates.length >= 3));
    await rest(600);
    nodes.forEach((node, i) => {
      const partner = 5_000 + (i ^ 1);
      for (const one of node.candidates) assert.ok(one.address.includes(`/tcp/${partner}/`), `${i}: ${one.address}`);
      const { refused } = node.discovery.describe();
      assert.ok((refused.get("foreign") ?? 0) > 0, "the other network was heard and refused");
      assert.equal(refused.get("forged") ?? 0, 0);
    });
  });
});

Deno.test("[1.1c] forged, altered, replayed and foreign beacons are refused, each counted by its reason", async () => {
  const beaconPort = freeUdpPort();
  const node = makeNode(1, { multicast: true, beaconPort });
  const keys = beaconKeys(NETWORK, SECRET);
  const said = (seq: number) => ({
    kind: "announce" as const,
    addresses: [ADDRESS],
    incarnation: 1,
    seq,
    sentMs: Date.now(),
  });
  const good = encodeBeacon(said(2), keys, keyPair(2));
  const outer = decodeCbor(good) as { [key: string]: Uint8Array | number };
  const send = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0, loopback: true });
  try {
    await withNodes([node], async () => {
      await until("it listens", () => node.discovery.describe().packetsOut > 0);
      const bad: readonly Uint8Array[] = [
        encodeBeacon(said(1), beaconKeys(new Uint8Array(32), SECRET), keyPair(2)),
        encodeBeacon(said(1), beaconKeys(NETWORK, new Uint8Array(32)), keyPair(2)),
        encodeBeacon({ ...said(1), sentMs: Date.now() - 7 * 86_400_000 }, keys, keyPair(3)),
        encodeCbor({ ...outer, m: new Uint8Array(16) }),
        new TextEncoder().encode("hello"),
        new Uint8Array(1_201),
      ];
      const target = { transport: "udp", hostname: "239.77.67.1", port: beaconPort } as const;
      for (const bytes of bad) await send.send(bytes, target);
      await send.send(good, target);
      await until("the good one arrives", () => node.candidates.length === 1);
      // Behind it in number, though authentic.
      await send.send(encodeBeacon(said(1), keys, keyPair(2)), target);
      await until("the replay is refused", () => node.discovery.describe().refused.has("replayed"));
      const counts = Object.fromEntries(node.discovery.describe().refused);
      delete counts.own;
      assert.deepEqual(counts, { foreign: 1, forged: 2, stale: 1, malformed: 2, replayed: 1 });
      assert.equal(node.candidates.length, 1);
      assert.ok(node.refused.every((one) => one.from === "multicast 127.0.0.1"));
    });
  } finally {
    send.close();
  }
});

Deno.test("[1.1e] a flood from one address is cut off and does not keep others from being heard", async () => {
  const beaconPort = freeUdpPort();
  const member = makeNode(1, { multicast: true, beaconPort });
  const joiner = makeNode(2, { multicast: true, beaconPort });
  member.discovery.announce([ADDRESS]);
  member.discovery.setMode("member");
  const flooder = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.2", port: 0, loopback: true });
  try {
    await withNodes([member], async () => {
      await until("it listens", () => member.discovery.describe().packetsOut > 0);
      const junk = encodeBeacon(
        { kind: "query", addresses: [], incarnation: 1, seq: 1, sentMs: Date.now() },
        beaconKeys(NETWORK, new Uint8Array(32)),
        keyPair(9),
      );
      const target = { transport: "udp", hostname: "239.77.67.1", port: beaconPort } as const;
      for (let i = 0; i < 3_000; i++) {
        await flooder.send(junk, target);
        // The kernel's buffer would swallow most of it.
        if (i % 50 === 0) await rest(1);
      }
      await withNodes([joiner], async () => {
        await until("the joiner is answered in the flood", () => joiner.candidates.length > 0);
      });
      const { refused, packetsIn, packetsOut } = member.discovery.describe();
      assert.ok(packetsIn > 500, `the flood arrived: ${packetsIn}`);
      assert.ok((refused.get("forged") ?? 0) <= 80, `${refused.get("forged")} were looked at`);
      assert.ok((refused.get("rate-limited") ?? 0) <= 5, "the flood does not go on inside");
      assert.ok(packetsOut <= 20, `${packetsOut} sent`);
    });
  } finally {
    flooder.close();
  }
});

Deno.test("[1.1c] a member does not ask and announces itself once, then rarely", async () => {
  const ports = { beaconPort: freeUdpPort(), mdnsPort: freeUdpPort(), mdns: true, multicast: true, broadcast: true };
  const member = makeNode(1, ports);
  member.discovery.announce([ADDRESS]);
  member.discovery.setMode("member");
  await withNodes([member], async () => {
    await until("it announces itself", () => member.discovery.describe().packetsOut >= 3);
    await rest(1_500);
    // One multicast beacon, one broadcast beacon, one mDNS answer; then silence for five minutes.
    assert.equal(member.discovery.describe().packetsOut, 3);
    const planned = member.discovery.describe().sources.find((one) => one.source === "multicast")!.nextMs!;
    const waitMs = planned - Date.now();
    assert.ok(waitMs > 290_000 && waitMs <= 360_000, `${waitMs}`);
  });
});

Deno.test("[1.1e] an isolated node goes on asking at a bounded rate", async () => {
  const node = makeNode(1, { multicast: true, beaconPort: freeUdpPort(), timing: { lanIsolatedMs: 400 } });
  node.discovery.setMode("isolated");
  await withNodes([node], async () => {
    await rest(3_000);
    const { packetsOut, sources } = node.discovery.describe();
    // Each round takes its wait of 200 to 400 ms and the 270 ms in which it listens.
    assert.ok(packetsOut >= 4 && packetsOut <= 7, `${packetsOut} queries in 3 s`);
    assert.equal(sources[0]!.state === "silent" || sources[0]!.state === "asking", true);
    node.discovery.setMode("off");
    const before = node.discovery.describe().packetsOut;
    await rest(900);
    assert.ok(node.discovery.describe().packetsOut - before <= 1, "off is silent");
  });
});

Deno.test("refresh() asks at once, and many calls count as one", async () => {
  const node = makeNode(1, {
    multicast: true,
    beaconPort: freeUdpPort(),
    timing: { lanBaseMs: 60_000, lanMaxMs: 60_000 },
  });
  await withNodes([node], async () => {
    await until("the first question", () => node.discovery.describe().packetsOut === 1);
    await rest(500);
    for (let i = 0; i < 100; i++) node.discovery.refresh();
    await until("the second question", () => node.discovery.describe().packetsOut === 2);
    await rest(900);
    assert.ok(node.discovery.describe().packetsOut <= 3);
  });
});

Deno.test("[1.1c] mDNS: a one-shot question is answered straight, with its id, a short life and all addresses", async () => {
  const mdnsPort = freeUdpPort();
  const member = makeNode(1, { mdns: true, mdnsPort });
  member.discovery.announce([ADDRESS, "/ip4/127.0.0.1/tcp/4871"]);
  member.discovery.setMode("member");
  const asker = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0, loopback: true });
  try {
    await withNodes([member], async () => {
      await until("it listens", () => member.discovery.describe().packetsOut > 0);
      const name = serviceName(NETWORK);
      const query = encodeDns({ id: 4_711, response: false, questions: [{ name: name.toUpperCase(), type: "PTR" }] });
      await asker.send(query, { transport: "udp", hostname: "224.0.0.251", port: mdnsPort });
      const [bytes] = await asker.receive();
      const answer = decodeDns(bytes)!;
      assert.equal(answer.id, 4_711);
      assert.equal(answer.response, true);
      assert.equal(answer.questions.length, 1);
      assert.ok(answer.records.every((one) => one.ttl <= 10));
      const pointer = answer.records.find((one) => one.type === "PTR")!;
      const txt = answer.records.find((one) => one.type === "TXT") as DnsRecord & { type: "TXT" };
      assert.equal(txt.name, pointer.data);
      assert.match(txt.name, /^[0-9a-f]{40}\._mycelium-[0-9a-f]{8}\._udp\.local$/);
      assert.deepEqual(txt.data.slice(0, 2), [
        `dnsaddr=${ADDRESS}/p2p/${member.nodeId}`,
        `dnsaddr=/ip4/127.0.0.1/tcp/4871/p2p/${member.nodeId}`,
      ]);
      assert.ok(!JSON.stringify(answer).includes(toHex(SECRET)));
    });
  } finally {
    asker.close();
  }
});

Deno.test("[2.1d] mDNS: a wrong MAC is refused, no MAC is unverified, junk is nothing", async () => {
  const mdnsPort = freeUdpPort();
  const node = makeNode(1, { mdns: true, mdnsPort });
  const send = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0, loopback: true });
  const name = serviceName(NETWORK);
  const other = makeNode(2, {}).nodeId;
  const answer = (instance: string, strings: readonly string[], ttl = 120) =>
    encodeDns({
      response: true,
      answers: [
        { type: "PTR", name, ttl, data: `${instance}.${name}` },
        { type: "TXT", name: `${instance}.${name}`, ttl, data: strings },
      ],
    });
  try {
    await withNodes([node], async () => {
      await until("it listens", () => node.discovery.describe().packetsOut > 0);
      const say = (bytes: Uint8Array) =>
        send.send(bytes, { transport: "udp", hostname: "224.0.0.251", port: mdnsPort });
      const mine = `dnsaddr=/ip4/127.0.0.1/tcp/1/p2p/${other}`;
      await say(answer("a", [mine, "mac=AAAAAAAAAAAAAAAAAAAAAA"]));
      await say(answer("b", ["dnsaddr=/ip4/127.0.0.1/tcp/nonsense"]));
      await say(answer("c", [mine], 0));
      await say(new Uint8Array(40).fill(0xc0));
      // A stranger's private address that is nowhere near is not dialed.
      await say(answer("d", [`dnsaddr=/ip4/10.254.253.252/tcp/1/p2p/${other}`, `dnsaddr=/dns/evil.example/tcp/1`]));
      await say(answer("e", [mine]));
      await until("the plain one arrives", () => node.candidates.length > 0);
      await until("all are judged", () => node.refused.length >= 4);
      assert.equal(node.candidates.length, 1);
      assert.equal(node.candidates[0]!.verification, "unverified");
      const reasons = node.refused.map((one) => one.reason).sort();
      assert.deepEqual(reasons.slice(0, 2), ["forged", "malformed"]);
      assert.ok(reasons.includes("unresolved-name"));
      assert.ok(reasons.some((one) => one === "private-not-routed" || one === "interface-denied"), reasons.join());
    });
  } finally {
    send.close();
  }
});

Deno.test("decodeDns() survives any bytes and any change of a real message", () => {
  const real = encodeDns({
    response: true,
    answers: [
      { type: "PTR", name: "a.local", ttl: 1, data: "b.a.local" },
      { type: "TXT", name: "b.a.local", ttl: 1, data: ["x=y"] },
      { type: "SRV", name: "b.a.local", ttl: 1, data: { port: 1, target: "c.local" } },
      { type: "A", name: "c.local", ttl: 1, data: "10.0.0.1" },
    ],
  });
  let state = 12345;
  const random = (bound: number) => (state = (state * 1_103_515_245 + 12_345) >>> 0) % bound;
  for (let i = 0; i < 20_000; i++) {
    const bytes = real.slice(0, 1 + random(real.length));
    for (let n = 0; n < 1 + random(4); n++) bytes[random(bytes.length)] = random(256);
    const message = decodeDns(bytes);
    if (message) assert.ok(message.records.length <= 256);
  }
});

Deno.test("[1.1e] a port that another program holds is reported, and taken as soon as it is free", async () => {
  const beaconPort = freeUdpPort();
  // Without address reuse: nobody else can bind it.
  const other = Deno.listenDatagram({ transport: "udp", hostname: "0.0.0.0", port: beaconPort });
  const node = makeNode(1, { multicast: true, broadcast: true, beaconPort });
  try {
    await withNodes([node], async () => {
      await until("both ways fail", () => {
        const failed = node.reports.filter((one) => one.state === "failed" && one.detail.includes("in use"));
        return new Set(failed.map((one) => one.source)).size === 2;
      });
      assert.equal(node.discovery.describe().packetsOut, 0);
      other.close();
      await until("it asks", () => node.discovery.describe().packetsOut >= 2);
    });
  } finally {
    try {
      other.close();
    } catch {
      // Closed above.
    }
  }
});
