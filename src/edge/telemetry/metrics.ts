/**
 * Status as Prometheus text, exposition format 0.0.4.
 *
 * @module
 */

import type { JoinStage, MemberStatus, Status, TrustStatus } from "../../agent/status.ts";

/** Content type of {@linkcode renderMetrics}. */
export const METRICS_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8";

/** Members that get a series of their own; a large network would drown the collector. */
const MEMBER_SERIES_MAX = 200;

/** Label sets per metric that come from outside; the rest is summed as `other`. */
const REASONS_MAX = 100;

const STAGES: Readonly<Record<JoinStage, true>> = {
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
};

const MEMBER_STATES: Readonly<Record<MemberStatus["state"], true>> = {
  self: true,
  alive: true,
  suspect: true,
  dead: true,
  left: true,
};

/** Labels of one series. */
export type Labels = Readonly<Record<string, string>>;

/** Builds an exposition; metrics appear in the order in which they are added. */
export class Exposition {
  #text = "";

  /** Adds a metric with one value that may go up and down. */
  gauge(name: string, help: string, value: number | undefined): void {
    if (value !== undefined) this.#write(name, "gauge", help, [[{}, value]]);
  }

  /** Adds a metric with one value that only rises; `name` ends in `_total`. */
  counter(name: string, help: string, value: number | undefined): void {
    if (value !== undefined) this.#write(name, "counter", help, [[{}, value]]);
  }

  /** Adds a metric of several series; one without series is left out. */
  family(name: string, type: "gauge" | "counter", help: string, series: readonly (readonly [Labels, number])[]): void {
    if (series.length > 0) this.#write(name, type, help, series);
  }

  /** The exposition so far. */
  toString(): string {
    return this.#text;
  }

  #write(name: string, type: string, help: string, series: readonly (readonly [Labels, number])[]): void {
    this.#text += `# HELP ${name} ${help.replace(/\\/g, "\\\\").replace(/\n/g, "\\n")}\n# TYPE ${name} ${type}\n`;
    for (const [labels, value] of series) this.#text += `${name}${labelText(labels)} ${numberText(value)}\n`;
  }
}

/**
 * The node's status as metrics.
 *
 * @param status The document; every value comes from it.
 * @param extra Adds what is not part of a status, such as requests served.
 */
export function renderMetrics(status: Status, extra?: (out: Exposition) => void): string {
  const out = new Exposition();
  nodeMetrics(out, status);
  memberMetrics(out, status);
  joinMetrics(out, status);
  sporeMetrics(out, status);
  detectionMetrics(out, status);
  trustMetrics(out, status);
  agreedMetrics(out, status);
  securityMetrics(out, status);
  primaryMetrics(out, status);
  agreementMetrics(out, status);
  gossipMetrics(out, status);
  seedMetrics(out, status);
  trafficMetrics(out, status);
  processMetrics(out, status);
  extra?.(out);
  return out.toString();
}

function nodeMetrics(out: Exposition, status: Status): void {
  const { version, node, network, health, tolerance, credential } = status;
  out.family("mycelium_build_info", "gauge", "Version of the program; always 1.", [
    [{ version: version.version, commit: version.commit, runtime: version.runtime }, 1],
  ]);
  out.family("mycelium_node_info", "gauge", "Identity of this node; always 1.", [[{
    node: node.nodeId,
    name: node.name,
    role: node.role,
    pool: node.pool,
    mode: node.mode,
    network: network?.networkId ?? "",
    network_name: network?.name ?? "",
  }, 1]]);
  out.gauge("mycelium_ready", "Whether this node is ready (1) or not (0).", health.ready ? 1 : 0);
  out.family(
    "mycelium_component_health",
    "gauge",
    "Health of each component: 1 ok, 0.5 degraded, 0 failed.",
    health.components.map((component) => [
      { component: component.name },
      component.health === "ok" ? 1 : component.health === "degraded" ? 0.5 : 0,
    ]),
  );
  out.family("mycelium_tolerated_faults", "gauge", "Nodes that may fail at once without loss.", [
    [{ kind: "crash" }, tolerance.crashFaults],
    [{ kind: "byzantine" }, tolerance.byzantineFaults],
  ]);
  out.gauge("mycelium_issuers", "Members that may admit nodes.", tolerance.issuers);
  out.gauge("mycelium_authority_epoch", "Number of the newest authority epoch.", network?.authority.epoch);
  out.gauge("mycelium_revocations", "Revocations in force.", network?.revocations);
  out.gauge(
    "mycelium_credential_expiry_timestamp_seconds",
    "When the membership credential of this node expires, Unix time.",
    credential && credential.expiresMs / 1000,
  );
  out.gauge(
    "mycelium_credential_renewal_timestamp_seconds",
    "When the membership credential of this node will be renewed, Unix time.",
    credential && credential.renewAtMs / 1000,
  );
  out.gauge("mycelium_config_version", "Version of the configuration in force.", status.config.version);
}

