/**
 * QUIC as a libp2p transport, on Deno's own QUIC.
 *
 * What TLS and the authentication of `quic_auth.ts` prove is handed to libp2p's upgrader, which then adds
 * neither encryption nor a multiplexer of its own. A stream says its protocol in its first bytes, which saves
 * the round trip of multistream-select; streams of the direct protocol (calls) never enter libp2p at all.
 *
 * @module
 */

import {
  type Connection,
  type CreateListenerOptions,
  type DialTransportOptions,
  type Listener,
  type ListenerEvents,
  type Logger,
  type MultiaddrConnection,
  serviceCapabilities,
  type StreamMuxer,
  type StreamMuxerFactory,
  type Transport,
  transportSymbol,
  TypedEventEmitter,
} from "@libp2p/interface";
import { AbstractMultiaddrConnection, AbstractStream, AbstractStreamMuxer, type SendResult } from "@libp2p/utils";
import type { ComponentLogger } from "@libp2p/interface";
import { type Multiaddr, multiaddr } from "@multiformats/multiaddr";
import { QUIC_V1 } from "@multiformats/multiaddr-matcher";
import { publicKeyFromRaw } from "@libp2p/crypto/keys";
import { peerIdFromPublicKey } from "@libp2p/peer-id";
import { concatBytes, fromUtf8, toHex, utf8 } from "../../core/bytes.ts";
import type { KeyPair } from "../../core/crypto.ts";
import { type Address, formatAddress, nodeIdOf, parseAddress, publicKeyOf } from "../../core/ids.ts";
import { CallError } from "../../ports/network.ts";
import { isWildcard, plainHost } from "./addresses.ts";
import { ByteSource, QuicByteStream } from "./byte_stream.ts";
import { createAnchor, createLeaf, type Leaf, LEAF_BACKDATE_MS, serverNameOf } from "./certificate.ts";
import {
  AUTH_BYTES,
  authTranscript,
  channelBindingOf,
  decodeChallenge,
  decodeHello,
  decodeVerdict,
  encodeChallenge,
  encodeHello,
  encodeVerdict,
  isSelf,
  signTranscript,
  type Verdict,
  verifyTranscript,
} from "./quic_auth.ts";

/** What one QUIC connection is, once both ends are proved. */
export interface QuicChannel {
  readonly nodeId: string;
  readonly publicKey: Uint8Array;
  /** Without `/p2p/…`. */
  readonly remoteAddress: string;
  readonly direction: "inbound" | "outbound";
  readonly channelBinding: Uint8Array;
  /** Hex of the peer's 16 random bytes per process. */
  readonly instance: string;
  readonly conn: Deno.QuicConn;
  /** Opens a stream of the direct protocol. */
  openDirect(): Promise<QuicByteStream>;
  /** Starts handing out inbound streams; until then they wait. */
  accept(onDirect: (stream: QuicByteStream) => void): void;
}

/** Options of {@linkcode QuicTransport}. */
export interface QuicTransportInit {
  readonly keyPair: KeyPair;
  readonly networkId: Uint8Array;
  /** 16 random bytes of this process. */
  readonly instance: Uint8Array;
  readonly keepAliveMs: number;
  readonly idleTimeoutMs: number;
  readonly leafLifetimeMs: number;
  /** Milliseconds for the authentication after the TLS handshake. */
  readonly authTimeoutMs: number;
  /** Handshakes under way at once, inbound. */
  readonly handshakesMax: number;
  /** Inbound streams at once on one connection. */
  readonly streamsMax: number;
  /** Name of the protocol whose streams go to {@linkcode QuicChannel.accept}. */
  readonly directProtocol: string;
  /** Whether an inbound channel of a proved node is taken. */
  readonly admit: (nodeId: string, instance: string) => Verdict;
  /** Whether sockets on `::` are in service for IPv4 too. */
  readonly isDualStack: boolean;
  /** A channel is proved and upgraded. */
  readonly onChannel: (channel: QuicChannel) => void;
  readonly onRefused: (reason: string, remoteAddress: string) => void;
}

/** What libp2p gives a stream to send. */
type SendData = Parameters<AbstractStream["sendData"]>[0];

