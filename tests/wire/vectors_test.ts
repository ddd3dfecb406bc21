/**
 * Golden bytes of every signed record and of what nodes say in Raft and in consensus, from fixed seeds.
 *
 * A network upgrades node by node, and signed records outlive programs: whoever changes these bytes cuts old
 * nodes off from new ones. A vector changes only with a new type (`credential/2`), beside the old one.
 *
 * `deno test --allow-read=tests --allow-write=tests tests/wire -- --update` writes the files and fails.
 *
 * @module
 */

import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  decodeElectorate,
  decodeRecordPut,
  type Electorate,
  encodeElectorate,
  encodeRecordPut,
  sealEmergency,
} from "../../src/agent/agreed.ts";
import { NetworkLaw } from "../../src/agent/agreed_law.ts";
import { decodeDecision, decodeProof, encodeDecision, encodeProof, proofsOf } from "../../src/agent/agreement_store.ts";
import { decodeCommand, encodeCommand } from "../../src/spore/state_machine.ts";
import { fromHex, toHex } from "../../src/core/bytes.ts";
import { anything, decodeAs, encodeCbor } from "../../src/core/codec.ts";
import {
  type Envelope,
  envelopeHash,
  envelopeValue,
  openEnvelope,
  readEnvelope,
  sealEnvelope,
} from "../../src/core/envelope.ts";
import { nodeIdOf } from "../../src/core/ids.ts";
import {
  type Certificate,
  certificateValue,
  joinSignatures,
  readCertificate,
  verifyCertificate,
} from "../../src/consensus/certificate.ts";
import { type Evidence, evidenceValue, readEvidence, verifyEvidence } from "../../src/consensus/evidence.ts";
import {
  type ConsensusMessage,
  decodeMessage as decodeConsensus,
  encodeMessage as encodeConsensus,
  setHash,
  type SignedCommitment,
} from "../../src/consensus/messages.ts";
import { dealCommitment } from "../../src/consensus/commitment.ts";
import { type Header, instanceId, operationsHash, signStatement } from "../../src/consensus/statements.ts";
import { freezeTable, readTable, tableHash, tableValue } from "../../src/consensus/weights.ts";
import { encodeProof as encodeFault } from "../../src/agent/trust_proofs.ts";
import { decodeTrust, encodeTrust, initialTrust, listedHash, nextTrust, trustHash } from "../../src/trust/agreed.ts";
import { type Offence, offenceValue, readOffence } from "../../src/trust/offence.ts";
import { decodePolicy, encodePolicy, type TrustPolicy } from "../../src/trust/policy.ts";
import { epochHash, readSignedEpoch, signedEpochValue } from "../../src/identity/authority.ts";
import { issueCredential, verifyCredential } from "../../src/identity/credential.ts";
import { verifyGenesis } from "../../src/identity/genesis.ts";
import { createInvite, formatInvite, parseInvite } from "../../src/identity/invite.ts";
import { proveFactor, transcriptHash, verifyFactor } from "../../src/identity/join_proof.ts";
import { createRevocation, openRevocation, RevocationSet } from "../../src/identity/revocation.ts";
import { openMember, sealMember } from "../../src/membership/record.ts";
import {
  decodeSwim,
  encodeSwim,
  handleOf,
  openNews,
  sealNews,
  type SwimMessage,
  type SwimUpdate,
} from "../../src/membership/swim_messages.ts";
import { configOf } from "../../src/raft/config.ts";
import {
  decodeEntry,
  decodeHardState,
  decodeMessage,
  decodeSnapshotMeta,
  encodeEntry,
  encodeHardState,
  encodeMessage,
  encodeSnapshotMeta,
  type Entry,
  type RaftMessage,
  type SnapshotMeta,
} from "../../src/raft/messages.ts";
import { placeOf } from "../../src/spore/digest.ts";
import {
  confirmValue,
  deltaAskValue,
  digestAnswerValue,
  digestAskValue,
  pushValue,
  readConfirm,
  readDeltaAsk,
  readDigestAnswer,
  readDigestAsk,
  readPush,
} from "../../src/spore/messages.ts";
import { proofValue, readProof, signRank, verifyProof } from "../../src/spore/proof.ts";
import { openSpore, RECORD_LIFE_MS_MAX, sealSpore, type Spore } from "../../src/spore/record.ts";
import { idOf, type Version } from "../../src/spore/table.ts";
import { decodeFrame, encodeFrame, type GossipFrame, idBytes, messageId } from "../../src/spore/gossip_wire.ts";
import { type BundleContent, contentHash, openBundle, sealBundle, spellBundle } from "../../src/spore/seed_bundle.ts";
import { openDecision, sealDecision } from "../../src/identity/decision.ts";
import { openAssignment, openProfile, sealAssignment, sealProfile } from "../../src/spore/profile.ts";
import {
  chainOf,
  credentialOf,
  GENESIS,
  GENESIS_ENVELOPE,
  GENESIS_KEY,
  keyOf,
  NETWORK_ID,
  nextEpoch,
  seedOf,
  START_MS,
} from "../identity/fixture.ts";

