/**
 * The state that the primaries agree on: spore records by key, and the sessions of those who write.
 *
 * Pure and deterministic: the same log gives the same state, and the same bytes of a snapshot, on every node. Time
 * comes from the log: the leader dates each command, and the state's clock is the latest date so far. Signatures
 * are verified here as well, so that a leader cannot put words into anybody's mouth.
 *
 * A write counts once however often it is sent: a client opens a session (an entry of its own) and numbers its
 * writes; the answers of those that it may still ask for are kept with the session. Source: Ongaro's thesis, 6.3.
 *
 * @module
 */

import { assert } from "../core/assert.ts";
import { compareBytes, concatBytes, equalBytes, toHex } from "../core/bytes.ts";
import {
  array,
  bytes,
  type CborValue,
  decodeAs,
  encodeCbor,
  oneOf,
  optional,
  type Read,
  record,
  uint,
  WireError,
} from "../core/codec.ts";
import { hashParts } from "../core/crypto.ts";
import { type Envelope, envelopeValue, readEnvelope } from "../core/envelope.ts";
import { readNodeId } from "../core/ids.ts";
import { LIMITS } from "../core/limits.ts";
import { mayWrite, ownerOf } from "./keys.ts";
import { openSpore, type Spore } from "./record.ts";

/** What the log carries. `timeMs` is the leader's clock when it proposed, milliseconds since the epoch. */
export type Command =
  /** Opens a session for a node; its number is the index of the entry. */
  | { readonly op: "open"; readonly timeMs: number; readonly client: string }
  | {
    readonly op: "write";
    readonly timeMs: number;
    readonly client: string;
    readonly session: number;
    /** From 1, each once. */
    readonly seq: number;
    /** The client has the answers of all its writes below this number. */
    readonly floor: number;
    /** A record, or a tombstone. */
    readonly envelope: Envelope;
    /** Index of the version to be replaced, 0 for none; missing: whatever stands there. */
    readonly expect?: number;
  }
  /** The authority has changed: who may write where only issuers may. */
  | { readonly op: "issuers"; readonly timeMs: number; readonly epoch: number; readonly issuers: readonly string[] }
  /** An operator went on without a lost majority: what it had committed may be missing. */
  | {
    readonly op: "recovered";
    readonly timeMs: number;
    readonly by: string;
    readonly without: readonly string[];
    /** The operator's word for it: shown to those that were given up, should they come back. */
    readonly statement: Envelope;
  };

/** How a command ended. */
export type ResultCode =
  | "ok"
  /** This very record stands there already. */
  | "unchanged"
  /** Another version stands there than was expected: `index` names it, 0 for none. */
  | "conflict"
  /** An owned key moves only to a higher number of its owner. */
  | "stale-seq"
  /** The author may not write there. */
  | "not-permitted"
  /** Bounds are reached; what is there can be replaced by what is smaller, and deleted. */
  | "full"
  /** The record's life is over. */
  | "expired"
  /** The record is dated too far ahead. */
  | "from-future"
  /** Signature or form is wrong. */
  | "malformed"
  /** No such session, or of another client: open one. Whether an earlier try was carried out is not known. */
  | "session-unknown"
  /** The client said that it has this answer already. */
  | "answered"
  /** More writes of one session are under way than answers are kept. */
  | "window";

/** What a command led to. */
export interface CommandResult {
  readonly code: ResultCode;
  /** Index of the version that stands under the key now; for `open` the number of the session. */
  readonly index: number;
}

/** One version of a key, as agreed. */
export interface Version {
  readonly spore: Spore;
  /** Place of the entry in the log. */
  readonly index: number;
  readonly term: number;
}

/** What {@linkcode StateMachine.apply} gives. */
export interface Applied {
  readonly result: CommandResult;
  /** What stands under a key now, where that has changed. */
  readonly changed?: Version;
}

/** A recovery from a lost majority, as the log remembers it. */
export interface Recovery {
  readonly index: number;
  readonly timeMs: number;
  readonly by: string;
  readonly without: readonly string[];
  readonly statement: Envelope;
}

/** A session that nobody used for so long, by the clock of the log, is forgotten: an hour. */
export const SESSION_MS = 3_600_000;
/** Records dated further ahead of the log's clock are refused: five minutes. */
export const FUTURE_MS: number = 5 * 60_000;
/** What a key counts for besides its record, bytes. */
const OVERHEAD_BYTES = 200;

const CODES: readonly ResultCode[] = [
  "ok",
  "unchanged",
  "conflict",
  "stale-seq",
  "not-permitted",
  "full",
  "expired",
  "from-future",
  "malformed",
  "session-unknown",
  "answered",
  "window",
];

