/** Calls over one stream each: the caller's and the callee's side. @module */

import { concatBytes } from "../../core/bytes.ts";
import { WireError } from "../../core/codec.ts";
import { encodeFrame, type Frame, FrameReader } from "../../core/frame.ts";
import { LIMITS } from "../../core/limits.ts";
import { CallError, type CallOptions, type InboundCall, type Peer } from "../../ports/network.ts";
import type { ByteStream } from "./byte_stream.ts";

/** Counts payload of streams. */
export interface ByteCounter {
  bytesIn: number;
  bytesOut: number;
}

/** Milliseconds that a stream may stay without a whole request. */
export const REQUEST_TIMEOUT_MS = 10_000;

/**
 * Calls a method over a stream that {@linkcode open} gives, and yields the messages of the answer.
 *
 * @throws {CallError}
 */
export async function* callOver(
  open: () => Promise<ByteStream>,
  method: string,
  body: Uint8Array,
  options: CallOptions & { readonly counter: ByteCounter },
): AsyncGenerator<Uint8Array, void, void> {
  const timeoutMs = Math.min(Math.max(1, Math.ceil(options.timeoutMs)), LIMITS.callTimeoutMsMax);
  const request = encodeRequest(method, timeoutMs, body);
  let failure: CallError | undefined;
  let stream: ByteStream | undefined;
  let failed!: (error: CallError) => void;
  const failing = new Promise<never>((_, reject) => failed = reject);
  failing.catch(() => {});
  const fail = (error: CallError) => {
    failure ??= error;
    failed(failure);
    stream?.reset();
  };
  const onAbort = () => fail(new CallError("cancelled", `Call "${method}" was cancelled`));
  if (options.signal?.aborted) throw new CallError("cancelled", `Call "${method}" was cancelled`);
  options.signal?.addEventListener("abort", onAbort, { once: true });
  const timer = setTimeout(
    () => fail(new CallError("timeout", `Call "${method}" got no answer within ${timeoutMs} ms`)),
    timeoutMs,
  );
  let ended = false;
  try {
    const opening = open();
    opening.then((late) => failure && late.reset(), () => {});
    stream = await Promise.race([opening, failing]);
    await Promise.race([stream.write(request), failing]);
    options.counter.bytesOut += request.length;
    const frames = new FrameReader();
    for (;;) {
      const frame = frames.next();
      if (frame === undefined) {
        const piece = await stream.read();
        if (failure) throw failure;
        if (!piece) throw new CallError("unreachable", `Call "${method}": the stream ended before the answer did`);
        options.counter.bytesIn += piece.length;
        frames.push(piece);
        continue;
      }
      if (frame.type === "message") {
        yield frame.body;
        if (failure) throw failure;
      } else if (frame.type === "end") {
        ended = true;
        return;
      } else if (frame.type === "error") {
        ended = true;
        throw new CallError(frame.code, frame.text);
      } else {
        throw new WireError("a request as an answer");
      }
    }
  } catch (error) {
    throw failure ?? toCallError(error, method);
  } finally {
    clearTimeout(timer);
    options.signal?.removeEventListener("abort", onAbort);
    if (ended) {
      stream?.closeWrite();
      drain(stream!);
    } else stream?.reset();
  }
}

/** The stream's end follows the last frame; reading it lets the transport forget the stream. */
async function drain(stream: ByteStream): Promise<void> {
  try {
    const rest = await stream.read();
    if (rest) stream.reset();
  } catch {
    // The stream is over either way.
  }
}

function encodeRequest(method: string, timeoutMs: number, body: Uint8Array): Uint8Array {
  try {
    return encodeFrame({ type: "request", method, timeoutMs, body });
  } catch (error) {
    throw new CallError("bad-frame", (error as Error).message, { cause: error });
  }
}

