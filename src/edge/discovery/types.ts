/** What discovery takes and what it tells. @module */

import type { Candidate, CandidateSource, Verification } from "../../bootstrap/candidates.ts";
import type { DialVerdict } from "../../bootstrap/address_policy.ts";
import type { KeyPair } from "../../core/crypto.ts";
import type { SeedReading } from "../../agent/seeds.ts";
import type { SeedSourceStatus } from "../../agent/status.ts";
import type { Rng } from "../../core/rng.ts";

/**
 * How hard to look: `seeking` at once and then ever slower; `member` only answers and announces itself
 * rarely; `isolated` has looked everywhere in vain and goes on for ever at a low rate; `off` neither asks nor
 * answers, with its sockets open.
 */
export type DiscoveryMode = "seeking" | "member" | "isolated" | "off";

/** What a source is doing. */
export type SourceState = "idle" | "asking" | "found" | "silent" | "failed";

/** News of one source. */
export interface SourceReport {
  /** Which one. */
  readonly source: CandidateSource;
  /** What it is doing. */
  readonly state: SourceState;
  /** For people: what was asked, what came, what would help. */
  readonly detail: string;
  /** When it asks again, milliseconds since the epoch; absent where nothing is planned. */
  readonly nextMs?: number;
}

/** What discovery tells its owner. Handlers must not throw. */
export interface DiscoveryHandlers {
  /** A source named an address that may be dialed. The same one comes again each time that it is seen. */
  onCandidate(candidate: Candidate): void;
  /** A seed that counts was read from a file or a server, for the first time or again. */
  onSeed(content: Uint8Array, from: string): void;
  /** Something was refused. `reason` is a stable code, `from` a source with an address, file or URL. */
  onRefused(reason: string, from: string): void;
  /** A source changed what it is doing, or planned its next question. */
  onSourceState(report: SourceReport): void;
}

/** A DNS server to ask. */
export interface NameServer {
  /** IP address. */
  readonly ipAddr: string;
  /** UDP port. @default {53} */
  readonly port?: number;
}

/** A member that this node knew before; the caller has checked its credential. */
export interface CachedMember {
  /** Multiaddrs with node ids. */
  readonly addresses: readonly string[];
  /** When it was last seen, milliseconds since the epoch. */
  readonly seenMs: number;
  /** When to stop trying, milliseconds since the epoch. */
  readonly expiresMs: number;
  /** `verified` where the credential was valid when last checked. */
  readonly verification: Verification;
}

/** Rates of discovery. Milliseconds. */
export interface DiscoveryTiming {
  /** Ceiling of the first wait between LAN queries while seeking; full jitter, doubling. */
  readonly lanBaseMs: number;
  /** Ceiling of later waits. */
  readonly lanMaxMs: number;
  /** Longest wait between LAN queries while isolated; at least half of it passes. */
  readonly lanIsolatedMs: number;
  /** Shortest time between a member's announcements. */
  readonly announceMs: number;
  /** Longest random wait before a LAN query is answered, so that answers do not collide. */
  readonly answerDelayMs: number;
  /** Ceiling of the first wait between DNS rounds while seeking. */
  readonly dnsBaseMs: number;
  /** Ceiling of later waits. */
  readonly dnsMaxMs: number;
  /** Longest wait between DNS rounds while isolated. */
  readonly dnsIsolatedMs: number;
  /** One DNS question to one server. */
  readonly dnsTimeoutMs: number;
  /** Ceiling of the first wait between rounds of HTTP seeds while seeking. */
  readonly httpBaseMs: number;
  /** Ceiling of later waits. */
  readonly httpMaxMs: number;
  /** Longest wait between rounds of HTTP seeds while isolated. */
  readonly httpIsolatedMs: number;
  /** Refresh of HTTP seeds by a member, so that its copy is fresh when it is needed. */
  readonly httpMemberMs: number;
  /** One HTTP request with its redirects. */
  readonly httpTimeoutMs: number;
  /** Ceiling of the first wait between looks at the seed files. */
  readonly fileBaseMs: number;
  /** Ceiling of later waits. */
  readonly fileMaxMs: number;
  /** Look at the seed files by a member: a decision about a split may have come by stick. */
  readonly fileMemberMs: number;
  /** Look at the interfaces while seeking or isolated. */
  readonly interfacesSeekingMs: number;
  /** Look at the interfaces as a member. */
  readonly interfacesMemberMs: number;
}

/** The rates in production. */
export const DISCOVERY_TIMING: DiscoveryTiming = {
  lanBaseMs: 250,
  lanMaxMs: 30_000,
  lanIsolatedMs: 60_000,
  announceMs: 300_000,
  answerDelayMs: 120,
  dnsBaseMs: 500,
  dnsMaxMs: 30_000,
  dnsIsolatedMs: 60_000,
  dnsTimeoutMs: 1_500,
  httpBaseMs: 1_000,
  httpMaxMs: 60_000,
  httpIsolatedMs: 300_000,
  httpMemberMs: 6 * 3_600_000,
  httpTimeoutMs: 10_000,
  fileBaseMs: 1_000,
  fileMaxMs: 30_000,
  fileMemberMs: 300_000,
  interfacesSeekingMs: 10_000,
  interfacesMemberMs: 60_000,
};

