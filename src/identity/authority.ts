/**
 * The chain of authority: genesis → set of issuers, epoch by epoch, each signed by more than two thirds
 * of the one before (or by the genesis key, which is how an operator recovers a network that lost them).
 *
 * A device checks any record of the network with this chain and nothing else.
 *
 * @module
 */

import { assert } from "../core/assert.ts";
import { compareBytes, equalBytes } from "../core/bytes.ts";
import {
  array,
  bytes,
  type CborValue,
  decodeAs,
  encodeCbor,
  type Reader,
  record,
  uint,
  WireError,
} from "../core/codec.ts";
import { hashParts, type KeyPair, signBytes, verifySignature } from "../core/crypto.ts";
import { LIMITS } from "../core/limits.ts";
import { superMajority } from "../core/quorum.ts";

/** One set of issuers. */
export interface AuthorityEpoch {
  /** 1 for the first, then without gaps. */
  readonly epoch: number;
  /** Hash of the epoch before; 32 zero bytes for the first. */
  readonly previous: Uint8Array;
  /** Ed25519 node keys of the Sclerotia that may issue, sorted, 1 to `LIMITS.issuersMax`. */
  readonly issuers: readonly Uint8Array[];
  /** Wall clock of the proposer. */
  readonly createdMs: number;
}

/** An epoch with the signatures gathered for it. */
export interface SignedEpoch {
  readonly payload: Uint8Array;
  readonly signatures: readonly { readonly key: Uint8Array; readonly signature: Uint8Array }[];
}

/** How far clocks of honest nodes may differ. */
export const CLOCK_SKEW_MS: number = 5 * 60_000;

/** Epochs that a chain may have. A network that changes its issuers daily stays below it for a decade. */
export const EPOCHS_MAX = 4_096;

const readEpoch = record({
  epoch: uint(EPOCHS_MAX, 1),
  prev: bytes({ length: 32 }),
  issuers: array(bytes({ length: 32 }), LIMITS.issuersMax),
  created: uint(),
});

/** Encodes an epoch for signing; sorts the issuers, which must be distinct. */
export function encodeEpoch(epoch: AuthorityEpoch): Uint8Array {
  assert(epoch.issuers.length >= 1 && epoch.issuers.length <= LIMITS.issuersMax, "an epoch has 1 to 7 issuers");
  const issuers = [...epoch.issuers].sort(compareBytes);
  assert(
    issuers.every((key, i) => i === 0 || !equalBytes(issuers[i - 1]!, key)),
    "the issuers of an epoch are distinct",
  );
  return encodeCbor({
    epoch: epoch.epoch,
    prev: epoch.previous,
    issuers,
    created: epoch.createdMs,
  });
}

/**
 * Reads an encoded epoch. Says nothing about its signatures.
 *
 * @throws {WireError} When it is malformed, or its issuers are none, unsorted or twice the same.
 */
export function decodeEpoch(payload: Uint8Array): AuthorityEpoch {
  const read = decodeAs(payload, readEpoch, LIMITS.recordBytesMax);
  if (read.issuers.length === 0) throw new WireError("Cannot read authority epoch: no issuers");
  for (let i = 1; i < read.issuers.length; i++) {
    if (compareBytes(read.issuers[i - 1]!, read.issuers[i]!) >= 0) {
      throw new WireError("Cannot read authority epoch: issuers are not sorted or not distinct");
    }
  }
  return { epoch: read.epoch, previous: read.prev, issuers: read.issuers, createdMs: read.created };
}

/** One signature over an encoded epoch. */
export function signEpoch(networkId: Uint8Array, payload: Uint8Array, key: KeyPair): SignedEpoch["signatures"][number] {
  return { key: key.publicKey, signature: signBytes(key, signedBytes(networkId, payload)) };
}

/** Hash of an encoded epoch, 32 bytes: what the next one names. */
export function epochHash(payload: Uint8Array): Uint8Array {
  return hashParts("mycelium/authority/v1", payload);
}

/** Whether one signature over an epoch is valid. */
export function verifyEpochSignature(
  networkId: Uint8Array,
  payload: Uint8Array,
  one: SignedEpoch["signatures"][number],
): boolean {
  return verifySignature(one.key, signedBytes(networkId, payload), one.signature);
}

/** A verified chain of epochs. Immutable. */
export class AuthorityChain {
  readonly #epochs: readonly { readonly signed: SignedEpoch; readonly epoch: AuthorityEpoch }[];

  private constructor(
    readonly networkId: Uint8Array,
    readonly genesisKey: Uint8Array,
    epochs: readonly { readonly signed: SignedEpoch; readonly epoch: AuthorityEpoch }[],
  ) {
    this.#epochs = epochs;
  }

  /** The chain before its first epoch: only the genesis key counts. */
  static empty(networkId: Uint8Array, genesisKey: Uint8Array): AuthorityChain {
    return new AuthorityChain(networkId, genesisKey, []);
  }

  /** Number of the newest epoch; 0 where there is none. */
  get epoch(): number {
    return this.#epochs.length;
  }

  /** Issuers of the newest epoch, sorted. */
  get issuers(): readonly Uint8Array[] {
    return this.#epochs.at(-1)?.epoch.issuers ?? [];
  }

  /** Hash that the next epoch has to name. */
  get head(): Uint8Array {
    const last = this.#epochs.at(-1);
    return last ? epochHash(last.signed.payload) : new Uint8Array(32);
  }

