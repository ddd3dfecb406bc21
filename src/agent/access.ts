/**
 * Access control of a node: who it is that asks, and whether he may. Every entrance comes through {@linkcode
 * Access.authorize}: the unix socket, HTTP, the agent's own control requests, calls of other nodes, signed commands.
 *
 * Two steps: {@linkcode Access.authenticate} turns what was presented into a {@linkcode Subject}, once, since it
 * counts replays and failures; {@linkcode Access.authorize} decides, as often as it is asked.
 *
 * @module
 */

import { fromHex, toBase64Url, toHex } from "../core/bytes.ts";
import { bytes, decodeAs, encodeCbor, optional, record, WireError } from "../core/codec.ts";
import { type Envelope, sealEnvelope } from "../core/envelope.ts";
import { LIMITS } from "../core/limits.ts";
import { type Binding, type BoundSubject, decodeBinding, encodeBinding } from "../access/bindings.ts";
import {
  CHANGE_TYPE,
  changeValue,
  decodeChange,
  encodeChange,
  judgeChange,
  maySign,
  type PolicyChange,
  policyChange,
  type ProposedRecord,
} from "../access/change.ts";
import { decide, type Decision, describeNeed, type Need, type Subject } from "../access/decide.ts";
import { formatGrant, parseGrant } from "../access/permission.ts";
import { AccessPolicy, BINDING_PREFIX, ROLE_PREFIX } from "../access/policy.ts";
import { BUILT_IN_ROLES, builtInRole, decodeRole, encodeRole, type RoleSpec } from "../access/roles.ts";
import {
  type Place,
  type RequestProof,
  SECOND_FACTOR_MS,
  type Session,
  type SessionRefusal,
  Sessions,
} from "../access/sessions.ts";
import { Throttle } from "../access/throttle.ts";
import { isToken, parseToken } from "../access/tokens.ts";
import { factorName, SecondFactors, toBase32, TOTP_SECRET_BYTES, totpUri } from "../access/totp.ts";
import type { AccessRequest } from "./access_requests.ts";
import type { Method } from "./access_table.ts";
import { type Context, DEFERRED, Refusal } from "./context.ts";
import type { ControlRequest } from "./control.ts";
import type { Part } from "./part.ts";

/** The node's own work, and that of the program around it. */
export const SELF: Subject = { kind: "self", id: "", name: "this node", secondFactor: "none" };
/** Who may use the agent's socket, by its mode, and has not logged in. */
export const LOCAL: Subject = { kind: "local", id: "", name: "local", secondFactor: "none" };
/** Whoever can read the status page on loopback, or has the token of `http.tokenFile`. */
export const READER: Subject = { kind: "reader", id: "", name: "a reader", secondFactor: "none" };
/** Whoever has shown nothing. */
export const ANYONE: Subject = { kind: "anyone", id: "", name: "somebody unknown", secondFactor: "none" };

/** What somebody shows, at an entrance of the edge. */
export type Presented =
  & {
    /** Where he comes from, for the throttle: an address, or `socket`. */
    readonly source: string;
    /** Code of the second factor. */
    readonly code?: string;
  }
  & (
    | { readonly kind: "socket" | "reader" | "none" }
    | { readonly kind: "token"; readonly token: string }
    | {
      readonly kind: "session";
      readonly proof: RequestProof;
      readonly method: string;
      readonly path: string;
      readonly bodyHash: Uint8Array;
    }
  );

/** Who it is, or why that is not known. */
export type Authenticated =
  | { readonly ok: true; readonly subject: Subject }
  | { readonly ok: false; readonly code: AuthenticationRefusal; readonly message: string; readonly cure: string };

/** Why somebody is not who he says, as far as it shows. Stable: error codes and metric labels. */
export type AuthenticationRefusal = SessionRefusal | "token-invalid" | "second-factor-wrong" | "throttled";

/** Where roles and bindings are changed for the whole network. */
export interface PolicyRecords {
  /**
   * Has a record changed by agreement; without `value` it is deleted. `done` is called once, now or in a later step, with
   * the reason where it was not.
   *
   * @param change `proof`: the operator's signature that voters want to see.
   */
  write(
    change: { readonly key: string; readonly value: Uint8Array | undefined; readonly proof: Envelope },
    done: (refusal: { readonly code: string; readonly message: string; readonly cure: string } | undefined) => void,
  ): void;
  /** What is agreed on under a key; a deleted one has no value. */
  current(key: string): { readonly value: Uint8Array | undefined; readonly issuedMs: number } | undefined;
  /** Keys under a prefix. */
  keys(prefix: string): readonly string[];
}

