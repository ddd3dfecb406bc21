/** The Primary Spore among whole agents in the simulator's world. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { ACTIVE_MS, IDLE_MS } from "../../src/agent/primary_pace.ts";
import { DATAGRAM_KIND, readPacket } from "../../src/agent/primary_transport.ts";
import { PrimaryStore } from "../../src/agent/primary_store.ts";
import { type CborValue, decodeCbor, encodeCbor } from "../../src/core/codec.ts";
import { decodeMessage, encodeMessage } from "../../src/raft/messages.ts";
import { Net } from "./kit.ts";
import type { Host } from "../sim/world.ts";

interface Put {
  readonly index: number;
  readonly code: string;
}
interface Got {
  readonly index: number;
  readonly versions: readonly { readonly key: string; readonly value?: string; readonly index: number }[];
}

function put(net: Net, host: Host, key: string, value: string, expect?: number): Put {
  return net.world.ask<Put>(host, { verb: "primary-put", key, value, ...(expect === undefined ? {} : { expect }) });
}

function get(net: Net, host: Host, key: string, stale = false): string | undefined {
  return net.world.ask<Got>(host, { verb: "primary-get", key, stale }).versions[0]?.value;
}

function leaderOf(hosts: readonly Host[]): Host | undefined {
  return hosts.find((one) => one.agent && one.view.primary?.role === "leader");
}

/** A network of this many issuers, all members of the group. */
function group(seed: number, count: number, voters: number): { readonly net: Net; readonly hosts: readonly Host[] } {
  const net = new Net(seed);
  const hosts = [net.founder];
  for (let i = 1; i < count; i++) hosts.push(net.join(`issuer${i}`, { as: "sclerotium" }));
  net.world.until(`${voters} vote`, () => {
    const view = leaderOf(hosts)?.view.primary;
    return view !== undefined && view.configCommitted && view.config.votersOutgoing.length === 0 &&
      view.config.voters.length === voters && view.config.learners.length === count - voters;
  }, 120_000);
  return { net, hosts };
}

/** Term, vote and last index that would be there if the program died now. */
function durable(host: Host): { readonly term: number; readonly votedFor: string | undefined; readonly last: number } {
  const stored = new PrimaryStore().load(host.disk);
  const last = stored ? stored.entries.at(-1)?.index ?? stored.logStart.index : 0;
  return { term: stored?.hardState.term ?? 0, votedFor: stored?.hardState.votedFor, last };
}

Deno.test("[3.1a] Primary Spore: one node alone agrees at once, and remembers over a restart", () => {
  const net = new Net(1);
  const { world, founder } = net;
  assert.equal(put(net, founder, "app/greeting", "hello").code, "ok");
  assert.equal(get(net, founder, "app/greeting"), "hello");
  world.restart(founder);
  world.run(500);
  assert.equal(get(net, founder, "app/greeting"), "hello");
  assert.equal(founder.view.primary!.role, "leader");
});

Deno.test("[3.1a] Primary Spore: what is written at any issuer is read at every one", () => {
  const { net, hosts } = group(2, 3, 3);
  for (const [i, host] of hosts.entries()) assert.equal(put(net, host, `app/from-${i}`, `value ${i}`).code, "ok");
  for (const host of hosts) {
    for (let i = 0; i < 3; i++) assert.equal(get(net, host, `app/from-${i}`), `value ${i}`);
  }
});

Deno.test("[3.1a] Primary Spore: what a follower asks its leader may be slow or lost, and it reads all the same", () => {
  const { net, hosts } = group(14, 3, 3);
  assert.equal(put(net, hosts[0]!, "app/a", "1").code, "ok");
  const followers = hosts.filter((one) => one !== leaderOf(hosts));
  const read = () => {
    for (let i = 0; i < 10; i++) {
      for (const host of followers) assert.equal(get(net, host, "app/a"), "1");
      net.world.run(500);
    }
  };
  // A third of the datagrams is lost; then an answer takes longer than an election timeout.
  net.world.lossPpm = 330_000;
  read();
  net.world.lossPpm = 0;
  net.world.latencyMs = { min: 380, max: 420 };
  net.world.run(10_000);
  read();
});

