/**
 * What an agent knows, as it stands in the store.
 *
 * Reading happens once, at the start; every change goes out as a put beside the change in memory.
 *
 * @module
 */

import { toHex } from "../core/bytes.ts";
import {
  array,
  bytes,
  type CborValue,
  decodeAs,
  encodeCbor,
  oneOf,
  record,
  text,
  uint,
  WireError,
} from "../core/codec.ts";
import { type KeyPair, keyPairFromSeed } from "../core/crypto.ts";
import { type Envelope, envelopeValue, readEnvelope } from "../core/envelope.ts";
import { nodeIdOf } from "../core/ids.ts";
import { LIMITS } from "../core/limits.ts";
import { AuthorityChain, readSignedEpoch, type SignedEpoch, signedEpochValue } from "../identity/authority.ts";
import { type Credential, openCredential } from "../identity/credential.ts";
import { type GenesisRecord, verifyGenesis } from "../identity/genesis.ts";
import { type Invite, type InviteGrant, openGrant, parseInvite } from "../identity/invite.ts";
import { openRevocation, RevocationSet } from "../identity/revocation.ts";
import { type MemberRecord, openMember } from "../membership/record.ts";
import { type Member, MemberTable } from "../membership/table.ts";
import { type Assignment, openAssignment, openProfile, type Profile } from "../spore/profile.ts";

/** One change to the store: `null` deletes. */
export type Put = readonly [string, Uint8Array | null];

/** Keys of the store. */
export const KEYS = {
  nodeSeed: "secret/node.key",
  genesisSeed: "secret/genesis.key",
  operatorSeed: "secret/operator.key",
  discoverySecret: "secret/discovery.key",
  invite: "secret/invite",
  genesis: "genesis",
  credential: "credential",
  profile: "profile",
  self: "self",
  stage: "stage",
  signedEpoch: "signed-epoch",
  mode: "mode",
  epoch: (n: number) => `epoch/${String(n).padStart(5, "0")}`,
  member: (nodeId: string) => `member/${nodeId}`,
  revocation: (name: string) => `revocation/${name}`,
  grant: (id: Uint8Array) => `grant/${toHex(id)}`,
  pending: (nodeId: string) => `pending/${nodeId}`,
  assignment: (id: string) => `assignment/${id}`,
  use: (inviteId: Uint8Array, nodeId: string) => `use/${toHex(inviteId)}/${nodeId}`,
  nonce: (nonce: string) => `nonce/${nonce}`,
} as const;

/** What an operator has ordered this node to be. */
export type Mode = "normal" | "safe" | "isolated" | "drained";

/** A machine that waits for an operator, at its registrar. */
export interface PendingJoin {
  readonly nodeId: string;
  readonly publicKey: Uint8Array;
  readonly record: MemberRecord;
  readonly recordEnvelope: Envelope;
  readonly inviteId: Uint8Array;
  readonly sinceMs: number;
  readonly address: string;
  readonly decision: "waiting" | "approved" | "denied";
  readonly reason: string;
}

/** The network, once this node knows which it is of. */
export interface NetworkState {
  readonly networkId: Uint8Array;
  readonly discoverySecret: Uint8Array;
  /** Missing while joining, until the registrar has shown it. */
  genesis?: { readonly record: GenesisRecord; readonly envelope: Envelope };
  chain?: AuthorityChain;
  credential?: { readonly credential: Credential; readonly envelope: Envelope };
  profile?: { readonly profile: Profile; readonly envelope: Envelope };
}

/** What an agent knows. */
export class NodeState {
  /** This node's key. */
  keyPair: KeyPair;
  nodeId: string;
  /** Genesis key, unless it was taken offline. */
  genesisPair: KeyPair | undefined;
  operatorPair: KeyPair | undefined;
  network: NetworkState | undefined;
  /** Invite by which this node is joining. */
  invite: Invite | undefined;
  members: MemberTable = new MemberTable();
  revocations: RevocationSet = new RevocationSet();
  /** Grants that were given here, or seen in registrations. */
  readonly grants: Map<string, { readonly grant: InviteGrant; readonly envelope: Envelope }> = new Map();
  readonly pending: Map<string, PendingJoin> = new Map();
  readonly assignments: Map<string, { readonly assignment: Assignment; readonly envelope: Envelope }> = new Map();
  /** Nodes that this registrar admitted by an invite, by the invite's id; kept when a member changes its invite. */
  readonly uses: Map<string, Set<string>> = new Map();
  /** Commands carried out, with the time until which they must be remembered. */
  readonly nonces: Map<string, number> = new Map();
  /** Entries of the store that could not be read and are not needed to go on. */
  readonly unreadable: string[] = [];
  /** Last `seq` of this node's own member record. */
  seq = 0;
  mode: Mode = "normal";
  /** The one payload that this node has signed for the newest epoch it signed. */
  signedEpoch: { readonly epoch: number; readonly payload: Uint8Array } | undefined;

