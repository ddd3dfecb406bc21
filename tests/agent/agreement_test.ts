import assert from "node:assert/strict";
import type { AgreementRequest } from "../../src/agent/agreement_requests.ts";
import type { OperationView } from "../../src/agent/agreement_operations.ts";
import type { AgreementStatus, DecisionStatus } from "../../src/agent/status.ts";
import { fromUtf8, toBase64Url, utf8 } from "../../src/core/bytes.ts";
import type { Host } from "../sim/world.ts";
import { Net } from "./kit.ts";

interface Done {
  readonly instance: string;
  readonly index?: number;
  readonly round: number;
  readonly signers: number;
  readonly tookMs: number;
}

/** A network of issuers with agreement, by name. */
class Voters extends Net {
  readonly hosts: Host[] = [this.founder];

  /** Adds servers and waits until all vote. */
  grow(...names: readonly string[]): void {
    for (const name of names) this.hosts.push(this.join(name, { as: "sclerotium" }));
    this.meshed(...this.hosts);
    this.voting(this.hosts);
  }

  agreement(host: Host): AgreementStatus {
    return this.world.status(host).agreement!;
  }

  /** Waits until exactly these vote, as each of them sees it. */
  voting(hosts: readonly Host[], seenBy: readonly Host[] = hosts): void {
    const wanted = hosts.map((one) => one.nodeId).sort().join();
    this.world.until(
      `${hosts.map((one) => one.name)} vote`,
      () => seenBy.every((host) => this.agreement(host).voters.map((one) => one.nodeId).sort().join() === wanted),
      180_000,
    );
  }

  submit(host: Host, key: string, value: string, more: Partial<AgreementRequest> = {}): Done {
    const request = { verb: "agreement-submit", key, value: toBase64Url(utf8(value)), ...more } as AgreementRequest;
    return this.world.ask<Done>(host, request);
  }

  refused(host: Host, request: AgreementRequest): string {
    const answer = this.world.control(host, request);
    assert.ok(!answer.ok, `${JSON.stringify(answer)}`);
    return answer.error.code;
  }

  lists(
    host: Host,
  ): { readonly operations: readonly OperationView[]; readonly decisions: readonly DecisionStatus[] } {
    return this.world.ask(host, { verb: "agreement-list" });
  }

  /** Waits until hosts hold a value with the word of the primaries. */
  holds(key: string, value: string, hosts: readonly Host[]): void {
    this.world.until(`${key} is ${value}`, () =>
      hosts.every((host) => {
        const winner = host.view.spores.get(key)?.winner;
        return winner?.proof?.tier === "primary" && winner.spore.record.value !== undefined &&
          fromUtf8(winner.spore.record.value) === value;
      }), 60_000);
  }
}

Deno.test("[4.4a] Agreement: the founder decides alone; a key's class cannot be undercut, nor can one node's word be agreed on", () => {
  const net = new Voters(1);
  const { founder } = net;
  net.world.until("it votes", () => net.agreement(founder).votes);
  const { tolerated, health, voters } = net.agreement(founder);
  assert.deepEqual([tolerated, health, voters.length], [0, "full", 1]);
  assert.ok(net.submit(founder, "app/a", "1").index! > 0);
  assert.ok(net.submit(founder, "net/a", "1").index! > 0);
  net.holds("app/a", "1", [founder]);
  assert.deepEqual(net.lists(founder).decisions.map((one) => [one.class, one.keys]), [
    ["fast", ["app/a"]],
    ["standard", ["net/a"]],
  ]);
  const value = toBase64Url(utf8("x"));
  assert.equal(
    net.refused(founder, { verb: "agreement-submit", key: "net/b", value, class: "fast" }),
    "class-too-low",
  );
  assert.equal(
    net.refused(founder, { verb: "agreement-submit", key: `node/${founder.nodeId}/x`, value }),
    "not-agreeable",
  );
  assert.equal(net.refused(founder, { verb: "agreement-submit", key: "nonsense", value }), "bad-request");
  assert.equal(
    net.refused(founder, { verb: "agreement-submit", key: "agreed/electorate", value }),
    "not-permitted",
  );
});

