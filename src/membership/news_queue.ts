/** News that rides on other messages (SWIM, section 4.1): each so many times, the least told first. @module */

import type { SwimUpdate } from "./swim_messages.ts";

interface Entry {
  readonly update: SwimUpdate;
  sent: number;
}

/** What somebody said is passed on once in so long: a minute. */
export const PASS_AGAIN_MS = 60_000;
/** Words that were passed on are remembered, for each place of the queue. */
const PASSED_PER_ENTRY = 8;

/** A bounded queue of news. Full: what was passed on most often goes. */
export class NewsQueue {
  /** By subject and accuser: what one says of another, the last word of it. */
  readonly #entries = new Map<string, Entry>();
  /** What others said and was passed on from here, the oldest first. */
  readonly #passed = new Map<string, { readonly update: SwimUpdate; readonly atMs: number }>();
  readonly #max: number;

  /** @param max Entries. */
  constructor(max: number) {
    this.#max = max;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** Takes news, unless the same or a later word of the same accuser about the same node is known. */
  add(update: SwimUpdate): void {
    const key = keyOf(update);
    const known = this.#entries.get(key)?.update;
    if (known && !overtakes(update, known)) return;
    this.#entries.delete(key);
    if (this.#entries.size >= this.#max) this.#dropMostSent();
    this.#entries.set(key, { update, sent: 0 });
    if (update.kind === "alive") this.supersede(update.subject, update.incarnation);
  }

  /**
   * Takes news of others to pass it on, unless that was done within {@linkcode PASS_AGAIN_MS}: two nodes would keep it
   * going between them for ever. Not for longer, since who was out of reach then has not heard it.
   */
  pass(update: SwimUpdate, nowMs: number): void {
    const key = keyOf(update);
    const last = this.#passed.get(key);
    // A clock that was set back does not make the minute longer.
    const isRecent = last !== undefined && nowMs >= last.atMs && nowMs < last.atMs + PASS_AGAIN_MS;
    if (isRecent && !overtakes(update, last.update)) return;
    this.#passed.delete(key);
    this.#passed.set(key, { update, atMs: nowMs });
    if (this.#passed.size > PASSED_PER_ENTRY * this.#max) {
      for (const oldest of this.#passed.keys()) {
        this.#passed.delete(oldest);
        break;
      }
    }
    this.add(update);
  }

  /** Drops what was said of an earlier incarnation of a node. */
  supersede(subject: string, incarnation: number): void {
    for (const [key, { update }] of this.#entries) {
      if (update.subject === subject && update.incarnation < incarnation) this.#entries.delete(key);
    }
  }

  /** Drops all that is about a node. */
  forget(subject: string): void {
    for (const [key, { update }] of this.#entries) if (update.subject === subject) this.#entries.delete(key);
  }

  /**
   * The news to pass on now, least told first.
   *
   * @param sentMax How often each is told in all.
   * @param count How many at most.
   * @param to Who gets it: it is not told what it said itself, nor what others say of it (that comes first hand).
   */
  take(sentMax: number, count: number, to = ""): SwimUpdate[] {
    if (this.#entries.size === 0) return [];
    const fit: [string, Entry][] = [];
    for (const one of this.#entries) {
      const { update, sent } = one[1];
      if (update.accuser === to || update.subject === to) continue;
      if (fit.length === count && sent >= fit[count - 1]![1].sent) continue;
      // Few are taken of perhaps many: each finds its place among those.
      let at = Math.min(fit.length, count - 1);
      while (at > 0 && fit[at - 1]![1].sent > sent) {
        fit[at] = fit[at - 1]!;
        at--;
      }
      fit[at] = one;
    }
    return fit.map(([key, entry]) => {
      entry.sent++;
      if (entry.sent >= sentMax) this.#entries.delete(key);
      return entry.update;
    });
  }

  #dropMostSent(): void {
    let most: [string, Entry] | undefined;
    for (const one of this.#entries) if (!most || one[1].sent > most[1].sent) most = one;
    if (most) this.#entries.delete(most[0]);
  }
}

/** Whose word about whom. */
function keyOf(update: SwimUpdate): string {
  return `${update.subject} ${update.accuser ?? ""}`;
}

/** Whether one word stands against another of the same node about the same. */
function overtakes(update: SwimUpdate, known: SwimUpdate): boolean {
  return update.incarnation > known.incarnation ||
    update.incarnation === known.incarnation && RANK[update.kind] > RANK[known.kind];
}

/** Of two words under one incarnation the graver one stands (SWIM, section 4.2). */
const RANK = { alive: 0, suspect: 1, dead: 2 } as const;
