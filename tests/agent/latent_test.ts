import assert from "node:assert/strict";
import { fromBase64Url, fromUtf8, toBase64Url, utf8 } from "../../src/core/bytes.ts";
import { decodeCbor, encodeCbor } from "../../src/core/codec.ts";
import { type KeyPair, keyPairFromSeed, sha256 } from "../../src/core/crypto.ts";
import type { SporesStatus } from "../../src/agent/status.ts";
import { PEER_CHECKS_MAX, PeerBudget } from "../../src/agent/latent_budget.ts";
import { loadSpores } from "../../src/agent/latent_store.ts";
import { SYNC_BUSY_MS, SYNC_IDLE_MS, syncEveryMs } from "../../src/agent/latent_sync.ts";
import {
  confirmValue,
  deltaAskValue,
  digestAskValue,
  pushValue,
  readConfirmAnswer,
  readDeltaAnswer,
  readDigestAnswer,
} from "../../src/spore/messages.ts";
import { type RankStatement, signRank } from "../../src/spore/proof.ts";
import { packIds, placeOf } from "../../src/spore/digest.ts";
import { RECORD_LIFE_MS_MAX, sealSpore, type Spore } from "../../src/spore/record.ts";
import type { Version } from "../../src/spore/table.ts";
import { invite, join, network, type Node, type World } from "./attack_kit.ts";

interface Row {
  readonly key: string;
  readonly tier: string;
  readonly state: string;
  readonly provisional: boolean;
  readonly value?: string;
  readonly seq: number;
  readonly challenger?: { readonly confirmation: string };
}

/** A founder and some members that all see each other. */
function forest(...names: readonly string[]): { readonly world: World; readonly alpha: Node; readonly others: Node[] } {
  const { world, alpha } = network();
  const others = names.map((name) => {
    const node = world.add(name, name.startsWith("hypha") ? "hypha" : "rhizomorph");
    join(node, invite(alpha).token);
    assert.ok(node.isMember, `${name} has joined`);
    return node;
  });
  world.run(30_000);
  return { world, alpha, others };
}

/** The same, and the members cannot reach the Primary Spore, which is alpha. */
function latentOnly(...names: readonly string[]): ReturnType<typeof forest> {
  const all = forest(...names);
  all.alpha.intercept = (method) => method === "primary.propose" ? "drop" : undefined;
  return all;
}

const spores = (node: Node): SporesStatus => {
  const status = node.agent.status({
    nowMs: node.world.nowMs,
    version: { version: "0.1.0", commit: "", builtAt: "", runtime: "" },
    sources: [],
    traffic: { bytesIn: 0, bytesOut: 0, callsIn: 0, callsOut: 0, channels: 0 },
    refusals: {},
    process: { pid: 1, rssBytes: 1, cpuMs: 1, uptimeMs: 1, openFiles: 1 },
    components: [],
    events: [],
    config: { version: 1 },
  });
  return status.spores!;
};

const put = (node: Node, key: string, value: string, ttlMs?: number) =>
  node.ask<{ readonly seq: number; readonly tier: string }>({
    verb: "spore-put",
    key,
    value: toBase64Url(utf8(value)),
    ...(ttlMs === undefined ? {} : { ttlMs }),
  });

function show(node: Node, key: string): Row | undefined {
  const answer = node.control({ verb: "spore-show", key });
  if (answer.ok) return answer.value as Row;
  assert.equal(answer.error.code, "not-found");
  return undefined;
}

/** What a node would use under a key. */
function value(node: Node, key: string): string | undefined {
  const row = show(node, key);
  return row?.state === "live" ? fromUtf8(fromBase64Url(row.value!)!) : undefined;
}

function word(author: Node | KeyPair, of: Node, change: Partial<Spore["record"]> = {}): Spore {
  const nowMs = of.world.nowMs;
  const seq = change.seq ?? nowMs;
  const pair = "seed" in author ? author : author.keyPair;
  return sealSpore(
    { key: "app/x", seq, value: utf8("a"), issuedMs: seq, expiresMs: seq + RECORD_LIFE_MS_MAX, ...change },
    of.networkId,
    pair,
  );
}

/** A proof of rank by the founder, the only issuer. */
function proven(spore: Spore, founder: Node, change: Partial<RankStatement> = {}): Version {
  const statement: RankStatement = {
    tier: "primary",
    term: 9,
    index: 1_000,
    epoch: founder.epoch,
    untilMs: founder.world.nowMs + 86_400_000,
    ...change,
  };
  const subject = { networkId: founder.networkId, key: spore.record.key, hash: spore.hash };
  return { spore, proof: { ...statement, signatures: [signRank(subject, statement, founder.keyPair)] } };
}