const FOLDER = join(import.meta.dirname!, "vectors");
const UPDATE = Deno.args.includes("--update");

/** Texts by name: hex of bytes, or a token. */
type Vector = Readonly<Record<string, string>>;

const ISSUER = keyOf("issuer 0");
const NODE = keyOf("node");
const CHAIN = chainOf(ISSUER);

/** Encodes an envelope and says of which record and network it is. */
const wire = (envelope: Envelope): Vector => ({
  networkId: toHex(NETWORK_ID),
  bytes: toHex(encodeCbor(envelopeValue(envelope))),
  hash: toHex(envelopeHash(envelope)),
});
const envelopeIn = (vector: Vector) => decodeAs(bytesIn(vector, "bytes"), readEnvelope);
const bytesIn = (vector: Vector, key: string) => fromHex(vector[key]!)!;

const CREDENTIAL = credentialOf(NODE, {
  name: "spruce.forest",
  role: "hypha",
  pool: "edge",
  via: seedOf("invite id").slice(0, 16),
});
const REVOCATION = {
  kind: "node",
  subject: NODE.publicKey,
  reason: "Laptop was stolen – ✓",
  atMs: START_MS + 1,
} as const;
const INVITE = createInvite({
  seed: seedOf("invite"),
  networkId: NETWORK_ID,
  discoverySecret: seedOf("discovery"),
  addresses: [`/ip4/192.0.2.7/udp/4871/quic-v1/p2p/${nodeIdOf(ISSUER.publicKey)}`, "/dns/forest.example/tcp/4871"],
  anchor: { epoch: 1, hash: seedOf("epoch 1") },
  issuer: ISSUER,
  role: "rhizomorph",
  pool: "default",
  uses: 3,
  createdMs: START_MS,
  expiresMs: START_MS + 86_400_000,
  approval: true,
});
const SWIM_UPDATES: readonly SwimUpdate[] = [
  { kind: "alive", subject: handleOf(NODE.publicKey), incarnation: 3 },
  { kind: "suspect", subject: handleOf(ISSUER.publicKey), incarnation: 70_000, accuser: handleOf(NODE.publicKey) },
  { kind: "dead", subject: handleOf(ISSUER.publicKey), incarnation: 0 },
];
const SWIM_MESSAGES: readonly SwimMessage[] = [
  { type: "ping", seq: 65_535, incarnation: 3, nextMs: 1_000, updates: SWIM_UPDATES },
  { type: "ack", seq: 1, incarnation: 300, updates: [] },
  { type: "ping-req", seq: 24, target: handleOf(ISSUER.publicKey), updates: SWIM_UPDATES.slice(0, 1) },
  { type: "indirect-ack", seq: 24 },
  { type: "nack", seq: 24, tried: true },
  { type: "news", updates: SWIM_UPDATES.slice(2) },
];
const MEMBER = {
  seq: 7,
  name: "spruce",
  role: "rhizomorph",
  addresses: ["/ip4/192.0.2.7/udp/4871/quic-v1", "/ip6/2001:db8::7/tcp/4871"],
  capabilities: {
    cpus: 4,
    memoryBytes: 8 * 2 ** 30,
    diskBytes: 64 * 2 ** 30,
    diskFreeBytes: 50_000_000_000,
    arch: "aarch64",
    os: "Debian GNU/Linux 13",
    kernel: "6.12.9",
    systemd: true,
    battery: false,
    hashesPerSecond: 123_456,
  },
  version: "0.1.0",
  startedMs: START_MS,
  left: false,
  drained: true,
} as const;
const PROFILE = { seq: 2, name: "The forest", approval: true, issuedMs: START_MS };
const ASSIGNMENT = {
  id: "web-1",
  seq: 3,
  service: "web",
  node: NODE.publicKey,
  action: "run",
  spec: encodeCbor({ image: "web:1" }),
  issuedMs: START_MS,
} as const;
const TRANSCRIPT = {
  networkId: NETWORK_ID,
  registrarKey: ISSUER.publicKey,
  joinerKey: NODE.publicKey,
  registrarNonce: seedOf("nonce of the registrar"),
  joinerNonce: seedOf("nonce of the joiner"),
  channelBinding: new Uint8Array(0),
  requestHash: seedOf("request"),
};

