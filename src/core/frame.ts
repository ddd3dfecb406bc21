/**
 * Frames of a call: what travels on the one stream that a call has.
 *
 * A frame is the length of its content as an unsigned varint (LEB128, at most 4 bytes, shortest form) and
 * then a map in deterministic CBOR. The caller sends one `request`; the callee sends any number of
 * `message` frames and closes with `end` or `error`.
 *
 * | frame | map |
 * |---|---|
 * | request | `{ b: body, m: method, t: timeoutMs, v: 1 }` |
 * | message | `{ d: body }` |
 * | end | `{ z: true }` |
 * | error | `{ c: code, x: text }` |
 *
 * @module
 */

import { concatBytes } from "./bytes.ts";
import { bytes, type CborValue, decodeCbor, encodeCbor, record, text, uint, WireError } from "./codec.ts";
import { LIMITS } from "./limits.ts";

/** What opens a call. */
export interface RequestFrame {
  readonly type: "request";
  /** At most {@linkcode METHOD_CHARS_MAX} characters of `a-z`, `0-9`, `.`, `_` and `-`. */
  readonly method: string;
  /** Milliseconds that the caller waits, 1 to `LIMITS.callTimeoutMsMax`. */
  readonly timeoutMs: number;
  /** At most `LIMITS.frameBytesMax`. */
  readonly body: Uint8Array;
}

/** What can follow a request. */
export type ResponseFrame =
  | { readonly type: "message"; readonly body: Uint8Array }
  | { readonly type: "end" }
  | { readonly type: "error"; readonly code: string; readonly text: string };

/** Any frame. */
export type Frame = RequestFrame | ResponseFrame;

/** Version of the frames. */
export const FRAME_VERSION = 1;
/** Longest method name. */
export const METHOD_CHARS_MAX = 64;
/** Longest error code. */
export const CODE_CHARS_MAX = 64;
/** Longest error text; longer ones are cut. */
export const TEXT_CHARS_MAX = 1_024;
/** Content of a frame: a body of the largest size and the map around it. */
export const FRAME_CONTENT_BYTES_MAX: number = LIMITS.frameBytesMax + 256;
/** Bytes of the length before the content, at most. */
const LENGTH_BYTES_MAX = 4;

const METHOD = /^[A-Za-z0-9][A-Za-z0-9._-]*$/;
const CODE = /^[a-z0-9][a-z0-9-]*$/;

const readRequest = record({
  v: uint(FRAME_VERSION, FRAME_VERSION),
  m: text(METHOD_CHARS_MAX, METHOD),
  t: uint(LIMITS.callTimeoutMsMax, 1),
  b: bytes({ max: LIMITS.frameBytesMax }),
});
const readError = record({ c: text(CODE_CHARS_MAX, CODE), x: text(TEXT_CHARS_MAX) });

/** Whether a text may be a method name. */
export function isMethod(method: string): boolean {
  return method.length <= METHOD_CHARS_MAX && METHOD.test(method);
}

/**
 * Encodes a frame with its length.
 *
 * @throws {WireError} When the body is too long or the method or code is none.
 */
export function encodeFrame(frame: Frame): Uint8Array {
  switch (frame.type) {
    case "message":
      return encodeMessage(frame.body);
    case "end":
      return END.slice();
    case "error": {
      if (frame.code.length > CODE_CHARS_MAX || !CODE.test(frame.code)) {
        throw new WireError(`Cannot encode frame: "${frame.code}" is no error code`);
      }
      return framed({ c: frame.code, x: printable(frame.text) });
    }
    case "request": {
      if (!isMethod(frame.method)) throw new WireError(`Cannot encode frame: "${frame.method}" is no method name`);
      checkBody(frame.body);
      const value = { v: FRAME_VERSION, m: frame.method, t: frame.timeoutMs, b: frame.body };
      readRequest(value, "request");
      return framed(value);
    }
  }
}

/**
 * Decodes the content of a frame.
 *
 * @param content Without the length before it.
 * @throws {WireError} When it is no frame.
 */
export function decodeFrame(content: Uint8Array): Frame {
  const body = messageBody(content);
  if (body) return { type: "message", body };
  const value = decodeCbor(content, FRAME_CONTENT_BYTES_MAX);
  const keys = keysOf(value);
  if (keys.has("m")) {
    const request = readRequest(value, "request");
    return { type: "request", method: request.m, timeoutMs: request.t, body: request.b };
  }
  if (keys.has("c")) {
    const error = readError(value, "error");
    return { type: "error", code: error.c, text: error.x };
  }
  if (keys.has("z") && (value as { z: CborValue }).z === true) return { type: "end" };
  throw new WireError("Cannot read frame: neither request, message, end nor error");
}

/**
 * Cuts a stream of bytes into frames. Holds at most one frame of the largest size and one piece of the stream.
 */
export class FrameReader {
  #pieces: Uint8Array[] = [];
  #size = 0;

  /** Bytes held that are no whole frame yet or were not asked for. */
  get bufferedBytes(): number {
    return this.#size;
  }

  /** Takes what arrived. */
  push(piece: Uint8Array): void {
    if (piece.length === 0) return;
    this.#pieces.push(piece);
    this.#size += piece.length;
  }

