/**
 * Remote commands: a closed list of verbs, signed by an operator for one node, good once and for minutes.
 *
 * They need nothing but a channel and the genesis record, so that they work when nothing else does.
 *
 * @module
 */

import { bytes, type CborValue, decodeCbor, dictionary, oneOf, record, uint, WireError } from "../core/codec.ts";
import type { KeyPair } from "../core/crypto.ts";
import { type Envelope, envelopeValue, openEnvelope, readEnvelope, sealEnvelope } from "../core/envelope.ts";
import { equalBytes, toHex } from "../core/bytes.ts";
import { LIMITS } from "../core/limits.ts";

/** What can be asked of another node. */
export const COMMAND_VERBS = [
  "ping",
  "status",
  "doctor",
  "logs",
  "config-get",
  "config-try",
  "config-confirm",
  "config-revert",
  "drain",
  "undrain",
  "isolate",
  "rejoin",
  "safe-mode",
  "normal-mode",
  "revert",
  "restart",
  "leave",
] as const;

/** A verb of a remote command. */
export type CommandVerb = typeof COMMAND_VERBS[number];

/** A command as it was signed. */
export interface SignedCommand {
  readonly verb: CommandVerb;
  readonly args: ReadonlyMap<string, string>;
  /** Node key that it is for, 32 bytes. */
  readonly target: Uint8Array;
  readonly issuedMs: number;
  readonly expiresMs: number;
  /** 16 random bytes: the command counts once. */
  readonly nonce: Uint8Array;
}

/** Longest time for which a command may count. */
export const COMMAND_LIFETIME_MS_MAX = 5 * 60_000;

const TYPE = "command/1";

const readCommand = record({
  verb: oneOf(COMMAND_VERBS),
  args: dictionary((value, path) => {
    if (typeof value !== "string" || value.length > 12_000) throw new WireError(`Cannot read ${path}: wanted a text`);
    return value;
  }, 32),
  target: bytes({ length: 32 }),
  issued: uint(),
  expires: uint(),
  nonce: bytes({ length: 16 }),
});

/** Signs a command. */
export function sealCommand(command: SignedCommand, networkId: Uint8Array, operator: KeyPair): Envelope {
  const { verb, args, target, issuedMs, expiresMs, nonce } = command;
  return sealEnvelope(
    { verb, args: Object.fromEntries(args), target, issued: issuedMs, expires: expiresMs, nonce },
    { type: TYPE, networkId, signer: operator },
  );
}

/** Body of the RPC `exec`. */
export function commandBody(envelope: Envelope): CborValue {
  return { c: envelopeValue(envelope) };
}

/** Why a command is not carried out. Stable: these are metric labels. */
export type CommandRefusal =
  | "command-forged"
  | "command-not-operator"
  | "command-not-allowed"
  | "command-other-node"
  | "command-expired"
  | "command-replayed";

/** Checks commands and remembers those that were carried out. */
export class CommandGate {
  /** Nonces seen, with the time until which they must be remembered. */
  readonly #seen: Map<string, number>;

  /** @param seen Nonces that the store remembers. */
  constructor(seen: ReadonlyMap<string, number>) {
    this.#seen = new Map(seen);
  }

  /** Checks the body of an `exec` call. */
  check(
    body: Uint8Array,
    options: {
      readonly networkId: Uint8Array;
      /** Whether a key is an operator's at all; what he may is asked by who carries the command out. */
      readonly isOperator: (key: Uint8Array) => boolean;
      readonly nodeKey: Uint8Array;
      readonly nowMs: number;
    },
  ):
    | {
      readonly ok: true;
      readonly command: SignedCommand;
      /** Key that signed it, 32 bytes. */
      readonly signer: Uint8Array;
      readonly nonce: string;
      readonly expired: readonly string[];
    }
    | { readonly ok: false; readonly reason: CommandRefusal } {
    const { networkId, isOperator, nodeKey, nowMs } = options;
    const refuse = (reason: CommandRefusal) => ({ ok: false, reason }) as const;
    let command: SignedCommand;
    let signer: Uint8Array;
    try {
      const { c } = record({ c: readEnvelope })(decodeCbor(body), "exec");
      if (!isOperator(c.signer)) return refuse("command-not-operator");
      signer = c.signer;
      const read = openEnvelope(c, { type: TYPE, networkId, reader: readCommand });
      command = { ...read, issuedMs: read.issued, expiresMs: read.expires };
    } catch (error) {
      if (error instanceof WireError) return refuse("command-forged");
      throw error;
    }
    if (!equalBytes(command.target, nodeKey)) return refuse("command-other-node");
    if (command.expiresMs <= nowMs || command.expiresMs > nowMs + 2 * COMMAND_LIFETIME_MS_MAX) {
      return refuse("command-expired");
    }
    const expired = [...this.#seen].filter(([, untilMs]) => untilMs <= nowMs).map(([nonce]) => nonce);
    for (const nonce of expired) this.#seen.delete(nonce);
    const nonce = toHex(command.nonce);
    // Full means that hundreds of commands came within minutes: refusing is safer than forgetting one.
    if (this.#seen.has(nonce) || this.#seen.size >= LIMITS.challengesMax) return refuse("command-replayed");
    this.#seen.set(nonce, command.expiresMs);
    return { ok: true, command, signer, nonce, expired };
  }
}
