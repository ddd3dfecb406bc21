/** Who is let in and who is not: beacons, invites, approval, removal, commands. @module */

import assert from "node:assert/strict";
import { beaconKeys, encodeBeacon } from "../../src/bootstrap/beacon.ts";
import { toHex } from "../../src/core/bytes.ts";
import { keyPairFromSeed } from "../../src/core/crypto.ts";
import { nodeIdOf } from "../../src/core/ids.ts";
import { parseInvite } from "../../src/identity/invite.ts";
import type { Status } from "../../src/agent/status.ts";
import { eventually } from "../testkit/program.ts";
import { type Host, type HostNode, hostsTest, type Lab, pause, seeEachOther, SILENT } from "../testkit/hosts.ts";

const BEACONS = new URL("./fixtures/beacons.ts", import.meta.url).pathname;

const GROUP = "239.77.67.1";
const NEWCOMER = new URL("./fixtures/newcomer.ts", import.meta.url).pathname;
const CALLER = new URL("./fixtures/caller.ts", import.meta.url).pathname;

/** Somebody on the segment who hears and sends beacons. */
class Stranger implements AsyncDisposable {
  readonly heard: { readonly from: string; readonly hex: string }[] = [];
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #reading: Promise<void>;
  #ready = false;

  constructor(lab: Lab, host: Host) {
    const command = [Deno.execPath(), "run", "-A", "--no-check", "--no-lock", "--unstable-net", BEACONS, host.v4];
    const child = lab.spawn(host, command, { stdin: "piped", stdout: "piped", stderr: "null" });
    this.#writer = child.stdin.getWriter();
    this.#reading = this.#read(child.stdout);
  }

  async listening(): Promise<void> {
    await eventually("the stranger listens", 10_000, () => Promise.resolve(this.#ready || undefined));
  }

  async send(hex: string): Promise<void> {
    await this.#writer.write(new TextEncoder().encode(`${GROUP} ${hex}\n`));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writer.close();
    await this.#reading;
  }

  async #read(stdout: ReadableStream<Uint8Array>): Promise<void> {
    let rest = "";
    for await (const part of stdout.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + part).split("\n");
      rest = lines.pop()!;
      for (const line of lines) {
        const [from, hex] = line.split(" ");
        if (hex === undefined) this.#ready = true;
        else this.heard.push({ from: from!, hex });
      }
    }
  }
}

hostsTest(
  "[2.1d] beacons that are forged, of a stolen name or replayed are counted, and lead to no candidate",
  async (lab) => {
    const [h1, h2, h3] = await lab.hosts(3);
    await lab.inside(h3!, ["ip", "route", "add", `${GROUP}/32`, "dev", "eth0"]);
    await using stranger = new Stranger(lab, h3!);
    await stranger.listening();
    const flags = ["--no-mdns", "--no-broadcast"];
    const n1 = await lab.founder({ name: "n1", host: h1!, flags });
    const n2 = lab.node({ name: "n2", host: h2!, flags });
    const invite = await n1.invite();
    n2.join(invite);
    await seeEachOther([n1, n2], 15_000);
    const { networkId, discoverySecret } = parseInvite(invite);
    const evil = keyPairFromSeed(new Uint8Array(32).fill(13));
    const trap = `/ip4/${h3!.v4}/udp/4871/quic-v1`;
    const beacon = { kind: "announce" as const, addresses: [trap], incarnation: 1, seq: 1, sentMs: Date.now() };
    const count = (reason: string) => (status: Status) => (status.refusals[reason] ?? 0) > 0;

    // Who does not know the secret cannot even be heard.
    const guess = beaconKeys(networkId, new Uint8Array(32).fill(1));
    await stranger.send(toHex(encodeBeacon(beacon, guess, evil)));
    await n1.until("counts it as forged", 5_000, count("forged"));
    // Who knows it (an invite was stolen) cannot speak in another's name: the payload is n1's, the addresses are not.
    const known = beaconKeys(networkId, discoverySecret);
    const original = encodeBeacon(beacon, known, evil);
    const at = original.findIndex((_, i) => toHex(original.subarray(i, i + 32)) === toHex(evil.publicKey));
    const other = keyPairFromSeed(new Uint8Array(32).fill(14)).publicKey;
    original.set(other, at);
    await stranger.send(toHex(original));
    await n1.until("counts the changed one", 5_000, (status) => (status.refusals.forged ?? 0) > 1);

    // A true beacon of a member, heard on the wire, comes again from elsewhere when it is old.
    const { hex } = (await eventually(
      "n2 was heard",
      5_000,
      () => Promise.resolve(stranger.heard.find((one) => one.from === h2!.v4)),
    )).value;
    await pause(6_000);
    await stranger.send(hex);
    await n1.until("counts it as replayed", 5_000, count("replayed"));

    for (const node of [n1, n2]) {
      const { bootstrap, members } = await node.status();
      assert.ok(
        !bootstrap.candidates.some((one) => one.address.includes(h3!.v4)),
        "the stranger is no candidate",
      );
      assert.equal(members.length, 2);
      assert.ok(!members.some((one) => one.nodeId === nodeIdOf(evil.publicKey)));
    }
  },
);

