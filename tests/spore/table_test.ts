import assert from "node:assert/strict";
import fc from "fast-check";
import { compareBytes, fromUtf8 } from "../../src/core/bytes.ts";
import { RECORD_LIFE_MS_MAX } from "../../src/spore/record.ts";
import { compareVersions, idOf, isAlive, SporeTable, type Version } from "../../src/spore/table.ts";
import { paper, spell, stateOf, T0 } from "./table_kit.ts";

const HOUR = 3_600_000;
const DAY = 86_400_000;
const RUNS = 400;

const anyProof = fc.option(
  fc.record({
    tier: fc.constantFrom("seed" as const, "primary" as const),
    term: fc.integer({ min: 0, max: 2 }),
    index: fc.integer({ min: 1, max: 4 }),
    epoch: fc.integer({ min: 1, max: 2 }),
    untilMs: fc.integer({ min: 1, max: 6 }).map((n) => T0 + n * DAY),
  }),
  { nil: undefined },
);
const anyVersion = fc.record({
  key: fc.constantFrom("app/x", "app/y", "service/web/a"),
  author: fc.integer({ min: 0, max: 2 }),
  seq: fc.integer({ min: 0, max: 5 }).map((n) => T0 + n),
  value: fc.option(fc.constantFrom("a", "b"), { nil: undefined }),
  ttlMs: fc.constantFrom(HOUR, RECORD_LIFE_MS_MAX),
  proof: anyProof,
}).map(paper);

Deno.test("[3.4a] compareVersions() orders by tier, term, index, seq, hash, in that order", () => {
  const ascending: Version[] = [
    paper({ seq: T0 + 1, value: "a" }),
    paper({ seq: T0 + 9, value: "a" }),
    paper({ seq: T0, value: "a", proof: { tier: "seed", index: 1 } }),
    paper({ seq: T0, value: "a", proof: { tier: "seed", index: 2 } }),
    paper({ seq: T0 + 8, value: "a", proof: { tier: "seed", index: 2 } }),
    paper({ seq: T0, value: "a", proof: { tier: "primary", term: 1, index: 7 } }),
    paper({ seq: T0, value: "a", proof: { tier: "primary", term: 2, index: 5 } }),
    paper({ seq: T0, value: "a", proof: { tier: "primary", term: 2, index: 6 } }),
    paper({ seq: T0 + 1, value: "a", proof: { tier: "primary", term: 2, index: 6 } }),
  ];
  for (const [i, a] of ascending.entries()) {
    for (const [j, b] of ascending.entries()) {
      assert.equal(Math.sign(compareVersions(a, b)), Math.sign(i - j), `${spell(a)} and ${spell(b)}`);
    }
  }
  const [a, b] = [paper({ seq: T0, value: "a" }), paper({ seq: T0, value: "b" })];
  assert.equal(Math.sign(compareVersions(a, b)), Math.sign(compareBytes(a.spore.hash, b.spore.hash)));
});

Deno.test("[3.4a] compareVersions() is a total order", () => {
  fc.assert(
    fc.property(anyVersion, anyVersion, anyVersion, (a, b, c) => {
      assert.equal(compareVersions(a, b), -compareVersions(b, a));
      if (compareVersions(a, b) <= 0 && compareVersions(b, c) <= 0) assert.ok(compareVersions(a, c) <= 0);
      if (compareVersions(a, b) === 0) assert.equal(compareBytes(a.spore.hash, b.spore.hash), 0);
    }),
    { numRuns: RUNS },
  );
});

Deno.test("[3.3d] SporeTable: merging is commutative, associative and idempotent, whatever the proofs say", () => {
  fc.assert(
    fc.property(
      fc.array(anyVersion, { maxLength: 12 }).chain((all) =>
        fc.tuple(
          fc.constant(all),
          fc.shuffledSubarray(all, { minLength: all.length }),
          fc.nat(all.length),
          fc.boolean(),
        )
      ),
      ([all, shuffled, cut, twice]) => {
        const one = new SporeTable(), other = new SporeTable();
        for (const version of all) one.merge(version, T0);
        for (const version of twice ? [...shuffled, ...all] : shuffled) other.merge(version, T0);
        assert.equal(stateOf(other), stateOf(one));
        // Two halves that were merged by themselves and then told each other.
        const [left, right] = [new SporeTable(), new SporeTable()];
        for (const version of shuffled.slice(0, cut)) left.merge(version, T0);
        for (const version of shuffled.slice(cut)) right.merge(version, T0);
        for (const key of right.keys("")) for (const version of right.versions(key)) left.merge(version, T0);
        assert.equal(stateOf(left), stateOf(one));
        for (const zone of [0, 1, 2, 3]) {
          assert.deepEqual(left.digest.sum({ zone, node: 0 }), one.digest.sum({ zone, node: 0 }));
        }
      },
    ),
    { numRuns: RUNS },
  );
});

