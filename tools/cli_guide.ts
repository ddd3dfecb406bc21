/** Writes docs/guide/cli.md from the program's own help. usage: deno run -A tools/cli_guide.ts @module */

import { guide } from "../src/cli/guide.ts";
import { createProgram } from "../src/cli/program.ts";

const silent = { write: () => {}, isTerminal: false, columns: 80, rows: 24 };
const program = createProgram({ stdout: silent, stderr: silent, env: {} }, () => {});
await Deno.writeTextFile(new URL("../docs/guide/cli.md", import.meta.url), guide(program));
