/**
 * What the person at the machine asks of the Latent Spore: list, show, verify, compare.
 *
 * @module
 */

import { toBase64Url, toHex } from "../core/bytes.ts";
import { WireError } from "../core/codec.ts";
import { publicKeyOf, shortNodeId } from "../core/ids.ts";
import { shuffled } from "../core/rng.ts";
import { packIds, Repair, ZONES } from "../spore/digest.ts";
import {
  deltaAskValue,
  digestAskValue,
  readDeltaAnswer,
  readDigestAnswer,
  readReadAnswer,
  readValue,
} from "../spore/messages.ts";
import { readSpore } from "../spore/record.ts";
import { isAlive, type SporeEntry, SporeTable, tierOf, type Version } from "../spore/table.ts";
import { checkVersion, type SporeFacts, type SporeRefusal } from "../spore/validation.ts";
import { type Context, DEFERRED, Refusal } from "./context.ts";
import type { CallFailure } from "./effects.ts";
import type { SuspectState } from "./latent_confirm.ts";
import type { SporeRow } from "./status.ts";

/** Questions of the person at the machine. */
export type SporeQuestion =
  | { readonly verb: "spore-list"; readonly prefix?: string; readonly after?: string; readonly max?: number }
  | { readonly verb: "spore-show"; readonly key: string }
  | { readonly verb: "spore-verify" }
  | { readonly verb: "spore-diff"; readonly node: string };

/** A page of a listing. */
export interface SporePage {
  readonly rows: readonly SporeRow[];
  /** Key to go on after; missing: that was all. */
  readonly after?: string;
}

/** What the console sees of the part that it belongs to. */
export interface ConsoleHost {
  readonly table: SporeTable;
  /** What is used under a key. */
  use(key: string): { readonly version: Version; readonly provisional: boolean } | undefined;
  /** How far the confirmation of a suspicious record is. */
  confirmation(hash: Uint8Array): SuspectState | undefined;
  facts(): SporeFacts;
  refuse(reason: SporeRefusal | `spore-${string}`, from: string): void;
  /** Whether this device keeps a part of the records. */
  partial(): boolean;
  /** Zones that it keeps whole. */
  zones(): readonly number[];
}

/** Answers of `spore-list` at once. */
const LIST_MAX = 1_000;
/** Records that are verified again in one step. */
const VERIFY_SLICE = 200;

/** Answers questions about spore records. */
export class SporeConsole {
  #verify: { readonly controlId: number; readonly keys: string[]; checked: number; readonly bad: string[] } | undefined;

  constructor(readonly ctx: Context, readonly host: ConsoleHost) {}

