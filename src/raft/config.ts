/**
 * Who takes part: voters, learners, and the joint state between two sets of voters.
 *
 * A configuration is a value; a change gives a new one. The log carries whole configurations, not changes,
 * so that a node which truncates its log, or starts in the middle of it, needs nothing but the last one.
 *
 * Source: Ongaro's thesis, chapter 4; the transitions and `learnersNext` as in etcd's ConfChangeV2.
 *
 * @module
 */

import { array, bool, type CborValue, type Reader, record, text, WireError } from "../core/codec.ts";
import { LIMITS } from "../core/limits.ts";

/** Most members of one configuration, voters of both halves and learners together. */
export const CONFIG_MEMBERS_MAX = LIMITS.raftMembersMax;

/** Who votes and who listens. All lists are sorted and free of duplicates. */
export interface ClusterConfig {
  /** The voters; in a joint configuration those of the new half. */
  readonly voters: readonly string[];
  /** Voters of the old half; empty unless the configuration is joint. */
  readonly votersOutgoing: readonly string[];
  /** Receive the log, count nowhere. None of them is in a voters' list. */
  readonly learners: readonly string[];
  /** Voters of the old half that become learners when it is left. */
  readonly learnersNext: readonly string[];
  /** Whether the leader leaves the joint configuration by itself once it is committed. */
  readonly autoLeave: boolean;
}

/** One step of a change. `add-voter` also promotes a learner, `add-learner` also demotes a voter. */
export interface ConfigChange {
  readonly op: "add-voter" | "add-learner" | "remove";
  readonly node: string;
}

/**
 * How to get there. `auto`: directly where at most one voter changes, else through a joint configuration that
 * is left by itself; `joint`: through one in any case; `joint-explicit`: through one that stays until an empty
 * change leaves it.
 */
export type Transition = "auto" | "joint" | "joint-explicit";

/** Why a change cannot be made. */
export type ConfigRefusal = "joint" | "not-joint" | "no-voters" | "too-many-members" | "contradiction";

/** Nobody: the configuration of a node that has not been told of one. */
export const EMPTY_CONFIG: ClusterConfig = {
  voters: [],
  votersOutgoing: [],
  learners: [],
  learnersNext: [],
  autoLeave: false,
};

/** A configuration of these voters and learners. */
export function configOf(voters: readonly string[], learners: readonly string[] = []): ClusterConfig {
  return { ...EMPTY_CONFIG, voters: sorted(voters), learners: sorted(learners) };
}

/** Whether two sets of voters have to agree. */
export function isJoint(config: ClusterConfig): boolean {
  return config.votersOutgoing.length > 0;
}

/** Whether the node votes, in either half. */
export function isVoter(config: ClusterConfig, node: string): boolean {
  return config.voters.includes(node) || config.votersOutgoing.includes(node);
}

/** All voters of both halves, sorted. */
export function votersOf(config: ClusterConfig): string[] {
  return sorted([...config.voters, ...config.votersOutgoing]);
}

/** Everybody who receives the log, sorted. */
export function membersOf(config: ClusterConfig): string[] {
  return sorted([...config.voters, ...config.votersOutgoing, ...config.learners]);
}

/**
 * The configuration that a change leads to: the final one, or the joint one on the way there. An empty list of
 * changes leaves a joint configuration.
 *
 * @param config Where we are.
 * @param changes At most one for each node.
 * @param transition How to get there.
 */
export function changedConfig(
  config: ClusterConfig,
  changes: readonly ConfigChange[],
  transition: Transition = "auto",
): { readonly ok: true; readonly config: ClusterConfig } | { readonly ok: false; readonly reason: ConfigRefusal } {
  if (changes.length === 0) {
    return isJoint(config) ? { ok: true, config: leftJoint(config) } : { ok: false, reason: "not-joint" };
  }
  if (isJoint(config)) return { ok: false, reason: "joint" };
  const voters = new Set(config.voters);
  const learners = new Set(config.learners);
  if (new Set(changes.map((one) => one.node)).size !== changes.length) return { ok: false, reason: "contradiction" };
  for (const { op, node } of changes) {
    voters.delete(node);
    learners.delete(node);
    if (op === "add-voter") voters.add(node);
    if (op === "add-learner") learners.add(node);
  }
  if (voters.size === 0) return { ok: false, reason: "no-voters" };
  const differing = [...voters].filter((one) => !config.voters.includes(one)).length +
    config.voters.filter((one) => !voters.has(one)).length;
  const simple = transition === "auto" && differing <= 1;
  // A demoted voter still votes in the old half; only when that is left it is a learner.
  const next = simple ? [] : [...learners].filter((one) => config.voters.includes(one));
  const changed: ClusterConfig = {
    voters: sorted(voters),
    votersOutgoing: simple ? [] : config.voters,
    learners: sorted([...learners].filter((one) => !next.includes(one))),
    learnersNext: sorted(next),
    autoLeave: !simple && transition !== "joint-explicit",
  };
  if (membersOf(changed).length > CONFIG_MEMBERS_MAX) return { ok: false, reason: "too-many-members" };
  return { ok: true, config: changed };
}

/** The new half of a joint configuration alone. */
function leftJoint(config: ClusterConfig): ClusterConfig {
  return {
    voters: config.voters,
    votersOutgoing: [],
    learners: sorted([...config.learners, ...config.learnersNext]),
    learnersNext: [],
    autoLeave: false,
  };
}

/** A configuration in the form of the wire and the disk. */
export function configToCbor(config: ClusterConfig): CborValue {
  return {
    a: config.autoLeave,
    l: config.learners,
    n: config.learnersNext,
    o: config.votersOutgoing,
    v: config.voters,
  };
}

const readNames = array(text(128, /^\S+$/), CONFIG_MEMBERS_MAX);
const readShape = record({ a: bool, l: readNames, n: readNames, o: readNames, v: readNames });

/** Reads a configuration; one that contradicts itself is refused. */
export const readConfig: Reader<ClusterConfig> = (value, path) => {
  const { a, l, n, o, v } = readShape(value, path);
  for (const list of [l, n, o, v]) {
    if (list.some((one, i) => i > 0 && list[i - 1]! >= one)) {
      throw new WireError(`Cannot read ${path}: members are not sorted or not distinct`);
    }
  }
  const config = { voters: v, votersOutgoing: o, learners: l, learnersNext: n, autoLeave: a };
  if (
    membersOf(config).length > CONFIG_MEMBERS_MAX || v.length === 0 && (o.length > 0 || l.length > 0) ||
    l.some((one) => v.includes(one) || o.includes(one)) || n.some((one) => v.includes(one) || !o.includes(one)) ||
    a && o.length === 0
  ) throw new WireError(`Cannot read ${path}: the configuration contradicts itself`);
  return config;
};

function sorted(names: Iterable<string>): string[] {
  return [...new Set(names)].sort();
}
