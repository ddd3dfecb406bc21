/** Incident rules: windows, thresholds, responses that end, bounds, and what is stored. */

import assert from "node:assert/strict";
import fc from "fast-check";
import {
  ACTIVE_MAX,
  CROWD,
  CROWD_FACTOR,
  type Incident,
  INCIDENT_RULES,
  type IncidentEffect,
  Incidents,
  INCIDENTS_MAX,
  incidentValue,
  milder,
  QUIET_MS,
  readIncident,
  type Response,
  RESPONSES,
  rulesOf,
  SUBJECTS_MAX,
} from "../../src/access/incidents.ts";
import { type CborValue, decodeCbor, encodeCbor, WireError } from "../../src/core/codec.ts";

const START = 1_700_000_000_000;
const HOUR = 3_600_000;

function rule(id: string) {
  const found = rulesOf([]).find((one) => one.id === id);
  assert.ok(found);
  return found;
}

class World {
  nowMs = START;
  effects: IncidentEffect[] = [];
  constructor(readonly incidents: Incidents = new Incidents()) {}

  see(kind: string, subject: string, sharpest: Response = "revoke", detail = ""): readonly IncidentEffect[] {
    const event = { atMs: this.nowMs, kind, subject, detail };
    return this.take(this.incidents.step({ type: "observed", event, sharpest }));
  }

  take(effects: readonly IncidentEffect[]): readonly IncidentEffect[] {
    this.effects.push(...effects);
    return effects;
  }

  wait(ms: number): readonly IncidentEffect[] {
    this.nowMs += ms;
    return this.take(this.incidents.step({ type: "wake", nowMs: this.nowMs }));
  }

  begun(): string[] {
    return this.effects.flatMap((one) =>
      one.type === "begin"
        ? [`${one.measure.response}${one.measure.dryRun ? " (dry)" : ""} ${one.measure.subject}`]
        : []
    );
  }
}

Deno.test("[2.4e] incidents: who guesses invites is throttled at the threshold and quarantined at the next, for a time", () => {
  const world = new World();
  const { threshold, sharperAt, holdMs } = rule("invite-guessing");
  for (let i = 1; i < threshold; i++) assert.deepEqual(world.see("refused:proof-invalid", "node:mallory"), []);
  assert.deepEqual(world.see("refused:proof-invalid", "node:mallory").map((one) => one.type), [
    "store",
    "alert",
    "store",
    "begin",
  ]);
  for (let i = threshold; i < sharperAt; i++) world.see("refused:proof-invalid", "node:mallory");
  assert.deepEqual(world.begun(), ["throttle node:mallory", "quarantine node:mallory"]);
  for (let i = 0; i < 100; i++) world.see("refused:proof-invalid", "node:mallory");
  assert.equal(world.begun().length, 2, "each begins once");
  assert.equal(world.incidents.all().length, 1);
  assert.deepEqual(world.incidents.active(world.nowMs).map((one) => one.response), ["throttle", "quarantine"]);
  // They end by themselves, and the incident is closed when it has been quiet.
  assert.equal(world.incidents.nextMs(), START + holdMs);
  const ended = world.wait(holdMs).filter((one) => one.type === "end");
  assert.equal(ended.length, 2);
  assert.deepEqual(world.incidents.active(world.nowMs), []);
  assert.equal(world.incidents.all()[0]!.state, "open");
  world.wait(QUIET_MS);
  assert.equal(world.incidents.all()[0]!.state, "closed");
  assert.equal(world.incidents.nextMs(), Infinity);
  // The next one is another incident.
  for (let i = 0; i < threshold; i++) world.see("refused:proof-invalid", "node:mallory");
  assert.equal(world.incidents.all().length, 2);
});

Deno.test("[2.4e] incidents: fewer events than the threshold in its window open nothing, for any times and subjects", () => {
  const { threshold, windowMs } = rule("invite-guessing");
  fc.assert(fc.property(
    fc.array(fc.tuple(fc.nat(3), fc.integer({ min: 0, max: windowMs })), { maxLength: 60 }),
    (events) => {
      const world = new World();
      const seen = new Map<number, number[]>();
      let all: number[] = [];
      let expected = false;
      for (const [subject, waitMs] of events) {
        world.nowMs += waitMs;
        const recent = [...(seen.get(subject) ?? []), world.nowMs].filter((one) => one > world.nowMs - windowMs);
        seen.set(subject, recent);
        all = [...all, world.nowMs].filter((one) => one > world.nowMs - windowMs);
        expected ||= recent.length >= threshold || all.length >= threshold * CROWD_FACTOR;
        world.see("refused:invite-unknown", `node:${subject}`);
        assert.equal(world.incidents.all().length > 0, expected);
      }
    },
  ));
});

Deno.test("[2.4e] incidents: a crowd of which none reaches the threshold is an incident of nobody's, and blames nobody", () => {
  const world = new World();
  const { threshold } = rule("invite-guessing");
  for (let i = 0; i < threshold * CROWD_FACTOR; i++) world.see("refused:proof-invalid", `node:${i}`);
  assert.deepEqual(world.incidents.all().map((one) => [one.rule, one.subject]), [["invite-guessing", CROWD]]);
  assert.deepEqual(world.begun(), []);
});

