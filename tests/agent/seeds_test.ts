import assert from "node:assert/strict";
import fc from "fast-check";
import { toBase64Url, toHex, utf8 } from "../../src/core/bytes.ts";
import type { KeyPair } from "../../src/core/crypto.ts";
import { nodeIdOf } from "../../src/core/ids.ts";
import { epochBytes } from "../../src/agent/state.ts";
import type { ImportReport, SeedReading } from "../../src/agent/seeds.ts";
import { signRank } from "../../src/spore/proof.ts";
import { sealSpore } from "../../src/spore/record.ts";
import {
  type BundleContent,
  openBundle,
  sealBundle,
  type SeedBundle,
  spellBundle,
} from "../../src/spore/seed_bundle.ts";
import { exportSeed } from "../../src/bootstrap/seed_document.ts";
import type { Host } from "../sim/world.ts";
import { keyOf, Net } from "./kit.ts";

/** What `seed-export` answers. */
interface Exported {
  readonly text: string;
  readonly seq: number;
  readonly records: number;
  readonly content: string;
  readonly renewAtMs: number;
  readonly unchanged?: boolean;
}

function exported(net: Net, host: Host, change: object = {}): Exported {
  return net.world.ask<Exported>(host, { verb: "seed-export", kind: "full", ...change });
}

function chainOf(host: Host) {
  return host.view.state.network!.chain!;
}

function bundleOf(text: string): SeedBundle {
  const opened = openBundle(utf8(text));
  assert.ok(opened.ok);
  return opened.bundle;
}

/** Gives a host a seed, as discovery does. */
function find(net: Net, host: Host, text: string, from = "a stick"): SeedReading {
  const content = utf8(text);
  const reading = host.agent!.readSeed(content);
  net.world.dispatch(host, { type: "seed", nowMs: net.world.local(host), content, from });
  return reading;
}

/** A bundle made by hand, from what a host knows and with what a test changes. */
function made(net: Net, host: Host, change: {
  readonly signer?: KeyPair;
  readonly seq?: number;
  readonly issuedMs?: number;
  readonly content?: Partial<BundleContent>;
} = {}): string {
  const { network, keyPair } = host.view.state;
  const nowMs = change.issuedMs ?? net.world.local(host);
  const manifest = {
    kind: "full" as const,
    networkId: network!.networkId,
    seq: change.seq ?? nowMs,
    issuedMs: nowMs,
    expiresMs: nowMs + 86_400_000,
    addresses: ["/ip4/10.9.9.9/udp/4871/quic-v1"],
  };
  const content = {
    genesis: network!.genesis!.envelope,
    epochs: network!.chain!.since(1).map(epochBytes),
    records: [],
    ...change.content,
  };
  return spellBundle(sealBundle(manifest, content, change.signer ?? keyPair));
}

/** A record of `author` under `key`, lifted by `issuer`. */
function record(net: Net, options: { author: Host; issuer: Host; key: string; signer?: KeyPair; epoch?: number }) {
  const { author, issuer, key } = options;
  const nowMs = net.world.local(issuer);
  const { networkId } = issuer.view.state;
  const spore = sealSpore(
    { key, seq: nowMs, value: utf8("port 8080"), issuedMs: nowMs, expiresMs: nowMs + 86_400_000 },
    networkId,
    author.view.state.keyPair,
  );
  const statement = {
    tier: "seed" as const,
    term: 0,
    index: nowMs,
    epoch: options.epoch ?? chainOf(issuer).epoch,
    untilMs: nowMs + 86_400_000,
  };
  const signature = signRank(
    { networkId, key, hash: spore.hash },
    statement,
    options.signer ?? issuer.view.state.keyPair,
  );
  return { envelope: spore.envelope, proof: { ...statement, signatures: [signature] } };
}

