/**
 * Drives the pure agent: one queue of events in, effects carried out in their order, completion reported
 * as events.
 *
 * @module
 */

import { dirname } from "node:path";
import { clearImmediate, setImmediate } from "node:timers";
import type { Agent } from "../agent/agent.ts";
import type { Subject } from "../access/decide.ts";
import type { AuditEvent } from "../access/audit.ts";
import type { ControlError, ControlRequest } from "../agent/control.ts";
import type { AgentEffect, AgentEvent, CallFailure, PeerView } from "../agent/effects.ts";
import type { SignedCommand } from "../agent/commands.ts";
import { encodeCbor } from "../core/codec.ts";
import { type KeyPair, keyPairFromSeed } from "../core/crypto.ts";
import { LIMITS } from "../core/limits.ts";
import { CallError, type InboundCall, type Network, type NetworkHandlers, type Peer } from "../ports/network.ts";
import type { Store } from "../ports/storage.ts";
import type { Discovery, DiscoveryHandlers, SourceReport } from "./discovery/mod.ts";

/** Milliseconds until a dial counts as failed. */
const DIAL_TIMEOUT_MS = 5_000;

const STOPPING: ControlError = { code: "stopping", message: "The agent stops", cure: "" };

/** What the runtime tells of; the log and the status page listen. */
export interface RuntimeLog {
  log(
    level: "debug" | "info" | "warn" | "error",
    component: string,
    event: string,
    message: string,
    fields?: Readonly<Record<string, unknown>>,
  ): void;
}

/** What belongs to one network, as the agent asks for it. */
export interface NetworkSettings {
  readonly keyPair: KeyPair;
  readonly networkId: Uint8Array;
  readonly discoverySecret: Uint8Array;
}

/** Options of a {@linkcode Runtime}. */
export interface RuntimeOptions {
  readonly agent: Agent;
  readonly store: Store;
  readonly audit: {
    append(event: AuditEvent): void;
  };
  readonly log: RuntimeLog;
  /** Port that the network listens on, for messages. */
  port(): number;
  /** Makes the network; it is started by the runtime. */
  createNetwork(settings: NetworkSettings, handlers: NetworkHandlers): Network;
  createDiscovery(settings: NetworkSettings, handlers: DiscoveryHandlers): Discovery;
  /** Runs a verified remote command; yields lines of its output. */
  runCommand(command: SignedCommand, by: string, signal: AbortSignal): AsyncIterable<string>;
  /** The state changed in a way that a watcher may want to see. */
  changed(): void;
  /** The agent failed in a way that the program does not survive. */
  fatal(error: unknown): void;
  now(): number;
}

/** Drives one agent. */
export class Runtime {
  readonly #options: RuntimeOptions;
  readonly #queue: AgentEvent[] = [];
  /** Events are being handed over. */
  #turning = false;
  /** When the last turn ended. */
  #turnedMs = -Infinity;
  #timerOfTurn: NodeJS.Immediate | undefined;
  /** What is left of a turn that lets its messages out before it stores. */
  #rest: readonly AgentEffect[] | undefined;
  /** Whether an answer is on its way out since the present batch of effects began. */
  #replied = false;
  #stopped = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** When the agent wants to be woken, when its timer was set, and when that fires. */
  #wakeAtMs = Infinity;
  #armedMs = 0;
  #firesMs = 0;
  #settings: NetworkSettings | undefined;
  #network: Network | undefined;
  #discovery: Discovery | undefined;
  #discoveryMode: "seeking" | "member" | "isolated" | "off" = "off";
  /** Resolves once the network listens; dials and calls wait for it. */
  #networkReady: Promise<void> = Promise.resolve();
  /** Resolves once the present network's start has ended, well or badly. */
  #networkStarted: Promise<void> = Promise.resolve();
  /** Resolves once all networks before the present one are down. */
  #stopNetwork: Promise<void> = Promise.resolve();
  #nextId = 1;
  readonly #inbound = new Map<number, { readonly call: InboundCall; readonly done: PromiseWithResolvers<void> }>();
  readonly #controls = new Map<number, PromiseWithResolvers<unknown>>();
  readonly #sources = new Map<string, SourceReport>();
  readonly #refusals = new Map<string, number>();
  /** Open dials and calls, aborted at the stop. */
  readonly #abort = new AbortController();

