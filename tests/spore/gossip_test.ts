/** Sentences of the gossipsub specification (v1.0, v1.1, v1.2), and what must hold whatever comes. @module */

import assert from "node:assert/strict";
import fc from "fast-check";
import { WireError } from "../../src/core/codec.ts";
import { LIMITS } from "../../src/core/limits.ts";
import { seededRng } from "../../src/core/rng.ts";
import { Gossip, type GossipEffect, type GossipEvent } from "../../src/spore/gossip.ts";
import { decodeFrame, encodeFrame, type GossipFrame, messageId } from "../../src/spore/gossip_wire.ts";
import { GRAYLIST_THRESHOLD, PeerScore } from "../../src/spore/peer_score.ts";

const utf8 = (text: string) => new TextEncoder().encode(text);
const news = (text: string) => ({ topic: "news", body: utf8(text) });

/** A core and its clock. */
class One {
  readonly core = new Gossip({ topics: ["news", "spores"], rng: seededRng(1) });
  nowMs = 1_000;
  wakeAtMs = Infinity;

  constructor(...peers: readonly string[]) {
    for (const nodeId of peers) this.step({ type: "peer-up", nodeId, outbound: false });
  }

  step(event: Distributed<GossipEvent>): GossipEffect[] {
    const effects = this.core.step({ ...event, nowMs: this.nowMs } as GossipEvent);
    for (const one of effects) if (one.type === "wakeAt") this.wakeAtMs = one.atMs;
    return effects;
  }

  frame(from: string, frame: Partial<GossipFrame>): GossipEffect[] {
    return this.step({ type: "frame", from, bytes: encodeFrame(frame) });
  }

  /** A message comes and is found valid. */
  takes(from: string, text: string): GossipEffect[] {
    this.frame(from, { messages: [news(text)] });
    return this.step({ type: "verdict", id: messageId(news(text)), verdict: "accept" });
  }

  wait(ms: number): GossipEffect[] {
    const endMs = this.nowMs + ms;
    const out: GossipEffect[] = [];
    while (this.wakeAtMs <= endMs) {
      this.nowMs = Math.max(this.nowMs, this.wakeAtMs);
      this.wakeAtMs = Infinity;
      out.push(...this.step({ type: "wake" }));
    }
    this.nowMs = endMs;
    return out;
  }

  mesh(topic = "news"): readonly string[] {
    return this.core.view(this.nowMs).topics.find((one) => one.topic === topic)!.mesh;
  }

  score(nodeId: string): number {
    return this.core.view(this.nowMs).peers.find((one) => one.nodeId === nodeId)!.score;
  }
}

type Distributed<E> = E extends unknown ? Omit<E, "nowMs"> : never;

/** Frames to a peer. */
function to(effects: readonly GossipEffect[], nodeId: string): GossipFrame[] {
  return effects.flatMap((one) => one.type === "send" && one.to === nodeId ? [decodeFrame(one.bytes)] : []);
}

const names = (count: number) => Array.from({ length: count }, (_, i) => `p${String(i).padStart(3, "0")}`);

Deno.test('[3.3c] v1.0 "Mesh links are bidirectional": whoever grafts is in the mesh here, and nothing is answered', () => {
  const one = new One(...names(6));
  const outside = names(6).find((nodeId) => !one.mesh().includes(nodeId))!;
  assert.deepEqual(one.frame(outside, { graft: ["news"] }).filter((effect) => effect.type === "send"), []);
  assert.ok(one.mesh().includes(outside));
  one.frame(outside, { prune: [{ topic: "news", backoffS: 60 }] });
  assert.ok(!one.mesh().includes(outside));
  assert.equal(one.mesh("spores").length, 4, "each topic has its own mesh");
});

Deno.test('[3.3b] v1.0 "will be forwarded to every peer in mesh[topic], apart from the source": and only once it is valid', () => {
  const one = new One("a", "b", "c", "d");
  const delivered = one.frame("a", { messages: [news("m")] });
  assert.deepEqual(delivered.map((effect) => effect.type), ["deliver"]);
  const sent = one.step({ type: "verdict", id: messageId(news("m")), verdict: "accept" });
  assert.deepEqual(sent.flatMap((effect) => effect.type === "send" ? [effect.to] : []).sort(), ["b", "c", "d"]);
});

