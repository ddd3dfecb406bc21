/**
 * One run of the simulator: a network whose shape, weather, accidents and clients follow from a seed; first safety
 * under faults, then liveness once they stop.
 *
 * @module
 */

import { LOCAL } from "../../src/agent/access.ts";
import { nodeIdOf, publicKeyOf } from "../../src/core/ids.ts";
import { type Rng, seededRng, shuffled } from "../../src/core/rng.ts";
import { Byzantine } from "./byzantine.ts";
import { Checkers } from "./checkers.ts";
import { Clients } from "./clients.ts";
import { accident, type Fault, faultsOf } from "./faults.ts";
import type { HistoryLine } from "./history.ts";
import { checkLinearizable } from "./linearizable.ts";
import { Notes } from "./notes.ts";
import { Records } from "./records.ts";
import { type Host, World } from "./world.ts";

/** Options of {@linkcode runSwarm}. */
export interface SwarmOptions {
  readonly seed: number;
  /** Machines, at least 2. @default 3 to 100, from the seed: most runs are small */
  readonly nodes?: number;
  /** Accidents before the weather clears. @default 8 to 18, from the seed; at most 10 in large networks */
  readonly steps?: number;
  /** Kinds of faults. @default some of them, from the seed */
  readonly faults?: readonly Fault[];
  /** A further checker after every step of an agent. */
  readonly check?: (host: Host) => void;
}

/** What a run came to. */
export interface SwarmResult {
  readonly seed: number;
  readonly nodes: number;
  readonly issuers: number;
  readonly faults: readonly Fault[];
  readonly accidents: readonly string[];
  readonly traceHash: string;
  readonly agentSteps: number;
  /** Simulated time under faults and until all was whole. */
  readonly faultsMs: number;
  readonly healMs: number;
  readonly stepsPerSecondMax: number;
  /** Of the Primary Spore: elections won, entries committed, answers that clients got. */
  readonly elections: number;
  readonly committed: number;
  readonly answered: number;
  /** What the liar altered or made up. */
  readonly lies: number;
  /** Records of the Latent Spore that were acknowledged. */
  readonly records: number;
  /** Notes that were decided and acknowledged. */
  readonly notes: number;
  /** What the clients did and were told. */
  readonly history: readonly HistoryLine[];
}

/** Within this time after the last fault all are verified, see each other, agree and hold the same records. */
export const HEAL_WITHIN_MS = 10 * 60_000;

/** Steps of an agent in a second while nothing happens. */
const IDLE_STEPS_MAX = 15;

/** Runs one seed. @throws {Error} Where a checker fails or the network does not come together again. */
export function runSwarm(options: SwarmOptions): SwarmResult {
  const run = new Run(options);
  try {
    return run.run();
  } catch (error) {
    const flags = (options.nodes ? ` --nodes=${options.nodes}` : "") +
      (options.steps ? ` --steps=${options.steps}` : "") +
      (options.faults ? ` --faults=${options.faults.join(",") || "none"}` : "");
    throw new Error(
      `Seed ${options.seed} failed at ${run.world.sinceMs} ms; replay it with: ` +
        `deno task sim --seed=${options.seed}${flags}\n` +
        `faults: ${[...run.faults].join(" ")}\naccidents: ${run.accidents.join("; ")}\n${
          error instanceof Error ? error.message : error
        }`,
      { cause: error },
    );
  }
}

class Run {
  readonly world: World;
  readonly faults: ReadonlySet<Fault>;
  readonly accidents: string[] = [];
  readonly #seed: number;
  readonly #rng: Rng;
  readonly #steps: number;
  readonly #checkers = new Checkers();
  readonly #clients: Clients;
  readonly #records: Records;
  readonly #notes: Notes;
  readonly #hosts: readonly Host[];
  readonly #founder: Host;
  readonly #joins = new Map<Host, string>();
  readonly #removed = new Set<Host>();
  readonly #approval: boolean;
  readonly #expiry: boolean;
  #wipes = 0;
  #wipedIssuer = false;
  #liar: { readonly host: Host; readonly byzantine: Byzantine } | undefined;

