/**
 * Seed Spores: makes bundles on issuers, takes in those that are found, and ends splits by what the genesis key says.
 *
 * Whatever file or server a bundle came from: what counts is its signer, that its number is not below one that was
 * seen before (durably, over restarts), and the proofs of its records. See docs/guide/spores.md.
 *
 * @module
 */

import { equalBytes, toHex, utf8 } from "../core/bytes.ts";
import {
  bytes,
  type CborValue,
  decodeAs,
  dictionary,
  encodeCbor,
  optional,
  record,
  uint,
  WireError,
} from "../core/codec.ts";
import { type KeyPair, keyPairFromSeed } from "../core/crypto.ts";
import { type Envelope, readEnvelope } from "../core/envelope.ts";
import { nodeIdOf, shortNodeId } from "../core/ids.ts";
import { decodeSeed } from "../bootstrap/seed_document.ts";
import { type AuthorityChain, decodeEpoch } from "../identity/authority.ts";
import { type Decision, openDecision, sealDecision } from "../identity/decision.ts";
import type { Member } from "../membership/table.ts";
import { type RankProof, type RankStatement, signRank } from "../spore/proof.ts";
import { readSpore, RECORD_LIFE_MS_MAX, type Spore } from "../spore/record.ts";
import {
  BUNDLE_ADDRESSES_MAX,
  BUNDLE_BYTES_MAX,
  BUNDLE_EPOCHS_MAX,
  bundleBytes,
  type BundleContent,
  type BundleKind,
  type BundleRecord,
  type BundleRefusal,
  chooseRecords,
  contentBytes,
  contentHash,
  looksLikeBundle,
  openBundle,
  proofBytes,
  sealBundle,
  SEED_PROOF_BYTES,
  type SeedBundle,
  spellBundle,
} from "../spore/seed_bundle.ts";
import { ownerOf } from "../spore/keys.ts";
import { compareVersions, type SporeTable } from "../spore/table.ts";
import type { Method } from "./access_table.ts";
import { type Context, type DEFERRED, Refusal } from "./context.ts";
import type { ControlRequest } from "./control.ts";
import type { PeerView } from "./effects.ts";
import type { Exchange } from "./exchange.ts";
import type { Part } from "./part.ts";
import {
  type AuthorityRefusal,
  type AuthorityVerdict,
  openBundleRecord,
  type RecordRefusal,
  type SeedKnowledge,
  verifyAuthority,
} from "./seed_authority.ts";
import { envelopeBytes, epochBytes, type Put } from "./state.ts";
import type { SeedStatus } from "./status.ts";

/** Requests that this part answers. */
export type SeedRequest =
  | {
    readonly verb: "seed-export";
    readonly kind?: BundleKind;
    readonly ttlMs?: number;
    /** Content hash of the bundle that is out already: the same again is not made. */
    readonly unless?: string;
    /** Number that the new one has to exceed. */
    readonly above?: number;
  }
  | {
    readonly verb: "seed-import";
    /** The bundle as text. */
    readonly text: string;
    /** File or address that it is from, for people. */
    readonly from?: string;
    readonly dryRun?: boolean;
    /** Take it although a newer one was seen. */
    readonly force?: boolean;
  }
  | {
    readonly verb: "seed-decide";
    readonly dryRun?: boolean;
    readonly ttlMs?: number;
    /** The genesis key where it is not on this node; read from a file by the edge, never from a command line. */
    readonly genesisSeed?: Uint8Array;
  };

/** What the rest of the node keeps records in. */
export interface RecordShelf {
  /** What counts under the keys that begin with `prefix`, tombstones included. */
  list(prefix: string): readonly { readonly spore: Spore; readonly proof: RankProof | undefined }[];
  /** What merging would come to, nothing being changed. */
  compare(spore: Spore, proof: RankProof): "new" | "newer" | "renewed" | "known" | "older";
  /** Takes a record that was checked; returns whether anything changed. */
  offer(spore: Spore, proof: RankProof, from: string): boolean;
}

/** Why a seed was refused; becomes a metric label. */
export type SeedRefusalCode = BundleRefusal | AuthorityRefusal | "rollback" | "bad-signature" | "distrusted";

/** What a seed says, once it is verified. */
export type SeedReading =
  | {
    readonly ok: true;
    readonly kind: SeedKind;
    readonly seq: number;
    /** Node id of the signer; of the genesis key where that signed. */
    readonly signer: string;
    readonly addresses: readonly string[];
    readonly issuedMs: number;
    readonly expiresMs: number;
    /** It has run out: better than nothing. */
    readonly stale: boolean;
    /** Records that it holds. */
    readonly records: number;
    /** What it says, whoever says it and when, in hexadecimal; missing for the form that holds addresses only. */
    readonly content?: string;
  }
  | { readonly ok: false; readonly reason: SeedRefusalCode; readonly detail: string };

