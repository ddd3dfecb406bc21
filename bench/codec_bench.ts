/**
 * Cost of reading and writing records: every frame, beacon and gossip message pays it.
 *
 * Peer: cborg, which this replaced. Target: a membership record of 300 bytes in under 10 µs each way; a whole frame
 * of 1 MiB, valid or hostile, in under 100 ms, so that one peer cannot hold up the loop.
 */

import { decode as cborgDecode, encode as cborgEncode, rfc8949EncodeOptions } from "cborg";
import { decodeCbor, encodeCbor } from "../src/core/codec.ts";

const RECORD = {
  t: "member/1",
  p: encodeCbor({
    id: new Uint8Array(32),
    addresses: ["/ip4/10.0.0.1/udp/4871/quic-v1", "/ip4/10.0.0.1/tcp/4871"],
    seq: 1_700_000_000_000,
  }),
  k: new Uint8Array(32),
  s: new Uint8Array(64),
};
const ENCODED = encodeCbor(RECORD);
const FRAME = encodeCbor(Array.from({ length: 4_000 }, () => RECORD));
const HOSTILE = new Uint8Array(1 << 20).fill(0xa0);
HOSTILE.set([0x9a, 0, 0x0f, 0xff, 0xfb]);

Deno.bench("decode record", { group: "decode", baseline: true }, () => void decodeCbor(ENCODED));
Deno.bench("decode record, cborg (lenient)", { group: "decode" }, () => void cborgDecode(ENCODED));
Deno.bench("encode record", { group: "encode", baseline: true }, () => void encodeCbor(RECORD));
Deno.bench("encode record, cborg", { group: "encode" }, () => void cborgEncode(RECORD, rfc8949EncodeOptions));
Deno.bench("decode frame of 4 000 records", { group: "frame" }, () => void decodeCbor(FRAME));
Deno.bench("refuse frame of 1 MiB of empty maps", { group: "frame" }, () => {
  try {
    decodeCbor(HOSTILE);
  } catch {
    return;
  }
  throw new Error("accepted");
});