/** Joins and waits until the failure shows with this code; returns what a person is told. */
async function refused(node: HostNode, invite: string, code: string): Promise<Status> {
  // By the socket: the command line has a look at the invite first, and a thief does not.
  node.start();
  await node.until("runs", 15_000, (status) => status.bootstrap.stage === "idle");
  await node.control({ verb: "join", invite });
  const { value } = await node.until(
    `is refused with ${code}`,
    15_000,
    (status) => status.bootstrap.failures.some((one) => one.code === code),
  );
  const failure = value.bootstrap.failures.find((one) => one.code === code)!;
  assert.ok(failure.cure.length > 0 && failure.what.length > 0, `${code} has a cure`);
  assert.ok(failure.tried.length > 0);
  assert.equal(value.credential, undefined);
  assert.equal(value.health.ready, false);
  return value;
}

hostsTest(
  "[1.2b, 1.3b] a stolen invite, used up, expired or revoked, is refused with its cause and its cure",
  async (lab) => {
    const [h1, h2] = await lab.hosts(2);
    const n1 = await lab.founder({ name: "n1", host: h1! });
    const node = (name: string) => lab.node({ name, host: h2!, flags: ["--port", "0", "--http", "off", ...SILENT] });
    const usedUp = await n1.invite();
    const expired = await n1.invite({ ttlMs: 1_000 });
    const revoked = await n1.invite();
    const { code, stderr } = await n1.cli("invite", "revoke", toHex(parseInvite(revoked).grant.id));
    assert.equal(code, 0, stderr);

    const owner = node("owner");
    owner.join(usedUp);
    await owner.verified();
    const thieves = { "invite-used-up": usedUp, "invite-expired": expired, "invite-revoked": revoked };
    for (const [cause, invite] of Object.entries(thieves)) {
      const thief = node(cause);
      await refused(thief, invite, cause);
      const told = await thief.cli("doctor");
      assert.match(told.stdout + told.stderr, new RegExp(cause), "the doctor names the cause");
      await thief.kill();
    }
    const late = await lab.node({ name: "late", host: h2! }).cli("join", expired);
    assert.equal(late.code, 4, late.stderr);
    assert.match(late.stderr, /invite create/, "the cure is named");
    // Changed by somebody on the way: it is not even tried.
    const tampered = await lab.node({ name: "tampered", host: h2! }).cli("join", usedUp.slice(0, -6) + "AAAAAA");
    assert.equal(tampered.code, 2, tampered.stderr);
    const { members, refusals, invites } = await n1.status();
    assert.deepEqual(members.map((one) => one.name).sort(), ["n1", "owner"]);
    for (const cause of Object.keys(thieves)) assert.ok((refusals[cause] ?? 0) > 0, `${cause} is counted`);
    const states = new Map(invites.map((one) => [one.id, one.state]));
    assert.equal(states.get(toHex(parseInvite(usedUp).grant.id)), "used-up");
    assert.equal(states.get(toHex(parseInvite(expired).grant.id)), "expired");
    assert.equal(states.get(toHex(parseInvite(revoked).grant.id)), "revoked");
  },
);

