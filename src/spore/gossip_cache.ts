/**
 * The messages that a node has seen, and the bodies of the latest, which others may ask for.
 *
 * @module
 */

import { LIMITS } from "../core/limits.ts";
import type { GossipMessage, MessageId } from "./gossip_wire.ts";

/** Windows of heartbeats for which bodies are kept (`mcache_len`). */
const WINDOWS = 5;
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
  readonly holders: Set<string>;
  /** Peers that sent it. */
  readonly senders: Set<string>;
  /** Peers that it was sent to, which may have been lost. */
  readonly sent: Set<string>;
  /** How often it was given to those that asked. */
  readonly given: Map<string, number>;
}

/** Messages by id. */
export class MessageCache {
  /** Oldest first. */
  readonly #seen = new Map<MessageId, Entry>();
  /** Valid messages by heartbeat, the present one last. */
  readonly #windows: Entry[][] = [[]];
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

  /** Takes in a message that was not seen, under validation; the oldest go where there are too many. */
  add(id: MessageId, message: GossipMessage, from: string | undefined, nowMs: number): Entry {
    const known = from === undefined ? [] : [from];
    const entry: Entry = {
      id,
      topic: message.topic,
      seenMs: nowMs,
      state: "validating",
      body: message.body,
      frame: undefined,
      from,
      holders: new Set(known),
      senders: new Set(known),
      sent: new Set(),
      given: new Map(),
    };
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
  keep(entry: Entry): void {
    this.#validating -= 1;
    entry.state = "valid";
    this.#windows.at(-1)!.push(entry);
    this.#bytes += entry.body!.length;
    this.#bodies += 1;
    for (const window of this.#windows) {
      while (this.#bytes > LIMITS.gossipCacheBytesMax && window.length > 0) this.#drop(window.shift()!);
    }
  }

  /** Forgets the body of a message that is not passed on. */
  refuse(entry: Entry, state: "rejected" | "ignored"): void {
    this.#validating -= 1;
    entry.state = state;
    entry.body = undefined;
  }

  /** A heartbeat is over: the bodies of the oldest window go. */
  shift(): void {
    this.#windows.push([]);
    while (this.#windows.length > WINDOWS) for (const entry of this.#windows.shift()!) this.#drop(entry);
  }

  /** Valid messages of the last windows whose bodies are still there, oldest first. */
  recent(windows: number = WINDOWS): Entry[] {
    return this.#windows.slice(-windows).flat().filter((one) => one.body !== undefined);
  }

  #drop(entry: Entry): void {
    if (entry.state === "valid" && entry.body) {
      this.#bytes -= entry.body.length;
      this.#bodies -= 1;
    }
    entry.body = undefined;
    entry.frame = undefined;
    for (const one of [entry.holders, entry.sent, entry.given]) one.clear();
  }
}
