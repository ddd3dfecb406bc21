/** Nodes and offences for the tests of trust. */

import { nodeIdOf } from "../../src/core/ids.ts";
import type { TrustInputs, TrustState } from "../../src/trust/agreed.ts";
import { nextTrust, trustHash } from "../../src/trust/agreed.ts";
import type { Offence, OffenceKind } from "../../src/trust/offence.ts";

export const FOUNDED_MS = 1_800_000_000_000;
export const DAY_MS = 86_400_000;

/** A public key of its own for each number. */
export function keyOf(n: number): Uint8Array {
  const key = new Uint8Array(32).fill(7);
  new DataView(key.buffer).setUint32(0, n);
  return key;
}

export function idOf(n: number): string {
  return nodeIdOf(keyOf(n));
}

/** An offence; `deed` tells those of one node apart. */
export function offence(n: number, kind: OffenceKind, deed = 0, atMs = FOUNDED_MS): Offence {
  const id = new Uint8Array(16);
  new DataView(id.buffer).setUint32(0, n);
  new DataView(id.buffer).setUint32(4, deed);
  return { id, nodeId: idOf(n), kind, atMs };
}

/** The next state, with what it lists left out: tests of the rule alone. */
export function step(state: TrustState, inputs: Partial<TrustInputs> & { readonly atMs: number }): TrustState {
  const basis = { previous: trustHash(state), proofs: [], certificates: [], absent: [] };
  return nextTrust(state, { offences: [], participations: [], absent: [], voting: state.voting, ...inputs }, basis);
}

/** A certificate that these nodes have signed. */
export function signedBy(expiresMs: number, ...nodes: readonly number[]) {
  return { instance: new Uint8Array(32), expiresMs, signed: nodes.map(idOf) };
}
