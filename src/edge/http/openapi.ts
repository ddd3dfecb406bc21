/**
 * The description of the HTTP interface, OpenAPI 3.1. Its schemas are checked against the types of
 * `agent/status.ts` by the compiler: a field that is added there and not here does not build.
 *
 * @module
 */

import type {
  AgreedStatus,
  AgreementStatus,
  AssignmentStatus,
  AuditStatus,
  CandidateStatus,
  CapabilityStatus,
  ComponentStatus,
  DecisionStatus,
  DetectionStatus,
  EventStatus,
  Failure,
  GossipStatus,
  Health,
  HistorySample,
  IncidentsStatus,
  InviteStatus,
  JoinStage,
  MemberStatus,
  PathStatus,
  PendingStatus,
  PrimaryStatus,
  SeedSourceStatus,
  SeedStatus,
  SeedTargetStatus,
  SourceStatus,
  SporeRow,
  SporesStatus,
  Status,
  TrustStatus,
  Waiting,
} from "../../agent/status.ts";
import type { SporePage } from "../../agent/latent_console.ts";
import type { Role } from "../../core/roles.ts";
import {
  bool,
  choice,
  count,
  type JsonSchema,
  list,
  named,
  number,
  numbers,
  object,
  optional,
  type Schema,
  text,
  time,
} from "./schema.ts";

const role = choice<Role>({ sclerotium: true, rhizomorph: true, hypha: true }, "What the machine does in its network.");
const health = choice<Health>({ ok: true, degraded: true, failed: true });
const stage = choice<JoinStage>({
  idle: true,
  forming: true,
  discovering: true,
  contacting: true,
  authenticating: true,
  registering: true,
  "awaiting-approval": true,
  handoff: true,
  verifying: true,
  verified: true,
  isolated: true,
}, "Stage of joining; verified is where a node wants to be.");

const capabilities = object<CapabilityStatus>({
  cpus: count("Processors."),
  memoryBytes: count("Memory."),
  diskBytes: count("Size of the disk with the state."),
  diskFreeBytes: count("Free on that disk."),
  arch: text("Processor architecture."),
  os: text("Operating system."),
  kernel: text("Kernel release."),
  systemd: bool("Whether systemd runs the machine."),
  battery: bool("Whether it runs on a battery."),
  hashesPerSecond: number("SHA-256 chain steps per second of one thread, measured at start."),
}, "What a machine can do, as measured on it.");

const path = object<PathStatus>({
  address: text("Multiaddr of the other end."),
  transport: text("quic or tcp."),
  direction: choice<PathStatus["direction"]>({ inbound: true, outbound: true }),
  sinceMs: time("When the channel was opened."),
  rttMs: optional(number("Last measured round trip in milliseconds.")),
}, "The channel to a node.");

const member = object<MemberStatus>({
  nodeId: text("PeerId of the node."),
  name: text("Name for people."),
  role,
  pool: text("Pool of nodes that it belongs to."),
  state: choice<MemberStatus["state"]>(
    { self: true, alive: true, suspect: true, dead: true, left: true },
    "As this node observes it.",
  ),
  unreachable: optional(bool("Alive as others find, though it does not answer this node itself.")),
  stateSinceMs: time("When it came into that state."),
  lastSeenMs: time("When it was last heard."),
  addresses: list(text("Multiaddr.")),
  path: optional(named<PathStatus>("Path")),
  version: text("Version of the program that it runs."),
  issuer: bool("Whether it may admit nodes."),
  credentialExpiresMs: time("When its membership credential expires."),
  drained: bool("Whether it takes no new work."),
  capabilities: named<CapabilityStatus>("Capabilities"),
}, "One member as this node sees it.");

const failure = object<Failure>({
  code: text("Stable code, lower-case, dashes."),
  stage: named<JoinStage>("JoinStage"),
  tried: text("What was tried, for example the address."),
  what: text("What happened."),
  cure: text("What would cure it."),
  atMs: time("When it happened last."),
  count: count("How often in a row."),
}, "A failure with what was tried and what would cure it.");

const waiting = object<Waiting>({
  code: text("Stable code."),
  what: text("What the node waits for."),
  sinceMs: time("Since when."),
  nextMs: optional(time("When it will be tried again by itself.")),
}, "A condition that the node waits for.");

