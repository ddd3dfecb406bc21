/**
 * Attestation: a majority of the issuers signs what the primaries agreed on, so that everybody can check it.
 *
 * The leader asks; each issuer, voter or not, signs only what stands in its own replicated state, and what its own
 * authority chain lets the author write. A leader that lies gets no majority. The finished proof goes to the Latent
 * Spore, which tells everybody. Proofs are renewed when half of their life is over, and with each change of the
 * authority.
 *
 * @module
 */

import { equalBytes } from "../core/bytes.ts";
import { array, bytes, type CborValue, optional, record, uint, WireError } from "../core/codec.ts";
import { nodeIdOf } from "../core/ids.ts";
import { majority } from "../core/quorum.ts";
import { mayWrite, ownerOf, readKey } from "../spore/keys.ts";
import { type RankProof, type RankStatement, signRank, verifyRankSignature } from "../spore/proof.ts";
import { RECORD_LIFE_MS_MAX, type Spore } from "../spore/record.ts";
import type { StateMachine, Version } from "../spore/state_machine.ts";
import { type Context, Refusal } from "./context.ts";
import type { PeerView } from "./effects.ts";

/** Life of a proof: a little less than any verifier allows, since clocks differ. */
export const PROOF_MS: number = RECORD_LIFE_MS_MAX - 10 * 60_000;
/** Records in one round. */
export const ATTEST_MAX = 64;
/** A record stands for so long before it is asked for: the other issuers learn of a commit a little later. */
const SETTLE_MS = 40;
/** Least time between two rounds. */
const ROUND_MS = 250;
/** How often the whole state is looked through for proofs that get old. */
const REVIEW_MS = 3_600_000;
/** Wait before a record that got no majority is asked for again; doubled each time. */
const RETRY = { baseMs: 1_000, maxMs: 60_000 } as const;
const CALL_MS = 5_000;
/** Signatures that one issuer may ask for at once, and in a second. */
const PEER_SIGNATURES_MAX = 1_024;
const PEER_SIGNATURES_PER_S = 512;

const readAsk = record({
  e: uint(),
  u: uint(),
  q: array(record({ k: readKey, h: bytes({ length: 32 }), m: uint(), i: uint() }), ATTEST_MAX),
});
const readSigned = record({ s: array(optional(bytes({ length: 64 })), ATTEST_MAX) });

/** Where proofs go, and what is known of them. */
export interface ProofSink {
  /** A record has its proof. */
  proven(spore: Spore, proof: RankProof): void;
  /** The proof of the Primary tier that this node knows of a record. */
  proofOf(key: string, hash: Uint8Array): RankProof | undefined;
}

interface Wanted {
  readonly version: Version;
  readonly tries: number;
  readonly notBeforeMs: number;
}

/** One round: some records, asked of all issuers. */
interface Round {
  readonly items: readonly Wanted[];
  readonly untilMs: number;
  readonly epoch: number;
  readonly issuers: readonly Uint8Array[];
  readonly signatures: RankProof["signatures"][number][][];
  open: number;
}

/** Gathers proofs where this node leads, and signs for others. */
export class Attestation {
  /** Set by the agent. */
  sink: ProofSink = { proven: () => {}, proofOf: () => undefined };
  readonly #ctx: Context;
  readonly #state: () => StateMachine | undefined;
  /** By key: only what stands there now is worth a proof. */
  readonly #wanted = new Map<string, Wanted>();
  #leads = false;
  #round: Round | undefined;
  #nextMs = 0;
  #reviewMs = 0;
  #epoch = 0;
  #proven = 0;
  readonly #asked = new Map<string, { tokens: number; atMs: number }>();

  constructor(ctx: Context, state: () => StateMachine | undefined) {
    this.#ctx = ctx;
    this.#state = state;
  }

