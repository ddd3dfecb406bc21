/** `exec`: a command on another node. @module */

import type { Command } from "commander";
import { COMMAND_VERBS } from "../../agent/commands.ts";
import { nearest } from "../../edge/config.ts";
import type { ControlClient, ExecRequest } from "../client.ts";
import { type Context, durationFlag, type Register, resolveNode } from "../context.ts";
import { CliError, EXIT, usageError } from "../exit.ts";
import { safe } from "../output.ts";
import { readText } from "../files.ts";
import { examples } from "./up.ts";

/** Verbs that take a node out of its work. */
const DANGEROUS: ReadonlySet<string> = new Set(["leave", "isolate"]);

/** Adds the command. */
export function registerExec(program: Command, register: Register): void {
  const exec = program.command("exec").argument("<verb>", "what to do").argument(
    "[arguments...]",
    "key=value or key=@file, behind --",
  )
    .summary("run a command on another node")
    .description(
      `Runs one of a closed list of commands on a node, signed with this machine's operator key, and prints its ` +
        `output as it comes. Commands: ${COMMAND_VERBS.join(", ")}.`,
    )
    .requiredOption("--on <node>", "id, end of the id, or name")
    .option("--timeout <duration>", "the node stops the command after this time", "30s")
    .option("-y, --yes", "do not ask before leave and isolate");
  examples(exec, [
    ["mycelium exec ping --on pi-kitchen", ""],
    ["mycelium exec logs --on pi-kitchen -- lines=100 level=warn", ""],
    ["mycelium exec restart --on x7Kq2mPd --timeout 1m", ""],
    ["mycelium exec config-try --on pi-kitchen -- text=@new.yaml", "@ reads a file"],
  ]);
  register(exec, async (context, args, command) => {
    const [verb, ...pairs] = args as [string, ...string[]];
    const flags = command.opts<{ on: string; timeout: string; yes?: boolean }>();
    if (!(COMMAND_VERBS as readonly string[]).includes(verb)) {
      const near = nearest(verb, COMMAND_VERBS);
      throw usageError(
        `There is no command "${verb}"${near ? `, did you mean ${near}?` : ""}`,
        COMMAND_VERBS.join(", "),
      );
    }
    const timeoutMs = durationFlag("--timeout", flags.timeout)!;
    const fields = await readPairs(context, pairs);
    using client = await context.agent();
    const node = resolveNode(await client.status(), flags.on);
    if (DANGEROUS.has(verb)) await context.confirm(`${verb} on ${safe(node.name)} (${node.nodeId})?`, flags.yes);
    return await runOn(context, client, { verb, args: fields, node: node.nodeId, timeoutMs });
  });
}

/** Runs a command on a node and prints what comes. */
export async function runOn(context: Context, client: ControlClient, request: ExecRequest): Promise<number> {
  const { out, deps } = context;
  try {
    for await (const line of client.exec(request, deps.signal)) {
      if (out.json) out.record(line);
      if (line.type === "end") {
        if (line.code !== 0 && !out.json) out.error(safe(line.message) || `The command ended with ${line.code}`);
        return line.code === 0 ? EXIT.ok : EXIT.failed;
      }
      if (out.json) continue;
      const text = safe(line.text).replace(/\n$/, "");
      if (line.type === "output") out.line(text);
      else out.error(text);
    }
  } catch (error) {
    if (deps.signal.aborted) return EXIT.interrupted;
    if (error instanceof DOMException) {
      throw new CliError(`The command did not end within ${request.timeoutMs} ms`, {
        code: "timeout",
        cure: "Give it more time with --timeout",
        exitCode: EXIT.timedOut,
        cause: error,
      });
    }
    throw error;
  }
  return EXIT.failed;
}

async function readPairs(context: Context, pairs: readonly string[]): Promise<Record<string, string>> {
  const entries: [string, string][] = [];
  for (const pair of pairs) {
    const at = pair.indexOf("=");
    if (at < 1) throw usageError(`Cannot use argument "${pair}": wanted key=value`, "For example: -- lines=100");
    const value = pair.slice(at + 1);
    entries.push([pair.slice(0, at), value.startsWith("@") ? await readText(context, value.slice(1)) : value]);
  }
  return Object.fromEntries(entries);
}
