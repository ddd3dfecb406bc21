/** The driver of the agent: races between start, stop and what the network tells; bounds; errors. Real agent and store. */

import assert from "node:assert/strict";
import { LOCAL } from "../../src/agent/access.ts";
import { Agent } from "../../src/agent/agent.ts";
import type { AgentEffect, AgentEvent } from "../../src/agent/effects.ts";
import { decodeCbor, encodeCbor } from "../../src/core/codec.ts";
import { keyPairFromSeed } from "../../src/core/crypto.ts";
import { nodeIdOf } from "../../src/core/ids.ts";
import { LIMITS } from "../../src/core/limits.ts";
import { seededRng } from "../../src/core/rng.ts";
import type { Discovery } from "../../src/edge/discovery/mod.ts";
import { openStore } from "../../src/edge/disk/store.ts";
import { measureCapabilities } from "../../src/edge/process/host.ts";
import { ControlFailed, piecesOf, Runtime, type RuntimeOptions, StartFailed } from "../../src/edge/runtime.ts";
import { CallError, type InboundCall, type Network, type NetworkHandlers, type Peer } from "../../src/ports/network.ts";
import type { Store } from "../../src/ports/storage.ts";

const PEER_KEY = keyPairFromSeed(new Uint8Array(32).fill(7));

/** A network that does what a test says, when it says so: the real one cannot be made to be late on purpose. */
class ScriptedNetwork implements Network {
  state = "new";
  readonly starting = Promise.withResolvers<void>();
  readonly open: Peer[] = [];
  answer: () => AsyncIterable<Uint8Array> = async function* () {};
  constructor(readonly nodeId: string, readonly handlers: NetworkHandlers) {}
  addresses(): readonly string[] {
    return this.state === "started" ? [`/ip4/127.0.0.1/tcp/4871/p2p/${this.nodeId}`] : [];
  }
  async start(): Promise<void> {
    this.state = "starting";
    await this.starting.promise;
    this.state = "started";
  }
  stop(): Promise<void> {
    assert.notEqual(this.state, "starting", "a network is not stopped while it starts");
    this.state = "stopped";
    return Promise.resolve();
  }
  dial(): Promise<Peer> {
    return Promise.reject(new CallError("unreachable", "nobody"));
  }
  hangUp(): Promise<void> {
    return Promise.resolve();
  }
  peers(): readonly Peer[] {
    return this.open;
  }
  call(): AsyncIterable<Uint8Array> {
    return this.answer();
  }
  sendDatagram(_nodeId: string, _bytes: Uint8Array): boolean {
    return false;
  }
  rotateLeaf(): Promise<void> {
    return Promise.resolve();
  }
  counters() {
    return { bytesIn: 0, bytesOut: 0, callsIn: 0, callsOut: 0, refused: new Map() };
  }
  /** Another node opens a channel. */
  connect(): Peer {
    const peer: Peer = {
      nodeId: nodeIdOf(PEER_KEY.publicKey),
      publicKey: PEER_KEY.publicKey,
      remoteAddress: "/ip4/127.0.0.1/tcp/9",
      transport: "memory",
      direction: "inbound",
      openedMs: Date.now(),
      channelBinding: undefined,
    };
    this.open.push(peer);
    this.handlers.onPeer(peer);
    return peer;
  }
}

/** A founder in a temporary folder. */
class Rig implements AsyncDisposable {
  readonly dir = Deno.makeTempDirSync({ prefix: "runtime-" });
  readonly store: Store = openStore(this.dir);
  readonly networks: ScriptedNetwork[] = [];
  readonly fatal: unknown[] = [];
  readonly lines: string[] = [];
  /** Whether networks come up as soon as they are started. */
  prompt = true;
  full = false;
  /** Transactions of the store: the keys of each. */
  readonly applied: (readonly string[])[] = [];
  runCommand: RuntimeOptions["runCommand"] = async function* () {};
  readonly agent: Agent;
  readonly runtime: Runtime;

