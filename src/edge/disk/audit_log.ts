/**
 * The audit log on the disk: `audit.log` in the state folder, as {@linkcode readLine} spells its lines.
 *
 * Every entry is durable before the call returns. A segment is closed by a seal when it has so many entries, when it
 * is so old, before the files are moved on, and at the stop.
 *
 * Bounded: a file that has grown to {@linkcode AuditLogOptions.fileBytesMax} is kept as `audit.log.1`, older ones move
 * on by one, and the oldest goes. The chain goes on over the files. The seal that is written before says which entry
 * is the first one kept, so that no more can go unnoticed than was let go.
 *
 * @module
 */

import { join } from "node:path";
import {
  type AuditEvent,
  type AuditHead,
  type AuditSeal,
  AuditVerifier,
  entryLine,
  isSealed,
  LINE_CHARS_MAX,
  NO_HASH,
  readLine,
  sealLine,
} from "../../access/audit.ts";
import { fromUtf8, utf8 } from "../../core/bytes.ts";
import type { KeyPair } from "../../core/crypto.ts";
import { nodeIdOf } from "../../core/ids.ts";

/** Options of an {@linkcode AuditLog}. */
export interface AuditLogOptions {
  /** @default 4 MiB */
  readonly fileBytesMax?: number;
  /** Files kept beside the one that is written. @default 7 */
  readonly oldFilesMax?: number;
  /** Entries of a segment. @default 64 */
  readonly segmentEntriesMax?: number;
  /** Time for which a segment stays open. @default five minutes */
  readonly segmentMs?: number;
  /** A segment was closed. */
  readonly sealed?: (head: AuditHead) => void;
}

/** Bytes of the end of a file that are read at the start: more than any segment of usual entries has. */
const TAIL_BYTES = 256 << 10;
/** Bytes that a seal takes, at the most. */
const SEAL_BYTES_MAX = 768;
/** Name of the log in the state folder. */
export const AUDIT_FILE = "audit.log";

/** Appends to `audit.log` in the state folder. */
export class AuditLog {
  readonly #path: string;
  readonly #fileBytesMax: number;
  readonly #oldFilesMax: number;
  readonly #segmentEntriesMax: number;
  readonly #segmentMs: number;
  readonly #sealed: (head: AuditHead) => void;
  #file: Deno.FsFile;
  #size = 0;
  #seq = 0;
  #head = NO_HASH;
  /** Number of the last seal and its hash; 0 where there is none yet. */
  #seal: AuditHead = { seq: 0, hash: NO_HASH };
  /** When the first entry of the open segment was written; missing where it has none. */
  #openedMs: number | undefined;
  /** First entry of each file, the oldest first, the one that is written last; 0 where that has none. */
  #firsts: number[] = [];
  #signer: KeyPair | undefined;
  #damage: string | undefined;

  /**
   * Opens the log, and makes it where there is none.
   *
   * @param dir State folder.
   */
  constructor(dir: string, options: AuditLogOptions = {}) {
    this.#path = join(dir, AUDIT_FILE);
    this.#fileBytesMax = options.fileBytesMax ?? 4 << 20;
    this.#oldFilesMax = options.oldFilesMax ?? 7;
    this.#segmentEntriesMax = options.segmentEntriesMax ?? 64;
    this.#segmentMs = options.segmentMs ?? 5 * 60_000;
    this.#sealed = options.sealed ?? (() => {});
    this.#file = openLog(this.#path);
    try {
      const damaged = !this.#take();
      this.#firsts = this.#findFirsts();
      if (damaged) this.#setAside("damaged", Date.now());
    } catch (error) {
      this.#file.close();
      throw error;
    }
  }

  /** Why a log was kept aside and another one begun, in this run. */
  get damage(): string | undefined {
    return this.#damage;
  }

