/** `audit`: who did what on this node, and whether the log of it is whole. @module */

import { resolve } from "node:path";
import type { Command } from "commander";
import {
  AUDIT_OUTCOMES,
  type AuditEntry,
  type AuditHead,
  type AuditReport,
  AuditVerifier,
  ExportVerifier,
  readExportLine,
} from "../../access/audit.ts";
import { fromHex, utf8 } from "../../core/bytes.ts";
import { nodeIdOf, publicKeyOf } from "../../core/ids.ts";
import { searchLines } from "../../edge/audit_trail.ts";
import { auditFiles, readAuditLines } from "../../edge/disk/audit_log.ts";
import { type Context, countFlag, type Register } from "../context.ts";
import { CliError, EXIT, usageError } from "../exit.ts";
import { type Cell, instant, parseDuration, plural, safe } from "../output.ts";
import { sleep } from "../progress.ts";
import { examples } from "./up.ts";

/** How often `tail --follow` asks. */
const FOLLOW_MS = 1_000;

interface SearchFlags {
  since?: string;
  until?: string;
  by?: string;
  action?: string;
  outcome?: string;
  entrance?: string;
  target?: string;
  max?: string;
  file?: string;
}

/** Adds the commands. */
export function registerAudit(program: Command, register: Register): void {
  const audit = program.command("audit").summary("who did what on this node, and whether the log of it is whole")
    .description(
      "The audit log holds what matters for security: who was admitted, refused and removed, commands, logins, changes of the " +
        "configuration, incidents. Its entries are chained, and signed in segments by the node's key.",
    );
  registerVerify(audit, register);
  registerSearch(audit, register);
  registerTail(audit, register);
  registerExport(audit, register);
}

function registerVerify(audit: Command, register: Register): void {
  const verify = audit.command("verify").argument(
    "[file]",
    "an export, a log, or a state folder (default: this node's log)",
  )
    .summary("check that no entry was changed, removed, moved or cut off")
    .description(
      "Checks the chain and its signatures. The log of this node is compared with what the node itself and other members " +
        "were told of it as well, so that one that was cut or written anew is found. An export is checked with nothing but " +
        "the node's id. Exit code 1: something is wrong.",
    )
    .option("--node <id>", "node that the file has to be of: its id, or its public key in hexadecimal")
    .option(
      "--head <number:hash>",
      "an entry that the log is known to have had, may be repeated",
      (one: string, all: readonly string[] = []) => [...all, one],
    );
  examples(verify, [
    ["mycelium audit verify", "this node, with what others know of its log"],
    ["mycelium audit verify may.ndjson --node 12D3KooW…", "an export, anywhere, without a node"],
  ]);
  register(verify, async (context, args, command) => {
    const flags = command.opts<{ node?: string; head?: readonly string[] }>();
    const heads = (flags.head ?? []).map(headFlag);
    const node = flags.node === undefined ? undefined : nodeFlag(flags.node);
    if (args[0] !== undefined) {
      const path = resolve(context.deps.cwd, args[0]);
      return showReport(context, await verifyFile(path, node, heads), path);
    }
    using client = await context.agent();
    const report = await client.control({ verb: "audit-verify" }) as Verified;
    return showReport(context, report, "the log of this node");
  });
}

type Verified = AuditReport & { readonly asked?: number; readonly answered?: number; readonly whole?: boolean };

async function verifyFile(path: string, node: string | undefined, heads: readonly AuditHead[]): Promise<Verified> {
  const { paths } = await filesOf(path);
  let verifier: AuditVerifier | ExportVerifier | undefined;
  for await (const lines of readAuditLines(paths)) {
    for (const line of lines) {
      verifier ??= readExportLine(line) ? new ExportVerifier({ node }) : new AuditVerifier({ node, heads });
      verifier.line(line);
    }
  }
  return (verifier ?? new AuditVerifier({ node, heads })).end();
}