/** Hands versions to a node as if a member had sent them. */
function push(to: Node, from: Node, ...versions: readonly Version[]) {
  const answer = to.called(to.view(from, "inbound"), "spore.push", pushValue(versions));
  to.world.run(0);
  return answer;
}

const SLOW = { ok: false, code: "timeout", message: "no answer" } as const;
/** Some minutes ago. */
const T = -600_000;
/** What does not compress. */
const noise = (seed: number) =>
  Array.from({ length: 220 }, (_, i) => toBase64Url(sha256(utf8(`${seed} ${i}`)).slice(0, 24))).join("");
const bare = (spore: Spore): Version => ({ spore, proof: undefined });

Deno.test("[3.3b] Latent: what one member says all know, and what it deletes all forget", () => {
  const { world, alpha, others } = forest("beta", "gamma", "delta");
  const [beta] = others;
  put(beta!, `node/${beta!.id}/load`, "7");
  world.run(1_000);
  for (const node of [alpha, ...others]) assert.equal(value(node, `node/${beta!.id}/load`), "7", node.name);
  beta!.ask({ verb: "spore-delete", key: `node/${beta!.id}/load` });
  world.run(1_000);
  for (const node of [alpha, ...others]) {
    assert.equal(value(node, `node/${beta!.id}/load`), undefined, node.name);
    assert.equal(show(node, `node/${beta!.id}/load`)?.state, "deleted");
  }
});

Deno.test("[3.3b] Latent: a broadcast that is lost is repaired by the digest", () => {
  const { world, alpha, others: [beta] } = latentOnly("beta");
  // Nothing but digests gets through.
  const lost = (method: string) => method === "gossip" || method === "primary.propose" ? "drop" : undefined;
  for (const node of [alpha, beta!]) {
    node.intercept = lost;
    const feed = node.feed.bind(node);
    node.feed = (event) => event.type === "datagram" ? undefined : feed(event);
  }
  const key = `node/${beta!.id}/a`;
  beta!.ask({ verb: "spore-put", key, value: toBase64Url(utf8("1")) });
  assert.equal(value(alpha, key), undefined);
  world.run(130_000);
  assert.equal(value(alpha, key), "1");
  const { lastSync, runs } = spores(beta!);
  assert.ok(runs >= 2 && lastSync?.ok, JSON.stringify(lastSync));
});

Deno.test("[3.3e] Latent: who comes back after an hour is current within three seconds of its first channel", () => {
  const { world, alpha, others: [beta, gamma] } = forest("beta", "gamma");
  put(beta!, "app/before", "1");
  put(gamma!, "app/deleted", "old");
  world.run(10_000);
  beta!.kill();
  for (let i = 0; i < 100; i++) put(gamma!, `node/${gamma!.id}/n${i}`, `${i} ${noise(i)}`);
  gamma!.ask({ verb: "spore-delete", key: "app/deleted" });
  world.run(3_600_000);
  beta!.boot();
  const startMs = world.nowMs;
  while (beta!.stage !== "verified" && world.nowMs < startMs + 60_000) world.run(50);
  assert.equal(beta!.stage, "verified");
  const backMs = world.nowMs;
  while (spores(beta!).keys < spores(alpha).keys && world.nowMs < backMs + 10_000) world.run(50);
  assert.ok(world.nowMs - backMs <= 3_000, `${world.nowMs - backMs} ms`);
  // More than two messages of a delta carry.
  assert.equal(value(beta!, `node/${gamma!.id}/n99`), `99 ${noise(99)}`);
  assert.equal(value(beta!, "app/before"), "1");
  assert.equal(show(beta!, "app/deleted")?.state, "deleted");
});

Deno.test("[3.5c] Latent: what is known, or overtaken, is not checked again", () => {
  const { world, others: [beta, gamma] } = latentOnly("beta", "gamma");
  const [old, young] = [T, T + 1].map((n) => word(beta!, beta!, { key: "app/once", seq: world.nowMs + n }));
  push(gamma!, beta!, bare(young!));
  const before = spores(gamma!);
  for (let i = 0; i < 5; i++) push(gamma!, beta!, bare(young!), bare(old!));
  const after = spores(gamma!);
  assert.equal(after.verified, before.verified);
  assert.equal(after.skipped - before.skipped, 10);
});

