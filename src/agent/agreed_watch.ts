/**
 * Compares, all the time, what was decided with what stands: in this node's replica, and in the Latent Spore.
 *
 * Every record under `agreed/` has to be shown by a certificate, and the Latent Spore must not show another one than the replica
 * at the same place of the log. A difference that only takes time is waited for and counted as late.
 *
 * @module
 */

import { equalBytes, toHex } from "../core/bytes.ts";
import { LIMITS } from "../core/limits.ts";

/** A record under an agreed key, where it stands. */
export interface AgreedVersion {
  readonly key: string;
  /** 32 bytes. */
  readonly hash: Uint8Array;
  /** Number of the word. */
  readonly seq: number;
  /** Place in the log. */
  readonly index: number;
  /** Nodes whose signatures lift it; empty in the replica. */
  readonly by: readonly string[];
}

/** What must not be. */
export interface AgreedMismatch {
  readonly kind:
    /** The Latent Spore shows another record than the replica, for one place of the log. */
    | "latent-differs"
    /** No certificate shows it. */
    | "unshown";
  readonly key: string;
  /** What stands, hexadecimal. */
  readonly found: string;
  /** What should, where that is known: what the replica holds, or was decided here last. */
  readonly expected?: string;
  readonly index: number;
  readonly atMs: number;
  /** Who has signed that it stands. */
  readonly by: readonly string[];
}

/** For status and metrics. */
export interface AgreedCounts {
  /** Agreed keys that this node knows of. */
  readonly keys: number;
  /** Of them, shown by a certificate that this node has verified. */
  readonly shown: number;
  /** Decisions of records that were seen here. */
  readonly decided: number;
  /** Of them, not yet where this node looks. */
  readonly waiting: number;
  /** Of them, not there after {@linkcode LATE_MS}: overtaken, refused, or held up. */
  readonly late: number;
  readonly mismatches: number;
}

/** What is looked at. */
export interface AgreedView {
  readonly nowMs: number;
  /** The replica, where this node runs one: its agreed records, and how far it has come. */
  readonly replica: { readonly appliedIndex: number; readonly versions: readonly AgreedVersion[] } | undefined;
  readonly latent: readonly AgreedVersion[];
}

/** A decision that is nowhere to be seen after so long is late: a minute. */
export const LATE_MS = 60_000;
/** A record that nobody can show is wrong after so long, and so many tries. */
export const UNSHOWN_MS = 30_000;
const UNSHOWN_TRIES = 5;
const RETRY_MS = 2_000;
const DECIDED_MAX = 1_024;
const REPORTED_MAX = 256;

/** The comparison. */
export class AgreedWatch {
  /** By key, the hash that was shown. */
  readonly #shown = new Map<string, string>();
  /** By hash, what was decided here and does not stand yet. */
  readonly #decided = new Map<string, { readonly key: string; readonly seq: number; readonly atMs: number }>();
  readonly #doubted = new Map<
    string,
    { readonly version: AgreedVersion; readonly sinceMs: number; tries: number; nextMs: number }
  >();
  /** Each mismatch is said once. */
  readonly #reported = new Set<string>();
  #keys = 0;
  #counts = { decided: 0, late: 0, mismatches: 0 };

