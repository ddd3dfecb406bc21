/**
 * Agreed records for everybody: what shows them, with the chain of electorates; and whether all that stands was decided.
 *
 * Issuers hold the certificates in their replicated state and give them to any member. A member believes none of them: it
 * verifies the chain from the founder's key.
 *
 * @module
 */

import { equalBytes, toHex } from "../core/bytes.ts";
import { array, bytes, type CborValue, optional, record, uint, WireError } from "../core/codec.ts";
import { nodeIdOf } from "../core/ids.ts";
import { LIMITS } from "../core/limits.ts";
import { bitOf } from "../consensus/statements.ts";
import { readKey } from "../spore/keys.ts";
import { readSpore, type Spore } from "../spore/record.ts";
import type { RankProof } from "../spore/proof.ts";
import type { StateMachine } from "../spore/state_machine.ts";
import { decodeRecordPut, ELECTORATE_KEY, RECORD_PUT } from "./agreed.ts";
import { type AgreedVerdict, type NetworkLaw, verifyAgreedRecord } from "./agreed_law.ts";
import { type AgreedMismatch, type AgreedVersion, AgreedWatch } from "./agreed_watch.ts";
import type { Decision } from "./certified.ts";
import { type Context, DEFERRED, Refusal } from "./context.ts";
import type { ControlRequest } from "./control.ts";
import type { PeerView } from "./effects.ts";
import type { Part } from "./part.ts";
import type { AgreedStatus } from "./status.ts";

/** What is needed of the other parts. */
export interface AgreedPorts {
  /** State of the replica that runs here. */
  state(): StateMachine | undefined;
  law(): NetworkLaw | undefined;
  /** What the Latent Spore holds under `agreed/`, by key. */
  latent(): readonly { readonly key: string; readonly spore: Spore; readonly proof: RankProof | undefined }[];
}

/** A record with all that shows it. */
export interface AgreedProof {
  readonly links: readonly Uint8Array[];
  readonly warrant: Uint8Array;
}

/** Everything is compared so often, without other reason: each change is looked at when it comes. */
const LOOK_MS = 60_000;
/** The same while something that was decided is not to be seen. */
const WAITING_MS = 10_000;
/** After a change, the other side is given so long to change as well. */
const SOON_MS = 500;
const CALL_MS = 5_000;
/** Links in one answer, bytes. */
const PAGE_BYTES = 256 << 10;
const MISMATCHES_KEPT = 16;
/** How far clocks may differ here. */
const CLOCKS_MS = 600_000;

const readAsk = record({ k: readKey, f: uint() });
const readAnswer = record({
  w: optional(bytes({ max: LIMITS.recordBytesMax * 4 })),
  n: uint(),
  l: array(bytes({ max: LIMITS.recordBytesMax * 4 }), 4_096),
});

/** Gives out, fetches, shows and compares agreed records. */
export class AgreedRecords implements Part {
  readonly methods = ["agreed.warrant"] as const;
  readonly verbs = ["agreed-show"] as const;
  /** A record stands that was not decided: for trust, with who has signed it. */
  mismatch: (what: AgreedMismatch) => void = () => {};
  readonly #ctx: Context;
  readonly #ports: AgreedPorts;
  #watch = new AgreedWatch();
  #mismatches: AgreedMismatch[] = [];
  #lookMs = 0;
  #verifying = false;
  #started = false;
  /** Answers that come after the network was forgotten are for nobody. */
  #life = 0;
  /** The chain as far as this node has followed it. */
  #chain: { readonly links: readonly Uint8Array[]; readonly electorates: readonly Uint8Array[] } | undefined;

  constructor(ctx: Context, ports: AgreedPorts) {
    this.#ctx = ctx;
    this.#ports = ports;
  }

  // --- As a part of the agent.

  start(): void {
    this.#started = true;
  }

