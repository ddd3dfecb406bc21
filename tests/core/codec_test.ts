import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import process from "node:process";
import { decode as cborgDecode, encode as cborgEncode, rfc8949EncodeOptions } from "cborg";
import fc from "fast-check";
import { concatBytes, fromHex, toHex, utf8 } from "../../src/core/bytes.ts";
import {
  anything,
  array,
  bool,
  bytes,
  type CborValue,
  decodeAs,
  decodeCbor,
  dictionary,
  encodeCbor,
  oneOf,
  optional,
  record,
  text,
  uint,
  WireError,
} from "../../src/core/codec.ts";
import { LIMITS } from "../../src/core/limits.ts";

/** Any value that the codec carries, small. */
const anyValue: fc.Arbitrary<CborValue> = fc.letrec<{ value: CborValue }>((tie) => ({
  value: fc.oneof(
    { depthSize: "small", withCrossShrink: true },
    fc.maxSafeInteger(),
    fc.integer({ min: -300, max: 300 }),
    fc.bigInt({ min: -(2n ** 64n), max: 2n ** 64n - 1n }).filter((n) => !Number.isSafeInteger(Number(n))),
    fc.string({ unit: "binary" }).filter((one) => one.isWellFormed()),
    fc.boolean(),
    fc.constant(null),
    fc.uint8Array({ maxLength: 300 }),
    fc.array(tie("value"), { maxLength: 6 }),
    fc.dictionary(
      fc.oneof(fc.string({ maxLength: 40 }), fc.constantFrom("__proto__", "constructor", "toString", "10", "9")),
      tie("value"),
      { maxKeys: 6 },
    ) as fc.Arbitrary<CborValue>,
  ),
})).value;

Deno.test("[10.1a] encodeCbor() and decodeCbor(): every value comes back, and its bytes are cborg's", () => {
  fc.assert(
    fc.property(anyValue, (value) => {
      const encoded = encodeCbor(value);
      const decoded = decodeCbor(encoded);
      assert.deepEqual(encodeCbor(decoded), encoded);
      assert.deepEqual(encoded, new Uint8Array(cborgEncode(value, rfc8949EncodeOptions)));
      assert.deepEqual(plain(decoded), plain(value));
    }),
    { numRuns: 500 },
  );
});

Deno.test("encodeCbor() writes the examples of RFC 8949, appendix A, that it carries, and decodeCbor() reads them", () => {
  const examples: [CborValue, string][] = [
    [0, "00"],
    [1, "01"],
    [10, "0a"],
    [23, "17"],
    [24, "1818"],
    [25, "1819"],
    [100, "1864"],
    [1000, "1903e8"],
    [1000000, "1a000f4240"],
    [1000000000000, "1b000000e8d4a51000"],
    [18446744073709551615n, "1bffffffffffffffff"],
    [-18446744073709551616n, "3bffffffffffffffff"],
    [-1, "20"],
    [-10, "29"],
    [-100, "3863"],
    [-1000, "3903e7"],
    [false, "f4"],
    [true, "f5"],
    [null, "f6"],
    [new Uint8Array(0), "40"],
    [Uint8Array.of(1, 2, 3, 4), "4401020304"],
    ["", "60"],
    ["IETF", "6449455446"],
    ['"\\', "62225c"],
    ["\u00fc", "62c3bc"],
    ["\u6c34", "63e6b0b4"],
    ["\ud800\udd51", "64f0908591"],
    [[], "80"],
    [[1, [2, 3], [4, 5]], "8301820203820405"],
    [{}, "a0"],
    [{ a: 1, b: [2, 3] }, "a26161016162820203"],
    [["a", { b: "c" }], "826161a161626163"],
    // Edges of the safe integers: past them a big integer, never a rounded number.
    [Number.MAX_SAFE_INTEGER, "1b001fffffffffffff"],
    [9007199254740992n, "1b0020000000000000"],
    [Number.MIN_SAFE_INTEGER, "3b001ffffffffffffe"],
    [-9007199254740992n, "3b001fffffffffffff"],
    [0xffffffff, "1affffffff"],
    [0x100000000, "1b0000000100000000"],
    ["\ufeffmark", "67efbbbf6d61726b"],
  ];
  for (const [value, hex] of examples) {
    assert.equal(toHex(encodeCbor(value)), hex);
    assert.deepEqual(decodeCbor(fromHex(hex)!), value, hex);
  }
});

