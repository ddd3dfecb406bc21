/**
 * The registrar: admits machines, renews members, gives invites and takes things back.
 *
 * Runs on every issuer. Uses of an invite are counted by the members that carry its id in their
 * credential, so that every issuer counts the same once it has heard of them; while the issuer that gave an
 * invite is reachable, others send newcomers there, so that two of them do not count at once. The Raft group
 * takes this over with the Primary Spore.
 *
 * @module
 */

import { causeCode } from "../bootstrap/diagnosis.ts";
import { implausibilities, roleOf, workOf } from "../bootstrap/capability_check.ts";
import { compareBytes, equalBytes, fromHex, toHex, utf8 } from "../core/bytes.ts";
import { array, bytes, type CborValue, encodeCbor, optional, record, uint, WireError } from "../core/codec.ts";
import { hashParts, type KeyPair } from "../core/crypto.ts";
import { type Envelope, envelopeValue, readEnvelope } from "../core/envelope.ts";
import { nodeIdOf, readAddress, readNodeId, shortNodeId } from "../core/ids.ts";
import { LIMITS } from "../core/limits.ts";
import { type Role, roleFits } from "../core/roles.ts";
import { signedEpochValue } from "../identity/authority.ts";
import {
  CLOCK_SKEW_MS,
  type Credential,
  issueCredential,
  openCredential,
  renewAtMs,
  verifyCredential,
} from "../identity/credential.ts";
import { createInvite, formatInvite, type InviteGrant, openGrant } from "../identity/invite.ts";
import { type JoinTranscript, proveFactor, verifyFactor } from "../identity/join_proof.ts";
import { createRevocation } from "../identity/revocation.ts";
import { type MemberRecord, openMember } from "../membership/record.ts";
import type { Member } from "../membership/table.ts";
import { type Context, DEFERRED, Refusal } from "./context.ts";
import type { PeerView } from "./effects.ts";
import { type Exchange, PROTOCOL_VERSION } from "./exchange.ts";
import {
  envelopeBytes,
  EPOCHS_IN_MESSAGE_MAX,
  KEYS,
  openRow,
  pendingBytes,
  type Put,
  readEpochs,
  rowValue,
} from "./state.ts";
import type { InviteStatus, PendingStatus } from "./status.ts";

/** A challenge is good for one request within this time. */
const CHALLENGE_MS = 60_000;
/** Open challenges of one peer. */
const CHALLENGES_PER_PEER_MAX = 4;
/** A machine that waits for an operator is forgotten after a week; it asks again while it is there. */
const PENDING_MS = 7 * 86_400_000;
/** How long an invite that has run out is still listed. */
const OLD_INVITE_MS = 30 * 86_400_000;
/** Rows of members that a newcomer gets at once; the rest follows by digest. */
const HANDOVER_ROWS_MAX = 200;
/** A day, where an invite says nothing else. */
export const INVITE_TTL_MS = 86_400_000;

const readJoinHello = record({ v: uint(), n: bytes({ length: 32 }) });
const readRegister = record({
  n: bytes({ length: 32 }),
  g: readEnvelope,
  m: readEnvelope,
  w: bytes({ length: 32 }),
  pn: bytes({ length: 64 }),
  pi: bytes({ length: 64 }),
  u: optional(uint(1)),
});
const readRenew = record({ m: readEnvelope, c: readEnvelope, e: optional(uint()) });
const readRenewed = record({
  c: optional(readEnvelope),
  es: optional(readEpochs),
  p: optional(readEnvelope),
  to: optional(array(readAddress, 64)),
});

interface Challenge {
  readonly joinerKey: Uint8Array;
  readonly joinerNonce: Uint8Array;
  readonly registrarNonce: Uint8Array;
  readonly sentMs: number;
}

/** Admits machines, renews members, gives invites and takes things back. */
export class Registrar {
  /** Open challenges by the nonce; the oldest goes when full. */
  readonly #challenges = new Map<string, Challenge>();
  #renewRetryMs = 0;
  #pruneMs = 0;

  constructor(readonly ctx: Context, readonly exchange: Exchange) {
    exchange.renew = (nodeId) => {
      this.askRenewal(nodeId, (result) => {
        if (result.ok) exchange.greet(nodeId);
      });
    };
  }

