/** `doctor`: what is the matter, what was tried, and what would cure it. @module */

import type { Command } from "commander";
import { statfs } from "node:fs/promises";
import { dirname } from "node:path";
import type { Status } from "../../agent/status.ts";
import { ConfigError, describeProblem, httpAddress, listenAddresses, type LoadedConfig } from "../../edge/config.ts";
import type { Context, Register } from "../context.ts";
import { CliError, EXIT } from "../exit.ts";
import { diskFinding, diskIsLow, type Finding, findingsOf, SEVERITIES, sortFindings } from "../findings.ts";
import { duration, plural, safe, type Style } from "../output.ts";
import { socketCandidates } from "../socket.ts";
import { configOf, examples, placesOf } from "./up.ts";

const STYLES: Readonly<Record<string, Style>> = { error: "red", warning: "yellow", info: "cyan" };

/** Adds the command. */
export function registerDoctor(program: Command, register: Register): void {
  const doctor = program.command("doctor").summary("find out what is wrong, and what would cure it")
    .description(
      "Looks at the agent's status and at this machine: configuration, state folder, disk, clock, ports. Works without " +
        "an agent. Ends with 6 where an error was found, with 3 where no agent runs.",
    );
  examples(doctor, [["mycelium doctor", ""], ["mycelium doctor --json | jq '.findings[].code'", ""]]);
  register(doctor, async (context, _args, command) => {
    const findings: Finding[] = [];
    const checked: string[] = [];
    const loaded = await checkConfig(context, command, findings, checked);
    const { status, socket } = await readAgent(context, findings, checked);
    if (status) findings.push(...findingsOf(status, context.deps.now()));
    if (loaded) await checkMachine(context, loaded, socket, findings, checked);
    return print(context, sortFindings(findings), checked, status);
  });
}

async function checkConfig(
  context: Context,
  command: Command,
  findings: Finding[],
  checked: string[],
): Promise<LoadedConfig | undefined> {
  try {
    const loaded = await configOf(context, command);
    checked.push(`configuration: ${loaded.files.join(", ") || "defaults, no file"}`);
    for (const warning of loaded.warnings) {
      findings.push({
        severity: "warning",
        code: "config-warning",
        what: warning,
        tried: "",
        cure: "Correct its name, or unset it",
      });
    }
    return loaded;
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    checked.push("configuration");
    for (const problem of error.problems) {
      findings.push({
        severity: "error",
        code: "config-invalid",
        what: describeProblem(problem),
        tried: problem.source,
        cure: "Correct it, then: mycelium config validate",
      });
    }
    return undefined;
  }
}

async function readAgent(
  context: Context,
  findings: Finding[],
  checked: string[],
): Promise<{ readonly status?: Status; readonly socket?: string }> {
  try {
    using client = await context.agent();
    const status = await client.status();
    checked.push(`agent: ${client.socket}, process ${status.process.pid}`);
    return { status, socket: client.socket };
  } catch (error) {
    if (!(error instanceof CliError)) throw error;
    checked.push("agent");
    findings.push({ severity: "error", code: error.code, what: error.message, tried: "", cure: error.cure });
    return {};
  }
}

async function checkMachine(
  context: Context,
  loaded: LoadedConfig,
  socket: string | undefined,
  findings: Finding[],
  checked: string[],
): Promise<void> {
  const { config } = loaded;
  const running = socket !== undefined;
  const places = placesOf(context, config);
  const { socketPath } = places;
  const stateDir = config.state === undefined ? await stateDirOf(context, socket) ?? places.stateDir : places.stateDir;
  checked.push(`state folder: ${stateDir}`);
  await checkStateDir(context, stateDir, running, findings, checked);
  if (new TextEncoder().encode(socketPath).length > 107) {
    findings.push({
      severity: "error",
      code: "socket-too-long",
      what: `The path of the socket is longer than the 107 bytes that Linux takes`,
      tried: socketPath,
      cure: "Use a state folder with a shorter path, or the setting `socket`",
    });
  }
  // While the agent runs it is the one that holds the ports.
  if (running) return;
  const ports: string[] = [];
  for (const address of listenAddresses(config)) {
    const [, , hostname, transport, port] = address.split("/") as [string, string, string, string, string];
    if (port === "0") continue;
    ports.push(`${port}/${transport}`);
    const failure = tryPort(transport, hostname, Number(port));
    if (failure) findings.push(portFinding(address, failure, "listen"));
  }
  const page = httpAddress(config);
  if (page && page.port !== 0) {
    ports.push(`${page.port}/tcp`);
    const failure = tryPort("tcp", page.hostname, page.port);
    if (failure) findings.push(portFinding(`${page.hostname}:${page.port}`, failure, "http.listen"));
  }
  checked.push(`ports: ${[...new Set(ports)].join(", ") || "any free one"}`);
}

/** The folder of the agent that answered, or else the first of the usual ones that is there. */
async function stateDirOf(context: Context, socket: string | undefined): Promise<string | undefined> {
  const sockets = socket === undefined ? socketCandidates(context.flags, context.deps) : [socket];
  // /run holds sockets only.
  for (const folder of sockets.map(dirname).filter((one) => !one.startsWith("/run/"))) {
    const info = await Deno.stat(folder).catch(() => undefined);
    if (info?.isDirectory) return folder;
  }
  return undefined;
}