function memberMetrics(out: Exposition, status: Status): void {
  const states = new Map<string, number>(Object.keys(MEMBER_STATES).map((state) => [state, 0]));
  const roles = new Map<string, number>();
  for (const member of status.members) {
    states.set(member.state, (states.get(member.state) ?? 0) + 1);
    roles.set(member.role, (roles.get(member.role) ?? 0) + 1);
  }
  out.family("mycelium_members", "gauge", "Members by state as this node sees them.", series("state", states));
  out.family("mycelium_members_by_role", "gauge", "Members by role.", series("role", roles));
  const measured = status.members.filter((member) => member.path?.rttMs !== undefined).slice(0, MEMBER_SERIES_MAX);
  out.family(
    "mycelium_path_rtt_seconds",
    "gauge",
    "Last measured round trip to a member.",
    measured.map((member) => [
      { member: member.nodeId, name: member.name, transport: member.path?.transport ?? "" },
      (member.path?.rttMs ?? 0) / 1000,
    ]),
  );
}

function joinMetrics(out: Exposition, status: Status): void {
  const { bootstrap } = status;
  out.family(
    "mycelium_join_stage",
    "gauge",
    "Stage of joining: 1 for the one that this node is in.",
    Object.keys(STAGES).map((stage) => [{ stage }, stage === bootstrap.stage ? 1 : 0]),
  );
  out.gauge(
    "mycelium_join_stage_since_timestamp_seconds",
    "When that stage began, Unix time.",
    bootstrap.sinceMs / 1000,
  );
  out.gauge("mycelium_join_attempt", "Attempts in this stage.", bootstrap.attempt);
  out.gauge("mycelium_waiting_conditions", "Conditions that this node waits for.", bootstrap.waitingFor.length);
  const failures = new Map<string, number>();
  for (const failure of bootstrap.failures) {
    failures.set(failure.code, (failures.get(failure.code) ?? 0) + failure.count);
  }
  out.family("mycelium_join_failures", "gauge", "Recent failures of joining by code.", series("code", failures));
  const candidates = new Map<string, number>();
  for (const candidate of bootstrap.candidates) {
    candidates.set(candidate.source, (candidates.get(candidate.source) ?? 0) + 1);
  }
  out.family("mycelium_discovery_candidates", "gauge", "Candidates by source.", series("source", candidates));
  const invites = new Map<string, number>();
  for (const invite of status.invites) invites.set(invite.state, (invites.get(invite.state) ?? 0) + 1);
  out.family("mycelium_invites", "gauge", "Invites by state.", series("state", invites));
  out.gauge("mycelium_pending_joins", "Nodes that wait for an operator.", status.pending.length);
}

function seedMetrics(out: Exposition, status: Status): void {
  const { seeds } = status;
  if (!seeds) return;
  const states = (all: readonly { readonly state: string }[], names: readonly string[]) =>
    series("state", new Map(names.map((name) => [name, all.filter((one) => one.state === name).length])));
  out.family(
    "mycelium_seed_sources",
    "gauge",
    "Files and servers that seeds are read from, by state.",
    states(seeds.sources, ["ok", "behind", "copy", "failed"]),
  );
  out.family(
    "mycelium_seed_targets",
    "gauge",
    "Places that seeds are published to, by state.",
    states(seeds.targets, ["ok", "waiting", "failed", "idle"]),
  );
  const taken = seeds.taken.reduce((sum, one) => sum + one.records, 0);
  out.gauge("mycelium_seed_records", "Records in the seeds that were taken in this run.", taken);
}

