/** The audit log on a real disk: segments, files that move on, torn and spoilt ends, killed writers, copied folders. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { AuditVerifier, readLine } from "../../src/access/audit.ts";
import { keyPairFromSeed } from "../../src/core/crypto.ts";
import { nodeIdOf } from "../../src/core/ids.ts";
import { auditFiles, AuditLog, readAuditLines, verifyAudit } from "../../src/edge/disk/audit_log.ts";

const KEY = keyPairFromSeed(new Uint8Array(32).fill(7));
const CHILD = new URL("../testkit/store_child.ts", import.meta.url).pathname;

function folder(): Disposable & { readonly path: string } {
  const path = Deno.makeTempDirSync({ prefix: "audit-" });
  return { path, [Symbol.dispose]: () => Deno.removeSync(path, { recursive: true }) };
}

/** A log of ten entries that nobody signs. */
function logOf(dir: string): string[] {
  const audit = new AuditLog(dir);
  for (let i = 1; i <= 10; i++) audit.append({ atMs: i, action: "act", by: "somebody", detail: `detail ${i}` });
  audit.close();
  return Deno.readTextFileSync(join(dir, "audit.log")).trimEnd().split("\n");
}

function closing(log: AuditLog): Disposable & { readonly log: AuditLog } {
  return { log, [Symbol.dispose]: () => log.close() };
}

/** What is wrong with the log of a folder. */
async function checked(dir: string): Promise<ReturnType<AuditVerifier["end"]>> {
  const verifier = new AuditVerifier({ node: nodeIdOf(KEY.publicKey) });
  for await (const lines of readAuditLines(auditFiles(dir))) for (const line of lines) verifier.line(line);
  return verifier.end();
}

Deno.test("[10.5d] the audit log shows any entry that was changed, taken out, put in or moved", () => {
  using dir = folder();
  const lines = logOf(dir.path);
  assert.equal(verifyAudit(lines.join("\n")), undefined);
  for (let i = 0; i < lines.length; i++) {
    const changed = lines.with(i, lines[i]!.replace("somebody", "nobody__"));
    assert.equal(verifyAudit(changed.join("\n")), i + 1, `changed ${i + 1}`);
    const flipped = lines.with(i, lines[i]!.replace(`detail ${i + 1}`, `detail ${i + 2}`));
    assert.equal(verifyAudit(flipped.join("\n")), i + 1);
    if (i > 0 && i < lines.length - 1) {
      assert.equal(verifyAudit(lines.toSpliced(i, 1).join("\n")), i + 1, `without ${i + 1}`);
      const moved = lines.toSpliced(i, 2, lines[i + 1]!, lines[i]!);
      assert.equal(verifyAudit(moved.join("\n")), i + 1, `${i + 1} and the next exchanged`);
    }
    assert.notEqual(verifyAudit(lines.toSpliced(i, 0, lines[i]!).join("\n")), undefined, `${i + 1} twice`);
  }
});

Deno.test("[10.5d] a torn last line is dropped, a spoilt log is kept aside, and the node goes on writing", () => {
  using dir = folder();
  const lines = logOf(dir.path);
  const path = join(dir.path, "audit.log");
  // Bytes that are no text, as an unlucky block leaves them, must not move the end.
  const torn = new Uint8Array([...new TextEncoder().encode(lines.join("\n") + "\n"), 0xff, 0xc3, 0x28, 0, 0, 0x7b]);
  Deno.writeFileSync(path, torn);
  let audit = new AuditLog(dir.path);
  audit.append({ atMs: 11, action: "act", by: "", detail: "after the crash" });
  audit.close();
  const healed = Deno.readTextFileSync(path);
  assert.equal(verifyAudit(healed), undefined);
  assert.equal(healed.trimEnd().split("\n").length, 11);
  for (const spoilt of ["not json\n", "\0\0\0\0\n", '{"seq":1}\n', lines[0]!.slice(0, 40) + "\n", "\n\n"]) {
    Deno.writeTextFileSync(path, healed + spoilt);
    audit = new AuditLog(dir.path);
    audit.append({ atMs: 12, action: "act", by: "", detail: "goes on" });
    audit.close();
    const fresh = Deno.readTextFileSync(path);
    assert.equal(verifyAudit(fresh), undefined);
    assert.match(fresh, /audit-damaged/);
    const first = readLine(fresh.split("\n")[0]!);
    assert.ok(typeof first === "object" && first.seq === 12, "its numbers go on: others know of those before");
  }
  const kept = [...Deno.readDirSync(dir.path)].filter((one) => one.name.startsWith("audit.log.damaged-"));
  assert.equal(kept.length, 5, "each is kept for whoever looks into it");
});

