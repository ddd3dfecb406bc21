/** Which addresses a node tells others. @module */

import { formatAddress, parseAddress, parseIpv4, parseIpv6 } from "../../core/ids.ts";
import { LIMITS } from "../../core/limits.ts";

/** An address that a node listens on, with the real port. */
export interface Listening {
  readonly family: "ip4" | "ip6";
  /** May be a wildcard. */
  readonly host: string;
  readonly transport: "quic" | "tcp";
  readonly port: number;
  /** Whether a socket on `::` takes IPv4 too, and is to be told to others for both. */
  readonly isDual?: boolean;
}

/**
 * One socket on `::` takes both families on Linux, and another one on `0.0.0.0` and the same port would fail: where
 * both wildcards are asked for, the IPv4 one is left out, or the IPv6 one on a machine that has no IPv6.
 */
export function mergeWildcards(
  listening: readonly Listening[],
  machine: { readonly hasIpv6: boolean; readonly isDualStack: boolean },
): Listening[] {
  const hasTwin = (one: Listening) =>
    isWildcard(one.host) &&
    listening.some((other) =>
      other.family !== one.family && other.transport === one.transport && other.port === one.port &&
      isWildcard(other.host)
    );
  return listening
    .filter((one) => {
      if (!hasTwin(one)) return true;
      if (one.family === "ip6") return machine.hasIpv6;
      return !machine.hasIpv6 || !machine.isDualStack;
    })
    .map((one) => hasTwin(one) && one.family === "ip6" && machine.isDualStack ? { ...one, isDual: true } : one);
}

/** What {@linkcode expandListening} reads of `Deno.networkInterfaces()`. */
export interface InterfaceAddress {
  readonly family: "IPv4" | "IPv6";
  readonly address: string;
}

/**
 * Parses a listen address, whose port may be 0.
 *
 * @throws {TypeError} When it is no address to listen on.
 */
export function parseListen(input: string): Listening {
  const match = /^\/(ip4|ip6)\/([^/]+)\/(?:udp\/(\d{1,5})\/quic-v1|tcp\/(\d{1,5}))$/.exec(input);
  const [, family, host, udp, tcp] = match ?? [];
  const port = Number(udp ?? tcp);
  const good = family === "ip4" ? parseIpv4(host!) : family === "ip6" ? parseIpv6(host!) : undefined;
  if (!good || port > 65535) {
    throw new TypeError(
      `Cannot listen on "${input}": wanted /ip4/<address>/udp/<port>/quic-v1 or /ip4/<address>/tcp/<port> (or ip6)`,
    );
  }
  return { family: family as "ip4" | "ip6", host: host!, transport: udp === undefined ? "tcp" : "quic", port };
}

/** Whether a host is the wildcard of its family. */
export function isWildcard(host: string): boolean {
  const bytes = parseIpv4(host) ?? parseIpv6(host);
  return bytes !== undefined && bytes.every((byte) => byte === 0);
}

/**
 * The multiaddrs of a node: what it was told to advertise, then one for each address of each interface where it
 * listens on a wildcard. Loopback addresses are told only where there is nothing else, link-local ones never:
 * their zone means nothing to others.
 */
export function expandListening(
  listening: readonly Listening[],
  interfaces: readonly InterfaceAddress[],
  options: { readonly nodeId: string; readonly advertise: readonly string[] },
): string[] {
  const out = new Set<string>();
  for (const text of options.advertise) {
    const address = parseAddress(text);
    if (address) out.add(formatAddress({ ...address, nodeId: options.nodeId }));
  }
  const add = ({ family, transport, port }: Listening, host: string) =>
    out.add(formatAddress({ family, host, transport, port, nodeId: options.nodeId }));
  const all = listening.flatMap((one): Listening[] =>
    one.isDual ? [{ ...one, family: "ip4", host: "0.0.0.0" }, one] : [one]
  );
  for (const one of all) {
    if (!isWildcard(one.host)) {
      add(one, one.host);
      continue;
    }
    const hosts = interfaces
      .filter(({ family }) => (family === "IPv4") === (one.family === "ip4"))
      .map(({ address }) => address.replace(/%.*$/, ""))
      .filter((host) => !isLinkLocal(host));
    const others = hosts.filter((host) => !isLoopback(host));
    for (const host of others.length > 0 ? others : hosts) add(one, host);
  }
  return [...out].slice(0, LIMITS.addressesPerNodeMax);
}

/** A host as sockets tell it, without brackets or zone, and as IPv4 where IPv6 only carries it (`::ffff:a.b.c.d`). */
export function plainHost(host: string): { readonly family: "ip4" | "ip6"; readonly host: string } {
  const plain = host.replace(/^\[|\]$|%.*$/g, "");
  const v6 = parseIpv6(plain);
  if (!v6) return { family: "ip4", host: plain };
  const isMapped = v6.subarray(0, 10).every((byte) => byte === 0) && v6[10] === 0xff && v6[11] === 0xff;
  return isMapped ? { family: "ip4", host: v6.subarray(12).join(".") } : { family: "ip6", host: plain };
}

/** Whether a host is a loopback address. */
export function isLoopback(host: string): boolean {
  const v4 = parseIpv4(host);
  if (v4) return v4[0] === 127;
  const v6 = parseIpv6(host);
  return v6 !== undefined && v6.every((byte, i) => byte === (i === 15 ? 1 : 0));
}

function isLinkLocal(host: string): boolean {
  const v6 = parseIpv6(host);
  if (v6) return v6[0] === 0xfe && (v6[1]! & 0xc0) === 0x80;
  const v4 = parseIpv4(host);
  return v4 !== undefined && v4[0] === 169 && v4[1] === 254;
}
