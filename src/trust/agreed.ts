/**
 * Agreed trust: scores that all nodes share, and the one rule by which they change.
 *
 * A state follows from the one before and from what it lists: proofs of faults, certificates, who is away. Whoever has the same
 * lists comes to the same bytes, so that verifying an update is computing it again. The lists are sets: their order says
 * nothing. Bound to the record `agreed/trust`, which only a certificate writes.
 *
 * @module
 */

import { assert } from "../core/assert.ts";
import { compareBytes, toHex } from "../core/bytes.ts";
import { array, bool, bytes, type CborValue, decodeAs, encodeCbor, record, uint, WireError } from "../core/codec.ts";
import { hashParts } from "../core/crypto.ts";
import { nodeIdOf, publicKeyOf } from "../core/ids.ts";
import { compareOffences, LOSS_PPM, type Offence } from "./offence.ts";
import { DEFAULT_POLICY, thresholdOf, type TrustPolicy, VOUCHED_MAX } from "./policy.ts";
import { AGREED_HALF_LIFE_MS, countedMs, lose, NEUTRAL_PPM, SCORE_MAX, towards } from "./score.ts";

/** Nodes with a score of their own; of more, the one nearest to neutral is forgotten, a banned one never. */
export const ROWS_MAX = 96;
/** Offences that are remembered, so that none counts twice; of more, those that do not ban wait. */
export const OFFENCES_MAX = 48;
/** Proofs, certificates and absent nodes that one update may list, each. */
export const LISTED_MAX = 16;
/**
 * An offence that is older counts no longer, unless it bans: 14 days, as long as any record lives, so that nobody gets away by
 * dating a word back. So long are its id and its proof remembered.
 */
export const OFFENCE_LIFE_MS: number = 14 * 86_400_000;
/** Without a fault or an absence to tell, an update is worth it only so long after the one before. */
export const UPDATE_MS_MIN: number = 600_000;
/** Most time that one update credits: who wants to earn shows up every day. */
export const CREDIT_MS_MAX: number = 86_400_000;
/** Least time between two updates that say who is away. */
export const ABSENCE_MS: number = 3_600_000;
/** Share of the score that an hour or more of absence costs, ppm. */
export const ABSENCE_LOSS_PPM = 100_000;

/** The score of one node. */
export interface TrustRow {
  readonly publicKey: Uint8Array;
  readonly ppm: number;
  /** For good: its score is 0 and stays it. */
  readonly banned: boolean;
}

/** The part of the policy that weighs voters: agreed with the scores, so that whoever knows these weighs alike. */
export interface VotingPolicy {
  /** Least score of a voter, ppm. */
  readonly minPpm: number;
  /** Public keys of those whom the network has vouched for, sorted. */
  readonly vouched: readonly Uint8Array[];
}

/** What all nodes think of each other. */
export interface TrustState {
  /** Counts the updates; 0 before the first. */
  readonly version: number;
  /** Time to which the scores have decayed, milliseconds. */
  readonly atMs: number;
  /** Newest certificate that counted; older ones count no more. */
  readonly countedMs: number;
  /** When absence was last said. */
  readonly absenceMs: number;
  /** What seats go by. */
  readonly voting: VotingPolicy;
  /** Sorted by key. Who is missing is neutral. */
  readonly rows: readonly TrustRow[];
  /** Offences that have counted, by id, and when they may be forgotten. Sorted by id. */
  readonly offences: readonly { readonly id: Uint8Array; readonly untilMs: number }[];
  /** What the update rests on. */
  readonly basis: TrustBasis;
}

/** What an update lists. Everything by hash: who checks it has it or asks for it. */
export interface TrustBasis {
  /** Hash of the state before, 32 bytes; zeros before the first. */
  readonly previous: Uint8Array;
  /** Hashes of proofs, 16 bytes each, sorted. */
  readonly proofs: readonly Uint8Array[];
  /** Hashes of certificates, 16 bytes each, sorted. */
  readonly certificates: readonly Uint8Array[];
  /** Public keys of voters that did not answer, sorted. More than two thirds have to have seen the same. */
  readonly absent: readonly Uint8Array[];
}

/** What a certificate says of who took part. */
export interface Participation {
  /** Of the instance, 32 bytes. */
  readonly instance: Uint8Array;
  /** End of the instance's life, milliseconds: signed by its proposer. */
  readonly expiresMs: number;
  /** Node ids of those who signed the decision. */
  readonly signed: readonly string[];
}

/** The lists of an update, looked up. */
export interface TrustInputs {
  /** By the clock of who proposes; not before the state's. */
  readonly atMs: number;
  readonly offences: readonly Offence[];
  readonly participations: readonly Participation[];
  /** Node ids. */
  readonly absent: readonly string[];
  readonly voting: VotingPolicy;
}

