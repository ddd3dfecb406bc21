/**
 * Failure detection: SWIM with Lifeguard, over channels that prove who speaks.
 *
 * Each interval a node pings one neighbour, mostly its successor on the ring of handles, so that every node is
 * watched at an even pace, now and then another one in random order (SWIM, section 4.3). Where no answer comes it asks
 * three others and a reliable call (indirect probe), and then suspects; who hears of it and has a channel of its
 * own looks for itself. `dead` takes a node's own failed probes, or, for one without a channel, the word of three
 * others, each on its own authority. How it got so far, and where it leaves the papers: docs/adr/0012.
 *
 * Sources: A. Das, I. Gupta, A. Motivala, "SWIM", DSN 2002; A. Dadgar, J. Phillips, J. Currey, "Lifeguard", DSN-W 2018;
 * hashicorp/memberlist for the constants.
 *
 * @module
 */

import { unreachable } from "../core/assert.ts";
import { LIMITS } from "../core/limits.ts";
import type { Rng } from "../core/rng.ts";
import { NewsQueue } from "./news_queue.ts";
import type { ChannelHint, SwimEffect, SwimEvent, SwimOptions, SwimState, SwimView } from "./swim_events.ts";
import { type Accusation, newNode, type Node, type Ping, type Probe, type Suspicion } from "./swim_state.ts";
import { AttemptStats, Rtt, suspicionMs } from "./swim_timing.ts";
import { INCARNATION_MAX, SEQ_MAX, type SwimMessage, type SwimUpdate } from "./swim_messages.ts";

/** Time between two pings of the neighbour (memberlist, LAN). */
const INTERVAL_MS = 1_000;
/** One in so many probes goes to another node than the neighbour as well. */
const ROUND_ROBIN_EVERY = 4;
/** Helpers of an indirect probe (SWIM: k; memberlist: IndirectChecks). */
const HELPERS = 3;
/** Awareness goes from 0 to this (Lifeguard: S = 8 steps). */
const AWARENESS_MAX = 7;
/** Accusers besides the first that bring the suspicion to its least duration (memberlist: SuspicionMult − 2). */
const CONFIRMATIONS = 2;
/** Accusers on whose word a node without a channel to the accused calls it dead. */
const ACCUSERS = 3;
/** Least duration of a suspicion. Longer than what a busy or small machine may stand still for. */
const SUSPICION_MS = 1_200;
/** Where the other end has closed the channel, which may be a restart, and where its machine says that it is gone. */
const SUSPICION_CLOSED_MS = 1_500;
const SUSPICION_GONE_MS = 200;
/** Own unanswered pings without which a node with a channel calls nobody dead. */
const OWN_ATTEMPTS = 3;
/** Pings of a suspect follow each other no faster. */
const FAST_PING_MS = 100;
const GONE_PING_MS = 40;
/** After this many, a suspect is pinged once an interval. */
const FAST_PINGS = 24;
/** What a nack, an accusation and a report of death of another node count for, in unanswered pings. */
const WEIGHT = { nack: 1, suspect: 2, dead: 4 } as const;
/** Others' words are forgotten after this. */
const ACCUSATION_MS = 15_000;
/** A member that a channel is wanted to and does not come is looked for after this. */
const FIRST_LOOK_MS = 5_000;
/** How long answers that come too late still tell the round-trip time. */
const LATE_MS = 10_000;
/** Waking up later than asked for by this much is a pause of this node. */
const PAUSE_MS = 100;
/** What is due after a pause gets this much longer. */
const GRACE_MS = 250;
/** Who accuses after others waits up to this before it tells: three are enough. */
const SPREAD_MS = 150;
/** A death is told again, of a newer incarnation, if the node does not answer meanwhile. */
const AGAIN_MS = 1_000;
/** Time between two questions whether others call a node dead, and how many there are. */
const ASK_MS = 700;
const ASKS = 5;
/** Incarnations reserved with one write. */
const LEASE = 32;
/** An incarnation that is ahead by more is no word about this life. */
const INCARNATION_JUMP_MAX = 1 << 16;
/** With so many others silent at once something greater has happened, and everybody is looked at. */
const SWEEP_SUSPECTS = 2;
/** Time for the way of a nack. */
const NACK_MS = 50;
/** A node is told no more often that somebody calls it dead. */
const TOLD_MS = 10_000;
/** Time between two looks at everybody. */
const SWEEP_MS = 3_000;
/** Probes under way at once. */
const PROBES_MAX = 64;
/** Piggybacked updates in one message. */
const PIGGYBACK = 4;

/** Failure detection of one node. */
export class Swim {
  readonly #self: string;
  readonly #rng: Rng;
  readonly #intervalMs: number;
  #members: ReadonlySet<string> = new Set();
  /** Those that something is known of: at most the members. */
  readonly #nodes = new Map<string, Node>();
  readonly #probes = new Map<string, Probe>();
  /** Ended ones, whose indirect answers may still come. */
  readonly #recent = new Map<number, Probe>();
  readonly #pings = new Map<number, Ping>();
  /** Numbers of those pings that wait for something. */
  readonly #open = new Set<number>();
  /** Nodes that something is due for. */
  readonly #busy = new Set<Node>();
  #deadCount = 0;
  readonly #news: NewsQueue;
  readonly #stats = new AttemptStats();
  /** Of all that answer. */
  readonly #rtt = new Rtt();
  /** Order of the random round-robin. */
  #round: string[] = [];
  #tick = 0;
  /** Suspects that have not answered several pings. */
  #silent = 0;
  #tickMs = Infinity;
  #sweptMs = -Infinity;
  #seq: number;
  #incarnation = 0;
  #lease = 0;
  #awareness = 0;
  #probeCount = 0;
  #refuted = 0;
  #refutedMs = -Infinity;
  #nowMs = 0;
  #wakeMs = Infinity;
  #effects: SwimEffect[] = [];

