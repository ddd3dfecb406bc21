/**
 * Evidence: what anyone who has the table can check against a voter, without trusting who shows it.
 *
 * @module
 */

import { equalBytes } from "../core/bytes.ts";
import { array, bytes, type CborValue, oneOf, type Reader, record, uint, WireError } from "../core/codec.ts";
import { verifySignature } from "../core/crypto.ts";
import { LIMITS } from "../core/limits.ts";
import {
  type Certificate,
  certificateValue,
  checkSignatures,
  readCertificate,
  verifyCertificate,
} from "./certificate.ts";
import { type CommitmentPlace, openCommitment, recoverNonce, shareFits } from "./commitment.ts";
import { type SignedCommitment, signedCommitmentReader, signedCommitmentValue } from "./messages.ts";
import { SECRET_BYTES, SHARES_MAX } from "./sharing.ts";
import {
  bitmapBytes,
  electorate,
  type Header,
  headerValue,
  instanceId,
  isStatedBy,
  readHeader,
  ROUND_MAX,
  type Statement,
  statementBytes,
  type Verify,
} from "./statements.ts";
import { quorumSeats, totalSeats, VOTERS_MAX, type WeightTable } from "./weights.ts";

/** A vote that was signed: freeze or precommit. */
export type SignedVote =
  | { readonly type: "freeze"; readonly round: number; readonly value: Uint8Array; readonly signature: Uint8Array }
  | {
    readonly type: "precommit";
    readonly round: number;
    readonly value: Uint8Array;
    readonly outcome: Uint8Array;
    readonly beacon: Uint8Array;
    readonly signature: Uint8Array;
  };

/** What a voter has done wrong, with the proof. */
export type Evidence =
  /** Two proposals under one number. */
  | {
    readonly type: "two-proposals";
    readonly a: { readonly header: Header; readonly signature: Uint8Array };
    readonly b: { readonly header: Header; readonly signature: Uint8Array };
  }
  /** Two commitments in one round. */
  | {
    readonly type: "two-commitments";
    readonly header: Header;
    readonly a: SignedCommitment;
    readonly b: SignedCommitment;
  }
  /** Two freeze votes, or two precommits, in one round. */
  | {
    readonly type: "two-votes";
    readonly header: Header;
    readonly voter: number;
    readonly a: SignedVote;
    readonly b: SignedVote;
  }
  /** Shares that fit their hashes and give no opening. */
  | {
    readonly type: "bad-dealing";
    readonly header: Header;
    readonly commitment: SignedCommitment;
    readonly shares: readonly { readonly holder: number; readonly shares: Uint8Array }[];
  }
  /** Opened something else than what was decided. */
  | {
    readonly type: "wrong-vote";
    readonly certificate: Certificate;
    readonly commitment: SignedCommitment;
    readonly nonce: Uint8Array;
  }
  /** More than two thirds have not seen the opening in time. */
  | {
    readonly type: "withheld";
    readonly header: Header;
    readonly value: Uint8Array;
    readonly voter: number;
    readonly signers: Uint8Array;
    readonly signatures: Uint8Array;
  }
  /** Signed alone what a committee decided otherwise. */
  | { readonly type: "wrong-fast"; readonly fast: Certificate; readonly audit: Certificate };

/**
 * How heavy. A safety fault never happens to an honest node. A wrong vote happens to one only where more than f lie, or where
 * the verification is not deterministic. A liveness fault may be the network's.
 */
export type FaultKind = "safety" | "vote" | "liveness";

/** What checking evidence says. */
export type EvidenceVerdict =
  | { readonly ok: true; readonly voter: string; readonly fault: FaultKind }
  | { readonly ok: false };

const NOT_PROVED: EvidenceVerdict = { ok: false };