const SPORE = {
  key: `service/web/${nodeIdOf(NODE.publicKey)}`,
  seq: START_MS + 9,
  value: Uint8Array.of(1, 2, 3),
  issuedMs: START_MS,
  expiresMs: START_MS + 60_000,
};
const SPORE_DELETED = { ...SPORE, seq: START_MS + 10, value: undefined, expiresMs: START_MS + RECORD_LIFE_MS_MAX };
const RANK = { tier: "primary", term: 3, index: 2 ** 33, epoch: 1, untilMs: START_MS + 86_400_000 } as const;
const sporeSubject = (spore: Spore) => ({ networkId: NETWORK_ID, key: spore.record.key, hash: spore.hash });
const sporeVersion = (): Version => {
  const spore = sealSpore(SPORE, NETWORK_ID, NODE);
  return { spore, proof: { ...RANK, signatures: [signRank(sporeSubject(spore), RANK, ISSUER)] } };
};
const SPORE_ASK = {
  roots: new Map([[1, seedOf("root").slice(0, 8)]]),
  parts: [{ zone: 3, node: 17, sums: new Uint8Array(128).fill(7) }, { zone: 0, node: 4_368, list: new Uint8Array(16) }],
};

const DECISION = { epoch: 4, hash: seedOf("epoch 4"), seq: START_MS + 11, recoveredMs: START_MS + 10 };
const BUNDLE_MANIFEST = {
  kind: "full",
  networkId: NETWORK_ID,
  seq: START_MS + 12,
  issuedMs: START_MS + 11,
  expiresMs: START_MS + 86_400_000,
  addresses: MEMBER.addresses,
} as const;
const bundleContent = (): BundleContent => {
  const { spore, proof } = sporeVersion();
  return {
    genesis: GENESIS_ENVELOPE,
    epochs: CHAIN.since(1).map((one) => encodeCbor(signedEpochValue(one))),
    profile: sealProfile(PROFILE, NETWORK_ID, ISSUER),
    decision: sealDecision(DECISION, NETWORK_ID, GENESIS_KEY),
    records: [{ envelope: spore.envelope, proof: proof! }],
  };
};

const RAFT_CONFIG = {
  ...configOf(["node-b", "node-c"], ["node-d"]),
  votersOutgoing: ["node-a", "node-b"],
  learnersNext: ["node-a"],
  autoLeave: true,
};
const RAFT_ENTRIES: readonly Entry[] = [
  { kind: "noop", term: 3, index: 8 },
  { kind: "data", term: 3, index: 9, data: Uint8Array.of(1, 2, 3) },
  { kind: "config", term: 4, index: 10, config: RAFT_CONFIG },
];
const RAFT_META: SnapshotMeta = {
  index: 2 ** 33,
  term: 4,
  config: configOf(["node-a"]),
  sizeBytes: 70_000,
  digest: seedOf("snapshot"),
};
const RAFT_MESSAGES: readonly RaftMessage[] = [
  { type: "pre-vote", term: 5, lastLogIndex: 10, lastLogTerm: 4, transfer: false },
  { type: "vote", term: 5, lastLogIndex: 10, lastLogTerm: 4, transfer: true },
  { type: "pre-vote-response", term: 5, granted: true },
  { type: "vote-response", term: 5, granted: false },
  { type: "append", term: 5, prevLogIndex: 7, prevLogTerm: 2, entries: RAFT_ENTRIES, commitIndex: 6 },
  { type: "append-response", term: 5, index: 10 },
  { type: "append-reject", term: 5, index: 10, hintIndex: 9, hintTerm: 3 },
  { type: "heartbeat", term: 5, commitIndex: 9, round: 2 ** 40 },
  { type: "heartbeat-response", term: 5, round: 2 ** 40 },
  { type: "snapshot", term: 5, meta: RAFT_META, offset: 69_998, data: Uint8Array.of(8, 9) },
  { type: "snapshot-response", term: 5, index: 2 ** 33, offset: 69_998 },
  { type: "timeout-now", term: 5 },
  { type: "read-request", term: 5, incarnation: 2, id: 77 },
  { type: "read-response", term: 5, incarnation: 2, id: 77, index: 9 },
];
const BFT_VOTERS = [0, 1, 2, 3].map((i) => ({ id: `voter-${i}`, key: keyOf(`voter ${i}`) }));
const BFT_TABLE = freezeTable({
  epoch: 3,
  seed: seedOf("table"),
  weights: BFT_VOTERS.map(({ id, key }) => ({ id, publicKey: key.publicKey, weightPpm: 500_000 })),
});
const BFT_OPERATIONS = [
  { kind: "trust/update", body: Uint8Array.of(1, 2) },
  { kind: "member/remove", body: new Uint8Array(0) },
];
const BFT_HEADER: Header = {
  table: tableHash(BFT_TABLE, NETWORK_ID),
  class: "critical",
  size: 1,
  proposer: "voter-0",
  seq: 2 ** 33,
  expiresMs: START_MS,
  operations: operationsHash(BFT_OPERATIONS),
  count: 2,
};
const BFT_INSTANCE = instanceId(BFT_HEADER, NETWORK_ID);
const BFT_DEALINGS = BFT_VOTERS.map((_, voter) =>
  dealCommitment(
    { networkId: NETWORK_ID, instance: BFT_INSTANCE, round: 1, voter, electorate: BFT_TABLE },
    Uint8Array.of(voter === 3 ? 3 : 1),
    seedOf(`secret ${voter}`),
  )
);
const bftSigned = (voter: number, statement: Parameters<typeof signStatement>[0]) =>
  signStatement(statement, NETWORK_ID, BFT_VOTERS[voter]!.key);
