/** `status`, `peers`, `version`: how the node is. @module */

import type { Command } from "commander";
import type { Status } from "../../agent/status.ts";
import type { LogLine } from "../client.ts";
import { type Context, countFlag, type Register } from "../context.ts";
import { EXIT, usageError } from "../exit.ts";
import { byteSize, type Cell, duration, instant, Output, plural, safe, type Style } from "../output.ts";
import { describeFailure, sleep } from "../progress.ts";
import { quorumText, toleratesText } from "./agreement.ts";
import { examples } from "./up.ts";

const EVENTS_SHOWN = 5;
const STATE_STYLES: Readonly<Record<string, Style>> = {
  alive: "green",
  self: "green",
  suspect: "yellow",
  // Alive, but not from here.
  elsewhere: "yellow",
  dead: "red",
  left: "dim",
  ok: "green",
  degraded: "yellow",
  failed: "red",
};

/** Adds the commands. */
export function registerStatus(program: Command, register: Register): void {
  const status = program.command("status").summary("how this node and its network are")
    .description("Shows how this node and its network are. --json prints the whole document of /status.")
    .option("-w, --watch", "keep showing it as it changes; with --json one line each time")
    .option("--exit-code", "end with 6 where the node is not ready");
  examples(status, [
    ["mycelium status", ""],
    ["mycelium status --watch", "until Ctrl-C"],
    ["mycelium status --json | jq .bootstrap.stage", "for programs"],
    ["mycelium status --exit-code --quiet", "for health checks"],
  ]);
  register(status, async (context, _args, command) => {
    const flags = command.opts<{ watch?: boolean; exitCode?: boolean }>();
    using client = await context.agent();
    if (flags.watch) return await watch(context, client);
    const document = await client.status();
    if (context.out.json) context.out.document(document);
    else if (!context.out.quiet) printStatus(context.out, document);
    return flags.exitCode && !document.health.ready ? EXIT.notReady : EXIT.ok;
  });

  const peers = program.command("peers").summary("the members of the network and the paths to them");
  examples(peers, [["mycelium peers --json", "the members as in /status"]]);
  register(peers, async (context) => {
    using client = await context.agent();
    const { members, nowMs } = await client.status();
    if (context.out.json) context.out.document(members);
    else if (context.out.quiet) { for (const member of members) context.out.line(member.nodeId); }
    else {
      context.out.table(
        ["NAME", "NODE", "STATE", ">SEEN", ">RTT", "VIA", "ADDRESS"],
        members.map((one) => [
          one.name,
          one.nodeId.slice(-8),
          stateCell(one.unreachable ? "elsewhere" : one.state),
          one.state === "self" ? "-" : ago(nowMs, one.lastSeenMs),
          one.path?.rttMs === undefined
            ? "-"
            : `${one.path.rttMs < 10 ? one.path.rttMs.toFixed(1) : Math.round(one.path.rttMs)} ms`,
          one.path ? `${one.path.transport} ${one.path.direction}` : "-",
          one.path?.address ?? one.addresses[0] ?? "-",
        ]),
      );
    }
    return EXIT.ok;
  });

  const logs = program.command("logs").summary("the newest entries of the agent's log")
    .option("-n, --lines <count>", "how many (default: 200)")
    .option("--level <level>", "from this level on: debug, info, warn, error");
  examples(logs, [["mycelium logs -n 50 --level warn", ""]]);
  register(logs, async (context, _args, command) => {
    const flags = command.opts<{ lines?: string; level?: string }>();
    const count = countFlag("--lines", flags.lines, 1, 10_000) ?? 200;
    if (flags.level !== undefined && !["debug", "info", "warn", "error"].includes(flags.level)) {
      throw usageError(`Cannot use --level "${flags.level}": wanted debug, info, warn or error`);
    }
    using client = await context.agent();
    for (const entry of await client.logs({ count, ...(flags.level === undefined ? {} : { level: flags.level }) })) {
      if (context.out.json) context.out.record(entry);
      else context.out.line(logLine(context.out, entry));
    }
    return EXIT.ok;
  });
}

const LEVEL_STYLES: Readonly<Record<string, Style>> = { debug: "dim", warn: "yellow", error: "red" };

/** Time, level and message first, whatever else there is behind. */
function logLine(out: Output, entry: LogLine): string {
  const { ts, level, component, event, msg, ...rest } = entry;
  const word = String(level ?? "").padEnd(5);
  const style = LEVEL_STYLES[String(level)];
  const fields = Object.entries(rest).map(([key, value]) =>
    `${key}=${typeof value === "string" && !/[\s"]/.test(value) ? value : JSON.stringify(value)}`
  );
  const source = component === undefined ? "" : `${component}:`;
  const text = [source, msg ?? event, ...fields].filter((one) => one !== undefined && one !== "").join(" ");
  return `${safe(String(ts ?? "-"))} ${style ? out.style(style, word) : word} ${safe(text)}`;
}

