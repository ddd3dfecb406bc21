/**
 * A running node: store, agent, network, discovery, sockets and status page, started and stopped in order.
 *
 * @module
 */

import { randomBytes } from "node:crypto";
import { statfsSync } from "node:fs";
import { join } from "node:path";
import type { Need, Subject } from "../access/decide.ts";
import { idOf, LOCAL, SELF } from "../agent/access.ts";
import { commandNeed, controlNeed, edgeNeed, isEdgeVerb } from "../agent/access_table.ts";
import { Agent, type AgentOptions } from "../agent/agent.ts";
import { COMMAND_VERBS, type SignedCommand } from "../agent/commands.ts";
import { type ControlRequest, readControlRequest } from "../agent/control.ts";
import type { ComponentStatus, EventStatus, Status } from "../agent/status.ts";
import {
  bool,
  type CborValue,
  decodeAs,
  dictionary,
  optional,
  record,
  text as textReader,
  uint,
  WireError,
} from "../core/codec.ts";
import { InvariantError } from "../core/assert.ts";
import { parseAddress, shortNodeId } from "../core/ids.ts";
import { LIMITS } from "../core/limits.ts";
import { seededRng } from "../core/rng.ts";
import { CREDENTIAL_LIFETIME_MS } from "../identity/credential.ts";
import { CallError, type Network } from "../ports/network.ts";
import { answerAudit, type KnownHead } from "./audit_console.ts";
import { AuditTrail } from "./audit_trail.ts";
import { CommandRunner } from "./commands.ts";
import {
  type Config,
  ConfigError,
  configOfFlags,
  everyMs,
  httpAddress,
  incidentSettings,
  listenAddresses,
  type LoadedConfig,
  parseConfigText,
  parseHostPort,
  redactConfig,
  resolveConfig,
  SETTINGS,
} from "./config.ts";
import { StoredConfigVersions } from "./config_versions.ts";
import {
  type CachedMember,
  createDiscovery,
  type Discovery,
  type DiscoveryHandlers,
  shownUrl,
} from "./discovery/mod.ts";
import { type MadeBundle, SeedPublisher } from "./disk/seed_publisher.ts";
import { openStore, StateError } from "./disk/store.ts";
import { createControlApp, type StatusChange } from "./http/app.ts";
import type { ControlAnswer, ExecLine } from "./http/control.ts";
import type { AccessDoor } from "./http/identity.ts";
import { type RunningServer, serveControl, serveStatus, STATUS_PORT } from "./http/server.ts";
import { type SporeQuery, StatusView } from "./http/view.ts";
import { createP2pNetwork, prepareEntropy } from "./p2p/mod.ts";
import { BUILD_INFO } from "./process/build_info.ts";
import { measureCapabilities } from "./process/host.ts";
import { readProcessStat } from "./process/proc_stat.ts";
import { openServiceNotifier } from "./process/sd_notify.ts";
import { ControlFailed, type NetworkSettings, Runtime, StartFailed } from "./runtime.ts";
import { EventBus } from "./telemetry/bus.ts";
import {
  createLogger,
  LOG_LEVELS,
  type LogFields,
  type Logger,
  type LogLevel,
  type RootLogger,
} from "./telemetry/log.ts";

/** How to run a node in this process. */
export interface NodeOptions {
  readonly config: Config;
  /** Folder for everything that must last; made, with mode 0700, where it is not there. */
  readonly stateDir: string;
  readonly socketPath: string;
  /** Form a network where the node has none. */
  readonly form?: { readonly name: string; readonly approval: boolean };
  /** Join with this invite where the node has no network. */
  readonly invite?: string;
  /** Aborted once: stop in order, within `config.limits.drainMs`. */
  readonly signal: AbortSignal;
  /** Reads the configuration anew, for SIGHUP. */
  reloadConfig(): Promise<LoadedConfig>;
  /** Called once, as soon as the socket answers. */
  onListening(listening: {
    readonly nodeId: string;
    readonly socket: string;
    readonly statusUrl?: string;
    /** The node, for who started it. */
    readonly node: { status(): Status; control(request: unknown): Promise<ControlAnswer> };
  }): void;
  /** Writes a finished log line without its end. */
  writeLog(line: string): void;
}

/**
 * Runs a node until it is stopped.
 *
 * @returns The exit code: 0 after an orderly stop, 1 after a failure.
 * @throws {StateError} When the state folder cannot be used.
 */
export async function runNode(options: NodeOptions): Promise<number> {
  const node = new RunningNode(options);
  return await node.run();
}

const readExec = record({
  verb: textReader(32),
  node: textReader(128),
  timeoutMs: optional(uint(600_000, 100)),
  args: optional((value, path) => Object.fromEntries(dictionary(argument, 32)(value, path))),
});
const readCommandLine = record({ o: optional(anyText), e: optional(uint()) });

/** Output of a command may hold anything that a terminal shows. */
function anyText(value: unknown): string {
  if (typeof value !== "string") throw new WireError("Cannot read command output: wanted text");
  return value;
}

/** As long as an argument of a signed command may be. */
function argument(value: unknown, path: string): string {
  if (typeof value === "string" && value.length <= 12_000) return value;
  throw new WireError(`Cannot read ${path}: wanted a text of at most 12000 characters`);
}

