/**
 * Table of spore records: checking and merging 10^5 of them, comparing two such tables, and the memory that they take.
 *
 *     deno run -A bench/spore_table.ts [records] [pairs]
 *
 * The floor does with the same signed records what nobody can leave out: one Ed25519 verification each, and an entry in
 * a `Map`. Ours decodes, verifies, checks author and key, orders and indexes. Both run alternately, in slices, in one
 * process; the ratio is the median of the pairs. Targets: merge <= 1.5 x floor; one difference in 10^5 found with
 * <= 1 kB; memory <= 3 x the bytes of a record.
 *
 * @module
 */

import assert from "node:assert/strict";
import { utf8 } from "../src/core/bytes.ts";
import { decodeCbor, encodeCbor } from "../src/core/codec.ts";
import { keyPairFromSeed, sha256 } from "../src/core/crypto.ts";
import { envelopeValue, isSigned, readEnvelope } from "../src/core/envelope.ts";
import { nodeIdOf } from "../src/core/ids.ts";
import { answerDigest, Repair, ZONES } from "../src/spore/digest.ts";
import { digestAnswerValue, digestAskValue } from "../src/spore/messages.ts";
import { RECORD_LIFE_MS_MAX, sealSpore } from "../src/spore/record.ts";
import { SporeTable, type Version } from "../src/spore/table.ts";
import { checkVersion, type SporeFacts } from "../src/spore/validation.ts";

const RECORDS = Number(Deno.args[0] ?? 100_000);
const PAIRS = Number(Deno.args[1] ?? 5);
const AUTHORS = 100;
const NOW = 1_800_000_000_000;
const NETWORK = sha256(utf8("bench"));
const gc = (globalThis as { gc?: () => void }).gc;
if (!gc) {
  // Memory is measured after collecting garbage, which only a flag at the start allows.
  const { code } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--v8-flags=--expose-gc", import.meta.filename!, ...Deno.args],
    stdin: "null",
  }).spawn().status;
  Deno.exit(code);
}

const authors = Array.from({ length: AUTHORS }, (_, i) => keyPairFromSeed(sha256(utf8(`author ${i}`))));
const ids = new Set(authors.map((one) => nodeIdOf(one.publicKey)));

/** Records as they arrive: encoded. */
function sealed(count: number, from: number): Uint8Array[] {
  return Array.from({ length: count }, (_, i) =>
    encodeCbor(envelopeValue(
      sealSpore(
        {
          key: `app/bench/record-${from + i}`,
          seq: NOW + i,
          value: new Uint8Array(64).fill(i),
          issuedMs: NOW,
          expiresMs: NOW + RECORD_LIFE_MS_MAX,
        },
        NETWORK,
        authors[i % AUTHORS]!,
      ).envelope,
    )));
}

const facts: SporeFacts = {
  networkId: NETWORK,
  nowMs: NOW,
  skewMs: 300_000,
  member: (nodeId) => ids.has(nodeId),
  revoked: () => false,
  issuer: () => false,
  issuersOf: () => undefined,
  distrusted: () => false,
};

function check(wire: Uint8Array): Version {
  const envelope = readEnvelope(decodeCbor(wire), "$");
  const verdict = checkVersion({ envelope, proof: undefined }, facts);
  assert.ok(verdict.ok);
  return verdict.version;
}

function heapBytes(): number {
  gc!();
  gc!();
  const { heapUsed, external } = Deno.memoryUsage();
  return heapUsed + external;
}

const median = (all: readonly number[]) => all.toSorted((a, b) => a - b)[all.length >> 1]!;

// --- check and merge against the floor --------------------------------------------------------------------------

