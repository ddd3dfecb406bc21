/**
 * The heads of audit logs: each node says under `node/<id>/audit` where the chain of its log stands, signed as every
 * record of it, and the others notice when it goes back or says something else of the same place.
 *
 * Who has all rights on a machine has its key, and can write its log anew from the first entry on. What he cannot do is
 * make the others forget what they were told. Source: ADR 0018.
 *
 * @module
 */

import type { AuditHead } from "../access/audit.ts";
import { fromHex, toHex } from "../core/bytes.ts";
import { array, bytes, type CborValue, decodeAs, encodeCbor, record, uint, WireError } from "../core/codec.ts";
import { readNodeId } from "../core/ids.ts";
import { LIMITS } from "../core/limits.ts";
import type { Method } from "./access_table.ts";
import { type Context, DEFERRED, Refusal } from "./context.ts";
import type { ControlRequest } from "./control.ts";
import type { PeerView } from "./effects.ts";
import type { Part } from "./part.ts";

/** Places of one log that are published, and that an answer holds. */
const PUBLISHED_MAX = 8;
/** Places of one log that are remembered. */
const REMEMBERED_MAX = 32;
/** Least time between two words of this node about its log. */
const PUBLISH_MS = 60_000;
/** How often the words of the others are looked at. */
const LOOK_MS = 10_000;
/** Members that are asked what they know of this node's log. */
const WITNESSES_MAX = 8;
const ASK_MS = 3_000;

/** What a node says of its log. */
export interface AuditWord {
  /** First entry that it still has. */
  readonly kept: number;
  /** Seals, the oldest first; at least one. */
  readonly heads: readonly AuditHead[];
}

const readHeads = array(record({ n: uint(Number.MAX_SAFE_INTEGER, 1), h: bytes({ length: 32 }) }), REMEMBERED_MAX);
const readWordParts = record({ k: uint(), s: readHeads });

/** Reads what a node says of its log. @throws {WireError} */
export function readAuditWord(value: Uint8Array): AuditWord {
  const { k, s } = decodeAs(value, readWordParts, LIMITS.recordBytesMax);
  const heads = s.map(({ n, h }) => ({ seq: n, hash: toHex(h) }));
  if (heads.length === 0 || heads.some((one, i) => i > 0 && one.seq <= heads[i - 1]!.seq)) {
    throw new WireError("Cannot read heads: wanted at least one, with numbers that rise");
  }
  return { kept: k, heads };
}

/** The bytes of a word. */
export function auditWord(word: AuditWord): Uint8Array {
  return encodeCbor({ k: word.kept, s: headsValue(word.heads.slice(-PUBLISHED_MAX)) });
}

/** Key of the record in which a node says it. */
export function auditKey(nodeId: string): string {
  return `node/${nodeId}/audit`;
}

/** What the heads need of the rest of the agent. */
export interface AuditHeadsDeps {
  /** Publishes a record of this node. @throws {Refusal} */
  say(key: string, value: Uint8Array): void;
  /** The record that stands under a key, and its number. */
  read(key: string): { readonly seq: number; readonly value: Uint8Array } | undefined;
  /** A log is not what it was said to be. */
  damaged(nodeId: string, why: string): void;
}

interface Known {
  /** Number of the record that was looked at last. */
  seq: number;
  heads: readonly AuditHead[];
  /** Whether it was told of already. */
  told: boolean;
}

/** Publishes this node's heads and watches those of the others. */
export class AuditHeads implements Part {
  readonly methods: readonly Method[] = ["audit.head"];
  readonly verbs: readonly string[] = ["audit-heads"];
  readonly #ctx: Context;
  readonly #deps: AuditHeadsDeps;
  /** Seals of this node's log, the oldest first. */
  #own: AuditHead[] = [];
  #kept = 1;
  #dirty = false;
  #nextSayMs = 0;
  #nextLookMs = 0;
  #started = false;
  /** By node; a removed one goes at the next look. */
  readonly #known = new Map<string, Known>();

  constructor(ctx: Context, deps: AuditHeadsDeps) {
    this.#ctx = ctx;
    this.#deps = deps;
  }

  /** The last place that this node has published; missing where there is none. */
  get published(): AuditHead | undefined {
    return this.#dirty ? undefined : this.#own.at(-1);
  }

  /** Logs of others that are watched. */
  get watched(): number {
    return this.#known.size;
  }

