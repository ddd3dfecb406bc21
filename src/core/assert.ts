/** Assertions that stay on in production. @module */

/** The program is wrong: nobody handles this, `main.ts` logs it and exits non-zero. */
export class InvariantError extends Error {
  override readonly name = "InvariantError";
}

/**
 * Throws unless `condition` holds.
 *
 * @param condition What must be true.
 * @param message What holds, with the values.
 * @throws {InvariantError} When `condition` is false.
 */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new InvariantError(message);
}

/** Marks a branch that the type checker knows to be impossible. */
export function unreachable(value: never): never {
  throw new InvariantError(`unreachable: ${JSON.stringify(value)}`);
}
