/**
 * Who may ask: the Host header, the bearer token, and the headers that keep browsers in their place.
 *
 * @module
 */

import { createHash, timingSafeEqual } from "node:crypto";
import type { Problem } from "./problem.ts";

/** Shortest bearer token that is accepted, in characters. */
export const TOKEN_CHARS_MIN = 24;

/** Headers on every answer: nothing here may be framed, sniffed, or read by another origin. */
export const SECURITY_HEADERS: Readonly<Record<string, string>> = {
  "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
  "x-content-type-options": "nosniff",
  "cross-origin-resource-policy": "same-origin",
};

/** Further headers on a page. */
export const PAGE_HEADERS: Readonly<Record<string, string>> = {
  "x-frame-options": "DENY",
  "referrer-policy": "no-referrer",
  "cross-origin-opener-policy": "same-origin",
  "permissions-policy": "camera=(), microphone=(), geolocation=()",
};

/** Host of a `Host` header: lower case, without port and brackets; `undefined` where it is malformed. */
export function hostOf(header: string): string | undefined {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+))(?::\d{1,5})?$/.exec(header);
  return (match?.[1] ?? match?.[2])?.toLowerCase();
}

/** Whether a host, as {@linkcode hostOf} gives it, names this machine's loopback. */
export function isLoopbackHost(host: string): boolean {
  return host === "localhost" || host.endsWith(".localhost") || host === "::1" ||
    /^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(host);
}

/**
 * A check of the `Host` header, against DNS rebinding: a page of another site whose name was made to
 * point here still sends that site's name.
 *
 * @param names Further names that are ours, for example the address that is listened on. The unspecified
 * address, `0.0.0.0` or `::`, stands for every address: an address cannot be made to point elsewhere.
 */
export function hostCheck(names: readonly string[] = []): (header: string) => Problem | undefined {
  const own = new Set(names.map((name) => name.toLowerCase()));
  const anyAddress = own.has("0.0.0.0") || own.has("::");
  // Almost every request carries the same few headers.
  const known = new Map<string, boolean>();
  return (header) => {
    let good = known.get(header);
    if (good === undefined) {
      const host = hostOf(header);
      good = host !== undefined &&
        (isLoopbackHost(host) || own.has(host) || anyAddress && /^\d+(\.\d+){3}$|:/.test(host));
      if (good && known.size < 16) known.set(header, good);
    }
    return good ? undefined : {
      status: 421,
      code: "wrong-host",
      title: "This host is not served here",
      cause: `The Host header is ${JSON.stringify(header.slice(0, 100))}, which is none of this node's names.`,
      cure: "Open the page by its address or as localhost, for example http://127.0.0.1:4873.",
    };
  };
}

/**
 * A check of the `Authorization` header, in constant time. `Basic` is taken too, with the token as the
 * password, so that a browser can ask for it.
 */
export function tokenCheck(token: string): (header: string | undefined) => Problem | undefined {
  const wanted = digest(token);
  return (header) => {
    const given = presentedToken(header);
    if (given !== undefined && timingSafeEqual(digest(given), wanted)) return undefined;
    return {
      status: 401,
      code: "unauthorized",
      title: "A token is needed",
      cause: given === undefined ? "The request carries no bearer token." : "The token is not the one of this node.",
      cure:
        "Send `Authorization: Bearer <token>` with the content of the file http.tokenFile; in a browser, enter it as the " +
        "password with any user name.",
    };
  };
}

/** Token of an `Authorization` header: a bearer's, or the password of `Basic`; `undefined` where there is none. */
export function presentedToken(header: string | undefined): string | undefined {
  const match = /^(Bearer|Basic) +([A-Za-z0-9._~+/=-]{1,1024})$/i.exec(header ?? "");
  if (!match?.[1] || !match[2]) return undefined;
  if (match[1].toLowerCase() === "bearer") return match[2];
  try {
    const pair = atob(match[2]);
    return pair.slice(pair.indexOf(":") + 1);
  } catch {
    return undefined;
  }
}

function digest(text: string): Uint8Array {
  return createHash("sha256").update(text).digest();
}
