/** The layers of a TCP channel: pre-shared key, Noise, Yamux. Loaded by {@link tcpSecurity} alone. @module */

import type { ConnectionEncrypter, ConnectionProtector, StreamMuxerFactory } from "@libp2p/interface";
import { noise } from "@chainsafe/libp2p-noise";
import { yamux } from "@chainsafe/libp2p-yamux";
import { preSharedKey } from "@libp2p/pnet";
import { toHex, utf8 } from "../../core/bytes.ts";
import { noiseCrypto } from "./noise_crypto.ts";

/** What a TCP connection goes through, from the wire up. */
export interface TcpLayers {
  readonly protector: ConnectionProtector;
  readonly encrypter: ConnectionEncrypter;
  readonly muxer: StreamMuxerFactory;
}

/**
 * Makes the layers.
 *
 * @param components libp2p's, as it gives them to each part.
 * @param psk 32 bytes, the pre-shared key.
 */
export function makeTcpLayers(components: never, psk: Uint8Array): TcpLayers {
  const cipher = noiseCrypto();
  return {
    protector: preSharedKey({ psk: utf8(`/key/swarm/psk/1.0.0/\n/base16/\n${toHex(psk)}`) })(),
    encrypter: noise(cipher ? { crypto: cipher } : {})(components),
    muxer: yamux({ enableKeepAlive: false })(),
  };
}