Deno.test("[3.2a] an issuer makes bundles of each kind, numbered upwards over restarts; the same is not made twice", () => {
  const net = new Net(1);
  const one = exported(net, net.founder, { kind: "master" });
  const bundle = bundleOf(one.text);
  assert.equal(bundle.kind, "master");
  assert.ok(bundle.addresses.length > 0 && bundle.epochs.length === 1);
  assert.equal(nodeIdOf(bundle.signer), net.founder.nodeId);
  const two = exported(net, net.founder, { kind: "master" });
  assert.ok(two.seq > one.seq);
  assert.equal(two.content, one.content);
  assert.deepEqual(exported(net, net.founder, { kind: "master", unless: one.content }), {
    unchanged: true,
    content: one.content,
  });
  assert.ok(exported(net, net.founder, { above: two.seq + 5_000 }).seq > two.seq + 5_000);
  const member = net.join("beta");
  const refused = net.world.control(member, { verb: "seed-export" });
  assert.ok(!refused.ok && refused.error.code === "not-issuer");
  const last = exported(net, net.founder).seq;
  // Restarted with a clock that was set back a day.
  net.world.crash(net.founder);
  net.founder.clockOffsetMs -= 86_400_000;
  net.world.boot(net.founder);
  net.world.run(1_000);
  assert.ok(exported(net, net.founder).seq > last);
});

Deno.test("[3.2c] [3.2d] a node that has only a file, and no issuer in reach, takes the service's record out of it", () => {
  const net = new Net(2);
  const web = net.join("web");
  const lost = net.join("lost");
  const key = `service/shop/${web.nodeId}`;
  const text = made(net, net.founder, {
    content: { records: [record(net, { author: web, issuer: net.founder, key })] },
  });
  net.world.crash(net.founder);
  net.world.crash(web);
  net.world.restart(lost);
  net.world.run(60_000);
  const before = lost.agent!.readSeed(utf8(text));
  assert.ok(before.ok && before.records === 1);
  find(net, lost, text);
  const { taken, seen } = net.world.status(lost).seeds!;
  assert.deepEqual(taken.map(({ kind, records, refused, from }) => ({ kind, records, refused, from })), [
    { kind: "full", records: 1, refused: 0, from: "a stick" },
  ]);
  assert.deepEqual(seen.map((one) => one.kind), ["full"]);
  // It is there: importing it again finds nothing new.
  const again = net.world.ask<ImportReport>(lost, { verb: "seed-import", text, dryRun: true });
  assert.deepEqual(again.counts, { known: 1 });
});

Deno.test("[3.2d] records that their author may not write, or nobody who counts has lifted, are refused one by one", () => {
  const net = new Net(3);
  const web = net.join("web");
  const member = net.join("member");
  const good = record(net, { author: web, issuer: net.founder, key: `service/shop/${web.nodeId}` });
  const bad = [
    // In the name of another node; without right; lifted by one that is no issuer; lifted in an epoch that is not.
    record(net, { author: member, issuer: net.founder, key: `service/dns/${web.nodeId}` }),
    record(net, { author: member, issuer: net.founder, key: "net/settings" }),
    record(net, { author: web, issuer: net.founder, key: "app/a", signer: member.view.state.keyPair }),
    record(net, { author: web, issuer: net.founder, key: "app/b", epoch: 2 }),
    { ...record(net, { author: web, issuer: net.founder, key: "app/c" }), proof: good.proof },
    { ...good, envelope: { ...good.envelope, signer: member.view.state.keyPair.publicKey } },
  ];
  const text = made(net, net.founder, { content: { records: [good, ...bad] } });
  const report = net.world.ask<ImportReport>(member, { verb: "seed-import", text });
  assert.deepEqual(report.counts, {
    "new": 1,
    "record-not-permitted": 2,
    "record-unproved": 3,
    "record-tampered": 1,
  });
  assert.equal(net.world.status(member).seeds!.taken[0]!.refused, 6);
  assert.equal(member.refused.get("seed-record-unproved"), 3);
});