  constructor(options: SwarmOptions) {
    const { seed } = options;
    const rng = this.#rng = seededRng(seed ^ 0x5eed);
    this.#seed = seed;
    const nodes = options.nodes ?? drawNodes(rng);
    const steps = 8 + rng.below(11);
    this.#steps = options.steps ?? (nodes > 30 ? Math.min(steps, 10) : steps);
    const faults = this.faults = faultsOf(rng, options.faults);
    const delay = [{ min: 1, max: 60 }, { min: 1, max: 60 }, { min: 20, max: 800 }][rng.below(3)]!;
    let stepsOf = 0;
    const world = this.world = new World({
      seed,
      latencyMs: faults.has("delay") ? delay : { min: 1, max: 5 },
      lossPpm: faults.has("loss") ? [20_000, 150_000][rng.below(2)]! : 0,
      repeatPpm: faults.has("repeat") ? 100_000 : 0,
      latePpm: faults.has("late") ? 20_000 : 0,
      lan: rng.below(2) === 0,
      check: (host) => {
        // What a liar holds is its own affair.
        if (host === this.#liar?.host) return;
        this.#checkers.check(host);
        options.check?.(host);
        if (stepsOf++ % 8 !== 0) return;
        const wrong = this.#records.check(host);
        if (wrong) this.#checkers.fail(host, wrong);
      },
    });
    this.#checkers.world = world;
    this.#clients = new Clients(world, rng);
    this.#records = new Records(world, rng);
    this.#notes = new Notes(world, rng);
    world.onControl = (host, controlId, answer) => {
      if (this.#records.answered(host, controlId, answer.ok) || this.#notes.answered(host, controlId, answer.ok)) {
        return;
      }
      this.#clients.answered(host, controlId, answer);
    };
    // Where credentials last for a quarter of an hour, they run out behind partitions and while machines are off.
    this.#expiry = faults.has("expiry");
    const credentialLifetimeMs = this.#expiry ? 900_000 : 86_400_000;
    this.#hosts = Array.from({ length: nodes }, (_, i) =>
      world.addHost(`n${i}`, {
        clockOffsetMs: faults.has("drift") && rng.below(2) === 0 ? rng.below(120_000) - 60_000 : 0,
        driftPpm: faults.has("drift") ? rng.below(200) - 100 : 0,
        diskMs: faults.has("disk") ? [0, 3, 40][rng.below(3)]! : 0,
        config: { credentialLifetimeMs },
      }));
    this.#founder = this.#hosts[0]!;
    this.#approval = rng.below(6) === 0;
  }

