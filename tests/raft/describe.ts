/** Raft effects and messages as lines that a reviewer reads. @module */

import { fromUtf8 } from "../../src/core/bytes.ts";
import { type ClusterConfig, isJoint } from "../../src/raft/config.ts";
import type { RaftEffect } from "../../src/raft/effects.ts";
import type { Entry, RaftMessage } from "../../src/raft/messages.ts";

/** `voters 1 2 (was 1) learners 3`. */
export function describeConfig(config: ClusterConfig): string {
  const parts = [`voters ${config.voters.join(" ") || "none"}`];
  if (isJoint(config)) parts.push(`(joint with ${config.votersOutgoing.join(" ")}${config.autoLeave ? ", auto" : ""})`);
  if (config.learners.length > 0) parts.push(`learners ${config.learners.join(" ")}`);
  if (config.learnersNext.length > 0) parts.push(`then learners ${config.learnersNext.join(" ")}`);
  return parts.join(" ");
}

/** `3@1 "text"`: index, term, content. */
export function describeEntry(entry: Entry): string {
  const place = `${entry.index}@${entry.term}`;
  if (entry.kind === "noop") return place;
  return entry.kind === "data" ? `${place} "${fromUtf8(entry.data)}"` : `${place} {${describeConfig(entry.config)}}`;
}

/** A message in one line. */
export function describeMessage(message: RaftMessage): string {
  const head = `${message.type} term ${message.term}`;
  switch (message.type) {
    case "pre-vote":
    case "vote":
      return `${head} log ${message.lastLogIndex}@${message.lastLogTerm}${message.transfer ? " transfer" : ""}`;
    case "pre-vote-response":
    case "vote-response":
      return `${head} ${message.granted ? "granted" : "refused"}`;
    case "append": {
      const entries = message.entries.map(describeEntry).join(", ");
      return `${head} after ${message.prevLogIndex}@${message.prevLogTerm} [${entries}] commit ${message.commitIndex}`;
    }
    case "append-response":
      return `${head} agrees up to ${message.index}`;
    case "append-reject":
      return `${head} not ${message.index}, perhaps ${message.hintIndex}@${message.hintTerm}`;
    case "heartbeat":
      return `${head} commit ${message.commitIndex} round ${message.round}`;
    case "heartbeat-response":
      return `${head} round ${message.round}`;
    case "snapshot": {
      const { index, term, sizeBytes } = message.meta;
      const to = message.offset + message.data.length;
      return `${head} of ${index}@${term} bytes ${message.offset} to ${to} of ${sizeBytes}`;
    }
    case "snapshot-response":
      return `${head} of ${message.index} has ${message.offset} bytes`;
    case "timeout-now":
      return head;
    case "read-request":
      return `${head} read ${message.id}`;
    case "read-response":
      return `${head} read ${message.id} at ${message.index ?? "nowhere"}`;
  }
}

/** An effect in one line; what follows a persist is not part of it. */
export function describeEffect(effect: RaftEffect): string {
  switch (effect.type) {
    case "send":
      return `-> ${effect.to} ${describeMessage(effect.message)}`;
    case "persist": {
      const parts: string[] = [];
      if (effect.hardState) {
        parts.push(`term ${effect.hardState.term} vote ${effect.hardState.votedFor ?? "none"}`);
      }
      if (effect.snapshot) parts.push(`snapshot ${effect.snapshot.meta.index}@${effect.snapshot.meta.term}`);
      if (effect.dropThrough) parts.push(`drop through ${effect.dropThrough.index}`);
      if (effect.entries.length > 0) parts.push(`entries ${effect.entries.map(describeEntry).join(", ")}`);
      return `persist ${effect.seq}: ${parts.join("; ") || "barrier"}`;
    }
    case "apply":
      return `apply ${effect.entries.map(describeEntry).join(", ")}`;
    case "restore":
      return `restore ${effect.snapshot.meta.index}@${effect.snapshot.meta.term}`;
    case "accepted":
      return `accepted ${effect.id} as ${effect.index}@${effect.term}`;
    case "refused":
      return `refused ${effect.id}: ${effect.reason}${effect.detail ? ` (${effect.detail})` : ""}, leader ${
        effect.leader ?? "unknown"
      }`;
    case "read-ready":
      return `read ${effect.id} ready at ${effect.index}`;
    case "role":
      return `${effect.role} of term ${effect.term}, leader ${effect.leader ?? "unknown"}`;
    case "config":
      return `config ${describeConfig(effect.config)}`;
    case "wakeAt":
      return `wake at ${effect.atMs}`;
    case "drop":
      return `drop from ${effect.from}: ${effect.reason}`;
  }
}