Deno.test("[3.3b] Latent: in a delta both sides get what the other has under one key", () => {
  const { world, alpha, others: [beta] } = latentOnly("beta");
  const key = `node/${beta!.id}/both`;
  const agreed = proven(word(beta!, beta!, { key, value: utf8("agreed") }), alpha);
  push(alpha, beta!, agreed);
  const { zone, node } = { zone: 0, node: 273 + placeOf(key) % 4096 };
  const [entry] = alpha.agent.inspect().spores.digest.ids({ zone, node });
  // Beta has a newer word, which joins what alpha holds and changes its id.
  const newer = bare(word(beta!, beta!, { key, value: utf8("newer"), seq: world.nowMs + 5 }));
  const answer = alpha.called(
    alpha.view(beta!, "inbound"),
    "spore.delta",
    deltaAskValue([newer], [{ zone, node, list: packIds([entry!.id]) }]),
  );
  assert.ok(answer?.ok);
  const { given, done } = readDeltaAnswer(answer.body, "answer");
  assert.deepEqual([given.length, done], [1, 1]);
  assert.equal(alpha.agent.inspect().spores.versions(key).length, 2);
});

Deno.test("[3.4c] Latent: a newer word against a higher tier is used once its owner has confirmed it", () => {
  const { world, alpha, others: [beta, gamma] } = latentOnly("beta", "gamma");
  const key = `service/web/${beta!.id}`;
  const agreed = proven(word(beta!, beta!, { key, value: utf8("10.0.0.1") }), alpha);
  world.run(10);
  push(gamma!, alpha, agreed);
  assert.deepEqual([show(gamma!, key)!.tier, value(gamma!, key)], ["primary", "10.0.0.1"]);
  // The service has moved and no primary can be asked: its node says so itself.
  put(beta!, key, "10.0.0.2");
  assert.equal(value(beta!, key), "10.0.0.2");
  world.run(2_000);
  const row = show(gamma!, key)!;
  assert.equal(value(gamma!, key), "10.0.0.2");
  assert.ok(row.provisional, "it is marked");
  assert.equal(spores(gamma!).suspects.confirmed, 1);
  // A proof for the new word ends the provisional state.
  const next = beta!.agent.inspect().spores.versions(key).find((one) => !one.proof)!;
  push(gamma!, alpha, proven(next.spore, alpha, { index: 1_001 }));
  assert.deepEqual([show(gamma!, key)!.tier, show(gamma!, key)!.provisional], ["primary", false]);
  assert.equal(spores(gamma!).suspects.confirmed, 0);
});

Deno.test("[3.3b] [3.4a] Latent: an own word is offered to the Primary Spore until it has answered, over a restart too", () => {
  const { world, alpha, others } = forest("beta");
  const lost: Node["intercept"] = (method) => method === "primary.propose" ? SLOW : undefined;
  alpha.intercept = lost;
  const beta = others[0]!;
  const key = `node/${beta.id}/place`;
  put(beta, key, "cellar");
  world.run(60_000);
  assert.equal(show(alpha, key)!.tier, "latent", "nobody has agreed on it");
  alpha.intercept = undefined;
  world.run(120_000);
  assert.equal(show(alpha, key)!.tier, "primary");
  alpha.intercept = lost;
  put(beta, key, "attic");
  beta.kill();
  beta.boot();
  alpha.intercept = undefined;
  world.run(120_000);
  for (const node of [alpha, beta]) {
    assert.deepEqual([show(node, key)!.tier, show(node, key)!.state], ["primary", "live"], node.name);
    assert.equal(fromUtf8(fromBase64Url(show(node, key)!.value!)!), "attic", node.name);
  }
});

Deno.test("[3.3b] [3.4a] Latent: what was written for all while no primary was in reach is agreed on afterwards", () => {
  const { world, alpha, others: [beta, gamma] } = forest("beta", "gamma");
  alpha.kill();
  world.run(60_000);
  for (const key of ["app/x", "app/y"]) assert.equal(put(beta!, key, "cellar").tier, "latent");
  beta!.ask({ verb: "spore-delete", key: "app/z" });
  // A restart forgets nothing.
  beta!.kill();
  beta!.boot();
  world.run(30_000);
  assert.equal(show(gamma!, "app/x")!.tier, "latent");
  alpha.boot();
  world.run(240_000);
  for (const node of [alpha, beta!, gamma!]) {
    assert.deepEqual(["app/x", "app/y"].map((key) => [show(node, key)!.tier, value(node, key)]), [
      ["primary", "cellar"],
      ["primary", "cellar"],
    ], node.name);
    assert.equal(show(node, "app/z")!.tier, "latent", "there is nothing to delete");
  }
});