const candidate = object<CandidateStatus>({
  address: text("Multiaddr."),
  source: text("Which discovery source gave it."),
  authority: number("How far the source is trusted; more is better."),
  ageMs: number("Milliseconds since it was found."),
  verification: text("What is known of it."),
  failures: count("Attempts that failed in a row."),
});

const source = object<SourceStatus>({
  source: text("Name of the source."),
  state: text("How it is."),
  detail: text("For a person."),
  nextMs: optional(time("When it will be asked again.")),
});

const component = object<ComponentStatus>({
  name: text("Name of the component."),
  health,
  reason: text("Why it is not ok; empty where it is."),
  sinceMs: time("Since when."),
});

const invite = object<InviteStatus>({
  id: text("Public part of the invite; the secret is never shown."),
  role: optional(role),
  pool: text("Pool that its users come into."),
  usesLeft: count("Uses left."),
  uses: count("Uses in all."),
  createdMs: time("When it was made."),
  expiresMs: time("When it expires."),
  approval: bool("Whether an operator must approve each use."),
  state: choice<InviteStatus["state"]>({ open: true, "used-up": true, expired: true, revoked: true }),
  usedBy: list(text("Node id.")),
});

const pending = object<PendingStatus>({
  nodeId: text("PeerId of the node."),
  name: text("Name that it gives itself."),
  role,
  sinceMs: time("Since when it waits."),
  address: text("Where it comes from."),
  capabilities: named<CapabilityStatus>("Capabilities"),
}, "A machine that waits for an operator.");

const assignment = object<AssignmentStatus>({
  id: text("Identifier of the assignment."),
  service: text("The service."),
  seq: count("Newest version of the assignment."),
  state: choice<AssignmentStatus["state"]>({ accepted: true, waiting: true, running: true, failed: true }),
  reason: text("Why it is in that state."),
});

const event = object<EventStatus>({
  atMs: time("When it happened."),
  level: choice<EventStatus["level"]>({ debug: true, info: true, warn: true, error: true }),
  event: text("Stable name, lower-case, dashes."),
  message: text("For a person."),
});

const sample = object<HistorySample>({
  atMs: time("When it was taken."),
  bytesIn: count("Bytes received since start."),
  bytesOut: count("Bytes sent since start."),
  rssBytes: count("Resident memory."),
  cpuMs: number("CPU time since start in milliseconds."),
});

const seeds = object<SeedStatus>({
  made: count("Number of the last bundle made here; 0 for none."),
  seen: list(
    object<SeedStatus["seen"][number]>({
      signer: text("Node id."),
      kind: text("Kind of bundle."),
      seq: count("Highest number seen."),
    }),
    "Lower numbers are refused as rollbacks.",
  ),
  taken: list(
    object<SeedStatus["taken"][number]>({
      kind: text("Kind of bundle."),
      seq: count("Its number."),
      signer: text("Node id."),
      from: text("File or address."),
      atMs: time("When it was taken."),
      stale: bool("Whether it has run out."),
      records: count("Records that counted."),
      refused: count("Records that did not."),
    }),
    "Bundles taken in this run.",
  ),
  decision: optional(object<NonNullable<SeedStatus["decision"]>>({
    epoch: count("Epoch that it names."),
    atMs: time("When it was made."),
  }, "The decision about a split that this node has made or adopted.")),
  sources: list(object<SeedSourceStatus>({
    from: text("Path or address."),
    state: choice<SeedSourceStatus["state"]>({ ok: true, behind: true, copy: true, failed: true }),
    seq: optional(count("Number of its seed.")),
    kind: optional(text("Kind of bundle.")),
    signer: optional(text("Node id.")),
    stale: optional(bool("Whether it has run out.")),
    reason: text("Why it is not ok."),
    atMs: time("When it was read."),
  })),
  targets: list(object<SeedTargetStatus>({
    to: text("Path, address or program."),
    kind: text("Kind of bundle."),
    state: choice<SeedTargetStatus["state"]>({ ok: true, waiting: true, failed: true, idle: true }),
    seq: optional(count("Number of the bundle that is there.")),
    publishedMs: optional(time("When this node published last.")),
    nextMs: optional(time("When it looks again.")),
    failures: count("Failures in a row."),
    reason: text("Why it is in that state."),
  })),
}, "Seed Spores: missing where this node is of no network.");

