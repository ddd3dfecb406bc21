/** How channels begin, last and end: rotation, silence, killed processes, addresses. @module */

import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import { equalBytes, toHex, utf8 } from "../../src/core/bytes.ts";
import { keyPairFromSeed } from "../../src/core/crypto.ts";
import { formatAddress, nodeIdOf, parseAddress } from "../../src/core/ids.ts";
import { createLeaf } from "../../src/edge/p2p/certificate.ts";
import { alpnOf, releasePorts } from "../../src/edge/p2p/quic_transport.ts";
import { sleep, until } from "../compliance/network.ts";
import { LISTEN, makeNetwork, settle, warmUp } from "../testkit/p2p.ts";
import { RawDialer } from "../testkit/quic_raw.ts";

await warmUp();

const NETWORK_ID = new Uint8Array(32).fill(0x11);

/** Runs a body and stops the networks whatever happened. */
async function withNetworks(networks: readonly ReturnType<typeof makeNetwork>[], body: () => Promise<void>) {
  try {
    for (const network of networks) await network.start();
    await body();
  } finally {
    for (const network of networks) await network.stop();
    await settle();
  }
}

async function echo(from: ReturnType<typeof makeNetwork>, nodeId: string, timeoutMs = 5_000): Promise<void> {
  const got: Uint8Array[] = [];
  for await (const one of from.call(nodeId, "echo", utf8("hello"), { timeoutMs })) got.push(one);
  deepStrictEqual(got, [utf8("hello")]);
}

/** Another process with a network, and the lines that it prints. */
class Child implements AsyncDisposable {
  readonly lines: string[] = [];
  readonly #process: Deno.ChildProcess;
  readonly #reading: Promise<void>;
  #over = false;

  constructor(args: readonly string[]) {
    this.#process = new Deno.Command(Deno.execPath(), {
      args: [
        "run",
        "--no-check",
        "-A",
        "--unstable-net",
        new URL("../testkit/p2p_child.ts", import.meta.url).pathname,
        ...args,
      ],
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    this.#reading = this.#read();
  }