const BFT_COMMITMENTS = BFT_DEALINGS.map(({ statement }, voter): SignedCommitment => ({
  voter,
  statement,
  signature: bftSigned(voter, statement),
}));
const BFT_SET = { round: 1, entries: [0, 1, 3].map((voter) => ({ voter, digest: seedOf(`digest ${voter}`) })) };
const BFT_VALUE = setHash(BFT_SET, BFT_INSTANCE);
const BFT_PRECOMMIT = {
  type: "precommit",
  instance: BFT_INSTANCE,
  round: 1,
  value: BFT_VALUE,
  outcome: Uint8Array.of(1),
  beacon: seedOf("beacon"),
} as const;
const bftJoined = (statement: Parameters<typeof signStatement>[0]) =>
  joinSignatures(4, new Map([0, 1, 2].map((voter) => [voter, bftSigned(voter, statement)])));
const BFT_CERTIFICATE: Certificate = {
  header: BFT_HEADER,
  round: 1,
  value: BFT_VALUE,
  outcome: BFT_PRECOMMIT.outcome,
  beacon: BFT_PRECOMMIT.beacon,
  ...bftJoined(BFT_PRECOMMIT),
};
const BFT_FREEZE = { type: "freeze", instance: BFT_INSTANCE, round: 1, value: BFT_VALUE } as const;
const BFT_FROZEN = { round: 1, value: BFT_VALUE, ...bftJoined(BFT_FREEZE) };
const BFT_OPENED = {
  certificate: BFT_FROZEN,
  set: BFT_SET,
  commitments: [0, 1, 3].map((voter) => BFT_COMMITMENTS[voter]!),
  nonces: [0, 1, 3].map((voter) => BFT_DEALINGS[voter]!.nonce),
};
const BFT_WITHHELD = { type: "withheld", instance: BFT_INSTANCE, value: BFT_VALUE, voter: 3 } as const;
const bftProposal = (seq: number) => {
  const header = { ...BFT_HEADER, seq, class: "standard", size: 4 } as const;
  return {
    header,
    operations: BFT_OPERATIONS,
    signature: bftSigned(0, { type: "proposal", instance: instanceId(header, NETWORK_ID) }),
  };
};
const bftShares = (voter: number) => BFT_DEALINGS[3]!.shares[voter]!;
const BFT_MESSAGES: readonly ConsensusMessage[] = [
  { type: "propose", proposal: bftProposal(1) },
  { type: "commit", instance: BFT_INSTANCE, commitment: BFT_COMMITMENTS[3]!, shares: bftShares(0) },
  { type: "lock", instance: BFT_INSTANCE, round: 2, opened: BFT_OPENED },
  { type: "freeze-request", instance: BFT_INSTANCE, round: 2, set: BFT_SET, carried: BFT_OPENED },
  { ...BFT_FREEZE, type: "freeze-vote", signature: bftSigned(0, BFT_FREEZE) },
  { type: "frozen", instance: BFT_INSTANCE, certificate: BFT_FROZEN, set: BFT_SET },
  { type: "open", instance: BFT_INSTANCE, value: BFT_VALUE, voter: 3, nonce: BFT_DEALINGS[3]!.nonce },
  {
    type: "share",
    instance: BFT_INSTANCE,
    value: BFT_VALUE,
    dealer: 3,
    shares: bftShares(1),
    signature: bftSigned(1, BFT_WITHHELD),
  },
  { ...BFT_PRECOMMIT, signature: bftSigned(0, BFT_PRECOMMIT) },
  { type: "missing", instance: BFT_INSTANCE, round: 1, commitments: Uint8Array.of(8), shares: Uint8Array.of(12) },
  { type: "unknown", instance: BFT_INSTANCE },
  { type: "decided", certificate: BFT_CERTIFICATE },
];
const AGREED_DECISION = { certificate: BFT_CERTIFICATE, operations: BFT_OPERATIONS };
const AGREED_PUT = {
  envelope: sporeVersion().spore.envelope,
  replaces: seedOf("replaced"),
  basis: new Uint8Array(0),
  proofs: [],
};
const AGREED_ELECTORATE: Electorate = {
  table: {
    epoch: 3,
    seed: seedOf("table seed"),
    voters: [ISSUER, NODE].map((key) => ({ id: nodeIdOf(key.publicKey), publicKey: key.publicKey, seats: 1 }))
      .sort((a, b) => a.id < b.id ? -1 : 1),
  },
  previous: seedOf("previous table"),
  sinceMs: [START_MS, START_MS + 1],
};
const AGREED_STATEMENT = {
  statement: sealEmergency(
    { record: seedOf("record"), supersedes: seedOf("table"), reason: "half is gone", issuedMs: START_MS },
    NETWORK_ID,
    ISSUER,
  ),
  record: sporeVersion().spore.envelope,
};
const AGREED_LAW = new NetworkLaw({ networkId: NETWORK_ID, founder: ISSUER.publicKey, operators: [] });

