/**
 * What a person asks of the Primary Spore: read, write, hand over, recover, back up, restore.
 *
 * @module
 */

import { equalBytes, fromBase64Url, toBase64Url, toHex } from "../core/bytes.ts";
import { decodeAs, WireError } from "../core/codec.ts";
import { type KeyPair, keyPairFromSeed, sha256 } from "../core/crypto.ts";
import { readEnvelope } from "../core/envelope.ts";
import { shortNodeId } from "../core/ids.ts";
import { openSpore, RECORD_LIFE_MS_MAX, sealSpore, type Spore } from "../spore/record.ts";
import type { StateMachine, Version } from "../spore/state_machine.ts";
import { type Context, DEFERRED, Refusal } from "./context.ts";
import { conflictText, type WriteResult } from "./primary_client.ts";
import { nodeOfReplica } from "./primary_store.ts";

/** Requests of the person at the machine. */
export type PrimaryRequest =
  /** No value: deletes. */
  | { readonly verb: "primary-put"; readonly key: string; readonly value?: string; readonly expect?: number }
  | {
    readonly verb: "primary-get";
    readonly key: string;
    readonly prefix?: boolean;
    readonly stale?: boolean;
  }
  | { readonly verb: "primary-transfer"; readonly node: string }
  | {
    readonly verb: "primary-recover";
    /** Nodes to give up. */
    readonly without: readonly string[];
    readonly dryRun?: boolean;
    /** The genesis key where neither it nor the operator's is on this node; read from a file by the edge. */
    readonly genesisSeed?: Uint8Array;
  }
  /** The whole state in pieces: the first request freezes it, those after it name it and where to go on. */
  | { readonly verb: "primary-dump"; readonly dump?: string; readonly offset?: number }
  /** Records from a backup, written like any other: where the key is free, unless all are wanted. */
  | {
    readonly verb: "primary-restore";
    readonly rows: readonly RestoreRow[];
    readonly overwrite?: boolean;
    readonly dryRun?: boolean;
  };

/** A record of a backup. */
export interface RestoreRow {
  readonly key: string;
  /** The signed record, Base64url of its envelope in CBOR; missing where it is of another network. */
  readonly envelope?: string;
  /** Base64url. */
  readonly value: string;
}

/** What became of one record of a backup. */
export interface RestoredRow {
  readonly key: string;
  /** `written`: as it was signed; `signed-anew`: by this node; `kept`: something else stands there. */
  readonly outcome: "written" | "signed-anew" | "kept" | "unchanged" | "skipped" | "failed";
  readonly reason?: string;
}

/** What the console needs of the Primary Spore. */
export interface ConsolePort {
  readonly state: StateMachine | undefined;
  readonly leader: string | undefined;
  readonly leads: boolean;
  write(
    spore: Spore,
    options: { readonly expect?: number; readonly timeoutMs?: number },
    done: (result: WriteResult) => void,
  ): void;
  read(
    request: { readonly key: string; readonly prefix: boolean; readonly stale: boolean },
    done: (
      result:
        | { readonly ok: true; readonly versions: readonly Version[]; readonly index: number }
        | { readonly ok: false; readonly code: string },
    ) => void,
  ): void;
  /** Voters and learners of the configuration that this replica knows; none where it runs none. */
  members():
    | { readonly self: string; readonly voters: readonly string[]; readonly learners: readonly string[] }
    | undefined;
  transfer(
    to: string,
    done: (result: { readonly leader: string | undefined } | { readonly refused: string }) => void,
  ): void;
  /** Where the log of this replica ends, and those of others that answer. */
  survey(of: readonly string[], done: (found: ReadonlyMap<string, LogEnd>) => void): LogEnd;
  /** Goes on without those that are given up; this replica is the only voter then. */
  recover(learners: readonly string[], without: readonly string[], signer: KeyPair): void;
}

