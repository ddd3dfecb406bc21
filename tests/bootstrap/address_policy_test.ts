import assert from "node:assert/strict";
import fc from "fast-check";
import {
  type InterfaceAddress,
  isOnLink,
  kindOf,
  mayDial,
  type MayDialOptions,
  parseRoutes4,
  parseRoutes6,
  type Route,
} from "../../src/bootstrap/address_policy.ts";

function face(name: string, cidr: string): InterfaceAddress {
  const [address, bits] = cidr.split("/");
  return { name, address: address!, prefixLength: Number(bits) };
}

function route(cidr: string, interfaceName: string, change: Partial<Route> = {}): Route {
  const [destination, bits] = cidr.split("/");
  return { destination: destination!, prefixLength: Number(bits), interfaceName, metric: 0, reject: false, ...change };
}

function to(host: string): string {
  return `/ip${host.includes(":") ? 6 : 4}/${host}/udp/4871/quic-v1`;
}

/** A server on the Internet, one public address, default route. */
const PUBLIC = {
  interfaces: [
    face("lo", "127.0.0.1/8"),
    face("eth0", "8.8.8.10/24"),
    face("eth0", "2a00:1::10/64"),
    face("eth0", "fe80::1/64"),
  ],
  routes: [
    route("0.0.0.0/0", "eth0"),
    route("8.8.8.0/24", "eth0"),
    route("::/0", "eth0"),
    route("2a00:1::/64", "eth0"),
  ],
};
/** A machine at home behind a router. */
const HOME = {
  interfaces: [
    face("lo", "127.0.0.1/8"),
    face("wlan0", "192.168.1.20/24"),
    face("wlan0", "fd12::20/64"),
    face("docker0", "172.17.0.1/16"),
  ],
  routes: [
    route("0.0.0.0/0", "wlan0"),
    route("192.168.1.0/24", "wlan0"),
    route("172.17.0.0/16", "docker0"),
    route("fd12::/64", "wlan0"),
    route("::/0", "wlan0"),
  ],
};
/** The server with a tunnel to a private network, and a blackhole for the rest of it. */
const TUNNEL = {
  interfaces: [...PUBLIC.interfaces, face("wg0", "10.8.0.2/24")],
  routes: [
    ...PUBLIC.routes,
    route("10.8.0.0/24", "wg0"),
    route("10.20.0.0/16", "wg0"),
    route("10.0.0.0/8", "lo", { reject: true }),
    route("100.100.0.0/16", "wg0"),
  ],
};
/** A switch and nothing else: no default route. */
const ISLAND = { interfaces: [face("eth0", "10.1.1.1/24")], routes: [route("10.1.1.0/24", "eth0")] };

const NO_DOCKER: MayDialOptions = { deniedInterface: (name) => name.startsWith("docker") };

