import assert from "node:assert/strict";
import fc from "fast-check";
import { InvariantError } from "../../src/core/assert.ts";
import { compareBytes } from "../../src/core/bytes.ts";
import { decodeAs, encodeCbor, WireError } from "../../src/core/codec.ts";
import type { KeyPair } from "../../src/core/crypto.ts";
import { LIMITS } from "../../src/core/limits.ts";
import {
  AuthorityChain,
  CLOCK_SKEW_MS,
  decodeEpoch,
  encodeEpoch,
  epochHash,
  EPOCHS_MAX,
  readSignedEpoch,
  type SignedEpoch,
  signedEpochValue,
  signEpoch,
} from "../../src/identity/authority.ts";
import { chainOf, GENESIS_KEY, keyOf, NETWORK_ID, nextEpoch, OTHER_NETWORK_ID, START_MS } from "./fixture.ts";

const KEYS: readonly KeyPair[] = Array.from({ length: LIMITS.issuersMax }, (_, i) => keyOf(`issuer ${i}`));
const NEW = keyOf("new issuer");
const STRANGER = keyOf("stranger");
const EMPTY = AuthorityChain.empty(NETWORK_ID, GENESIS_KEY.publicKey);

Deno.test("[2.1e] the first epoch counts with the genesis signature only", () => {
  assert.equal(EMPTY.epoch, 0);
  assert.deepEqual(EMPTY.issuers, []);
  assert.deepEqual(EMPTY.head, new Uint8Array(32));
  assert.throws(() => EMPTY.extended(nextEpoch(EMPTY, [NEW], [])), WireError);
  assert.throws(() => EMPTY.extended(nextEpoch(EMPTY, [NEW], [NEW, STRANGER])), /signed by 0 of 0/);
  const chain = EMPTY.extended(nextEpoch(EMPTY, [NEW], [GENESIS_KEY]));
  assert.equal(chain.epoch, 1);
  assert.ok(chain.isIssuer(NEW.publicKey) && chain.counts(NEW.publicKey));
  assert.ok(!chain.isIssuer(GENESIS_KEY.publicKey), "the genesis key signs epochs, it does not issue");
  assert.equal(EMPTY.epoch, 0, "a chain does not change");
});

Deno.test("[2.1e] an epoch counts from the smallest super-majority of issuers on: every subset of n = 1 to 7", () => {
  for (let n = 1; n <= LIMITS.issuersMax; n++) {
    const issuers = KEYS.slice(0, n);
    const chain = chainOf(...issuers);
    const signed = nextEpoch(chain, [NEW], issuers);
    const needed = [0, 1, 2, 3, 3, 4, 5, 5][n]!;
    assert.equal(chain.threshold, needed, `n=${n}`);
    for (let subset = 0; subset < 1 << n; subset++) {
      const signatures = signed.signatures.filter((_, i) => (subset & (1 << i)) !== 0);
      const extend = () => chain.extended({ payload: signed.payload, signatures });
      if (signatures.length >= needed) assert.equal(extend().epoch, 2);
      else assert.throws(extend, WireError, `n=${n}, ${signatures.length} signatures`);
    }
  }
});

Deno.test("[2.1e] the genesis key alone recovers a network that lost its issuers", () => {
  const chain = chainOf(...KEYS);
  const recovered = chain.extended(nextEpoch(chain, [NEW], [GENESIS_KEY]));
  assert.deepEqual(recovered.issuers, [NEW.publicKey]);
  assert.throws(
    () => recovered.extended(nextEpoch(recovered, KEYS, KEYS)),
    WireError,
    "the old ones have no say any more",
  );
});