/** Proofs as honest issuers make them: what is later in the order does not end earlier. */
const honestProof = fc.option(
  fc.record({
    tier: fc.constantFrom("seed" as const, "primary" as const),
    term: fc.integer({ min: 0, max: 1 }),
    index: fc.integer({ min: 1, max: 3 }),
  }).map((one) => ({
    ...one,
    untilMs: T0 + ((one.tier === "primary" ? 8 : 0) + one.term * 4 + one.index) * DAY,
  })),
  { nil: undefined },
);
const honestVersion = fc.record({
  author: fc.integer({ min: 0, max: 1 }),
  seq: fc.integer({ min: 0, max: 8 }).map((n) => T0 - RECORD_LIFE_MS_MAX + n * DAY),
  value: fc.option(fc.constantFrom("a", "b"), { nil: undefined }),
  ttlMs: fc.constantFrom(HOUR, 3 * DAY, RECORD_LIFE_MS_MAX),
  proof: honestProof,
}).map(paper);

/** What a table with everything in it would say at a time: the definition, without any forgetting. */
function definition(all: readonly Version[], nowMs: number): string {
  const greatest = (versions: readonly Version[]) => versions.toSorted(compareVersions).at(-1);
  const standing = all.map((one) => one.proof && one.proof.untilMs > nowMs ? one : { ...one, proof: undefined });
  const alive = standing.filter((one) => one.proof || one.spore.record.seq + RECORD_LIFE_MS_MAX > nowMs);
  const lifted = greatest(alive.filter((one) => one.proof));
  const inTime = alive.filter((one) => one.spore.record.seq + RECORD_LIFE_MS_MAX > nowMs);
  const newest = inTime.map((one) => ({ spore: one.spore, proof: undefined })).toSorted(compareVersions).at(-1);
  const winner = lifted ?? newest;
  if (!winner) return "nothing";
  const proven = newest && alive.some((one) => one.proof && compareBytes(one.spore.hash, newest.spore.hash) === 0);
  const challenger = lifted && newest && !proven && newest.spore.record.seq > lifted.spore.record.seq;
  return `${spell(winner)}; challenged by ${challenger ? spell(newest) : "nobody"}`;
}

Deno.test("[3.3d] [3.5c] SporeTable: in any order, with time passing in between, it says what the definition says", () => {
  const step = fc.tuple(honestVersion, fc.integer({ min: 0, max: 5 * DAY }), fc.boolean());
  fc.assert(
    fc.property(fc.array(step, { minLength: 1, maxLength: 10 }), (steps) => {
      const table = new SporeTable();
      const all: Version[] = [];
      let nowMs = T0 - RECORD_LIFE_MS_MAX / 2;
      for (const [version, afterMs, sweep] of steps) {
        nowMs += afterMs;
        if (sweep) table.expire(nowMs);
        table.merge(version, nowMs);
        all.push(version);
        table.expire(nowMs);
        const entry = table.get("app/x");
        const says = entry
          ? `${spell(entry.winner)}; challenged by ${entry.challenger ? spell(entry.challenger) : "nobody"}`
          : "nothing";
        assert.equal(says, definition(all, nowMs));
      }
      table.expire(nowMs + 60 * DAY);
      assert.equal(table.size, 0);
      assert.equal(table.bytes, 0);
      assert.deepEqual(table.tiers, { latent: 0, seed: 0, primary: 0 });
    }),
    { numRuns: 2 * RUNS },
  );
});

