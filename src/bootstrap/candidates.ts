/**
 * Candidates: addresses at which a member of the network may answer, from all sources together.
 *
 * A candidate is a hint, whoever gave it: the channel proves the node's key and the credential proves
 * membership. Verification and authority only say what to try first and what to drop when space runs out.
 *
 * @module
 */

import { formatAddress, type NodeId, parseAddress } from "../core/ids.ts";
import { LIMITS } from "../core/limits.ts";
import { backoffMs, type Rng } from "../core/rng.ts";

/** Where a candidate came from. */
export type CandidateSource =
  | "invite"
  | "config"
  | "cache"
  | "dns"
  | "mdns"
  | "multicast"
  | "broadcast"
  | "seed-file"
  | "seed-http";

/**
 * What was checked, from nothing to all: `unverified`; `authenticated`, by a MAC of the network; `signed`, by
 * the node itself or by an issuer; `verified`, a member whose credential was checked.
 */
export type Verification = "unverified" | "authenticated" | "signed" | "verified";

/** One address as one source gave it. */
export interface Candidate {
  /** Multiaddr; `/p2p/…` where the source says who answers there. */
  readonly address: string;
  /** Who said it. */
  readonly source: CandidateSource;
  /** Rank of the source, {@linkcode AUTHORITY} unless the source knows better; higher is tried first. */
  readonly authority: number;
  /** When the source gave it, milliseconds since the epoch. */
  readonly seenMs: number;
  /** From then on it is dropped, milliseconds since the epoch; {@linkcode NEVER_MS} for what the user said. */
  readonly expiresMs: number;
  /** What was checked. */
  readonly verification: Verification;
  /** For people: interface, file, URL, domain. */
  readonly detail?: string;
}

/** Far future that is still a safe integer: never expires. */
export const NEVER_MS = Number.MAX_SAFE_INTEGER;

/**
 * Rank of each source: what the user or an issuer said comes before what this node learnt itself, that before
 * what the site's administrator published, that before what the LAN shouts.
 */
export const AUTHORITY: { readonly [S in CandidateSource]: number } = {
  invite: 90,
  config: 80,
  cache: 70,
  "seed-file": 65,
  "seed-http": 60,
  dns: 50,
  multicast: 40,
  broadcast: 35,
  mdns: 30,
};

/** Sources in order of authority. */
export const SOURCES = Object.freeze(
  (Object.keys(AUTHORITY) as CandidateSource[]).sort((a, b) => AUTHORITY[b] - AUTHORITY[a]),
);

/** Waits after failed dials: full jitter up to half a second at first, up to a minute later, for ever. */
export const DIAL_BACKOFF = { baseMs: 500, maxMs: 60_000 } as const;

/** What {@linkcode CandidateSet.add} did; `full` and `not-an-address` mean that nothing was kept. */
export type AddOutcome = "added" | "merged" | "full" | "not-an-address";

/** An address to dial, with what all sources say about it. */
export interface RankedCandidate {
  /** Multiaddr in its one spelling here. */
  readonly address: string;
  /** Who should answer; absent where no source says. */
  readonly nodeId?: NodeId;
  /** Sources that name it, best first. */
  readonly sources: readonly CandidateSource[];
  /** Best of its sources. */
  readonly verification: Verification;
  /** Best of its sources. */
  readonly authority: number;
  /** Failed dials since the last success. */
  readonly failures: number;
}

/** A candidate for status: {@linkcode RankedCandidate} and its history. */
export interface CandidateView extends RankedCandidate {
  /** Since the latest sighting, milliseconds. */
  readonly ageMs: number;
  /** {@linkcode NEVER_MS} or milliseconds since the epoch. */
  readonly expiresMs: number;
  /** When it is dialed again at the earliest, 0 where it never failed. Milliseconds since the epoch. */
  readonly retryMs: number;
  /** Code of the last failure. */
  readonly lastFailure?: string;
  /** Last successful dial, milliseconds since the epoch. */
  readonly lastSuccessMs?: number;
  readonly details: readonly string[];
}

