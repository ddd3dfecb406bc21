/**
 * Offences: faults that anybody can check, as trust counts them. What proves one lies with who checks it; here is what it
 * comes to.
 *
 * @module
 */

import { bytes, type CborValue, oneOf, type Reader, record, uint } from "../core/codec.ts";
import { readNodeId } from "../core/ids.ts";
import { compareBytes } from "../core/bytes.ts";

/**
 * What kind of fault. *safety*: no honest node does it, whatever the network does. *vote*: opened something else than
 * what was decided. *withheld*: committed and had to be recovered. *words*: two signed records under one number, which a
 * machine that was cloned or set back does as well.
 */
export type OffenceKind = "safety" | "vote" | "withheld" | "words";
/** All kinds, the heaviest first. */
export const OFFENCE_KINDS: readonly OffenceKind[] = ["safety", "vote", "withheld", "words"];

/** A proved fault. */
export interface Offence {
  /** What was done, not how it was proved: two proofs of one deed have one id. 16 bytes. */
  readonly id: Uint8Array;
  readonly nodeId: string;
  readonly kind: OffenceKind;
  /** When, by a clock that is signed: of the instance or of the record. Milliseconds. */
  readonly atMs: number;
}

/**
 * Share of the score that a fault costs, ppm. Withholding costs what a wrong vote does: otherwise it would be the way out.
 * A safety fault costs everything, for good.
 */
export const LOSS_PPM: Readonly<Record<OffenceKind, number>> = {
  safety: 1_000_000,
  vote: 400_000,
  withheld: 400_000,
  words: 400_000,
};

/** Order of offences: by id. */
export function compareOffences(a: Offence, b: Offence): number {
  return compareBytes(a.id, b.id);
}

const readParts = record({ i: bytes({ length: 16 }), n: readNodeId, k: oneOf(OFFENCE_KINDS), t: uint(2 ** 48) });

/** Reads an offence. */
export const readOffence: Reader<Offence> = (value, path) => {
  const { i, n, k, t } = readParts(value, path);
  return { id: i, nodeId: n, kind: k, atMs: t };
};

/** An offence as a value for `encodeCbor`. */
export function offenceValue(one: Offence): CborValue {
  return { i: one.id, n: one.nodeId, k: one.kind, t: one.atMs };
}
