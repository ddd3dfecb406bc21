import assert from "node:assert/strict";
import { toHex } from "../../src/core/bytes.ts";
import { sha256 } from "../../src/core/crypto.ts";
import { LIMITS } from "../../src/core/limits.ts";
import { encodeFrame, type MessageId } from "../../src/spore/gossip_wire.ts";
import { GossipNet, type GossipNetOptions, type GossipNode } from "./gossip_net.ts";

/** A network that has come together. */
function gather(options: GossipNetOptions): GossipNet {
  const net = new GossipNet(options);
  net.connectAll();
  net.run(5_000);
  return net;
}

interface Said {
  readonly text: string;
  readonly atMs: number;
}

/** Publishes now and then, from nodes of a list. */
function talk(net: GossipNet, from: readonly GossipNode[], count: number, gapMs: number, label = "m"): Said[] {
  const said: Said[] = [];
  for (let i = 0; i < count; i++) {
    const up = from.filter((one) => one.up);
    const text = `${label}${i}`;
    said.push({ text, atMs: net.nowMs });
    net.publish(up[net.rng.below(up.length)]!, text);
    net.run(gapMs);
  }
  return said;
}

/** Deliveries that are missing among nodes that were up all the time, and how long the others took. */
function outcome(said: readonly Said[], nodes: readonly GossipNode[]) {
  const missing: string[] = [];
  const tookMs: number[] = [];
  for (const { text, atMs } of said) {
    for (const node of nodes) {
      if (!node.up || node.upSinceMs > atMs - 2_000) continue;
      const gotMs = node.got.get(text);
      if (gotMs === undefined) missing.push(`${node.id} lacks ${text}`);
      else tookMs.push(gotMs - atMs);
    }
  }
  tookMs.sort((a, b) => a - b);
  return { missing, lastMs: tookMs.at(-1) ?? 0, p99Ms: tookMs[Math.floor(tookMs.length * 0.99)] ?? 0 };
}

/** Nothing that a node holds grows past its bound. */
function assertBounded(net: GossipNet): void {
  for (const node of net.nodes) {
    const view = node.core.view(net.nowMs);
    assert.ok(view.seen <= LIMITS.gossipSeenMax && view.cachedBytes <= LIMITS.gossipCacheBytesMax);
    assert.ok(view.wanted <= LIMITS.gossipWantedMax && view.validating <= LIMITS.gossipValidatingMax);
    assert.ok(view.scores <= LIMITS.gossipScoresMax);
    for (const { mesh, eager } of view.topics) assert.ok(mesh.length <= 12 && eager.length <= mesh.length);
  }
}

for (const nodes of [10, 32, 100, 1_000]) {
  Deno.test(`[3.3a] [3.3c] gossip: N=${nodes}: everybody gets everything, 3.5 sends per delivery, log3(N) + 2 hops`, () => {
    // One delay for all: then the first message to come is the one with the fewest hops.
    const net = gather({ nodes, seed: nodes, latencyMs: { min: 5, max: 5 } });
    talk(net, net.nodes, 20, 1_500, "warm");
    net.run(10_000);
    const before = net.totals();
    const said = talk(net, net.nodes, 30, 1_500);
    net.run(10_000);
    const after = net.totals();
    const { missing } = outcome(said, net.nodes);
    assert.deepEqual(missing, []);
    const deliveries = said.length * (nodes - 1);
    const frames = (after.frames - before.frames) / deliveries;
    const messages = (after.messages - before.messages) / deliveries;
    assert.ok(messages <= 3.5, `each message is sent ${messages.toFixed(2)} times per delivery`);
    assert.ok(frames <= 4.25, `${frames.toFixed(2)} frames per delivery, announcements and all`);
    // Half of the messages are everywhere within so many hops.
    const hops = said.map(({ text }) => Math.max(...net.nodes.map((one) => one.hops.get(text)!))).sort((a, b) => a - b);
    const law = Math.log(nodes) / Math.log(3) + 2;
    assert.ok(hops[hops.length >> 1]! <= law, `${hops} hops, ${law.toFixed(1)} at most`);
    assertBounded(net);
  });
}

Deno.test("[3.3e] gossip: where nothing is said nothing is sent, and nodes wake once a minute", () => {
  const net = gather({ nodes: 100, seed: 2 });
  talk(net, net.nodes, 5, 500);
  net.run(60_000);
  const before = net.totals();
  const wakes = net.nodes.map((one) => one.wakes);
  net.run(600_000);
  assert.equal(net.totals().bytes, before.bytes);
  net.nodes.forEach((one, i) => assert.ok(one.wakes - wakes[i]! <= 11, `${one.wakes - wakes[i]!} in ten minutes`));
});

