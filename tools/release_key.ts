/**
 * The key that releases are signed with, and signatures of it in the three forms that a bare machine can check: raw for
 * OpenSSL 3, SSHSIG for `ssh-keygen -Y verify`, OpenPGP for `gpgv`. One Ed25519 key, and the same bytes for the same input.
 *
 * @module
 */

import { createHash, createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, sign } from "node:crypto";
import { Buffer } from "node:buffer";
import { dirname } from "node:path";

/** Namespace of the SSH signatures: a signature of the key for something else is none of a release. */
export const SSH_NAMESPACE = "mycelium-release";

/** The OpenPGP form of a key has a date in it. This one, so that the form depends on the key alone. Seconds since 1970. */
const KEY_MADE_SEC = 1_767_225_600;
/** The user in the OpenPGP form. */
const USER = "mycelium releases";
/** OpenPGP's name of Ed25519, with its length: 1.3.6.1.4.1.11591.15.1. */
const ED25519_OID = [9, 0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01];
const EDDSA = 22;
const SHA256 = 8;

/** The public key as `install.sh` holds it. */
export interface PublicForms {
  /** SubjectPublicKeyInfo, base64 on one line. */
  readonly spki: string;
  /** `ssh-ed25519 AAAA…` */
  readonly ssh: string;
  /** An OpenPGP certificate, binary, base64 on one line. */
  readonly gpg: string;
}

/** Signatures over one file. */
export interface Signatures {
  /** 64 bytes, RFC 8032. */
  readonly raw: Uint8Array;
  /** Armoured SSHSIG. */
  readonly ssh: Uint8Array;
  /** Detached OpenPGP signature, binary. */
  readonly gpg: Uint8Array;
}

/**
 * Reads a private key, or makes it where there is none and `make` is set.
 *
 * @param path PEM file (PKCS 8), as `openssl genpkey -algorithm ed25519` makes it. One that is made has mode 0600.
 * @param make Whether to make a key where there is no file.
 * @throws {Error} Where the file cannot be read, or holds no Ed25519 key, or others may read it.
 */
export async function readKey(path: string, make: boolean): Promise<KeyObject> {
  const info = await Deno.stat(path).catch((error) => {
    if (error instanceof Deno.errors.NotFound && make) return undefined;
    throw new Error(`Cannot read the release key "${path}": ${error.message}`);
  });
  if (!info) {
    await Deno.mkdir(dirname(path), { recursive: true });
    const pem = generateKeyPairSync("ed25519").privateKey.export({ format: "pem", type: "pkcs8" });
    await Deno.writeTextFile(path, pem.toString(), { mode: 0o600, createNew: true });
  } else if (((info.mode ?? 0) & 0o077) !== 0) {
    throw new Error(`Cannot use the release key "${path}": others may read it, wanted mode 0600 (chmod 600 ${path})`);
  }
  const key = createPrivateKey(await Deno.readTextFile(path));
  if (key.asymmetricKeyType !== "ed25519") {
    throw new Error(`Cannot use the release key "${path}": it is ${key.asymmetricKeyType}, wanted ed25519`);
  }
  return key;
}

/** The public half of `key` in the forms of {@linkcode PublicForms}. */
export function publicForms(key: KeyObject): PublicForms {
  const body = pgpKey(key);
  const user = ascii(USER);
  const userLength = new Uint8Array(4);
  new DataView(userLength.buffer).setUint32(0, user.length);
  // A certification of the user by his own key, that says: this key signs (0x03: certifies and signs).
  const certification = pgpSignature(key, {
    type: 0x13,
    signed: join(pgpKeyPrefix(body), body, [0xb4], userLength, user),
    madeSec: KEY_MADE_SEC,
    more: [2, 27, 0x03],
  });
  return {
    spki: Buffer.from(createPublicKey(key).export({ format: "der", type: "spki" })).toString("base64"),
    ssh: `ssh-ed25519 ${Buffer.from(sshKey(key)).toString("base64")}`,
    gpg: Buffer.from(join(pgpPacket(6, body), pgpPacket(13, user), certification)).toString("base64"),
  };
}

/**
 * Signs `data`.
 *
 * @param key An Ed25519 key.
 * @param data What to sign.
 * @param madeSec Time of the OpenPGP form, seconds since 1970; not before 2026, when the keys begin.
 */
export function signRelease(key: KeyObject, data: Uint8Array, madeSec: number): Signatures {
  const gpg = pgpSignature(key, { type: 0, signed: data, madeSec: Math.max(madeSec, KEY_MADE_SEC), more: [] });
  return { raw: sign(null, data, key), ssh: sshSignature(key, data), gpg };
}

