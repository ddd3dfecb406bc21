/**
 * Whether a seed bundle is signed by somebody whose word counts: genesis → epochs → signer, and which of two halves.
 *
 * @module
 */

import { equalBytes, toHex } from "../core/bytes.ts";
import { decodeAs, WireError } from "../core/codec.ts";
import { nodeIdOf } from "../core/ids.ts";
import { AuthorityChain, decodeEpoch, epochHash, readSignedEpoch, type SignedEpoch } from "../identity/authority.ts";
import { type Decision, openDecision } from "../identity/decision.ts";
import { verifyGenesis } from "../identity/genesis.ts";
import { mayWrite } from "../spore/keys.ts";
import { verifyProof } from "../spore/proof.ts";
import { openSpore, type Spore } from "../spore/record.ts";
import type { BundleRecord, SeedBundle } from "../spore/seed_bundle.ts";

/** What the reader of a bundle knows before. */
export interface SeedKnowledge {
  /** Its chain, where it is a member. */
  readonly chain?: AuthorityChain | undefined;
  /** Where it has an invite only: what that names. */
  readonly invite?: {
    readonly anchor: { readonly epoch: number; readonly hash: Uint8Array };
    readonly issuer: Uint8Array;
  } | undefined;
  /** The decision about a split that it has adopted. */
  readonly decision?: Decision | undefined;
  /** Whether a node was removed from the network. */
  readonly revoked?: (publicKey: Uint8Array) => boolean;
}

/** Why a bundle with a valid signature is not believed; becomes a metric label. */
export type AuthorityRefusal =
  /** Its signer is no issuer, as far as this reader can tell. */
  | "unknown-signer"
  /** Genesis, an epoch or the decision is not what it has to be. */
  | "tampered"
  /** Its authority is older than what the reader knows for sure. */
  | "stale-authority"
  /** Its epochs contradict those that are known, and no decision of the genesis key says that they count. */
  | "fork";

/** Outcome of {@linkcode verifyAuthority}. */
export type AuthorityVerdict =
  | {
    readonly ok: true;
    /** The chain with what the bundle adds; missing where the reader has to take the word of its invite's issuer. */
    readonly chain?: AuthorityChain;
    /** Number of the first epoch of the reader that the decision replaces; missing: none. */
    readonly replacesFrom?: number;
    /** The decision in the bundle, where it is valid and not older than the one that is known. */
    readonly decision?: Decision;
  }
  | { readonly ok: false; readonly reason: AuthorityRefusal; readonly detail: string };

/** Checks the authority of a bundle. Pure: adopting what it says is the caller's. */
export function verifyAuthority(bundle: SeedBundle, known: SeedKnowledge): AuthorityVerdict {
  const refuse = (reason: AuthorityRefusal, detail: string): AuthorityVerdict => ({ ok: false, reason, detail });
  let epochs: readonly SignedEpoch[];
  let genesisKey = known.chain?.genesisKey;
  let decision: Decision | undefined;
  try {
    epochs = bundle.epochs.map((one) => decodeAs(one, readSignedEpoch));
    if (bundle.genesis) genesisKey = verifyGenesis(bundle.genesis, bundle.networkId).genesisKey;
    if (bundle.decision && genesisKey) decision = openDecision(bundle.decision, bundle.networkId, genesisKey);
  } catch (error) {
    if (error instanceof WireError) return refuse("tampered", error.message);
    throw error;
  }
  if (decision && known.decision && decision.seq < known.decision.seq) decision = undefined;
  const invited = known.invite && equalBytes(bundle.signer, known.invite.issuer);
  const withDecision = decision ? { decision } : {};

  let chain: AuthorityChain;
  let replacesFrom: number | undefined;
  try {
    if (known.chain) {
      const fork = forkOf(known.chain, epochs);
      if (fork === undefined) chain = known.chain.merged(epochs);
      else {
        const theirs = known.chain.upTo(fork - 1).merged(epochs);
        // A decision about what both halves have says nothing about where they part.
        const named = decision && decision.epoch >= fork && theirs.hashAt(decision.epoch);
        if (!decision || !named || !equalBytes(named, decision.hash)) {
          const theirHash = theirs.hashAt(fork)!;
          return refuse(
            "fork",
            `its epoch ${fork} is ${short(theirHash)}, ours is ${short(known.chain.hashAt(fork)!)}`,
          );
        }
        chain = theirs;
        replacesFrom = fork;
      }
      if (decision && !holds(chain, decision)) {
        return refuse(
          "fork",
          `its decision names epoch ${decision.epoch} ${short(decision.hash)}, which it does not hold`,
        );
      }
      if (known.decision && !holds(chain, decision ?? known.decision)) {
        return refuse("fork", `its epochs contradict the decision for epoch ${known.decision.epoch}`);
      }
    } else {
      const whole = bundle.genesis && epochs[0] && decodeEpoch(epochs[0].payload).epoch === 1;
      if (!whole || !genesisKey) {
        if (invited) return { ok: true };
        return refuse("unknown-signer", "it does not hold the way from the genesis to its signer");
      }
      chain = AuthorityChain.empty(bundle.networkId, genesisKey).merged(epochs);
      const anchor = known.invite?.anchor;
      if (anchor) {
        const anchored = chain.hashAt(anchor.epoch);
        if (!anchored) {
          return refuse("stale-authority", `it ends at epoch ${chain.epoch}, the invite names ${anchor.epoch}`);
        }
        if (!equalBytes(anchored, anchor.hash)) {
          return refuse("fork", `its epoch ${anchor.epoch} is not the one that the invite names`);
        }
      }
      if (decision && !holds(chain, decision)) return refuse("fork", "its epochs contradict its own decision");
    }
  } catch (error) {
    if (error instanceof WireError) return refuse("tampered", error.message);
    throw error;
  }
  const revoked = known.revoked?.(bundle.signer) ?? false;
  const counts = chain.counts(bundle.signer, bundle.issuedMs) && !revoked;
  if (!counts && !equalBytes(bundle.signer, chain.genesisKey)) {
    return refuse("unknown-signer", `${nodeIdOf(bundle.signer)} is no issuer in epoch ${chain.epoch}`);
  }
  return { ok: true, chain, ...(replacesFrom === undefined ? {} : { replacesFrom }), ...withDecision };
}

