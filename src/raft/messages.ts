/**
 * What Raft nodes say to each other, and what they store: types, encoders, readers.
 *
 * The channel says who sent a message, so none carries its sender. What comes from outside goes through
 * {@linkcode decodeMessage} once; a bad input gives a `WireError` and nothing else.
 *
 * @module
 */

import {
  array,
  bool,
  bytes,
  type CborValue,
  decodeCbor,
  encodeCbor,
  optional,
  type Reader,
  record,
  text,
  uint,
  WireError,
} from "../core/codec.ts";
import { LIMITS } from "../core/limits.ts";
import { type ClusterConfig, configToCbor, readConfig } from "./config.ts";

/** Largest term and index. Leaves room to count on from any of them. */
export const INDEX_MAX = 2 ** 52;
/** Most entries in one append. */
export const APPEND_ENTRIES_MAX = LIMITS.raftAppendEntriesMax;
/** Largest data of one entry, bytes: with its framing it fits one frame. */
export const ENTRY_BYTES_MAX = LIMITS.raftEntryBytesMax;
/** Largest snapshot, bytes. */
export const SNAPSHOT_BYTES_MAX = LIMITS.raftSnapshotBytesMax;

/** One place of the log. A `noop` is what a new leader writes first; a `config` takes effect when it is appended. */
export type Entry =
  | { readonly kind: "data"; readonly term: number; readonly index: number; readonly data: Uint8Array }
  | { readonly kind: "noop"; readonly term: number; readonly index: number }
  | { readonly kind: "config"; readonly term: number; readonly index: number; readonly config: ClusterConfig };

/** What must survive a crash besides log and snapshot. */
export interface HardState {
  /** Latest term that this node has seen; 0 at first. */
  readonly term: number;
  /** Who got its vote in that term. */
  readonly votedFor: string | undefined;
}

/** What a snapshot stands for, without the state itself. */
export interface SnapshotMeta {
  /** Last entry that it contains. */
  readonly index: number;
  readonly term: number;
  /** The configuration as of that entry. */
  readonly config: ClusterConfig;
  readonly sizeBytes: number;
  /** SHA-256 of the data: two leaders' snapshots of one index need not have the same bytes. */
  readonly digest: Uint8Array;
}

/** The state up to an index, in place of the log. */
export interface Snapshot {
  readonly meta: SnapshotMeta;
  readonly data: Uint8Array;
}

/** A message from node to node. `term` is the sender's, but for `pre-vote` and its granted answer: the one that would be. */
export type RaftMessage =
  | {
    readonly type: "pre-vote" | "vote";
    readonly term: number;
    readonly lastLogIndex: number;
    readonly lastLogTerm: number;
    /** The leader asked for this election: whoever hears from it need not protect it (thesis, 3.10 and 4.2.3). */
    readonly transfer: boolean;
  }
  | { readonly type: "pre-vote-response" | "vote-response"; readonly term: number; readonly granted: boolean }
  | {
    readonly type: "append";
    readonly term: number;
    readonly prevLogIndex: number;
    readonly prevLogTerm: number;
    readonly entries: readonly Entry[];
    readonly commitIndex: number;
  }
  /** The log agrees with the leader's up to `index`. */
  | { readonly type: "append-response"; readonly term: number; readonly index: number }
  /** There is no entry `index` of the term asked for; what is there that could agree is at most `hintIndex`, of `hintTerm`. */
  | {
    readonly type: "append-reject";
    readonly term: number;
    readonly index: number;
    readonly hintIndex: number;
    readonly hintTerm: number;
  }
  | { readonly type: "heartbeat"; readonly term: number; readonly commitIndex: number; readonly round: number }
  | { readonly type: "heartbeat-response"; readonly term: number; readonly round: number }
  | {
    readonly type: "snapshot";
    readonly term: number;
    readonly meta: SnapshotMeta;
    readonly offset: number;
    readonly data: Uint8Array;
  }
  /** How many bytes of the snapshot of `index` are there: where to go on. */
  | { readonly type: "snapshot-response"; readonly term: number; readonly index: number; readonly offset: number }
  | { readonly type: "timeout-now"; readonly term: number }
  /** A follower asks up to where it must have applied before it may answer a read. */
  | { readonly type: "read-request"; readonly term: number; readonly incarnation: number; readonly id: number }
  | {
    readonly type: "read-response";
    readonly term: number;
    readonly incarnation: number;
    readonly id: number;
    /** Missing where the one asked does not lead. */
    readonly index: number | undefined;
  };

/** Names of all messages. */
export type MessageType = RaftMessage["type"];

/** What an entry counts against bounds in bytes: its data and what surrounds them. */
export function entryBytes(entry: Entry): number {
  return 32 + (entry.kind === "data" ? entry.data.length : entry.kind === "config" ? configBytes(entry.config) : 0);
}

