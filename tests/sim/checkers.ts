/**
 * What must hold after every step of every agent, whatever the network, the disks and the neighbours do.
 *
 * Written from the design, not from the code: signatures and bounds are checked anew here.
 *
 * @module
 */

import { toHex } from "../../src/core/bytes.ts";
import { LIMITS } from "../../src/core/limits.ts";
import { epochHash } from "../../src/identity/authority.ts";
import { CLOCK_SKEW_MS, openCredential } from "../../src/identity/credential.ts";
import { membersOf } from "../../src/raft/config.ts";
import { openMember } from "../../src/membership/record.ts";
import type { Member } from "../../src/membership/table.ts";
import { AgreedChecker } from "./agreed_checker.ts";
import { DecisionChecker } from "./decision_checker.ts";
import { TrustChecker } from "./trust_checker.ts";
import { RaftChecker } from "./raft_checker.ts";
import type { Host, World } from "./world.ts";

/** Steps that one agent may take in one simulated second: past it, something spins. */
export const STEPS_PER_SECOND_MAX = 400;

/** And as many more for each other machine: all of them may turn up in one second. */
export const STEPS_PER_SECOND_AND_HOST_MAX = 40;

/** And as many more for a leader, for each of its followers and whatever people have asked for. */
export const STEPS_PER_REQUEST_MAX = 4;

/** Checks the safety of a world, host by host as they step. */
export class Checkers {
  world: World | undefined;
  /** Of each network's Primary Spore. */
  readonly raft = new Map<string, RaftChecker>();
  /** Of what is agreed; `undefined`: a test has all issuers lie, so that others find it. */
  agreed: AgreedChecker | undefined = new AgreedChecker();
  /** Of what is decided. */
  readonly decisions = new DecisionChecker();
  /** Of the agreed scores. */
  readonly trust = new TrustChecker();
  /** Hash of each epoch of each network, by the first who had it. */
  readonly #epochs = new Map<string, string>();
  /** Every key that was ever an issuer, by network. */
  readonly #issuers = new Map<string, Set<string>>();
  readonly #checkedRows = new WeakSet<Member>();
  readonly #checkedChains = new WeakSet<object>();
  /** Nodes that joined by each invite, over all hosts and times. */
  readonly usedBy = new Map<string, Set<string>>();
  /** Uses of each invite, as tests or the swarm made them. */
  readonly uses = new Map<string, number>();
  /** Whether issuers may count the uses of one invite at the same time: they were cut off or crashed. */
  issuersParted = false;
  /** Whether the genesis key is used on both sides of a split: then, and only then, a chain may fork. */
  forksExpected = false;

  /** Something does not hold. */
  fail(host: Host, what: string): never {
    throw new Error(`SAFETY: ${host.name}: ${what}\n${this.world?.describe()}\n${this.world?.recent()}`);
  }

  /** Throws where something that must hold does not. */
  readonly check = (host: Host): void => {
    const { state, sessions, primary, spores } = host.view;
    const network = state.network;
    const fail = (what: string): never => this.fail(host, what);
    const nowMs = this.world!.local(host);

    const followers = primary?.role === "leader" ? membersOf(primary.config).length - 1 : 0;
    const stepsMax = STEPS_PER_SECOND_MAX + STEPS_PER_SECOND_AND_HOST_MAX * this.world!.hosts.length +
      STEPS_PER_REQUEST_MAX * followers * this.world!.askedLately;
    if (host.stepsInSecond > stepsMax) fail(`${host.stepsInSecond} steps in one second, at most ${stepsMax}`);
    // What waits for its disk was neither said nor promised: should it die now, none of it has happened.
    if (host.held.length > 0) return;
    if (state.members.size > LIMITS.membersMax) fail("too many members");
    if (state.revocations.size > LIMITS.revocationsMax) fail("too many revocations");
    if (state.pending.size > LIMITS.pendingJoinsMax) fail("too many pending joins");
    if (state.assignments.size > LIMITS.assignmentsMax) fail("too many assignments");
    if (state.grants.size > LIMITS.invitesMax + LIMITS.pendingJoinsMax) fail("too many grants");
    if (host.view.candidates > LIMITS.candidatesMax) fail("too many candidates");
    if (sessions.size > LIMITS.channelsMax) fail("too many sessions");

    this.agreed?.check(host, this.world!.nowMs, fail);
    this.decisions.check(host, this.forksExpected, fail);
    this.trust.check(host, { forks: this.forksExpected, liars: this.decisions.liars }, fail);
    if (spores.size > LIMITS.sporesMax || spores.bytes > LIMITS.sporeBytesMax) fail("too many spores");
    if (!network) {
      if (state.members.size > 0) fail("members without a network");
      return;
    }
    const name = toHex(network.networkId);
    if (primary) {
      let raft = this.raft.get(name);
      if (!raft) this.raft.set(name, raft = new RaftChecker());
      const wrong = raft.check(primary, host.life);
      if (wrong) fail(wrong);
    }
    const chain = network.chain;
    if (chain && !this.#checkedChains.has(chain)) {
      this.#checkedChains.add(chain);
      const issuers = this.#issuers.get(name) ?? new Set();
      this.#issuers.set(name, issuers);
      chain.since(1).forEach((signed, i) => {
        const key = `${name}/${i + 1}`;
        const hash = toHex(epochHash(signed.payload));
        const known = this.#epochs.get(key);
        if (known !== undefined && known !== hash && !this.forksExpected) fail(`authority epoch ${i + 1} forks`);
        this.#epochs.set(key, hash);
      });
      for (const issuer of chain.issuers) issuers.add(toHex(issuer));
    }
    for (const member of state.members.all()) {
      if (this.#checkedRows.has(member)) continue;
      this.#checkedRows.add(member);
      const credential = openCredential(member.credentialEnvelope, network.networkId);
      openMember(member.recordEnvelope, network.networkId);
      if (toHex(credential.subject) !== toHex(member.publicKey)) fail("a credential is about another key");
      if (toHex(member.recordEnvelope.signer) !== toHex(member.publicKey)) fail("a record is signed by another key");
      if (!this.#issuers.get(name)?.has(toHex(member.credentialEnvelope.signer))) {
        fail(`${member.nodeId} has a credential of one who never was an issuer`);
      }
      if (member.membership.issuedMs !== credential.issuedMs) fail("a row says another date than its credential");
      if (credential.via) {
        const id = toHex(credential.via);
        const nodes = this.usedBy.get(id) ?? new Set();
        this.usedBy.set(id, nodes.add(member.nodeId));
        const uses = this.uses.get(id) ?? Infinity;
        const issuers = this.issuersParted ? Math.max(1, this.#issuers.get(name)?.size ?? 1) : 1;
        if (nodes.size > uses * issuers) fail(`invite ${id} of ${uses} uses was used by ${nodes.size}`);
      }
    }
    for (const [nodeId, session] of sessions) {
      if (session.peer.nodeId !== nodeId) fail("a session is under another name");
      if (!session.member) continue;
      if (state.revocations.get("node", session.peer.publicKey)) fail(`${nodeId} is revoked and has a session`);
      const row = state.members.get(nodeId);
      if (!row) return fail(`${nodeId} has a session and is no member`);
      if (row.membership.expiresMs + 2 * CLOCK_SKEW_MS < nowMs) {
        fail(`${nodeId} has a session, its credential expired ${nowMs - row.membership.expiresMs} ms ago`);
      }
      // Nobody's word but the channel's decides who is at the other end.
      if (toHex(row.publicKey) !== toHex(session.peer.publicKey)) fail(`${nodeId} has a session with another key`);
    }
  };
}
