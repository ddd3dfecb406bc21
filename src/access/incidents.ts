/**
 * Incidents: rules over security events, what they find, and what is done about it for a time.
 *
 * A rule counts events of some kinds by subject in a window. At its threshold an incident opens, or the open one of
 * the same rule and subject grows; its response begins, and at the second threshold the sharper one. Responses end by
 * themselves. Nothing here acts: what is to be done comes back as effects, and the agent has the means.
 *
 * Every collection is bounded. Counters: the subject not seen for longest is forgotten; a crowd that pushes subjects
 * out is found by the count of a rule over all subjects. Incidents: the oldest that is closed goes first, then the
 * oldest. Source: ADR 0018.
 *
 * @module
 */

import { array, bool, type CborValue, oneOf, optional, type Reader, record, text, uint } from "../core/codec.ts";

/** What can be done about an incident, from mild to sharp. */
export const RESPONSES = ["alert", "throttle", "quarantine", "revoke"] as const;
/** One of {@linkcode RESPONSES}. */
export type Response = typeof RESPONSES[number];

/** How bad an incident is. */
export const SEVERITIES = ["info", "warning", "critical"] as const;
/** One of {@linkcode SEVERITIES}. */
export type Severity = typeof SEVERITIES[number];

/** Something that happened and may belong to an incident. */
export interface SecurityEvent {
  readonly atMs: number;
  /** `refused:<reason>`, `audit:<action>`, `throttled:<rule>` for who goes on all the same, or another of the agent's. */
  readonly kind: string;
  /**
   * Who: `node:<id>`, `address:<ip>` of a channel, `label:<ip>` that a beacon only says, `principal:<name>`,
   * `this-node`, or `network` where it is nobody's.
   */
  readonly subject: string;
  readonly detail: string;
}

/** A rule. Its numbers can be set; what it looks for is fixed. */
export interface IncidentRule {
  readonly id: string;
  /** What it finds, one line. */
  readonly title: string;
  readonly severity: Severity;
  /** Kinds of events; `*` at the end for any that begins so. */
  readonly kinds: readonly string[];
  /** Whether one event shows, by signatures, that its subject did it: then nobody can be blamed by others. */
  readonly proof: boolean;
  readonly enabled: boolean;
  /** Events of one subject in {@linkcode IncidentRule.windowMs} that open an incident; at least 1. */
  readonly threshold: number;
  readonly windowMs: number;
  readonly response: Response;
  /** Events at which {@linkcode IncidentRule.sharper} follows; 0 for never. */
  readonly sharperAt: number;
  readonly sharper: Response;
  /** How long a response lasts. */
  readonly holdMs: number;
}

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

/** What is written down of a rule. */
type RuleWords = Pick<IncidentRule, "id" | "title" | "kinds" | "threshold"> & Partial<IncidentRule>;

/** What a rule is where it says nothing else: who did it is slowed down for an hour, and nothing sharper follows. */
const USUAL = {
  severity: "warning",
  proof: false,
  enabled: true,
  windowMs: 10 * MINUTE,
  response: "throttle",
  sharperAt: 0,
  holdMs: HOUR,
} as const;

