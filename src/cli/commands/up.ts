/** `up`, `init`, `join`: a node into a network. @module */

import type { Command } from "commander";
import { join as joinPath, resolve } from "node:path";
import { type Config, configOfFlags, loadConfig, type LoadedConfig } from "../../edge/config.ts";
import { parseInvite } from "../../identity/invite.ts";
import type { Status } from "../../agent/status.ts";
import { localClient, type StatusClient } from "../client.ts";
import { type Context, countFlag, durationFlag, type Register } from "../context.ts";
import type { NodeListening } from "../deps.ts";
import { CliError, EXIT, exitCodeOf, usageError } from "../exit.ts";
import { instant, plural, safe } from "../output.ts";
import { approvalHint, failureError, followJoin, type JoinOutcome, sleep } from "../progress.ts";
import { defaultStateDir } from "../socket.ts";

/** Longest invite that is read from a file or stdin. */
const INVITE_CHARS_MAX = 8_192;

interface UpFlags {
  readonly name?: string;
  readonly network?: string;
  readonly join?: string;
  readonly inviteFile?: string;
  readonly listen?: readonly string[];
  readonly port?: string;
  readonly http?: string;
  readonly mdns?: boolean;
  readonly multicast?: boolean;
  readonly broadcast?: boolean;
  readonly domain?: readonly string[];
  readonly seedUrl?: readonly string[];
  readonly seedFile?: readonly string[];
  readonly role?: string;
  readonly pool?: string;
  readonly approval?: boolean;
  readonly logLevel?: string;
  readonly logFormat?: string;
}

/** Setting and flag by the name that commander gives the flag. */
const FLAG_SETTINGS: Readonly<Record<string, readonly [setting: string, flag: string]>> = {
  name: ["name", "--name"],
  role: ["role", "--role"],
  pool: ["pool", "--pool"],
  listen: ["listen", "--listen"],
  port: ["port", "--port"],
  http: ["http.listen", "--http"],
  mdns: ["discovery.mdns", "--no-mdns"],
  multicast: ["discovery.multicast", "--no-multicast"],
  broadcast: ["discovery.broadcast", "--no-broadcast"],
  domain: ["discovery.domains", "--domain"],
  seedUrl: ["discovery.seedUrls", "--seed-url"],
  seedFile: ["discovery.seedFiles", "--seed-file"],
  network: ["join.network", "--network"],
  approval: ["join.approval", "--approval"],
  logLevel: ["log.level", "--log-level"],
  logFormat: ["log.format", "--log-format"],
};

/** Adds the commands. */
export function registerUp(program: Command, register: Register): void {
  const up = nodeOptions(
    program.command("up").summary("run this machine's node in the foreground")
      .description("Runs this machine's node until it is stopped. Ctrl-C stops it in order, a second one at once."),
  )
    .option("--network <name>", "form a network of this name where there is none and nothing to join")
    .option("--approval", "in a network formed here, an operator approves each join")
    .option("--join <invite>", "join with this invite; others on this machine can see it, --invite-file hides it")
    .option("--invite-file <path>", "join with the invite in this file; - is stdin");
  examples(up, [
    ["mycelium up --network home", "a new network of one node, with a status page"],
    ["mycelium up", "the same node again, from its state folder"],
    ["mycelium up --invite-file invite.txt", "a new node of an existing network"],
    ["mycelium up --state ./two --port 0 --http off", "a second node on the same machine"],
  ]);
  register(up, (context, _args, command) => runUp(context, command.opts<UpFlags>(), command));
  const agent = nodeOptions(
    program.command("agent", { hidden: true }).description("What the systemd unit runs: `up`."),
  );
  register(agent, (context, _args, command) => runUp(context, command.opts<UpFlags>(), command));

  const down = program.command("down").summary("stop the node of this machine in order")
    .description("Tells the agent that runs to stop, and waits until it has. It stays a member and comes back with up.")
    .option("--timeout <duration>", "how long to wait", "30s");
  register(down, runDown);

  const init = nodeOptions(
    program.command("init").argument("[network]", "name of the new network", "mycelium")
      .summary("form a new network")
      .description("Forms a network: by the agent that runs, else by a new node in the foreground, like up --network."),
  ).option("--approval", "an operator approves each join");
  examples(init, [["mycelium init home", "form the network and print an invite"]]);
  register(init, runInit);

  const join = nodeOptions(
    program.command("join").argument("[invite]", "myc1…, or - for stdin")
      .summary("join a network with an invite")
      .description(
        "Gives the invite to the agent that runs and follows it until this machine is a member; without an agent it " +
          "starts one in the foreground. An invite is a secret, and what stands on a command line can be seen by " +
          "everybody on the machine: pass it by stdin or --invite-file where others have accounts.",
      ),
  )
    .option("--invite-file <path>", "read the invite from this file; - is stdin")
    .option("--detach", "do not wait: end as soon as the agent has taken the invite")
    .option("--timeout <duration>", "how long to wait until this machine is a member", "10m");
  examples(join, [
    ["mycelium join --invite-file invite.txt", ""],
    ["ssh member mycelium invite create --quiet | mycelium join -", "the invite is never on a command line"],
    ["mycelium join myc1q2w3… --state ./mycelium-data", "start a node in this folder and join"],
  ]);
  register(join, runJoin);
}

