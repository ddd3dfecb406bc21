import assert from "node:assert/strict";
import fc from "fast-check";
import {
  AUTHORITY,
  type Candidate,
  CandidateSet,
  type CandidateSource,
  NEVER_MS,
  SOURCES,
  type Verification,
} from "../../src/bootstrap/candidates.ts";
import { keyPairFromSeed } from "../../src/core/crypto.ts";
import { nodeIdOf } from "../../src/core/ids.ts";
import { LIMITS } from "../../src/core/limits.ts";
import { seededRng } from "../../src/core/rng.ts";

const NODE = nodeIdOf(keyPairFromSeed(new Uint8Array(32).fill(1)).publicKey);
const OTHER = nodeIdOf(keyPairFromSeed(new Uint8Array(32).fill(2)).publicKey);

function candidate(n: number, source: CandidateSource, change: Partial<Candidate> = {}): Candidate {
  return {
    address: `/ip4/10.${n >> 16 & 255}.${n >> 8 & 255}.${n & 255}/tcp/4871`,
    source,
    authority: AUTHORITY[source],
    seenMs: 1_000,
    expiresMs: NEVER_MS,
    verification: "unverified",
    ...change,
  };
}

Deno.test("[1.1e] ranked(): sources take turns, better verification first", () => {
  const set = new CandidateSet();
  for (let i = 0; i < 3; i++) set.add(candidate(i, "mdns"));
  set.add(candidate(10, "dns"));
  set.add(candidate(11, "multicast", { verification: "signed" }));
  set.add(candidate(12, "multicast", { verification: "authenticated" }));
  set.add(candidate(13, "cache", { verification: "verified" }));
  const order = set.ranked(2_000, seededRng(1)).map((one) => `${one.sources[0]} ${one.verification}`);
  assert.deepEqual(order, [
    "cache verified",
    "multicast signed",
    "dns unverified",
    "mdns unverified",
    "multicast authenticated",
    "mdns unverified",
    "mdns unverified",
  ]);
});

Deno.test("ranked(): address families take turns within a source and a verification", () => {
  const set = new CandidateSet();
  for (let i = 0; i < 3; i++) {
    set.add(candidate(i, "config"));
    set.add(candidate(i, "config", { address: `/ip6/fd00::${i + 1}/tcp/4871` }));
  }
  const families = set.ranked(0, seededRng(3)).map((one) => one.address.slice(1, 4));
  assert.deepEqual(families.slice(1).every((family, i) => family !== families[i]), true, families.join());
});

Deno.test("the same address from several sources is one candidate with all of them", () => {
  const set = new CandidateSet();
  const address = `/ip4/10.0.0.1/udp/4871/quic-v1/p2p/${NODE}`;
  assert.equal(set.add(candidate(0, "mdns", { address, verification: "authenticated", detail: "eth0" })), "added");
  assert.equal(set.add(candidate(0, "multicast", { address, verification: "signed", detail: "beacon" })), "merged");
  assert.equal(set.add(candidate(0, "config", { address, seenMs: 500 })), "merged");
  assert.equal(set.size, 1);
  const [one] = set.describe(1_500);
  assert.deepEqual(one, {
    address,
    nodeId: NODE,
    sources: ["multicast", "mdns", "config"],
    verification: "signed",
    authority: AUTHORITY.config,
    failures: 0,
    ageMs: 500,
    expiresMs: NEVER_MS,
    retryMs: 0,
    details: ["beacon", "eth0"],
  });
});

Deno.test("a stranger who claims an address for another node does not displace the true claim", () => {
  const set = new CandidateSet();
  set.add(candidate(0, "mdns", { address: `/ip4/10.0.0.1/tcp/1/p2p/${NODE}` }));
  set.add(candidate(0, "mdns", { address: `/ip4/10.0.0.1/tcp/1/p2p/${OTHER}` }));
  assert.deepEqual(set.ranked(0, seededRng(1)).map((one) => one.nodeId).sort(), [NODE, OTHER].sort());
});

Deno.test("a stranger's word neither lowers nor prolongs what was checked", () => {
  const set = new CandidateSet();
  set.add(candidate(1, "mdns", { verification: "authenticated", expiresMs: 5_000 }));
  set.add(candidate(1, "mdns", { verification: "unverified", seenMs: 2_000, expiresMs: 9_000 }));
  assert.equal(set.describe(0)[0]!.verification, "authenticated");
  assert.equal(set.describe(0)[0]!.expiresMs, 5_000);
});

Deno.test("[1.1e] a failed address waits ever longer, with jitter, and is never lost", () => {
  const set = new CandidateSet();
  const { address } = candidate(1, "invite");
  set.add(candidate(1, "invite"));
  const rng = seededRng(7);
  let nowMs = 1_000;
  let longest = 0;
  for (let i = 0; i < 200; i++) {
    assert.equal(set.ranked(nowMs, rng).length, 1, `try ${i}`);
    set.noteFailure(address, "unreachable", nowMs, rng);
    assert.equal(set.ranked(nowMs, rng).length, 0);
    const nextMs = set.nextRetryMs(nowMs)!;
    assert.ok(nextMs > nowMs && nextMs - nowMs <= 60_001, `${nextMs - nowMs}`);
    longest = Math.max(longest, nextMs - nowMs);
    nowMs = nextMs;
  }
  assert.ok(longest > 30_000, "the ceiling grows");
  const [view] = set.describe(nowMs);
  assert.equal(view!.failures, 200);
  assert.equal(view!.lastFailure, "unreachable");
  set.noteSuccess(address, nowMs);
  assert.equal(set.describe(nowMs)[0]!.failures, 0);
  assert.equal(set.describe(nowMs)[0]!.lastSuccessMs, nowMs);
});

