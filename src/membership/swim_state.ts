/** What failure detection holds of others. @module */

import type { ChannelHint, SwimState } from "./swim_events.ts";
import { Rtt } from "./swim_timing.ts";

/** What another node has said of one. */
export interface Accusation {
  readonly incarnation: number;
  readonly atMs: number;
  readonly weight: number;
  readonly dead: boolean;
}

/** A suspicion under way. */
export interface Suspicion {
  startMs: number;
  /** Whether this node has told of it. */
  announced: boolean;
  /** When it tells, unless three have by then. */
  announceMs: number;
  nextPingMs: number;
  pings: number;
}

/** What is held of one other node. */
export interface Node {
  readonly id: string;
  /** `undefined`: nothing is known of it yet. */
  state: SwimState | undefined;
  incarnation: number;
  channel: boolean;
  watched: boolean;
  hint: ChannelHint | "gone";
  readonly rtt: Rtt;
  /** Last time that it answered this node. */
  answeredMs: number;
  /** Last time that anything came from it. */
  heardMs: number;
  /** Last time that it was probed because others accused it. */
  lookedMs: number;
  toldMs: number;
  /** When others are asked whether they call it dead too, and how often they were. */
  askMs: number;
  asks: number;
  /** Something should have come from it by then. */
  expectedMs: number;
  /** Pings without an answer since it last answered. */
  attempts: number;
  /** Nacks since it last answered. */
  nacks: number;
  reachable: boolean;
  readonly accusers: Map<string, Accusation>;
  suspicion: Suspicion | undefined;
  deathAnnounceMs: number;
}

/** A probe under way, or one whose late answers still count. */
export interface Probe {
  readonly target: Node;
  readonly seq: number;
  readonly sentMs: number;
  stage: "direct" | "indirect" | "over";
  dueMs: number;
  helpers: string[];
  nacks: number;
}

/** A ping that went out. */
export interface Ping {
  readonly target: string;
  readonly sentMs: number;
  /** Sent to one that was suspect or dead. */
  readonly doubted: boolean;
  /** After this it counts as unanswered. */
  dueMs: number;
  counted: boolean;
  /** For another node: whose probe it is, its number there, and when to say that there was no answer. */
  readonly relay?: { readonly to: string; readonly seq: number; nackMs: number };
}

/** A node of which nothing is known yet. */
export function newNode(id: string): Node {
  return {
    id,
    state: undefined,
    incarnation: 0,
    channel: false,
    watched: false,
    hint: "none",
    rtt: new Rtt(),
    answeredMs: -Infinity,
    heardMs: -Infinity,
    lookedMs: -Infinity,
    toldMs: -Infinity,
    askMs: Infinity,
    asks: 0,
    expectedMs: Infinity,
    attempts: 0,
    nacks: 0,
    reachable: false,
    accusers: new Map(),
    suspicion: undefined,
    deathAnnounceMs: Infinity,
  };
}
