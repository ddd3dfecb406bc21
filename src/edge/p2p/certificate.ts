/**
 * Certificates of the QUIC channel: short-lived leaves signed by the node key, and the anchor that a dialer
 * makes from nothing but the node id it wants to reach.
 *
 * A leaf holds a fresh P-256 key and is signed by the node's Ed25519 key. The dialer's anchor holds that
 * Ed25519 public key; TLS libraries never check the signature of an anchor, so anybody can make it. No
 * authority has to be distributed, and TLS alone proves the server's identity.
 *
 * DER is written by hand: it is 60 lines, and the libraries for it cost 10 MB of memory in an idle node.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { generateKeyPairSync, randomBytes } from "node:crypto";
import { concatBytes, toHex, utf8 } from "../../core/bytes.ts";
import { hashParts, type KeyPair, sha256, signBytes } from "../../core/crypto.ts";

/** A certificate with its private key. */
export interface Leaf {
  /** PEM, for `Deno.QuicEndpoint.listen`. */
  readonly cert: string;
  /** PKCS #8 PEM. Never logged, never sent. */
  readonly key: string;
  /** SHA-256 of the certificate's DER, 32 bytes. */
  readonly hash: Uint8Array;
  /** First and last moment of validity, milliseconds since the epoch. */
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

/** How far before now a leaf starts to be valid, so that a peer whose clock is slow accepts it. */
export const LEAF_BACKDATE_MS = 3_600_000;

/**
 * The name that a node's leaf is for: a hash over network and node key under a domain that no public
 * authority issues for.
 */
export function serverNameOf(networkId: Uint8Array, publicKey: Uint8Array): string {
  return toHex(hashParts("mycelium/quic-name/v1", networkId, publicKey)).slice(0, 40) + ".peer.internal";
}

/**
 * Makes a leaf certificate.
 *
 * @param pair The node's key.
 * @param options `nowMs` wall clock; `lifetimeMs` from now.
 */
export function createLeaf(
  pair: KeyPair,
  options: { readonly networkId: Uint8Array; readonly nowMs: number; readonly lifetimeMs: number },
): Leaf {
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const notBeforeMs = options.nowMs - LEAF_BACKDATE_MS;
  const notAfterMs = options.nowMs + options.lifetimeMs;
  const der = certificate({
    issuer: anchorName(options.networkId, pair.publicKey),
    subject: "leaf",
    notBeforeMs,
    notAfterMs,
    spki: new Uint8Array(publicKey.export({ type: "spki", format: "der" })),
    extensions: [
      // Basic constraints: not an authority. Critical.
      extension([2, 5, 29, 19], sequence(), true),
      // Key usage: digital signature.
      extension([2, 5, 29, 15], Uint8Array.of(3, 2, 7, 0x80), true),
      // Extended key usage: TLS server.
      extension([2, 5, 29, 37], sequence(oid([1, 3, 6, 1, 5, 5, 7, 3, 1])), false),
      extension(
        [2, 5, 29, 17],
        sequence(tlv(0x82, utf8(serverNameOf(options.networkId, pair.publicKey)))),
        false,
      ),
    ],
    sign: (message) => signBytes(pair, message),
  });
  return {
    cert: pem("CERTIFICATE", der),
    key: privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
    hash: sha256(der),
    notBeforeMs,
    notAfterMs,
  };
}

/**
 * The trust anchor for one node in one network, as PEM.
 *
 * @param networkId 32 bytes.
 * @param publicKey The node's raw Ed25519 key, out of its node id.
 */
export function createAnchor(networkId: Uint8Array, publicKey: Uint8Array): string {
  return pem(
    "CERTIFICATE",
    certificate({
      issuer: anchorName(networkId, publicKey),
      subject: anchorName(networkId, publicKey),
      notBeforeMs: Date.UTC(2020, 0, 1),
      notAfterMs: Date.UTC(2049, 0, 1),
      spki: concatBytes(ED25519_SPKI_PREFIX, publicKey),
      extensions: [
        // Basic constraints: an authority, for leaves only.
        extension([2, 5, 29, 19], sequence(Uint8Array.of(1, 1, 0xff), Uint8Array.of(2, 1, 0)), true),
        // Key usage: certificate signing.
        extension([2, 5, 29, 15], Uint8Array.of(3, 2, 2, 0x04), true),
      ],
      // Not checked by anybody: an anchor is trusted because the dialer put it there.
      sign: () => new Uint8Array(64),
    }),
  );
}

function anchorName(networkId: Uint8Array, publicKey: Uint8Array): string {
  return toHex(hashParts("mycelium/quic-anchor/v1", networkId, publicKey)).slice(0, 40);
}

interface CertificateParts {
  readonly issuer: string;
  readonly subject: string;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly spki: Uint8Array;
  readonly extensions: readonly Uint8Array[];
  readonly sign: (message: Uint8Array) => Uint8Array;
}

const ED25519_SPKI_PREFIX = Uint8Array.from([0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0]);

/** X.509 version 3 with an Ed25519 signature (RFC 5280, RFC 8410). */
function certificate(parts: CertificateParts): Uint8Array {
  const algorithm = sequence(oid([1, 3, 101, 112]));
  const serial = new Uint8Array(randomBytes(16));
  serial[0] = serial[0]! & 0x3f | 0x40;
  const body = sequence(
    tlv(0xa0, Uint8Array.of(2, 1, 2)),
    tlv(2, serial),
    algorithm,
    commonName(parts.issuer),
    sequence(time(parts.notBeforeMs), time(parts.notAfterMs)),
    commonName(parts.subject),
    parts.spki,
    tlv(0xa3, sequence(...parts.extensions)),
  );
  return sequence(body, algorithm, tlv(3, concatBytes(Uint8Array.of(0), parts.sign(body))));
}

function tlv(tag: number, content: Uint8Array): Uint8Array {
  const length = content.length;
  const head = length < 128
    ? [tag, length]
    : length < 256
    ? [tag, 0x81, length]
    : [tag, 0x82, length >> 8, length & 0xff];
  return concatBytes(Uint8Array.from(head), content);
}

function sequence(...parts: readonly Uint8Array[]): Uint8Array {
  return tlv(0x30, concatBytes(...parts));
}

function oid(numbers: readonly number[]): Uint8Array {
  const out = [numbers[0]! * 40 + numbers[1]!];
  for (const number of numbers.slice(2)) {
    if (number >= 128) out.push(number >> 7 | 0x80);
    out.push(number & 127);
  }
  return tlv(6, Uint8Array.from(out));
}

function commonName(name: string): Uint8Array {
  return sequence(tlv(0x31, sequence(oid([2, 5, 4, 3]), tlv(12, utf8(name)))));
}

/** UTCTime until 2049 and GeneralizedTime after it, as RFC 5280, section 4.1.2.5 wants it. */
function time(ms: number): Uint8Array {
  const digits = new Date(ms).toISOString().replace(/\.\d+|[-:T]/g, "");
  return digits < "2050" ? tlv(0x17, utf8(digits.slice(2))) : tlv(0x18, utf8(digits));
}

function extension(id: readonly number[], value: Uint8Array, critical: boolean): Uint8Array {
  return sequence(oid(id), ...(critical ? [Uint8Array.of(1, 1, 0xff)] : []), tlv(4, value));
}

function pem(label: string, der: Uint8Array): string {
  const lines = Buffer.from(der).toString("base64").match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join("\n")}\n-----END ${label}-----\n`;
}
