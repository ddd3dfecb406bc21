/** Text that a person names by a path. @module */

import { resolve } from "node:path";
import { CONFIG_BYTES_MAX } from "../edge/config.ts";
import type { Context } from "./context.ts";
import { CliError, EXIT } from "./exit.ts";

/**
 * Reads a file, or stdin for `-`.
 *
 * @throws {CliError} `usage` (exit code 2) where it cannot be read or has more than {@linkcode CONFIG_BYTES_MAX} bytes.
 */
export async function readText(context: Context, file: string): Promise<string> {
  if (file === "-") return await context.deps.stdin.readAll(CONFIG_BYTES_MAX + 1);
  const path = resolve(context.deps.cwd, file);
  try {
    if ((await Deno.stat(path)).size > CONFIG_BYTES_MAX) throw new Error(`it is larger than ${CONFIG_BYTES_MAX} bytes`);
    return await Deno.readTextFile(path);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : "unknown";
    throw new CliError(`Cannot read "${file}": ${why}`, { code: "usage", exitCode: EXIT.usage, cause });
  }
}