Deno.test("[4.1b] [4.3b] [4.4c] [4.4d] [4.5a] [4.5d] Agreement: seven servers become voters by themselves; whatever one of them submits all hold, with a certificate", () => {
  const net = new Voters(2);
  net.grow("beta", "gamma", "delta", "epsilon", "zeta", "eta");
  for (const host of net.hosts) assert.equal(net.agreement(host).tolerated, 2);
  const hypha = net.join("leaf", { as: "hypha" });
  for (const [i, host] of net.hosts.entries()) {
    const { signers, index } = net.submit(host, `app/k${i}`, `v${i}`, { class: "critical" });
    assert.ok(signers >= 5 && index! > 0, `${signers} ${index}`);
  }
  const fast = net.submit(net.hosts[3]!, "app/fast", "f");
  assert.equal(fast.signers, 1);
  net.submit(net.hosts[4]!, "net/standard", "s");
  for (const [i] of net.hosts.entries()) net.holds(`app/k${i}`, `v${i}`, net.hosts);
  // All have heard of the same decisions, and none of a second one.
  const decided = (host: Host) => net.lists(host).decisions.map((one) => one.instance).sort();
  net.world.until("all know", () => net.hosts.every((host) => decided(host).length >= decided(net.founder).length));
  const known = new Set(net.hosts.flatMap(decided));
  assert.ok(known.size <= 12, `${known.size}`);
  // Who does not vote verifies as well, and has its wishes decided by those that do.
  net.world.until("a Hypha knows", () => net.agreement(hypha).decided >= 9, 60_000);
  assert.equal(net.agreement(hypha).votes, false);
  assert.equal(net.agreement(hypha).refusedNews, 0);
  assert.ok(net.submit(hypha, "app/leaf", "green", { class: "critical" }).index! > 0);
  net.holds("app/leaf", "green", net.hosts);
  assert.equal(net.hosts.reduce((sum, host) => sum + net.agreement(host).evidence, 0), 0);
});

Deno.test("[4.1d] [4.3c] Agreement: with two of seven gone it goes on; with three nothing is decided, which is said, until one is back", () => {
  const net = new Voters(3);
  const said = () => net.founder.audits.map((one) => one.action).filter((one) => one.startsWith("quorum-"));
  net.grow("beta", "gamma", "delta", "epsilon", "zeta", "eta");
  const { hosts, world, founder } = net;
  assert.deepEqual(said(), [], "what was never lost is not back");
  for (const host of hosts.slice(5)) world.crash(host, true);
  assert.ok(net.submit(founder, "app/two", "gone", { class: "critical" }).signers >= 5);
  world.until("fragile", () => net.agreement(founder).health === "fragile", 120_000);
  world.crash(hosts[4]!, true);
  world.until("lost", () => net.agreement(founder).health === "lost", 120_000);
  const request = {
    verb: "agreement-submit",
    key: "app/three",
    value: toBase64Url(utf8("gone")),
    class: "critical",
    timeoutMs: 5_000,
  } as const;
  assert.equal(net.refused(founder, request), "timeout");
  world.boot(hosts[4]!);
  net.verified(hosts[4]!);
  world.until("it is back", () => net.agreement(founder).health !== "lost", 60_000);
  assert.ok(net.submit(founder, "app/three", "back", { class: "critical" }).signers >= 5);
  world.until("both are said", () => said().join() === "quorum-lost,quorum-back", 10_000);
});

Deno.test("[4.1c] Agreement: what waits can be taken back, what is being decided cannot", () => {
  const net = new Voters(4);
  net.grow("beta", "gamma");
  const { world, founder, hosts } = net;
  for (const host of hosts.slice(1)) world.crash(host, true);
  const ask = (value: string) => {
    const request = { verb: "agreement-submit", key: "app/one", value: toBase64Url(utf8(value)), class: "critical" };
    return { request: request as AgreementRequest };
  };
  const later = (one: { readonly request: AgreementRequest }) => world.later(founder, one.request);
  const first = later(ask("1"));
  const second = later(ask("2"));
  world.run(200);
  const states = () => net.lists(founder).operations.filter((one) => one.key === "app/one").map((one) => one.state);
  // One version of a key after the other.
  assert.deepEqual(states(), ["voting", "waiting"]);
  const ids = net.lists(founder).operations.filter((one) => one.key === "app/one").map((one) => one.id);
  const cancel = (id: number) => world.ask<{ readonly cancelled: boolean }>(founder, { verb: "agreement-cancel", id });
  assert.deepEqual([cancel(ids[0]!).cancelled, cancel(ids[1]!).cancelled], [false, true]);
  assert.equal(second().error?.code, "cancelled");
  for (const host of hosts.slice(1)) world.boot(host);
  world.until("the first one is decided", () => first().value !== undefined, 60_000);
});