/** The files of a log: of a folder those that the agent writes. */
async function filesOf(path: string): Promise<{ readonly paths: readonly string[] }> {
  try {
    const { isDirectory } = await Deno.stat(path);
    const paths = isDirectory ? auditFiles(path) : [path];
    if (paths.length > 0) return { paths };
  } catch (cause) {
    throw new CliError(`Cannot read "${path}": ${(cause as Error).message}`, {
      code: "not-found",
      cure: "Name an export, an audit.log, or a state folder that you may read",
      exitCode: EXIT.usage,
      cause,
    });
  }
  throw new CliError(`Cannot read "${path}": it holds no audit.log`, { code: "not-found", exitCode: EXIT.usage });
}

function showReport(context: Context, report: Verified, what: string): number {
  const { out } = context;
  if (out.json) out.document(report);
  else if (report.entries === 0 && report.ok) out.note("There are no entries");
  else {
    out.line(`${what}: entries ${report.first} to ${report.last}${report.since ? `, since ${report.since}` : ""}`);
    const open = report.last - report.sealedTo;
    const signer = report.node === undefined ? "" : ` by ${safe(report.node)}`;
    out.line(
      `${plural(report.seals, "segment")} signed${report.seals > 0 ? signer : ""}${
        open > 0 ? `, ${plural(open, "entry").replace("entrys", "entries")} not signed yet` : ""
      }`,
    );
    if (report.asked !== undefined) {
      out.line(`${report.answered ?? 0} of ${plural(report.asked, "member")} said what they know of it`);
    }
    for (const one of report.findings) {
      out.line(`${out.style("red", one.what)} at entry ${one.seq}: ${safe(one.why)}`);
    }
    out.line(report.ok ? out.style("green", "Nothing is missing or changed") : out.style("red", "It is not whole"));
  }
  return report.ok ? EXIT.ok : EXIT.failed;
}

function withFilters(command: Command): Command {
  return command
    .option("--since <time>", "entries since then: 2026-05-01, 2026-05-01T12:00:00Z, or 24h for a day ago")
    .option("--until <time>", "entries before then")
    .option("--by <text>", "who: a part of the name, key or node id")
    .option("--action <name>", "what was done; * at the end for all that begin so, for example node-*")
    .option("--outcome <outcome>", `one of ${AUDIT_OUTCOMES.join(", ")}`)
    .option("--entrance <name>", "way in: socket, http, rpc, or node for what the node did by itself")
    .option("--target <text>", "to what it was done: a part of it");
}

function registerSearch(audit: Command, register: Register): void {
  const search = withFilters(
    audit.command("search").argument("[text]", "part of any field").summary("find entries"),
  )
    .option("--max <count>", "the latest so many (default: 100)")
    .option("--file <path>", "look in an export, a log or a state folder instead of this node");
  examples(search, [
    ["mycelium audit search --since 24h --outcome refused", ""],
    ["mycelium audit search --action 'node-*' --json", "who came and who was removed"],
  ]);
  register(search, async (context, args, command) => {
    const flags = command.opts<SearchFlags>();
    const max = countFlag("--max", flags.max, 1, 10_000) ?? 100;
    const query = queryOf(context, flags, args[0]);
    const found = flags.file === undefined
      ? await searchAgent(context, query, max)
      : await searchLines(readAuditLines((await filesOf(resolve(context.deps.cwd, flags.file))).paths), query, { max });
    const { out } = context;
    if (out.json) out.document(found.entries);
    else if (found.entries.length === 0) out.note("No entry fits");
    else {
      out.table(["NUMBER", "TIME", "ACTION", "BY", "TARGET", "OUTCOME", "DETAIL"], found.entries.map(row));
      if (found.more > 0) out.note(`${found.more} older ones fit as well: --max, --since`);
    }
    return EXIT.ok;
  });
}

