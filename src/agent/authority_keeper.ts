/**
 * Keeps the set of issuers equal to the Sclerotia that are members: proposes epochs, signs those of others.
 *
 * Whoever leads the Primary Spore proposes, and where that is to be no issuer any more the first one in order that is
 * reachable: two that propose at once could lock each other out. Each issuer signs at most one payload for an epoch
 * and stores it before it answers, so that no two epochs of one number can gather enough signatures.
 *
 * Of two or three issuers all have to sign: where one is removed, the rest are too few for ever. Then the founder adds
 * the signature of the genesis key, as long as it holds it, to the one payload that it signs as an issuer.
 *
 * @module
 */

import { equalBytes, toHex } from "../core/bytes.ts";
import { bytes, type CborValue, encodeCbor, record, WireError } from "../core/codec.ts";
import type { KeyPair } from "../core/crypto.ts";
import { nodeIdOf } from "../core/ids.ts";
import { LIMITS } from "../core/limits.ts";
import { decodeEpoch, encodeEpoch, type SignedEpoch, signEpoch, verifyEpochSignature } from "../identity/authority.ts";
import { CLOCK_SKEW_MS } from "../identity/credential.ts";
import { type Context, Refusal } from "./context.ts";
import type { PeerView } from "./effects.ts";
import type { Exchange } from "./exchange.ts";
import { KEYS } from "./state.ts";

const RETRY_MS = 5_000;
/** Issuers without a leader for so long change their set as those do that have none. */
const LEADERLESS_MS = 8_000;

const readSign = record({ p: bytes({ max: LIMITS.recordBytesMax }) });
const readSigned = record({ k: bytes({ length: 32 }), s: bytes({ length: 64 }) });

/** Keeps the set of issuers. */
export class AuthorityKeeper {
  #nextMs = 0;
  #proposal:
    | { readonly payload: Uint8Array; readonly signatures: Map<string, SignedEpoch["signatures"][number]> }
    | undefined;

  /** Who leads the Primary Spore: set by the agent. `runs`: this node holds a replica, and knows when nobody does. */
  primary: () => { readonly runs: boolean; readonly leader: string | undefined } = () => ({
    runs: false,
    leader: undefined,
  });

  /** Since when a change is wanted and nobody leads. */
  #leaderlessMs: number | undefined;

  constructor(readonly ctx: Context, readonly exchange: Exchange) {}

