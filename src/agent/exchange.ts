/**
 * What members tell each other: sessions, members, authority epochs, revocations, the profile.
 *
 * News is broadcast on arrival; a digest with one random member every minute repairs what was lost.
 *
 * @module
 */

import { equalBytes, utf8 } from "../core/bytes.ts";
import {
  array,
  bytes,
  type CborValue,
  decodeAs,
  encodeCbor,
  optional,
  record,
  uint,
  WireError,
} from "../core/codec.ts";
import { hashParts } from "../core/crypto.ts";
import { type Envelope, envelopeValue, readEnvelope } from "../core/envelope.ts";
import { nodeIdOf, readNodeId } from "../core/ids.ts";
import { LIMITS } from "../core/limits.ts";
import { backoffMs, shuffled } from "../core/rng.ts";
import type { Role } from "../core/roles.ts";
import { roleOf } from "../bootstrap/capability_check.ts";
import { causeCode } from "../bootstrap/diagnosis.ts";
import { AuthorityChain, type SignedEpoch, signedEpochValue } from "../identity/authority.ts";
import { CLOCK_SKEW_MS, verifyCredential } from "../identity/credential.ts";
import { createRevocation, openRevocation } from "../identity/revocation.ts";
import { type MemberRecord, sealMember } from "../membership/record.ts";
import { DIGEST_BUCKETS, type Member, supersedes } from "../membership/table.ts";
import { openProfile, sealProfile } from "../spore/profile.ts";
import { type Context, Refusal, type Session } from "./context.ts";
import type { PeerView } from "./effects.ts";
import {
  envelopeBytes,
  epochBytes,
  EPOCHS_IN_MESSAGE_MAX,
  KEYS,
  openRow,
  type Put,
  readEpochs,
  readRows,
  rowValue,
} from "./state.ts";

/** A channel to a member that is no session after so long is worth an introduction of our own. */
const HALF_MS = 5_000;
const INTRODUCE = { baseMs: 3_000, maxMs: 120_000 } as const;
/** More items that were learnt at once are not broadcast one by one. */
const TELL_MAX = 16;
/** Members that are compared with instead. */
const COMPARE_WITH = 3;
/** Epochs in one broadcast. */
const EPOCHS_IN_NEWS_MAX = 16;
/** Time between two digests. */
export const SYNC_EVERY_MS = 60_000;
/** Rows in one message. */
const ROWS_MAX = 200;

const readHello = record({
  v: uint(),
  m: readEnvelope,
  c: readEnvelope,
  e: uint(),
  es: optional(readEpochs),
});

const readNews = record({
  m: optional(readRows),
  es: optional(readEpochs),
  r: optional(array(readEnvelope, LIMITS.revocationsMax)),
  p: optional(readEnvelope),
});

const readDigest = record({
  d: array(bytes({ length: 8 }), DIGEST_BUCKETS),
  e: uint(),
  r: bytes({ length: 8 }),
  p: uint(),
});

const readDelta = record({
  b: array(uint(DIGEST_BUCKETS - 1), DIGEST_BUCKETS),
  m: readRows,
  es: optional(readEpochs),
  e: uint(),
  r: optional(array(readEnvelope, LIMITS.revocationsMax)),
  w: optional(uint(1)),
  p: optional(readEnvelope),
});

/** Version of the protocol that is spoken, and the oldest that is understood. */
export const PROTOCOL_VERSION = 1;

/** Something that other members should hear. */
export interface News {
  readonly rows?: readonly Member[];
  readonly epochs?: readonly SignedEpoch[];
  readonly revocations?: readonly Envelope[];
  readonly profile?: Envelope;
}

/** Sessions between members and the exchange of what they know. */
export class Exchange {
  /** When this run of the agent began. */
  startedMs = 0;
  /** A node has epochs that contradict ours: it may not know of a decision about a split. */
  contradicted: (nodeId: string) => void = () => {};
  /** A member has shown its credential: told to the parts. */
  sessionUp: (nodeId: string) => void = () => {};
  /** Broadcasts a body of news. `has`: a member that has it already. */
  broadcast: (body: Uint8Array, has?: string) => void = () => {};
  /** Asks a node for a new credential: the registrar's part. */
  renew: (nodeId: string) => void = () => {};
  #nextSyncMs = 0;
  /** Whom each failed introduction may be tried with again, and when. */
  readonly #introduceAgainMs = new Map<string, number>();
  /** Introductions to an open channel that failed in a row. */
  readonly #introduceFailures = new Map<string, number>();
  /** Nodes that we are showing ourselves to just now. */
  readonly #greeting = new Set<string>();

