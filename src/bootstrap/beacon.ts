/**
 * LAN beacons: one UDP datagram that says who is there and at which addresses.
 *
 * A beacon is authenticated twice. The MAC (key derived from the network's discovery secret) says that the
 * sender knows the network; it is checked first and costs a few microseconds, so that a flood is cheap to
 * refuse. The signature says which node sent it, so that one member cannot announce addresses for another.
 * Neither says that the sender is a member: that is for the channel and the credential. See ADR 0005.
 *
 * @module
 */

import { concatBytes, equalBytes, toHex, utf8 } from "../core/bytes.ts";
import { array, bytes, type CborValue, decodeCbor, encodeCbor, record, text, uint, WireError } from "../core/codec.ts";
import { hashParts, hkdfSha256, hmacSha256, type KeyPair, signBytes, verifySignature } from "../core/crypto.ts";
import { formatAddress, type NodeId, nodeIdOf, parseAddress } from "../core/ids.ts";
import { LIMITS } from "../core/limits.ts";

/** Largest beacon: fits an Ethernet frame without fragments, on IPv6 too. Bytes. */
export const BEACON_BYTES_MAX = 1_200;

/** Version of the format; others are `malformed`. */
export const BEACON_VERSION = 1;

/**
 * A clock before this (2026-01-01) has never been set: its node has no battery-backed clock. Its times say
 * nothing, so only the order of its beacons is checked. Milliseconds since the epoch.
 */
export const CLOCK_FLOOR_MS = 1_767_225_600_000;

/** How far a set clock may differ from ours, either way: two days. Milliseconds. */
export const BEACON_WINDOW_MS = 48 * 3_600_000;

/** The same beacon again within this time is a copy that came over another path, later it is a replay. Milliseconds. */
export const BEACON_COPY_MS = 5_000;

/** An `announce` says "I am here", a `query` asks members to announce themselves now. */
export type BeaconKind = "announce" | "query";

/** What a beacon says. */
export interface Beacon {
  readonly kind: BeaconKind;
  readonly nodeId: NodeId;
  /** Multiaddrs, each ending in `/p2p/<nodeId>`; empty in a query of a node that serves nothing yet. */
  readonly addresses: readonly string[];
  /** Grows with each start of the node. */
  readonly incarnation: number;
  /** Grows with each beacon of one incarnation. */
  readonly seq: number;
  /** Sender's wall clock, milliseconds since the epoch; below {@linkcode CLOCK_FLOOR_MS} where it has none. */
  readonly sentMs: number;
}

/** The keys of one network's beacons. */
export interface BeaconKeys {
  readonly networkId: Uint8Array;
  /** 4 bytes that tell networks apart before any cryptography; not a secret and not unique. */
  readonly hint: Uint8Array;
  /** 32 secret bytes. */
  readonly macKey: Uint8Array;
}

/** Why a datagram was not taken as a beacon; becomes a metric label. */
export type BeaconRefusal = "foreign" | "forged" | "bad-signature" | "stale" | "replayed" | "malformed" | "own";

/** Outcome of {@linkcode BeaconGuard.accept}. `copy` says that it came before, a moment ago, over another path. */
export type BeaconResult =
  | { readonly ok: true; readonly beacon: Beacon; readonly copy: boolean }
  | { readonly ok: false; readonly reason: BeaconRefusal; readonly detail: string };

/** Short public name of a network on a LAN: 8 hex digits, from a hash of its id. */
export function networkFingerprint(networkId: Uint8Array): string {
  return toHex(networkHint(networkId));
}

/** Derives the keys of a network's beacons. */
export function beaconKeys(networkId: Uint8Array, discoverySecret: Uint8Array): BeaconKeys {
  return { networkId, hint: networkHint(networkId), macKey: hkdfSha256(discoverySecret, "mycelium/beacon/v1") };
}

/**
 * Encodes, signs and authenticates a beacon. Addresses that do not fit into {@linkcode BEACON_BYTES_MAX},
 * or that name another node, are left out, the last ones first.
 *
 * @throws {WireError} When a number is no safe integer.
 */