const VERBS: { readonly [V in AccessRequest["verb"]]: true } = {
  "access-challenge": true,
  "access-login": true,
  "access-logout": true,
  "access-whoami": true,
  "access-sessions": true,
  "factor-enroll": true,
  "factor-verify": true,
  "factor-remove": true,
  "role-list": true,
  "role-show": true,
  "role-create": true,
  "role-delete": true,
  "role-bind": true,
  "role-unbind": true,
  "binding-list": true,
  "access-submit": true,
};

/** Keys of the store. */
const FACTOR = "secret/totp-";

/** `k`: operator key; missing: of the local person. */
const readFactor = record({ s: bytes({ length: TOTP_SECRET_BYTES }), k: optional(bytes({ length: 32 })) });

/** Entries that wait for the next step; the rest is counted. */
const NOTES_MAX = 64;
/** One entry of the audit log for the same denial in this time. */
const DENIAL_AUDIT_MS = 60_000;
const DENIALS_MAX = 256;
/** Entries of the audit log in a minute for what strangers do. */
const STRANGERS_PER_MINUTE = 30;

/** Access control of one node. */
export class Access implements Part {
  readonly methods: readonly Method[] = [];
  readonly verbs: readonly string[] = Object.keys(VERBS);
  /** Who has which role. */
  readonly policy: AccessPolicy = new AccessPolicy();
  readonly sessions: Sessions;
  readonly factors: SecondFactors = new SecondFactors();
  /** Where the policy is agreed on; set by the agent. */
  records: PolicyRecords | undefined;
  readonly #ctx: Context;
  readonly #entries: ReadonlyMap<string, Uint8Array>;
  /** By source, for tokens. */
  readonly #guesses = new Throttle({ max: LIMITS.throttledMax });
  /** By subject, for codes: not of one map with those, or whoever has many addresses makes room for further codes. */
  readonly #codes = new Throttle({ max: LIMITS.throttledMax });
  /** What happened outside a step: it is told in the next one. */
  #notes: (() => void)[] = [];
  readonly #denials = new Map<string, number>();
  #strangers = { minute: 0, count: 0, left: 0 };
  #founder: Uint8Array | undefined;
  #nowMs = 0;

  /** @param entries The store: what is in it counts from {@linkcode begin} on. */
  constructor(ctx: Context, entries: ReadonlyMap<string, Uint8Array>) {
    this.#ctx = ctx;
    this.#entries = entries;
    this.sessions = new Sessions(ctx.entropy.bytes(32));
  }

  /** Takes in what the store holds, once the time is known. */
  begin(): void {
    for (const [key, value] of this.#entries) {
      if (key.startsWith(FACTOR)) this.#takeFactor(key, value);
    }
  }

  // Who it is.

