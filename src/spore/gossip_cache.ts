/**
 * The messages that a node has seen, and the bodies of the latest, which others may ask for.
 *
 * @module
 */

import { equalBytes } from "../core/bytes.ts";
import { LIMITS } from "../core/limits.ts";
import type { GossipMessage, MessageId } from "./gossip_wire.ts";

/** Bodies are kept for so long (`mcache_len` of five heartbeats). */
export const CACHE_MS = 5_000;
/** For so long a message that comes again is known as one (`seen_ttl`). */
const SEEN_TTL_MS = 120_000;

/** A message that was seen. */
export interface Entry {
  readonly id: MessageId;
  readonly topic: string;
  readonly seenMs: number;
  state: "validating" | "valid" | "rejected" | "ignored";
  /** Missing once it is out of the cache, or found to be nothing to pass on. */
  body: Uint8Array | undefined;
  /** The frame that holds it alone, once it was made. */
  frame: Uint8Array | undefined;
  /** Peer that brought it first; `undefined`: this node said it. */
  readonly from: string | undefined;
  /** Peers that have it: they sent or announced it. */
  holders: string[];
  /** Peers that sent it, while its verdict is open or bad. */
  senders: string[];
  /** Peers that it was sent to, which may have been lost. */
  sent: string[];
  /** How often it was given to those that asked; missing where nobody did. */
  given: Map<string, number> | undefined;
  /** When it was found valid. */
  keptMs: number;
}

/** Messages by id. */
export class MessageCache {
  /** Oldest first. */
  readonly #seen = new Map<MessageId, Entry>();
  /** Valid messages, oldest first. */
  #kept: Entry[] = [];
  /** Messages whose bodies are here, by what their bodies look like; of two that look alike, the later one. */
  readonly #alike = new Map<string, Entry>();
  #bytes = 0;
  #bodies = 0;
  #validating = 0;

  /** Ids remembered. */
  get seen(): number {
    return this.#seen.size;
  }

  /** Valid messages whose bodies are kept. */
  get bodies(): number {
    return this.#bodies;
  }

  /** What those bodies take. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Messages that wait for their verdict. */
  get validating(): number {
    return this.#validating;
  }

  get(id: MessageId): Entry | undefined {
    return this.#seen.get(id);
  }

  /** The message with the same topic and bytes, as long as its body is here: sooner found than its hash is made. */
  find(message: GossipMessage): Entry | undefined {
    const near = this.#alike.get(likenessOf(message.body));
    return near?.body && near.topic === message.topic && equalBytes(near.body, message.body) ? near : undefined;
  }

  /** Takes in a message that was not seen, under validation; the oldest go where there are too many. */
  add(id: MessageId, message: GossipMessage, from: string | undefined, nowMs: number): Entry {
    const entry: Entry = {
      id,
      topic: message.topic,
      seenMs: nowMs,
      state: "validating",
      body: message.body,
      frame: undefined,
      from,
      holders: from === undefined ? [] : [from],
      senders: from === undefined ? [] : [from],
      sent: [],
      given: undefined,
      keptMs: nowMs,
    };
    this.#alike.set(likenessOf(message.body), entry);
    this.#seen.set(id, entry);
    this.#validating += 1;
    for (const [oldest, old] of this.#seen) {
      if (this.#seen.size <= LIMITS.gossipSeenMax && nowMs - old.seenMs < SEEN_TTL_MS) break;
      if (old.state === "validating") this.#validating -= 1;
      // A verdict that comes now finds nothing any more.
      this.#drop(old);
      this.#seen.delete(oldest);
    }
    return entry;
  }

  /** Keeps a message that was found valid, for others to ask for; the oldest go where they take too much. */
  keep(entry: Entry, nowMs: number): void {
    this.#validating -= 1;
    entry.state = "valid";
    entry.keptMs = nowMs;
    entry.senders = [];
    this.#kept.push(entry);
    this.#bytes += entry.body!.length;
    this.#bodies += 1;
    for (let i = 0; this.#bytes > LIMITS.gossipCacheBytesMax && i < this.#kept.length; i++) this.#drop(this.#kept[i]!);
  }

  /** Forgets the body of a message that is not passed on. */
  refuse(entry: Entry, state: "rejected" | "ignored"): void {
    this.#validating -= 1;
    entry.state = state;
    this.#forgetBody(entry);
  }

  /** The bodies that were kept for long enough go. */
  expire(nowMs: number): void {
    let count = 0;
    for (const entry of this.#kept) {
      if (entry.body && nowMs - entry.keptMs < CACHE_MS) break;
      this.#drop(entry);
      count += 1;
    }
    if (count > 0) this.#kept = this.#kept.slice(count);
  }

  /** Forgets that a message was refused. */
  forget(id: MessageId): void {
    this.#seen.delete(id);
  }

  /** When the next body goes; `Infinity` where there is none. */
  get expiresMs(): number {
    return this.#kept.length === 0 ? Infinity : this.#kept[0]!.keptMs + CACHE_MS;
  }

  /** Valid messages of the last while whose bodies are still there, oldest first. */
  recent(nowMs: number, withinMs: number): Entry[] {
    return this.#kept.filter((one) => one.body !== undefined && nowMs - one.keptMs < withinMs);
  }

  #drop(entry: Entry): void {
    if (entry.state === "valid" && entry.body) {
      this.#bytes -= entry.body.length;
      this.#bodies -= 1;
    }
    this.#forgetBody(entry);
    entry.frame = undefined;
    entry.holders = [];
    entry.sent = [];
    entry.given = undefined;
  }

  #forgetBody(entry: Entry): void {
    if (!entry.body) return;
    const likeness = likenessOf(entry.body);
    if (this.#alike.get(likeness) === entry) this.#alike.delete(likeness);
    entry.body = undefined;
  }
}

/** Notes that a peer has a message, for as long as that matters. */
export function noteHolder(entry: Entry, nodeId: string): void {
  if (entry.body && !entry.holders.includes(nodeId)) entry.holders.push(nodeId);
}

/** A few bytes of a body, to look it up by. */
function likenessOf(body: Uint8Array): string {
  const { length } = body;
  const step = Math.max(1, length >> 3);
  let out = String.fromCharCode(length & 0xffff);
  for (let at = length - 1; at >= 0; at -= step) out += String.fromCharCode(body[at]!);
  return out;
}
