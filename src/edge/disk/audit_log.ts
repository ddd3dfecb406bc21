/**
 * The audit log: one JSON line an entry, each holding its own hash and that of the one before.
 *
 * Whoever changes, takes out, puts in or moves an entry breaks the chain, unless he writes all that follows anew;
 * that entries are missing at the end is seen only by comparing with a copy.
 *
 * Bounded: a file that has grown to {@linkcode AuditLogOptions.fileBytesMax} is kept as `audit.log.1`, older ones move
 * on by one, and the oldest goes. The chain goes on over the files.
 *
 * @module
 */

import { join } from "node:path";
import { fromUtf8, toHex, utf8 } from "../../core/bytes.ts";
import { hashParts } from "../../core/crypto.ts";

/** What happened, by whom. */
export interface AuditEntry {
  readonly seq: number;
  /** RFC 3339. */
  readonly at: string;
  readonly action: string;
  readonly by: string;
  readonly detail: string;
  /** Hash of the entry before, hexadecimal; zeros for the first. */
  readonly previous: string;
  /** Hash of all of the above, hexadecimal. */
  readonly hash: string;
}

/** Options of an {@linkcode AuditLog}. */
export interface AuditLogOptions {
  /** @default 8 MiB */
  readonly fileBytesMax?: number;
  /** Files kept beside the one that is written. @default 7 */
  readonly oldFilesMax?: number;
}

/** Bytes of the end of the file that are read at the start: more than any entry has. */
const TAIL_BYTES = 64 << 10;
/** Characters of one field. */
const FIELD_CHARS_MAX = 4_096;
const NONE = "0".repeat(64);

/** Appends to `audit.log` in the state folder. */
export class AuditLog {
  readonly #path: string;
  readonly #fileBytesMax: number;
  readonly #oldFilesMax: number;
  #file: Deno.FsFile;
  #size = 0;
  #seq = 0;
  #head = NONE;

