/** One stream of bytes each way, as calls need it: what QUIC and Yamux streams have in common. @module */

import type { Stream, StreamMessageEvent } from "@libp2p/interface";
import { concatBytes } from "../../core/bytes.ts";

/** A stream of bytes each way, with backpressure each way. */
export interface ByteStream {
  /** The next bytes, or `undefined` at the end. Rejects when the other end resets the stream or the channel is lost. */
  read(): Promise<Uint8Array | undefined>;
  /** Sends bytes; resolves when the transport takes more. Rejects like {@linkcode read}. */
  write(bytes: Uint8Array): Promise<void>;
  /** Ends the sending direction in order. Never rejects. */
  closeWrite(): Promise<void>;
  /**
   * Ends both directions at once; what is under way ends. The other end sees an error or an early end, as the
   * transport has it. Idempotent, never throws.
   */
  reset(): void;
}

/** First and largest size of the buffer that a read fills. */
const READ_BYTES_MIN = 1 << 10;
const READ_BYTES_MAX = 64 << 10;

/**
 * The reading direction of a stream of Deno's QUIC.
 *
 * A plain reader allocates 64 KiB for each read, the one that waits for the end of a small answer included; this one
 * starts small and grows with what arrives.
 */
export class ByteSource {
  readonly #reader: ReadableStreamBYOBReader;
  #size = READ_BYTES_MIN;
  #left: Uint8Array | undefined;

  constructor(readable: ReadableStream<Uint8Array>) {
    this.#reader = readable.getReader({ mode: "byob" });
    this.#reader.closed.catch(() => {});
  }

  /** The next bytes, or `undefined` at the end. Rejects when the connection is lost. */
  async read(): Promise<Uint8Array | undefined> {
    const left = this.#left;
    if (left) {
      this.#left = undefined;
      return left;
    }
    const { value, done } = await this.#reader.read(new Uint8Array(this.#size));
    if (done) return undefined;
    if (value.length === this.#size && this.#size < READ_BYTES_MAX) this.#size *= 8;
    return value;
  }

  /**
   * Exactly `count` bytes; what came with them waits for the next read. For heads and handshakes, whose size is known
   * and small.
   *
   * @throws {Error} When the stream ends before.
   */
  async take(count: number): Promise<Uint8Array> {
    let bytes: Uint8Array = new Uint8Array(0);
    while (bytes.length < count) {
      const piece = await this.read();
      if (!piece) throw new Error(`stream ended after ${bytes.length} bytes, wanted ${count}`);
      bytes = bytes.length === 0 ? piece : concatBytes(bytes, piece);
    }
    if (bytes.length > count) this.#left = bytes.subarray(count);
    return bytes.subarray(0, count);
  }

  /** Wants no more bytes; a read under way ends. Never throws. */
  cancel(): void {
    this.#reader.cancel().catch(() => {});
  }
}

/**
 * A {@linkcode ByteStream} on a stream of Deno's QUIC.
 *
 * Deno's streams have no abrupt end for the writing direction: aborting it reaches the other end as an orderly
 * one. Whoever reads has to know from the content whether it is complete.
 */
export class QuicByteStream implements ByteStream {
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #source: ByteSource;
  #head: Uint8Array | undefined;

  /**
   * @param stream The stream.
   * @param options `head` goes out with the first write; `source` is the reading direction where it was taken already.
   */
  constructor(
    stream: Deno.QuicBidirectionalStream,
    options: { readonly head?: Uint8Array; readonly source?: ByteSource },
  ) {
    this.#writer = stream.writable.getWriter();
    this.#writer.closed.catch(() => {});
    this.#source = options.source ?? new ByteSource(stream.readable);
    this.#head = options.head;
  }

  read(): Promise<Uint8Array | undefined> {
    return this.#source.read();
  }

  async write(bytes: Uint8Array): Promise<void> {
    const head = this.#head;
    this.#head = undefined;
    await this.#writer.write(head ? concatBytes(head, bytes) : bytes);
  }

  async closeWrite(): Promise<void> {
    await this.#writer.close().catch(() => {});
  }

  reset(): void {
    this.#writer.abort().catch(() => {});
    this.#source.cancel();
  }
}

/** Bytes of a libp2p stream that wait for {@linkcode ByteStream.read} before the sender is held back. */
const QUEUE_BYTES_MAX = 256 << 10;

/** A {@linkcode ByteStream} on a stream of libp2p. */
export class LibP2pByteStream implements ByteStream {
  readonly #stream: Stream;
  #queue: Uint8Array[] = [];
  #queued = 0;
  #ended = false;
  #error: unknown;
  #waiting: { resolve(bytes: Uint8Array | undefined): void; reject(error: unknown): void } | undefined;
  #onDrain: (() => void) | undefined;

  constructor(stream: Stream) {
    this.#stream = stream;
    stream.addEventListener("drain", () => this.#drained());
    stream.addEventListener("message", (event) => this.#onMessage(event));
    stream.addEventListener("remoteCloseWrite", () => this.#onEnd(undefined));
    stream.addEventListener("close", (event) => this.#onEnd(event.error ?? new Error("stream closed")));
    if (stream.status !== "open") this.#onEnd(new Error("stream closed"));
    else if (stream.remoteWriteStatus !== "writable") this.#onEnd(undefined);
  }

  read(): Promise<Uint8Array | undefined> {
    const next = this.#queue.shift();
    if (next) {
      this.#queued -= next.length;
      if (this.#queued < QUEUE_BYTES_MAX / 2 && this.#stream.readStatus === "paused") this.#stream.resume();
      return Promise.resolve(next);
    }
    if (this.#error !== undefined) return Promise.reject(this.#error);
    if (this.#ended) return Promise.resolve(undefined);
    return new Promise((resolve, reject) => this.#waiting = { resolve, reject });
  }

  async write(bytes: Uint8Array): Promise<void> {
    if (this.#error !== undefined) throw this.#error;
    this.#stream.send(bytes);
    // Not `stream.onDrain()`: from the second time on it returns the promise of the first (@libp2p/utils 7.4).
    while (this.#stream.writableNeedsDrain && this.#stream.status === "open") {
      await new Promise<void>((resolve) => this.#onDrain = resolve);
    }
    if (this.#error !== undefined) throw this.#error;
  }

  async closeWrite(): Promise<void> {
    await this.#stream.close().catch(() => {});
  }

  reset(): void {
    this.#stream.abort(new Error("reset"));
  }

  #onMessage(event: StreamMessageEvent): void {
    const bytes = event.data.subarray();
    const waiting = this.#waiting;
    if (waiting) {
      this.#waiting = undefined;
      waiting.resolve(bytes);
      return;
    }
    this.#queue.push(bytes);
    this.#queued += bytes.length;
    if (this.#queued >= QUEUE_BYTES_MAX && this.#stream.readStatus === "readable") this.#stream.pause();
  }

  #drained(): void {
    const onDrain = this.#onDrain;
    this.#onDrain = undefined;
    onDrain?.();
  }

  #onEnd(error: unknown): void {
    if (this.#stream.status !== "open") this.#drained();
    // An orderly end is followed by "close"; only the first counts.
    if (this.#ended) return;
    this.#ended = true;
    this.#error = error;
    const waiting = this.#waiting;
    this.#waiting = undefined;
    if (error !== undefined) waiting?.reject(error);
    else waiting?.resolve(undefined);
  }
}