  constructor(
    readonly ctx: Context,
    readonly changed: (what: "member" | "authority" | "revocation" | "session" | "expelled") => void,
  ) {}

  /** Shows ourselves to a node that a channel is open to; `done` gets the outcome. */
  introduce(
    nodeId: string,
    done: (
      result: { readonly ok: true } | { readonly ok: false; readonly code: string; readonly message: string },
    ) => void,
  ): void {
    const { state } = this.ctx;
    const network = state.network;
    const self = state.self;
    if (!network?.chain || !network.credential || !self) {
      return done({ ok: false, code: "not-a-member", message: "this node has no credential yet" });
    }
    this.ctx.call(
      nodeId,
      "session.hello",
      this.#hello(self, network.chain.epoch, recent(network.chain)),
      10_000,
      (result) => {
        const session = this.ctx.sessions.get(nodeId);
        if (!result.ok) return done(result);
        if (!session) return done({ ok: false, code: "unreachable", message: "the channel closed" });
        try {
          this.#accept(session, readHello(result.body, "session.hello"));
          session.introduced = true;
          this.#introduceFailures.delete(nodeId);
          done({ ok: true });
        } catch (error) {
          if (error instanceof Refusal) return done({ ok: false, code: error.code, message: error.message });
          if (error instanceof WireError) return done({ ok: false, code: "bad-answer", message: error.message });
          throw error;
        }
      },
    );
  }

  /** The role that this node would like: as configured, else what it is fit for. */
  ownRole(): Role {
    const { config, capabilities } = this.ctx;
    return config.role === "auto" ? (capabilities ? roleOf(capabilities) : "hypha") : config.role;
  }

  /** Serves `session.hello`. */
  hello(peer: PeerView, body: CborValue): CborValue {
    const { state } = this.ctx;
    const self = state.self;
    const session = this.ctx.sessions.get(peer.nodeId);
    if (!state.network?.chain || !self || !session) {
      throw new Refusal("not-a-member", "this node is not a member itself yet");
    }
    const hello = readHello(body, "session.hello");
    if (hello.v < PROTOCOL_VERSION) {
      throw new Refusal("version-unsupported", `version ${hello.v}, wanted ${PROTOCOL_VERSION}`);
    }
    this.#accept(session, hello);
    session.introduced = true;
    const chain = state.network.chain;
    return this.#hello(self, chain.epoch, chain.since(hello.e + 1).slice(0, EPOCHS_IN_MESSAGE_MAX));
  }

  /** Serves `push`. */
  push(peer: PeerView, body: CborValue): CborValue {
    this.#learn(readNews(body, "push"), peer.nodeId);
    return {};
  }

  /** Takes in news that was broadcast; returns whether any of it was new. @throws {WireError} Where it is none. */
  hear(from: string, body: Uint8Array): boolean {
    // What is new is passed on as it came: telling it once more would be another message.
    return this.#learn(decodeAs(body, readNews), from, false);
  }

