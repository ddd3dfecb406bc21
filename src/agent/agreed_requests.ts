/** What a person may ask about agreed records, and its readers. @module */

import { type Reader, record, text } from "../core/codec.ts";
import { KEY_CHARS_MAX } from "../spore/keys.ts";

/** Requests about agreed records. */
export type AgreedRequest =
  /** Fetches what shows a record, verifies it from the founder's key, and says where it stands. */
  { readonly verb: "agreed-show"; readonly key: string };

/** Readers by verb. */
export const AGREED_READERS: { readonly [V in AgreedRequest["verb"]]: Reader<unknown> } = {
  "agreed-show": record({ key: text(KEY_CHARS_MAX) }),
};
