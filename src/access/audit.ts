/**
 * The audit log as text: one JSON line an entry, chained by hashes, closed in segments that the node signs.
 *
 * ```text
 * {"v":2,"seq":7,"at":"…","action":"invite-created","by":"operator","entrance":"socket","target":"…","outcome":"ok",
 *  "detail":"…","previous":"<hash of 6>","hash":"<hash of the line without it>"}
 * {"v":2,"seq":8,"at":"…","seal":{"from":3,"kept":1,"segment":"<hash of the seal before>","node":"<node id>",
 *  "signature":"…"},"previous":"<hash of 7>","hash":"…"}
 * ```
 *
 * A seal is an entry of the chain as well. It signs its own number and time, where its segment begins, the hash of the
 * entry before it, that of the seal before it, and the first entry that was kept when it was written. Entries behind
 * the last seal are chained and not signed yet. Lines without `v` are those of version 1, which had no seals: they
 * stand before all others, and the first seal covers them.
 *
 * A line has one spelling: what does not read back to the same characters is no entry. Source: ADR 0018.
 *
 * @module
 */

import { fromHex, toHex, utf8 } from "../core/bytes.ts";
import { hashParts, type KeyPair, signBytes, verifySignature } from "../core/crypto.ts";
import { nodeIdOf, publicKeyOf } from "../core/ids.ts";

/** How something ended. */
export type AuditOutcome = "ok" | "refused" | "failed";

/** All outcomes. */
export const AUDIT_OUTCOMES: readonly AuditOutcome[] = ["ok", "refused", "failed"];

/** What is written down. Texts longer than {@linkcode FIELD_CHARS_MAX} are cut. */
export interface AuditEvent {
  readonly atMs: number;
  /** What was done, lower-case with dashes: `node-removed`. */
  readonly action: string;
  /** The principal: a person, a service or a node. */
  readonly by: string;
  /** Why, and whatever else a reader has to know. */
  readonly detail: string;
  /** The way in: `socket`, `http`, `rpc`, `node` for what the node did by itself. @default "node" */
  readonly entrance?: string | undefined;
  /** What it was done to. @default "" */
  readonly target?: string | undefined;
  /** @default "ok" */
  readonly outcome?: AuditOutcome | undefined;
}

/** One entry of the log. */
export interface AuditEntry {
  readonly kind: "entry";
  /** 1 for those written before there were seals. */
  readonly version: 1 | 2;
  /** From 1. */
  readonly seq: number;
  /** RFC 3339. */
  readonly at: string;
  readonly action: string;
  readonly by: string;
  readonly entrance: string;
  readonly target: string;
  readonly outcome: AuditOutcome;
  readonly detail: string;
  /** Hash of the line before, 64 hexadecimal digits; zeros for the first. */
  readonly previous: string;
  readonly hash: string;
}

/** The end of a segment, signed. */
export interface AuditSeal {
  readonly kind: "seal";
  readonly version: 2;
  readonly seq: number;
  readonly at: string;
  /** Number of the first entry of the segment. */
  readonly from: number;
  /** Number of the first entry that was on the disk when this was written: older ones were let go. */
  readonly kept: number;
  /** Hash of the seal before; zeros for the first. */
  readonly segment: string;
  /** Id of the node that signed, which holds its public key. */
  readonly node: string;
  readonly signature: string;
  readonly previous: string;
  readonly hash: string;
}

/** A line of the log. */
export type AuditLine = AuditEntry | AuditSeal;

/** A place in the chain. */
export interface AuditHead {
  readonly seq: number;
  readonly hash: string;
}

/** The hash before the first entry. */
export const NO_HASH: string = "0".repeat(64);
/** Characters of the field `detail`; the others have {@linkcode WORD_CHARS_MAX}. */
export const FIELD_CHARS_MAX = 4_096;
/** Characters of the short fields. */
export const WORD_CHARS_MAX = 256;
/** Characters of a line: every character of every field escaped, and the rest. */
export const LINE_CHARS_MAX: number = 6 * (FIELD_CHARS_MAX + 4 * WORD_CHARS_MAX) + 1_024;

/** The line of an event, without its end. */
export function entryLine(event: AuditEvent, seq: number, previous: string): { readonly line: string } & AuditHead {
  const word = (text: string, max = WORD_CHARS_MAX) => text.slice(0, max).toWellFormed();
  return closed({
    v: 2,
    seq,
    at: instantOf(event.atMs),
    action: word(event.action),
    by: word(event.by),
    entrance: word(event.entrance ?? "node"),
    target: word(event.target ?? ""),
    outcome: event.outcome ?? "ok",
    detail: word(event.detail, FIELD_CHARS_MAX),
    previous,
  });
}