Deno.test("[3.3d] SporeTable: what expires at the same moment everywhere leaves the same, whoever heard what first", () => {
  fc.assert(
    fc.property(
      fc.array(honestVersion, { maxLength: 8 }).chain((all) =>
        fc.tuple(fc.constant(all), fc.shuffledSubarray(all, { minLength: all.length }), fc.array(fc.nat(20 * DAY)))
      ),
      ([all, shuffled, times]) => {
        const [one, other] = [new SporeTable(), new SporeTable()];
        const startMs = T0 - RECORD_LIFE_MS_MAX / 2;
        for (const version of all) one.merge(version, startMs);
        let i = 0;
        for (const atMs of times.sort((a, b) => a - b)) {
          const version = shuffled[i++];
          if (version) other.merge(version, startMs + atMs);
          one.expire(startMs + atMs);
          other.expire(startMs + atMs);
        }
        const endMs = startMs + (times.at(-1) ?? 0);
        for (const version of shuffled.slice(i)) other.merge(version, endMs);
        one.expire(endMs);
        other.expire(endMs);
        assert.equal(stateOf(other), stateOf(one));
      },
    ),
    { numRuns: RUNS },
  );
});

Deno.test("[3.3d] SporeTable: nothing that was deleted comes back, however long a node was cut off", () => {
  const write = fc.record({
    afterMs: fc.integer({ min: 1, max: 4 * DAY }),
    author: fc.integer({ min: 0, max: 1 }),
    deletes: fc.boolean(),
    ttlMs: fc.constantFrom(HOUR, 2 * DAY, RECORD_LIFE_MS_MAX),
  });
  // Which node hears which write when; a delivery may be days late, doubled or missing.
  const delivery = fc.record({ node: fc.nat(2), write: fc.nat(7), delayMs: fc.nat(20 * DAY) });
  fc.assert(
    fc.property(
      fc.array(write, { minLength: 1, maxLength: 8 }),
      fc.array(delivery, { maxLength: 20 }),
      (writes, sent) => {
        const history: { readonly version: Version; readonly atMs: number }[] = [];
        let nowMs = T0, seq = 0;
        for (const one of writes) {
          nowMs += one.afterMs;
          seq = Math.max(seq + 1, nowMs);
          const value = one.deletes ? undefined : `${history.length}`;
          const ttlMs = one.deletes ? RECORD_LIFE_MS_MAX : one.ttlMs;
          history.push({ version: paper({ seq, author: one.author, value, ttlMs }), atMs: nowMs });
        }
        const events = sent.filter((one) => one.write < history.length)
          .map((one) => ({ ...one, atMs: history[one.write]!.atMs + one.delayMs }))
          .sort((a, b) => a.atMs - b.atMs);
        const nodes = [0, 1, 2].map(() => ({ table: new SporeTable(), deleted: 0 }));
        for (const { node, write, atMs } of events) {
          const { table } = nodes[node]!;
          const { version } = history[write]!;
          table.expire(atMs);
          table.merge(version, atMs);
          if (version.spore.record.value === undefined && version.spore.record.seq + RECORD_LIFE_MS_MAX > atMs) {
            nodes[node]!.deleted = Math.max(nodes[node]!.deleted, version.spore.record.seq);
          }
          for (const each of nodes) {
            each.table.expire(atMs);
            const entry = each.table.get("app/x");
            if (!entry || !isAlive(entry.winner, atMs)) continue;
            assert.ok(
              entry.winner.spore.record.seq > each.deleted,
              `${fromUtf8(entry.winner.spore.record.value!)} came back after ${each.deleted}`,
            );
          }
        }
      },
    ),
    { numRuns: 2 * RUNS },
  );
});

Deno.test("[3.4a] SporeTable: Primary before Seed before Latent, and back when a proof has run out", () => {
  const table = new SporeTable();
  const latent = paper({ seq: T0 + 3, value: "latent" });
  const seed = paper({ seq: T0 + 2, value: "seed", proof: { tier: "seed", index: 9, untilMs: T0 + 2 * DAY } });
  const primary = paper({
    seq: T0 + 1,
    value: "primary",
    proof: { tier: "primary", term: 1, index: 1, untilMs: T0 + DAY },
  });
  assert.equal(table.merge(latent, T0).reason, "new");
  assert.equal(table.merge(seed, T0).reason, "won");
  assert.equal(table.get("app/x")?.challenger, latent);
  assert.equal(table.merge(primary, T0).reason, "won");
  assert.equal(table.get("app/x")?.tier, "primary");
  assert.deepEqual(table.tiers, { latent: 0, seed: 0, primary: 1 });
  assert.deepEqual(table.expire(T0 + DAY), ["app/x"]);
  // The seed's proof was overtaken and is forgotten; the newest word is not.
  assert.equal(table.get("app/x")?.winner.spore, latent.spore);
  table.merge(seed, T0 + DAY);
  assert.equal(table.get("app/x")?.tier, "seed");
});