/** Each of them proves what it says, but for `bad-dealing` and `wrong-fast`: the encoding is what stands here. */
const bftEvidence = (): readonly Evidence[] => {
  const place = { networkId: NETWORK_ID, instance: BFT_INSTANCE, round: 1, voter: 3, electorate: BFT_TABLE };
  const { statement } = dealCommitment(place, Uint8Array.of(0), seedOf("secret 3"));
  const other = { voter: 3, statement, signature: bftSigned(3, statement) };
  const otherVote = { ...BFT_PRECOMMIT, outcome: Uint8Array.of(2) };
  const proposals = [bftProposal(7), { ...bftProposal(7), header: { ...bftProposal(7).header, size: 3 } }].map(
    (one) => {
      const instance = instanceId(one.header, NETWORK_ID);
      return { header: one.header, signature: bftSigned(0, { type: "proposal", instance }) };
    },
  );
  const { round, value, outcome, beacon } = BFT_PRECOMMIT;
  return [
    { type: "two-proposals", a: proposals[0]!, b: proposals[1]! },
    { type: "two-commitments", header: BFT_HEADER, a: BFT_COMMITMENTS[3]!, b: other },
    {
      type: "two-votes",
      header: BFT_HEADER,
      voter: 3,
      a: { type: "precommit", round, value, outcome, beacon, signature: bftSigned(3, BFT_PRECOMMIT) },
      b: { type: "precommit", round, value, outcome: otherVote.outcome, beacon, signature: bftSigned(3, otherVote) },
    },
    {
      type: "bad-dealing",
      header: BFT_HEADER,
      commitment: BFT_COMMITMENTS[3]!,
      shares: [0, 2].map((holder) => ({ holder, shares: bftShares(holder) })),
    },
    {
      type: "wrong-vote",
      certificate: BFT_CERTIFICATE,
      commitment: BFT_COMMITMENTS[3]!,
      nonce: BFT_DEALINGS[3]!.nonce,
    },
    { type: "withheld", header: BFT_HEADER, value: BFT_VALUE, voter: 3, ...bftJoined(BFT_WITHHELD) },
    {
      type: "wrong-fast",
      fast: { ...BFT_CERTIFICATE, header: { ...BFT_HEADER, class: "fast" } },
      audit: BFT_CERTIFICATE,
    },
  ];
};
const GOSSIP_FRAME: GossipFrame = {
  messages: [{ topic: "news", body: Uint8Array.of(1, 2, 3) }, { topic: "spores", body: new Uint8Array(0) }],
  ihave: ["0123456789abcdef", "fedcba9876543210"],
  iwant: ["\u0000\u0001\u0002\u0003\u0004\u0005\u0006\u0007\u0008\u0009\u00fa\u00fb\u00fc\u00fd\u00fe\u00ff"],
  idontwant: ["0123456789abcdef"],
  graft: ["news"],
  prune: [{ topic: "spores", backoffS: 60 }],
  choke: ["news"],
  unchoke: ["spores"],
};

/** Each record: how it is written now, and that what was written once still reads as the same. */
const FAULT: Offence = {
  id: seedOf("deed").slice(0, 16),
  nodeId: nodeIdOf(NODE.publicKey),
  kind: "withheld",
  atMs: START_MS + 60_000,
};
const TRUST_POLICY: TrustPolicy = {
  min: new Map([["vote", 400_000]]),
  vouched: [nodeIdOf(NODE.publicKey)],
  classes: [{ prefix: "net/", class: "critical" }],
};
const TRUST = nextTrust(initialTrust(START_MS), {
  atMs: START_MS + 86_400_000,
  offences: [FAULT],
  participations: [{ instance: seedOf("i"), expiresMs: START_MS + 5, signed: [nodeIdOf(ISSUER.publicKey)] }],
  absent: [],
  voting: { minPpm: 400_000, vouched: [NODE.publicKey] },
}, {
  previous: new Uint8Array(32),
  proofs: [listedHash(seedOf("proof"))],
  certificates: [listedHash(seedOf("certificate"))],
  absent: [],
});

