/** The host's interfaces and routes, read from the system. @module */

import { type InterfaceAddress, parseRoutes4, parseRoutes6, type Route } from "../../bootstrap/address_policy.ts";

/** Interfaces and routes as they stand. */
export interface HostNetwork {
  /** Addresses of all interfaces. */
  readonly interfaces: readonly HostAddress[];
  /** `undefined` where the tables cannot be read. */
  readonly routes: readonly Route[] | undefined;
}

/** An address of this host with what sockets need. */
export interface HostAddress extends InterfaceAddress {
  /** Of its IP address. */
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
  // A router with a whole Internet's table: knowing a part of it would say "no route" where there is one.
  const unreadable = table4 === undefined && table6 === undefined || table4 === "too long" || table6 === "too long";
  const routes = unreadable ? undefined : [...parseRoutes4(table4 ?? ""), ...parseRoutes6(table6 ?? "")];
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

/** About 4000 routes. */
const TABLE_BYTES_MAX = 512 << 10;

function readTable(path: string): string | "too long" | undefined {
  try {
    using file = Deno.openSync(path);
    const bytes = new Uint8Array(TABLE_BYTES_MAX);
    let length = 0;
    for (;;) {
      const read = file.readSync(bytes.subarray(length));
      if (read === null) return new TextDecoder().decode(bytes.subarray(0, length));
      length += read;
      if (length === bytes.length) return "too long";
    }
  } catch {
    // A kernel without IPv6 has no such table, a sandbox may hide both.
    return undefined;
  }
}