Deno.test("encodeCbor() sorts keys by their encoded bytes (RFC 8949, 4.2.1), leaves out undefined, spells one value one way", () => {
  assert.equal(
    toHex(encodeCbor({ aa: 1, b: 2, a: 3, "": 4, "10": 5, "9": 6 })),
    "a66004613906616103616202623130056261610" + "1",
  );
  assert.deepEqual(encodeCbor({ a: undefined, b: 1 }), encodeCbor({ b: 1 }));
  assert.deepEqual(encodeCbor(5n), encodeCbor(5));
  assert.deepEqual(encodeCbor(-0), encodeCbor(0));
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.nat(), { maxKeys: 10 }), fc.infiniteStream(fc.nat()), (map, order) => {
      const keys = Object.keys(map).sort((a, b) => a === b ? 0 : order.next().value! % 2 === 0 ? 1 : -1);
      const other = Object.fromEntries(keys.map((key) => [key, map[key]!]));
      assert.deepEqual(encodeCbor(other), encodeCbor(map));
    }),
  );
});

Deno.test("encodeCbor() refuses with a WireError what has no deterministic form", () => {
  const circular: { self?: unknown } = {};
  circular.self = circular;
  let deep: CborValue = 1;
  for (let i = 0; i <= LIMITS.cborDepthMax; i++) deep = [deep];
  const bad: unknown[] = [
    1.5,
    NaN,
    Infinity,
    2 ** 53,
    -(2 ** 53),
    2n ** 64n,
    -(2n ** 64n) - 1n,
    "\ud800",
    { "\udfff": 1 },
    undefined,
    [undefined],
    [1, [undefined]],
    () => 1,
    Symbol("s"),
    { f: () => 1 },
    circular,
    deep,
  ];
  for (const value of bad) {
    assert.throws(() => encodeCbor(value as CborValue), WireError, typeof value);
  }
});

Deno.test("[10.1a] decodeCbor() refuses everything that is not in deterministic form", () => {
  const bad: Record<string, string> = {
    "empty input": "",
    "0 in two bytes": "1800",
    "23 in two bytes": "1817",
    "255 in three bytes": "1900ff",
    "65535 in five bytes": "1a0000ffff",
    "2^32-1 in nine bytes": "1b00000000ffffffff",
    "-24 in two bytes": "3817",
    "text length in two bytes": "780161",
    "bytes length in three bytes": "59000161",
    "array length in two bytes": "980101",
    "map length in two bytes": "b801616101",
    "key length in two bytes": "a178016101",
    "indefinite array": "9f01ff",
    "indefinite map": "bf616101ff",
    "indefinite text": "7f6161ff",
    "indefinite bytes": "5f4161ff",
    "break alone": "ff",
    "reserved argument 28": "1c",
    "reserved argument 30 of a text": "7e",
    "tag 0": "c074323031332d30332d32315432303a30343a30305a",
    "tag 2 (bignum)": "c249010000000000000000",
    "self-described CBOR": "d9d9f700",
    "half float 1.0": "f93c00",
    "single float": "fa47c35000",
    "double float": "fb3ff199999999999a",
    "NaN": "f97e00",
    "undefined": "f7",
    "simple value 16": "f0",
    "simple value 255": "f8ff",
    "false in two bytes": "f814",
    "duplicate key": "a2616101616102",
    "duplicate key apart": "a3616101616202616103",
    "keys not sorted": "a2616201616101",
    "keys sorted as text, not by length": "a262616101616202",
    "integer key": "a10101",
    "bytes key": "a1416101",
    "trailing byte": "0000",
    "trailing break": "80ff",
    "overlong UTF-8": "62c0af",
    "surrogate in UTF-8": "63eda080",
    "cut UTF-8": "61c3",
    "UTF-8 past U+10FFFF": "64f4908080",
    "long bad UTF-8": "7819" + "61".repeat(24) + "ff",
    "bad UTF-8 in a key": "a161ff00",
    "array cut off": "8201",
    "map without its value": "a16161",
    "bytes cut off": "4301",
    "argument cut off": "1901",
  };
  for (const [what, hex] of Object.entries(bad)) {
    assert.throws(() => decodeCbor(fromHex(hex)!), WireError, what);
  }
});

Deno.test("decodeCbor() refuses nesting past LIMITS.cborDepthMax, however deep, and encodeCbor() agrees on the edge", () => {
  const nested = (depth: number, inner: string) => fromHex("81".repeat(depth) + inner)!;
  assert.doesNotThrow(() => decodeCbor(nested(LIMITS.cborDepthMax, "00")));
  assert.doesNotThrow(() => decodeCbor(nested(LIMITS.cborDepthMax, "80")));
  assert.throws(() => decodeCbor(nested(LIMITS.cborDepthMax + 1, "00")), WireError);
  assert.throws(() => decodeCbor(nested(LIMITS.cborDepthMax, "8100")), WireError);
  assert.throws(() => decodeCbor(fromHex("a16161".repeat(LIMITS.cborDepthMax + 1) + "00")!), WireError);
  assert.throws(() => decodeCbor(nested(500_000, "00")), WireError);
  let value: CborValue = 0;
  for (let i = 0; i < LIMITS.cborDepthMax; i++) value = i % 2 === 0 ? [value] : { a: value };
  assert.deepEqual(decodeCbor(encodeCbor(value)), value);
});

