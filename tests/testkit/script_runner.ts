/**
 * Data-driven scripts: what goes into a state machine and what comes out, as a text that a reviewer reads.
 *
 * A script is a text of blocks separated by blank lines. A block is a command with `key=value` arguments (a value
 * with blanks in double quotes), perhaps further lines of input, a line `----`, and the output that is expected.
 * Lines that start with `#` before a command are comments; the first one says what the script shows and where it
 * is from.
 *
 * ```text
 * # A second holder is refused until the deadline.
 * acquire holder=a now=0
 * ----
 * persist holder=a until=1000
 * wake at 1000
 *
 * acquire holder=b now=999
 * ----
 * refuse held
 * ```
 *
 * One test per file; each file has its own handler, so the state of one script never reaches another:
 *
 * ```ts ignore
 * testScripts(import.meta.dirname + "/testdata", () => {
 *   const lease = new Lease(seededRng(1));
 *   return (command) => {
 *     switch (command.name) {
 *       case "acquire":
 *         return lease.step({ type: "acquire", holder: command.text("holder"), nowMs: command.int("now") }).map(describe);
 *       default:
 *         throw command.unknown();
 *     }
 *   };
 * });
 * ```
 *
 * `deno test --allow-read=tests --allow-write=tests <file> -- --update` writes the outputs into the scripts and
 * fails, so that nobody's gate passes by updating. Read the diff: each line of it is a change of behaviour.
 *
 * Source of the form: cockroachdb/datadriven, as etcd's raft tests use it.
 *
 * @module
 */

import assert from "node:assert/strict";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** One command of a script. Asking for an argument that is missing or malformed throws with the place. */
export class ScriptCommand {
  readonly #asked = new Set<string>();

  constructor(
    /** First word of the command. */
    readonly name: string,
    /** Arguments in the order in which they are written. */
    readonly args: ReadonlyMap<string, string>,
    /** Lines between the command and `----`. */
    readonly input: readonly string[],
    /** `file:line`, for messages. */
    readonly place: string,
  ) {}

  /** Whether the argument is there. */
  has(key: string): boolean {
    this.#asked.add(key);
    return this.args.has(key);
  }

  /** A text argument; `fallback` where it is missing. */
  text(key: string, fallback?: string): string {
    this.#asked.add(key);
    const value = this.args.get(key) ?? fallback;
    if (value === undefined) throw new Error(`${this.place}: "${this.name}" wants ${key}=…`);
    return value;
  }

  /** An integer argument; `fallback` where it is missing. */
  int(key: string, fallback?: number): number {
    const value = this.text(key, fallback === undefined ? undefined : String(fallback));
    if (!/^-?\d+$/.test(value)) throw new Error(`${this.place}: ${key} is "${value}", wanted an integer`);
    return Number(value);
  }

  /** The error for a command that the handler does not know. */
  unknown(): Error {
    return new Error(`${this.place}: no command is called "${this.name}"`);
  }

  /** Throws where an argument was written that nobody asked for: a misspelt one would silently do nothing. */
  checkAsked(): void {
    for (const key of this.args.keys()) {
      if (!this.#asked.has(key)) throw new Error(`${this.place}: "${this.name}" does not know ${key}=`);
    }
  }
}

/** Carries out one command and returns what it printed, a line each. */
export type ScriptHandler = (command: ScriptCommand) => readonly string[];

/** Runs a script; returns it with the outputs that the handler gave. Equal to the input where all is as expected. */
export function runScript(script: string, handler: ScriptHandler, file = "script"): string {
  const lines = script.replace(/\n+$/, "").split("\n");
  const out: string[] = [];
  for (let at = 0; at < lines.length;) {
    const line = lines[at]!;
    if (line.trim() === "" || line.startsWith("#")) {
      out.push(line);
      at++;
      continue;
    }
    const place = `${file}:${at + 1}`;
    const end = lines.indexOf("----", at);
    const blank = lines.findIndex((one, i) => i > at && one.trim() === "");
    if (end < 0 || blank >= 0 && blank < end) throw new Error(`${place}: the command has no "----" after it`);
    const command = parseCommand(line, lines.slice(at + 1, end), place);
    const printed = handler(command).flatMap((text) => text.split("\n"));
    command.checkAsked();
    const bad = printed.find((text) => text.trim() === "");
    if (bad !== undefined) throw new Error(`${place}: an output line is blank, which ends a block`);
    out.push(...lines.slice(at, end + 1), ...(printed.length > 0 ? printed : ["ok (no output)"]));
    at = blank < 0 ? lines.length : blank;
  }
  return out.join("\n") + "\n";
}

/** Registers one test per `*.txt` of a folder; `makeHandler` is called anew for each. */
export function testScripts(folder: string, makeHandler: (file: string) => ScriptHandler): void {
  const files = readdirSync(folder).filter((name) => name.endsWith(".txt")).sort();
  assert.ok(files.length > 0, `no scripts in ${folder}`);
  for (const file of files) {
    const path = join(folder, file);
    const script = readFileSync(path, "utf8");
    const [title = file] = script.split("\n").filter((line) => line.startsWith("#"));
    Deno.test(`${file.replace(/\.txt$/, "")}: ${title.replace(/^#\s*/, "")}`, () => {
      const actual = runScript(script, makeHandler(file), file);
      if (!Deno.args.includes("--update")) return assert.equal(actual, script);
      if (actual !== script) writeFileSync(path, actual);
      assert.fail(`--update ${actual === script ? "changed nothing in" : "rewrote"} ${file}; run again without it`);
    });
  }
}

function parseCommand(line: string, input: readonly string[], place: string): ScriptCommand {
  const words = line.match(/[^\s"]*"[^"]*"|\S+/g) ?? [];
  const args = new Map<string, string>();
  for (const word of words.slice(1)) {
    const [, key, quoted, bare] = /^([a-zA-Z][\w-]*)(?:=(?:"([^"]*)"|([^"]*)))?$/.exec(word) ?? [];
    if (key === undefined) throw new Error(`${place}: "${word}" is no key=value`);
    if (args.has(key)) throw new Error(`${place}: ${key}= comes twice`);
    args.set(key, quoted ?? bare ?? "");
  }
  return new ScriptCommand(words[0]!, args, input, place);
}
