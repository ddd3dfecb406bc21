/**
 * Realistic status documents: a node alone, and one of eight in a network with trouble.
 *
 * @module
 */

import { createHash } from "node:crypto";
import type { CapabilityStatus, EventStatus, HistorySample, MemberStatus, Status } from "../../src/agent/status.ts";
import { LIMITS } from "../../src/core/limits.ts";
import { nodeIdOf } from "../../src/core/ids.ts";
import type { StatusChange } from "../../src/edge/http/app.ts";

/** A moment that the fixtures are built around. */
export const FIXTURE_NOW_MS = Date.UTC(2026, 10, 23, 4, 30, 0);

const HOUR = 3_600_000;
const MINUTE = 60_000;

/** A well-formed node id that depends on `name` only. */
export function fixtureNodeId(name: string): string {
  return nodeIdOf(new Uint8Array(createHash("sha256").update(name).digest()));
}

function capabilities(over: Partial<CapabilityStatus> = {}): CapabilityStatus {
  return {
    cpus: 8,
    memoryBytes: 16 * 2 ** 30,
    diskBytes: 512 * 2 ** 30,
    diskFreeBytes: 377 * 2 ** 30,
    arch: "x86_64",
    os: "Debian GNU/Linux 12",
    kernel: "6.1.0-28-amd64",
    systemd: true,
    battery: false,
    hashesPerSecond: 1_430_000,
    ...over,
  };
}

function member(nowMs: number, name: string, index: number, over: Partial<MemberStatus> = {}): MemberStatus {
  const nodeId = fixtureNodeId(name);
  const address = `/ip4/10.20.0.${10 + index}/udp/4871/quic-v1/p2p/${nodeId}`;
  return {
    nodeId,
    name,
    role: "rhizomorph",
    pool: "default",
    state: "alive",
    stateSinceMs: nowMs - 7 * HOUR - index * 11 * MINUTE,
    lastSeenMs: nowMs - 400 - index * 130,
    addresses: [address, `/ip4/10.20.0.${10 + index}/tcp/4871/p2p/${nodeId}`],
    path: {
      address,
      transport: "quic",
      direction: index % 2 ? "inbound" : "outbound",
      sinceMs: nowMs - 2 * HOUR,
      rttMs: 0.38 + index * 0.21,
    },
    version: "0.1.0",
    issuer: false,
    credentialExpiresMs: nowMs + 17 * HOUR,
    drained: false,
    capabilities: capabilities(),
    ...over,
  };
}

function self(nowMs: number, name: string, over: Partial<MemberStatus> = {}): MemberStatus {
  const { path: _, ...rest } = member(nowMs, name, 0, { state: "self", role: "sclerotium", issuer: true, ...over });
  return { ...rest, lastSeenMs: nowMs };
}

/** Five minutes of plausible load that ends at `nowMs`. */
export function fixtureHistory(nowMs: number, quiet = false): readonly HistorySample[] {
  const samples: HistorySample[] = [];
  let [bytesIn, bytesOut, cpuMs] = [40 << 20, 31 << 20, 92_000];
  for (let step = 0; step <= 60; step++) {
    const wave = Math.sin(step / 6) + Math.sin(step / 2.3) * 0.5 + 1.6;
    bytesIn += Math.round(quiet ? 0 : 9_000 * wave + (step === 41 ? 310_000 : 0));
    bytesOut += Math.round(quiet ? 0 : 7_200 * wave);
    cpuMs += quiet ? 22 : 60 + 55 * wave;
    samples.push({
      atMs: nowMs - (60 - step) * 5_000,
      bytesIn,
      bytesOut,
      rssBytes: Math.round((58 + step * 0.06 + Math.sin(step / 4) * 1.2) * 2 ** 20),
      cpuMs: Math.round(cpuMs),
    });
  }
  return samples;
}