const slice = Math.floor(RECORDS / PAIRS);
const table = new SporeTable({ keysMax: 2 * RECORDS, bytesMax: 1 << 30 });
const floor = new Map<string, Uint8Array>();
const ratios: number[] = [], oursUs: number[] = [], floorUs: number[] = [];
const heapEmpty = heapBytes();
for (let pair = 0; pair < PAIRS; pair++) {
  const wires = sealed(slice, pair * slice);
  const runFloor = () => {
    const envelopes = wires.map((one) => readEnvelope(decodeCbor(one), "$"));
    const start = performance.now();
    for (const [i, one] of envelopes.entries()) {
      if (isSigned(one, NETWORK)) floor.set(`app/bench/record-${pair * slice + i}`, one.payload);
    }
    return performance.now() - start;
  };
  const runOurs = () => {
    const start = performance.now();
    for (const one of wires) table.merge(check(one), NOW);
    return performance.now() - start;
  };
  const first = pair % 2 === 0 ? runFloor() : 0;
  const ours = runOurs();
  const base = first || runFloor();
  floor.clear();
  ratios.push(ours / base);
  oursUs.push(ours * 1_000 / slice);
  floorUs.push(base * 1_000 / slice);
}
const stateBytes = heapBytes() - heapEmpty;
const recordBytes = sealed(1, 0)[0]!.length;

// --- merging alone: what was verified before -----------------------------------------------------------------------

const versions = table.keys("").flatMap((key) => table.versions(key));
const copy = new SporeTable({ keysMax: 2 * RECORDS, bytesMax: 1 << 30 });
let mergeMs = 0;
{
  const start = performance.now();
  for (const one of versions) copy.merge(one, NOW);
  mergeMs = performance.now() - start;
}
const merged = versions.length;

// --- finding differences ------------------------------------------------------------------------------------------

function compare(): { readonly bytes: number; readonly rounds: number; readonly ms: number; readonly found: number } {
  const start = performance.now();
  const run = new Repair(copy.digest, ZONES.map((_, i) => i));
  let bytes = 0, rounds = 0, found = 0;
  for (let ask = run.next(); ask; ask = run.next()) {
    const answer = answerDigest(table.digest, ask);
    bytes += encodeCbor(digestAskValue(ask)).length + encodeCbor(digestAnswerValue(answer)).length;
    const { give, want } = run.take(answer);
    found += Math.max(give.length, want.reduce((sum, one) => sum + one.ids.length, 0));
    rounds += 1;
  }
  return { bytes, rounds, ms: performance.now() - start, found };
}

const equal = compare();
const changed = (count: number) => {
  for (let i = 0; i < count; i++) {
    const spore = sealSpore(
      {
        key: `app/bench/record-${(i * 7_919) % RECORDS}`,
        seq: NOW + 1_000_000 + count,
        value: new Uint8Array(64),
        issuedMs: NOW,
        expiresMs: NOW + RECORD_LIFE_MS_MAX,
      },
      NETWORK,
      authors[0]!,
    );
    copy.merge({ spore, proof: undefined }, NOW);
  }
  return compare();
};
const one = changed(1), thousand = changed(1_000);
const expireStart = performance.now();
copy.expire(NOW + RECORD_LIFE_MS_MAX / 2);
const expireMs = performance.now() - expireStart;
const listStart = performance.now();
const listed = copy.list("app/bench/record-9999").length;
const listMs = performance.now() - listStart;

const round = (value: number, digits = 1) => Math.round(value * 10 ** digits) / 10 ** digits;
console.log(JSON.stringify({
  name: "spore_table",
  records: RECORDS,
  ours: round(median(oursUs)),
  reference: round(median(floorUs)),
  unit: "µs per record checked and merged; floor: one verification and one Map entry",
  ratio: round(median(ratios), 2),
  mergeUs: round(mergeMs * 1_000 / merged, 2),
  memoryBytesPerRecord: Math.round(stateBytes / (slice * PAIRS)),
  memoryMbPer10k: round(stateBytes / (slice * PAIRS) / 100, 2),
  recordBytes,
  digestEqual: { ...equal, ms: round(equal.ms, 2) },
  digestOne: { ...one, ms: round(one.ms, 2) },
  digestThousand: { ...thousand, ms: round(thousand.ms, 2) },
  sweepMs: round(expireMs),
  listMs: round(listMs, 2),
  listed,
}));
