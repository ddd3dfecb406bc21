/** A {@linkcode Mirror} as a process, for a network namespace: serves the folder given, prints its address. @module */

import { Mirror } from "./kit.ts";

console.log(new Mirror(Deno.args[0]!).url);
