/** The store and the audit log on a real disk: killed processes, full and read-only disks, foreign and damaged files. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { toHex } from "../../src/core/bytes.ts";
import { encodeCbor } from "../../src/core/codec.ts";
import { sha256 } from "../../src/core/crypto.ts";
import { AuditLog, verifyAudit } from "../../src/edge/disk/audit_log.ts";
import { openStore, StateError } from "../../src/edge/disk/store.ts";
import { readStoredState } from "../../src/edge/stored_state.ts";
import { roundOf } from "../testkit/store_child.ts";

const CHILD = new URL("../testkit/store_child.ts", import.meta.url).pathname;

function folder(): Disposable & { readonly path: string } {
  const path = Deno.makeTempDirSync({ prefix: "store-" });
  return { path, [Symbol.dispose]: () => Deno.removeSync(path, { recursive: true }) };
}

function numberIn(value: Uint8Array | undefined): number {
  return value ? new DataView(value.buffer, value.byteOffset).getUint32(0) : 0;
}

/** What a store has to hold after so many rounds. */
function expected(n: number): ReadonlyMap<string, Uint8Array> {
  const entries = new Map<string, Uint8Array>();
  for (let i = Math.max(1, n - 20); i <= n; i++) {
    for (const [key, value] of roundOf(i)) value ? entries.set(key, value) : entries.delete(key);
  }
  return entries;
}

/** Runs the child in a mount namespace of its own where the folder is a small disk. */
async function onDisk(mount: string, dir: string, mode: string): Promise<string> {
  const script = `${mount} && exec "$0" run -A --no-check "$1" "$2" "$3"`;
  const { stdout, stderr, success } = await new Deno.Command("unshare", {
    args: ["-m", "sh", "-c", script, Deno.execPath(), CHILD, mode, dir],
  }).output();
  assert.ok(success, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout);
}

const mayMount = new Deno.Command("unshare", { args: ["-m", "true"], stdout: "null", stderr: "null" }).outputSync()
  .success;

Deno.test("[1.3d] kill -9 in the middle of writes, ten times: what was acknowledged is there, all of it or nothing", async () => {
  using dir = folder();
  let acknowledged = 0;
  for (let run = 0; run < 10; run++) {
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--no-check", CHILD, "write", dir.path],
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    const lines = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    const killMs = 5 + 23 * run;
    let timer: ReturnType<typeof setTimeout> | undefined;
    while (true) {
      const { done, value } = await lines.read();
      if (done) break;
      text += value;
      timer ??= setTimeout(() => child.kill("SIGKILL"), killMs);
    }
    clearTimeout(timer);
    await child.status;
    const heard = text.slice(0, text.lastIndexOf("\n")).split("\n").map(Number);
    assert.ok(heard.length > 0 && heard.every((n, i) => i === 0 || n === heard[i - 1]! + 1));
    assert.equal(heard[0], acknowledged + 1, "it went on where it was");
    const last = heard.at(-1)!;
    const store = openStore(dir.path);
    try {
      const entries = store.load();
      const n = numberIn(entries.get("counter"));
      assert.ok(n === last || n === last + 1, `${last} was acknowledged, ${n} is stored`);
      assert.deepEqual(new Map([...entries].sort()), new Map([...expected(n)].sort()), "no round is half there");
      acknowledged = n;
    } finally {
      store.close();
    }
    const audit = new AuditLog(dir.path);
    audit.close();
    const log = Deno.readTextFileSync(join(dir.path, "audit.log"));
    assert.equal(verifyAudit(log), undefined, "the audit chain holds");
    // The entry comes before the act: none of those that were acknowledged is missing.
    assert.ok(log.includes(`"detail":"${last}"`));
    // Its count need not agree with the store's: an entry whose act never came is told again.
  }
  assert.ok(acknowledged > 20, `${acknowledged} rounds`);
});

Deno.test("[1.3d] a crash between the records and the files of secrets is finished or undone by the next start", () => {
  using dir = folder();
  const secrets = join(dir.path, "secret");
  openStore(dir.path).close();
  const value = new Uint8Array([1, 2, 3]);
  // Staged, and the transaction never came.
  Deno.writeFileSync(join(secrets, "lost.new"), value);
  let store = openStore(dir.path);
  assert.deepEqual([...store.load().keys()], []);
  store.apply([["a", value], ["secret/old", value]]);
  store.close();
  assert.throws(() => Deno.statSync(join(secrets, "lost.new")), Deno.errors.NotFound);
  // The transaction has come, and neither the new file was put in place nor the old one removed.
  const fresh = new Uint8Array([9, 9]);
  Deno.writeFileSync(join(secrets, "fresh.new"), fresh);
  const db = new DatabaseSync(join(dir.path, "state.db"));
  const journal = encodeCbor([{ k: "fresh", h: toHex(sha256(fresh)), w: 1 }, { k: "old", h: "", w: 0 }]);
  db.prepare("UPDATE entries SET value = ? WHERE key = '~secrets'").run(journal);
  db.close();
  store = openStore(dir.path);
  assert.deepEqual([...store.load()].sort(), [["a", value], ["secret/fresh", fresh]]);
  // What a later write has changed is not done again.
  store.apply([["secret/fresh", value]]);
  store.apply([["secret/fresh", null]]);
  store.apply([["b", value]]);
  store.close();
  store = openStore(dir.path);
  assert.deepEqual([...store.load().keys()].sort(), ["a", "b"]);
  store.close();
});