  /**
   * The next frame, or `undefined` until more bytes arrive.
   *
   * @throws {WireError} When what arrived is no frame; the stream is of no use after that.
   */
  next(): Frame | undefined {
    const length = this.#length();
    if (!length || this.#size < length.width + length.value) return undefined;
    this.#take(length.width);
    return decodeFrame(this.#take(length.value));
  }

  /** Reads the length at the front without taking it. */
  #length(): { readonly value: number; readonly width: number } | undefined {
    let value = 0;
    for (let i = 0; i < LENGTH_BYTES_MAX; i++) {
      const byte = this.#byteAt(i);
      if (byte === undefined) return undefined;
      value += (byte & 0x7f) * 2 ** (7 * i);
      if (byte >= 0x80) continue;
      if (byte === 0 && i > 0) throw new WireError("Cannot read frame: length not in its shortest form");
      if (value === 0 || value > FRAME_CONTENT_BYTES_MAX) {
        throw new WireError(`Cannot read frame: length ${value}, wanted 1 to ${FRAME_CONTENT_BYTES_MAX}`);
      }
      return { value, width: i + 1 };
    }
    throw new WireError(`Cannot read frame: length takes more than ${LENGTH_BYTES_MAX} bytes`);
  }

  #byteAt(index: number): number | undefined {
    for (const piece of this.#pieces) {
      if (index < piece.length) return piece[index];
      index -= piece.length;
    }
    return undefined;
  }

  #take(count: number): Uint8Array {
    this.#size -= count;
    const first = this.#pieces[0]!;
    if (first.length > count) {
      this.#pieces[0] = first.subarray(count);
      return first.subarray(0, count);
    }
    if (first.length === count) {
      this.#pieces.shift();
      return first;
    }
    const out = new Uint8Array(count);
    let at = 0;
    let used = 0;
    while (at < count) {
      const piece = this.#pieces[used]!;
      const part = piece.subarray(0, count - at);
      out.set(part, at);
      at += part.length;
      if (part.length < piece.length) this.#pieces[used] = piece.subarray(part.length);
      else used++;
    }
    this.#pieces.splice(0, used);
    return out;
  }
}

/** A message without going through the general encoder: most bytes of a stream are these. */
function encodeMessage(body: Uint8Array): Uint8Array {
  checkBody(body);
  const n = body.length;
  const head = n < 24
    ? [0xa1, 0x61, 0x64, 0x40 | n]
    : n < 0x100
    ? [0xa1, 0x61, 0x64, 0x58, n]
    : n < 0x10000
    ? [0xa1, 0x61, 0x64, 0x59, n >> 8, n & 0xff]
    : [0xa1, 0x61, 0x64, 0x5a, n >>> 24, n >> 16 & 0xff, n >> 8 & 0xff, n & 0xff];
  return concatBytes(uvarint(head.length + n), Uint8Array.from(head), body);
}

/** The body of a message frame in its one deterministic form, or `undefined` where the content is something else. */
function messageBody(content: Uint8Array): Uint8Array | undefined {
  if (content[0] !== 0xa1 || content[1] !== 0x61 || content[2] !== 0x64) return undefined;
  const initial = content[3];
  if (initial === undefined) return undefined;
  const width = initial === 0x58 ? 1 : initial === 0x59 ? 2 : initial === 0x5a ? 4 : 0;
  if (width === 0 && (initial < 0x40 || initial > 0x57)) return undefined;
  let length = width === 0 ? initial & 0x1f : 0;
  for (let i = 0; i < width; i++) length = length * 256 + (content[4 + i] ?? 0);
  const shortest = width === 0 || length >= (width === 1 ? 24 : width === 2 ? 0x100 : 0x10000);
  if (!shortest || content.length !== 4 + width + length || length > LIMITS.frameBytesMax) return undefined;
  return content.subarray(4 + width);
}

function framed(value: CborValue): Uint8Array {
  const content = encodeCbor(value);
  return concatBytes(uvarint(content.length), content);
}

const END = framed({ z: true });

function uvarint(value: number): Uint8Array {
  const out: number[] = [];
  while (value >= 0x80) {
    out.push(value & 0x7f | 0x80);
    value >>>= 7;
  }
  out.push(value);
  return Uint8Array.from(out);
}

function checkBody(body: Uint8Array): void {
  if (body.length > LIMITS.frameBytesMax) {
    throw new WireError(`Cannot encode frame: body of ${body.length} bytes, at most ${LIMITS.frameBytesMax}`);
  }
}

function keysOf(value: CborValue): ReadonlySet<string> {
  if (value === null || typeof value !== "object" || Array.isArray(value) || value instanceof Uint8Array) {
    throw new WireError("Cannot read frame: wanted a map");
  }
  return new Set(Object.keys(value));
}

/** What the reader at the other end accepts: cut to length, control characters replaced. */
function printable(source: string): string {
  // deno-lint-ignore no-control-regex
  return source.replace(/[\u0000-\u001f\u007f]/g, " ").slice(0, TEXT_CHARS_MAX).toWellFormed();
}