/** Reads the code of a result. */
export const readResultCode = oneOf(CODES);

const readCommand = record({
  o: oneOf(["open", "write", "issuers", "recovered"]),
  t: uint(),
  c: optional(readNodeId),
  s: optional(uint()),
  n: optional(uint(Number.MAX_SAFE_INTEGER, 1)),
  f: optional(uint()),
  e: optional(readEnvelope),
  x: optional(uint()),
  p: optional(uint()),
  i: optional(array(readNodeId, LIMITS.primaryNodesMax)),
});

/** A command as bytes for the log. */
export function encodeCommand(command: Command): Uint8Array {
  switch (command.op) {
    case "open":
      return encodeCbor({ o: command.op, t: command.timeMs, c: command.client });
    case "write":
      return encodeCbor({
        o: command.op,
        t: command.timeMs,
        c: command.client,
        s: command.session,
        n: command.seq,
        f: command.floor,
        e: envelopeValue(command.envelope),
        x: command.expect,
      });
    case "issuers":
      return encodeCbor({ o: command.op, t: command.timeMs, p: command.epoch, i: command.issuers });
    case "recovered":
      return encodeCbor({
        o: command.op,
        t: command.timeMs,
        c: command.by,
        i: command.without,
        e: envelopeValue(command.statement),
      });
  }
}

/** Reads a command. @throws {WireError} When the bytes are none. */
export function decodeCommand(data: Uint8Array): Command {
  const { o, t, c, s, n, f, e, x, p, i } = decodeAs(data, readCommand);
  const missing = (what: string) => new WireError(`Cannot read command "${o}": ${what} is missing`);
  switch (o) {
    case "open":
      if (c === undefined) throw missing("the client");
      return { op: o, timeMs: t, client: c };
    case "write":
      if (c === undefined || s === undefined || n === undefined || f === undefined || e === undefined) {
        throw missing("client, session, number or record");
      }
      return {
        op: o,
        timeMs: t,
        client: c,
        session: s,
        seq: n,
        floor: f,
        envelope: e,
        ...(x === undefined ? {} : { expect: x }),
      };
    case "issuers":
      if (p === undefined || i === undefined) throw missing("epoch or issuers");
      return { op: o, timeMs: t, epoch: p, issuers: i };
    case "recovered":
      if (c === undefined || i === undefined || e === undefined) throw missing("who, without whom, or its statement");
      return { op: o, timeMs: t, by: c, without: i, statement: e };
  }
}

interface Session {
  readonly client: string;
  lastMs: number;
  floor: number;
  readonly results: Map<number, CommandResult>;
}

/** The replicated state. */
export class StateMachine {
  readonly #networkId: Uint8Array;
  #versions = new Map<string, Version>();
  /** By number; the one that was not used for longest first. */
  #sessions = new Map<number, Session>();
  #recoveries: Recovery[] = [];
  #epoch = 0;
  #issuers: readonly string[] = [];
  #timeMs = 0;
  #bytes = 0;
  #index = 0;
  #term = 0;
  #hash: Uint8Array = new Uint8Array(32);
  /** No tombstone runs out before. */
  #pruneMs = Infinity;
  /** Records whose signature this node has verified before they were in the log, by signature. */
  readonly #verified = new Map<string, Spore>();

  constructor(networkId: Uint8Array) {
    this.#networkId = networkId;
  }

  /** Last index that it holds. */
  get index(): number {
    return this.#index;
  }

  /** Hash over all entries so far: equal on all nodes at one index. */
  get hash(): Uint8Array {
    return this.#hash;
  }

  /** Clock of the log, milliseconds since the epoch. */
  get timeMs(): number {
    return this.#timeMs;
  }

