/**
 * Seeds from files and from web servers: bundles, and the lists of addresses before them.
 *
 * Of several mirrors each is asked; what the best of them says is handed on, and one that lags behind or was tampered
 * with is named. A web server's seed is kept in the cache folder with its ETag: asked again, the server answers 304 with no
 * body, and when it does not answer at all the copy is used, stale or not. Only what verifies is ever kept.
 *
 * @module
 */

import { kindOf, mayReach } from "../../bootstrap/address_policy.ts";
import { exportSeed, SEED_BYTES_MAX, type SeedDocument } from "../../bootstrap/seed_document.ts";
import type { SeedReading } from "../../agent/seeds.ts";
import type { SeedSourceStatus } from "../../agent/status.ts";
import { toHex, utf8 } from "../../core/bytes.ts";
import { bytes, decodeAs, encodeCbor, optional, record, text } from "../../core/codec.ts";
import { hashParts, type KeyPair } from "../../core/crypto.ts";
import { readBounded, TooLargeError, writeWhole } from "../disk/whole_file.ts";
import { ACCEPT, bodyOf, FetchRefusal } from "./seed_fetch.ts";
import { Pacer } from "./pacer.ts";
import type { Resolver } from "./resolver.ts";
import type { Source, SourceContext } from "./source.ts";
import type { DiscoveryMode } from "./types.ts";

/** Options of {@linkcode SeedSources}. */
export interface SeedSourcesOptions {
  readonly files: readonly string[];
  readonly urls: readonly string[];
  /** Reads a seed and says whether it counts; changes nothing. */
  readonly open: (content: Uint8Array) => SeedReading;
  /** Takes in a seed that counts. */
  readonly found: (content: Uint8Array, from: string) => void;
  readonly cacheDir: string | undefined;
  readonly resolver: Resolver;
}

/**
 * Writes a seed document to a file, whole or not at all.
 *
 * @throws {WireError} When the document holds what does not belong there.
 * @throws {Error} When the file cannot be written.
 */
export async function writeSeedFile(path: string, document: SeedDocument, signer: KeyPair): Promise<void> {
  await writeWhole(path, utf8(exportSeed(document, signer)), { mode: 0o644 });
}

/** The sources `seed-file` and `seed-http`. */
export class SeedSources implements Source {
  readonly #context: SourceContext;
  readonly #options: SeedSourcesOptions;
  readonly #files: Pacer | undefined;
  readonly #mirrors: Pacer | undefined;
  /** How each file and server stands. */
  readonly #views = new Map<string, SeedSourceStatus>();