/** The state of a network where nothing was agreed yet. @param createdMs When the network was founded. */
export function initialTrust(createdMs: number): TrustState {
  return {
    version: 0,
    atMs: createdMs,
    countedMs: 0,
    absenceMs: 0,
    voting: votingOf(DEFAULT_POLICY),
    rows: [],
    offences: [],
    basis: { previous: new Uint8Array(32), proofs: [], certificates: [], absent: [] },
  };
}

/** The part of a policy that weighs voters. */
export function votingOf(policy: TrustPolicy): VotingPolicy {
  const vouched = policy.vouched.flatMap((nodeId) => publicKeyOf(nodeId) ?? []).sort(compareBytes);
  return { minPpm: thresholdOf("vote", policy), vouched };
}

/** Whether two say the same. */
export function sameVoting(a: VotingPolicy, b: VotingPolicy): boolean {
  return a.minPpm === b.minPpm && a.vouched.length === b.vouched.length &&
    a.vouched.every((one, i) => compareBytes(one, b.vouched[i]!) === 0);
}

/** What is thought of a node. */
export function rowOf(state: TrustState, nodeId: string): { readonly ppm: number; readonly banned: boolean } {
  const key = publicKeyOf(nodeId);
  const row = key && state.rows.find((one) => compareBytes(one.publicKey, key) === 0);
  return row ?? { ppm: NEUTRAL_PPM, banned: false };
}

/** Whether an offence would count in the next update. */
export function counts(state: TrustState, offence: Offence, atMs: number): boolean {
  const { banned } = rowOf(state, offence.nodeId);
  if (banned || !publicKeyOf(offence.nodeId)) return false;
  if (offence.kind === "safety") return true;
  if (offence.atMs + OFFENCE_LIFE_MS <= atMs || offence.atMs > atMs + OFFENCE_LIFE_MS) return false;
  const known = state.offences.filter((one) => one.untilMs > atMs);
  // Where there is no room it waits: an update for it would say nothing, and be proposed again and again.
  return known.length < OFFENCES_MAX && !known.some((one) => compareBytes(one.id, offence.id) === 0);
}

/**
 * The state after an update. Total: what does not count changes nothing.
 *
 * Each node goes towards the top where it signed one of the certificates, towards neutral where it did not; then it loses
 * for what was proved and for absence. Losses multiply, so that their order says nothing.
 *
 * @param basis Hashes of the inputs, kept in the state.
 */
export function nextTrust(previous: TrustState, inputs: TrustInputs, basis: TrustBasis): TrustState {
  const { atMs } = inputs;
  assert(atMs >= previous.atMs, `an update of trust goes from ${previous.atMs} back to ${atMs}`);
  // What is no whole part of the half-life waits for the next update.
  const elapsedMs = countedMs(atMs - previous.atMs, AGREED_HALF_LIFE_MS);
  const fresh = inputs.participations.filter((one) => one.expiresMs > previous.countedMs);
  const working = new Set(fresh.flatMap((one) => one.signed));
  const rows = new Map(previous.rows.map((one) => [nodeIdOf(one.publicKey), one]));
  const lookUp = (nodeId: string): TrustRow | undefined => {
    const publicKey = publicKeyOf(nodeId);
    return rows.get(nodeId) ?? (publicKey && { publicKey, ppm: NEUTRAL_PPM, banned: false });
  };
  for (const nodeId of working) {
    const row = lookUp(nodeId);
    if (row) rows.set(nodeId, row);
  }
  for (const [nodeId, row] of rows) {
    if (row.banned) continue;
    const creditMs = working.has(nodeId) ? Math.min(elapsedMs, CREDIT_MS_MAX) : 0;
    // What is not credited of a long time decays; first, so that the newest counts in full.
    const idle = towards(row.ppm, NEUTRAL_PPM, elapsedMs - creditMs, AGREED_HALF_LIFE_MS);
    rows.set(nodeId, { ...row, ppm: towards(idle, SCORE_MAX, creditMs, AGREED_HALF_LIFE_MS) });
  }
  const offences = previous.offences.filter((one) => one.untilMs > atMs);
  for (const one of distinct(inputs.offences)) {
    const row = lookUp(one.nodeId);
    if (!row || !counts(previous, one, atMs)) continue;
    if (one.kind === "safety") rows.set(one.nodeId, { ...row, ppm: 0, banned: true });
    else if (offences.length < OFFENCES_MAX) {
      rows.set(one.nodeId, { ...row, ppm: lose(row.ppm, LOSS_PPM[one.kind]) });
      offences.push({ id: one.id, untilMs: one.atMs + OFFENCE_LIFE_MS });
    }
  }
  const saysAbsence = inputs.absent.length > 0 && atMs - previous.absenceMs >= ABSENCE_MS;
  if (saysAbsence) {
    for (const nodeId of new Set(inputs.absent)) {
      const row = lookUp(nodeId);
      // Who has signed is there, whatever is said of it.
      if (row && !working.has(nodeId)) rows.set(nodeId, { ...row, ppm: lose(row.ppm, ABSENCE_LOSS_PPM) });
    }
  }
  return {
    version: previous.version + 1,
    atMs: previous.atMs + elapsedMs,
    countedMs: fresh.reduce((newest, one) => Math.max(newest, one.expiresMs), previous.countedMs),
    absenceMs: saysAbsence ? atMs : previous.absenceMs,
    voting: inputs.voting,
    rows: bounded([...rows.values()]),
    offences: offences.sort((a, b) => compareBytes(a.id, b.id)),
    basis,
  };
}

