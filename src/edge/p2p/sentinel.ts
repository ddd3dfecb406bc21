/**
 * Sentinels: a TCP connection beside a QUIC channel, on which nothing is ever said.
 *
 * The kernel closes it the moment that the process at the other end dies, which QUIC, on a socket that is connected to
 * nobody, would not tell. Then a new connection is tried: where the machine refuses it, the process is gone, and the
 * owner is told. That is a hint, not a proof: anything between the two can refuse a connection, so whoever acts on it
 * asks over the channel first. Idle, a sentinel costs no byte on the network.
 *
 * @module
 */

import { equalBytes, toHex, utf8 } from "../../core/bytes.ts";
import { hashParts } from "../../core/crypto.ts";

/** Method by which the two ends of a channel tell each other their TCP ports. */
export const SENTINEL_METHOD = "net.sentinel";

/** A channel, as far as its sentinel needs it. */
export interface SentinelChannel {
  readonly nodeId: string;
  /** Where the other end is: an IP address. */
  readonly host: string;
  readonly direction: "inbound" | "outbound";
  readonly channelBinding: Uint8Array;
  /** Aborts when the channel has closed. */
  readonly closed: AbortSignal;
  /** Calls a method of the other end; gives the first message of the answer. */
  call(method: string, body: Uint8Array): Promise<Uint8Array | undefined>;
}

/** A TCP socket of node's, as far as it is needed here. */
export interface SentinelSocket {
  once(event: "data", listener: (bytes: Uint8Array) => void): unknown;
  once(event: "end" | "close" | "error", listener: () => void): unknown;
  setTimeout(ms: number): unknown;
  destroy(): void;
}

/** Options of {@linkcode Sentinels}. */
export interface SentinelOptions {
  /** This node's TCP port where others can connect to it, 0 for none. */
  readonly port: () => number;
  /** The machine of a node says that its process is gone. */
  readonly onGone: (nodeId: string) => void;
}

/** First bytes on a sentinel. What a channel begins with is random: it is taken for this once in 2⁶⁴. */
const MAGIC = utf8("mycsent1");
const TOKEN_BYTES = 16;
/** After a channel has opened, so that sentinels do not compete with what it was opened for. */
const DELAY_MS = 1_500;
/** Time for a connection that shows whether anybody listens. */
const CONNECT_MS = 1_000;
/** A connection that shows whether anybody listens stands for so long; looks at most. */
const STAND_MS = 100;
const LOOKS = 6;
/** Sentinels set up for one channel: what keeps closing them does not want them. */
const ATTEMPTS = 3;

interface Entry {
  readonly channel: SentinelChannel;
  /** The other end's TCP port, 0 where it has none or has not said. */
  port: number;
  attempts: number;
  /** Ends the connection that stands. */
  close: (() => void) | undefined;
}

/** The sentinels of a node. At most one for each channel. */
export class Sentinels {
  readonly #options: SentinelOptions;
  /** By the token that both ends of a channel can make. */
  readonly #entries = new Map<string, Entry>();

  constructor(options: SentinelOptions) {
    this.#options = options;
  }

