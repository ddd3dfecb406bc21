/**
 * What a person asks of agreement: lists, wishes, and the procedure for a lost quorum.
 *
 * @module
 */

import { equalBytes, fromBase64Url, toHex } from "../core/bytes.ts";
import { type KeyPair, keyPairFromSeed } from "../core/crypto.ts";
import { tableHash, toleratedFaults } from "../consensus/weights.ts";
import { RECORD_LIFE_MS_MAX, sealSpore } from "../spore/record.ts";
import { type Electorate, ELECTORATE_KEY, encodeElectorate, nextSeed, sealEmergency, TRUST_KEY } from "./agreed.ts";
import type { AgreementChain } from "./agreement_chain.ts";
import type { AgreementRequest } from "./agreement_requests.ts";
import type { Weigh } from "./agreement_electorate.ts";
import { answerOf, type Operations } from "./agreement_operations.ts";
import { reduced, type Steward } from "./agreement_steward.ts";
import type { Decision } from "./certified.ts";
import { type Context, DEFERRED, Refusal } from "./context.ts";
import type { DecisionStatus } from "./status.ts";

/** What the console needs. */
export interface ConsolePort {
  readonly ctx: Context;
  readonly chain: () => AgreementChain;
  readonly weigh: Weigh;
  readonly steward: Steward;
  readonly operations: Operations;
  readonly recent: () => readonly DecisionStatus[];
  readonly current: (key: string) => { readonly record: { readonly seq: number } } | undefined;
  /** Takes in a decision as if it had been broadcast. */
  readonly decide: (decision: Decision) => string;
}

/** Answers a person. */
export class AgreementConsole {
  readonly #port: ConsolePort;

  constructor(port: ConsolePort) {
    this.#port = port;
  }

