/** What a hostile dialer can do to a node, on QUIC. @module */

import { deepStrictEqual, notDeepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { concatBytes, equalBytes, utf8 } from "../../src/core/bytes.ts";
import { keyPairFromSeed } from "../../src/core/crypto.ts";
import { encodeFrame, FrameReader } from "../../src/core/frame.ts";
import { nodeIdOf, parseAddress } from "../../src/core/ids.ts";
import { alpnOf } from "../../src/edge/p2p/quic_transport.ts";
import {
  AUTH_BYTES,
  decodeVerdict,
  encodeHello,
  signTranscript,
  verifyTranscript,
} from "../../src/edge/p2p/quic_auth.ts";
import type { Network } from "../../src/ports/network.ts";
import { until } from "../compliance/network.ts";
import { LISTEN, makeNetwork, settle, warmUp } from "../testkit/p2p.ts";
import { RawDialer } from "../testkit/quic_raw.ts";

await warmUp();

/** Runs a body against one started node. */
async function withNode(
  body: (node: Network, seen: { readonly opened: string[]; readonly refused: string[] }) => Promise<void>,
  options: Parameters<typeof makeNetwork>[0] = {},
): Promise<void> {
  const seen = { opened: [] as string[], refused: [] as string[] };
  const node = makeNetwork({ listen: [LISTEN.quic], transports: ["quic"], ...options }, {
    onPeer: (peer) => seen.opened.push(peer.nodeId),
    onRefused: (reason) => seen.refused.push(reason),
    onCall: (call) => call.send(call.body),
  });
  await node.start();
  try {
    await body(node, seen);
  } finally {
    await node.stop();
    await settle();
  }
}

/** Whether the node still takes an honest dialer and its call. */
async function worksFor(node: Network): Promise<void> {
  const honest = makeNetwork({ listen: [] });
  await honest.start();
  try {
    await honest.dial(node.addresses()[0]!, { signal: AbortSignal.timeout(5_000) });
    const answer: Uint8Array[] = [];
    for await (const one of honest.call(node.nodeId, "echo", utf8("still here"), { timeoutMs: 5_000 })) {
      answer.push(one);
    }
    deepStrictEqual(answer, [utf8("still here")]);
  } finally {
    await honest.stop();
  }
}

Deno.test("[2.1b] QUIC: a dialer that proves its key is taken, the server proves its own key in turn", async () => {
  await withNode(async (node, seen) => {
    using dialer = await RawDialer.connect(node.addresses()[0]!);
    const hello = dialer.hello();
    const challenge = await dialer.challenge(hello);
    const transcript = dialer.transcript(hello, challenge);
    ok(verifyTranscript(dialer.serverKey, "server", transcript, challenge.signature));
    ok(!verifyTranscript(dialer.serverKey, "client", transcript, challenge.signature), "it is no client's proof");
    strictEqual(await dialer.verdict(signTranscript(dialer.keyPair, "client", transcript)), "ok");
    await until("the peer is reported", () => seen.opened.length === 1);
    deepStrictEqual(seen.opened, [nodeIdOf(dialer.keyPair.publicKey)]);
  });
});

Deno.test("[2.1b] QUIC: somebody else's key, a proof by another key and a proof of another kind are refused", async () => {
  await withNode(async (node, seen) => {
    const victim = keyPairFromSeed(new Uint8Array(32).fill(1));
    for (const kind of ["other key", "server label", "zeros"] as const) {
      using dialer = await RawDialer.connect(node.addresses()[0]!);
      const hello = dialer.hello(victim);
      const transcript = dialer.transcript(hello, await dialer.challenge(hello));
      const proof = kind === "other key"
        ? signTranscript(dialer.keyPair, "client", transcript)
        : kind === "server label"
        ? signTranscript(victim, "server", transcript)
        : new Uint8Array(AUTH_BYTES.proof);
      strictEqual(await dialer.verdict(proof), "bad-client-signature", kind);
    }
    await until("all are counted", () => seen.refused.length === 3);
    deepStrictEqual([seen.opened, new Set(seen.refused)], [[], new Set(["bad-client-signature"])]);
    strictEqual(node.counters().refused.get("bad-client-signature"), 3);
  });
});

Deno.test("[2.1b] [2.2e] QUIC: a recorded authentication, played back in another connection, is refused", async () => {
  await withNode(async (node, seen) => {
    // What an honest dialer sent, as somebody who broke into it would have recorded it.
    const recorded = await RawDialer.connect(node.addresses()[0]!);
    const hello = recorded.hello();
    const challenge = await recorded.challenge(hello);
    const proof = signTranscript(recorded.keyPair, "client", recorded.transcript(hello, challenge));
    strictEqual(await recorded.verdict(proof), "ok");
    recorded[Symbol.dispose]();
    using again = await RawDialer.connect(node.addresses()[0]!);
    const fresh = await again.challenge(hello);
    notDeepStrictEqual(fresh.serverNonce, challenge.serverNonce);
    strictEqual(await again.verdict(proof), "bad-client-signature");
    await until("it is counted", () => seen.refused.includes("bad-client-signature"));
    strictEqual(seen.opened.length, 1);
  });
});

Deno.test("[2.1b] QUIC: a proof for one server is worth nothing at another (no relaying)", async () => {
  await withNode(async (node, seen) => {
    await withNode(async (other) => {
      // "other" is hostile: it passes the node's challenge on to a dialer that wants to reach "other".
      using toNode = await RawDialer.connect(node.addresses()[0]!);
      using toOther = await RawDialer.connect(other.addresses()[0]!, { keyPair: toNode.keyPair });
      const hello = toNode.hello();
      const challenge = await toNode.challenge(hello);
      // The honest dialer signs for the server that TLS proved to it: "other".
      const proof = signTranscript(toOther.keyPair, "client", toOther.transcript(hello, challenge));
      strictEqual(await toNode.verdict(proof), "bad-client-signature");
    });
    await until("it is counted", () => seen.refused.includes("bad-client-signature"));
    deepStrictEqual(seen.opened, []);
  });
});

Deno.test("QUIC: the node's own key played back to it, and another version, are refused", async () => {
  await withNode(async (node, seen) => {
    using mirror = await RawDialer.connect(node.addresses()[0]!);
    await mirror.writer.write(encodeHello({ ...mirror.hello(), clientKey: mirror.serverKey }));
    strictEqual(decodeVerdict((await mirror.take(AUTH_BYTES.challenge))[0]), "wrong-identity");
    using newer = await RawDialer.connect(node.addresses()[0]!);
    const hello = encodeHello(newer.hello());
    hello[0] = 2;
    await newer.writer.write(hello);
    strictEqual(decodeVerdict((await newer.take(AUTH_BYTES.challenge))[0]), "bad-version");
    await until("both are counted", () => seen.refused.length === 2);
    deepStrictEqual([seen.opened, seen.refused.toSorted()], [[], ["bad-version", "wrong-identity"]]);
  });
});

Deno.test("[2.1d] QUIC: the right ALPN with another network's name, and the other way round, get no handshake", async () => {
  await withNode(async (node, seen) => {
    const foreign = new Uint8Array(32).fill(0x77);
    await rejects(RawDialer.connect(node.addresses()[0]!, { networkId: foreign }), /known protocol|error 120/);
    await rejects(
      RawDialer.connect(node.addresses()[0]!, { networkId: foreign, alpn: alpnOf(new Uint8Array(32).fill(0x11)) }),
      /invalid peer certificate/,
    );
    await until("they are counted", () => seen.refused.length === 2);
    deepStrictEqual(seen.refused.toSorted(), ["foreign-network", "peer-refused-identity"]);
    deepStrictEqual(seen.opened, []);
  });
});

Deno.test("QUIC: dialers that stop halfway are bounded in number and in time, and the node goes on", async () => {
  await withNode(async (node, seen) => {
    const dialers = await Promise.allSettled(Array.from({ length: 24 }, () => RawDialer.connect(node.addresses()[0]!)));
    const connected = dialers.filter((one) => one.status === "fulfilled").map((one) => one.value);
    strictEqual(connected.length, 8, "the rest is refused at once");
    strictEqual(seen.refused.filter((reason) => reason === "overloaded").length, 16);
    // Some say nothing, some say half of what they should.
    for (const dialer of connected.slice(4)) await dialer.writer.write(new Uint8Array(5).fill(1));
    await until("they are thrown out", () => seen.refused.filter((reason) => reason === "auth-timeout").length === 8);
    for (const dialer of connected) await dialer.conn.closed.catch(() => {});
    deepStrictEqual(seen.opened, []);
    await worksFor(node);
    for (const dialer of connected) dialer[Symbol.dispose]();
  }, { handshakesMax: 8, authTimeoutMs: 700 });
});

Deno.test("QUIC: noise instead of a hello, and noise on the socket, do no harm", async () => {
  await withNode(async (node, seen) => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ minLength: 1, maxLength: 300 }), async (noise) => {
        using dialer = await RawDialer.connect(node.addresses()[0]!);
        await dialer.writer.write(noise);
        await dialer.writer.close().catch(() => {});
        await dialer.take(10_000).catch(() => {});
      }),
      { numRuns: 15 },
    );
    const { port } = parseAddress(node.addresses()[0]!)!;
    const socket = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
    for (let i = 0; i < 200; i++) {
      const noise = crypto.getRandomValues(new Uint8Array(5 + i * 6));
      // Every other one looks like a QUIC Initial of version 1.
      if (i % 2 === 0) noise.set([0xc0, 0, 0, 0, 1]);
      await socket.send(noise, { transport: "udp", hostname: "127.0.0.1", port });
    }
    socket.close();
    deepStrictEqual(seen.opened, []);
    await worksFor(node);
  }, { authTimeoutMs: 400 });
});