const gossip = object<GossipStatus>({
  topics: list(object<GossipStatus["topics"][number]>({
    topic: text("What it is about."),
    links: count("Members that messages about it are exchanged with."),
    eager: count("Of them, those that get messages as they come; the others hear of them first."),
  })),
  peers: count("Members with an open session."),
  shunned: count("Of them, those that broke the rules of gossip: no links to them."),
  published: count("Messages of this node."),
  received: count("Messages that came, each counted once."),
  accepted: count("Of them, new and valid: passed on."),
  rejected: count("Of them, invalid."),
  ignored: count("Of them, known already or not to be judged here."),
  duplicates: count("Messages that came again."),
  pulled: count("Messages that had to be asked for."),
  sent: count("Messages sent, each time counted."),
  framesOut: count("Frames sent, announcements and control included."),
  bytesOut: count("What they took."),
}, "Broadcast among members.");

const spores = object<SporesStatus>({
  keys: count("Keys known, deleted ones and those that have run out included."),
  bytes: count("What their records take."),
  tiers: object<SporesStatus["tiers"]>({
    latent: count("Keys whose record members told each other."),
    seed: count("Keys whose record an issuer has put into a seed."),
    primary: count("Keys whose record the primaries agreed on."),
  }, "Keys by where the record that counts comes from."),
  tombstones: count("Keys that were deleted."),
  own: count("Keys that this node writes."),
  partial: bool("Whether this device keeps a part of the records."),
  suspects: object<SporesStatus["suspects"]>({
    asking: count("Being asked about."),
    confirmed: count("Used although suspicious."),
    denied: count("Not used: denied."),
    unanswered: count("Not used: nobody could be asked."),
  }, "Suspicious records by how far their confirmation is."),
  equivocations: count("Pairs of records by which an author says two things at once."),
  received: count("Versions that arrived."),
  changed: count("Versions that changed something."),
  skipped: count("Versions that were known, overtaken, or not for this device."),
  verified: count("Signatures checked."),
  expired: count("Keys where something ran out."),
  confirmed: count("Suspicious records confirmed."),
  denied: count("Suspicious records denied."),
  runs: count("Comparisons with other members."),
  refusals: numbers("Versions and proofs refused, by reason."),
  lastSync: optional(object<NonNullable<SporesStatus["lastSync"]>>({
    atMs: time("When it ended."),
    nodeId: text("Node id of the other."),
    ok: bool("Whether it came to its end."),
    differing: count("Entries that differed."),
    received: count("Versions received."),
    sent: count("Versions sent."),
    rounds: count("Messages and their answers."),
    elapsedMs: count("How long it took."),
  }, "The last comparison.")),
}, "Spore records: missing before this node is a member.");

const detection = object<DetectionStatus>({
  awareness: count("Local health: 0 is well, 7 is worst; probes get rarer and more patient with it."),
  incarnation: count("Rises with every start and every refuted suspicion."),
  lossPerMille: count("First pings that were not answered in time, of a thousand, smoothed."),
  watched: count("Members with a channel, which are probed from here."),
  probes: count("Probes since the start."),
  refuted: count("Suspicions of this node that it refuted, since the start."),
  suspects: list(text("Node id.")),
  dead: list(text("Node id.")),
}, "Failure detection: missing before this node is a member.");

const incidents = object<IncidentsStatus>({
  open: count("Incidents that nobody has acknowledged."),
  acknowledged: count("Incidents that a person knows of and that are not over."),
  dryRun: bool("Whether responses beyond the alert are only told of."),
  measures: list(
    object<IncidentsStatus["measures"][number]>({
      incident: count("Number of the incident."),
      response: choice<IncidentsStatus["measures"][number]["response"]>({
        alert: true,
        throttle: true,
        quarantine: true,
        revoke: true,
      }),
      subject: text("To whom: node:…, address:… or principal:…."),
      untilMs: time("When it ends."),
    }),
    "Responses in force, at most 64.",
  ),
  latest: list(
    object<IncidentsStatus["latest"][number]>({
      id: count("Number on this node."),
      rule: text("Rule that found it."),
      title: text("What the rule finds."),
      severity: text("info, warning or critical."),
      state: text("open or acknowledged."),
      subject: text("Whom it is about."),
      count: count("Events so far."),
      firstMs: time("First event."),
      lastMs: time("Last event."),
      detail: text("What happened last."),
    }),
    "Those that are not closed, the latest first, at most 16.",
  ),
  opened: numbers("Incidents since the start, by rule."),
  throttled: count("Calls that were held up, since the start."),
}, "Security incidents that this node has found.");