function nodeOptions(command: Command): Command {
  const many = (value: string, all: readonly string[] | undefined) => [...all ?? [], value];
  return command
    .option("--name <name>", "name of this node (default: the host name)")
    .option("--role <role>", "auto, sclerotium, rhizomorph or hypha (default: auto)")
    .option("--pool <pool>", "resource pool (default: default)")
    .option("--listen <address>", "address to listen on, may be repeated: *, IP, IP:PORT (default: *)", many)
    .option("--port <port>", "port for QUIC and TCP; 0 takes a free one (default: 4871)")
    .option("--http <address>", "where the status page is, or off (default: 127.0.0.1:4873)")
    .option("--domain <domain>", "ask this domain's DNS for the network, may be repeated", many)
    .option("--seed-url <url>", "read seeds from here, may be repeated", many)
    .option("--seed-file <path>", "read seeds from this file, may be repeated", many)
    .option("--no-mdns", "without multicast DNS")
    .option("--no-multicast", "without multicast beacons")
    .option("--no-broadcast", "without broadcast beacons")
    .option("--log-level <level>", "debug, info, warn or error (default: info; on a terminal only warnings are shown)")
    .option("--log-format <format>", "auto, text or json (default: auto)");
}

/** Puts examples under a command's help. */
export function examples(command: Command, lines: readonly (readonly [string, string])[]): void {
  const width = Math.max(...lines.filter(([, why]) => why !== "").map(([line]) => line.length), 0);
  const text = lines.map(([line, why]) => `  ${why === "" ? line : `${line.padEnd(width)}   # ${why}`}`);
  command.addHelpText("after", `\nExamples:\n${text.join("\n")}`);
}

/** The configuration of this machine under the flags of `command`. */
export async function configOf(context: Context, command: Command): Promise<LoadedConfig> {
  const values: Record<string, unknown> = {};
  const names: Record<string, string> = {};
  for (const [flag, value] of Object.entries(command.opts())) {
    const known = FLAG_SETTINGS[flag];
    if (!known || command.getOptionValueSource(flag) !== "cli") continue;
    values[known[0]] = value;
    names[known[0]] = known[1];
  }
  const { state, socket, config } = context.flags;
  if (state !== undefined) [values.state, names.state] = [state, "--state"];
  if (socket !== undefined) [values.socket, names.socket] = [socket, "--socket"];
  return await loadConfig({
    ...(config === undefined ? {} : { file: resolve(context.deps.cwd, config) }),
    env: context.deps.env,
    hostName: context.deps.hostName,
    over: [configOfFlags(values, names)],
  });
}

/** State folder and socket of a configuration. */
export function placesOf(context: Context, config: Config): { readonly stateDir: string; readonly socketPath: string } {
  const { deps } = context;
  const stateDir = resolve(deps.cwd, config.state ?? defaultStateDir(deps));
  // systemd sets RUNTIME_DIRECTORY for a unit with RuntimeDirectory=.
  const runtime = deps.env.RUNTIME_DIRECTORY?.split(":")[0];
  const preset = runtime && config.state === undefined
    ? joinPath(runtime, "agent.sock")
    : joinPath(stateDir, "agent.sock");
  return { stateDir, socketPath: config.socket === undefined ? preset : resolve(deps.cwd, config.socket) };
}

async function runUp(context: Context, flags: UpFlags, command: Command): Promise<number> {
  if (flags.join !== undefined && flags.inviteFile !== undefined) {
    throw usageError("Cannot use --join together with --invite-file: give one of the two");
  }
  const loaded = await configOf(context, command);
  const given = flags.join ?? (flags.inviteFile === undefined ? undefined : { file: flags.inviteFile });
  const invite = await inviteOf(context, given ?? inviteFromSettings(context, loaded.config), given !== undefined);
  const network = loaded.config.join.network;
  return await runNode(context, command, loaded, {
    ...(invite === undefined ? {} : { invite }),
    ...(network === undefined || invite !== undefined
      ? {}
      : { form: { name: network, approval: loaded.config.join.approval } }),
  });
}

function inviteFromSettings(context: Context, config: Config): string | { readonly file: string } | undefined {
  if (context.deps.env.MYCELIUM_INVITE) return context.deps.env.MYCELIUM_INVITE;
  return config.join.inviteFile === undefined ? undefined : { file: config.join.inviteFile };
}

async function runNode(
  context: Context,
  command: Command,
  loaded: LoadedConfig,
  start: { readonly invite?: string; readonly form?: { readonly name: string; readonly approval: boolean } },
): Promise<number> {
  const { deps, out } = context;
  const { stateDir, socketPath } = placesOf(context, loaded.config);
  for (const warning of loaded.warnings) out.warn(warning);
  const running = await deps.openControl(socketPath).catch((error) => {
    if (error instanceof CliError && error.code === "no-agent") return undefined;
    throw error;
  });
  if (running) {
    using client = running;
    const { process } = await client.status();
    throw new CliError(`An agent runs already with this state folder (process ${process.pid})`, {
      code: "already-running",
      cure: `See it with: mycelium status --socket ${socketPath}. A second node needs another folder: --state`,
    });
  }
  // Following ends with the node, whichever stops first.
  const ended = new AbortController();
  let following: Promise<void> = Promise.resolve();
  try {
    return await deps.startNode({
      config: withLogFormat(context, loaded.config),
      stateDir,
      socketPath,
      ...start,
      signal: deps.signal,
      reloadConfig: async () => {
        const again = await configOf(context, command);
        return { ...again, config: withLogFormat(context, again.config) };
      },
      onListening: (listening) => {
        following = followStart(context, listening, start, AbortSignal.any([deps.signal, ended.signal])).catch(
          async (error: unknown) => {
            // A node that stops takes its socket away first; one that runs on unwatched is worth a line and no more.
            await sleep(1_000, ended.signal);
            if (!ended.signal.aborted) out.warn(error instanceof Error ? error.message : String(error));
          },
        );
      },
      writeLog: (line) => {
        if (!hidesLog(context, loaded, line)) out.foreign(line);
      },
    });
  } finally {
    ended.abort();
    await following;
    out.endProgress();
  }
}

/** The log's form is settled here, where it is known whether a person reads along. */
function withLogFormat(context: Context, config: Config): Config {
  if (config.log.format !== "auto") return config;
  return { ...config, log: { ...config.log, format: context.deps.stderr.isTerminal ? "text" : "json" } };
}

/** A person at a terminal sees progress instead of the log's everyday lines, unless a level was asked for. */
function hidesLog(context: Context, loaded: LoadedConfig, line: string): boolean {
  return context.deps.stderr.isTerminal && loaded.origins.get("log.level")?.source === "default" &&
    /^\S+ (debug|info)\s/i.test(line);
}

async function followStart(
  context: Context,
  listening: NodeListening,
  start: { readonly form?: unknown },
  signal: AbortSignal,
): Promise<void> {
  const { deps, out } = context;
  using opened = listening.node ? undefined : await deps.openControl(listening.socket);
  const client = opened ?? localClient(listening.node!);
  const page = listening.statusUrl === undefined ? "off" : listening.statusUrl;
  if (!out.json) {
    out.line(`Node       ${listening.nodeId}`);
    out.line(`Status     ${page}`);
    out.line(`Socket     ${listening.socket}`);
  }
  const outcome = await followJoin(client, { out, signal, now: deps.now, sinceMs: 0, endWhenStuck: false });
  if (outcome.type === "interrupted") return;
  if (outcome.type === "idle") {
    out.note("This node has no network yet. In another terminal:");
    out.note(`  mycelium init home --socket ${listening.socket}`);
    out.note(`  mycelium join --invite-file FILE --socket ${listening.socket}`);
    const later = await followUntilMember(client, signal);
    if (!later) return;
    await printReady(context, client, listening, later, false);
    return;
  }
  await printReady(context, client, listening, outcome.status, start.form !== undefined);
}

/** Waits quietly, for a node that was started without anything to do. */
async function followUntilMember(client: StatusClient, signal: AbortSignal): Promise<Status | undefined> {
  while (!signal.aborted) {
    const status = await client.status();
    if (status.bootstrap.stage === "verified") return status;
    await sleep(1_000, signal);
  }
  return undefined;
}

async function printReady(
  context: Context,
  client: StatusClient,
  listening: NodeListening,
  status: Status,
  formed: boolean,
): Promise<void> {
  const { out } = context;
  const invite = formed && status.members.length <= 1 && status.invites.length === 0
    ? await createInvite(client)
    : undefined;
  if (out.json) {
    out.record({
      event: "ready",
      nodeId: listening.nodeId,
      networkId: status.network?.networkId,
      networkName: status.network?.name,
      statusUrl: listening.statusUrl,
      socket: listening.socket,
      invite: invite?.token,
      inviteExpiresMs: invite?.expiresMs,
    });
    return;
  }
  printNetwork(context, status);
  out.line(`Ready      as ${status.node.role}, with ${plural(status.members.length, "member")}`);
  if (invite) printInvite(context, invite);
}

function printNetwork(context: Context, status: Status): void {
  const { network } = status;
  if (network) context.out.line(`Network    ${safe(network.name)}, ${network.networkId}`);
}

interface CreatedInvite {
  readonly token: string;
  readonly expiresMs: number;
}

async function createInvite(client: StatusClient): Promise<CreatedInvite> {
  return readCreatedInvite(await client.control({ verb: "invite-create" }));
}

/** Reads the answer to `init` or `invite-create`. */
export function readCreatedInvite(value: unknown): CreatedInvite & { readonly id: string } {
  const answer = (typeof value === "object" && value !== null ? value : {}) as Record<string, unknown>;
  const token = answer.token ?? answer.invite;
  if (typeof token !== "string" || !token.startsWith("myc1")) {
    throw new CliError("Cannot read the agent's answer: there is no invite in it", { code: "bad-answer" });
  }
  return {
    token,
    id: typeof answer.id === "string" ? answer.id : "",
    expiresMs: typeof answer.expiresMs === "number" ? answer.expiresMs : NaN,
  };
}

function printInvite(context: Context, invite: CreatedInvite): void {
  const until = Number.isFinite(invite.expiresMs) ? ` (a secret; once, until ${instant(invite.expiresMs)})` : "";
  context.out.line();
  context.out.line(`To add a machine, on it${until}:`);
  context.out.line();
  context.out.line(`  mycelium join ${invite.token}`);
  context.out.line();
}

async function runDown(context: Context, _args: readonly string[], command: Command): Promise<number> {
  const { deps, out } = context;
  const timeoutMs = durationFlag("--timeout", command.opts<{ timeout: string }>().timeout)!;
  using client = await context.agent();
  await client.shutdown();
  const untilMs = deps.now() + timeoutMs;
  out.progress("Stopping");
  try {
    while (deps.now() < untilMs && !deps.signal.aborted) {
      const still = await deps.openControl(client.socket).catch((error) => {
        if (error instanceof CliError && error.code === "no-agent") return undefined;
        throw error;
      });
      if (!still) {
        if (out.json) out.document({ stopped: true });
        else out.endProgress("The node has stopped");
        return EXIT.ok;
      }
      still[Symbol.dispose]();
      await sleep(100, deps.signal);
    }
  } finally {
    out.endProgress();
  }
  if (deps.signal.aborted) return EXIT.interrupted;
  throw new CliError("The node has not stopped yet", {
    code: "timeout",
    cure: "It may still be stopping: see mycelium status",
    exitCode: EXIT.timedOut,
  });
}

async function runInit(context: Context, args: readonly string[], command: Command): Promise<number> {
  const { out } = context;
  const name = args[0] ?? "mycelium";
  const loaded = await configOf(context, command);
  if (!/^[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?$/.test(name)) {
    throw usageError(`Cannot name a network "${name}": wanted letters, digits, dots and dashes, at most 63`);
  }
  const approval = loaded.config.join.approval;
  const running = await context.agentIfAny();
  if (!running) return await runNode(context, command, loaded, { form: { name, approval } });
  using client = running;
  const result = await client.control({ verb: "init", name, approval });
  const status = await client.status();
  const answer = (typeof result === "object" && result !== null ? result : {}) as Record<string, unknown>;
  const invite = readCreatedInvite(
    answer.invite === undefined ? await client.control({ verb: "invite-create" }) : answer,
  );
  if (out.json) {
    const networkId = answer.networkId ?? status.network?.networkId;
    out.document({ networkId, networkName: name, invite: invite.token, inviteExpiresMs: invite.expiresMs });
    return EXIT.ok;
  }
  printNetwork(context, status);
  printInvite(context, invite);
  return EXIT.ok;
}

async function runJoin(context: Context, args: readonly string[], command: Command): Promise<number> {
  const { deps, out } = context;
  const flags = command.opts<{ inviteFile?: string; detach?: boolean; timeout?: string }>();
  if (args[0] !== undefined && flags.inviteFile !== undefined) {
    throw usageError("Cannot use an invite together with --invite-file: give one of the two");
  }
  const timeoutMs = durationFlag("--timeout", flags.timeout)!;
  const source = args[0] === "-" ? { file: "-" } : args[0] ??
    (flags.inviteFile === undefined ? deps.env.MYCELIUM_INVITE : { file: flags.inviteFile });
  if (source === undefined) {
    throw usageError(
      "There is no invite",
      "Give it as an argument, by stdin (mycelium join -) or with --invite-file. " +
        "A member makes one with: mycelium invite create",
    );
  }
  const invite = await inviteOf(context, source, true);
  const running = await context.agentIfAny();
  if (!running) {
    if (flags.detach) {
      throw new CliError("No agent runs that could take the invite", {
        code: "no-agent",
        cure: "Leave --detach away to start one in the foreground, or start one first: mycelium up",
        exitCode: EXIT.noAgent,
      });
    }
    return await runNode(context, command, await configOf(context, command), { invite: invite! });
  }
  using client = running;
  const sinceMs = (await client.status()).nowMs;
  const result = await client.control({ verb: "join", invite });
  if (flags.detach) {
    if (out.json) out.document(result ?? {});
    else out.note("The agent took the invite. See how it goes with: mycelium status --watch");
    return EXIT.ok;
  }
  const outcome = await followJoin(client, {
    out,
    signal: deps.signal,
    now: deps.now,
    timeoutMs,
    sinceMs,
    endWhenStuck: true,
  });
  return endJoin(context, outcome);
}

function endJoin(context: Context, outcome: JoinOutcome): number {
  const { out } = context;
  const { status } = outcome;
  const { stage } = status.bootstrap;
  switch (outcome.type) {
    case "verified":
      if (out.json) {
        const { network, node, members } = status;
        out.document({
          stage,
          nodeId: node.nodeId,
          role: node.role,
          networkId: network?.networkId,
          networkName: network?.name,
          members: members.length,
        });
      } else {
        printNetwork(context, status);
        out.line(`Joined     as ${status.node.role}, with ${plural(status.members.length, "member")}`);
      }
      return EXIT.ok;
    case "stuck":
      throw failureError(outcome.failure, exitCodeOf(outcome.failure.code));
    case "interrupted":
      out.note("The agent goes on joining. See how it goes with: mycelium status --watch");
      return EXIT.interrupted;
    case "timeout":
      if (stage === "awaiting-approval") {
        throw new CliError("An operator has not approved this machine yet", {
          code: "approval-pending",
          cure: approvalHint(status),
          exitCode: EXIT.notReady,
        });
      }
      throw new CliError(`This machine is not a member yet (${stage})`, {
        code: "timeout",
        cure: "The agent keeps trying. What hinders it: mycelium doctor",
        exitCode: EXIT.timedOut,
      });
    case "idle": {
      const last = status.bootstrap.failures.at(-1);
      if (last) throw failureError(last, exitCodeOf(last.code));
      throw new CliError("The agent did not start to join", { code: "idle", cure: "Look at its log" });
    }
    default:
      return outcome satisfies never;
  }
}

/**
 * The invite, checked as far as it can be without the network.
 *
 * @param source The invite, or the file that it is in.
 * @param strict Whether one that has run out is an error: one from the settings may be that of last year's join.
 */
async function inviteOf(
  context: Context,
  source: string | { readonly file: string } | undefined,
  strict: boolean,
): Promise<string | undefined> {
  if (source === undefined) return undefined;
  const { deps } = context;
  let text: string;
  if (typeof source === "string") text = source;
  else if (source.file === "-") text = await deps.stdin.readAll(INVITE_CHARS_MAX + 1);
  else {
    try {
      text = await Deno.readTextFile(resolve(deps.cwd, source.file));
    } catch (cause) {
      if (!strict && cause instanceof Deno.errors.NotFound) return undefined;
      const why = cause instanceof Error ? cause.message : "unknown";
      throw new CliError(`Cannot read invite file "${source.file}": ${why}`, {
        code: "usage",
        exitCode: EXIT.usage,
        cause,
      });
    }
  }
  // What is copied from a chat or a terminal may carry the whole command and line breaks.
  const token = text.length > INVITE_CHARS_MAX
    ? text
    : text.replaceAll(/\s+/g, " ").trim().replace(/^.*mycelium join /, "")
      .replaceAll(" ", "");
  try {
    const invite = parseInvite(token);
    if (strict && invite.grant.expiresMs <= deps.now()) {
      throw new CliError(`The invite has run out on ${instant(invite.grant.expiresMs)}`, {
        code: "invite-expired",
        cure: "Make a new one on a member with: mycelium invite create. If it should be good still, check this " +
          "machine's clock",
        exitCode: EXIT.refused,
      });
    }
  } catch (cause) {
    if (cause instanceof CliError) throw cause;
    // The text may be a secret with a slip in it: it is not repeated.
    throw new CliError("Cannot use the invite: it is not whole", {
      code: "invite-unreadable",
      cure: "It starts with myc1 and is copied whole; make a new one on a member with: mycelium invite create",
      exitCode: EXIT.usage,
      cause,
    });
  }
  return token;
}

/** Reads `--uses`. */
export function usesFlag(text: string | undefined): number | undefined {
  return countFlag("--uses", text, 1, 100_000);
}