/** Where a log ends. */
export interface LogEnd {
  readonly term: number;
  readonly index: number;
  readonly commitIndex: number;
}

/** Time for a person's request. */
const CONTROL_MS = 10_000;
/** One piece of a dump, bytes. */
const PIECE_BYTES = 512 << 10;
/** A dump that nobody asks for is forgotten. */
const DUMP_MS = 60_000;

const CURES: { readonly [code: string]: string } = {
  "conflict": "Read it again, then write with the version that is there (0: nothing)",
  "stale-seq": "A newer word of this node is there: check its clock",
  "not-permitted": "This node may write under app/ and under its own node/ and service/ keys",
  "full": "Delete what is not needed",
  "timeout": "It may still happen. Who leads: mycelium primary status",
  "from-future": "Check the clock of this node",
  "no-leader": "Nobody leads: mycelium primary status",
};

/** Answers a person. */
export class PrimaryConsole {
  readonly verbs: readonly PrimaryRequest["verb"][] = [
    "primary-put",
    "primary-get",
    "primary-transfer",
    "primary-recover",
    "primary-dump",
    "primary-restore",
  ];
  readonly #ctx: Context;
  readonly #port: ConsolePort;
  #later: { readonly atMs: number; readonly run: () => void }[] = [];
  #dump:
    | { readonly id: string; readonly data: Uint8Array; readonly index: number; readonly untilMs: number }
    | undefined;
  #seq = 0;

  constructor(ctx: Context, port: ConsolePort) {
    this.#ctx = ctx;
    this.#port = port;
  }

  clear(): void {
    this.#later = [];
    this.#dump = undefined;
  }

  /** The clock was set back. */
  clockSetBack(): void {
    this.#later = this.#later.map(({ run }) => ({ atMs: this.#ctx.nowMs, run }));
    this.#dump = undefined;
  }

  /** What is due; returns when it wants to be woken. */
  wake(): number {
    const { nowMs } = this.#ctx;
    if (this.#dump && this.#dump.untilMs <= nowMs) this.#dump = undefined;
    if (this.#later.length === 0) return this.#dump?.untilMs ?? Infinity;
    const due = this.#later.filter((one) => one.atMs <= nowMs);
    this.#later = this.#later.filter((one) => one.atMs > nowMs);
    for (const { run } of due) run();
    return Math.min(this.#dump?.untilMs ?? Infinity, ...this.#later.map((one) => one.atMs));
  }

  /** Does something in the next step: after what is under way has returned. */
  soon(run: () => void): void {
    this.#later.push({ atMs: this.#ctx.nowMs, run });
  }

  answer(controlId: number, request: PrimaryRequest): unknown {
    switch (request.verb) {
      case "primary-put":
        return this.#put(controlId, request);
      case "primary-get":
        return this.#get(controlId, request);
      case "primary-transfer":
        return this.#transfer(controlId, request.node);
      case "primary-recover":
        return this.#recover(controlId, request);
      case "primary-dump":
        return this.#dumped(controlId, request);
      case "primary-restore":
        return this.#restore(controlId, request);
      default:
        return request satisfies never;
    }
  }

  #seal(key: string, value: Uint8Array | undefined): Spore {
    const { nowMs, state } = this.#ctx;
    // The clock as part of the number lets a node that lost its disk go on.
    this.#seq = Math.max(nowMs, this.#seq + 1);
    const record = { key, seq: this.#seq, value, issuedMs: nowMs, expiresMs: nowMs + RECORD_LIFE_MS_MAX };
    return sealSpore(record, state.networkId, state.keyPair);
  }

  #put(controlId: number, request: PrimaryRequest & { readonly verb: "primary-put" }): unknown {
    const { key, expect, value } = request;
    const spore = this.#seal(key, value === undefined ? undefined : new TextEncoder().encode(value));
    this.#port.write(spore, expect === undefined ? {} : { expect }, (result) => {
      const { code, index } = result;
      if (result.ok) return this.#reply(controlId, { key, index, code });
      const why = code === "conflict" ? conflictText(index) : `${code}${index ? `, version ${index}` : ""}`;
      this.#error(controlId, code, `Cannot write "${key}": ${why}`);
    });
    return DEFERRED;
  }