/** Checks evidence against the table that it names. Never throws, whatever stands in it. */
export function verifyEvidence(
  evidence: Evidence,
  table: WeightTable,
  networkId: Uint8Array,
  verify: Verify = verifySignature,
): EvidenceVerdict {
  const header = headerOf(evidence);
  const voters = electorate(header, table, networkId);
  if (!voters) return NOT_PROVED;
  const instance = instanceId(header, networkId);
  const stated = (statement: Statement, signature: Uint8Array, voter: number) => {
    const key = voters.voters[voter]?.publicKey;
    return key !== undefined && isStatedBy(statement, signature, key, networkId, verify);
  };
  const against = (voter: number, fault: FaultKind): EvidenceVerdict => ({
    ok: true,
    voter: voters.voters[voter]!.id,
    fault,
  });
  const placeOf = ({ voter, statement }: SignedCommitment): CommitmentPlace => ({
    networkId,
    instance,
    round: statement.round,
    voter,
    electorate: voters,
  });
  const committed = (one: SignedCommitment) =>
    equalBytes(one.statement.instance, instance) && stated(one.statement, one.signature, one.voter);
  switch (evidence.type) {
    case "two-proposals": {
      const { a, b } = evidence;
      const other = instanceId(b.header, networkId);
      const samePlace = equalBytes(header.table, b.header.table) && header.proposer === b.header.proposer &&
        header.seq === b.header.seq;
      if (!samePlace || equalBytes(instance, other)) return NOT_PROVED;
      const key = table.voters.find((one) => one.id === header.proposer)!.publicKey;
      const signed = isStatedBy({ type: "proposal", instance }, a.signature, key, networkId, verify) &&
        isStatedBy({ type: "proposal", instance: other }, b.signature, key, networkId, verify);
      return signed ? { ok: true, voter: header.proposer, fault: "safety" } : NOT_PROVED;
    }
    case "two-commitments": {
      const { a, b } = evidence;
      if (a.voter !== b.voter || a.statement.round !== b.statement.round) return NOT_PROVED;
      const same = equalBytes(statementBytes(a.statement, networkId), statementBytes(b.statement, networkId));
      return !same && committed(a) && committed(b) ? against(a.voter, "safety") : NOT_PROVED;
    }
    case "two-votes": {
      const { a, b, voter } = evidence;
      const [first, second] = [voteStatement(a, instance), voteStatement(b, instance)];
      if (a.type !== b.type || a.round !== b.round || sameVote(a, b)) return NOT_PROVED;
      return stated(first, a.signature, voter) && stated(second, b.signature, voter)
        ? against(voter, "safety")
        : NOT_PROVED;
    }
    case "bad-dealing": {
      const { commitment, shares } = evidence;
      if (!committed(commitment)) return NOT_PROVED;
      const place = placeOf(commitment);
      const fitting = new Map(shares.map((one) => [one.holder, one.shares]));
      for (const [holder, one] of fitting) {
        if (!shareFits(place, commitment.statement, holder, one)) return NOT_PROVED;
      }
      const nonce = recoverNonce(voters, fitting);
      return nonce && !openCommitment(place, commitment.statement, nonce, header.count)
        ? against(commitment.voter, "safety")
        : NOT_PROVED;
    }
    case "wrong-vote": {
      const { certificate, commitment, nonce } = evidence;
      if (header.class === "fast" || !committed(commitment)) return NOT_PROVED;
      if (!verifyCertificate(certificate, table, networkId, verify).ok) return NOT_PROVED;
      const vote = openCommitment(placeOf(commitment), commitment.statement, nonce, header.count);
      return vote && !equalBytes(vote, certificate.outcome) ? against(commitment.voter, "vote") : NOT_PROVED;
    }
    case "withheld": {
      const { voter, value } = evidence;
      if (voter >= voters.voters.length) return NOT_PROVED;
      const seats = checkSignatures({ type: "withheld", instance, value, voter }, evidence, {
        table: voters,
        networkId,
        wantedSeats: quorumSeats(totalSeats(voters)),
        verify,
      });
      return typeof seats === "number" ? against(voter, "liveness") : NOT_PROVED;
    }
    case "wrong-fast": {
      const { fast, audit } = evidence;
      const proved = fast.header.class === "fast" && audit.header.class !== "fast" &&
        equalBytes(fast.header.operations, audit.header.operations) && fast.header.count === audit.header.count &&
        !equalBytes(fast.outcome, audit.outcome) &&
        verifyCertificate(fast, table, networkId, verify).ok && verifyCertificate(audit, table, networkId, verify).ok;
      return proved ? { ok: true, voter: header.proposer, fault: "vote" } : NOT_PROVED;
    }
  }
}

/** The header whose table the evidence is to be checked against. */
export function headerOf(evidence: Evidence): Header {
  switch (evidence.type) {
    case "two-proposals":
      return evidence.a.header;
    case "wrong-vote":
      return evidence.certificate.header;
    case "wrong-fast":
      return evidence.fast.header;
    default:
      return evidence.header;
  }
}

/** A vote as the statement that was signed. */
export function voteStatement(vote: SignedVote, instance: Uint8Array): Statement {
  const { round, value } = vote;
  return vote.type === "freeze"
    ? { type: "freeze", instance, round, value }
    : { type: "precommit", instance, round, value, outcome: vote.outcome, beacon: vote.beacon };
}

/** Whether two votes say the same. */
export function sameVote(a: SignedVote, b: SignedVote): boolean {
  if (a.type !== b.type || a.round !== b.round || !equalBytes(a.value, b.value)) return false;
  if (a.type === "freeze" || b.type === "freeze") return true;
  return equalBytes(a.outcome, b.outcome) && equalBytes(a.beacon, b.beacon);
}

