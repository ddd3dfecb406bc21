/**
 * Who has which role: the built-in part, and the records that the network agreed on.
 *
 * @module
 */

import { fromHex, toHex } from "../core/bytes.ts";
import { WireError } from "../core/codec.ts";
import { LIMITS } from "../core/limits.ts";
import { type Binding, decodeBinding, subjectId } from "./bindings.ts";
import type { Policy, Subject } from "./decide.ts";
import { builtInRole, decodeRole, type RoleSpec } from "./roles.ts";

/** First segments of the records' keys. */
export const ROLE_PREFIX = "agreed/role/";
/** First segments of the keys of bindings. */
export const BINDING_PREFIX = "agreed/binding/";

/** The policy of one node. */
export class AccessPolicy implements Policy {
  readonly #roles = new Map<string, RoleSpec>();
  readonly #bindings = new Map<string, Binding>();
  /** Names of the bindings of a subject, in their order. */
  readonly #bySubject = new Map<string, string[]>();
  readonly #suspended = new Map<string, { readonly untilMs: number; readonly why: string }>();
  /** Key that the genesis record names: admin without a record, so that there is one from the beginning. */
  #founder: string | undefined;

  /** Says which operator key the genesis record names, or that there is no network. */
  setFounder(key: Uint8Array | undefined): void {
    this.#founder = key && toHex(key);
  }

  /** Key that the genesis record names, hexadecimal. */
  get founder(): string | undefined {
    return this.#founder;
  }