/** A network of one node that was just made: everything is well, and f = 0. */
export function singleNodeStatus(nowMs = FIXTURE_NOW_MS): Status {
  const name = "attic";
  const me = self(nowMs, name);
  const startedMs = nowMs - 4 * MINUTE - 12_000;
  const events: EventStatus[] = [
    { atMs: startedMs, level: "info", event: "agent-started", message: "Agent 0.1.0 started" },
    {
      atMs: startedMs + 40,
      level: "info",
      event: "network-formed",
      message: 'Network "home" formed; this node is its only issuer',
    },
    {
      atMs: startedMs + 55,
      level: "info",
      event: "invite-created",
      message: "Invite 7f3a9c created for 1 use, expires in 24 h",
    },
  ];
  return {
    schema: 1,
    nowMs,
    version: { version: "0.1.0", commit: "bc64f29", builtAt: "2026-11-23T03:58:00Z", runtime: "deno 2.9.6" },
    node: {
      nodeId: me.nodeId,
      name,
      role: "sclerotium",
      pool: "default",
      startedMs,
      addresses: me.addresses,
      capabilities: me.capabilities,
      mode: "normal",
    },
    network: {
      networkId: createHash("sha256").update("home").digest("hex"),
      name: "home",
      createdMs: startedMs + 40,
      authority: { epoch: 0, issuers: [me.nodeId], threshold: 1 },
      registrar: me.nodeId,
      profileSeq: 1,
      genesisKey: "here",
      operatorKey: true,
      revocations: 0,
    },
    credential: {
      issuedMs: startedMs + 40,
      expiresMs: startedMs + 24 * HOUR,
      renewAtMs: startedMs + 12 * HOUR,
      issuer: me.nodeId,
    },
    bootstrap: {
      stage: "verified",
      sinceMs: startedMs + 60,
      attempt: 1,
      waitingFor: [],
      failures: [],
      candidates: [],
      sources: [
        { source: "multicast", state: "listening", detail: "2 interfaces, 0 beacons heard" },
        { source: "mdns", state: "listening", detail: "no answers" },
        { source: "dns", state: "off", detail: "no domain is configured" },
      ],
      timeline: [
        { stage: "forming", atMs: startedMs + 12 },
        { stage: "verified", atMs: startedMs + 60 },
      ],
    },
    tolerance: {
      members: 1,
      issuers: 1,
      crashFaults: 0,
      byzantineFaults: 0,
      note: "One node alone: f = 0. If it stops, the network stops.",
    },
    members: [{ ...me, stateSinceMs: startedMs, credentialExpiresMs: startedMs + 24 * HOUR }],
    invites: [{
      id: "7f3a9c",
      pool: "default",
      usesLeft: 1,
      uses: 1,
      createdMs: startedMs + 55,
      expiresMs: startedMs + 24 * HOUR,
      approval: false,
      state: "open",
      usedBy: [],
    }],
    pending: [],
    assignments: [],
    config: { version: 1 },
    health: {
      ready: true,
      health: "ok",
      reasons: [],
      components: ["store", "channels", "discovery", "membership", "status"].map((component) => ({
        name: component,
        health: "ok" as const,
        reason: "",
        sinceMs: startedMs + 60,
      })),
    },
    traffic: { bytesIn: 41_943_040, bytesOut: 32_505_856, callsIn: 0, callsOut: 0, channels: 0 },
    refusals: {},
    process: {
      pid: 4242,
      rssBytes: Math.round(58.4 * 2 ** 20),
      cpuMs: 1_310,
      uptimeMs: nowMs - startedMs,
      openFiles: 31,
      loopLagMs: { mean: 0.31, max: 2.2 },
    },
    history: fixtureHistory(nowMs, true),
    events,
    limits: { ...LIMITS },
  };
}

