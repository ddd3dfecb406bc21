/**
 * What a person (or a program on the same machine) may ask of the running agent.
 *
 * @module
 */

import {
  array,
  bool,
  bytes,
  type CborValue,
  oneOf,
  optional,
  type Reader,
  record,
  text,
  uint,
  WireError,
} from "../core/codec.ts";
import { LIMITS } from "../core/limits.ts";
import { readAddress } from "../core/ids.ts";
import { readRole, type Role } from "../core/roles.ts";
import { BUNDLE_KINDS, BUNDLE_TEXT_BYTES_MAX } from "../spore/seed_bundle.ts";
import { KEY_CHARS_MAX } from "../spore/keys.ts";
import { RECORD_LIFE_MS_MAX, VALUE_BYTES_MAX } from "../spore/record.ts";
import { ACCESS_READERS, type AccessRequest } from "./access_requests.ts";
import { AUDIT_READERS, type AuditRequest, INCIDENT_READERS, type IncidentRequest } from "./incident_requests.ts";
import { AGREED_READERS, type AgreedRequest } from "./agreed_requests.ts";
import { AGREEMENT_READERS, type AgreementRequest } from "./agreement_requests.ts";
import type { SporeRequest } from "./latent.ts";
import type { PrimaryRequest } from "./primary_console.ts";
import type { SeedRequest } from "./seeds.ts";
import type { TrustRequest } from "./trust_console.ts";
import { TRUST_READERS } from "./trust_requests.ts";

/** Requests by verb. */
export type ControlRequest = CoreRequest | PartRequest;

/** Requests that a part of the agent answers. */
export type PartRequest =
  | SeedRequest
  | SporeRequest
  | PrimaryRequest
  | AccessRequest
  | TrustRequest
  | AgreedRequest
  | AgreementRequest
  | AuditRequest
  | IncidentRequest;

/** Requests that the agent itself answers. */
export type CoreRequest =
  | { readonly verb: "init"; readonly name: string; readonly approval: boolean }
  | { readonly verb: "join"; readonly invite: string }
  | {
    readonly verb: "invite-create";
    readonly role?: Role;
    readonly pool?: string;
    readonly uses?: number;
    readonly ttlMs?: number;
    readonly approval?: boolean;
  }
  | { readonly verb: "invite-revoke"; readonly id: string }
  | { readonly verb: "node-approve"; readonly node: string }
  | { readonly verb: "node-deny"; readonly node: string; readonly reason?: string }
  | { readonly verb: "node-remove"; readonly node: string; readonly reason?: string; readonly dryRun?: boolean }
  | { readonly verb: "bootstrap-retry" }
  | { readonly verb: "bootstrap-reset"; readonly dryRun?: boolean }
  | { readonly verb: "bootstrap-force-endpoint"; readonly address: string }
  | { readonly verb: "genesis-export"; readonly path: string; readonly dryRun?: boolean }
  | {
    readonly verb: "authority-recover";
    /** Issuers to leave out. */
    readonly without: readonly string[];
    /** The genesis key where it is not on this node; read from a file by the edge, never from a command line. */
    readonly genesisSeed?: Uint8Array;
  }
  | {
    readonly verb: "assign";
    readonly node: string;
    readonly id: string;
    readonly service: string;
    readonly action: "run" | "stop";
  }
  | {
    readonly verb: "sign-command";
    readonly node: string;
    readonly command: string;
    readonly args: { readonly [name: string]: string };
    readonly ttlMs: number;
  }
  | { readonly verb: "set-mode"; readonly mode: "normal" | "safe" | "isolated" | "drained" }
  | { readonly verb: "leave" };

/** Why a request was refused. */
export interface ControlError {
  /** Stable, lower-case, dashes. */
  readonly code: string;
  readonly message: string;
  readonly cure: string;
}

const node = text(128);
const sporeKey = text(200);
/** A record in Base64url. */
const base64 = text(Math.ceil(LIMITS.recordBytesMax * 4 / 3) + 4, /^[A-Za-z0-9_-]*$/);

