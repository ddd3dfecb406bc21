/**
 * The state that the primaries agree on: spore records by key, and the sessions of those who write.
 *
 * Pure and deterministic: the same log gives the same state, and the same bytes of a snapshot, on every node. Time
 * comes from the log: the leader dates each command, and the state's clock is the latest date so far. Signatures
 * are verified here as well, so that a leader cannot put words into anybody's mouth.
 *
 * Records under `agreed/…` come from decisions alone: a certificate of the electorate that the state itself holds, verified by
 * every replica (`law.ts`, ADR 19). Whoever leads can leave a decision out, and cannot make one.
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
import { AgreedState } from "./agreed_state.ts";
import { mayWrite, ownerOf } from "./keys.ts";
import { ELECTORATE_RECORD, type Judged, type Judgement, type Law, POLICY_RECORD } from "./law.ts";
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
  /** Something was decided: certificate and operations, in the encoding of the law. Who brings it does not matter. */
  | { readonly op: "decided"; readonly timeMs: number; readonly decision: Uint8Array }
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
  | "window"
  /** The electorate decided against it. */
  | "rejected"
  /** Decided by another electorate than the one that the state holds. */
  | "foreign-table"
  /** The certificate does not hold. */
  | "not-certified"
  /** The key asks for more agreement than there is. */
  | "class-too-low";

/** What a command led to. */
export interface CommandResult {
  readonly code: ResultCode;
  /** Index of the version that stands under the key now; for `open` the number of the session; for `decided` its entry. */
  readonly index: number;
  /** Of a decision: how each operation ended. */
  readonly outcomes?: readonly ResultCode[];
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
  /** What stands under keys now, where that has changed. */
  readonly changed: readonly Version[];
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
  "rejected",
  "foreign-table",
  "not-certified",
  "class-too-low",
];

/** Reads the code of a result. */
export const readResultCode = oneOf(CODES);