const TYPES = [
  "two-proposals",
  "two-commitments",
  "two-votes",
  "bad-dealing",
  "wrong-vote",
  "withheld",
  "wrong-fast",
] as const;
const hash32 = bytes({ length: 32 });
const signature64 = bytes({ length: 64 });
const voterIndex = uint(VOTERS_MAX - 1);
const readType = record({ t: oneOf(TYPES) });
const signedHeader = record({ h: readHeader, g: signature64 });
const twoProposals = record({ a: signedHeader, b: signedHeader });
const withHeader = record({ h: readHeader, i: hash32 });
const votePart = record({
  t: oneOf(["freeze", "precommit"]),
  r: uint(ROUND_MAX),
  v: hash32,
  o: bytes({ max: bitmapBytes(LIMITS.consensusBatchMax) }),
  b: bytes({ max: 32 }),
  g: signature64,
});
const readVote: Reader<SignedVote> = (value, path) => {
  const { t, r, v, o, b, g } = votePart(value, path);
  if (t === "precommit") {
    if (b.length !== 32) throw new WireError(`Cannot read ${path}: a precommit has a beacon of 32 bytes`);
    return { type: t, round: r, value: v, outcome: o, beacon: b, signature: g };
  }
  if (o.length + b.length > 0) throw new WireError(`Cannot read ${path}: a freeze vote has no outcome`);
  return { type: t, round: r, value: v, signature: g };
};
const twoVotes = record({ w: voterIndex, a: readVote, b: readVote });
const holderShares = record({ w: voterIndex, s: bytes({ max: SHARES_MAX * SECRET_BYTES }) });
const withheld = record({
  v: hash32,
  w: voterIndex,
  g: bytes({ max: bitmapBytes(VOTERS_MAX) }),
  z: bytes({ max: 64 * VOTERS_MAX }),
});
const wrongFast = record({ a: readCertificate, b: readCertificate });

/** Reads evidence; says nothing about what it proves. */
export const readEvidence: Reader<Evidence> = (value, path) => {
  const type = readType(value, path).t;
  switch (type) {
    case "two-proposals": {
      const { a, b } = twoProposals(value, path);
      return { type, a: { header: a.h, signature: a.g }, b: { header: b.h, signature: b.g } };
    }
    case "two-commitments": {
      const { h, i } = withHeader(value, path);
      const { a, b } = record({ a: signedCommitmentReader(i), b: signedCommitmentReader(i) })(value, path);
      return { type, header: h, a, b };
    }
    case "two-votes": {
      const { w, a, b } = twoVotes(value, path);
      return { type, header: record({ h: readHeader })(value, path).h, voter: w, a, b };
    }
    case "bad-dealing": {
      const { h, i } = withHeader(value, path);
      const { c, s } = record({ c: signedCommitmentReader(i), s: array(holderShares, VOTERS_MAX) })(value, path);
      return {
        type,
        header: h,
        commitment: c,
        shares: s.map((one) => ({ holder: one.w, shares: one.s })),
      };
    }
    case "wrong-vote": {
      const { d, i } = record({ d: readCertificate, i: hash32 })(value, path);
      const { c, n } = record({ c: signedCommitmentReader(i), n: hash32 })(value, path);
      return { type, certificate: d, commitment: c, nonce: n };
    }
    case "withheld": {
      const { v, w, g, z } = withheld(value, path);
      return {
        type,
        header: record({ h: readHeader })(value, path).h,
        value: v,
        voter: w,
        signers: g,
        signatures: z,
      };
    }
    case "wrong-fast": {
      const { a, b } = wrongFast(value, path);
      return { type, fast: a, audit: b };
    }
  }
};

/** Evidence as a value for `encodeCbor`. */
export function evidenceValue(evidence: Evidence): CborValue {
  const t = evidence.type;
  switch (evidence.type) {
    case "two-proposals": {
      const part = (one: { readonly header: Header; readonly signature: Uint8Array }) => ({
        h: headerValue(one.header),
        g: one.signature,
      });
      return { t, a: part(evidence.a), b: part(evidence.b) };
    }
    case "two-commitments":
      return {
        t,
        h: headerValue(evidence.header),
        i: evidence.a.statement.instance,
        a: signedCommitmentValue(evidence.a),
        b: signedCommitmentValue(evidence.b),
      };
    case "two-votes":
      return {
        t,
        h: headerValue(evidence.header),
        w: evidence.voter,
        a: voteValue(evidence.a),
        b: voteValue(evidence.b),
      };
    case "bad-dealing":
      return {
        t,
        h: headerValue(evidence.header),
        i: evidence.commitment.statement.instance,
        c: signedCommitmentValue(evidence.commitment),
        s: evidence.shares.map(({ holder, shares }) => ({ w: holder, s: shares })),
      };
    case "wrong-vote":
      return {
        t,
        d: certificateValue(evidence.certificate),
        i: evidence.commitment.statement.instance,
        c: signedCommitmentValue(evidence.commitment),
        n: evidence.nonce,
      };
    case "withheld":
      return {
        t,
        h: headerValue(evidence.header),
        v: evidence.value,
        w: evidence.voter,
        g: evidence.signers,
        z: evidence.signatures,
      };
    case "wrong-fast":
      return { t, a: certificateValue(evidence.fast), b: certificateValue(evidence.audit) };
  }
}

function voteValue(vote: SignedVote): CborValue {
  return {
    t: vote.type,
    r: vote.round,
    v: vote.value,
    o: vote.type === "precommit" ? vote.outcome : new Uint8Array(0),
    b: vote.type === "precommit" ? vote.beacon : new Uint8Array(0),
    g: vote.signature,
  };
}
