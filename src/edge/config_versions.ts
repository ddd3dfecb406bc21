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
  /**
   * Puts a text into force.
   *
   * @throws {Error} Where that does not work; what was in force before is so again.
   */
  apply(text: string): Promise<void>;
  audit(action: string, detail: string): void;
  /** What nobody waits for has failed. */
  failed(error: unknown): void;
  now(): number;
}

/** Versions of the configuration, in the store. */
export class StoredConfigVersions implements ConfigVersions {
  readonly #options: StoredConfigVersionsOptions;
  readonly #versions: { readonly version: number; readonly text: string }[];
  #trying: Trial | undefined;

  constructor(options: StoredConfigVersionsOptions) {
    this.#options = options;
    const stored = [...options.store.load()].filter(([key]) => /^config\/[1-9][0-9]{0,14}$/.test(key));
    this.#versions = stored.flatMap(([key, value]) => {
      try {
        return [{ version: Number(key.slice("config/".length)), text: fromUtf8(value) }];
      } catch (error) {
        if (!(error instanceof TypeError)) throw error;
        return [];
      }
    }).sort((a, b) => a.version - b.version);
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
    this.#options.audit("config-try", `version ${version} until ${new Date(untilMs).toISOString()}`);
    // Only a confirmed version is stored: after a crash the node starts with what was known to work.
    this.#versions.push({ version, text });
    const timer = setTimeout(() => void this.#expire(trial), confirmWithinMs);
    const trial: Trial = { untilMs, timer, applying: true };
    this.#trying = trial;
    try {
      await this.#options.apply(text);
      trial.applying = false;
    } catch (error) {
      // Unless somebody has taken it back meanwhile: what came before is not to blame.
      if (this.#trying === trial) {
        this.#end();
        this.#versions.pop();
        this.#options.audit("config-revert", `version ${version} could not be put into force`);
      }
      throw error;
    }
    if (this.#trying !== trial) throw new Error("Cannot try a configuration: it was reverted meanwhile");
    return { version, untilMs };
  }

  confirm(): { readonly version: number } {
    const { version, text } = this.current();
    if (!this.#trying) throw new Error("Cannot confirm: no configuration is being tried");
    if (this.#trying.applying) throw new Error("Cannot confirm: it is still being put into force");
    const old = this.#versions.slice(0, Math.max(0, this.#versions.length - VERSIONS_MAX));
    // Stored first: where that fails it is still a trial, and ends by itself.
    this.#options.store.apply([
      [`config/${version}`, utf8(text)],
      ...old.map((one) => [`config/${one.version}`, null] as const),
    ]);
    this.#end();
    this.#versions.splice(0, old.length);
    this.#options.audit("config-confirm", `version ${version}`);
    return { version };
  }

  async revert(): Promise<{ readonly version: number }> {
    const gone = this.#versions.at(-1);
    if (!gone) throw new Error("Cannot revert: there is no earlier configuration");
    if (!this.#trying) this.#options.store.apply([[`config/${gone.version}`, null]]);
    this.#end();
    this.#versions.pop();
    const { version, text } = this.current();
    this.#options.audit("config-revert", `version ${gone.version} -> ${version}`);
    await this.#options.apply(text);
    return { version };
  }

  /** Ends the timer of a trial. */
  stop(): void {
    clearTimeout(this.#trying?.timer);
  }

  #end(): void {
    clearTimeout(this.#trying?.timer);
    this.#trying = undefined;
  }

  async #expire(trial: Trial): Promise<void> {
    if (this.#trying !== trial) return;
    try {
      this.#options.audit("config-expired", "not confirmed in time");
      await this.revert();
    } catch (error) {
      this.#options.failed(error);
    }
  }
}

/** A version that is in force until it is confirmed or the time is over. */
interface Trial {
  readonly untilMs: number;
  readonly timer: ReturnType<typeof setTimeout>;
  /** Whether it is still being put into force. */
  applying: boolean;
}
