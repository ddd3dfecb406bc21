/** The event bus: nobody waits for anybody. */

import assert from "node:assert/strict";
import { type BusTrouble, EventBus } from "../../src/edge/telemetry/bus.ts";

interface Events {
  readonly joined: { readonly node: string };
  readonly left: { readonly node: string };
}

Deno.test("[9.1a] events reach those who listen for them, in order, after emit() has returned", async () => {
  const bus = new EventBus<Events>();
  const seen: string[] = [];
  using _joined = bus.on("joined", "a", ({ node }) => void seen.push(`+${node}`));
  using _all = bus.onAny("b", (type, { node }) => void seen.push(`${type} ${node}`));
  bus.emit("joined", { node: "1" });
  bus.emit("left", { node: "2" });
  assert.equal(seen.length, 0);
  await bus.idle();
  assert.deepEqual(seen.filter((one) => one.startsWith("+")), ["+1"]);
  assert.deepEqual(seen.filter((one) => !one.startsWith("+")), ["joined 1", "left 2"]);
});

Deno.test("[9.1a] a listener that hangs keeps nobody else waiting, and loses its oldest events when its queue is full", async () => {
  const trouble: BusTrouble[] = [];
  const bus = new EventBus<Events>({ queueMax: 10, onTrouble: (one) => void trouble.push(one) });
  let release = () => {};
  const held = new Promise<void>((resolve) => release = resolve);
  const slow: string[] = [];
  const fast: string[] = [];
  using _slow = bus.on("joined", "slow", async ({ node }) => {
    await held;
    slow.push(node);
  });
  using _fast = bus.on("joined", "fast", ({ node }) => void fast.push(node));
  for (let i = 0; i < 50; i++) {
    bus.emit("joined", { node: String(i) });
    await Promise.resolve();
    await Promise.resolve();
    await Promise.resolve();
  }
  assert.equal(fast.length, 50);
  assert.deepEqual(trouble.map((one) => [one.kind, one.listener]), [["overflow", "slow"]], "one report for one flood");
  assert.equal(bus.stats().find((one) => one.name === "slow")?.lost, 39);
  release();
  await bus.idle();
  assert.deepEqual(slow, ["0", ...Array.from({ length: 10 }, (_, i) => String(i + 40))]);
});

Deno.test("[9.1a] a listener that throws or rejects hurts nobody, is counted, and goes on listening", async () => {
  const trouble: BusTrouble[] = [];
  const bus = new EventBus<Events>({
    onTrouble: (one) => {
      trouble.push(one);
      throw new Error("and so does this");
    },
  });
  const seen: string[] = [];
  using _bad = bus.on("joined", "bad", ({ node }) => {
    if (node === "1") throw new Error("sync");
    return Promise.reject(new Error("async"));
  });
  using _good = bus.on("joined", "good", ({ node }) => void seen.push(node));
  bus.emit("joined", { node: "1" });
  bus.emit("joined", { node: "2" });
  await bus.idle();
  assert.deepEqual(seen, ["1", "2"]);
  assert.deepEqual(trouble.map((one) => one.kind === "threw" && (one.error as Error).message), ["sync", "async"]);
  assert.equal(bus.stats().find((one) => one.name === "bad")?.threw, 2);
});

Deno.test("a listener that was disposed of gets nothing more, not even what was queued", async () => {
  const bus = new EventBus<Events>();
  const seen: string[] = [];
  const listener = bus.on("left", "x", ({ node }) => {
    seen.push(node);
    listener[Symbol.dispose]();
  });
  bus.emit("left", { node: "1" });
  bus.emit("left", { node: "2" });
  await bus.idle();
  bus.emit("left", { node: "3" });
  await bus.idle();
  assert.deepEqual(seen, ["1"]);
  assert.deepEqual(bus.stats(), []);
});

Deno.test("one listener too many is an error", () => {
  const bus = new EventBus<Events>({ listenersMax: 2 });
  bus.on("left", "1", () => {});
  bus.on("left", "2", () => {});
  assert.throws(() => bus.on("left", "3", () => {}), /Cannot add listener "3": there are 2/);
});

Deno.test("an event emitted by a listener is delivered after the one that it handles", async () => {
  const bus = new EventBus<Events>();
  const seen: string[] = [];
  using _ = bus.on("joined", "chain", ({ node }) => {
    if (node === "1") bus.emit("joined", { node: "2" });
    seen.push(node);
  });
  bus.emit("joined", { node: "1" });
  await bus.idle();
  assert.deepEqual(seen, ["1", "2"]);
});
