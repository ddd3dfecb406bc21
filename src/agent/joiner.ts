/**
 * What a joining node says to whom: carries out the effects of the {@linkcode JoinMachine}.
 *
 * @module
 */

import { workOf } from "../bootstrap/capability_check.ts";
import { AUTHORITY, type CandidateSet } from "../bootstrap/candidates.ts";
import { causeCode } from "../bootstrap/diagnosis.ts";
import type { JoinEffect, JoinEvent, JoinMachine } from "../bootstrap/join_machine.ts";
import { equalBytes } from "../core/bytes.ts";
import {
  array,
  bytes,
  type CborValue,
  encodeCbor,
  oneOf,
  optional,
  record,
  text,
  uint,
  WireError,
} from "../core/codec.ts";
import { type Envelope, envelopeValue, readEnvelope } from "../core/envelope.ts";
import { parseAddress, readAddress } from "../core/ids.ts";
import { LIMITS } from "../core/limits.ts";
import { shuffled } from "../core/rng.ts";
import { AuthorityChain, type SignedEpoch } from "../identity/authority.ts";
import { CLOCK_SKEW_MS, verifyCredential } from "../identity/credential.ts";
import { type GenesisRecord, verifyGenesis } from "../identity/genesis.ts";
import { type JoinTranscript, proveFactor, verifyFactor } from "../identity/join_proof.ts";
import { openRevocation, RevocationSet } from "../identity/revocation.ts";
import { type MemberRecord, sealMember } from "../membership/record.ts";
import { openProfile } from "../spore/profile.ts";
import type { Context } from "./context.ts";
import { type Exchange, logListed, PROTOCOL_VERSION } from "./exchange.ts";
import { registerHash, type Registrar } from "./registrar.ts";
import {
  envelopeBytes,
  epochBytes,
  KEYS,
  openRow,
  type Put,
  readEpochs,
  readRow,
  readRows,
  rowValue,
} from "./state.ts";

const readJoinHello = record({
  v: uint(),
  g: readEnvelope,
  es: readEpochs,
  s: readRow,
  n: bytes({ length: 32 }),
  t: uint(),
  to: optional(array(readAddress, 64)),
});

const readAdmission = record({
  s: oneOf(["accepted", "pending", "redirect"]),
  to: optional(array(readAddress, 64)),
  by: optional(text(128)),
  c: optional(readEnvelope),
  p: optional(readEnvelope),
  es: optional(readEpochs),
  ms: optional(readRows),
  r: optional(array(readEnvelope, LIMITS.revocationsMax)),
  x: optional(bytes({ length: 64 })),
});

const readSeenAnswer = record({ seen: uint(1), seq: uint() });

/** Clocks that differ by more are named as the cause. */
const CLOCK_DIFFERENCE_MS_MAX = 5 * 60_000;
/** How long the addresses that a node names in its place are tried. */
const REDIRECT_MS = 10 * 60_000;
/** Members that are asked whether they see this node, before the registrar's word has to do. */
const WITNESSES_MAX = 3;

/** Takes a node through the stages of joining. */
export class Joiner {
  /** Addresses being dialed. */
  readonly #dialing = new Set<string>();
  /** Addresses by the node that answered there, for those that turn out to be of no use. */
  readonly #reachedAt = new Map<string, string>();
  /** Registrars that sent us to another one; asked again, they are told that there was no way there. */
  readonly #sentAway = new Set<string>();
  /** Node that has shown a valid credential in this attempt: only its word about us is believed. */
  #credible: string | undefined;
  /** Rises with every attempt: answers to an earlier one are stale. */
  #round = 0;

  constructor(
    readonly ctx: Context,
    readonly machine: JoinMachine,
    readonly candidates: CandidateSet,
    readonly exchange: Exchange,
    readonly registrar: Registrar,
    readonly entered: (stage: JoinMachine["stage"]) => void,
  ) {}

  /** Steps the machine and does what it says. */
  feed(event: JoinEvent): void {
    for (const effect of this.machine.step(event)) this.#run(effect);
  }

