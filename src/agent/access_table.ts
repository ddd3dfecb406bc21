/**
 * What each thing that can be asked of a node needs: one table for every verb, command, method and route.
 *
 * The types make it whole: a verb, a command, a method or a route without a row here does not compile. Who has what
 * is decided in `src/access`, and asked for in one place, `Access.authorize`.
 *
 * @module
 */

import { changeNeed, decodeChange } from "../access/change.ts";
import type { Need } from "../access/decide.ts";
import type { Permission } from "../access/permission.ts";
import { WireError } from "../core/codec.ts";
import type { CommandVerb } from "./commands.ts";
import type { ControlRequest } from "./control.ts";

/** A row: a need, or one that depends on what is asked. */
export type NeedOf<R> = Need | ((request: R) => Need);

/** Verbs that the edge answers itself, before the agent hears of them. */
export type EdgeVerb =
  | "invite-list"
  | "node-drain"
  | "seed-publish"
  | "config-get"
  | "config-try"
  | "config-confirm"
  | "config-revert"
  | "audit-verify"
  | "audit-search"
  | "audit-export"
  | "audit-lines";

/** Paths of the HTTP interface. */
export type Route =
  | "/"
  | "/healthz"
  | "/readyz"
  | "/status"
  | "/spores"
  | "/metrics"
  | "/events"
  | "/openapi.json"
  | "/shutdown"
  | "/logs";

const need = (permission: Permission): Need => ({ permission });
const danger = (permission: Permission): Need => ({ permission, danger: true });
/** Dangerous, unless it only says what would happen. */
const dangerUnlessDry = (permission: Permission) => (request: { readonly dryRun?: boolean }): Need =>
  request.dryRun ? need(permission) : danger(permission);
const dangerUnlessPrepared = (request: { readonly prepare?: boolean }): Need =>
  request.prepare ? need("access.write") : danger("access.write");
const onKey = (permission: Permission) => (request: { readonly key: string }): Need => ({
  permission,
  resource: request.key,
});
const onNode = (permission: Permission) => (request: { readonly node: string }): Need => ({
  permission,
  resource: request.node,
});

/** Commands that take a node out of its work. */
const DANGEROUS_COMMANDS: { readonly [C in CommandVerb]: boolean } = {
  "ping": false,
  "status": false,
  "doctor": false,
  "logs": false,
  "config-get": false,
  "config-try": false,
  "config-confirm": false,
  "config-revert": false,
  "drain": false,
  "undrain": false,
  "isolate": true,
  "rejoin": false,
  "safe-mode": true,
  "normal-mode": false,
  "revert": false,
  "restart": false,
  "leave": true,
};

/** What a command on a node needs: `command.run` on `<command>/<node>`. */
export function commandNeed(command: CommandVerb, node: string): Need {
  return { permission: "command.run", resource: `${command}/${node}`, danger: DANGEROUS_COMMANDS[command] };
}

/** What a wish for a decision needs: what rules the network is for those who may rule it, however it is written. */
function submitNeed(key: string): Need {
  return key.startsWith("agreed/") ? changeNeed(key) : { permission: "agreement.submit", resource: key };
}

/** What a change that was signed elsewhere needs: what its record does, whoever signed it. */
function signedNeed(change: Uint8Array): Need {
  try {
    return changeNeed(decodeChange(change).key);
  } catch (error) {
    if (!(error instanceof WireError)) throw error;
    return danger("access.write");
  }
}

