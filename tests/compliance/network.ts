/**
 * What every {@linkcode Network} has to do, whatever carries it.
 *
 * @module
 */

import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import { equalBytes, fromUtf8, utf8 } from "../../src/core/bytes.ts";
import { type KeyPair, keyPairFromSeed } from "../../src/core/crypto.ts";
import { nodeIdOf } from "../../src/core/ids.ts";
import { LIMITS } from "../../src/core/limits.ts";
import {
  CallError,
  type InboundCall,
  type Network,
  type NetworkHandlers,
  type Peer,
  type TransportName,
} from "../../src/ports/network.ts";

/** What a network under test is made from. */
export interface NodeOptions {
  readonly keyPair: KeyPair;
  readonly networkId: Uint8Array;
  readonly discoverySecret: Uint8Array;
}

/** An implementation under test. */
export interface Implementation {
  readonly name: string;
  readonly transport: TransportName;
  /** Makes a network that listens at one address. */
  create(options: NodeOptions, handlers: NetworkHandlers): Network;
  /** An address where nobody answers. */
  readonly deadAddress: (nodeId: string) => string;
  /** Whether both ends get a channel binding. */
  readonly hasChannelBinding: boolean;
  /** Runs after each test: gives back what the implementation's libraries hold beyond a stop. */
  readonly afterEach?: () => Promise<void>;
  /** Tests that do not apply, by a part of their title, each with a reason. */
  readonly skips?: Readonly<Record<string, string>>;
}

const NETWORK_ID = new Uint8Array(32).fill(0x11);
const SECRET = new Uint8Array(32).fill(0x22);

/** A network with what it told its owner. */
export class TestNode {
  readonly network: Network;
  readonly keyPair: KeyPair;
  readonly opened: Peer[] = [];
  readonly gone: { nodeId: string; reason: string }[] = [];
  readonly refused: string[] = [];
  /** Each with the node that it came from. */
  readonly datagrams: { nodeId: string; bytes: Uint8Array }[] = [];
  onCall: (call: InboundCall) => Promise<void> = () => Promise.resolve();

  constructor(implementation: Pick<Implementation, "create">, options: Partial<NodeOptions> = {}) {
    this.keyPair = options.keyPair ?? keyPairFromSeed(crypto.getRandomValues(new Uint8Array(32)));
    this.network = implementation.create({
      networkId: NETWORK_ID,
      discoverySecret: SECRET,
      ...options,
      keyPair: this.keyPair,
    }, {
      onPeer: (peer) => this.opened.push(peer),
      onPeerGone: (nodeId, reason) => this.gone.push({ nodeId, reason }),
      onRefused: (reason) => this.refused.push(reason),
      onCall: (call) => this.onCall(call),
      onDatagram: (nodeId, bytes) => this.datagrams.push({ nodeId, bytes }),
    });
  }

  get id(): string {
    return this.network.nodeId;
  }

  get address(): string {
    const address = this.network.addresses()[0];
    ok(address, "the node listens");
    return address;
  }

  dial(other: TestNode | string, timeoutMs = 10_000): Promise<Peer> {
    const address = typeof other === "string" ? other : other.address;
    return this.network.dial(address, { signal: AbortSignal.timeout(timeoutMs) });
  }

  /** All messages of an answer. */
  async call(other: TestNode, method: string, body: Uint8Array = new Uint8Array(0), timeoutMs = 10_000) {
    const out: Uint8Array[] = [];
    for await (const message of this.network.call(other.id, method, body, { timeoutMs })) out.push(message);
    return out;
  }
}

/** Starts nodes, runs the body, stops all of them whatever happened. */
export async function withNodes(nodes: readonly TestNode[], body: () => Promise<void>): Promise<void> {
  try {
    for (const node of nodes) await node.network.start();
    await body();
  } finally {
    await Promise.all(nodes.map((node) => node.network.stop()));
  }
}