Deno.test("[2.1e] [10.5b] signatures that do not count: one issuer many times, strangers, of another payload, network or key, changed", () => {
  const issuers = KEYS.slice(0, 4);
  const chain = chainOf(...issuers);
  const signed = nextEpoch(chain, [NEW], issuers);
  const [a, b, c] = signed.signatures;
  const refused = (what: string, ...signatures: SignedEpoch["signatures"][number][]) =>
    assert.throws(() => chain.extended({ payload: signed.payload, signatures }), WireError, what);
  const other = nextEpoch(chain, [STRANGER], issuers);
  const foreign = signEpoch(OTHER_NETWORK_ID, signed.payload, issuers[2]!);
  refused("two of four, many times", a!, b!, b!, a!, b!, b!, b!, a!);
  refused("a stranger as the third", a!, b!, signEpoch(NETWORK_ID, signed.payload, STRANGER));
  refused("the new issuer as the third", a!, b!, signEpoch(NETWORK_ID, signed.payload, NEW));
  refused("signature over another payload", a!, b!, other.signatures[2]!);
  refused("signature for another network", a!, b!, foreign);
  refused("signature of one under the key of another", a!, b!, { key: c!.key, signature: a!.signature });
  refused("no signature at all", a!, b!, { key: c!.key, signature: new Uint8Array(64) });
  refused("genesis key without its signature", { key: GENESIS_KEY.publicKey, signature: a!.signature });
  for (let bit = 0; bit < 512; bit += 7) {
    const signature = c!.signature.slice();
    signature[bit >> 3]! ^= 1 << (bit & 7);
    refused(`bit ${bit}`, a!, b!, { key: c!.key, signature });
  }
  assert.equal(chain.extended({ payload: signed.payload, signatures: [a!, a!, b!, foreign, c!] }).epoch, 2);
});

Deno.test("[2.1e] an epoch that does not follow is refused: skipped, repeated, or on another head", () => {
  const chain = chainOf(KEYS[0]!);
  for (const epoch of [1, 3, EPOCHS_MAX]) {
    assert.throws(() => chain.extended(nextEpoch(chain, [NEW], [KEYS[0]!], { epoch })), /does not follow epoch 1/);
  }
  for (const previous of [new Uint8Array(32), epochHash(Uint8Array.of(1))]) {
    assert.throws(() => chain.extended(nextEpoch(chain, [NEW], [GENESIS_KEY], { previous })), /does not follow/);
  }
  // A fork: two epochs 2 on the same head; an epoch 3 on one does not follow the other.
  const left = chain.extended(nextEpoch(chain, [NEW], [KEYS[0]!]));
  const right = chain.extended(nextEpoch(chain, [STRANGER], [KEYS[0]!]));
  assert.throws(() => left.extended(nextEpoch(right, [NEW], [GENESIS_KEY])), /does not follow/);
});

Deno.test("decodeEpoch() refuses no issuers, too many, unsorted or repeated ones, and numbers out of range", () => {
  const encode = (issuers: readonly Uint8Array[], epoch = 1) =>
    encodeCbor({ epoch, prev: new Uint8Array(32), issuers, created: 1 });
  const sorted = KEYS.map((pair) => pair.publicKey).sort(compareBytes);
  assert.equal(decodeEpoch(encode(sorted)).issuers.length, 7);
  assert.throws(() => decodeEpoch(encode([])), /no issuers/);
  assert.throws(() => decodeEpoch(encode([...sorted, NEW.publicKey])), WireError);
  assert.throws(() => decodeEpoch(encode([sorted[1]!, sorted[0]!])), /not sorted/);
  assert.throws(() => decodeEpoch(encode([sorted[0]!, sorted[0]!])), /not distinct/);
  assert.throws(() => decodeEpoch(encode([new Uint8Array(31)])), WireError);
  for (const epoch of [0, -1, EPOCHS_MAX + 1]) assert.throws(() => decodeEpoch(encode(sorted, epoch)), WireError);
  // What a program of ours proposes is checked before it is signed.
  const epoch = { epoch: 1, previous: new Uint8Array(32), createdMs: 1 };
  assert.throws(() => encodeEpoch({ ...epoch, issuers: [] }), InvariantError);
  assert.throws(() => encodeEpoch({ ...epoch, issuers: [sorted[0]!, sorted[1]!, sorted[0]!] }), InvariantError);
  assert.deepEqual(decodeEpoch(encodeEpoch({ ...epoch, issuers: sorted.toReversed() })).issuers, sorted);
});

