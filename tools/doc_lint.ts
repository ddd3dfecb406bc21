/**
 * `deno doc --lint` held to this project's rule: every exported symbol of `src/` has a doc comment.
 *
 * The tool also wants one on every field and every overridden method, and takes a type of another folder or of
 * a library for private. Here a field has a comment where its name does not say it, so only what it says of
 * exported symbols counts. All files are its roots at once, `mod.ts` included.
 *
 * @module
 */

import { join } from "node:path";

const ROOT = join(import.meta.dirname ?? ".", "..");

/** Exports without a doc comment, as `file:line`, from what `deno doc --lint` printed without colours. */
export function undocumentedExports(output: string): string[] {
  const found = output.matchAll(/^error\[missing-jsdoc\].*\n\s*--> (.+?:\d+):\d+\n[ |]*\n\s*\d+ \| (.*)$/gm);
  // An export starts its line, a member of one is indented.
  return [...found].filter(([, , code]) => !/^\s/.test(code!)).map(([, place]) => place!);
}

async function* sourceFiles(folder: string): AsyncGenerator<string> {
  for await (const entry of Deno.readDir(folder)) {
    const path = join(folder, entry.name);
    if (entry.isDirectory) yield* sourceFiles(path);
    else if (/\.tsx?$/.test(entry.name)) yield path;
  }
}

if (import.meta.main) {
  const files = (await Array.fromAsync(sourceFiles(join(ROOT, "src")))).sort();
  const { stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["doc", "--lint", ...files],
    cwd: ROOT,
    env: { NO_COLOR: "1", DENO_TLS_CA_STORE: "system,mozilla" },
    stdin: "null",
    stdout: "null",
  }).output();
  const output = new TextDecoder().decode(stderr);
  // Its closing sentence proves that it ran: a crash or a syntax error would leave nothing to find.
  if (!/^(Checked \d+ files?|error: Found \d+ documentation lint errors?\.)$/m.test(output)) {
    console.error(output);
    Deno.exit(1);
  }
  const undocumented = undocumentedExports(output);
  for (const place of undocumented) console.error(`Cannot find a doc comment on the export at ${place}`);
  console.log(`${files.length} files, ${undocumented.length} exports without a doc comment`);
  Deno.exit(undocumented.length === 0 ? 0 : 1);
}
