/**
 * Certificates: more than two thirds of the frozen seats said the same. Anyone who has the table verifies one.
 *
 * @module
 */

import { concatBytes } from "../core/bytes.ts";
import { assert } from "../core/assert.ts";
import { bytes, type CborValue, type Reader, record, uint, WireError } from "../core/codec.ts";
import { verifySignature } from "../core/crypto.ts";
import { LIMITS } from "../core/limits.ts";
import {
  bitmapBytes,
  bitmapOf,
  bitOf,
  electorate,
  type Header,
  headerValue,
  instanceId,
  isBitmap,
  readHeader,
  ROUND_MAX,
  type Statement,
  statementBytes,
  type Verify,
} from "./statements.ts";
import { quorumSeats, totalSeats, VOTERS_MAX, type WeightTable } from "./weights.ts";

/** Signatures of several voters under one statement. */
export interface Signatures {
  /** One bit per voter of the electorate. */
  readonly signers: Uint8Array;
  /** 64 bytes each, in the order of the voters. */
  readonly signatures: Uint8Array;
}

/** Proof that a set was frozen in a round: no other one was. */
export interface FreezeCertificate extends Signatures {
  readonly round: number;
  /** Hash of the set. */
  readonly value: Uint8Array;
}

/** Proof of a decision, complete but for the table. */
export interface Certificate extends Signatures {
  readonly header: Header;
  readonly round: number;
  /** Hash of the frozen set; 32 zeros in a fast one. */
  readonly value: Uint8Array;
  /** One bit per operation: accepted or not. */
  readonly outcome: Uint8Array;
  /**
   * Hash of all openings of the set, 32 bytes: public randomness. Nobody knew it before the set was frozen, and no opening can be
   * kept out of it afterwards. 32 zeros in a fast one.
   */
  readonly beacon: Uint8Array;
}

/** What verifying a certificate says. */
export type CertificateVerdict =
  | { readonly ok: true; readonly seats: number; readonly of: number }
  | {
    readonly ok: false;
    readonly reason:
      /** Made under another table, or by somebody without a seat. */
      | "foreign-table"
      | "malformed"
      /** Not more than two thirds. */
      | "too-few"
      | "bad-signature";
  };

/** Joins signatures by voter. */
export function joinSignatures(count: number, byVoter: ReadonlyMap<number, Uint8Array>): Signatures {
  const voters = [...byVoter.keys()].sort((a, b) => a - b);
  return {
    signers: bitmapOf(Array.from({ length: count }, (_, i) => byVoter.has(i))),
    signatures: concatBytes(...voters.map((one) => byVoter.get(one)!)),
  };
}

/**
 * Checks signatures under one statement.
 *
 * @returns The seats of those who signed, or why it does not hold.
 */
export function checkSignatures(
  statement: Statement,
  { signers, signatures }: Signatures,
  options: {
    readonly table: WeightTable;
    readonly networkId: Uint8Array;
    readonly wantedSeats: number;
    readonly verify?: Verify;
  },
): number | "malformed" | "too-few" | "bad-signature" {
  const { table, networkId, verify = verifySignature } = options;
  if (!isBitmap(signers, table.voters.length)) return "malformed";
  const who = table.voters.flatMap((_, i) => bitOf(signers, i) ? [i] : []);
  if (signatures.length !== 64 * who.length) return "malformed";
  const seats = who.reduce((sum, i) => sum + table.voters[i]!.seats, 0);
  // Before any signature: what cannot suffice costs nothing.
  if (seats < options.wantedSeats) return "too-few";
  const message = statementBytes(statement, networkId);
  for (const [at, i] of who.entries()) {
    if (!verify(table.voters[i]!.publicKey, message, signatures.subarray(64 * at, 64 * at + 64))) {
      return "bad-signature";
    }
  }
  return seats;
}

/**
 * Verifies a decision with nothing but the table that it names: what a Hypha does.
 *
 * @param table The whole frozen table; a committee is drawn from it anew.
 */
