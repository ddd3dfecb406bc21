/**
 * What this node has seen of others: scores for its own choices. They enter no vote.
 *
 * @module
 */

import { array, type CborValue, decodeAs, encodeCbor, uint, WireError } from "../core/codec.ts";
import { countedMs, LOCAL_HALF_LIFE_MS, lose, NEUTRAL_PPM, SCORE_MAX, towards } from "./score.ts";

/** Something that this node has seen of another. */
export type LocalFact =
  /** Of a vote: opened what was decided, something else, not in the set, had to be recovered. */
  | "correct"
  | "wrong"
  | "missing"
  | "withheld"
  /** Two things were signed for one place, and this node has checked it. */
  | "equivocated"
  /** A proof of storage was right, or not. */
  | "stored"
  | "not-stored"
  /** Alive through an hour, or found dead. */
  | "up"
  | "down"
  /** Answers later than anybody waits for. */
  | "slow"
  /** A record that was tampered with came from it, was denied by who can tell, or came too often. */
  | "invalid"
  | "denied"
  | "limited";

/** Being slow or away alone takes no score below this: the word of a machine behind a bad line is as true as any. */
export const LIVENESS_FLOOR_PPM = 300_000;

/** What a fact does: a gain is a share of what is missing to the top, a loss a share of what is there, ppm. */
type Effect = { readonly gainPpm: number } | { readonly lossPpm: number; readonly liveness?: true };

const EFFECTS: Readonly<Record<LocalFact, Effect>> = {
  "correct": { gainPpm: 1_000 },
  "stored": { gainPpm: 1_000 },
  "up": { gainPpm: 500 },
  "wrong": { lossPpm: 400_000 },
  "withheld": { lossPpm: 400_000 },
  "equivocated": { lossPpm: SCORE_MAX },
  "not-stored": { lossPpm: 200_000 },
  "invalid": { lossPpm: 100_000 },
  "denied": { lossPpm: 50_000 },
  "missing": { lossPpm: 10_000, liveness: true },
  "down": { lossPpm: 10_000, liveness: true },
  "limited": { lossPpm: 5_000, liveness: true },
  "slow": { lossPpm: 2_000, liveness: true },
};

/** All facts, the good ones first. */
export const LOCAL_FACTS: readonly LocalFact[] = Object.keys(EFFECTS) as LocalFact[];
/** Most that a day of good facts adds, ppm: work in a hurry is no proof of anything. */
export const DAY_GAIN_PPM_MAX = 20_000;
/** Nodes that are remembered; of more, the one nearest to neutral is forgotten. */
export const LOCAL_NODES_MAX = 1_024;
const DAY_MS = 86_400_000;

/** What is remembered of a node. */
export interface LocalView {
  /** As of now. */
  readonly ppm: number;
  readonly counts: Readonly<Record<LocalFact, number>>;
  /** When the last fact was seen, milliseconds. */
  readonly seenMs: number;
}

interface Row {
  ppm: number;
  /** Time to which it has decayed. */
  atMs: number;
  seenMs: number;
  /** Since when the gains of a day are counted, and how much they are. */
  dayMs: number;
  gained: number;
  counts: number[];
}

/** Scores of this node's own. */
export class LocalScores {
  readonly #rows = new Map<string, Row>();

  /** Nodes that something is remembered of. */
  get nodes(): readonly string[] {
    return [...this.#rows.keys()];
  }

  /** Takes a fact in. @returns The node that was forgotten for it, if one was: what is stored of it is to go as well. */
  observe(nodeId: string, fact: LocalFact, nowMs: number): string | undefined {
    const forgotten = this.#rows.size >= LOCAL_NODES_MAX && !this.#rows.has(nodeId) ? this.#forget(nowMs) : undefined;
    this.#take(this.#row(nodeId, nowMs), fact, nowMs);
    return forgotten;
  }

  #take(row: Row, fact: LocalFact, nowMs: number): void {
    const at = LOCAL_FACTS.indexOf(fact);
    row.counts[at] = row.counts[at]! + 1;
    const effect = EFFECTS[fact];
    if ("lossPpm" in effect) {
      const floor = effect.liveness ? Math.min(row.ppm, LIVENESS_FLOOR_PPM) : 0;
      row.ppm = Math.max(floor, lose(row.ppm, effect.lossPpm));
      return;
    }
    if (nowMs - row.dayMs >= DAY_MS) [row.dayMs, row.gained] = [nowMs, 0];
    const wanted = Math.floor((SCORE_MAX - row.ppm) * effect.gainPpm / SCORE_MAX);
    const gain = Math.min(wanted, DAY_GAIN_PPM_MAX - row.gained);
    row.ppm += gain;
    row.gained += gain;
  }