  #get(controlId: number, request: PrimaryRequest & { readonly verb: "primary-get" }): unknown {
    const read = { key: request.key, prefix: request.prefix ?? false, stale: request.stale ?? false };
    this.#untilRead(read, (result) => {
      if (result.ok) return this.#reply(controlId, { index: result.index, versions: result.versions.map(shown) });
      this.#error(controlId, result.code, `Cannot read "${request.key}": ${result.code}`);
    });
    return DEFERRED;
  }

  /** Reads, again and again while nobody leads. */
  #untilRead(
    request: Parameters<ConsolePort["read"]>[0],
    done: Parameters<ConsolePort["read"]>[1],
    endMs = this.#ctx.nowMs + CONTROL_MS,
  ): void {
    this.#port.read(request, (result) => {
      if (result.ok || this.#ctx.nowMs >= endMs) return done(result);
      this.#later.push({ atMs: this.#ctx.nowMs + 100, run: () => this.#untilRead(request, done, endMs) });
    });
  }

  #transfer(controlId: number, wanted: string): unknown {
    const members = this.#port.members();
    if (!members || !this.#port.leads) {
      const { leader } = this.#port;
      throw new Refusal(
        "not-leader",
        "Cannot hand over: this node does not lead",
        leader ? `Run it on ${this.#nameOf(leader)}` : "Wait until somebody leads: mycelium primary status",
      );
    }
    const [to] = this.#replicasOf([wanted], members.voters);
    if (to === members.self) return { leader: this.#ctx.state.nodeId };
    this.#port.transfer(to!, (result) => {
      if ("refused" in result) return this.#error(controlId, result.refused, `Cannot hand over: ${result.refused}`);
      this.#ctx.audit(
        "primary-transfer",
        this.#ctx.state.nodeId,
        `leadership was handed to ${result.leader ?? wanted}`,
      );
      this.#reply(controlId, { leader: result.leader ?? null });
    });
    return DEFERRED;
  }

  #recover(controlId: number, request: PrimaryRequest & { readonly verb: "primary-recover" }): unknown {
    const ctx = this.#ctx;
    const { state } = ctx;
    const signer = this.#recoveryKey(request.genesisSeed);
    const members = this.#port.members();
    if (!members || members.voters.length + members.learners.length === 0) {
      throw new Refusal(
        "no-replica",
        "Cannot recover here: this node holds no replica",
        "Run it on a voter or learner",
      );
    }
    if (this.#port.leader !== undefined) {
      throw new Refusal(
        "not-lost",
        "Cannot recover: a majority is there, and somebody leads",
        "See: mycelium primary status",
      );
    }
    const all = [...members.voters, ...members.learners];
    const without = this.#replicasOf(request.without, all);
    if (without.includes(members.self)) {
      throw new Refusal("own-node", "Cannot give up this node itself", "Run it on a node that stays");
    }
    const left = members.voters.filter((one) => !without.includes(one));
    if (left.length * 2 > members.voters.length) {
      throw new Refusal(
        "majority-left",
        `Cannot recover: ${left.length} of ${members.voters.length} voters would be left, which is a majority`,
        "Start those nodes, and they elect a leader by themselves; or name more with --without",
      );
    }
    const learners = all.filter((one) => !without.includes(one) && one !== members.self);
    const own = this.#port.survey(learners, (found) => {
      const newer = [...found].filter(([, end]) => isNewer(end, own)).map(([replica]) => nodeOfReplica(replica));
      if (newer.length > 0) {
        return this.#error(
          controlId,
          "not-newest",
          `Cannot recover here: ${newer.map((one) => this.#nameOf(one)).join(", ")} holds more of the log`,
          "Run it there",
        );
      }
      const plan = {
        voter: state.nodeId,
        learners: learners.map(nodeOfReplica),
        without: without.map(nodeOfReplica),
        silent: learners.filter((one) => !found.has(one)).map(nodeOfReplica),
        lastIndex: own.index,
        commitIndex: own.commitIndex,
      };
      if (request.dryRun) return this.#reply(controlId, { ...plan, recovered: false });
      ctx.audit(
        "primary-recovered",
        state.nodeId,
        `without ${plan.without.map(shortNodeId).join(" ")}, from entry ${own.index}`,
      );
      this.#port.recover(learners, without, signer);
      this.#reply(controlId, { ...plan, recovered: true });
    });
    return DEFERRED;
  }

  #recoveryKey(genesisSeed: Uint8Array | undefined): KeyPair {
    const { state } = this.#ctx;
    const genesis = state.network!.genesis!.record;
    const known = [genesisSeed ? keyPairFromSeed(genesisSeed) : undefined, state.operatorPair, state.genesisPair];
    const pair = known.find((one) =>
      one && [genesis.genesisKey, genesis.operatorKey].some((key) => equalBytes(key, one.publicKey))
    );
    if (pair) return pair;
    throw new Refusal(
      "no-operator-key",
      "Cannot recover: this node holds neither the operator's key nor the genesis key",
      "Name the file that holds it: --key <file>",
    );
  }

  #dumped(controlId: number, request: PrimaryRequest & { readonly verb: "primary-dump" }): unknown {
    const { dump: id, offset = 0 } = request;
    if (id !== undefined) return this.#piece(id, offset);
    // Linearizable: everything that was agreed on before it was asked for is in it.
    this.#untilRead({ key: "app/-", prefix: false, stale: false }, (result) => {
      const state = this.#port.state;
      if (!result.ok || !state) {
        const code = result.ok ? "no-replica" : result.code;
        return this.#error(controlId, code, `Cannot back up: ${code}`, "Run it on an issuer of the network");
      }
      const data = state.snapshot();
      const fresh = toHex(this.#ctx.entropy.bytes(8));
      this.#dump = { id: fresh, data, index: state.index, untilMs: this.#ctx.nowMs + DUMP_MS };
      this.#ctx.audit("primary-dumped", this.#ctx.state.nodeId, `${data.length} bytes at entry ${state.index}`);
      this.#reply(controlId, this.#piece(fresh, 0));
    });
    return DEFERRED;
  }

  #piece(id: string, offset: number): unknown {
    const dump = this.#dump;
    if (!dump || dump.id !== id) throw new Refusal("not-found", "Cannot go on: the dump is forgotten", "Begin again");
    return {
      dump: id,
      networkId: toHex(this.#ctx.state.networkId),
      networkName: this.#ctx.state.network!.genesis!.record.name,
      index: dump.index,
      sizeBytes: dump.data.length,
      digest: toHex(sha256(dump.data)),
      offset,
      piece: toBase64Url(dump.data.subarray(offset, offset + PIECE_BYTES)),
    };
  }

  #restore(controlId: number, request: PrimaryRequest & { readonly verb: "primary-restore" }): unknown {
    const { rows, overwrite = false, dryRun = false } = request;
    const outcomes: RestoredRow[] = [];
    const done = (i: number, outcome: Omit<RestoredRow, "key">) => {
      outcomes[i] = { key: rows[i]!.key, ...outcome };
      if (Object.keys(outcomes).length < rows.length) return;
      const written = outcomes.filter((one) => one.outcome === "written" || one.outcome === "signed-anew").length;
      if (!dryRun) this.#ctx.audit("primary-restored", this.#ctx.state.nodeId, `${written} of ${rows.length} records`);
      this.#reply(controlId, { rows: outcomes });
    };
    if (rows.length === 0) return { rows: [] };
    for (const [i, row] of rows.entries()) {
      let spore: Spore;
      let anew: boolean;
      try {
        ({ spore, anew } = this.#restorable(row));
      } catch (error) {
        if (!(error instanceof WireError)) throw error;
        done(i, { outcome: "failed", reason: error.message });
        continue;
      }
      const outcome = anew ? "signed-anew" : "written";
      if (dryRun) {
        const known = this.#port.state?.get(row.key);
        const live = known?.spore.record.value;
        done(i, live === undefined || overwrite ? { outcome } : { outcome: "kept" });
        continue;
      }
      this.#port.write(spore, { timeoutMs: 30_000, ...(overwrite ? {} : { expect: 0 }) }, (result) => {
        if (result.ok) return done(i, { outcome: result.code === "unchanged" ? "unchanged" : outcome });
        if (result.code === "conflict") return done(i, { outcome: "kept" });
        const reason = CURES[result.code] ?? result.code;
        done(i, result.code === "not-permitted" ? { outcome: "skipped", reason } : { outcome: "failed", reason });
      });
    }
    return DEFERRED;
  }

  /** The record as it was signed where it still counts, else a word of this node in its place. */
  #restorable(row: RestoreRow): { readonly spore: Spore; readonly anew: boolean } {
    const { nowMs, state } = this.#ctx;
    const value = fromBase64Url(row.value);
    if (!value) throw new WireError(`Cannot restore "${row.key}": its value is no Base64url`);
    const encoded = row.envelope === undefined ? undefined : fromBase64Url(row.envelope);
    if (encoded) {
      try {
        const spore = openSpore(decodeAs(encoded, readEnvelope), state.networkId);
        if (spore.record.key === row.key && spore.record.expiresMs > nowMs) return { spore, anew: false };
      } catch (error) {
        // Of another network, or damaged: its value is signed by this node.
        if (!(error instanceof WireError)) throw error;
      }
    }
    return { spore: this.#seal(row.key, value), anew: true };
  }

  /** Replicas of nodes that a person named by id, the end of it, or name. */
  #replicasOf(wanted: readonly string[], among: readonly string[]): string[] {
    return wanted.map((word) => {
      const found = among.filter((one) => {
        const node = nodeOfReplica(one);
        return node === word || word.length >= 4 && node.endsWith(word) || this.#nameOf(node) === word;
      });
      if (found.length === 1) return found[0]!;
      throw new Refusal(
        found.length === 0 ? "not-found" : "ambiguous",
        `Cannot find "${word}" among ${among.map((one) => this.#nameOf(nodeOfReplica(one))).join(", ")}`,
        "List them: mycelium primary status",
      );
    });
  }

  #nameOf(nodeId: string): string {
    return this.#ctx.state.members.get(nodeId)?.membership.name ?? shortNodeId(nodeId);
  }

  #reply(controlId: number, value: unknown): void {
    this.#ctx.emit({ type: "control-reply", controlId, result: { ok: true, value } });
  }

  #error(controlId: number, code: string, message: string, cure = CURES[code] ?? ""): void {
    this.#ctx.emit({ type: "control-reply", controlId, result: { ok: false, error: { code, message, cure } } });
  }
}

/** Whether a log holds what another may lack: the rule by which votes are given. */
function isNewer(one: LogEnd, than: LogEnd): boolean {
  return one.term > than.term || one.term === than.term && one.index > than.index;
}

/** A version as JSON; bytes that are no text are shown in Base64url. */
function shown({ spore, index, term }: Version): unknown {
  const { key, seq, value, issuedMs, expiresMs } = spore.record;
  return { key, index, term, seq, author: spore.author, issuedMs, expiresMs, ...valueOf(value) };
}

function valueOf(value: Uint8Array | undefined): { readonly [name: string]: string } {
  if (value === undefined) return {};
  try {
    return { value: new TextDecoder("utf-8", { fatal: true }).decode(value) };
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    return { base64: toBase64Url(value) };
  }
}