const RULES: readonly RuleWords[] = [
  {
    id: "invite-guessing",
    title: "Tries invites that it does not have",
    kinds: ["refused:proof-invalid", "refused:invite-unknown", "throttled:invite-guessing"],
    threshold: 5,
    // A stranger loses nothing that he had: a member is only slowed down (see `sharpest`).
    sharperAt: 15,
    sharper: "quarantine",
  },
  {
    id: "token-guessing",
    title: "Tries tokens, keys or codes that do not count",
    kinds: [
      "refused:token-invalid",
      "refused:signature-invalid",
      "audit:locked-out",
      "audit:second-factor-wrong",
      "audit:login-refused",
    ],
    threshold: 10,
  },
  {
    id: "replay",
    title: "Sends again what was good once",
    kinds: ["refused:command-replayed", "audit:login-replayed", "audit:request-replayed"],
    threshold: 1,
    response: "alert",
    sharperAt: 5,
    sharper: "throttle",
  },
  {
    id: "equivocation",
    title: "Signed two things of which only one can be true",
    severity: "critical",
    kinds: ["proof:equivocation"],
    proof: true,
    threshold: 1,
    windowMs: HOUR,
    response: "quarantine",
  },
  {
    id: "two-words",
    title: "Two records of one node under one number: a stolen key, or a state restored from a backup",
    kinds: ["audit:spore-equivocation", "audit:spore-not-mine"],
    proof: true,
    threshold: 1,
    windowMs: HOUR,
    response: "alert",
  },
  {
    id: "forged",
    title: "Sends labels, records or messages that are not what they say",
    kinds: [
      "refused:tampered",
      "refused:forged",
      "refused:bad-signature",
      "refused:bad-client-signature",
      "refused:wrong-identity",
      "refused:bad-attestation",
      "refused:command-forged",
      "refused:command-not-operator",
      "refused:raft-stranger",
      "refused:gossip-invalid-message",
      "refused:discovery-forged",
      "refused:discovery-bad-signature",
    ],
    threshold: 10,
  },
  {
    id: "removed-node",
    title: "A removed node comes back again and again",
    kinds: ["refused:revoked"],
    threshold: 20,
  },
  {
    id: "clock-jump",
    title: "The clock of this machine jumped",
    severity: "info",
    kinds: ["clock:back", "clock:forward"],
    threshold: 1,
    windowMs: HOUR,
    response: "alert",
  },
  {
    id: "mass-invites",
    title: "Gives very many invites",
    kinds: ["audit:invite-created"],
    threshold: 50,
    response: "alert",
    sharper: "revoke",
  },
  {
    id: "access-denied",
    title: "Tries what it may not",
    kinds: ["audit:denied"],
    threshold: 10,
    response: "alert",
  },
  {
    id: "audit-damage",
    title: "An audit log was changed or cut",
    severity: "critical",
    kinds: ["log:damaged"],
    threshold: 1,
    windowMs: HOUR,
    response: "alert",
  },
  {
    id: "emergency",
    title: "The operator decided without the quorum",
    severity: "critical",
    kinds: ["audit:agreement-emergency", "audit:primary-recovered", "audit:split-decided", "audit:authority-recovered"],
    threshold: 1,
    windowMs: HOUR,
    response: "alert",
  },
];

/** The rules as they are where nobody set anything. */
export const INCIDENT_RULES: readonly IncidentRule[] = RULES.map((one) => ({
  ...USUAL,
  sharper: one.response ?? USUAL.response,
  ...one,
}));

/** What can be set of a rule. */
export interface RuleSetting {
  readonly rule: string;
  readonly enabled?: boolean | undefined;
  readonly threshold?: number | undefined;
  readonly windowMs?: number | undefined;
  readonly response?: Response | undefined;
  readonly sharperAt?: number | undefined;
  readonly sharper?: Response | undefined;
  readonly holdMs?: number | undefined;
}

/** Settings of all rules. */
export interface IncidentSettings {
  /** Responses beyond the alert are only told of, and not carried out. */
  readonly dryRun: boolean;
  readonly rules: readonly RuleSetting[];
}

/** Events that a rule counts of one subject. */
export const THRESHOLD_MAX = 1_000;
/** Longest window, and longest hold. */
export const WINDOW_MS_MAX: number = 7 * 24 * HOUR;

/** The rules with what was set; what names no rule is not used. */
export function rulesOf(settings: readonly RuleSetting[]): readonly IncidentRule[] {
  return INCIDENT_RULES.map((rule) => {
    const { rule: _, ...set } = settings.findLast((one) => one.rule === rule.id) ?? { rule: "" };
    const given = Object.fromEntries(Object.entries(set).filter(([, value]) => value !== undefined));
    const merged = { ...rule, ...given } as IncidentRule;
    const within = (value: number, min: number, max: number) => Math.min(max, Math.max(min, Math.floor(value)));
    return {
      ...merged,
      threshold: within(merged.threshold, 1, THRESHOLD_MAX),
      sharperAt: merged.sharperAt === 0 ? 0 : within(merged.sharperAt, 1, THRESHOLD_MAX),
      windowMs: within(merged.windowMs, 1_000, WINDOW_MS_MAX),
      holdMs: within(merged.holdMs, 1_000, WINDOW_MS_MAX),
    };
  });
}

/** A response that was begun. */
export interface Measure {
  readonly response: Response;
  readonly subject: string;
  readonly atMs: number;
  /** When it ends by itself; what cannot be undone has none: 0. */
  readonly untilMs: number;
  /** When it ended; 0 while it has not. */
  readonly endedMs: number;
  /** `rule` or the principal who wanted it. */
  readonly by: string;
  /** Only told of. */
  readonly dryRun: boolean;
}

