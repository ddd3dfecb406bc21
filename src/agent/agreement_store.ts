/**
 * How agreement stands in the store: what was signed and must not be contradicted, what was decided and has not been
 * applied yet, and the proof of the newest record of each key.
 *
 * @module
 */

import { equalBytes, toHex } from "../core/bytes.ts";
import { array, bool, bytes, decodeAs, encodeCbor, optional, record, uint, WireError } from "../core/codec.ts";
import { type Envelope, envelopeValue, readEnvelope } from "../core/envelope.ts";
import { LIMITS } from "../core/limits.ts";
import { type Certificate, certificateValue, readCertificate } from "../consensus/certificate.ts";
import type { ConsensusEffect, StoredInstance, StoredVoting } from "../consensus/effects.ts";
import { openedReader, openedValue } from "../consensus/messages.ts";
import {
  type Operation,
  operationHash,
  operationsHashOf,
  operationValue,
  proposalValue,
  readOperation,
  readProposal,
} from "../consensus/statements.ts";
import { readTable, tableValue } from "../consensus/weights.ts";
import type { Decision } from "./certified.ts";
import type { Put } from "./state.ts";

const INSTANCE = "agreement/instance/";
const HANDOVER = "agreement/handover/";
const PROOF = "agreement/proof/";
const LINK = "agreement/link/";
const NUMBER = "agreement/number";
const CLOCK = "agreement/clock";

/**
 * What shows that a record was agreed: the certificate with the hash of each of its operations, or the operator's word.
 * Without the record itself.
 */
export type RecordProof =
  | {
    readonly certificate: Certificate;
    /** Of all operations of the certificate, in order, 32 bytes each. */
    readonly hashes: readonly Uint8Array[];
    /** Which of them wrote the record. */
    readonly at: number;
    /** That operation. */
    readonly operation: Operation;
  }
  | { readonly statement: Envelope; readonly record: Envelope };

/** The proof of each operation of a decision, in their order. */
export function proofsOf(
  certificate: Certificate,
  operations: readonly Operation[],
): readonly Extract<RecordProof, { readonly certificate: Certificate }>[] {
  // Once for all of them: a decision of 256 operations has 65 536 pairs.
  const hashes = operations.map(operationHash);
  return operations.map((operation, at) => ({ certificate, hashes, at, operation }));
}

const readProofParts = record({
  c: optional(readCertificate),
  h: optional(bytes({ max: 32 * LIMITS.consensusBatchMax })),
  a: optional(uint(LIMITS.consensusBatchMax - 1)),
  o: optional(readOperation),
  s: optional(readEnvelope),
  e: optional(readEnvelope),
});

/** Reads a proof: the operation is the one that the certificate names; says nothing about signatures. @throws {WireError} */
export function decodeProof(input: Uint8Array): RecordProof {
  const { c, h, a, o, s, e } = decodeAs(input, readProofParts);
  if (s && e) return { statement: s, record: e };
  if (!c || !h || a === undefined || !o) throw new WireError("Cannot read proof: neither certificate nor statement");
  if (h.length !== 32 * c.header.count || a >= c.header.count) {
    throw new WireError("Cannot read proof: hashes are missing");
  }
  const hashes = Array.from({ length: c.header.count }, (_, i) => h.slice(32 * i, 32 * i + 32));
  if (!equalBytes(operationsHashOf(hashes), c.header.operations) || !equalBytes(hashes[a]!, operationHash(o))) {
    throw new WireError("Cannot read proof: the operation is not one of the certificate");
  }
  return { certificate: c, hashes, at: a, operation: o };
}

/** Bytes of a proof. */
export function encodeProof(proof: RecordProof): Uint8Array {
  if ("statement" in proof) {
    return encodeCbor({ s: envelopeValue(proof.statement), e: envelopeValue(proof.record) });
  }
  const hashes = new Uint8Array(32 * proof.hashes.length);
  proof.hashes.forEach((one, i) => hashes.set(one, 32 * i));
  return encodeCbor({
    c: certificateValue(proof.certificate),
    h: hashes,
    a: proof.at,
    o: operationValue(proof.operation),
  });
}

