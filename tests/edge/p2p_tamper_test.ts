/** What somebody on the path can see and do. @module */

import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { equalBytes, fromUtf8, toHex, utf8 } from "../../src/core/bytes.ts";
import { type Address, formatAddress, parseAddress, publicKeyOf } from "../../src/core/ids.ts";
import { serverNameOf } from "../../src/edge/p2p/certificate.ts";
import { CallError } from "../../src/ports/network.ts";
import { pattern, until } from "../compliance/network.ts";
import { LISTEN, makeNetwork, settle, warmUp } from "../testkit/p2p.ts";
import { InitialReader } from "../testkit/quic_initial.ts";
import { type Relay, relayTcp, relayUdp } from "../testkit/relay.ts";

await warmUp();

const SECRET_TEXT = "nobody on the path may read or change this";
const MESSAGES = 24;
const MESSAGE_BYTES = 32 << 10;

/** Two nodes with a relay between them; the dialer knows only the relay's address. */
async function withRelay(
  transport: "quic" | "tcp",
  body: (world: {
    readonly relay: Relay;
    readonly dialer: ReturnType<typeof makeNetwork>;
    readonly server: ReturnType<typeof makeNetwork>;
    readonly address: string;
    readonly gone: string[];
    readonly refused: string[];
  }) => Promise<void>,
): Promise<void> {
  const gone: string[] = [];
  const refused: string[] = [];
  const watch = {
    onPeerGone: (_: string, reason: string) => gone.push(reason),
    onRefused: (reason: string) => refused.push(reason),
  };
  const server = makeNetwork({ listen: [LISTEN[transport]], transports: [transport], keepAliveMs: 1_000 }, {
    ...watch,
    async onCall(call) {
      for (let i = 0; i < MESSAGES; i++) await call.send(call.body.length ? call.body : pattern(MESSAGE_BYTES));
    },
  });
  const dialer = makeNetwork({ listen: [], transports: [transport], keepAliveMs: 1_000 }, watch);
  await server.start();
  await dialer.start();
  const target = parseAddress(server.addresses()[0]!)!;
  const relay = (transport === "quic" ? relayUdp : relayTcp)(target.port);
  const address = formatAddress({ ...target, port: relay.port } as Address);
  try {
    await body({ relay, dialer, server, address, gone, refused });
  } finally {
    await dialer.stop();
    await server.stop();
    await relay.close();
    await settle();
  }
}

/** Flips one bit in a share of all pieces. */
function flipping(share: number): (piece: Uint8Array) => Uint8Array {
  return (piece) => {
    if (Math.random() < share) {
      const at = Math.floor(Math.random() * piece.length);
      piece[at] = piece[at]! ^ (1 << Math.floor(Math.random() * 8));
    }
    return piece;
  };
}

/** Reads the long answer; how many messages came, all of which must be what was sent. */
async function readAnswer(dialer: ReturnType<typeof makeNetwork>, nodeId: string): Promise<number> {
  const expected = pattern(MESSAGE_BYTES);
  let count = 0;
  for await (const message of dialer.call(nodeId, "long", new Uint8Array(0), { timeoutMs: 8_000 })) {
    ok(equalBytes(message, expected), "no changed byte may arrive");
    count++;
  }
  return count;
}

Deno.test("[2.2e] QUIC: bytes flipped on the path change nothing: the data arrive intact or the channel fails", async () => {
  await withRelay("quic", async ({ relay, dialer, server, address }) => {
    await dialer.dial(address, { signal: AbortSignal.timeout(5_000) });
    let flips = 0;
    const flip = flipping(0.1);
    relay.tamper = (piece) => {
      const before = piece.slice();
      const after = flip(piece);
      if (!equalBytes(before, after)) flips++;
      return after;
    };
    try {
      strictEqual(await readAnswer(dialer, server.nodeId), MESSAGES);
    } catch (error) {
      ok(error instanceof CallError && ["unreachable", "timeout"].includes(error.code), `${error}`);
    }
    ok(flips > 5, `${flips} datagrams were changed`);
  });
});