/** Waits until a condition holds. */
export async function until(what: string, condition: () => boolean, timeoutMs = 5_000): Promise<void> {
  const endMs = performance.now() + timeoutMs;
  while (!condition()) {
    if (performance.now() > endMs) throw new Error(`not within ${timeoutMs} ms: ${what}`);
    await sleep(5);
  }
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Asserts that a promise rejects with a {@linkcode CallError} of one of these codes. */
export async function rejectsWith(promise: Promise<unknown>, ...codes: readonly string[]): Promise<void> {
  await rejects(promise, (error) => {
    ok(error instanceof CallError, `wanted a CallError, got ${error}`);
    ok(codes.includes(error.code), `wanted ${codes.join(" or ")}, got ${error.code}: ${error.message}`);
    return true;
  });
}

/** Runs the suite on one implementation. */
export function networkCompliance(implementation: Implementation): void {
  const make = (options: Partial<NodeOptions> = {}) => new TestNode(implementation, options);

  function test(title: string, body: () => Promise<void>): void {
    const skip = Object.keys(implementation.skips ?? {}).find((part) => title.includes(part));
    Deno.test({
      name: `${title} (${implementation.name})`,
      ignore: skip !== undefined,
      async fn() {
        try {
          await body();
        } finally {
          await implementation.afterEach?.();
        }
      },
    });
  }

  test("[2.2a] [2.2d] Network: dial() opens a channel that proves both node keys", async () => {
    const [a, b] = [make(), make()];
    await withNodes([a, b], async () => {
      const peer = await a.dial(b);
      await until("b sees a", () => b.opened.length === 1);
      const seen = b.opened[0]!;
      strictEqual(peer.nodeId, nodeIdOf(b.keyPair.publicKey));
      ok(equalBytes(peer.publicKey, b.keyPair.publicKey));
      strictEqual(seen.nodeId, nodeIdOf(a.keyPair.publicKey));
      ok(equalBytes(seen.publicKey, a.keyPair.publicKey));
      strictEqual(peer.direction, "outbound");
      strictEqual(seen.direction, "inbound");
      strictEqual(peer.transport, implementation.transport);
      deepStrictEqual(a.opened, [peer]);
      deepStrictEqual(a.network.peers(), [peer]);
      strictEqual(b.address.startsWith(peer.remoteAddress), true);
      if (implementation.hasChannelBinding) {
        strictEqual(peer.channelBinding?.length, 32);
        ok(equalBytes(peer.channelBinding, seen.channelBinding!), "both ends have the same binding");
      } else strictEqual(peer.channelBinding, undefined);
    });
  });

  test("Network: addresses() end in the node id and are empty before start and after stop", async () => {
    const a = make();
    deepStrictEqual(a.network.addresses(), []);
    await withNodes([a], async () => {
      await Promise.resolve();
      ok(a.network.addresses().length > 0);
      for (const address of a.network.addresses()) ok(address.endsWith(`/p2p/${a.id}`), address);
    });
    deepStrictEqual(a.network.addresses(), []);
  });

  test("[2.2d] Network: dial() refuses a node that is not the one named", async () => {
    const [a, b] = [make(), make()];
    await withNodes([a, b], async () => {
      const other = nodeIdOf(keyPairFromSeed(new Uint8Array(32).fill(7)).publicKey);
      await rejectsWith(a.dial(b.address.replace(b.id, other), 3_000), "wrong-identity");
      await sleep(100);
      deepStrictEqual([a.opened, b.opened, a.network.peers(), b.network.peers()], [[], [], [], []]);
      // The right name still works.
      await a.dial(b);
    });
  });

  test("[2.1d] Network: a node of another network gets no channel, and both ends say why", async () => {
    const foreign = make({ networkId: new Uint8Array(32).fill(0x99), discoverySecret: new Uint8Array(32).fill(0x88) });
    const a = make();
    await withNodes([a, foreign], async () => {
      await rejectsWith(a.dial(foreign, 3_000), "foreign-network");
      await until("the refusal is counted", () => foreign.refused.length > 0);
      deepStrictEqual([...new Set(foreign.refused)], ["foreign-network"]);
      strictEqual(foreign.network.counters().refused.get("foreign-network"), foreign.refused.length);
      await rejectsWith(foreign.dial(a, 3_000), "foreign-network");
      deepStrictEqual([a.opened, foreign.opened], [[], []]);
    });
  });

  test("Network: dial() fails within its signal where nobody answers", async () => {
    const a = make();
    await withNodes([a], async () => {
      const nobody = nodeIdOf(keyPairFromSeed(new Uint8Array(32).fill(9)).publicKey);
      const startMs = performance.now();
      await rejectsWith(a.dial(implementation.deadAddress(nobody), 700), "unreachable", "timeout");
      ok(performance.now() - startMs < 2_000);
      const aborter = new AbortController();
      const dialing = a.network.dial(implementation.deadAddress(nobody), { signal: aborter.signal });
      aborter.abort();
      await rejectsWith(dialing, "cancelled", "unreachable");
      await rejectsWith(a.dial("/ip4/127.0.0.1/nonsense"), "unreachable");
    });
  });

  test("Network: dial() returns the channel that is open", async () => {
    const [a, b] = [make(), make()];
    await withNodes([a, b], async () => {
      const peer = await a.dial(b);
      strictEqual(await a.dial(b), peer);
      await until("b sees a", () => b.opened.length === 1);
      strictEqual(await b.dial(a), b.opened[0]);
      deepStrictEqual([a.opened.length, b.opened.length], [1, 1]);
    });
  });

  test("Network: the signal of a dial has no power over the channel that came of it", async () => {
    const [a, b] = [make(), make()];
    b.onCall = (call) => call.send(call.body);
    await withNodes([a, b], async () => {
      const aborter = new AbortController();
      await a.network.dial(b.address, { signal: aborter.signal });
      aborter.abort();
      await sleep(100);
      deepStrictEqual(await a.call(b, "echo", utf8("x")), [utf8("x")]);
      deepStrictEqual(a.gone, []);
    });
  });

  test("[2.2d] Network: two nodes that dial each other at once report one channel each", async () => {
    for (let round = 0; round < 4; round++) {
      const [a, b] = [make(), make()];
      a.onCall = b.onCall = (call) => call.send(utf8(call.peer.nodeId));
      await withNodes([a, b], async () => {
        const [ab, ba] = await Promise.all([a.dial(b), b.dial(a)]);
        strictEqual(ab.nodeId, b.id);
        strictEqual(ba.nodeId, a.id);
        for (let i = 0; i < 20; i++) {
          deepStrictEqual((await a.call(b, "who")).map(fromUtf8), [a.id]);
          deepStrictEqual((await b.call(a, "who")).map(fromUtf8), [b.id]);
        }
        await sleep(300);
        deepStrictEqual([a.opened.length, b.opened.length, a.gone, b.gone], [1, 1, [], []]);
        deepStrictEqual([a.network.peers().length, b.network.peers().length], [1, 1]);
        const [one, other] = [a.network.peers()[0]!, b.network.peers()[0]!];
        ok(one.direction !== other.direction, "both ends kept the same channel");
      });
    }
  });

  test("[1.4a] Network: call() carries a request and one answer, both ways", async () => {
    const [a, b] = [make(), make()];
    a.onCall = b.onCall = async (call) => {
      strictEqual(call.method, "echo.this");
      ok(call.timeoutMs > 0 && call.timeoutMs <= 10_000);
      await call.send(call.body);
    };
    await withNodes([a, b], async () => {
      await a.dial(b);
      deepStrictEqual(await a.call(b, "echo.this", utf8("hello")), [utf8("hello")]);
      deepStrictEqual(await b.call(a, "echo.this", new Uint8Array(0)), [new Uint8Array(0)]);
      const [ca, cb] = [a.network.counters(), b.network.counters()];
      deepStrictEqual([ca.callsIn, ca.callsOut, cb.callsIn, cb.callsOut], [1, 1, 1, 1]);
      ok(ca.bytesOut > 0 && ca.bytesIn > 0);
    });
  });

  test("[1.4a] Network: call() yields many messages in order, and none is allowed too", async () => {
    const [a, b] = [make(), make()];
    b.onCall = async (call) => {
      const count = Number(fromUtf8(call.body));
      for (let i = 0; i < count; i++) await call.send(utf8(`${i}`));
    };
    await withNodes([a, b], async () => {
      await a.dial(b);
      deepStrictEqual(await a.call(b, "count", utf8("0")), []);
      const answer = await a.call(b, "count", utf8("1000"));
      deepStrictEqual(answer.map(fromUtf8), Array.from({ length: 1000 }, (_, i) => `${i}`));
    });
  });

  test("[1.4a] Network: bodies and messages of the largest size arrive whole, larger ones are refused", async () => {
    const [a, b] = [make(), make()];
    b.onCall = async (call) => {
      await call.send(call.body);
      await call.send(call.body);
    };
    await withNodes([a, b], async () => {
      await a.dial(b);
      const body = pattern(LIMITS.frameBytesMax);
      const answer = await a.call(b, "echo", body);
      strictEqual(answer.length, 2);
      ok(answer.every((message) => equalBytes(message, body)));
      await rejectsWith(a.call(b, "echo", new Uint8Array(LIMITS.frameBytesMax + 1)), "bad-frame");
      await rejectsWith(a.call(b, "bad name", new Uint8Array(0)), "bad-frame");
      b.onCall = (call) => call.send(new Uint8Array(LIMITS.frameBytesMax + 1));
      await rejectsWith(a.call(b, "too-much"), "internal", "bad-frame");
    });
  });

  test("[1.4a] Network: a slow reader stops the writer", async () => {
    const [a, b] = [make(), make()];
    const messageBytes = 64 << 10;
    let sent = 0;
    let aborted = false;
    b.onCall = async (call) => {
      call.signal.addEventListener("abort", () => aborted = true);
      for (let i = 0; i < 4_096; i++) {
        await call.send(new Uint8Array(messageBytes));
        sent++;
      }
    };
    await withNodes([a, b], async () => {
      await a.dial(b);
      let read = 0;
      for await (const _ of a.network.call(b.id, "flood", new Uint8Array(0), { timeoutMs: 60_000 })) {
        if (++read > 4) break;
        // Until the writer stands still: what it could send without being read is the buffer between the two.
        for (let before = -1; before !== sent;) {
          before = sent;
          await sleep(150);
        }
        ok((sent - read) * messageBytes <= 16 << 20, `${sent - read} messages are under way`);
      }
      await until("the callee is told", () => aborted);
      ok(sent < 4_096);
    });
  });

  test("[1.4a] Network: a deadline fails the call and aborts the callee", async () => {
    const [a, b] = [make(), make()];
    let reason: unknown;
    b.onCall = async (call) => {
      await call.send(utf8("first"));
      await new Promise((resolve) => call.signal.addEventListener("abort", resolve));
      reason = call.signal.reason;
      await rejects(call.send(utf8("late")));
    };
    await withNodes([a, b], async () => {
      await a.dial(b);
      const startMs = performance.now();
      await rejectsWith(a.call(b, "slow", new Uint8Array(0), 300), "timeout");
      ok(performance.now() - startMs < 2_000);
      await until("the callee is aborted", () => reason !== undefined);
      ok(reason instanceof CallError);
      // The channel is fine.
      b.onCall = () => Promise.resolve();
      await a.call(b, "quick");
    });
  });

  test("[1.4a] Network: leaving the loop or aborting the signal cancels the call at the callee", async () => {
    const [a, b] = [make(), make()];
    let aborts = 0;
    b.onCall = async (call) => {
      await call.send(utf8("first"));
      await new Promise((resolve) => call.signal.addEventListener("abort", resolve));
      aborts++;
    };
    await withNodes([a, b], async () => {
      await a.dial(b);
      for await (const message of a.network.call(b.id, "watch", new Uint8Array(0), { timeoutMs: 30_000 })) {
        strictEqual(fromUtf8(message), "first");
        break;
      }
      await until("the callee is aborted", () => aborts === 1);
      const aborter = new AbortController();
      const call = a.network.call(b.id, "watch", new Uint8Array(0), { timeoutMs: 30_000, signal: aborter.signal });
      await rejectsWith(
        (async () => {
          for await (const _ of call) setTimeout(() => aborter.abort(), 20);
        })(),
        "cancelled",
      );
      await until("the callee is aborted", () => aborts === 2);
      const before = a.network.call(b.id, "watch", new Uint8Array(0), {
        timeoutMs: 1_000,
        signal: AbortSignal.abort(),
      });
      await rejectsWith(before[Symbol.asyncIterator]().next(), "cancelled");
    });
  });

  test("[1.4a] Network: the callee's error code and text reach the caller, other failures stay inside", async () => {
    const [a, b] = [make(), make()];
    b.onCall = async (call) => {
      if (call.method === "coded") throw new CallError("not-a-member", "Say hello first");
      if (call.method === "midway") {
        await call.send(utf8("one"));
        throw new CallError("gone-wrong", "Second half is missing");
      }
      throw new Error("secret detail");
    };
    await withNodes([a, b], async () => {
      await a.dial(b);
      await rejects(a.call(b, "coded"), { name: "CallError", code: "not-a-member", message: "Say hello first" });
      const got: string[] = [];
      await rejectsWith(
        (async () => {
          for await (const one of a.network.call(b.id, "midway", new Uint8Array(0), { timeoutMs: 5_000 })) {
            got.push(fromUtf8(one));
          }
        })(),
        "gone-wrong",
      );
      deepStrictEqual(got, ["one"]);
      await rejects(a.call(b, "broken"), (error) => {
        ok(error instanceof CallError && error.code === "internal" && !error.message.includes("secret"));
        return true;
      });
    });
  });

  test("[1.4a] Network: calls run at once up to the limit per peer, and are refused beyond it", async () => {
    const [a, b] = [make(), make()];
    let release!: () => void;
    const released = new Promise<void>((resolve) => release = resolve);
    let running = 0;
    let peak = 0;
    b.onCall = async (call) => {
      peak = Math.max(peak, ++running);
      await released;
      running--;
      await call.send(call.body);
    };
    await withNodes([a, b], async () => {
      await a.dial(b);
      const extra = 8;
      const calls = Array.from(
        { length: LIMITS.inboundCallsPerPeerMax + extra },
        (_, i) => a.call(b, "wait", utf8(`${i}`)).then(([one]) => fromUtf8(one!), (error) => error.code as string),
      );
      await until("all slots are taken", () => running === LIMITS.inboundCallsPerPeerMax);
      await until("the rest is refused", () => b.refused.length === extra);
      release();
      const answers = await Promise.all(calls);
      strictEqual(answers.filter((answer) => answer === "overloaded").length, extra);
      answers.forEach((answer, i) => answer === "overloaded" || strictEqual(answer, `${i}`));
      strictEqual(peak, LIMITS.inboundCallsPerPeerMax);
      deepStrictEqual(await a.call(b, "wait", utf8("again")), [utf8("again")]);
    });
  });

  test("[2.2d] Network: hangUp() closes at both ends and fails what is under way", async () => {
    const [a, b] = [make(), make()];
    let aborted = false;
    b.onCall = async (call) => {
      await call.send(utf8("first"));
      await new Promise((resolve) => call.signal.addEventListener("abort", resolve));
      aborted = true;
    };
    await withNodes([a, b], async () => {
      await a.dial(b);
      await until("b sees a", () => b.opened.length === 1);
      await rejectsWith(
        (async () => {
          for await (const _ of a.network.call(b.id, "hold", new Uint8Array(0), { timeoutMs: 10_000 })) {
            await b.network.hangUp(a.id, "test");
          }
        })(),
        "unreachable",
      );
      await until("both know", () => a.gone.length === 1 && b.gone.length === 1);
      deepStrictEqual(b.gone, [{ nodeId: a.id, reason: "test" }]);
      strictEqual(a.gone[0]!.nodeId, b.id);
      await until("the callee is aborted", () => aborted);
      deepStrictEqual([a.network.peers(), b.network.peers()], [[], []]);
      await rejectsWith(a.call(b, "hold"), "unreachable");
      await b.network.hangUp(a.id, "again");
      strictEqual(b.gone.length, 1);
      await a.dial(b);
      strictEqual(a.opened.length, 2);
    });
  });

  test("[2.2d] Network: a node that stopped is gone, and one that came back with its key is dialed again", async () => {
    const a = make();
    const b = make();
    await withNodes([a, b], async () => {
      await a.dial(b);
      const address = b.address;
      await b.network.stop();
      await until("a knows", () => a.gone.length === 1);
      await rejectsWith(a.dial(address, 700), "unreachable", "timeout");
      const again = make({ keyPair: b.keyPair });
      again.onCall = (call) => call.send(utf8("back"));
      await withNodes([again], async () => {
        await a.dial(again);
        deepStrictEqual(await a.call(again, "any"), [utf8("back")]);
        strictEqual(a.opened.length, 2);
      });
    });
  });

  test("[2.2d] Network: a node restarted while its old channel seems open takes that channel's place", async () => {
    const [a, b] = [make(), make()];
    await withNodes([a, b], async () => {
      await b.dial(a);
      await until("a sees b", () => a.opened.length === 1);
      // The same key in another process, as after a crash that nobody noticed.
      const again = make({ keyPair: b.keyPair });
      again.onCall = (call) => call.send(utf8("back"));
      await withNodes([again], async () => {
        await again.dial(a);
        await until("a sees it", () => a.opened.length === 2);
        deepStrictEqual(a.gone, [{ nodeId: b.id, reason: "restarted" }]);
        strictEqual(a.network.peers().length, 1);
        deepStrictEqual(await a.call(again, "any"), [utf8("back")]);
      });
    });
  });

  test("[3.3b] Network: sendDatagram() carries bytes of any size up to the limit both ways, and from nobody else", async () => {
    const [a, b, c] = [make(), make(), make()];
    await withNodes([a, b, c], async () => {
      strictEqual(a.network.sendDatagram(b.id, utf8("too early")), false);
      await a.dial(b);
      await c.dial(b);
      await until("b sees both", () => b.opened.length === 2);
      for (const [from, to] of [[a, b], [b, a]] as const) {
        for (const size of [1, 40, 1_000, LIMITS.datagramBytesMax]) {
          const bytes = pattern(size);
          // Arrival is not promised: what is lost is sent again.
          await until(`${size} bytes arrive`, () => {
            const got = to.datagrams.some((one) => one.nodeId === from.id && equalBytes(one.bytes, bytes));
            if (!got) strictEqual(from.network.sendDatagram(to.id, bytes), true);
            return got;
          });
        }
        strictEqual(from.network.sendDatagram(to.id, new Uint8Array(LIMITS.datagramBytesMax + 1)), false);
      }
      deepStrictEqual([...new Set(b.datagrams.map((one) => one.nodeId))], [a.id]);
      deepStrictEqual(c.datagrams, []);
      strictEqual(a.network.sendDatagram(c.id, utf8("no channel")), false);
      ok(a.network.counters().bytesOut >= LIMITS.datagramBytesMax);
      await a.network.hangUp(b.id, "test");
      await until("both know", () => a.gone.length === 1 && b.gone.length === 1);
      deepStrictEqual([a, b].map((one) => one.network.sendDatagram(one === a ? b.id : a.id, utf8("late"))), [
        false,
        false,
      ]);
    });
  });

  test("[3.5b] Network: datagrams beyond the rate of a peer are dropped and counted, and calls go on", async () => {
    const [a, b] = [make(), make()];
    b.onCall = (call) => call.send(call.body);
    await withNodes([a, b], async () => {
      await a.dial(b);
      const limit = LIMITS.datagramsPerPeerPerSecondMax;
      const startMs = performance.now();
      for (let sent = 0; sent < 6 * limit; sent += 100) {
        for (let i = 0; i < 100; i++) a.network.sendDatagram(b.id, pattern(20));
        await sleep(2);
      }
      await until("the flood is told of", () => b.refused.includes("datagram-flood"));
      deepStrictEqual(await a.call(b, "echo", utf8("x")), [utf8("x")]);
      const seconds = (performance.now() - startMs) / 1_000;
      ok(b.datagrams.length <= 2 * limit + seconds * limit, `${b.datagrams.length} came in ${seconds} s`);
      ok(b.refused.length <= 1 + seconds, "the flood is told of once a second");
      deepStrictEqual([a.gone, b.gone], [[], []]);
    });
  });

  test("[2.2b] Network: rotateLeaf() leaves channels and streams alone", async () => {
    const [a, b, c] = [make(), make(), make()];
    b.onCall = async (call) => {
      for (let i = 0; i < 40; i++) {
        await call.send(utf8(`${i}`));
        await sleep(5);
      }
    };
    await withNodes([a, b, c], async () => {
      await a.dial(b);
      let got = 0;
      for await (const message of a.network.call(b.id, "long", new Uint8Array(0), { timeoutMs: 10_000 })) {
        strictEqual(fromUtf8(message), `${got++}`);
        if (got === 10) await b.network.rotateLeaf();
        if (got === 20) await c.dial(b);
      }
      strictEqual(got, 40);
      deepStrictEqual([a.gone, b.gone], [[], []]);
    });
  });

  test("Network: stop() twice is one stop, and ends calls, channels and dials", async () => {
    const [a, b] = [make(), make()];
    b.onCall = (call) => new Promise((resolve) => call.signal.addEventListener("abort", () => resolve()));
    await withNodes([a, b], async () => {
      await a.dial(b);
      const call = a.call(b, "hold");
      call.catch(() => {});
      await sleep(50);
      await Promise.all([b.network.stop(), b.network.stop()]);
      await rejectsWith(call, "unreachable");
      await until("a knows", () => a.gone.length === 1);
      await rejectsWith(b.dial(a.address), "unreachable");
      await rejects(b.network.start());
    });
    await a.network.stop();
  });
}

/** Bytes that a shifted or repeated piece would not match. */
export function pattern(length: number): Uint8Array {
  const out = new Uint8Array(length);
  let state = 0x12345678;
  for (let i = 0; i < length; i++) {
    state = Math.imul(state, 1664525) + 1013904223 | 0;
    out[i] = state >>> 24;
  }
  return out;
}
