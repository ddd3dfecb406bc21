/**
 * The command line: the tree of commands, its help, and how a run ends.
 *
 * @module
 */

import { Command, CommanderError, type Help } from "commander";
import { ConfigError } from "../edge/config.ts";
import { registerAccess } from "./commands/access.ts";
import { registerAudit } from "./commands/audit.ts";
import { registerBootstrap } from "./commands/bootstrap.ts";
import { registerCompletion } from "./commands/completion.ts";
import { registerConfig } from "./commands/config.ts";
import { registerDoctor } from "./commands/doctor.ts";
import { registerExec } from "./commands/exec.ts";
import { registerIncident } from "./commands/incident.ts";
import { registerInvite } from "./commands/invite.ts";
import { registerGenesis, registerNode } from "./commands/node.ts";
import { registerAgreement } from "./commands/agreement.ts";
import { registerPrimary } from "./commands/primary.ts";
import { registerSeed, registerSporeFiles } from "./commands/seed.ts";
import { registerSpore } from "./commands/spore.ts";
import { registerTrust } from "./commands/trust.ts";
import { registerStatus, registerVersion } from "./commands/status.ts";
import { registerUp } from "./commands/up.ts";
import { Context, type GlobalFlags, type Register } from "./context.ts";
import type { CliDeps } from "./deps.ts";
import { CliError, EXIT, EXIT_MEANINGS } from "./exit.ts";
import { paint } from "./output.ts";

/** Commands that {@linkcode registerUp} adds. */
const STARTS: ReadonlySet<string> = new Set(["up", "agent", "down", "init", "join"]);

/**
 * Runs one command line. Never ends the process and never throws: what went wrong is said, and is the exit code.
 *
 * @param args Words behind the name of the program.
 * @param deps The world.
 * @returns The exit code, one of {@linkcode EXIT} or that of the node that was run.
 */
export async function runCli(args: readonly string[], deps: CliDeps): Promise<number> {
  let exitCode: number = EXIT.ok;
  const program = createProgram(deps, (command, handler) => {
    command.action(async () => {
      const context = new Context(deps, command.optsWithGlobals<GlobalFlags>());
      exitCode = await handler(context, command.args, command);
    });
  }, { startOnly: STARTS.has(args[0] ?? "") });
  if (args.length === 0) {
    program.outputHelp();
    return EXIT.ok;
  }
  try {
    await program.parseAsync([...args], { from: "user" });
    return exitCode;
  } catch (error) {
    return report(error, new Context(deps, program.opts<GlobalFlags>()));
  }
}

/**
 * The tree of commands.
 *
 * @param deps Where help is written to.
 * @param register What a command does.
 * @param options `startOnly` leaves out all commands but those that can start a node, which saves a start 2 ms.
 */