Deno.test("[2.1e] merged() takes what is new, passes over what is known, refuses what contradicts, and leaves the chain as it was", () => {
  let chain = chainOf(KEYS[0]!);
  const history: AuthorityChain[] = [EMPTY, chain];
  for (let i = 1; i < 5; i++) {
    chain = chain.extended(nextEpoch(chain, [KEYS[i]!], [KEYS[i - 1]!]));
    history.push(chain);
  }
  for (const [known, from] of history.entries()) {
    const merged = from.merged(chain.since(1));
    assert.deepEqual(merged.head, chain.head);
    assert.equal(merged.epoch, 5);
    assert.deepEqual(from.merged(chain.since(known + 1)).head, chain.head, "only what is missing");
    assert.equal(from.merged(chain.since(1).slice(0, known)), from, "nothing new gives the very same chain");
    if (known + 2 <= 5) assert.throws(() => from.merged(chain.since(known + 2)), /does not follow/);
  }
  const fork = history[2]!.extended(nextEpoch(history[2]!, [STRANGER], [GENESIS_KEY]));
  assert.throws(() => chain.merged(fork.since(1)), /contradicts/);
  assert.throws(() => fork.merged(chain.since(1)), /contradicts/);
  assert.throws(() => history[1]!.merged([...chain.since(2), ...fork.since(3)]), /contradicts/);
  // Known ones are passed over by their content: a copy without signatures does no harm and proves nothing.
  const bare = chain.since(1).map(({ payload }) => ({ payload, signatures: [] }));
  assert.equal(chain.merged(bare), chain);
  assert.throws(() => EMPTY.merged(bare), WireError);
  assert.deepEqual(chain.since(0).length, 5);
  assert.deepEqual(chain.since(6), []);
});

Deno.test("[2.1e] an issuer that was taken out counts for one more epoch, and only for what is dated up to the change", () => {
  const [a, b, c] = KEYS as [KeyPair, KeyPair, KeyPair];
  const changedMs = START_MS + 1_000_000;
  const first = chainOf(a);
  const second = first.extended(nextEpoch(first, [b], [a], { createdMs: changedMs }));
  const third = second.extended(nextEpoch(second, [b, c], [b], { createdMs: changedMs + 1 }));
  assert.ok(first.counts(a.publicKey, Number.MAX_SAFE_INTEGER));
  assert.ok(second.counts(a.publicKey) && !second.isIssuer(a.publicKey));
  assert.ok(second.counts(a.publicKey, changedMs + CLOCK_SKEW_MS));
  assert.ok(!second.counts(a.publicKey, changedMs + CLOCK_SKEW_MS + 1), "a stolen key goes on signing");
  assert.ok(second.counts(b.publicKey, changedMs + 1e12));
  assert.ok(!third.counts(a.publicKey) && !third.counts(a.publicKey, START_MS));
  assert.ok(!third.counts(STRANGER.publicKey) && !EMPTY.counts(a.publicKey));
});

Deno.test("[10.1a] readSignedEpoch() fuzz: changed bytes on the wire never extend the chain, and give nothing but a WireError", () => {
  const chain = chainOf(...KEYS.slice(0, 2));
  const signed = nextEpoch(chain, [NEW], KEYS.slice(0, 2));
  const wire = encodeCbor(signedEpochValue(signed));
  assert.equal(chain.extended(decodeAs(wire, readSignedEpoch)).epoch, 2);
  fc.assert(
    fc.property(fc.nat(wire.length - 1), fc.integer({ min: 1, max: 255 }), (at, mask) => {
      const changed = wire.slice();
      changed[at]! ^= mask;
      assert.throws(() => chain.extended(decodeAs(changed, readSignedEpoch)), WireError);
      assert.throws(() => chain.merged([decodeAs(wire.slice(0, at), readSignedEpoch)]), WireError);
    }),
    { numRuns: 400 },
  );
  const many = { ...signed, signatures: Array.from({ length: LIMITS.issuersMax + 2 }, () => signed.signatures[0]!) };
  assert.throws(() => decodeAs(encodeCbor(signedEpochValue(many)), readSignedEpoch), WireError);
});