  /** Records that wait for a proof, and proofs finished since this node leads. */
  get figures(): { readonly waiting: number; readonly proven: number } {
    return { waiting: this.#wanted.size, proven: this.#proven };
  }

  /** This node leads, or does not any more. */
  lead(leads: boolean): void {
    if (leads === this.#leads) return;
    this.#leads = leads;
    this.#wanted.clear();
    this.#round = undefined;
    this.#reviewMs = 0;
    this.#nextMs = 0;
    this.#proven = 0;
  }

  /** The clock was set back. */
  clockSetBack(): void {
    this.#nextMs = this.#reviewMs = 0;
    this.#asked.clear();
    for (const [key, one] of this.#wanted) this.#wanted.set(key, { ...one, notBeforeMs: 0 });
  }

  /** A key of the replicated state has changed. */
  changed(version: Version): void {
    // The others have to hold it first; and what is replaced at once needs no proof.
    const notBeforeMs = this.#ctx.nowMs + SETTLE_MS;
    if (this.#leads) this.#wanted.set(version.spore.record.key, { version, tries: 0, notBeforeMs });
  }

  /** Begins a round where one is due; returns when it wants to be woken. */
  wake(): number {
    const { nowMs } = this.#ctx;
    const state = this.#state();
    if (!this.#leads || !state) return Infinity;
    // Issuers of an epoch that is over prove no more: those of the present one sign anew.
    const { epoch } = this.#ctx.state.network!.chain!;
    if (nowMs >= this.#reviewMs || epoch !== this.#epoch) {
      this.#epoch = epoch;
      this.#review(state);
    }
    if (this.#round || this.#wanted.size === 0) return this.#reviewMs;
    if (nowMs < this.#nextMs) return Math.min(this.#nextMs, this.#reviewMs);
    const due: Wanted[] = [];
    let nextMs = this.#reviewMs;
    for (const [key, one] of this.#wanted) {
      if (state.get(key) !== one.version) this.#wanted.delete(key);
      else if (one.notBeforeMs > nowMs) nextMs = Math.min(nextMs, one.notBeforeMs);
      else if (due.length < ATTEST_MAX) due.push(one);
      else nextMs = nowMs + ROUND_MS;
    }
    if (due.length > 0) {
      this.#nextMs = nowMs + ROUND_MS;
      this.#begin(due);
    }
    return nextMs;
  }

  /** Looks for records whose proof is missing or half over. */
  #review(state: StateMachine): void {
    const { nowMs } = this.#ctx;
    this.#reviewMs = nowMs + REVIEW_MS;
    for (const version of state.versions()) {
      const { record, hash } = version.spore;
      if (this.#wanted.has(record.key)) continue;
      const proof = this.sink.proofOf(record.key, hash);
      if (!proof || proof.epoch < this.#epoch || proof.untilMs < nowMs + PROOF_MS / 2) {
        this.#wanted.set(record.key, { version, tries: 0, notBeforeMs: 0 });
      }
    }
  }

  #begin(items: readonly Wanted[]): void {
    const ctx = this.#ctx;
    const { networkId, keyPair, network } = ctx.state;
    const chain = network!.chain!;
    const round: Round = {
      items,
      untilMs: ctx.nowMs + PROOF_MS,
      epoch: chain.epoch,
      issuers: chain.issuers,
      signatures: items.map(() => []),
      open: 0,
    };
    this.#round = round;
    if (chain.isIssuer(keyPair.publicKey)) {
      for (const [i, { version }] of items.entries()) {
        const subject = { networkId, key: version.spore.record.key, hash: version.spore.hash };
        round.signatures[i]!.push(signRank(subject, statementOf(version, round), keyPair));
      }
    }
    const ask: CborValue = {
      e: round.epoch,
      u: round.untilMs,
      q: items.map(({ version: { spore, term, index } }) => ({
        k: spore.record.key,
        h: spore.hash,
        m: term,
        i: index,
      })),
    };
    const others = chain.issuers.filter((key) => !equalBytes(key, keyPair.publicKey)).map((key) =>
      [key, nodeIdOf(key)] as const
    ).filter(([, nodeId]) => ctx.sessions.get(nodeId)?.member);
    round.open = others.length;
    for (const [key, nodeId] of others) {
      ctx.call(nodeId, "primary.attest", ask, CALL_MS, (result) => {
        if (this.#round !== round) return;
        round.open -= 1;
        if (result.ok) this.#take(round, key, nodeId, result.body);
        if (round.open === 0) this.#finish(round);
      });
    }
    if (round.open === 0) this.#finish(round);
  }

  #take(round: Round, key: Uint8Array, nodeId: string, body: CborValue): void {
    const { networkId } = this.#ctx.state;
    try {
      const { s } = readSigned(body, "primary.attest");
      const needed = majority(round.issuers.length);
      for (const [i, { version }] of round.items.entries()) {
        const signature = s[i];
        // More than a majority is of no use, and costs its check on every node.
        if (!signature || round.signatures[i]!.length >= needed) continue;
        const subject = { networkId, key: version.spore.record.key, hash: version.spore.hash };
        if (!verifyRankSignature(subject, statementOf(version, round), { key, signature })) {
          this.#ctx.refuse("bad-attestation", nodeId);
          return;
        }
        round.signatures[i]!.push({ key, signature });
      }
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      this.#ctx.refuse("bad-answer", nodeId);
    }
  }

  #finish(round: Round): void {
    this.#round = undefined;
    const { nowMs } = this.#ctx;
    const needed = majority(round.issuers.length);
    for (const [i, { version, tries }] of round.items.entries()) {
      const { key } = version.spore.record;
      if (this.#wanted.get(key)?.version !== version) continue;
      const signatures = round.signatures[i]!;
      if (signatures.length < needed) {
        const waitMs = Math.min(RETRY.maxMs, RETRY.baseMs * 2 ** Math.min(tries, 10));
        this.#wanted.set(key, { version, tries: tries + 1, notBeforeMs: nowMs + waitMs });
        continue;
      }
      this.#wanted.delete(key);
      this.#proven += 1;
      this.sink.proven(version.spore, { ...statementOf(version, round), signatures });
    }
  }

  /** Serves `primary.attest`: signatures for what stands here, nothing for the rest. */
  serve(peer: PeerView, body: CborValue): CborValue {
    const ctx = this.#ctx;
    const { networkId, keyPair, network } = ctx.state;
    const chain = network!.chain!;
    const state = this.#state();
    if (!state || !chain.isIssuer(keyPair.publicKey) || !chain.isIssuer(peer.publicKey)) {
      throw new Refusal("not-issuer", "issuers attest, for issuers");
    }
    const { e, u, q } = readAsk(body, "primary.attest");
    if (e !== chain.epoch) throw new Refusal("stale-epoch", `epoch ${e}, here ${chain.epoch}`);
    if (u > ctx.nowMs + RECORD_LIFE_MS_MAX) throw new Refusal("bad-request", "no proof lasts that long");
    this.#charge(peer.nodeId, q.length);
    const s = q.map(({ k, h, m, i }) => {
      const version = state.get(k);
      if (!version || version.term !== m || version.index !== i || !equalBytes(version.spore.hash, h)) return null;
      if (!this.#permitted(version)) return null;
      const statement: RankStatement = { tier: "primary", term: m, index: i, epoch: e, untilMs: u };
      return signRank({ networkId, key: k, hash: h }, statement, keyPair).signature;
    });
    return { s };
  }

  /** Whether the author could write there in any epoch that this node knows: the log's word for it is not enough. */
  #permitted({ spore }: Version): boolean {
    const { key, value } = spore.record;
    const deletes = value === undefined;
    // What was decided: this replica has verified it against the electorate of its own state, or it would not be there.
    if (ownerOf(key)?.kind === "agreed") return this.#state()?.agreed.warrantOf(key) !== undefined;
    if (mayWrite(key, { nodeId: spore.author, issuer: false }, deletes)) return true;
    const chain = this.#ctx.state.network!.chain!;
    for (let epoch = chain.epoch; epoch >= 1; epoch--) {
      if (chain.issuersAt(epoch).some((one) => equalBytes(one, spore.envelope.signer))) {
        return mayWrite(key, { nodeId: spore.author, issuer: true }, deletes);
      }
    }
    return false;
  }

  #charge(nodeId: string, count: number): void {
    const { nowMs } = this.#ctx;
    const known = this.#asked.get(nodeId) ?? { tokens: PEER_SIGNATURES_MAX, atMs: nowMs };
    const earned = Math.max(0, nowMs - known.atMs) * PEER_SIGNATURES_PER_S / 1_000;
    const tokens = Math.min(PEER_SIGNATURES_MAX, known.tokens + earned) - count;
    if (tokens < 0) throw new Refusal("overloaded", "too many signatures are asked for");
    this.#asked.set(nodeId, { tokens, atMs: nowMs });
  }
}

function statementOf(version: Version, round: Pick<Round, "epoch" | "untilMs">): RankStatement {
  return {
    tier: "primary",
    term: version.term,
    index: version.index,
    epoch: round.epoch,
    untilMs: round.untilMs,
  };
}
