/**
 * A snapshot that is arriving in chunks.
 *
 * @module
 */

import { concatBytes, equalBytes } from "../core/bytes.ts";
import { sha256 } from "../core/crypto.ts";
import type { SnapshotMeta } from "./messages.ts";

/** At most one snapshot under way; its bytes count only when all of them are there and have the right digest. */
export class IncomingSnapshot {
  #meta: SnapshotMeta | undefined;
  #chunks: Uint8Array[] = [];
  #sizeBytes = 0;

  /** Bytes that are here: where to go on. */
  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /**
   * Takes a chunk. One that does not follow on what is here is left out.
   *
   * @param meta What the snapshot is; another one than before begins anew.
   * @param offset Where in it the chunk begins, bytes.
   * @returns The whole of it where this was the last chunk; `undefined` otherwise.
   */
  take(meta: SnapshotMeta, offset: number, data: Uint8Array): Uint8Array | undefined {
    // Also another leader's chunks go on here, as long as the bytes are to be the same.
    if (!this.#meta || this.#meta.index !== meta.index || !equalBytes(this.#meta.digest, meta.digest)) {
      this.forget();
      this.#meta = meta;
    }
    if (offset === this.#sizeBytes && offset + data.length <= meta.sizeBytes && data.length > 0) {
      this.#chunks.push(data);
      this.#sizeBytes += data.length;
    }
    if (this.#sizeBytes !== meta.sizeBytes) return undefined;
    const whole = concatBytes(...this.#chunks);
    this.forget();
    return equalBytes(sha256(whole), meta.digest) ? whole : undefined;
  }

  /** Forgets what has arrived; with `index`, only where it is of no use once that is committed. */
  forget(index = Infinity): void {
    if (this.#meta && this.#meta.index > index) return;
    this.#meta = undefined;
    this.#chunks = [];
    this.#sizeBytes = 0;
  }
}
