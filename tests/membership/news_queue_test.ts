/** The queue of news that rides on other messages. @module */

import assert from "node:assert/strict";
import fc from "fast-check";
import { NewsQueue, PASS_AGAIN_MS } from "../../src/membership/news_queue.ts";
import type { SwimUpdate } from "../../src/membership/swim_messages.ts";

const of = (kind: SwimUpdate["kind"], subject: string, incarnation: number, accuser?: string): SwimUpdate => ({
  kind,
  subject,
  incarnation,
  ...(accuser === undefined ? {} : { accuser }),
});

Deno.test("[3.3a] NewsQueue: each news goes out so many times and no more, those told least first (SWIM, section 4.1)", () => {
  const queue = new NewsQueue(10);
  queue.add(of("dead", "a", 1));
  assert.deepEqual(queue.take(3, 2).map((one) => one.subject), ["a"]);
  queue.add(of("dead", "b", 1));
  assert.deepEqual(queue.take(3, 1).map((one) => one.subject), ["b"], "what was told once waits");
  const rest = Array.from({ length: 6 }, () => queue.take(3, 1).map((one) => one.subject)).flat();
  assert.deepEqual(rest.toSorted(), ["a", "a", "b", "b"]);
  assert.equal(queue.size, 0);
});

Deno.test("NewsQueue: of one accuser about one node the later incarnation stands, then the graver word (SWIM, section 4.2)", () => {
  const queue = new NewsQueue(10);
  const now = () => queue.take(1_000, 9);
  queue.add(of("suspect", "a", 2, "x"));
  for (const weaker of [of("suspect", "a", 1, "x"), of("alive", "a", 2, "x"), of("suspect", "a", 2, "x")]) {
    queue.add(weaker);
    assert.deepEqual(now(), [of("suspect", "a", 2, "x")]);
  }
  queue.add(of("dead", "a", 2, "x"));
  assert.deepEqual(now(), [of("dead", "a", 2, "x")]);
  queue.add(of("suspect", "a", 2, "y"));
  assert.equal(now().length, 2, "another accuser speaks for itself");
  queue.add(of("alive", "a", 3, "a"));
  assert.deepEqual(now(), [of("alive", "a", 3, "a")], "a refutation overtakes what was said before");
  queue.add(of("dead", "a", 3, "x"));
  assert.equal(now().length, 2, "of the refuted incarnation somebody may say worse again");
  queue.forget("a");
  assert.equal(queue.size, 0);
});

Deno.test("NewsQueue: nobody is told what it said itself, nor what others say of it", () => {
  const queue = new NewsQueue(10);
  queue.add(of("dead", "a", 1, "x"));
  assert.deepEqual(queue.take(5, 5, "a"), []);
  assert.deepEqual(queue.take(5, 5, "x"), []);
  assert.equal(queue.take(5, 5, "y").length, 1);
});

Deno.test("NewsQueue: what others said is passed on once a minute, and at once where it is newer or graver", () => {
  const queue = new NewsQueue(10);
  const told = (nowMs: number, update: SwimUpdate) => {
    queue.pass(update, nowMs);
    return queue.take(1, 9).length;
  };
  assert.equal(told(0, of("suspect", "a", 1, "x")), 1);
  assert.equal(told(10, of("suspect", "a", 1, "x")), 0, "two nodes would keep it going between them");
  assert.equal(told(20, of("dead", "a", 1, "x")), 1, "graver");
  assert.equal(told(30, of("suspect", "a", 1, "x")), 0);
  assert.equal(told(40, of("alive", "a", 2, "x")), 1, "newer");
  assert.equal(told(50, of("alive", "a", 2, "y")), 1, "somebody else");
  assert.equal(told(40 + PASS_AGAIN_MS, of("alive", "a", 2, "x")), 1, "who was out of reach has not heard it");
  assert.equal(told(0, of("alive", "a", 2, "x")), 1, "the clock was set back: a minute stays a minute");
  for (let i = 0; i < 1_000; i++) assert.equal(told(100, of("alive", `n${i}`, 1)), 1, "however many there are");
});

Deno.test("[10.1b] NewsQueue: bounded whatever comes, and what is told is the least told of what fits", () => {
  const update = fc.record({
    kind: fc.constantFrom("alive" as const, "suspect" as const, "dead" as const),
    subject: fc.constantFrom("a", "b", "c", "d"),
    incarnation: fc.integer({ min: 0, max: 4 }),
    accuser: fc.constantFrom("x", "y", "z"),
  });
  fc.assert(fc.property(
    fc.array(fc.oneof(update, fc.integer({ min: 1, max: 4 })), { maxLength: 60 }),
    (steps) => {
      const queue = new NewsQueue(5);
      const told = new Map<string, number>();
      for (const step of steps) {
        if (typeof step === "object") {
          queue.add(step);
          assert.ok(queue.size <= 5);
          continue;
        }
        const before = queue.size;
        const out = queue.take(3, step);
        assert.equal(out.length, Math.min(step, before));
        for (const one of out) {
          const key = JSON.stringify(one);
          told.set(key, (told.get(key) ?? 0) + 1);
        }
        assert.equal(new Set(out.map((one) => JSON.stringify(one))).size, out.length, "none twice in one message");
      }
    },
  ));
});