  constructor() {
    this.agent = new Agent({
      config: {
        name: "alpha",
        role: "auto",
        pool: "default",
        version: "0.1.0",
        addresses: [],
        credentialLifetimeMs: 86_400_000,
      },
      entries: this.store.load(),
      rng: seededRng(1),
      entropy: { bytes: (length) => crypto.getRandomValues(new Uint8Array(length)) },
    });
    const discovery = {
      start() {},
      stop: () => Promise.resolve(),
      announce() {},
      setMode() {},
      mayDial: () => ({ ok: true }),
    } as unknown as Discovery;
    this.runtime = new Runtime({
      agent: this.agent,
      store: {
        load: () => this.store.load(),
        apply: (puts) => {
          if (this.full) throw new Error("database or disk is full");
          this.applied.push(puts.map(([key]) => key));
          this.store.apply(puts);
        },
        close: () => this.store.close(),
      },
      audit: { append() {} },
      log: { log: (level, _component, event, message) => void this.lines.push(`${level} ${event} ${message}`) },
      port: () => 4871,
      createNetwork: (settings, handlers) => {
        const network = new ScriptedNetwork(nodeIdOf(settings.keyPair.publicKey), handlers);
        this.networks.push(network);
        if (this.prompt) network.starting.resolve();
        return network;
      },
      createDiscovery: () => discovery,
      runCommand: (command, by, signal) => this.runCommand(command, by, signal),
      changed() {},
      fatal: (error) => void this.fatal.push(error),
      now: Date.now,
    });
    this.runtime.dispatch({ type: "start", nowMs: Date.now(), capabilities: measureCapabilities(this.dir) });
  }

  get network(): ScriptedNetwork {
    return this.networks.at(-1)!;
  }

  async form(): Promise<void> {
    await this.runtime.control({ verb: "init", name: "forest", approval: false }, LOCAL);
    await settle();
  }

  get sessions(): number {
    return this.agent.inspect().sessions.size;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const one of this.networks) one.starting.resolve();
    await this.runtime.stop();
    this.store.close();
    Deno.removeSync(this.dir, { recursive: true });
  }
}

function settle(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 5));
}

/** A call as the network hands it over. */
function callOf(peer: Peer, method: string, body: Uint8Array, signal: AbortSignal, sent: Uint8Array[]): InboundCall {
  return { peer, method, body, timeoutMs: 10_000, signal, send: (message) => Promise.resolve(void sent.push(message)) };
}

/** The body of a signed command for the node itself. */
async function signedCommand(rig: Rig): Promise<Uint8Array> {
  const request = { verb: "sign-command", node: "alpha", command: "ping", args: {}, ttlMs: 60_000 } as const;
  return (await rig.runtime.control(request, LOCAL) as { body: Uint8Array }).body;
}

function coded(code: string): (error: unknown) => boolean {
  return (error) => error instanceof CallError && error.code === code;
}

Deno.test("[9.1a] a network that is replaced says nothing any more, and the agent hears that its peers are gone", async () => {
  await using rig = new Rig();
  await rig.form();
  const old = rig.network;
  const peer = old.connect();
  assert.equal(rig.sessions, 1);
  await rig.runtime.restartNetwork();
  assert.equal(rig.sessions, 0);
  assert.equal(old.state, "stopped");
  const fresh = rig.network;
  assert.notEqual(fresh, old);
  fresh.connect();
  // The old one is late with what it has to tell.
  old.handlers.onPeerGone(peer.nodeId, "stopped");
  assert.equal(rig.sessions, 1, "the channel of the present one counts");
  const late = old.handlers.onCall(callOf(peer, "join.hello", encodeCbor({}), AbortSignal.abort(), []));
  await assert.rejects(late, coded("unreachable"));
  old.handlers.onPeer(peer);
  assert.deepEqual(rig.fatal, []);
});

Deno.test("[9.1e] stop while the network starts waits for it and leaves it stopped", async () => {
  const rig = new Rig();
  rig.prompt = false;
  await rig.runtime.control({ verb: "init", name: "forest", approval: false }, LOCAL);
  await settle();
  assert.equal(rig.network.state, "starting");
  const stopped = rig.runtime.stop();
  await settle();
  rig.network.starting.resolve();
  await stopped;
  assert.equal(rig.network.state, "stopped");
  await rig[Symbol.asyncDispose]();
  assert.deepEqual(rig.fatal, []);
});

