/** Broadcast among whole agents in the simulator's world. */

import assert from "node:assert/strict";
import { decodeCbor, encodeCbor } from "../../src/core/codec.ts";
import { seededRng } from "../../src/core/rng.ts";
import { LIMITS } from "../../src/core/limits.ts";
import { Broadcast, GOSSIP_DATAGRAM, TOPICS } from "../../src/agent/broadcast.ts";
import { Context, Refusal } from "../../src/agent/context.ts";
import type { AgentEffect } from "../../src/agent/effects.ts";
import { NodeState } from "../../src/agent/state.ts";
import { encodeFrame } from "../../src/spore/gossip_wire.ts";
import { entropyOf, type Host, World, WORLD_START_MS } from "../sim/world.ts";
import { keyOf, meshed, Net } from "./kit.ts";
import { nodeIdOf } from "../../src/core/ids.ts";

/** A network of so many hosts, all of which see each other. */
function network(seed: number, count: number, options: ConstructorParameters<typeof Net>[1] = {}): {
  readonly net: Net;
  readonly hosts: readonly Host[];
} {
  const net = new Net(seed, options);
  const invite = net.invite({ uses: count });
  const hosts = [net.founder];
  for (let i = 1; i < count; i++) hosts.push(net.start(`host${i}`, invite));
  net.world.until("all see each other", () => meshed(hosts), 120_000);
  net.world.run(10_000);
  return { net, hosts };
}

/** Sequence number that a host knows of another one's record. */
const known = (host: Host, other: Host) => host.view.state.members.get(other.nodeId)?.record.seq ?? 0;

/** Lets a host say something new of itself, and waits until all know. */
function spread(net: Net, from: Host, hosts: readonly Host[], mode: "drained" | "normal", withinMs: number): number {
  net.world.ask(from, { verb: "set-mode", mode });
  const seq = known(from, from);
  return net.world.until("all know", () => hosts.every((one) => known(one, from) >= seq), withinMs);
}

Deno.test("[3.3a] [3.3b] broadcast: news of one node is everywhere within a few hops, without a call", () => {
  const { net, hosts } = network(31, 12);
  // Links that only bring what came on others already are found by what comes on them.
  for (const host of [hosts[2]!, hosts[9]!]) spread(net, host, hosts, "drained", 5_000);
  net.world.run(5_000);
  let pushed = 0;
  net.world.onMessage = ({ method, kind }) => {
    if (method === "push" && kind === "request") pushed += 1;
    return "pass";
  };
  const before = hosts.map((one) => one.view.gossip.counters.messagesOut);
  const tookMs = spread(net, hosts[7]!, hosts, "drained", 5_000);
  assert.ok(tookMs < 200, `${tookMs} ms at 1 to 20 ms a hop`);
  net.world.run(5_000);
  const sent = hosts.reduce((sum, one, i) => sum + one.view.gossip.counters.messagesOut - before[i]!, 0);
  assert.ok(sent <= 3.5 * (hosts.length - 1), `${sent} messages for ${hosts.length - 1} deliveries`);
  assert.equal(pushed, 0);
});

Deno.test("[3.3c] broadcast: both ends of a link count on it, however soon after the credential a graft came", () => {
  for (const seed of [1, 2, 3]) {
    const { hosts } = network(seed, 12);
    const byId = new Map(hosts.map((host) => [host.nodeId, host]));
    for (const host of hosts) {
      for (const { topic, mesh } of host.view.gossip.topics) {
        for (const other of mesh) {
          const back = byId.get(other)!.view.gossip.topics.find((one) => one.topic === topic)!;
          assert.ok(
            back.mesh.includes(host.nodeId),
            `seed ${seed}, ${topic}: ${host.name} has a link that ends nowhere`,
          );
        }
      }
    }
  }
});

Deno.test("[3.3a] broadcast: with every fifth datagram lost, news hardly ever needs a digest", () => {
  const { net, hosts } = network(32, 10);
  net.world.lossPpm = 200_000;
  // The digest comes within a minute, once in 20 to 60 times.
  const tookMs = hosts.map((host) => spread(net, host, hosts, "drained", 90_000)).sort((a, b) => a - b);
  assert.ok(tookMs[8]! < 5_000, `${tookMs.join(", ")} ms`);
  assert.ok(tookMs[5]! < 500, `${tookMs.join(", ")} ms`);
});

