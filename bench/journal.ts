/**
 * Durable commits: entries of the Raft log through the store of a node, with 1 and with 100 writers at once.
 *
 * usage: deno run -A bench/journal.ts [SECONDS_PER_ROUND] [ROUNDS] [--dir=FOLDER]
 *
 * A writer waits until its entry is durable before it has another one; those that wait at the same time share a transaction,
 * as in the runtime. Beside it, alternately and on the same disk: one insert a transaction with `node:sqlite`
 * (WAL, synchronous=FULL), which is the reference, and the same bytes appended to a file with `fdatasync` after each, which is
 * what the disk can do. Where the folder is in memory (tmpfs) the figures say nothing of a disk: name another one.
 *
 * @module
 */

import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { openStore } from "../src/edge/disk/store.ts";
import { median, type Pair, report, round } from "./processes.ts";

const ENTRY_BYTES = 256;
/** A log is cut off behind; so is this one. */
const KEPT = 4_096;
const WRITERS = [
  { writers: 1, bar: 1.12, extreme: 0.81 },
  { writers: 100, bar: 0.1, extreme: 0.025 },
] as const;

const [seconds = 1, rounds = 5] = Deno.args.filter((one) => /^\d+$/.test(one)).map(Number);
const parent = Deno.args.find((one) => one.startsWith("--dir="))?.slice(6);
const dir = await Deno.makeTempDir({ prefix: "mycelium-journal-", ...(parent ? { dir: parent } : {}) });

/** Each one different: SQLite does not write what is there already. */
let made = 0;
function entry(): Uint8Array {
  const bytes = new Uint8Array(ENTRY_BYTES);
  new DataView(bytes.buffer).setUint32(0, made++);
  return bytes;
}

/** Calls a commit as often as the time allows; returns microseconds an entry. */
function measure(entriesEach: number, commit: (i: number) => void): number {
  const startMs = performance.now();
  const endMs = startMs + seconds * 1_000;
  let commits = 0;
  while (performance.now() < endMs) commit(commits++);
  return (performance.now() - startMs) * 1_000 / (commits * entriesEach);
}

try {
  const store = openStore(join(dir, "ours"));
  const db = new DatabaseSync(join(dir, "reference.db"));
  db.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE log (i INTEGER PRIMARY KEY, entry BLOB)");
  const insert = db.prepare("INSERT OR REPLACE INTO log VALUES (?, ?)");
  using file = await Deno.open(join(dir, "appended"), { create: true, write: true, append: true });
  const key = (i: number) => `raft/log/${String(i % KEPT).padStart(16, "0")}`;
  for (const { writers, bar, extreme } of WRITERS) {
    const pairs: Pair[] = [];
    const appends: number[] = [];
    for (let i = 0; i < rounds; i++) {
      const ours = measure(writers, (commit) => {
        const waiting = Array.from({ length: writers }, (_, n) => [key(commit * writers + n), entry()] as const);
        store.apply(waiting);
      });
      const reference = measure(1, (commit) => void insert.run(commit % KEPT, entry()));
      pairs.push({ ours, reference });
      appends.push(measure(1, () => {
        file.writeSync(entry());
        file.syncDataSync();
      }));
    }
    const appendUs = median(appends);
    report({
      name: `journal: ${writers} writer${writers > 1 ? "s" : ""}, a durable entry, against node:sqlite FULL`,
      unit: "us",
      bar,
      extreme,
      pairs,
      more: {
        perSecond: round(1e6 / median(pairs.map((one) => one.ours))),
        fdatasyncUs: round(appendUs),
        ofFdatasyncRate: round(appendUs / median(pairs.map((one) => one.ours))),
      },
    });
  }
  db.close();
  store.close();
} finally {
  await Deno.remove(dir, { recursive: true });
}
