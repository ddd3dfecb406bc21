/**
 * People and programs that ask a running node, over its unix socket and over its TCP port.
 *
 * @module
 */

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { fromBase64Url, fromHex, toBase64Url, toHex } from "../../src/core/bytes.ts";
import { type KeyPair, keyPairFromSeed, signBytes } from "../../src/core/crypto.ts";
import { loginMessage } from "../../src/access/sessions.ts";
import { formatToken, makeToken, tokenHash } from "../../src/access/tokens.ts";
import { type KeptSession, sessionHeader } from "../../src/cli/session_file.ts";
import type { RunningNode } from "./running_node.ts";

/** By which way a request reaches a node. */
export type Way = "socket" | "tcp";

/** What came back: `code` is `ok`, or that of the error. */
export interface Asked {
  readonly status: number;
  readonly code: string;
  readonly result: unknown;
  readonly text: string;
}

/** Makes the `Authorization` header of a request; `undefined`: none. */
export type Shows = (request: { readonly method: string; readonly path: string; readonly body: Uint8Array }) =>
  | string
  | undefined;

/** Who shows nothing. */
export const NOBODY: Shows = () => undefined;

/** A new key. */
export function newPair(): KeyPair {
  return keyPairFromSeed(new Uint8Array(randomBytes(32)));
}

/** The founder's key, as it stands in the state folder. */
export function founderPair(node: RunningNode): KeyPair {
  return keyPairFromSeed(Deno.readFileSync(`${node.stateDir}/secret/operator.key`));
}

/** Sends one request. */
export async function send(
  node: RunningNode,
  way: Way,
  request: { readonly method: string; readonly path: string; readonly body?: string; readonly headers?: HeadersInit },
  shows: Shows = NOBODY,
): Promise<Asked> {
  const { method, path, body } = request;
  const headers = new Headers(request.headers);
  if (body !== undefined) headers.set("content-type", "application/json");
  const shown = shows({ method, path, body: new TextEncoder().encode(body ?? "") });
  if (shown !== undefined) headers.set("authorization", shown);
  const init: RequestInit = { method, headers, ...(body === undefined ? {} : { body }) };
  const response = way === "socket" ? await node.fetch(path, init) : await fetch(`${node.statusUrl}${path}`, init);
  const text = await response.text();
  let read: { ok?: unknown; result?: unknown; code?: unknown; error?: { code?: unknown } } = {};
  try {
    read = JSON.parse(text);
  } catch {
    // A page, metrics, lines.
  }
  const code = read.error?.code ?? read.code ?? (response.ok ? "ok" : "unknown");
  return { status: response.status, code: String(code), result: read.result, text };
}

/** Asks for a verb. */
export function ask(
  node: RunningNode,
  way: Way,
  request: object,
  shows: Shows = NOBODY,
  headers: HeadersInit = {},
): Promise<Asked> {
  return send(node, way, { method: "POST", path: "/control", body: JSON.stringify(request), headers }, shows);
}

/** A login that is not sent yet, to be spoilt or repeated. */
export async function prepareLogin(
  node: RunningNode,
  way: Way,
  pair: KeyPair,
  options: { readonly ttlMs?: number } = {},
): Promise<{ readonly request: { readonly [field: string]: unknown }; session(answer: unknown): KeptSession }> {
  const { ttlMs = 3_600_000 } = options;
  const asked = await ask(node, way, { verb: "access-challenge" });
  assert.equal(asked.code, "ok", asked.text);
  const { challenge, networkId, nodeKey } = asked.result as Record<string, string>;
  const place = { networkId: fromHex(networkId!)!, nodeKey: fromHex(nodeKey!)! };
  const sessionPair = newPair();
  const words = {
    challenge: fromBase64Url(challenge!)!,
    key: pair.publicKey,
    sessionKey: sessionPair.publicKey,
    ttlMs,
  };
  const signature = signBytes(pair, loginMessage(words, place));
  return {
    request: {
      verb: "access-login",
      challenge,
      key: toBase64Url(pair.publicKey),
      sessionKey: toBase64Url(sessionPair.publicKey),
      ttlMs,
      signature: toBase64Url(signature),
    },
    session: (answer) => {
      const { session, expiresMs, name } = answer as { session: string; expiresMs: number; name: string };
      return { target: "", id: fromHex(session)!, pair: sessionPair, ...place, expiresMs, aheadMs: 0, name };
    },
  };
}

/** Logs in and gives what each request shows from then on. */
export async function login(
  node: RunningNode,
  way: Way,
  pair: KeyPair,
): Promise<{ readonly shows: Shows; readonly session: KeptSession }> {
  const prepared = await prepareLogin(node, way, pair);
  const answer = await ask(node, way, prepared.request);
  assert.equal(answer.code, "ok", answer.text);
  const session = prepared.session(answer.result);
  return { session, shows: (request) => sessionHeader(session, request, Date.now()) };
}

/** Gives a key a role, as the local person of the founder. */
export async function bind(node: RunningNode, binding: string, role: string, pair: KeyPair): Promise<void> {
  await node.ask({ verb: "role-bind", binding, role, key: toBase64Url(pair.publicKey) });
}

/** Makes a token, as the local person of the founder. */
export async function bindToken(
  node: RunningNode,
  binding: string,
  service: string,
  options: { readonly ttlMs?: number; readonly role?: string } = {},
): Promise<{ readonly shows: Shows; readonly text: string }> {
  const token = makeToken(new Uint8Array(randomBytes(40)));
  await node.ask({
    verb: "role-bind",
    binding,
    role: options.role ?? "service",
    token: { id: token.id, hash: toBase64Url(tokenHash(token, service)), service },
    ...(options.ttlMs === undefined ? {} : { ttlMs: options.ttlMs }),
  });
  const text = formatToken(token);
  return { text, shows: () => `Bearer ${text}` };
}

/** A key in hexadecimal. */
export function hexOf(pair: KeyPair): string {
  return toHex(pair.publicKey);
}