Deno.test("a fresh signed sign of life shortens the wait, an unsigned one does not", () => {
  const rng = seededRng(2);
  for (const [verification, retried] of [["signed", true], ["unverified", false]] as const) {
    const set = new CandidateSet();
    const one = candidate(1, "multicast", { verification });
    set.add(one);
    for (let i = 0; i < 40; i++) set.noteFailure(one.address, "timeout", 1_000, rng);
    let waitMs = set.nextRetryMs(1_000)! - 1_000;
    // Full jitter may come out short; what matters is a long wait.
    while (waitMs < 10_000) {
      set.noteFailure(one.address, "timeout", 1_000, rng);
      waitMs = set.nextRetryMs(1_000)! - 1_000;
    }
    set.add({ ...one, seenMs: 2_000 });
    assert.equal(set.ranked(3_000, rng).length, retried ? 1 : 0);
  }
});

Deno.test("expire() drops a source's word when its time is over, and the address with the last one", () => {
  const set = new CandidateSet();
  set.add(candidate(1, "mdns", { expiresMs: 2_000 }));
  set.add(candidate(1, "config"));
  set.add(candidate(2, "mdns", { expiresMs: 2_000 }));
  assert.equal(set.ranked(2_000, seededRng(1)).length, 1, "expired ones are not dialed");
  assert.equal(set.expire(1_999), 0);
  assert.equal(set.expire(2_000), 1);
  assert.deepEqual(set.describe(2_000).map((one) => one.sources), [["config"]]);
  set.removeSource("config");
  assert.equal(set.size, 0);
});

Deno.test("a flood from one source takes its own share only, and the oldest goes first", () => {
  const set = new CandidateSet();
  set.add(candidate(1, "invite"));
  set.add(candidate(2, "multicast", { verification: "signed" }));
  for (let i = 0; i < 1_000; i++) set.add(candidate(100 + i, "mdns", { seenMs: i }));
  assert.equal(set.size, LIMITS.candidatesPerSourceMax + 2);
  const first = set.ranked(2_000, seededRng(1)).slice(0, 3).map((one) => one.sources[0]);
  assert.ok(first.includes("invite") && first.includes("multicast"), first.join());
  const oldest = set.describe(2_000).filter((one) => one.sources[0] === "mdns").every((one) =>
    one.ageMs <= 2_000 - 936
  );
  assert.ok(oldest, "the newest 64 are kept");
});

Deno.test("authenticated candidates of a source are not pushed out by a stranger's flood", () => {
  const set = new CandidateSet();
  for (let i = 0; i < LIMITS.candidatesPerSourceMax; i++) {
    set.add(candidate(i, "mdns", { verification: "authenticated", seenMs: 0 }));
  }
  assert.equal(set.add(candidate(5_000, "mdns", { seenMs: 9_999 })), "full");
  assert.ok(set.describe(0).every((one) => one.verification === "authenticated"));
});

Deno.test("property: bounds hold, what is ranked is known and due, and the order is the seed's alone", () => {
  const verifications: readonly Verification[] = ["unverified", "authenticated", "signed", "verified"];
  const step = fc.record({
    n: fc.nat(400),
    source: fc.constantFrom(...SOURCES),
    verification: fc.constantFrom(...verifications),
    seenMs: fc.nat(10_000),
    lifeMs: fc.nat(10_000),
    fail: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 600, size: "max" }), fc.nat(20_000), (steps, nowMs) => {
      const set = new CandidateSet();
      const rng = seededRng(5);
      for (const one of steps) {
        const made = candidate(one.n, one.source, { ...one, expiresMs: one.seenMs + one.lifeMs });
        set.add(made);
        if (one.fail) set.noteFailure(made.address, "x", one.seenMs, rng);
        assert.ok(set.size <= LIMITS.candidatesMax);
      }
      const views = new Map(set.describe(nowMs).map((one) => [one.address, one]));
      for (const source of SOURCES) {
        const held = [...views.values()].filter((one) => one.sources.includes(source)).length;
        assert.ok(held <= LIMITS.candidatesPerSourceMax, `${source} has ${held}`);
      }
      const ranked = set.ranked(nowMs, seededRng(9));
      assert.equal(new Set(ranked.map((one) => one.address)).size, ranked.length, "each once");
      for (const one of ranked) {
        const view = views.get(one.address)!;
        assert.ok(view.retryMs <= nowMs && view.expiresMs > nowMs);
      }
      assert.deepEqual(set.ranked(nowMs, seededRng(9)), ranked);
      const due = [...views.values()].filter((one) => one.retryMs <= nowMs && one.expiresMs > nowMs);
      assert.equal(ranked.length, due.length, "none is forgotten");
    }),
    { numRuns: 40 },
  );
});