Deno.test('[3.3a] v1.1 "Control messages can be piggybacked": one frame a peer and step', () => {
  const one = new One("a", "b", "c", "d", "e", "f");
  one.frame("e", { graft: ["news"] });
  const effects = one.frame("a", { messages: [news("m")], ihave: [messageId(news("x"))] });
  assert.deepEqual(effects.filter((effect) => effect.type === "send"), []);
  const both = new One("a", "b");
  both.step({ type: "publish", ...news("early") });
  const frames = to(both.step({ type: "peer-up", nodeId: "c", outbound: true }), "c");
  assert.equal(frames.length, 1);
  assert.deepEqual(frames[0]!.graft, ["news", "spores"]);
});

Deno.test('[3.3c] v1.1 "only accepts the new peer in the mesh if it is an outbound connection"', () => {
  const one = new One(...names(13));
  for (const nodeId of names(12)) one.frame(nodeId, { graft: ["news"] });
  assert.equal(one.mesh().length, 12);
  assert.equal(to(one.frame("p012", { graft: ["news"] }), "p012")[0]!.prune.length, 1, "full");
  one.step({ type: "peer-up", nodeId: "dialed", outbound: true });
  assert.deepEqual(to(one.frame("dialed", { graft: ["news"] }), "dialed"), []);
  assert.ok(one.mesh().includes("dialed"));
  one.wait(1_500);
  assert.ok(one.mesh().length <= 6 && one.mesh().includes("dialed"), "and it stays when the mesh is cut to D");
});

Deno.test('[3.3b] v1.1 "IWANT message responses are limited"; "peers with negative score are pruned from all meshes"', () => {
  const one = new One("a", "b", "c");
  one.takes("a", "m");
  for (let i = 0; i < 10; i++) one.frame("b", { iwant: [messageId(news("m"))] });
  assert.equal(one.core.view(one.nowMs).counters.messagesOut, 2 + 3);
  for (let i = 0; i < 5; i++) {
    one.nowMs += 1_000;
    one.frame("b", { ihave: Array.from({ length: 500 }, (_, j) => messageId(news(`no ${i} ${j}`))) });
    one.wait(3_000);
  }
  assert.ok(one.score("b") < 0, `${one.score("b")}`);
  assert.ok(!one.mesh().includes("b") && !one.mesh("spores").includes("b"));
});

Deno.test('[3.3b] v1.1 "the score is retained for some period of time when a peer disconnects"', () => {
  const one = new One("a", "b", "c");
  one.frame("a", { messages: [news("bad")] });
  one.step({ type: "verdict", id: messageId(news("bad")), verdict: "reject" });
  const before = one.score("a");
  assert.ok(before < 0);
  one.step({ type: "peer-down", nodeId: "a" });
  one.nowMs += 60_000;
  one.step({ type: "peer-up", nodeId: "a", outbound: false });
  assert.ok(one.score("a") < 0 && !one.mesh().includes("a"));
});

Deno.test('[3.3e] v1.2 "IDONTWANT": a large message is not wanted from others once it is here', () => {
  const one = new One("a", "b", "c");
  const large = { topic: "news", body: new Uint8Array(4_000) };
  const effects = one.frame("a", { messages: [large] });
  assert.deepEqual(to(effects, "b")[0]!.idontwant, [messageId(large)]);
  const other = new One("a", "b");
  other.frame("b", { idontwant: [messageId(large)] });
  assert.deepEqual(to(other.step({ type: "publish", ...large }), "b"), []);
});

Deno.test("[3.3a] a message that does not fit a datagram goes alone; everything else keeps to its size", () => {
  const one = new One("a", "b", "c");
  one.takes("a", "small");
  for (const size of [500, 500, 900, 5_000, LIMITS.gossipBodyBytesMax]) {
    one.step({ type: "publish", topic: "news", body: new Uint8Array(size).fill(one.nowMs & 255) });
    one.nowMs += 1;
  }
  const ids = Array.from({ length: 20 }, (_, i) => messageId(news(`m${i}`)));
  for (let i = 0; i < 20; i++) one.step({ type: "publish", ...news(`m${i}`) });
  const frames = one.frame("c", { iwant: ids });
  for (const effect of frames) {
    if (effect.type === "send") assert.ok(effect.bytes.length < LIMITS.datagramBytesMax, `${effect.bytes.length}`);
  }
  const too = one.step({ type: "publish", topic: "news", body: new Uint8Array(LIMITS.gossipBodyBytesMax + 1) });
  assert.deepEqual(too, [], "longer than any node reads");
});