const audit = object<AuditStatus>({
  last: count("Number of the last entry."),
  sealedTo: count("Entries up to this one are signed."),
  kept: count("First entry on the disk."),
  waiting: count("Entries that the disk has not taken yet."),
  lost: count("Entries that were lost in this run."),
  publishedTo: optional(count("Last seal that the network was told of; missing while a newer one is not.")),
  watched: count("Logs of other nodes that this one watches."),
}, "The audit log of this node.");

const agreed = object<AgreedStatus>({
  keys: count("Keys under agreed/ that this node knows of."),
  shown: count("Of them, shown by a certificate that this node has verified from the founder's key."),
  decided: count("Decisions of records that were seen here."),
  waiting: count("Of them, not yet where this node looks."),
  late: count("Of them, not there after a minute: overtaken, refused or held up."),
  mismatches: count("Records that stand and were not decided, since the start."),
  recent: list(object<AgreedStatus["recent"][number]>({
    kind: choice<AgreedStatus["recent"][number]["kind"]>(
      { "latent-differs": true, "unshown": true },
      "The Latent Spore differs from the replica; no certificate shows the record.",
    ),
    key: text("Key of the record."),
    found: text("Hash of what stands, hexadecimal."),
    expected: optional(text("Hash of what should.")),
    index: count("Place in the log."),
    atMs: time("When it was found."),
    by: list(text("Node id of who has signed that it stands.")),
  }, "A record that stands and was not decided.")),
}, "Whether what stands under agreed/ is what was decided: missing before this node is a member.");

const trust = object<TrustStatus>({
  version: count("Version of the agreed scores; 0 before the first update."),
  atMs: time("Time to which the agreed scores have decayed."),
  voteMinPpm: count("Least agreed score of a voter, parts per million."),
  scored: count("Nodes with an agreed score that is not neutral."),
  banned: list(text("Node id of a member that is trusted no more.")),
  belowVote: count("Members below the threshold of a vote."),
  belowRecord: count("Members whose records are confirmed before they are used."),
  proofs: count("Proofs of faults that this node has checked."),
  proofsUndecided: count("Proofs whose electorate it does not know."),
  certificates: count("Certificates that are kept to show who takes part."),
  policySet: bool("Whether a policy was agreed on; else what is built in counts."),
  scores: list(
    object<TrustStatus["scores"][number]>({
      nodeId: text("Node id."),
      agreedPpm: count("Agreed score, parts per million: the same on every node."),
      localPpm: count("What this node has seen itself, parts per million."),
      banned: bool("Trusted no more, for good."),
    }, "Members, the first ones."),
  ),
  updates: count("Agreed updates taken in, since the start."),
  refused: count("Updates of others that did not hold."),
  waited: count("Looks at updates of others that waited for something."),
  proposed: count("Updates that this node has proposed."),
  reports: count("Proofs that this node has told of."),
  lies: count("Accusations of others that did not hold."),
}, "Trust: missing before this node is a member.");

const decision = object<DecisionStatus>({
  instance: text("Name of what was decided together, hexadecimal."),
  atMs: time("When this node heard of it."),
  class: text("fast, standard or critical."),
  proposer: text("Node id."),
  round: count("Rounds that it took, from 0."),
  signers: count("Voters whose signatures the certificate holds."),
  voters: count("Voters of its electorate."),
  accepted: count("Operations that were accepted."),
  operations: count("Operations of it."),
  keys: list(text("Key that it wrote; the first ones.")),
});
const agreement = object<AgreementStatus>({
  broken: optional(text("Why this node takes no part, where it cannot.")),
  epoch: count("Number of the electorate; 0 is the founder alone."),
  votes: bool("Whether this node votes."),
  voters: list(object<AgreementStatus["voters"][number]>({
    nodeId: text("Node id."),
    seats: count("What its vote counts for."),
    sinceMs: time("Since when it votes."),
    answers: bool("Whether it answers this node."),
  })),
  tolerated: count("Voters that may lie or fail, whoever they are; 0 with fewer than four."),
  health: choice<AgreementStatus["health"]>({ full: true, sound: true, fragile: true, lost: true }),
  healthSinceMs: time("Since when."),
  seats: count("Seats that answer this node."),
  seatsOf: count("All seats."),
  seatsNeeded: count("Seats that decide: more than two thirds."),
  committee: count("Voters of the next standard committee."),
  delayMs: count("What one message is taken to need, milliseconds."),
  queued: count("Own operations that wait for their turn."),
  voting: count("Instances under way."),
  waiting: count("Of these, those that wait for state that is not here yet."),
  handovers: count("Decisions that are not known to be applied yet."),
  proofs: count("Keys whose newest record this node can prove."),
  messages: count("Messages sent to voters since the start."),
  messageBytes: count("Their bytes."),
  decided: count("Decisions since the start."),
  failed: count("Instances without a decision."),
  evidence: count("Faults of voters that this node has found."),
  disputed: count("Fast decisions that this node would not have made."),
  dropped: count("Messages that were not acted on."),
  refusedNews: count("Certificates that did not hold."),
  recent: list(decision),
  emergency: optional(object<NonNullable<AgreementStatus["emergency"]>>({
    epoch: count("Number of the electorate that an operator put in place."),
    reason: text("Why."),
    issuedMs: time("When."),
    without: list(text("Node id of a voter that is not back.")),
  })),
}, "Agreement: missing before this node is a member.");

