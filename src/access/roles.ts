/**
 * Roles: named lists of grants. Those that everybody needs are built in;
 * further ones are records that the network agreed on.
 *
 * @module
 */

import { array, type CborValue, decodeAs, encodeCbor, optional, record, text, WireError } from "../core/codec.ts";
import { LIMITS } from "../core/limits.ts";
import { formatGrant, type Grant, parseGrant, readGrant } from "./permission.ts";

/** A named list of grants. */
export interface RoleSpec {
  readonly name: string;
  /** One line for people. */
  readonly description: string;
  readonly grants: readonly Grant[];
}

/** Names of the roles that are built in. */
export const BUILT_IN_ROLES = ["anyone", "reader", "viewer", "operator", "admin", "service", "node"] as const;

/** One of {@linkcode BUILT_IN_ROLES}. */
export type BuiltInRole = typeof BUILT_IN_ROLES[number];

/** Roles that can be given to a key, or to a node besides what it is. The others are what somebody is. */
export const GIVEN_ROLES: readonly string[] = ["viewer", "operator", "admin"];

const VIEWER = [
  "access.read",
  "access.self",
  "agreement.read",
  "config.read",
  "spore.list",
  "spore.read",
  "status.read",
  "trust.read",
];

const OPERATOR = [
  ...VIEWER,
  "agreement.submit",
  "audit.read",
  "bootstrap.retry",
  "bootstrap.force-endpoint",
  "command.run:ping/*",
  "command.run:status/*",
  "command.run:doctor/*",
  "command.run:logs/*",
  "command.run:config-get/*",
  "command.run:config-try/*",
  "command.run:config-confirm/*",
  "command.run:config-revert/*",
  "command.run:revert/*",
  "command.run:drain/*",
  "command.run:undrain/*",
  "command.run:normal-mode/*",
  "command.run:rejoin/*",
  "command.run:restart/*",
  "config.write",
  "incident.read",
  "invite.*",
  "log.read",
  "node.admit",
  "node.drain",
  "primary.transfer",
  "seed.export",
  "seed.import",
  "seed.publish",
  "service.assign",
  "spore.write",
];

const BUILT_IN: { readonly [R in BuiltInRole]: readonly [description: string, grants: readonly string[]] } = {
  anyone: ["who has not shown who he is", ["access.login", "rpc.join"]],
  reader: ["who reads the status page: no values of records", ["spore.list", "status.read"]],
  viewer: ["sees everything that is no secret, changes nothing", VIEWER],
  operator: ["runs the network: admits, drains, configures; takes nothing away for good", OPERATOR],
  admin: ["everything", ["*"]],
  service: ["a program: its own records, and where services run", [
    "access.self",
    "status.read",
    "spore.list:app/$service/*",
    "spore.read:app/$service/*",
    "spore.write:app/$service/*",
    "spore.list:service/*",
    "spore.read:service/*",
  ]],
  node: ["a member: what nodes ask of each other", ["rpc.*"]],
};

const ROLE_NAME = /^[a-z][a-z0-9-]{0,62}$/;

const BUILT_IN_SPECS: ReadonlyMap<string, RoleSpec> = new Map(
  BUILT_IN_ROLES.map((name) => {
    const [description, grants] = BUILT_IN[name];
    return [name, { name, description, grants: grants.map((one) => parseGrant(one)!) }];
  }),
);

/** A built-in role, or `undefined`. */
export function builtInRole(name: string): RoleSpec | undefined {
  return BUILT_IN_SPECS.get(name);
}

/** Whether a text can name a role or a binding: a lower-case letter, then letters, digits and dashes. */
export function isRoleName(name: string): boolean {
  return ROLE_NAME.test(name);
}

const readSpec = record({ d: optional(text(200)), g: array(readGrant, LIMITS.accessGrantsMax) });

/**
 * Reads a role from the value of its record.
 *
 * @param name Last segment of the record's key.
 * @throws {WireError} Where it does not read, or has the name of a built-in role.
 */
export function decodeRole(name: string, value: Uint8Array): RoleSpec {
  if (!isRoleName(name) || BUILT_IN_SPECS.has(name)) {
    throw new WireError(
      `Cannot read role "${name}": wanted a name of lower-case letters, digits and dashes that is not built in`,
    );
  }
  const { d, g } = decodeAs(value, readSpec);
  return { name, description: d ?? "", grants: g };
}

/** The value of a role's record. */
export function encodeRole(role: RoleSpec): Uint8Array {
  return encodeCbor(roleValue(role));
}

function roleValue(role: RoleSpec): CborValue {
  return {
    ...(role.description === "" ? {} : { d: role.description }),
    g: role.grants.map(formatGrant),
  };
}
