/**
 * Trust, for the other parts: collects what was seen, checks and spreads proofs of faults, has agreed scores updated, and
 * says who may do what.
 *
 * Two scores. The *local* one comes from what this node has seen and serves its own choices. The *agreed* one is the record
 * `agreed/trust`, which only a certificate changes; every voter computes an update again from what it lists. A voter that
 * lacks something of that asks for it and stays silent meanwhile: it never votes against what others can check. Formula and
 * parameters: ADR 16.
 *
 * @module
 */

import { compareBytes, toHex } from "../core/bytes.ts";
import {
  anything,
  bytes,
  type CborValue,
  decodeAs,
  encodeCbor,
  optional,
  record,
  uint,
  WireError,
} from "../core/codec.ts";
import { nodeIdOf, publicKeyOf, readNodeId, shortNodeId } from "../core/ids.ts";
import { shuffled } from "../core/rng.ts";
import { type Certificate, certificateValue, readCertificate, verifyCertificate } from "../consensus/certificate.ts";
import type { VoterFact } from "../consensus/effects.ts";
import type { Evidence } from "../consensus/evidence.ts";
import { bitOf, electorate, instanceId } from "../consensus/statements.ts";
import type { WeightTable } from "../consensus/weights.ts";
import type { Spore } from "../spore/record.ts";
import {
  ABSENCE_MS,
  counts,
  decodeTrust,
  encodeTrust,
  initialTrust,
  isWorth,
  LISTED_MAX,
  listedHash,
  nextTrust,
  OFFENCE_LIFE_MS,
  type Participation,
  rowOf,
  sameVoting,
  type TrustBasis,
  trustHash,
  type TrustInputs,
  type TrustRow,
  type TrustState,
  votingOf,
} from "../trust/agreed.ts";
import { type LocalFact, LocalScores } from "../trust/local.ts";
import { type Offence, offenceValue, readOffence } from "../trust/offence.ts";
import {
  decodePolicy,
  DEFAULT_POLICY,
  encodePolicy,
  may,
  type PolicyClass,
  type Standing,
  thresholdOf,
  type TrustAction,
  type TrustPolicy,
  type TrustVerdict,
} from "../trust/policy.ts";
import { AGREED_HALF_LIFE_MS, countedMs, NEUTRAL_PPM } from "../trust/score.ts";
import { type ElectorWeight, weightsOf } from "../trust/weights.ts";
import { TRUST_KEY } from "./agreed.ts";
import { type Context, Refusal } from "./context.ts";
import type { ControlRequest } from "./control.ts";
import type { PeerView } from "./effects.ts";
import type { SporeConduct } from "./latent.ts";
import type { Part } from "./part.ts";
import type { TrustStatus } from "./status.ts";
import { TrustConsole, type TrustRequest } from "./trust_console.ts";
import { checkProof, encodeProof, PROOF_BYTES_MAX, proofOfWords, type ProofVerdict } from "./trust_proofs.ts";
import type { Equivocation } from "../spore/validation.ts";

/** What it needs of the other parts. */
export interface TrustPorts {
  /** What counts under an agreed key, as this node knows it. */
  agreed(key: string): Spore | undefined;
  /** Says a word of this node under a key. */
  say(key: string, value: Uint8Array, ttlMs: number): void;
  /** What counts under a key. */
  value(key: string): Uint8Array | undefined;
  /** What was observed of others where records are concerned. */
  conduct(): ReadonlyMap<string, Readonly<SporeConduct>>;
  /** Authors that said two things under one number. */
  equivocations(): readonly Equivocation[];
  /** Whether this node leads the Primary Spore. */
  leads(): boolean;
}

/** The way to the agreement. */
export interface AgreementDoor {
  /** Who votes now. */
  table(): WeightTable | undefined;
  /** The table with this hash, where it is known. */
  tableOf(hash: Uint8Array): WeightTable | undefined;
  /**
   * Has a value written under an agreed key; `done` is called once.
   *
   * @param replaces Hash of the version that it replaces; empty for none.
   */
  put(
    key: string,
    value: Uint8Array,
    replaces: Uint8Array,
    done: (result: { readonly ok: boolean; readonly code: string }) => void,
  ): void;
}

/** A proof that this node has checked. */
export interface KnownProof {
  readonly hash: string;
  readonly bytes: Uint8Array;
  readonly offence: Offence;
  /** Node that said it first; this one where it found it itself. */
  readonly reporter: string;
  readonly learnedMs: number;
}