const primary = object<PrimaryStatus>({
  role: choice<PrimaryStatus["role"]>({
    leader: true,
    follower: true,
    learner: true,
    "pre-candidate": true,
    candidate: true,
    client: true,
    failed: true,
  }),
  term: count("Latest term."),
  leader: optional(text("Node id of who leads, as far as this node knows.")),
  voters: list(text("Node id.")),
  learners: list(text("Node id.")),
  changing: bool("Whether a change of the voters is under way."),
  commitIndex: count("Last entry that is known to be agreed on."),
  appliedIndex: count("Last entry in the replicated state of this node."),
  logEntries: count("Entries of the log in memory."),
  logBytes: count("What the log takes since the last snapshot."),
  snapshotIndex: count("Last entry that the snapshot holds."),
  keys: count("Keys of the replicated state, deleted ones included."),
  bytes: count("What they count for."),
  sessions: count("Clients with an open session."),
  stateHash: text("Hash of the replicated state: equal on all nodes at one appliedIndex."),
  recoveries: list(object<PrimaryStatus["recoveries"][number]>({
    index: count("Entry of the log."),
    timeMs: time("When."),
    by: text("Node id of where it was done."),
    without: list(text("Node id of one that was given up.")),
  })),
  waiting: count("Writes of this node that wait for an answer."),
  unproven: count("At the leader: keys that wait for the signatures of a majority."),
}, "Primary Spore: missing before this node is a member.");

const sporeVersion = {
  key: text("Path; its first segment says whose it is."),
  tier: choice<SporeRow["tier"]>({ latent: true, seed: true, primary: true }, "Where it comes from."),
  state: choice<SporeRow["state"]>({ live: true, expired: true, deleted: true }),
  author: text("Node id."),
  authorName: text("Name of the author."),
  seq: count("Number: the greater one is the newer word."),
  term: optional(count("Term of the entry in the log of the Primary Spore.")),
  index: optional(count("Index of that entry, or number of the seed document.")),
  provenUntilMs: optional(time("Until when its rank counts.")),
  issuedMs: time("When it was written, by its author's clock."),
  expiresMs: time("When it runs out."),
  hash: text("Hexadecimal."),
  sizeBytes: count("Size of the value."),
  value: optional(text("Base64url; never in a listing.")),
};
const sporeRow = object<SporeRow>({
  ...sporeVersion,
  provisional: bool("Used although a higher tier says otherwise: confirmed by connection."),
  challenger: optional(object<NonNullable<SporeRow["challenger"]>>({
    ...sporeVersion,
    confirmation: choice<NonNullable<SporeRow["challenger"]>["confirmation"]>({
      asking: true,
      confirmed: true,
      denied: true,
      unanswered: true,
    }, "How far its confirmation is."),
  }, "A newer word of lower tier that is not used.")),
});
const sporePage = object<SporePage>({
  rows: list(sporeRow),
  after: optional(text("Key to go on after; missing where that was all.")),
});

