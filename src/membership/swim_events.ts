/** What can happen to `Swim` and what it wants done. @module */

import type { Rng } from "../core/rng.ts";
import type { SwimMessage, SwimUpdate } from "./swim_messages.ts";

/** What became of a channel, as far as it says something of the node behind it. */
export type ChannelHint =
  /** Nothing: it was closed here, or replaced by another one. */
  | "none"
  /** Nothing came over it for too long. */
  | "silence"
  /** The other end closed it. */
  | "closed";

/** What can happen. Nodes are named by their handles. */
export type SwimEvent =
  /** The node begins; `incarnation` is the last one that was persisted, 0 for none. */
  | { readonly type: "start"; readonly nowMs: number; readonly incarnation: number }
  /** All other members, and those among them that a channel is wanted to. Whoever is not there is forgotten. */
  | {
    readonly type: "view";
    readonly nowMs: number;
    readonly members: ReadonlySet<string>;
    readonly watched: ReadonlySet<string>;
  }
  /** A channel is open, and the other end has shown that it is a member. */
  | { readonly type: "channel-up"; readonly nowMs: number; readonly id: string }
  | { readonly type: "channel-down"; readonly nowMs: number; readonly id: string; readonly hint: ChannelHint }
  /** The machine behind an open channel says that the process is gone. It is asked itself before that counts. */
  | { readonly type: "gone"; readonly nowMs: number; readonly id: string }
  | { readonly type: "message"; readonly nowMs: number; readonly from: string; readonly message: SwimMessage }
  /** Something else came over the channel; `answered`: in answer to what went out. */
  | { readonly type: "heard"; readonly nowMs: number; readonly from: string; readonly answered: boolean }
  /** A member that a channel is wanted to could not be dialed at any of its addresses. */
  | { readonly type: "dial-failed"; readonly nowMs: number; readonly id: string }
  | { readonly type: "fallback-done"; readonly nowMs: number; readonly id: string; readonly ok: boolean }
  /** News that is proved to be of `origin`, whichever way it came. */
  | {
    readonly type: "news";
    readonly nowMs: number;
    readonly origin: string;
    readonly updates: readonly SwimUpdate[];
  }
  /** The clock was set back: times that were set with it count no longer. */
  | { readonly type: "clock-set-back"; readonly nowMs: number }
  | { readonly type: "wake"; readonly nowMs: number };

/** How a member stands. */
export type SwimState = "alive" | "suspect" | "dead";

/** What the caller must do next, in order. */
export type SwimEffect =
  | { readonly type: "send"; readonly to: string; readonly message: SwimMessage }
  /** Call the node over a stream, which is repeated until it arrives; report by `fallback-done`. */
  | { readonly type: "fallback"; readonly to: string; readonly timeoutMs: number }
  /** Tell everybody, also those without a channel to this node, on this node's authority. */
  | { readonly type: "publish"; readonly updates: readonly SwimUpdate[] }
  /** A member's state, or whether it is reached directly, has changed. */
  | {
    readonly type: "observe";
    readonly id: string;
    readonly state: SwimState;
    /** Whether it answers this node itself. */
    readonly reachable: boolean;
    readonly reason: string;
  }
  /** Store durably, then carry out `then`. */
  | { readonly type: "persist"; readonly incarnation: number; readonly then: readonly SwimEffect[] }
  | { readonly type: "wakeAt"; readonly atMs: number };

/** Settings of `Swim`. */
export interface SwimOptions {
  /** Handle of this node. */
  readonly self: string;
  readonly rng: Rng;
  /** Time between two pings of the neighbour. @default 1000 */
  readonly intervalMs?: number;
}

/** What `Swim.inspect` shows. */
export interface SwimView {
  /** Local health: 0 is well, 7 is worst. Intervals and timeouts grow with it. */
  readonly awareness: number;
  readonly incarnation: number;
  /** First pings without an answer in time, of a thousand, smoothed. */
  readonly lossPerMille: number;
  /** Probes begun since the start. */
  readonly probes: number;
  /** Suspicions of this node that it refuted. */
  readonly refuted: number;
  readonly suspects: readonly string[];
  readonly dead: readonly string[];
}
