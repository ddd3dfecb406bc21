/**
 * Every bound of the program in one place, with the relations between them asserted.
 *
 * @module
 */

import { assert } from "./assert.ts";

/** The bounds. Counts, bytes or milliseconds as the last word of the name says. */
export const LIMITS = {
  /** One RPC frame. */
  frameBytesMax: 1 << 20,
  /** One signed record in its envelope. */
  recordBytesMax: 16 << 10,
  /** One datagram: what every path carries whole, less what QUIC adds. */
  datagramBytesMax: 1_100,
  /** Datagrams taken from one channel in the long run, twice as many at once; more are dropped. */
  datagramsPerPeerPerSecondMax: 1_000,
  /** CBOR nesting. */
  cborDepthMax: 16,
  /** Values in one CBOR input: what keeps the memory that a frame of empty maps takes within ten times its size. */
  cborItemsMax: 1 << 17,
  /** Longest time that a call may be given. */
  callTimeoutMsMax: 10 * 60_000,
  /** Inbound calls under way, all peers together; more are answered `overloaded`. */
  inboundCallsMax: 256,
  /** Inbound calls under way from one peer. */
  inboundCallsPerPeerMax: 32,
  /** Open channels; further inbound ones are refused `overloaded`. */
  channelsMax: 512,
  /** Members that a node knows. */
  membersMax: 10_000,
  /** Addresses that one node may advertise. */
  addressesPerNodeMax: 16,
  /** Candidates that discovery keeps; the least trusted oldest goes first. */
  candidatesMax: 256,
  /** Candidates from one unauthenticated source. */
  candidatesPerSourceMax: 64,
  /** Open invites. */
  invitesMax: 1_000,
  /** Joins waiting for an operator; the newest is refused when full. */
  pendingJoinsMax: 100,
  /** Revocations kept: all of them fit one frame. */
  revocationsMax: 3_000,
  /** Issuers in one authority epoch. */
  issuersMax: 7,
  /** Nonces of join challenges under way. */
  challengesMax: 1_024,
  /** Events in the runtime's queue; inbound calls are refused `overloaded` past it. */
  queueEventsMax: 4_096,
  /** Entries in the ring of recent events and failures that status shows. */
  recentEventsMax: 256,
  /** Assignments and network-wide settings. */
  assignmentsMax: 1_000,
  /** One remote command's output. */
  commandOutputBytesMax: 4 << 20,
  /** Voters of both halves and learners of one Raft group. */
  raftMembersMax: 32,
  /** Entries of one append. */
  raftAppendEntriesMax: 4_096,
  /** Data of one Raft entry: with its framing it fits one frame. */
  raftEntryBytesMax: 512 << 10,
  /** One snapshot of a Raft state machine. */
  raftSnapshotBytesMax: 256 << 20,
  /** Length of names that people give. */
  nameCharsMax: 63,
} as const;

assert(LIMITS.recordBytesMax * 8 <= LIMITS.frameBytesMax, "a frame carries at least eight records");
assert(LIMITS.raftEntryBytesMax * 2 <= LIMITS.frameBytesMax, "a Raft entry fits half a frame");
assert(LIMITS.issuersMax <= LIMITS.raftMembersMax, "all issuers are members of the Raft group");
assert(LIMITS.inboundCallsPerPeerMax < LIMITS.inboundCallsMax, "one peer cannot take all inbound calls");
assert(LIMITS.candidatesPerSourceMax < LIMITS.candidatesMax, "one source cannot take all candidates");
