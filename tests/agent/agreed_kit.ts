/** A network of voters that really decide, and a log that their decisions go into. @module */

import assert from "node:assert/strict";
import { equalBytes, utf8 } from "../../src/core/bytes.ts";
import { type KeyPair, keyPairFromSeed, sha256 } from "../../src/core/crypto.ts";
import type { Envelope } from "../../src/core/envelope.ts";
import { nodeIdOf } from "../../src/core/ids.ts";
import {
  type Electorate,
  ELECTORATE_KEY,
  encodeElectorate,
  encodeRecordPut,
  nextSeed,
  RECORD_PUT,
  sealEmergency,
} from "../../src/agent/agreed.ts";
import { NetworkLaw, type Root } from "../../src/agent/agreed_law.ts";
import { encodeDecision } from "../../src/agent/agreement_store.ts";
import type { Decision } from "../../src/agent/certified.ts";
import { Consensus } from "../../src/consensus/consensus.ts";
import type { ConsensusEffect, ConsensusEvent } from "../../src/consensus/effects.ts";
import { bitmapOf, type Operation, type OperationClass } from "../../src/consensus/statements.ts";
import { freezeTable, tableHash, type WeightTable } from "../../src/consensus/weights.ts";
import { RECORD_LIFE_MS_MAX, sealSpore, type Spore } from "../../src/spore/record.ts";
import { type CommandResult, encodeCommand, StateMachine } from "../../src/spore/state_machine.ts";

export const NETWORK = sha256(utf8("agreed tests"));
export const T0 = 1_767_225_600_000;

/** Key number `n`, always the same. */
export function keyOf(n: number): KeyPair {
  return keyPairFromSeed(sha256(utf8(`agreed key ${n}`)));
}

/** The operator's key. */
export const OPERATOR = keyOf(1_000);

/** What is known of the network before anything: key 1 founded it. */
export const ROOT: Root = { networkId: NETWORK, founder: keyOf(1).publicKey, operators: [OPERATOR.publicKey] };

/** What a decision is made with. */
export interface DecideOptions {
  readonly class?: OperationClass;
  readonly nowMs?: number;
  /** Key of the proposer. */
  readonly by?: number;
  /** Operations that the voters refuse. */
  readonly refuses?: (operation: Operation) => boolean;
  readonly committee?: number;
  readonly lifeMs?: number;
}

/** Has operations decided by the voters of a table: their cores run, on a network that loses nothing. */
export function decide(table: WeightTable, operations: readonly Operation[], options: DecideOptions = {}): Decision & {
  readonly operations: readonly Operation[];
} {
  const { nowMs = T0, by = 1, refuses = () => false, committee = 16, lifeMs = 5 * 60_000 } = options;
  const keys = new Map(Array.from({ length: 60 }, (_, i) => keyOf(i + 1)).map((key) => [nodeIdOf(key.publicKey), key]));
  const cores = new Map(table.voters.map(({ id }) => {
    const key = keys.get(id)!;
    const core = new Consensus({ networkId: NETWORK, id, key, table, options: { committeeSize: committee, lifeMs } });
    return [id, core] as const;
  }));
  const queue: { readonly to: string; readonly event: ConsensusEvent }[] = [];
  const decided: Extract<ConsensusEffect, { readonly type: "decided" }>[] = [];
  const carryOut = (id: string, effects: readonly ConsensusEffect[]) => {
    for (const effect of effects) {
      if (effect.type === "persist") {
        carryOut(id, effect.then);
        queue.push({ to: id, event: { type: "persisted", nowMs, seq: effect.seq } });
      } else if (effect.type === "send" && cores.has(effect.to)) {
        queue.push({ to: effect.to, event: { type: "message", nowMs, from: id, message: effect.message } });
      } else if (effect.type === "verify") {
        const vote = bitmapOf(effect.operations.map((one) => !refuses(one)));
        queue.push({ to: id, event: { type: "verified", nowMs, instance: effect.instance, vote } });
      } else if (effect.type === "decided") decided.push(effect);
    }
  };
  for (const [id, core] of cores) carryOut(id, core.step({ type: "start", nowMs, stored: [], number: NUMBERS++ }));
  const proposer = nodeIdOf(keyOf(by).publicKey);
  const submits = operations.map((operation, i) => ({
    id: i + 1,
    class: options.class ?? "critical" as const,
    lane: "a",
    priority: 1,
    operation,
  }));
  carryOut(proposer, cores.get(proposer)!.step({ type: "submit", nowMs, submits }));
  for (let next = queue.shift(); next; next = queue.shift()) carryOut(next.to, cores.get(next.to)!.step(next.event));
  const found = decided.find((one) => one.operations !== undefined);
  assert.ok(found?.operations, "nothing was decided");
  return { certificate: found.certificate, operations: found.operations };
}

