/**
 * How requests about trust read.
 *
 * @module
 */

import { array, bool, dictionary, optional, type Reader, record, text, uint } from "../core/codec.ts";
import { TRUST_ACTIONS, VOUCHED_MAX } from "../trust/policy.ts";
import { SCORE_MAX } from "../trust/score.ts";
import type { TrustRequest } from "./trust_console.ts";

const node = text(128);

/** Readers of the verbs. */
export const TRUST_READERS: { readonly [V in TrustRequest["verb"]]: Reader<unknown> } = {
  "trust-list": record({}),
  "trust-show": record({ node }),
  "trust-policy-show": record({}),
  "trust-policy-set": record({
    min: dictionary(uint(SCORE_MAX), TRUST_ACTIONS.length),
    vouched: array(node, VOUCHED_MAX),
    classes: dictionary(text(16), 32),
    dryRun: optional(bool),
    prepare: optional(bool),
  }),
  "evidence-list": record({}),
  "evidence-verify": record({ hash: optional(text(32, /^[0-9a-f]{4,32}$/)) }),
};
