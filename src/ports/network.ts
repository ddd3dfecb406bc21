/**
 * The network port: authenticated channels between nodes and calls over them.
 *
 * Implemented by `edge/p2p` (libp2p on QUIC and TCP) and by the simulator. One
 * compliance suite (`tests/compliance/network.ts`) runs on every implementation.
 *
 * @module
 */

/** What carries a channel. */
export type TransportName = "quic" | "tcp" | "memory";

/** An open, mutually authenticated channel to another node. */
export interface Peer {
  /** PeerId text of the remote node, proved by the channel. */
  readonly nodeId: string;
  /** Raw Ed25519 public key of the remote node, 32 bytes. */
  readonly publicKey: Uint8Array;
  /** Multiaddr of the remote end, without the `/p2p/…` part. */
  readonly remoteAddress: string;
  readonly transport: TransportName;
  readonly direction: "inbound" | "outbound";
  /** Wall clock when the channel was ready, milliseconds since the epoch. */
  readonly openedMs: number;
  /**
   * 32 bytes that both ends of this one channel share and no other channel has,
   * or `undefined` where the transport cannot give any (TCP/Noise as libp2p ships it).
   */
  readonly channelBinding: Uint8Array | undefined;
}

/** A call from another node, as handed to {@linkcode NetworkHandlers.onCall}. */
export interface InboundCall {
  readonly peer: Peer;
  /** Method name, at most 64 ASCII characters, for example `join.hello`. */
  readonly method: string;
  /** Body as sent: deterministic CBOR, at most `LIMITS.frameBytesMax`. */
  readonly body: Uint8Array;
  /** Milliseconds that the caller still waits, at most `LIMITS.callTimeoutMsMax`. */
  readonly timeoutMs: number;
  /** Aborts when the caller cancels, the deadline passes or the channel closes. */
  readonly signal: AbortSignal;
  /** Sends one message; resolves when the transport takes more (backpressure). */
  send(message: Uint8Array): Promise<void>;
}

/** How a call failed: `code` is stable, `message` is for people. */
export class CallError extends Error {
  override readonly name = "CallError";
  /**
   * @param code Stable, lower-case, dashes: `not-a-member`, `unknown-method`, `timeout`, `cancelled`, `unreachable`, `overloaded`, `bad-frame`, …
   * @param message One sentence for a person.
   * @param options `cause` where there is one.
   */
  constructor(readonly code: string, message: string, options?: ErrorOptions) {
    super(message, options);
  }
}

/** Options of {@linkcode Network.call}. */
export interface CallOptions {
  /** Milliseconds until the call fails with code `timeout`. */
  readonly timeoutMs: number;
  /** Cancels the call; the callee's signal aborts. */
  readonly signal?: AbortSignal;
}

/** What an implementation tells its owner. Handlers must not throw. */
export interface NetworkHandlers {
  /**
   * A channel is open and both node keys are proved. At most one channel per node is reported open at a time: where
   * both ends dial at once, one of the two is dropped before it is told of.
   */
  onPeer(peer: Peer): void;
  /**
   * The last channel to that node has closed. `reason` is stable where this end knows it: what
   * {@linkcode Network.hangUp} was given, `closed` (by the other end), `idle-timeout`, `tampered`, `restarted`
   * (another process of that node has opened a channel, which is told of next), `replaced` (the node opened another
   * one, having lost this), `stopped`.
   */
  onPeerGone(nodeId: string, reason: string): void;
  /**
   * Serves a call: send zero or more messages through `call.send`, then return to end the
   * stream normally, or throw a {@linkcode CallError} to end it with its code.
   */
  onCall(call: InboundCall): Promise<void>;
  /**
   * The machine behind a channel says that no process listens there any more. The channel stays open: a hint, on
   * which to ask the node itself.
   */
  onGone?(nodeId: string): void;
  /** A datagram has come in on an open channel, at most `LIMITS.datagramBytesMax` bytes. */
  onDatagram?(nodeId: string, bytes: Uint8Array): void;
  /**
   * A handshake or frame was refused. `reason` is a stable code and becomes a metric label: `foreign-network`,
   * `bad-client-signature`, `auth-timeout`, `overloaded`, `bad-version`, `wrong-identity`, `peer-refused-identity`
   * (a dialer wanted another node), `duplicate` (simultaneous dial, harmless), `handshake-failed`, `tampered`,
   * `bad-frame`, `request-timeout`, `handler-failed`, `datagram-flood`. `remoteAddress` is empty where it is not known.
   */
  onRefused(reason: string, remoteAddress: string): void;
}

/** Byte counters since start, payload of streams and datagrams only unless said otherwise. */
export interface NetworkCounters {
  readonly bytesIn: number;
  readonly bytesOut: number;
  readonly callsIn: number;
  readonly callsOut: number;
  readonly refused: ReadonlyMap<string, number>;
}

/** Authenticated channels to other nodes, and calls over them. */
export interface Network {
  /** PeerId text of this node. */
  readonly nodeId: string;
  /** Multiaddrs on which this node can be reached, each ending in `/p2p/<nodeId>`; empty unless it runs. */
  addresses(): readonly string[];
  /**
   * Opens the sockets. Once in the life of an object.
   *
   * @throws {Error} One line that says which address cannot be listened on, and why.
   */
  start(): Promise<void>;
  /** Closes all channels and sockets. Idempotent. */
  stop(): Promise<void>;
  /**
   * Opens a channel, or returns the one that is open. The address must end in `/p2p/<nodeId>`, except
   * over TCP, where the node id is then learnt from the Noise handshake.
   *
   * @throws {CallError} `unreachable`, `wrong-identity`, `foreign-network`, `bad-certificate` (a clock is wrong),
   *   `overloaded`, `timeout`, `cancelled`.
   */
  dial(address: string, options: { readonly signal: AbortSignal }): Promise<Peer>;
  /** Closes the channel to a node, if any. */
  hangUp(nodeId: string, reason: string): Promise<void>;
  /** The open channels, one per node. */
  peers(): readonly Peer[];
  /**
   * Calls a method on a node that a channel is open to; yields the messages of the answer. Leaving the
   * loop early cancels the call. Nothing is sent before the first message is asked for, and the callee is held
   * back while none is asked for.
   *
   * @throws {CallError} `unreachable` (no channel, or lost under way), `timeout`, `cancelled`, `overloaded`,
   *   `bad-frame` (method or body not allowed, or the answer is none), `internal` (the callee failed), or the code
   *   that the callee gave.
   */
  call(nodeId: string, method: string, body: Uint8Array, options: CallOptions): AsyncIterable<Uint8Array>;
  /**
   * Sends a datagram on the channel to a node, without promise of arrival, of order or of arriving once. Returns
   * `false` where there is no channel, the datagram is larger than `LIMITS.datagramBytesMax`, or too much waits
   * already. Beyond `LIMITS.datagramsPerPeerPerSecondMax` the receiver drops them.
   */
  sendDatagram(nodeId: string, bytes: Uint8Array): boolean;
  /**
   * Puts a new leaf certificate into service for new channels; open channels and streams stay. Happens by itself
   * when half of a leaf's life is over.
   */
  rotateLeaf(): Promise<void>;
  counters(): NetworkCounters;
}
