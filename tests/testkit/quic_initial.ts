/**
 * Reads the TLS hellos out of the first packets of a QUIC connection, as anybody on the path can.
 *
 * The keys of Initial packets come from the connection id that the client chose (RFC 9001, section 5.2).
 *
 * @module
 */

import { createCipheriv, createDecipheriv, createHmac } from "node:crypto";
import { concatBytes, fromHex, fromUtf8, toHex, utf8 } from "../../src/core/bytes.ts";

/** What a ClientHello offers. */
export interface ClientHello {
  readonly supportedVersions: readonly number[];
  /** Group and public key of each share, as hex. */
  readonly keyShares: readonly string[];
  readonly serverName: string;
  readonly alpn: readonly string[];
}

/** What a ServerHello chose. */
export interface ServerHello {
  readonly selectedVersion: number;
  readonly cipherSuite: number;
  /** Group and public key, as hex. */
  readonly keyShare: string;
}

const SALT = fromHex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a")!;

interface Keys {
  readonly key: Uint8Array;
  readonly iv: Uint8Array;
  readonly headerKey: Uint8Array;
}

/** Collects the handshake messages of both ends from datagrams. */
export class InitialReader {
  #keys: { readonly up: Keys; readonly down: Keys } | undefined;
  readonly #pieces = { up: new Map<number, Uint8Array>(), down: new Map<number, Uint8Array>() };

  /** Takes one datagram of the connection; must see the client's first one first. */
  push(datagram: Uint8Array, direction: "up" | "down"): void {
    let at = 0;
    while (at + 7 < datagram.length && (datagram[at]! & 0x80) !== 0) {
      const start = at;
      const type = datagram[at]! >> 4 & 3;
      at += 5;
      const destination = datagram.subarray(at + 1, at + 1 + datagram[at]!);
      at += 1 + destination.length;
      at += 1 + datagram[at]!;
      if (type === 3) return;
      if (type === 0) {
        const token = varint(datagram, at);
        at = token.next + token.value;
      }
      const length = varint(datagram, at);
      at = length.next;
      if (type === 0) {
        this.#keys ??= { up: initialKeys(destination, "client in"), down: initialKeys(destination, "server in") };
        this.#open(datagram.slice(start, at + length.value), at - start, direction);
      }
      at += length.value;
    }
  }