function configBytes(config: ClusterConfig): number {
  const names = [config.voters, config.votersOutgoing, config.learners, config.learnersNext].flat();
  return names.reduce((sum, one) => sum + one.length + 3, 16);
}

/** A message in its form for the wire. */
export function encodeMessage(message: RaftMessage): Uint8Array {
  return encodeCbor([CODES.indexOf(message.type), message.term, bodyOf(message)]);
}

/**
 * Reads a message.
 *
 * @throws {WireError} When the bytes are anything else.
 */
export function decodeMessage(input: Uint8Array, bytesMax: number = LIMITS.frameBytesMax): RaftMessage {
  const value = decodeCbor(input, bytesMax);
  if (!Array.isArray(value) || value.length !== 3) throw new WireError("Cannot read $: wanted an array of three");
  const [code, term, body] = value as readonly CborValue[];
  const type = CODES[uint(CODES.length - 1)(code, "$[0]")]!;
  return READERS[type](body, readIndex(term, "$[1]"));
}

/** An entry in its form for the disk, index included. */
export function encodeEntry(entry: Entry): Uint8Array {
  return encodeCbor([entry.index, entry.term, entryBody(entry)]);
}

/** Reads an entry as {@linkcode encodeEntry} wrote it. */
export function decodeEntry(input: Uint8Array): Entry {
  const value = decodeCbor(input);
  if (!Array.isArray(value) || value.length !== 3) throw new WireError("Cannot read $: wanted an array of three");
  const [index, term, body] = value as readonly CborValue[];
  return readEntry(readIndex(index, "$[0]"), readIndex(term, "$[1]"), body, "$[2]");
}

/** Term and vote in their form for the disk. */
export function encodeHardState(state: HardState): Uint8Array {
  return encodeCbor({ t: state.term, v: state.votedFor });
}

/** Reads term and vote as {@linkcode encodeHardState} wrote them. */
export function decodeHardState(input: Uint8Array): HardState {
  const { t, v } = readHardState(decodeCbor(input), "$");
  return { term: t, votedFor: v };
}

/** What a snapshot stands for, in its form for the disk. */
export function encodeSnapshotMeta(meta: SnapshotMeta): Uint8Array {
  return encodeCbor(metaToCbor(meta));
}

/** Reads what {@linkcode encodeSnapshotMeta} wrote. */
export function decodeSnapshotMeta(input: Uint8Array): SnapshotMeta {
  return readMeta(decodeCbor(input), "$");
}

/** Place in this list is the number on the wire: append only. */
const CODES: readonly MessageType[] = [
  "pre-vote",
  "vote",
  "pre-vote-response",
  "vote-response",
  "append",
  "append-response",
  "append-reject",
  "heartbeat",
  "heartbeat-response",
  "snapshot",
  "snapshot-response",
  "timeout-now",
  "read-request",
  "read-response",
];

const readIndex = uint(INDEX_MAX);
const readHardState = record({ t: readIndex, v: optional(text(128)) });

function bodyOf(message: RaftMessage): CborValue {
  switch (message.type) {
    case "pre-vote":
    case "vote":
      return { i: message.lastLogIndex, l: message.lastLogTerm, x: message.transfer };
    case "pre-vote-response":
    case "vote-response":
      return { g: message.granted };
    case "append":
      return {
        c: message.commitIndex,
        e: message.entries.map((one) => [one.term, entryBody(one)]),
        i: message.prevLogIndex,
        l: message.prevLogTerm,
      };
    case "append-response":
      return { i: message.index };
    case "append-reject":
      return { h: message.hintIndex, i: message.index, l: message.hintTerm };
    case "heartbeat":
      return { c: message.commitIndex, r: message.round };
    case "heartbeat-response":
      return { r: message.round };
    case "snapshot":
      return { d: message.data, m: metaToCbor(message.meta), o: message.offset };
    case "snapshot-response":
      return { i: message.index, o: message.offset };
    case "timeout-now":
      return {};
    case "read-request":
      return { i: message.incarnation, n: message.id };
    case "read-response":
      return { i: message.incarnation, n: message.id, x: message.index };
  }
}

type BodyReader = (body: CborValue | undefined, term: number) => RaftMessage;

const voteShape = record({ i: readIndex, l: readIndex, x: bool });
const grantShape = record({ g: bool });
const appendShape = record({
  c: readIndex,
  e: array<CborValue>((value) => value as CborValue, APPEND_ENTRIES_MAX),
  i: readIndex,
  l: readIndex,
});
const ackShape = record({ i: readIndex });
const rejectShape = record({ h: readIndex, i: readIndex, l: readIndex });
const heartbeatShape = record({ c: readIndex, r: readIndex });
const roundShape = record({ r: readIndex });
const readShape = record({ i: readIndex, n: readIndex });
const readDoneShape = record({ i: readIndex, n: readIndex, x: optional(readIndex) });
const offsetShape = record({ i: readIndex, o: uint(SNAPSHOT_BYTES_MAX) });
const emptyShape = record({});

