/**
 * Deterministic CBOR (RFC 8949, section 4.2.1) and the readers that turn what was decoded into types.
 *
 * Both directions are our own, one pass each. cborg, which was here before, accepts several spellings of one
 * value; checking that by encoding again made one frame of 1 MiB cost 0.8 s and 300 MiB. And it gives out
 * `Buffer`s, whose `slice` shares memory. It stays the oracle of the tests.
 *
 * Whatever comes from outside goes through {@linkcode decodeCbor} and a {@linkcode Reader} once; a bad
 * input gives a {@linkcode WireError} and nothing else.
 *
 * @module
 */

import { compareBytes, utf8 } from "./bytes.ts";
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
  const encoder = new Encoder();
  encoder.value(value, 0);
  return encoder.bytes();
}

/**
 * Decodes one value, strictly: shortest forms only, no indefinite lengths, no tags, no floats, no
 * duplicate keys, nothing behind it, and the keys in canonical order. What it accepts, {@linkcode encodeCbor}
 * turns into the same bytes again.
 *
 * Time is linear in the input, memory at most some ten times `bytesMax`: nesting and the number of items are
 * bounded by `LIMITS.cborDepthMax` and `LIMITS.cborItemsMax`, and no declared length is believed before the
 * bytes are there.
 *
 * @param bytes The encoded value.
 * @param bytesMax Refuse longer inputs.
 * @throws {WireError} When the bytes are anything else.
 */
