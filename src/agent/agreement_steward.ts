/**
 * Looks after the electorate: who should vote, when to propose a change, how the quorum is doing, how large a committee
 * has to be.
 *
 * @module
 */

import { equalBytes } from "../core/bytes.ts";
import type { Envelope } from "../core/envelope.ts";
import { committeeSize, type QuorumHealth, quorumHealth } from "../consensus/sizing.ts";
import { tableHash, toleratedFaults } from "../consensus/weights.ts";
import { CHANGES_MAX, type Electorate, encodeElectorate, nextSeed } from "./agreed.ts";
import type { AgreementChain } from "./agreement_chain.ts";
import {
  type Elector,
  ELECTORATE_MAX,
  electorsOf,
  makeElectorate,
  newElector,
  sameSeats,
  type Weigh,
} from "./agreement_electorate.ts";
import { isAway } from "./agreement_rules.ts";
import type { Context } from "./context.ts";

/** A newcomer has been seen for so long before it is proposed. */
const STABLE_MS = 2_000;
/** Whose turn it is not waits so long for each before it. */
const TURN_MS = 8_000;
/** Weights alone are changed no more often. */
const WEIGHTS_MS = 600_000;
/** A quorum that was lost to removed voters is waited for so long: the others may still agree. */
const RELEASE_MS = 5_000;
/** Between two looks. */
const LOOK_MS = 1_000;
/** Conditions are taken this often. */
const SIZE_MS = 10_000;
/** Churn is counted over so long. */
const CHURN_MS = 3_600_000;

/** What the steward needs. */
export interface StewardPort {
  readonly ctx: Context;
  readonly chain: () => AgreementChain;
  readonly weigh: Weigh;
  /** Raft's leader, who proposes first. */
  readonly leader: () => string | undefined;
  /** Whether a proposal of this node is under way. */
  readonly busy: () => boolean;
  readonly propose: (electorate: Electorate, proofs: readonly Envelope[], atMs: number) => void;
  readonly resize: (size: number) => void;
  /** Voters that do not answer, whenever they are others. */
  readonly silent: (ids: ReadonlySet<string>) => void;
  /** Goes on without voters that have left or were removed, by the operator's key on this node. */
  readonly replace: (without: ReadonlySet<string>) => void;
  /** Share of recent decisions with evidence, parts per million. */
  readonly faultPpm: () => number;
}

/** How the quorum is. */
export interface QuorumView {
  readonly health: QuorumHealth;
  readonly seats: number;
  readonly of: number;
  readonly needed: number;
  readonly absent: readonly string[];
  readonly committee: number;
  readonly sinceMs: number;
}

/** Looks after the electorate. */
export class Steward {
  readonly #port: StewardPort;
  #lookMs = 0;
  #dueMs = 0;
  #sizeMs = 0;
  #size = 0;
  /** What is wanted, and since when. */
  #wanted: { readonly name: string; readonly sinceMs: number } | undefined;
  #changedMs = 0;
  #epoch = -1;
  #health: { readonly health: QuorumHealth; readonly sinceMs: number } = { health: "lost", sinceMs: 0 };
  /** That nothing can be decided has been said: only then it is said that it is over. */
  #lostSaid = false;
  #alive = new Set<string>();
  #silent = "";
  #churn: number[] = [];
  /** Since when a candidate answers. */
  readonly #seenMs = new Map<string, number>();

  constructor(port: StewardPort) {
    this.#port = port;
  }

