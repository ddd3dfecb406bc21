/**
 * Who a request is of: what it carries, turned into what the access control of the agent knows.
 *
 * @module
 */

import type { Decision, Need, Subject } from "../../access/decide.ts";
import { decide } from "../../access/decide.ts";
import { AccessPolicy } from "../../access/policy.ts";
import { decodeProof } from "../../access/sessions.ts";
import { TOKEN_PREFIX } from "../../access/tokens.ts";
import { ANYONE, type Authenticated, LOCAL, type Presented, READER } from "../../agent/access.ts";
import { fromBase64Url } from "../../core/bytes.ts";
import { WireError } from "../../core/codec.ts";
import { sha256 } from "../../core/crypto.ts";
import { presentedToken, tokenCheck } from "./guard.ts";

/** The gate of the node, as the HTTP interface asks it. */
export interface AccessDoor {
  /** Once for each request. */
  authenticate(presented: Presented): Authenticated;
  authorize(subject: Subject, need: Need): Decision;
}

/** Header with a code of the second factor. */
export const CODE_HEADER = "mycelium-code";
/** Scheme of the `Authorization` header for requests that a session key has signed. */
export const SESSION_SCHEME = "Mycelium";

/** Where the app is reached. */
export type Entrance =
  /** The unix socket: who may use it, by its mode, is the local person. */
  | "socket"
  /** A TCP port: whoever shows nothing is a reader where no token is asked for, and nobody where one is. */
  | "tcp";

/** A door for an app without an agent: the built-in roles, and nobody can log in. */
export function builtInDoor(): AccessDoor {
  const policy = new AccessPolicy();
  return {
    authenticate(presented) {
      if (presented.kind === "socket") return { ok: true, subject: LOCAL };
      if (presented.kind === "reader") return { ok: true, subject: READER };
      if (presented.kind === "none") return { ok: true, subject: ANYONE };
      const message = "Nobody can log in here";
      return { ok: false, code: presented.kind === "token" ? "token-invalid" : "session-unknown", message, cure: "" };
    },
    authorize: (subject, need) => decide(subject, need, policy, 0),
  };
}

/** Finds out who a request is of. */
export class Identifier {
  readonly #door: AccessDoor;
  readonly #entrance: Entrance;
  readonly #isReaderToken: ((header: string | undefined) => boolean) | undefined;

  /** @param options `token`: the one of `http.tokenFile`, which makes a reader; without it everybody is one on TCP. */
  constructor(options: { readonly door: AccessDoor; readonly entrance: Entrance; readonly token?: string }) {
    this.#door = options.door;
    this.#entrance = options.entrance;
    if (options.token !== undefined) {
      const check = tokenCheck(options.token);
      this.#isReaderToken = (header) => check(header) === undefined;
    }
  }

  /**
   * Who a request is of. Counts replays and failures: once for each request.
   *
   * @param body Whole body; empty where the method has none.
   * @param options `from`: address of the other end. `reads`: it only reads, which who shows nothing may be allowed.
   */
  identify(
    request: Request,
    body: Uint8Array,
    options: { readonly from: string; readonly reads: boolean },
  ): Authenticated {
    const code = request.headers.get(CODE_HEADER) ?? undefined;
    const source = this.#entrance === "socket" ? "socket" : options.from;
    return this.#door.authenticate({
      source,
      ...(code === undefined ? {} : { code }),
      ...this.#shown(request, body, options.reads),
    });
  }

  #shown(request: Request, body: Uint8Array, reads: boolean): Shown {
    const header = request.headers.get("authorization") ?? undefined;
    if (header === undefined) {
      if (this.#entrance === "socket") return { kind: "socket" };
      return { kind: reads && !this.#isReaderToken ? "reader" : "none" };
    }
    const session = new RegExp(`^${SESSION_SCHEME} +([A-Za-z0-9_-]{1,400})$`, "i").exec(header)?.[1];
    if (session !== undefined) return sessionOf(session, request, body);
    const token = presentedToken(header);
    if (token?.startsWith(`${TOKEN_PREFIX}.`)) return { kind: "token", token };
    if (this.#isReaderToken?.(header)) return { kind: "reader" };
    // Something was shown that is nothing: whoever meant to be somebody must not pass as the local person.
    return { kind: "token", token: token ?? "" };
  }
}

type Shown = Presented extends infer P ? P extends unknown ? Omit<P, "source" | "code"> : never : never;

function sessionOf(text: string, request: Request, body: Uint8Array): Shown {
  try {
    const proof = decodeProof(fromBase64Url(text) ?? new Uint8Array(0));
    const { pathname, search } = new URL(request.url);
    return { kind: "session", proof, method: request.method, path: pathname + search, bodyHash: sha256(body) };
  } catch (error) {
    if (error instanceof WireError) return { kind: "token", token: "" };
    throw error;
  }
}