  constructor(options: RuntimeOptions) {
    this.#options = options;
  }

  get network(): Network | undefined {
    return this.#network;
  }

  get discovery(): Discovery | undefined {
    return this.#discovery;
  }

  /** The latest report of each source of discovery. */
  get sources(): readonly SourceReport[] {
    return [...this.#sources.values()];
  }

  /** Refusals since start, by reason. */
  get refusals(): ReadonlyMap<string, number> {
    return this.#refusals;
  }

  /** Events waiting. */
  get queued(): number {
    return this.#queue.length;
  }

  /**
   * Hands an event to the agent and carries out what it wants: at once, or, while much comes in, together with what
   * arrives before the program looks at its sockets again. What a turn wants stored is one transaction (group commit).
   */
  dispatch(event: AgentEvent): void {
    if (this.#stopped) return;
    this.#queue.push(event);
    if (this.#turning || this.#rest) return;
    const traffic = TRAFFIC.has(event.type) && this.#queue.length < BATCH_MAX;
    if (!traffic || !this.#timerOfTurn && performance.now() - this.#turnedMs > TURN_PAUSE_MS) return this.#turn();
    if (!this.#timerOfTurn) this.#turnSoon();
  }

  #turnSoon(): void {
    this.#timerOfTurn = setImmediate(() => {
      this.#timerOfTurn = undefined;
      this.#turn();
    });
  }

  /** Hands over what waits, stores, and carries out; then the same with what came of it, a few times. */
  #turn(): void {
    this.#turning = true;
    try {
      const rest = this.#rest;
      this.#rest = undefined;
      if (rest) this.#store(rest);
      for (let rounds = 0; this.#queue.length > 0 && !this.#stopped; rounds++) {
        if (rounds === ROUNDS_MAX) {
          // The sockets are next; what is left comes after them.
          this.#turnSoon();
          break;
        }
        const effects = this.#options.agent.steps(this.#queue.splice(0, BATCH_MAX));
        if (!this.#carryOut(effects)) {
          this.#turnSoon();
          break;
        }
      }
    } catch (error) {
      this.#stopped = true;
      this.#options.fatal(error);
    } finally {
      this.#turning = false;
      this.#turnedMs = performance.now();
    }
    this.#options.changed();
  }

  /**
   * Asks the agent; resolves with its answer or rejects with a {@linkcode ControlFailed}.
   *
   * @param by Who asks, as `Access.authenticate` gave it.
   */
  control(request: ControlRequest, by: Subject): Promise<unknown> {
    // Nobody would answer: who waits for it would keep the program from its end.
    if (this.#stopped) return Promise.reject(new ControlFailed(STOPPING));
    if (this.#controls.size >= CONTROLS_MAX) {
      const cure = "Wait for those under way";
      return Promise.reject(new ControlFailed({ code: "overloaded", message: "Too many requests", cure }));
    }
    const controlId = this.#nextId++;
    const done = Promise.withResolvers<unknown>();
    this.#controls.set(controlId, done);
    this.dispatch({ type: "control", nowMs: this.#options.now(), controlId, request, by });
    return done.promise;
  }

  /** Stops and starts discovery again, for settings that only a start takes in; channels stay. */
  async restartDiscovery(): Promise<void> {
    const settings = this.#settings;
    if (!settings) return;
    await this.#networkReady;
    const old = this.#discovery;
    if (!old || this.#stopped) return;
    const discovery = this.#makeDiscovery(settings);
    this.#discovery = discovery;
    // A source that is off now has nothing to say any more.
    this.#sources.clear();
    await old.stop();
    if (this.#discovery !== discovery || this.#stopped) return;
    discovery.start();
    this.#applyDiscovery();
  }

  /** Tells discovery the addresses as they stand now. */
  announce(): void {
    this.#applyDiscovery();
  }

  /**
   * Stops and starts the network and discovery again, for settings that only a start takes in.
   *
   * @throws {StartFailed} Where it does not come up; the caller goes back to settings that worked.
   */
  async restartNetwork(): Promise<void> {
    const settings = this.#settings;
    if (!settings || !this.#network || this.#stopped) return;
    this.#dropNetwork();
    await this.#startNetwork(settings).catch((error) => {
      throw this.#startFailed(error);
    });
  }

  /** Stops timers, discovery and the network. Idempotent. */
  async stop(): Promise<void> {
    // What came before it is served.
    for (let i = 0; i < ROUNDS_MAX && (this.#queue.length > 0 || this.#rest) && !this.#turning; i++) this.#turn();
    clearImmediate(this.#timerOfTurn);
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#abort.abort();
    for (const done of this.#controls.values()) done.reject(new ControlFailed(STOPPING));
    this.#controls.clear();
    for (const { done } of this.#inbound.values()) done.reject(new CallError("unreachable", "the node stops"));
    this.#inbound.clear();
    await this.#dropNetwork();
  }

  /**
   * Carries out effects in their order.
   *
   * @returns `false`: messages come before what is to be stored. They leave when the loop turns; the disk is written
   * while the others read them, and nothing is handed to the agent before that (thesis, 10.2.1).
   */
  #carryOut(effects: readonly AgentEffect[]): boolean {
    this.#replied = false;
    const first = effects.findIndex((one) => one.type === "persist");
    const before = first < 0 ? effects : effects.slice(0, first);
    for (const effect of before) this.#run(effect as Done);
    if (first < 0) return true;
    const rest = effects.slice(first);
    if (before.some((one) => one.type === "datagram" || one.type === "call")) {
      this.#rest = rest;
      return false;
    }
    this.#store(rest);
    return true;
  }

  /** Carries out effects of which the first stores something: all that is to be stored is stored with it. */
  #store(effects: readonly AgentEffect[]): void {
    const puts = new Map<string, Uint8Array | null>();
    const rest = flattened(effects, puts);
    // Synchronous and durable: what follows may rely on it. A disk that fails ends the program here, before anything
    // that depends on it has left.
    if (puts.size > 0) this.#options.store.apply([...puts]);
    for (const effect of rest) this.#run(effect);
  }

  #run(effect: Done): void {
    const { log, audit } = this.#options;
    const nowMs = this.#options.now();
    switch (effect.type) {
      case "start-network":
        this.#dropNetwork();
        this.#startNetwork({
          keyPair: keyPairFromSeed(effect.seed),
          networkId: effect.networkId,
          discoverySecret: effect.discoverySecret,
        }).catch((error) => this.#options.fatal(this.#startFailed(error)));
        return;
      case "stop-network":
        this.#dropNetwork();
        return;
      case "discovery":
        this.#discoveryMode = effect.mode;
        return this.#applyDiscovery();
      case "dial":
        this.#dial(effect.dialId, effect.address, effect.trusted);
        return;
      case "hang-up":
        this.#network?.hangUp(effect.nodeId, effect.reason).catch((error) =>
          log.log("debug", "network", "hang-up", String(error))
        );
        return;
      case "call":
        // An answer leaves when this turn of the loop is over. A registrar that tells many of a newcomer would keep it
        // waiting for as long as it takes to begin all of these calls.
        if (this.#replied) setImmediate(() => this.#call(effect));
        else this.#call(effect);
        return;
      case "datagram":
        this.#network?.sendDatagram(effect.nodeId, effect.bytes);
        return;
      case "reply": {
        const inbound = this.#inbound.get(effect.inboundId);
        this.#inbound.delete(effect.inboundId);
        if (inbound) this.#replied = true;
        inbound?.call.send(effect.body).then(() => inbound.done.resolve(), inbound.done.reject);
        return;
      }
      case "reply-error": {
        const inbound = this.#inbound.get(effect.inboundId);
        this.#inbound.delete(effect.inboundId);
        inbound?.done.reject(new CallError(effect.code, effect.message));
        return;
      }
      case "run-command":
        this.#runCommand(effect.inboundId, effect.command, effect.by);
        return;
      case "control-reply": {
        const done = this.#controls.get(effect.controlId);
        this.#controls.delete(effect.controlId);
        if (effect.result.ok) done?.resolve(effect.result.value);
        else done?.reject(new ControlFailed(effect.result.error));
        return;
      }
      case "export-secret":
        this.#exportSecret(effect.controlId, effect.key, effect.path);
        return;
      case "wakeAt": {
        if (this.#stopped) return;
        // At least a few milliseconds, so that no mistake below can spin.
        this.#wakeAtMs = Math.max(nowMs + 5, effect.atMs);
        // While much happens the time moves with each turn; a timer that comes too early looks again.
        const isNew = nowMs >= this.#armedMs && nowMs < this.#armedMs + TIMER_KEPT_MS;
        if (this.#timer !== undefined && isNew && this.#firesMs <= this.#wakeAtMs) return;
        return this.#arm(nowMs);
      }
      case "log":
        log.log(effect.level, "agent", effect.event, effect.message, effect.fields);
        return;
      case "audit":
        audit.append({ ...effect, atMs: nowMs });
        log.log("info", "audit", effect.action, effect.detail, { by: effect.by });
        return;
      case "refused":
        return this.#refused(effect.reason, effect.from);
      default:
        effect satisfies never;
    }
  }

  #arm(nowMs: number): void {
    clearTimeout(this.#timer);
    const waitMs = Math.min(2 ** 31 - 1, this.#wakeAtMs - nowMs);
    this.#armedMs = nowMs;
    this.#firesMs = nowMs + waitMs;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      const firedMs = this.#options.now();
      // Less than a millisecond is the rounding of the clocks; a clock that was set is the agent's to see.
      if (firedMs >= this.#armedMs && firedMs < this.#wakeAtMs - 1) this.#arm(firedMs);
      else this.dispatch({ type: "wake", nowMs: firedMs });
    }, waitMs);
  }

  #refused(reason: string, from: string): void {
    // Reasons are a closed list; should one ever come from outside, it must not fill the memory.
    const known = this.#refusals.has(reason) || this.#refusals.size < REFUSAL_REASONS_MAX;
    const label = known ? reason : "other";
    this.#refusals.set(label, (this.#refusals.get(label) ?? 0) + 1);
    this.#options.log.log("debug", "security", "refused", `${reason} from ${from}`, { reason, from });
  }

  /** What never came to the agent is told to it: it looks for incidents. */
  #refusedOutside(reason: string, from: string, area = ""): void {
    this.#refused(reason, from);
    // The agent's time belongs to those who behave: of a flood it sees a part.
    if (this.#queue.length >= BATCH_MAX) return;
    this.dispatch({ type: "refused", nowMs: this.#options.now(), reason: area + reason, from });
  }

  /** Starts network and discovery once those before are down; resolves when it listens, rejects where it cannot. */
  #startNetwork(settings: NetworkSettings): Promise<void> {
    if (this.#stopped) return Promise.resolve();
    this.#settings = settings;
    const { log, now } = this.#options;
    // What one that was replaced still tells says nothing about the present one.
    const current = () => this.#network === network && !this.#stopped;
    const network: Network = this.#options.createNetwork(settings, {
      onPeer: (peer) => current() && this.dispatch({ type: "peer-up", nowMs: now(), peer: viewOf(peer) }),
      onPeerGone: (nodeId, reason) => current() && this.dispatch({ type: "peer-down", nowMs: now(), nodeId, reason }),
      onCall: (call) =>
        current() ? this.#onCall(call) : Promise.reject(new CallError("unreachable", "the network stops")),
      onGone: (nodeId) => current() && this.dispatch({ type: "peer-gone", nowMs: now(), nodeId }),
      onDatagram: (nodeId, bytes) => {
        // What may be lost anyway is the first to go where there is too much to do.
        if (!current() || this.#queue.length >= LIMITS.queueEventsMax) return;
        this.dispatch({ type: "datagram", nowMs: now(), from: nodeId, bytes });
      },
      onRefused: (reason, from) => this.#refusedOutside(reason, from),
    });
    this.#network = network;
    const discovery = this.#makeDiscovery(settings);
    this.#discovery = discovery;
    const started = this.#stopNetwork.then(() => current() ? network.start() : undefined);
    this.#networkStarted = started.catch(() => {});
    const ready = started.then(() => {
      if (!current()) return;
      const places = network.addresses().map((address) => address.replace(/\/p2p\/.*$/, ""));
      log.log("info", "network", "listening", `Listening on ${places.join(" ")}`);
      this.dispatch({ type: "addresses", nowMs: now(), addresses: network.addresses() });
      discovery.start();
      this.#applyDiscovery();
    }).catch((error) => {
      // Its end was asked for before its start was through.
      if (current()) throw error;
    });
    // Dials wait for it, and are told where it failed.
    this.#networkReady = ready;
    ready.catch(() => {});
    return ready;
  }

  #startFailed(error: unknown): StartFailed {
    const port = this.#options.port();
    const taken = /AddrInUse|EADDRINUSE|in use/i.test(messageOf(error));
    const cure = taken
      ? `Stop the program that has port ${port}, or take another: --port 0 takes a free one`
      : "Check the address and the rights: --listen";
    return new StartFailed(messageOf(error), cure, { cause: error });
  }

  #makeDiscovery(settings: NetworkSettings): Discovery {
    const { now } = this.#options;
    const current = () => this.#discovery === discovery && !this.#stopped;
    const discovery: Discovery = this.#options.createDiscovery(settings, {
      onCandidate: (candidate) => current() && this.dispatch({ type: "candidate", nowMs: now(), candidate }),
      onSeed: (content, from) => current() && this.dispatch({ type: "seed", nowMs: now(), content, from }),
      onRefused: (reason, from) => this.#refusedOutside(reason, from, "discovery-"),
      onSourceState: (report) => {
        if (!current()) return;
        this.#sources.set(report.source, report);
        this.#options.changed();
      },
    });
    return discovery;
  }

  #applyDiscovery(): void {
    const [network, discovery] = [this.#network, this.#discovery];
    if (!network || !discovery || network.addresses().length === 0) return;
    const mode = this.#discoveryMode;
    // Only members are worth finding: a node that is joining asks, and announces nothing.
    discovery.announce(mode !== "off" && this.#options.agent.isMember ? network.addresses() : []);
    discovery.setMode(mode);
  }

  /** Takes network and discovery out of service; resolves when they are down. */
  #dropNetwork(): Promise<void> {
    const [network, discovery, started] = [this.#network, this.#discovery, this.#networkStarted];
    if (!network) return this.#stopNetwork;
    const peers = network.peers();
    this.#network = undefined;
    this.#discovery = undefined;
    this.#sources.clear();
    this.#networkReady = Promise.resolve();
    // The agent is not told by the old network any more.
    for (const { nodeId } of peers) {
      this.dispatch({ type: "peer-down", nowMs: this.#options.now(), nodeId, reason: "restarted" });
    }
    // One that is just starting cannot be stopped before it has.
    const down = [discovery?.stop(), started.then(() => network.stop())];
    this.#stopNetwork = Promise.allSettled([this.#stopNetwork, ...down]).then(() => {});
    return this.#stopNetwork;
  }

  async #dial(dialId: number, address: string, trusted: boolean): Promise<void> {
    const now = this.#options.now;
    const end = (result: { ok: true; nodeId: string } | CallFailure) =>
      this.dispatch({ type: "dial-done", nowMs: now(), dialId, result });
    try {
      await this.#networkReady;
      const network = this.#network;
      if (!network) throw new CallError("unreachable", "the network is stopped");
      const verdict = this.#discovery?.mayDial(address, { loopback: trusted });
      if (verdict && !verdict.ok) throw new CallError("address-refused", verdict.reason);
      const signal = AbortSignal.any([this.#abort.signal, AbortSignal.timeout(DIAL_TIMEOUT_MS)]);
      const peer = await network.dial(address, { signal });
      end({ ok: true, nodeId: peer.nodeId });
    } catch (error) {
      end(failureOf(error));
    }
  }

  async #call(effect: AgentEffect & { readonly type: "call" }): Promise<void> {
    const now = this.#options.now;
    const startMs = performance.now();
    try {
      const network = this.#network;
      if (!network) throw new CallError("unreachable", "the network is stopped");
      let body: Uint8Array | undefined;
      const options = { timeoutMs: effect.timeoutMs, signal: this.#abort.signal };
      for await (const message of network.call(effect.nodeId, effect.method, effect.body, options)) {
        // Answers to the agent are one message; who sends on and on is cut off.
        if (body) throw new CallError("bad-answer", "the answer has more than one message");
        body = message;
      }
      if (!body) throw new CallError("bad-answer", "the answer is empty");
      const elapsedMs = performance.now() - startMs;
      this.dispatch({ type: "call-done", nowMs: now(), callId: effect.callId, result: { ok: true, body, elapsedMs } });
    } catch (error) {
      this.dispatch({ type: "call-done", nowMs: now(), callId: effect.callId, result: failureOf(error) });
    }
  }

  #onCall(call: InboundCall): Promise<void> {
    if (this.#queue.length >= LIMITS.queueEventsMax || this.#stopped) {
      return Promise.reject(new CallError("overloaded", "too much to do"));
    }
    const inboundId = this.#nextId++;
    const done = Promise.withResolvers<void>();
    this.#inbound.set(inboundId, { call, done });
    call.signal.addEventListener("abort", () => {
      this.#inbound.delete(inboundId);
      done.resolve();
    }, { once: true });
    this.dispatch({
      type: "inbound",
      nowMs: this.#options.now(),
      inboundId,
      peer: viewOf(call.peer),
      method: call.method,
      body: call.body,
    });
    return done.promise;
  }

  async #runCommand(inboundId: number, command: SignedCommand, by: string): Promise<void> {
    const inbound = this.#inbound.get(inboundId);
    this.#inbound.delete(inboundId);
    if (!inbound) return;
    const { call, done } = inbound;
    try {
      let sent = 0;
      for await (const text of this.#options.runCommand(command, by, call.signal)) {
        for (const piece of piecesOf(text)) {
          sent += piece.length;
          if (sent > LIMITS.commandOutputBytesMax) throw new CallError("overloaded", "the output is too long");
          await call.send(encodeCbor({ o: piece }));
        }
      }
      await call.send(encodeCbor({ e: 0 }));
      done.resolve();
    } catch (error) {
      done.reject(error instanceof CallError ? error : new CallError("command-failed", messageOf(error)));
    }
  }

  #exportSecret(controlId: number, key: string, path: string): void {
    const done = this.#controls.get(controlId);
    this.#controls.delete(controlId);
    try {
      const value = this.#options.store.load().get(key);
      if (!value) throw new Error("it is not in the store");
      writeNewFile(path, value);
      try {
        this.#options.store.apply([[key, null]]);
      } catch (error) {
        Deno.removeSync(path);
        throw error;
      }
      this.dispatch({ type: "secret-exported", nowMs: this.#options.now(), key, path });
      done?.resolve({ path, exported: true });
    } catch (error) {
      done?.reject(
        new ControlFailed({
          code: "failed",
          message: `Cannot move the key to "${path}": ${messageOf(error)}`,
          cure: "Name a new file in a folder that the agent may write",
        }),
      );
    }
  }
}

/** After so long without an event a node takes the next one at once. */
const TURN_PAUSE_MS = 0.5;
/** A timer that was set so recently stays where its time moves further away. */
const TIMER_KEPT_MS = 20;
/** Events that may wait for more of their kind. */
const TRAFFIC: ReadonlySet<AgentEvent["type"]> = new Set(["inbound", "datagram", "call-done", "control", "refused"]);
/** Events that are handed over together. */
const BATCH_MAX = 128;
/** Times that events which came of others are handed over before the program looks at its sockets. */
const ROUNDS_MAX = 8;

/** What is left to carry out when all is stored. */
type Done = Exclude<AgentEffect, { readonly type: "persist" }>;

/** Effects in their order without those that store, whose puts are taken out: the last one for a key counts. */
function flattened(
  effects: readonly AgentEffect[],
  puts: Map<string, Uint8Array | null>,
): Done[] {
  return effects.flatMap((effect) => {
    if (effect.type !== "persist") return [effect];
    for (const [key, value] of effect.puts) puts.set(key, value);
    return flattened(effect.then, puts);
  });
}

/** Control requests under way. */
const CONTROLS_MAX = 256;
/** Reasons of refusal that are counted apart. */
const REFUSAL_REASONS_MAX = 128;
/** Longest piece of a command's output in one message, in UTF-16 units: three bytes each at the most. */
const PIECE_CHARS_MAX = 64 << 10;

/** A text in pieces that fit a frame each; no character is cut. */
export function* piecesOf(text: string): Iterable<string> {
  for (let at = 0; at < text.length;) {
    let end = Math.min(text.length, at + PIECE_CHARS_MAX);
    const last = text.charCodeAt(end - 1);
    if (end < text.length && last >= 0xd800 && last < 0xdc00) end -= 1;
    yield text.slice(at, end);
    at = end;
  }
}

/** Writes a file that must not be there yet, durably, its name included; leaves none where that fails. */
function writeNewFile(path: string, value: Uint8Array): void {
  const file = Deno.openSync(path, { write: true, createNew: true, mode: 0o600 });
  try {
    try {
      for (let done = 0; done < value.length;) done += file.writeSync(value.subarray(done));
      file.syncSync();
    } finally {
      file.close();
    }
    const folder = Deno.openSync(dirname(path), { read: true });
    try {
      folder.syncSync();
    } finally {
      folder.close();
    }
  } catch (error) {
    Deno.removeSync(path);
    throw error;
  }
}

/** The node cannot start as it is configured. */
export class StartFailed extends Error {
  override readonly name = "StartFailed";
  /** @param cure What would help, one sentence. */
  constructor(message: string, readonly cure: string, options?: ErrorOptions) {
    super(message, options);
  }
}

/** A control request was refused. */
export class ControlFailed extends Error {
  override readonly name = "ControlFailed";
  constructor(readonly error: ControlError) {
    super(error.message);
  }
}

function viewOf(peer: Peer): PeerView {
  const { nodeId, publicKey, remoteAddress, transport, direction, openedMs, channelBinding } = peer;
  return { nodeId, publicKey, remoteAddress, transport, direction, openedMs, channelBinding };
}

function failureOf(error: unknown): CallFailure {
  if (error instanceof CallError) return { ok: false, code: error.code, message: error.message };
  const aborted = error instanceof DOMException && (error.name === "AbortError" || error.name === "TimeoutError");
  return { ok: false, code: aborted ? "timeout" : "unreachable", message: messageOf(error) };
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