  #open(packet: Uint8Array, numberAt: number, direction: "up" | "down"): void {
    const { key, iv, headerKey } = this.#keys![direction];
    const cipher = createCipheriv("aes-128-ecb", headerKey, null);
    const mask = new Uint8Array(cipher.update(packet.subarray(numberAt + 4, numberAt + 20)));
    cipher.final();
    packet[0]! ^= mask[0]! & 0x0f;
    const width = (packet[0]! & 3) + 1;
    const nonce = iv.slice();
    for (let i = 0; i < width; i++) {
      packet[numberAt + i]! ^= mask[1 + i]!;
      nonce[12 - width + i]! ^= packet[numberAt + i]!;
    }
    const head = packet.subarray(0, numberAt + width);
    const body = packet.subarray(numberAt + width);
    const open = createDecipheriv("aes-128-gcm", key, nonce);
    open.setAAD(head);
    open.setAuthTag(body.subarray(body.length - 16));
    const frames = concatBytes(
      new Uint8Array(open.update(body.subarray(0, body.length - 16))),
      new Uint8Array(open.final()),
    );
    this.#frames(frames, direction);
  }

  #frames(bytes: Uint8Array, direction: "up" | "down"): void {
    let at = 0;
    const next = () => {
      const { value, next } = varint(bytes, at);
      at = next;
      return value;
    };
    while (at < bytes.length) {
      const type = next();
      if (type === 0x00 || type === 0x01) continue;
      if (type === 0x02 || type === 0x03) {
        next();
        next();
        const ranges = next();
        next();
        for (let i = 0; i < ranges; i++) {
          next();
          next();
        }
        if (type === 0x03) { for (let i = 0; i < 3; i++) next(); }
      } else if (type === 0x06) {
        const offset = next();
        const size = next();
        this.#pieces[direction].set(offset, bytes.slice(at, at + size));
        at += size;
      } else return;
    }
  }

  #message(direction: "up" | "down", wanted: number): Uint8Array {
    let all: Uint8Array = new Uint8Array(0);
    for (let piece; (piece = this.#pieces[direction].get(all.length));) all = concatBytes(all, piece);
    const length = all[1]! << 16 | all[2]! << 8 | all[3]!;
    if (all[0] !== wanted || all.length < 4 + length) throw new Error(`no whole handshake message ${wanted} was seen`);
    return all.subarray(4, 4 + length);
  }

  clientHello(): ClientHello {
    const body = this.#message("up", 1);
    let at = 34;
    at += 1 + body[at]!;
    at += 2 + uint16(body, at);
    at += 1 + body[at]!;
    const extensions = readExtensions(body, at);
    const versions = extensions.get(43)!;
    const supportedVersions: number[] = [];
    for (let i = 1; i < versions.length; i += 2) supportedVersions.push(uint16(versions, i));
    const shares = extensions.get(51)!;
    const keyShares: string[] = [];
    for (let i = 2; i < shares.length;) {
      const size = uint16(shares, i + 2);
      keyShares.push(toHex(shares.subarray(i, i + 4 + size)));
      i += 4 + size;
    }
    const protocols = extensions.get(16)!;
    const alpn: string[] = [];
    for (let i = 2; i < protocols.length; i += 1 + protocols[i]!) {
      alpn.push(fromUtf8(protocols.subarray(i + 1, i + 1 + protocols[i]!)));
    }
    return { supportedVersions, keyShares, serverName: fromUtf8(extensions.get(0)!.subarray(5)), alpn };
  }

  serverHello(): ServerHello {
    const body = this.#message("down", 2);
    let at = 34;
    at += 1 + body[at]!;
    const cipherSuite = uint16(body, at);
    const extensions = readExtensions(body, at + 3);
    return {
      selectedVersion: uint16(extensions.get(43)!, 0),
      cipherSuite,
      keyShare: toHex(extensions.get(51)!),
    };
  }
}

function readExtensions(body: Uint8Array, at: number): ReadonlyMap<number, Uint8Array> {
  const out = new Map<number, Uint8Array>();
  const end = at + 2 + uint16(body, at);
  for (at += 2; at < end;) {
    const size = uint16(body, at + 2);
    out.set(uint16(body, at), body.subarray(at + 4, at + 4 + size));
    at += 4 + size;
  }
  return out;
}

function uint16(bytes: Uint8Array, at: number): number {
  return bytes[at]! << 8 | bytes[at + 1]!;
}

/** A QUIC variable-length integer (RFC 9000, section 16). */
function varint(bytes: Uint8Array, at: number): { readonly value: number; readonly next: number } {
  const width = 1 << (bytes[at]! >> 6);
  let value = bytes[at]! & 0x3f;
  for (let i = 1; i < width; i++) value = value * 256 + bytes[at + i]!;
  return { value, next: at + width };
}

function hmac(key: Uint8Array, data: Uint8Array): Uint8Array {
  return new Uint8Array(createHmac("sha256", key).update(data).digest());
}

/** HKDF-Expand-Label of TLS 1.3, for at most 32 bytes. */
function expandLabel(secret: Uint8Array, label: string, length: number): Uint8Array {
  const name = utf8("tls13 " + label);
  const info = concatBytes(Uint8Array.of(0, length, name.length), name, Uint8Array.of(0, 1));
  return hmac(secret, info).subarray(0, length);
}

function initialKeys(connectionId: Uint8Array, label: string): Keys {
  const secret = expandLabel(hmac(SALT, connectionId), label, 32);
  return {
    key: expandLabel(secret, "quic key", 16),
    iv: expandLabel(secret, "quic iv", 12),
    headerKey: expandLabel(secret, "quic hp", 16),
  };
}