interface Entry {
  readonly address: string;
  readonly nodeId: NodeId | undefined;
  readonly family: "ip4" | "ip6" | "dns";
  /** QUIC goes first: TCP is for where UDP does not pass. */
  readonly tcp: boolean;
  readonly sightings: Map<CandidateSource, Candidate>;
  failures: number;
  retryMs: number;
  lastFailure: string | undefined;
  lastSuccessMs: number | undefined;
}

/** What an entry is ranked by, found once. */
interface Ranking {
  readonly entry: Entry;
  /** Live ones, best first. */
  readonly sightings: readonly Candidate[];
  readonly best: Candidate;
  /** Rank of the best one's verification. */
  readonly tier: number;
  readonly tie: number;
}

/** The candidates that a node knows, bounded by `LIMITS.candidatesMax` and `LIMITS.candidatesPerSourceMax`. */
export class CandidateSet {
  readonly #entries = new Map<string, Entry>();
  /** Nothing expires before. */
  #nextExpiryMs = Infinity;

  /** Distinct addresses. */
  get size(): number {
    return this.#entries.size;
  }

  /**
   * Adds what a source said. The same address from several sources is one entry. When a bound is reached the
   * least trusted, then oldest, goes; a newcomer that is itself the least trusted is not taken.
   *
   * Two spellings of the same endpoint with different node ids stay apart: a stranger who claims an address
   * for another node cannot displace the true claim.
   */
  add(candidate: Candidate): AddOutcome {
    const parsed = parseAddress(candidate.address);
    if (!parsed) return "not-an-address";
    const address = formatAddress(parsed);
    this.#nextExpiryMs = Math.min(this.#nextExpiryMs, candidate.expiresMs);
    const known = this.#entries.get(address);
    const previous = known?.sightings.get(candidate.source);
    if (known && previous) {
      known.sightings.set(candidate.source, laterOf(previous, candidate));
      // A node that just signed that it is there is worth another try soon, however often it failed before.
      if (rank(candidate.verification) >= rank("signed") && candidate.seenMs > previous.seenMs) {
        known.retryMs = Math.min(known.retryMs, candidate.seenMs + RETRY_AFTER_SIGN_OF_LIFE_MS);
      }
      return "merged";
    }
    if (!this.#makeRoom(candidate, known === undefined)) return "full";
    // Making room may have removed the very entry that was to be merged with.
    const entry = this.#entries.get(address) ?? {
      address,
      nodeId: parsed.nodeId,
      family: parsed.family,
      tcp: parsed.transport === "tcp",
      sightings: new Map<CandidateSource, Candidate>(),
      failures: 0,
      retryMs: 0,
      lastFailure: undefined,
      lastSuccessMs: undefined,
    };
    entry.sightings.set(candidate.source, candidate);
    this.#entries.set(address, entry);
    return known === entry ? "merged" : "added";
  }

