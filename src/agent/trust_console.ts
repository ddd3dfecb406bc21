/**
 * What the person at the machine asks of trust: scores with their reasons, the policy and what it would change, proofs.
 *
 * @module
 */

import { encodeCbor, WireError } from "../core/codec.ts";
import { publicKeyOf } from "../core/ids.ts";
import type { Member } from "../membership/table.ts";
import type { TrustState } from "../trust/agreed.ts";
import type { LocalFact, LocalScores } from "../trust/local.ts";
import {
  decodePolicy,
  may,
  type Standing,
  thresholdMaxOf,
  thresholdOf,
  TRUST_ACTIONS,
  type TrustAction,
  type TrustPolicy,
  type TrustVerdict,
} from "../trust/policy.ts";
import type { WeightTable } from "../consensus/weights.ts";
import { type Context, DEFERRED, Refusal } from "./context.ts";
import type { AgreementDoor, KnownProof } from "./trust.ts";
import { describeProof, type ProofVerdict } from "./trust_proofs.ts";

/** Requests that trust answers. */
export type TrustRequest =
  | { readonly verb: "trust-list" }
  | { readonly verb: "trust-show"; readonly node: string }
  | { readonly verb: "trust-policy-show" }
  | {
    readonly verb: "trust-policy-set";
    /** Least scores by action, ppm; a missing one is as built in. */
    readonly min: ReadonlyMap<string, number>;
    /** Nodes by name or id. */
    readonly vouched: readonly string[];
    readonly classes: ReadonlyMap<string, string>;
    readonly dryRun?: boolean;
    /** Only say what is to be signed: it is sent back with `access-submit`. */
    readonly prepare?: boolean;
  }
  | { readonly verb: "evidence-list" }
  | { readonly verb: "evidence-verify"; readonly hash?: string };

/** A node with what is thought of it. */
export interface TrustRow {
  readonly nodeId: string;
  readonly name: string;
  readonly role: string;
  readonly agreedPpm: number;
  readonly localPpm: number;
  readonly banned: boolean;
  /** Seats in the electorate; missing where it has no vote. */
  readonly seats?: number;
  /** What it may not do. */
  readonly denied: readonly TrustAction[];
}

/** The same in full. */
export interface TrustDetail extends TrustRow {
  /** Version of the agreed scores. */
  readonly version: number;
  readonly facts: Readonly<Record<LocalFact, number>>;
  readonly seenMs: number;
  readonly actions: readonly (TrustVerdict & { readonly action: TrustAction })[];
  readonly proofs: readonly ProofRow[];
}

/** A proof in a listing. */
export interface ProofRow {
  readonly hash: string;
  readonly nodeId: string;
  readonly name: string;
  readonly kind: string;
  readonly atMs: number;
  readonly reporter: string;
  readonly what: string;
  readonly sizeBytes: number;
  /** Whether it has counted in the agreed scores. */
  readonly counted: boolean;
}

/** One action of the policy. */
export interface PolicyRow {
  readonly action: TrustAction;
  readonly minPpm: number;
  /** Highest threshold that may be set. */
  readonly maxPpm: number;
  readonly set: boolean;
}

/** What the console sees of the part that it belongs to. */
export interface TrustConsoleHost {
  readonly state: TrustState | undefined;
  readonly policy: TrustPolicy;
  readonly proofs: ReadonlyMap<string, KnownProof>;
  readonly local: LocalScores;
  readonly agreement: AgreementDoor | undefined;
  standing(nodeId: string): Standing;
  may(nodeId: string, action: TrustAction): TrustVerdict;
  check(proof: Uint8Array): ProofVerdict;
  /** What an operator is to sign elsewhere for a policy. */
  preparePolicy(policy: TrustPolicy): object;
  /** Has a policy agreed on; an operator's key of this node signs it. @throws {Refusal} */
  setPolicy(policy: TrustPolicy, done: (result: { readonly ok: boolean; readonly code: string }) => void): void;
}

/** Answers questions about trust. */
export class TrustConsole {
  constructor(readonly ctx: Context, readonly host: TrustConsoleHost) {}