const VERBS: { readonly [V in ControlRequest["verb"]]: Reader<unknown> } = {
  ...ACCESS_READERS,
  ...TRUST_READERS,
  ...AGREED_READERS,
  ...AGREEMENT_READERS,
  ...AUDIT_READERS,
  ...INCIDENT_READERS,
  "init": record({ name: text(63), approval: optional(bool) }),
  "join": record({ invite: text(8_192) }),
  "invite-create": record({
    role: optional(readRole),
    pool: optional(text(63)),
    uses: optional(uint(100_000, 1)),
    ttlMs: optional(uint(10 * 366 * 86_400_000, 1_000)),
    approval: optional(bool),
  }),
  "invite-revoke": record({ id: text(64) }),
  "node-approve": record({ node }),
  "node-deny": record({ node, reason: optional(text(200)) }),
  "node-remove": record({ node, reason: optional(text(200)), dryRun: optional(bool) }),
  "bootstrap-retry": record({}),
  "bootstrap-reset": record({ dryRun: optional(bool) }),
  "bootstrap-force-endpoint": record({ address: readAddress }),
  "genesis-export": record({ path: text(4_096), dryRun: optional(bool) }),
  "seed-export": record({
    kind: optional(oneOf(BUNDLE_KINDS)),
    ttlMs: optional(uint(366 * 86_400_000, 60_000)),
    unless: optional(text(64, /^[0-9a-f]{64}$/)),
    above: optional(uint()),
  }),
  "seed-import": record({
    text: text(BUNDLE_TEXT_BYTES_MAX),
    from: optional(text(4_096)),
    dryRun: optional(bool),
    force: optional(bool),
  }),
  "seed-decide": record({
    dryRun: optional(bool),
    ttlMs: optional(uint(366 * 86_400_000, 60_000)),
    genesisSeed: optional(bytes({ length: 32 })),
  }),
  "authority-recover": record({ without: array(text(128), 16), genesisSeed: optional(bytes({ length: 32 })) }),
  "assign": record({ node, id: text(63), service: text(63), action: oneOf(["run", "stop"]) }),
  "sign-command": record({
    node,
    command: text(32),
    ttlMs: uint(300_000, 1_000),
    args: (value, path) => {
      if (value === null || typeof value !== "object" || Array.isArray(value) || value instanceof Uint8Array) {
        throw new WireError(`Cannot read ${path}: wanted a map of texts`);
      }
      const entries = Object.entries(value as { readonly [key: string]: CborValue | undefined });
      if (entries.length > 32) throw new WireError(`Cannot read ${path}: wanted at most 32 arguments`);
      return Object.fromEntries(entries.map(([key, one]) => [key, argument(one, `${path}.${key}`)]));
    },
  }),
  "spore-list": record({
    prefix: optional(text(KEY_CHARS_MAX)),
    after: optional(text(KEY_CHARS_MAX)),
    max: optional(uint(1_000, 1)),
  }),
  "spore-show": record({ key: text(KEY_CHARS_MAX) }),
  "spore-put": record({
    key: text(KEY_CHARS_MAX),
    value: text(Math.ceil(VALUE_BYTES_MAX * 4 / 3) + 4, /^[A-Za-z0-9_-]*$/),
    ttlMs: optional(uint(RECORD_LIFE_MS_MAX, 1_000)),
    expect: optional(uint()),
  }),
  "spore-delete": record({ key: text(KEY_CHARS_MAX), expect: optional(uint()) }),
  "spore-verify": record({}),
  "spore-diff": record({ node }),
  "primary-put": record({
    key: sporeKey,
    value: optional((value, path) => argument(value, path)),
    expect: optional(uint()),
  }),
  "primary-get": record({ key: sporeKey, prefix: optional(bool), stale: optional(bool) }),
  "primary-transfer": record({ node }),
  "primary-recover": record({
    without: array(text(128), 32),
    dryRun: optional(bool),
    genesisSeed: optional(bytes({ length: 32 })),
  }),
  "primary-dump": record({ dump: optional(text(64)), offset: optional(uint()) }),
  "primary-restore": record({
    rows: array(record({ key: sporeKey, envelope: optional(base64), value: base64 }), 64),
    overwrite: optional(bool),
    dryRun: optional(bool),
  }),
  "set-mode": record({ mode: oneOf(["normal", "safe", "isolated", "drained"]) }),
  "leave": record({}),
};

/** An argument may hold a whole configuration file, line breaks included. */
const argument: Reader<string> = (value, path) => {
  if (typeof value !== "string" || value.length > 12_000) {
    throw new WireError(`Cannot read ${path}: wanted a text of at most 12000 characters`);
  }
  return value;
};

/**
 * Reads a request from decoded JSON.
 *
 * @throws {WireError} Naming the field and what was wanted.
 */
export function readControlRequest(value: unknown): ControlRequest {
  const { verb } = record({ verb: text(64) })(value as CborValue, "request");
  if (!Object.hasOwn(VERBS, verb)) {
    throw new WireError(`Cannot read request: no verb "${verb}", wanted one of ${Object.keys(VERBS).join(", ")}`);
  }
  const fields = VERBS[verb as ControlRequest["verb"]](value as CborValue, verb) as object;
  const defaults = verb === "init" ? { approval: false } : {};
  return { ...defaults, ...fields, verb } as ControlRequest;
}
