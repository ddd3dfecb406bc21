/**
 * Incidents of this node: what is refused and written down goes through the rules, and what they ask for is done with
 * the means that the node has.
 *
 * - alert: the log, the audit log, `/events`, status and metrics.
 * - throttle: calls of a node or of an address are let through a few at a time, and answered `throttled` else. What
 *   members need of each other to agree and to notice failures is not held up.
 * - quarantine: this node takes and makes no channel to that node. It is a matter of this node alone, and ends.
 * - revoke: a node is removed, or the invites are taken back, as by hand; it is never undone.
 *
 * @module
 */

import {
  CROWD,
  fits,
  type Incident,
  type IncidentEffect,
  Incidents,
  type IncidentSettings,
  incidentValue,
  isActive,
  type Measure,
  readIncident,
  type Response,
  RESPONSES,
} from "../access/incidents.ts";
import { decodeAs, encodeCbor, WireError } from "../core/codec.ts";
import { parseAddress, publicKeyOf } from "../core/ids.ts";
import type { Method } from "./access_table.ts";
import { type Context, Refusal } from "./context.ts";
import type { ControlRequest } from "./control.ts";
import type { PeerView } from "./effects.ts";
import { INCIDENT_READERS, type IncidentRequest } from "./incident_requests.ts";
import type { Part } from "./part.ts";
import type { Put } from "./state.ts";
import type { IncidentsStatus } from "./status.ts";

/** What incidents need of the rest of the agent. */
export interface IncidentDeps {
  /** Removes a member for good. @throws {Refusal} Where this node may not. */
  removeNode(nodeId: string, reason: string): void;
  /** Takes back the open invites that were given here since a time; returns how many. @throws {Refusal} */
  revokeInvites(sinceMs: number): number;
}

/** One incident as it is told of. */
export type IncidentView = Omit<Incident, "measures"> & {
  readonly title: string;
  /** What a person can do about it. */
  readonly possible: readonly Response[];
  readonly measures: readonly (Measure & { readonly active: boolean })[];
};

const KEY = "incident/";
const RESPOND_MS = 3_600_000;
/** Events that wait for the end of the step; further ones are counted as refusals only. */
const QUEUE_MAX = 1_024;
/** The clock moved on by more than a machine that runs can miss. */
const FORWARD_MS = 10 * 60_000;
/** Calls of a stranger that is throttled: so many at once, and one each so often. */
const STRANGER = { burst: 2, everyMs: 10_000 } as const;
/** Of a member. */
const MEMBER = { burst: 50, everyMs: 50 } as const;
/** What members must be able to tell each other whoever is suspected. */
const VITAL: ReadonlySet<string> = new Set([
  "raft",
  "gossip",
  "swim.ping",
  "session.hello",
  "renew",
  "agreement.msg",
  "agreement.certificate",
  "primary.fence",
  "primary.attest",
]);
/** Refusals of one kind from one subject are written down once in this time, with their number at its end. */
const REFUSAL_MS = 10 * 60_000;
const REFUSALS_MAX = 256;

/** An address is blamed for what so many nodes behind it would be blamed for. */
const ADDRESS_FACTOR = 4;

/** Whom an event is about, and what may be done to him. */
interface Blamed {
  readonly subject: string;
  /** Sharpest response without proof, and with it. */
  readonly sharpest: Response;
  readonly proven: Response;
  readonly factor?: number;
}

interface Bucket {
  tokens: number;
  atMs: number;
}