export function encodeBeacon(beacon: Omit<Beacon, "nodeId">, keys: BeaconKeys, signer: KeyPair): Uint8Array {
  const nodeId = nodeIdOf(signer.publicKey);
  const short: string[] = [];
  // Payload without addresses, signature, MAC and framing take less than 260 bytes.
  let left = BEACON_BYTES_MAX - 260;
  for (const address of beacon.addresses) {
    const parsed = parseAddress(address);
    if (!parsed || parsed.nodeId !== undefined && parsed.nodeId !== nodeId) continue;
    // The node id is in the beacon once; 55 bytes less for each address.
    const bare = formatAddress({
      family: parsed.family,
      host: parsed.host,
      transport: parsed.transport,
      port: parsed.port,
    });
    left -= utf8(bare).length + 3;
    if (left < 0 || short.length >= LIMITS.addressesPerNodeMax) break;
    short.push(bare);
  }
  const payload = encodeCbor({
    a: short,
    i: beacon.incarnation,
    k: signer.publicKey,
    m: beacon.sentMs,
    q: beacon.seq,
    t: beacon.kind === "query" ? 1 : 0,
  });
  const signature = signBytes(signer, signedBytes(keys.networkId, payload));
  return encodeCbor({
    b: payload,
    h: keys.hint,
    m: macOf(keys, payload, signature),
    s: signature,
    v: BEACON_VERSION,
  });
}

/** Options of {@linkcode BeaconGuard}. */
export interface BeaconGuardOptions {
  readonly keys: BeaconKeys;
  /** Our own node id: our beacons come back from our own group. */
  readonly nodeId: NodeId;
  /** Senders remembered; the one not heard for longest goes first. @default {1024} */
  readonly sendersMax?: number;
}

/**
 * Accepts beacons of one network: authentic, signed, within the time window, newer than the last one of
 * their sender. Remembers senders in memory only: after a restart an old beacon of the last two days is
 * accepted once, which costs one dial to an address that then has to prove the node's key.
 */
export class BeaconGuard {
  readonly #keys: BeaconKeys;
  readonly #nodeId: NodeId;
  readonly #sendersMax: number;
  /** In order of last hearing: the first one is forgotten first. */
  readonly #senders = new Map<NodeId, { incarnation: number; seq: number; mac: Uint8Array; heardMs: number }>();

  constructor(options: BeaconGuardOptions) {
    this.#keys = options.keys;
    this.#nodeId = options.nodeId;
    this.#sendersMax = options.sendersMax ?? 1_024;
  }

  /** Senders remembered. */
  get senders(): number {
    return this.#senders.size;
  }