const readMetaShape = record({
  c: readConfig,
  h: bytes({ length: 32 }),
  i: readIndex,
  s: uint(SNAPSHOT_BYTES_MAX),
  t: readIndex,
});

const readMeta: Reader<SnapshotMeta> = (value, path) => {
  const { c, h, i, s, t } = readMetaShape(value, path);
  return { index: i, term: t, config: c, sizeBytes: s, digest: h };
};

const snapshotShape = record({
  d: bytes({ max: LIMITS.frameBytesMax }),
  m: readMeta,
  o: uint(SNAPSHOT_BYTES_MAX),
});

function metaToCbor(meta: SnapshotMeta): CborValue {
  return { c: configToCbor(meta.config), h: meta.digest, i: meta.index, s: meta.sizeBytes, t: meta.term };
}

const READERS: { readonly [T in MessageType]: BodyReader } = {
  "pre-vote": (body, term) => readVote("pre-vote", body, term),
  vote: (body, term) => readVote("vote", body, term),
  "pre-vote-response": (body, term) => ({ type: "pre-vote-response", term, granted: grantShape(body, "$[2]").g }),
  "vote-response": (body, term) => ({ type: "vote-response", term, granted: grantShape(body, "$[2]").g }),
  append: (body, term) => {
    const { c, e, i, l } = appendShape(body, "$[2]");
    const entries = e.map((one, k) => {
      if (!Array.isArray(one) || one.length !== 2) throw new WireError(`Cannot read $[2].e[${k}]: wanted two`);
      const [entryTerm, content] = one as readonly CborValue[];
      return readEntry(i + 1 + k, readIndex(entryTerm, `$[2].e[${k}][0]`), content, `$[2].e[${k}][1]`);
    });
    // Terms in a log never fall, and no entry is of a later term than its leader.
    for (const [k, one] of entries.entries()) {
      if (one.term < (entries[k - 1]?.term ?? l) || one.term > term || one.term === 0) {
        throw new WireError(`Cannot read $[2].e[${k}]: term ${one.term} does not follow`);
      }
    }
    return { type: "append", term, prevLogIndex: i, prevLogTerm: l, entries, commitIndex: c };
  },
  "append-response": (body, term) => ({ type: "append-response", term, index: ackShape(body, "$[2]").i }),
  "append-reject": (body, term) => {
    const { h, i, l } = rejectShape(body, "$[2]");
    return { type: "append-reject", term, index: i, hintIndex: h, hintTerm: l };
  },
  heartbeat: (body, term) => {
    const { c, r } = heartbeatShape(body, "$[2]");
    return { type: "heartbeat", term, commitIndex: c, round: r };
  },
  "heartbeat-response": (body, term) => ({ type: "heartbeat-response", term, round: roundShape(body, "$[2]").r }),
  snapshot: (body, term) => {
    const { d, m, o } = snapshotShape(body, "$[2]");
    if (o + d.length > m.sizeBytes) throw new WireError("Cannot read $[2].o: the chunk is longer than the snapshot");
    if (m.index === 0 || m.term === 0 || m.term > term) throw new WireError("Cannot read $[2].m: no such snapshot");
    return { type: "snapshot", term, meta: m, offset: o, data: d };
  },
  "snapshot-response": (body, term) => {
    const { i, o } = offsetShape(body, "$[2]");
    return { type: "snapshot-response", term, index: i, offset: o };
  },
  "timeout-now": (body, term) => {
    emptyShape(body, "$[2]");
    return { type: "timeout-now", term };
  },
  "read-request": (body, term) => {
    const { i, n } = readShape(body, "$[2]");
    return { type: "read-request", term, incarnation: i, id: n };
  },
  "read-response": (body, term) => {
    const { i, n, x } = readDoneShape(body, "$[2]");
    return { type: "read-response", term, incarnation: i, id: n, index: x };
  },
};

function readVote(type: "pre-vote" | "vote", body: CborValue | undefined, term: number): RaftMessage {
  const { i, l, x } = voteShape(body, "$[2]");
  return { type, term, lastLogIndex: i, lastLogTerm: l, transfer: x };
}

/** Data as bytes, a configuration as a map, nothing as null. */
function entryBody(entry: Entry): CborValue {
  return entry.kind === "data" ? entry.data : entry.kind === "config" ? configToCbor(entry.config) : null;
}

function readEntry(index: number, term: number, body: CborValue | undefined, path: string): Entry {
  if (body === null) return { kind: "noop", term, index };
  if (body instanceof Uint8Array) {
    return { kind: "data", term, index, data: bytes({ max: ENTRY_BYTES_MAX })(body, path) };
  }
  return { kind: "config", term, index, config: readConfig(body, path) };
}
