/**
 * Time of one call of 64 bytes and its answer, between two processes on loopback: ours on QUIC, whose streams carry one
 * call after the other, against a new stream of Deno's bare QUIC for each, and ours on TCP beside it.
 *
 * Target: 1.1 times bare QUIC at the median, p99 at most 3 times (`performance.md`, row 17). Run with
 * `deno run -A bench/rpc_latency.ts`; takes about 20 s.
 *
 * @module
 */

import { echoOurs, echoRaw, openWorld, quantile, report, type World } from "./quic_world.ts";

const CALLS = 400;
const PAIRS = 9;
const BODY = new Uint8Array(64).fill(5);

async function milliseconds(run: () => Promise<void>): Promise<{ readonly p50: number; readonly p99: number }> {
  const samples: number[] = [];
  for (let i = 0; i < CALLS; i++) {
    const startMs = performance.now();
    await run();
    samples.push(performance.now() - startMs);
  }
  return { p50: quantile(samples, 0.5), p99: quantile(samples, 0.99) };
}

async function bench(world: World): Promise<void> {
  const quic = () => milliseconds(() => echoOurs(world.quic, world.serverId, BODY));
  const tcp = () => milliseconds(() => echoOurs(world.tcp, world.serverId, BODY));
  const raw = () => milliseconds(() => echoRaw(world.raw, BODY));
  for (const warm of [quic, tcp, raw]) await warm();
  const p50 = [];
  const p99 = [];
  const tcpP50 = [];
  for (let i = 0; i < PAIRS; i++) {
    const first = i % 2 === 0 ? await raw() : undefined;
    const ours = await quic();
    const reference = first ?? await raw();
    p50.push({ ours: ours.p50, reference: reference.p50 });
    p99.push({ ours: ours.p99, reference: reference.p99 });
    tcpP50.push({ ours: (await tcp()).p50, reference: reference.p50 });
  }
  report("call on QUIC, 64 B, p50, against a new stream of bare Deno QUIC", "ms", p50);
  report("call on QUIC, 64 B, p99, against a new stream of bare Deno QUIC", "ms", p99);
  report("call on TCP + pnet + Noise + Yamux, 64 B, p50, against a new stream of bare Deno QUIC", "ms", tcpP50);
}

{
  using world = await openWorld();
  await bench(world);
}
Deno.exit(0);
