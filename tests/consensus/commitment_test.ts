import assert from "node:assert/strict";
import fc from "fast-check";
import { concatBytes, equalBytes, utf8 } from "../../src/core/bytes.ts";
import { sha256 } from "../../src/core/crypto.ts";
import {
  type CommitmentPlace,
  dealCommitment,
  openCommitment,
  recoverNonce,
  shareFits,
} from "../../src/consensus/commitment.ts";
import { joinShares, splitSecret } from "../../src/consensus/sharing.ts";
import { bitmapOf } from "../../src/consensus/statements.ts";
import { blockingSeats, totalSeats } from "../../src/consensus/weights.ts";
import { NETWORK, tableOf, testVoters } from "./kit.ts";

const secretBytes = fc.uint8Array({ minLength: 32, maxLength: 32 });

/** Multiplication in GF(256) bit by bit: the oracle of the tables. */
function slowMultiply(a: number, b: number): number {
  let product = 0;
  for (let bit = 0; bit < 8; bit++) {
    if (b >> bit & 1) product ^= a << bit;
  }
  for (let bit = 14; bit >= 8; bit--) if (product >> bit & 1) product ^= 0x11b << (bit - 8);
  return product;
}

Deno.test("[10.1b] splitSecret(): any threshold of shares joins to the secret, and one fewer to something else", () => {
  const sizes = fc.integer({ min: 1, max: 40 }).chain((count) =>
    fc.tuple(
      fc.constant(count),
      fc.integer({ min: 1, max: count }),
      fc.shuffledSubarray([...Array(count).keys()], { minLength: count }),
    )
  );
  fc.assert(fc.property(secretBytes, sizes, (secret, [count, threshold, order]) => {
    const shares = splitSecret(secret, count, threshold, "test");
    const some = (n: number) => new Map(order.slice(0, n).map((i) => [i + 1, shares[i]!]));
    assert.ok(equalBytes(joinShares(some(threshold)), secret));
    if (threshold > 1) assert.ok(!equalBytes(joinShares(some(threshold - 1)), secret));
  }));
});

Deno.test("[10.1b] splitSecret(): the shares lie on one polynomial, by the field's own definition", () => {
  const secret = sha256(utf8("secret"));
  // Degree 1: share = secret + point * slope, so the slope is the same at each point.
  const shares = splitSecret(secret, 200, 2, "test");
  const slope = shares[0]!.map((byte, i) => byte ^ secret[i]!);
  shares.forEach((share, at) => {
    share.forEach((byte, i) => assert.equal(byte, secret[i]! ^ slowMultiply(at + 1, slope[i]!)));
  });
});

Deno.test("[10.1b] splitSecret(): with one share too few every secret is as likely, given free coefficients", () => {
  // For each candidate secret byte there is exactly one line through the share: one share of two says nothing.
  const seen = new Set<number>();
  for (let slope = 0; slope < 256; slope++) seen.add(0x5a ^ slowMultiply(7, slope));
  assert.equal(seen.size, 256);
});

function place(n: number, more: Partial<CommitmentPlace> = {}): CommitmentPlace {
  return {
    networkId: NETWORK,
    instance: sha256(utf8("instance")),
    round: 0,
    voter: 0,
    electorate: tableOf(testVoters(n)),
    ...more,
  };
}

Deno.test("[4.1a] a commitment opens with its nonce to its vote, and with no other nonce", () => {
  fc.assert(
    fc.property(fc.array(fc.boolean(), { minLength: 1, maxLength: 256 }), secretBytes, (bits, secret) => {
      const vote = bitmapOf(bits);
      const { statement, nonce } = dealCommitment(place(4), vote, secret);
      assert.deepEqual(openCommitment(place(4), statement, nonce, bits.length), vote);
      assert.equal(openCommitment(place(4), statement, nonce.map((byte) => byte ^ 1), bits.length), undefined);
      const sealed = statement.sealed.map((byte, i) => i === 0 ? byte ^ 1 : byte);
      assert.equal(openCommitment(place(4), { ...statement, sealed }, nonce, bits.length), undefined);
    }),
    { numRuns: 40 },
  );
});

Deno.test("[4.1a] a commitment is bound to network, instance, round and voter: it opens nowhere else", () => {
  const { statement, nonce } = dealCommitment(place(4), Uint8Array.of(1), sha256(utf8("me")));
  const elsewhere: Partial<CommitmentPlace>[] = [
    { networkId: sha256(utf8("b")) },
    { instance: sha256(utf8("b")) },
    { round: 1 },
    // Copied by another voter.
    { voter: 1 },
  ];
  assert.ok(openCommitment(place(4), statement, nonce, 1));
  for (const other of elsewhere) assert.equal(openCommitment(place(4, other), statement, nonce, 1), undefined);
});

Deno.test("[4.1a] yes and no cannot be told apart by trying both: the nonce has 256 bits, and is another one for each vote and round", () => {
  const secret = sha256(utf8("me"));
  const nonces = [0, 1].flatMap((vote) =>
    [0, 1].map((round) => String(dealCommitment(place(4, { round }), Uint8Array.of(vote), secret).nonce))
  );
  assert.equal(new Set(nonces).size, 4);
  // A voter that restarts says the same again.
  assert.deepEqual(
    dealCommitment(place(4), Uint8Array.of(1), secret),
    dealCommitment(place(4), Uint8Array.of(1), secret),
  );
});

Deno.test("[4.1b] [10.1b] a withheld opening is recovered by every third of the seats and more, and by no less", () => {
  const weights = fc.array(fc.integer({ min: 1, max: 1_000 }), { minLength: 4, maxLength: 9 });
  fc.assert(
    fc.property(weights, fc.nat(), (drawn, subset) => {
      const electorate = tableOf(testVoters(drawn.length), drawn);
      const at = place(4, { electorate });
      const { statement, nonce, shares } = dealCommitment(at, Uint8Array.of(1), sha256(utf8("me")));
      const holders = electorate.voters.flatMap((_, i) => subset >> i & 1 ? [i] : []);
      const held = new Map(holders.map((i) => [i, shares[i]!]));
      for (const [holder, one] of held) assert.ok(shareFits(at, statement, holder, one));
      const seats = holders.reduce((sum, i) => sum + electorate.voters[i]!.seats, 0);
      const recovered = recoverNonce(electorate, held);
      if (seats >= blockingSeats(totalSeats(electorate))) assert.deepEqual(recovered, nonce);
      else assert.equal(recovered, undefined);
    }),
    { numRuns: 60 },
  );
});

Deno.test("[4.1b] a share that is not the dealer's does not fit, and one of another holder neither", () => {
  const at = place(4);
  const { statement, shares } = dealCommitment(at, Uint8Array.of(1), sha256(utf8("me")));
  assert.ok(shareFits(at, statement, 2, shares[2]!));
  assert.ok(!shareFits(at, statement, 1, shares[2]!));
  assert.ok(!shareFits(at, statement, 2, shares[2]!.map((byte) => byte ^ 1)));
  assert.ok(!shareFits(at, statement, 2, concatBytes(shares[2]!, shares[2]!)));
  assert.ok(!shareFits(at, statement, 9, shares[2]!));
});
