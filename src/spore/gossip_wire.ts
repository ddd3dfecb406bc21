/**
 * What gossip says on the wire: messages, and the control that rides with them.
 *
 * A frame is one map of deterministic CBOR. Everything in it is optional, and nothing in it is lost for good
 * when the frame is: each kind is said again, or repaired, by the rules in `gossip.ts`.
 *
 * | key | what | source |
 * | --- | --- | --- |
 * | `m` | messages: `[topic, body]` | gossipsub v1.0 |
 * | `h` | IHAVE: ids that the sender can give | gossipsub v1.0 |
 * | `w` | IWANT: ids that the sender asks for | gossipsub v1.0 |
 * | `n` | IDONTWANT: ids that need not be sent to the sender | gossipsub v1.2 |
 * | `g` | GRAFT: topics | gossipsub v1.0 |
 * | `p` | PRUNE: `[topic, back-off in seconds]` | gossipsub v1.1 |
 * | `c` | CHOKE: topics whose messages are to be announced, not sent | episub |
 * | `u` | UNCHOKE: topics whose messages are to be sent again | episub |
 *
 * @module
 */

import { utf8 } from "../core/bytes.ts";
import {
  array,
  bytes,
  type CborValue,
  decodeAs,
  encodeCbor,
  optional,
  type Reader,
  record,
  text,
  uint,
  WireError,
} from "../core/codec.ts";
import { sha256 } from "../core/crypto.ts";
import { LIMITS } from "../core/limits.ts";

/** Bytes of a message id. */
export const ID_BYTES = 16;
/** Topics in one list of a frame. */
const TOPICS_MAX = 16;
/** Longest name of a topic. */
const TOPIC_CHARS_MAX = 16;
/** Longest back-off that counts, seconds. */
const BACKOFF_S_MAX = 3_600;

/** A message id as text of 16 characters from U+0000 to U+00FF: a key of maps, not for people. */
export type MessageId = string;

/** One message. */
export interface GossipMessage {
  readonly topic: string;
  readonly body: Uint8Array;
}

/** One frame. */
export interface GossipFrame {
  readonly messages: readonly GossipMessage[];
  readonly ihave: readonly MessageId[];
  readonly iwant: readonly MessageId[];
  readonly idontwant: readonly MessageId[];
  readonly graft: readonly string[];
  readonly prune: readonly { readonly topic: string; readonly backoffS: number }[];
  readonly choke: readonly string[];
  readonly unchoke: readonly string[];
}

/** A frame that says nothing. */
export const EMPTY_FRAME: GossipFrame = {
  messages: [],
  ihave: [],
  iwant: [],
  idontwant: [],
  graft: [],
  prune: [],
  choke: [],
  unchoke: [],
};

/**
 * The id of a message: its content. Whoever publishes the same bytes publishes the same message, so that it
 * spreads once, and nobody can give two bodies one id.
 */
export function messageId(message: GossipMessage): MessageId {
  return idOf(sha256(prefixOf(message.topic), message.body).subarray(0, ID_BYTES));
}

/** What is hashed before a body: no other topic's begins in the same way, since none holds a zero. */
function prefixOf(topic: string): Uint8Array {
  let prefix = PREFIXES.get(topic);
  if (!prefix) {
    prefix = utf8(`mycelium/gossip/v1\0${topic}\0`);
    if (PREFIXES.size < TOPICS_MAX) PREFIXES.set(topic, prefix);
  }
  return prefix;
}

/** Made once for each topic that is used. */
const PREFIXES = new Map<string, Uint8Array>();

/** An id as bytes. */
export function idBytes(id: MessageId): Uint8Array {
  const out = new Uint8Array(ID_BYTES);
  for (let i = 0; i < ID_BYTES; i++) out[i] = id.charCodeAt(i);
  return out;
}

/** Encodes a frame. */
export function encodeFrame(frame: Partial<GossipFrame>): Uint8Array {
  return encodeCbor({
    m: some(frame.messages)?.map(({ topic, body }) => [topic, body]),
    h: joined(frame.ihave),
    w: joined(frame.iwant),
    n: joined(frame.idontwant),
    g: some(frame.graft),
    p: some(frame.prune)?.map(({ topic, backoffS }): CborValue => [topic, backoffS]),
    c: some(frame.choke),
    u: some(frame.unchoke),
  });
}