/** Options of `createDiscovery`. */
export interface DiscoveryOptions {
  /** Network to look for, 32 bytes. */
  readonly networkId: Uint8Array;
  /** 32 secret bytes, from the invite or the network's own record. */
  readonly discoverySecret: Uint8Array;
  /** Signs our beacons. */
  readonly keyPair: KeyPair;
  /** Addresses of the invite. */
  readonly inviteAddresses?: readonly string[];
  /** Addresses of the configuration. */
  readonly configAddresses?: readonly string[];
  /** Members known before; asked again for each round. */
  readonly cachedMembers?: () => readonly CachedMember[];
  /** DNS domains that may hold `_mycelium._udp` records, at most 8. */
  readonly domains?: readonly string[];
  /** DNS servers in order, at most 3; the system's where empty. */
  readonly nameServers?: readonly NameServer[];
  /** Files with a seed document, at most 16. */
  readonly seedFiles?: readonly string[];
  /** http or https addresses of a seed document, at most 8 mirrors. */
  readonly seedUrls?: readonly string[];
  /** Reads a seed and says whether it counts; without it, none does. */
  readonly openSeed?: (content: Uint8Array) => SeedReading;
  /** Folder for copies of HTTP seeds and our incarnation; nothing is kept where absent. */
  readonly cacheDir?: string;
  /** Ask and answer over mDNS. @default {true} */
  readonly mdns?: boolean;
  /** Send and hear beacons by IPv4 and IPv6 multicast. @default {true} */
  readonly multicast?: boolean;
  /** Send and hear beacons by IPv4 broadcast. @default {true} */
  readonly broadcast?: boolean;
  /** Whether other nodes on this host hear our multicast. @default {true} */
  readonly multicastLoopback?: boolean;
  /** Interfaces to use, names with `*`; all but loopback and {@linkcode deniedInterfaces} where absent. */
  readonly allowedInterfaces?: readonly string[];
  /** Interfaces not to use; {@linkcode CONTAINER_INTERFACES} where absent. */
  readonly deniedInterfaces?: readonly string[];
  /** UDP port of the beacons. @default {4872} */
  readonly beaconPort?: number;
  /** IPv4 multicast group of the beacons. @default {"239.77.67.1"} */
  readonly group4?: string;
  /** IPv6 multicast group of the beacons. @default {"ff05::4d43:1"} */
  readonly group6?: string;
  /** UDP port of mDNS. @default {5353} */
  readonly mdnsPort?: number;
  /** Wall clock, milliseconds since the epoch. @default {Date.now} */
  readonly now?: () => number;
  /** For waits and orders. Seeded from the system's randomness where absent. */
  readonly rng?: Rng;
  /** Rates that differ from {@linkcode DISCOVERY_TIMING}. */
  readonly timing?: Partial<DiscoveryTiming>;
}

/** Bridges and pairs that container runtimes make: the same addresses on every host, nobody of ours behind them. */
export const CONTAINER_INTERFACES: readonly string[] = [
  "docker*",
  "br-*",
  "veth*",
  "cni*",
  "flannel*",
  "cali*",
  "cilium*",
  "lxc*",
  "kube-*",
  "virbr*",
  "podman*",
  "nerdctl*",
];

/** State of discovery, for status. */
export interface DiscoveryView {
  /** As set last. */
  readonly mode: DiscoveryMode;
  /** Last news of each source, best authority first. */
  readonly sources: readonly SourceReport[];
  /** Interfaces in use, with the address that we send from. */
  readonly interfaces: readonly string[];
  /** Files and servers with seeds, as they stand. */
  readonly seeds: readonly SeedSourceStatus[];
  /** What we announce; empty: nothing. */
  readonly announced: readonly string[];
  /** Datagrams of beacons and mDNS received. */
  readonly packetsIn: number;
  /** Datagrams of beacons and mDNS sent. */
  readonly packetsOut: number;
  /** UDP payload received, bytes. */
  readonly bytesIn: number;
  /** UDP payload sent, bytes. */
  readonly bytesOut: number;
  /** Candidates told, by source. */
  readonly candidates: ReadonlyMap<string, number>;
  /** Refusals by reason, `own` (our own beacons) and `copy` (the same beacon over a second path) included. */
  readonly refused: ReadonlyMap<string, number>;
}

/** Finds addresses of members by all sources at once. */
export interface Discovery {
  /** Opens what is configured; all sources ask at once. */
  start(): void;
  /** Says goodbye, closes all, waits for what is under way. Idempotent. */
  stop(): Promise<void>;
  /** Asks all sources now. Calls closer together than 200 ms count as one. */
  refresh(): void;
  /** Sets what we announce: multiaddrs of this node. Empty: announce nothing and answer nobody. */
  announce(addresses: readonly string[]): void;
  /** Sets how hard to look; `seeking` when it starts. */
  setMode(mode: DiscoveryMode): void;
  /** Whether an address may be dialed from this host as it stands now. */
  mayDial(address: string, options?: { readonly loopback?: boolean }): DialVerdict;
  /** State for status. */
  describe(): DiscoveryView;
}