Deno.test("[3.1a] Primary Spore: the leader is lost, and another one writes", () => {
  const { net, hosts } = group(3, 3, 3);
  put(net, hosts[0]!, "app/a", "1");
  const leader = leaderOf(hosts)!;
  const rest = hosts.filter((one) => one !== leader);
  net.world.crash(leader, true);
  const startMs = net.world.nowMs;
  assert.equal(put(net, rest[0]!, "app/a", "2").code, "ok");
  const gapMs = net.world.nowMs - startMs;
  assert.ok(gapMs < 3_000, `${gapMs} ms without a leader`);
  net.world.boot(leader);
  net.world.run(2_000);
  assert.equal(get(net, leader, "app/a"), "2");
});

Deno.test("[3.1a] Primary Spore: no acknowledgement, no vote and no answer leaves before what it promises is durable", () => {
  const slow = { diskMs: 40, as: "sclerotium" } as const;
  const net = new Net(15);
  const hosts = [net.join("a", slow), net.join("b", slow), net.join("c", slow), net.join("d", slow), net.founder];
  const { world } = net;
  world.until("all five vote", () => leaderOf(hosts)?.view.primary?.config.voters.length === 5, 120_000);
  const seen = new Map<string, number>();
  /** Appends that left while the entries in them were not yet durable here: the others need not wait for this disk. */
  let early = 0;
  for (const host of hosts) {
    host.tamper = ({ kind, method, body }) => {
      const isDatagram = kind === "datagram" && body[0] === DATAGRAM_KIND;
      if (!isDatagram && !(kind === "call" && method === "raft")) return [body];
      const now = durable(host);
      for (const bytes of readPacket(decodeCbor(isDatagram ? body.subarray(1) : body)).m) {
        const message = decodeMessage(bytes);
        seen.set(message.type, (seen.get(message.type) ?? 0) + 1);
        const what = `${host.name}: ${JSON.stringify(message)}, durable ${JSON.stringify(now)}`;
        if (message.type === "append-response") assert.ok(message.index <= now.last && message.term <= now.term, what);
        if (message.type === "vote") assert.ok(now.term === message.term && now.votedFor !== undefined, what);
        if (message.type === "vote-response" && message.granted) {
          assert.ok(now.term === message.term && now.votedFor !== undefined, what);
        }
        if (message.type === "append" && message.prevLogIndex + message.entries.length > now.last) early += 1;
      }
      return [body];
    };
  }
  let answered = 0;
  world.onControl = (_host, _controlId, answer) => {
    if (!answer.ok) return;
    const { index } = answer.value as Put;
    const holders = hosts.filter((one) => durable(one).last >= index);
    assert.ok(holders.length >= 3, `entry ${index} is durable at ${holders.map((one) => one.name)} alone`);
    answered += 1;
  };
  const write = (round: number) => {
    for (const host of hosts) if (host.agent) put(net, host, `app/${round}`, `${host.name} ${round}`);
  };
  for (let round = 0; round < 4; round++) write(round);
  world.crash(leaderOf(hosts)!, true);
  for (let round = 4; round < 8; round++) write(round);
  assert.equal(answered, 4 * 5 + 4 * 4);
  assert.ok(early > 0, "the leader's messages leave before its disk is written");
  for (const type of ["append-response", "vote", "vote-response"]) assert.ok(seen.has(type), `no ${type} was seen`);
});

Deno.test("[3.1a] [3.4a] Primary Spore: what was agreed on is proven by a majority, and everybody holds the proof", () => {
  const { net, hosts } = group(4, 3, 3);
  const hypha = net.join("hypha");
  const { index } = put(net, hosts[1]!, "app/motto", "grow");
  const proven = (host: Host) => {
    const answer = net.world.control(host, { verb: "spore-show", key: "app/motto" });
    const shown = answer.ok ? answer.value as { readonly tier: string; readonly index?: number } : undefined;
    return shown?.tier === "primary" && shown.index === index;
  };
  const all = [...hosts, hypha];
  for (let tries = 0; tries < 20 && !all.every(proven); tries++) net.world.run(250);
  assert.deepEqual(all.filter((one) => !proven(one)).map((one) => one.name), []);
  assert.equal(net.world.status(leaderOf(hosts)!).primary!.unproven, 0);
});

