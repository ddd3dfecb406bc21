/**
 * mDNS discovery as in libp2p's specification, under a service name of our own.
 *
 * `_mycelium-<fingerprint>._udp.local PTR <instance>`, and at the instance a TXT record with `dnsaddr=<multiaddr>`
 * strings and an SRV record, so that common tools show something useful. `mac=` authenticates instance and
 * addresses; without it a record is taken as unverified, with a wrong one it is refused.
 *
 * Beside another responder on port 5353 (avahi): the shared socket is bound to the group's own address and so
 * gets no unicast meant for that responder. Questions go out from a port of their own, which makes answers
 * come straight back (RFC 6762, 6.7); only while a multicast answer is sent is a socket on port 5353 open.
 *
 * @module
 */

import { isOnLink } from "../../bootstrap/address_policy.ts";
import { beaconKeys, mdnsMac, networkFingerprint } from "../../bootstrap/beacon.ts";
import { equalBytes, fromBase64Url, toBase64Url, toHex, utf8 } from "../../core/bytes.ts";
import { hashParts } from "../../core/crypto.ts";
import { parseAddress } from "../../core/ids.ts";
import { decodeDns, type DnsMessage, type DnsRecord, encodeDns } from "./dns_wire.ts";
import type { HostAddress } from "./host_network.ts";
import { Pacer, pause } from "./pacer.ts";
import type { Source, SourceContext } from "./source.ts";
import { SenderLimits, TokenBucket } from "./token_bucket.ts";
import type { DiscoveryMode } from "./types.ts";
import { openUdp, UdpSocket } from "./udp.ts";

/** Options of {@linkcode MdnsSource}. */
export interface MdnsOptions {
  readonly discoverySecret: Uint8Array;
  readonly multicastLoopback: boolean;
  readonly port: number;
  readonly group4: string;
  /** Start of this run; enters the instance name. */
  readonly incarnation: number;
}

interface Link {
  readonly local: HostAddress;
  /** Asks, and gets the answers. */
  readonly asker: UdpSocket;
}

/** The source `mdns`, IPv4. */
export class MdnsSource implements Source {
  readonly #context: SourceContext;
  readonly #options: MdnsOptions;
  readonly #keys;
  readonly #service: string;
  readonly #instance: string;
  readonly #pacer: Pacer;
  readonly #links = new Map<string, Link>();
  readonly #limits = new SenderLimits({ burst: 40, perSecond: 10 }, { burst: 400, perSecond: 200 });
  readonly #answers = new TokenBucket({ burst: 20, perSecond: 4 });
  readonly #abort = new AbortController();
  readonly #pending = new Set<Promise<void>>();
  #receiver: UdpSocket | undefined;
  #addresses: readonly string[] = [];
  #found = 0;
  #mode: DiscoveryMode = "seeking";
  #limitedReportMs = -Infinity;
  #changing: Promise<unknown> = Promise.resolve();