  /**
   * Judges one datagram.
   *
   * @param datagram As received.
   * @param nowMs Our wall clock; below {@linkcode CLOCK_FLOOR_MS} where it was never set, and the window is then not checked.
   */
  accept(datagram: Uint8Array, nowMs: number): BeaconResult {
    const read = readBeacon(datagram, this.#keys);
    if (!read.ok) return read;
    const { beacon, mac } = read;
    if (beacon.nodeId === this.#nodeId) return { ok: false, reason: "own", detail: "our own beacon came back" };
    const skewMs = beacon.sentMs - nowMs;
    const clocksSet = nowMs >= CLOCK_FLOOR_MS && beacon.sentMs >= CLOCK_FLOOR_MS;
    if (clocksSet && Math.abs(skewMs) > BEACON_WINDOW_MS) {
      return { ok: false, reason: "stale", detail: `sent ${Math.round(skewMs / 1000)} s from our clock` };
    }
    const last = this.#senders.get(beacon.nodeId);
    if (last) {
      const order = beacon.incarnation - last.incarnation || beacon.seq - last.seq;
      if (order === 0 && equalBytes(mac, last.mac) && Math.abs(nowMs - last.heardMs) <= BEACON_COPY_MS) {
        return { ok: true, beacon, copy: true };
      }
      if (order <= 0) {
        const seen = `${last.incarnation}/${last.seq}`;
        return { ok: false, reason: "replayed", detail: `${beacon.incarnation}/${beacon.seq} after ${seen}` };
      }
      this.#senders.delete(beacon.nodeId);
    } else if (this.#senders.size >= this.#sendersMax) {
      this.#senders.delete(this.#senders.keys().next().value!);
    }
    this.#senders.set(beacon.nodeId, { incarnation: beacon.incarnation, seq: beacon.seq, mac, heardMs: nowMs });
    return { ok: true, beacon, copy: false };
  }
}

const readOuter = record({
  v: uint(255),
  h: bytes({ length: 4 }),
  b: bytes({ max: BEACON_BYTES_MAX }),
  s: bytes({ length: 64 }),
  m: bytes({ length: 16 }),
});

const readPayload = record({
  a: array(text(160), LIMITS.addressesPerNodeMax),
  i: uint(),
  k: bytes({ length: 32 }),
  m: uint(),
  q: uint(),
  t: uint(1),
});

type Decoded =
  | { readonly ok: true; readonly beacon: Beacon; readonly mac: Uint8Array }
  | { readonly ok: false; readonly reason: BeaconRefusal; readonly detail: string };

/** Decodes and authenticates; cheap checks first. */
function readBeacon(datagram: Uint8Array, keys: BeaconKeys): Decoded {
  const refuse = (reason: BeaconRefusal, detail: string): Decoded => ({ ok: false, reason, detail });
  try {
    const outer = readOuter(decodeCbor(datagram, BEACON_BYTES_MAX), "beacon");
    if (outer.v !== BEACON_VERSION) return refuse("malformed", `version ${outer.v}, wanted ${BEACON_VERSION}`);
    if (!equalBytes(outer.h, keys.hint)) return refuse("foreign", `of network ${toHex(outer.h)}`);
    if (!equalBytes(outer.m, macOf(keys, outer.b, outer.s))) return refuse("forged", "its MAC is not of this network");
    const payload = readPayload(decodeCbor(outer.b, BEACON_BYTES_MAX), "beacon");
    if (!verifySignature(payload.k, signedBytes(keys.networkId, outer.b), outer.s)) {
      return refuse("bad-signature", "its signature is not its node's");
    }
    const nodeId = nodeIdOf(payload.k);
    const addresses: string[] = [];
    for (const address of payload.a) {
      const parsed = parseAddress(address);
      if (!parsed || parsed.nodeId !== undefined && parsed.nodeId !== nodeId) {
        return refuse("malformed", "holds something that is no address of its node");
      }
      addresses.push(formatAddress({ ...parsed, nodeId }));
    }
    const kind = payload.t === 1 ? "query" : "announce";
    const beacon = { kind, nodeId, addresses, incarnation: payload.i, seq: payload.q, sentMs: payload.m } as const;
    return { ok: true, beacon, mac: outer.m };
  } catch (error) {
    if (error instanceof WireError) return refuse("malformed", error.message);
    throw error;
  }
}

/**
 * MAC of what a node says over mDNS, which has no envelope of its own: instance name and addresses, in order.
 * It proves knowledge of the discovery secret and can be replayed; base for verification `authenticated`.
 */
export function mdnsMac(keys: BeaconKeys, instance: string, addresses: readonly string[]): Uint8Array {
  const value: CborValue = [instance, [...addresses]];
  return hmacSha256(keys.macKey, utf8("mycelium/mdns/v1"), encodeCbor(value)).subarray(0, 16);
}

function networkHint(networkId: Uint8Array): Uint8Array {
  return hashParts("mycelium/network-hint/v1", networkId).slice(0, 4);
}

function signedBytes(networkId: Uint8Array, payload: Uint8Array): Uint8Array {
  return hashParts("mycelium/beacon/v1", networkId, payload);
}

/** 128 bits: a forger gets one online guess per datagram. */
function macOf(keys: BeaconKeys, payload: Uint8Array, signature: Uint8Array): Uint8Array {
  return hmacSha256(keys.macKey, concatBytes(payload, signature)).slice(0, 16);
}
