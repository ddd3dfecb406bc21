/**
 * Changes of the policy carry an operator's signature. Agreement says that a record came about in order; that somebody
 * who may wanted it is said by his key, so that no node, and no number of nodes, gives roles by itself.
 *
 * @module
 */

import { equalBytes, toHex } from "../core/bytes.ts";
import { bytes, type CborValue, decodeAs, encodeCbor, record, text, uint, WireError } from "../core/codec.ts";
import { sha256 } from "../core/crypto.ts";
import { type Envelope, openEnvelope, signedMessage } from "../core/envelope.ts";
import { decodeBinding } from "./bindings.ts";
import { decide, type Need, type Subject } from "./decide.ts";
import { type AccessPolicy, BINDING_PREFIX, ROLE_PREFIX } from "./policy.ts";
import { decodeRole } from "./roles.ts";

/** A change as an operator signs it. */
export interface PolicyChange {
  /** Key of the record. */
  readonly key: string;
  /** SHA-256 of the new value; empty: the record is deleted. */
  readonly valueHash: Uint8Array;
  /** By the clock of the node where it was made: at most {@linkcode CHANGE_MS} away from the date of the record. */
  readonly issuedMs: number;
}

/** The policy of trust: least scores and whom a person vouches for. Its change is signed as those of roles are. */
export const TRUST_POLICY_KEY = "agreed/policy";
/** Type of its envelope. */
export const CHANGE_TYPE = "access-change/1";
/** Time in which a signed change becomes a record, or counts no longer. */
export const CHANGE_MS: number = 10 * 60_000;

const readChange = record({
  k: text(200),
  h: (value, path) => {
    const read = bytes({ max: 32 })(value, path);
    if (read.length !== 0 && read.length !== 32) throw new WireError(`Cannot read ${path}: wanted 32 bytes or none`);
    return read;
  },
  i: uint(),
});

/** The change of a key to a value. */
export function policyChange(key: string, value: Uint8Array | undefined, issuedMs: number): PolicyChange {
  return { key, valueHash: value ? sha256(value) : new Uint8Array(0), issuedMs };
}

/** A change as a value for {@linkcode encodeCbor}. */
export function changeValue(change: PolicyChange): CborValue {
  return { k: change.key, h: change.valueHash, i: change.issuedMs };
}

/** The payload of its envelope. */
export function encodeChange(change: PolicyChange): Uint8Array {
  return encodeCbor(changeValue(change));
}

/** Reads such a payload. @throws {WireError} */
export function decodeChange(payload: Uint8Array): PolicyChange {
  const { k, h, i } = decodeAs(payload, readChange, 512);
  return { key: k, valueHash: h, issuedMs: i };
}

/** What an operator key signs for a change: as for every record, a hash of 32 bytes, which is nothing in any protocol of SSH. */
export function changeMessage(payload: Uint8Array, networkId: Uint8Array): Uint8Array {
  return signedMessage(networkId, CHANGE_TYPE, payload);
}

/** A record of the policy, as it is to be. */
export interface ProposedRecord {
  readonly key: string;
  /** Missing: it is deleted. */
  readonly value: Uint8Array | undefined;
  /** Date of the record. */
  readonly issuedMs: number;
  /** Date of what stands there now; missing: nothing does. */
  readonly currentMs: number | undefined;
}

/**
 * What a voter says of a record of the policy. `later`: the key that signed it is not known here yet.
 *
 * @param proofs Envelopes that came with it; one of them is the change, signed by who may.
 */
export function judgeChange(
  proposed: ProposedRecord,
  proofs: readonly Envelope[],
  options: { readonly networkId: Uint8Array; readonly policy: AccessPolicy },
): "accept" | "refuse" | "later" {
  const { key, value, issuedMs, currentMs } = proposed;
  if (!reads(key, value)) return "refuse";
  // One too many would count on some nodes and not on others, by the order in which they heard of it.
  if (value && key !== TRUST_POLICY_KEY && !options.policy.hasRoom(key)) return "refuse";
  const wanted = policyChange(key, value, 0);
  for (const envelope of proofs) {
    if (envelope.type !== CHANGE_TYPE) continue;
    let change: PolicyChange;
    try {
      const { k, h, i } = openEnvelope(envelope, {
        type: CHANGE_TYPE,
        networkId: options.networkId,
        reader: readChange,
      });
      change = { key: k, valueHash: h, issuedMs: i };
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      return "refuse";
    }
    if (change.key !== key || !equalBytes(change.valueHash, wanted.valueHash)) continue;
    // One that was signed before what stands there now was meant for something else: it is not taken a second time.
    if (Math.abs(issuedMs - change.issuedMs) > CHANGE_MS || (currentMs ?? -1) >= change.issuedMs) return "refuse";
    const id = toHex(envelope.signer);
    if (!options.policy.knowsOperator(id, issuedMs)) return "later";
    return maySign(id, key, options.policy, issuedMs) ? "accept" : "refuse";
  }
  return "refuse";
}

/** Whether an operator's key may sign changes of a record. */
export function maySign(key: string, record: string, policy: AccessPolicy, nowMs: number): boolean {
  // The signature is over exactly this change: it counts as a second factor that is shown with it.
  const subject: Subject = { kind: "operator", id: key, name: "", secondFactor: "fresh" };
  return decide(subject, changeNeed(record), policy, nowMs).ok;
}

/** What a change of a record needs. */
export function changeNeed(record: string): Need {
  return { permission: record === TRUST_POLICY_KEY ? "policy.write" : "access.write", danger: true };
}

/** Whether a record of the policy reads as one. */
function reads(key: string, value: Uint8Array | undefined): boolean {
  // What it says, whoever knows what trust is checks besides.
  if (key === TRUST_POLICY_KEY) return value !== undefined;
  const isRole = key.startsWith(ROLE_PREFIX);
  if (!isRole && !key.startsWith(BINDING_PREFIX)) return false;
  const name = key.slice(isRole ? ROLE_PREFIX.length : BINDING_PREFIX.length);
  if (!value) return true;
  try {
    if (isRole) decodeRole(name, value);
    else decodeBinding(name, value);
    return true;
  } catch (error) {
    if (error instanceof WireError) return false;
    throw error;
  }
}
