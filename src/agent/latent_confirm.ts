/**
 * Confirmation by connection: a suspicious record is used only once its author, or for what issuers order an issuer,
 * has said over an authenticated channel that it stands.
 *
 * @module
 */

import { toHex } from "../core/bytes.ts";
import { WireError } from "../core/codec.ts";
import { nodeIdOf } from "../core/ids.ts";
import { LIMITS } from "../core/limits.ts";
import { ownerOf } from "../spore/keys.ts";
import { confirmValue, readConfirmAnswer, type Standing } from "../spore/messages.ts";
import type { Version } from "../spore/table.ts";
import type { Suspicion } from "../spore/validation.ts";
import type { Context } from "./context.ts";

/** A proof may be on its way that settles the matter. */
const GRACE_MS = 500;
/** Time for an answer. */
const ANSWER_MS = 5_000;
/** Time until somebody is asked again who was not there or did not answer. */
const AGAIN_MS = 30_000;

/** How far a suspicious record is. */
export type SuspectState = "asking" | "confirmed" | "denied" | "unanswered";

/** A suspicious record. */
export interface Suspect {
  readonly version: Version;
  readonly suspicion: Suspicion;
  readonly sinceMs: number;
  /** It is in the table, as a challenger; else it is kept here. */
  readonly inTable: boolean;
  readonly state: SuspectState;
  /** Who confirmed or denied it. */
  readonly by?: string;
}

interface Case extends Suspect {
  state: SuspectState;
  by?: string;
  /** Who was asked in this round. */
  readonly asked: Set<string>;
  /** When somebody is asked. */
  askMs: number;
}

/** What a confirmation came to: told once for each suspect. */
export type ConfirmReport = (suspect: Suspect) => void;

/** The suspicious records of a node. Full at `LIMITS.sporeSuspectsMax`: a further one is refused. */
export class Confirmations {
  readonly #cases = new Map<string, Case>();

  constructor(readonly ctx: Context, readonly report: ConfirmReport) {}

  get size(): number {
    return this.#cases.size;
  }

  /** All of them, in order of arrival. */
  all(): readonly Suspect[] {
    return [...this.#cases.values()];
  }

  /** What is known of a record, by its hash. */
  of(hash: Uint8Array): Suspect | undefined {
    return this.#cases.get(toHex(hash));
  }

  /** Takes a suspicious record in and asks about it. Returns whether there was room. */
  add(version: Version, suspicion: Suspicion, inTable: boolean): boolean {
    const name = toHex(version.spore.hash);
    if (this.#cases.has(name)) return true;
    if (this.#cases.size >= LIMITS.sporeSuspectsMax) return false;
    const { nowMs } = this.ctx;
    const askMs = suspicion === "contradicts" ? nowMs + GRACE_MS : nowMs;
    this.#cases.set(name, {
      version,
      suspicion,
      inTable,
      sinceMs: nowMs,
      state: "unanswered",
      asked: new Set(),
      askMs,
    });
    this.ctx.wakeAt(askMs);
    return true;
  }

  /** Forgets those that are settled otherwise. */
  keep(still: (suspect: Suspect) => boolean): void {
    for (const [name, one] of this.#cases) if (!still(one)) this.#cases.delete(name);
  }

  /** A member has come up that may answer. */
  up(nodeId: string): void {
    for (const one of this.#cases.values()) {
      if (one.state !== "unanswered" || !this.#witnesses(one.version).includes(nodeId)) continue;
      one.askMs = this.ctx.nowMs;
      this.ctx.wakeAt(one.askMs);
    }
  }

  /** Regular work; returns when it wants to be woken. */
  wake(): number {
    let nextMs = Infinity;
    for (const one of this.#cases.values()) {
      if (one.state !== "unanswered") continue;
      if (this.ctx.nowMs >= one.askMs) this.#ask(one);
      if (one.state === "unanswered") nextMs = Math.min(nextMs, one.askMs);
    }
    return nextMs;
  }

  /** Times that were set with another clock count no longer. */
  clockSetBack(): void {
    for (const one of this.#cases.values()) one.askMs = Math.min(one.askMs, this.ctx.nowMs);
  }

  /** Forgets everything. */
  clear(): void {
    this.#cases.clear();
  }

  /** Who can tell, the better one first: of what issuers order an issuer, else the author. */
  #witnesses({ spore }: Version): string[] {
    const { state } = this.ctx;
    const author = spore.author;
    if (ownerOf(spore.record.key)?.kind === "node") return [author];
    const issuers = (state.network?.chain?.issuers ?? []).map(nodeIdOf).filter((one) =>
      one !== state.nodeId && one !== author
    );
    return [...issuers, author];
  }

  /** Asks the next one who can tell; after the last one it waits. */
  #ask(one: Case): void {
    const { ctx } = this;
    const { spore } = one.version;
    const witness = this.#witnesses(one.version).find((nodeId) =>
      !one.asked.has(nodeId) && ctx.sessions.get(nodeId)?.member
    );
    if (witness === undefined) {
      one.state = "unanswered";
      one.asked.clear();
      one.askMs = ctx.nowMs + AGAIN_MS;
      return ctx.wakeAt(one.askMs);
    }
    one.state = "asking";
    one.asked.add(witness);
    ctx.call(witness, "spore.confirm", confirmValue(spore.record.key, spore.hash), ANSWER_MS, (result) => {
      if (this.#cases.get(toHex(spore.hash)) !== one) return;
      let standing: Standing | undefined;
      try {
        standing = result.ok ? readConfirmAnswer(result.body, "spore.confirm").s : undefined;
      } catch (error) {
        if (!(error instanceof WireError)) throw error;
        ctx.refuse("bad-answer", witness);
      }
      // An author that does not know its own word did not say it: somebody has its key, or it lost its disk.
      if (standing === "unknown" && witness === spore.author) standing = "replaced";
      if (standing === undefined || standing === "unknown") return this.#ask(one);
      one.state = standing === "current" ? "confirmed" : "denied";
      one.by = witness;
      this.report(one);
    });
  }
}