  /** Serves `sync`. */
  sync(body: CborValue): CborValue {
    const { state } = this.ctx;
    const ask = readDigest(body, "sync");
    const chain = this.#chain();
    const mine = state.members.digest();
    const buckets = mine.flatMap((hash, i) => ask.d[i] && equalBytes(hash, ask.d[i]) ? [] : [i]);
    const differs = !equalBytes(ask.r, this.#revocationDigest());
    const profile = state.network?.profile;
    return {
      b: buckets,
      m: state.members.inBuckets(buckets).slice(0, ROWS_MAX).map(rowValue),
      es: chain.since(ask.e + 1).slice(0, EPOCHS_IN_MESSAGE_MAX).map(signedEpochValue),
      e: chain.epoch,
      r: differs ? this.#revocations() : undefined,
      w: differs ? 1 : undefined,
      p: profile && profile.profile.seq > ask.p ? envelopeValue(profile.envelope) : undefined,
    };
  }

  /**
   * Tells other members. `from` has it already.
   *
   * One item a message: whoever tells the same item sends the same bytes, and those are broadcast once only.
   */
  tell(news: News, from?: string): void {
    const say = (value: CborValue) => this.broadcast(encodeCbor(value), from);
    const epochs = news.epochs ?? [];
    for (let at = 0; at < epochs.length; at += EPOCHS_IN_NEWS_MAX) {
      say({ es: epochs.slice(at, at + EPOCHS_IN_NEWS_MAX).map(signedEpochValue) });
    }
    for (const one of news.revocations ?? []) say({ r: [envelopeValue(one)] });
    for (const row of news.rows ?? []) say({ m: [rowValue(row)] });
    if (news.profile) say({ p: envelopeValue(news.profile) });
  }

  /** Regular work; returns when it wants to be woken. */
  wake(): number {
    const { ctx } = this;
    if (ctx.state.mode === "isolated") {
      // Operators still open channels to this node; it shows itself to nobody.
      this.#introduceAgainMs.clear();
      return Infinity;
    }
    for (const [nodeId, againMs] of this.#introduceAgainMs) {
      // The other side may have come to us meanwhile: an entry that nobody needs must not wake us for ever.
      const session = ctx.sessions.get(nodeId);
      if (!session || isWhole(session)) this.#introduceAgainMs.delete(nodeId);
      else if (ctx.nowMs >= againMs) this.greet(nodeId);
    }
    for (const [nodeId, session] of ctx.sessions) {
      // Whoever dialed: an answer that was lost leaves a session that only one side knows of.
      const member = ctx.state.members.get(nodeId);
      const half = member && !isWhole(session) && !member.record.left &&
        !ctx.state.revocations.get("node", member.publicKey);
      if (half && !this.#introduceAgainMs.has(nodeId)) {
        this.#introduceAgainMs.set(nodeId, ctx.nowMs + HALF_MS + ctx.rng.below(HALF_MS));
      }
      const credential = member?.membership;
      // An open channel does not outlive the credential that opened it.
      if (session.member && credential && credential.expiresMs + CLOCK_SKEW_MS < ctx.nowMs) {
        session.member = false;
        ctx.refuse("expired", session.peer.remoteAddress);
        ctx.emit({ type: "hang-up", nodeId, reason: "its credential has expired" });
      }
    }
    if (ctx.nowMs >= this.#nextSyncMs) {
      this.#nextSyncMs = ctx.nowMs + SYNC_EVERY_MS - SYNC_EVERY_MS / 10 + ctx.rng.below(SYNC_EVERY_MS / 5);
      const [partner] = shuffled(ctx.memberPeers(), ctx.rng);
      if (partner) this.syncWith(partner);
    }
    return Math.min(this.#nextSyncMs, ...this.#introduceAgainMs.values());
  }

  /** Whether a node has just refused us: it is asked again when its time has come, and not for every other reason. */
  refusedBy(nodeId: string): boolean {
    return this.#introduceFailures.has(nodeId);
  }

  /** Introduces ourselves and compares notes; tried again later where it fails. */
  greet(nodeId: string): void {
    this.#introduceAgainMs.delete(nodeId);
    if (this.#greeting.has(nodeId)) return;
    this.#greeting.add(nodeId);
    this.introduce(nodeId, (result) => {
      this.#greeting.delete(nodeId);
      if (result.ok) return this.syncWith(nodeId);
      const session = this.ctx.sessions.get(nodeId);
      // It has refused us, and done nothing that the rules for incidents look for.
      this.ctx.refuse(`hello-${causeCode(result.code)}`, session?.peer.remoteAddress ?? nodeId);
      // An issuer could revoke us anyway: its word is enough, that of others is not.
      if (result.code === "revoked" && session && this.#chain().isIssuer(session.peer.publicKey)) {
        this.changed("expelled");
      }
      if (this.ctx.sessions.has(nodeId)) {
        // An issuer that was removed may have renewed us, and its word may be all that we know: whoever does not
        // count it any more has the epochs that we lack, and gives them with a new credential.
        if (result.code === "unknown-issuer" || result.code === "expired") this.renew(nodeId);
        // Who was removed is refused for as long as it asks: it asks less and less often.
        const failures = this.#introduceFailures.get(nodeId) ?? 0;
        this.#introduceFailures.set(nodeId, failures + 1);
        const waitMs = 2_000 + backoffMs(failures, INTRODUCE, this.ctx.rng);
        this.#introduceAgainMs.set(nodeId, this.ctx.nowMs + waitMs);
      }
    });
  }

  /** The clock was set back: times that were set with it count no longer. */
  clockSetBack(): void {
    this.#nextSyncMs = 0;
    for (const nodeId of this.#introduceAgainMs.keys()) this.#introduceAgainMs.set(nodeId, 0);
  }

  /** A channel has closed. */
  closed(nodeId: string): void {
    this.#greeting.delete(nodeId);
    this.#introduceAgainMs.delete(nodeId);
    this.#introduceFailures.delete(nodeId);
  }

  /** Compares digests with one member and exchanges what differs. */
  syncWith(nodeId: string): void {
    const { state } = this.ctx;
    const chain = this.#chain();
    const value: CborValue = {
      d: [...state.members.digest()],
      e: chain.epoch,
      r: this.#revocationDigest(),
      p: state.network?.profile?.profile.seq ?? 0,
    };
    this.ctx.call(nodeId, "sync", value, 20_000, (result) => {
      if (!result.ok) return;
      try {
        const delta = readDelta(result.body, "sync");
        const theirs = new Map(delta.m.map((row) => {
          const opened = openRow(row, state.networkId);
          return [opened.nodeId, opened] as const;
        }));
        const newer = state.members.inBuckets(delta.b).filter((mine) => {
          const their = theirs.get(mine.nodeId);
          return !their || supersedes(mine, their);
        });
        this.#learn({ ...delta }, nodeId);
        const epochs = this.#chain().since(delta.e + 1).slice(0, EPOCHS_IN_MESSAGE_MAX);
        const revocations = delta.w ? [...state.revocations.entries()].map(([, one]) => one.envelope) : [];
        if (newer.length > 0 || epochs.length > 0 || revocations.length > 0) {
          this.ctx.call(
            nodeId,
            "push",
            {
              m: newer.slice(0, ROWS_MAX).map(rowValue),
              es: epochs.map(signedEpochValue),
              r: revocations.map(envelopeValue),
            },
            20_000,
            () => {},
          );
        }
      } catch (error) {
        if (!(error instanceof WireError) && !(error instanceof Refusal)) throw error;
        this.ctx.refuse("bad-answer", nodeId);
      }
    });
  }

  /** A new record of this node itself, with what changed; told to everybody. */
  publishSelf(change: Partial<MemberRecord>): void {
    const { state } = this.ctx;
    const row = this.renewedSelf(change);
    if (!row) return;
    this.ctx.persist([
      [KEYS.member(state.nodeId), encodeCbor(rowValue(row))],
      [KEYS.self, encodeCbor(row.record.seq)],
    ], () => this.tell({ rows: [row] }));
    this.changed("member");
  }

  /** Makes and merges a new record of this node itself; the caller stores and tells it. */
  renewedSelf(change: Partial<MemberRecord>): Member | undefined {
    const { state } = this.ctx;
    const self = state.self;
    if (!self || !state.network?.credential) return undefined;
    // A clock as part of the number lets a node whose store was lost still overtake its old records.
    state.seq = Math.max(state.seq, self.record.seq, this.ctx.nowMs) + 1;
    const member: MemberRecord = { ...self.record, ...change, seq: state.seq };
    const recordEnvelope = sealMember(member, state.networkId, state.keyPair);
    const row = openRow({ m: recordEnvelope, c: state.network.credential.envelope }, state.networkId);
    state.members.merge(row, this.ctx.nowMs + CLOCK_SKEW_MS);
    return state.self;
  }

  /**
   * Merges epochs into the chain and stores the new ones.
   *
   * @throws {WireError} When one does not follow or contradicts what is known.
   */
  learnEpochs(epochs: readonly SignedEpoch[]): readonly SignedEpoch[] {
    const { state } = this.ctx;
    const before = this.#chain();
    const after = before.merged(epochs);
    const fresh = after.since(before.epoch + 1);
    if (fresh.length === 0) return [];
    state.network!.chain = after;
    this.ctx.persist(fresh.map((one, i) => [KEYS.epoch(before.epoch + 1 + i), epochBytes(one)]));
    this.#renewSignatures();
    this.ctx.log("info", "authority-epoch", `Authority epoch ${after.epoch} with ${after.issuers.length} issuers`, {
      epoch: after.epoch,
    });
    this.changed("authority");
    return fresh;
  }

  /**
   * Puts another chain in the place of ours, from an epoch on: what the genesis key has decided after a split.
   *
   * @param chain The whole chain that counts, verified.
   * @param fromEpoch Number of the first epoch that differs.
   */
  replaceChain(chain: AuthorityChain, fromEpoch: number): void {
    const { state } = this.ctx;
    const before = this.#chain();
    state.network!.chain = chain;
    // What was signed for the other half binds nobody any more.
    state.signedEpoch = undefined;
    const puts: Put[] = [[KEYS.signedEpoch, null]];
    for (let n = fromEpoch; n <= Math.max(before.epoch, chain.epoch); n++) {
      const [signed] = chain.since(n);
      puts.push([KEYS.epoch(n), signed && n <= chain.epoch ? epochBytes(signed) : null]);
    }
    this.ctx.persist(puts);
    this.#renewSignatures();
    this.changed("authority");
  }

  /** Signs again what only an issuer that has left the chain had signed: revocations and the profile. */
  #renewSignatures(): void {
    const { state, nowMs } = this.ctx;
    const network = state.network!;
    const chain = network.chain!;
    if (!chain.isIssuer(state.keyPair.publicKey)) return;
    for (const [name, { revocation, envelope }] of [...state.revocations.entries()]) {
      if (chain.isIssuer(envelope.signer)) continue;
      const again = createRevocation(revocation, network.networkId, state.keyPair);
      state.revocations.resign(revocation, again);
      this.ctx.persist([[KEYS.revocation(name), envelopeBytes(again)]]);
    }
    if (network.profile && !chain.isIssuer(network.profile.envelope.signer)) {
      const profile = { ...network.profile.profile, seq: network.profile.profile.seq + 1, issuedMs: nowMs };
      const envelope = sealProfile(profile, network.networkId, state.keyPair);
      network.profile = { profile, envelope };
      this.ctx.persist([[KEYS.profile, envelopeBytes(envelope)]]);
      this.tell({ profile: envelope });
    }
  }

  /** Adds a revocation made here or heard of; returns whether it is new. */
  learnRevocation(envelope: Envelope): boolean {
    const { state } = this.ctx;
    const revocation = openRevocation(envelope, state.networkId);
    if (state.revocations.get(revocation.kind, revocation.subject)) return false;
    // Only a present issuer takes something back: the key of one that was removed may be in a thief's hands.
    // What a departed issuer revoked in its time is signed again by those that stay.
    const counts = this.#chain().isIssuer(envelope.signer) && !state.revocations.get("node", envelope.signer);
    if (!counts) {
      this.ctx.refuse("unknown-issuer", nodeIdOf(envelope.signer));
      return false;
    }
    if (!state.revocations.add(revocation, envelope)) return false;
    const name = `${revocation.kind}/${[...revocation.subject].map((b) => b.toString(16).padStart(2, "0")).join("")}`;
    this.ctx.persist([[KEYS.revocation(name), envelopeBytes(envelope)]]);
    if (revocation.kind === "node") {
      const nodeId = nodeIdOf(revocation.subject);
      const session = this.ctx.sessions.get(nodeId);
      if (session) {
        session.member = false;
        this.ctx.emit({ type: "hang-up", nodeId, reason: "revoked" });
      }
    }
    this.changed("revocation");
    return true;
  }

  #hello(self: Member, epoch: number, epochs: readonly SignedEpoch[]): CborValue {
    return {
      v: PROTOCOL_VERSION,
      m: envelopeValue(self.recordEnvelope),
      c: envelopeValue(self.credentialEnvelope),
      e: epoch,
      es: epochs.map(signedEpochValue),
    };
  }

  #accept(
    session: Session,
    hello: { readonly m: Envelope; readonly c: Envelope; readonly es?: readonly SignedEpoch[] | undefined },
  ): void {
    const { ctx } = this;
    const fresh = this.#epochs(hello.es ?? [], session.peer.nodeId);
    const verified = verifyCredential(hello.c, {
      chain: this.#chain(),
      revocations: ctx.state.revocations,
      nowMs: ctx.nowMs,
      subject: session.peer.publicKey,
    });
    if (!verified.ok) {
      ctx.refuse(verified.reason, session.peer.remoteAddress);
      const code = verified.reason === "not-yet-valid" ? "clock-skew" : verified.reason;
      throw new Refusal(code, `the credential is refused: ${verified.reason}`);
    }
    if (!this.#stands(hello.c, session.peer.nodeId)) {
      ctx.refuse("unknown-issuer", session.peer.remoteAddress);
      throw new Refusal("unknown-issuer", "the credential is of an issuer that was removed, and not known from before");
    }
    const row = openRow({ m: hello.m, c: hello.c }, ctx.state.networkId);
    const news = this.#merge(row);
    const wasMember = session.member;
    session.member = true;
    if (!wasMember) this.sessionUp(session.peer.nodeId);
    const cameAlive = ctx.state.members.noteAlive(session.peer.nodeId, ctx.nowMs);
    if (!wasMember || cameAlive) {
      ctx.log("info", "member-alive", `${row.membership.name} is reachable`, { node: session.peer.nodeId });
      this.changed("session");
    }
    if (news || fresh.length > 0) {
      this.tell(
        { ...(news ? { rows: [news] } : {}), ...(fresh.length > 0 ? { epochs: fresh } : {}) },
        session.peer.nodeId,
      );
    }
  }

  #learn(
    news: {
      readonly m?: readonly { readonly m: Envelope; readonly c: Envelope }[] | undefined;
      readonly es?: readonly SignedEpoch[] | undefined;
      readonly r?: readonly Envelope[] | undefined;
      readonly p?: Envelope | undefined;
    },
    from: string,
    tell = true,
  ): boolean {
    const { ctx } = this;
    const epochs = this.#epochs(news.es ?? [], from);
    const revocations = (news.r ?? []).filter((one) => this.learnRevocation(one));
    const rows: Member[] = [];
    for (const one of news.m ?? []) {
      const known = ctx.state.members.get(nodeIdOf(one.m.signer));
      // Most of what is passed on is known: comparing costs nothing, verifying two signatures does.
      if (known && sameContent(known.recordEnvelope, one.m) && sameContent(known.credentialEnvelope, one.c)) continue;
      const row = openRow(one, ctx.state.networkId);
      // Members that are offline have credentials that have run out; they are still members.
      const verified = verifyCredential(one.c, {
        chain: this.#chain(),
        revocations: ctx.state.revocations,
        nowMs: ctx.nowMs,
        subject: row.publicKey,
        allowExpired: true,
      });
      if (!verified.ok && verified.reason !== "revoked") {
        // An old credential of an issuer that has left the chain since: known rows stay, unknown ones wait for renewal.
        ctx.refuse(verified.reason, from);
        continue;
      }
      if (!this.#stands(one.c, row.nodeId)) {
        ctx.refuse("unknown-issuer", from);
        continue;
      }
      const merged = this.#merge(row);
      if (merged) rows.push(merged);
    }
    const profile = news.p ? this.#learnProfile(news.p) : undefined;
    const learnt = rows.length > 0 || epochs.length > 0 || revocations.length > 0 || profile !== undefined;
    if (!learnt || !tell) return learnt;
    const few = rows.length + revocations.length <= TELL_MAX;
    this.tell({ ...(few ? { rows, revocations } : {}), epochs, ...(profile ? { profile } : {}) }, from);
    if (!few) this.#compareOn(from);
    return true;
  }

