/** The ciphers under Noise, for whatever this runtime can do right. @module */

import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  getCiphers,
} from "node:crypto";
import { Buffer } from "node:buffer";
import { type ICryptoInterface, pureJsCrypto } from "@chainsafe/libp2p-noise";
import { concatBytes, equalBytes } from "../../core/bytes.ts";

const CIPHER = "chacha20-poly1305";
const TAG_BYTES = 16;
const X25519_SPKI = Uint8Array.from([0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x6e, 3, 0x21, 0]);
const X25519_PKCS8 = Uint8Array.from([0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x6e, 4, 0x22, 4, 0x20]);

/** What this runtime's ChaCha20-Poly1305 is worth. */
export type CipherQuality = "good" | "whole-only" | "none";

/**
 * Tries the runtime's cipher. Deno 2.6 has none; that of 2.7 gives wrong bytes when a message comes in pieces whose
 * size is no multiple of a block.
 */
export function probeCipher(): CipherQuality {
  if (!getCiphers().includes(CIPHER)) return "none";
  const [key, nonce, message] = [new Uint8Array(32).fill(1), new Uint8Array(12).fill(2), new Uint8Array(150).fill(3)];
  const encrypt = (...pieces: readonly Uint8Array[]) => {
    const cipher = createCipheriv(CIPHER, key, nonce, { authTagLength: TAG_BYTES });
    cipher.setAAD(new Uint8Array(0), { plaintextLength: message.length });
    const out = pieces.map((piece) => new Uint8Array(cipher.update(piece)));
    return concatBytes(...out, cipher.final(), cipher.getAuthTag());
  };
  try {
    const whole = encrypt(message);
    const inPieces = encrypt(message.subarray(0, 1), message.subarray(1, 70), message.subarray(70));
    return equalBytes(whole, inPieces) ? "good" : "whole-only";
  } catch {
    return "none";
  }
}

/**
 * The option for Noise: its own choice where the runtime is sound, messages in one piece where it is not, and the slow
 * portable code (a tenth of the speed) where there is no cipher.
 */
export function noiseCrypto(quality: CipherQuality = probeCipher()): ICryptoInterface | undefined {
  switch (quality) {
    case "good":
      return undefined;
    case "whole-only":
      return WHOLE_MESSAGE_CRYPTO;
    case "none":
      return pureJsCrypto;
  }
}

type Bytes = Parameters<ICryptoInterface["hashSHA256"]>[0];

const WHOLE_MESSAGE_CRYPTO: ICryptoInterface = {
  ...pureJsCrypto,
  hashSHA256: (data) => new Uint8Array(createHash("sha256").update(data.subarray()).digest()),
  chaCha20Poly1305Encrypt(plaintext, nonce, ad, key) {
    const cipher = createCipheriv(CIPHER, key, nonce, { authTagLength: TAG_BYTES });
    cipher.setAAD(ad, { plaintextLength: plaintext.byteLength });
    const body = cipher.update(plaintext.subarray());
    return concatBytes(body, cipher.final(), cipher.getAuthTag());
  },
  chaCha20Poly1305Decrypt(ciphertext, nonce, ad, key) {
    const bytes = ciphertext.subarray();
    const body = bytes.subarray(0, bytes.length - TAG_BYTES);
    const decipher = createDecipheriv(CIPHER, key, nonce, { authTagLength: TAG_BYTES });
    decipher.setAAD(ad, { plaintextLength: body.length });
    decipher.setAuthTag(bytes.subarray(bytes.length - TAG_BYTES));
    return concatBytes(decipher.update(body), decipher.final());
  },
  generateX25519KeyPair() {
    const { publicKey, privateKey } = generateKeyPairSync("x25519", {
      publicKeyEncoding: { type: "spki", format: "der" },
      privateKeyEncoding: { type: "pkcs8", format: "der" },
    });
    return {
      publicKey: new Uint8Array(publicKey.subarray(X25519_SPKI.length)),
      privateKey: new Uint8Array(privateKey.subarray(X25519_PKCS8.length)),
    };
  },
  generateX25519SharedKey(privateKey: Bytes, publicKey: Bytes) {
    const secret = Buffer.from(concatBytes(X25519_PKCS8, privateKey.subarray()));
    const other = Buffer.from(concatBytes(X25519_SPKI, publicKey.subarray()));
    return new Uint8Array(diffieHellman({
      publicKey: createPublicKey({ key: other, type: "spki", format: "der" }),
      privateKey: createPrivateKey({ key: secret, type: "pkcs8", format: "der" }),
    }));
  },
};
