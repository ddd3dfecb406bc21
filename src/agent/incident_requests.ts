/**
 * What a person may ask about incidents and the heads of audit logs. The types, and their readers.
 *
 * @module
 */

import { WINDOW_MS_MAX } from "../access/incidents.ts";
import { bool, oneOf, optional, type Reader, record, text, uint } from "../core/codec.ts";

/** Requests about heads. */
export type AuditRequest = { readonly verb: "audit-heads" };

/** Their readers. */
export const AUDIT_READERS: { readonly [V in AuditRequest["verb"]]: Reader<unknown> } = { "audit-heads": record({}) };

/** Requests about incidents. */
export type IncidentRequest =
  | { readonly verb: "incident-list"; /** Closed ones as well. */ readonly all?: boolean }
  | { readonly verb: "incident-show"; readonly id: number }
  | { readonly verb: "incident-ack"; readonly id: number; readonly note?: string }
  | {
    readonly verb: "incident-respond";
    readonly id: number;
    readonly response: "throttle" | "quarantine" | "revoke" | "release";
    readonly forMs?: number;
    readonly dryRun?: boolean;
  }
  | { readonly verb: "incident-rules" };

const id = uint(Number.MAX_SAFE_INTEGER, 1);

/** Their readers. */
export const INCIDENT_READERS: { readonly [V in IncidentRequest["verb"]]: Reader<unknown> } = {
  "incident-list": record({ all: optional(bool) }),
  "incident-show": record({ id }),
  "incident-ack": record({ id, note: optional(text(200)) }),
  "incident-respond": record({
    id,
    response: oneOf(["throttle", "quarantine", "revoke", "release"]),
    forMs: optional(uint(WINDOW_MS_MAX, 1_000)),
    dryRun: optional(bool),
  }),
  "incident-rules": record({}),
};