/** Why a record of a bundle is not believed; becomes a metric label. */
export type RecordRefusal = "record-tampered" | "record-not-permitted" | "record-unproved" | "record-expired";

/** Opens a record of a bundle and checks author, right to the key, and proof. */
export function openBundleRecord(
  one: BundleRecord,
  known: {
    readonly networkId: Uint8Array;
    readonly chain: AuthorityChain;
    readonly nowMs: number;
    readonly revoked?: ((publicKey: Uint8Array) => boolean) | undefined;
  },
): { readonly ok: true; readonly spore: Spore } | { readonly ok: false; readonly reason: RecordRefusal } {
  const { chain, nowMs } = known;
  let spore: Spore;
  try {
    spore = openSpore(one.envelope, known.networkId);
  } catch (error) {
    if (error instanceof WireError) return { ok: false, reason: "record-tampered" };
    throw error;
  }
  if (nowMs >= Math.max(spore.record.expiresMs, one.proof.untilMs)) return { ok: false, reason: "record-expired" };
  const subject = { networkId: known.networkId, key: spore.record.key, hash: spore.hash };
  // Of the epochs before the last two anybody's key may have been stolen since.
  const epochIsRecent = one.proof.epoch >= chain.epoch - 1 && one.proof.epoch <= chain.epoch;
  const all = chain.issuersAt(one.proof.epoch);
  // One issuer is enough for the Seed tier: not one that was removed. A majority is one whoever was removed since.
  const issuers = one.proof.tier === "seed" ? all.filter((key) => !known.revoked?.(key)) : all;
  const proved = nowMs < one.proof.untilMs && epochIsRecent && verifyProof(subject, one.proof, issuers);
  if (!proved) return { ok: false, reason: "record-unproved" };
  // What a majority of the issuers has in its state stands, whatever became of the author since.
  if (one.proof.tier === "primary") return { ok: true, spore };
  const author = one.envelope.signer;
  const writer = { nodeId: spore.author, issuer: chain.counts(author, spore.record.issuedMs) };
  const permitted = mayWrite(spore.record.key, writer, spore.record.value === undefined);
  return permitted && !known.revoked?.(author) ? { ok: true, spore } : { ok: false, reason: "record-not-permitted" };
}

/** Number of the first epoch of which two chains hold different ones. */
export function forkOf(chain: AuthorityChain, epochs: readonly SignedEpoch[]): number | undefined {
  for (const { payload } of epochs) {
    const { epoch } = decodeEpoch(payload);
    const ours = chain.hashAt(epoch);
    if (ours && !equalBytes(ours, epochHash(payload))) return epoch;
  }
  return undefined;
}

function holds(chain: AuthorityChain, decision: Decision): boolean {
  const hash = chain.hashAt(decision.epoch);
  return hash !== undefined && equalBytes(hash, decision.hash);
}

function short(hash: Uint8Array): string {
  return toHex(hash.subarray(0, 4));
}