function toCallError(error: unknown, method: string): CallError {
  if (error instanceof CallError) return error;
  if (error instanceof WireError) return new CallError("bad-frame", `Call "${method}": ${error.message}`);
  const cause = error instanceof Error ? error.message : String(error);
  return new CallError("unreachable", `Call "${method}" failed: ${cause}`, { cause: error });
}

/** What {@linkcode serveCall} needs. */
export interface ServeOptions {
  readonly peer: Peer;
  readonly onCall: (call: InboundCall) => Promise<void>;
  /** Whether one more call is taken; `release` is called when it is over. */
  readonly admit: () => boolean;
  readonly release: () => void;
  readonly onRefused: (reason: string) => void;
  readonly counter: ByteCounter;
  /** Aborts when the channel closes. */
  readonly signal: AbortSignal;
}

/** Serves the one call of an inbound stream. Never rejects. */
export async function serveCall(stream: ByteStream, options: ServeOptions): Promise<void> {
  if (!options.admit()) {
    options.onRefused("overloaded");
    await refuse(stream, "overloaded", "Too many calls are under way; try again later");
    return;
  }
  const aborter = new AbortController();
  let over = false;
  const abort = (code: string, message: string) => {
    if (over || aborter.signal.aborted) return;
    aborter.abort(new CallError(code, message));
    stream.reset();
  };
  const onChannelClosed = () => abort("unreachable", "The channel closed");
  let timer = setTimeout(() => {
    options.onRefused("request-timeout");
    abort("timeout", "No request came");
  }, REQUEST_TIMEOUT_MS);
  options.signal.addEventListener("abort", onChannelClosed, { once: true });
  try {
    const frame = await readRequest(stream, options.counter);
    clearTimeout(timer);
    if (!frame || aborter.signal.aborted) {
      stream.reset();
      return;
    }
    timer = setTimeout(() => abort("timeout", "The caller's deadline passed"), frame.timeoutMs);
    watchCaller(stream, () => abort("cancelled", "The caller cancelled"));
    const call: InboundCall = {
      peer: options.peer,
      method: frame.method,
      body: frame.body,
      timeoutMs: frame.timeoutMs,
      signal: aborter.signal,
      async send(message) {
        aborter.signal.throwIfAborted();
        if (over) throw new CallError("cancelled", "The call is over");
        const wait = outbox.push(encodeFrame({ type: "message", body: message }));
        if (!wait) return;
        await wait;
        aborter.signal.throwIfAborted();
      },
    };
    const outbox = new Outbox(stream, options.counter, () => abort("cancelled", "The caller stopped reading"));
    let last: Frame = { type: "end" };
    try {
      await options.onCall(call);
    } catch (error) {
      last = error instanceof CallError
        ? {
          type: "error",
          code: /^[a-z0-9][a-z0-9-]{0,63}$/.test(error.code) ? error.code : "failed",
          text: error.message,
        }
        : { type: "error", code: "internal", text: "The node failed to serve this call" };
      if (!(error instanceof CallError)) options.onRefused("handler-failed");
    }
    if (aborter.signal.aborted) return;
    over = true;
    outbox.push(encodeFrame(last));
    await outbox.empty();
    await stream.closeWrite();
  } catch (error) {
    if (error instanceof WireError) {
      options.onRefused("bad-frame");
      await refuse(stream, "bad-frame", error.message);
    } else stream.reset();
  } finally {
    over = true;
    clearTimeout(timer);
    options.signal.removeEventListener("abort", onChannelClosed);
    options.release();
  }
}

/** Bytes of an answer that may wait for the transport before the handler does. */
const OUTBOX_BYTES_MAX = 160 << 10;
/** Frames are joined into one write up to this size; for larger ones the copy costs more than the write. */
const JOIN_BYTES_MAX = 16 << 10;
/** Turns of the microtask queue in which a handler that has sent its last message comes to its end. */
const OUTBOX_TURNS = 6;