Deno.test("SporeTable: a word that was overtaken in the order of its own tier challenges nobody", () => {
  const table = new SporeTable();
  // Two members write at once; the Primary Spore takes the one with the lower number last.
  const first = paper({ author: 1, seq: T0 + 100, value: "a", proof: { tier: "primary", term: 1, index: 5 } });
  const second = paper({ author: 2, seq: T0 + 90, value: "b", proof: { tier: "primary", term: 1, index: 6 } });
  for (const order of [[first, second], [second, first]]) {
    table.clear();
    for (const one of order) table.merge(one, T0);
    assert.equal(table.get("app/x")?.winner, second);
    assert.equal(table.get("app/x")?.challenger, undefined);
  }
  // Who has not seen that it was committed doubts it.
  table.clear();
  table.merge({ spore: first.spore, proof: undefined }, T0);
  table.merge(second, T0);
  assert.equal(table.get("app/x")?.challenger?.spore, first.spore);
  assert.equal(table.merge(first, T0).reason, "renewed");
  assert.equal(table.get("app/x")?.challenger, undefined);
});

Deno.test("SporeTable: a proof is renewed in the place of the old one", () => {
  const table = new SporeTable();
  const proof = { tier: "primary", term: 1, index: 5 } as const;
  const old = paper({ seq: T0, value: "a", proof: { ...proof, untilMs: T0 + DAY } });
  const renewed = paper({ seq: T0, value: "a", proof: { ...proof, untilMs: T0 + 9 * DAY } });
  table.merge(old, T0);
  const before = table.digest.sum({ zone: 3, node: 0 });
  assert.equal(table.merge(renewed, T0).reason, "renewed");
  assert.notDeepEqual(table.digest.sum({ zone: 3, node: 0 }), before);
  assert.equal(table.merge(old, T0).reason, "lost");
  assert.equal(table.merge(renewed, T0).reason, "known");
  // What a Primary Spore holds stays beyond the life of the word.
  const longAfterMs = T0 + 8 * DAY;
  assert.ok(isAlive(table.get("app/x")!.winner, longAfterMs));
});

Deno.test("[3.4b] SporeTable: two words of one author under one number are reported, and all tables keep the same", () => {
  const [a, b] = [paper({ seq: T0, value: "a" }), paper({ seq: T0, value: "b" })];
  const [one, other] = [new SporeTable(), new SporeTable()];
  one.merge(a, T0);
  assert.equal(one.merge(b, T0).equivocation, a.spore);
  other.merge(b, T0);
  assert.equal(other.merge(a, T0).equivocation, b.spore);
  assert.equal(stateOf(one), stateOf(other));
  assert.equal(one.merge(a, T0).equivocation === undefined, one.get("app/x")!.winner === a);
});

Deno.test("SporeTable: of two proofs of one rank that of the newer epoch counts, though it ends earlier", () => {
  const rank = { tier: "primary", term: 1, index: 5 } as const;
  const old = paper({ seq: T0, value: "a", proof: { ...rank, epoch: 1, untilMs: T0 + 9 * DAY } });
  const young = paper({ seq: T0, value: "a", proof: { ...rank, epoch: 2, untilMs: T0 + 2 * DAY } });
  for (const order of [[old, young], [young, old]]) {
    const table = new SporeTable();
    for (const one of order) table.merge(one, T0);
    assert.equal(table.get("app/x")?.winner.proof?.epoch, 2);
  }
});

