import assert from "node:assert/strict";
import fc from "fast-check";
import { type CauseCode, CAUSES } from "../../src/bootstrap/diagnosis.ts";
import {
  type Advance,
  DIALS_MAX,
  type JoinEffect,
  type JoinEvent,
  JoinMachine,
  type Stage,
  STAGE_BUDGET_MS,
} from "../../src/bootstrap/join_machine.ts";
import { seededRng } from "../../src/core/rng.ts";
import { testScripts } from "../testkit/script_runner.ts";

/** An effect as a line of a script. */
function describe(effect: JoinEffect): string {
  switch (effect.type) {
    case "discovery":
      return `discovery ${effect.mode}`;
    case "dial-next":
      return "dial the next candidate";
    case "authenticate":
      return `authenticate with ${effect.nodeId}`;
    case "stage":
      return `stage ${effect.stage}`;
    case "failure":
      return `failure ${effect.failure.code} in ${effect.failure.stage} (${effect.failure.tried}), ${effect.failure.count} in a row`;
    case "wakeAt":
      return `wake at ${effect.atMs}`;
  }
}

/** The wake-up that counts is the last one: earlier ones are overtaken. */
function describeAll(effects: readonly JoinEffect[]): string[] {
  const last = effects.findLastIndex((one) => one.type === "wakeAt");
  return effects.filter((one, i) => one.type !== "wakeAt" || i === last).map(describe);
}

testScripts(import.meta.dirname + "/testdata", () => {
  let machine = new JoinMachine(seededRng(1));
  let nowMs = 0;
  return (command) => {
    nowMs += command.int("after", 0);
    const step = (event: JoinEvent) => describeAll(machine.step(event));
    switch (command.name) {
      case "machine":
        machine = new JoinMachine(seededRng(command.int("seed")));
        nowMs = 0;
        return [];
      case "start":
        return step({ type: "start", plan: command.text("plan") as "join" | "rejoin" | "form", nowMs });
      case "candidates":
        return step({ type: "candidates", count: command.int("count"), nowMs });
      case "contact":
        return step({ type: "contact", nodeId: command.text("node"), nowMs });
      case "dial-failed": {
        const code = command.text("code", "unreachable") as CauseCode;
        return step({ type: "dial-failed", code, tried: command.text("tried", "a"), left: command.int("left"), nowMs });
      }
      case "advanced":
        return step({ type: "advanced", to: command.text("to") as Advance, nowMs });
      case "failed":
        return step({
          type: "failed",
          code: command.text("code") as CauseCode,
          tried: command.text("tried", "a"),
          nowMs,
        });
      case "connectivity":
        return step({ type: "connectivity", reachable: command.text("reachable") === "yes", nowMs });
      case "override":
        return step({ type: "override", action: command.text("action") as "retry" | "reset", nowMs });
      case "wake": {
        const atMs = machine.nextWakeMs();
        if (atMs !== undefined) nowMs = Math.max(nowMs, atMs);
        return [`at ${nowMs}`, ...step({ type: "wake", nowMs })];
      }
      case "none-to-dial":
        machine.noneToDial();
        return [];
      case "show":
        return [
          `stage ${machine.stage} since ${machine.sinceMs}, attempt ${machine.attempt}, contact ${
            machine.contact ?? "none"
          }, retry at ${machine.retryAtMs ?? "-"}, next wake ${machine.nextWakeMs() ?? "-"}`,
        ];
      default:
        throw command.unknown();
    }
  };
});

const CODES = Object.keys(CAUSES) as CauseCode[];
const STAGES: readonly Stage[] = [
  "forming",
  "discovering",
  "contacting",
  "authenticating",
  "registering",
  "awaiting-approval",
  "handoff",
  "verifying",
  "verified",
  "isolated",
];

const ADVANCES: readonly Advance[] = ["registering", "handoff", "verifying", "verified"];

