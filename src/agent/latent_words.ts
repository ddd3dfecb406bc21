/**
 * What this node says itself: sealed, stored, told, proposed, said again, and held against what is said in its name.
 *
 * @module
 */

import { equalBytes, fromBase64Url, toHex } from "../core/bytes.ts";
import { backoffMs } from "../core/rng.ts";
import { mayWrite, ownerOf } from "../spore/keys.ts";
import { RECORD_LIFE_MS_MAX, sealSpore, type Spore, VALUE_BYTES_MAX } from "../spore/record.ts";
import { isAlive, type SporeTable, type Version } from "../spore/table.ts";
import { type Context, DEFERRED, Refusal } from "./context.ts";
import { ownKey, ownPut, type OwnWord, sporePut } from "./latent_store.ts";
import { conflictText } from "./primary_client.ts";

/** Writes of the person at the machine. */
export type SporeWrite =
  | {
    readonly verb: "spore-put";
    readonly key: string;
    /** Base64url. */
    readonly value: string;
    /** Life of the word, after which it is gone; missing: said again for as long as this node lives. */
    readonly ttlMs?: number;
    /** Index of the version in the Primary Spore that it replaces, 0 for none; else the answer is `conflict`. */
    readonly expect?: number;
  }
  | { readonly verb: "spore-delete"; readonly key: string; readonly expect?: number };

/** The way to the Primary Spore, as the Latent Spore needs it. */
export interface PrimaryDoor {
  /** Whether there is somebody to ask. */
  reachable(): boolean;
  /** Proposes a word; `done` runs in a later step. */
  propose(spore: Spore, expect: number | undefined, done: (result: ProposeResult) => void): void;
  /** What the replica of this node holds under a key; missing where it runs none or has nothing there. */
  held(key: string): Spore | undefined;
}

/** How a proposal ended. `known: false`: whether it was committed is open. */
export type ProposeResult =
  | { readonly ok: true; readonly index: number }
  | { readonly ok: false; readonly known: boolean; readonly code: string; readonly index: number };

/** What own words need of the part that they belong to. */
export interface WordsHost {
  readonly table: SporeTable;
  /** The way to the Primary Spore, once there is one. */
  primary(): PrimaryDoor | undefined;
  /** Tells everybody. */
  tell(version: Version): void;
  /** A key has changed and is stored: who watches it is told. */
  changed(key: string): void;
}

/** How a word is to be said. */
export interface SayOptions {
  /** Its life. @default RECORD_LIFE_MS_MAX */
  readonly ttlMs?: number;
  /** Said again before it runs out, until it is deleted. @default where no life is given */
  readonly refresh?: boolean;
}

/** Time for the proof of a word that was just agreed on. */
const PROOF_WAIT_MS = 2_000;
/** How soon a word that need not be said again is looked at again. */
const REFRESH_LOOK_MS = 3_600_000;

/** How often an own word is handed to the Primary Spore again, that it has not answered for. */
const OFFER = { baseMs: 3_000, maxMs: 120_000 } as const;

/** What the Primary Spore says of a word for good. */
const FINAL: ReadonlySet<string> = new Set(["malformed", "not-permitted", "expired", "conflict", "stale-seq"]);

/** How long the primaries have to be in reach before a word goes to them under a key that others write as well. */
const SETTLE_MS = 10_000;

interface Offer {
  readonly atMs: number;
  readonly failures: number;
  /** Since when the primaries are in reach, where that is being waited for. */
  readonly reachedMs?: number;
}

/** The words of this node. */
export class OwnWords {
  readonly #own = new Map<string, OwnWord>();
  #nextRefreshMs = Infinity;
  /** Keys whose last word of this node the Primary Spore has not answered for: at most as many as there are own words. */
  readonly #offers = new Map<string, Offer>();
  /** What is done at a time. */
  #later: { readonly atMs: number; readonly run: () => void }[] = [];

  constructor(readonly ctx: Context, readonly host: WordsHost) {}

