/**
 * The members that a node knows, how they merge, and which of them it observes alive.
 *
 * A member is a record signed by the node and a credential signed by an issuer. Both merge by a number
 * that only rises, so that any order of arrival gives the same table.
 *
 * @module
 */

import { compareBytes, utf8 } from "../core/bytes.ts";
import { hashParts } from "../core/crypto.ts";
import type { Envelope } from "../core/envelope.ts";
import { LIMITS } from "../core/limits.ts";
import type { Role } from "../core/roles.ts";
import type { MemberRecord } from "./record.ts";

/** How a node observes another. */
export type MemberState = "alive" | "suspect" | "dead";

/** What the credential says, as far as membership needs it. */
export interface Membership {
  readonly name: string;
  readonly role: Role;
  readonly pool: string;
  readonly issuedMs: number;
  readonly expiresMs: number;
  readonly via?: Uint8Array;
}

/** A row of the table. */
export interface Member {
  readonly nodeId: string;
  readonly publicKey: Uint8Array;
  readonly record: MemberRecord;
  readonly recordEnvelope: Envelope;
  readonly membership: Membership;
  readonly credentialEnvelope: Envelope;
}

/** What this node has observed of a member. Local, never sent. */
export interface Observation {
  readonly state: MemberState;
  readonly sinceMs: number;
  /** Last time that anything came from it directly; 0 for never. */
  readonly seenMs: number;
  /** Whether it answers this node itself. One that does not may be alive all the same, as others find. */
  readonly reachable: boolean;
}

/** Buckets of the digest. */
export const DIGEST_BUCKETS = 16;

/** The members that a node knows. Full at `LIMITS.membersMax`: a further one is refused. */
export class MemberTable {
  readonly #members = new Map<string, Member>();
  readonly #observed = new Map<string, Observation>();
  /** Nodes of each bucket, and the hash of each; `undefined` where a row of it has changed since. */
  readonly #buckets: readonly Set<string>[] = Array.from({ length: DIGEST_BUCKETS }, () => new Set<string>());
  readonly #digest: (Uint8Array | undefined)[] = new Array<undefined>(DIGEST_BUCKETS).fill(undefined);
  readonly #bucketOf = new Map<string, number>();
  #version = 0;

  get size(): number {
    return this.#members.size;
  }

  /** Grows with every change of a row. */
  get version(): number {
    return this.#version;
  }

  get(nodeId: string): Member | undefined {
    return this.#members.get(nodeId);
  }

