/**
 * Seed documents from files and from web servers.
 *
 * A web server's document is kept in the cache folder with its ETag: asked again, the server answers 304 with no
 * body, and when it does not answer at all the copy is used, stale or not. Only what verifies is ever kept.
 *
 * @module
 */

import { kindOf, mayReach } from "../../bootstrap/address_policy.ts";
import {
  decodeSeed,
  exportSeed,
  SEED_BYTES_MAX,
  type SeedDocument,
  type SeedResult,
} from "../../bootstrap/seed_document.ts";
import { toHex, utf8 } from "../../core/bytes.ts";
import { bytes, decodeAs, encodeCbor, optional, record, text } from "../../core/codec.ts";
import { hashParts, type KeyPair } from "../../core/crypto.ts";
import { Pacer } from "./pacer.ts";
import type { Resolver } from "./resolver.ts";
import type { Source, SourceContext } from "./source.ts";
import type { DiscoveryMode } from "./types.ts";

/** Options of {@linkcode SeedSources}. */
export interface SeedSourcesOptions {
  readonly files: readonly string[];
  readonly urls: readonly string[];
  readonly signers: () => readonly Uint8Array[];
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
  await writeWhole(path, utf8(exportSeed(document, signer)), 0o644);
}

/** The sources `seed-file` and `seed-http`. */
export class SeedSources implements Source {
  readonly #context: SourceContext;
  readonly #options: SeedSourcesOptions;
  readonly #files: Pacer | undefined;
  readonly #mirrors: Pacer | undefined;
  /** Highest sequence number seen, by signer: one mirror that was rolled back does not undo what another said. */
  readonly #seqSeen = new Map<string, number>();

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