/** Something that a rule found. */
export interface Incident {
  /** Number on this node, from 1. */
  readonly id: number;
  readonly rule: string;
  readonly severity: Severity;
  readonly subject: string;
  readonly state: "open" | "acknowledged" | "closed";
  readonly firstMs: number;
  readonly lastMs: number;
  /** Events so far. */
  readonly count: number;
  /** What happened last, one line. */
  readonly detail: string;
  /** Who acknowledged it and what he noted. */
  readonly ackBy: string;
  readonly note: string;
  /** At most {@linkcode MEASURES_MAX}, the oldest first. */
  readonly measures: readonly Measure[];
}

/** Measures that an incident remembers. */
export const MEASURES_MAX = 16;
/** Incidents that are kept. */
export const INCIDENTS_MAX = 256;
/** Subjects that one rule counts. */
export const SUBJECTS_MAX = 1_024;
/** Measures in force. */
export const ACTIVE_MAX = 256;
/** A rule's events of all subjects together that open an incident of nobody's, as a multiple of its threshold. */
export const CROWD_FACTOR = 10;
/** An incident without events for so long is closed. */
export const QUIET_MS: number = 24 * HOUR;
const TEXT_CHARS_MAX = 300;

/** What can happen to {@linkcode Incidents}. */
export type IncidentEvent =
  | {
    readonly type: "observed";
    readonly event: SecurityEvent; /** Sharpest response that a rule may ask for by itself, for this subject. */
    readonly sharpest: Response;
    /** The same for a rule whose events are proofs. @default as without */
    readonly proven?: Response;
    /** How many times the thresholds it takes: others may stand behind the same address. @default 1 */
    readonly factor?: number;
  }
  | { readonly type: "wake"; readonly nowMs: number }
  /** A person knows of it: the alert ends. */
  | {
    readonly type: "acknowledge";
    readonly nowMs: number;
    readonly id: number;
    readonly by: string;
    readonly note: string;
  }
  /** A person wants a response to begin. */
  | {
    readonly type: "respond";
    readonly nowMs: number;
    readonly id: number;
    readonly response: Response;
    readonly forMs: number;
    readonly by: string;
  }
  /** A person wants all responses of an incident to end. */
  | { readonly type: "release"; readonly nowMs: number; readonly id: number; readonly by: string };

/** What the caller must do next, in order. */
export type IncidentEffect =
  /** Keep it, or what is left of it. */
  | { readonly type: "store"; readonly incident: Incident }
  | { readonly type: "forget"; readonly id: number }
  /** Tell everybody: it is new, or has become worse. */
  | { readonly type: "alert"; readonly incident: Incident }
  | { readonly type: "begin"; readonly incident: Incident; readonly measure: Measure }
  | { readonly type: "end"; readonly incident: Incident; readonly measure: Measure; readonly by: string };

interface Counter {
  /** Times of the latest events, at most the larger threshold. */
  times: number[];
}

/** Finds incidents. */
export class Incidents {
  #rules: readonly IncidentRule[] = rulesOf([]);
  #dryRun = false;
  /** By rule, then by subject; the one seen last is the last. */
  readonly #counters = new Map<string, Map<string, Counter>>();
  /** By number. */
  readonly #incidents = new Map<number, Incident>();
  #lastId = 0;

  /** @param known What was stored, in any order. */
  constructor(settings: IncidentSettings = { dryRun: false, rules: [] }, known: readonly Incident[] = []) {
    this.configure(settings);
    for (const one of [...known].sort((a, b) => a.id - b.id).slice(-INCIDENTS_MAX)) this.#incidents.set(one.id, one);
    this.#lastId = Math.max(0, ...this.#incidents.keys());
  }

  /** Sets the rules anew; what was counted stays. */
  configure(settings: IncidentSettings): void {
    this.#rules = rulesOf(settings.rules);
    this.#dryRun = settings.dryRun;
  }

  get rules(): readonly IncidentRule[] {
    return this.#rules;
  }

  get dryRun(): boolean {
    return this.#dryRun;
  }