const status: Schema<Status> = object<Status>({
  schema: { json: { const: 1, description: "Rises when a field changes its meaning or goes." }, optional: false },
  nowMs: time("When this document was made, by the node's clock."),
  version: object<Status["version"]>({
    version: text("Version of the program."),
    commit: text("Commit that it was built from."),
    builtAt: text("When it was built."),
    runtime: text("Runtime under it."),
  }),
  node: object<Status["node"]>({
    nodeId: text("PeerId of this node."),
    name: text("Name for people."),
    role,
    pool: text("Pool of nodes that it belongs to."),
    startedMs: time("When the agent started."),
    addresses: list(text("Multiaddr.")),
    capabilities: named<CapabilityStatus>("Capabilities"),
    mode: choice<Status["node"]["mode"]>(
      { normal: true, safe: true, isolated: true, drained: true },
      "Normal operation, or what an operator has ordered.",
    ),
  }),
  network: optional(object<NonNullable<Status["network"]>>({
    networkId: text("SHA-256 of the genesis record, 64 hex digits."),
    name: text("Name for people."),
    createdMs: time("When it was formed."),
    authority: object<NonNullable<Status["network"]>["authority"]>({
      epoch: count("Number of the newest authority epoch."),
      issuers: list(text("Node id.")),
      threshold: count("Issuers that must sign the next epoch."),
    }),
    registrar: optional(text("Node id of the registrar.")),
    profileSeq: count("Version of the network profile."),
    genesisKey: choice<NonNullable<Status["network"]>["genesisKey"]>({ here: true, offline: true }),
    operatorKey: bool("Whether this node holds the operator key."),
    revocations: count("Revocations in force."),
  }, "Missing until the node belongs to one.")),
  credential: optional(object<NonNullable<Status["credential"]>>({
    issuedMs: time("When it was issued."),
    expiresMs: time("When it expires."),
    renewAtMs: time("When it will be renewed."),
    issuer: text("Node id of the issuer."),
  }, "The membership credential of this node.")),
  bootstrap: object<Status["bootstrap"]>({
    stage: named<JoinStage>("JoinStage"),
    sinceMs: time("When this stage began."),
    attempt: count("Attempts in this stage."),
    waitingFor: list(named<Waiting>("Waiting")),
    failures: list(named<Failure>("Failure")),
    candidates: list(named<CandidateStatus>("Candidate")),
    sources: list(named<SourceStatus>("Source")),
    timeline: list(object<Status["bootstrap"]["timeline"][number]>({
      stage: named<JoinStage>("JoinStage"),
      atMs: time("When it was entered."),
    })),
  }),
  tolerance: object<Status["tolerance"]>({
    members: count("Members that count."),
    issuers: count("Members that may admit nodes."),
    crashFaults: count("Nodes that may stop at once without loss."),
    byzantineFaults: count("Nodes that may lie at once without harm."),
    note: text("The same, said plainly."),
  }, "What the network tolerates now."),
  members: list(named<MemberStatus>("Member")),
  invites: list(named<InviteStatus>("Invite")),
  pending: list(named<PendingStatus>("Pending")),
  assignments: list(named<AssignmentStatus>("Assignment")),
  config: object<Status["config"]>({
    version: count("Version of the configuration in force."),
    tryUntilMs: optional(time("When a configuration on trial is taken back.")),
  }),
  spores: optional(spores),
  gossip: optional(gossip),
  detection: optional(detection),
  trust: optional(trust),
  agreement: optional(agreement),
  agreed: optional(agreed),
  incidents: optional(incidents),
  audit: optional(audit),
  primary: optional(primary),
  seeds: optional(seeds),
  health: object<Status["health"]>({
    ready: bool("Whether the node does its work."),
    health,
    reasons: list(text("Why it is not.")),
    components: list(named<ComponentStatus>("Component")),
  }),
  traffic: object<Status["traffic"]>({
    bytesIn: count("Bytes received since start."),
    bytesOut: count("Bytes sent since start."),
    callsIn: count("Calls received since start."),
    callsOut: count("Calls made since start."),
    channels: count("Open channels."),
  }),
  refusals: numbers("Refusals by reason since start."),
  process: object<Status["process"]>({
    pid: count("Process id."),
    rssBytes: count("Resident memory."),
    cpuMs: number("CPU time since start in milliseconds."),
    uptimeMs: number("Milliseconds since start."),
    openFiles: count("Open file descriptors."),
    loopLagMs: optional(object<NonNullable<Status["process"]["loopLagMs"]>>({
      mean: number("Mean of the last minute in milliseconds."),
      max: number("Largest of the last minute in milliseconds."),
    }, "How late timers of this process fire.")),
  }),
  history: optional(list(named<HistorySample>("HistorySample"), "Samples for the plots, oldest first.")),
  events: list(named<EventStatus>("Event")),
  limits: numbers("Bounds in force."),
});