const TABLE: readonly (readonly [string, typeof PUBLIC, string, string, MayDialOptions?])[] = [
  ["a public address from a server", PUBLIC, "1.1.1.1", "public"],
  ["a public IPv6 address from a server", PUBLIC, "2a00:2::1", "public"],
  ["a public neighbour", PUBLIC, "8.8.8.11", "on-link"],
  ["a private address over a public uplink", PUBLIC, "10.0.0.1", "private-not-routed"],
  ["the home router's page from a server", PUBLIC, "192.168.1.1", "private-not-routed"],
  ["CGNAT over a public uplink", PUBLIC, "100.64.0.1", "private-not-routed"],
  ["ULA over a public uplink", PUBLIC, "fd00::1", "private-not-routed"],
  ["a cloud's metadata service", PUBLIC, "169.254.169.254", "private-not-routed"],
  ["link-local IPv6 has no zone in a multiaddr", PUBLIC, "fe80::2", "needs-zone"],
  ["loopback of a stranger", PUBLIC, "127.0.0.1", "loopback"],
  ["IPv6 loopback of a stranger", PUBLIC, "::1", "loopback"],
  ["loopback of the user", PUBLIC, "127.0.0.1", "ok-loopback", { loopback: true }],
  ["the unspecified address", PUBLIC, "0.0.0.0", "unspecified"],
  ["the unspecified IPv6 address", PUBLIC, "::", "unspecified"],
  ["multicast", PUBLIC, "239.1.2.3", "multicast"],
  ["IPv6 multicast", PUBLIC, "ff02::1", "multicast"],
  ["limited broadcast", PUBLIC, "255.255.255.255", "broadcast"],
  ["a subnet's broadcast", PUBLIC, "8.8.8.255", "broadcast"],
  ["a subnet's first address", HOME, "192.168.1.0", "broadcast"],
  ["this network, RFC 1122", PUBLIC, "0.1.2.3", "special-not-routed"],
  ["documentation", PUBLIC, "192.0.2.1", "special-not-routed"],
  ["class E", PUBLIC, "250.0.0.1", "special-not-routed"],
  ["IPv6 documentation", PUBLIC, "2001:db8::1", "special-not-routed"],
  ["unassigned IPv6", PUBLIC, "4000::1", "special-not-routed"],
  ["a private address dressed as IPv6", PUBLIC, "::ffff:10.0.0.1", "special-not-routed"],
  ["a private address behind NAT64", PUBLIC, "64:ff9b::10.0.0.1", "special-not-routed"],
  ["loopback behind 6to4", PUBLIC, "2002:7f00:1::", "special-not-routed"],
  ["a public address behind NAT64", PUBLIC, "64:ff9b::1.1.1.1", "public"],
  ["a neighbour at home", HOME, "192.168.1.30", "on-link"],
  ["a ULA neighbour at home", HOME, "fd12::30", "on-link"],
  ["another segment behind the same router", HOME, "10.99.0.1", "intranet"],
  ["another ULA segment behind the same router", HOME, "fd99::1", "intranet"],
  ["link-local never over a router", HOME, "169.254.1.1", "private-not-routed"],
  ["documentation never over a router", HOME, "198.51.100.1", "special-not-routed"],
  ["a container bridge, when told of it", HOME, "172.17.0.2", "on-link"],
  ["a container bridge, when denied", HOME, "172.17.0.2", "interface-denied", NO_DOCKER],
  ["the tunnel's link", TUNNEL, "10.8.0.1", "on-link"],
  ["behind the tunnel", TUNNEL, "10.20.1.1", "routed"],
  ["CGNAT behind the tunnel", TUNNEL, "100.100.1.1", "routed"],
  ["a blackhole", TUNNEL, "10.30.0.1", "no-route"],
  ["beside the tunnel", TUNNEL, "172.16.0.1", "private-not-routed"],
  ["a neighbour on an island", ISLAND, "10.1.1.2", "on-link"],
  ["the Internet from an island", ISLAND, "1.1.1.1", "no-route"],
  ["another private network from an island", ISLAND, "10.1.2.1", "private-not-routed"],
];

for (const [what, host, target, wanted, options] of TABLE) {
  Deno.test(`[1.1a] mayDial(): ${what}: ${wanted}`, () => {
    const verdict = mayDial(to(target), host.routes, host.interfaces, options);
    assert.equal(
      verdict.ok ? (verdict.ground === "loopback" ? "ok-loopback" : verdict.ground) : verdict.reason,
      wanted,
    );
  });
}

Deno.test("mayDial(): halves of a default route, as tunnels set them, are no private route", () => {
  const routes = [route("0.0.0.0/1", "eth0"), route("128.0.0.0/1", "eth0")];
  const verdict = mayDial(to("192.168.7.7"), routes, PUBLIC.interfaces);
  assert.deepEqual(verdict, { ok: false, reason: "private-not-routed" });
  assert.equal(mayDial(to("1.1.1.1"), routes, PUBLIC.interfaces).ok, true);
});

Deno.test("mayDial(): without readable routes only links count for private addresses", () => {
  assert.deepEqual(mayDial(to("10.9.9.9"), undefined, HOME.interfaces), { ok: false, reason: "private-not-routed" });
  assert.deepEqual(mayDial(to("192.168.1.9"), undefined, HOME.interfaces), { ok: true, ground: "on-link" });
  assert.deepEqual(mayDial(to("1.1.1.1"), undefined, HOME.interfaces), { ok: true, ground: "public" });
});

Deno.test("mayDial(): names have to be resolved first, and other texts are no addresses", () => {
  assert.deepEqual(mayDial("/dns/localhost/tcp/1", [], []), { ok: false, reason: "unresolved-name" });
  assert.deepEqual(mayDial("/ip4/10.0.0.1/tcp/0", [], []), { ok: false, reason: "not-an-address" });
  assert.deepEqual(mayDial("10.0.0.1:4871", [], []), { ok: false, reason: "not-an-address" });
});