/** A network of eight with one suspect, one dead, one left, a node that waits, refusals and failures. */
export function troubledStatus(nowMs = FIXTURE_NOW_MS): Status {
  const base = singleNodeStatus(nowMs);
  if (!base.network) throw new Error("The fixture of one node has a network");
  const startedMs = nowMs - 3 * 24 * HOUR - 5 * HOUR;
  const me = self(nowMs, "attic", { stateSinceMs: startedMs });
  const pi = capabilities({
    cpus: 4,
    memoryBytes: 953 * 2 ** 20,
    diskBytes: 29 * 2 ** 30,
    diskFreeBytes: 11 * 2 ** 30,
    arch: "aarch64",
    os: "Raspberry Pi OS 12",
    kernel: "6.6.51+rpt-rpi-v8",
    hashesPerSecond: 288_000,
  });
  const van = member(nowMs, "van-2", 5, {
    role: "hypha",
    pool: "vehicles",
    state: "suspect",
    stateSinceMs: nowMs - 3_200,
    lastSeenMs: nowMs - 6_400,
    capabilities: { ...pi, battery: true },
  });
  const barn = member(nowMs, "barn-north-weather-station-with-a-long-name", 6, {
    role: "hypha",
    pool: "field",
    state: "dead",
    stateSinceMs: nowMs - 41 * MINUTE,
    lastSeenMs: nowMs - 41 * MINUTE - 4_800,
    capabilities: pi,
    credentialExpiresMs: nowMs + 2 * HOUR,
  });
  const old = member(nowMs, "old-laptop", 7, {
    state: "left",
    stateSinceMs: nowMs - 26 * HOUR,
    lastSeenMs: nowMs - 26 * HOUR,
    version: "0.0.9",
    credentialExpiresMs: nowMs - 2 * HOUR,
  });
  const withoutPath = ({ path: _, ...rest }: MemberStatus): MemberStatus => rest;
  const newcomer = fixtureNodeId("porch-camera");
  return {
    ...base,
    node: { ...base.node, startedMs, role: "sclerotium" },
    network: {
      ...base.network,
      createdMs: startedMs,
      authority: {
        epoch: 4,
        issuers: ["attic", "cellar", "office"].map(fixtureNodeId),
        threshold: 3,
      },
      profileSeq: 12,
      genesisKey: "offline",
      revocations: 2,
    },
    credential: {
      issuedMs: nowMs - 7 * HOUR,
      expiresMs: nowMs + 17 * HOUR,
      renewAtMs: nowMs + 5 * HOUR,
      issuer: fixtureNodeId("cellar"),
    },
    bootstrap: {
      stage: "verified",
      sinceMs: startedMs + 2_310,
      attempt: 1,
      waitingFor: [{
        code: "member-unreachable",
        what: "barn-north-weather-station-with-a-long-name to answer again",
        sinceMs: nowMs - 41 * MINUTE,
        nextMs: nowMs + 22_000,
      }],
      failures: [
        {
          code: "dial-timeout",
          stage: "contacting",
          tried: barn.addresses[0] ?? "",
          what: "Nobody answered within 5 s.",
          cure: "Check that the machine has power and that 4871/udp is open on the way.",
          atMs: nowMs - 38_000,
          count: 112,
        },
        {
          code: "seed-http-failed",
          stage: "discovering",
          tried: "https://seeds.example.net/home.cbor",
          what: "The server answered 502; the copy of 3 h ago is used.",
          cure: "Nothing to do while the copy is younger than 7 days.",
          atMs: nowMs - 4 * MINUTE,
          count: 3,
        },
      ],
      candidates: [
        {
          address: van.addresses[0] ?? "",
          source: "cache",
          authority: 40,
          ageMs: 6_400,
          verification: "member",
          failures: 1,
        },
        {
          address: `/ip4/10.20.0.77/udp/4871/quic-v1/p2p/${newcomer}`,
          source: "multicast",
          authority: 20,
          ageMs: 2_100,
          verification: "beacon",
          failures: 0,
        },
        {
          address: `/ip6/2001:db8:4d43:20::1f/udp/4871/quic-v1/p2p/${fixtureNodeId("office")}`,
          source: "dns",
          authority: 30,
          ageMs: 58_000,
          verification: "verified",
          failures: 0,
        },
      ],
      sources: [
        { source: "dns", state: "ok", detail: "_mycelium._udp.example.net: 3 records", nextMs: nowMs + 242_000 },
        { source: "mdns", state: "listening", detail: "4 answers" },
        { source: "multicast", state: "listening", detail: "3 interfaces, 6 beacons a minute" },
        { source: "broadcast", state: "listening", detail: "3 interfaces" },
        { source: "cache", state: "ok", detail: "9 members, newest 2 s ago" },
        { source: "seed-http", state: "stale", detail: "502 from 1 of 2 mirrors", nextMs: nowMs + 56_000 },
        { source: "seed-file", state: "off", detail: "none is configured" },
      ],
      timeline: [
        { stage: "discovering", atMs: startedMs },
        { stage: "contacting", atMs: startedMs + 640 },
        { stage: "authenticating", atMs: startedMs + 702 },
        { stage: "registering", atMs: startedMs + 760 },
        { stage: "awaiting-approval", atMs: startedMs + 795 },
        { stage: "handoff", atMs: startedMs + 2_100 },
        { stage: "verifying", atMs: startedMs + 2_180 },
        { stage: "verified", atMs: startedMs + 2_310 },
      ],
    },
    tolerance: {
      members: 6,
      issuers: 3,
      crashFaults: 1,
      byzantineFaults: 0,
      note: "Three issuers: one may fail. No issuer may lie: that takes four.",
    },
    members: [
      me,
      member(nowMs, "cellar", 1, { role: "sclerotium", issuer: true }),
      member(nowMs, "office", 2, {
        role: "sclerotium",
        issuer: true,
        pool: "branch",
        path: {
          address: `/ip6/2001:db8:4d43:20::1f/tcp/4871/p2p/${fixtureNodeId("office")}`,
          transport: "tcp",
          direction: "outbound",
          sinceMs: nowMs - 3 * HOUR,
          rttMs: 23.4,
        },
      }),
      member(nowMs, "workbench", 3, { drained: true }),
      member(nowMs, "nas", 4, {
        capabilities: capabilities({ diskBytes: 8 * 2 ** 40, diskFreeBytes: Math.round(2.1 * 2 ** 40) }),
      }),
      van,
      withoutPath(barn),
      withoutPath(old),
    ],
    invites: [
      {
        id: "c01dbeef",
        role: "hypha",
        pool: "vehicles",
        usesLeft: 3,
        uses: 5,
        createdMs: nowMs - 9 * HOUR,
        expiresMs: nowMs + 15 * HOUR,
        approval: true,
        state: "open",
        usedBy: [van.nodeId, newcomer],
      },
      {
        id: "7f3a9c11",
        pool: "default",
        usesLeft: 0,
        uses: 1,
        createdMs: nowMs - 80 * HOUR,
        expiresMs: nowMs - 56 * HOUR,
        approval: false,
        state: "used-up",
        usedBy: [fixtureNodeId("nas")],
      },
      {
        id: "0badcafe",
        pool: "default",
        usesLeft: 10,
        uses: 10,
        createdMs: nowMs - 30 * HOUR,
        expiresMs: nowMs + 100 * HOUR,
        approval: false,
        state: "revoked",
        usedBy: [],
      },
    ],
    pending: [{
      nodeId: newcomer,
      name: "porch-camera",
      role: "hypha",
      sinceMs: nowMs - 2 * MINUTE - 40_000,
      address: `/ip4/10.20.0.77/udp/4871/quic-v1/p2p/${newcomer}`,
      capabilities: pi,
    }],
    incidents: {
      open: 1,
      acknowledged: 1,
      dryRun: false,
      measures: [{ incident: 4, response: "throttle", subject: "address:198.51.100.7", untilMs: nowMs + 40 * MINUTE }],
      latest: [{
        id: 4,
        rule: "invite-guessing",
        title: "Tries invites that it does not have",
        severity: "warning",
        state: "open",
        subject: "address:198.51.100.7",
        count: 22,
        firstMs: nowMs - 9 * MINUTE,
        lastMs: nowMs - 20_000,
        detail: "refused:proof-invalid: /ip4/198.51.100.7/udp/41022/quic-v1",
      }],
      opened: { "invite-guessing": 1, "clock-jump": 1 },
      throttled: 17,
    },
    audit: { last: 412, sealedTo: 408, kept: 1, waiting: 0, lost: 0, publishedTo: 408, watched: 4 },
    trust: {
      version: 12,
      atMs: nowMs - 20 * MINUTE,
      voteMinPpm: 300_000,
      scored: 4,
      banned: [van.nodeId],
      belowVote: 1,
      belowRecord: 1,
      proofs: 1,
      proofsUndecided: 0,
      certificates: 9,
      policySet: false,
      scores: [
        { nodeId: me.nodeId, agreedPpm: 612_000, localPpm: 500_000, banned: false },
        { nodeId: van.nodeId, agreedPpm: 0, localPpm: 0, banned: true },
      ],
      updates: 3,
      refused: 0,
      waited: 2,
      proposed: 1,
      reports: 1,
      lies: 0,
    },
    spores: {
      keys: 41,
      bytes: 12_900,
      tiers: { latent: 12, seed: 3, primary: 26 },
      tombstones: 4,
      own: 2,
      partial: false,
      suspects: { asking: 1, confirmed: 1, denied: 2, unanswered: 1 },
      equivocations: 1,
      received: 310,
      changed: 77,
      skipped: 220,
      verified: 140,
      expired: 9,
      confirmed: 1,
      denied: 2,
      runs: 33,
      refusals: { "spore-denied": 2, "spore-tampered": 3 },
      lastSync: {
        atMs: nowMs - 20_000,
        nodeId: newcomer,
        ok: true,
        differing: 3,
        received: 2,
        sent: 1,
        rounds: 3,
        elapsedMs: 41,
      },
    },
    gossip: {
      topics: [
        { topic: "news", links: 6, eager: 4 },
        { topic: "spores", links: 5, eager: 3 },
      ],
      peers: 9,
      shunned: 1,
      published: 12,
      received: 340,
      accepted: 310,
      rejected: 4,
      ignored: 26,
      duplicates: 420,
      pulled: 2,
      sent: 700,
      framesOut: 980,
      bytesOut: 190_000,
    },
    assignments: [
      { id: "doorbell-1", service: "doorbell", seq: 3, state: "running", reason: "" },
      {
        id: "backup-nightly",
        service: "backup",
        seq: 1,
        state: "waiting",
        reason: "K3s is not installed on this node",
      },
    ],
    config: { version: 7, tryUntilMs: nowMs + 95_000 },
    health: {
      ready: true,
      health: "degraded",
      reasons: [
        "membership: 1 of 8 members is dead and 1 is suspect",
        "discovery: seed-http answers 502, the stored copy is used",
      ],
      components: [
        { name: "store", health: "ok", reason: "", sinceMs: startedMs },
        { name: "channels", health: "ok", reason: "", sinceMs: startedMs },
        {
          name: "discovery",
          health: "degraded",
          reason: "seed-http answers 502, the stored copy is used",
          sinceMs: nowMs - 4 * MINUTE,
        },
        {
          name: "membership",
          health: "degraded",
          reason: "1 of 8 members is dead and 1 is suspect",
          sinceMs: nowMs - 41 * MINUTE,
        },
        { name: "registrar", health: "ok", reason: "", sinceMs: startedMs },
        { name: "status", health: "ok", reason: "", sinceMs: startedMs },
      ],
    },
    traffic: { bytesIn: 1_874_231_552, bytesOut: 1_203_019_776, callsIn: 48_211, callsOut: 51_902, channels: 5 },
    refusals: {
      "beacon-bad-mac": 1_204,
      "invite-used-up": 2,
      "record-expired": 17,
      "rate-limited": 311,
      "network-mismatch": 4,
    },
    process: {
      pid: 812,
      rssBytes: Math.round(61.8 * 2 ** 20),
      cpuMs: 1_208_000,
      uptimeMs: nowMs - startedMs,
      openFiles: 64,
      loopLagMs: { mean: 0.42, max: 11.8 },
    },
    history: fixtureHistory(nowMs),
    events: [
      {
        atMs: nowMs - 3 * HOUR,
        level: "info",
        event: "credential-renewed",
        message: "Membership credential renewed by cellar until 21:30",
      },
      {
        atMs: nowMs - 41 * MINUTE,
        level: "warn",
        event: "member-dead",
        message: "barn-north-weather-station-with-a-long-name is dead: no answer to 4 probes",
      },
      {
        atMs: nowMs - 9 * MINUTE,
        level: "error",
        event: "config-apply-failed",
        message: 'Cannot apply configuration 8: "mesh.port" is 99999, wanted 1 to 65535',
      },
      {
        atMs: nowMs - 4 * MINUTE,
        level: "warn",
        event: "seed-http-failed",
        message: "https://seeds.example.net/home.cbor answered 502",
      },
      { atMs: nowMs - 160_000, level: "info", event: "join-pending", message: "porch-camera waits for approval" },
      {
        atMs: nowMs - 3_200,
        level: "warn",
        event: "member-suspect",
        message: "van-2 is suspect: 2 of 3 indirect probes failed",
      },
    ],
  };
}