/** Finds incidents and carries out responses. */
export class IncidentKeeper implements Part {
  readonly methods: readonly Method[] = [];
  readonly verbs: readonly string[] = Object.keys(INCIDENT_READERS);
  readonly incidents: Incidents;
  readonly #ctx: Context;
  readonly #deps: IncidentDeps;
  readonly #queue: { readonly kind: string; readonly from: string; readonly detail: string }[] = [];
  readonly #buckets = new Map<string, Bucket>();
  readonly #refusals = new Map<string, { sinceMs: number; count: number; reason: string; subject: string }>();
  readonly #opened = new Map<string, number>();
  /** Measures in force by subject; those whose time is over are told apart where they are used. */
  #active: ReadonlyMap<string, readonly (Measure & { readonly rule: string })[]> = new Map();
  #throttled = 0;
  #lastMs: number | undefined;
  /** When the rules want to be asked again; they are asked for it only when something has changed. */
  #nextMs = Infinity;
  /** Kinds of refusals that a rule looks for. */
  #looked: readonly string[] = [];

  /** @param entries The store. */
  constructor(
    ctx: Context,
    entries: ReadonlyMap<string, Uint8Array>,
    settings: IncidentSettings,
    deps: IncidentDeps,
  ) {
    this.#ctx = ctx;
    this.#deps = deps;
    const known: Incident[] = [];
    for (const [key, value] of entries) {
      if (!key.startsWith(KEY)) continue;
      try {
        known.push(decodeAs(value, readIncident));
      } catch (error) {
        if (!(error instanceof WireError)) throw error;
        ctx.state.unreadable.push(key);
      }
    }
    this.incidents = new Incidents(settings, known);
    this.#note();
    this.#look();
    ctx.watch = {
      audited: (action, by) => this.observe(`audit:${action}`, by, ""),
      refused: (reason, from) => this.observe(`refused:${reason}`, from, ""),
      proved: (nodeId, what) => this.observe("proof:equivocation", nodeId, what),
    };
  }

  /** Sets the rules anew. */
  configure(settings: IncidentSettings): void {
    this.incidents.configure(settings);
    this.#look();
  }

