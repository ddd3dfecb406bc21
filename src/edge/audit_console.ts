/**
 * What a person may ask of the audit log of a running node: verify, search, export.
 *
 * @module
 */

import { AUDIT_OUTCOMES, type AuditHead, type AuditQuery } from "../access/audit.ts";
import { type CborValue, oneOf, optional, record, text, uint } from "../core/codec.ts";
import type { AuditTrail } from "./audit_trail.ts";

const time = optional(uint(8_640_000_000_000_000));
const word = optional(text(256));
const readSearch = record({
  sinceMs: time,
  untilMs: time,
  by: word,
  action: word,
  outcome: optional(oneOf(AUDIT_OUTCOMES)),
  entrance: word,
  target: word,
  text: word,
  max: optional(uint(10_000, 1)),
  after: optional(uint()),
});
const readSpan = record({ sinceMs: time, untilMs: time });
const readPage = record({ from: uint(), to: uint() });

/** A place of the log that somebody knows. */
export interface KnownHead extends AuditHead {
  /** Node that says so. */
  readonly from: string;
}

/** What the console needs of the node. */
export interface AuditConsoleDeps {
  /** What is known of the log elsewhere: from the network's records and from members that are asked. */
  heads(): Promise<{ readonly heads: readonly KnownHead[]; readonly asked: number; readonly answered: number }>;
  now(): number;
}

/**
 * Answers one of the verbs `audit-verify`, `audit-search`, `audit-export`, `audit-lines`.
 *
 * @throws {WireError} Where the request does not read.
 */
export async function answerAudit(
  trail: AuditTrail,
  verb: "audit-verify" | "audit-search" | "audit-export" | "audit-lines",
  request: unknown,
  deps: AuditConsoleDeps,
): Promise<unknown> {
  const asked = request as CborValue;
  switch (verb) {
    case "audit-verify": {
      record({})(asked, verb);
      const known = await deps.heads();
      const report = await trail.verify(known.heads);
      const witnesses = new Set(known.heads.map((one) => one.from));
      return { ...report, asked: known.asked, answered: known.answered, witnesses: [...witnesses] };
    }
    case "audit-search": {
      const { max, after, ...query } = readSearch(asked, verb);
      return await trail.search(query satisfies AuditQuery, { max: max ?? 100, after });
    }
    case "audit-export":
      return await trail.range(readSpan(asked, verb), deps.now()) ?? { from: 0, to: 0, heading: "" };
    case "audit-lines": {
      const { from, to } = readPage(asked, verb);
      return await trail.lines(from, to);
    }
    default:
      return verb satisfies never;
  }
}
