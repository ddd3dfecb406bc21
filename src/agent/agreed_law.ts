/**
 * The law of the network: certificates, electorates and warrants, as the replicated state and every verifier read them.
 *
 * A *decision* is what goes into the log: a certificate with all its operations, or an operator's statement with the
 * record of the new electorate. A *warrant* is what is kept of it for one record: the certificate, that operation, and
 * the digests of the others. Electorates follow each other by warrants, from the founder alone: a *chain*.
 *
 * @module
 */

import { equalBytes, toHex } from "../core/bytes.ts";
import { bytes, decodeAs, encodeCbor, record, WireError } from "../core/codec.ts";
import { hashParts, sha256 } from "../core/crypto.ts";
import { type Envelope, envelopeHash } from "../core/envelope.ts";
import { type Certificate, verifyCertificate } from "../consensus/certificate.ts";
import { COMMITTEE_MIN } from "../consensus/sizing.ts";
import { bitOf, type Header, instanceId, OPERATION_CLASSES, type OperationClass } from "../consensus/statements.ts";
import { readTable, tableHash, tableValue, type WeightTable } from "../consensus/weights.ts";
import type { DecisionName, Judged, Judgement, Law, LawRefusal } from "../spore/law.ts";
import { openSpore, RECORD_LIFE_MS_MAX, type Spore } from "../spore/record.ts";
import { decodePolicy } from "../trust/policy.ts";
import {
  decodeElectorate,
  decodeRecordPut,
  ELECTORATE_KEY,
  emergencyHash,
  genesisTable,
  nextSeed,
  openEmergency,
  RECORD_PUT,
  requiredClass,
} from "./agreed.ts";
import { decodeDecision, decodeProof, encodeProof, proofsOf } from "./agreement_store.ts";
import type { Decision } from "./certified.ts";

/** What anybody knows who knows the network: the root of all that is verified. */
export interface Root {
  readonly networkId: Uint8Array;
  /** Key of the first issuer, 32 bytes: the electorate before any was decided. */
  readonly founder: Uint8Array;
  /** Operator's and genesis key: may put an electorate in the place of one whose quorum is lost. */
  readonly operators: readonly Uint8Array[];
}

/** Rank of an operator's statement: above all classes. */
export const OPERATOR_RANK: number = OPERATION_CLASSES.length;

/** Who votes, with what seeds the table after it. */
export interface Standing {
  readonly table: WeightTable;
  /** See `nextSeed`. */
  readonly seeds: Uint8Array;
}

/** Class of a rank; the operator's has none. */
export function classOf(rank: number): OperationClass | "operator" {
  return OPERATION_CLASSES[rank] ?? "operator";
}

/** Classes that a policy asks for by the beginning of the key, longest first. A policy that does not read asks for nothing. */
export function policyClasses(policy: Uint8Array | undefined): readonly (readonly [string, OperationClass])[] {
  const read = policy && attempt(() => decodePolicy(policy));
  if (!read) return [];
  return read.classes.map((one) => [one.prefix, one.class] as const).sort(([x], [y]) => y.length - x.length);
}

const VERDICTS_MAX = 64;

/** Implements the {@linkcode Law} for one network. */
export class NetworkLaw implements Law {
  readonly genesis: Uint8Array;
  readonly root: Root;
  /** What the leader judged before it proposed it, and what restoring follows again. */
  readonly #judged = new Map<string, Judgement>();
  #standing: { readonly bytes: Uint8Array; readonly standing: Standing } | undefined;
  #policy: { readonly bytes: Uint8Array; readonly classes: ReturnType<typeof policyClasses> } | undefined;

  constructor(root: Root) {
    this.root = root;
    this.genesis = encodeStanding({ table: genesisTable(root.networkId, root.founder), seeds: new Uint8Array(0) });
  }

