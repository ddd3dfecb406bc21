import assert from "node:assert/strict";
import fc from "fast-check";
import {
  type Beacon,
  BEACON_BYTES_MAX,
  BEACON_COPY_MS,
  BEACON_WINDOW_MS,
  BeaconGuard,
  beaconKeys,
  CLOCK_FLOOR_MS,
  encodeBeacon,
  mdnsMac,
  networkFingerprint,
} from "../../src/bootstrap/beacon.ts";
import { decodeCbor, encodeCbor } from "../../src/core/codec.ts";
import { hmacSha256, keyPairFromSeed } from "../../src/core/crypto.ts";
import { nodeIdOf } from "../../src/core/ids.ts";

const NOW = CLOCK_FLOOR_MS + 1_000_000_000;
const NETWORK = new Uint8Array(32).fill(0xab);
const SECRET = new Uint8Array(32).fill(0xcd);
const KEYS = beaconKeys(NETWORK, SECRET);
const ALICE = keyPairFromSeed(new Uint8Array(32).fill(1));
const BOB = keyPairFromSeed(new Uint8Array(32).fill(2));
const ALICE_ID = nodeIdOf(ALICE.publicKey);
const BOB_ID = nodeIdOf(BOB.publicKey);
const ADDRESS = "/ip4/10.0.0.1/udp/4871/quic-v1";

function said(change: Partial<Beacon> = {}): Omit<Beacon, "nodeId"> {
  return { kind: "announce", addresses: [ADDRESS], incarnation: 5, seq: 1, sentMs: NOW, ...change };
}

function guard(nodeId = BOB_ID): BeaconGuard {
  return new BeaconGuard({ keys: KEYS, nodeId });
}

function reasonOf(result: ReturnType<BeaconGuard["accept"]>): string {
  return result.ok ? "ok" : result.reason;
}

Deno.test("[1.1c] a beacon says who is there and where, and fits one frame", () => {
  const bytes = encodeBeacon(said(), KEYS, ALICE);
  assert.ok(bytes.length <= 320, `a beacon with one address takes ${bytes.length} bytes`);
  const result = guard().accept(bytes, NOW);
  assert.ok(result.ok);
  assert.deepEqual(result.beacon, {
    kind: "announce",
    nodeId: ALICE_ID,
    addresses: [`${ADDRESS}/p2p/${ALICE_ID}`],
    incarnation: 5,
    seq: 1,
    sentMs: NOW,
  });
});

Deno.test("encodeBeacon() leaves out the last addresses when they do not fit, and addresses of other nodes", () => {
  const long = Array.from({ length: 40 }, (_, i) => `/dns/${"a".repeat(60)}.${"b".repeat(50)}${i}.example/tcp/4871`);
  const bytes = encodeBeacon(said({ addresses: [`${ADDRESS}/p2p/${BOB_ID}`, ...long] }), KEYS, ALICE);
  assert.ok(bytes.length <= BEACON_BYTES_MAX, `${bytes.length}`);
  const result = guard().accept(bytes, NOW);
  assert.ok(result.ok);
  assert.ok(result.beacon.addresses.length >= 4);
  assert.deepEqual(
    result.beacon.addresses,
    long.slice(0, result.beacon.addresses.length).map((a) => `${a}/p2p/${ALICE_ID}`),
  );
});

Deno.test("[2.1d] a beacon of another network is foreign, and one with the right hint but another secret is forged", () => {
  const other = beaconKeys(new Uint8Array(32).fill(0xac), SECRET);
  assert.equal(reasonOf(guard().accept(encodeBeacon(said(), other, ALICE), NOW)), "foreign");
  const guessed = beaconKeys(NETWORK, new Uint8Array(32).fill(0xce));
  assert.equal(reasonOf(guard().accept(encodeBeacon(said(), guessed, ALICE), NOW)), "forged");
  assert.notEqual(networkFingerprint(NETWORK), networkFingerprint(other.networkId));
});

Deno.test("[2.1d] the same bytes under another network's hint and MAC key fail its signature", () => {
  // A node of two networks with one key: what it said in one must not count in the other.
  const other = beaconKeys(new Uint8Array(32).fill(0xac), SECRET);
  const outer = decodeCbor(encodeBeacon(said(), other, ALICE)) as {
    b: Uint8Array;
    s: Uint8Array;
    m: Uint8Array;
    v: number;
  };
  // The secret is the same here, so the MAC holds; only the hint is replaced.
  const moved = encodeCbor({ ...outer, h: KEYS.hint });
  assert.equal(reasonOf(guard().accept(moved, NOW)), "bad-signature");
});

Deno.test("a member that announces in another's name is refused by the signature", () => {
  const own = decodeCbor(encodeBeacon(said(), KEYS, BOB)) as { b: Uint8Array };
  const inner = decodeCbor(own.b) as { [key: string]: never };
  const lie = encodeCbor({ ...inner, k: ALICE.publicKey });
  // Bob knows the secret, so he can make a valid MAC; he cannot sign for Alice.
  const forged = remac({ payload: lie, signatureOf: encodeBeacon(said(), KEYS, BOB) });
  assert.equal(reasonOf(guard("x").accept(forged, NOW)), "bad-signature");
});

