/** Failure detection in whole networks of pure cores: how soon, at what cost, and who is wronged. @module */

import assert from "node:assert/strict";
import type { SwimState } from "../../src/membership/swim_events.ts";
import { SwimWorld } from "./swim_world.ts";

/** What was found of some by others, neither of them among the exempt, since a time. */
function found(world: SwimWorld, states: readonly SwimState[], sinceMs: number, exempt: readonly number[] = []) {
  return world.log.filter((one) =>
    one.atMs >= sinceMs && states.includes(one.state) && !exempt.includes(one.of) && !exempt.includes(one.by)
  );
}

/** Kills one of N in some worlds; gives how long it took until each of the others knew. */
function kills(n: number, rounds: number, hint?: "gone" | "closed"): number[] {
  const times: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const world = new SwimWorld(n, 1_000 * n + round);
    world.run(15_000 + 137 * round);
    const [victim] = world.pick(1);
    const sinceMs = world.nowMs;
    world.kill(victim!, hint);
    world.run(15_000);
    times.push(...world.knownAfterMs(victim!, "dead", sinceMs));
    assert.deepEqual(found(world, ["dead"], 0, [victim!]), [], "nobody else is called dead");
  }
  assert.ok(times.every((one) => !Number.isNaN(one)), "everybody knows");
  return times.sort((a, b) => a - b);
}

Deno.test("[3.3c] [10.3c] SWIM: a node that falls silent is dead to all within 5 s, at N = 2 and at N = 100 alike", () => {
  const slowest = new Map<number, number>();
  for (const n of [2, 3, 5, 10, 32, 50, 100]) slowest.set(n, kills(n, 6).at(-1)!);
  for (const [n, ms] of slowest) assert.ok(ms <= 4_000, `N=${n}: ${ms} ms`);
  // Flat in N: what the load per node is as well.
  assert.ok(slowest.get(100)! <= 1.4 * slowest.get(10)!, JSON.stringify([...slowest]));
});

Deno.test("[3.3c] SWIM: where the machine says that the process is gone, all know within half a second", () => {
  for (const n of [2, 3, 10, 32, 50, 100]) {
    const times = kills(n, 3, "gone");
    assert.ok(times.at(-1)! <= 500, `N=${n}: ${times.at(-1)} ms`);
  }
});

Deno.test("[3.3c] SWIM: what the machine says of a node that lives changes nothing for longer than its answer takes", () => {
  const world = new SwimWorld(10, 77);
  world.run(10_000);
  const sinceMs = world.nowMs;
  for (let i = 0; i < 20; i++) {
    world.hint(3);
    world.run(1_000);
  }
  assert.deepEqual(found(world, ["dead"], sinceMs), []);
  for (const one of found(world, ["suspect"], sinceMs)) {
    const after = world.log.find((next) => next.by === one.by && next.of === one.of && next.atMs > one.atMs);
    assert.ok(after?.state === "alive" && after.atMs - one.atMs < 50, "suspected for as long as an answer takes");
  }
});

Deno.test("[3.3a] [10.3a] SWIM: in half an hour of 20 % loss and 200 ms of jitter none of 50 nodes is called dead", () => {
  const world = new SwimWorld(50, 11, { lossPerMille: 200, jitterMs: 200 });
  world.run(30 * 60_000);
  assert.deepEqual(found(world, ["dead"], 0), []);
  // It was no fair weather: about one ping in three went unanswered, and suspicions were refuted.
  const views = world.hosts.map((one) => one.swim.inspect());
  assert.ok(views.every((one) => one.lossPerMille > 150), "the loss is seen");
  assert.ok(views.reduce((sum, one) => sum + one.refuted, 0) > 100, "suspicions are refuted");
});

Deno.test("[3.3a] SWIM: in such weather a death is known to all in a few seconds", () => {
  const times: number[] = [];
  for (let round = 0; round < 4; round++) {
    const world = new SwimWorld(50, 300 + round, { lossPerMille: 200, jitterMs: 200 });
    world.run(60_000);
    const [victim] = world.pick(1);
    const sinceMs = world.nowMs;
    world.kill(victim!);
    world.run(20_000);
    times.push(...world.knownAfterMs(victim!, "dead", sinceMs));
    assert.deepEqual(found(world, ["dead"], 0, [victim!]), []);
  }
  times.sort((a, b) => a - b);
  assert.ok(times.every((one) => !Number.isNaN(one)));
  assert.ok(
    times[times.length >> 1]! <= 5_000 && times.at(-1)! <= 10_000,
    `${times[times.length >> 1]}, ${times.at(-1)}`,
  );
});