const hash32 = bytes({ length: 32 });
const readVotingParts = record({
  p: readProposal,
  t: readTable,
  r: uint(LIMITS.consensusRoundsMax),
  v: optional(bytes({ max: 32 })),
  f: optional(record({ r: uint(), v: hash32 })),
  l: optional(record({ r: uint(), v: hash32, o: bytes({ max: 32 }), b: hash32 })),
});
const readInstanceParts = record({
  i: hash32,
  x: uint(),
  s: bool,
  c: optional(readCertificate),
  v: optional((value, path) => value === undefined ? undefined : readVotingParts(value, path)),
  k: optional(bytes({ max: LIMITS.frameBytesMax })),
});

/** Bytes of what a voter has said in an instance. */
export function encodeInstance(one: StoredInstance): Uint8Array {
  const { voting } = one;
  return encodeCbor({
    i: one.instance,
    x: one.expiresMs,
    s: one.settled !== undefined,
    c: one.settled?.certificate && certificateValue(one.settled.certificate),
    v: voting && {
      p: proposalValue(voting.proposal),
      t: tableValue(voting.table),
      r: voting.round,
      v: voting.vote,
      f: voting.freezeVote && { r: voting.freezeVote.round, v: voting.freezeVote.value },
      l: voting.lock && {
        r: voting.lock.round,
        v: voting.lock.value,
        o: voting.lock.outcome,
        b: voting.lock.beacon,
      },
    },
    k: voting?.valid && encodeCbor(openedValue(voting.valid)),
  });
}

/** Reads what a voter has said in an instance. @throws {WireError} */
export function decodeInstance(input: Uint8Array): StoredInstance {
  const { i, x, s, c, v, k } = decodeAs(input, readInstanceParts);
  const voting: StoredVoting | undefined = v && {
    proposal: v.p,
    table: v.t,
    round: v.r,
    vote: v.v,
    freezeVote: v.f && { round: v.f.r, value: v.f.v },
    lock: v.l && { round: v.l.r, value: v.l.v, outcome: v.l.o, beacon: v.l.b },
    valid: k && decodeAs(k, openedReader(i)),
  };
  return { instance: i, expiresMs: x, settled: s ? { certificate: c } : undefined, voting };
}

const readDecisionParts = record({
  c: optional(readCertificate),
  o: optional(array(readOperation, LIMITS.consensusBatchMax)),
  s: optional(readEnvelope),
  e: optional(readEnvelope),
});

/** Bytes of a decision that is to be applied. */
export function encodeDecision(decision: Decision): Uint8Array {
  if ("statement" in decision) {
    return encodeCbor({ s: envelopeValue(decision.statement), e: envelopeValue(decision.record) });
  }
  return encodeCbor({ c: certificateValue(decision.certificate), o: decision.operations.map(operationValue) });
}

/** Reads a decision; says nothing about what it proves. @throws {WireError} */
export function decodeDecision(input: Uint8Array): Decision {
  const { c, o, s, e } = decodeAs(input, readDecisionParts);
  if (s && e) return { statement: s, record: e };
  if (!c || !o) throw new WireError("Cannot read decision: neither certificate nor statement");
  const hash = operationsHashOf(o.map(operationHash));
  if (o.length !== c.header.count || !equalBytes(hash, c.header.operations)) {
    throw new WireError("Cannot read decision: the operations are not those of the certificate");
  }
  return { certificate: c, operations: o };
}

/** What an earlier run left. */
export interface StoredAgreement {
  readonly instances: readonly StoredInstance[];
  readonly number: number;
  /** Highest wall clock that was ever seen: what was signed is forgotten by it. */
  readonly clockMs: number;
  /** Decisions to be applied, by name. */
  readonly handovers: ReadonlyMap<string, Decision>;
  /** Proofs of the newest record by key. */
  readonly proofs: ReadonlyMap<string, RecordProof>;
  /** Warrants of all electorates since the first, in order. */
  readonly links: readonly Uint8Array[];
  /** Keys of the store that do not read. */
  readonly unreadable: readonly string[];
}

