/** Files that are read within a bound, and written whole or not at all. @module */

import { dirname } from "node:path";

/** A file is larger than it may be. */
export class TooLargeError extends Error {
  override readonly name = "TooLargeError";
}

/** How {@linkcode writeWhole} writes. */
export interface WriteWholeOptions {
  /** Rights of the file, for example `0o600`. */
  readonly mode: number;
  /** Older versions to keep beside it: `<path>.1` is the one before, `<path>.2` the one before that. @default {0} */
  readonly keep?: number;
}

/**
 * Writes beside and renames, so that a power cut leaves the old file or the new one, at every moment and whole.
 * Older versions are copies: there is no moment without the file itself.
 *
 * @throws {Error} When the file cannot be written; what was there stays.
 */
export async function writeWhole(path: string, content: Uint8Array, options: WriteWholeOptions): Promise<void> {
  const { mode, keep = 0 } = options;
  await writeSynced(`${path}.new`, content, mode);
  if (keep > 0) await keepVersions(path, content, keep, mode);
  await Deno.rename(`${path}.new`, path);
  await syncFolder(dirname(path));
}

/**
 * Reads a file of at most `bytesMax` bytes.
 *
 * @throws {TooLargeError} Where it has more.
 */
export async function readBounded(path: string, bytesMax: number): Promise<Uint8Array> {
  using file = await Deno.open(path);
  const out = new Uint8Array(bytesMax + 1);
  let length = 0;
  for (;;) {
    const read = await file.read(out.subarray(length));
    if (read === null) return out.slice(0, length);
    length += read;
    if (length > bytesMax) throw new TooLargeError(`more than ${bytesMax} bytes`);
  }
}

async function keepVersions(path: string, content: Uint8Array, keep: number, mode: number): Promise<void> {
  let present: Uint8Array;
  try {
    present = await readBounded(path, VERSION_BYTES_MAX);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof TooLargeError) return;
    throw error;
  }
  // The same again is no older version: it would push those out that are.
  if (same(present, content) || same(present, await existing(`${path}.1`))) return;
  for (let n = keep; n > 1; n--) {
    try {
      await Deno.rename(`${path}.${n - 1}`, `${path}.${n}`);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  // A copy and no link: USB sticks know none.
  await writeSynced(`${path}.1.new`, present, mode);
  await Deno.rename(`${path}.1.new`, `${path}.1`);
}

async function existing(path: string): Promise<Uint8Array | undefined> {
  try {
    return await readBounded(path, VERSION_BYTES_MAX);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof TooLargeError) return undefined;
    throw error;
  }
}

function same(a: Uint8Array, b: Uint8Array | undefined): boolean {
  return b !== undefined && a.length === b.length && a.every((byte, i) => byte === b[i]);
}

async function writeSynced(path: string, content: Uint8Array, mode: number): Promise<void> {
  using file = await Deno.open(path, { write: true, create: true, truncate: true, mode });
  for (let written = 0; written < content.length;) written += await file.write(content.subarray(written));
  await file.sync();
}

/** The name of a file is durable when its folder is. */
async function syncFolder(path: string): Promise<void> {
  try {
    using folder = await Deno.open(path, { read: true });
    await folder.sync();
  } catch {
    // Some file systems sync no folders: the file itself is safe, its name soon.
  }
}

/** What is larger is none of our files. */
const VERSION_BYTES_MAX = 1 << 20;
