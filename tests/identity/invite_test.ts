import assert from "node:assert/strict";
import fc from "fast-check";
import { concatBytes, equalBytes, fromBase64Url, toBase64Url } from "../../src/core/bytes.ts";
import { type CborValue, decodeCbor, encodeCbor, WireError } from "../../src/core/codec.ts";
import { sha256 } from "../../src/core/crypto.ts";
import { nodeIdOf } from "../../src/core/ids.ts";
import { createInvite, formatInvite, type Invite, openGrant, parseInvite } from "../../src/identity/invite.ts";
import { keyOf, NETWORK_ID, OTHER_NETWORK_ID, seedOf, START_MS } from "./fixture.ts";

const ISSUER = keyOf("issuer 0");
const OPTIONS = {
  seed: seedOf("invite"),
  networkId: NETWORK_ID,
  discoverySecret: seedOf("discovery"),
  addresses: [`/ip4/10.0.0.1/udp/4871/quic-v1/p2p/${nodeIdOf(ISSUER.publicKey)}`, "/dns/forest.example/tcp/4871"],
  anchor: { epoch: 1, hash: seedOf("epoch 1") },
  issuer: ISSUER,
  pool: "default",
  uses: 1,
  createdMs: START_MS,
  expiresMs: START_MS + 3_600_000,
  approval: false,
};
const INVITE = createInvite(OPTIONS);
const TOKEN = formatInvite(INVITE);