/** A machine in a stage, by the shortest way there. */
function machineIn(stage: Stage, seed = 1): JoinMachine {
  const machine = new JoinMachine(seededRng(seed));
  if (stage === "idle") return machine;
  machine.step({ type: "start", plan: stage === "forming" ? "form" : "join", nowMs: 0 });
  if (stage === "forming" || stage === "discovering") return machine;
  if (stage === "isolated") {
    machine.step({ type: "failed", code: "no-candidates", tried: "all", nowMs: 0 });
    return machine;
  }
  machine.step({ type: "candidates", count: 1, nowMs: 0 });
  if (stage === "contacting") return machine;
  machine.step({ type: "contact", nodeId: "a", nowMs: 0 });
  if (stage === "awaiting-approval") machine.step({ type: "failed", code: "approval-pending", tried: "a", nowMs: 0 });
  else if (stage !== "authenticating") machine.step({ type: "advanced", to: stage as Advance, nowMs: 0 });
  assert.equal(machine.stage, stage);
  return machine;
}

Deno.test("[1.3e] every stage that waits for others has a budget, and its end is a named failure", () => {
  for (const [stage, budget] of Object.entries(STAGE_BUDGET_MS) as [Stage, number][]) {
    const machine = machineIn(stage);
    assert.deepEqual(machine.step({ type: "wake", nowMs: budget - 1 }).filter((one) => one.type === "failure"), []);
    assert.equal(machine.stage, stage, `${stage} lasts until its budget is over`);
    const failures = machine.step({ type: "wake", nowMs: budget }).flatMap((one) =>
      one.type === "failure" ? [one.failure] : []
    );
    assert.deepEqual(failures.map((one) => [one.code, one.stage]), [
      [stage === "discovering" ? "no-candidates" : "budget-exhausted", stage],
    ]);
    assert.ok(machine.retryAtMs! > budget, "and there is a next try");
  }
});

Deno.test("[1.3a] the wait after failure n is drawn from all of [0, base · 2^n], at least a tenth of a second", () => {
  for (
    const [code, floor, base, max] of [["timeout", 100, 500, 30_000], [
      "invite-expired",
      15_000,
      15_000,
      300_000,
    ]] as const
  ) {
    for (let n = 0; n < 12; n++) {
      const waits: number[] = [];
      for (let seed = 1; seed <= 200; seed++) {
        const machine = machineIn("authenticating", seed * 97);
        for (let i = 0; i < n; i++) machine.step({ type: "failed", code, tried: "a", nowMs: 0 });
        machine.step({ type: "failed", code, tried: "a", nowMs: 1_000 });
        waits.push(machine.retryAtMs! - 1_000);
      }
      const ceiling = Math.max(floor, Math.min(max, base * 2 ** n));
      assert.ok(waits.every((one) => one >= floor && one <= ceiling), `${code} ${n}: ${Math.max(...waits)}`);
      if (ceiling < 4 * floor) continue;
      // Full jitter: both ends are used, so that nodes that failed together do not come back together.
      assert.ok(waits.some((one) => one > ceiling * 0.9), `${code} ${n}: never late`);
      assert.ok(waits.some((one) => one < Math.max(floor + 1, ceiling * 0.3)), `${code} ${n}: never early`);
    }
  }
});

Deno.test("[1.3b] each failure is kept with code, stage, what was tried and how often; 16 at most", () => {
  const machine = machineIn("contacting");
  machine.step({ type: "dial-failed", code: "unreachable", tried: "x", left: 1, nowMs: 5 });
  machine.step({ type: "dial-failed", code: "unreachable", tried: "x", left: 1, nowMs: 6 });
  machine.step({ type: "dial-failed", code: "timeout", tried: "y", left: 1, nowMs: 7 });
  assert.deepEqual(machine.failures, [
    { code: "unreachable", stage: "contacting", tried: "x", atMs: 6, count: 2 },
    { code: "timeout", stage: "contacting", tried: "y", atMs: 7, count: 1 },
  ]);
  for (let i = 0; i < 40; i++) {
    machine.step({ type: "dial-failed", code: "timeout", tried: `z${i}`, left: 1, nowMs: 8 + i });
  }
  assert.equal(machine.failures.length, 16);
  assert.equal(machine.failures.at(-1)!.tried, "z39");
  for (const code of CODES) {
    assert.ok(
      CAUSES[code].what.length > 10 && CAUSES[code].cure.length > 10,
      `${code} says what happened and what cures it`,
    );
  }
});