/** What the agent's verbs need. */
export const CONTROL_NEEDS: {
  readonly [V in ControlRequest["verb"]]: NeedOf<Extract<ControlRequest, { readonly verb: V }>>;
} = {
  "init": need("network.form"),
  "join": need("network.join"),
  "invite-create": need("invite.create"),
  "invite-revoke": need("invite.revoke"),
  "node-approve": onNode("node.admit"),
  "node-deny": onNode("node.admit"),
  "node-remove": (request) => ({
    permission: "node.remove",
    resource: request.node,
    danger: request.dryRun !== true,
  }),
  "bootstrap-retry": need("bootstrap.retry"),
  "bootstrap-reset": dangerUnlessDry("bootstrap.reset"),
  "bootstrap-force-endpoint": need("bootstrap.force-endpoint"),
  "genesis-export": dangerUnlessDry("genesis.export"),
  "authority-recover": danger("authority.recover"),
  "assign": (request) => ({ permission: "service.assign", resource: request.service }),
  // Who is refused the command must not get it signed. One that there is not is refused as bad when it is signed.
  "sign-command": (request) => ({
    permission: "command.run",
    resource: `${request.command}/${request.node}`,
    danger: Object.hasOwn(DANGEROUS_COMMANDS, request.command) && DANGEROUS_COMMANDS[request.command as CommandVerb],
  }),
  "set-mode": (request) => ({
    permission: request.mode === "drained" || request.mode === "normal" ? "node.drain" : "node.mode",
    danger: request.mode === "isolated" || request.mode === "safe",
  }),
  "leave": danger("network.leave"),
  "spore-list": (request) => ({ permission: "spore.list", resource: request.prefix ?? "" }),
  "spore-show": onKey("spore.read"),
  "agreed-show": onKey("spore.read"),
  "spore-put": onKey("spore.write"),
  "spore-delete": onKey("spore.write"),
  "spore-verify": need("spore.list"),
  "spore-diff": need("spore.list"),
  "primary-put": onKey("spore.write"),
  "primary-get": onKey("spore.read"),
  "primary-transfer": need("primary.transfer"),
  "primary-recover": dangerUnlessDry("primary.recover"),
  "primary-dump": need("primary.dump"),
  "primary-restore": dangerUnlessDry("primary.restore"),
  "seed-export": need("seed.export"),
  "seed-import": (request) => ({
    permission: "seed.import",
    danger: request.force === true && request.dryRun !== true,
  }),
  "seed-decide": dangerUnlessDry("seed.decide"),
  "access-challenge": need("access.login"),
  "access-login": need("access.login"),
  "access-logout": (request) => need(request.session === undefined ? "access.self" : "access.write"),
  "access-whoami": need("access.self"),
  "access-sessions": need("access.read"),
  "factor-enroll": danger("access.self"),
  "factor-verify": need("access.self"),
  "factor-remove": (request) => danger(request.subject === undefined ? "access.self" : "access.write"),
  "role-list": need("access.read"),
  "role-show": need("access.read"),
  "role-create": dangerUnlessPrepared,
  "role-delete": dangerUnlessPrepared,
  "role-bind": dangerUnlessPrepared,
  "role-unbind": dangerUnlessPrepared,
  "access-submit": (request) => signedNeed(request.change),
  "binding-list": need("access.read"),
  "audit-heads": need("audit.read"),
  "incident-list": need("incident.read"),
  "incident-show": need("incident.read"),
  "incident-rules": need("incident.read"),
  "incident-ack": need("incident.respond"),
  // What is throttled or let go comes right by itself; the others cut a node off.
  "incident-respond": (request) => ({
    permission: "incident.respond",
    danger: request.dryRun !== true && (request.response === "quarantine" || request.response === "revoke"),
  }),
  "agreement-list": need("agreement.read"),
  "agreement-submit": (request) => submitNeed(request.key),
  "agreement-cancel": need("agreement.submit"),
  "agreement-emergency": dangerUnlessDry("agreement.emergency"),
  "trust-list": need("trust.read"),
  "trust-show": need("trust.read"),
  "trust-policy-show": need("trust.read"),
  "trust-policy-set": (request) => request.prepare ? need("policy.write") : dangerUnlessDry("policy.write")(request),
  "evidence-list": need("trust.read"),
  "evidence-verify": need("trust.read"),
};