/** Record that holds the policy of trust. */
export const POLICY_KEY = "agreed/policy";
/** Proofs that are kept; of more, those that do not ban are refused. */
export const PROOFS_MAX = 256;
/** The same of one node, and those that wait by the word of one. */
export const PROOFS_PER_NODE_MAX = 8;
/** Proofs that wait for a table, and things that are asked for. */
const WAITING_MAX = 64;
/** Certificates that are kept to be listed or shown. */
const CERTIFICATES_MAX = 64;
/** Past states that an update may follow. */
const STATES_MAX = 8;
/** Local scores are written so long after they have changed. */
const WRITE_MS = 10_000;
/** Scores in one write. */
const WRITE_BATCH = 128;
/** Time between two looks at what changes slowly. */
const LOOK_MS = 5_000;
/** A voter is absent when it has been dead for so long. */
export const ABSENT_AFTER_MS: number = 10 * 60_000;
/** Participation is told so often. */
const PERIOD_MS = 3_600_000;
/** Several proofs of one moment go into one update. */
const SETTLE_MS = 2_000;
/** The next voter proposes so long after the one before. */
const RANK_MS = 10_000;
/** An answer of the agreement is waited for so long. */
const PROPOSE_MS = 60_000;
/** Longest wait after updates that were not decided. */
const BACKOFF_MS_MAX = 600_000;
/** Clocks of voters differ by no more, or they wait. */
const SKEW_MS = 30_000;
/** An answer that takes longer is slow, and how often that is counted. */
const SLOW_RTT_MS = 2_000;
const SLOW_EVERY_MS = 600_000;
/** Being there is worth a fact in such a time. */
const UP_EVERY_MS = 3_600_000;
/** Others report first, where they have the same proof: an honest node waits up to so long. */
const REPORT_MS = 3_000;
/** Longest proof that a record carries; a longer one is asked for. */
const INLINE_BYTES_MAX = 6 << 10;
const ASK_EVERY_MS = 5_000;

const LOCAL = "trust/local/";
const PROOF = "trust/proof/";

const readItemAsk = record({ h: bytes({ length: 16 }) });
const readItem = record({ b: bytes({ max: PROOF_BYTES_MAX }) });
/** Only a proof has it. */
const readIsProof = record({ e: optional(anything) });
const readReport = record({
  n: readNodeId,
  h: bytes({ length: 16 }),
  b: optional(bytes({ max: INLINE_BYTES_MAX })),
});
const readStoredProof = record({ b: bytes({ max: PROOF_BYTES_MAX }), r: readNodeId, t: uint(), o: readOffence });

interface KnownCertificate {
  readonly bytes: Uint8Array;
  readonly participation: Participation;
}

interface Wanted {
  readonly hash: Uint8Array;
  /** Who has to have it. */
  readonly from: Set<string>;
  /** Who accused somebody by it; a lie is held against it. */
  readonly reporter: string | undefined;
  askedMs: number;
  readonly sinceMs: number;
}

/** Trust. */
export class Trust implements Part {
  readonly methods = ["trust.item"] as const;
  readonly verbs = [
    "trust-list",
    "trust-show",
    "trust-policy-show",
    "trust-policy-set",
    "evidence-list",
    "evidence-verify",
  ] as const;
  /** Set by the agent once there is an agreement. */
  agreement: AgreementDoor | undefined;
  /** What an operator is to sign elsewhere, so that a record changes. */
  prepare: (key: string, value: Uint8Array) => object = () => {
    throw new Refusal("unavailable", "Nothing can be agreed on here");
  };
  readonly #local = new LocalScores();
  readonly #dirty = new Set<string>();
  #writeMs = Infinity;
  readonly #proofs = new Map<string, KnownProof>();
  /** What proofs came to that were checked, kept or not: two of one deed are kept once. */
  readonly #checked = new Map<string, Offence>();
  /** Nodes that a checked proof bans, whether or not that was agreed. */
  readonly #banned = new Set<string>();
  /** Proofs whose table is not known yet. */
  readonly #undecided = new Map<string, { readonly bytes: Uint8Array; readonly reporter: string }>();
  /** Proofs of others that this node tells of, and when, unless somebody else has. */
  readonly #toReport = new Map<string, number>();
  readonly #certificates = new Map<string, KnownCertificate>();
  readonly #wanted = new Map<string, Wanted>();
  /** States by hash, the newest last. */
  readonly #states = new Map<string, TrustState>();
  #state: TrustState | undefined;
  /** Its rows by node: asked for with every record that arrives. */
  #rows: ReadonlyMap<string, TrustRow> = new Map();
  #stateOf = "";
  #policy: TrustPolicy = DEFAULT_POLICY;
  #policyOf = "";
  #lookMs = 0;
  /** Something is worth an update since then. */
  #wantedSinceMs: number | undefined;
  #proposedMs: number | undefined;
  #failures = 0;
  #notBeforeMs = 0;
  readonly #conductSeen = new Map<string, SporeConduct>();
  #equivocationsSeen = 0;
  readonly #upSinceMs = new Map<string, number>();
  readonly #slowMs = new Map<string, number>();
  readonly #counts = { updates: 0, refused: 0, waited: 0, proposed: 0, reports: 0, lies: 0 };
  #entries: readonly (readonly [string, Uint8Array])[];
  readonly #console: TrustConsole;

  constructor(readonly ctx: Context, entries: ReadonlyMap<string, Uint8Array>, readonly ports: TrustPorts) {
    this.#entries = [...entries].filter(([name]) => name.startsWith(LOCAL) || name.startsWith(PROOF));
    this.#console = new TrustConsole(ctx, this);
  }

  // --- for other parts of this node ---------------------------------------------------------------------------