Deno.test("[1.3b] causes that only a person can change are tried at the slow rate, all others at the fast one", () => {
  for (const code of CODES) {
    if (code === "approval-pending") continue;
    const machine = machineIn("registering");
    machine.step({ type: "failed", code, tried: "a", nowMs: 0 });
    const slow = machine.retryAtMs! >= 15_000;
    assert.equal(slow, CAUSES[code].needsPerson, code);
    assert.equal(
      machine.stage,
      CAUSES[code].needsPerson || code === "no-candidates" ? "isolated" : "discovering",
      code,
    );
    // Somebody turning up does not shorten the wait for a person; a channel that is already there does.
    machine.step({ type: "candidates", count: 3, nowMs: 1 });
    assert.notEqual(machine.stage, "contacting", `${code}: a beacon does not make it hammer the registrar`);
  }
});

Deno.test("[1.3c] an operator's retry starts at once from every stage, reset ends in idle with discovery off", () => {
  for (const stage of STAGES) {
    const machine = machineIn(stage);
    const effects = machine.step({ type: "override", action: "retry", nowMs: 10 });
    const working = stage === "verified";
    assert.equal(machine.attempt, 0);
    if (working) assert.equal(machine.stage, stage, "what works is left alone");
    else assert.ok(["discovering", "contacting"].includes(machine.stage), `${stage} -> ${machine.stage}`);
    assert.equal(effects.some((one) => one.type === "stage"), !working);
    const reset = machine.step({ type: "override", action: "reset", nowMs: 11 });
    assert.equal(machine.stage, "idle");
    assert.deepEqual(reset.at(-1), { type: "discovery", mode: "off" });
    assert.equal(machine.nextWakeMs(), undefined, "nothing goes on");
    assert.deepEqual(machine.step({ type: "override", action: "retry", nowMs: 12 }), [], "idle has nothing to retry");
  }
});

Deno.test("[1.3e] a verified node that loses all others is isolated, keeps trying and is verified when one is back", () => {
  const machine = machineIn("verified");
  const effects = machine.step({ type: "connectivity", reachable: false, nowMs: 100 });
  assert.deepEqual(effects.filter((one) => one.type === "discovery"), [{ type: "discovery", mode: "isolated" }]);
  assert.equal(machine.stage, "isolated");
  const atMs = machine.nextWakeMs()!;
  assert.ok(atMs >= 15_100 && atMs <= 30_100, `a try of its own at ${atMs}`);
  machine.step({ type: "connectivity", reachable: true, nowMs: 200 });
  assert.equal(machine.stage, "verified");
  assert.equal(machine.nextWakeMs(), undefined);
});

Deno.test("[1.3e] a newcomer is not verified by a mere session: it has not joined yet", () => {
  const machine = machineIn("isolated");
  machine.step({ type: "connectivity", reachable: true, nowMs: 1 });
  assert.equal(machine.stage, "isolated");
});

Deno.test("[1.3a] while waiting for approval it asks again and again, also when an answer never comes", () => {
  const machine = machineIn("awaiting-approval");
  let nowMs = 0;
  let asked = 0;
  for (let i = 0; i < 20; i++) {
    nowMs = machine.nextWakeMs()!;
    const effects = machine.step({ type: "wake", nowMs });
    if (effects.some((one) => one.type === "authenticate")) asked += 1;
    // Every third answer is lost.
    if (i % 3 !== 0) machine.step({ type: "failed", code: "approval-pending", tried: "a", nowMs: nowMs + 5 });
  }
  assert.equal(asked, 20);
  assert.equal(machine.stage, "awaiting-approval");
  machine.step({ type: "advanced", to: "handoff", nowMs: nowMs + 6 });
  assert.equal(machine.stage, "handoff");
});

const node = fc.constantFrom("a", "b", "c");
const code = fc.constantFrom(...CODES);
type EventParts = JoinEvent extends infer E ? E extends { nowMs: number } ? Omit<E, "nowMs"> : never : never;
const anyEvent = fc.oneof(
  fc.record({ type: fc.constant("start" as const), plan: fc.constantFrom("join", "rejoin", "form") }),
  fc.record({ type: fc.constant("candidates" as const), count: fc.nat(5) }),
  fc.record({ type: fc.constant("contact" as const), nodeId: node }),
  fc.record({ type: fc.constant("dial-failed" as const), code, tried: node, left: fc.nat(3) }),
  fc.record({
    type: fc.constant("advanced" as const),
    to: fc.constantFrom(...ADVANCES),
  }),
  fc.record({ type: fc.constant("failed" as const), code, tried: node }),
  fc.record({ type: fc.constant("connectivity" as const), reachable: fc.boolean() }),
  fc.record({ type: fc.constant("override" as const), action: fc.constantFrom("retry", "reset") }),
  fc.record({ type: fc.constant("wake" as const) }),
) as fc.Arbitrary<EventParts>;
const anyEvents = fc.array(fc.tuple(anyEvent, fc.oneof(fc.nat(50), fc.nat(40_000))), { maxLength: 60 });

