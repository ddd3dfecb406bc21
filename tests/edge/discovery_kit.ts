/** What the tests of discovery share: nodes on loopback that record what they are told. */

import { decodeSeed } from "../../src/bootstrap/seed_document.ts";
import type { Candidate } from "../../src/bootstrap/candidates.ts";
import { type KeyPair, keyPairFromSeed } from "../../src/core/crypto.ts";
import { nodeIdOf } from "../../src/core/ids.ts";
import {
  createDiscovery,
  type Discovery,
  type DiscoveryOptions,
  type SourceReport,
} from "../../src/edge/discovery/mod.ts";

export const NETWORK = new Uint8Array(32).fill(0xab);
export const SECRET = new Uint8Array(32).fill(0xcd);

/** A discovery with what it was told. */
export interface TestNode {
  readonly discovery: Discovery;
  readonly nodeId: string;
  readonly keyPair: KeyPair;
  readonly candidates: Candidate[];
  readonly refused: { reason: string; from: string }[];
  readonly reports: SourceReport[];
}

/** A key pair by number. */
export function keyPair(n: number): KeyPair {
  return keyPairFromSeed(new Uint8Array(32).fill(n));
}

/** A node that uses the loopback interface only and no source that is not asked for. */
export function makeNode(n: number, options: Partial<DiscoveryOptions>): TestNode {
  const pair = keyPair(n);
  const node = {
    nodeId: nodeIdOf(pair.publicKey),
    keyPair: pair,
    candidates: [] as Candidate[],
    refused: [] as { reason: string; from: string }[],
    reports: [] as SourceReport[],
  };
  const discovery = createDiscovery({
    networkId: NETWORK,
    discoverySecret: SECRET,
    keyPair: pair,
    mdns: false,
    multicast: false,
    broadcast: false,
    allowedInterfaces: ["lo"],
    ...options,
  }, {
    onCandidate: (candidate) => node.candidates.push(candidate),
    onSeed: () => {},
    onRefused: (reason, from) => node.refused.push({ reason, from }),
    onSourceState: (report) => node.reports.push(report),
  });
  return { ...node, discovery };
}

/** What an agent does with a seed: the issuer's counts, and no lower number than one that was seen. */
export function seedReader(
  issuer: Uint8Array,
  networkId: Uint8Array,
): NonNullable<DiscoveryOptions["openSeed"]> {
  let seen = 0;
  return (content) => {
    const read = decodeSeed(content, {
      networkId,
      signers: [issuer],
      nowMs: Date.now(),
      seqSeen: () => seen,
    });
    if (!read.ok) return read;
    const { seq, addresses, issuedMs, expiresMs } = read.document;
    seen = seq;
    const signer = nodeIdOf(read.signer);
    return { ok: true, kind: "addresses", seq, signer, addresses, issuedMs, expiresMs, stale: read.stale, records: 0 };
  };
}

/** Starts nodes, runs, and stops them whatever happens. */
export async function withNodes(nodes: readonly TestNode[], run: () => Promise<void>): Promise<void> {
  try {
    for (const node of nodes) node.discovery.start();
    await run();
  } finally {
    await Promise.all(nodes.map((node) => node.discovery.stop()));
  }
}

/** Waits until a condition holds. Fails with what it was after `timeoutMs`. */
export async function until(what: string, holds: () => boolean, timeoutMs = 5_000): Promise<number> {
  const startedAt = performance.now();
  while (!holds()) {
    if (performance.now() - startedAt > timeoutMs) throw new Error(`Timed out after ${timeoutMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return performance.now() - startedAt;
}

/** Waits. */
export function rest(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** A UDP port that was free a moment ago. */
export function freeUdpPort(): number {
  const socket = Deno.listenDatagram({ transport: "udp", hostname: "0.0.0.0", port: 0 });
  const { port } = socket.addr as Deno.NetAddr;
  socket.close();
  return port;
}