  /** Who votes, from the electorate of a state. */
  standing(electorate: Uint8Array): Standing {
    if (this.#standing && equalBytes(this.#standing.bytes, electorate)) return this.#standing.standing;
    const standing = decodeStanding(electorate);
    this.#standing = { bytes: electorate, standing };
    return standing;
  }

  nameOf(input: Uint8Array): DecisionName | undefined {
    const decision = attempt(() => decodeDecision(input));
    if (!decision) return undefined;
    if ("certificate" in decision) {
      const { header } = decision.certificate;
      const instance = toHex(instanceId(header, this.root.networkId));
      return { instance, proposer: header.proposer, expiresMs: header.expiresMs };
    }
    const said = attempt(() => openEmergency(decision.statement, this.root.networkId));
    if (!said) return undefined;
    const instance = toHex(emergencyHash(decision.statement));
    return { instance, proposer: "", expiresMs: said.issuedMs + RECORD_LIFE_MS_MAX };
  }

  judge(input: Uint8Array, electorate: Uint8Array): Judgement {
    // Certificates hold or do not, whenever they are asked about: both are worth remembering, by all that they rest on.
    const name = toHex(hashParts("judged", sha256(input), electorate));
    const known = this.#judged.get(name);
    if (known) return known;
    const decision = attempt(() => decodeDecision(input));
    const judgement = decision ? this.#judge(decision, this.standing(electorate)) : refusal("malformed");
    if (this.#judged.size >= VERDICTS_MAX) this.#judged.delete(this.#judged.keys().next().value!);
    this.#judged.set(name, judgement);
    return judgement;
  }

  #judge(decision: Decision, { table }: Standing): Judgement {
    if ("statement" in decision) {
      const fault = this.#statementFault(decision, table);
      if (fault) return refusal(fault);
      const put = { envelope: decision.record, basis: new Uint8Array(0) };
      return { ok: true, rank: OPERATOR_RANK, operations: [{ accepted: true, put, warrant: encodeProof(decision) }] };
    }
    const { certificate, operations } = decision;
    const { header } = certificate;
    const fault = this.#certificateFault(certificate, table);
    if (fault) return refusal(fault);
    return {
      ok: true,
      rank: OPERATION_CLASSES.indexOf(header.class),
      operations: proofsOf(certificate, operations).map((proof, at): Judged => {
        const { operation } = proof;
        const read = operation.kind === RECORD_PUT ? attempt(() => decodeRecordPut(operation.body)) : undefined;
        return {
          accepted: bitOf(certificate.outcome, at),
          ...(read ? { put: { envelope: read.envelope, replaces: read.replaces, basis: read.basis } } : {}),
          warrant: encodeProof(proof),
        };
      }),
    };
  }

  #certificateFault(certificate: Certificate, table: WeightTable): LawRefusal | undefined {
    if (isSmall(certificate.header, table)) return "class-too-low";
    const verdict = verifyCertificate(certificate, table, this.root.networkId);
    if (verdict.ok) return undefined;
    return verdict.reason === "foreign-table" || verdict.reason === "malformed" ? verdict.reason : "not-certified";
  }

