/**
 * Puts Seed Spores where they outlive the network: files with kept older versions, web servers, any command.
 *
 * Only issuers publish, when what is there says something else than they would, or at half of its life. Where several
 * issuers have the same place, the first in order that is within reach does it; the others look, and take over when
 * it does not. Each place stands for itself: one that fails is tried again ever more slowly and holds up none.
 *
 * @module
 */

import type { SeedReading } from "../../agent/seeds.ts";
import type { SeedTargetStatus } from "../../agent/status.ts";
import { utf8 } from "../../core/bytes.ts";
import { backoffMs, type Rng } from "../../core/rng.ts";
import { BUNDLE_TEXT_BYTES_MAX, type BundleKind } from "../../spore/seed_bundle.ts";
import { deadlineOf } from "../deadline.ts";
import { ACCEPT, bodyOf } from "../discovery/seed_fetch.ts";
import { readBounded, TooLargeError, writeWhole } from "./whole_file.ts";

/** A place to publish to. */
export interface SeedTarget {
  /** A path, an http or https address, or a program with its arguments, which gets the bundle on stdin. */
  readonly to: string | { readonly command: readonly string[] };
  readonly kind: BundleKind;
  /** Time between two looks, milliseconds. */
  readonly everyMs: number;
  /** File of mode 0600 with a bearer token, or with a whole `Basic …` value. */
  readonly tokenFile?: string | undefined;
  /** Older versions kept beside a file. */
  readonly keep: number;
  /** Publish whatever other issuers do. Missing: for files and commands, not for servers. */
  readonly redundant?: boolean | undefined;
}

/** A bundle as the agent makes it. */
export interface MadeBundle {
  readonly text: string;
  readonly seq: number;
  /** What it says, in hexadecimal. */
  readonly content: string;
  /** Half of its life, milliseconds since the epoch. */
  readonly renewAtMs: number;
}

/** Whose turn it is, as the agent sees it. */
export interface PublishTurn {
  /** Issuers within reach that come before this node. */
  readonly ahead: readonly string[];
}

/** Options of a {@linkcode SeedPublisher}. */
export interface SeedPublisherOptions {
  readonly targets: readonly SeedTarget[];
  /** Makes a bundle, or says that it would say the same as `unless`. */
  make(request: { readonly kind: BundleKind; readonly unless?: string; readonly above?: number }): Promise<
    MadeBundle | "unchanged"
  >;
  /** Reads what is at a place, without taking it in. */
  read(content: Uint8Array): SeedReading;
  /** Missing: this node is no issuer. */
  turn(): PublishTurn | undefined;
  /** Name of a node, for people. */
  nameOf(nodeId: string): string;
  log(level: "info" | "warn", event: string, message: string): void;
  /** The state of a place changed. */
  changed(): void;
  now(): number;
  readonly rng: Rng;
  /** Times that differ from {@linkcode PUBLISH_TIMING}. */
  readonly timing?: Partial<PublishTiming>;
}

/** Times of publishing. Milliseconds. */
export interface PublishTiming {
  /** Until the first look, half of it up to one and a half: a node that has just started knows little. */
  readonly firstMs: number;
  /** Wait after the first failure, doubling, at most the time between two looks. */
  readonly retryMs: number;
  /** One request, one command. */
  readonly requestMs: number;
}

/** The times in production. */
export const PUBLISH_TIMING: PublishTiming = { firstMs: 4_000, retryMs: 5_000, requestMs: 30_000 };

/** How one target stands after a look. */
export interface PublishOutcome {
  readonly to: string;
  readonly kind: BundleKind;
  readonly published: boolean;
  readonly state: SeedTargetStatus["state"];
  readonly seq?: number;
  readonly reason: string;
}

/** Publishes to all targets, each at its own pace. */
export class SeedPublisher {
  readonly #targets: readonly Target[];

  constructor(options: SeedPublisherOptions) {
    this.#targets = options.targets.map((one) => new Target(one, options));
  }