  async #read(): Promise<void> {
    let rest = "";
    for await (const piece of this.#process.stdout.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + piece).split("\n");
      rest = lines.pop()!;
      this.lines.push(...lines);
    }
  }

  async kill(): Promise<void> {
    if (this.#over) return;
    this.#over = true;
    this.#process.kill("SIGKILL");
    await this.#process.status;
    await this.#reading;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}

Deno.test("[2.2b] QUIC: after rotateLeaf() new channels see the new leaf while old ones keep theirs", async () => {
  const node = makeNetwork({}, { onCall: (call) => call.send(call.body) });
  const old = makeNetwork({ listen: [] });
  await withNetworks([node, old], async () => {
    const address = node.addresses()[0]!;
    await old.dial(address, { signal: AbortSignal.timeout(5_000) });
    const hashes: string[] = [];
    for (let i = 0; i < 3; i++) {
      using dialer = await RawDialer.connect(address);
      hashes.push(toHex((await dialer.challenge(dialer.hello())).leafHash));
      if (i > 0) await node.rotateLeaf();
      await echo(old, node.nodeId);
    }
    strictEqual(hashes[0], hashes[1], "one leaf serves until it is rotated");
    ok(hashes[1] !== hashes[2], "the new leaf is in service");
    strictEqual(old.peers().length, 1);
  });
});

Deno.test("[2.2b] QUIC: an expired leaf is refused, and a node replaces its own before that", async () => {
  const pair = keyPairFromSeed(new Uint8Array(32).fill(8));
  const dialer = makeNetwork({ listen: [] });
  // Short-lived: without a rotation by itself the second dial would meet an expired certificate.
  const node = makeNetwork({ leafLifetimeMs: 1_200 });
  await withNetworks([dialer, node], async () => {
    const endpoint = new Deno.QuicEndpoint({ hostname: "127.0.0.1", port: 0 });
    const expired = createLeaf(pair, { networkId: NETWORK_ID, nowMs: Date.now() - 7_200_000, lifetimeMs: 3_600_000 });
    const listener = endpoint.listen({ cert: expired.cert, key: expired.key, alpnProtocols: [alpnOf(NETWORK_ID)] });
    const accepting = listener.incoming().then((incoming) => incoming.accept()).catch(() => {});
    const address = formatAddress({
      family: "ip4",
      host: "127.0.0.1",
      transport: "quic",
      port: endpoint.addr.port,
      nodeId: nodeIdOf(pair.publicKey),
    });
    await rejects(dialer.dial(address, { signal: AbortSignal.timeout(5_000) }), { code: "bad-certificate" });
    await accepting;
    endpoint.close();

    await dialer.dial(node.addresses()[0]!, { signal: AbortSignal.timeout(5_000) });
    await dialer.hangUp(node.nodeId, "test");
    await sleep(1_400);
    await dialer.dial(node.addresses()[0]!, { signal: AbortSignal.timeout(5_000) });
  });
});

for (const transport of ["quic", "tcp"] as const) {
  Deno.test(`[2.2d] ${transport}: a channel outlives silence of many idle timeouts`, async () => {
    const gone: string[] = [];
    const watch = { onPeerGone: (_: string, reason: string) => gone.push(reason) };
    const options = { listen: [LISTEN[transport]], transports: [transport], keepAliveMs: 150 } as const;
    const [a, b] = [
      makeNetwork(options, watch),
      makeNetwork(options, { ...watch, onCall: (call) => call.send(call.body) }),
    ];
    await withNetworks([a!, b!], async () => {
      await a!.dial(b!.addresses()[0]!, { signal: AbortSignal.timeout(5_000) });
      await sleep(2_000);
      deepStrictEqual(gone, []);
      await echo(a!, b!.nodeId);
    });
  });

  Deno.test(`[2.2d] ${transport}: a killed process is noticed, and taken back when it runs again`, async () => {
    const seed = toHex(crypto.getRandomValues(new Uint8Array(32)));
    const gone: string[] = [];
    const a = makeNetwork({ listen: [LISTEN[transport]], transports: [transport], keepAliveMs: 300 }, {
      onPeerGone: (nodeId) => gone.push(nodeId),
      onCall: (call) => call.send(call.body),
    });
    await withNetworks([a], async () => {
      await using child = new Child([seed, LISTEN[transport], transport, "300"]);
      await until("the child listens", () => child.lines.length > 0, 15_000);
      const address = child.lines[0]!;
      const { nodeId, port } = parseAddress(address)!;
      await a.dial(address, { signal: AbortSignal.timeout(5_000) });
      await echo(a, nodeId!);
      await child.kill();
      await until("the silence is noticed", () => gone.length === 1, 3_000);
      deepStrictEqual([gone, a.peers()], [[nodeId], []]);
      // The same key at the same address, and this time it dials.
      await using again = new Child([
        seed,
        LISTEN[transport].replace(/\/0\b/, `/${port}`),
        transport,
        "300",
        a.addresses()[0]!,
      ]);
      await until("it is back", () => a.peers().length === 1, 15_000);
      strictEqual(a.peers()[0]!.direction, "inbound");
      await echo(a, nodeId!);
      ok(again.lines[0]!.endsWith(nodeId!));
    });
  });
}

Deno.test("addresses(): both wildcards on one port give one socket that serves both families", async () => {
  const free = Deno.listenDatagram({ transport: "udp", hostname: "::", port: 0 });
  const { port } = free.addr as Deno.NetAddr;
  free.close();
  const node = makeNetwork({
    listen: [`/ip4/0.0.0.0/udp/${port}/quic-v1`, `/ip6/::/udp/${port}/quic-v1`, `/ip4/0.0.0.0/tcp/0`, `/ip6/::/tcp/0`],
    advertise: ["/dns/node.example/udp/4871/quic-v1"],
  }, { onCall: (call) => call.send(call.body) });
  const dialer = makeNetwork({ listen: [] });
  await withNetworks([node, dialer], async () => {
    const parsed = node.addresses().map((address) => parseAddress(address)!);
    strictEqual(node.addresses()[0], `/dns/node.example/udp/4871/quic-v1/p2p/${node.nodeId}`);
    ok(parsed.every(({ nodeId }) => nodeId === node.nodeId));
    ok(parsed.every(({ host, port }) => host !== "0.0.0.0" && host !== "::" && port > 0));
    const kinds = new Set(parsed.map(({ family, transport }) => `${family} ${transport}`));
    for (const kind of ["ip4 quic", "ip4 tcp"]) ok(kinds.has(kind), kind);
    const tcpPort = parsed.find(({ transport }) => transport === "tcp")!.port;
    for (
      const [address, seen] of [
        [`/ip4/127.0.0.1/udp/${port}/quic-v1/p2p/${node.nodeId}`, "/ip4/127.0.0.1/udp/"],
        [`/ip6/::1/udp/${port}/quic-v1/p2p/${node.nodeId}`, "/ip6/::1/udp/"],
        [`/dns4/localhost/udp/${port}/quic-v1/p2p/${node.nodeId}`, "/udp/"],
        [`/ip4/127.0.0.1/tcp/${tcpPort}/p2p/${node.nodeId}`, "/ip4/127.0.0.1/tcp/"],
        [`/ip6/::1/tcp/${tcpPort}`, "/ip6/::1/tcp/"],
      ] as const
    ) {
      await dialer.dial(address, { signal: AbortSignal.timeout(5_000) });
      await echo(dialer, node.nodeId);
      await until("the node sees it", () => node.peers().length === 1);
      ok(node.peers()[0]!.remoteAddress.includes(seen), `${node.peers()[0]!.remoteAddress} for ${address}`);
      await dialer.hangUp(node.nodeId, "next");
      await until("the node knows", () => node.peers().length === 0);
    }
  });
  releasePorts();
  await settle();
});

Deno.test("a network stops and another one starts on the same QUIC port, of another network too", async () => {
  const free = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
  const { port } = free.addr as Deno.NetAddr;
  free.close();
  for (const round of [1, 2, 3]) {
    const networkId = new Uint8Array(32).fill(round);
    const node = makeNetwork({ networkId, listen: [`/ip4/127.0.0.1/udp/${port}/quic-v1`] }, {
      onCall: (call) => call.send(call.body),
    });
    const dialer = makeNetwork({ networkId, listen: [] });
    const foreign = makeNetwork({ networkId: new Uint8Array(32).fill(9), listen: [] });
    await withNetworks([node, dialer, foreign], async () => {
      const address = `/ip4/127.0.0.1/udp/${port}/quic-v1/p2p/${node.nodeId}`;
      await dialer.dial(address, { signal: AbortSignal.timeout(5_000) });
      await echo(dialer, node.nodeId);
      await rejects(foreign.dial(address, { signal: AbortSignal.timeout(5_000) }));
    });
  }
  releasePorts();
  await settle();
});

Deno.test("start(): a taken port and a bad address are told in one line", async () => {
  const holder = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
  const { port } = holder.addr as Deno.NetAddr;
  const node = makeNetwork({ listen: [`/ip4/127.0.0.1/udp/${port}/quic-v1`] });
  await rejects(node.start(), (error) => {
    ok(error instanceof Error);
    ok(
      /^Cannot listen on "\/ip4\/127\.0\.0\.1\/udp\/\d+\/quic-v1": .*in use.*another port/.test(error.message),
      error.message,
    );
    ok(!error.message.includes("\n"));
    return true;
  });
  await node.stop();
  holder.close();
  for (const bad of ["nonsense", "/ip4/1.2.3/tcp/1", "/dns/a.example/tcp/1", "/ip4/0.0.0.0/udp/70000/quic-v1"]) {
    let message = "";
    try {
      makeNetwork({ listen: [bad] });
    } catch (error) {
      message = (error as Error).message;
    }
    ok(message.startsWith(`Cannot listen on "${bad}"`), message);
  }
  await settle();
});

Deno.test("[2.2a] QUIC: two channels have two bindings", async () => {
  const [a, b] = [makeNetwork(), makeNetwork()];
  await withNetworks([a, b], async () => {
    const one = await a.dial(b.addresses()[0]!, { signal: AbortSignal.timeout(5_000) });
    await a.hangUp(b.nodeId, "again");
    const two = await a.dial(b.addresses()[0]!, { signal: AbortSignal.timeout(5_000) });
    ok(!equalBytes(one.channelBinding!, two.channelBinding!));
  });
});
