/**
 * Broadcast among the nodes that a node has member sessions with: GossipSub's rules, with its mesh thinned to
 * what brings messages first.
 *
 * Per topic a node keeps a *mesh* of some six links, agreed by GRAFT and PRUNE. A link is *eager*, messages go
 * over it as they come, or *lazy*, they are announced a little later (IHAVE) and asked for (IWANT) where nothing
 * eager brought them. Links start eager; one that brings duplicates is choked, as PlumTree prunes its tree, as
 * long as enough eager ones are left; one over which a message had to be asked for is unchoked. So each message
 * comes two or three times instead of six, and a node that passes nothing on loses its place.
 *
 * Nothing is passed on before it is found valid. Nothing is promised: what is lost here is found by comparing
 * digests. See DESIGN of the whole in `docs/adr/0011-broadcast.md`.
 *
 * @module
 */

import { LIMITS } from "../core/limits.ts";
import { type Rng, shuffled } from "../core/rng.ts";
import { CACHE_MS, type Entry, MessageCache, noteHolder } from "./gossip_cache.ts";
import { Outbox } from "./gossip_outbox.ts";
import { decodeFrame, type GossipMessage, type MessageId, messageId } from "./gossip_wire.ts";
import {
  GOSSIP_THRESHOLD,
  GRAYLIST_THRESHOLD,
  MESH_THRESHOLD,
  OPPORTUNISTIC_GRAFT_THRESHOLD,
  P3_ACTIVATION_MS,
  PeerScore,
  PUBLISH_THRESHOLD,
} from "./peer_score.ts";

/** What a message is worth to the one that it was delivered to. */
export type Verdict =
  /** Valid and new: it is passed on. */
  | "accept"
  /** Not valid: whoever sent it answers for it. */
  | "reject"
  /** Neither passed on nor held against anybody: known from elsewhere, out of date, not to be judged here. */
  | "ignore";

/** What can happen to {@linkcode Gossip}. `nowMs` never goes back. */
export type GossipEvent =
  /** A member session is open. `outbound`: this node dialed. */
  | { readonly type: "peer-up"; readonly nowMs: number; readonly nodeId: string; readonly outbound: boolean }
  | { readonly type: "peer-down"; readonly nowMs: number; readonly nodeId: string }
  /** A frame of a peer. Throws nothing but `WireError`, and that only here. */
  | { readonly type: "frame"; readonly nowMs: number; readonly from: string; readonly bytes: Uint8Array }
  /** This node says something; `has`: a peer that is known to have it already. */
  | {
    readonly type: "publish";
    readonly nowMs: number;
    readonly topic: string;
    readonly body: Uint8Array;
    readonly has?: string;
  }
  /** The answer to a `deliver`. */
  | { readonly type: "verdict"; readonly nowMs: number; readonly id: MessageId; readonly verdict: Verdict }
  /** Round trip to a peer as measured by others. */
  | { readonly type: "rtt"; readonly nowMs: number; readonly nodeId: string; readonly rttMs: number }
  /** Battery or a metered link: fewer links, less often. */
  | { readonly type: "thrifty"; readonly nowMs: number; readonly thrifty: boolean }
  | { readonly type: "wake"; readonly nowMs: number };

/** What the caller must do next, in order. */
export type GossipEffect =
  /** Send one frame, perhaps more than a datagram holds; without promise of arrival. */
  | { readonly type: "send"; readonly to: string; readonly bytes: Uint8Array }
  /** Judge a message, now or later, by a `verdict`. */
  | {
    readonly type: "deliver";
    readonly id: MessageId;
    readonly topic: string;
    readonly body: Uint8Array;
    readonly from: string;
  }
  /** A peer broke the rules: counted, for people and for trust. */
  | { readonly type: "misbehaved"; readonly nodeId: string; readonly what: Misbehaviour }
  /** When to wake it, instead of what it said before; `Infinity`: not at all. */
  | { readonly type: "wakeAt"; readonly atMs: number };

/** How a peer can break the rules. */
export type Misbehaviour = "invalid-message" | "broken-promise" | "early-graft" | "flood";

/** Options of {@linkcode Gossip}. */
export interface GossipOptions {
  /** All topics; whoever takes part takes part in each. */
  readonly topics: readonly string[];
  readonly rng: Rng;
  /** Size that frames are kept to where a single message is not larger itself. @default a datagram's */
  readonly frameBytesMax?: number;
  /** @default false */
  readonly thrifty?: boolean;
}

/** Numbers since the start. */
export interface GossipCounters {
  published: number;
  /** Messages that came for the first time. */
  received: number;
  accepted: number;
  rejected: number;
  ignored: number;
  /** Messages that came again. */
  duplicates: number;
  /** Messages that had to be asked for. */
  pulled: number;
  framesOut: number;
  /** Messages sent, each time counted. */
  messagesOut: number;
  bytesOut: number;
  framesDropped: number;
}

/** How a node stands in its gossip, for people and tests. */
export interface GossipView {
  readonly peers: readonly { readonly nodeId: string; readonly score: number }[];
  readonly topics: readonly {
    readonly topic: string;
    readonly mesh: readonly string[];
    readonly eager: readonly string[];
  }[];
  readonly seen: number;
  readonly cached: number;
  readonly cachedBytes: number;
  readonly wanted: number;
  readonly validating: number;
  readonly scores: number;
  readonly counters: Readonly<GossipCounters>;
}

/** Degrees of the mesh. */
interface Degrees {
  readonly d: number;
  readonly dLo: number;
  readonly dHi: number;
  /** Links that this node dialed: nobody who dials it often enough has the whole mesh. */
  readonly dOut: number;
  /** Links kept by score when there are too many; the others by chance. */
  readonly dScore: number;
  /** With more eager links than this, one that brings duplicates is choked. */
  readonly eager: number;
  /** With fewer than this, a lazy one is unchoked. */
  readonly eagerLo: number;
}

