import assert from "node:assert/strict";
import fc from "fast-check";
import { isLinearizable, isLinearizableByTrying, type Operation } from "./zones.ts";

/** Histories of up to seven operations: places in time are a shuffle, some never return. */
const histories = fc.array(
  fc.record({ write: fc.boolean(), read: fc.nat(7), lost: fc.nat(4), from: fc.nat(1_000), to: fc.nat(1_000) }),
  { maxLength: 7 },
).map((drawn): Operation[] => {
  const points = drawn.flatMap(({ from, to }, i) => [[Math.min(from, to), i, 0], [Math.max(from, to), i, 1]] as const)
    .sort((a, b) => a[0] - b[0] || a[2] - b[2] || a[1] - b[1]);
  const place = (i: number, end: number) => 1 + points.findIndex((one) => one[1] === i && one[2] === end);
  const writes = drawn.flatMap(({ write }, i) => write ? [`v${i}`] : []);
  return drawn.map(({ write, read, lost }, i) => ({
    kind: write ? "write" : "read",
    value: write ? `v${i}` : [undefined, ...writes][read % (writes.length + 1)],
    calledAt: place(i, 0),
    returnedAt: lost === 0 ? Infinity : place(i, 1),
  }));
});

Deno.test("[10.1b] isLinearizable() agrees with trying all orders", () => {
  let yes = 0, no = 0;
  fc.assert(
    fc.property(histories, (history) => {
      const expected = isLinearizableByTrying(history);
      if (expected) yes++;
      else no++;
      assert.equal(isLinearizable(history), expected);
    }),
    { numRuns: 3_000, seed: 1 },
  );
  assert.ok(yes > 300 && no > 300, `both answers came: ${yes} ${no}`);
});

Deno.test("isLinearizable() refuses a stale read", () => {
  const history: Operation[] = [
    { kind: "write", value: "a", calledAt: 1, returnedAt: 2 },
    { kind: "write", value: "b", calledAt: 3, returnedAt: 4 },
    { kind: "read", value: "a", calledAt: 5, returnedAt: 6 },
  ];
  assert.equal(isLinearizable(history), false);
  assert.equal(isLinearizable(history.toSpliced(1, 1, { ...history[1]!, returnedAt: Infinity })), true);
});
