/**
 * Runs the test suites, adds up what really happened, prints the totals as its last line.
 *
 * usage: deno task test [SUITE …] [-- ARGUMENTS FOR deno test]
 *
 * Without a suite all run. `--reuse` returns the last result where no file has changed since: the gate after a
 * test run does not test again. `--update` rewrites the expected output of the pure suite's scripts. Exit status 0 only where nothing failed.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { join } from "node:path";
import { LAYERS } from "./lint_layers.ts";

/** A group of tests that run under the same conditions. */
interface Suite {
  readonly name: string;
  /** Folders under `tests/`, or files and folders from the top where `paths` is given. */
  readonly folders: readonly string[];
  /** Arguments of `deno test` before the paths. */
  readonly args: readonly string[];
  /** Seconds until the suite is ended and counted as failed. */
  readonly timeoutSec: number;
  /** Returns why the suite cannot run on this machine, `undefined` where it can. */
  readonly skipReason?: () => Promise<string | undefined>;
}

/** What one suite came to. */
export interface Counts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

/** The last whole run, kept for `--reuse`. */
interface Stamp {
  readonly fingerprint: string;
  readonly line: string;
  readonly ok: boolean;
}

const ROOT = join(import.meta.dirname ?? ".", "..");
const STAMP = join(ROOT, ".cache", "test_result.json");
const EDGE = LAYERS.findIndex((group) => group.includes("edge"));

/** Folders of tests that run with no rights and without clock or randomness: one for each pure folder of `src/`. */
const PURE_FOLDERS = [...LAYERS.slice(0, EDGE).flat(), "sim", "wire"];

const SANITIZE = ["--sanitize-ops", "--sanitize-resources"];
/** Types are checked once, by the gate. */
const COMMON = ["--no-prompt", "--no-check", ...SANITIZE];

const SUITES: readonly Suite[] = [
  {
    name: "pure",
    folders: PURE_FOLDERS,
    args: [...COMMON, "--parallel", "--allow-read=tests", "--preload=tests/testkit/no_ambient.ts"],
    timeoutSec: 900,
  },
  { name: "tidy", folders: ["tidy", "tools"], args: [...COMMON, "-A"], timeoutSec: 120 },
  { name: "edge", folders: ["edge", "cli", "installer"], args: [...COMMON, "-A"], timeoutSec: 1200 },
  // Examples are not checked by the gate, so they are checked here.
  {
    name: "doc",
    folders: [],
    args: ["--no-prompt", ...SANITIZE, "-A", "--doc", "--permit-no-files", "src"],
    timeoutSec: 300,
  },
  {
    name: "hosts",
    folders: ["hosts"],
    args: [...COMMON, "-A"],
    timeoutSec: 900,
    skipReason: noNamespaces,
  },
  {
    name: "compiled",
    folders: ["compiled"],
    args: [...COMMON, "-A"],
    timeoutSec: 300,
    skipReason: noBinary,
  },
];

/** Folders under `tests/` without tests of their own. */
const SUPPORT_FOLDERS = new Set(["compliance", "testkit", "testdata"]);

/**
 * Reads the numbers of `deno test`'s closing line.
 *
 * @param output Everything that one run printed.
 * @param success Whether the run exited with 0.
 * @returns The counts; a run that failed without a failed test (a module that does not load, a crash, a kill) counts
 * as one failure, so that it cannot vanish.
 */
