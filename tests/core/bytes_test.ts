import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import fc from "fast-check";
import {
  compareBytes,
  concatBytes,
  equalBytes,
  fromBase58,
  fromBase64Url,
  fromHex,
  fromUtf8,
  rawOrBase64Url,
  toBase58,
  toBase64Url,
  toHex,
  utf8,
} from "../../src/core/bytes.ts";

const anyBytes = fc.uint8Array({ maxLength: 80 });

Deno.test("[10.1a] toHex(), toBase64Url() agree with Buffer and come back", () => {
  fc.assert(fc.property(anyBytes, (bytes) => {
    assert.equal(toHex(bytes), Buffer.from(bytes).toString("hex"));
    assert.equal(toBase64Url(bytes), Buffer.from(bytes).toString("base64url"));
    assert.deepEqual(fromHex(toHex(bytes)), bytes);
    assert.deepEqual(fromHex(toHex(bytes).toUpperCase()), bytes);
    assert.deepEqual(fromBase64Url(toBase64Url(bytes)), bytes);
  }));
});

Deno.test("[10.1a] toBase58() agrees with long division of one big integer and comes back", () => {
  fc.assert(fc.property(anyBytes, fc.nat(4), (tail, zeros) => {
    const bytes = concatBytes(new Uint8Array(zeros), tail);
    assert.equal(toBase58(bytes), slowBase58(bytes));
    const back = fromBase58(toBase58(bytes));
    assert.deepEqual(back, bytes);
  }));
});

Deno.test("toBase58() known answers (draft-msporny-base58)", () => {
  assert.equal(toBase58(utf8("Hello World!")), "2NEpo7TZRRrLZSi2U");
  assert.equal(
    toBase58(utf8("The quick brown fox jumps over the lazy dog.")),
    "USm3fpXnKG5EUBx2ndxBDMPVciP5hGey2Jh4NDv6gmeo1LkMeiKrLJUUBk6Z",
  );
  assert.equal(toBase58(fromHex("0000287fb4cd")!), "11233QC4");
  assert.equal(toBase58(new Uint8Array(0)), "");
  assert.equal(toBase58(new Uint8Array(3)), "111");
});

Deno.test("[10.1a] fromBase64Url() accepts one text per byte string: whatever it accepts, toBase64Url() spells the same", () => {
  const alphabet = "ABCXYZabcxyz0189-_";
  fc.assert(
    fc.property(fc.string({ unit: fc.constantFrom(...alphabet, "=", "+", "/", " ", "é", "\u{1f600}") }), (text) => {
      const bytes = fromBase64Url(text);
      if (bytes) assert.equal(toBase64Url(bytes), text);
    }),
  );
  for (const text of ["A", "AB", "AAB", "AA==", "A+==", "AA A", "AA\n", "AAAAA", "Zm9v YmFy"]) {
    assert.equal(fromBase64Url(text), undefined, JSON.stringify(text));
  }
});

Deno.test("[10.1a] rawOrBase64Url() reads both spellings, and whatever else comes is no crash", () => {
  fc.assert(fc.property(anyBytes, fc.stringMatching(/^[ \r\n\t]*$/), (tail, space) => {
    const bytes = concatBytes(Uint8Array.of(0xa2), tail);
    assert.equal(rawOrBase64Url(bytes, 0xa2), bytes);
    assert.deepEqual(rawOrBase64Url(utf8(space + toBase64Url(bytes) + space), 0xa2), bytes);
    // Another first byte is read as text, which nothing that starts with this one is.
    assert.equal(rawOrBase64Url(bytes, 0xa4), undefined);
    const read = rawOrBase64Url(tail, 0xa2);
    if (read && read !== tail) assert.equal(toBase64Url(read), fromUtf8(tail).trim());
  }));
});

Deno.test("[10.1a] fromBase58() and fromHex() refuse what is none", () => {
  for (const text of ["0", "O", "I", "l", " 2", "2 ", "2\n", "é", "\u{1f600}", "2".repeat(129)]) {
    assert.equal(fromBase58(text), undefined, JSON.stringify(text));
  }
  assert.ok(fromBase58("2".repeat(128)));
  for (const text of ["0", "0x00", "zz", "00 ", "００", "0\n", "-1", "+1"]) {
    assert.equal(fromHex(text), undefined, JSON.stringify(text));
  }
  fc.assert(fc.property(fc.string({ unit: fc.constantFrom(..."12zZyYaA0OIl") }), (text) => {
    const bytes = fromBase58(text);
    if (bytes) assert.equal(toBase58(bytes), text);
  }));
});

Deno.test("compareBytes() is the order of Buffer.compare, equalBytes() its zero", () => {
  const short = fc.uint8Array({ maxLength: 4, max: 3 });
  fc.assert(fc.property(short, short, (a, b) => {
    assert.equal(Math.sign(compareBytes(a, b)), Buffer.compare(a, b));
    assert.equal(equalBytes(a, b), Buffer.compare(a, b) === 0);
  }));
  assert.ok(!equalBytes(new Uint8Array(2), new Uint8Array(3)));
});

Deno.test("concatBytes() joins, and its result shares no memory with its parts", () => {
  fc.assert(fc.property(fc.array(anyBytes, { maxLength: 6 }), (parts) => {
    assert.deepEqual(concatBytes(...parts), new Uint8Array(Buffer.concat(parts)));
  }));
  const part = Uint8Array.of(1, 2);
  const joined = concatBytes(part);
  part[0] = 9;
  assert.deepEqual(joined, Uint8Array.of(1, 2));
});

Deno.test("fromUtf8() refuses what is not UTF-8", () => {
  for (const hex of ["80", "c0af", "eda080", "f8888080", "e282", "ff"]) {
    assert.throws(() => fromUtf8(fromHex(hex)!), TypeError, hex);
  }
  assert.equal(fromUtf8(utf8("Myzel – ✓ 𝄞")), "Myzel – ✓ 𝄞");
});

/** The definition, with one big integer. */
function slowBase58(bytes: Uint8Array): string {
  const alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
  let number = bytes.reduce((sum, byte) => sum * 256n + BigInt(byte), 0n);
  let out = "";
  for (; number > 0n; number /= 58n) out = alphabet[Number(number % 58n)]! + out;
  const zeros = bytes.findIndex((byte) => byte !== 0);
  return "1".repeat(zeros < 0 ? bytes.length : zeros) + out;
}
