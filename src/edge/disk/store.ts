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
import type { Store } from "../../ports/storage.ts";

/** Version of the layout; a newer one is refused, an older one migrated forward. */
const LAYOUT_VERSION = 1;
/** `myc1` in ASCII: tells our file from any other SQLite file. */
const APPLICATION_ID = 0x6d796331;

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
      Deno.mkdirSync(secrets, { recursive: true, mode: 0o700 });
      Deno.chmodSync(dir, 0o700);
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
  let db: DatabaseSync;
  try {
    db = new DatabaseSync(file, { readOnly });
    // A holder that is just ending gets a moment to let go.
    db.exec("PRAGMA busy_timeout = 2000");
    if (!readOnly) {
      db.exec("PRAGMA locking_mode = EXCLUSIVE");
      db.exec("PRAGMA journal_mode = WAL");
      db.exec("PRAGMA synchronous = FULL");
      db.exec("BEGIN EXCLUSIVE; COMMIT");
    }
    migrate(db, file, readOnly);
  } catch (error) {
    throw explain(error, file);
  } finally {
    Deno.umask(previous);
  }
  return new SqliteStore(db, secrets);
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

class SqliteStore implements Store {
  readonly #put;
  readonly #delete;
  #open = true;

  constructor(readonly db: DatabaseSync, readonly secrets: string) {
    this.#put = db.prepare(
      "INSERT INTO entries (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
    );
    this.#delete = db.prepare("DELETE FROM entries WHERE key = ?");
  }

  load(): ReadonlyMap<string, Uint8Array> {
    const entries = new Map<string, Uint8Array>();
    const rows = this.db.prepare("SELECT key, value FROM entries").all() as { key: string; value: Uint8Array }[];
    for (const { key, value } of rows) entries.set(key, new Uint8Array(value));
    try {
      for (const entry of Deno.readDirSync(this.secrets)) {
        // A left-over of a write that a power cut interrupted.
        if (!entry.isFile || entry.name.endsWith(".new")) continue;
        entries.set(`secret/${entry.name}`, Deno.readFileSync(join(this.secrets, entry.name)));
      }
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
    return entries;
  }

  apply(puts: readonly (readonly [string, Uint8Array | null])[]): void {
    // Secrets first: a record may only stand where the key that it needs does. What is deleted goes last.
    for (const [key, value] of puts) if (isSecret(key) && value) this.#writeSecret(key, value);
    const records = puts.filter(([key]) => !isSecret(key));
    if (records.length > 0) {
      this.db.exec("BEGIN IMMEDIATE");
      try {
        for (const [key, value] of records) value ? this.#put.run(key, value) : this.#delete.run(key);
        this.db.exec("COMMIT");
      } catch (error) {
        this.db.exec("ROLLBACK");
        throw error;
      }
    }
    for (const [key, value] of puts) if (isSecret(key) && !value) this.#removeSecret(key);
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.db.close();
  }

  #writeSecret(key: string, value: Uint8Array): void {
    const path = this.#path(key);
    try {
      const stored = Deno.readFileSync(path);
      if (stored.length === value.length && stored.every((byte, i) => byte === value[i])) return;
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
    const file = Deno.openSync(`${path}.new`, { write: true, create: true, truncate: true, mode: 0o600 });
    try {
      for (let done = 0; done < value.length;) done += file.writeSync(value.subarray(done));
      file.syncSync();
    } finally {
      file.close();
    }
    Deno.renameSync(`${path}.new`, path);
    this.#syncFolder();
  }

  #removeSecret(key: string): void {
    try {
      Deno.removeSync(this.#path(key));
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
    this.#syncFolder();
  }

  #syncFolder(): void {
    const folder = Deno.openSync(this.secrets, { read: true });
    try {
      folder.syncSync();
    } finally {
      folder.close();
    }
  }

  #path(key: string): string {
    return join(this.secrets, key.slice("secret/".length));
  }
}

function isSecret(key: string): boolean {
  return key.startsWith("secret/");
}
