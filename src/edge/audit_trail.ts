/**
 * The audit log as a running node has it: entries without secrets, kept in memory while the disk takes none, segments
 * closed in time, and what a person asks of it.
 *
 * A node whose disk is full goes on: who could stop it by filling the disk would have it easier than before. What is
 * not on the disk yet is said in status, and what was lost is written down as soon as there is room.
 *
 * @module
 */

import {
  type AuditEntry,
  type AuditEvent,
  type AuditHead,
  type AuditLine,
  type AuditQuery,
  type AuditReport,
  AuditVerifier,
  exportLine,
  matches,
  readLine,
} from "../access/audit.ts";
import type { KeyPair } from "../core/crypto.ts";
import { auditFiles, AuditLog, type AuditLogOptions, readAuditLines } from "./disk/audit_log.ts";
import { scrubText } from "./telemetry/redact.ts";

/** Entries that wait for the disk; further ones are counted as lost. */
const WAITING_MAX = 256;
/** Characters of lines in one answer. */
const PAGE_CHARS_MAX = 2 << 20;

/** Options of an {@linkcode AuditTrail}. */
export interface AuditTrailOptions extends Omit<AuditLogOptions, "sealed"> {
  /** State folder. */
  readonly dir: string;
  /** A segment was closed; `kept` is the first entry on the disk. */
  sealed(head: AuditHead, kept: number): void;
  /** The disk took nothing, or takes entries again. */
  trouble(message: string | undefined): void;
}

/** What of a log is exported. */
export interface AuditRange {
  /** First and last entry; both 0 where there is nothing. */
  readonly from: number;
  readonly to: number;
  /** Heading line of the export. */
  readonly heading: string;
}

/** The audit log of a running node. */
export class AuditTrail implements Disposable {
  readonly #log: AuditLog;
  readonly #dir: string;
  readonly #trouble: AuditTrailOptions["trouble"];
  #signer: KeyPair | undefined;
  #waiting: AuditEvent[] = [];
  #lost = 0;
  /** Lost entries that no entry tells of yet. */
  #untold = 0;

  /** @throws {Error} Where the log cannot be opened. */
  constructor(options: AuditTrailOptions) {
    this.#dir = options.dir;
    this.#trouble = options.trouble;
    this.#log = new AuditLog(options.dir, { ...options, sealed: (head) => options.sealed(head, this.#log.kept) });
  }