Deno.test("[3.3a] broadcast: where all of it is lost, the digest brings it", () => {
  const { net, hosts } = network(33, 5);
  for (const host of hosts) {
    const { agent } = host;
    const step = agent!.step.bind(agent);
    agent!.step = (event) => event.type === "datagram" ? [] : step(event);
  }
  const tookMs = spread(net, hosts[2]!, hosts, "drained", 300_000);
  assert.ok(tookMs > 500, "it took a digest");
});

Deno.test("[3.3c] broadcast: meshes form among members, mend when one goes, and forget the removed", () => {
  const { net, hosts } = network(34, 10);
  const mesh = (host: Host) => host.view.gossip.topics[0]!.mesh;
  for (const host of hosts) {
    assert.ok(mesh(host).length >= 4 && mesh(host).length <= 12, `${host.name}: ${mesh(host).length}`);
    assert.deepEqual(host.view.gossip.topics.map(({ topic }) => topic), TOPICS);
  }
  const [victim, gone] = [hosts[3]!, hosts[4]!];
  net.world.ask(net.founder, { verb: "node-remove", node: victim.nodeId });
  net.world.crash(gone);
  net.world.run(20_000);
  const rest = hosts.filter((one) => one !== victim && one !== gone);
  for (const host of rest) {
    assert.ok(mesh(host).length >= 4, `${host.name}: ${mesh(host).length}`);
    assert.ok(!mesh(host).includes(victim.nodeId) && !mesh(host).includes(gone.nodeId));
  }
  net.world.restart(gone);
  net.world.until("it is back", () => meshed([...rest, gone]));
  net.world.run(10_000);
  assert.ok(mesh(gone).length >= 4);
  assert.ok(spread(net, gone, [...rest, gone], "drained", 5_000) < 300);
});

Deno.test("[3.3e] broadcast: who learns much at once compares with others, and does not tell it item by item", () => {
  const { net, hosts } = network(37, 20);
  const [late, ...others] = hosts.toReversed() as [Host, ...Host[]];
  net.world.crash(late);
  net.world.run(30_000);
  for (const host of others) net.world.ask(host, { verb: "set-mode", mode: "drained" });
  net.world.run(5_000);
  // One member is all that it reaches: what the others are comes by comparing with that one.
  net.world.cut([late], others.filter((one) => one !== net.founder));
  net.world.boot(late);
  net.world.until("it knows all", () => others.every((one) => known(late, one) >= known(one, one)), 120_000);
  const told = late.view.gossip.counters.published;
  assert.ok(told < 16, `${told} messages of one that has just learnt of 19 changes`);
  net.world.until("all know it", () => others.every((one) => known(one, late) >= known(late, late)), 10_000);
});

Deno.test("[3.3e] broadcast: an idle network sends no gossip", () => {
  const { net, hosts } = network(35, 8);
  net.world.run(60_000);
  const bytes = () => hosts.reduce((sum, one) => sum + one.view.gossip.counters.bytesOut, 0);
  const before = bytes();
  // Less than until the credentials of the tests are renewed.
  net.world.run(5 * 60_000);
  const perSecond = (bytes() - before) / hosts.length / 300;
  assert.ok(perSecond < 5, `${perSecond.toFixed(1)} B/s a node`);
});

Deno.test("[3.3a] broadcast: a clock that is set back stops nothing", () => {
  const { net, hosts } = network(36, 4);
  const host = hosts[1]!;
  (host.options as { clockOffsetMs?: number }).clockOffsetMs = -3_600_000;
  net.world.run(5_000);
  assert.ok(spread(net, host, hosts, "drained", 10_000) < 1_000);
  assert.ok(spread(net, hosts[2]!, hosts, "drained", 10_000) < 1_000);
});

/** A part by itself, with some open sessions. */
function alone(
  ...names: readonly string[]
): { readonly ctx: Context; readonly part: Broadcast; take(): AgentEffect[] } {
  const state = new NodeState(new Map(), new Uint8Array(32).fill(1));
  const config = {
    name: "one",
    role: "auto",
    pool: "default",
    version: "0.1.0",
    addresses: [],
    credentialLifetimeMs: 1,
  } as const;
  const ctx = new Context(state, config, seededRng(1), entropyOf("one"));
  ctx.nowMs = WORLD_START_MS;
  const part = new Broadcast(ctx);
  for (const name of names) {
    const { publicKey } = keyOf(name);
    const peer = {
      nodeId: nodeIdOf(publicKey),
      publicKey,
      remoteAddress: "",
      transport: "quic",
      direction: "inbound",
      openedMs: ctx.nowMs,
      channelBinding: undefined,
    } as const;
    ctx.sessions.set(peer.nodeId, { peer, member: true, introduced: true });
  }
  part.start();
  return {
    ctx,
    part,
    take() {
      const { effects } = ctx;
      ctx.effects = [];
      return effects;
    },
  };
}

