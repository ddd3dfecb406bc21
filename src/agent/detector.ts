/**
 * Failure detection, for the other parts: carries the core over datagrams, calls and signed broadcasts, and writes
 * what it finds into the table of members.
 *
 * @module
 */

import { type CborValue, decodeAs, encodeCbor, uint, WireError } from "../core/codec.ts";
import { type Envelope, envelopeValue, readEnvelope } from "../core/envelope.ts";
import { nodeIdOf } from "../core/ids.ts";
import { Swim } from "../membership/swim.ts";
import type { ChannelHint, SwimEffect, SwimEvent } from "../membership/swim_events.ts";
import {
  decodeSwim,
  encodeSwim,
  handleOf,
  INCARNATION_MAX,
  openNews,
  sealNews,
  type SwimUpdate,
} from "../membership/swim_messages.ts";
import type { Method } from "./access_table.ts";
import { type Context, Refusal } from "./context.ts";
import type { Part } from "./part.ts";
import type { DetectionStatus } from "./status.ts";

/** First byte of a datagram of failure detection. */
export const SWIM_DATAGRAM = 0x53;
/** Time between two pings of the neighbour, and on a machine that runs on its battery. */
const INTERVAL_MS = 1_000;
const BATTERY_INTERVAL_MS = 3_000;
/** Where the last incarnation is stored. */
const INCARNATION_KEY = "swim/incarnation";
/** Signed news is about now: older, or of a clock that is further off, it counts no longer. */
const NEWS_MS = 5 * 60_000;
/** A channel to a node that has been dead for so long is closed, so that it is dialed anew. */
const HANG_UP_MS = 10_000;
/** Other traffic is reported to the core no more often. */
const HEARD_EVERY_MS = 250;

/** What it needs of the other parts. */
export interface DetectorPorts {
  /** Members that this node wants a channel to. */
  readonly watched: () => readonly string[];
  /** Tells all members; at most `LIMITS.gossipBodyBytesMax` bytes. */
  readonly publish: (body: Uint8Array) => void;
  /** A member is suspected, or dead: told to who depends on it. */
  doubted?(nodeId: string): void;
}

/** What became of a broadcast. */
export type NewsVerdict = "accept" | "ignore" | "reject";

/** Failure detection. */
export class Detector implements Part {
  readonly methods: readonly Method[] = ["swim.ping"];
  readonly verbs: readonly string[] = [];
  readonly datagramKind: number = SWIM_DATAGRAM;
  #swim: Swim | undefined;
  #stored = 0;
  #wakeMs = Infinity;
  /** Members by handle, and the other way round. */
  #nodeIds = new Map<string, string>();
  #handles = new Map<string, string>();
  /** What the members were when the core was last told of them. */
  #viewOf = "";
  /** Handles of those that a channel is wanted to. */
  #watched: ReadonlySet<string> = new Set();
  /** Channels that the core counts as open. */
  readonly #channels = new Set<string>();
  readonly #heardMs = new Map<string, number>();
  /** When channels to the dead are closed. */
  readonly #hangUpMs = new Map<string, number>();

  constructor(readonly ctx: Context, entries: ReadonlyMap<string, Uint8Array>, readonly ports: DetectorPorts) {
    const stored = entries.get(INCARNATION_KEY);
    if (!stored) return;
    try {
      this.#stored = decodeAs(stored, uint(INCARNATION_MAX));
    } catch (error) {
      // A lost number is found again: what is said of the former life arrives, and is overtaken.
      if (!(error instanceof WireError)) throw error;
    }
  }

  start(): void {
    const { state, rng } = this.ctx;
    // Each ping says when the next one is to come, so that everybody can have a pace of its own.
    const intervalMs = this.ctx.capabilities?.battery ? BATTERY_INTERVAL_MS : INTERVAL_MS;
    this.#swim = new Swim({ self: handleOf(state.keyPair.publicKey), rng, intervalMs });
    this.#viewOf = "";
    this.#channels.clear();
    this.#feed({ type: "start", nowMs: this.ctx.nowMs, incarnation: this.#stored });
  }

  clear(): void {
    this.#swim = undefined;
    this.#stored = 0;
    this.#wakeMs = Infinity;
    this.#channels.clear();
    this.#heardMs.clear();
    this.#hangUpMs.clear();
  }

  keys(): readonly string[] {
    return [INCARNATION_KEY];
  }

  /** A member asks whether this node is there: the answer is that one comes. */
  serve(): CborValue {
    return {};
  }

  answer(): unknown {
    throw new Refusal("bad-request", "failure detection answers no requests");
  }

  datagram(from: string, bytes: Uint8Array): void {
    const message = decodeSwim(bytes);
    const handle = this.#handles.get(from);
    if (handle) this.#feed({ type: "message", nowMs: this.ctx.nowMs, from: handle, message });
  }

