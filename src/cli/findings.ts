/** What `doctor` concludes from a status: pure, so that every rule is tested alone. @module */

import { causeCode, CAUSES } from "../bootstrap/diagnosis.ts";
import type { Failure, Status } from "../agent/status.ts";
import { byteSize, duration, plural } from "./output.ts";

/** How bad a finding is. */
export type Severity = "error" | "warning" | "info";

/** Something that a person should know, with what to do about it. */
export interface Finding {
  readonly severity: Severity;
  /** Stable, lower-case, dashes. */
  readonly code: string;
  /** One sentence: what is the matter. */
  readonly what: string;
  /** What was tried or looked at; empty where that says nothing. */
  readonly tried: string;
  /** What would cure it; empty where nothing has to be done. */
  readonly cure: string;
}

/** The worst first. */
export const SEVERITIES: readonly Severity[] = ["error", "warning", "info"];

const DISK_FREE_BYTES_MIN = 512 << 20;
const CLOCK_SKEW_MS_MAX = 5_000;
const CERTAIN_CLOCK_SKEW_MS = 60_000;
const RECENT_MS = 10 * 60_000;

/** Orders findings, the worst first. */
export function sortFindings(findings: readonly Finding[]): Finding[] {
  return [...findings].sort((a, b) => SEVERITIES.indexOf(a.severity) - SEVERITIES.indexOf(b.severity));
}

/**
 * What a status says about the health of a node.
 *
 * @param status The document.
 * @param nowMs Clock of this machine when it was read.
 */
export function findingsOf(status: Status, nowMs: number): Finding[] {
  return [
    ...bootstrapFindings(status),
    ...credentialFindings(status),
    ...clockFindings(status, nowMs),
    ...memberFindings(status),
    ...authorityFindings(status),
    ...nodeFindings(status),
    ...seedFindings(status, nowMs),
  ];
}

function bootstrapFindings(status: Status): Finding[] {
  const { bootstrap, nowMs } = status;
  const out: Finding[] = [];
  if (bootstrap.stage === "verified") {
    // A member: what still fails is no hindrance, but a person who asks wants to know what was tried just now.
    for (const failure of bootstrap.failures.filter((one) => nowMs - one.atMs < RECENT_MS).slice(-5)) {
      out.push(findingOf(failure, "warning", nowMs));
    }
    return out;
  }
  if (bootstrap.stage === "idle" && !status.network) {
    out.push({
      severity: "error",
      code: "no-network",
      what: "This node is in no network",
      tried: "",
      cure: "Form one with: mycelium init; or join one with: mycelium join --invite-file <path>",
    });
  }
  if (bootstrap.stage === "awaiting-approval") {
    out.push({
      severity: "warning",
      code: "approval-pending",
      what: `An operator has not approved this machine yet, for ${duration(nowMs - bootstrap.sinceMs)}`,
      tried: "",
      cure: `On an issuer: mycelium node approve ${status.node.nodeId.slice(-8)}`,
    });
  }
  for (const failure of [...bootstrap.failures].reverse().slice(0, 10)) {
    if (failure.code === "approval-pending" || out.some((one) => one.code === failure.code)) continue;
    const needsPerson = CAUSES[causeCode(failure.code)].needsPerson;
    out.push(findingOf(failure, needsPerson || bootstrap.stage === "isolated" ? "error" : "warning", nowMs));
  }
  if (bootstrap.stage === "isolated" && !out.some((one) => one.code === "isolated")) {
    out.push({
      severity: "error",
      code: "isolated",
      what: `No member of the network has answered for ${duration(nowMs - bootstrap.sinceMs)}`,
      tried: bootstrap.sources.map((one) => `${one.source}: ${one.state}${one.detail ? ` (${one.detail})` : ""}`).join(
        "; ",
      ),
      cure: CAUSES.isolated.cure,
    });
  }
  return out;
}

/** Seeds that are not where they should be: noticed now, and not when the network is gone. */
function seedFindings(status: Status, nowMs: number): Finding[] {
  const { sources = [], targets = [] } = status.seeds ?? {};
  return [
    ...targets.filter((one) => one.state === "failed").map((one): Finding => ({
      severity: "warning",
      code: "seed-not-published",
      what: `The seed cannot be published to ${one.to}: ${one.reason}`,
      tried: `${one.failures} times`,
      cure: "Cure what it says, then: mycelium seed publish",
    })),
    ...sources.filter((one) => one.state === "behind" || one.state === "failed").map((one): Finding => ({
      severity: "info",
      code: one.state === "behind" ? "seed-behind" : "seed-unreadable",
      what: `The seed at ${one.from} is of no use: ${one.reason}`,
      tried: `read ${duration(nowMs - one.atMs)} ago`,
      cure: "See what is published where: mycelium seed status, on an issuer",
    })),
  ];
}

function findingOf(failure: Failure, severity: Severity, nowMs: number): Finding {
  const often = failure.count > 1 ? `, ${failure.count} times` : "";
  return {
    severity,
    code: failure.code,
    what: failure.what,
    tried: `${failure.tried || "-"}${often}, at stage ${failure.stage}, ${duration(nowMs - failure.atMs)} ago`,
    cure: failure.cure,
  };
}

function credentialFindings(status: Status): Finding[] {
  const { credential, nowMs } = status;
  if (!credential) return [];
  const left = credential.expiresMs - nowMs;
  if (left <= 0) {
    return [{
      severity: "error",
      code: "expired",
      what: `The membership credential ran out ${duration(left)} ago`,
      tried: "",
      cure: "It is renewed by itself as soon as an issuer is reachable: bring one up, or check the link to it",
    }];
  }
  // Renewal is due at half the lifetime; well past that, something hinders it.
  const late = nowMs - credential.renewAtMs;
  if (late < (credential.expiresMs - credential.renewAtMs) / 4) return [];
  return [{
    severity: "warning",
    code: "renewal-late",
    what: `Renewal of the membership credential is ${duration(late)} late; it is good for ${duration(left)} more`,
    tried: `issuer ${credential.issuer}`,
    cure: "Check that an issuer is reachable: mycelium peers",
  }];
}