Deno.test("[3.3b] verdicts that come late, twice or for nothing change nothing", () => {
  const one = new One("a", "b");
  one.frame("a", { messages: [news("m")] });
  const id = messageId(news("m"));
  assert.equal(one.step({ type: "verdict", id, verdict: "ignore" }).length, 0);
  assert.equal(one.step({ type: "verdict", id, verdict: "accept" }).length, 0);
  assert.equal(one.step({ type: "verdict", id: messageId(news("?")), verdict: "reject" }).length, 0);
  assert.deepEqual(one.frame("stranger", { messages: [news("x")] }), []);
  assert.throws(() => one.step({ type: "frame", from: "a", bytes: Uint8Array.of(0xff) }), WireError);
});

Deno.test("[3.3b] [3.5b] the same message over and over is a flood, and earns nothing", () => {
  const one = new One("a", "b", "c");
  one.takes("a", "m");
  let floods = 0;
  for (let i = 0; i < 1_500; i++) {
    for (const effect of one.frame("b", { messages: [news("m")] })) if (effect.type === "misbehaved") floods += 1;
  }
  assert.equal(floods, 1);
  // What it misses from now on is not made up for by what it played back.
  one.nowMs += 15_000;
  one.frame("b", { unchoke: ["news"] });
  for (let i = 0; i < 12; i++) {
    one.frame("c", { ihave: [messageId(news(`late ${i}`))] });
    one.wait(100);
    one.takes("c", `late ${i}`);
  }
  assert.ok(one.score("b") < 0, `${one.score("b")}`);
});

Deno.test("[3.3b] what was ignored can be said later on: it may have been found good since", () => {
  const one = new One("a", "b");
  one.frame("a", { messages: [news("m")] });
  one.step({ type: "verdict", id: messageId(news("m")), verdict: "ignore" });
  const sent = one.step({ type: "publish", ...news("m") });
  assert.deepEqual(sent.flatMap((effect) => effect.type === "send" ? [effect.to] : []).sort(), ["a", "b"]);
  assert.deepEqual(one.step({ type: "publish", ...news("m") }), [], "once");
  assert.deepEqual(one.frame("b", { messages: [news("m")] }).filter((effect) => effect.type === "deliver"), []);
});

Deno.test("[3.3b] [3.5b] validation that hangs holds so many messages and no more, and is free again when it goes on", () => {
  const one = new One("a", "b");
  for (let i = 0; i < LIMITS.gossipValidatingMax + 50; i++) one.frame(i % 2 ? "a" : "b", { messages: [news(`m${i}`)] });
  assert.equal(one.core.view(one.nowMs).validating, LIMITS.gossipValidatingMax);
  for (let i = 0; i < LIMITS.gossipValidatingMax; i++) {
    one.step({ type: "verdict", id: messageId(news(`m${i}`)), verdict: "accept" });
  }
  assert.equal(one.core.view(one.nowMs).validating, 0);
  const late = `m${LIMITS.gossipValidatingMax + 1}`;
  assert.equal(one.frame("a", { messages: [news(late)] }).filter((effect) => effect.type === "deliver").length, 1);
});

/** Any event, of few peers and messages, so that they meet. */
const peer = fc.constantFrom("a", "b", "c", "d", "e", "f", "g", "h");
const text = fc.constantFrom("m0", "m1", "m2", "m3", "m4");
const ids = fc.array(text.map((one) => messageId(news(one))), { maxLength: 3 });
const topicList = fc.array(fc.constantFrom("news", "spores", "weather"), { maxLength: 2 });
const events: fc.Arbitrary<Distributed<GossipEvent> | { readonly type: "wait"; readonly ms: number }> = fc.oneof(
  fc.record({ type: fc.constant("peer-up" as const), nodeId: peer, outbound: fc.boolean() }),
  fc.record({ type: fc.constant("peer-down" as const), nodeId: peer }),
  fc.record({
    type: fc.constant("frame" as const),
    from: peer,
    bytes: fc.record({
      messages: fc.array(text.map(news), { maxLength: 2 }),
      ihave: ids,
      iwant: ids,
      idontwant: ids,
      graft: topicList,
      prune: fc.array(fc.record({ topic: fc.constantFrom("news", "weather"), backoffS: fc.nat(100) }), {
        maxLength: 1,
      }),
      choke: topicList,
      unchoke: topicList,
    }).map(encodeFrame),
  }),
  fc.record({ type: fc.constant("publish" as const), topic: fc.constantFrom("news", "weather"), body: text.map(utf8) }),
  fc.record({
    type: fc.constant("verdict" as const),
    id: text.map((one) => messageId(news(one))),
    verdict: fc.constantFrom("accept" as const, "reject" as const, "ignore" as const),
  }),
  fc.record({ type: fc.constant("rtt" as const), nodeId: peer, rttMs: fc.integer({ min: -5, max: 1e6 }) }),
  fc.record({ type: fc.constant("thrifty" as const), thrifty: fc.boolean() }),
  fc.record({ type: fc.constant("wait" as const), ms: fc.nat(70_000) }),
);