  /** Candidates have come: tells the machine how many can be tried now. */
  noteCandidates(): void {
    this.feed({ type: "candidates", count: this.#countDialable(), nowMs: this.ctx.nowMs });
  }

  #run(effect: JoinEffect): void {
    const { ctx } = this;
    switch (effect.type) {
      case "discovery":
        ctx.emit({ type: "discovery", mode: effect.mode });
        return;
      case "dial-next":
        return this.#dialNext();
      case "authenticate":
        this.#round += 1;
        this.#credible = undefined;
        return ctx.state.network?.credential ? this.#rejoin(effect.nodeId) : this.#join(effect.nodeId);
      case "stage":
        ctx.log("info", "stage", `Join stage: ${effect.stage}`, { stage: effect.stage });
        ctx.persist([[KEYS.stage, encodeCbor(effect.stage)]]);
        this.entered(effect.stage);
        return;
      case "failure": {
        const { code, tried, count } = effect.failure;
        ctx.log(count > 1 ? "debug" : "warn", "join-failure", `${code}: ${tried}`, { code, tried, count });
        return;
      }
      case "wakeAt":
        ctx.wakeAt(effect.atMs);
        return;
      default:
        effect satisfies never;
    }
  }

  #dialable() {
    const { ctx } = this;
    return this.candidates.ranked(ctx.nowMs, ctx.rng).filter((one) =>
      one.nodeId !== ctx.state.nodeId && !this.#dialing.has(one.address)
    );
  }

