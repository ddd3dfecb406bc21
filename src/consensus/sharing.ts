/**
 * Shamir's secret sharing over GF(256), byte by byte, with coefficients from a key stream so that the same secret gives the same shares.
 *
 * Field: polynomial x^8 + x^4 + x^3 + x + 1 (AES's), generator 3. Source: A. Shamir, "How to share a secret", 1979.
 * Table look-ups are not constant in time; who can measure a voter's cache already runs on it.
 *
 * @module
 */

import { assert } from "../core/assert.ts";
import { hkdfSha256 } from "../core/crypto.ts";

/** Bytes of a secret and of each of its shares. */
export const SECRET_BYTES = 32;
/** Shares of one secret, at most: the points of the field but 0. */
export const SHARES_MAX = 255;

const EXP = new Uint8Array(510);
const LOG = new Uint8Array(256);
for (let i = 0, value = 1; i < 255; i++) {
  EXP[i] = value;
  EXP[i + 255] = value;
  LOG[value] = i;
  value ^= value << 1 ^ (value & 0x80 ? 0x11b : 0);
}

function multiply(a: number, b: number): number {
  return a === 0 || b === 0 ? 0 : EXP[LOG[a]! + LOG[b]!]!;
}

/**
 * Splits a secret: any `threshold` of the shares give it back, fewer say nothing about it to who cannot try all secrets.
 *
 * @param secret 32 bytes of full entropy: the other coefficients are derived from it.
 * @param count Shares, 1 to 255.
 * @param threshold 1 to `count`.
 * @param info What the sharing is for; goes into the derivation.
 * @returns Share i belongs to the point i + 1.
 */
export function splitSecret(secret: Uint8Array, count: number, threshold: number, info: string): readonly Uint8Array[] {
  assert(secret.length === SECRET_BYTES, `secret has ${secret.length} bytes, wanted ${SECRET_BYTES}`);
  assert(count >= 1 && count <= SHARES_MAX, `${count} shares, 1 to ${SHARES_MAX}`);
  assert(threshold >= 1 && threshold <= count, `threshold ${threshold} of ${count} shares`);
  const coefficients = threshold === 1
    ? new Uint8Array(0)
    : hkdfSha256(secret, `mycelium/consensus/shares/v1 ${info}`, (threshold - 1) * SECRET_BYTES);
  const shares: Uint8Array[] = [];
  for (let point = 1; point <= count; point++) {
    const share = new Uint8Array(SECRET_BYTES);
    const log = LOG[point]!;
    for (let i = 0; i < SECRET_BYTES; i++) {
      // Horner's rule, from the highest coefficient down to the secret.
      let value = 0;
      for (let at = coefficients.length - SECRET_BYTES + i; at >= 0; at -= SECRET_BYTES) {
        value = (value === 0 ? 0 : EXP[LOG[value]! + log]!) ^ coefficients[at]!;
      }
      share[i] = (value === 0 ? 0 : EXP[LOG[value]! + log]!) ^ secret[i]!;
    }
    shares.push(share);
  }
  return shares;
}

/**
 * The secret at 0 of the polynomial through these points. Wrong shares give a wrong secret: the caller checks it.
 *
 * @param shares By point, 1 to 255; as many as the threshold, distinct by being keys.
 */
export function joinShares(shares: ReadonlyMap<number, Uint8Array>): Uint8Array {
  assert(shares.size >= 1, "no shares");
  const secret = new Uint8Array(SECRET_BYTES);
  for (const [point, share] of shares) {
    assert(
      point >= 1 && point <= SHARES_MAX && share.length === SECRET_BYTES,
      `a share at point ${point} is malformed`,
    );
    let factor = 1;
    for (const other of shares.keys()) {
      if (other !== point) factor = multiply(factor, EXP[LOG[other]! + 255 - LOG[other ^ point]!]!);
    }
    for (let i = 0; i < SECRET_BYTES; i++) secret[i] = secret[i]! ^ multiply(factor, share[i]!);
  }
  return secret;
}
