/**
 * Service tokens: what a program shows to speak for one service. The network holds their hashes only.
 *
 * @module
 */

import { fromBase64Url, fromHex, toBase64Url, toHex, utf8 } from "../core/bytes.ts";
import { equalSecrets, hashParts } from "../core/crypto.ts";

/** First characters of every token, so that one that leaked can be searched for. */
export const TOKEN_PREFIX = "mct1";

/** A token in parts. */
export interface ServiceToken {
  /** 16 hexadecimal digits: names its binding, and is no secret. */
  readonly id: string;
  /** 32 random bytes. */
  readonly secret: Uint8Array;
}

/** A token from 40 random bytes. */
export function makeToken(random: Uint8Array): ServiceToken {
  return { id: toHex(random.subarray(0, 8)), secret: random.slice(8, 40) };
}

/** Text of a token: `mct1.<id>.<secret>`. */
export function formatToken(token: ServiceToken): string {
  return `${TOKEN_PREFIX}.${token.id}.${toBase64Url(token.secret)}`;
}

/** A token of its text, or `undefined` where it is none. */
export function parseToken(text: string): ServiceToken | undefined {
  if (text.length > 80) return undefined;
  const [prefix, id, secret, ...more] = text.split(".");
  if (prefix !== TOKEN_PREFIX || more.length > 0 || id === undefined || secret === undefined) return undefined;
  const idBytes = /^[0-9a-f]{16}$/.test(id) ? fromHex(id) : undefined;
  const secretBytes = fromBase64Url(secret);
  return idBytes && secretBytes?.length === 32 ? { id, secret: secretBytes } : undefined;
}

/**
 * What the network keeps of a token, 32 bytes. One hash is enough: there is nothing to guess in 256 random bits. It names
 * the service, so that a record that was changed to name another one fits no token.
 */
export function tokenHash(token: ServiceToken, service: string): Uint8Array {
  return hashParts("mycelium/token/v1", utf8(token.id), token.secret, utf8(service));
}

/** Whether a token is the one of a hash, in constant time. */
export function isToken(token: ServiceToken, hash: Uint8Array, service: string): boolean {
  return equalSecrets(tokenHash(token, service), hash);
}