Deno.test("[3.3b] [3.4a] Latent: what was written without the primaries brings nothing back that they changed or deleted", () => {
  const { world, alpha, others: [beta, gamma] } = forest("beta", "gamma");
  put(gamma!, "app/agreed", "first");
  world.run(30_000);
  alpha.kill();
  world.run(60_000);
  for (const key of ["app/deleted", "app/changed"]) assert.equal(put(beta!, key, "old").tier, "latent");
  put(beta!, "app/agreed", "second");
  world.run(5_000);
  beta!.kill();
  alpha.boot();
  world.run(60_000);
  gamma!.ask({ verb: "spore-delete", key: "app/deleted" });
  put(gamma!, "app/changed", "new");
  world.run(30_000);
  assert.deepEqual([show(alpha, "app/deleted")!.tier, show(alpha, "app/changed")!.tier], ["primary", "primary"]);
  const asked: string[] = [];
  const backMs = world.nowMs;
  for (const node of world.nodes) {
    node.intercept = (method, _body, from) => {
      if (method === "primary.propose") asked.push(from.name);
      // Repair takes its time.
      return method === "spore.digest" && world.nowMs < backMs + 7_000 ? SLOW : undefined;
    };
  }
  beta!.boot();
  world.run(240_000);
  for (const node of [alpha, beta!, gamma!]) {
    assert.equal(show(node, "app/deleted")!.state, "deleted", node.name);
    assert.equal(value(node, "app/changed"), "new", node.name);
  }
  assert.deepEqual(asked, [], "it was told before it asked");
});

Deno.test("[3.4c] Latent: a newer word that its owner did not say is not used, counted, and held against it", () => {
  const { world, alpha, others: [beta, gamma] } = latentOnly("beta", "gamma");
  const key = `service/web/${beta!.id}`;
  push(gamma!, alpha, proven(word(beta!, beta!, { key, value: utf8("10.0.0.1") }), alpha));
  // Somebody has the key of beta and speaks in its name.
  world.run(10);
  const stolen = word(beta!.keyPair, beta!, { key, value: utf8("192.0.2.66"), seq: world.nowMs + 5 });
  push(gamma!, alpha, bare(stolen));
  assert.equal(value(gamma!, key), "10.0.0.1", "not used before it was asked about");
  world.run(2_000);
  assert.equal(value(gamma!, key), "10.0.0.1");
  assert.equal(show(gamma!, key)?.challenger?.confirmation, "denied");
  const { suspects, refusals } = spores(gamma!);
  assert.equal(suspects.denied, 1);
  assert.equal(refusals["spore-denied"], 1);
});

Deno.test("[3.4c] Latent: a node overtakes what is said in its name", () => {
  const { world, alpha, others: [beta, gamma] } = latentOnly("beta", "gamma");
  const key = `service/web/${beta!.id}`;
  const { seq } = put(beta!, key, "10.0.0.1");
  world.run(1_000);
  push(gamma!, alpha, bare(word(beta!.keyPair, beta!, { key, value: utf8("192.0.2.66"), seq: seq + 60_000 })));
  world.run(2_000);
  for (const node of [alpha, beta!, gamma!]) {
    assert.equal(value(node, key), "10.0.0.1", node.name);
    assert.equal(show(node, key)!.seq, seq + 60_001);
  }
  assert.equal(beta!.lines(/AUDIT spore-not-mine/).length, 1);
});

Deno.test("[3.4c] Latent: a node that restarts asks again about what contradicts a higher tier", () => {
  const { world, alpha, others: [beta, gamma] } = forest("beta", "gamma");
  put(gamma!, "app/agreed", "first");
  world.run(30_000);
  alpha.kill();
  world.run(60_000);
  put(beta!, "app/agreed", "second");
  world.run(30_000);
  assert.equal(value(gamma!, "app/agreed"), "second", "its author has confirmed it");
  gamma!.kill();
  gamma!.boot();
  world.run(30_000);
  assert.equal(value(gamma!, "app/agreed"), "second");
  assert.equal(spores(gamma!).suspects.confirmed, 1);
});

Deno.test("[3.4c] Latent: whom nobody can ask about is not used", () => {
  const { world, alpha, others: [beta, gamma] } = forest("beta", "gamma");
  const key = `service/web/${beta!.id}`;
  push(gamma!, alpha, proven(word(beta!, beta!, { key, value: utf8("10.0.0.1") }), alpha));
  const moved = word(beta!, beta!, { key, value: utf8("10.0.0.2"), seq: world.nowMs + 5 });
  beta!.kill();
  world.run(1_000);
  push(gamma!, alpha, bare(moved));
  world.run(90_000);
  assert.equal(value(gamma!, key), "10.0.0.1");
  assert.equal(show(gamma!, key)?.challenger?.confirmation, "unanswered");
});

