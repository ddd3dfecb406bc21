/** Failure detection among whole agents in the simulator's world. */

import assert from "node:assert/strict";
import { SWIM_DATAGRAM } from "../../src/agent/detector.ts";
import type { MemberState } from "../../src/membership/table.ts";
import { encodeSwim, handleOf, type SwimMessage } from "../../src/membership/swim_messages.ts";
import type { Host } from "../sim/world.ts";
import { meshed, Net } from "./kit.ts";

/** A network of so many hosts, settled. */
function network(seed: number, count: number): { readonly net: Net; readonly hosts: readonly Host[] } {
  const net = new Net(seed);
  const invite = net.invite({ uses: count });
  const hosts = [net.founder];
  for (let i = 1; i < count; i++) hosts.push(net.start(`host${i}`, invite));
  if (count <= 32) net.world.until("all see each other", () => meshed(hosts), 120_000);
  else {
    net.world.until(
      "all are known to all",
      () => hosts.every((one) => one.view.stage === "verified" && one.view.state.members.size === count),
      300_000,
    );
  }
  net.world.run(15_000);
  return { net, hosts };
}

const stateOf = (at: Host, of: Host): MemberState => at.view.state.members.observation(of.nodeId).state;

/** Waits until all of some hold one for alive, suspect or dead. */
function known(net: Net, hosts: readonly Host[], of: Host, state: MemberState, withinMs: number): number {
  return net.world.until(
    `${of.name} is ${state} to all`,
    () => hosts.every((one) => one === of || !one.agent || stateOf(one, of) === state),
    withinMs,
  );
}

/** What hosts said in their logs of each other, neither of them exempt. */
function flaps(hosts: readonly Host[], exempt: readonly Host[]): () => readonly string[] {
  const found: string[] = [];
  const restore: (() => void)[] = [];
  for (const host of hosts) {
    const { agent } = host;
    if (!agent || exempt.includes(host)) continue;
    const step = agent.step.bind(agent);
    agent.step = (event) => {
      const effects = step(event);
      for (const effect of effects) {
        if (effect.type !== "log" || effect.event !== "member-dead" && effect.event !== "member-suspect") continue;
        if (!exempt.some((one) => one.nodeId === effect.fields.node)) found.push(`${host.name}: ${effect.message}`);
      }
      return effects;
    };
    restore.push(() => agent.step = step);
  }
  return () => {
    for (const one of restore) one();
    return found;
  };
}

Deno.test("[3.3c] [10.3c] detector: a host that falls silent is dead to all within five seconds, and alive when it is back", () => {
  const { net, hosts } = network(41, 6);
  const [, , , victim] = hosts;
  const watch = flaps(hosts, [victim!]);
  const row = () => {
    const status = net.world.status(hosts[0]!);
    return { ...status.members.find((one) => one.nodeId === victim!.nodeId)!, nowMs: status.nowMs };
  };
  const seen = row();
  assert.ok(seen.nowMs - seen.lastSeenMs <= 1_000, `its channel is open, and it was seen at ${seen.lastSeenMs}`);
  const crashedMs = net.world.nowMs;
  net.world.crash(victim!, true);
  const tookMs = known(net, hosts, victim!, "dead", 30_000);
  assert.ok(tookMs <= 5_000, `${tookMs} ms`);
  const { detection } = net.world.status(hosts[0]!);
  const dead = row();
  assert.equal(dead.state, "dead");
  assert.ok(dead.path, "its channel is still open");
  assert.ok(dead.lastSeenMs > 0 && dead.lastSeenMs <= crashedMs, `seen ${crashedMs - dead.lastSeenMs} ms before`);
  assert.deepEqual(detection?.dead, [victim!.nodeId]);
  net.world.boot(victim!);
  known(net, hosts, victim!, "alive", 30_000);
  assert.deepEqual(net.world.status(hosts[0]!).detection?.dead, []);
  assert.deepEqual(watch(), []);
});