  /** Serves `join.hello`: who we are, and a challenge. */
  hello(peer: PeerView, body: CborValue): CborValue {
    const { ctx } = this;
    const { v, n } = readJoinHello(body, "join.hello");
    if (v < PROTOCOL_VERSION) throw new Refusal("version-unsupported", `version ${v}, wanted ${PROTOCOL_VERSION}`);
    const network = ctx.state.network;
    const self = ctx.state.self;
    if (!network?.genesis || !network.chain || !self) throw new Refusal("not-a-member", "this node is joining itself");
    const nonce = ctx.entropy.bytes(32);
    // A peer that asks again and again pushes out its own challenges, not those of others.
    const own = [...this.#challenges].filter(([, one]) => equalBytes(one.joinerKey, peer.publicKey));
    if (own.length >= CHALLENGES_PER_PEER_MAX) this.#challenges.delete(own[0]![0]);
    if (this.#challenges.size >= LIMITS.challengesMax) this.#challenges.delete(this.#challenges.keys().next().value!);
    this.#challenges.set(toHex(nonce), {
      joinerKey: peer.publicKey,
      joinerNonce: n,
      registrarNonce: nonce,
      sentMs: ctx.nowMs,
    });
    return {
      v: PROTOCOL_VERSION,
      g: envelopeValue(network.genesis.envelope),
      es: network.chain.since(1).slice(0, EPOCHS_IN_MESSAGE_MAX).map(signedEpochValue),
      s: rowValue(self),
      n: nonce,
      t: ctx.nowMs,
      to: this.#serves ? undefined : this.#issuerAddresses(),
    };
  }

