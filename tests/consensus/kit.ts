/** Voters, tables and a small in-process network for consensus tests. @module */

import { toHex, utf8 } from "../../src/core/bytes.ts";
import { type KeyPair, keyPairFromSeed, sha256 } from "../../src/core/crypto.ts";
import { freezeTable, type WeightTable } from "../../src/consensus/weights.ts";

/** A network of its own. */
export const NETWORK = sha256(utf8("consensus tests"));

/** A voter with its key. */
export interface TestVoter {
  readonly id: string;
  readonly key: KeyPair;
}

const KEYS = new Map<string, KeyPair>();

/** Voters n01, n02, …: the same keys each time. */
export function testVoters(count: number): readonly TestVoter[] {
  return Array.from({ length: count }, (_, i) => {
    const id = `n${String(i + 1).padStart(2, "0")}`;
    const key = KEYS.get(id) ?? keyPairFromSeed(sha256(utf8(`voter ${id}`)));
    KEYS.set(id, key);
    return { id, key };
  });
}

/** A table of these voters, equal ones unless weights are given. */
export function tableOf(voters: readonly TestVoter[], weights?: readonly number[]): WeightTable {
  return freezeTable({
    epoch: 1,
    seed: sha256(utf8("seed")),
    weights: voters.map(({ id, key }, i) => ({ id, publicKey: key.publicKey, weightPpm: weights?.[i] ?? 1_000 })),
  });
}

/** First characters of a hash, for messages. */
export function short(bytes: Uint8Array): string {
  return toHex(bytes).slice(0, 8);
}