Deno.test("[3.3a] [3.3c] detector: in a network beyond full mesh all hear of a death, signed by those that saw it", () => {
  const { net, hosts } = network(42, 40);
  const victim = hosts.find((one) =>
    one !== net.founder && hosts.some((other) => !one.view.sessions.has(other.nodeId))
  )!;
  const far = hosts.filter((one) => one !== victim && !one.view.sessions.has(victim.nodeId));
  assert.ok(far.length > 0, "there are some without a channel to it");
  net.world.crash(victim);
  const tookMs = known(net, hosts, victim, "dead", 30_000);
  assert.ok(tookMs <= 5_000, `${tookMs} ms`);
  net.world.boot(victim);
  known(net, far, victim, "alive", 30_000);
});

Deno.test("[3.3c] detector: incarnations survive restarts, and rise with each", () => {
  const { net, hosts } = network(43, 3);
  const before = net.world.status(hosts[1]!).detection!.incarnation;
  for (let i = 0; i < 3; i++) {
    net.world.crash(hosts[1]!);
    net.world.run(3_000);
    net.world.boot(hosts[1]!);
    known(net, hosts, hosts[1]!, "alive", 30_000);
  }
  assert.ok(net.world.status(hosts[1]!).detection!.incarnation >= before + 3);
});

Deno.test("[3.4b] detector: datagrams of members that do not read are refused, and those of strangers are not read", () => {
  const { net, hosts } = network(44, 3);
  const [a, b] = hosts;
  const say = (bytes: Uint8Array, from = b!.nodeId) =>
    a!.agent!.step({ type: "datagram", nowMs: net.world.local(a!), from, bytes });
  const of = (message: SwimMessage) => Uint8Array.of(SWIM_DATAGRAM, ...encodeSwim(message));
  for (const bytes of [[SWIM_DATAGRAM], [SWIM_DATAGRAM, 0xff], [SWIM_DATAGRAM, ...new Uint8Array(1_000)]]) {
    const refused = say(Uint8Array.from(bytes)).filter((one) => one.type === "refused");
    assert.deepEqual(refused.map((one) => one.type === "refused" && one.reason), ["bad-datagram"]);
  }
  const ping = of({ type: "ping", seq: 1, incarnation: 1, nextMs: 0, updates: [] });
  assert.ok(say(ping).some((one) => one.type === "datagram" && one.nodeId === b!.nodeId), "a member gets its ack");
  assert.ok(!say(ping, "12D3KooWstranger").some((one) => one.type === "datagram"));
});

Deno.test("[3.3c] [10.5a] detector: a member that calls another dead again and again changes nothing for anybody", () => {
  const { net, hosts } = network(45, 5);
  const [a, liar, target] = hosts;
  const watch = flaps(hosts, []);
  for (let i = 0; i < 200; i++) {
    const subject = handleOf(target!.view.state.keyPair.publicKey);
    const message = encodeSwim({ type: "news", updates: [{ kind: "dead", subject, incarnation: i % 7 }] });
    const bytes = Uint8Array.of(SWIM_DATAGRAM, ...message);
    net.world.dispatch(a!, { type: "datagram", nowMs: net.world.local(a!), from: liar!.nodeId, bytes });
    net.world.run(50);
  }
  assert.deepEqual(watch(), []);
  assert.equal(stateOf(a!, target!), "alive");
});

Deno.test("[3.3c] detector: one that left or was removed is dead to nobody", () => {
  const { net, hosts } = network(46, 4);
  const [a, , leaver, removed] = hosts;
  const watch = flaps(hosts, []);
  net.world.ask(leaver!, { verb: "leave" });
  net.world.run(5_000);
  net.world.ask(a!, { verb: "node-remove", node: removed!.nodeId });
  net.world.run(30_000);
  assert.deepEqual(watch().filter((one) => one.startsWith("alpha") || one.startsWith("host1")), []);
  assert.deepEqual(net.world.status(a!).detection?.dead, []);
});
