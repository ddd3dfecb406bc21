/**
 * Makes `dist/release/<version>/`: all that is put on a server, or carried to a machine without a network.
 *
 * usage: deno task release [--version VERSION] [--key FILE] [--url URL] [--output FOLDER] [--recordings FOLDER]
 *                          [--binary TARGET=FILE …] [--level N] [--dirty]
 *
 * | file | |
 * |---|---|
 * | `install.sh` | the installer, with version, public key and `--url` inside |
 * | `mycelium-<version>-<target>.gz` | the programs |
 * | `mycelium-<version>-agent.service` | the unit |
 * | `mycelium-<version>.cdx.json` | what it is made of, CycloneDX |
 * | `mycelium-<version>-<target>.codecache` | what a program was recorded with: the one input that is no part of the commit |
 * | `SHA256SUMS` | checksums of all of these, and of the programs unpacked |
 * | `SHA256SUMS.sig`, `.sshsig`, `.gpg` | its signature, for three kinds of verifiers |
 * | `mycelium-<version>-bundle.tar` | all of it in one file |
 *
 * The key is that of `--key` or `MYCELIUM_RELEASE_KEY`, else a development key of this checkout under `.cache/`, made at
 * the first use: a release signed with it is worth as much as the checkout.
 *
 * The same commit, key, address and recordings give the same bytes. Recordings are kept under `.cache/release/` by commit;
 * somebody who wants to make the same release elsewhere takes them from it with `--recordings`. `--binary` takes a
 * program that is made already; `--level` packs it less well and faster (1 to 9). A changed checkout is refused without `--dirty`.
 *
 * Exit status 0 when all is made, 3 when a runtime is not to be had, 1 or 2 for anything else.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { join, resolve } from "node:path";
import { constants, gzipSync } from "node:zlib";
import manifest from "../deno.json" with { type: "json" };
import { type Target, TARGETS } from "./get_denort.ts";
import { publicForms, readKey, signRelease } from "./release_key.ts";
import { sbom } from "./sbom.ts";

const ROOT = join(import.meta.dirname ?? ".", "..");
const DEVELOPMENT_KEY = join(ROOT, ".cache", "release", "development.key");
const SUMS = "SHA256SUMS";

/** The command line, checked. */
interface Options {
  readonly version: string;
  /** Undefined: the development key. */
  readonly key: string | undefined;
  /** Where the release will be served; empty: whoever installs says it. */
  readonly url: string;
  readonly output: string;
  readonly recordings: string;
  readonly binaries: ReadonlyMap<Target, string>;
  /** Of gzip. */
  readonly level: number;
  readonly dirty: boolean;
}

/** One file of a release. */
interface Artefact {
  readonly name: string;
  readonly bytes: Uint8Array;
  /** File mode in the bundle and the folder. */
  readonly mode: number;
}

/** A command line that cannot be used. */
class UsageError extends Error {
  override readonly name = "UsageError";
}

/** `deno task compile` found no runtime. */
class NoRuntimeError extends Error {
  override readonly name = "NoRuntimeError";
}