/** Stages in which it waits for nothing: of these `forming` ends within the agent's own step. */
const AT_REST: readonly Stage[] = ["idle", "verified", "forming"];

Deno.test("[1.3e] [10.1b] any sequence of events: no throw, bounded effects, and a wake-up unless at rest", () => {
  fc.assert(fc.property(fc.nat(), anyEvents, (seed, events) => {
    const machine = new JoinMachine(seededRng(seed));
    let nowMs = 1_000;
    for (const [event, afterMs] of events) {
      nowMs += afterMs;
      const effects = machine.step({ ...event, nowMs } as JoinEvent);
      assert.ok(effects.length <= 12, `${effects.length} effects of one event`);
      assert.ok(effects.filter((one) => one.type === "dial-next").length <= 1);
      if (!AT_REST.includes(machine.stage)) {
        assert.notEqual(machine.nextWakeMs(), undefined, `${machine.stage} after ${event.type} waits for nothing`);
      }
      assert.ok(machine.failures.length <= 16 && machine.timeline.length <= 32);
    }
  }));
});

Deno.test("[1.3a] [10.1b] left alone from any state it never spins: at most 4 dials and some wake-ups a second", () => {
  fc.assert(fc.property(fc.nat(), anyEvents, (seed, events) => {
    const machine = new JoinMachine(seededRng(seed));
    let nowMs = 1_000;
    for (const [event, afterMs] of events) machine.step({ ...event, nowMs: nowMs += afterMs } as JoinEvent);
    let wakes = 0, dials = 0;
    const endMs = nowMs + 600_000;
    while (wakes < 100_000) {
      const atMs = machine.nextWakeMs();
      if (atMs === undefined || atMs > endMs) break;
      nowMs = Math.max(nowMs, atMs);
      wakes += 1;
      dials += machine.step({ type: "wake", nowMs }).filter((one) => one.type === "dial-next").length;
    }
    assert.ok(wakes < 2_000, `${wakes} wake-ups in ten minutes`);
    assert.ok(dials <= wakes + DIALS_MAX);
  }));
});

Deno.test("[1.3e] [10.1b] from any reachable state an environment in which everything works leads to verified", () => {
  fc.assert(fc.property(fc.nat(), anyEvents, (seed, events) => {
    const machine = new JoinMachine(seededRng(seed));
    let nowMs = 1_000;
    for (const [event, afterMs] of events) machine.step({ ...event, nowMs: nowMs += afterMs } as JoinEvent);
    const queue: JoinEffect[] = [];
    if (machine.stage === "idle") queue.push(...machine.step({ type: "start", plan: "join", nowMs }));
    // A stage that was under way may never hear of its end: its budget has to see to that.
    for (let i = 0; i < 200 && machine.stage !== "verified"; i++) {
      const effect = queue.shift();
      if (!effect) {
        const atMs = machine.nextWakeMs();
        if (machine.stage === "forming") queue.push(...machine.step({ type: "advanced", to: "verified", nowMs }));
        else {
          assert.notEqual(atMs, undefined, machine.stage);
          nowMs = Math.max(nowMs, atMs!);
          queue.push(
            ...machine.step({ type: "candidates", count: 1, nowMs }),
            ...machine.step({ type: "wake", nowMs }),
          );
        }
      } else if (effect.type === "dial-next") {
        queue.push(...machine.step({ type: "contact", nodeId: "a", nowMs: nowMs += 5 }));
      } else if (effect.type === "authenticate") {
        for (const to of ["registering", "handoff", "verifying", "verified"] as const) {
          machine.step({ type: "advanced", to, nowMs: nowMs += 5 });
        }
      }
    }
    assert.equal(machine.stage, "verified");
  }));
});