Deno.test("[10.5d] [2.4d] the audit log is bounded, and its chain of signed segments goes on over files and restarts", async () => {
  using dir = folder();
  const options = { fileBytesMax: 8_000, oldFilesMax: 3, segmentEntriesMax: 7 };
  const heads: number[] = [];
  for (let run = 0; run < 6; run++) {
    const audit = new AuditLog(dir.path, { ...options, sealed: ({ seq }) => heads.push(seq) });
    audit.signWith(KEY);
    for (let i = 0; i < 20; i++) audit.append({ atMs: i, action: "act", by: "x", detail: "y".repeat(200) });
    audit.close();
    const report = await checked(dir.path);
    assert.deepEqual(report.findings, []);
    assert.equal(report.sealedTo, report.last, "a stop closes the segment");
    assert.equal(report.last, heads.at(-1));
  }
  const names = [...Deno.readDirSync(dir.path)].map((one) => one.name).sort();
  assert.deepEqual(names, ["audit.log", "audit.log.1", "audit.log.2", "audit.log.3"]);
  for (const name of names) assert.ok(Deno.statSync(join(dir.path, name)).size <= 8_000, name);
  // A file that is taken away is missed: the last seal says which entry is the first one kept.
  Deno.removeSync(join(dir.path, "audit.log.3"));
  assert.deepEqual((await checked(dir.path)).findings.map((one) => one.what), ["front-missing"]);
  // Killed just after the files were moved on.
  Deno.renameSync(join(dir.path, "audit.log.2"), join(dir.path, "audit.log.3"));
  Deno.renameSync(join(dir.path, "audit.log.1"), join(dir.path, "audit.log.2"));
  Deno.renameSync(join(dir.path, "audit.log"), join(dir.path, "audit.log.1"));
  const audit = new AuditLog(dir.path, options);
  audit.signWith(KEY);
  const before = audit.head.seq;
  audit.append({ atMs: 0, action: "act", by: "x".repeat(9_000), detail: "long".repeat(10_000) });
  audit.close();
  const lines = Deno.readTextFileSync(join(dir.path, "audit.log")).trimEnd().split("\n").map((one) => JSON.parse(one));
  assert.equal(lines[0].seq, before + 1);
  assert.ok(lines[0].detail.length <= 4_096 && lines[0].by.length <= 256, "fields are bounded");
});

Deno.test("[2.4d] a log that is read while its files move on is found whole", async () => {
  using dir = folder();
  using audit = closing(new AuditLog(dir.path, { fileBytesMax: 4_000, oldFilesMax: 3 }));
  audit.log.signWith(KEY);
  const fill = () => {
    for (let i = 0; i < 8; i++) audit.log.append({ atMs: i, action: "act", by: "x", detail: "y".repeat(300) });
  };
  for (let i = 0; i < 4; i++) fill();
  const { head } = audit.log;
  const reading = checked(dir.path);
  fill();
  fill();
  const report = await reading;
  assert.deepEqual(report.findings, []);
  assert.equal(report.head, head.hash);
});

Deno.test("[2.4d] files that cannot be moved on cost the entry and no more: the log goes on when they can", async () => {
  using dir = folder();
  using audit = closing(new AuditLog(dir.path, { fileBytesMax: 4_000, oldFilesMax: 1 }));
  audit.log.signWith(KEY);
  const append = () => audit.log.append({ atMs: 1, action: "act", by: "x", detail: "y".repeat(300) });
  for (const obstacle of ["audit.log.1", "audit.log.new"]) {
    const path = join(dir.path, obstacle, "in the way");
    Deno.mkdirSync(path, { recursive: true });
    assert.throws(() => {
      for (let i = 0; i < 20; i++) append();
    });
    assert.throws(append);
    Deno.removeSync(join(dir.path, obstacle), { recursive: true });
    for (let i = 0; i < 3; i++) append();
    if (obstacle === "audit.log.new") { for (const name of ["audit.log.1"]) Deno.removeSync(join(dir.path, name)); }
  }
  assert.deepEqual((await checked(dir.path)).findings, []);
});

Deno.test("[2.4d] a segment is closed by its count, by its age and by the stop, each with the hash of the one before", async () => {
  using dir = folder();
  const seals: number[] = [];
  const audit = new AuditLog(dir.path, {
    segmentEntriesMax: 3,
    segmentMs: 1_000,
    sealed: ({ seq }) => seals.push(seq),
  });
  const act = (atMs: number) => audit.append({ atMs, action: "act", by: "x", detail: "" });
  act(1);
  assert.equal(audit.tick(1e9), Infinity, "nothing is signed without a key");
  audit.signWith(KEY);
  act(2);
  act(3);
  assert.deepEqual(seals, [4], "by its count");
  assert.equal(audit.tick(5), Infinity, "nothing is open");
  act(10);
  assert.equal(audit.tick(500), 1_010);
  assert.deepEqual(seals, [4]);
  assert.equal(audit.tick(1_010), Infinity);
  assert.deepEqual(seals, [4, 6], "by its age");
  act(2_000);
  assert.equal(audit.tick(1), Infinity);
  assert.deepEqual(seals, [4, 6, 8], "a clock that was set back does not keep it open");
  act(2_001);
  audit.close(3_000);
  assert.deepEqual(seals, [4, 6, 8, 10], "by the stop");
  const report = await checked(dir.path);
  assert.deepEqual([report.ok, report.seals, report.sealedTo, report.entries], [true, 4, 10, 10]);
});