  /** Something else came from a node. */
  heard(nodeId: string): void {
    const { nowMs } = this.ctx;
    const handle = this.#handles.get(nodeId);
    if (!handle || !this.#channels.has(nodeId)) return;
    if (nowMs - (this.#heardMs.get(nodeId) ?? -Infinity) < HEARD_EVERY_MS) return;
    this.#heardMs.set(nodeId, nowMs);
    this.#feed({ type: "heard", nowMs, from: handle, answered: false });
  }

  /**
   * Judges and takes in news that was broadcast. It is signed by who says it: whoever passes it on adds nothing.
   *
   * @throws {WireError} Where it does not read or the signature is not valid.
   */
  news(body: Uint8Array): NewsVerdict {
    const { state, nowMs } = this.ctx;
    const envelope = decodeAs(body, readEnvelope);
    const nodeId = nodeIdOf(envelope.signer);
    const { atMs, updates } = openNews(envelope, state.networkId);
    const handle = this.#handles.get(nodeId);
    if (!handle || Math.abs(nowMs - atMs) > NEWS_MS) return "ignore";
    this.#feed({ type: "news", nowMs, origin: handle, updates });
    return "accept";
  }

  /** The machine of a node says that its process is gone. */
  gone(nodeId: string): void {
    const id = this.#handles.get(nodeId);
    if (id && this.#channels.has(nodeId)) this.#feed({ type: "gone", nowMs: this.ctx.nowMs, id });
  }

  /** A member could not be dialed at any of its addresses. */
  dialFailed(nodeId: string): void {
    const id = this.#handles.get(nodeId);
    if (id) this.#feed({ type: "dial-failed", nowMs: this.ctx.nowMs, id });
  }

  sessionDown(nodeId: string, reason: string): void {
    this.#heardMs.delete(nodeId);
    this.#hangUpMs.delete(nodeId);
    if (!this.#channels.delete(nodeId)) return;
    const id = this.#handles.get(nodeId);
    if (id) this.#feed({ type: "channel-down", nowMs: this.ctx.nowMs, id, hint: hintOf(reason) });
  }

  wake(): number {
    if (!this.#swim) return Infinity;
    this.#syncView();
    this.#syncChannels();
    const { nowMs } = this.ctx;
    if (nowMs >= this.#wakeMs) this.#feed({ type: "wake", nowMs });
    for (const [nodeId, atMs] of this.#hangUpMs) {
      if (nowMs < atMs) continue;
      this.#hangUpMs.delete(nodeId);
      this.ctx.emit({ type: "hang-up", nodeId, reason: "dead" });
    }
    return Math.min(this.#wakeMs, ...this.#hangUpMs.values());
  }

  clockSetBack(): void {
    this.#heardMs.clear();
    for (const nodeId of this.#hangUpMs.keys()) this.#hangUpMs.set(nodeId, this.ctx.nowMs + HANG_UP_MS);
    this.#feed({ type: "clock-set-back", nowMs: this.ctx.nowMs });
  }

  /** How failure detection stands; missing before it runs. */
  status(): DetectionStatus | undefined {
    const view = this.#swim?.inspect();
    if (!view) return undefined;
    const nodeIds = (ids: readonly string[]) => ids.flatMap((id) => this.#nodeIds.get(id) ?? []);
    return { ...view, suspects: nodeIds(view.suspects), dead: nodeIds(view.dead), watched: this.#channels.size };
  }

  /** Tells the core who the members are, where that has changed. */
  #syncView(): void {
    const { state, nowMs } = this.ctx;
    const viewOf = `${state.members.version} ${state.revocations.size} ${state.network?.chain?.epoch}`;
    if (viewOf === this.#viewOf) return;
    this.#viewOf = viewOf;
    this.#handles = new Map();
    this.#nodeIds = new Map();
    for (const { nodeId, publicKey, record } of state.members.all()) {
      if (nodeId === state.nodeId || record.left || state.revocations.get("node", publicKey)) continue;
      const handle = handleOf(publicKey);
      // Two of one handle: the first one keeps it, and the other goes unwatched.
      if (this.#nodeIds.has(handle)) continue;
      this.#handles.set(nodeId, handle);
      this.#nodeIds.set(handle, nodeId);
    }
    const watched = this.#watched = new Set(this.ports.watched().flatMap((nodeId) => this.#handles.get(nodeId) ?? []));
    for (const nodeId of this.#channels) if (!this.#handles.has(nodeId)) this.#channels.delete(nodeId);
    for (const [nodeId, handle] of this.#handles) {
      // Nobody here looks after it, and those that do have not said that it is dead.
      const isUnknown = !watched.has(handle) && state.members.observation(nodeId).sinceMs === 0;
      if (isUnknown && state.members.get(nodeId)!.membership.expiresMs > nowMs) {
        state.members.observe(nodeId, { state: "alive", reachable: true }, nowMs);
      }
    }
    this.#feed({ type: "view", nowMs: this.ctx.nowMs, members: new Set(this.#nodeIds.keys()), watched });
  }

  /** A channel counts once both ends have shown that they are members: before, the other end drops our datagrams. */
  #syncChannels(): void {
    for (const [nodeId, { member, introduced }] of this.ctx.sessions) {
      if (this.#channels.has(nodeId)) continue;
      const id = this.#handles.get(nodeId);
      if (!member || !introduced || !id) continue;
      this.#channels.add(nodeId);
      this.#feed({ type: "channel-up", nowMs: this.ctx.nowMs, id });
    }
  }

  #feed(event: SwimEvent): void {
    const swim = this.#swim;
    if (!swim) return;
    this.#wakeMs = Infinity;
    this.#carryOut(swim.step(event));
  }

  #carryOut(effects: readonly SwimEffect[]): void {
    const { ctx } = this;
    for (const effect of effects) {
      switch (effect.type) {
        case "send": {
          const nodeId = this.#nodeIds.get(effect.to);
          if (!nodeId) break;
          const message = encodeSwim(effect.message);
          const bytes = new Uint8Array(1 + message.length);
          bytes[0] = SWIM_DATAGRAM;
          bytes.set(message, 1);
          ctx.emit({ type: "datagram", nodeId, bytes });
          break;
        }
        case "fallback":
          this.#fallback(effect.to, effect.timeoutMs);
          break;
        case "publish":
          this.ports.publish(encodeCbor(envelopeValue(this.#seal(effect.updates))));
          break;
        case "observe":
          this.#observe(effect);
          break;
        case "persist":
          this.#stored = effect.incarnation;
          ctx.persist([[INCARNATION_KEY, encodeCbor(effect.incarnation)]], () => this.#carryOut(effect.then));
          break;
        case "wakeAt":
          this.#wakeMs = effect.atMs;
          break;
      }
    }
  }

  /** Signs what this node says of others or of itself. */
  #seal(updates: readonly SwimUpdate[]): Envelope {
    const { state, nowMs } = this.ctx;
    return sealNews({ atMs: nowMs, updates }, state.networkId, state.keyPair);
  }

  #fallback(id: string, timeoutMs: number): void {
    const nodeId = this.#nodeIds.get(id);
    if (!nodeId) return;
    this.ctx.call(nodeId, "swim.ping", {}, timeoutMs, (result) => {
      // A refusal is an answer too.
      const ok = result.ok || !NO_ANSWER.has(result.code);
      this.#feed({ type: "fallback-done", nowMs: this.ctx.nowMs, id, ok });
    });
  }

  #observe(effect: SwimEffect & { readonly type: "observe" }): void {
    const { ctx } = this;
    const nodeId = this.#nodeIds.get(effect.id);
    const member = nodeId && ctx.state.members.get(nodeId);
    if (!member) return;
    // Of one that this node does not look after itself nothing says that it would not answer.
    const isOurs = this.#watched.has(effect.id) || this.#channels.has(nodeId);
    const reachable = effect.reachable || effect.state === "alive" && !isOurs;
    if (!ctx.state.members.observe(nodeId, { state: effect.state, reachable }, ctx.nowMs)) return;
    if (effect.state !== "alive") this.ports.doubted?.(nodeId);
    if (effect.state === "dead" && this.#channels.has(nodeId)) this.#hangUpMs.set(nodeId, ctx.nowMs + HANG_UP_MS);
    else this.#hangUpMs.delete(nodeId);
    const { name } = member.membership;
    const fields = { node: nodeId, reason: effect.reason };
    if (effect.state === "alive") {
      const way = reachable ? "" : ", though not from here";
      ctx.log("info", "member-alive", `${name} is alive${way}: ${effect.reason}`, fields);
    } else if (effect.state === "suspect") {
      ctx.log("info", "member-suspect", `${name} may be dead: ${effect.reason}`, fields);
    } else ctx.log("warn", "member-dead", `${name} is dead: ${effect.reason}`, fields);
  }
}

/** Codes of calls that say nothing of the other end. */
const NO_ANSWER: ReadonlySet<string> = new Set(["timeout", "unreachable", "cancelled"]);

/** What the end of a channel says of the node behind it. */
function hintOf(reason: string): ChannelHint {
  switch (reason) {
    case "closed":
    case "closed by the peer":
      return "closed";
    case "idle-timeout":
      return "silence";
    default:
      return "none";
  }
}
