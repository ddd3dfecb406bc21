/**
 * Commitments to a vote, their openings, and their recovery from shares.
 *
 * C = H("mycelium/commit/v1", network, instance, round, voter's key, vote, nonce): bound to all that it could be replayed to or
 * copied from, and with a nonce that nobody guesses. All of it follows from the voter's secret and the vote, so a
 * voter that restarts says the same again.
 *
 * @module
 */

import { assert } from "../core/assert.ts";
import { concatBytes, equalBytes, toHex, utf8 } from "../core/bytes.ts";
import { hashParts, hmacSha256, sha256 } from "../core/crypto.ts";
import { joinShares, SECRET_BYTES, splitSecret } from "./sharing.ts";
import { bitmapBytes, isBitmap, SHARE_HASH_BYTES, type Statement } from "./statements.ts";
import { blockingSeats, totalSeats, type WeightTable } from "./weights.ts";

/** The signed content of a commitment. */
export type Commitment = Extract<Statement, { readonly type: "commitment" }>;

/** Where a commitment stands: what it is bound to. */
export interface CommitmentPlace {
  readonly networkId: Uint8Array;
  readonly instance: Uint8Array;
  readonly round: number;
  /** Index of the voter in its electorate. */
  readonly voter: number;
  readonly electorate: WeightTable;
}

/** A commitment with what its maker keeps and gives out. */
export interface Dealing {
  readonly statement: Commitment;
  readonly nonce: Uint8Array;
  /** For each voter the shares of its seats, one after another. */
  readonly shares: readonly Uint8Array[];
}

/**
 * Commits to a vote.
 *
 * @param secret The voter's own, 32 bytes; never leaves it.
 */
export function dealCommitment(place: CommitmentPlace, vote: Uint8Array, secret: Uint8Array): Dealing {
  const nonce = hmacSha256(secret, utf8("mycelium/consensus/nonce/v1"), contextOf(place), vote);
  const shares = sharesOf(place, nonce);
  return {
    statement: {
      type: "commitment",
      instance: place.instance,
      round: place.round,
      commitment: commitmentHash(place, vote, nonce),
      sealed: seal(vote, nonce),
      shareHashes: concatBytes(...shares.map((one, i) => shareHash(i, one))),
    },
    nonce,
    shares,
  };
}

/** The vote that a nonce opens, or `undefined` where it does not fit the commitment. */
export function openCommitment(
  place: CommitmentPlace,
  statement: Commitment,
  nonce: Uint8Array,
  count: number,
): Uint8Array | undefined {
  if (nonce.length !== SECRET_BYTES || statement.sealed.length !== bitmapBytes(count)) return undefined;
  const vote = seal(statement.sealed, nonce);
  if (!isBitmap(vote, count)) return undefined;
  return equalBytes(commitmentHash(place, vote, nonce), statement.commitment) ? vote : undefined;
}

/** Whether these are the shares that a dealer has promised a holder. */
export function shareFits(
  place: CommitmentPlace,
  statement: Commitment,
  holder: number,
  shares: Uint8Array,
): boolean {
  const seats = place.electorate.voters[holder]?.seats;
  if (seats === undefined || shares.length !== seats * SECRET_BYTES) return false;
  const promised = statement.shareHashes.subarray(holder * SHARE_HASH_BYTES, (holder + 1) * SHARE_HASH_BYTES);
  return equalBytes(promised, shareHash(holder, shares));
}

/**
 * The nonce from shares that fit, by holder; `undefined` where they are too few. A dishonest dealer's may be of no
 * polynomial, so whoever calls this opens the commitment with the result, and convicts the dealer where that fails.
 */
export function recoverNonce(
  electorate: WeightTable,
  fitting: ReadonlyMap<number, Uint8Array>,
): Uint8Array | undefined {
  const wanted = blockingSeats(totalSeats(electorate));
  const points = new Map<number, Uint8Array>();
  let point = 1;
  for (const [holder, { seats }] of electorate.voters.entries()) {
    const shares = fitting.get(holder);
    for (let seat = 0; seat < seats; seat++, point++) {
      if (!shares || points.size === wanted) continue;
      points.set(point, shares.subarray(seat * SECRET_BYTES, (seat + 1) * SECRET_BYTES));
    }
  }
  return points.size < wanted ? undefined : joinShares(points);
}

function sharesOf(place: CommitmentPlace, nonce: Uint8Array): readonly Uint8Array[] {
  const total = totalSeats(place.electorate);
  const all = splitSecret(nonce, total, blockingSeats(total), toHex(sha256(contextOf(place))));
  let at = 0;
  return place.electorate.voters.map(({ seats }) => concatBytes(...all.slice(at, at += seats)));
}

function contextOf(place: CommitmentPlace): Uint8Array {
  const voter = place.electorate.voters[place.voter]!;
  return concatBytes(place.networkId, place.instance, Uint8Array.of(place.round), voter.publicKey);
}

function commitmentHash(place: CommitmentPlace, vote: Uint8Array, nonce: Uint8Array): Uint8Array {
  return hashParts(
    "mycelium/commit/v1",
    place.networkId,
    place.instance,
    Uint8Array.of(place.round),
    place.electorate.voters[place.voter]!.publicKey,
    vote,
    nonce,
  );
}

function shareHash(holder: number, shares: Uint8Array): Uint8Array {
  // The instance is in the signed statement that holds the hash; a share has full entropy, so its hash hides it.
  return hashParts("mycelium/consensus/share/v1", Uint8Array.of(holder), shares).subarray(0, SHARE_HASH_BYTES);
}

/** One-time pad from the nonce: seals and unseals. One hash is as long as the longest vote. */
function seal(vote: Uint8Array, nonce: Uint8Array): Uint8Array {
  const pad = hashParts("mycelium/consensus/seal/v1", nonce);
  assert(vote.length <= pad.length, `a vote has ${vote.length} bytes, at most ${pad.length}`);
  return vote.map((byte, i) => byte ^ pad[i]!);
}
