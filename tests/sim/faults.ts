/**
 * What can go wrong in a simulated network.
 *
 * @module
 */

import { LOCAL } from "../../src/agent/access.ts";
import type { Rng } from "../../src/core/rng.ts";
import { shuffled } from "../../src/core/rng.ts";
import type { Checkers } from "./checkers.ts";
import type { Host, World } from "./world.ts";

/** Kinds of faults, for `--faults`. */
export const FAULTS = [
  /** Messages are sent again, datagrams are gone. */
  "loss",
  /** Up to 60 or 800 ms on the way, so that messages overtake each other. */
  "delay",
  /** Datagrams arrive twice. */
  "repeat",
  /** A few messages take up to two seconds more. */
  "late",
  /** Two halves that do not hear each other. */
  "partition",
  /** One half does not hear the other. */
  "one-way",
  /** A channel closes. */
  "sever",
  /** A program dies, noticed at once or by silence. */
  "crash",
  /** A program dies between two effects of a step. */
  "die",
  /** Disks take time: what was not stored yet when a program dies is gone. */
  "disk",
  /** A machine gets a new disk, and comes back as somebody else. */
  "wipe",
  /** Clocks run at different speeds, and are up to a minute off. */
  "drift",
  /** A clock is set, by up to a minute. */
  "jump",
  /** Credentials live for a quarter of an hour, and time passes. */
  "expiry",
  /** A member is removed. */
  "remove",
  /** One member lies. */
  "byzantine",
] as const;

/** A kind of fault. */
export type Fault = typeof FAULTS[number];

/** Furthest that a clock is from the world's, both signs: the protocols allow five minutes between any two. */
const CLOCK_OFF_MS_MAX = 60_000;

/** The faults of a run: given, or each one as likely as not. */
export function faultsOf(rng: Rng, given: readonly Fault[] | undefined): ReadonlySet<Fault> {
  const drawn = FAULTS.filter((fault) => rng.below(fault === "byzantine" || fault === "expiry" ? 6 : 5) < 3);
  const long = rng.below(8) === 0;
  // A quarter of an hour of lies takes minutes, and shows no more than two minutes of them.
  return new Set(given ?? drawn.filter((fault) => fault === "expiry" ? long : fault !== "byzantine" || !long));
}

/** One accident of these kinds. Returns what happened. */
export function accident(
  options: {
    readonly world: World;
    readonly hosts: readonly Host[];
    readonly checkers: Checkers;
    readonly faults: ReadonlySet<Fault>;
    readonly rng: Rng;
    /** A machine with an empty disk is asked to join again. */
    readonly wiped: (host: Host) => boolean;
  },
): string {
  const { world, hosts, checkers, faults, rng } = options;
  const one = hosts[rng.below(hosts.length)]!;
  const up = hosts.filter((host) => host.agent);
  const part = () => {
    if (hosts.some((host) => host.agent && host.view.state.isIssuer)) checkers.issuersParted = true;
  };
  // The leader alone, or any half: what two leaders do wrong shows where clients still ask the old one.
  const half = () => {
    const leader = hosts.filter((host) => host.agent && host.view.primary?.role === "leader");
    return rng.below(2) === 0 && leader.length > 0 ? leader : hosts.filter(() => rng.below(2) === 0);
  };
  const kinds = (["partition", "one-way", "sever", "crash", "crash", "die", "wipe", "jump"] as const)
    .filter((kind) => faults.has(kind));
  const kind = kinds[rng.below(kinds.length + 3)];
  switch (kind) {
    case "partition":
    case "one-way": {
      part();
      const side = half();
      world.cut(side, hosts.filter((host) => !side.includes(host)), kind === "one-way");
      return `${kind} ${side.map((host) => host.name).join(" ")}`;
    }
    case "sever": {
      const [a, b] = shuffled(up, rng);
      if (a && b) world.sever(a, b);
      return a && b ? `sever ${a.name} ${b.name}` : "nothing";
    }
    case "crash": {
      part();
      if (!one.agent) {
        world.boot(one);
        return `boot ${one.name}`;
      }
      if (rng.below(2) === 0) {
        world.restart(one);
        return `restart ${one.name}`;
      }
      world.crash(one, rng.below(2) === 0);
      return `crash ${one.name}`;
    }
    case "die": {
      part();
      if (one.agent) one.diesAfter = rng.below(30);
      return `${one.name} dies soon`;
    }
    case "wipe":
      part();
      return options.wiped(one) ? `${one.name} loses its disk` : "nothing";
    case "jump": {
      const ms = rng.below(2 * CLOCK_OFF_MS_MAX) - CLOCK_OFF_MS_MAX;
      world.jumpClock(one, ms - one.clockOffsetMs);
      return `the clock of ${one.name} is set ${ms} ms off`;
    }
    default:
      break;
  }
  if (rng.below(3) === 0) {
    for (const host of hosts) if (!host.agent) world.boot(host);
    return "boot all";
  }
  if (rng.below(3) === 0 && one.agent) {
    world.dispatch(one, {
      type: "control",
      by: LOCAL,
      nowMs: world.local(one),
      controlId: 0,
      request: { verb: "bootstrap-retry" },
    });
    return `retry ${one.name}`;
  }
  world.heal();
  return "heal";
}