hostsTest("[1.2b, 1.2c] a network with approval: a join waits, is approved or denied, and says so", async (lab) => {
  const [h1, h2, h3] = await lab.hosts(3);
  const n1 = await lab.founder({ name: "n1", host: h1! }, "lab", ["--approval"]);
  const invite = await n1.invite({ uses: 2 });
  const good = lab.node({ name: "good", host: h2! });
  const bad = lab.node({ name: "bad", host: h3! });
  for (const node of [good, bad]) {
    node.join(invite);
    const { value } = await node.until("waits", 15_000, (status) => status.bootstrap.stage === "awaiting-approval");
    assert.equal(value.bootstrap.waitingFor[0]!.code, "operator-approval");
    assert.match(value.bootstrap.waitingFor[0]!.what, /mycelium node approve/);
    assert.equal(value.credential, undefined);
  }
  assert.deepEqual((await n1.status()).pending.map((one) => one.name).sort(), ["bad", "good"]);
  const approved = await n1.cli("node", "approve", good.nodeId.slice(-8));
  assert.equal(approved.code, 0, approved.stderr);
  const denied = await n1.cli("node", "deny", "bad", "--reason", "not ours");
  assert.equal(denied.code, 0, denied.stderr);
  await seeEachOther([n1, good], 20_000);
  const { value } = await bad.until(
    "is told",
    20_000,
    (status) => status.bootstrap.failures.some((one) => one.code === "approval-denied"),
  );
  assert.match(value.bootstrap.failures.at(-1)!.cure, /operator/);
  const { pending, members } = await n1.status();
  assert.deepEqual(pending.map((one) => one.name), []);
  assert.deepEqual(members.map((one) => one.name).sort(), ["good", "n1"]);
});

hostsTest(
  "[2.1e, 2.2c] a removed node is cut off at once, is told, cannot come back, and everybody agrees",
  async (lab) => {
    const hosts = await lab.hosts(3);
    const [n1, n2, n3] = await trio(lab, hosts);
    const dry = await n1.cli("node", "remove", "n3", "--dry-run");
    assert.equal(dry.code, 0, dry.stderr);
    assert.equal((await n1.status()).members.length, 3);
    const { nodeId } = n3;
    const { code, stderr } = await n1.cli("node", "remove", "n3", "--yes");
    assert.equal(code, 0, stderr);
    for (const node of [n1, n2]) {
      const { value, tookMs } = await node.until(
        "has no n3",
        5_000,
        (status) => status.members.length === 2 && status.traffic.channels === 1,
      );
      console.log(`${node.name} is rid of n3 ${Math.round(tookMs)} ms after the command ended`);
      assert.ok(
        !value.members.some((one) => one.nodeId === nodeId),
      );
      assert.equal(value.network!.revocations, 1);
    }
    const { value } = await n3.until(
      "is told that it was revoked",
      30_000,
      (status) => status.bootstrap.failures.some((one) => one.code === "revoked"),
    );
    assert.match(value.bootstrap.failures.find((one) => one.code === "revoked")!.cure, /new invite/);
    assert.equal(value.health.ready, false);
    // Neither a restart helps nor time.
    await n3.kill();
    n3.start();
    await n3.until(
      "is told again",
      20_000,
      (status) => status.bootstrap.failures.some((one) => one.code === "revoked"),
    );
    for (const node of [n1, n2]) {
      const status = await node.status();
      assert.equal(status.members.length, 2);
      assert.ok(!status.members.some((one) => one.nodeId === nodeId));
    }
  },
);