  constructor(context: SourceContext, options: MdnsOptions) {
    this.#context = context;
    this.#options = options;
    this.#keys = beaconKeys(context.networkId, options.discoverySecret);
    this.#service = serviceName(context.networkId);
    // libp2p asks for a random name of 32 or more characters; ours changes with each start and names nobody.
    const name = hashParts(
      "mycelium/mdns-name/v1",
      this.#keys.macKey,
      utf8(`${context.nodeId} ${options.incarnation}`),
    );
    this.#instance = `${toHex(name).slice(0, 40)}.${this.#service}`;
    const { timing, rng } = context;
    this.#pacer = new Pacer({
      ask: (signal) => this.#ask(signal),
      baseMs: timing.lanBaseMs,
      maxMs: timing.lanMaxMs,
      isolatedMs: timing.lanIsolatedMs,
      rng,
      onPlan: (waitMs) => context.planned(["mdns"], waitMs),
    });
  }

  /** Nothing to do: the first question goes out as soon as there is an interface to send it on. */
  start(): void {}

  async stop(): Promise<void> {
    this.#abort.abort();
    await this.#pacer.stop();
    await this.#changing;
    await Promise.all(this.#pending);
    // Time to live 0: goodbye (RFC 6762, 10.1).
    if (this.#addresses.length > 0) await this.#multicast(this.#records(0));
    await Promise.all([this.#receiver?.close(), ...[...this.#links.values()].map((link) => link.asker.close())]);
  }

  refresh(): void {
    this.#pacer.askNow();
  }

  setMode(mode: DiscoveryMode): void {
    this.#mode = mode;
    this.#pacer.setMode(mode);
  }

  announce(addresses: readonly string[]): void {
    const news = addresses.length > 0 && addresses.join() !== this.#addresses.join();
    this.#addresses = addresses;
    if (news && this.#mode !== "off") this.#track(this.#multicast(this.#records(RECORD_TTL_S)));
  }

  interfacesChanged(used: readonly HostAddress[]): Promise<boolean> {
    const next = this.#changing.then(() => this.#open(used));
    this.#changing = next;
    return next;
  }

  async #open(used: readonly HostAddress[]): Promise<boolean> {
    if (this.#abort.signal.aborted) return false;
    const wanted = new Map<string, HostAddress>();
    for (const one of used) {
      if (one.family === "ip4" && !wanted.has(one.name) && wanted.size < LINKS_MAX) wanted.set(one.name, one);
    }
    for (const [name, link] of this.#links) {
      if (wanted.get(name)?.address === link.local.address && !link.asker.closed) continue;
      this.#links.delete(name);
      await link.asker.close();
    }
    let problem: string | undefined;
    let fresh = false;
    for (const [name, local] of wanted) {
      try {
        if (!this.#receiver || this.#receiver.closed) {
          this.#receiver = openUdp({
            hostname: this.#options.group4,
            port: this.#options.port,
            shared: true,
            bytesMax: BYTES_MAX,
            onDatagram: (bytes, from) => this.#onDatagram(bytes, from),
          });
        }
        await this.#receiver.join4(this.#options.group4, local.address);
        if (this.#links.has(name)) continue;
        const asker = openUdp({
          hostname: local.address,
          port: 0,
          loopback: this.#options.multicastLoopback,
          bytesMax: BYTES_MAX,
          onDatagram: (bytes, from) => this.#onDatagram(bytes, from),
        });
        this.#links.set(name, { local, asker });
        fresh = true;
      } catch (error) {
        problem = `${name}: ${error instanceof Error ? error.message : error}`;
      }
    }
    if (problem !== undefined) this.#context.report("mdns", this.#links.size > 0 ? "silent" : "failed", problem);
    else if (this.#links.size === 0) this.#context.report("mdns", "failed", "no interface to send on; connect one");
    else if (fresh) this.#context.report("mdns", "idle", `ready on ${[...this.#links.keys()].join(", ")}`);
    if (fresh && !this.#abort.signal.aborted) {
      if (this.#mode !== "member") this.#pacer.askNow();
      if (this.#mode !== "off" && this.#addresses.length > 0) this.#track(this.#multicast(this.#records(RECORD_TTL_S)));
    }
    return problem !== undefined;
  }

  async #ask(signal: AbortSignal): Promise<void> {
    if (this.#links.size === 0) return;
    const before = this.#found;
    const names = [...this.#links.keys()].join(", ");
    this.#context.report("mdns", "asking", `asked for ${this.#service} on ${names}`);
    const query = encodeDns({
      id: this.#context.rng.below(2 ** 16),
      response: false,
      questions: [{ name: this.#service, type: "PTR" }],
    });
    await Promise.all([...this.#links.values()].map(({ asker }) => this.#send(asker, query)));
    await pause(this.#context.timing.answerDelayMs + ANSWER_TRAVEL_MS, signal);
    if (signal.aborted) return;
    const found = this.#found > before;
    this.#context.report("mdns", found ? "found" : "silent", `${found ? "answered" : "nobody answered"} on ${names}`);
  }

  async #send(socket: UdpSocket, bytes: Uint8Array, hostname = this.#options.group4, port = this.#options.port) {
    if (await socket.send(bytes, hostname, port)) this.#context.countOut(bytes.length);
  }

  /** Sends an answer to the group from port 5353 of each interface, as the RFC demands of answers. */
  async #multicast(records: readonly DnsRecord[]): Promise<void> {
    const bytes = encodeDns({ response: true, answers: records });
    await Promise.all([...this.#links.values()].map(async ({ local }) => {
      let socket: UdpSocket;
      try {
        socket = openUdp({
          hostname: local.address,
          port: this.#options.port,
          shared: true,
          loopback: this.#options.multicastLoopback,
          bytesMax: BYTES_MAX,
          onDatagram: () => {},
        });
      } catch {
        // The address has just gone; the next look at the interfaces will say so.
        return;
      }
      await this.#send(socket, bytes);
      await socket.close();
    }));
  }

  #records(ttl: number, flush = true): DnsRecord[] {
    const parsed = this.#addresses.map((address) => parseAddress(address)).filter((one) => one !== undefined);
    const addresses: string[] = [];
    let left = TXT_BYTES_MAX;
    for (const address of this.#addresses) {
      // A TXT string has at most 255 bytes.
      if (address.length > 240 || (left -= address.length + 9) < 0) continue;
      addresses.push(address);
    }
    const host = `${this.#instance.split(".")[0]}.local`;
    const mac = toBase64Url(mdnsMac(this.#keys, this.#instance, addresses));
    return [
      { type: "PTR", name: this.#service, ttl, data: this.#instance },
      {
        type: "TXT",
        name: this.#instance,
        ttl,
        flush,
        data: [...addresses.map((one) => `dnsaddr=${one}`), `mac=${mac}`],
      },
      { type: "SRV", name: this.#instance, ttl, flush, data: { port: parsed[0]?.port ?? 0, target: host } },
      ...parsed.filter((one) => one.family !== "dns").slice(0, 4).map((one): DnsRecord => ({
        type: one.family === "ip4" ? "A" : "AAAA",
        name: host,
        ttl,
        flush,
        data: one.host,
      })),
    ];
  }

  #onDatagram(bytes: Uint8Array, from: Deno.NetAddr): void {
    const context = this.#context;
    // Printers and televisions talk here as well: what is not about our service costs a look and no count.
    const message = this.#limits.take(from.hostname, performance.now()) ? decodeDns(bytes) : this.#limited(from);
    if (!message) return;
    const mine = message.response
      ? message.records.some((one) => isName(one.name, this.#service))
      : message.questions.some((one) => isName(one.name, this.#service) || isName(one.name, this.#instance));
    if (!mine) {
      // Another network of ours on the same segment is worth a line in the statistics.
      if (message.response && message.records.some((one) => FOREIGN.test(one.name))) {
        context.refused("foreign", `mdns ${from.hostname}`);
      }
      return;
    }
    context.countIn(bytes.length);
    // What comes from beyond the link is not multicast DNS (RFC 6762, 11).
    if (!isOnLink(from.hostname, context.hostNetwork().interfaces)) {
      context.refused("off-link", `mdns ${from.hostname}`);
      return;
    }
    if (message.response) this.#onAnswer(message, from);
    else if (this.#mode !== "off" && this.#addresses.length > 0) this.#track(this.#answer(message, from));
  }

  #limited(from: Deno.NetAddr): undefined {
    if (performance.now() - this.#limitedReportMs < 1_000) return;
    this.#limitedReportMs = performance.now();
    this.#context.refused("rate-limited", `mdns ${from.hostname}`);
  }

  #onAnswer(message: DnsMessage, from: Deno.NetAddr): void {
    const context = this.#context;
    const instances = message.records.flatMap((one) =>
      one.type === "PTR" && isName(one.name, this.#service) ? [one.data] : []
    );
    const ownHost = context.hostNetwork().interfaces.some((one) => one.address === from.hostname);
    for (const record of message.records) {
      if (record.type !== "TXT" || !instances.some((name) => isName(record.name, name))) continue;
      if (isName(record.name, this.#instance)) {
        context.refused("own", `mdns ${from.hostname}`);
        continue;
      }
      // Goodbye: the candidate expires by itself, and a stranger must not be able to take it away.
      if (record.ttl === 0) continue;
      const values = (key: string) =>
        record.data.filter((part) => part.startsWith(`${key}=`)).map((part) => part.slice(key.length + 1));
      const addresses = values("dnsaddr").slice(0, ADDRESSES_MAX);
      const mac = values("mac")[0];
      if (mac !== undefined) {
        const wanted = mdnsMac(this.#keys, record.name.toLowerCase(), addresses);
        if (!equalBytes(fromBase64Url(mac) ?? new Uint8Array(0), wanted)) {
          context.refused("forged", `mdns ${from.hostname}`);
          continue;
        }
      }
      for (const address of addresses) {
        const parsed = parseAddress(address);
        if (!parsed) {
          context.refused("malformed", `mdns ${from.hostname}`);
          continue;
        }
        if (parsed.nodeId === context.nodeId) continue;
        this.#track((async () => {
          const told = await context.sighted({
            address,
            source: "mdns",
            verification: mac === undefined ? "unverified" : "authenticated",
            forMs: CANDIDATE_LIFE_MS,
            detail: `mDNS from ${from.hostname}`,
            loopback: ownHost,
          });
          if (told) this.#found++;
        })());
      }
    }
  }

  async #answer(message: DnsMessage, from: Deno.NetAddr): Promise<void> {
    if (!this.#answers.take(performance.now())) return;
    await pause(this.#context.rng.below(Math.max(1, this.#context.timing.answerDelayMs)), this.#abort.signal);
    if (this.#abort.signal.aborted || this.#addresses.length === 0) return;
    if (from.port === this.#options.port) {
      await this.#multicast(this.#records(RECORD_TTL_S));
      return;
    }
    // A one-shot question: answered straight, with its id and question, a short life and no flush bit (6.7).
    const link = [...this.#links.values()].find(({ local }) => isOnLink(from.hostname, [local]));
    if (!link) return;
    const bytes = encodeDns({
      id: message.id,
      response: true,
      questions: message.questions.slice(0, 1),
      answers: this.#records(ONE_SHOT_TTL_S, false),
    });
    await this.#send(link.asker, bytes, from.hostname, from.port);
  }

  #track(work: Promise<unknown>): void {
    const one = work.then(() => {}).finally(() => this.#pending.delete(one));
    this.#pending.add(one);
  }
}

/** Service name of a network's nodes. */
export function serviceName(networkId: Uint8Array): string {
  return `_mycelium-${networkFingerprint(networkId)}._udp.local`;
}

const FOREIGN = /^_mycelium-[0-9a-f]{8}\._udp\.local$/i;
/** Of one message; RFC 6762 allows 9000. */
const BYTES_MAX = 9_000;
/** Of the addresses in one TXT record, so that a message fits one frame. */
const TXT_BYTES_MAX = 900;
const RECORD_TTL_S = 120;
const ONE_SHOT_TTL_S = 10;
const CANDIDATE_LIFE_MS = 5 * 60_000;
const ANSWER_TRAVEL_MS = 150;
const ADDRESSES_MAX = 16;
const LINKS_MAX = 16;

function isName(a: string, b: string): boolean {
  return a.toLowerCase() === b.toLowerCase();
}
