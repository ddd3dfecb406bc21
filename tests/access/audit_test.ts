/** The audit chain: every kind of change to a log is found, and readers take whatever they are given. */

import assert from "node:assert/strict";
import fc from "fast-check";
import {
  type AuditEvent,
  type AuditHead,
  AuditVerifier,
  entryLine,
  exportLine,
  ExportVerifier,
  LINE_CHARS_MAX,
  matches,
  NO_HASH,
  readExportLine,
  readLine,
  sealLine,
} from "../../src/access/audit.ts";
import { toHex, utf8 } from "../../src/core/bytes.ts";
import { hashParts, type KeyPair, keyPairFromSeed } from "../../src/core/crypto.ts";
import { nodeIdOf } from "../../src/core/ids.ts";

const KEY = keyPairFromSeed(new Uint8Array(32).fill(7));
const THIEF = keyPairFromSeed(new Uint8Array(32).fill(9));
const NODE = nodeIdOf(KEY.publicKey);

interface Log {
  readonly lines: readonly string[];
  readonly heads: readonly AuditHead[];
}

/** A log of events with a seal behind each of `segment` entries; `open` more entries are not signed. */
function logOf(
  options: { readonly entries: number; readonly segment: number; readonly key?: KeyPair; readonly word?: string },
): Log {
  const { entries, segment, key = KEY, word = "" } = options;
  const lines: string[] = [];
  const heads: AuditHead[] = [];
  let head: AuditHead = { seq: 0, hash: NO_HASH };
  let seal = head;
  const push = (next: { readonly line: string } & AuditHead) => {
    lines.push(next.line);
    head = next;
    heads.push({ seq: next.seq, hash: next.hash });
  };
  for (let i = 0; i < entries; i++) {
    push(entryLine(
      { atMs: i * 1_000, action: `act-${i % 3}`, by: `who-${i % 2}`, detail: `${word}${i}`, target: "node" },
      head.seq + 1,
      head.hash,
    ));
    if ((i + 1) % segment > 0) continue;
    push(sealLine({ from: seal.seq + 1, kept: 1, segment: seal.hash, atMs: i * 1_000 }, head.seq + 1, head.hash, key));
    seal = head;
  }
  return { lines, heads };
}

function check(lines: readonly string[], heads: readonly AuditHead[] = [], node: string | undefined = NODE) {
  const verifier = new AuditVerifier({ node, heads });
  for (const line of lines) verifier.line(line);
  return verifier.end();
}

/** What an intruder without the key can do to what follows a change: make the chain of hashes fit again. */
function rechained(
  lines: readonly string[],
  from: number,
  change: (fields: Record<string, unknown>) => void,
): string[] {
  const out = lines.slice(0, from);
  let head = from === 0 ? NO_HASH : JSON.parse(lines[from - 1]!).hash as string;
  let seq = from === 0 ? 0 : JSON.parse(lines[from - 1]!).seq as number;
  lines.slice(from).forEach((line, i) => {
    const read = readLine(line);
    assert.ok(typeof read === "object");
    const fields = JSON.parse(line);
    if (i === 0) change(fields);
    if (read.kind === "seal") {
      // He has no key: the old signature, or one of his own.
      const next = sealLine({ ...read, atMs: Date.parse(read.at) }, ++seq, head, THIEF);
      const own = { ...JSON.parse(next.line).seal, node: read.node, signature: read.signature };
      const spelt = spell({ v: 2, seq, at: read.at, seal: own, previous: head });
      out.push(spelt.line);
      head = spelt.hash;
    } else {
      const next = entryLine(
        { ...fields, atMs: Date.parse(fields.at) } as unknown as AuditEvent,
        ++seq,
        head,
      );
      out.push(next.line);
      head = next.hash;
    }
  });
  return out;
}

