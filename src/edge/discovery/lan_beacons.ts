/**
 * Beacons on the LAN: IPv4 and IPv6 multicast, and IPv4 broadcast, on every interface.
 *
 * Sockets, and why so: one socket bound to each group's own address (and one to 255.255.255.255) receives, so
 * that the kernel says by which way a datagram came and nothing else reaches it. One socket bound to each
 * interface's address sends: Linux sends multicast and limited broadcast through the interface that has the
 * source address, without any route; Deno has no IP_MULTICAST_IF. For IPv6 it is the link-local address with its
 * zone. The sending sockets have a port of their own, at which answers come back straight from who was asked.
 *
 * @module
 */

import { isOnLink, kindOf } from "../../bootstrap/address_policy.ts";
import { BEACON_BYTES_MAX, BeaconGuard, beaconKeys, type BeaconKind, encodeBeacon } from "../../bootstrap/beacon.ts";
import type { HostAddress } from "./host_network.ts";
import { Pacer, pause } from "./pacer.ts";
import type { Source, SourceContext } from "./source.ts";
import { SenderLimits, TokenBucket } from "./token_bucket.ts";
import type { DiscoveryMode } from "./types.ts";
import { openUdp, type UdpSocket } from "./udp.ts";

/** Options of {@linkcode LanBeacons}. */
export interface LanBeaconsOptions {
  readonly discoverySecret: Uint8Array;
  readonly multicast: boolean;
  readonly broadcast: boolean;
  readonly multicastLoopback: boolean;
  readonly port: number;
  readonly group4: string;
  readonly group6: string;
  /** Start of this run, greater than that of each run before. */
  readonly incarnation: number;
}

type Way = "multicast" | "broadcast";

interface Sender {
  readonly socket: UdpSocket;
  readonly way: Way;
  readonly local: HostAddress;
  readonly destination: string;
}

/** The two sources `multicast` and `broadcast`. */
export class LanBeacons implements Source {
  readonly #context: SourceContext;
  readonly #options: LanBeaconsOptions;
  readonly #guard: BeaconGuard;
  readonly #keys;
  readonly #ways: readonly Way[];
  readonly #pacer: Pacer;
  readonly #receivers = new Map<string, UdpSocket>();
  readonly #senders = new Map<string, Sender>();
  readonly #limits = new SenderLimits({ burst: 40, perSecond: 10 }, { burst: 400, perSecond: 200 });
  readonly #answers = new TokenBucket({ burst: 20, perSecond: 4 });
  readonly #abort = new AbortController();
  readonly #pending = new Set<Promise<void>>();
  #addresses: readonly string[] = [];
  #mode: DiscoveryMode = "seeking";
  #seq = 0;
  #changing: Promise<unknown> = Promise.resolve();
  /** Announcements of others heard since start: enough of them make an answer of ours superfluous. */
  #announcesHeard = 0;
  #limitedReportMs = -Infinity;
  readonly #found = new Map<Way, number>();
  /** Last beacon told, by way and node. */
  readonly #told = new Map<string, string>();