  /** A segment of this node's log was closed. */
  sealed(head: AuditHead, kept: number): void {
    const last = this.#own.at(-1);
    if (last && last.seq === head.seq && last.hash === head.hash) return;
    const why = contradiction(this.#own, [head], kept);
    if (why) this.#deps.damaged(this.#ctx.state.nodeId, why);
    const others = this.#own.filter((one) => one.seq < head.seq);
    this.#own = [...others, head].slice(-REMEMBERED_MAX);
    this.#kept = kept;
    this.#dirty = true;
    this.#ctx.wakeAt(Math.max(this.#ctx.nowMs, this.#nextSayMs));
  }

  serve(_peer: PeerView, _method: string, body: CborValue): CborValue {
    const { n } = record({ n: readNodeId })(body, "audit.head");
    this.#look();
    return { s: headsValue((this.#known.get(n)?.heads ?? []).slice(-PUBLISHED_MAX)) };
  }

  answer(controlId: number, _request: ControlRequest): typeof DEFERRED {
    const ctx = this.#ctx;
    const { nodeId } = ctx.state;
    const found: { readonly seq: number; readonly hash: string; readonly from: string }[] = [];
    const note = (heads: readonly AuditHead[], from: string) =>
      found.push(...heads.map(({ seq, hash }) => ({ seq, hash, from })));
    const stored = this.#stored(nodeId);
    if (stored) note(stored.heads, nodeId);
    const peers = ctx.memberPeers().slice(0, WITNESSES_MAX);
    let open = peers.length;
    let answered = 0;
    const end = () => {
      if (open > 0) return;
      const value = { node: nodeId, heads: found, asked: peers.length, answered };
      ctx.emit({ type: "control-reply", controlId, result: { ok: true, value } });
    };
    for (const peer of peers) {
      ctx.call(peer, "audit.head", { n: nodeId }, ASK_MS, (result) => {
        open -= 1;
        if (result.ok) {
          try {
            const { s } = record({ s: readHeads })(result.body, "audit.head");
            note(s.map(({ n, h }) => ({ seq: n, hash: toHex(h) })), peer);
            answered += 1;
          } catch (error) {
            if (!(error instanceof WireError)) throw error;
            ctx.refuse("bad-answer", peer);
          }
        }
        end();
      });
    }
    end();
    return DEFERRED;
  }

  start(): void {
    this.#started = true;
    const { nodeId } = this.#ctx.state;
    const stored = this.#stored(nodeId);
    if (!stored) return;
    const why = this.#own.length > 0 ? contradiction(stored.heads, this.#own, this.#kept) : undefined;
    if (why) this.#deps.damaged(nodeId, why);
    // Numbers that were said are said on: the others compare them.
    const last = this.#own.at(-1)?.seq ?? Infinity;
    this.#own = [...stored.heads.filter((one) => one.seq < (this.#own[0]?.seq ?? Infinity)), ...this.#own].slice(
      -REMEMBERED_MAX,
    );
    this.#dirty = last !== Infinity && stored.heads.at(-1)!.seq !== last;
  }

  clear(): void {
    this.#started = false;
    this.#known.clear();
    this.#dirty = this.#own.length > 0;
    this.#nextSayMs = 0;
  }

  keys(): readonly string[] {
    return [];
  }

  wake(): number {
    const { nowMs, state } = this.#ctx;
    if (nowMs >= this.#nextLookMs) {
      this.#nextLookMs = nowMs + LOOK_MS;
      this.#look();
    }
    if (this.#dirty && nowMs >= this.#nextSayMs) {
      this.#nextSayMs = nowMs + PUBLISH_MS;
      try {
        this.#deps.say(auditKey(state.nodeId), auditWord({ kept: this.#kept, heads: this.#own }));
        this.#dirty = false;
      } catch (error) {
        // The table is full: again in a minute.
        if (!(error instanceof Refusal)) throw error;
      }
    }
    return Math.min(this.#nextLookMs, this.#dirty ? this.#nextSayMs : Infinity);
  }

  clockSetBack(): void {
    this.#nextSayMs = 0;
    this.#nextLookMs = 0;
  }

  /** Looks at what the others say now. */
  #look(): void {
    if (!this.#started) return;
    const { state } = this.#ctx;
    const members = state.members.all();
    if (this.#known.size > members.length) {
      const live = new Set(members.map((one) => one.nodeId));
      for (const nodeId of this.#known.keys()) if (!live.has(nodeId)) this.#known.delete(nodeId);
    }
    for (const { nodeId } of members) {
      if (nodeId === state.nodeId) continue;
      const entry = this.#deps.read(auditKey(nodeId));
      const known = this.#known.get(nodeId);
      if (!entry || known?.seq === entry.seq) continue;
      this.#heard(nodeId, entry, known);
    }
  }

  #heard(nodeId: string, entry: { readonly seq: number; readonly value: Uint8Array }, known: Known | undefined): void {
    let word: AuditWord;
    try {
      word = readAuditWord(entry.value);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      this.#known.set(nodeId, { heads: [], told: false, ...known, seq: entry.seq });
      return this.#ctx.refuse("bad-audit-head", nodeId);
    }
    // A record that was overtaken on its way says less than one that is known: its number is lower.
    const why = known && entry.seq > known.seq ? contradiction(known.heads, word.heads, word.kept) : undefined;
    if (why && !known?.told) this.#deps.damaged(nodeId, why);
    const seen = new Set(word.heads.map((one) => one.seq));
    const heads = [...(known?.heads ?? []).filter((one) => !seen.has(one.seq)), ...word.heads];
    // What was known first is kept: it is what the log has to show.
    const first = new Map((known?.heads ?? []).map((one) => [one.seq, one]));
    this.#known.set(nodeId, {
      seq: entry.seq,
      heads: heads.map((one) => first.get(one.seq) ?? one).sort((a, b) => a.seq - b.seq).slice(-REMEMBERED_MAX),
      told: (known?.told ?? false) || why !== undefined,
    });
  }

  #stored(nodeId: string): AuditWord | undefined {
    const entry = this.#deps.read(auditKey(nodeId));
    if (!entry) return undefined;
    try {
      return readAuditWord(entry.value);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      return undefined;
    }
  }
}

/** Why what is said of a log now cannot be of the one that was known; `undefined` where it can. */
export function contradiction(
  before: readonly AuditHead[],
  now: readonly AuditHead[],
  kept: number,
): string | undefined {
  const last = before.at(-1);
  const end = now.at(-1);
  if (!last || !end) return undefined;
  if (end.seq < last.seq) return `it ended at ${last.seq}, and ends at ${end.seq} now`;
  const hashes = new Map(before.map((one) => [one.seq, one.hash]));
  for (const { seq, hash } of now) {
    const known = hashes.get(seq);
    if (known !== undefined && known !== hash) return `entry ${seq} is another one now`;
  }
  if (kept > end.seq) return `it says that entry ${kept} is its first, and ends at ${end.seq}`;
  return undefined;
}

function headsValue(heads: readonly AuditHead[]): CborValue {
  return heads.map(({ seq, hash }) => ({ n: seq, h: fromHex(hash)! }));
}