  /** Something happened; it is looked at when the step ends. @param from Node, address or principal. */
  observe(kind: string, from: string, detail: string): void {
    if (this.#queue.length >= QUEUE_MAX || !this.#looked.some((one) => fits(one, kind))) return;
    this.#queue.push({ kind, from, detail });
    this.#ctx.wakeAt(this.#ctx.nowMs);
  }

  /** Whether this node has nothing to do with a node for the time being. */
  isQuarantined(nodeId: string): boolean {
    return this.#measured(`node:${nodeId}`, "quarantine") !== undefined;
  }

  /**
   * Whether a call is let through.
   *
   * @throws {Refusal} `quarantined` or `throttled`.
   */
  admit(peer: PeerView, member: boolean, method: string): void {
    // This is asked for every call, and there is hardly ever anything.
    if (this.#active.size === 0) return;
    if (this.isQuarantined(peer.nodeId)) {
      throw new Refusal("quarantined", "this node has nothing to do with you for now");
    }
    if (member && VITAL.has(method)) return;
    const host = hostOf(peer.remoteAddress);
    const subjects = [`node:${peer.nodeId}`, ...(member || host === undefined ? [] : [`address:${host}`])];
    for (const subject of subjects) {
      const rule = this.#measured(subject, "throttle");
      if (rule === undefined || this.#take(subject, member ? MEMBER : STRANGER)) continue;
      this.#throttled += 1;
      // Who is held up for what he did himself and goes on is worse than one who does it once. Others may share an address.
      if (subject.startsWith("node:")) this.observe(`throttled:${rule}`, peer.nodeId, method);
      throw new Refusal("throttled", "too much of this: wait, and ask more slowly");
    }
  }

  /** What status says. */
  status(): IncidentsStatus {
    const { nowMs } = this.#ctx;
    const all = this.incidents.all();
    const live = all.filter((one) => one.state !== "closed");
    return {
      open: all.filter((one) => one.state === "open").length,
      acknowledged: all.filter((one) => one.state === "acknowledged").length,
      dryRun: this.incidents.dryRun,
      measures: all.flatMap((one) =>
        one.measures.filter((measure) => isActive(measure, nowMs)).map(({ response, subject, untilMs }) => ({
          incident: one.id,
          response,
          subject,
          untilMs,
        }))
      ).slice(-64),
      latest: live.slice(-16).reverse().map((one) => ({
        id: one.id,
        rule: one.rule,
        title: this.#titleOf(one.rule),
        severity: one.severity,
        state: one.state,
        subject: one.subject,
        count: one.count,
        firstMs: one.firstMs,
        lastMs: one.lastMs,
        detail: one.detail,
      })),
      opened: Object.fromEntries(this.#opened),
      throttled: this.#throttled,
    };
  }

  serve(): never {
    throw new Refusal("unknown-method", "incidents serve no method");
  }

  answer(_controlId: number, asked: ControlRequest): unknown {
    const request = asked as ControlRequest & IncidentRequest;
    const { nowMs } = this.#ctx;
    switch (request.verb) {
      case "incident-list":
        return this.incidents.all().filter((one) => request.all || one.state !== "closed").map((one) =>
          this.#view(one)
        );
      case "incident-show":
        return this.#view(this.#find(request.id));
      case "incident-ack": {
        const found = this.#find(request.id);
        const note = request.note ?? "";
        this.#carryOut(this.incidents.step({ type: "acknowledge", nowMs, id: found.id, by: this.#who(), note }));
        this.#ctx.audit("incident-acknowledged", this.#ctx.state.nodeId, note, { target: `incident ${found.id}` });
        return this.#view(this.#find(found.id));
      }
      case "incident-respond":
        return this.#respond(request);
      case "incident-rules":
        return { dryRun: this.incidents.dryRun, rules: this.incidents.rules };
      default:
        return request satisfies never;
    }
  }

  start(): void {}

  clear(): void {
    for (const one of this.incidents.all()) {
      this.#carryOut(this.incidents.step({ type: "release", nowMs: this.#ctx.nowMs, id: one.id, by: "reset" }));
    }
    this.#buckets.clear();
  }

  /** What happened to this machine is not forgotten with the network. */
  keys(): readonly string[] {
    return [];
  }

  wake(): number {
    const { nowMs } = this.#ctx;
    if (this.#lastMs !== undefined && nowMs - this.#lastMs > FORWARD_MS) {
      this.observe("clock:forward", this.#ctx.state.nodeId, `by ${Math.round((nowMs - this.#lastMs) / 60_000)} min`);
    }
    this.#lastMs = nowMs;
    for (const one of this.#queue.splice(0)) this.#handle(one);
    for (const [key, one] of this.#refusals) {
      if (nowMs < one.sinceMs + REFUSAL_MS) break;
      this.#refusals.delete(key);
      this.#sum(one);
    }
    if (nowMs >= this.#nextMs) {
      this.#carryOut(this.incidents.step({ type: "wake", nowMs }));
      this.#nextMs = this.incidents.nextMs();
    }
    const first = this.#refusals.values().next().value;
    return Math.min(this.#nextMs, first ? first.sinceMs + REFUSAL_MS : Infinity);
  }

  clockSetBack(): void {
    const { nowMs } = this.#ctx;
    this.#lastMs = nowMs;
    this.#carryOut(this.incidents.clockSetBack(nowMs));
    this.#buckets.clear();
    for (const one of this.#refusals.values()) one.sinceMs = Math.min(one.sinceMs, nowMs);
    this.observe("clock:back", this.#ctx.state.nodeId, "");
  }

  #handle(one: { readonly kind: string; readonly from: string; readonly detail: string }): void {
    const { nowMs } = this.#ctx;
    for (const { subject, ...caps } of this.#subjectsOf(one.kind, one.from)) {
      const detail = one.detail || one.from;
      const event = { atMs: nowMs, kind: one.kind, subject, detail };
      if (one.kind.startsWith("refused:") && !caps.factor) this.#writeDown(one.kind.slice(8), subject);
      this.#carryOut(this.incidents.step({ type: "observed", event, ...caps }));
    }
  }

  /** Whom an event is about, and the sharpest response against him without and with proof. */
  #subjectsOf(
    kind: string,
    from: string,
  ): Blamed[] {
    const { state, sessions } = this.#ctx;
    // Invites are taken back, whoever gave them.
    if (kind === "audit:invite-created") {
      return [{ subject: `principal:${from}`, sharpest: "revoke", proven: "revoke" }];
    }
    // Anybody on the segment can send a beacon in the name of any address: that one is told of, and not held up.
    if (kind.startsWith("refused:discovery-")) {
      const host = from.replace(/^mdns /, "");
      return [{ subject: `label:${hostOf(host) ?? host}`, sharpest: "alert", proven: "alert" }];
    }
    if (from === state.nodeId) return [{ subject: "this-node", sharpest: "alert", proven: "alert" }];
    const node = publicKeyOf(from) ? from : this.#nodeAt(from);
    const found: Blamed[] = [];
    if (node !== undefined) {
      const member = state.members.get(node) !== undefined;
      // An issuer is taken out by the others: shut out by each alone, two of three could not agree on anything.
      const issuer = state.network?.chain?.isIssuer(publicKeyOf(node)!) ?? false;
      const proven = issuer ? "throttle" : "quarantine";
      found.push({ subject: `node:${node}`, sharpest: member ? "throttle" : "quarantine", proven });
      // Whoever makes a new key for each try is known by his address; others may be behind it as well.
      if (member) return found;
    }
    const host = hostOf(node === undefined ? from : sessions.get(node)?.peer.remoteAddress ?? "");
    if (host !== undefined) {
      found.push({
        subject: `address:${host}`,
        sharpest: "throttle",
        proven: "throttle",
        ...(node === undefined ? {} : { factor: ADDRESS_FACTOR }),
      });
    }
    if (found.length === 0) found.push({ subject: `principal:${from}`, sharpest: "alert", proven: "alert" });
    return found;
  }

  #nodeAt(address: string): string | undefined {
    for (const [nodeId, { peer }] of this.#ctx.sessions) if (peer.remoteAddress === address) return nodeId;
    return undefined;
  }

  /** Carries out what the rules want. */
  #carryOut(effects: readonly IncidentEffect[]): void {
    const ctx = this.#ctx;
    const puts = new Map<string, Put>();
    for (const effect of effects) {
      switch (effect.type) {
        case "store": {
          const key = `${KEY}${effect.incident.id}`;
          puts.set(key, [key, encodeCbor(incidentValue(effect.incident))]);
          break;
        }
        case "forget":
          puts.set(`${KEY}${effect.id}`, [`${KEY}${effect.id}`, null]);
          break;
        case "alert": {
          const { incident } = effect;
          this.#opened.set(incident.rule, (this.#opened.get(incident.rule) ?? 0) + 1);
          const title = this.#titleOf(incident.rule);
          const level = incident.severity === "critical" ? "error" : incident.severity === "warning" ? "warn" : "info";
          ctx.log(level, "incident", `${title}: ${incident.subject}. See: mycelium incident show ${incident.id}`, {
            incident: incident.id,
            rule: incident.rule,
            subject: incident.subject,
          });
          ctx.audit("incident-opened", ctx.state.nodeId, `${incident.rule}: ${incident.detail}`, {
            target: incident.subject,
          });
          break;
        }
        case "begin":
          this.#begin(effect.incident, effect.measure);
          break;
        case "end": {
          const { response, subject } = effect.measure;
          ctx.log("info", "incident-response-ended", `${response} of ${subject} has ended: ${effect.by}`);
          ctx.audit(
            "incident-response-ended",
            ctx.state.nodeId,
            `${response}, incident ${effect.incident.id}: ${effect.by}`,
            {
              target: subject,
            },
          );
          break;
        }
        default:
          effect satisfies never;
      }
    }
    if (puts.size === 0) return;
    this.#note();
    ctx.persist([...puts.values()]);
  }

  #begin(incident: Incident, measure: Measure): void {
    const ctx = this.#ctx;
    const { response, subject, dryRun } = measure;
    const until = measure.untilMs > 0 ? ` until ${new Date(measure.untilMs).toISOString()}` : "";
    const what = `${response}${until}, incident ${incident.id}, by ${measure.by}`;
    if (dryRun) {
      ctx.log("warn", "incident-response", `Dry run: ${response} of ${subject} would begin`, { incident: incident.id });
      return ctx.audit("incident-response-dry", ctx.state.nodeId, what, { target: subject });
    }
    ctx.log("warn", "incident-response", `${response} of ${subject} begins${until}`, { incident: incident.id });
    ctx.audit("incident-response", ctx.state.nodeId, what, { target: subject });
    const nodeId = subject.startsWith("node:") ? subject.slice(5) : undefined;
    if (response === "quarantine" && nodeId !== undefined && ctx.sessions.has(nodeId)) {
      ctx.emit({ type: "hang-up", nodeId, reason: "quarantined" });
    }
    // By a rule: what cannot be done is told, and the incident stays. By a person it was checked before.
    if (response !== "revoke" || measure.by !== "rule") return;
    try {
      this.#revoke(incident);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      ctx.log("error", "incident-response-failed", `Cannot revoke ${subject}: ${error.message}`);
      ctx.audit("incident-response-failed", ctx.state.nodeId, error.message, { target: subject, outcome: "failed" });
    }
  }

  #revoke(incident: Incident): string {
    const { subject } = incident;
    if (subject.startsWith("node:")) {
      this.#deps.removeNode(subject.slice(5), `incident ${incident.id}: ${incident.rule}`);
      return "the node was removed";
    }
    if (incident.rule === "mass-invites") {
      const rule = this.incidents.rules.find((one) => one.id === incident.rule);
      return `${this.#deps.revokeInvites(incident.firstMs - (rule?.windowMs ?? 0))} invites were revoked`;
    }
    throw new Refusal("bad-request", `Cannot revoke ${subject}: it is neither a node nor one who gave invites`);
  }

  #respond(request: IncidentRequest & { readonly verb: "incident-respond" }): unknown {
    const { nowMs } = this.#ctx;
    const found = this.#find(request.id);
    const { response, dryRun = false, forMs = RESPOND_MS } = request;
    const { subject } = found;
    if (response === "release") {
      const active = found.measures.filter((one) => isActive(one, nowMs));
      if (!dryRun) this.#carryOut(this.incidents.step({ type: "release", nowMs, id: found.id, by: this.#who() }));
      return { incident: found.id, subject, response, dryRun, ends: active.map((one) => one.response) };
    }
    const possible = this.#possible(found);
    if (!possible.includes(response)) {
      throw new Refusal(
        "bad-request",
        `Cannot ${response} ${subject}: of this incident one can ${possible.join(", ") || "only take note"}`,
        "See: mycelium incident show",
      );
    }
    const untilMs = response === "revoke" ? 0 : nowMs + forMs;
    if (dryRun) return { incident: found.id, subject, response, dryRun, untilMs };
    // First the deed: one that is refused leaves no word that it was done.
    const done = response === "revoke" ? this.#revoke(found) : "";
    this.#carryOut(this.incidents.step({ type: "respond", nowMs, id: found.id, response, forMs, by: this.#who() }));
    return { incident: found.id, subject, response, dryRun, untilMs, ...(done === "" ? {} : { done }) };
  }

  /** What can be done about an incident. */
  #possible(incident: Incident): readonly Response[] {
    const { subject } = incident;
    if (subject === CROWD || subject === "this-node") return [];
    if (subject.startsWith("address:")) return ["throttle"];
    if (incident.rule === "mass-invites") return ["revoke"];
    if (!subject.startsWith("node:")) return [];
    const member = this.#ctx.state.members.get(subject.slice(5)) !== undefined;
    return RESPONSES.filter((one) => one !== "alert" && (one !== "revoke" || member));
  }

  /** Refusals are written down once for a while, and summed up behind it: an entry costs a sync of the disk. */
  #writeDown(reason: string, subject: string): void {
    const { nowMs } = this.#ctx;
    const key = `${reason} ${subject}`;
    const known = this.#refusals.get(key);
    if (known) {
      known.count += 1;
      return;
    }
    if (this.#refusals.size >= REFUSALS_MAX) {
      const [oldest, one] = this.#refusals.entries().next().value!;
      this.#refusals.delete(oldest);
      this.#sum(one);
    }
    this.#refusals.set(key, { sinceMs: nowMs, count: 0, reason, subject });
    this.#entry(subject, reason);
  }

  #sum(one: { readonly count: number; readonly reason: string; readonly subject: string }): void {
    if (one.count > 0) this.#entry(one.subject, `${one.reason}, ${one.count} times more`);
  }