  clockSetBack(): void {
    const { nowMs } = this.#port.ctx;
    this.#lookMs = this.#dueMs = this.#sizeMs = 0;
    if (this.#wanted) this.#wanted = { ...this.#wanted, sinceMs: nowMs };
    this.#changedMs = Math.min(this.#changedMs, nowMs);
    this.#churn = [];
    this.#seenMs.clear();
  }

  /** Voters and other members that answer this node, itself included. */
  answering(): ReadonlySet<string> {
    const { ctx } = this.#port;
    const { state, sessions } = ctx;
    const out = new Set([state.nodeId]);
    for (const [nodeId, session] of sessions) {
      if (session.member && state.members.observation(nodeId).state === "alive") out.add(nodeId);
    }
    return out;
  }

  /** How the quorum is. */
  view(): QuorumView {
    const { voters } = this.#port.chain().electorate.table;
    const answering = this.answering();
    const found = quorumHealth(voters, answering);
    return {
      ...found,
      absent: voters.flatMap((one) => answering.has(one.id) ? [] : [one.id]),
      committee: this.#size,
      sinceMs: this.#health.sinceMs,
    };
  }

  /** Voters that are gone for good as far as anybody can tell: who left, was removed, or has been away for long. */
  gone(
    atMs: number,
  ): { readonly ids: ReadonlySet<string>; readonly proved: ReadonlySet<string>; readonly proofs: readonly Envelope[] } {
    const { state } = this.#port.ctx;
    const ids = new Set<string>();
    const proved = new Set<string>();
    const proofs: Envelope[] = [];
    const revoked = new Map(
      [...state.revocations.entries()].flatMap(([, one]) =>
        one.revocation.kind === "node" ? [[String(one.revocation.subject), one.envelope] as const] : []
      ),
    );
    for (const { id, publicKey } of this.#port.chain().electorate.table.voters) {
      if (id === state.nodeId) continue;
      const member = state.members.get(id);
      const revocation = revoked.get(String(publicKey));
      const proof = revocation ?? (member?.record.left ? member.recordEnvelope : undefined);
      if (!proof && !isAway(member?.membership.expiresMs, atMs)) continue;
      ids.add(id);
      if (!proof) continue;
      proofs.push(proof);
      proved.add(id);
    }
    return { ids, proved, proofs };
  }

  /**
   * Regular work of a voter, at most once a second; returns when it wants to be woken. Where nothing is under way that is
   * seldom: whatever changes the picture is an event, and comes by here.
   */
  wake(): number {
    const { ctx } = this.#port;
    if (ctx.nowMs < this.#lookMs) return this.#dueMs;
    this.#lookMs = ctx.nowMs + LOOK_MS;
    this.#watch();
    const { table } = this.#port.chain().electorate;
    if (table.epoch !== this.#epoch) {
      this.#epoch = table.epoch;
      this.#changedMs = ctx.nowMs;
      this.#wanted = undefined;
      this.#sizeMs = 0;
    }
    if (ctx.nowMs >= this.#sizeMs) {
      this.#sizeMs = ctx.nowMs + SIZE_MS;
      this.#resize();
    }
    if (table.voters.some((one) => one.id === ctx.state.nodeId)) {
      this.#steer();
      this.#release();
    }
    const waits = this.#wanted !== undefined || this.#health.health !== "full" && this.#alive.size > 1 ||
      [...this.#seenMs.values()].some((sinceMs) => ctx.nowMs - sinceMs <= STABLE_MS);
    return this.#dueMs = waits ? this.#lookMs : this.#sizeMs;
  }

  /**
   * Two or three voters need each other: who is removed, or leaves, takes the quorum along. Where the operator's key is here,
   * the person that holds it has said so already, and the rest goes on.
   */
  #release(): void {
    const { ctx } = this.#port;
    const { state } = ctx;
    const { table } = this.#port.chain().electorate;
    const answering = this.answering();
    if (!state.operatorPair || quorumHealth(table.voters, answering).health !== "lost") return;
    const { proved } = this.gone(ctx.nowMs);
    const rest = table.voters.filter((one) => !proved.has(one.id));
    if (proved.size === 0 || quorumHealth(rest, answering).health === "lost") return;
    if (ctx.nowMs < this.#health.sinceMs + RELEASE_MS || ctx.nowMs < this.#changedMs + RELEASE_MS) return;
    this.#changedMs = ctx.nowMs;
    this.#port.replace(proved);
  }

  /** Notes who came and went, and says where the quorum's health changes. */
  #watch(): void {
    const { ctx } = this.#port;
    const answering = this.answering();
    for (const id of answering) {
      if (!this.#seenMs.has(id)) this.#seenMs.set(id, ctx.nowMs);
      if (!this.#alive.has(id)) this.#churn.push(ctx.nowMs);
    }
    for (const id of this.#alive) {
      if (answering.has(id)) continue;
      this.#churn.push(ctx.nowMs);
      this.#seenMs.delete(id);
    }
    this.#alive = new Set(answering);
    this.#churn = this.#churn.filter((atMs) => ctx.nowMs - atMs < CHURN_MS).slice(-1_000);
    const { table } = this.#port.chain().electorate;
    const silent = table.voters.flatMap((one) => answering.has(one.id) ? [] : [one.id]);
    if (silent.join() !== this.#silent) {
      this.#silent = silent.join();
      this.#port.silent(new Set(silent));
    }
    const { health, seats, of, needed } = quorumHealth(table.voters, answering);
    if (health === this.#health.health) return;
    this.#health = { health, sinceMs: ctx.nowMs };
    const voter = table.voters.some((one) => one.id === ctx.state.nodeId);
    if (!voter) return;
    const fields = { seats, of, needed };
    if (health === "lost") {
      this.#lostSaid = true;
      ctx.log(
        "error",
        "quorum-lost",
        `Nothing can be decided: voters with ${seats} of ${of} seats answer, ${needed} are needed`,
        fields,
      );
      ctx.audit("quorum-lost", ctx.state.nodeId, `${seats} of ${of} seats answer, ${needed} are needed`);
    } else if (this.#lostSaid) {
      this.#lostSaid = false;
      ctx.log("info", "quorum-back", `Voters with ${seats} of ${of} seats answer: ${needed} are needed`, fields);
      ctx.audit("quorum-back", ctx.state.nodeId, `${seats} of ${of} seats answer`);
    } else if (health === "fragile" && toleratedFaults(table) > 0) {
      ctx.log("warn", "quorum-fragile", `Voters with ${seats} of ${of} seats answer: no further one may fail`, fields);
    }
  }

  #resize(): void {
    const { ctx } = this.#port;
    const { voters } = this.#port.chain().electorate.table;
    const { seats, of } = quorumHealth(voters, this.answering());
    const rtts = voters.flatMap((one) => ctx.sessions.get(one.id)?.rttMs ?? []).sort((a, b) => a - b);
    const members = Math.max(1, ctx.state.members.size);
    const size = committeeSize({
      voters: voters.length,
      healthyPpm: Math.floor(seats * 1_000_000 / Math.max(1, of)),
      rttMs: Math.round(rtts[rtts.length >> 1] ?? 0),
      // All that are there came once.
      churnPpm: Math.min(
        1_000_000,
        Math.floor(Math.max(0, this.#churn.length - this.#alive.size) * 1_000_000 / members),
      ),
      faultPpm: this.#port.faultPpm(),
    });
    if (size === this.#size) return;
    this.#size = size;
    this.#port.resize(size);
  }

  /** Proposes the electorate that should be, in this node's turn. */
  #steer(): void {
    const { ctx } = this.#port;
    const { nodeId } = ctx.state;
    const plan = this.#plan();
    if (!plan) return void (this.#wanted = undefined);
    if (this.#wanted?.name !== plan.name) this.#wanted = { name: plan.name, sinceMs: ctx.nowMs };
    const { voters } = this.#port.chain().electorate.table;
    if (this.#port.busy() || quorumHealth(voters, this.answering()).health === "lost") return;
    const leader = this.#port.leader();
    const turns = voters.map((one) => one.id).sort((a, b) =>
      Number(b === leader) - Number(a === leader) || (a < b ? -1 : 1)
    );
    if (ctx.nowMs < this.#wanted.sinceMs + turns.indexOf(nodeId) * TURN_MS) return;
    this.#wanted = { name: plan.name, sinceMs: ctx.nowMs + TURN_MS };
    this.#port.propose(plan.electorate, plan.proofs, plan.atMs);
  }

  #plan():
    | {
      readonly electorate: Electorate;
      readonly proofs: readonly Envelope[];
      readonly atMs: number;
      readonly name: string;
    }
    | undefined {
    const { ctx, weigh } = this.#port;
    const chain = this.#port.chain();
    const { electorate } = chain;
    const atMs = ctx.nowMs;
    const gone = this.gone(atMs);
    const stay = electorsOf(electorate).filter((one) => !gone.ids.has(one.id));
    const come = this.#newcomers(electorate, stay.length);
    const all = [...stay, ...come.map((one) => one.elector)];
    const follows = {
      epoch: electorate.table.epoch + 1,
      previous: tableHash(electorate.table, ctx.state.networkId),
      seed: nextSeed(electorate.table, ctx.state.networkId, chain.standing.seeds),
    };
    const next = makeElectorate(all, weigh, follows, atMs);
    if (!next || sameSeats(next.table, electorate.table)) return undefined;
    const ids = (one: Electorate) => one.table.voters.map((voter) => voter.id).join();
    if (ids(next) === ids(electorate) && atMs < this.#changedMs + WEIGHTS_MS) return undefined;
    const proofs = [...gone.proofs.slice(0, CHANGES_MAX), ...come.map((one) => one.credential)];
    const name = next.table.voters.map((one) => `${one.id}:${one.seats}`).join();
    return { electorate: next, proofs, atMs, name };
  }

  /** Members that are fit to vote and do not yet. */
  #newcomers(
    electorate: Electorate,
    staying: number,
  ): readonly { readonly elector: Elector; readonly credential: Envelope }[] {
    const { ctx } = this.#port;
    const { state } = ctx;
    const back = new Map(
      electorsOf(
        this.#port.chain().emergency?.superseded ?? { ...electorate, table: { ...electorate.table, voters: [] } },
      )
        .map((one) => [one.id, one]),
    );
    const fit = state.members.all().filter((one) => {
      if (one.membership.role === "hypha" || one.record.left || one.membership.expiresMs <= ctx.nowMs) return false;
      if (electorate.table.voters.some((voter) => voter.id === one.nodeId)) return false;
      if (state.revocations.get("node", one.publicKey)) return false;
      const sinceMs = this.#seenMs.get(one.nodeId);
      return sinceMs !== undefined && ctx.nowMs - sinceMs >= STABLE_MS;
    });
    const servers = fit.filter((one) => one.membership.role === "sclerotium");
    const others = fit.filter((one) => one.membership.role !== "sclerotium");
    // With fewer than four nobody may fail: machines that come and go would only stop the rest.
    const chosen = staying + fit.length < 4 ? servers : [...servers, ...others];
    return chosen.slice(0, Math.max(0, Math.min(CHANGES_MAX, ELECTORATE_MAX - staying)))
      .map((one) => ({
        elector: back.get(one.nodeId) ?? newElector(one.publicKey),
        credential: one.credentialEnvelope,
      }));
  }
}

/** The electorate without some of its voters, for an operator's word. */
export function reduced(
  electorate: Electorate,
  drop: ReadonlySet<string>,
  seed: Uint8Array,
  options: { readonly weigh: Weigh; readonly networkId: Uint8Array; readonly atMs: number },
): Electorate | undefined {
  const follows = {
    epoch: electorate.table.epoch + 1,
    previous: tableHash(electorate.table, options.networkId),
    seed,
  };
  const stay = electorsOf(electorate).filter((one) => !drop.has(one.id));
  const next = makeElectorate(stay, options.weigh, follows, options.atMs);
  return next && !equalBytes(encodeElectorate(next), encodeElectorate(electorate)) ? next : undefined;
}