Deno.test("[9.1e] a start that fails after its end was asked for is no failure; one that fails by itself is", async () => {
  const rig = new Rig();
  rig.prompt = false;
  await rig.runtime.control({ verb: "init", name: "forest", approval: false }, LOCAL);
  await settle();
  const stopped = rig.runtime.stop();
  rig.network.starting.reject(new Error("interrupted"));
  rig.network.state = "stopped";
  await stopped;
  assert.deepEqual(rig.fatal, []);
  await rig[Symbol.asyncDispose]();
  await using other = new Rig();
  other.prompt = false;
  await other.runtime.control({ verb: "init", name: "forest", approval: false }, LOCAL);
  await settle();
  other.network.starting.reject(new Error("AddrInUse: taken"));
  other.network.state = "stopped";
  await settle();
  assert.ok(other.fatal[0] instanceof StartFailed && /--port/.test(other.fatal[0].cure));
});

Deno.test("[9.1b] a restart of the network that fails is told to who asked, and ends nothing", async () => {
  await using rig = new Rig();
  await rig.form();
  rig.prompt = false;
  const restarted = rig.runtime.restartNetwork();
  await settle();
  rig.network.starting.reject(new Error("AddrNotAvailable"));
  rig.network.state = "stopped";
  await assert.rejects(restarted, StartFailed);
  assert.deepEqual(rig.fatal, []);
  rig.prompt = true;
  await rig.runtime.restartNetwork();
  assert.equal(rig.network.state, "started");
  assert.equal(rig.networks.length, 3);
});

Deno.test("[9.1e] requests under way at the stop are answered, later ones as well", async () => {
  const rig = new Rig();
  await rig.form();
  rig.network.connect();
  const hung = Promise.withResolvers<void>();
  rig.runCommand = async function* () {
    await hung.promise;
    yield "too late\n";
  };
  const sent: Uint8Array[] = [];
  const gone = new AbortController();
  const served = rig.network.handlers.onCall(
    callOf(rig.network.open[0]!, "exec", await signedCommand(rig), gone.signal, sent),
  );
  await rig.runtime.stop();
  await assert.rejects(
    rig.runtime.control({ verb: "bootstrap-retry" }, LOCAL),
    (error) => error instanceof ControlFailed && error.error.code === "stopping",
  );
  await rig.runtime.restartNetwork();
  assert.equal(rig.networks.length, 1, "nothing comes up again");
  gone.abort();
  hung.resolve();
  await served;
  await rig[Symbol.asyncDispose]();
});

Deno.test("[1.3d] [9.1c] a disk that is full ends the node before an answer leaves that relies on it", async () => {
  await using rig = new Rig();
  await rig.form();
  rig.full = true;
  const asked = rig.runtime.control({ verb: "invite-create" }, LOCAL);
  const answered = asked.then(() => "answered", (error: ControlFailed) => error.error.code);
  await settle();
  assert.equal(rig.fatal.length, 1);
  assert.match(String(rig.fatal[0]), /full/);
  await rig.runtime.stop();
  assert.equal(await answered, "stopping", "no invite was given that nobody would remember");
});

Deno.test("[3.1b] what many requests want stored becomes one transaction, and no answer leaves before it", async () => {
  await using rig = new Rig();
  await rig.form();
  const before = rig.applied.length;
  let answered = 0;
  const asked = Array.from({ length: 40 }, async () => {
    await rig.runtime.control({ verb: "invite-create" }, LOCAL);
    answered += 1;
  });
  await settle();
  await Promise.all(asked);
  const applied = rig.applied.slice(before);
  assert.equal(applied.flat().filter((key) => key.startsWith("grant/")).length, 40, "each is stored");
  assert.ok(applied.length <= 4, `${applied.length} transactions for 40 requests`);
  // A disk that fails takes all of them along: what was not stored was not answered.
  rig.full = true;
  const refused = Array.from(
    { length: 10 },
    () => rig.runtime.control({ verb: "invite-create" }, LOCAL).then(() => 1, () => 0),
  );
  await settle();
  await rig.runtime.stop();
  assert.deepEqual(await Promise.all(refused), Array(10).fill(0));
  assert.equal(answered, 40);
});