export function readCounts(output: string, success: boolean): Counts {
  // deno-lint-ignore no-control-regex
  const plain = output.replaceAll(/\x1b\[[0-9;]*m/g, "");
  const lines = [...plain.matchAll(/^(?:ok|FAILED) \| (\d+) passed.*$/gm)];
  const last = lines.at(-1)?.[0] ?? "";
  const number = (word: string) => Number(last.match(new RegExp(`(\\d+) ${word}`))?.[1] ?? 0);
  const failed = number("failed");
  return {
    passed: number("passed"),
    failed: failed === 0 && !success ? 1 : failed,
    skipped: number("ignored"),
  };
}

/** Titles of the tests, and of steps, that `deno test` was told to leave out: a number alone says nothing about what was not shown. */
export function readSkips(output: string): readonly string[] {
  // deno-lint-ignore no-control-regex
  const plain = output.replaceAll(/\x1b\[[0-9;]*m/g, "");
  return [...plain.matchAll(/^ *(\S.*) \.\.\. ignored\b.*$/gm)].map((one) => one[1]!);
}

/** Hosts tests make network namespaces: root and iproute2. */
async function noNamespaces(): Promise<string | undefined> {
  if (Deno.build.os !== "linux") return "network namespaces are Linux's";
  if (Deno.uid() !== 0) return "network namespaces need root";
  const name = `mycelium-probe-${Deno.pid}`;
  const ip = (...args: string[]) =>
    new Deno.Command("ip", { args, stdin: "null", stdout: "null", stderr: "null" }).output()
      .then((one) => one.success, () => false);
  if (!await ip("netns", "add", name)) {
    return '"ip netns add" does not work here (install iproute2; a container may forbid it)';
  }
  await ip("netns", "del", name);
  return undefined;
}

/** The smoke test needs a binary that is as new as the source. */
async function noBinary(): Promise<string | undefined> {
  const path = Deno.env.get("MYCELIUM_BINARY") ?? join(ROOT, "dist", `mycelium-${Deno.build.target}`);
  const binary = await Deno.stat(path).catch(() => undefined);
  if (!binary) return `there is no ${path.replace(`${ROOT}/`, "")}, run "deno task compile"`;
  for await (const file of sourceFiles()) {
    if (!/^(src\/|main\.ts|deno\.json)/.test(file)) continue;
    const { mtime } = await Deno.stat(join(ROOT, file));
    if (mtime && binary.mtime && mtime > binary.mtime) {
      return `${file} is newer than the binary, run "deno task compile"`;
    }
  }
  return undefined;
}

/** Files of the repository that git does not ignore. */
async function* sourceFiles(): AsyncGenerator<string> {
  const listed = await new Deno.Command("git", {
    args: ["ls-files", "-co", "--exclude-standard", "-z"],
    cwd: ROOT,
    stdin: "null",
    stderr: "null",
  }).output().catch(() => undefined);
  if (listed?.success) yield* new TextDecoder().decode(listed.stdout).split("\0").filter((one) => one !== "").sort();
}

/** SHA-256 over the names and contents of all files, the Deno version and the state of the binary; empty without git. */
async function fingerprint(): Promise<string> {
  const hash = createHash("sha256").update(Deno.version.deno).update(await noBinary() ?? "with the binary");
  let files = 0;
  for await (const file of sourceFiles()) {
    const bytes = await Deno.readFile(join(ROOT, file)).catch(() => undefined);
    if (!bytes) continue;
    hash.update(`${file}\0${bytes.length}\0`).update(bytes);
    files++;
  }
  return files === 0 ? "" : hash.digest("hex");
}

/** Those of `folders` that exist and hold a test. */
async function foldersWithTests(folders: readonly string[]): Promise<string[]> {
  const found: string[] = [];
  for (const folder of folders) {
    if (await holdsTest(join(ROOT, "tests", folder))) found.push(`tests/${folder}`);
  }
  return found;
}

async function holdsTest(folder: string): Promise<boolean> {
  try {
    for await (const entry of Deno.readDir(folder)) {
      if (entry.isFile && /_test\.tsx?$/.test(entry.name)) return true;
      if (entry.isDirectory && await holdsTest(join(folder, entry.name))) return true;
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  return false;
}

/** A folder of tests that no suite runs would be a silent hole. */
async function refuseForgottenFolders(): Promise<void> {
  const known = new Set(SUITES.flatMap((suite) => suite.folders));
  for await (const entry of Deno.readDir(join(ROOT, "tests"))) {
    if (!entry.isDirectory || known.has(entry.name) || SUPPORT_FOLDERS.has(entry.name)) continue;
    if (await holdsTest(join(ROOT, "tests", entry.name))) {
      console.error(`Cannot run tests: no suite in tools/test.ts runs tests/${entry.name}, wanted one`);
      Deno.exit(1);
    }
  }
}

/** Runs one suite, passing on what it prints. */
async function runSuite(
  suite: Suite,
  extra: readonly string[],
  update: boolean,
): Promise<Counts & { readonly skips: readonly string[] }> {
  const paths = await foldersWithTests(suite.folders);
  if (paths.length === 0 && suite.folders.length > 0) {
    console.log(`no test in ${suite.folders.join(", ")}`);
    return { passed: 0, failed: 0, skipped: 0, skips: [] };
  }
  const child = new Deno.Command(Deno.execPath(), {
    args: ["test", ...suite.args, ...extra, ...(update ? ["--allow-write=tests", ...paths, "--", "--update"] : paths)],
    cwd: ROOT,
    env: { DENO_TLS_CA_STORE: "system,mozilla", DENO_NO_UPDATE_CHECK: "1" },
    stdin: "null",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  let timedOut = false;
  const timer = setTimeout(() => {
    timedOut = true;
    child.kill("SIGKILL");
  }, suite.timeoutSec * 1000);
  let output = "";
  for await (const chunk of child.stdout.pipeThrough(new TextDecoderStream())) {
    output += chunk;
    Deno.stdout.writeSync(new TextEncoder().encode(chunk));
  }
  const { success } = await child.status;
  clearTimeout(timer);
  if (timedOut) console.log(`suite ${suite.name} was ended after ${suite.timeoutSec} s`);
  return { ...readCounts(output, success), skips: readSkips(output) };
}

async function main(): Promise<void> {
  const separator = Deno.args.indexOf("--");
  const own = separator < 0 ? Deno.args : Deno.args.slice(0, separator);
  const extra = separator < 0 ? [] : Deno.args.slice(separator + 1);
  const names = own.filter((one) => !one.startsWith("--"));
  const unknown = names.find((one) => !SUITES.some((suite) => suite.name === one));
  if (unknown !== undefined) {
    console.error(`Cannot run suite "${unknown}": wanted one of ${SUITES.map((one) => one.name).join(", ")}`);
    Deno.exit(2);
  }
  if (own.includes("--update") && names.join() !== "pure") {
    console.error('Cannot update scripts: they belong to the pure suite, wanted "deno task test pure --update"');
    Deno.exit(2);
  }
  await refuseForgottenFolders();

  const before = await fingerprint();
  if (own.includes("--reuse") && before !== "") {
    const stamp = JSON.parse(await Deno.readTextFile(STAMP).catch(() => "{}")) as Partial<Stamp>;
    if (stamp.fingerprint === before && stamp.line) {
      console.log(`Nothing has changed since the suites ran:\n${stamp.line}`);
      Deno.exit(stamp.ok ? 0 : 1);
    }
  }

  const rows: string[] = [];
  const skips: string[] = [];
  const total = { passed: 0, failed: 0, skipped: 0 };
  for (const suite of SUITES) {
    if (names.length > 0 && !names.includes(suite.name)) continue;
    console.log(`\n=== ${suite.name}`);
    const reason = await suite.skipReason?.();
    if (reason !== undefined && (await foldersWithTests(suite.folders)).length > 0) {
      console.log(`SKIPPED, the whole suite: ${reason}`);
      skips.push(`SUITE ${suite.name}: ${reason}`);
      total.skipped++;
      continue;
    }
    const started = performance.now();
    const counts = await runSuite(suite, extra, own.includes("--update"));
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    rows.push(
      `${suite.name.padEnd(12)}${String(counts.passed).padStart(7)}${String(counts.failed).padStart(8)}` +
        `${String(counts.skipped).padStart(9)}${seconds.padStart(9)}`,
    );
    skips.push(...counts.skips.map((one) => `${suite.name}: ${one}`));
    total.passed += counts.passed;
    total.failed += counts.failed;
    total.skipped += counts.skipped;
  }
  console.log(`\nsuite        passed  failed  skipped  seconds\n${rows.join("\n")}`);
  for (const one of skips) console.log(`SKIPPED ${one}`);
  const line = `${total.passed} passed, ${total.failed} failed${total.skipped > 0 ? `, ${total.skipped} skipped` : ""}`;
  const ok = total.failed === 0 && total.passed > 0;
  if (names.length === 0 && extra.length === 0 && before !== "" && await fingerprint() === before) {
    await Deno.mkdir(join(ROOT, ".cache"), { recursive: true });
    await Deno.writeTextFile(STAMP, JSON.stringify({ fingerprint: before, line, ok } satisfies Stamp));
  } else {
    await Deno.remove(STAMP).catch(() => {});
  }
  console.log(line);
  if (!ok) Deno.exit(1);
}

if (import.meta.main) await main();
