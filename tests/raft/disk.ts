/** A simulated disk for one Raft node: what a crash leaves. @module */

import assert from "node:assert/strict";
import { NOTHING_STORED, type RaftEffect, type StoredRaft } from "../../src/raft/effects.ts";

/** A `persist` effect. */
export type Persist = RaftEffect & { readonly type: "persist" };

/** What is durable. */
export class Disk {
  stored: StoredRaft = NOTHING_STORED;

  /** Makes one persist effect durable, in the order of its contract, and checks that what is there is a log. */
  write(effect: Persist): void {
    let { hardState, snapshot, logStart, entries } = this.stored;
    hardState = effect.hardState ?? hardState;
    snapshot = effect.snapshot ?? snapshot;
    const { dropThrough, truncateFrom } = effect;
    if (dropThrough) {
      assert.ok(snapshot && dropThrough.index <= snapshot.meta.index, "what is dropped is in the snapshot");
      entries = entries.filter((one) => one.index > dropThrough.index);
      logStart = dropThrough;
    }
    if (truncateFrom !== undefined) entries = entries.filter((one) => one.index < truncateFrom);
    entries = [...entries, ...effect.entries];
    entries.forEach((one, i) => assert.equal(one.index, logStart.index + 1 + i, "the log on disk has no gap"));
    this.stored = { hardState, snapshot, logStart, entries, appliedIndex: snapshot?.meta.index ?? 0 };
  }
}
