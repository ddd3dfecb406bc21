/**
 * Which addresses a node may send to.
 *
 * What a beacon, a DNS record or a stranger names may be anything: the router's web page at 192.168.1.1, a
 * cloud's metadata service at 169.254.169.254, a port on this very host. A provider's network also answers
 * abuse reports for packets sent to private addresses over its uplink. So private and special addresses are
 * dialed only where they are plainly ours: on the link, or on a route that somebody set up for them.
 *
 * @module
 */

import { type Address, parseAddress, parseIpv4, parseIpv6 } from "../core/ids.ts";

/** An address of a network interface of this host. */
export interface InterfaceAddress {
  /** For example `eth0`. */
  readonly name: string;
  /** IPv4 or IPv6 address, without zone. */
  readonly address: string;
  /** Bits of its subnet, 0 to 32 or 128. */
  readonly prefixLength: number;
}

/** A route of this host's main table. */
export interface Route {
  /** Network address, IPv4 or IPv6. */
  readonly destination: string;
  /** 0 is a default route. */
  readonly prefixLength: number;
  /** Interface it leads to. */
  readonly interfaceName: string;
  /** Where routes are as long as each other the lowest wins. */
  readonly metric: number;
  /** It says "do not send" (blackhole, unreachable, prohibit). */
  readonly reject: boolean;
}

/** What kind of address it is, by the IANA special-purpose registries (RFC 6890). */
export type AddressKind =
  | "public"
  | "private"
  | "shared"
  | "unique-local"
  | "link-local"
  | "loopback"
  | "multicast"
  | "broadcast"
  | "unspecified"
  | "special";

/** Why an address may be dialed. */
export type DialGround = "public" | "on-link" | "routed" | "intranet" | "loopback";

/** Why an address may not be dialed; stable, becomes a metric label. */
export type DialRefusal =
  | "not-an-address"
  | "unresolved-name"
  | "loopback"
  | "multicast"
  | "broadcast"
  | "unspecified"
  | "needs-zone"
  | "interface-denied"
  | "no-route"
  | "private-not-routed"
  | "special-not-routed";

/** Outcome of {@linkcode mayDial}. */
export type DialVerdict =
  | { readonly ok: true; readonly ground: DialGround }
  | { readonly ok: false; readonly reason: DialRefusal };

/** Options of {@linkcode mayDial}. */
export interface MayDialOptions {
  /** Loopback is wanted: the address came from this host's user (config, invite, own cache). @default {false} */
  readonly loopback?: boolean;
  /** Interfaces whose links do not count, container bridges for example. */
  readonly deniedInterface?: (name: string) => boolean;
}

/**
 * Whether this host may send to an address.
 *
 * @param address Multiaddr.
 * @param routes Main routing table, or `undefined` where it cannot be read; then only links count.
 * @param interfaces Addresses of this host.
 * @param options What else is allowed.
 */
export function mayDial(
  address: string,
  routes: readonly Route[] | undefined,
  interfaces: readonly InterfaceAddress[],
  options: MayDialOptions = {},
): DialVerdict {
  const parsed = parseAddress(address);
  if (!parsed) return refuse("not-an-address");
  return mayReach(parsed, routes, interfaces, options);
}

/** As {@linkcode mayDial}, for a bare IP address. */
export function mayReach(
  target: Pick<Address, "family" | "host">,
  routes: readonly Route[] | undefined,
  interfaces: readonly InterfaceAddress[],
  options: MayDialOptions = {},
): DialVerdict {
  if (target.family === "dns") return refuse("unresolved-name");
  const ip = parseIp(target.host);
  if (!ip) return refuse("not-an-address");
  const kind = kindOfIp(ip);
  switch (kind) {
    case "unspecified":
    case "multicast":
    case "broadcast":
      return refuse(kind);
    case "loopback":
      return options.loopback ? { ok: true, ground: "loopback" } : refuse("loopback");
    case "link-local":
      // Which link is meant is not in a multiaddr of ours.
      if (ip.length === 16) return refuse("needs-zone");
      break;
  }

  const link = onLink(ip, interfaces, options.deniedInterface);
  if (link === "broadcast") return refuse("broadcast");
  if (link === "on-link") return { ok: true, ground: "on-link" };
  if (link === "denied" && kind !== "public") return refuse("interface-denied");

  if (kind === "link-local") return refuse("private-not-routed");
  const route = routes === undefined ? undefined : bestRoute(ip, routes);
  if (kind === "public") {
    if (routes === undefined) return { ok: true, ground: "public" };
    return route && !route.reject ? { ok: true, ground: "public" } : refuse("no-route");
  }
  const reason: DialRefusal = kind === "special" ? "special-not-routed" : "private-not-routed";
  if (!route || route.reject) return refuse(route?.reject ? "no-route" : reason);
  if (options.deniedInterface?.(route.interfaceName)) return refuse("interface-denied");
  if (!isDefaultLike(route, ip.length)) return { ok: true, ground: "routed" };
  // Behind a router with a private address of our own, other private addresses may well be its other segments.
  const ours = interfaces.some((one) => {
    const own = one.name === route.interfaceName ? parseIp(one.address) : undefined;
    return own?.length === ip.length && PRIVATE_KINDS.has(kindOfIp(own));
  });
  return kind !== "special" && ours ? { ok: true, ground: "intranet" } : refuse(reason);
}