class RunningNode {
  #options: NodeOptions;
  #config: Config;
  readonly #stop = new AbortController();
  readonly #log: NodeLog;
  readonly #bus: EventBus<NodeEvents>;
  readonly #startedMs = Date.now();
  readonly #failures = new Map<string, ComponentStatus>();
  #exitCode = 0;
  #failure: unknown;
  #runtime!: Runtime;
  #agent!: Agent;
  #configs!: StoredConfigVersions;
  #commands!: CommandRunner;
  #publisher!: SeedPublisher;
  #audit!: AuditTrail;
  /** Who is changing the configuration, and by which way in. */
  #configuring: { readonly by: string; readonly entrance: string } = { by: "node", entrance: "node" };
  #changed: ReturnType<typeof setTimeout> | undefined;
  #restarting: ReturnType<typeof setTimeout> | undefined;
  /** Resolves once the configurations given so far are in force or refused. */
  #applying: Promise<void> = Promise.resolve();
  #ending = false;
  #stateDiskFree: { readonly atMs: number; readonly component: ComponentStatus } | undefined;

  constructor(options: NodeOptions) {
    this.#options = options;
    this.#config = options.config;
    const { level, format } = options.config.log;
    this.#bus = new EventBus<NodeEvents>({
      onTrouble: ({ kind, listener }) =>
        this.#log.log("warn", "node", "bus", `A listener of events is in trouble: ${listener} ${kind}`),
    });
    this.#log = new NodeLog({ level, format, write: options.writeLog, bus: this.#bus });
  }

  async run(): Promise<number> {
    const { stateDir, signal } = this.#options;
    const store = openStore(stateDir);
    using cleanup = new DisposableStack();
    cleanup.defer(() => store.close());
    const audit = new AuditTrail({
      dir: stateDir,
      sealed: (head, kept) => this.#runtime?.dispatch({ type: "audit-sealed", nowMs: Date.now(), head, kept }),
      trouble: (message) => this.#auditTrouble(message),
    });
    this.#audit = audit;
    cleanup.use(audit);
    this.#configs = new StoredConfigVersions({
      store,
      check: (text) => void this.#merged(text),
      apply: (text) => this.#apply(this.#merged(text)),
      audit: (action, detail) => {
        // What ends by itself was nobody's doing.
        const { by, entrance } = action === "config-expired" ? { by: "node", entrance: "node" } : this.#configuring;
        audit.append({ atMs: Date.now(), action, by, entrance, detail });
        this.#noteChange();
      },
      failed: (error) => this.#fatal(error),
      now: Date.now,
    });
    cleanup.defer(() => this.#configs.stop());
    this.#takeStoredConfig();
    const config = this.#config;
    this.#agent = agentOf(stateDir, {
      config: {
        name: config.name.toLowerCase(),
        role: config.role,
        pool: config.pool,
        version: BUILD_INFO.version,
        addresses: config.discovery.addresses,
        credentialLifetimeMs: credentialLifetimeMs(),
      },
      entries: store.load(),
      rng: seededRng(randomBytes(4).readInt32LE()),
      entropy: { bytes: (length) => new Uint8Array(randomBytes(length)) },
      incidents: incidentSettings(config),
    });
    this.#runtime = new Runtime({
      agent: this.#agent,
      store,
      audit,
      log: this.#log,
      createNetwork: (settings, handlers) =>
        createP2pNetwork({
          ...settings,
          listen: listenAddresses(this.#config),
          advertise: this.#config.advertise,
          channelsMax: this.#config.limits.channelsMax,
          keepAliveMs: KEEP_ALIVE_MS,
        }, handlers),
      createDiscovery: (settings, handlers) => this.#createDiscovery(settings, handlers),
      runCommand: (command, by, commandSignal) => {
        this.#configures(command.verb, `node:${by}`, "rpc");
        return this.#commands.run(command, by, commandSignal);
      },
      changed: () => this.#noteChange(),
      port: () => this.#config.port,
      fatal: (error) => this.#fatal(error),
      now: Date.now,
    });
    this.#commands = new CommandRunner({
      status: () => this.#status(),
      control: (request) => this.#runtime.control(request, SELF),
      logLines: (count) => this.#log.recent(count),
      onLogLine: (listener) => {
        const listening = this.#bus.on("log", "logs --follow", ({ line }) => listener(line));
        return () => listening[Symbol.dispose]();
      },
      config: this.#configs,
      restart: () => this.#restart(),
    });
    this.#publisher = this.#createPublisher();
    const ended = AbortSignal.any([signal, this.#stop.signal]);
    const capabilities = measureCapabilities(stateDir);
    audit.signWith(this.#agent.inspect().state.keyPair);
    if (audit.damage) this.#runtime.dispatch({ type: "audit-damage", nowMs: Date.now(), why: audit.damage });
    if (audit.seal) this.#runtime.dispatch({ type: "audit-sealed", nowMs: Date.now(), ...audit.seal });
    this.#runtime.dispatch({ type: "start", nowMs: Date.now(), capabilities });
    using timers = new DisposableStack();
    let surface: Surface | undefined;
    try {
      surface = await this.#serve();
      this.#timers(timers);
      this.#publisher.start();
      this.#options.onListening({
        nodeId: this.#agent.nodeId,
        socket: this.#options.socketPath,
        ...(surface.status ? { statusUrl: surface.status.url } : {}),
        // Who started it in his own process is as much its master as who may use its socket.
        node: { status: () => this.#status(), control: (request) => this.#control(request, LOCAL) },
      });
      await this.#enter();
      await using notifier = openServiceNotifier({
        onError: (error) => this.#log.log("warn", "node", "sd-notify", String(error)),
      });
      notifier.ready(`node ${this.#agent.nodeId}`);
      if (notifier.watchdogMs) {
        // Half of the time: one late beat must not kill the service. A loop that hangs sends none.
        const beat = setInterval(() => notifier.watchdog(), notifier.watchdogMs / 2);
        timers.defer(() => clearInterval(beat));
      }
      if (!ended.aborted) await new Promise((resolve) => ended.addEventListener("abort", resolve, { once: true }));
      notifier.stopping();
    } finally {
      // Whatever was the reason: nothing is left running, and no signal brings anything up again.
      timers.dispose();
      await this.#shutDown(surface);
    }
    if (this.#failure instanceof StartFailed) throw this.#failure;
    return this.#exitCode;
  }

  /** The program does not survive this: it ends in order, and the service manager starts it again. */
  #fatal(error: unknown): void {
    this.#exitCode = 1;
    this.#failure ??= error;
    // What has a cure is for the person who started the node; the rest is our mistake and needs its place.
    const message = error instanceof Error ? error.message : String(error);
    const stack = error instanceof Error && !(error instanceof StartFailed) ? { stack: error.stack ?? "" } : {};
    this.#log.log("error", "node", "fatal", message, stack);
    this.#stop.abort();
  }

  /** A version that was good once and is not any more, after an upgrade say, must not keep the node down. */
  #takeStoredConfig(): void {
    const { version, text } = this.#configs.current();
    if (version === 0) return;
    try {
      this.#config = this.#merged(text);
      this.#log.setLevel(this.#config.log.level);
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      const reason = `configuration version ${version} is not in force: ${error.message}`;
      this.#failures.set("config", { name: "config", health: "degraded", reason, sinceMs: this.#startedMs });
      this.#log.log("error", "node", "config-refused", `Cannot use ${reason}`);
    }
  }

  /** Forms or joins where the node has no network and was asked to. */
  async #enter(): Promise<void> {
    const { form, invite } = this.#options;
    const status = this.#status();
    if (status.network) return;
    // Whoever joins, or tells this node to, waits for the first handshake.
    if (!form || invite) void prepareEntropy();
    try {
      if (invite) await this.#runtime.control({ verb: "join", invite }, SELF);
      else if (form) await this.#runtime.control({ verb: "init", ...form }, SELF);
    } catch (error) {
      if (!(error instanceof ControlFailed)) throw error;
      this.#log.log("error", "node", error.error.code, `${error.error.message}. ${error.error.cure}`);
      this.#exitCode = 1;
      this.#stop.abort();
    }
  }

  #createDiscovery(settings: NetworkSettings, handlers: DiscoveryHandlers): Discovery {
    const { discovery } = this.#config;
    return createDiscovery({
      ...settings,
      configAddresses: discovery.addresses,
      cachedMembers: () => this.#cachedMembers(),
      domains: discovery.domains,
      nameServers: discovery.nameServers.flatMap((text) => {
        const server = parseHostPort(text, 53);
        return server ? [{ ipAddr: server.hostname, port: server.port }] : [];
      }),
      seedFiles: discovery.seedFiles,
      seedUrls: discovery.seedUrls,
      openSeed: (content) => this.#agent.readSeed(content),
      cacheDir: join(this.#options.stateDir, "cache"),
      mdns: discovery.mdns,
      multicast: discovery.multicast,
      broadcast: discovery.broadcast,
      ...(discovery.interfaces.allow.length > 0 ? { allowedInterfaces: discovery.interfaces.allow } : {}),
      deniedInterfaces: discovery.interfaces.deny,
    }, handlers);
  }

  #createPublisher(): SeedPublisher {
    return new SeedPublisher({
      targets: this.#config.seeds.publish.map(({ every, ...rest }) => ({ ...rest, everyMs: everyMs(every)! })),
      make: async (request) => {
        const made = await this.#runtime.control({ verb: "seed-export", ...request }, SELF);
        return "unchanged" in (made as object) ? "unchanged" : made as MadeBundle;
      },
      read: (content) => this.#agent.readSeed(content),
      turn: () => this.#agent.seedTurn(),
      nameOf: (nodeId) =>
        this.#agent.knownMembers().find((one) => one.nodeId === nodeId)?.membership.name ?? shortNodeId(nodeId),
      log: (level, event, message) => this.#log.log(level, "seeds", event, message),
      changed: () => this.#noteChange(),
      now: Date.now,
      rng: seededRng(randomBytes(4).readInt32LE()),
    });
  }

  /** Members known before, for discovery: their credentials were checked when they were learnt. */
  #cachedMembers(): readonly CachedMember[] {
    return this.#agent.knownMembers().map((member) => ({
      addresses: member.record.addresses.filter((address) => parseAddress(address) !== undefined),
      seenMs: member.record.startedMs,
      // Addresses of a member that has been silent for a quarter of a year are no better than a guess.
      expiresMs: member.membership.expiresMs + 90 * 86_400_000,
      verification: member.membership.expiresMs > Date.now() ? "verified" : "signed",
    }));
  }

  /** The control socket and the status page. */
  async #serve(): Promise<Surface> {
    const source = {
      getStatus: () => this.#status(),
      listSpores: (query: SporeQuery) => this.#agent.spores(query.prefix, query.after, query.max),
      subscribe: (listener: (change: StatusChange) => void) => {
        const listening = this.#bus.on("changed", "status page", listener);
        return () => listening[Symbol.dispose]();
      },
    };
    const logs = {
      error: (event: string, message: string, fields?: Readonly<Record<string, unknown>>) =>
        this.#log.log("error", "http", event, message, fields),
    };
    const view = new StatusView(source);
    const access: AccessDoor = {
      authenticate: (presented) => {
        const known = this.#agent.access.authenticate(presented, Date.now());
        this.#tellAccess();
        return known;
      },
      authorize: (subject, need) => {
        const decision = this.#agent.access.authorize(subject, need, Date.now());
        this.#tellAccess();
        return decision;
      },
    };
    const routes = {
      ...source,
      access,
      view,
      logs,
      control: (request: unknown, by: Subject) => this.#control(request, by).finally(() => view.expire()),
      exec: (request: unknown, by: Subject, signal: AbortSignal) => this.#exec(request, by, signal),
      shutdown: () => this.#stop.abort(),
      recentLogs: (wanted: { readonly count: number; readonly level?: string }) => this.#log.records(wanted),
    };
    const app = createControlApp({ ...routes, entrance: "socket", hosts: "any" });
    const control = await serveControl({ app, path: this.#options.socketPath });
    const address = httpAddress(this.#config);
    if (!address) return { control };
    const { http } = this.#config;
    try {
      const status = serveStatus({
        app: (guard) => createControlApp({ ...routes, ...guard, entrance: "tcp" }),
        ...address,
        // Another node on this machine may have the usual port; one that was asked for is not exchanged silently.
        whenTaken: address.port === STATUS_PORT ? "next" : "fail",
        ...(http.tokenFile ? { token: Deno.readTextFileSync(http.tokenFile).trim() } : {}),
        ...(http.tlsCert && http.tlsKey
          ? { tls: { cert: Deno.readTextFileSync(http.tlsCert), key: Deno.readTextFileSync(http.tlsKey) } }
          : {}),
      });
      return { control, status };
    } catch (error) {
      await control.stop();
      throw error;
    }
  }

  async #control(request: unknown, by: Subject): Promise<ControlAnswer> {
    try {
      return { ok: true, result: await this.#answer(request, by) };
    } catch (error) {
      if (error instanceof ControlFailed) return { ok: false, error: error.error };
      if (error instanceof WireError) {
        return { ok: false, error: { code: "bad-request", message: error.message, cure: "See: mycelium help" } };
      }
      if (error instanceof ConfigError) {
        return {
          ok: false,
          error: {
            code: "bad-request",
            message: error.message,
            cure: "Check it with: mycelium config validate <file>",
          },
        };
      }
      throw error;
    }
  }

  /** What the edge answers itself is asked for here, what the agent answers in the agent: at the same gate. */
  async #answer(asked: unknown, by: Subject): Promise<unknown> {
    const { verb } = record({ verb: textReader(64) })(asked as CborValue, "request");
    const request = asked as { readonly [field: string]: unknown };
    if (!isEdgeVerb(verb)) return await this.#runtime.control(this.#withKeyFile(request, by), by);
    this.#demand(by, edgeNeed(verb, request));
    this.#configures(verb, idOf(by), by.kind === "local" ? "socket" : "http");
    switch (verb) {
      case "invite-list":
        return this.#status().invites;
      case "node-drain": {
        const { node, on } = record({ node: textReader(128), on: optional(bool) })(request as CborValue, "node-drain");
        return await this.#tell(node, on === false ? "undrain" : "drain", by);
      }
      case "seed-publish": {
        const { force } = record({ force: optional(bool) })(request as CborValue, verb);
        return await this.#publisher.publish(force ?? false);
      }
      case "audit-verify":
      case "audit-search":
      case "audit-export":
      case "audit-lines": {
        const { verb: _, ...rest } = request;
        return await answerAudit(this.#audit, verb, rest, { heads: () => this.#auditHeads(), now: Date.now });
      }
      case "config-get":
        return { ...this.#configs.current(), config: redactConfig(this.#config) };
      case "config-try": {
        const read = record({ text: anyText, confirmWithinMs: optional(uint(86_400_000, 5_000)) })(
          request as CborValue,
          "config-try",
        );
        return await this.#configs.try(read.text, read.confirmWithinMs ?? 120_000).catch(rethrowAsFailed);
      }
      case "config-confirm":
        return failing(() => this.#configs.confirm());
      case "config-revert":
        return await this.#configs.revert().catch(rethrowAsFailed);
      default:
        return verb satisfies never;
    }
  }

  /**
   * Reads a request for the agent. A genesis key is named by its file: read once it is clear that who asks may use it.
   *
   * @throws {ControlFailed} Where he may not, or the file holds no key.
   */
  #withKeyFile(asked: { readonly [field: string]: unknown }, by: Subject): ControlRequest {
    const { verb } = asked;
    const request = readControlRequest(
      verb === "authority-recover" ? { ...asked, without: asked.without ?? [] } : asked,
    );
    switch (request.verb) {
      case "authority-recover":
      case "primary-recover":
      case "agreement-emergency":
      case "seed-decide": {
        const { keyFile } = record({ keyFile: optional(textReader(4_096)) })(asked as CborValue, request.verb);
        // Who may not is refused by the agent, and has no file opened for him.
        if (keyFile === undefined || !this.#agent.access.may(by, controlNeed(request), Date.now()).ok) return request;
        return { ...request, genesisSeed: readSeedFile(keyFile) };
      }
      default:
        return request;
    }
  }

  /** What the network knows of this node's audit log; nothing where it has no network. */
  async #auditHeads(): Promise<{ heads: KnownHead[]; asked: number; answered: number }> {
    try {
      const found = await this.#runtime.control({ verb: "audit-heads" }, SELF);
      return found as { heads: KnownHead[]; asked: number; answered: number };
    } catch (error) {
      if (!(error instanceof ControlFailed)) throw error;
      return { heads: [], asked: 0, answered: 0 };
    }
  }

  /** Checks the whole audit log against itself and what the network knows of it. */
  async #checkAudit(): Promise<void> {
    const report = await this.#audit.verify((await this.#auditHeads()).heads);
    const [found] = report.findings;
    if (!found || this.#ending) return;
    const why = `entry ${found.seq}: ${found.what}, ${found.why}`;
    this.#log.log("error", "audit", "audit-damage", `The audit log is not what it was: ${why}`);
    this.#runtime.dispatch({ type: "audit-damage", nowMs: Date.now(), why });
  }

  /** Notes who it is, where a verb or a command changes the configuration. */
  #configures(verb: string, by: string, entrance: string): void {
    if (verb === "revert" || verb.startsWith("config-") && verb !== "config-get") this.#configuring = { by, entrance };
  }

  #auditTrouble(message: string | undefined): void {
    if (message === undefined) {
      this.#failures.delete("audit");
      return this.#log.log("info", "audit", "audit-goes-on", "The audit log is written again");
    }
    const reason = `entries are not written down: ${message}`;
    this.#failures.set("audit", { name: "audit", health: "degraded", reason, sinceMs: Date.now() });
    this.#log.log("error", "audit", "audit-not-written", `The audit log takes no entries: ${message}`);
  }

  /** Asks at the gate for what the edge does itself. @throws {ControlFailed} */
  #demand(by: Subject, need: Need): void {
    const decision = this.#agent.access.authorize(by, need, Date.now());
    this.#tellAccess();
    if (!decision.ok) {
      throw new ControlFailed({ code: decision.reason, message: decision.message, cure: decision.cure });
    }
  }

  /** What was decided between two steps is told in the next one, which comes now. */
  #tellAccess(): void {
    if (this.#agent.access.pending) this.#runtime.dispatch({ type: "wake", nowMs: Date.now() });
  }

  /** Runs a command without output on a node and returns what it said. */
  async #tell(node: string, verb: string, by: Subject): Promise<unknown> {
    let output = "";
    using deadline = deadlineOf(30_000, this.#stop.signal);
    for await (const line of this.#exec({ verb, node, args: {} }, by, deadline.signal)) {
      if (line.type === "output") output += line.text;
      if (line.type === "error") throw new ControlFailed({ code: line.code, message: line.message, cure: line.cure });
    }
    return { node, output: output.trim() };
  }

  /** Signs a command, sends it to its node and streams the answer. */
  async *#exec(request: unknown, by: Subject, signal: AbortSignal): AsyncIterable<ExecLine> {
    try {
      const { verb, node, args = {}, timeoutMs = 30_000 } = readExec(request as CborValue, "exec");
      const self = this.#status().node;
      if (node === "this" || node === self.nodeId || node === self.name) {
        // For this very node there is nothing to sign.
        const command = localCommand(verb, args);
        this.#demand(by, commandNeed(command.verb, self.name));
        const entrance = by.kind === "local" ? "socket" : "http";
        const target = self.nodeId;
        this.#audit.append({ atMs: Date.now(), action: "command", by: idOf(by), entrance, target, detail: verb });
        this.#configures(verb, idOf(by), entrance);
        yield* this.#runHere(command, timeoutMs, signal);
        return yield { type: "end", code: 0, message: "" };
      }
      const signed = await this.#runtime.control(
        readControlRequest({ verb: "sign-command", node, command: verb, args, ttlMs: 60_000 }),
        by,
      ) as { readonly nodeId: string; readonly body: Uint8Array; readonly addresses: readonly string[] };
      const network = this.#runtime.network;
      if (!network) throw new CallError("unreachable", "this node has no network");
      using reaching = deadlineOf(timeoutMs, signal);
      await this.#reach(network, signed, reaching.signal);
      for await (const message of network.call(signed.nodeId, "exec", signed.body, { timeoutMs, signal })) {
        const line = decodeAs(message, readCommandLine);
        if (line.o !== undefined) yield { type: "output", text: line.o };
        if (line.e !== undefined) return yield { type: "end", code: line.e, message: "" };
      }
      throw new CallError("unreachable", "the answer was cut off");
    } catch (error) {
      if (error instanceof ControlFailed) yield { type: "error", ...error.error };
      else if (error instanceof CallError) {
        yield {
          type: "error",
          code: error.code,
          message: error.message,
          cure: "See whether the node is reachable: mycelium peers",
        };
      } else if (error instanceof WireError) {
        yield { type: "error", code: "bad-request", message: error.message, cure: "See: mycelium exec --help" };
      } else {
        const message = error instanceof Error ? error.message : String(error);
        yield { type: "error", code: "command-failed", message, cure: "See: mycelium logs" };
      }
    }
  }

  /** Runs a command on this node, bounded as on any other. */
  async *#runHere(command: SignedCommand, timeoutMs: number, signal: AbortSignal): AsyncIterable<ExecLine> {
    using ends = deadlineOf(timeoutMs, signal);
    let sent = 0;
    for await (const text of this.#commands.run(command, "local", ends.signal)) {
      sent += text.length;
      if (sent > LIMITS.commandOutputBytesMax) throw new CallError("overloaded", "the output is too long");
      yield { type: "output", text };
    }
    if (ends.late) throw new CallError("timeout", `the command did not end within ${timeoutMs} ms`);
  }

  async #reach(
    network: Network,
    target: { readonly nodeId: string; readonly addresses: readonly string[] },
    signal: AbortSignal,
  ): Promise<void> {
    if (network.peers().some((peer) => peer.nodeId === target.nodeId)) return;
    let last: unknown = new CallError("unreachable", "the node has no known address");
    for (const address of target.addresses) {
      if (this.#runtime.discovery?.mayDial(address, { loopback: true }).ok === false) continue;
      try {
        using one = deadlineOf(5_000, signal);
        await network.dial(address, { signal: one.signal });
        return;
      } catch (error) {
        last = error;
      }
    }
    throw last instanceof CallError
      ? last
      : new CallError("unreachable", "no address of the node answered", { cause: last });
  }

  #status(): Status {
    const nowMs = Date.now();
    const counters = this.#runtime.network?.counters();
    const refusals: Record<string, number> = {};
    for (const [reason, count] of this.#runtime.refusals) refusals[reason] = count;
    const config = this.#configs.current();
    return this.#agent.status({
      nowMs,
      version: {
        version: BUILD_INFO.version,
        commit: BUILD_INFO.commit,
        builtAt: BUILD_INFO.builtAt,
        runtime: `deno ${Deno.version.deno}`,
      },
      sources: this.#runtime.sources,
      traffic: {
        bytesIn: counters?.bytesIn ?? 0,
        bytesOut: counters?.bytesOut ?? 0,
        callsIn: counters?.callsIn ?? 0,
        callsOut: counters?.callsOut ?? 0,
        channels: this.#runtime.network?.peers().length ?? 0,
      },
      refusals,
      process: { ...readProcessStat(), uptimeMs: nowMs - this.#startedMs },
      components: [this.#disk(nowMs), this.#listening(), ...this.#seedHealth(nowMs), ...this.#failures.values()],
      events: this.#log.events(),
      audit: this.#audit.status(),
      config: { version: config.version, ...(config.tryUntilMs ? { tryUntilMs: config.tryUntilMs } : {}) },
      seeds: {
        sources: (this.#runtime.discovery?.describe().seeds ?? []).map((one) => ({ ...one, from: shownUrl(one.from) })),
        targets: this.#publisher.view(),
      },
    });
  }

  #disk(nowMs: number): ComponentStatus {
    if (this.#stateDiskFree && nowMs - this.#stateDiskFree.atMs < 30_000) return this.#stateDiskFree.component;
    const { bavail, bsize } = statfsSync(this.#options.stateDir);
    const free = bavail * bsize;
    const component: ComponentStatus = free < DISK_FREE_BYTES_MIN
      ? {
        name: "disk",
        health: free < DISK_FREE_BYTES_MIN / 8 ? "failed" : "degraded",
        reason: `${Math.floor(free / 2 ** 20)} MiB are free for the state`,
        sinceMs: nowMs,
      }
      : { name: "disk", health: "ok", reason: "", sinceMs: this.#startedMs };
    this.#stateDiskFree = { atMs: nowMs, component };
    return component;
  }

  /** Seeds that cannot be published are missed only when the network is gone: it is said before. */
  #seedHealth(nowMs: number): readonly ComponentStatus[] {
    const targets = this.#publisher.view();
    if (targets.length === 0) return [];
    const bad = targets.filter((one) => one.failures >= SEED_FAILURES_MIN);
    const reason = bad.map((one) => `cannot publish to ${one.to}: ${one.reason}`).join("; ");
    return [{ name: "seeds", health: bad.length > 0 ? "degraded" : "ok", reason, sinceMs: nowMs }];
  }

  #listening(): ComponentStatus {
    const network = this.#runtime.network;
    const up = !network || network.addresses().length > 0;
    return {
      name: "network",
      health: up ? "ok" : "degraded",
      reason: up ? "" : "not listening yet",
      sinceMs: this.#startedMs,
    };
  }

  /** Periodic work of the edge. */
  #timers(timers: DisposableStack): void {
    const every = (ms: number, work: () => void) => {
      const id = setInterval(work, ms);
      timers.defer(() => clearInterval(id));
    };
    every(10 * 60_000, () => {
      this.#runtime.dispatch({
        type: "capabilities",
        nowMs: Date.now(),
        capabilities: measureCapabilities(this.#options.stateDir),
      });
    });
    every(15_000, () => this.#audit.tick(Date.now()));
    const checkAudit = () =>
      void this.#checkAudit().catch((error) => this.#log.log("error", "audit", "audit-unchecked", String(error)));
    const soon = setTimeout(checkAudit, AUDIT_CHECK_AFTER_MS);
    timers.defer(() => clearTimeout(soon));
    every(AUDIT_CHECK_MS, checkAudit);
    // Addresses change with DHCP, with cables and with sleep.
    let known = "";
    every(15_000, () => {
      const addresses = this.#runtime.network?.addresses() ?? [];
      if (addresses.length === 0 || addresses.join(" ") === known) return;
      known = addresses.join(" ");
      this.#runtime.dispatch({ type: "addresses", nowMs: Date.now(), addresses });
      this.#runtime.announce();
    });
    const hangUp = () => void this.#reload();
    Deno.addSignalListener("SIGHUP", hangUp);
    timers.defer(() => Deno.removeSignalListener("SIGHUP", hangUp));
  }

  async #reload(): Promise<void> {
    const before = this.#options;
    try {
      const { config } = await before.reloadConfig();
      this.#options = { ...before, config };
      await this.#apply(this.#merged(this.#configs.current().text));
      this.#failures.delete("config");
      this.#log.log("info", "node", "reloaded", "The configuration was read again");
    } catch (error) {
      this.#options = before;
      this.#log.log("error", "node", "reload-failed", error instanceof Error ? error.message : String(error));
    }
  }

  /** The configuration of the files with a version of ours over it. */
  #merged(text: string): Config {
    const flat: Record<string, unknown> = {};
    for (const name of SETTINGS.keys()) {
      flat[name] = name.split(".").reduce<unknown>(
        (at, part) => (at as Record<string, unknown> | undefined)?.[part],
        this.#options.config,
      );
    }
    const version = parseConfigText(text, "configuration version");
    // It names programs and files to write: a matter of the machine, and not of whoever may configure from afar.
    if (version.values.has("seeds.publish")) {
      const problem = { source: "configuration version", path: "seeds.publish", cause: "a version may not change it" };
      throw new ConfigError([{ ...problem, wanted: "it in the configuration file of the machine" }]);
    }
    return resolveConfig(
      [configOfFlags(flat), version],
      this.#options.config.name,
    ).config;
  }

  /**
   * Puts a configuration into force as far as a running node can; the rest counts from the next start. One after the
   * other: a signal may come while a version is tried.
   *
   * @throws {StartFailed} Where the network does not come up with it; the one before is in force again then.
   */
  #apply(config: Config): Promise<void> {
    const done = this.#applying.then(() => this.#applyOne(config));
    this.#applying = done.catch(() => {});
    return done;
  }

  async #applyOne(config: Config): Promise<void> {
    const before = this.#config;
    try {
      await this.#switchTo(config);
    } catch (error) {
      this.#log.log("error", "node", "config-refused", error instanceof Error ? error.message : String(error));
      // Where not even that works, the node is not to be reached by anybody: better started anew.
      await this.#switchTo(before).catch((fatal) => this.#fatal(fatal));
      throw error;
    }
  }

  async #switchTo(config: Config): Promise<void> {
    const before = this.#config;
    this.#config = config;
    this.#log.setLevel(config.log.level);
    const differ = (part: (one: Config) => unknown) => JSON.stringify(part(before)) !== JSON.stringify(part(config));
    if (differ((one) => [one.listen, one.port, one.advertise])) await this.#runtime.restartNetwork();
    else if (differ((one) => one.discovery)) await this.#runtime.restartDiscovery();
    if (differ((one) => one.security)) {
      this.#runtime.dispatch({ type: "incident-settings", nowMs: Date.now(), settings: incidentSettings(config) });
    }
    if (differ((one) => one.seeds) && !this.#ending) {
      await this.#publisher.stop();
      this.#publisher = this.#createPublisher();
      this.#publisher.start();
    }
  }

  #noteChange(): void {
    if (this.#ending) return;
    // Many events come together: watchers hear of them once.
    this.#changed ??= setTimeout(() => {
      this.#changed = undefined;
      this.#bus.emit("changed", { type: "status" });
    }, 50);
  }

  #restart(): void {
    // Non-zero, so that a service manager with Restart=on-failure starts it again.
    this.#exitCode = 75;
    this.#restarting ??= setTimeout(() => this.#stop.abort(), 100);
  }

  /** Stops in order: no new requests, then the network, then what others see of us; bounded by the drain deadline. */
  async #shutDown(surface: Surface | undefined): Promise<void> {
    this.#log.log("info", "node", "stopping", "Stopping");
    this.#ending = true;
    clearTimeout(this.#changed);
    clearTimeout(this.#restarting);
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<"late">((resolve) =>
      timer = setTimeout(() => resolve("late"), this.#config.limits.drainMs)
    );
    const done = (async () => {
      // One that fails to stop must not keep the others.
      for (
        const stop of [
          () => this.#publisher?.stop(),
          () => surface?.status?.stop(),
          () => this.#runtime.stop(),
          () => surface?.control.stop(),
        ]
      ) {
        try {
          await stop();
        } catch (error) {
          this.#log.log("error", "node", "stop-failed", error instanceof Error ? error.message : String(error));
        }
      }
      return "done" as const;
    })();
    const how = await Promise.race([done, late]);
    clearTimeout(timer);
    this.#log.log(
      how === "done" ? "info" : "warn",
      "node",
      "stopped",
      how === "done" ? "Stopped" : "Stopped at the drain deadline",
    );
  }
}

