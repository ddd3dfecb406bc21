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
  /** News of alive, suspect and dead members in one datagram. */
  swimUpdatesPerMessageMax: 16,
  /** Datagrams of one node that came before its credential, kept until that is here; more are dropped. */
  earlyDatagramsMax: 8,
  /** News that waits to be passed on; the one passed on most often goes first. */
  swimQueueMax: 128,
  /** Nodes remembered as accusers of one member; further ones change nothing. */
  swimAccusersMax: 8,
  /** Pings whose answers still count, and probes for others; the oldest goes first. */
  swimPingsMax: 1_024,
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
  /** Body of one broadcast message. */
  gossipBodyBytesMax: 64 << 10,
  /** Broadcast messages in one frame. */
  gossipMessagesPerFrameMax: 64,
  /** Ids in one list of a broadcast frame. */
  gossipIdsPerFrameMax: 512,
  /** Ids of broadcast messages that are remembered, the oldest go first. */
  gossipSeenMax: 8_192,
  /** Bodies of broadcast messages that are kept for others to ask for, the oldest go first. */
  gossipCacheBytesMax: 4 << 20,
  /** Broadcast messages under validation; more are dropped and may come again. */
  gossipValidatingMax: 256,
  /** Broadcast messages that were announced and have not come; further announcements are not followed. */
  gossipWantedMax: 1_024,
  /** Peers that are gone and whose bad scores are remembered, the oldest go first. */
  gossipScoresMax: 512,
  /** Keys of the Primary Spore, tombstones included. */
  primaryKeysMax: 10_000,
  /** What the keys of the Primary Spore count for, bytes. */
  primaryBytesMax: 32 << 20,
  /** Sessions of clients of the Primary Spore; the one that was not used for longest goes first. */
  primarySessionsMax: 1_024,
  /** Writes of one session under way, and answers kept for it. */
  primaryWindowMax: 256,
  /** Recoveries from a lost majority that the state remembers. */
  primaryRecoveriesMax: 16,
  /** Nodes in one list of a command: issuers, or those given up. */
  primaryNodesMax: 32,
  /** Records that were verified before they were in the log. */
  primaryVerifiedMax: 4_096,
  /** Agreed keys of the Primary Spore, besides the others. */
  agreedKeysMax: 1_024,
  /** What shows them: certificates and operations; agreed records take at most as much besides the others. Bytes. */
  agreedWarrantBytesMax: 16 << 20,
  /** What shows all electorates since the first, bytes; past it the electorate stays as it is. */
  agreedLinkBytesMax: 16 << 20,
  /** Applied decisions of one proposer that are remembered; what ends before the one that was forgotten is refused. */
  agreedInstancesPerProposerMax: 256,
  /** Spore records that a node knows, by key; what has no proof of rank is refused where it is full. */
  sporesMax: 100_000,
  /** What they take together, bytes. */
  sporeBytesMax: 64 << 20,
  /** The same on a Hypha, which keeps a part of them. */
  sporesHyphaMax: 10_000,
  /** Bytes of the records that a Hypha keeps. */
  sporeBytesHyphaMax: 8 << 20,
  /** Suspicious records that wait for confirmation; a further one is refused and may come again. */
  sporeSuspectsMax: 256,
  /** Pairs of records that show that an author said two things at once; the first ones are kept. */
  sporeEvidenceMax: 128,
  /** Voters of one consensus table, and seats of equal ones. */
  consensusVotersMax: 100,
  /** Operations of one consensus instance. */
  consensusBatchMax: 256,
  /** Operations of one consensus instance, bytes. */
  consensusBatchBytesMax: 256 << 10,
  /** Body of one operation. */
  consensusOperationBytesMax: 16 << 10,
  /** Consensus instances that are not decided; further ones are refused `overloaded`. */
  consensusInstancesMax: 64,
  /** The same of one proposer. */
  consensusInstancesPerProposerMax: 8,
  /** Consensus instances that are over and not expired: a proposal past it is refused. */
  consensusSettledMax: 4_096,
  /** Rounds of one consensus instance; past it the instance has failed. */
  consensusRoundsMax: 64,
  /** Operations that wait for their turn; the lightest of the fullest lane is refused when full. */
  consensusQueueMax: 4_096,
  /** Roles of a network's own; a further one counts as none. */
  accessRolesMax: 128,
  /** Grants of one role. */
  accessGrantsMax: 64,
  /** Bindings: operators, service tokens and nodes that have a role; a further one counts as none. */
  accessBindingsMax: 1_024,
  /** Subjects that may do nothing for a while; the one that ends first makes room. */
  accessSuspendedMax: 1_024,
  /** Sessions of operators on one node; a further one is refused. */
  sessionsMax: 256,
  /** Sessions of one operator key; the oldest goes. */
  sessionsPerKeyMax: 16,
  /** Requests of one session that are remembered against replay, for as long as they could be replayed. */
  sessionNoncesMax: 1_024,
  /** Answered login challenges that are remembered, for as long as they could be replayed. */
  loginsRememberedMax: 1_024,
  /** Of these, logins of one key; a further one is refused for some minutes. */
  loginsPerKeyMax: 64,
  /** Sources and subjects whose failures are counted; what is free of failures longest goes first. */
  throttledMax: 1_024,
  /** Length of names that people give. */
  nameCharsMax: 63,
} as const;

assert(LIMITS.recordBytesMax * 8 <= LIMITS.frameBytesMax, "a frame carries at least eight records");
assert(LIMITS.raftEntryBytesMax * 2 <= LIMITS.frameBytesMax, "a Raft entry fits half a frame");
assert(LIMITS.issuersMax <= LIMITS.raftMembersMax, "all issuers are members of the Raft group");
assert(
  LIMITS.primaryBytesMax + LIMITS.primarySessionsMax * LIMITS.primaryWindowMax * 16 +
      2 * LIMITS.agreedWarrantBytesMax + LIMITS.agreedLinkBytesMax +
      2 * LIMITS.consensusVotersMax * LIMITS.agreedInstancesPerProposerMax * (100 + LIMITS.consensusBatchMax) <
    LIMITS.raftSnapshotBytesMax,
  "the state of the Primary Spore fits a snapshot",
);
assert(LIMITS.sporesMax * 8 <= LIMITS.frameBytesMax, "a list of the ids of all spore records fits a frame");
assert(LIMITS.consensusVotersMax < 256, "shares of a secret are points of a field of 256");
assert(LIMITS.consensusBatchBytesMax * 2 <= LIMITS.frameBytesMax, "a frame carries the largest consensus proposal");
assert(LIMITS.inboundCallsPerPeerMax < LIMITS.inboundCallsMax, "one peer cannot take all inbound calls");
assert(LIMITS.candidatesPerSourceMax < LIMITS.candidatesMax, "one source cannot take all candidates");
assert(LIMITS.gossipBodyBytesMax * 8 <= LIMITS.frameBytesMax, "a frame carries the largest broadcast message");
assert(
  LIMITS.gossipBodyBytesMax * LIMITS.gossipValidatingMax <= 16 << 20,
  "what is under validation fits a small device",
);