  /** Number of the newest authority epoch in the log, 0 for none, and its issuers. */
  get authority(): { readonly epoch: number; readonly issuers: readonly string[] } {
    return { epoch: this.#epoch, issuers: this.#issuers };
  }

  /** Keys, tombstones included; what they count for in bytes; open sessions. */
  get size(): { readonly keys: number; readonly bytes: number; readonly sessions: number } {
    return { keys: this.#versions.size, bytes: this.#bytes, sessions: this.#sessions.size };
  }

  /** Recoveries from a lost majority, oldest first; the last {@linkcode LIMITS.primaryRecoveriesMax}. */
  get recoveries(): readonly Recovery[] {
    return this.#recoveries;
  }

  /** What stands under a key, a tombstone included. */
  get(key: string): Version | undefined {
    return this.#versions.get(key);
  }

  /** All versions, in no order that means anything. */
  versions(): Iterable<Version> {
    return this.#versions.values();
  }

  /**
   * Versions whose key begins with `prefix`, by key; tombstones left out.
   *
   * @param after Only keys behind this one.
   * @param countMax At most so many.
   */
  list(prefix: string, after: string, countMax: number): Version[] {
    const keys: string[] = [];
    for (const [key, { spore }] of this.#versions) {
      if (key > after && key.startsWith(prefix) && spore.record.value !== undefined) keys.push(key);
    }
    return keys.sort().slice(0, countMax).map((key) => this.#versions.get(key)!);
  }

  /**
   * Verifies a record before it is proposed, so that it need not be verified again when it is applied.
   *
   * @throws {WireError} Where it is not valid.
   */
  verify(envelope: Envelope): Spore {
    const name = toHex(envelope.signature);
    const known = this.#verified.get(name);
    if (known && sameEnvelope(known.envelope, envelope)) return known;
    const spore = openSpore(envelope, this.#networkId);
    if (this.#verified.size >= LIMITS.primaryVerifiedMax) {
      this.#verified.delete(this.#verified.keys().next().value!);
    }
    this.#verified.set(name, spore);
    return spore;
  }

  /** Carries out one entry of the log; entries without a command (a leader's first, a configuration) only count. */
  apply(entry: { readonly index: number; readonly term: number; readonly data?: Uint8Array }): Applied {
    assert(entry.index > this.#index, `entry ${entry.index} follows ${this.#index}`);
    assert(entry.term >= this.#term, `term ${entry.term} follows ${this.#term}`);
    this.#index = entry.index;
    this.#term = entry.term;
    const data = entry.data ?? new Uint8Array(0);
    this.#hash = hashParts("mycelium/primary-state/v1", this.#hash, place(entry.index), place(entry.term), data);
    if (!entry.data) return { result: { code: "ok", index: entry.index } };
    let command: Command;
    try {
      command = decodeCommand(entry.data);
    } catch (error) {
      // Whoever leads may put anything into the log; all nodes find the same of it.
      if (!(error instanceof WireError)) throw error;
      return { result: { code: "malformed", index: 0 } };
    }
    this.#timeMs = Math.max(this.#timeMs, command.timeMs);
    this.#expire();
    switch (command.op) {
      case "open":
        return { result: this.#open(entry.index, command.client) };
      case "write":
        return this.#write(entry, command);
      case "issuers":
        if (command.epoch > this.#epoch) {
          this.#epoch = command.epoch;
          this.#issuers = [...new Set(command.issuers)].sort();
        }
        return { result: { code: "ok", index: entry.index } };
      case "recovered":
        this.#recoveries.push({
          index: entry.index,
          timeMs: this.#timeMs,
          by: command.by,
          without: [...command.without].sort(),
          statement: command.statement,
        });
        this.#recoveries = this.#recoveries.slice(-LIMITS.primaryRecoveriesMax);
        return { result: { code: "ok", index: entry.index } };
    }
  }

  /**
   * The whole state as bytes: parts of deterministic CBOR, each behind its length in four bytes. Equal states give
   * equal bytes.
   */
  snapshot(): Uint8Array {
    const parts: Uint8Array[] = [];
    const add = (value: CborValue) => {
      const part = encodeCbor(value);
      parts.push(place(part.length).subarray(4), part);
    };
    add({
      v: 1,
      i: this.#index,
      m: this.#term,
      t: this.#timeMs,
      h: this.#hash,
      e: this.#epoch,
      a: this.#issuers,
      r: this.#recoveries.map((one) => ({
        i: one.index,
        t: one.timeMs,
        b: one.by,
        w: one.without,
        e: envelopeValue(one.statement),
      })),
      k: this.#versions.size,
      s: this.#sessions.size,
    });
    for (const key of [...this.#versions.keys()].sort()) {
      const { spore, index, term } = this.#versions.get(key)!;
      add({ e: envelopeValue(spore.envelope), i: index, m: term });
    }
    for (const [id, one] of this.#sessions) {
      const results = [...one.results].sort(([a], [b]) => a - b).map(([seq, result]) => [
        seq,
        CODES.indexOf(result.code),
        result.index,
      ]);
      add({ n: id, c: one.client, t: one.lastMs, f: one.floor, r: results });
    }
    return concatBytes(...parts);
  }

  /**
   * Replaces the state by one that {@linkcode snapshot} wrote. All signatures are verified.
   *
   * @param at Entry that the state must be of, where it comes with a log: a leader that lies about it would have the
   * entries behind it not follow.
   * @throws {WireError} Where the bytes are none; nothing is changed then.
   */
  restore(input: Uint8Array, at?: { readonly index: number; readonly term: number }): void {
    const parts = new Parts(input);
    const head = parts.next(readHead);
    if (at && (head.i !== at.index || head.m !== at.term)) {
      throw new WireError(
        `Cannot restore: the state is of entry ${head.i} in term ${head.m}, wanted ${at.index} in ${at.term}`,
      );
    }
    const versions = new Map<string, Version>();
    let size = 0;
    let pruneMs = Infinity;
    for (let i = 0, before = ""; i < head.k; i++) {
      const { e, i: index, m: term } = parts.next(readVersion);
      const spore = openSpore(e, this.#networkId);
      const { key, value, expiresMs } = spore.record;
      if (key <= before || index > head.i || term > head.m) {
        throw new WireError(`Cannot restore: "${key}" is misplaced`);
      }
      before = key;
      versions.set(key, { spore, index, term });
      size += bytesOf(spore);
      if (value === undefined) pruneMs = Math.min(pruneMs, expiresMs);
    }
    const sessions = new Map<number, Session>();
    for (let i = 0; i < head.s; i++) {
      const { n, c, t, f, r } = parts.next(readSession);
      if (sessions.has(n)) throw new WireError(`Cannot restore: session ${n} is there twice`);
      const results = new Map(r.map(([seq, code, index]) => [seq, { code: CODES[code]!, index }] as const));
      if (results.size !== r.length) throw new WireError(`Cannot restore: an answer of session ${n} is there twice`);
      sessions.set(n, { client: c, lastMs: t, floor: f, results });
    }
    parts.end();
    this.#versions = versions;
    this.#sessions = sessions;
    this.#recoveries = head.r.map((one) => ({
      index: one.i,
      timeMs: one.t,
      by: one.b,
      without: one.w,
      statement: one.e,
    }));
    this.#epoch = head.e;
    this.#issuers = head.a;
    this.#timeMs = head.t;
    this.#hash = head.h;
    this.#index = head.i;
    this.#term = head.m;
    this.#bytes = size;
    this.#pruneMs = pruneMs;
  }

  #open(index: number, client: string): CommandResult {
    if (this.#sessions.size >= LIMITS.primarySessionsMax) {
      // The one that was not used for longest goes: its client finds out, and opens another.
      this.#sessions.delete(this.#sessions.keys().next().value!);
    }
    this.#sessions.set(index, { client, lastMs: this.#timeMs, floor: 1, results: new Map() });
    return { code: "ok", index };
  }

