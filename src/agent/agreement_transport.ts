/**
 * Messages of agreement between voters: in order, in batches, over the channels of members.
 *
 * A call says when it has arrived; what it carried is lost where it fails, and the protocol asks again. Shares of
 * secrets travel in them, so they go nowhere but to whom the channel has proved.
 *
 * @module
 */

import { array, bytes, type CborValue, record } from "../core/codec.ts";
import { LIMITS } from "../core/limits.ts";
import type { ConsensusMessage } from "../consensus/messages.ts";
import { decodeMessage, encodeMessage } from "../consensus/messages.ts";
import type { Context } from "./context.ts";

/** Method that carries them. */
export const MESSAGES_METHOD = "agreement.msg";
/** Messages of one call. */
const BATCH_MAX = 64;
const BATCH_BYTES_MAX: number = LIMITS.frameBytesMax - (64 << 10);
/** Calls under way to one node: a second one does not wait for the first one's answer. */
const CALLS_MAX = 4;
/** Messages that wait for one node. */
const WAITING_MAX = 512;
/** What has waited so long is of no use: by then a round has run out. */
const STALE_MS = 10_000;
const CALL_TIMEOUT_MS = 5_000;

interface Waiting {
  readonly bytes: Uint8Array;
  readonly sinceMs: number;
}

const readBatch = record({ m: array(bytes({ max: LIMITS.frameBytesMax }), BATCH_MAX) });

/** Reads a batch. @throws {WireError} */
export function readMessages(body: CborValue): readonly ConsensusMessage[] {
  return readBatch(body, MESSAGES_METHOD).m.map(decodeMessage);
}

/** Sends messages of this node. */
export class AgreementTransport {
  readonly #ctx: Context;
  readonly #outboxes = new Map<string, { waiting: Waiting[]; calls: number }>();
  /** Messages and their bytes since the start. */
  readonly sent = { messages: 0, bytes: 0, lost: 0 };
  /** One message to many is encoded once. */
  #last: { readonly message: ConsensusMessage; readonly bytes: Uint8Array } | undefined;

  constructor(ctx: Context) {
    this.#ctx = ctx;
  }

  clear(): void {
    this.#outboxes.clear();
  }

  /** Puts a message with those that wait for the next {@linkcode flush}. */
  send(to: string, message: ConsensusMessage): void {
    if (this.#last?.message !== message) this.#last = { message, bytes: encodeMessage(message) };
    let outbox = this.#outboxes.get(to);
    if (!outbox) this.#outboxes.set(to, outbox = { waiting: [], calls: 0 });
    if (outbox.waiting.length >= WAITING_MAX) {
      outbox.waiting.shift();
      this.sent.lost += 1;
    }
    outbox.waiting.push({ bytes: this.#last.bytes, sinceMs: this.#ctx.nowMs });
  }

  /** The channel to a node has closed: its calls are answered by nobody. */
  sessionDown(nodeId: string): void {
    const outbox = this.#outboxes.get(nodeId);
    if (outbox) outbox.calls = 0;
  }

  /** Sends what waits for those that a channel leads to. */
  flush(): void {
    for (const [to, outbox] of this.#outboxes) {
      const { nowMs } = this.#ctx;
      // In order of arrival: what is first is oldest.
      while (outbox.waiting[0] && nowMs - outbox.waiting[0].sinceMs > STALE_MS) {
        outbox.waiting.shift();
        this.sent.lost += 1;
      }
      if (this.#ctx.sessions.get(to)?.member) {
        while (outbox.waiting.length > 0 && outbox.calls < CALLS_MAX) this.#call(to, outbox);
      }
      if (outbox.waiting.length === 0 && outbox.calls === 0) this.#outboxes.delete(to);
    }
  }

  #call(to: string, outbox: { waiting: Waiting[]; calls: number }): void {
    let [count, size] = [0, 0];
    for (const one of outbox.waiting) {
      size += one.bytes.length + 8;
      if (count > 0 && (count >= BATCH_MAX || size > BATCH_BYTES_MAX)) break;
      count += 1;
    }
    const batch = outbox.waiting.splice(0, count);
    outbox.calls += 1;
    this.sent.messages += batch.length;
    for (const one of batch) this.sent.bytes += one.bytes.length;
    this.#ctx.call(to, MESSAGES_METHOD, { m: batch.map((one) => one.bytes) }, CALL_TIMEOUT_MS, (result) => {
      outbox.calls = Math.max(0, outbox.calls - 1);
      if (!result.ok) this.sent.lost += batch.length;
    });
  }
}