/**
 * Keeps what NATs remember, often 30 s. Who is there is found out by failure detection, long before QUIC gives a silent
 * channel up after three of these. One ping and its answer take some 60 bytes each: 100 bytes a second with 32 channels.
 */
const KEEP_ALIVE_MS = 20_000;

/** The audit log is checked as a whole when the node has found its network, and then every day. */
const AUDIT_CHECK_AFTER_MS = 60_000;
const AUDIT_CHECK_MS = 86_400_000;

/** Failures in a row that are worth a person's look. */
const SEED_FAILURES_MIN = 3;

/** State folder with less free space than this is worth a warning. */
const DISK_FREE_BYTES_MIN = 256 << 20;

/** Lifetime of issued credentials; shorter ones are for tests of rotation. */
function credentialLifetimeMs(): number {
  const given = Number(Deno.env.get("MYCELIUM_TEST_CREDENTIAL_LIFETIME_MS"));
  return Number.isSafeInteger(given) && given >= 1_000 ? given : CREDENTIAL_LIFETIME_MS;
}

/** What the parts of a running node tell each other. */
interface NodeEvents {
  /** Something that a watcher of the status may want to see. */
  readonly changed: StatusChange;
  /** A line of the log, as JSON. */
  readonly log: { readonly line: string };
}

