/**
 * What a voter says of an operation: a function of the operation and of the version that it replaces, whatever stands there by
 * now; whether that version still stands is asked when it is applied. So honest voters never say two things.
 *
 * What depends on what this node happens to know (a revocation, a newer epoch, a version that is not here yet) is no reason to refuse
 * but to wait: who does not vote has done nothing wrong.
 *
 * @module
 */

import { equalBytes, toHex } from "../core/bytes.ts";
import { WireError } from "../core/codec.ts";
import type { Envelope } from "../core/envelope.ts";
import { nodeIdOf } from "../core/ids.ts";
import { openCredential } from "../identity/credential.ts";
import { openRevocation } from "../identity/revocation.ts";
import { openMember } from "../membership/record.ts";
import { openSpore, RECORD_LIFE_MS_MAX, type Spore } from "../spore/record.ts";
import { ownerOf } from "../spore/keys.ts";
import type { Header, Operation, OperationClass } from "../consensus/statements.ts";
import { tableHash } from "../consensus/weights.ts";
import {
  decodeElectorate,
  decodeRecordPut,
  type Electorate,
  ELECTORATE_KEY,
  encodeElectorate,
  nextSeed,
  RECORD_PUT,
  type RecordPut,
  requiredClass,
  suffices,
  TRUST_KEY,
} from "./agreed.ts";
import type { AgreementChain } from "./agreement_chain.ts";
import { electorsOf, makeElectorate, newElector, type Weigh } from "./agreement_electorate.ts";
import type { Context } from "./context.ts";

/** Yes, no, or not yet. */
export type Vote = "accept" | "refuse" | "later";

/** A write as the rules see it. */
export interface Write {
  readonly put: RecordPut;
  readonly spore: Spore;
  /** The version that it replaces. */
  readonly current: Spore | undefined;
}

/** Judges writes under a prefix, beyond what holds for all. */
export type Rule = (write: Write) => Vote;

/** What the rules look at. */
export interface RulesPort {
  readonly ctx: Context;
  readonly chain: () => AgreementChain;
  /** What stands under a key, as agreed. */
  readonly current: (key: string) => Spore | undefined;
  /** Least class of a key; `undefined`: nothing is agreed there. */
  readonly classOf: (key: string) => OperationClass | undefined;
  readonly weigh: Weigh;
}

/** A member whose credential ran out so long ago has been away for good, as far as voting goes. */
export const AWAY_MS = 86_400_000;
/** Versions of agreed keys that are remembered: proposals may build on one that has been replaced meanwhile. */
const VERSIONS_MAX = 256;

/** Judges operations. */
export class Rules {
  readonly #port: RulesPort;
  readonly #rules: { readonly prefix: string; readonly rule: Rule }[] = [];
  /** By hash. */
  readonly #versions = new Map<string, Spore>();

  constructor(port: RulesPort) {
    this.#port = port;
  }

  /** Judges keys with a prefix by a rule of their own, the longest prefix first. */
  add(prefix: string, rule: Rule): void {
    this.#rules.push({ prefix, rule });
    this.#rules.sort((a, b) => b.prefix.length - a.prefix.length);
  }

