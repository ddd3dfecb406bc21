/** The roles of a node. @module */

import { oneOf, type Reader } from "./codec.ts";

/** What a machine does in its network: server, ordinary machine, constrained edge device. */
export type Role = "sclerotium" | "rhizomorph" | "hypha";

/** All roles, the most capable first. */
export const ROLES: readonly Role[] = ["sclerotium", "rhizomorph", "hypha"];

/** Reads a role. */
export const readRole: Reader<Role> = oneOf(ROLES);

/** Whether a machine fit for `able` can serve as `wanted`. */
export function roleFits(able: Role, wanted: Role): boolean {
  return ROLES.indexOf(able) <= ROLES.indexOf(wanted);
}
