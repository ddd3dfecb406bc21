/** First stream of a TCP channel: the dialer names its process, the listener takes it or says why not. @module */

import { concatBytes, toHex } from "../../core/bytes.ts";
import type { ByteStream } from "./byte_stream.ts";
import { decodeVerdict, encodeVerdict, type Verdict } from "./quic_auth.ts";

const BYTES = 1 + 16;

/** Sends a verdict and the sender's instance. */
export async function writeOpening(stream: ByteStream, verdict: Verdict, instance: Uint8Array): Promise<void> {
  await stream.write(concatBytes(encodeVerdict(verdict), instance));
}

/**
 * Reads what {@linkcode writeOpening} sent; the instance as hex.
 *
 * @throws {Error} When the stream ends before or holds more.
 */
export async function readOpening(
  stream: ByteStream,
): Promise<{ readonly verdict: Verdict; readonly instance: string }> {
  let bytes: Uint8Array = new Uint8Array(0);
  while (bytes.length < BYTES) {
    const piece = await stream.read();
    if (!piece) throw new Error(`opening ended after ${bytes.length} bytes`);
    bytes = concatBytes(bytes, piece);
  }
  if (bytes.length > BYTES) throw new Error(`opening has ${bytes.length} bytes, wanted ${BYTES}`);
  return { verdict: decodeVerdict(bytes[0]), instance: toHex(bytes.subarray(1)) };
}