/** Makes the release; returns its folder. */
async function release(args: readonly string[]): Promise<string> {
  const commit = await git("rev-parse", "HEAD");
  const options = parseOptions(args, commit);
  const changed = await git("status", "--porcelain", "--untracked-files=no");
  if (changed !== "" && !options.dirty) {
    throw new UsageError(
      `Cannot make a release: the checkout differs from its commit (${changed.split("\n").length} files), ` +
        "commit first, or try with --dirty",
    );
  }
  const madeSec = Number(Deno.env.get("SOURCE_DATE_EPOCH") ?? await git("log", "-1", "--format=%ct"));
  const key = await readKey(options.key ?? DEVELOPMENT_KEY, options.key === undefined);
  if (options.key === undefined) {
    console.error("WARNING: signed with the development key of this checkout, --key names the real one");
  }
  const { version } = options;
  const forms = publicForms(key);

  const artefacts: Artefact[] = [];
  const add = (name: string, bytes: Uint8Array, mode = 0o644) => artefacts.push({ name, bytes, mode });
  /** Checksums of programs as they are once unpacked: an installed one is compared with them. */
  const unpacked: string[] = [];
  for (const target of TARGETS) {
    const { program, recording } = await programFor(target, options, madeSec);
    const name = `mycelium-${version}-${target}`;
    unpacked.push(`${sha256(program)}  ${name}`);
    add(`${name}.gz`, gzip(program, options.level));
    if (recording) add(`${name}.codecache`, recording);
  }
  const read = (...path: string[]) => Deno.readFile(join(ROOT, ...path));
  add(`mycelium-${version}-agent.service`, await read("systemd", "mycelium-agent.service"));
  const lock = await Deno.readTextFile(join(ROOT, "deno.lock"));
  add(`mycelium-${version}.cdx.json`, new TextEncoder().encode(sbom({ lock, version, commit, madeSec })));
  const values = {
    VERSION: version,
    PUBLIC_KEY: forms.spki,
    SSH_KEY: forms.ssh,
    GPG_KEY: forms.gpg,
    RELEASE_URL: options.url,
  };
  const script = fill(new TextDecoder().decode(await read("installer", "install.sh")), values);
  add("install.sh", new TextEncoder().encode(script), 0o755);

  const lines = [...artefacts.map(({ name, bytes }) => `${sha256(bytes)}  ${name}`), ...unpacked];
  const list = new TextEncoder().encode(`${lines.sort((a, b) => a.slice(66) < b.slice(66) ? -1 : 1).join("\n")}\n`);
  const signatures = signRelease(key, list, madeSec);
  add(SUMS, list);
  add(`${SUMS}.sig`, signatures.raw);
  add(`${SUMS}.sshsig`, signatures.ssh);
  add(`${SUMS}.gpg`, signatures.gpg);
  add(`mycelium-${version}-bundle.tar`, tar(artefacts, madeSec));

  await Deno.mkdir(options.output, { recursive: true });
  for (const { name, bytes, mode } of artefacts) {
    const path = join(options.output, name);
    await Deno.writeFile(`${path}.new`, bytes);
    await Deno.chmod(`${path}.new`, mode);
    await Deno.rename(`${path}.new`, path);
    console.log(`${sha256(bytes)}  ${(bytes.length / 1e6).toFixed(2).padStart(7)} MB  ${name}`);
  }
  return options.output;
}

function parseOptions(args: readonly string[], commit: string): Options {
  const values = new Map<string, string[]>();
  for (let i = 0; i < args.length; i++) {
    const [, name = "", inline] = /^--([a-z]+)(?:=(.*))?$/s.exec(args[i]!) ?? [];
    if (name === "dirty") values.set(name, []);
    else if (["version", "key", "url", "output", "recordings", "binary", "level"].includes(name)) {
      const value = inline ?? args[++i];
      if (value === undefined) throw new UsageError(`Cannot make a release: --${name} wants a value`);
      values.set(name, [...values.get(name) ?? [], value]);
    } else throw new UsageError(`Cannot make a release: unknown argument "${args[i]}"`);
  }
  const last = (name: string) => values.get(name)?.at(-1);
  const version = last("version") ?? manifest.version;
  if (!/^\d+\.\d+\.\d+[0-9A-Za-z.-]*$/.test(version)) {
    throw new UsageError(`Cannot make a release: version is "${version}", wanted for example 1.2.3`);
  }
  const url = last("url") ?? "";
  if (!/^(https?:\/\/[\w.:/~%-]+|)$/.test(url)) {
    throw new UsageError(`Cannot make a release: the address is "${url}", wanted https://…`);
  }
  const binaries = new Map<Target, string>();
  for (const one of values.get("binary") ?? []) {
    const [name, ...path] = one.split("=");
    const target = TARGETS.find((known) => known === name);
    if (!target || path.length === 0) {
      throw new UsageError(`Cannot make a release: --binary is "${one}", wanted TARGET=FILE`);
    }
    binaries.set(target, path.join("="));
  }
  const level = Number(last("level") ?? constants.Z_BEST_COMPRESSION);
  if (!Number.isInteger(level) || level < 1 || level > 9) {
    throw new UsageError(`Cannot make a release: --level is "${last("level")}", wanted 1 to 9`);
  }
  return {
    version,
    key: last("key") ?? Deno.env.get("MYCELIUM_RELEASE_KEY"),
    url,
    output: resolve(last("output") ?? join(ROOT, "dist", "release", version)),
    recordings: resolve(last("recordings") ?? join(ROOT, ".cache", "release", commit)),
    binaries,
    level,
    dirty: values.has("dirty"),
  };
}

