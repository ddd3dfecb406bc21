/**
 * Who votes in the Primary Spore: the next change of the configuration, or none.
 *
 * Pure policy over what the leader has observed. Voters are an odd number, 1, 3, 5 or 7: an even one tolerates no
 * more and agrees more slowly, and of two each is a point of failure. Everybody else who may vote is a learner, so that
 * a voter that is lost can be replaced at once. The ideas and numbers are those of Consul's autopilot
 * (`ServerStabilizationTime` 10 s, `MaxTrailingLogs` 250), less its habit of removing who is only away.
 *
 * @module
 */

/** A node that may be a member: an issuer, by its replica. */
export interface VoterCandidate {
  /** Name in the configuration. */
  readonly id: string;
  /** Whether it answers now. */
  readonly reachable: boolean;
  /** Since when it does, or does not. */
  readonly sinceMs: number;
  /** Time of a call there and back; missing where it is not known. */
  readonly rttMs?: number;
  /** The higher the more it is trusted; below 0 it is not trusted to vote at all. */
  readonly tier: number;
  /** An operator has asked it to give up work. */
  readonly drained: boolean;
  /** Entries that it lacks; missing where that is not known. */
  readonly lag?: number;
}

/** The configuration as it stands. */
export interface VoterConfig {
  readonly voters: readonly string[];
  /** Everybody else who receives the log. */
  readonly learners: readonly string[];
  /** A change is under way. */
  readonly changing: boolean;
}

/** One step of a change, as the Raft core takes it; several are made together, through a joint configuration. */
export interface VoterChange {
  readonly op: "add-voter" | "add-learner" | "remove";
  readonly node: string;
}

/** Bounds of the policy. */
export interface VoterPolicy {
  /** Most voters: 1, 3, 5 or 7. */
  readonly votersMax: number;
  /** A node votes only after it has answered for so long. */
  readonly stableMs: number;
  /** A voter is replaced only after it has been away for so long. */
  readonly goneMs: number;
  /** A learner that lacks more entries is not promoted. */
  readonly lagMax: number;
}

/** As in the field, but for {@linkcode VoterPolicy.goneMs}: a restart of a machine is no reason for a change. */
export const DEFAULT_VOTER_POLICY: VoterPolicy = { votersMax: 7, stableMs: 10_000, goneMs: 60_000, lagMax: 250 };

/** What is to be done next, and when to look again. */
export interface VoterPlan {
  /** Empty: nothing. */
  readonly changes: readonly VoterChange[];
  /** When time alone may call for a change; `Infinity` for never. */
  readonly atMs: number;
}

/**
 * The next change.
 *
 * @param config The configuration that counts.
 * @param candidates Those that may be members; whoever is in the configuration and not among them is removed.
 * @param nowMs Now, by the clock of `sinceMs`.
 */
export function planVoters(
  config: VoterConfig,
  candidates: readonly VoterCandidate[],
  nowMs: number,
  policy: VoterPolicy = DEFAULT_VOTER_POLICY,
): VoterPlan {
  const nothing: VoterPlan = { changes: [], atMs: Infinity };
  // The one under way brings the next look with it.
  if (config.changing) return nothing;
  const known = new Map(candidates.map((one) => [one.id, one]));
  const strangers = config.learners.filter((id) => !known.has(id));
  if (strangers.length > 0) return { changes: [{ op: "remove", node: strangers[0]! }], atMs: Infinity };
  const fresh = candidates.find((one) =>
    one.reachable && !config.voters.includes(one.id) && !config.learners.includes(one.id)
  );
  if (fresh) return { changes: [{ op: "add-learner", node: fresh.id }], atMs: Infinity };

  const trusted = candidates.filter((one) => one.tier >= 0);
  // Of nobody who is trusted nothing can be made.
  if (trusted.length === 0) return nothing;
  const kept = trusted.filter((one) => config.voters.includes(one.id));
  const failed = (one: VoterCandidate) => !one.reachable && nowMs - one.sinceMs >= policy.goneMs;
  const ready = trusted.filter((one) => config.learners.includes(one.id) && isReady(one, nowMs, policy));
  const size = targetSize(kept.length + ready.length, config.voters.length, policy.votersMax);
  const ranked = [...kept, ...ready].sort((a, b) =>
    Number(failed(a)) - Number(failed(b)) || Number(a.drained) - Number(b.drained) || b.tier - a.tier ||
    // Who votes already stays: a change costs more than a little stability is worth.
    Number(config.voters.includes(b.id)) - Number(config.voters.includes(a.id)) ||
    a.sinceMs - b.sinceMs || (a.rttMs ?? Infinity) - (b.rttMs ?? Infinity) || (a.id < b.id ? -1 : 1)
  );
  const chosen = ranked.slice(0, size);
  if (chosen.length === 0) return { changes: [], atMs: nextLook(config, candidates, nowMs, policy) };
  const changes = difference(config, chosen.map((one) => one.id), known);
  // A configuration that could not commit anything would also not commit the way out of it.
  const alive = chosen.filter((one) => one.reachable).length;
  if (changes.length > 0 && alive * 2 > chosen.length) return { changes, atMs: Infinity };
  return { changes: [], atMs: nextLook(config, candidates, nowMs, policy) };
}

/** Whether a learner can be promoted. */
function isReady(one: VoterCandidate, nowMs: number, policy: VoterPolicy): boolean {
  return one.reachable && !one.drained && nowMs - one.sinceMs >= policy.stableMs && one.lag !== undefined &&
    one.lag <= policy.lagMax;
}

/** The largest odd number of voters that there are nodes for, at most two more than now: 1, 3, 5, 7. */
function targetSize(fit: number, now: number, votersMax: number): number {
  const odd = (count: number) => count % 2 === 1 ? count : count - 1;
  return Math.max(1, odd(Math.min(fit, votersMax, odd(Math.max(1, now)) + 2)));
}

/** Steps from the present voters to the chosen ones. Who is no candidate any more is removed, who is listens on. */
function difference(
  config: VoterConfig,
  chosen: readonly string[],
  known: ReadonlyMap<string, VoterCandidate>,
): VoterChange[] {
  const added = chosen.filter((id) => !config.voters.includes(id));
  const removed = config.voters.filter((id) => !chosen.includes(id));
  return [
    ...added.map((node) => ({ op: "add-voter", node }) as const),
    ...removed.map((node) => ({ op: known.has(node) ? "add-learner" : "remove", node }) as const),
  ];
}

/** When a learner becomes stable, or a voter counts as gone. */
function nextLook(
  config: VoterConfig,
  candidates: readonly VoterCandidate[],
  nowMs: number,
  policy: VoterPolicy,
): number {
  let atMs = Infinity;
  for (const one of candidates) {
    const voter = config.voters.includes(one.id);
    const dueMs = voter && !one.reachable
      ? one.sinceMs + policy.goneMs
      : !voter && one.reachable && !one.drained
      ? one.sinceMs + policy.stableMs
      : Infinity;
    if (dueMs > nowMs) atMs = Math.min(atMs, dueMs);
  }
  return atMs;
}
