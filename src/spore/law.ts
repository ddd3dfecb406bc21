/**
 * What the replicated state has to know of agreement among machines that may lie, without knowing how it works.
 *
 * Decisions, electorates and warrants are bytes here; whoever implements the {@linkcode Law} reads them. It is pure: the
 * same bytes give the same answer on every node.
 *
 * @module
 */

import type { Envelope } from "../core/envelope.ts";

/** Why a decision is refused as a whole. */
export type LawRefusal =
  | "malformed"
  /** Made by another electorate than the one that the state holds. */
  | "foreign-table"
  /** Not enough signatures, or not valid ones. */
  | "not-certified"
  /** The drawn committee is smaller than any may be. */
  | "class-too-low";

/** What names a decision before it is verified. */
export interface DecisionName {
  /** Of its instance, hexadecimal. */
  readonly instance: string;
  /** Node id; empty for an operator's word. */
  readonly proposer: string;
  /** End of the instance, milliseconds since the epoch. */
  readonly expiresMs: number;
}

/** One operation of a decision. */
export interface Judged {
  /** What the electorate said of it. */
  readonly accepted: boolean;
  /** The record that it writes; missing where it is of another kind, or does not read. */
  readonly put?: {
    readonly envelope: Envelope;
    /** Hash of the version that it replaces, empty for none; missing: whatever stands there. */
    readonly replaces?: Uint8Array;
    /** Hash of an agreed record that it follows from; empty: of none. */
    readonly basis: Uint8Array;
  };
  /** What shows it to anybody: certificate, this operation, digests of the others. */
  readonly warrant: Uint8Array;
}

/** What a decision says, once its certificate holds. */
export type Judgement =
  | { readonly ok: true; readonly rank: number; readonly operations: readonly Judged[] }
  | { readonly ok: false; readonly code: LawRefusal };

/** Rules of agreement, by whoever knows them. */
export interface Law {
  /** The electorate before any was agreed on. */
  readonly genesis: Uint8Array;
  /** Name of a decision; `undefined` where it does not read. */
  nameOf(decision: Uint8Array): DecisionName | undefined;
  /** Verifies a decision against the electorate of the state. */
  judge(decision: Uint8Array, electorate: Uint8Array): Judgement;
  /** Least rank that a certificate needs for a write under a key; `undefined`: none makes it. */
  rankOf(key: string, policy: Uint8Array | undefined): number | undefined;
  /** Whether the policy asks for a certificate where none is needed by itself. */
  needsDecision(key: string, policy: Uint8Array | undefined): boolean;
  /** The electorate that follows by a warrant for the electorate's record, verified; `undefined`: it does not follow. */
  follow(electorate: Uint8Array, warrant: Uint8Array): Uint8Array | undefined;
  /**
   * The record that a warrant shows, verified against whichever of these electorates it names.
   *
   * @returns Hash of the record, 32 bytes, or `undefined` where it shows none.
   */
  shown(warrant: Uint8Array, electorates: readonly Uint8Array[]): Uint8Array | undefined;
}

/** Record of the electorate. */
export const ELECTORATE_RECORD = "agreed/electorate";
/** Record of the policy, which may raise what a key asks for. */
export const POLICY_RECORD = "agreed/policy";
