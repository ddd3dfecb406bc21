/**
 * What a majority has, of plain and of joint configurations.
 *
 * In a joint configuration both halves have to agree, each with a majority of its own (thesis, 4.3).
 *
 * @module
 */

import { majority } from "../core/quorum.ts";
import { type ClusterConfig, isJoint } from "./config.ts";

/**
 * The largest number that a majority of the voters has reached, in both halves; 0 where there are no voters.
 *
 * Of match indices it is what may be committed (thesis, 3.6.2), of acknowledged heartbeat rounds the last
 * round that proves leadership (6.4).
 *
 * @param config Whose majority.
 * @param reached What each voter has reached, at least 0.
 */
export function reachedByQuorum(config: ClusterConfig, reached: (voter: string) => number): number {
  if (config.voters.length === 0) return 0;
  const now = reachedByMajority(config.voters, reached);
  return isJoint(config) ? Math.min(now, reachedByMajority(config.votersOutgoing, reached)) : now;
}

function reachedByMajority(voters: readonly string[], reached: (voter: string) => number): number {
  const descending = voters.map(reached).sort((a, b) => b - a);
  return descending[majority(voters.length) - 1]!;
}

/** How a vote stands: won, lost whatever the rest says, or open. */
export type VoteResult = "won" | "lost" | "open";

/**
 * Counts votes. Those of nodes that are no voters count nowhere.
 *
 * @param votes What each node said; missing where it has not answered.
 */
export function voteResult(config: ClusterConfig, votes: ReadonlyMap<string, boolean>): VoteResult {
  if (config.voters.length === 0) return "lost";
  const now = majorityVote(config.voters, votes);
  const old = isJoint(config) ? majorityVote(config.votersOutgoing, votes) : "won";
  if (now === "lost" || old === "lost") return "lost";
  return now === "won" && old === "won" ? "won" : "open";
}

function majorityVote(voters: readonly string[], votes: ReadonlyMap<string, boolean>): VoteResult {
  const granted = voters.filter((one) => votes.get(one) === true).length;
  const refused = voters.filter((one) => votes.get(one) === false).length;
  const wanted = majority(voters.length);
  if (granted >= wanted) return "won";
  return voters.length - refused < wanted ? "lost" : "open";
}
