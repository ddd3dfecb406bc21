/**
 * Agreement among real processes on one machine: the time from a wish to its place in the Primary Spore, by class and N, as
 * all are there, with f of them killed, and with one that never opens its votes.
 *
 * The reference is a write to the Primary Spore at the same node, in turn: the same way without agreement. Bars are those of
 * the issue: seven decide within 1 s, within 3 s with f killed. Messages and bytes are those between the voters, of all of them,
 * per decision; certificates are made and verified in this process.
 *
 * usage: deno run -A bench/agree.ts [--rounds=20] [--sizes=4,7] [--source]
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { createPublicKey, verify as verifyRaw } from "node:crypto";
import { join } from "node:path";
import { concatBytes, toBase64Url, utf8 } from "../src/core/bytes.ts";
import { encodeCbor } from "../src/core/codec.ts";
import { keyPairFromSeed, sha256 } from "../src/core/crypto.ts";
import { nodeIdOf } from "../src/core/ids.ts";
import { type Certificate, certificateValue, joinSignatures, verifyCertificate } from "../src/consensus/certificate.ts";
import { bitmapOf, instanceId, operationsHash, signStatement } from "../src/consensus/statements.ts";
import { freezeTable, quorumSeats, tableHash } from "../src/consensus/weights.ts";
import { COMPILED, FROM_SOURCE, type ProgramCommand } from "../tests/testkit/program.ts";
import { type Primary, PrimaryGroup } from "../tests/testkit/primary_group.ts";
import { load, median, numberFlag, type Pair, report, round } from "./processes.ts";

const rounds = numberFlag("rounds", 20);
const source = Deno.args.includes("--source");
const sizes = (Deno.args.find((one) => one.startsWith("--sizes="))?.slice(8) ?? "4,7").split(",").map(Number);
const program: ProgramCommand = source ? FROM_SOURCE : COMPILED;
const liar: ProgramCommand = [
  Deno.execPath(),
  "run",
  "-A",
  "--no-check",
  join(import.meta.dirname!, "..", "tests", "testkit", "withholding_main.ts"),
];

const SPKI = Uint8Array.from([0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0]);

certificates();
for (const size of sizes) await measure(size);

/** The program remembers signatures that it has seen; here each is verified anew. */
function verify(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean {
  const key = createPublicKey({ key: Buffer.from(concatBytes(SPKI, publicKey)), format: "der", type: "spki" });
  return verifyRaw(null, message, key, signature);
}

/** What a device has to do that only verifies. */
function certificates(): void {
  const networkId = sha256(utf8("bench"));
  for (const count of [4, 7, 16, 32, 100]) {
    const keys = Array.from({ length: count }, (_, i) => keyPairFromSeed(sha256(utf8(`voter ${i}`))));
    const table = freezeTable({
      epoch: 1,
      seed: sha256(utf8("seed")),
      weights: keys.map(({ publicKey }) => ({ id: nodeIdOf(publicKey), publicKey, weightPpm: 1 })),
    });
    const keyOf = new Map(keys.map((one) => [nodeIdOf(one.publicKey), one]));
    const operations = [{ kind: "record/put", body: new Uint8Array(500) }];
    const header = {
      table: tableHash(table, networkId),
      class: "critical",
      size: 1,
      proposer: table.voters[0]!.id,
      seq: 1,
      expiresMs: 1,
      operations: operationsHash(operations),
      count: 1,
    } as const;
    const [value, beacon, outcome] = [sha256(utf8("set")), sha256(utf8("beacon")), bitmapOf([true])];
    const instance = instanceId(header, networkId);
    const statement = { type: "precommit", instance, round: 0, value, outcome, beacon } as const;
    const signed = new Map(
      Array.from({ length: quorumSeats(count) }, (_, i) =>
        [
          i,
          signStatement(statement, networkId, keyOf.get(table.voters[i]!.id)!),
        ] as const),
    );
    const certificate: Certificate = { header, round: 0, value, outcome, beacon, ...joinSignatures(count, signed) };
    const times = Array.from({ length: 20 }, () => {
      const startMs = performance.now();
      if (!verifyCertificate(certificate, table, networkId, verify).ok) {
        throw new Error("the certificate does not hold");
      }
      return performance.now() - startMs;
    });
    const bytes = encodeCbor(certificateValue(certificate)).length;
    console.log(JSON.stringify({
      name: `agree-certificate-${count}`,
      voters: count,
      signatures: signed.size,
      bytes,
      verifyMs: round(median(times)),
      load: load(),
    }));
  }
}

async function measure(size: number): Promise<void> {
  await using group = await PrimaryGroup.start(program, 1);
  for (let i = 1; i < size; i++) await group.add(`p${i}`).start(["join", await group.invite("sclerotium")]);
  await voting(group, size);
  const faults = Math.floor((size - 1) / 3);
  for (const level of ["fast", "standard", "critical"] as const) {
    await series(`agree-${size}-${level}`, group, level, { goal: 1_000 });
  }
  await burst(`agree-${size}-burst`, group);
  const killed = group.members.slice(size - faults);
  await Promise.all(killed.map((one) => one.end()));
  await series(`agree-${size}-${faults}-killed`, group, "critical", { goal: 3_000 });
  // One that withholds takes the place of one that was killed: what it says is true, but for its openings.
  const [first] = killed;
  if (!first) return;
  const withholding = group.replace(first, liar);
  await withholding.start();
  await voting(group, size - faults + 1);
  await series(`agree-${size}-withholding`, group, "critical", {
    goal: 3_000,
    at: group.members.slice(0, size - faults),
  });
}

async function voting(group: PrimaryGroup, answering: number): Promise<void> {
  await group.until(`${answering} answer`, async () => {
    const all = await Promise.all(group.alive.map(async (one) => (await one.status()).agreement!));
    return all.every((one) => one.voters.filter((voter) => voter.answers).length >= answering);
  }, 180_000);
}

async function submit(at: Primary, key: string, level: string): Promise<number> {
  const startMs = performance.now();
  await at.client.control({ verb: "agreement-submit", key, value: toBase64Url(utf8("x".repeat(200))), class: level });
  return performance.now() - startMs;
}

async function sent(group: PrimaryGroup): Promise<readonly [messages: number, bytes: number]> {
  const all = await Promise.all(group.alive.map(async (one) => (await one.status()).agreement!));
  return [all.reduce((sum, one) => sum + one.messages, 0), all.reduce((sum, one) => sum + one.messageBytes, 0)];
}

/** Wishes one after the other, at all nodes in turn, each beside a plain write. */
async function series(
  name: string,
  group: PrimaryGroup,
  level: string,
  options: { readonly goal: number; readonly at?: readonly Primary[] },
): Promise<void> {
  const at = options.at ?? group.alive;
  const pairs: Pair[] = [];
  for (const one of at) await submit(one, `app/${name}/warm`, level);
  const [messages, bytes] = await sent(group);
  for (let i = 0; i < rounds; i++) {
    const one = at[i % at.length]!;
    const ours = await submit(one, `app/${name}/${i}`, level);
    const startMs = performance.now();
    await one.put(`app/${name}/plain${i}`, "x".repeat(200));
    pairs.push({ ours, reference: performance.now() - startMs });
  }
  const [messagesAfter, bytesAfter] = await sent(group);
  const times = pairs.map((one) => one.ours).sort((a, b) => a - b);
  report({
    name,
    unit: "ms per decision",
    bar: 40,
    extreme: 8,
    pairs,
    more: {
      p95Ms: round(times[Math.floor(times.length * 0.95)]!),
      maxMs: round(times.at(-1)!),
      goalMs: options.goal,
      within: times.filter((one) => one <= options.goal).length,
      messages: round((messagesAfter - messages) / rounds),
      bytes: round((bytesAfter - bytes) / rounds),
    },
  });
}

/** Many at once: batches and the pipeline. No more than 25 are under way: `fetch` has no more over unix sockets, all clients together. */
async function burst(name: string, group: PrimaryGroup): Promise<void> {
  const count = 100;
  const startMs = performance.now();
  const done = await Promise.allSettled(
    Array.from(
      { length: count },
      (_, i) => submit(group.alive[i % group.alive.length]!, `app/${name}/${i}`, "critical"),
    ),
  );
  const tookMs = performance.now() - startMs;
  const decided = done.filter((one) => one.status === "fulfilled").length;
  console.log(
    JSON.stringify({ name, decisionsPerSecond: round(decided * 1000 / tookMs), decided, at: count, load: load() }),
  );
}