  constructor(context: SourceContext, options: SeedSourcesOptions) {
    this.#context = context;
    this.#options = options;
    const { timing, rng } = context;
    if (options.files.length > 0) {
      this.#files = new Pacer({
        ask: (signal) => this.#askFiles(signal),
        baseMs: timing.fileBaseMs,
        maxMs: timing.fileMaxMs,
        isolatedMs: timing.fileMaxMs,
        memberMs: timing.fileMemberMs,
        rng,
        onPlan: (waitMs) => context.planned(["seed-file"], waitMs),
      });
    }
    if (options.urls.length > 0) {
      this.#mirrors = new Pacer({
        ask: (signal) => this.#askMirrors(signal),
        baseMs: timing.httpBaseMs,
        maxMs: timing.httpMaxMs,
        isolatedMs: timing.httpIsolatedMs,
        memberMs: timing.httpMemberMs,
        rng,
        onPlan: (waitMs) => context.planned(["seed-http"], waitMs),
      });
    }
  }

  start(): void {
    this.refresh();
  }

  async stop(): Promise<void> {
    await Promise.all([this.#files?.stop(), this.#mirrors?.stop()]);
  }

  refresh(): void {
    this.#files?.askNow();
    this.#mirrors?.askNow();
  }

  setMode(mode: DiscoveryMode): void {
    this.#files?.setMode(mode);
    this.#mirrors?.setMode(mode);
  }

  /** How each file and server stands, in the order of the configuration. */
  view(): readonly SeedSourceStatus[] {
    return [...this.#options.files, ...this.#options.urls].flatMap((from) => this.#views.get(from) ?? []);
  }

  async #askFiles(signal: AbortSignal): Promise<void> {
    const outcomes = await Promise.all(
      this.#options.files.slice(0, FILES_MAX).map(async (path): Promise<Outcome> => {
        let content: Uint8Array;
        try {
          content = await readBounded(path, FILE_BYTES_MAX);
        } catch (error) {
          if (error instanceof TooLargeError) this.#context.refused("oversize", `seed-file ${path}`);
          return this.#failed(path, error instanceof Error ? error.message : String(error));
        }
        const reading = this.#options.open(content);
        if (reading.ok) return await this.#tell(reading, content, "seed-file", path);
        this.#context.refused(reading.reason, `seed-file ${path}`);
        return this.#failed(path, reading.detail, reading.reason);
      }),
    );
    if (!signal.aborted) this.#report("seed-file", outcomes);
  }

  async #askMirrors(signal: AbortSignal): Promise<void> {
    const urls = this.#options.urls.slice(0, MIRRORS_MAX);
    this.#context.report("seed-http", "asking", urls.map(shownUrl).join(", "));
    const outcomes = await Promise.all(urls.map((url) => this.#askMirror(url, signal)));
    if (!signal.aborted) this.#report("seed-http", outcomes);
  }

  #report(source: "seed-file" | "seed-http", outcomes: readonly Outcome[]): void {
    const nowMs = this.#context.now();
    for (const { view } of outcomes) this.#views.set(view.from, { ...view, atMs: nowMs });
    this.#compare();
    const found = outcomes.some((one) => one.found > 0);
    const state = found ? "found" : outcomes.every((one) => one.failed) ? "failed" : "silent";
    this.#context.report(
      source,
      state,
      outcomes.map(({ view, detail }) => {
        const now = this.#views.get(view.from)!;
        return now.state === "behind" ? `${detail}, ${now.reason}` : detail;
      }).join("; "),
    );
  }

  /** Names those that lag behind another one of the same kind. */
  #compare(): void {
    const best = new Map<string, SeedSourceStatus>();
    for (const one of this.#views.values()) {
      if (one.seq === undefined || one.kind === undefined) continue;
      const other = best.get(one.kind);
      if (!other || one.seq > other.seq!) best.set(one.kind, one);
    }
    for (const [name, one] of this.#views) {
      const ahead = one.kind === undefined ? undefined : best.get(one.kind);
      if (one.state !== "ok" || !ahead || ahead.seq === one.seq) continue;
      const reason = `behind: ${shownUrl(ahead.from)} has ${ahead.seq}`;
      this.#views.set(name, { ...one, state: "behind", reason });
    }
  }

  #failed(from: string, why: string, code = ""): Outcome {
    // What was once newer and is older now lags behind as well.
    const state = code === "rollback" ? "behind" : "failed";
    const view = { from, state, reason: code === "" ? why : `${code}: ${why}`, atMs: 0 } as const;
    return { found: 0, failed: true, detail: `${shownUrl(from)}: ${why}`, view };
  }

  /** Tells the addresses of a seed that counts, and hands it on. */
  async #tell(
    reading: SeedReading & { readonly ok: true },
    content: Uint8Array,
    source: "seed-file" | "seed-http",
    from: string,
  ): Promise<Outcome> {
    const { seq, kind, signer } = reading;
    const stale = reading.stale ? ", stale" : "";
    const shown = shownUrl(from);
    this.#options.found(content, shown);
    const told = await Promise.all(reading.addresses.map((address) =>
      this.#context.sighted({
        address,
        source,
        verification: "signed",
        // A stale document names addresses as good as any other while nothing newer is to be had.
        forMs: SEED_LIFE_MS,
        detail: `${shown} (seq ${seq}${stale})`,
        preference: reading.stale ? 0 : 4,
      })
    ));
    const found = told.filter(Boolean).length;
    const view = { from, state: "ok", seq, kind, signer, stale: reading.stale, reason: "", atMs: 0 } as const;
    const records = reading.records > 0 ? `, ${reading.records} records` : "";
    return { found, failed: false, detail: `${shown}: ${found} addresses${records}, seq ${seq}${stale}`, view };
  }

  async #askMirror(url: string, signal: AbortSignal): Promise<Outcome> {
    const from = `seed-http ${shownUrl(url)}`;
    const copy = await this.#readCopy(url);
    // Counts before the answer does: a server may not take us back behind what it once said.
    const kept = copy && this.#options.open(copy.body);
    let problem: string;
    let code = "";
    try {
      const deadline = AbortSignal.timeout(this.#context.timing.httpTimeoutMs);
      const etag = kept?.ok ? copy?.etag : undefined;
      const answer = await this.#fetch(url, etag, AbortSignal.any([signal, deadline]));
      if (answer === "unchanged") {
        if (kept?.ok) return await this.#tell(kept, copy!.body, "seed-http", url);
        problem = "it says that our copy is current, but we have none";
      } else {
        const result = this.#options.open(answer.body);
        const back = result.ok && kept?.ok && sameAuthor(kept, result) && result.seq < kept.seq;
        if (result.ok && !back) {
          await this.#keepCopy(url, answer);
          return await this.#tell(result, answer.body, "seed-http", url);
        }
        [code, problem] = result.ok
          ? ["rollback", `its seq is ${result.seq}, our copy of it has ${kept!.ok ? kept!.seq : 0}`]
          : [result.reason, result.detail];
        this.#context.refused(code, from);
      }
    } catch (error) {
      if (error instanceof FetchRefusal) this.#context.refused(code = error.code, from);
      problem = error instanceof Error ? error.message : String(error);
    }
    const failed = this.#failed(url, problem, code);
    if (kept?.ok && !signal.aborted) {
      const outcome = await this.#tell(kept, copy!.body, "seed-http", url);
      const state = failed.view.state === "behind" ? "behind" : "copy";
      const view = { ...outcome.view, state, reason: failed.view.reason } as const;
      return { ...outcome, detail: `${outcome.detail} from our copy: ${problem}`, view };
    }
    return failed;
  }

  async #fetch(
    start: string,
    etag: string | undefined,
    signal: AbortSignal,
  ): Promise<{ body: Uint8Array; etag: string | undefined } | "unchanged"> {
    let url = new URL(start);
    if (url.protocol !== "http:" && url.protocol !== "https:") {
      throw new FetchRefusal("bad-url", `Cannot fetch seed: "${url.protocol}" is not http or https`);
    }
    for (let hop = 0; hop <= REDIRECTS_MAX; hop++) {
      const headers: Record<string, string> = { accept: ACCEPT };
      if (etag !== undefined) headers["if-none-match"] = etag;
      const response = await fetch(url, { headers, redirect: "manual", signal });
      try {
        if (response.status === 304) return "unchanged";
        const location = response.headers.get("location");
        if ([301, 302, 303, 307, 308].includes(response.status) && location !== null) {
          const next = new URL(location, url);
          await this.#checkRedirect(url, next, signal);
          url = next;
          continue;
        }
        if (response.status !== 200) throw new Error(`the server answered ${response.status}`);
        return { body: await bodyOf(response), etag: shortHeader(response.headers.get("etag")) };
      } finally {
        // What was not read must be let go, or the connection stays open.
        if (!response.bodyUsed) await response.body?.cancel().catch(() => {});
      }
    }
    throw new FetchRefusal("redirect-loop", `more than ${REDIRECTS_MAX} redirects`);
  }

  /** A mirror must not send us to somebody's private web server; the user's own URL may be one. */
  async #checkRedirect(from: URL, to: URL, signal: AbortSignal): Promise<void> {
    if (to.protocol !== "http:" && to.protocol !== "https:" || to.protocol === "http:" && from.protocol === "https:") {
      throw new FetchRefusal("redirect-refused", `redirect to "${to.protocol}" refused`);
    }
    if (to.hostname === from.hostname) return;
    const host = to.hostname.replace(/^\[|\]$/g, "");
    const literal = kindOf(host) !== undefined;
    const targets = literal
      ? [{ family: host.includes(":") ? "ip6" as const : "ip4" as const, host }]
      : await this.#options.resolver.addresses(host, signal);
    if (targets.length === 0) throw new FetchRefusal("redirect-refused", `redirect to ${host} refused: unknown name`);
    const { routes, interfaces } = this.#context.hostNetwork();
    for (const target of targets) {
      const verdict = mayReach(target, routes, interfaces);
      if (!verdict.ok) {
        throw new FetchRefusal("redirect-refused", `redirect to ${host} refused: ${target.host} is ${verdict.reason}`);
      }
    }
  }

  #copyPath(url: string): string | undefined {
    if (this.#options.cacheDir === undefined) return undefined;
    const name = toHex(hashParts("mycelium/seed-copy/v1", this.#context.networkId, utf8(url))).slice(0, 32);
    return `${this.#options.cacheDir}/seed-${name}.cbor`;
  }

  async #readCopy(url: string): Promise<{ body: Uint8Array; etag: string | undefined } | undefined> {
    const path = this.#copyPath(url);
    if (path === undefined) return undefined;
    try {
      const copy = decodeAs(await readBounded(path, FILE_BYTES_MAX), readStoredCopy);
      return copy.u === url ? { body: copy.b, etag: copy.e } : undefined;
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) this.#context.refused("bad-copy", `seed-http ${shownUrl(url)}`);
      return undefined;
    }
  }

  async #keepCopy(url: string, copy: { body: Uint8Array; etag: string | undefined }): Promise<void> {
    const path = this.#copyPath(url);
    if (path === undefined) return;
    try {
      await Deno.mkdir(this.#options.cacheDir!, { recursive: true, mode: 0o700 });
      await writeWhole(path, encodeCbor({ b: copy.body, e: copy.etag, u: url }), { mode: 0o600 });
    } catch (error) {
      // A full or read-only disk must not keep us from using what we just got.
      this.#context.report(
        "seed-http",
        "found",
        `cannot keep a copy: ${error instanceof Error ? error.message : error}`,
      );
    }
  }
}

