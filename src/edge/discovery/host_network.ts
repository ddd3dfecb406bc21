/** The host's interfaces and routes, read from the system. @module */

import { type InterfaceAddress, parseRoutes4, parseRoutes6, type Route } from "../../bootstrap/address_policy.ts";

/** Interfaces and routes as they stand. */
export interface HostNetwork {
  readonly interfaces: readonly HostAddress[];
  /** `undefined` where the tables cannot be read. */
  readonly routes: readonly Route[] | undefined;
}

/** An address of this host with what sockets need. */
export interface HostAddress extends InterfaceAddress {
  readonly family: "ip4" | "ip6";
  /** Interface index, for IPv6 link-local addresses only. */
  readonly index: number | undefined;
}

/** Reads the system's interfaces and routes. */
export function readHostNetwork(): HostNetwork {
  const interfaces = Deno.networkInterfaces().slice(0, INTERFACES_MAX).map((one): HostAddress => ({
    name: one.name,
    address: one.address,
    family: one.family === "IPv4" ? "ip4" : "ip6",
    prefixLength: Number(one.cidr.split("/")[1] ?? (one.family === "IPv4" ? 32 : 128)),
    index: one.scopeid || undefined,
  }));
  const table4 = readTable("/proc/net/route");
  const table6 = readTable("/proc/net/ipv6_route");
  const routes = table4 === undefined && table6 === undefined
    ? undefined
    : [...parseRoutes4(table4 ?? ""), ...parseRoutes6(table6 ?? "")];
  return { interfaces, routes };
}

/** Whether a name matches one of the patterns; `*` stands for any characters. */
export function matchesName(name: string, patterns: readonly string[]): boolean {
  return patterns.some((pattern) => {
    const expression = pattern.split("*").map((part) => part.replace(/[.+?^${}()|[\]\\]/g, "\\$&")).join(".*");
    return new RegExp(`^${expression}$`).test(name);
  });
}

const INTERFACES_MAX = 256;

function readTable(path: string): string | undefined {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    // A kernel without IPv6 has no such table, a sandbox may hide both.
    return undefined;
  }
}