Deno.test("[2.1b] an invite comes back from its text with its secret, its grant and its addresses", () => {
  assert.match(TOKEN, /^myc1[A-Za-z0-9_-]+$/);
  assert.deepEqual(parseInvite(TOKEN), INVITE);
  assert.deepEqual(INVITE.grant, openGrant(INVITE.grantEnvelope, NETWORK_ID));
  assert.deepEqual(INVITE.keyPair.publicKey, INVITE.grant.key);
  fc.assert(
    fc.property(
      fc.record({
        seed: fc.uint8Array({ minLength: 32, maxLength: 32 }),
        discoverySecret: fc.uint8Array({ minLength: 32, maxLength: 32 }),
        uses: fc.integer({ min: 1, max: 100_000 }),
        approval: fc.boolean(),
        pool: fc.stringMatching(/^[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?$/),
        addresses: fc.array(fc.ipV4().map((ip) => `/ip4/${ip}/tcp/1`), { maxLength: 8 }),
        role: fc.constantFrom("sclerotium" as const, "rhizomorph" as const, "hypha" as const),
      }),
      (change) => {
        const invite = createInvite({ ...OPTIONS, ...change });
        assert.deepEqual(parseInvite(formatInvite(invite)), invite);
      },
    ),
    { numRuns: 50 },
  );
});

Deno.test("[2.1b] parseInvite() accepts a token that a mail program wrapped or a person copied with blanks", () => {
  for (
    const text of [
      `  ${TOKEN}\n`,
      TOKEN.replace(/(.{40})/g, "$1\n"),
      TOKEN.replace(/(.{76})/g, "$1\r\n    "),
      `\t${TOKEN.slice(0, 7)} ${TOKEN.slice(7)}`,
    ]
  ) assert.deepEqual(parseInvite(text), INVITE);
});

Deno.test("[2.1b] parseInvite() refuses each change of one character, each lost character, and each cut", () => {
  const other: Record<string, string> = { A: "B", "-": "_", _: "-" };
  for (let i = 0; i < TOKEN.length; i++) {
    const char = TOKEN[i]!;
    const changed = TOKEN.slice(0, i) + (other[char] ?? "A") + TOKEN.slice(i + 1);
    assert.throws(() => parseInvite(changed), WireError, `character ${i}`);
    assert.throws(() => parseInvite(TOKEN.slice(0, i)), WireError, `cut at ${i}`);
    const lost = TOKEN.slice(0, i) + TOKEN.slice(i + 1);
    assert.throws(() => parseInvite(lost), WireError, `without character ${i}`);
  }
  // Every possible last character: the bits that base64 leaves over must not hide a change.
  for (const char of "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=") {
    if (char === TOKEN.at(-1)) continue;
    assert.throws(() => parseInvite(TOKEN.slice(0, -1) + char), WireError, char);
    assert.throws(() => parseInvite(TOKEN + char), WireError, char);
  }
});

Deno.test("parseInvite() tells a person what is wrong", () => {
  assert.throws(
    () => parseInvite("https://example.org"),
    /wanted a text that starts with "myc1".*mycelium invite create/,
  );
  assert.throws(() => parseInvite(""), /myc1/);
  assert.throws(() => parseInvite(TOKEN.slice(0, -10)), /cut off or was changed/);
  assert.throws(() => parseInvite("x".repeat(1_000_000)), WireError);
  assert.throws(() => parseInvite("myc1" + "A".repeat(1_000_000)), WireError);
  assert.throws(() => parseInvite("myc1"), WireError);
});

Deno.test("[2.1b] parseInvite() refuses a token put together from another secret, network or grant, with a right checksum", () => {
  const body = unpack(TOKEN);
  assert.deepEqual(parseInvite(pack(body)), INVITE);
  const stranger = createInvite({ ...OPTIONS, seed: seedOf("other invite") });
  assert.throws(() => parseInvite(pack({ ...body, k: seedOf("other invite") })), /for another key/);
  assert.throws(() => parseInvite(pack({ ...body, g: unpack(formatInvite(stranger)).g! })), /for another key/);
  assert.throws(() => parseInvite(pack({ ...body, n: OTHER_NETWORK_ID })), /not valid in this network/);
  const grant = body.g as { p: Uint8Array; s: Uint8Array };
  for (let bit = 0; bit < 8 * grant.p.length; bit++) {
    const p = grant.p.slice();
    p[bit >> 3]! ^= 1 << (bit & 7);
    assert.throws(() => parseInvite(pack({ ...body, g: { ...grant, p } })), WireError, `grant, bit ${bit}`);
  }
  assert.throws(() => parseInvite(pack({ ...body, g: { ...grant, s: new Uint8Array(64) } })), WireError);
  assert.throws(() => parseInvite(pack({ ...body, a: ["http://evil.example/"] })), /multiaddr/);
  assert.throws(
    () => parseInvite(pack({ ...body, a: Array.from({ length: 9 }, () => "/ip4/10.0.0.1/tcp/1") })),
    WireError,
  );
  for (const key of ["n", "d", "k", "g", "a"]) {
    const { [key]: _, ...rest } = body;
    assert.throws(() => parseInvite(pack(rest)), WireError, `without ${key}`);
  }
});

Deno.test("[2.1b] a grant names its issuer: one that a stranger signed reads, and shows who signed it", () => {
  // Only the registrar knows the chain; what the invite carries for it is the signer.
  const forged = createInvite({ ...OPTIONS, issuer: keyOf("stranger") });
  const read = parseInvite(formatInvite(forged));
  assert.deepEqual(read.grantEnvelope.signer, keyOf("stranger").publicKey);
  assert.throws(() => openGrant({ ...read.grantEnvelope, signer: ISSUER.publicKey }, NETWORK_ID), WireError);
  assert.throws(() => openGrant(read.grantEnvelope, OTHER_NETWORK_ID), WireError);
});

Deno.test("[2.1b] the secret of an invite is not in what travels to the registrar", () => {
  const wire = encodeCbor({
    p: INVITE.grantEnvelope.payload,
    k: INVITE.grantEnvelope.signer,
    s: INVITE.grantEnvelope.signature,
  });
  for (const secret of [OPTIONS.seed, OPTIONS.discoverySecret]) {
    for (let at = 0; at + 32 <= wire.length; at++) assert.ok(!equalBytes(wire.subarray(at, at + 32), secret));
  }
});

Deno.test("the id of an invite follows from its key, and differs from key to key", () => {
  assert.equal(INVITE.grant.id.length, 16);
  assert.deepEqual(createInvite({ ...OPTIONS, uses: 5 }).grant.id, INVITE.grant.id);
  assert.notDeepEqual(createInvite({ ...OPTIONS, seed: seedOf("x") }).grant.id, INVITE.grant.id);
});

Deno.test("createInvite() refuses a grant that nobody would accept, and what it makes of the longest addresses reads again", () => {
  for (const change of [{ uses: 0 }, { uses: 100_001 }, { pool: "" }, { pool: "A" }, { createdMs: -1 }]) {
    assert.throws(() => createInvite({ ...OPTIONS, ...change }), WireError, JSON.stringify(change));
  }
  const name = Array.from({ length: 4 }, () => "a".repeat(62)).join(".") + ".a";
  assert.equal(name.length, 253);
  const longest = `/dns6/${name}./udp/65535/quic-v1/p2p/${nodeIdOf(ISSUER.publicKey)}`;
  const invite = createInvite({
    ...OPTIONS,
    role: "rhizomorph",
    pool: "p".repeat(63),
    addresses: Array.from({ length: 12 }, () => longest),
  });
  assert.equal(invite.addresses.length, 8);
  assert.deepEqual(parseInvite(formatInvite(invite)), invite);
});

Deno.test("[10.1a] parseInvite() fuzz: any text gives an invite or a WireError", () => {
  const noise = fc.oneof(
    fc.string({ unit: "binary" }),
    fc.string({ unit: fc.constantFrom(..."myc1AB-_ \n=") }).map((text) => "myc1" + text),
    fc.uint8Array({ maxLength: 200 }).map((body) =>
      "myc1" + toBase64Url(concatBytes(body, sha256(body).subarray(0, 4)))
    ),
    fc.tuple(fc.nat(TOKEN.length), fc.nat(TOKEN.length)).map(([a, b]) => TOKEN.slice(0, a) + TOKEN.slice(b)),
  );
  fc.assert(
    fc.property(noise, (text) => {
      let invite: Invite;
      try {
        invite = parseInvite(text);
      } catch (error) {
        assert.ok(error instanceof WireError, String(error));
        return;
      }
      assert.deepEqual(invite, INVITE);
    }),
    { numRuns: 1_000 },
  );
});

function unpack(token: string): Record<string, CborValue> {
  const raw = fromBase64Url(token.slice(4))!;
  return decodeCbor(raw.subarray(0, -4)) as Record<string, CborValue>;
}

function pack(value: CborValue): string {
  const body = encodeCbor(value);
  return "myc1" + toBase64Url(concatBytes(body, sha256(body).subarray(0, 4)));
}