  /** Turns what was presented into who it is. To be called once for a request: it counts replays and failures. */
  authenticate(presented: Presented, nowMs: number): Authenticated {
    this.#time(nowMs);
    const known = this.#identify(presented);
    if (!known.ok) return known;
    const { subject } = known;
    const factor = factorOf(subject);
    if (factor === undefined || !this.factors.enrolled(factor)) return known;
    const session = subject.sessionId === undefined ? undefined : this.sessions.get(subject.sessionId, this.#nowMs);
    let fresh = (session?.secondFactorUntilMs ?? 0) > this.#nowMs;
    if (presented.code !== undefined) {
      const refused = this.#checkCode(subject, factor, presented.code);
      if (refused) return refused;
      if (session) session.secondFactorUntilMs = this.#nowMs + SECOND_FACTOR_MS;
      fresh = true;
    }
    return { ok: true, subject: { ...subject, secondFactor: fresh ? "fresh" : "enrolled" } };
  }

  #identify(presented: Presented): Authenticated {
    switch (presented.kind) {
      case "socket":
        return { ok: true, subject: LOCAL };
      case "reader":
        return { ok: true, subject: READER };
      case "none":
        return { ok: true, subject: ANYONE };
      case "token":
        return this.#identifyToken(presented.token, presented.source);
      case "session": {
        const { proof, method, path, bodyHash } = presented;
        const place = this.#place();
        if (!place) return refusal("session-unknown");
        const { sessionId, nonce, timeMs, signature } = proof;
        const words = { sessionId, nonce, timeMs, method, path, bodyHash };
        const found = this.sessions.prove({ words, signature, place }, this.#nowMs);
        if (!found.ok) {
          this.#refuse(found.reason, presented.source);
          if (found.reason === "request-replayed") {
            this.#auditStranger("request-replayed", presented.source, path.slice(0, 100));
          }
          return refusal(found.reason);
        }
        if (!this.policy.knowsOperator(found.session.key, this.#nowMs)) {
          this.sessions.endOf(found.session.key);
          return refusal("session-unknown");
        }
        return { ok: true, subject: this.#operator(found.session) };
      }
      default:
        return presented satisfies never;
    }
  }

  #identifyToken(text: string, source: string): Authenticated {
    const token = parseToken(text);
    const binding = token && this.policy.token(token.id);
    const counts = token && binding?.subject.kind === "service" &&
      isToken(token, binding.subject.hash, binding.subject.service) &&
      (binding.expiresMs === undefined || binding.expiresMs > this.#nowMs);
    if (!counts) {
      // Who has a token is never kept waiting for others that come from the same machine or proxy: 256 random bits are not
      // guessed. What is slowed down is the noise.
      const waitMs = this.#guesses.waitMs(source, this.#nowMs);
      if (waitMs > 0) return throttled(waitMs);
      this.#refuse("token-invalid", source);
      if (this.#guesses.fail(source, this.#nowMs)) {
        this.#auditStranger("locked-out", source, "too many tokens that are not valid");
      }
      return refusal("token-invalid");
    }
    const { name, subject } = binding;
    return {
      ok: true,
      subject: {
        kind: "service",
        id: token.id,
        name: `token ${name}`,
        service: (subject as BoundSubject & { readonly kind: "service" }).service,
        secondFactor: "none",
      },
    };
  }

  #operator(session: Session): Subject {
    return {
      kind: "operator",
      id: session.key,
      name: this.policy.operatorName(session.key),
      sessionId: session.id,
      secondFactor: "none",
    };
  }

  /** Who signed a command: a signature for exactly this is as good as a second factor that is shown now. */
  signer(key: Uint8Array): Subject {
    this.#time(this.#ctx.nowMs);
    const id = toHex(key);
    return { kind: "operator", id, name: this.policy.operatorName(id), secondFactor: "fresh" };
  }

  /** Whether a key has a role in this network. */
  isOperator(key: Uint8Array): boolean {
    this.#time(this.#ctx.nowMs);
    return this.policy.knowsOperator(toHex(key), this.#nowMs);
  }

  #checkCode(subject: Subject, factor: string, code: string): (Authenticated & { readonly ok: false }) | undefined {
    const waitMs = this.#codes.waitMs(factor, this.#nowMs);
    if (waitMs > 0) return throttled(waitMs);
    if (this.factors.take(factor, code, this.#nowMs).ok) {
      this.#codes.succeed(factor);
      return undefined;
    }
    this.#refuse("second-factor-wrong", subject.name);
    this.#audit("second-factor-wrong", idOf(subject), "");
    if (this.#codes.fail(factor, this.#nowMs)) {
      this.#audit("locked-out", idOf(subject), "too many wrong codes");
    }
    return refusal("second-factor-wrong");
  }

  // Whether he may: the one place.

  /**
   * Decides whether somebody may do something. Whatever is asked of this node, by whatever way, is asked here.
   *
   * @param nowMs Time of the caller; @default that of the running step.
   */
  authorize(subject: Subject, need: Need, nowMs: number = this.#ctx.nowMs): Decision {
    const decision = this.may(subject, need, nowMs);
    if (decision.ok) {
      if (need.danger && subject.kind !== "self") this.#audit("danger-allowed", idOf(subject), describeNeed(need));
      return decision;
    }
    this.#refuse(decision.reason, idOf(subject));
    // Anybody can be refused without end: that is counted, and worth no entry on disk.
    if (subject.kind !== "anyone" && subject.kind !== "reader" && subject.kind !== "node") {
      this.#auditDenial(idOf(subject), need, decision.reason);
    }
    return decision;
  }

  /** What {@linkcode authorize} would say, for who asks before he does work that is of no use otherwise. */
  may(subject: Subject, need: Need, nowMs: number = this.#ctx.nowMs): Decision {
    this.#time(nowMs);
    return decide(subject, need, this.policy, this.#nowMs);
  }

  /** As {@linkcode authorize}. @throws {Refusal} With the reason as its code. */
  demand(subject: Subject, need: Need): void {
    const decision = this.authorize(subject, need);
    if (!decision.ok) throw new Refusal(decision.reason, decision.message, decision.cure);
  }

  /** Keeps somebody from everything for a while; `false` for who cannot be kept. */
  suspend(subject: Pick<Subject, "kind" | "id">, untilMs: number, why: string): boolean {
    if (subject.kind === "operator") this.sessions.endOf(subject.id);
    return this.policy.suspend(subject, untilMs, why);
  }

  /** Tells what happened since the last step. The agent calls it in each. */
  flush(): void {
    const notes = this.#notes;
    if (notes.length === 0) return;
    this.#notes = [];
    for (const tell of notes) tell();
  }

  /** Whether something waits for a step to be told. */
  get pending(): boolean {
    return this.#notes.length > 0;
  }

  // What people ask about it.

  answer(controlId: number, asked: ControlRequest): unknown {
    const request = asked as AccessRequest;
    const by = this.#ctx.by;
    switch (request.verb) {
      case "access-challenge": {
        const place = this.#needPlace();
        return {
          challenge: toBase64Url(this.sessions.challenge(this.#ctx.nowMs, this.#ctx.entropy.bytes(24))),
          networkId: toHex(place.networkId),
          nodeKey: toHex(place.nodeKey),
          nowMs: this.#ctx.nowMs,
        };
      }
      case "access-login":
        return this.#login(request);
      case "access-logout":
        return this.#logout(request.session, by);
      case "access-whoami":
        return this.#whoami(by);
      case "access-sessions":
        return {
          sessions: this.sessions.list(this.#ctx.nowMs).map((one) => ({
            id: one.id,
            name: this.policy.operatorName(one.key),
            key: one.key,
            openedMs: one.openedMs,
            expiresMs: one.expiresMs,
          })),
        };
      case "factor-enroll":
        return this.#enroll(by);
      case "factor-verify":
        return this.#verify(by, request.code);
      case "factor-remove":
        return this.#removeFactor(by, request.subject);
      case "role-list":
        return {
          roles: [...BUILT_IN_ROLES.map((one) => builtInRole(one)!), ...this.policy.roles()].map((one) =>
            this.#shown(one)
          ),
        };
      case "role-show": {
        const role = this.policy.role(request.role);
        if (!role) throw unknown("role", request.role);
        const bindings = this.policy.bindings().filter((one) => one.role === role.name);
        return { ...this.#shown(role), bindings: bindings.map((one) => shownBinding(one)) };
      }
      case "role-create":
        return this.#createRole(controlId, request);
      case "role-delete": {
        if (builtInRole(request.role)) {
          throw new Refusal("not-allowed", `Cannot delete role "${request.role}": it is built in`);
        }
        if (!this.policy.role(request.role)) throw unknown("role", request.role);
        const key = `${ROLE_PREFIX}${request.role}`;
        const wanted = { key, value: undefined, ...preparing(request) };
        return this.#write(controlId, wanted, { role: request.role, deleted: true });
      }
      case "binding-list":
        return {
          ...(this.policy.founder === undefined ? {} : { founder: this.policy.founder }),
          bindings: this.policy.bindings().filter((one) => !request.kind || one.subject.kind === request.kind)
            .map((one) => shownBinding(one)),
        };
      case "role-bind":
        return this.#bind(controlId, request);
      case "role-unbind": {
        const binding = this.policy.binding(request.binding);
        if (!binding) throw unknown("binding", request.binding);
        const done = { binding: request.binding, role: binding.role, deleted: true };
        const key = `${BINDING_PREFIX}${request.binding}`;
        return this.#write(controlId, { key, value: undefined, ...preparing(request) }, done);
      }
      case "access-submit":
        return this.#submitSigned(controlId, request);
      default:
        return request satisfies never;
    }
  }

  #login(request: AccessRequest & { readonly verb: "access-login" }): unknown {
    const ctx = this.#ctx;
    const place = this.#needPlace();
    const key = toHex(request.key);
    const { signature, code, verb: _, ...words } = request;
    const fail = (reason: AuthenticationRefusal): Refusal => {
      const { message, cure } = refusal(reason);
      this.#refuse(reason, key.slice(0, 16));
      return new Refusal(reason, message, cure);
    };
    // Asked first: whoever makes keys of his own must not fill what is remembered of those who may log in. He is told the
    // same as for a wrong signature: who has a role is nobody's business.
    if (!this.policy.knowsOperator(key, ctx.nowMs)) {
      this.#auditStranger("login-refused", `operator:${key}`, "the key has no role");
      throw fail("signature-invalid");
    }
    const opened = this.sessions.open({ words, signature, place }, { nowMs: ctx.nowMs, id: ctx.entropy.bytes(16) });
    if (!opened.ok) {
      if (opened.reason === "login-replayed") this.#auditStranger("login-replayed", `operator:${key}`, "");
      throw fail(opened.reason);
    }
    const { session } = opened;
    const subject = this.#operator(session);
    const factor = `operator:${key}`;
    if (code !== undefined && this.factors.enrolled(factor)) {
      const refused = this.#checkCode(subject, factor, code);
      if (refused) {
        this.sessions.end(session.id);
        throw new Refusal(refused.code, refused.message, refused.cure);
      }
      session.secondFactorUntilMs = ctx.nowMs + SECOND_FACTOR_MS;
    }
    ctx.audit("login", factor, `${subject.name}, session ${session.id.slice(0, 8)}`);
    return {
      session: session.id,
      expiresMs: session.expiresMs,
      name: subject.name,
      roles: this.policy.rolesOf(subject, ctx.nowMs),
      secondFactor: this.#factorState(subject),
      nowMs: ctx.nowMs,
    };
  }

  #logout(wanted: string | undefined, by: Subject): unknown {
    const id = wanted ?? by.sessionId;
    if (id === undefined) throw new Refusal("no-session", "There is no session to end", "Log in: mycelium login");
    if (!this.sessions.end(id)) throw unknown("session", id);
    this.#ctx.audit("logout", idOf(by), `session ${id.slice(0, 8)}`);
    return { session: id, ended: true };
  }

  #whoami(by: Subject): unknown {
    const session = by.sessionId === undefined ? undefined : this.sessions.get(by.sessionId, this.#ctx.nowMs);
    return {
      kind: by.kind,
      id: by.id,
      name: by.name,
      ...(by.service === undefined ? {} : { service: by.service }),
      roles: this.policy.rolesOf(by, this.#ctx.nowMs),
      secondFactor: this.#factorState(by),
      ...(session ? { session: session.id, expiresMs: session.expiresMs } : {}),
    };
  }

  #factorState(subject: Subject): "none" | "enrolled" | "fresh" {
    const factor = factorOf(subject);
    if (factor === undefined || !this.factors.enrolled(factor)) return "none";
    const session = subject.sessionId === undefined ? undefined : this.sessions.get(subject.sessionId, this.#ctx.nowMs);
    return subject.secondFactor === "fresh" || (session?.secondFactorUntilMs ?? 0) > this.#ctx.nowMs
      ? "fresh"
      : "enrolled";
  }

  #enroll(by: Subject): unknown {
    const ctx = this.#ctx;
    const factor = factorOf(by);
    if (factor === undefined) {
      throw new Refusal("not-allowed", `A ${by.kind} has no second factor`, "Log in as a person: mycelium login");
    }
    const secret = ctx.entropy.bytes(TOTP_SECRET_BYTES);
    this.factors.set(factor, { secret, confirmed: false, nowMs: ctx.nowMs });
    // Not stored before a code has shown that it arrived: nobody is locked out by a secret that was lost on the way.
    ctx.audit("second-factor-begun", idOf(by), "");
    return {
      secret: toBase32(secret),
      uri: totpUri(secret, { network: ctx.state.network?.genesis?.record.name ?? "node", account: by.name }),
      confirmed: false,
    };
  }

  #verify(by: Subject, code: string): unknown {
    const ctx = this.#ctx;
    const factor = factorOf(by);
    if (factor === undefined || !this.factors.has(factor)) {
      throw new Refusal("not-found", "No second factor is set up here", "Set one up: mycelium totp enroll");
    }
    const waitMs = this.#codes.waitMs(factor, ctx.nowMs);
    if (waitMs > 0) throw refusalOf(throttled(waitMs));
    if (!this.factors.enrolled(factor)) {
      const { ok, confirmed } = this.factors.take(factor, code, ctx.nowMs);
      if (!ok || !confirmed) {
        this.#codes.fail(factor, ctx.nowMs);
        throw refusalOf(refusal("second-factor-wrong"));
      }
      const k = by.kind === "operator" ? fromHex(by.id) : undefined;
      ctx.persist([[FACTOR + factorName(factor), encodeCbor({ s: confirmed, k })]]);
      ctx.audit("second-factor-enrolled", idOf(by), "");
    } else {
      const refused = this.#checkCode(by, factor, code);
      if (refused) throw refusalOf(refused);
    }
    const session = by.sessionId === undefined ? undefined : this.sessions.get(by.sessionId, ctx.nowMs);
    if (session) session.secondFactorUntilMs = ctx.nowMs + SECOND_FACTOR_MS;
    return { enrolled: true, ...(session ? { freshUntilMs: session.secondFactorUntilMs } : {}) };
  }

  #removeFactor(by: Subject, wanted: string | undefined): unknown {
    const factor = wanted === undefined ? factorOf(by) : wanted === "local" ? "local" : `operator:${wanted}`;
    if (factor === undefined || !this.factors.delete(factor)) {
      throw new Refusal("not-found", "No second factor is set up for this", "Set one up: mycelium totp enroll");
    }
    this.#ctx.persist([[FACTOR + factorName(factor), null]]);
    this.#ctx.audit("second-factor-removed", idOf(by), factor);
    return { subject: factor, removed: true };
  }

  #createRole(controlId: number, request: AccessRequest & { readonly verb: "role-create" }): unknown {
    if (builtInRole(request.role)) {
      throw new Refusal("exists", `Cannot create role "${request.role}": it is built in`, "Take another name");
    }
    const grants = request.grants.map((one) => {
      const grant = parseGrant(one);
      if (!grant) throw new Refusal("bad-request", `Cannot grant "${one}": there is no such permission`);
      return grant;
    });
    const role = { name: request.role, description: request.description ?? "", grants };
    const value = encodeRole(role);
    decodeRole(role.name, value);
    return this.#write(
      controlId,
      { key: `${ROLE_PREFIX}${role.name}`, value, ...preparing(request) },
      this.#shown(role),
    );
  }

  #bind(controlId: number, request: AccessRequest & { readonly verb: "role-bind" }): unknown {
    const ctx = this.#ctx;
    const { key, token, node, ttlMs } = request;
    if (!this.policy.role(request.role)) throw unknown("role", request.role);
    if (this.policy.binding(request.binding)) {
      throw new Refusal(
        "exists",
        `Cannot bind "${request.binding}": there is a binding of that name`,
        "Take another name",
      );
    }
    const subjects: BoundSubject[] = [];
    if (key) subjects.push({ kind: "operator", key });
    if (token) subjects.push({ kind: "service", tokenId: token.id, hash: token.hash, service: token.service });
    if (node !== undefined) subjects.push({ kind: "node", nodeId: node });
    const [subject] = subjects;
    if (!subject || subjects.length > 1) {
      throw new Refusal(
        "bad-request",
        `Cannot bind "${request.binding}": wanted a key, a token or a node, one of them`,
      );
    }
    const binding: Binding = {
      name: request.binding,
      role: request.role,
      subject,
      createdMs: ctx.nowMs,
      ...(ttlMs === undefined ? {} : { expiresMs: ctx.nowMs + ttlMs }),
    };
    const value = encodeBinding(binding);
    // Read as every node will read it: what counts as nothing there must not look like done here.
    decodeBinding(binding.name, value);
    return this.#write(
      controlId,
      { key: `${BINDING_PREFIX}${binding.name}`, value, ...preparing(request) },
      shownBinding(binding),
    );
  }

  /** Changes a record by agreement, or says what is to be signed for it. */
  #write(
    controlId: number,
    wanted: { readonly key: string; readonly value: Uint8Array | undefined; readonly prepare?: boolean },
    answer: object,
  ): unknown {
    const { key, value } = wanted;
    if (wanted.prepare) return this.prepareChange(key, value);
    return this.#submit(controlId, { key, value, proof: this.signChange(key, value) }, answer);
  }

  /** What an operator is to sign elsewhere, so that a record changes: sent back with `access-submit`. @throws {Refusal} */
  prepareChange(key: string, value: Uint8Array | undefined): object {
    const { networkId } = this.#needPlace();
    return {
      change: toBase64Url(encodeChange(this.#change(key, value))),
      ...(value ? { value: toBase64Url(value) } : {}),
      networkId: toHex(networkId),
    };
  }

  /** Signs the change of a record with the operator's key of this node. @throws {Refusal} Where it has none that may. */
  signChange(key: string, value: Uint8Array | undefined): Envelope {
    const { networkId } = this.#needPlace();
    const { operatorPair } = this.#ctx.state;
    if (!operatorPair || !maySign(toHex(operatorPair.publicKey), key, this.policy, this.#ctx.nowMs)) {
      throw new Refusal(
        "no-operator-key",
        "Cannot change the policy: an operator has to sign it, and this node holds no key of one who may",
        "Sign it with your own: add --key FILE or --ssh-agent",
      );
    }
    return sealEnvelope(changeValue(this.#change(key, value)), { type: CHANGE_TYPE, networkId, signer: operatorPair });
  }

  #change(key: string, value: Uint8Array | undefined): PolicyChange {
    // Clocks differ: a change is dated behind what it replaces.
    const issuedMs = Math.max(this.#ctx.nowMs, (this.records?.current(key)?.issuedMs ?? 0) + 1);
    return policyChange(key, value, issuedMs);
  }

  /** Has a change agreed on that an operator has signed elsewhere. */
  #submitSigned(controlId: number, request: AccessRequest & { readonly verb: "access-submit" }): unknown {
    const { networkId } = this.#needPlace();
    const { change: payload, value, signer, signature } = request;
    const { key } = decodeChange(payload);
    const proof: Envelope = { type: CHANGE_TYPE, payload, signer, signature };
    const proposed = { key, value, issuedMs: this.#ctx.nowMs, currentMs: this.records?.current(key)?.issuedMs };
    if (judgeChange(proposed, [proof], { networkId, policy: this.policy }) !== "accept") {
      throw new Refusal(
        "signature-invalid",
        `Cannot change "${key}": the change is not signed by one who may, is too old, or is of another value`,
        "Try again; an operator who may has access.write: mycelium role list",
      );
    }
    return this.#submit(controlId, { key, value, proof }, { key, ...(value ? {} : { deleted: true }) });
  }

  #submit(
    controlId: number,
    change: { readonly key: string; readonly value: Uint8Array | undefined; readonly proof: Envelope },
    answer: object,
  ): unknown {
    const ctx = this.#ctx;
    const by = idOf(ctx.by);
    if (!this.records) throw new Refusal("unavailable", "Cannot change the policy: nothing can be agreed on here");
    this.records.write(change, (refused) => {
      if (!refused) {
        ctx.audit("policy-changed", by, `${change.key} ${change.value ? "set" : "deleted"}`);
        // The record comes back as any other; who asked must not have to wait for that.
        this.#take(change.key, change.value);
      }
      const result = refused ? { ok: false, error: refused } as const : { ok: true, value: answer } as const;
      ctx.emit({ type: "control-reply", controlId, result });
    });
    return DEFERRED;
  }

  /** What a voter says of a record of the policy. */
  judge(proposed: ProposedRecord, proofs: readonly Envelope[]): "accept" | "refuse" | "later" {
    const place = this.#place();
    if (!place) return "later";
    this.#time(this.#ctx.nowMs);
    return judgeChange(proposed, proofs, { networkId: place.networkId, policy: this.policy });
  }

  /** A record of the policy has changed. */
  changed(key: string): void {
    this.#take(key, this.records?.current(key)?.value);
  }

  #take(key: string, value: Uint8Array | undefined): void {
    const result = this.policy.put(key, value);
    if (result === "unreadable" || result === "full") {
      this.#notes.push(() =>
        this.#ctx.log("warn", "access-record", `A record of the policy counts as none: ${key}, ${result}`)
      );
    }
    // Who has lost his role has lost his sessions.
    for (const { key } of this.sessions.list(this.#nowMs)) {
      if (!this.policy.knowsOperator(key, this.#nowMs)) this.sessions.endOf(key);
    }
  }

  #takeFactor(key: string, value: Uint8Array): void {
    const nowMs = this.#ctx.nowMs;
    try {
      const { s, k } = decodeAs(value, readFactor);
      this.factors.set(k ? `operator:${toHex(k)}` : "local", { secret: s, confirmed: true, nowMs });
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      this.factors.spoil(key.slice(FACTOR.length));
      this.#notes.push(() =>
        this.#ctx.log("error", "second-factor-unreadable", `Cannot read ${key}: ${error.message}`)
      );
    }
  }

  // Part.

  serve(_peer: unknown, method: string): never {
    throw new Refusal("unknown-method", `no method "${method}"`);
  }

  start(): void {
    for (const prefix of [ROLE_PREFIX, BINDING_PREFIX]) {
      for (const key of this.records?.keys(prefix) ?? []) this.changed(key);
    }
  }

  keys(): readonly string[] {
    return [
      ...this.factors.names().map((one) => FACTOR + one),
    ];
  }

  clear(): void {
    this.policy.clear();
    this.sessions.clear();
    this.factors.clear();
    this.#founder = undefined;
  }

  wake(): number {
    return Infinity;
  }

  clockSetBack(): void {
    // What is remembered against replay goes by the clock.
    this.sessions.clear();
    this.#guesses.clockSetBack();
    this.#codes.clockSetBack();
  }

  #shown(role: RoleSpec): object {
    return {
      role: role.name,
      description: role.description,
      builtIn: builtInRole(role.name) !== undefined,
      grants: role.grants.map(formatGrant),
    };
  }

  #place(): Place | undefined {
    const { network, keyPair } = this.#ctx.state;
    return network?.genesis ? { networkId: network.networkId, nodeKey: keyPair.publicKey } : undefined;
  }

  #needPlace(): Place {
    const place = this.#place();
    if (place) return place;
    throw new Refusal(
      "no-network",
      "This node is not a member of a network yet",
      "Form one: mycelium init; or join one: mycelium join <invite>",
    );
  }

  /** The edge asks between steps, by its own clock. */
  #time(nowMs: number): void {
    this.#nowMs = nowMs;
    const key = this.#ctx.state.network?.genesis?.record.operatorKey;
    if (key === this.#founder) return;
    this.#founder = key;
    this.policy.setFounder(key);
  }

  #refuse(reason: string, from: string): void {
    this.#note(() => this.#ctx.refuse(reason, from));
  }

  #audit(action: string, by: string, detail: string): void {
    this.#note(() => this.#ctx.audit(action, by, detail));
  }

  /** What anybody can bring about without end gets so many entries on disk and no more; the next one says how many went. */
  #auditStranger(action: string, by: string, detail: string): void {
    const minute = Math.floor(this.#nowMs / 60_000);
    if (minute !== this.#strangers.minute) this.#strangers = { minute, count: 0, left: this.#strangers.left };
    if (this.#strangers.count >= STRANGERS_PER_MINUTE) {
      this.#strangers.left += 1;
      return;
    }
    this.#strangers.count += 1;
    const left = this.#strangers.left > 0 ? ` (${this.#strangers.left} before it were not written down)` : "";
    this.#strangers.left = 0;
    this.#audit(action, by, `${detail}${left}`.trim());
  }

  #note(tell: () => void): void {
    // More between two steps than anybody reads: the agent steps at least each time that something is asked of it.
    if (this.#notes.length < NOTES_MAX) this.#notes.push(tell);
  }

  #auditDenial(by: string, need: Need, reason: string): void {
    const name = `${by} ${need.permission} ${reason}`;
    const lastMs = this.#denials.get(name);
    if (lastMs !== undefined && Math.abs(this.#nowMs - lastMs) < DENIAL_AUDIT_MS) return;
    this.#denials.delete(name);
    if (this.#denials.size >= DENIALS_MAX) this.#denials.delete(this.#denials.keys().next().value!);
    this.#denials.set(name, this.#nowMs);
    this.#audit("denied", by, `${describeNeed(need)}: ${reason}`);
  }
}

/** Name of somebody for the audit log. */
export function idOf(subject: Subject): string {
  return subject.id === "" ? subject.kind : `${subject.kind}:${subject.id}`;
}

/** Under which name somebody's second factor is kept; `undefined` for who can have none. */
function factorOf(subject: Subject): string | undefined {
  if (subject.kind === "local") return "local";
  return subject.kind === "operator" ? `operator:${subject.id}` : undefined;
}

function preparing(request: { readonly prepare?: boolean }): { readonly prepare?: boolean } {
  return request.prepare ? { prepare: true } : {};
}

function shownBinding(one: Binding): object {
  const { subject } = one;
  return {
    binding: one.name,
    role: one.role,
    kind: subject.kind,
    ...(subject.kind === "operator"
      ? { key: toHex(subject.key) }
      : subject.kind === "service"
      ? { tokenId: subject.tokenId, service: subject.service }
      : { node: subject.nodeId }),
    createdMs: one.createdMs,
    ...(one.expiresMs === undefined ? {} : { expiresMs: one.expiresMs }),
  };
}

const AUTHENTICATION: { readonly [R in AuthenticationRefusal]: readonly [message: string, cure: string] } = {
  "challenge-expired": ["The challenge is older than a minute", "Log in again: mycelium login"],
  "challenge-foreign": [
    "The challenge is not of this node, or of an earlier start of it",
    "Log in again: mycelium login",
  ],
  "login-replayed": ["This login was used before", "Log in again: mycelium login"],
  "signature-invalid": [
    "The key has no role here, or its signature is not valid",
    "An admin adds it: mycelium operator add",
  ],
  "sessions-full": ["There are too many sessions", "End some: mycelium logout"],
  "session-unknown": [
    "The session is not known: it has ended, or the node has started anew",
    "Log in again: mycelium login",
  ],
  "session-expired": ["The session has run out", "Log in again: mycelium login"],
  "request-expired": [
    "The request is more than a minute old or ahead",
    "Check the clock of this machine, and log in again",
  ],
  "request-replayed": ["The request was made before", "Make it anew"],
  "token-invalid": [
    "The token is not valid: not known, taken back or run out",
    "An admin makes one: mycelium token create",
  ],
  "second-factor-wrong": ["The code of the second factor is wrong, or was used before", "Wait for the next code"],
  "throttled": ["There were too many failures", "Wait"],
};

function refusal(code: AuthenticationRefusal): Authenticated & { readonly ok: false } {
  const [message, cure] = AUTHENTICATION[code];
  return { ok: false, code, message, cure };
}

function throttled(waitMs: number): Authenticated & { readonly ok: false } {
  return { ...refusal("throttled"), cure: `Wait for ${Math.ceil(waitMs / 1_000)} s` };
}

function refusalOf(refused: Authenticated & { readonly ok: false }): Refusal {
  return new Refusal(refused.code, refused.message, refused.cure);
}

function unknown(what: string, name: string): Refusal {
  return new Refusal("not-found", `There is no ${what} "${name}"`, `See which there are: mycelium ${LISTS[what]}`);
}

const LISTS: Readonly<Record<string, string>> = {
  role: "role list",
  binding: "operator list, token list",
  session: "whoami",
};
