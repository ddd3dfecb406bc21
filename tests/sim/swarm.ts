/**
 * One run of the simulator: a network whose shape, weather and accidents follow from a seed; first safety under
 * faults, then liveness once they stop.
 *
 * @module
 */

import { publicKeyOf } from "../../src/core/ids.ts";
import { type Rng, seededRng, shuffled } from "../../src/core/rng.ts";
import { Checkers } from "./checkers.ts";
import { type Host, World, WORLD_START_MS } from "./world.ts";

/** Options of {@linkcode runSwarm}. */
export interface SwarmOptions {
  readonly seed: number;
  /** Machines, at least 2. @default 3 to 6, from the seed */
  readonly nodes?: number;
  /** Accidents before the weather clears. @default 10 to 30, from the seed */
  readonly steps?: number;
  /** A further checker after every step of an agent. */
  readonly check?: (host: Host) => void;
}

/** What a run came to. */
export interface SwarmResult {
  readonly seed: number;
  readonly nodes: number;
  readonly issuers: number;
  readonly accidents: readonly string[];
  readonly traceHash: string;
  readonly agentSteps: number;
  /** Simulated time under faults and until all saw each other. */
  readonly faultsMs: number;
  readonly healMs: number;
  readonly stepsPerSecondMax: number;
}

/** Within this time after the last fault every node is verified and sees every other one. */
export const HEAL_WITHIN_MS = 10 * 60_000;

/** Runs one seed. @throws {Error} Where a checker fails or the network does not come together again. */
export function runSwarm(options: SwarmOptions): SwarmResult {
  const { seed } = options;
  const rng = seededRng(seed ^ 0x5eed);
  const nodes = options.nodes ?? 3 + rng.below(4);
  const steps = options.steps ?? 10 + rng.below(21);
  const checkers = new Checkers();
  const world = new World({
    seed,
    latencyMs: [{ min: 1, max: 5 }, { min: 1, max: 60 }, { min: 20, max: 800 }][rng.below(3)]!,
    lossPpm: [0, 20_000, 150_000][rng.below(3)]!,
    lan: rng.below(2) === 0,
    check: (host) => {
      checkers.check(host);
      options.check?.(host);
    },
  });
  checkers.world = world;
  const accidents: string[] = [];
  // Where credentials last an hour only, they run out behind partitions and while machines are off.
  const credentialLifetimeMs = rng.below(3) === 0 ? 3_600_000 : 86_400_000;
  try {
    const hosts = Array.from({ length: nodes }, (_, i) =>
      world.addHost(`n${i}`, {
        // Within what the protocol says of honest clocks: five minutes between any two.
        clockOffsetMs: rng.below(2) === 0 ? 0 : rng.below(120_000) - 60_000,
        driftPpm: rng.below(3) === 0 ? rng.below(200) - 100 : 0,
        config: { credentialLifetimeMs },
      }));
    const [founder, ...others] = hosts as [Host, ...Host[]];
    world.boot(founder);
    world.ask(founder, { verb: "init", name: "forest", approval: false });
    world.run(1_000);
    const approval = rng.below(4) === 0;
    const token = (role: "sclerotium" | undefined, uses: number) => {
      const given = world.ask<{ token: string; id: string }>(founder, {
        verb: "invite-create",
        uses,
        approval,
        ...(role ? { role } : {}),
      });
      checkers.uses.set(given.id, uses);
      return given.token;
    };
    const sclerotia = rng.below(Math.min(4, others.length) + 1);
    const tokens = [
      ...(sclerotia > 0 ? Array.from({ length: sclerotia }, ((t) => () => t)(token("sclerotium", sclerotia))) : []),
      ...(others.length > sclerotia
        ? Array.from(
          { length: others.length - sclerotia },
          ((t) => () => t)(token(undefined, others.length - sclerotia)),
        )
        : []),
    ];
    const joins = new Map(others.map((host, i) => [host, tokens[i]!]));
    const asked = new Set<Host>();
    const ask = (host: Host) => {
      if (!host.agent) world.boot(host);
      world.dispatch(host, {
        type: "control",
        nowMs: world.local(host),
        controlId: 0,
        request: { verb: "join", invite: joins.get(host)! },
      });
      asked.add(host);
    };
    const approve = () => {
      if (!founder.agent) return;
      for (const one of founder.view.state.pending.values()) {
        if (one.decision !== "waiting") continue;
        world.dispatch(founder, {
          type: "control",
          nowMs: world.local(founder),
          controlId: 0,
          request: { verb: "node-approve", node: one.nodeId },
        });
      }
    };
    const startMs = world.nowMs;
    const waiting = shuffled(others, rng);
    const removed = new Set<Host>();
    const remove = () => {
      const victim = others[rng.below(others.length)]!;
      const by = hosts.filter((host) =>
        host.agent && host !== victim && host.view.state.isIssuer && !removed.has(host)
      );
      const issuer = by[rng.below(Math.max(1, by.length))];
      if (removed.size > 0 || !victim.nodeId || !issuer?.view.state.members.get(victim.nodeId)) return "nothing";
      removed.add(victim);
      world.dispatch(issuer, {
        type: "control",
        nowMs: world.local(issuer),
        controlId: 0,
        request: { verb: "node-remove", node: victim.nodeId },
      });
      return `${issuer.name} removes ${victim.name}`;
    };
    for (let i = 0; i < steps; i++) {
      // Joins come in between the accidents; some wait until the weather is clear.
      if (waiting.length > 0 && rng.below(2) === 0) {
        accidents.push(`join ${waiting.at(-1)!.name}`);
        ask(waiting.pop()!);
      } else if (rng.below(20) === 0) accidents.push(remove());
      else accidents.push(accident(world, hosts, checkers, rng));
      const long = credentialLifetimeMs === 3_600_000 && rng.below(15) === 0;
      world.run(long ? 4_200_000 : [200, 2_000, 10_000, 40_000, 120_000][rng.below(5)]! + rng.below(1_000));
      approve();
    }
    accidents.push("clear");
    world.heal();
    world.lossPpm = 0;
    world.latencyMs = { min: 1, max: 20 };
    for (const host of hosts) {
      host.diesAfter = undefined;
      if (!host.agent) world.boot(host);
      // What is not durable is not promised: whoever lost the invite before it was stored is asked again.
      if (host !== founder && !host.view.state.network) ask(host);
    }
    const faultsMs = world.nowMs - startMs;
    // A removal that its issuer had not stored when it died never was.
    for (const host of removed) {
      if (!hosts.some((other) => other !== host && revokes(other, host))) removed.delete(host);
    }
    const stay = hosts.filter((host) => !removed.has(host));
    let approveMs = 0;
    const together = () => {
      if (approval && world.nowMs >= approveMs) {
        approveMs = world.nowMs + 1_000;
        approve();
      }
      return stay.every((host) => sees(host, stay)) &&
        [...removed].every((host) => stay.every((other) => revokes(other, host)));
    };
    const healMs = world.until("all verified, all see each other", together, HEAL_WITHIN_MS);
    // And it stays so: nothing flaps, nothing spins.
    const before = world.steps;
    world.run(120_000);
    if (!stay.every((host) => sees(host, stay))) throw new Error(`It does not last\n${world.describe()}`);
    const idle = (world.steps - before) / hosts.length / 120;
    if (idle > 5) {
      throw new Error(
        `${idle.toFixed(1)} steps a second and node while nothing happens\n${world.describe()}\n${world.recent()}`,
      );
    }
    return {
      seed,
      nodes,
      issuers: founder.view.state.network!.chain!.issuers.length,
      accidents,
      traceHash: world.traceHash(),
      agentSteps: world.steps,
      faultsMs,
      healMs,
      stepsPerSecondMax: Math.max(...hosts.map((host) => host.stepsPerSecondMax)),
    };
  } catch (error) {
    const at = world.nowMs - WORLD_START_MS;
    const flags = (options.nodes ? ` --nodes=${options.nodes}` : "") +
      (options.steps ? ` --steps=${options.steps}` : "");
    throw new Error(
      `Seed ${seed} failed at ${at} ms; replay it with: deno task sim --seed=${seed}${flags}\n` +
        `accidents: ${accidents.join("; ")}\n${error instanceof Error ? error.message : error}`,
      { cause: error },
    );
  }
}

