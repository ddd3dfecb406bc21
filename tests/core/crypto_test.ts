import assert from "node:assert/strict";
import { hkdf } from "@noble/hashes/hkdf.js";
import { hmac } from "@noble/hashes/hmac.js";
import { sha256 as nobleSha256 } from "@noble/hashes/sha2.js";
import fc from "fast-check";
import { concatBytes, fromHex, toHex, utf8 } from "../../src/core/bytes.ts";
import {
  hashParts,
  hkdfSha256,
  hmacSha256,
  keyPairFromSeed,
  sha256,
  signBytes,
  verifySignature,
} from "../../src/core/crypto.ts";

const hex = (text: string) => fromHex(text.replace(/\s/g, ""))!;
const anyBytes = fc.uint8Array({ maxLength: 200 });

Deno.test("[10.5b] sha256(), hmacSha256(), hkdfSha256() agree with @noble/hashes", () => {
  fc.assert(fc.property(anyBytes, anyBytes, (a, b) => {
    assert.deepEqual(sha256(a, b), nobleSha256(concatBytes(a, b)));
    assert.deepEqual(hmacSha256(a, b), hmac(nobleSha256, a, b));
  }));
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 16, maxLength: 80 }), fc.string(), fc.integer({ min: 1, max: 300 }), (
      secret,
      info,
      length,
    ) => {
      assert.deepEqual(hkdfSha256(secret, info, length), hkdf(nobleSha256, secret, undefined, utf8(info), length));
    }),
  );
  assert.deepEqual(
    hkdfSha256(new Uint8Array(16), "x", 8160),
    hkdf(nobleSha256, new Uint8Array(16), undefined, utf8("x"), 8160),
  );
});

Deno.test("[10.5b] sha256() gives the examples of FIPS 180-4", () => {
  assert.equal(toHex(sha256()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  assert.equal(toHex(sha256(utf8("abc"))), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  assert.equal(
    toHex(sha256(utf8("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"))),
    "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
  );
});

Deno.test("[10.5b] hkdfSha256() gives test case 3 of RFC 5869 (empty salt and info)", () => {
  const okm = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8";
  assert.equal(toHex(hkdfSha256(new Uint8Array(22).fill(0x0b), "", 42)), okm);
});

Deno.test("[10.5b] hmacSha256() as HKDF uses it gives test cases 1 and 2 of RFC 5869 (with a salt)", () => {
  // Our function takes no salt; its two steps over hmacSha256() are checked against the cases that have one.
  const expand = (prk: Uint8Array, info: Uint8Array, length: number) => {
    let block: Uint8Array = new Uint8Array(0);
    let out: Uint8Array = new Uint8Array(0);
    for (let i = 1; out.length < length; i++) {
      block = hmacSha256(prk, block, info, Uint8Array.of(i));
      out = concatBytes(out, block);
    }
    return toHex(out.subarray(0, length));
  };
  const prk1 = hmacSha256(hex("000102030405060708090a0b0c"), new Uint8Array(22).fill(0x0b));
  assert.equal(toHex(prk1), "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5");
  assert.equal(
    expand(prk1, hex("f0f1f2f3f4f5f6f7f8f9"), 42),
    "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
  );
  const range = (from: number, count: number) => Uint8Array.from({ length: count }, (_, i) => from + i);
  const prk2 = hmacSha256(range(0x60, 80), range(0, 80));
  assert.equal(
    expand(prk2, range(0xb0, 80), 82),
    "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
  );
});

Deno.test("[10.5b] hmacSha256() gives the test cases of RFC 4231", () => {
  const cases: [Uint8Array, Uint8Array, string][] = [
    [
      new Uint8Array(20).fill(0x0b),
      utf8("Hi There"),
      "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
    ],
    [
      utf8("Jefe"),
      utf8("what do ya want for nothing?"),
      "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
    ],
    [
      new Uint8Array(20).fill(0xaa),
      new Uint8Array(50).fill(0xdd),
      "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
    ],
    [
      hex("0102030405060708090a0b0c0d0e0f10111213141516171819"),
      new Uint8Array(50).fill(0xcd),
      "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
    ],
    [
      new Uint8Array(131).fill(0xaa),
      utf8("Test Using Larger Than Block-Size Key - Hash Key First"),
      "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
    ],
    [
      new Uint8Array(131).fill(0xaa),
      utf8(
        "This is a test using a larger than block-size key and a larger than block-size data. The key needs to be hashed before being used by the HMAC algorithm.",
      ),
      "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
    ],
  ];
  for (const [key, data, expected] of cases) {
    assert.equal(toHex(hmacSha256(key, data)), expected);
    assert.equal(toHex(hmacSha256(key, data.subarray(0, 3), data.subarray(3))), expected, "parts are joined");
  }
});

/** RFC 8032, section 7.1: seed, public key, message, signature. */
const RFC8032: readonly (readonly [string, string, string, string])[] = [
  [
    "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
    "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
    "",
    "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
  ],
  [
    "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
    "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
    "72",
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
  ],
  [
    "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
    "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
    "af82",
    "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
  ],
  [
    "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
    "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
    "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
    "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
  ],
];

Deno.test("[10.5b] Ed25519 keys, signatures and verification give the vectors of RFC 8032, section 7.1", () => {
  for (const [seed, publicKey, message, signature] of RFC8032) {
    const pair = keyPairFromSeed(hex(seed));
    assert.equal(toHex(pair.publicKey), publicKey);
    assert.equal(toHex(signBytes(pair, hex(message))), signature);
    assert.ok(verifySignature(hex(publicKey), hex(message), hex(signature)));
  }
});

Deno.test("[10.5b] verifySignature() refuses each flipped bit of signature, key and message", () => {
  const [, publicKey, message, signature] = RFC8032[2]!;
  const inputs = { publicKey: hex(publicKey), message: hex(message), signature: hex(signature) };
  for (const part of ["publicKey", "message", "signature"] as const) {
    for (let bit = 0; bit < 8 * inputs[part].length; bit++) {
      const changed = inputs[part].slice();
      changed[bit >> 3]! ^= 1 << (bit & 7);
      const all = { ...inputs };
      all[part] = changed;
      assert.ok(!verifySignature(all.publicKey, all.message, all.signature), `${part}, bit ${bit}`);
    }
  }
});

Deno.test("[10.5b] verifySignature() refuses S + L, the second signature that fits the same equation", () => {
  const order = 2n ** 252n + 27742317777372353535851937790883648493n;
  for (const [, publicKey, message, signature] of RFC8032) {
    const bytes = hex(signature);
    let s = 0n;
    for (let i = 63; i >= 32; i--) s = s << 8n | BigInt(bytes[i]!);
    for (let k = 1n; s + k * order < 2n ** 256n; k += 5n) {
      let malleable = s + k * order;
      for (let i = 32; i < 64; i++, malleable >>= 8n) bytes[i] = Number(malleable & 255n);
      assert.ok(!verifySignature(hex(publicKey), hex(message), bytes), `S + ${k} L`);
    }
  }
});

Deno.test("[10.5b] verifySignature() refuses keys of small order in every spelling, whatever the message", () => {
  const y = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
  ];
  const identity = new Uint8Array(64);
  identity[0] = 1;
  for (const text of y) {
    for (const sign of [0, 0x80]) {
      const key = hex(text);
      key[31]! |= sign;
      // R = the identity, S = 0 fits one message in at most eight for such a key.
      for (let i = 0; i < 64; i++) assert.ok(!verifySignature(key, Uint8Array.of(i), identity), text);
    }
  }
});

Deno.test("[10.5b] verifySignature() refuses y >= p, the second spelling of a key, and never throws", () => {
  for (let low = 0xed; low <= 0xff; low++) {
    const key = new Uint8Array(32).fill(0xff);
    key[0] = low;
    key[31] = 0x7f;
    assert.ok(!verifySignature(key, utf8("m"), new Uint8Array(64)));
  }
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 40 }),
      anyBytes,
      fc.uint8Array({ maxLength: 70 }),
      (key, message, signature) => {
        assert.equal(verifySignature(key, message, signature), false);
      },
    ),
  );
  const [, publicKey, message, signature] = RFC8032[0]!;
  assert.ok(!verifySignature(hex(publicKey), hex(message), hex(signature + "00")));
  assert.ok(!verifySignature(hex(publicKey + "00"), hex(message), hex(signature)));
});

