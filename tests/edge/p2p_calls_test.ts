/** Calls over streams that are kept for the next one, on pipes in memory. @module */

import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import { utf8 } from "../../src/core/bytes.ts";
import type { InboundCall, Peer } from "../../src/ports/network.ts";
import { Deadlines } from "../../src/edge/deadline.ts";
import type { ByteStream } from "../../src/edge/p2p/byte_stream.ts";
import { callOver, KeptStreams, serveCalls } from "../../src/edge/p2p/rpc.ts";

/** One end of a stream in memory. */
class End implements ByteStream {
  other!: End;
  readonly #pieces: (Uint8Array | undefined)[] = [];
  #waiting: ((piece: Uint8Array | undefined) => void) | undefined;
  #ended = false;

  take(piece: Uint8Array | undefined): void {
    if (this.#ended) return;
    this.#ended = piece === undefined;
    if (!this.#waiting) return void this.#pieces.push(piece);
    this.#waiting(piece);
    this.#waiting = undefined;
  }

  read(): Promise<Uint8Array | undefined> {
    if (this.#pieces.length > 0) return Promise.resolve(this.#pieces.shift());
    if (this.#ended) return Promise.resolve(undefined);
    ok(!this.#waiting, "one read at a time");
    return new Promise((resolve) => this.#waiting = resolve);
  }

  write(bytes: Uint8Array): Promise<void> {
    this.other.take(bytes.slice());
    return Promise.resolve();
  }

  closeWrite(): Promise<void> {
    this.other.take(undefined);
    return Promise.resolve();
  }

  reset(): void {
    this.other.take(undefined);
    this.take(undefined);
  }
}

/** A caller and a callee, and the streams between them. */
class World implements Disposable {
  readonly deadlines = new Deadlines();
  readonly kept = new KeptStreams(this.deadlines);
  readonly callees: End[] = [];
  readonly counter = { bytesIn: 0, bytesOut: 0 };
  readonly #channel = new AbortController();
  served = 0;
  open = 0;
  onCall = async (call: InboundCall): Promise<void> => await call.send(call.body);

  async ask(text: string, timeoutMs = 5_000, signal?: AbortSignal): Promise<string[]> {
    const find = () => ({ kept: this.kept, open: () => Promise.resolve(this.#stream()) });
    const options = { timeoutMs, counter: this.counter, deadlines: this.deadlines, ...(signal ? { signal } : {}) };
    const answers: string[] = [];
    for await (const one of callOver(find, "echo", utf8(text), options)) answers.push(new TextDecoder().decode(one));
    return answers;
  }

  #stream(): End {
    const [caller, callee] = [new End(), new End()];
    [caller.other, callee.other] = [callee, caller];
    this.callees.push(callee);
    void serveCalls(callee, {
      peer: {} as Peer,
      onCall: (call) => {
        this.served += 1;
        return this.onCall(call);
      },
      admit: () => (this.open += 1) > 0,
      release: () => this.open -= 1,
      onRefused: () => {},
      counter: { bytesIn: 0, bytesOut: 0 },
      deadlines: this.deadlines,
      signal: this.#channel.signal,
    });
    return caller;
  }

  [Symbol.dispose](): void {
    this.deadlines.close();
  }
}

Deno.test("[1.4a] calls: those that follow each other share a stream; it counts as a call only while there is one", async () => {
  using world = new World();
  for (let i = 0; i < 20; i++) deepStrictEqual(await world.ask(`${i}`), [`${i}`]);
  strictEqual(world.served, 20);
  // The first one closes its stream: nobody knows yet that there is more to come.
  strictEqual(world.callees.length, 2);
  await Promise.all(Array.from({ length: 10 }, (_, i) => world.ask(`${i}`)));
  strictEqual(world.callees.length, 11);
  await Promise.all(Array.from({ length: 4 }, (_, i) => world.ask(`${i}`)));
  strictEqual(world.callees.length, 11, "four are kept");
  await new Promise((resolve) => setTimeout(resolve, 0));
  strictEqual(world.open, 0);
});

Deno.test("[1.4a] calls: a stream that the callee closed is not used; a request that passed its end goes over another", async () => {
  using world = new World();
  for (let i = 0; i < 3; i++) await world.ask("warm");
  strictEqual(world.callees.length, 2);
  world.callees[1]!.reset();
  await new Promise((resolve) => setTimeout(resolve, 0));
  deepStrictEqual(await world.ask("a"), ["a"]);
  strictEqual(world.callees.length, 3);
  // Its end is on the way already, and not read yet.
  world.callees[2]!.reset();
  deepStrictEqual(await world.ask("b"), ["b"]);
  strictEqual(world.callees.length, 4);
  strictEqual(world.served, 5);
});

Deno.test("[1.4a] calls: an error of the callee leaves the stream in service, a cancelled call does not", async () => {
  using world = new World();
  for (let i = 0; i < 3; i++) await world.ask("warm");
  world.onCall = () => Promise.reject(new Error("inside"));
  await rejects(world.ask("x"), { code: "internal" });
  world.onCall = async (call) => await call.send(call.body);
  deepStrictEqual(await world.ask("y"), ["y"]);
  strictEqual(world.callees.length, 2);
  world.onCall = (call) => new Promise((resolve) => call.signal.addEventListener("abort", () => resolve()));
  const aborter = new AbortController();
  const asked = world.ask("z", 5_000, aborter.signal);
  while (world.open === 0) await new Promise((resolve) => setTimeout(resolve, 0));
  aborter.abort();
  await rejects(asked, { code: "cancelled" });
  await rejects(world.ask("slow", 20), { code: "timeout" });
  world.onCall = async (call) => await call.send(call.body);
  deepStrictEqual(await world.ask("w"), ["w"]);
  strictEqual(world.callees.length, 4);
});
