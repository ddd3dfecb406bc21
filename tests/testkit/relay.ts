/**
 * A man in the middle: relays for UDP and TCP that see every byte and may change it.
 *
 * @module
 */

/** What a relay does with a piece on its way; returns what to pass on. */
export type Tamper = (piece: Uint8Array, direction: "up" | "down") => Uint8Array;

/** A relay in front of one target. */
export interface Relay {
  readonly port: number;
  /** What passes now; may be replaced while it runs. */
  tamper: Tamper;
  close(): Promise<void>;
}

/** Passes everything on unchanged. */
export const PASS: Tamper = (piece) => piece;

/** A relay for UDP on loopback. */
export function relayUdp(targetPort: number): Relay {
  const target = { transport: "udp", hostname: "127.0.0.1", port: targetPort } as const;
  const front = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
  const backs = new Map<number, Deno.DatagramConn>();
  const loops: Promise<void>[] = [];
  let closed = false;
  const relay: Relay = {
    port: (front.addr as Deno.NetAddr).port,
    tamper: PASS,
    async close() {
      closed = true;
      front.close();
      for (const back of backs.values()) back.close();
      await Promise.all(loops);
    },
  };
  async function pump(
    from: Deno.DatagramConn,
    direction: "up" | "down",
    send: (piece: Uint8Array, from: Deno.NetAddr) => Promise<unknown>,
  ) {
    try {
      for await (const [piece, source] of from) {
        await send(relay.tamper(piece.slice(), direction), source as Deno.NetAddr).catch(() => {});
      }
    } catch (error) {
      if (!closed) throw error;
    }
  }
  loops.push(pump(front, "up", (piece, source) => {
    let back = backs.get(source.port);
    if (!back) {
      back = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
      backs.set(source.port, back);
      loops.push(pump(back, "down", (answer) => front.send(answer, source)));
    }
    return back.send(piece, target);
  }));
  return relay;
}

/** A relay for TCP on loopback. */
export function relayTcp(targetPort: number): Relay {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const conns = new Set<Deno.Conn>();
  const loops: Promise<void>[] = [];
  const end = (conn: Deno.Conn) => {
    if (!conns.delete(conn)) return;
    try {
      conn.close();
    } catch {
      // Closed already.
    }
  };
  const relay: Relay = {
    port: (listener.addr as Deno.NetAddr).port,
    tamper: PASS,
    async close() {
      listener.close();
      for (const conn of conns) end(conn);
      await Promise.all(loops);
    },
  };
  async function pump(from: Deno.Conn, to: Deno.Conn, direction: "up" | "down"): Promise<void> {
    const buffer = new Uint8Array(64 << 10);
    try {
      for (let size = await from.read(buffer); size !== null; size = await from.read(buffer)) {
        const piece = relay.tamper(buffer.slice(0, size), direction);
        for (let at = 0; at < piece.length;) at += await to.write(piece.subarray(at));
      }
    } catch {
      // One end closed.
    }
    end(from);
    end(to);
  }
  loops.push((async () => {
    try {
      for await (const front of listener) {
        conns.add(front);
        const back = await Deno.connect({ hostname: "127.0.0.1", port: targetPort });
        conns.add(back);
        loops.push(pump(front, back, "up"), pump(back, front, "down"));
      }
    } catch {
      // The listener closed.
    }
  })());
  return relay;
}
