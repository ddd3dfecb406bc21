/**
 * Carries out remote commands on this node, line by line.
 *
 * What arrives here was signed by an operator for this node and checked by the agent.
 *
 * @module
 */

import type { SignedCommand } from "../agent/commands.ts";
import type { ControlRequest } from "../agent/control.ts";
import type { Status } from "../agent/status.ts";
import { CallError } from "../ports/network.ts";

/** What commands need of the node. */
export interface CommandDeps {
  status(): Status;
  /** Asks the agent in the name of this node: whether the command may be carried out was asked before. */
  control(request: ControlRequest): Promise<unknown>;
  /** Recent log lines, oldest first. */
  logLines(count: number): readonly string[];
  /** Calls back for each new log line until the returned function is called. */
  onLogLine(listener: (line: string) => void): () => void;
  readonly config: ConfigVersions;
  /** Stops the node; the service manager starts it again. */
  restart(): void;
}

/** The versions of the configuration that this node holds. */
export interface ConfigVersions {
  /** Text in force, and its number. */
  current(): { readonly version: number; readonly text: string; readonly tryUntilMs?: number };
  /**
   * Applies a text until it is confirmed or the time is over.
   *
   * @throws {Error} Where the text is not valid; nothing changes then.
   */
  try(text: string, confirmWithinMs: number): Promise<{ readonly version: number; readonly untilMs: number }>;
  confirm(): { readonly version: number };
  /** Goes back to the version before. */
  revert(): Promise<{ readonly version: number }>;
}

/** Longest time that `logs --follow` streams. */
const FOLLOW_MS_MAX = 10 * 60_000;

/** Time for the answer to `isolate` to leave. */
const ISOLATE_AFTER_MS = 250;

/** Carries out remote commands. */
export class CommandRunner {
  constructor(readonly deps: CommandDeps) {}

  /** Runs a command; each yielded text is one or more whole lines. */
  async *run(command: SignedCommand, _by: string, signal: AbortSignal): AsyncIterable<string> {
    const { deps } = this;
    const { verb, args } = command;
    switch (verb) {
      case "ping":
        yield `pong from ${deps.status().node.name}\n`;
        return;
      case "status":
        yield JSON.stringify(deps.status(), null, 2) + "\n";
        return;
      case "doctor":
        yield* findings(deps.status());
        return;
      case "logs":
        yield* this.#logs(args, signal);
        return;
      case "config-get": {
        const { version, text } = deps.config.current();
        yield `# version ${version}\n${text}`;
        return;
      }
      case "config-try": {
        const text = args.get("text");
        if (text === undefined) throw new CallError("bad-request", "config-try needs the argument text");
        const confirmWithinMs = Math.min(
          3_600_000,
          Math.max(5_000, Number(args.get("confirmWithinMs") ?? 60_000) || 60_000),
        );
        const { version, untilMs } = await deps.config.try(text, confirmWithinMs);
        yield `version ${version} is in force until ${new Date(untilMs).toISOString()} unless it is confirmed\n`;
        return;
      }
      case "config-confirm":
        yield `version ${deps.config.confirm().version} is confirmed\n`;
        return;
      case "config-revert":
      case "revert":
        yield `version ${(await deps.config.revert()).version} is in force\n`;
        return;
      case "drain":
        yield* this.#mode("drained");
        return;
      case "isolate":
        yield "isolating: only operator commands reach this node until: rejoin\n";
        // The end of the answer has to leave before the channels close.
        setTimeout(() => deps.control({ verb: "set-mode", mode: "isolated" }).catch(() => {}), ISOLATE_AFTER_MS);
        return;
      case "safe-mode":
        yield* this.#mode("safe");
        return;
      case "undrain":
      case "rejoin":
      case "normal-mode":
        yield* this.#mode("normal");
        return;
      case "leave":
        await deps.control({ verb: "leave" });
        yield "this node leaves the network; it takes no further part\n";
        return;
      case "restart":
        yield "restarting\n";
        deps.restart();
        return;
      default:
        verb satisfies never;
    }
  }

  async *#mode(mode: Status["node"]["mode"]): AsyncIterable<string> {
    const answer = await this.deps.control({ verb: "set-mode", mode }) as { before: string; mode: string };
    yield `mode: ${answer.before} -> ${answer.mode}\n`;
  }

  async *#logs(args: ReadonlyMap<string, string>, signal: AbortSignal): AsyncIterable<string> {
    const count = Math.min(1_000, Math.max(0, Math.floor(Number(args.get("lines") ?? 100)) || 0));
    for (const line of this.deps.logLines(count)) yield line + "\n";
    if (args.get("follow") !== "true") return;
    const waiting: string[] = [];
    let wake: () => void = () => {};
    const stop = this.deps.onLogLine((line) => {
      // A reader that is too slow loses the oldest lines, not this node its memory.
      if (waiting.length >= 1_000) waiting.shift();
      waiting.push(line);
      wake();
    });
    const end = AbortSignal.any([signal, AbortSignal.timeout(FOLLOW_MS_MAX)]);
    end.addEventListener("abort", () => wake(), { once: true });
    try {
      while (!end.aborted) {
        const line = waiting.shift();
        if (line !== undefined) yield line + "\n";
        else await new Promise<void>((resolve) => wake = resolve);
      }
    } finally {
      stop();
    }
  }
}

/** What is wrong with a node, one line each. */
function* findings(status: Status): Iterable<string> {
  if (status.health.reasons.length === 0 && status.bootstrap.stage === "verified") yield "ok: nothing found\n";
  for (const reason of status.health.reasons) yield `${status.health.health}: ${reason}\n`;
  for (const waiting of status.bootstrap.waitingFor) yield `waiting: ${waiting.what}\n`;
  for (const failure of status.bootstrap.failures) {
    yield `failure ${failure.code} (${failure.count}×, ${failure.tried}): ${failure.what}. ${failure.cure}\n`;
  }
}