  clear(): void {
    this.#life += 1;
    this.#started = false;
    this.#watch = new AgreedWatch();
    this.#mismatches = [];
    this.#verifying = false;
    this.#chain = undefined;
    this.#lookMs = 0;
  }

  keys(): readonly string[] {
    return [];
  }

  clockSetBack(): void {
    this.#lookMs = 0;
    this.#watch = new AgreedWatch();
  }

  wake(): number {
    const { nowMs } = this.#ctx;
    if (!this.#started || !this.#ports.law()) return Infinity;
    if (nowMs >= this.#lookMs) this.#look();
    const next = this.#watch.next();
    if (!next || this.#verifying) return this.#lookMs;
    if (nowMs >= next.atMs) {
      this.#verify(next.version);
      return Math.min(this.#lookMs, this.#watch.next()?.atMs ?? Infinity);
    }
    return Math.min(this.#lookMs, next.atMs);
  }

  serve(_peer: PeerView, _method: string, body: CborValue): CborValue {
    const { k, f } = readAsk(body, "agreed.warrant");
    const agreed = this.#ports.state()?.agreed;
    if (!agreed) throw new Refusal("not-issuer", "this node runs no replica");
    return { w: agreed.warrantOf(k), n: agreed.links.length, l: pageOf(agreed.links, f) };
  }

  answer(controlId: number, request: ControlRequest): unknown {
    const { key } = request as ControlRequest & { readonly verb: "agreed-show" };
    this.fetch(key, (proof) => {
      const result = typeof proof === "string" ? proof : this.#shown(key, proof);
      this.#ctx.emit({
        type: "control-reply",
        controlId,
        result: typeof result === "string"
          ? {
            ok: false,
            error: {
              code: result,
              message: `Cannot show "${key}": ${REASONS[result] ?? result}`,
              cure: "List what is agreed: mycelium spore list agreed/",
            },
          }
          : { ok: true, value: result },
      });
    });
    return DEFERRED;
  }

  // --- For other parts.

  /** The Latent Spore or the replica has changed under an agreed key. */
  changed(): void {
    if (this.#started) this.#soon();
  }

  /** Whether a record was found to stand without having been decided: it is not to be used. */
  isWrong(key: string, hash: Uint8Array): boolean {
    return this.#watch.isWrong(key, hash);
  }

  /** Something was decided, and this node has verified it. */
  decided(decision: Decision): void {
    const { nowMs } = this.#ctx;
    const note = (spore: Spore) => {
      const { key, seq } = spore.record;
      if (!key.startsWith("agreed/")) return;
      this.#watch.decided({ key, seq, hash: spore.hash }, nowMs);
      this.#soon();
    };
    try {
      if ("statement" in decision) note(readSpore(decision.record));
      else {
        for (const [i, { kind, body }] of decision.operations.entries()) {
          if (kind !== RECORD_PUT || !bitOf(decision.certificate.outcome, i)) continue;
          note(readSpore(decodeRecordPut(body).envelope));
        }
      }
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      // Decided, and no record: the law has nothing to apply either.
    }
  }

  /** What shows the record that stands under a key; a code where it cannot be had. `done` is called once. */
  fetch(key: string, done: (proof: AgreedProof | "not-agreed" | "unreachable") => void): void {
    const agreed = this.#ports.state()?.agreed;
    const warrant = agreed?.warrantOf(key);
    if (agreed && warrant) return done({ links: agreed.links, warrant });
    // A replica that has just started may not have come so far.
    const issuers = this.#issuers();
    this.#page(key, issuers, { links: this.#chain?.links ?? [], denied: agreed !== undefined }, done);
  }

  /** For the status document. */
  status(): AgreedStatus {
    return { ...this.#watch.counts, recent: this.#mismatches };
  }

  // --- Asking.

  #issuers(): string[] {
    const { state, sessions, rng } = this.#ctx;
    const near = (state.network?.chain?.issuers ?? []).map(nodeIdOf).filter((one) => sessions.get(one)?.member);
    const at = near.length === 0 ? 0 : rng.below(near.length);
    return [...near.slice(at), ...near.slice(0, at)];
  }

  /**
   * One page of the chain after another, from one issuer; from the next where it does not answer, or does not know of it: one of
   * them may be behind, or lie.
   *
   * @param so What came so far: links, and whether an issuer has denied that there is such a record.
   */
  #page(
    key: string,
    issuers: readonly string[],
    so: { readonly links: readonly Uint8Array[]; readonly denied: boolean },
    done: (proof: AgreedProof | "not-agreed" | "unreachable") => void,
  ): void {
    const [node, ...others] = issuers;
    if (node === undefined) return done(so.denied ? "not-agreed" : "unreachable");
    const { links } = so;
    const life = this.#life;
    this.#ctx.call(node, "agreed.warrant", { k: key, f: links.length }, CALL_MS, (result) => {
      if (life !== this.#life) return done("unreachable");
      if (!result.ok) return this.#page(key, others, so, done);
      try {
        const { w, n, l } = readAnswer(result.body, "agreed.warrant");
        const all = [...links, ...l];
        if (!w) return this.#page(key, others, { ...so, denied: true }, done);
        // Of another chain than was followed so far, or of an issuer that is behind: from the beginning.
        if (links.length > n) return this.#page(key, issuers, { ...so, links: [] }, done);
        if (all.length < n && l.length > 0) return this.#page(key, issuers, { ...so, links: all }, done);
        if (all.length < n) return this.#page(key, others, { ...so, denied: true }, done);
        return done({ links: all, warrant: w });
      } catch (error) {
        if (!(error instanceof WireError)) throw error;
        this.#ctx.refuse("bad-answer", node);
        this.#page(key, others, so, done);
      }
    });
  }

  #shown(key: string, proof: AgreedProof): unknown {
    const { root } = this.#ports.law()!;
    const verdict = verifyAgreedRecord(root, proof.links, proof.warrant);
    if (!verdict.ok) return verdict.reason;
    if (verdict.spore.record.key !== key) return "not-agreed";
    const { value, seq, issuedMs } = verdict.spore.record;
    return {
      key,
      hash: toHex(verdict.spore.hash),
      author: verdict.spore.author,
      seq,
      issuedMs,
      deleted: value === undefined,
      valueBytes: value?.length ?? 0,
      class: verdict.class,
      epoch: verdict.epoch,
      newestEpoch: verdict.newest,
      seats: verdict.seats,
      of: verdict.of,
      chainBytes: proof.links.reduce((sum, one) => sum + one.length, 0),
      warrantBytes: proof.warrant.length,
      ...this.#elsewhere(verdict),
    };
  }

  /** Where it stands on this node. */
  #elsewhere(
    { spore }: AgreedVerdict & { readonly ok: true },
  ): { readonly primary?: boolean; readonly latent: boolean } {
    const { key } = spore.record;
    const held = this.#ports.state()?.get(key)?.spore;
    const latent = this.#ports.latent().find((one) => one.key === key)?.spore;
    return {
      ...(held ? { primary: equalBytes(held.hash, spore.hash) } : {}),
      latent: latent !== undefined && equalBytes(latent.hash, spore.hash),
    };
  }

