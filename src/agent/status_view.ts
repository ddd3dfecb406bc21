/** Builds the {@linkcode Status} document from the agent's state and what the edge knows. @module */

import type { AuditHead } from "../access/audit.ts";
import { CAUSES } from "../bootstrap/diagnosis.ts";
import type { CandidateSet } from "../bootstrap/candidates.ts";
import type { JoinMachine } from "../bootstrap/join_machine.ts";
import { equalBytes, toHex } from "../core/bytes.ts";
import type { Capabilities } from "../core/capabilities.ts";
import { nodeIdOf } from "../core/ids.ts";
import { LIMITS } from "../core/limits.ts";
import { byzantineFaults, crashFaults } from "../core/quorum.ts";
import { renewAtMs } from "../identity/credential.ts";
import type { Member } from "../membership/table.ts";
import type { Context } from "./context.ts";
import type { Registrar } from "./registrar.ts";
import type {
  AgreedStatus,
  AgreementStatus,
  AuditStatus,
  ComponentStatus,
  DetectionStatus,
  EventStatus,
  GossipStatus,
  Health,
  IncidentsStatus,
  MemberStatus,
  PrimaryStatus,
  SeedStatus,
  SourceStatus,
  SporesStatus,
  Status,
  TrustStatus,
  Waiting,
} from "./status.ts";

/** What only the edge knows. */
export interface EdgeView {
  readonly nowMs: number;
  readonly version: Status["version"];
  readonly sources: readonly SourceStatus[];
  readonly traffic: Status["traffic"];
  readonly refusals: Status["refusals"];
  readonly process: Status["process"];
  readonly components: readonly ComponentStatus[];
  readonly events: readonly EventStatus[];
  readonly config: Status["config"];
  /** The audit log on the disk. */
  readonly audit?: Omit<AuditStatus, "publishedTo" | "watched">;
  /** Where seeds are read from and published to. */
  readonly seeds?: Pick<SeedStatus, "sources" | "targets">;
}

/** What {@linkcode statusOf} reads. */
export interface StatusInput {
  readonly ctx: Context;
  readonly machine: JoinMachine;
  readonly candidates: CandidateSet;
  readonly registrar: Registrar;
  readonly startedMs: number;
  readonly edge: EdgeView;
  readonly seeds?: Omit<SeedStatus, "sources" | "targets">;
  readonly spores?: SporesStatus;
  readonly gossip?: GossipStatus;
  readonly primary?: PrimaryStatus;
  readonly detection: DetectionStatus | undefined;
  readonly trust?: TrustStatus;
  readonly agreement?: AgreementStatus | undefined;
  readonly agreed?: AgreedStatus;
  readonly incidents?: IncidentsStatus;
  readonly auditHeads?: { readonly published: AuditHead | undefined; readonly watched: number };
}

const NOTHING: Capabilities = {
  cpus: 0,
  memoryBytes: 0,
  diskBytes: 0,
  diskFreeBytes: 0,
  arch: "",
  os: "",
  kernel: "",
  systemd: false,
  battery: false,
  hashesPerSecond: 0,
};

