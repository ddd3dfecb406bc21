/**
 * Makes `dist/mycelium-<target>`, one self-contained program.
 *
 * usage: deno task compile [--target TARGET] [--output FILE] [--cache FILE] [--download] [--report] [--plain]
 *
 * The program is bundled first (one minified file, nothing that is not used) and then compiled in an empty
 * folder: a compiled `node_modules` is twice as large and starts five times slower. The bundle is read with a code cache
 * that a start of it has left (`code_cache.ts`). `--plain` leaves the cache to the runtime, for other entries.
 * No two recordings are the same bytes: `--cache FILE` takes the one in FILE where there is one and puts it there where
 * not. The same commit, date and recording give the same program.
 *
 * The runtime inside comes from, in this order: `DENORT_BIN` (with `MYCELIUM_COMPILE_DENO` as the compiler of the
 * same version, by default the Deno that runs this); `--download`, the compiling Deno's own download; else the
 * pinned runtime of ADR 1.
 *
 * Exit status 0 when the file is made, 3 when no runtime is to be had, 1 or 2 for anything else.
 *
 * @module
 */

import { build, type Metafile, type Plugin } from "esbuild";
import { builtinModules } from "node:module";
import { dirname, join, resolve } from "node:path";
import manifest from "../deno.json" with { type: "json" };
import { type CachePlace, FILES, loaderSource, recordCache, WRAPPER } from "./code_cache.ts";
import { getToolchain, RuntimeUnavailableError, type Target, TARGETS } from "./get_denort.ts";
import type { BuildInfo } from "../src/edge/process/build_info.ts";

const ROOT = join(import.meta.dirname ?? ".", "..");

/**
 * A small young generation bounds what load adds to the memory, at no measured cost: 1 MB instead of 2 saves an idle
 * node 2.7 MB. Without V8's middle compiler an idle node has 4.5 MB less, one under load 10, and serves `/status` as
 * fast. The optimizing compiler starts after 30 000 calls instead of 3 000: what an idle node does, the beacons of its
 * segment included, never wakes it, and its code alone is 6.5 MB (83.0 to 76.3 MB idle); a busy node gets there in
 * seconds. Feedback is kept from the 100th call of a function on instead of the 8th: 0.8 MB that a start would fill. Not
 * `--no-lazy`: the code cache holds what is needed already. Not `--memory-saver-mode`: 1 MB less idle and 30 under load,
 * but a sixth fewer answers of `/status`. Not `--no-sparkplug`: nothing beside the later feedback. Not
 * `--optimize-for-size`: 3 MB of 93 less, and half the speed in code that lives in Maps. Not `--lite-mode`: it takes
 * WebAssembly away.
 */
const V8_FLAGS = "--max-semi-space-size=1,--no-maglev,--invocation-count-for-turbofan=30000," +
  "--invocation-count-for-feedback-allocation=100";

/** CommonJS modules inside the bundle ask for these, which an ES module does not have. */
const BANNER = 'import{createRequire as __createRequire}from"node:module";' +
  "const require=__createRequire(import.meta.url);" +
  "const __filename=import.meta.filename,__dirname=import.meta.dirname;";

/** Deno wants `node:fs` where packages say `fs`. */
const nodePrefix: Plugin = {
  name: "node-prefix",
  setup(plugin) {
    const names = builtinModules.filter((one) => !one.startsWith("_") && !one.startsWith("node:"));
    const filter = new RegExp(`^(${names.join("|")})$`);
    plugin.onResolve({ filter }, ({ path }) => ({ path: `node:${path}`, external: true }));
  },
};

/** A change to a package's file on its way into the bundle: each of the replacements must find something. */
interface Diet {
  readonly file: RegExp;
  readonly replace: readonly (readonly [what: RegExp, by: string])[];
}

