/**
 * Signatures by an SSH agent: keys that lie in hardware, or in another process, never come here.
 *
 * Of the protocol (draft-ietf-sshm-ssh-agent) two requests: list the keys, sign. Ed25519 only, as everywhere here.
 *
 * @module
 */

import { concatBytes, equalBytes, toBase64Url, utf8 } from "../core/bytes.ts";
import { CliError, EXIT } from "./exit.ts";

/** Largest message that an agent may send (OpenSSH has the same bound). */
const MESSAGE_BYTES_MAX = 256 << 10;
/** Time for an answer: the person may have to touch the key. */
const ANSWER_MS_MAX = 60_000;

const REQUEST_IDENTITIES = 11;
const IDENTITIES_ANSWER = 12;
const SIGN_REQUEST = 13;
const SIGN_RESPONSE = 14;
const ED25519 = "ssh-ed25519";

/** An Ed25519 key in an agent. */
export interface AgentKey {
  /** 32 bytes. */
  readonly publicKey: Uint8Array;
  readonly comment: string;
}

/** Bytes are not what the SSH wire format wants. */
export class SshFormatError extends Error {
  override readonly name = "SshFormatError";
}

/** Reads the SSH wire format (RFC 4251, section 5). */
class SshReader {
  #at = 0;
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  byte(): number {
    const one = this.#bytes[this.#at];
    if (one === undefined) throw new SshFormatError("Cannot read an SSH message: cut off");
    this.#at++;
    return one;
  }

  uint32(): number {
    return ((this.byte() << 24) | (this.byte() << 16) | (this.byte() << 8) | this.byte()) >>> 0;
  }

  string(): Uint8Array {
    const length = this.uint32();
    if (length > this.#bytes.length - this.#at) throw new SshFormatError("Cannot read an SSH message: cut off");
    this.#at += length;
    return this.#bytes.slice(this.#at - length, this.#at);
  }

  end(): void {
    if (this.#at !== this.#bytes.length) throw new SshFormatError("Cannot read an SSH message: bytes behind it");
  }
}

function uint32(value: number): Uint8Array {
  return Uint8Array.of(value >>> 24, value >>> 16, value >>> 8, value);
}

function string(content: Uint8Array): Uint8Array {
  return concatBytes(uint32(content.length), content);
}

/** A public key in the SSH wire format. */
export function keyBlob(publicKey: Uint8Array): Uint8Array {
  return concatBytes(string(utf8(ED25519)), string(publicKey));
}

/** The key of such a blob, or `undefined` where it is of another kind. */
export function keyOfBlob(blob: Uint8Array): Uint8Array | undefined {
  const reader = new SshReader(blob);
  if (!equalBytes(reader.string(), utf8(ED25519))) return undefined;
  const key = reader.string();
  reader.end();
  if (key.length !== 32) throw new SshFormatError("Cannot read an SSH key: wanted 32 bytes");
  return key;
}

/** Reads the answer to a list of keys: those of Ed25519. @throws {SshFormatError} */
export function readIdentities(message: Uint8Array): readonly AgentKey[] {
  const reader = new SshReader(message);
  if (reader.byte() !== IDENTITIES_ANSWER) throw new SshFormatError("Cannot list keys: the agent refuses");
  const count = reader.uint32();
  const out: AgentKey[] = [];
  for (let i = 0; i < count; i++) {
    const publicKey = keyOfBlob(reader.string());
    // deno-lint-ignore no-control-regex
    const comment = new TextDecoder().decode(reader.string()).replace(/[\u0000-\u001f\u007f-\u009f]/g, " ");
    if (publicKey) out.push({ publicKey, comment });
  }
  reader.end();
  return out;
}

/** Reads the answer to a request for a signature: 64 bytes. @throws {SshFormatError} */
export function readSignature(message: Uint8Array): Uint8Array {
  const reader = new SshReader(message);
  if (reader.byte() !== SIGN_RESPONSE) {
    throw new SshFormatError("Cannot sign: the agent refuses, or the key was not touched");
  }
  const inner = new SshReader(reader.string());
  reader.end();
  if (!equalBytes(inner.string(), utf8(ED25519))) {
    throw new SshFormatError("Cannot sign: the signature is of another kind");
  }
  const signature = inner.string();
  inner.end();
  if (signature.length !== 64) throw new SshFormatError("Cannot sign: the signature has a wrong length");
  return signature;
}

/** An SSH agent behind its socket; each request is a connection of its own. */
export class SshAgent {
  readonly #path: string;

  /** @param path As in `SSH_AUTH_SOCK`. */
  constructor(path: string) {
    this.#path = path;
  }

  /** Its Ed25519 keys. @throws {CliError} Where it does not answer as an agent does. */
  async keys(): Promise<readonly AgentKey[]> {
    return await this.#ask(Uint8Array.of(REQUEST_IDENTITIES), readIdentities);
  }

  /** Has a message signed. @throws {CliError} Where the agent refuses. */
  async sign(publicKey: Uint8Array, message: Uint8Array): Promise<Uint8Array> {
    const request = concatBytes(
      Uint8Array.of(SIGN_REQUEST),
      string(keyBlob(publicKey)),
      string(message),
      uint32(0),
    );
    return await this.#ask(request, readSignature);
  }

  async #ask<T>(request: Uint8Array, read: (answer: Uint8Array) => T): Promise<T> {
    let connection: Deno.UnixConn | undefined;
    let late = false;
    let timer: ReturnType<typeof setTimeout> | undefined;
    try {
      const opened = await Deno.connect({ transport: "unix", path: this.#path });
      connection = opened;
      timer = setTimeout(() => {
        late = true;
        opened.close();
      }, ANSWER_MS_MAX);
      await writeAll(opened, string(request));
      const head = await readExactly(opened, 4);
      const length = new SshReader(head).uint32();
      if (length < 1 || length > MESSAGE_BYTES_MAX) {
        throw new SshFormatError(`Cannot read an SSH message of ${length} bytes`);
      }
      return read(await readExactly(opened, length));
    } catch (error) {
      const message = late
        ? `no answer within ${ANSWER_MS_MAX / 1_000} s`
        : error instanceof Error
        ? error.message
        : String(error);
      throw new CliError(`Cannot use the SSH agent at ${this.#path}: ${message}`, {
        code: "ssh-agent",
        cure: "Check it with: ssh-add -L    (SSH_AUTH_SOCK names its socket)",
        exitCode: EXIT.failed,
        cause: error,
      });
    } finally {
      clearTimeout(timer);
      if (!late) connection?.close();
    }
  }
}

/** A line of an OpenSSH public key file: `ssh-ed25519 AAAA… comment`. */
export function formatPublicKey(publicKey: Uint8Array, comment: string): string {
  const text = toBase64Url(keyBlob(publicKey)).replaceAll("-", "+").replaceAll("_", "/");
  return `${ED25519} ${text.padEnd(Math.ceil(text.length / 4) * 4, "=")}${comment === "" ? "" : ` ${comment}`}`;
}

async function writeAll(connection: Deno.UnixConn, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length;) done += await connection.write(bytes.subarray(done));
}

async function readExactly(connection: Deno.UnixConn, length: number): Promise<Uint8Array> {
  const out = new Uint8Array(length);
  for (let done = 0; done < length;) {
    const count = await connection.read(out.subarray(done));
    if (count === null) throw new SshFormatError("the agent hung up");
    done += count;
  }
  return out;
}
