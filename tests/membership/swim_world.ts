/**
 * Many failure detectors on a network that loses, delays and cuts: pure cores, one event queue, one seed.
 *
 * @module
 */

import { seededRng, shuffled } from "../../src/core/rng.ts";
import { Swim } from "../../src/membership/swim.ts";
import type { ChannelHint, SwimEffect, SwimEvent, SwimState } from "../../src/membership/swim_events.ts";
import { encodeSwim, type SwimUpdate } from "../../src/membership/swim_messages.ts";
import { Agenda } from "../sim/heap.ts";

/** What the network does. */
export interface Weather {
  /** Datagrams lost, of a thousand, each way. */
  readonly lossPerMille?: number;
  readonly delayMs?: number;
  /** Random part of the delay, at most. */
  readonly jitterMs?: number;
}

/** A change of what a node sees. */
export interface Observed {
  readonly atMs: number;
  readonly by: number;
  readonly of: number;
  readonly state: SwimState;
  readonly reachable: boolean;
  readonly reason: string;
}

/** IP, UDP and QUIC around one datagram of QUIC, and one packet that acknowledges. */
const PACKET_BYTES = 20 + 8 + 1 + 8 + 2 + 2 + 16;
const ACK_BYTES = 20 + 8 + 1 + 8 + 2 + 7 + 16;

/** As `agent/links.ts` has it. */
const FULL_MESH_MAX = 32;

class Host {
  swim!: Swim;
  life = 0;
  running = false;
  pausedUntilMs = 0;
  waiting: SwimEvent[] = [];
  wakeMs = Infinity;
  /** When the timer that is set goes off. */
  timerMs = Infinity;
  stored = 0;
  readonly peers = new Set<number>();
  bytes = 0;
  datagrams = 0;
  steps = 0;
  wakes = 0;
  constructor(readonly index: number, readonly id: string) {}
}

/** The world. Nodes are known by their index. */
export class SwimWorld {
  nowMs = 1_000_000;
  weather: Weather;
  readonly hosts: Host[];
  readonly log: Observed[] = [];
  /** `from>to`: what goes that way is lost, whatever it is. */
  readonly cut = new Set<string>();
  /** Whether bytes are counted, which costs more than all the rest. */
  measures = false;
  readonly #rng;
  readonly #agenda = new Agenda();
  readonly #byId = new Map<string, Host>();

  /**
   * @param n Nodes.
   * @param seed Draws everything.
   * @param weather What the network does.
   * @param intervalOf Time between two pings of a node's neighbour, by index.
   */
  constructor(
    n: number,
    seed: number,
    weather: Weather = {},
    readonly intervalOf: (index: number) => number = () => 1_000,
  ) {
    this.#rng = seededRng(seed);
    this.weather = weather;
    this.hosts = Array.from({ length: n }, (_, i) => {
      const id = (this.#rng.below(2 ** 32)).toString(16).padStart(8, "0") + i.toString(16).padStart(8, "0");
      const host = new Host(i, id);
      this.#byId.set(id, host);
      return host;
    });
    for (const host of this.hosts) for (const peer of this.#wanted(host)) this.#join(host, peer);
    for (const host of this.hosts) this.start(host.index);
  }

  /** As `agent/links.ts` has it: everybody, or fingers on the ring; the first three stand for the issuers. */
  #wanted(host: Host): Host[] {
    if (this.hosts.length <= FULL_MESH_MAX) return this.hosts.filter((one) => one !== host);
    const ring = [...this.hosts].sort((a, b) => a.id < b.id ? -1 : 1);
    const at = ring.indexOf(host);
    const wanted = new Set(this.hosts.slice(0, 3));
    for (let step = 1; step < ring.length; step *= 2) wanted.add(ring[(at + step) % ring.length]!);
    wanted.delete(host);
    return [...wanted];
  }

  #join(a: Host, b: Host): void {
    a.peers.add(b.index);
    b.peers.add(a.index);
  }