Deno.test("[2.2e] TCP: one flipped byte ends the channel, is counted, and no changed byte arrives", async () => {
  await withRelay("tcp", async ({ relay, dialer, server, address, gone, refused }) => {
    await dialer.dial(address, { signal: AbortSignal.timeout(5_000) });
    strictEqual(await readAnswer(dialer, server.nodeId), MESSAGES);
    let passed = 0;
    relay.tamper = (piece, direction) => {
      if (direction === "down" && (passed += piece.length) > 3 * MESSAGE_BYTES) piece[piece.length >> 1]! ^= 1;
      return piece;
    };
    await readAnswer(dialer, server.nodeId).then(
      () => {
        throw new Error("the call got through");
      },
      (error) => ok(error instanceof CallError && ["unreachable", "timeout"].includes(error.code), `${error}`),
    );
    await until("both ends have closed", () => gone.length === 2);
    deepStrictEqual(refused, ["tampered"]);
    relay.tamper = (piece) => piece;
    await dialer.dial(address, { signal: AbortSignal.timeout(5_000) });
    strictEqual(await readAnswer(dialer, server.nodeId), MESSAGES);
  });
});

for (const transport of ["quic", "tcp"] as const) {
  Deno.test(`[2.2e] ${transport}: a handshake with changed bytes gives no channel`, async () => {
    await withRelay(transport, async ({ relay, dialer, server, address }) => {
      let count = 0;
      relay.tamper = (piece, direction) => {
        // From the second piece of the server on: the first of QUIC may be a stateless answer.
        if (direction === "down" && count++ > 0) piece[piece.length - 5]! ^= 0x10;
        return piece;
      };
      await dialer.dial(address, { signal: AbortSignal.timeout(1_500) }).then(
        () => {
          throw new Error("the dial got through");
        },
        (error) => ok(error instanceof CallError, `${error}`),
      );
      deepStrictEqual([dialer.peers(), server.peers()], [[], []]);
      relay.tamper = (piece) => piece;
      await dialer.dial(address, { signal: AbortSignal.timeout(5_000) });
    });
  });

  Deno.test(`[2.2c] ${transport}: nothing that is said, and no long-term key, is on the wire`, async () => {
    await withRelay(transport, async ({ relay, dialer, server, address }) => {
      let wire = "";
      relay.tamper = (piece) => {
        wire += toHex(piece);
        return piece;
      };
      await dialer.dial(address, { signal: AbortSignal.timeout(5_000) });
      let heard = 0;
      for await (const one of dialer.call(server.nodeId, "say.it", utf8(SECRET_TEXT), { timeoutMs: 5_000 })) {
        strictEqual(fromUtf8(one), SECRET_TEXT);
        heard++;
      }
      strictEqual(heard, MESSAGES);
      ok(wire.length > 2_000);
      for (const secret of [SECRET_TEXT, "say.it", server.nodeId, dialer.nodeId, "/mycelium/"]) {
        ok(!wire.includes(toHex(utf8(secret))), `"${secret}" is on the wire`);
      }
      // The network id neither, beyond its first half that names the protocol.
      ok(!wire.includes("11".repeat(12)));
    });
  });
}

Deno.test("[2.2c] QUIC: TLS 1.3 only, and fresh key shares at both ends of every connection", async () => {
  const shares: { readonly client: string; readonly server: string }[] = [];
  for (let round = 0; round < 3; round++) {
    await withRelay("quic", async ({ relay, dialer, server, address }) => {
      const reader = new InitialReader();
      relay.tamper = (piece, direction) => {
        reader.push(piece, direction);
        return piece;
      };
      await dialer.dial(address, { signal: AbortSignal.timeout(5_000) });
      const client = reader.clientHello();
      const serverHello = reader.serverHello();
      deepStrictEqual(client.supportedVersions, [0x0304], "the dialer offers TLS 1.3 and nothing else");
      strictEqual(serverHello.selectedVersion, 0x0304);
      ok(client.keyShares.length > 0);
      shares.push({ client: client.keyShares.join(), server: serverHello.keyShare });
      strictEqual(client.serverName, serverNameOf(new Uint8Array(32).fill(0x11), publicKeyOf(server.nodeId)!));
      deepStrictEqual(client.alpn, [`mycelium/1/${"11".repeat(8)}`]);
      ok([0x1301, 0x1302, 0x1303].includes(serverHello.cipherSuite));
    });
  }
  strictEqual(new Set(shares.map(({ client }) => client)).size, 3);
  strictEqual(new Set(shares.map(({ server }) => server)).size, 3);
});