Deno.test("[10.1a] decodeCbor() believes no declared length and bounds the number of items", () => {
  // 2^53 bytes, 2^64-1 items, 2^32-1 pairs: refused at once instead of being allocated.
  for (
    const head of [
      "5b001fffffffffffff",
      "7affffffff",
      "9bffffffffffffffff",
      "9a7fffffff",
      "bb0000000100000000",
      "baffffffff",
    ]
  ) {
    assert.throws(() => decodeCbor(concatBytes(fromHex(head)!, new Uint8Array(64))), WireError, head);
  }
  const before = process.memoryUsage().rss;
  for (const fill of [0x80, 0xa0, 0x00]) {
    assert.throws(() => decodeCbor(arrayOf((1 << 20) - 5, fill)), /more than 131072 items/);
  }
  const grownMiB = (process.memoryUsage().rss - before) / 2 ** 20;
  assert.ok(grownMiB < 100, `three frames of empty items took ${grownMiB} MiB`);
  assert.equal((decodeCbor(arrayOf(LIMITS.cborItemsMax - 1, 0xa0)) as unknown[]).length, LIMITS.cborItemsMax - 1);
  assert.throws(() => decodeCbor(new Uint8Array(LIMITS.frameBytesMax + 1)), /at most 1048576/);
  assert.throws(() => decodeCbor(encodeCbor(new Uint8Array(10)), 10), /11 bytes, at most 10/);
});

Deno.test("encodeCbor() and decodeCbor() give out plain bytes in memory of their own", () => {
  const source = encodeCbor({ b: new Uint8Array(300), t: "x".repeat(5_000) });
  assert.equal(source.constructor, Uint8Array);
  assert.equal(source.buffer.byteLength, source.length);
  const buffer = Buffer.from(source);
  const { b } = decodeCbor(buffer) as { b: Uint8Array };
  assert.equal(b.constructor, Uint8Array);
  buffer.fill(255);
  assert.deepEqual(b, new Uint8Array(300), "a decoded value does not change with the buffer that it came in");
});

Deno.test("[10.1a] decodeCbor() fuzz: cut, flipped and random input gives a WireError or a value with these very bytes", () => {
  const check = (input: Uint8Array) => {
    let value: CborValue;
    try {
      value = decodeCbor(input);
    } catch (error) {
      assert.ok(error instanceof WireError, String(error));
      return false;
    }
    assert.deepEqual(encodeCbor(value), input);
    // cborg's lenient decoder reads the same value: we refuse more, never read otherwise.
    assert.deepEqual(plain(cborgDecode(input, { allowBigInt: true }) as CborValue), plain(value));
    return true;
  };
  fc.assert(
    fc.property(anyValue, fc.infiniteStream(fc.nat()), (value, random) => {
      const whole = encodeCbor(value);
      for (let i = 0; i < 20; i++) {
        const cut = random.next().value! % (whole.length + 1);
        assert.equal(check(whole.slice(0, cut)), cut === whole.length, "a part of a value is no value");
        const flipped = whole.slice();
        const bit = random.next().value! % (8 * whole.length);
        flipped[bit >> 3]! ^= 1 << (bit & 7);
        check(flipped);
        const changed = whole.slice();
        changed[random.next().value! % whole.length] = random.next().value! & 0xff;
        check(changed);
      }
    }),
    { numRuns: 200 },
  );
  fc.assert(fc.property(fc.uint8Array({ maxLength: 64 }), (input) => void check(input)), { numRuns: 3_000 });
  // All inputs of one and two bytes.
  for (let a = 0; a < 256; a++) {
    check(Uint8Array.of(a));
    for (let b = 0; b < 256; b++) check(Uint8Array.of(a, b));
  }
});

