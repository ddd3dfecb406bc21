/**
 * Deterministic CBOR (RFC 8949, section 4.2.1) and the readers that turn what was decoded into types.
 *
 * Whatever comes from outside goes through {@linkcode decodeCbor} and a {@linkcode Reader} once; a bad
 * input gives a {@linkcode WireError} and nothing else.
 *
 * @module
 */

import { decode, encode, rfc8949EncodeOptions } from "cborg";
import { LIMITS } from "./limits.ts";

/** What the codec carries. Integers only: no floating point enters a signed record. */
export type CborValue =
  | number
  | bigint
  | string
  | boolean
  | null
  | Uint8Array
  | readonly CborValue[]
  | { readonly [key: string]: CborValue | undefined };

/** An input from outside is not what it has to be. */
export class WireError extends Error {
  override readonly name = "WireError";
}

/**
 * Encodes a value: shortest integers, sorted keys; a key whose value is `undefined` is left out.
 *
 * @throws {WireError} When the value holds something that has no deterministic form here (a fraction, say).
 */
export function encodeCbor(value: CborValue): Uint8Array {
  try {
    return encode(prepare(value, 0), rfc8949EncodeOptions);
  } catch (error) {
    throw error instanceof WireError ? error : new WireError(`Cannot encode CBOR: ${messageOf(error)}`);
  }
}

/**
 * Decodes one value, strictly: shortest forms only, no indefinite lengths, no tags, no floats, no
 * duplicate keys, nothing behind it, and the keys in canonical order.
 *
 * @param bytes The encoded value.
 * @param bytesMax Refuse longer inputs.
 * @throws {WireError} When the bytes are anything else.
 */
export function decodeCbor(bytes: Uint8Array, bytesMax: number = LIMITS.frameBytesMax): CborValue {
  if (bytes.length > bytesMax) throw new WireError(`Cannot decode CBOR: ${bytes.length} bytes, at most ${bytesMax}`);
  checkDepth(bytes);
  let value: unknown;
  try {
    value = decode(bytes, {
      strict: true,
      allowIndefinite: false,
      allowUndefined: false,
      allowNaN: false,
      allowInfinity: false,
      allowBigInt: true,
      rejectDuplicateMapKeys: true,
      tags: {},
    });
    // Order of keys and widths of floats are not covered by `strict`: the bytes must be what we would write.
    const again = encodeCbor(value as CborValue);
    if (again.length !== bytes.length || again.some((byte, i) => byte !== bytes[i])) {
      throw new WireError("Cannot decode CBOR: not in its deterministic form");
    }
  } catch (error) {
    throw error instanceof WireError ? error : new WireError(`Cannot decode CBOR: ${messageOf(error)}`);
  }
  return value as CborValue;
}

/** Turns a decoded value into a `T`, or throws a {@linkcode WireError} that names `path`. */
export type Reader<T> = (value: CborValue | undefined, path: string) => T;

/** What a {@linkcode Reader} gives. */
export type Read<R> = R extends Reader<infer T> ? T : never;

/** Decodes bytes and reads them in one go. */
export function decodeAs<T>(bytes: Uint8Array, reader: Reader<T>, bytesMax: number = LIMITS.frameBytesMax): T {
  return reader(decodeCbor(bytes, bytesMax), "$");
}

/** A safe integer within a range. */
export function uint(max: number = Number.MAX_SAFE_INTEGER, min = 0): Reader<number> {
  return (value, path) => {
    if (typeof value !== "number" || !Number.isSafeInteger(value) || value < min || value > max) {
      throw new WireError(`Cannot read ${path}: wanted an integer from ${min} to ${max}`);
    }
    return value;
  };
}

/** A text of at most `charsMax` UTF-16 units, without control characters. */
export function text(charsMax: number, pattern?: RegExp): Reader<string> {
  return (value, path) => {
    if (typeof value !== "string" || value.length > charsMax) {
      throw new WireError(`Cannot read ${path}: wanted a text of at most ${charsMax} characters`);
    }
    // deno-lint-ignore no-control-regex
    if (/[\u0000-\u0008\u000b-\u001f\u007f]/.test(value)) {
      throw new WireError(`Cannot read ${path}: holds control characters`);
    }
    if (pattern && !pattern.test(value)) throw new WireError(`Cannot read ${path}: wanted ${pattern.source}`);
    return value;
  };
}

/** Bytes: exactly `length`, or at most `max` of them. */
export function bytes(size: { readonly length: number } | { readonly max: number }): Reader<Uint8Array> {
  return (value, path) => {
    const fits = value instanceof Uint8Array &&
      ("length" in size ? value.length === size.length : value.length <= size.max);
    if (!fits) {
      throw new WireError(
        `Cannot read ${path}: wanted ${"length" in size ? size.length : `at most ${size.max}`} bytes`,
      );
    }
    return value;
  };
}

/** A boolean. */
export const bool: Reader<boolean> = (value, path) => {
  if (typeof value !== "boolean") throw new WireError(`Cannot read ${path}: wanted true or false`);
  return value;
};

