/**
 * What can be allowed: a closed list of permissions, and patterns over them that roles are made of.
 *
 * A grant is written `spore.write:app/shop/*`: a permission, and behind the colon the resources that it holds for.
 * Without a colon it holds for all of them. `spore.*` is every permission of an area, `*` every one there is.
 *
 * @module
 */

import { type Reader, text, WireError } from "../core/codec.ts";

/** Every permission. What a person can ask for, and what nodes ask of each other, needs exactly one of them. */
export const PERMISSIONS = [
  "access.login",
  "access.self",
  "access.read",
  "access.write",
  "audit.read",
  "agreement.read",
  "agreement.submit",
  "agreement.emergency",
  "bootstrap.retry",
  "bootstrap.force-endpoint",
  "bootstrap.reset",
  "command.run",
  "config.read",
  "config.write",
  "genesis.export",
  "authority.recover",
  "incident.read",
  "incident.respond",
  "invite.read",
  "invite.create",
  "invite.revoke",
  "log.read",
  "network.form",
  "network.join",
  "network.leave",
  "node.admit",
  "node.drain",
  "node.mode",
  "node.remove",
  "node.shutdown",
  "policy.write",
  "primary.dump",
  "primary.recover",
  "primary.restore",
  "primary.transfer",
  "rpc.join",
  "rpc.member",
  "seed.decide",
  "seed.export",
  "seed.import",
  "seed.publish",
  "service.assign",
  "spore.list",
  "spore.read",
  "spore.write",
  "status.read",
  "trust.read",
  "trust.write",
] as const;

/** One of {@linkcode PERMISSIONS}. */
export type Permission = typeof PERMISSIONS[number];

/** What a role allows. */
export interface Grant {
  /** A permission, `area.*`, or `*`. */
  readonly permission: string;
  /**
   * Resources: a text that has to be the same, or one that ends in `*` behind a `/` (or is nothing else) and stands for
   * everything that begins so. `$service` in it stands for the service of a service token.
   */
  readonly resource: string;
}

/** Longest resource, and longest resource of a pattern, in characters. */
export const RESOURCE_CHARS_MAX = 200;

const RESOURCE = /^(\*|[A-Za-z0-9$._/-]+(?<=\/)\*|[A-Za-z0-9$._/-]+)$/;
const AREAS: ReadonlySet<string> = new Set(PERMISSIONS.map((one) => one.split(".")[0]!));
const KNOWN: ReadonlySet<string> = new Set(PERMISSIONS);

/** A grant of its text, or `undefined` where it is none, or names a permission that does not exist. */
export function parseGrant(written: string): Grant | undefined {
  const colon = written.indexOf(":");
  const permission = colon < 0 ? written : written.slice(0, colon);
  const resource = colon < 0 ? "*" : written.slice(colon + 1);
  const known = permission === "*" || KNOWN.has(permission) ||
    permission.endsWith(".*") && AREAS.has(permission.slice(0, -2));
  if (!known || resource.length > RESOURCE_CHARS_MAX || !RESOURCE.test(resource)) return undefined;
  // `$service` is a whole segment, and the only variable.
  if (resource.split("/").some((one) => one.includes("$") && one !== "$service")) return undefined;
  return { permission, resource };
}

/** Text of a grant, as {@linkcode parseGrant} reads it. */
export function formatGrant(grant: Grant): string {
  return grant.resource === "*" ? grant.permission : `${grant.permission}:${grant.resource}`;
}

/** Reads a grant. */
export const readGrant: Reader<Grant> = (value, path) => {
  const grant = parseGrant(text(RESOURCE_CHARS_MAX + 64)(value, path));
  if (!grant) {
    throw new WireError(
      `Cannot read ${path}: wanted a permission such as "status.read", "spore.*" or "spore.write:app/shop/*"`,
    );
  }
  return grant;
};

/**
 * Whether a grant covers a permission on a resource.
 *
 * @param resource What is asked for; where nothing is named, only a grant for all resources covers it.
 * @param service Service of who asks; where there is none, a grant with `$service` covers nothing.
 */
export function covers(
  grant: Grant,
  permission: Permission,
  resource: string | undefined,
  service: string | undefined,
): boolean {
  const fits = grant.permission === "*" || grant.permission === permission ||
    grant.permission.endsWith(".*") && permission.startsWith(grant.permission.slice(0, -1));
  if (!fits) return false;
  if (grant.resource === "*") return true;
  if (resource === undefined) return false;
  let pattern = grant.resource;
  if (pattern.includes("$service")) {
    if (service === undefined) return false;
    pattern = pattern.split("/").map((one) => one === "$service" ? service : one).join("/");
  }
  return pattern.endsWith("/*") ? resource.startsWith(pattern.slice(0, -1)) : resource === pattern;
}