  /** Serves `join.register`: checks every factor, then admits, holds back or refuses. */
  register(peer: PeerView, body: CborValue, inboundId: number): CborValue | typeof DEFERRED {
    const { ctx } = this;
    const read = readRegister(body, "join.register");
    if (!this.#serves) throw new Refusal("not-issuer", "this node may not admit members");
    const transcript = this.#redeem(peer, read);
    const { grant, redirect } = this.#grant(read.g, peer);
    const proved = verifyFactor("node", transcript, peer.publicKey, read.pn) &&
      verifyFactor("invite", transcript, grant.key, read.pi) && equalBytes(read.m.signer, peer.publicKey);
    if (!proved) throw this.#refusal("proof-invalid", "a proof does not fit this channel, request or invite", peer);
    if (redirect) {
      // Where a person has to approve, it is at home that they look.
      const approval = grant.approval || ctx.state.network!.profile?.profile.approval;
      // A newcomer that was sent there and came back has a way to us only: we ask for the use in its place.
      if (!read.u || approval) return { s: "redirect", to: redirect };
      this.#reserveAtHome(nodeIdOf(read.g.signer), inboundId, { peer, read, grant, transcript });
      return DEFERRED;
    }
    // From here on the peer holds an invite of this network: its refusals are worth an entry in the audit log.
    try {
      return this.#decide(peer, read, grant, transcript);
    } catch (error) {
      if (error instanceof Refusal) this.#auditRefusal(peer, error);
      throw error;
    }
  }

  /** Counts a use of an invite at the issuer that gave it, then decides here. */
  #reserveAtHome(home: string, inboundId: number, join: {
    readonly peer: PeerView;
    readonly read: ReturnType<typeof readRegister>;
    readonly grant: InviteGrant;
    readonly transcript: JoinTranscript & { readonly sentMs: number };
  }): void {
    const { ctx } = this;
    const { peer, read, grant, transcript } = join;
    ctx.call(home, "invite.reserve", { i: grant.id, n: peer.nodeId }, 8_000, (result) => {
      const before = ctx.effects.length;
      try {
        if (!result.ok) {
          // Its proofs are valid: what another issuer says, which may lie or have lost its state, is not held against it.
          const code = causeCode(result.code);
          ctx.refuse(`reserve-${code}`, home);
          throw new Refusal(code, "the issuer that gave the invite said no");
        }
        ctx.reply(inboundId, this.#decide(peer, read, grant, transcript), before);
      } catch (error) {
        if (!(error instanceof Refusal) && !(error instanceof WireError)) throw error;
        if (error instanceof Refusal) this.#auditRefusal(peer, error);
        const code = error instanceof Refusal ? error.code : "bad-request";
        ctx.emit({ type: "reply-error", inboundId, code, message: error.message });
      }
    });
  }

  /** Serves `invite.reserve`: another issuer admits a newcomer by an invite that was given here. */
  reserve(peer: PeerView, body: CborValue): CborValue {
    const { ctx } = this;
    const { state } = ctx;
    const { i, n } = record({ i: bytes({ length: 16 }), n: readNodeId })(body, "invite.reserve");
    if (!this.#serves || !state.network!.chain!.isIssuer(peer.publicKey)) {
      throw new Refusal("not-issuer", "only issuers reserve, from issuers");
    }
    const grant = state.grants.get(toHex(i))?.grant;
    if (!grant) throw new Refusal("invite-unknown", "the invite was not given here");
    const usedBy = this.#usedBy(i);
    if (state.revocations.get("invite", i)) throw new Refusal("invite-revoked", "the invite was revoked");
    if (grant.expiresMs <= ctx.nowMs) throw new Refusal("invite-expired", "the invite has run out");
    if (!usedBy.includes(n) && usedBy.length >= grant.uses) {
      throw new Refusal("invite-used-up", `the invite was good for ${grant.uses}`);
    }
    state.uses.set(toHex(i), (state.uses.get(toHex(i)) ?? new Set()).add(n));
    ctx.persist([[KEYS.use(i, n), new Uint8Array(1)]]);
    return {};
  }

  #auditRefusal(peer: PeerView, { code, message }: Refusal): void {
    this.ctx.auditBounded("join-refused", peer.nodeId, `${code}: ${message}`);
  }

  /** Decides about a registration whose proofs are valid. */
  #decide(
    peer: PeerView,
    read: ReturnType<typeof readRegister>,
    grant: InviteGrant,
    transcript: JoinTranscript & { readonly sentMs: number },
  ): CborValue {
    const { ctx } = this;
    const { state } = ctx;
    const wanted = openMember(read.m, state.networkId);
    const known = state.members.get(peer.nodeId);
    if (state.revocations.get("node", peer.publicKey)) throw this.#refusal("revoked", "this node was removed", peer);
    this.#checkInvite(grant, peer, known);
    const role = this.#role(grant, wanted);
    const bad = implausibilities(wanted.capabilities, role, {
      elapsedMs: ctx.nowMs - transcript.sentMs,
      correct: equalBytes(read.w, workOf(transcript.registrarNonce)),
    });
    if (bad.length > 0) {
      throw this.#refusal("capability-implausible", `not plausible: ${bad.join("; ")}`, peer);
    }
    const same = known?.membership.via !== undefined && equalBytes(known.membership.via, grant.id);
    const rises = known !== undefined && !roleFits(known.membership.role, role);
    if (!(same && !rises) && !this.#approved(grant, peer, wanted, read.m)) {
      return { s: "pending", by: state.self!.membership.name };
    }
    if (!known && state.members.size >= LIMITS.membersMax) throw this.#refusal("full", "the network is full", peer);
    const { row, fresh } = this.#admit({
      key: peer.publicKey,
      wanted,
      recordEnvelope: read.m,
      role,
      pool: grant.pool,
      via: grant.id,
      uses: grant.id,
    });
    if (known && known.membership.role !== role) {
      ctx.audit("role-changed", state.nodeId, `${row.membership.name}: ${known.membership.role} -> ${role}`);
    }
    if (fresh) {
      ctx.audit(
        "node-admitted",
        state.nodeId,
        `${row.membership.name} ${row.nodeId} as ${role} by invite ${toHex(grant.id)}`,
      );
      ctx.log("info", "node-admitted", `${row.membership.name} joined as ${role}`, { node: row.nodeId, role });
    }
    const network = state.network!;
    const others = state.members.all().filter((one) => one.nodeId !== row.nodeId).slice(0, HANDOVER_ROWS_MAX);
    return {
      s: "accepted",
      c: envelopeValue(row.credentialEnvelope),
      p: network.profile ? envelopeValue(network.profile.envelope) : undefined,
      es: network.chain!.since(1).slice(0, EPOCHS_IN_MESSAGE_MAX).map(signedEpochValue),
      ms: others.map(rowValue),
      // The rest follows by digest, like the rest of the members.
      r: [...state.revocations.entries()].map(([, one]) => envelopeValue(one.envelope)).slice(0, 1_000),
      x: proveFactor("registrar", transcript, state.keyPair),
    };
  }

  /** Serves `renew`: a member that has been away proves its key by the channel and gets a new credential. */
  renew(peer: PeerView, body: CborValue): CborValue {
    const { ctx } = this;
    const { state } = ctx;
    const read = readRenew(body, "renew");
    if (!this.#serves) return { to: this.#issuerAddresses() };
    if (state.revocations.get("node", peer.publicKey)) throw this.#refusal("revoked", "this node was removed", peer);
    const known = state.members.get(peer.nodeId);
    const old = openCredential(read.c, state.networkId);
    // For a node that is not known here only a present issuer's word counts: who holds the key of one that was
    // removed can date a credential as he likes.
    const vouched = equalBytes(old.subject, peer.publicKey) && state.network!.chain!.isIssuer(read.c.signer) &&
      !state.revocations.get("node", read.c.signer);
    if (!known && !vouched) throw this.#refusal("unknown-member", "this network does not know the node", peer);
    if (!equalBytes(read.m.signer, peer.publicKey)) {
      throw this.#refusal("proof-invalid", "the record is of another key", peer);
    }
    const wanted = openMember(read.m, state.networkId);
    const { role, pool, via } = known?.membership ?? old;
    const bad = implausibilities(wanted.capabilities, "hypha", undefined);
    if (bad.length > 0) throw this.#refusal("capability-implausible", `not plausible: ${bad.join("; ")}`, peer);
    const { row } = this.#admit({
      key: peer.publicKey,
      wanted,
      recordEnvelope: read.m,
      role,
      pool,
      ...(via ? { via } : {}),
    });
    return {
      c: envelopeValue(row.credentialEnvelope),
      es: state.network!.chain!.since((read.e ?? 0) + 1).slice(0, EPOCHS_IN_MESSAGE_MAX).map(signedEpochValue),
      p: state.network!.profile ? envelopeValue(state.network!.profile.envelope) : undefined,
    };
  }

  /** Issues this node's own credential, as the founder and as an issuer. */
  issueSelf(role: Role, pool: string, name: string, via?: Uint8Array): Envelope {
    const { ctx } = this;
    return this.#issue({ subject: ctx.state.keyPair.publicKey, name, role, pool, ...(via ? { via } : {}) });
  }

  /** Regular work: renew ourselves. Returns when it wants to be woken. */
  wake(): number {
    const { ctx } = this;
    const { network, mode } = ctx.state;
    const self = ctx.state.self;
    if (!network?.credential || !self || mode === "isolated") return Infinity;
    for (const [nonce, one] of this.#challenges) {
      if (ctx.nowMs - one.sentMs > CHALLENGE_MS) this.#challenges.delete(nonce);
    }
    for (const [nodeId, one] of ctx.state.pending) {
      if (ctx.nowMs - one.sinceMs <= PENDING_MS) continue;
      ctx.state.pending.delete(nodeId);
      ctx.persist([[KEYS.pending(nodeId), null]]);
    }
    this.#prune();
    // What a departed issuer signed stops counting one epoch later: it is replaced at once.
    const orphaned = !network.chain!.isIssuer(network.credential.envelope.signer);
    // A clock from before the network was founded is not set yet: it says nothing about anybody's dates.
    const ahead = network.credential.credential.issuedMs > ctx.nowMs + CLOCK_SKEW_MS &&
      ctx.nowMs >= network.genesis!.record.createdMs;
    const dueMs = Math.max(orphaned || ahead ? 0 : renewAtMs(network.credential.credential), this.#renewRetryMs);
    if (ctx.nowMs < dueMs) return dueMs;
    const { role, pool, name, via } = network.credential.credential;
    if (ctx.state.isIssuer) {
      this.adopt(this.issueSelf(role, pool, name, via));
      return renewAtMs(ctx.state.network!.credential!.credential);
    }
    const { issuedMs, expiresMs } = network.credential.credential;
    // Often enough for a short life as well; a failed renewal has a third of the life for another try.
    const waitMs = Math.min(20_000, Math.max(500, Math.floor((expiresMs - issuedMs) / 24)));
    this.#renewRetryMs = ctx.nowMs + waitMs + ctx.rng.below(waitMs);
    // A channel is enough: who has been cut off until its credential ran out gets no session before it is renewed.
    const issuers = network.chain!.issuers.map(nodeIdOf).filter((one) => ctx.sessions.has(one));
    if (issuers.length > 0) this.askRenewal(issuers[ctx.rng.below(issuers.length)]!, () => {});
    return this.#renewRetryMs;
  }

  /** The clock was set back: times that were set with it count no longer. */
  clockSetBack(): void {
    this.#renewRetryMs = 0;
    this.#pruneMs = 0;
    this.#challenges.clear();
  }

  /** Forgets invites, and who used them, a month after they have run out: nobody can use them any more. */
  #prune(): void {
    const { ctx } = this;
    const { grants, uses } = ctx.state;
    if (ctx.nowMs < this.#pruneMs) return;
    this.#pruneMs = ctx.nowMs + 3_600_000;
    const puts: Put[] = [];
    for (const [name, { grant }] of grants) {
      if (grant.expiresMs + OLD_INVITE_MS > ctx.nowMs) continue;
      grants.delete(name);
      puts.push([KEYS.grant(grant.id), null]);
      for (const nodeId of uses.get(name) ?? []) puts.push([KEYS.use(grant.id, nodeId), null]);
      uses.delete(name);
    }
    if (puts.length > 0) ctx.persist(puts);
  }

  /** Asks a node for a new credential; `done` gets the outcome. */
  askRenewal(
    nodeId: string,
    done: (
      result: { readonly ok: true } | { readonly ok: false; readonly code: string; readonly to?: readonly string[] },
    ) => void,
  ): void {
    const { ctx } = this;
    const { state } = ctx;
    const self = state.self;
    const network = state.network;
    if (!self || !network?.credential || !network.chain) return done({ ok: false, code: "unknown-member" });
    const request = {
      m: envelopeValue(self.recordEnvelope),
      c: envelopeValue(network.credential.envelope),
      e: network.chain.epoch,
    };
    ctx.call(nodeId, "renew", request, 10_000, (result) => {
      if (!result.ok) return done({ ok: false, code: result.code });
      try {
        const answer = readRenewed(result.body, "renew");
        if (!answer.c) return done({ ok: false, code: "not-issuer", to: answer.to ?? [] });
        this.exchange.learnEpochs(answer.es ?? []);
        const verified = verifyCredential(answer.c, {
          chain: state.network!.chain!,
          revocations: state.revocations,
          nowMs: ctx.nowMs,
          subject: state.keyPair.publicKey,
        });
        if (!verified.ok) {
          return done({ ok: false, code: verified.reason === "not-yet-valid" ? "clock-skew" : "bad-answer" });
        }
        // As at a handoff: what is issued now is issued by those that may now.
        if (!state.network!.chain!.isIssuer(answer.c.signer)) return done({ ok: false, code: "bad-answer" });
        this.adopt(answer.c);
        done({ ok: true });
      } catch (error) {
        // A Refusal: the network was forgotten while the answer was on its way.
        if (!(error instanceof WireError) && !(error instanceof Refusal)) throw error;
        done({ ok: false, code: "bad-answer" });
      }
    });
  }

  /** Takes a new credential into service, stores it and tells the others. Open channels stay. */
  adopt(envelope: Envelope): void {
    const { ctx } = this;
    const { state } = ctx;
    state.network!.credential = { credential: openCredential(envelope, state.networkId), envelope };
    const row = this.exchange.renewedSelf({});
    if (!row) return;
    ctx.persist([
      [KEYS.credential, envelopeBytes(envelope)],
      [KEYS.member(state.nodeId), encodeCbor(rowValue(row))],
      [KEYS.self, encodeCbor(row.record.seq)],
    ], () => this.exchange.tell({ rows: [row] }));
    ctx.log("info", "credential-renewed", "The membership credential was renewed", {
      expiresMs: state.network!.credential.credential.expiresMs,
    });
  }

  /** Gives an invite; the token is shown once and not kept. */
  createInvite(options: {
    readonly role?: Role;
    readonly pool?: string;
    readonly uses?: number;
    readonly ttlMs?: number;
    readonly approval?: boolean;
  }): { readonly token: string; readonly id: string; readonly expiresMs: number } {
    const { ctx } = this;
    const { state } = ctx;
    if (!this.#serves) {
      throw new Refusal(
        "not-issuer",
        "This node may not give invites: it is not an issuer of the network",
        `Run it on one of: ${this.#issuerNames().join(", ") || "the nodes listed by: mycelium peers"}`,
      );
    }
    const open = this.invites().filter((one) => one.state === "open");
    if (open.length >= LIMITS.invitesMax) {
      throw new Refusal("full", `${open.length} invites are open`, "Revoke some: mycelium invite revoke <id>");
    }
    const invite = createInvite({
      ...(options.role ? { role: options.role } : {}),
      pool: options.pool ?? "default",
      uses: options.uses ?? 1,
      createdMs: ctx.nowMs,
      expiresMs: ctx.nowMs + (options.ttlMs ?? INVITE_TTL_MS),
      approval: options.approval ?? false,
      seed: ctx.entropy.bytes(32),
      networkId: state.networkId,
      discoverySecret: state.network!.discoverySecret,
      addresses: inviteAddresses(ctx.addresses),
      anchor: { epoch: state.network!.chain!.epoch, hash: state.network!.chain!.head },
      issuer: state.keyPair,
    });
    state.grants.set(toHex(invite.grant.id), { grant: invite.grant, envelope: invite.grantEnvelope });
    ctx.persist([[KEYS.grant(invite.grant.id), envelopeBytes(invite.grantEnvelope)]]);
    const id = toHex(invite.grant.id);
    ctx.audit(
      "invite-created",
      state.nodeId,
      `${id} role ${invite.grant.role ?? "any but sclerotium"} uses ${invite.grant.uses}`,
    );
    return { token: formatInvite(invite), id, expiresMs: invite.grant.expiresMs };
  }

  /** Takes an invite back. */
  revokeInvite(id: string): { readonly id: string } {
    const matches = [...this.ctx.state.grants.keys()].filter((one) =>
      one.startsWith(id.toLowerCase()) && id.length >= 4
    );
    if (matches.length !== 1) {
      throw new Refusal(
        matches.length === 0 ? "not-found" : "ambiguous",
        `Cannot revoke invite "${id}": ${matches.length} invites match`,
        "List them: mycelium invite list",
      );
    }
    this.#revoke("invite", fromHex(matches[0]!)!, "revoked by an operator");
    return { id: matches[0]! };
  }

  /** Takes back all open invites that were given here since a time; returns how many. */
  revokeInvites(sinceMs: number): number {
    const open = this.invites().filter((one) => one.state === "open" && one.createdMs >= sinceMs);
    for (const { id } of open) this.#revoke("invite", fromHex(id)!, "given with many others");
    return open.length;
  }

  /** Removes a node for good. */
  removeNode(member: Member, reason: string): void {
    this.#revoke("node", member.publicKey, reason);
    this.ctx.audit("node-removed", this.ctx.state.nodeId, `${member.membership.name} ${member.nodeId}: ${reason}`);
  }

  /** An operator decides about a machine that waits. */
  decide(nodeId: string, decision: "approved" | "denied", reason: string): void {
    const { ctx } = this;
    const pending = ctx.state.pending.get(nodeId)!;
    const decided = { ...pending, decision, reason };
    ctx.state.pending.set(nodeId, decided);
    ctx.persist([[KEYS.pending(nodeId), pendingBytes(decided)]]);
    ctx.audit(`node-${decision}`, ctx.state.nodeId, `${pending.record.name} ${nodeId} ${reason}`);
  }

  /** Invites given here. */
  invites(): InviteStatus[] {
    const { state, nowMs } = this.ctx;
    return [...state.grants.values()].filter((one) => equalBytes(one.envelope.signer, state.keyPair.publicKey)).map(
      ({ grant }) => {
        const usedBy = this.#usedBy(grant.id);
        const revoked = state.revocations.get("invite", grant.id) !== undefined;
        return {
          id: toHex(grant.id),
          ...(grant.role ? { role: grant.role } : {}),
          pool: grant.pool,
          uses: grant.uses,
          usesLeft: Math.max(0, grant.uses - usedBy.length),
          createdMs: grant.createdMs,
          expiresMs: grant.expiresMs,
          approval: grant.approval,
          state: revoked
            ? "revoked"
            : usedBy.length >= grant.uses
            ? "used-up"
            : grant.expiresMs <= nowMs
            ? "expired"
            : "open",
          usedBy: usedBy.map((one) => state.members.get(one)?.membership.name ?? shortNodeId(one)),
        };
      },
    );
  }

  /** Machines that wait for an operator. */
  pending(): PendingStatus[] {
    return [...this.ctx.state.pending.values()].filter((one) => one.decision === "waiting").map((one) => ({
      nodeId: one.nodeId,
      name: one.record.name,
      role: one.record.role,
      sinceMs: one.sinceMs,
      address: one.address,
      capabilities: one.record.capabilities,
    }));
  }

  /** Whether this node admits members now. */
  get #serves(): boolean {
    const { state } = this.ctx;
    return state.isIssuer && state.mode !== "safe" && state.mode !== "isolated" && state.self !== undefined;
  }

  #redeem(
    peer: PeerView,
    read: { readonly n: Uint8Array; readonly g: Envelope; readonly m: Envelope; readonly w: Uint8Array },
  ): JoinTranscript & { readonly sentMs: number } {
    const challenge = this.#challenges.get(toHex(read.n));
    // Good for one request, whatever comes of it.
    this.#challenges.delete(toHex(read.n));
    const fits = challenge && equalBytes(challenge.joinerKey, peer.publicKey) &&
      this.ctx.nowMs - challenge.sentMs <= CHALLENGE_MS;
    if (!fits) throw this.#refusal("replayed", "the challenge is unknown, used, of another node or has run out", peer);
    return {
      networkId: this.ctx.state.networkId,
      registrarKey: this.ctx.state.keyPair.publicKey,
      joinerKey: peer.publicKey,
      registrarNonce: challenge.registrarNonce,
      joinerNonce: challenge.joinerNonce,
      channelBinding: peer.channelBinding ?? new Uint8Array(0),
      requestHash: registerHash(read),
      sentMs: challenge.sentMs,
    };
  }

  #grant(envelope: Envelope, peer: PeerView): { readonly grant: InviteGrant; readonly redirect?: readonly string[] } {
    const { ctx } = this;
    const { state } = ctx;
    let grant: InviteGrant;
    try {
      grant = openGrant(envelope, state.networkId);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      this.ctx.refuse("invite-unknown", peer.remoteAddress);
      throw new Refusal("invite-unknown", "the invite is not of this network");
    }
    if (!state.network!.chain!.counts(envelope.signer)) {
      throw new Refusal("invite-unknown", "the invite's issuer does not count any more");
    }
    const home = nodeIdOf(envelope.signer);
    const homeRow = state.members.get(home);
    if (
      home !== state.nodeId && homeRow && ctx.sessions.get(home)?.member &&
      state.network!.chain!.isIssuer(envelope.signer)
    ) {
      return { grant, redirect: homeRow.record.addresses };
    }
    return { grant };
  }

  #checkInvite(grant: InviteGrant, peer: PeerView, known: Member | undefined): void {
    const { state, nowMs } = this.ctx;
    const again = known?.membership.via !== undefined && compareBytes(known.membership.via, grant.id) === 0;
    // The answer to an admitted node may have been lost: asking again with the same invite is no second use.
    if (again) return;
    if (state.revocations.get("invite", grant.id)) {
      throw this.#refusal("invite-revoked", "the invite was revoked", peer);
    }
    if (grant.expiresMs <= nowMs) throw this.#refusal("invite-expired", "the invite has run out", peer);
    if (grant.createdMs > nowMs + CLOCK_SKEW_MS) {
      throw this.#refusal("clock-skew", "the invite is from the future", peer);
    }
    if (this.#usedBy(grant.id).length >= grant.uses) {
      throw this.#refusal("invite-used-up", `the invite was good for ${grant.uses}`, peer);
    }
  }

  /** Nodes that joined by an invite: as members say, and as this registrar remembers. */
  #usedBy(inviteId: Uint8Array): string[] {
    const { state } = this.ctx;
    return [...new Set([...state.members.joinedBy(inviteId), ...state.uses.get(toHex(inviteId)) ?? []])];
  }

  #role(grant: InviteGrant, wanted: MemberRecord): Role {
    const able = roleOf(wanted.capabilities);
    if (grant.role) {
      return roleFits(wanted.role, grant.role) ? grant.role : wanted.role;
    }
    // Being an issuer is a matter of trust, not of memory: an invite has to say so.
    const asked = roleFits(able, wanted.role) ? wanted.role : able;
    return asked === "sclerotium" ? "rhizomorph" : asked;
  }

  #approved(grant: InviteGrant, peer: PeerView, wanted: MemberRecord, recordEnvelope: Envelope): boolean {
    const { ctx } = this;
    const { state } = ctx;
    if (!grant.approval && !state.network!.profile?.profile.approval) return true;
    const found = state.pending.get(peer.nodeId);
    // An approval is for one invite: another one may give another role.
    const pending = found && equalBytes(found.inviteId, grant.id) ? found : undefined;
    if (pending?.decision === "denied") {
      throw this.#refusal("approval-denied", pending.reason || "an operator refused", peer);
    }
    if (pending?.decision === "approved") return true;
    if (!pending) {
      if (state.pending.size >= LIMITS.pendingJoinsMax) {
        throw this.#refusal("overloaded", "too many machines wait for approval", peer);
      }
      const waiting = {
        nodeId: peer.nodeId,
        publicKey: peer.publicKey,
        record: wanted,
        recordEnvelope,
        inviteId: grant.id,
        sinceMs: ctx.nowMs,
        address: peer.remoteAddress,
        decision: "waiting" as const,
        reason: "",
      };
      state.pending.set(peer.nodeId, waiting);
      ctx.persist([[KEYS.pending(peer.nodeId), pendingBytes(waiting)]]);
      ctx.log(
        "info",
        "approval-wanted",
        `${wanted.name} waits for approval: mycelium node approve ${shortNodeId(peer.nodeId)}`,
        {
          node: peer.nodeId,
        },
      );
    }
    return false;
  }

  #admit(admission: {
    readonly key: Uint8Array;
    readonly wanted: MemberRecord;
    readonly recordEnvelope: Envelope;
    readonly role: Role;
    readonly pool: string;
    readonly via?: Uint8Array;
    /** Invite of which this is a use; a renewal is none. */
    readonly uses?: Uint8Array;
  }): { readonly row: Member; readonly fresh: boolean } {
    const { ctx } = this;
    const { state } = ctx;
    const nodeId = nodeIdOf(admission.key);
    const fresh = !state.members.get(nodeId);
    const name = state.members.get(nodeId)?.membership.name ?? this.#freeName(admission.wanted.name, nodeId);
    const credentialEnvelope = this.#issue({
      subject: admission.key,
      name,
      role: admission.role,
      pool: admission.pool,
      ...(admission.via ? { via: admission.via } : {}),
    });
    const opened = openRow({ m: admission.recordEnvelope, c: credentialEnvelope }, state.networkId);
    const row = state.members.merge(opened, ctx.nowMs + CLOCK_SKEW_MS) ?? opened;
    state.pending.delete(nodeId);
    // The answer leaves only after this is durable: a registrar that dies must not admit twice by one invite.
    const via = admission.uses;
    if (via) state.uses.set(toHex(via), (state.uses.get(toHex(via)) ?? new Set()).add(nodeId));
    ctx.persist([
      [KEYS.member(nodeId), encodeCbor(rowValue(row))],
      [KEYS.pending(nodeId), null],
      ...(via ? [[KEYS.use(via, nodeId), new Uint8Array(1)] as const] : []),
    ]);
    this.exchange.tell({ rows: [row] });
    this.exchange.changed("member");
    return { row, fresh };
  }

  #issue(subject: Pick<Credential, "subject" | "name" | "role" | "pool" | "via">): Envelope {
    const { state, nowMs, config } = this.ctx;
    const known = state.members.get(nodeIdOf(subject.subject))?.membership.issuedMs ?? 0;
    // A clock that was set back a little must not make a newer credential look older than the one it replaces. One
    // that was dated far ahead is accepted by nobody, and replaced.
    const issuedMs = known > nowMs + CLOCK_SKEW_MS ? nowMs : Math.max(nowMs, known + 1);
    return issueCredential(
      {
        ...subject,
        issuedMs,
        expiresMs: issuedMs + config.credentialLifetimeMs,
        epoch: state.network!.chain!.epoch,
      },
      state.networkId,
      state.keyPair,
    );
  }

  #freeName(wanted: string, nodeId: string): string {
    const taken = this.ctx.state.members.all().some((one) => one.membership.name === wanted);
    return taken
      ? `${wanted.slice(0, 54).replace(/[.-]+$/, "")}-${toHex(hashParts("mycelium/name/v1", utf8(nodeId))).slice(0, 6)}`
      : wanted;
  }

  #revoke(kind: "node" | "invite", subject: Uint8Array, reason: string): void {
    const { ctx } = this;
    if (!this.#serves) {
      throw new Refusal(
        "not-issuer",
        "This node may not take anything back: it is not an issuer of the network",
        `Run it on one of: ${this.#issuerNames().join(", ")}`,
      );
    }
    const pair: KeyPair = ctx.state.keyPair;
    const envelope = createRevocation({ kind, subject, reason, atMs: ctx.nowMs }, ctx.state.networkId, pair);
    if (this.exchange.learnRevocation(envelope)) this.exchange.tell({ revocations: [envelope] });
    // Believing that a node was removed would be worse than hearing that it was not.
    if (!ctx.state.revocations.get(kind, subject)) {
      throw new Refusal("full", `${ctx.state.revocations.size} things were taken back already`, "Form a new network");
    }
    ctx.audit(`${kind}-revoked`, ctx.state.nodeId, `${toHex(subject)}: ${reason}`);
  }

  #refusal(code: string, message: string, peer: PeerView): Refusal {
    this.ctx.refuse(code, peer.remoteAddress);
    return new Refusal(code, message);
  }

  #issuerAddresses(): readonly string[] {
    const { state } = this.ctx;
    return state.network!.chain!.issuers.flatMap((key) => state.members.get(nodeIdOf(key))?.record.addresses ?? [])
      .slice(0, 32);
  }

  #issuerNames(): string[] {
    const { state } = this.ctx;
    return (state.network?.chain?.issuers ?? []).flatMap((key) =>
      state.members.get(nodeIdOf(key))?.membership.name ?? []
    );
  }
}

/** Hash of a registration request as its proofs cover it. */
export function registerHash(
  request: { readonly g: Envelope; readonly m: Envelope; readonly w: Uint8Array },
): Uint8Array {
  return hashParts("mycelium/register/v1", request.g.payload, request.m.payload, request.m.signer, request.w);
}

/** Addresses worth carrying in an invite: one QUIC and one TCP of each host address, loopback last. */
function inviteAddresses(addresses: readonly string[]): readonly string[] {
  const loopback = (one: string) => one.startsWith("/ip4/127.") || one.startsWith("/ip6/::1/");
  return [...addresses].sort((a, b) => Number(loopback(a)) - Number(loopback(b))).slice(0, 6);
}
