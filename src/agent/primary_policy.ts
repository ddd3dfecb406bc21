/**
 * Who belongs to the group: what a leader knows of the issuers' replicas, and the changes of the configuration that it
 * asks for. Who votes is decided by `spore/voters.ts`.
 *
 * @module
 */

import { optional, record, text, uint, WireError } from "../core/codec.ts";
import { nodeIdOf, readNodeId, shortNodeId } from "../core/ids.ts";
import { isJoint, membersOf } from "../raft/config.ts";
import type { RaftEvent } from "../raft/effects.ts";
import type { Raft } from "../raft/raft.ts";
import type { RaftView } from "../raft/view.ts";
import type { Command, StateMachine } from "../spore/state_machine.ts";
import { planVoters, type VoterCandidate } from "../spore/voters.ts";
import type { Context } from "./context.ts";
import { nodeOfReplica } from "./primary_store.ts";

/** Least time between two tries of a change of the configuration. */
const POLICY_MS = 500;
/** How often a replica that is not known is asked for. */
export const INFO_MS = 2_000;

/** Reads what `primary.info` answers: replica, last index and term, commit index, leader. */
export const readInfo = record({ r: text(128), i: uint(), e: uint(), c: uint(), l: optional(readNodeId) });

/** What the policy needs of its part. */
export interface PolicyPort {
  /** Whether a recovery gave a replica up; then its node is told so. */
  fence(nodeId: string, replica: string): boolean;
  /** Whether a recovery gave a replica up. */
  isGivenUp(replica: string): boolean;
  /** Puts a command of the leader itself into the log. */
  propose(command: Command): void;
  /** How much a node is trusted; below 0 it does not vote. */
  tier(nodeId: string): number;
  /** Asks the core for a change of the configuration. */
  change(changes: (RaftEvent & { readonly type: "change-config" })["changes"]): void;
}

/** Keeps the group in shape. */
export class PrimaryPolicy {
  readonly #ctx: Context;
  readonly #port: PolicyPort;
  #nextMs = 0;
  /** Replicas of other nodes, as they said on the present channel. */
  readonly #replicas = new Map<string, { readonly id: string | undefined; readonly askedMs: number }>();
  /** Since when nodes are reachable, or not. */
  readonly #reach = new Map<string, { readonly up: boolean; readonly sinceMs: number }>();

  constructor(ctx: Context, port: PolicyPort) {
    this.#ctx = ctx;
    this.#port = port;
  }

  clear(): void {
    this.#replicas.clear();
    this.#reach.clear();
  }

  /** Something has changed: it looks again in this step. */
  soon(): void {
    this.#nextMs = 0;
  }

  sessionUp(nodeId: string): void {
    this.#replicas.delete(nodeId);
    this.#reach.set(nodeId, { up: true, sinceMs: this.#ctx.nowMs });
    this.soon();
  }

