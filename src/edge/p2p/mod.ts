/**
 * The network on libp2p: QUIC first, TCP with Noise and Yamux beside it.
 *
 * @module
 */

export { prepareEntropy } from "./entropy.ts";
export { createP2pNetwork, type P2pOptions } from "./network.ts";
