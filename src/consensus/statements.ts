/**
 * What nodes sign, and the headers that it is about.
 *
 * A statement is signed as the hash of its domain, the network id and its encoding: one of network A, of another
 * instance, round or kind is never valid here.
 *
 * @module
 */

import { equalBytes } from "../core/bytes.ts";
import {
  array,
  bytes,
  type CborValue,
  encodeCbor,
  oneOf,
  type Reader,
  record,
  text,
  uint,
  WireError,
} from "../core/codec.ts";
import { hashParts, type KeyPair, signBytes, verifySignature } from "../core/crypto.ts";
import { LIMITS } from "../core/limits.ts";
import { drawCommittee, tableHash, VOTERS_MAX, type WeightTable } from "./weights.ts";

/** How much agreement an operation needs: one signature, a drawn committee, all voters. */
export type OperationClass = "fast" | "standard" | "critical";
/** In order of severity. */
export const OPERATION_CLASSES: readonly OperationClass[] = ["fast", "standard", "critical"];

/** Something to be decided. */
export interface Operation {
  /** What it is, for example `trust/update`: the verifier goes by it. */
  readonly kind: string;
  /** Deterministic content; names the state that it is verified against. */
  readonly body: Uint8Array;
}

/** What makes an instance one: frozen from its first round to its last. */
export interface Header {
  /** Hash of the frozen table, 32 bytes. */
  readonly table: Uint8Array;
  readonly class: OperationClass;
  /** Committee of a standard instance, voters; 1 for the others. */
  readonly size: number;
  /** Node id of a voter of the table. */
  readonly proposer: string;
  /** Counts the proposer's instances, from 1. */
  readonly seq: number;
  /** Nobody joins after it, and nobody who did votes on. Wall clock, milliseconds. */
  readonly expiresMs: number;
  /** Hash of all operations, 32 bytes. */
  readonly operations: Uint8Array;
  /** How many they are, 1 to `LIMITS.consensusBatchMax`. */
  readonly count: number;
}

/** A header with its operations and the proposer's signature. */
export interface Proposal {
  readonly header: Header;
  readonly operations: readonly Operation[];
  readonly signature: Uint8Array;
}

/** Checks signatures; {@linkcode verifySignature} unless the caller counts or caches otherwise. */
export type Verify = (publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array) => boolean;

const readOperationParts = record({
  k: text(64, /^[a-z0-9/-]+$/),
  b: bytes({ max: LIMITS.consensusOperationBytesMax }),
});

/** Reads an operation. */
export const readOperation: Reader<Operation> = (value, path) => {
  const parts = readOperationParts(value, path);
  return { kind: parts.k, body: parts.b };
};

/** An operation as a value for `encodeCbor`. */
export function operationValue(operation: Operation): CborValue {
  return { k: operation.kind, b: operation.body };
}

/** Hash of one operation, 32 bytes. */
export function operationHash(operation: Operation): Uint8Array {
  return hashParts("mycelium/consensus/operation/v1", encodeCbor(operationValue(operation)));
}

/** Hash of a list of operations, 32 bytes, from that of each: one of them is proved without the others. */
export function operationsHashOf(hashes: readonly Uint8Array[]): Uint8Array {
  return hashParts("mycelium/consensus/operations/v1", ...hashes);
}

/** Hash of a list of operations, 32 bytes. */
export function operationsHash(operations: readonly Operation[]): Uint8Array {
  return operationsHashOf(operations.map(operationHash));
}

const readHeaderParts = record({
  t: bytes({ length: 32 }),
  c: oneOf(OPERATION_CLASSES),
  k: uint(VOTERS_MAX, 1),
  p: text(128),
  q: uint(2 ** 48, 1),
  x: uint(2 ** 48),
  o: bytes({ length: 32 }),
  n: uint(LIMITS.consensusBatchMax, 1),
});

/** Reads a header. */
export const readHeader: Reader<Header> = (value, path) => {
  const parts = readHeaderParts(value, path);
  return {
    table: parts.t,
    class: parts.c,
    size: parts.k,
    proposer: parts.p,
    seq: parts.q,
    expiresMs: parts.x,
    operations: parts.o,
    count: parts.n,
  };
};

/** A header as a value for `encodeCbor`. */
export function headerValue(header: Header): CborValue {
  return {
    t: header.table,
    c: header.class,
    k: header.size,
    p: header.proposer,
    q: header.seq,
    x: header.expiresMs,
    o: header.operations,
    n: header.count,
  };
}

/** Id of an instance, 32 bytes: bound to the network and all of its header. */
export function instanceId(header: Header, networkId: Uint8Array): Uint8Array {
  return hashParts("mycelium/consensus/instance/v1", networkId, encodeCbor(headerValue(header)));
}

/** Who votes on a header: a table of its own, or `undefined` where the header is not of this table or its proposer no voter. */
export function electorate(header: Header, table: WeightTable, networkId: Uint8Array): WeightTable | undefined {
  if (!equalBytes(header.table, tableHash(table, networkId))) return undefined;
  if (!table.voters.some((one) => one.id === header.proposer)) return undefined;
  if (header.class !== "standard") return table;
  // By nothing that a proposer may choose, operations and number included: it would try until the committee fits. So each has
  // one committee per table, and nobody could choose the table's seed (ADR 14).
  return drawCommittee(table, encodeCbor([header.proposer]), header.size);
}