/** A node that has found nobody yet: not ready, with what it waits for and what would help. */
export function isolatedStatus(nowMs = FIXTURE_NOW_MS): Status {
  const base = singleNodeStatus(nowMs);
  const { network: _, credential: __, ...rest } = base;
  const seed = `/ip4/203.0.113.9/udp/4871/quic-v1/p2p/${fixtureNodeId("cellar")}`;
  return {
    ...rest,
    bootstrap: {
      ...base.bootstrap,
      stage: "isolated",
      sinceMs: nowMs - 93_000,
      attempt: 7,
      waitingFor: [{
        code: "no-candidate-answers",
        what: "one of 2 known addresses to answer",
        sinceMs: nowMs - 93_000,
        nextMs: nowMs + 24_000,
      }],
      failures: [{
        code: "dial-timeout",
        stage: "contacting",
        tried: seed,
        what: "Nobody answered within 5 s.",
        cure:
          "Check that 4871/udp is open at 203.0.113.9, or name another address: mycelium bootstrap force-endpoint <address>",
        atMs: nowMs - 6_000,
        count: 7,
      }],
      candidates: [{
        address: seed,
        source: "invite",
        authority: 50,
        ageMs: 130_000,
        verification: "unverified",
        failures: 7,
      }],
      timeline: [
        { stage: "discovering", atMs: nowMs - 130_000 },
        { stage: "contacting", atMs: nowMs - 128_000 },
        { stage: "isolated", atMs: nowMs - 93_000 },
      ],
    },
    tolerance: { ...base.tolerance, members: 0, issuers: 0, note: "This node belongs to no network yet." },
    members: [],
    invites: [],
    health: {
      ready: false,
      health: "failed",
      reasons: ["join: nobody answers at any known address"],
      components: base.health.components.map((component) =>
        component.name === "membership"
          ? { ...component, health: "failed" as const, reason: "no network yet" }
          : component
      ),
    },
  };
}

/** A source whose status tests set, and whose changes they send. */
export class FixtureSource {
  /** What {@linkcode FixtureSource.getStatus} gives. */
  status: Status;
  /** How often the status was asked for. */
  asked = 0;
  readonly #listeners = new Set<(change: StatusChange) => void>();

  /** @param status The first status. */
  constructor(status: Status = singleNodeStatus()) {
    this.status = status;
  }

  /** Listeners now. */
  get listeners(): number {
    return this.#listeners.size;
  }

  /** The status that was set. */
  readonly getStatus = (): Status => {
    this.asked++;
    return this.status;
  };

  /** Adds a listener. */
  readonly subscribe = (listener: (change: StatusChange) => void): () => void => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  /** Sends a change. */
  emit(change: StatusChange): void {
    for (const listener of this.#listeners) listener(change);
  }
}