Deno.test("[3.3c] [10.3c] SWIM: a process that is stopped ten seconds of twenty makes nobody else flap", () => {
  for (const n of [3, 5, 20, 50]) {
    const world = new SwimWorld(n, 5);
    world.run(10_000);
    const sinceMs = world.nowMs;
    const [paused] = world.pick(1);
    for (let i = 0; i < 15; i++) {
      world.pause(paused!, 10_000);
      world.run(20_000);
    }
    assert.deepEqual(found(world, ["suspect", "dead"], sinceMs, [paused!]), [], `N=${n}: of and by the healthy`);
    const by = world.log.filter((one) => one.by === paused && one.atMs > sinceMs && one.state === "dead");
    assert.deepEqual(by, [], "its own silence is nobody's fault");
    assert.ok(world.log.some((one) => one.of === paused && one.state === "dead"), "while it is stopped it is dead");
    assert.ok(world.knownAfterMs(paused!, "alive", sinceMs).every((one) => one >= 0), "now it is alive to all");
  }
});

Deno.test("[3.3c] [10.3b] SWIM: a node that cannot send, cannot receive, or is cut off from half makes nobody else flap", () => {
  for (const n of [5, 20, 50]) {
    for (const way of ["send", "receive", "half"] as const) {
      const world = new SwimWorld(n, 6);
      world.run(10_000);
      const sinceMs = world.nowMs;
      const [odd] = world.pick(1);
      for (const { index } of world.hosts) {
        if (index === odd || way === "half" && index % 2 === 1) continue;
        world.cut.add(way === "receive" ? `${index}>${odd}` : `${odd}>${index}`);
      }
      world.run(180_000);
      assert.deepEqual(found(world, ["suspect", "dead"], sinceMs, [odd!]), [], `N=${n}, ${way}`);
      if (way === "half") continue;
      assert.ok(world.knownAfterMs(odd!, "dead", sinceMs).every((one) => one >= 0), "the others lose it");
      assert.equal(world.log.filter((one) => one.of === odd && one.state === "alive" && one.atMs > sinceMs).length, 0);
    }
  }
});

Deno.test("[3.3c] [10.3b] SWIM: a cut is complete on both sides in half a minute, and heals in a few seconds", () => {
  for (const n of [5, 20, 50]) {
    const world = new SwimWorld(n, 9);
    world.run(10_000);
    const cutMs = world.nowMs;
    const few = Math.floor(n / 3);
    const isFar = (a: number, b: number) => (a < few) !== (b < few);
    for (const a of world.hosts.keys()) {
      for (const b of world.hosts.keys()) if (isFar(a, b)) world.cut.add(`${a}>${b}`);
    }
    world.run(30_000);
    const dead = found(world, ["dead"], cutMs);
    assert.deepEqual(dead.filter((one) => !isFar(one.by, one.of)), [], "nobody on one's own side");
    assert.equal(new Set(dead.map((one) => `${one.by} ${one.of}`)).size, 2 * few * (n - few), `N=${n}: all beyond`);
    world.cut.clear();
    world.run(15_000);
    for (const { swim } of world.hosts) assert.deepEqual(swim.inspect().dead, [], `N=${n}`);
  }
});

Deno.test("[3.3c] [10.3c] SWIM: all restart at once, with what they had stored, and nobody calls anybody dead after", () => {
  for (const n of [3, 20, 50]) {
    const world = new SwimWorld(n, 8);
    world.run(10_000);
    const before = world.hosts.map((one) => one.swim.inspect().incarnation);
    for (const { index } of world.hosts) world.kill(index);
    for (const { index } of world.hosts) {
      world.run(20);
      world.start(index);
    }
    const sinceMs = world.nowMs;
    world.run(60_000);
    assert.deepEqual(found(world, ["suspect", "dead"], sinceMs), [], `N=${n}`);
    world.hosts.forEach((one, i) => assert.ok(one.swim.inspect().incarnation > before[i]!, "each overtakes itself"));
  }
});

