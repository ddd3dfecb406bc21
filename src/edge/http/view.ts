/**
 * One status, rendered once for all who ask within a quarter of a second.
 *
 * @module
 */

import type { EventStatus, Status } from "../../agent/status.ts";
import { StatusHistory } from "../telemetry/history.ts";
import { LoopLag } from "../telemetry/loop_lag.ts";
import { type Exposition, renderMetrics } from "../telemetry/metrics.ts";

/** Milliseconds for which a rendered status is served again. */
export const STATUS_TTL_MS = 250;

/** Share of one CPU that rendering may take: a large network renders more seldom. */
const RENDER_SHARE = 0.05;

/** What changed: the status as a whole, or a new event. */
export type StatusChange =
  | { readonly type: "status" }
  | { readonly type: "event"; readonly event: EventStatus };

/** What part of the spore records is listed. */
export interface SporeQuery {
  /** What the keys begin with. */
  readonly prefix: string;
  /** Only keys behind this one. */
  readonly after?: string;
  readonly max: number;
}

/** Where a status comes from. */
export interface StatusSource {
  /** The status now. May be costly; it is asked at most four times a second. */
  getStatus(): Status;
  /** A page of the listing of spore records, as JSON; missing where there is none. */
  listSpores?(query: SporeQuery): unknown;
  /** Calls `listener` on each change until the returned function is called. */
  subscribe(listener: (change: StatusChange) => void): () => void;
}

/** How a {@linkcode StatusView} reads the world. */
export interface StatusViewOptions {
  /** Monotonic milliseconds. @default performance.now */
  readonly clock?: () => number;
}

/** A rendered body with its strong entity tag. */
export interface RenderedBody {
  /** ASCII only: the runtime sends such a string twice as fast as bytes, and faster than one that it must encode. */
  readonly text: string;
  /** Quoted, as in the header. */
  readonly etag: string;
}

/** The status with its plots' history, and its bodies, cached. Share one between the apps of a node. */
export class StatusView {
  readonly #source: StatusSource;
  readonly #clock: () => number;
  readonly #history = new StatusHistory();
  /** Differs between two runs, so that no tag of an earlier run matches. */
  readonly #run = crypto.randomUUID().slice(0, 8);
  readonly #renderings = new Map<string, string>();
  #status: Status | undefined;
  #body: RenderedBody | undefined;
  #version = 0;
  #freshUntil = -Infinity;
  #spentMs = 0;
  #lag: LoopLag | undefined;
  #lagUsers = 0;

  /**
   * @param source Where the status comes from.
   * @param options The clock.
   */
  constructor(source: StatusSource, options: StatusViewOptions = {}) {
    this.#source = source;
    this.#clock = options.clock ?? (() => performance.now());
  }

  /** The status, at most {@linkcode STATUS_TTL_MS} old (more where rendering is slow). */
  status(): Status {
    const now = this.#clock();
    if (this.#status && now < this.#freshUntil) return this.#status;
    const fresh = this.#source.getStatus();
    this.#history.record(fresh);
    const loopLagMs = fresh.process.loopLagMs ?? this.#lag?.read();
    this.#status = {
      ...fresh,
      process: loopLagMs ? { ...fresh.process, loopLagMs } : fresh.process,
      history: fresh.history ?? this.#history.samples,
    };
    this.#version++;
    this.#body = undefined;
    this.#renderings.clear();
    const end = this.#clock();
    this.#spentMs = end - now;
    this.#freshUntil = end + Math.max(STATUS_TTL_MS, this.#spentMs / RENDER_SHARE);
    return this.#status;
  }

  /** Whoever has changed something and looks next sees it: the status is asked for again, whatever its age. */
  expire(): void {
    this.#freshUntil = -Infinity;
  }

  /** Milliseconds until {@linkcode StatusView.status} will ask again; 0 where it would now. */
  staleInMs(): number {
    return Math.max(0, this.#freshUntil - this.#clock());
  }

  /** The status as JSON. */
  body(): RenderedBody {
    const status = this.status();
    if (!this.#body) {
      const text = this.#timed(() => asciiJson(status) + "\n");
      this.#body = { text, etag: `"${this.#run}-${this.#version}"` };
    }
    return this.#body;
  }

  /** The status as Prometheus text. */
  metrics(extra?: (out: Exposition) => void): string {
    return renderMetrics(this.status(), extra);
  }

  /** What `render` makes of the status, once per status and `key`. */
  rendering(key: string, render: (status: Status) => string): string {
    const status = this.status();
    let text = this.#renderings.get(key);
    if (text === undefined) {
      text = this.#timed(() => render(status));
      this.#renderings.set(key, text);
    }
    return text;
  }

  /** Takes a sample for the plots; call it every few seconds where nobody asks. */
  sample(): void {
    this.status();
  }

  /** Measures the lag of the event loop until the last who asked has disposed of it. */
  measureLag(): Disposable {
    this.#lag ??= new LoopLag();
    this.#lagUsers++;
    let released = false;
    return {
      [Symbol.dispose]: () => {
        if (released) return;
        released = true;
        if (--this.#lagUsers > 0) return;
        this.#lag?.[Symbol.dispose]();
        this.#lag = undefined;
      },
    };
  }

  /** Calls `listener` on each change until the returned function is called. */
  subscribe(listener: (change: StatusChange) => void): () => void {
    return this.#source.subscribe(listener);
  }

  #timed<T>(work: () => T): T {
    const start = this.#clock();
    const result = work();
    this.#spentMs += this.#clock() - start;
    this.#freshUntil = Math.max(this.#freshUntil, start + this.#spentMs / RENDER_SHARE);
    return result;
  }
}

/** JSON with every character above 0x7e as an escape. */
function asciiJson(value: unknown): string {
  return JSON.stringify(value).replace(/[^ -~]/g, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`);
}