  /** @param dir State folder. */
  constructor(dir: string, options: AuditLogOptions = {}) {
    this.#path = join(dir, "audit.log");
    this.#fileBytesMax = options.fileBytesMax ?? 8 << 20;
    this.#oldFilesMax = options.oldFilesMax ?? 7;
    this.#file = openLog(this.#path);
    try {
      const kept = this.#take();
      if (kept !== undefined) this.#setAside(kept);
      // Between two files there may be none: the chain goes on from the last one kept.
      if (this.#size === 0 && kept === undefined) this.#follow(`${this.#path}.1`);
    } catch (error) {
      this.#file.close();
      throw error;
    }
  }

  /**
   * Appends durably.
   *
   * @throws {Error} When the disk fails or is full; the log is as before then.
   */
  append(
    entry: { readonly atMs: number; readonly action: string; readonly by: string; readonly detail: string },
  ): void {
    const body = JSON.stringify(
      {
        seq: this.#seq + 1,
        at: new Date(entry.atMs).toISOString(),
        action: entry.action.slice(0, FIELD_CHARS_MAX),
        by: entry.by.slice(0, FIELD_CHARS_MAX),
        detail: entry.detail.slice(0, FIELD_CHARS_MAX),
        previous: this.#head,
      } satisfies Omit<AuditEntry, "hash">,
    );
    const hash = hashOf(body);
    const bytes = utf8(`${body.slice(0, -1)},"hash":"${hash}"}\n`);
    if (this.#size > 0 && this.#size + bytes.length > this.#fileBytesMax) this.#rotate();
    try {
      for (let done = 0; done < bytes.length;) done += this.#file.writeSync(bytes.subarray(done));
      this.#file.syncDataSync();
    } catch (error) {
      // Half an entry would spoil the ones after it.
      this.#file.truncateSync(this.#size);
      this.#file.seekSync(this.#size, Deno.SeekMode.Start);
      throw error;
    }
    this.#size += bytes.length;
    this.#seq += 1;
    this.#head = hash;
  }

  close(): void {
    this.#file.close();
  }

  /** Finds the end of the file; returns its name where it cannot be gone on with. */
  #take(): string | undefined {
    const last = lastLine(this.#file);
    if (last.line !== undefined) {
      const entry = parse(last.line);
      if (!entry) return "damaged";
      this.#seq = entry.seq;
      this.#head = entry.hash;
    }
    // A line that a power cut tore is no entry: nothing was answered on its strength.
    this.#file.truncateSync(last.endBytes);
    this.#file.seekSync(last.endBytes, Deno.SeekMode.Start);
    this.#size = last.endBytes;
    return undefined;
  }

  /** Keeps a log whose end does not read, for whoever looks into it, and begins a new one that says so. */
  #setAside(why: string): void {
    this.#file.close();
    const name = freeName(`${this.#path}.${why}`);
    Deno.renameSync(this.#path, name);
    this.#file = openLog(this.#path);
    this.append({ atMs: Date.now(), action: "audit-damaged", by: "", detail: `the log before is kept as ${name}` });
  }

  #follow(path: string): void {
    let file: Deno.FsFile;
    try {
      file = Deno.openSync(path, { read: true });
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return;
      throw error;
    }
    try {
      const { line } = lastLine(file);
      const entry = line === undefined ? undefined : parse(line);
      if (!entry) return;
      this.#seq = entry.seq;
      this.#head = entry.hash;
    } finally {
      file.close();
    }
  }

  #rotate(): void {
    this.#file.close();
    for (let i = this.#oldFilesMax; i >= 1; i--) {
      try {
        Deno.renameSync(i === 1 ? this.#path : `${this.#path}.${i - 1}`, `${this.#path}.${i}`);
      } catch (error) {
        if (!(error instanceof Deno.errors.NotFound)) throw error;
      }
    }
    this.#file = openLog(this.#path);
    this.#size = 0;
  }
}

/**
 * Checks a log; returns the number of the first entry that does not fit, or `undefined`.
 *
 * @param text One file, or several one after the other, the oldest first.
 * @param from Where the text does not begin with the first entry of all: its number and the hash it has to name;
 *   `"anywhere"` takes the first entry's word for both.
 */
export function verifyAudit(
  text: string,
  from: { readonly seq: number; readonly previous: string } | "anywhere" = { seq: 1, previous: NONE },
): number | undefined {
  let next = from === "anywhere" ? undefined : from;
  for (const line of text.split("\n")) {
    if (line === "") continue;
    const entry = parse(line);
    if (!entry) return next?.seq ?? 1;
    next ??= entry;
    if (entry.seq !== next.seq || entry.previous !== next.previous) return next.seq;
    next = { seq: entry.seq + 1, previous: entry.hash };
  }
  return undefined;
}

function openLog(path: string): Deno.FsFile {
  return Deno.openSync(path, { read: true, write: true, create: true, mode: 0o600 });
}

/** The last whole line of a file, and where it ends. In bytes: what is no UTF-8 must not move the end. */
function lastLine(file: Deno.FsFile): { readonly line: string | undefined; readonly endBytes: number } {
  const size = file.seekSync(0, Deno.SeekMode.End);
  const start = Math.max(0, size - TAIL_BYTES);
  file.seekSync(start, Deno.SeekMode.Start);
  const tail = new Uint8Array(size - start);
  for (let done = 0; done < tail.length;) {
    const read = file.readSync(tail.subarray(done));
    if (read === null) break;
    done += read;
  }
  const end = tail.lastIndexOf(0x0a) + 1;
  if (end === 0) return start === 0 ? { line: undefined, endBytes: 0 } : { line: "", endBytes: size };
  const begin = tail.subarray(0, end - 1).lastIndexOf(0x0a) + 1;
  try {
    return { line: fromUtf8(tail.subarray(begin, end - 1)), endBytes: start + end };
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    return { line: "", endBytes: start + end };
  }
}

/** The entry of a line whose own hash fits. */
function parse(line: string): AuditEntry | undefined {
  const [, body, hash] = /^(\{.*),"hash":"([0-9a-f]{64})"\}$/.exec(line) ?? [];
  if (body === undefined || hash !== hashOf(`${body}}`)) return undefined;
  try {
    const entry = JSON.parse(line) as Partial<AuditEntry>;
    return Number.isSafeInteger(entry.seq) && typeof entry.previous === "string" ? entry as AuditEntry : undefined;
  } catch {
    return undefined;
  }
}

function freeName(base: string): string {
  for (let i = 1;; i++) {
    try {
      Deno.lstatSync(`${base}-${i}`);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return `${base}-${i}`;
      throw error;
    }
  }
}

function hashOf(body: string): string {
  return toHex(hashParts("mycelium/audit/v1", utf8(body)));
}
