/**
 * What consensus decided, on its way into the Primary Spore: the contract between those who decide and those who apply.
 *
 * A decision is a certificate with its operations, or an operator's statement with the electorate's record. It becomes
 * one entry of the log (`primary_decisions.ts`), and each replica verifies it against the electorate of its own state
 * (`agreed_law.ts`): whoever leads cannot put anything there that was not decided.
 *
 * @module
 */

import type { Envelope } from "../core/envelope.ts";
import type { Certificate } from "../consensus/certificate.ts";
import type { Operation } from "../consensus/statements.ts";

/** What was decided, with what shows it. */
export type Decision =
  | { readonly certificate: Certificate; readonly operations: readonly Operation[] }
  /** The operator's word in place of a lost quorum: `record` is the spore record of the new electorate. */
  | { readonly statement: Envelope; readonly record: Envelope };

/** How one operation of a decision ended. */
export type OperationCode =
  | "ok"
  /** This very record stands there already. */
  | "unchanged"
  /** The certificate says no. */
  | "rejected"
  /** What stands there is not what it was decided against; or what it follows from is not there. */
  | "conflict"
  /** The author may not write there, whoever certifies it. */
  | "not-permitted"
  | "full"
  | "expired"
  | "from-future"
  | "malformed";

/** How a decision ended. */
export type CertifiedResult =
  /** Applied, now or (`again`) before: each operation by its own code, in order; empty where that is forgotten. */
  | {
    readonly ok: true;
    readonly again: boolean;
    readonly index: number;
    readonly outcomes: readonly OperationCode[];
  }
  | {
    readonly ok: false;
    readonly code:
      /** Of a table that is not the newest one of the log: have it decided anew. */
      | "foreign-table"
      /** The certificate does not hold. */
      | "not-certified"
      /** A key of it asks for more agreement. */
      | "class-too-low"
      /** Too long ago: whether it was applied is not known any more. */
      | "expired"
      | "malformed"
      /** Nobody answered in time: ask again, it counts once. */
      | "timeout"
      | "overloaded";
  };

/** What the agreement part hands decisions to: `primary.certified`. */
export interface DecisionSink {
  /**
   * Has a decision applied: on this node where it leads, else by who does. Idempotent: a decision counts once, however often
   * and by whomever it is handed over. `done` is called once, at once or in a later step.
   */
  certified(decision: Decision, options: { readonly timeoutMs: number }, done: (result: CertifiedResult) => void): void;
}