  async #askFiles(signal: AbortSignal): Promise<void> {
    const outcomes = await Promise.all(
      this.#options.files.slice(0, FILES_MAX).map(async (path): Promise<Outcome> => {
        let content: Uint8Array;
        try {
          content = await readBounded(path);
        } catch (error) {
          if (error instanceof TooLargeError) this.#context.refused("oversize", `seed-file ${path}`);
          return { found: 0, failed: true, detail: `${path}: ${error instanceof Error ? error.message : error}` };
        }
        return await this.#take(content, "seed-file", path);
      }),
    );
    if (!signal.aborted) this.#report("seed-file", outcomes);
  }

  async #askMirrors(signal: AbortSignal): Promise<void> {
    this.#context.report("seed-http", "asking", this.#options.urls.join(", "));
    const urls = this.#options.urls.slice(0, MIRRORS_MAX);
    const outcomes = await Promise.all(urls.map((url) => this.#askMirror(url, signal)));
    if (!signal.aborted) this.#report("seed-http", outcomes);
  }

  #report(source: "seed-file" | "seed-http", outcomes: readonly Outcome[]): void {
    const found = outcomes.some((one) => one.found > 0);
    const state = found ? "found" : outcomes.every((one) => one.failed) ? "failed" : "silent";
    this.#context.report(source, state, outcomes.map((one) => one.detail).join("; "));
  }

  /** Verifies a document and tells its addresses. */
  async #take(content: Uint8Array, source: "seed-file" | "seed-http", from: string): Promise<Outcome> {
    const result = this.#verify(content);
    if (!result.ok) {
      this.#context.refused(result.reason, `${source} ${from}`);
      return { found: 0, failed: true, detail: `${from}: ${result.detail}` };
    }
    return await this.#tell(result, source, from);
  }

  #verify(content: Uint8Array): SeedResult {
    const { networkId } = this.#context;
    const result = decodeSeed(content, {
      networkId,
      signers: this.#options.signers(),
      nowMs: this.#context.now(),
      seqSeen: (signer) => this.#seqSeen.get(toHex(signer)),
    });
    if (result.ok) this.#seqSeen.set(toHex(result.signer), result.document.seq);
    return result;
  }

  async #tell(result: SeedResult & { ok: true }, source: "seed-file" | "seed-http", from: string): Promise<Outcome> {
    const stale = result.stale ? ", stale" : "";
    const told = await Promise.all(result.document.addresses.map((address) =>
      this.#context.sighted({
        address,
        source,
        verification: "signed",
        // A stale document names addresses as good as any other while nothing newer is to be had.
        forMs: SEED_LIFE_MS,
        detail: `${from} (seq ${result.document.seq}${stale})`,
        preference: result.stale ? 0 : 4,
      })
    ));
    const found = told.filter(Boolean).length;
    return { found, failed: false, detail: `${from}: ${found} addresses, seq ${result.document.seq}${stale}` };
  }

  async #askMirror(url: string, signal: AbortSignal): Promise<Outcome> {
    const copy = await this.#readCopy(url);
    // Counts before the answer does: a server may not take us back behind what it once said.
    const kept = copy && this.#verify(copy.body);
    let problem: string;
    try {
      const deadline = AbortSignal.timeout(this.#context.timing.httpTimeoutMs);
      const etag = kept?.ok ? copy?.etag : undefined;
      const answer = await this.#fetch(url, etag, AbortSignal.any([signal, deadline]));
      if (answer === "unchanged") {
        if (kept?.ok) return await this.#tell(kept, "seed-http", url);
        problem = "it says that our copy is current, but we have none";
      } else {
        const result = this.#verify(answer.body);
        if (result.ok) {
          await this.#keepCopy(url, answer);
          return await this.#tell(result, "seed-http", url);
        }
        this.#context.refused(result.reason, `seed-http ${url}`);
        problem = result.detail;
      }
    } catch (error) {
      if (error instanceof FetchRefusal) this.#context.refused(error.code, `seed-http ${url}`);
      problem = error instanceof Error ? error.message : String(error);
    }
    if (kept?.ok && !signal.aborted) {
      const outcome = await this.#tell(kept, "seed-http", url);
      return { ...outcome, detail: `${outcome.detail} from our copy: ${problem}` };
    }
    return { found: 0, failed: true, detail: `${url}: ${problem}` };
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
      const headers: Record<string, string> = { accept: "application/octet-stream, text/plain;q=0.9, */*;q=0.1" };
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
      const copy = decodeAs(await readBounded(path), readStoredCopy);
      return copy.u === url ? { body: copy.b, etag: copy.e } : undefined;
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) this.#context.refused("bad-copy", `seed-http ${url}`);
      return undefined;
    }
  }

  async #keepCopy(url: string, copy: { body: Uint8Array; etag: string | undefined }): Promise<void> {
    const path = this.#copyPath(url);
    if (path === undefined) return;
    try {
      await Deno.mkdir(this.#options.cacheDir!, { recursive: true, mode: 0o700 });
      await writeWhole(path, encodeCbor({ b: copy.body, e: copy.etag, u: url }), 0o600);
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
}

/** The server or what it sent is not acceptable; `code` becomes a metric label. */
class FetchRefusal extends Error {
  override readonly name = "FetchRefusal";
  constructor(readonly code: string, message: string) {
    super(message);
  }
}

class TooLargeError extends Error {
  override readonly name = "TooLargeError";
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

/** The body, as long as it is within the limit; the announced length is not trusted. */
async function bodyOf(response: Response): Promise<Uint8Array> {
  const tooLarge = () => new FetchRefusal("oversize", `the document has more than ${SEED_BYTES_MAX} bytes`);
  if (Number(response.headers.get("content-length") ?? 0) > SEED_BYTES_MAX) throw tooLarge();
  const out = new Uint8Array(SEED_BYTES_MAX);
  let length = 0;
  // Leaving the loop cancels the body.
  for await (const chunk of response.body ?? []) {
    if (length + chunk.length > SEED_BYTES_MAX) throw tooLarge();
    out.set(chunk, length);
    length += chunk.length;
  }
  return out.slice(0, length);
}

async function readBounded(path: string): Promise<Uint8Array> {
  const file = await Deno.open(path);
  try {
    const out = new Uint8Array(FILE_BYTES_MAX + 1);
    let length = 0;
    for (;;) {
      const read = await file.read(out.subarray(length));
      if (read === null) return out.slice(0, length);
      length += read;
      if (length > FILE_BYTES_MAX) throw new TooLargeError(`more than ${FILE_BYTES_MAX} bytes`);
    }
  } finally {
    file.close();
  }
}

/** A stored copy has its URL and ETag around the document. */
const FILE_BYTES_MAX = SEED_BYTES_MAX + 4_096;

/** Writes beside and renames, so that a power cut leaves the old file or the new one. */
async function writeWhole(path: string, content: Uint8Array, mode: number): Promise<void> {
  const beside = `${path}.new`;
  const file = await Deno.open(beside, { write: true, create: true, truncate: true, mode });
  try {
    let written = 0;
    while (written < content.length) written += await file.write(content.subarray(written));
    await file.sync();
  } finally {
    file.close();
  }
  await Deno.rename(beside, path);
}
