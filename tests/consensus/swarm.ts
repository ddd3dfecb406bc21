/**
 * A cluster from a seed: consensus cores on a simulated network, disk and clock, with liars among them.
 *
 * The seed draws how many voters of which weight, how the network loses, delays and repeats, who crashes when, and what
 * each liar does. Liars hold at most f of the weight unless the caller asks for more. Then the faults stop, and
 * everything that an honest node has proposed has to be decided.
 *
 * A liar is an honest core whose messages are changed on their way out, so that it lies in the protocol's own words, with its own key.
 *
 * @module
 */

import assert from "node:assert/strict";
import { equalBytes, toHex, utf8 } from "../../src/core/bytes.ts";
import { hmacSha256 } from "../../src/core/crypto.ts";
import { type Rng, seededRng, shuffled } from "../../src/core/rng.ts";
import { type Certificate, verifyCertificate } from "../../src/consensus/certificate.ts";
import { dealCommitment } from "../../src/consensus/commitment.ts";
import { Consensus } from "../../src/consensus/consensus.ts";
import type { ConsensusEffect, ConsensusEvent, StoredInstance } from "../../src/consensus/effects.ts";
import { evidenceValue, readEvidence, verifyEvidence } from "../../src/consensus/evidence.ts";
import { decodeCbor, encodeCbor } from "../../src/core/codec.ts";
import { type ConsensusMessage, decodeMessage, encodeMessage } from "../../src/consensus/messages.ts";
import {
  bitmapOf,
  bitOf,
  electorate,
  type Header,
  instanceId,
  type Operation,
  signStatement,
} from "../../src/consensus/statements.ts";
import { totalSeats, type WeightTable } from "../../src/consensus/weights.ts";
import { Agenda } from "../sim/heap.ts";
import { NETWORK, short, tableOf, type TestVoter, testVoters } from "./kit.ts";

/** What a liar does. */
export type Lie =
  /** Says nothing at all. */
  | "silent"
  /** Commits, then neither opens nor gives out shares. */
  | "withhold"
  /** Tells one half of the voters another commitment, and signs other freeze votes and precommits as well. */
  | "equivocate"
  /** Votes the opposite. */
  | "wrong"
  /** Sends another voter's commitment as its own. */
  | "copy"
  /** Repeats old messages of everybody, also of other instances. */
  | "replay"
  /** As the leader leaves out, delays, or names different sets to different voters. */
  | "censor"
  /** Deals shares that give nothing, and withholds. */
  | "bad-shares";

/** All lies. */
export const LIES: readonly Lie[] = [
  "silent",
  "withhold",
  "equivocate",
  "wrong",
  "copy",
  "replay",
  "censor",
  "bad-shares",
];

/** Options of {@linkcode runSwarm}. */
export interface SwarmOptions {
  readonly seed: number;
  readonly nodes?: number;
  /** Liars; drawn up to f where missing. */
  readonly liars?: number;
  /** All liars do this; drawn where missing. */
  readonly lie?: Lie;
  readonly proposals?: number;
  /** No loss, no crashes. */
  readonly calm?: boolean;
  /** Stop here rather than demand that all is decided. Simulated milliseconds. */
  readonly giveUpMs?: number;
}

/** What a run did. */
export interface SwarmResult {
  readonly traceHash: number;
  readonly counts: ReadonlyMap<string, number>;
  readonly table: WeightTable;
  readonly liars: ReadonlySet<string>;
  /** Evidence that checks, by accused. */
  readonly convicted: ReadonlyMap<string, ReadonlySet<string>>;
  readonly endedMs: number;
  /** Whether everything proposed by honest nodes is decided at all of them. */
  readonly complete: boolean;
}

interface Node {
  readonly voter: TestVoter;
  readonly lie: Lie | undefined;
  core: Consensus;
  epoch: number;
  up: boolean;
  wakeMs: number;
  disk: Map<string, StoredInstance>;
  number: number;
}

const FAULTS_MS = 4_000;
const LIVENESS_MS = 120_000;

/** Runs a cluster from a seed. A failure names the seed. */
export function runSwarm(options: SwarmOptions): SwarmResult {
  const swarm = new Swarm(options);
  try {
    return swarm.run();
  } catch (error) {
    throw new Error(
      `Consensus: seed ${options.seed} failed at ${swarm.nowMs} ms (${JSON.stringify(options)})\n${swarm.recent()}\n${
        error instanceof Error ? error.stack : error
      }`,
      { cause: error },
    );
  }
}