Deno.test("[10.5b] keyPairFromSeed() keeps its own copy: a caller that uses its buffer again gets another key", () => {
  const buffer = new Uint8Array(32).fill(1);
  const first = keyPairFromSeed(buffer);
  buffer.fill(2);
  const second = keyPairFromSeed(buffer);
  assert.notDeepEqual(second.publicKey, first.publicKey);
  assert.ok(verifySignature(first.publicKey, utf8("m"), signBytes(first, utf8("m"))));
  assert.ok(verifySignature(second.publicKey, utf8("m"), signBytes(second, utf8("m"))));
  assert.throws(() => keyPairFromSeed(new Uint8Array(31)), /31 bytes, wanted 32/);
});

Deno.test("verifySignature() stays right while its cache of keys turns over", () => {
  const pairs = Array.from({ length: 1_100 }, (_, i) => keyPairFromSeed(sha256(Uint8Array.of(i >> 8, i & 255))));
  const message = utf8("m");
  for (const pair of pairs.slice(0, 3)) assert.ok(verifySignature(pair.publicKey, message, signBytes(pair, message)));
  const foreign = signBytes(pairs[0]!, message);
  for (const pair of pairs.slice(1)) assert.ok(!verifySignature(pair.publicKey, message, foreign));
  assert.ok(verifySignature(pairs[0]!.publicKey, message, foreign));
});

Deno.test("[10.5b] hashParts() separates domains and parts: no two lists of parts give one hash", () => {
  const seen = new Map<string, string>();
  for (const domain of ["a", "ab"]) {
    for (const parts of [[], [""], ["", ""], ["ab"], ["a", "b"], ["", "ab"], ["ab", ""], ["b"], ["a", "", "b"]]) {
      const hash = toHex(hashParts(domain, ...parts.map(utf8)));
      assert.equal(seen.get(hash), undefined);
      seen.set(hash, JSON.stringify([domain, parts]));
    }
  }
  assert.deepEqual(hashParts("d", utf8("xy")), sha256(hex("0000000164000000027879")));
});
