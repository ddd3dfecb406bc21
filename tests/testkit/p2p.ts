/**
 * Real networks for tests, under the sanitizers.
 *
 * @module
 */

import { keyPairFromSeed } from "../../src/core/crypto.ts";
import { createP2pNetwork, type P2pOptions } from "../../src/edge/p2p/mod.ts";
import type { Network, NetworkHandlers } from "../../src/ports/network.ts";
import { clearAbortTimeouts, trackAbortTimeouts } from "./abort_timeouts.ts";

/** Where a network listens by default in tests. */
export const LISTEN = { quic: "/ip4/127.0.0.1/udp/0/quic-v1", tcp: "/ip4/127.0.0.1/tcp/0" } as const;

/** Handlers that do nothing. */
export const IDLE: NetworkHandlers = {
  onPeer: () => {},
  onPeerGone: () => {},
  onRefused: () => {},
  onCall: () => Promise.resolve(),
};

/** A network with random identity, on loopback QUIC unless the options say otherwise. */
export function makeNetwork(options: Partial<P2pOptions> = {}, handlers: Partial<NetworkHandlers> = {}): Network {
  return createP2pNetwork({
    keyPair: keyPairFromSeed(crypto.getRandomValues(new Uint8Array(32))),
    networkId: new Uint8Array(32).fill(0x11),
    discoverySecret: new Uint8Array(32).fill(0x22),
    listen: [LISTEN.quic],
    ...options,
  }, { ...IDLE, ...handlers });
}

/**
 * To be awaited before the first test: libp2p opens one BroadcastChannel per process and keeps it, which the
 * sanitizers would hold against whichever test comes first.
 */
export async function warmUp(): Promise<void> {
  trackAbortTimeouts();
  const network = makeNetwork();
  await network.start();
  await network.stop();
  await settle();
}

/** To be awaited at the end of each test: takes back timers of libp2p, and lets its queues say that they are empty. */
export async function settle(): Promise<void> {
  clearAbortTimeouts();
  await new Promise((resolve) => setTimeout(resolve, 20));
}
