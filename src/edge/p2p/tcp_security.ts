/** The security of TCP channels as libp2p wants it at its start, without the code for it. @module */

import type { ConnectionEncrypter, ConnectionProtector, StreamMuxerFactory } from "@libp2p/interface";
import type { TcpLayers } from "./tcp_layers.ts";

/** Parts for libp2p's options. */
export interface TcpSecurity {
  readonly connectionProtector: (components: never) => ConnectionProtector;
  readonly connectionEncrypters: ((components: never) => ConnectionEncrypter)[];
  readonly streamMuxers: ((components: never) => StreamMuxerFactory)[];
}

/**
 * Pre-shared key, Noise and Yamux for TCP, loaded by the first TCP connection in either direction.
 *
 * Channels are QUIC where they can be, so most nodes never need them: their evaluation is 3 ms of a start and 1 MB.
 *
 * @param psk 32 bytes, the pre-shared key.
 */
export function tcpSecurity(psk: Uint8Array): TcpSecurity {
  let loaded: TcpLayers | undefined;
  let loading: Promise<TcpLayers> | undefined;
  const load = (components: never) =>
    loading ??= import("./tcp_layers.ts").then(({ makeTcpLayers }) => loaded = makeTcpLayers(components, psk));
  return {
    connectionProtector: (components) => ({
      protect: async (connection, options) => (await load(components)).protector.protect(connection, options),
    }),
    connectionEncrypters: [(components) => ({
      protocol: "/noise",
      secureOutbound: async (connection, options) =>
        (await load(components)).encrypter.secureOutbound(connection, options),
      secureInbound: async (connection, options) =>
        (await load(components)).encrypter.secureInbound(connection, options),
    })],
    streamMuxers: [() => ({
      protocol: "/yamux/1.0.0",
      createStreamMuxer(connection) {
        // libp2p multiplexes what it has encrypted, and nothing else.
        if (!loaded) throw new TypeError("Cannot multiplex a connection that is not encrypted");
        return loaded.muxer.createStreamMuxer(connection);
      },
    })],
  };
}