  /** Answers, or defers the answer. @throws {Refusal} */
  answer(controlId: number, request: TrustRequest): unknown {
    const { state } = this.ctx;
    if (!state.network?.credential) {
      throw new Refusal(
        "no-network",
        "This node is not a member of a network yet",
        "Form one: mycelium init; or join one: mycelium join <invite>",
      );
    }
    switch (request.verb) {
      case "trust-list":
        return { version: this.host.state?.version ?? 0, rows: state.members.all().map((one) => this.#row(one)) };
      case "trust-show":
        return this.#detail(this.#find(request.node));
      case "trust-policy-show":
        return this.#policy(this.host.policy);
      case "trust-policy-set":
        return this.#setPolicy(controlId, request);
      case "evidence-list":
        return { rows: this.#proofs(undefined) };
      case "evidence-verify":
        return this.#verify(request.hash);
      default:
        return request satisfies never;
    }
  }

  #row({ nodeId, membership: { name, role } }: Member): TrustRow {
    const table: WeightTable | undefined = this.host.agreement?.table();
    const seats = table?.voters.find((one) => one.id === nodeId)?.seats;
    return {
      nodeId,
      name,
      role,
      ...this.host.standing(nodeId),
      ...(seats === undefined ? {} : { seats }),
      denied: TRUST_ACTIONS.filter((action) => !this.host.may(nodeId, action).ok),
    };
  }

  #detail(member: Member): TrustDetail {
    const { nowMs } = this.ctx;
    const { nodeId } = member;
    const { counts, seenMs } = this.host.local.view(nodeId, nowMs);
    return {
      ...this.#row(member),
      version: this.host.state?.version ?? 0,
      facts: counts,
      seenMs,
      actions: TRUST_ACTIONS.map((action) => ({ action, ...this.host.may(nodeId, action) })),
      proofs: this.#proofs(nodeId),
    };
  }

  #proofs(nodeId: string | undefined): readonly ProofRow[] {
    const { state } = this.ctx;
    const counted = new Set(this.host.state?.offences.map((one) => `${one.id}`));
    return [...this.host.proofs.values()]
      .filter((one) => nodeId === undefined || one.offence.nodeId === nodeId)
      .sort((a, b) => a.offence.atMs - b.offence.atMs || (a.hash < b.hash ? -1 : 1))
      .map(({ hash, bytes, offence, reporter }) => ({
        hash,
        nodeId: offence.nodeId,
        name: state.members.get(offence.nodeId)?.membership.name ?? "",
        kind: offence.kind,
        atMs: offence.atMs,
        reporter: state.members.get(reporter)?.membership.name ?? reporter,
        what: describeProof(bytes),
        sizeBytes: bytes.length,
        counted: counted.has(`${offence.id}`) ||
          offence.kind === "safety" && this.#isAgreedBan(offence.nodeId),
      }));
  }

  #isAgreedBan(nodeId: string): boolean {
    const key = publicKeyOf(nodeId);
    return this.host.state?.rows.some((one) => one.banned && `${one.publicKey}` === `${key}`) ?? false;
  }

  #verify(hash: string | undefined): unknown {
    const proofs = [...this.host.proofs.values()].filter((one) => hash === undefined || one.hash.startsWith(hash));
    if (hash !== undefined && proofs.length !== 1) {
      throw new Refusal(
        "not-found",
        `Cannot find proof "${hash}": ${proofs.length} match`,
        "List them: mycelium evidence list",
      );
    }
    const rows = proofs.map((one) => {
      const verdict = this.host.check(one.bytes);
      const result = verdict.ok ? "holds" : verdict.reason === "unknown" ? "table not known" : "does not hold";
      return { hash: one.hash, nodeId: one.offence.nodeId, kind: one.offence.kind, result };
    });
    return { checked: rows.length, rows };
  }

  #policy(policy: TrustPolicy): {
    readonly actions: readonly PolicyRow[];
    readonly vouched: readonly string[];
    readonly classes: readonly { readonly prefix: string; readonly class: string }[];
  } {
    return {
      actions: TRUST_ACTIONS.map((action) => ({
        action,
        minPpm: thresholdOf(action, policy),
        maxPpm: thresholdMaxOf(action),
        set: policy.min.has(action),
      })),
      vouched: policy.vouched,
      classes: policy.classes,
    };
  }

  #setPolicy(controlId: number, request: TrustRequest & { readonly verb: "trust-policy-set" }): unknown {
    const { ctx, host } = this;
    const vouched = request.vouched.map((one) => this.#find(one).nodeId);
    let policy: TrustPolicy;
    try {
      // As everybody will read it: what they would refuse is refused here, by the same words.
      policy = decodePolicy(encodeCbor({
        m: Object.fromEntries(request.min),
        v: vouched,
        c: [...request.classes],
      }));
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      throw new Refusal("bad-policy", error.message, "See the ranges: mycelium trust policy show");
    }
    const changes = this.#changes(policy);
    if (request.dryRun) return { ...this.#policy(policy), changes, set: false };
    if (request.prepare) return host.preparePolicy(policy);
    host.setPolicy(policy, ({ ok, code }) => {
      ctx.audit("trust-policy", ctx.state.nodeId, ok ? `set: ${changes.length} changes` : `not set: ${code}`);
      ctx.emit({
        type: "control-reply",
        controlId,
        result: ok ? { ok: true, value: { ...this.#policy(policy), changes, set: true } } : {
          ok: false,
          error: {
            code,
            message: `Cannot set the trust policy: ${code}`,
            cure: "The voters decide about it: mycelium agreement show",
          },
        },
      });
    });
    return DEFERRED;
  }

  /** What a policy would change: who may no more, or may from now on. */
  #changes(
    policy: TrustPolicy,
  ): readonly { readonly name: string; readonly action: TrustAction; readonly may: boolean }[] {
    return this.ctx.state.members.all().flatMap(({ nodeId, membership: { name } }) => {
      const standing = this.host.standing(nodeId);
      return TRUST_ACTIONS.flatMap((action) => {
        const now = may(standing, action, this.host.policy).ok;
        const then = may(standing, action, policy).ok;
        return now === then ? [] : [{ name, action, may: then }];
      });
    });
  }

  #find(wanted: string): Member {
    const found = this.ctx.state.members.all().filter((one) =>
      one.nodeId === wanted || one.membership.name === wanted || wanted.length >= 4 && one.nodeId.endsWith(wanted)
    );
    if (found.length === 1) return found[0]!;
    throw new Refusal(
      found.length === 0 ? "not-found" : "ambiguous",
      `Cannot find node "${wanted}": ${found.length} members match`,
      "List them: mycelium node list",
    );
  }
}
