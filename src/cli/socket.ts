/** Where the agent of this machine is found. @module */

import { isAbsolute, join, resolve } from "node:path";
import type { ControlClient, ControlOptions } from "./client.ts";
import type { CliDeps } from "./deps.ts";
import { CliError, EXIT } from "./exit.ts";
import { keptSession, sessionHeader } from "./session_file.ts";

/** Flags that say where the agent is. */
export interface SocketFlags {
  /** Address of the agent of another machine. */
  readonly url?: string;
  readonly socket?: string;
  readonly state?: string;
}

/** Who asks. */
export interface Who {
  /** Without the session that was kept: to begin one. */
  readonly anonymous?: boolean;
  /** Asks for a code of the second factor. */
  readonly code?: () => Promise<string | undefined>;
}

/** What a request to this agent shows: the token in a file, else the session that was kept. */
async function controlOptions(target: string, deps: CliDeps, who: Who): Promise<ControlOptions> {
  const { env } = deps;
  const ca = env.MYCELIUM_CA ? { caCerts: [await readFile("MYCELIUM_CA", env.MYCELIUM_CA)] } : {};
  const code = who.code ? { code: who.code } : {};
  if (who.anonymous) return ca;
  if (env.MYCELIUM_TOKEN_FILE) {
    const token = (await readFile("MYCELIUM_TOKEN_FILE", env.MYCELIUM_TOKEN_FILE)).trim();
    return { ...ca, authorization: () => `Bearer ${token}` };
  }
  const session = await keptSession(deps, target);
  if (!session) return { ...ca, ...code };
  return { ...ca, ...code, authorization: (request) => sessionHeader(session, request, deps.now()) };
}

async function readFile(variable: string, path: string): Promise<string> {
  try {
    return await Deno.readTextFile(path);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : "unreadable";
    throw new CliError(`Cannot read "${path}", which ${variable} names: ${why}`, {
      code: "usage",
      exitCode: EXIT.usage,
      cause,
    });
  }
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
  if (flags.url) return [flags.url];
  if (flags.socket) return [resolve(cwd, flags.socket)];
  if (flags.state) return [resolve(cwd, flags.state, "agent.sock")];
  if (env.MYCELIUM_URL) return [env.MYCELIUM_URL];
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
export async function findAgent(
  flags: SocketFlags,
  deps: CliDeps,
  who: Who = {},
): Promise<ControlClient> {
  const tried: string[] = [];
  for (const path of socketCandidates(flags, deps)) {
    try {
      return await deps.openControl(path, await controlOptions(path, deps, who));
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
export async function findAgentIfAny(
  flags: SocketFlags,
  deps: CliDeps,
  who: Who = {},
): Promise<ControlClient | undefined> {
  try {
    return await findAgent(flags, deps, who);
  } catch (error) {
    if (error instanceof CliError && error.code === "no-agent") return undefined;
    throw error;
  }
}
