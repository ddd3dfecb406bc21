/** Seed Spores over hosts: published by PUT to a web server, found there by machines that know nothing else. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { toBase64Url, utf8 } from "../../src/core/bytes.ts";
import { hostsTest, SILENT, withAddresses } from "../testkit/hosts.ts";

/** A server that keeps one document, as object stores do. */
const SHELF = `
let body, version = 0;
Deno.serve({ hostname: Deno.args[0], port: 80, onListen: () => console.log("ready") }, async (request) => {
  const etag = '"' + version + '"';
  if (request.method === "PUT") {
    const match = request.headers.get("if-match");
    if (match !== null && match !== etag) return new Response("", { status: 412 });
    body = await request.text();
    version++;
    return new Response(null, { status: 204 });
  }
  if (body === undefined) return new Response("", { status: 404 });
  if (request.headers.get("if-none-match") === etag) return new Response(null, { status: 304 });
  return new Response(body, { headers: { etag } });
});`;

hostsTest(
  "[3.2a] [3.2c] [3.2d] an issuer publishes a Service Seed; machines join by it alone, and find services by it when all are gone",
  async (lab) => {
    const [h1, web, lateHost, freshHost] = await lab.hosts(4);
    const script = join(lab.home, "shelf.js");
    await Deno.writeTextFile(script, SHELF);
    await lab.ready(web!, [Deno.execPath(), "run", "-A", "--no-check", script, web!.v4]);
    const url = `http://${web!.v4}/home.seed`;
    const config = `seeds: {publish: [{to: "${url}", kind: service, every: 10s}]}\n`;
    const n1 = await lab.founder({ name: "n1", host: h1!, flags: SILENT, config });
    const address = `/ip4/${h1!.v4}/udp/4871/quic-v1/p2p/${n1.nodeId}`;
    const late = lab.node({ name: "late", host: lateHost!, flags: [...SILENT, "--seed-url", url] });
    late.join(withAddresses(await n1.invite(), [address]));
    await late.verified();
    await late.kill();

    const key = `service/shop/${n1.nodeId}`;
    await n1.control({ verb: "spore-put", key, value: toBase64Url(utf8("port 8080")) });
    await n1.control({ verb: "seed-publish" });
    await n1.until("published", 20_000, (status) => status.seeds!.targets[0]!.state === "ok");

    // An invite whose addresses are of no use any more, and the address of a web server.
    const fresh = lab.node({ name: "fresh", host: freshHost!, flags: [...SILENT, "--seed-url", url] });
    fresh.join(withAddresses(await n1.invite(), []));
    const { value: joined } = await fresh.verified();
    assert.ok(joined.bootstrap.candidates.some((one) => one.source.includes("seed-http")));
    assert.equal(joined.seeds!.taken[0]!.records, 1);

    await n1.kill();
    await fresh.kill();
    late.start();
    const { value } = await late.until("the seed is read", 20_000, (status) => status.seeds!.taken.length > 0);
    assert.equal(value.seeds!.taken[0]!.records, 1);
    assert.notEqual(value.bootstrap.stage, "verified");
    const found = await late.control({ verb: "spore-show", key }) as { readonly tier: string };
    assert.ok(["seed", "primary"].includes(found.tier), found.tier);
  },
);
