/**
 * The few pure cryptographic functions that the protocols need.
 *
 * Synchronous `node:crypto` is the fastest of all that runs here (one SHA-256 of 256 bytes takes 4 µs,
 * one Ed25519 verification 50 µs); @noble/hashes is the independent oracle of the tests.
 *
 * @module
 */

import {
  createHash,
  createHmac,
  createPrivateKey,
  createPublicKey,
  type KeyObject,
  sign,
  timingSafeEqual,
  verify,
} from "node:crypto";
import { Buffer } from "node:buffer";
import { assert } from "./assert.ts";
import { concatBytes, equalBytes, utf8 } from "./bytes.ts";

/** SHA-256 of the parts joined, 32 bytes. */
export function sha256(...parts: readonly Uint8Array[]): Uint8Array {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return new Uint8Array(hash.digest());
}

/**
 * SHA-256 with domain separation: each part is preceded by its length, so that no two lists of parts
 * give the same input.
 *
 * @param domain What is hashed, for example `mycelium/genesis/v1`.
 * @param parts The parts, in order.
 */
export function hashParts(domain: string, ...parts: readonly Uint8Array[]): Uint8Array {
  const prefix = prefixOf(domain);
  let size = prefix.length;
  for (const part of parts) size += 4 + part.length;
  if (size > JOIN_BYTES_MAX) return sha256(prefix, ...parts.flatMap((part) => [lengthOf(part), part]));
  // One update of small parts that were joined costs half of many updates.
  const joined = new Uint8Array(size);
  joined.set(prefix);
  let at = prefix.length;
  for (const { length } of parts) {
    joined[at] = length >>> 24;
    joined[at + 1] = length >>> 16;
    joined[at + 2] = length >>> 8;
    joined[at + 3] = length;
    at += 4 + length;
  }
  at = prefix.length + 4;
  for (const part of parts) {
    joined.set(part, at);
    at += 4 + part.length;
  }
  return new Uint8Array(createHash("sha256").update(joined).digest());
}

/** Parts of a hash that are joined first. */
const JOIN_BYTES_MAX = 64 << 10;
/** Domains behind their length; they are constants of the program, and few. */
const PREFIXES = new Map<string, Uint8Array>();

function prefixOf(domain: string): Uint8Array {
  let prefix = PREFIXES.get(domain);
  if (!prefix) {
    const name = utf8(domain);
    prefix = concatBytes(lengthOf(name), name);
    if (PREFIXES.size < 256) PREFIXES.set(domain, prefix);
  }
  return prefix;
}

/** HMAC-SHA-256 (RFC 2104), 32 bytes. */
export function hmacSha256(key: Uint8Array, ...parts: readonly Uint8Array[]): Uint8Array {
  const mac = createHmac("sha256", key);
  for (const part of parts) mac.update(part);
  return new Uint8Array(mac.digest());
}

/** HMAC (RFC 2104) over another hash: what authenticator apps speak is SHA-1, for which no weakness of HMAC is known. */
export function hmacOf(hash: "sha1" | "sha256" | "sha512", key: Uint8Array, message: Uint8Array): Uint8Array {
  return new Uint8Array(createHmac(hash, key).update(message).digest());
}

/** Whether two secrets are the same, in a time that tells nothing but whether their lengths are. */
export function equalSecrets(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && timingSafeEqual(a, b);
}

/**
 * HKDF-SHA-256 (RFC 5869) with an empty salt.
 *
 * @param secret Input keying material, at least 16 bytes.
 * @param info What the key is for, for example `mycelium/beacon/v1`.
 * @param length Bytes wanted, 1 to 8160.
 */
export function hkdfSha256(secret: Uint8Array, info: string, length = 32): Uint8Array {
  assert(secret.length >= 16, `hkdf secret has ${secret.length} bytes, at least 16`);
  assert(length >= 1 && length <= 8160, `hkdf length is ${length}, 1 to 8160`);
  const pseudoRandomKey = hmacSha256(new Uint8Array(32), secret);
  const out = new Uint8Array(length);
  let block: Uint8Array = new Uint8Array(0);
  for (let at = 0, counter = 1; at < length; at += 32, counter++) {
    block = hmacSha256(pseudoRandomKey, block, utf8(info), Uint8Array.of(counter));
    out.set(block.subarray(0, Math.min(32, length - at)), at);
  }
  return out;
}

/** An Ed25519 key pair (RFC 8032): the seed is the secret. */
export interface KeyPair {
  /** 32 secret bytes. Never logged, never sent. */
  readonly seed: Uint8Array;
  /** 32 bytes. */
  readonly publicKey: Uint8Array;
}

