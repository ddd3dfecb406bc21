/**
 * What a node says as its network grows: counts, not times.
 *
 * The laws are those of the table in performance.md: at rest a node sends as much in a network of a hundred as in
 * one of ten, and a record reaches everybody with few sends for each node that gets it.
 *
 * @module
 */

import assert from "node:assert/strict";
import { toBase64Url, utf8 } from "../../src/core/bytes.ts";
import { type Host, World } from "./world.ts";

interface Load {
  readonly nodes: number;
  /** Of one node in a second at rest, all messages and datagrams. */
  readonly idleBytes: number;
  readonly idleMessages: number;
  /**
   * Sends of the broadcast for each node that got a record, its announcements included: it goes around as a word, and
   * again with its proof of rank.
   */
  readonly sendsPerDelivery: number;
  /** Bytes of all that was sent meanwhile for each of them, less what is sent at rest. */
  readonly bytesPerDelivery: number;
  /** Time until all had it. */
  readonly lastMs: number;
}

const ISSUERS = 3;
const IDLE_SECONDS = 20;
/** Without what UDP and QUIC add; 24 to 42 were measured. */
const IDLE_BYTES_MAX = 100;
/** What the broadcast sends: datagrams of its kind, and calls where a message is too long for one. */
const BROADCAST = [0x47, "gossip"];

/** A network of so many, left alone, then told one thing. */
function loadOf(nodes: number): Load {
  const world = new World({ seed: 11, lan: false, latencyMs: { min: 1, max: 5 } });
  const hosts = Array.from({ length: nodes }, (_, i) => world.addHost(`n${i}`));
  const [founder, ...others] = hosts as [Host, ...Host[]];
  world.boot(founder);
  world.ask(founder, { verb: "init", name: "forest", approval: false });
  world.run(1_000);
  const invite = (uses: number, role?: "sclerotium") =>
    world.ask<{ readonly token: string }>(founder, {
      verb: "invite-create",
      uses,
      approval: false,
      ...(role ? { role } : {}),
    }).token;
  const [servers, rest] = [invite(ISSUERS - 1, "sclerotium"), invite(nodes)];
  for (const [i, host] of others.entries()) {
    world.boot(host);
    world.ask(host, { verb: "join", invite: i < ISSUERS - 1 ? servers : rest });
    world.run(100);
  }
  const whole = () => hosts.every((host) => host.view.stage === "verified" && host.view.state.members.size === nodes);
  for (let i = 0; i < 120 && !whole(); i++) world.run(1_000);
  assert.ok(whole(), `${nodes} nodes know each other`);
  // What the joins have set going comes to rest.
  world.run(60_000);
  const total = (count: (host: Host) => number) => hosts.reduce((sum, host) => sum + count(host), 0);
  const sends = () => total(({ sent }) => sent.messages + sent.datagrams);
  const bytes = () => total(({ sent }) => sent.bytes + sent.datagramBytes);
  const broadcasts = () =>
    total(({ sent }) => BROADCAST.reduce((sum: number, kind) => sum + (sent.kinds.get(kind) ?? 0), 0));
  world.resetSent();
  world.run(IDLE_SECONDS * 1_000);
  const [idleSends, idleBytes] = [sends() / IDLE_SECONDS, bytes() / IDLE_SECONDS];
  const idleBroadcasts = broadcasts() / IDLE_SECONDS;
  world.resetSent();
  const author = others[nodes >> 1]!;
  const key = `node/${author.nodeId}/note`;
  world.ask(author, { verb: "spore-put", key, value: toBase64Url(utf8("x".repeat(100))) });
  const startMs = world.nowMs;
  let lastMs: number | undefined;
  for (let i = 0; i < 500 && lastMs === undefined; i++) {
    if (hosts.every((host) => host.view.spores.get(key) !== undefined)) lastMs = world.nowMs - startMs;
    world.run(10);
  }
  assert.ok(lastMs !== undefined, `the record reaches all of ${nodes}`);
  world.run(2_000);
  const seconds = (world.nowMs - startMs) / 1_000;
  return {
    nodes,
    idleBytes: idleBytes / nodes,
    idleMessages: idleSends / nodes,
    sendsPerDelivery: (broadcasts() - idleBroadcasts * seconds) / (nodes - 1),
    bytesPerDelivery: (bytes() - idleBytes * seconds) / (nodes - 1),
    lastMs,
  };
}

Deno.test("[10.4b] [3.3b] simulator: what a node sends at rest, and for one record, does not grow with the network", () => {
  const [small, middle, large] = [loadOf(10), loadOf(30), loadOf(100)] as const;
  const shown = JSON.stringify([small, middle, large]);
  for (const load of [small, middle, large]) {
    assert.ok(load.idleBytes <= IDLE_BYTES_MAX, `bytes a second and node at rest: ${shown}`);
    assert.ok(load.idleMessages <= 5, `messages a second and node at rest: ${shown}`);
  }
  for (const load of [small, middle, large]) assert.ok(load.sendsPerDelivery <= 12, `sends for a record: ${shown}`);
  assert.ok(large.sendsPerDelivery <= 1.5 * small.sendsPerDelivery, `growth of the sends for a record: ${shown}`);
  assert.ok(large.bytesPerDelivery <= 1.5 * small.bytesPerDelivery, `growth of the bytes for a record: ${shown}`);
  assert.ok(large.lastMs <= 4 * small.lastMs + 50, `time to all: ${shown}`);
});