/** The status document as it stands. */
export function statusOf(input: StatusInput): Status {
  const { ctx, machine, edge } = input;
  const { state } = ctx;
  const self = state.self;
  const network = state.network;
  const waitingFor = waiting(input);
  const components = [...edge.components, membership(input), identity(input)];
  const reasons = components.filter((one) => one.health !== "ok").map((one) => `${one.name}: ${one.reason}`);
  const health: Health = components.some((one) => one.health === "failed")
    ? "failed"
    : reasons.length > 0
    ? "degraded"
    : "ok";
  // An issuer is a network of its own while the others are away: it serves, and says what is missing.
  const alone = machine.stage === "isolated" && state.isIssuer;
  const ready = (machine.stage === "verified" || alone) && health !== "failed" && state.mode !== "isolated";
  return {
    schema: 1,
    nowMs: edge.nowMs,
    version: edge.version,
    node: {
      nodeId: state.nodeId,
      name: self?.membership.name ?? ctx.config.name,
      role: self?.membership.role ?? (ctx.config.role === "auto" ? "rhizomorph" : ctx.config.role),
      pool: self?.membership.pool ?? ctx.config.pool,
      startedMs: input.startedMs,
      addresses: ctx.addresses,
      capabilities: ctx.capabilities ?? NOTHING,
      mode: state.mode,
    },
    ...(network
      ? {
        network: {
          networkId: toHex(network.networkId),
          name: network.genesis?.record.name ?? "",
          createdMs: network.genesis?.record.createdMs ?? 0,
          authority: {
            epoch: network.chain?.epoch ?? 0,
            issuers: (network.chain?.issuers ?? []).map(nodeIdOf),
            threshold: network.chain?.threshold ?? 0,
          },
          ...(registrarOf(ctx) ? { registrar: registrarOf(ctx)! } : {}),
          profileSeq: network.profile?.profile.seq ?? 0,
          genesisKey: state.genesisPair ? "here" : "offline",
          operatorKey: state.operatorPair !== undefined,
          revocations: state.revocations.size,
        },
      }
      : {}),
    ...(network?.credential
      ? {
        credential: {
          issuedMs: network.credential.credential.issuedMs,
          expiresMs: network.credential.credential.expiresMs,
          renewAtMs: renewAtMs(network.credential.credential),
          issuer: nodeIdOf(network.credential.envelope.signer),
        },
      }
      : {}),
    bootstrap: {
      stage: machine.stage,
      sinceMs: machine.sinceMs,
      attempt: machine.attempt,
      waitingFor,
      failures: machine.failures.map((one) => ({ ...one, ...CAUSES[one.code] })).map((
        { code, stage, tried, what, cure, atMs, count },
      ) => ({ code, stage, tried, what, cure, atMs, count })),
      candidates: input.candidates.describe(edge.nowMs).slice(0, 64).map((one) => ({
        address: one.address,
        source: one.sources.join(", "),
        authority: one.authority,
        ageMs: one.ageMs,
        verification: one.verification,
        failures: one.failures,
      })),
      sources: edge.sources,
      timeline: machine.timeline,
    },
    tolerance: tolerance(ctx),
    members: state.members.all().filter((one) => !state.revocations.get("node", one.publicKey)).map((one) =>
      memberStatus(ctx, one)
    ).sort((a, b) => a.state === "self" ? -1 : b.state === "self" ? 1 : a.name < b.name ? -1 : 1),
    invites: input.registrar.invites(),
    pending: input.registrar.pending(),
    assignments: [...state.assignments.values()].map(({ assignment }) => ({
      id: assignment.id,
      service: assignment.service,
      seq: assignment.seq,
      state: "waiting",
      reason: "this node has no runtime for services yet",
    })),
    config: edge.config,
    ...(network && input.spores ? { spores: input.spores } : {}),
    ...(network && input.gossip ? { gossip: input.gossip } : {}),
    ...(network && input.primary ? { primary: input.primary } : {}),
    ...(network && input.detection ? { detection: input.detection } : {}),
    ...(network && input.trust ? { trust: input.trust } : {}),
    ...(network && input.agreement ? { agreement: input.agreement } : {}),
    ...(network && input.agreed ? { agreed: input.agreed } : {}),
    ...(input.incidents ? { incidents: input.incidents } : {}),
    ...(edge.audit
      ? {
        audit: {
          ...edge.audit,
          ...(input.auditHeads?.published ? { publishedTo: input.auditHeads.published.seq } : {}),
          watched: input.auditHeads?.watched ?? 0,
        },
      }
      : {}),
    ...(network && input.seeds
      ? { seeds: { ...input.seeds, sources: edge.seeds?.sources ?? [], targets: edge.seeds?.targets ?? [] } }
      : {}),
    health: {
      ready,
      health,
      reasons: ready ? reasons : [...reasons, ...waitingFor.map((one) => one.what)],
      components,
    },
    traffic: edge.traffic,
    refusals: edge.refusals,
    process: edge.process,
    events: edge.events,
    limits: LIMITS,
  };
}

function memberStatus(ctx: Context, member: Member): MemberStatus {
  const { state } = ctx;
  const own = member.nodeId === state.nodeId;
  const observed = state.members.observation(member.nodeId);
  // A node that an operator isolated hears of nobody: what it last knew is no news of the present.
  const seen = state.mode === "isolated" && observed.state === "alive"
    ? { ...observed, state: "suspect" as const }
    : observed;
  const session = ctx.sessions.get(member.nodeId);
  return {
    nodeId: member.nodeId,
    name: member.membership.name,
    role: member.membership.role,
    pool: member.membership.pool,
    state: own ? "self" : member.record.left ? "left" : seen.state,
    ...(own || member.record.left || seen.state !== "alive" || seen.reachable ? {} : { unreachable: true }),
    stateSinceMs: own ? member.record.startedMs : seen.sinceMs,
    // The channel of one that fell silent stays open for a while.
    lastSeenMs: own || session?.member && seen.state === "alive" ? ctx.nowMs : seen.seenMs,
    addresses: member.record.addresses,
    ...(session
      ? {
        path: {
          address: session.peer.remoteAddress,
          transport: session.peer.transport,
          direction: session.peer.direction,
          sinceMs: session.peer.openedMs,
          ...(session.rttMs === undefined ? {} : { rttMs: Math.round(session.rttMs * 10) / 10 }),
        },
      }
      : {}),
    version: member.record.version,
    issuer: state.network?.chain?.isIssuer(member.publicKey) ?? false,
    credentialExpiresMs: member.membership.expiresMs,
    drained: member.record.drained,
    capabilities: member.record.capabilities,
  };
}