/** Kind of an IP address; `undefined` where the text is none. */
export function kindOf(host: string): AddressKind | undefined {
  const ip = parseIp(host);
  return ip && kindOfIp(ip);
}

/** Whether an address lies in the subnet of an interface, so that its sender can be a neighbour. */
export function isOnLink(host: string, interfaces: readonly InterfaceAddress[]): boolean {
  const ip = parseIp(host);
  if (!ip) return false;
  return interfaces.some((one) => {
    const own = parseIp(one.address);
    return own?.length === ip.length && one.prefixLength > 0 && samePrefix(own, ip, one.prefixLength);
  });
}

/**
 * Parses the kernel's IPv4 table, `/proc/net/route`. Lines that do not read are skipped.
 *
 * @param table The file's text; numbers in it are little-endian hexadecimal.
 */
export function parseRoutes4(table: string): Route[] {
  const routes: Route[] = [];
  for (const line of table.split("\n").slice(1, ROUTES_MAX)) {
    const [name, destination, , flags, , , metric, mask] = line.trim().split(/\s+/);
    if (!name || !/^[0-9A-Fa-f]{8}$/.test(destination ?? "") || !/^[0-9A-Fa-f]{8}$/.test(mask ?? "")) continue;
    const bits = Number.parseInt(flags ?? "", 16);
    if (!(bits & RTF_UP)) continue;
    const octets = [6, 4, 2, 0].map((at) => Number.parseInt(destination!.slice(at, at + 2), 16));
    const ones = [6, 4, 2, 0].map((at) => Number.parseInt(mask!.slice(at, at + 2), 16).toString(2).padStart(8, "0"));
    const prefixLength = /^1*/.exec(ones.join(""))![0].length;
    routes.push({
      destination: octets.join("."),
      prefixLength,
      interfaceName: name,
      metric: Number(metric) || 0,
      reject: (bits & RTF_REJECT) !== 0,
    });
  }
  return routes;
}

/**
 * Parses the kernel's IPv6 table, `/proc/net/ipv6_route`, without its local and multicast entries.
 *
 * @param table The file's text.
 */
export function parseRoutes6(table: string): Route[] {
  const routes: Route[] = [];
  for (const line of table.split("\n").slice(0, ROUTES_MAX)) {
    const fields = line.trim().split(/\s+/);
    const [destination, prefix, , , , metric, , , flags, name] = fields;
    if (fields.length < 10 || !/^[0-9a-f]{32}$/.test(destination!) || !name) continue;
    const bits = Number.parseInt(flags!, 16);
    // RTF_LOCAL: the host's own addresses. The reject route of `lo` is the table's end mark, not a decision.
    if (!(bits & RTF_UP) && !(bits & RTF_REJECT) || bits >>> 31 || destination!.startsWith("ff") || name === "lo") {
      continue;
    }
    routes.push({
      destination: destination!.match(/.{4}/g)!.join(":"),
      prefixLength: Number.parseInt(prefix!, 16),
      interfaceName: name,
      metric: Number.parseInt(metric!, 16),
      reject: (bits & RTF_REJECT) !== 0,
    });
  }
  return routes;
}

const ROUTES_MAX = 4_096;
const RTF_UP = 0x1;
const RTF_REJECT = 0x200;

const PRIVATE_KINDS: ReadonlySet<AddressKind> = new Set(["private", "shared", "unique-local"]);

function refuse(reason: DialRefusal): DialVerdict {
  return { ok: false, reason };
}

function parseIp(host: string): Uint8Array | undefined {
  return parseIpv4(host) ?? parseIpv6(host);
}