Deno.test("[3.2c] a large bundle is taken piece by piece, and holds up nothing; the same again is not looked at twice", () => {
  const net = new Net(9);
  const member = net.join("member");
  const records = Array.from(
    { length: 100 },
    (_, i) => record(net, { author: net.founder, issuer: net.founder, key: `app/record-${i}` }),
  );
  const text = made(net, net.founder, { content: { records } });
  const taken = () => net.world.status(member).seeds!.taken[0]!;
  find(net, member, text);
  assert.equal(taken().records, 32);
  // Whatever comes in between is served.
  assert.ok(net.world.control(member, { verb: "spore-list", prefix: "app/" }).ok);
  net.world.run(1_000);
  assert.deepEqual([taken().records, taken().refused], [100, 0]);
  assert.equal(member.view.spores.keys("app/").length, 100);
  find(net, member, text, "another mirror");
  assert.equal(taken().from, "a stick");
});

Deno.test("[3.2e] the next bundle carries the proofs of the one before, as long as they last: readers have nothing to tell again", () => {
  const net = new Net(11);
  const member = net.join("member");
  const ttlMs = 600_000;
  const proofs = () => bundleOf(exported(net, net.founder, { ttlMs }).text).records.map((one) => one.proof);
  // Records that the primaries do not have: an issuer of before had lifted them.
  const know = (...keys: string[]) => {
    const records = keys.map((key) => record(net, { author: member, issuer: net.founder, key }));
    assert.ok(find(net, net.founder, made(net, net.founder, { content: { records } })).ok);
  };
  know("app/a");
  const [first] = proofs();
  assert.equal(first!.tier, "seed");
  net.world.run(60_000);
  know("app/b");
  const second = proofs();
  assert.deepEqual(second[0], first);
  assert.ok(second[1]!.index > first!.index);
  // At half of its life it is made anew, before it ends.
  net.world.run(ttlMs / 2);
  assert.ok(proofs()[0]!.untilMs > first!.untilMs);
});

Deno.test("[3.2d] a lower number than one that was seen is a rollback, over restarts as well; an operator may force it", () => {
  const net = new Net(4);
  const member = net.join("member");
  const [first, second] = [exported(net, net.founder), exported(net, net.founder)];
  assert.ok(find(net, member, first.text).ok);
  assert.ok(find(net, member, second.text).ok);
  const refusal = (reading: SeedReading) => reading.ok ? "ok" : reading.reason;
  assert.equal(refusal(find(net, member, first.text)), "rollback");
  assert.equal(member.refused.get("seed-rollback"), 1);
  net.world.restart(member);
  net.verified(member);
  assert.equal(refusal(find(net, member, first.text)), "rollback");
  assert.ok(find(net, member, second.text).ok);
  // Another kind has its own numbers.
  const master = exported(net, net.founder, { kind: "master" });
  assert.ok(find(net, member, master.text).ok);

  const refused = net.world.control(member, { verb: "seed-import", text: first.text });
  assert.ok(!refused.ok && refused.error.code === "rollback");
  const dry = net.world.ask<ImportReport>(member, { verb: "seed-import", text: first.text, dryRun: true, force: true });
  assert.equal(dry.seqSeen, second.seq);
  assert.equal(refusal(find(net, member, first.text)), "rollback", "a dry run changes nothing");
  net.world.ask(member, { verb: "seed-import", text: first.text, force: true });
  assert.ok(find(net, member, first.text).ok, "that is the number now");
  assert.match(member.audits.findLast((one) => one.action === "seed-imported")!.detail, /forced below/);
  // A store that is damaged there costs the memory, and not the node.
  member.disk.set("seeds", new Uint8Array([1, 2, 3]));
  member.disk.set("seed-decision", new Uint8Array([0xff]));
  net.world.restart(member);
  net.verified(member);
  assert.ok(find(net, member, first.text).ok);
  // And the form before bundles.
  const { networkId, keyPair } = net.founder.view.state;
  const document = (seq: number) =>
    exportSeed({ networkId, addresses: [], issuedMs: seq, expiresMs: seq + 1, seq }, keyPair);
  assert.ok(find(net, member, document(9)).ok);
  net.world.restart(member);
  net.verified(member);
  assert.equal(refusal(find(net, member, document(8))), "rollback");
  assert.ok(find(net, member, document(9)).ok);
});