  /** Something changed that may call for a new epoch. */
  nudge(): void {
    this.#nextMs = Math.min(this.#nextMs, this.ctx.nowMs + 200);
    this.ctx.wakeAt(this.#nextMs);
  }

  /** The clock was set back: times that were set with it count no longer. */
  clockSetBack(): void {
    this.#nextMs = 0;
    this.#leaderlessMs = undefined;
  }

  /**
   * The next epoch, signed by the genesis key alone: how an operator gets a network going again whose issuers are
   * lost or have locked each other out.
   *
   * @param without Issuers to leave out, besides those that are removed or gone.
   */
  recover(genesis: KeyPair, without: readonly Uint8Array[]): SignedEpoch {
    const { state } = this.ctx;
    const chain = state.network!.chain!;
    const issuers = this.#wanted().filter((key) => !without.some((one) => equalBytes(one, key)));
    if (issuers.length === 0) {
      throw new Refusal("no-issuer", "No issuer would be left", "Leave at least one Sclerotium in");
    }
    const payload = encodeEpoch({ epoch: chain.epoch + 1, previous: chain.head, issuers, createdMs: this.ctx.nowMs });
    const signed = { payload, signatures: [signEpoch(state.networkId, payload, genesis)] };
    this.#proposal = undefined;
    const fresh = this.exchange.learnEpochs([signed]);
    this.exchange.tell({ epochs: fresh });
    this.ctx.audit("authority-recovered", state.nodeId, `epoch ${chain.epoch + 1}: ${issuers.map(nodeIdOf).join(" ")}`);
    return signed;
  }

  /** Regular work; returns when it wants to be woken. */
  wake(): number {
    const { ctx } = this;
    if (!ctx.state.isIssuer || ctx.state.mode !== "normal") return Infinity;
    if (ctx.nowMs < this.#nextMs) return this.#nextMs;
    this.#nextMs = ctx.nowMs + RETRY_MS;
    const wanted = this.#wanted();
    const chain = ctx.state.network!.chain!;
    if (wanted.length === 0 || sameKeys(wanted, chain.issuers)) {
      this.#proposal = undefined;
      this.#nextMs = Infinity;
      return Infinity;
    }
    if (!this.#leads(wanted) && !this.#genesisPair()) return this.#nextMs;
    this.#propose(wanted);
    return this.#nextMs;
  }

  /**
   * The genesis key, where the next epoch needs it and cannot fork by it: issuers are gone that would have to sign, and
   * no other payload can be signed by enough of them without this node, which signs but one.
   */
  #genesisPair(): KeyPair | undefined {
    const { state } = this.ctx;
    const { issuers, threshold } = state.network!.chain!;
    const left = issuers.filter((key) => !this.#gone(key));
    return left.length < threshold && issuers.length - 1 < threshold ? state.genesisPair : undefined;
  }

  /** Serves `authority.sign`. */
  sign(peer: PeerView, body: CborValue): CborValue {
    const { ctx } = this;
    const { state } = ctx;
    const { p } = readSign(body, "authority.sign");
    const chain = state.network?.chain;
    if (!chain || !state.isIssuer || !chain.isIssuer(peer.publicKey)) {
      throw new Refusal("not-issuer", "only issuers sign epochs, for issuers");
    }
    const epoch = decodeEpoch(p);
    if (epoch.epoch !== chain.epoch + 1 || !equalBytes(epoch.previous, chain.head)) {
      throw new Refusal("stale-epoch", `epoch ${epoch.epoch} does not follow epoch ${chain.epoch}`);
    }
    if (Math.abs(epoch.createdMs - ctx.nowMs) > CLOCK_SKEW_MS) {
      throw new Refusal("clock-skew", "the epoch's date is not now");
    }
    for (const key of epoch.issuers) {
      const member = state.members.get(nodeIdOf(key));
      const fit = chain.isIssuer(key) || member?.membership.role === "sclerotium";
      if (!fit || state.revocations.get("node", key)) {
        throw new Refusal("unfit-issuer", `${nodeIdOf(key)} is no Sclerotium of this network`);
      }
    }
    for (const key of chain.issuers) {
      const kept = epoch.issuers.some((one) => equalBytes(one, key));
      if (!kept && !this.#gone(key)) {
        throw new Refusal("unfit-issuer", `${nodeIdOf(key)} is still a Sclerotium of this network`);
      }
    }
    this.#lock(epoch.epoch, p);
    const one = signEpoch(state.networkId, p, state.keyPair);
    return { k: one.key, s: one.signature };
  }

  #propose(wanted: readonly Uint8Array[]): void {
    const { ctx } = this;
    const { state } = ctx;
    const chain = state.network!.chain!;
    const locked = state.signedEpoch;
    const payload = locked?.epoch === chain.epoch + 1 ? locked.payload : encodeEpoch({
      epoch: chain.epoch + 1,
      previous: chain.head,
      issuers: wanted,
      createdMs: ctx.nowMs,
    });
    if (!this.#proposal || !equalBytes(this.#proposal.payload, payload)) {
      this.#lock(chain.epoch + 1, payload);
      const own = signEpoch(state.networkId, payload, state.keyPair);
      this.#proposal = { payload, signatures: new Map([[toHex(own.key), own]]) };
    }
    const proposal = this.#proposal;
    const genesis = this.#genesisPair();
    if (genesis) {
      const one = signEpoch(state.networkId, payload, genesis);
      proposal.signatures.set(toHex(one.key), one);
    }
    if (this.#conclude(proposal)) return;
    for (const key of chain.issuers) {
      const nodeId = nodeIdOf(key);
      if (!ctx.sessions.get(nodeId)?.member || proposal.signatures.has(toHex(key))) continue;
      ctx.call(nodeId, "authority.sign", { p: payload }, 10_000, (result) => {
        if (!result.ok || this.#proposal !== proposal) return;
        try {
          const read = readSigned(result.body, "authority.sign");
          const one = { key: read.k, signature: read.s };
          if (!verifyEpochSignature(state.networkId, payload, one) || !equalBytes(one.key, key)) return;
          proposal.signatures.set(toHex(key), one);
          this.#conclude(proposal);
        } catch (error) {
          if (!(error instanceof WireError)) throw error;
        }
      });
    }
  }

  #conclude(
    proposal: { readonly payload: Uint8Array; readonly signatures: Map<string, SignedEpoch["signatures"][number]> },
  ): boolean {
    const { ctx } = this;
    const chain = ctx.state.network!.chain!;
    const byGenesis = proposal.signatures.has(toHex(chain.genesisKey));
    if (
      decodeEpoch(proposal.payload).epoch !== chain.epoch + 1 ||
      proposal.signatures.size < chain.threshold && !byGenesis
    ) return false;
    const signed = { payload: proposal.payload, signatures: [...proposal.signatures.values()] };
    this.#proposal = undefined;
    const fresh = this.exchange.learnEpochs([signed]);
    if (fresh.length > 0) {
      this.exchange.tell({ epochs: fresh });
      ctx.audit(
        "authority-epoch",
        ctx.state.nodeId,
        `epoch ${chain.epoch + 1}: ${decodeEpoch(signed.payload).issuers.map(nodeIdOf).join(" ")}`,
      );
    }
    this.nudge();
    return true;
  }

  #lock(epoch: number, payload: Uint8Array): void {
    const { state } = this.ctx;
    const locked = state.signedEpoch;
    if (locked && locked.epoch >= epoch && !(locked.epoch === epoch && equalBytes(locked.payload, payload))) {
      throw new Refusal("stale-epoch", `another payload was signed for epoch ${locked.epoch}`);
    }
    if (locked?.epoch === epoch) return;
    state.signedEpoch = { epoch, payload };
    this.ctx.persist([[KEYS.signedEpoch, encodeCbor({ e: epoch, p: payload })]]);
  }

  /** Whether this node leads the primaries, or is the first reachable issuer that stays one. */
  #leads(wanted: readonly Uint8Array[]): boolean {
    const { state, sessions } = this.ctx;
    const { runs, leader } = this.primary();
    // Between two leaders it can wait: fewer than elect one sign no epoch either.
    if (runs && leader === undefined) {
      this.#leaderlessMs ??= this.ctx.nowMs;
      // Unless none comes: after a decided split the voter that they lack may be the one that has to be an issuer again.
      if (this.ctx.nowMs < this.#leaderlessMs + LEADERLESS_MS) return false;
    } else this.#leaderlessMs = undefined;
    const able = leader !== undefined && wanted.some((key) => nodeIdOf(key) === leader) &&
      !state.members.get(leader)?.record.drained;
    if (able) return leader === state.nodeId;
    for (const key of state.network!.chain!.issuers) {
      if (equalBytes(key, state.keyPair.publicKey)) return true;
      if (sessions.get(nodeIdOf(key))?.member && wanted.some((one) => equalBytes(one, key))) return false;
    }
    return false;
  }

  /** Present issuers that are not gone, then Sclerotia by the time they joined, up to the limit. */
  #wanted(): readonly Uint8Array[] {
    const { state, sessions } = this.ctx;
    const kept = state.network!.chain!.issuers.filter((key) => !this.#gone(key));
    const joined = state.members.all().filter((one) =>
      one.membership.role === "sclerotium" && !this.#gone(one.publicKey) && !kept.some((key) =>
        equalBytes(key, one.publicKey)
      ) &&
      (one.nodeId === state.nodeId || sessions.get(one.nodeId)?.member)
    ).sort((a, b) => a.membership.issuedMs - b.membership.issuedMs).map((one) => one.publicKey);
    return [...kept, ...joined].slice(0, LIMITS.issuersMax);
  }

  #gone(key: Uint8Array): boolean {
    const { state } = this.ctx;
    return state.revocations.get("node", key) !== undefined || state.members.get(nodeIdOf(key))?.record.left === true;
  }
}

function sameKeys(a: readonly Uint8Array[], b: readonly Uint8Array[]): boolean {
  return a.length === b.length && a.every((one) => b.some((other) => equalBytes(one, other)));
}