/** A runtime whose agent says what a test wants, and what became of it, in order: a real one cannot be told when. */
class ScriptedRig implements AsyncDisposable {
  readonly done: string[] = [];
  readonly fatal: unknown[] = [];
  full = false;
  readonly runtime: Runtime;

  constructor(steps: (events: readonly AgentEvent[]) => readonly AgentEffect[]) {
    const network = new ScriptedNetwork("", {} as NetworkHandlers);
    network.sendDatagram = (_to, bytes) => Boolean(this.done.push(`datagram ${bytes}`));
    network.starting.resolve();
    this.runtime = new Runtime({
      agent: { steps, isMember: false } as unknown as Agent,
      store: {
        load: () => new Map(),
        apply: (puts) => {
          if (this.full) throw new Error("database or disk is full");
          this.done.push(`store ${puts.map(([key]) => key)}`);
        },
        close() {},
      },
      audit: { append() {} },
      log: { log() {} },
      port: () => 4871,
      createNetwork: () => network,
      createDiscovery: () => ({ start() {}, stop: () => Promise.resolve(), announce() {}, setMode() {} }) as never,
      runCommand: async function* () {},
      changed() {},
      fatal: (error) => void this.fatal.push(error),
      now: Date.now,
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.runtime.stop();
  }
}

Deno.test("[1.3d] [3.1b] what leaves before the disk is written is what may, and nothing else happens before it is", async () => {
  const datagram = (...bytes: number[]) => ({ type: "datagram", nodeId: "", bytes: Uint8Array.from(bytes) }) as const;
  const rigFor = async (full: boolean) => {
    const rig: ScriptedRig = new ScriptedRig((events) => {
      rig.done.push(`step ${events.map((one) => one.type)}`);
      return events.flatMap((event): AgentEffect[] => {
        if (event.type === "start") {
          const zeros = new Uint8Array(32);
          return [{ type: "start-network", seed: zeros, networkId: zeros, discoverySecret: zeros, trusted: [] }];
        }
        if (event.type !== "control") return [];
        const { controlId } = event;
        return [
          datagram(1),
          { type: "persist", puts: [["a", new Uint8Array(1)]], then: [datagram(2)] },
          datagram(3),
          { type: "persist", puts: [["b", new Uint8Array(1)]], then: [] },
          { type: "control-reply", controlId, result: { ok: true, value: "done" } },
        ];
      });
    });
    rig.runtime.dispatch({ type: "start", nowMs: Date.now(), capabilities: measureCapabilities(".") });
    while (!rig.done.includes("step addresses")) await settle();
    // Nothing comes any more: the next event is handed over at once.
    await settle();
    rig.full = full;
    rig.done.length = 0;
    return rig;
  };
  const ask = (rig: ScriptedRig) =>
    rig.runtime.control({ verb: "status" } as never, LOCAL).then(
      () => void rig.done.push("answer"),
      (error: ControlFailed) => void rig.done.push(error.error.code),
    );
  await using rig = await rigFor(false);
  const asked = ask(rig);
  // Something else comes before the loop turns: it waits for the disk as well.
  rig.runtime.dispatch({ type: "wake", nowMs: Date.now() });
  assert.deepEqual(rig.done, ["step control", "datagram 1"]);
  await asked;
  await settle();
  assert.deepEqual(rig.done.slice(2), ["store a,b", "datagram 2", "datagram 3", "step wake", "answer"]);

  // At the stop it is still stored, and who asked is answered.
  rig.done.length = 0;
  const last = [ask(rig), ask(rig)];
  await rig.runtime.stop();
  await Promise.all(last);
  const turn = ["step control", "datagram 1", "store a,b", "datagram 2", "datagram 3"];
  assert.deepEqual(rig.done, [...turn, ...turn, "answer", "answer"]);

  await using broken = await rigFor(true);
  const refused = ask(broken);
  broken.runtime.dispatch({ type: "wake", nowMs: Date.now() });
  await settle();
  assert.equal(broken.fatal.length, 1);
  await broken.runtime.stop();
  await refused;
  assert.deepEqual(broken.done, ["step control", "datagram 1", "stopping"]);
});

Deno.test("[1.4d] a command's output is streamed in frames, bounded, and ends with who asked", async () => {
  await using rig = new Rig();
  await rig.form();
  const peer = rig.network.connect();
  const exec = async (sent: Uint8Array[], signal: AbortSignal = new AbortController().signal) =>
    rig.network.handlers.onCall(callOf(peer, "exec", await signedCommand(rig), signal, sent));
  // One text that no frame can hold, of characters that must not be cut in two.
  const whole = "x" + "🍄".repeat(400_000);
  rig.runCommand = async function* () {
    yield whole;
  };
  let sent: Uint8Array[] = [];
  await exec(sent);
  assert.ok(sent.length > 2 && sent.every((one) => one.length < LIMITS.frameBytesMax));
  const texts = sent.map((one) => (decodeCbor(one) as { o?: string }).o ?? "");
  assert.equal(texts.join(""), whole);
  assert.ok(texts.every((one) => one.isWellFormed()));
  // One without end.
  rig.runCommand = async function* () {
    while (true) yield "y".repeat(100_000);
  };
  sent = [];
  await assert.rejects(exec(sent), coded("overloaded"));
  assert.ok(sent.length <= 2 * LIMITS.commandOutputBytesMax / 65_536 + 2);
  // One that waits, whose asker goes away.
  const begun = Promise.withResolvers<void>();
  const finished = Promise.withResolvers<void>();
  rig.runCommand = async function* (_command, _by, signal) {
    try {
      yield "first\n";
      await new Promise<void>((resolve) => {
        signal.addEventListener("abort", () => resolve(), { once: true });
        begun.resolve();
      });
    } finally {
      finished.resolve();
    }
  };
  const gone = new AbortController();
  const served = exec([], gone.signal);
  await begun.promise;
  gone.abort();
  await served;
  // Never, where the command goes on: the test ends with that.
  await finished.promise;
  // One that fails says so, and how.
  rig.runCommand = async function* () {
    yield "";
    throw new Error("no such thing");
  };
  await assert.rejects(exec([]), coded("command-failed"));
});

Deno.test("pieces of a text join to it again", () => {
  for (const text of ["", "a", "🍄".repeat(70_000), "a" + "🍄".repeat(70_000), "\ud800".repeat(66_000)]) {
    const pieces = [...piecesOf(text)];
    assert.equal(pieces.join(""), text);
    assert.ok(pieces.every((one) => one.length > 0 && one.length <= 65_536));
  }
});

Deno.test("[10.5e] reasons of refusal that come from outside do not fill the memory", async () => {
  await using rig = new Rig();
  await rig.form();
  for (let i = 0; i < 10_000; i++) rig.network.handlers.onRefused(`reason-${i}`, "/ip4/192.0.2.1/udp/1");
  rig.network.handlers.onRefused("reason-1", "/ip4/192.0.2.1/udp/1");
  assert.ok(rig.runtime.refusals.size <= 129, `${rig.runtime.refusals.size} labels`);
  assert.equal(rig.runtime.refusals.get("reason-1"), 2);
  assert.equal([...rig.runtime.refusals.values()].reduce((sum, one) => sum + one, 0), 10_001);
});

Deno.test("[10.5e] thousands of calls that are cancelled at once leave nothing behind", async () => {
  await using rig = new Rig();
  await rig.form();
  const peer = rig.network.connect();
  const sent: Uint8Array[] = [];
  const served: Promise<unknown>[] = [];
  for (let i = 0; i < 5_000; i++) {
    const gone = new AbortController();
    const method = i % 2 === 0 ? "join.hello" : "no-such-method";
    const call = callOf(peer, method, encodeCbor({ v: 1, n: new Uint8Array(32) }), gone.signal, sent);
    served.push(rig.network.handlers.onCall(call).catch((error) => error));
    gone.abort();
  }
  const ends = await Promise.all(served);
  assert.equal(ends.length, 5_000, "each has ended");
  await settle();
  assert.equal(rig.runtime.queued, 0);
  assert.deepEqual(rig.fatal, []);
});