/** What an honest node finds of an operation. */
export function isAcceptable(operation: Operation): boolean {
  return operation.kind === "test/good";
}

class Swarm {
  nowMs = 1_000_000;
  readonly #rng: Rng;
  readonly #options: SwarmOptions;
  readonly #agenda = new Agenda();
  readonly #nodes = new Map<string, Node>();
  readonly #table: WeightTable;
  readonly #counts = new Map<string, number>();
  readonly #lines: string[] = [];
  /** First certificate of each instance, and who knows it. */
  readonly #decided = new Map<string, { readonly certificate: Certificate; readonly at: Set<string> }>();
  readonly #wanted = new Map<string, { readonly header: Header; readonly operations: readonly Operation[] }>();
  readonly #proposed = new Set<string>();
  readonly #convicted = new Map<string, Set<string>>();
  /** Old messages, for those who repeat them. */
  readonly #heard: ConsensusMessage[] = [];
  readonly #lossPercent: number;
  readonly #delayMs: number;
  #faults = true;
  #hash = 0x811c9dc5;

  constructor(options: SwarmOptions) {
    this.#options = options;
    const rng = this.#rng = seededRng(options.seed);
    const count = options.nodes ?? [4, 4, 5, 7, 7, 10, 13][rng.below(7)]!;
    const voters = testVoters(count);
    const weights = options.liars === undefined && rng.below(3) === 0
      ? voters.map(() => 1 + rng.below(1_000))
      : undefined;
    this.#table = tableOf(voters, weights);
    this.#lossPercent = options.calm ? 0 : [0, 2, 10, 25][rng.below(4)]!;
    this.#delayMs = [1, 5, 30][rng.below(3)]!;
    const liars = this.#drawLiars(options);
    for (const voter of voters) {
      if (!this.#table.voters.some((one) => one.id === voter.id)) continue;
      const lie = liars.has(voter.id) ? options.lie ?? LIES[rng.below(LIES.length)]! : undefined;
      const core = this.#core(voter);
      this.#nodes.set(voter.id, { voter, lie, core, epoch: 0, up: true, wakeMs: 0, disk: new Map(), number: 0 });
      if (lie) this.#count(`liar ${lie}`);
    }
  }

  #core(voter: TestVoter): Consensus {
    return new Consensus({
      networkId: NETWORK,
      id: voter.id,
      key: voter.key,
      table: this.#table,
      options: { delayMs: 20, delayMsMin: 5, delayMsMax: 2_000, lifeMs: 10 * LIVENESS_MS, roundsMax: 60 },
    });
  }