  /** Answers, or defers the answer. @throws {Refusal} */
  answer(controlId: number, request: SporeQuestion): unknown {
    switch (request.verb) {
      case "spore-list":
        return this.#list(controlId, request);
      case "spore-show":
        return this.#show(controlId, request.key);
      case "spore-verify":
        if (this.#verify) throw new Refusal("busy", "Cannot verify: a verification is under way", "Try again later");
        this.#verify = { controlId, keys: this.host.table.keys(""), checked: 0, bad: [] };
        this.ctx.wakeAt(this.ctx.nowMs);
        return DEFERRED;
      case "spore-diff":
        return this.#diff(controlId, request.node);
      default:
        return request satisfies never;
    }
  }

  /** Forgets what is under way. */
  clear(): void {
    this.#verify = undefined;
  }

  /** Regular work; returns when it wants to be woken. */
  wake(): number {
    return this.#verifySlice();
  }

  /** Rows for the read-only listing. */
  rows(
    prefix: string,
    after?: string,
    max = LIST_MAX,
  ): { readonly rows: readonly SporeRow[]; readonly after?: string } {
    const entries = this.host.table.list(prefix, { ...(after === undefined ? {} : { after }), max: max + 1 });
    const shown = entries.slice(0, max);
    const last = shown.at(-1);
    return {
      rows: shown.map((one) => this.#row(one)),
      ...(entries.length > max && last ? { after: last.key } : {}),
    };
  }

  #list(controlId: number, request: SporeQuestion & { readonly verb: "spore-list" }): unknown {
    const prefix = request.prefix ?? "";
    const max = Math.min(LIST_MAX, request.max ?? LIST_MAX);
    if (!this.host.partial() || this.host.zones().some((zone) => prefix.startsWith(`${ZONES[zone]}/`))) {
      return { ...this.rows(prefix, request.after, max), nowMs: this.ctx.nowMs, from: this.ctx.state.nodeId };
    }
    return this.#ask(controlId, prefix, request.after, (entries, after, from) => ({
      rows: entries.slice(0, max).map((one) => this.#row(one)),
      ...(after === undefined ? {} : { after }),
      nowMs: this.ctx.nowMs,
      from,
    }));
  }

  #show(controlId: number, key: string): unknown {
    const missing = () =>
      new Refusal(
        "not-found",
        `Cannot show "${key}": nothing is known under this key`,
        "List keys: mycelium spore list",
      );
    const entry = this.host.table.get(key);
    const held = this.host.use(key);
    if (entry || held) {
      const row = entry ?? { key, winner: held!.version, tier: tierOf(held!.version), challenger: undefined };
      return { ...this.#row(row, true), nowMs: this.ctx.nowMs };
    }
    if (!this.host.partial()) throw missing();
    return this.#ask(controlId, key, undefined, (entries) => {
      const found = entries.find((one) => one.key === key);
      if (!found) throw missing();
      return { ...this.#row(found, true), nowMs: this.ctx.nowMs };
    });
  }

  /** Asks a member that keeps everything, checks what it says, and answers with that. */
  #ask(
    controlId: number,
    prefix: string,
    after: string | undefined,
    show: (entries: readonly SporeEntry[], after: string | undefined, from: string) => unknown,
  ): typeof DEFERRED {
    const { ctx } = this;
    const peers = shuffled(ctx.memberPeers(), ctx.rng);
    const whole = peers.find((one) => ctx.state.members.get(one)?.membership.role !== "hypha");
    if (whole === undefined) {
      throw new Refusal(
        "unreachable",
        "Cannot ask for records: this device keeps a part of them, and no member that keeps all is connected",
        "Look: mycelium peers",
      );
    }
    ctx.call(whole, "spore.read", readValue(prefix, after), 10_000, (result) => {
      this.#finish(controlId, result, () => {
        if (!result.ok) return undefined;
        const read = readReadAnswer(result.body, "spore.read");
        const facts = this.host.facts();
        const side = new SporeTable();
        for (const wire of read.g) {
          const verdict = checkVersion(wire, facts);
          if (verdict.ok && !verdict.suspicion) side.merge(verdict.version, ctx.nowMs);
          else this.host.refuse(verdict.ok ? "spore-suspicious" : verdict.reason, whole);
        }
        return show(side.list(prefix), read.a, whole);
      });
    });
    return DEFERRED;
  }

  /** Compares this table with that of a member, and exchanges nothing. */
  #diff(controlId: number, wanted: string): typeof DEFERRED {
    const { ctx } = this;
    const found = ctx.memberPeers().filter((one) =>
      one === wanted || ctx.state.members.get(one)?.membership.name === wanted ||
      wanted.length >= 4 && one.endsWith(wanted)
    );
    if (found.length !== 1) {
      throw new Refusal(
        publicKeyOf(wanted) || found.length === 0 ? "not-found" : "ambiguous",
        `Cannot compare with "${wanted}": ${found.length} connected members match`,
        "List them: mycelium peers",
      );
    }
    const nodeId = found[0]!;
    const repair = new Repair(this.host.table.digest, this.host.zones());
    const give: string[] = [];
    const want: { readonly zone: number; readonly node: number; readonly list: Uint8Array }[] = [];
    const fail = (result: CallFailure) => this.#finish(controlId, result, () => undefined);
    const theirs = new SporeTable();
    const report = () => {
      const keys = [...new Set([...give, ...theirs.keys("")])].sort();
      const side = (table: SporeTable, key: string) => {
        const entry = table.get(key);
        return entry ? this.#row(entry) : undefined;
      };
      return {
        nodeId,
        same: keys.length === 0,
        differences: keys.slice(0, LIST_MAX).map((key) => ({
          key,
          here: side(this.host.table, key),
          there: side(theirs, key),
        })),
        more: Math.max(0, keys.length - LIST_MAX),
        nowMs: ctx.nowMs,
      };
    };
    const next = () => {
      const some = want.splice(0, 8);
      if (some.length === 0) return this.#finish(controlId, { ok: true }, report);
      ctx.call(nodeId, "spore.delta", deltaAskValue([], some), 10_000, (result) => {
        if (!result.ok) return fail(result);
        this.#guard(controlId, () => {
          for (const { envelope, proof } of readDeltaAnswer(result.body, "spore.delta").given) {
            theirs.merge({ spore: readSpore(envelope), proof }, ctx.nowMs);
          }
          next();
        });
      });
    };
    const go = () => {
      const ask = repair.next();
      if (!ask || give.length + want.length > 4 * LIST_MAX) return next();
      ctx.call(nodeId, "spore.digest", digestAskValue(ask), 10_000, (result) => {
        if (!result.ok) return fail(result);
        this.#guard(controlId, () => {
          const difference = repair.take(readDigestAnswer(result.body, "spore.digest").parts);
          give.push(...difference.give);
          for (const { zone, node, ids } of difference.want) {
            for (let at = 0; at < ids.length; at += 32) {
              want.push({ zone, node, list: packIds(ids.slice(at, at + 32)) });
            }
          }
          go();
        });
      });
    };
    go();
    return DEFERRED;
  }

  /** Answers a request with what `show` gives, or with why not. */
  #finish(controlId: number, result: { readonly ok: true } | CallFailure, show: () => unknown): void {
    if (result.ok) return this.#guard(controlId, () => this.#reply(controlId, { ok: true, value: show() }));
    const { code, message } = result as CallFailure;
    this.#reply(controlId, {
      ok: false,
      error: { code, message: `Cannot ask another member: ${message}`, cure: "Try again" },
    });
  }

  #guard(controlId: number, work: () => void): void {
    try {
      work();
    } catch (error) {
      if (!(error instanceof Refusal) && !(error instanceof WireError)) throw error;
      const [code, cure] = error instanceof Refusal ? [error.code, error.cure] : ["bad-answer", "Try another node"];
      this.#reply(controlId, { ok: false, error: { code, message: error.message, cure } });
    }
  }

  #reply(
    controlId: number,
    result: { readonly ok: true; readonly value: unknown } | {
      readonly ok: false;
      readonly error: { readonly code: string; readonly message: string; readonly cure: string };
    },
  ): void {
    this.ctx.emit({ type: "control-reply", controlId, result });
  }

  /** Verifies some more records again, signatures and proofs, for `spore verify`. */
  #verifySlice(): number {
    const run = this.#verify;
    if (!run) return Infinity;
    const facts = this.host.facts();
    for (const key of run.keys.splice(0, VERIFY_SLICE)) {
      for (const { spore, proof } of this.host.table.versions(key)) {
        run.checked += 1;
        const verdict = checkVersion({ envelope: spore.envelope, proof }, facts);
        const fault = verdict.ok ? verdict.proofRefused : verdict.reason;
        if (fault && run.bad.length < LIST_MAX) run.bad.push(`${key}: ${fault}`);
      }
    }
    if (run.keys.length > 0) return this.ctx.nowMs;
    this.#verify = undefined;
    this.#reply(run.controlId, { ok: true, value: { checked: run.checked, bad: run.bad } });
    return Infinity;
  }

  #row(entry: SporeEntry, whole = false): SporeRow {
    const { nowMs } = this.ctx;
    const used = this.host.use(entry.key);
    const row = (version: Version): Omit<SporeRow, "provisional"> => {
      const { record, hash, author } = version.spore;
      return {
        key: record.key,
        tier: tierOf(version),
        state: record.value === undefined ? "deleted" : isAlive(version, nowMs) ? "live" : "expired",
        author,
        authorName: this.#nameOf(author),
        seq: record.seq,
        ...(version.proof
          ? { term: version.proof.term, index: version.proof.index, provenUntilMs: version.proof.untilMs }
          : {}),
        issuedMs: record.issuedMs,
        expiresMs: record.expiresMs,
        hash: toHex(hash),
        sizeBytes: record.value?.length ?? 0,
        ...(whole && record.value ? { value: toBase64Url(record.value) } : {}),
      };
    };
    const shown = used?.provisional ? used.version : entry.winner;
    const doubted = entry.challenger && entry.challenger !== shown ? entry.challenger : undefined;
    const confirmation = doubted && this.host.confirmation(doubted.spore.hash);
    return {
      ...row(shown),
      provisional: used?.provisional ?? false,
      ...(doubted ? { challenger: { ...row(doubted), confirmation: confirmation ?? "unanswered" } } : {}),
    };
  }

  #nameOf(nodeId: string): string {
    return this.ctx.state.members.get(nodeId)?.membership.name ?? shortNodeId(nodeId);
  }
}