Deno.test("[3.1a] Primary Spore: a member that is no issuer writes and reads through them, on conditions as well", () => {
  const { net, hosts } = group(5, 3, 3);
  const hypha = net.join("hypha");
  const first = put(net, hypha, "app/counter", "1", 0);
  assert.equal(get(net, hypha, "app/counter"), "1");
  const refused = net.world.control(hypha, { verb: "primary-put", key: "app/counter", value: "x", expect: 0 });
  assert.ok(!refused.ok && refused.error.code === "conflict");
  for (const request of [{ verb: "primary-put", value: "x" }, { verb: "spore-put", value: "eA" }] as const) {
    const said = (key: string) => {
      const answer = net.world.control(hypha, { ...request, key, expect: first.index + 1_000 });
      return answer.ok ? "ok" : answer.error.message;
    };
    assert.match(said("app/nothing"), /nothing stands there$/);
    assert.match(said("app/counter"), new RegExp(`another version stands there, index ${first.index}$`));
  }
  assert.equal(put(net, hypha, "app/counter", "2", first.index).code, "ok");
  const denied = net.world.control(hypha, { verb: "primary-put", key: "net/x", value: "x" });
  assert.ok(!denied.ok && denied.error.code === "not-permitted");
  assert.equal(get(net, hosts[2]!, "app/counter"), "2");
  assert.equal(get(net, hypha, "app/counter", true), "2", "stale reads come from any of them");
});

Deno.test("[3.1e] Primary Spore: a majority is lost; an operator goes on without it, and what comes back begins anew", () => {
  const { net, hosts } = group(6, 3, 3);
  const { world, founder } = net;
  put(net, founder, "app/before", "kept");
  const [, b, c] = hosts as [Host, Host, Host];
  const early = world.control(founder, { verb: "primary-recover", without: ["issuer1", "issuer2"] });
  assert.ok(!early.ok && early.error.code === "not-lost");
  world.crash(b, true);
  world.crash(c, true);
  world.run(15_000);
  assert.equal(leaderOf(hosts), undefined, "one of three leads nobody");
  const refused = world.control(founder, { verb: "primary-put", key: "app/x", value: "1" });
  assert.ok(!refused.ok && refused.error.code === "timeout");
  const few = world.control(founder, { verb: "primary-recover", without: ["issuer1"] });
  assert.ok(!few.ok && few.error.code === "majority-left");
  const plan = world.ask<{ readonly recovered: boolean; readonly without: readonly string[] }>(founder, {
    verb: "primary-recover",
    without: ["issuer1", "issuer2"],
    dryRun: true,
  });
  assert.deepEqual([plan.recovered, [...plan.without].sort()], [false, [b.nodeId, c.nodeId].sort()]);
  assert.equal(leaderOf(hosts), undefined, "a dry run changes nothing");
  // From here on there are two histories, which is what the operator takes upon himself: no checker of one applies.
  for (const one of net.checkers.raft.values()) one.check = () => undefined;
  world.ask(founder, { verb: "primary-recover", without: ["issuer1", "issuer2"] });
  assert.ok(founder.audits.some((one) => one.action === "primary-recovered"));
  assert.equal(get(net, founder, "app/before"), "kept");
  assert.equal(put(net, founder, "app/after", "recovered").code, "ok");
  assert.equal(world.status(founder).primary!.recoveries.length, 1);
  // Both come back as the majority that they were, first among themselves.
  world.cut([founder], [b, c]);
  world.boot(b);
  world.boot(c);
  world.run(10_000);
  assert.ok(leaderOf([b, c]), "a group of their own");
  const replicas = [b, c].map((one) => one.view.primary!.id);
  world.heal();
  world.run(60_000);
  const view = founder.view.primary!;
  assert.equal(view.role, "leader");
  assert.equal(view.config.voters.length, 3, "three vote again");
  assert.ok(!view.config.voters.some((one) => replicas.includes(one)), "as new replicas");
  for (const host of [b, c]) assert.equal(get(net, host, "app/after"), "recovered");
  world.restart(founder);
  world.run(5_000);
  assert.equal(get(net, founder, "app/after"), "recovered");
});

