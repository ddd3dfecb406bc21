/**
 * How a replica of the Primary Spore stands in the store: term and vote, log, snapshot, and who it is.
 *
 * @module
 */

import { decodeAs, encodeCbor, record, text, uint, WireError } from "../core/codec.ts";
import { type RaftEffect, type StoredRaft } from "../raft/effects.ts";
import {
  decodeEntry,
  decodeHardState,
  decodeSnapshotMeta,
  encodeEntry,
  encodeHardState,
  encodeSnapshotMeta,
  type Entry,
  type Snapshot,
} from "../raft/messages.ts";
import type { Put } from "./state.ts";

/** One replica: a life of a node's disk. A node that has lost it comes back as another one. */
export interface ReplicaIdentity {
  /** Name in the configuration: the node's id, a dot, eight hexadecimal digits. */
  readonly id: string;
  /** Rises with every start. */
  readonly incarnation: number;
  /** It began the group, as its only voter. */
  readonly founder: boolean;
}

const IDENTITY = "raft/replica";
const HARD = "raft/hard";
const START = "raft/start";
const META = "raft/snapshot";
const DATA = "raft/snapshot-data";
const LOG = "raft/log/";

const readIdentity = record({ r: text(128, /^[A-Za-z0-9]+\.[0-9a-f]{8}$/), n: uint(), f: uint(1) });
const readStart = record({ i: uint(), t: uint() });

/** Node of a replica. */
export function nodeOfReplica(replica: string): string {
  return replica.slice(0, Math.max(0, replica.lastIndexOf(".")));
}

/** Turns what a Raft node wants durable into puts, and knows what is there. */
export class PrimaryStore {
  #identity: ReplicaIdentity | undefined;
  #first = 1;
  #last = 0;
  #hasSnapshot = false;

  get identity(): ReplicaIdentity | undefined {
    return this.#identity;
  }

  /** Entries on disk. */
  get entries(): number {
    return this.#last - this.#first + 1;
  }

  /**
   * Reads what an earlier run left.
   *
   * @throws {WireError} Where it is damaged: what it acknowledged is not known any more.
   */
  load(entries: ReadonlyMap<string, Uint8Array>): StoredRaft | undefined {
    const identity = entries.get(IDENTITY);
    if (!identity) return undefined;
    const { r, n, f } = decodeAs(identity, readIdentity);
    const hard = entries.get(HARD);
    const start = entries.get(START);
    const meta = entries.get(META);
    const data = entries.get(DATA);
    const logStart = start ? decodeAs(start, readStart) : { i: 0, t: 0 };
    let snapshot: Snapshot | undefined;
    if (meta) {
      snapshot = { meta: decodeSnapshotMeta(meta), data: data ?? new Uint8Array(0) };
      if (snapshot.data.length !== snapshot.meta.sizeBytes) {
        throw new WireError("Cannot read the stored snapshot: cut off");
      }
    }
    const log: Entry[] = [];
    for (let index = logStart.i + 1;; index++) {
      const bytes = entries.get(keyOf(index));
      if (!bytes) break;
      const entry = decodeEntry(bytes);
      if (entry.index !== index) throw new WireError(`Cannot read stored entry ${index}: it is entry ${entry.index}`);
      log.push(entry);
    }
    const rows = [...entries.keys()].filter((key) => key.startsWith(LOG)).length;
    if (rows !== log.length) throw new WireError(`Cannot read the stored log: ${rows} entries, ${log.length} in a row`);
    this.#identity = { id: r, incarnation: n, founder: f === 1 };
    this.#first = logStart.i + 1;
    this.#last = logStart.i + log.length;
    this.#hasSnapshot = snapshot !== undefined;
    return {
      hardState: hard ? decodeHardState(hard) : { term: 0, votedFor: undefined },
      snapshot,
      logStart: { index: logStart.i, term: logStart.t },
      entries: log,
      appliedIndex: snapshot?.meta.index ?? 0,
    };
  }

  /** Notes who this replica is. */
  identify(identity: ReplicaIdentity): Put[] {
    this.#identity = identity;
    return [[IDENTITY, encodeCbor({ r: identity.id, n: identity.incarnation, f: identity.founder ? 1 : 0 })]];
  }

  /** What makes a persist effect durable. */
  puts(effect: RaftEffect & { readonly type: "persist" }): Put[] {
    const { hardState, snapshot, dropThrough, truncateFrom, entries } = effect;
    const puts: Put[] = [];
    if (hardState) puts.push([HARD, encodeHardState(hardState)]);
    if (snapshot) {
      puts.push([META, encodeSnapshotMeta(snapshot.meta)], [DATA, snapshot.data]);
      this.#hasSnapshot = true;
    }
    if (dropThrough) {
      puts.push([START, encodeCbor({ i: dropThrough.index, t: dropThrough.term })]);
      for (let index = this.#first; index <= Math.min(dropThrough.index, this.#last); index++) {
        puts.push([keyOf(index), null]);
      }
      this.#first = dropThrough.index + 1;
      this.#last = Math.max(this.#last, dropThrough.index);
    }
    if (truncateFrom !== undefined) {
      const kept = new Set(entries.map((one) => one.index));
      for (let index = Math.max(truncateFrom, this.#first); index <= this.#last; index++) {
        if (!kept.has(index)) puts.push([keyOf(index), null]);
      }
      this.#last = Math.min(this.#last, Math.max(truncateFrom, this.#first) - 1);
    }
    for (const entry of entries) puts.push([keyOf(entry.index), encodeEntry(entry)]);
    if (entries.length > 0) this.#last = entries.at(-1)!.index;
    return puts;
  }

  /** All keys in the store. */
  keys(): string[] {
    const keys = this.#identity ? [IDENTITY, HARD, START] : [];
    if (this.#hasSnapshot) keys.push(META, DATA);
    for (let index = this.#first; index <= this.#last; index++) keys.push(keyOf(index));
    return keys;
  }

  /** Nothing is there. */
  clear(): void {
    this.#identity = undefined;
    this.#first = 1;
    this.#last = 0;
    this.#hasSnapshot = false;
  }
}

function keyOf(index: number): string {
  return LOG + String(index).padStart(16, "0");
}