  // --- Comparing.

  #soon(): void {
    const atMs = this.#ctx.nowMs + SOON_MS;
    if (atMs >= this.#lookMs) return;
    this.#lookMs = atMs;
    this.#ctx.wakeAt(atMs);
  }

  #look(): void {
    const { nowMs } = this.#ctx;
    const state = this.#ports.state();
    const latent = this.#ports.latent().flatMap(({ key, spore, proof }): AgreedVersion[] =>
      proof?.tier !== "primary" || isForgotten(spore, nowMs) ? [] : [{
        key,
        hash: spore.hash,
        seq: spore.record.seq,
        index: proof.index,
        by: proof.signatures.map((one) => nodeIdOf(one.key)),
      }]
    );
    const versions = state && [ELECTORATE_KEY, ...state.agreed.keys].flatMap((key): AgreedVersion[] => {
      const version = state.get(key);
      if (!version) return [];
      return [{ key, hash: version.spore.hash, seq: version.spore.record.seq, index: version.index, by: [] }];
    });
    const replica = state && versions && { appliedIndex: state.index, versions };
    this.#report(this.#watch.look({ nowMs, replica, latent }));
    const { keys, waiting } = this.#watch.counts;
    this.#lookMs = waiting > 0 ? nowMs + WAITING_MS : keys > 0 ? nowMs + LOOK_MS : Infinity;
  }

  #verify(version: AgreedVersion): void {
    this.#verifying = true;
    const life = this.#life;
    const watch = this.#watch;
    this.fetch(version.key, (proof) => {
      if (life !== this.#life) return;
      this.#verifying = false;
      const outcome = proof === "unreachable"
        ? "unknown"
        : proof === "not-agreed"
        ? "not"
        : this.#outcome(version, proof);
      this.#report(watch.verified(version, outcome, this.#ctx.nowMs));
      this.#ctx.wakeAt(this.#ctx.nowMs);
    });
  }

  #outcome(version: AgreedVersion, { links, warrant }: AgreedProof): "shown" | "newer" | "not" {
    const law = this.#ports.law()!;
    const electorates = this.#follow(law, links);
    const shown = electorates && law.read(warrant, electorates);
    if (!shown || shown.spore.record.key !== version.key) return "not";
    if (equalBytes(shown.spore.hash, version.hash)) return "shown";
    return shown.spore.record.seq > version.seq ? "newer" : "not";
  }

  /** Electorates of a chain; what was followed before is not verified again. */
  #follow(law: NetworkLaw, links: readonly Uint8Array[]): readonly Uint8Array[] | undefined {
    const known = this.#chain;
    const same = known !== undefined && known.links.length <= links.length &&
      known.links.every((one, i) => one === links[i] || equalBytes(one, links[i]!));
    const electorates = same ? [...known.electorates] : [law.genesis];
    for (const link of links.slice(electorates.length - 1)) {
      const next = law.follow(electorates.at(-1)!, link);
      if (!next) {
        this.#chain = undefined;
        return undefined;
      }
      electorates.push(next);
    }
    this.#chain = { links, electorates };
    return electorates;
  }

  #report(found: readonly AgreedMismatch[]): void {
    const ctx = this.#ctx;
    for (const one of found) {
      this.#mismatches = [...this.#mismatches, one].slice(-MISMATCHES_KEPT);
      ctx.log("error", "agreed-mismatch", `What stands under "${one.key}" is not what was decided: ${one.kind}`, {
        key: one.key,
        kind: one.kind,
        found: one.found,
        index: one.index,
        ...(one.expected === undefined ? {} : { expected: one.expected }),
      });
      ctx.audit("agreed-mismatch", ctx.state.nodeId, `${one.kind}: "${one.key}", ${one.found.slice(0, 16)}`);
      this.mismatch(one);
    }
  }
}

/** A tombstone that the primaries have forgotten, or soon will: by the log's clock, which is nobody's. */
function isForgotten({ record: { value, expiresMs } }: Spore, nowMs: number): boolean {
  return value === undefined && expiresMs <= nowMs + CLOCKS_MS;
}

const REASONS: { readonly [code: string]: string } = {
  "not-agreed": "nothing was decided about it",
  "unreachable": "no issuer answers, and they hold the certificates",
  "broken-chain": "the electorates that were shown do not follow from each other",
};

/** Links from one on, as many as a page holds; one at least. */
function pageOf(links: readonly Uint8Array[], from: number): Uint8Array[] {
  const page: Uint8Array[] = [];
  let size = 0;
  for (const one of links.slice(from)) {
    size += one.length;
    if (page.length > 0 && size > PAGE_BYTES) break;
    page.push(one);
  }
  return page;
}