interface Outcome {
  readonly found: number;
  readonly failed: boolean;
  readonly detail: string;
  readonly view: SeedSourceStatus;
}

const ETAG_CHARS_MAX = 256;

const readStoredCopy = record({ b: bytes({ max: SEED_BYTES_MAX }), e: optional(text(ETAG_CHARS_MAX)), u: text(2_048) });

const FILES_MAX = 16;
const MIRRORS_MAX = 8;
const REDIRECTS_MAX = 3;
const SEED_LIFE_MS = 24 * 3_600_000;

function shortHeader(value: string | null): string | undefined {
  return value !== null && value.length <= ETAG_CHARS_MAX ? value : undefined;
}

/** A stored copy has its URL and ETag around the document. */
const FILE_BYTES_MAX = SEED_BYTES_MAX + 4_096;

/** Two readings of one signer's seeds of one kind: their numbers may be compared as versions of one document. */
function sameAuthor(a: SeedReading & { readonly ok: true }, b: SeedReading & { readonly ok: true }): boolean {
  return a.signer === b.signer && a.kind === b.kind;
}

/** An address without what may be secret in it: user, password, query. */
export function shownUrl(url: string): string {
  if (!URL.canParse(url)) return url;
  const parsed = new URL(url);
  if (parsed.protocol !== "http:" && parsed.protocol !== "https:") return url;
  return `${parsed.origin}${parsed.pathname}${parsed.search === "" ? "" : "?…"}`;
}
