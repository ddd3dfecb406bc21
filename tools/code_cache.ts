/**
 * The code cache inside the compiled program: what V8 makes of the source, recorded after one start of a node, so that
 * no start has to compile a function.
 *
 * The runtime would make a cache of its own at the first start on each machine. It is made before any function has run,
 * so it lacks nearly all of them, and it lies in a folder for temporary files, where others may write. This one is part of the program.
 *
 * @module
 */

import { join } from "node:path";

/** The module that starts the program, and beside it the bundle and its cache. */
export const FILES = { loader: "mycelium.js", app: "mycelium.app", cache: "mycelium.cache" } as const;

/** What stands around the bundle, a CommonJS module: a function, and strict, as the code of modules is. */
export const WRAPPER = {
  banner: '(function(require,module,exports,__filename,__dirname){"use strict";',
  footer: "})",
} as const;

/** Milliseconds until a recorded node must be ready; an emulated one is 20 times slower. */
const READY_TIMEOUT_MS = 120_000;
/** Milliseconds after that in which it does what follows a start. */
const SETTLE_MS = 300;

/**
 * Where the cache is: in the program's file at an offset, or among the files that the runtime holds in memory (3 MB for
 * one of 1.7), or nowhere.
 */
export type CachePlace =
  | { readonly type: "program"; readonly at: number; readonly length: number }
  | { readonly type: "file" }
  | { readonly type: "none" };

/** Source of the module that runs the bundle. V8 uses the bundle where it lies in memory, since it is ASCII. */
export function loaderSource(place: CachePlace): string {
  switch (place.type) {
    case "program":
      return start(
        // A buffer that can be resized is the only one whose memory goes back to the system at once.
        `const buffer=new ArrayBuffer(${place.length},{maxByteLength:${place.length}});` +
          "let cachedData=new Uint8Array(buffer);" +
          'try{using file=Deno.openSync("/proc/self/exe");' +
          `file.seekSync(${place.at},Deno.SeekMode.Start);` +
          "for(let at=0,read;at<cachedData.length;at+=read)" +
          'if(!(read=file.readSync(cachedData.subarray(at))))throw new Error("short")' +
          // Without /proc, for example: V8 compiles what it needs.
          "}catch{cachedData=undefined}",
        "buffer.resize(0);",
      );
    case "file":
      return start(`const cachedData=Deno.readFileSync(dir+"/${FILES.cache}");`, "cachedData.buffer.transfer(0);");
    case "none":
      return start("const cachedData=undefined;", "");
  }
}

/**
 * Source of a loader that writes the cache to `path` at SIGUSR2; where the file is there already, it prints instead
 * whether V8 takes it.
 */
function recorderSource(path: string): string {
  const to = JSON.stringify(path);
  return start(
    `let cachedData;try{cachedData=Deno.readFileSync(${to})}catch{}`,
    'if(cachedData){console.log(script.cachedDataRejected?"refused":"taken");Deno.exit()}' +
      'Deno.addSignalListener("SIGUSR2",()=>{' +
      `Deno.writeFileSync(${to}+".new",script.createCachedData());Deno.renameSync(${to}+".new",${to})});`,
  );
}

function start(before: string, after: string): string {
  return [
    'import{Script}from"node:vm";import{createRequire}from"node:module";',
    `const dir=import.meta.dirname,filename=dir+"/${FILES.loader}";`,
    before,
    `const script=new Script(Deno.readTextFileSync(dir+"/${FILES.app}"),{filename,cachedData});`,
    after,
    "const module={exports:{}};",
    "script.runInThisContext()(createRequire(import.meta.url),module,module.exports,filename,dir);",
    "await module.exports.ended;",
  ].join("\n");
}

/** Options of {@linkcode recordCache}. */
export interface RecordOptions {
  /** Folder with the bundle; the cache is written to it. */
  readonly folder: string;
  /** Makes a program of the loader and these files in the folder; it must have the runtime and flags of the real one. */
  compile(output: string, include: readonly string[]): Promise<void>;
  /** Words before the program's, for example an emulator. */
  readonly runner: readonly string[];
}