Deno.test("[3.2d] whatever an issuer signs into a bundle, reading it gives a reason and never a crash", () => {
  const net = new Net(10);
  const member = net.join("member");
  const good = bundleOf(exported(net, net.founder).text);
  const web = record(net, { author: member, issuer: net.founder, key: "app/a" });
  const envelope = fc.record({
    type: fc.constantFrom("genesis/1", "decision/1", "profile/1", "spore/1", "x"),
    payload: fc.oneof(fc.uint8Array({ maxLength: 80 }), fc.constant(web.envelope.payload)),
    signer: fc.constantFrom(good.signer, web.envelope.signer, new Uint8Array(32)),
    signature: fc.constantFrom(web.envelope.signature, new Uint8Array(64)),
  });
  const content = fc.record({
    genesis: fc.oneof(fc.constant(good.genesis), fc.constant(undefined), envelope),
    epochs: fc.oneof(fc.constant(good.epochs), fc.array(fc.uint8Array({ maxLength: 200 }), { maxLength: 3 })),
    profile: fc.option(envelope, { nil: undefined }),
    decision: fc.option(envelope, { nil: undefined }),
    records: fc.array(
      fc.record({
        envelope: fc.oneof(fc.constant(web.envelope), envelope),
        proof: fc.oneof(
          fc.constant(web.proof),
          fc.record({
            tier: fc.constantFrom("seed" as const, "primary" as const),
            term: fc.nat(),
            index: fc.nat(),
            epoch: fc.nat({ max: 3 }),
            untilMs: fc.constantFrom(0, Number.MAX_SAFE_INTEGER),
            signatures: fc.array(fc.constant({ key: good.signer, signature: web.envelope.signature }), {
              maxLength: 2,
            }),
          }),
        ),
      }),
      { maxLength: 3 },
    ),
  });
  const before = toHex(chainOf(member).head);
  fc.assert(
    fc.property(content, (one) => {
      const reading = find(net, member, made(net, net.founder, { seq: net.world.nowMs, content: one }));
      assert.ok(reading.ok || ["tampered", "unknown-signer", "fork"].includes(reading.reason));
      assert.equal(toHex(chainOf(member).head), before);
    }),
    { numRuns: 200 },
  );
  net.world.run(1_000);
  assert.deepEqual(member.view.spores.keys("").filter((key) => key.startsWith("app/") && key !== "app/a"), []);
});

