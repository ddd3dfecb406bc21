/** What this build is: version, commit, date. @module */

import manifest from "../../../deno.json" with { type: "json" };

/** Identity of a build, as `mycelium version` and `/status` show it. */
export interface BuildInfo {
  /** Semantic version, for example `0.1.0`. */
  readonly version: string;
  /** Git commit, 12 hexadecimal digits, `-dirty` behind it where files differed; `source` when run from source. */
  readonly commit: string;
  /** When it was built, ISO 8601 in UTC to the second; empty when run from source. */
  readonly builtAt: string;
  /** Target triple that it was compiled for; empty when run from source. */
  readonly target: string;
}

/** Put in place of this name by `tools/compile.ts`; not there when run from source. */
declare const __MYCELIUM_BUILD__: BuildInfo;

/** The running build. */
export const BUILD_INFO: BuildInfo = typeof __MYCELIUM_BUILD__ === "undefined"
  ? { version: manifest.version, commit: "source", builtAt: "", target: "" }
  : __MYCELIUM_BUILD__;
