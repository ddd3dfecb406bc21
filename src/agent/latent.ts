/**
 * The Latent Spore: what members tell each other, key by key, and what of it counts here.
 *
 * A word is told at once, repaired by digests, checked against the authority chain, and merged into a table whose
 * outcome does not depend on who heard what first. What contradicts a higher tier is not used before it is
 * confirmed. See `src/spore/DESIGN.md`.
 *
 * @module
 */

import { compareBytes, equalBytes } from "../core/bytes.ts";
import { type CborValue, decodeAs, encodeCbor, WireError } from "../core/codec.ts";
import { shortNodeId } from "../core/ids.ts";
import { LIMITS } from "../core/limits.ts";
import { CLOCK_SKEW_MS } from "../identity/authority.ts";
import { answerDigest, unpackIds, ZONES } from "../spore/digest.ts";
import { mayWrite, ownerOf } from "../spore/keys.ts";
import {
  confirmAnswerValue,
  deltaAnswerValue,
  digestAnswerValue,
  pushValue,
  readAnswerValue,
  readConfirm,
  readDeltaAsk,
  readDigestAsk,
  readPush,
  readRead,
  readReadAnswer,
  readValue,
  squeezed,
  type Standing,
  VersionBatch,
  type WireVersion,
} from "../spore/messages.ts";
import type { RankProof } from "../spore/proof.ts";
import { readSpore, RECORD_LIFE_MS_MAX, type Spore } from "../spore/record.ts";
import { isAlive, SporeTable, type Version } from "../spore/table.ts";
import {
  checkVersion,
  type Equivocation,
  equivocationOf,
  type ProofRefusal,
  type SporeFacts,
  type SporeRefusal,
} from "../spore/validation.ts";
import type { Method } from "./access_table.ts";
import { type Context, Refusal } from "./context.ts";
import type { ControlRequest } from "./control.ts";
import type { PeerView } from "./effects.ts";
import { PeerBudget } from "./latent_budget.ts";
import { Confirmations, type Suspect } from "./latent_confirm.ts";
import { SporeConsole, type SporePage, type SporeQuestion } from "./latent_console.ts";
import {
  evidenceKey,
  evidencePut,
  isSporeKey,
  loadSpores,
  ownKey,
  sporePut,
  storeKey,
  WriteBehind,
} from "./latent_store.ts";
import { SporeSync, type SyncReport } from "./latent_sync.ts";
import { OwnWords, type PrimaryDoor, type SayOptions, type SporeWrite } from "./latent_words.ts";
import type { Part } from "./part.ts";
import type { SporesStatus } from "./status.ts";

/** Requests that the Latent Spore answers. */
export type SporeRequest = SporeWrite | SporeQuestion;

/** The way to everybody: the broadcast. */
export interface SporeBroadcast {
  /** Tells all; `has`: a member that has it already. */
  publish(body: Uint8Array, has?: string): void;
}

/** What this node has observed of another where spores are concerned. Local; trust reads it. */
export interface SporeConduct {
  /** Versions that it passed on with a signature that is not valid. */
  tampered: number;
  /** Pairs of words that contradict each other under one number. */
  equivocated: number;
  /** Words of it that were denied by who can tell. */
  denied: number;
  /** Calls and versions beyond what it may send. */
  limited: number;
}

/** What a question costs beside the checks. */
const ASK_COST = 4;
/** Versions of one repair that are passed on at once. */
const TELL_MAX = 16;
/** Peers whose conduct is remembered, the first ones. */
const CONDUCT_MAX = 1_024;
/** Zones that a Hypha keeps whole: where services are, what the network is told, what it has decided. */
const HYPHA_ZONES = [ZONES.indexOf("service"), ZONES.indexOf("net"), ZONES.indexOf("agreed")];
const ALL_ZONES = ZONES.map((_, i) => i);