/** Adds the command. */
export function registerVersion(program: Command, register: Register): void {
  const version = program.command("version").summary(
    "version of this program and of the agent",
  )
    .option("--client", "only of this program, without asking the agent");
  register(version, async (context, _args, command) => {
    const { version: own } = context.deps;
    const agent = command.opts<{ client?: boolean }>().client ? undefined : await agentVersion(context);
    if (context.out.json) {
      context.out.document({ ...own, ...(agent ? { agent } : {}) });
      return EXIT.ok;
    }
    context.out.line(`mycelium ${versionText(own)}`);
    if (agent && (agent.version !== own.version || agent.commit !== own.commit)) {
      context.out.line(`agent    ${safe(versionText(agent))}`);
      context.out.warn("The agent that runs is another version; restart it after an upgrade");
    }
    return EXIT.ok;
  });
}

/** A program that runs from source has no build date. */
function versionText({ version, commit, builtAt, runtime }: Status["version"]): string {
  return `${version} (${[commit, builtAt, runtime].filter((one) => one !== "").join(", ")})`;
}

/** Version of the agent; nothing where none runs, or it is too old to be read. */
async function agentVersion(context: Context): Promise<Status["version"] | undefined> {
  try {
    using client = await context.agentIfAny() ?? noClient();
    return (await client.status?.())?.version;
  } catch {
    return undefined;
  }
}

function noClient(): { status?: undefined } & Disposable {
  return { [Symbol.dispose]() {} };
}