/** Three members; n1 is the founder and holds the operator's key. */
async function trio(lab: Lab, hosts: readonly Host[]): Promise<[HostNode, HostNode, HostNode]> {
  const n1 = await lab.founder({ name: "n1", host: hosts[0]! });
  const invite = await n1.invite({ uses: 2 });
  const [n2, n3] = [lab.node({ name: "n2", host: hosts[1]! }), lab.node({ name: "n3", host: hosts[2]! })];
  n2.join(invite);
  n3.join(invite);
  await seeEachOther([n1, n2, n3], 15_000);
  return [n1, n2, n3];
}

/** What each registration of a newcomer that does it by hand came to. */
async function registrations(lab: Lab, host: Host, given: unknown): Promise<Record<string, string>> {
  const command = [Deno.execPath(), "run", "-A", "--no-check", NEWCOMER, JSON.stringify(given)];
  const { code, stdout, stderr } = await lab.inside(host, command);
  assert.equal(code, 0, stderr);
  const lines = stdout.trim().split("\n").map((line) => JSON.parse(line) as { what: string; code: string });
  return Object.fromEntries(lines.map(({ what, code }) => [what, code]));
}

hostsTest("[1.2b, 2.1b] a registration that is replayed is refused, on its channel and from elsewhere", async (lab) => {
  const [home, other] = await lab.hosts(2);
  const n1 = await lab.founder({ name: "n1", host: home! });
  const address = `/ip4/${home!.v4}/udp/4871/quic-v1/p2p/${n1.nodeId}`;
  const came = await registrations(lab, other!, { invite: await n1.invite({ uses: 5 }), address, do: "replay" });
  assert.deepEqual(came, {
    "first": "accepted",
    "same channel": "replayed",
    "another node": "replayed",
    "another node's challenge": "proof-invalid",
  });
  const status = await n1.until("has counted them", 2_000, (now) => now.refusals["replayed"] === 2);
  assert.equal(status.value.refusals["proof-invalid"], 1);
  assert.equal(status.value.members.length, 2);
});

hostsTest("[1.2c] a lying capability advert is not believed, over a real channel; an honest one is", async (lab) => {
  const [home, other] = await lab.hosts(2);
  const n1 = await lab.founder({ name: "n1", host: home! });
  const address = `/ip4/${home!.v4}/udp/4871/quic-v1/p2p/${n1.nodeId}`;
  const lies = [
    {},
    { cpus: 4_000 },
    { memoryBytes: 2 ** 52 },
    { diskFreeBytes: 200 * 2 ** 30 },
    { arch: "pdp11" },
    { hashesPerSecond: 1_000_000_000 },
  ];
  const came = await registrations(lab, other!, { invite: await n1.invite({ uses: 9 }), address, do: "lie", lies });
  assert.deepEqual(came, {
    "honest": "accepted",
    "cpus": "capability-implausible",
    "memoryBytes": "capability-implausible",
    "diskFreeBytes": "capability-implausible",
    "arch": "capability-implausible",
    "hashesPerSecond": "capability-implausible",
  });
  await n1.until("has one member more", 2_000, (now) => now.members.length === 2);
});