  run(): SwarmResult {
    const { world } = this;
    const rng = this.#rng;
    const waiting = this.#found();
    const startMs = world.nowMs;
    for (let i = 0; i < this.#steps; i++) {
      if (this.faults.has("byzantine") && !this.#liar) this.#corrupt();
      // Joins come in between the accidents; some wait until the weather is clear.
      if (waiting.length > 0 && rng.below(2) === 0) this.#joinSome(waiting);
      else if (this.faults.has("remove") && rng.below(12) === 0) this.accidents.push(this.#remove());
      else {
        const { faults } = this;
        const options = { world, hosts: this.#hosts, checkers: this.#checkers, faults, rng };
        this.accidents.push(accident({ ...options, wiped: (host) => this.#wipe(host) }));
      }
      this.#work(i);
    }
    this.accidents.push("clear");
    this.#clear();
    const faultsMs = world.nowMs - startMs;
    const stay = this.#staying();
    const healMs = this.#heal(stay);
    const [raft] = [...this.#checkers.raft.values()];
    this.#judge();
    this.#quiet(stay);
    return {
      seed: this.#seed,
      nodes: this.#hosts.length,
      issuers: stay[0]!.view.state.network!.chain!.issuers.length,
      faults: [...this.faults],
      accidents: this.accidents,
      traceHash: world.traceHash(),
      agentSteps: world.steps,
      faultsMs,
      healMs,
      stepsPerSecondMax: Math.max(...this.#hosts.map((host) => host.stepsPerSecondMax)),
      elections: raft?.elections ?? 0,
      committed: raft?.committedIndex ?? 0,
      answered: this.#clients.ended,
      lies: [...this.#liar?.byzantine.counts.values() ?? []].reduce((sum, one) => sum + one, 0),
      records: this.#records.acknowledged,
      notes: this.#notes.acknowledged,
      history: this.#clients.history.lines,
    };
  }

  /** The founder and its invites; some issuers join while nothing is wrong yet. Returns who is still to join. */
  #found(): Host[] {
    const { world } = this;
    const rng = this.#rng;
    const [founder, ...others] = this.#hosts as [Host, ...Host[]];
    world.boot(founder);
    world.ask(founder, { verb: "init", name: "forest", approval: false });
    world.run(1_000);
    const sclerotia = others.slice(0, rng.below(Math.min(8, others.length) + 1));
    const rest = others.slice(sclerotia.length);
    for (const [hosts, role] of [[sclerotia, "sclerotium"], [rest, undefined]] as const) {
      if (hosts.length === 0) continue;
      const token = this.#invite(founder, hosts.length, role);
      for (const host of hosts) this.#joins.set(host, token);
    }
    if (rng.below(4) === 0) return shuffled(others, rng);
    for (const host of sclerotia) this.#ask(host);
    this.#pass(20_000);
    return shuffled(rest, rng);
  }

  /** One of those that are no issuers, and will be none, lies from now on. */
  #corrupt(): void {
    const server = this.#joins.get(this.#hosts[1]!);
    const members = this.#hosts.filter((host) =>
      host !== this.#founder && host.agent?.isMember && !host.view.state.isIssuer && this.#joins.get(host) !== server
    );
    const host = members[this.#rng.below(Math.max(1, members.length))];
    if (!host) return;
    this.accidents.push(`${host.name} lies`);
    this.#checkers.decisions.liars = true;
    this.#liar = { host, byzantine: new Byzantine(this.world, host, seededRng(this.#seed ^ 0xbad)) };
  }

  #invite(issuer: Host, uses: number, role: "sclerotium" | undefined): string {
    const approval = this.#approval;
    const given = this.world.ask<{ readonly token: string; readonly id: string }>(issuer, {
      verb: "invite-create",
      uses,
      approval,
      ...(role ? { role } : {}),
    });
    this.#checkers.uses.set(given.id, uses);
    return given.token;
  }

  #ask(host: Host): void {
    const { world } = this;
    if (!host.agent) world.boot(host);
    const request = { verb: "join", invite: this.#joins.get(host)! } as const;
    world.dispatch(host, { type: "control", nowMs: world.local(host), controlId: 0, request, by: LOCAL });
  }

  #joinSome(waiting: Host[]): void {
    // Of a large network many come at once.
    const count = Math.max(1, Math.ceil(waiting.length / 4));
    const some = waiting.splice(-count);
    this.accidents.push(`join ${some.map((host) => host.name).join(" ")}`);
    for (const host of some) this.#ask(host);
  }

  #approve(): void {
    const { world } = this;
    const founder = this.#founder;
    if (!this.#approval || !founder.agent) return;
    for (const one of founder.view.state.pending.values()) {
      if (one.decision !== "waiting") continue;
      const request = { verb: "node-approve", node: one.nodeId } as const;
      world.dispatch(founder, { type: "control", nowMs: world.local(founder), controlId: 0, request, by: LOCAL });
    }
  }

  #remove(): string {
    const { world } = this;
    const rng = this.#rng;
    if (this.#wipedIssuer) return "nothing";
    const victim = this.#hosts[1 + rng.below(this.#hosts.length - 1)]!;
    const by = this.#hosts.filter((host) =>
      host.agent && host !== victim && host.view.state.isIssuer && !this.#removed.has(host)
    );
    const issuer = by[rng.below(Math.max(1, by.length))];
    if (this.#removed.size > 0 || !victim.nodeId || !issuer?.view.state.members.get(victim.nodeId)) return "nothing";
    this.#removed.add(victim);
    const request = { verb: "node-remove", node: victim.nodeId } as const;
    world.dispatch(issuer, { type: "control", nowMs: world.local(issuer), controlId: 0, request, by: LOCAL });
    return `${issuer.name} removes ${victim.name}`;
  }

  /**
   * A machine loses its disk and joins again as somebody else. Of issuers one may, where at least four are left to
   * agree without it and nobody was removed: whoever it was is removed then, as an operator would.
   */
  #wipe(host: Host): boolean {
    const { world } = this;
    const founder = this.#founder;
    const chain = founder.agent && founder.view.state.network?.chain;
    const key = host.nodeId === "" ? undefined : publicKeyOf(host.nodeId);
    if (!chain || !key || host === founder || host === this.#liar?.host || this.#removed.has(host)) return false;
    const serves = chain.isIssuer(key);
    const server = this.#joins.get(host) === this.#joins.get(this.#hosts[1]!);
    if (this.#wipes >= 2 || server && !serves) return false;
    if (serves && (chain.issuers.length < 5 || this.#wipedIssuer || this.#removed.size > 0)) return false;
    this.#wipes += 1;
    const before = host.nodeId;
    world.wipe(host);
    if (serves) {
      this.#wipedIssuer = true;
      const request = { verb: "node-remove", node: before } as const;
      world.dispatch(founder, { type: "control", nowMs: world.local(founder), controlId: 0, request, by: LOCAL });
    }
    this.#joins.set(host, this.#invite(founder, 1, serves ? "sclerotium" : undefined));
    this.#ask(host);
    return true;
  }

  /** Some time with work for the network in it. */
  #work(step: number): void {
    const rng = this.#rng;
    const ms = [200, 1_000, 3_000, 10_000, 30_000][rng.below(5)]! + rng.below(1_000);
    // Close together, right behind an accident: what goes wrong between two leaders lasts less than a second.
    const busy = rng.below(2) > 0 ? 5 + rng.below(40) : 0;
    for (let i = 0; i < busy; i++) {
      this.#pass(rng.below(Math.floor(Math.min(ms, 2_000) / busy) + 1));
      const up = this.#hosts.filter((host) => host.agent && host !== this.#liar?.host);
      if (rng.below(10) === 0) this.#records.write(up);
      else if (rng.below(12) === 0) this.#notes.write(up);
      else this.#clients.ask(up);
    }
    this.#pass(this.#expiry && step % 8 === 7 ? 1_000_000 : ms);
  }

  #pass(ms: number): void {
    this.world.run(ms);
    this.#approve();
    this.#clients.sweep();
    this.#notes.sweep();
  }

  #clear(): void {
    const { world } = this;
    world.heal();
    world.lossPpm = world.repeatPpm = world.latePpm = 0;
    world.latencyMs = { min: 1, max: 20 };
    for (const host of this.#hosts) {
      host.diesAfter = undefined;
      if (!host.agent) world.boot(host);
      // What is not durable is not promised: whoever lost the invite before it was stored is asked again.
      if (host !== this.#founder && !host.view.state.network) this.#ask(host);
    }
  }

  /** Who has to be there at last. A removal that its issuer had not stored when it died never was. */
  #staying(): Host[] {
    for (const host of this.#removed) {
      if (!this.#hosts.some((other) => other !== host && revokes(other, host))) this.#removed.delete(host);
    }
    return this.#hosts.filter((host) => !this.#removed.has(host) && host !== this.#liar?.host);
  }

  #heal(stay: readonly Host[]): number {
    const { world } = this;
    const startMs = world.nowMs;
    let missing: string | undefined = "";
    while ((missing = this.#missing(stay)) !== undefined) {
      if (world.nowMs - startMs > HEAL_WITHIN_MS) {
        throw new Error(`LIVENESS: not whole again: ${missing}\n${world.describe()}\n${world.recent()}`);
      }
      world.run(250);
      if ((world.nowMs - startMs) % 1_000 === 0) this.#approve();
      if ((world.nowMs - startMs) % 60_000 === 0) this.#cure(stay);
    }
    // Not only quiet but of use.
    const value = `after ${this.#seed}`;
    const writer = stay[this.#rng.below(stay.length)]!;
    const put = world.control(writer, { verb: "primary-put", key: "app/after", value });
    const got = world.control(stay[this.#rng.below(stay.length)]!, { verb: "primary-get", key: "app/after" });
    if (!put.ok || !got.ok || !JSON.stringify(got.value).includes(value)) {
      throw new Error(
        `LIVENESS: a write after the faults is not read: ${JSON.stringify([put, got])}\n${world.describe()}`,
      );
    }
    return world.nowMs - startMs;
  }

  /**
   * What an operator has to do for a node that an issuer admitted who had been removed and did not know it yet: no
   * other issuer has ever heard of it, and its invite is used up.
   */
  #cure(stay: readonly Host[]): void {
    const { world } = this;
    const gone = [...this.#removed].map((host) => host.nodeId);
    for (const host of stay) {
      const signer = host.view.state.network?.credential?.envelope.signer;
      if (host === this.#founder || !signer || !gone.includes(nodeIdOf(signer)) || sees(host, stay)) continue;
      this.accidents.push(`${host.name} is invited again`);
      this.#records.forget(host);
      world.ask(host, { verb: "bootstrap-reset" });
      this.#records.forget(host);
      this.#joins.set(host, this.#invite(this.#founder, 1, undefined));
      world.run(1_000);
      this.#ask(host);
    }
  }

  /** What is still missing; nothing once all are verified, know each other, agree, and hold the same records. */
  #missing(stay: readonly Host[]): string | undefined {
    for (const host of stay) {
      if (!sees(host, stay)) return `${host.name} does not see all others`;
      for (const gone of this.#removed) {
        if (!revokes(host, gone)) return `${host.name} has not heard of a removal`;
        const key = publicKeyOf(gone.nodeId);
        if (key && host.view.state.network!.chain!.isIssuer(key)) {
          return `${gone.name} is still an issuer to ${host.name}`;
        }
      }
    }
    return this.#disagreement(stay) ?? this.#records.unsettled(stay) ?? this.#notes.unsettled(stay);
  }

  #disagreement(stay: readonly Host[]): string | undefined {
    const views = stay.flatMap((host) => host.view.state.isIssuer ? [{ host, view: host.view.primary }] : []);
    const leaders = views.filter(({ view }) => view?.role === "leader");
    if (leaders.length !== 1) return `${leaders.length} leaders`;
    const leader = leaders[0]!.view!;
    if (!leader.configCommitted || leader.commitIndex < leader.lastIndex) return "the leader has not committed all";
    const { voters, votersOutgoing } = leader.config;
    if (votersOutgoing.length > 0) return "the configuration is joint";
    for (const { host, view } of views) {
      if (!view) return `${host.name} runs no replica`;
      if (view.stateIndex !== leader.stateIndex) return `${host.name} is at ${view.stateIndex} of ${leader.stateIndex}`;
    }
    if (voters.length % 2 === 0) return `${voters.length} voters`;
    if (voters.length < Math.min(3, views.length - (views.length + 1) % 2)) {
      return `${voters.length} voters of ${views.length} issuers`;
    }
    return undefined;
  }

  #judge(): void {
    this.#clients.history.close(this.world.sinceMs);
    const verdict = checkLinearizable(this.#clients.history.lines);
    if (verdict.linearizable === false) {
      throw new Error(`SAFETY: the clients' history is not linearizable: ${JSON.stringify(verdict)}`);
    }
  }

  /** And it stays so: nothing flaps, nothing spins, and nobody is called dead. */
  #quiet(stay: readonly Host[]): void {
    const { world } = this;
    world.run(5_000);
    let idle = Infinity;
    // What was said while no primary was to be had is still handed to it, up to two minutes later.
    for (let round = 0; round < (this.#liar ? 1 : 4) && idle > IDLE_STEPS_MAX; round++) idle = this.#watch(stay);
    const missing = this.#missing(stay);
    if (missing !== undefined) throw new Error(`LIVENESS: it does not last: ${missing}\n${world.describe()}`);
    if (idle > IDLE_STEPS_MAX && !this.#liar) {
      throw new Error(
        `${idle.toFixed(1)} steps a second and node while nothing happens\n${world.describe()}\n${world.recent()}`,
      );
    }
  }

  /** Lets time pass, in which nobody is to be called dead. Returns the steps a second and node. */
  #watch(stay: readonly Host[]): number {
    const { world } = this;
    const before = world.steps;
    const seconds = stay.length > 30 ? 20 : 40;
    for (let second = 0; second < seconds; second++) {
      world.run(1_000);
      for (const host of stay) {
        for (const other of stay) {
          const { state } = host.view.state.members.observation(other.nodeId);
          if (other !== host && state !== "alive") {
            throw new Error(
              `LIVENESS: ${host.name} calls ${other.name} ${state}, and nothing is wrong\n${world.describe()}\n${world.recent()}`,
            );
          }
        }
      }
    }
    return (world.steps - before) / this.#hosts.length / seconds;
  }
}

/** Most networks are small. */
function drawNodes(rng: Rng): number {
  const size = rng.below(200);
  if (size < 150) return 3 + rng.below(7);
  if (size < 190) return 10 + rng.below(6);
  if (size < 198) return 16 + rng.below(15);
  return 31 + rng.below(70);
}

/** Up to this many members everybody has a channel to everybody. */
const FULL_MESH_MAX = 32;

/** Whether a host is verified and has a session with every other one, or knows of all where there are many. */
export function sees(host: Host, hosts: readonly Host[]): boolean {
  if (!host.agent || host.view.stage !== "verified") return false;
  const { sessions, state } = host.view;
  const meshed = state.members.size <= FULL_MESH_MAX;
  return hosts.every((other) =>
    other === host ||
    other.agent !== undefined && state.members.get(other.nodeId) !== undefined &&
      state.members.observation(other.nodeId).state === "alive" &&
      (!meshed || sessions.get(other.nodeId)?.member === true)
  );
}

/** Whether a host counts another one as removed. */
function revokes(host: Host, other: Host): boolean {
  const key = publicKeyOf(other.nodeId);
  return host.agent !== undefined && key !== undefined && host.view.state.revocations.get("node", key) !== undefined;
}