Deno.test("[3.1c] Primary Spore: alone it wakes nothing; three with nothing to do say little", () => {
  const alone = new Net(7);
  put(alone, alone.founder, "app/a", "1");
  alone.world.run(30_000);
  const counts = (net: Net) => net.world.steps;
  const before = counts(alone);
  alone.world.run(60_000);
  // The detector looks each second, discovery each minute, agreement every ten seconds; the Primary Spore adds nothing.
  assert.ok(counts(alone) - before <= 70, `${counts(alone) - before} steps in a minute`);

  const { net, hosts } = group(8, 3, 3);
  put(net, hosts[0]!, "app/a", "1");
  net.world.run(30_000);
  let raft = 0;
  for (const host of hosts) {
    const agent = host.agent!;
    const steps = agent.steps.bind(agent);
    agent.steps = (events) => {
      raft += events.filter((one) => one.type === "datagram" && one.bytes[0] === 0x72).length;
      raft += events.filter((one) => one.type === "inbound" && one.method === "raft").length;
      return steps(events);
    };
  }
  const term = hosts[0]!.view.primary!.term;
  net.world.run(60_000);
  // A heartbeat each 3.3 s to two, and their answers: 73 messages of some 120 bytes are 150 B/s for all three together.
  assert.ok(raft > 0 && raft <= 80, `${raft} messages in a minute`);
  assert.equal(hosts[0]!.view.primary!.term, term, "and nobody stands for election");
});

Deno.test("[3.1a] Primary Spore: idle for long, the leader dies: the next write wakes the others", () => {
  const { net, hosts } = group(9, 3, 3);
  net.world.run(60_000);
  const leader = leaderOf(hosts)!;
  net.world.crash(leader, true);
  const startMs = net.world.nowMs;
  assert.equal(put(net, hosts.find((one) => one !== leader)!, "app/a", "2").code, "ok");
  assert.ok(net.world.nowMs - startMs <= 1_500, `${net.world.nowMs - startMs} ms`);
});

Deno.test("[3.1b] Primary Spore: an issuer that has lost its disk comes back as another replica", () => {
  const { net, hosts } = group(10, 3, 3);
  const { world } = net;
  put(net, hosts[0]!, "app/a", "1");
  const lost = hosts.find((one) => one !== leaderOf(hosts))!;
  const before = lost.view.primary!.id;
  world.crash(lost);
  // Key and membership are in a backup; what Raft wrote is not.
  for (const key of [...lost.disk.keys()]) if (key.startsWith("raft/")) lost.disk.delete(key);
  world.boot(lost);
  world.run(40_000);
  const { id, config } = lost.view.primary!;
  assert.notEqual(id, before);
  assert.ok(config.voters.includes(id) && !config.voters.includes(before), "it votes again, under another name");
  assert.equal(config.voters.length, 3);
  assert.equal(get(net, lost, "app/a", true), "1");
});

Deno.test("[3.1e] Primary Spore: a log that grew long becomes a snapshot, which brings a newcomer up to date", () => {
  const { net } = group(11, 2, 1);
  const { world, founder } = net;
  const value = "x".repeat(8_000);
  for (let i = 0; i < 560; i++) {
    put(net, founder, `app/k${i % 40}`, `${i} ${value}`);
    world.run(10);
  }
  const view = founder.view.primary!;
  assert.ok(view.snapshotIndex > 0 && view.prevIndex > 0, "the log was cut");
  const third = net.join("third", { as: "sclerotium" });
  world.until("it has caught up", () => third.view.primary?.stateIndex === founder.view.primary!.stateIndex, 60_000);
  assert.deepEqual(third.view.primary!.stateHash, founder.view.primary!.stateHash);
  for (const one of [founder, third]) world.restart(one);
  world.run(20_000);
  assert.equal(get(net, third, "app/k39"), `559 ${value}`);
});

Deno.test("[3.1c] Primary Spore: over lost answers and changing leaders each write counts once", () => {
  const { net, hosts } = group(12, 3, 3);
  const { world } = net;
  put(net, hosts[0]!, "app/n", "0");
  world.lossPpm = 100_000;
  let index = put(net, hosts[1]!, "app/n", "start").index;
  for (let i = 0; i < 12; i++) {
    if (i % 4 === 2) {
      const leader = leaderOf(hosts);
      if (leader && leader !== hosts[1]) world.restart(leader);
    }
    // A second time that counted would find another version than it expects.
    const answer = world.control(hosts[1]!, { verb: "primary-put", key: "app/n", value: `${i}`, expect: index });
    if (answer.ok) index = (answer.value as Put).index;
    else {
      assert.equal(answer.error.code, "timeout");
      const found = world.ask<Got>(hosts[1]!, { verb: "primary-get", key: "app/n" }).versions[0]!;
      index = found.index;
    }
  }
  world.lossPpm = 0;
  assert.equal(get(net, hosts[2]!, "app/n"), "11");
});

