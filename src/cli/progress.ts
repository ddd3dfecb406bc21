/** Following a node on its way into a network. @module */

import { causeCode, CAUSES } from "../bootstrap/diagnosis.ts";
import type { Failure, JoinStage, Status } from "../agent/status.ts";
import type { StatusClient } from "./client.ts";
import { CliError } from "./exit.ts";
import type { Output } from "./output.ts";
import { duration, safe } from "./output.ts";

/** How following ended. */
export type JoinOutcome =
  | { readonly type: "verified"; readonly status: Status }
  /** Nothing to do: there is no network and no invite. */
  | { readonly type: "idle"; readonly status: Status }
  /** Only a person can change it. */
  | { readonly type: "stuck"; readonly status: Status; readonly failure: Failure }
  | { readonly type: "timeout"; readonly status: Status }
  | { readonly type: "interrupted"; readonly status: Status };

/** What is shown for a stage while it lasts. */
const STAGE_TEXT: Readonly<Record<JoinStage, string>> = {
  "idle": "No network yet",
  "forming": "Forming a network",
  "discovering": "Looking for the network",
  "contacting": "Calling nodes that were found",
  "authenticating": "Proving who is who",
  "registering": "Registering",
  "awaiting-approval": "Waiting for an operator's approval",
  "handoff": "Taking over what the network agreed on",
  "verifying": "Checking that other members see this node",
  "verified": "Member of the network",
  "isolated": "No member of the network answers",
};

/** How to follow. */
export interface FollowOptions {
  readonly out: Output;
  readonly signal: AbortSignal;
  readonly now: () => number;
  /** Missing: for as long as it takes. */
  readonly timeoutMs?: number;
  /** Failures before this time belong to an earlier attempt. */
  readonly sinceMs: number;
  /** Whether to end where only a person can help. A node that just started may still find its way. */
  readonly endWhenStuck: boolean;
}

/** Shows the stages that a node goes through, until it is a member or it cannot go on. */
export async function followJoin(client: StatusClient, options: FollowOptions): Promise<JoinOutcome> {
  const { out, signal, now, timeoutMs = Infinity, sinceMs } = options;
  const startedMs = now();
  const shown = new Set<string>();
  let status = await client.status();
  try {
    for (let round = 0;; round++) {
      const { bootstrap } = status;
      showStages(status, shown, options);
      for (const failure of bootstrap.failures) showFailure(failure, shown, options);
      if (bootstrap.stage === "verified") return { type: "verified", status };
      const stuck = stuckBy(bootstrap.failures, sinceMs);
      if (stuck && options.endWhenStuck) return { type: "stuck", status, failure: stuck };
      // A request that was just accepted may not have left `idle` yet.
      if (bootstrap.stage === "idle" && round >= 4) return { type: "idle", status };
      const nextMs = bootstrap.waitingFor.find((one) => one.nextMs !== undefined)?.nextMs;
      const next = nextMs !== undefined && nextMs > now() + 1_500 ? `, next try in ${duration(nextMs - now())}` : "";
      out.progress(`${STAGE_TEXT[bootstrap.stage] ?? bootstrap.stage}${next}`);
      if (signal.aborted) return { type: "interrupted", status };
      if (now() - startedMs >= timeoutMs) return { type: "timeout", status };
      await sleep(round < 20 ? 100 : round < 100 ? 300 : 1_000, signal);
      status = await client.status();
    }
  } finally {
    out.endProgress();
  }
}

/** Waits, at most until `signal` is aborted. */
export function sleep(ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done);
  });
}

/** What an operator types to let a node in. */
export function approvalHint(status: Status): string {
  const short = status.node.nodeId.slice(-8);
  return `An operator has to approve this machine. On any issuer of the network:\n\n` +
    `  mycelium node approve ${short}\n\n` +
    `This machine is ${safe(status.node.name)}, ${status.node.nodeId}: compare the id before approving.`;
}

/** The failure as an error with its exit class. */
export function failureError(failure: Failure, exitCode: CliError["exitCode"]): CliError {
  return new CliError(describeFailure(failure), { code: failure.code, cure: failure.cure, exitCode });
}

/** For example `The invite has run out (invite-expired, tried /ip4/…)`. */
export function describeFailure(failure: Failure): string {
  const tried = failure.tried === "" ? "" : `, tried ${failure.tried}`;
  const often = failure.count > 1 ? `, ${failure.count} times` : "";
  return safe(`${failure.what} (${failure.code}${tried}${often})`);
}

function stuckBy(failures: readonly Failure[], sinceMs: number): Failure | undefined {
  const last = failures.at(-1);
  return last && last.atMs >= sinceMs && CAUSES[causeCode(last.code)].needsPerson ? last : undefined;
}

function showStages(status: Status, shown: Set<string>, options: FollowOptions): void {
  for (const { stage, atMs } of status.bootstrap.timeline) {
    const key = `${stage}@${atMs}`;
    if (shown.has(key)) continue;
    shown.add(key);
    if (atMs < options.sinceMs || stage === "idle") continue;
    options.out.endProgress(`${stage === "isolated" ? "✗" : "•"} ${STAGE_TEXT[stage] ?? safe(stage)}`);
    if (stage === "awaiting-approval") options.out.note(approvalHint(status));
  }
}

function showFailure(failure: Failure, shown: Set<string>, options: FollowOptions): void {
  // A failure that repeats is shown once; the count is in the status.
  const key = `${failure.code} ${failure.tried}`;
  if (failure.atMs < options.sinceMs || shown.has(key)) return;
  shown.add(key);
  // Not a failure to a person: the stage says it, and what to do.
  if (failure.code === "approval-pending") return;
  options.out.endProgress(`✗ ${describeFailure(failure)}`, "yellow");
  if (failure.cure !== "") options.out.note(`  ${safe(failure.cure)}`);
}
