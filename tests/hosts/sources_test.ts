/**
 * A network found by one source alone, end to end: the program, a real segment, an invite without addresses.
 *
 * `discovery_test.ts` shows the same of the discovery itself, on several interfaces.
 *
 * @module
 */

import assert from "node:assert/strict";
import { join } from "node:path";
import { exportSeed } from "../../src/bootstrap/seed_document.ts";
import { keyPairFromSeed } from "../../src/core/crypto.ts";
import { parseInvite } from "../../src/identity/invite.ts";
import {
  type Host,
  type HostNode,
  hostsTest,
  type Lab,
  type NodeSettings,
  seeEachOther,
  SILENT,
  withAddresses,
  works,
} from "../testkit/hosts.ts";

/** Most milliseconds from the start of the join to a verified member. */
const JOIN_MS = 15_000;

interface Place {
  readonly lab: Lab;
  readonly n1: HostNode;
  readonly host: Host;
}

async function place(lab: Lab, flags: readonly string[] = []): Promise<Place> {
  const [h1, host] = await lab.hosts(2);
  return { lab, n1: await lab.founder({ name: "n1", host: h1!, flags }), host: host! };
}

/** Joins with an invite that names no address; checks that `source` alone led there. */
async function joinsBy(
  { lab, n1, host }: Place,
  source: string,
  settings: Partial<NodeSettings>,
  addresses: readonly string[] = [],
): Promise<void> {
  const node = lab.node({ name: `by-${source}`, host, ...settings });
  node.join(withAddresses(await n1.invite(), addresses));
  await node.line("starts to join", 15_000, (line) => line.event === "stage");
  const { value, tookMs } = await node.verified(JOIN_MS);
  const sources = new Set(value.bootstrap.candidates.flatMap((one) => one.source.split(", ")));
  assert.ok(sources.has(source), [...sources].join());
  // What it has learnt with its membership comes back as its own memory.
  sources.delete("cache");
  assert.deepEqual([...sources], [source]);
  console.log(`${source}: verified ${Math.round(tookMs)} ms after the join began`);
  await n1.control({ verb: "node-remove", node: value.node.nodeId });
  await node.kill();
}

const only = (source: string) => SILENT.filter((flag) => flag !== `--no-${source}`);

hostsTest(
  "[1.1c] a network is found by mDNS alone, by broadcast alone, by multicast on IPv4 and on IPv6 alone",
  async (lab) => {
    const at = await place(lab);
    await joinsBy(at, "mdns", { name: "by-mdns", flags: only("mdns") });
    await joinsBy(at, "broadcast", { name: "by-broadcast", flags: only("broadcast") });
    await lab.filter("ether type ip6 drop");
    await joinsBy(at, "multicast", { name: "by-multicast4", flags: only("multicast") });
    await lab.filter("ether type { ip, arp } drop");
    await joinsBy(at, "multicast", { name: "by-multicast6", flags: only("multicast") });
  },
);

hostsTest("[1.1b] a network is found by DNS SRV and TXT records alone, from the domain's own server", async (lab) => {
  const at = await place(lab, SILENT);
  const dns = await lab.host();
  const { networkId } = (await at.n1.status()).network!;
  lab.service(dns, [
    "dnsmasq",
    "-k",
    "--conf-file=/dev/null",
    "--no-resolv",
    "--no-hosts",
    "--bind-interfaces",
    `--listen-address=${dns.v4}`,
    "--user=root",
    "--pid-file=",
    "--local=/lab.test/",
    `--host-record=n1.lab.test,${at.n1.host.v4},${at.n1.host.v6}`,
    "--srv-host=_mycelium._udp.lab.test,n1.lab.test,4871,0,10",
    `--txt-record=_mycelium._udp.lab.test,nid=${networkId.slice(0, 16)},p2p=${at.n1.nodeId}`,
  ]);
  const config = `discovery:\n  domains: [nothing.test, lab.test]\n  nameServers: [${dns.v4}]\n`;
  await joinsBy(at, "dns", { flags: SILENT, config });
}, { needs: await works("dnsmasq", "--version") ? [] : ["dnsmasq (dnsmasq-base)"] });

hostsTest("[1.1e] a network is found by a seed file alone, and by a seed on a web server alone", async (lab) => {
  const at = await place(lab, SILENT);
  const web = await lab.host();
  const issuer = keyPairFromSeed(Deno.readFileSync(join(at.n1.state, "secret", "node.key")));
  const seed = exportSeed({
    networkId: parseInvite(await at.n1.invite()).networkId,
    addresses: [`/ip4/${at.n1.host.v4}/udp/4871/quic-v1/p2p/${at.n1.nodeId}`],
    issuedMs: Date.now(),
    expiresMs: Date.now() + 60_000,
    seq: 1,
  }, issuer);
  const file = join(lab.home, "seed");
  await Deno.writeTextFile(file, seed);
  await joinsBy(at, "seed-file", { flags: [...SILENT, "--seed-file", file] });
  const serve = `Deno.serve({ hostname: "${web.v4}", port: 80, onListen: () => console.log("ready") }, ` +
    `() => new Response(${JSON.stringify(seed)}))`;
  await lab.ready(web, [Deno.execPath(), "eval", serve]);
  // The first mirror is a machine that is not there.
  const urls = ["--seed-url", "http://10.77.0.200/seed", "--seed-url", `http://${web.v4}/seed`];
  await joinsBy(at, "seed-http", { flags: [...SILENT, ...urls] });
});

hostsTest(
  "[1.1e] a network is found by an address of the configuration alone, and by one of the invite alone",
  async (lab) => {
    const at = await place(lab, SILENT);
    const address = `/ip4/${at.n1.host.v4}/udp/4871/quic-v1/p2p/${at.n1.nodeId}`;
    const tcp = `/ip6/${at.n1.host.v6}/tcp/4871/p2p/${at.n1.nodeId}`;
    await joinsBy(at, "config", { flags: SILENT, config: `discovery:\n  addresses: ["${address}"]\n` });
    await joinsBy(at, "invite", { flags: SILENT }, [tcp]);
  },
);

hostsTest(
  "[1.1d] a member finds its network again by remembered members alone, where every address of the invite is dead",
  async (lab) => {
    const { n1, host } = await place(lab, SILENT);
    const n2 = lab.node({ name: "n2", host, flags: SILENT });
    const invite = await n1.invite();
    n2.join(invite);
    await seeEachOther([n1, n2], 15_000);
    const before = parseInvite(invite).addresses;
    // The founder comes back under other addresses and says so to those that it knows.
    assert.equal(await n1.end("SIGTERM"), 0);
    const moved = await lab.renumber(n1.host);
    n1.move(moved);
    n1.start();
    await seeEachOther([n1, n2], 15_000);
    await n2.until(
      "knows the new address",
      5_000,
      (status) =>
        status.members.some((one) => one.name === "n1" && one.addresses.some((address) => address.includes(moved.v4))),
    );
    await n2.kill();
    n2.start();
    const { value } = await n2.verified(JOIN_MS);
    for (const { address, source } of value.bootstrap.candidates) {
      assert.equal(source, "cache");
      assert.ok(!before.includes(address), address);
    }
    await seeEachOther([n1, n2], 10_000);
  },
);
