import assert from "node:assert/strict";
import { LOCAL } from "../../src/agent/access.ts";
import { toBase64Url, utf8 } from "../../src/core/bytes.ts";
import { AgreedChecker } from "./agreed_checker.ts";
import { Checkers } from "./checkers.ts";
import { type Host, type HostOptions, World } from "./world.ts";

/** A network under the checkers: a founder, and more issuers. */
function network(
  count: number,
  options: HostOptions = {},
): { readonly world: World; readonly hosts: readonly Host[]; readonly checkers: Checkers } {
  const checkers = new Checkers();
  const world = checkers.world = new World({ seed: 5, latencyMs: { min: 1, max: 60 }, check: checkers.check });
  const hosts = Array.from({ length: count }, (_, i) => world.addHost(`n${i}`, options));
  const [founder, ...others] = hosts as [Host, ...Host[]];
  world.boot(founder);
  world.ask(founder, { verb: "init", name: "forest", approval: false });
  world.run(1_000);
  for (const host of others) {
    const { token } = world.ask<{ readonly token: string }>(founder, {
      verb: "invite-create",
      uses: 1,
      role: "sclerotium",
    });
    world.boot(host);
    world.ask(host, { verb: "join", invite: token });
  }
  const replicas = () => founder.view.primary?.config;
  const whole = () => replicas() && replicas()!.voters.length + replicas()!.learners.length === count;
  world.until(`${count} replicas`, () => whole() === true, 240_000);
  return { world, hosts, checkers };
}

function put(world: World, host: Host, value: string): void {
  const request = { verb: "primary-put", key: "app/x", value } as const;
  world.dispatch(host, {
    type: "control",
    nowMs: world.local(host),
    controlId: world.nextControlId(),
    request,
    by: LOCAL,
  });
}

Deno.test("[10.3a] checkers: what waited for its disk when a machine died has not happened", () => {
  const { world, hosts: [founder] } = network(1, { diskMs: 40 });
  for (let i = 0; i < 40; i++) {
    world.restart(founder!);
    put(world, founder!, `v${i}`);
    world.run(1 + world.rng.below(60));
  }
  world.run(5_000);
  world.ask(founder!, { verb: "primary-put", key: "app/x", value: "last" });
});

Deno.test("[10.3a] checkers: a leader with much to do does not spin, a busy loop does", () => {
  const { world, hosts } = network(7);
  world.run(20_000);
  const leader = hosts.find((host) => host.view.primary?.role === "leader")!;
  // One at a time and each at another machine, so that nothing goes along with anything else.
  for (let i = 0; i < 150; i++) {
    put(world, hosts[i % hosts.length]!, `v${i}`);
    world.run(20);
  }
  world.run(2_000);
  assert.ok(leader.stepsPerSecondMax > 400, `${leader.stepsPerSecondMax} steps of the leader`);
  world.run(20_000);
  const spin = () => {
    for (let i = 0; i < 1_000; i++) world.dispatch(leader, { type: "wake", nowMs: world.local(leader) });
  };
  assert.throws(spin, /SAFETY: n\d: \d+ steps in one second/);
});

Deno.test("[10.3a] checkers: two certificates of one instance, evidence against the honest, and what nobody decided are found", () => {
  const { world, hosts, checkers } = network(2);
  const [founder] = hosts as [Host];
  const value = toBase64Url(utf8("x"));
  for (const key of ["agreed/notes/x", "agreed/notes/y"]) world.ask(founder, { verb: "agreement-submit", key, value });
  world.run(2_000);
  const { agreement } = founder.view;
  assert.ok(checkers.decisions.seen > 0 && checkers.agreed!.seen > 0);

  const faults = agreement.faults as Set<string>;
  faults.add("equivocation");
  assert.throws(() => checkers.check(founder), /evidence against an honest voter: equivocation/);
  faults.clear();

  const said = agreement.said as Map<string, string>;
  const [instance, before] = [...said].at(-1)!;
  said.set(instance, `${before}0`);
  assert.throws(() => checkers.check(founder), /two certificates of/);
  said.set(instance, before);
  checkers.check(founder);

  // A replica that shows its record by the warrant of another one.
  const replica = () => founder.view.primary!;
  const warrant = replica().agreed.warrantOf("agreed/notes/y")!;
  const wrong = { ...replica(), agreed: { ...replica().agreed, warrantOf: () => warrant } };
  const look = (held: unknown) => {
    const view = { state: founder.view.state, spores: founder.view.spores, primary: held };
    const host = { name: founder.name, life: founder.life, view } as unknown as Host;
    new AgreedChecker().check(host, world.nowMs, (what) => checkers.fail(founder, what));
  };
  look(replica());
  assert.throws(() => look(wrong), /no certificate covers "agreed\/notes\/x" in a replica/);
});