  /** Drops what has expired; returns how many addresses went. */
  expire(nowMs: number): number {
    if (nowMs < this.#nextExpiryMs) return 0;
    this.#nextExpiryMs = Infinity;
    let gone = 0;
    for (const [address, entry] of this.#entries) {
      for (const [source, sighting] of entry.sightings) {
        if (sighting.expiresMs <= nowMs) entry.sightings.delete(source);
        else this.#nextExpiryMs = Math.min(this.#nextExpiryMs, sighting.expiresMs);
      }
      if (entry.sightings.size === 0) {
        this.#entries.delete(address);
        gone++;
      }
    }
    return gone;
  }

  /**
   * Addresses that may be dialed now, in the order in which to start the dials (happy eyeballs): sources take
   * turns, so that no source, however many addresses it floods, keeps another waiting for more than
   * one round; within a source the better verified, then the less failed, then the higher in authority come first, and address families alternate.
   *
   * @param nowMs Addresses that wait for their back-off to pass, and expired ones, are left out.
   * @param rng Breaks ties.
   */
  ranked(nowMs: number, rng: Rng): RankedCandidate[] {
    const queues = new Map<CandidateSource, Ranking[]>();
    for (const entry of this.#entries.values()) {
      if (entry.retryMs > nowMs) continue;
      const sightings = liveSightings(entry, nowMs);
      const best = sightings[0];
      if (!best) continue;
      const queue = queues.get(best.source) ?? [];
      queue.push({ entry, sightings, tier: rank(best.verification), best, tie: rng.below(2 ** 32) });
      queues.set(best.source, queue);
    }
    const ordered = [...queues].map(([source, queue]) => {
      queue.sort((a, b) =>
        b.tier - a.tier || a.entry.failures - b.entry.failures || b.best.authority - a.best.authority ||
        Number(a.entry.tcp) - Number(b.entry.tcp) || a.tie - b.tie
      );
      return { source, queue: alternateFamilies(queue) };
    });
    ordered.sort((a, b) => b.queue[0]!.tier - a.queue[0]!.tier || AUTHORITY[b.source] - AUTHORITY[a.source]);
    const out: RankedCandidate[] = [];
    for (let round = 0; ordered.some(({ queue }) => round < queue.length); round++) {
      for (const { queue } of ordered) {
        const one = queue[round];
        if (one) out.push(summary(one.entry, one.sightings));
      }
    }
    return out;
  }

  /** How many addresses {@linkcode ranked} would give, of those that are `wanted`. */
  count(nowMs: number, wanted: (address: string, nodeId: NodeId | undefined) => boolean): number {
    let count = 0;
    for (const entry of this.#entries.values()) {
      if (entry.retryMs <= nowMs && isLive(entry, nowMs) && wanted(entry.address, entry.nodeId)) count++;
    }
    return count;
  }

  /** When the next address that waits may be dialed, or `undefined` where none waits. Milliseconds since the epoch. */
  nextRetryMs(nowMs: number): number | undefined {
    let next: number | undefined;
    for (const entry of this.#entries.values()) {
      if (entry.retryMs > nowMs && isLive(entry, nowMs)) next = Math.min(next ?? entry.retryMs, entry.retryMs);
    }
    return next;
  }

  /**
   * Notes that a dial failed. The address waits with full jitter and is never given up while a source names it.
   *
   * @param address As {@linkcode ranked} gave it; unknown ones are ignored.
   * @param reason Stable code.
   */
  noteFailure(address: string, reason: string, nowMs: number, rng: Rng): void {
    const entry = this.#find(address);
    if (!entry) return;
    entry.retryMs = nowMs + 1 + backoffMs(entry.failures, DIAL_BACKOFF, rng);
    entry.failures++;
    entry.lastFailure = reason;
  }

  /** Notes that a dial succeeded: its failures are forgotten. */
  noteSuccess(address: string, nowMs: number): void {
    const entry = this.#find(address);
    if (!entry) return;
    entry.failures = 0;
    entry.retryMs = 0;
    entry.lastFailure = undefined;
    entry.lastSuccessMs = nowMs;
  }

  /** Forgets the failures of an address: a member has just said that it is the one to ask. */
  forgive(address: string): void {
    const entry = this.#find(address);
    if (!entry) return;
    entry.failures = 0;
    entry.retryMs = 0;
  }

  /** Drops all candidates of one source, for example invite addresses after the join. */
  removeSource(source: CandidateSource): void {
    for (const [address, entry] of this.#entries) {
      if (entry.sightings.delete(source) && entry.sightings.size === 0) this.#entries.delete(address);
    }
  }

  /** All candidates for status, best first. */
  describe(nowMs: number): CandidateView[] {
    const views = [...this.#entries.values()].map((entry): CandidateView => {
      const sightings = bySource(entry);
      return {
        ...summary(entry, sightings),
        ageMs: Math.max(0, nowMs - Math.max(...sightings.map((one) => one.seenMs))),
        expiresMs: Math.max(...sightings.map((one) => one.expiresMs)),
        retryMs: entry.retryMs,
        ...(entry.lastFailure === undefined ? {} : { lastFailure: entry.lastFailure }),
        ...(entry.lastSuccessMs === undefined ? {} : { lastSuccessMs: entry.lastSuccessMs }),
        details: [...new Set(sightings.flatMap((one) => one.detail === undefined ? [] : [one.detail]))],
      };
    });
    return views.sort((a, b) =>
      rank(b.verification) - rank(a.verification) || b.authority - a.authority || (a.address < b.address ? -1 : 1)
    );
  }