const id = (name: string) => nodeIdOf(keyOf(name).publicKey);
const message = (text: string, topic = "news") =>
  encodeFrame({ messages: [{ topic, body: new TextEncoder().encode(text) }] });

Deno.test("[3.3b] [3.5b] broadcast: what fits goes as a datagram, what does not as a call", () => {
  const { part, take } = alone("a", "b");
  take();
  part.publish("news", new Uint8Array(1_000));
  const small = take();
  assert.deepEqual(small.map((one) => one.type), ["datagram", "datagram"]);
  assert.ok(small.every((one) => one.type === "datagram" && one.bytes.length <= LIMITS.datagramBytesMax));
  assert.ok(small.every((one) => one.type === "datagram" && one.bytes[0] === GOSSIP_DATAGRAM));
  part.publish("news", new Uint8Array(2_000));
  const large = take();
  assert.deepEqual(large.map((one) => one.type), ["call", "call"]);
  const [call] = large;
  assert.ok(call?.type === "call" && call.method === "gossip");
  const other = alone("a");
  let got = 0;
  other.part.handle("news", (_from, body) => {
    got = body.length;
    return "accept";
  });
  const { peer } = other.ctx.sessions.get(id("a"))!;
  assert.deepEqual(other.part.serve(peer, "gossip", decodeCbor(call.body)), {});
  assert.equal(got, 2_000);
});

Deno.test("[3.3b] [3.4b] broadcast: handlers judge; what does not read is held against its sender, a refusal is not", () => {
  const { part, ctx, take } = alone("a", "b", "c");
  part.handle("news", (_from, body) => {
    const text = new TextDecoder().decode(body);
    if (text === "refused") throw new Refusal("not-a-member", "not now");
    decodeCbor(body);
    return "accept";
  });
  take();
  part.datagram(id("a"), message("refused"));
  assert.deepEqual(take(), []);
  part.datagram(id("a"), message("\u00ff\u00ff"));
  const effects = take();
  assert.ok(effects.some((one) => one.type === "refused" && one.reason === "gossip-invalid-message"));
  const good = encodeCbor({ a: 1 });
  part.datagram(id("b"), encodeFrame({ messages: [{ topic: "news", body: good }] }));
  assert.deepEqual(take().map((one) => one.type === "datagram" && one.nodeId), [id("c")], "not to the liar");
  part.datagram(id("b"), message("nobody listens", "spores"));
  assert.deepEqual(take(), [], "a topic without a handler is ignored");
  assert.equal(ctx.sessions.size, 3);
});

Deno.test("[3.3b] broadcast: a handler may publish; each message is judged once, in order", () => {
  const { part, take } = alone("a", "b");
  const judged: string[] = [];
  part.handle("news", (_from, body) => {
    const text = new TextDecoder().decode(body);
    judged.push(text);
    if (text === "first") part.publish("spores", new TextEncoder().encode("echo"));
    return "accept";
  });
  take();
  part.datagram(id("a"), message("first"));
  part.datagram(id("b"), message("first"));
  assert.deepEqual(judged, ["first"]);
  const sent = take().flatMap((one) => one.type === "datagram" ? [one.nodeId] : []);
  assert.deepEqual(sent.sort(), [id("a"), id("b"), id("b")].sort(), "the echo to both, the message to the other");
});

Deno.test("[3.3b] broadcast: sessions that are no member's any more get nothing", () => {
  const { part, ctx, take } = alone("a", "b");
  ctx.sessions.get(id("a"))!.member = false;
  take();
  part.publish("news", new Uint8Array(3));
  assert.deepEqual(take().map((one) => one.type === "datagram" && one.nodeId), [id("b")]);
  ctx.nowMs += 5_000;
  part.wake();
  assert.deepEqual(part.view().peers.map(({ nodeId }) => nodeId), [id("b")]);
});

Deno.test("[10.3a] broadcast: rows of members fit a datagram", () => {
  const world = new World({ seed: 1 });
  const founder = world.boot(world.addHost("a-host-with-quite-a-long-name"));
  world.ask(founder, { verb: "init", name: "forest", approval: false });
  world.run(500);
  const { recordEnvelope, credentialEnvelope } = founder.view.state.self!;
  const bytes = recordEnvelope.payload.length + credentialEnvelope.payload.length + 2 * 96 + 60;
  assert.ok(bytes < LIMITS.datagramBytesMax, `${bytes}`);
});