Deno.test("[3.4c] Latent: what is dated ahead waits, is told to nobody, and counts once its time has come", () => {
  const { world, alpha, others: [beta, gamma] } = forest("beta", "gamma");
  const ahead = word(beta!, beta!, { key: "app/ahead", seq: world.nowMs + 3_600_000 });
  beta!.kill();
  world.run(1_000);
  push(gamma!, alpha, bare(ahead));
  world.run(5_000);
  assert.equal(value(gamma!, "app/ahead"), undefined);
  assert.equal(value(alpha, "app/ahead"), undefined);
  assert.equal(spores(gamma!).suspects.unanswered, 1);
  world.run(3_600_000);
  assert.equal(value(gamma!, "app/ahead"), "a");
  assert.equal(spores(gamma!).suspects.unanswered, 0);
});

Deno.test("[3.4c] Latent: what is dated ahead and was denied does not count when its time has come", () => {
  const { world, others: [beta, gamma] } = forest("beta", "gamma");
  push(gamma!, beta!, bare(word(beta!, beta!, { key: "app/ahead", seq: world.nowMs + 3_600_000 })));
  world.run(5_000);
  assert.equal(spores(gamma!).suspects.denied, 1, "beta did not say it, as far as it knows");
  world.run(3_600_000);
  assert.equal(value(gamma!, "app/ahead"), undefined);
  assert.equal(spores(gamma!).suspects.denied, 0);
});

Deno.test("[3.4b] Latent: a record that was tampered with is refused, and counted against who passed it on", () => {
  const { alpha, others: [beta, gamma] } = forest("beta", "gamma");
  const good = word(beta!, beta!);
  const payload = good.envelope.payload.slice();
  payload[payload.length - 3]! ^= 1;
  const bad = { ...good, envelope: { ...good.envelope, payload } };
  push(gamma!, alpha, bare(bad), bare(word(keyPairFromSeed(sha256(utf8("stranger"))), beta!)));
  assert.equal(value(gamma!, "app/x"), undefined);
  const { refusals } = spores(gamma!);
  assert.equal((refusals["spore-tampered"] ?? 0) + (refusals["spore-malformed"] ?? 0), 1);
  assert.equal(refusals["spore-unknown-author"], 1);
  assert.ok(gamma!.lines(/REFUSED spore-/).length >= 2);
});

Deno.test("[3.4b] Latent: two words under one number are evidence, kept and told once", () => {
  const { others: [beta, gamma] } = forest("beta", "gamma");
  const [a, b] = ["a", "b"].map((text) =>
    word(beta!, beta!, { key: "app/two", value: utf8(text), seq: beta!.world.nowMs })
  );
  push(gamma!, beta!, bare(a!));
  push(gamma!, beta!, bare(b!));
  push(gamma!, beta!, bare(a!));
  push(gamma!, beta!, bare(b!));
  assert.equal(spores(gamma!).equivocations, 1);
  assert.equal(gamma!.lines(/AUDIT spore-equivocation/).length, 1);
  // It is not forgotten over a restart.
  gamma!.kill();
  gamma!.boot();
  gamma!.world.run(20_000);
  assert.equal(spores(gamma!).equivocations, 1);
  const [pair] = loadSpores(gamma!.store).evidence;
  assert.deepEqual([pair?.author, pair?.words.length], [beta!.id, 2]);
});

Deno.test("[3.4e] Latent: the words of a removed node go everywhere, what the primaries hold of it stays", () => {
  const { world, alpha, others: [beta, gamma] } = latentOnly("beta", "gamma");
  put(beta!, `node/${beta!.id}/load`, "7");
  const agreed = proven(word(beta!, beta!, { key: "app/agreed" }), alpha);
  push(gamma!, beta!, agreed);
  world.run(1_000);
  assert.equal(value(gamma!, `node/${beta!.id}/load`), "7");
  alpha.ask({ verb: "node-remove", node: "beta" });
  world.run(2_000);
  for (const node of [alpha, gamma!]) {
    assert.equal(value(node, `node/${beta!.id}/load`), undefined, node.name);
    assert.equal(value(node, "app/agreed"), "a", node.name);
  }
  push(gamma!, alpha, bare(word(beta!.keyPair, beta!, { key: "app/late" })));
  assert.equal(spores(gamma!).refusals["spore-revoked-author"], 1);
});

