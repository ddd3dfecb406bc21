import assert from "node:assert/strict";
import fc from "fast-check";
import { seededRng } from "../../src/core/rng.ts";
import { isLinearizable } from "./zones.ts";
import { History, type HistoryLine, parseHistory } from "./history.ts";
import { checkLinearizable, type Operation, operationsOf } from "./linearizable.ts";

type Value = string | null;

/** A history from one line per event: `A write x 1`, `A ok`, `B read x`, `B ok 1`, `A cas x 1 2`, `B info`, `B fail`. */
function historyOf(text: string): HistoryLine[] {
  const lines: HistoryLine[] = [];
  const open = new Map<string, HistoryLine>();
  const value = (word: string | undefined): Value => word === undefined || word === "-" ? null : word;
  for (const [time, line] of text.split("\n").entries()) {
    if (line === "") continue;
    const [who, what, key, one, two] = line.trim().split(" ");
    const process = who!.charCodeAt(0);
    if (what === "read" || what === "write" || what === "cas") {
      const v = what === "cas" ? [value(one), value(two)] as const : what === "read" ? null : value(one);
      const call: HistoryLine = { process, type: "invoke", f: what, key: key!, value: v, time };
      open.set(who!, call);
      lines.push(call);
    } else {
      const call = open.get(who!)!;
      const type = what as "ok" | "fail" | "info";
      lines.push({ ...call, type, value: call.f === "read" && type === "ok" ? value(key) : call.value, time });
    }
  }
  return lines;
}

const GOOD: Readonly<Record<string, string>> = {
  "nothing": "",
  "a register begins empty": "A read x\nA ok -",
  "a read of what was written": "A write x 1\nA ok\nB read x\nB ok 1",
  "a read that overlaps a write may see either": "A write x 1\nB read x\nB ok -\nC read x\nC ok 1\nA ok",
  "a write without an end may happen late": "A write x 1\nA info\nB read x\nB ok -\nB read x\nB ok 1",
  "or never": "A write x 1\nA info\nB read x\nB ok -",
  "a failed write never was": "A write x 1\nA fail\nB read x\nB ok -",
  "keys do not order each other": "A write x 1\nA ok\nB write y 2\nB ok\nA read y\nA ok 2\nB read x\nB ok 1",
  "one of two that compare wins": "A write x 0\nA ok\nA cas x 0 1\nB cas x 0 2\nA ok\nB fail\nC read x\nC ok 1",
  "compare-and-set after a deletion": "A write x 1\nA ok\nA write x -\nA ok\nB cas x - 2\nB ok\nA read x\nA ok 2",
  "an unanswered one decides who won": "A write x 0\nA ok\nA cas x 0 1\nA info\nB cas x 1 2\nB ok\nC read x\nC ok 2",
};

const BAD: Readonly<Record<string, string>> = {
  "a stale read": "A write x 1\nA ok\nA write x 2\nA ok\nB read x\nB ok 1",
  "a lost write": "A write x 1\nA ok\nB read x\nB ok -",
  "a value from nowhere": "A read x\nA ok 7",
  "a failed write that is seen": "A write x 1\nA fail\nB read x\nB ok 1",
  "reads that go back": "A write x 1\nB read x\nB ok 1\nC read x\nC ok -\nA ok",
  "two that compare and both win": "A write x 0\nA ok\nA cas x 0 1\nB cas x 0 2\nA ok\nB ok",
  "a compare-and-set of a value that is gone": "A write x 0\nA ok\nA write x 1\nA ok\nB cas x 0 2\nB ok",
  "an unanswered write that comes and goes": "A write x 1\nA info\nB read x\nB ok 1\nB read x\nB ok -",
  "two readers see two orders":
    "A write x 1\nB write x 2\nC read x\nC ok 1\nC read x\nC ok 2\nD read x\nD ok 2\nD read x\nD ok 1\nA ok\nB ok",
};

for (const [name, text] of Object.entries(GOOD)) {
  Deno.test(`checkLinearizable() accepts ${name}`, () => {
    assert.equal(checkLinearizable(historyOf(text)).linearizable, true);
  });
}

for (const [name, text] of Object.entries(BAD)) {
  Deno.test(`[10.1b] checkLinearizable() refuses ${name}`, () => {
    const verdict = checkLinearizable(historyOf(text));
    assert.equal(verdict.linearizable, false);
  });
}

/** All orders that respect the times, one after another, with no memory and no short cut. */
function byTrying(operations: readonly Operation[], value: Value = null): boolean {
  if (operations.every((one) => one.returnedAt === Infinity)) return true;
  return operations.some((one, i) => {
    if (operations.some((other) => other.returnedAt < one.calledAt)) return false;
    const rest = operations.toSpliced(i, 1);
    if (one.f === "read") return one.value === value && byTrying(rest, value);
    if (one.f === "write") return byTrying(rest, one.value as Value);
    const [expected, wanted] = one.value as readonly [Value, Value];
    return expected === value && byTrying(rest, wanted);
  });
}

