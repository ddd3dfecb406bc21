/**
 * Proofs of faults, as nodes pass them on: evidence of the agreement, or two words of one author under one number. Whoever
 * gets one checks it; who shows it adds nothing.
 *
 * @module
 */

import { compareBytes, utf8 } from "../core/bytes.ts";
import { anything, type CborValue, decodeAs, encodeCbor, oneOf, record, WireError } from "../core/codec.ts";
import { hashParts } from "../core/crypto.ts";
import { type Envelope, envelopeValue, readEnvelope } from "../core/envelope.ts";
import { type Evidence, evidenceValue, headerOf, readEvidence, verifyEvidence } from "../consensus/evidence.ts";
import { instanceId } from "../consensus/statements.ts";
import type { WeightTable } from "../consensus/weights.ts";
import { openSpore } from "../spore/record.ts";
import { type Equivocation, equivocationOf } from "../spore/validation.ts";
import type { Offence, OffenceKind } from "../trust/offence.ts";

/** What shows a fault. */
export type Proof =
  | { readonly type: "vote"; readonly evidence: Evidence }
  | { readonly type: "words"; readonly a: Envelope; readonly b: Envelope };

/** What checking a proof needs. */
export interface ProofFacts {
  readonly networkId: Uint8Array;
  /** The table with this hash, where this node knows it. */
  table(hash: Uint8Array): WeightTable | undefined;
}

/** What checking a proof says. `unknown`: not before the table of its instance is known. */
export type ProofVerdict =
  | { readonly ok: true; readonly offence: Offence }
  | { readonly ok: false; readonly reason: "unknown" | "invalid" };

/** Longest proof, bytes: evidence of a hundred voters with two certificates. */
export const PROOF_BYTES_MAX: number = 32 << 10;

const readProof = record({ t: oneOf(["vote", "words"]), e: anything });
const readWords = record({ a: readEnvelope, b: readEnvelope });

/** A proof as bytes: one proof has one form, and one hash. */
export function encodeProof(proof: Proof): Uint8Array {
  const value: CborValue = proof.type === "vote"
    ? { t: proof.type, e: evidenceValue(proof.evidence) }
    : { t: proof.type, e: { a: envelopeValue(proof.a), b: envelopeValue(proof.b) } };
  return encodeCbor(value);
}

/** The proof that two words give. */
export function proofOfWords({ words: [a, b] }: Equivocation): Proof {
  return { type: "words", a: a.envelope, b: b.envelope };
}

/** Reads a proof; says nothing about what it shows. @throws {WireError} */
export function decodeProof(bytes: Uint8Array): Proof {
  const { t, e } = decodeAs(bytes, readProof, PROOF_BYTES_MAX);
  if (t === "vote") return { type: t, evidence: readEvidence(e, "proof") };
  const { a, b } = readWords(e, "proof");
  return { type: t, a, b };
}

/** Reads and checks a proof. Never throws, whatever stands in it. The same on every node that knows the table. */
export function checkProof(bytes: Uint8Array, facts: ProofFacts): ProofVerdict {
  let proof: Proof;
  try {
    proof = decodeProof(bytes);
    // Another spelling would be another hash of the same proof.
    if (compareBytes(encodeProof(proof), bytes) !== 0) return { ok: false, reason: "invalid" };
    return proof.type === "vote" ? checkVote(proof.evidence, facts) : checkWords(proof.a, proof.b, facts.networkId);
  } catch (error) {
    if (!(error instanceof WireError)) throw error;
    return { ok: false, reason: "invalid" };
  }
}

const KINDS: Readonly<Record<"safety" | "vote" | "liveness", OffenceKind>> = {
  safety: "safety",
  vote: "vote",
  liveness: "withheld",
};

function checkVote(evidence: Evidence, { networkId, table }: ProofFacts): ProofVerdict {
  const header = headerOf(evidence);
  const known = table(header.table);
  if (!known) return { ok: false, reason: "unknown" };
  const verdict = verifyEvidence(evidence, known, networkId);
  if (!verdict.ok) return { ok: false, reason: "invalid" };
  const kind = KINDS[verdict.fault];
  // Two proposals have two instances: the place is what they share.
  const place = evidence.type === "two-proposals"
    ? encodeCbor([header.table, header.proposer, header.seq])
    : instanceId(header, networkId);
  return {
    ok: true,
    offence: { id: deed(kind, verdict.voter, place), nodeId: verdict.voter, kind, atMs: header.expiresMs },
  };
}

/** @throws {WireError} Where one of them is not validly signed. */
function checkWords(a: Envelope, b: Envelope, networkId: Uint8Array): ProofVerdict {
  const pair = equivocationOf(openSpore(a, networkId), openSpore(b, networkId));
  if (!pair) return { ok: false, reason: "invalid" };
  const place = encodeCbor([pair.key, pair.seq]);
  const atMs = Math.max(...pair.words.map((one) => one.record.issuedMs));
  return { ok: true, offence: { id: deed("words", pair.author, place), nodeId: pair.author, kind: "words", atMs } };
}

/** Names what was done, whatever shows it. */
function deed(kind: OffenceKind, nodeId: string, place: Uint8Array): Uint8Array {
  return hashParts("mycelium/trust/deed/v1", utf8(kind), utf8(nodeId), place).subarray(0, 16);
}

/** One line about a proof, for people. */
export function describeProof(bytes: Uint8Array): string {
  const proof = decodeProof(bytes);
  if (proof.type === "words") return "two signed records under one number";
  const { evidence } = proof;
  const header = headerOf(evidence);
  return `${evidence.type} in ${header.class} instance ${header.seq} of its proposer`;
}