  /** Keys that this node writes. */
  get keys(): readonly string[] {
    return [...this.#own.keys()];
  }

  /** Whether this node has said anything under a key. */
  has(key: string): boolean {
    return this.#own.has(key);
  }

  /** Takes over what was stored. */
  load(words: readonly OwnWord[]): void {
    for (const one of words) {
      this.#own.set(one.key, one);
      // A node that was killed does not know whether it was heard.
      this.#offerLater(one.key, 0);
    }
    this.#nextRefreshMs = this.ctx.nowMs;
  }

  /** Forgets everything. */
  clear(): void {
    this.#own.clear();
    this.#offers.clear();
    this.#later = [];
    this.#nextRefreshMs = Infinity;
  }

  /** Times that were set with another clock count no longer. */
  clockSetBack(): void {
    this.#later = this.#later.map(({ run }) => ({ atMs: this.ctx.nowMs, run }));
    for (const [key, { failures }] of this.#offers) this.#offers.set(key, { atMs: this.ctx.nowMs, failures });
    this.#nextRefreshMs = this.ctx.nowMs;
  }

  /** Regular work; returns when it wants to be woken. */
  wake(): number {
    const { nowMs } = this.ctx;
    const due = this.#later.filter((one) => one.atMs <= nowMs);
    this.#later = this.#later.filter((one) => one.atMs > nowMs);
    for (const { run } of due) run();
    if (nowMs >= this.#nextRefreshMs) this.#refresh();
    let nextMs = this.#nextRefreshMs;
    for (const [key, { atMs }] of this.#offers) {
      if (atMs <= nowMs) this.#offer(key);
      nextMs = Math.min(nextMs, this.#offers.get(key)?.atMs ?? Infinity);
    }
    return Math.min(nextMs, ...this.#later.map((one) => one.atMs));
  }

  /** Says something: stored, then told, and proposed. @throws {Refusal} */
  say(key: string, value: Uint8Array | undefined, options: SayOptions = {}): Spore {
    const spore = this.#seal(key, value, options.ttlMs);
    this.#publish(spore, options);
    this.#offer(key, spore);
    return spore;
  }

  /**
   * Hands the last word of this node under a key to the Primary Spore; again and ever more seldom until it has
   * answered: an older word that it holds would else count before this one for as long as its proof is renewed.
   *
   * Under a key that others write as well, only a value, and only where nothing is known to stand: what was written
   * while nobody could be asked replaces nothing that was agreed on meanwhile. To the primaries a key that was deleted
   * is one where nothing stands, so that this node first gives repair the time to tell it of a deletion.
   */
  #offer(key: string, spore: Spore | undefined = this.last(key)): void {
    const entry = this.host.table.get(key);
    const owned = ownerOf(key)?.kind === "node";
    const settled = spore &&
      (owned
        ? entry?.tier === "primary" && entry.winner.spore.record.seq >= spore.record.seq
        : entry?.tier !== "latent" || spore.record.value === undefined);
    if (!spore || settled) return void this.#offers.delete(key);
    const { nowMs } = this.ctx;
    const { failures, reachedMs = nowMs } = this.#offers.get(key) ?? { failures: 0 };
    const primary = this.host.primary();
    if (!primary?.reachable()) return this.#offerLater(key, failures);
    if (!owned && nowMs < reachedMs + SETTLE_MS) {
      const atMs = reachedMs + SETTLE_MS;
      this.#offers.set(key, { atMs, failures, reachedMs });
      return this.ctx.wakeAt(atMs);
    }
    this.#offerLater(key, failures);
    primary.propose(spore, owned ? undefined : 0, (ended) => {
      // A newer word may have taken its place meanwhile, and is offered by itself.
      if (this.#own.get(key)?.seq !== spore.record.seq) return;
      if (ended.ok || FINAL.has(ended.code)) this.#offers.delete(key);
    });
  }

  #offerLater(key: string, failures: number): void {
    const atMs = this.ctx.nowMs + OFFER.baseMs + backoffMs(failures, OFFER, this.ctx.rng);
    this.#offers.set(key, { atMs, failures: failures + 1 });
    this.ctx.wakeAt(atMs);
  }

  /** Answers a write of the person at the machine. @throws {Refusal} */
  answer(controlId: number, request: SporeWrite): unknown {
    if (request.verb === "spore-delete") return this.#write(controlId, request.key, undefined, request);
    const value = fromBase64Url(request.value);
    if (!value || value.length > VALUE_BYTES_MAX) {
      throw new Refusal(
        "bad-request",
        `Cannot put "${request.key}": wanted at most ${VALUE_BYTES_MAX} bytes`,
        "Keep large values elsewhere, and put where they are",
      );
    }
    return this.#write(controlId, request.key, value, request);
  }

  /** The last word of this node under a key, where the table still has it. */
  last(key: string): Spore | undefined {
    const own = this.#own.get(key);
    return own &&
      this.host.table.versions(key).find(({ spore }) =>
        spore.author === this.ctx.state.nodeId && spore.record.seq === own.seq
      )?.spore;
  }

  /** A word in the name of this node that it does not know: of a former life of it, or of a thief of its key. */
  overtake(strange: Spore, mine: Spore | undefined): void {
    const { key, seq } = strange.record;
    const own = this.#own.get(key);
    if (own && seq <= own.seq) return;
    const { ctx } = this;
    ctx.log("warn", "spore-not-mine", `A record of this node that it did not write is about: "${key}"`, { key });
    ctx.audit("spore-not-mine", ctx.state.nodeId, `"${key}", number ${seq}`);
    // What it still says itself it says again, above that.
    if (own?.refresh && mine?.record.value) this.say(key, mine.record.value, { ttlMs: own.ttlMs, refresh: true });
  }

  #seal(key: string, value: Uint8Array | undefined, ttlMs = RECORD_LIFE_MS_MAX): Spore {
    const { state, nowMs } = this.ctx;
    if (!ownerOf(key)) {
      throw new Refusal(
        "bad-request",
        `Cannot write "${key}": it is no key`,
        'Wanted "app/…", "net/…", "node/<id>/…" or "service/<name>/<id>" of letters, digits, ".", "_" and "-"',
      );
    }
    if (ownerOf(key)!.kind === "agreed") {
      throw new Refusal(
        "not-allowed",
        `Cannot write "${key}": only what the voters decide stands there`,
        "Have it decided: mycelium agreement --help",
      );
    }
    if (!mayWrite(key, { nodeId: state.nodeId, issuer: state.isIssuer }, value === undefined)) {
      const whose = ownerOf(key)!.kind === "issuers" ? "the issuers" : "the node that it names";
      throw new Refusal("not-allowed", `Cannot write "${key}": only ${whose} may`, "Run it there, or write under app/");
    }
    const entry = this.host.table.get(key);
    const known = Math.max(
      this.#own.get(key)?.seq ?? 0,
      entry?.winner.spore.record.seq ?? 0,
      entry?.challenger?.spore.record.seq ?? 0,
    );
    const seq = Math.max(known + 1, nowMs);
    const lifeMs = value === undefined ? RECORD_LIFE_MS_MAX : Math.min(RECORD_LIFE_MS_MAX, ttlMs);
    return sealSpore({ key, seq, value, issuedMs: nowMs, expiresMs: nowMs + lifeMs }, state.networkId, state.keyPair);
  }

  /** Stores an own word, then tells it. */
  #publish(spore: Spore, options: SayOptions): void {
    const { ctx } = this;
    const { key } = spore.record;
    const version: Version = { spore, proof: undefined };
    const { changed, reason } = this.host.table.merge(version, ctx.nowMs);
    if (!changed) {
      throw new Refusal(
        reason === "full" ? "full" : "conflict",
        `Cannot write "${key}": ${
          reason === "full" ? "this node's table of spore records is full" : "a newer word is known"
        }`,
        reason === "full" ? "Delete what is not needed: mycelium spore list" : "Look at it: mycelium spore show " + key,
      );
    }
    this.#keep(spore, options, () => this.host.tell(version));
  }

  /** Stores an own word, and what it is followed by once it is durable. */
  #keep(spore: Spore, options: SayOptions, then?: () => void): void {
    const { ctx } = this;
    const { key, seq, value, issuedMs } = spore.record;
    const own: OwnWord = {
      key,
      seq,
      ttlMs: options.ttlMs ?? RECORD_LIFE_MS_MAX,
      refresh: value !== undefined && (options.refresh ?? options.ttlMs === undefined),
    };
    this.#own.set(key, own);
    this.#nextRefreshMs = Math.min(this.#nextRefreshMs, issuedMs + Math.floor(own.ttlMs / 2));
    ctx.persist([ownPut(own), sporePut(key, this.host.table.versions(key), ctx.nowMs)], then);
    this.host.changed(key);
  }

  /** The primaries agreed on an own word. Where it replaces one that has a proof, its own is waited for first. */
  #committed(spore: Spore, options: SayOptions): void {
    const { key } = spore.record;
    const tell = () => {
      // By then it may be known with its proof, or be overtaken.
      const { changed } = this.host.table.merge({ spore, proof: undefined }, this.ctx.nowMs);
      if (!changed && !this.host.table.versions(key).some((one) => equalBytes(one.spore.hash, spore.hash))) return;
      this.#keep(spore, options);
      if (changed) this.host.tell({ spore, proof: undefined });
    };
    if (this.host.table.get(key)?.tier !== "primary") return tell();
    this.#later.push({ atMs: this.ctx.nowMs + PROOF_WAIT_MS, run: tell });
    this.ctx.wakeAt(this.ctx.nowMs + PROOF_WAIT_MS);
  }