hostsTest(
  "[1.4d, 1.4e] remote commands: ping, status, drain, safe mode, isolate, rejoin; not without the key, not twice",
  async (lab) => {
    const [n1, n2, n3] = await trio(lab, await lab.hosts(3));
    const exec = async (verb: string, ...rest: string[]) => {
      const ended = await n1.cli("exec", verb, "--on", "n2", ...rest);
      assert.equal(ended.code, 0, `${verb}: ${ended.stderr}`);
      return ended.stdout;
    };
    const mode = (wanted: string) => (status: Status) => status.node.mode === wanted;
    assert.notEqual((await exec("ping")).trim(), "");
    assert.match(await exec("status"), /n2/);
    await exec("drain");
    await n2.until("is drained", 2_000, mode("drained"));
    await n3.until(
      "sees that n2 is drained",
      5_000,
      (status) => status.members.some((one) => one.name === "n2" && one.drained),
    );
    await exec("undrain");
    await n2.until("works again", 2_000, mode("normal"));
    await exec("safe-mode");
    await n2.until("is in safe mode", 2_000, mode("safe"));
    await exec("normal-mode");
    await n2.until("is back", 2_000, mode("normal"));

    // An isolated node talks to nobody, and still obeys its operator.
    await exec("isolate", "--yes");
    await n2.until("is isolated", 2_000, mode("isolated"));
    await n3.until(
      "has lost n2",
      5_000,
      (status) => status.members.some((one) => one.name === "n2" && one.state !== "alive"),
    );
    await pause(3_000);
    assert.equal((await n2.status()).members.filter((one) => one.state === "alive").length, 0);
    await exec("rejoin");
    await n2.until("is on its way back", 5_000, mode("normal"));
    await seeEachOther([n1, n2, n3], 20_000);

    // n3 is a member and no operator.
    const denied = await n3.cli("exec", "ping", "--on", "n2");
    assert.equal(denied.code, 4, denied.stderr);
    assert.match(denied.stderr, /operator key/);

    // A command heard on its way counts once, for its node, and from its operator only.
    const signed = await n1.control({ verb: "sign-command", node: "n2", command: "ping", args: {}, ttlMs: 60_000 }) as {
      readonly body: Record<string, number>;
    };
    const body = new Uint8Array(Object.values(signed.body));
    const forged = body.slice();
    forged[forged.length - 20]! ^= 1;
    const { networkId, discoverySecret } = parseInvite(await n1.invite());
    const caller = (to: HostNode, bodies: readonly Uint8Array[]) =>
      call(lab, n3.host, {
        networkId: toHex(networkId),
        discoverySecret: toHex(discoverySecret),
        seed: "0d".repeat(32),
        address: `/ip4/${to.host.v4}/udp/4871/quic-v1/p2p/${to.nodeId}`,
        calls: bodies.map((one) => ({ method: "exec", body: toHex(one) })),
      });
    const [first, second, third] = await caller(n2, [body, body, forged]);
    assert.equal(first!.ok, true);
    assert.equal(second!.code, "command-replayed");
    assert.match(third!.code ?? "", /^command-(forged|not-operator)$/);
    assert.equal((await caller(n1, [body]))[0]!.code, "command-other-node");
    // The restart does not make the node forget.
    await n2.kill();
    n2.start();
    await n2.verified();
    assert.equal((await caller(n2, [body]))[0]!.code, "command-replayed");
    await n2.until("has counted the replay", 2_000, (status) => status.refusals["command-replayed"] === 1);
    // Who has shown no credential is served nothing else.
    const outside = await call(lab, n3.host, {
      networkId: toHex(networkId),
      discoverySecret: toHex(discoverySecret),
      seed: "0d".repeat(32),
      address: `/ip4/${n2.host.v4}/udp/4871/quic-v1/p2p/${n2.nodeId}`,
      calls: ["sync", "push", "seen", "assign", "authority.sign", "status.report"].map((method) => ({
        method,
        body: "a0",
      })),
    });
    for (const one of outside) assert.equal(one.code, "not-a-member");
  },
);

interface Called {
  readonly ok?: boolean;
  readonly code?: string;
  readonly message?: string;
}

async function call(lab: Lab, host: Host, given: unknown): Promise<Called[]> {
  const command = [Deno.execPath(), "run", "-A", "--no-check", CALLER, JSON.stringify(given)];
  const { code, stdout, stderr } = await lab.inside(host, command);
  assert.equal(code, 0, stderr);
  return stdout.trim().split("\n").map((line) => JSON.parse(line) as Called);
}