  #countDialable(): number {
    const { ctx } = this;
    return this.candidates.count(
      ctx.nowMs,
      (address, nodeId) => nodeId !== ctx.state.nodeId && !this.#dialing.has(address),
    );
  }

  #dialNext(): void {
    const { ctx } = this;
    // A channel that is open already is the best candidate.
    const open = [...ctx.sessions.keys()].find((nodeId) => nodeId !== this.machine.contact);
    const dialable = this.#dialable();
    const next = dialable[0];
    if (open && this.machine.stage === "contacting" && this.#dialing.size === 0 && this.machine.attempt === 0) {
      return this.feed({ type: "contact", nodeId: open, nowMs: ctx.nowMs });
    }
    if (!next) {
      if (this.#dialing.size > 0) return this.machine.noneToDial();
      const nextMs = this.candidates.nextRetryMs(ctx.nowMs);
      if (nextMs !== undefined) ctx.wakeAt(nextMs);
      return this.feed({
        type: "dial-failed",
        code: "unreachable",
        tried: "all candidates",
        left: 0,
        nowMs: ctx.nowMs,
      });
    }
    const { address } = next;
    this.#dialing.add(address);
    const trusted = next.sources.some((one) => one === "invite" || one === "config" || one === "cache");
    ctx.dial(address, trusted, (result) => {
      this.#dialing.delete(address);
      if (result.ok) {
        this.candidates.noteSuccess(address, ctx.nowMs);
        if (this.#reachedAt.size >= LIMITS.candidatesMax) this.#reachedAt.clear();
        this.#reachedAt.set(result.nodeId, address);
        return this.feed({ type: "contact", nodeId: result.nodeId, nowMs: ctx.nowMs });
      }
      this.candidates.noteFailure(address, result.code, ctx.nowMs, ctx.rng);
      const left = this.#dialing.size + this.#countDialable();
      this.feed({ type: "dial-failed", code: causeCode(result.code), tried: address, left, nowMs: ctx.nowMs });
    });
  }

  #fail(code: string, tried: string): void {
    const { ctx } = this;
    const contact = this.machine.contact;
    const known = causeCode(code);
    // The address led to nobody who could help: others come first next time.
    const address = contact === undefined ? undefined : this.#reachedAt.get(contact);
    if (address && known !== "approval-pending") this.candidates.noteFailure(address, known, ctx.nowMs, ctx.rng);
    this.feed({ type: "failed", code: known, tried, hearsay: contact !== this.#credible, nowMs: ctx.nowMs });
  }

  /** A call whose answer counts only while this attempt goes on; what does not read fails the attempt. */
  #call(
    nodeId: string,
    method: string,
    value: CborValue,
    timeoutMs: number,
    done: (body: CborValue, elapsedMs: number) => void,
  ): void {
    const round = this.#round;
    this.ctx.call(nodeId, method, value, timeoutMs, (result) => {
      if (round !== this.#round || !this.machine.joining) return;
      if (!result.ok) {
        const tried = `${method} at ${this.#where(nodeId)}: ${result.message}`;
        // A process that was killed leaves a channel that looks open for a minute: the next attempt wants a new one.
        if (result.code === "timeout") this.ctx.emit({ type: "hang-up", nodeId, reason: "silent" });
        return this.#fail(result.code, tried);
      }
      try {
        done(result.body, result.elapsedMs);
      } catch (error) {
        if (!(error instanceof WireError)) throw error;
        this.#fail("bad-answer", `${method} at ${this.#where(nodeId)}: ${error.message}`);
      }
    });
  }

  #where(nodeId: string): string {
    return this.ctx.sessions.get(nodeId)?.peer.remoteAddress ?? nodeId;
  }

  /** The way in with an invite. */
  #join(nodeId: string): void {
    const { ctx } = this;
    const { invite, keyPair, network } = ctx.state;
    const session = ctx.sessions.get(nodeId);
    if (!invite || !network) return this.#fail("invite-unknown", "no invite");
    if (!session) return this.#fail("unreachable", nodeId);
    const joinerNonce = ctx.entropy.bytes(32);
    this.#call(nodeId, "join.hello", { v: PROTOCOL_VERSION, n: joinerNonce }, 10_000, (body) => {
      const hello = readJoinHello(body, "join.hello");
      const genesis = verifyGenesis(hello.g, network.networkId);
      const chain = AuthorityChain.empty(network.networkId, genesis.genesisKey).merged(hello.es);
      const row = openRow(hello.s, network.networkId);
      const verified = verifyCredential(hello.s.c, {
        chain,
        revocations: new RevocationSet(),
        // The other's clock is compared below, where a difference gets its own name.
        nowMs: hello.t,
        subject: session.peer.publicKey,
      });
      if (!verified.ok) {
        return this.#fail("not-a-member", `${this.#where(nodeId)}: its credential is ${verified.reason}`);
      }
      const anchored = chain.hashAt(invite.anchor.epoch);
      if (!anchored || !equalBytes(anchored, invite.anchor.hash)) {
        return this.#fail("not-a-member", `${this.#where(nodeId)}: its authority is older than the invite`);
      }
      this.#credible = nodeId;
      if (Math.abs(hello.t - ctx.nowMs) > CLOCK_DIFFERENCE_MS_MAX) {
        return this.#fail(
          "clock-skew",
          `${this.#where(nodeId)}: its clock differs by ${Math.round((hello.t - ctx.nowMs) / 1000)} s`,
        );
      }
      if (hello.to) return this.#redirect(nodeId, hello.to);
      if (this.machine.stage !== "awaiting-approval") {
        this.feed({ type: "advanced", to: "registering", nowMs: ctx.nowMs });
      }
      const recordEnvelope = sealMember(this.#ownRecord(), network.networkId, keyPair);
      const request = { g: invite.grantEnvelope, m: recordEnvelope, w: workOf(hello.n) };
      const transcript: JoinTranscript = {
        networkId: network.networkId,
        registrarKey: row.publicKey,
        joinerKey: keyPair.publicKey,
        registrarNonce: hello.n,
        joinerNonce,
        channelBinding: session.peer.channelBinding ?? new Uint8Array(0),
        requestHash: registerHash(request),
      };
      this.#call(
        nodeId,
        "join.register",
        {
          n: hello.n,
          g: envelopeValue(request.g),
          m: envelopeValue(request.m),
          w: request.w,
          pn: proveFactor("node", transcript, keyPair),
          pi: proveFactor("invite", transcript, invite.keyPair),
          u: this.#sentAway.has(nodeId) ? 1 : undefined,
        },
        10_000,
        (answer) => {
          const admission = readAdmission(answer, "join.register");
          if (admission.s === "redirect") {
            this.#sentAway.add(nodeId);
            return this.#redirect(nodeId, admission.to ?? []);
          }
          if (admission.s === "pending") return this.#fail("approval-pending", admission.by ?? this.#where(nodeId));
          this.#handoff(nodeId, { genesis, genesisEnvelope: hello.g, chain, transcript, admission, recordEnvelope });
        },
      );
    });
  }

  /** Checks what the registrar hands over, stores it, and goes on to verify. */
  #handoff(nodeId: string, given: {
    readonly genesis: GenesisRecord;
    readonly genesisEnvelope: Envelope;
    readonly chain: AuthorityChain;
    readonly transcript: JoinTranscript;
    readonly admission: ReturnType<typeof readAdmission>;
    readonly recordEnvelope: Envelope;
  }): void {
    const { ctx } = this;
    const { state } = ctx;
    const network = state.network!;
    const { admission, transcript } = given;
    this.feed({ type: "advanced", to: "handoff", nowMs: ctx.nowMs });
    const proved = admission.x !== undefined &&
      verifyFactor("registrar", transcript, transcript.registrarKey, admission.x);
    const memberRows = [];
    for (const one of admission.ms ?? []) {
      try {
        memberRows.push({ one, row: openRow(one, network.networkId) });
      } catch (error) {
        if (!(error instanceof WireError)) throw error;
        ctx.refuse("bad-answer", this.#where(nodeId));
      }
    }
    const revoked = (admission.r ?? []).map((one) => ({ one, revocation: openRevocation(one, network.networkId) }));
    if (!proved || !admission.c || !admission.p) {
      return this.#fail("handoff-incomplete", `${this.#where(nodeId)}: proof, credential or profile is missing`);
    }
    const epochs: readonly SignedEpoch[] = admission.es ?? [];
    const chain = given.chain.merged(epochs);
    const verified = verifyCredential(admission.c, {
      chain,
      revocations: new RevocationSet(),
      nowMs: ctx.nowMs,
      subject: state.keyPair.publicKey,
    });
    if (!verified.ok) return this.#fail("handoff-incomplete", `the credential is ${verified.reason}`);
    // A fresh credential is of the registrar itself, and that is an issuer now: whoever holds the key of one that was
    // removed could date it back into the epoch before.
    if (!equalBytes(admission.c.signer, transcript.registrarKey) || !chain.isIssuer(admission.c.signer)) {
      return this.#fail("handoff-incomplete", `${this.#where(nodeId)}: the credential is not of a present issuer`);
    }
    const profile = openProfile(admission.p, network.networkId);
    if (!chain.counts(admission.p.signer)) {
      return this.#fail("handoff-incomplete", "the profile is not signed by an issuer");
    }
    network.genesis = { record: given.genesis, envelope: given.genesisEnvelope };
    network.chain = chain;
    network.credential = { credential: verified.credential, envelope: admission.c };
    network.profile = { profile, envelope: admission.p };
    const self = openRow({ m: given.recordEnvelope, c: admission.c }, network.networkId);
    state.members.merge(self);
    const puts: Put[] = [
      [KEYS.genesis, envelopeBytes(given.genesisEnvelope)],
      ...chain.since(1).map((one, i): Put => [KEYS.epoch(i + 1), epochBytes(one)]),
      [KEYS.credential, envelopeBytes(admission.c)],
      [KEYS.profile, envelopeBytes(admission.p)],
      [KEYS.member(state.nodeId), encodeCbor(rowValue(self))],
      [KEYS.self, encodeCbor(self.record.seq)],
    ];
    for (const { one, revocation } of revoked) {
      if (chain.isIssuer(one.signer)) state.revocations.add(revocation, one);
    }
    for (const [name, one] of state.revocations.entries()) {
      puts.push([KEYS.revocation(name), envelopeBytes(one.envelope)]);
    }
    for (const { one, row } of memberRows) {
      const counts = verifyCredential(one.c, {
        chain,
        revocations: state.revocations,
        nowMs: ctx.nowMs,
        subject: row.publicKey,
        allowExpired: true,
      });
      if (!counts.ok) continue;
      const merged = state.members.merge(row);
      if (!merged) continue;
      puts.push([KEYS.member(row.nodeId), encodeCbor(rowValue(merged))]);
      logListed(ctx, merged);
    }
    ctx.persist(puts);
    this.feed({ type: "advanced", to: "verifying", nowMs: ctx.nowMs });
    this.#verify(nodeId);
  }

  /** The way back for a member: with its credential where it still counts, else by proving its key. */
  #rejoin(nodeId: string): void {
    const { ctx } = this;
    const credential = ctx.state.network!.credential!.credential;
    if (ctx.state.revocations.get("node", ctx.state.keyPair.publicKey)) {
      return this.#fail("revoked", "this node's own key");
    }
    // One that was dated while clocks were far ahead is accepted by nobody.
    const ahead = credential.issuedMs > ctx.nowMs + CLOCK_SKEW_MS;
    if (ahead || credential.expiresMs <= ctx.nowMs) return this.#renewAndVerify(nodeId);
    this.#introduce(nodeId, (code) => {
      const renewable = code === "expired" || code === "unknown-issuer" || code === "tampered";
      if (renewable) return this.#renewAndVerify(nodeId);
      this.#fail(code, this.#where(nodeId));
    }, () => this.#verified());
  }

  #renewAndVerify(nodeId: string): void {
    const round = this.#round;
    this.feed({ type: "advanced", to: "registering", nowMs: this.ctx.nowMs });
    this.registrar.askRenewal(nodeId, (result) => {
      if (round !== this.#round) return;
      if (result.ok) {
        this.feed({ type: "advanced", to: "verifying", nowMs: this.ctx.nowMs });
        return this.#verify(nodeId);
      }
      if (result.code === "not-issuer") return this.#redirect(nodeId, result.to ?? []);
      this.#fail(result.code, this.#where(nodeId));
    });
  }

  #introduce(nodeId: string, failed: (code: string) => void, done: () => void): void {
    const round = this.#round;
    this.exchange.introduce(nodeId, (result) => {
      if (round !== this.#round) return;
      if (result.ok) return done();
      failed(result.code);
    });
  }

  /** Joined is who is seen: by another member where there is one that answers, else by the registrar. */
  #verify(registrar: string): void {
    const { ctx } = this;
    this.#introduce(registrar, (code) => this.#fail(code, this.#where(registrar)), () => {
      this.exchange.syncWith(registrar);
      const others = shuffled(
        ctx.state.members.all().filter((one) =>
          one.nodeId !== registrar && one.nodeId !== ctx.state.nodeId && !one.record.left &&
          !ctx.state.revocations.get("node", one.publicKey)
        ),
        ctx.rng,
      ).slice(0, WITNESSES_MAX);
      this.#askWitness(registrar, others.map((one) => one.nodeId));
    });
  }

  #askWitness(registrar: string, others: readonly string[]): void {
    const { ctx } = this;
    const [next, ...rest] = others;
    if (next === undefined) return this.#seenBy(registrar, () => this.#fail("not-seen", this.#where(registrar)));
    const skip = () => this.#askWitness(registrar, rest);
    const ask = () => this.#introduce(next, skip, () => this.#seenBy(next, skip));
    if (ctx.sessions.has(next)) return ask();
    const address = preferred(ctx.state.members.get(next)?.record.addresses ?? []);
    if (!address) return skip();
    const round = this.#round;
    ctx.dial(address, true, (result) => {
      if (round !== this.#round) return;
      result.ok && result.nodeId === next ? ask() : skip();
    });
  }

  #seenBy(nodeId: string, failed: () => void): void {
    const round = this.#round;
    this.ctx.call(nodeId, "seen", { n: this.ctx.state.nodeId }, 5_000, (result) => {
      if (round !== this.#round) return;
      try {
        if (result.ok && readSeenAnswer(result.body, "seen").seen === 1) return this.#verified();
      } catch (error) {
        if (!(error instanceof WireError)) throw error;
      }
      failed();
    });
  }

  #verified(): void {
    const { ctx } = this;
    if (ctx.state.invite) {
      ctx.state.invite = undefined;
      ctx.persist([[KEYS.invite, null]]);
    }
    this.feed({ type: "advanced", to: "verified", nowMs: ctx.nowMs });
    this.exchange.changed("session");
  }

  #redirect(nodeId: string, addresses: readonly string[]): void {
    const { ctx } = this;
    // Who has not shown a credential names addresses like any other stranger.
    const credible = this.#credible === nodeId || ctx.sessions.get(nodeId)?.member === true;
    for (const address of addresses.slice(0, 16)) {
      if (parseAddress(address)?.nodeId === ctx.state.nodeId) continue;
      this.candidates.add({
        address,
        source: "cache",
        // Where a member names them, these are the ones to ask.
        authority: credible ? AUTHORITY.invite + 1 : AUTHORITY.multicast,
        seenMs: ctx.nowMs,
        expiresMs: ctx.nowMs + REDIRECT_MS,
        verification: credible ? "verified" : "unverified",
        detail: `named by ${this.#where(nodeId)}`,
      });
      // It may have failed while it was down: it must not come after the one that sends us there, or we would be
      // sent for ever.
      if (credible) this.candidates.forgive(address);
    }
    this.#fail("not-issuer", this.#where(nodeId));
    if (!ctx.state.network?.credential) ctx.emit({ type: "hang-up", nodeId, reason: "not an issuer" });
  }

  #ownRecord(): MemberRecord {
    const { ctx } = this;
    const { state, config } = ctx;
    state.seq = Math.max(state.seq, ctx.nowMs) + 1;
    return {
      seq: state.seq,
      name: config.name,
      role: this.exchange.ownRole(),
      addresses: ctx.addresses.slice(0, LIMITS.addressesPerNodeMax),
      capabilities: ctx.capabilities!,
      version: config.version,
      startedMs: this.exchange.startedMs,
      left: false,
      drained: state.mode === "drained",
    };
  }
}

/** The address to try first: QUIC before TCP. */
export function preferred(addresses: readonly string[]): string | undefined {
  return addresses.find((one) => parseAddress(one)?.transport === "quic") ?? addresses[0];
}
