import assert from "node:assert/strict";
import { toHex } from "../../src/core/bytes.ts";
import { type AgreedVersion, AgreedWatch, LATE_MS, UNSHOWN_MS } from "../../src/agent/agreed_watch.ts";

const KEY = "agreed/role/x";

function version(n: number, index: number, more: Partial<AgreedVersion> = {}): AgreedVersion {
  return { key: KEY, hash: new Uint8Array(32).fill(n), seq: n, index, by: [], ...more };
}

const hex = (n: number) => toHex(new Uint8Array(32).fill(n));

/** One look; the kinds of what was found. */
function look(watch: AgreedWatch, nowMs: number, latent: readonly AgreedVersion[], replica?: {
  readonly appliedIndex: number;
  readonly versions: readonly AgreedVersion[];
}): readonly string[] {
  return watch.look({ nowMs, latent, replica }).map((one) => one.kind);
}

Deno.test("[4.5e] AgreedWatch: what was decided here and stands needs no other proof", () => {
  const watch = new AgreedWatch();
  watch.decided(version(1, 0), 1_000);
  assert.equal(watch.counts.waiting, 1);
  assert.deepEqual(look(watch, 1_100, [version(1, 7)]), []);
  assert.deepEqual(watch.counts, { keys: 1, shown: 1, decided: 1, waiting: 0, late: 0, mismatches: 0 });
  assert.equal(watch.next(), undefined);
});

Deno.test("[4.5e] AgreedWatch: what was not seen being decided is verified, and said to be wrong only after tries and time", () => {
  const watch = new AgreedWatch();
  const one = version(1, 7, { by: ["a", "b"] });
  assert.deepEqual(look(watch, 1_000, [one]), []);
  assert.deepEqual(watch.next(), { version: one, atMs: 1_000 });
  // Nobody to ask, however often, says nothing against it.
  for (let i = 0; i < 20; i++) assert.deepEqual(watch.verified(one, "unknown", 1_000 + 60_000 * i), []);
  assert.equal(watch.verified(one, "newer", 1_000).length, 0);
  let nowMs = 2_000;
  for (let i = 0; i < 4; i++) assert.deepEqual(watch.verified(one, "not", nowMs += 1_000), []);
  nowMs = 1_000 + UNSHOWN_MS;
  const [found] = watch.verified(one, "not", nowMs);
  assert.deepEqual(found, { kind: "unshown", key: KEY, found: hex(1), index: 7, atMs: nowMs, by: ["a", "b"] });
  assert.deepEqual(watch.verified(one, "not", nowMs + 60_000), [], "said once");
  assert.equal(watch.counts.mismatches, 1);
  assert.deepEqual([watch.isWrong(KEY, one.hash), watch.isWrong(KEY, version(2, 8).hash)], [true, false]);
  // The right one takes its place.
  assert.deepEqual(look(watch, nowMs, [version(2, 8)]), []);
  assert.deepEqual(watch.verified(version(2, 8), "shown", nowMs), []);
  assert.deepEqual([watch.counts.shown, watch.next()], [1, undefined]);
});

Deno.test("[4.5e] AgreedWatch: the Latent Spore may be behind the replica or ahead of it, never different", () => {
  const [old, now] = [version(1, 5), version(2, 9)];
  const replica = { appliedIndex: 9, versions: [now] };
  assert.deepEqual(look(new AgreedWatch(), 0, [old], replica), [], "behind");
  assert.deepEqual(look(new AgreedWatch(), 0, [version(3, 10)], replica), [], "ahead: not applied here yet");
  assert.deepEqual(look(new AgreedWatch(), 0, [now], replica), [], "equal");
  const watch = new AgreedWatch();
  assert.deepEqual(look(watch, 0, [version(3, 9)], replica), ["latent-differs"], "another one at that place");
  assert.deepEqual(look(watch, 0, [version(3, 9)], replica), [], "said once");
  assert.deepEqual(
    look(new AgreedWatch(), 0, [version(3, 8, { key: "agreed/y" })], replica),
    ["latent-differs"],
    "none there",
  );
  const moved = { appliedIndex: 12, versions: [now] };
  assert.deepEqual(
    look(new AgreedWatch(), 0, [version(3, 11)], moved),
    ["latent-differs"],
    "later, and not in the replica",
  );
});

Deno.test("[4.5e] AgreedWatch: of two that were decided about one version the log takes one, and neither is wrong", () => {
  const watch = new AgreedWatch();
  watch.decided(version(4, 0), 0);
  watch.decided(version(7, 0, { seq: 4 }), 0);
  assert.deepEqual(look(watch, 10, [version(7, 3, { seq: 4 })]), []);
  assert.deepEqual(watch.counts, { keys: 1, shown: 1, decided: 2, waiting: 0, late: 0, mismatches: 0 });
});

Deno.test("[4.5e] AgreedWatch: what nobody can show is named beside what was decided", () => {
  const watch = new AgreedWatch();
  watch.decided(version(4, 0), 0);
  const forged = version(9, 3, { seq: 4, by: ["a"] });
  look(watch, 10, [forged]);
  const found = [1, 2, 3, 4, 5].flatMap((i) => watch.verified(forged, "not", 10_000 * i));
  assert.deepEqual(found.map((one) => [one.kind, one.expected, one.by]), [["unshown", hex(4), ["a"]]]);
});

Deno.test("[4.5e] AgreedWatch: a decision that does not come is late; one that was overtaken is not", () => {
  const watch = new AgreedWatch();
  watch.decided(version(4, 0), 0);
  assert.deepEqual(look(watch, LATE_MS - 1, []), []);
  assert.equal(watch.counts.late, 0);
  assert.deepEqual(look(watch, LATE_MS, []), []);
  assert.deepEqual([watch.counts.late, watch.counts.waiting], [1, 0]);
  watch.decided(version(5, 0), LATE_MS);
  watch.decided(version(6, 0), LATE_MS);
  look(watch, LATE_MS + 1, [version(6, 2)]);
  assert.deepEqual([watch.counts.late, watch.counts.waiting, watch.counts.decided], [1, 0, 3]);
});

Deno.test("[4.5e] AgreedWatch: it forgets what stands no more, and remembers a bounded number of decisions", () => {
  const watch = new AgreedWatch();
  for (let n = 0; n < 3_000; n++) {
    watch.decided(
      { key: `agreed/k/${n}`, seq: n, hash: new Uint8Array(32).fill(1).with(0, n & 255).with(1, n >> 8) },
      0,
    );
  }
  assert.ok(watch.counts.waiting <= 1_024);
  look(watch, 0, [version(1, 1)]);
  assert.notEqual(watch.next(), undefined);
  look(watch, 0, []);
  assert.equal(watch.next(), undefined);
  assert.equal(watch.counts.keys, 0);
});
