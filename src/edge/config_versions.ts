/**
 * Versions of the node's own configuration: try with automatic revert, confirm, revert.
 *
 * The text is a YAML layer above the files and below the environment. Versions are kept in the store.
 *
 * @module
 */

import { fromUtf8, utf8 } from "../core/bytes.ts";
import type { Store } from "../ports/storage.ts";
import type { ConfigVersions } from "./commands.ts";

/** Versions kept. */
const VERSIONS_MAX = 20;

/** Options of {@linkcode StoredConfigVersions}. */
export interface StoredConfigVersionsOptions {
  readonly store: Store;
  /** Throws where the text is no valid layer. */
  check(text: string): void;
  /** Puts a text into force. */
  apply(text: string): Promise<void>;
  audit(action: string, detail: string): void;
  now(): number;
}

/** Versions of the configuration, in the store. */
export class StoredConfigVersions implements ConfigVersions {
  readonly #options: StoredConfigVersionsOptions;
  readonly #versions: { readonly version: number; readonly text: string }[];
  #trying: { readonly untilMs: number; readonly timer: ReturnType<typeof setTimeout> } | undefined;

  constructor(options: StoredConfigVersionsOptions) {
    this.#options = options;
    this.#versions = [...options.store.load()].filter(([key]) => key.startsWith("config/")).map(([key, value]) => ({
      version: Number(key.slice("config/".length)),
      text: fromUtf8(value),
    })).sort((a, b) => a.version - b.version);
  }

  current(): { readonly version: number; readonly text: string; readonly tryUntilMs?: number } {
    const last = this.#versions.at(-1) ?? { version: 0, text: "" };
    return { ...last, ...(this.#trying ? { tryUntilMs: this.#trying.untilMs } : {}) };
  }

  async try(text: string, confirmWithinMs: number): Promise<{ readonly version: number; readonly untilMs: number }> {
    this.#options.check(text);
    if (this.#trying) {
      throw new Error("Cannot try a configuration: another one is being tried; confirm or revert it first");
    }
    const version = this.current().version + 1;
    const untilMs = this.#options.now() + confirmWithinMs;
    // Only a confirmed version is stored: after a crash the node starts with what was known to work.
    this.#versions.push({ version, text });
    this.#trying = { untilMs, timer: setTimeout(() => void this.#expire(), confirmWithinMs) };
    this.#options.audit("config-try", `version ${version} until ${new Date(untilMs).toISOString()}`);
    try {
      await this.#options.apply(text);
    } catch (error) {
      await this.revert();
      throw error;
    }
    return { version, untilMs };
  }

  confirm(): { readonly version: number } {
    const { version, text } = this.current();
    if (!this.#trying) throw new Error("Cannot confirm: no configuration is being tried");
    clearTimeout(this.#trying.timer);
    this.#trying = undefined;
    const old = this.#versions.length > VERSIONS_MAX
      ? this.#versions.splice(0, this.#versions.length - VERSIONS_MAX)
      : [];
    this.#options.store.apply([
      [`config/${version}`, utf8(text)],
      ...old.map((one) => [`config/${one.version}`, null] as const),
    ]);
    this.#options.audit("config-confirm", `version ${version}`);
    return { version };
  }

  async revert(): Promise<{ readonly version: number }> {
    const stored = this.#trying === undefined;
    clearTimeout(this.#trying?.timer);
    this.#trying = undefined;
    const gone = this.#versions.pop();
    if (!gone) throw new Error("Cannot revert: there is no earlier configuration");
    if (stored) this.#options.store.apply([[`config/${gone.version}`, null]]);
    this.#options.audit("config-revert", `version ${gone.version} -> ${this.current().version}`);
    await this.#options.apply(this.current().text);
    return { version: this.current().version };
  }

  /** Ends the timer of a trial. */
  stop(): void {
    clearTimeout(this.#trying?.timer);
  }

  async #expire(): Promise<void> {
    if (!this.#trying) return;
    this.#options.audit("config-expired", "not confirmed in time");
    await this.revert();
  }
}
