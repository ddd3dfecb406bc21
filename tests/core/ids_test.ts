import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { isIPv4, isIPv6 } from "node:net";
import { publicKeyFromRaw } from "@libp2p/crypto/keys";
import { peerIdFromPublicKey, peerIdFromString } from "@libp2p/peer-id";
import { multiaddr } from "@multiformats/multiaddr";
import fc from "fast-check";
import { fromHex, toBase58, toHex } from "../../src/core/bytes.ts";
import { WireError } from "../../src/core/codec.ts";
import {
  formatAddress,
  nodeIdOf,
  parseAddress,
  parseIpv4,
  parseIpv6,
  publicKeyOf,
  readAddress,
  readNodeId,
  shortNetworkId,
  shortNodeId,
} from "../../src/core/ids.ts";
import { keyPairFromSeed, sha256 } from "../../src/core/crypto.ts";

const ID = nodeIdOf(keyPairFromSeed(new Uint8Array(32)).publicKey);

Deno.test("[10.1a] nodeIdOf() is @libp2p/peer-id's text, publicKeyOf() its inverse", () => {
  for (let i = 0; i < 50; i++) {
    const key = keyPairFromSeed(sha256(Uint8Array.of(i))).publicKey;
    const oracle = peerIdFromPublicKey(publicKeyFromRaw(key));
    assert.equal(nodeIdOf(key), oracle.toString());
    assert.deepEqual(publicKeyOf(nodeIdOf(key)), key);
    assert.deepEqual(peerIdFromString(nodeIdOf(key)).publicKey?.raw, key);
  }
  fc.assert(fc.property(fc.uint8Array({ minLength: 32, maxLength: 32 }), (key) => {
    assert.deepEqual(publicKeyOf(nodeIdOf(key)), key);
    assert.match(nodeIdOf(key), /^12D3KooW.{44}$/);
  }));
});

Deno.test("[10.1a] publicKeyOf() refuses whatever nodeIdOf() does not write", () => {
  assert.equal(readNodeId(ID, "$"), ID);
  const foreign = [
    "",
    ID.slice(1),
    ID.slice(0, -1),
    ID + "1",
    "1" + ID,
    ` ${ID}`,
    `${ID}\n`,
    ID.toLowerCase(),
    // An RSA key (hashed), a secp256k1 key, a CIDv1 of a key.
    "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",
    "16Uiu2HAmBCh1GRFR8qLPxQ1JQDBdiTBgW8bPB6MUJhiXVUSAvTAy",
    "bafzaajaiaejcbzdibmxyzdjbbehgvizh6g5tikvy47mshdy6gwbruvgwvd24seje",
    // Same prefix, another length or key type inside.
    toBase58(fromHex("00240801122" + "0" + "00".repeat(31))!),
    toBase58(fromHex("00240802122" + "0" + "00".repeat(32))!),
    toBase58(fromHex("12240801122" + "0" + "00".repeat(32))!),
  ];
  for (const text of foreign) {
    assert.equal(publicKeyOf(text), undefined, text);
    assert.throws(() => readNodeId(text, "$"), WireError);
  }
  assert.throws(() => readNodeId(7, "$"), WireError);
  fc.assert(
    fc.property(
      fc.nat(51),
      fc.constantFrom(..."123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"),
      (at, char) => {
        const text = ID.slice(0, at) + char + ID.slice(at + 1);
        const key = publicKeyOf(text);
        if (key) assert.equal(nodeIdOf(key), text);
      },
    ),
  );
});