  #find(address: string): Entry | undefined {
    const parsed = parseAddress(address);
    return parsed && this.#entries.get(formatAddress(parsed));
  }

  /** Whether there is room, after dropping what is worth less than `newcomer`. */
  #makeRoom(newcomer: Candidate, newEntry: boolean): boolean {
    const ofSource = [...this.#entries.values()].filter((entry) => entry.sightings.has(newcomer.source));
    if (ofSource.length >= LIMITS.candidatesPerSourceMax) {
      const worst = leastTrusted(ofSource, (entry) => entry.sightings.get(newcomer.source)!);
      const sighting = worst.sightings.get(newcomer.source)!;
      if (rank(sighting.verification) > rank(newcomer.verification)) return false;
      worst.sightings.delete(newcomer.source);
      if (worst.sightings.size === 0) this.#entries.delete(worst.address);
    }
    if (newEntry && this.#entries.size >= LIMITS.candidatesMax) {
      const worst = leastTrusted([...this.#entries.values()], (entry) => bySource(entry)[0]!);
      const best = bySource(worst)[0]!;
      if (trustOf(best) > trustOf(newcomer)) return false;
      this.#entries.delete(worst.address);
    }
    return true;
  }
}

/** Long enough that a broken node which keeps announcing itself is not dialed without pause. */
const RETRY_AFTER_SIGN_OF_LIFE_MS = 1_000;

const VERIFICATIONS: readonly Verification[] = ["unverified", "authenticated", "signed", "verified"];

function rank(verification: Verification): number {
  return VERIFICATIONS.indexOf(verification);
}

/** Verification counts before authority. */
function trustOf(candidate: Candidate): number {
  return rank(candidate.verification) * 1_000 + candidate.authority;
}

/** Sightings of an entry, best first. */
function bySource(entry: Entry): Candidate[] {
  return [...entry.sightings.values()].sort((a, b) => trustOf(b) - trustOf(a));
}

function liveSightings(entry: Entry, nowMs: number): Candidate[] {
  return bySource(entry).filter((one) => one.expiresMs > nowMs);
}

function isLive(entry: Entry, nowMs: number): boolean {
  for (const one of entry.sightings.values()) if (one.expiresMs > nowMs) return true;
  return false;
}

function laterOf(previous: Candidate, next: Candidate): Candidate {
  // A stranger's word does not lower what was checked, nor prolong it.
  if (rank(next.verification) < rank(previous.verification) && previous.expiresMs > next.seenMs) return previous;
  return next.seenMs >= previous.seenMs ? next : previous;
}

function leastTrusted(entries: readonly Entry[], of: (entry: Entry) => Candidate): Entry {
  let worst = entries[0]!;
  for (const entry of entries) {
    const a = of(entry);
    const b = of(worst);
    if (trustOf(a) < trustOf(b) || trustOf(a) === trustOf(b) && a.seenMs < b.seenMs) worst = entry;
  }
  return worst;
}

/** Lets families take turns without letting a worse tier of verification overtake a better one. */
function alternateFamilies(queue: readonly Ranking[]): Ranking[] {
  const out: Ranking[] = [];
  const rest = [...queue];
  while (rest.length > 0) {
    const last = out.at(-1);
    const { tier } = rest[0]!;
    let at = last ? rest.findIndex((one) => one.entry.family !== last.entry.family && one.tier === tier) : 0;
    if (at < 0) at = 0;
    out.push(...rest.splice(at, 1));
  }
  return out;
}

function summary(entry: Entry, sightings: readonly Candidate[]): RankedCandidate {
  return {
    address: entry.address,
    ...(entry.nodeId === undefined ? {} : { nodeId: entry.nodeId }),
    sources: sightings.map((one) => one.source),
    verification: sightings[0]!.verification,
    authority: Math.max(...sightings.map((one) => one.authority)),
    failures: entry.failures,
  };
}
