/**
 * The stages of joining.
 *
 *     idle ─► forming ─────────────────────────────────────────────► verified
 *     idle ─► discovering ─► contacting ─► authenticating ─► registering ─► handoff ─► verifying ─► verified
 *                  ▲  ▲                                           │
 *                  │  └── any failure, after a back-off           ▼
 *               isolated ◄── nothing answers            awaiting-approval
 *
 * The machine knows stages, budgets, back-off and failures. What is said to whom is the agent's part: it
 * carries out the effects and reports `advanced` or `failed`. A member that comes back goes the same way,
 * only that `authenticating` leads to `verified` at once where its credential still counts.
 *
 * @module
 */

import { assert } from "../core/assert.ts";
import { backoffMs, type Rng } from "../core/rng.ts";
import { LIMITS } from "../core/limits.ts";
import { type CauseCode, CAUSES } from "./diagnosis.ts";

/** Where a node is on its way into the network. */
export type Stage =
  | "idle"
  | "forming"
  | "discovering"
  | "contacting"
  | "authenticating"
  | "registering"
  | "awaiting-approval"
  | "handoff"
  | "verifying"
  | "verified"
  | "isolated";

/** Stages that the agent's work leads to; the others are entered by the machine alone. */
export type Advance = "registering" | "handoff" | "verifying" | "verified";

/** What happens to a {@linkcode JoinMachine}. Time always arrives as an input. */
export type JoinEvent =
  /** Begin, with an invite (`join`), as a member that comes back (`rejoin`) or as the founder (`form`). */
  | { readonly type: "start"; readonly plan: "join" | "rejoin" | "form"; readonly nowMs: number }
  /** Addresses that have not failed just now: how many there are. */
  | { readonly type: "candidates"; readonly count: number; readonly nowMs: number }
  /** A channel to a candidate is open. */
  | { readonly type: "contact"; readonly nodeId: string; readonly nowMs: number }
  /** A dial failed; `left` are under way or still to be tried. */
  | {
    readonly type: "dial-failed";
    readonly code: CauseCode;
    readonly tried: string;
    readonly left: number;
    readonly nowMs: number;
  }
  /** The agent finished the work of the present stage. */
  | { readonly type: "advanced"; readonly to: Advance; readonly nowMs: number }
  /** The work of the present stage failed. */
  | {
    readonly type: "failed";
    readonly code: CauseCode;
    readonly tried: string;
    /** Said by somebody who has not shown to be of the network: no reason to wait for a person. */
    readonly hearsay?: boolean;
    readonly nowMs: number;
  }
  /** A verified node has lost all others, or has one again. */
  | { readonly type: "connectivity"; readonly reachable: boolean; readonly nowMs: number }
  /** An issuer told a verified node that it was removed. */
  | { readonly type: "expelled"; readonly tried: string; readonly nowMs: number }
  /** An operator: try at once, or forget and stop. */
  | { readonly type: "override"; readonly action: "retry" | "reset"; readonly nowMs: number }
  | { readonly type: "wake"; readonly nowMs: number };

/** What the agent must do, in order. */
export type JoinEffect =
  | { readonly type: "discovery"; readonly mode: "seeking" | "member" | "isolated" | "off" }
  /** Dial the next candidate. */
  | { readonly type: "dial-next" }
  /** Prove identity to this node and go on from there. */
  | { readonly type: "authenticate"; readonly nodeId: string }
  /** The stage changed: store it. */
  | { readonly type: "stage"; readonly stage: Stage }
  | { readonly type: "failure"; readonly failure: JoinFailure }
  | { readonly type: "wakeAt"; readonly atMs: number };

/** A failure as it was reported. */
export interface JoinFailure {
  readonly code: CauseCode;
  readonly stage: Stage;
  readonly tried: string;
  readonly atMs: number;
  readonly count: number;
}

/** Milliseconds that a stage may take before it counts as failed; none for the others. */
export const STAGE_BUDGET_MS: { readonly [S in Stage]?: number } = {
  discovering: 10_000,
  contacting: 20_000,
  authenticating: 15_000,
  registering: 20_000,
  handoff: 15_000,
  verifying: 15_000,
};