Deno.test("parseAddress() reads the two forms with every kind of host", () => {
  const table: [string, ReturnType<typeof parseAddress>][] = [
    ["/ip4/10.0.0.1/udp/4871/quic-v1", { family: "ip4", host: "10.0.0.1", transport: "quic", port: 4871 }],
    ["/ip4/10.0.0.1/tcp/1", { family: "ip4", host: "10.0.0.1", transport: "tcp", port: 1 }],
    [`/ip4/255.255.255.255/tcp/65535/p2p/${ID}`, {
      family: "ip4",
      host: "255.255.255.255",
      transport: "tcp",
      port: 65535,
      nodeId: ID,
    }],
    ["/ip6/fe80::1/udp/4871/quic-v1", { family: "ip6", host: "fe80::1", transport: "quic", port: 4871 }],
    ["/ip6/::ffff:10.0.0.1/tcp/80", { family: "ip6", host: "::ffff:10.0.0.1", transport: "tcp", port: 80 }],
    ["/dns/node.example.org/tcp/4871", { family: "dns", host: "node.example.org", transport: "tcp", port: 4871 }],
    ["/dns4/n/tcp/4871", { family: "dns", host: "n", transport: "tcp", port: 4871 }],
    [`/dns6/a-b.example./udp/4871/quic-v1/p2p/${ID}`, {
      family: "dns",
      host: "a-b.example.",
      transport: "quic",
      port: 4871,
      nodeId: ID,
    }],
  ];
  for (const [text, expected] of table) {
    assert.deepEqual(parseAddress(text), expected, text);
    assert.equal(readAddress(text, "$"), text);
    assert.equal(
      multiaddr(text).toString(),
      text.replace("::ffff:10.0.0.1", "::ffff:a00:1"),
      "libp2p reads it as well",
    );
  }
});

Deno.test("[10.1a] parseAddress() refuses everything else", () => {
  const bad = [
    "",
    "/",
    "10.0.0.1:4871",
    "/ip4/10.0.0.1",
    "/ip4/10.0.0.1/udp/4871",
    "/ip4/10.0.0.1/udp/4871/quic",
    "/ip4/10.0.0.1/tcp/4871/quic-v1",
    "/ip4/10.0.0.1/tcp/0",
    "/ip4/10.0.0.1/tcp/65536",
    "/ip4/10.0.0.1/tcp/080",
    "/ip4/10.0.0.1/tcp/-1",
    "/ip4/10.0.0.1/tcp/1e3",
    "/ip4/10.0.0.1/tcp/80/",
    " /ip4/10.0.0.1/tcp/80",
    "/ip4/10.0.0.1/tcp/80\n",
    "/ip4/256.0.0.1/tcp/80",
    "/ip4/010.0.0.1/tcp/80",
    "/ip4/10.1/tcp/80",
    "/ip4/0x7f.0.0.1/tcp/80",
    "/ip4/::1/tcp/80",
    "/ip6/10.0.0.1/tcp/80",
    "/ip6/fe80::1%eth0/tcp/80",
    "/ip6/[::1]/tcp/80",
    "/ip6/1::2::3/tcp/80",
    "/ip4/10.0.0.1/tcp/80/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",
    `/ip4/10.0.0.1/tcp/80/p2p/${ID}/p2p-circuit`,
    `/ip4/10.0.0.1/tcp/80/p2p/${ID}1`,
    "/ip4/10.0.0.1/tcp/80/ws",
    "/unix/tmp/s",
    // Names that a resolver takes for an address.
    "/dns/127.0.0.1/tcp/80",
    "/dns/127.1/tcp/80",
    "/dns/2130706433/tcp/80",
    "/dns/0x7f.0x1/tcp/80",
    "/dns/0x7f000001./tcp/80",
    "/dns/a..b/tcp/80",
    "/dns/.a/tcp/80",
    "/dns/-a.b/tcp/80",
    "/dns/a-.b/tcp/80",
    "/dns/a_b/tcp/80",
    "/dns/münchen.example/tcp/80",
    `/dns/${"a".repeat(64)}.b/tcp/80`,
    `/dns/${"a.".repeat(130)}b/tcp/80`,
    "/dns/localhost\u0000.example/tcp/80",
    `/dns/${"a".repeat(600)}/tcp/80`,
  ];
  for (const text of bad) {
    assert.equal(parseAddress(text), undefined, text);
    assert.throws(() => readAddress(text, "$"), WireError);
  }
  assert.throws(() => readAddress(1, "$"), WireError);
});