Deno.test("[3.4e] Latent: who may not write under a key is told so, and nothing is sent", () => {
  const { alpha, others: [beta] } = forest("beta");
  const refusal = (key: string) => {
    const answer = beta!.control({ verb: "spore-put", key, value: "" });
    return answer.ok ? "written" : answer.error.code;
  };
  assert.equal(refusal("net/policy"), "not-allowed");
  assert.equal(refusal(`node/${alpha.id}/load`), "not-allowed");
  assert.equal(refusal("elsewhere/x"), "bad-request");
  assert.equal(refusal("app/x"), "written");
  // An issuer takes out what it may not write.
  put(beta!, `service/web/${beta!.id}`, "a");
  beta!.world.run(1_000);
  alpha.ask({ verb: "spore-delete", key: `service/web/${beta!.id}` });
  beta!.world.run(1_000);
  assert.equal(value(beta!, `service/web/${beta!.id}`), undefined);
});

Deno.test("Latent: an own word is stored before it leaves, and its number goes on after a restart", () => {
  const { world, others: [beta] } = forest("beta");
  const key = `node/${beta!.id}/load`;
  const { seq } = put(beta!, key, "7");
  const stored = loadSpores(beta!.store);
  assert.deepEqual(stored.own.map((one) => [one.key, one.seq, one.refresh]), [[key, seq, true]]);
  assert.deepEqual(stored.versions.map((one) => one.spore.record.seq), [seq]);
  beta!.kill();
  beta!.boot();
  world.run(10_000);
  assert.equal(value(beta!, key), "7");
  assert.ok(put(beta!, key, "8").seq > seq);
});

Deno.test("[3.5c] Latent: others' words are stored some seconds later, short-lived ones not at all", () => {
  const { world, others: [beta, gamma] } = latentOnly("beta", "gamma");
  const names = () => loadSpores(gamma!.store).versions.map((one) => one.spore.record.key);
  put(beta!, `node/${beta!.id}/long`, "1");
  put(beta!, `node/${beta!.id}/short`, "1", 60_000);
  world.run(500);
  assert.deepEqual(names(), []);
  world.run(10_000);
  assert.deepEqual(names(), [`node/${beta!.id}/long`]);
  assert.equal(value(gamma!, `node/${beta!.id}/short`), "1");
  world.run(60_000);
  assert.equal(show(gamma!, `node/${beta!.id}/short`)?.state, "expired");
});

Deno.test("[3.5c] Latent: what this node says is said again at half its life, what has a life of its own is not", () => {
  const { world, alpha, others: [beta] } = latentOnly("beta");
  const [kept, gone] = [`node/${beta!.id}/kept`, `node/${beta!.id}/gone`];
  const first = put(beta!, kept, "1").seq;
  put(beta!, gone, "1", 3 * 86_400_000);
  world.run(1_000);
  // Credentials run out meanwhile and are renewed: a few minutes for that.
  world.nowMs += 8 * 86_400_000;
  world.run(300_000);
  assert.equal(show(alpha, gone)?.state, "expired");
  const row = show(alpha, kept)!;
  assert.equal(row.state, "live");
  assert.ok(row.seq > first, "a newer word");
});

Deno.test("[3.3e] Latent: a Hypha keeps services, net and its own, and asks others for the rest", () => {
  const { world, alpha, others: [beta, hypha] } = forest("beta", "hypha-1");
  put(beta!, `node/${beta!.id}/load`, "7");
  put(beta!, `service/web/${beta!.id}`, "10.0.0.1");
  put(alpha, "net/policy", "p");
  put(hypha!, `node/${hypha!.id}/own`, "mine");
  world.run(70_000);
  const kept = hypha!.agent.inspect().spores.keys("").sort();
  assert.deepEqual(kept, ["net/policy", `node/${hypha!.id}/own`, `service/web/${beta!.id}`]);
  assert.ok(spores(hypha!).partial);
  assert.equal(value(alpha, `node/${hypha!.id}/own`), "mine");
  // Asked of a member that keeps all, and checked like anything else.
  assert.equal(value(hypha!, `node/${beta!.id}/load`), "7");
  const listed = hypha!.ask<{ readonly rows: readonly Row[] }>({ verb: "spore-list", prefix: "node/" });
  assert.equal(listed.rows.length, 2);
  assert.deepEqual(hypha!.agent.inspect().spores.keys("").sort(), kept, "and nothing more is kept");
});

Deno.test("[3.5b] Latent: a member that sends more than can be checked is cut short and counted, others are not", () => {
  const { alpha, others: [beta, gamma] } = forest("beta", "gamma");
  const base = word(beta!, beta!);
  const junk = Array.from({ length: 250 }, (_, i) => ({
    ...base,
    envelope: {
      ...base.envelope,
      payload: encodeCbor({ ...decodeCbor(base.envelope.payload) as object, n: 1e12 + i }),
    },
  }));
  for (let i = 0; i < 20; i++) push(gamma!, beta!, ...junk.map(bare));
  const { refusals, verified } = spores(gamma!);
  assert.ok((refusals["spore-tampered"] ?? 0) <= 4_200, `${refusals["spore-tampered"]} checked`);
  assert.ok((refusals["spore-rate-limited"] ?? 0) >= 800);
  assert.ok(verified < 4_300);
  assert.equal(gamma!.called(gamma!.view(beta!, "inbound"), "spore.digest", digestAskValue({ parts: [] }))?.ok, false);
  push(gamma!, alpha, bare(word(alpha, alpha, { key: "app/fine" })));
  assert.equal(value(gamma!, "app/fine"), "a");
});

