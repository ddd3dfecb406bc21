/**
 * Finds addresses of members by all sources at once: what the user said, what this node remembers, seed
 * documents, DNS, mDNS, multicast and broadcast. See ADR 0005.
 *
 * @module
 */

import { type DialVerdict, mayDial } from "../../bootstrap/address_policy.ts";
import { AUTHORITY, type CandidateSource, NEVER_MS, SOURCES } from "../../bootstrap/candidates.ts";
import { formatAddress, nodeIdOf, parseAddress } from "../../core/ids.ts";
import { LIMITS } from "../../core/limits.ts";
import { seededRng } from "../../core/rng.ts";
import { DnsRecordsSource } from "./dns_records.ts";
import { type HostAddress, type HostNetwork, matchesName, readHostNetwork } from "./host_network.ts";
import { LanBeacons } from "./lan_beacons.ts";
import { MdnsSource } from "./mdns.ts";
import { Pacer } from "./pacer.ts";
import { Resolver } from "./resolver.ts";
import { SeedSources } from "./seed_sources.ts";
import type { Sighting, Source, SourceContext } from "./source.ts";
import {
  CONTAINER_INTERFACES,
  type Discovery,
  DISCOVERY_TIMING,
  type DiscoveryHandlers,
  type DiscoveryMode,
  type DiscoveryOptions,
  type DiscoveryTiming,
  type DiscoveryView,
  type SourceReport,
  type SourceState,
} from "./types.ts";

/** Makes the discovery of one node. Nothing is opened or sent before `start()`. */
export function createDiscovery(options: DiscoveryOptions, handlers: DiscoveryHandlers): Discovery {
  return new AllSources(options, handlers);
}

class AllSources implements Discovery, SourceContext {
  readonly networkId: Uint8Array;
  readonly keyPair;
  readonly nodeId: string;
  readonly timing: DiscoveryTiming;
  readonly rng;
  readonly #options: DiscoveryOptions;
  readonly #handlers: DiscoveryHandlers;
  readonly #resolver: Resolver;
  readonly #abort = new AbortController();
  readonly #reports = new Map<CandidateSource, SourceReport>();
  readonly #candidates = new Map<CandidateSource, number>();
  readonly #refused = new Map<string, number>();
  #sources: readonly Source[] = [];
  #seeds: SeedSources | undefined;
  #interfacesTimer: ReturnType<typeof setTimeout> | undefined;
  #looking: Promise<void> = Promise.resolve();
  #network: HostNetwork | undefined;
  #networkReadAt = -Infinity;
  #used: readonly HostAddress[] = [];
  #mode: DiscoveryMode = "seeking";
  #announced: readonly string[] = [];
  #started = false;
  /** Looks at the interfaces in a row at which some socket could not be opened. */
  #troubles = 0;
  #packetsIn = 0;
  #packetsOut = 0;
  #bytesIn = 0;
  #bytesOut = 0;

  constructor(options: DiscoveryOptions, handlers: DiscoveryHandlers) {
    this.#options = options;
    this.#handlers = handlers;
    this.networkId = options.networkId;
    this.keyPair = options.keyPair;
    this.nodeId = nodeIdOf(options.keyPair.publicKey);
    this.timing = { ...DISCOVERY_TIMING, ...options.timing };
    this.rng = options.rng ?? seededRng(crypto.getRandomValues(new Int32Array(1))[0]!);
    this.#resolver = new Resolver({ nameServers: options.nameServers ?? [], timeoutMs: this.timing.dnsTimeoutMs });
  }