  /** Says again what would run out, and forgets what is over. */
  #refresh(): void {
    const { ctx } = this;
    this.#nextRefreshMs = Infinity;
    for (const own of [...this.#own.values()]) {
      const { key } = own;
      const entry = this.host.table.get(key);
      const word = this.host.table.versions(key).find((one) => one.spore.author === ctx.state.nodeId);
      if (!entry || !word || !own.refresh && !isAlive(word, ctx.nowMs)) {
        // Nothing of it is left that could come back, so that its number is of no use either.
        if (!word && own.seq + RECORD_LIFE_MS_MAX <= ctx.nowMs) {
          this.#own.delete(key);
          ctx.persist([[ownKey(key), null]]);
        }
        continue;
      }
      if (!own.refresh) continue;
      // What has a rank is renewed by who gave it, and somebody else's word is not ours to repeat.
      const { record } = word.spore;
      if (
        !equalBytes(entry.winner.spore.hash, word.spore.hash) || entry.tier !== "latent" || record.value === undefined
      ) {
        this.#nextRefreshMs = Math.min(this.#nextRefreshMs, ctx.nowMs + REFRESH_LOOK_MS);
        continue;
      }
      const dueMs = record.issuedMs + Math.floor(own.ttlMs / 2);
      if (ctx.nowMs < dueMs) this.#nextRefreshMs = Math.min(this.#nextRefreshMs, dueMs);
      else this.say(key, record.value, { ttlMs: own.ttlMs, refresh: true });
    }
  }

