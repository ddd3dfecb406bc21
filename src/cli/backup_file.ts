/**
 * A backup of the Primary Spore as a file: versioned, compressed, encrypted, and bound to its header.
 *
 * `mycelium-backup`, a line feed, the length of the header in four bytes, the header in deterministic CBOR, then
 * AES-256-GCM over the compressed state with the header as additional data. The key comes from a passphrase (scrypt)
 * or from the operator's key (HKDF), each with a salt of its own.
 *
 * @module
 */

import { createCipheriv, createDecipheriv, randomBytes, scryptSync } from "node:crypto";
import { Buffer } from "node:buffer";
import { gunzipSync, gzipSync } from "node:zlib";
import { concatBytes, equalBytes, utf8 } from "../core/bytes.ts";
import { bytes, decodeAs, encodeCbor, oneOf, type Read, record, text, uint, WireError } from "../core/codec.ts";
import { hkdfSha256, sha256 } from "../core/crypto.ts";
import { LIMITS } from "../core/limits.ts";
import { CliError, EXIT } from "./exit.ts";

const MAGIC = utf8("mycelium-backup\n");
/** scrypt: 32 MiB and some 0.1 s for each try. */
const SCRYPT = { N: 1 << 15, r: 8, p: 1, maxmem: 64 << 20 } as const;
const TAG_BYTES = 16;
/** Least length of a passphrase: what is shorter is guessed. */
export const PASSPHRASE_CHARS_MIN = 12;

/** What opens a backup. */
export type BackupSecret =
  | { readonly kind: "passphrase"; readonly passphrase: string }
  /** 32 bytes: the operator's key. */
  | { readonly kind: "operator"; readonly seed: Uint8Array };

/** What a backup says of itself, readable by anybody. */
export interface BackupHeader {
  readonly kind: BackupSecret["kind"];
  readonly networkId: Uint8Array;
  readonly networkName: string;
  readonly createdMs: number;
  /** Last entry of the log that the state holds. */
  readonly index: number;
  /** SHA-256 of the state. */
  readonly digest: Uint8Array;
}

const readHeader = record({
  v: uint(1, 1),
  k: oneOf(["passphrase", "operator"]),
  s: bytes({ length: 16 }),
  n: bytes({ length: 12 }),
  w: bytes({ length: 32 }),
  m: text(128),
  t: uint(),
  i: uint(),
  d: bytes({ length: 32 }),
});

/** Encrypts a state. */
export function sealBackup(
  state: Uint8Array,
  about: Omit<BackupHeader, "kind" | "digest">,
  secret: BackupSecret,
): Uint8Array {
  const [salt, nonce] = [new Uint8Array(randomBytes(16)), new Uint8Array(randomBytes(12))];
  const header = encodeCbor({
    v: 1,
    k: secret.kind,
    s: salt,
    n: nonce,
    w: about.networkId,
    m: about.networkName,
    t: about.createdMs,
    i: about.index,
    d: sha256(state),
  });
  const cipher = createCipheriv("aes-256-gcm", Buffer.from(keyOf(secret, salt)), Buffer.from(nonce));
  cipher.setAAD(header);
  const body = concatBytes(cipher.update(gzipSync(state)), cipher.final());
  const length = new Uint8Array(4);
  new DataView(length.buffer).setUint32(0, header.length);
  return concatBytes(MAGIC, length, header, body, cipher.getAuthTag());
}

/** Reads what a backup says of itself; nothing of it is proven before it is opened. @throws {CliError} */
export function readBackupHeader(file: Uint8Array): BackupHeader {
  return about(split(file).read);
}

/**
 * Decrypts a backup.
 *
 * @throws {CliError} `bad-backup` where it is none or damaged, `wrong-secret` where the secret does not open it.
 */
export function openBackup(
  file: Uint8Array,
  secret: BackupSecret,
): { readonly header: BackupHeader; readonly state: Uint8Array } {
  const { header, read, body } = split(file);
  if (read.k !== secret.kind) {
    throw new CliError(
      `Cannot open the backup: it was made with ${read.k === "operator" ? "the operator's key" : "a passphrase"}`,
      {
        code: "wrong-secret",
        cure: read.k === "operator" ? "Use --operator-key <file>" : "Use --passphrase-file <file>",
        exitCode: EXIT.refused,
      },
    );
  }
  const decipher = createDecipheriv("aes-256-gcm", Buffer.from(keyOf(secret, read.s)), Buffer.from(read.n));
  decipher.setAAD(header);
  decipher.setAuthTag(body.subarray(body.length - TAG_BYTES));
  let state: Uint8Array;
  try {
    const packed = concatBytes(decipher.update(body.subarray(0, body.length - TAG_BYTES)), decipher.final());
    state = new Uint8Array(gunzipSync(packed, { maxOutputLength: LIMITS.raftSnapshotBytesMax }));
  } catch (cause) {
    throw new CliError("Cannot open the backup: the secret is another one, or the file was changed", {
      code: "wrong-secret",
      cure: "Check the secret, and the file against its copies",
      exitCode: EXIT.refused,
      cause,
    });
  }
  if (!equalBytes(sha256(state), read.d)) throw damaged("its content is not what its header says");
  return { header: about(read), state };
}

function split(file: Uint8Array): { header: Uint8Array; read: Read<typeof readHeader>; body: Uint8Array } {
  const start = MAGIC.length + 4;
  if (file.length < start || !equalBytes(file.subarray(0, MAGIC.length), MAGIC)) throw damaged("it is no backup");
  const length = new DataView(file.buffer, file.byteOffset).getUint32(MAGIC.length);
  if (length > 4_096 || file.length < start + length + TAG_BYTES) throw damaged("it is cut off");
  const header = file.slice(start, start + length);
  try {
    return { header, read: decodeAs(header, readHeader), body: file.slice(start + length) };
  } catch (error) {
    if (!(error instanceof WireError)) throw error;
    throw damaged(`its header does not read (${error.message})`);
  }
}

function about(read: Read<typeof readHeader>): BackupHeader {
  return { kind: read.k, networkId: read.w, networkName: read.m, createdMs: read.t, index: read.i, digest: read.d };
}

function keyOf(secret: BackupSecret, salt: Uint8Array): Uint8Array {
  if (secret.kind === "operator") return hkdfSha256(concatBytes(secret.seed, salt), "mycelium/backup/v1", 32);
  return new Uint8Array(scryptSync(secret.passphrase.normalize("NFC"), Buffer.from(salt), 32, SCRYPT));
}

function damaged(why: string): CliError {
  return new CliError(`Cannot open the backup: ${why}`, { code: "bad-backup", cure: "Use another copy of it" });
}