/** Time between two dials while contacting: the second address gets its chance before the first has timed out (RFC 8305). */
export const DIAL_STAGGER_MS = 250;
/** Dials under way at once. */
export const DIALS_MAX = 4;

const RETRY = { baseMs: 500, maxMs: 30_000 } as const;
const RETRY_SLOW = { baseMs: 15_000, maxMs: 300_000 } as const;
const POLL = { baseMs: 1_000, maxMs: 10_000 } as const;
/** Longer than the calls of one poll may take together. */
const POLL_BUDGET_MS = 30_000;
/** First try of its own after all others were lost: between this and twice this. */
const ISOLATED_RETRY_MS = 15_000;
const FAILURES_MAX = 16;
const TIMELINE_MAX = 32;

/** The stages of joining, as a machine. */
export class JoinMachine {
  #stage: Stage = "idle";
  #sinceMs = 0;
  #plan: "join" | "rejoin" | "form" = "join";
  /** Failures in a row: sets the back-off. */
  #attempt = 0;
  #polls = 0;
  #retryAtMs: number | undefined;
  #nextDialMs: number | undefined;
  #dialing = 0;
  #candidates = 0;
  #contact: string | undefined;
  readonly #failures: JoinFailure[] = [];
  readonly #timeline: { readonly stage: Stage; readonly atMs: number }[] = [];

  constructor(readonly rng: Rng) {}

  get stage(): Stage {
    return this.#stage;
  }

  /** Since when it is in its stage. */
  get sinceMs(): number {
    return this.#sinceMs;
  }

  /** Failures in a row. */
  get attempt(): number {
    return this.#attempt;
  }

  /** When it will try again by itself, where it waits for that. */
  get retryAtMs(): number | undefined {
    return this.#retryAtMs;
  }

  /** The node that it is talking to. */
  get contact(): string | undefined {
    return this.#contact;
  }

  /** Recent failures, the newest last; one entry for the same failure in a row. */
  get failures(): readonly JoinFailure[] {
    return this.#failures;
  }

  /** Stages entered, the newest last. */
  get timeline(): readonly { readonly stage: Stage; readonly atMs: number }[] {
    return this.#timeline;
  }

  /** Whether a join or rejoin is under way. */
  get joining(): boolean {
    return this.#stage !== "idle" && this.#stage !== "verified" && this.#stage !== "forming";
  }

