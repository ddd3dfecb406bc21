/** {@linkcode Network} on libp2p: which channels there are, which one of a node counts, and calls over it. @module */

import {
  type Connection,
  type MultiaddrConnection,
  type PrivateKey,
  type Stream,
  type Transport,
  type Upgrader,
} from "@libp2p/interface";
import { createLibp2p } from "libp2p";
import { tcp } from "@libp2p/tcp";
import { privateKeyFromRaw } from "@libp2p/crypto/keys";
import { multiaddr } from "@multiformats/multiaddr";
import { concatBytes, toHex } from "../../core/bytes.ts";
import { hkdfSha256, type KeyPair } from "../../core/crypto.ts";
import { formatAddress, nodeIdOf, parseAddress } from "../../core/ids.ts";
import { LIMITS } from "../../core/limits.ts";
import {
  CallError,
  type CallOptions,
  type Network,
  type NetworkCounters,
  type NetworkHandlers,
  type Peer,
} from "../../ports/network.ts";
import { expandListening, isWildcard, type Listening, mergeWildcards, parseListen, plainHost } from "./addresses.ts";
import { Deadlines } from "../deadline.ts";
import { type ByteStream, LibP2pByteStream } from "./byte_stream.ts";
import { prepareEntropy } from "./entropy.ts";
import {
  DatagramGate,
  type DatagramSender,
  QuicDatagrams,
  readQuicDatagrams,
  readStreamDatagrams,
  StreamDatagrams,
} from "./datagrams.ts";
import type { Verdict } from "./quic_auth.ts";
import { type QuicChannel, QuicTransport } from "./quic_transport.ts";
import { type CallChannel, callOver, KeptStreams, serveCalls } from "./rpc.ts";
import { tcpSecurity } from "./tcp_security.ts";
import { readOpening, writeOpening } from "./opening.ts";
import { SENTINEL_METHOD, Sentinels, type SentinelSocket } from "./sentinel.ts";

/** Options of {@linkcode createP2pNetwork}. */
export interface P2pOptions {
  /** The node's Ed25519 key. */
  readonly keyPair: KeyPair;
  /** 32 bytes. */
  readonly networkId: Uint8Array;
  /** 32 bytes that members of the network share; the pre-shared key of TCP comes from it. */
  readonly discoverySecret: Uint8Array;
  /** Multiaddrs to listen on; port 0 takes a free one. Empty: dial only. */
  readonly listen: readonly string[];
  /** Multiaddrs told to others before those found, for a node behind a forwarder. */
  readonly advertise?: readonly string[];
  /** Open channels; beyond, new inbound ones are refused `overloaded`. @default LIMITS.channelsMax */
  readonly channelsMax?: number;
  /** Milliseconds between keep-alives, sent by the dialer of a channel. @default 15000 */
  readonly keepAliveMs?: number;
  /** Milliseconds of silence after which a channel is closed. @default three times keepAliveMs */
  readonly idleTimeoutMs?: number;
  /** Milliseconds that a leaf certificate is valid. @default 86400000 */
  readonly leafLifetimeMs?: number;
  /** Milliseconds for authentication, after which a handshake is refused. @default 5000 */
  readonly authTimeoutMs?: number;
  /** Inbound handshakes under way at once. @default 64 */
  readonly handshakesMax?: number;
  /** Which transports run. @default both */
  readonly transports?: readonly ("quic" | "tcp")[];
}

/** Makes a network; it does nothing before {@linkcode Network.start}. */
export function createP2pNetwork(options: P2pOptions, handlers: NetworkHandlers): Network {
  return new P2pNetwork(options, handlers);
}

/** A channel with what it takes to use it. */
interface Channel extends CallChannel {
  readonly peer: Peer;
  /** Hex of 16 random bytes of the peer's process. */
  readonly instance: string;
  readonly datagrams: DatagramSender;
  /** Bounds the datagrams that come in. */
  readonly gate: DatagramGate;
  close(): void;
  /** Aborts when the channel has closed. */
  readonly closed: AbortController;
  callsIn: number;
}

/** A dial under way to a node. */
interface Dialing {
  readonly aborter: AbortController;
  /** The handshake below authentication is through: the other end answers, and will hear this dial out. */
  connected: boolean;
}

/** What is used of libp2p's object beyond its public type. */
interface Host {
  start(): Promise<void>;
  stop(): Promise<void>;
  handle(protocol: string, handler: (stream: Stream, connection: Connection) => void, options: object): Promise<void>;
  addEventListener(type: string, listener: (event: CustomEvent<Connection>) => void): void;
  readonly components: {
    readonly addressManager: { _updatePeerStoreAddresses: () => void };
    readonly transportManager: {
      dial(address: ReturnType<typeof multiaddr>, options: object): Promise<Connection>;
      getListeners(): { getAddrs(): ReturnType<typeof multiaddr>[] }[];
    };
  };
}

