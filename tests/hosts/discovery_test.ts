/**
 * Discovery between hosts: network namespaces on two switches, two interfaces each, no default route.
 *
 * Needs root and `ip` (iproute2); the DNS test also `dnsmasq`. Where they are missing the tests are skipped and
 * say so. All names hold this process's id, and everything made is removed.
 */

import assert from "node:assert/strict";
import { exportSeed } from "../../src/bootstrap/seed_document.ts";
import { fromHex, toHex } from "../../src/core/bytes.ts";
import { keyPairFromSeed } from "../../src/core/crypto.ts";
import { nodeIdOf } from "../../src/core/ids.ts";

const NETWORK = "ab".repeat(32);
const SECRET = "cd".repeat(32);
const FIXTURE = new URL("./fixtures/discovery_host.ts", import.meta.url).pathname;

const missing = [
  ...(Deno.uid() === 0 ? [] : ["root"]),
  ...(await works("ip", "-V") ? [] : ["ip (iproute2)"]),
];
const withoutDns = [...missing, ...(await works("dnsmasq", "--version") ? [] : ["dnsmasq"])];
if (withoutDns.length > 0) console.warn(`SKIPPED: discovery between hosts needs ${withoutDns.join(" and ")}`);

async function works(command: string, argument: string): Promise<boolean> {
  try {
    return (await new Deno.Command(command, { args: [argument], stdout: "null", stderr: "null" }).output()).success;
  } catch {
    return false;
  }
}

async function ip(...args: string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command("ip", { args, stdout: "null" }).output();
  if (!success) throw new Error(`Cannot run "ip ${args.join(" ")}": ${new TextDecoder().decode(stderr).trim()}`);
}

/** A switch with two bridges, and hosts on them. */
class Lab {
  static #count = 0;
  readonly #prefix = `md${Deno.pid}-${Lab.#count++}`;
  readonly #spaces: string[] = [];
  readonly #children: Deno.ChildProcess[] = [];

  async start(): Promise<void> {
    const name = await this.#space("sw");
    for (const bridge of ["br0", "br1"]) {
      await ip("-n", name, "link", "add", bridge, "type", "bridge", "forward_delay", "0");
      await ip("-n", name, "link", "set", bridge, "up");
    }
  }

  /** A host with `eth0` on the first switch and `eth1` on the second. */
  async host(name: string, number: number, plugged = true): Promise<string> {
    const space = await this.#space(name);
    if (plugged) { for (const link of [0, 1]) await this.plug(name, number, link); }
    return space;
  }

  async plug(name: string, number: number, link: number): Promise<void> {
    const space = `${this.#prefix}-${name}`;
    const device = `eth${link}`;
    const peer = `${name}${link}`;
    await ip(
      "link",
      "add",
      device,
      "netns",
      space,
      "type",
      "veth",
      "peer",
      "name",
      peer,
      "netns",
      `${this.#prefix}-sw`,
    );
    await ip("-n", `${this.#prefix}-sw`, "link", "set", peer, "master", `br${link}`, "up");
    await ip("-n", space, "addr", "add", `10.7${link}.0.${number}/24`, "brd", "+", "dev", device);
    await ip("-n", space, "addr", "add", `fd7${link}::${number}/64`, "dev", device, "nodad");
    await ip("-n", space, "link", "set", device, "up");
  }

  /** Runs a command inside a host. */
  spawn(space: string, command: readonly string[], stdin: "piped" | "null" = "null"): Deno.ChildProcess {
    const child = new Deno.Command("ip", {
      args: ["netns", "exec", space, ...command],
      stdin,
      stdout: "piped",
      stderr: "null",
    }).spawn();
    this.#children.push(child);
    return child;
  }

  async stop(): Promise<void> {
    for (const child of this.#children) {
      try {
        child.kill("SIGKILL");
      } catch {
        // Already gone.
      }
      await child.status;
      if (!child.stdout.locked) await child.stdout.cancel();
    }
    for (const space of this.#spaces.reverse()) await ip("netns", "del", space).catch(() => {});
  }

  async #space(name: string): Promise<string> {
    const space = `${this.#prefix}-${name}`;
    await ip("netns", "add", space);
    this.#spaces.push(space);
    await ip("-n", space, "link", "set", "lo", "up");
    return space;
  }
}

interface Line {
  readonly type: string;
  readonly address?: string;
  readonly source?: string;
  readonly reason?: string;
  readonly from?: string;
  readonly ms?: number;
  readonly refused?: { readonly [reason: string]: number };
  readonly packetsOut?: number;
  readonly interfaces?: readonly string[];
}