  /** Begins to look. */
  start(): void {
    for (const one of this.#targets) one.start();
  }

  /** Ends; waits for what is under way. */
  async stop(): Promise<void> {
    await Promise.all(this.#targets.map((one) => one.stop()));
  }

  /**
   * Looks at all targets now.
   *
   * @param force Publish although the same is there, or another issuer comes first.
   */
  publish(force: boolean): Promise<readonly PublishOutcome[]> {
    return Promise.all(this.#targets.map((one) => one.lookNow(force)));
  }

  /** How each target stands. */
  view(): readonly SeedTargetStatus[] {
    return this.#targets.map((one) => one.view());
  }
}

/** What is at a place. */
type Present =
  | { readonly state: "none"; readonly tag?: string }
  /** It may not be looked at: what was put there last has to do. */
  | { readonly state: "unreadable" }
  | { readonly state: "bad"; readonly why: string; readonly tag?: string }
  | {
    readonly state: "good";
    readonly reading: SeedReading & { readonly ok: true };
    readonly tag?: string;
  };

/** A way to a place. */
interface Place {
  /** For people: nothing secret in it. */
  readonly shown: string;
  readonly alone: boolean;
  look(signal: AbortSignal): Promise<Present>;
  /** @returns `conflict` where another one has changed it meanwhile. */
  put(bundle: MadeBundle, present: Present, signal: AbortSignal): Promise<"done" | "conflict">;
}

class Target {
  readonly #target: SeedTarget;
  readonly #options: SeedPublisherOptions;
  readonly #place: Place;
  readonly #timing: PublishTiming;
  readonly #abort = new AbortController();
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** The look under way, or the last one: they follow each other. */
  #looking: Promise<unknown> = Promise.resolve();
  #failures = 0;
  #state: SeedTargetStatus["state"] = "idle";
  #reason = "";
  #seq: number | undefined;
  #publishedMs: number | undefined;
  #nextMs: number | undefined;
  /** Since when it says something else than this node would, while others come first. */
  #differsSinceMs: number | undefined;
  /** What was put there last by this node, where it cannot be read back. */
  #last: MadeBundle | undefined;

  constructor(target: SeedTarget, options: SeedPublisherOptions) {
    this.#target = target;
    this.#options = options;
    this.#place = placeOf(target, options.read);
    this.#timing = { ...PUBLISH_TIMING, ...options.timing };
  }

  start(): void {
    const { firstMs } = this.#timing;
    this.#plan(firstMs / 2 + this.#options.rng.below(firstMs));
  }

  async stop(): Promise<void> {
    this.#abort.abort();
    clearTimeout(this.#timer);
    await this.#looking;
  }

  view(): SeedTargetStatus {
    return {
      to: this.#place.shown,
      kind: this.#target.kind,
      state: this.#state,
      ...(this.#seq === undefined ? {} : { seq: this.#seq }),
      ...(this.#publishedMs === undefined ? {} : { publishedMs: this.#publishedMs }),
      ...(this.#nextMs === undefined ? {} : { nextMs: this.#nextMs }),
      failures: this.#failures,
      reason: this.#reason,
    };
  }

  lookNow(force: boolean): Promise<PublishOutcome> {
    const done = this.#looking.then(() => this.#look(force));
    this.#looking = done;
    return done;
  }

  #plan(waitMs: number): void {
    clearTimeout(this.#timer);
    if (this.#abort.signal.aborted) return;
    this.#nextMs = this.#options.now() + waitMs;
    this.#timer = setTimeout(() => void this.lookNow(false), waitMs);
  }

  async #look(force: boolean): Promise<PublishOutcome> {
    const { everyMs } = this.#target;
    const { rng, log } = this.#options;
    const before = this.#state;
    let published = false;
    if (this.#abort.signal.aborted) return this.#outcome(false);
    try {
      published = await this.#work(force);
      this.#failures = 0;
    } catch (error) {
      if (this.#abort.signal.aborted) return this.#outcome(false);
      this.#failures += 1;
      this.#say("failed", messageOf(error));
      if (before !== "failed") {
        log("warn", "seed-publish-failed", `Cannot publish to ${this.#place.shown}: ${this.#reason}`);
      }
    }
    const { retryMs } = this.#timing;
    const soonMs = backoffMs(this.#failures - 1, { baseMs: retryMs, maxMs: Math.max(retryMs, everyMs) }, rng);
    this.#plan(this.#failures > 0 ? retryMs / 2 + soonMs : everyMs + rng.below(Math.ceil(everyMs / 10)));
    this.#options.changed();
    return this.#outcome(published);
  }

  #outcome(published: boolean): PublishOutcome {
    const { to, kind: _, state, seq, reason } = this.view();
    return { to, kind: this.#target.kind, published, state, ...(seq === undefined ? {} : { seq }), reason };
  }

  #say(state: SeedTargetStatus["state"], reason: string): void {
    this.#state = state;
    this.#reason = reason.slice(0, REASON_CHARS_MAX);
  }

  /** One look; returns whether this node published. */
  async #work(force: boolean): Promise<boolean> {
    for (let attempt = 0; attempt < CONFLICTS_MAX; attempt++) {
      const turn = this.#options.turn();
      if (!turn) {
        this.#say("waiting", "this node is no issuer");
        return false;
      }
      const present = await this.#present();
      const made = await this.#needed(present, turn, force);
      if (!made) return false;
      using deadline = this.#deadline();
      if (await this.#place.put(made, present, deadline.signal) === "conflict") continue;
      await this.#confirm(made);
      this.#last = made;
      this.#seq = made.seq;
      this.#publishedMs = this.#options.now();
      this.#differsSinceMs = undefined;
      this.#say("ok", "");
      this.#options.log("info", "seed-published", `${this.#target.kind} ${made.seq} is at ${this.#place.shown}`);
      return true;
    }
    throw new Error("others change it at the same time, again and again");
  }

  /** The bundle to put there, or nothing where what is there will do. */
  async #needed(present: Present, turn: PublishTurn, force: boolean): Promise<MadeBundle | undefined> {
    const { kind, redundant = this.#place.alone } = this.#target;
    const { make, now, nameOf } = this.#options;
    const there = present.state === "good" && present.reading.kind === kind ? present.reading : undefined;
    const content = there?.content ?? (present.state === "unreadable" ? this.#last?.content : undefined);
    const above = there ? { above: there.seq } : {};
    if (force) return await this.#made({ kind, ...above });
    const renewAtMs = there ? (there.issuedMs + there.expiresMs) / 2 : this.#last?.renewAtMs ?? 0;
    const fresh = content !== undefined && now() < renewAtMs;
    const [first] = turn.ahead;
    if (there) this.#seq = there.seq;
    // What one that comes first has put there is its business, for as long as it is fresh.
    if (!redundant && fresh && there && turn.ahead.includes(there.signer)) {
      this.#differsSinceMs = undefined;
      this.#say("ok", `${nameOf(there.signer)} publishes`);
      return undefined;
    }
    const made = await make({ kind, ...(fresh ? { unless: content } : {}), ...above });
    if (made === "unchanged") {
      this.#differsSinceMs = undefined;
      this.#say("ok", "");
      return undefined;
    }
    if (!redundant && first !== undefined) {
      this.#differsSinceMs ??= now();
      const waitMs = this.#differsSinceMs + turn.ahead.length * this.#target.everyMs * 1.5 - now();
      if (waitMs > 0) {
        this.#say("waiting", `${nameOf(first)} comes first`);
        return undefined;
      }
    }
    return made;
  }

  async #made(request: { readonly kind: BundleKind; readonly above?: number }): Promise<MadeBundle> {
    const made = await this.#options.make(request);
    if (made === "unchanged") throw new Error("the agent made no bundle");
    return made;
  }

  /** Some servers say yes and keep nothing, or give out something else. */
  async #confirm(made: MadeBundle): Promise<void> {
    const present = await this.#present();
    if (present.state === "unreadable") return;
    if (present.state === "good" && present.reading.seq >= made.seq) return;
    const what = present.state === "good"
      ? `number ${present.reading.seq}`
      : present.state === "bad"
      ? present.why
      : "nothing";
    throw new Error(`it took number ${made.seq}, and gives out ${what}`);
  }

  async #present(): Promise<Present> {
    using deadline = this.#deadline();
    return await this.#place.look(deadline.signal);
  }

  #deadline(): ReturnType<typeof deadlineOf> {
    return deadlineOf(this.#timing.requestMs, this.#abort.signal);
  }
}

function placeOf(target: SeedTarget, read: (content: Uint8Array) => SeedReading): Place {
  if (typeof target.to !== "string") return new CommandPlace(target.to.command);
  if (/^https?:\/\//.test(target.to)) return new ServerPlace(target.to, target.tokenFile, read);
  return new FilePlace(target.to, target.keep, read);
}

function judged(content: Uint8Array, read: (content: Uint8Array) => SeedReading, tag?: string): Present {
  const reading = read(content);
  const tagged = tag === undefined ? {} : { tag };
  if (reading.ok) return { state: "good", reading, ...tagged };
  // It counts, only that this node has made a newer one meanwhile: what it says is old.
  return { state: "bad", why: `${reading.reason}: ${reading.detail}`, ...tagged };
}

class FilePlace implements Place {
  readonly alone = true;

  constructor(
    readonly shown: string,
    readonly keep: number,
    readonly read: (content: Uint8Array) => SeedReading,
  ) {}

  async look(): Promise<Present> {
    try {
      return judged(await readBounded(this.shown, BUNDLE_TEXT_BYTES_MAX), this.read);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return { state: "none" };
      if (error instanceof TooLargeError) return { state: "bad", why: error.message };
      throw error;
    }
  }

  async put(bundle: MadeBundle, present: Present): Promise<"done"> {
    // What does not count is no older version worth keeping in the place of one that does.
    const keep = present.state === "bad" ? 0 : this.keep;
    await writeWhole(this.shown, utf8(bundle.text), { mode: 0o644, keep });
    return "done";
  }
}

class ServerPlace implements Place {
  readonly alone = false;
  readonly shown: string;

  constructor(
    readonly url: string,
    readonly tokenFile: string | undefined,
    readonly read: (content: Uint8Array) => SeedReading,
  ) {
    const parsed = new URL(url);
    this.shown = `${parsed.origin}${parsed.pathname}${parsed.search === "" ? "" : "?…"}`;
  }

  async look(signal: AbortSignal): Promise<Present> {
    const response = await this.#fetch({ method: "GET", headers: { accept: ACCEPT } }, signal);
    try {
      if (response.status === 404 || response.status === 410) return { state: "none" };
      // An address to put to that gives nothing out.
      if ([401, 403, 405, 501].includes(response.status)) return { state: "unreadable" };
      if (response.status !== 200) throw new Error(`the server answered ${response.status}`);
      return judged(await bodyOf(response), this.read, response.headers.get("etag") ?? undefined);
    } finally {
      if (!response.bodyUsed) await response.body?.cancel().catch(() => {});
    }
  }

  async put(bundle: MadeBundle, present: Present, signal: AbortSignal): Promise<"done" | "conflict"> {
    const headers: Record<string, string> = { "content-type": "text/plain; charset=us-ascii" };
    // A weak tag says that two are alike, not that they are the same: no server takes it here (RFC 9110, 13.1.1).
    if (present.state === "none") headers["if-none-match"] = "*";
    else if ("tag" in present && present.tag && !present.tag.startsWith("W/")) headers["if-match"] = present.tag;
    const response = await this.#fetch({ method: "PUT", headers, body: bundle.text }, signal);
    await response.body?.cancel().catch(() => {});
    // WebDAV says 409 where the folder is missing (RFC 4918, 9.7.1), object stores where two write at once.
    if (response.status === 409 && present.state === "none") {
      throw new Error("the server answered 409 to PUT: the folder is missing, or another one writes at the same time");
    }
    if (response.status === 412 || response.status === 409) return "conflict";
    if (response.status < 200 || response.status > 299) {
      throw new Error(`the server answered ${response.status} to PUT`);
    }
    return "done";
  }

  async #fetch(
    init: RequestInit & { readonly headers: Record<string, string> },
    signal: AbortSignal,
  ): Promise<Response> {
    const headers = { ...init.headers, ...await this.#authorization() };
    let response: Response;
    try {
      response = await fetch(this.url, { ...init, headers, redirect: "manual", signal });
    } catch (error) {
      // The message of the runtime holds the whole address, with what may be secret in it.
      if (error instanceof DOMException && error.name === "TimeoutError") {
        throw new Error("the server does not answer in time");
      }
      if (signal.aborted) throw error;
      throw new Error(`the server cannot be reached: ${causeOf(error)}`);
    }
    if (response.status >= 300 && response.status < 400 && response.status !== 304) {
      await response.body?.cancel().catch(() => {});
      // Neither the token nor the bundle goes where somebody on the way says.
      throw new Error(`the server sends elsewhere (${response.status}): name that address itself`);
    }
    return response;
  }

  async #authorization(): Promise<Record<string, string>> {
    if (this.tokenFile === undefined) return {};
    const { protocol, hostname } = new URL(this.url);
    if (protocol !== "https:" && !isLoopback(hostname)) {
      throw new Error("a token goes over https only: anybody on the way could read it");
    }
    const { mode } = await Deno.stat(this.tokenFile);
    if (mode !== null && (mode & 0o077) !== 0) {
      throw new Error(`others may read "${this.tokenFile}": give it mode 0600`);
    }
    const token = new TextDecoder().decode(await readBounded(this.tokenFile, TOKEN_BYTES_MAX)).trim();
    if (!/^[\x21-\x7e]+( [\x21-\x7e]+)?$/.test(token)) throw new Error(`"${this.tokenFile}" holds no token`);
    return { authorization: token.includes(" ") ? token : `Bearer ${token}` };
  }
}

class CommandPlace implements Place {
  readonly alone = true;
  readonly shown: string;

  constructor(readonly command: readonly string[]) {
    // Arguments may hold what is secret.
    this.shown = `command ${command[0]}`;
  }

  look(): Promise<Present> {
    return Promise.resolve({ state: "unreadable" });
  }

  async put(bundle: MadeBundle, _present: Present, signal: AbortSignal): Promise<"done"> {
    const [program, ...args] = this.command;
    const env = Object.fromEntries(
      Object.entries(Deno.env.toObject()).filter(([name]) => !name.startsWith("MYCELIUM_")),
    );
    await using child = new Deno.Command(program!, {
      args,
      clearEnv: true,
      env,
      stdin: "piped",
      stdout: "null",
      stderr: "piped",
      signal,
    }).spawn();
    const said = headOf(child.stderr);
    const writer = child.stdin.getWriter();
    try {
      await writer.write(utf8(bundle.text));
      await writer.close();
    } catch {
      // It ended without reading all: its exit code says whether that was well.
    }
    const { success, code } = await child.status;
    const why = (await said).trim().split("\n").at(-1) ?? "";
    signal.throwIfAborted();
    if (!success) throw new Error(`it ended with ${code}${why === "" ? "" : `: ${why}`}`);
    return "done";
  }
}

/** The first part of what a program says; the rest is read and dropped, so that it does not block. */
async function headOf(stream: ReadableStream<Uint8Array>): Promise<string> {
  let text = "";
  for await (const part of stream.pipeThrough(new TextDecoderStream())) {
    if (text.length < REASON_CHARS_MAX) text += part;
  }
  // deno-lint-ignore no-control-regex -- what steers a terminal is no part of a reason
  return text.slice(0, 4 * REASON_CHARS_MAX).replace(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/g, " ");
}

/** Why a request failed, without the address that the runtime puts in front. */
function causeOf(error: unknown): string {
  const message = error instanceof Error ? error.message : "";
  const at = message.indexOf("client error");
  return at < 0 ? "no connection" : message.slice(at).split(": ").slice(1).join(": ");
}

function isLoopback(hostname: string): boolean {
  return hostname === "localhost" || hostname === "[::1]" || /^127\.\d+\.\d+\.\d+$/.test(hostname);
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Tries of one look where another one changes the same place meanwhile. */
const CONFLICTS_MAX = 3;
const REASON_CHARS_MAX = 300;
const TOKEN_BYTES_MAX = 4_096;
