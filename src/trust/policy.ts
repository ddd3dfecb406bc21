/**
 * Trust policy: how much trust an action asks for, and the one function that says who may.
 *
 * @module
 */

import {
  array,
  type CborValue,
  decodeAs,
  dictionary,
  encodeCbor,
  oneOf,
  record,
  text,
  uint,
  WireError,
} from "../core/codec.ts";
import { readNodeId } from "../core/ids.ts";
import { NEUTRAL_PPM, SCORE_MAX } from "./score.ts";

/** What trust is asked for. */
export type TrustAction =
  /** A seat in the electorate. */
  | "vote"
  /** A vote in the Primary Spore, and leading it. */
  | "lead"
  /** Its records are used before they are confirmed. */
  | "record"
  /** Its seeds are read, it publishes for the network. */
  | "seed"
  /** It relays for others. */
  | "relay"
  | "storage/standard"
  | "storage/sensitive"
  | "place/standard"
  | "place/trusted";

/** What an action asks for, and of which score. */
interface ActionRule {
  readonly minPpm: number;
  /** Highest threshold that a policy may set: where a newcomer has to be able to get in, not above neutral. */
  readonly minPpmMax: number;
  /** `agreed`: the same on every node. `lower`: the lower of the agreed score and what this node has seen. */
  readonly basis: "agreed" | "lower";
}

const RULES: Readonly<Record<TrustAction, ActionRule>> = {
  "vote": { minPpm: 300_000, minPpmMax: NEUTRAL_PPM, basis: "agreed" },
  // Not above what being slow or away costs: three honest primaries, one on a bad line, would be one without a spare.
  "lead": { minPpm: 300_000, minPpmMax: NEUTRAL_PPM, basis: "agreed" },
  "record": { minPpm: 200_000, minPpmMax: 400_000, basis: "lower" },
  "seed": { minPpm: 300_000, minPpmMax: NEUTRAL_PPM, basis: "lower" },
  "relay": { minPpm: 200_000, minPpmMax: 900_000, basis: "lower" },
  "storage/standard": { minPpm: 300_000, minPpmMax: 900_000, basis: "agreed" },
  "storage/sensitive": { minPpm: 600_000, minPpmMax: 900_000, basis: "agreed" },
  "place/standard": { minPpm: 200_000, minPpmMax: 900_000, basis: "agreed" },
  "place/trusted": { minPpm: 600_000, minPpmMax: 900_000, basis: "agreed" },
};

/** All actions. */
export const TRUST_ACTIONS: readonly TrustAction[] = Object.keys(RULES) as TrustAction[];

/** The policy of a network, as the record `agreed/policy` says it. */
export interface TrustPolicy {
  /** Least score for actions, ppm; what is missing is as built in. */
  readonly min: ReadonlyMap<TrustAction, number>;
  /** Nodes whose tenure counts from their first vote, because the network said so. */
  readonly vouched: readonly string[];
  /** The least class of agreement for keys with a prefix: raises what is built in, never lowers it. */
  readonly classes: readonly { readonly prefix: string; readonly class: PolicyClass }[];
}

/** Classes of agreement that a policy can ask for. */
export type PolicyClass = "standard" | "critical";

/** Nodes that a network vouches for at once: those of a person who rebuilds it. */
export const VOUCHED_MAX = 16;

/** What counts where no policy was agreed. */
export const DEFAULT_POLICY: TrustPolicy = { min: new Map(), vouched: [], classes: [] };

/** What one node knows of another where trust is asked for. */
export interface Standing {
  readonly agreedPpm: number;
  readonly localPpm: number;
  /** By an agreed update, or by a proof that this node has checked itself: for good, whatever the scores say. */
  readonly banned: boolean;
}

/** Whether a node may do something, and why not. */
export type TrustVerdict =
  | { readonly ok: true; readonly ppm: number; readonly minPpm: number }
  | { readonly ok: false; readonly reason: "banned" | "below"; readonly ppm: number; readonly minPpm: number };

/** Whether a node may do something. The only place where trust is enforced. */
export function may(standing: Standing, action: TrustAction, policy: TrustPolicy): TrustVerdict {
  const minPpm = thresholdOf(action, policy);
  const { agreedPpm, localPpm } = standing;
  const ppm = standing.banned ? 0 : RULES[action].basis === "agreed" ? agreedPpm : Math.min(agreedPpm, localPpm);
  if (standing.banned) return { ok: false, reason: "banned", ppm, minPpm };
  return ppm >= minPpm ? { ok: true, ppm, minPpm } : { ok: false, reason: "below", ppm, minPpm };
}

/** The least score for an action, ppm. */
export function thresholdOf(action: TrustAction, policy: TrustPolicy): number {
  return policy.min.get(action) ?? RULES[action].minPpm;
}

/** The highest threshold that a policy may set for an action, ppm. */
export function thresholdMaxOf(action: TrustAction): number {
  return RULES[action].minPpmMax;
}

const readParts = record({
  m: dictionary(uint(SCORE_MAX), TRUST_ACTIONS.length),
  v: array(readNodeId, VOUCHED_MAX),
  c: array((value, path) => {
    const [prefix, level] = array((one) => one, 2)(value, path);
    return {
      prefix: text(128, /^(net|app|agreed)\/[A-Za-z0-9._/-]*$/)(prefix, `${path}.prefix`),
      class: oneOf<PolicyClass>(["standard", "critical"])(level, `${path}.class`),
    };
  }, 32),
});

/** The value of the record `agreed/policy`. */
export function encodePolicy(policy: TrustPolicy): Uint8Array {
  const value: CborValue = {
    m: Object.fromEntries(policy.min),
    v: policy.vouched,
    c: policy.classes.map((one) => [one.prefix, one.class]),
  };
  return encodeCbor(value);
}

/** Reads the value of the record; thresholds are within what each action allows. @throws {WireError} */
export function decodePolicy(value: Uint8Array): TrustPolicy {
  const { m, v, c } = decodeAs(value, readParts);
  const min = new Map<TrustAction, number>();
  for (const [name, ppm] of m) {
    const action = TRUST_ACTIONS.find((one) => one === name);
    if (!action) {
      throw new WireError(`Cannot read policy: no action "${name}", wanted one of ${TRUST_ACTIONS.join(", ")}`);
    }
    const max = thresholdMaxOf(action);
    if (ppm > max) throw new WireError(`Cannot read policy: ${action} asks for ${ppm}, at most ${max} is allowed`);
    min.set(action, ppm);
  }
  return { min, vouched: [...new Set(v)].sort(), classes: c };
}
