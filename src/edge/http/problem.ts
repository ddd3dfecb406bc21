/**
 * Errors of the HTTP interface: RFC 9457 problem documents with a cause and a cure.
 *
 * @module
 */

/** What went wrong with a request, for a person and for a program. */
export interface Problem {
  /** HTTP status, 400 to 599. */
  readonly status: number;
  /** Stable, lower-case, dashes. */
  readonly code: string;
  /** Short, the same for every occurrence. */
  readonly title: string;
  /** What happened this time. */
  readonly cause: string;
  /** What to do about it. */
  readonly cure: string;
}

/** A problem thrown by a handler on purpose; the app answers with it. */
export class ProblemError extends Error {
  override readonly name = "ProblemError";
  /** The answer. */
  readonly problem: Problem;

  /** @param problem The answer. */
  constructor(problem: Problem) {
    super(problem.cause);
    this.problem = problem;
  }
}

/** The answer to a request that failed, as `application/problem+json`. */
export function problemResponse(problem: Problem, headers: Readonly<Record<string, string>> = {}): Response {
  const body = {
    type: `urn:mycelium:problem:${problem.code}`,
    title: problem.title,
    status: problem.status,
    detail: problem.cause,
    code: problem.code,
    cause: problem.cause,
    cure: problem.cure,
  };
  return new Response(JSON.stringify(body) + "\n", {
    status: problem.status,
    headers: { "content-type": "application/problem+json", "cache-control": "no-store", ...headers },
  });
}
