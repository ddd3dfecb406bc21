/**
 * The other end of the transport benches, in a process of its own: a node of ours on QUIC and TCP, and Deno's bare QUIC
 * beside it. Prints the addresses as one JSON line and serves until it is killed.
 *
 * @module
 */

import { concatBytes } from "../src/core/bytes.ts";
import { keyPairFromSeed } from "../src/core/crypto.ts";
import { createP2pNetwork } from "../src/edge/p2p/mod.ts";
import { createLeaf } from "../src/edge/p2p/certificate.ts";
import { ALPN, CHUNK_BYTES, NETWORK_ID, SECRET, SERVER_SEED } from "./quic_world.ts";

const keyPair = keyPairFromSeed(SERVER_SEED);
const chunk = new Uint8Array(CHUNK_BYTES).fill(7);

const network = createP2pNetwork({
  keyPair,
  networkId: NETWORK_ID,
  discoverySecret: SECRET,
  listen: ["/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"],
}, {
  onPeer: () => {},
  onPeerGone: () => {},
  onRefused: () => {},
  async onCall(call) {
    if (call.method === "echo") return await call.send(call.body);
    const count = new DataView(call.body.buffer, call.body.byteOffset).getUint32(0);
    for (let i = 0; i < count; i++) await call.send(chunk);
  },
});
await network.start();

const endpoint = new Deno.QuicEndpoint({ hostname: "127.0.0.1", port: 0 });
const leaf = createLeaf(keyPair, { networkId: NETWORK_ID, nowMs: Date.now(), lifetimeMs: 3_600_000 });
const listener = endpoint.listen({ cert: leaf.cert, key: leaf.key, alpnProtocols: [ALPN] });
console.log(JSON.stringify({ addresses: network.addresses(), rawPort: endpoint.addr.port }));

/** The least that does the same: 4 bytes say how many chunks are wanted, none means that the rest is echoed. */
async function serveStream({ readable, writable }: Deno.QuicBidirectionalStream): Promise<void> {
  const reader = readable.getReader();
  const writer = writable.getWriter();
  let request: Uint8Array = new Uint8Array(0);
  while (request.length < 4) request = concatBytes(request, (await reader.read()).value ?? new Uint8Array(4));
  const count = new DataView(request.buffer, request.byteOffset).getUint32(0);
  if (count === 0) await writer.write(request.subarray(4));
  for (let i = 0; i < count; i++) await writer.write(chunk);
  await writer.close();
  while (!(await reader.read()).done);
}

for await (const incoming of listener) {
  const conn = await incoming.accept();
  void (async () => {
    for await (const stream of conn.incomingBidirectionalStreams) serveStream(stream).catch(() => {});
  })().catch(() => {});
}