/** Schemas by name, as the document holds them. */
export const SCHEMAS: Readonly<Record<string, JsonSchema>> = {
  Status: status.json,
  JoinStage: stage.json,
  Capabilities: capabilities.json,
  Path: path.json,
  Member: member.json,
  Failure: failure.json,
  Waiting: waiting.json,
  Candidate: candidate.json,
  Source: source.json,
  Component: component.json,
  Invite: invite.json,
  Pending: pending.json,
  Assignment: assignment.json,
  Event: event.json,
  SporePage: sporePage.json,
  HistorySample: sample.json,
  Readiness: {
    type: "object",
    required: ["status", "health", "stage", "reasons", "waitingFor", "components"],
    properties: {
      status: { type: "string", enum: ["ready", "not-ready"] },
      health: health.json,
      stage: { $ref: "#/components/schemas/JoinStage" },
      reasons: { type: "array", items: { type: "string" } },
      waitingFor: { type: "array", items: { $ref: "#/components/schemas/Waiting" } },
      components: { type: "array", items: { $ref: "#/components/schemas/Component" } },
    },
  },
  Problem: {
    type: "object",
    description: "RFC 9457, with a cause and a cure.",
    required: ["type", "title", "status", "detail", "code", "cause", "cure"],
    properties: {
      type: { type: "string" },
      title: { type: "string" },
      status: { type: "integer", minimum: 400, maximum: 599 },
      detail: { type: "string" },
      code: { type: "string" },
      cause: { type: "string" },
      cure: { type: "string" },
    },
  },
};

const CONTROL_SCHEMAS: Readonly<Record<string, JsonSchema>> = {
  ControlRequest: {
    type: "object",
    required: ["verb"],
    properties: { verb: { type: "string", description: "What is asked; the other fields depend on it." } },
  },
  ControlAnswer: {
    oneOf: [
      { type: "object", required: ["ok", "result"], properties: { ok: { const: true }, result: {} } },
      { $ref: "#/components/schemas/ControlError" },
    ],
  },
  ControlError: {
    type: "object",
    required: ["ok", "error"],
    properties: {
      ok: { const: false },
      error: {
        type: "object",
        required: ["code", "message", "cure"],
        properties: { code: { type: "string" }, message: { type: "string" }, cure: { type: "string" } },
      },
    },
  },
  ExecRequest: {
    type: "object",
    required: ["verb"],
    properties: {
      verb: { type: "string" },
      args: { type: "object", additionalProperties: { type: "string" } },
      node: { type: "string", description: "Id, unique end of an id, or name." },
      timeoutMs: { type: "integer", minimum: 1 },
    },
  },
  ExecLine: {
    type: "object",
    required: ["type"],
    properties: {
      type: { type: "string", enum: ["output", "error", "end"] },
      text: { type: "string" },
      code: { type: ["string", "integer"] },
      message: { type: "string" },
      cure: { type: "string" },
    },
  },
};

/** Which app the document describes. */
export interface OpenApiOptions {
  /** With the routes of the unix socket. */
  readonly control: boolean;
  /** With a bearer token. */
  readonly token: boolean;
}