/** Small histories with few values, so that they repeat: many are linearizable by luck, many not. */
const histories = fc.array(
  fc.record({
    f: fc.constantFrom("read" as const, "write" as const, "cas" as const),
    one: fc.constantFrom(null, "1", "2"),
    two: fc.constantFrom("1", "2", "3"),
    end: fc.constantFrom("ok" as const, "ok" as const, "ok" as const, "info" as const, "fail" as const),
    from: fc.nat(100),
    for: fc.nat(40),
  }),
  { maxLength: 6 },
).map((drawn): HistoryLine[] => {
  const events = drawn.flatMap((one, process) => {
    const { f, end } = one;
    const value = f === "cas" ? [one.one, one.two] as const : f === "read" ? null : one.two;
    const found = f === "read" && end === "ok" ? one.one : value;
    return [
      { at: one.from, line: { process, type: "invoke", f, key: "x", value, time: 0 } as const },
      { at: one.from + one.for, line: { process, type: end, f, key: "x", value: found, time: 1 } as const },
    ];
  });
  return events.sort((a, b) => a.at - b.at || a.line.time - b.line.time).map(({ line }) => line);
});

Deno.test("[10.1b] checkLinearizable() agrees with trying all orders", () => {
  let yes = 0, no = 0;
  fc.assert(
    fc.property(histories, (history) => {
      const expected = byTrying(operationsOf(history).get("x") ?? []);
      if (expected) yes++;
      else no++;
      assert.equal(checkLinearizable(history).linearizable, expected);
    }),
    { numRuns: 6_000, seed: 3 },
  );
  assert.ok(yes > 1_000 && no > 1_000, `both answers came: ${yes} ${no}`);
});

/** A register that many clients use at once, each operation at a moment of its own; `spoil` breaks some runs. */
function simulated(seed: number, spoil: boolean): HistoryLine[] {
  const rng = seededRng(seed);
  const history = new History();
  const register = new Map<string, string | null>();
  const clients = Array.from({ length: 8 }, (_, i) => ({
    name: `c${i}`,
    open: undefined as ReturnType<History["invoke"]> | undefined,
    done: false,
    found: null as Value,
  }));
  let next = 0;
  for (let time = 0; time < 4_000; time++) {
    const client = clients[rng.below(clients.length)]!;
    if (!client.open) {
      const key = `k${rng.below(2)}`;
      const value = `v${next++}`;
      client.open = rng.below(2) === 0
        ? history.invoke(client.name, "read", key, null, time)
        : history.invoke(client.name, "write", key, value, time);
      client.done = false;
    } else if (!client.done && rng.below(3) > 0) {
      client.done = true;
      const { f, key, value } = client.open;
      client.found = register.get(key) ?? null;
      if (f === "write" && !(spoil && rng.below(12) === 0)) register.set(key, value as string);
    } else if (rng.below(30) === 0) {
      history.end(client.open, "info", time);
      client.open = undefined;
    } else if (client.done) {
      history.end(client.open, "ok", time, client.open.f === "read" ? client.found : client.open.value);
      client.open = undefined;
    }
  }
  return history.lines;
}

/** The same in the form of the other checker. */
function judgedByZones(lines: readonly HistoryLine[]): boolean {
  return [...operationsOf(lines).values()].every((list) =>
    isLinearizable(list.map((one) => ({
      kind: one.f === "read" ? "read" : "write",
      value: one.value === null ? undefined : one.value as string,
      calledAt: one.calledAt + 1,
      returnedAt: one.returnedAt + 1,
    })))
  );
}

Deno.test("checkLinearizable() agrees with the zones of Gibbons and Korach on long histories of eight clients", () => {
  let yes = 0, no = 0;
  for (let seed = 1; seed <= 30; seed++) {
    const lines = simulated(seed, seed % 2 === 0);
    const expected = judgedByZones(lines);
    if (expected) yes++;
    else no++;
    assert.equal(checkLinearizable(lines).linearizable, expected, `seed ${seed}`);
  }
  assert.ok(yes >= 15 && no > 5, `both answers came: ${yes} ${no}`);
});

Deno.test("checkLinearizable() says that it does not know rather than search without end", () => {
  const verdict = checkLinearizable(historyOf(BAD["two readers see two orders"]!), { statesMax: 2 });
  assert.equal(verdict.linearizable, undefined);
});

Deno.test("a history is read as it was written, and a client that does not know goes on as another process", () => {
  const history = new History();
  const first = history.invoke("a", "write", "x", "1", 10);
  history.end(first, "info", 20);
  const second = history.invoke("a", "cas", "x", ["1", null], 30);
  history.end(second, "ok", 40);
  history.end(second, "fail", 41);
  history.invoke("b", "read", "x", null, 50);
  history.close(60);
  assert.notEqual(first.process, second.process);
  assert.equal(history.lines.length, 6);
  assert.deepEqual(parseHistory(history.toText()), history.lines);
  assert.throws(
    () => parseHistory('{"process":1,"type":"done","f":"read","key":"x","value":null,"time":1}'),
    TypeError,
  );
});