/** The key pair of a seed of 32 random bytes. */
export function keyPairFromSeed(seed: Uint8Array): KeyPair {
  assert(seed.length === 32, `seed has ${seed.length} bytes, wanted 32`);
  // A copy: the caller may use its array again, and the parsed key is kept under this one.
  const own = seed.slice();
  const der = createPublicKey(privateKey(own)).export({ format: "der", type: "spki" });
  return { seed: own, publicKey: new Uint8Array(der.subarray(der.length - 32)) };
}

/** Ed25519 signature of a message, 64 bytes. */
export function signBytes(pair: KeyPair, message: Uint8Array): Uint8Array {
  return new Uint8Array(sign(null, message, privateKey(pair.seed)));
}

/** Whether `signature` is `publicKey`'s over `message`. Never throws; a malformed key or signature is simply not valid. */
export function verifySignature(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean {
  if (publicKey.length !== 32 || signature.length !== 64) return false;
  // A point of small order makes signatures that fit many messages (RFC 8032, section 8.9 leaves that to the caller).
  if (SMALL_ORDER.some((point) => equalBytes(point, publicKey)) || !isCanonicalPoint(publicKey)) return false;
  // Records come again and again, with every comparison of notes: to know one by its hash takes a tenth of the time.
  const name = createHash("sha256").update(publicKey).update(signature).update(message).digest("base64");
  if (VERIFIED.has(name)) return true;
  try {
    if (!verify(null, message, publicKeyObject(publicKey), signature)) return false;
  } catch {
    return false;
  }
  if (VERIFIED.size >= VERIFIED_MAX) VERIFIED.delete(VERIFIED.keys().next().value!);
  VERIFIED.add(name);
  return true;
}

/** Hashes of key, signature and message that were found valid, oldest first. Key and signature are of fixed length. */
const VERIFIED = new Set<string>();
/** Some 100 bytes each. */
const VERIFIED_MAX = 4_096;

/** Whether y is below p = 2^255 - 19: the rest are second spellings of a point, which runtimes judge differently. */
function isCanonicalPoint(publicKey: Uint8Array): boolean {
  if ((publicKey[31]! & 0x7f) !== 0x7f || publicKey[0]! < 0xed) return true;
  for (let i = 1; i < 31; i++) if (publicKey[i] !== 0xff) return true;
  return false;
}

/** Big-endian 32-bit length of a part. */
function lengthOf(part: Uint8Array): Uint8Array {
  const out = new Uint8Array(4);
  new DataView(out.buffer).setUint32(0, part.length);
  return out;
}

const PKCS8_PREFIX = Uint8Array.from([0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20]);
const SPKI_PREFIX = Uint8Array.from([0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0]);

/** Parsing a key costs as much as using it; the few that a node signs with and the many it verifies are kept. */
const PRIVATE_KEYS = new WeakMap<Uint8Array, KeyObject>();
const PUBLIC_KEYS = new Map<string, KeyObject>();
const PUBLIC_KEYS_MAX = 1_024;

function privateKey(seed: Uint8Array): KeyObject {
  let key = PRIVATE_KEYS.get(seed);
  if (!key) {
    key = createPrivateKey({ key: Buffer.from(concatBytes(PKCS8_PREFIX, seed)), format: "der", type: "pkcs8" });
    PRIVATE_KEYS.set(seed, key);
  }
  return key;
}

function publicKeyObject(raw: Uint8Array): KeyObject {
  const name = String.fromCharCode(...raw);
  let key = PUBLIC_KEYS.get(name);
  if (!key) {
    key = createPublicKey({ key: Buffer.from(concatBytes(SPKI_PREFIX, raw)), format: "der", type: "spki" });
    if (PUBLIC_KEYS.size >= PUBLIC_KEYS_MAX) PUBLIC_KEYS.delete(PUBLIC_KEYS.keys().next().value!);
    PUBLIC_KEYS.set(name, key);
  }
  return key;
}

/** Encodings of the points of order 1, 2, 4 and 8 on edwards25519. */
const SMALL_ORDER: readonly Uint8Array[] = [
  "0000000000000000000000000000000000000000000000000000000000000000",
  "0000000000000000000000000000000000000000000000000000000000000080",
  "0100000000000000000000000000000000000000000000000000000000000000",
  "0100000000000000000000000000000000000000000000000000000000000080",
  "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
  "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
  "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
  "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
  "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
  "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
].map((hex) => Uint8Array.from(hex.match(/../g)!, (pair) => Number.parseInt(pair, 16)));