Deno.test("[3.2d] a newcomer with only an invite checks genesis, epochs and signer of a bundle; nobody else's counts", () => {
  const net = new Net(5);
  const beta = net.join("beta", { as: "sclerotium" });
  net.world.until("two issuers", () => [net.founder, beta].every((one) => chainOf(one).epoch === 2), 120_000);
  const old = made(net, net.founder, {
    content: { epochs: chainOf(net.founder).since(1).slice(0, 1).map(epochBytes) },
  });
  const invite = net.invite();
  // The issuer that signs is not the one that made the invite.
  const text = exported(net, beta).text;
  const { epochs } = bundleOf(text);
  const other = new Net(6);
  const cases: readonly (readonly [string, Parameters<typeof made>[2]])[] = [
    ["ok", {}],
    ["unknown-signer", { signer: keyOf("stranger") }],
    ["unknown-signer", { content: { genesis: undefined } }],
    ["unknown-signer", { content: { epochs: epochs.slice(1) } }],
    ["tampered", {
      content: { epochs: [epochs[0]!, epochs[1]!.map((byte, i) => i === epochs[1]!.length - 20 ? byte ^ 1 : byte)] },
    }],
    ["tampered", { content: { genesis: other.founder.view.state.network!.genesis!.envelope } }],
  ];
  const bundles = cases.map(([wanted, change]) => [wanted, made(net, beta, change)] as const);
  net.world.crash(net.founder);
  net.world.crash(beta);
  const fresh = net.start("fresh", invite);
  net.world.run(5_000);
  assert.equal(fresh.view.state.network!.chain, undefined, "it has nothing but its invite");
  const reading = find(net, fresh, text);
  assert.ok(reading.ok && reading.signer === beta.nodeId && reading.addresses.length > 0);

  for (const [i, [wanted, one]] of bundles.entries()) {
    const read = fresh.agent!.readSeed(utf8(one));
    assert.equal(read.ok ? "ok" : read.reason, wanted, `case ${i}`);
  }
  // Older than what the invite names: an issuer that was removed since could have made it.
  const stale = fresh.agent!.readSeed(utf8(old));
  assert.ok(!stale.ok && stale.reason === "stale-authority");
  const foreign = fresh.agent!.readSeed(utf8(exported(other, other.founder).text));
  assert.ok(!foreign.ok && foreign.reason === "foreign");
});

Deno.test("[3.2d] a member learns epochs from a bundle, and passes them on; those of a removed issuer do not count", () => {
  const net = new Net(7);
  const beta = net.join("beta", { as: "sclerotium" });
  const [away, near] = [net.join("away"), net.join("near")];
  net.meshed(net.founder, beta, away, near);
  net.world.until("two issuers", () => net.world.hosts.every((one) => chainOf(one).epoch === 2), 120_000);
  // Both stay behind while the network goes on.
  net.world.cut([away, near], [net.founder, beta]);
  const gamma = net.join("gamma", { as: "sclerotium" });
  net.world.cut([away, near], [gamma]);
  net.world.until("three issuers", () => chainOf(beta).epoch === 3, 120_000);
  assert.equal(chainOf(away).epoch, 2);
  assert.ok(find(net, away, exported(net, beta).text).ok);
  assert.equal(chainOf(away).epoch, 3);
  net.world.until("the other hears of it", () => chainOf(near).epoch === 3, 120_000);
  assert.ok(away.audits.some((one) => one.action === "seed-epochs"));

  net.world.heal();
  net.world.ask(net.founder, { verb: "node-remove", node: beta.nodeId });
  const betaKey = beta.view.state.keyPair.publicKey;
  net.world.until("away knows", () => away.view.state.revocations.get("node", betaKey) !== undefined, 120_000);
  const forged = made(net, beta, { content: { epochs: chainOf(net.founder).since(1).map(epochBytes) } });
  const read = away.agent!.readSeed(utf8(forged));
  assert.ok(!read.ok && read.reason === "unknown-signer", "whoever holds its key dates what he likes");
});