const readCommand = record({
  o: oneOf(["open", "write", "issuers", "decided", "recovered"]),
  t: uint(),
  c: optional(readNodeId),
  s: optional(uint()),
  n: optional(uint(Number.MAX_SAFE_INTEGER, 1)),
  f: optional(uint()),
  e: optional(readEnvelope),
  x: optional(uint()),
  p: optional(uint()),
  i: optional(array(readNodeId, LIMITS.primaryNodesMax)),
  d: optional(bytes({ max: LIMITS.raftEntryBytesMax })),
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
    case "decided":
      return encodeCbor({ o: command.op, t: command.timeMs, d: command.decision });
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
  const { o, t, c, s, n, f, e, x, p, i, d } = decodeAs(data, readCommand);
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
    case "decided":
      if (d === undefined) throw missing("what was decided");
      return { op: o, timeMs: t, decision: d };
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
  #agreed: AgreedState;

  /** @param law Rules of agreement; without them nothing is ever decided. */
  constructor(networkId: Uint8Array, law?: Law) {
    this.#networkId = networkId;
    this.#agreed = new AgreedState(law);
  }

  /** Who votes, and what shows each agreed record. */
  get agreed(): Pick<AgreedState, "electorate" | "links" | "keys" | "warrantOf"> {
    return this.#agreed;
  }

  /**
   * What would become of a decision as a whole: what a leader asks before it proposes it. `undefined`: it would be carried
   * out; `unchanged`: it was.
   */
  examine(decision: Uint8Array): CommandResult | undefined {
    const found = this.#examine(decision);
    return "result" in found ? found.result : undefined;
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
    if (!entry.data) return { result: { code: "ok", index: entry.index }, changed: [] };
    let command: Command;
    try {
      command = decodeCommand(entry.data);
    } catch (error) {
      // Whoever leads may put anything into the log; all nodes find the same of it.
      if (!(error instanceof WireError)) throw error;
      return { result: { code: "malformed", index: 0 }, changed: [] };
    }
    this.#timeMs = Math.max(this.#timeMs, command.timeMs);
    this.#expire();
    switch (command.op) {
      case "open":
        return { result: this.#open(entry.index, command.client), changed: [] };
      case "write":
        return this.#write(entry, command);
      case "decided":
        return this.#decided(entry, command.decision);
      case "issuers":
        if (command.epoch > this.#epoch) {
          this.#epoch = command.epoch;
          this.#issuers = [...new Set(command.issuers)].sort();
        }
        return { result: { code: "ok", index: entry.index }, changed: [] };
      case "recovered":
        this.#recoveries.push({
          index: entry.index,
          timeMs: this.#timeMs,
          by: command.by,
          without: [...command.without].sort(),
          statement: command.statement,
        });
        this.#recoveries = this.#recoveries.slice(-LIMITS.primaryRecoveriesMax);
        return { result: { code: "ok", index: entry.index }, changed: [] };
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
      v: 2,
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
      g: this.#agreed.counts,
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
    for (const part of this.#agreed.parts()) add(part);
    return concatBytes(...parts);
  }

  /**
   * Replaces the state by one that {@linkcode snapshot} wrote. All signatures are verified, and all that was decided.
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
    const agreed = AgreedState.read(head.g ?? [0, 0, 0, 0], () => parts.next((value) => value!), {
      law: this.#agreed.law,
      hashOf: (key) => versions.get(key)?.spore.hash,
    });
    for (const key of versions.keys()) {
      if (ownerOf(key)!.kind === "agreed" && !agreed.warrantOf(key)) {
        throw new WireError(`Cannot restore: nobody decided what stands under "${key}"`);
      }
    }
    parts.end();
    this.#agreed = agreed;
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
    if (!session || session.client !== command.client) return refused("session-unknown");
    this.#sessions.delete(command.session);
    this.#sessions.set(command.session, session);
    session.lastMs = this.#timeMs;
    if (command.floor > session.floor) {
      session.floor = command.floor;
      for (const seq of session.results.keys()) if (seq < command.floor) session.results.delete(seq);
    }
    if (command.seq < session.floor) return refused("answered");
    const known = session.results.get(command.seq);
    if (known) return { result: known, changed: [] };
    if (session.results.size >= LIMITS.primaryWindowMax) return refused("window");
    const done = this.#put(entry, command);
    session.results.set(command.seq, done.result);
    return done;
  }

  #put(entry: { readonly index: number; readonly term: number }, command: Command & { readonly op: "write" }): Applied {
    let spore: Spore;
    try {
      spore = this.verify(command.envelope);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      return refused("malformed");
    }
    const { key } = spore.record;
    if (!this.#mayWrite(spore)) return refused("not-permitted");
    if (this.#agreed.law?.needsDecision(key, this.#policy)) return refused("class-too-low");
    const dated = this.#datedFault(spore);
    if (dated) return refused(dated);
    const known = this.#versions.get(key);
    if (known && equalBytes(known.spore.hash, spore.hash)) return refused("unchanged", known.index);
    const live = known?.spore.record.value === undefined ? 0 : known.index;
    if (command.expect !== undefined && command.expect !== live && command.expect !== known?.index) {
      return refused("conflict", live);
    }
    if (ownerOf(key)!.kind === "node" && known && !supersedes(spore, known.spore)) {
      return refused("stale-seq", known.index);
    }
    if (!this.#hasRoom(spore)) return refused("full", known?.index ?? 0);
    return { result: { code: "ok", index: entry.index }, changed: [this.#store(entry, spore)] };
  }

  #mayWrite({ author, record: { key, value } }: Spore): boolean {
    return mayWrite(key, { nodeId: author, issuer: this.#issuers.includes(author) }, value === undefined);
  }

  #datedFault({ record: { issuedMs, expiresMs } }: Spore): ResultCode | undefined {
    if (expiresMs <= this.#timeMs) return "expired";
    return issuedMs > this.#timeMs + FUTURE_MS ? "from-future" : undefined;
  }

  #hasRoom(spore: Spore): boolean {
    const { key, value } = spore.record;
    const known = this.#versions.get(key);
    const size = this.#bytes + bytesOf(spore) - (known ? bytesOf(known.spore) : 0);
    // A tombstone of what is there always finds room: it is smaller than what it replaces, or nearly.
    if (known && (value === undefined || size <= this.#bytes)) return true;
    // What the network agrees on is not kept out by what its members wrote.
    const agreed = ownerOf(key)!.kind === "agreed";
    const keysMax = LIMITS.primaryKeysMax + (agreed ? LIMITS.agreedKeysMax : 0);
    const bytesMax = LIMITS.primaryBytesMax + (agreed ? LIMITS.agreedWarrantBytesMax : 0);
    return size <= bytesMax && (known !== undefined || this.#versions.size < keysMax);
  }

  #store(entry: { readonly index: number; readonly term: number }, spore: Spore): Version {
    const { key, value, expiresMs } = spore.record;
    const known = this.#versions.get(key);
    const version = { spore, index: entry.index, term: entry.term };
    this.#versions.set(key, version);
    this.#bytes += bytesOf(spore) - (known ? bytesOf(known.spore) : 0);
    if (value === undefined) this.#pruneMs = Math.min(this.#pruneMs, expiresMs);
    return version;
  }

  get #policy(): Uint8Array | undefined {
    return this.#versions.get(POLICY_RECORD)?.spore.record.value;
  }

  // --- Decisions.

  #examine(decision: Uint8Array):
    | { readonly result: CommandResult }
    | { readonly name: NonNullable<ReturnType<Law["nameOf"]>>; readonly judged: Judgement & { readonly ok: true } } {
    const { law } = this.#agreed;
    const name = law?.nameOf(decision);
    if (!law || !name) return refused("malformed");
    const known = this.#agreed.recall(name, this.#timeMs);
    if (known === "expired") return refused("expired");
    if (known) {
      const outcomes = [...known.outcomes].map((code) => CODES[code]!);
      return { result: { code: "unchanged", index: known.index, outcomes } };
    }
    const judged = law.judge(decision, this.#agreed.electorate);
    if (!judged.ok) return refused(judged.code);
    for (const { accepted, put } of judged.operations) {
      if (!accepted || !put) continue;
      const spore = this.#read(put.envelope);
      const wanted = spore && law.rankOf(spore.record.key, this.#policy);
      if (wanted !== undefined && judged.rank < wanted) return refused("class-too-low");
    }
    return { name, judged };
  }

  #decided(entry: { readonly index: number; readonly term: number }, decision: Uint8Array): Applied {
    const found = this.#examine(decision);
    if ("result" in found) return { result: found.result, changed: [] };
    const changed: Version[] = [];
    // By the electorate that decided it, whatever the operations before it in the batch made of the state.
    const electorate = this.#agreed.electorate;
    const outcomes = found.judged.operations.map((one) => {
      const code = this.#carryOut(one, electorate, entry.index);
      if (typeof code === "string") return code;
      changed.push(this.#store(entry, code));
      return "ok";
    });
    const result: CommandResult = { code: "ok", index: entry.index, outcomes };
    const codes = Uint8Array.from(outcomes, (code) => CODES.indexOf(code));
    this.#agreed.remember(found.name, { index: entry.index, outcomes: codes }, this.#timeMs);
    const elected = found.judged.operations.find((_, i) =>
      outcomes[i] === "ok" && this.#read(found.judged.operations[i]!.put!.envelope)?.record.key === ELECTORATE_RECORD
    );
    if (elected) {
      this.#agreed.succeed(this.#agreed.law!.follow(electorate, elected.warrant)!, elected.warrant);
    }
    return { result, changed };
  }

  /** One operation: the record that now stands, or why none does. */
  #carryOut({ accepted, put, warrant }: Judged, electorate: Uint8Array, index: number): Spore | ResultCode {
    if (!accepted) return "rejected";
    const spore = put && this.#read(put.envelope);
    if (!spore) return "malformed";
    const { key, value } = spore.record;
    const agreed = ownerOf(key)!.kind === "agreed";
    const law = this.#agreed.law!;
    // A certificate takes the place of the right to write where nobody has it; it gives nobody the word of another.
    if (law.rankOf(key, this.#policy) === undefined || !agreed && !this.#mayWrite(spore)) return "not-permitted";
    const dated = this.#datedFault(spore);
    if (dated) return dated;
    const known = this.#versions.get(key);
    if (known && equalBytes(known.spore.hash, spore.hash)) return "unchanged";
    if (put.replaces) {
      const stands = known?.spore.record.value === undefined && put.replaces.length === 0;
      if (!stands && !(known && equalBytes(known.spore.hash, put.replaces))) return "conflict";
    }
    if (put.basis.length > 0 && !this.#stands(put.basis)) return "conflict";
    if (key === ELECTORATE_RECORD) {
      if (value === undefined || !law.follow(electorate, warrant)) return "malformed";
      // One electorate follows from another, not two.
      if (known?.index === index) return "conflict";
    }
    if (!this.#hasRoom(spore) || agreed && !this.#agreed.hasRoom(key, warrant)) return "full";
    if (agreed && key !== ELECTORATE_RECORD) this.#agreed.warrant(key, warrant);
    return spore;
  }

  /** Whether an agreed record of this hash stands. */
  #stands(hash: Uint8Array): boolean {
    for (const key of [ELECTORATE_RECORD, ...this.#agreed.keys]) {
      const known = this.#versions.get(key);
      if (known && equalBytes(known.spore.hash, hash)) return true;
    }
    return false;
  }

  #read(envelope: Envelope): Spore | undefined {
    try {
      return this.verify(envelope);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      return undefined;
    }
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
        this.#agreed.forget(key);
        this.#bytes -= bytesOf(spore);
      } else this.#pruneMs = Math.min(this.#pruneMs, spore.record.expiresMs);
    }
  }
}

function refused(code: ResultCode, index = 0): Applied {
  return { result: { code, index }, changed: [] };
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
  /** 1: from before anything was decided, and as such still read. */
  v: uint(2, 1),
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
  k: uint(LIMITS.primaryKeysMax + LIMITS.agreedKeysMax),
  s: uint(LIMITS.primarySessionsMax),
  g: optional((value, path) => {
    const counts = array(uint(LIMITS.primaryKeysMax), 4)(value, path);
    if (counts.length !== 4) throw new WireError(`Cannot read ${path}: wanted four counts`);
    return counts;
  }),
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