/** One of a closed list of texts. */
export function oneOf<const T extends string>(choices: readonly T[]): Reader<T> {
  return (value, path) => {
    const found = choices.find((choice) => choice === value);
    if (found === undefined) throw new WireError(`Cannot read ${path}: wanted one of ${choices.join(", ")}`);
    return found;
  };
}

/** An array of at most `max` items. */
export function array<T>(item: Reader<T>, max: number): Reader<readonly T[]> {
  return (value, path) => {
    if (!Array.isArray(value) || value.length > max) {
      throw new WireError(`Cannot read ${path}: wanted an array of at most ${max}`);
    }
    return value.map((one: CborValue, i) => item(one, `${path}[${i}]`));
  };
}

/** A value that may be missing. */
export function optional<T>(reader: Reader<T>): Reader<T | undefined> {
  return (value, path) => value === undefined || value === null ? undefined : reader(value, path);
}

/** Any value as it was decoded. */
export const anything: Reader<CborValue> = (value, path) => {
  if (value === undefined) throw new WireError(`Cannot read ${path}: missing`);
  return value;
};

/** A map with these keys; unknown keys are ignored, so that a newer node may add some. */
export function record<S extends Record<string, Reader<unknown>>>(
  shape: S,
): Reader<{ readonly [K in keyof S]: Read<S[K]> }> {
  const keys = Object.keys(shape);
  return (value, path) => {
    if (value === null || typeof value !== "object" || Array.isArray(value) || value instanceof Uint8Array) {
      throw new WireError(`Cannot read ${path}: wanted a map`);
    }
    const map = value as { readonly [key: string]: CborValue | undefined };
    const out: Record<string, unknown> = {};
    for (const key of keys) {
      const one = shape[key]!(Object.hasOwn(map, key) ? map[key] : undefined, `${path}.${key}`);
      if (one !== undefined) out[key] = one;
    }
    return out as { readonly [K in keyof S]: Read<S[K]> };
  };
}

/** A map from texts to values of one type, at most `max` entries, in sorted order of keys. */
export function dictionary<T>(item: Reader<T>, max: number, keyCharsMax = 128): Reader<ReadonlyMap<string, T>> {
  return (value, path) => {
    if (value === null || typeof value !== "object" || Array.isArray(value) || value instanceof Uint8Array) {
      throw new WireError(`Cannot read ${path}: wanted a map`);
    }
    const entries = Object.entries(value as { readonly [key: string]: CborValue | undefined });
    if (entries.length > max) throw new WireError(`Cannot read ${path}: wanted at most ${max} entries`);
    const out = new Map<string, T>();
    for (const [key, one] of entries.sort(([a], [b]) => a < b ? -1 : 1)) {
      if (key.length > keyCharsMax) throw new WireError(`Cannot read ${path}: a key is too long`);
      out.set(key, item(one, `${path}.${key}`));
    }
    return out;
  };
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message.replace(/^CBOR (encode|decode) error:? ?/, "") : String(error);
}

/** Copies a value without `undefined` entries and refuses what has no deterministic form. */
function prepare(value: CborValue, depth: number): unknown {
  if (depth > LIMITS.cborDepthMax) throw new WireError("Cannot encode CBOR: nested too deeply");
  if (typeof value === "number") {
    if (!Number.isSafeInteger(value)) throw new WireError(`Cannot encode CBOR: ${value} is not a safe integer`);
    return value;
  }
  if (value instanceof Uint8Array) return value;
  if (Array.isArray(value)) return value.map((one: CborValue) => prepare(one, depth + 1));
  if (value !== null && typeof value === "object") {
    const out = new Map<string, unknown>();
    for (const [key, one] of Object.entries(value as { readonly [key: string]: CborValue | undefined })) {
      if (one !== undefined) out.set(key, prepare(one, depth + 1));
    }
    return out;
  }
  return value;
}

/** Refuses deep nesting before the recursive decoder runs, so that no input can exhaust the stack. */
function checkDepth(input: Uint8Array): void {
  // Items still expected on each open level.
  const open: number[] = [];
  let at = 0;
  while (at < input.length) {
    const initial = input[at++]!;
    const major = initial >> 5;
    const info = initial & 31;
    let argument = info;
    if (info >= 24 && info <= 27) {
      const width = 1 << (info - 24);
      argument = 0;
      for (let i = 0; i < width; i++) argument = argument * 256 + (input[at + i] ?? 0);
      at += width;
    } else if (info > 27) {
      throw new WireError("Cannot decode CBOR: indefinite length or reserved argument");
    }
    if (major === 2 || major === 3) at += argument;
    if ((major === 4 || major === 5) && argument > 0) {
      open.push(major === 4 ? argument : argument * 2);
      if (open.length > LIMITS.cborDepthMax) throw new WireError("Cannot decode CBOR: nested too deeply");
      continue;
    }
    if (major === 6) throw new WireError("Cannot decode CBOR: tags are not used here");
    while (open.length > 0 && --open[open.length - 1]! === 0) open.pop();
  }
}
