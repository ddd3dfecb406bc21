/** Revocations: what an issuer took back, for good. A set that only grows. @module */

import { toHex } from "../core/bytes.ts";
import { bytes, oneOf, record, text, uint, WireError } from "../core/codec.ts";
import type { KeyPair } from "../core/crypto.ts";
import { type Envelope, openEnvelope, sealEnvelope } from "../core/envelope.ts";
import { LIMITS } from "../core/limits.ts";

/** What can be taken back: a node for ever, or an invite. */
export type RevocationKind = "node" | "invite";

/** One revocation. */
export interface Revocation {
  readonly kind: RevocationKind;
  /** Node key (32 bytes) or invite id (16 bytes). */
  readonly subject: Uint8Array;
  /** For people, at most 200 characters. */
  readonly reason: string;
  readonly atMs: number;
}

const TYPE = "revocation/1";

const readRevocation = record({
  kind: oneOf(["node", "invite"]),
  subject: bytes({ max: 32 }),
  reason: text(200),
  at: uint(),
});

/** Signs a revocation. */
export function createRevocation(revocation: Revocation, networkId: Uint8Array, issuer: KeyPair): Envelope {
  const { kind, subject, reason, atMs } = revocation;
  return sealEnvelope({ kind, subject, reason, at: atMs }, { type: TYPE, networkId, signer: issuer });
}

/**
 * Reads a revocation and checks its signature, not whether its signer may issue.
 *
 * @throws {WireError} When it is malformed or not validly signed.
 */
export function openRevocation(envelope: Envelope, networkId: Uint8Array): Revocation {
  const { kind, subject, reason, at } = openEnvelope(envelope, { type: TYPE, networkId, reader: readRevocation });
  const length = kind === "node" ? 32 : 16;
  if (subject.length !== length) {
    throw new WireError(`Cannot open revocation: its subject has ${subject.length} bytes, wanted ${length}`);
  }
  return { kind, subject, reason, atMs: at };
}

/** The revocations that a node knows. Full at `LIMITS.revocationsMax`: a further one is refused, never an old one forgotten. */
export class RevocationSet {
  readonly #known = new Map<string, { readonly revocation: Revocation; readonly envelope: Envelope }>();

  /** Adds one that was opened and whose signer counts. Returns whether it is new. */
  add(revocation: Revocation, envelope: Envelope): boolean {
    const key = keyOf(revocation.kind, revocation.subject);
    if (this.#known.has(key) || this.#known.size >= LIMITS.revocationsMax) return false;
    this.#known.set(key, { revocation, envelope });
    return true;
  }

  /** Puts another signature under a known revocation: the issuer that signed it may leave the chain. */
  resign(revocation: Revocation, envelope: Envelope): void {
    const key = keyOf(revocation.kind, revocation.subject);
    if (this.#known.has(key)) this.#known.set(key, { revocation, envelope });
  }

  /** The revocation of a subject, if any. */
  get(kind: RevocationKind, subject: Uint8Array): Revocation | undefined {
    // Asked for every member at every step, and nearly always there is none at all.
    return this.#known.size === 0 ? undefined : this.#known.get(keyOf(kind, subject))?.revocation;
  }

  /** All of them with their names, in order of arrival. */
  entries(): IterableIterator<[string, { readonly revocation: Revocation; readonly envelope: Envelope }]> {
    return this.#known.entries();
  }

  /** How many. */
  get size(): number {
    return this.#known.size;
  }
}

function keyOf(kind: RevocationKind, subject: Uint8Array): string {
  return `${kind}/${toHex(subject)}`;
}
