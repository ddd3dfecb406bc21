import assert from "node:assert/strict";
import { readCounts, readSkips } from "../../tools/test.ts";

Deno.test("readCounts() reads deno test's closing line, colours and steps included", () => {
  const line = "\x1b[0m\x1b[32mok\x1b[0m | 61 passed (3 steps) | 0 failed | 2 ignored \x1b[0m(40ms)";
  assert.deepEqual(readCounts(`noise\n\n${line}\n`, true), { passed: 61, failed: 0, skipped: 2 });
});

Deno.test("readCounts() reads a failed run", () => {
  assert.deepEqual(readCounts("FAILED | 5 passed | 2 failed (1s)\n", false), { passed: 5, failed: 2, skipped: 0 });
});

Deno.test("readCounts() counts a run that failed without a failed test as one failure", () => {
  assert.deepEqual(readCounts("error: Module not found\n", false), { passed: 0, failed: 1, skipped: 0 });
  assert.deepEqual(readCounts("ok | 5 passed | 0 failed (1s)\n", false), { passed: 5, failed: 1, skipped: 0 });
});

Deno.test("readCounts() takes the last closing line, not one that a test printed before it", () => {
  const output = "ok | 900 passed | 0 failed (1s)\nFAILED | 1 passed | 1 failed (1s)\n";
  assert.deepEqual(readCounts(output, false), { passed: 1, failed: 1, skipped: 0 });
});

Deno.test("readSkips() names what was left out, of parallel runs and steps as well", () => {
  const output =
    "./tests/a_test.ts => one ... ok (1ms)\n./tests/a_test.ts => two: needs root ... \x1b[33mignored\x1b[0m (0ms)\n" +
    "three ... ignored (0ms)\n  a step ... ignored (0ms)\nwhat was ignored can be said ... ok (1ms)\n";
  assert.deepEqual(readSkips(output), ["./tests/a_test.ts => two: needs root", "three", "a step"]);
});