Deno.test("[3.5d] Latent: only members are answered, and only what reads", () => {
  const { others: [beta] } = forest("beta");
  const stranger = beta!.strangerOf(keyPairFromSeed(sha256(utf8("stranger"))));
  for (const method of ["spore.push", "spore.digest", "spore.delta", "spore.confirm", "spore.read"]) {
    const answer = beta!.called(stranger, method, { v: 1 });
    assert.ok(answer && !answer.ok && answer.code === "not-a-member", method);
    const member = beta!.called(beta!.view([...beta!.peers.values()][0]!, "inbound"), method, { v: 1, g: 7, k: "no" });
    if (method !== "spore.digest") assert.ok(member && !member.ok && member.code === "bad-request", method);
  }
});

Deno.test("[3.4c] Latent: an author answers for its word, an issuer for what issuers order", () => {
  const { world, alpha, others: [beta, gamma] } = forest("beta", "gamma");
  const key = `service/web/${beta!.id}`;
  put(beta!, key, "a");
  world.run(1_000);
  const standing = (node: Node, key: string, hash: Uint8Array) => {
    const answer = node.called(node.view(gamma!, "inbound"), "spore.confirm", confirmValue(key, hash));
    assert.ok(answer?.ok);
    return readConfirmAnswer(answer.body, "answer").s;
  };
  const { hash } = beta!.agent.inspect().spores.get(key)!.winner.spore;
  assert.equal(standing(beta!, key, hash), "current");
  assert.equal(standing(beta!, key, new Uint8Array(32)), "replaced");
  assert.equal(standing(beta!, "app/none", hash), "unknown");
  // It is not alpha's to say.
  assert.equal(standing(alpha, key, hash), "unknown");
  put(alpha, "net/x", "a");
  const ordered = alpha.agent.inspect().spores.get("net/x")!.winner.spore.hash;
  assert.equal(standing(alpha, "net/x", ordered), "current");
  assert.equal(standing(alpha, "net/x", hash), "replaced");
});

Deno.test("[3.5e] Latent: spore-diff shows what two nodes do not share, and changes nothing", () => {
  const { world, alpha, others: [beta, gamma] } = latentOnly("beta", "gamma");
  const both = `node/${beta!.id}/both`;
  put(beta!, both, "1");
  world.run(2_000);
  const diff = () =>
    gamma!.ask<{
      readonly same: boolean;
      readonly differences: readonly { readonly key: string; readonly here?: Row; readonly there?: Row }[];
    }>({ verb: "spore-diff", node: "alpha" });
  assert.equal(diff().same, true);
  // Told to one only, and kept from going on.
  const [only, changed] = [word(beta!, beta!, { key: "app/only" }), word(beta!, beta!, { key: both })];
  gamma!.agent.inspect().spores.merge(bare(only), world.nowMs);
  alpha.agent.inspect().spores.merge(bare(changed), world.nowMs);
  const { same, differences } = diff();
  assert.equal(same, false);
  assert.deepEqual(differences.map((one) => [one.key, one.here?.seq, one.there?.seq]), [
    ["app/only", only.record.seq, undefined],
    [both, gamma!.agent.inspect().spores.get(both)!.winner.spore.record.seq, changed.record.seq],
  ]);
  assert.equal(alpha.agent.inspect().spores.get("app/only"), undefined);
});

Deno.test("[3.4d] Latent: spore-verify checks everything again, and finds what was changed in memory", () => {
  const { others: [beta] } = forest("beta");
  put(beta!, "app/x", "1");
  put(beta!, "app/y", "2");
  const verify = () => {
    const answer = beta!.ask<{ readonly checked: number; readonly bad: readonly string[] }>({ verb: "spore-verify" });
    return [answer.checked, answer.bad];
  };
  assert.deepEqual(verify(), [2, []]);
  beta!.agent.inspect().spores.get("app/x")!.winner.spore.envelope.payload[9]! ^= 1;
  assert.deepEqual(verify(), [2, ["app/x: spore-tampered"]]);
});