async function checkStateDir(
  context: Context,
  stateDir: string,
  running: boolean,
  findings: Finding[],
  checked: string[],
): Promise<void> {
  let info: Deno.FileInfo;
  try {
    info = await Deno.stat(stateDir);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) {
      if (!running) checked.push("state: none yet, this machine was in no network from here");
      return;
    }
    const why = error instanceof Error ? error.message : "unknown";
    findings.push({
      severity: "error",
      code: "state-unreadable",
      what: `The state folder cannot be looked at: ${why}`,
      tried: stateDir,
      cure: "Run as the user that owns it, or with sudo",
    });
    return;
  }
  const { userId } = context.deps;
  if (!info.isDirectory) {
    findings.push({
      severity: "error",
      code: "state-not-a-folder",
      what: "Where the state folder should be there is something else",
      tried: stateDir,
      cure: "Move it away, or choose another folder with --state",
    });
    return;
  }
  if (info.mode !== null && (info.mode & 0o077) !== 0) {
    findings.push({
      severity: "warning",
      code: "state-permissions",
      what: `The state folder can be entered by others (mode ${(info.mode & 0o777).toString(8)}); there are keys in it`,
      tried: stateDir,
      cure: `chmod 700 ${stateDir}`,
    });
  }
  if (info.uid !== null && userId > 0 && info.uid !== userId && !running) {
    findings.push({
      severity: "error",
      code: "state-owner",
      what: `The state folder belongs to user ${info.uid}, this is user ${userId}`,
      tried: stateDir,
      cure: "Run as the user that owns it, or with sudo",
    });
  }
  try {
    const { bavail, bsize } = await statfs(stateDir);
    const free = Number(bavail) * Number(bsize);
    if (diskIsLow(free)) findings.push(diskFinding(free, stateDir));
  } catch {
    // Some file systems do not tell; that is no finding.
  }
  if (!running) await checkStored(context, stateDir, checked);
}

/** No agent runs: what it knew last. */
async function checkStored(context: Context, stateDir: string, checked: string[]): Promise<void> {
  const stored = await context.deps.readState?.(stateDir).catch(() => undefined);
  if (!stored) return;
  const left = stored.credentialExpiresMs === undefined ? undefined : stored.credentialExpiresMs - context.deps.now();
  const facts = [
    stored.nodeId === undefined ? "" : `node ${stored.nodeId}`,
    stored.networkId === undefined
      ? "no network"
      : `network ${stored.networkName ?? ""} ${stored.networkId.slice(0, 12)}`,
    stored.stage === undefined ? "" : `stage ${stored.stage}`,
    left === undefined
      ? ""
      : left > 0
      ? `credential good for ${duration(left)}`
      : `credential ran out ${duration(left)} ago`,
  ];
  checked.push(`last state: ${facts.filter((one) => one !== "").join(", ")}`);
}

function tryPort(transport: string, hostname: string, port: number): Error | undefined {
  try {
    if (transport === "tcp") Deno.listen({ hostname, port }).close();
    else Deno.listenDatagram({ transport: "udp", hostname, port }).close();
  } catch (error) {
    // A machine without IPv6 is no fault: the agent listens on what there is.
    if (hostname === "::" && !(error instanceof Deno.errors.AddrInUse)) return undefined;
    return error instanceof Error ? error : new Error(String(error));
  }
  return undefined;
}

function portFinding(address: string, failure: Error, setting: string): Finding {
  const taken = failure instanceof Deno.errors.AddrInUse;
  return {
    severity: "error",
    code: taken ? "port-taken" : "port-refused",
    what: taken ? `Another program uses ${address}` : `Cannot listen on ${address}: ${failure.message}`,
    tried: address,
    cure: taken
      ? `See which with: ss -lntup; or choose another with the setting \`${setting}\``
      : `Check the setting \`${setting}\`: is the address one of this machine?`,
  };
}

function print(
  context: Context,
  findings: readonly Finding[],
  checked: readonly string[],
  status: Status | undefined,
): number {
  const { out } = context;
  const errors = findings.filter((one) => one.severity === "error").length;
  const exit = status === undefined && findings.some((one) => one.code === "no-agent")
    ? EXIT.noAgent
    : errors > 0 || status?.health.ready === false
    ? EXIT.notReady
    : EXIT.ok;
  if (out.json) {
    out.document({ ready: status?.health.ready ?? false, stage: status?.bootstrap.stage, findings, checked });
    return exit;
  }
  for (const one of findings) {
    out.line(
      `${out.style(STYLES[one.severity] ?? "bold", one.severity.padEnd(7))}  ${
        safe(one.what).replaceAll("\n", "\n         ")
      }  [${one.code}]`,
    );
    if (one.tried !== "") out.line(`         tried: ${safe(one.tried)}`);
    if (one.cure !== "") out.line(`         cure:  ${safe(one.cure)}`);
  }
  if (!out.quiet) {
    if (findings.length > 0) out.line();
    for (const one of checked) out.line(out.style("dim", `Checked ${safe(one)}`));
    for (const reason of status?.health.reasons ?? []) out.line(`Not ready: ${safe(reason)}`);
    const counts = SEVERITIES.map((name) => plural(findings.filter((one) => one.severity === name).length, name));
    out.line(findings.length === 0 ? out.style("green", "Nothing is wrong") : counts.join(", "));
  }
  return exit;
}
