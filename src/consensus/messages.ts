/**
 * What nodes say to each other about an instance: types, encodings, readers.
 *
 * The channel says who sent a message, so none carries its sender. What comes from outside goes through
 * {@linkcode decodeMessage} once; a bad input gives a `WireError` and nothing else.
 *
 * @module
 */

import {
  array,
  bytes,
  type CborValue,
  decodeCbor,
  encodeCbor,
  optional,
  type Reader,
  record,
  uint,
  WireError,
} from "../core/codec.ts";
import { hashParts } from "../core/crypto.ts";
import { LIMITS } from "../core/limits.ts";
import {
  type Certificate,
  certificateValue,
  type FreezeCertificate,
  freezeCertificateValue,
  readCertificate,
  readFreezeCertificate,
} from "./certificate.ts";
import type { Commitment } from "./commitment.ts";
import { SECRET_BYTES, SHARES_MAX } from "./sharing.ts";
import { bitmapBytes, type Proposal, proposalValue, readProposal, ROUND_MAX, SHARE_HASH_BYTES } from "./statements.ts";
import { VOTERS_MAX } from "./weights.ts";

/** A commitment with its maker and the maker's signature. */
export interface SignedCommitment {
  /** Index in the electorate. */
  readonly voter: number;
  readonly statement: Commitment;
  readonly signature: Uint8Array;
}

/** A set of commitments of one round: what is frozen, and what fixes the tally. */
export interface FrozenSet {
  /** The round in which they were made; a later one may carry them. */
  readonly round: number;
  /** Ascending by voter, each once. */
  readonly entries: readonly { readonly voter: number; readonly digest: Uint8Array }[];
}

/** A set that was frozen, with all its openings: what a locked voter shows, and a later leader carries. */
export interface OpenedSet {
  readonly certificate: FreezeCertificate;
  readonly set: FrozenSet;
  readonly commitments: readonly SignedCommitment[];
  /** Nonce of each entry, in their order. */
  readonly nonces: readonly Uint8Array[];
}

/** A message about one instance. */
export type ConsensusMessage =
  | { readonly type: "propose"; readonly proposal: Proposal }
  /** The sender is in this round and has committed. `shares` are the receiver's, missing where the commitment is passed on. */
  | {
    readonly type: "commit";
    readonly instance: Uint8Array;
    readonly commitment: SignedCommitment;
    readonly shares: Uint8Array | undefined;
  }
  /** The sender is in this round and knows an opened set: it commits to nothing new. */
  | { readonly type: "lock"; readonly instance: Uint8Array; readonly round: number; readonly opened: OpenedSet }
  /** The leader names the set to be frozen. */
  | {
    readonly type: "freeze-request";
    readonly instance: Uint8Array;
    readonly round: number;
    readonly set: FrozenSet;
    readonly carried: OpenedSet | undefined;
  }
  | {
    readonly type: "freeze-vote";
    readonly instance: Uint8Array;
    readonly round: number;
    readonly value: Uint8Array;
    readonly signature: Uint8Array;
  }
  /** The leader shows that the set is frozen: open. */
  | {
    readonly type: "frozen";
    readonly instance: Uint8Array;
    readonly certificate: FreezeCertificate;
    readonly set: FrozenSet;
  }
  /** An opening, its voter's own or passed on: it proves itself against the commitment. */
  | {
    readonly type: "open";
    readonly instance: Uint8Array;
    readonly value: Uint8Array;
    readonly voter: number;
    readonly nonce: Uint8Array;
  }
  /** A dealer has not opened in time: the sender's shares of its nonce, and its word for it. */
  | {
    readonly type: "share";
    readonly instance: Uint8Array;
    readonly value: Uint8Array;
    readonly dealer: number;
    readonly shares: Uint8Array;
    readonly signature: Uint8Array;
  }
  | {
    readonly type: "precommit";
    readonly instance: Uint8Array;
    readonly round: number;
    readonly value: Uint8Array;
    readonly outcome: Uint8Array;
    readonly beacon: Uint8Array;
    readonly signature: Uint8Array;
  }
  /** Commitments of these voters of this round are missing here, or, where `shares` lack, cannot be voted for. */
  | {
    readonly type: "missing";
    readonly instance: Uint8Array;
    readonly round: number;
    /** One bit per voter: no commitment. */
    readonly commitments: Uint8Array;
    /** One bit per voter: no share that fits. */
    readonly shares: Uint8Array;
  }
  /** What this instance is about is unknown here: send the proposal. */
  | { readonly type: "unknown"; readonly instance: Uint8Array }
  | { readonly type: "decided"; readonly certificate: Certificate };

/** Names of all messages. */
export type MessageType = ConsensusMessage["type"];