/** Prefixes in order of precedence: the first that matches decides. */
const KINDS4: readonly (readonly [string, number, AddressKind])[] = [
  ["0.0.0.0", 32, "unspecified"],
  ["255.255.255.255", 32, "broadcast"],
  ["10.0.0.0", 8, "private"],
  ["172.16.0.0", 12, "private"],
  ["192.168.0.0", 16, "private"],
  ["100.64.0.0", 10, "shared"],
  ["127.0.0.0", 8, "loopback"],
  ["169.254.0.0", 16, "link-local"],
  ["224.0.0.0", 4, "multicast"],
  ["0.0.0.0", 8, "special"],
  ["192.0.0.0", 24, "special"],
  ["192.0.2.0", 24, "special"],
  ["192.88.99.0", 24, "special"],
  ["198.18.0.0", 15, "special"],
  ["198.51.100.0", 24, "special"],
  ["203.0.113.0", 24, "special"],
  ["240.0.0.0", 4, "special"],
];

const KINDS6: readonly (readonly [string, number, AddressKind])[] = [
  ["::", 128, "unspecified"],
  ["::1", 128, "loopback"],
  ["fe80::", 10, "link-local"],
  ["fc00::", 7, "unique-local"],
  ["ff00::", 8, "multicast"],
  ["2001:db8::", 32, "special"],
  // Teredo, benchmarking, ORCHID and the rest of the IETF's own block.
  ["2001::", 23, "special"],
  ["2000::", 3, "public"],
];

const parsed = (table: readonly (readonly [string, number, AddressKind])[]) =>
  table.map(([prefix, length, kind]) => ({ prefix: parseIp(prefix)!, length, kind }));
const TABLE4 = parsed(KINDS4);
const TABLE6 = parsed(KINDS6);
const NAT64 = parseIp("64:ff9b::")!;
const SIX_TO_FOUR = parseIp("2002::")!;

function kindOfIp(ip: Uint8Array): AddressKind {
  if (ip.length === 16) {
    // An IPv4 address in disguise counts as what it leads to, and only a public one may be used so.
    const inner = samePrefix(ip, NAT64, 96)
      ? ip.subarray(12)
      : samePrefix(ip, SIX_TO_FOUR, 16)
      ? ip.subarray(2, 6)
      : undefined;
    if (inner) return kindOfIp(inner) === "public" ? "public" : "special";
    // Everything outside global unicast that has no name above is unassigned, `::ffff:0:0/96` included.
    return TABLE6.find((one) => samePrefix(ip, one.prefix, one.length))?.kind ?? "special";
  }
  return TABLE4.find((one) => samePrefix(ip, one.prefix, one.length))?.kind ?? "public";
}

function samePrefix(a: Uint8Array, b: Uint8Array, bits: number): boolean {
  const whole = bits >> 3;
  for (let i = 0; i < whole; i++) if (a[i] !== b[i]) return false;
  const rest = bits & 7;
  return rest === 0 || (a[whole]! ^ b[whole]!) >> (8 - rest) === 0;
}

function onLink(
  ip: Uint8Array,
  interfaces: readonly InterfaceAddress[],
  denied: ((name: string) => boolean) | undefined,
): "on-link" | "broadcast" | "denied" | "no" {
  let found: "denied" | "no" = "no";
  for (const one of interfaces) {
    const own = parseIp(one.address);
    if (!own || own.length !== ip.length || one.prefixLength === 0 || !samePrefix(own, ip, one.prefixLength)) continue;
    // The last address of an IPv4 subnet reaches everybody, the first is nobody's (RFC 3021: not so in a /31).
    if (ip.length === 4 && one.prefixLength < 31 && isSubnetEdge(ip, one.prefixLength)) return "broadcast";
    if (denied?.(one.name)) found = "denied";
    else return "on-link";
  }
  return found;
}

function isSubnetEdge(ip: Uint8Array, prefixLength: number): boolean {
  const value = new DataView(ip.buffer, ip.byteOffset, 4).getUint32(0);
  const mask = 2 ** (32 - prefixLength) - 1;
  const host = (value & mask) >>> 0;
  return host === 0 || host === mask;
}

function bestRoute(ip: Uint8Array, routes: readonly Route[]): Route | undefined {
  let best: Route | undefined;
  for (const route of routes) {
    const destination = parseIp(route.destination);
    if (!destination || destination.length !== ip.length || !samePrefix(destination, ip, route.prefixLength)) continue;
    if (
      !best || route.prefixLength > best.prefixLength ||
      route.prefixLength === best.prefixLength && route.metric < best.metric
    ) best = route;
  }
  return best;
}

/** Also the halves by which tunnels replace a default route (`0.0.0.0/1`), and all of global IPv6. */
function isDefaultLike(route: Route, bytes: number): boolean {
  return route.prefixLength <= (bytes === 4 ? 1 : 3);
}