/** What a seed may be: a bundle, or the list of addresses that was there before. */
export type SeedKind = BundleKind | "addresses";

/** What importing a bundle came to, or would come to. */
export interface ImportReport {
  readonly applied: boolean;
  readonly kind: SeedKind;
  readonly seq: number;
  /** Highest number of this signer and kind that was seen before. */
  readonly seqSeen?: number;
  readonly signer: string;
  readonly issuedMs: number;
  readonly expiresMs: number;
  readonly stale: boolean;
  readonly addresses: number;
  /** Number of the newest epoch before and after. */
  readonly epoch: { readonly before: number; readonly after: number };
  /** A decision about a split replaces epochs of this node. */
  readonly replaces?: {
    readonly fromEpoch: number;
    readonly issuersBefore: readonly string[];
    readonly issuersAfter: readonly string[];
  };
  /** Records by what becomes of them. */
  readonly counts: { readonly [outcome: string]: number };
  /** Those that change something, or were refused; at most 200. */
  readonly records: readonly { readonly key: string; readonly outcome: string }[];
}

const KEY = "seeds";
const KEY_DECISION = "seed-decision";

const readStored = record({ o: uint(), s: dictionary(uint(), 256) });

/** How long a bundle counts as fresh. */
export const BUNDLE_TTL_MS: number = RECORD_LIFE_MS_MAX;
/** Signers and kinds whose numbers are remembered; the lowest number gives way. */
const SEEN_MAX = 64;
/** Proofs kept for the next bundle; the oldest gives way. */
const SIGNED_MAX = 2_048;
/** Time for a bundle to cross a slow link. */
const OFFER_MS = 20_000;
/** Nodes that are told of a decision are told again after so long. */
const TELL_AGAIN_MS = 30_000;
/** Nodes told of a decision that are remembered; then all may be told again. */
const TOLD_NODES_MAX = 256;
/** Time for a decision to spread over channels that it will close. */
const REJOIN_MS = 2_000;
/** Numbers from a clock that was ahead are not followed further than that. */
const AHEAD_MS_MAX = 86_400_000;
/** Addresses of one member in a bundle. */
const ADDRESSES_EACH = 4;
/** Records of a bundle that are verified in one step. */
const RECORDS_AT_ONCE = 32;
/** Bundles that are taken at the same time. */
const JOBS_MAX = 8;
/** Records that an import tells one by one. */
const TOLD_MAX = 200;

const readOffer = record({ b: bytes({ max: BUNDLE_BYTES_MAX }) });

/** What {@linkcode Seeds} needs of the rest of the agent. */
export interface SeedsOptions {
  readonly ctx: Context;
  readonly exchange: Exchange;
  /** The store as it stood at the start. */
  readonly entries: ReadonlyMap<string, Uint8Array>;
  readonly shelf: RecordShelf;
  /** Members whose addresses are worth telling. */
  readonly members: () => readonly Member[];
  /** The chain was replaced: what rests on the old one is void. */
  readonly replaced: (newPrimary: boolean) => void;
  /** When the Primary Spore was last recovered from a lost majority; 0 for never; missing where that is not known. */
  readonly recoveredMs: () => number | undefined;
  /** Some moments later: the node has to find the others anew. */
  readonly rejoin: () => void;
  /** Whose seeds are not read, unless a person insists. */
  readonly distrusted: (nodeId: string) => boolean;
}

function distrusted(signer: string): SeedReading & { readonly ok: false } {
  return {
    ok: false,
    reason: "distrusted",
    detail: `signed by ${signer}, which is not trusted: mycelium trust explain`,
  };
}

function isAgreed(spore: Spore): boolean {
  return ownerOf(spore.record.key)?.kind === "agreed";
}

/** Makes and takes Seed Spores. */
export class Seeds implements Part {
  readonly methods: readonly Method[] = ["seed.offer"];
  readonly verbs: readonly string[] = ["seed-export", "seed-import", "seed-decide"];
  readonly #options: SeedsOptions;
  /** Number of the last bundle that was made here. */
  #ownSeq = 0;
  /** Highest number seen, by signer and kind. */
  #seen = new Map<string, number>();
  #decision: { readonly decision: Decision; readonly envelope: Envelope } | undefined;
  /** Proofs made in this run, by the record's hash. */
  readonly #signed = new Map<string, RankProof>();
  /** Bundles taken in this run, by signer and kind. */
  readonly #taken = new Map<string, Taken>();
  /** Bundles whose records wait until this node is a member. */
  readonly #waiting = new Map<string, { readonly content: Uint8Array; readonly from: string }>();
  /** Bundles whose records are being taken, oldest first. */
  readonly #jobs: { readonly records: readonly BundleRecord[]; readonly taken: Taken; at: number }[] = [];
  /** When nodes that follow other epochs were told of the decision. */
  readonly #toldMs = new Map<string, number>();
  #rejoinAtMs = Infinity;
  /** Why what was stored could not be read. A node goes on without: seeds can be read again. */
  #unreadable: string | undefined;

