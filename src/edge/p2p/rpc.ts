/**
 * Calls over streams, one at a time on each: the caller's and the callee's side.
 *
 * A stream whose call has ended in order may carry the next one, as connections do in HTTP/1.1. Opening one takes as long
 * as a small call, and its two ends are the most expensive objects of it.
 *
 * @module
 */

import { concatBytes } from "../../core/bytes.ts";
import { WireError } from "../../core/codec.ts";
import { encodeFrame, type Frame, FrameReader } from "../../core/frame.ts";
import { LIMITS } from "../../core/limits.ts";
import { CallError, type CallOptions, type InboundCall, type Peer } from "../../ports/network.ts";
import type { Deadlines } from "../deadline.ts";
import type { ByteStream } from "./byte_stream.ts";

/** Counts payload of streams. */
export interface ByteCounter {
  bytesIn: number;
  bytesOut: number;
}

/** Milliseconds that a stream may stay without a whole request. */
export const REQUEST_TIMEOUT_MS = 10_000;
/** Calls that follow each other within so many milliseconds are worth a stream that stays. */
const BUSY_MS = 1_000;
/** Milliseconds that a stream waits at its caller for the next call; at the callee longer, so that the caller closes it. */
const KEEP_MS = 5_000;
const KEEP_CALLEE_MS = 15_000;
/** Streams of one channel that wait. */
const KEPT_MAX = 4;

interface Kept {
  readonly stream: ByteStream;
  /** The read that shows its end, or the beginning of the next answer. */
  readonly first: Promise<Uint8Array | undefined>;
  readonly sinceMs: number;
}

/** Streams of one channel that wait for their next call, at the side that calls. */
export class KeptStreams {
  readonly #deadlines: Deadlines;
  #kept: Kept[] = [];
  #usedMs = -Infinity;
  #sweeping = false;

  constructor(deadlines: Deadlines) {
    this.#deadlines = deadlines;
  }

  /** The one that was used last. */
  take(): Pick<Kept, "stream" | "first"> | undefined {
    return this.#kept.pop();
  }

  /** Keeps a stream whose call has ended in order. `false`: it is to be closed. */
  give(stream: ByteStream): boolean {
    const nowMs = performance.now();
    const busy = nowMs - this.#usedMs < BUSY_MS;
    this.#usedMs = nowMs;
    if (!busy || this.#kept.length >= KEPT_MAX) return false;
    const first = stream.read();
    const kept: Kept = { stream, first, sinceMs: nowMs };
    this.#kept.push(kept);
    const over = () => {
      const at = this.#kept.indexOf(kept);
      if (at < 0) return;
      this.#kept.splice(at, 1);
      stream.reset();
    };
    first.then(over, over);
    this.#sweep();
    return true;
  }

  #sweep(): void {
    if (this.#sweeping) return;
    this.#sweeping = true;
    this.#deadlines.after(KEEP_MS, () => {
      this.#sweeping = false;
      const sinceMs = performance.now() - KEEP_MS / 2;
      const late = this.#kept.filter((one) => one.sinceMs < sinceMs);
      this.#kept = this.#kept.filter((one) => one.sinceMs >= sinceMs);
      for (const { stream } of late) stream.closeWrite();
      if (this.#kept.length > 0) this.#sweep();
    });
  }
}

/** What {@linkcode callOver} needs besides what its caller says. */
export interface CallerOptions {
  readonly counter: ByteCounter;
  readonly deadlines: Deadlines;
}

/** Where a call gets its stream from. */
export interface CallChannel {
  open(): Promise<ByteStream>;
  /** Those that are open and wait for a call. */
  readonly kept: KeptStreams;
}

/**
 * Calls a method over a stream that waits or, where none does, a new one, and yields the messages of the answer.
 *
 * @param find Asked when the call begins; throws where there is no channel.
 * @throws {CallError}
 */