  /** All members, in order of arrival. */
  all(): Member[] {
    return [...this.#members.values()];
  }

  /**
   * Merges a verified row: the record with the higher `seq` and the credential issued later win, each for itself.
   * Of two that a node signed under one number, or two issuers in one millisecond, the greater bytes win, so that
   * all tables end the same.
   *
   * @param latestMs Latest date that is believable now. A known credential of a later date, from a time when a clock
   *   was far ahead, gives way to one that is not: it would win for years else, and nobody accepts it.
   * @returns The row as it now stands where anything changed, else `undefined`.
   */
  merge(row: Member, latestMs = Infinity): Member | undefined {
    const known = this.#members.get(row.nodeId);
    if (!known) {
      if (this.#members.size >= LIMITS.membersMax) return undefined;
      this.#members.set(row.nodeId, row);
      this.#changed(row.nodeId);
      return row;
    }
    const newRecord = recordWins(row, known);
    const ahead = known.membership.issuedMs > latestMs && row.membership.issuedMs <= latestMs;
    const newCredential = ahead || credentialWins(row, known);
    if (!newRecord && !newCredential) return undefined;
    const merged: Member = {
      nodeId: row.nodeId,
      publicKey: row.publicKey,
      record: newRecord ? row.record : known.record,
      recordEnvelope: newRecord ? row.recordEnvelope : known.recordEnvelope,
      membership: newCredential ? row.membership : known.membership,
      credentialEnvelope: newCredential ? row.credentialEnvelope : known.credentialEnvelope,
    };
    this.#members.set(row.nodeId, merged);
    this.#changed(row.nodeId);
    return merged;
  }

  /** Forgets a member. */
  remove(nodeId: string): boolean {
    this.#observed.delete(nodeId);
    const known = this.#members.delete(nodeId);
    this.#changed(nodeId);
    return known;
  }

  /** Notes that a member has shown itself now. Returns whether its state changed. */
  noteAlive(nodeId: string, nowMs: number): boolean {
    const changed = this.observe(nodeId, { state: "alive", reachable: true }, nowMs);
    this.noteSeen(nodeId, nowMs);
    return changed;
  }

  /** Notes that something has come from a member directly. */
  noteSeen(nodeId: string, nowMs: number): void {
    const known = this.#observed.get(nodeId);
    if (known) this.#observed.set(nodeId, { ...known, seenMs: nowMs });
  }

  /** Notes what failure detection has found. Returns whether it is new. */
  observe(nodeId: string, found: Pick<Observation, "state" | "reachable">, nowMs: number): boolean {
    const known = this.#observed.get(nodeId);
    const { state, reachable } = found;
    if (known?.state === state && known.reachable === reachable) return false;
    const sinceMs = known?.state === state ? known.sinceMs : nowMs;
    this.#observed.set(nodeId, { state, sinceMs, seenMs: known?.seenMs ?? 0, reachable });
    return true;
  }

  /** What was observed of a member; one never met counts as suspected since `0`. */
  observation(nodeId: string): Observation {
    return this.#observed.get(nodeId) ?? { state: "suspect", sinceMs: 0, seenMs: 0, reachable: false };
  }

  /** Nodes that joined by an invite, removed ones included. */
  joinedBy(inviteId: Uint8Array): string[] {
    return this.all().filter((one) => one.membership.via && compareBytes(one.membership.via, inviteId) === 0)
      .map((one) => one.nodeId);
  }

  #changed(nodeId: string): void {
    this.#version += 1;
    const bucket = this.#bucketOf.get(nodeId) ?? bucketOf(nodeId);
    this.#digest[bucket] = undefined;
    if (this.#members.has(nodeId)) {
      this.#bucketOf.set(nodeId, bucket);
      this.#buckets[bucket]!.add(nodeId);
    } else {
      this.#bucketOf.delete(nodeId);
      this.#buckets[bucket]!.delete(nodeId);
    }
  }

  /** One hash of 8 bytes for each of {@linkcode DIGEST_BUCKETS} buckets: equal tables have equal digests. */
  digest(): readonly Uint8Array[] {
    return this.#digest.map((known, bucket) => known ?? (this.#digest[bucket] = this.#hashOf(bucket)));
  }

  #hashOf(bucket: number): Uint8Array {
    const rows = [...this.#buckets[bucket]!].sort().map((nodeId) => this.#members.get(nodeId)!);
    const parts = rows.flatMap((row) => [
      utf8(`${row.nodeId} ${row.record.seq} ${row.membership.issuedMs}`),
      row.recordEnvelope.payload,
      row.credentialEnvelope.payload,
    ]);
    return hashParts("mycelium/member-digest/v1", ...parts).slice(0, 8);
  }

  /** The members in some buckets. */
  inBuckets(buckets: readonly number[]): Member[] {
    return this.all().filter((one) => buckets.includes(this.#bucketOf.get(one.nodeId)!));
  }
}

/** Whether a row holds anything that wins over what another row of the same node holds. */
export function supersedes(row: Member, known: Member): boolean {
  return recordWins(row, known) || credentialWins(row, known);
}

function recordWins(row: Member, known: Member): boolean {
  const ahead = row.record.seq - known.record.seq;
  return ahead > 0 || ahead === 0 && compareBytes(row.recordEnvelope.payload, known.recordEnvelope.payload) > 0;
}

function credentialWins(row: Member, known: Member): boolean {
  const later = row.membership.issuedMs - known.membership.issuedMs;
  return later > 0 ||
    later === 0 && compareBytes(row.credentialEnvelope.payload, known.credentialEnvelope.payload) > 0;
}

/** Bucket of a node, 0 to {@linkcode DIGEST_BUCKETS} − 1. */
export function bucketOf(nodeId: string): number {
  return hashParts("mycelium/bucket/v1", utf8(nodeId))[0]! % DIGEST_BUCKETS;
}