  #write(
    entry: { readonly index: number; readonly term: number },
    command: Command & { readonly op: "write" },
  ): Applied {
    const session = this.#sessions.get(command.session);
    if (!session || session.client !== command.client) return { result: { code: "session-unknown", index: 0 } };
    this.#sessions.delete(command.session);
    this.#sessions.set(command.session, session);
    session.lastMs = this.#timeMs;
    if (command.floor > session.floor) {
      session.floor = command.floor;
      for (const seq of session.results.keys()) if (seq < command.floor) session.results.delete(seq);
    }
    if (command.seq < session.floor) return { result: { code: "answered", index: 0 } };
    const known = session.results.get(command.seq);
    if (known) return { result: known };
    if (session.results.size >= LIMITS.primaryWindowMax) return { result: { code: "window", index: 0 } };
    const done = this.#put(entry, command);
    session.results.set(command.seq, done.result);
    return done;
  }

  #put(entry: { readonly index: number; readonly term: number }, command: Command & { readonly op: "write" }): Applied {
    const refused = (code: ResultCode, index = 0): Applied => ({ result: { code, index } });
    let spore: Spore;
    try {
      spore = this.verify(command.envelope);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      return refused("malformed");
    }
    const { key, value, issuedMs, expiresMs } = spore.record;
    const deletes = value === undefined;
    if (!mayWrite(key, { nodeId: spore.author, issuer: this.#issuers.includes(spore.author) }, deletes)) {
      return refused("not-permitted");
    }
    if (expiresMs <= this.#timeMs) return refused("expired");
    if (issuedMs > this.#timeMs + FUTURE_MS) return refused("from-future");
    const known = this.#versions.get(key);
    if (known && equalBytes(known.spore.hash, spore.hash)) return refused("unchanged", known.index);
    const live = known?.spore.record.value === undefined ? 0 : known.index;
    if (command.expect !== undefined && command.expect !== live && command.expect !== known?.index) {
      return refused("conflict", live);
    }
    if (ownerOf(key)!.kind === "node" && known && !supersedes(spore, known.spore)) {
      return refused("stale-seq", known.index);
    }
    const size = this.#bytes + bytesOf(spore) - (known ? bytesOf(known.spore) : 0);
    // A tombstone of what is there always finds room: it is smaller than what it replaces, or nearly.
    const grows = known ? !deletes && size > this.#bytes : true;
    if (grows && (size > LIMITS.primaryBytesMax || !known && this.#versions.size >= LIMITS.primaryKeysMax)) {
      return refused("full", known?.index ?? 0);
    }
    const version = { spore, index: entry.index, term: entry.term };
    this.#versions.set(key, version);
    this.#bytes = size;
    if (deletes) this.#pruneMs = Math.min(this.#pruneMs, expiresMs);
    return { result: { code: "ok", index: entry.index }, changed: version };
  }

  /** Forgets sessions and tombstones whose time is over by the clock of the log. */
  #expire(): void {
    for (const [id, one] of this.#sessions) {
      if (one.lastMs + SESSION_MS > this.#timeMs) break;
      this.#sessions.delete(id);
    }
    if (this.#timeMs < this.#pruneMs) return;
    this.#pruneMs = Infinity;
    for (const [key, { spore }] of this.#versions) {
      if (spore.record.value !== undefined) continue;
      if (spore.record.expiresMs <= this.#timeMs) {
        this.#versions.delete(key);
        this.#bytes -= bytesOf(spore);
      } else this.#pruneMs = Math.min(this.#pruneMs, spore.record.expiresMs);
    }
  }
}

/** Of two words on an owned key: the higher number, and of one number the greater hash. */
function supersedes(one: Spore, known: Spore): boolean {
  return one.record.seq > known.record.seq ||
    one.record.seq === known.record.seq && compareBytes(one.hash, known.hash) > 0;
}

function sameEnvelope(a: Envelope, b: Envelope): boolean {
  return a.type === b.type && equalBytes(a.payload, b.payload) && equalBytes(a.signer, b.signer) &&
    equalBytes(a.signature, b.signature);
}

function bytesOf(spore: Spore): number {
  return OVERHEAD_BYTES + spore.record.key.length + spore.envelope.payload.length;
}

/** A number as eight bytes. */
function place(value: number): Uint8Array {
  const out = new Uint8Array(8);
  new DataView(out.buffer).setBigUint64(0, BigInt(value));
  return out;
}

const readHead = record({
  v: uint(1, 1),
  i: uint(),
  m: uint(),
  t: uint(),
  h: bytes({ length: 32 }),
  e: uint(),
  a: array(readNodeId, LIMITS.primaryNodesMax),
  r: array(
    record({ i: uint(), t: uint(), b: readNodeId, w: array(readNodeId, LIMITS.primaryNodesMax), e: readEnvelope }),
    LIMITS.primaryRecoveriesMax,
  ),
  k: uint(LIMITS.primaryKeysMax),
  s: uint(LIMITS.primarySessionsMax),
});
const readVersion = record({ e: readEnvelope, i: uint(), m: uint() });
const readAnswer = (value: CborValue | undefined, path: string): readonly [number, number, number] => {
  if (!Array.isArray(value) || value.length !== 3) throw new WireError(`Cannot read ${path}: wanted three numbers`);
  const [seq, code, index] = value as readonly CborValue[];
  return [uint()(seq, path), uint(CODES.length - 1)(code, path), uint()(index, path)];
};
const readSession = record({
  n: uint(),
  c: readNodeId,
  t: uint(),
  f: uint(),
  r: array(readAnswer, LIMITS.primaryWindowMax),
});

/** Reads parts that stand each behind its length. */
class Parts {
  readonly #input: Uint8Array;
  #at = 0;

  constructor(input: Uint8Array) {
    this.#input = input;
  }

  next<R extends Parameters<typeof decodeAs>[1]>(reader: R): Read<R> {
    const { byteOffset, byteLength } = this.#input;
    if (byteLength - this.#at < 4) throw new WireError("Cannot restore: cut off");
    const length = new DataView(this.#input.buffer, byteOffset).getUint32(this.#at);
    const start = this.#at + 4;
    if (length > byteLength - start) throw new WireError("Cannot restore: cut off");
    this.#at = start + length;
    return decodeAs(this.#input.subarray(start, this.#at), reader) as Read<R>;
  }

  end(): void {
    if (this.#at !== this.#input.length) throw new WireError("Cannot restore: bytes behind the state");
  }
}