  #drawLiars(options: SwarmOptions): ReadonlySet<string> {
    const total = totalSeats(this.#table);
    const liars = new Set<string>();
    let seats = 0;
    const wanted = options.liars ?? this.#rng.below(this.#table.voters.length);
    for (const one of shuffled(this.#table.voters, this.#rng)) {
      if (liars.size === wanted) break;
      if (options.liars === undefined && 3 * (seats + one.seats) >= total) continue;
      liars.add(one.id);
      seats += one.seats;
    }
    return liars;
  }

  run(): SwarmResult {
    for (const node of this.#nodes.values()) {
      this.#step(node, { type: "start", nowMs: this.nowMs, stored: [], number: 0 });
    }
    const start = this.nowMs;
    for (let i = 0; i < (this.#options.proposals ?? 4); i++) {
      this.#agenda.add(start + this.#rng.below(FAULTS_MS / 2), () => this.#submit(i));
    }
    if (!this.#options.calm) {
      for (let i = 0; i < 3; i++) this.#agenda.add(start + this.#rng.below(FAULTS_MS), () => this.#crash());
    }
    this.#agenda.add(start + FAULTS_MS, () => {
      this.#faults = false;
    });
    const end = start + (this.#options.giveUpMs ?? FAULTS_MS + LIVENESS_MS);
    for (;;) {
      const next = this.#agenda.take();
      if (!next || next.atMs > end) break;
      this.nowMs = Math.max(this.nowMs, next.atMs);
      next.run();
      if (!this.#faults && this.#complete()) break;
    }
    const complete = this.#complete();
    if (this.#options.giveUpMs === undefined) assert.ok(complete, "LIVENESS: something is not decided everywhere");
    this.#checkEvidence();
    return {
      traceHash: this.#hash >>> 0,
      counts: this.#counts,
      table: this.#table,
      liars: new Set([...this.#nodes.values()].filter((one) => one.lie).map((one) => one.voter.id)),
      convicted: this.#convicted,
      endedMs: this.nowMs - start,
      complete,
    };
  }

  recent(): string {
    return [
      ...this.#lines.slice(-300),
      ...[...this.#wanted].flatMap(([name, { header }]) =>
        this.#decided.has(name) ? [] : [`not decided: ${name.slice(0, 8)} of ${header.proposer}`]
      ),
      ...[...this.#nodes.values()].map((one) => `${one.voter.id} ${one.lie ?? ""} ${one.core.describe().join("; ")}`),
    ].join("\n");
  }

  /** Everything proposed is decided, and no honest node waits for anything. Who slept through it all hears of it by spores. */
  #complete(): boolean {
    for (const name of this.#wanted.keys()) if (!this.#decided.has(name)) return false;
    for (const node of this.#nodes.values()) if (!node.lie && (!node.up || node.core.view().voting > 0)) return false;
    return true;
  }

  #submit(i: number): void {
    const up = [...this.#nodes.values()].filter((one) => one.up);
    const node = up[this.#rng.below(up.length)];
    if (!node) return;
    const kind = this.#rng.below(3) === 0 ? "test/bad" : "test/good";
    this.#step(node, {
      type: "submit",
      nowMs: this.nowMs,
      submits: [{
        id: i + 1,
        class: this.#rng.below(4) === 0 ? "standard" : "critical",
        lane: "a",
        priority: 1,
        operation: { kind, body: utf8(`${i}`) },
      }],
    });
  }

  #crash(): void {
    const node = [...this.#nodes.values()][this.#rng.below(this.#nodes.size)]!;
    if (!node.up) return;
    this.#count("crashes");
    node.up = false;
    node.epoch++;
    this.#agenda.add(this.nowMs + 1 + this.#rng.below(1_000), () => {
      node.up = true;
      node.core = this.#core(node.voter);
      // Through the codec of the messages at least: what is stored is what was said.
      this.#step(node, { type: "start", nowMs: this.nowMs, stored: [...node.disk.values()], number: node.number });
    });
  }

  #step(node: Node, event: ConsensusEvent): void {
    if (!node.up) return;
    this.#carryOut(node, node.core.step(event));
  }

  #carryOut(node: Node, effects: readonly ConsensusEffect[]): void {
    const epoch = node.epoch;
    for (const effect of effects) {
      this.#note(node, effect);
      switch (effect.type) {
        case "persist": {
          const write = () => {
            if (node.epoch !== epoch) return;
            for (const one of effect.put) node.disk.set(toHex(one.instance), one);
            for (const one of effect.remove) node.disk.delete(toHex(one));
            node.number = effect.number ?? node.number;
            this.#carryOut(node, effect.then);
            this.#step(node, { type: "persisted", nowMs: this.nowMs, seq: effect.seq });
          };
          // A slow disk keeps its order: all writes take the same time.
          this.#agenda.add(this.nowMs + 1, write);
          break;
        }
        case "send":
          this.#send(node, effect.to, effect.message);
          break;
        case "verify": {
          const vote = bitmapOf(effect.operations.map((one) => isAcceptable(one) !== (node.lie === "wrong")));
          this.#agenda.add(this.nowMs + 1 + this.#rng.below(3), () => {
            if (node.epoch !== epoch) return;
            this.#step(node, { type: "verified", nowMs: this.nowMs, instance: effect.instance, vote });
          });
          break;
        }
        case "decided":
          this.#onDecided(node, effect);
          break;
        case "failed":
          if (!node.lie && this.#options.giveUpMs === undefined) {
            assert.fail(`${node.voter.id} gave up: ${effect.reason}`);
          }
          break;
        case "evidence": {
          if (node.lie) break;
          const read = readEvidence(decodeCbor(encodeCbor(evidenceValue(effect.evidence))), "$");
          const verdict = verifyEvidence(read, this.#table, NETWORK);
          assert.ok(verdict.ok, `evidence ${read.type} of an honest node does not check`);
          const against = this.#convicted.get(verdict.voter) ?? new Set();
          this.#convicted.set(verdict.voter, against.add(`${verdict.fault} ${read.type}`));
          this.#count(`evidence ${read.type}`);
          break;
        }
        case "wakeAt": {
          node.wakeMs = effect.atMs;
          this.#agenda.add(effect.atMs, () => {
            if (node.epoch === epoch && node.wakeMs === effect.atMs) {
              this.#step(node, { type: "wake", nowMs: this.nowMs });
            }
          });
          break;
        }
        case "drop":
          this.#count(`drop ${effect.reason}`);
          break;
      }
    }
  }

  #onDecided(node: Node, effect: Extract<ConsensusEffect, { readonly type: "decided" }>): void {
    const { certificate } = effect;
    const name = toHex(effect.instance);
    const verdict = verifyCertificate(certificate, this.#table, NETWORK);
    assert.ok(verdict.ok && 3 * verdict.seats > 2 * verdict.of, "SAFETY: a certificate without two thirds");
    const before = this.#decided.get(name);
    if (!node.lie) {
      if (before) {
        assert.ok(
          equalBytes(before.certificate.outcome, certificate.outcome) &&
            equalBytes(before.certificate.beacon, certificate.beacon),
          "SAFETY: two certificates that contradict each other",
        );
      } else {
        this.#decided.set(name, { certificate, at: new Set() });
        this.#count("decided");
        this.#count(`decided in round ${Math.min(certificate.round, 3)}${certificate.round > 3 ? "+" : ""}`);
      }
      this.#decided.get(name)!.at.add(node.voter.id);
      effect.operations?.forEach((one, i) => {
        if (this.#options.liars === undefined) {
          assert.equal(bitOf(certificate.outcome, i), isAcceptable(one), "VALIDITY: the honest voted otherwise");
        }
      });
    }
  }

  #send(node: Node, to: string, message: ConsensusMessage): void {
    if (message.type === "propose" && !node.lie) {
      const name = toHex(instanceId(message.proposal.header, NETWORK));
      if (!this.#wanted.has(name) && message.proposal.header.proposer === node.voter.id) {
        this.#wanted.set(name, message.proposal);
        this.#count(`proposed ${message.proposal.header.class}`);
      }
    }
    if (this.#heard.length < 200) this.#heard.push(message);
    const said = node.lie ? this.#lie(node, node.lie, to, message) : [message];
    for (const one of said) {
      if (this.#faults && this.#rng.below(100) < this.#lossPercent) {
        this.#count("lost");
        continue;
      }
      const wire = encodeMessage(one);
      const times = this.#faults && this.#rng.below(50) === 0 ? 2 : 1;
      for (let i = 0; i < times; i++) {
        this.#agenda.add(this.nowMs + 1 + this.#rng.below(this.#delayMs), () => {
          const receiver = this.#nodes.get(to);
          if (!receiver?.up) return;
          this.#step(receiver, {
            type: "message",
            nowMs: this.nowMs,
            from: node.voter.id,
            message: decodeMessage(wire),
          });
        });
      }
    }
  }

  /** What a liar sends in place of a message. */
  #lie(node: Node, lie: Lie, to: string, message: ConsensusMessage): readonly ConsensusMessage[] {
    const half = [...this.#nodes.keys()].indexOf(to) % 2 === 0;
    switch (lie) {
      case "silent":
        return [];
      case "wrong":
        return [message];
      case "withhold":
        return message.type === "open" || message.type === "share" ? [] : [message];
      case "bad-shares": {
        if (message.type === "open" || message.type === "share") return [];
        const other = message.type === "commit" && this.#dealAgain(node, to, message, true);
        return [other || message];
      }
      case "equivocate": {
        if (message.type === "commit") return [half ? message : this.#dealAgain(node, to, message, false) ?? message];
        const sign = (statement: Parameters<typeof signStatement>[0]) =>
          signStatement(statement, NETWORK, node.voter.key);
        if (message.type === "freeze-vote") {
          const value = message.value.map((byte) => byte ^ 1);
          const { instance, round } = message;
          return [message, { ...message, value, signature: sign({ type: "freeze", instance, round, value }) }];
        }
        if (message.type === "precommit") {
          const outcome = message.outcome.map((byte) => byte ^ 1);
          const { instance, round, value, beacon } = message;
          const signature = sign({ type: "precommit", instance, round, value, outcome, beacon });
          return [message, { ...message, outcome, signature }];
        }
        return [message];
      }
      case "copy": {
        if (message.type !== "commit") return [message];
        const victim = this.#heard.find((one) =>
          one.type === "commit" && equalBytes(one.instance, message.instance) &&
          one.commitment.voter !== message.commitment.voter
        );
        if (victim?.type !== "commit") return [message];
        const statement = { ...message.commitment.statement, commitment: victim.commitment.statement.commitment };
        const { sealed, shareHashes } = victim.commitment.statement;
        const copied = { ...statement, sealed, shareHashes };
        const signature = signStatement(copied, NETWORK, node.voter.key);
        return [{ ...message, commitment: { voter: message.commitment.voter, statement: copied, signature } }];
      }
      case "replay":
        // Not each time: two liars that answer each other would never end.
        return this.#rng.below(4) > 0 ? [message] : [message, this.#heard[this.#rng.below(this.#heard.length)]!];
      case "censor": {
        if (message.type === "freeze-request" && !message.carried) {
          if (this.#rng.below(3) === 0) return [];
          const entries = message.set.entries.filter((_, i) => i !== (half ? 0 : message.set.entries.length - 1));
          return [{ ...message, set: { ...message.set, entries } }];
        }
        return message.type === "frozen" || message.type === "decided" ? half ? [message] : [] : [message];
      }
    }
  }

  /** Another commitment of the same voter in the same place; with shares of no polynomial where asked for. */
  #dealAgain(
    node: Node,
    to: string,
    message: Extract<ConsensusMessage, { readonly type: "commit" }>,
    badShares: boolean,
  ): ConsensusMessage | undefined {
    const { statement, voter } = message.commitment;
    const header = [...this.#wanted.values()].find((one) =>
      equalBytes(instanceId(one.header, NETWORK), message.instance)
    )
      ?.header;
    const voters = header && electorate(header, this.#table, NETWORK);
    if (!header || !voters || voters.voters[voter]?.id !== node.voter.id) return undefined;
    const place = { networkId: NETWORK, instance: message.instance, round: statement.round, voter, electorate: voters };
    const vote = bitmapOf(Array.from({ length: header.count }, () => false));
    const dealing = dealCommitment(place, vote, hmacSha256(node.voter.key.seed, utf8("other")));
    const receiver = voters.voters.findIndex((one) => one.id === to);
    // The commitment of one nonce with the shares of another one.
    const lie = badShares
      ? { ...dealing.statement, commitment: statement.commitment, sealed: statement.sealed }
      : dealing.statement;
    return {
      ...message,
      commitment: { voter, statement: lie, signature: signStatement(lie, NETWORK, node.voter.key) },
      shares: dealing.shares[receiver],
    };
  }

  /** Liveness faults may hit the honest; faults of safety and wrong votes never. */
  #checkEvidence(): void {
    if (this.#options.liars !== undefined) return;
    for (const [id, what] of this.#convicted) {
      if (this.#nodes.get(id)!.lie) continue;
      for (const one of what) assert.ok(one.startsWith("liveness"), `an honest node is convicted: ${id} ${one}`);
    }
  }

  #note(node: Node, effect: ConsensusEffect): void {
    const what = effect.type === "send"
      ? `${effect.to} ${effect.message.type}`
      : effect.type === "decided"
      ? `${short(effect.instance)} round ${effect.certificate.round}`
      : effect.type === "drop"
      ? `${effect.from} ${effect.reason}`
      : "";
    if (effect.type === "persist" || effect.type === "wakeAt") return;
    const line = `${this.nowMs} ${node.voter.id} ${effect.type} ${what}`;
    for (let i = 0; i < line.length; i++) this.#hash = Math.imul(this.#hash ^ line.charCodeAt(i), 0x01000193);
    this.#lines.push(line);
    if (this.#lines.length > 400) this.#lines.splice(0, 200);
  }

  #count(what: string): void {
    this.#counts.set(what, (this.#counts.get(what) ?? 0) + 1);
  }
}
