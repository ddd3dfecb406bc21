/** The node's log: lines for the writer, a ring of the latest for `logs`, and events for the status page. @module */

import type { EventStatus } from "../agent/status.ts";
import { LIMITS } from "../core/limits.ts";

const LEVELS = ["debug", "info", "warn", "error"] as const;
type Level = typeof LEVELS[number];

/** Options of {@linkcode NodeLog}. */
export interface NodeLogOptions {
  readonly level: Level;
  readonly json: boolean;
  readonly write: (line: string) => void;
}

/** Log of a node. */
export class NodeLog {
  #level: Level;
  readonly #options: NodeLogOptions;
  readonly #lines: string[] = [];
  readonly #events: EventStatus[] = [];
  readonly #listeners = new Set<(line: string) => void>();

  constructor(options: NodeLogOptions) {
    this.#options = options;
    this.#level = options.level;
  }

  setLevel(level: Level): void {
    this.#level = level;
  }

  log(
    level: Level,
    component: string,
    event: string,
    message: string,
    fields: Readonly<Record<string, unknown>> = {},
  ): void {
    const atMs = Date.now();
    if (level !== "debug") {
      this.#events.push({ atMs, level, event, message });
      if (this.#events.length > LIMITS.recentEventsMax) this.#events.shift();
    }
    if (LEVELS.indexOf(level) < LEVELS.indexOf(this.#level)) return;
    const ts = new Date(atMs).toISOString();
    const line = JSON.stringify({ ts, level, component, event, msg: message, ...fields });
    this.#lines.push(line);
    if (this.#lines.length > 1_000) this.#lines.shift();
    this.#options.write(this.#options.json ? line : `${ts} ${level.padEnd(5)} ${message}`);
    for (const listener of this.#listeners) listener(line);
  }

  /** The latest lines as JSON, oldest first. */
  recent(count: number): readonly string[] {
    return count === 0 ? [] : this.#lines.slice(-count);
  }

  events(): readonly EventStatus[] {
    return this.#events.slice(-64);
  }

  subscribe(listener: (line: string) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }
}
