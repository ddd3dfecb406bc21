/**
 * What a person may ask about access: logging in, roles, and who has them. The types, and their readers.
 *
 * @module
 */

import { array, bool, oneOf, optional, type Reader, record, text, uint, WireError } from "../core/codec.ts";
import { fromBase64Url, fromHex } from "../core/bytes.ts";
import { LIMITS } from "../core/limits.ts";
import { formatGrant, readGrant } from "../access/permission.ts";
import { SESSION_MS_MAX } from "../access/sessions.ts";
import { SERVICE_NAME } from "../access/bindings.ts";
import { VALUE_BYTES_MAX } from "../spore/record.ts";

/** Longest life of a binding: ten years. */
const BINDING_MS_MAX = 10 * 366 * 86_400_000;

/** Requests about access. Bytes are Base64url in JSON. */
export type AccessRequest =
  | { readonly verb: "access-challenge" }
  | {
    readonly verb: "access-login";
    readonly challenge: Uint8Array;
    readonly key: Uint8Array;
    readonly sessionKey: Uint8Array;
    readonly ttlMs: number;
    readonly signature: Uint8Array;
    /** Code of the second factor. */
    readonly code?: string;
  }
  | { readonly verb: "access-logout"; /** Another one's session: hexadecimal. */ readonly session?: string }
  | { readonly verb: "access-whoami" }
  | { readonly verb: "access-sessions" }
  | { readonly verb: "factor-enroll" }
  | { readonly verb: "factor-verify"; readonly code: string }
  | {
    readonly verb: "factor-remove"; /** Another one's: `local`, or an operator key in hexadecimal. */
    readonly subject?: string;
  }
  | { readonly verb: "role-list" }
  | { readonly verb: "role-show"; readonly role: string }
  | {
    readonly verb: "role-create";
    readonly role: string;
    readonly description?: string;
    readonly grants: readonly string[];
    readonly prepare?: boolean;
  }
  | { readonly verb: "role-delete"; readonly role: string; readonly prepare?: boolean }
  | { readonly verb: "binding-list"; readonly kind?: "operator" | "service" | "node" }
  | {
    readonly verb: "role-bind";
    readonly binding: string;
    readonly role: string;
    /** One of these three: an operator key, a token, a node. */
    readonly key?: Uint8Array;
    readonly token?: { readonly id: string; readonly hash: Uint8Array; readonly service: string };
    readonly node?: string;
    readonly ttlMs?: number;
    /** Only say what is to be signed: it is sent back with `access-submit`. */
    readonly prepare?: boolean;
  }
  | { readonly verb: "role-unbind"; readonly binding: string; readonly prepare?: boolean }
  | {
    readonly verb: "access-submit";
    /** As `prepare` gave it. */
    readonly change: Uint8Array;
    /** Missing: the record is deleted. */
    readonly value?: Uint8Array;
    readonly signer: Uint8Array;
    readonly signature: Uint8Array;
  };

/** Bytes as Base64url text, or as they are where the request does not come as JSON. */
function base64Bytes(length: number): Reader<Uint8Array> {
  return (value, path) => {
    const read = typeof value === "string" && value.length <= 2 * length ? fromBase64Url(value) : value;
    if (read instanceof Uint8Array && read.length === length) return read;
    throw new WireError(`Cannot read ${path}: wanted ${length} bytes in Base64url`);
  };
}

function base64Max(max: number): Reader<Uint8Array> {
  return (value, path) => {
    const read = typeof value === "string" && value.length <= 2 * max ? fromBase64Url(value) : value;
    if (read instanceof Uint8Array && read.length <= max) return read;
    throw new WireError(`Cannot read ${path}: wanted at most ${max} bytes in Base64url`);
  };
}

const name = text(63, /^[a-z][a-z0-9-]{0,62}$/);
const code = text(6, /^\d{6}$/);
const subject: Reader<string> = (value, path) => {
  const read = text(64)(value, path);
  if (read === "local" || fromHex(read)?.length === 32) return read;
  throw new WireError(`Cannot read ${path}: wanted "local" or an operator key in hexadecimal`);
};

/** Readers by verb. */
export const ACCESS_READERS: { readonly [V in AccessRequest["verb"]]: Reader<unknown> } = {
  "access-challenge": record({}),
  "access-login": record({
    challenge: base64Bytes(64),
    key: base64Bytes(32),
    sessionKey: base64Bytes(32),
    ttlMs: uint(SESSION_MS_MAX, 1_000),
    signature: base64Bytes(64),
    code: optional(code),
  }),
  "access-logout": record({ session: optional(text(32, /^[0-9a-f]{32}$/)) }),
  "access-whoami": record({}),
  "access-sessions": record({}),
  "factor-enroll": record({}),
  "factor-verify": record({ code }),
  "factor-remove": record({ subject: optional(subject) }),
  "role-list": record({}),
  "role-show": record({ role: name }),
  "role-create": record({
    role: name,
    description: optional(text(200)),
    grants: array((value, path) => formatGrant(readGrant(value, path)), LIMITS.accessGrantsMax),
    prepare: optional(bool),
  }),
  "role-delete": record({ role: name, prepare: optional(bool) }),
  "binding-list": record({ kind: optional(oneOf(["operator", "service", "node"])) }),
  "role-bind": record({
    binding: name,
    role: name,
    key: optional(base64Bytes(32)),
    token: optional(record({
      id: text(16, /^[0-9a-f]{16}$/),
      hash: base64Bytes(32),
      service: text(63, SERVICE_NAME),
    })),
    node: optional(text(128)),
    ttlMs: optional(uint(BINDING_MS_MAX, 1_000)),
    prepare: optional(bool),
  }),
  "role-unbind": record({ binding: name, prepare: optional(bool) }),
  "access-submit": record({
    change: base64Max(512),
    value: optional(base64Max(VALUE_BYTES_MAX)),
    signer: base64Bytes(32),
    signature: base64Bytes(64),
  }),
};