/** PROTOCOL.sshsig of OpenSSH. */
function sshSignature(key: KeyObject, data: Uint8Array): Uint8Array {
  const digest = createHash("sha512").update(data).digest();
  const names = join(sshText(SSH_NAMESPACE), sshText(""), sshText("sha512"));
  const signature = sign(null, join(ascii("SSHSIG"), names, sshBytes(digest)), key);
  const blob = join(
    ascii("SSHSIG"),
    [0, 0, 0, 1],
    sshBytes(sshKey(key)),
    names,
    sshBytes(join(sshText("ssh-ed25519"), sshBytes(signature))),
  );
  const lines = Buffer.from(blob).toString("base64").match(/.{1,70}/g) ?? [];
  return ascii(["-----BEGIN SSH SIGNATURE-----", ...lines, "-----END SSH SIGNATURE-----", ""].join("\n"));
}

function sshKey(key: KeyObject): Uint8Array {
  return join(sshText("ssh-ed25519"), sshBytes(rawPublic(key)));
}

function sshText(text: string): Uint8Array {
  return sshBytes(ascii(text));
}

function sshBytes(bytes: Uint8Array): Uint8Array {
  const length = new Uint8Array(4);
  new DataView(length.buffer).setUint32(0, bytes.length);
  return join(length, bytes);
}

/** What an OpenPGP signature is made of, besides the key. */
interface PgpSignatureOptions {
  readonly type: number;
  readonly signed: Uint8Array;
  readonly madeSec: number;
  /** Further subpackets that are signed. */
  readonly more: readonly number[];
}

/** A signature packet of version 4: RFC 4880, 5.2.3 and 5.2.4; EdDSA as GnuPG writes it. */
function pgpSignature(key: KeyObject, options: PgpSignatureOptions): Uint8Array {
  const body = pgpKey(key);
  const fingerprint = createHash("sha1").update(pgpKeyPrefix(body)).update(body).digest();
  const made = new Uint8Array(4);
  new DataView(made.buffer).setUint32(0, options.madeSec);
  const hashed = join([5, 2], made, [22, 33, 4], fingerprint, options.more);
  const head = join([4, options.type, EDDSA, SHA256, hashed.length >> 8, hashed.length & 0xff], hashed);
  const trailer = join([4, 0xff, 0, 0, head.length >> 8, head.length & 0xff]);
  const digest = createHash("sha256").update(options.signed).update(head).update(trailer).digest();
  const signature = sign(null, digest, key);
  const issuer = join([9, 16], fingerprint.subarray(-8));
  const numbers = join(pgpNumber(signature.subarray(0, 32)), pgpNumber(signature.subarray(32)));
  return pgpPacket(2, join(head, [0, issuer.length], issuer, digest.subarray(0, 2), numbers));
}

function pgpKey(key: KeyObject): Uint8Array {
  const made = new Uint8Array(4);
  new DataView(made.buffer).setUint32(0, KEY_MADE_SEC);
  return join([4], made, [EDDSA], ED25519_OID, pgpNumber(join([0x40], rawPublic(key))));
}

/** What stands before a key where it is hashed. */
function pgpKeyPrefix(body: Uint8Array): Uint8Array {
  return join([0x99, body.length >> 8, body.length & 0xff]);
}

/** A number with its length in bits, without leading zeros. */
function pgpNumber(bytes: Uint8Array): Uint8Array {
  const first = bytes.findIndex((one) => one !== 0);
  const rest = first < 0 ? new Uint8Array() : bytes.subarray(first);
  const bits = rest.length === 0 ? 0 : rest.length * 8 - Math.clz32(rest[0]!) + 24;
  return join([bits >> 8, bits & 0xff], rest);
}

function pgpPacket(tag: number, body: Uint8Array): Uint8Array {
  const { length } = body;
  const size = length < 192 ? [length] : [((length - 192) >> 8) + 192, (length - 192) & 0xff];
  return join([0xc0 | tag, ...size], body);
}

function rawPublic(key: KeyObject): Uint8Array {
  return createPublicKey(key).export({ format: "der", type: "spki" }).subarray(-32);
}

function ascii(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

function join(...parts: readonly (Uint8Array | readonly number[])[]): Uint8Array {
  return Uint8Array.from(Buffer.concat(parts.map((one) => Uint8Array.from(one))));
}