/** Any fields with a hash that fits, by way of the writer of entries. */
function spell(
  fields:
    & { readonly seq: number; readonly at: string; readonly seal: object; readonly previous: string }
    & { readonly v: 2 },
): { readonly line: string; readonly hash: string } {
  const body = JSON.stringify(fields);
  // A line whose hash is wrong says so, which is of no use to him; he can hash as everybody can.
  const hash = hashOf(body);
  return { line: `${body.slice(0, -1)},"hash":"${hash}"}`, hash };
}

function hashOf(body: string): string {
  return toHex(hashParts("mycelium/audit/v2", utf8(body)));
}

const shape = fc.record({ entries: fc.integer({ min: 4, max: 24 }), segment: fc.integer({ min: 1, max: 6 }) });

Deno.test("[2.4d] audit: a log as it is written verifies, whole and from any segment on", () => {
  fc.assert(fc.property(shape, (options) => {
    const { lines, heads } = logOf(options);
    const report = check(lines, heads);
    assert.deepEqual(report.findings, []);
    assert.equal(report.last, lines.length);
    assert.equal(report.node, NODE);
    assert.equal(check(lines, [], undefined).ok, true);
  }));
});

Deno.test("[2.4d] audit: any entry that was changed is found, one that was hashed anew by the signature of its segment", () => {
  fc.assert(fc.property(
    shape,
    fc.nat(),
    fc.constantFrom("action", "by", "detail", "target", "entrance", "outcome", "at"),
    (options, at, field) => {
      const { lines, heads } = logOf(options);
      const entries = lines.flatMap((line, i) => line.includes('"seal":') ? [] : [i]);
      const index = entries[at % entries.length]!;
      const put = (fields: Record<string, unknown>) => {
        fields[field] = field === "outcome" ? "failed" : field === "at" ? "1999-01-01T00:00:00.000Z" : "another";
      };
      const fields = JSON.parse(lines[index]!);
      put(fields);
      const plain = lines.with(index, JSON.stringify(fields));
      assert.equal(check(plain).findings[0]?.what, "changed");
      assert.equal(check(plain).findings[0]?.seq, index + 1);
      const anew = rechained(lines, index, put);
      const sealed = lines.findIndex((line, i) => i > index && line.includes('"seal":'));
      const found = check(anew).findings;
      if (sealed >= 0) assert.equal(found[0]?.what, "forged-seal", "signed entries");
      // Those not signed yet are known by the place that the chain had.
      assert.ok(
        check(anew, heads.slice(-1)).findings.some((one) => one.what === "rewritten" || one.what === "forged-seal"),
      );
    },
  ));
});

Deno.test("[2.4d] audit: entries that were removed, doubled, put in or exchanged are found", () => {
  fc.assert(fc.property(shape, fc.nat(), fc.nat(), (options, a, b) => {
    const { lines, heads } = logOf(options);
    const i = 1 + a % (lines.length - 1);
    const known = heads.slice(-1);
    assert.equal(check(lines.toSpliced(i, 1), known).ok, false, "removed");
    assert.equal(
      check(lines.toSpliced(0, i), [], NODE).ok,
      lines.slice(i).every((one) => !one.includes('"seal":')),
      "front",
    );
    assert.equal(check(lines.toSpliced(i, 0, lines[i]!)).ok, false, "doubled");
    const other = logOf({ ...options, word: "other" }).lines[i]!;
    assert.equal(check(lines.with(i, other), known).ok, false, "of another log");
    assert.equal(check(lines.toSpliced(i, 0, other)).ok, false, "put in");
    const j = b % lines.length;
    if (i !== j) {
      assert.equal(check(lines.with(i, lines[j]!).with(j, lines[i]!)).ok, false, "exchanged");
    }
  }));
});

