/** Sessions: what was signed for one node, network, request or time is of no use for another. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { sha256 } from "../../src/core/crypto.ts";
import { keyPairFromSeed, signBytes } from "../../src/core/crypto.ts";
import { utf8 } from "../../src/core/bytes.ts";
import { WireError } from "../../src/core/codec.ts";
import { LIMITS } from "../../src/core/limits.ts";
import {
  CHALLENGE_MS,
  decodeProof,
  encodeProof,
  loginMessage,
  type LoginWords,
  type Place,
  REQUEST_MS,
  requestMessage,
  type RequestWords,
  SESSION_MS_MAX,
  Sessions,
} from "../../src/access/sessions.ts";

const bytesOf = (length: number, fill: number) => new Uint8Array(length).fill(fill);
const PLACE: Place = { networkId: bytesOf(32, 1), nodeKey: bytesOf(32, 2) };
const ANNA = keyPairFromSeed(bytesOf(32, 3));
const SESSION = keyPairFromSeed(bytesOf(32, 4));
const NOW = 1_800_000_000_000;

class Rig {
  readonly sessions = new Sessions(bytesOf(32, 9));
  #count = 0;

  random(length: number): Uint8Array {
    return sha256(utf8(`random ${this.#count++}`)).slice(0, length);
  }

  words(nowMs = NOW, over: Partial<LoginWords> = {}): LoginWords {
    const challenge = this.sessions.challenge(nowMs, this.random(24));
    return { challenge, key: ANNA.publicKey, sessionKey: SESSION.publicKey, ttlMs: 3_600_000, ...over };
  }

  open(words: LoginWords, options: { signature?: Uint8Array; place?: Place; nowMs?: number } = {}) {
    const { place = PLACE, nowMs = NOW } = options;
    const signature = options.signature ?? signBytes(ANNA, loginMessage(words, PLACE));
    return this.sessions.open({ words, signature, place }, { nowMs, id: this.random(16) });
  }

  opened(ttlMs = 3_600_000) {
    const result = this.open(this.words(NOW, { ttlMs }));
    assert.ok(result.ok);
    return result.session;
  }

  request(id: string, over: Partial<RequestWords> = {}): RequestWords {
    return {
      sessionId: Uint8Array.from(id.match(/../g)!, (pair) => Number.parseInt(pair, 16)),
      nonce: this.random(16),
      timeMs: NOW,
      method: "POST",
      path: "/control",
      bodyHash: sha256(utf8("{}")),
      ...over,
    };
  }

  prove(
    words: RequestWords,
    options: { signed?: RequestWords; place?: Place; nowMs?: number; pair?: typeof SESSION } = {},
  ) {
    const { signed = words, place = PLACE, nowMs = NOW, pair = SESSION } = options;
    const result = this.sessions.prove(
      { words, signature: signBytes(pair, requestMessage(signed, PLACE)), place },
      nowMs,
    );
    return result.ok ? "ok" : result.reason;
  }
}

Deno.test("[2.4a] a login is good once, within a minute, for one node of one network, by the key that signed", () => {
  const rig = new Rig();
  const words = rig.words();
  assert.ok(rig.open(words).ok);
  const reason = (result: ReturnType<Rig["open"]>) => result.ok ? "ok" : result.reason;
  assert.equal(reason(rig.open(words)), "login-replayed");
  assert.equal(reason(rig.open(rig.words(NOW - CHALLENGE_MS - 1))), "challenge-expired");
  assert.equal(reason(rig.open(rig.words(NOW + CHALLENGE_MS + 1))), "challenge-expired", "the clock was set back");
  assert.equal(reason(rig.open(rig.words(), { place: { ...PLACE, networkId: bytesOf(32, 7) } })), "signature-invalid");
  assert.equal(reason(rig.open(rig.words(), { place: { ...PLACE, nodeKey: bytesOf(32, 7) } })), "signature-invalid");
  assert.equal(
    reason(rig.open(rig.words(NOW, { challenge: new Sessions(bytesOf(32, 8)).challenge(NOW, bytesOf(24, 1)) }))),
    "challenge-foreign",
  );
  assert.equal(reason(rig.open(rig.words(NOW, { challenge: bytesOf(63, 1) }))), "challenge-foreign");
  const mallory = keyPairFromSeed(bytesOf(32, 5));
  const stolen = rig.words();
  assert.equal(
    reason(rig.open(stolen, { signature: signBytes(mallory, loginMessage(stolen, PLACE)) })),
    "signature-invalid",
  );
  // Whoever changes what was signed, the key of the session or its life, has nothing.
  for (const over of [{ sessionKey: mallory.publicKey }, { ttlMs: SESSION_MS_MAX }, { key: mallory.publicKey }]) {
    const honest = rig.words();
    const signature = signBytes(ANNA, loginMessage(honest, PLACE));
    assert.equal(reason(rig.open({ ...honest, ...over }, { signature })), "signature-invalid");
  }
});

Deno.test("[2.4a] a request is good once, for what was signed, and by the key of its session", () => {
  const rig = new Rig();
  const { id } = rig.opened();
  const request = rig.request(id);
  assert.equal(rig.prove(request), "ok");
  assert.equal(rig.prove(request), "request-replayed");
  const over: Partial<RequestWords>[] = [
    { method: "GET" },
    { path: "/exec" },
    { path: "/control?x=1" },
    { bodyHash: sha256(utf8('{"verb":"leave"}')) },
    { nonce: bytesOf(16, 1) },
    { timeMs: NOW + 1 },
  ];
  for (const one of over) {
    const signed = rig.request(id);
    assert.equal(rig.prove({ ...signed, ...one }, { signed }), "signature-invalid", JSON.stringify(one));
  }
  assert.equal(rig.prove(rig.request(id), { pair: ANNA }), "signature-invalid");
  assert.equal(rig.prove(rig.request(id), { place: { ...PLACE, nodeKey: bytesOf(32, 7) } }), "signature-invalid");
  assert.equal(rig.prove(rig.request("00".repeat(16))), "session-unknown");
  for (const timeMs of [NOW - REQUEST_MS - 1, NOW + REQUEST_MS + 1]) {
    assert.equal(rig.prove(rig.request(id, { timeMs })), "request-expired");
  }
  // One session's request is not another's.
  const other = rig.opened();
  const signed = rig.request(id);
  assert.equal(rig.prove({ ...signed, sessionId: rig.request(other.id).sessionId }, { signed }), "signature-invalid");
});

Deno.test("[2.4a] a request that was forged does not use up the nonce of the honest one", () => {
  const rig = new Rig();
  const { id } = rig.opened();
  const request = rig.request(id);
  assert.equal(rig.prove(request, { pair: ANNA }), "signature-invalid");
  assert.equal(rig.prove(request), "ok");
});

Deno.test("[2.4a] a session ends with its time, with its end, and with its key", () => {
  const rig = new Rig();
  const short = rig.opened(1_000);
  assert.equal(rig.prove(rig.request(short.id, { timeMs: NOW + 999 }), { nowMs: NOW + 999 }), "ok");
  assert.equal(rig.prove(rig.request(short.id, { timeMs: NOW + 1_000 }), { nowMs: NOW + 1_000 }), "session-expired");
  const ended = rig.opened();
  assert.ok(rig.sessions.end(ended.id));
  assert.ok(!rig.sessions.end(ended.id));
  assert.equal(rig.prove(rig.request(ended.id)), "session-unknown");
  const [one, two] = [rig.opened(), rig.opened()];
  assert.equal(rig.sessions.endOf(one.key), 2);
  assert.equal(rig.prove(rig.request(two.id)), "session-unknown");
  assert.ok(rig.opened(1e15).expiresMs <= NOW + SESSION_MS_MAX);
});

Deno.test("a request that is remembered cannot be replayed for as long as it would count", () => {
  const rig = new Rig();
  const { id } = rig.opened();
  const request = rig.request(id, { timeMs: NOW + REQUEST_MS });
  assert.equal(rig.prove(request), "ok");
  // Many others push it out if anything does.
  for (let i = 1; i < LIMITS.sessionNoncesMax; i++) assert.equal(rig.prove(rig.request(id)), "ok");
  assert.equal(rig.prove(rig.request(id)), "request-replayed", "full: refused, nothing forgotten");
  const last = NOW + 2 * REQUEST_MS;
  assert.equal(rig.prove(request, { nowMs: last }), "request-replayed");
  assert.equal(rig.prove(rig.request(id, { timeMs: last }), { nowMs: last }), "ok", "there is room again");
  assert.equal(rig.prove(request, { nowMs: last }), "request-replayed", "not by forgetting this one");
  assert.equal(rig.prove(request, { nowMs: last + 1 }), "request-expired");
});

Deno.test("sessions are bounded: the oldest of a key goes, others are not pushed out", () => {
  const rig = new Rig();
  const first = rig.opened();
  for (let i = 1; i < LIMITS.sessionsPerKeyMax; i++) rig.opened();
  assert.equal(rig.prove(rig.request(first.id)), "ok");
  rig.opened();
  assert.equal(rig.prove(rig.request(first.id)), "session-unknown");
  assert.equal(rig.sessions.size, LIMITS.sessionsPerKeyMax);
  // Other keys fill the rest, and nobody more gets in.
  for (let i = 0; rig.sessions.size < LIMITS.sessionsMax; i++) {
    const pair = keyPairFromSeed(sha256(utf8(`key ${i >> 4}`)));
    const words = rig.words(NOW, { key: pair.publicKey });
    assert.ok(rig.open(words, { signature: signBytes(pair, loginMessage(words, PLACE)) }).ok);
  }
  const late = keyPairFromSeed(bytesOf(32, 77));
  const words = rig.words(NOW, { key: late.publicKey });
  const refused = rig.open(words, { signature: signBytes(late, loginMessage(words, PLACE)) });
  assert.deepEqual(refused, { ok: false, reason: "sessions-full" });
});

Deno.test("a key that logs in without end keeps no other out", () => {
  const rig = new Rig();
  for (let i = 0; i < LIMITS.loginsPerKeyMax; i++) rig.opened();
  assert.deepEqual(rig.open(rig.words()), { ok: false, reason: "sessions-full" });
  const other = keyPairFromSeed(bytesOf(32, 78));
  const words = rig.words(NOW, { key: other.publicKey });
  assert.ok(rig.open(words, { signature: signBytes(other, loginMessage(words, PLACE)) }).ok);
  assert.ok(
    rig.open(rig.words(NOW + 2 * CHALLENGE_MS), { nowMs: NOW + 2 * CHALLENGE_MS }).ok,
    "until they are forgotten",
  );
});

Deno.test("logins of many keys are remembered up to a bound; then no further one is taken", () => {
  const rig = new Rig();
  for (let i = 0; i < LIMITS.loginsRememberedMax; i++) {
    const pair = keyPairFromSeed(sha256(utf8(`key ${i >> 5}`)));
    const words = rig.words(NOW, { key: pair.publicKey });
    const opened = rig.open(words, { signature: signBytes(pair, loginMessage(words, PLACE)) });
    assert.ok(opened.ok && rig.sessions.end(opened.session.id));
  }
  assert.deepEqual(rig.open(rig.words()), { ok: false, reason: "sessions-full" });
});

Deno.test("[10.5e] proofs of garbage give a WireError and nothing else", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), (input) => {
    try {
      decodeProof(input);
    } catch (error) {
      assert.ok(error instanceof WireError);
    }
  }));
  const good = encodeProof({
    sessionId: bytesOf(16, 1),
    nonce: bytesOf(16, 2),
    timeMs: NOW,
    signature: bytesOf(64, 3),
  });
  assert.deepEqual(decodeProof(good).timeMs, NOW);
  for (let i = 0; i < good.length; i++) {
    for (const bit of [1, 128]) {
      const bad = good.slice();
      bad[i]! ^= bit;
      try {
        decodeProof(bad);
      } catch (error) {
        assert.ok(error instanceof WireError);
      }
    }
    assert.throws(() => decodeProof(good.slice(0, i)), WireError);
  }
});

Deno.test("what an SSH agent is asked to sign is nothing that SSH asks for", () => {
  const message = loginMessage(new Rig().words(), PLACE);
  // A login to a server begins with the length of a session id, 20 to 64; a signed file with SSHSIG.
  assert.ok(new DataView(message.buffer, message.byteOffset).getUint32(0) > 64);
  assert.notEqual(new TextDecoder().decode(message.slice(0, 6)), "SSHSIG");
});