  /**
   * Compares notes with some others, having learnt much at once: either a split has healed, and they lack it as well
   * and go on in the same way, or this node was away, and their digests cost next to nothing.
   */
  #compareOn(from: string): void {
    const others = this.ctx.memberPeers().filter((one) => one !== from);
    for (const nodeId of shuffled(others, this.ctx.rng).slice(0, COMPARE_WITH)) this.syncWith(nodeId);
  }

  /**
   * Whether a credential counts although its issuer may have been removed since: whoever holds the key of one that
   * was removed can date a credential as he likes, so that only what was known before stands. Others whom it had
   * admitted are renewed by an issuer that knows them.
   */
  #stands(credential: Envelope, nodeId: string): boolean {
    const { members, revocations } = this.ctx.state;
    if (!revocations.get("node", credential.signer)) return true;
    const known = members.get(nodeId);
    return known !== undefined && sameContent(known.credentialEnvelope, credential);
  }

  /** Adopts a profile that is newer than ours and signed by an issuer. */
  #learnProfile(envelope: Envelope): Envelope | undefined {
    const network = this.ctx.state.network!;
    const profile = openProfile(envelope, network.networkId);
    if (!this.#chain().counts(envelope.signer)) {
      this.ctx.refuse("unknown-issuer", nodeIdOf(envelope.signer));
      return undefined;
    }
    if (network.profile && network.profile.profile.seq >= profile.seq) return undefined;
    network.profile = { profile, envelope };
    this.ctx.persist([[KEYS.profile, envelopeBytes(envelope)]]);
    return envelope;
  }

  #merge(row: Member): Member | undefined {
    const { state } = this.ctx;
    if (row.nodeId === state.nodeId) {
      // Somebody passes on an older word of ours, or one of a former life: overtake it.
      if (row.record.seq > (state.self?.record.seq ?? 0)) state.seq = row.record.seq;
      return undefined;
    }
    const known = state.members.get(row.nodeId) !== undefined;
    const merged = state.members.merge(row, this.ctx.nowMs + CLOCK_SKEW_MS);
    if (!merged) return undefined;
    this.ctx.persist([[KEYS.member(row.nodeId), encodeCbor(rowValue(merged))]]);
    if (!known) logListed(this.ctx, merged);
    this.changed("member");
    return merged;
  }

  #epochs(epochs: readonly SignedEpoch[], from: string): readonly SignedEpoch[] {
    try {
      return this.learnEpochs(epochs);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      this.ctx.refuse("authority-contradiction", error.message);
      this.contradicted(from);
      return [];
    }
  }

  #chain(): AuthorityChain {
    const chain = this.ctx.state.network?.chain;
    if (!chain) throw new Refusal("not-a-member", "this node is not a member itself yet");
    return chain;
  }

  #revocations(): CborValue {
    return [...this.ctx.state.revocations.entries()].map(([, one]) => envelopeValue(one.envelope));
  }

  #revocationDigest(): Uint8Array {
    const names = [...this.ctx.state.revocations.entries()].map(([name]) => name).sort();
    return hashParts("mycelium/revocation-digest/v1", ...names.map(utf8)).slice(0, 8);
  }
}

/** Writes into the log that a member is listed here from now on; whether it can be reached shows later. */
export function logListed(ctx: Context, row: Member): void {
  ctx.log("info", "member-listed", `${row.membership.name} is a member`, { node: row.nodeId });
}

/** Whether both sides have shown themselves to each other, as far as this one can tell. */
function isWhole(session: Session): boolean {
  return session.introduced && session.member;
}

function sameContent(a: Envelope, b: Envelope): boolean {
  return a.type === b.type && equalBytes(a.payload, b.payload) && equalBytes(a.signer, b.signer);
}

/** The epochs that a peer may lack: all of a short chain, the last of a long one. */
function recent(chain: AuthorityChain): readonly SignedEpoch[] {
  return chain.since(Math.max(1, chain.epoch - 7));
}

/** Reads the body of `seen`. */
export const readSeen = record({ n: readNodeId });