  /**
   * Takes a record in; one that does not read counts as none, so that nobody keeps a role by spoiling its record.
   *
   * @param value Missing: the record is gone.
   * @returns Whether it was taken in: `unreadable` and `full` mean that it counts as none.
   */
  put(key: string, value: Uint8Array | undefined): "taken" | "foreign" | "unreadable" | "full" {
    const isRole = key.startsWith(ROLE_PREFIX);
    if (!isRole && !key.startsWith(BINDING_PREFIX)) return "foreign";
    const name = key.slice(isRole ? ROLE_PREFIX.length : BINDING_PREFIX.length);
    if (isRole) this.#roles.delete(name);
    else this.#unbind(name);
    if (!value) return "taken";
    try {
      if (isRole) {
        if (this.#roles.size >= LIMITS.accessRolesMax) return "full";
        this.#roles.set(name, decodeRole(name, value));
      } else {
        if (this.#bindings.size >= LIMITS.accessBindingsMax) return "full";
        this.#bind(decodeBinding(name, value));
      }
      return "taken";
    } catch (error) {
      if (error instanceof WireError) return "unreadable";
      throw error;
    }
  }

  /** Whether a record under a key would count: one that is there already, or there is room for one more. */
  hasRoom(key: string): boolean {
    if (key.startsWith(ROLE_PREFIX)) {
      return this.#roles.has(key.slice(ROLE_PREFIX.length)) || this.#roles.size < LIMITS.accessRolesMax;
    }
    return this.#bindings.has(key.slice(BINDING_PREFIX.length)) || this.#bindings.size < LIMITS.accessBindingsMax;
  }

  /** Forgets all records and suspensions. */
  clear(): void {
    this.#roles.clear();
    this.#bindings.clear();
    this.#bySubject.clear();
    this.#suspended.clear();
    this.#founder = undefined;
  }

  role(name: string): RoleSpec | undefined {
    return builtInRole(name) ?? this.#roles.get(name);
  }

  rolesOf(subject: Subject, nowMs: number): readonly string[] {
    switch (subject.kind) {
      case "local":
      case "self":
        return ["admin"];
      case "reader":
        return ["reader"];
      case "anyone":
        return ["anyone"];
      case "node":
        return this.#bySubject.size === 0 ? NODE : ["node", ...this.#given(`node:${subject.id}`, nowMs)];
      case "operator":
        return subject.id === this.#founder ? ["admin"] : this.#given(`operator:${subject.id}`, nowMs);
      case "service":
        return this.#given(`service:${subject.id}`, nowMs);
      default:
        return subject.kind satisfies never;
    }
  }

  /** Keeps somebody from everything for a while; the local person cannot be locked out of his own machine. */
  suspend(subject: Pick<Subject, "kind" | "id">, untilMs: number, why: string): boolean {
    if (subject.kind === "local" || subject.kind === "self" || subject.kind === "reader" || subject.kind === "anyone") {
      return false;
    }
    const name = `${subject.kind}:${subject.id}`;
    if (!this.#suspended.has(name) && this.#suspended.size >= LIMITS.accessSuspendedMax) {
      // The one that would end first makes room.
      const [first] = [...this.#suspended].sort(([, a], [, b]) => a.untilMs - b.untilMs);
      this.#suspended.delete(first![0]);
    }
    this.#suspended.set(name, { untilMs, why });
    return true;
  }

  /** Ends a suspension; says whether there was one. */
  resume(subject: Pick<Subject, "kind" | "id">): boolean {
    return this.#suspended.delete(`${subject.kind}:${subject.id}`);
  }

  suspended(subject: Subject, nowMs: number): string | undefined {
    if (this.#suspended.size === 0) return undefined;
    const found = this.#suspended.get(`${subject.kind}:${subject.id}`);
    return found && found.untilMs > nowMs ? found.why : undefined;
  }

  /** A binding of a token, whether it counts or has run out. */
  token(tokenId: string): Binding | undefined {
    return this.#first(`service:${tokenId}`);
  }

  /** Whether an operator key has a role now. */
  knowsOperator(key: string, nowMs: number): boolean {
    return key === this.#founder || this.#given(`operator:${key}`, nowMs).length > 0;
  }

  /** Name of an operator key for people. */
  operatorName(key: string): string {
    return this.#first(`operator:${key}`)?.name ?? (key === this.#founder ? "founder" : `key ${key.slice(0, 8)}`);
  }

  /** Roles of the network's own, by name. */
  roles(): readonly RoleSpec[] {
    return [...this.#roles.values()].sort((a, b) => a.name < b.name ? -1 : 1);
  }

  /** Bindings by name. */
  bindings(): readonly Binding[] {
    return [...this.#bindings.values()].sort((a, b) => a.name < b.name ? -1 : 1);
  }

  /** A binding, or `undefined`. */
  binding(name: string): Binding | undefined {
    return this.#bindings.get(name);
  }

  #given(subject: string, nowMs: number): string[] {
    const names = this.#bySubject.get(subject) ?? [];
    return names.map((name) => this.#bindings.get(name)!)
      .filter((one) => one.expiresMs === undefined || one.expiresMs > nowMs)
      .map((one) => one.role);
  }

  #first(subject: string): Binding | undefined {
    const [name] = this.#bySubject.get(subject) ?? [];
    return name === undefined ? undefined : this.#bindings.get(name);
  }

  #bind(binding: Binding): void {
    this.#bindings.set(binding.name, binding);
    const subject = subjectId(binding.subject);
    const names = this.#bySubject.get(subject) ?? [];
    // A sorted list: whoever took the records in, in whatever order, has the same one.
    this.#bySubject.set(subject, [...names, binding.name].sort());
  }

  #unbind(name: string): void {
    const binding = this.#bindings.get(name);
    if (!binding) return;
    this.#bindings.delete(name);
    const subject = subjectId(binding.subject);
    const rest = this.#bySubject.get(subject)!.filter((one) => one !== name);
    if (rest.length > 0) this.#bySubject.set(subject, rest);
    else this.#bySubject.delete(subject);
  }
}

/** Bytes of an operator key in hexadecimal. */
export function keyOfId(id: string): Uint8Array | undefined {
  const key = fromHex(id);
  return key?.length === 32 ? key : undefined;
}

const NODE: readonly string[] = ["node"];
