/** Seeds over HTTP: what is asked for, and how much is read. @module */

import { SEED_BYTES_MAX } from "../../bootstrap/seed_document.ts";

/** What a reader of seeds takes. */
export const ACCEPT = "application/octet-stream, text/plain;q=0.9, */*;q=0.1";

/**
 * Fetches what a server has at an address that a person named; says nothing about whether it counts.
 *
 * @throws {Error} Where the server does not answer with it, or with more than a seed may have.
 */
export async function fetchSeed(url: string, signal: AbortSignal): Promise<Uint8Array> {
  const response = await fetch(url, { headers: { accept: ACCEPT }, signal });
  try {
    if (response.status !== 200) throw new Error(`the server answered ${response.status}`);
    return await bodyOf(response);
  } finally {
    if (!response.bodyUsed) await response.body?.cancel().catch(() => {});
  }
}

/** The server or what it sent is not acceptable; `code` becomes a metric label. */
export class FetchRefusal extends Error {
  override readonly name = "FetchRefusal";
  /** @param code Stable, lower-case, dashes. */
  constructor(readonly code: string, message: string) {
    super(message);
  }
}

/** The body, as long as it is within the limit; the announced length is not trusted. */
export async function bodyOf(response: Response): Promise<Uint8Array> {
  const tooLarge = () => new FetchRefusal("oversize", `the document has more than ${SEED_BYTES_MAX} bytes`);
  if (Number(response.headers.get("content-length") ?? 0) > SEED_BYTES_MAX) throw tooLarge();
  const out = new Uint8Array(SEED_BYTES_MAX);
  let length = 0;
  // Leaving the loop cancels the body.
  for await (const chunk of response.body ?? []) {
    if (length + chunk.length > SEED_BYTES_MAX) throw tooLarge();
    out.set(chunk, length);
    length += chunk.length;
  }
  return out.slice(0, length);
}
