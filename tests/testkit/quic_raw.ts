/**
 * A QUIC dialer that follows the protocol by hand, so that tests can leave it at any point.
 *
 * @module
 */

import { concatBytes } from "../../src/core/bytes.ts";
import { type KeyPair, keyPairFromSeed } from "../../src/core/crypto.ts";
import { parseAddress, publicKeyOf } from "../../src/core/ids.ts";
import { createAnchor, serverNameOf } from "../../src/edge/p2p/certificate.ts";
import {
  AUTH_BYTES,
  type AuthChallenge,
  type AuthHello,
  authTranscript,
  decodeChallenge,
  decodeVerdict,
  encodeHello,
  signTranscript,
  type Verdict,
} from "../../src/edge/p2p/quic_auth.ts";
import { alpnOf } from "../../src/edge/p2p/quic_transport.ts";

/** Options of {@linkcode RawDialer.connect}. */
export interface RawOptions {
  readonly networkId?: Uint8Array;
  readonly alpn?: string;
  readonly keyPair?: KeyPair;
}

/** A TLS connection to a node, with its first stream open. */
export class RawDialer implements Disposable {
  readonly keyPair: KeyPair;
  readonly networkId: Uint8Array;
  #left: Uint8Array = new Uint8Array(0);

  private constructor(
    readonly conn: Deno.QuicConn,
    readonly serverKey: Uint8Array,
    readonly writer: WritableStreamDefaultWriter<Uint8Array>,
    readonly reader: ReadableStreamDefaultReader<Uint8Array>,
    options: RawOptions,
  ) {
    this.keyPair = options.keyPair ?? keyPairFromSeed(crypto.getRandomValues(new Uint8Array(32)));
    this.networkId = options.networkId ?? new Uint8Array(32).fill(0x11);
    conn.closed.catch(() => {});
    writer.closed.catch(() => {});
    reader.closed.catch(() => {});
  }

  /** Does the TLS handshake with the node at an address. */
  static async connect(address: string, options: RawOptions = {}): Promise<RawDialer> {
    const target = parseAddress(address)!;
    const serverKey = publicKeyOf(target.nodeId!)!;
    const networkId = options.networkId ?? new Uint8Array(32).fill(0x11);
    const conn = await Deno.connectQuic<false>({
      hostname: target.host,
      port: target.port,
      serverName: serverNameOf(networkId, serverKey),
      alpnProtocols: [options.alpn ?? alpnOf(networkId)],
      caCerts: [createAnchor(networkId, serverKey)],
      maxIdleTimeout: 20_000,
    });
    const stream = await conn.createBidirectionalStream();
    return new RawDialer(conn, serverKey, stream.writable.getWriter(), stream.readable.getReader(), options);
  }

  hello(keyPair: KeyPair = this.keyPair): AuthHello {
    return {
      clientKey: keyPair.publicKey,
      clientNonce: crypto.getRandomValues(new Uint8Array(32)),
      clientInstance: crypto.getRandomValues(new Uint8Array(16)),
    };
  }

  async take(count: number): Promise<Uint8Array> {
    while (this.#left.length < count) {
      const { value } = await this.reader.read();
      if (!value) throw new Error("closed by the server");
      this.#left = concatBytes(this.#left, value);
    }
    const out = this.#left.slice(0, count);
    this.#left = this.#left.subarray(count);
    return out;
  }

  async challenge(hello: AuthHello): Promise<AuthChallenge> {
    await this.writer.write(encodeHello(hello));
    return decodeChallenge(await this.take(AUTH_BYTES.challenge)).challenge;
  }

  transcript(hello: AuthHello, challenge: AuthChallenge): Uint8Array {
    return authTranscript({ networkId: this.networkId, serverKey: this.serverKey, hello, challenge });
  }

  async verdict(proof: Uint8Array): Promise<Verdict> {
    await this.writer.write(proof);
    return decodeVerdict((await this.take(1))[0]);
  }

  /** The whole authentication, as a node does it. */
  async authenticate(): Promise<Verdict> {
    const hello = this.hello();
    const challenge = await this.challenge(hello);
    return await this.verdict(signTranscript(this.keyPair, "client", this.transcript(hello, challenge)));
  }

  [Symbol.dispose](): void {
    try {
      this.conn.close({ closeCode: 0, reason: "" });
    } catch {
      // Closed already.
    }
  }
}
