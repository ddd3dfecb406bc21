/**
 * Bindings: who has a role. A record that the network agreed on, so that it holds on every node and can be taken back.
 *
 * @module
 */

import { bytes, type CborValue, decodeAs, encodeCbor, optional, record, text, uint, WireError } from "../core/codec.ts";
import { toHex } from "../core/bytes.ts";
import { GIVEN_ROLES, isRoleName } from "./roles.ts";

/** Who a binding is about. */
export type BoundSubject =
  /** A person: who holds this Ed25519 key. */
  | { readonly kind: "operator"; readonly key: Uint8Array }
  /** A program: who shows a token of this id and hash. */
  | { readonly kind: "service"; readonly tokenId: string; readonly hash: Uint8Array; readonly service: string }
  /** A node, besides what it may do as a member. */
  | { readonly kind: "node"; readonly nodeId: string };

/** Who has a role. */
export interface Binding {
  readonly name: string;
  readonly role: string;
  readonly subject: BoundSubject;
  readonly createdMs: number;
  /** Missing: until it is taken back. */
  readonly expiresMs?: number;
}

/** Name of a service: a DNS label. */
export const SERVICE_NAME = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;

const readBinding = record({
  r: text(63),
  c: uint(),
  x: optional(uint()),
  k: optional(bytes({ length: 32 })),
  t: optional(record({ i: text(16, /^[0-9a-f]{16}$/), h: bytes({ length: 32 }), s: text(63, SERVICE_NAME) })),
  n: optional(text(128)),
});

/**
 * Reads a binding from the value of its record.
 *
 * @param name Last segment of the record's key.
 * @throws {WireError} Where it does not read, names no subject or several, or gives a role that its subject cannot have.
 */
export function decodeBinding(name: string, value: Uint8Array): Binding {
  if (!isRoleName(name)) {
    throw new WireError(`Cannot read binding "${name}": wanted a name of lower-case letters, digits and dashes`);
  }
  const { r, c, x, k, t, n } = decodeAs(value, readBinding);
  const subjects: BoundSubject[] = [];
  if (k) subjects.push({ kind: "operator", key: k });
  if (t) subjects.push({ kind: "service", tokenId: t.i, hash: t.h, service: t.s });
  if (n !== undefined) subjects.push({ kind: "node", nodeId: n });
  const [subject] = subjects;
  if (!subject || subjects.length > 1) {
    throw new WireError(`Cannot read binding "${name}": wanted a key, a token or a node, and one of them`);
  }
  if (!isRoleName(r) || !mayHave(subject.kind, r)) {
    throw new WireError(`Cannot read binding "${name}": a ${subject.kind} cannot have role "${r}"`);
  }
  return { name, role: r, subject, createdMs: c, ...(x === undefined ? {} : { expiresMs: x }) };
}

/** The value of a binding's record. */
export function encodeBinding(one: Binding): Uint8Array {
  const { subject } = one;
  const value: { readonly [field: string]: CborValue | undefined } = {
    r: one.role,
    c: one.createdMs,
    x: one.expiresMs,
    ...(subject.kind === "operator"
      ? { k: subject.key }
      : subject.kind === "service"
      ? { t: { i: subject.tokenId, h: subject.hash, s: subject.service } }
      : { n: subject.nodeId }),
  };
  return encodeCbor(value);
}

/**
 * Whether a role can be given at all. `anyone`, `reader` and `node` are what somebody is. A token can be copied and has no second
 * factor: it gets `service`, or a role of the network's own, and decide() keeps it from what is dangerous.
 */
export function mayHave(kind: BoundSubject["kind"], role: string): boolean {
  if (role === "anyone" || role === "reader" || role === "node") return false;
  if (kind === "service") return !GIVEN_ROLES.includes(role) || role === "viewer";
  return role !== "service";
}

/** A text that names the subject: equal for equal ones. */
export function subjectId(subject: BoundSubject): string {
  switch (subject.kind) {
    case "operator":
      return `operator:${toHex(subject.key)}`;
    case "service":
      return `service:${subject.tokenId}`;
    case "node":
      return `node:${subject.nodeId}`;
    default:
      return subject satisfies never;
  }
}