const VECTORS: Readonly<Record<string, { readonly write: () => Vector; readonly read: (vector: Vector) => void }>> = {
  envelope: {
    write: () =>
      wire(sealEnvelope({ a: 1, b: "zwei", c: [true, null, Uint8Array.of(3)] }, {
        type: "example/1",
        networkId: NETWORK_ID,
        signer: NODE,
      })),
    read: (vector) =>
      assert.deepEqual(
        openEnvelope(envelopeIn(vector), { type: "example/1", networkId: NETWORK_ID, reader: anything }),
        { a: 1, b: "zwei", c: [true, null, Uint8Array.of(3)] },
      ),
  },
  genesis: {
    write: () => wire(GENESIS_ENVELOPE),
    read: (vector) => assert.deepEqual(verifyGenesis(envelopeIn(vector), bytesIn(vector, "networkId")), GENESIS),
  },
  authority_epoch: {
    write: () => {
      const second = nextEpoch(CHAIN, [ISSUER, NODE], [ISSUER], { createdMs: START_MS + 5 });
      return {
        networkId: toHex(NETWORK_ID),
        first: toHex(encodeCbor(signedEpochValue(CHAIN.since(1)[0]!))),
        second: toHex(encodeCbor(signedEpochValue(second))),
        head: toHex(epochHash(second.payload)),
      };
    },
    read: (vector) => {
      const epochs = ["first", "second"].map((key) => decodeAs(bytesIn(vector, key), readSignedEpoch));
      const chain = chainOf(ISSUER).merged(epochs);
      assert.equal(chain.epoch, 2);
      assert.deepEqual(toHex(chain.head), vector.head);
      assert.ok(chain.isIssuer(NODE.publicKey));
    },
  },
  credential: {
    write: () => wire(issueCredential(CREDENTIAL, NETWORK_ID, ISSUER)),
    read: (vector) =>
      assert.deepEqual(
        verifyCredential(envelopeIn(vector), {
          chain: CHAIN,
          revocations: new RevocationSet(),
          nowMs: START_MS,
          subject: NODE.publicKey,
        }),
        { ok: true, credential: { ...CREDENTIAL, network: NETWORK_ID.slice(0, 8) } },
      ),
  },
  revocation: {
    write: () => wire(createRevocation(REVOCATION, NETWORK_ID, ISSUER)),
    read: (vector) => assert.deepEqual(openRevocation(envelopeIn(vector), NETWORK_ID), REVOCATION),
  },
  invite: {
    write: () => ({ token: formatInvite(INVITE) }),
    read: (vector) => assert.deepEqual(parseInvite(vector.token!), INVITE),
  },
  join_proof: {
    write: () => ({
      node: toHex(transcriptHash("node", TRANSCRIPT)),
      invite: toHex(transcriptHash("invite", TRANSCRIPT)),
      registrar: toHex(transcriptHash("registrar", TRANSCRIPT)),
      proof: toHex(proveFactor("node", TRANSCRIPT, NODE)),
    }),
    read: (vector) => assert.ok(verifyFactor("node", TRANSCRIPT, NODE.publicKey, bytesIn(vector, "proof"))),
  },
  member: {
    write: () => wire(sealMember(MEMBER, NETWORK_ID, NODE)),
    read: (vector) => assert.deepEqual(openMember(envelopeIn(vector), NETWORK_ID), MEMBER),
  },
  profile: {
    write: () => wire(sealProfile(PROFILE, NETWORK_ID, ISSUER)),
    read: (vector) => assert.deepEqual(openProfile(envelopeIn(vector), NETWORK_ID), PROFILE),
  },
  spore: {
    write: () => wire(sealSpore(SPORE, NETWORK_ID, NODE).envelope),
    read: (vector) => {
      const spore = openSpore(envelopeIn(vector), NETWORK_ID);
      assert.deepEqual(spore.record, SPORE);
      assert.equal(toHex(spore.hash), vector.hash);
    },
  },
  spore_deleted: {
    write: () => wire(sealSpore(SPORE_DELETED, NETWORK_ID, NODE).envelope),
    read: (vector) => assert.deepEqual(openSpore(envelopeIn(vector), NETWORK_ID).record, SPORE_DELETED),
  },
  spore_proof: {
    write: () => ({ proof: toHex(encodeCbor(proofValue(sporeVersion().proof!))), id: idOf(sporeVersion()).join(" ") }),
    read: (vector) => {
      const proof = decodeAs(bytesIn(vector, "proof"), readProof);
      assert.ok(verifyProof(sporeSubject(sporeVersion().spore), proof, [ISSUER.publicKey]));
      // Tables of old and new nodes have to add up to the same.
      assert.equal(idOf({ spore: sporeVersion().spore, proof }).join(" "), vector.id);
      assert.equal(vector.id, idOf(sporeVersion()).join(" "));
    },
  },
  decision: {
    write: () => wire(sealDecision(DECISION, NETWORK_ID, GENESIS_KEY)),
    read: (vector) => assert.deepEqual(openDecision(envelopeIn(vector), NETWORK_ID, GENESIS_KEY.publicKey), DECISION),
  },
  seed_bundle: {
    write: () => {
      const raw = sealBundle(BUNDLE_MANIFEST, bundleContent(), ISSUER);
      return {
        networkId: toHex(NETWORK_ID),
        bytes: toHex(raw),
        text: spellBundle(raw).trim(),
        content: toHex(contentHash({ ...BUNDLE_MANIFEST, ...bundleContent() })),
      };
    },
    read: (vector) => {
      for (const form of [bytesIn(vector, "bytes"), new TextEncoder().encode(vector.text!)]) {
        const opened = openBundle(form, NETWORK_ID);
        assert.ok(opened.ok);
        const { signer, hash: _, sizeBytes: __, ...said } = opened.bundle;
        assert.deepEqual(said, { ...BUNDLE_MANIFEST, ...bundleContent() });
        assert.deepEqual(signer, ISSUER.publicKey);
        assert.equal(toHex(contentHash(opened.bundle)), vector.content);
      }
    },
  },
  spore_messages: {
    write: () => ({
      push: toHex(encodeCbor(pushValue([sporeVersion()]))),
      digest: toHex(encodeCbor(digestAskValue(SPORE_ASK))),
      digestAnswer: toHex(encodeCbor(digestAnswerValue(SPORE_ASK.parts))),
      delta: toHex(encodeCbor(deltaAskValue([sporeVersion()], [SPORE_ASK.parts[1]!]))),
      confirm: toHex(encodeCbor(confirmValue("app/x", seedOf("hash")))),
      place: String(placeOf("app/x")),
    }),
    read: (vector) => {
      const { envelope } = sporeVersion().spore;
      const wired = [{ envelope, proof: sporeVersion().proof }];
      assert.deepEqual(decodeAs(bytesIn(vector, "push"), readPush), wired);
      assert.deepEqual(decodeAs(bytesIn(vector, "digest"), readDigestAsk), { ...SPORE_ASK, codecs: 1 });
      assert.deepEqual(decodeAs(bytesIn(vector, "digestAnswer"), readDigestAnswer), {
        codecs: 1,
        parts: SPORE_ASK.parts,
      });
      assert.deepEqual(decodeAs(bytesIn(vector, "delta"), readDeltaAsk), {
        codecs: 1,
        given: wired,
        wanted: [SPORE_ASK.parts[1]],
      });
      assert.deepEqual(decodeAs(bytesIn(vector, "confirm"), readConfirm), { key: "app/x", hash: seedOf("hash") });
      assert.equal(String(placeOf("app/x")), vector.place);
    },
  },
  raft_messages: {
    write: () => Object.fromEntries(RAFT_MESSAGES.map((one) => [one.type, toHex(encodeMessage(one))])),
    read: (vector) => {
      for (const one of RAFT_MESSAGES) assert.deepEqual(decodeMessage(bytesIn(vector, one.type)), one);
    },
  },
  raft_store: {
    write: () => ({
      hardState: toHex(encodeHardState({ term: 5, votedFor: "node-a" })),
      hardStateNoVote: toHex(encodeHardState({ term: 5, votedFor: undefined })),
      snapshotMeta: toHex(encodeSnapshotMeta(RAFT_META)),
      ...Object.fromEntries(RAFT_ENTRIES.map((one) => [one.kind, toHex(encodeEntry(one))])),
    }),
    read: (vector) => {
      assert.deepEqual(decodeHardState(bytesIn(vector, "hardState")), { term: 5, votedFor: "node-a" });
      assert.deepEqual(decodeHardState(bytesIn(vector, "hardStateNoVote")), { term: 5, votedFor: undefined });
      assert.deepEqual(decodeSnapshotMeta(bytesIn(vector, "snapshotMeta")), RAFT_META);
      for (const one of RAFT_ENTRIES) assert.deepEqual(decodeEntry(bytesIn(vector, one.kind)), one);
    },
  },
  consensus_messages: {
    write: () => Object.fromEntries(BFT_MESSAGES.map((one) => [one.type, toHex(encodeConsensus(one))])),
    read: (vector) => {
      for (const one of BFT_MESSAGES) assert.deepEqual(decodeConsensus(bytesIn(vector, one.type)), one);
    },
  },
  consensus_evidence: {
    write: () => ({
      ...Object.fromEntries(bftEvidence().map((one) => [one.type, toHex(encodeCbor(evidenceValue(one)))])),
      table: toHex(encodeCbor(tableValue(BFT_TABLE))),
      tableHash: toHex(tableHash(BFT_TABLE, NETWORK_ID)),
      certificate: toHex(encodeCbor(certificateValue(BFT_CERTIFICATE))),
    }),
    read: (vector) => {
      const table = decodeAs(bytesIn(vector, "table"), readTable);
      assert.deepEqual(table, BFT_TABLE);
      for (const one of bftEvidence()) {
        const read = decodeAs(bytesIn(vector, one.type), readEvidence);
        assert.deepEqual(read, one);
        const proves = one.type !== "bad-dealing" && one.type !== "wrong-fast";
        assert.equal(verifyEvidence(read, table, NETWORK_ID).ok, proves, one.type);
      }
      // Old nodes and new ones have to accept the same decisions.
      const certificate = decodeAs(bytesIn(vector, "certificate"), readCertificate);
      assert.deepEqual(verifyCertificate(certificate, table, NETWORK_ID), { ok: true, seats: 3, of: 4 });
    },
  },
  agreed: {
    write: () => {
      const decision = encodeDecision(AGREED_DECISION);
      return {
        put: toHex(encodeRecordPut(AGREED_PUT)),
        electorate: toHex(encodeElectorate(AGREED_ELECTORATE)),
        decision: toHex(decision),
        proof: toHex(encodeProof(proofsOf(BFT_CERTIFICATE, BFT_OPERATIONS)[1]!)),
        statement: toHex(encodeDecision(AGREED_STATEMENT)),
        command: toHex(encodeCommand({ op: "decided", timeMs: START_MS, decision })),
        genesis: toHex(AGREED_LAW.genesis),
        name: AGREED_LAW.nameOf(decision)!.instance,
      };
    },
    read: (vector) => {
      assert.deepEqual(decodeRecordPut(bytesIn(vector, "put")), AGREED_PUT);
      assert.deepEqual(decodeElectorate(bytesIn(vector, "electorate")), AGREED_ELECTORATE);
      assert.deepEqual(decodeDecision(bytesIn(vector, "decision")), AGREED_DECISION);
      assert.deepEqual(decodeProof(bytesIn(vector, "proof")), proofsOf(BFT_CERTIFICATE, BFT_OPERATIONS)[1]!);
      assert.deepEqual(decodeDecision(bytesIn(vector, "statement")), AGREED_STATEMENT);
      const command = decodeCommand(bytesIn(vector, "command"));
      assert.deepEqual(command, { op: "decided", timeMs: START_MS, decision: bytesIn(vector, "decision") });
      assert.equal(AGREED_LAW.nameOf(bytesIn(vector, "decision"))!.instance, vector.name);
    },
  },
  trust: {
    write: () => ({
      state: toHex(encodeTrust(TRUST)),
      hash: toHex(trustHash(TRUST)),
      policy: toHex(encodePolicy(TRUST_POLICY)),
      offence: toHex(encodeCbor(offenceValue(FAULT))),
      fault: toHex(encodeFault({ type: "vote", evidence: bftEvidence()[0]! })),
    }),
    read: (vector) => {
      // What one version computes another one has to compute as well: else they vote apart.
      assert.deepEqual(decodeTrust(bytesIn(vector, "state")), TRUST);
      assert.equal(toHex(trustHash(decodeTrust(bytesIn(vector, "state")))), vector.hash);
      assert.deepEqual(decodePolicy(bytesIn(vector, "policy")), TRUST_POLICY);
      assert.deepEqual(decodeAs(bytesIn(vector, "offence"), readOffence), FAULT);
    },
  },
  gossip: {
    write: () => ({
      frame: toHex(encodeFrame(GOSSIP_FRAME)),
      id: toHex(idBytes(messageId(GOSSIP_FRAME.messages[0]!))),
    }),
    read: (vector) => {
      assert.deepEqual(decodeFrame(bytesIn(vector, "frame")), GOSSIP_FRAME);
      assert.equal(vector.id, toHex(idBytes(messageId(GOSSIP_FRAME.messages[0]!))));
    },
  },
  swim: {
    write: () => Object.fromEntries(SWIM_MESSAGES.map((one) => [one.type, toHex(encodeSwim(one))])),
    read: (vector) => {
      for (const one of SWIM_MESSAGES) assert.deepEqual(decodeSwim(bytesIn(vector, one.type)), one);
    },
  },
  swim_news: {
    write: () => wire(sealNews({ atMs: START_MS, updates: SWIM_UPDATES }, NETWORK_ID, NODE)),
    read: (vector) => {
      assert.deepEqual(openNews(envelopeIn(vector), NETWORK_ID), { atMs: START_MS, updates: SWIM_UPDATES });
    },
  },
  assignment: {
    write: () => wire(sealAssignment(ASSIGNMENT, NETWORK_ID, ISSUER)),
    read: (vector) => assert.deepEqual(openAssignment(envelopeIn(vector), NETWORK_ID), ASSIGNMENT),
  },
};

for (const [name, { write, read }] of Object.entries(VECTORS)) {
  Deno.test(`wire: ${name}: today's bytes are the golden ones, and the golden ones read`, () => {
    const path = join(FOLDER, `${name}.json`);
    const text = JSON.stringify(write(), undefined, 2) + "\n";
    if (UPDATE) {
      const before = existsSync(path) ? readFileSync(path, "utf8") : "";
      if (before !== text) writeFileSync(path, text);
      assert.fail(`--update ${before === text ? "changed nothing in" : "rewrote"} ${name}.json; run again without it`);
    }
    const golden = readFileSync(path, "utf8");
    assert.equal(text, golden, `${name}: old and new nodes would not understand each other`);
    read(JSON.parse(golden) as Vector);
  });
}

Deno.test("wire: every file of vectors belongs to a record", () => {
  const files = readdirSync(FOLDER).map((file) => file.replace(/\.json$/, ""));
  assert.deepEqual(files.sort(), Object.keys(VECTORS).sort());
});