/** The oracle works on numbers and strings, not on bytes. */
function isPrivate4(ip: string): boolean {
  const [a, b] = ip.split(".").map(Number) as [number, number, number, number];
  return a === 10 || a === 127 || a === 0 || a >= 224 || a === 172 && b >= 16 && b <= 31 || a === 192 && b === 168 ||
    a === 100 && b >= 64 && b <= 127 || a === 169 && b === 254;
}

Deno.test("[1.1a] property: over a public uplink no private address is ever dialed", () => {
  const near = fc.constantFrom(
    "10",
    "127",
    "172.16",
    "172.31",
    "192.168",
    "100.64",
    "100.127",
    "169.254",
    "0",
    "224",
    "255",
  );
  const biased = fc.tuple(near, fc.ipV4()).map(([head, tail]) =>
    [...head.split("."), ...tail.split(".")].slice(0, 4).join(".")
  );
  fc.assert(
    fc.property(fc.oneof(fc.ipV4(), biased), (ip) => {
      if (!isPrivate4(ip)) return;
      assert.equal(mayDial(to(ip), PUBLIC.routes, PUBLIC.interfaces).ok, false, ip);
    }),
    { numRuns: 500 },
  );
});

Deno.test("property: an address is on-link exactly when it shares its interface's prefix", () => {
  fc.assert(fc.property(fc.ipV4(), fc.ipV4(), fc.integer({ min: 1, max: 32 }), (own, ip, bits) => {
    const value = (text: string) => text.split(".").reduce((sum, part) => sum * 256 + Number(part), 0);
    const size = 2 ** (32 - bits);
    const same = Math.floor(value(own) / size) === Math.floor(value(ip) / size);
    assert.equal(isOnLink(ip, [face("e", `${own}/${bits}`)]), same);
  }));
});

Deno.test("property: mayDial() answers for any text, and the verdict does not depend on the order of routes", () => {
  fc.assert(fc.property(fc.string({ maxLength: 80 }), (text) => {
    assert.equal(mayDial(text, HOME.routes, HOME.interfaces).ok, false);
  }));
  fc.assert(fc.property(fc.oneof(fc.ipV4(), fc.ipV6()), (ip) => {
    const one = mayDial(to(ip), TUNNEL.routes, TUNNEL.interfaces);
    assert.deepEqual(mayDial(to(ip), [...TUNNEL.routes].reverse(), TUNNEL.interfaces), one);
  }));
});

Deno.test("kindOf() knows the special addresses", () => {
  assert.equal(kindOf("172.32.0.1"), "public");
  assert.equal(kindOf("100.128.0.1"), "public");
  assert.equal(kindOf("192.0.2.1"), "special");
  assert.equal(kindOf("fe80::1"), "link-local");
  assert.equal(kindOf("fdff::"), "unique-local");
  assert.equal(kindOf("2606:4700::1111"), "public");
  assert.equal(kindOf("example"), undefined);
});

Deno.test("parseRoutes4() reads the kernel's table", () => {
  const table = `Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
*\t0000000A\t00000000\t0201\t0\t0\t7\t000000FF\t0\t0\t0
eth1\t000010AC\t00000000\t0000\t0\t0\t0\t0000F0FF\t0\t0\t0
garbage
`;
  assert.deepEqual(parseRoutes4(table), [
    route("0.0.0.0/0", "eth0", { metric: 100 }),
    route("192.0.2.0/24", "eth0"),
    route("10.0.0.0/8", "*", { metric: 7, reject: true }),
  ]);
});

Deno.test("parseRoutes6() reads the kernel's table without its own entries", () => {
  const zero = "0".repeat(32);
  const table = `fd700000000000000000000000000000 40 ${zero} 00 ${zero} 00000100 00000003 00000000 00000001     eth0
${zero} 00 ${zero} 00 fd000000000000000000000000000001 00000400 00000002 00000000 00000003     eth0
fd70000000000000000000000000000a 80 ${zero} 00 ${zero} 00000000 00000004 00000000 80200001     eth0
ff000000000000000000000000000000 08 ${zero} 00 ${zero} 00000100 00000003 00000000 00000001     eth1
${zero} 00 ${zero} 00 ${zero} ffffffff 00000001 00000000 00200200       lo
`;
  assert.deepEqual(parseRoutes6(table), [
    route("fd70:0000:0000:0000:0000:0000:0000:0000/64", "eth0", { metric: 256 }),
    route("0000:0000:0000:0000:0000:0000:0000:0000/0", "eth0", { metric: 1024 }),
  ]);
});