Deno.test("[3.5c] SporeTable: a word counts until its number is 14 days old, to the millisecond", () => {
  const table = new SporeTable();
  const one = paper({ seq: T0, value: "a", ttlMs: HOUR });
  const endMs = T0 + RECORD_LIFE_MS_MAX;
  assert.equal(table.merge(one, endMs).reason, "expired");
  table.merge(one, endMs - 1);
  table.expire(endMs - 1);
  assert.equal(table.size, 1);
  assert.equal(isAlive(one, T0 + HOUR - 1), true);
  assert.equal(isAlive(one, T0 + HOUR), false);
  assert.equal(table.nextExpiryMs, endMs);
  table.expire(endMs);
  assert.equal(table.size, 0);
});

Deno.test("SporeTable: the sum of its digest is that of the ids of all versions held", () => {
  fc.assert(
    fc.property(fc.array(anyVersion, { maxLength: 12 }), (all) => {
      const table = new SporeTable();
      for (const version of all) table.merge(version, T0);
      let sum = 0n;
      for (const key of table.keys("app/")) {
        for (const version of table.versions(key)) {
          const [high, low] = idOf(version);
          sum += (BigInt(high) << 32n) + BigInt(low);
        }
      }
      const bytes = table.digest.sum({ zone: 3, node: 0 });
      assert.equal(new DataView(bytes.buffer).getBigUint64(0), BigInt.asUintN(64, sum));
    }),
    { numRuns: RUNS },
  );
});

Deno.test("SporeTable: what was replaced gives its room back", () => {
  const table = new SporeTable();
  for (let i = 0; i < 20_000; i++) {
    table.merge(paper({ key: `app/k${i % 50}`, author: i % 50, seq: T0 + i, value: "x".repeat(100) }), T0);
  }
  assert.ok(table.heldBytes < 3 << 20, `${table.heldBytes} bytes for 50 records`);
});

Deno.test("SporeTable: review() takes out what does not stand any more", () => {
  const table = new SporeTable();
  const gone = paper({ key: "app/gone", author: 1, seq: T0, value: "a" });
  const kept = paper({ key: "app/kept", author: 2, seq: T0, value: "a" });
  const bared = paper({ key: "app/bared", author: 2, seq: T0, value: "a", proof: { tier: "seed", index: 1 } });
  for (const one of [gone, kept, bared]) table.merge(one, T0);
  const changed = table.review((one) => one.spore.author === gone.spore.author ? "not" : one.proof ? "bare" : "whole");
  assert.deepEqual(changed.sort(), ["app/bared", "app/gone"]);
  assert.deepEqual(table.list("").map((one) => [one.key, one.tier]), [["app/bared", "latent"], ["app/kept", "latent"]]);
  assert.deepEqual(table.tiers, { latent: 2, seed: 0, primary: 0 });
});

Deno.test("[3.5b] SporeTable: full, it refuses words without rank, and makes room for those that have one", () => {
  const table = new SporeTable({ keysMax: 4 });
  for (let i = 0; i < 4; i++) {
    const ttlMs = i === 2 ? HOUR : RECORD_LIFE_MS_MAX;
    assert.ok(table.merge(paper({ key: `app/k${i}`, author: i, seq: T0, value: "a", ttlMs }), T0).changed);
  }
  assert.equal(table.merge(paper({ key: "app/more", author: 9, seq: T0, value: "a" }), T0).reason, "full");
  const ranked = paper({ key: "app/ranked", seq: T0, value: "a", proof: { tier: "primary", term: 1, index: 1 } });
  assert.equal(table.merge(ranked, T0).reason, "new");
  // The one that would have ended first has given way.
  assert.deepEqual(table.keys("").sort(), ["app/k0", "app/k1", "app/k3", "app/ranked"]);
});

Deno.test("[3.5b] SporeTable: one author cannot take all the room, nor fill it by growing its records", () => {
  const table = new SporeTable({ bytesMax: 16_000 });
  const reasons: string[] = [];
  for (let i = 0; i < 12; i++) {
    reasons.push(table.merge(paper({ key: `app/k${i}`, author: 1, seq: T0, value: "a" }), T0).reason);
  }
  assert.ok(reasons.includes("full") && reasons[0] === "new", reasons.join(" "));
  assert.ok(table.bytes <= 4_000, `${table.bytes}`);
  assert.equal(table.merge(paper({ key: "app/other", author: 2, seq: T0, value: "a" }), T0).reason, "new");
  const grown = paper({ key: "app/k0", author: 1, seq: T0 + 1, value: "a".repeat(5_000) });
  assert.equal(table.merge(grown, T0).reason, "full");
});

