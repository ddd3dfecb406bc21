/** Where the agent of this machine is found. @module */

import { isAbsolute, join, resolve } from "node:path";
import type { ControlClient } from "./client.ts";
import type { CliDeps } from "./deps.ts";
import { CliError, EXIT } from "./exit.ts";

/** Flags that say where the agent is. */
export interface SocketFlags {
  readonly socket?: string;
  readonly state?: string;
}

/** Folder for the state where nothing names one: the system's for root, else the user's. */
export function defaultStateDir(deps: Pick<CliDeps, "env" | "userId">): string {
  const { env, userId } = deps;
  // systemd sets it for a unit with StateDirectory=; several are separated by colons.
  if (env.STATE_DIRECTORY) return env.STATE_DIRECTORY.split(":")[0]!;
  if (userId === 0) return "/var/lib/mycelium";
  const data = env.XDG_DATA_HOME && isAbsolute(env.XDG_DATA_HOME) ? env.XDG_DATA_HOME : undefined;
  return join(data ?? join(env.HOME ?? "/tmp", ".local/share"), "mycelium");
}

/** Sockets to try, in order. A flag or a variable of the environment names exactly one. */
export function socketCandidates(flags: SocketFlags, deps: Pick<CliDeps, "env" | "cwd" | "userId">): string[] {
  const { env, cwd } = deps;
  if (flags.socket) return [resolve(cwd, flags.socket)];
  if (flags.state) return [resolve(cwd, flags.state, "agent.sock")];
  if (env.MYCELIUM_SOCKET) return [resolve(cwd, env.MYCELIUM_SOCKET)];
  if (env.MYCELIUM_STATE) return [resolve(cwd, env.MYCELIUM_STATE, "agent.sock")];
  return [
    ...new Set([
      resolve(cwd, "mycelium-data/agent.sock"),
      join(defaultStateDir(deps), "agent.sock"),
      "/run/mycelium/agent.sock",
      "/var/lib/mycelium/agent.sock",
    ]),
  ];
}

/**
 * Connects to the agent of this machine.
 *
 * @returns The client; dispose of it.
 * @throws {CliError} `no-agent`, naming the paths that were tried.
 */
export async function findAgent(flags: SocketFlags, deps: CliDeps): Promise<ControlClient> {
  const tried: string[] = [];
  for (const path of socketCandidates(flags, deps)) {
    try {
      return await deps.openControl(path);
    } catch (error) {
      if (!(error instanceof CliError && error.code === "no-agent")) throw error;
      tried.push(error.message);
    }
  }
  throw new CliError(`No agent answers on this machine; tried:\n${tried.map((one) => `  ${one}`).join("\n")}`, {
    code: "no-agent",
    cure: "Start one with: mycelium up    (or name a running one with --socket or --state)",
    exitCode: EXIT.noAgent,
  });
}

/** Like {@linkcode findAgent}, but `undefined` where none runs. */
export async function findAgentIfAny(flags: SocketFlags, deps: CliDeps): Promise<ControlClient | undefined> {
  try {
    return await findAgent(flags, deps);
  } catch (error) {
    if (error instanceof CliError && error.code === "no-agent") return undefined;
    throw error;
  }
}