Deno.test("[3.2b] a split with the genesis key on both sides: a Master Seed of the genesis key says which half counts", () => {
  const net = new Net(8);
  net.checkers.forksExpected = true;
  const { world } = net;
  const [beta, gamma] = ["beta", "gamma"].map((name) => net.join(name, { as: "sclerotium" })) as [Host, Host];
  const [left, right, away] = ["left", "right", "away"].map((name) => net.join(name)) as [Host, Host, Host];
  net.meshed(net.founder, beta, gamma, left, right, away);
  world.until("three issuers", () => world.hosts.every((one) => chainOf(one).issuers.length === 3), 120_000);
  const genesisSeed = net.founder.view.state.genesisPair!.seed;
  const put = (host: Host, key: string, value: string) =>
    world.control(host, { verb: "spore-put", key, value: toBase64Url(utf8(value)) });
  assert.ok(put(left, "app/before", "the split").ok);
  // Two operators, each cut off from the other, each recover their half.
  const halves = [[net.founder, left, away], [beta, gamma, right]] as const;
  world.cut(halves[0], halves[1]);
  world.run(120_000);
  world.ask(net.founder, { verb: "authority-recover", without: [beta.nodeId, gamma.nodeId] });
  world.ask(beta, { verb: "authority-recover", without: [net.founder.nodeId], genesisSeed });
  world.run(60_000);
  const forkedAt = chainOf(beta).epoch;
  assert.equal(chainOf(net.founder).epoch, forkedAt);
  assert.notEqual(toHex(chainOf(beta).head), toHex(chainOf(net.founder).head));
  world.heal();
  world.run(120_000);
  assert.notEqual(toHex(chainOf(beta).head), toHex(chainOf(net.founder).head), "the chains refuse to merge");
  const contrary = world.control(left, { verb: "seed-import", text: exported(net, beta).text, dryRun: true });
  assert.ok(!contrary.ok && contrary.error.code === "fork");

  // Nobody without the genesis key can decide.
  const denied = world.control(beta, { verb: "seed-decide" });
  assert.ok(!denied.ok && denied.error.code === "no-genesis-key");
  const planned = world.ask<{ decided: boolean; epoch: number }>(beta, {
    verb: "seed-decide",
    dryRun: true,
    genesisSeed,
  });
  assert.deepEqual([planned.decided, planned.epoch], [false, chainOf(beta).epoch]);
  const { text } = world.ask<Exported>(beta, { verb: "seed-decide", genesisSeed });

  const before = toHex(chainOf(left).head);
  const dry = world.ask<ImportReport>(left, { verb: "seed-import", text, dryRun: true });
  assert.equal(dry.replaces!.fromEpoch, forkedAt);
  assert.deepEqual(dry.replaces!.issuersBefore, chainOf(left).issuers.map(nodeIdOf));
  assert.deepEqual(dry.replaces!.issuersAfter, chainOf(beta).issuers.map(nodeIdOf));
  assert.equal(toHex(chainOf(left).head), before, "a dry run changes nothing");

  // One of that half is switched off meanwhile: nobody will tell it by hand.
  world.crash(away);
  world.ask(left, { verb: "seed-import", text });
  assert.ok(left.audits.some((one) => one.action === "split-resolved"));
  const others = world.hosts.filter((one) => one !== away);
  world.until(
    "one network again",
    () =>
      new Set(others.map((one) => toHex(chainOf(one).head))).size === 1 &&
      others.every((one) => one.view.stage === "verified"),
    600_000,
  );
  net.meshed(...others);
  assert.ok(net.founder.audits.some((one) => one.action === "split-resolved"), "the other of its half was told by it");
  // The founder is a Sclerotium and may issue again.
  world.until("all three issue", () => chainOf(left).issuers.length === 3, 600_000);
  // The one that was away finds issuers that hold other epochs than it does, and is told why.
  world.boot(away);
  world.until("it goes over", () => toHex(chainOf(away).head) === toHex(chainOf(left).head), 300_000);
  assert.ok(away.audits.some((one) => one.action === "split-resolved"));
  net.verified(away);
  net.meshed(...world.hosts);
  for (const host of world.hosts) {
    const { network } = host.view.state;
    assert.ok(
      network!.chain!.counts(network!.credential!.envelope.signer),
      `${host.name} has a credential that counts`,
    );
  }
  // The records too: what was written before is there, new ones are agreed on, also on the founder's new replica.
  const written = world.until("the primaries agree", () => put(left, "app/after", "the split").ok, 300_000);
  assert.ok(written >= 0);
  world.run(60_000);
  for (const host of world.hosts) {
    for (const key of ["app/before", "app/after"]) {
      const entry = host.view.spores.get(key);
      assert.equal(new TextDecoder().decode(entry?.winner.spore.record.value), "the split", `${host.name} ${key}`);
      assert.equal(entry!.tier, "primary", `${host.name} ${key}`);
    }
  }
  // After a restart the decision stands.
  world.restart(left);
  net.verified(left);
  assert.equal(toHex(chainOf(left).head), toHex(chainOf(beta).head));
  assert.equal(world.status(left).seeds!.decision!.epoch, planned.epoch);
});

