/**
 * Nodes of js-libp2p with @libp2p/gossipsub in one process over its memory transport: what `gossip.ts` divides by.
 *
 * The channels are those that our nodes keep, the degrees of the mesh are the same. The record is signed by its
 * author and checked at every node; gossipsub's own signatures are off, so that nobody verifies twice. Channels are
 * not encrypted.
 *
 * usage: deno run -A --no-config --no-lock --node-modules-dir=none bench/peers/gossipsub.ts NODES MESSAGES
 *
 * Prints one line of JSON, a `GossipRun` as in `gossip_world.ts`.
 *
 * @module
 */

import { channels, cpuMs, type GossipRun, isValid, makeRecord } from "../gossip_world.ts";
import { median } from "../processes.ts";

/** What is used of a node of js-libp2p. */
interface LibP2P {
  getMultiaddrs(): readonly unknown[];
  dial(address: unknown): Promise<unknown>;
  stop(): Promise<void>;
  readonly services: {
    readonly pubsub: {
      subscribe(topic: string): void;
      publish(topic: string, data: Uint8Array): Promise<unknown>;
      getMeshPeers(topic: string): readonly string[];
      addEventListener(
        type: string,
        listener: (event: { readonly detail: { readonly data: Uint8Array } }) => void,
      ): void;
      readonly topicValidators: Map<string, (peer: unknown, message: { readonly data: Uint8Array }) => string>;
    };
  };
}

// Named here so that the program itself never depends on it.
const [libp2p, gossipsub, memory, plaintext, yamux, identify] = await Promise.all(
  [
    "npm:libp2p@3.3.11",
    "npm:@libp2p/gossipsub@17.1.1",
    "npm:@libp2p/memory@2.0.15",
    "npm:@libp2p/plaintext@3.0.26",
    "npm:@chainsafe/libp2p-yamux@8.0.1",
    "npm:@libp2p/identify@4.1.14",
  ].map((one) => import(one)),
) as [
  { createLibp2p(options: unknown): Promise<LibP2P> },
  { gossipsub(options: unknown): unknown },
  { memory(): unknown },
  { plaintext(): unknown },
  { yamux(): unknown },
  { identify(): unknown },
];

const TOPIC = "news";
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

async function run(count: number, messages: number): Promise<GossipRun> {
  let told = () => {};
  let sends = 0;
  const nodes: LibP2P[] = [];
  for (let i = 0; i < count; i++) {
    const node = await libp2p.createLibp2p({
      addresses: { listen: [`/memory/bench-${i}`] },
      transports: [memory.memory()],
      connectionEncrypters: [plaintext.plaintext()],
      streamMuxers: [yamux.yamux()],
      connectionManager: { maxConnections: 10_000, inboundConnectionThreshold: 10_000 },
      connectionMonitor: { enabled: false },
      services: {
        identify: identify.identify(),
        pubsub: gossipsub.gossipsub({
          globalSignaturePolicy: "StrictNoSign",
          msgIdFn: (message: { readonly data: Uint8Array }) => message.data.subarray(96, 112),
          emitSelf: false,
          allowPublishToZeroTopicPeers: true,
          floodPublish: false,
          D: 6,
          Dlo: 4,
          Dhi: 12,
        }),
      },
    });
    const { pubsub } = node.services;
    pubsub.topicValidators.set(TOPIC, (_peer, { data }) => isValid(data) ? "accept" : "reject");
    pubsub.addEventListener("message", () => told());
    // Counts what goes out, as its own metrics would.
    const inner = pubsub as unknown as { sendRpc(id: string, rpc: { messages?: readonly unknown[] }): boolean };
    const sendRpc = inner.sendRpc.bind(pubsub);
    inner.sendRpc = (id, rpc) => {
      sends += rpc.messages?.length ?? 0;
      return sendRpc(id, rpc);
    };
    pubsub.subscribe(TOPIC);
    nodes.push(node);
  }
  for (const [a, b] of channels(count)) await nodes[a]!.dial(nodes[b]!.getMultiaddrs()[0]);
  // Meshes form at heartbeats.
  await sleep(6_000);
  const p50: number[] = [];
  const last: number[] = [];
  const lastCpu: number[] = [];
  const publish = async (n: number) => {
    const record = makeRecord(n);
    const done = Promise.withResolvers<void>();
    let delivered = 1;
    let [halfMs, lastMs] = [0, 0];
    const startCpuMs = cpuMs();
    const startMs = performance.now();
    told = () => {
      delivered += 1;
      lastMs = performance.now() - startMs;
      if (delivered === Math.ceil(count / 2)) halfMs = lastMs;
      if (delivered !== count) return;
      lastCpu.push(cpuMs() - startCpuMs);
      done.resolve();
    };
    await nodes[(n * 7_919) % count]!.services.pubsub.publish(TOPIC, record);
    await Promise.race([done.promise, sleep(10_000)]);
    if (delivered !== count) throw new Error(`${delivered} of ${count} nodes have message ${n}`);
    p50.push(halfMs);
    last.push(lastMs);
    await sleep(20);
  };
  for (let i = 0; i < 20; i++) await publish(i);
  for (const one of [p50, last, lastCpu]) one.length = 0;
  const sendsBefore = sends;
  const cpuBefore = cpuMs();
  for (let i = 0; i < messages; i++) await publish(20 + i);
  const cpu = cpuMs() - cpuBefore;
  const sent = (sends - sendsBefore) / messages / (count - 1);
  return {
    nodes: count,
    p50Ms: median(p50),
    lastMs: median(last),
    lastCpuMs: median(lastCpu),
    cpuMs: cpu / messages / count,
    sends: sent,
    frames: sent,
  };
}

console.log(JSON.stringify(await run(Number(Deno.args[0]), Number(Deno.args[1]))));
Deno.exit(0);