const readProposalParts = record({
  h: readHeader,
  o: array(readOperation, LIMITS.consensusBatchMax),
  s: bytes({ length: 64 }),
});

/** Reads a proposal; its operations are those of the header. Says nothing about the signature. */
export const readProposal: Reader<Proposal> = (value, path) => {
  const parts = readProposalParts(value, path);
  if (parts.o.length !== parts.h.count || !equalBytes(operationsHash(parts.o), parts.h.operations)) {
    throw new WireError(`Cannot read ${path}: the operations are not those of the header`);
  }
  return { header: parts.h, operations: parts.o, signature: parts.s };
};

/** A proposal as a value for `encodeCbor`. */
export function proposalValue(proposal: Proposal): CborValue {
  return { h: headerValue(proposal.header), o: proposal.operations.map(operationValue), s: proposal.signature };
}

/** What is signed. `round` and `voter` bind votes to their place; two different ones for one place are equivocation. */
export type Statement =
  | { readonly type: "proposal"; readonly instance: Uint8Array }
  | {
    readonly type: "commitment";
    readonly instance: Uint8Array;
    readonly round: number;
    /** C, 32 bytes. */
    readonly commitment: Uint8Array;
    /** The vote, sealed under the nonce. */
    readonly sealed: Uint8Array;
    /** Hash of each voter's shares, 16 bytes each in the order of the electorate. */
    readonly shareHashes: Uint8Array;
  }
  | { readonly type: "freeze"; readonly instance: Uint8Array; readonly round: number; readonly value: Uint8Array }
  | {
    readonly type: "precommit";
    readonly instance: Uint8Array;
    readonly round: number;
    readonly value: Uint8Array;
    /** One bit per operation, accepted or not. */
    readonly outcome: Uint8Array;
    /** Hash of all openings of the set, 32 bytes: see {@linkcode Certificate.beacon}. */
    readonly beacon: Uint8Array;
  }
  /** A voter of the set of `value` that had not opened to the signer in time. */
  | { readonly type: "withheld"; readonly instance: Uint8Array; readonly value: Uint8Array; readonly voter: number }
  /** One signature that decides a fast instance. */
  | { readonly type: "fast"; readonly instance: Uint8Array; readonly outcome: Uint8Array };

/** Bytes of one entry of `shareHashes`. */
export const SHARE_HASH_BYTES = 16;

/** Largest round number: rounds past `LIMITS.consensusRoundsMax` do not happen. */
export const ROUND_MAX: number = LIMITS.consensusRoundsMax;

/** A statement as a value for `encodeCbor`. */
export function statementValue(statement: Statement): CborValue {
  switch (statement.type) {
    case "proposal":
      return { i: statement.instance };
    case "commitment":
      return {
        i: statement.instance,
        r: statement.round,
        c: statement.commitment,
        s: statement.sealed,
        h: statement.shareHashes,
      };
    case "freeze":
      return { i: statement.instance, r: statement.round, v: statement.value };
    case "precommit":
      return {
        i: statement.instance,
        r: statement.round,
        v: statement.value,
        o: statement.outcome,
        b: statement.beacon,
      };
    case "withheld":
      return { i: statement.instance, v: statement.value, w: statement.voter };
    case "fast":
      return { i: statement.instance, o: statement.outcome };
  }
}

/** The bytes that are signed. */
export function statementBytes(statement: Statement, networkId: Uint8Array): Uint8Array {
  return hashParts(
    `mycelium/consensus/${statement.type}/v1`,
    networkId,
    encodeCbor(statementValue(statement)),
  );
}

/** Signs a statement, 64 bytes. */
export function signStatement(statement: Statement, networkId: Uint8Array, key: KeyPair): Uint8Array {
  return signBytes(key, statementBytes(statement, networkId));
}

/** Whether a signature is this key's over a statement in this network. */
export function isStatedBy(
  statement: Statement,
  signature: Uint8Array,
  publicKey: Uint8Array,
  networkId: Uint8Array,
  verify: Verify = verifySignature,
): boolean {
  return verify(publicKey, statementBytes(statement, networkId), signature);
}

/** Bytes of a bit per item. */
export function bitmapBytes(count: number): number {
  return (count + 7) >> 3;
}

/** Bit `i` of a bitmap. */
export function bitOf(bitmap: Uint8Array, i: number): boolean {
  return (bitmap[i >> 3]! >> (i & 7) & 1) === 1;
}

/** A bitmap from booleans. */
export function bitmapOf(bits: readonly boolean[]): Uint8Array {
  const out = new Uint8Array(bitmapBytes(bits.length));
  bits.forEach((bit, i) => bit && (out[i >> 3]! |= 1 << (i & 7)));
  return out;
}

/** Whether a bitmap is of `count` bits, with none set behind them. */
export function isBitmap(bitmap: Uint8Array, count: number): boolean {
  if (bitmap.length !== bitmapBytes(count)) return false;
  return (count & 7) === 0 || bitmap[bitmap.length - 1]! >> (count & 7) === 0;
}