/** Hash of the openings of a set, in its order, 32 bytes: the same for all who have opened it. */
export function beaconOf(nonces: readonly Uint8Array[], instance: Uint8Array): Uint8Array {
  return hashParts("mycelium/consensus/beacon/v1", instance, ...nonces);
}

/** Hash of a set, 32 bytes: the value that rounds agree on. */
export function setHash(set: FrozenSet, instance: Uint8Array): Uint8Array {
  return hashParts("mycelium/consensus/value/v1", instance, encodeCbor(setValue(set)));
}

/** Encodes a message. */
export function encodeMessage(message: ConsensusMessage): Uint8Array {
  return encodeCbor(messageValue(message));
}

/**
 * Decodes a message.
 *
 * @throws {WireError} When the bytes are anything else.
 */
export function decodeMessage(input: Uint8Array): ConsensusMessage {
  const value = decodeCbor(input, LIMITS.frameBytesMax);
  const code = readCode(value, "$").m;
  const type = CODES[code];
  if (type === undefined) throw new WireError(`Cannot read $.m: no message has the code ${code}`);
  return READERS[type](value, "$");
}

/** Order is the wire format: only append. */
const CODES: readonly MessageType[] = [
  "propose",
  "commit",
  "lock",
  "freeze-request",
  "freeze-vote",
  "frozen",
  "open",
  "share",
  "precommit",
  "missing",
  "unknown",
  "decided",
];
const readCode = record({ m: uint(255) });

const hash32 = bytes({ length: 32 });
const signature64 = bytes({ length: 64 });
const round = uint(ROUND_MAX);
const voterIndex = uint(VOTERS_MAX - 1);
const voterBits = bytes({ max: bitmapBytes(VOTERS_MAX) });
const operationBits = bytes({ max: bitmapBytes(LIMITS.consensusBatchMax) });
const sharesBytes = bytes({ max: SHARES_MAX * SECRET_BYTES });

const commitmentParts = record({
  w: voterIndex,
  r: round,
  c: hash32,
  s: operationBits,
  h: bytes({ max: VOTERS_MAX * SHARE_HASH_BYTES }),
  g: signature64,
});

/** Reads a signed commitment of an instance; says nothing about its signature. */
export function signedCommitmentReader(instance: Uint8Array): Reader<SignedCommitment> {
  return (value, path) => {
    const parts = commitmentParts(value, path);
    return {
      voter: parts.w,
      statement: {
        type: "commitment",
        instance,
        round: parts.r,
        commitment: parts.c,
        sealed: parts.s,
        shareHashes: parts.h,
      },
      signature: parts.g,
    };
  };
}

/** A signed commitment as a value for `encodeCbor`; its instance stands beside it. */
export function signedCommitmentValue(one: SignedCommitment): CborValue {
  const { round, commitment, sealed, shareHashes } = one.statement;
  return { w: one.voter, r: round, c: commitment, s: sealed, h: shareHashes, g: one.signature };
}

const setParts = record({
  r: round,
  e: array((value, path) => {
    const [voter, digest] = array((one) => one, 2)(value, path);
    return { voter: voterIndex(voter, `${path}.voter`), digest: hash32(digest, `${path}.digest`) };
  }, VOTERS_MAX),
});

/** Reads a set: voters ascending. */
export const readSet: Reader<FrozenSet> = (value, path) => {
  const parts = setParts(value, path);
  parts.e.forEach(({ voter }, i) => {
    if (i > 0 && parts.e[i - 1]!.voter >= voter) throw new WireError(`Cannot read ${path}: voters do not ascend`);
  });
  return { round: parts.r, entries: parts.e };
};

/** A set as a value for `encodeCbor`. */
export function setValue(set: FrozenSet): CborValue {
  return { r: set.round, e: set.entries.map((one) => [one.voter, one.digest]) };
}

/** Reads an opened set of an instance; says nothing about what it proves. */
export function openedReader(instance: Uint8Array): Reader<OpenedSet> {
  const parts = record({
    f: readFreezeCertificate,
    s: readSet,
    c: array(signedCommitmentReader(instance), VOTERS_MAX),
    n: array(hash32, VOTERS_MAX),
  });
  return (value, path) => {
    const { f, s, c, n } = parts(value, path);
    return { certificate: f, set: s, commitments: c, nonces: n };
  };
}

/** An opened set as a value for `encodeCbor`. */
export function openedValue(opened: OpenedSet): CborValue {
  return {
    f: freezeCertificateValue(opened.certificate),
    s: setValue(opened.set),
    c: opened.commitments.map(signedCommitmentValue),
    n: [...opened.nonces],
  };
}