  constructor(options: SwimOptions) {
    this.#self = options.self;
    this.#rng = options.rng;
    this.#intervalMs = options.intervalMs ?? INTERVAL_MS;
    this.#news = new NewsQueue(LIMITS.swimQueueMax);
    this.#seq = options.rng.below(SEQ_MAX + 1);
  }

  /** How failure detection stands. */
  inspect(): SwimView {
    const of = (state: SwimState) =>
      [...this.#nodes.values()].filter((one) => one.state === state).map((one) => one.id);
    return {
      awareness: this.#awareness,
      incarnation: this.#incarnation,
      lossPerMille: this.#stats.lossPerMille,
      probes: this.#probeCount,
      refuted: this.#refuted,
      suspects: of("suspect"),
      dead: of("dead"),
    };
  }

  /** Takes one event and returns what to do, in order. */
  step(event: SwimEvent): SwimEffect[] {
    this.#effects = [];
    this.#advance(event.nowMs, event.type === "clock-set-back");
    this.#dispatch(event);
    this.#work();
    if (this.#wakeMs < Infinity) this.#emit({ type: "wakeAt", atMs: this.#wakeMs });
    return this.#effects;
  }

  /**
   * Takes in the time. A node that stood still, stopped or without its share of the processor, has no right to hold
   * the silence of that time against others: what was due is put off by as much.
   */
  #advance(nowMs: number, setBack: boolean): void {
    const lateMs = setBack ? nowMs - this.#nowMs : nowMs - Math.max(this.#wakeMs, this.#nowMs);
    this.#nowMs = nowMs;
    if (!setBack && lateMs <= PAUSE_MS) return;
    if (lateMs > this.#intervalMs) this.#aware(1);
    // What came meanwhile waits behind the timer that woke this node.
    const shiftMs = lateMs + (setBack ? 0 : GRACE_MS);
    for (const probe of this.#probes.values()) probe.dueMs += shiftMs;
    for (const ping of this.#pings.values()) {
      ping.dueMs += shiftMs;
      if (ping.relay) ping.relay.nackMs += shiftMs;
    }
    for (const node of this.#nodes.values()) {
      node.expectedMs += shiftMs;
      node.answeredMs = Math.min(nowMs, node.answeredMs + lateMs);
      node.heardMs = Math.min(nowMs, node.heardMs + lateMs);
      if (node.suspicion) {
        node.suspicion.startMs += shiftMs;
        node.suspicion.nextPingMs += shiftMs;
        node.suspicion.announceMs += shiftMs;
      }
      node.deathAnnounceMs += shiftMs;
      node.askMs += shiftMs;
    }
    if (setBack && this.#tickMs < Infinity) this.#tickMs = nowMs + this.#rng.below(this.#intervalMs);
  }

  #dispatch(event: SwimEvent): void {
    switch (event.type) {
      case "start":
        return this.#start(event.incarnation);
      case "view":
        return this.#view(event.members, event.watched);
      case "channel-up":
        return this.#channelUp(event.id);
      case "channel-down":
        return this.#channelDown(event.id, event.hint);
      case "gone": {
        const node = this.#nodes.get(event.id);
        if (!node?.channel || node.state === "dead") return;
        node.hint = "gone";
        this.#suspect(node, "its process is gone");
        if (node.suspicion) node.suspicion.nextPingMs = this.#nowMs;
        return;
      }
      case "message":
        return this.#message(event.from, event.message);
      case "heard": {
        const node = this.#nodes.get(event.from);
        if (!node?.channel) return;
        if (event.answered) this.#answered(node, "it answers calls");
        else this.#heard(node);
        return;
      }
      case "dial-failed": {
        const node = this.#nodes.get(event.id);
        if (node && !node.channel) node.attempts++;
        return;
      }
      case "fallback-done": {
        const node = this.#nodes.get(event.id);
        if (!node) return;
        if (event.ok) this.#answered(node, "it answers calls");
        else node.attempts++;
        return;
      }
      case "news":
        for (const update of event.updates) if (!update.accuser) this.#statement(update, event.origin);
        return;
      case "clock-set-back":
      case "wake":
        return;
      default:
        return unreachable(event);
    }
  }

  #start(incarnation: number): void {
    this.#incarnation = Math.min(INCARNATION_MAX, incarnation + 1);
    this.#lease = Math.min(INCARNATION_MAX, this.#incarnation + LEASE);
    // Should this write be lost with the process, the next life hears of the suspicion of this one and overtakes it.
    this.#emit({ type: "persist", incarnation: this.#lease, then: [] });
    // Nodes that start together do not ping together.
    this.#tickMs = this.#nowMs + this.#rng.below(this.#intervalMs);
  }

  #view(members: ReadonlySet<string>, watched: ReadonlySet<string>): void {
    this.#members = members;
    for (const node of this.#nodes.values()) {
      node.watched = watched.has(node.id);
      if (members.has(node.id)) {
        this.#letGo(node);
        continue;
      }
      if (node.state === "dead") this.#deadCount--;
      this.#nodes.delete(node.id);
      this.#busy.delete(node);
      this.#probes.delete(node.id);
      this.#news.forget(node.id);
    }
    for (const id of watched) {
      const node = this.#node(id);
      if (!node || node.watched) continue;
      node.watched = true;
      if (node.state === undefined) this.#expect(node, FIRST_LOOK_MS + this.#rng.below(FIRST_LOOK_MS));
    }
    this.#round = this.#round.filter((id) => watched.has(id) || this.#nodes.get(id)?.channel);
  }

  #channelUp(id: string): void {
    const node = this.#node(id);
    if (!node) return;
    const was = node.state;
    node.channel = true;
    this.#answered(node, "its channel is open");
    const updates: SwimUpdate[] = [{ kind: "alive", subject: this.#self, incarnation: this.#incarnation }];
    // It has to hear what was said of it, to be able to say otherwise.
    if (was === "dead") updates.push({ kind: "dead", subject: id, incarnation: node.incarnation });
    for (const one of this.#nodes.values()) {
      if (updates.length >= LIMITS.swimUpdatesPerMessageMax) break;
      if (one.state === "dead" && one.id !== id) {
        updates.push({ kind: "dead", subject: one.id, incarnation: one.incarnation });
      }
    }
    this.#send(id, { type: "news", updates });
  }

  #channelDown(id: string, hint: ChannelHint): void {
    const node = this.#nodes.get(id);
    if (!node?.channel) return;
    node.channel = false;
    node.hint = hint;
    if (node.state === "dead") return;
    if (hint === "none") {
      this.#expect(node, FIRST_LOOK_MS);
      return this.#letGo(node);
    }
    this.#suspect(node, "its channel has closed");
    this.#probe(node);
  }

  /**
   * Beyond the full mesh: nothing is expected any more of one that this node neither has nor wants a channel to. Its
   * silence here says nothing, and no answer could end a suspicion; those that look after it say when it dies.
   */
  #letGo(node: Node): void {
    if (node.channel || node.watched || node.hint !== "none") return;
    node.expectedMs = Infinity;
    this.#probes.delete(node.id);
    if (node.state === "suspect") this.#alive(node, "others look after it");
  }

