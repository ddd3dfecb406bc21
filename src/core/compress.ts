/**
 * zstd (RFC 8878) where the runtime has it: for what is large and goes over a wire.
 *
 * `node:zlib` is loaded at the first use, which takes up to 0.2 s on some runtimes, and most nodes never need it.
 * Compressed bytes are never compared or signed: releases of zstd may make others of the same input.
 *
 * @module
 */

import type * as Zlib from "node:zlib";
import { WireError } from "./codec.ts";

/** Largest window, as a power of two: what both sides hold in memory beside the content. */
const WINDOW_LOG = 20;

let zlib: typeof Zlib | undefined | null = null;

function load(): typeof Zlib | undefined {
  if (zlib !== null) return zlib;
  const { process } = globalThis as {
    process?: { getBuiltinModule?(name: string): typeof Zlib | undefined };
  };
  const found = process?.getBuiltinModule?.("node:zlib");
  return zlib = typeof found?.zstdCompressSync === "function" ? found : undefined;
}

/** Whether this runtime can compress and decompress. */
export function hasZstd(): boolean {
  return load() !== undefined;
}

/** The bytes compressed, or `undefined` where the runtime cannot, or they would hardly get smaller. */
export function compressBytes(bytes: Uint8Array): Uint8Array | undefined {
  const lib = load();
  if (!lib) return undefined;
  const params = { [lib.constants.ZSTD_c_windowLog]: WINDOW_LOG, [lib.constants.ZSTD_c_compressionLevel]: 3 };
  const out = new Uint8Array(lib.zstdCompressSync(bytes, { params }));
  return out.length < bytes.length - bytes.length / 8 ? out : undefined;
}

/**
 * The bytes that were compressed.
 *
 * @param bytesMax Longest result; what would be longer is refused before it takes memory.
 * @throws {WireError} When they are not what {@linkcode compressBytes} makes, or longer, or the runtime cannot.
 */
export function decompressBytes(bytes: Uint8Array, bytesMax: number): Uint8Array {
  const lib = load();
  if (!lib) throw new WireError("Cannot decompress: this runtime has no zstd");
  try {
    const params = { [lib.constants.ZSTD_d_windowLogMax]: WINDOW_LOG };
    return new Uint8Array(lib.zstdDecompressSync(bytes, { maxOutputLength: bytesMax, params }));
  } catch (cause) {
    // Whatever is wrong with them: the bytes are somebody else's.
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new WireError(`Cannot decompress ${bytes.length} bytes: ${why}`, { cause });
  }
}
