/**
 * Sessions of the command line: one file of mode 0600 for each agent that this user has logged in to.
 *
 * @module
 */

import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { fromBase64Url, fromHex, toBase64Url, toHex, utf8 } from "../core/bytes.ts";
import { bytes, type CborValue, type Reader, record, text, uint, WireError } from "../core/codec.ts";
import { type KeyPair, keyPairFromSeed, sha256, signBytes } from "../core/crypto.ts";
import { encodeProof, requestMessage } from "../access/sessions.ts";
import type { CliDeps } from "./deps.ts";
import { CliError, EXIT } from "./exit.ts";

/** A session as it is kept. */
export interface KeptSession {
  /** Socket or address of the agent. */
  readonly target: string;
  /** 16 bytes. */
  readonly id: Uint8Array;
  readonly pair: KeyPair;
  readonly networkId: Uint8Array;
  readonly nodeKey: Uint8Array;
  /** By the clock of the node. */
  readonly expiresMs: number;
  /** What the node's clock is ahead of this one. */
  readonly aheadMs: number;
  /** Name of the operator. */
  readonly name: string;
}

/** What one request carries. */
export interface RequestLine {
  readonly method: string;
  /** With its query. */
  readonly path: string;
  readonly body: Uint8Array;
}

const coded = (length: number): Reader<Uint8Array> => (value, path) => {
  const read = typeof value === "string" ? fromBase64Url(value) : undefined;
  return bytes({ length })(read, path);
};
const readKept = record({
  target: text(4_096),
  id: coded(16),
  seed: coded(32),
  networkId: coded(32),
  nodeKey: coded(32),
  expiresMs: uint(),
  aheadMs: (value, path) => {
    if (typeof value !== "number" || !Number.isSafeInteger(value)) throw new WireError(`Cannot read ${path}`);
    return value;
  },
  name: text(128),
});

/** Folder of the sessions, or `undefined` where this user has no home. */
function folderOf(deps: Pick<CliDeps, "env">): string | undefined {
  const { env } = deps;
  if (env.MYCELIUM_SESSIONS) return env.MYCELIUM_SESSIONS;
  if (env.XDG_STATE_HOME?.startsWith("/")) return join(env.XDG_STATE_HOME, "mycelium", "sessions");
  return env.HOME ? join(env.HOME, ".local", "state", "mycelium", "sessions") : undefined;
}

function pathOf(folder: string, target: string): string {
  return join(folder, `${toHex(sha256(utf8(target))).slice(0, 32)}.json`);
}

/** The session with an agent, or `undefined` where there is none that counts. */
export async function keptSession(
  deps: Pick<CliDeps, "env" | "now">,
  target: string,
): Promise<KeptSession | undefined> {
  const folder = folderOf(deps);
  if (folder === undefined) return undefined;
  let content: string;
  try {
    content = await Deno.readTextFile(pathOf(folder, target));
  } catch {
    return undefined;
  }
  try {
    const read = readKept(JSON.parse(content) as CborValue, "session");
    const { seed, ...rest } = read;
    return read.target === target && read.expiresMs > deps.now() + read.aheadMs
      ? { ...rest, pair: keyPairFromSeed(seed) }
      : undefined;
  } catch (error) {
    if (error instanceof WireError || error instanceof SyntaxError) return undefined;
    throw error;
  }
}

/** Keeps a session. @throws {CliError} Where there is no place for it. */
export async function keepSession(deps: Pick<CliDeps, "env">, session: KeptSession): Promise<void> {
  const folder = folderOf(deps);
  if (folder === undefined) {
    throw new CliError("Cannot keep the session: this user has no home folder", {
      code: "no-home",
      cure: "Set MYCELIUM_SESSIONS to a folder",
      exitCode: EXIT.usage,
    });
  }
  await Deno.mkdir(folder, { recursive: true, mode: 0o700 });
  const path = pathOf(folder, session.target);
  const { pair, id, networkId, nodeKey, ...rest } = session;
  const content = JSON.stringify({
    ...rest,
    id: toBase64Url(id),
    seed: toBase64Url(pair.seed),
    networkId: toBase64Url(networkId),
    nodeKey: toBase64Url(nodeKey),
  });
  await writeSecret(path, utf8(content), { replace: true });
}

/** Forgets the session with an agent; says whether there was one. */
export async function forgetSession(deps: Pick<CliDeps, "env">, target: string): Promise<boolean> {
  const folder = folderOf(deps);
  if (folder === undefined) return false;
  try {
    await Deno.remove(pathOf(folder, target));
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** The `Authorization` header of a request in a session. */
export function sessionHeader(session: KeptSession, request: RequestLine, nowMs: number): string {
  const nonce = new Uint8Array(randomBytes(16));
  const timeMs = Math.round(nowMs + session.aheadMs);
  const words = {
    sessionId: session.id,
    nonce,
    timeMs,
    method: request.method,
    path: request.path,
    bodyHash: sha256(request.body),
  };
  const signature = signBytes(session.pair, requestMessage(words, session));
  return `Mycelium ${toBase64Url(encodeProof({ sessionId: session.id, nonce, timeMs, signature }))}`;
}

/** Writes a secret into a file that only its owner may read. @throws {CliError} Where it is there and may not be replaced. */
export async function writeSecret(
  path: string,
  content: Uint8Array,
  options: { readonly replace?: boolean } = {},
): Promise<void> {
  try {
    if (!options.replace) return await Deno.writeFile(path, content, { createNew: true, mode: 0o600 });
    // Put beside it and moved: whoever reads meanwhile has the old one or the new one.
    const fresh = `${path}.${toHex(new Uint8Array(randomBytes(4)))}.new`;
    await Deno.writeFile(fresh, content, { createNew: true, mode: 0o600 });
    await Deno.rename(fresh, path);
  } catch (cause) {
    const why = cause instanceof Deno.errors.AlreadyExists
      ? "there is a file of that name"
      : cause instanceof Error
      ? cause.message
      : "it cannot be written";
    throw new CliError(`Cannot write "${path}": ${why}`, { code: "usage", exitCode: EXIT.usage, cause });
  }
}

/** Bytes of a hexadecimal field of an answer. */
export function hexField(value: unknown, length: number): Uint8Array | undefined {
  const read = typeof value === "string" ? fromHex(value) : undefined;
  return read?.length === length ? read : undefined;
}