Deno.test("[10.1a] decodeCbor() with __proto__ and constructor as keys makes own entries and touches no prototype", () => {
  const hostile = encodeCbor(JSON.parse('{"__proto__":{"admin":true},"constructor":{"prototype":{"admin":true}}}'));
  const value = decodeCbor(hostile) as { admin?: boolean; [key: string]: unknown };
  assert.equal(value.admin, undefined);
  assert.equal(({} as { admin?: boolean }).admin, undefined);
  assert.equal(Object.getPrototypeOf(value), Object.prototype);
  assert.ok(Object.hasOwn(value, "__proto__"));
  assert.deepEqual(encodeCbor(value as CborValue), hostile);

  const shape = record({ admin: optional(bool), toString: optional(text(10)), constructor: optional(text(10)) });
  const read = decodeAs(encodeCbor({}), shape);
  assert.deepEqual({ ...read }, {}, "inherited properties are not fields");
  assert.throws(() => decodeAs(hostile, shape), /constructor/);

  const names = decodeAs(encodeCbor(JSON.parse('{"__proto__":1,"a":2}')), dictionary(uint(), 10));
  assert.deepEqual([...names], [["__proto__", 1], ["a", 2]]);
});

Deno.test("[10.1a] readers accept their range and refuse its neighbours, naming the path", () => {
  const ok = <T>(reader: (value: CborValue | undefined, path: string) => T, value: CborValue) => reader(value, "$");
  const refused = (reader: (value: CborValue | undefined, path: string) => unknown, ...values: unknown[]) => {
    for (const value of values) {
      assert.throws(
        () => reader(value as CborValue, "$.at"),
        (error) => error instanceof WireError && error.message.includes("$.at"),
      );
    }
  };
  assert.equal(ok(uint(5, 2), 5), 5);
  refused(uint(5, 2), 1, 6, "3", 3n, 2.5, NaN, null, undefined, [3], true);
  refused(uint(), -1, 2 ** 53, 2n ** 60n);
  assert.equal(ok(text(3, /^[a-c]*$/), "abc"), "abc");
  refused(text(3, /^[a-c]*$/), "abcd", "d", "ab\n", 1, null, undefined, Uint8Array.of(97));
  refused(text(9), "\u0000", "\u001b[2J", "\r", "\u007f", "\u009b2J", "\u202eabc", "\u2066");
  assert.equal(ok(text(9), "a\tb\nc"), "a\tb\nc");
  assert.deepEqual(ok(bytes({ length: 2 }), Uint8Array.of(1, 2)), Uint8Array.of(1, 2));
  refused(bytes({ length: 2 }), Uint8Array.of(1), Uint8Array.of(1, 2, 3), "ab", [1, 2], undefined);
  refused(bytes({ max: 2 }), Uint8Array.of(1, 2, 3), null);
  refused(bool, 0, 1, "true", null, undefined);
  assert.equal(ok(oneOf(["a", "b"]), "b"), "b");
  refused(oneOf(["a", "b"]), "c", ["a"], 0, undefined, "toString");
  assert.deepEqual(ok(array(uint(9), 2), [1, 2]), [1, 2]);
  refused(array(uint(9), 2), [1, 2, 3], { length: 1 }, "ab", undefined);
  assert.throws(() => array(uint(9), 2)([1, 10], "$.at"), /\$\.at\[1\]/);
  assert.equal(optional(bool)(undefined, "$"), undefined);
  assert.equal(optional(bool)(null, "$"), undefined);
  refused(optional(bool), 1);
  refused(anything, undefined);
  refused(record({}), null, [], "a", 1, Uint8Array.of(1), undefined);
  assert.deepEqual({ ...record({ a: uint() })({ a: 1, later: "x" }, "$") }, { a: 1 });
  assert.throws(() => record({ a: record({ b: uint() }) })({ a: {} }, "$"), /\$\.a\.b/);
  refused(dictionary(uint(), 1), { a: 1, b: 2 }, [], null);
  refused(dictionary(uint(), 1, 3), { abcd: 1 });
  assert.deepEqual([...dictionary(uint(), 5)({ b: 1, a: 2 }, "$").keys()], ["a", "b"]);
});

/** An array of `count` one-byte items. */
function arrayOf(count: number, item: number): Uint8Array {
  const out = new Uint8Array(count + 5).fill(item);
  out[0] = 0x9a;
  new DataView(out.buffer).setUint32(1, count);
  return out;
}

/** A form in which deepEqual sees no difference of prototype, -0, order of keys, or entries that are undefined. */
function plain(value: CborValue): unknown {
  if (typeof value === "number") return value + 0;
  if (value instanceof Uint8Array) return `h'${toHex(value)}'`;
  if (Array.isArray(value)) return value.map((one: CborValue) => plain(one));
  if (value !== null && typeof value === "object") {
    const entries = Object.entries(value).filter(([, one]) => one !== undefined);
    return new Map(
      entries.sort(([a], [b]) => a < b ? -1 : 1).map(([key, one]) => [toHex(utf8(key)), plain(one as CborValue)]),
    );
  }
  return value;
}