export async function* callOver(
  find: () => CallChannel,
  method: string,
  body: Uint8Array,
  options: CallOptions & CallerOptions,
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
  const timer = options.deadlines.after(
    timeoutMs,
    () => fail(new CallError("timeout", `Call "${method}" got no answer within ${timeoutMs} ms`)),
  );
  let ended = false;
  const frames = new FrameReader();
  let channel: CallChannel | undefined;
  const send = async () => {
    const opening = channel!.open();
    opening.then((late) => failure && late.reset(), () => {});
    stream = await Promise.race([opening, failing]);
    await Promise.race([stream.write(request), failing]);
    options.counter.bytesOut += request.length;
    return stream;
  };
  try {
    channel = find();
    const kept = channel.kept.take();
    let first: Promise<Uint8Array | undefined> | undefined;
    if (kept) {
      stream = kept.stream;
      first = kept.first;
      await Promise.race([stream.write(request), failing]).catch(() => {});
      if (failure) throw failure;
      options.counter.bytesOut += request.length;
    } else stream = await send();
    for (;;) {
      const frame = frames.next();
      if (frame === undefined) {
        let piece = await (first ?? stream.read());
        if (failure) throw failure;
        // Its end and this request have passed each other on the way: nobody has read the request.
        if (first && !piece) piece = await (stream = await send()).read();
        first = undefined;
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
    timer.cancel();
    options.signal?.removeEventListener("abort", onAbort);
    if (!ended) stream?.reset();
    else if (frames.bufferedBytes > 0 || !channel!.kept.give(stream!)) {
      stream!.closeWrite();
      drain(stream!);
    }
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

/** What {@linkcode serveCalls} needs. */
export interface ServeOptions {
  readonly peer: Peer;
  readonly onCall: (call: InboundCall) => Promise<void>;
  /** Whether one more call is taken; `release` is called when it is over. */
  readonly admit: () => boolean;
  readonly release: () => void;
  readonly onRefused: (reason: string) => void;
  readonly counter: ByteCounter;
  readonly deadlines: Deadlines;
  /** Aborts when the channel closes. */
  readonly signal: AbortSignal;
}

/** A read under way. */
interface Read {
  readonly piece: Promise<Uint8Array | undefined>;
}

/** Serves the calls of an inbound stream, one after the other. Never rejects. */
export async function serveCalls(stream: ByteStream, options: ServeOptions): Promise<void> {
  let next = await serveCall(stream, options, undefined);
  while (next) {
    const late = options.deadlines.after(KEEP_CALLEE_MS, () => stream.reset());
    const piece = await next.piece.catch(() => undefined);
    late.cancel();
    if (!piece) return await stream.closeWrite();
    next = await serveCall(stream, options, piece);
  }
}

/**
 * Serves one call.
 *
 * @param first Beginning of its request, where that has come.
 * @returns The read that brings the next request, or nothing where the stream is over.
 */
async function serveCall(
  stream: ByteStream,
  options: ServeOptions,
  first: Uint8Array | undefined,
): Promise<Read | undefined> {
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
  let timer = options.deadlines.after(REQUEST_TIMEOUT_MS, () => {
    options.onRefused("request-timeout");
    abort("timeout", "No request came");
  });
  options.signal.addEventListener("abort", onChannelClosed, { once: true });
  try {
    const frame = await readRequest(stream, options.counter, first);
    timer.cancel();
    if (!frame || aborter.signal.aborted) {
      stream.reset();
      return;
    }
    timer = options.deadlines.after(frame.timeoutMs, () => abort("timeout", "The caller's deadline passed"));
    const next = watchCaller(stream, () => abort("cancelled", "The caller cancelled"));
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
    return next;
  } catch (error) {
    if (error instanceof WireError) {
      options.onRefused("bad-frame");
      await refuse(stream, "bad-frame", error.message);
    } else stream.reset();
  } finally {
    over = true;
    timer.cancel();
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

async function readRequest(stream: ByteStream, counter: ByteCounter, first: Uint8Array | undefined) {
  const frames = new FrameReader();
  for (let begun = first;; begun = undefined) {
    const piece = begun ?? await stream.read();
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
 * before that, bytes, an error or the end, means that it does not want the answer any more. Behind the answer the same
 * read brings the next request.
 */
function watchCaller(stream: ByteStream, onCancel: () => void): Read {
  const piece = stream.read();
  piece.then(onCancel, onCancel);
  return { piece };
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
