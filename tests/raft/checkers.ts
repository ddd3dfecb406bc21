/**
 * The five properties of figure 3.2 of Ongaro's thesis, and the promises of single nodes, checked after every step.
 *
 * Written from the paper; knows of the code only its effects and its view.
 *
 * @module
 */

import { toHex } from "../../src/core/bytes.ts";
import { encodeEntry } from "../../src/raft/messages.ts";
import type { Entry } from "../../src/raft/messages.ts";
import type { Raft } from "../../src/raft/raft.ts";
import type { Persist } from "./disk.ts";

/** Something that must never happen has happened. */
export class SafetyError extends Error {
  override readonly name = "SafetyError";
}

/** Remembers a whole run. */
export class Checkers {
  readonly #leaderOf = new Map<number, string>();
  /** Last index of each leader's log, by node and term. */
  readonly #leaderLast = new Map<string, number>();
  /** The number of the log that ends in an entry: logs with the same number are the same. */
  readonly #chains = new Map<string, number>([["0@0", 0]]);
  readonly #chainNumbers = new Map<string, number>();
  /** Committed: term of each entry, and the term of who knew it first. */
  readonly committed: { readonly term: number; readonly knownIn: number }[] = [{ term: 0, knownIn: 0 }];
  readonly #applied: string[] = [""];
  readonly #votes = new Map<string, string>();
  readonly #terms = new Map<string, number>();
  readonly #commits = new Map<string, number>();

  /** A node starts (again): what it held in memory only is gone. */
  started(raft: Raft): void {
    this.#commits.set(raft.id, raft.view.commitIndex);
    this.#terms.set(raft.id, raft.view.term);
  }

  /** Entries on their way to disk: log matching. */
  persisting(raft: Raft, effect: Persist): void {
    for (const [i, entry] of effect.entries.entries()) {
      const before = effect.entries[i - 1];
      const prevTerm = before?.term ?? raft.entryAt(entry.index - 1)?.term ?? this.#termBefore(raft, entry.index - 1);
      const prev = this.#chains.get(`${entry.index - 1}@${prevTerm}`);
      if (prev === undefined) this.#fail(`${raft.id} writes ${entry.index}@${entry.term} behind an unknown entry`);
      const content = `${prev} ${toHex(encodeEntry(entry))}`;
      let chain = this.#chainNumbers.get(content);
      if (chain === undefined) this.#chainNumbers.set(content, chain = this.#chainNumbers.size + 1);
      const place = `${entry.index}@${entry.term}`;
      const known = this.#chains.get(place);
      if (known === undefined) this.#chains.set(place, chain);
      else if (known !== chain) this.#fail(`log matching: two logs differ up to ${place} (${raft.id})`);
    }
  }

  /** After each step of a node. */
  stepped(raft: Raft): void {
    const { role, term, lastIndex, commitIndex, id, stableIndex } = raft.view;
    if (term < (this.#terms.get(id) ?? 0)) this.#fail(`${id} fell back to term ${term}`);
    this.#terms.set(id, term);
    if (role === "leader") {
      const other = this.#leaderOf.get(term);
      if (other !== undefined && other !== id) this.#fail(`election safety: ${other} and ${id} lead term ${term}`);
      if (other === undefined) {
        this.#leaderOf.set(term, id);
        this.#complete(raft);
      }
      const last = this.#leaderLast.get(`${id} ${term}`) ?? 0;
      if (lastIndex < last) this.#fail(`leader append-only: ${id} cut its log from ${last} to ${lastIndex}`);
      this.#leaderLast.set(`${id} ${term}`, lastIndex);
    }
    if (stableIndex > lastIndex) this.#fail(`${id} calls ${stableIndex} stable, its log ends at ${lastIndex}`);
    const before = this.#commits.get(id) ?? 0;
    if (commitIndex < before) this.#fail(`${id} takes back a commit`);
    this.#commits.set(id, commitIndex);
    for (let index = before + 1; index <= commitIndex; index++) {
      const entry = raft.entryAt(index);
      const known = this.committed[index];
      if (known && entry && known.term !== entry.term) {
        this.#fail(`state machine safety: ${id} commits ${index}@${entry.term}, committed was ${index}@${known.term}`);
      }
      if (!known && entry) this.committed[index] = { term: entry.term, knownIn: term };
      if (!known && !entry) this.#fail(`${id} commits ${index}, which nobody had`);
    }
  }

  /** Entries given to a state machine. */
  applying(id: string, entries: readonly Entry[], appliedIndex: number): void {
    for (const [i, entry] of entries.entries()) {
      if (entry.index !== appliedIndex + 1 + i) this.#fail(`${id} applies ${entry.index} after ${appliedIndex + i}`);
      const content = toHex(encodeEntry(entry));
      const known = this.#applied[entry.index];
      if (known !== undefined && known !== content) {
        this.#fail(`state machine safety: ${id} applies another ${entry.index}`);
      }
      this.#applied[entry.index] = content;
    }
  }

  /** A vote leaves a node. */
  voted(id: string, term: number, candidate: string): void {
    const before = this.#votes.get(`${id} ${term}`);
    if (before !== undefined && before !== candidate) {
      this.#fail(`${id} votes for ${before} and for ${candidate} in term ${term}`);
    }
    this.#votes.set(`${id} ${term}`, candidate);
  }

  /** Leader completeness: a new leader has everything that was committed in earlier terms. */
  #complete(raft: Raft): void {
    const { term, prevIndex, id } = raft.view;
    for (let index = prevIndex + 1; index < this.committed.length; index++) {
      const known = this.committed[index]!;
      if (known.knownIn >= term) continue;
      const mine = raft.entryAt(index)?.term;
      if (mine !== known.term) {
        this.#fail(
          `leader completeness: ${id} of term ${term} has ${index}@${mine}, committed is ${index}@${known.term}`,
        );
      }
    }
  }

  #termBefore(raft: Raft, index: number): number {
    if (index === 0) return 0;
    // Just behind what was compacted: that is committed.
    if (index > raft.view.commitIndex) this.#fail(`${raft.id} dropped ${index}, which is not committed`);
    return this.committed[index]!.term;
  }

  #fail(what: string): never {
    throw new SafetyError(`SAFETY: ${what}`);
  }
}