  answer(controlId: number, request: AgreementRequest): unknown {
    const { ctx, operations } = this.#port;
    switch (request.verb) {
      case "agreement-list":
        return { operations: operations.list(), decisions: this.#port.recent() };
      case "agreement-submit": {
        const value = request.value === undefined ? undefined : fromBase64Url(request.value);
        if (request.value !== undefined && !value) throw new Refusal("bad-request", "The value is not Base64url");
        // What follows from other records nobody makes up.
        if (request.key === ELECTORATE_KEY || request.key === TRUST_KEY) {
          throw new Refusal("not-permitted", `Cannot write "${request.key}": the network makes it by itself`);
        }
        ctx.audit("agreement-submit", ctx.state.nodeId, `${value ? "set" : "delete"} ${request.key}`);
        operations.put({
          key: request.key,
          value,
          lane: "person",
          ...(request.class ? { class: request.class } : {}),
          ...(request.priority === undefined ? {} : { priority: request.priority }),
          ...(request.timeoutMs === undefined ? {} : { timeoutMs: request.timeoutMs }),
        }, (result) => this.#reply(controlId, () => answerOf(request.key, result)));
        return DEFERRED;
      }
      case "agreement-cancel":
        operations.cancel(request.id, (done) => this.#reply(controlId, () => ({ id: request.id, cancelled: done })));
        return DEFERRED;
      case "agreement-emergency":
        return this.#emergency(request);
      default:
        return request satisfies never;
    }
  }

  #reply(controlId: number, make: () => object): void {
    const { ctx } = this.#port;
    try {
      ctx.emit({ type: "control-reply", controlId, result: { ok: true, value: make() } });
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      const { code, message, cure } = error;
      ctx.emit({ type: "control-reply", controlId, result: { ok: false, error: { code, message, cure } } });
    }
  }

  /** An operator goes on without voters whose quorum is lost. */
  #emergency(request: AgreementRequest & { readonly verb: "agreement-emergency" }): unknown {
    const { ctx, steward } = this.#port;
    const { state } = ctx;
    const signer = this.#operatorKey(request.genesisSeed);
    const before = steward.view();
    const ids = new Set(request.without.length > 0 ? request.without.map((one) => this.#voter(one)) : before.absent);
    if (before.health !== "lost") {
      throw new Refusal(
        "quorum-stands",
        `Cannot replace the electorate: ${before.seats} of ${before.of} seats answer, ${before.needed} are needed`,
        "A voter that is gone is dropped by the others: mycelium node remove <node>",
      );
    }
    if (ids.has(state.nodeId)) throw new Refusal("own-node", "Cannot go on without this node itself");
    if (ids.size === 0) throw new Refusal("bad-request", "Name who is given up: --without <node>");
    const { plan, electorate: next, atMs } = this.#planned(ids);
    if (request.dryRun) return { ...plan, done: false };
    this.#replace(ids, request.reason ?? "quorum lost", signer, next, atMs);
    return { ...plan, done: true };
  }

  #planned(ids: ReadonlySet<string>): {
    readonly electorate: Electorate;
    readonly atMs: number;
    readonly plan: {
      readonly epoch: number;
      readonly voters: readonly string[];
      readonly without: readonly string[];
      readonly tolerated: number;
      readonly silent: readonly string[];
    };
  } {
    const { ctx, steward } = this.#port;
    const { state } = ctx;
    const chain = this.#port.chain();
    const { electorate } = chain;
    const atMs = Math.max(ctx.nowMs, (this.#port.current(ELECTORATE_KEY)?.record.seq ?? 0) + 1);
    const seed = nextSeed(electorate.table, state.networkId, chain.standing.seeds);
    const next = reduced(electorate, ids, seed, { weigh: this.#port.weigh, networkId: state.networkId, atMs });
    if (!next) throw new Refusal("bad-request", "Nobody would be left to vote");
    const answering = steward.answering();
    const silent = next.table.voters.filter((one) => !answering.has(one.id)).map((one) => one.id);
    return {
      electorate: next,
      atMs,
      plan: {
        epoch: next.table.epoch,
        voters: next.table.voters.map((one) => one.id),
        without: [...ids],
        tolerated: toleratedFaults(next.table),
        silent,
      },
    };
  }

  /** Goes on without voters that have left or were removed, where the operator's key is here. */
  release(ids: ReadonlySet<string>): void {
    const { operatorPair } = this.#port.ctx.state;
    if (!operatorPair) return;
    try {
      const { electorate, atMs } = this.#planned(ids);
      this.#replace(ids, "they have left or were removed", operatorPair, electorate, atMs);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      this.#port.ctx.log("warn", "electorate-not-replaced", error.message);
    }
  }

  #replace(ids: ReadonlySet<string>, reason: string, signer: KeyPair, next: Electorate, atMs: number): void {
    const { ctx } = this.#port;
    const { state } = ctx;
    const { electorate } = this.#port.chain();
    const spore = sealSpore(
      {
        key: ELECTORATE_KEY,
        seq: atMs,
        value: encodeElectorate(next),
        issuedMs: atMs,
        expiresMs: atMs + RECORD_LIFE_MS_MAX,
      },
      state.networkId,
      state.keyPair,
    );
    const statement = sealEmergency(
      {
        record: spore.hash,
        supersedes: tableHash(electorate.table, state.networkId),
        reason,
        issuedMs: atMs,
      },
      state.networkId,
      signer,
    );
    ctx.audit(
      "agreement-emergency",
      state.nodeId,
      `electorate ${next.table.epoch} without ${[...ids].join(", ")}, signed by ${
        toHex(signer.publicKey).slice(0, 16)
      }: ${reason}`,
    );
    const verdict = this.#port.decide({ statement, record: spore.envelope });
    if (verdict !== "accept") throw new Refusal("refused", `Cannot replace the electorate: ${verdict}`);
  }

  #operatorKey(seed: Uint8Array | undefined): KeyPair {
    const { state } = this.#port.ctx;
    const { operatorKey, genesisKey } = state.network!.genesis!.record;
    const pair = seed ? keyPairFromSeed(seed) : state.operatorPair ?? state.genesisPair;
    if (pair && (equalBytes(pair.publicKey, operatorKey) || equalBytes(pair.publicKey, genesisKey))) return pair;
    throw new Refusal(
      "no-operator-key",
      seed
        ? "Cannot replace the electorate: this is neither the operator's nor the genesis key of the network"
        : "Cannot replace the electorate: this node holds neither the operator's nor the genesis key",
      "Name the file that holds one: --key <file>",
    );
  }

  #voter(wanted: string): string {
    const { state } = this.#port.ctx;
    const { voters } = this.#port.chain().electorate.table;
    const found = voters.filter((one) =>
      one.id === wanted || wanted.length >= 4 && one.id.endsWith(wanted) ||
      state.members.get(one.id)?.membership.name === wanted
    );
    if (found.length === 1) return found[0]!.id;
    throw new Refusal(
      found.length === 0 ? "not-found" : "ambiguous",
      `Cannot find voter "${wanted}": ${found.length} match`,
      "List them: mycelium agreement status",
    );
  }
}
