/**
 * The agent's store: SQLite for records, files of mode 0600 for secrets.
 *
 * SQLite (WAL, synchronous=FULL) rather than Deno KV: several puts are one transaction, a commit is one
 * fsync, and the file can be read by tools that everybody has (ADR 3). An exclusive lock makes sure that
 * one agent uses a state folder at a time.
 *
 * @module
 */

import { DatabaseSync } from "node:sqlite";
import { join } from "node:path";
import { toHex } from "../../core/bytes.ts";
import { array, decodeAs, encodeCbor, record, text, uint, WireError } from "../../core/codec.ts";
import { sha256 } from "../../core/crypto.ts";
import type { Store } from "../../ports/storage.ts";

/** Version of the layout; a newer one is refused, an older one migrated forward. */
const LAYOUT_VERSION = 1;
/** `myc1` in ASCII: tells our file from any other SQLite file. */
const APPLICATION_ID = 0x6d796331;

/** Entry that tells which changes of secret files belong to the last transaction; never shown. */
const JOURNAL = "~secrets";
const readJournal = array(record({ k: text(64), h: text(64), w: uint(1) }), 64);

/** The state folder cannot be used. */
export class StateError extends Error {
  override readonly name = "StateError";
  /** @param cure What would help, one sentence. */
  constructor(message: string, readonly cure: string, options?: ErrorOptions) {
    super(message, options);
  }
}

/** Options of {@linkcode openStore}. */
export interface OpenStoreOptions {
  /** Open without the lock and without changing anything, to look at the state of an agent that does not run. */
  readonly readOnly?: boolean;
}

/**
 * Opens the store of a state folder; makes both where they are missing.
 *
 * @throws {StateError} When another agent uses it, it is damaged, of a newer version, or not ours.
 */
export function openStore(dir: string, options: OpenStoreOptions = {}): Store {
  const { readOnly = false } = options;
  const secrets = join(dir, "secret");
  const file = join(dir, "state.db");
  try {
    if (!readOnly) {
      const ours = mayOwn(dir, file);
      Deno.mkdirSync(secrets, { recursive: true, mode: 0o700 });
      // A folder that holds other things, /tmp say, keeps its rights; what is secret has a folder of its own.
      if (ours) Deno.chmodSync(dir, 0o700);
      Deno.chmodSync(secrets, 0o700);
    }
  } catch (error) {
    throw new StateError(
      `Cannot use state folder "${dir}": ${(error as Error).message}`,
      "Name a folder that this user can write: --state <dir>",
      { cause: error },
    );
  }
  const previous = Deno.umask(0o077);
  let db: DatabaseSync | undefined;
  try {
    db = new DatabaseSync(file, { readOnly });
    // A holder that is just ending gets a moment to let go.
    db.exec("PRAGMA busy_timeout = 2000");
    if (!readOnly) {
      db.exec("PRAGMA locking_mode = EXCLUSIVE");
      db.exec("PRAGMA journal_mode = WAL");
      db.exec("PRAGMA synchronous = FULL");
      db.exec("BEGIN EXCLUSIVE; COMMIT");
      // Damage that is met by chance later would end the node in the middle of its work.
      const check = Object.values(db.prepare("PRAGMA quick_check(1)").get() as Record<string, string>)[0];
      if (check !== "ok") throw new Error(`database disk image is malformed: ${check}`);
    }
    migrate(db, file, readOnly);
    const store = new SqliteStore(db, secrets);
    if (!readOnly) store.recover();
    return store;
  } catch (error) {
    db?.close();
    throw explain(error, file);
  } finally {
    Deno.umask(previous);
  }
}