  step(event: JoinEvent): JoinEffect[] {
    switch (event.type) {
      case "start":
        this.#plan = event.plan;
        this.#attempt = 0;
        this.#polls = 0;
        this.#retryAtMs = undefined;
        if (event.plan === "form") return this.#enter("forming", event.nowMs);
        return this.#discover(event.nowMs);
      case "candidates":
        this.#candidates = event.count;
        if (event.count === 0) return [];
        // Somebody turned up: neither the isolated state nor a back-off holds back the first try. One who
        // needs a person's help keeps waiting, or a chatty beacon would make it hammer the registrar.
        if (this.#stage === "discovering" || this.#stage === "isolated") {
          const held = this.#retryAtMs !== undefined && this.#attempt > 0 && event.nowMs < this.#retryAtMs;
          if (!held) return this.#contacting(event.nowMs);
        }
        if (this.#stage === "contacting") return this.#dial(event.nowMs);
        return [];
      case "contact":
        this.#dialing = Math.max(0, this.#dialing - 1);
        if (this.#stage === "isolated" || this.#stage === "discovering" || this.#stage === "contacting") {
          this.#contact = event.nodeId;
          this.#retryAtMs = undefined;
          return [...this.#enter("authenticating", event.nowMs), { type: "authenticate", nodeId: event.nodeId }];
        }
        return [];
      case "dial-failed":
        this.#dialing = Math.max(0, this.#dialing - 1);
        if (this.#stage !== "contacting") return [];
        if (event.left > 0) return [...this.#note(event.code, event.tried, event.nowMs), ...this.#dial(event.nowMs)];
        return this.#fail(event.code, event.tried, event.nowMs);
      case "advanced":
        return this.#advance(event.to, event.nowMs);
      case "failed":
        if (this.#stage === "idle" || this.#stage === "verified") return [];
        if (event.code === "approval-pending") return this.#await(event.tried, event.nowMs);
        return this.#fail(event.code, event.tried, event.nowMs, event.hearsay);
      case "connectivity":
        if (this.#stage === "verified" && !event.reachable) {
          this.#plan = "rejoin";
          // Most likely somebody comes to us, or a candidate does; but nothing may depend on that.
          this.#retryAtMs = event.nowMs + ISOLATED_RETRY_MS + this.rng.below(ISOLATED_RETRY_MS + 1);
          return [
            ...this.#note("isolated", "all members", event.nowMs),
            ...this.#enter("isolated", event.nowMs),
            { type: "discovery", mode: "isolated" },
          ];
        }
        if (this.#stage === "isolated" && event.reachable && this.#plan === "rejoin") {
          return this.#advance("verified", event.nowMs);
        }
        return [];
      case "expelled":
        if (this.#stage !== "verified") return [];
        this.#plan = "rejoin";
        return this.#fail("revoked", event.tried, event.nowMs);
      case "override":
        this.#attempt = 0;
        this.#retryAtMs = undefined;
        if (event.action === "reset") return [...this.#enter("idle", event.nowMs), { type: "discovery", mode: "off" }];
        return this.#stage === "verified" || this.#stage === "idle" ? [] : this.#discover(event.nowMs);
      case "wake":
        return this.#wake(event.nowMs);
      default:
        event satisfies never;
        return [];
    }
  }

  /** The clock was set back by this many milliseconds: what was planned keeps its distance from now. */
  clockSetBack(byMs: number): void {
    this.#sinceMs -= byMs;
    if (this.#retryAtMs !== undefined) this.#retryAtMs -= byMs;
    if (this.#nextDialMs !== undefined) this.#nextDialMs -= byMs;
  }

  /** The next moment at which it wants to be woken. */
  nextWakeMs(): number | undefined {
    const budget = STAGE_BUDGET_MS[this.#stage];
    const times = [
      this.#retryAtMs,
      this.#stage === "contacting" ? this.#nextDialMs : undefined,
      budget === undefined || this.#retryAtMs !== undefined ? undefined : this.#sinceMs + budget,
    ].filter((one) => one !== undefined);
    return times.length > 0 ? Math.min(...times) : undefined;
  }

  #wake(nowMs: number): JoinEffect[] {
    if (this.#retryAtMs !== undefined && nowMs >= this.#retryAtMs) {
      this.#retryAtMs = undefined;
      if (this.#stage === "awaiting-approval" && this.#contact !== undefined) {
        // Asking again goes the whole way: a challenge is good for one request only. Should no answer come at all,
        // it is asked once more.
        this.#retryAtMs = nowMs + POLL_BUDGET_MS;
        return [{ type: "authenticate", nodeId: this.#contact }, ...this.#arm()];
      }
      return this.#discover(nowMs);
    }
    if (this.#stage === "contacting" && this.#nextDialMs !== undefined && nowMs >= this.#nextDialMs) {
      return this.#dial(nowMs);
    }
    const budget = STAGE_BUDGET_MS[this.#stage];
    if (this.#retryAtMs === undefined && budget !== undefined && nowMs >= this.#sinceMs + budget) {
      const code = this.#stage === "discovering" ? "no-candidates" : "budget-exhausted";
      return this.#fail(code, this.#contact ?? "all sources", nowMs);
    }
    return this.#arm();
  }

  #advance(to: Advance, nowMs: number): JoinEffect[] {
    if (this.#stage === "idle") return [];
    // The stage that begins has its own budget; a wait that is still set would replace it.
    this.#retryAtMs = undefined;
    if (to === "verified") {
      this.#attempt = 0;
      this.#polls = 0;
      return [...this.#enter("verified", nowMs), { type: "discovery", mode: "member" }];
    }
    return this.#enter(to, nowMs);
  }

  #discover(nowMs: number): JoinEffect[] {
    this.#contact = undefined;
    this.#dialing = 0;
    const effects = [...this.#enter("discovering", nowMs), { type: "discovery", mode: "seeking" } as const];
    if (this.#candidates > 0) effects.push(...this.#contacting(nowMs));
    return effects;
  }

  #contacting(nowMs: number): JoinEffect[] {
    this.#retryAtMs = undefined;
    this.#dialing = 0;
    return [...this.#enter("contacting", nowMs), ...this.#dial(nowMs)];
  }

  #dial(nowMs: number): JoinEffect[] {
    if (this.#dialing >= DIALS_MAX) {
      this.#nextDialMs = undefined;
      return this.#arm();
    }
    if (this.#nextDialMs !== undefined && nowMs < this.#nextDialMs && this.#dialing > 0) return this.#arm();
    this.#dialing += 1;
    this.#nextDialMs = nowMs + DIAL_STAGGER_MS;
    return [{ type: "dial-next" }, ...this.#arm()];
  }

  /** The agent had no further address for the last `dial-next`. */
  noneToDial(): void {
    this.#dialing = Math.max(0, this.#dialing - 1);
    this.#nextDialMs = undefined;
  }

  #await(tried: string, nowMs: number): JoinEffect[] {
    const effects = this.#stage === "awaiting-approval" ? [] : this.#enter("awaiting-approval", nowMs);
    const waitMs = Math.max(POLL.baseMs, backoffMs(this.#polls++, POLL, this.rng));
    this.#retryAtMs = nowMs + waitMs;
    return [...effects, ...this.#note("approval-pending", tried, nowMs), ...this.#arm()];
  }

  #fail(code: CauseCode, tried: string, nowMs: number, hearsay = false): JoinEffect[] {
    const effects = this.#note(code, tried, nowMs);
    const nothing = code === "no-candidates" || this.#stage === "isolated";
    const slow = CAUSES[code].needsPerson && !hearsay;
    this.#contact = undefined;
    this.#dialing = 0;
    const wait = slow ? RETRY_SLOW : RETRY;
    this.#retryAtMs = nowMs + Math.max(slow ? wait.baseMs : 100, backoffMs(this.#attempt, wait, this.rng));
    this.#attempt += 1;
    // After a failed attempt the node is discovering again, but holds its next try until the back-off is over.
    const next: Stage = nothing || slow || this.#attempt > 3 ? "isolated" : "discovering";
    if (this.#stage !== next) effects.push(...this.#enter(next, nowMs));
    effects.push({ type: "discovery", mode: next === "isolated" ? "isolated" : "seeking" }, ...this.#arm());
    return effects;
  }

  #note(code: CauseCode, tried: string, nowMs: number): JoinEffect[] {
    const last = this.#failures.at(-1);
    const same = last?.code === code && last.tried === tried;
    if (same) this.#failures.pop();
    const failure: JoinFailure = {
      code,
      stage: this.#stage,
      tried,
      atMs: nowMs,
      count: same ? last.count + 1 : 1,
    };
    this.#failures.push(failure);
    if (this.#failures.length > FAILURES_MAX) this.#failures.shift();
    return [{ type: "failure", failure }];
  }

  #enter(stage: Stage, nowMs: number): JoinEffect[] {
    assert(nowMs >= 0, `time is ${nowMs}, at least 0`);
    this.#stage = stage;
    this.#sinceMs = nowMs;
    this.#nextDialMs = undefined;
    this.#timeline.push({ stage, atMs: nowMs });
    if (this.#timeline.length > TIMELINE_MAX) this.#timeline.shift();
    assert(LIMITS.recentEventsMax >= TIMELINE_MAX, "the timeline fits what status shows");
    return [{ type: "stage", stage }, ...this.#arm()];
  }

  #arm(): JoinEffect[] {
    const atMs = this.nextWakeMs();
    return atMs === undefined ? [] : [{ type: "wakeAt", atMs }];
  }
}
