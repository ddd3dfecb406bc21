/**
 * What a node says of itself: the document behind `/status`, `mycelium status` and the dashboard.
 *
 * Every figure that a person sees anywhere is in here. Times are milliseconds since the epoch, durations
 * milliseconds, sizes bytes.
 *
 * @module
 */

import type { Response as IncidentResponse } from "../access/incidents.ts";
import type { Stage } from "../bootstrap/join_machine.ts";
import type { Capabilities } from "../core/capabilities.ts";
import type { Role } from "../core/roles.ts";
import type { Tier } from "../spore/proof.ts";
import type { AgreedCounts, AgreedMismatch } from "./agreed_watch.ts";

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
  /** Alive, as others find, but it does not answer this node itself. */
  readonly unreachable?: boolean;
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

/** How failure detection stands on this node. */
export interface DetectionStatus {
  /** Local health: 0 is well, 7 is worst; probes get rarer and more patient with it. */
  readonly awareness: number;
  /** Rises with every start and every refuted suspicion. */
  readonly incarnation: number;
  /** First pings that were not answered in time, of a thousand, smoothed. */
  readonly lossPerMille: number;
  /** Members with a channel, which are probed from here. */
  readonly watched: number;
  /** Since the start. */
  readonly probes: number;
  /** Suspicions of this node that it refuted, since the start. */
  readonly refuted: number;
  /** Node ids. */
  readonly suspects: readonly string[];
  readonly dead: readonly string[];
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

/** A spore record as status and the command line show it. */
export interface SporeRow {
  readonly key: string;
  readonly tier: Tier;
  readonly state: "live" | "expired" | "deleted";
  /** Node id. */
  readonly author: string;
  readonly authorName: string;
  readonly seq: number;
  /** Place in the log of the Primary Spore, or number of the seed document; missing for the Latent Spore. */
  readonly term?: number;
  readonly index?: number;
  /** Until when its rank counts. */
  readonly provenUntilMs?: number;
  readonly issuedMs: number;
  readonly expiresMs: number;
  /** Hexadecimal. */
  readonly hash: string;
  readonly sizeBytes: number;
  /** Base64url; only where one record was asked for. */
  readonly value?: string;
  /** Used although a higher tier says otherwise: it was confirmed by connection. */
  readonly provisional: boolean;
  /** A newer word of lower tier that is not used. */
  readonly challenger?: Omit<SporeRow, "provisional" | "challenger"> & {
    readonly confirmation: "asking" | "confirmed" | "denied" | "unanswered";
  };
}

/** How a node takes part in broadcasts. Counts are since the start. */
export interface GossipStatus {
  readonly topics: readonly {
    readonly topic: string;
    /** Links of its mesh, and of them those over which messages go as they come. */
    readonly links: number;
    readonly eager: number;
  }[];
  /** Members that it could have links to, and of them those that behave badly. */
  readonly peers: number;
  readonly shunned: number;
  readonly published: number;
  /** Messages that came, each counted once, and what became of them. */
  readonly received: number;
  readonly accepted: number;
  readonly rejected: number;
  readonly ignored: number;
  /** Messages that came again. */
  readonly duplicates: number;
  /** Messages that had to be asked for. */
  readonly pulled: number;
  /** Messages sent, each time counted; frames of any kind, and their bytes. */
  readonly sent: number;
  readonly framesOut: number;
  readonly bytesOut: number;
}

/** What a node knows by spores, and how it came by it. Counts are since the start. */
export interface SporesStatus {
  readonly keys: number;
  readonly bytes: number;
  readonly tiers: { readonly [T in Tier]: number };
  readonly tombstones: number;
  /** Keys that this node writes. */
  readonly own: number;
  /** It keeps a part of the records and asks others for the rest. */
  readonly partial: boolean;
  readonly suspects: {
    readonly asking: number;
    readonly confirmed: number;
    readonly denied: number;
    readonly unanswered: number;
  };
  /** Authors caught saying two things at once. */
  readonly equivocations: number;
  /** Versions that arrived, changed something, were known already. */
  readonly received: number;
  readonly changed: number;
  readonly skipped: number;
  /** Signatures checked. */
  readonly verified: number;
  readonly expired: number;
  readonly confirmed: number;
  readonly denied: number;
  /** Repairs run. */
  readonly runs: number;
  readonly refusals: { readonly [reason: string]: number };
  readonly lastSync?: {
    readonly atMs: number;
    readonly nodeId: string;
    readonly ok: boolean;
    readonly differing: number;
    readonly received: number;
    readonly sent: number;
    readonly rounds: number;
    readonly elapsedMs: number;
  };
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

/** What this node knows by Seed Spores. */
export interface SeedStatus {
  /** Number of the last bundle made here; 0 for none. */
  readonly made: number;
  /** Highest number seen, by signer and kind: a lower one is refused as a rollback. */
  readonly seen: readonly { readonly signer: string; readonly kind: string; readonly seq: number }[];
  /** Bundles taken in this run. */
  readonly taken: readonly {
    readonly kind: string;
    readonly seq: number;
    readonly signer: string;
    /** File or address. */
    readonly from: string;
    readonly atMs: number;
    /** It has run out. */
    readonly stale: boolean;
    /** Records that counted, and that did not. */
    readonly records: number;
    readonly refused: number;
  }[];
  /** The decision about a split that this node has made or adopted. */
  readonly decision?: { readonly epoch: number; readonly atMs: number };
  /** Files and servers that are read. */
  readonly sources: readonly SeedSourceStatus[];
  /** Files, servers and commands that are published to. */
  readonly targets: readonly SeedTargetStatus[];
}

/** Whether what stands under `agreed/` is what was decided, as this node sees it. */
export interface AgreedStatus extends AgreedCounts {
  /** What is not, the last ones, oldest first. */
  readonly recent: readonly AgreedMismatch[];
}

/** This node's part in the Primary Spore. */
export interface PrimaryStatus {
  /** `client`: it runs no replica; `failed`: its replica cannot be read. */
  readonly role: "leader" | "follower" | "learner" | "pre-candidate" | "candidate" | "client" | "failed";
  readonly term: number;
  /** Node that leads, as far as this one knows. */
  readonly leader?: string;
  /** Nodes that vote, and that listen. */
  readonly voters: readonly string[];
  readonly learners: readonly string[];
  /** A change of the configuration is under way. */
  readonly changing: boolean;
  readonly commitIndex: number;
  readonly appliedIndex: number;
  /** Log in memory. */
  readonly logEntries: number;
  readonly logBytes: number;
  readonly snapshotIndex: number;
  /** Keys of the replicated state, tombstones included; what they count for; sessions of clients. */
  readonly keys: number;
  readonly bytes: number;
  readonly sessions: number;
  /** Hash of the replicated state: equal on all nodes at one `appliedIndex`. */
  readonly stateHash: string;
  /** Recoveries from a lost majority. */
  readonly recoveries: readonly {
    readonly index: number;
    readonly timeMs: number;
    readonly by: string;
    readonly without: readonly string[];
  }[];
  /** Own writes without an answer. */
  readonly waiting: number;
  /** At the leader: keys whose proof of rank is not there yet. */
  readonly unproven: number;
}

/** What status says of incidents. */
export interface IncidentsStatus {
  readonly open: number;
  readonly acknowledged: number;
  readonly dryRun: boolean;
  /** Responses in force. */
  readonly measures: readonly {
    readonly incident: number;
    readonly response: IncidentResponse;
    readonly subject: string;
    readonly untilMs: number;
  }[];
  /** Those that are not closed, the latest first, at most 16. */
  readonly latest: readonly {
    readonly id: number;
    readonly rule: string;
    readonly title: string;
    readonly severity: string;
    readonly state: string;
    readonly subject: string;
    readonly count: number;
    readonly firstMs: number;
    readonly lastMs: number;
    readonly detail: string;
  }[];
  /** Incidents since the start, by rule. */
  readonly opened: { readonly [rule: string]: number };
  /** Calls that were held up. */
  readonly throttled: number;
}

/** The audit log of this node. */
export interface AuditStatus {
  /** Number of the last entry. */
  readonly last: number;
  /** Number of the last seal: entries up to it are signed. */
  readonly sealedTo: number;
  /** First entry on the disk. */
  readonly kept: number;
  /** Entries that wait for the disk to take them. */
  readonly waiting: number;
  /** Entries that were lost in this run: there were too many while the disk took none. */
  readonly lost: number;
  /** Number of the last seal that the network was told of; missing while a newer one is not. */
  readonly publishedTo?: number;
  /** Logs of other nodes that this one watches. */
  readonly watched: number;
}

/** A file or server that seeds are read from. */
export interface SeedSourceStatus {
  /** Path or address, without user and password. */
  readonly from: string;
  /**
   * `behind`: another one has a newer seed; `copy`: it does not answer, and our copy of what it said serves;
   * `failed`: it does not answer, or what it says is refused.
   */
  readonly state: "ok" | "behind" | "copy" | "failed";
  /** Number of its seed. */
  readonly seq?: number;
  readonly kind?: string;
  readonly signer?: string;
  readonly stale?: boolean;
  /** Why it is not `ok`. */
  readonly reason: string;
  readonly atMs: number;
}

/** Where seeds are published. */
export interface SeedTargetStatus {
  /** Path, address or program, without what is secret. */
  readonly to: string;
  readonly kind: string;
  /** `waiting`: another issuer comes first, or this node is none. */
  readonly state: "ok" | "waiting" | "failed" | "idle";
  /** Number of the bundle that is there. */
  readonly seq?: number;
  /** When this node published last. */
  readonly publishedMs?: number;
  /** When it looks again. */
  readonly nextMs?: number;
  /** Failures in a row. */
  readonly failures: number;
  readonly reason: string;
}

/** Trust, as this node knows it. */
export interface TrustStatus {
  /** Version of the agreed scores; 0 before the first update. */
  readonly version: number;
  /** Time to which the agreed scores have decayed. */
  readonly atMs: number;
  /** Least agreed score of a voter, ppm. */
  readonly voteMinPpm: number;
  /** Nodes with an agreed score that is not neutral. */
  readonly scored: number;
  /** Members that are trusted no more, for good. */
  readonly banned: readonly string[];
  /** Members below the threshold of a vote, and below that of a word that is used unconfirmed. */
  readonly belowVote: number;
  readonly belowRecord: number;
  /** Proofs of faults that this node has checked, and those whose electorate it does not know. */
  readonly proofs: number;
  readonly proofsUndecided: number;
  /** Certificates that are kept to show who takes part. */
  readonly certificates: number;
  /** Whether a policy was agreed on; else what is built in counts. */
  readonly policySet: boolean;
  /** Members, the first ones, with the agreed score and this node's own, ppm. */
  readonly scores: readonly {
    readonly nodeId: string;
    readonly agreedPpm: number;
    readonly localPpm: number;
    readonly banned: boolean;
  }[];
  /** Agreed updates taken in, updates of others that did not hold, and those that waited for something. */
  readonly updates: number;
  readonly refused: number;
  readonly waited: number;
  readonly proposed: number;
  /** Proofs that this node has told of, and accusations of others that were false. */
  readonly reports: number;
  readonly lies: number;
}

/** One decision that this node has heard of. */
export interface DecisionStatus {
  readonly instance: string;
  readonly atMs: number;
  /** `fast`, `standard` or `critical`. */
  readonly class: string;
  /** Node id. */
  readonly proposer: string;
  /** Rounds that it took, from 0. */
  readonly round: number;
  readonly signers: number;
  /** Voters of its electorate. */
  readonly voters: number;
  readonly accepted: number;
  readonly operations: number;
  /** The first keys that it wrote. */
  readonly keys: readonly string[];
}

/** Agreement among machines that may lie. */
export interface AgreementStatus {
  /** Why this node takes no part, where it cannot. */
  readonly broken?: string;
  /** Number of the electorate: 0 is the founder alone. */
  readonly epoch: number;
  /** Whether this node votes. */
  readonly votes: boolean;
  readonly voters: readonly {
    readonly nodeId: string;
    readonly seats: number;
    readonly sinceMs: number;
    /** Whether it answers this node. */
    readonly answers: boolean;
  }[];
  /** Voters that may lie or fail, whoever they are; 0 with fewer than four. */
  readonly tolerated: number;
  /** `full`, `sound`, `fragile` or `lost`: nothing can be decided. */
  readonly health: "full" | "sound" | "fragile" | "lost";
  readonly healthSinceMs: number;
  /** Seats that answer, of all, and how many a decision needs. */
  readonly seats: number;
  readonly seatsOf: number;
  readonly seatsNeeded: number;
  /** Voters of the next standard committee. */
  readonly committee: number;
  /** What a message is taken to need, milliseconds. */
  readonly delayMs: number;
  /** Own operations that wait; instances under way; of these, those that wait for state that is not here yet. */
  readonly queued: number;
  readonly voting: number;
  readonly waiting: number;
  /** Decisions that are not known to be applied yet. */
  readonly handovers: number;
  /** Keys whose newest record this node can prove. */
  readonly proofs: number;
  /** Messages sent between voters, and their bytes. */
  readonly messages: number;
  readonly messageBytes: number;
  readonly decided: number;
  readonly failed: number;
  readonly evidence: number;
  readonly disputed: number;
  /** Messages that were not acted on; certificates that did not hold. */
  readonly dropped: number;
  readonly refusedNews: number;
  readonly recent: readonly DecisionStatus[];
  /** An operator has put an electorate in the place of one whose quorum was lost, and not all of it is back. */
  readonly emergency?: {
    readonly epoch: number;
    readonly reason: string;
    readonly issuedMs: number;
    readonly without: readonly string[];
  };
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
  /** Missing before this node is a member. */
  readonly spores?: SporesStatus;
  readonly gossip?: GossipStatus;
  readonly primary?: PrimaryStatus;
  readonly detection?: DetectionStatus;
  readonly trust?: TrustStatus;
  readonly agreement?: AgreementStatus;
  readonly agreed?: AgreedStatus;
  readonly incidents?: IncidentsStatus;
  readonly audit?: AuditStatus;
  readonly config: { readonly version: number; readonly tryUntilMs?: number };
  /** Missing where this node is of no network. */
  readonly seeds?: SeedStatus;
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