function registerTail(audit: Command, register: Register): void {
  const tail = withFilters(audit.command("tail").summary("the latest entries"))
    .option("-f, --follow", "and those that come, until Ctrl-C")
    .option("-n, --max <count>", "how many (default: 20)");
  examples(tail, [["mycelium audit tail --follow --json", "one JSON document a line, for another program"]]);
  register(tail, async (context, _args, command) => {
    const flags = command.opts<SearchFlags & { follow?: boolean }>();
    const max = countFlag("--max", flags.max, 1, 10_000) ?? 20;
    const query = queryOf(context, flags);
    const { out, deps } = context;
    const show = (entries: readonly AuditEntry[]) => {
      for (const one of entries) {
        if (out.json) out.record(one);
        else out.line(lineOf(one));
      }
    };
    const found = await searchAgent(context, query, max);
    show(found.entries);
    let { last } = found;
    while (flags.follow && !deps.signal.aborted) {
      await sleep(FOLLOW_MS, deps.signal);
      if (deps.signal.aborted) break;
      const next = await searchAgent(context, query, 10_000, last);
      show(next.entries);
      last = Math.max(last, next.last);
    }
    return flags.follow ? EXIT.interrupted : EXIT.ok;
  });
}

function registerExport(audit: Command, register: Register): void {
  const exporting = audit.command("export").argument("[file]", "file to write; - or nothing for stdout")
    .summary("write entries with their signatures, to keep or to hand on")
    .description(
      "Writes whole segments as NDJSON: a signed heading, then the lines as they are in the log. What overlaps the given time " +
        "is exported. Anybody can check it, without a node: mycelium audit verify FILE --node ID.",
    )
    .option("--since <time>", "segments with entries since then")
    .option("--until <time>", "segments with entries before then")
    .option("--force", "replace the file");
  examples(exporting, [["mycelium audit export may.ndjson --since 2026-05-01 --until 2026-06-01", ""]]);
  register(exporting, async (context, args, command) => {
    const flags = command.opts<{ since?: string; until?: string; force?: boolean }>();
    const { sinceMs, untilMs } = spanOf(context, flags);
    using client = await context.agent();
    const range = await client.control({
      verb: "audit-export",
      ...(sinceMs === undefined ? {} : { sinceMs }),
      ...(untilMs === undefined ? {} : { untilMs }),
    }) as { readonly from: number; readonly to: number; readonly heading: string };
    if (range.to === 0) {
      throw new CliError("There are no entries of that time", {
        code: "not-found",
        cure: "See: mycelium audit search",
      });
    }
    const name = args[0] ?? "-";
    const path = name === "-" ? undefined : resolve(context.deps.cwd, name);
    using file = path === undefined ? undefined : await openNew(path, flags.force ?? false);
    const write = async (lines: readonly string[]) => {
      if (!file) return void lines.forEach((line) => context.out.line(line));
      const bytes = utf8(lines.map((line) => line + "\n").join(""));
      for (let done = 0; done < bytes.length;) done += await file.write(bytes.subarray(done));
    };
    await write([range.heading]);
    for (let from: number | undefined = range.from; from !== undefined;) {
      const page = await client.control({ verb: "audit-lines", from, to: range.to }) as {
        readonly lines: readonly string[];
        readonly next?: number;
      };
      await write(page.lines);
      from = page.next;
    }
    await file?.syncData();
    const { node } = await client.status();
    if (path !== undefined && context.out.json) {
      context.out.document({ path, from: range.from, to: range.to, node: node.nodeId });
    } else {
      context.out.note(
        `Entries ${range.from} to ${range.to}. To check: mycelium audit verify ${
          path === undefined ? "FILE" : name
        } --node ${node.nodeId}`,
      );
    }
    return EXIT.ok;
  });
}

async function openNew(path: string, force: boolean): Promise<Deno.FsFile> {
  try {
    return await Deno.open(path, {
      write: true,
      mode: 0o600,
      ...(force ? { create: true, truncate: true } : { createNew: true }),
    });
  } catch (cause) {
    const there = cause instanceof Deno.errors.AlreadyExists;
    throw new CliError(`Cannot write "${path}": ${there ? "it is there already" : (cause as Error).message}`, {
      code: there ? "exists" : "failed",
      cure: there ? "Name another file, or --force" : "Name a file that you may write",
      exitCode: there ? EXIT.refused : EXIT.failed,
      cause,
    });
  }
}

