/**
 * Decisions about a split: which of two epochs of one number counts.
 *
 * The chain of authority refuses to merge with another one that went on differently from some epoch on. That takes the
 * genesis key on both sides (`authority recover` on each half), so only the genesis key can end it: it names the epoch
 * that counts. Whoever followed the other half adopts the named one.
 *
 * @module
 */

import { equalBytes } from "../core/bytes.ts";
import { bytes, optional, record, uint, WireError } from "../core/codec.ts";
import type { KeyPair } from "../core/crypto.ts";
import { type Envelope, openEnvelope, sealEnvelope } from "../core/envelope.ts";
import { EPOCHS_MAX } from "./authority.ts";

/** Which of two halves counts. */
export interface Decision {
  /** Number of the epoch that is named. */
  readonly epoch: number;
  /** Hash of that epoch, 32 bytes. */
  readonly hash: Uint8Array;
  /** Rises with each decision: of two the higher counts. A clock, milliseconds since the epoch. */
  readonly seq: number;
  /**
   * When the Primary Spore of the half that counts was last recovered from a lost majority, milliseconds since the
   * epoch; 0 for never; missing where the node that decided held no state of it. It tells the other half whether its
   * replicas are of the same history.
   */
  readonly recoveredMs?: number | undefined;
}

const TYPE = "decision/1";

const readDecision = record({ e: uint(EPOCHS_MAX, 1), h: bytes({ length: 32 }), q: uint(), r: optional(uint()) });

/** Signs a decision with the genesis key. */
export function sealDecision(decision: Decision, networkId: Uint8Array, genesis: KeyPair): Envelope {
  const value = { e: decision.epoch, h: decision.hash, q: decision.seq, r: decision.recoveredMs };
  readDecision(value, TYPE);
  return sealEnvelope(value, { type: TYPE, networkId, signer: genesis });
}

/**
 * Reads a decision and checks that the genesis key has signed it.
 *
 * @throws {WireError} Where that is not so.
 */
export function openDecision(envelope: Envelope, networkId: Uint8Array, genesisKey: Uint8Array): Decision {
  if (!equalBytes(envelope.signer, genesisKey)) {
    throw new WireError("Cannot open decision: it is not signed by the genesis key");
  }
  const read = openEnvelope(envelope, { type: TYPE, networkId, reader: readDecision });
  return { epoch: read.e, hash: read.h, seq: read.q, ...(read.r === undefined ? {} : { recoveredMs: read.r }) };
}
