/**
 * What one step of gossip has to say to one peer, in as few frames as it takes.
 *
 * @module
 */

import { LIMITS } from "../core/limits.ts";
import type { Entry } from "./gossip_cache.ts";
import { encodeFrame, type GossipFrame, ID_BYTES, type MessageId } from "./gossip_wire.ts";

/** What a frame takes besides its items: the map, eight keys and the heads of their values. */
const FRAME_BYTES = 1 + 8 * 5;
/** Topics in one list. */
const LIST_MAX = 16;

/** One encoded frame. */
export interface Outgoing {
  readonly bytes: Uint8Array;
  /** Messages in it. */
  readonly messages: number;
}

/** What goes to one peer at the end of a step. */
export class Outbox {
  readonly messages: Entry[] = [];
  readonly ihave: MessageId[] = [];
  readonly iwant: MessageId[] = [];
  readonly idontwant: MessageId[] = [];
  readonly graft: Set<string> = new Set();
  readonly prune: Map<string, number> = new Map();
  readonly choke: Set<string> = new Set();
  readonly unchoke: Set<string> = new Set();

  /**
   * The frames, none larger than this unless a single message is.
   *
   * @param bytesMax Bytes of one frame.
   */
  frames(bytesMax: number): Outgoing[] {
    const control = this.ihave.length + this.iwant.length + this.idontwant.length + this.graft.size + this.prune.size +
      this.choke.size + this.unchoke.size;
    if (control === 0 && this.messages.length === 1) {
      // The usual case, and the same bytes for everybody.
      const entry = this.messages[0]!;
      if (!entry.body) return [];
      entry.frame ??= encodeFrame({ messages: [{ topic: entry.topic, body: entry.body }] });
      return [{ bytes: entry.frame, messages: 1 }];
    }
    const packer = new Packer(bytesMax);
    for (const topic of this.graft) packer.add("graft", topic, topic.length + 1, LIST_MAX);
    for (const [topic, backoffS] of this.prune) packer.add("prune", { topic, backoffS }, topic.length + 5, LIST_MAX);
    for (const topic of this.choke) packer.add("choke", topic, topic.length + 1, LIST_MAX);
    for (const topic of this.unchoke) packer.add("unchoke", topic, topic.length + 1, LIST_MAX);
    for (const id of this.idontwant) packer.add("idontwant", id, ID_BYTES, LIMITS.gossipIdsPerFrameMax);
    for (const id of this.iwant) packer.add("iwant", id, ID_BYTES, LIMITS.gossipIdsPerFrameMax);
    for (const id of this.ihave) packer.add("ihave", id, ID_BYTES, LIMITS.gossipIdsPerFrameMax);
    for (const { topic, body } of this.messages) {
      if (!body) continue;
      packer.add("messages", { topic, body }, topic.length + body.length + 7, LIMITS.gossipMessagesPerFrameMax);
    }
    return packer.done();
  }
}

/** Puts items into frames until one is full. */
class Packer {
  readonly #done: Outgoing[] = [];
  #lists: { [K in keyof GossipFrame]?: GossipFrame[K][number][] } = {};
  #empty = true;
  #room: number;

  constructor(readonly bytesMax: number) {
    this.#room = bytesMax - FRAME_BYTES;
  }

  add<K extends keyof GossipFrame>(key: K, item: GossipFrame[K][number], bytes: number, listMax: number): void {
    if (!this.#empty && (bytes > this.#room || (this.#lists[key]?.length ?? 0) >= listMax)) this.#close();
    const list = (this.#lists[key] ?? []) as GossipFrame[K][number][];
    list.push(item);
    this.#lists = { ...this.#lists, [key]: list };
    this.#empty = false;
    this.#room -= bytes;
  }

  done(): Outgoing[] {
    this.#close();
    return this.#done;
  }

  #close(): void {
    if (this.#empty) return;
    const messages = this.#lists.messages?.length ?? 0;
    this.#done.push({ bytes: encodeFrame(this.#lists as Partial<GossipFrame>), messages });
    this.#lists = {};
    this.#empty = true;
    this.#room = this.bytesMax - FRAME_BYTES;
  }
}