/** The program for `target`, compiled where none is given, and what it was recorded with. */
async function programFor(
  target: Target,
  options: Options,
  madeSec: number,
): Promise<{ readonly program: Uint8Array; readonly recording?: Uint8Array }> {
  const given = options.binaries.get(target);
  if (given !== undefined) return { program: await Deno.readFile(given) };
  const scratch = await Deno.makeTempDir({ prefix: "mycelium-release-" });
  try {
    const output = join(scratch, "program");
    // One of a changed checkout fits nothing else.
    const recordings = options.dirty ? scratch : options.recordings;
    const published = join(recordings, `mycelium-${options.version}-${target}.codecache`);
    await Deno.mkdir(recordings, { recursive: true });
    const { code } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "tools/compile.ts", "--target", target, "--output", output, "--cache", published],
      cwd: ROOT,
      env: { SOURCE_DATE_EPOCH: String(madeSec) },
      stdin: "null",
      stdout: "inherit",
      stderr: "inherit",
    }).output();
    if (code === 3) throw new NoRuntimeError(`Cannot make a release: no runtime for ${target}`);
    if (code !== 0) throw new Error(`Cannot make a release: compiling for ${target} failed, its words are above`);
    const recording = await Deno.readFile(published).catch(() => undefined);
    return { program: await Deno.readFile(output), ...(recording ? { recording } : {}) };
  } finally {
    await Deno.remove(scratch, { recursive: true });
  }
}

/** Puts the values of a release into the script: each of them must have its place. */
function fill(script: string, values: Readonly<Record<string, string>>): string {
  let text = script;
  for (const [name, value] of Object.entries(values)) {
    const place = `'@${name}@'`;
    if (text.split(place).length !== 2) throw new Error(`Cannot fill install.sh: wanted ${place} in it once`);
    text = text.replace(place, () => `'${value}'`);
  }
  return text;
}

/** Without name and date inside. */
function gzip(bytes: Uint8Array, level: number): Uint8Array {
  const packed = gzipSync(bytes, { level });
  packed.fill(0, 4, 8);
  // The system that packed it: always "unknown".
  packed[9] = 255;
  return packed;
}

/** An archive (ustar) that depends on the files and `madeSec` alone. */
function tar(artefacts: readonly Artefact[], madeSec: number): Uint8Array {
  const parts: Uint8Array[] = [];
  for (const { name, bytes, mode } of artefacts) {
    const header = Buffer.alloc(512);
    const octal = (value: number, at: number, length: number) =>
      header.write(`${value.toString(8).padStart(length - 1, "0")}\0`, at, "latin1");
    header.write(name, 0, 100, "latin1");
    octal(mode, 100, 8);
    octal(0, 108, 8);
    octal(0, 116, 8);
    octal(bytes.length, 124, 12);
    octal(madeSec, 136, 12);
    header.write("        0", 148, "latin1");
    header.write("ustar\x0000root", 257, "latin1");
    header.write("root", 297, "latin1");
    octal(header.reduce((sum, one) => sum + one, 0), 148, 7);
    parts.push(header, bytes, new Uint8Array((512 - bytes.length % 512) % 512));
  }
  return Buffer.concat([...parts, new Uint8Array(1024)]);
}

/** What git printed. */
async function git(...args: string[]): Promise<string> {
  const output = await new Deno.Command("git", { args, cwd: ROOT, stdin: "null" }).output();
  if (!output.success) throw new Error(`Cannot make a release: git ${args[0]} failed, wanted a checkout`);
  return new TextDecoder().decode(output.stdout).trim();
}

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

if (import.meta.main) {
  try {
    console.log(`Made ${(await release(Deno.args)).replace(`${ROOT}/`, "")}`);
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    Deno.exit(error instanceof UsageError ? 2 : error instanceof NoRuntimeError ? 3 : 1);
  }
}