  constructor(options: SeedsOptions) {
    this.#options = options;
    const stored = options.entries.get(KEY);
    const decision = options.entries.get(KEY_DECISION);
    const genesis = options.ctx.state.network?.genesis?.record;
    try {
      if (stored) {
        const { o, s } = decodeAs(stored, readStored);
        this.#ownSeq = o;
        this.#seen = new Map(s);
      }
      if (decision && genesis) {
        const envelope = decodeAs(decision, readEnvelope);
        const opened = openDecision(envelope, options.ctx.state.networkId, genesis.genesisKey);
        this.#decision = { decision: opened, envelope };
      }
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      this.#unreadable = error.message;
    }
  }

  start(): void {
    if (this.#unreadable !== undefined) {
      const message = `What was known of seeds cannot be read, an older one may pass once: ${this.#unreadable}`;
      this.#options.ctx.log("error", "seeds-unreadable", message);
      this.#unreadable = undefined;
    }
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const { content, from } of waiting) this.take(content, from);
  }

  clear(): void {
    this.#ownSeq = 0;
    this.#seen.clear();
    this.#decision = undefined;
    this.#signed.clear();
    this.#taken.clear();
    this.#waiting.clear();
    this.#jobs.length = 0;
    this.#toldMs.clear();
    this.#rejoinAtMs = Infinity;
  }

  keys(): readonly string[] {
    return [KEY, KEY_DECISION];
  }

  clockSetBack(): void {
    if (this.#rejoinAtMs !== Infinity) this.#rejoinAtMs = 0;
    this.#toldMs.clear();
  }

  wake(): number {
    const { ctx, rejoin } = this.#options;
    if (ctx.nowMs >= this.#rejoinAtMs) {
      this.#rejoinAtMs = Infinity;
      rejoin();
    }
    this.#takeSlice();
    return this.#jobs.length > 0 ? ctx.nowMs : this.#rejoinAtMs;
  }

  /** Some records of a bundle: verifying all of them at once would hold up everything else. */
  #takeSlice(): void {
    const [job] = this.#jobs;
    if (!job) return;
    const records = job.records.slice(job.at, job.at + RECORDS_AT_ONCE);
    job.at += records.length;
    this.#count(job.taken, this.#offerRecords(records, job.taken.from));
    if (job.at >= job.records.length) this.#jobs.shift();
  }

  #count(taken: Taken, outcomes: readonly RecordOutcome[]): void {
    for (const one of outcomes) {
      if (one.refused) taken.refused += 1;
      else taken.records += 1;
    }
  }

  /**
   * A node follows epochs that contradict ours. Where that was decided it may have been away: it is told. Only issuers
   * can make a bundle that it believes.
   */
  contradicted(nodeId: string): void {
    const { ctx } = this.#options;
    if (!this.#decision || !ctx.state.isIssuer || !ctx.sessions.has(nodeId)) return;
    if (ctx.nowMs - (this.#toldMs.get(nodeId) ?? -Infinity) < TELL_AGAIN_MS) return;
    if (this.#toldMs.size >= TOLD_NODES_MAX) this.#toldMs.clear();
    this.#toldMs.set(nodeId, ctx.nowMs);
    const made = this.#make("master", BUNDLE_TTL_MS, ctx.state.keyPair);
    if (made.text) ctx.call(nodeId, "seed.offer", { b: bundleBytes(utf8(made.text)) }, OFFER_MS, () => {});
  }

  /**
   * Serves `seed.offer`: a decision about a split, from a member of the same half or from a node of the other one, who
   * is no member as far as this node can tell. What has no word of the genesis key is not looked at.
   */
  serve(peer: PeerView, _method: string, body: CborValue, _inboundId: number): CborValue | typeof DEFERRED {
    const { b } = readOffer(body, "seed.offer");
    const { networkId, network } = this.#options.ctx.state;
    const opened = openBundle(b, networkId);
    if (!opened.ok) throw new Refusal(opened.reason, opened.detail);
    if (!opened.bundle.decision) throw new Refusal("not-wanted", "only decisions travel this way");
    const decision = openDecision(opened.bundle.decision, networkId, network!.chain!.genesisKey);
    if (this.#decision && decision.seq <= this.#decision.decision.seq) return {};
    const reading = this.take(b, peer.nodeId);
    if (!reading.ok) {
      this.#options.ctx.refuse(`seed-${reading.reason}`, peer.remoteAddress);
      throw new Refusal(reading.reason, reading.detail);
    }
    return {};
  }

  answer(_controlId: number, asked: ControlRequest): unknown {
    const request = asked as SeedRequest;
    switch (request.verb) {
      case "seed-export":
        return this.#export(request);
      case "seed-import":
        return this.#import(request);
      case "seed-decide":
        return this.#decide(request);
      default:
        return request satisfies never;
    }
  }

  /** Issuers within reach that publish before this node; `undefined` where it is none itself. */
  turn(): { readonly ahead: readonly string[] } | undefined {
    const { state, sessions } = this.#options.ctx;
    const chain = state.network?.chain;
    if (!state.isIssuer || !chain || state.mode !== "normal") return undefined;
    const issuers = chain.issuers.map(nodeIdOf);
    return { ahead: issuers.slice(0, issuers.indexOf(state.nodeId)).filter((one) => sessions.get(one)?.member) };
  }

  /** For the status document. */
  view(): Omit<SeedStatus, "sources" | "targets"> {
    const { ctx } = this.#options;
    return {
      made: this.#ownSeq,
      seen: [...this.#seen].map(([name, seq]) => {
        const [kind = "", key = ""] = name.split(":");
        return { signer: key, kind, seq };
      }),
      taken: [...this.#taken.values()].map((one) => ({
        kind: one.kind,
        seq: one.seq,
        signer: one.signer,
        from: one.from,
        atMs: one.atMs,
        stale: ctx.nowMs >= one.expiresMs,
        records: one.records,
        refused: one.refused,
      })),
      ...(this.#decision
        ? { decision: { epoch: this.#decision.decision.epoch, atMs: this.#decision.decision.seq } }
        : {}),
    };
  }

  /** Reads a seed and says whether it counts. Changes nothing. */
  read(content: Uint8Array): SeedReading {
    const judged = this.#judge(content, false);
    return judged.ok ? judged.reading : judged;
  }

  /** Takes a seed in: its number, what it adds to the chain, its records. */
  take(content: Uint8Array, from: string): SeedReading {
    const judged = this.#judge(content, false);
    if (!judged.ok) return judged;
    this.#accept(judged, content, from);
    return judged.reading;
  }

  #judge(content: Uint8Array, force: boolean): Judged | (SeedReading & { readonly ok: false }) {
    const { ctx } = this.#options;
    const { state } = ctx;
    if (!state.network) return { ok: false, reason: "foreign", detail: "this node is of no network yet" };
    if (!looksLikeBundle(content)) return this.#judgeDocument(content, force);
    const opened = openBundle(content, state.networkId);
    if (!opened.ok) return opened;
    const { bundle } = opened;
    const verdict = verifyAuthority(bundle, this.#knowledge());
    if (!verdict.ok) return verdict;
    const name = `${bundle.kind}:${nodeIdOf(bundle.signer)}`;
    if (!force && this.#options.distrusted(nodeIdOf(bundle.signer))) return distrusted(nodeIdOf(bundle.signer));
    const seen = this.#seen.get(name);
    if (seen !== undefined && bundle.seq < seen && !force) {
      return { ok: false, reason: "rollback", detail: `its number is ${bundle.seq}, already seen ${seen}` };
    }
    const reading = {
      ok: true,
      kind: bundle.kind,
      seq: bundle.seq,
      signer: nodeIdOf(bundle.signer),
      addresses: bundle.addresses,
      issuedMs: bundle.issuedMs,
      expiresMs: bundle.expiresMs,
      stale: ctx.nowMs >= bundle.expiresMs,
      records: bundle.records.length,
      content: toHex(contentHash(bundle)),
    } as const;
    return { ok: true, name, seen, reading, bundle, verdict };
  }

  /** The form before bundles: addresses only. */
  #judgeDocument(content: Uint8Array, force: boolean): Judged | (SeedReading & { readonly ok: false }) {
    const { ctx } = this.#options;
    const { state } = ctx;
    const issuers = state.network?.chain?.issuers ?? [];
    const read = decodeSeed(content, {
      networkId: state.networkId,
      signers: state.invite ? [...issuers, state.invite.grantEnvelope.signer] : issuers,
      nowMs: ctx.nowMs,
      seqSeen: (signer) => force ? undefined : this.#seen.get(`addresses:${nodeIdOf(signer)}`),
    });
    if (!read.ok) return read;
    const { document, stale } = read;
    const signer = nodeIdOf(read.signer);
    const { seq, addresses, issuedMs, expiresMs } = document;
    const name = `addresses:${signer}`;
    if (!force && this.#options.distrusted(signer)) return distrusted(signer);
    const reading = { ok: true, kind: "addresses", seq, signer, addresses, issuedMs, expiresMs, stale, records: 0 };
    return { ok: true, name, seen: this.#seen.get(name), reading: reading as Judged["reading"] };
  }

  /** Takes what a seed says: its number and its chain at once, its records piece by piece unless `whole`. */
  #accept(judged: Judged, content: Uint8Array, from: string, whole = false): void {
    const { ctx, exchange } = this.#options;
    const { state } = ctx;
    const { reading, name, bundle, verdict } = judged;
    if (judged.seen !== reading.seq) this.#noteSeen(name, reading.seq);
    if (!bundle || !verdict) return;
    const known = this.#taken.get(name);
    // Mirrors are asked again and again; what was taken needs no second look.
    if (known && known.hash === toHex(bundle.hash)) return;
    if (!state.network?.chain || !state.network.credential || !verdict.chain) {
      this.#waiting.set(bundle.kind, { content, from });
      return;
    }
    const before = state.network.chain;
    if (verdict.decision) this.#learnDecision(verdict.decision, bundle.decision!);
    if (verdict.replacesFrom !== undefined) this.#adopt(verdict.chain, verdict.replacesFrom, content, from);
    else {
      const fresh = exchange.learnEpochs(verdict.chain.since(before.epoch + 1));
      if (fresh.length > 0) {
        exchange.tell({ epochs: fresh });
        ctx.audit("seed-epochs", reading.signer, `epochs ${before.epoch + 1} to ${verdict.chain.epoch} from ${from}`);
      }
    }
    const taken: Taken = {
      kind: bundle.kind,
      seq: bundle.seq,
      signer: reading.signer,
      hash: toHex(bundle.hash),
      from,
      atMs: ctx.nowMs,
      expiresMs: bundle.expiresMs,
      records: 0,
      refused: 0,
    };
    this.#taken.set(name, taken);
    if (this.#taken.size > SEEN_MAX) this.#taken.delete(this.#taken.keys().next().value!);
    if (whole) return this.#count(taken, this.#offerRecords(bundle.records, from));
    // Of one signer's bundles of one kind the newest: it holds what counts of the others.
    const same = this.#jobs.findIndex((one) => one.taken.kind === taken.kind && one.taken.signer === taken.signer);
    if (same >= 0) this.#jobs.splice(same, 1);
    // One too many is forgotten, and taken when it is read again.
    if (this.#jobs.length >= JOBS_MAX) this.#taken.delete(name);
    else if (bundle.records.length > 0) this.#jobs.push({ records: bundle.records, taken, at: 0 });
    ctx.wakeAt(ctx.nowMs);
  }

  #offerRecords(records: readonly BundleRecord[], from: string): RecordOutcome[] {
    const { ctx, shelf } = this.#options;
    const outcomes = this.#judgeRecords(records, ctx.state.network!.chain!, false);
    for (const one of outcomes) {
      if (one.refused) ctx.refuse(`seed-${one.outcome}`, from);
      else if (one.spore) shelf.offer(one.spore, one.proof!, from);
    }
    return outcomes;
  }

  /** What becomes of records; `thorough`: also those are verified that change nothing. */
  #judgeRecords(records: readonly BundleRecord[], chain: AuthorityChain, thorough: boolean): RecordOutcome[] {
    const { ctx, shelf } = this.#options;
    const revoked = (key: Uint8Array) => ctx.state.revocations.get("node", key) !== undefined;
    const known = { networkId: ctx.state.networkId, chain, nowMs: ctx.nowMs, revoked };
    return records.map((one): RecordOutcome => {
      if (!thorough) {
        // Most of what a mirror says again and again is known: comparing costs a hundredth of verifying.
        const outcome = this.#glance(one);
        if (outcome === "known" || outcome === "older") return { key: "", outcome, refused: false };
      }
      const opened = openBundleRecord(one, known);
      if (!opened.ok) return { key: keyOf(one), outcome: opened.reason, refused: true };
      const outcome = shelf.compare(opened.spore, one.proof);
      const news = outcome !== "known" && outcome !== "older";
      return {
        key: opened.spore.record.key,
        outcome,
        refused: false,
        ...(news ? { spore: opened.spore, proof: one.proof } : {}),
      };
    });
  }

  #glance(one: BundleRecord): ReturnType<RecordShelf["compare"]> | undefined {
    try {
      return this.#options.shelf.compare(readSpore(one.envelope), one.proof);
    } catch (error) {
      if (error instanceof WireError) return undefined;
      throw error;
    }
  }

  #learnDecision(decision: Decision, envelope: Envelope): void {
    if (this.#decision && this.#decision.decision.seq >= decision.seq) return;
    this.#decision = { decision, envelope };
    this.#options.ctx.persist([[KEY_DECISION, envelopeBytes(envelope)]]);
  }

  /** Goes over to the half of a split network that the genesis key has named. */
  #adopt(chain: AuthorityChain, fromEpoch: number, content: Uint8Array, from: string): void {
    const { ctx, exchange } = this.#options;
    const before = ctx.state.network!.chain!;
    // Whoever is reachable now is most likely of the same half.
    for (const nodeId of ctx.memberPeers()) {
      ctx.call(nodeId, "seed.offer", { b: bundleBytes(content) }, OFFER_MS, () => {});
    }
    exchange.replaceChain(chain, fromEpoch);
    const [common] = before.since(fromEpoch - 1);
    const splitMs = common && fromEpoch > 1 ? decodeEpoch(common.payload).createdMs : 0;
    this.#options.replaced(this.#otherHistory(splitMs));
    const detail = `epochs ${fromEpoch} to ${before.epoch} replaced by ${fromEpoch} to ${chain.epoch}, from ${from}`;
    ctx.audit("split-resolved", ctx.state.nodeId, detail);
    ctx.log("warn", "split-resolved", `The genesis key has decided for the other half: ${detail}`);
    this.#rejoinAtMs = ctx.nowMs + REJOIN_MS;
    ctx.wakeAt(this.#rejoinAtMs);
  }

  /**
   * Whether the Primary Spore of the half that counts has another history than that of this half: it was recovered by
   * force on one side since the split, and what they know of that differs. Where it is not known, nothing is thrown away.
   */
  #otherHistory(splitMs: number): boolean {
    const theirs = this.#decision?.decision.recoveredMs;
    if (theirs === undefined) return false;
    const ours = this.#options.recoveredMs() ?? 0;
    return theirs !== ours && Math.max(theirs, ours) > splitMs;
  }

  #knowledge(): SeedKnowledge {
    const { state } = this.#options.ctx;
    const { invite, network } = state;
    return {
      chain: network?.chain,
      ...(invite ? { invite: { anchor: invite.anchor, issuer: invite.grantEnvelope.signer } } : {}),
      decision: this.#decision?.decision,
      revoked: (key) => state.revocations.get("node", key) !== undefined,
    };
  }

  #noteSeen(name: string, seq: number): void {
    this.#seen.set(name, seq);
    while (this.#seen.size > SEEN_MAX) {
      const [lowest] = [...this.#seen].reduce((a, b) => b[1] < a[1] ? b : a);
      this.#seen.delete(lowest);
    }
    this.#options.ctx.persist([this.#stored()]);
  }

  #stored(): Put {
    return [KEY, encodeCbor({ o: this.#ownSeq, s: Object.fromEntries(this.#seen) })];
  }

  #import(request: SeedRequest & { readonly verb: "seed-import" }): ImportReport {
    const { ctx } = this.#options;
    const content = utf8(request.text);
    const judged = this.#judge(content, request.force ?? false);
    const from = request.from ?? "an import";
    if (!judged.ok) {
      ctx.refuse(`seed-${judged.reason}`, from);
      const cure = judged.reason === "rollback"
        ? "Fetch the newest; or, where it is lost: --force"
        : judged.reason === "fork"
        ? "See docs/runbooks/split-brain.md"
        : judged.reason === "malformed" || judged.reason === "tampered"
        ? "Fetch it again, or make a new one on an issuer: mycelium seed export"
        : "Take one of an issuer of this network: mycelium seed export";
      throw new Refusal(judged.reason, `Cannot import the seed: ${judged.detail}`, cure);
    }
    const { reading, bundle, verdict } = judged;
    const before = ctx.state.network!.chain!;
    const after = verdict?.chain ?? before;
    const report = {
      kind: reading.kind,
      seq: reading.seq,
      ...(judged.seen === undefined ? {} : { seqSeen: judged.seen }),
      signer: reading.signer,
      issuedMs: reading.issuedMs,
      expiresMs: reading.expiresMs,
      stale: reading.stale,
      addresses: reading.addresses.length,
      epoch: { before: before.epoch, after: Math.max(before.epoch, after.epoch) },
      ...(verdict?.replacesFrom === undefined ? {} : {
        epoch: { before: before.epoch, after: after.epoch },
        replaces: {
          fromEpoch: verdict.replacesFrom,
          issuersBefore: before.issuers.map(nodeIdOf),
          issuersAfter: after.issuers.map(nodeIdOf),
        },
      }),
    };
    const outcomes = bundle ? this.#judgeRecords(bundle.records, after, true) : [];
    const counts: Record<string, number> = {};
    for (const { outcome } of outcomes) counts[outcome] = (counts[outcome] ?? 0) + 1;
    const records = outcomes.filter((one) => one.outcome !== "known" && one.outcome !== "older")
      .slice(0, TOLD_MAX).map(({ key, outcome }) => ({ key, outcome }));
    if (!request.dryRun) {
      this.#taken.delete(judged.name);
      this.#accept(judged, content, from, true);
      const forced = request.force && judged.seen !== undefined && judged.seen > reading.seq;
      ctx.audit(
        "seed-imported",
        reading.signer,
        `${reading.kind} ${reading.seq} from ${from}${forced ? `, forced below ${judged.seen}` : ""}`,
      );
    }
    return { applied: !request.dryRun, ...report, counts, records };
  }

  #export(request: SeedRequest & { readonly verb: "seed-export" }): unknown {
    const { ctx } = this.#options;
    const { state } = ctx;
    if (!state.isIssuer) {
      throw new Refusal(
        "not-issuer",
        "Cannot export a seed: this node is not an issuer of the network",
        "Run it on a Sclerotium",
      );
    }
    const kind = request.kind ?? "full";
    const made = this.#make(kind, request.ttlMs ?? BUNDLE_TTL_MS, state.keyPair, request);
    if (!made.text) return { unchanged: true, content: made.content };
    // Every five minutes a look and no word: only what leaves this node is worth an entry.
    ctx.audit("seed-exported", state.nodeId, `${kind} ${made.seq}, ${made.records} records`);
    return made;
  }

  #make(
    kind: BundleKind,
    ttlMs: number,
    signer: KeyPair,
    request: { readonly unless?: string; readonly above?: number } = {},
  ): Made {
    const { ctx, shelf } = this.#options;
    const { state } = ctx;
    const network = state.network!;
    const chain = network.chain!;
    const addresses = this.#addresses();
    const base: BundleContent = {
      genesis: network.genesis!.envelope,
      epochs: chain.since(chain.epoch - BUNDLE_EPOCHS_MAX + 1).map(epochBytes),
      profile: network.profile?.envelope,
      decision: this.#decision?.envelope,
      records: [],
    };
    const prefix = kind === "full" ? "" : "service/";
    const untilMs = ctx.nowMs + Math.min(ttlMs, RECORD_LIFE_MS_MAX);
    const versions = kind === "master" ? [] : shelf.list(prefix).filter((one) => this.#worthTelling(one));
    const room = BUNDLE_BYTES_MAX - contentBytes(base) - MANIFEST_BYTES;
    // What the primaries agreed on goes out as that: the word of one issuer is less. Unless it would end before the
    // bundle is renewed: then it is lifted here.
    const lastsMs = ctx.nowMs + Math.floor((untilMs - ctx.nowMs) / 2);
    const records = new Map(
      versions.map((
        { spore, proof },
      ) => [spore, proof?.tier === "primary" && (isAgreed(spore) || proof.untilMs >= lastsMs) ? proof : undefined]),
    );
    const { chosen, leftOut } = chooseRecords([...records.keys()], room, (spore) => {
      const proof = records.get(spore);
      return proof ? proofBytes(proof) : SEED_PROOF_BYTES;
    });
    const what = { kind, networkId: network.networkId, addresses };
    const bare = { ...base, records: chosen.map((one) => ({ envelope: one.envelope, proof: NO_PROOF })) };
    const content = toHex(contentHash({ ...what, ...bare }));
    if (request.unless === content) return { content };
    const above = request.above !== undefined && request.above < ctx.nowMs + AHEAD_MS_MAX ? request.above : 0;
    const seq = Math.max(ctx.nowMs, this.#ownSeq + 1, above + 1);
    const statement: RankStatement = { tier: "seed", term: 0, index: seq, epoch: chain.epoch, untilMs };
    const lifted = chosen.map((spore): BundleRecord => {
      const proof = records.get(spore);
      if (proof) return { envelope: spore.envelope, proof };
      // With a new proof in each bundle every reader would tell everybody of every record, each time.
      const name = toHex(spore.hash);
      const before = this.#signed.get(name);
      if (before && before.epoch === chain.epoch && before.untilMs >= lastsMs) {
        return { envelope: spore.envelope, proof: before };
      }
      const subject = { networkId: network.networkId, key: spore.record.key, hash: spore.hash };
      const fresh = { ...statement, signatures: [signRank(subject, statement, state.keyPair)] };
      this.#signed.set(name, fresh);
      return { envelope: spore.envelope, proof: fresh };
    });
    while (this.#signed.size > SIGNED_MAX) this.#signed.delete(this.#signed.keys().next().value!);
    const manifest = { ...what, seq, issuedMs: ctx.nowMs, expiresMs: ctx.nowMs + ttlMs };
    const raw = sealBundle(manifest, { ...base, records: lifted }, signer);
    this.#ownSeq = seq;
    // Durable before it leaves: after a restart no other bundle gets this number.
    ctx.persist([this.#stored()]);
    const firstEndMs = Math.min(manifest.expiresMs, ...lifted.map((one) => one.proof.untilMs));
    return {
      text: spellBundle(raw),
      kind,
      seq,
      content,
      addresses,
      records: lifted.length,
      leftOut,
      bytes: raw.length,
      issuedMs: ctx.nowMs,
      expiresMs: manifest.expiresMs,
      renewAtMs: ctx.nowMs + Math.floor((firstEndMs - ctx.nowMs) / 2),
    };
  }

  /** What has run out, or nobody has lifted and its author was removed, is not told to strangers. */
  #worthTelling(one: { readonly spore: Spore; readonly proof: RankProof | undefined }): boolean {
    const { nowMs, state } = this.#options.ctx;
    const { expiresMs } = one.spore.record;
    // What was decided stands whoever signed it, and no issuer can lift it.
    if (isAgreed(one.spore)) return one.proof?.tier === "primary" && nowMs < one.proof.untilMs;
    const counts = nowMs < expiresMs || one.proof?.tier === "primary" && nowMs < one.proof.untilMs;
    return counts && !state.revocations.get("node", one.spore.envelope.signer);
  }

  /** Addresses of the members, the issuers' first; the same on all issuers that know the same. */
  #addresses(): readonly string[] {
    const { ctx, members } = this.#options;
    const { state } = ctx;
    const chain = state.network!.chain!;
    const rows = [...(state.self ? [state.self] : []), ...members()];
    const rank = (one: Member) => chain.isIssuer(one.publicKey) ? 0 : 1;
    rows.sort((a, b) => rank(a) - rank(b) || (a.nodeId < b.nodeId ? -1 : 1));
    return rows.flatMap((one) => one.record.addresses.slice(0, ADDRESSES_EACH)).slice(0, BUNDLE_ADDRESSES_MAX);
  }

  /** A Master Seed that says: this half counts. */
  #decide(request: SeedRequest & { readonly verb: "seed-decide" }): unknown {
    const { ctx } = this.#options;
    const { state } = ctx;
    const chain = state.network!.chain!;
    const pair = request.genesisSeed ? keyPairFromSeed(request.genesisSeed) : state.genesisPair;
    if (!pair || !equalBytes(pair.publicKey, chain.genesisKey)) {
      throw new Refusal(
        "no-genesis-key",
        "Cannot decide: the genesis key is not here",
        "Name the file that holds it: --key",
      );
    }
    const decision = {
      epoch: chain.epoch,
      hash: chain.head,
      seq: Math.max(ctx.nowMs, (this.#decision?.decision.seq ?? 0) + 1),
      recoveredMs: this.#options.recoveredMs(),
    };
    const shown = {
      epoch: decision.epoch,
      hash: toHex(decision.hash),
      issuers: chain.issuers.map(nodeIdOf),
      names: chain.issuers.map((key) =>
        state.members.get(nodeIdOf(key))?.membership.name ?? shortNodeId(nodeIdOf(key))
      ),
    };
    if (request.dryRun) return { ...shown, decided: false };
    this.#learnDecision(decision, sealDecision(decision, state.networkId, pair));
    const made = this.#make("master", request.ttlMs ?? BUNDLE_TTL_MS, pair);
    ctx.audit("split-decided", state.nodeId, `epoch ${decision.epoch} ${shown.hash.slice(0, 16)} counts`);
    return { ...shown, decided: true, ...made };
  }
}

interface Judged {
  readonly ok: true;
  /** Kind and signer. */
  readonly name: string;
  readonly seen: number | undefined;
  readonly reading: SeedReading & { readonly ok: true };
  readonly bundle?: SeedBundle;
  readonly verdict?: AuthorityVerdict & { readonly ok: true };
}

interface Taken {
  readonly kind: BundleKind;
  readonly seq: number;
  readonly signer: string;
  readonly hash: string;
  readonly from: string;
  readonly atMs: number;
  readonly expiresMs: number;
  /** Records that counted, and that did not, so far. */
  records: number;
  refused: number;
}

interface RecordOutcome {
  readonly key: string;
  readonly outcome: RecordRefusal | ReturnType<RecordShelf["compare"]>;
  readonly refused: boolean;
  readonly spore?: Spore;
  readonly proof?: RankProof;
}

/** A bundle as the control socket gives it; `text` is missing where the same is out already. */
interface Made {
  readonly content: string;
  readonly text?: string;
  readonly kind?: BundleKind;
  readonly seq?: number;
  readonly addresses?: readonly string[];
  readonly records?: number;
  readonly leftOut?: number;
  readonly bytes?: number;
  readonly issuedMs?: number;
  readonly expiresMs?: number;
  readonly renewAtMs?: number;
}

/** Room for the manifest with all its addresses. */
const MANIFEST_BYTES = 14 << 10;

const NO_PROOF: RankProof = { tier: "seed", term: 0, index: 0, epoch: 0, untilMs: 0, signatures: [] };

/** The key of a record as it claims it, for people. */
function keyOf(one: BundleRecord): string {
  try {
    const { k } = decodeAs(one.envelope.payload, record({ k: optional((value) => String(value).slice(0, 200)) }));
    return k ?? "?";
  } catch (error) {
    if (error instanceof WireError) return "?";
    throw error;
  }
}

/** Records as a table keeps them. */
export function shelfOf(table: SporeTable, clock: { readonly nowMs: number }): RecordShelf {
  return {
    list: (prefix) => {
      table.expire(clock.nowMs);
      return table.list(prefix).map(({ winner }) => winner);
    },
    compare: (spore, proof) => {
      table.expire(clock.nowMs);
      const known = table.get(spore.record.key)?.winner;
      if (!known) return "new";
      const order = compareVersions({ spore, proof }, known);
      if (equalBytes(spore.hash, known.spore.hash)) return order > 0 ? "renewed" : "known";
      return order > 0 ? "newer" : "older";
    },
    offer: (spore, proof) => table.merge({ spore, proof }, clock.nowMs).changed,
  };
}
