/** How the command line ends: exit codes, and the error that carries one. @module */

/** Exit codes of `mycelium`. Stable; scripts may rely on them. */
export const EXIT = {
  /** Done. */
  ok: 0,
  /** It was tried and did not work. */
  failed: 1,
  /** The command line or the configuration is wrong; nothing was done. */
  usage: 2,
  /** No agent answers on this machine. */
  noAgent: 3,
  /** Refused: not authorised, against a policy, or not confirmed. */
  refused: 4,
  /** Not done in time; it may still go on. */
  timedOut: 5,
  /** The node is not ready, or degraded. */
  notReady: 6,
  /** Stopped by Ctrl-C before it was done. */
  interrupted: 130,
} as const;

/** One of {@linkcode EXIT}. */
export type ExitCode = typeof EXIT[keyof typeof EXIT];

/** What each code means, for help and documentation, in order. */
export const EXIT_MEANINGS: readonly (readonly [code: number, meaning: string])[] = [
  [EXIT.ok, "done"],
  [EXIT.failed, "it was tried and did not work"],
  [EXIT.usage, "wrong command line or configuration; nothing was done"],
  [EXIT.noAgent, "no agent answers on this machine"],
  [EXIT.refused, "refused: not authorised, against a policy, or not confirmed"],
  [EXIT.timedOut, "not done in time; it may still go on"],
  [EXIT.notReady, "the node is not ready or degraded (status --exit-code, doctor, join)"],
  [EXIT.interrupted, "stopped by Ctrl-C before it was done"],
];

/** A command that did not work, in the form that a person reads: what, and what to do about it. */
export class CliError extends Error {
  override readonly name = "CliError";
  readonly exitCode: ExitCode;
  /** Stable, lower-case, dashes; for `--json`. */
  readonly code: string;
  /** What would cure it; empty where nothing is known. */
  readonly cure: string;

  /** @param options `code`, `cure`, `exitCode` (1 where missing) and the error behind it. */
  constructor(
    message: string,
    options: {
      readonly code: string;
      readonly cure?: string;
      readonly exitCode?: ExitCode;
      readonly cause?: unknown;
    },
  ) {
    super(message, { cause: options.cause });
    this.exitCode = options.exitCode ?? EXIT.failed;
    this.code = options.code;
    this.cure = options.cure ?? "";
  }
}

/** A command line that cannot be understood. */
export function usageError(message: string, cure = ""): CliError {
  return new CliError(message, { code: "usage", cure, exitCode: EXIT.usage });
}

/** Codes that mean: someone who may decide said no. */
const REFUSALS = new Set([
  "approval-denied",
  "challenge-expired",
  "challenge-foreign",
  "capability-implausible",
  "forbidden",
  "foreign",
  "foreign-network",
  "fork",
  "full",
  "login-replayed",
  "no-operator-key",
  "no-role",
  "not-allowed",
  "not-granted",
  "not-operator",
  "not-issuer",
  "refused",
  "request-expired",
  "request-replayed",
  "revoked",
  "role-refused",
  "second-factor",
  "second-factor-wrong",
  "session-expired",
  "session-unknown",
  "signature-invalid",
  "suspended",
  "throttled",
  "token-invalid",
  "too-dangerous",
  "rollback",
  "tampered",
  "unauthorized",
  "unknown-member",
  "unknown-signer",
]);

/**
 * The exit code for an error code of the agent.
 *
 * @param code Stable error code.
 * @param httpStatus Status of the answer; 0 where there was none.
 */
export function exitCodeOf(code: string, httpStatus = 0): ExitCode {
  if (REFUSALS.has(code) || /^(invite|command)-/.test(code) || httpStatus === 401 || httpStatus === 403) {
    return EXIT.refused;
  }
  if (/^(timeout|timed-out|deadline|budget-exhausted)/.test(code) || httpStatus === 408 || httpStatus === 504) {
    return EXIT.timedOut;
  }
  return EXIT.failed;
}
