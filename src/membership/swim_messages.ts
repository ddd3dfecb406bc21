/**
 * What failure detection says on the wire: datagrams of 10 to 60 bytes.
 *
 * ```
 * ping          [0, seq, incarnation, next, updates]     ack    [1, seq, incarnation, updates]
 * ping-req      [2, seq, target, updates]                nack   [4, seq, tried]
 * indirect-ack  [3, seq]                                 news   [5, updates]
 * update        [kind, subject, incarnation] or [kind, subject, incarnation, accuser]
 * ```
 *
 * Nodes are named by handles: the first 8 bytes of their public keys. Two nodes of one handle would take 2³² keys to
 * make; the one that is known first keeps it.
 *
 * @module
 */

import { toHex } from "../core/bytes.ts";
import { bytes, type CborValue, decodeCbor, encodeCbor, type Reader, record, uint, WireError } from "../core/codec.ts";
import type { KeyPair } from "../core/crypto.ts";
import { type Envelope, openEnvelope, sealEnvelope } from "../core/envelope.ts";
import { LIMITS } from "../core/limits.ts";

/** What a node says of another, or of itself. */
export interface SwimUpdate {
  readonly kind: "alive" | "suspect" | "dead";
  /** Handle of the node that it is about. */
  readonly subject: string;
  /** Incarnation of the subject that it is about, as far as the speaker knows. */
  readonly incarnation: number;
  /** Handle of who says so; missing: the sender itself. What is passed on is no proof of anything. */
  readonly accuser?: string;
}

/** One datagram. */
export type SwimMessage =
  /** `nextMs`: when the sender means to ping again, in steps of 100 ms; 0: no promise. */
  | {
    readonly type: "ping";
    readonly seq: number;
    readonly incarnation: number;
    readonly nextMs: number;
    readonly updates: readonly SwimUpdate[];
  }
  | {
    readonly type: "ack";
    readonly seq: number;
    readonly incarnation: number;
    readonly updates: readonly SwimUpdate[];
  }
  | {
    readonly type: "ping-req";
    readonly seq: number;
    readonly target: string;
    readonly updates: readonly SwimUpdate[];
  }
  | { readonly type: "indirect-ack"; readonly seq: number }
  /** The helper is there, the target has not answered; `tried`: it was pinged. */
  | { readonly type: "nack"; readonly seq: number; readonly tried: boolean }
  | { readonly type: "news"; readonly updates: readonly SwimUpdate[] };

/** Bytes of a handle. */
export const HANDLE_BYTES = 8;
/** Largest number of a ping; then from 0 again. */
export const SEQ_MAX = 0xffff;
/** Largest incarnation. */
export const INCARNATION_MAX = 0xffff_ffff;
/** Longest promise of a next ping, milliseconds. */
export const NEXT_MS_MAX = 25_500;

const NEWS_TYPE = "health/1";
const KINDS = ["alive", "suspect", "dead"] as const;

/** The handle of a node with this public key. */
export function handleOf(publicKey: Uint8Array): string {
  return toHex(publicKey.subarray(0, HANDLE_BYTES));
}

/** The bytes of a message. */
export function encodeSwim(message: SwimMessage): Uint8Array {
  return encodeCbor(valueOf(message));
}

/** What a node tells all members, those without a channel to it too. */
export interface SwimNews {
  /** Wall clock of who says it, milliseconds since the epoch. */
  readonly atMs: number;
  /** On the signer's own authority. */
  readonly updates: readonly SwimUpdate[];
}

/** Signs news. */
export function sealNews(news: SwimNews, networkId: Uint8Array, signer: KeyPair): Envelope {
  return sealEnvelope({ t: news.atMs, u: news.updates.map(updateValue) }, { type: NEWS_TYPE, networkId, signer });
}

/**
 * Reads news and checks its signature.
 *
 * @throws {WireError} When it is malformed or not validly signed in this network.
 */
export function openNews(envelope: Envelope, networkId: Uint8Array): SwimNews {
  const { t, u } = openEnvelope(envelope, { type: NEWS_TYPE, networkId, reader: readNews });
  return { atMs: t, updates: u };
}

/**
 * Reads what {@linkcode encodeSwim} made.
 *
 * @throws {WireError} When it is anything else.
 */
