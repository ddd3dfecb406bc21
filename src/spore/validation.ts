/**
 * Whether a version that arrived may enter the table: signature, author, key, dates and proof against the authority
 * chain. Every refusal has a reason that is counted.
 *
 * @module
 */

import { compareBytes } from "../core/bytes.ts";
import { WireError } from "../core/codec.ts";
import { isSigned } from "../core/envelope.ts";
import { mayWrite, ownerOf } from "./keys.ts";
import type { WireVersion } from "./messages.ts";
import { type RankProof, verifyProof } from "./proof.ts";
import { openSpore, RECORD_LIFE_MS_MAX, type Spore } from "./record.ts";
import type { Version } from "./table.ts";

/** Why a version is refused. */
export type SporeRefusal =
  /** It does not read. */
  | "spore-malformed"
  /** Its signature is not valid in this network: it was tampered with, by whoever passed it on. */
  | "spore-tampered"
  /** Its author is no member that this node knows. */
  | "spore-unknown-author"
  /** Its author was removed from the network. */
  | "spore-revoked-author"
  /** Its author may not write under this key. */
  | "spore-not-allowed"
  /** Its number is before its date: it is no clock. */
  | "spore-bad-seq"
  /** It is over. */
  | "spore-expired";

/** Why a version that is genuine is not used before it was confirmed. */
export type Suspicion =
  /** Its date is further ahead than honest clocks differ. */
  | "future"
  /** Trust in its author was withdrawn. */
  | "distrusted"
  /** Something of a higher tier says otherwise: found in the table, see `challenger`. */
  | "contradicts";

/** What is wrong with a proof; the record may stand without it. */
export type ProofRefusal =
  /** Of an epoch that this node does not know yet. */
  | "proof-unknown-epoch"
  /** Of an epoch that is over for too long. */
  | "proof-old-epoch"
  | "proof-expired"
  /** It claims to count for longer than any does. */
  | "proof-too-long"
  /** Not signed by enough of the issuers. */
  | "proof-forged";

/** What the validation has to know of the network. */
export interface SporeFacts {
  readonly networkId: Uint8Array;
  readonly nowMs: number;
  /** How far clocks of honest nodes may differ. */
  readonly skewMs: number;
  /** Public key of a member, whether alive or not. */
  member(nodeId: string): boolean;
  revoked(publicKey: Uint8Array): boolean;
  /** Whether this key was an issuer when a record of this date was signed. */
  issuer(publicKey: Uint8Array, issuedMs: number): boolean;
  /** Issuers of an authority epoch: `undefined` where it is not known, `old` where its proofs count no longer. */
  issuersOf(epoch: number): readonly Uint8Array[] | "old" | undefined;
  /** Authors whose word is not used before it was confirmed. */
  distrusted(nodeId: string): boolean;
}

/** The verdict on a version. */
export type Verdict =
  | {
    readonly ok: true;
    readonly version: Version;
    /** Missing where it may be used at once. */
    readonly suspicion?: Exclude<Suspicion, "contradicts">;
    /** Its proof was left out, and why. */
    readonly proofRefused?: ProofRefusal;
  }
  | { readonly ok: false; readonly reason: SporeRefusal; readonly message: string };

/** Options of {@linkcode checkVersion}. */
export interface CheckOptions {
  /** A word that was verified before and has this very envelope: its signature is not verified again. */
  readonly known?: Spore | undefined;
  /** A proof that was verified before for this very word. */
  readonly knownProof?: RankProof | undefined;
}

/** Checks a version; takes one signature check for the word and one for each signature of its proof. */
export function checkVersion(wire: WireVersion, facts: SporeFacts, options: CheckOptions = {}): Verdict {
  let spore: Spore;
  if (options.known) spore = options.known;
  else {
    try {
      spore = openSpore(wire.envelope, facts.networkId);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      const reason = isSigned(wire.envelope, facts.networkId) ? "spore-malformed" : "spore-tampered";
      return { ok: false, reason, message: error.message };
    }
  }
  const { record } = spore;
  const key = wire.envelope.signer;
  const no = (reason: SporeRefusal, message: string): Verdict => ({ ok: false, reason, message });
  const checked = wire.proof && (wire.proof === options.knownProof ? undefined : proofFault(spore, wire.proof, facts));
  const proof = checked ? undefined : wire.proof;
  if (record.seq < record.issuedMs) return no("spore-bad-seq", `number ${record.seq} is before ${record.issuedMs}`);
  // What a majority of the issuers has in its state stands, whatever became of the author since; but what a node says
  // of itself goes with the node.
  const lifted = proof?.tier === "primary" && (ownerOf(record.key)?.kind !== "node" || !facts.revoked(key));
  if (!lifted) {
    if (facts.revoked(key)) return no("spore-revoked-author", `${spore.author} was removed`);
    // An issuer that has lifted it knows the author: a seed tells of services of members that joined meanwhile.
    if (!proof && !facts.member(spore.author)) return no("spore-unknown-author", `${spore.author} is no member`);
    const writer = { nodeId: spore.author, issuer: facts.issuer(key, record.issuedMs) };
    if (!mayWrite(record.key, writer, record.value === undefined)) {
      return no("spore-not-allowed", `${spore.author} may not write "${record.key}"`);
    }
  }
  const endsMs = Math.max(record.seq + RECORD_LIFE_MS_MAX, proof?.untilMs ?? 0);
  if (endsMs <= facts.nowMs) return no("spore-expired", `it ended at ${endsMs}`);
  const suspicion = lifted
    ? undefined
    : record.seq > facts.nowMs + facts.skewMs
    ? "future" as const
    : facts.distrusted(spore.author)
    ? "distrusted" as const
    : undefined;
  return {
    ok: true,
    version: { spore, proof },
    ...(suspicion ? { suspicion } : {}),
    ...(checked ? { proofRefused: checked } : {}),
  };
}

/** What is wrong with a proof of this word; `undefined` where it holds. */
export function proofFault(spore: Spore, proof: RankProof, facts: SporeFacts): ProofRefusal | undefined {
  if (proof.untilMs <= facts.nowMs) return "proof-expired";
  if (proof.untilMs > facts.nowMs + RECORD_LIFE_MS_MAX + facts.skewMs) return "proof-too-long";
  const issuers = facts.issuersOf(proof.epoch);
  if (issuers === undefined) return "proof-unknown-epoch";
  if (issuers === "old") return "proof-old-epoch";
  // An issuer that was removed signs no more, not even for the epoch that it was in.
  const standing = proof.tier === "seed" ? issuers.filter((one) => !facts.revoked(one)) : issuers;
  const subject = { networkId: facts.networkId, key: spore.record.key, hash: spore.hash };
  return verifyProof(subject, proof, standing) ? undefined : "proof-forged";
}

/** Two words of one author under one number: what shows that it says two things at once. */
export interface Equivocation {
  readonly author: string;
  readonly key: string;
  readonly seq: number;
  /** Both words, the lesser hash first, so that everybody keeps the same. */
  readonly words: readonly [Spore, Spore];
}

/** Evidence of two words, or `undefined` where they are none. */
export function equivocationOf(a: Spore, b: Spore): Equivocation | undefined {
  const same = a.author === b.author && a.record.key === b.record.key && a.record.seq === b.record.seq;
  const order = compareBytes(a.hash, b.hash);
  if (!same || order === 0) return undefined;
  return { author: a.author, key: a.record.key, seq: a.record.seq, words: order < 0 ? [a, b] : [b, a] };
}