/** Longest name of a protocol in the head of a stream. */
const PROTOCOL_BYTES_MAX = 127;
/** Milliseconds that a stream may stay without its head. */
const HEAD_TIMEOUT_MS = 10_000;
/** Milliseconds that a refused dialer has for reading the verdict. */
const REFUSAL_LINGER_MS = 500;
/** Largest piece that libp2p hands to a stream at once. */
const PIECE_BYTES_MAX = 256 << 10;

/** The ALPN of a network: nodes of two networks never complete a handshake. */
export function alpnOf(networkId: Uint8Array): string {
  return `mycelium/1/${toHex(networkId).slice(0, 16)}`;
}

interface Components {
  readonly logger: ComponentLogger;
}

/** libp2p Transport over `Deno.QuicEndpoint`. One object serves all listeners and dials of a node. */
export class QuicTransport implements Transport {
  readonly [transportSymbol] = true as const;
  readonly [Symbol.toStringTag] = "@mycelium/quic";
  readonly [serviceCapabilities]: string[] = ["@libp2p/transport"];
  readonly init: QuicTransportInit;
  readonly log: Logger;
  readonly alpn: string;
  readonly #listeners = new Set<QuicListener>();
  /** Endpoints for dialing where no listener has one of that family. */
  readonly #dialEndpoints = new Map<"ip4" | "ip6", Deno.QuicEndpoint>();
  readonly #conns = new Set<Deno.QuicConn>();
  #leaf: Leaf | undefined;
  #handshakes = 0;
  #closed = false;

  constructor(components: Components, init: QuicTransportInit) {
    this.init = init;
    this.log = components.logger.forComponent("mycelium:quic");
    this.alpn = alpnOf(init.networkId);
  }

  listenFilter(addresses: Multiaddr[]): Multiaddr[] {
    return addresses.filter((address) => QUIC_V1.exactMatch(address));
  }

  dialFilter(addresses: Multiaddr[]): Multiaddr[] {
    return this.listenFilter(addresses);
  }

  createListener(options: CreateListenerOptions): Listener {
    return new QuicListener(this, options, this.#listeners);
  }

  /** The leaf in service. */
  leaf(): Leaf {
    this.#leaf ??= this.#createLeaf();
    return this.#leaf;
  }

  /** Puts a new leaf into service on all listeners. Open connections keep the keys that they have. */
  rotateLeaf(): void {
    this.#leaf = this.#createLeaf();
    for (const listener of this.#listeners) listener.useLeaf(this.#leaf);
  }

  /**
   * Rotates when half of the leaf's life is over. Called when somebody knocks: a leaf matters only then, no timer
   * has to wake an idle node, and a clock that jumped or a machine that slept needs no case of its own.
   */
  #rotateWhenDue(): void {
    const { notBeforeMs, notAfterMs } = this.leaf();
    const createdMs = notBeforeMs + LEAF_BACKDATE_MS;
    const nowMs = Date.now();
    if (nowMs < createdMs - LEAF_BACKDATE_MS / 2 || nowMs > createdMs + (notAfterMs - createdMs) / 2) this.rotateLeaf();
  }

  #createLeaf(): Leaf {
    const { keyPair, networkId, leafLifetimeMs } = this.init;
    return createLeaf(keyPair, { networkId, nowMs: Date.now(), lifetimeMs: leafLifetimeMs });
  }

