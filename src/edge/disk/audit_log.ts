/**
 * The audit log: one JSON line an entry, each holding the hash of the one before.
 *
 * @module
 */

import { join } from "node:path";
import { toHex, utf8 } from "../../core/bytes.ts";
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
}

/** Appends to `audit.log` in the state folder. */
export class AuditLog {
  readonly #file: Deno.FsFile;
  #seq = 0;
  #head = "0".repeat(64);

  /** @param dir State folder. */
  constructor(dir: string) {
    const path = join(dir, "audit.log");
    let text = "";
    try {
      text = Deno.readTextFileSync(path);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
    const end = text.lastIndexOf("\n") + 1;
    // A line that a power cut tore is no entry: nothing was answered on its strength.
    const lines = text.slice(0, end).split("\n").filter((line) => line !== "");
    const last = lines.at(-1);
    if (last !== undefined) {
      this.#seq = (JSON.parse(last) as AuditEntry).seq;
      this.#head = hashOf(last);
    }
    this.#file = Deno.openSync(path, { write: true, create: true, mode: 0o600 });
    this.#file.truncateSync(utf8(text.slice(0, end)).length);
    this.#file.seekSync(0, Deno.SeekMode.End);
  }

  /** Appends durably. */
  append(
    entry: { readonly atMs: number; readonly action: string; readonly by: string; readonly detail: string },
  ): void {
    const line = JSON.stringify(
      {
        seq: this.#seq + 1,
        at: new Date(entry.atMs).toISOString(),
        action: entry.action,
        by: entry.by,
        detail: entry.detail,
        previous: this.#head,
      } satisfies AuditEntry,
    );
    const bytes = utf8(line + "\n");
    for (let done = 0; done < bytes.length;) done += this.#file.writeSync(bytes.subarray(done));
    this.#file.syncDataSync();
    this.#seq += 1;
    this.#head = hashOf(line);
  }

  close(): void {
    this.#file.close();
  }
}

/** Checks a whole log; returns the number of the first entry that does not fit, or `undefined`. */
export function verifyAudit(text: string): number | undefined {
  let head = "0".repeat(64);
  let seq = 0;
  for (const line of text.split("\n")) {
    if (line === "") continue;
    seq += 1;
    try {
      const entry = JSON.parse(line) as AuditEntry;
      if (entry.seq !== seq || entry.previous !== head) return seq;
    } catch {
      return seq;
    }
    head = hashOf(line);
  }
  return undefined;
}

function hashOf(line: string): string {
  return toHex(hashParts("mycelium/audit/v1", utf8(line)));
}
