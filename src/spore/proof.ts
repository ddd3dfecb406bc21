/**
 * Proofs of rank: what lifts a spore record above the word of its author, for anybody with the authority chain.
 *
 * A statement "record H under key K has tier T, term, index, until U" is signed by issuers of one authority epoch:
 * by a majority of them for the Primary tier (they have it in their replicated state), by one for the Seed tier.
 *
 * @module
 */

import { array, bytes, type CborValue, encodeCbor, oneOf, type Reader, record, uint } from "../core/codec.ts";
import { equalBytes } from "../core/bytes.ts";
import { hashParts, type KeyPair, signBytes, verifySignature } from "../core/crypto.ts";
import { LIMITS } from "../core/limits.ts";
import { majority } from "../core/quorum.ts";

/** Where a record comes from; the later the higher. */
export type Tier = "latent" | "seed" | "primary";

/** Tiers from the lowest up. */
export const TIERS: readonly Tier[] = ["latent", "seed", "primary"];

/** What is signed of a record's rank. */
export interface RankStatement {
  readonly tier: "seed" | "primary";
  /** Raft term of the entry; 0 for the Seed tier. */
  readonly term: number;
  /** Raft index of the entry; for the Seed tier the number of the document. */
  readonly index: number;
  /** Number of the authority epoch whose issuers sign. */
  readonly epoch: number;
  /** From then on the proof counts no longer, milliseconds since the epoch. */
  readonly untilMs: number;
}

/** A statement with its signatures. */
export interface RankProof extends RankStatement {
  readonly signatures: readonly { readonly key: Uint8Array; readonly signature: Uint8Array }[];
}

const readProofParts = record({
  t: oneOf(["seed", "primary"]),
  m: uint(),
  i: uint(),
  e: uint(),
  u: uint(),
  s: array(record({ k: bytes({ length: 32 }), s: bytes({ length: 64 }) }), LIMITS.issuersMax),
});

/** Reads a proof from a decoded value. Says nothing about its signatures. */
export const readProof: Reader<RankProof> = (value, path) => {
  const read = readProofParts(value, path);
  return {
    tier: read.t,
    term: read.m,
    index: read.i,
    epoch: read.e,
    untilMs: read.u,
    signatures: read.s.map((one) => ({ key: one.k, signature: one.s })),
  };
};

/** A proof as a value for the codec. */
export function proofValue(proof: RankProof): CborValue {
  const { tier, term, index, epoch, untilMs, signatures } = proof;
  return {
    t: tier,
    m: term,
    i: index,
    e: epoch,
    u: untilMs,
    s: signatures.map((one) => ({ k: one.key, s: one.signature })),
  };
}

/** What a statement is about. */
export interface RankSubject {
  readonly networkId: Uint8Array;
  readonly key: string;
  /** Hash of the record, 32 bytes. */
  readonly hash: Uint8Array;
}

/** One issuer's signature over the rank of a record. */
export function signRank(
  subject: RankSubject,
  statement: RankStatement,
  issuer: KeyPair,
): RankProof["signatures"][number] {
  return { key: issuer.publicKey, signature: signBytes(issuer, statementBytes(subject, statement)) };
}

/** Whether one signature over the rank of a record is valid. */
export function verifyRankSignature(
  subject: RankSubject,
  statement: RankStatement,
  one: RankProof["signatures"][number],
): boolean {
  return verifySignature(one.key, statementBytes(subject, statement), one.signature);
}

/**
 * Whether a proof shows the rank that it states.
 *
 * @param issuers Issuers of the epoch that the proof names, from the authority chain; they must be distinct.
 */
export function verifyProof(subject: RankSubject, proof: RankProof, issuers: readonly Uint8Array[]): boolean {
  const wanted = proof.tier === "primary" ? majority(issuers.length) : 1;
  const signers = issuers.filter((issuer) =>
    proof.signatures.some((one) => equalBytes(one.key, issuer) && verifyRankSignature(subject, proof, one))
  );
  return issuers.length > 0 && signers.length >= wanted;
}

function statementBytes(subject: RankSubject, statement: RankStatement): Uint8Array {
  const { tier, term, index, epoch, untilMs } = statement;
  const value = encodeCbor({ k: subject.key, h: subject.hash, t: tier, m: term, i: index, e: epoch, u: untilMs });
  return hashParts("mycelium/spore-rank/v1", subject.networkId, value);
}