  /** How it stands. */
  status(): {
    readonly last: number;
    readonly sealedTo: number;
    readonly kept: number;
    readonly waiting: number;
    readonly lost: number;
  } {
    const { head, seal, kept } = this.#log;
    return { last: head.seq, sealedTo: seal.seq, kept, waiting: this.#waiting.length, lost: this.#lost };
  }

  /** The last seal, where there is one. */
  get seal(): { readonly head: AuditHead; readonly kept: number } | undefined {
    return this.#log.seal.seq > 0 ? { head: this.#log.seal, kept: this.#log.kept } : undefined;
  }

  /** Why a log was kept aside and another one begun, in this run. */
  get damage(): string | undefined {
    return this.#log.damage;
  }

  /** Sets the node's key: from now on segments are signed. */
  signWith(pair: KeyPair): void {
    this.#signer = pair;
    this.#log.signWith(pair);
  }

  /** Writes an entry down, durably where the disk lets it. Never throws. */
  append(event: AuditEvent): void {
    const clean = {
      ...event,
      by: scrubText(event.by),
      detail: scrubText(event.detail),
      ...(event.target === undefined ? {} : { target: scrubText(event.target) }),
    };
    if (this.#waiting.length > 0 || this.#untold > 0) this.#retry();
    if (this.#waiting.length === 0 && this.#try(clean)) return;
    if (this.#waiting.length < WAITING_MAX) return void this.#waiting.push(clean);
    this.#lost += 1;
    this.#untold += 1;
  }

  /** Regular work: what waits, and segments that are due. */
  tick(nowMs: number): void {
    if (this.#waiting.length > 0 || this.#untold > 0) this.#retry();
    try {
      this.#log.tick(nowMs);
    } catch {
      // The disk takes nothing: the next entry or tick tries again, and says so.
    }
  }

  /** Checks the whole log on the disk, and that it is the one that this process writes. */
  async verify(heads: readonly AuditHead[] = []): Promise<AuditReport> {
    const now = this.#log.head;
    const verifier = new AuditVerifier({ heads: now.seq > 0 ? [...heads, now] : heads });
    for await (const lines of readAuditLines(auditFiles(this.#dir))) for (const line of lines) verifier.line(line);
    return verifier.end();
  }

  /** The latest entries that fit, the oldest first. @param after Only entries behind this number. */
  async search(
    query: AuditQuery,
    options: { readonly max: number; readonly after?: number | undefined },
  ): Promise<{ readonly entries: readonly AuditEntry[]; readonly more: number; readonly last: number }> {
    return await searchLines(readAuditLines(auditFiles(this.#dir)), query, options);
  }

  /** What an export holds: whole segments that overlap a time. Closes the open segment first. */
  async range(
    span: { readonly sinceMs?: number | undefined; readonly untilMs?: number | undefined },
    nowMs: number,
  ): Promise<AuditRange | undefined> {
    if (!this.#signer) return undefined;
    this.#log.sealNow(nowMs);
    return await rangeOf(readAuditLines(auditFiles(this.#dir)), span, nowMs, this.#signer);
  }

  /** Lines of the log, as many as fit an answer; goes on from `next`. */
  async lines(from: number, to: number): Promise<{ readonly lines: readonly string[]; readonly next?: number }> {
    return await pageOf(readAuditLines(auditFiles(this.#dir)), from, to);
  }

  /** Closes the last segment and the log. */
  [Symbol.dispose](): void {
    this.#retry();
    try {
      this.#log.close();
    } catch (error) {
      this.#trouble(error instanceof Error ? error.message : String(error));
    }
  }

  #try(event: AuditEvent): boolean {
    try {
      this.#log.append(event);
      return true;
    } catch (error) {
      if (this.#waiting.length === 0) this.#trouble(error instanceof Error ? error.message : String(error));
      return false;
    }
  }

  #retry(): void {
    const before = this.#waiting.length + this.#untold;
    while (this.#waiting.length > 0 && this.#put(this.#waiting[0]!)) this.#waiting.shift();
    if (this.#waiting.length > 0) return;
    if (this.#untold > 0) {
      const detail = `${this.#untold} entries were lost: the disk took none`;
      if (!this.#put({ atMs: Date.now(), action: "audit-lost", by: "", detail, outcome: "failed" })) return;
      this.#untold = 0;
    }
    if (before > 0) this.#trouble(undefined);
  }

  #put(event: AuditEvent): boolean {
    try {
      this.#log.append(event);
      return true;
    } catch {
      return false;
    }
  }
}

/** The latest entries among lines that fit, the oldest first, and how many more there are. */
export async function searchLines(
  groups: AsyncIterable<readonly string[]>,
  query: AuditQuery,
  options: { readonly max: number; readonly after?: number | undefined },
): Promise<{ readonly entries: readonly AuditEntry[]; readonly more: number; readonly last: number }> {
  let entries: AuditEntry[] = [];
  let found = 0;
  let last = 0;
  for await (const lines of groups) {
    for (const text of lines) {
      const line = readLine(text);
      if (typeof line === "string") continue;
      last = Math.max(last, line.seq);
      if (line.kind !== "entry" || line.seq <= (options.after ?? 0) || !matches(line, query)) continue;
      found += 1;
      entries.push(line);
    }
    if (entries.length > options.max) entries = entries.slice(-options.max);
  }
  return { entries, more: found - entries.length, last };
}

/** The whole segments that overlap a time; `undefined` where there is none. */
export async function rangeOf(
  groups: AsyncIterable<readonly string[]>,
  span: { readonly sinceMs?: number | undefined; readonly untilMs?: number | undefined },
  nowMs: number,
  signer: KeyPair,
): Promise<AuditRange | undefined> {
  const { sinceMs = -Infinity, untilMs = Infinity } = span;
  let first: AuditLine | undefined;
  let wanted = false;
  let from = 0;
  let end: AuditLine | undefined;
  for await (const lines of groups) {
    for (const text of lines) {
      const line = readLine(text);
      if (typeof line === "string") continue;
      first ??= line;
      const atMs = Date.parse(line.at);
      if (line.kind === "entry") wanted ||= atMs >= sinceMs && atMs < untilMs;
      else {
        if (wanted) {
          if (from === 0) from = first.seq;
          end = line;
        }
        wanted = false;
        first = undefined;
      }
    }
  }
  if (!end) return undefined;
  return { from, to: end.seq, heading: exportLine({ atMs: nowMs, from, to: end.seq, head: end.hash }, signer) };
}

/** Lines with numbers from one to another, as they are; what does not read and stands between them is among them. */
export async function pageOf(
  groups: AsyncIterable<readonly string[]>,
  from: number,
  to: number,
): Promise<{ readonly lines: readonly string[]; readonly next?: number }> {
  const found: string[] = [];
  let chars = 0;
  for await (const lines of groups) {
    for (const text of lines) {
      const seq = Number(/^\{(?:"v":2,)?"seq":(\d{1,16}),/.exec(text)?.[1] ?? NaN);
      if (seq > to) return { lines: found };
      if (Number.isNaN(seq) ? found.length === 0 : seq < from) continue;
      if (chars + text.length > PAGE_CHARS_MAX && found.length > 0 && !Number.isNaN(seq)) {
        return { lines: found, next: seq };
      }
      chars += text.length;
      found.push(text);
    }
  }
  return { lines: found };
}