  start(): void {
    if (this.#started || this.#abort.signal.aborted) return;
    this.#started = true;
    this.#sources = this.#make();
    for (const source of this.#sources) {
      source.setMode(this.#mode);
      source.announce?.(this.#announced);
      source.start();
    }
    this.#look();
  }

  async stop(): Promise<void> {
    this.#abort.abort();
    clearTimeout(this.#interfacesTimer);
    await this.#looking;
    await Promise.all(this.#sources.map((source) => source.stop()));
  }

  refresh(): void {
    if (!this.#started || this.#abort.signal.aborted) return;
    this.#look();
    for (const source of this.#sources) source.refresh();
  }

  announce(addresses: readonly string[]): void {
    const own: string[] = [];
    for (const address of addresses) {
      const parsed = parseAddress(address);
      // Only what another host can use; a bare `0.0.0.0` helps nobody.
      if (!parsed || parsed.host === "0.0.0.0" || parsed.host === "::") continue;
      own.push(formatAddress({ ...parsed, nodeId: this.nodeId }));
    }
    this.#announced = own.slice(0, LIMITS.addressesPerNodeMax);
    if (this.#abort.signal.aborted) return;
    for (const source of this.#sources) source.announce?.(this.#announced);
  }

  setMode(mode: DiscoveryMode): void {
    if (mode === this.#mode) return;
    this.#mode = mode;
    if (!this.#started || this.#abort.signal.aborted) return;
    for (const source of this.#sources) source.setMode(mode);
    this.#look();
  }

  mayDial(address: string, options: { readonly loopback?: boolean } = {}): DialVerdict {
    const { routes, interfaces } = this.hostNetwork();
    return mayDial(address, routes, interfaces, {
      ...options,
      // What the user named is meant, container bridge or not.
      ...(options.loopback ? {} : { deniedInterface: (name: string) => name !== "lo" && !this.usesInterface(name) }),
    });
  }

  describe(): DiscoveryView {
    return {
      mode: this.#mode,
      sources: SOURCES.flatMap((source) => this.#reports.get(source) ?? []),
      interfaces: this.#used.map((one) => `${one.name} ${one.address}`),
      seeds: this.#seeds?.view() ?? [],
      announced: this.#announced,
      packetsIn: this.#packetsIn,
      packetsOut: this.#packetsOut,
      bytesIn: this.#bytesIn,
      bytesOut: this.#bytesOut,
      candidates: new Map(this.#candidates),
      refused: new Map(this.#refused),
    };
  }

  // What the sources use.

  now(): number {
    return (this.#options.now ?? Date.now)();
  }

  hostNetwork(): HostNetwork {
    if (!this.#network || performance.now() - this.#networkReadAt > 2_000) {
      this.#network = readHostNetwork();
      this.#networkReadAt = performance.now();
    }
    return this.#network;
  }

  usesInterface(name: string): boolean {
    const { allowedInterfaces, deniedInterfaces } = this.#options;
    if (matchesName(name, deniedInterfaces ?? CONTAINER_INTERFACES)) return false;
    return allowedInterfaces === undefined ? name !== "lo" : matchesName(name, allowedInterfaces);
  }

  async sighted(sighting: Sighting): Promise<boolean> {
    const parsed = parseAddress(sighting.address);
    const from = `${sighting.source} ${sighting.detail}`;
    if (!parsed) {
      this.refused("not-an-address", from);
      return false;
    }
    if (parsed.nodeId === this.nodeId) {
      this.refused("own", from);
      return false;
    }
    let targets = [parsed];
    let named = "";
    if (parsed.family === "dns") {
      // A stranger on the LAN must not make us ask the world's DNS for whatever it likes.
      if (LAN_SOURCES.has(sighting.source)) {
        this.refused("unresolved-name", from);
        return false;
      }
      const found = await this.#resolver.addresses(parsed.host, this.#abort.signal);
      if (found.length === 0 && !this.#abort.signal.aborted) this.refused("unresolved-name", from);
      targets = found.map((one) => ({ ...parsed, ...one }));
      named = `, ${parsed.host}`;
    }
    let told = false;
    for (const target of targets) {
      if (this.#abort.signal.aborted) return false;
      const address = formatAddress(target);
      const verdict = this.mayDial(address, { loopback: sighting.loopback ?? false });
      if (!verdict.ok) {
        this.refused(verdict.reason, `${from}${named} ${target.host}`);
        continue;
      }
      const nowMs = this.now();
      this.#candidates.set(sighting.source, (this.#candidates.get(sighting.source) ?? 0) + 1);
      this.#handlers.onCandidate({
        address,
        source: sighting.source,
        authority: AUTHORITY[sighting.source] + (sighting.preference ?? 0),
        seenMs: sighting.seenMs ?? nowMs,
        expiresMs: sighting.forMs === NEVER_MS ? NEVER_MS : nowMs + sighting.forMs,
        verification: sighting.verification,
        detail: sighting.detail + named,
      });
      told = true;
    }
    return told;
  }

  refused(reason: string, from: string): void {
    this.#refused.set(reason, (this.#refused.get(reason) ?? 0) + 1);
    // Our own beacons come back all the time, and others' over several paths; that is no news.
    if (reason !== "own" && reason !== "copy" && !this.#abort.signal.aborted) this.#handlers.onRefused(reason, from);
  }

  report(source: CandidateSource, state: SourceState, detail: string): void {
    this.#tell({ source, state, detail: detail.slice(0, DETAIL_CHARS_MAX) });
  }

  planned(sources: readonly CandidateSource[], waitMs: number | undefined): void {
    for (const source of sources) {
      const last = this.#reports.get(source) ?? { source, state: "idle", detail: "" };
      const { nextMs: _, ...rest } = last;
      const state = this.#mode === "member" && last.state !== "failed" ? "idle" : last.state;
      this.#tell({ ...rest, state, ...(waitMs === undefined ? {} : { nextMs: Math.round(this.now() + waitMs) }) });
    }
  }

  countIn(bytes: number): void {
    this.#packetsIn++;
    this.#bytesIn += bytes;
  }

  countOut(bytes: number): void {
    this.#packetsOut++;
    this.#bytesOut += bytes;
  }

  #tell(report: SourceReport): void {
    this.#reports.set(report.source, report);
    if (!this.#abort.signal.aborted) this.#handlers.onSourceState(report);
  }

  #make(): Source[] {
    const options = this.#options;
    const incarnation = nextIncarnation(options.cacheDir, this.now());
    const discoverySecret = options.discoverySecret;
    const multicastLoopback = options.multicastLoopback ?? true;
    const multicast = options.multicast ?? true;
    const broadcast = options.broadcast ?? true;
    const sources: Source[] = [new KnownAddresses(this, options)];
    if ((options.seedFiles?.length ?? 0) + (options.seedUrls?.length ?? 0) > 0) {
      this.#seeds = new SeedSources(this, {
        files: options.seedFiles ?? [],
        urls: options.seedUrls ?? [],
        open: options.openSeed ??
          (() => ({ ok: false, reason: "unknown-signer", detail: "nobody's word counts here" })),
        found: (content, from) => this.#abort.signal.aborted ? undefined : this.#handlers.onSeed(content, from),
        cacheDir: options.cacheDir,
        resolver: this.#resolver,
      });
      sources.push(this.#seeds);
    }
    if (options.domains && options.domains.length > 0) {
      sources.push(new DnsRecordsSource(this, { domains: options.domains, resolver: this.#resolver }));
    }
    if (options.mdns ?? true) {
      sources.push(
        new MdnsSource(this, {
          discoverySecret,
          multicastLoopback,
          port: options.mdnsPort ?? 5_353,
          group4: "224.0.0.251",
          incarnation,
        }),
      );
    }
    if (multicast || broadcast) {
      sources.push(
        new LanBeacons(this, {
          discoverySecret,
          multicast,
          broadcast,
          multicastLoopback,
          port: options.beaconPort ?? 4_872,
          group4: options.group4 ?? "239.77.67.1",
          group6: options.group6 ?? "ff05::4d43:1",
          incarnation,
        }),
      );
    }
    return sources;
  }

  /** Looks at the interfaces and tells the sources; again after a while. */
  #look(): void {
    clearTimeout(this.#interfacesTimer);
    this.#looking = this.#looking.then(async () => {
      if (this.#abort.signal.aborted) return;
      this.#networkReadAt = -Infinity;
      this.#used = this.hostNetwork().interfaces.filter((one) => this.usesInterface(one.name));
      const troubled = await Promise.all(
        this.#sources.map((source) => source.interfacesChanged?.(this.#used) ?? false),
      );
      if (this.#abort.signal.aborted) return;
      const { interfacesMemberMs, interfacesSeekingMs } = this.timing;
      const regularMs = this.#mode === "member" ? interfacesMemberMs : interfacesSeekingMs;
      // An IPv6 address cannot be bound during its first seconds, while it is checked for duplicates; a port that
      // another program holds stays so, and is asked for ever less often.
      this.#troubles = troubled.some(Boolean) ? this.#troubles + 1 : 0;
      const soonMs = INTERFACES_AGAIN_MS * 2 ** Math.min(this.#troubles - 1, 10);
      const waitMs = this.#troubles > 0 ? Math.min(regularMs, soonMs) : regularMs;
      clearTimeout(this.#interfacesTimer);
      this.#interfacesTimer = setTimeout(() => this.#look(), waitMs);
    });
  }
}

/** The sources `invite`, `config` and `cache`: addresses that are there from the start. */
class KnownAddresses implements Source {
  readonly #context: SourceContext;
  readonly #options: DiscoveryOptions;
  readonly #pacer: Pacer;

  constructor(context: SourceContext, options: DiscoveryOptions) {
    this.#context = context;
    this.#options = options;
    const { timing, rng } = context;
    const sources = [
      ...(options.inviteAddresses?.length ? ["invite"] as const : []),
      ...(options.configAddresses?.length ? ["config"] as const : []),
      ...(options.cachedMembers ? ["cache"] as const : []),
    ];
    this.#pacer = new Pacer({
      ask: () => this.#tell(),
      // Names among them are resolved anew, so the rates are those of DNS.
      baseMs: timing.dnsBaseMs,
      maxMs: timing.dnsMaxMs,
      isolatedMs: timing.dnsIsolatedMs,
      rng,
      onPlan: (waitMs) => context.planned(sources, waitMs),
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

  async #tell(): Promise<void> {
    const { inviteAddresses, configAddresses, cachedMembers } = this.#options;
    await Promise.all([
      this.#tellFixed("invite", inviteAddresses),
      this.#tellFixed("config", configAddresses),
      this.#tellCached(cachedMembers),
    ]);
  }

  async #tellFixed(source: "invite" | "config", addresses: readonly string[] | undefined): Promise<void> {
    if (!addresses || addresses.length === 0) return;
    const told = await Promise.all(
      addresses.slice(0, LIMITS.candidatesPerSourceMax).map((address) =>
        this.#context.sighted({
          address,
          source,
          verification: "unverified",
          forMs: NEVER_MS,
          detail: source === "invite" ? "named by the invite" : "named by the configuration",
          loopback: true,
        })
      ),
    );
    this.#report(source, told);
  }

  async #tellCached(cachedMembers: DiscoveryOptions["cachedMembers"]): Promise<void> {
    if (!cachedMembers) return;
    const nowMs = this.#context.now();
    const told: Promise<boolean>[] = [];
    for (const member of cachedMembers().slice(0, LIMITS.candidatesPerSourceMax)) {
      if (member.expiresMs <= nowMs) {
        this.#context.refused("expired", "cache");
        continue;
      }
      for (const address of member.addresses.slice(0, LIMITS.addressesPerNodeMax)) {
        told.push(this.#context.sighted({
          address,
          source: "cache",
          verification: member.verification,
          forMs: member.expiresMs - nowMs,
          seenMs: member.seenMs,
          detail: "a member known before",
          loopback: true,
        }));
      }
    }
    this.#report("cache", await Promise.all(told));
  }

  #report(source: CandidateSource, told: readonly boolean[]): void {
    const found = told.filter(Boolean).length;
    this.#context.report(source, found > 0 ? "found" : "silent", `${found} of ${told.length} addresses may be dialed`);
  }
}

const LAN_SOURCES: ReadonlySet<CandidateSource> = new Set(["mdns", "multicast", "broadcast"]);
const INTERFACES_AGAIN_MS = 1_000;
const DETAIL_CHARS_MAX = 1_000;

/**
 * A number greater than that of each start before, also where the clock was set back or starts at 1970:
 * else our neighbours would take our beacons for replays.
 */
function nextIncarnation(cacheDir: string | undefined, nowMs: number): number {
  const now = Math.max(1, Math.floor(nowMs));
  if (cacheDir === undefined) return now;
  const path = `${cacheDir}/incarnation`;
  let last = 0;
  try {
    const stored = Number(Deno.readTextFileSync(path).trim());
    if (Number.isSafeInteger(stored) && stored >= 0 && stored < Number.MAX_SAFE_INTEGER / 2) last = stored;
  } catch {
    // First start, or an unreadable file: the clock has to do.
  }
  const next = Math.max(now, last + 1);
  try {
    Deno.mkdirSync(cacheDir, { recursive: true, mode: 0o700 });
    Deno.writeTextFileSync(`${path}.new`, `${next}\n`, { mode: 0o600 });
    Deno.renameSync(`${path}.new`, path);
  } catch {
    // Read-only disk: neighbours forget us soon enough.
  }
  return next;
}