/** The node's log, told to the bus as well. */
class NodeLog {
  readonly #root: RootLogger;
  readonly #children = new Map<string, Logger>();
  readonly #bus: EventBus<NodeEvents>;

  constructor(options: {
    readonly level: LogLevel;
    readonly format: "auto" | "text" | "json";
    readonly write: (line: string) => void;
    readonly bus: EventBus<NodeEvents>;
  }) {
    const decoder = new TextDecoder();
    const { level, format, write } = options;
    this.#root = createLogger({ level, format, write: (line) => write(decoder.decode(line).trimEnd()) });
    this.#bus = options.bus;
  }

  setLevel(level: LogLevel): void {
    this.#root.level = level;
  }

  log(level: LogLevel, component: string, event: string, message: string, fields: LogFields = {}): void {
    let child = this.#children.get(component);
    if (!child) this.#children.set(component, child = this.#root.child(component));
    const before = this.#root.recent({ count: 1 })[0];
    child[level](event, message, fields);
    const line = this.#root.recent({ count: 1 })[0];
    if (!line || line === before) return;
    this.#bus.emit("log", { line: JSON.stringify(line) });
    if (level !== "debug") {
      const shown = { atMs: Date.parse(line.ts), level, event, message };
      this.#bus.emit("changed", { type: "event", event: shown });
    }
  }