  /** All that are kept, the oldest first. */
  all(): readonly Incident[] {
    return [...this.#incidents.values()];
  }

  get(id: number): Incident | undefined {
    return this.#incidents.get(id);
  }

  /** Measures in force, dry ones left out. */
  active(nowMs: number): readonly Measure[] {
    return this.all().flatMap((one) => one.measures.filter((measure) => isActive(measure, nowMs)));
  }

  /** Subjects that rules count now. */
  get counted(): number {
    return [...this.#counters.values()].reduce((sum, one) => sum + one.size, 0);
  }

  /** When {@linkcode Incidents.step} wants a `wake`. */
  nextMs(): number {
    let next = Infinity;
    for (const { state, lastMs, measures } of this.#incidents.values()) {
      const ends = measures.filter((one) => one.untilMs > 0 && one.endedMs === 0).map((one) => one.untilMs);
      // It is not closed before all have ended.
      if (ends.length > 0) next = Math.min(next, ...ends);
      else if (state !== "closed") next = Math.min(next, lastMs + QUIET_MS);
    }
    return next;
  }

  /** Takes what happened; returns what to do, in order. */
  step(event: IncidentEvent): readonly IncidentEffect[] {
    switch (event.type) {
      case "observed":
        return this.#observed(event.event, event);
      case "wake":
        return this.#wake(event.nowMs);
      case "acknowledge": {
        const found = this.#incidents.get(event.id);
        if (!found) return [];
        const incident = this.#put({
          ...found,
          state: "acknowledged",
          ackBy: oneLine(event.by),
          note: oneLine(event.note),
        });
        return [{ type: "store", incident }];
      }
      case "respond": {
        const found = this.#incidents.get(event.id);
        if (!found) return [];
        const { nowMs, response, by } = event;
        const measure = this.#measure(
          found,
          response,
          Math.min(WINDOW_MS_MAX, Math.max(1_000, event.forMs)),
          nowMs,
          by,
        );
        return this.#begin(found, measure);
      }
      case "release": {
        const found = this.#incidents.get(event.id);
        if (!found) return [];
        // It begins to count anew: else the next event would bring back what a person has just ended.
        this.#counters.get(found.rule)?.delete(found.subject);
        return this.#end(found, () => true, event.nowMs, event.by);
      }
      default:
        return event satisfies never;
    }
  }

  /** The clock was set back: times that were set with it count no longer. */
  clockSetBack(nowMs: number): readonly IncidentEffect[] {
    this.#counters.clear();
    // What would last too long by the new clock lasts as long as it was meant to.
    const effects: IncidentEffect[] = [];
    for (const found of this.all()) {
      if (!found.measures.some((one) => one.atMs > nowMs && one.untilMs > 0) && found.lastMs <= nowMs) continue;
      const measures = found.measures.map((one) =>
        one.atMs > nowMs && one.untilMs > 0 ? { ...one, atMs: nowMs, untilMs: nowMs + (one.untilMs - one.atMs) } : one
      );
      const [firstMs, lastMs] = [Math.min(nowMs, found.firstMs), Math.min(nowMs, found.lastMs)];
      effects.push({ type: "store", incident: this.#put({ ...found, measures, firstMs, lastMs }) });
    }
    return effects;
  }

  #observed(
    event: SecurityEvent,
    caps: { readonly sharpest: Response; readonly proven?: Response; readonly factor?: number },
  ): readonly IncidentEffect[] {
    const effects: IncidentEffect[] = [];
    for (const rule of this.#rules) {
      if (!rule.enabled || !rule.kinds.some((kind) => fits(kind, event.kind))) continue;
      const factor = caps.factor ?? 1;
      const count = this.#count(rule, event.subject, event.atMs, Math.max(rule.threshold, rule.sharperAt) * factor);
      if (count >= rule.threshold * factor) {
        effects.push(
          ...this.#found(
            rule,
            event,
            Math.floor(count / factor),
            rule.proof ? caps.proven ?? caps.sharpest : caps.sharpest,
          ),
        );
      }
      if (rule.threshold === 1 || event.subject === CROWD || factor > 1) continue;
      const crowd = this.#count(rule, CROWD, event.atMs, rule.threshold * CROWD_FACTOR);
      // One subject that has an incident of its own is no crowd.
      if (crowd < rule.threshold * CROWD_FACTOR || this.#openOf(rule.id, event.subject)) continue;
      effects.push(...this.#found(rule, { ...event, subject: CROWD }, crowd, "alert"));
    }
    return effects;
  }

  #count(rule: IncidentRule, subject: string, atMs: number, max: number): number {
    let bySubject = this.#counters.get(rule.id);
    if (!bySubject) this.#counters.set(rule.id, bySubject = new Map());
    const counter = bySubject.get(subject) ?? { times: [] };
    bySubject.delete(subject);
    if (bySubject.size >= SUBJECTS_MAX) {
      const oldest = bySubject.keys().next().value!;
      const crowd = oldest === CROWD ? bySubject.get(CROWD) : undefined;
      bySubject.delete(oldest);
      if (crowd) bySubject.set(CROWD, crowd);
    }
    bySubject.set(subject, counter);
    counter.times.push(atMs);
    const from = atMs - rule.windowMs;
    if (counter.times[0]! <= from || counter.times.length > max) {
      counter.times = counter.times.filter((one) => one > from).slice(-max);
    }
    return counter.times.length;
  }

  #found(rule: IncidentRule, event: SecurityEvent, count: number, sharpest: Response): readonly IncidentEffect[] {
    const detail = oneLine(`${event.kind}: ${event.detail}`);
    const subject = oneLine(event.subject);
    const known = this.#openOf(rule.id, subject);
    const effects: IncidentEffect[] = [];
    let incident: Incident;
    if (known) {
      incident = this.#put({ ...known, lastMs: Math.max(known.lastMs, event.atMs), count: known.count + 1, detail });
      // Each event of a flood is not worth a write: the count on the disk lags behind.
      if (Math.log2(incident.count) % 1 === 0) effects.push({ type: "store", incident });
    } else {
      effects.push(...this.#makeRoom());
      incident = this.#put({
        id: ++this.#lastId,
        rule: rule.id,
        severity: rule.severity,
        subject,
        state: "open",
        firstMs: event.atMs,
        lastMs: event.atMs,
        count,
        detail,
        ackBy: "",
        note: "",
        measures: [],
      });
      effects.push({ type: "store", incident }, { type: "alert", incident });
    }
    const sharp = rule.sharperAt > 0 && count >= rule.sharperAt;
    const response = milder(sharp ? rule.sharper : rule.response, sharpest);
    if (response === "alert") return effects;
    const same = (one: Measure) =>
      RESPONSES.indexOf(one.response) >= RESPONSES.indexOf(response) &&
      one.endedMs === 0 && one.dryRun === this.#dryRun && (one.untilMs === 0 || one.untilMs > event.atMs);
    if (incident.measures.some(same)) return effects;
    const measure = this.#measure(incident, response, rule.holdMs, event.atMs, "rule");
    return [...effects, ...this.#begin(incident, { ...measure, dryRun: this.#dryRun })];
  }

  #measure(incident: Incident, response: Response, forMs: number, nowMs: number, by: string): Measure {
    const untilMs = response === "revoke" || response === "alert" ? 0 : nowMs + forMs;
    const { subject } = incident;
    return { response, subject, atMs: nowMs, untilMs, endedMs: 0, by: oneLine(by), dryRun: false };
  }

  #begin(found: Incident, measure: Measure): readonly IncidentEffect[] {
    if (!measure.dryRun && this.active(measure.atMs).length >= ACTIVE_MAX) return [];
    const incident = this.#put({ ...found, measures: [...found.measures, measure].slice(-MEASURES_MAX) });
    return [{ type: "store", incident }, { type: "begin", incident, measure }];
  }

  #wake(nowMs: number): readonly IncidentEffect[] {
    const effects: IncidentEffect[] = [];
    for (const found of this.all()) {
      effects.push(...this.#end(found, (one) => one.untilMs <= nowMs, nowMs, "time"));
      const now = this.#incidents.get(found.id)!;
      if (
        now.state !== "closed" && nowMs >= now.lastMs + QUIET_MS && !now.measures.some((one) => isActive(one, nowMs))
      ) {
        effects.push({ type: "store", incident: this.#put({ ...now, state: "closed" }) });
      }
    }
    return effects;
  }

  /** Ends measures that end at all; each is told of once. */
  #end(found: Incident, which: (measure: Measure) => boolean, nowMs: number, by: string): readonly IncidentEffect[] {
    const ends = (one: Measure) => one.untilMs > 0 && one.endedMs === 0 && which(one);
    const ended = found.measures.filter(ends);
    if (ended.length === 0) return [];
    const measures = found.measures.map((one) => ends(one) ? { ...one, endedMs: Math.max(1, nowMs) } : one);
    const incident = this.#put({ ...found, measures });
    return [
      { type: "store", incident },
      ...ended.filter((one) => !one.dryRun).map((measure) => ({ type: "end", incident, measure, by }) as const),
    ];
  }

  #openOf(rule: string, subject: string): Incident | undefined {
    for (const one of this.#incidents.values()) {
      if (one.rule === rule && one.subject === subject && one.state !== "closed") return one;
    }
    return undefined;
  }

  #makeRoom(): readonly IncidentEffect[] {
    if (this.#incidents.size < INCIDENTS_MAX) return [];
    const all = this.all();
    // What is in force must be ended by somebody who knows of it.
    const goes = all.find((one) => one.state === "closed") ??
      all.find((one) => one.measures.every((measure) => measure.untilMs === 0 || measure.endedMs > 0)) ?? all[0]!;
    this.#incidents.delete(goes.id);
    const ended = goes.measures.filter((one) => one.untilMs > 0 && one.endedMs === 0 && !one.dryRun);
    return [
      ...ended.map((measure) => ({ type: "end", incident: goes, measure, by: "forgotten" }) as const),
      { type: "forget", id: goes.id },
    ];
  }

  #put(incident: Incident): Incident {
    this.#incidents.set(incident.id, incident);
    return incident;
  }
}