Deno.test("[10.1b] Primary Spore: an issuer that makes up replicas without end gets few answers, and slows nobody down", () => {
  const { net, hosts } = group(16, 3, 3);
  const { world } = net;
  put(net, hosts[0]!, "app/a", "1");
  const leader = leaderOf(hosts)!;
  const liar = hosts.find((one) => one !== leader)!;
  // Nobody answers what the leader calls at the replicas that there are not.
  let open = 0;
  const timeouts = new Set<number>();
  leader.tamper = ({ kind, method, body }) => {
    const isCall = kind === "call" && method === "raft";
    if (!isCall && !(kind === "datagram" && body[0] === DATAGRAM_KIND)) return [body];
    const { t, p } = readPacket(decodeCbor(isCall ? body : body.subarray(1)));
    if (p !== undefined) timeouts.add(p);
    if (!isCall || !t.startsWith(liar.nodeId)) return [body];
    open += 1;
    return [];
  };
  const { term } = leader.view.primary!;
  const message = encodeMessage({ type: "pre-vote", term: term + 1, lastLogIndex: 0, lastLogTerm: 0, transfer: true });
  const to = leader.view.primary!.id;
  for (let i = 0; i < 200; i++) {
    const f = `${liar.nodeId}.${i.toString(16).padStart(8, "0")}`;
    const bytes = encodeCbor({ f, t: to, m: [message], g: 60_000 });
    const packet = Uint8Array.of(DATAGRAM_KIND, ...bytes);
    world.dispatch(leader, { type: "datagram", nowMs: world.local(leader), from: liar.nodeId, bytes: packet });
  }
  assert.ok(open > 0 && open <= 16, `${open} calls`);
  assert.equal(put(net, hosts[0]!, "app/a", "2").code, "ok");
  world.run(1_000);
  assert.deepEqual([...timeouts].filter((one) => one !== ACTIVE_MS && one !== IDLE_MS), []);
});

Deno.test("[10.1a] [10.1b] Primary Spore: an issuer that sends garbage is answered with a code, and changes nothing", () => {
  const { net, hosts } = group(13, 3, 3);
  const { world } = net;
  put(net, hosts[0]!, "app/a", "1");
  world.run(5_000);
  const target = leaderOf(hosts)!;
  const liar = hosts.find((one) => one !== target)!;
  const peer = target.view.sessions.get(liar.nodeId)!.peer;
  const [own, replica] = [target.view.primary!.id, liar.view.primary!.id];
  const before = target.view.primary!;
  const anyValue: fc.Arbitrary<CborValue> = fc.letrec<{ value: CborValue }>((tie) => ({
    value: fc.oneof(
      { depthSize: "small" },
      fc.nat(),
      fc.string({ maxLength: 8 }),
      fc.boolean(),
      fc.uint8Array({ maxLength: 40 }),
      fc.array(tie("value"), { maxLength: 3 }),
      fc.dictionary(
        fc.constantFrom("b", "c", "e", "f", "i", "k", "m", "n", "p", "q", "s", "t", "u", "v", "w", "x"),
        tie("value"),
      ),
    ),
  })).value;
  // Messages that are whole but lie: of terms and entries that are not.
  const anyMessage = fc.record({
    f: fc.constant(replica),
    t: fc.constant(own),
    m: fc.array(
      fc.tuple(fc.nat(14), fc.nat(1), anyValue).map(([code, term, body]) => encodeCbor([code, term, body])),
      { maxLength: 3 },
    ),
    p: fc.constantFrom(0, 300, 10_000),
  });
  const methods = ["raft", "primary.propose", "primary.read", "primary.info", "primary.attest", "primary.fence"];
  fc.assert(
    fc.property(
      fc.constantFrom(...methods),
      fc.oneof(anyValue, anyMessage as fc.Arbitrary<CborValue>),
      (method, value) => {
        const body = encodeCbor(value);
        world.inject(target, peer, method, body);
        const bytes = new Uint8Array([0x72, ...body]);
        if (bytes.length <= 1_100) {
          world.dispatch(target, {
            type: "datagram",
            nowMs: world.local(target),
            from: liar.nodeId,
            bytes,
          });
        }
        world.run(20);
      },
    ),
    { numRuns: 150 },
  );
  world.run(20_000);
  const after = leaderOf(hosts)!.view.primary!;
  assert.ok(after.config.voters.length === 3 && after.term <= before.term + 3);
  for (const host of hosts) assert.equal(get(net, host, "app/a"), "1");
});