  /** The latest lines as JSON, oldest first. */
  recent(count: number): readonly string[] {
    return count === 0 ? [] : this.#root.recent({ count }).map((line) => JSON.stringify(line));
  }

  records(wanted: { readonly count: number; readonly level?: string }): readonly unknown[] {
    const level = LOG_LEVELS.find((one) => one === wanted.level);
    return this.#root.recent({ count: wanted.count, ...(level ? { level } : {}) });
  }

  /** The latest lines as status shows them. */
  events(): readonly EventStatus[] {
    return this.#root.recent({ count: 64, level: "info" }).map(({ ts, level, event, msg }) => ({
      atMs: Date.parse(ts),
      level,
      event,
      message: msg,
    }));
  }

  flush(): void {
    this.#root.flush();
  }
}

/** What a node is reached by on its own machine. */
interface Surface {
  readonly control: RunningServer;
  readonly status?: RunningServer;
}

/** A command of the person at this machine. */
function localCommand(verb: string, args: Readonly<Record<string, string>>): SignedCommand {
  const known = COMMAND_VERBS.find((one) => one === verb);
  if (!known) throw new CallError("bad-request", `no command "${verb}", wanted one of ${COMMAND_VERBS.join(", ")}`);
  const nowMs = Date.now();
  return {
    verb: known,
    args: new Map(Object.entries(args)),
    target: new Uint8Array(32),
    issuedMs: nowMs,
    expiresMs: nowMs,
    nonce: new Uint8Array(16),
  };
}

