/**
 * Recovery from a lost majority: the operator's word that the group goes on without some of its replicas.
 *
 * Those that were given up may still exist, and agree with each other. Whoever of them meets a survivor is shown the
 * word, signed by the operator or with the genesis key; it then forgets what it held and comes back as a new replica.
 *
 * @module
 */

import { equalBytes } from "../core/bytes.ts";
import { array, record, text, uint, WireError } from "../core/codec.ts";
import type { KeyPair } from "../core/crypto.ts";
import { type Envelope, openEnvelope, sealEnvelope } from "../core/envelope.ts";
import { readNodeId } from "../core/ids.ts";
import { LIMITS } from "../core/limits.ts";
import { configOf } from "../raft/config.ts";
import type { StoredRaft } from "../raft/effects.ts";
import type { Entry } from "../raft/messages.ts";

/** What an operator said. */
export interface RecoveryStatement {
  /** Replicas that were given up. */
  readonly without: readonly string[];
  /** Node where it was done. */
  readonly by: string;
  /** Last entry of the log there. */
  readonly index: number;
  readonly term: number;
  readonly atMs: number;
}

const TYPE = "raft-recovery/1";
/** Terms that the recovery leaves out: one that was given up may have been elected since it was last heard from. */
export const RECOVERY_TERMS = 1_000;

const readStatement = record({
  w: array(text(128), LIMITS.primaryNodesMax),
  b: readNodeId,
  i: uint(),
  m: uint(),
  t: uint(),
});

/** Signs a statement. */
export function sealRecovery(one: RecoveryStatement, networkId: Uint8Array, signer: KeyPair): Envelope {
  const value = { w: one.without, b: one.by, i: one.index, m: one.term, t: one.atMs };
  return sealEnvelope(value, { type: TYPE, networkId, signer });
}

/**
 * Reads a statement and checks who signed it.
 *
 * @param signers Keys that may: the operator's and the genesis key.
 * @throws {WireError} Where it is none, or of anybody else.
 */
export function openRecovery(
  envelope: Envelope,
  networkId: Uint8Array,
  signers: readonly Uint8Array[],
): RecoveryStatement {
  if (!signers.some((key) => equalBytes(key, envelope.signer))) {
    throw new WireError("Cannot open recovery: it is signed by neither the operator nor the genesis key");
  }
  const read = openEnvelope(envelope, { type: TYPE, networkId, reader: readStatement });
  return { without: read.w, by: read.b, index: read.i, term: read.m, atMs: read.t };
}

/**
 * What a replica goes on from when it is alone to decide: all of its log, and behind it a configuration in which it is
 * the only voter. What it held without knowing that it was committed becomes committed.
 *
 * @param self This replica.
 * @param learners Those that are left besides it.
 */
export function recovered(
  stored: StoredRaft,
  self: string,
  learners: readonly string[],
): { readonly stored: StoredRaft; readonly entry: Entry } {
  const term = stored.hardState.term + RECOVERY_TERMS;
  const lastIndex = stored.logStart.index + stored.entries.length;
  const entry: Entry = { kind: "config", term, index: lastIndex + 1, config: configOf([self], learners) };
  return {
    entry,
    stored: { ...stored, hardState: { term, votedFor: self }, entries: [...stored.entries, entry] },
  };
}