  /** Takes a channel that counts. Its dialer sets the sentinel up. */
  watch(channel: SentinelChannel): void {
    const token = tokenOf(channel.channelBinding);
    const entry: Entry = { channel, port: 0, attempts: 0, close: undefined };
    this.#entries.set(toHex(token), entry);
    const timer = channel.direction === "outbound" ? setTimeout(() => this.#setUp(entry), DELAY_MS) : undefined;
    channel.closed.addEventListener("abort", () => {
      clearTimeout(timer);
      this.#entries.delete(toHex(token));
      entry.close?.();
    }, { once: true });
  }

  /** Answers {@linkcode SENTINEL_METHOD}: takes the other end's port and gives this one's. */
  answer(channelBinding: Uint8Array | undefined, body: Uint8Array): Uint8Array {
    const entry = channelBinding && this.#entries.get(toHex(tokenOf(channelBinding)));
    if (entry) entry.port = portOf(body);
    return portBytes(this.#options.port());
  }

  /**
   * Waits for the first bytes of an inbound connection and takes it where they are those of a sentinel.
   *
   * @returns Whether it was taken; the bytes are still in the socket's other listeners where it was not.
   * @throws {Error} Named `TimeoutError` where nothing comes in time.
   */
  async divert(socket: SentinelSocket, timeoutMs: number): Promise<boolean> {
    const first = await new Promise<Uint8Array | undefined>((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(Object.assign(new Error("nothing came"), { name: "TimeoutError" }));
      }, timeoutMs);
      const end = () => {
        clearTimeout(timer);
        resolve(undefined);
      };
      socket.once("data", (bytes) => {
        clearTimeout(timer);
        resolve(bytes);
      });
      socket.once("close", end);
      socket.once("error", end);
    });
    if (!first || first.length < MAGIC.length || !equalBytes(first.subarray(0, MAGIC.length), MAGIC)) return false;
    const entry = this.#entries.get(toHex(first.subarray(MAGIC.length, MAGIC.length + TOKEN_BYTES)));
    // A stranger, or the channel has closed meanwhile.
    if (!entry || first.length !== MAGIC.length + TOKEN_BYTES) {
      socket.destroy();
      return true;
    }
    socket.setTimeout(0);
    this.#stand(entry, () => socket.destroy(), (ended) => {
      socket.once("end", ended);
      socket.once("close", ended);
      socket.once("error", ended);
    });
    return true;
  }

  async #setUp(entry: Entry): Promise<void> {
    const { channel } = entry;
    entry.attempts++;
    try {
      const answer = await channel.call(SENTINEL_METHOD, portBytes(this.#options.port()));
      entry.port = answer ? portOf(answer) : 0;
      if (entry.port === 0 || channel.closed.aborted) return;
      const conn = await connect(channel.host, entry.port);
      if (channel.closed.aborted) return conn.close();
      const preface = new Uint8Array(MAGIC.length + TOKEN_BYTES);
      preface.set(MAGIC);
      preface.set(tokenOf(channel.channelBinding), MAGIC.length);
      await conn.write(preface);
      this.#stand(entry, () => close(conn), (ended) => {
        // Nothing is said on it: whatever comes is the end.
        conn.read(new Uint8Array(1)).then(ended, ended);
      });
    } catch {
      // The other end is of an older version, or nothing but QUIC comes through: without a sentinel then.
    }
  }

  #stand(entry: Entry, end: () => void, onEnd: (ended: () => void) => void): void {
    entry.close?.();
    let over = false;
    const closing = () => {
      over = true;
      end();
    };
    entry.close = closing;
    onEnd(() => {
      if (over) return;
      over = true;
      end();
      if (entry.close === closing) entry.close = undefined;
      void this.#lost(entry);
    });
  }

  /** The connection has ended and the channel has not: is there still somebody? */
  async #lost(entry: Entry): Promise<void> {
    const { channel, port } = entry;
    if (port === 0 || channel.closed.aborted) return;
    const found = await look(channel.host, port);
    if (channel.closed.aborted) return;
    if (found === "nobody") this.#options.onGone(channel.nodeId);
    if (found !== "somebody") return;
    if (channel.direction !== "outbound" || entry.attempts >= ATTEMPTS) return;
    const timer = setTimeout(() => this.#setUp(entry), DELAY_MS);
    channel.closed.addEventListener("abort", () => clearTimeout(timer), { once: true });
  }
}

function tokenOf(channelBinding: Uint8Array): Uint8Array {
  return hashParts("mycelium/sentinel/v1", channelBinding).subarray(0, TOKEN_BYTES);
}

function portBytes(port: number): Uint8Array {
  return Uint8Array.of(port >> 8, port & 255);
}

function portOf(bytes: Uint8Array): number {
  return bytes.length === 2 ? bytes[0]! << 8 | bytes[1]! : 0;
}

/**
 * Whether anybody listens. A connection that ends at once is no answer: of a process that dies the kernel closes one
 * socket after the other, and the one that listens may be the last.
 */
async function look(hostname: string, port: number): Promise<"somebody" | "nobody" | "no answer"> {
  for (let i = 0; i < LOOKS; i++) {
    let conn: Deno.TcpConn;
    try {
      conn = await connect(hostname, port);
    } catch (error) {
      if (error instanceof Deno.errors.ConnectionRefused) return "nobody";
      // A process that dies resets who came to it last.
      if (!(error instanceof Deno.errors.ConnectionReset)) return "no answer";
      await new Promise((resolve) => setTimeout(resolve, 5 << i));
      continue;
    }
    let timer: ReturnType<typeof setTimeout> | undefined;
    const ended = conn.read(new Uint8Array(1)).then(() => true, () => true);
    const stands = new Promise<boolean>((resolve) => timer = setTimeout(() => resolve(false), STAND_MS));
    const isOver = await Promise.race([ended, stands]);
    clearTimeout(timer);
    close(conn);
    if (!isOver) return "somebody";
    await new Promise((resolve) => setTimeout(resolve, 5 << i));
  }
  return "no answer";
}

async function connect(hostname: string, port: number): Promise<Deno.TcpConn> {
  const connecting = Deno.connect({ hostname, port });
  let timer: ReturnType<typeof setTimeout> | undefined;
  let over = false;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      over = true;
      reject(new Error("no connection in time"));
    }, CONNECT_MS);
  });
  connecting.then((conn) => over && close(conn), () => {});
  try {
    return await Promise.race([connecting, late]);
  } finally {
    clearTimeout(timer);
  }
}

function close(conn: Deno.TcpConn): void {
  try {
    conn.close();
  } catch {
    // It was closed already.
  }
}