Deno.test("[1.1c] replays of an old beacon are refused, copies over a second path are not", () => {
  const one = guard();
  const first = encodeBeacon(said({ seq: 1 }), KEYS, ALICE);
  const second = encodeBeacon(said({ seq: 2 }), KEYS, ALICE);
  assert.deepEqual(copyOf(one.accept(first, NOW)), false);
  assert.deepEqual(copyOf(one.accept(first, NOW + BEACON_COPY_MS)), true);
  assert.equal(reasonOf(one.accept(first, NOW + BEACON_COPY_MS + 1)), "replayed");
  assert.equal(copyOf(one.accept(second, NOW)), false);
  assert.equal(reasonOf(one.accept(first, NOW)), "replayed");
  // Same number, other content: the sender's key signed two different things, only the first counts.
  const twin = encodeBeacon(said({ seq: 2, addresses: [] }), KEYS, ALICE);
  assert.equal(reasonOf(one.accept(twin, NOW)), "replayed");
  // A restart begins anew at 1, with a higher incarnation.
  assert.equal(reasonOf(one.accept(encodeBeacon(said({ incarnation: 6, seq: 1 }), KEYS, ALICE), NOW)), "ok");
  assert.equal(reasonOf(one.accept(encodeBeacon(said({ incarnation: 5, seq: 9 }), KEYS, ALICE), NOW)), "replayed");
});

Deno.test("the time window binds clocks that are set, and only those", () => {
  const at = (sentMs: number, nowMs: number) =>
    reasonOf(guard().accept(encodeBeacon(said({ sentMs }), KEYS, ALICE), nowMs));
  assert.equal(at(NOW, NOW + BEACON_WINDOW_MS), "ok");
  assert.equal(at(NOW, NOW + BEACON_WINDOW_MS + 1), "stale");
  assert.equal(at(NOW, NOW - BEACON_WINDOW_MS - 1), "stale");
  // A device without a battery-backed clock starts in 1970, as the one that speaks or the one that listens.
  assert.equal(at(4_000, NOW), "ok");
  assert.equal(at(NOW, 4_000), "ok");
});

Deno.test("our own beacon is told apart", () => {
  assert.equal(reasonOf(guard(ALICE_ID).accept(encodeBeacon(said(), KEYS, ALICE), NOW)), "own");
});

Deno.test("the guard remembers a bounded number of senders", () => {
  const one = new BeaconGuard({ keys: KEYS, nodeId: BOB_ID, sendersMax: 3 });
  for (let i = 10; i < 20; i++) {
    const pair = keyPairFromSeed(new Uint8Array(32).fill(i));
    assert.equal(reasonOf(one.accept(encodeBeacon(said(), KEYS, pair), NOW)), "ok");
    assert.ok(one.senders <= 3);
  }
});

Deno.test("accept() survives any bytes and every change of one byte of a real beacon", () => {
  const real = encodeBeacon(said(), KEYS, ALICE);
  fc.assert(fc.property(fc.uint8Array({ maxLength: 1_400 }), (bytes) => {
    const result = guard().accept(bytes, NOW);
    assert.ok(!result.ok && ["malformed", "foreign"].includes(result.reason));
  }));
  fc.assert(fc.property(fc.nat(real.length - 1), fc.integer({ min: 1, max: 255 }), (at, flip) => {
    const bytes = real.slice();
    bytes[at]! ^= flip;
    assert.notEqual(reasonOf(guard().accept(bytes, NOW)), "ok");
  }));
  for (let length = 0; length < real.length; length++) {
    assert.equal(reasonOf(guard().accept(real.subarray(0, length), NOW)), "malformed");
  }
});

Deno.test("any beacon comes back as it was said", () => {
  fc.assert(
    fc.property(
      fc.record({
        kind: fc.constantFrom("announce", "query"),
        incarnation: fc.maxSafeNat(),
        seq: fc.maxSafeNat(),
        sentMs: fc.nat(CLOCK_FLOOR_MS - 1),
        addresses: fc.array(fc.tuple(fc.ipV4(), fc.integer({ min: 1, max: 65535 })), { maxLength: 16 }),
      }),
      (one) => {
        const addresses = one.addresses.map(([ip, port]) => `/ip4/${ip}/tcp/${port}`);
        const bytes = encodeBeacon({ ...one, kind: one.kind as Beacon["kind"], addresses }, KEYS, ALICE);
        assert.ok(bytes.length <= BEACON_BYTES_MAX);
        const result = guard().accept(bytes, NOW);
        assert.ok(result.ok);
        assert.deepEqual(result.beacon, {
          ...one,
          nodeId: ALICE_ID,
          addresses: addresses.map((address) => `${address}/p2p/${ALICE_ID}`),
        });
      },
    ),
    { numRuns: 50 },
  );
});

Deno.test("mdnsMac() binds the addresses to the instance", () => {
  const mac = mdnsMac(KEYS, "a", [ADDRESS]);
  assert.equal(mac.length, 16);
  assert.notDeepEqual(mdnsMac(KEYS, "b", [ADDRESS]), mac);
  assert.notDeepEqual(mdnsMac(KEYS, "a", [ADDRESS, ADDRESS]), mac);
  assert.notDeepEqual(mdnsMac(beaconKeys(NETWORK, new Uint8Array(32)), "a", [ADDRESS]), mac);
});

function copyOf(result: ReturnType<BeaconGuard["accept"]>): boolean | string {
  return result.ok ? result.copy : result.reason;
}

/** Puts another payload under a beacon's signature, with a right MAC, as a member could. */
function remac(parts: { readonly payload: Uint8Array; readonly signatureOf: Uint8Array }): Uint8Array {
  const { s } = decodeCbor(parts.signatureOf) as { s: Uint8Array };
  const m = hmacSha256(KEYS.macKey, parts.payload, s).slice(0, 16);
  return encodeCbor({ b: parts.payload, h: KEYS.hint, m, s, v: 1 });
}
