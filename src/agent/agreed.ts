/**
 * What agreement is about: records that a certificate made, the class that each asks for, the electorate's record.
 *
 * Pure readers and rules, for those who vote, for the replicas that apply, and for whoever only verifies.
 *
 * @module
 */

import { concatBytes } from "../core/bytes.ts";
import { array, bytes, type CborValue, decodeAs, encodeCbor, record, text, uint, WireError } from "../core/codec.ts";
import { hashParts, type KeyPair } from "../core/crypto.ts";
import { type Envelope, envelopeValue, openEnvelope, readEnvelope, sealEnvelope } from "../core/envelope.ts";
import { nodeIdOf } from "../core/ids.ts";
import { LIMITS } from "../core/limits.ts";
import { OPERATION_CLASSES, type OperationClass } from "../consensus/statements.ts";
import { readTable, tableHash, tableValue, type WeightTable } from "../consensus/weights.ts";

/** Kind of the operation that writes a spore record. */
export const RECORD_PUT = "record/put";
/** Record that holds who votes. */
export const ELECTORATE_KEY = "agreed/electorate";
/** Record that holds the agreed trust scores. */
export const TRUST_KEY = "agreed/trust";
/** Newcomers of one change of the electorate, and those who leave: their proofs have to fit an operation. */
export const CHANGES_MAX = 16;

/** Content of a `record/put`. */
export interface RecordPut {
  /** A signed spore record. */
  readonly envelope: Envelope;
  /** Hash of the version that it replaces, 32 bytes; empty: nothing stands there. The state that it is verified against. */
  readonly replaces: Uint8Array;
  /** Hash of another agreed record that its content follows from; empty: none. */
  readonly basis: Uint8Array;
  /** What its content rests on: credentials, revocations. */
  readonly proofs: readonly Envelope[];
}

const hashOrNone = (value: CborValue | undefined, path: string): Uint8Array => {
  const read = bytes({ max: 32 })(value, path);
  if (read.length !== 0 && read.length !== 32) throw new WireError(`Cannot read ${path}: wanted 32 bytes or none`);
  return read;
};
const readPut = record({ e: readEnvelope, r: hashOrNone, b: hashOrNone, p: array(readEnvelope, 2 * CHANGES_MAX) });

/** The body of a `record/put`. */
export function encodeRecordPut(put: RecordPut): Uint8Array {
  return encodeCbor({
    e: envelopeValue(put.envelope),
    r: put.replaces,
    b: put.basis,
    p: put.proofs.map(envelopeValue),
  });
}

/** Reads the body of a `record/put`; says nothing about signatures. @throws {WireError} */
export function decodeRecordPut(body: Uint8Array): RecordPut {
  const { e, r, b, p } = decodeAs(body, readPut);
  return { envelope: e, replaces: r, basis: b, proofs: p };
}

/**
 * The least class that a write under a key needs, `undefined` where no certificate makes such a record: what belongs to one
 * node is that node's word. A policy may raise it, never lower it.
 */
export function requiredClass(key: string): OperationClass | undefined {
  const [zone] = key.split("/");
  switch (zone) {
    case "agreed":
      return key === TRUST_KEY || key.startsWith(`${TRUST_KEY}/`) ? "standard" : "critical";
    case "net":
      return "standard";
    case "app":
      return "fast";
    default:
      return undefined;
  }
}

/** Whether a class is at least as severe as another. */
export function suffices(given: OperationClass, wanted: OperationClass): boolean {
  return OPERATION_CLASSES.indexOf(given) >= OPERATION_CLASSES.indexOf(wanted);
}

/** Who votes, as the record {@linkcode ELECTORATE_KEY} says it. */
export interface Electorate {
  readonly table: WeightTable;
  /** Hash of the table that it follows, 32 bytes. */
  readonly previous: Uint8Array;
  /** Since when each voter of the table votes, milliseconds since the epoch, in its order. */
  readonly sinceMs: readonly number[];
}