/** An agent from what the store holds. */
function agentOf(stateDir: string, options: AgentOptions): Agent {
  try {
    return new Agent(options);
  } catch (error) {
    if (!(error instanceof WireError) && !(error instanceof InvariantError)) throw error;
    throw new StateError(
      `Cannot use "${stateDir}": ${error.message}`,
      "Restore the folder from a backup; or move it away and join again with a new invite",
      { cause: error },
    );
  }
}

/** A signal that aborts with another one or after some time; takes its timer back. */
function deadlineOf(
  ms: number,
  signal: AbortSignal,
): Disposable & { readonly signal: AbortSignal; readonly late: boolean } {
  const aborter = new AbortController();
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    aborter.abort(new DOMException(`not done within ${ms} ms`, "TimeoutError"));
  }, ms);
  return {
    signal: AbortSignal.any([signal, aborter.signal]),
    get late() {
      return late;
    },
    [Symbol.dispose]: () => clearTimeout(timer),
  };
}

/** A key of 32 bytes in a file. */
function readSeedFile(path: string): Uint8Array {
  let seed: Uint8Array | undefined;
  try {
    // Neither a pipe, which would hold up everything, nor a file without end.
    const { isFile, size } = Deno.statSync(path);
    if (isFile && size === 32) seed = Deno.readFileSync(path);
  } catch (error) {
    throw new ControlFailed({
      code: "not-found",
      message: `Cannot read key "${path}": ${(error as Error).message}`,
      cure: "Name a file that the agent may read",
    });
  }
  if (seed?.length === 32) return seed;
  throw new ControlFailed({
    code: "bad-request",
    message: `Cannot use key "${path}": wanted a file of 32 bytes`,
    cure: "It is the file that genesis export made",
  });
}

function rethrowAsFailed(error: unknown): never {
  if (error instanceof ConfigError) throw error;
  const message = error instanceof Error ? error.message : String(error);
  throw new ControlFailed({ code: "conflict", message, cure: "See: mycelium config show" });
}

function failing<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    return rethrowAsFailed(error);
  }
}