  async dial(target: Multiaddr, options: DialTransportOptions): Promise<Connection> {
    const address = parseAddress(target.toString());
    const publicKey = address?.nodeId ? publicKeyOf(address.nodeId) : undefined;
    if (!address || !publicKey) {
      throw new CallError("unreachable", `Cannot dial "${target}": wanted a QUIC address that ends in /p2p/<node id>`);
    }
    const conn = await this.#connect(address, publicKey, options.signal);
    options.onProgress?.(new CustomEvent("quic:connected") as never);
    const reader = conn.incomingBidirectionalStreams.getReader();
    try {
      const proof = await this.#withDeadline(conn, this.#authenticateClient(conn, publicKey), options.signal);
      const remoteAddress = formatAddress(withoutNodeId(address));
      return await this.#upgrade(conn, reader, {
        nodeId: address.nodeId!,
        publicKey,
        remoteAddress,
        direction: "outbound",
        ...proof,
      }, (muxerFactory) =>
        options.upgrader.upgradeOutbound(
          new QuicMultiaddrConnection(conn, target, "outbound", this.log),
          {
            ...options,
            skipEncryption: true,
            skipProtection: true,
            remotePeer: peerIdFromPublicKey(publicKeyFromRaw(publicKey)),
            muxerFactory,
          },
        ));
    } catch (error) {
      close(conn, 2, "");
      throw error;
    }
  }

  async #connect(address: Address, publicKey: Uint8Array, signal: AbortSignal): Promise<Deno.QuicConn> {
    signal.throwIfAborted();
    const { hostname, family } = await resolveHost(address);
    const connecting = Deno.connectQuic<false>({
      hostname,
      port: address.port,
      endpoint: this.#dialEndpoint(family),
      serverName: serverNameOf(this.init.networkId, publicKey),
      alpnProtocols: [this.alpn],
      caCerts: [createAnchor(this.init.networkId, publicKey)],
      keepAliveInterval: this.init.keepAliveMs,
      ...this.#transportOptions(),
    });
    let conn: Deno.QuicConn;
    try {
      conn = await raceAbort(connecting, signal, (late) => close(late, 0, ""));
    } catch (error) {
      throw signal.aborted ? error : connectError(address, error);
    }
    this.#track(conn);
    return conn;
  }

  #dialEndpoint(family: "ip4" | "ip6"): Deno.QuicEndpoint {
    for (const listener of this.#listeners) {
      // A wildcard of IPv6 reaches IPv4 too, where it is the only one. An endpoint on one address would be wrong for targets that are reached over another interface.
      if (listener.endpoint && listener.isWildcard && (listener.family === family || this.#isDual(listener))) {
        return listener.endpoint;
      }
    }
    let endpoint = this.#dialEndpoints.get(family);
    if (!endpoint) {
      endpoint = new Deno.QuicEndpoint({ hostname: family === "ip4" ? "0.0.0.0" : "::", port: 0 });
      this.#dialEndpoints.set(family, endpoint);
    }
    return endpoint;
  }

  #isDual(listener: QuicListener): boolean {
    return listener.family === "ip6" && this.init.isDualStack;
  }

  #transportOptions() {
    return {
      maxIdleTimeout: this.init.idleTimeoutMs,
      maxConcurrentBidirectionalStreams: this.init.streamsMax,
      maxConcurrentUnidirectionalStreams: 0,
    };
  }

  /** Options for `endpoint.listen`. */
  listenOptions(leaf: Leaf): Deno.QuicListenOptions {
    return { cert: leaf.cert, key: leaf.key, alpnProtocols: [this.alpn], ...this.#transportOptions() };
  }

  async #authenticateClient(conn: Deno.QuicConn, serverKey: Uint8Array): Promise<Proof> {
    const { keyPair, networkId, instance } = this.init;
    const hello = {
      clientKey: keyPair.publicKey,
      clientNonce: crypto.getRandomValues(new Uint8Array(32)),
      clientInstance: instance,
    };
    const stream = await conn.createBidirectionalStream();
    const writer = stream.writable.getWriter();
    const source = new ByteSource(stream.readable);
    writer.closed.catch(() => {});
    await writer.write(encodeHello(hello));
    const { verdict, challenge } = decodeChallenge(await source.take(AUTH_BYTES.challenge));
    if (verdict !== "ok") throw verdictError(verdict);
    const transcript = authTranscript({ networkId, serverKey, hello, challenge });
    if (!verifyTranscript(serverKey, "server", transcript, challenge.signature)) {
      throw new CallError("wrong-identity", "The server's signature over the channel is not valid");
    }
    await writer.write(signTranscript(keyPair, "client", transcript));
    const last = decodeVerdict((await source.take(AUTH_BYTES.verdict))[0]);
    if (last !== "ok") throw verdictError(last);
    writer.close().catch(() => {});
    source.cancel();
    return { channelBinding: channelBindingOf(transcript), instance: toHex(challenge.serverInstance) };
  }

  /** Takes an inbound connection attempt. Never rejects. */
  async acceptIncoming(
    incoming: Deno.QuicIncoming,
    options: CreateListenerOptions,
    signal: AbortSignal,
  ): Promise<void> {
    // Asking the attempt for its address takes it (Deno 2.6 and 2.9), so the address is known after acceptance only.
    let remoteAddress = "";
    if (this.#closed || this.#handshakes >= this.init.handshakesMax) {
      incoming.refuse();
      this.init.onRefused("overloaded", remoteAddress);
      return;
    }
    this.#handshakes++;
    let conn: Deno.QuicConn | undefined;
    try {
      this.#rotateWhenDue();
      conn = await raceTimeout(incoming.accept<false>(), this.init.authTimeoutMs, (late) => close(late, 2, ""));
      this.#track(conn);
      remoteAddress = quicAddress(conn.remoteAddr.hostname, conn.remoteAddr.port);
      await this.#acceptConn(conn, remoteAddress, options, signal);
    } catch (error) {
      if (conn) close(conn, 2, error instanceof Refusal ? error.verdict : "");
      if (!signal.aborted) this.init.onRefused(refusalReason(error), remoteAddress);
    } finally {
      this.#handshakes--;
    }
  }

  async #acceptConn(
    conn: Deno.QuicConn,
    remoteAddress: string,
    options: CreateListenerOptions,
    signal: AbortSignal,
  ): Promise<void> {
    const reader = conn.incomingBidirectionalStreams.getReader();
    const { publicKey, ...proof } = await this.#withDeadline(conn, this.#authenticateServer(reader), signal);
    await this.#upgrade(conn, reader, {
      nodeId: nodeIdOf(publicKey),
      publicKey,
      remoteAddress,
      direction: "inbound",
      ...proof,
    }, (muxerFactory) =>
      options.upgrader.upgradeInbound(
        new QuicMultiaddrConnection(conn, multiaddr(remoteAddress), "inbound", this.log),
        {
          skipEncryption: true,
          skipProtection: true,
          remotePeer: peerIdFromPublicKey(publicKeyFromRaw(publicKey)),
          muxerFactory,
          signal,
        },
      ));
  }

  async #authenticateServer(
    streams: ReadableStreamDefaultReader<Deno.QuicBidirectionalStream>,
  ): Promise<Proof & { readonly publicKey: Uint8Array }> {
    const { keyPair, networkId, instance } = this.init;
    // The leaf of this connection may be one rotation older than the one in service; what the transcript needs is
    // that both ends hash the same bytes and that they name this server, so the one in service does.
    const leafHash = this.leaf().hash;
    const { value: stream } = await streams.read();
    if (!stream) throw new Refusal("auth-timeout");
    const writer = stream.writable.getWriter();
    const source = new ByteSource(stream.readable);
    writer.closed.catch(() => {});
    const refuse = async (verdict: Verdict, bytes: Uint8Array): Promise<never> => {
      await writer.write(bytes);
      await writer.close().catch(() => {});
      // The dialer closes when it has read the verdict; closing here at once could overtake it.
      await raceTimeout(source.take(1), REFUSAL_LINGER_MS, () => {}).catch(() => {});
      throw new Refusal(verdict);
    };
    const hello = decodeHello(await source.take(AUTH_BYTES.hello));
    if (!hello) return await refuse("bad-version", encodeChallenge("bad-version", undefined));
    if (isSelf(hello, keyPair.publicKey)) {
      return await refuse("wrong-identity", encodeChallenge("wrong-identity", undefined));
    }
    const fields = {
      serverNonce: crypto.getRandomValues(new Uint8Array(32)),
      serverInstance: instance,
      leafHash,
    };
    const transcript = authTranscript({ networkId, serverKey: keyPair.publicKey, hello, challenge: fields });
    const signature = signTranscript(keyPair, "server", transcript);
    await writer.write(encodeChallenge("ok", { ...fields, signature }));
    const proof = await source.take(AUTH_BYTES.proof);
    if (!verifyTranscript(hello.clientKey, "client", transcript, proof)) {
      return await refuse("bad-client-signature", encodeVerdict("bad-client-signature"));
    }
    const peerInstance = toHex(hello.clientInstance);
    const verdict = this.init.admit(nodeIdOf(hello.clientKey), peerInstance);
    if (verdict !== "ok") return await refuse(verdict, encodeVerdict(verdict));
    await writer.write(encodeVerdict("ok"));
    writer.close().catch(() => {});
    source.cancel();
    return {
      publicKey: hello.clientKey,
      channelBinding: channelBindingOf(transcript),
      instance: peerInstance,
    };
  }

  /** Hands a proved connection to libp2p and then to the owner. */
  async #upgrade<T>(
    conn: Deno.QuicConn,
    reader: ReadableStreamDefaultReader<Deno.QuicBidirectionalStream>,
    parts: Pick<QuicChannel, "nodeId" | "publicKey" | "remoteAddress" | "direction" | "channelBinding" | "instance">,
    upgrade: (muxerFactory: StreamMuxerFactory) => Promise<T>,
  ): Promise<T> {
    let muxer: QuicMuxer | undefined;
    const { directProtocol } = this.init;
    const result = await upgrade({
      protocol: "/quic",
      createStreamMuxer(stream): StreamMuxer {
        muxer = new QuicMuxer(conn, stream as MultiaddrConnection, directProtocol);
        return muxer;
      },
    });
    const head = encodeHead(directProtocol);
    this.init.onChannel({
      ...parts,
      conn,
      async openDirect() {
        const stream = await conn.createBidirectionalStream({ waitUntilAvailable: true });
        return new QuicByteStream(stream, { head });
      },
      accept: (onDirect) => muxer!.accept(reader, onDirect),
    });
    return result;
  }

  #withDeadline<T>(conn: Deno.QuicConn, work: Promise<T>, signal: AbortSignal): Promise<T> {
    return raceTimeout(
      raceAbort(work, signal, () => {}),
      this.init.authTimeoutMs,
      () => {},
    ).catch((error) => {
      close(conn, 2, "");
      throw error;
    });
  }

  #track(conn: Deno.QuicConn): void {
    this.#conns.add(conn);
    conn.closed.then(() => this.#conns.delete(conn), () => this.#conns.delete(conn));
  }

  /** Closes every connection and endpoint, waiting for what the peers have to be told. */
  async close(): Promise<void> {
    this.#closed = true;
    const conns = [...this.#conns];
    for (const conn of conns) close(conn, 0, "stop");
    await Promise.allSettled(conns.map((conn) => conn.closed));
    for (const endpoint of this.#dialEndpoints.values()) endpoint.close();
    this.#dialEndpoints.clear();
  }
}

/** An endpoint on a port that was asked for by number, and who takes what comes in. */
interface Seat {
  readonly endpoint: Deno.QuicEndpoint;
  owner: QuicListener | undefined;
}

/**
 * Endpoints by host and port, for the life of the process. Deno lets go of an endpoint's socket when its memory is
 * collected and not when it is closed (2.7 and 2.9), so a network that starts again on its own port, after a reset or a
 * new configuration, has to take the endpoint over. Meanwhile it refuses all that comes. Bounded by the ports of the
 * configurations that were in force.
 */
const SEATS = new Map<string, Seat>();

/** Gives up the ports that are kept for a network that starts again. Deno frees them when it collects the memory. */
export function releasePorts(): void {
  for (const [name, { endpoint, owner }] of SEATS) {
    if (owner) continue;
    SEATS.delete(name);
    endpoint.close();
  }
}

interface Proof {
  readonly channelBinding: Uint8Array;
  readonly instance: string;
}

/** An inbound connection that is turned away for a known reason. */
class Refusal extends Error {
  override readonly name = "Refusal";
  constructor(readonly verdict: Verdict | "auth-timeout") {
    super(verdict);
  }
}

class QuicListener extends TypedEventEmitter<ListenerEvents> implements Listener {
  endpoint: Deno.QuicEndpoint | undefined;
  family: "ip4" | "ip6" = "ip4";
  isWildcard = false;
  readonly #transport: QuicTransport;
  readonly #options: CreateListenerOptions;
  readonly #all: Set<QuicListener>;
  readonly #aborter = new AbortController();
  #host = "";
  #loop: Promise<void> | undefined;
  #seat: Seat | undefined;
  #isKept = false;

  constructor(transport: QuicTransport, options: CreateListenerOptions, all: Set<QuicListener>) {
    super();
    this.#transport = transport;
    this.#options = options;
    this.#all = all;
  }

  // deno-lint-ignore require-await -- the interface wants a promise, and errors as its rejection
  async listen(address: Multiaddr): Promise<void> {
    const [host, port] = address.getComponents();
    this.family = host!.name === "ip6" ? "ip6" : "ip4";
    this.#host = host!.value!;
    this.isWildcard = isWildcard(this.#host);
    const name = `${this.#host} ${port!.value}`;
    const free = SEATS.get(name)?.owner ? undefined : SEATS.get(name);
    const endpoint = free?.endpoint ?? new Deno.QuicEndpoint({ hostname: this.#host, port: Number(port!.value) });
    try {
      const listener = endpoint.listen(this.#transport.listenOptions(this.#transport.leaf()));
      this.endpoint = endpoint;
      this.#seat = free ?? { endpoint, owner: this };
      this.#seat.owner = this;
      // The first accept loop of an endpoint gets everything, whoever listens later.
      if (!free) this.#loop = acceptAll(listener, this.#seat);
      if (port!.value !== "0") SEATS.set(name, this.#seat);
      this.#isKept = port!.value !== "0";
    } catch (error) {
      if (!free) endpoint.close();
      throw error;
    }
    this.#all.add(this);
    this.safeDispatchEvent("listening");
  }

  /**
   * Listening a second time on an endpoint replaces what new handshakes get and leaves the first accept loop in
   * charge of all of them; stopping the first listener would end both, so it stays until the endpoint closes.
   */
  useLeaf(leaf: Leaf): void {
    this.endpoint?.listen(this.#transport.listenOptions(leaf));
  }

  /** Takes a connection attempt. */
  take(incoming: Deno.QuicIncoming): void {
    void this.#transport.acceptIncoming(incoming, this.#options, this.#aborter.signal);
  }

  getAddrs(): Multiaddr[] {
    const port = this.endpoint?.addr.port;
    return port === undefined ? [] : [multiaddr(`/${this.family}/${this.#host}/udp/${port}/quic-v1`)];
  }

  updateAnnounceAddrs(): void {}

  async close(): Promise<void> {
    this.#aborter.abort();
    await this.#transport.close();
    if (this.#seat) this.#seat.owner = undefined;
    if (!this.#isKept) this.endpoint?.close();
    this.endpoint = undefined;
    this.#all.delete(this);
    if (!this.#isKept) await this.#loop;
    this.safeDispatchEvent("close");
  }
}

async function acceptAll(listener: Deno.QuicListener, seat: Seat): Promise<void> {
  for (;;) {
    let incoming: Deno.QuicIncoming;
    try {
      incoming = await listener.incoming();
    } catch {
      // The endpoint closed: nothing else ends this loop.
      return;
    }
    if (seat.owner) seat.owner.take(incoming);
    else incoming.refuse();
  }
}

class QuicMultiaddrConnection extends AbstractMultiaddrConnection {
  readonly #conn: Deno.QuicConn;

  constructor(conn: Deno.QuicConn, remoteAddr: Multiaddr, direction: "inbound" | "outbound", log: Logger) {
    super({ remoteAddr, direction, log: log.newScope("connection") });
    this.#conn = conn;
    conn.closed.then(() => this.onTransportClosed(), (error) => this.onTransportClosed(error));
  }

  sendData(data: SendData): SendResult {
    return { sentBytes: data.byteLength, canSendMore: true };
  }

  sendClose(): Promise<void> {
    close(this.#conn, 0, "");
    return Promise.resolve();
  }

  sendReset(): void {
    close(this.#conn, 1, "");
  }

  sendPause(): void {}
  sendResume(): void {}
}

class QuicMuxer extends AbstractStreamMuxer<QuicStream> {
  readonly #conn: Deno.QuicConn;
  readonly #directProtocol: string;

  constructor(conn: Deno.QuicConn, maConn: MultiaddrConnection, directProtocol: string) {
    super(maConn, { protocol: "/quic", name: "quic", maxEarlyStreams: 64 });
    this.#conn = conn;
    this.#directProtocol = directProtocol;
  }

  async onCreateStream(options: { protocol?: string }): Promise<QuicStream> {
    const protocol = options.protocol ?? "";
    const stream = await this.#conn.createBidirectionalStream({ waitUntilAvailable: true });
    const out = new QuicStream(stream, new ByteSource(stream.readable), { ...options, protocol }, "outbound", this.log);
    out.writeHead(encodeHead(protocol));
    return out;
  }

  onData(): void {}

  /** Serves the streams that the peer opens until the connection closes. */
  async accept(
    streams: ReadableStreamDefaultReader<Deno.QuicBidirectionalStream>,
    onDirect: (stream: QuicByteStream) => void,
  ): Promise<void> {
    try {
      for (;;) {
        const { value, done } = await streams.read();
        if (done) return;
        void this.#sort(value, onDirect);
      }
    } catch {
      // The connection closed; its `closed` promise tells the rest.
    }
  }

  async #sort(stream: Deno.QuicBidirectionalStream, onDirect: (stream: QuicByteStream) => void): Promise<void> {
    const source = new ByteSource(stream.readable);
    const timer = setTimeout(() => source.cancel(), HEAD_TIMEOUT_MS);
    try {
      const length = (await source.take(1))[0]!;
      if (length > PROTOCOL_BYTES_MAX) throw new Error("protocol name too long");
      const protocol = fromUtf8(await source.take(length));
      if (protocol === this.#directProtocol) {
        onDirect(new QuicByteStream(stream, { source }));
        return;
      }
      const inbound = new QuicStream(stream, source, { ...this.streamOptions, protocol }, "inbound", this.log);
      this.onRemoteStream(inbound);
      inbound.begin();
    } catch {
      source.cancel();
      stream.writable.abort().catch(() => {});
    } finally {
      clearTimeout(timer);
    }
  }
}

let streamCount = 0;

/** A stream for libp2p's own protocols. */
class QuicStream extends AbstractStream {
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #source: ByteSource;
  #reading = false;

  constructor(
    stream: Deno.QuicBidirectionalStream,
    source: ByteSource,
    options: { readonly protocol: string },
    direction: "inbound" | "outbound",
    log: Logger,
  ) {
    super({
      ...options,
      id: String(streamCount++),
      direction,
      log: log.newScope("stream"),
      maxMessageSize: PIECE_BYTES_MAX,
    });
    this.#writer = stream.writable.getWriter();
    this.#source = source;
    this.#writer.closed.catch((error: unknown) => {
      if (error instanceof Error && /stopped/i.test(error.message)) this.onRemoteCloseRead();
      else if (this.status === "open") this.onRemoteReset();
    });
    if (direction === "outbound") this.begin();
  }

  /** Sends what the other end needs to know which protocol this is. */
  writeHead(head: Uint8Array): void {
    this.#writer.write(head).catch((error) => this.abort(error));
  }

  /** Starts reading. */
  begin(): void {
    void this.#pump();
  }

  async #pump(): Promise<void> {
    if (this.#reading) return;
    this.#reading = true;
    try {
      while (this.readStatus !== "paused") {
        const piece = await this.#source.read();
        if (!piece) {
          this.onRemoteCloseWrite();
          return;
        }
        this.onData(piece);
      }
    } catch (error) {
      if (this.status !== "open") return;
      if (/reset/i.test((error as Error).message)) this.onRemoteReset();
      else this.abort(error as Error);
    } finally {
      this.#reading = false;
    }
  }

  sendData(data: SendData): SendResult {
    this.#writer.write(data.subarray()).catch((error) => this.abort(error));
    const canSendMore = (this.#writer.desiredSize ?? 0) > 0;
    if (!canSendMore) {
      this.#writer.ready.then(() => this.safeDispatchEvent("drain"), (error) => this.abort(error));
    }
    return { sentBytes: data.byteLength, canSendMore };
  }

  sendReset(): void {
    this.#writer.abort().catch(() => {});
    this.#source.cancel();
  }

  async sendCloseWrite(): Promise<void> {
    await this.#writer.close().catch(() => {});
  }

  sendCloseRead(): Promise<void> {
    this.#source.cancel();
    return Promise.resolve();
  }

  sendPause(): void {}

  sendResume(): void {
    void this.#pump();
  }
}

function encodeHead(protocol: string): Uint8Array {
  const name = utf8(protocol);
  return concatBytes(Uint8Array.of(name.length), name);
}

function close(conn: Deno.QuicConn, closeCode: number, reason: string): void {
  try {
    conn.close({ closeCode, reason });
  } catch {
    // It was closed already.
  }
}

function quicAddress(hostname: string, port: number): string {
  return formatAddress({ ...plainHost(hostname), transport: "quic", port });
}

function withoutNodeId(address: Address): Address {
  const { nodeId: _, ...rest } = address;
  return rest;
}

async function resolveHost(
  address: Address,
): Promise<{ readonly hostname: string; readonly family: "ip4" | "ip6" }> {
  if (address.family !== "dns") return { hostname: address.host, family: address.family };
  const { lookup } = await import("node:dns/promises");
  try {
    const found = await lookup(address.host);
    return { hostname: found.address, family: found.family === 6 ? "ip6" : "ip4" };
  } catch (error) {
    throw new CallError("unreachable", `Cannot dial "${formatAddress(address)}": the name does not resolve`, {
      cause: error,
    });
  }
}

function verdictError(verdict: Verdict): CallError {
  switch (verdict) {
    case "overloaded":
      return new CallError("overloaded", "The node refused the channel: it has too many");
    case "duplicate":
      return new CallError("duplicate", "The node refused the channel: it is opening one itself");
    default:
      return new CallError(verdict, `The node refused the channel: ${verdict}`);
  }
}

/** Turns what Deno says about a failed handshake into a code. The texts are those of rustls and quinn. */
function connectError(address: Address, error: unknown): CallError {
  const text = error instanceof Error ? error.message : String(error);
  const where = `Cannot dial "${formatAddress(address)}"`;
  if (/error 120|no application protocol|peer doesn't support any known protocol/i.test(text)) {
    return new CallError("foreign-network", `${where}: the node there belongs to another network`, { cause: error });
  }
  if (/invalid peer certificate/i.test(text)) {
    return /Expired|NotValidYet/i.test(text)
      ? new CallError("bad-certificate", `${where}: its certificate is out of date; check both clocks`, {
        cause: error,
      })
      : new CallError("wrong-identity", `${where}: another node answers there`, { cause: error });
  }
  if (/timed out/i.test(text)) return new CallError("unreachable", `${where}: no answer`, { cause: error });
  return new CallError("unreachable", `${where}: ${text}`, { cause: error });
}

/** The reason under which a failed inbound handshake is counted. */
function refusalReason(error: unknown): string {
  if (error instanceof Refusal) return error.verdict;
  if (error instanceof TimeoutError) return "auth-timeout";
  const text = error instanceof Error ? error.message : String(error);
  if (/error 120|no application protocol|peer doesn't support any known protocol/i.test(text)) {
    return "foreign-network";
  }
  if (/invalid peer certificate|CertificateUnknown|UnknownIssuer/i.test(text)) return "peer-refused-identity";
  if (/timed out/i.test(text)) return "auth-timeout";
  return "handshake-failed";
}

class TimeoutError extends Error {
  override readonly name = "TimeoutError";
}

/** Rejects after `ms`; a result that comes later goes to `onLate`. */
function raceTimeout<T>(work: Promise<T>, ms: number, onLate: (value: T) => void): Promise<T> {
  return new Promise((resolve, reject) => {
    let over = false;
    const timer = setTimeout(() => {
      over = true;
      reject(new TimeoutError(`nothing within ${ms} ms`));
    }, ms);
    work.then((value) => {
      clearTimeout(timer);
      if (over) onLate(value);
      else resolve(value);
    }, (error) => {
      clearTimeout(timer);
      reject(error);
    });
  });
}

/** Rejects when the signal aborts; a result that comes later goes to `onLate`. */
function raceAbort<T>(work: Promise<T>, signal: AbortSignal, onLate: (value: T) => void): Promise<T> {
  return new Promise((resolve, reject) => {
    let over = false;
    const onAbort = () => {
      over = true;
      reject(signal.reason ?? new Error("aborted"));
    };
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
    work.then((value) => {
      signal.removeEventListener("abort", onAbort);
      if (over) onLate(value);
      else resolve(value);
    }, (error) => {
      signal.removeEventListener("abort", onAbort);
      reject(error);
    });
  });
}