  /**
   * @param entries The whole store.
   * @param newSeed 32 random bytes: the node's key where the store holds none.
   * @throws {WireError} Naming the key of the store that cannot be read.
   */
  constructor(entries: ReadonlyMap<string, Uint8Array>, newSeed: Uint8Array) {
    const seed = entries.get(KEYS.nodeSeed);
    this.keyPair = keyPairFromSeed(seed ?? newSeed);
    this.nodeId = nodeIdOf(this.keyPair.publicKey);
    this.genesisPair = pairOf(entries.get(KEYS.genesisSeed));
    this.operatorPair = pairOf(entries.get(KEYS.operatorSeed));
    for (const [key, value] of [...entries].sort(([a], [b]) => order(a) - order(b) || (a < b ? -1 : 1))) {
      try {
        this.#load(key, value);
      } catch (error) {
        if (!(error instanceof WireError)) throw error;
        // What others said can be heard again; what this node is cannot.
        const spare = /^(member|grant|pending|assignment|use|nonce)\//.test(key) && key !== KEYS.member(this.nodeId);
        if (spare) {
          this.unreadable.push(key);
          continue;
        }
        throw new WireError(`Cannot read stored "${key}": ${error.message}`, { cause: error });
      }
    }
  }

  /** Key of the network that the store belongs to. */
  get networkId(): Uint8Array {
    if (!this.network) throw new WireError("Cannot tell the network: this node has none");
    return this.network.networkId;
  }

  /** Whether this node may issue now. */
  get isIssuer(): boolean {
    return this.network?.chain?.isIssuer(this.keyPair.publicKey) ?? false;
  }

  /** This node's row, once it is a member. */
  get self(): Member | undefined {
    return this.members.get(this.nodeId);
  }

  /** Forgets the network and all that belongs to it; the node's key stays. */
  forgetNetwork(): void {
    this.genesisPair = undefined;
    this.operatorPair = undefined;
    this.network = undefined;
    this.invite = undefined;
    this.members = new MemberTable();
    this.revocations = new RevocationSet();
    this.grants.clear();
    this.pending.clear();
    this.assignments.clear();
    this.uses.clear();
    this.nonces.clear();
    this.mode = "normal";
    this.signedEpoch = undefined;
  }

  #load(key: string, value: Uint8Array): void {
    const [kind, ...rest] = key.split("/");
    const name = rest.join("/");
    switch (kind) {
      case "secret":
        if (name === "discovery.key") {
          const { n, d } = decodeAs(value, record({ n: bytes({ length: 32 }), d: bytes({ length: 32 }) }));
          this.network = { networkId: n, discoverySecret: d };
        }
        if (name === "invite") this.invite = parseInvite(new TextDecoder().decode(value));
        return;
      case "genesis": {
        if (!this.network) return;
        const envelope = decodeAs(value, readEnvelope);
        const genesis = verifyGenesis(envelope, this.network.networkId);
        this.network.genesis = { record: genesis, envelope };
        this.network.chain = AuthorityChain.empty(this.network.networkId, genesis.genesisKey);
        return;
      }
      case "epoch":
        if (this.network?.chain) this.network.chain = this.network.chain.extended(decodeAs(value, readSignedEpoch));
        return;
      case "credential": {
        if (!this.network) return;
        const envelope = decodeAs(value, readEnvelope);
        this.network.credential = { credential: openCredential(envelope, this.network.networkId), envelope };
        return;
      }
      case "profile": {
        if (!this.network) return;
        const envelope = decodeAs(value, readEnvelope);
        this.network.profile = { profile: openProfile(envelope, this.network.networkId), envelope };
        return;
      }
      case "revocation": {
        if (!this.network) return;
        const envelope = decodeAs(value, readEnvelope);
        this.revocations.add(openRevocation(envelope, this.network.networkId), envelope);
        return;
      }
      case "member": {
        if (!this.network) return;
        this.members.merge(openRow(decodeAs(value, readRow), this.network.networkId));
        return;
      }
      case "grant": {
        if (!this.network) return;
        const envelope = decodeAs(value, readEnvelope);
        this.grants.set(name, { grant: openGrant(envelope, this.network.networkId), envelope });
        return;
      }
      case "use": {
        const [id = "", nodeId = ""] = name.split("/");
        this.uses.set(id, (this.uses.get(id) ?? new Set()).add(nodeId));
        return;
      }
      case "nonce":
        this.nonces.set(name, decodeAs(value, uint()));
        return;
      case "pending":
        if (this.network) this.pending.set(name, openPending(value, this.network.networkId));
        return;
      case "assignment": {
        if (!this.network) return;
        const envelope = decodeAs(value, readEnvelope);
        this.assignments.set(name, { assignment: openAssignment(envelope, this.network.networkId), envelope });
        return;
      }
      case "self":
        this.seq = decodeAs(value, uint());
        return;
      case "mode":
        this.mode = decodeAs(value, oneOf(["normal", "safe", "isolated", "drained"]));
        return;
      case "signed-epoch": {
        const { e, p } = decodeAs(value, record({ e: uint(), p: bytes({ max: LIMITS.recordBytesMax }) }));
        this.signedEpoch = { epoch: e, payload: p };
        return;
      }
    }
  }
}