function clockFindings(status: Status, nowMs: number): Finding[] {
  const cure = "Set the clock of the machine that is wrong, best by NTP: timedatectl status";
  const builtMs = Date.parse(status.version.builtAt);
  if (nowMs + CERTAIN_CLOCK_SKEW_MS < builtMs) {
    return [{
      severity: "error",
      code: "clock-behind",
      what: `This machine's clock is before the day that the program was built, ${status.version.builtAt}`,
      tried: `clock: ${new Date(nowMs).toISOString()}`,
      cure,
    }];
  }
  const own = status.credential ? status.credential.issuedMs - nowMs : 0;
  const ahead = status.members.filter((one) =>
    one.state !== "self" && one.lastSeenMs - status.nowMs > CLOCK_SKEW_MS_MAX
  );
  const out: Finding[] = [];
  if (own > CLOCK_SKEW_MS_MAX) {
    out.push({
      severity: own > CERTAIN_CLOCK_SKEW_MS ? "error" : "warning",
      code: "clock-skew",
      what: `This machine's clock is behind its issuer's by ${duration(own)} or more`,
      tried: "the time at which the credential was issued",
      cure,
    });
  }
  if (ahead.length > 0) {
    out.push({
      severity: "warning",
      code: "clock-jumped",
      what: `This machine's clock was set back since it last heard ${plural(ahead.length, "member")}`,
      tried: ahead.slice(0, 5).map((one) => one.name).join(", "),
      cure,
    });
  }
  return out;
}

function memberFindings(status: Status): Finding[] {
  const out: Finding[] = [];
  const lost = status.members.filter((one) => one.state === "dead" || one.state === "suspect");
  for (const one of lost.slice(0, 10)) {
    out.push({
      severity: "warning",
      code: one.state === "dead" ? "member-dead" : "member-suspect",
      what: `${one.name} (${one.nodeId.slice(-8)}) is ${one.state} for ${duration(status.nowMs - one.stateSinceMs)}`,
      tried: one.addresses.slice(0, 3).join(", "),
      cure: one.state === "dead"
        ? `Check the machine; if it is gone for good: mycelium node remove ${one.nodeId.slice(-8)}`
        : "Nothing yet: it is asked through other members",
    });
  }
  if (status.pending.length > 0) {
    out.push({
      severity: "info",
      code: "joins-pending",
      what: `Waiting for an operator's approval: ${plural(status.pending.length, "machine")}`,
      tried: "",
      cure: "See them with: mycelium node list",
    });
  }
  if (status.bootstrap.stage === "verified" && status.tolerance.crashFaults === 0) {
    out.push({
      severity: "info",
      code: "no-tolerance",
      what: status.tolerance.note,
      tried: "",
      cure: "Add machines: mycelium invite create",
    });
  }
  return out;
}

/** Issuers that were removed and cannot be replaced: they are to sign that they are none any more. */
function authorityFindings(status: Status): Finding[] {
  if (!status.network || status.bootstrap.stage !== "verified") return [];
  const { issuers, threshold } = status.network.authority;
  const members = new Set(status.members.filter((one) => one.state !== "left").map((one) => one.nodeId));
  const gone = issuers.filter((one) => !members.has(one));
  if (gone.length === 0 || issuers.length - gone.length >= threshold) return [];
  return [{
    severity: "error",
    code: "authority-short",
    what:
      `${plural(gone.length, "issuer")} of ${issuers.length} ${
        gone.length === 1 ? "is" : "are"
      } gone, and ${threshold} ` +
      "have to sign who takes the place",
    tried: gone.map((one) => one.slice(-8)).join(", "),
    cure: "On an issuer, with the genesis key: mycelium genesis recover --key <file>",
  }];
}

function nodeFindings(status: Status): Finding[] {
  const out: Finding[] = [];
  for (const one of status.health.components) {
    if (one.health === "ok") continue;
    out.push({
      severity: one.health === "failed" ? "error" : "warning",
      code: `component-${one.health}`,
      what: `${one.name} is ${one.health}: ${one.reason}`,
      tried: "",
      cure: "See what it says: mycelium logs --level warn",
    });
  }
  if (status.node.mode !== "normal") {
    out.push({
      severity: "info",
      code: "mode",
      what: `An operator has put this node into mode ${status.node.mode}`,
      tried: "",
      cure: `Back: mycelium exec normal-mode --on ${status.node.nodeId.slice(-8)}`,
    });
  }
  const { diskFreeBytes, diskBytes } = status.node.capabilities;
  if (diskBytes > 0 && diskFreeBytes < DISK_FREE_BYTES_MIN) {
    out.push(diskFinding(diskFreeBytes, "as the agent measured"));
  }
  return out;
}

/** The finding for a disk that is nearly full. */
export function diskFinding(freeBytes: number, tried: string): Finding {
  return {
    severity: freeBytes < DISK_FREE_BYTES_MIN / 8 ? "error" : "warning",
    code: "disk-full",
    what: `Only ${byteSize(freeBytes)} are free on the disk of the state folder`,
    tried,
    cure: "Make room: what a node must remember cannot be written to a full disk",
  };
}

/** Whether so little is free that {@linkcode diskFinding} applies. */
export function diskIsLow(freeBytes: number): boolean {
  return freeBytes < DISK_FREE_BYTES_MIN;
}
