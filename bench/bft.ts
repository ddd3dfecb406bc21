/**
 * Commit-reveal in one process: N voters, memory for a network, the crypto floor as the reference.
 *
 * The floor: each node signs two messages, everyone verifies everyone's, nothing else. Neither side may know a signature
 * again (all N would share one cache here). All N run on one core, so the latency of a
 * round is the CPU of the whole network; messages are handed over as objects, and encoded once more for the bytes.
 *
 * usage: deno run -A bench/bft.ts [--pairs=5] [--sizes=4,7,16,32]
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { createPublicKey, type KeyObject, verify as verifyRaw } from "node:crypto";
import process from "node:process";
import { concatBytes, toHex, utf8 } from "../src/core/bytes.ts";
import { encodeCbor } from "../src/core/codec.ts";
import { keyPairFromSeed, sha256, signBytes } from "../src/core/crypto.ts";
import { type Certificate, certificateValue, verifyCertificate } from "../src/consensus/certificate.ts";
import { Consensus } from "../src/consensus/consensus.ts";
import type { ConsensusEffect, ConsensusEvent } from "../src/consensus/effects.ts";
import { encodeMessage } from "../src/consensus/messages.ts";
import { bitmapOf } from "../src/consensus/statements.ts";
import { freezeTable, quorumSeats } from "../src/consensus/weights.ts";
import { median, type Pair, report, round } from "./processes.ts";

const NETWORK = sha256(utf8("bench"));
const SPKI = Uint8Array.from([0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0]);

const KEY_OBJECTS = new Map<string, KeyObject>();
function verify(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean {
  const name = toHex(publicKey);
  let key = KEY_OBJECTS.get(name);
  if (!key) {
    key = createPublicKey({ key: Buffer.from(concatBytes(SPKI, publicKey)), format: "der", type: "spki" });
    KEY_OBJECTS.set(name, key);
  }
  return verifyRaw(null, message, key, signature);
}

/** Time on a CPU, all threads, milliseconds: on a machine with other work it says more than a clock. */
function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1_000;
}

const VOTERS = Array.from({ length: 100 }, (_, i) => ({
  id: `n${String(i).padStart(3, "0")}`,
  key: keyPairFromSeed(sha256(utf8(`bench ${i}`))),
}));
function voters(count: number) {
  return VOTERS.slice(0, count);
}

/** The floor: milliseconds. */
function floor(count: number): number {
  const keys = voters(count).map((one) => one.key);
  const started = cpuMs();
  for (const phase of [1, 2]) {
    const message = sha256(Uint8Array.of(phase));
    const signed = keys.map((one) => signBytes(one, message));
    for (let i = 0; i < count; i++) {
      for (let j = 0; j < count; j++) {
        if (i !== j && !verify(keys[j]!.publicKey, message, signed[j]!)) throw new Error("floor: bad signature");
      }
    }
  }
  return cpuMs() - started;
}

/** So many verifications and nothing else: milliseconds. */
function checks(count: number): number {
  const { key } = VOTERS[0]!;
  const message = sha256(utf8("check"));
  const signature = signBytes(key, message);
  const started = cpuMs();
  for (let i = 0; i < count; i++) if (!verify(key.publicKey, message, signature)) throw new Error("bad signature");
  return cpuMs() - started;
}

interface Run {
  readonly ms: number;
  readonly messages: number;
  readonly bytes: number;
  readonly certificate: Certificate;
  readonly rounds: number;
}