Deno.test("[10.1a] formatAddress() and parseAddress() are inverse, and libp2p agrees on what is written", () => {
  const label = fc.stringMatching(/^[a-z]([a-z0-9-]{0,10}[a-z0-9])?$/);
  const address = fc.record({
    host: fc.oneof(
      fc.ipV4().map((host) => ({ family: "ip4" as const, host })),
      fc.ipV6().map((host) => ({ family: "ip6" as const, host })),
      fc.array(label, { minLength: 1, maxLength: 4 }).map((labels) => ({
        family: "dns" as const,
        host: labels.join("."),
      })),
    ),
    transport: fc.constantFrom("quic" as const, "tcp" as const),
    port: fc.integer({ min: 1, max: 65535 }),
    withId: fc.boolean(),
  });
  fc.assert(fc.property(address, ({ host, transport, port, withId }) => {
    const given = { ...host, transport, port, ...(withId ? { nodeId: ID } : {}) };
    assert.deepEqual(parseAddress(formatAddress(given)), given);
    multiaddr(formatAddress(given));
  }));
});

Deno.test("[10.1a] parseIpv4() and parseIpv6() agree with node:net and with the bytes of multiaddr", () => {
  const nearIpv6 = fc.array(fc.constantFrom(":", "::", "0", "1", "ffff", "12345", "g", ".", "1.2.3.4", "256"), {
    maxLength: 17,
  })
    .map((parts) => parts.join(""));
  fc.assert(
    fc.property(fc.oneof(fc.ipV6(), nearIpv6, fc.ipV4(), fc.string({ maxLength: 6 })), (text) => {
      assert.equal(parseIpv6(text) !== undefined, isIPv6(text), `IPv6 ${JSON.stringify(text)}`);
      assert.equal(parseIpv4(text) !== undefined, isIPv4(text), `IPv4 ${JSON.stringify(text)}`);
    }),
    { numRuns: 3_000 },
  );
  fc.assert(fc.property(fc.ipV6(), (text) => {
    const parts = multiaddr(`/ip6/${text}`).getComponents();
    assert.deepEqual(Buffer.from(parseIpv6(text)!), Buffer.from(parseIpv6(parts[0]!.value!)!));
  }));
  const table: [string, string][] = [
    ["::", "00".repeat(16)],
    ["::1", "00".repeat(15) + "01"],
    ["1::", "0001" + "00".repeat(14)],
    ["fe80::A:b", "fe80" + "00".repeat(10) + "000a000b"],
    ["1:2:3:4:5:6:7:8", "00010002000300040005000600070008"],
    ["1:2:3:4:5:6:7::", "00010002000300040005000600070000"],
    ["::ffff:192.0.2.33", "00".repeat(10) + "ffffc0000221"],
    ["64:ff9b::192.0.2.33", "0064ff9b" + "00".repeat(8) + "c0000221"],
  ];
  for (const [text, expected] of table) assert.equal(toHex(parseIpv6(text)!), expected, text);
  for (
    const text of [
      "",
      ":",
      ":::",
      "1",
      "1:2:3:4:5:6:7",
      "1:2:3:4:5:6:7:8:9",
      "1:2:3:4:5:6:7:8::",
      "::1::",
      "12345::",
      "::1.2.3",
      "::1.2.3.4:5",
      "::256.1.1.1",
      "::01.1.1.1",
      "1.2.3.4",
      "fe80::1%1",
      " ::1",
      "::1\n",
    ]
  ) assert.equal(parseIpv6(text), undefined, JSON.stringify(text));
});

Deno.test("shortNodeId() and shortNetworkId() tell apart what differs", () => {
  assert.equal(shortNetworkId(fromHex("00112233445566778899")!), "001122334455");
  assert.equal(shortNodeId(ID), ID.slice(-8));
});