/** The subject of what many did together. */
export const CROWD = "network";

/** Whether a measure is in force. */
export function isActive(measure: Measure, nowMs: number): boolean {
  return !measure.dryRun && measure.endedMs === 0 && measure.untilMs > nowMs;
}

/** A text of others as it may be stored and shown: bounded, and nothing in it steers a terminal. */
function oneLine(text: string): string {
  // deno-lint-ignore no-control-regex
  const plain = text.replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g, "?");
  return plain.slice(0, TEXT_CHARS_MAX).toWellFormed();
}

/** The milder one of two responses. */
export function milder(a: Response, b: Response): Response {
  return RESPONSES.indexOf(a) <= RESPONSES.indexOf(b) ? a : b;
}

/** Whether a kind of event is one that a rule names. */
export function fits(pattern: string, kind: string): boolean {
  return pattern.endsWith("*") ? kind.startsWith(pattern.slice(0, -1)) : kind === pattern;
}

const readTime = uint(8_640_000_000_000_000);
const readMeasure = record({
  r: oneOf(RESPONSES),
  s: text(TEXT_CHARS_MAX),
  a: readTime,
  u: readTime,
  e: optional(readTime),
  b: text(TEXT_CHARS_MAX),
  d: bool,
});
const readParts = record({
  i: uint(Number.MAX_SAFE_INTEGER, 1),
  r: text(64),
  v: oneOf(SEVERITIES),
  s: text(TEXT_CHARS_MAX),
  st: oneOf(["open", "acknowledged", "closed"]),
  f: readTime,
  l: readTime,
  c: uint(),
  d: text(TEXT_CHARS_MAX),
  ab: optional(text(TEXT_CHARS_MAX)),
  n: optional(text(TEXT_CHARS_MAX)),
  m: array(readMeasure, MEASURES_MAX),
});

/** Reads an incident as it is stored. */
export const readIncident: Reader<Incident> = (value, path) => {
  const read = readParts(value, path);
  return {
    id: read.i,
    rule: read.r,
    severity: read.v,
    subject: read.s,
    state: read.st,
    firstMs: read.f,
    lastMs: read.l,
    count: read.c,
    detail: read.d,
    ackBy: read.ab ?? "",
    note: read.n ?? "",
    measures: read.m.map((one) => ({
      response: one.r,
      subject: one.s,
      atMs: one.a,
      untilMs: one.u,
      endedMs: one.e ?? 0,
      by: one.b,
      dryRun: one.d,
    })),
  };
};

/** An incident as it is stored. */
export function incidentValue(incident: Incident): CborValue {
  return {
    i: incident.id,
    r: incident.rule,
    v: incident.severity,
    s: incident.subject,
    st: incident.state,
    f: incident.firstMs,
    l: incident.lastMs,
    c: incident.count,
    d: incident.detail,
    ab: incident.ackBy,
    n: incident.note,
    m: incident.measures.map((one) => ({
      r: one.response,
      s: one.subject,
      a: one.atMs,
      u: one.untilMs,
      e: one.endedMs,
      b: one.by,
      d: one.dryRun,
    })),
  };
}