/** One decision of `batch` operations. Simulated time moves only where nothing else is to be done. */
function decide(
  options: {
    readonly count: number;
    readonly batch: number;
    readonly silent?: number;
    readonly committee?: number;
    readonly measureBytes?: boolean;
  },
): Run {
  const { count, batch, silent = 0, committee } = options;
  const all = voters(count);
  const table = freezeTable({
    epoch: 1,
    seed: NETWORK,
    weights: all.map(({ id, key }) => ({ id, publicKey: key.publicKey, weightPpm: 1 })),
  });
  const cores = new Map(
    all.slice(0, count - silent).map(({ id, key }) => [
      id,
      new Consensus({
        networkId: NETWORK,
        id,
        key,
        table,
        verify,
        options: { batchMax: batch, ...(committee === undefined ? {} : { committeeSize: committee }) },
      }),
    ]),
  );
  const queue: { readonly to: string; readonly event: ConsensusEvent }[] = [];
  const wakes = new Map<string, number>();
  const decided = new Map<string, Certificate>();
  let [nowMs, messages, bytes] = [1_000_000, 0, 0];
  const carryOut = (id: string, effects: readonly ConsensusEffect[]) => {
    for (const one of effects) {
      switch (one.type) {
        case "persist":
          carryOut(id, one.then);
          queue.push({ to: id, event: { type: "persisted", nowMs, seq: one.seq } });
          break;
        case "send":
          messages++;
          if (options.measureBytes) bytes += encodeMessage(one.message).length;
          queue.push({ to: one.to, event: { type: "message", nowMs, from: id, message: one.message } });
          break;
        case "verify": {
          const vote = bitmapOf(one.operations.map(() => true));
          queue.push({ to: id, event: { type: "verified", nowMs, instance: one.instance, vote } });
          break;
        }
        case "decided":
          decided.set(id, one.certificate);
          break;
        case "wakeAt":
          wakes.set(id, one.atMs);
          break;
      }
    }
  };
  for (const [id, core] of cores) carryOut(id, core.step({ type: "start", nowMs, stored: [], number: 0 }));
  const first = all[0]!.id;
  const started = cpuMs();
  const operation = { kind: "bench/op", body: new Uint8Array(100) };
  const submits = Array.from({ length: batch }, (_, i) => ({
    id: i + 1,
    class: committee === undefined ? "critical" as const : "standard" as const,
    lane: "a",
    priority: 1,
    operation,
  }));
  carryOut(first, cores.get(first)!.step({ type: "submit", nowMs, submits }));
  const wanted = committee ?? count - silent;
  for (let at = 0; decided.size < Math.min(wanted, count - silent);) {
    const next = queue[at++];
    if (!next) {
      nowMs = Math.min(...wakes.values());
      for (const [id, atMs] of [...wakes]) {
        if (atMs > nowMs) continue;
        wakes.delete(id);
        carryOut(id, cores.get(id)!.step({ type: "wake", nowMs }));
      }
      continue;
    }
    const receiver = cores.get(next.to);
    if (receiver) carryOut(next.to, receiver.step({ ...next.event, nowMs }));
  }
  const certificate = decided.values().next().value!;
  if (committee !== undefined) {
    // Everybody else checks the certificate.
    for (const { id } of all) {
      if (!decided.has(id) && !verifyCertificate(certificate, table, NETWORK, verify).ok) {
        throw new Error("bad certificate");
      }
    }
  }
  return { ms: cpuMs() - started, messages, bytes, certificate, rounds: certificate.round + 1 };
}

function flag(name: string, missing: string): string {
  return Deno.args.find((one) => one.startsWith(`--${name}=`))?.split("=")[1] ?? missing;
}

if (import.meta.main) {
  const pairs = Number(flag("pairs", "5"));
  const sizes = flag("sizes", "4,7,16,32").split(",").map(Number);
  const certificateMs = (certificate: Certificate, count: number) => {
    const table = freezeTable({
      epoch: 1,
      seed: NETWORK,
      weights: voters(count).map(({ id, key }) => ({ id, publicKey: key.publicKey, weightPpm: 1 })),
    });
    const started = cpuMs();
    verifyCertificate(certificate, table, NETWORK, verify);
    return round(cpuMs() - started);
  };
  for (const count of sizes) {
    const measured: Pair[] = [];
    // A node runs for months: what the compiler has not seen yet is not measured. Small sizes are too short to time one by one.
    const repeats = Math.ceil(64 / count);
    for (let i = 0; i < 4 * repeats; i++) decide({ count, batch: 1 });
    for (let i = 0; i < pairs; i++) {
      let [ours, reference] = [0, 0];
      for (let j = 0; j < repeats; j++) {
        ours += decide({ count, batch: 1 }).ms / repeats;
        reference += floor(count) / repeats;
      }
      measured.push({ ours, reference });
    }
    const sized = decide({ count, batch: 1, measureBytes: true });
    report({
      name: `bft decision, N=${count}, CPU of the network`,
      unit: "ms",
      bar: 2.5,
      extreme: 1.2,
      pairs: measured,
      more: {
        messages: sized.messages,
        allToAll: 2 * count * (count - 1),
        bytesPerNode: Math.round(sized.bytes / count),
        certificateBytes: encodeCbor(certificateValue(sized.certificate)).length,
        certificateVerifyMs: certificateMs(sized.certificate, count),
      },
    });
    const silent = Math.floor((count - 1) / 3);
    const hurt = decide({ count, batch: 1, silent });
    console.log(JSON.stringify({
      name: `bft decision, N=${count}, ${silent} silent`,
      unit: "ms",
      ours: round(hurt.ms),
      rounds: hurt.rounds,
      messages: hurt.messages,
    }));
  }
  for (const count of sizes.filter((one) => one <= 16)) {
    for (let i = 0; i < 5; i++) decide({ count, batch: 256 });
    const ms = median(Array.from({ length: pairs }, () => decide({ count, batch: 256 }).ms));
    const wanted = count <= 7 ? 30_000 : 6_000;
    const rate = 256_000 / ms;
    console.log(JSON.stringify({
      name: `bft throughput, N=${count}, batches of 256`,
      unit: "operations/s",
      ours: Math.round(rate),
      bar: 2_000,
      extreme: wanted,
      held: rate >= 2_000,
    }));
  }
  const committee = Array.from({ length: pairs }, () => ({
    ours: decide({ count: 100, batch: 1, committee: 16 }).ms,
    reference: floor(16) + checks(84 * quorumSeats(16)),
  }));
  report({
    name: "bft decision, committee of 16 of N=100, CPU of the network, all check the certificate",
    unit: "ms",
    bar: 2.5,
    extreme: 1.2,
    pairs: committee,
  });
}
