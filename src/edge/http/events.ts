/**
 * Server-sent events: the status when it changes, and the node's events.
 *
 * Everything is bounded: subscribers, events queued for each (the oldest go first, and a `gap` says how
 * many), the ring that `Last-Event-ID` is answered from, and the rate. A status is never queued: a slow
 * reader gets the newest one when it reads again.
 *
 * @module
 */

import type { EventStatus } from "../../agent/status.ts";
import type { StatusView } from "./view.ts";

/** Bounds and rhythm of {@linkcode EventHub}. */
export interface EventHubOptions {
  /** Subscribers at once; the next one is refused. @default 32 */
  readonly subscribersMax?: number;
  /** Events queued for one subscriber. @default 64 */
  readonly queueMax?: number;
  /** Events kept for those who come back. @default 256 */
  readonly ringMax?: number;
  /** Milliseconds between two statuses while things change. @default 500 */
  readonly statusMsMin?: number;
  /** Milliseconds after which a status is sent although nothing changed. @default 5000 */
  readonly statusMsMax?: number;
  /** Milliseconds of silence after which a comment is sent. @default 15000 */
  readonly heartbeatMs?: number;
  /** Milliseconds after which a subscriber that reads nothing is closed. @default 60000 */
  readonly stallMsMax?: number;
}

/** What a subscriber gets as status: the document, or the dashboard's main part. */
export type StreamKind = "status" | "page";

/** Renders the dashboard's main part as the data of a `page` event. */
export type PageRenderer = (view: StatusView) => string;

interface Subscriber {
  readonly kind: StreamKind;
  readonly queue: string[];
  statusDue: boolean;
  heartbeatDue: boolean;
  dropped: number;
  lastReadMs: number;
  lastSentMs: number;
  wake: (() => void) | undefined;
  close: () => void;
}

/** Fans the status and the events out to the readers of `/events`. */
export class EventHub implements Disposable {
  readonly #view: StatusView;
  readonly #renderPage: PageRenderer;
  readonly #options: Required<EventHubOptions>;
  readonly #subscribers = new Set<Subscriber>();
  readonly #ring: { readonly seq: number; readonly text: string }[] = [];
  readonly #run = crypto.randomUUID().slice(0, 8);
  readonly #unsubscribe: () => void;
  #seq = 0;
  #lastStatusMs = 0;
  #statusTimer: ReturnType<typeof setTimeout> | undefined;
  #beatTimer: ReturnType<typeof setTimeout> | undefined;
  #closed = false;