/** Three voters, cut into one and two; both halves go on, the one alone by force. */
function twoHistories(seed: number) {
  const net = new Net(seed);
  const { world, founder } = net;
  net.checkers.forksExpected = true;
  const pair = ["beta", "gamma"].map((name) => net.join(name, { as: "sclerotium" })) as [Host, Host];
  world.until("three vote", () =>
    [founder, ...pair].every((one) => {
      const view = one.view.primary;
      return view?.configCommitted && view.config.votersOutgoing.length === 0 && view.config.voters.length === 3;
    }), 600_000);
  const genesisSeed = founder.view.state.genesisPair!.seed;
  world.cut([founder], pair);
  world.run(60_000);
  const names = pair.map((one) => one.name);
  // From here on there are two histories, which is what the operators take upon themselves.
  for (const one of net.checkers.raft.values()) one.check = () => undefined;
  world.ask(founder, { verb: "authority-recover", without: pair.map((one) => one.nodeId) });
  world.ask(founder, { verb: "primary-recover", without: names });
  world.ask(pair[0], { verb: "authority-recover", without: [founder.nodeId], genesisSeed });
  const put = (host: Host, key: string) =>
    world.until(
      `${host.name} writes`,
      () => world.control(host, { verb: "primary-put", key, value: "said" }).ok,
      120_000,
    );
  put(founder, "app/left");
  put(pair[0], "app/right");
  world.run(5_000);
  return { net, world, founder, pair, genesisSeed, put };
}

/** Waits until three vote in one group, and returns what each of them has under a key. */
function together(net: Net, hosts: readonly Host[], key: string): readonly (string | undefined)[] {
  const { world } = net;
  world.until(
    "one group of three",
    () =>
      new Set(hosts.map((one) => toHex(chainOf(one).head))).size === 1 &&
      new Set(hosts.map((one) => one.view.primary?.config.voters.join())).size === 1 &&
      hosts.every((one) => one.view.primary?.config.voters.length === 3),
    1_200_000,
  );
  return hosts.map((host) => {
    const got = world.ask<{ versions: { value?: string }[] }>(host, { verb: "primary-get", key });
    return got.versions[0]?.value;
  });
}

Deno.test("[3.2b] two histories of the Primary Spore: that of the half that was decided for stays, whichever was recovered by force", () => {
  {
    const { net, world, founder, pair, genesisSeed, put } = twoHistories(21);
    const { text } = world.ask<Exported>(pair[0], { verb: "seed-decide", genesisSeed });
    world.ask(founder, { verb: "seed-import", text });
    world.run(5_000);
    world.heal();
    assert.deepEqual(together(net, [founder, ...pair], "app/right"), ["said", "said", "said"]);
    assert.deepEqual(together(net, [founder, ...pair], "app/left"), [undefined, undefined, undefined]);
    put(founder, "app/after");
  }
  {
    const { net, world, founder, pair, put } = twoHistories(22);
    const { text } = world.ask<Exported>(founder, { verb: "seed-decide" });
    // One of them is told, and passes it on.
    world.ask(pair[1], { verb: "seed-import", text });
    world.until("both went over", () => pair.every((one) => chainOf(one).epoch === chainOf(founder).epoch), 30_000);
    world.heal();
    assert.deepEqual(together(net, [founder, ...pair], "app/left"), ["said", "said", "said"]);
    assert.deepEqual(together(net, [founder, ...pair], "app/right"), [undefined, undefined, undefined]);
    put(pair[0], "app/after");
  }
});