/** What packages do when they are loaded, for cases that this program has not. Figures: `bench/start.ts`, Deno 2.7. */
const DIETS: readonly Diet[] = [
  // Noise's cipher for short messages is WebAssembly: 6 MB for the engine and 86 kB of source, where the runtime's own
  // is used (`src/edge/p2p/noise_crypto.ts`).
  {
    file: /libp2p-noise\/dist\/src\/crypto\/index\.js$/,
    replace: [
      [/^import .*@chainsafe\/as-.*$/gm, ""],
      [/^const (ctx|asImpl) = .*$/gm, ""],
      [/export const asCrypto = \{[^]*?^\};$/m, ""],
      [/asCrypto\./g, "nodeCrypto."],
    ],
  },
  // Comparing by locale loads a collation table of 1.5 MB to sort addresses and names of protocols.
  {
    file: /peer-store\/dist\/src\/utils\/(to-peer-pb|dedupe-addresses)\.js$/,
    replace: [[/return a(.*)\.localeCompare\(b(.*)\);/g, "return a$1 < b$2 ? -1 : a$1 > b$2 ? 1 : 0;"]],
  },
  // Other kinds of keys than Ed25519: 44 kB of curves, loaded by the first such key. Ours come whole, seed and public key.
  {
    file: /libp2p\/crypto\/dist\/src\/keys\/secp256k1\/(index|utils)\.js$/,
    replace: [
      [/^import \{ secp256k1 as secp \} from '@noble\/curves\/secp256k1\.js';$/m, ""],
      [/\bsecp\./g, "require('@noble/curves/secp256k1.js').secp256k1."],
    ],
  },
  {
    file: /libp2p\/crypto\/dist\/src\/keys\/ed25519\/index\.js$/,
    replace: [
      [/^import \{ ed25519 as ed \} from '@noble\/curves\/ed25519\.js';$/m, ""],
      [/\bed\./g, "require('@noble/curves/ed25519.js').ed25519."],
    ],
  },
  {
    file: /libp2p\/crypto\/dist\/src\/keys\/rsa\/utils\.js$/,
    replace: [
      [/^import \{ sha256 \} from '@noble\/hashes\/sha2\.js';$/m, ""],
      [/\bsha256\(/g, "require('@noble/hashes/sha2.js').sha256("],
    ],
  },
  // Parts of a barrel that is loaded whole: streams for tests, with a CBOR codec of their own.
  {
    file: /libp2p\/utils\/dist\/src\/index\.js$/,
    replace: [[/^export \* from "\.\/(mock-[a-z]+|stream-pair|multiaddr-connection-pair)\.js";$/gm, ""]],
  },
];

/** Functions and classes of modules that a start does without, by who imports them: the first call loads the module. */
const LAZY: readonly { readonly from: RegExp; readonly path: string; readonly names: readonly string[] }[] = [
  {
    from: /src\/edge\/config\.ts$/,
    path: "yaml",
    names: ["isAlias", "isCollection", "isMap", "isScalar", "LineCounter", "parseDocument", "stringify"],
  },
  { from: /src\/edge\/http\/app\.ts$/, path: "./openapi.ts", names: ["openApiDocument"] },
  { from: /src\/edge\/http\/app\.ts$/, path: "./dashboard.ts", names: ["mainPart", "page"] },
];

const lazily: Plugin = {
  name: "lazily",
  setup(plugin) {
    for (const { from, path: wanted, names } of LAZY) {
      const filter = new RegExp(`^${RegExp.escape(wanted)}$`);
      plugin.onResolve(
        { filter },
        ({ path, kind, importer, resolveDir }) =>
          kind === "import-statement" && from.test(importer)
            ? { path, namespace: "lazily", pluginData: { names, resolveDir } }
            : undefined,
      );
    }
    plugin.onLoad({ filter: /./, namespace: "lazily" }, ({ path, pluginData: { names, resolveDir } }) => ({
      contents: names.map((name: string) =>
        `export function ${name}(...args){const f=require("${path}").${name};return new.target?new f(...args):f(...args)}`
      ).join("\n"),
      resolveDir,
    }));
  },
};

const diet: Plugin = {
  name: "diet",
  setup(plugin) {
    for (const { file, replace } of DIETS) {
      plugin.onLoad({ filter: file }, async ({ path }) => {
        let contents = await Deno.readTextFile(path);
        for (const [what, by] of replace) {
          const before = contents;
          contents = contents.replace(what, by);
          if (contents === before) throw new Error(`Cannot change ${path}: ${what} is not in it any more`);
        }
        return { contents, loader: "js" };
      });
    }
  },
};

/** Options of {@linkcode bundle}. */
export interface BundleOptions {
  /** First module, relative to the repository. */
  readonly entry: string;
  /** File to write. */
  readonly outfile: string;
  /** A module, or the body of a function for {@linkcode loaderSource}. */
  readonly form: "module" | "function";
  readonly info: BuildInfo;
}

/**
 * Bundles the program for the compiler.
 *
 * @returns What went into it, as esbuild describes it.
 */
export async function bundle(options: BundleOptions): Promise<Metafile> {
  const { outfile } = options;
  const form = options.form === "module" ? { format: "esm", banner: { js: BANNER } } as const : {
    format: "cjs",
    banner: { js: WRAPPER.banner },
    footer: { js: WRAPPER.footer },
    // A function has no import of its own: Deno's modules come by `require`.
    supported: { "dynamic-import": false },
  } as const;
  const { metafile } = await build({
    ...form,
    absWorkingDir: ROOT,
    entryPoints: [options.entry],
    outfile,
    bundle: true,
    // One file: its lazy parts start as fast as chunks of their own, and chunks miss the code cache (12 MB more memory).
    splitting: false,
    minify: true,
    platform: "node",
    target: "esnext",
    conditions: ["deno", "node", "import"],
    legalComments: "none",
    logLevel: "error",
    metafile: true,
    define: { __MYCELIUM_BUILD__: JSON.stringify(options.info) },
    plugins: [nodePrefix, lazily, diet],
  });
  // The bundler leaves tagged templates as they are. One such letter makes two bytes of each of a million.
  const text = await Deno.readTextFile(outfile);
  const escape = (letter: string) => `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`;
  await Deno.writeTextFile(outfile, text.replaceAll(/[^\0-\x7f]/g, escape));
  return metafile;
}

/** Describes this build: version from deno.json, commit from git, date from the clock or SOURCE_DATE_EPOCH. */
async function buildInfo(target: Target): Promise<BuildInfo> {
  const epoch = Deno.env.get("SOURCE_DATE_EPOCH");
  const builtAt = new Date(epoch === undefined ? Date.now() : Number(epoch) * 1000).toISOString().replace(
    /\.\d+Z$/,
    "Z",
  );
  const commit = await git("rev-parse", "--short=12", "HEAD");
  const dirty = await git("status", "--porcelain", "--untracked-files=no");
  return {
    version: manifest.version,
    commit: commit === "" ? "unknown" : dirty === "" ? commit : `${commit}-dirty`,
    builtAt,
    target,
  };
}

/** What git printed, empty where it failed. */
async function git(...args: string[]): Promise<string> {
  const output = await new Deno.Command("git", { args, cwd: ROOT, stdin: "null", stderr: "null" }).output()
    .catch(() => undefined);
  return output?.success ? new TextDecoder().decode(output.stdout).trim() : "";
}

/** The command line, checked. */
interface Options {
  readonly target: Target;
  readonly output: string;
  /** Where the recorded code cache is, or is put. */
  readonly cache: string | undefined;
  readonly download: boolean;
  readonly report: boolean;
  readonly plain: boolean;
  readonly entry: string;
}

function parseOptions(args: readonly string[]): Options {
  const value = (name: string) => {
    const at = args.findIndex((one) => one === name || one.startsWith(`${name}=`));
    return at < 0 ? undefined : args[at]!.includes("=") ? args[at]!.slice(name.length + 1) : args[at + 1];
  };
  const known = /^--(target|output|cache|entry)(=|$)|^--(download|report|plain)$/;
  const stray = args.find((one, i) => !known.test(one) && !/^--(target|output|cache|entry)$/.test(args[i - 1] ?? ""));
  if (stray !== undefined) throw usage(`unknown argument "${stray}"`);
  const wanted = value("--target") ?? Deno.build.target;
  const target = TARGETS.find((one) => one === wanted);
  if (!target) throw usage(`unknown target "${wanted}", wanted one of ${TARGETS.join(", ")}`);
  return {
    target,
    output: resolve(ROOT, value("--output") ?? join("dist", `mycelium-${target}`)),
    cache: value("--cache"),
    download: args.includes("--download"),
    report: args.includes("--report"),
    plain: args.includes("--plain"),
    entry: value("--entry") ?? "main.ts",
  };
}

function usage(cause: string): Error {
  return new Error(
    `Cannot compile: ${cause}\nusage: deno task compile [--target TARGET] [--output FILE] [--cache FILE] [--download] [--report] [--plain]`,
  );
}

/** Which compiler and runtime to use; an undefined runtime lets the compiler download its own. */
async function toolchain(options: Options): Promise<{ deno: string; denort: string | undefined }> {
  const given = Deno.env.get("DENORT_BIN");
  const deno = Deno.env.get("MYCELIUM_COMPILE_DENO");
  if (given || options.download) return { deno: deno ?? Deno.execPath(), denort: given };
  const pinned = await getToolchain(options.target);
  return { deno: deno ?? pinned.deno, denort: pinned.denort };
}

async function compile(options: Options): Promise<void> {
  const { deno, denort } = await toolchain(options);
  const info = await buildInfo(options.target);
  const scratch = await Deno.makeTempDir({ prefix: "mycelium-compile-" });
  try {
    const { target, plain } = options;
    await Deno.writeTextFile(join(scratch, "deno.json"), "{}");
    await Deno.mkdir(dirname(options.output), { recursive: true });
    const denoCompile = async (output: string, include: readonly string[], runtime: string | undefined) => {
      // The compiler writes down the times of the files.
      const made = new Date(info.builtAt);
      for (const file of [FILES.loader, ...include]) await Deno.utime(join(scratch, file), made, made);
      const args = [
        "compile",
        "--quiet",
        "--no-check",
        "--unstable-net",
        // Not a list of rights: Deno lets a program read /proc and /sys, which a node measures itself by, with all
        // rights only. The systemd unit confines the process instead.
        "--allow-all",
        `--v8-flags=${V8_FLAGS}`,
        ...(plain ? [] : ["--no-code-cache"]),
        ...include.flatMap((file) => ["--include", file]),
        "--target",
        target,
        "--output",
        output,
        FILES.loader,
      ];
      const { success } = await new Deno.Command(deno, {
        args,
        cwd: scratch,
        stdin: "null",
        env: {
          ...(runtime === undefined ? {} : { DENORT_BIN: runtime }),
          // The compiler overflows its default stack on some module graphs.
          RUST_MIN_STACK: "268435456",
          DENO_TLS_CA_STORE: "system,mozilla",
          DENO_NO_UPDATE_CHECK: "1",
        },
        stdout: "inherit",
        stderr: "inherit",
      }).output();
      if (!success) throw new Error(`Cannot compile for ${target}: ${deno} compile failed, its words are above`);
    };
    const outfile = join(scratch, plain ? FILES.loader : FILES.app);
    const metafile = await bundle({ entry: options.entry, outfile, form: plain ? "module" : "function", info });
    if (plain) {
      await denoCompile(options.output, [], denort);
    } else {
      const kept = options.cache === undefined ? undefined : await Deno.readFile(options.cache).catch((error) => {
        if (error instanceof Deno.errors.NotFound) return undefined;
        throw error;
      });
      const cache = kept ?? await recordCache({
        folder: scratch,
        compile: (output, include) => denoCompile(output, include, denort),
        runner: runnerOf(target),
      }).catch((error) => {
        console.error(
          `WARNING: ${target} gets no code cache, its starts take twice as long: ${error?.message ?? error}`,
        );
        return undefined;
      });
      if (cache && !kept && options.cache !== undefined) await Deno.writeFile(options.cache, cache);
      let runtime = denort;
      let place: CachePlace = { type: cache ? "file" : "none" };
      if (cache && denort !== undefined) {
        // Behind the runtime, before what the compiler appends: nothing reads it into memory but the loader.
        place = { type: "program", at: (await Deno.stat(denort)).size, length: cache.length };
        runtime = join(scratch, "runtime");
        await Deno.copyFile(denort, runtime);
        await Deno.writeFile(runtime, cache, { append: true });
      }
      await Deno.writeTextFile(join(scratch, FILES.loader), loaderSource(place));
      await denoCompile(options.output, place.type === "file" ? [FILES.app, FILES.cache] : [FILES.app], runtime);
    }
    if (options.report) report(metafile);
    const bundled = Object.values(metafile.outputs).reduce((sum, one) => sum + one.bytes, 0);
    const { size } = await Deno.stat(options.output);
    console.log(
      `${options.output.replace(`${ROOT}/`, "")}: mycelium ${info.version} ${info.commit}, ${
        megabytes(size)
      } of which ` +
        `${megabytes(bundled)} is the program`,
    );
  } finally {
    await Deno.remove(scratch, { recursive: true });
  }
}

/** What runs a program for `target` on this machine. */
function runnerOf(target: Target): readonly string[] {
  if (target === Deno.build.target) return [];
  const [arch] = target.split("-");
  return [`qemu-${arch}-static`, "-L", `/usr/${arch}-linux-gnu`];
}

/** Prints the largest packages of the bundle. */
function report(metafile: Metafile): void {
  const sizes = new Map<string, number>();
  for (const output of Object.values(metafile.outputs)) {
    for (const [file, { bytesInOutput }] of Object.entries(output.inputs)) {
      const name = file.match(/.*node_modules\/((?:@[^/]+\/)?[^/]+)/)?.[1] ?? "(ours)";
      sizes.set(name, (sizes.get(name) ?? 0) + bytesInOutput);
    }
  }
  for (const [name, bytes] of [...sizes].sort((a, b) => b[1] - a[1]).slice(0, 20)) {
    console.log(`${(bytes / 1024).toFixed(1).padStart(9)} KiB  ${name}`);
  }
}

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(2)} MB`;
}

if (import.meta.main) {
  try {
    await compile(parseOptions(Deno.args));
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    Deno.exit(error instanceof RuntimeUnavailableError ? 3 : 1);
  }
}