/** The Latent Spore of a node. */
export class Latent implements Part {
  readonly methods: readonly Method[] = ["spore.push", "spore.digest", "spore.delta", "spore.confirm", "spore.read"];
  readonly verbs = ["spore-list", "spore-show", "spore-put", "spore-delete", "spore-verify", "spore-diff"];
  /** Set by the agent once there is a Primary Spore. */
  primary: PrimaryDoor | undefined;
  /** Set by the agent once there is a broadcast. */
  broadcast: SporeBroadcast | undefined;
  /** Authors whose word is not used before it was confirmed; trust says so. */
  distrusted: (nodeId: string) => boolean = () => false;
  /** Told of every key where something changed. */
  readonly #watchers: {
    readonly prefix: string;
    readonly changed: (key: string) => void;
    readonly keeps: boolean;
  }[] = [];
  readonly #table = new SporeTable();
  readonly #behind = new WriteBehind();
  readonly #words: OwnWords;
  readonly #confirmations: Confirmations;
  readonly #sync: SporeSync;
  readonly #budget = new PeerBudget();
  readonly #conduct = new Map<string, SporeConduct>();
  readonly #evidence: Equivocation[] = [];
  readonly #refused = new Map<string, number>();
  readonly #counts = { received: 0, changed: 0, skipped: 0, verified: 0, expired: 0, confirmed: 0, denied: 0, runs: 0 };
  #lastSync: SyncReport & { readonly atMs: number } | undefined;
  /** Entries of the store, until the start has read them. */
  #entries: readonly (readonly [string, Uint8Array])[];
  #reviewed = "";
  readonly #console: SporeConsole;

  /** @param entries The whole store. */
  constructor(readonly ctx: Context, entries: ReadonlyMap<string, Uint8Array>) {
    this.#entries = [...entries].filter(([name]) => isSporeKey(name));
    this.#confirmations = new Confirmations(ctx, (suspect) => this.#settled(suspect));
    this.#console = new SporeConsole(ctx, {
      table: this.#table,
      use: (key) => this.#use(key),
      confirmation: (hash) => this.#confirmations.of(hash)?.state,
      facts: () => this.#facts(),
      refuse: (reason, from) => this.#refuse(reason, from),
      partial: () => this.#partial,
      zones: () => this.#zones(),
    });
    this.#words = new OwnWords(ctx, {
      table: this.#table,
      primary: () => this.primary,
      tell: (version) => this.#tell([version], undefined),
      changed: (key) => {
        this.#counts.changed += 1;
        this.#behind.settle(key);
        this.#told(key);
      },
    });
    this.#sync = new SporeSync(ctx, {
      table: this.#table,
      zones: () => this.#zones(),
      learn: (versions, from) => void this.#learn(versions, from),
      waitMs: (nodeId, versions) => this.#budget.waitMs(nodeId, versions, ctx.nowMs),
      done: (report) => {
        this.#lastSync = { ...report, atMs: ctx.nowMs };
        this.#counts.runs += 1;
      },
    });
  }

  // --- for other parts of this node ---------------------------------------------------------------------------

  /** The table, to be looked at and not changed. */
  get table(): SporeTable {
    return this.#table;
  }

  /** Evidence of authors that said two things at once, bounded. */
  get evidence(): readonly Equivocation[] {
    return this.#evidence;
  }

  /** What was observed of other nodes. */
  get conduct(): ReadonlyMap<string, Readonly<SporeConduct>> {
    return this.#conduct;
  }

  /**
   * Is called with every key under `prefix` where something changed, within the step that changed it. A device that
   * keeps a part of the records keeps these as well, unless `keeps` is false.
   */
  watch(prefix: string, changed: (key: string) => void, { keeps = true }: { readonly keeps?: boolean } = {}): void {
    this.#watchers.push({ prefix, changed, keeps });
  }

  /** The value that counts under a key, or `undefined` where there is none. */
  value(key: string): Uint8Array | undefined {
    const found = this.#use(key);
    return found && isAlive(found.version, this.ctx.nowMs) ? found.version.spore.record.value : undefined;
  }

  /** What counts under the keys of a prefix, tombstones and what has run out left out. */
  live(prefix: string): { readonly key: string; readonly version: Version }[] {
    return this.#table.keys(prefix).sort().flatMap((key) => {
      const found = this.#use(key);
      return found && isAlive(found.version, this.ctx.nowMs) ? [{ key, version: found.version }] : [];
    });
  }

  /**
   * Says something under a key: stored, then told. `refresh`: said again before it runs out, until it is deleted.
   *
   * @param value Missing: deletes.
   * @throws {Refusal} Where this node may not.
   */
  say(
    key: string,
    value: Uint8Array | undefined,
    options: SayOptions = {},
  ): Spore {
    return this.#words.say(key, value, options);
  }

  /**
   * A word with its rank, from the Primary Spore of this node or from a seed: checked, then told.
   *
   * @returns Whether it was news.
   */
  onProven(spore: Spore, proof: RankProof): boolean {
    return this.#learn([{ envelope: spore.envelope, proof }], this.ctx.state.nodeId) > 0;
  }

  /** Judges a broadcast that a member passed on. @throws {WireError} Where it does not read. */
  heard(from: string, body: Uint8Array): "accept" | "reject" | "ignore" {
    const before = this.#conduct.get(from)?.tampered ?? 0;
    const news = this.#learn(decodeAs(body, readPush), from, false);
    if (news > 0) return "accept";
    return (this.#conduct.get(from)?.tampered ?? 0) > before ? "reject" : "ignore";
  }

  // --- Part ---------------------------------------------------------------------------------------------------

  serve(peer: PeerView, method: string, body: CborValue): CborValue {
    switch (method) {
      case "spore.push":
        this.#learn(readPush(body, method), peer.nodeId);
        return {};
      case "spore.digest": {
        const ask = readDigestAsk(body, method);
        this.#charge(peer.nodeId, ASK_COST + ask.parts.length);
        this.#expire();
        const zones = this.#zones();
        // What this node does not keep whole differs always, and says nothing.
        const parts = answerDigest(this.#table.digest, {
          ...(ask.roots ? { roots: new Map([...ask.roots].filter(([zone]) => zones.includes(zone))) } : {}),
          parts: ask.parts.filter((one) => zones.includes(one.zone)),
        });
        return digestAnswerValue(parts);
      }
      case "spore.delta": {
        const { codecs, given, wanted } = readDeltaAsk(body, method);
        this.#charge(peer.nodeId, ASK_COST);
        // Looked up first: what is given changes the ids.
        const answer = this.#give(wanted);
        this.#learn(given, peer.nodeId);
        return squeezed(answer, codecs);
      }
      case "spore.confirm": {
        const { key, hash } = readConfirm(body, method);
        this.#charge(peer.nodeId, ASK_COST);
        return confirmAnswerValue(this.#standing(key, hash));
      }
      case "spore.read": {
        const { p, a, c } = readRead(body, method);
        this.#charge(peer.nodeId, ASK_COST);
        return squeezed(this.#read(p, a), c ?? 0);
      }
      default:
        throw new Refusal("unknown-method", `no method "${method}"`);
    }
  }

  answer(controlId: number, asked: ControlRequest): unknown {
    const request = asked as SporeRequest;
    this.#expire();
    switch (request.verb) {
      case "spore-put":
      case "spore-delete":
        return this.#words.answer(controlId, request);
      default:
        return this.#console.answer(controlId, request);
    }
  }

  /** Epochs of the same number are others now: every proof is looked at again. */
  authorityReplaced(): void {
    this.#reviewed = "";
  }

  start(): void {
    const { versions, own, evidence, unreadable } = loadSpores(this.#entries);
    this.#evidence.push(...evidence);
    this.#entries = [];
    this.#table.clear();
    for (const one of versions) {
      const { reason } = this.#table.merge(one, this.ctx.nowMs);
      // What was confirmed is not stored: it may have been overtaken since.
      if (reason === "challenges") this.#confirmations.add(one, "contradicts", true);
    }
    this.#words.load(own);
    if (unreadable.length > 0) {
      this.ctx.log("error", "spores-unreadable", `${unreadable.length} stored spore records cannot be read: dropped`);
      this.ctx.persist(unreadable.map((name) => [name, null]));
    }
    this.#review(true);
    for (const nodeId of this.ctx.memberPeers()) this.sessionUp(nodeId);
  }

  clear(): void {
    this.#table.clear();
    this.#behind.clear();
    this.#words.clear();
    this.#confirmations.clear();
    this.#sync.clear();
    this.#budget.clear();
    this.#conduct.clear();
    this.#evidence.length = 0;
    this.#console.clear();
    this.#entries = [];
    this.#reviewed = "";
  }

  keys(): readonly string[] {
    return [
      ...this.#evidence.map(evidenceKey),
      ...this.#table.keys("").map(storeKey),
      ...this.#words.keys.map(ownKey),
      ...this.#entries.map(([k]) => k),
    ];
  }

  sessionUp(nodeId: string): void {
    this.#confirmations.up(nodeId);
    if (this.#partial) {
      this.#giveOwn(nodeId);
      this.#readWatched(nodeId);
    }
    this.#sync.up(nodeId);
  }

  sessionDown(nodeId: string): void {
    this.#sync.down(nodeId);
  }

  clockSetBack(): void {
    this.#behind.clockSetBack(this.ctx.nowMs);
    this.#confirmations.clockSetBack();
    this.#sync.clockSetBack();
    this.#budget.clear();
    this.#words.clockSetBack();
  }

  wake(): number {
    const { ctx } = this;
    this.#review(false);
    this.#expire();
    const wordsMs = this.#words.wake();
    const verifyMs = this.#console.wake();
    const written = this.#behind.take(ctx.nowMs);
    if (written.length > 0) {
      ctx.persist(written.map((key) => sporePut(key, this.#table.versions(key), ctx.nowMs)));
    }
    const { state } = ctx;
    if (state.mode === "isolated") return Math.min(this.#behind.dueMs, wordsMs);
    const syncMs = this.#sync.wake(() => {
      const rtts = [...ctx.sessions.values()].flatMap((one) => one.rttMs ?? []);
      return {
        churn: this.#sync.churn,
        members: state.members.size,
        rttMs: rtts.length > 0 ? Math.max(...rtts) : 0,
        sparing: ctx.capabilities?.battery ?? false,
      };
    });
    return Math.min(
      this.#behind.dueMs,
      wordsMs,
      this.#confirmations.wake(),
      syncMs,
      verifyMs,
      Math.max(this.#table.nextExpiryMs, ctx.nowMs + 1_000),
    );
  }

  /** The section of the status document. */
  status(): SporesStatus {
    const { tiers, tombstones } = this.#table;
    const suspects = this.#confirmations.all();
    return {
      keys: this.#table.size,
      bytes: this.#table.bytes,
      tiers,
      tombstones,
      own: this.#words.keys.length,
      partial: this.#partial,
      suspects: {
        asking: suspects.filter((one) => one.state === "asking").length,
        confirmed: suspects.filter((one) => one.state === "confirmed").length,
        denied: suspects.filter((one) => one.state === "denied").length,
        unanswered: suspects.filter((one) => one.state === "unanswered").length,
      },
      equivocations: this.#evidence.length,
      ...this.#counts,
      refusals: Object.fromEntries([...this.#refused].sort(([a], [b]) => a < b ? -1 : 1)),
      ...(this.#lastSync ? { lastSync: this.#lastSync } : {}),
    };
  }

  /** Rows for the read-only listing. */
  rows(prefix: string, after?: string, max?: number): SporePage {
    this.#expire();
    return this.#console.rows(prefix, after, max);
  }

  // --- what arrives -------------------------------------------------------------------------------------------

  /** Checks and merges versions; tells others of what is news, unless the broadcast does. Returns how many were. */
  #learn(versions: readonly WireVersion[], from: string, tell = true): number {
    const { ctx } = this;
    const news: Version[] = [];
    const facts = this.#facts();
    for (const wire of versions) {
      this.#counts.received += 1;
      const version = this.#check(wire, from, facts);
      if (!version) continue;
      const merged = this.#merge(version, from);
      if (merged) news.push(version);
    }
    if (news.length > 0 && tell) this.#tell(news, from === ctx.state.nodeId ? undefined : from);
    return news.length;
  }

  /** What of a version may be merged, or nothing; counts why. */
  #check(wire: WireVersion, from: string, facts: SporeFacts): Version | undefined {
    const { ctx } = this;
    let peek: Spore;
    try {
      // Reading costs a tenth of verifying, and most of what arrives is known or overtaken.
      peek = readSpore(wire.envelope);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      this.#refuse("spore-malformed", from);
      return undefined;
    }
    const { key, seq } = peek.record;
    if (!this.#keeps(key, peek.author)) {
      this.#counts.skipped += 1;
      return undefined;
    }
    const present = this.#table.versions(key);
    const same = present.find((one) => equalBytes(one.spore.hash, peek.hash));
    const ahead = present.some((one) => one.spore.record.seq > seq);
    if (!wire.proof && (same || ahead) || same?.proof && wire.proof && sameProof(same.proof, wire.proof)) {
      this.#counts.skipped += 1;
      return undefined;
    }
    const cost = (same ? 0 : 1) + (wire.proof?.signatures.length ?? 0);
    if (from !== ctx.state.nodeId && !this.#budget.take(from, cost, ctx.nowMs)) {
      this.#limited(from);
      return undefined;
    }
    this.#counts.verified += cost;
    const verdict = checkVersion(wire, facts, { known: same?.spore });
    if (!verdict.ok) {
      this.#refuse(verdict.reason, from);
      if (verdict.reason === "spore-tampered") {
        this.#conductOf(from).tampered += 1;
        ctx.log("warn", "spore-tampered", `${this.#nameOf(from)} sent a record that was tampered with: "${key}"`, {
          from,
        });
      }
      return undefined;
    }
    if (verdict.proofRefused) this.#refuse(verdict.proofRefused, from);
    if (verdict.suspicion) {
      if (!this.#confirmations.add(verdict.version, verdict.suspicion, false)) {
        this.#refuse("spore-suspects-full", from);
      }
      return undefined;
    }
    return verdict.version;
  }

  #merge(version: Version, from: string): boolean {
    const { ctx } = this;
    const { key } = version.spore.record;
    const mine = this.#words.last(key);
    const { changed, reason, equivocation } = this.#table.merge(version, ctx.nowMs);
    if (equivocation) this.#note(equivocation, version.spore);
    if (reason === "full") this.#refuse("spore-full", from);
    if (!changed) return false;
    this.#counts.changed += 1;
    this.#touched(key);
    if (version.spore.author === ctx.state.nodeId && !version.proof) this.#words.overtake(version.spore, mine);
    if (reason === "challenges") {
      if (!this.#confirmations.add(version, "contradicts", true)) this.#refuse("spore-suspects-full", from);
    }
    return true;
  }

  /** A key has changed: it is written by and by, and who watches is told. */
  #touched(key: string): void {
    // What was agreed on is rare, and says who may what: a node that ends now must not forget who was removed.
    this.#behind.note(key, this.ctx.nowMs, key.startsWith("agreed/"));
    this.ctx.wakeAt(this.#behind.dueMs);
    this.#told(key);
  }

  #told(key: string): void {
    for (const { prefix, changed } of this.#watchers) if (key.startsWith(prefix)) changed(key);
  }

  #note(a: Spore, b: Spore): void {
    const pair = equivocationOf(a, b);
    if (!pair) return;
    const known = this.#evidence.some((one) =>
      one.author === pair.author && one.key === pair.key && one.seq === pair.seq
    );
    if (known) return;
    this.#conductOf(pair.author).equivocated += 1;
    this.#refuse("spore-equivocation", pair.author);
    this.ctx.auditBounded("spore-equivocation", pair.author, `two words under "${pair.key}", number ${pair.seq}`);
    if (this.#evidence.length >= LIMITS.sporeEvidenceMax) return;
    this.#evidence.push(pair);
    this.ctx.persist([evidencePut(pair)]);
  }

  #settled(suspect: Suspect): void {
    const { spore } = suspect.version;
    const { key } = spore.record;
    if (suspect.state === "confirmed") {
      this.#counts.confirmed += 1;
      this.ctx.log(
        "info",
        "spore-confirmed",
        `"${key}" is used although suspicious (${suspect.suspicion}): confirmed`,
        {
          key,
          by: suspect.by ?? "",
        },
      );
      // A word of a distrusted author that was confirmed is a word like any other, once its time has come.
      if (!suspect.inTable && suspect.suspicion === "distrusted") this.#merge(suspect.version, spore.author);
    } else {
      this.#counts.denied += 1;
      this.#refuse("spore-denied", spore.author);
      // What was overtaken by another member in the Primary Spore is nobody's fault.
      if (ownerOf(key)?.kind === "node") this.#conductOf(spore.author).denied += 1;
    }
    this.#told(key);
  }

  /** What is used under a key: the winner, or what is newer and was confirmed. */
  #use(key: string): { readonly version: Version; readonly provisional: boolean } | undefined {
    const entry = this.#table.get(key);
    const { challenger } = entry ?? {};
    if (challenger) {
      const mine = ownerOf(key)?.kind === "node" ? this.#words.last(key) : undefined;
      const own = mine !== undefined && equalBytes(mine.hash, challenger.spore.hash);
      if (own || this.#confirmations.of(challenger.spore.hash)?.state === "confirmed") {
        return { version: challenger, provisional: true };
      }
    }
    for (const one of this.#confirmations.all()) {
      const held = !one.inTable && one.state === "confirmed" && one.version.spore.record.key === key;
      if (held && one.version.spore.record.seq > (entry?.winner.spore.record.seq ?? 0)) {
        return { version: one.version, provisional: true };
      }
    }
    return entry && { version: entry.winner, provisional: false };
  }

  /** What stands under a key here, for one who doubts. */
  #standing(key: string, hash: Uint8Array): Standing {
    const { state } = this.ctx;
    const entry = this.#table.get(key);
    const owner = ownerOf(key);
    const held = owner?.kind !== "node" && state.isIssuer ? this.primary?.held(key) : undefined;
    // The replica knows before its proofs have gone around.
    if (held) return equalBytes(held.hash, hash) ? "current" : "replaced";
    if (!entry) return "unknown";
    if (owner?.kind !== "node" && state.isIssuer) {
      return equalBytes(entry.winner.spore.hash, hash) ? "current" : "replaced";
    }
    // What it said, not what is said in its name.
    if (!this.#words.has(key)) return "unknown";
    const word = this.#words.last(key);
    return word && equalBytes(word.hash, hash) ? "current" : "replaced";
  }

  #facts(): SporeFacts {
    const { state, nowMs } = this.ctx;
    const chain = state.network!.chain!;
    return {
      networkId: state.networkId,
      nowMs,
      skewMs: CLOCK_SKEW_MS,
      member: (nodeId) => state.members.get(nodeId) !== undefined,
      revoked: (key) => state.revocations.get("node", key) !== undefined,
      issuer: (key, issuedMs) => chain.counts(key, issuedMs),
      issuersOf: (epoch) =>
        epoch > chain.epoch ? undefined : epoch < chain.epoch - 1 || epoch < 1 ? "old" : chain.issuersAt(epoch),
      distrusted: (nodeId) => nodeId !== state.nodeId && this.distrusted(nodeId),
    };
  }

  /** Takes out what does not stand any more since the authority or the revocations have changed. */
  #review(first: boolean): void {
    const { state } = this.ctx;
    const now = `${state.network!.chain!.epoch} ${state.revocations.size}`;
    if (now === this.#reviewed) return;
    this.#reviewed = now;
    const facts = this.#facts();
    const changed = this.#table.review(({ spore, proof }) => {
      const signer = spore.envelope.signer;
      let proven = proof;
      if (proof) {
        const issuers = facts.issuersOf(proof.epoch);
        const stands = Array.isArray(issuers) &&
          (proof.tier === "primary" ||
            proof.signatures.some((one) =>
              !facts.revoked(one.key) && issuers.some((key: Uint8Array) => equalBytes(key, one.key))
            ));
        if (!stands) proven = undefined;
      }
      const { key, value, issuedMs } = spore.record;
      if (proven?.tier === "primary" && (ownerOf(key)?.kind !== "node" || !facts.revoked(signer))) return "whole";
      const writer = { nodeId: spore.author, issuer: facts.issuer(signer, issuedMs) };
      if (facts.revoked(signer) || !mayWrite(key, writer, value === undefined)) return "not";
      return proven === proof ? "whole" : "bare";
    });
    for (const key of changed) this.#touched(key);
    this.#confirmations.keep((one) => !facts.revoked(one.version.spore.envelope.signer));
    if (!first && changed.length > 0) {
      this.ctx.log("info", "spores-reviewed", `${changed.length} spore records changed with the authority`);
    }
  }

  #expire(): void {
    const { ctx } = this;
    for (const key of this.#table.expire(ctx.nowMs)) {
      this.#counts.expired += 1;
      this.#touched(key);
    }
    if (this.#confirmations.size === 0) return;
    // A clock that was behind has caught up: what was ahead of it is a word like any other, unless it was denied.
    const due = this.#confirmations.all().filter((one) =>
      one.suspicion === "future" && one.version.spore.record.seq <= ctx.nowMs + CLOCK_SKEW_MS
    );
    for (const one of due) if (one.state !== "denied") this.#merge(one.version, one.version.spore.author);
    this.#confirmations.keep((one) => {
      if (due.includes(one)) return false;
      const { key, seq } = one.version.spore.record;
      if (seq + RECORD_LIFE_MS_MAX <= ctx.nowMs) return false;
      const entry = this.#table.get(key);
      return one.inTable
        ? entry?.challenger !== undefined && equalBytes(entry.challenger.spore.hash, one.version.spore.hash)
        : !entry || compareBytes(entry.winner.spore.hash, one.version.spore.hash) !== 0;
    });
  }

  // --- what leaves --------------------------------------------------------------------------------------------

  /** Tells everybody, one version a message: the same words are the same message, whoever passes them on. */
  #tell(versions: readonly Version[], from: string | undefined): void {
    // What a repair brings by the hundred others repair as well: passing it on would flood the network.
    if (versions.length > TELL_MAX) return;
    for (const one of versions) this.broadcast?.publish(encodeCbor(pushValue([one])), from);
  }

  /** Serves what a member wants by id, as much as fits one message. */
  #give(
    wanted: readonly { readonly zone: number; readonly node: number; readonly list?: Uint8Array | undefined }[],
  ): CborValue {
    const batch = new VersionBatch();
    let done = 0;
    for (const { zone, node, list } of wanted) {
      if (!list) continue;
      const byId = new Map(this.#table.digest.ids({ zone, node }).map((one) => [one.id, one.key]));
      for (const id of unpackIds(list)) {
        const key = byId.get(id);
        const versions = key === undefined ? [] : this.#table.versions(key);
        if (!versions.every((one) => batch.add(one))) return deltaAnswerValue(batch.values, done);
        done += 1;
      }
    }
    return deltaAnswerValue(batch.values, done);
  }

  /** Serves a device that does not keep everything. */
  #read(prefix: string, after: string | undefined): CborValue {
    const batch = new VersionBatch();
    let last: string | undefined;
    for (const { key } of this.#table.list(prefix, { ...(after === undefined ? {} : { after }), max: 257 })) {
      if (!this.#table.versions(key).every((one) => batch.add(one))) return readAnswerValue(batch.values, last);
      last = key;
    }
    return readAnswerValue(batch.values, undefined);
  }

  /** Own words of zones that are not repaired from here, to one that keeps everything. */
  #giveOwn(nodeId: string): void {
    const keys = this.#words.keys.filter((key) => !HYPHA_ZONES.includes(zoneOf(key))).slice(0, 256);
    const versions = keys.flatMap((key) => this.#table.versions(key));
    for (const body of pushBodies(versions)) this.ctx.call(nodeId, "spore.push", body, 10_000, () => {});
  }

  /** What is watched here and is no whole zone, from one that keeps everything: repair does not bring it. */
  #readWatched(nodeId: string): void {
    const { ctx } = this;
    if (ctx.state.members.get(nodeId)?.membership.role === "hypha") return;
    const read = (prefix: string, after: string | undefined) =>
      ctx.call(nodeId, "spore.read", readValue(prefix, after), 10_000, (result) => {
        if (!result.ok) return;
        try {
          const { g, a } = readReadAnswer(result.body, "spore.read");
          this.#learn(g, nodeId, false);
          if (a !== undefined && a > (after ?? "")) read(prefix, a);
        } catch (error) {
          if (!(error instanceof WireError)) throw error;
          this.#refuse("spore-bad-answer", nodeId);
        }
      });
    for (const { prefix, keeps } of this.#watchers) {
      if (!keeps) continue;
      if (!HYPHA_ZONES.some((zone) => prefix.startsWith(`${ZONES[zone]}/`))) read(prefix, undefined);
    }
  }

  // --- bounds -------------------------------------------------------------------------------------------------

  get #partial(): boolean {
    return this.ctx.state.self?.membership.role === "hypha";
  }

  #zones(): readonly number[] {
    return this.#partial ? HYPHA_ZONES : ALL_ZONES;
  }

  #keeps(key: string, author: string): boolean {
    if (!this.#partial) return true;
    if (author === this.ctx.state.nodeId) return true;
    const room = this.#table.size < LIMITS.sporesHyphaMax && this.#table.bytes < LIMITS.sporeBytesHyphaMax;
    const wanted = HYPHA_ZONES.includes(zoneOf(key)) ||
      this.#watchers.some(({ prefix, keeps }) => keeps && key.startsWith(prefix));
    return wanted && (room || this.#table.versions(key).length > 0);
  }

  #charge(nodeId: string, cost: number): void {
    if (this.#budget.take(nodeId, cost, this.ctx.nowMs)) return;
    this.#limited(nodeId);
    throw new Refusal("rate-limited", "too many questions about spore records");
  }

  #limited(nodeId: string): void {
    this.#refuse("spore-rate-limited", nodeId);
    this.#conductOf(nodeId).limited += 1;
  }

  #conductOf(nodeId: string): SporeConduct {
    let conduct = this.#conduct.get(nodeId);
    if (!conduct) {
      conduct = { tampered: 0, equivocated: 0, denied: 0, limited: 0 };
      if (this.#conduct.size < CONDUCT_MAX) this.#conduct.set(nodeId, conduct);
    }
    return conduct;
  }

  #refuse(reason: SporeRefusal | ProofRefusal | `spore-${string}`, from: string): void {
    this.#refused.set(reason, (this.#refused.get(reason) ?? 0) + 1);
    this.ctx.refuse(reason, from);
  }

  #nameOf(nodeId: string): string {
    return this.ctx.state.members.get(nodeId)?.membership.name ?? shortNodeId(nodeId);
  }
}

function zoneOf(key: string): number {
  return ZONES.indexOf(key.slice(0, key.indexOf("/")) as typeof ZONES[number]);
}

function sameProof(a: RankProof, b: RankProof): boolean {
  return a.tier === b.tier && a.term === b.term && a.index === b.index && a.epoch === b.epoch &&
    a.untilMs === b.untilMs;
}

/** Versions as bodies of `spore.push`, each within its bounds. */
function pushBodies(versions: readonly Version[]): CborValue[] {
  const out: CborValue[] = [];
  let batch = new VersionBatch();
  let some: Version[] = [];
  for (const one of versions) {
    if (!batch.add(one)) {
      out.push(pushValue(some));
      [batch, some] = [new VersionBatch(), []];
      batch.add(one);
    }
    some.push(one);
  }
  if (some.length > 0) out.push(pushValue(some));
  return out;
}