function agreementMetrics(out: Exposition, status: Status): void {
  const { agreement } = status;
  if (!agreement) return;
  out.counter("mycelium_agreement_epoch", "Number of the electorate.", agreement.epoch);
  out.gauge("mycelium_agreement_voters", "Voters of the electorate.", agreement.voters.length);
  out.gauge("mycelium_agreement_votes", "Whether this node votes.", agreement.votes ? 1 : 0);
  out.gauge("mycelium_agreement_tolerated", "Voters that may lie or fail.", agreement.tolerated);
  out.gauge("mycelium_agreement_seats", "Seats that answer this node.", agreement.seats);
  out.gauge("mycelium_agreement_seats_needed", "Seats that decide.", agreement.seatsNeeded);
  out.gauge("mycelium_agreement_quorum_lost", "Whether nothing can be decided.", agreement.health === "lost" ? 1 : 0);
  out.gauge(
    "mycelium_agreement_emergency",
    "Whether an electorate of an emergency stands.",
    agreement.emergency ? 1 : 0,
  );
  out.gauge("mycelium_agreement_committee", "Voters of the next standard committee.", agreement.committee);
  out.gauge("mycelium_agreement_delay_seconds", "What one message is taken to need.", agreement.delayMs / 1000);
  out.gauge("mycelium_agreement_queued", "Own operations that wait for their turn.", agreement.queued);
  out.gauge("mycelium_agreement_voting", "Instances under way.", agreement.voting);
  out.gauge("mycelium_agreement_handovers", "Decisions that are not known to be applied.", agreement.handovers);
  out.counter("mycelium_agreement_decided_total", "Decisions.", agreement.decided);
  out.counter("mycelium_agreement_failed_total", "Instances without a decision.", agreement.failed);
  out.counter("mycelium_agreement_evidence_total", "Faults of voters that this node has found.", agreement.evidence);
  out.counter(
    "mycelium_agreement_disputed_total",
    "Fast decisions that this node would not have made.",
    agreement.disputed,
  );
  out.counter("mycelium_agreement_dropped_total", "Messages that were not acted on.", agreement.dropped);
  out.counter("mycelium_agreement_messages_total", "Messages sent to voters.", agreement.messages);
  out.counter("mycelium_agreement_message_bytes_total", "Their bytes.", agreement.messageBytes);
}

function primaryMetrics(out: Exposition, status: Status): void {
  const { primary } = status;
  if (!primary) return;
  out.gauge(
    "mycelium_primary_leader_known",
    "Whether somebody leads the primaries.",
    primary.leader === undefined ? 0 : 1,
  );
  if (primary.role === "client") return;
  out.gauge("mycelium_primary_leads", "Whether this node leads the primaries.", primary.role === "leader" ? 1 : 0);
  out.counter("mycelium_primary_term", "Term of the primaries: rises with elections.", primary.term);
  out.gauge("mycelium_primary_voters", "Nodes that vote.", primary.voters.length);
  out.gauge("mycelium_primary_learners", "Nodes that listen.", primary.learners.length);
  out.counter("mycelium_primary_commit_index", "Last entry that is known to be agreed on.", primary.commitIndex);
  out.counter("mycelium_primary_applied_index", "Last entry in the state of this node.", primary.appliedIndex);
  out.gauge("mycelium_primary_log_bytes", "Log since the last snapshot.", primary.logBytes);
  out.gauge("mycelium_primary_keys", "Keys of the agreed state, deleted ones included.", primary.keys);
  out.gauge("mycelium_primary_bytes", "What they count for.", primary.bytes);
  out.gauge(
    "mycelium_primary_unproven",
    "At the leader: keys that wait for signatures of a majority.",
    primary.unproven,
  );
}

function detectionMetrics(out: Exposition, status: Status): void {
  const { detection } = status;
  if (!detection) return;
  out.gauge("mycelium_detection_awareness", "Local health: 0 is well, 7 is worst.", detection.awareness);
  out.gauge("mycelium_detection_loss_ratio", "First pings without an answer in time.", detection.lossPerMille / 1_000);
  out.gauge("mycelium_detection_watched", "Members that are probed from here.", detection.watched);
  out.counter("mycelium_detection_probes_total", "Probes of other members.", detection.probes);
  out.counter("mycelium_detection_refuted_total", "Suspicions of this node that it refuted.", detection.refuted);
}

