/** What every command gets: the world, its output, its flags. @module */

import type { Command } from "commander";
import type { MemberStatus, PendingStatus, Status } from "../agent/status.ts";
import type { ControlClient } from "./client.ts";
import type { CliDeps } from "./deps.ts";
import { CliError, EXIT, usageError } from "./exit.ts";
import { Output, type OutputFlags, parseDuration } from "./output.ts";
import { findAgent, findAgentIfAny, type SocketFlags } from "./socket.ts";

/** Flags that every command takes. */
export interface GlobalFlags extends OutputFlags, SocketFlags {
  /** Configuration file. */
  readonly config?: string;
}

/** What a command runs with. */
export class Context {
  readonly deps: CliDeps;
  readonly flags: GlobalFlags;
  readonly out: Output;

  /** Makes the context of one run. */
  constructor(deps: CliDeps, flags: GlobalFlags) {
    this.deps = deps;
    this.flags = flags;
    this.out = new Output(deps, flags);
  }

  /** The agent of this machine; throws `no-agent` where there is none. */
  agent(): Promise<ControlClient> {
    return findAgent(this.flags, this.deps, { code: () => this.secondFactor() });
  }

  /** The same, without the session that was kept. */
  agentAnonymously(): Promise<ControlClient> {
    return findAgent(this.flags, this.deps, { anonymous: true });
  }

  /** A code of the second factor: from the variable `MYCELIUM_CODE`, or asked for on the terminal. */
  async secondFactor(): Promise<string | undefined> {
    const given = this.deps.env.MYCELIUM_CODE;
    if (given !== undefined) return given.trim();
    if (!this.out.interactive) return undefined;
    const code = (await this.out.ask("Code of the second factor: "))?.trim();
    return code === "" ? undefined : code;
  }

  /** The agent of this machine, or `undefined`. */
  agentIfAny(): Promise<ControlClient | undefined> {
    return findAgentIfAny(this.flags, this.deps, { code: () => this.secondFactor() });
  }

  /**
   * Makes sure that a person means it.
   *
   * @param question Ends with a question mark.
   * @param yes Whether `--yes` was given.
   * @throws {CliError} `not-confirmed` (exit code 4) where nobody can be asked or the answer is no.
   */
  async confirm(question: string, yes: boolean | undefined): Promise<void> {
    if (yes) return;
    if (!this.out.interactive) {
      throw new CliError("This needs a confirmation, and there is no terminal to ask on", {
        code: "not-confirmed",
        cure: "Look first with --dry-run, then add --yes",
        exitCode: EXIT.refused,
      });
    }
    if (!await this.out.confirm(question)) {
      throw new CliError("Nothing was changed", { code: "not-confirmed", exitCode: EXIT.refused });
    }
  }
}

/** A command's work; the result is the exit code. */
export type Handler = (context: Context, args: readonly string[], command: Command) => Promise<number>;

/** Registers work under a command. */
export type Register = (command: Command, handler: Handler) => void;

/** Reads a duration given as a flag. */
export function durationFlag(flag: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const ms = parseDuration(text);
  if (ms === undefined) {
    throw usageError(`Cannot use ${flag} "${text}": not a duration, wanted for example 90s, 15m, 24h or 7d`);
  }
  return ms;
}

/** Reads a whole number given as a flag. */
export function countFlag(flag: string, text: string | undefined, min: number, max: number): number | undefined {
  if (text === undefined) return undefined;
  const value = /^\d{1,12}$/.test(text) ? Number(text) : NaN;
  if (!(value >= min && value <= max)) {
    throw usageError(`Cannot use ${flag} "${text}": wanted a whole number from ${min} to ${max}`);
  }
  return value;
}

/** A node that a person named by its full id, the end of it, or its name. */
export function resolveNode(status: Status, word: string): MemberStatus | PendingStatus {
  const all = [...status.members, ...status.pending];
  const exact = all.filter((one) => one.nodeId === word);
  const named = all.filter((one) => one.name === word);
  const suffix = word.length >= 4 ? all.filter((one) => one.nodeId.endsWith(word)) : [];
  const found = exact.length > 0 ? exact : [...new Map([...named, ...suffix].map((one) => [one.nodeId, one])).values()];
  if (found.length === 1) return found[0]!;
  if (found.length > 1) {
    const ids = found.slice(0, 8).map((one) => `${one.name} (${one.nodeId})`).join(", ");
    throw new CliError(`"${word}" is not one node but ${found.length}: ${ids}`, {
      code: "node-ambiguous",
      cure: "Name it by its whole id",
      exitCode: EXIT.usage,
    });
  }
  throw new CliError(`There is no node "${word}"`, {
    code: "node-unknown",
    cure: "See which there are with: mycelium node list. A node is named by its id, the end of it (4 characters or " +
      "more), or its name",
    exitCode: EXIT.usage,
  });
}