async function watch(context: Context, client: Awaited<ReturnType<Context["agent"]>>): Promise<number> {
  const { out, deps } = context;
  let drawn = false;
  const show = (document: Status) => {
    if (out.json) out.record(document);
    else if (out.onTerminal) {
      // Over what is there, each line cleared behind its end: clearing the screen first would flicker.
      const text = statusText(context, document).trimEnd().split("\n").slice(0, Math.max(5, deps.stdout.rows - 1));
      deps.stdout.write(
        `${drawn ? "" : "\u001b[2J"}\u001b[H${text.map((line) => `${line}\u001b[K\n`).join("")}\u001b[J`,
      );
      drawn = true;
    } else {
      const { bootstrap, health, members } = document;
      const alive = members.filter((one) => one.state === "self" || one.state === "alive").length;
      out.line(
        `${instant(document.nowMs)} ${bootstrap.stage} ${health.ready ? "ready" : "not-ready"} ` +
          `members=${members.length} alive=${alive} ${health.reasons.map(safe).join("; ")}`.trimEnd(),
      );
    }
  };
  show(await client.status());
  while (!deps.signal.aborted) {
    try {
      for await (const document of client.statuses(deps.signal)) show(document);
    } catch (error) {
      if (deps.signal.aborted) break;
      throw error;
    }
    // The agent ends a stream that was read too slowly; a new one goes on where it was.
    await sleep(1_000, deps.signal);
    if (!deps.signal.aborted) show(await client.status());
  }
  return EXIT.ok;
}

/** What {@linkcode printStatus} prints. */
function statusText(context: Context, status: Status): string {
  const { deps, flags } = context;
  let text = "";
  const { isTerminal, columns, rows } = deps.stdout;
  const stdout = { write: (part: string) => void (text += part), isTerminal, columns, rows };
  printStatus(new Output({ ...deps, stdout }, flags), status);
  return text;
}

/** The status as a person reads it. */
export function printStatus(out: Output, status: Status): void {
  const { node, network, bootstrap, health, credential, tolerance, members, nowMs } = status;
  const label = (name: string, text: string) => out.line(`${out.style("dim", name.padEnd(11))} ${text}`);
  const mode = node.mode === "normal" ? "" : `, ${out.style("yellow", node.mode)}`;
  label("Node", `${out.style("bold", safe(node.name))}  ${node.role}, pool ${safe(node.pool)}${mode}`);
  label("", out.style("dim", safe(node.nodeId)));
  if (network) {
    const { issuers, epoch, threshold } = network.authority;
    label("Network", `${out.style("bold", safe(network.name))}  ${network.networkId.slice(0, 12)}`);
    label("Authority", `epoch ${epoch}, ${plural(issuers.length, "issuer")}, ${threshold} needed to change them`);
  } else label("Network", "none yet: mycelium init, or mycelium join");
  const ready = health.ready ? out.style("green", "ready") : out.style("red", "not ready");
  label("State", `${ready}, ${bootstrap.stage} for ${duration(nowMs - bootstrap.sinceMs)}`);
  for (const reason of health.reasons) label("", out.style("yellow", safe(reason)));
  if (credential) {
    const left = credential.expiresMs - nowMs;
    label("Credential", left > 0 ? `good for ${duration(left)}` : out.style("red", `ran out ${duration(left)} ago`));
  }
  label("Tolerates", `${tolerance.crashFaults} crashed, ${tolerance.byzantineFaults} lying: ${safe(tolerance.note)}`);
  if (status.agreement) {
    const { agreement } = status;
    label(
      "Agreement",
      `${agreement.voters.length} vote, bears ${toleratesText(agreement)}; quorum ${quorumText(agreement)}`,
    );
  }
  if (status.primary && status.primary.role !== "client") {
    const { role, term, leader, voters, learners } = status.primary;
    const name = members.find((one) => one.nodeId === leader)?.name ?? leader?.slice(-8);
    const led = leader === undefined ? out.style("red", "nobody leads") : `led by ${safe(name!)}`;
    const learning = learners.length > 0 ? `, ${plural(learners.length, "learner")}` : "";
    label("Primaries", `${plural(voters.length, "voter")}${learning}, ${led}; this one: ${role}, term ${term}`);
  }
  if (status.spores) {
    const { tiers, suspects } = status.spores;
    const doubted = suspects.asking + suspects.denied + suspects.unanswered;
    const doubt = doubted > 0 ? `, ${out.style("yellow", `${doubted} suspicious`)}` : "";
    label("Records", `${tiers.primary} primary, ${tiers.seed} seed, ${tiers.latent} latent${doubt}`);
  }
  if (status.trust) {
    const { version, banned, belowVote, proofs } = status.trust;
    const trouble = [
      ...(banned.length > 0 ? [out.style("red", `${banned.length} banned`)] : []),
      ...(belowVote > 0 ? [out.style("yellow", `${belowVote} below a vote`)] : []),
      ...(proofs > 0 ? [`${plural(proofs, "proof")} of faults`] : []),
    ];
    const agreed = version === 0 ? "nothing agreed yet, all neutral" : `version ${version}`;
    label("Trust", [agreed, ...trouble].join(", "));
  }
  if (status.gossip) {
    const { peers, shunned, received, topics } = status.gossip;
    const links = Math.max(0, ...topics.map((one) => one.links));
    const trouble = shunned > 0 ? `, ${out.style("yellow", `${shunned} misbehaving`)}` : "";
    label("Broadcast", `${plural(links, "link")} among ${plural(peers, "member")}, ${received} heard${trouble}`);
  }
  const { sources = [], targets = [] } = status.seeds ?? {};
  if (sources.length + targets.length > 0) {
    const bad = [...sources, ...targets].filter((one) => one.state === "failed" || one.state === "behind").length;
    const trouble = bad > 0 ? `, ${out.style("yellow", `${bad} in trouble: mycelium seed status`)}` : "";
    label("Seeds", `read from ${sources.length}, published to ${targets.length}${trouble}`);
  }
  label("Version", `${safe(status.version.version)}, up ${duration(status.process.uptimeMs)}`);
  label("Uses", `${byteSize(status.process.rssBytes)} memory, ${plural(status.traffic.channels, "channel")}`);
  for (const waiting of bootstrap.waitingFor) {
    const next = waiting.nextMs === undefined ? "" : `, next try in ${duration(Math.max(0, waiting.nextMs - nowMs))}`;
    label("Waiting", `${safe(waiting.what)} (for ${duration(nowMs - waiting.sinceMs)}${next})`);
  }
  if (bootstrap.stage !== "verified") {
    for (const failure of bootstrap.failures.slice(-3)) {
      label("Failed", `${describeFailure(failure)}, ${ago(nowMs, failure.atMs)}`);
      if (failure.cure !== "") label("", safe(failure.cure));
    }
  }
  if (status.config.tryUntilMs !== undefined) {
    label(
      "Config",
      `on trial, goes back in ${duration(status.config.tryUntilMs - nowMs)} unless: mycelium config confirm`,
    );
  }
  if (members.length > 0) {
    out.line();
    out.table(
      ["MEMBER", "NODE", "ROLE", "STATE", ">FOR", ">SEEN", "VERSION"],
      members.map((one): Cell[] => [
        one.name,
        one.nodeId.slice(-8),
        one.role + (one.issuer ? ", issuer" : "") + (one.drained ? ", drained" : ""),
        stateCell(one.state),
        duration(nowMs - one.stateSinceMs),
        one.state === "self" ? "-" : ago(nowMs, one.lastSeenMs),
        one.version,
      ]),
    );
  }
  if (status.pending.length > 0) {
    out.line();
    out.line(`Waiting for an operator: ${plural(status.pending.length, "machine")}, see mycelium node list`);
  }
  const events = status.events.filter((one) => one.level === "warn" || one.level === "error").slice(-EVENTS_SHOWN);
  if (events.length > 0) {
    out.line();
    out.table(
      ["LAST WARNINGS", ""],
      events.map((one) => [instant(one.atMs), [one.level === "error" ? "red" : "yellow", one.message]]),
    );
  }
}

/** State of a member or a component in its colour. */
export function stateCell(state: string): Cell {
  const style = STATE_STYLES[state];
  return style ? [style, state] : state;
}

/** For example `12s ago`; `now` below one second, `-` where it never was. */
export function ago(nowMs: number, thenMs: number): string {
  if (thenMs <= 0) return "-";
  return nowMs - thenMs < 1_000 ? "now" : `${duration(nowMs - thenMs)} ago`;
}