/** Records that others need come first. */
function order(key: string): number {
  const rank = ["secret", "genesis", "epoch", "credential", "profile", "revocation"].indexOf(key.split("/")[0]!);
  return rank < 0 ? 9 : rank;
}

function pairOf(seed: Uint8Array | undefined): KeyPair | undefined {
  return seed ? keyPairFromSeed(seed) : undefined;
}

/** A member as it travels and is stored: record and credential. */
export const readRow = record({ m: readEnvelope, c: readEnvelope });

/** A member as a value for the codec. */
export function rowValue(member: Pick<Member, "recordEnvelope" | "credentialEnvelope">): CborValue {
  return { m: envelopeValue(member.recordEnvelope), c: envelopeValue(member.credentialEnvelope) };
}

/**
 * Opens a row: both signatures valid, and both about the same key. Says nothing about the issuer.
 *
 * @throws {WireError} Where that is not so.
 */
export function openRow(
  row: { readonly m: Envelope; readonly c: Envelope },
  networkId: Uint8Array,
): Member & { readonly credential: Credential } {
  const member = openMember(row.m, networkId);
  const credential = openCredential(row.c, networkId);
  if (toHex(credential.subject) !== toHex(row.m.signer)) {
    throw new WireError("Cannot open member: its record and its credential are of different keys");
  }
  return {
    nodeId: nodeIdOf(row.m.signer),
    publicKey: row.m.signer,
    record: member,
    recordEnvelope: row.m,
    membership: {
      name: credential.name,
      role: credential.role,
      pool: credential.pool,
      issuedMs: credential.issuedMs,
      expiresMs: credential.expiresMs,
      ...(credential.via ? { via: credential.via } : {}),
    },
    credentialEnvelope: row.c,
    credential,
  };
}

const readPending = record({
  m: readEnvelope,
  i: bytes({ length: 16 }),
  t: uint(),
  a: text(512),
  d: oneOf(["waiting", "approved", "denied"]),
  r: text(200),
});

function openPending(value: Uint8Array, networkId: Uint8Array): PendingJoin {
  const read = decodeAs(value, readPending);
  return {
    nodeId: nodeIdOf(read.m.signer),
    publicKey: read.m.signer,
    record: openMember(read.m, networkId),
    recordEnvelope: read.m,
    inviteId: read.i,
    sinceMs: read.t,
    address: read.a,
    decision: read.d,
    reason: read.r,
  };
}

/** A pending join as bytes for the store. */
export function pendingBytes(one: PendingJoin): Uint8Array {
  return encodeCbor({
    m: envelopeValue(one.recordEnvelope),
    i: one.inviteId,
    t: one.sinceMs,
    a: one.address,
    d: one.decision,
    r: one.reason,
  });
}

/** Bytes of an envelope for the store. */
export function envelopeBytes(envelope: Envelope): Uint8Array {
  return encodeCbor(envelopeValue(envelope));
}

/** Bytes of a signed epoch for the store. */
export function epochBytes(signed: SignedEpoch): Uint8Array {
  return encodeCbor(signedEpochValue(signed));
}

/** Epochs in one message: what fits a frame beside everything else. */
export const EPOCHS_IN_MESSAGE_MAX = 512;

/** Reads a list of signed epochs. */
export const readEpochs = array(readSignedEpoch, EPOCHS_IN_MESSAGE_MAX);

/** Reads rows of members. */
export const readRows = array(readRow, LIMITS.membersMax);
