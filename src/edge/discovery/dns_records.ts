/**
 * DNS discovery: SRV and TXT records at `_mycelium._udp.<domain>`.
 *
 * ```
 * _mycelium._udp.example.org.  SRV  0 10 4871 spore1.example.org.
 * _mycelium._udp.example.org.  TXT  "nid=0f3a5c…;host=spore1.example.org;p2p=12D3KooW…"
 * _mycelium._udp.example.org.  TXT  "nid=0f3a5c…;dnsaddr=/ip4/203.0.113.5/udp/4871/quic-v1/p2p/12D3KooW…"
 * ```
 *
 * A TXT record says which network it speaks for (`nid`: 12 or more hex digits of the network id); those of others
 * are ignored and counted, and where all of them are of others so are the SRV records. An SRV record names a host
 * and a port for QUIC and TCP both; `p2p` (with `host`, where there are several) says which node answers there.
 *
 * @module
 */

import { fromHex, toHex } from "../../core/bytes.ts";
import { parseAddress, publicKeyOf } from "../../core/ids.ts";
import type { Rng } from "../../core/rng.ts";
import { Pacer } from "./pacer.ts";
import type { Resolver } from "./resolver.ts";
import type { Source, SourceContext } from "./source.ts";
import type { DiscoveryMode } from "./types.ts";

/** Options of {@linkcode DnsRecordsSource}. */
export interface DnsRecordsOptions {
  readonly domains: readonly string[];
  readonly resolver: Resolver;
}

/** What the TXT records at one name say. */
export interface TxtFacts {
  /** Multiaddrs for this network. */
  readonly addresses: readonly string[];
  /** Node ids by host name in lower case without trailing dot; `""` for a record without host. */
  readonly nodeIds: ReadonlyMap<string, string>;
  /** Records that name this network. */
  readonly ours: number;
  /** Records that name another network. */
  readonly foreign: number;
  /** Records that hold something unreadable. */
  readonly malformed: number;
}

/**
 * Reads TXT records. A record's strings and the parts between semicolons are fields alike; a field with an
 * unknown name is ignored.
 */
export function readTxt(records: readonly (readonly string[])[], networkId: Uint8Array): TxtFacts {
  const addresses: string[] = [];
  const nodeIds = new Map<string, string>();
  let ours = 0, foreign = 0, malformed = 0;
  for (const strings of records) {
    const fields = strings.join(";").split(";").map((field) => field.trim()).filter((field) => field !== "");
    const values = (name: string) =>
      fields.filter((field) => field.toLowerCase().startsWith(`${name}=`)).map((field) => field.slice(name.length + 1));
    const nid = values("nid")[0]?.toLowerCase();
    // Something else may live at this name too, an SPF record say.
    if (nid === undefined) continue;
    if (!/^[0-9a-f]{12,64}$/.test(nid) || fromHex(nid.slice(0, nid.length & ~1)) === undefined) {
      malformed++;
      continue;
    }
    if (!toHex(networkId).startsWith(nid)) {
      foreign++;
      continue;
    }
    ours++;
    for (const address of values("dnsaddr").slice(0, ADDRESSES_MAX)) {
      if (parseAddress(address)) addresses.push(address);
      else malformed++;
    }
    const nodeId = values("p2p")[0];
    if (nodeId === undefined) continue;
    if (publicKeyOf(nodeId)) nodeIds.set(bareName(values("host")[0] ?? ""), nodeId);
    else malformed++;
  }
  return { addresses: addresses.slice(0, ADDRESSES_MAX), nodeIds, ours, foreign, malformed };
}

/** SRV records in the order in which to try them (RFC 2782): by priority, within one at random by weight. */
export function orderSrv<T extends { readonly priority: number; readonly weight: number }>(
  records: readonly T[],
  rng: Rng,
): T[] {
  const out: T[] = [];
  for (const priority of [...new Set(records.map((one) => one.priority))].sort((a, b) => a - b)) {
    // Those of weight 0 first, so that they have a small chance.
    const rest = records.filter((one) => one.priority === priority).sort((a, b) => a.weight - b.weight);
    while (rest.length > 0) {
      const total = rest.reduce((sum, one) => sum + one.weight, 0);
      let left = rng.below(total + 1);
      let at = rest.findIndex((one) => (left -= one.weight) <= 0);
      if (at < 0) at = rest.length - 1;
      out.push(...rest.splice(at, 1));
    }
  }
  return out;
}