  /** An operator's word stands in for a quorum that is lost; it is about the electorate and nothing else. */
  #statementFault(
    { statement, record }: { readonly statement: Envelope; readonly record: Envelope },
    table: WeightTable,
  ): LawRefusal | undefined {
    const { networkId, operators } = this.root;
    const said = attempt(() => openEmergency(statement, networkId));
    if (!said || !equalBytes(said.record, envelopeHash(record))) return "malformed";
    if (!operators.some((one) => equalBytes(one, statement.signer))) return "not-certified";
    if (attempt(() => openSpore(record, networkId))?.record.key !== ELECTORATE_KEY) return "class-too-low";
    return equalBytes(said.supersedes, tableHash(table, networkId)) ? undefined : "foreign-table";
  }

  rankOf(key: string, policy: Uint8Array | undefined): number | undefined {
    const least = requiredClass(key);
    if (least === undefined) return undefined;
    return Math.max(OPERATION_CLASSES.indexOf(least), this.#raised(key, policy) ?? 0);
  }

  needsDecision(key: string, policy: Uint8Array | undefined): boolean {
    return requiredClass(key) !== undefined && this.#raised(key, policy) !== undefined;
  }

  #raised(key: string, policy: Uint8Array | undefined): number | undefined {
    if (!policy) return undefined;
    if (!this.#policy || !equalBytes(this.#policy.bytes, policy)) {
      this.#policy = { bytes: policy, classes: policyClasses(policy) };
    }
    const found = this.#policy.classes.find(([prefix]) => key.startsWith(prefix));
    return found && OPERATION_CLASSES.indexOf(found[1]);
  }

  follow(electorate: Uint8Array, warrant: Uint8Array): Uint8Array | undefined {
    const { table, seeds } = this.standing(electorate);
    const shown = this.read(warrant, [electorate]);
    const { networkId } = this.root;
    if (!shown || shown.spore.record.key !== ELECTORATE_KEY || shown.spore.record.value === undefined) return undefined;
    if (shown.rank < OPERATION_CLASSES.indexOf("critical")) return undefined;
    const next = attempt(() => decodeElectorate(shown.spore.record.value!));
    const follows = next && next.table.epoch === table.epoch + 1 &&
      equalBytes(next.previous, tableHash(table, networkId)) &&
      equalBytes(next.table.seed, nextSeed(table, networkId, seeds));
    return follows ? encodeStanding({ table: next.table, seeds: shown.seeds }) : undefined;
  }

  shown(warrant: Uint8Array, electorates: readonly Uint8Array[]): Uint8Array | undefined {
    return this.read(warrant, electorates)?.spore.hash;
  }

  /** What a warrant shows, by whichever of these electorates it names; `undefined`: nothing. */
  read(warrant: Uint8Array, electorates: readonly Uint8Array[]): ShownRecord | undefined {
    const read = attempt(() => decodeProof(warrant));
    if (!read) return undefined;
    const { networkId } = this.root;
    if ("statement" in read) {
      for (const electorate of [...electorates].reverse()) {
        const { table } = this.standing(electorate);
        if (this.#statementFault(read, table)) continue;
        const spore = openSpore(read.record, networkId);
        return { spore, rank: OPERATOR_RANK, table, seeds: emergencyHash(read.statement) };
      }
      return undefined;
    }
    const { certificate, at, operation } = read;
    const { header } = certificate;
    if (!bitOf(certificate.outcome, at) || operation.kind !== RECORD_PUT) return undefined;
    const spore = attempt(() => openSpore(decodeRecordPut(operation.body).envelope, networkId));
    const rank = OPERATION_CLASSES.indexOf(header.class);
    if (!spore || rank < (this.rankOf(spore.record.key, undefined) ?? Infinity)) return undefined;
    for (const electorate of [...electorates].reverse()) {
      const { table } = this.standing(electorate);
      if (!equalBytes(tableHash(table, networkId), header.table)) continue;
      if (this.#certificateFault(certificate, table)) return undefined;
      return { spore, rank, table, seeds: certificate.beacon, certificate };
    }
    return undefined;
  }
}

/** What a warrant shows. */
export interface ShownRecord {
  readonly spore: Spore;
  readonly rank: number;
  /** The electorate that decided it. */
  readonly table: WeightTable;
  /** What seeds the table after the one that this record makes, if it makes one. */
  readonly seeds: Uint8Array;
  /** Missing for an operator's word. */
  readonly certificate?: Certificate;
}

/** A committee below the least size proves nothing, whatever its proposer wished for. */
function isSmall(header: Header, table: WeightTable): boolean {
  return header.class === "standard" && header.size < Math.min(COMMITTEE_MIN, table.voters.length);
}

function encodeStanding({ table, seeds }: Standing): Uint8Array {
  return encodeCbor({ t: tableValue(table), s: seeds });
}

const readStanding = record({ t: readTable, s: bytes({ max: 32 }) });

function decodeStanding(input: Uint8Array): Standing {
  const { t, s } = decodeAs(input, readStanding);
  return { table: t, seeds: s };
}

function refusal(code: LawRefusal): Judgement {
  return { ok: false, code };
}

function attempt<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof WireError)) throw error;
    return undefined;
  }
}

/** What {@linkcode verifyAgreedRecord} says. */
export type AgreedVerdict =
  | {
    readonly ok: true;
    /** The record, as its proposer signed it. */
    readonly spore: Spore;
    /** How much agreement it has: the class of the decision, or an operator's word. */
    readonly class: OperationClass | "operator";
    /** Number of the electorate that decided it; 0: the founder alone. */
    readonly epoch: number;
    /** Number of the newest electorate of the chain. */
    readonly newest: number;
    /** Seats that signed, of so many that could; both 0 for an operator's word. */
    readonly seats: number;
    readonly of: number;
  }
  | {
    readonly ok: false;
    readonly reason:
      /** An electorate does not follow from the one before it. */
      | "broken-chain"
      /** No electorate of the chain decided it, or the certificate does not hold. */
      | "not-agreed";
  };

/**
 * Verifies an agreed record with nothing but the root of the network: what a Hypha does. Costs a signature check for each
 * signer of each electorate of the chain, and of the record.
 *
 * It says that the record was agreed on, not that nothing newer was.
 *
 * @param links Warrants of all electorates, from the first.
 * @param warrant What is to show the record; for the electorate's the last link.
 */
export function verifyAgreedRecord(root: Root, links: readonly Uint8Array[], warrant: Uint8Array): AgreedVerdict {
  const law = new NetworkLaw(root);
  const electorates = [law.genesis];
  for (const link of links) {
    const next = attempt(() => law.follow(electorates.at(-1)!, link));
    if (!next) return { ok: false, reason: "broken-chain" };
    electorates.push(next);
  }
  const shown = attempt(() => law.read(warrant, electorates));
  if (!shown) return { ok: false, reason: "not-agreed" };
  const verdict = shown.certificate && verifyCertificate(shown.certificate, shown.table, root.networkId);
  return {
    ok: true,
    spore: shown.spore,
    class: classOf(shown.rank),
    epoch: shown.table.epoch,
    newest: links.length,
    seats: verdict?.ok ? verdict.seats : 0,
    of: verdict?.ok ? verdict.of : 0,
  };
}