  /** Figures. */
  get counts(): AgreedCounts {
    return { keys: this.#keys, shown: this.#shown.size, waiting: this.#decided.size, ...this.#counts };
  }

  /** Whether a record was found to stand without having been decided. */
  isWrong(key: string, hash: Uint8Array): boolean {
    const name = `${key} ${toHex(hash)}`;
    return this.#reported.has(`unshown ${name}`) || this.#reported.has(`latent-differs ${name}`);
  }

  /** A record was decided, as this node has seen and verified. */
  decided(version: Pick<AgreedVersion, "key" | "hash" | "seq">, nowMs: number): void {
    const name = toHex(version.hash);
    if (this.#decided.has(name) || this.#shown.get(version.key) === name) return;
    this.#counts.decided += 1;
    this.#decided.set(name, { key: version.key, seq: version.seq, atMs: nowMs });
    if (this.#decided.size > DECIDED_MAX) this.#decided.delete(this.#decided.keys().next().value!);
  }

  /** Looks at all of it; returns what is wrong, each once. */
  look(view: AgreedView): AgreedMismatch[] {
    const { nowMs, replica, latent } = view;
    const found: AgreedMismatch[] = [];
    const held = new Map(replica?.versions.map((one) => [one.key, one]));
    const standing = new Map([...latent, ...held.values()].map((one) => [one.key, one]));
    this.#keys = standing.size;
    for (const key of this.#shown.keys()) if (!standing.has(key)) this.#shown.delete(key);
    for (const key of this.#doubted.keys()) if (!standing.has(key)) this.#doubted.delete(key);
    for (const one of latent) {
      const own = held.get(one.key);
      // Ahead of a replica that has not come so far is no contradiction, behind it neither.
      const same = own !== undefined && own.index === one.index && equalBytes(own.hash, one.hash);
      const known = replica !== undefined && one.index <= replica.appliedIndex && one.index >= (own?.index ?? 0);
      if (known && !same) this.#wrong(found, "latent-differs", one, nowMs, own?.hash);
    }
    for (const one of standing.values()) {
      const name = toHex(one.hash);
      if (this.#shown.get(one.key) === name) continue;
      if (this.#decided.delete(name)) this.#show(one.key, name);
      else if (toHex(this.#doubted.get(one.key)?.version.hash ?? new Uint8Array(0)) !== name) {
        this.#shown.delete(one.key);
        this.#doubted.set(one.key, { version: one, sinceMs: nowMs, tries: 0, nextMs: nowMs });
      }
    }
    for (const [name, { key, seq, atMs }] of this.#decided) {
      // Two may be decided at once about one version: the log takes one of them.
      const one = standing.get(key);
      const overtaken = one !== undefined && one.seq >= seq && this.#shown.has(key);
      if (!overtaken && nowMs < atMs + LATE_MS) continue;
      this.#decided.delete(name);
      if (!overtaken) this.#counts.late += 1;
    }
    return found;
  }

  /** The record that is to be verified next, and when; `undefined`: none is doubted. */
  next(): { readonly version: AgreedVersion; readonly atMs: number } | undefined {
    let best: { readonly version: AgreedVersion; readonly nextMs: number } | undefined;
    for (const one of this.#doubted.values()) if (!best || one.nextMs < best.nextMs) best = one;
    return best && { version: best.version, atMs: best.nextMs };
  }

  /**
   * What came of verifying a record.
   *
   * @param outcome `newer`: a later one is shown, this one is being replaced.
   */
  verified(version: AgreedVersion, outcome: "shown" | "newer" | "unknown" | "not", nowMs: number): AgreedMismatch[] {
    const one = this.#doubted.get(version.key);
    if (!one || !equalBytes(one.version.hash, version.hash)) return [];
    if (outcome === "shown") {
      this.#doubted.delete(version.key);
      this.#show(version.key, toHex(version.hash));
      return [];
    }
    one.nextMs = nowMs + RETRY_MS * Math.min(16, 1 + one.tries);
    // Nobody to ask, or a newer one on its way: that says nothing against it.
    if (outcome !== "not") return [];
    one.tries += 1;
    const found: AgreedMismatch[] = [];
    if (one.tries >= UNSHOWN_TRIES && nowMs >= one.sinceMs + UNSHOWN_MS) {
      const decided = [...this.#decided].findLast(([, { key }]) => key === version.key)?.[0];
      this.#wrong(found, "unshown", version, nowMs, decided);
    }
    return found;
  }

  #show(key: string, name: string): void {
    this.#doubted.delete(key);
    if (this.#shown.size > LIMITS.agreedKeysMax) this.#shown.delete(this.#shown.keys().next().value!);
    this.#shown.set(key, name);
  }

  #wrong(
    found: AgreedMismatch[],
    kind: AgreedMismatch["kind"],
    one: AgreedVersion,
    atMs: number,
    expected: Uint8Array | string | undefined,
  ): void {
    const hash = toHex(one.hash);
    const name = `${kind} ${one.key} ${hash}`;
    if (this.#reported.has(name)) return;
    if (this.#reported.size >= REPORTED_MAX) this.#reported.delete(this.#reported.values().next().value!);
    this.#reported.add(name);
    this.#counts.mismatches += 1;
    found.push({
      kind,
      key: one.key,
      found: hash,
      ...(expected === undefined ? {} : { expected: typeof expected === "string" ? expected : toHex(expected) }),
      index: one.index,
      atMs,
      by: one.by,
    });
  }
}