  /** The score of a node: neutral where nothing is known. */
  ppm(nodeId: string, nowMs: number): number {
    const row = this.#rows.get(nodeId);
    return row ? decayed(row, nowMs) : NEUTRAL_PPM;
  }

  /** What is remembered of a node. */
  view(nodeId: string, nowMs: number): LocalView {
    const row = this.#rows.get(nodeId);
    const counts = Object.fromEntries(LOCAL_FACTS.map((fact, i) => [fact, row?.counts[i] ?? 0]));
    return {
      ppm: this.ppm(nodeId, nowMs),
      counts: counts as Record<LocalFact, number>,
      seenMs: row?.seenMs ?? 0,
    };
  }

  /** What is to be stored of a node; missing where nothing is. */
  encode(nodeId: string): Uint8Array | undefined {
    const row = this.#rows.get(nodeId);
    if (!row) return undefined;
    const value: CborValue = [row.ppm, row.atMs, row.seenMs, row.dayMs, row.gained, row.counts];
    return encodeCbor(value);
  }

  /** Takes in what was stored. @throws {WireError} Also where there is no room. */
  load(nodeId: string, stored: Uint8Array): void {
    if (this.#rows.size >= LOCAL_NODES_MAX) throw new WireError(`Cannot keep the score of ${nodeId}: too many`);
    const [ppm, atMs, seenMs, dayMs, gained, counts] = decodeAs(stored, array((one) => one, 6));
    const seen = array(uint(), LOCAL_FACTS.length)(counts, "counts");
    this.#rows.set(nodeId, {
      ppm: uint(SCORE_MAX)(ppm, "ppm"),
      atMs: uint(2 ** 48)(atMs, "at"),
      seenMs: uint(2 ** 48)(seenMs, "seen"),
      dayMs: uint(2 ** 48)(dayMs, "day"),
      gained: uint(DAY_GAIN_PPM_MAX)(gained, "gained"),
      counts: LOCAL_FACTS.map((_, i) => seen[i] ?? 0),
    });
  }

  /** The clock was set back: what was seen later was seen now. */
  clockSetBack(nowMs: number): void {
    for (const row of this.#rows.values()) {
      row.atMs = Math.min(row.atMs, nowMs);
      row.seenMs = Math.min(row.seenMs, nowMs);
      row.dayMs = Math.min(row.dayMs, nowMs);
    }
  }

  clear(): void {
    this.#rows.clear();
  }

  #row(nodeId: string, nowMs: number): Row {
    let row = this.#rows.get(nodeId);
    if (row) {
      row.ppm = decayed(row, nowMs);
      // What is no whole part of the half-life counts the next time.
      row.atMs += countedMs(Math.max(0, nowMs - row.atMs), LOCAL_HALF_LIFE_MS);
      row.seenMs = Math.max(row.seenMs, nowMs);
      return row;
    }
    row = { ppm: NEUTRAL_PPM, atMs: nowMs, seenMs: nowMs, dayMs: nowMs, gained: 0, counts: LOCAL_FACTS.map(() => 0) };
    this.#rows.set(nodeId, row);
    return row;
  }

  /** Makes room: who is nearest to neutral loses nothing by it. */
  #forget(nowMs: number): string | undefined {
    let nearest: { readonly nodeId: string; readonly far: number } | undefined;
    for (const [nodeId, row] of this.#rows) {
      const far = Math.abs(decayed(row, nowMs) - NEUTRAL_PPM);
      if (!nearest || far < nearest.far) nearest = { nodeId, far };
    }
    if (nearest) this.#rows.delete(nearest.nodeId);
    return nearest?.nodeId;
  }
}

function decayed(row: Row, nowMs: number): number {
  return towards(row.ppm, NEUTRAL_PPM, Math.max(0, nowMs - row.atMs), LOCAL_HALF_LIFE_MS);
}