  /** Hash of an epoch of the chain, or `undefined` where it has none of that number. */
  hashAt(epoch: number): Uint8Array | undefined {
    const one = this.#epochs[epoch - 1];
    return one ? epochHash(one.signed.payload) : undefined;
  }

  /** Issuers of an epoch of the chain, sorted; none where it has no epoch of that number. */
  issuersAt(epoch: number): readonly Uint8Array[] {
    return this.#epochs[epoch - 1]?.epoch.issuers ?? [];
  }

  /** The chain as it was when `epoch` was its newest. */
  upTo(epoch: number): AuthorityChain {
    return new AuthorityChain(this.networkId, this.genesisKey, this.#epochs.slice(0, Math.max(0, epoch)));
  }

  /** Signed epochs from number `first` on. */
  since(first: number): readonly SignedEpoch[] {
    return this.#epochs.slice(Math.max(0, first - 1)).map((one) => one.signed);
  }

  /** Signatures that the next epoch needs where the genesis key does not sign. */
  get threshold(): number {
    return this.issuers.length === 0 ? 1 : superMajority(this.issuers.length);
  }

  /**
   * Whether records of this issuer count: it is in the newest epoch or in the one before it, so that what
   * was issued just before a change does not fail while the change spreads.
   *
   * An issuer that was taken out, perhaps because its key was stolen, must not go on issuing. Give `issuedMs`
   * wherever a record carries its date and its life is bounded: then one of the epoch before counts only
   * with a date up to {@linkcode CLOCK_SKEW_MS} after the change, so that back-dating gains a thief no more
   * than what is left of one record's life.
   *
   * @param issuedMs Date of the record, milliseconds since the epoch; missing: whenever.
   */
  counts(issuer: Uint8Array, issuedMs?: number): boolean {
    if (this.isIssuer(issuer)) return true;
    const changedMs = this.#epochs.at(-1)?.epoch.createdMs ?? 0;
    if (issuedMs !== undefined && issuedMs > changedMs + CLOCK_SKEW_MS) return false;
    return this.#epochs.at(-2)?.epoch.issuers.some((key) => equalBytes(key, issuer)) ?? false;
  }

  /** Whether this key is an issuer now. */
  isIssuer(key: Uint8Array): boolean {
    return this.issuers.some((issuer) => equalBytes(issuer, key));
  }

  /**
   * The chain with one more epoch.
   *
   * @throws {WireError} When the epoch does not follow this chain or is not signed by enough of its issuers.
   */
  extended(signed: SignedEpoch): AuthorityChain {
    const epoch = decodeEpoch(signed.payload);
    if (epoch.epoch !== this.epoch + 1 || !equalBytes(epoch.previous, this.head)) {
      throw new WireError(`Cannot accept authority epoch ${epoch.epoch}: it does not follow epoch ${this.epoch}`);
    }
    const valid = signed.signatures.filter((one) => verifyEpochSignature(this.networkId, signed.payload, one));
    const byGenesis = valid.some((one) => equalBytes(one.key, this.genesisKey));
    const signers = this.issuers.filter((issuer) => valid.some((one) => equalBytes(one.key, issuer)));
    if (!byGenesis && (this.issuers.length === 0 || signers.length < this.threshold)) {
      throw new WireError(
        `Cannot accept authority epoch ${epoch.epoch}: signed by ${signers.length} of ${this.issuers.length} issuers, wanted ${this.threshold}`,
      );
    }
    return new AuthorityChain(this.networkId, this.genesisKey, [...this.#epochs, { signed, epoch }]);
  }

  /**
   * The chain with those of the given epochs that are new to it; what it knows already is passed over.
   *
   * @throws {WireError} When one that is new does not follow, or contradicts one that is known.
   */
  merged(epochs: readonly SignedEpoch[]): AuthorityChain {
    // deno-lint-ignore no-this-alias
    let chain: AuthorityChain = this;
    for (const signed of epochs) {
      const { epoch } = decodeEpoch(signed.payload);
      const known = chain.#epochs[epoch - 1];
      if (!known) chain = chain.extended(signed);
      else if (!equalBytes(epochHash(known.signed.payload), epochHash(signed.payload))) {
        throw new WireError(`Cannot accept authority epoch ${epoch}: it contradicts the one that is known`);
      }
    }
    return chain;
  }
}

const readSigned = record({
  p: bytes({ max: LIMITS.recordBytesMax }),
  s: array(record({ k: bytes({ length: 32 }), s: bytes({ length: 64 }) }), LIMITS.issuersMax + 1),
});

/** Reads a signed epoch from a decoded value. Says nothing about its signatures. */
export const readSignedEpoch: Reader<SignedEpoch> = (value, path) => {
  const read = readSigned(value, path);
  return { payload: read.p, signatures: read.s.map((one) => ({ key: one.k, signature: one.s })) };
};

/** A signed epoch as a value for the codec. */
export function signedEpochValue(signed: SignedEpoch): CborValue {
  return { p: signed.payload, s: signed.signatures.map((one) => ({ k: one.key, s: one.signature })) };
}

function signedBytes(networkId: Uint8Array, payload: Uint8Array): Uint8Array {
  return hashParts("mycelium/authority-signature/v1", networkId, payload);
}
