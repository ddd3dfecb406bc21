/**
 * The list of what a release is made of, CycloneDX 1.6: packages of `deno.lock` with their checksums, and the runtime.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { RUNTIME_VERSION, RUNTIMES } from "./get_denort.ts";

/** A package that is used to test or to build only: in the list as `excluded`. */
const DEVELOPMENT = new Set(["esbuild", "fast-check", "@types/node"]);

/** What is needed of a version-5 `deno.lock`. */
interface Lock {
  readonly specifiers: Readonly<Record<string, string>>;
  readonly npm: Readonly<
    Record<
      string,
      {
        readonly integrity: string;
        readonly dependencies?: readonly string[];
        readonly optionalDependencies?: readonly string[];
      }
    >
  >;
}

/** Options of {@linkcode sbom}. */
export interface SbomOptions {
  /** Text of `deno.lock`. */
  readonly lock: string;
  readonly version: string;
  /** Commit the release is made of. */
  readonly commit: string;
  /** When, seconds since 1970. */
  readonly madeSec: number;
}

/**
 * Returns the list as text; the same input gives the same bytes.
 *
 * @throws {Error} Where `deno.lock` has another form than version 5, or a package without a checksum.
 */
export function sbom(options: SbomOptions): string {
  const lock = JSON.parse(options.lock) as Lock & { readonly version: string };
  if (lock.version !== "5") throw new Error(`Cannot read deno.lock: version is ${lock.version}, expected 5`);
  const keys = Object.keys(lock.npm).sort();
  /** Key in the lock of a dependency as it is written there: with the version only where there are several. */
  const keyOf = (name: string) => {
    const found = lock.npm[name] ? name : keys.find((one) => one.startsWith(`${name}@`));
    if (found === undefined) throw new Error(`Cannot read deno.lock: there is no package "${name}" in it`);
    return found;
  };
  const dependencies = (key: string) => (lock.npm[key]!.dependencies ?? []).map(keyOf);
  const reach = (from: readonly string[]) => {
    const seen = new Set<string>();
    const todo = [...from];
    for (let key = todo.pop(); key !== undefined; key = todo.pop()) {
      if (seen.has(key)) continue;
      seen.add(key);
      todo.push(...dependencies(key));
    }
    return seen;
  };
  const roots = Object.entries(lock.specifiers).map(([specifier, version]) => {
    const name = specifier.replace(/^npm:/, "").replace(/(.)@.*$/, "$1");
    return { name, key: keyOf(`${name}@${version}`) };
  });
  const shipped = reach(roots.filter(({ name }) => !DEVELOPMENT.has(name)).map(({ key }) => key));

  const components = keys.map((key) => {
    const [, name = "", version = ""] = /^(.+?)@([^_]+)/.exec(key.replace(/^@/, "\0"))?.map((one) =>
      one.replace("\0", "@")
    ) ?? [];
    const [algorithm, digest] = lock.npm[key]!.integrity.split("-");
    if (algorithm !== "sha512" || !digest) throw new Error(`Cannot list "${key}": wanted a sha512 in deno.lock`);
    return {
      type: "library",
      "bom-ref": key,
      name,
      version,
      scope: shipped.has(key) ? "required" : "excluded",
      hashes: [{ alg: "SHA-512", content: Uint8Array.fromBase64(digest).toHex() }],
      purl: `pkg:npm/${name.replace(/^@/, "%40")}@${version}`,
    };
  });
  const runtimes = Object.entries(RUNTIMES).map(([target, { sha256 }]) => ({
    type: "framework",
    "bom-ref": `denort-${target}`,
    name: `denort-${target}`,
    version: RUNTIME_VERSION,
    scope: "required",
    hashes: [{ alg: "SHA-256", content: sha256 }],
    purl: `pkg:github/denoland/deno@v${RUNTIME_VERSION}`,
  }));
  const main = `mycelium@${options.version}`;
  const document = {
    bomFormat: "CycloneDX",
    specVersion: "1.6",
    serialNumber: `urn:uuid:${uuid(`${options.version} ${options.commit} ${options.lock}`)}`,
    version: 1,
    metadata: {
      timestamp: new Date(options.madeSec * 1000).toISOString().replace(/\.\d+Z$/, "Z"),
      component: {
        type: "application",
        "bom-ref": main,
        name: "mycelium",
        version: options.version,
        licenses: [{ license: { id: "Apache-2.0" } }],
        properties: [{ name: "mycelium:commit", value: options.commit }],
      },
    },
    components: [...components, ...runtimes],
    dependencies: [
      { ref: main, dependsOn: [...roots.map(({ key }) => key), ...runtimes.map((one) => one["bom-ref"])].sort() },
      ...keys.map((key) => ({ ref: key, dependsOn: dependencies(key).sort() })),
    ],
  };
  return `${JSON.stringify(document, undefined, 2)}\n`;
}

/** A UUID of version 8 from the hash of `text`. */
function uuid(text: string): string {
  const bytes = createHash("sha256").update(text).digest().subarray(0, 16);
  bytes[6] = bytes[6]! & 0x0f | 0x80;
  bytes[8] = bytes[8]! & 0x3f | 0x80;
  return bytes.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
