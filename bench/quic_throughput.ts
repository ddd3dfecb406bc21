/**
 * Throughput of one stream of 64 KiB messages between two processes on loopback: ours on QUIC against Deno's bare
 * QUIC, and against ours on TCP with Noise and Yamux.
 *
 * Back of the envelope: what is added to bare QUIC is one copy into a frame and one promise per message, so at least
 * 0.85 of it (`performance.md`, row 14). Run with `deno run -A bench/quic_throughput.ts`; takes about 20 s.
 *
 * @module
 */

import { CHUNK_BYTES, floodOurs, floodRaw, openWorld, report, type World } from "./quic_world.ts";

const COUNT = 1_024;
const PAIRS = 7;

async function megabytesPerSecond(run: () => Promise<number>): Promise<number> {
  const startMs = performance.now();
  const bytes = await run();
  if (bytes !== COUNT * CHUNK_BYTES) throw new Error(`got ${bytes} bytes, wanted ${COUNT * CHUNK_BYTES}`);
  return bytes / 1_000 / (performance.now() - startMs);
}

async function bench(world: World): Promise<void> {
  const quic = () => megabytesPerSecond(() => floodOurs(world.quic, world.serverId, COUNT));
  const tcp = () => megabytesPerSecond(() => floodOurs(world.tcp, world.serverId, COUNT));
  const raw = () => megabytesPerSecond(() => floodRaw(world.raw, COUNT));
  for (const warm of [quic, tcp, raw]) await warm();
  const againstRaw = [];
  const againstTcp = [];
  for (let i = 0; i < PAIRS; i++) {
    // The order changes from pair to pair, so that a machine that slows down favours nobody.
    const reference = i % 2 === 0 ? await raw() : undefined;
    const ours = await quic();
    againstRaw.push({ ours, reference: reference ?? await raw() });
    againstTcp.push({ ours: await quic(), reference: await tcp() });
  }
  report("QUIC transport, 64 KiB messages, against bare Deno QUIC", "MB/s", againstRaw);
  report("QUIC transport, 64 KiB messages, against TCP + pnet + Noise + Yamux", "MB/s", againstTcp);
}

{
  using world = await openWorld();
  await bench(world);
}
Deno.exit(0);
