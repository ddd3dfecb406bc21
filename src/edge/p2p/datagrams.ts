/**
 * Datagrams on a channel that is proved: QUIC has them; a TCP channel carries them on one stream of its own each way.
 *
 * @module
 */

import { concatBytes } from "../../core/bytes.ts";
import { LIMITS } from "../../core/limits.ts";
import { TokenBucket } from "../discovery/token_bucket.ts";
import type { ByteStream } from "./byte_stream.ts";

/** Sends the datagrams of one channel. */
export interface DatagramSender {
  /** Takes one datagram without promise of arrival. `false`: the channel cannot carry it now. Never throws. */
  send(bytes: Uint8Array): boolean;
}

/** Bytes of datagrams that may wait for one channel; more are not taken: late ones are worth nothing. */
const WAITING_BYTES_MAX = 64 << 10;

/** Datagrams of QUIC. */
export class QuicDatagrams implements DatagramSender {
  readonly #conn: Deno.QuicConn;
  #waiting = 0;

  constructor(conn: Deno.QuicConn) {
    this.#conn = conn;
  }

  send(bytes: Uint8Array): boolean {
    if (this.#waiting + bytes.length > WAITING_BYTES_MAX) return false;
    const done = () => this.#waiting -= bytes.length;
    this.#waiting += bytes.length;
    // One that is larger than the path carries is rejected here, and so lost like any other. Every path of QUIC
    // carries LIMITS.datagramBytesMax.
    this.#conn.sendDatagram(bytes).then(done, done);
    return true;
  }
}

/** Hands over the datagrams of a QUIC connection until it closes. Never rejects. */
export async function readQuicDatagrams(conn: Deno.QuicConn, onDatagram: (bytes: Uint8Array) => void): Promise<void> {
  try {
    for (;;) onDatagram(await conn.readDatagram());
  } catch {
    // The connection closed; its `closed` promise tells the rest.
  }
}

/**
 * Datagrams over a stream, each behind its length in two bytes. Opened with the first one; where it fails, the next
 * one opens another.
 */
export class StreamDatagrams implements DatagramSender {
  readonly #open: () => Promise<ByteStream>;
  #queue: Uint8Array[] = [];
  #waiting = 0;
  #sending = false;
  #stream: ByteStream | undefined;

  constructor(open: () => Promise<ByteStream>) {
    this.#open = open;
  }

  send(bytes: Uint8Array): boolean {
    if (this.#waiting + bytes.length > WAITING_BYTES_MAX) return false;
    this.#queue.push(Uint8Array.of(bytes.length >> 8, bytes.length & 255), bytes);
    this.#waiting += bytes.length;
    if (!this.#sending) void this.#send();
    return true;
  }

  async #send(): Promise<void> {
    this.#sending = true;
    let stream = this.#stream;
    try {
      stream ??= this.#stream = await this.#open();
      while (this.#queue.length > 0) {
        const bytes = concatBytes(...this.#queue);
        this.#queue = [];
        await stream.write(bytes);
        this.#waiting = this.#queue.reduce((sum, one, i) => i % 2 === 1 ? sum + one.length : sum, 0);
      }
    } catch {
      stream?.reset();
      this.#stream = undefined;
      this.#queue = [];
      this.#waiting = 0;
    }
    this.#sending = false;
  }
}

/** Hands over the datagrams of a stream until it ends. `false`: it broke the rules. Never rejects. */
export async function readStreamDatagrams(
  stream: ByteStream,
  onDatagram: (bytes: Uint8Array) => void,
): Promise<boolean> {
  let rest: Uint8Array = new Uint8Array(0);
  try {
    for (;;) {
      const piece = await stream.read();
      if (!piece) return rest.length === 0;
      rest = rest.length === 0 ? piece : concatBytes(rest, piece);
      while (rest.length >= 2) {
        const length = rest[0]! << 8 | rest[1]!;
        if (length > LIMITS.datagramBytesMax) {
          stream.reset();
          return false;
        }
        if (rest.length < 2 + length) break;
        onDatagram(rest.slice(2, 2 + length));
        rest = rest.subarray(2 + length);
      }
    }
  } catch {
    return true;
  }
}

/** What one channel may bring in, and how often its excess is told of. */
export class DatagramGate {
  readonly #bucket = new TokenBucket({
    burst: 2 * LIMITS.datagramsPerPeerPerSecondMax,
    perSecond: LIMITS.datagramsPerPeerPerSecondMax,
  });
  readonly #reports = new TokenBucket({ burst: 1, perSecond: 1 });
  readonly #onExcess: () => void;

  /** @param onExcess Called at most once a second while too much comes. */
  constructor(onExcess: () => void) {
    this.#onExcess = onExcess;
  }

  /** Whether a datagram of this size is taken. */
  take(sizeBytes: number, nowMs: number): boolean {
    if (sizeBytes <= LIMITS.datagramBytesMax && this.#bucket.take(nowMs)) return true;
    if (this.#reports.take(nowMs)) this.#onExcess();
    return false;
  }
}