/** The table before any was agreed: the founder alone. */
export function genesisTable(networkId: Uint8Array, founder: Uint8Array): WeightTable {
  return {
    epoch: 0,
    seed: hashParts("mycelium/electorate/genesis/v1", networkId),
    voters: [{ id: nodeIdOf(founder), publicKey: founder, seats: 1 }],
  };
}

/**
 * Seed of the table that follows one: nobody knew it before that one was decided.
 *
 * @param beacon What was opened when the preceding electorate was decided (`Certificate.beacon`), or the hash of the operator's
 * statement; empty for the first change.
 */
export function nextSeed(table: WeightTable, networkId: Uint8Array, beacon: Uint8Array): Uint8Array {
  return hashParts("mycelium/electorate/seed/v1", tableHash(table, networkId), beacon);
}

const readElectorateParts = record({
  e: uint(),
  r: bytes({ length: 32 }),
  p: bytes({ length: 32 }),
  v: array((value, path) => {
    const [key, seats, since] = array((one) => one, 3)(value, path);
    return {
      publicKey: bytes({ length: 32 })(key, `${path}.key`),
      seats: uint(LIMITS.consensusVotersMax, 1)(seats, `${path}.seats`),
      sinceMs: uint()(since, `${path}.since`),
    };
  }, LIMITS.consensusVotersMax),
});

/** The value of the record. */
export function encodeElectorate({ table, previous, sinceMs }: Electorate): Uint8Array {
  return encodeCbor({
    e: table.epoch,
    r: table.seed,
    p: previous,
    v: table.voters.map((one, i) => [one.publicKey, one.seats, sinceMs[i]!]),
  });
}

/** Reads the value of the record; order, seats and caps of the table hold. @throws {WireError} */
export function decodeElectorate(value: Uint8Array): Electorate {
  const { e, r, p, v } = decodeAs(value, readElectorateParts);
  const voters = v.map((one) => ({ id: nodeIdOf(one.publicKey), publicKey: one.publicKey, seats: one.seats }));
  const table = { epoch: e, seed: r, voters };
  // The same checks as for a table that travels by itself.
  readTable(tableValue(table), "electorate");
  return { table, previous: p, sinceMs: v.map((one) => one.sinceMs) };
}

/** An operator's word that an electorate takes the place of one whose quorum is lost. */
export interface EmergencyStatement {
  /** Hash of the spore record that holds the new electorate, 32 bytes. */
  readonly record: Uint8Array;
  /** Hash of the table that it supersedes, 32 bytes. */
  readonly supersedes: Uint8Array;
  readonly reason: string;
  readonly issuedMs: number;
}

const EMERGENCY_TYPE = "agreement-emergency/1";
const readEmergency = record({
  h: bytes({ length: 32 }),
  t: bytes({ length: 32 }),
  c: text(200),
  i: uint(),
});

/** Signs a statement with the operator's or the genesis key. */
export function sealEmergency(one: EmergencyStatement, networkId: Uint8Array, signer: KeyPair): Envelope {
  return sealEnvelope({ h: one.record, t: one.supersedes, c: one.reason, i: one.issuedMs }, {
    type: EMERGENCY_TYPE,
    networkId,
    signer,
  });
}

/** Reads a statement and checks its signature; whose key it is, the caller checks. @throws {WireError} */
export function openEmergency(envelope: Envelope, networkId: Uint8Array): EmergencyStatement {
  const { h, t, c, i } = openEnvelope(envelope, { type: EMERGENCY_TYPE, networkId, reader: readEmergency });
  return { record: h, supersedes: t, reason: c, issuedMs: i };
}

/** The hash that seeds what follows an emergency, 32 bytes. */
export function emergencyHash(envelope: Envelope): Uint8Array {
  return hashParts("mycelium/electorate/emergency/v1", concatBytes(envelope.payload, envelope.signer));
}