  #entry(subject: string, detail: string): void {
    this.#ctx.auditBounded("refused", subject, detail, { outcome: "refused", entrance: "rpc" });
  }

  #take(subject: string, rate: { readonly burst: number; readonly everyMs: number }): boolean {
    const { nowMs } = this.#ctx;
    const bucket = this.#buckets.get(subject) ?? { tokens: rate.burst, atMs: nowMs };
    const gained = Math.floor((nowMs - bucket.atMs) / rate.everyMs);
    if (gained > 0) {
      bucket.tokens = Math.min(rate.burst, bucket.tokens + gained);
      bucket.atMs += gained * rate.everyMs;
    }
    this.#buckets.delete(subject);
    // Only those in force come here, of which there are few.
    if (this.#buckets.size >= 1_024) this.#buckets.delete(this.#buckets.keys().next().value!);
    this.#buckets.set(subject, bucket);
    if (bucket.tokens <= 0) return false;
    bucket.tokens -= 1;
    return true;
  }

  /** Rule by which a subject is under a response now. */
  #measured(subject: string, response: Response): string | undefined {
    const { nowMs } = this.#ctx;
    return this.#active.get(subject)?.find((one) => one.response === response && one.untilMs > nowMs)?.rule;
  }

  #find(wanted: number): Incident {
    const found = this.incidents.get(wanted);
    if (found) return found;
    throw new Refusal(
      "not-found",
      `Cannot find incident ${wanted}: there is none`,
      "List them: mycelium incident list --all",
    );
  }

  #view(incident: Incident): IncidentView {
    const { nowMs } = this.#ctx;
    return {
      ...incident,
      title: this.#titleOf(incident.rule),
      measures: incident.measures.map((one) => ({ ...one, active: isActive(one, nowMs) })),
      possible: this.#possible(incident),
    };
  }

  #titleOf(rule: string): string {
    return this.incidents.rules.find((one) => one.id === rule)?.title ?? rule;
  }

  /** Who asks. */
  #who(): string {
    const { kind, id: who } = this.#ctx.by;
    return who === "" ? kind : `${kind}:${who}`;
  }

  #note(): void {
    const active = new Map<string, (Measure & { readonly rule: string })[]>();
    for (const { rule, measures } of this.incidents.all()) {
      for (const one of measures) {
        if (isActive(one, 0)) active.set(one.subject, [...active.get(one.subject) ?? [], { ...one, rule }]);
      }
    }
    this.#active = active;
    this.#nextMs = this.incidents.nextMs();
  }

  #look(): void {
    const rules = this.incidents.rules.filter((one) => one.enabled);
    this.#looked = [...new Set(rules.flatMap((one) => one.kinds))];
  }
}

/** The host of a multiaddr or of `host:port`; `undefined` where the text is neither. */
function hostOf(address: string): string | undefined {
  const parsed = parseAddress(address);
  if (parsed) return parsed.host;
  const [, host] = /^\[?([0-9a-fA-F:.]{3,45}?)\]?(?::\d{1,5})?$/.exec(address) ?? [];
  return host;
}
