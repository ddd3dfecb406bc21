/**
 * Keys of spore records: what they look like, and who may write where.
 *
 * A key is a path. Its first segment says whose it is:
 *
 * | key | written by |
 * | --- | --- |
 * | `node/<nodeId>/…` | that node |
 * | `service/<service>/<nodeId>` | that node: where a service runs (Service Spore) |
 * | `net/…` | issuers |
 * | `app/…` | any member; the Primary Spore orders the writes |
 * | `agreed/…` | nobody alone: what consensus decided; a word there counts with a proof of the Primary tier only |
 *
 * An issuer may delete what a node wrote, since a node that was removed cannot any more. It may not write in its name.
 *
 * @module
 */

import { type Reader, WireError } from "../core/codec.ts";

/** Whose a key is. */
export type KeyOwner =
  /** Only the node with this id writes it. */
  | { readonly kind: "node"; readonly nodeId: string }
  | { readonly kind: "issuers" }
  | { readonly kind: "members" }
  /** Only a decision makes such a record, whoever signed it. */
  | { readonly kind: "agreed" };

/** Longest key in characters. */
export const KEY_CHARS_MAX = 200;
/** Most segments of a key. */
export const KEY_SEGMENTS_MAX = 8;

const SEGMENT = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

/** Whose a key is, or `undefined` where it is no key of a spore record. */
export function ownerOf(key: string): KeyOwner | undefined {
  if (key.length > KEY_CHARS_MAX) return undefined;
  const segments = key.split("/");
  if (segments.length < 2 || segments.length > KEY_SEGMENTS_MAX) return undefined;
  if (!segments.every((one) => SEGMENT.test(one))) return undefined;
  switch (segments[0]) {
    case "node":
      return segments.length > 2 ? { kind: "node", nodeId: segments[1]! } : undefined;
    case "service":
      return segments.length === 3 ? { kind: "node", nodeId: segments[2]! } : undefined;
    case "net":
      return { kind: "issuers" };
    case "app":
      return { kind: "members" };
    case "agreed":
      return { kind: "agreed" };
    default:
      return undefined;
  }
}

/** Reads a key of a spore record. */
export const readKey: Reader<string> = (value, path) => {
  if (typeof value === "string" && ownerOf(value)) return value;
  throw new WireError(
    `Cannot read ${path}: wanted a key such as "app/…", "net/…", "agreed/…", "node/<id>/…" or "service/<name>/<id>"`,
  );
};

/** What {@linkcode mayWrite} has to know of a writer. */
export interface Writer {
  readonly nodeId: string;
  readonly issuer: boolean;
}

/** Whether a member may write this record: a value, or (`deletes`) a tombstone. */
export function mayWrite(key: string, writer: Writer, deletes: boolean): boolean {
  const owner = ownerOf(key);
  if (!owner) return false;
  switch (owner.kind) {
    case "node":
      return owner.nodeId === writer.nodeId || deletes && writer.issuer;
    case "issuers":
      return writer.issuer;
    case "members":
      return true;
    case "agreed":
      return false;
    default:
      return owner satisfies never;
  }
}