Deno.test("[3.5b] SporeTable: full, the key that a proof arrives for does not give way to itself", () => {
  const words = Array.from(
    { length: 8 },
    (_, i) => ({ key: `app/k${i}`, author: i, seq: T0, value: "a", ttlMs: i === 3 ? HOUR : RECORD_LIFE_MS_MAX }),
  );
  const probe = new SporeTable();
  for (const one of words) probe.merge(paper(one), T0);
  const table = new SporeTable({ bytesMax: probe.bytes });
  for (const one of words) assert.equal(table.merge(paper(one), T0).reason, "new");
  // It would end first of all, and its proof is what there is no room for.
  const lifted = paper({ ...words[3]!, proof: { tier: "primary", term: 1, index: 1 } });
  assert.equal(table.merge(lifted, T0).reason, "renewed");
  assert.equal(table.get("app/k3")?.tier, "primary");
  assert.equal(table.size, 7);
  assert.ok(table.bytes <= probe.bytes);
  const others = new SporeTable();
  for (const key of table.keys("")) for (const one of table.versions(key)) others.merge(one, T0);
  assert.deepEqual([table.bytes, table.tiers], [others.bytes, others.tiers], "and nothing of it is counted twice");
});

Deno.test("[3.5b] SporeTable: a challenger takes room of its own, of its author's share too", () => {
  const table = new SporeTable({ bytesMax: 16_000 });
  const room = () => table.bytes;
  for (let i = 0; i < 18; i++) {
    const proof = { tier: "primary", term: 1, index: i + 1 } as const;
    assert.equal(table.merge(paper({ key: `app/k${i}`, author: i, seq: T0, value: "a", proof }), T0).reason, "new");
  }
  const before = room();
  const reasons = Array.from(
    { length: 18 },
    (_, i) => table.merge(paper({ key: `app/k${i}`, author: 60, seq: T0 + 1, value: "b" }), T0).reason,
  );
  assert.ok(reasons[0] === "challenges" && reasons.includes("full"), reasons.join(" "));
  assert.ok(room() <= 16_000 && room() - before <= 4_000, `${room()}`);
});

Deno.test("SporeTable: list() gives keys in order, page by page", () => {
  const table = new SporeTable();
  const keys = ["app/a", "app/a/b", "app/ab", "service/web/n1", "service/web/n2", "service/webb/n1", "net/a"];
  for (const key of keys) table.merge(paper({ key, seq: T0, value: "a" }), T0);
  const listed = (prefix: string) => table.list(prefix).map((one) => one.key);
  assert.deepEqual(listed(""), [...keys].sort());
  assert.deepEqual(listed("service/web/"), ["service/web/n1", "service/web/n2"]);
  assert.deepEqual(listed("service/web"), ["service/web/n1", "service/web/n2", "service/webb/n1"]);
  assert.deepEqual(listed("app/a"), ["app/a", "app/a/b", "app/ab"]);
  assert.deepEqual(listed("nothing"), []);
  assert.deepEqual(table.list("", { after: "app/ab", max: 2 }).map((one) => one.key), ["net/a", "service/web/n1"]);
});

Deno.test("SporeTable: what it gives back is what was merged, also after much has come and gone", () => {
  const table = new SporeTable();
  const versions = new Map<string, Version>();
  for (let round = 0; round < 40; round++) {
    for (let i = 0; i < 80; i++) {
      const value = "x".repeat((i * 37 + round * 11) % 600);
      const proof = (i + round) % 3 === 0 ? { tier: "primary", term: 1, index: round + 1 } as const : undefined;
      const one = paper({ key: `app/k${i}`, author: i % 8, seq: T0 + round, value, proof });
      table.merge(one, T0);
      const held = versions.get(`app/k${i}`);
      if (!held || compareVersions(one, held) > 0) versions.set(`app/k${i}`, one);
    }
  }
  // More than stays read, so that it comes from where it is kept.
  for (let i = 0; i < 1_100; i++) table.merge(paper({ key: `app/other${i}`, author: 9, seq: T0, value: "a" }), T0);
  assert.equal(table.list("app/other").length, 1_100);
  for (const [key, version] of versions) assert.deepEqual(table.get(key)?.winner, version, key);
});
