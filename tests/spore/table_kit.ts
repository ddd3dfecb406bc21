/** Versions on paper for the table, which checks no signature: cheap, so that properties can try many. @module */

import { encodeCbor } from "../../src/core/codec.ts";
import { utf8 } from "../../src/core/bytes.ts";
import { sha256 } from "../../src/core/crypto.ts";
import { type Envelope, envelopeHash } from "../../src/core/envelope.ts";
import { nodeIdOf } from "../../src/core/ids.ts";
import type { RankProof } from "../../src/spore/proof.ts";
import { RECORD_LIFE_MS_MAX, type Spore } from "../../src/spore/record.ts";
import type { SporeTable, Version } from "../../src/spore/table.ts";

/** A time like any other. */
export const T0 = 1_800_000_000_000;
const DAY = 86_400_000;

/** What a version on paper is made of. */
export interface Paper {
  readonly key?: string;
  /** 0 to 63. */
  readonly author?: number;
  readonly seq: number;
  /** Missing: a tombstone. */
  readonly value?: string | undefined;
  readonly ttlMs?: number;
  readonly proof?: {
    readonly tier: "seed" | "primary";
    readonly term?: number;
    readonly index: number;
    readonly epoch?: number;
    readonly untilMs?: number;
  } | undefined;
}

const AUTHORS = Array.from({ length: 64 }, (_, i) => {
  const signer = sha256(utf8(`author ${i}`));
  return { signer, nodeId: nodeIdOf(signer) };
});

/** A version that looks like a signed one. */
export function paper(one: Paper): Version {
  const { key = "app/x", author = 0, seq, value } = one;
  const { signer, nodeId } = AUTHORS[author]!;
  const record = {
    key,
    seq,
    value: value === undefined ? undefined : utf8(value),
    issuedMs: seq,
    expiresMs: seq + (one.ttlMs ?? RECORD_LIFE_MS_MAX),
  };
  const payload = encodeCbor({ k: key, n: seq, v: record.value, i: record.issuedMs, x: record.expiresMs });
  const envelope: Envelope = { type: "spore/1", payload, signer, signature: new Uint8Array(64) };
  const spore: Spore = { record, envelope, hash: envelopeHash(envelope), author: nodeId };
  const { proof } = one;
  if (!proof) return { spore, proof: undefined };
  const rank: RankProof = {
    tier: proof.tier,
    term: proof.term ?? 0,
    index: proof.index,
    epoch: proof.epoch ?? 1,
    untilMs: proof.untilMs ?? T0 + 10 * DAY,
    signatures: [],
  };
  return { spore, proof: rank };
}

/** All that tells two tables apart, for comparing them. */
export function stateOf(table: SporeTable): string {
  return JSON.stringify(
    table.list("").map((entry) => ({
      key: entry.key,
      tier: entry.tier,
      winner: spell(entry.winner),
      challenger: entry.challenger && spell(entry.challenger),
      versions: table.versions(entry.key).map(spell).sort(),
    })),
  );
}

/** A version in short. */
export function spell({ spore, proof }: Version): string {
  const { seq, value } = spore.record;
  const rank = proof ? `${proof.tier} ${proof.term}.${proof.index} e${proof.epoch} until ${proof.untilMs}` : "latent";
  return `${seq}${value === undefined ? " deleted" : ""} by ${spore.author.slice(-4)}, ${rank}`;
}