/**
 * Milliseconds after which a second channel of the same peer takes the place of the first. Longer than a busy dialer
 * takes to close its surplus channel: promoting that one would drop the good one.
 */
const SPARE_PROMOTE_MS = 3_000;
/** Milliseconds after its start at which a node that dials nobody gets ready for who dials it. */
const ENTROPY_DELAY_MS = 400;
/** Milliseconds that a refused dialer has for reading the verdict. */
const REFUSAL_LINGER_MS = 500;
/** Milliseconds that a refused simultaneous dial waits for the other one. */
const DUPLICATE_WAIT_MS = 2_000;

class P2pNetwork implements Network {
  readonly nodeId: string;
  readonly #options: P2pOptions;
  readonly #handlers: NetworkHandlers;
  #listen: readonly Listening[];
  readonly #transports: ReadonlySet<"quic" | "tcp">;
  readonly #instance = crypto.getRandomValues(new Uint8Array(16));
  readonly #keepAliveMs: number;
  readonly #rpcProtocol: string;
  readonly #openProtocol: string;
  readonly #datagramProtocol: string;
  readonly #sentinels = new Sentinels({
    port: () => this.#tcpPort(),
    onGone: (nodeId) => this.#handlers.onGone?.(nodeId),
  });
  /** The channel of each node that counts, reported to the owner. */
  readonly #channels = new Map<string, Channel>();
  /** Further channels of the same nodes, on their way out or in. */
  readonly #spares = new Map<string, Set<Channel>>();
  readonly #dialing = new Map<string, Set<Dialing>>();
  /** Who waits for a channel to a node, whoever opens it. */
  readonly #awaiting = new Map<string, Set<(peer: Peer) => void>>();
  readonly #counter = { bytesIn: 0, bytesOut: 0 };
  /** Of all calls. */
  readonly #deadlines = new Deadlines();
  readonly #refused = new Map<string, number>();
  #callsIn = 0;
  #callsOut = 0;
  #callsOpen = 0;
  #state: "new" | "starting" | "started" | "stopped" = "new";
  #entropyTimer: ReturnType<typeof setTimeout> | undefined;
  #host: Host | undefined;
  #quic: QuicTransport | undefined;
  #stopping: Promise<void> | undefined;

  constructor(options: P2pOptions, handlers: NetworkHandlers) {
    this.#options = options;
    this.#handlers = handlers;
    this.nodeId = nodeIdOf(options.keyPair.publicKey);
    this.#transports = new Set(options.transports ?? ["quic", "tcp"]);
    this.#listen = options.listen.map(parseListen).filter(({ transport }) => this.#transports.has(transport));
    this.#keepAliveMs = options.keepAliveMs ?? 15_000;
    const prefix = `/mycelium/${toHex(options.networkId).slice(0, 16)}`;
    this.#rpcProtocol = `${prefix}/rpc/1.0.0`;
    this.#openProtocol = `${prefix}/open/1.0.0`;
    this.#datagramProtocol = `${prefix}/datagram/1.0.0`;
  }

  async start(): Promise<void> {
    if (this.#state !== "new") throw new TypeError(`Cannot start network: it is ${this.#state}`);
    // Before the first handshake, and not beside the start itself: a small board has better to do.
    this.#entropyTimer = setTimeout(prepareEntropy, ENTROPY_DELAY_MS);
    this.#state = "starting";
    this.#listen = mergeWildcards(this.#listen, machineOf());
    const host = await this.#createHost();
    this.#host = host;
    await host.handle(
      this.#rpcProtocol,
      (stream, connection) => this.#onTcpCall(stream, connection),
      // The count of calls is kept by this class.
      { maxInboundStreams: LIMITS.inboundCallsPerPeerMax * 4, maxOutboundStreams: LIMITS.inboundCallsMax * 4 },
    );
    await host.handle(
      this.#openProtocol,
      (stream, connection) => this.#onTcpOpening(stream, connection),
      { maxInboundStreams: 1, maxOutboundStreams: 1 },
    );
    await host.handle(
      this.#datagramProtocol,
      (stream, connection) => this.#onTcpDatagrams(stream, connection),
      // One at a time; one that failed may still be on its way out.
      { maxInboundStreams: 2, maxOutboundStreams: 2 },
    );
    try {
      await host.start();
    } catch (error) {
      this.#state = "stopped";
      await host.stop();
      throw listenError(error);
    }
    this.#state = "started";
  }

  async #createHost(): Promise<Host> {
    const { keyPair, networkId, discoverySecret } = this.#options;
    const keepAliveMs = this.#keepAliveMs;
    const idleTimeoutMs = this.#options.idleTimeoutMs ?? 3 * keepAliveMs;
    const privateKey = privateKeyFromRaw(concatBytes(keyPair.seed, keyPair.publicKey)) as PrivateKey;
    const transports: unknown[] = [];
    if (this.#transports.has("quic")) {
      transports.push((components: never) => {
        this.#quic = new QuicTransport(components, {
          keyPair,
          networkId,
          instance: this.#instance,
          keepAliveMs,
          idleTimeoutMs,
          leafLifetimeMs: this.#options.leafLifetimeMs ?? 86_400_000,
          authTimeoutMs: this.#options.authTimeoutMs ?? 5_000,
          handshakesMax: this.#options.handshakesMax ?? 64,
          // A few more than calls are taken, so that the next ones can be told so.
          streamsMax: LIMITS.inboundCallsPerPeerMax + 8,
          directProtocol: this.#rpcProtocol,
          isDualStack: this.#listen.some(({ isDual }) => isDual),
          admit: (nodeId, instance) => this.#admit(nodeId, instance),
          onChannel: (channel) => this.#onQuicChannel(channel),
          onRefused: (reason, address) => this.#onRefused(reason, address),
        });
        return this.#quic;
      });
    }
    if (this.#transports.has("tcp")) {
      transports.push((components: never) =>
        guarded(
          tcp({ outboundSocketInactivityTimeout: idleTimeoutMs, inboundSocketInactivityTimeout: idleTimeoutMs })(
            components,
          ),
          {
            handshakesMax: this.#options.handshakesMax ?? 64,
            onRefused: (reason, address) => this.#onRefused(reason, address),
            divert: (socket) => this.#sentinels.divert(socket, this.#options.authTimeoutMs ?? 5_000),
          },
        )
      );
    }
    const host = await createLibp2p({
      privateKey,
      addresses: { listen: this.#listen.map(listenText) },
      transports: transports as never,
      ...tcpSecurity(hkdfSha256(discoverySecret, "mycelium/pnet/v1")),
      connectionMonitor: { enabled: false },
      connectionManager: {
        // Limits of this class and of the transports hold instead; libp2p's start a timer for each address they see.
        allow: ["/ip4/0.0.0.0/ipcidr/0", "/ip6/::/ipcidr/0"],
        maxConnections: 2 * (this.#options.channelsMax ?? LIMITS.channelsMax),
        inboundUpgradeTimeout: this.#options.authTimeoutMs ?? 5_000,
      },
      start: false,
    } as never) as unknown as Host;
    // Nobody asks libp2p for this node's addresses; it would write them to its store a second after each change,
    // stopped or not.
    host.components.addressManager._updatePeerStoreAddresses = () => {};
    host.addEventListener("connection:open", (event) => this.#onLibP2pConnection(event.detail));
    return host;
  }

  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  async #stop(): Promise<void> {
    const started = this.#state === "started";
    this.#state = "stopped";
    clearTimeout(this.#entropyTimer);
    for (const dialings of this.#dialing.values()) {
      for (const dialing of dialings) dialing.aborter.abort(new CallError("cancelled", "The network is stopping"));
    }
    for (const channel of [...this.#channels.values()]) this.#drop(channel, "stopped");
    for (const spares of [...this.#spares.values()]) for (const channel of [...spares]) this.#drop(channel, "stopped");
    if (started) await this.#host?.stop();
    await this.#quic?.close();
    this.#deadlines.close();
  }

  addresses(): readonly string[] {
    if (this.#state !== "started" || !this.#host) return [];
    const listening: Listening[] = [];
    for (const listener of this.#host.components.transportManager.getListeners()) {
      const first = listener.getAddrs()[0];
      const address = first && parseAddress(first.toString());
      if (!address || address.family === "dns") continue;
      // libp2p's TCP listener gives concrete addresses only; the wildcard is known from what was asked for.
      const asked = this.#listen.find(({ transport, family, port, host }) =>
        transport === address.transport && family === address.family &&
        (port === address.port || port === 0) && (host === address.host || isWildcard(host))
      );
      listening.push({
        family: address.family,
        host: asked?.host ?? address.host,
        transport: address.transport,
        port: address.port,
        isDual: asked?.isDual ?? false,
      });
    }
    const interfaces = listening.some(({ host }) => isWildcard(host)) ? Deno.networkInterfaces() : [];
    return expandListening(listening, interfaces, { nodeId: this.nodeId, advertise: this.#options.advertise ?? [] });
  }

  async dial(address: string, options: { readonly signal: AbortSignal }): Promise<Peer> {
    const target = parseAddress(address);
    if (!target || (target.transport === "quic" && !target.nodeId)) {
      throw new CallError("unreachable", `Cannot dial "${address}": wanted a multiaddr that ends in /p2p/<node id>`);
    }
    if (this.#state !== "started") {
      throw new CallError("unreachable", `Cannot dial "${address}": the network is not up`);
    }
    void prepareEntropy();
    if (!this.#transports.has(target.transport)) {
      throw new CallError("unreachable", `Cannot dial "${address}": ${target.transport} is switched off`);
    }
    if (target.nodeId === this.nodeId) {
      throw new CallError("wrong-identity", `Cannot dial "${address}": that is this node`);
    }
    if (options.signal.aborted) throw abortError(options.signal, address);
    const open = target.nodeId && this.#channels.get(target.nodeId);
    if (open) return open.peer;
    if (this.#channels.size >= (this.#options.channelsMax ?? LIMITS.channelsMax)) {
      throw new CallError("overloaded", `Cannot dial "${address}": all ${this.#channels.size} channels are taken`);
    }
    const dialing: Dialing = { aborter: new AbortController(), connected: false };
    // Not the caller's signal itself: a socket that got it may close when it aborts long after the dial (Deno 2.6).
    const { signal } = dialing.aborter;
    const onAbort = () => dialing.aborter.abort(options.signal.reason);
    options.signal.addEventListener("abort", onAbort, { once: true });
    if (target.nodeId) addTo(this.#dialing, target.nodeId, dialing);
    // Whoever opens the channel first, this dial is done.
    const other = target.nodeId ? this.#awaitPeer(target.nodeId, signal) : undefined;
    let phase = "connect";
    try {
      const dialed = this.#dialTransport(address, target.transport, signal, (event) => {
        if (event === "quic:connected" || event.startsWith("upgrader:")) dialing.connected = true;
        phase = event;
      });
      dialed.catch(() => {});
      return await (other ? Promise.race([dialed, other.promise]) : dialed);
    } catch (error) {
      if (error instanceof CallError && error.code === "duplicate" && other) {
        return await this.#awaitDuplicate(other.promise, error);
      }
      if (options.signal.aborted) {
        // An unanswered Noise handshake behind another pre-shared key is silence.
        if (phase.startsWith("upgrader:encrypt")) throw foreignError(address);
        throw abortError(options.signal, address);
      }
      throw dialError(error, address, phase);
    } finally {
      other?.dispose();
      options.signal.removeEventListener("abort", onAbort);
      if (target.nodeId) removeFrom(this.#dialing, target.nodeId, dialing);
    }
  }

  async #dialTransport(
    address: string,
    transport: "quic" | "tcp",
    signal: AbortSignal,
    onPhase: (phase: string) => void,
  ): Promise<Peer> {
    const connection = await this.#host!.components.transportManager.dial(multiaddr(address), {
      signal,
      onProgress: (event: { readonly type: string }) => onPhase(event.type),
    });
    const nodeId = connection.remotePeer.toString();
    if (transport === "tcp") await this.#openTcp(connection, signal);
    const channel = this.#channels.get(nodeId);
    if (!channel) throw new CallError("unreachable", `Cannot dial "${address}": the channel closed at once`);
    return channel.peer;
  }

  #awaitPeer(nodeId: string, signal: AbortSignal) {
    const { promise, resolve, reject } = Promise.withResolvers<Peer>();
    promise.catch(() => {});
    const onAbort = () => reject(signal.reason);
    addTo(this.#awaiting, nodeId, resolve);
    signal.addEventListener("abort", onAbort, { once: true });
    return {
      promise,
      dispose: () => {
        removeFrom(this.#awaiting, nodeId, resolve);
        signal.removeEventListener("abort", onAbort);
      },
    };
  }

  async #awaitDuplicate(other: Promise<Peer>, error: CallError): Promise<Peer> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<never>((_, reject) => timer = setTimeout(() => reject(error), DUPLICATE_WAIT_MS));
    try {
      return await Promise.race([other, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  // deno-lint-ignore require-await -- the port wants a promise
  async hangUp(nodeId: string, reason: string): Promise<void> {
    for (const spare of [...this.#spares.get(nodeId) ?? []]) this.#drop(spare, reason);
    const channel = this.#channels.get(nodeId);
    if (channel) this.#drop(channel, reason);
  }

  peers(): readonly Peer[] {
    return [...this.#channels.values()].map(({ peer }) => peer);
  }

  call(nodeId: string, method: string, body: Uint8Array, options: CallOptions): AsyncIterable<Uint8Array> {
    const find = () => {
      const channel = this.#channels.get(nodeId);
      if (!channel) throw new CallError("unreachable", `Cannot call "${method}": no channel to ${nodeId}`);
      this.#callsOut++;
      return channel;
    };
    return callOver(find, method, body, { ...options, counter: this.#counter, deadlines: this.#deadlines });
  }

  sendDatagram(nodeId: string, bytes: Uint8Array): boolean {
    if (bytes.length > LIMITS.datagramBytesMax) return false;
    const sent = this.#channels.get(nodeId)?.datagrams.send(bytes) ?? false;
    if (sent) this.#counter.bytesOut += bytes.length;
    return sent;
  }

  // deno-lint-ignore require-await -- the port wants a promise
  async rotateLeaf(): Promise<void> {
    this.#quic?.rotateLeaf();
  }

  counters(): NetworkCounters {
    return {
      ...this.#counter,
      callsIn: this.#callsIn,
      callsOut: this.#callsOut,
      refused: new Map(this.#refused),
    };
  }

  #onRefused(reason: string, address: string): void {
    this.#refused.set(reason, (this.#refused.get(reason) ?? 0) + 1);
    this.#handlers.onRefused(reason, address);
  }

  /** Whether an inbound channel of a proved node is taken. */
  #admit(nodeId: string, instance: string): Verdict {
    if (this.#state !== "started") return "overloaded";
    const current = this.#channels.get(nodeId);
    if (!current && this.#channels.size >= (this.#options.channelsMax ?? LIMITS.channelsMax)) return "overloaded";
    if (current && current.instance === instance && (this.#spares.get(nodeId)?.size ?? 0) >= 2) return "overloaded";
    if (!current && this.nodeId < nodeId) {
      // Both dial at once. The node with the smaller id decides: its own dial where that is sure to get through.
      for (const dialing of this.#dialing.get(nodeId) ?? []) if (dialing.connected) return "duplicate";
    }
    return "ok";
  }

  #onQuicChannel(quic: QuicChannel): void {
    const channel: Channel = {
      peer: {
        nodeId: quic.nodeId,
        publicKey: quic.publicKey,
        remoteAddress: quic.remoteAddress,
        transport: "quic",
        direction: quic.direction,
        openedMs: Date.now(),
        channelBinding: quic.channelBinding,
      },
      instance: quic.instance,
      open: () => quic.openDirect(),
      kept: new KeptStreams(this.#deadlines),
      datagrams: new QuicDatagrams(quic.conn),
      gate: this.#gate(quic.remoteAddress),
      close() {
        try {
          quic.conn.close({ closeCode: 0, reason: "" });
        } catch {
          // It was closed already.
        }
      },
      closed: new AbortController(),
      callsIn: 0,
    };
    quic.conn.closed.then(
      () => this.#drop(channel, "closed"),
      (error: Error) => this.#drop(channel, closeReason(error)),
    );
    this.#register(channel);
    quic.accept((stream) => this.#serve(stream, channel));
    // What came before this moment waited in the connection: nothing is read before the channel is proved.
    void readQuicDatagrams(quic.conn, (bytes) => this.#onDatagram(channel, bytes));
  }

  #gate(remoteAddress: string): DatagramGate {
    return new DatagramGate(() => this.#onRefused("datagram-flood", remoteAddress));
  }

  #onDatagram(channel: Channel, bytes: Uint8Array): void {
    const { nodeId } = channel.peer;
    // On a surplus channel too: the other end may count that one. None is told of where the owner knows no channel.
    if (channel.closed.signal.aborted || !this.#channels.has(nodeId)) return;
    if (!channel.gate.take(bytes.length, performance.now())) return;
    this.#counter.bytesIn += bytes.length;
    this.#handlers.onDatagram?.(nodeId, bytes);
  }

  readonly #tcpChannels = new Map<Connection, Channel>();
  /** Inbound TCP connections whose opening did not come yet. */
  readonly #tcpPending = new Map<Connection, ReturnType<typeof setTimeout>>();

  #onLibP2pConnection(connection: Connection): void {
    if (parseAddress(connection.remoteAddr.toString())?.transport !== "tcp") return;
    if (connection.direction !== "inbound") return;
    if (this.#tcpPending.size >= (this.#options.handshakesMax ?? 64)) {
      this.#onRefused("overloaded", addressOf(connection));
      abortConnection(connection, "too many handshakes under way");
      return;
    }
    const timer = setTimeout(() => {
      this.#tcpPending.delete(connection);
      this.#onRefused("auth-timeout", addressOf(connection));
      abortConnection(connection, "no opening");
    }, this.#options.authTimeoutMs ?? 5_000);
    this.#tcpPending.set(connection, timer);
    connection.addEventListener("close", () => this.#tcpForget(connection), { once: true });
  }

  #tcpForget(connection: Connection): void {
    clearTimeout(this.#tcpPending.get(connection));
    this.#tcpPending.delete(connection);
  }

  /** The dialer's half of the opening of a TCP channel. */
  async #openTcp(connection: Connection, signal: AbortSignal): Promise<void> {
    try {
      const stream = await connection.newStream(this.#openProtocol, { signal });
      const bytes = new LibP2pByteStream(stream);
      const onAbort = () => bytes.reset();
      signal.addEventListener("abort", onAbort, { once: true });
      try {
        await writeOpening(bytes, "ok", this.#instance);
        const { verdict, instance } = await readOpening(bytes);
        if (verdict !== "ok") {
          throw new CallError(verdict, `The node refused the channel: ${verdict}`);
        }
        await bytes.closeWrite();
        this.#registerTcp(connection, instance);
      } finally {
        signal.removeEventListener("abort", onAbort);
      }
    } catch (error) {
      abortConnection(connection, "opening failed");
      throw error;
    }
  }

  /** The listener's half of the opening of a TCP channel. */
  async #onTcpOpening(stream: Stream, connection: Connection): Promise<void> {
    const bytes = new LibP2pByteStream(stream);
    try {
      if (!this.#tcpPending.has(connection)) throw new Error("opening out of turn");
      const { instance } = await readOpening(bytes);
      const verdict = this.#admit(connection.remotePeer.toString(), instance);
      await writeOpening(bytes, verdict, this.#instance);
      await bytes.closeWrite();
      this.#tcpForget(connection);
      if (verdict === "ok") this.#registerTcp(connection, instance);
      else {
        this.#onRefused(verdict, addressOf(connection));
        // The dialer closes when it has read the verdict.
        const timer = setTimeout(() => abortConnection(connection, verdict), REFUSAL_LINGER_MS);
        connection.addEventListener("close", () => clearTimeout(timer), { once: true });
      }
    } catch {
      bytes.reset();
    }
  }

  #registerTcp(connection: Connection, instance: string): void {
    const { remotePeer, direction } = connection;
    if (connection.status !== "open" || remotePeer.type !== "Ed25519") throw new Error("connection closed");
    const channel: Channel = {
      peer: {
        nodeId: remotePeer.toString(),
        publicKey: remotePeer.publicKey.raw,
        remoteAddress: addressOf(connection),
        transport: "tcp",
        direction,
        openedMs: Date.now(),
        channelBinding: undefined,
      },
      instance,
      open: async () => new LibP2pByteStream(await connection.newStream(this.#rpcProtocol)),
      kept: new KeptStreams(this.#deadlines),
      datagrams: new StreamDatagrams(async () =>
        new LibP2pByteStream(await connection.newStream(this.#datagramProtocol))
      ),
      gate: this.#gate(addressOf(connection)),
      close: () => abortConnection(connection, "closed"),
      closed: new AbortController(),
      callsIn: 0,
    };
    this.#tcpChannels.set(connection, channel);
    if (direction === "outbound") this.#keepAliveTcp(connection, channel);
    connection.addEventListener("close", ({ error }) => {
      this.#tcpChannels.delete(connection);
      const isTampered = error !== undefined &&
        /authenticate data|decryption|invalid tag|poly1305/i.test(error.message);
      if (isTampered) this.#onRefused("tampered", channel.peer.remoteAddress);
      this.#drop(channel, isTampered ? "tampered" : "closed");
    }, { once: true });
    this.#register(channel);
  }

  /**
   * Yamux pings from the dialer, as on QUIC; libp2p's own come from both ends and never fail. The listener closes
   * a connection on which nothing moves.
   */
  #keepAliveTcp(connection: Connection, channel: Channel): void {
    const { muxer } = connection as unknown as {
      readonly muxer: { ping(o: { signal: AbortSignal }): Promise<number> };
    };
    const aborter = new AbortController();
    let answered = true;
    const timer = setInterval(() => {
      if (!answered) {
        this.#drop(channel, "idle-timeout");
        return;
      }
      answered = false;
      muxer.ping({ signal: aborter.signal }).then(() => answered = true, () => {});
    }, this.#keepAliveMs);
    channel.closed.signal.addEventListener("abort", () => {
      clearInterval(timer);
      aborter.abort();
    }, { once: true });
  }

  #onTcpCall(stream: Stream, connection: Connection): void {
    const channel = this.#tcpChannels.get(connection);
    if (!channel) {
      stream.abort(new Error("no channel"));
      return;
    }
    this.#serve(new LibP2pByteStream(stream), channel);
  }

  async #onTcpDatagrams(stream: Stream, connection: Connection): Promise<void> {
    const channel = this.#tcpChannels.get(connection);
    if (!channel) {
      stream.abort(new Error("no channel"));
      return;
    }
    const bytes = new LibP2pByteStream(stream);
    const isWhole = await readStreamDatagrams(bytes, (datagram) => this.#onDatagram(channel, datagram));
    if (!isWhole) this.#onRefused("bad-frame", channel.peer.remoteAddress);
  }

  /** Takes a proved channel in, and decides whether it is the one that counts. */
  #register(channel: Channel): void {
    const { nodeId } = channel.peer;
    if (this.#state !== "started") {
      channel.close();
      return;
    }
    const current = this.#channels.get(nodeId);
    if (current && current.instance !== channel.instance) {
      // Another process: what the old channel led to is gone.
      for (const spare of [...this.#spares.get(nodeId) ?? []]) this.#drop(spare, "restarted");
      this.#drop(current, "restarted");
    } else if (current) {
      this.#keepSpare(channel, current);
      return;
    }
    this.#channels.set(nodeId, channel);
    this.#handlers.onPeer(channel.peer);
    for (const resolve of this.#awaiting.get(nodeId) ?? []) resolve(channel.peer);
    this.#guard(channel);
    if (channel.peer.direction === "outbound") return;
    for (const { aborter } of this.#dialing.get(nodeId) ?? []) {
      aborter.abort(new CallError("duplicate", "The node dialed first"));
    }
  }

  /** Has the kernel of the other end's machine tell when its process dies. A TCP channel does that by itself. */
  #guard({ peer, closed }: Channel): void {
    const address = parseAddress(peer.remoteAddress);
    if (!peer.channelBinding || !address || address.family === "dns" || !this.#transports.has("tcp")) return;
    this.#sentinels.watch({
      nodeId: peer.nodeId,
      host: address.host,
      direction: peer.direction,
      channelBinding: peer.channelBinding,
      closed: closed.signal,
      call: async (method, body) => {
        for await (const answer of this.call(peer.nodeId, method, body, { timeoutMs: 5_000 })) return answer;
      },
    });
  }

  /** The TCP port where others reach this node, 0 for none. */
  #tcpPort(): number {
    if (this.#state !== "started" || !this.#host) return 0;
    for (const listener of this.#host.components.transportManager.getListeners()) {
      const address = parseAddress(listener.getAddrs()[0]?.toString() ?? "");
      if (address?.transport === "tcp") return address.port;
    }
    return 0;
  }

  /** Two channels to one process: the dialer closes its own surplus; one that stays has lost the other. */
  #keepSpare(spare: Channel, current: Channel): void {
    const { nodeId, direction } = spare.peer;
    if (direction === "outbound") {
      spare.close();
      return;
    }
    addTo(this.#spares, nodeId, spare);
    const timer = setTimeout(() => {
      if (spare.closed.signal.aborted || this.#channels.get(nodeId) !== current) return;
      removeFrom(this.#spares, nodeId, spare);
      this.#drop(current, "replaced");
      this.#register(spare);
    }, SPARE_PROMOTE_MS);
    spare.closed.signal.addEventListener("abort", () => clearTimeout(timer), { once: true });
  }

  /** Closes a channel and forgets it; once per channel. */
  #drop(channel: Channel, reason: string): void {
    if (channel.closed.signal.aborted) return;
    channel.closed.abort(new CallError("unreachable", `The channel closed: ${reason}`));
    channel.close();
    const { nodeId } = channel.peer;
    removeFrom(this.#spares, nodeId, channel);
    if (this.#channels.get(nodeId) !== channel) return;
    this.#channels.delete(nodeId);
    const next = this.#spares.get(nodeId)?.values().next().value;
    if (next && next.instance === channel.instance && reason !== "replaced") {
      // The peer closed its surplus, and it was the one that counted here: the owner sees one channel all along.
      removeFrom(this.#spares, nodeId, next);
      this.#channels.set(nodeId, next);
      return;
    }
    this.#handlers.onPeerGone(nodeId, reason);
  }

  #serve(stream: ByteStream, channel: Channel): void {
    void serveCalls(stream, {
      peer: channel.peer,
      onCall: (call) =>
        call.method === SENTINEL_METHOD
          ? call.send(this.#sentinels.answer(call.peer.channelBinding, call.body))
          : this.#handlers.onCall(call),
      admit: () => {
        if (this.#callsOpen >= LIMITS.inboundCallsMax || channel.callsIn >= LIMITS.inboundCallsPerPeerMax) return false;
        this.#callsOpen++;
        channel.callsIn++;
        this.#callsIn++;
        return true;
      },
      release: () => {
        this.#callsOpen--;
        channel.callsIn--;
      },
      onRefused: (reason) => this.#onRefused(reason, channel.peer.remoteAddress),
      counter: this.#counter,
      deadlines: this.#deadlines,
      signal: channel.closed.signal,
    });
  }
}

function listenText({ family, host, transport, port }: Listening): string {
  return `/${family}/${host}/${transport === "quic" ? `udp/${port}/quic-v1` : `tcp/${port}`}`;
}

/** What libp2p says about a failed start is a page of stack traces; one line of it matters. */
function listenError(error: unknown): Error {
  const text = error instanceof Error ? error.message : String(error);
  const [, address, cause] = /^\s*(\/ip[46]\/\S+): (.*)$/m.exec(text) ?? [];
  if (!address) return new Error(`Cannot start network: ${text}`, { cause: error });
  const cure = /AddrInUse|EADDRINUSE/.test(cause!)
    ? "another program has that port, stop it or set another port"
    : "check the address and the rights";
  return new Error(`Cannot listen on "${address}": ${cause}; ${cure}`, { cause: error });
}

/** Ends a connection of libp2p at once, in whatever state it is. */
function abortConnection(connection: Connection, why: string): void {
  try {
    connection.abort(new Error(why));
  } catch {
    // Yamux says goodbye first, and fails where Noise or the socket has closed already.
  }
}

/** What this machine's sockets can do. */
function machineOf(): { readonly hasIpv6: boolean; readonly isDualStack: boolean } {
  let hasIpv6 = true;
  try {
    Deno.listenDatagram({ transport: "udp", hostname: "::", port: 0 }).close();
  } catch {
    hasIpv6 = false;
  }
  let isDualStack = true;
  try {
    isDualStack = Deno.readTextFileSync("/proc/sys/net/ipv6/bindv6only").trim() !== "1";
  } catch {
    // No such setting, or no right to read it: the default of Linux.
  }
  return { hasIpv6, isDualStack };
}

function addressOf(connection: Connection): string {
  const address = parseAddress(connection.remoteAddr.toString());
  if (!address) return connection.remoteAddr.toString();
  const host = address.family === "dns" ? {} : plainHost(address.host);
  const { nodeId: _, ...rest } = address;
  return formatAddress({ ...rest, ...host });
}

function addTo<V>(map: Map<string, Set<V>>, key: string, value: V): void {
  let set = map.get(key);
  if (!set) map.set(key, set = new Set());
  set.add(value);
}

function removeFrom<V>(map: Map<string, Set<V>>, key: string, value: V): void {
  const set = map.get(key);
  if (set?.delete(value) && set.size === 0) map.delete(key);
}

function closeReason(error: Error): string {
  if (/timed out/i.test(error.message)) return "idle-timeout";
  return "closed";
}

function abortError(signal: AbortSignal, address: string): CallError {
  const reason = signal.reason;
  if (reason instanceof CallError) return reason;
  if (reason instanceof DOMException && reason.name === "TimeoutError") {
    return new CallError("timeout", `Cannot dial "${address}": no channel in the time given`);
  }
  return new CallError("cancelled", `Cannot dial "${address}": cancelled`);
}

function foreignError(address: string): CallError {
  return new CallError("foreign-network", `Cannot dial "${address}": it answers, but not with this network's key`);
}

function dialError(error: unknown, address: string, phase: string): CallError {
  if (error instanceof CallError) return error;
  const { name, message } = error instanceof Error ? error : new Error(String(error));
  if (
    name === "UnexpectedPeerError" || /does not match expected remote identity/i.test(message)
  ) {
    return new CallError("wrong-identity", `Cannot dial "${address}": another node answers there`, { cause: error });
  }
  if (phase.startsWith("upgrader:encrypt")) return foreignError(address);
  return new CallError("unreachable", `Cannot dial "${address}": ${message}`, { cause: error });
}

/**
 * A libp2p TCP transport whose sockets send at once, with a bound on inbound handshakes under way, and with those that
 * fail counted.
 */
function guarded(
  transport: Transport,
  options: {
    readonly handshakesMax: number;
    readonly onRefused: (reason: string, address: string) => void;
    /** Takes a connection that is no channel. */
    readonly divert: (socket: SentinelSocket) => Promise<boolean>;
  },
): Transport {
  let handshakes = 0;
  const dial = transport.dial.bind(transport);
  transport.dial = (address, dialOptions) => {
    const upgrader: Upgrader = Object.create(dialOptions.upgrader);
    upgrader.upgradeOutbound = (connection, init) => {
      tameSocket(connection);
      return dialOptions.upgrader.upgradeOutbound(connection, init);
    };
    return dial(address, { ...dialOptions, upgrader });
  };
  const create = transport.createListener.bind(transport);
  transport.createListener = (listenerOptions) => {
    const upgrader: Upgrader = Object.create(listenerOptions.upgrader);
    upgrader.upgradeInbound = async (connection, init) => {
      if (handshakes >= options.handshakesMax) {
        options.onRefused("overloaded", connection.remoteAddr.toString());
        throw new Error("too many handshakes under way");
      }
      handshakes++;
      tameSocket(connection);
      try {
        if (await options.divert(socketOf(connection))) return;
        await listenerOptions.upgrader.upgradeInbound(connection, init);
      } catch (error) {
        if (!init?.signal?.aborted) options.onRefused(tcpRefusal(error), connection.remoteAddr.toString());
        throw error;
      } finally {
        handshakes--;
      }
    };
    return create({ ...listenerOptions, upgrader });
  };
  return transport;
}

/**
 * Makes up for what libp2p and Deno leave open: small writes must not wait for acknowledgements, and an aborted
 * connection must close its socket (after `resetAndDestroy` of Deno 2.7 the other end may hear nothing).
 */
function tameSocket(connection: MultiaddrConnection): void {
  const tcp = connection as unknown as {
    readonly socket: { setNoDelay(on: boolean): void; destroy(): void };
    sendReset: () => void;
  };
  tcp.socket.setNoDelay(true);
  tcp.sendReset = () => tcp.socket.destroy();
}

function socketOf(connection: MultiaddrConnection): SentinelSocket {
  return (connection as unknown as { readonly socket: SentinelSocket }).socket;
}

/** Behind another pre-shared key everything is noise, so what fails before Noise has begun is another network. */
function tcpRefusal(error: unknown): string {
  const { name, message } = error as Error;
  if (name === "ConnectionDeniedError") return "overloaded";
  if (name === "EncryptionFailedError" && !/decrypt|handshake|payload|signature/i.test(message)) {
    return "foreign-network";
  }
  if (name === "AbortError" || name === "TimeoutError") return "auth-timeout";
  return "handshake-failed";
}
