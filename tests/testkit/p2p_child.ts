/**
 * A network in a process of its own: `p2p_child.ts <seed hex> <listen> <transport> <keepAliveMs> [dial address]`.
 * Several addresses and transports are separated by commas.
 * Prints its first address, then one line per event. Serves calls with an echo.
 *
 * @module
 */

import { fromHex } from "../../src/core/bytes.ts";
import { keyPairFromSeed } from "../../src/core/crypto.ts";
import { makeNetwork } from "./p2p.ts";

const [seed, listen, transport, keepAliveMs, target] = Deno.args;
const network = makeNetwork({
  keyPair: keyPairFromSeed(fromHex(seed!)!),
  listen: listen!.split(","),
  transports: transport!.split(",") as ("quic" | "tcp")[],
  keepAliveMs: Number(keepAliveMs),
}, {
  onPeer: (peer) => console.log(`peer ${peer.nodeId}`),
  onPeerGone: (nodeId, reason) => console.log(`gone ${nodeId} ${reason}`),
  onCall: (call) => call.send(call.body),
});
await network.start();
console.log(network.addresses()[0]);
if (target) await network.dial(target, { signal: AbortSignal.timeout(5_000) });