const NORMAL: Degrees = { d: 6, dLo: 4, dHi: 12, dOut: 2, dScore: 4, eager: 5, eagerLo: 2 };
const THRIFTY: Degrees = { d: 3, dLo: 2, dHi: 6, dOut: 1, dScore: 2, eager: 2, eagerLo: 2 };
/** Peers that a node's own message is sent to at least. */
const PUBLISH_LINKS_MIN = 4;

const HEARTBEAT_MS = 1_000;
/** Heartbeat while nothing is under way. */
const HEARTBEAT_IDLE_MS = 60_000;
const THRIFTY_FACTOR = 3;
/** Messages are announced at heartbeats for so long while some get lost (`mcache_gossip` of three heartbeats). */
const GOSSIP_MS = 3_000;
/** Heartbeats from one announcement outside the mesh to the next, while nothing gets lost. */
const GOSSIP_EVERY = 6;
/** Lazy links that hear of a message while nothing gets lost; all of them do else. */
const ANNOUNCE_LINKS = 1;
const BACKOFF_MS = 60_000;
/** A grafter that counts a little faster is no offender. */
const BACKOFF_SLACK_MS = 2_000;
/** So soon after a prune, a graft is no offence. */
const CROSSING_MS = 1_000;
const OPPORTUNISTIC_GRAFT_EVERY_MS = 60_000;
const OPPORTUNISTIC_GRAFT_PEERS = 2;
/** Announcements on lazy links: late enough that the other end's comes first as often as not, and ours is saved. */
const ANNOUNCE_MS = { min: 50, spread: 150 } as const;
/** From an announcement to the question, for eager links to be faster. */
const PULL_WAIT_MS = 30;
/** From the question to a broken promise, besides round trips. */
const PROMISE_MS = 400;
/** Announcers of one message that are remembered. */
const ANNOUNCERS_MAX = 4;
/** Questions for one message. */
const PULL_TRIES_MAX = 4;
/** Times that one message is given to one peer that asks. */
const RETRANSMISSIONS_MAX = 3;
/** Per peer and second. */
const IHAVE_FRAMES_MAX = 20;
const IHAVE_IDS_MAX = 1_024;
const IWANT_IDS_MAX = 512;
const MESSAGES_MAX = 1_000;
/** From this size on, a message that has come is said not to be wanted from others. */
const LARGE_BYTES = 2 << 10;
const DONT_WANT_MAX = 128;
/** Messages over a link that is choked, before the other end is told once more. */
const STRAYS_MAX = 3;
/** Bad scores outlive a disconnection by this. */
const RETAIN_SCORE_MS = 10 * 60_000;
/** Share of the peers that hear announcements in a heartbeat while messages get lost, one in so many. */
const GOSSIP_FACTOR = 4;
const D_LAZY = 6;
/** After a message that had to be asked for, the network counts as losing some for so long. */
const RESTLESS_MS = 20_000;

interface Link {
  eager: boolean;
  readonly sinceMs: number;
  /** Messages over it although it is choked, in a row. */
  strays: number;
}

interface Peer {
  readonly nodeId: string;
  readonly outbound: boolean;
  readonly score: PeerScore;
  rttMs: number;
  /** When it may be grafted again, by topic. */
  readonly backoffMs: Map<string, number>;
  /** Since when and until when it may not graft, having been pruned here. */
  readonly banned: Map<string, { readonly sinceMs: number; readonly untilMs: number }>;
  /** Ids to be announced to it. */
  readonly announce: Set<MessageId>;
  readonly dontWant: Set<MessageId>;
  /** What it did in the second that began here. */
  secondMs: number;
  ihaveFrames: number;
  ihaveIds: number;
  iwantIds: number;
  messages: number;
  /** What goes to it at the end of this step. */
  out: Outbox | undefined;
}

/** A message that was announced and has not come. */
interface Wanted {
  /** Whom to ask, in this order. */
  announcers: string[];
  tries: number;
  /** Whom it was asked of; `undefined`: nobody yet. */
  asked: string | undefined;
  atMs: number;
}