Deno.test("[2.4d] audit: a log that ends too early is found by any place that is known of it, and only then", () => {
  fc.assert(fc.property(shape, fc.nat(), (options, a) => {
    const { lines, heads } = logOf(options);
    const kept = a % lines.length;
    const report = check(lines.slice(0, kept), heads.slice(-1));
    assert.deepEqual(report.findings.map((one) => one.what), ["truncated"]);
    assert.equal(report.findings[0]!.seq, lines.length);
    assert.equal(check(lines.slice(0, kept)).ok, true, "the rest of it is a log by itself");
    // Cut, and written on: the place is there, with another entry.
    const grown = [...lines.slice(0, kept)];
    let head = kept === 0 ? { seq: 0, hash: NO_HASH } : heads[kept - 1]!;
    while (grown.length < lines.length) {
      const next = entryLine({ atMs: 0, action: "harmless", by: "nobody", detail: "" }, head.seq + 1, head.hash);
      grown.push(next.line);
      head = next;
    }
    assert.ok(check(grown, heads.slice(-1)).findings.some((one) => one.what === "rewritten"));
  }));
});

Deno.test("[2.4d] audit: seals of another key, and seals out of their place, are found", () => {
  const stolen = logOf({ entries: 9, segment: 3, key: THIEF });
  assert.equal(check(stolen.lines).findings[0]?.what, "foreign-seal");
  const { lines } = logOf({ entries: 9, segment: 3 });
  // A whole segment taken out, and the numbers and hashes behind it made to fit.
  const without = rechained([...lines.slice(0, 4), ...lines.slice(8)], 4, () => {});
  assert.ok(check(without).findings.some((one) => one.what === "forged-seal"));
  // The seal taken out: what follows is of a segment that began earlier.
  const open = rechained(lines.toSpliced(3, 1), 3, () => {});
  assert.ok(check(open).findings.length > 0);
  // Seals say what was kept; it may not go back.
  let head: AuditHead = { seq: 0, hash: NO_HASH };
  const out: string[] = [];
  for (const kept of [3, 2]) {
    const entry = entryLine({ atMs: 0, action: "act", by: "", detail: "" }, head.seq + 1, head.hash);
    const seal = sealLine(
      { from: entry.seq, kept, segment: out.length ? head.hash : NO_HASH, atMs: 0 },
      entry.seq + 1,
      entry.hash,
      KEY,
    );
    out.push(entry.line, seal.line);
    head = seal;
  }
  assert.ok(check(out).findings.some((one) => one.what === "misplaced-seal"));
});

/** A whole export of the closed segments of a log, from line `from` on. */
function exported(log: Log, from = 0): string[] {
  const end = log.lines.findLastIndex((one) => one.includes('"seal":'));
  const last = log.heads[end]!;
  const heading = exportLine({ atMs: 1, from: log.heads[from]!.seq, to: last.seq, head: last.hash }, KEY);
  return [heading, ...log.lines.slice(from, end + 1)];
}

function checkExport(lines: readonly string[], node?: string) {
  const verifier = new ExportVerifier({ node });
  for (const line of lines) verifier.line(line);
  return verifier.end();
}

Deno.test("[2.4d] audit: an export verifies with nothing but the node's id, and any piece less or more is found", () => {
  fc.assert(fc.property(shape, fc.nat(), fc.nat(), (options, a, b) => {
    const segment = Math.min(options.segment, options.entries);
    const log = logOf({ ...options, segment });
    // From the beginning of a segment, as the program exports.
    const starts = [0, ...log.lines.flatMap((line, i) => line.includes('"seal":') ? [i + 1] : [])].slice(0, -1);
    const lines = exported(log, starts[a % starts.length]!);
    assert.deepEqual(checkExport(lines, NODE).findings, []);
    assert.equal(checkExport(lines).node, NODE);
    assert.equal(checkExport(lines, nodeIdOf(THIEF.publicKey)).ok, false, "of another node");
    const i = b % lines.length;
    assert.equal(checkExport(lines.toSpliced(i, 1), NODE).ok, false, `without line ${i}`);
    assert.equal(checkExport(lines.slice(0, i), NODE).ok, false, `cut at ${i}`);
    assert.equal(checkExport(lines.toSpliced(i, 0, lines[i]!), NODE).ok, false, `line ${i} twice`);
    const text = lines[i]!;
    const at = b % text.length;
    const flipped = text.slice(0, at) + String.fromCharCode(text.charCodeAt(at) ^ 1) + text.slice(at + 1);
    assert.equal(checkExport(lines.with(i, flipped), NODE).ok, false, `line ${i} changed at ${at}`);
  }));
});

