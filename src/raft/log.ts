/**
 * The log in memory: the entries after those that were compacted away.
 *
 * @module
 */

import { assert } from "../core/assert.ts";
import { type Entry, entryBytes } from "./messages.ts";

/** Entries from {@linkcode RaftLog.prevIndex} + 1 on, without gaps. */
export class RaftLog {
  #entries: Entry[] = [];
  #prevIndex: number;
  #prevTerm: number;

  /**
   * @param prevIndex Last entry that is not there any more; 0 where all are.
   * @param prevTerm Its term.
   * @param entries What follows it.
   */
  constructor(prevIndex: number, prevTerm: number, entries: readonly Entry[]) {
    this.#prevIndex = prevIndex;
    this.#prevTerm = prevTerm;
    if (entries.length > 0) this.append(entries);
  }

  /** Last entry that was compacted away. */
  get prevIndex(): number {
    return this.#prevIndex;
  }

  get prevTerm(): number {
    return this.#prevTerm;
  }

  get lastIndex(): number {
    return this.#prevIndex + this.#entries.length;
  }

  get lastTerm(): number {
    return this.#entries.at(-1)?.term ?? this.#prevTerm;
  }

  /** Term of an entry; `undefined` where it is not known any more or not there yet. */
  termAt(index: number): number | undefined {
    return index === this.#prevIndex ? this.#prevTerm : this.#entries[index - this.#prevIndex - 1]?.term;
  }

  /** An entry that is there. */
  at(index: number): Entry {
    const entry = this.#entries[index - this.#prevIndex - 1];
    assert(entry, `entry ${index} is in the log (${this.#prevIndex}, ${this.lastIndex}]`);
    return entry;
  }

  /**
   * Entries from `from` on: at least one where there is one, then as many as stay within the bounds.
   *
   * @param to Last one at most.
   */
  slice(from: number, to: number, bounds: { readonly countMax: number; readonly bytesMax: number }): Entry[] {
    const out: Entry[] = [];
    let left = bounds.bytesMax;
    for (let index = from; index <= Math.min(to, this.lastIndex) && out.length < bounds.countMax; index++) {
      const entry = this.at(index);
      left -= entryBytes(entry);
      if (left < 0 && out.length > 0) break;
      out.push(entry);
    }
    return out;
  }

  /** Puts the entries in place of everything from the first one's index on. */
  append(entries: readonly Entry[]): void {
    const first = entries[0];
    if (!first) return;
    assert(
      first.index > this.#prevIndex && first.index <= this.lastIndex + 1,
      `entries from ${first.index} follow on the log (${this.#prevIndex}, ${this.lastIndex}]`,
    );
    this.#entries.length = first.index - this.#prevIndex - 1;
    for (const entry of entries) {
      assert(entry.index === this.lastIndex + 1, `entry ${entry.index} follows on ${this.lastIndex}`);
      assert(entry.term >= this.lastTerm, `term ${entry.term} is at least ${this.lastTerm}`);
      this.#entries.push(entry);
    }
  }

  /**
   * The last index up to `index` whose term is at most `term`: below a disagreement, nothing above it can agree
   * with a log whose entry there has that term. One round trip skips a whole term (thesis, 3.5).
   */
  lastOfTerm(index: number, term: number): number {
    let at = Math.min(index, this.lastIndex);
    while (at > this.#prevIndex && this.termAt(at)! > term) at--;
    return at;
  }

  /** Whether a log with this end holds everything that this one may have committed (thesis, 3.6.1). */
  isUpToDate(lastLogIndex: number, lastLogTerm: number): boolean {
    return lastLogTerm > this.lastTerm || lastLogTerm === this.lastTerm && lastLogIndex >= this.lastIndex;
  }

  /** Forgets everything: a snapshot up to `index` stands for it. */
  reset(index: number, term: number): void {
    this.#entries = [];
    this.#prevIndex = index;
    this.#prevTerm = term;
  }

  /** Forgets the entries up to `index`. */
  dropThrough(index: number): void {
    if (index <= this.#prevIndex) return;
    const term = this.termAt(index);
    assert(term !== undefined, `entry ${index} is in the log (${this.#prevIndex}, ${this.lastIndex}]`);
    this.#entries = this.#entries.slice(index - this.#prevIndex);
    this.#prevIndex = index;
    this.#prevTerm = term;
  }
}