/**
 * Runs a node on loopback in a new folder, and records what V8 has compiled for it: as the founder of a network that
 * another node joins, and then as the newcomer in the network of a third one. A node joins once, so that all of that
 * would be compiled in the middle of it.
 *
 * @returns The cache; it is in the folder as well.
 * @throws {Error} Where the node does not run here, or V8 does not take the cache.
 */
export async function recordCache(options: RecordOptions): Promise<Uint8Array> {
  const { folder, runner } = options;
  const program = join(folder, "recorder");
  const cache = join(folder, FILES.cache);
  const home = join(folder, "home");
  await Deno.mkdir(home);
  await Deno.writeTextFile(join(folder, FILES.loader), recorderSource(cache));
  await options.compile(program, [FILES.app]);
  const [command = program, ...args] = [...runner, program];
  const common = {
    cwd: home,
    env: { HOME: home, PATH: Deno.env.get("PATH") ?? "", NO_COLOR: "1", DENO_NO_UPDATE_CHECK: "1" },
    clearEnv: true,
    stdin: "null",
  } as const;
  const nodes: Deno.ChildProcess[] = [];
  /** Runs a node until it is a member; its invite, where it is the first one. */
  const run = async (name: string, words: readonly string[]): Promise<string> => {
    const alone = ["--listen", "127.0.0.1", "--port", "0", "--no-mdns", "--no-multicast", "--no-broadcast"];
    const node = new Deno.Command(command, {
      ...common,
      args: [...args, ...words, "--json", "--state", join(home, name), "--http", "127.0.0.1:0", ...alone],
      stdout: "piped",
      stderr: "null",
      signal: AbortSignal.timeout(READY_TIMEOUT_MS),
    }).spawn();
    nodes.push(node);
    return await inviteOf(node.stdout);
  };
  const tell = async (name: string, words: readonly string[]): Promise<void> => {
    const told = [...args, ...words, "--state", join(home, name)];
    const { success, stderr } = await new Deno.Command(command, { ...common, args: told }).output();
    if (!success) throw new Error(`the recorded node did not ${words[0]}: ${new TextDecoder().decode(stderr)}`);
  };
  try {
    const invite = await run("recorded", ["up", "--network", "record"]);
    // Under an emulator a join does not keep its time limits: there the start alone is recorded.
    if (runner.length === 0) {
      await run("newcomer", ["join", invite]);
      const other = await run("other", ["up", "--network", "other"]);
      await tell("recorded", ["bootstrap", "reset", "--yes"]);
      await tell("recorded", ["join", other]);
    }
    await sleep(SETTLE_MS);
    nodes[0]!.kill("SIGUSR2");
    for (let waitedMs = 0; !(await exists(cache)); waitedMs += 50) {
      if (waitedMs > READY_TIMEOUT_MS) throw new Error("the node wrote no code cache");
      await sleep(50);
    }
  } finally {
    for (const node of nodes) {
      node.kill("SIGKILL");
      await node.status;
    }
  }
  const { stdout } = await new Deno.Command(command, { ...common, args, stderr: "null" }).output();
  const answer = new TextDecoder().decode(stdout).trim();
  if (answer !== "taken") throw new Error(`V8 does not take the code cache: "${answer}"`);
  return await Deno.readFile(cache);
}

/** Waits until the node has printed `{"event":"ready", …}`, its only output; the invite in it, empty where it has none. */
async function inviteOf(stream: ReadableStream<Uint8Array>): Promise<string> {
  let text = "";
  for await (const chunk of stream) {
    text += new TextDecoder().decode(chunk);
    const line = text.split("\n").slice(0, -1).find((one) => one.includes('"ready"'));
    if (line !== undefined) return (JSON.parse(line) as { readonly invite?: string }).invite ?? "";
  }
  throw new Error("the node ended before it was ready");
}

async function exists(path: string): Promise<boolean> {
  return await Deno.stat(path).then(() => true, () => false);
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