export function decodeCbor(bytes: Uint8Array, bytesMax: number = LIMITS.frameBytesMax): CborValue {
  if (bytes.length > bytesMax) throw new WireError(`Cannot decode CBOR: ${bytes.length} bytes, at most ${bytesMax}`);
  return new Decoder(bytes).all();
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

/**
 * A text of at most `charsMax` UTF-16 units, without control characters (C0, DEL and C1: a terminal acts on them)
 * other than tab and line feed, and without the bidirectional overrides that make a text read as another.
 */
export function text(charsMax: number, pattern?: RegExp): Reader<string> {
  return (value, path) => {
    if (typeof value !== "string" || value.length > charsMax) {
      throw new WireError(`Cannot read ${path}: wanted a text of at most ${charsMax} characters`);
    }
    // deno-lint-ignore no-control-regex
    if (/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/.test(value)) {
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

/** Writes one value. */
class Encoder {
  #out = new Uint8Array(256);
  #at = 0;

  /** What was written, in memory of its own. */
  bytes(): Uint8Array {
    return this.#out.slice(0, this.#at);
  }

  value(value: CborValue, depth: number): void {
    if (depth > LIMITS.cborDepthMax) throw new WireError("Cannot encode CBOR: nested too deeply");
    switch (typeof value) {
      case "number":
        if (!Number.isSafeInteger(value)) throw new WireError(`Cannot encode CBOR: ${value} is not a safe integer`);
        return value >= 0 ? this.#head(0, value) : this.#head(1, -1 - value);
      case "bigint": {
        const argument = value >= 0n ? value : -1n - value;
        if (argument >= 1n << 64n) throw new WireError("Cannot encode CBOR: an integer has more than 64 bits");
        return this.#head(value >= 0n ? 0 : 1, argument);
      }
      case "string":
        return this.#text(value);
      case "boolean":
        return this.#byte(value ? 0xf5 : 0xf4);
      case "object":
        if (value === null) return this.#byte(0xf6);
        if (value instanceof Uint8Array) {
          this.#head(2, value.length);
          return this.#push(value);
        }
        if (Array.isArray(value)) {
          this.#head(4, value.length);
          for (const one of value as readonly CborValue[]) this.value(one, depth + 1);
          return;
        }
        return this.#map(value as { readonly [key: string]: CborValue | undefined }, depth);
      default:
        throw new WireError(`Cannot encode CBOR: a ${typeof value} has no form here`);
    }
  }

  #map(map: { readonly [key: string]: CborValue | undefined }, depth: number): void {
    const keys = Object.keys(map).filter((key) => map[key] !== undefined);
    // Order of the encoded keys: the length is in front. Of ASCII texts it can be had without encoding them.
    if (keys.every(isAscii)) keys.sort((a, b) => a.length - b.length || (a < b ? -1 : 1));
    else keys.sort((a, b) => compareKeys(utf8(a), utf8(b)));
    this.#head(5, keys.length);
    for (const key of keys) {
      this.#text(key);
      this.value(map[key]!, depth + 1);
    }
  }

  #text(text: string): void {
    if (text.length < 24 && isAscii(text)) {
      this.#room(1 + text.length);
      this.#out[this.#at++] = 0x60 | text.length;
      for (let i = 0; i < text.length; i++) this.#out[this.#at++] = text.charCodeAt(i);
      return;
    }
    // A lone surrogate would silently become U+FFFD, hence another value than the one that was meant.
    if (!text.isWellFormed()) throw new WireError("Cannot encode CBOR: a text holds a lone surrogate");
    const content = utf8(text);
    this.#head(3, content.length);
    this.#push(content);
  }

  /** Initial byte and argument in its shortest form. */
  #head(major: number, argument: number | bigint): void {
    const width = argument < 24 ? 0 : argument < 0x100 ? 1 : argument < 0x1_0000 ? 2 : argument < 0x1_0000_0000 ? 4 : 8;
    this.#byte(major << 5 | (width === 0 ? Number(argument) : width === 8 ? 27 : 24 + (width >> 1)));
    if (width === 0) return;
    this.#room(width);
    let rest = argument;
    if (width === 8) {
      new DataView(this.#out.buffer).setBigUint64(this.#at, BigInt(rest));
    } else {
      for (let i = width - 1; i >= 0; i--, rest = Math.floor(Number(rest) / 256)) {
        this.#out[this.#at + i] = Number(rest) % 256;
      }
    }
    this.#at += width;
  }

  #byte(byte: number): void {
    this.#room(1);
    this.#out[this.#at++] = byte;
  }

  #push(bytes: Uint8Array): void {
    this.#room(bytes.length);
    this.#out.set(bytes, this.#at);
    this.#at += bytes.length;
  }

  #room(count: number): void {
    const end = this.#at + count;
    if (end <= this.#out.length) return;
    const grown = new Uint8Array(Math.max(end, 2 * this.#out.length));
    grown.set(this.#out.subarray(0, this.#at));
    this.#out = grown;
  }
}

function isAscii(text: string): boolean {
  for (let i = 0; i < text.length; i++) if (text.charCodeAt(i) >= 0x80) return false;
  return true;
}

/** Order of two texts as encoded keys. */
function compareKeys(a: Uint8Array, b: Uint8Array): number {
  return a.length - b.length || compareBytes(a, b);
}

/** Keeps a byte order mark: it is part of a text, and dropping it would give two encodings of one value. */
const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** One pass over one input. */
class Decoder {
  readonly #input: Uint8Array;
  #at = 0;
  #items = 0;

  constructor(input: Uint8Array) {
    this.#input = input;
  }

  all(): CborValue {
    const value = this.#value(0);
    if (this.#at !== this.#input.length) throw this.#error("bytes behind the value");
    return value;
  }

  #value(depth: number): CborValue {
    if (++this.#items > LIMITS.cborItemsMax) throw this.#error(`more than ${LIMITS.cborItemsMax} items`);
    const initial = this.#byte();
    switch (initial >> 5) {
      case 0:
        return this.#argument(initial);
      case 1: {
        const argument = this.#argument(initial);
        return typeof argument === "number" && argument < Number.MAX_SAFE_INTEGER
          ? -1 - argument
          : -1n - BigInt(argument);
      }
      case 2: {
        const end = this.#end(initial, 1);
        // A copy also where the input is a Buffer, whose `slice` is none.
        const value = new Uint8Array(this.#input.subarray(this.#at, end));
        this.#at = end;
        return value;
      }
      case 3:
        return this.#text(this.#end(initial, 1));
      case 4:
        return this.#array(initial, depth + 1);
      case 5:
        return this.#map(initial, depth + 1);
      case 6:
        throw this.#error("tags are not used here");
      default:
        if (initial === 0xf4) return false;
        if (initial === 0xf5) return true;
        if (initial === 0xf6) return null;
        throw this.#error("floats, undefined and simple values are not used here");
    }
  }

  #array(initial: number, depth: number): CborValue {
    const count = this.#count(initial, 1, depth);
    const out: CborValue[] = [];
    for (let i = 0; i < count; i++) out.push(this.#value(depth));
    return out;
  }

  #map(initial: number, depth: number): CborValue {
    const count = this.#count(initial, 2, depth);
    const out: Record<string, CborValue> = {};
    let before: Uint8Array | undefined;
    for (let i = 0; i < count; i++) {
      const start = this.#at;
      const head = this.#byte();
      if (head >> 5 !== 3) throw this.#error("a key is no text");
      const key = this.#text(this.#end(head, 1));
      const encoded = this.#input.subarray(start, this.#at);
      if (before && compareBytes(before, encoded) >= 0) throw this.#error("keys are not sorted or not distinct");
      before = encoded;
      const value = this.#value(depth);
      // A plain assignment of this one key would set the prototype instead.
      if (key === "__proto__") {
        Object.defineProperty(out, key, { value, configurable: true, enumerable: true, writable: true });
      } else out[key] = value;
    }
    return out;
  }

  #text(end: number): string {
    const start = this.#at;
    this.#at = end;
    // Keys are short and ASCII: a loop beats the decoder there.
    if (end - start <= 24) {
      let out = "";
      for (let i = start; i < end; i++) {
        const byte = this.#input[i]!;
        if (byte >= 0x80) return this.#utf8(start, end);
        out += String.fromCharCode(byte);
      }
      return out;
    }
    return this.#utf8(start, end);
  }

  #utf8(start: number, end: number): string {
    try {
      return UTF8.decode(this.#input.subarray(start, end));
    } catch (error) {
      if (error instanceof TypeError) throw this.#error("a text is not UTF-8");
      throw error;
    }
  }

  #count(initial: number, itemsEach: number, depth: number): number {
    const count = this.#end(initial, itemsEach) - this.#at;
    if (count > 0 && depth > LIMITS.cborDepthMax) throw this.#error("nested too deeply");
    return count / itemsEach;
  }

  /** Where `argument` units of at least `unitBytes` each end, after a check that so many bytes are left. */
  #end(initial: number, unitBytes: number): number {
    const argument = this.#argument(initial);
    if (typeof argument === "bigint" || argument * unitBytes > this.#input.length - this.#at) {
      throw this.#error("cut off");
    }
    return this.#at + argument * unitBytes;
  }

  /** The argument of an initial byte, in its shortest form. */
  #argument(initial: number): number | bigint {
    const info = initial & 31;
    if (info < 24) return info;
    if (info > 27) throw this.#error("indefinite length or reserved argument");
    const width = 1 << (info - 24);
    let high = 0;
    let low = 0;
    for (let i = 0; i < width; i++) {
      if (i === 4) [high, low] = [low, 0];
      low = low * 256 + this.#byte();
    }
    const shortest = info === 24 ? low >= 24 : info === 25 ? low >= 0x100 : info === 26 ? low >= 0x1_0000 : high > 0;
    if (!shortest) throw this.#error("an argument is not in its shortest form");
    return high < 0x20_0000 ? high * 0x1_0000_0000 + low : BigInt(high) << 32n | BigInt(low);
  }

  #byte(): number {
    const byte = this.#input[this.#at];
    if (byte === undefined) throw this.#error("cut off");
    this.#at++;
    return byte;
  }

  #error(what: string): WireError {
    return new WireError(`Cannot decode CBOR: ${what} (byte ${this.#at})`);
  }
}
