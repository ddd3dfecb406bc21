/**
 * The electorates of the network, each shown by the one before, from the founder alone: who votes now, and who did.
 *
 * @module
 */

import { equalBytes } from "../core/bytes.ts";
import { tableHash, type WeightTable } from "../consensus/weights.ts";
import { decodeElectorate, type Electorate, type EmergencyStatement, openEmergency } from "./agreed.ts";
import type { NetworkLaw, ShownRecord, Standing } from "./agreed_law.ts";
import { decodeProof } from "./agreement_store.ts";

/** One electorate with what shows it. */
interface Link {
  readonly warrant: Uint8Array;
  /** As the law encodes it. */
  readonly standing: Uint8Array;
  readonly electorate: Electorate;
  readonly shown: ShownRecord;
  /** What the operator said who put it in place; missing where a quorum decided. */
  readonly byOperator: EmergencyStatement | undefined;
}

/** An electorate that an operator put in place of another one. */
export interface Emergency {
  readonly epoch: number;
  readonly reason: string;
  readonly issuedMs: number;
  readonly superseded: Electorate;
}

/** Electorates that still count for what comes late. */
const TABLES_KEPT = 4;

/** The chain as this node has verified it. */
export class AgreementChain {
  readonly #law: NetworkLaw;
  readonly #networkId: Uint8Array;
  readonly #first: Electorate;
  #links: Link[] = [];

  /** @param foundedMs When the founder's vote began. */
  constructor(law: NetworkLaw, networkId: Uint8Array, foundedMs: number) {
    this.#law = law;
    this.#networkId = networkId;
    const { table } = law.standing(law.genesis);
    this.#first = { table, previous: new Uint8Array(32), sinceMs: [foundedMs] };
  }

  /** Number of the newest electorate; 0: the founder alone. */
  get epoch(): number {
    return this.#links.length;
  }

  /** Who votes. */
  get electorate(): Electorate {
    return this.#links.at(-1)?.electorate ?? this.#first;
  }

  /** Who votes, with what seeds the next table. */
  get standing(): Standing {
    return this.#law.standing(this.#links.at(-1)?.standing ?? this.#law.genesis);
  }

  /** Standings of the newest tables, for certificates that come late, oldest first. */
  get recent(): readonly Uint8Array[] {
    return [this.#law.genesis, ...this.#links.map((one) => one.standing)].slice(-TABLES_KEPT);
  }

  /** Hash of the record that holds the electorate; empty before the first. */
  get recordHash(): Uint8Array {
    return this.#links.at(-1)?.shown.spore.hash ?? new Uint8Array(0);
  }

  /** Warrants from one epoch on, those of which each shows the next electorate. */
  since(epoch: number): readonly Uint8Array[] {
    return this.#links.slice(epoch).map((one) => one.warrant);
  }

  /** One of the newest tables by its hash. */
  table(hash: Uint8Array): WeightTable | undefined {
    return this.recent.map((one) => this.#law.standing(one).table)
      .find((one) => equalBytes(tableHash(one, this.#networkId), hash));
  }

  /** The electorate that a record made (empty: the first one), with what seeds the table after it. */
  at(recordHash: Uint8Array):
    | { readonly electorate: Electorate; readonly seeds: Uint8Array; readonly emergency: Emergency | undefined }
    | undefined {
    const i = recordHash.length === 0
      ? -1
      : this.#links.findIndex((one) => equalBytes(one.shown.spore.hash, recordHash));
    if (recordHash.length > 0 && i < 0) return undefined;
    const link = this.#links[i];
    const { seeds } = this.#law.standing(link?.standing ?? this.#law.genesis);
    return { electorate: link?.electorate ?? this.#first, seeds, emergency: this.#emergencyUntil(i) };
  }

  /** The last time that an operator put an electorate in place of another one. */
  get emergency(): Emergency | undefined {
    return this.#emergencyUntil(this.#links.length - 1);
  }

  #emergencyUntil(last: number): Emergency | undefined {
    for (let i = last; i >= 0; i--) {
      const said = this.#links[i]!.byOperator;
      if (!said) continue;
      const { reason, issuedMs } = said;
      return { epoch: i + 1, reason, issuedMs, superseded: this.#links[i - 1]?.electorate ?? this.#first };
    }
    return undefined;
  }

  /** Takes over the chain of this node's own replica, which has verified it. Returns whether it is another one now. */
  mirror(warrants: readonly Uint8Array[]): boolean {
    const same = this.#common(warrants);
    if (same === warrants.length && same === this.#links.length) return false;
    return this.#put(same, warrants.slice(same));
  }

  /**
   * Takes what another node shows, from an epoch on. A chain that contradicts this one counts where the first link that
   * differs was decided by a quorum and ours by an operator alone, or by an operator later.
   */
  offer(from: number, warrants: readonly Uint8Array[]): boolean {
    if (from > this.#links.length) return false;
    let same = 0;
    while (same < warrants.length && this.#isSame(from + same, warrants[same]!)) same++;
    const rest = warrants.slice(same);
    const at = from + same;
    if (rest.length === 0) return false;
    const ours = this.#links[at];
    if (ours) {
      const theirs = this.#law.read(rest[0]!, [this.#standingAt(at)]);
      if (!theirs || !overrules(theirs, ours.shown)) return false;
    }
    const before = this.#links;
    if (this.#put(at, rest) && (!ours || this.#links.length > at)) return true;
    this.#links = before;
    return false;
  }

  #put(at: number, warrants: readonly Uint8Array[]): boolean {
    const links = this.#links.slice(0, at);
    for (const warrant of warrants) {
      const before = links.at(-1)?.standing ?? this.#law.genesis;
      const standing = this.#law.follow(before, warrant);
      const shown = standing && this.#law.read(warrant, [before]);
      if (!shown) break;
      const proof = decodeProof(warrant);
      const byOperator = "statement" in proof ? openEmergency(proof.statement, this.#networkId) : undefined;
      links.push({ warrant, standing, shown, electorate: decodeElectorate(shown.spore.record.value!), byOperator });
    }
    const changed = links.length !== this.#links.length || links.length > at;
    this.#links = links;
    return changed;
  }

  #standingAt(epoch: number): Uint8Array {
    return this.#links[epoch - 1]?.standing ?? this.#law.genesis;
  }

  #common(warrants: readonly Uint8Array[]): number {
    let same = 0;
    while (same < warrants.length && this.#isSame(same, warrants[same]!)) same++;
    return same;
  }

  /** Certificates of one decision may have other signers: the record is what counts. */
  #isSame(at: number, warrant: Uint8Array): boolean {
    const ours = this.#links[at];
    if (!ours) return false;
    if (equalBytes(ours.warrant, warrant)) return true;
    const theirs = this.#law.read(warrant, [this.#standingAt(at)]);
    return theirs !== undefined && equalBytes(theirs.spore.hash, ours.shown.spore.hash);
  }
}

function overrules(theirs: ShownRecord, ours: ShownRecord): boolean {
  if ((theirs.certificate === undefined) !== (ours.certificate === undefined)) return theirs.certificate !== undefined;
  return theirs.certificate === undefined && theirs.spore.record.seq > ours.spore.record.seq;
}