Deno.test("[4.3d] Agreement: an operator goes on without voters that are lost; when they come back they vote again, and it is over", () => {
  const net = new Voters(5);
  net.grow("beta", "gamma", "delta");
  const { world, founder, hosts } = net;
  const rest = hosts.slice(0, 2);
  const asked = { verb: "agreement-emergency", without: [] } as const;
  assert.equal(net.refused(founder, asked), "quorum-stands");
  const lost = hosts.slice(2);
  for (const host of lost) world.crash(host, true);
  world.until("lost", () => net.agreement(founder).health === "lost", 120_000);
  // Two of four issuers do not agree in Raft either, which has a procedure of its own.
  const without = lost.map((one) => one.nodeId);
  if (world.status(founder).primary?.leader === undefined) {
    world.ask(founder, { verb: "primary-recover", without });
  }
  assert.equal(net.refused(hosts[1]!, asked), "no-operator-key");
  const plan = world.ask<{ readonly without: readonly string[]; readonly done: boolean }>(founder, {
    ...asked,
    dryRun: true,
  });
  assert.deepEqual([[...plan.without].sort(), plan.done], [[...without].sort(), false]);
  assert.equal(net.agreement(founder).epoch, net.agreement(hosts[1]!).epoch);
  world.ask(founder, { ...asked, reason: "two have burnt" });
  net.voting(rest);
  for (const host of rest) {
    const { emergency } = net.agreement(host);
    assert.deepEqual([emergency?.reason, emergency?.without.length], ["two have burnt", 2]);
  }
  net.submit(hosts[1]!, "app/after", "goes on", { class: "critical" });
  for (const host of lost) world.boot(host);
  net.verified(...lost);
  net.voting(hosts);
  for (const host of hosts) assert.equal(net.agreement(host).emergency, undefined);
  net.submit(lost[0]!, "app/after", "all are back", { class: "critical" });
  net.holds("app/after", "all are back", hosts);
});

Deno.test("[4.3b] Agreement: who is removed, or leaves, votes no more; two voters do not lose their quorum by it", () => {
  const net = new Voters(6);
  net.grow("beta", "gamma", "delta");
  const { world, founder, hosts } = net;
  const [, beta, gamma, delta] = hosts as [Host, Host, Host, Host];
  world.ask(founder, { verb: "node-remove", node: delta.nodeId });
  net.voting([founder, beta, gamma]);
  world.ask(gamma, { verb: "leave" });
  net.voting([founder, beta]);
  world.ask(founder, { verb: "node-remove", node: beta.nodeId });
  net.voting([founder]);
  assert.ok(net.submit(founder, "app/alone", "1", { class: "critical" }).index! > 0);
});

Deno.test("[4.1d] Agreement: voters that crash while they decide contradict nothing, and what was decided is applied", () => {
  const net = new Voters(7);
  net.grow("beta", "gamma", "delta", "epsilon", "zeta", "eta");
  const { world, hosts } = net;
  for (const [i, host] of hosts.entries()) {
    const answer = world.later(host, {
      verb: "agreement-submit",
      key: `app/crash${i}`,
      value: toBase64Url(utf8(`${i}`)),
      class: "critical",
    });
    world.run(20 + 15 * i);
    world.restart(hosts[(i + 1) % hosts.length]!);
    world.restart(hosts[(i + 3) % hosts.length]!);
    world.until(`operation ${i} ends`, () => answer().value !== undefined || answer().error !== undefined, 120_000);
    net.verified(...hosts);
  }
  net.meshed(...hosts);
  world.run(5_000);
  net.submit(hosts[2]!, "app/last", "x", { class: "critical" });
  net.holds("app/last", "x", hosts);
  for (const host of hosts) assert.equal(net.agreement(host).evidence, 0);
});