export function verifyCertificate(
  certificate: Certificate,
  table: WeightTable,
  networkId: Uint8Array,
  verify: Verify = verifySignature,
): CertificateVerdict {
  const { header, round, value, outcome, beacon } = certificate;
  const voters = electorate(header, table, networkId);
  if (!voters) return { ok: false, reason: "foreign-table" };
  if (!isBitmap(outcome, header.count)) return { ok: false, reason: "malformed" };
  const instance = instanceId(header, networkId);
  const of = totalSeats(voters);
  const fast = header.class === "fast";
  if (fast && voters.voters.some((one, i) => bitOf(certificate.signers, i) !== (one.id === header.proposer))) {
    return { ok: false, reason: "malformed" };
  }
  // What a fast one does not sign must not vary.
  if (fast && (round !== 0 || !isZero(value) || !isZero(beacon))) return { ok: false, reason: "malformed" };
  const statement: Statement = fast
    ? { type: "fast", instance, outcome }
    : { type: "precommit", instance, round, value, outcome, beacon };
  const seats = checkSignatures(statement, certificate, {
    table: voters,
    networkId,
    wantedSeats: fast ? 1 : quorumSeats(of),
    verify,
  });
  return typeof seats === "number" ? { ok: true, seats, of } : { ok: false, reason: seats };
}

function isZero(hash: Uint8Array): boolean {
  return hash.every((byte) => byte === 0);
}

/** Whether a freeze certificate holds in an electorate. */
export function verifyFreeze(
  instance: Uint8Array,
  certificate: FreezeCertificate,
  options: { readonly table: WeightTable; readonly networkId: Uint8Array; readonly verify?: Verify },
): boolean {
  const statement: Statement = { type: "freeze", instance, round: certificate.round, value: certificate.value };
  const wantedSeats = quorumSeats(totalSeats(options.table));
  return typeof checkSignatures(statement, certificate, { ...options, wantedSeats }) === "number";
}

const signatureFields = {
  g: bytes({ max: bitmapBytes(VOTERS_MAX) }),
  z: bytes({ max: 64 * VOTERS_MAX }),
};
const readFreezeParts = record({ r: uint(ROUND_MAX), v: bytes({ length: 32 }), ...signatureFields });
const readCertificateParts = record({
  h: readHeader,
  r: uint(ROUND_MAX),
  v: bytes({ length: 32 }),
  o: bytes({ max: bitmapBytes(LIMITS.consensusBatchMax) }),
  b: bytes({ length: 32 }),
  ...signatureFields,
});

/** Reads a freeze certificate; says nothing about its signatures. */
export const readFreezeCertificate: Reader<FreezeCertificate> = (value, path) => {
  const parts = readFreezeParts(value, path);
  return { round: parts.r, value: parts.v, signers: parts.g, signatures: parts.z };
};

/** A freeze certificate as a value for `encodeCbor`. */
export function freezeCertificateValue(certificate: FreezeCertificate): CborValue {
  return { r: certificate.round, v: certificate.value, g: certificate.signers, z: certificate.signatures };
}

/** Reads a certificate; says nothing about its signatures. */
export const readCertificate: Reader<Certificate> = (value, path) => {
  const parts = readCertificateParts(value, path);
  if (!isBitmap(parts.o, parts.h.count)) {
    throw new WireError(`Cannot read ${path}: the outcome is not of its operations`);
  }
  const { h, r, v, o, b, g, z } = parts;
  return { header: h, round: r, value: v, outcome: o, beacon: b, signers: g, signatures: z };
};

/** A certificate as a value for `encodeCbor`. */
export function certificateValue(certificate: Certificate): CborValue {
  return {
    h: headerValue(certificate.header),
    r: certificate.round,
    v: certificate.value,
    o: certificate.outcome,
    b: certificate.beacon,
    g: certificate.signers,
    z: certificate.signatures,
  };
}

/** Who signed, by index. */
export function signersOf({ signers }: Signatures, table: WeightTable): readonly number[] {
  assert(isBitmap(signers, table.voters.length), "the signers were checked against this table");
  return table.voters.flatMap((_, i) => bitOf(signers, i) ? [i] : []);
}