for (
  const [seed, nodes, lossPpm] of [[1, 10, 50_000], [2, 32, 200_000], [3, 100, 50_000], [4, 100, 200_000]] as const
) {
  Deno.test(`[3.3a] gossip: N=${nodes}, ${lossPpm / 10_000} % of all frames lost: all but a few deliveries, without a digest`, () => {
    const net = gather({ nodes, seed, lossPpm });
    const said = talk(net, net.nodes, 60, 700);
    net.lossPpm = 0;
    net.run(10_000);
    const { missing } = outcome(said, net.nodes);
    assert.ok(missing.length <= said.length * nodes / 500, `${missing.length} of ${said.length * nodes}: ${missing}`);
    // Where much is lost, nobody is taken for a liar.
    const scores = net.nodes.flatMap((one) => one.core.view(net.nowMs).peers.map(({ score }) => score));
    assert.ok(scores.filter((one) => one < 0).length < scores.length / 50);
    assertBounded(net);
  });
}

Deno.test("[3.3c] gossip: nodes come and go all the time: those that stay get everything, those that come back soon do", () => {
  const net = gather({ nodes: 60, seed: 5 });
  const said: Said[] = [];
  for (let i = 0; i < 40; i++) {
    const victim = net.nodes[1 + net.rng.below(59)]!;
    if (victim.up) {
      net.kill(victim);
      net.after(3_000, () => net.revive(victim));
    }
    said.push(...talk(net, net.nodes, 1, 400, `c${i} `));
  }
  net.run(20_000);
  assert.deepEqual(outcome(said, net.nodes).missing, []);
  const misbehaved = net.nodes.flatMap((one) => [...one.misbehaved.keys()]);
  assert.deepEqual(misbehaved, [], "churn is nobody's fault");
  for (const node of net.nodes) {
    const { mesh } = node.core.view(net.nowMs).topics[0]!;
    assert.ok(mesh.length >= 4, `${node.id} has ${mesh.length} links`);
  }
});

Deno.test("[3.3c] gossip: a network that was cut in two is one again, and its meshes with it", () => {
  const net = gather({ nodes: 20, seed: 6 });
  const [left, right] = [net.nodes.slice(0, 10), net.nodes.slice(10)];
  for (const a of left) for (const b of right) net.disconnect(a, b);
  net.run(30_000);
  const apart = talk(net, left, 3, 300, "left");
  assert.deepEqual(outcome(apart, left).missing, []);
  assert.ok(right.every((one) => !one.got.has("left0")));
  for (const a of left) for (const b of right) net.connect(a, b);
  // Four links within one half keep a node from grafting: the first minutes go by announcements outside the mesh.
  net.run(2_000);
  const said = talk(net, net.nodes, 120, 1_000, "one");
  net.run(20_000);
  const late = said.slice(60);
  assert.ok(outcome(late, net.nodes).missing.length === 0, `${outcome(late, net.nodes).missing}`);
});

/** Makes a node take part in the mesh and pass no message on. */
function silence(node: GossipNode): void {
  node.filter = ({ bytes }) => bytes.length < 40 && !isMessage(bytes);
}

/** Whether the frame of a well-behaved core holds messages or announces some. */
function isMessage(bytes: Uint8Array): boolean {
  // A map whose keys are one letter each: h and m are the ones that give something.
  return toHex(bytes).includes("616d") || toHex(bytes).includes("6168");
}

for (const [seed, nodes, every] of [[7, 20, 5], [8, 100, 5], [9, 100, 3]] as const) {
  Deno.test(`[3.3b] [10.2e] gossip: N=${nodes}: one node of ${every} takes everything and passes on nothing: the others get all`, () => {
    const net = new GossipNet({ nodes, seed });
    const bad = net.nodes.filter((_, i) => i % every === 1);
    const good = net.nodes.filter((one) => !bad.includes(one));
    bad.forEach(silence);
    net.connectAll();
    net.run(5_000);
    const said = talk(net, good, 60, 700);
    net.run(20_000);
    const { missing, p99Ms } = outcome(said, good);
    assert.deepEqual(missing, []);
    assert.ok(p99Ms < 500, `p99 ${p99Ms} ms`);
  });
}

/** Bad nodes that answer nothing; what they do comes from `act`. */
function bad(net: GossipNet, count: number): GossipNode[] {
  const nodes = net.nodes.slice(-count);
  for (const node of nodes) {
    node.bad = () => {};
    node.filter = () => false;
  }
  return nodes;
}