  /** What this node says of an operation of an instance. */
  judge(header: Header, operation: Operation): Vote {
    const { ctx } = this.#port;
    if (operation.kind !== RECORD_PUT) return "refuse";
    let put: RecordPut;
    let spore: Spore;
    try {
      put = decodeRecordPut(operation.body);
      spore = openSpore(put.envelope, ctx.state.networkId);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      return "refuse";
    }
    const { key, seq } = spore.record;
    const least = builtInClass(key);
    if (!least || !suffices(header.class, least)) return "refuse";
    // What asks for more is a policy that others may not know yet.
    if (!suffices(header.class, this.#port.classOf(key) ?? least)) return "later";
    const author = this.#author(spore);
    if (author !== "accept") return author;
    // What stands under the others, and by what number it is followed, the Primary Spore asks by itself.
    if (!key.startsWith("agreed/")) return "accept";
    const current = this.#version(key, put.replaces);
    if (current === "unknown") return "later";
    if (current && (current.record.key !== key || current.record.seq >= seq)) return "refuse";
    const write = { put, spore, current };
    if (key === ELECTORATE_KEY) return this.#electorate(write);
    const rule = this.#rules.find((one) => key.startsWith(one.prefix))?.rule;
    if (rule) return rule(write);
    // Without a rule of its own what is agreed is the issuers' to propose.
    return this.#isIssuer(spore) ? "accept" : "later";
  }

  /** A version of an agreed key stands, or did. */
  note(spore: Spore): void {
    if (!spore.record.key.startsWith("agreed/")) return;
    const name = toHex(spore.hash);
    this.#versions.delete(name);
    this.#versions.set(name, spore);
    if (this.#versions.size > VERSIONS_MAX) this.#versions.delete(this.#versions.keys().next().value!);
  }

  #version(key: string, hash: Uint8Array): Spore | undefined | "unknown" {
    if (hash.length === 0) return undefined;
    const current = this.#port.current(key);
    if (current) this.note(current);
    return this.#versions.get(toHex(hash)) ?? "unknown";
  }

  #author(spore: Spore): Vote {
    const { state } = this.#port.ctx;
    const { key, issuedMs, expiresMs } = spore.record;
    if (state.revocations.get("node", spore.envelope.signer)) return "later";
    if (!state.members.get(spore.author)) return "later";
    const owner = ownerOf(key);
    if (owner?.kind === "issuers" && !this.#isIssuer(spore)) return "later";
    if (key.startsWith("agreed/") && expiresMs - issuedMs !== RECORD_LIFE_MS_MAX) return "refuse";
    return "accept";
  }

  #isIssuer(spore: Spore): boolean {
    return this.#port.ctx.state.network!.chain!.counts(spore.envelope.signer);
  }

  #electorate({ put, spore }: Write): Vote {
    const { ctx, weigh } = this.#port;
    const { networkId } = ctx.state;
    const place = this.#port.chain().at(put.replaces);
    // The chain follows the record.
    if (!place) return "later";
    const { electorate: before, seeds, emergency } = place;
    if (!before.table.voters.some((one) => one.id === spore.author)) return "refuse";
    // Weights follow from the scores that it names, and only the newest ones are at hand.
    const trust = this.#port.current(TRUST_KEY);
    if (!equalBytes(put.basis, trust?.hash ?? new Uint8Array(0))) return "later";
    let next: Electorate;
    try {
      next = decodeElectorate(spore.record.value ?? new Uint8Array(0));
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      return "refuse";
    }
    const atMs = spore.record.issuedMs;
    const old = new Map(electorsOf(before).map((one) => [one.id, one]));
    const back = new Map((emergency ? electorsOf(emergency.superseded) : []).map((one) => [one.id, one]));
    const electors = next.table.voters.map(({ id, publicKey }) => old.get(id) ?? back.get(id) ?? newElector(publicKey));
    for (const one of electors) {
      if (old.has(one.id)) continue;
      const admitted = this.#admitted(one.publicKey, put.proofs, atMs);
      if (admitted !== "accept") return admitted;
    }
    const stay = new Set(electors.map((one) => one.id));
    const gone = [...old.values()].filter((one) => !stay.has(one.id));
    const whole = [...electors, ...gone];
    const weights = weigh(whole, atMs);
    const left = gone.every((one) =>
      weights[whole.indexOf(one)] === 0 || this.#hasLeft(one.publicKey, put.proofs, atMs)
    );
    if (!left) return "later";
    const follows = {
      epoch: before.table.epoch + 1,
      previous: tableHash(before.table, networkId),
      seed: nextSeed(before.table, networkId, seeds),
    };
    const made = makeElectorate(electors, weigh, follows, atMs);
    return made && equalBytes(encodeElectorate(made), spore.record.value!) ? "accept" : "refuse";
  }

  /** An issuer has said that it is a member, and of what role. */
  #admitted(publicKey: Uint8Array, proofs: readonly Envelope[], atMs: number): Vote {
    const { state } = this.#port.ctx;
    const chain = state.network!.chain!;
    if (state.revocations.get("node", publicKey)) return "later";
    for (const envelope of proofs) {
      const credential = attempt(() => openCredential(envelope, state.networkId));
      if (!credential || !equalBytes(credential.subject, publicKey)) continue;
      if (credential.role === "hypha" || credential.expiresMs <= atMs) return "refuse";
      return chain.counts(envelope.signer, credential.issuedMs) ? "accept" : "later";
    }
    return "refuse";
  }

  /** A voter has left, was removed, or has been away until its credential ran out. */
  #hasLeft(publicKey: Uint8Array, proofs: readonly Envelope[], atMs: number): boolean {
    const { state } = this.#port.ctx;
    const chain = state.network!.chain!;
    for (const envelope of proofs) {
      const revocation = attempt(() => openRevocation(envelope, state.networkId));
      if (revocation && equalBytes(revocation.subject, publicKey) && chain.counts(envelope.signer)) return true;
      const said = equalBytes(envelope.signer, publicKey)
        ? attempt(() => openMember(envelope, state.networkId))
        : undefined;
      // An older word of one that has come back since counts no longer.
      const known = state.members.get(nodeIdOf(publicKey))?.record;
      if (said?.left && !(known && known.seq > said.seq && !known.left)) return true;
    }
    return isAway(state.members.get(nodeIdOf(publicKey))?.membership.expiresMs, atMs);
  }
}

/** Whether who has a credential until then has been away for good. */
export function isAway(expiresMs: number | undefined, atMs: number): boolean {
  return expiresMs !== undefined && expiresMs + AWAY_MS <= atMs;
}

/** The least class of a key where no policy says more. */
export const builtInClass: (key: string) => OperationClass | undefined = requiredClass;

function attempt<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof WireError)) throw error;
    return undefined;
  }
}