export function decodeSwim(input: Uint8Array): SwimMessage {
  const value = items(decodeCbor(input, LIMITS.datagramBytesMax), "message");
  const type = readType(value[0], "message type");
  if (value.length !== FIELDS[type]) {
    throw new WireError(`Cannot read message: wanted ${FIELDS[type]} items, got ${value.length}`);
  }
  switch (type) {
    case 0:
      return {
        type: "ping",
        seq: readSeq(value[1], "seq"),
        incarnation: readIncarnation(value[2], "incarnation"),
        nextMs: 100 * readNext(value[3], "next"),
        updates: readUpdates(value[4], "updates"),
      };
    case 1:
      return {
        type: "ack",
        seq: readSeq(value[1], "seq"),
        incarnation: readIncarnation(value[2], "incarnation"),
        updates: readUpdates(value[3], "updates"),
      };
    case 2:
      return {
        type: "ping-req",
        seq: readSeq(value[1], "seq"),
        target: readHandle(value[2], "target"),
        updates: readUpdates(value[3], "updates"),
      };
    case 3:
      return { type: "indirect-ack", seq: readSeq(value[1], "seq") };
    case 4:
      return { type: "nack", seq: readSeq(value[1], "seq"), tried: uint(1)(value[2], "tried") === 1 };
    default:
      return { type: "news", updates: readUpdates(value[1], "updates") };
  }
}

/** Items of a message of each type. */
const FIELDS = [5, 4, 4, 2, 3, 2];

const readType = uint(FIELDS.length - 1);
const readSeq = uint(SEQ_MAX);
const readIncarnation = uint(INCARNATION_MAX);
const readNext = uint(NEXT_MS_MAX / 100);
const readHandleBytes = bytes({ length: HANDLE_BYTES });
const readHandle: Reader<string> = (value, path) => toHex(readHandleBytes(value, path));

function valueOf(message: SwimMessage): CborValue {
  switch (message.type) {
    case "ping":
      return [
        0,
        message.seq,
        message.incarnation,
        Math.min(NEXT_MS_MAX / 100, Math.ceil(message.nextMs / 100)),
        message.updates.map(updateValue),
      ];
    case "ack":
      return [1, message.seq, message.incarnation, message.updates.map(updateValue)];
    case "ping-req":
      return [2, message.seq, handleBytes(message.target), message.updates.map(updateValue)];
    case "indirect-ack":
      return [3, message.seq];
    case "nack":
      return [4, message.seq, message.tried ? 1 : 0];
    case "news":
      return [5, message.updates.map(updateValue)];
  }
}

function updateValue(update: SwimUpdate): CborValue {
  const value: CborValue[] = [KINDS.indexOf(update.kind), handleBytes(update.subject), update.incarnation];
  if (update.accuser !== undefined) value.push(handleBytes(update.accuser));
  return value;
}

function readUpdates(value: CborValue | undefined, path: string): readonly SwimUpdate[] {
  const list = items(value, path);
  if (list.length > LIMITS.swimUpdatesPerMessageMax) {
    throw new WireError(`Cannot read ${path}: wanted at most ${LIMITS.swimUpdatesPerMessageMax} items`);
  }
  return list.map((one, i) => {
    const parts = items(one, `${path}[${i}]`);
    if (parts.length !== 3 && parts.length !== 4) throw new WireError(`Cannot read ${path}[${i}]: wanted 3 or 4 items`);
    return {
      kind: KINDS[uint(KINDS.length - 1)(parts[0], `${path}[${i}].kind`)]!,
      subject: readHandle(parts[1], `${path}[${i}].subject`),
      incarnation: readIncarnation(parts[2], `${path}[${i}].incarnation`),
      ...(parts.length === 4 ? { accuser: readHandle(parts[3], `${path}[${i}].accuser`) } : {}),
    };
  });
}

/** The bytes of a handle: said several times a second, where the general way costs more than all the rest. */
function handleBytes(handle: string): Uint8Array {
  const out = new Uint8Array(HANDLE_BYTES);
  for (let i = 0; i < HANDLE_BYTES; i++) {
    out[i] = nibble(handle.charCodeAt(2 * i)) << 4 | nibble(handle.charCodeAt(2 * i + 1));
  }
  return out;
}

/** Of a lower-case hexadecimal digit. */
function nibble(code: number): number {
  return code < 0x3a ? code - 0x30 : code - 0x57;
}

function items(value: CborValue | undefined, path: string): readonly CborValue[] {
  if (!Array.isArray(value)) throw new WireError(`Cannot read ${path}: wanted an array`);
  return value;
}

const readNews = record({ t: uint(), u: readUpdates });