const instanceOf = record({ i: hash32 });

/** A reader that is told the instance of its message first. */
function within<T>(make: (instance: Uint8Array) => Reader<T>): Reader<T> {
  return (value, path) => make(instanceOf(value, path).i)(value, path);
}

const proposeParts = record({ p: readProposal });
const decidedParts = record({ d: readCertificate });
const freezeVoteParts = record({ i: hash32, r: round, v: hash32, g: signature64 });
const frozenParts = record({ i: hash32, f: readFreezeCertificate, s: readSet });
const openParts = record({ i: hash32, v: hash32, w: voterIndex, n: hash32 });
const shareParts = record({ i: hash32, v: hash32, d: voterIndex, s: sharesBytes, g: signature64 });
const precommitParts = record({ i: hash32, r: round, v: hash32, o: operationBits, b: hash32, g: signature64 });
const missingParts = record({ i: hash32, r: round, c: voterBits, s: voterBits });

const READERS: { readonly [T in MessageType]: Reader<Extract<ConsensusMessage, { readonly type: T }>> } = {
  propose: (value, path) => ({ type: "propose", proposal: proposeParts(value, path).p }),
  commit: within((instance) => {
    const parts = record({ c: signedCommitmentReader(instance), s: optional(sharesBytes) });
    return (value, path) => {
      const { c, s } = parts(value, path);
      return { type: "commit", instance, commitment: c, shares: s };
    };
  }),
  lock: within((instance) => {
    const parts = record({ r: round, k: openedReader(instance) });
    return (value, path) => {
      const { r, k } = parts(value, path);
      return { type: "lock", instance, round: r, opened: k };
    };
  }),
  "freeze-request": within((instance) => {
    const parts = record({ r: round, s: readSet, k: optional(openedReader(instance)) });
    return (value, path) => {
      const { r, s, k } = parts(value, path);
      return { type: "freeze-request", instance, round: r, set: s, carried: k };
    };
  }),
  "freeze-vote": (value, path) => {
    const { i, r, v, g } = freezeVoteParts(value, path);
    return { type: "freeze-vote", instance: i, round: r, value: v, signature: g };
  },
  frozen: (value, path) => {
    const { i, f, s } = frozenParts(value, path);
    return { type: "frozen", instance: i, certificate: f, set: s };
  },
  open: (value, path) => {
    const { i, v, w, n } = openParts(value, path);
    return { type: "open", instance: i, value: v, voter: w, nonce: n };
  },
  share: (value, path) => {
    const { i, v, d, s, g } = shareParts(value, path);
    return { type: "share", instance: i, value: v, dealer: d, shares: s, signature: g };
  },
  precommit: (value, path) => {
    const { i, r, v, o, b, g } = precommitParts(value, path);
    return { type: "precommit", instance: i, round: r, value: v, outcome: o, beacon: b, signature: g };
  },
  missing: (value, path) => {
    const { i, r, c, s } = missingParts(value, path);
    return { type: "missing", instance: i, round: r, commitments: c, shares: s };
  },
  unknown: (value, path) => ({ type: "unknown", instance: instanceOf(value, path).i }),
  decided: (value, path) => ({ type: "decided", certificate: decidedParts(value, path).d }),
};

function messageValue(message: ConsensusMessage): CborValue {
  const m = CODES.indexOf(message.type);
  switch (message.type) {
    case "propose":
      return { m, p: proposalValue(message.proposal) };
    case "commit":
      return { m, i: message.instance, c: signedCommitmentValue(message.commitment), s: message.shares };
    case "lock":
      return { m, i: message.instance, r: message.round, k: openedValue(message.opened) };
    case "freeze-request":
      return {
        m,
        i: message.instance,
        r: message.round,
        s: setValue(message.set),
        k: message.carried && openedValue(message.carried),
      };
    case "freeze-vote":
      return { m, i: message.instance, r: message.round, v: message.value, g: message.signature };
    case "frozen":
      return { m, i: message.instance, f: freezeCertificateValue(message.certificate), s: setValue(message.set) };
    case "open":
      return { m, i: message.instance, v: message.value, w: message.voter, n: message.nonce };
    case "share":
      return { m, i: message.instance, v: message.value, d: message.dealer, s: message.shares, g: message.signature };
    case "precommit":
      return {
        m,
        i: message.instance,
        r: message.round,
        v: message.value,
        o: message.outcome,
        b: message.beacon,
        g: message.signature,
      };
    case "missing":
      return { m, i: message.instance, r: message.round, c: message.commitments, s: message.shares };
    case "unknown":
      return { m, i: message.instance };
    case "decided":
      return { m, d: certificateValue(message.certificate) };
  }
}