Deno.test(
  "[1.3d] a full disk: the write fails as a whole, and goes on when there is room",
  { ignore: !mayMount },
  async () => {
    using dir = folder();
    const out = await onDisk(`mount -t tmpfs -o size=1m none "${dir.path}"`, dir.path, "fill");
    const result = JSON.parse(out);
    assert.match(result.failure, /full|space/i);
    assert.match(result.auditFailure, /space/i);
    assert.ok(result.acknowledged > 10);
    assert.equal(result.before, result.acknowledged, "all that was acknowledged, and nothing of the one that failed");
    assert.equal(result.secretBefore, result.acknowledged, "secrets as well");
    assert.equal(result.after, result.acknowledged + 1);
    assert.equal(verifyAudit(result.log), undefined, "no half entry in the audit log");
    assert.equal(result.log.match(/"action":/g)?.length, result.audited + 1);
    assert.match(result.log, /"seal":/);
  },
);

Deno.test("a read-only folder, and one that is none, are refused with what to do", { ignore: !mayMount }, async () => {
  using dir = folder();
  const bind = `mount --bind "${dir.path}" "${dir.path}" && mount -o remount,ro,bind "${dir.path}"`;
  const refused = JSON.parse(await onDisk(bind, dir.path, "open"));
  assert.match(refused.refused, /Cannot use/);
  assert.match(refused.cure, /--state/);
  // One that was in use before.
  openStore(dir.path).close();
  const later = JSON.parse(await onDisk(bind, dir.path, "open"));
  assert.match(later.refused, /Cannot use/);
  const file = join(dir.path, "file");
  Deno.writeTextFileSync(file, "");
  assert.throws(() => openStore(file), (error) => error instanceof StateError && /--state/.test(error.cure));
});

Deno.test("two agents on one folder: the second is refused and told so, in another process and in this one", async () => {
  using dir = folder();
  const store = openStore(dir.path);
  const other = new Deno.Command(Deno.execPath(), { args: ["run", "-A", "--no-check", CHILD, "open", dir.path] });
  const refused = JSON.parse(new TextDecoder().decode((await other.output()).stdout));
  assert.match(refused.refused, /another agent uses it/);
  assert.match(refused.cure, /mycelium status/);
  assert.throws(() => openStore(dir.path), /another agent uses it/);
  // A look from outside is no use of it, and does not break in.
  assert.equal(await readStoredState(dir.path), undefined);
  store.apply([["still", new Uint8Array([1])]]);
  store.close();
  assert.match(new TextDecoder().decode((await other.output()).stdout), /opened/);
});

Deno.test("a store of a newer program, a damaged one and a foreign file are refused and not touched", () => {
  const file = (dir: string) => join(dir, "state.db");
  const refusedAs = (dir: string, message: RegExp) => {
    const before = Deno.readFileSync(file(dir));
    assert.throws(
      () => openStore(dir),
      (error) => error instanceof StateError && message.test(error.message) && error.cure !== "",
    );
    assert.deepEqual(Deno.readFileSync(file(dir)), before, "not a byte is changed");
  };
  {
    using dir = folder();
    openStore(dir.path).close();
    const db = new DatabaseSync(file(dir.path));
    db.exec("PRAGMA user_version = 99");
    db.close();
    refusedAs(dir.path, /layout is version 99/);
  }
  {
    using dir = folder();
    const store = openStore(dir.path);
    for (let i = 0; i < 200; i++) store.apply([[`row/${i}`, new Uint8Array(500).fill(i)]]);
    store.close();
    const bytes = Deno.readFileSync(file(dir.path));
    bytes.fill(0xee, 8_192, bytes.length - 4_096);
    Deno.writeFileSync(file(dir.path), bytes);
    refusedAs(dir.path, /damaged/);
    Deno.writeFileSync(file(dir.path), bytes.subarray(0, 5_000));
    assert.throws(() => openStore(dir.path), StateError);
  }
  {
    using dir = folder();
    Deno.writeTextFileSync(file(dir.path), "a letter to my grandmother\n".repeat(400));
    refusedAs(dir.path, /damaged|not a database/);
  }
  {
    using dir = folder();
    const db = new DatabaseSync(file(dir.path));
    db.exec("CREATE TABLE recipes (name TEXT); INSERT INTO recipes VALUES ('plum cake')");
    db.close();
    assert.throws(() => openStore(dir.path), /not a store of mycelium/);
    const again = new DatabaseSync(file(dir.path));
    assert.equal((again.prepare("SELECT name FROM recipes").get() as { name: string }).name, "plum cake");
    again.close();
  }
});

Deno.test("secrets are for their owner only; a folder that holds other things keeps its rights", () => {
  using dir = folder();
  const mode = (path: string) => Deno.statSync(path).mode! & 0o777;
  Deno.chmodSync(dir.path, 0o755);
  const store = openStore(dir.path);
  store.apply([["secret/node.key", new Uint8Array(32)], ["a", new Uint8Array(1)]]);
  assert.equal(mode(dir.path), 0o700);
  assert.equal(mode(join(dir.path, "secret")), 0o700);
  assert.equal(mode(join(dir.path, "secret", "node.key")), 0o600);
  for (const name of ["state.db", "state.db-wal"]) assert.equal(mode(join(dir.path, name)), 0o600, name);
  const audit = new AuditLog(dir.path);
  audit.close();
  assert.equal(mode(join(dir.path, "audit.log")), 0o600);
  store.close();
  assert.ok(
    !new TextDecoder("latin1").decode(Deno.readFileSync(join(dir.path, "state.db"))).includes("\0".repeat(32) + "node"),
  );
  using shared = folder();
  Deno.chmodSync(shared.path, 0o755);
  Deno.writeTextFileSync(join(shared.path, "somebody-else"), "");
  openStore(shared.path).close();
  assert.equal(mode(shared.path), 0o755);
  assert.equal(mode(join(shared.path, "secret")), 0o700);
  assert.equal(mode(join(shared.path, "state.db")), 0o600);
});