/** Turns what agreement wants durable into puts, and knows which keys are there. */
export class AgreementStore {
  readonly #keys = new Set<string>();
  #links: readonly Uint8Array[] = [];

  /** All keys of the store that belong to agreement. */
  get keys(): readonly string[] {
    return [...this.#keys];
  }

  /**
   * Reads what an earlier run left.
   *
   * @throws {WireError} Where the number of own proposals is damaged: another one under the same number would be a fault.
   */
  load(entries: ReadonlyMap<string, Uint8Array>): StoredAgreement {
    const instances: StoredInstance[] = [];
    const handovers = new Map<string, Decision>();
    const proofs = new Map<string, RecordProof>();
    const links: [string, Uint8Array][] = [];
    const unreadable: string[] = [];
    let [number, clockMs] = [0, 0];
    for (const [key, value] of entries) {
      if (!key.startsWith("agreement/")) continue;
      this.#keys.add(key);
      if (key === NUMBER) number = decodeAs(value, uint());
      else if (key === CLOCK) clockMs = decodeAs(value, uint());
      else {
        try {
          // What was signed must read: forgetting it is what could contradict it.
          if (key.startsWith(INSTANCE)) instances.push(decodeInstance(value));
          else if (key.startsWith(HANDOVER)) handovers.set(key.slice(HANDOVER.length), decodeDecision(value));
          else if (key.startsWith(PROOF)) proofs.set(key.slice(PROOF.length), decodeProof(value));
          else if (key.startsWith(LINK)) links.push([key, value]);
        } catch (error) {
          if (!(error instanceof WireError) || key.startsWith(INSTANCE)) throw error;
          unreadable.push(key);
        }
      }
    }
    links.sort(([a], [b]) => a < b ? -1 : 1);
    this.#links = links.map(([, value]) => value);
    return { instances, number, clockMs, handovers, proofs, links: this.#links, unreadable };
  }

  /** Everything is deleted. */
  clear(): void {
    this.#keys.clear();
    this.#links = [];
  }

  /** What makes a persist effect durable, with the clock's highest value. */
  puts(effect: ConsensusEffect & { readonly type: "persist" }, clockMs: number): Put[] {
    return this.#note([
      ...effect.put.map((one): Put => [INSTANCE + toHex(one.instance), encodeInstance(one)]),
      ...effect.remove.map((one): Put => [INSTANCE + toHex(one), null]),
      ...(effect.number === undefined ? [] : [[NUMBER, encodeCbor(effect.number)] as const]),
      ...this.clock(clockMs),
    ]);
  }

  /** The clock's highest value. */
  clock(clockMs: number): Put[] {
    return this.#note([[CLOCK, encodeCbor(clockMs)]]);
  }

  /** A decision that is to be applied, or has been. */
  handover(name: string, decision: Decision | undefined): Put[] {
    return this.#note([[HANDOVER + name, decision ? encodeDecision(decision) : null]]);
  }

  /** The proof of a key's newest record. */
  proof(key: string, proof: RecordProof | undefined): Put[] {
    return this.#note([[PROOF + key, proof ? encodeProof(proof) : null]]);
  }

  /** The warrants of all electorates, those that have changed. */
  links(warrants: readonly Uint8Array[]): Put[] {
    const name = (epoch: number) => LINK + String(epoch).padStart(8, "0");
    const puts = warrants.flatMap((one, i): Put[] => {
      const before = this.#links[i];
      return before && equalBytes(before, one) ? [] : [[name(i + 1), one]];
    });
    const gone = this.#links.slice(warrants.length).map((_, i): Put => [name(warrants.length + i + 1), null]);
    this.#links = warrants;
    return this.#note([...puts, ...gone]);
  }

  #note(puts: Put[]): Put[] {
    for (const [key, value] of puts) value ? this.#keys.add(key) : this.#keys.delete(key);
    return puts;
  }
}
