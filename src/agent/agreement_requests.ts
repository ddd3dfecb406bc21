/** What a person may ask of agreement, and its readers. @module */

import { array, bool, bytes, oneOf, optional, type Reader, record, text, uint } from "../core/codec.ts";
import { OPERATION_CLASSES, type OperationClass } from "../consensus/statements.ts";
import { KEY_CHARS_MAX } from "../spore/keys.ts";
import { VALUE_BYTES_MAX } from "../spore/record.ts";

/** Requests that agreement answers. */
export type AgreementRequest =
  | { readonly verb: "agreement-list" }
  | {
    readonly verb: "agreement-submit";
    readonly key: string;
    /** Base64url; missing: delete. */
    readonly value?: string;
    readonly class?: OperationClass;
    /** 0 (background) to 7 (urgent). */
    readonly priority?: number;
    readonly timeoutMs?: number;
  }
  | { readonly verb: "agreement-cancel"; readonly id: number }
  | {
    readonly verb: "agreement-emergency";
    /** Voters to go on without; those that do not answer, where none is named. */
    readonly without: readonly string[];
    readonly reason?: string;
    readonly dryRun?: boolean;
    /** The operator's or the genesis key where it is not on this node; read from a file by the edge. */
    readonly genesisSeed?: Uint8Array;
  };

/** Readers by verb. */
export const AGREEMENT_READERS: { readonly [V in AgreementRequest["verb"]]: Reader<unknown> } = {
  "agreement-list": record({}),
  "agreement-submit": record({
    key: text(KEY_CHARS_MAX),
    value: optional(text(Math.ceil(VALUE_BYTES_MAX * 4 / 3) + 4, /^[A-Za-z0-9_-]*$/)),
    class: optional(oneOf(OPERATION_CLASSES)),
    priority: optional(uint(7)),
    timeoutMs: optional(uint(600_000, 1_000)),
  }),
  "agreement-cancel": record({ id: uint() }),
  "agreement-emergency": record({
    without: array(text(128), 32),
    reason: optional(text(200)),
    dryRun: optional(bool),
    genesisSeed: optional(bytes({ length: 32 })),
  }),
};