/** The line of a seal, without its end. */
export function sealLine(
  seal: Pick<AuditSeal, "from" | "kept" | "segment"> & { readonly atMs: number },
  seq: number,
  previous: string,
  signer: KeyPair,
): { readonly line: string } & AuditHead {
  const { from, kept, segment } = seal;
  const words = { seq, at: instantOf(seal.atMs), from, kept, segment, node: nodeIdOf(signer.publicKey), previous };
  const signature = toHex(signBytes(signer, sealedBytes(words)));
  const { at, node } = words;
  return closed({ v: 2, seq, at, seal: { from, kept, segment, node, signature }, previous });
}

/** Why a line is none. */
export type LineFault =
  /** It is no line of this log at all. */
  | "unreadable"
  /** It reads, and its own hash is of something else. */
  | "changed";

/** Reads a line; says why it cannot be one. Never throws. */
export function readLine(text: string): AuditLine | LineFault {
  if (text.length > LINE_CHARS_MAX) return "unreadable";
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return "unreadable";
  }
  const line = lineOf(value);
  if (!line) return "unreadable";
  const { text: spelt, body } = spell(line);
  if (spelt !== text) return "unreadable";
  return line.hash === hashOf(line.version, body) ? line : "changed";
}

/** Whether the signature of a seal is that of the node that it names. */
export function isSealed(seal: AuditSeal): boolean {
  const key = publicKeyOf(seal.node);
  const signature = fromHex(seal.signature);
  return key !== undefined && signature !== undefined && verifySignature(key, sealedBytes(seal), signature);
}

/** What is wrong at one place of a log. */
export interface AuditFinding {
  readonly what:
    /** A line that is none. */
    | LineFault
    /** Entries are missing here, or are not in their order. */
    | "missing"
    /** An entry that does not follow the one before it: something was put in, taken out or written anew. */
    | "broken"
    /** A seal whose signature does not fit. */
    | "forged-seal"
    /** A seal of another node. */
    | "foreign-seal"
    /** A seal that does not fit the segments of the log. */
    | "misplaced-seal"
    /** Entries at the beginning are missing that the last seal says were kept. */
    | "front-missing"
    /** The log ends before an entry that is known to have been there. */
    | "truncated"
    /** An entry that is known from elsewhere has another content here: the log was written anew. */
    | "rewritten"
    /** An export that does not end with a seal, or not where its heading says. */
    | "not-whole";
  /** Number of the entry, as far as is known. */
  readonly seq: number;
  /** One sentence. */
  readonly why: string;
}

/** What is known about a log besides itself. */
export interface VerifyOptions {
  /** Node whose log it is; missing: that of the first seal, which is said in the report. */
  readonly node?: string | undefined;
  /** Places that the log is known to have had. */
  readonly heads?: readonly AuditHead[] | undefined;
}

/** What was found of a log. */
export interface AuditReport {
  readonly ok: boolean;
  /** Lines that read, seals included. */
  readonly entries: number;
  readonly seals: number;
  /** Number of the first and of the last one; 0 where there is none. */
  readonly first: number;
  readonly last: number;
  /** Hash of the last one. */
  readonly head: string;
  /** Number of the last seal; what comes behind it is chained and not signed yet. */
  readonly sealedTo: number;
  /** Node that signed. */
  readonly node?: string;
  /** When the first and last one were written, as they say. */
  readonly since?: string;
  readonly until?: string;
  /** At most {@linkcode FINDINGS_MAX}. */
  readonly findings: readonly AuditFinding[];
}

/** Findings that are told one by one. */
export const FINDINGS_MAX = 100;

/** Takes the lines of a log in their order, and says what is wrong with it. Memory does not grow with the log. */
export class AuditVerifier {
  readonly #heads: Map<number, string>;
  readonly #findings: AuditFinding[] = [];
  #node: string | undefined;
  #first: AuditLine | undefined;
  #last: AuditLine | undefined;
  #seal: AuditSeal | undefined;
  #entries = 0;
  #seals = 0;

  constructor(options: VerifyOptions = {}) {
    this.#node = options.node;
    this.#heads = new Map((options.heads ?? []).map(({ seq, hash }) => [seq, hash]));
  }

  /** The line taken last that reads. */
  get last(): AuditLine | undefined {
    return this.#last;
  }

  /** The first line. */
  get first(): AuditLine | undefined {
    return this.#first;
  }