export function createProgram(
  deps: Pick<CliDeps, "stdout" | "stderr" | "env">,
  register: Register,
  options: { readonly startOnly?: boolean } = {},
): Command {
  const colors = (stream: CliDeps["stdout"]) => stream.isTerminal && !deps.env.NO_COLOR && deps.env.TERM !== "dumb";
  const program = new Command("mycelium")
    .exitOverride()
    .configureOutput({
      writeOut: (text) => deps.stdout.write(text),
      writeErr: (text) => deps.stderr.write(text),
      outputError: (text, write) =>
        write(text.replace(/^error: (.)/, (_, first: string) => `Error: ${first.toUpperCase()}`)),
      getOutHelpWidth: () => Math.min(deps.stdout.columns, 110),
      getErrHelpWidth: () => Math.min(deps.stderr.columns, 110),
      getOutHasColors: () => colors(deps.stdout),
      getErrHasColors: () => colors(deps.stderr),
    })
    .configureHelp(
      {
        showGlobalOptions: true,
        subcommandTerm: (command: Command) => command.name() + (command.commands.length > 0 ? " …" : ""),
        styleTitle: (text: string) => paint("bold", text),
      } satisfies Partial<Help>,
    )
    .showSuggestionAfterError(true)
    .showHelpAfterError("(see --help)")
    .helpCommand("help [command]", "help for a command")
    .description("One network of your machines that runs services and keeps itself alive.")
    .option("--state <folder>", "state folder: of the node to start, or of the agent to talk to")
    .option("--socket <path>", "socket of the agent to talk to")
    .option("--url <address>", "address of the agent to talk to, for example https://server:4873 (log in first)")
    .option("--config <file>", "configuration file (default: /etc/mycelium/config.yaml)")
    .option("--json", "results as JSON")
    .option("-q, --quiet", "only results, errors and warnings")
    .option("--no-color", "no colours, as with the variable NO_COLOR")
    .addHelpText(
      "after",
      () =>
        `\nExamples:\n  mycelium up --network home        # a new network\n  mycelium invite create            # ` +
        `let another machine in\n  mycelium join --invite-file FILE  # on that machine\n  mycelium status --watch\n\n` +
        `Exit codes:\n${
          EXIT_MEANINGS.map(([code, meaning]) => `  ${String(code).padStart(3)}  ${meaning}`).join("\n")
        }`,
    );
  program.commandsGroup("Start and join:");
  registerUp(program, register);
  if (options.startOnly) return program;
  program.commandsGroup("See:");
  registerStatus(program, register);
  registerDoctor(program, register);
  registerAudit(program, register);
  registerIncident(program, register);
  program.commandsGroup("Members:");
  registerInvite(program, register);
  registerNode(program, register);
  registerGenesis(program, register);
  registerExec(program, register);
  program.commandsGroup("Access:");
  registerAccess(program, register);
  program.commandsGroup("Configure and repair:");
  registerConfig(program, register);
  registerBootstrap(program, register);
  registerPrimary(program, register);
  registerAgreement(program, register);
  registerTrust(program, register);
  registerSeed(program, register);
  const spore = program.command("spore").summary("look at the network's records, write and move them");
  registerSpore(spore, register);
  registerSporeFiles(spore, register);
  program.commandsGroup("This program:");
  registerVersion(program, register);
  registerCompletion(program, register);
  return program;
}

/** Says what went wrong, as text or as JSON, and gives the exit code. */
function report(error: unknown, context: Context): number {
  const { out } = context;
  out.endProgress();
  if (error instanceof CommanderError) {
    // Help and version are no errors; commander has written everything already.
    return error.exitCode === 0 ? EXIT.ok : EXIT.usage;
  }
  if (error instanceof CliError) {
    if (out.json) out.document({ error: { code: error.code, message: error.message, cure: error.cure } });
    else out.error(error.message, error.cure);
    return error.exitCode;
  }
  if (error instanceof ConfigError) {
    if (out.json) out.document({ error: { code: "config-invalid", message: error.message, problems: error.problems } });
    else out.error(error.message, "Check it with: mycelium config validate");
    return EXIT.usage;
  }
  // Errors of the edge know their cure; what has none is our own mistake, and its place is worth more than brevity.
  const cure = error instanceof Error && "cure" in error && typeof error.cure === "string" ? error.cure : undefined;
  const message = error instanceof Error ? error.message : String(error);
  const code = error instanceof Error && cure !== undefined ? codeOf(error) : "internal";
  if (out.json) out.document({ error: { code, message, cure: cure ?? REPORT } });
  else out.error(cure === undefined ? `Unexpected: ${message}` : message, cure ?? REPORT);
  if (cure === undefined && error instanceof Error && error.stack) out.foreign(error.stack);
  return EXIT.failed;
}

const REPORT = "This should not happen: please report it with what stands below";

/** Its own code, or its name as one: `StateError` is `state-error`. */
function codeOf(error: Error): string {
  if ("code" in error && typeof error.code === "string") return error.code;
  return error.name.replace(/(?<=[a-z])[A-Z]/g, (letter) => `-${letter}`).toLowerCase();
}