  /** Where the chain stands. */
  get head(): AuditHead {
    return { seq: this.#seq, hash: this.#head };
  }

  /** The last seal; number 0 where there is none. */
  get seal(): AuditHead {
    return this.#seal;
  }

  /** First entry that is on the disk; 0 where there is none. */
  get kept(): number {
    return this.#firsts.find((one) => one > 0) ?? 0;
  }

  /**
   * Sets the key that signs segments. A log of another node, as a copied state folder has, is kept aside.
   *
   * @throws {Error} When the disk fails.
   */
  signWith(pair: KeyPair): void {
    this.#signer = pair;
    const sealed = this.#lastSealLine();
    if (sealed && sealed.node !== nodeIdOf(pair.publicKey)) this.#setAside("foreign", Date.now());
  }

  /**
   * Appends durably.
   *
   * @throws {Error} When the disk fails or is full; the log is as before then.
   */
  append(event: AuditEvent): void {
    const next = entryLine(event, this.#seq + 1, this.#head);
    if (this.#isFull(next.line)) {
      this.#rotate(event.atMs);
      return this.append(event);
    }
    this.#write(next);
    this.#openedMs ??= event.atMs;
    if (this.#seq - this.#seal.seq < this.#segmentEntriesMax) return;
    try {
      this.sealNow(event.atMs);
    } catch {
      // The entry is there, and the seal is tried again with the next one.
    }
  }

  /** Closes the segment where it is time; returns when it wants to be called again, `Infinity` where nothing is open. */
  tick(nowMs: number): number {
    if (this.#openedMs === undefined || !this.#signer) return Infinity;
    const dueMs = this.#openedMs + this.#segmentMs;
    // A clock that was set back must not keep a segment open for years.
    if (nowMs < dueMs && nowMs >= this.#openedMs - this.#segmentMs) return dueMs;
    this.sealNow(nowMs);
    return Infinity;
  }

  /**
   * Closes the segment, where it has entries and there is a key.
   *
   * @throws {Error} When the disk fails or is full; the log is as before then.
   */
  sealNow(nowMs: number): void {
    if (this.#signer && this.#seq > this.#seal.seq) this.#close(nowMs, this.kept, this.#signer);
  }

  #close(nowMs: number, kept: number, signer: KeyPair): void {
    const { seq, hash } = this.#seal;
    // What was kept before the first seal has no numbers of older segments.
    const from = seq === 0 ? Math.max(1, this.kept) : seq + 1;
    const next = sealLine({ from, kept: kept || 1, segment: hash, atMs: nowMs }, this.#seq + 1, this.#head, signer);
    this.#write(next);
    this.#seal = { seq: next.seq, hash: next.hash };
    this.#openedMs = undefined;
    this.#sealed(this.#seal);
  }

  /** Closes the last segment and the file. */
  close(nowMs: number = Date.now()): void {
    try {
      this.sealNow(nowMs);
    } finally {
      this.#file.close();
    }
  }

  #isFull(line: string): boolean {
    // Without a key nobody could say which entries were kept.
    if (this.#size === 0 || this.#seal.seq > 0 && !this.#signer) return false;
    return this.#size + utf8(line).length + 1 + (this.#signer ? SEAL_BYTES_MAX : 0) > this.#fileBytesMax;
  }

  #write(next: { readonly line: string } & AuditHead): void {
    const bytes = utf8(next.line + "\n");
    try {
      for (let done = 0; done < bytes.length;) done += this.#file.writeSync(bytes.subarray(done));
      this.#file.syncDataSync();
    } catch (error) {
      // Half an entry would spoil the ones after it.
      this.#file.truncateSync(this.#size);
      this.#file.seekSync(this.#size, Deno.SeekMode.Start);
      throw error;
    }
    if (this.#size === 0) this.#firsts[this.#firsts.length - 1] = next.seq;
    this.#size += bytes.length;
    this.#seq = next.seq;
    this.#head = next.hash;
  }

  /** Goes on from what the files hold; false where the end of the log does not read or does not hold together. */
  #take(): boolean {
    let found = readTail(this.#file);
    // A line that a power cut tore is no entry: nothing was answered on its strength.
    this.#file.truncateSync(found.endBytes);
    this.#file.seekSync(found.endBytes, Deno.SeekMode.Start);
    this.#size = found.endBytes;
    // Between two files there may be none: the chain goes on from the last one kept.
    if (this.#size === 0) found = readOldTail(`${this.#path}.1`) ?? found;
    const verifier = new AuditVerifier();
    for (const line of found.lines) {
      const read = verifier.line(line);
      if (!read) continue;
      this.#seq = read.seq;
      this.#head = read.hash;
      if (read.kind === "seal") {
        this.#seal = { seq: read.seq, hash: read.hash };
        this.#openedMs = undefined;
      } else this.#openedMs ??= Date.parse(read.at);
    }
    if (this.#seal.seq === 0 && this.#seq > 0) this.#findSeal();
    const { findings } = verifier.end();
    return findings.every((one) => one.what === "front-missing");
  }

  /** The last seal, where it is further back than the tail: before the update to seals, or among very long entries. */
  #findSeal(): void {
    for (let i = 0; i <= this.#oldFilesMax; i++) {
      let text: string;
      try {
        text = new TextDecoder().decode(Deno.readFileSync(i === 0 ? this.#path : `${this.#path}.${i}`));
      } catch (error) {
        if (error instanceof Deno.errors.NotFound) continue;
        throw error;
      }
      const at = text.lastIndexOf('"seal":{"from":');
      if (at < 0) continue;
      const begin = text.lastIndexOf("\n", at) + 1;
      const line = readLine(text.slice(begin, text.indexOf("\n", at)));
      if (typeof line === "object" && line.kind === "seal") return void (this.#seal = line);
    }
  }

  #lastSealLine(): AuditSeal | undefined {
    if (this.#seal.seq === 0) return undefined;
    for (const path of [this.#path, `${this.#path}.1`]) {
      let text: string;
      try {
        text = new TextDecoder().decode(Deno.readFileSync(path));
      } catch (error) {
        if (error instanceof Deno.errors.NotFound) continue;
        throw error;
      }
      const at = text.lastIndexOf(`"hash":"${this.#seal.hash}"}`);
      if (at < 0) continue;
      const begin = text.lastIndexOf("\n", at) + 1;
      const line = readLine(text.slice(begin, text.indexOf("\n", at)));
      if (typeof line === "object" && line.kind === "seal" && isSealed(line)) return line;
    }
    return undefined;
  }

  /** Keeps a log that cannot be gone on with, for whoever looks into it, and begins a new one that says so. */
  #setAside(why: "damaged" | "foreign", atMs: number): void {
    this.#file.close();
    const name = freeName(`${this.#path}.${why}`);
    Deno.renameSync(this.#path, name);
    this.#file = openLog(this.#path);
    const old = this.#oldFiles();
    this.#size = 0;
    // What was moved on before is of the chain that ends here; it stays beside the spoilt end of it.
    for (const { path, number } of old) Deno.renameSync(path, `${name}.${number}`);
    this.#firsts = [0];
    this.#seal = { seq: 0, hash: NO_HASH };
    this.#openedMs = undefined;
    this.#damage = why === "damaged"
      ? `its end did not hold together: it is kept as ${name}`
      : `it was of another node: it is kept as ${name}`;
    // Not from 1 again: others know of the numbers that there were.
    this.append({
      atMs,
      action: `audit-${why}`,
      by: "",
      outcome: "failed",
      target: name,
      detail: `the log before is kept as ${name}; its last entry that reads is ${this.#seq}`,
    });
  }

  #oldFiles(): { readonly path: string; readonly number: number }[] {
    const found: { path: string; number: number }[] = [];
    for (let number = 1; number <= this.#oldFilesMax; number++) {
      const path = `${this.#path}.${number}`;
      if (exists(path)) found.push({ path, number });
    }
    return found;
  }

  #findFirsts(): number[] {
    const firsts: number[] = [];
    for (const { path } of this.#oldFiles().reverse()) firsts.push(firstOf(path));
    return [...firsts, this.#size > 0 ? firstOf(this.#path) : 0];
  }

  #rotate(nowMs: number): void {
    const goes = this.#firsts.length > this.#oldFilesMax;
    const kept = goes ? this.#firsts.slice(1).find((one) => one > 0) : this.kept;
    // First what can fail for others' sake (no file is to be had): the log goes on where it was then.
    const fresh = openLog(`${this.#path}.new`);
    try {
      // A segment without entries as well: what goes now was said to be kept.
      if (this.#signer) this.#close(nowMs, kept ?? this.kept, this.#signer);
      for (let i = this.#oldFilesMax; i >= 1; i--) {
        try {
          Deno.renameSync(i === 1 ? this.#path : `${this.#path}.${i - 1}`, `${this.#path}.${i}`);
        } catch (error) {
          if (!(error instanceof Deno.errors.NotFound)) throw error;
        }
      }
      Deno.renameSync(`${this.#path}.new`, this.#path);
    } catch (error) {
      fresh.close();
      throw error;
    }
    this.#file.close();
    this.#file = fresh;
    this.#size = 0;
    this.#firsts = [...(goes ? this.#firsts.slice(1) : this.#firsts), 0];
  }
}

/**
 * Checks a log; returns the number of the first entry that does not fit, or `undefined`.
 *
 * @param text One file, or several one after the other, the oldest first.
 */
export function verifyAudit(text: string): number | undefined {
  const verifier = new AuditVerifier();
  for (const line of text.split("\n")) if (line !== "") verifier.line(line);
  return verifier.end().findings[0]?.seq;
}

/** Files of the log in a folder, the oldest first; those that were set aside are not among them. */
export function auditFiles(dir: string): string[] {
  const numbers: number[] = [];
  for (const { name, isFile } of Deno.readDirSync(dir)) {
    const [, number] = /^audit\.log(?:\.(\d{1,3}))?$/.exec(name) ?? [];
    if (isFile && name.startsWith(AUDIT_FILE) && (name === AUDIT_FILE || number !== undefined)) {
      numbers.push(Number(number ?? 0));
    }
  }
  return numbers.sort((a, b) => b - a).map((one) => join(dir, one === 0 ? AUDIT_FILE : `${AUDIT_FILE}.${one}`));
}

/**
 * The lines of a log, the oldest first, in groups that are read at once. What is written meanwhile is not among them;
 * files that are moved on meanwhile are read whole. A line that is longer than any entry comes in pieces, which read
 * as no entry.
 *
 * @throws {Deno.errors.NotFound} Where there is no log.
 */
export async function* readAuditLines(paths: readonly string[]): AsyncIterable<readonly string[]> {
  const files: { readonly file: Deno.FsFile; readonly size: number }[] = [];
  try {
    // At once: between two of them the writer could move the files on, and one would not be among them.
    for (const path of paths) {
      const file = Deno.openSync(path, { read: true });
      files.push({ file, size: file.statSync().size });
    }
    const decoder = new TextDecoder();
    for (const { file, size } of files) {
      const buffer = new Uint8Array(32 << 10);
      let rest: Uint8Array = new Uint8Array(0);
      for (let done = 0; done < size;) {
        const read = await file.read(buffer.subarray(0, Math.min(buffer.length, size - done)));
        if (read === null) break;
        done += read;
        const bytes = new Uint8Array(rest.length + read);
        bytes.set(rest);
        bytes.set(buffer.subarray(0, read), rest.length);
        let end = bytes.lastIndexOf(0x0a) + 1;
        if (end === 0 && bytes.length > LINE_CHARS_MAX * 3) end = bytes.length;
        rest = bytes.slice(end);
        if (end > 0) yield decoder.decode(bytes.subarray(0, end)).split("\n").filter((line) => line !== "");
      }
      if (rest.length > 0) yield [decoder.decode(rest)];
    }
  } finally {
    for (const { file } of files) file.close();
  }
}

function openLog(path: string): Deno.FsFile {
  return Deno.openSync(path, { read: true, write: true, create: true, mode: 0o600 });
}

/** The whole lines at the end of a file, and where they end. In bytes: what is no UTF-8 must not move the end. */
function readTail(file: Deno.FsFile): { readonly lines: readonly string[]; readonly endBytes: number } {
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
  // No end of a line in so many bytes: no log of ours.
  if (end === 0) return start === 0 ? { lines: [], endBytes: 0 } : { lines: [""], endBytes: size };
  const begin = start === 0 ? 0 : tail.indexOf(0x0a) + 1;
  let text: string;
  try {
    text = fromUtf8(tail.subarray(begin, end - 1));
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    return { lines: [""], endBytes: start + end };
  }
  return { lines: begin >= end ? [] : text.split("\n"), endBytes: start + end };
}

function readOldTail(path: string): ReturnType<typeof readTail> | undefined {
  let file: Deno.FsFile;
  try {
    file = Deno.openSync(path, { read: true });
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
  try {
    return readTail(file);
  } finally {
    file.close();
  }
}

/** Number of the first entry of a file; 0 where it does not read. */
function firstOf(path: string): number {
  const file = Deno.openSync(path, { read: true });
  try {
    const bytes = new Uint8Array(LINE_CHARS_MAX);
    const read = file.readSync(bytes) ?? 0;
    const end = bytes.subarray(0, read).indexOf(0x0a);
    const line = end < 0 ? "unreadable" : readLine(new TextDecoder().decode(bytes.subarray(0, end)));
    return typeof line === "string" ? 0 : line.seq;
  } finally {
    file.close();
  }
}

function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

function freeName(base: string): string {
  for (let i = 1;; i++) if (!exists(`${base}-${i}`)) return `${base}-${i}`;
}