Deno.test("[2.4e] incidents: only rules of cryptographic proof quarantine by themselves, and none revokes", () => {
  for (const one of INCIDENT_RULES) {
    assert.notEqual(one.response, "revoke", one.id);
    if (one.response === "quarantine") assert.ok(one.proof, one.id);
    assert.ok(RESPONSES.indexOf(one.sharper) >= RESPONSES.indexOf(one.response), one.id);
  }
  assert.equal(new Set(INCIDENT_RULES.map((one) => one.id)).size, INCIDENT_RULES.length);
  // What the subject allows bounds what a rule does.
  const world = new World();
  for (let i = 0; i < 50; i++) world.see("refused:proof-invalid", "address:192.0.2.1", "throttle");
  assert.deepEqual(world.begun(), ["throttle address:192.0.2.1"]);
  assert.equal(milder("quarantine", "alert"), "alert");
});

Deno.test("[2.4e] incidents: a dry run says what would be done and does nothing; settings change thresholds and responses", () => {
  const world = new World(
    new Incidents({ dryRun: true, rules: [{ rule: "replay", threshold: 2, response: "quarantine", holdMs: 5_000 }] }),
  );
  world.see("refused:command-replayed", "node:a");
  assert.equal(world.incidents.all().length, 0);
  world.see("refused:command-replayed", "node:a");
  assert.deepEqual(world.begun(), ["quarantine (dry) node:a"]);
  assert.deepEqual(world.incidents.active(world.nowMs), []);
  for (let i = 0; i < 20; i++) world.see("refused:command-replayed", "node:a");
  assert.equal(world.begun().length, 1);
  assert.ok(!world.wait(5_000).some((one) => one.type === "end"), "nothing was in force");
  world.incidents.configure({ dryRun: false, rules: [{ rule: "replay", enabled: false }, { rule: "nonsense" }] });
  for (let i = 0; i < 20; i++) assert.deepEqual(world.see("refused:command-replayed", "node:b"), []);
  // Numbers that make no sense are moved to where they do.
  const [odd] = rulesOf([{ rule: "invite-guessing", threshold: -5, windowMs: 1e99, holdMs: 0.5, sharperAt: 1e9 }]);
  assert.deepEqual([odd!.threshold, odd!.windowMs, odd!.holdMs, odd!.sharperAt], [1, 7 * 24 * HOUR, 1_000, 1_000]);
});

Deno.test("[2.4e] incidents: a person acknowledges, responds and takes back; what he ended does not come back with the next event", () => {
  const world = new World();
  const { threshold } = rule("invite-guessing");
  for (let i = 0; i < threshold; i++) world.see("refused:proof-invalid", "node:a");
  const id = world.incidents.all()[0]!.id;
  world.take(
    world.incidents.step({ type: "acknowledge", nowMs: world.nowMs, id, by: "operator:x", note: "known\u001b[2J" }),
  );
  const acked = world.incidents.get(id)!;
  assert.deepEqual([acked.state, acked.ackBy, acked.note], ["acknowledged", "operator:x", "known?[2J"]);
  const released = world.incidents.step({ type: "release", nowMs: world.nowMs, id, by: "operator:x" });
  assert.deepEqual(released.map((one) => one.type), ["store", "end"]);
  assert.deepEqual(world.incidents.active(world.nowMs), []);
  world.effects = [];
  world.see("refused:proof-invalid", "node:a");
  assert.deepEqual(world.begun(), []);
  world.take(world.incidents.step({
    type: "respond",
    nowMs: world.nowMs,
    id,
    response: "quarantine",
    forMs: 60_000,
    by: "operator:x",
  }));
  assert.deepEqual(world.begun(), ["quarantine node:a"]);
  assert.equal(world.incidents.active(world.nowMs)[0]!.by, "operator:x");
  assert.equal(world.wait(60_000).filter((one) => one.type === "end").length, 1);
  for (const type of ["acknowledge", "respond", "release"] as const) {
    const odd = { nowMs: 0, id: 99, by: "", note: "", response: "throttle", forMs: 1 } as const;
    assert.deepEqual(world.incidents.step({ ...odd, type }), []);
  }
});

Deno.test("[2.4e] incidents: memory is bounded whatever comes in, and what is in force is never forgotten silently", () => {
  const world = new World();
  for (let i = 0; i < SUBJECTS_MAX * 3; i++) world.see("refused:proof-invalid", `node:${i}`);
  assert.ok(world.incidents.counted <= SUBJECTS_MAX + 1);
  const begun = new Set<string>();
  const ended = new Set<string>();
  for (let i = 0; i < INCIDENTS_MAX * 2; i++) {
    for (const one of world.see("proof:equivocation", `node:${i}`)) {
      if (one.type === "begin") begun.add(one.measure.subject);
      if (one.type === "end") ended.add(one.measure.subject);
    }
    assert.ok(world.incidents.all().length <= INCIDENTS_MAX);
    assert.ok(world.incidents.active(world.nowMs).length <= ACTIVE_MAX);
  }
  const active = new Set(world.incidents.active(world.nowMs).map((one) => one.subject));
  for (const one of begun) assert.ok(active.has(one) !== ended.has(one), `${one} is in force or was ended`);
});