  /**
   * @param view Where status and changes come from.
   * @param renderPage Renders for the dashboard.
   * @param options Bounds and rhythm.
   */
  constructor(view: StatusView, renderPage: PageRenderer, options: EventHubOptions = {}) {
    this.#view = view;
    this.#renderPage = renderPage;
    this.#options = {
      subscribersMax: 32,
      queueMax: 64,
      ringMax: 256,
      statusMsMin: 500,
      statusMsMax: 5_000,
      heartbeatMs: 15_000,
      stallMsMax: 60_000,
      ...options,
    };
    this.#unsubscribe = view.subscribe((change) => {
      if (change.type === "event") this.#addEvent(change.event);
      this.#statusChanged();
    });
  }

  /** Readers now. */
  get subscribers(): number {
    return this.#subscribers.size;
  }

  /**
   * A new reader's stream, or `undefined` where there are too many or the hub is closed.
   *
   * @param kind What it reads.
   * @param lastEventId Value of `Last-Event-ID`, where it comes back: it gets what it missed.
   */
  open(kind: StreamKind, lastEventId?: string): ReadableStream<Uint8Array> | undefined {
    if (this.#closed || this.#subscribers.size >= this.#options.subscribersMax) return undefined;
    const now = performance.now();
    const subscriber: Subscriber = {
      kind,
      queue: [],
      statusDue: true,
      heartbeatDue: false,
      dropped: 0,
      lastReadMs: now,
      lastSentMs: now,
      wake: undefined,
      close: () => {},
    };
    const encoder = new TextEncoder();
    let ended = false;
    const end = () => {
      ended = true;
      this.#remove(subscriber);
      subscriber.wake?.();
    };
    subscriber.queue.push("retry: 2000\n\n");
    if (lastEventId !== undefined && kind === "status") this.#replay(subscriber, lastEventId);
    this.#subscribers.add(subscriber);
    this.#startBeat();
    return new ReadableStream<Uint8Array>({
      start: (controller) => {
        subscriber.close = () => {
          if (ended) return;
          end();
          controller.close();
        };
      },
      pull: async (controller) => {
        subscriber.lastReadMs = performance.now();
        while (!ended) {
          const text = this.#next(subscriber);
          if (text) {
            subscriber.lastSentMs = performance.now();
            controller.enqueue(encoder.encode(text));
            return;
          }
          await new Promise<void>((resolve) => subscriber.wake = resolve);
          subscriber.wake = undefined;
          // Waiting for something to say is not stalling.
          subscriber.lastReadMs = performance.now();
        }
      },
      cancel: end,
    }, { highWaterMark: 0 });
  }

  /** Closes every stream and refuses new ones. */
  [Symbol.dispose](): void {
    this.#closed = true;
    this.#unsubscribe();
    for (const subscriber of [...this.#subscribers]) subscriber.close();
    this.#stopTimers();
  }

  #next(subscriber: Subscriber): string {
    const parts: string[] = [];
    if (subscriber.dropped > 0) {
      parts.push(`event: gap\ndata: {"dropped":${subscriber.dropped}}\n\n`);
      subscriber.dropped = 0;
    }
    parts.push(...subscriber.queue.splice(0));
    if (subscriber.statusDue) {
      subscriber.statusDue = false;
      parts.push(this.#statusText(subscriber.kind));
    }
    if (parts.length === 0 && subscriber.heartbeatDue) parts.push(": alive\n\n");
    subscriber.heartbeatDue = false;
    return parts.join("");
  }

  #statusText(kind: StreamKind): string {
    try {
      if (kind === "page") return `event: page\ndata: ${this.#renderPage(this.#view)}\n\n`;
      return `event: status\ndata: ${this.#view.rendering("sse", (status) => JSON.stringify(status))}\n\n`;
    } catch {
      // A status that cannot be built now is an outage of the page, not of the stream; `/status` reports it.
      return ": status unavailable\n\n";
    }
  }

  #addEvent(event: EventStatus): void {
    const seq = ++this.#seq;
    const text = `event: event\nid: ${this.#run}.${seq}\ndata: ${JSON.stringify(event)}\n\n`;
    this.#ring.push({ seq, text });
    if (this.#ring.length > this.#options.ringMax) this.#ring.shift();
    for (const subscriber of this.#subscribers) {
      if (subscriber.kind !== "status") continue;
      this.#push(subscriber, text);
      subscriber.wake?.();
    }
  }

  #push(subscriber: Subscriber, text: string): void {
    subscriber.queue.push(text);
    if (subscriber.queue.length > this.#options.queueMax) {
      subscriber.queue.shift();
      subscriber.dropped++;
    }
  }

  #replay(subscriber: Subscriber, lastEventId: string): void {
    const match = /^([0-9a-f]{8})\.(\d{1,15})$/.exec(lastEventId);
    // An id of another run of this node: all of this run's events are new to the reader.
    const seen = match?.[1] === this.#run ? Number(match[2]) : 0;
    const first = this.#ring[0]?.seq ?? this.#seq + 1;
    if (seen + 1 < first) subscriber.dropped += first - seen - 1;
    for (const entry of this.#ring) if (entry.seq > seen) this.#push(subscriber, entry.text);
  }

  #statusChanged(): void {
    if (this.#statusTimer !== undefined || this.#subscribers.size === 0) return;
    const dueMs = this.#lastStatusMs + this.#options.statusMsMin - performance.now();
    // Not before the cached status has run out, else the change would not be in it.
    this.#statusTimer = setTimeout(() => {
      this.#statusTimer = undefined;
      this.#sendStatus();
    }, Math.max(0, dueMs, this.#view.staleInMs()));
  }

  #sendStatus(): void {
    this.#lastStatusMs = performance.now();
    for (const subscriber of this.#subscribers) {
      subscriber.statusDue = true;
      subscriber.wake?.();
    }
  }

  #startBeat(): void {
    if (this.#beatTimer !== undefined) return;
    const { statusMsMax, heartbeatMs, stallMsMax } = this.#options;
    this.#beatTimer = setInterval(() => {
      const now = performance.now();
      for (const subscriber of [...this.#subscribers]) {
        if (now - subscriber.lastReadMs > stallMsMax && !subscriber.wake) {
          subscriber.close();
          continue;
        }
        if (now - subscriber.lastSentMs >= heartbeatMs) {
          subscriber.heartbeatDue = true;
          subscriber.wake?.();
        }
      }
      if (now - this.#lastStatusMs >= statusMsMax * 0.9) this.#statusChanged();
    }, Math.min(statusMsMax, heartbeatMs, stallMsMax));
  }

  #remove(subscriber: Subscriber): void {
    this.#subscribers.delete(subscriber);
    if (this.#subscribers.size === 0) this.#stopTimers();
  }

  #stopTimers(): void {
    clearTimeout(this.#statusTimer);
    clearInterval(this.#beatTimer);
    this.#statusTimer = undefined;
    this.#beatTimer = undefined;
  }
}