function securityMetrics(out: Exposition, status: Status): void {
  const { incidents, audit } = status;
  if (incidents) {
    out.family("mycelium_incidents", "gauge", "Security incidents that are not closed, by state.", [
      [{ state: "open" }, incidents.open],
      [{ state: "acknowledged" }, incidents.acknowledged],
    ]);
    out.family(
      "mycelium_incidents_total",
      "counter",
      "Security incidents since the start, by rule.",
      Object.entries(incidents.opened).map(([rule, found]) => [{ rule }, found] as const),
    );
    out.family(
      "mycelium_incident_measures",
      "gauge",
      "Responses to incidents that are in force.",
      (["throttle", "quarantine"] as const).map((response) =>
        [{ response }, incidents.measures.filter((one) => one.response === response).length] as const
      ),
    );
    out.counter("mycelium_throttled_calls_total", "Calls that were held up by a response.", incidents.throttled);
  }
  if (!audit) return;
  out.counter("mycelium_audit_entries_total", "Number of the last entry of the audit log.", audit.last);
  out.gauge(
    "mycelium_audit_unsealed",
    "Entries of the audit log that are not signed yet.",
    audit.last - audit.sealedTo,
  );
  out.gauge("mycelium_audit_waiting", "Entries that the disk has not taken yet.", audit.waiting);
  out.counter("mycelium_audit_lost_total", "Entries that were lost in this run.", audit.lost);
}

function agreedMetrics(out: Exposition, { agreed }: Status): void {
  if (!agreed) return;
  out.gauge("mycelium_agreed_keys", "Keys under agreed/ that this node knows of.", agreed.keys);
  out.gauge("mycelium_agreed_shown", "Of them, shown by a certificate that this node has verified.", agreed.shown);
  out.gauge("mycelium_agreed_waiting", "Decisions that do not stand yet where this node looks.", agreed.waiting);
  out.counter("mycelium_agreed_decided_total", "Decisions of records that were seen here.", agreed.decided);
  out.counter("mycelium_agreed_late_total", "Decisions that did not stand after a minute.", agreed.late);
  out.counter("mycelium_agreed_mismatches_total", "Records that stand and were not decided.", agreed.mismatches);
}

function trustMetrics(out: Exposition, status: Status): void {
  const { trust } = status;
  if (!trust) return;
  const names = new Map(status.members.map((one) => [one.nodeId, one.name]));
  const series = (pick: (one: TrustStatus["scores"][number]) => number) =>
    trust.scores.slice(0, MEMBER_SERIES_MAX).map((one) =>
      [{ member: one.nodeId, name: names.get(one.nodeId) ?? "" }, pick(one) / 1_000_000] as const
    );
  out.family(
    "mycelium_trust_agreed_ratio",
    "gauge",
    "Agreed trust score of each member, 0 to 1.",
    series((one) => one.agreedPpm),
  );
  out.family(
    "mycelium_trust_local_ratio",
    "gauge",
    "What this node has seen of each member itself, 0 to 1.",
    series((one) => one.localPpm),
  );
  out.gauge("mycelium_trust_banned", "Members that are trusted no more.", trust.banned.length);
  out.gauge("mycelium_trust_below_vote", "Members below the threshold of a vote.", trust.belowVote);
  out.gauge("mycelium_trust_proofs", "Proofs of faults that were checked and kept.", trust.proofs);
  out.gauge("mycelium_trust_version", "Version of the agreed scores.", trust.version);
  out.counter("mycelium_trust_false_reports_total", "Accusations that did not hold.", trust.lies);
}

function sporeMetrics(out: Exposition, status: Status): void {
  const { spores } = status;
  if (!spores) return;
  out.family(
    "mycelium_spore_records",
    "gauge",
    "Keys of spore records by the tier of what counts.",
    series("tier", new Map(Object.entries(spores.tiers))),
  );
  out.gauge("mycelium_spore_bytes", "What spore records take.", spores.bytes);
  out.gauge("mycelium_spore_tombstones", "Keys that were deleted.", spores.tombstones);
  out.family(
    "mycelium_spore_suspects",
    "gauge",
    "Suspicious spore records by state of their confirmation.",
    series("state", new Map(Object.entries(spores.suspects))),
  );
  out.counter("mycelium_spore_equivocations_total", "Authors caught saying two things at once.", spores.equivocations);
  out.family(
    "mycelium_spore_versions_total",
    "counter",
    "Versions of spore records that arrived, by what became of them.",
    series("outcome", new Map([["changed", spores.changed], ["skipped", spores.skipped], ["all", spores.received]])),
  );
  out.counter("mycelium_spore_checks_total", "Signatures checked.", spores.verified);
  out.counter("mycelium_spore_repairs_total", "Comparisons with other members.", spores.runs);
  out.gauge(
    "mycelium_spore_repair_differing",
    "Entries that differed in the last comparison.",
    spores.lastSync?.differing,
  );
}

