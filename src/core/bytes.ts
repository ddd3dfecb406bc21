/** Byte strings: joining, comparing and spelling them. @module */

const ENCODER = new TextEncoder();
const DECODER = new TextDecoder("utf-8", { fatal: true });

/** UTF-8 bytes of a text. */
export function utf8(text: string): Uint8Array {
  return ENCODER.encode(text);
}

/**
 * Text of UTF-8 bytes.
 *
 * @throws {TypeError} When the bytes are not valid UTF-8.
 */
export function fromUtf8(bytes: Uint8Array): string {
  return DECODER.decode(bytes);
}

/** One new array holding all parts in order. */
export function concatBytes(...parts: readonly Uint8Array[]): Uint8Array {
  let length = 0;
  for (const part of parts) length += part.length;
  const out = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/**
 * Whether two byte strings are equal, in time that depends on their length only, so that it serves
 * for secrets as well.
 */
export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  let difference = 0;
  for (let i = 0; i < a.length; i++) difference |= a[i]! ^ b[i]!;
  return difference === 0;
}

/** Lexicographic order of bytes: negative, zero or positive. Not for secrets. */
export function compareBytes(a: Uint8Array, b: Uint8Array): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    if (a[i] !== b[i]) return a[i]! - b[i]!;
  }
  return a.length - b.length;
}

/** Lower-case hexadecimal. */
export function toHex(bytes: Uint8Array): string {
  let out = "";
  for (let i = 0; i < bytes.length; i++) out += HEX[bytes[i]!]!;
  return out;
}

const HEX: readonly string[] = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));

/** Bytes of a hexadecimal text, or `undefined` where it is none. */
export function fromHex(text: string): Uint8Array | undefined {
  if (text.length % 2 !== 0 || !/^[0-9a-fA-F]*$/.test(text)) return undefined;
  const out = new Uint8Array(text.length / 2);
  for (let i = 0; i < out.length; i++) out[i] = Number.parseInt(text.slice(2 * i, 2 * i + 2), 16);
  return out;
}

const BASE64URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/** Base64url without padding (RFC 4648, section 5). */
export function toBase64Url(bytes: Uint8Array): string {
  let out = "";
  for (let i = 0; i < bytes.length; i += 3) {
    const left = bytes.length - i;
    const n = (bytes[i]! << 16) | ((left > 1 ? bytes[i + 1]! : 0) << 8) | (left > 2 ? bytes[i + 2]! : 0);
    out += BASE64URL[n >> 18]! + BASE64URL[(n >> 12) & 63]!;
    if (left > 1) out += BASE64URL[(n >> 6) & 63]!;
    if (left > 2) out += BASE64URL[n & 63]!;
  }
  return out;
}

/** Bytes of a base64url text without padding, or `undefined` where it is none or not in its shortest form. */
export function fromBase64Url(text: string): Uint8Array | undefined {
  const rest = text.length % 4;
  if (rest === 1) return undefined;
  const out = new Uint8Array(Math.floor((text.length * 3) / 4));
  let bits = 0;
  let value = 0;
  let at = 0;
  for (const char of text) {
    const digit = BASE64URL.indexOf(char);
    if (digit < 0) return undefined;
    value = ((value << 6) | digit) & 0xffffff;
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      out[at++] = (value >> bits) & 0xff;
    }
  }
  // Left-over bits must be zero, or two texts would mean the same bytes.
  if (bits > 0 && (value & ((1 << bits) - 1)) !== 0) return undefined;
  return out;
}

/**
 * Bytes that arrive as they are or spelled in base64url with white space around, as files and web servers have them;
 * `undefined` where they are neither.
 *
 * @param firstByte First byte of the bytes as they are; no character of base64url.
 */
export function rawOrBase64Url(input: Uint8Array, firstByte: number): Uint8Array | undefined {
  if (input[0] === firstByte) return input;
  let text: string;
  try {
    text = fromUtf8(input);
  } catch {
    return undefined;
  }
  return fromBase64Url(text.trim());
}

const BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

/** Digits of base 58 that one exact number holds: 58^9 is below 2^53. */
const CHUNK_DIGITS = 9;
const CHUNK = 58n ** BigInt(CHUNK_DIGITS);

/**
 * Base58 in Bitcoin's alphabet, as libp2p spells peer ids. For short byte strings: it takes quadratic time.
 *
 * One big integer and nine digits at a time: digit by digit, as textbooks have it, a peer id takes 60 µs in code that
 * has just started, and a node that joins spells hundreds of them.
 */
export function toBase58(bytes: Uint8Array): string {
  const zeros = bytes.findIndex((byte) => byte !== 0);
  if (zeros < 0) return "1".repeat(bytes.length);
  let rest = BigInt(`0x${toHex(bytes)}`);
  let out = "";
  while (rest > 0n) {
    let chunk = Number(rest % CHUNK);
    rest /= CHUNK;
    for (let i = 0; i < CHUNK_DIGITS && (chunk > 0 || rest > 0n); i++) {
      out = BASE58[chunk % 58]! + out;
      chunk = Math.floor(chunk / 58);
    }
  }
  return "1".repeat(zeros) + out;
}

/** Bytes of a base58 text of at most 128 characters, or `undefined` where it is none. */
export function fromBase58(text: string): Uint8Array | undefined {
  if (text.length > 128) return undefined;
  let ones = 0;
  while (text[ones] === "1") ones++;
  let value = 0n;
  for (let at = ones; at < text.length;) {
    const end = Math.min(at + CHUNK_DIGITS, text.length);
    const scale = end - at === CHUNK_DIGITS ? CHUNK : 58n ** BigInt(end - at);
    let chunk = 0;
    for (; at < end; at++) {
      const digit = BASE58.indexOf(text[at]!);
      if (digit < 0) return undefined;
      chunk = chunk * 58 + digit;
    }
    value = value * scale + BigInt(chunk);
  }
  const hex = value === 0n ? "" : value.toString(16);
  const tail = fromHex(hex.length % 2 === 0 ? hex : `0${hex}`)!;
  return concatBytes(new Uint8Array(ones), tail);
}
