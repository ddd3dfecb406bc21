/** A UDP socket with a bounded receive loop. @module */

/** Options of {@linkcode openUdp}. */
export interface UdpOptions {
  /** IP address, with a zone for IPv6 link-local ones. */
  readonly hostname: string;
  /** 0: any. */
  readonly port: number;
  /** Share the port with other sockets. @default {false} */
  readonly shared?: boolean;
  /** Whether other sockets on this host get our multicast. @default {false} */
  readonly loopback?: boolean;
  /** Largest datagram; longer ones are cut, which no decoder here accepts. Bytes. */
  readonly bytesMax: number;
  /** Called for each datagram; the bytes are valid during the call only. Must not throw. */
  readonly onDatagram: (bytes: Uint8Array, from: Deno.NetAddr) => void;
}

/** An open socket. */
export class UdpSocket {
  readonly #conn: Deno.DatagramConn;
  readonly #receiving: Promise<void>;
  #closed = false;

  constructor(conn: Deno.DatagramConn, options: UdpOptions) {
    this.#conn = conn;
    this.#receiving = this.#receive(options);
  }

  /** Port that the socket is bound to. */
  get port(): number {
    return (this.#conn.addr as Deno.NetAddr).port;
  }

  /** Whether {@linkcode close} was called or the socket broke. */
  get closed(): boolean {
    return this.#closed;
  }

  /** Sends; `false` where the network says that it cannot (interface down, no route). */
  async send(bytes: Uint8Array, hostname: string, port: number): Promise<boolean> {
    if (this.#closed) return false;
    try {
      await this.#conn.send(bytes, { transport: "udp", hostname, port });
      return true;
    } catch {
      return false;
    }
  }

  /**
   * Joins a multicast group on the interface with this IPv4 address; joining twice is fine.
   *
   * The interface's own address, never 0.0.0.0: without a default route that is ENODEV.
   *
   * @throws {Error} When the system refuses.
   */
  async join4(group: string, interfaceAddress: string): Promise<void> {
    try {
      await this.#conn.joinMulticastV4(group, interfaceAddress);
    } catch (error) {
      if (!(error instanceof Deno.errors.AddrInUse)) throw error;
    }
  }

  /** Joins a multicast group on an interface by its index; joining twice is fine. */
  async join6(group: string, interfaceIndex: number): Promise<void> {
    try {
      await this.#conn.joinMulticastV6(group, interfaceIndex);
    } catch (error) {
      if (!(error instanceof Deno.errors.AddrInUse)) throw error;
    }
  }

  /** Closes and waits until the receive loop has ended. */
  async close(): Promise<void> {
    if (!this.#closed) {
      this.#closed = true;
      this.#conn.close();
    }
    await this.#receiving;
  }

  async #receive(options: UdpOptions): Promise<void> {
    const buffer = new Uint8Array(options.bytesMax + 1);
    let failures = 0;
    while (!this.#closed) {
      try {
        const [bytes, from] = await this.#conn.receive(buffer);
        failures = 0;
        if (!this.#closed && from.transport === "udp") options.onDatagram(bytes, from);
      } catch {
        // Closed by us, or broken for good: an interface that went away gives an error each time.
        if (this.#closed) return;
        if (++failures >= RECEIVE_FAILURES_MAX) {
          this.#closed = true;
          this.#conn.close();
          return;
        }
      }
    }
  }
}

const RECEIVE_FAILURES_MAX = 16;

/**
 * Opens a UDP socket.
 *
 * @throws {Error} When the address cannot be bound.
 */
export function openUdp(options: UdpOptions): UdpSocket {
  const conn = Deno.listenDatagram({
    transport: "udp",
    hostname: options.hostname,
    port: options.port,
    reuseAddress: options.shared ?? false,
    loopback: options.loopback ?? false,
  });
  return new UdpSocket(conn, options);
}