Deno.test("[2.4d] a log of the version without seals is gone on with, and the first seal covers it", async () => {
  using dir = folder();
  // As the version before wrote it.
  const { hashParts } = await import("../../src/core/crypto.ts");
  const { toHex, utf8 } = await import("../../src/core/bytes.ts");
  let previous = "0".repeat(64);
  let text = "";
  for (let seq = 1; seq <= 5; seq++) {
    const at = new Date(seq * 1_000).toISOString();
    const body = JSON.stringify({ seq, at, action: "command", by: "12D3", detail: "ping", previous });
    previous = toHex(hashParts("mycelium/audit/v1", utf8(body)));
    text += `${body.slice(0, -1)},"hash":"${previous}"}\n`;
  }
  const path = join(dir.path, "audit.log");
  Deno.writeTextFileSync(path, text);
  const audit = new AuditLog(dir.path);
  audit.signWith(KEY);
  audit.append({ atMs: 6_000, action: "act", by: "x", detail: "" });
  audit.close();
  const after = Deno.readTextFileSync(path);
  assert.ok(after.startsWith(text), "what was there stays as it was");
  const report = await checked(dir.path);
  assert.deepEqual([report.ok, report.entries, report.sealedTo], [true, 7, 7]);
  const seal = readLine(after.trimEnd().split("\n").at(-1)!);
  assert.ok(typeof seal === "object" && seal.kind === "seal" && seal.from === 1);
  // Written anew with hashes that fit: only the signature shows it.
  let forged = "";
  previous = "0".repeat(64);
  for (const line of after.trimEnd().split("\n")) {
    const { hash: _, ...fields } = JSON.parse(line);
    const body = JSON.stringify({ ...fields, ...(fields.by === "12D3" ? { detail: "drain" } : {}), previous });
    previous = toHex(hashParts(`mycelium/audit/v${fields.v ?? 1}`, utf8(body)));
    forged += `${body.slice(0, -1)},"hash":"${previous}"}\n`;
  }
  Deno.writeTextFileSync(path, forged);
  assert.deepEqual((await checked(dir.path)).findings.map((one) => one.what), ["forged-seal"]);
});

Deno.test("[2.4d] the log of another node, in a copied state folder, is kept aside and not gone on with", async () => {
  using dir = folder();
  const other = keyPairFromSeed(new Uint8Array(32).fill(8));
  let audit = new AuditLog(dir.path);
  audit.signWith(other);
  audit.append({ atMs: 1, action: "act", by: "x", detail: "" });
  audit.close();
  audit = new AuditLog(dir.path);
  audit.signWith(KEY);
  audit.close();
  const report = await checked(dir.path);
  assert.deepEqual([report.ok, report.node], [true, nodeIdOf(KEY.publicKey)]);
  assert.match(Deno.readTextFileSync(join(dir.path, "audit.log")), /audit-foreign/);
  assert.ok([...Deno.readDirSync(dir.path)].some((one) => one.name === "audit.log.foreign-1"));
});

Deno.test("[2.4d] a writer that is killed leaves a log that verifies, with every entry that it has told of", async () => {
  using dir = folder();
  for (const killMs of [60, 150, 333]) {
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--no-check", CHILD, "write", dir.path],
      stdout: "piped",
      stderr: "null",
    }).spawn();
    let told = "";
    let timer: ReturnType<typeof setTimeout> | undefined;
    for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
      told += text;
      // From the first word on, so that the start does not count.
      timer ??= setTimeout(() => child.kill("SIGKILL"), killMs);
    }
    clearTimeout(timer);
    await child.status;
    const last = told.slice(0, told.lastIndexOf("\n")).split("\n").at(-1)!;
    // The next start is what mends a torn line.
    const audit = new AuditLog(dir.path);
    audit.signWith(KEY);
    const { seq, hash } = audit.head;
    audit.close();
    const report = await checked(dir.path);
    assert.deepEqual(report.findings, []);
    assert.ok(report.seals > 0 && report.last >= seq && hash.length === 64);
    assert.ok(Deno.readTextFileSync(join(dir.path, "audit.log")).includes(`"detail":"${last}"`), `${last} is there`);
  }
});

Deno.test("[2.4d] what reads the files takes any bytes: lines without end, no text, no file", async () => {
  using dir = folder();
  const path = join(dir.path, "audit.log");
  await assert.rejects(async () => await readAuditLines([path])[Symbol.asyncIterator]().next(), Deno.errors.NotFound);
  assert.deepEqual(auditFiles(dir.path), []);
  for (
    const bytes of [
      new Uint8Array(0),
      new Uint8Array(2 << 20).fill(0x61),
      crypto.getRandomValues(new Uint8Array(50_000)),
    ]
  ) {
    Deno.writeFileSync(path, bytes);
    const report = await checked(dir.path);
    assert.equal(report.ok, bytes.length === 0);
    assert.equal(report.entries, 0);
    const audit = new AuditLog(dir.path);
    audit.signWith(KEY);
    audit.append({ atMs: 1, action: "act", by: "x", detail: "" });
    audit.close();
    assert.deepEqual((await checked(dir.path)).findings, [], "the node goes on");
  }
});
