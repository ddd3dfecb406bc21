/** Incidents of real nodes: invites that are guessed over a socket, what a person does about it, and what others notice of it: nothing. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { workOf } from "../../src/bootstrap/capability_check.ts";
import { type CborValue, decodeCbor, encodeCbor } from "../../src/core/codec.ts";
import { keyPairFromSeed } from "../../src/core/crypto.ts";
import { envelopeValue } from "../../src/core/envelope.ts";
import { nodeIdOf } from "../../src/core/ids.ts";
import { parseInvite } from "../../src/identity/invite.ts";
import { sealMember } from "../../src/membership/record.ts";
import { CallError, type Network } from "../../src/ports/network.ts";
import { SERVER } from "../sim/world.ts";
import { run, temporaryFolder } from "../testkit/cli.ts";
import { makeNetwork, settle, warmUp } from "../testkit/p2p.ts";
import { RunningNode } from "../testkit/running_node.ts";

// libp2p opens a channel of its own once in a process.
await warmUp();

/** One small call; the code where it is refused. */
async function call(network: Network, nodeId: string, method: string, body: CborValue): Promise<CborValue | string> {
  try {
    for await (const message of network.call(nodeId, method, encodeCbor(body), { timeoutMs: 10_000 })) {
      return decodeCbor(message);
    }
    return "empty";
  } catch (error) {
    if (error instanceof CallError) return error.code;
    throw error;
  }
}

Deno.test("[2.4e] [2.1b] who guesses invites over the network is throttled, then shut out; an honest machine joins meanwhile", async () => {
  using dir = temporaryFolder();
  await using node = await RunningNode.start({ stateDir: join(dir.path, "alpha"), form: "forest" });
  const { token } = await node.ask<{ token: string }>({ verb: "invite-create", uses: 10 });
  const invite = parseInvite(token);
  const keyPair = keyPairFromSeed(crypto.getRandomValues(new Uint8Array(32)));
  const thief = makeNetwork({ keyPair, networkId: invite.networkId, discoverySecret: invite.discoverySecret });
  await thief.start();
  const codes: string[] = [];
  const thiefId = nodeIdOf(keyPair.publicKey);
  const { signal } = new AbortController();
  try {
    const record = sealMember(
      {
        seq: Date.now(),
        name: "thief",
        role: "hypha",
        addresses: [],
        capabilities: SERVER,
        version: "0.1.0",
        startedMs: Date.now(),
        left: false,
        drained: false,
      },
      invite.networkId,
      keyPair,
    );
    const address = (await node.status()).node.addresses.find((one) => one.includes("quic-v1"))!;
    await thief.dial(address, { signal });
    for (let i = 0; i < 200 && codes.at(-1) !== "quarantined" && codes.at(-1) !== "unreachable"; i++) {
      const hello = await call(thief, node.nodeId, "join.hello", {
        v: 1,
        n: crypto.getRandomValues(new Uint8Array(32)),
      });
      if (typeof hello === "string") {
        codes.push(hello);
        continue;
      }
      const { n } = hello as unknown as { readonly n: Uint8Array };
      const answer = await call(thief, node.nodeId, "join.register", {
        n,
        g: envelopeValue(invite.grantEnvelope),
        m: envelopeValue(record),
        w: workOf(n),
        pn: crypto.getRandomValues(new Uint8Array(64)),
        pi: crypto.getRandomValues(new Uint8Array(64)),
      });
      codes.push(typeof answer === "string" ? answer : "admitted");
    }
    assert.ok(!codes.includes("admitted"));
    assert.ok(codes.filter((one) => one === "proof-invalid").length >= 5, codes.join(" "));
    assert.ok(codes.includes("throttled"), codes.join(" "));
    const { incidents } = await node.until(
      "is quarantined",
      (status) => status.incidents?.measures.some((one) => one.response === "quarantine") ?? false,
    );
    assert.deepEqual(incidents!.measures.map((one) => one.subject), [`node:${thiefId}`, `node:${thiefId}`]);
    assert.ok(incidents!.throttled > 0);
    // Its channel closes, and a new one is of no use.
    await node.until("has no channel with it", ({ traffic }) => traffic.channels === 0);
    const again = await thief.dial(address, { signal }).then(
      () => call(thief, node.nodeId, "join.hello", { v: 1, n: new Uint8Array(32) }),
      () => "refused",
    );
    assert.equal(typeof again, "string", "it is not served");
  } finally {
    await thief.stop();
  }
  // An honest machine, at the same address, joins with the same invite.
  await using beta = await RunningNode.start({ stateDir: join(dir.path, "beta"), name: "beta", invite: token });
  await beta.until("is in", ({ bootstrap }) => bootstrap.stage === "verified", 30_000);

  const cli = (...args: string[]) => run([...args, "--socket", node.socket], { cwd: dir.path });
  const list = await cli("incident", "list");
  assert.match(list.stdout, /invite-guessing.*throttle, quarantine/);
  const metrics = await (await fetch(new URL("/metrics", node.statusUrl))).text();
  assert.match(metrics, /mycelium_incidents\{state="open"\} 1/);
  assert.match(metrics, /mycelium_incidents_total\{rule="invite-guessing"\} 1/);
  const page = await (await fetch(new URL("/", node.statusUrl))).text();
  assert.match(page, /1 security incident/);
  assert.match((await cli("incident", "show", "1")).stdout, /Response {3}quarantine, until/);
  const dry = await cli("incident", "respond", "1", "--action", "release", "--dry-run", "--json");
  assert.deepEqual(JSON.parse(dry.stdout).ends, ["throttle", "quarantine"]);
  assert.equal((await cli("incident", "respond", "1", "--action", "quarantine", "--for", "6h")).code, 4, "asks first");
  assert.equal((await cli("incident", "respond", "1", "--action", "release")).code, 0);
  assert.equal((await cli("incident", "ack", "1", "--note", "a drill")).code, 0);
  const after = await node.until("is over", (status) => status.incidents?.open === 0);
  assert.deepEqual(after.incidents!.measures, []);
  const actions = JSON.parse((await cli("audit", "search", "--action", "incident-*", "--json")).stdout).map(
    (one: { action: string; by: string }) => `${one.action} ${one.by === node.nodeId ? "node" : one.by}`,
  );
  assert.deepEqual(actions, [
    "incident-opened node",
    "incident-response node",
    "incident-response node",
    "incident-response-ended local",
    "incident-response-ended local",
    "incident-acknowledged local",
  ]);
  assert.ok(JSON.parse((await cli("audit", "search", "--outcome", "refused", "--json")).stdout).length > 0);
  assert.equal((await cli("audit", "verify")).code, 0);
  await settle();
});