Deno.test("[1.4a] QUIC: streams and frames of a proved peer that are noise are refused, counted, and do no harm", async () => {
  await withNode(async (node, seen) => {
    using dialer = await RawDialer.connect(node.addresses()[0]!);
    strictEqual(await dialer.authenticate(), "ok");
    await until("the peer is reported", () => seen.opened.length === 1);
    const name = utf8(`/mycelium/${"11".repeat(8)}/rpc/1.0.0`);
    const head = concatBytes(Uint8Array.of(name.length), name);
    async function exchange(bytes: Uint8Array): Promise<Uint8Array> {
      const stream = await dialer.conn.createBidirectionalStream({ waitUntilAvailable: true });
      const writer = stream.writable.getWriter();
      await writer.write(bytes);
      await writer.close().catch(() => {});
      const pieces: Uint8Array[] = [];
      try {
        for await (const piece of stream.readable) pieces.push(piece);
      } catch {
        // Reset by the node.
      }
      return concatBytes(...pieces);
    }
    // A frame that is none is answered with an error.
    const reader = new FrameReader();
    reader.push(await exchange(concatBytes(head, Uint8Array.of(3, 1, 2, 3))));
    const answer = reader.next();
    ok(answer?.type === "error" && answer.code === "bad-frame", JSON.stringify(answer));
    strictEqual(node.counters().refused.get("bad-frame"), 1);
    const request = encodeFrame({ type: "request", method: "echo", timeoutMs: 1_000, body: utf8("x") });
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(
          fc.uint8Array({ minLength: 1, maxLength: 200 }),
          fc.uint8Array({ minLength: 1, maxLength: 200 }).map((noise) => concatBytes(head, noise)),
          fc.tuple(fc.nat({ max: request.length - 1 }), fc.integer({ min: 1, max: 255 })).map(([at, bits]) => {
            const bytes = concatBytes(head, request);
            bytes[head.length + at] = bytes[head.length + at]! ^ bits;
            return bytes;
          }),
        ),
        async (bytes) => {
          await exchange(bytes);
        },
      ),
      { numRuns: 60 },
    );
    // The same connection still serves a proper call.
    const stream = await dialer.conn.createBidirectionalStream({ waitUntilAvailable: true });
    const writer = stream.writable.getWriter();
    await writer.write(concatBytes(head, request));
    const frames = new FrameReader();
    const streamReader = stream.readable.getReader();
    for (let done = false; !done;) {
      const { value } = await streamReader.read();
      frames.push(value!);
      const frame = frames.next();
      if (frame) {
        ok(frame.type === "message" && equalBytes(frame.body, utf8("x")), JSON.stringify(frame));
        done = true;
      }
    }
    await writer.close();
    await streamReader.cancel();
  });
});

Deno.test("QUIC: a node takes no more channels than it may, says so, and takes one again when one is free", async () => {
  await withNode(async (node, seen) => {
    const dialers = [];
    for (let i = 0; i < 2; i++) {
      const dialer = await RawDialer.connect(node.addresses()[0]!);
      strictEqual(await dialer.authenticate(), "ok");
      dialers.push(dialer);
    }
    await until("both are reported", () => seen.opened.length === 2);
    using third = await RawDialer.connect(node.addresses()[0]!);
    strictEqual(await third.authenticate(), "overloaded");
    const late = makeNetwork({ listen: [] });
    await late.start();
    await rejects(late.dial(node.addresses()[0]!, { signal: AbortSignal.timeout(3_000) }), { code: "overloaded" });
    for (const dialer of dialers) dialer[Symbol.dispose]();
    await until("they are gone", () => node.peers().length === 0);
    await late.dial(node.addresses()[0]!, { signal: AbortSignal.timeout(3_000) });
    await late.stop();
    await until("both refusals are counted", () => node.counters().refused.get("overloaded") === 2);
  }, { channelsMax: 2 });
});