Deno.test("[2.4e] incidents: a clock that was set back makes no response last longer than it was meant to", () => {
  const world = new World();
  world.see("proof:equivocation", "node:a");
  const { holdMs } = rule("equivocation");
  const backMs = START - 10 * 24 * HOUR;
  world.take(world.incidents.clockSetBack(backMs));
  world.nowMs = backMs;
  assert.equal(world.incidents.active(backMs).length, 1);
  assert.equal(world.incidents.nextMs(), backMs + holdMs);
  assert.equal(world.wait(holdMs).filter((one) => one.type === "end").length, 1);
});

Deno.test("[2.4e] incidents: what is stored comes back, goes on, and bytes that do not read are refused", () => {
  const world = new World();
  for (let i = 0; i < 20; i++) world.see("refused:proof-invalid", "node:a", "revoke", "a\n\u202eb".repeat(200));
  world.see("proof:equivocation", "node:b");
  const stored = new Map<number, Uint8Array>();
  for (const one of world.effects) {
    if (one.type === "store") stored.set(one.incident.id, encodeCbor(incidentValue(one.incident)));
  }
  const read = (bytes: Uint8Array): Incident => readIncident(decodeCbor(bytes), "incident");
  const again = new Incidents(undefined, [...stored.values()].map(read).reverse());
  assert.deepEqual(
    again.active(world.nowMs).map((one) => [one.subject, one.response]),
    world.incidents.active(world.nowMs).map((one) => [one.subject, one.response]),
  );
  const next = new World(again);
  next.see("proof:equivocation", "node:c");
  assert.equal(again.all().at(-1)!.id, 3, "numbers go on");
  const bytes = [...stored.values()];
  fc.assert(
    fc.property(fc.constantFrom(...bytes), fc.nat(), fc.nat(255), fc.boolean(), (good, at, byte, cut) => {
      const bad = cut ? good.slice(0, at % good.length) : good.with(at % good.length, byte);
      try {
        const one = read(bad);
        assert.equal(typeof encodeCbor(incidentValue(one) as CborValue), "object");
      } catch (error) {
        assert.ok(error instanceof WireError, String(error));
      }
    }),
    { numRuns: 1_000 },
  );
});

Deno.test("[2.4e] incidents: what wants to be woken is done with its time when it was: nothing spins", () => {
  const kinds = ["refused:proof-invalid", "proof:equivocation", "refused:command-replayed", "clock:back"];
  const action = fc.oneof(
    fc.record({ kind: fc.constantFrom(...kinds), subject: fc.nat(3), times: fc.integer({ min: 1, max: 20 }) }),
    fc.record({ waitMs: fc.integer({ min: 0, max: 3 * 24 * HOUR }) }),
    fc.record({ id: fc.integer({ min: 1, max: 4 }), forMs: fc.integer({ min: 0, max: 9 * 24 * HOUR }) }),
    fc.record({ release: fc.integer({ min: 1, max: 4 }) }),
    fc.record({ dryRun: fc.boolean() }),
  );
  fc.assert(fc.property(fc.array(action, { maxLength: 40 }), (actions) => {
    const world = new World();
    const { incidents } = world;
    for (const one of actions) {
      if ("kind" in one) { for (let i = 0; i < one.times; i++) world.see(one.kind, `node:${one.subject}`); }
      else if ("id" in one) {
        world.take(incidents.step({
          type: "respond",
          nowMs: world.nowMs,
          id: one.id,
          response: "throttle",
          forMs: one.forMs,
          by: "x",
        }));
      } else if ("release" in one) {
        world.take(incidents.step({ type: "release", nowMs: world.nowMs, id: one.release, by: "x" }));
      } else if ("dryRun" in one) incidents.configure({ dryRun: one.dryRun, rules: [] });
      else world.nowMs += one.waitMs;
      world.wait(0);
      assert.ok(incidents.nextMs() > world.nowMs, JSON.stringify(one));
      for (const measure of incidents.active(world.nowMs)) assert.ok(measure.untilMs > world.nowMs);
    }
    // Each that began has ended once when enough time is over, and all is closed.
    for (let i = 0; i < 60 && incidents.nextMs() < Infinity; i++) {
      world.nowMs = incidents.nextMs();
      world.wait(0);
    }
    assert.equal(incidents.nextMs(), Infinity);
    const began = world.effects.filter((one) => one.type === "begin" && !one.measure.dryRun && one.measure.untilMs > 0);
    assert.equal(world.effects.filter((one) => one.type === "end").length, began.length);
  }));
});