/** Reads a frame. @throws {WireError} Where it is none. */
export function decodeFrame(input: Uint8Array): GossipFrame {
  const single = singleMessage(input);
  if (single) return { ...EMPTY_FRAME, messages: [single] };
  const read = decodeAs(input, readFrame);
  return {
    messages: read.m ?? [],
    ihave: read.h ?? [],
    iwant: read.w ?? [],
    idontwant: read.n ?? [],
    graft: read.g ?? [],
    prune: read.p ?? [],
    choke: read.c ?? [],
    unchoke: read.u ?? [],
  };
}

/**
 * The message of a frame that holds one and nothing else, as most do: what {@linkcode encodeFrame} writes, byte by
 * byte. Anything else is `undefined`, and read with all care.
 */
function singleMessage(input: Uint8Array): GossipMessage | undefined {
  for (let i = 0; i < SINGLE.length; i++) if (input[i] !== SINGLE[i]) return undefined;
  const topicLength = input[SINGLE.length]! - 0x60;
  if (!(topicLength > 0 && topicLength <= TOPIC_CHARS_MAX)) return undefined;
  let at = SINGLE.length + 1;
  let topic = "";
  for (const end = at + topicLength; at < end; at++) topic += String.fromCharCode(input[at] ?? 0);
  if (!TOPIC.test(topic)) return undefined;
  const head = input[at++]!;
  let length = head - 0x40;
  if (head === 0x58) {
    length = input[at++]!;
    if (!(length >= 24)) return undefined;
  } else if (head === 0x59) {
    length = input[at]! * 256 + input[at + 1]!;
    at += 2;
    if (!(length >= 256)) return undefined;
  } else if (!(length >= 0 && length < 24)) return undefined;
  if (at + length !== input.length || length > LIMITS.gossipBodyBytesMax) return undefined;
  return { topic, body: new Uint8Array(input.subarray(at)) };
}

/** A map of one entry, `m`, a list of one message, a list of two. */
const SINGLE = [0xa1, 0x61, 0x6d, 0x81, 0x82] as const;
const TOPIC = /^[a-z][a-z0-9-]*$/;

const readTopic = text(TOPIC_CHARS_MAX, TOPIC);
const readBody = bytes({ max: LIMITS.gossipBodyBytesMax });
const readBackoff = uint(BACKOFF_S_MAX);
const readTopics = array(readTopic, TOPICS_MAX);

const readMessage: Reader<GossipMessage> = (value, path) => {
  const [topic, body] = pair(value, path);
  return { topic: readTopic(topic, `${path}[0]`), body: readBody(body, `${path}[1]`) };
};

const readPrune: Reader<GossipFrame["prune"][number]> = (value, path) => {
  const [topic, backoffS] = pair(value, path);
  return { topic: readTopic(topic, `${path}[0]`), backoffS: readBackoff(backoffS, `${path}[1]`) };
};

const readIds: Reader<readonly MessageId[]> = (value, path) => {
  const joint = bytes({ max: ID_BYTES * LIMITS.gossipIdsPerFrameMax })(value, path);
  if (joint.length % ID_BYTES !== 0) throw new WireError(`Cannot read ${path}: wanted ids of ${ID_BYTES} bytes`);
  const out: MessageId[] = [];
  for (let at = 0; at < joint.length; at += ID_BYTES) out.push(idOf(joint.subarray(at, at + ID_BYTES)));
  return out;
};

const readFrame = record({
  m: optional(array(readMessage, LIMITS.gossipMessagesPerFrameMax)),
  h: optional(readIds),
  w: optional(readIds),
  n: optional(readIds),
  g: optional(readTopics),
  p: optional(array(readPrune, TOPICS_MAX)),
  c: optional(readTopics),
  u: optional(readTopics),
});

function pair(value: CborValue | undefined, path: string): readonly CborValue[] {
  if (!Array.isArray(value) || value.length !== 2) throw new WireError(`Cannot read ${path}: wanted two items`);
  return value;
}

function some<T>(list: readonly T[] | undefined): readonly T[] | undefined {
  return list && list.length > 0 ? list : undefined;
}

function joined(ids: readonly MessageId[] | undefined): Uint8Array | undefined {
  if (!ids || ids.length === 0) return undefined;
  const out = new Uint8Array(ID_BYTES * ids.length);
  ids.forEach((id, i) => {
    for (let j = 0; j < ID_BYTES; j++) out[i * ID_BYTES + j] = id.charCodeAt(j);
  });
  return out;
}

function idOf(raw: Uint8Array): MessageId {
  return String.fromCharCode(...raw);
}
