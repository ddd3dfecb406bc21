import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import fc from "fast-check";
import { concatBytes } from "../../src/core/bytes.ts";
import { encodeCbor, WireError } from "../../src/core/codec.ts";
import {
  decodeFrame,
  encodeFrame,
  type Frame,
  FRAME_CONTENT_BYTES_MAX,
  FrameReader,
  METHOD_CHARS_MAX,
} from "../../src/core/frame.ts";
import { LIMITS } from "../../src/core/limits.ts";

const method = fc.stringMatching(/^[a-z][a-z0-9._-]{0,30}$/);
const body = fc.uint8Array({ maxLength: 700 });
const frame: fc.Arbitrary<Frame> = fc.oneof(
  fc.record({
    type: fc.constant("request" as const),
    method,
    timeoutMs: fc.integer({ min: 1, max: LIMITS.callTimeoutMsMax }),
    body,
  }),
  fc.record({ type: fc.constant("message" as const), body }),
  fc.constant({ type: "end" as const }),
  fc.record({
    type: fc.constant("error" as const),
    code: fc.stringMatching(/^[a-z][a-z0-9-]{0,20}$/),
    text: fc.string({ maxLength: 50, unit: "grapheme-ascii" }),
  }),
);

/** Reads all frames of bytes that arrive in pieces of the given sizes. */
function readAll(bytes: Uint8Array, sizes: readonly number[]): Frame[] {
  const reader = new FrameReader();
  const out: Frame[] = [];
  let at = 0;
  for (let i = 0; at < bytes.length; i++) {
    const size = sizes[i % sizes.length]!;
    reader.push(bytes.subarray(at, at + size));
    at += size;
    for (let next = reader.next(); next; next = reader.next()) out.push(next);
  }
  strictEqual(reader.bufferedBytes, 0);
  return out;
}

function normal(frame: Frame): unknown {
  return JSON.parse(JSON.stringify(frame, (_, value) => value instanceof Uint8Array ? [...value] : value));
}

Deno.test("[1.4a] FrameReader gives back any frames, however the stream is cut", () => {
  fc.assert(fc.property(
    fc.array(frame, { maxLength: 6 }),
    fc.array(fc.integer({ min: 1, max: 300 }), { minLength: 1, maxLength: 5 }),
    (frames, sizes) => {
      const read = readAll(concatBytes(...frames.map(encodeFrame)), sizes);
      deepStrictEqual(read.map(normal), frames.map(normal));
    },
  ));
});

Deno.test("encodeFrame() writes messages as the general encoder would", () => {
  for (const length of [0, 1, 23, 24, 255, 256, 65_535, 65_536, LIMITS.frameBytesMax]) {
    const body = new Uint8Array(length).fill(7);
    const bytes = encodeFrame({ type: "message", body });
    const content = encodeCbor({ d: body });
    deepStrictEqual(bytes.subarray(bytes.length - content.length), content);
    const [read] = readAll(bytes, [1 << 20]);
    ok(read?.type === "message" && read.body.length === length);
  }
});

Deno.test("decodeFrame() throws a WireError on anything else, and nothing else", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 80 }), (bytes) => {
      try {
        decodeFrame(bytes);
      } catch (error) {
        ok(error instanceof WireError, `${error}`);
      }
    }),
    { numRuns: 2_000 },
  );
});

Deno.test("FrameReader throws a WireError on flipped and cut frames, or reads a frame, and nothing else", () => {
  fc.assert(
    fc.property(frame, fc.nat(), fc.integer({ min: 1, max: 255 }), fc.nat(), (one, place, bits, cut) => {
      const bytes = encodeFrame(one);
      const at = place % bytes.length;
      bytes[at] = bytes[at]! ^ bits;
      const reader = new FrameReader();
      reader.push(bytes.subarray(0, 1 + cut % bytes.length));
      try {
        reader.next();
      } catch (error) {
        ok(error instanceof WireError, `${error}`);
      }
    }),
    { numRuns: 2_000 },
  );
});

Deno.test("FrameReader refuses lengths before it waits for what they promise", () => {
  const refused = [
    [0x00], // nothing
    [0x80, 0x00], // zero in two bytes
    [0x81, 0x00], // one in two bytes
    [0xff, 0xff, 0xff, 0x7f], // 256 MiB
    [0xff, 0xff, 0xff, 0xff], // never ends
  ];
  for (const bytes of refused) {
    const reader = new FrameReader();
    reader.push(Uint8Array.from(bytes));
    throws(() => reader.next(), WireError);
  }
  const reader = new FrameReader();
  reader.push(Uint8Array.of(0x80));
  strictEqual(reader.next(), undefined);
});

Deno.test("decodeFrame() refuses values out of range", () => {
  const request = { v: 1, m: "a", t: 1, b: new Uint8Array(0) };
  decodeFrame(encodeCbor(request));
  for (
    const bad of [
      { ...request, v: 2 },
      { ...request, m: "" },
      { ...request, m: "a b" },
      { ...request, m: "a".repeat(METHOD_CHARS_MAX + 1) },
      { ...request, t: 0 },
      { ...request, t: LIMITS.callTimeoutMsMax + 1 },
      { ...request, b: "text" },
      { z: false },
      { c: "Bad Code", x: "" },
      { c: "ok", x: "x".repeat(2_000) },
      { d: "text" },
      {},
      [],
      1,
    ]
  ) throws(() => decodeFrame(encodeCbor(bad)), WireError, JSON.stringify(bad));
  throws(() => decodeFrame(new Uint8Array(FRAME_CONTENT_BYTES_MAX + 1)), WireError);
  // A longer form of a length that a shorter one holds.
  throws(() => decodeFrame(Uint8Array.from([0xa1, 0x61, 0x64, 0x58, 1, 0])), WireError);
});

Deno.test("encodeFrame() refuses what the other end would refuse, and cuts error texts", () => {
  throws(() => encodeFrame({ type: "message", body: new Uint8Array(LIMITS.frameBytesMax + 1) }), WireError);
  throws(() => encodeFrame({ type: "error", code: "Nope!", text: "" }), WireError);
  throws(() => encodeFrame({ type: "request", method: "", timeoutMs: 1, body: new Uint8Array(0) }), WireError);
  throws(() => encodeFrame({ type: "request", method: "a", timeoutMs: 1.5, body: new Uint8Array(0) }), WireError);
  const [read] = readAll(encodeFrame({ type: "error", code: "x", text: "a\nb".repeat(1_000) }), [100]);
  ok(read?.type === "error" && read.text.length === 1_024 && !read.text.includes("\n"));
});