/** Broadcast of one node. */
export class Gossip {
  readonly #topics: readonly string[];
  readonly #rng: Rng;
  readonly #frameBytesMax: number;
  readonly #peers = new Map<string, Peer>();
  readonly #mesh = new Map<string, Map<string, Link>>();
  readonly #scores = new Map<string, { readonly score: PeerScore; readonly untilMs: number }>();
  readonly #cache = new MessageCache();
  readonly #wanted = new Map<MessageId, Wanted>();
  #thrifty: boolean;
  #nowMs = 0;
  #effects: GossipEffect[] = [];
  /** Peers with a frame in the making. */
  #outs: Peer[] = [];
  /** Peers with ids to be announced. */
  readonly #announceTo = new Set<Peer>();
  /** Ids that some peer does not want, since the last heartbeat. */
  #dontWants = 0;
  #announceAtMs = Infinity;
  /** No question is due before. */
  #pullAtMs = Infinity;
  #heartbeatAtMs = Infinity;
  #graftAtMs = Infinity;
  #restlessUntilMs = 0;
  #heartbeats = 0;
  #toldWakeMs = Infinity;
  readonly #counters: GossipCounters = {
    published: 0,
    received: 0,
    accepted: 0,
    rejected: 0,
    ignored: 0,
    duplicates: 0,
    pulled: 0,
    framesOut: 0,
    messagesOut: 0,
    bytesOut: 0,
    framesDropped: 0,
  };

  constructor(options: GossipOptions) {
    this.#topics = options.topics;
    this.#rng = options.rng;
    this.#frameBytesMax = options.frameBytesMax ?? LIMITS.datagramBytesMax - 1;
    this.#thrifty = options.thrifty ?? false;
    for (const topic of this.#topics) this.#mesh.set(topic, new Map());
  }

  /** How it stands now. */
  view(nowMs: number): GossipView {
    return {
      peers: [...this.#peers.values()].map(({ nodeId, score }) => ({ nodeId, score: score.value(nowMs) })),
      topics: [...this.#mesh].map(([topic, links]) => ({
        topic,
        mesh: [...links.keys()],
        eager: [...links].filter(([, link]) => link.eager).map(([nodeId]) => nodeId),
      })),
      seen: this.#cache.seen,
      cached: this.#cache.bodies,
      cachedBytes: this.#cache.bytes,
      wanted: this.#wanted.size,
      validating: this.#cache.validating,
      scores: this.#scores.size,
      counters: this.#counters,
    };
  }

  /**
   * Takes one event and returns what to do, in order.
   *
   * @throws {WireError} On a `frame` that does not read; it has no other effect.
   */
  step(event: GossipEvent): GossipEffect[] {
    this.#nowMs = Math.max(this.#nowMs, event.nowMs);
    this.#effects = [];
    switch (event.type) {
      case "peer-up":
        this.#peerUp(event.nodeId, event.outbound);
        break;
      case "peer-down":
        this.#peerDown(event.nodeId);
        break;
      case "frame":
        this.#frame(event.from, event.bytes);
        break;
      case "publish":
        this.#publish({ topic: event.topic, body: event.body }, event.has);
        break;
      case "verdict":
        this.#verdict(event.id, event.verdict);
        break;
      case "rtt": {
        const peer = this.#peers.get(event.nodeId);
        if (peer) peer.rttMs = Math.min(5_000, Math.max(0, Math.ceil(event.rttMs)));
        break;
      }
      case "thrifty":
        if (this.#thrifty !== event.thrifty) this.#heartbeatAtMs = Math.min(this.#heartbeatAtMs, this.#nowMs);
        this.#thrifty = event.thrifty;
        break;
      case "wake":
        break;
      default:
        event satisfies never;
    }
    this.#work();
    this.#flush();
    this.#tellWake();
    return this.#effects;
  }

  get #degrees(): Degrees {
    return this.#thrifty ? THRIFTY : NORMAL;
  }

  /** Links that stay eager although they bring duplicates: few where everybody is one or two hops away anyway. */
  get #eagerMax(): number {
    const { eager, eagerLo } = this.#degrees;
    return Math.max(eagerLo, Math.min(eager, Math.ceil(this.#peers.size / 3)));
  }

  /** Whether messages got lost lately, here or where somebody asked. */
  get #isRestless(): boolean {
    return this.#nowMs < this.#restlessUntilMs;
  }

  /** Whatever is due. */
  #work(): void {
    if (this.#nowMs >= this.#announceAtMs) this.#announce();
    if (this.#nowMs >= this.#pullAtMs) this.#pull();
    if (this.#nowMs >= this.#heartbeatAtMs) this.#heartbeat();
  }

  #tellWake(): void {
    if (this.#wanted.size === 0) this.#pullAtMs = Infinity;
    const atMs = Math.min(this.#announceAtMs, this.#heartbeatAtMs, this.#pullAtMs);
    if (atMs === this.#toldWakeMs) return;
    this.#toldWakeMs = atMs;
    this.#effects.push({ type: "wakeAt", atMs });
  }

  // Peers.

  #peerUp(nodeId: string, outbound: boolean): void {
    if (this.#peers.has(nodeId)) return;
    const retained = this.#scores.get(nodeId);
    this.#scores.delete(nodeId);
    this.#peers.set(nodeId, {
      nodeId,
      outbound,
      score: retained?.score ?? new PeerScore(this.#nowMs),
      rttMs: 0,
      backoffMs: new Map(),
      banned: new Map(),
      announce: new Set(),
      dontWant: new Set(),
      secondMs: this.#nowMs,
      ihaveFrames: 0,
      ihaveIds: 0,
      iwantIds: 0,
      messages: 0,
      out: undefined,
    });
    const peer = this.#peers.get(nodeId)!;
    for (const topic of this.#topics) this.#fill(topic);
    // What this node said while nobody was there.
    for (const entry of this.#cache.recent(this.#nowMs, CACHE_MS)) {
      if (entry.from === undefined && entry.sent.length === 0) this.#give(peer, entry);
    }
    // A mesh that has just changed is looked after once more when the first storm is over.
    this.#heartbeatSoon();
  }

  #peerDown(nodeId: string): void {
    const peer = this.#peers.get(nodeId);
    if (!peer) return;
    this.#peers.delete(nodeId);
    this.#outs = this.#outs.filter((one) => one !== peer);
    for (const topic of this.#topics) {
      if (this.#mesh.get(topic)!.delete(nodeId)) {
        this.#fill(topic);
        this.#keepEager(topic);
      }
    }
    peer.score.meshSinceMs = undefined;
    if (peer.score.value(this.#nowMs) < 0) {
      this.#scores.set(nodeId, { score: peer.score, untilMs: this.#nowMs + RETAIN_SCORE_MS });
      dropOldest(this.#scores, LIMITS.gossipScoresMax);
    }
    for (const one of this.#wanted.values()) {
      one.announcers = one.announcers.filter((other) => other !== nodeId);
      // Nobody's promise is broken where the channel is.
      if (one.asked === nodeId) [one.asked, one.atMs] = [undefined, this.#nowMs];
      this.#pullAtMs = Math.min(this.#pullAtMs, one.atMs);
    }
    if (this.#peers.size > 0) this.#heartbeatSoon();
    else this.#heartbeatAtMs = this.#cache.bodies > 0 ? this.#heartbeatAtMs : Infinity;
  }

  /** Messages get lost: for a while, more is announced, and more often. */
  #noteLoss(): void {
    this.#restlessUntilMs = this.#nowMs + RESTLESS_MS;
    this.#heartbeatSoon();
  }

  /** A heartbeat for a message that is kept: when it goes, or sooner while some get lost. */
  #keepAlive(): void {
    const waitMs = this.#isRestless ? this.#heartbeatMs() : CACHE_MS;
    this.#heartbeatAtMs = Math.min(this.#heartbeatAtMs, this.#nowMs + waitMs);
  }

  #heartbeatSoon(): void {
    this.#heartbeatAtMs = Math.min(this.#heartbeatAtMs, this.#nowMs + this.#heartbeatMs());
  }

  #heartbeatMs(): number {
    return HEARTBEAT_MS * (this.#thrifty ? THRIFTY_FACTOR : 1);
  }

  #scoreOf(peer: Peer): number {
    return peer.score.value(this.#nowMs);
  }

  #misbehaved(peer: Peer, what: Misbehaviour): void {
    if (what === "invalid-message") peer.score.invalid(this.#nowMs);
    else peer.score.misbehaved(this.#nowMs);
    this.#effects.push({ type: "misbehaved", nodeId: peer.nodeId, what });
    if (this.#scoreOf(peer) >= MESH_THRESHOLD) return;
    // Not at the next heartbeat: until then everything would still go through it.
    for (const topic of this.#topics) this.#unlink(peer, topic, true);
  }

  // Mesh.

  /** Grafts where there are fewer than Dlo links. */
  #fill(topic: string): void {
    const links = this.#mesh.get(topic)!;
    // Others graft as well: who stops at Dlo ends up with D.
    const lacking = this.#degrees.dLo - links.size;
    if (lacking <= 0) return;
    for (const peer of this.#graftable(topic).slice(0, lacking)) this.#graft(peer, topic);
  }

  /** Peers that may be grafted, in random order. */
  #graftable(topic: string): Peer[] {
    const links = this.#mesh.get(topic)!;
    const out: Peer[] = [];
    for (const peer of this.#peers.values()) {
      if (!links.has(peer.nodeId) && this.#mayGraft(peer, topic)) out.push(peer);
    }
    return shuffled(out, this.#rng);
  }

  #mayGraft(peer: Peer, topic: string): boolean {
    return (peer.backoffMs.get(topic) ?? 0) <= this.#nowMs && this.#scoreOf(peer) >= MESH_THRESHOLD;
  }

  #graft(peer: Peer, topic: string): void {
    this.#link(peer, topic);
    this.#out(peer).graft.add(topic);
  }

  #link(peer: Peer, topic: string): void {
    this.#mesh.get(topic)!.set(peer.nodeId, { eager: true, sinceMs: this.#nowMs, strays: 0 });
    peer.score.meshSinceMs ??= this.#nowMs;
  }

  /** Takes a peer out of a mesh; tells it unless it says so itself. */
  #unlink(peer: Peer, topic: string, tell: boolean, backoffMs: number = BACKOFF_MS): void {
    if (!this.#mesh.get(topic)!.delete(peer.nodeId)) return;
    if (this.#topics.every((one) => !this.#mesh.get(one)!.has(peer.nodeId))) {
      peer.score.pruned(this.#nowMs);
      peer.score.meshSinceMs = undefined;
    }
    if (tell) this.#prune(peer, topic, backoffMs);
    else peer.backoffMs.set(topic, this.#nowMs + backoffMs + BACKOFF_SLACK_MS);
    this.#heartbeatSoon();
  }

  #prune(peer: Peer, topic: string, backoffMs: number): void {
    peer.backoffMs.set(topic, this.#nowMs + backoffMs);
    peer.banned.set(topic, { sinceMs: this.#nowMs, untilMs: this.#nowMs + backoffMs });
    this.#out(peer).prune.set(topic, Math.ceil(backoffMs / 1_000));
  }

  #eagerCount(topic: string): number {
    let count = 0;
    for (const link of this.#mesh.get(topic)!.values()) if (link.eager) count += 1;
    return count;
  }

  /** Unchokes until there are enough eager links. */
  #keepEager(topic: string): void {
    const { eagerLo } = this.#degrees;
    let missing = eagerLo - this.#eagerCount(topic);
    if (missing <= 0) return;
    const lazy = [...this.#mesh.get(topic)!].filter(([, link]) => !link.eager).map(([nodeId]) => nodeId);
    for (const nodeId of shuffled(lazy, this.#rng)) {
      if (missing-- <= 0) return;
      this.#unchoke(this.#peers.get(nodeId)!, topic);
    }
  }

  #unchoke(peer: Peer, topic: string): void {
    const link = this.#mesh.get(topic)!.get(peer.nodeId);
    if (!link || link.eager) return;
    [link.eager, link.strays] = [true, 0];
    this.#out(peer).unchoke.add(topic);
  }

  #onGraft(peer: Peer, topic: string): void {
    const links = this.#mesh.get(topic);
    // A newer node may know topics that this one does not: it is told so, for long.
    if (!links) return void this.#out(peer).prune.set(topic, BACKOFF_MS / 1_000);
    if (links.has(peer.nodeId)) return;
    const { dHi, dOut } = this.#degrees;
    const ban = peer.banned.get(topic);
    if (ban && this.#nowMs < ban.untilMs) {
      // The two may have met on their way.
      if (this.#nowMs - ban.sinceMs > CROSSING_MS + 2 * peer.rttMs) this.#misbehaved(peer, "early-graft");
      return this.#prune(peer, topic, BACKOFF_MS);
    }
    if (this.#scoreOf(peer) < MESH_THRESHOLD) return this.#prune(peer, topic, BACKOFF_MS);
    // A full mesh takes in links that this node dialed only, and only where it lacks some.
    const full = links.size >= dHi && !(peer.outbound && this.#outboundCount(links) < dOut);
    if (full) return this.#prune(peer, topic, BACKOFF_MS);
    this.#link(peer, topic);
    this.#heartbeatSoon();
  }

  #outboundCount(links: ReadonlyMap<string, Link>): number {
    let count = 0;
    for (const nodeId of links.keys()) if (this.#peers.get(nodeId)!.outbound) count += 1;
    return count;
  }

  // Frames.

  #frame(from: string, bytes: Uint8Array): void {
    const peer = this.#peers.get(from);
    if (!peer || this.#scoreOf(peer) < GRAYLIST_THRESHOLD) {
      this.#counters.framesDropped += 1;
      return;
    }
    const frame = decodeFrame(bytes);
    if (this.#nowMs - peer.secondMs >= 1_000) {
      [peer.secondMs, peer.ihaveFrames, peer.ihaveIds, peer.iwantIds, peer.messages] = [this.#nowMs, 0, 0, 0, 0];
    }
    for (const { topic, backoffS } of frame.prune) {
      if (!this.#mesh.has(topic)) continue;
      const backoffMs = 1_000 * backoffS;
      peer.backoffMs.set(topic, this.#nowMs + backoffMs + BACKOFF_SLACK_MS);
      this.#unlink(peer, topic, false, backoffMs);
      this.#keepEager(topic);
    }
    for (const topic of frame.graft) this.#onGraft(peer, topic);
    for (const topic of frame.choke) {
      const link = this.#mesh.get(topic)?.get(from);
      if (!link?.eager) continue;
      [link.eager, link.strays] = [false, 0];
      this.#keepEager(topic);
    }
    for (const topic of frame.unchoke) {
      const link = this.#mesh.get(topic)?.get(from);
      if (link) [link.eager, link.strays] = [true, 0];
    }
    for (const id of frame.idontwant) {
      const entry = this.#cache.get(id);
      if (entry) noteHolder(entry, from);
      else if (peer.dontWant.size < DONT_WANT_MAX) {
        peer.dontWant.add(id);
        this.#dontWants += 1;
      }
    }
    for (const message of frame.messages) this.#message(peer, message);
    if (frame.iwant.length > 0) this.#onIwant(peer, frame.iwant);
    if (frame.ihave.length > 0) this.#onIhave(peer, frame.ihave);
  }

  #message(peer: Peer, message: GossipMessage): void {
    const links = this.#mesh.get(message.topic);
    // Of a newer node; its ids are not worth remembering.
    if (!links) return;
    if (++peer.messages > MESSAGES_MAX) {
      if (peer.messages === MESSAGES_MAX + 1) this.#misbehaved(peer, "flood");
      return;
    }
    const same = this.#cache.find(message);
    if (same) return this.#again(peer, same);
    const id = messageId(message);
    const known = this.#cache.get(id);
    if (known) return this.#again(peer, known);
    if (this.#cache.validating >= LIMITS.gossipValidatingMax) return;
    const wanted = this.#wanted.get(id);
    this.#wanted.delete(id);
    const entry = this.#cache.add(id, message, peer.nodeId, this.#nowMs);
    this.#counters.received += 1;
    this.#takeDontWants(entry);
    if (wanted?.asked !== undefined) this.#pulled(peer, entry, wanted);
    // A frame was lost: one end has a link that the other does not know of.
    else if (!links.has(peer.nodeId)) this.#answerStranger(peer, message.topic);
    if (message.body.length >= LARGE_BYTES) {
      for (const [nodeId, link] of links) {
        if (link.eager && !entry.holders.includes(nodeId)) this.#out(this.#peers.get(nodeId)!).idontwant.push(id);
      }
    }
    this.#effects.push({ type: "deliver", id, topic: message.topic, body: message.body, from: peer.nodeId });
  }

  /** A message that is known already. */
  #again(peer: Peer, entry: Entry): void {
    this.#counters.duplicates += 1;
    if (entry.state === "rejected" || entry.state === "validating") {
      const again = entry.senders.includes(peer.nodeId);
      if (!again) entry.senders.push(peer.nodeId);
      if (entry.state === "rejected") {
        if (!again) this.#misbehaved(peer, "invalid-message");
        return;
      }
    }
    // Once, and in time: playing back what it got earns nobody anything.
    if (entry.body && !entry.holders.includes(peer.nodeId)) peer.score.near(this.#nowMs);
    noteHolder(entry, peer.nodeId);
    peer.announce.delete(entry.id);
    const link = this.#mesh.get(entry.topic)!.get(peer.nodeId);
    if (!link) return;
    if (link.eager) {
      if (this.#eagerCount(entry.topic) <= this.#eagerMax) return;
      [link.eager, link.strays] = [false, 0];
    } else if (++link.strays < STRAYS_MAX) return;
    link.strays = 0;
    this.#out(peer).choke.add(entry.topic);
  }

  /** A message came because it was asked for: eager links failed, and this one did not. */
  #pulled(peer: Peer, entry: Entry, wanted: Wanted): void {
    this.#counters.pulled += 1;
    this.#noteLoss();
    if (wanted.asked === peer.nodeId) peer.score.keptPromise(this.#nowMs);
    for (const nodeId of wanted.announcers) noteHolder(entry, nodeId);
    const links = this.#mesh.get(entry.topic)!;
    for (const [nodeId, link] of links) {
      if (!link.eager || this.#nowMs - link.sinceMs < P3_ACTIVATION_MS || entry.holders.includes(nodeId)) continue;
      const other = this.#peers.get(nodeId)!;
      other.score.missed(this.#nowMs);
      if (this.#scoreOf(other) < MESH_THRESHOLD) this.#unlink(other, entry.topic, true);
    }
    if (links.has(peer.nodeId)) this.#unchoke(peer, entry.topic);
    // Its mesh left this node in the dark, and somebody outside did not.
    else if (links.size < this.#degrees.dHi && this.#mayGraft(peer, entry.topic)) this.#graft(peer, entry.topic);
  }

  /** A message of a peer that is no link here: it becomes one, or hears that it is none. */
  #answerStranger(peer: Peer, topic: string): void {
    const links = this.#mesh.get(topic)!;
    if (links.size < this.#degrees.d && this.#mayGraft(peer, topic)) return this.#graft(peer, topic);
    // No ban: its graft may only have been slower than its message.
    this.#out(peer).prune.set(topic, 1);
  }

  #onIhave(peer: Peer, ids: readonly MessageId[]): void {
    if (this.#scoreOf(peer) < GOSSIP_THRESHOLD) return;
    peer.ihaveFrames += 1;
    if (peer.ihaveFrames > IHAVE_FRAMES_MAX || peer.ihaveIds >= IHAVE_IDS_MAX) {
      // Honest peers gather their announcements, so that none comes near.
      if (peer.ihaveFrames % IHAVE_FRAMES_MAX === 1) this.#misbehaved(peer, "flood");
      return;
    }
    for (const id of ids) {
      if (++peer.ihaveIds > IHAVE_IDS_MAX) break;
      const entry = this.#cache.get(id);
      if (entry) {
        if (entry.state !== "rejected") this.#hasIt(peer, entry);
        continue;
      }
      const wanted = this.#wanted.get(id);
      if (wanted) {
        const { announcers } = wanted;
        if (announcers.length < ANNOUNCERS_MAX && !announcers.includes(peer.nodeId)) announcers.push(peer.nodeId);
      } else if (this.#wanted.size < LIMITS.gossipWantedMax) {
        const atMs = this.#nowMs + PULL_WAIT_MS + Math.ceil(peer.rttMs / 2);
        this.#wanted.set(id, { announcers: [peer.nodeId], tries: 0, asked: undefined, atMs });
        this.#pullAtMs = Math.min(this.#pullAtMs, atMs);
      }
    }
  }

  #hasIt(peer: Peer, entry: Entry): void {
    if (!entry.body || entry.holders.includes(peer.nodeId)) return;
    noteHolder(entry, peer.nodeId);
    peer.announce.delete(entry.id);
    peer.score.near(this.#nowMs);
    // It would have sent it if it did not take the link for a lazy one: a frame was lost.
    const link = this.#mesh.get(entry.topic)!.get(peer.nodeId);
    if (!link?.eager) return;
    [link.eager, link.strays] = [false, 0];
    this.#keepEager(entry.topic);
  }

  #onIwant(peer: Peer, ids: readonly MessageId[]): void {
    for (const id of ids) {
      if (++peer.iwantIds > IWANT_IDS_MAX) {
        if (peer.iwantIds === IWANT_IDS_MAX + 1) this.#misbehaved(peer, "flood");
        return;
      }
      const entry = this.#cache.get(id);
      if (entry?.state !== "valid" || !entry.body) continue;
      entry.given ??= new Map();
      const given = (entry.given.get(peer.nodeId) ?? 0) + 1;
      entry.given.set(peer.nodeId, given);
      if (given > RETRANSMISSIONS_MAX) {
        if (given === RETRANSMISSIONS_MAX + 1) this.#misbehaved(peer, "flood");
        continue;
      }
      if (!entry.sent.includes(peer.nodeId)) entry.sent.push(peer.nodeId);
      peer.announce.delete(id);
      this.#out(peer).messages.push(entry);
      this.#noteLoss();
      // Whoever asks over a lazy link makes it eager here as well as there; should the word of it be lost,
      // the first announcement sets it right.
    }
  }

  // Messages.

  #takeDontWants(entry: Entry): void {
    if (this.#dontWants === 0) return;
    for (const peer of this.#peers.values()) {
      if (peer.dontWant.size > 0 && peer.dontWant.delete(entry.id)) noteHolder(entry, peer.nodeId);
    }
  }

  #publish(message: GossipMessage, has: string | undefined): void {
    const links = this.#mesh.get(message.topic);
    if (!links || message.body.length > LIMITS.gossipBodyBytesMax) return;
    const id = messageId(message);
    const known = this.#cache.get(id);
    // What this node had ignored it may have found to be good since.
    if (known && known.state !== "ignored") return;
    this.#cache.forget(id);
    this.#counters.published += 1;
    this.#wanted.delete(id);
    const entry = this.#cache.add(id, message, undefined, this.#nowMs);
    if (has !== undefined) noteHolder(entry, has);
    this.#takeDontWants(entry);
    this.#cache.keep(entry, this.#nowMs);
    this.#keepAlive();
    // Eager links first; then lazy ones and, where the mesh is small, others: so that no two or three bad
    // neighbours can keep a node from being heard.
    const eager: Peer[] = [];
    const lazy: Peer[] = [];
    for (const [nodeId, link] of links) (link.eager ? eager : lazy).push(this.#peers.get(nodeId)!);
    const others = links.size >= PUBLISH_LINKS_MIN
      ? []
      : [...this.#peers.values()].filter((one) => !links.has(one.nodeId));
    const whom = [...eager, ...shuffled(lazy, this.#rng), ...shuffled(others, this.#rng)]
      .filter((one) => this.#scoreOf(one) >= PUBLISH_THRESHOLD)
      .slice(0, Math.max(PUBLISH_LINKS_MIN, eager.length));
    for (const peer of whom) this.#give(peer, entry);
    this.#announceLater(entry);
  }

  #verdict(id: MessageId, verdict: Verdict): void {
    const entry = this.#cache.get(id);
    if (entry?.state !== "validating") return;
    if (verdict !== "accept") {
      this.#cache.refuse(entry, verdict === "reject" ? "rejected" : "ignored");
      this.#counters[verdict === "reject" ? "rejected" : "ignored"] += 1;
      if (verdict !== "reject") return;
      for (const nodeId of entry.senders) {
        const peer = this.#peers.get(nodeId);
        if (peer) this.#misbehaved(peer, "invalid-message");
      }
      return;
    }
    this.#counters.accepted += 1;
    const first = entry.from === undefined ? undefined : this.#peers.get(entry.from);
    first?.score.first(this.#nowMs);
    this.#cache.keep(entry, this.#nowMs);
    this.#keepAlive();
    for (const [nodeId, link] of this.#mesh.get(entry.topic)!) {
      if (link.eager) this.#give(this.#peers.get(nodeId)!, entry);
    }
    this.#announceLater(entry);
  }

  #give(peer: Peer, entry: Entry): void {
    if (entry.holders.includes(peer.nodeId) || entry.sent.includes(peer.nodeId)) return;
    entry.sent.push(peer.nodeId);
    this.#out(peer).messages.push(entry);
  }

  /** Announces a message to the lazy links, in a while. */
  #announceLater(entry: Entry): void {
    const lazy: Peer[] = [];
    for (const [nodeId, link] of this.#mesh.get(entry.topic)!) {
      if (!link.eager && !entry.holders.includes(nodeId) && !entry.sent.includes(nodeId)) {
        lazy.push(this.#peers.get(nodeId)!);
      }
    }
    if (lazy.length === 0) return;
    const whom = this.#isRestless ? lazy : shuffled(lazy, this.#rng).slice(0, ANNOUNCE_LINKS);
    for (const peer of whom) {
      peer.announce.add(entry.id);
      this.#announceTo.add(peer);
    }
    if (this.#announceAtMs !== Infinity) return;
    const waitMs = ANNOUNCE_MS.min + this.#rng.below(ANNOUNCE_MS.spread);
    this.#announceAtMs = this.#nowMs + waitMs * (this.#thrifty ? THRIFTY_FACTOR : 1);
  }

  #announce(): void {
    this.#announceAtMs = Infinity;
    for (const peer of this.#announceTo) {
      if (peer.announce.size > 0 && this.#peers.get(peer.nodeId) === peer && this.#scoreOf(peer) >= GOSSIP_THRESHOLD) {
        for (const id of peer.announce) if (this.#cache.get(id)?.body) this.#out(peer).ihave.push(id);
      }
      peer.announce.clear();
    }
    this.#announceTo.clear();
  }

  /** Asks for what was announced and has not come. */
  #pull(): void {
    const liars = new Set<Peer>();
    this.#pullAtMs = Infinity;
    for (const [id, wanted] of this.#wanted) {
      if (this.#nowMs >= wanted.atMs) {
        const liar = this.#ask(id, wanted);
        if (liar) liars.add(liar);
        if (wanted.asked === undefined) this.#wanted.delete(id);
      }
      if (wanted.asked !== undefined || this.#nowMs < wanted.atMs) {
        this.#pullAtMs = Math.min(this.#pullAtMs, wanted.atMs);
      }
    }
    // One frame that got lost is one broken promise, however many ids were in it.
    for (const liar of liars) this.#misbehaved(liar, "broken-promise");
  }

  /** Asks the next announcer, if there is one; returns the one that was asked in vain. */
  #ask(id: MessageId, wanted: Wanted): Peer | undefined {
    const liar = wanted.asked === undefined ? undefined : this.#peers.get(wanted.asked);
    // The question or its answer may be what got lost: it gets its turn again after the others.
    if (liar && wanted.tries < PULL_TRIES_MAX) wanted.announcers.push(liar.nodeId);
    wanted.asked = undefined;
    for (let next = wanted.announcers.shift(); next !== undefined; next = wanted.announcers.shift()) {
      const peer = this.#peers.get(next);
      if (!peer) continue;
      wanted.asked = next;
      wanted.tries += 1;
      wanted.atMs = this.#nowMs + PROMISE_MS + 3 * peer.rttMs;
      this.#out(peer).iwant.push(id);
      break;
    }
    return liar;
  }

  // Heartbeat.

  #heartbeat(): void {
    this.#heartbeats += 1;
    for (const [nodeId, { untilMs }] of this.#scores) if (this.#nowMs >= untilMs) this.#scores.delete(nodeId);
    for (const peer of this.#peers.values()) {
      if (peer.dontWant.size > 0) peer.dontWant.clear();
      if (peer.backoffMs.size > 0) dropPast(peer.backoffMs, (untilMs) => this.#nowMs >= untilMs);
      if (peer.banned.size > 0) dropPast(peer.banned, ({ untilMs }) => this.#nowMs >= untilMs);
    }
    this.#dontWants = 0;
    for (const topic of this.#topics) this.#maintain(topic);
    if (this.#nowMs >= this.#graftAtMs) {
      for (const topic of this.#topics) this.#graftBetter(topic);
      this.#graftAtMs = Infinity;
    }
    if (this.#graftAtMs === Infinity && this.#peers.size > 0) {
      this.#graftAtMs = this.#nowMs + OPPORTUNISTIC_GRAFT_EVERY_MS;
    }
    this.#gossip();
    this.#cache.expire(this.#nowMs);
    this.#heartbeatAtMs = this.#nextHeartbeatMs();
  }

  /** Soon while something is under way; else when there may be something to mend. */
  #nextHeartbeatMs(): number {
    if (this.#isRestless && this.#cache.bodies > 0) return this.#nowMs + this.#heartbeatMs();
    const { expiresMs } = this.#cache;
    if (this.#peers.size === 0) return expiresMs;
    let atMs = Math.min(this.#nowMs + HEARTBEAT_IDLE_MS, expiresMs);
    for (const topic of this.#topics) {
      const links = this.#mesh.get(topic)!;
      if (links.size >= this.#degrees.dLo) continue;
      // Somebody may be grafted when its back-off is over.
      for (const peer of this.#peers.values()) {
        const untilMs = peer.backoffMs.get(topic);
        if (!links.has(peer.nodeId) && untilMs !== undefined) atMs = Math.min(atMs, untilMs);
      }
    }
    return Math.max(atMs, this.#nowMs + this.#heartbeatMs());
  }

  /** Keeps a mesh within its bounds. */
  #maintain(topic: string): void {
    const links = this.#mesh.get(topic)!;
    const { d, dLo, dHi, dOut, dScore } = this.#degrees;
    for (const nodeId of [...links.keys()]) {
      const peer = this.#peers.get(nodeId)!;
      if (this.#scoreOf(peer) < MESH_THRESHOLD) this.#unlink(peer, topic, true);
    }
    if (links.size < dLo) this.#fill(topic);
    if (links.size > dHi) {
      const ranked = shuffled([...links.keys()].map((nodeId) => this.#peers.get(nodeId)!), this.#rng);
      ranked.sort((a, b) => this.#scoreOf(b) - this.#scoreOf(a));
      const order = [...ranked.slice(0, dScore), ...shuffled(ranked.slice(dScore), this.#rng)];
      // The outbound ones that are needed come before the last that would stay.
      const outbound = order.filter((one) => one.outbound).slice(0, dOut);
      const stay = new Set(outbound);
      for (const peer of order) if (stay.size < d) stay.add(peer);
      for (const peer of order) if (!stay.has(peer)) this.#unlink(peer, topic, true);
    }
    const lacking = dOut - this.#outboundCount(links);
    if (links.size >= dLo && lacking > 0) {
      const more = this.#graftable(topic).filter((one) => one.outbound).slice(0, lacking);
      for (const peer of more) if (links.size < dHi) this.#graft(peer, topic);
    }
    this.#keepEager(topic);
  }

  /** Where a mesh does badly, better peers are taken in beside it. */
  #graftBetter(topic: string): void {
    const links = this.#mesh.get(topic)!;
    if (links.size < 2) return;
    const scores = [...links.keys()].map((nodeId) => this.#scoreOf(this.#peers.get(nodeId)!)).sort((a, b) => a - b);
    const median = scores[scores.length >> 1]!;
    if (median >= OPPORTUNISTIC_GRAFT_THRESHOLD) return;
    const better = this.#graftable(topic).filter((one) => this.#scoreOf(one) > median);
    for (const peer of better.slice(0, OPPORTUNISTIC_GRAFT_PEERS)) {
      if (links.size < this.#degrees.dHi) this.#graft(peer, topic);
    }
  }

  /**
   * Announces the messages of the last windows: to one peer outside the mesh now and then, so that nobody whose
   * whole mesh is bad stays in the dark; to a quarter of all peers, each time, while messages get lost.
   */
  #gossip(): void {
    const restless = this.#isRestless;
    if (!restless && this.#heartbeats % GOSSIP_EVERY !== 0) return;
    const recent = this.#cache.recent(this.#nowMs, restless ? GOSSIP_MS : CACHE_MS);
    if (recent.length === 0) return;
    for (const topic of this.#topics) {
      const entries = recent.filter((one) => one.topic === topic);
      if (entries.length === 0) continue;
      const links = this.#mesh.get(topic)!;
      // Where messages get lost, those to the mesh do as well.
      const others = [...this.#peers.values()].filter((one) =>
        (restless || !links.has(one.nodeId)) && this.#scoreOf(one) >= GOSSIP_THRESHOLD
      );
      const count = restless ? Math.max(D_LAZY, Math.ceil(others.length / GOSSIP_FACTOR)) : 1;
      for (const peer of shuffled(others, this.#rng).slice(0, this.#thrifty ? 1 : count)) {
        for (const entry of entries) if (!entry.holders.includes(peer.nodeId)) this.#out(peer).ihave.push(entry.id);
      }
    }
  }

  // Frames out.

  #out(peer: Peer): Outbox {
    if (!peer.out) {
      peer.out = new Outbox();
      this.#outs.push(peer);
    }
    return peer.out;
  }

  /** Sends what has gathered in this step, control and messages together where they fit. */
  #flush(): void {
    for (const peer of this.#outs) {
      const out = peer.out!;
      peer.out = undefined;
      for (const { bytes, messages } of out.frames(this.#frameBytesMax)) {
        this.#counters.framesOut += 1;
        this.#counters.messagesOut += messages;
        this.#counters.bytesOut += bytes.length;
        this.#effects.push({ type: "send", to: peer.nodeId, bytes });
      }
    }
    this.#outs = [];
  }
}

/** Drops the entries of a map that are over. */
function dropPast<T>(map: Map<string, T>, isPast: (value: T) => boolean): void {
  for (const [key, value] of map) if (isPast(value)) map.delete(key);
}

/** Drops the oldest entries of a map until it is no larger than this. */
function dropOldest(map: Map<string, unknown>, max: number): void {
  for (const key of map.keys()) {
    if (map.size <= max) return;
    map.delete(key);
  }
}
