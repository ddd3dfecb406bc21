/** The network suite on QUIC, on TCP, and on a node that has both. @module */

import { createP2pNetwork } from "../../src/edge/p2p/mod.ts";
import { networkCompliance } from "../compliance/network.ts";
import { LISTEN, settle, warmUp } from "../testkit/p2p.ts";

await warmUp();

for (const transport of ["quic", "tcp"] as const) {
  for (const both of [false, true]) {
    const own = LISTEN[transport];
    const other = LISTEN[transport === "quic" ? "tcp" : "quic"];
    networkCompliance({
      name: both ? `${transport} beside the other` : transport,
      transport,
      hasChannelBinding: transport === "quic",
      create: (options, handlers) => {
        const network = createP2pNetwork({
          ...options,
          listen: [own, ...(both ? [other] : [])],
          ...(both ? {} : { transports: [transport] }),
        }, handlers);
        const addresses = network.addresses.bind(network);
        // The suite dials the first address: it has to be of the transport under test.
        network.addresses = () =>
          addresses().toSorted((a) => a.includes(transport === "quic" ? "/udp/" : "/tcp/") ? -1 : 1);
        return network;
      },
      afterEach: settle,
      // A port of the reserved block for "discard": closed on every machine that runs this.
      deadAddress: (nodeId) =>
        transport === "quic" ? `/ip4/127.0.0.1/udp/9/quic-v1/p2p/${nodeId}` : `/ip4/127.0.0.1/tcp/9/p2p/${nodeId}`,
    });
  }
}