Deno.test("[3.3c] SWIM: a node that was dead and starts again is alive to all, also to those without a channel to it", () => {
  const world = new SwimWorld(60, 12);
  world.run(10_000);
  const [victim] = world.pick(1);
  world.kill(victim!);
  world.run(8_000);
  assert.ok(world.hosts.every((one) => one.index === victim || one.swim.inspect().dead.length === 1));
  const sinceMs = world.nowMs;
  world.start(victim!);
  world.run(3_000);
  assert.ok(world.knownAfterMs(victim!, "alive", sinceMs).every((one) => one <= 3_000));
});

Deno.test("[3.3e] [10.4b] SWIM: idle, a node sends at most 300 bytes a second and acts five times, at N = 3 and at N = 200", () => {
  const costs: number[] = [];
  for (const n of [3, 10, 32, 100, 200]) {
    const world = new SwimWorld(n, 7);
    world.run(20_000);
    world.measures = true;
    const before = world.hosts.map(({ bytes, steps }) => ({ bytes, steps }));
    world.run(60_000);
    const bytes = world.hosts.reduce((sum, one, i) => sum + one.bytes - before[i]!.bytes, 0) / n / 60;
    const steps = world.hosts.reduce((sum, one, i) => sum + one.steps - before[i]!.steps, 0) / n / 60;
    assert.ok(bytes <= 300, `N=${n}: ${bytes} bytes a second`);
    assert.ok(steps <= 5, `N=${n}: ${steps} steps a second`);
    costs.push(bytes);
  }
  assert.ok(costs.at(-1)! <= 1.1 * costs[1]!, `flat in N: ${costs.map(Math.round)}`);
});

Deno.test("[3.3e] SWIM: nodes on batteries ping seldom, which costs less and lets nobody die unseen", () => {
  const isOnBattery = (index: number) => index % 2 === 0;
  const times: number[] = [];
  for (let round = 0; round < 6; round++) {
    const world = new SwimWorld(20, 50 + round, {}, (index) => isOnBattery(index) ? 3_000 : 1_000);
    world.run(20_000);
    world.measures = true;
    const before = world.hosts.map((one) => one.bytes);
    world.run(60_000);
    const mean = (wanted: boolean) => {
      const some = world.hosts.filter((one) => isOnBattery(one.index) === wanted);
      return some.reduce((sum, one) => sum + one.bytes - before[one.index]!, 0) / some.length / 60;
    };
    assert.ok(mean(true) < 0.75 * mean(false), `${mean(true)}, ${mean(false)} bytes a second`);
    const sinceMs = world.nowMs;
    const [victim] = world.pick(1);
    world.kill(victim!);
    world.run(15_000);
    times.push(...world.knownAfterMs(victim!, "dead", sinceMs));
    assert.deepEqual(found(world, ["dead"], 0, [victim!]), []);
  }
  assert.ok(times.every((one) => one <= 5_000), `${Math.max(...times)} ms`);
});

Deno.test("[3.3c] SWIM: a member that lies about another cannot have it called dead, nor keep it alive", () => {
  const world = new SwimWorld(10, 21);
  world.run(10_000);
  const sinceMs = world.nowMs;
  const [liar, target, ...others] = world.pick(10);
  for (let i = 0; i < 100; i++) {
    world.lie(liar!, (incarnation) => [
      { kind: "dead", subject: world.hosts[target!]!.id, incarnation },
      ...others.slice(0, 5).map((one) => (
        { kind: "dead", subject: world.hosts[target!]!.id, incarnation, accuser: world.hosts[one]!.id } as const
      )),
    ]);
    world.run(100);
  }
  assert.deepEqual(found(world, ["dead", "suspect"], sinceMs, [liar!]), []);
  const killMs = world.nowMs;
  world.kill(target!);
  for (let i = 0; i < 60; i++) {
    world.lie(liar!, (incarnation) => [
      { kind: "alive", subject: world.hosts[target!]!.id, incarnation: incarnation + i },
    ]);
    world.run(100);
  }
  const known = world.knownAfterMs(target!, "dead", killMs);
  assert.ok(known.every((one) => one <= 5_000), `${known}`);
});