let NUMBERS = 1;

/** A record, signed by key `by`. */
export function record(key: string, value: string | Uint8Array | undefined, options: {
  readonly by?: number;
  readonly issuedMs?: number;
  readonly seq?: number;
} = {}): Spore {
  const { by = 1, issuedMs = T0, seq = issuedMs } = options;
  const bytes = typeof value === "string" ? utf8(value) : value;
  return sealSpore(
    { key, seq, value: bytes, issuedMs, expiresMs: issuedMs + RECORD_LIFE_MS_MAX },
    NETWORK,
    keyOf(by),
  );
}

/** The operation that writes a record over another one. */
export function put(spore: Spore, over?: Spore, basis?: Spore): Operation {
  const none = new Uint8Array(0);
  const body = encodeRecordPut({
    envelope: spore.envelope,
    replaces: over?.hash ?? none,
    basis: basis?.hash ?? none,
    proofs: [],
  });
  return { kind: RECORD_PUT, body };
}

/** A state with its law, and the log that led there. */
export class Log {
  readonly law = new NetworkLaw(ROOT);
  readonly machine = new StateMachine(NETWORK, this.law);
  readonly entries: { readonly index: number; readonly term: number; readonly data: Uint8Array }[] = [];
  timeMs = T0;

  constructor() {
    this.raw(encodeCommand({ op: "issuers", timeMs: T0, epoch: 1, issuers: [nodeIdOf(keyOf(1).publicKey)] }));
  }

  /** What a leader puts into the log, whatever it is. */
  raw(data: Uint8Array): CommandResult {
    const entry = { index: this.machine.index + 1, term: 1, data };
    this.entries.push(entry);
    return this.machine.apply(entry).result;
  }

  decided(decision: Decision): CommandResult {
    return this.raw(encodeCommand({ op: "decided", timeMs: this.timeMs, decision: encodeDecision(decision) }));
  }

  /** Who votes, as the state has it. */
  get table(): WeightTable {
    return this.law.standing(this.machine.agreed.electorate).table;
  }

  get(key: string): Spore | undefined {
    return this.machine.get(key)?.spore;
  }

  /** The record of the electorate of these keys that follows the present one. */
  electorate(
    voters: readonly number[],
    options: { readonly by?: number; readonly over?: Partial<Electorate["table"]> } = {},
  ): Spore {
    return electorateRecord(this.law, this.machine.agreed.electorate, voters, { ...options, issuedMs: this.timeMs });
  }

  /** Has the voters elect others. */
  elect(voters: readonly number[], by = 1): CommandResult {
    const spore = this.electorate(voters, { by });
    return this.decided(decide(this.table, [put(spore, this.get(ELECTORATE_KEY))], { nowMs: this.timeMs, by }));
  }
}

/** The record of an electorate that follows one. */
export function electorateRecord(law: NetworkLaw, standing: Uint8Array, voters: readonly number[], options: {
  readonly by?: number;
  readonly issuedMs?: number;
  readonly over?: Partial<Electorate["table"]>;
} = {}): Spore {
  const { table, seeds } = law.standing(standing);
  const next = {
    ...freezeTable({
      epoch: table.epoch + 1,
      seed: nextSeed(table, NETWORK, seeds),
      weights: voters.map((n) => ({
        id: nodeIdOf(keyOf(n).publicKey),
        publicKey: keyOf(n).publicKey,
        weightPpm: 1_000,
      })),
    }),
    ...options.over,
  };
  const value = encodeElectorate({
    table: next,
    previous: tableHash(table, NETWORK),
    sinceMs: next.voters.map(() => T0),
  });
  return record(ELECTORATE_KEY, value, { by: options.by ?? 1, issuedMs: options.issuedMs ?? T0 });
}

/** An operator's statement for an electorate. */
export function emergency(law: NetworkLaw, standing: Uint8Array, spore: Spore, signer: KeyPair = OPERATOR): {
  readonly statement: Envelope;
  readonly record: Envelope;
} {
  const supersedes = tableHash(law.standing(standing).table, NETWORK);
  const said = { record: spore.hash, supersedes, reason: "half of us is gone", issuedMs: T0 };
  return { statement: sealEmergency(said, NETWORK, signer), record: spore.envelope };
}

/** Whether two states are one, down to the bytes of their snapshots. */
export function same(a: StateMachine, b: StateMachine): boolean {
  return equalBytes(a.snapshot(), b.snapshot());
}