  /** Takes a line, without its end. */
  line(text: string): AuditLine | undefined {
    const expected = (this.#last?.seq ?? 0) + 1;
    const line = readLine(text);
    if (typeof line === "string") {
      this.#find(line, expected, line === "changed" ? "its hash is of another content" : "the line is no entry");
      return undefined;
    }
    this.#follows(line);
    if (line.kind === "seal") this.#sealed(line);
    const known = this.#heads.get(line.seq);
    if (known !== undefined) {
      this.#heads.delete(line.seq);
      if (known !== line.hash) this.#find("rewritten", line.seq, "another content of this entry is known from before");
    }
    this.#first ??= line;
    this.#last = line;
    this.#entries += 1;
    return line;
  }

  /** All lines were taken. @param options `whole`: it is an export, which ends with a seal. */
  end(options: { readonly whole?: boolean } = {}): AuditReport {
    const [first, last, seal] = [this.#first, this.#last, this.#seal];
    if (seal && first && first.seq > Math.max(1, seal.kept) && !options.whole) {
      this.#find(
        "front-missing",
        seal.kept,
        `entries from ${seal.kept} on were kept, and the log begins at ${first.seq}`,
      );
    }
    if (options.whole && (!last || last.kind !== "seal")) {
      this.#find("not-whole", last?.seq ?? 0, "the export does not end with a seal");
    }
    for (const seq of this.#heads.keys()) {
      if (seq > (last?.seq ?? 0)) {
        this.#find("truncated", seq, `the log ends at ${last?.seq ?? 0}, and had entry ${seq}`);
      }
    }
    return {
      ok: this.#findings.length === 0,
      entries: this.#entries,
      seals: this.#seals,
      first: first?.seq ?? 0,
      last: last?.seq ?? 0,
      head: last?.hash ?? NO_HASH,
      sealedTo: seal?.seq ?? 0,
      ...(this.#node === undefined ? {} : { node: this.#node }),
      ...(first && last ? { since: first.at, until: last.at } : {}),
      findings: this.#findings,
    };
  }

  #follows(line: AuditLine): void {
    const last = this.#last;
    if (!last) {
      if (line.seq === 1 && line.previous !== NO_HASH) this.#find("broken", 1, "the first entry follows another one");
      return;
    }
    if (line.seq !== last.seq + 1) {
      const [from, to] = [last.seq + 1, line.seq - 1];
      const why = line.seq > last.seq
        ? `entries ${from} to ${to} are not there`
        : `entry ${line.seq} follows ${last.seq}`;
      return this.#find("missing", Math.min(from, line.seq), why);
    }
    if (line.previous !== last.hash) this.#find("broken", line.seq, "it follows another entry than the one before it");
    else if (line.version < last.version) this.#find("broken", line.seq, "an entry of the old form follows a new one");
  }

  #sealed(seal: AuditSeal): void {
    const before = this.#seal;
    this.#seal = seal;
    this.#seals += 1;
    this.#node ??= seal.node;
    if (seal.node !== this.#node) this.#find("foreign-seal", seal.seq, `it was signed by ${seal.node}`);
    else if (!isSealed(seal)) this.#find("forged-seal", seal.seq, "the signature does not fit");
    // The first seal of a file whose beginning was let go is of a segment that may have begun before it.
    const fits = before
      ? seal.from === before.seq + 1 && seal.segment === before.hash
      : seal.from <= seal.seq && (this.#first?.seq !== 1 || seal.from === 1 && seal.segment === NO_HASH);
    if (!fits) this.#find("misplaced-seal", seal.seq, "it is of another segment than the one that it closes");
    if (seal.kept > seal.seq || before && seal.kept < before.kept) {
      this.#find("misplaced-seal", seal.seq, `it says that ${seal.kept} is the first entry kept`);
    }
  }

  #find(what: AuditFinding["what"], seq: number, why: string): void {
    if (this.#findings.length < FINDINGS_MAX) this.#findings.push({ what, seq, why });
  }
}

/** The heading of an export: what it holds, signed, so that a piece of it is not taken for the whole. */
export interface ExportHeading {
  readonly node: string;
  readonly at: string;
  readonly from: number;
  readonly to: number;
  /** Hash of the last line. */
  readonly head: string;
  readonly signature: string;
}

/** The heading line of an export, without its end. */
export function exportLine(
  words: { readonly atMs: number; readonly from: number; readonly to: number; readonly head: string },
  signer: KeyPair,
): string {
  const { from, to, head } = words;
  const heading = { node: nodeIdOf(signer.publicKey), at: instantOf(words.atMs), from, to, head };
  const signature = toHex(signBytes(signer, headingBytes(heading)));
  return JSON.stringify({ export: { ...heading, signature } });
}

/** Reads the heading of an export; `undefined` where the line is none. Says nothing about the signature. */
export function readExportLine(text: string): ExportHeading | undefined {
  if (text.length > LINE_CHARS_MAX || !text.startsWith('{"export":')) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  const one = objectOf(objectOf(value)?.export);
  if (!one || typeof one.node !== "string" || !isInstant(one.at) || !isSeq(one.from) || !isSeq(one.to)) {
    return undefined;
  }
  if (!isHash(one.head) || !isSignature(one.signature) || publicKeyOf(one.node) === undefined) return undefined;
  const { node, at, from, to, head, signature } = one as unknown as ExportHeading;
  const heading = { node, at, from, to, head, signature };
  return JSON.stringify({ export: heading }) === text ? heading : undefined;
}

/**
 * Verifies an export without anything else than itself.
 *
 * @param node Node that it has to be of; missing: whoever signed it, which the report says.
 */
export class ExportVerifier {
  readonly #node: string | undefined;
  #heading: ExportHeading | undefined;
  #verifier: AuditVerifier | undefined;

  constructor(options: { readonly node?: string | undefined } = {}) {
    this.#node = options.node;
  }

  /** Takes a line, without its end. Lines of a log are taken as well: then it is no export, and no end is known of it. */
  line(text: string): AuditLine | undefined {
    if (!this.#verifier) {
      this.#heading = readExportLine(text);
      this.#verifier = new AuditVerifier({ node: this.#node ?? this.#heading?.node });
      if (this.#heading) return undefined;
    }
    return this.#verifier.line(text);
  }

  /** All lines were taken. */
  end(): AuditReport & { readonly whole: boolean } {
    const heading = this.#heading;
    const report = (this.#verifier ?? new AuditVerifier()).end({ whole: true });
    const findings = [...report.findings];
    if (!heading) {
      findings.unshift({
        what: "not-whole",
        seq: report.first,
        why: "it does not begin with the heading of an export",
      });
    } else {
      const key = publicKeyOf(heading.node);
      const signature = fromHex(heading.signature);
      if (!key || !signature || !verifySignature(key, headingBytes(heading), signature)) {
        findings.unshift({ what: "forged-seal", seq: heading.from, why: "the signature of the heading does not fit" });
      }
      if (this.#node !== undefined && heading.node !== this.#node) {
        findings.unshift({ what: "foreign-seal", seq: heading.from, why: `it is an export of ${heading.node}` });
      }
      if (report.first !== heading.from || report.last !== heading.to || report.head !== heading.head) {
        const why =
          `the heading says ${heading.from} to ${heading.to}, and these are ${report.first} to ${report.last}`;
        findings.push({ what: "not-whole", seq: report.last, why });
      }
    }
    return { ...report, ok: findings.length === 0, findings, whole: heading !== undefined };
  }
}

/** What is looked for; all that is given has to fit. */
export interface AuditQuery {
  readonly sinceMs?: number | undefined;
  readonly untilMs?: number | undefined;
  /** Part of `by`. */
  readonly by?: string | undefined;
  /** An action, or the beginning of some with `*` at the end. */
  readonly action?: string | undefined;
  readonly outcome?: AuditOutcome | undefined;
  readonly entrance?: string | undefined;
  /** Part of `target`. */
  readonly target?: string | undefined;
  /** Part of any field. */
  readonly text?: string | undefined;
}

/** Whether an entry is one that is looked for. */
export function matches(entry: AuditEntry, query: AuditQuery): boolean {
  const atMs = Date.parse(entry.at);
  if (query.sinceMs !== undefined && atMs < query.sinceMs) return false;
  if (query.untilMs !== undefined && atMs >= query.untilMs) return false;
  if (query.by !== undefined && !entry.by.includes(query.by)) return false;
  if (query.outcome !== undefined && entry.outcome !== query.outcome) return false;
  if (query.entrance !== undefined && entry.entrance !== query.entrance) return false;
  if (query.target !== undefined && !entry.target.includes(query.target)) return false;
  if (query.action !== undefined) {
    const wanted = query.action;
    const fits = wanted.endsWith("*") ? entry.action.startsWith(wanted.slice(0, -1)) : entry.action === wanted;
    if (!fits) return false;
  }
  const { text } = query;
  return text === undefined ||
    [entry.action, entry.by, entry.target, entry.detail, entry.entrance].some((field) => field.includes(text));
}

/** RFC 3339 of a time; what is no time is the nearest one. */
function instantOf(atMs: number): string {
  return new Date(Math.min(Math.max(Number.isFinite(atMs) ? Math.trunc(atMs) : 0, 0), 253_402_300_799_999))
    .toISOString();
}

type Fields = Readonly<Record<string, unknown>> & { readonly seq: number };

function closed(fields: Fields): { readonly line: string } & AuditHead {
  const body = JSON.stringify(fields);
  const hash = hashOf(2, body);
  return { line: `${body.slice(0, -1)},"hash":"${hash}"}`, seq: fields.seq, hash };
}

/** The one spelling of a line, and of what its hash is of. */
function spell(line: AuditLine): { readonly text: string; readonly body: string } {
  const { seq, at, previous } = line;
  let fields: Fields;
  if (line.kind === "seal") {
    const { from, kept, segment, node, signature } = line;
    fields = { v: 2, seq, at, seal: { from, kept, segment, node, signature }, previous };
  } else {
    const { action, by, entrance, target, outcome, detail } = line;
    fields = line.version === 1
      ? { seq, at, action, by, detail, previous }
      : { v: 2, seq, at, action, by, entrance, target, outcome, detail, previous };
  }
  const body = JSON.stringify(fields);
  return { body, text: `${body.slice(0, -1)},"hash":"${line.hash}"}` };
}

function lineOf(value: unknown): AuditLine | undefined {
  const one = objectOf(value);
  if (!one || !isSeq(one.seq) || one.seq < 1 || !isInstant(one.at)) return undefined;
  if (!isHash(one.previous) || !isHash(one.hash)) return undefined;
  const { seq, at, previous, hash } = one as { seq: number; at: string; previous: string; hash: string };
  if (one.v === 2 && one.seal !== undefined) {
    const seal = objectOf(one.seal);
    if (!seal || !isSeq(seal.from) || !isSeq(seal.kept) || !isHash(seal.segment)) return undefined;
    if (typeof seal.node !== "string" || !isSignature(seal.signature)) return undefined;
    const { from, kept, segment, node, signature } = seal as unknown as AuditSeal;
    return { kind: "seal", version: 2, seq, at, from, kept, segment, node, signature, previous, hash };
  }
  const { action, by, detail } = one;
  if (!isText(action, FIELD_CHARS_MAX) || !isText(by, FIELD_CHARS_MAX) || !isText(detail, FIELD_CHARS_MAX)) {
    return undefined;
  }
  if (one.v === undefined) {
    const old = { entrance: "node", target: "", outcome: "ok" } as const;
    return { kind: "entry", version: 1, seq, at, action, by, ...old, detail, previous, hash };
  }
  const { entrance, target } = one;
  const outcome = AUDIT_OUTCOMES.find((known) => known === one.outcome);
  if (one.v !== 2 || !isText(entrance, WORD_CHARS_MAX) || !isText(target, WORD_CHARS_MAX) || !outcome) return undefined;
  return { kind: "entry", version: 2, seq, at, action, by, entrance, target, outcome, detail, previous, hash };
}

function objectOf(value: unknown): Readonly<Record<string, unknown>> | undefined {
  return value !== null && typeof value === "object" && !Array.isArray(value)
    ? value as Readonly<Record<string, unknown>>
    : undefined;
}

function isSeq(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isText(value: unknown, max: number): value is string {
  return typeof value === "string" && value.length <= max;
}

function isInstant(value: unknown): value is string {
  return typeof value === "string" && /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/.test(value) &&
    !Number.isNaN(Date.parse(value));
}

function isHash(value: unknown): value is string {
  return typeof value === "string" && /^[0-9a-f]{64}$/.test(value);
}

function isSignature(value: unknown): value is string {
  return typeof value === "string" && /^[0-9a-f]{128}$/.test(value);
}

function hashOf(version: 1 | 2, body: string): string {
  return toHex(hashParts(`mycelium/audit/v${version}`, utf8(body)));
}

function sealedBytes(seal: Omit<AuditSeal, "kind" | "version" | "signature" | "hash">): Uint8Array {
  const { seq, at, from, kept, segment, node, previous } = seal;
  return hashParts("mycelium/audit-seal/v2", utf8(JSON.stringify([seq, at, from, kept, segment, node, previous])));
}

function headingBytes(heading: Omit<ExportHeading, "signature">): Uint8Array {
  const { node, at, from, to, head } = heading;
  return hashParts("mycelium/audit-export/v1", utf8(JSON.stringify([node, at, from, to, head])));
}