Deno.test("[2.4d] audit: readers of lines and exports take any text, and a line has one spelling", () => {
  const { lines } = logOf({ entries: 4, segment: 2 });
  const heading = exported({ lines, heads: lines.map((one) => JSON.parse(one)) })[0]!;
  const spoil = fc.tuple(fc.constantFrom(...lines, heading), fc.nat(), fc.nat(255), fc.nat(3)).map(
    ([line, at, byte, how]) => {
      const i = at % line.length;
      if (how === 0) return line.slice(0, i) + String.fromCharCode(byte) + line.slice(i + 1);
      if (how === 1) return line.slice(0, i);
      if (how === 2) return line.slice(0, i) + line.slice(i + 1 + byte % 9);
      return line.slice(0, i) + " " + line.slice(i);
    },
  );
  const whole = new Set([...lines, heading]);
  fc.assert(
    fc.property(fc.oneof(spoil, fc.string({ maxLength: 300 }), fc.json()), (text) => {
      if (whole.has(text)) return;
      assert.equal(typeof readLine(text), "string", text);
      // What reads as a heading need not be signed; it is never another spelling of one.
      const read = readExportLine(text);
      if (read) assert.equal(JSON.stringify({ export: read }), text);
      const verifier = new ExportVerifier();
      verifier.line(text);
      verifier.line(text);
      assert.equal(verifier.end().ok, false);
    }),
    { numRuns: 3_000 },
  );
  assert.equal(readLine("x".repeat(LINE_CHARS_MAX + 1)), "unreadable");
  assert.equal(readLine(`${"[".repeat(20_000)}`), "unreadable");
  // Text of any kind comes back, cut to what a field may hold.
  fc.assert(fc.property(fc.string({ unit: "binary" }), fc.string({ unit: "binary" }), (by, detail) => {
    const { line } = entryLine({ atMs: NaN, action: "act", by, detail }, 1, NO_HASH);
    const read = readLine(line);
    assert.ok(typeof read === "object" && read.kind === "entry" && !line.includes("\n"));
    assert.equal(read.detail, detail.slice(0, 4_096).toWellFormed());
  }));
  const long = entryLine(
    { atMs: 8e15, action: "\0".repeat(9_999), by: "\0".repeat(9_999), detail: "\0".repeat(9_999) },
    1,
    NO_HASH,
  );
  assert.ok(long.line.length <= LINE_CHARS_MAX && typeof readLine(long.line) === "object");
});

Deno.test("audit: a search fits by time, actor, action, outcome, entrance, target and text", () => {
  const read = readLine(
    entryLine(
      {
        atMs: 5_000,
        action: "node-removed",
        by: "anna",
        detail: "stolen",
        target: "attic",
        entrance: "http",
        outcome: "refused",
      },
      1,
      NO_HASH,
    ).line,
  );
  assert.ok(typeof read === "object" && read.kind === "entry");
  const entry = read;
  for (
    const query of [
      {},
      { sinceMs: 5_000 },
      { untilMs: 5_001 },
      { by: "ann" },
      { action: "node-removed" },
      { action: "node-*" },
      { outcome: "refused" as const },
      { entrance: "http" },
      { target: "tti" },
      { text: "stol" },
    ]
  ) assert.equal(matches(entry, query), true, JSON.stringify(query));
  for (
    const query of [
      { sinceMs: 5_001 },
      { untilMs: 5_000 },
      { by: "bob" },
      { action: "node" },
      { action: "invite-*" },
      { outcome: "ok" as const },
      { entrance: "rpc" },
      { target: "cellar" },
      { text: "lost" },
    ]
  ) assert.equal(matches(entry, query), false, JSON.stringify(query));
});