/** Whether the state folder is only ours: new, empty, or with a store in it. */
function mayOwn(dir: string, file: string): boolean {
  try {
    for (const _ of Deno.readDirSync(dir)) return exists(file);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  return true;
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

function migrate(db: DatabaseSync, file: string, readOnly: boolean): void {
  const version = pragma(db, "user_version");
  const application = pragma(db, "application_id");
  if (version === 0 && !readOnly) {
    const tables = db.prepare("SELECT count(*) AS n FROM sqlite_master").get() as { n: number };
    if (tables.n > 0) {
      throw new StateError(`Cannot use "${file}": it is not a store of mycelium`, "Name another folder: --state <dir>");
    }
    db.exec(`BEGIN; CREATE TABLE entries (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
      PRAGMA application_id = ${APPLICATION_ID}; PRAGMA user_version = ${LAYOUT_VERSION}; COMMIT`);
    return;
  }
  if (application !== APPLICATION_ID) {
    throw new StateError(`Cannot use "${file}": it is not a store of mycelium`, "Name another folder: --state <dir>");
  }
  if (version > LAYOUT_VERSION) {
    throw new StateError(
      `Cannot use "${file}": its layout is version ${version}, this program knows ${LAYOUT_VERSION}`,
      "Upgrade the program, or restore the backup that the upgrade made",
    );
  }
}

function pragma(db: DatabaseSync, name: string): number {
  return Object.values(db.prepare(`PRAGMA ${name}`).get() as Record<string, number>)[0] ?? 0;
}

function explain(error: unknown, file: string): StateError {
  if (error instanceof StateError) return error;
  const message = (error as Error).message;
  if (/locked|busy/i.test(message)) {
    return new StateError(
      `Cannot use "${file}": another agent uses it`,
      "Talk to that agent (mycelium status), or name another folder: --state <dir>",
      { cause: error },
    );
  }
  if (/database or disk is full|ENOSPC|No space left/i.test(message)) {
    return new StateError(`Cannot use "${file}": the disk is full`, "Make room on the disk of the state folder", {
      cause: error,
    });
  }
  if (/readonly|read-only|EROFS|EACCES|permission/i.test(message)) {
    return new StateError(
      `Cannot use "${file}": it cannot be written (${message})`,
      "Name a folder that this user can write: --state <dir>",
      { cause: error },
    );
  }
  if (/malformed|not a database|corrupt/i.test(message)) {
    return new StateError(
      `Cannot use "${file}": it is damaged (${message})`,
      "Restore the folder from a backup; or move it away and join again with a new invite",
      { cause: error },
    );
  }
  return new StateError(`Cannot use "${file}": ${message}`, "Check the disk and the rights on the folder", {
    cause: error,
  });
}

/**
 * Records are rows; secrets are files. Both change together: a new secret is staged beside the old one, the
 * transaction that stores the records names what is staged, and only then are the files put in place. Whatever
 * dies in between, the next start finishes what was committed and drops what was not.
 */
class SqliteStore implements Store {
  readonly #put;
  readonly #delete;
  readonly #begin;
  readonly #commit;
  #open = true;

  constructor(readonly db: DatabaseSync, readonly secrets: string) {
    this.#put = db.prepare(
      "INSERT INTO entries (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
    );
    this.#delete = db.prepare("DELETE FROM entries WHERE key = ?");
    this.#begin = db.prepare("BEGIN IMMEDIATE");
    this.#commit = db.prepare("COMMIT");
  }

  /** Finishes or drops what a crash interrupted. */
  recover(): void {
    const row = this.db.prepare("SELECT value FROM entries WHERE key = ?").get(JOURNAL) as
      | { value: Uint8Array }
      | undefined;
    if (row) this.#finish(this.#journal(new Uint8Array(row.value)));
    for (const entry of Deno.readDirSync(this.secrets)) {
      if (entry.isFile && entry.name.endsWith(STAGED)) Deno.removeSync(join(this.secrets, entry.name));
    }
  }

  load(): ReadonlyMap<string, Uint8Array> {
    const entries = new Map<string, Uint8Array>();
    const rows = this.db.prepare("SELECT key, value FROM entries").all() as { key: string; value: Uint8Array }[];
    for (const { key, value } of rows) if (key !== JOURNAL) entries.set(key, new Uint8Array(value));
    try {
      for (const entry of Deno.readDirSync(this.secrets)) {
        if (!entry.isFile || entry.name.endsWith(STAGED)) continue;
        entries.set(`secret/${entry.name}`, Deno.readFileSync(join(this.secrets, entry.name)));
      }
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
    return entries;
  }

  apply(puts: readonly (readonly [string, Uint8Array | null])[]): void {
    const changes: SecretChange[] = [];
    const records = puts.filter(([key]) => !isSecret(key));
    try {
      for (const [key, value] of puts) {
        if (!isSecret(key) || this.#stored(key, value)) continue;
        const hash = value ? toHex(sha256(value)) : "";
        if (value) this.#stage(key, value);
        changes.push({ k: key.slice("secret/".length), h: hash, w: value ? 1 : 0 });
      }
      if (changes.some((one) => one.w === 1)) this.#syncFolder();
      if (changes.length > 0) records.push([JOURNAL, encodeCbor(changes.map((one) => ({ ...one })))]);
      if (records.length > 0) this.#transaction(records);
    } catch (error) {
      for (const { k } of changes) removeIfThere(join(this.secrets, k + STAGED));
      throw error;
    }
    this.#finish(changes);
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.db.close();
  }

  #transaction(records: readonly (readonly [string, Uint8Array | null])[]): void {
    // One statement is a transaction by itself.
    const several = records.length > 1;
    if (several) this.#begin.run();
    try {
      for (const [key, value] of records) value ? this.#put.run(key, value) : this.#delete.run(key);
      if (several) this.#commit.run();
    } catch (error) {
      try {
        if (several) this.db.exec("ROLLBACK");
      } catch {
        // A full disk has rolled it back already; the first error is the one that says why.
      }
      throw error;
    }
  }

  #journal(value: Uint8Array): readonly SecretChange[] {
    try {
      return decodeAs(value, readJournal);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      throw new StateError(
        `Cannot use "${this.secrets}": the note of its last change is damaged (${error.message})`,
        "Restore the folder from a backup; or move it away and join again with a new invite",
        { cause: error },
      );
    }
  }

  /** Puts into place what was committed. May run again: what is in place already stays. */
  #finish(changes: readonly SecretChange[]): void {
    if (changes.length === 0) return;
    for (const { k, h, w } of changes) {
      const path = join(this.secrets, k);
      if (w === 0) removeIfThere(path);
      else if (hashOfFile(path + STAGED) === h) Deno.renameSync(path + STAGED, path);
    }
    this.#syncFolder();
  }

  /** Whether a secret stands as it is wanted already. */
  #stored(key: string, value: Uint8Array | null): boolean {
    const path = join(this.secrets, key.slice("secret/".length));
    return value ? hashOfFile(path) === toHex(sha256(value)) : !exists(path);
  }

  #stage(key: string, value: Uint8Array): void {
    const path = join(this.secrets, key.slice("secret/".length) + STAGED);
    const file = Deno.openSync(path, { write: true, create: true, truncate: true, mode: 0o600 });
    try {
      for (let done = 0; done < value.length;) done += file.writeSync(value.subarray(done));
      file.syncSync();
    } catch (error) {
      removeIfThere(path);
      throw error;
    } finally {
      file.close();
    }
  }

  #syncFolder(): void {
    const folder = Deno.openSync(this.secrets, { read: true });
    try {
      folder.syncSync();
    } finally {
      folder.close();
    }
  }
}

/** A change of one secret file: its name, hash of the new content in hexadecimal, and 1 to write or 0 to remove. */
interface SecretChange {
  readonly k: string;
  readonly h: string;
  readonly w: number;
}

/** End of the name of a secret that is not in place yet. */
const STAGED = ".new";

function removeIfThere(path: string): void {
  try {
    Deno.removeSync(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

function hashOfFile(path: string): string | undefined {
  try {
    return toHex(sha256(Deno.readFileSync(path)));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

function isSecret(key: string): boolean {
  return key.startsWith("secret/");
}