const text = (value: string) => new TextEncoder().encode(value);

Deno.test("[3.3b] [3.4b] gossip: spam of invalid messages reaches neighbours only, and stops there after a few", () => {
  const judged = new Map<GossipNode, number>();
  const net = new GossipNet({
    nodes: 40,
    seed: 10,
    judge: (node, _topic, body) => {
      if (!new TextDecoder().decode(body).startsWith("spam")) return "accept";
      judged.set(node, (judged.get(node) ?? 0) + 1);
      return "reject";
    },
  });
  const spammers = bad(net, 4);
  net.connectAll();
  net.run(5_000);
  let n = 0;
  const spam = () => {
    for (const one of spammers) {
      for (const peer of one.peers) {
        net.raw(one, peer, encodeFrame({ messages: [{ topic: "news", body: text(`spam ${n++}`) }] }));
      }
    }
    if (n < 20_000) net.after(20, spam);
  };
  spam();
  const good = net.nodes.filter((one) => !spammers.includes(one));
  const said = talk(net, good, 20, 500);
  net.run(20_000);
  assert.deepEqual(outcome(said, good).missing, []);
  assert.ok(n >= 20_000);
  for (const node of good) {
    const neighbours = spammers.filter((one) => node.peers.has(one)).length;
    // Each is heard until it is graylisted, and now and then when the score has recovered a little.
    assert.ok((judged.get(node) ?? 0) <= 4 * neighbours, `${node.id} judged ${judged.get(node)} of ${neighbours}`);
  }
  assertBounded(net);
});

Deno.test("[3.3b] [3.5b] gossip: floods of announcements that nobody keeps cost little, and end", () => {
  const net = new GossipNet({ nodes: 40, seed: 11 });
  const liars = bad(net, 4);
  net.connectAll();
  net.run(5_000);
  const before = net.totals();
  const good = net.nodes.filter((one) => !liars.includes(one));
  let n = 0;
  const fakes = (count: number): MessageId[] => Array.from({ length: count }, () => `${n++}`.padStart(16, "0"));
  const flood = (left: number) => {
    for (const one of liars) {
      for (const peer of one.peers) net.raw(one, peer, encodeFrame({ ihave: fakes(64) }));
    }
    if (left > 0) net.after(20, () => flood(left - 1));
  };
  flood(1_000);
  const said = talk(net, good, 20, 500);
  net.run(30_000);
  assert.deepEqual(outcome(said, good).missing, []);
  const frames = (net.totals().frames - before.frames) / good.length;
  assert.ok(frames < 400, `${frames.toFixed(0)} frames a node, for 1,000 bad ones to each neighbour`);
  for (const one of liars) {
    for (const node of good) {
      if (!node.peers.has(one)) continue;
      assert.ok(node.core.view(net.nowMs).peers.find(({ nodeId }) => nodeId === one.id)!.score < 0);
    }
  }
  assertBounded(net);
});

Deno.test("[3.3b] gossip: old messages played again go no further than the first that knows them", () => {
  const known = new Map<GossipNode, Set<string>>();
  let judged = 0;
  const net = new GossipNet({
    nodes: 30,
    seed: 12,
    judge: (node, _topic, body) => {
      judged += 1;
      // As the handlers do: what is known from before is no news.
      const key = toHex(sha256(body));
      const mine = known.get(node) ?? new Set();
      known.set(node, mine);
      if (mine.has(key)) return "ignore";
      mine.add(key);
      return "accept";
    },
  });
  net.connectAll();
  net.run(5_000);
  const said = talk(net, net.nodes, 20, 500);
  // Longer than anybody remembers ids.
  net.run(300_000);
  talk(net, net.nodes, 1, 10_000, "new");
  judged = 0;
  const [replayer] = bad(net, 1) as [GossipNode];
  for (const { text: one } of said) {
    for (const peer of replayer.peers) {
      net.raw(replayer, peer, encodeFrame({ messages: [{ topic: "news", body: text(one) }] }));
    }
    net.run(100);
  }
  net.run(10_000);
  assert.equal(judged, said.length * replayer.peers.size, "each neighbour looks once, and nobody else");
});

Deno.test("[3.3b] gossip: the same seed twice gives the same run", () => {
  const run = () => {
    const net = gather({ nodes: 30, seed: 13, lossPpm: 100_000 });
    talk(net, net.nodes, 20, 300);
    net.run(5_000);
    return net.totals();
  };
  assert.deepEqual(run(), run());
});
