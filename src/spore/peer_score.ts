/**
 * Peer scores: what a node thinks of the nodes that it gossips with, from what it saw itself.
 *
 * They are GossipSub's (v1.1), with integers in place of floats, over all topics together, and decay that is
 * reckoned when somebody asks, so that an idle node need not wake for it. They are never told to others: trust
 * scores are another thing.
 *
 * | part | what counts | weight |
 * | --- | --- | --- |
 * | P1 | minutes in a mesh, up to 10 | +1 |
 * | P2 | valid messages that it was the first to bring, up to 40 | +1 |
 * | P3 | messages that had to be asked for elsewhere while it was an eager link, less what it brought, past 4 | −1 on the square |
 * | P3b | what P3 stood at when it was pruned for it | −1 |
 * | P4 | invalid messages | −20 on the square |
 * | P7 | broken promises, early grafts, floods, past 3 | −5 on the square |
 *
 * P5 and P6 are not used: members are admitted by invite, not by address.
 *
 * @module
 */

/** Below: no links of the mesh. */
export const MESH_THRESHOLD = 0;
/** Below: announcements are neither sent nor followed. */
export const GOSSIP_THRESHOLD = -10;
/** Below: own messages are not sent there. */
export const PUBLISH_THRESHOLD = -30;
/** Below: everything that comes from there is dropped unread. */
export const GRAYLIST_THRESHOLD = -60;
/** Where the median of a mesh is below, better peers are grafted beside it. */
export const OPPORTUNISTIC_GRAFT_THRESHOLD = 1;

/** Thousandths per unit of a counter. */
const UNIT = 1_000;
const DECAY_EVERY_MS = 10_000;
const P1_QUANTUM_MS = 60_000;
const P1_MAX = 10;
const P2_MAX = 40;
const P3_SLACK = 4;
/** A link of the mesh answers for what it did not bring after so long. */
export const P3_ACTIVATION_MS = 10_000;
const P4_WEIGHT = 20;
const P7_WEIGHT = 5;
const P7_SLACK = 3;
/** What no counter exceeds: its square and the sums over all parts stay far within safe integers. */
const COUNTER_MAX = 1_000;

/** What a score is made of, in thousandths. */
interface Counters {
  firstDeliveries: number;
  meshDeliveries: number;
  missed: number;
  failures: number;
  invalid: number;
  behaviour: number;
}

/** Share that each counter keeps per decay interval, thousandths: half-lives of 65 s, 6 min and 12 min. */
const DECAY: Readonly<Record<keyof Counters, number>> = {
  firstDeliveries: 980,
  meshDeliveries: 900,
  missed: 900,
  failures: 980,
  invalid: 990,
  behaviour: 980,
};
const NAMES = Object.keys(DECAY) as (keyof Counters)[];

/** What one node thinks of another. */
export class PeerScore {
  readonly #counters: Counters = {
    firstDeliveries: 0,
    meshDeliveries: 0,
    missed: 0,
    failures: 0,
    invalid: 0,
    behaviour: 0,
  };
  #decayedMs: number;
  /** Since when it is in some mesh without a break; `undefined`: it is in none. */
  meshSinceMs: number | undefined;

  constructor(nowMs: number) {
    this.#decayedMs = nowMs;
  }

  /** P2: it was the first to bring a valid message. */
  first(nowMs: number): void {
    this.#add("firstDeliveries", nowMs, P2_MAX);
    this.near(nowMs);
  }

  /** It brought or announced a message in time, if not as the first. */
  near(nowMs: number): void {
    this.#add("meshDeliveries", nowMs);
  }

  /** P3: as an eager link it should have brought what had to be asked for elsewhere. */
  missed(nowMs: number): void {
    this.#add("missed", nowMs);
  }

  /** P3b: it is pruned from a mesh; a deficit outlives that. */
  pruned(nowMs: number): void {
    this.#decay(nowMs);
    const deficit = this.#deficit();
    this.#counters.failures = Math.min(COUNTER_MAX * UNIT, this.#counters.failures + deficit * deficit * UNIT);
    this.#counters.missed = 0;
  }

  /** P4: it sent an invalid message. */
  invalid(nowMs: number): void {
    this.#add("invalid", nowMs);
  }

  /** P7: it broke the rules of gossip. */
  misbehaved(nowMs: number, times = 1): void {
    this.#add("behaviour", nowMs, COUNTER_MAX, times);
  }

  /** It gave what it had announced: where much is lost on the way, promises are broken by nobody's fault. */
  keptPromise(nowMs: number): void {
    this.#decay(nowMs);
    this.#counters.behaviour = Math.max(0, this.#counters.behaviour - UNIT);
  }

  /** The score in points. */
  value(nowMs: number): number {
    this.#decay(nowMs);
    const { firstDeliveries, failures, invalid, behaviour } = this.#counters;
    const inMeshMs = this.meshSinceMs === undefined ? 0 : nowMs - this.meshSinceMs;
    const p1 = Math.min(P1_MAX, Math.floor(inMeshMs / P1_QUANTUM_MS));
    const p2 = Math.floor(firstDeliveries / UNIT);
    const p3 = this.#deficit();
    const p3b = Math.floor(failures / UNIT);
    // Rounded up: one invalid message counts until its last trace is gone.
    const p4 = Math.ceil(invalid / UNIT);
    const p7 = Math.max(0, Math.ceil(behaviour / UNIT) - P7_SLACK);
    return p1 + p2 - p3 * p3 - p3b - P4_WEIGHT * p4 * p4 - P7_WEIGHT * p7 * p7;
  }

  #deficit(): number {
    const { missed, meshDeliveries } = this.#counters;
    return Math.max(0, Math.floor((missed - meshDeliveries) / UNIT) - P3_SLACK);
  }

  #add(name: keyof Counters, nowMs: number, max = COUNTER_MAX, times = 1): void {
    this.#decay(nowMs);
    this.#counters[name] = Math.min(max * UNIT, this.#counters[name] + times * UNIT);
  }

  #decay(nowMs: number): void {
    const intervals = Math.floor((nowMs - this.#decayedMs) / DECAY_EVERY_MS);
    if (intervals <= 0) return;
    this.#decayedMs += intervals * DECAY_EVERY_MS;
    for (const name of NAMES) {
      let value = this.#counters[name];
      // Rounding down takes what is left to nothing in the end.
      for (let i = 0; i < intervals && value > 0; i++) value = Math.floor(value * DECAY[name] / 1_000);
      this.#counters[name] = value;
    }
  }
}
