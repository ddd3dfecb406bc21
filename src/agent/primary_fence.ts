/**
 * Replicas that a recovery gave up: they are no members whatever they believe, and are told so.
 *
 * @module
 */

import { type CborValue, record, WireError } from "../core/codec.ts";
import { type Envelope, envelopeValue, readEnvelope } from "../core/envelope.ts";
import type { Recovery, StateMachine } from "../spore/state_machine.ts";
import type { Context } from "./context.ts";
import { openRecovery, type RecoveryStatement } from "./primary_recovery.ts";

/** Least time between two tellings, and the time for one. */
const TELL_MS = 2_000;

const readFence = record({ v: readEnvelope });

/** Tells given-up replicas from those of the group. */
export class PrimaryFence {
  readonly #ctx: Context;
  readonly #state: () => StateMachine | undefined;
  readonly #told: (nodeId: string) => void;
  /** When those that were given up were told so last, by replica. */
  readonly #toldMs = new Map<string, number>();
  /** Replicas that statements of the log give up. */
  readonly #statements = new WeakMap<Envelope, readonly string[]>();

  /**
   * @param state Replicated state of this node, if it runs a replica.
   * @param told Called when a node has answered: it runs another replica now.
   */
  constructor(ctx: Context, state: () => StateMachine | undefined, told: (nodeId: string) => void) {
    this.#ctx = ctx;
    this.#state = state;
    this.#told = told;
  }

  clear(): void {
    this.#toldMs.clear();
  }

  /** Tells a replica that was given up so. Returns whether it is one. */
  fence(nodeId: string, replica: string): boolean {
    const ctx = this.#ctx;
    const given = this.isGivenUp(replica);
    if (!given) return false;
    if (ctx.nowMs - (this.#toldMs.get(replica) ?? -Infinity) >= TELL_MS) {
      this.#toldMs.set(replica, ctx.nowMs);
      ctx.call(nodeId, "primary.fence", { v: envelopeValue(given.statement) }, TELL_MS, (result) => {
        if (result.ok) this.#told(nodeId);
      });
    }
    return true;
  }

  /** The recovery that gave a replica up. */
  isGivenUp(replica: string): Recovery | undefined {
    return this.#state()?.recoveries.findLast((one) => this.#givenUp(one.statement).includes(replica));
  }

  /** Reads the body of `primary.fence`. @throws {WireError} Where no operator signed it. */
  read(body: CborValue): RecoveryStatement {
    return this.#open(readFence(body, "primary.fence").v);
  }

  #givenUp(statement: Envelope): readonly string[] {
    const known = this.#statements.get(statement);
    if (known) return known;
    let without: readonly string[] = [];
    try {
      without = this.#open(statement).without;
    } catch (error) {
      // In the log stands what a leader put there: what no operator signed says nothing.
      if (!(error instanceof WireError)) throw error;
    }
    this.#statements.set(statement, without);
    return without;
  }

  #open(statement: Envelope): RecoveryStatement {
    const { networkId, network } = this.#ctx.state;
    const { genesisKey, operatorKey } = network!.genesis!.record;
    return openRecovery(statement, networkId, [genesisKey, operatorKey]);
  }
}