  sessionDown(nodeId: string): void {
    this.#replicas.delete(nodeId);
    if (this.#reach.has(nodeId)) this.#reach.set(nodeId, { up: false, sinceMs: this.#ctx.nowMs });
    this.soon();
  }

  clockSetBack(): void {
    this.soon();
    for (const [nodeId, one] of this.#reach) this.#reach.set(nodeId, { ...one, sinceMs: this.#ctx.nowMs });
  }

  /** A change of the configuration was refused. */
  refused(): void {
    this.#nextMs = this.#ctx.nowMs + POLICY_MS;
  }

  /** A node has said which replica it runs. */
  note(nodeId: string, id: string): void {
    if (this.#replicas.get(nodeId)?.id === id || this.#port.fence(nodeId, id)) return;
    this.#replicas.set(nodeId, { id, askedMs: this.#ctx.nowMs });
    this.soon();
  }

  /** What a node said of its replica counts no longer. */
  forget(nodeId: string): void {
    this.#replicas.delete(nodeId);
    this.soon();
  }

  /** A leader's work where it is due; returns when it wants to be woken. */
  wake(raft: Raft, machine: StateMachine): number {
    if (this.#ctx.nowMs >= this.#nextMs) this.#look(raft, machine);
    return this.#nextMs;
  }

  #look(raft: Raft, machine: StateMachine): void {
    const ctx = this.#ctx;
    const { view } = raft;
    const { state } = ctx;
    this.#nextMs = Infinity;
    if (!view.configCommitted || view.commitIndex < view.lastIndex) {
      this.#nextMs = ctx.nowMs + POLICY_MS;
      return;
    }
    const chain = state.network!.chain!;
    const issuers = chain.issuers.filter((key) => !state.revocations.get("node", key)).map(nodeIdOf);
    if (machine.authority.epoch < chain.epoch) {
      this.#port.propose({
        op: "issuers",
        timeMs: ctx.nowMs,
        epoch: chain.epoch,
        issuers: chain.issuers.map(nodeIdOf),
      });
    }
    const candidates = issuers.flatMap((nodeId) => this.#candidate(nodeId, raft.id, view) ?? []);
    const plan = planVoters(
      {
        voters: view.config.voters,
        learners: [...view.config.learners, ...view.config.learnersNext],
        changing: isJoint(view.config),
      },
      candidates,
      ctx.nowMs,
    );
    this.#nextMs = Math.min(this.#nextMs, plan.atMs);
    // What nobody tells of: that one which was away answers again, or that a learner has caught up.
    const unsettled = candidates.some((one) => !one.reachable || one.lag === undefined || one.lag > 0);
    if (unsettled) this.#nextMs = Math.min(this.#nextMs, ctx.nowMs + INFO_MS);
    if (plan.changes.length === 0) return;
    this.#nextMs = ctx.nowMs + POLICY_MS;
    ctx.audit(
      "primary-config",
      state.nodeId,
      plan.changes.map((one) => `${one.op} ${shortNodeId(nodeOfReplica(one.node))}`).join(", "),
    );
    this.#port.change(plan.changes);
  }

  /** What is known of an issuer that could be a member; `undefined` where its replica is not. */
  #candidate(nodeId: string, self: string, view: RaftView): VoterCandidate | undefined {
    const { sessions, state } = this.#ctx;
    if (nodeId === state.nodeId) {
      const tier = this.#port.tier(nodeId);
      return { id: self, reachable: true, sinceMs: 0, tier, drained: state.mode === "drained", lag: 0 };
    }
    const id = this.#replicaOf(nodeId, view);
    if (id === undefined) return undefined;
    const session = sessions.get(nodeId);
    const seen = state.members.observation(nodeId);
    const answers = seen.state === "alive" && seen.reachable;
    const sinceMs = this.#reach.get(nodeId)?.sinceMs ?? 0;
    const progress = view.progress.get(id);
    return {
      id,
      reachable: session?.member === true && answers,
      sinceMs: answers ? sinceMs : Math.max(sinceMs, seen.sinceMs),
      ...(session?.rttMs === undefined ? {} : { rttMs: Math.round(session.rttMs) }),
      tier: this.#port.tier(nodeId),
      drained: state.members.get(nodeId)?.record.drained ?? false,
      // One that has acknowledged nothing yet may lack anything.
      ...(progress?.state === "replicate" ? { lag: view.lastIndex - progress.matchIndex } : {}),
    };
  }

  /** Replica of another issuer: what it said, else what the configuration has. It is asked where it was not yet. */
  #replicaOf(nodeId: string, view: RaftView): string | undefined {
    const ctx = this.#ctx;
    const known = this.#replicas.get(nodeId);
    if (known?.id !== undefined && !this.#port.isGivenUp(known.id)) return known.id;
    if (ctx.sessions.get(nodeId)?.member) {
      if (!known || ctx.nowMs - known.askedMs >= INFO_MS) {
        this.#replicas.set(nodeId, { id: undefined, askedMs: ctx.nowMs });
        ctx.call(nodeId, "primary.info", {}, INFO_MS, (result) => {
          if (!result.ok) return;
          try {
            const { r } = readInfo(result.body, "primary.info");
            if (nodeOfReplica(r) === nodeId) this.note(nodeId, r);
          } catch (error) {
            if (!(error instanceof WireError)) throw error;
            ctx.refuse("bad-answer", nodeId);
          }
        });
      }
      this.#nextMs = Math.min(this.#nextMs, ctx.nowMs + INFO_MS);
    }
    return membersOf(view.config).find((one) => nodeOfReplica(one) === nodeId);
  }
}