/** Collects the frames of an answer, so that the last message and the end after it travel in one write. */
class Outbox {
  readonly #stream: ByteStream;
  readonly #counter: ByteCounter;
  readonly #onFailure: () => void;
  #waiting: Uint8Array[] = [];
  #bytes = 0;
  #flushing: Promise<void> | undefined;
  #onRoom: (() => void)[] = [];

  constructor(stream: ByteStream, counter: ByteCounter, onFailure: () => void) {
    this.#stream = stream;
    this.#counter = counter;
    this.#onFailure = onFailure;
  }

  /** Takes a frame; gives what to wait for before the next one, if anything. Never rejects. */
  push(frame: Uint8Array): Promise<void> | undefined {
    this.#waiting.push(frame);
    this.#bytes += frame.length;
    this.#flushing ??= this.#flush();
    return this.#bytes < OUTBOX_BYTES_MAX ? undefined : this.#room();
  }

  /** Resolves when there is room for another frame, or none will be taken any more. */
  #room(): Promise<void> {
    return new Promise((resolve) => this.#onRoom.push(resolve));
  }

  /** Resolves when everything is with the transport. */
  async empty(): Promise<void> {
    await this.#flushing;
  }

  async #flush(): Promise<void> {
    try {
      for (let turn = 0; turn < OUTBOX_TURNS && this.#bytes < JOIN_BYTES_MAX; turn++) await undefined;
      while (this.#waiting.length > 0) {
        const bytes = this.#next();
        this.#counter.bytesOut += bytes.length;
        await this.#stream.write(bytes);
        this.#bytes -= bytes.length;
        if (this.#bytes < OUTBOX_BYTES_MAX) this.#tellRoom();
      }
    } catch {
      this.#onFailure();
    } finally {
      this.#flushing = undefined;
      this.#tellRoom();
    }
  }

  #tellRoom(): void {
    const waiting = this.#onRoom;
    this.#onRoom = [];
    for (const resolve of waiting) resolve();
  }

  /** Takes the first frame, with those after it as long as they are small together. */
  #next(): Uint8Array {
    let count = 1;
    let size = this.#waiting[0]!.length;
    while (count < this.#waiting.length && size + this.#waiting[count]!.length <= JOIN_BYTES_MAX) {
      size += this.#waiting[count++]!.length;
    }
    const frames = this.#waiting.splice(0, count);
    return frames.length === 1 ? frames[0]! : concatBytes(...frames);
  }
}

async function readRequest(stream: ByteStream, counter: ByteCounter) {
  const frames = new FrameReader();
  for (;;) {
    const piece = await stream.read();
    if (!piece) return undefined;
    counter.bytesIn += piece.length;
    frames.push(piece);
    const frame = frames.next();
    if (!frame) continue;
    if (frame.type !== "request") throw new WireError("Cannot read frame: wanted a request first");
    if (frames.bufferedBytes > 0) throw new WireError("Cannot read frame: bytes after the request");
    return frame;
  }
}

/**
 * The caller sends nothing after its request and keeps its side open until it has the answer: whatever comes
 * before that, bytes, an error or the end, means that it does not want the answer any more.
 */
async function watchCaller(stream: ByteStream, onCancel: () => void): Promise<void> {
  try {
    await stream.read();
  } catch {
    // The same as the end.
  }
  onCancel();
}

/** Milliseconds that a refused caller has for closing its side. */
const REFUSAL_LINGER_MS = 2_000;

async function refuse(stream: ByteStream, code: string, text: string): Promise<void> {
  // A reset at once could overtake the refusal; the caller closes when it has read it.
  const timer = setTimeout(() => stream.reset(), REFUSAL_LINGER_MS);
  try {
    await stream.write(encodeFrame({ type: "error", code, text }));
    await stream.closeWrite();
    while (await stream.read());
  } catch {
    // The caller is gone already.
  }
  clearTimeout(timer);
  stream.reset();
}
