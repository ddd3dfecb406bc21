/**
 * The decision: may this one do that. Everything that anybody asks of a node comes here, and nothing is allowed that no
 * role grants.
 *
 * @module
 */

import { covers, type Permission } from "./permission.ts";
import type { RoleSpec } from "./roles.ts";

/** Who asks, after he has shown it. */
export interface Subject {
  /**
   * `local`: who may use the agent's socket, by its mode. `self`: the node's own work. `operator`: a person with a key.
   * `service`: a program with a token. `node`: a member. `reader`: whoever reads the status page where it is open to
   * him. `anyone`: whoever has shown nothing.
   */
  readonly kind: "local" | "self" | "operator" | "service" | "node" | "reader" | "anyone";
  /** Key in hexadecimal, id of the token, node id; empty for the others. */
  readonly id: string;
  /** For people and for the audit log. */
  readonly name: string;
  /** Service of a service token. */
  readonly service?: string;
  /** Session by which an operator came. */
  readonly sessionId?: string;
  /** `enrolled`: he has one and has not shown it in the last minutes. */
  readonly secondFactor: "none" | "enrolled" | "fresh";
}

/** What somebody wants. */
export interface Need {
  readonly permission: Permission;
  /** What it is about, for example a key; missing where the permission is about the whole. */
  readonly resource?: string;
  /** Cannot be undone, or takes the network out of its owners' hands: wants a second factor where there is one. */
  readonly danger?: boolean;
}

/** Who has which role, at a time. */
export interface Policy {
  /** Names of the roles that somebody has. */
  rolesOf(subject: Subject, nowMs: number): readonly string[];
  /** A role, or `undefined` where there is none of that name (any more). */
  role(name: string): RoleSpec | undefined;
  /** Why somebody may do nothing for the time being, or `undefined`. */
  suspended(subject: Subject, nowMs: number): string | undefined;
}

/** Why not. Stable: these are error codes and metric labels. */
export type DenialReason = "no-role" | "not-granted" | "suspended" | "too-dangerous" | "second-factor";

/** The decision. */
export type Decision =
  | { readonly ok: true; /** Role that grants it. */ readonly role: string }
  | { readonly ok: false; readonly reason: DenialReason; readonly message: string; readonly cure: string };

/**
 * Decides whether somebody may do something. Total and without side effects: the same input gives the same answer.
 *
 * `second-factor` says that he might if he showed his second factor; the other reasons stay whatever he shows.
 */
export function decide(subject: Subject, need: Need, policy: Policy, nowMs: number): Decision {
  const suspended = policy.suspended(subject, nowMs);
  if (suspended !== undefined) {
    return deny(
      "suspended",
      `${subject.name} is suspended: ${suspended}`,
      "An admin can look at it: mycelium audit search",
    );
  }
  const roles = policy.rolesOf(subject, nowMs);
  const role = roles.find((name) =>
    policy.role(name)?.grants.some((one) => covers(one, need.permission, need.resource, subject.service))
  );
  if (role !== undefined && !need.danger) return { ok: true, role };
  const what = describeNeed(need);
  if (role === undefined) {
    return roles.length === 0
      ? deny("no-role", `${subject.name} has no role, and ${what} needs one`, "An admin gives one: mycelium role bind")
      : deny(
        "not-granted",
        `${what} is not allowed to ${subject.name}, who has ${roles.join(", ")}`,
        "See what a role allows: mycelium role show <role>",
      );
  }
  // A token can be copied and cannot show a second factor; a node speaks for itself alone.
  if (subject.kind === "service" || subject.kind === "node") {
    return deny(
      "too-dangerous",
      `${what} is never allowed to a ${subject.kind}`,
      "A person has to do it: mycelium login",
    );
  }
  if (subject.secondFactor === "enrolled") {
    return deny("second-factor", `${what} needs a code of the second factor`, "Show one: mycelium totp verify");
  }
  return { ok: true, role };
}

/** A need in words: `spore.write on "app/x"`. Cut short: what was meant for another field may be a secret. */
export function describeNeed(need: Need): string {
  const { permission, resource } = need;
  if (resource === undefined) return permission;
  return `${permission} on "${resource.length > SHOWN_CHARS ? `${resource.slice(0, SHOWN_CHARS)}…` : resource}"`;
}

/** Characters of a resource that are shown. */
const SHOWN_CHARS = 40;

function deny(reason: DenialReason, message: string, cure: string): Decision {
  return { ok: false, reason, message, cure };
}