/** The source `dns`. */
export class DnsRecordsSource implements Source {
  readonly #context: SourceContext;
  readonly #options: DnsRecordsOptions;
  readonly #pacer: Pacer;

  constructor(context: SourceContext, options: DnsRecordsOptions) {
    this.#context = context;
    this.#options = options;
    this.#pacer = new Pacer({
      ask: (signal) => this.#ask(signal),
      baseMs: context.timing.dnsBaseMs,
      maxMs: context.timing.dnsMaxMs,
      isolatedMs: context.timing.dnsIsolatedMs,
      rng: context.rng,
      onPlan: (waitMs) => context.planned(["dns"], waitMs),
    });
  }

  start(): void {
    this.#pacer.askNow();
  }

  stop(): Promise<void> {
    return this.#pacer.stop();
  }

  refresh(): void {
    this.#pacer.askNow();
  }

  setMode(mode: DiscoveryMode): void {
    this.#pacer.setMode(mode);
  }

  async #ask(signal: AbortSignal): Promise<void> {
    const domains = this.#options.domains.slice(0, DOMAINS_MAX);
    this.#context.report("dns", "asking", domains.join(", "));
    const results = await Promise.all(domains.map((domain) => this.#askDomain(bareName(domain), signal)));
    if (signal.aborted) return;
    const found = results.reduce((sum, one) => sum + one.found, 0);
    const detail = results.map((one) => one.detail).join("; ");
    const failed = results.every((one) => one.failed);
    this.#context.report("dns", found > 0 ? "found" : failed ? "failed" : "silent", detail);
  }

  async #askDomain(
    domain: string,
    signal: AbortSignal,
  ): Promise<{ found: number; failed: boolean; detail: string }> {
    const { resolver } = this.#options;
    const context = this.#context;
    const name = `_mycelium._udp.${domain}`;
    const [srv, txt] = await Promise.all([resolver.ask(name, "SRV", signal), resolver.ask(name, "TXT", signal)]);
    const facts = readTxt(txt.ok ? txt.records : [], context.networkId);
    for (let i = 0; i < facts.foreign; i++) context.refused("foreign", `dns ${domain}`);
    for (let i = 0; i < facts.malformed; i++) context.refused("malformed", `dns ${domain}`);
    const seen = async (address: string, preference: number) =>
      await context.sighted({
        address,
        source: "dns",
        verification: "unverified",
        forMs: RECORD_LIFE_MS,
        preference,
        detail: `DNS ${domain}`,
      });
    const work: Promise<boolean>[] = facts.addresses.map((address) => seen(address, 9));
    if (srv.ok && !(facts.ours === 0 && facts.foreign > 0)) {
      // A single dot as target says that there is no such service here.
      const records = orderSrv(srv.records, context.rng).filter((one) => bareName(one.target) !== "" && one.port > 0);
      const nodeIdOf = (target: string) =>
        facts.nodeIds.get(bareName(target)) ?? (records.length === 1 ? facts.nodeIds.get("") : undefined);
      records.slice(0, TARGETS_MAX).forEach((record, i) => {
        const target = bareName(record.target);
        const nodeId = nodeIdOf(target);
        const end = nodeId === undefined ? "" : `/p2p/${nodeId}`;
        const preference = Math.max(0, 9 - i);
        work.push(seen(`/dns/${target}/udp/${record.port}/quic-v1${end}`, preference));
        work.push(seen(`/dns/${target}/tcp/${record.port}${end}`, preference));
      });
    }
    const found = (await Promise.all(work)).filter(Boolean).length;
    const failed = !srv.ok && srv.reason !== "absent" && !txt.ok && txt.reason !== "absent";
    const ignored = facts.foreign > 0 ? `, ${facts.foreign} records of other networks ignored` : "";
    if (found > 0) return { found, failed: false, detail: `${domain}: ${found} addresses${ignored}` };
    const why = srv.ok || txt.ok ? "records, but no address that may be dialed" : !srv.ok ? srv.detail : "";
    return { found, failed, detail: `${domain}: ${why}${ignored}` };
  }
}

/** Records are asked again well within this; DNS's own TTL is not shown by the runtime. */
const RECORD_LIFE_MS = 30 * 60_000;
const DOMAINS_MAX = 8;
const TARGETS_MAX = 16;
const ADDRESSES_MAX = 32;

function bareName(name: string): string {
  return name.trim().toLowerCase().replace(/\.+$/, "");
}