/** What the edge's verbs need. */
export const EDGE_NEEDS: { readonly [V in EdgeVerb]: NeedOf<{ readonly [field: string]: unknown }> } = {
  "invite-list": need("invite.read"),
  // Another node is told by a signed command, which is checked as one.
  "node-drain": (request) => ({
    permission: "command.run",
    resource: `${request.on === false ? "undrain" : "drain"}/${
      typeof request.node === "string" ? request.node.slice(0, 128) : ""
    }`,
  }),
  "seed-publish": need("seed.publish"),
  "audit-verify": need("audit.read"),
  "audit-search": need("audit.read"),
  "audit-export": need("audit.read"),
  "audit-lines": need("audit.read"),
  "config-get": need("config.read"),
  "config-try": need("config.write"),
  "config-confirm": need("config.write"),
  "config-revert": need("config.write"),
};

/** What paths need; `/control` and `/exec` need what the request in them needs. */
export const ROUTE_NEEDS: { readonly [R in Route]: Need } = {
  "/": need("status.read"),
  "/healthz": need("status.read"),
  "/readyz": need("status.read"),
  "/status": need("status.read"),
  "/spores": need("spore.list"),
  "/metrics": need("status.read"),
  "/events": need("status.read"),
  "/openapi.json": need("status.read"),
  "/shutdown": need("node.shutdown"),
  "/logs": need("log.read"),
};

/** What nodes may ask of each other. A part names its methods by this type. */
const JOIN = need("rpc.join");
const MEMBER = need("rpc.member");

/** What methods need: `rpc.join` for who has shown no credential, `rpc.member` for members. */
export const METHOD_NEEDS = {
  "join.hello": JOIN,
  "join.register": JOIN,
  "renew": JOIN,
  "session.hello": JOIN,
  // Signed by an operator, whoever carries it: the command in it is checked as his.
  "exec": JOIN,
  "seed.offer": JOIN,
  "invite.reserve": MEMBER,
  "push": MEMBER,
  "sync": MEMBER,
  "seen": MEMBER,
  "authority.sign": MEMBER,
  "assign": MEMBER,
  "status.report": MEMBER,
  "gossip": MEMBER,
  "swim.ping": MEMBER,
  "spore.push": MEMBER,
  "spore.digest": MEMBER,
  "spore.delta": MEMBER,
  "spore.confirm": MEMBER,
  "spore.read": MEMBER,
  "raft": MEMBER,
  "primary.propose": MEMBER,
  "primary.read": MEMBER,
  "primary.info": MEMBER,
  "primary.attest": MEMBER,
  "primary.fence": MEMBER,
  "audit.head": MEMBER,
  "primary.decided": MEMBER,
  "agreed.warrant": MEMBER,
  "agreement.msg": MEMBER,
  "agreement.submit": MEMBER,
  "agreement.certificate": MEMBER,
  "agreement.links": MEMBER,
  "trust.item": MEMBER,
} as const satisfies { readonly [method: string]: Need };

/** A method that nodes call on each other. */
export type Method = keyof typeof METHOD_NEEDS;

/** Whether there is such a method at all. */
export function isMethod(name: string): name is Method {
  return Object.hasOwn(METHOD_NEEDS, name);
}

/** What a request of the agent needs. */
export function controlNeed(request: ControlRequest): Need {
  // Each row takes the request of its own verb, which the type of the table holds and an index into it loses.
  const row = CONTROL_NEEDS[request.verb] as NeedOf<ControlRequest>;
  return typeof row === "function" ? row(request) : row;
}

/** Whether the edge answers a verb itself. */
export function isEdgeVerb(verb: string): verb is EdgeVerb {
  return Object.hasOwn(EDGE_NEEDS, verb);
}

/** What a request that the edge answers needs. */
export function edgeNeed(verb: EdgeVerb, request: { readonly [field: string]: unknown }): Need {
  const row = EDGE_NEEDS[verb];
  return typeof row === "function" ? row(request) : row;
}