  constructor(context: SourceContext, options: LanBeaconsOptions) {
    this.#context = context;
    this.#options = options;
    this.#keys = beaconKeys(context.networkId, options.discoverySecret);
    this.#guard = new BeaconGuard({ keys: this.#keys, nodeId: context.nodeId });
    this.#ways = [
      ...(options.multicast ? ["multicast"] as const : []),
      ...(options.broadcast ? ["broadcast"] as const : []),
    ];
    const { timing, rng } = context;
    this.#pacer = new Pacer({
      ask: (signal) => this.#ask(signal),
      baseMs: timing.lanBaseMs,
      maxMs: timing.lanMaxMs,
      isolatedMs: timing.lanIsolatedMs,
      memberMs: timing.announceMs,
      rng,
      onPlan: (waitMs) => context.planned(this.#ways, waitMs),
    });
  }

  /** Nothing to do: the first question goes out as soon as there is an interface to send it on. */
  start(): void {}

  async stop(): Promise<void> {
    this.#abort.abort();
    await this.#pacer.stop();
    await this.#changing;
    await Promise.all(this.#pending);
    const sockets = [...this.#receivers.values(), ...[...this.#senders.values()].map((one) => one.socket)];
    await Promise.all(sockets.map((socket) => socket.close()));
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
    if (news && this.#mode !== "off") this.#track(this.#send("announce", this.#ways));
  }

  /** Opens and closes sockets after the interfaces that are there now. */
  interfacesChanged(used: readonly HostAddress[]): Promise<boolean> {
    const next = this.#changing.then(() => this.#open(used));
    this.#changing = next;
    return next;
  }

  async #open(used: readonly HostAddress[]): Promise<boolean> {
    if (this.#abort.signal.aborted) return false;
    const { port, group4, group6, multicast, broadcast } = this.#options;
    const failed = new Map<Way, string>();
    const attempt = async (way: Way, what: string, open: () => Promise<void> | void) => {
      try {
        await open();
      } catch (error) {
        failed.set(way, `${what}: ${error instanceof Error ? error.message : error}`);
      }
    };

    const wanted = new Map<string, { way: Way; local: HostAddress; destination: string }>();
    for (const local of sendingAddresses(used)) {
      if (multicast) {
        wanted.set(`multicast ${local.name} ${local.address}`, {
          way: "multicast",
          local,
          destination: local.family === "ip4" ? group4 : group6,
        });
      }
      if (broadcast && local.family === "ip4" && local.prefixLength < 31) {
        const destination = kindOf(local.address) === "loopback" ? LOOPBACK_BROADCAST : "255.255.255.255";
        wanted.set(`broadcast ${local.name} ${local.address}`, { way: "broadcast", local, destination });
      }
    }
    for (const [key, sender] of this.#senders) {
      if (wanted.has(key) && !sender.socket.closed) continue;
      this.#senders.delete(key);
      await sender.socket.close();
    }
    let fresh = false;
    for (const [key, want] of wanted) {
      const { way, local, destination } = want;
      const receiver = destination === LOOPBACK_BROADCAST ? LOOPBACK_BROADCAST : destination;
      await attempt(way, `${destination} on ${local.name}`, async () => {
        let socket = this.#receivers.get(receiver);
        if (!socket || socket.closed) {
          socket = this.#bind(receiver, port, way, true);
          this.#receivers.set(receiver, socket);
        }
        if (way === "multicast") {
          if (local.family === "ip4") await socket.join4(group4, local.address);
          else await socket.join6(group6, local.index ?? 0);
        }
        if (!this.#senders.has(key)) {
          const hostname = local.family === "ip6" && kindOf(local.address) === "link-local"
            ? `${local.address}%${local.name}`
            : local.address;
          this.#senders.set(key, { socket: this.#bind(hostname, 0, way, false), way, local, destination });
          fresh = true;
        }
      });
    }
    for (const way of this.#ways) {
      const detail = failed.get(way);
      const some = [...this.#senders.values()].some((one) => one.way === way);
      if (detail) this.#context.report(way, some ? "silent" : "failed", detail);
      else if (!some) this.#context.report(way, "failed", "no interface to send on; connect one");
      else if (fresh) this.#context.report(way, "idle", `ready on ${this.#names(way)}`);
    }
    if (fresh && !this.#abort.signal.aborted) this.#pacer.askNow();
    return failed.size > 0;
  }

  #bind(hostname: string, port: number, way: Way, shared: boolean): UdpSocket {
    return openUdp({
      hostname,
      port,
      shared,
      loopback: this.#options.multicastLoopback,
      bytesMax: BEACON_BYTES_MAX,
      onDatagram: (bytes, from) => this.#onDatagram(bytes, from, way),
    });
  }

  /** One round: a query while looking for members, an announcement as one. */
  async #ask(signal: AbortSignal): Promise<void> {
    if (this.#mode === "member") {
      if (this.#addresses.length > 0) await this.#send("announce", this.#ways);
      return;
    }
    if (this.#senders.size === 0) return;
    const before = new Map(this.#found);
    for (const way of this.#ways) this.#context.report(way, "asking", `asked on ${this.#names(way)}`);
    await this.#send("query", this.#ways);
    await pause(this.#context.timing.answerDelayMs + ANSWER_TRAVEL_MS, signal);
    if (signal.aborted) return;
    for (const way of this.#ways) {
      const found = this.#found.get(way) ?? 0;
      if (found > (before.get(way) ?? 0)) this.#context.report(way, "found", `answered on ${this.#names(way)}`);
      else this.#context.report(way, "silent", `nobody answered on ${this.#names(way) || "any interface"}`);
    }
  }

  #names(way: Way): string {
    return [...new Set([...this.#senders.values()].filter((one) => one.way === way).map((one) => one.local.name))].join(
      ", ",
    );
  }

  /** Sends one beacon, with one sequence number, by all ways and interfaces given. */
  async #send(
    kind: BeaconKind,
    ways: readonly Way[],
    straight?: { readonly hostname: string; readonly port: number },
  ): Promise<void> {
    const senders = [...this.#senders.values()].filter((one) => ways.includes(one.way));
    if (senders.length === 0) return;
    const bytes = encodeBeacon(
      {
        kind,
        addresses: this.#addresses,
        incarnation: this.#options.incarnation,
        seq: ++this.#seq,
        sentMs: Math.max(0, Math.floor(this.#context.now())),
      },
      this.#keys,
      this.#context.keyPair,
    );
    const count = (sent: boolean) => sent && this.#context.countOut(bytes.length);
    const sends = senders.map(({ socket, destination }) =>
      socket.send(bytes, destination, this.#options.port).then(count)
    );
    if (straight) {
      // Wireless links lose multicast easily and unicast hardly ever; firewalls do it the other way round.
      // An IPv6 sender is a link-local address of which we were not told the link.
      const near = senders.find((one) => one.local.family === "ip4" && isOnLink(straight.hostname, [one.local]));
      if (near) sends.push(near.socket.send(bytes, straight.hostname, straight.port).then(count));
    }
    await Promise.all(sends);
  }

  #onDatagram(bytes: Uint8Array, from: Deno.NetAddr, way: Way): void {
    const context = this.#context;
    context.countIn(bytes.length);
    const nowMs = context.now();
    const origin = `${way} ${from.hostname}`;
    if (!this.#limits.take(from.hostname, performance.now())) {
      // One report a second: the flood must not go on inside.
      if (performance.now() - this.#limitedReportMs >= 1_000) {
        this.#limitedReportMs = performance.now();
        context.refused("rate-limited", origin);
      }
      return;
    }
    const result = this.#guard.accept(bytes, nowMs);
    if (!result.ok) {
      context.refused(result.reason, origin);
      return;
    }
    const { beacon } = result;
    if (beacon.kind === "announce" && !result.copy) this.#announcesHeard++;
    // By each way once is enough; the same beacon comes on every interface and as unicast besides.
    const told = `${beacon.incarnation} ${beacon.seq}`;
    if (result.copy && this.#told.get(`${way} ${beacon.nodeId}`) === told) {
      context.refused("copy", origin);
      return;
    }
    if (this.#told.size >= TOLD_MAX) this.#told.delete(this.#told.keys().next().value!);
    this.#told.set(`${way} ${beacon.nodeId}`, told);
    const ownHost = context.hostNetwork().interfaces.some((one) => one.address === from.hostname);
    for (const address of beacon.addresses) {
      this.#track((async () => {
        const told = await context.sighted({
          address,
          source: way,
          verification: "signed",
          forMs: BEACON_LIFE_MS,
          detail: `beacon from ${from.hostname}`,
          loopback: ownHost,
        });
        if (told) this.#found.set(way, (this.#found.get(way) ?? 0) + 1);
      })());
    }
    if (beacon.kind === "query" && !result.copy && this.#mode !== "off" && this.#addresses.length > 0) {
      this.#track(this.#answer(way, from));
    }
  }

  /** Answers a query after a random moment, unless enough others did so by then. */
  async #answer(way: Way, from: Deno.NetAddr): Promise<void> {
    if (!this.#answers.take(performance.now())) return;
    const heard = this.#announcesHeard;
    await pause(this.#context.rng.below(Math.max(1, this.#context.timing.answerDelayMs)), this.#abort.signal);
    if (this.#abort.signal.aborted || this.#announcesHeard - heard >= ANSWERS_ENOUGH) return;
    await this.#send("announce", [way], { hostname: from.hostname, port: from.port });
  }

  #track(work: Promise<unknown>): void {
    const one = work.then(() => {}).finally(() => this.#pending.delete(one));
    this.#pending.add(one);
  }
}

/** Four announcements of a member are missed before its beacon's addresses are forgotten. */
const BEACON_LIFE_MS = 25 * 60_000;

/** Answers of others after which ours would only be noise. */
const ANSWERS_ENOUGH = 4;

/** Time beyond the answer's delay in which an answer is expected; later ones are taken all the same. */
const ANSWER_TRAVEL_MS = 150;

/** Senders and ways remembered. */
const TOLD_MAX = 2_048;

/** The loopback interface has no limited broadcast of its own. */
const LOOPBACK_BROADCAST = "127.255.255.255";

/** The most interfaces that are used. */
const SENDERS_MAX = 16;

/** One address of each interface and family: for IPv6 the link-local one, whose zone names the interface. */
function sendingAddresses(used: readonly HostAddress[]): readonly HostAddress[] {
  const chosen = new Map<string, HostAddress>();
  for (const one of used) {
    if (one.family === "ip6" && one.index === undefined) continue;
    const key = `${one.family} ${one.name}`;
    if (!chosen.has(key) && chosen.size < SENDERS_MAX) chosen.set(key, one);
  }
  return [...chosen.values()];
}