  /** Whether a node may do something. */
  may(nodeId: string, action: TrustAction): TrustVerdict {
    return may(this.standing(nodeId), action, this.#policy);
  }

  /** What this node knows of another. */
  standing(nodeId: string): Standing {
    const row = this.#rows.get(nodeId);
    return {
      agreedPpm: row?.ppm ?? NEUTRAL_PPM,
      // What a node thinks of itself decides nothing.
      localPpm: nodeId === this.ctx.state.nodeId ? NEUTRAL_PPM : this.#local.ppm(nodeId, this.ctx.nowMs),
      banned: row?.banned === true || this.#banned.has(nodeId),
    };
  }

  /**
   * How much a node is trusted with a vote in the Primary Spore: below 0 not at all, 0 as a newcomer, 1 from three quarters
   * on. Coarse, so that nobody is replaced for a little.
   */
  tier(nodeId: string): number {
    if (!this.may(nodeId, "lead").ok) return -1;
    return this.standing(nodeId).agreedPpm >= TIER_PPM ? 1 : 0;
  }

  /**
   * Weighs electors by the agreed scores and the policy: the same on every node that knows the same records.
   *
   * @param nowMs Date of the change.
   */
  weigh(
    electors: readonly { readonly id: string; readonly publicKey: Uint8Array; readonly sinceMs: number | undefined }[],
    nowMs: number,
  ): readonly ElectorWeight[] {
    // The record may have come in this very step.
    this.#sync();
    const state = this.#state;
    const foundedMs = this.ctx.state.network?.genesis?.record.createdMs ?? 0;
    const known = electors.map((one) => ({
      ...one,
      ...(state ? rowOf(state, one.id) : { ppm: NEUTRAL_PPM, banned: false }),
      publicKey: one.publicKey,
    }));
    return weightsOf(known, { nowMs, foundedMs, voting: (state ?? initialTrust(foundedMs)).voting });
  }

  /** The agreed scores. */
  get state(): TrustState | undefined {
    return this.#state;
  }

  get policy(): TrustPolicy {
    return this.#policy;
  }

  /** Proofs that this node has checked. */
  get proofs(): ReadonlyMap<string, KnownProof> {
    return this.#proofs;
  }

  get local(): LocalScores {
    return this.#local;
  }

  /** Takes in something that this node has seen of another. */
  observe(nodeId: string, fact: LocalFact): void {
    const { state, nowMs } = this.ctx;
    if (nodeId === state.nodeId || !publicKeyOf(nodeId)) return;
    const forgotten = this.#local.observe(nodeId, fact, nowMs);
    if (forgotten !== undefined) this.#dirty.add(forgotten);
    this.#dirty.add(nodeId);
    if (this.#writeMs === Infinity) this.#writeMs = nowMs + WRITE_MS;
  }

  /** How voters behaved in an instance, as this node has seen it. */
  facts(facts: readonly { readonly voter: string; readonly fact: VoterFact }[]): void {
    for (const { voter, fact } of facts) this.observe(voter, fact);
  }

  /** Takes in evidence that the agreement has found. */
  evidence(evidence: Evidence): void {
    this.#learnProof(encodeProof({ type: "vote", evidence }), this.ctx.state.nodeId);
  }

  /** Takes in a certificate that is verified. */
  certificate(certificate: Certificate, table: WeightTable): void {
    const voters = electorate(certificate.header, table, this.ctx.state.networkId);
    if (!voters) return;
    const bytes = encodeCbor(certificateValue(certificate));
    const hash = toHex(listedHash(bytes));
    if (this.#certificates.has(hash)) return;
    this.#certificates.set(hash, { bytes, participation: this.#participation(certificate, voters) });
    for (const old of this.#certificates.keys()) {
      if (this.#certificates.size <= CERTIFICATES_MAX) break;
      this.#certificates.delete(old);
    }
  }

  /**
   * Checks an update of the agreed scores that somebody proposes, by computing it again. A function of the value and of what
   * it names: nodes never come to different answers, some come to none.
   *
   * @param from Who has what it lists.
   * @returns Missing: something that it lists, or the state that it follows, is not known here yet, or its time has not
   * come, or this node has not seen the absence that it tells of. Ask again.
   */
  checkUpdate(value: Uint8Array, from?: string): boolean | undefined {
    let next: TrustState;
    try {
      next = decodeTrust(value);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      this.#counts.refused += 1;
      return false;
    }
    this.#sync();
    const previous = this.#states.get(toHex(next.basis.previous));
    const inputs = previous && this.#inputsOf(next, from);
    if (!previous || !inputs) {
      this.#counts.waited += 1;
      return undefined;
    }
    const sound = next.atMs >= previous.atMs && isWorth(previous, inputs) &&
      compareBytes(encodeTrust(nextTrust(previous, inputs, next.basis)), value) === 0;
    if (!sound) this.#counts.refused += 1;
    return sound;
  }

  /** Has a policy agreed on. */
  setPolicy(policy: TrustPolicy, done: (result: { readonly ok: boolean; readonly code: string }) => void): void {
    if (!this.agreement) return done({ ok: false, code: "no-agreement" });
    this.agreement.put(POLICY_KEY, encodePolicy(policy), this.#standingHash(POLICY_KEY), done);
  }

  /** What an operator is to sign elsewhere for a policy. */
  preparePolicy(policy: TrustPolicy): object {
    return this.prepare(POLICY_KEY, encodePolicy(policy));
  }

  /** The class of agreement that the policy asks for under a key, where it does: that of the longest prefix. */
  classOf(key: string): PolicyClass | undefined {
    let found: TrustPolicy["classes"][number] | undefined;
    for (const one of this.#policy.classes) {
      if (key.startsWith(one.prefix) && one.prefix.length >= (found?.prefix.length ?? 0)) found = one;
    }
    return found?.class;
  }

  /** Checks a policy that somebody proposes. */
  checkPolicy(value: Uint8Array): boolean {
    try {
      decodePolicy(value);
      return true;
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      return false;
    }
  }

  /** Checks a proof again. */
  check(proof: Uint8Array): ProofVerdict {
    const { networkId } = this.ctx.state;
    return checkProof(proof, { networkId, table: (hash) => this.agreement?.tableOf(hash) });
  }

  // --- Part ---------------------------------------------------------------------------------------------------

  serve(_peer: PeerView, method: string, body: CborValue): CborValue {
    const { h } = readItemAsk(body, method);
    const hash = toHex(h);
    const found = this.#proofs.get(hash)?.bytes ?? this.#certificates.get(hash)?.bytes ??
      this.#undecided.get(hash)?.bytes;
    if (!found) throw new Refusal("not-found", "nothing of that hash is known here");
    return { b: found };
  }

  answer(controlId: number, request: ControlRequest): unknown {
    return this.#console.answer(controlId, request as TrustRequest);
  }

  start(): void {
    const { ctx } = this;
    const bad: string[] = [];
    for (const [name, value] of this.#entries) {
      try {
        if (name.startsWith(LOCAL)) this.#local.load(readNodeId(name.slice(LOCAL.length), "node"), value);
        else {
          // Checked before it was stored; tables of long ago are not known at a start.
          const { b, r, t, o } = decodeAs(value, readStoredProof);
          const hash = toHex(listedHash(b));
          this.#proofs.set(hash, { hash, bytes: b, offence: o, reporter: r, learnedMs: t });
          this.#checked.set(hash, o);
          if (o.kind === "safety") this.#banned.add(o.nodeId);
        }
      } catch (error) {
        if (!(error instanceof WireError)) throw error;
        bad.push(name);
      }
    }
    this.#entries = [];
    if (bad.length > 0) {
      ctx.log("error", "trust-unreadable", `${bad.length} stored entries of trust cannot be read: dropped`);
      ctx.persist(bad.map((name) => [name, null]));
    }
    this.#sync();
  }

  clear(): void {
    this.#local.clear();
    for (
      const one of [
        this.#dirty,
        this.#proofs,
        this.#checked,
        this.#banned,
        this.#undecided,
        this.#toReport,
        this.#certificates,
        this.#wanted,
        this.#states,
        this.#conductSeen,
        this.#upSinceMs,
        this.#slowMs,
      ]
    ) one.clear();
    this.#entries = [];
    this.#state = undefined;
    this.#rows = new Map();
    this.#stateOf = this.#policyOf = "";
    this.#policy = DEFAULT_POLICY;
    this.#writeMs = Infinity;
    this.#wantedSinceMs = this.#proposedMs = undefined;
    this.#failures =
      this.#notBeforeMs =
      this.#lookMs =
      this.#equivocationsSeen =
        0;
  }

  keys(): readonly string[] {
    return [
      ...this.#local.nodes.map((nodeId) => LOCAL + nodeId),
      ...[...this.#proofs.keys()].map((hash) => PROOF + hash),
      ...this.#entries.map(([name]) => name),
    ];
  }

  sessionDown(nodeId: string): void {
    this.#slowMs.delete(nodeId);
  }

  clockSetBack(): void {
    const { nowMs } = this.ctx;
    this.#local.clockSetBack(nowMs);
    this.#lookMs = nowMs;
    this.#notBeforeMs = Math.min(this.#notBeforeMs, nowMs);
    if (this.#writeMs !== Infinity) this.#writeMs = nowMs;
    if (this.#proposedMs !== undefined) this.#proposedMs = nowMs;
    if (this.#wantedSinceMs !== undefined) this.#wantedSinceMs = nowMs;
    this.#upSinceMs.clear();
    this.#slowMs.clear();
    for (const one of this.#wanted.values()) one.askedMs = Math.min(one.askedMs, nowMs);
    for (const hash of this.#toReport.keys()) this.#toReport.set(hash, nowMs);
  }

  wake(): number {
    const { nowMs } = this.ctx;
    this.#sync();
    if (nowMs >= this.#lookMs) {
      this.#lookMs = nowMs + LOOK_MS;
      this.#look();
    }
    this.#ask();
    this.#report();
    const proposeMs = this.#propose();
    if (nowMs >= this.#writeMs) this.#write();
    // Whoever is alone has nobody to look at, and is not woken for it.
    const lookMs = this.ctx.state.members.size > 1 ? this.#lookMs : Infinity;
    return Math.min(lookMs, this.#writeMs, proposeMs, ...this.#toReport.values());
  }

  /** The section of the status document. */
  status(): TrustStatus {
    const { state } = this.ctx;
    const known = state.members.all().map((one) => one.nodeId);
    const refused = (action: TrustAction) => known.filter((nodeId) => !this.may(nodeId, action).ok).length;
    return {
      version: this.#state?.version ?? 0,
      atMs: this.#state?.atMs ?? 0,
      voteMinPpm: thresholdOf("vote", this.#policy),
      scored: this.#state?.rows.length ?? 0,
      banned: known.filter((nodeId) => this.standing(nodeId).banned),
      belowVote: refused("vote"),
      belowRecord: refused("record"),
      proofs: this.#proofs.size,
      proofsUndecided: this.#undecided.size,
      certificates: this.#certificates.size,
      policySet: this.#policyOf !== "",
      scores: known.slice(0, STATUS_ROWS_MAX).map((nodeId) => ({ nodeId, ...this.standing(nodeId) })),
      ...this.#counts,
    };
  }

  // --- agreed records -----------------------------------------------------------------------------------------

  /** Takes in what is agreed now. */
  #sync(): void {
    const createdMs = this.ctx.state.network?.genesis?.record.createdMs;
    if (createdMs === undefined) return;
    if (this.#states.size === 0) this.#take(initialTrust(createdMs));
    const trust = this.ports.agreed(TRUST_KEY);
    const trustOf = trust ? toHex(trust.hash) : "";
    if (trust?.record.value && trustOf !== this.#stateOf) {
      this.#stateOf = trustOf;
      this.#readAgreed("agreed trust", () => this.#take(decodeTrust(trust.record.value!)));
    }
    const policy = this.ports.agreed(POLICY_KEY);
    const policyOf = policy?.record.value ? toHex(policy.hash) : "";
    if (policyOf === this.#policyOf) return;
    this.#policyOf = policyOf;
    this.#policy = DEFAULT_POLICY;
    if (policyOf !== "") this.#readAgreed("agreed policy", () => this.#policy = decodePolicy(policy!.record.value!));
  }

  /** What was certified reads, unless a newer node has written it: then what counted before counts on. */
  #readAgreed(what: string, read: () => void): void {
    try {
      read();
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      this.ctx.log("error", "trust-unreadable", `${what} cannot be read: ${error.message}`);
    }
  }

  #take(state: TrustState): void {
    const { ctx } = this;
    const before = this.#state;
    this.#state = state;
    this.#rows = new Map(state.rows.map((one) => [nodeIdOf(one.publicKey), one]));
    const hash = toHex(trustHash(state));
    this.#states.delete(hash);
    this.#states.set(hash, state);
    for (const old of this.#states.keys()) {
      if (this.#states.size <= STATES_MAX) break;
      this.#states.delete(old);
    }
    this.#wantedSinceMs = undefined;
    if (state.version === 0) return;
    this.#counts.updates += 1;
    this.#failures = 0;
    this.#notBeforeMs = 0;
    for (const [nodeId, row] of this.#rows) {
      if (!row.banned || before && rowOf(before, nodeId).banned) continue;
      ctx.audit("trust-banned", nodeId, `agreed for good in version ${state.version}`);
    }
  }

  /** Looks up what an update lists. */
  #inputsOf(next: TrustState, from: string | undefined): TrustInputs | undefined {
    const { nowMs } = this.ctx;
    const { basis } = next;
    let complete = next.atMs <= nowMs + SKEW_MS;
    const offences: Offence[] = [];
    for (const hash of basis.proofs) {
      const known = this.#checked.get(toHex(hash));
      if (known) offences.push(known);
      else complete = this.#want(hash, from, undefined);
    }
    const participations: Participation[] = [];
    for (const hash of basis.certificates) {
      const known = this.#certificates.get(toHex(hash));
      if (known) participations.push(known.participation);
      else complete = this.#want(hash, from, undefined);
    }
    const absent: string[] = [];
    for (const key of basis.absent) {
      const nodeId = nodeIdOf(key);
      if (this.#isAbsent(nodeId)) absent.push(nodeId);
      else complete = false;
    }
    const voting = votingOf(this.#policy);
    // Of another policy than the one that is known here: this node may be late.
    if (!sameVoting(voting, next.voting)) complete = false;
    return complete ? { atMs: next.atMs, offences, participations, absent, voting } : undefined;
  }

  /** Whether this node has seen for itself that a voter is away. */
  #isAbsent(nodeId: string): boolean {
    const { state, nowMs } = this.ctx;
    const seen = state.members.observation(nodeId);
    return nodeId !== state.nodeId && seen.state === "dead" && nowMs - seen.sinceMs >= ABSENT_AFTER_MS;
  }

  /** Has an update proposed where there is something to tell. Returns when to look again. */
  #propose(): number {
    const { state, nowMs } = this.ctx;
    const door = this.agreement;
    const table = door?.table();
    const rank = table?.voters.findIndex((one) => one.id === state.nodeId) ?? -1;
    if (!door || !table || rank < 0 || !this.#state || state.mode === "isolated") return Infinity;
    if (this.#proposedMs !== undefined) {
      if (nowMs - this.#proposedMs < PROPOSE_MS) return this.#proposedMs + PROPOSE_MS;
      this.#proposedMs = undefined;
      this.#failed("timeout");
    }
    if (nowMs < this.#notBeforeMs) return this.#notBeforeMs;
    const update = this.#update(table);
    if (!update) {
      this.#wantedSinceMs = undefined;
      return Infinity;
    }
    this.#wantedSinceMs ??= nowMs;
    const dueMs = this.#wantedSinceMs + SETTLE_MS + (this.ports.leads() ? 0 : (rank + 1) * RANK_MS);
    if (nowMs < dueMs) return dueMs;
    this.#proposedMs = nowMs;
    this.#counts.proposed += 1;
    const { version } = this.#state;
    door.put(TRUST_KEY, encodeTrust(update), this.#standingHash(TRUST_KEY), ({ ok, code }) => {
      if (this.#proposedMs === undefined) return;
      this.#proposedMs = undefined;
      // Applied: the record comes by itself. Until then nobody should propose the same once more.
      if (ok) this.#notBeforeMs = this.ctx.nowMs + (this.#state?.version === version ? SETTLE_MS : 0);
      else this.#failed(code);
    });
    return nowMs + PROPOSE_MS;
  }

  #failed(code: string): void {
    const { ctx } = this;
    this.#failures += 1;
    this.#notBeforeMs = ctx.nowMs + Math.min(BACKOFF_MS_MAX, SETTLE_MS * 2 ** Math.min(this.#failures, 9));
    ctx.log("info", "trust-not-updated", `An update of the agreed scores was not decided: ${code}`, { code });
  }

  #standingHash(key: string): Uint8Array {
    return this.ports.agreed(key)?.hash ?? new Uint8Array(0);
  }

  /** The update that is due, if any. */
  #update(table: WeightTable): TrustState | undefined {
    const { nowMs } = this.ctx;
    const state = this.#state!;
    if (nowMs < state.atMs) return undefined;
    const atMs = state.atMs + countedMs(nowMs - state.atMs, AGREED_HALF_LIFE_MS);
    const proofs = [...this.#proofs.values()]
      .filter((one) => counts(state, one.offence, atMs) && this.ctx.state.members.get(one.offence.nodeId))
      .sort((a, b) =>
        Number(b.offence.kind === "safety") - Number(a.offence.kind === "safety") || (a.hash < b.hash ? -1 : 1)
      )
      .slice(0, LISTED_MAX);
    const min = thresholdOf("vote", this.#policy);
    const absenceDue = atMs - state.absenceMs >= ABSENCE_MS;
    // An update that did not come about may have told of an absence that the others do not see: the next one leaves it out.
    const absent = absenceDue && this.#failures % 2 === 0
      ? table.voters.filter((one) => this.#isAbsent(one.id) && rowOf(state, one.id).ppm >= min).slice(0, LISTED_MAX)
      : [];
    const certificates = cover(this.#certificates, state.countedMs);
    const voting = votingOf(this.#policy);
    const due = !sameVoting(voting, state.voting) || proofs.length > 0 || absent.length > 0 ||
      certificates.length > 0 && atMs - state.atMs >= PERIOD_MS;
    if (!due) return undefined;
    const basis: TrustBasis = {
      previous: trustHash(state),
      proofs: proofs.map((one) => listedHash(one.bytes)).sort(compareBytes),
      certificates: certificates.map((one) => listedHash(one.bytes)).sort(compareBytes),
      absent: absent.map((one) => one.publicKey).sort(compareBytes),
    };
    const inputs: TrustInputs = {
      atMs,
      offences: proofs.map((one) => one.offence),
      participations: certificates.map((one) => one.participation),
      absent: absent.map((one) => one.id),
      voting,
    };
    return isWorth(state, inputs) ? nextTrust(state, inputs, basis) : undefined;
  }

  #participation(certificate: Certificate, voters: WeightTable): Participation {
    return {
      instance: instanceId(certificate.header, this.ctx.state.networkId),
      expiresMs: certificate.header.expiresMs,
      signed: voters.voters.flatMap((one, i) => bitOf(certificate.signers, i) ? [one.id] : []),
    };
  }

  // --- proofs -------------------------------------------------------------------------------------------------

  /** Checks a proof and keeps it where it holds. */
  #learnProof(bytes: Uint8Array, reporter: string): void {
    const { ctx } = this;
    const hash = toHex(listedHash(bytes));
    if (this.#checked.has(hash) || this.#proofs.has(hash)) return;
    const verdict = this.check(bytes);
    if (!verdict.ok && verdict.reason === "unknown") {
      if (this.#mayWait(this.#undecided, hash, reporter)) this.#undecided.set(hash, { bytes, reporter });
      return;
    }
    this.#undecided.delete(hash);
    if (!verdict.ok) {
      if (reporter === ctx.state.nodeId) return;
      this.#counts.lies += 1;
      this.observe(reporter, "invalid");
      ctx.refuse("trust-false-report", reporter);
      ctx.log(
        "warn",
        "trust-false-report",
        `${this.#nameOf(reporter)} accused somebody by a proof that does not hold`,
        {
          node: reporter,
        },
      );
      return;
    }
    const { offence } = verdict;
    this.#checked.set(hash, offence);
    for (const old of this.#checked.keys()) {
      if (this.#checked.size <= 2 * PROOFS_MAX) break;
      this.#checked.delete(old);
    }
    if (offence.kind !== "safety" && offence.atMs + OFFENCE_LIFE_MS <= ctx.nowMs) return;
    // Two proofs of one deed: the first one is kept.
    if ([...this.#proofs.values()].some((one) => compareBytes(one.offence.id, offence.id) === 0)) return;
    if (!this.#hasRoom(offence)) return ctx.refuse("trust-proofs-full", reporter);
    const learnedMs = ctx.nowMs;
    this.#proofs.set(hash, { hash, bytes, offence, reporter, learnedMs });
    ctx.persist([[PROOF + hash, encodeCbor({ b: bytes, r: reporter, t: learnedMs, o: offenceValue(offence) })]]);
    const already = this.#banned.has(offence.nodeId);
    if (offence.kind === "safety") this.#banned.add(offence.nodeId);
    // Votes are seen where they are cast: their proof says nothing more.
    const fact = FACT_OF[offence.kind];
    if (fact) this.observe(offence.nodeId, fact);
    ctx.audit(
      "trust-proof",
      offence.nodeId,
      `${offence.kind} fault, reported by ${shortNodeId(reporter)}, proof ${hash}`,
    );
    if (offence.kind === "safety") ctx.watch?.proved(offence.nodeId, `proof ${hash}`);
    if (offence.kind === "safety" && !already) {
      ctx.log("warn", "trust-banned", `${this.#nameOf(offence.nodeId)} has said two things: it is trusted no more`, {
        node: offence.nodeId,
        proof: hash,
      });
    }
    if (reporter === ctx.state.nodeId) {
      this.#toReport.set(hash, ctx.nowMs + ctx.rng.below(REPORT_MS));
    }
  }

  /** Whether there is room for one more that waits; whoever accuses others takes a part of it only. */
  #mayWait(
    waiting: ReadonlyMap<string, { readonly reporter: string | undefined }>,
    hash: string,
    reporter: string | undefined,
  ): boolean {
    if (waiting.has(hash)) return true;
    if (waiting.size >= WAITING_MAX) return false;
    if (reporter === undefined || reporter === this.ctx.state.nodeId) return true;
    return [...waiting.values()].filter((one) => one.reporter === reporter).length < PROOFS_PER_NODE_MAX;
  }

  #hasRoom(offence: Offence): boolean {
    // A ban needs one proof, and there is always room for it.
    if (offence.kind === "safety" && !this.#banned.has(offence.nodeId)) return true;
    if (this.#proofs.size >= PROOFS_MAX) return false;
    let same = 0;
    for (const one of this.#proofs.values()) {
      if (one.offence.nodeId === offence.nodeId) same += 1;
    }
    return same < PROOFS_PER_NODE_MAX;
  }

  /** Tells of proofs that this node has found, unless somebody else has by now. */
  #report(): void {
    const { state, nowMs } = this.ctx;
    for (const [hash, atMs] of this.#toReport) {
      if (nowMs < atMs) continue;
      this.#toReport.delete(hash);
      const proof = this.#proofs.get(hash);
      if (!proof) continue;
      const body = { n: proof.offence.nodeId, h: listedHash(proof.bytes) };
      const value = proof.bytes.length <= INLINE_BYTES_MAX ? { ...body, b: proof.bytes } : body;
      try {
        this.ports.say(`node/${state.nodeId}/evidence/${hash}`, encodeCbor(value), OFFENCE_LIFE_MS);
        this.#counts.reports += 1;
      } catch (error) {
        // Not allowed to speak now: the proof is kept, and listed in an update by whoever votes.
        if (!(error instanceof Refusal)) throw error;
      }
    }
  }

  /** A record of somebody's proofs has changed. */
  reported(key: string): void {
    const { ctx } = this;
    const match = /^node\/([^/]+)\/evidence\/([0-9a-f]{32})$/.exec(key);
    if (!match || match[1] === ctx.state.nodeId) return;
    // Told already: nobody needs to hear it from everybody.
    this.#toReport.delete(match[2]!);
    const value = this.#checked.has(match[2]!) ? undefined : this.ports.value(key);
    if (!value) return;
    const reporter = match[1]!;
    try {
      const { h, b } = decodeAs(value, readReport);
      if (toHex(h) !== match[2] || b && compareBytes(listedHash(b), h) !== 0) {
        throw new WireError("Cannot read report: of another proof");
      }
      if (b) this.#learnProof(b, reporter);
      else this.#want(h, reporter, reporter);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      this.observe(reporter, "invalid");
      ctx.refuse("trust-bad-report", reporter);
    }
  }

  // --- what is asked for --------------------------------------------------------------------------------------

  /** Notes that something is missing. Returns `false`, for the caller to pass on. */
  #want(hash: Uint8Array, from: string | undefined, reporter: string | undefined): false {
    const { nowMs, state } = this.ctx;
    const name = toHex(hash);
    const known = this.#wanted.get(name);
    if (known) {
      if (from && known.from.size < 8) known.from.add(from);
    } else if (this.#mayWait(this.#wanted, name, reporter)) {
      const whom = new Set(from && from !== state.nodeId ? [from] : []);
      this.#wanted.set(name, { hash, from: whom, reporter, askedMs: -Infinity, sinceMs: nowMs });
    }
    this.ctx.wakeAt(nowMs);
    return false;
  }

  #ask(): void {
    const { ctx } = this;
    for (const [name, one] of this.#wanted) {
      const known = this.#checked.has(name) || this.#certificates.has(name) || this.#undecided.has(name);
      if (known || ctx.nowMs - one.sinceMs > BACKOFF_MS_MAX) {
        this.#wanted.delete(name);
        continue;
      }
      if (ctx.nowMs - one.askedMs < ASK_EVERY_MS) continue;
      one.askedMs = ctx.nowMs;
      const peers = ctx.memberPeers();
      const first = [...one.from].filter((nodeId) => peers.includes(nodeId));
      // Whoever named it may be out of reach: others that voted have it too.
      const others = shuffled(peers.filter((nodeId) => !one.from.has(nodeId)), ctx.rng);
      for (const nodeId of [...first, ...others].slice(0, 2)) {
        ctx.call(nodeId, "trust.item", { h: one.hash }, ASK_EVERY_MS, (result) => {
          if (!result.ok || !this.#wanted.has(name)) return;
          try {
            const { b } = readItem(result.body, "trust.item");
            if (compareBytes(listedHash(b), one.hash) !== 0) {
              throw new WireError("Cannot read trust.item: another hash");
            }
            this.#wanted.delete(name);
            this.#learnItem(b, one.reporter ?? nodeId);
          } catch (error) {
            if (!(error instanceof WireError)) throw error;
            ctx.refuse("trust-bad-answer", nodeId);
          }
        });
      }
    }
  }

  /** Takes in a proof or a certificate that was asked for by its hash. @throws {WireError} */
  #learnItem(item: Uint8Array, from: string): void {
    if (decodeAs(item, readIsProof).e !== undefined) return this.#learnProof(item, from);
    const certificate = decodeAs(item, readCertificate);
    const table = this.agreement?.tableOf(certificate.header.table);
    if (!table) return;
    const { networkId } = this.ctx.state;
    if (verifyCertificate(certificate, table, networkId).ok) this.certificate(certificate, table);
  }

  // --- what is looked at by and by -----------------------------------------------------------------------------

  #look(): void {
    const { ctx } = this;
    for (const [, { bytes, reporter }] of [...this.#undecided]) this.#learnProof(bytes, reporter);
    for (const one of this.ports.equivocations().slice(this.#equivocationsSeen)) {
      this.#learnProof(encodeProof(proofOfWords(one)), ctx.state.nodeId);
    }
    this.#equivocationsSeen = this.ports.equivocations().length;
    this.#lookAtConduct();
    this.#lookAtMembers();
    for (const [hash, { offence }] of this.#proofs) {
      if (offence.kind === "safety" || offence.atMs + OFFENCE_LIFE_MS > ctx.nowMs) continue;
      this.#proofs.delete(hash);
      ctx.persist([[PROOF + hash, null]]);
    }
  }

  /** What the spore tiers have counted since the last look. */
  #lookAtConduct(): void {
    for (const [nodeId, now] of this.ports.conduct()) {
      const seen = this.#conductSeen.get(nodeId) ?? { tampered: 0, equivocated: 0, denied: 0, limited: 0 };
      const pairs = [["tampered", "invalid"], ["denied", "denied"], ["limited", "limited"]] as const;
      for (const [count, fact] of pairs) {
        // Many in one look say little more than some.
        for (let i = seen[count]; i < Math.min(now[count], seen[count] + 10); i++) this.observe(nodeId, fact);
      }
      this.#conductSeen.set(nodeId, { ...now });
    }
  }

  /** Who is there, who is not, and who is slow. */
  #lookAtMembers(): void {
    const { state, sessions, nowMs } = this.ctx;
    for (const { nodeId, record } of state.members.all()) {
      if (nodeId === state.nodeId || record.left) continue;
      const seen = state.members.observation(nodeId);
      const since = this.#upSinceMs.get(nodeId);
      if (seen.state === "alive") {
        if (since === undefined) this.#upSinceMs.set(nodeId, nowMs);
        else if (nowMs - since >= UP_EVERY_MS) {
          this.#upSinceMs.set(nodeId, nowMs);
          this.observe(nodeId, "up");
        }
      } else if (seen.state === "dead" && since !== undefined) {
        this.#upSinceMs.delete(nodeId);
        this.observe(nodeId, "down");
      }
      const slow = (sessions.get(nodeId)?.rttMs ?? 0) > SLOW_RTT_MS;
      if (slow && nowMs - (this.#slowMs.get(nodeId) ?? -Infinity) >= SLOW_EVERY_MS) {
        this.#slowMs.set(nodeId, nowMs);
        this.observe(nodeId, "slow");
      }
    }
    for (const nodeId of this.#upSinceMs.keys()) if (!state.members.get(nodeId)) this.#upSinceMs.delete(nodeId);
  }

  #write(): void {
    const names = [...this.#dirty].slice(0, WRITE_BATCH);
    for (const nodeId of names) this.#dirty.delete(nodeId);
    this.ctx.persist(names.map((nodeId) => [LOCAL + nodeId, this.#local.encode(nodeId) ?? null]));
    this.#writeMs = this.#dirty.size > 0 ? this.ctx.nowMs + 1_000 : Infinity;
  }

  #nameOf(nodeId: string): string {
    return this.ctx.state.members.get(nodeId)?.membership.name ?? shortNodeId(nodeId);
  }
}

/** From then on a node is of the highest tier. */
const TIER_PPM = 750_000;
/** Members in the status document. */
const STATUS_ROWS_MAX = 256;

const FACT_OF: Readonly<Record<Offence["kind"], LocalFact | undefined>> = {
  safety: "equivocated",
  vote: undefined,
  withheld: undefined,
  words: "denied",
};

/** Certificates that together show as many voters as possible, the best first, newer than what has counted. */
function cover(known: ReadonlyMap<string, KnownCertificate>, sinceMs: number): readonly KnownCertificate[] {
  const left = [...known.values()].filter((one) => one.participation.expiresMs > sinceMs);
  const shown = new Set<string>();
  const chosen: KnownCertificate[] = [];
  while (chosen.length < LISTED_MAX) {
    let best: KnownCertificate | undefined, most = 0;
    for (const one of left) {
      const fresh = one.participation.signed.filter((nodeId) => !shown.has(nodeId)).length;
      if (fresh > most) [best, most] = [one, fresh];
    }
    if (!best) break;
    chosen.push(best);
    for (const nodeId of best.participation.signed) shown.add(nodeId);
  }
  return chosen;
}
