/**
 * What a node says of itself: the document behind `/status`, `mycelium status` and the dashboard.
 *
 * Every figure that a person sees anywhere is in here. Times are milliseconds since the epoch, durations
 * milliseconds, sizes bytes.
 *
 * @module
 */

import type { Stage } from "../bootstrap/join_machine.ts";
import type { Capabilities } from "../core/capabilities.ts";
import type { Role } from "../core/roles.ts";

/** Stages of joining; `verified` is where a node wants to be. */
export type JoinStage = Stage;

/** How a component or the node is. */
export type Health = "ok" | "degraded" | "failed";

/** A failure with what was tried and what would cure it. */
export interface Failure {
  /** Stable, lower-case, dashes. */
  readonly code: string;
  readonly stage: JoinStage;
  /** What was tried, for example the address. */
  readonly tried: string;
  /** One sentence: what happened. */
  readonly what: string;
  /** One sentence: what would cure it. */
  readonly cure: string;
  readonly atMs: number;
  /** How often in a row. */
  readonly count: number;
}

/** A condition that the node is waiting for. */
export interface Waiting {
  /** Stable code, for example `operator-approval`. */
  readonly code: string;
  /** One sentence for a person. */
  readonly what: string;
  readonly sinceMs: number;
  /** When it will be tried again by itself. */
  readonly nextMs?: number;
}

/** One way to reach a node. */
export interface PathStatus {
  readonly address: string;
  readonly transport: string;
  readonly direction: "inbound" | "outbound";
  readonly sinceMs: number;
  /** Last measured round trip; missing where none was. */
  readonly rttMs?: number;
}

/** One member as this node sees it. */
export interface MemberStatus {
  readonly nodeId: string;
  readonly name: string;
  readonly role: Role;
  readonly pool: string;
  /** As this node observes it. */
  readonly state: "self" | "alive" | "suspect" | "dead" | "left";
  readonly stateSinceMs: number;
  readonly lastSeenMs: number;
  readonly addresses: readonly string[];
  readonly path?: PathStatus;
  readonly version: string;
  readonly issuer: boolean;
  readonly credentialExpiresMs: number;
  readonly drained: boolean;
  readonly capabilities: CapabilityStatus;
}

/** What a machine can do, as measured on it. */
export type CapabilityStatus = Capabilities;

/** A discovery candidate as status shows it. */
export interface CandidateStatus {
  readonly address: string;
  readonly source: string;
  readonly authority: number;
  readonly ageMs: number;
  readonly verification: string;
  readonly failures: number;
}

/** A discovery source as status shows it. */
export interface SourceStatus {
  readonly source: string;
  readonly state: string;
  readonly detail: string;
  readonly nextMs?: number;
}

/** A component's health. */
export interface ComponentStatus {
  readonly name: string;
  readonly health: Health;
  /** Why it is not `ok`; empty where it is. */
  readonly reason: string;
  readonly sinceMs: number;
}

/** An invite as its issuer shows it; never with its secret. */
export interface InviteStatus {
  readonly id: string;
  readonly role?: Role;
  readonly pool: string;
  readonly usesLeft: number;
  readonly uses: number;
  readonly createdMs: number;
  readonly expiresMs: number;
  readonly approval: boolean;
  readonly state: "open" | "used-up" | "expired" | "revoked";
  readonly usedBy: readonly string[];
}

/** A machine that waits for an operator. */
export interface PendingStatus {
  readonly nodeId: string;
  readonly name: string;
  readonly role: Role;
  readonly sinceMs: number;
  readonly address: string;
  readonly capabilities: CapabilityStatus;
}

/** A service assignment as status shows it. */
export interface AssignmentStatus {
  readonly id: string;
  readonly service: string;
  readonly seq: number;
  readonly state: "accepted" | "waiting" | "running" | "failed";
  /** Why it is in that state. */
  readonly reason: string;
}

/** An entry of the recent history. */
export interface EventStatus {
  readonly atMs: number;
  readonly level: "debug" | "info" | "warn" | "error";
  readonly event: string;
  readonly message: string;
}

/** What the plots are drawn from: counters since start, and sizes, as they stood at one moment. */
export interface HistorySample {
  readonly atMs: number;
  readonly bytesIn: number;
  readonly bytesOut: number;
  readonly rssBytes: number;
  readonly cpuMs: number;
}

/** The whole document. `schema` rises when a field changes its meaning or goes. */
export interface Status {
  readonly schema: 1;
  readonly nowMs: number;
  readonly version: {
    readonly version: string;
    readonly commit: string;
    readonly builtAt: string;
    readonly runtime: string;
  };
  readonly node: {
    readonly nodeId: string;
    readonly name: string;
    readonly role: Role;
    readonly pool: string;
    readonly startedMs: number;
    readonly addresses: readonly string[];
    readonly capabilities: CapabilityStatus;
    /** Normal operation, or what an operator has ordered. */
    readonly mode: "normal" | "safe" | "isolated" | "drained";
  };
  readonly network?: {
    readonly networkId: string;
    readonly name: string;
    readonly createdMs: number;
    /** Number and members of the newest authority epoch. */
    readonly authority: { readonly epoch: number; readonly issuers: readonly string[]; readonly threshold: number };
    readonly registrar?: string;
    readonly profileSeq: number;
    readonly genesisKey: "here" | "offline";
    readonly operatorKey: boolean;
    readonly revocations: number;
  };
  readonly credential?: {
    readonly issuedMs: number;
    readonly expiresMs: number;
    readonly renewAtMs: number;
    readonly issuer: string;
  };
  readonly bootstrap: {
    readonly stage: JoinStage;
    readonly sinceMs: number;
    readonly attempt: number;
    readonly waitingFor: readonly Waiting[];
    readonly failures: readonly Failure[];
    readonly candidates: readonly CandidateStatus[];
    readonly sources: readonly SourceStatus[];
    readonly timeline: readonly { readonly stage: JoinStage; readonly atMs: number }[];
  };
  /** What the network tolerates now, said plainly. */
  readonly tolerance: {
    readonly members: number;
    readonly issuers: number;
    readonly crashFaults: number;
    readonly byzantineFaults: number;
    readonly note: string;
  };
  readonly members: readonly MemberStatus[];
  readonly invites: readonly InviteStatus[];
  readonly pending: readonly PendingStatus[];
  readonly assignments: readonly AssignmentStatus[];
  readonly config: { readonly version: number; readonly tryUntilMs?: number };
  readonly health: {
    readonly ready: boolean;
    readonly health: Health;
    readonly reasons: readonly string[];
    readonly components: readonly ComponentStatus[];
  };
  readonly traffic: {
    readonly bytesIn: number;
    readonly bytesOut: number;
    readonly callsIn: number;
    readonly callsOut: number;
    readonly channels: number;
  };
  /** Refusals by reason since start. */
  readonly refusals: { readonly [reason: string]: number };
  readonly process: {
    readonly pid: number;
    readonly rssBytes: number;
    readonly cpuMs: number;
    readonly uptimeMs: number;
    readonly openFiles: number;
    /** How late timers of this process fire, over the last minute; missing until measured. */
    readonly loopLagMs?: { readonly mean: number; readonly max: number };
  };
  /** Samples for the plots, oldest first, some five minutes of them; the status endpoint fills them in. */
  readonly history?: readonly HistorySample[];
  readonly events: readonly EventStatus[];
  /** Bounds in force, from `core/limits.ts`. */
  readonly limits: { readonly [name: string]: number };
}