  /** Something is to come from a node within a time. */
  #expect(node: Node, withinMs: number): void {
    node.expectedMs = this.#nowMs + withinMs;
    this.#busy.add(node);
  }

  #message(from: string, message: SwimMessage): void {
    const node = this.#nodes.get(from);
    if (!node?.channel) return;
    node.expectedMs = Infinity;
    if ("incarnation" in message) this.#own(node, message.incarnation);
    if ("updates" in message) {
      for (const update of message.updates) {
        if (update.accuser === undefined || update.accuser === from) this.#statement(update, from);
        else this.#hearsay(update, from);
      }
    }
    switch (message.type) {
      case "ping":
        this.#send(from, {
          type: "ack",
          seq: message.seq,
          incarnation: this.#incarnation,
          updates: this.#piggyback(node),
        });
        if (message.nextMs > 0) {
          this.#expect(node, message.nextMs + 2 * this.#timeoutMs(node));
        }
        this.#heard(node);
        return;
      case "ack":
        return this.#ack(node, message.seq);
      case "ping-req":
        return this.#pingFor(node, message.seq, message.target);
      case "indirect-ack": {
        const probe = this.#probeOf(message.seq, from);
        if (probe) this.#reachedByOthers(probe);
        return;
      }
      case "nack": {
        const probe = this.#probeOf(message.seq, from);
        if (!probe || probe.nacks >= probe.helpers.length) return;
        probe.nacks++;
        if (message.tried) probe.target.nacks++;
        return;
      }
      case "news":
        return this.#heard(node);
      default:
        return unreachable(message);
    }
  }

  /** What a node says of itself, with every ping and ack: its incarnation. */
  #own(node: Node, incarnation: number): void {
    if (incarnation <= node.incarnation) return;
    node.incarnation = incarnation;
    for (const [id, one] of node.accusers) if (one.incarnation < incarnation) node.accusers.delete(id);
    this.#news.supersede(node.id, incarnation);
  }

  /** What `from` says on its own authority. */
  #statement(update: SwimUpdate, from: string): void {
    const { kind, subject, incarnation } = update;
    if (subject === this.#self) {
      if (kind !== "alive") this.#refute(incarnation);
      return;
    }
    const node = this.#node(subject);
    if (!node) return;
    if (kind === "alive") {
      if (subject !== from || incarnation <= node.incarnation) return;
      // Where nobody said anything else it is no news to anybody.
      if (node.state !== "alive" || node.accusers.size > 0) this.#news.add({ ...update, accuser: from });
      this.#own(node, incarnation);
      // Its own word, newer than all that was said of it. Whether it answers this node is another question.
      if (node.state !== "alive" && (!node.channel || node.suspicion)) this.#alive(node, "it says so itself");
      return;
    }
    // One that never heard from the subject itself does not know its incarnation, which counts from 1.
    if (incarnation > 0 && incarnation < node.incarnation || subject === from) return;
    const known = node.accusers.get(from);
    if (!known && node.accusers.size >= LIMITS.swimAccusersMax) return;
    const isNew = !known || known.incarnation < incarnation || kind === "dead" && !known.dead;
    node.accusers.set(from, { incarnation, atMs: this.#nowMs, weight: WEIGHT[kind], dead: kind === "dead" });
    if (isNew) this.#news.add({ ...update, accuser: from });
    if (node.channel || node.watched) this.#lookFor(node);
    else if (kind === "dead" && node.state !== "dead" && this.#accusersOfDeath(node) >= ACCUSERS) {
      // What as many of them say of its incarnation counts, so that an older word of its own is no refutation.
      const known = this.#freshAccusers(node).filter((one) => one.dead).map((one) => one.incarnation);
      node.incarnation = Math.max(node.incarnation, known.toSorted((a, b) => b - a)[ACCUSERS - 1]!);
      this.#setState(node, "dead", "three others say so");
    } else if (kind === "dead" && node.state !== "dead" && node.askMs === Infinity) {
      node.asks = 0;
      node.askMs = this.#nowMs + ASK_MS;
      this.#busy.add(node);
    }
  }

  /** What somebody says that others say: a reason to look, and nothing more. */
  #hearsay(update: SwimUpdate, from: string): void {
    const { kind, subject, incarnation } = update;
    if (subject === this.#self) {
      if (kind !== "alive") this.#refute(incarnation);
      return;
    }
    const node = this.#node(subject);
    if (!node || incarnation < node.incarnation || update.accuser === this.#self) return;
    this.#news.pass(update, this.#nowMs);
    if (kind === "alive") {
      // It proves nothing, but what is said from here has to be about the present incarnation, or nobody heeds it.
      if (incarnation > node.incarnation + INCARNATION_JUMP_MAX) return;
      if (incarnation > node.incarnation && node.state === "dead" && node.channel) this.#announce(node, AGAIN_MS);
      node.incarnation = Math.max(node.incarnation, incarnation);
      return;
    }
    // Whoever passes it on may lack the words of enough others: here is one of them.
    if (kind === "dead" && node.state === "dead") {
      this.#send(from, { type: "news", updates: [{ kind, subject, incarnation: node.incarnation }] });
    }
    if (kind === "dead" && node.channel && node.state === "alive" && this.#nowMs - node.toldMs > TOLD_MS) {
      // Somebody out of its reach holds it for dead: only itself can say otherwise, and has to know of it.
      node.toldMs = this.#nowMs;
      this.#send(subject, { type: "news", updates: [update] });
    }
    if (node.channel || node.watched) this.#lookFor(node);
  }

  /** Says that this node is alive, in an incarnation that overtakes what was said of it. */
  #refute(incarnation: number): void {
    if (incarnation > this.#incarnation + INCARNATION_JUMP_MAX) return;
    if (incarnation < this.#incarnation) {
      // Refuted already, and somebody has not heard: a cut, say, was in the way.
      if (this.#nowMs - this.#refutedMs < SWEEP_MS) return;
    } else {
      this.#incarnation = Math.min(INCARNATION_MAX, incarnation + 1);
      this.#refuted++;
      this.#aware(1);
    }
    this.#refutedMs = this.#nowMs;
    const update = { kind: "alive", subject: this.#self, incarnation: this.#incarnation } as const;
    const outer = this.#effects;
    const says: SwimEffect[] = [];
    this.#effects = says;
    this.#tell(update, "");
    this.#effects = outer;
    if (this.#incarnation <= this.#lease) return this.#emit(...says);
    this.#lease = Math.min(INCARNATION_MAX, this.#incarnation + LEASE);
    this.#emit({ type: "persist", incarnation: this.#lease, then: says });
  }

  #ack(from: Node, seq: number): void {
    const ping = this.#pings.get(seq);
    if (!ping || ping.target !== from.id) return this.#heard(from);
    this.#pings.delete(seq);
    this.#open.delete(seq);
    // While it was silent the answers tell how long that was, and nothing of the path.
    if (!ping.doubted) {
      from.rtt.sample(this.#nowMs - ping.sentMs);
      this.#rtt.sample(this.#nowMs - ping.sentMs);
    }
    if (ping.relay) this.#send(ping.relay.to, { type: "indirect-ack", seq: ping.relay.seq });
    this.#answered(from, "it answers");
  }

  /** Probes a node for another one. */
  #pingFor(from: Node, seq: number, target: string): void {
    const node = this.#nodes.get(target);
    if (!node?.channel || this.#relays() >= PROBES_MAX) {
      return this.#send(from.id, { type: "nack", seq, tried: false });
    }
    // Lifeguard: the nack comes at 80 % of the time that the probe has.
    this.#ping(node, 0, { to: from.id, seq, nackMs: this.#nowMs + Math.floor(this.#answerMs(node) * 4 / 5) });
  }

  #relays(): number {
    let count = 0;
    for (const seq of this.#open) if (this.#pings.get(seq)?.relay) count++;
    return count;
  }

  #probeOf(seq: number, helper: string): Probe | undefined {
    const probe = this.#recent.get(seq);
    return probe?.helpers.includes(helper) ? probe : undefined;
  }

  /** It is alive, though not on the direct way. */
  #reachedByOthers(probe: Probe): void {
    const node = probe.target;
    if (node.answeredMs >= probe.sentMs) return;
    if (probe.stage === "indirect") this.#over(probe, true);
    node.attempts = 0;
    node.nacks = 0;
    node.heardMs = this.#nowMs;
    if (node.state === "dead") return;
    const changed = node.reachable;
    node.reachable = false;
    if (node.state !== "alive") this.#alive(node, "others reach it");
    else if (changed) this.#observe(node, "only others reach it");
  }

  /** Something came from it, which does not show that it hears this node. */
  #heard(node: Node): void {
    node.heardMs = this.#nowMs;
    if (node.state === "alive" || !node.suspicion && node.state !== "dead") return;
    // It runs. Whether it answers shows at once.
    if (!this.#isPinged(node)) this.#ping(node, 0);
  }

  /** It has answered this node: nothing is better proof. */
  #answered(node: Node, reason: string): void {
    const changed = !node.reachable;
    node.answeredMs = node.heardMs = this.#nowMs;
    node.expectedMs = Infinity;
    node.attempts = 0;
    node.nacks = 0;
    node.hint = "none";
    node.reachable = true;
    const probe = this.#probes.get(node.id);
    if (probe) this.#over(probe, true);
    if (node.state !== "alive") this.#alive(node, reason);
    else if (changed) this.#observe(node, reason);
  }

  #alive(node: Node, reason: string): void {
    const was = node.state;
    node.suspicion = undefined;
    node.deathAnnounceMs = Infinity;
    if (was === "dead") node.accusers.clear();
    this.#setState(node, "alive", reason);
    // A cut that heals heals for all.
    if (was === "dead") this.#sweep((one) => one.state === "dead");
  }

  /** Asks all of some kind at once whether they are there; seldom. */
  #sweep(isMeant: (node: Node) => boolean): void {
    if (this.#nowMs - this.#sweptMs < SWEEP_MS) return;
    this.#sweptMs = this.#nowMs;
    for (const node of this.#nodes.values()) {
      if (!node.channel || !isMeant(node) || this.#isPinged(node)) continue;
      if (node.state === "dead") this.#ping(node, 0);
      else this.#probe(node);
    }
  }

  /** Somebody accuses a node: this one looks for itself, unless it has just had an answer. */
  #lookFor(node: Node): void {
    if (node.state === "dead" || node.suspicion) return;
    if (this.#nowMs - node.answeredMs < this.#timeoutMs(node)) return;
    // Nobody can make this node ping without end.
    if (this.#nowMs - node.lookedMs < this.#intervalMs / 4) return;
    node.lookedMs = this.#nowMs;
    // One alone cannot bring a healthy node under suspicion; it gets a look.
    if (node.attempts > 0 || this.#accusersOfDeath(node) > 1) this.#suspect(node, "others miss it too");
    else this.#probe(node);
  }

  #probe(node: Node, nextMs = 0): void {
    if (this.#probes.has(node.id) || this.#probes.size >= PROBES_MAX) return;
    this.#probeCount++;
    const dueMs = this.#nowMs + (node.channel ? this.#timeoutMs(node) : 0);
    const seq = node.channel ? this.#ping(node, nextMs) : this.#nextSeq();
    const probe: Probe = { target: node, seq, sentMs: this.#nowMs, stage: "direct", dueMs, helpers: [], nacks: 0 };
    this.#probes.set(node.id, probe);
    this.#recent.set(seq, probe);
    if (this.#recent.size > LIMITS.swimPingsMax) this.#recent.delete(this.#recent.keys().next().value!);
  }

  /** No answer in time. */
  #missed(probe: Probe): void {
    const node = probe.target;
    if (probe.stage === "indirect") {
      this.#over(probe, false);
      return this.#suspect(node, "it does not answer");
    }
    probe.stage = "indirect";
    if (node.channel) {
      this.#stats.note(true);
      this.#ping(node, 0);
      this.#emit({ type: "fallback", to: node.id, timeoutMs: Math.max(2_000, 4 * this.#timeoutMs(node)) });
    }
    for (const { id } of this.#helpers(node)) {
      probe.helpers.push(id);
      const updates = this.#news.take(this.#retransmitMax(), 1);
      this.#send(id, { type: "ping-req", seq: probe.seq, target: node.id, updates });
    }
    // A nack takes the way to the helper and back as well.
    probe.dueMs = this.#nowMs + this.#timeoutMs(node) + NACK_MS;
    // Others miss it as well: what helpers would find out is known.
    if (node.accusers.size > 0 && node.attempts > 0) this.#suspect(node, "others miss it too");
  }

  #over(probe: Probe, ok: boolean): void {
    const wasDirect = probe.stage === "direct";
    probe.stage = "over";
    this.#probes.delete(probe.target.id);
    if (ok) {
      if (wasDirect) this.#stats.note(false);
      return this.#aware(-1);
    }
    // Missing nacks speak against this node rather than against the target (Lifeguard, section IV-A). One step for all
    // of them: in a cut half of the helpers may be beyond it.
    if (probe.nacks < probe.helpers.length || probe.helpers.length === 0) this.#aware(1);
  }

  #suspect(node: Node, reason: string): void {
    if (node.state === "dead" || node.suspicion) return;
    const others = this.#freshAccusers(node).length;
    node.suspicion = {
      startMs: this.#nowMs,
      announced: false,
      // Where its channel has closed, those of others have as well.
      announceMs: others === 0 && node.hint === "none" ? this.#nowMs : this.#nowMs + this.#rng.below(SPREAD_MS),
      nextPingMs: this.#nowMs,
      pings: 0,
    };
    node.reachable = false;
    this.#busy.add(node);
    this.#setState(node, "suspect", reason);
  }

  /** Others whose accusation still counts. */
  #freshAccusers(node: Node): Accusation[] {
    const fresh: Accusation[] = [];
    for (const [id, one] of node.accusers) {
      if (this.#nowMs - one.atMs > ACCUSATION_MS) node.accusers.delete(id);
      else fresh.push(one);
    }
    return fresh;
  }

  #accusersOfDeath(node: Node): number {
    return this.#freshAccusers(node).filter((one) => one.dead).length;
  }

  /** When a suspicion ends in death at the earliest. */
  #deadlineMs(node: Node, suspicion: Suspicion): number {
    const others = this.#freshAccusers(node).length;
    // Members that live, without this one and without the suspect.
    const able = this.#members.size - this.#deadCount - 1;
    const k = able < CONFIRMATIONS ? 0 : CONFIRMATIONS;
    const minMs = node.hint === "gone"
      ? SUSPICION_GONE_MS
      : Math.max(node.hint === "closed" ? SUSPICION_CLOSED_MS : SUSPICION_MS, 3 * this.#answerMs(node));
    // The machine of the node has said it: nobody has to confirm.
    const c = node.hint === "gone" ? k : Math.min(k, others);
    const dueMs = suspicion.startMs + suspicionMs(minMs, c, k);
    // A node that sends is not dead, whether or not it hears this one.
    return Math.max(dueMs, node.heardMs + minMs);
  }

  /** Whether enough pings went without an answer for silence to be no accident on paths as lossy as those here. */
  #isEnough(node: Node): boolean {
    // Where its channel has ended silence is no accident. Of one that never had any, dials that failed count.
    if (!node.channel && node.hint !== "none") return true;
    if (node.attempts + (node.channel ? 0 : node.nacks) < OWN_ATTEMPTS) return false;
    if (!node.channel) return true;
    if (node.hint === "gone") return true;
    let total = node.attempts + node.nacks * WEIGHT.nack;
    for (const one of this.#freshAccusers(node)) total += one.weight;
    return total >= this.#stats.attemptsNeeded();
  }

  /** Three others call it dead, each after what this node would ask of itself, and it is silent here too. */
  #isAgreed(node: Node): boolean {
    return node.attempts >= OWN_ATTEMPTS && this.#accusersOfDeath(node) >= ACCUSERS;
  }

  #work(): void {
    const nowMs = this.#nowMs;
    let wakeMs = Infinity;
    for (const seq of this.#open) {
      const ping = this.#pings.get(seq)!;
      const { relay } = ping;
      if (relay && relay.nackMs <= nowMs) {
        this.#send(relay.to, { type: "nack", seq: relay.seq, tried: true });
        relay.nackMs = Infinity;
      }
      if (!ping.counted && ping.dueMs <= nowMs) {
        ping.counted = true;
        const node = this.#nodes.get(ping.target);
        if (node && node.answeredMs < ping.sentMs) node.attempts++;
      }
      if (ping.counted && !(relay && relay.nackMs < Infinity)) this.#open.delete(seq);
    }
    for (const node of this.#busy) {
      if (node.expectedMs <= nowMs) {
        node.expectedMs = Infinity;
        if (node.state !== "dead") this.#probe(node);
      }
    }
    for (const probe of [...this.#probes.values()]) if (probe.dueMs <= nowMs) this.#missed(probe);
    if (this.#tickMs <= nowMs) this.#interval();
    this.#silent = 0;
    for (const node of this.#busy) {
      if (node.suspicion) this.#pursue(node, node.suspicion);
      if (node.deathAnnounceMs <= nowMs) this.#announceDeath(node);
      if (node.suspicion) wakeMs = Math.min(wakeMs, this.#pursueMs(node, node.suspicion));
      if (node.askMs <= nowMs) this.#ask(node);
      const dueMs = Math.min(node.expectedMs, node.deathAnnounceMs, node.askMs);
      if (!node.suspicion && dueMs === Infinity) this.#busy.delete(node);
      wakeMs = Math.min(wakeMs, dueMs);
    }
    if (this.#silent >= SWEEP_SUSPECTS) this.#sweep((one) => one.state === "alive");
    for (const seq of this.#open) {
      const { dueMs, counted, relay } = this.#pings.get(seq)!;
      wakeMs = Math.min(wakeMs, counted ? Infinity : dueMs, relay?.nackMs ?? Infinity);
    }
    for (const probe of this.#probes.values()) wakeMs = Math.min(wakeMs, probe.dueMs);
    for (const [seq, probe] of this.#recent) {
      if (nowMs - probe.sentMs <= LATE_MS) break;
      this.#recent.delete(seq);
    }
    for (const [seq, ping] of this.#pings) {
      if (nowMs - ping.sentMs <= LATE_MS) break;
      this.#forgetPing(seq);
    }
    this.#wakeMs = Math.max(nowMs, Math.min(wakeMs, this.#tickMs));
  }

  /** A suspicion goes on: tell, ask again, decide. */
  #pursue(node: Node, suspicion: Suspicion): void {
    const nowMs = this.#nowMs;
    if (!suspicion.announced && suspicion.announceMs <= nowMs) {
      suspicion.announced = true;
      // Lifeguard: what the first few say is passed on, more of the same is not.
      if (this.#freshAccusers(node).length < ACCUSERS) {
        this.#tell({ kind: "suspect", subject: node.id, incarnation: node.incarnation }, node.id);
      }
    }
    if (node.channel && suspicion.nextPingMs <= nowMs) {
      suspicion.pings++;
      this.#ping(node, 0);
      suspicion.nextPingMs = nowMs +
        (suspicion.pings < FAST_PINGS
          ? (node.hint === "gone" ? GONE_PING_MS : Math.max(FAST_PING_MS, Math.floor(this.#answerMs(node) / 2)))
          : this.#intervalMs);
    }
    if (node.attempts >= OWN_ATTEMPTS) this.#silent++;
    const isDue = this.#deadlineMs(node, suspicion) <= nowMs && this.#isEnough(node);
    if (!isDue && !this.#isAgreed(node)) return;
    node.suspicion = undefined;
    this.#announce(node, this.#accusersOfDeath(node) === 0 ? 0 : this.#rng.below(SPREAD_MS));
    this.#setState(node, "dead", node.hint === "gone" ? "its process is gone" : "it does not answer");
  }

  #pursueMs(node: Node, suspicion: Suspicion): number {
    const deadlineMs = this.#deadlineMs(node, suspicion);
    // Past the deadline pings that go unanswered decide, and each of them wakes this node by itself.
    let wakeMs = deadlineMs > this.#nowMs ? deadlineMs : Infinity;
    if (!suspicion.announced) wakeMs = Math.min(wakeMs, suspicion.announceMs);
    return node.channel ? Math.min(wakeMs, suspicion.nextPingMs) : wakeMs;
  }

  /** Fewer than three have said that a node without a channel is dead: what do others say? */
  #ask(node: Node): void {
    const [accuser] = node.accusers.keys();
    node.askMs = Infinity;
    if (node.state === "dead" || node.channel || !accuser || node.asks++ >= ASKS) return;
    node.askMs = this.#nowMs + ASK_MS;
    const update = { kind: "dead", subject: node.id, incarnation: node.incarnation, accuser } as const;
    for (const helper of this.#helpers(node)) this.#send(helper.id, { type: "news", updates: [update] });
  }

  /** Some, drawn, that answer this node and may know more of another. */
  #helpers(node: Node): Node[] {
    const able = [...this.#nodes.values()].filter((one) =>
      one.channel && one.state === "alive" && one.id !== node.id && one.reachable
    );
    const helpers: Node[] = [];
    while (helpers.length < HELPERS && able.length > 0) {
      helpers.push(...able.splice(this.#rng.below(able.length), 1));
    }
    return helpers;
  }

  /** Tells of a death after a time, unless three have by then. */
  #announce(node: Node, afterMs: number): void {
    node.deathAnnounceMs = this.#nowMs + afterMs;
    this.#busy.add(node);
  }

  #announceDeath(node: Node): void {
    node.deathAnnounceMs = Infinity;
    if (node.state !== "dead" || this.#accusersOfDeath(node) > ACCUSERS) return;
    // It hears of it too: should it live, it says so.
    this.#tell({ kind: "dead", subject: node.id, incarnation: node.incarnation }, "");
  }

  /** Regular probes. */
  #interval(): void {
    const everyMs = this.#intervalMs * (1 + this.#awareness);
    this.#tickMs = this.#nowMs + everyMs;
    const neighbour = this.#neighbour();
    // An answer to something else is as good as one to a ping.
    if (neighbour && this.#nowMs - neighbour.answeredMs > everyMs / 2) this.#probe(neighbour, everyMs);
    if (++this.#tick % ROUND_ROBIN_EVERY !== 0) return;
    const doubt = this.#doubtful();
    const other = this.#nextInRound();
    if (doubt && other) this.#send(other.id, { type: "news", updates: [doubt] });
    if (!other || other === neighbour || this.#nowMs - other.answeredMs <= everyMs) return;
    // Who is dead and has a channel may have stood still only.
    if (other.state === "dead") this.#ping(other, 0);
    else this.#probe(other);
  }

  /**
   * One of those that this node calls dead on the word of others: whoever knows better tells the node itself, whose
   * refutation may have been lost on the way here.
   */
  #doubtful(): SwimUpdate | undefined {
    const doubtful: SwimUpdate[] = [];
    for (const { id, state, channel, incarnation, accusers } of this.#nodes.values()) {
      if (state !== "dead" || channel) continue;
      const [accuser] = accusers.keys();
      if (accuser) doubtful.push({ kind: "dead", subject: id, incarnation, accuser });
    }
    return doubtful.length > 0 ? doubtful[this.#rng.below(doubtful.length)] : undefined;
  }

  /** The next living node on the ring of handles that a channel is open to. */
  #neighbour(): Node | undefined {
    let first: Node | undefined;
    let next: Node | undefined;
    for (const node of this.#nodes.values()) {
      // A suspect is pinged anyway; who stands behind it is not left unwatched meanwhile.
      if (!node.channel || node.state === "dead" || node.suspicion) continue;
      if (!first || node.id < first.id) first = node;
      if (node.id > this.#self && (!next || node.id < next.id)) next = node;
    }
    return next ?? first;
  }

  /** Round-robin in random order, another one each round; newcomers stand at random places (SWIM, section 4.3). */
  #nextInRound(): Node | undefined {
    const wanted = (node: Node) =>
      !node.suspicion && node.channel || node.watched && node.state !== undefined && node.state !== "dead";
    const listed = new Set(this.#round);
    for (const node of this.#nodes.values()) {
      if (!wanted(node) || listed.has(node.id)) continue;
      // Behind those of this round, or among them: a full round passes before anybody has its second turn.
      this.#round.splice(this.#rng.below(this.#round.length + 1), 0, node.id);
    }
    for (;;) {
      const id = this.#round.shift();
      if (id === undefined) return undefined;
      const node = this.#nodes.get(id);
      if (node && wanted(node)) return node;
    }
  }

  #ping(node: Node, nextMs: number, relay?: Ping["relay"]): number {
    const seq = this.#nextSeq();
    this.#send(node.id, {
      type: "ping",
      seq,
      incarnation: this.#incarnation,
      nextMs,
      updates: this.#piggyback(node),
    });
    this.#pings.set(seq, {
      target: node.id,
      sentMs: this.#nowMs,
      doubted: node.state === "suspect" || node.state === "dead",
      dueMs: this.#nowMs + this.#timeoutMs(node),
      counted: false,
      ...(relay ? { relay } : {}),
    });
    this.#open.add(seq);
    if (this.#pings.size > LIMITS.swimPingsMax) this.#forgetPing(this.#pings.keys().next().value!);
    return seq;
  }

  #forgetPing(seq: number): void {
    this.#pings.delete(seq);
    this.#open.delete(seq);
  }

  #isPinged(node: Node): boolean {
    for (const seq of this.#open) {
      const ping = this.#pings.get(seq)!;
      if (ping.target === node.id && !ping.counted) return true;
    }
    return false;
  }

  #nextSeq(): number {
    this.#seq = (this.#seq + 1) & SEQ_MAX;
    return this.#seq;
  }

  /** News for a message; who is suspected hears of it first (Lifeguard's buddy system). */
  #piggyback(node: Node): SwimUpdate[] {
    const updates: SwimUpdate[] = [];
    if (node.suspicion?.announced || node.state === "dead") {
      updates.push({
        kind: node.state === "dead" ? "dead" : "suspect",
        subject: node.id,
        incarnation: node.incarnation,
      });
    }
    updates.push(...this.#news.take(this.#retransmitMax(), PIGGYBACK, node.id));
    return updates;
  }

  /** memberlist: RetransmitMult · ⌈log10(n + 1)⌉. */
  #retransmitMax(): number {
    return 4 * String(this.#members.size + 1).length;
  }

  /** Tells everybody: over the channels at once, by publication where there are members without one. */
  #tell(update: SwimUpdate, except: string): void {
    let channels = 0;
    for (const node of this.#nodes.values()) {
      if (!node.channel) continue;
      channels++;
      if (node.id !== except && (node.state !== "dead" || node.id === update.subject)) {
        this.#send(node.id, { type: "news", updates: [update] });
      }
    }
    this.#news.add(update);
    // A suspicion is a matter of those that can look for themselves.
    if (update.kind !== "suspect" && channels < this.#members.size) this.#emit({ type: "publish", updates: [update] });
  }

  /** Time within which an answer is to be expected; of a node that never answered yet, what the others take. */
  #answerMs(node: Node): number {
    return (node.rtt.isKnown ? node.rtt : this.#rtt).timeoutMs();
  }

  /** The same for a probe: a node that has reason to doubt itself waits longer (Lifeguard: local health). */
  #timeoutMs(node: Node): number {
    return this.#answerMs(node) * (1 + this.#awareness);
  }

  #aware(change: number): void {
    this.#awareness = Math.min(AWARENESS_MAX, Math.max(0, this.#awareness + change));
  }

  #setState(node: Node, state: SwimState, reason: string): void {
    if (node.state === state) return;
    if (node.state === "dead") this.#deadCount--;
    if (state === "dead") this.#deadCount++;
    node.state = state;
    this.#observe(node, reason);
  }

  #observe(node: Node, reason: string): void {
    this.#emit({ type: "observe", id: node.id, state: node.state!, reachable: node.reachable, reason });
  }

  /** The row of a member; `undefined` for whom is none. */
  #node(id: string): Node | undefined {
    const known = this.#nodes.get(id);
    if (known || !this.#members.has(id)) return known;
    const node = newNode(id);
    this.#nodes.set(id, node);
    return node;
  }

  #send(to: string, message: SwimMessage): void {
    this.#emit({ type: "send", to, message });
  }

  #emit(...effects: readonly SwimEffect[]): void {
    this.#effects.push(...effects);
  }
}