async function searchAgent(
  context: Context,
  query: { readonly [name: string]: unknown },
  max: number,
  after?: number,
): Promise<{ readonly entries: readonly AuditEntry[]; readonly more: number; readonly last: number }> {
  using client = await context.agent();
  const given = Object.fromEntries(Object.entries(query).filter(([, value]) => value !== undefined));
  return await client.control({ verb: "audit-search", ...given, max, ...(after === undefined ? {} : { after }) }) as {
    readonly entries: readonly AuditEntry[];
    readonly more: number;
    readonly last: number;
  };
}

function queryOf(context: Context, flags: SearchFlags, text?: string) {
  const outcome = AUDIT_OUTCOMES.find((one) => one === flags.outcome);
  if (flags.outcome !== undefined && !outcome) {
    throw usageError(`Cannot use --outcome "${flags.outcome}": wanted one of ${AUDIT_OUTCOMES.join(", ")}`);
  }
  const { by, action, entrance, target } = flags;
  return { ...spanOf(context, flags), by, action, outcome, entrance, target, text };
}

function spanOf(context: Context, flags: { readonly since?: string; readonly until?: string }) {
  return {
    sinceMs: timeFlag(context, "--since", flags.since),
    untilMs: timeFlag(context, "--until", flags.until),
  };
}

/** A day, an instant, or a duration before now. */
function timeFlag(context: Context, flag: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const agoMs = parseDuration(text);
  if (agoMs !== undefined) return Math.max(0, context.deps.now() - agoMs);
  const atMs = /^\d{4}-\d\d-\d\d(T[\d:.]+(Z|[+-]\d\d:\d\d))?$/.test(text) ? Date.parse(text) : NaN;
  if (!Number.isNaN(atMs) && atMs >= 0) return atMs;
  throw usageError(`Cannot use ${flag} "${text}": wanted 2026-05-01, 2026-05-01T12:00:00Z, or 24h for a day ago`);
}

function headFlag(text: string): AuditHead {
  const [, seq, hash] = /^(\d{1,15}):([0-9a-f]{64})$/.exec(text) ?? [];
  if (seq === undefined || hash === undefined) {
    throw usageError(`Cannot use --head "${text}": wanted a number, a colon and a hash of 64 hexadecimal digits`);
  }
  return { seq: Number(seq), hash };
}

function nodeFlag(text: string): string {
  if (publicKeyOf(text)) return text;
  const key = fromHex(text);
  if (key?.length === 32) return nodeIdOf(key);
  throw usageError(`Cannot use --node "${text}": wanted a node id such as 12D3KooW…, or a public key in hexadecimal`);
}

const OUTCOME_STYLES = { ok: "green", refused: "yellow", failed: "red" } as const;

function row(entry: AuditEntry): readonly Cell[] {
  return [
    String(entry.seq),
    instant(Date.parse(entry.at)),
    entry.action,
    shorten(entry.by),
    shorten(entry.target),
    [OUTCOME_STYLES[entry.outcome], entry.outcome],
    entry.detail,
  ];
}

function lineOf(entry: AuditEntry): string {
  const target = entry.target === "" ? "" : ` ${entry.target}`;
  return safe(
    `${entry.seq}  ${entry.at}  ${entry.action}${target}  by ${
      entry.by || "?"
    } (${entry.entrance})  ${entry.outcome}  ${entry.detail.replaceAll(/\s+/g, " ")}`,
  );
}

/** Node ids in a table by their ends, keys of operators by their beginnings. */
function shorten(text: string): string {
  return text.replace(/12D3KooW[1-9A-HJ-NP-Za-km-z]{36}([1-9A-HJ-NP-Za-km-z]{8})/g, "…$1")
    .replace(/\b(operator:[0-9a-f]{8})[0-9a-f]{56}\b/g, "$1…");
}
