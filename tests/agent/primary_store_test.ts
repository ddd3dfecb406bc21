/** What a replica stores is what it goes on from. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { PrimaryStore } from "../../src/agent/primary_store.ts";
import { sha256 } from "../../src/core/crypto.ts";
import { configOf } from "../../src/raft/config.ts";
import type { RaftEffect } from "../../src/raft/effects.ts";
import type { Entry } from "../../src/raft/messages.ts";

const ID = "Anode.0123abcd";

Deno.test("[3.1c] Primary store: term, vote, log and snapshot are read again as they were stored, whatever was cut off", () => {
  const anyStep = fc.record({
    term: fc.nat(5),
    vote: fc.option(fc.constantFrom(ID, "Bnode.00000001"), { nil: undefined }),
    cut: fc.nat(3),
    add: fc.nat(4),
    compact: fc.boolean(),
  });
  fc.assert(fc.property(fc.array(anyStep, { minLength: 1, maxLength: 12 }), (steps) => {
    const disk = new Map<string, Uint8Array>();
    const store = new PrimaryStore();
    const put = (puts: ReturnType<PrimaryStore["puts"]>) => {
      for (const [key, value] of puts) value ? disk.set(key, value) : disk.delete(key);
    };
    put(store.identify({ id: ID, founder: true, incarnation: 1 }));
    // What the disk must hold, kept in the plainest way.
    let [entries, start, hard] = [[] as Entry[], { index: 0, term: 0 }, {
      term: 0,
      votedFor: undefined as string | undefined,
    }];
    let snapshot: (RaftEffect & { readonly type: "persist" })["snapshot"];
    for (const [seq, { term, vote, cut, add, compact }] of steps.entries()) {
      hard = { term: hard.term + term, votedFor: vote };
      const kept = entries.slice(0, entries.length - Math.min(cut, entries.length));
      const first = start.index + kept.length + 1;
      const fresh = Array.from({ length: add }, (_, i): Entry => ({ kind: "noop", term: hard.term, index: first + i }));
      const truncated = kept.length < entries.length;
      entries = [...kept, ...fresh];
      put(store.puts({
        type: "persist",
        seq,
        hardState: hard,
        ...(truncated ? { truncateFrom: first } : {}),
        entries: fresh,
        then: [],
      }));
      const last = entries.at(-1);
      if (!compact || !last) continue;
      const data = new Uint8Array([seq]);
      const meta = { index: last.index, term: last.term, config: configOf([ID]), sizeBytes: 1, digest: sha256(data) };
      snapshot = { meta, data };
      [entries, start] = [[], { index: last.index, term: last.term }];
      put(store.puts({ type: "persist", seq, snapshot, dropThrough: start, entries: [], then: [] }));
    }
    const again = new PrimaryStore();
    assert.deepEqual(again.load(disk), {
      hardState: hard,
      snapshot,
      logStart: start,
      entries,
      appliedIndex: snapshot?.meta.index ?? 0,
    });
    assert.deepEqual(again.identity, { id: ID, founder: true, incarnation: 1 });
    assert.deepEqual(
      new Set(again.keys()),
      new Set([...disk.keys(), ...again.keys().filter((key) => /hard|start$/.test(key))]),
    );
  }));
});