/** Whether an update says anything: otherwise nobody certifies it. A function of the arguments alone, as the update is. */
export function isWorth(previous: TrustState, inputs: TrustInputs): boolean {
  if (inputs.offences.some((one) => counts(previous, one, inputs.atMs))) return true;
  if (inputs.absent.length > 0 && inputs.atMs - previous.absenceMs >= ABSENCE_MS) return true;
  return !sameVoting(previous.voting, inputs.voting) || inputs.atMs - previous.atMs >= UPDATE_MS_MIN;
}

/** Each offence once, in an order of their own: the result of a list is that of its set. */
function distinct(offences: readonly Offence[]): Offence[] {
  const sorted = [...offences].sort(compareOffences);
  return sorted.filter((one, i) => i === 0 || compareOffences(sorted[i - 1]!, one) !== 0);
}

/** As many rows as fit: banned ones first, then those furthest from neutral; by key. */
function bounded(rows: readonly TrustRow[]): readonly TrustRow[] {
  const told = rows.filter((one) => one.banned || one.ppm !== NEUTRAL_PPM);
  const far = (one: TrustRow) => one.banned ? SCORE_MAX : Math.abs(one.ppm - NEUTRAL_PPM);
  return told
    .sort((a, b) => far(b) - far(a) || compareBytes(a.publicKey, b.publicKey))
    .slice(0, ROWS_MAX)
    .sort((a, b) => compareBytes(a.publicKey, b.publicKey));
}

/** Hash that names a proof or a certificate in a list: 16 bytes. */
export function listedHash(content: Uint8Array): Uint8Array {
  return hashParts("mycelium/trust/listed/v1", content).subarray(0, 16);
}

/** Hash of a state, 32 bytes; zeros for the one before the first. */
export function trustHash(state: TrustState): Uint8Array {
  return state.version === 0 ? new Uint8Array(32) : hashParts("mycelium/trust/state/v1", encodeTrust(state));
}

const key32 = bytes({ length: 32 });
const short = bytes({ length: 16 });
const time = uint(2 ** 48);
const readState = record({
  n: uint(2 ** 32, 1),
  t: time,
  c: time,
  a: time,
  m: uint(SCORE_MAX),
  w: array(key32, VOUCHED_MAX),
  r: array((value, path) => {
    const [key, ppm, banned] = array((one) => one, 3)(value, path);
    return {
      publicKey: key32(key, `${path}.key`),
      ppm: uint(SCORE_MAX)(ppm, `${path}.ppm`),
      banned: bool(banned, `${path}.banned`),
    };
  }, ROWS_MAX),
  o: array((value, path) => {
    const [id, until] = array((one) => one, 2)(value, path);
    return { id: short(id, `${path}.id`), untilMs: time(until, `${path}.until`) };
  }, OFFENCES_MAX),
  p: key32,
  e: array(short, LISTED_MAX),
  d: array(short, LISTED_MAX),
  x: array(key32, LISTED_MAX),
});

/** The value of the record `agreed/trust`. */
export function encodeTrust(state: TrustState): Uint8Array {
  const value: CborValue = {
    n: state.version,
    t: state.atMs,
    c: state.countedMs,
    a: state.absenceMs,
    m: state.voting.minPpm,
    w: state.voting.vouched,
    r: state.rows.map((one) => [one.publicKey, one.ppm, one.banned]),
    o: state.offences.map((one) => [one.id, one.untilMs]),
    p: state.basis.previous,
    e: state.basis.proofs,
    d: state.basis.certificates,
    x: state.basis.absent,
  };
  return encodeCbor(value);
}

/** Reads the value of the record; its lists are sorted and distinct. @throws {WireError} */
export function decodeTrust(value: Uint8Array): TrustState {
  const { n, t, c, a, m, w, r, o, p, e, d, x } = decodeAs(value, readState);
  for (const list of [r.map((one) => one.publicKey), o.map((one) => one.id), w, e, d, x]) {
    for (const [i, one] of list.entries()) {
      if (i > 0 && compareBytes(list[i - 1]!, one) >= 0) {
        throw new WireError(`Cannot read agreed trust: ${toHex(one).slice(0, 16)} is not in order`);
      }
    }
  }
  for (const one of r) {
    if (one.banned && one.ppm !== 0) throw new WireError("Cannot read agreed trust: a banned node has a score");
  }
  return {
    version: n,
    atMs: t,
    countedMs: c,
    absenceMs: a,
    voting: { minPpm: m, vouched: w },
    rows: r,
    offences: o,
    basis: { previous: p, proofs: e, certificates: d, absent: x },
  };
}
