/** Our DER against two independent readers: node's X509Certificate and @peculiar/x509. @module */

import "reflect-metadata";
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { createPublicKey, verify, X509Certificate } from "node:crypto";
import * as x509 from "@peculiar/x509";
import { equalBytes } from "../../src/core/bytes.ts";
import { keyPairFromSeed, sha256 } from "../../src/core/crypto.ts";
import { createAnchor, createLeaf, LEAF_BACKDATE_MS, serverNameOf } from "../../src/edge/p2p/certificate.ts";

x509.cryptoProvider.set(crypto);

const PAIR = keyPairFromSeed(new Uint8Array(32).fill(3));
const NETWORK_ID = new Uint8Array(32).fill(4);
const NOW_MS = Date.UTC(2026, 6, 1, 12, 0, 0);

Deno.test("[2.2b] createLeaf() makes a certificate that other libraries read as we mean it", async () => {
  const leaf = createLeaf(PAIR, { networkId: NETWORK_ID, nowMs: NOW_MS, lifetimeMs: 86_400_000 });
  const read = new x509.X509Certificate(leaf.cert);
  strictEqual(read.notBefore.getTime(), NOW_MS - LEAF_BACKDATE_MS);
  strictEqual(read.notAfter.getTime(), NOW_MS + 86_400_000);
  deepStrictEqual([leaf.notBeforeMs, leaf.notAfterMs], [NOW_MS - LEAF_BACKDATE_MS, NOW_MS + 86_400_000]);
  deepStrictEqual(
    read.getExtension(x509.SubjectAlternativeNameExtension)!.names.toJSON(),
    [{ type: "dns", value: serverNameOf(NETWORK_ID, PAIR.publicKey) }],
  );
  strictEqual(read.getExtension(x509.BasicConstraintsExtension)!.ca, false);
  deepStrictEqual([...read.getExtension(x509.ExtendedKeyUsageExtension)!.usages], [x509.ExtendedKeyUsage.serverAuth]);
  strictEqual(read.getExtension(x509.KeyUsagesExtension)!.usages, x509.KeyUsageFlags.digitalSignature);
  ok(equalBytes(sha256(new Uint8Array(read.rawData)), leaf.hash));
  // The node key signs it, and the leaf's own private key belongs to it.
  const nodeKey = await crypto.subtle.importKey("raw", PAIR.publicKey as BufferSource, "Ed25519", true, ["verify"]);
  ok(await read.verify({ publicKey: nodeKey, signatureOnly: true }));
  const node = new X509Certificate(leaf.cert);
  const { sign } = await import("node:crypto");
  const message = new Uint8Array([1, 2, 3]);
  ok(
    verify(
      "sha256",
      message,
      createPublicKey(node.publicKey.export({ type: "spki", format: "pem" })),
      sign("sha256", message, leaf.key),
    ),
  );
});

Deno.test("createAnchor() makes an authority that holds the node key and may sign leaves only", () => {
  const read = new x509.X509Certificate(createAnchor(NETWORK_ID, PAIR.publicKey));
  const constraints = read.getExtension(x509.BasicConstraintsExtension)!;
  deepStrictEqual([constraints.ca, constraints.pathLength], [true, 0]);
  ok(equalBytes(new Uint8Array(read.publicKey.rawData).subarray(-32), PAIR.publicKey));
  strictEqual(read.subject, read.issuer);
  const leaf = new x509.X509Certificate(
    createLeaf(PAIR, { networkId: NETWORK_ID, nowMs: NOW_MS, lifetimeMs: 1_000 }).cert,
  );
  strictEqual(leaf.issuer, read.subject);
});

Deno.test("[2.1a] names and anchors differ by node and by network", () => {
  const other = keyPairFromSeed(new Uint8Array(32).fill(5)).publicKey;
  const networks = [NETWORK_ID, new Uint8Array(32).fill(6)];
  const names = networks.flatMap((networkId) => [PAIR.publicKey, other].map((key) => serverNameOf(networkId, key)));
  strictEqual(new Set(names).size, 4);
  for (const name of names) ok(/^[0-9a-f]{40}\.peer\.internal$/.test(name));
});

Deno.test("createLeaf() spells dates on both sides of 2050", () => {
  for (const year of [1999, 2049, 2050, 2090]) {
    const nowMs = Date.UTC(year, 5, 1);
    const leaf = createLeaf(PAIR, { networkId: NETWORK_ID, nowMs, lifetimeMs: 86_400_000 });
    strictEqual(new x509.X509Certificate(leaf.cert).notAfter.getTime(), nowMs + 86_400_000);
  }
});