Deno.test("[3.5b] Latent: a delta answers within its bounds, and says how far it came", () => {
  const { world, alpha, others: [beta] } = forest("beta");
  for (let i = 0; i < 30; i++) put(beta!, `node/${beta!.id}/n${i}`, "x".repeat(8_000));
  world.run(2_000);
  const ask = (node: number) => {
    const answer = alpha.called(
      alpha.view(beta!, "inbound"),
      "spore.digest",
      digestAskValue({ parts: [{ zone: 0, node }] }),
    );
    assert.ok(answer?.ok);
    return readDigestAnswer(answer.body, "answer").parts;
  };
  const children = Array.from({ length: 16 }, (_, i) => ask(1 + i)).flat();
  const lists = children.filter((part) => part.list && part.list.length > 0);
  const answer = alpha.called(alpha.view(beta!, "inbound"), "spore.delta", deltaAskValue([], lists));
  assert.ok(answer?.ok);
  const body = readDeltaAnswer(answer.body, "answer");
  const wanted = lists.reduce((sum, one) => sum + one.list!.length / 8, 0);
  assert.equal(wanted, 30);
  assert.ok(body.done < wanted && body.given.length === body.done && body.done >= 10, `${body.done} of ${wanted}`);
  // Compressed: 8 000 times the same letter.
  assert.ok(encodeCbor(answer.body).length < 10_000);
});

Deno.test("Latent: a stored record that does not read is dropped, said, and heard again", () => {
  const { world, alpha, others: [beta, gamma] } = forest("beta", "gamma");
  put(gamma!, "app/kept", "1");
  world.run(12_000);
  beta!.kill();
  const name = [...beta!.store.keys()].find((one) => one.startsWith("spore/"))!;
  const stored = beta!.store.get(name)!;
  // Wherever the disk bends a byte.
  const whole = loadSpores([[name, stored]]);
  assert.ok(whole.versions.some((one) => one.proof?.tier === "primary"));
  for (let i = 0; i < stored.length; i++) {
    const bent = loadSpores([[name, stored.map((byte, at) => at === i ? byte ^ 1 : byte)]]);
    assert.deepEqual([bent.versions, bent.unreadable], [[], [name]], `byte ${i}`);
  }
  beta!.store.set(name, stored.map((byte, at) => at === stored.length - 40 ? byte ^ 1 : byte));
  beta!.store.set("spore-own/none", Uint8Array.of(0xff));
  beta!.boot();
  world.run(20_000);
  assert.equal(beta!.lines(/^spores-unreadable 2 stored/).length, 1);
  assert.equal(beta!.store.has("spore-own/none"), false);
  assert.equal(value(beta!, "app/kept"), "1");
  assert.equal(value(alpha, "app/kept"), "1");
});

Deno.test("[3.3e] syncEveryMs(): sooner after differences, later in large networks, on batteries and slow paths", () => {
  const base = { churn: 0, members: 10, rttMs: 5, sparing: false };
  assert.equal(syncEveryMs(base), SYNC_IDLE_MS);
  const churning = [0, 1, 2, 3].map((churn) => syncEveryMs({ ...base, churn }));
  assert.deepEqual(churning, [60_000, 30_000, 15_000, 7_500]);
  assert.equal(syncEveryMs({ ...base, members: 200 }), 120_000);
  assert.equal(syncEveryMs({ ...base, sparing: true }), 240_000);
  assert.ok(syncEveryMs({ ...base, churn: 3, rttMs: 2_000 }) >= 200_000);
  for (const churn of [0, 1.5, 3]) {
    for (const rttMs of [0, 50, 60_000]) {
      for (const sparing of [false, true]) {
        const everyMs = syncEveryMs({ churn, rttMs, sparing, members: 1_000 });
        assert.ok(everyMs >= SYNC_BUSY_MS && everyMs <= 4 * 240_000 && Number.isInteger(everyMs), `${everyMs}`);
      }
    }
  }
});

Deno.test("[3.3e] PeerBudget: a quiet peer may bring an hour's news at once, a loud one so many a second", () => {
  const budget = new PeerBudget();
  assert.ok(budget.take("loud", PEER_CHECKS_MAX, 0));
  assert.equal(budget.take("loud", 1, 0), false);
  assert.equal(budget.waitMs("loud", 200, 0), 1_000);
  assert.ok(budget.take("quiet", PEER_CHECKS_MAX, 0), "one does not use up what is another's");
  assert.equal(budget.waitMs("loud", 200, 1_000), 0);
  assert.ok(budget.take("loud", 400, 1_000));
  assert.equal(budget.take("loud", 1, 1_000), false);
  // Whatever is asked for comes at last.
  assert.ok(budget.waitMs("loud", 1_000_000, 1_000) <= 10_000);
});
