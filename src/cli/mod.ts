/**
 * The command line of `mycelium`. `main.ts` calls {@linkcode runCli} with {@linkcode systemDeps}.
 *
 * @module
 */

export { runCli } from "./program.ts";
export {
  type CliDeps,
  type InputStream,
  type NodeListening,
  type OutputStream,
  type ProgramParts,
  type StartNodeOptions,
  type StoredState,
  systemDeps,
  type VersionInfo,
} from "./deps.ts";
export { type ControlClient, type ExecLine, type ExecRequest, type LogLine, openControl } from "./client.ts";
export { CliError, EXIT, EXIT_MEANINGS, type ExitCode } from "./exit.ts";