/** A running `createDiscovery` in a host. */
class Runner {
  readonly lines: Line[] = [];
  readonly nodeId: string;
  readonly #child: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array>;
  readonly #reading: Promise<void>;

  constructor(lab: Lab, space: string, number: number, given: { readonly [key: string]: unknown }) {
    const seed = `0${number}`.repeat(32);
    this.nodeId = nodeIdOf(keyPairFromSeed(fromHex(seed)!).publicKey);
    const text = JSON.stringify({ networkId: NETWORK, discoverySecret: SECRET, seed, ...given });
    const command = [Deno.execPath(), "run", "-A", "--no-lock", "--unstable-net", FIXTURE, text];
    this.#child = lab.spawn(space, command, "piped");
    this.#input = this.#child.stdin.getWriter();
    this.#reading = this.#read();
  }

  candidates(): Line[] {
    return this.lines.filter((line) => line.type === "candidate");
  }

  async until(what: string, holds: (lines: readonly Line[]) => boolean, timeoutMs = 20_000): Promise<void> {
    const startedAt = performance.now();
    while (!holds(this.lines)) {
      if (performance.now() - startedAt > timeoutMs) {
        throw new Error(
          `Timed out: ${what}; last lines:\n${this.lines.slice(-8).map((one) => JSON.stringify(one)).join("\n")}`,
        );
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** The state as it stands now. */
  async view(): Promise<Line> {
    const before = this.lines.filter((line) => line.type === "view").length;
    await this.#input.write(new TextEncoder().encode("\n"));
    await this.until("the state", (lines) => lines.filter((line) => line.type === "view").length > before);
    return this.lines.findLast((line) => line.type === "view")!;
  }

  /** Ends it in good order. */
  async stop(): Promise<void> {
    await this.#input.close();
    await this.#reading;
    assert.equal((await this.#child.status).code, 0);
    assert.equal(this.lines.at(-1)!.type, "stopped");
  }

  async #read(): Promise<void> {
    let rest = "";
    for await (const part of this.#child.stdout.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + part).split("\n");
      rest = lines.pop()!;
      for (const line of lines) this.lines.push(JSON.parse(line));
    }
  }
}

function test(name: string, run: (lab: Lab) => Promise<void>, needs: readonly string[] = missing): void {
  Deno.test({
    name,
    ignore: needs.length > 0,
    fn: async () => {
      const lab = new Lab();
      try {
        await lab.start();
        await run(lab);
      } finally {
        await lab.stop();
      }
    },
  });
}

/** No source but this one. */
function only(source: string): { readonly [key: string]: boolean } {
  return { mdns: source === "mdns", multicast: source === "multicast", broadcast: source === "broadcast" };
}

const announce = (
  number: number,
) => [`/ip4/10.70.0.${number}/udp/4871/quic-v1`, `/ip6/fd71::${number}/udp/4871/quic-v1`];

for (const source of ["multicast", "broadcast", "mdns"]) {
  test(`[1.1c] hosts on two switches without default route find each other by ${source} alone`, async (lab) => {
    const [a, b] = [await lab.host("a", 1), await lab.host("b", 2)];
    const member = new Runner(lab, a, 1, { mode: "member", announce: announce(1), options: only(source) });
    await member.until("the member runs", (lines) => lines.some((line) => line.type === "started"));
    const joiner = new Runner(lab, b, 2, { options: only(source) });
    await joiner.until("both addresses", () => new Set(joiner.candidates().map((one) => one.address)).size === 2);
    for (const one of joiner.candidates()) assert.equal(one.source, source);
    const found = joiner.candidates().map((one) => one.address);
    for (const address of announce(1)) assert.ok(found.includes(`${address}/p2p/${member.nodeId}`), found.join());
    const first = joiner.candidates()[0]!.ms!;
    assert.ok(first < 2_000, `found after ${first} ms`);
    // Both interfaces are used.
    const { interfaces } = await joiner.view();
    assert.ok(interfaces!.includes("eth0 10.70.0.2") && interfaces!.includes("eth1 10.71.0.2"), interfaces!.join());
    await joiner.stop();
    await member.stop();
  });
}

for (const source of ["multicast", "broadcast", "mdns"]) {
  test(`[1.1c] ${source} goes out on every interface: the member hears it on its second one only`, async (lab) => {
    const [a, b] = [await lab.host("a", 1, false), await lab.host("b", 2)];
    await lab.plug("a", 1, 1);
    const member = new Runner(lab, a, 1, { mode: "member", announce: announce(1), options: only(source) });
    await member.until("the member runs", (lines) => lines.some((line) => line.type === "started"));
    const joiner = new Runner(lab, b, 2, { options: only(source) });
    await joiner.until("an address", () => joiner.candidates().length > 0);
    await joiner.stop();
    await member.stop();
  });
}

for (const source of ["multicast", "broadcast", "mdns"]) {
  test(`[1.1c] two nodes on one host find each other by ${source} over a real interface`, async (lab) => {
    const a = await lab.host("a", 1);
    const member = new Runner(lab, a, 1, { mode: "member", announce: announce(1), options: only(source) });
    await member.until("the member runs", (lines) => lines.some((line) => line.type === "started"));
    const joiner = new Runner(lab, a, 2, { options: only(source) });
    await joiner.until("both addresses", () => new Set(joiner.candidates().map((one) => one.address)).size === 2);
    await joiner.stop();
    await member.stop();
  });
}

test("[1.1c] hosts without any IPv4 address find each other by multicast", async (lab) => {
  const [a, b] = [await lab.host("a", 1), await lab.host("b", 2)];
  for (const space of [a, b]) {
    for (const device of ["eth0", "eth1"]) await ip("-4", "-n", space, "addr", "flush", "dev", device);
  }
  const member = new Runner(lab, a, 1, { mode: "member", announce: announce(1).slice(1), options: {} });
  const joiner = new Runner(lab, b, 2, { options: {} });
  await joiner.until("its address", () => joiner.candidates().length > 0);
  assert.equal(joiner.candidates()[0]!.source, "multicast");
  await joiner.stop();
  await member.stop();
});

test("[1.1b] a host finds its network by DNS alone (dnsmasq)", async (lab) => {
  const [a, b] = [await lab.host("a", 1), await lab.host("b", 2)];
  const nodeId = nodeIdOf(keyPairFromSeed(fromHex("01".repeat(32))!).publicKey);
  lab.spawn(a, [
    "dnsmasq",
    "-k",
    "--conf-file=/dev/null",
    "--no-resolv",
    "--no-hosts",
    "--bind-interfaces",
    "--listen-address=10.70.0.1",
    "--user=root",
    "--pid-file=",
    "--local=/lab.test/",
    "--host-record=h1.lab.test,10.70.0.1,fd70::1",
    "--srv-host=_mycelium._udp.lab.test,h1.lab.test,4871,0,10",
    `--txt-record=_mycelium._udp.lab.test,nid=${NETWORK.slice(0, 16)},p2p=${nodeId}`,
  ]);
  const options = { ...only("dns"), domains: ["lab.test"], nameServers: [{ ipAddr: "10.70.0.1" }] };
  const joiner = new Runner(lab, b, 2, { options });
  await joiner.until("four addresses", () => new Set(joiner.candidates().map((one) => one.address)).size === 4);
  assert.deepEqual(
    [...new Set(joiner.candidates().map((one) => one.address))].sort(),
    [
      `/ip4/10.70.0.1/tcp/4871/p2p/${nodeId}`,
      `/ip4/10.70.0.1/udp/4871/quic-v1/p2p/${nodeId}`,
      `/ip6/fd70::1/tcp/4871/p2p/${nodeId}`,
      `/ip6/fd70::1/udp/4871/quic-v1/p2p/${nodeId}`,
    ],
  );
  await joiner.stop();
}, withoutDns);

test("[1.1e] a host finds its network by an HTTP seed alone, and by a seed file alone", async (lab) => {
  const [a, b] = [await lab.host("a", 1), await lab.host("b", 2)];
  const issuer = keyPairFromSeed(new Uint8Array(32).fill(9));
  const address = `/ip4/10.71.0.1/tcp/4871/p2p/${nodeIdOf(issuer.publicKey)}`;
  const seed = exportSeed({
    networkId: fromHex(NETWORK)!,
    addresses: [address, "/ip4/10.99.0.1/tcp/1"],
    issuedMs: 1,
    expiresMs: Date.now() + 60_000,
    seq: 1,
  }, issuer);
  const code = `Deno.serve({ hostname: "10.70.0.1", port: 8080 }, () => new Response(${JSON.stringify(seed)}))`;
  lab.spawn(a, [Deno.execPath(), "eval", code]);
  const seedSigner = toHex(issuer.publicKey);
  const joiner = new Runner(lab, b, 2, {
    seedSigner,
    options: { ...only("seed-http"), seedUrls: ["http://10.70.0.1:8080/seed"] },
  });
  await joiner.until("the address", () => joiner.candidates().length > 0);
  assert.equal(joiner.candidates()[0]!.address, address);
  assert.equal(joiner.candidates()[0]!.source, "seed-http");
  // A private network to which nothing leads is named but not dialed.
  await joiner.until("the refusal", (lines) => lines.some((line) => line.reason === "private-not-routed"));
  await joiner.stop();

  const path = await Deno.makeTempFile();
  try {
    await Deno.writeTextFile(path, seed);
    const reader = new Runner(lab, b, 3, { seedSigner, options: { ...only("seed-file"), seedFiles: [path] } });
    await reader.until("the address", () => reader.candidates().length > 0);
    assert.equal(reader.candidates()[0]!.source, "seed-file");
    await reader.stop();
  } finally {
    await Deno.remove(path);
  }
});

test("[2.1d] two networks on one segment, same groups, never exchange a candidate", async (lab) => {
  const [a, b] = [await lab.host("a", 1), await lab.host("b", 2)];
  const other = { networkId: "11".repeat(32), discoverySecret: "12".repeat(32) };
  const runners = [
    new Runner(lab, a, 1, { announce: ["/ip4/10.70.0.1/tcp/1001"], options: {} }),
    new Runner(lab, b, 2, { announce: ["/ip4/10.70.0.2/tcp/1002"], options: {} }),
    new Runner(lab, a, 1, { ...other, announce: ["/ip4/10.70.0.1/tcp/2001"], options: {} }),
    new Runner(lab, b, 2, { ...other, announce: ["/ip4/10.70.0.2/tcp/2002"], options: {} }),
  ];
  for (const [i, runner] of runners.entries()) {
    await runner.until(
      `node ${i} is found by three sources`,
      () => new Set(runner.candidates().map((one) => one.source)).size === 3,
    );
  }
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  for (const [i, runner] of runners.entries()) {
    const partner = ["/tcp/1002/", "/tcp/1001/", "/tcp/2002/", "/tcp/2001/"][i]!;
    for (const one of runner.candidates()) {
      assert.ok(one.address!.includes(partner), `node ${i} was told ${one.address}`);
    }
    const { refused } = await runner.view();
    assert.ok((refused!.foreign ?? 0) > 0, "the other network was heard");
    await runner.stop();
  }
});

test("[1.1e] an interface that appears later is used", async (lab) => {
  const [a, b] = [await lab.host("a", 1), await lab.host("b", 2, false)];
  const timing = { interfacesSeekingMs: 500 };
  const member = new Runner(lab, a, 1, { mode: "member", announce: announce(1), options: only("multicast") });
  const joiner = new Runner(lab, b, 2, { options: { ...only("multicast"), timing } });
  await joiner.until(
    "it has no interface",
    (lines) => lines.some((line) => line.type === "state" && JSON.stringify(line).includes("no interface")),
  );
  assert.equal(joiner.candidates().length, 0);
  await lab.plug("b", 2, 0);
  await joiner.until("the member is found", () => joiner.candidates().length > 0);
  // And gone again: nothing breaks, and the way back works.
  await ip("-n", b, "link", "del", "eth0");
  await joiner.until(
    "it has no interface again",
    (lines) => JSON.stringify(lines.findLast((line) => line.type === "state")).includes("no interface"),
  );
  const before = joiner.candidates().length;
  await lab.plug("b", 2, 1);
  await joiner.until("the member is found on the other switch", () => joiner.candidates().length > before);
  await joiner.stop();
  await member.stop();
});

test("[1.1e] with every source silent a host keeps asking all of them", async (lab) => {
  const b = await lab.host("b", 2);
  const joiner = new Runner(lab, b, 2, {
    options: {
      domains: ["lab.test"],
      nameServers: [{ ipAddr: "10.70.0.9" }],
      seedUrls: ["http://10.70.0.9:8080/seed"],
      seedFiles: ["/nonexistent/seed"],
      timing: { dnsTimeoutMs: 300, httpTimeoutMs: 500, httpBaseMs: 100, dnsBaseMs: 100, fileBaseMs: 100 },
    },
  });
  const quiet = (source: string) => (lines: readonly Line[]) =>
    lines.filter((line) => line.source === source && JSON.stringify(line).match(/"state":"(silent|failed)"/)).length >
      2;
  for (const source of ["dns", "seed-http", "seed-file", "mdns", "multicast", "broadcast"]) {
    await joiner.until(`${source} is silent, again and again`, quiet(source));
  }
  assert.equal(joiner.candidates().length, 0);
  const one = await joiner.view();
  await new Promise((resolve) => setTimeout(resolve, 3_000));
  assert.ok((await joiner.view()).packetsOut! > one.packetsOut!);
  await joiner.stop();
});