function gossipMetrics(out: Exposition, status: Status): void {
  const { gossip } = status;
  if (!gossip) return;
  out.family(
    "mycelium_gossip_links",
    "gauge",
    "Links of the meshes, by topic.",
    gossip.topics.flatMap(({ topic, links, eager }) => [
      [{ topic, kind: "eager" }, eager] as const,
      [{ topic, kind: "lazy" }, links - eager] as const,
    ]),
  );
  out.gauge("mycelium_gossip_shunned_peers", "Members that broke the rules of gossip.", gossip.shunned);
  const { published, accepted, rejected, ignored, duplicates, pulled, sent } = gossip;
  out.family(
    "mycelium_gossip_messages_total",
    "counter",
    "Broadcast messages, by what became of them.",
    series("outcome", new Map(Object.entries({ published, accepted, rejected, ignored, duplicates, pulled, sent }))),
  );
  out.counter("mycelium_gossip_frames_total", "Frames of gossip that were sent.", gossip.framesOut);
  out.counter("mycelium_gossip_bytes_total", "What they took.", gossip.bytesOut);
}

function trafficMetrics(out: Exposition, status: Status): void {
  const { traffic } = status;
  out.family("mycelium_traffic_bytes_total", "counter", "Bytes over all channels.", [
    [{ direction: "in" }, traffic.bytesIn],
    [{ direction: "out" }, traffic.bytesOut],
  ]);
  out.family("mycelium_calls_total", "counter", "Calls begun.", [
    [{ direction: "in" }, traffic.callsIn],
    [{ direction: "out" }, traffic.callsOut],
  ]);
  out.gauge("mycelium_channels", "Open channels to other nodes.", traffic.channels);
  const refusals = new Map<string, number>();
  for (const [reason, times] of Object.entries(status.refusals)) {
    const label = refusals.size < REASONS_MAX ? reason : "other";
    refusals.set(label, (refusals.get(label) ?? 0) + times);
  }
  out.family("mycelium_refusals_total", "counter", "What was refused, by reason.", series("reason", refusals));
}

function processMetrics(out: Exposition, status: Status): void {
  const { process } = status;
  out.gauge("mycelium_process_resident_memory_bytes", "Resident memory of the process.", process.rssBytes);
  out.counter("mycelium_process_cpu_seconds_total", "CPU time of the process.", process.cpuMs / 1000);
  out.gauge("mycelium_process_open_fds", "Open file descriptors.", process.openFiles);
  out.gauge(
    "mycelium_process_start_time_seconds",
    "When the process started, Unix time.",
    (status.nowMs - process.uptimeMs) / 1000,
  );
  if (process.loopLagMs) {
    out.family("mycelium_event_loop_lag_seconds", "gauge", "Lateness of timers over the last minute.", [
      [{ stat: "mean" }, process.loopLagMs.mean / 1000],
      [{ stat: "max" }, process.loopLagMs.max / 1000],
    ]);
  }
}

function series(label: string, values: ReadonlyMap<string, number>): (readonly [Labels, number])[] {
  return [...values].map(([key, value]) => [{ [label]: key }, value] as const);
}

function labelText(labels: Labels): string {
  const parts = Object.entries(labels).map(([name, value]) => `${name}="${escapeLabel(value)}"`);
  return parts.length > 0 ? `{${parts.join(",")}}` : "";
}

function escapeLabel(value: string): string {
  return value.replace(/\\/g, "\\\\").replace(/"/g, '\\"').replace(/\n/g, "\\n");
}

function numberText(value: number): string {
  if (Number.isNaN(value)) return "NaN";
  // 15 digits are exact; the 16th and 17th are what the conversion to seconds leaves behind.
  if (Number.isFinite(value)) return String(Number.isInteger(value) ? value : Number(value.toPrecision(15)));
  return value > 0 ? "+Inf" : "-Inf";
}
