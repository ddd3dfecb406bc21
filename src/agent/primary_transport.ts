/**
 * How replicas of the Primary Spore reach each other: small messages as datagrams, the rest in calls, several to one.
 *
 * @module
 */

import { array, bytes, type CborValue, encodeCbor, optional, record, text, uint, WireError } from "../core/codec.ts";
import { LIMITS } from "../core/limits.ts";
import { encodeMessage, type MessageType, type RaftMessage } from "../raft/messages.ts";
import type { Context } from "./context.ts";
import { nodeOfReplica } from "./primary_store.ts";

/** First byte of its datagrams: `r`. */
export const DATAGRAM_KIND = 0x72;
/** Messages that wait for one peer; more are dropped, which Raft takes as loss. */
const OUTBOX_MAX = 512;
/** Calls with messages under way to one peer. */
const CALLS_MAX = 4;
/** Replicas of one node that messages go to at once: the one it runs, and those that its packets name. */
const REPLICAS_MAX = 4;
/** A call that is not answered for so long lets another one pass. */
const CALL_SLOW_MS = 250;
/** Datagrams of messages to one peer in a second; beyond, calls carry more in one. */
const DATAGRAMS_PER_SECOND = 600;

/** Messages that a lost datagram would cost an election or more: they go as calls. */
const RELIABLE: ReadonlySet<MessageType> = new Set([
  "pre-vote",
  "vote",
  "pre-vote-response",
  "vote-response",
  "timeout-now",
]);

/** Messages from one replica to another, and what is said along with them. */
export interface Packet {
  /** From this replica. */
  readonly f: string;
  /** To this one. */
  readonly t: string;
  readonly m: readonly Uint8Array[];
  /** Election timeout that a leader goes by, or that somebody wants, milliseconds. */
  readonly p: number | undefined;
  /** How late timers of this follower are, milliseconds. */
  readonly g: number | undefined;
}

const readPacketValue = record({
  f: text(128),
  t: text(128),
  m: array(bytes({ max: LIMITS.frameBytesMax }), OUTBOX_MAX),
  p: optional(uint(60_000)),
  g: optional(uint(60_000)),
});
const readAnswer = record({ r: optional(text(128)) });

/** Reads a packet. @throws {WireError} */
export function readPacket(value: CborValue): Packet {
  return readPacketValue(value, "raft");
}

/** What the transport needs of its part. */
export interface TransportPort {
  /** Who sends, and what it says besides its messages; missing where this node runs no replica. */
  sender(): Pick<Packet, "f" | "p" | "g"> | undefined;
  /** A node answered that it runs another replica than the one that was meant: it has lost its disk. */
  renamed(nodeId: string, replica: string): void;
}

interface Outbox {
  messages: RaftMessage[];
  /** Calls under way, by number, with when they began. */
  readonly calls: Map<number, number>;
  datagrams: { sinceMs: number; count: number };
}

/** Sends messages of this node's replica. */
export class PrimaryTransport {
  readonly #ctx: Context;
  readonly #port: TransportPort;
  /** By replica. */
  readonly #outboxes = new Map<string, Outbox>();
  #nextCall = 1;

  constructor(ctx: Context, port: TransportPort) {
    this.#ctx = ctx;
    this.#port = port;
  }

  clear(): void {
    this.#outboxes.clear();
  }

  /** The channel to a node has closed. */
  sessionDown(nodeId: string): void {
    for (const to of this.#outboxes.keys()) if (nodeOfReplica(to) === nodeId) this.#outboxes.delete(to);
  }

  /** Puts a message with those that wait for the next {@linkcode flush}. */
  send(to: string, message: RaftMessage): void {
    const node = nodeOfReplica(to);
    let outbox = this.#outboxes.get(to);
    if (!this.#ctx.sessions.get(node)?.member) {
      if (outbox) outbox.messages.length = 0;
      return;
    }
    if (!outbox) {
      if (!this.#hasRoom(node)) return;
      this.#outboxes.set(to, outbox = { messages: [], calls: new Map(), datagrams: { sinceMs: 0, count: 0 } });
    }
    if (outbox.messages.length < OUTBOX_MAX) outbox.messages.push(message);
  }

  /** Whether a node may have one more replica here; those with nothing under way make room. */
  #hasRoom(node: string): boolean {
    let busy = 0;
    for (const [to, { messages, calls }] of this.#outboxes) {
      if (nodeOfReplica(to) !== node) continue;
      if (messages.length + calls.size === 0) this.#outboxes.delete(to);
      else busy += 1;
    }
    return busy < REPLICAS_MAX;
  }

  /** Sends what waits. */
  flush(): void {
    for (const [to, outbox] of this.#outboxes) if (outbox.messages.length > 0) this.#flushOne(to, outbox);
  }

  /** Sends a packet as a datagram, past what waits. */
  datagram(packet: Packet): void {
    this.#datagram(nodeOfReplica(packet.t), encodeCbor({ ...packet }));
  }

  #flushOne(to: string, outbox: Outbox): void {
    const ctx = this.#ctx;
    const sender = this.#port.sender();
    if (!sender) return void (outbox.messages.length = 0);
    const node = nodeOfReplica(to);
    if (ctx.nowMs - outbox.datagrams.sinceMs >= 1_000) outbox.datagrams = { sinceMs: ctx.nowMs, count: 0 };
    const encoded = outbox.messages.map(encodeMessage);
    const packet = (messages: readonly Uint8Array[]): CborValue => ({ ...sender, t: to, m: messages });
    const small = encoded.length <= 4 && outbox.messages.every((one) => !RELIABLE.has(one.type)) &&
      outbox.datagrams.count < DATAGRAMS_PER_SECOND;
    if (small) {
      const body = encodeCbor(packet(encoded));
      if (body.length < LIMITS.datagramBytesMax) {
        outbox.messages = [];
        outbox.datagrams.count += 1;
        return this.#datagram(node, body);
      }
    }
    const slow = [...outbox.calls.values()].every((sinceMs) => ctx.nowMs - sinceMs >= CALL_SLOW_MS);
    if (outbox.calls.size >= CALLS_MAX || !slow) return;
    let count = 0;
    for (let size = 0; count < encoded.length; count++) {
      size += encoded[count]!.length + 16;
      if (count > 0 && size > LIMITS.frameBytesMax / 2) break;
    }
    outbox.messages = outbox.messages.slice(count);
    const number = this.#nextCall++;
    outbox.calls.set(number, ctx.nowMs);
    ctx.call(node, "raft", packet(encoded.slice(0, count)), 5_000, (result) => {
      outbox.calls.delete(number);
      if (result.ok) this.#onAnswer(node, result.body);
    });
  }

  #datagram(nodeId: string, body: Uint8Array): void {
    const bytes = new Uint8Array(body.length + 1);
    bytes[0] = DATAGRAM_KIND;
    bytes.set(body, 1);
    this.#ctx.emit({ type: "datagram", nodeId, bytes });
  }

  #onAnswer(node: string, body: CborValue): void {
    try {
      const { r } = readAnswer(body, "raft");
      if (r !== undefined && nodeOfReplica(r) === node) this.#port.renamed(node, r);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      this.#ctx.refuse("bad-answer", node);
    }
  }
}