/** The issuer that this node would ask: itself, else the first one that is reachable. */
function registrarOf(ctx: Context): string | undefined {
  const { state, sessions } = ctx;
  if (state.isIssuer) return state.nodeId;
  const issuers = (state.network?.chain?.issuers ?? []).map(nodeIdOf);
  return issuers.find((one) => sessions.get(one)?.member) ?? issuers[0];
}

function tolerance(ctx: Context): Status["tolerance"] {
  const { state } = ctx;
  const members =
    state.members.all().filter((one) => !one.record.left && !state.revocations.get("node", one.publicKey)).length;
  const issuers = state.network?.chain?.issuers.length ?? 0;
  const crash = Math.max(0, issuers - 1);
  const note = issuers === 0
    ? "No network yet"
    : members === 1
    ? "One node alone is the whole network: nothing survives its loss (f = 0)"
    : issuers === 1
    ? "One issuer: members stay connected without it, but nobody can join or renew until it is back"
    : `Joins and renewals survive the loss of ${crash} of ${issuers} issuers; changes of the issuers themselves survive ${
      issuers - (state.network?.chain?.threshold ?? issuers)
    }`;
  return {
    members,
    issuers,
    crashFaults: crashFaults(issuers),
    byzantineFaults: byzantineFaults(issuers),
    note,
  };
}

function waiting(input: StatusInput): Waiting[] {
  const { ctx, machine } = input;
  const { state } = ctx;
  const found: Waiting[] = [];
  const next = machine.retryAtMs !== undefined ? { nextMs: machine.retryAtMs } : {};
  const last = machine.failures.at(-1);
  const say = (code: string, what: string) => found.push({ code, what, sinceMs: machine.sinceMs, ...next });
  switch (machine.stage) {
    case "idle":
      say("no-network", "A network: mycelium init forms one, mycelium join <invite> joins one");
      break;
    case "discovering":
      say("candidate", "Any source of discovery to name a node of the network");
      break;
    case "contacting":
      say("contact", "One of the candidates to answer");
      break;
    case "authenticating":
    case "registering":
      say("registrar", `The registrar's answer (${machine.contact ?? "?"})`);
      break;
    case "awaiting-approval":
      say("operator-approval", `An operator's approval; on a member: mycelium node approve ${state.nodeId.slice(-8)}`);
      break;
    case "handoff":
    case "verifying":
      say("witness", "Another member to confirm that it sees this node");
      break;
    case "isolated":
      say(
        last ? last.code : "isolated",
        last ? `${CAUSES[last.code].what}. ${CAUSES[last.code].cure}` : "Any member to be reachable again",
      );
      break;
  }
  if (state.mode === "isolated") {
    found.push({
      code: "mode-isolated",
      what: "An operator has isolated this node; to end it: mycelium exec rejoin --on this",
      sinceMs: machine.sinceMs,
    });
  }
  return found;
}

function membership(input: StatusInput): ComponentStatus {
  const { machine, ctx } = input;
  const name = "membership";
  const sinceMs = machine.sinceMs;
  if (ctx.state.mode === "isolated") return { name, health: "degraded", reason: "isolated by an operator", sinceMs };
  if (ctx.state.mode === "safe") return { name, health: "degraded", reason: "in safe mode", sinceMs };
  if (machine.stage === "verified") {
    const dead = ctx.state.members.all().filter((one) =>
      ctx.state.members.observation(one.nodeId).state === "dead" && !one.record.left &&
      !ctx.state.revocations.get("node", one.publicKey) && one.nodeId !== ctx.state.nodeId
    );
    return dead.length === 0 ? { name, health: "ok", reason: "", sinceMs } : {
      name,
      health: "degraded",
      reason: dead.length === 1 ? "1 member is not reachable" : `${dead.length} members are not reachable`,
      sinceMs,
    };
  }
  const reason = machine.stage === "isolated" && ctx.state.network?.credential
    ? "no other member is reachable"
    : `join stage is ${machine.stage}`;
  return { name, health: "degraded", reason, sinceMs };
}

function identity(input: StatusInput): ComponentStatus {
  const { state, nowMs } = input.ctx;
  const name = "identity";
  const credential = state.network?.credential?.credential;
  if (!credential) return { name, health: "ok", reason: "", sinceMs: input.startedMs };
  if (state.revocations.get("node", state.keyPair.publicKey)) {
    return { name, health: "failed", reason: "this node was removed from the network", sinceMs: nowMs };
  }
  if (credential.expiresMs <= nowMs) {
    return { name, health: "failed", reason: "the membership credential has expired", sinceMs: credential.expiresMs };
  }
  if (!equalBytes(credential.subject, state.keyPair.publicKey)) {
    return { name, health: "failed", reason: "the credential is of another key", sinceMs: nowMs };
  }
  const renew = renewAtMs(credential);
  const late = nowMs > renew + (credential.expiresMs - renew) / 2;
  return late
    ? { name, health: "degraded", reason: "the membership credential could not be renewed yet", sinceMs: renew }
    : { name, health: "ok", reason: "", sinceMs: credential.issuedMs };
}
