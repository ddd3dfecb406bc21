/** Answers of the agent that are read field by field: it may be of another version. @module */

import { CliError } from "./exit.ts";

/** Fields of an answer; none where it is no map. */
export function fields(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? value as Record<string, unknown> : {};
}

/** The agent answered what this program cannot read. */
export function badAnswer(): CliError {
  return new CliError("Cannot read the agent's answer", {
    code: "bad-answer",
    cure: "The agent may be of another version: compare mycelium version and restart it",
  });
}
