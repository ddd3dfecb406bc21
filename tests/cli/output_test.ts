import assert from "node:assert/strict";
import fc from "fast-check";
import { byteSize, duration, instant, parseDuration, safe, table, widthOf } from "../../src/cli/output.ts";

Deno.test("parseDuration() reads what it documents and nothing else", () => {
  const good: readonly (readonly [string, number])[] = [
    ["500ms", 500],
    ["90s", 90_000],
    ["15m", 900_000],
    ["24h", 86_400_000],
    ["7d", 604_800_000],
    ["2w", 1_209_600_000],
    ["1h30m", 5_400_000],
    [" 1M ", 60_000],
  ];
  for (const [text, ms] of good) assert.equal(parseDuration(text), ms, text);
  for (const text of ["", "5", "s", "-5s", "1.5h", "5 minutes", "1h-5m", "1e3s", "9".repeat(40) + "s", "５s"]) {
    assert.equal(parseDuration(text), undefined, text);
  }
});

Deno.test("duration() shows two units at most, and a duration it shows is not longer than the true one", () => {
  assert.equal(duration(0), "0s");
  assert.equal(duration(999), "0s");
  assert.equal(duration(61_000), "1m 1s");
  assert.equal(duration(3_600_000), "1h");
  assert.equal(duration(86_400_000 * 3 + 3_600_000 * 4 + 59_000), "3d 4h");
  fc.assert(fc.property(fc.integer({ min: 0, max: 1e12 }), (ms) => {
    const shown = parseDuration(duration(ms).replace(" ", ""));
    assert.ok(shown !== undefined && shown <= ms);
  }));
});

Deno.test("byteSize() and instant() show odd numbers without failing", () => {
  assert.equal(byteSize(0), "0 B");
  assert.equal(byteSize(1536), "1.5 KiB");
  assert.equal(byteSize(16 * 2 ** 30), "16.0 GiB");
  assert.equal(instant(Date.UTC(2026, 10, 23, 4, 30)), "2026-11-23T04:30:00Z");
  for (const odd of [NaN, Infinity, -1, 0, 1e300]) assert.equal(instant(odd), "-");
});

Deno.test("table() aligns columns, numbers to the right, wide characters counted as two", () => {
  assert.deepEqual(table(["NAME", ">N", "LAST"], [["a", "1", "x"], ["日本", "100", "y"]]), [
    "NAME    N  LAST",
    "a       1  x",
    "日本  100  y",
  ]);
});

Deno.test("table() fits every line into the width it is given, whatever is in it", () => {
  const cell = fc.oneof(fc.string({ unit: "grapheme", maxLength: 40 }), fc.constant("日本語".repeat(5)));
  fc.assert(
    fc.property(
      fc.array(fc.array(cell, { maxLength: 4 }), { maxLength: 8 }),
      fc.integer({ min: 5, max: 80 }),
      (rows, width) => {
        const style = (_: string, text: string) => `\u001b[31m${text}\u001b[0m`;
        const lines = table(["A", ">B", "C", "D"], rows.map((row) => row.map((text) => ["red", text] as const)), {
          width,
          style,
        });
        assert.equal(lines.length, rows.length + 1);
        for (const line of lines) assert.ok(widthOf(line) <= width, JSON.stringify(line));
      },
    ),
  );
});

Deno.test("safe() and table() let nothing through that steers a terminal", () => {
  const hostile = "a\u001b[2Jb\u009b31mc\r\u0007d\u007f";
  // deno-lint-ignore no-control-regex -- these are what must not be there
  const control = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/;
  assert.doesNotMatch(safe(hostile), control);
  fc.assert(fc.property(fc.string({ unit: "binary" }), (text) => {
    assert.doesNotMatch(safe(text).replaceAll("\t", ""), control);
    assert.doesNotMatch(table(["X"], [[text], [hostile]]).join("\n"), control);
  }));
});
