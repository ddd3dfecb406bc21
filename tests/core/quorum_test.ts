import assert from "node:assert/strict";
import { byzantineFaults, crashFaults, majority, superMajority } from "../../src/core/quorum.ts";

Deno.test("superMajority() and majority() are the smallest counts of their definition, n = 1 to 300", () => {
  for (let n = 1; n <= 300; n++) {
    const smallest = (fits: (k: number) => boolean) => Array.from({ length: n }, (_, i) => i + 1).find(fits);
    assert.equal(superMajority(n), smallest((k) => 3 * k > 2 * n), `n=${n}`);
    assert.equal(majority(n), smallest((k) => 2 * k > n), `n=${n}`);
    assert.ok(superMajority(n) <= n, "all together always suffice");
  }
});

Deno.test("byzantineFaults() and crashFaults() are the largest f with 3f+1 and 2f+1 at most n", () => {
  for (let n = 1; n <= 300; n++) {
    const f = byzantineFaults(n);
    assert.ok(3 * f + 1 <= n && 3 * (f + 1) + 1 > n, `n=${n}`);
    const c = crashFaults(n);
    assert.ok(2 * c + 1 <= n && 2 * (c + 1) + 1 > n, `n=${n}`);
  }
  assert.equal(byzantineFaults(0), 0);
  assert.equal(crashFaults(0), 0);
});

Deno.test("two super-majorities share an honest voter, two majorities share one (brute force, n = 1 to 7)", () => {
  for (let n = 1; n <= 7; n++) {
    const sets = (size: number) =>
      Array.from({ length: 1 << n }, (_, bits) => bits).filter((bits) => ones(bits) >= size);
    for (const a of sets(superMajority(n))) {
      for (const b of sets(superMajority(n))) {
        assert.ok(3 * ones(a & b) > n, `n=${n}`);
        assert.ok(ones(a & b) > byzantineFaults(n), `n=${n}: the shared ones are not all faulty`);
      }
    }
    for (const a of sets(majority(n))) for (const b of sets(majority(n))) assert.ok((a & b) !== 0, `n=${n}`);
    // Those who are left when f have failed still reach the quorum.
    assert.ok(n - byzantineFaults(n) >= superMajority(n));
    assert.ok(n - crashFaults(n) >= majority(n));
  }
});

function ones(bits: number): number {
  let count = 0;
  for (; bits > 0; bits &= bits - 1) count++;
  return count;
}
