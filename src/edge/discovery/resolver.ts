/** DNS questions with a deadline of our own: a dead server otherwise takes 15 seconds. @module */

import type { NameServer } from "./types.ts";

/** Records by type. */
export interface DnsRecords {
  A: string;
  AAAA: string;
  TXT: string[];
  SRV: Deno.SrvRecord;
}

/** Outcome of {@linkcode Resolver.ask}. `absent`: the server says that there is no such record. */
export type DnsAnswer<T> =
  | { readonly ok: true; readonly records: readonly T[] }
  | { readonly ok: false; readonly reason: "absent" | "timeout" | "failed"; readonly detail: string };

/** Options of {@linkcode Resolver}. */
export interface ResolverOptions {
  /** In order; the system's where empty. */
  readonly nameServers: readonly NameServer[];
  /** For one question to one server. */
  readonly timeoutMs: number;
}

/** Asks the configured DNS servers one after the other. */
export class Resolver {
  readonly #options: ResolverOptions;

  constructor(options: ResolverOptions) {
    this.#options = options;
  }

  /**
   * Asks for the records of a name.
   *
   * @param name With or without a trailing dot; never completed by search domains.
   * @param type Record type.
   * @param signal Ends early.
   */
  async ask<K extends keyof DnsRecords>(name: string, type: K, signal: AbortSignal): Promise<DnsAnswer<DnsRecords[K]>> {
    const full = name.endsWith(".") ? name : `${name}.`;
    const servers = this.#options.nameServers.slice(0, NAME_SERVERS_MAX);
    let last: DnsAnswer<DnsRecords[K]> = { ok: false, reason: "failed", detail: "not asked" };
    for (const server of servers.length > 0 ? servers : [undefined]) {
      if (signal.aborted) break;
      const whom = server ? `${server.ipAddr}:${server.port ?? 53}` : "the system's servers";
      const deadline = AbortSignal.timeout(this.#options.timeoutMs);
      try {
        const options = {
          signal: AbortSignal.any([signal, deadline]),
          ...(server ? { nameServer: { ...server } } : {}),
        };
        // The overloads are by literal type; the caller's K picks one of them.
        const records = await (Deno.resolveDns as (
          name: string,
          type: string,
          options: Deno.ResolveDnsOptions,
        ) => Promise<unknown>)(full, type, options) as DnsRecords[K][];
        if (records.length > 0) return { ok: true, records: records.slice(0, RECORDS_MAX) };
        return { ok: false, reason: "absent", detail: `${whom}: no ${type} record` };
      } catch (error) {
        // "No such name" is an answer: another server would say the same.
        if (error instanceof Deno.errors.NotFound) {
          return { ok: false, reason: "absent", detail: `${whom}: no ${type} record` };
        }
        last = deadline.aborted
          ? { ok: false, reason: "timeout", detail: `${whom}: no answer in ${this.#options.timeoutMs} ms` }
          : { ok: false, reason: "failed", detail: `${whom}: ${error instanceof Error ? error.message : error}` };
      }
    }
    return last;
  }

  /** IPv4 and IPv6 addresses of a name, both asked at once; empty where there are none. */
  async addresses(name: string, signal: AbortSignal): Promise<{ family: "ip4" | "ip6"; host: string }[]> {
    const [v6, v4] = await Promise.all([this.ask(name, "AAAA", signal), this.ask(name, "A", signal)]);
    return [
      ...(v6.ok ? v6.records.slice(0, ADDRESSES_MAX).map((host) => ({ family: "ip6", host }) as const) : []),
      ...(v4.ok ? v4.records.slice(0, ADDRESSES_MAX).map((host) => ({ family: "ip4", host }) as const) : []),
    ];
  }
}

const NAME_SERVERS_MAX = 3;
const RECORDS_MAX = 64;
const ADDRESSES_MAX = 8;