/** The document. */
export function openApiDocument(options: OpenApiOptions): JsonSchema {
  const ok = (description: string, type: string, schema: JsonSchema) => ({
    description,
    content: { [type]: { schema } },
  });
  const ref = (name: string) => ({ $ref: `#/components/schemas/${name}` });
  const problem = ok("A cause and a cure.", "application/problem+json", ref("Problem"));
  const get = (
    operationId: string,
    summary: string,
    responses: JsonSchema,
    parameters: readonly JsonSchema[] = [],
  ) => ({
    get: {
      operationId,
      summary,
      ...(parameters.length > 0 ? { parameters } : {}),
      responses: { ...responses, default: problem },
    },
  });
  const post = (operationId: string, summary: string, body: string, answer: JsonSchema) => ({
    post: {
      operationId,
      summary,
      requestBody: { required: true, content: { "application/json": { schema: ref(body) } } },
      responses: {
        "200": answer,
        default: ok("Refused, with a cure.", "application/json", ref("ControlError")),
      },
    },
  });
  const control = options.control
    ? {
      "/control": post(
        "control",
        "Asks something of the agent",
        "ControlRequest",
        ok("Done.", "application/json", ref("ControlAnswer")),
      ),
      "/exec": post(
        "exec",
        "Runs a command of the closed list on this node or another",
        "ExecRequest",
        ok("Lines as they come; the last one is of type end.", "application/x-ndjson", ref("ExecLine")),
      ),
      "/shutdown": {
        post: {
          operationId: "shutdown",
          summary: "Stops the agent in order",
          responses: {
            "200": ok("It stops.", "application/json", ref("ControlAnswer")),
            default: ok("Refused, with a cure.", "application/json", ref("ControlError")),
          },
        },
      },
      "/logs": get("logs", "Recent log lines", {
        "200": ok("One JSON object a line, oldest first.", "application/x-ndjson", { type: "object" }),
      }, [
        { name: "n", in: "query", description: "Lines.", schema: { type: "integer", minimum: 1, maximum: 10_000 } },
        {
          name: "level",
          in: "query",
          description: "Least level.",
          schema: { type: "string", enum: ["debug", "info", "warn", "error"] },
        },
      ]),
    }
    : {};
  return {
    openapi: "3.1.0",
    info: {
      title: "mycelium node",
      version: "1",
      description:
        "What a node says of itself, and what may be asked of it: over its unix socket by whoever may use that, " +
        "elsewhere in a session or with a service token.",
      license: { name: "Apache-2.0", identifier: "Apache-2.0" },
    },
    servers: [{ url: "/" }],
    ...(options.token ? { security: [{ bearer: [] }, { basic: [] }] } : { security: [] }),
    paths: {
      "/": get("dashboard", "The dashboard", { "200": ok("A page.", "text/html", { type: "string" }) }),
      "/healthz": get("health", "Whether the process answers", {
        "200": {
          description: "It does.",
          content: {
            "application/json": {
              schema: { type: "object", required: ["status"], properties: { status: { const: "alive" } } },
            },
            "text/plain": { schema: { type: "string" } },
          },
        },
      }),
      "/readyz": get("readiness", "Whether the node does its work, with reasons", {
        "200": readinessAnswer("It does."),
        "503": readinessAnswer("It does not; the reasons say why."),
      }),
      "/status": get("status", "Everything that the node says of itself", {
        "200": ok("The document.", "application/json", ref("Status")),
        "304": { description: "Unchanged since the tag in If-None-Match." },
      }),
      "/spores": get("spores", "Spore records without their values, in order of their keys", {
        "200": ok("A page.", "application/json", ref("SporePage")),
      }, [
        { name: "prefix", in: "query", description: "What the keys begin with.", schema: { type: "string" } },
        { name: "after", in: "query", description: "Only keys behind this one.", schema: { type: "string" } },
        {
          name: "max",
          in: "query",
          description: "Records.",
          schema: { type: "integer", minimum: 1, maximum: 1_000 },
        },
      ]),
      "/metrics": get("metrics", "The same for Prometheus", {
        "200": ok("Exposition format 0.0.4.", "text/plain", { type: "string" }),
      }),
      "/events": get(
        "events",
        "The status when it changes, and events, as server-sent events",
        {
          "200": ok("Events of types status, event, gap, and page.", "text/event-stream", { type: "string" }),
        },
        [
          {
            name: "view",
            in: "query",
            description: "page gives rendered HTML instead of the status.",
            schema: { type: "string", enum: ["status", "page"] },
          },
          {
            name: "Last-Event-ID",
            in: "header",
            description: "Id of the last event that was read; those after it are sent first.",
            schema: { type: "string" },
          },
        ],
      ),
      "/openapi.json": get("openapi", "This document", {
        "200": ok("OpenAPI 3.1.", "application/json", { type: "object" }),
      }),
      ...control,
    },
    components: {
      schemas: { ...SCHEMAS, ...(options.control ? CONTROL_SCHEMAS : {}) },
      ...(options.token
        ? { securitySchemes: { bearer: { type: "http", scheme: "bearer" }, basic: { type: "http", scheme: "basic" } } }
        : {}),
    },
  };
}

function readinessAnswer(description: string): JsonSchema {
  return {
    description,
    content: {
      "application/json": { schema: { $ref: "#/components/schemas/Readiness" } },
      "text/plain": { schema: { type: "string" } },
    },
  };
}
