/**
 * Events between the components of one process.
 *
 * A listener has a queue of its own, so that a slow one keeps nobody waiting, and one that throws hurts
 * nobody. A full queue loses its oldest event, and the loss is counted.
 *
 * @module
 */

/** What went wrong at a listener. */
export type BusTrouble =
  | { readonly kind: "threw"; readonly listener: string; readonly event: string; readonly error: unknown }
  | { readonly kind: "overflow"; readonly listener: string; readonly event: string; readonly lost: number };

/** Bounds of an {@linkcode EventBus}. */
export interface EventBusOptions {
  /** Events queued for one listener. @default 256 */
  readonly queueMax?: number;
  /** Listeners in all; more is a leak. @default 256 */
  readonly listenersMax?: number;
  /** Told of trouble; what it throws is ignored. */
  readonly onTrouble?: (trouble: BusTrouble) => void;
}

/** How a listener is. */
export interface ListenerStat {
  readonly name: string;
  readonly queued: number;
  readonly handled: number;
  readonly lost: number;
  readonly threw: number;
}

interface Queued {
  readonly type: string;
  readonly payload: unknown;
}

class Listener {
  readonly name: string;
  readonly types: ReadonlySet<string> | "all";
  readonly handle: (type: string, payload: unknown) => void | Promise<void>;
  readonly queue: Queued[] = [];
  handled = 0;
  lost = 0;
  threw = 0;
  /** Whether a loss was reported and the queue has not been empty since. */
  overflowing = false;
  running = false;
  closed = false;

  constructor(
    name: string,
    types: ReadonlySet<string> | "all",
    handle: (type: string, payload: unknown) => void | Promise<void>,
  ) {
    this.name = name;
    this.types = types;
    this.handle = handle;
  }
}

/**
 * A typed bus. `Events` maps the names of events to their payloads.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { EventBus } from "./bus.ts";
 *
 * const bus = new EventBus<{ joined: { node: string } }>();
 * const seen: string[] = [];
 * using _ = bus.on("joined", "example", ({ node }) => void seen.push(node));
 * bus.emit("joined", { node: "attic" });
 * await bus.idle();
 * assert.deepEqual(seen, ["attic"]);
 * ```
 */
export class EventBus<Events extends object> {
  readonly #listeners = new Set<Listener>();
  readonly #queueMax: number;
  readonly #listenersMax: number;
  readonly #onTrouble: ((trouble: BusTrouble) => void) | undefined;
  #idle: (() => void)[] = [];

  /** @param options Bounds. */
  constructor(options: EventBusOptions = {}) {
    this.#queueMax = options.queueMax ?? 256;
    this.#listenersMax = options.listenersMax ?? 256;
    this.#onTrouble = options.onTrouble;
  }

  /**
   * Calls `handle` for each event of `type`, one at a time, in order; a promise that it returns is awaited.
   *
   * @param name For counters and reports.
   * @returns Ends it when disposed of; events still queued are dropped.
   * @throws {RangeError} Where there are too many listeners.
   */
  on<T extends keyof Events & string>(
    type: T,
    name: string,
    handle: (payload: Events[T]) => void | Promise<void>,
  ): Disposable {
    return this.#add(new Listener(name, new Set([type]), (_, payload) => handle(payload as Events[T])));
  }

  /** Calls `handle` for every event; otherwise as {@linkcode EventBus.on}. */
  onAny(
    name: string,
    handle: <T extends keyof Events & string>(type: T, payload: Events[T]) => void | Promise<void>,
  ): Disposable {
    return this.#add(
      new Listener(name, "all", (type, payload) => handle(type as keyof Events & string, payload as never)),
    );
  }

  /** Queues an event for all who listen. Never waits and never throws. */
  emit<T extends keyof Events & string>(type: T, payload: Events[T]): void {
    for (const listener of this.#listeners) {
      if (listener.types !== "all" && !listener.types.has(type)) continue;
      listener.queue.push({ type, payload });
      if (listener.queue.length > this.#queueMax) {
        listener.queue.shift();
        listener.lost++;
        // Once per flood: reporting each loss would be a flood of its own.
        if (!listener.overflowing) this.#trouble({ kind: "overflow", listener: listener.name, event: type, lost: 1 });
        listener.overflowing = true;
      }
      if (!listener.running) {
        listener.running = true;
        queueMicrotask(() => this.#drain(listener));
      }
    }
  }

  /** Resolves when no event is queued or being handled. */
  idle(): Promise<void> {
    if (![...this.#listeners].some((listener) => listener.running)) return Promise.resolve();
    return new Promise((resolve) => this.#idle.push(resolve));
  }

  /** How each listener is. */
  stats(): readonly ListenerStat[] {
    return [...this.#listeners].map(({ name, queue, handled, lost, threw }) => {
      return { name, queued: queue.length, handled, lost, threw };
    });
  }

  #add(listener: Listener): Disposable {
    if (this.#listeners.size >= this.#listenersMax) {
      throw new RangeError(
        `Cannot add listener "${listener.name}": there are ${this.#listenersMax}, which is the most`,
      );
    }
    this.#listeners.add(listener);
    return {
      [Symbol.dispose]: () => {
        listener.closed = true;
        listener.queue.length = 0;
        this.#listeners.delete(listener);
        this.#settle();
      },
    };
  }

  async #drain(listener: Listener): Promise<void> {
    for (let next = listener.queue.shift(); next && !listener.closed; next = listener.queue.shift()) {
      try {
        await listener.handle(next.type, next.payload);
        listener.handled++;
      } catch (error) {
        listener.threw++;
        this.#trouble({ kind: "threw", listener: listener.name, event: next.type, error });
      }
    }
    listener.overflowing = false;
    listener.running = false;
    this.#settle();
  }

  #settle(): void {
    if ([...this.#listeners].some((listener) => listener.running)) return;
    const waiting = this.#idle;
    this.#idle = [];
    for (const resolve of waiting) resolve();
  }

  #trouble(trouble: BusTrouble): void {
    try {
      this.#onTrouble?.(trouble);
    } catch {
      // The one who is told of trouble must not make more.
    }
  }
}