Deno.test("[3.3b] [3.3c] whatever comes in whatever order: bounds hold, nothing unjudged leaves, nothing is delivered twice", () => {
  fc.assert(
    fc.property(fc.array(events, { maxLength: 80 }), (script) => {
      const one = new One();
      const up = new Set<string>();
      const own = new Set<string>();
      const accepted = new Set<string>();
      const pending = new Set<string>();
      const delivered = new Map<string, number>();
      for (const event of script) {
        if (event.type === "peer-up") up.add(event.nodeId);
        if (event.type === "peer-down") up.delete(event.nodeId);
        if (event.type === "verdict" && event.verdict === "accept" && pending.has(event.id)) accepted.add(event.id);
        if (event.type === "verdict") pending.delete(event.id);
        if (event.type === "publish") own.add(messageId(event));
        const effects = event.type === "wait" ? one.wait(event.ms) : one.step(event);
        for (const effect of effects) {
          if (effect.type === "deliver") {
            // What is known for two minutes is not delivered again within them.
            assert.ok(one.nowMs - (delivered.get(effect.id) ?? -Infinity) >= 120_000);
            delivered.set(effect.id, one.nowMs);
            pending.add(effect.id);
          }
          if (effect.type !== "send") continue;
          assert.ok(up.has(effect.to), "to somebody who is there");
          const frame = decodeFrame(effect.bytes);
          for (const id of [...frame.messages.map(messageId), ...frame.ihave]) {
            assert.ok(own.has(id) || accepted.has(id), "only what is valid");
          }
        }
        const view = one.core.view(one.nowMs);
        for (const { mesh } of view.topics) {
          assert.ok(mesh.length <= 12 && mesh.every((nodeId) => up.has(nodeId)), "links are peers");
        }
        assert.equal(view.peers.length, up.size);
        assert.ok(view.peers.every(({ score }) => Number.isSafeInteger(score)));
        assert.ok(
          one.wakeAtMs > one.nowMs || event.type !== "wait",
          "it does not ask to be woken in the past for ever",
        );
      }
    }),
    { numRuns: 300 },
  );
});

Deno.test("peer score: integers, bounded, and everything decays to what an unknown peer has", () => {
  fc.assert(fc.property(fc.array(fc.tuple(fc.nat(6), fc.nat(30_000)), { maxLength: 200 }), (acts) => {
    let nowMs = 5_000;
    const score = new PeerScore(nowMs);
    for (const [act, waitMs] of acts) {
      nowMs += waitMs;
      if (act === 0) score.first(nowMs);
      else if (act === 1) score.near(nowMs);
      else if (act === 2) score.missed(nowMs);
      else if (act === 3) score.invalid(nowMs);
      else if (act === 4) score.misbehaved(nowMs);
      else if (act === 5) score.keptPromise(nowMs);
      else score.pruned(nowMs);
      const value = score.value(nowMs);
      assert.ok(Number.isSafeInteger(value) && value <= 50);
    }
    assert.equal(score.value(nowMs + 86_400_000), 0);
  }));
});

Deno.test("peer score: decay comes to the same in one long step and in many short ones", () => {
  const [long, short] = [new PeerScore(0), new PeerScore(0)];
  for (const one of [long, short]) for (let i = 0; i < 30; i++) one.first(0);
  for (let ms = 0; ms < 600_000; ms += 3_333) short.value(ms);
  assert.equal(long.value(600_000), short.value(600_000));
});

Deno.test("peer score: two invalid messages of a newcomer, or three of the best peer, and it is not read any more", () => {
  const newcomer = new PeerScore(0);
  newcomer.invalid(0);
  assert.ok(newcomer.value(0) < 0 && newcomer.value(0) >= GRAYLIST_THRESHOLD);
  newcomer.invalid(0);
  assert.ok(newcomer.value(0) < GRAYLIST_THRESHOLD);
  const best = new PeerScore(0);
  best.meshSinceMs = 0;
  for (let i = 0; i < 40; i++) best.first(600_000);
  assert.equal(best.value(600_000), 50);
  for (let i = 0; i < 3; i++) best.invalid(600_000);
  assert.ok(best.value(600_000) < GRAYLIST_THRESHOLD);
});
