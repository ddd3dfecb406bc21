import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import { pureJsCrypto } from "@chainsafe/libp2p-noise";
import { noiseCrypto, probeCipher } from "../../src/edge/p2p/noise_crypto.ts";
import { pattern } from "../compliance/network.ts";

const KEY = new Uint8Array(32).fill(1);
const NONCE = new Uint8Array(12).fill(2);

Deno.test("noiseCrypto(): the one for whole messages agrees with the portable code", () => {
  const whole = noiseCrypto("whole-only")!;
  const bytes = (value: { subarray(): Uint8Array }) => new Uint8Array(value.subarray());
  for (const size of [0, 1, 16, 63, 64, 1_199, 65_519]) {
    for (const ad of [new Uint8Array(0), new Uint8Array(32).fill(9)]) {
      const message = pattern(size);
      const sealed = bytes(whole.chaCha20Poly1305Encrypt(message, NONCE, ad, KEY));
      deepStrictEqual(sealed, bytes(pureJsCrypto.chaCha20Poly1305Encrypt(message, NONCE, ad, KEY)));
      deepStrictEqual(bytes(whole.chaCha20Poly1305Decrypt(sealed, NONCE, ad, KEY)), message);
      sealed[sealed.length - 1]! ^= 1;
      throws(() => whole.chaCha20Poly1305Decrypt(sealed, NONCE, ad, KEY));
    }
  }
  const [a, b] = [whole.generateX25519KeyPair(), pureJsCrypto.generateX25519KeyPair()];
  const shared = whole.generateX25519SharedKey(a.privateKey, b.publicKey);
  strictEqual(shared.length, 32);
  deepStrictEqual(shared, new Uint8Array(pureJsCrypto.generateX25519SharedKey(b.privateKey, a.publicKey)));
  deepStrictEqual(whole.hashSHA256(KEY), new Uint8Array(pureJsCrypto.hashSHA256(KEY)));
});

Deno.test("noiseCrypto(): Noise decides itself where the runtime is sound, and gets portable code where it has no cipher", () => {
  ok(["good", "whole-only", "none"].includes(probeCipher()));
  strictEqual(noiseCrypto("good"), undefined);
  strictEqual(noiseCrypto("none"), pureJsCrypto);
});
