/**
 * The properties of figure 3.2 of Ongaro's thesis, seen from outside on the replicas of whole agents, and that the
 * states that they replicate are one.
 *
 * Written from the paper; knows of the code only what `inspect()` shows. `tests/raft/checkers.ts` sees more of a
 * replica (each persist), this one sees replicas as agents drive them.
 *
 * @module
 */

import { toHex } from "../../src/core/bytes.ts";
import type { PrimaryView } from "../../src/agent/primary.ts";
import { encodeEntry, type Entry } from "../../src/raft/messages.ts";

interface Seen {
  life: number;
  term: number;
  commitIndex: number;
  lastIndex: number;
  stateIndex: number;
  leads: boolean;
}

/** Remembers a whole run. */
export class RaftChecker {
  /** Who led a term, by replica. */
  readonly #leaderOf = new Map<number, string>();
  /** What is at an index of a term: entries with the same place are the same, and so is what is before them. */
  readonly #places = new Map<string, { readonly content: string; readonly prevTerm: number | undefined }>();
  /** Term of each committed entry, and the least term in which somebody knew that it is. */
  readonly #committed: { readonly term: number; readonly knownIn: number }[] = [];
  readonly #states = new Map<number, string>();
  readonly #seen = new Map<string, Seen>();
  readonly #contents = new WeakMap<Entry, string>();

  /** Last index that anybody calls committed. */
  get committedIndex(): number {
    return Math.max(0, this.#committed.length - 1);
  }

  /** Elections that were won. */
  get elections(): number {
    return this.#leaderOf.size;
  }

  /**
   * After a step of a node.
   *
   * @param life Grows with each start of the node: what it held in memory only is gone then.
   * @returns What does not hold.
   */
  check(view: PrimaryView, life: number): string | undefined {
    const { id, term, role, commitIndex, lastIndex, prevIndex, stateIndex } = view;
    let seen = this.#seen.get(id);
    const leads = role === "leader";
    if (
      seen && seen.life === life && seen.term === term && seen.commitIndex === commitIndex &&
      seen.lastIndex === lastIndex && seen.stateIndex === stateIndex && seen.leads === leads
    ) return undefined;
    if (!seen) {
      seen = { life, term: 0, commitIndex: 0, lastIndex: 0, stateIndex: 0, leads: false };
      this.#seen.set(id, seen);
    }
    if (term < seen.term) return `${id} fell back from term ${seen.term} to ${term}`;
    if (seen.life === life && commitIndex < seen.commitIndex) return `${id} takes back a commit`;
    if (seen.life === life && stateIndex < seen.stateIndex) return `${id} takes back what it applied`;
    if (seen.life === life && leads && seen.leads && seen.term === term && lastIndex < seen.lastIndex) {
      return `leader append-only: ${id} cut its log from ${seen.lastIndex} to ${lastIndex}`;
    }
    const from = seen.life === life ? Math.min(seen.commitIndex, lastIndex) : 0;
    Object.assign(seen, { life, term, commitIndex, lastIndex, stateIndex, leads });
    return this.#leader(view) ?? this.#matching(view, Math.max(from, prevIndex)) ?? this.#commits(view) ??
      this.#state(view);
  }

  #leader(view: PrimaryView): string | undefined {
    if (view.role !== "leader") return undefined;
    const { id, term, prevIndex } = view;
    const other = this.#leaderOf.get(term);
    if (other === id) return undefined;
    if (other !== undefined) return `election safety: ${other} and ${id} lead term ${term}`;
    this.#leaderOf.set(term, id);
    for (let index = prevIndex + 1; index < this.#committed.length; index++) {
      const known = this.#committed[index];
      if (!known || known.knownIn >= term) continue;
      const mine = view.entryAt(index)?.term;
      if (mine !== known.term) {
        return `leader completeness: ${id} of term ${term} has ${index}@${mine}, committed is ${index}@${known.term}`;
      }
    }
    return undefined;
  }

  /** What is behind `from` in a log may have been replaced since it was looked at. */
  #matching(view: PrimaryView, from: number): string | undefined {
    for (let index = from + 1; index <= view.lastIndex; index++) {
      const entry = view.entryAt(index);
      if (!entry) return `${view.id} has a gap at ${index}`;
      const prevTerm = index === 1 ? 0 : view.entryAt(index - 1)?.term;
      const place = `${index}@${entry.term}`;
      const content = this.#contentOf(entry);
      const known = this.#places.get(place);
      if (!known) {
        this.#places.set(place, { content, prevTerm });
        continue;
      }
      if (known.content !== content) return `log matching: two entries ${place} differ (${view.id})`;
      if (known.prevTerm !== undefined && prevTerm !== undefined && known.prevTerm !== prevTerm) {
        return `log matching: two logs differ before ${place} (${view.id})`;
      }
    }
    return undefined;
  }

  #commits(view: PrimaryView): string | undefined {
    for (let index = view.prevIndex + 1; index <= view.commitIndex; index++) {
      const term = view.entryAt(index)!.term;
      const known = this.#committed[index];
      if (!known || known.term === term && known.knownIn > view.term) {
        this.#committed[index] = { term, knownIn: view.term };
      } else if (known.term !== term) {
        return `state machine safety: ${view.id} commits ${index}@${term}, committed was ${index}@${known.term}`;
      }
    }
    return undefined;
  }

  #state(view: PrimaryView): string | undefined {
    const { stateIndex, commitIndex, id } = view;
    if (stateIndex > commitIndex) return `${id} applied ${stateIndex}, committed is ${commitIndex}`;
    const hash = toHex(view.stateHash);
    const known = this.#states.get(stateIndex);
    if (known === undefined) this.#states.set(stateIndex, hash);
    else if (known !== hash) return `state machine safety: two states at ${stateIndex} (${id})`;
    return undefined;
  }

  #contentOf(entry: Entry): string {
    let content = this.#contents.get(entry);
    if (content === undefined) this.#contents.set(entry, content = toHex(encodeEntry(entry)));
    return content;
  }
}
