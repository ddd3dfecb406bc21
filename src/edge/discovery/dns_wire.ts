/** DNS messages, by dns-packet. The one file that imports it. @module */

import { Buffer } from "node:buffer";
import dnsPacket from "dns-packet";

/** A question. */
export interface DnsQuestion {
  readonly name: string;
  readonly type: string;
  /** The asker wants the answer sent straight to it (RFC 6762, 5.4). */
  readonly unicast: boolean;
}

/** A resource record; `data` by type. */
export type DnsRecord =
  | { readonly type: "PTR"; readonly name: string; readonly ttl: number; readonly data: string }
  | {
    readonly type: "SRV";
    readonly name: string;
    readonly ttl: number;
    readonly flush?: boolean;
    readonly data: { readonly port: number; readonly target: string };
  }
  | {
    readonly type: "TXT";
    readonly name: string;
    readonly ttl: number;
    readonly flush?: boolean;
    readonly data: readonly string[];
  }
  | {
    readonly type: "A" | "AAAA";
    readonly name: string;
    readonly ttl: number;
    readonly flush?: boolean;
    readonly data: string;
  };

/** A message. */
export interface DnsMessage {
  readonly id: number;
  readonly response: boolean;
  /** More known answers follow in another message. */
  readonly questions: readonly DnsQuestion[];
  /** Answer and additional section together; records of other types are left out. */
  readonly records: readonly DnsRecord[];
}

/** Encodes a message: records go to the answer section. */
export function encodeDns(message: {
  readonly id?: number;
  readonly response: boolean;
  readonly questions?: readonly { readonly name: string; readonly type: string }[];
  readonly answers?: readonly DnsRecord[];
  readonly additionals?: readonly DnsRecord[];
}): Uint8Array {
  const codec = dnsPacket as unknown as Codec;
  const plain = (one: DnsRecord) => ({ ...one, class: "IN" });
  const encoded = codec.encode({
    id: message.id ?? 0,
    type: message.response ? "response" : "query",
    flags: message.response ? AUTHORITATIVE : 0,
    questions: (message.questions ?? []).map((one) => ({ ...one, class: "IN" })),
    answers: (message.answers ?? []).map(plain),
    additionals: (message.additionals ?? []).map(plain),
  });
  return new Uint8Array(encoded.buffer, encoded.byteOffset, encoded.byteLength);
}

/** Decodes a message; `undefined` where it is none. Never throws. */
export function decodeDns(bytes: Uint8Array): DnsMessage | undefined {
  let decoded: unknown;
  try {
    decoded = (dnsPacket as unknown as Codec).decode(Buffer.from(bytes));
  } catch {
    return undefined;
  }
  const message = decoded as { [key: string]: unknown };
  if (typeof message.id !== "number") return undefined;
  const questions: DnsQuestion[] = [];
  for (const one of listOf(message.questions)) {
    if (typeof one.name !== "string" || typeof one.type !== "string") continue;
    // dns-packet gives the class with its top bit as `UNKNOWN_32769`.
    const unicast = typeof one.class === "string" && one.class === "UNKNOWN_32769";
    questions.push({ name: one.name, type: one.type, unicast });
  }
  const records: DnsRecord[] = [];
  for (const one of [...listOf(message.answers), ...listOf(message.additionals)]) {
    const record = recordOf(one);
    if (record) records.push(record);
  }
  return { id: message.id, response: message.type === "response", questions, records };
}

interface Codec {
  encode(message: unknown): Uint8Array;
  decode(bytes: Uint8Array): unknown;
}

const AUTHORITATIVE = 1 << 10;
const ENTRIES_MAX = 128;

function listOf(value: unknown): { [key: string]: unknown }[] {
  if (!Array.isArray(value)) return [];
  return value.slice(0, ENTRIES_MAX).filter((one) => one !== null && typeof one === "object");
}

function recordOf(one: { [key: string]: unknown }): DnsRecord | undefined {
  const { type, name, ttl, data } = one;
  if (typeof name !== "string" || typeof ttl !== "number") return undefined;
  if (type === "PTR" || type === "A" || type === "AAAA") {
    return typeof data === "string" ? { type, name, ttl, data } : undefined;
  }
  if (type === "SRV") {
    const { port, target } = (data ?? {}) as { port?: unknown; target?: unknown };
    return typeof port === "number" && typeof target === "string"
      ? { type, name, ttl, data: { port, target } }
      : undefined;
  }
  if (type === "TXT") {
    const strings = (Array.isArray(data) ? data : [data]).slice(0, ENTRIES_MAX);
    return {
      type,
      name,
      ttl,
      data: strings.map((part) => typeof part === "string" ? part : LATIN1.decode(part as Uint8Array)),
    };
  }
  return undefined;
}

const LATIN1 = new TextDecoder("latin1");
