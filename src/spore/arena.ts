/**
 * Many small byte strings in few large arrays: an array of its own costs some 300 bytes beside its content.
 *
 * @module
 */

import { assert } from "../core/assert.ts";

/** Bytes of one array: the waste at its end is small, and so is what is freed late. */
const CHUNK_BYTES = 1 << 18;
/** The first one is smaller: most tables hold little. */
const FIRST_BYTES = 1 << 12;

/** Place of a byte string, given by {@linkcode Arena.add}. */
export type Place = number;

/** Keeps byte strings; whoever put one in takes it out, and nothing else gives its room back. */
export class Arena {
  readonly #chunks: (Uint8Array | undefined)[] = [];
  /** Bytes in use of each chunk. */
  readonly #live: number[] = [];
  /** Where the next one goes: into the last chunk. */
  #at = 0;
  #liveBytes = 0;
  #heldBytes = 0;

  /** Bytes that arrays take, used or not. */
  get heldBytes(): number {
    return this.#heldBytes;
  }

  /** Bytes in use. */
  get liveBytes(): number {
    return this.#liveBytes;
  }

  /** Puts parts in, one after another, as one string. */
  add(...parts: readonly Uint8Array[]): Place {
    let length = 0;
    for (const part of parts) length += part.length;
    assert(length <= CHUNK_BYTES, `a string has ${length} bytes, at most ${CHUNK_BYTES}`);
    const last = this.#chunks.at(-1);
    if (!last || this.#at + length > last.length) {
      const size = Math.max(length, this.#chunks.length === 0 ? FIRST_BYTES : CHUNK_BYTES);
      this.#chunks.push(new Uint8Array(size));
      this.#live.push(0);
      this.#heldBytes += size;
      this.#at = 0;
    }
    const index = this.#chunks.length - 1;
    const place = index * CHUNK_BYTES + this.#at;
    const chunk = this.#chunks[index]!;
    for (const part of parts) {
      chunk.set(part, this.#at);
      this.#at += part.length;
    }
    this.#live[index]! += length;
    this.#liveBytes += length;
    return place;
  }

  /** A view of what was put in; valid until it is taken out. */
  view(place: Place, length: number): Uint8Array {
    // An empty string keeps no array alive: its own may be gone.
    if (length === 0) return new Uint8Array(0);
    const offset = place % CHUNK_BYTES;
    return this.#chunks[Math.floor(place / CHUNK_BYTES)]!.subarray(offset, offset + length);
  }

  /** Takes a string out. */
  remove(place: Place, length: number): void {
    if (length === 0) return;
    const index = Math.floor(place / CHUNK_BYTES);
    this.#live[index]! -= length;
    this.#liveBytes -= length;
    if (this.#live[index]! > 0 || index === this.#chunks.length - 1) return;
    this.#heldBytes -= this.#chunks[index]!.length;
    this.#chunks[index] = undefined;
  }
}