/** Whether a host is verified and has a session with every other one. */
export function sees(host: Host, hosts: readonly Host[]): boolean {
  if (!host.agent || host.view.stage !== "verified") return false;
  const { sessions, state } = host.view;
  return hosts.every((other) =>
    other === host ||
    other.agent !== undefined && state.members.get(other.nodeId) !== undefined &&
      sessions.get(other.nodeId)?.member === true
  );
}

/** Whether a host counts another one as removed. */
function revokes(host: Host, other: Host): boolean {
  const key = publicKeyOf(other.nodeId);
  return host.agent !== undefined && key !== undefined && host.view.state.revocations.get("node", key) !== undefined;
}

function accident(world: World, hosts: readonly Host[], checkers: Checkers, rng: Rng): string {
  const one = hosts[rng.below(hosts.length)]!;
  const up = hosts.filter((host) => host.agent);
  const part = () => {
    if (hosts.some((host) => host.agent && host.view.state.isIssuer)) checkers.issuersParted = true;
  };
  switch (rng.below(10)) {
    case 0: {
      part();
      if (!one.agent) {
        world.boot(one);
        return `boot ${one.name}`;
      }
      world.crash(one, rng.below(2) === 0);
      return `crash ${one.name}`;
    }
    case 1:
      part();
      if (one.agent) world.restart(one);
      return `restart ${one.name}`;
    case 2: {
      part();
      // Dies between two effects of some step soon.
      if (one.agent) one.diesAfter = rng.below(30);
      return `${one.name} dies soon`;
    }
    case 3: {
      part();
      const side = hosts.filter(() => rng.below(2) === 0);
      world.cut(side, hosts.filter((host) => !side.includes(host)));
      return `partition ${side.map((host) => host.name).join(" ")}`;
    }
    case 4: {
      part();
      const side = hosts.filter(() => rng.below(2) === 0);
      world.cut(side, hosts.filter((host) => !side.includes(host)), true);
      return `one-way partition from ${side.map((host) => host.name).join(" ")}`;
    }
    case 5:
    case 6:
      world.heal();
      return "heal";
    case 7: {
      const [a, b] = shuffled(up, rng);
      if (a && b) world.sever(a, b);
      return a && b ? `sever ${a.name} ${b.name}` : "nothing";
    }
    case 8:
      for (const host of hosts) if (!host.agent) world.boot(host);
      return "boot all";
    default:
      if (one.agent) {
        world.dispatch(one, {
          type: "control",
          nowMs: world.local(one),
          controlId: 0,
          request: { verb: "bootstrap-retry" },
        });
      }
      return `retry ${one.name}`;
  }
}