  #write(
    controlId: number,
    key: string,
    value: Uint8Array | undefined,
    options: { readonly ttlMs?: number; readonly expect?: number },
  ): unknown {
    const { ctx } = this;
    const spore = this.#seal(key, value, options.ttlMs);
    const owned = ownerOf(key)!.kind === "node";
    const result = (tier: "latent" | "primary", index?: number) => ({
      key,
      seq: spore.record.seq,
      hash: toHex(spore.hash),
      tier,
      ...(index === undefined ? {} : { index }),
      challenges: tier === "latent" && this.host.table.get(key)?.challenger !== undefined,
    });
    const primary = this.host.primary();
    if (!primary?.reachable()) {
      if (options.expect !== undefined) {
        throw new Refusal(
          "no-primary",
          `Cannot write "${key}" on a condition: no primary can be reached`,
          "Wait for one (mycelium status), or write without --expect",
        );
      }
      this.#publish(spore, options);
      this.#offer(key, spore);
      return result("latent");
    }
    // An owned word is told at once: the Primary Spore follows.
    if (owned && options.expect === undefined) {
      this.#publish(spore, options);
      this.#offer(key, spore);
      return result("latent");
    }
    primary.propose(spore, options.expect, (ended) => {
      let reply: ReturnType<typeof result> | undefined;
      let failure: { readonly code: string; readonly message: string; readonly cure: string } | undefined;
      if (ended.ok) {
        this.#committed(spore, options);
        reply = result("primary", ended.index);
      } else if (ended.known || options.expect !== undefined) {
        const conflict = ended.code === "conflict";
        failure = {
          code: ended.code,
          message: `Cannot write "${key}": ${
            conflict ? conflictText(ended.index) : `the Primary Spore says ${ended.code}`
          }`,
          cure: !conflict
            ? "Look: mycelium status"
            : ended.index > 0
            ? `Look at it: mycelium spore show ${key}`
            : "Where nothing is expected: --expect 0",
        };
      } else {
        // The same word, told without rank: where it was committed after all, its proof joins it.
        try {
          this.#publish(spore, options);
          this.#offerLater(key, 0);
          reply = result("latent");
        } catch (error) {
          if (!(error instanceof Refusal)) throw error;
          failure = { code: error.code, message: error.message, cure: error.cure };
        }
      }
      ctx.emit({
        type: "control-reply",
        controlId,
        result: reply ? { ok: true, value: reply } : { ok: false, error: failure! },
      });
    });
    return DEFERRED;
  }
}
