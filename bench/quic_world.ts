/** What the transport benches share: constants, the other process, and the arithmetic. @module */

import { concatBytes } from "../src/core/bytes.ts";
import { keyPairFromSeed } from "../src/core/crypto.ts";
import { createP2pNetwork } from "../src/edge/p2p/mod.ts";
import { createAnchor, serverNameOf } from "../src/edge/p2p/certificate.ts";
import type { Network } from "../src/ports/network.ts";

export const ALPN = "bench";
export const CHUNK_BYTES = 64 << 10;
export const NETWORK_ID: Uint8Array = new Uint8Array(32).fill(1);
export const SECRET: Uint8Array = new Uint8Array(32).fill(2);
export const SERVER_SEED: Uint8Array = new Uint8Array(32).fill(3);

/** The two ends of one run. */
export interface World extends Disposable {
  /** Ours, on QUIC and on TCP: two nodes, since one node keeps one channel per peer. */
  readonly quic: Network;
  readonly tcp: Network;
  readonly raw: Deno.QuicConn;
  readonly serverId: string;
}

/** Starts the other process and connects to it in all three ways. */
export async function openWorld(): Promise<World> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-check", "-A", "--unstable-net", new URL("./quic_child.ts", import.meta.url).pathname],
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  const lines = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  const { addresses, rawPort } = JSON.parse((await lines.read()).value!) as { addresses: string[]; rawPort: number };
  const [quic, tcp] = [client(), client()];
  await quic.start();
  await tcp.start();
  const signal = AbortSignal.timeout(10_000);
  const { nodeId } = await quic.dial(addresses.find((one) => one.includes("/udp/"))!, { signal });
  await tcp.dial(addresses.find((one) => one.includes("/tcp/"))!, { signal });
  const { publicKey } = keyPairFromSeed(SERVER_SEED);
  const raw = await Deno.connectQuic<false>({
    hostname: "127.0.0.1",
    port: rawPort,
    serverName: serverNameOf(NETWORK_ID, publicKey),
    alpnProtocols: [ALPN],
    caCerts: [createAnchor(NETWORK_ID, publicKey)],
  });
  return { quic, tcp, raw, serverId: nodeId, [Symbol.dispose]: () => child.kill("SIGKILL") };
}

function client(): Network {
  const keyPair = keyPairFromSeed(crypto.getRandomValues(new Uint8Array(32)));
  return createP2pNetwork({ keyPair, networkId: NETWORK_ID, discoverySecret: SECRET, listen: [] }, {
    onPeer: () => {},
    onPeerGone: () => {},
    onRefused: () => {},
    onCall: () => Promise.resolve(),
  });
}

/** Reads `count` chunks from a node of ours; bytes received. */
export async function floodOurs(network: Network, serverId: string, count: number): Promise<number> {
  let bytes = 0;
  for await (const message of network.call(serverId, "flood", uint32(count), { timeoutMs: 60_000 })) {
    bytes += message.length;
  }
  return bytes;
}

/** Reads `count` chunks over bare QUIC; bytes received. */
export async function floodRaw(conn: Deno.QuicConn, count: number): Promise<number> {
  const { readable, writable } = await conn.createBidirectionalStream();
  const writer = writable.getWriter();
  await writer.write(uint32(count));
  await writer.close();
  let bytes = 0;
  for await (const piece of readable) bytes += piece.length;
  return bytes;
}

/** One call with an answer, on a new stream. */
export async function echoOurs(network: Network, serverId: string, body: Uint8Array): Promise<void> {
  for await (const answer of network.call(serverId, "echo", body, { timeoutMs: 10_000 })) {
    if (answer.length !== body.length) throw new Error("wrong answer");
  }
}

/** The same over bare QUIC: a new stream, a request, an answer, both ends closed. */
export async function echoRaw(conn: Deno.QuicConn, body: Uint8Array): Promise<void> {
  const { readable, writable } = await conn.createBidirectionalStream();
  const writer = writable.getWriter();
  const reader = readable.getReader();
  await writer.write(concatBytes(uint32(0), body));
  let got = 0;
  while (got < body.length) got += (await reader.read()).value!.length;
  await writer.close();
  while (!(await reader.read()).done);
}

/** The value below which a share of the samples lies. */
export function quantile(samples: readonly number[], share: number): number {
  const sorted = samples.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]!;
}

/** One line of a bench: medians of both sides, and the median of the ratios of pairs taken one after the other. */
export function report(
  name: string,
  unit: string,
  pairs: readonly { readonly ours: number; readonly reference: number }[],
) {
  const round = (value: number) => Math.round(value * 1_000) / 1_000;
  console.log(JSON.stringify({
    name,
    unit,
    ours: round(quantile(pairs.map(({ ours }) => ours), 0.5)),
    reference: round(quantile(pairs.map(({ reference }) => reference), 0.5)),
    ratio: round(quantile(pairs.map(({ ours, reference }) => ours / reference), 0.5)),
    pairs: pairs.length,
  }));
}

function uint32(value: number): Uint8Array {
  const out = new Uint8Array(4);
  new DataView(out.buffer).setUint32(0, value);
  return out;
}