  /** Starts a node, with what it had stored, and opens its channels. */
  start(index: number): void {
    const host = this.hosts[index]!;
    host.life++;
    host.running = true;
    host.wakeMs = host.timerMs = Infinity;
    host.waiting = [];
    const rng = seededRng(this.#rng.below(2 ** 32));
    host.swim = new Swim({ self: host.id, rng, intervalMs: this.intervalOf(index) });
    this.#step(host, { type: "start", nowMs: this.nowMs, incarnation: host.stored });
    const members = new Set(this.hosts.filter((one) => one !== host).map((one) => one.id));
    const watched = new Set([...host.peers].map((one) => this.hosts[one]!.id));
    this.#step(host, { type: "view", nowMs: this.nowMs, members, watched });
    for (const peer of host.peers) {
      const other = this.hosts[peer]!;
      if (!other.running) continue;
      this.#after(5, () => {
        this.#step(host, { type: "channel-up", nowMs: this.nowMs, id: other.id });
        this.#step(other, { type: "channel-up", nowMs: this.nowMs, id: host.id });
      });
    }
  }

  /** The process is gone; `hint` is what the others' channels to it say, after a moment. */
  kill(index: number, hint?: ChannelHint | "gone"): void {
    const host = this.hosts[index]!;
    host.running = false;
    host.life++;
    if (!hint) return;
    for (const peer of host.peers) {
      const other = this.hosts[peer]!;
      this.#after(2, () =>
        this.#step(
          other,
          hint === "gone"
            ? { type: "gone", nowMs: this.nowMs, id: host.id }
            : { type: "channel-down", nowMs: this.nowMs, id: host.id, hint },
        ));
    }
  }

  /** The machine of a node says that its process is gone, to all that have a channel to it. */
  hint(index: number): void {
    const { id, peers } = this.hosts[index]!;
    for (const peer of peers) this.#step(this.hosts[peer]!, { type: "gone", nowMs: this.nowMs, id });
  }

  /** A node sends updates of its own making to all; they are made from the incarnation of their first subject. */
  lie(index: number, make: (incarnation: number) => readonly SwimUpdate[]): void {
    const host = this.hosts[index]!;
    const { incarnation } = this.#byId.get(make(0)[0]!.subject)!.swim.inspect();
    for (const peer of host.peers) {
      const to = this.hosts[peer]!;
      this.#deliver(host, to, () => {
        const message = { type: "news", updates: make(incarnation) } as const;
        this.#step(to, { type: "message", nowMs: this.nowMs, from: host.id, message });
      });
    }
  }

  /** A stopped process that comes back: nothing runs, what arrives waits. */
  pause(index: number, forMs: number): void {
    const host = this.hosts[index]!;
    host.pausedUntilMs = this.nowMs + forMs;
    this.#after(forMs, () => {
      if (!host.running) return;
      // Timers come before what waits at the sockets.
      if (host.wakeMs <= this.nowMs) this.#step(host, { type: "wake", nowMs: this.nowMs });
      const waiting = host.waiting;
      host.waiting = [];
      for (const event of waiting.slice(0, 200)) this.#step(host, { ...event, nowMs: this.nowMs });
    });
  }

  run(forMs: number): void {
    const endMs = this.nowMs + forMs;
    for (;;) {
      if ((this.#agenda.nextMs ?? Infinity) > endMs) break;
      const next = this.#agenda.take()!;
      this.nowMs = next.atMs;
      next.run();
    }
    this.nowMs = endMs;
  }

  /** When each running node came to hold `state` of a node, counted from `sinceMs`; NaN for those that do not. */
  knownAfterMs(of: number, state: SwimState, sinceMs: number): number[] {
    return this.hosts.filter((one) => one.running && one.index !== of).map((one) => {
      const last = this.log.findLast((entry) => entry.by === one.index && entry.of === of && entry.atMs >= sinceMs);
      return last?.state === state ? last.atMs - sinceMs : NaN;
    });
  }

  #step(host: Host, event: SwimEvent): void {
    if (!host.running) return;
    if (this.nowMs < host.pausedUntilMs) {
      if (event.type !== "wake") host.waiting.push(event);
      return;
    }
    host.steps++;
    if (event.type === "wake") host.wakes++;
    this.#carryOut(host, host.swim.step(event));
  }

  #carryOut(host: Host, effects: readonly SwimEffect[]): void {
    for (const effect of effects) {
      switch (effect.type) {
        case "send": {
          host.datagrams++;
          if (this.measures) host.bytes += PACKET_BYTES + 1 + encodeSwim(effect.message).length;
          const to = this.#byId.get(effect.to)!;
          if (effect.message.type !== "ping") host.bytes += 7;
          this.#deliver(host, to, () => {
            // A ping is acknowledged by the packet of the ack, the rest by packets of their own.
            if (effect.message.type !== "ping") to.bytes += ACK_BYTES;
            this.#step(to, { type: "message", nowMs: this.nowMs, from: host.id, message: effect.message });
          });
          break;
        }
        case "fallback":
          this.#call(host, this.#byId.get(effect.to)!, effect.timeoutMs);
          break;
        case "publish": {
          // Stands for the broadcast: everybody gets it, some hops later.
          for (const to of this.hosts) {
            if (to === host) continue;
            this.#after(20 + this.#rng.below(100), () => {
              if (!this.cut.has(`${host.index}>${to.index}`)) {
                this.#step(to, { type: "news", nowMs: this.nowMs, origin: host.id, updates: effect.updates });
              }
            });
          }
          break;
        }
        case "persist":
          host.stored = effect.incarnation;
          this.#carryOut(host, effect.then);
          break;
        case "observe":
          this.log.push({
            atMs: this.nowMs,
            by: host.index,
            of: this.#byId.get(effect.id)!.index,
            state: effect.state,
            reachable: effect.reachable,
            reason: effect.reason,
          });
          break;
        case "wakeAt":
          host.wakeMs = effect.atMs;
          if (effect.atMs < host.timerMs) this.#timer(host, effect.atMs);
          break;
      }
    }
  }

  /** One timer is set at a time; where the wake-up was put off meanwhile it is set again. */
  #timer(host: Host, atMs: number): void {
    const { life } = host;
    host.timerMs = atMs;
    this.#at(atMs, () => {
      if (host.life !== life || host.timerMs !== atMs) return;
      host.timerMs = Infinity;
      if (host.wakeMs > this.nowMs) return this.#timer(host, host.wakeMs);
      this.#step(host, { type: "wake", nowMs: this.nowMs });
    });
  }

  /** A call over a stream: each way is repeated until it is through. */
  #call(host: Host, to: Host, timeoutMs: number): void {
    const life = host.life;
    let done = false;
    const end = (ok: boolean) => {
      if (done || host.life !== life) return;
      done = true;
      this.#step(host, { type: "fallback-done", nowMs: this.nowMs, id: to.id, ok });
    };
    this.#after(timeoutMs, () => end(false));
    const attempt = (from: Host, target: Host, ptoMs: number, run: () => void) => {
      if (done || ptoMs > 30_000) return;
      let through = false;
      this.#deliver(from, target, () => {
        if (through || !target.running) return;
        through = true;
        // A stopped process answers when it runs again.
        this.#at(target.pausedUntilMs, run);
      });
      this.#after(ptoMs, () => through || attempt(from, target, 2 * ptoMs, run));
    };
    attempt(host, to, 300, () => attempt(to, host, 300, () => end(true)));
  }

  #deliver(from: Host, to: Host, run: () => void): void {
    const { lossPerMille = 0, delayMs = 1, jitterMs = 0 } = this.weather;
    if (this.cut.has(`${from.index}>${to.index}`) || !from.peers.has(to.index)) return;
    if (lossPerMille > 0 && this.#rng.below(1_000) < lossPerMille) return;
    this.#after(delayMs + (jitterMs > 0 ? this.#rng.below(jitterMs + 1) : 0), run);
  }

  #after(ms: number, run: () => void): void {
    this.#at(this.nowMs + ms, run);
  }

  #at(atMs: number, run: () => void): void {
    this.#agenda.add(Math.max(this.nowMs, atMs), run);
  }

  /** Some nodes, drawn. */
  pick(count: number): number[] {
    return shuffled(this.hosts.map((one) => one.index), this.#rng).slice(0, count);
  }
}
