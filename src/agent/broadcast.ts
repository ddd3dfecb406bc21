/**
 * Broadcast to all members, for the other parts: carries the gossip core over datagrams and calls.
 *
 * Whoever publishes needs no list of members and waits for nobody; what a node misses it finds by comparing
 * digests. A message is passed on only once its handler has found it valid.
 *
 * @module
 */

import { concatBytes } from "../core/bytes.ts";
import { type CborValue, WireError } from "../core/codec.ts";
import { LIMITS } from "../core/limits.ts";
import { Gossip, type GossipEvent, type GossipView, type Verdict } from "../spore/gossip.ts";
import type { Method } from "./access_table.ts";
import { type Context, Refusal } from "./context.ts";
import type { PeerView } from "./effects.ts";
import type { Part } from "./part.ts";
import type { GossipStatus } from "./status.ts";

/** Topics of the program; each node takes part in all. */
export const TOPICS = ["news", "spores", "health", "agreement"] as const;
/** What members broadcast about. */
export type Topic = typeof TOPICS[number];

/** First byte of a datagram that is a frame of gossip. */
export const GOSSIP_DATAGRAM = 0x47;
/** A frame that is no datagram waits so long for its answer. */
const CALL_TIMEOUT_MS = 10_000;

/**
 * Judges a message. What does not read (`WireError`) counts as `reject`: only what every node must find invalid,
 * whatever it knows, may end so. A {@linkcode Refusal} counts as `ignore`.
 */
export type Handler = (from: string, body: Uint8Array) => Verdict;

/** Broadcast to all members. */
export class Broadcast implements Part {
  readonly methods: readonly Method[] = ["gossip"];
  readonly verbs: readonly string[] = [];
  readonly datagramKind: number = GOSSIP_DATAGRAM;
  readonly #handlers = new Map<string, Handler>();
  readonly #events: GossipEvent[] = [];
  #gossip: Gossip;
  #running = false;
  #wakeAtMs = Infinity;
  /** By how much the clock was set back: time in the core only goes on. */
  #setBackMs = 0;
  #lastMs = 0;

  constructor(readonly ctx: Context) {
    this.#gossip = this.#make();
  }

  /** Judges and takes in what members broadcast under a topic. One handler each; without one all is ignored. */
  handle(topic: Topic, handler: Handler): void {
    this.#handlers.set(topic, handler);
  }

  /**
   * Tells all members, at most `LIMITS.gossipBodyBytesMax` bytes. The same bytes said again within two minutes, by
   * whomever, are the same message. `has`: a member that has it already.
   */
  publish(topic: Topic, body: Uint8Array, has?: string): void {
    this.#feed({ type: "publish", nowMs: this.#nowMs, topic, body, ...(has === undefined ? {} : { has }) });
  }

  /** How the gossip stands. */
  view(): GossipView {
    return this.#gossip.view(this.#nowMs);
  }

  /** The same for the status document. */
  status(): GossipStatus {
    const { peers, topics, counters } = this.view();
    const { messagesOut, framesDropped: _, ...counts } = counters;
    return {
      topics: topics.map(({ topic, mesh, eager }) => ({ topic, links: mesh.length, eager: eager.length })),
      peers: peers.length,
      shunned: peers.filter(({ score }) => score < 0).length,
      sent: messagesOut,
      ...counts,
    };
  }

  serve(peer: PeerView, _method: string, body: CborValue): CborValue {
    if (!(body instanceof Uint8Array)) throw new WireError("Cannot read gossip: wanted a frame");
    this.#feed({ type: "frame", nowMs: this.#nowMs, from: peer.nodeId, bytes: body });
    return {};
  }

  answer(): unknown {
    throw new Refusal("bad-request", "broadcast answers no requests");
  }

  datagram(from: string, bytes: Uint8Array): void {
    this.#feed({ type: "frame", nowMs: this.#nowMs, from, bytes });
  }

  start(): void {
    for (const nodeId of this.ctx.memberPeers()) this.sessionUp(nodeId);
  }

  clear(): void {
    this.#gossip = this.#make();
    this.#wakeAtMs = Infinity;
  }

  keys(): readonly string[] {
    return [];
  }

  sessionUp(nodeId: string): void {
    const session = this.ctx.sessions.get(nodeId);
    if (!session) return;
    this.#feed({ type: "peer-up", nowMs: this.#nowMs, nodeId, outbound: session.peer.direction === "outbound" });
  }

  sessionDown(nodeId: string): void {
    this.#feed({ type: "peer-down", nowMs: this.#nowMs, nodeId });
  }

  wake(): number {
    const nowMs = this.#nowMs;
    if (nowMs >= this.#wakeAtMs) {
      const { ctx } = this;
      for (const [nodeId, { member, rttMs }] of ctx.sessions) {
        if (member && rttMs !== undefined) this.#feed({ type: "rtt", nowMs, nodeId, rttMs });
        // Removed or expired: its channel closes in a while, and nothing goes there meanwhile.
        else if (!member) this.#feed({ type: "peer-down", nowMs, nodeId });
      }
      this.#feed({ type: "thrifty", nowMs, thrifty: ctx.capabilities?.battery ?? false });
      this.#feed({ type: "wake", nowMs });
    }
    return this.#wakeAtMs - this.#setBackMs;
  }

  clockSetBack(): void {
    this.#setBackMs += Math.max(0, this.#lastMs - this.ctx.nowMs);
    this.#lastMs = this.ctx.nowMs;
  }

  get #nowMs(): number {
    this.#lastMs = this.ctx.nowMs;
    return this.ctx.nowMs + this.#setBackMs;
  }

  #make(): Gossip {
    return new Gossip({ topics: TOPICS, rng: this.ctx.rng });
  }

  /** One event after the other: what a handler publishes while it judges waits its turn. */
  #feed(event: GossipEvent): void {
    this.#events.push(event);
    if (this.#running) return;
    this.#running = true;
    try {
      for (let next = this.#events.shift(); next; next = this.#events.shift()) this.#step(next);
    } finally {
      this.#running = false;
      this.#events.length = 0;
    }
  }

  #step(event: GossipEvent): void {
    const { ctx } = this;
    for (const effect of this.#gossip.step(event)) {
      switch (effect.type) {
        case "send":
          this.#send(effect.to, effect.bytes);
          break;
        case "deliver": {
          const verdict = this.#judge(effect.topic, effect.from, effect.body);
          this.#events.push({ type: "verdict", nowMs: event.nowMs, id: effect.id, verdict });
          break;
        }
        case "misbehaved":
          ctx.refuse(`gossip-${effect.what}`, effect.nodeId);
          break;
        case "wakeAt":
          this.#wakeAtMs = effect.atMs;
          break;
        default:
          effect satisfies never;
      }
    }
  }

  #judge(topic: string, from: string, body: Uint8Array): Verdict {
    try {
      return this.#handlers.get(topic)?.(from, body) ?? "ignore";
    } catch (error) {
      if (error instanceof WireError) return "reject";
      if (error instanceof Refusal) return "ignore";
      throw error;
    }
  }

  #send(nodeId: string, frame: Uint8Array): void {
    if (!this.ctx.sessions.get(nodeId)?.member) return;
    if (frame.length < LIMITS.datagramBytesMax) {
      this.ctx.emit({ type: "datagram", nodeId, bytes: concatBytes(KIND, frame) });
    } else this.ctx.call(nodeId, "gossip", frame, CALL_TIMEOUT_MS, () => {});
  }
}

const KIND = Uint8Array.of(GOSSIP_DATAGRAM);
