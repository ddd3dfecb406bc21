/** Help, suggestions, completion scripts, and that the guide tells of every command and flag. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { completionScript } from "../../src/cli/commands/completion.ts";
import { EXIT_MEANINGS } from "../../src/cli/exit.ts";
import { guide } from "../../src/cli/guide.ts";
import { createProgram } from "../../src/cli/program.ts";
import { run, temporaryFolder } from "../testkit/cli.ts";

const silent = { write: () => {}, isTerminal: false, columns: 80, rows: 24 };
const program = createProgram({ stdout: silent, stderr: silent, env: {} }, () => {});

/** Words of every command that help shows. */
function paths(command = program, prefix: readonly string[] = []): string[][] {
  return command.createHelp().visibleCommands(command).filter((one) => one.name() !== "help")
    .flatMap((one) => [[...prefix, one.name()], ...paths(one, [...prefix, one.name()])]);
}

Deno.test("A start knows its commands only, and their help is the same", () => {
  const start = createProgram({ stdout: silent, stderr: silent, env: {} }, () => {}, { startOnly: true });
  const names = start.commands.map((one) => one.name());
  assert.deepEqual(names, ["up", "agent", "down", "init", "join"]);
  for (const one of start.commands) {
    const whole = program.commands.find((other) => other.name() === one.name())!;
    assert.equal(one.helpInformation(), whole.helpInformation());
  }
});

Deno.test("Every command of the issue is there, with help that fits 80 columns and exit code 0", async () => {
  const all = paths().map((words) => words.join(" "));
  const wanted = [
    "up",
    "init",
    "join",
    "status",
    "peers",
    "invite create",
    "invite list",
    "invite revoke",
    "node list",
    "node approve",
    "node deny",
    "node remove",
    "node drain",
    "doctor",
    "bootstrap retry",
    "bootstrap reset",
    "bootstrap force-endpoint",
    "config show",
    "config validate",
    "config schema",
    "config try",
    "config confirm",
    "config revert",
    "exec",
    "version",
    "completion",
  ];
  for (const command of wanted) assert.ok(all.includes(command), command);
  for (const words of paths()) {
    const { code, stdout, stderr } = await run([...words, "--help"], { columns: 80 });
    assert.equal(code, 0, words.join(" "));
    assert.equal(stderr, "");
    assert.match(stdout, new RegExp(`^Usage: mycelium ${words.join(" ")}`));
    const [help] = stdout.split("\nExamples:");
    for (const line of help!.split("\n")) assert.ok(line.length <= 80, `${words.join(" ")}: ${line}`);
  }
});

Deno.test("Help explains exit codes and warns of invites on the command line", async () => {
  const top = (await run(["--help"])).stdout;
  for (const [code, meaning] of EXIT_MEANINGS) assert.ok(top.includes(`${code}  ${meaning}`), String(code));
  for (const group of ["Start and join:", "See:", "Members:", "Configure and repair:", "This program:"]) {
    assert.ok(top.includes(group), group);
  }
  assert.equal((await run([])).stdout, top);
  assert.equal((await run([])).code, 0);
  assert.match(
    (await run(["join", "--help"])).stdout.replaceAll(/\s+/g, " "),
    /An invite is a secret.*can be seen by everybody/,
  );
});

Deno.test("Wrong words end with 2, change nothing, and say what was probably meant", async () => {
  const cases: readonly (readonly [string[], RegExp])[] = [
    [["stauts"], /Did you mean status\?/],
    [["node", "lsit"], /Did you mean.*list/],
    [["status", "--wacth"], /Did you mean --watch\?/],
    [["invite", "revoke"], /[Mm]issing required argument 'id'/],
    [["status", "extra"], /[Tt]oo many arguments/],
    [["completion", "tcsh"], /bash, zsh, fish/],
    [["up", "--port", "x"], /Cannot use port "x".*\(--port\)/],
    [["up", "--listen", "nowhere"], /--listen/],
    [["config", "show", "--config", "/nonexistent.yaml"], /nonexistent\.yaml/],
  ];
  for (const [args, wanted] of cases) {
    const { code, stdout, stderr } = await run(args);
    assert.equal(code, 2, args.join(" "));
    assert.match(stderr, wanted);
    assert.equal(stdout, "", args.join(" "));
  }
});

/** Words behind `mycelium` that are prose, not commands. */
const PROSE = new Set(["configuration", "agent"]);

Deno.test("Every command that a message or the documentation tells to type exists, with its flags", async () => {
  const root = new URL("../../", import.meta.url);
  const files = ["README.md"];
  for (const folder of ["src", "docs"]) {
    const queue = [folder];
    for (let next = queue.pop(); next !== undefined; next = queue.pop()) {
      for await (const entry of Deno.readDir(new URL(next, root))) {
        if (entry.isDirectory) queue.push(`${next}/${entry.name}`);
        else if (/\.(ts|md)$/.test(entry.name)) files.push(`${next}/${entry.name}`);
      }
    }
  }
  const wrong: string[] = [];
  let checked = 0;
  for (const file of files) {
    const text = await Deno.readTextFile(new URL(file, root)).catch(() => "");
    // Behind a colon, a quote, a backtick or at the start of a line: a command, not a sentence about the program.
    for (const [, line] of text.matchAll(/(?:[:;|(`"]\s*|^\s*(?:\$ )?)mycelium ([a-z][^`"\n]*)/gm)) {
      const words = line!.split(/[\s,.;)\\]+/);
      let command = program;
      for (const word of words) {
        const next = command.commands.find((one) => one.name() === word || one.aliases().includes(word));
        if (!next) break;
        command = next;
      }
      if (command === program) {
        if (words[0] !== "help" && !PROSE.has(words[0]!)) wrong.push(`${file}: mycelium ${line}`);
        continue;
      }
      checked++;
      const bare = line!.split(/ -- |\||;|&&|#|,|\)/)[0]!;
      const flags = [...command.options, ...program.options].flatMap((one) => [one.long, one.short]);
      for (const [flag] of bare.matchAll(/(?<=\s)--[a-z-]+/g)) {
        if (flag !== "--help" && !flags.includes(flag)) wrong.push(`${file}: ${flag} of mycelium ${line}`);
      }
    }
  }
  assert.deepEqual(wrong, []);
  assert.ok(checked > 100, `only ${checked} commands were found`);
});

/** What a shell offers for a line that ends where the cursor is. */
async function offers(script: string, words: readonly string[]): Promise<string[]> {
  const line = words.map((word) => `'${word}'`).join(" ");
  const code = `source ${script}; COMP_WORDS=(${line}); COMP_CWORD=${
    words.length - 1
  }; _mycelium; printf '%s\\n' "\${COMPREPLY[@]}"`;
  const { stdout, stderr, success } = await new Deno.Command("bash", { args: ["--norc", "-c", code] }).output();
  assert.ok(success, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout).split("\n").filter((word) => word !== "");
}

Deno.test("Completion for bash, in bash: commands, subcommands, flags, values, files", async () => {
  using folder = temporaryFolder();
  const script = join(folder.path, "completion.bash");
  const { code, stdout } = await run(["completion", "bash"]);
  assert.equal(code, 0);
  Deno.writeTextFileSync(script, stdout);
  Deno.writeTextFileSync(join(folder.path, "new.yaml"), "");
  const top = await offers(script, ["mycelium", ""]);
  for (const word of ["up", "status", "invite", "completion"]) assert.ok(top.includes(word), word);
  assert.ok(!top.includes("agent"), "what is hidden from help is hidden here");
  assert.deepEqual(await offers(script, ["mycelium", "st"]), ["status"]);
  assert.deepEqual(await offers(script, ["mycelium", "invite", ""]), ["create", "list", "revoke"]);
  assert.deepEqual(await offers(script, ["mycelium", "--state", "up", "node", "ap"]), ["approve"]);
  assert.deepEqual(await offers(script, ["mycelium", "status", "--wa"]), ["--watch"]);
  assert.ok((await offers(script, ["mycelium", "status", "--"])).includes("--json"));
  assert.deepEqual(await offers(script, ["mycelium", "invite", "create", "--role", "h"]), ["hypha"]);
  assert.deepEqual(await offers(script, ["mycelium", "completion", "f"]), ["fish"]);
  assert.ok((await offers(script, ["mycelium", "exec", ""])).includes("ping"));
  assert.deepEqual(await offers(script, ["mycelium", "config", "validate", `${folder.path}/n`]), [
    `${folder.path}/new.yaml`,
  ]);
});

for (const shell of ["zsh", "fish"] as const) {
  const found = (Deno.env.get("PATH") ?? "").split(":").some((folder) => {
    try {
      return Deno.statSync(join(folder, shell)).isFile;
    } catch {
      return false;
    }
  });
  Deno.test({
    name: `Completion for ${shell}, in ${shell}${found ? "" : ": not on this machine"}`,
    ignore: !found,
    fn: async () => {
      using folder = temporaryFolder();
      const script = join(folder.path, "completion");
      Deno.writeTextFileSync(script, completionScript(program, shell));
      const syntax = await new Deno.Command(shell, { args: ["-n", script] }).output();
      assert.ok(syntax.success, new TextDecoder().decode(syntax.stderr));
      if (shell === "zsh") {
        // The completion system itself needs a terminal; its three functions that the script calls are enough.
        const offer = async (...words: string[]) => {
          const stubs = "compdef() { :; }; _describe() { print -rl -- ${(P)2} }; _files() { print files }; " +
            "compadd() { shift; print -rl -- $@ }";
          const line = `words=(${words.map((word) => `'${word}'`).join(" ")}); CURRENT=${words.length}`;
          const code = `${stubs}; source ${script}; ${line}; _mycelium`;
          const { stdout, stderr } = await new Deno.Command("zsh", { args: ["-f", "-c", code] }).output();
          assert.equal(new TextDecoder().decode(stderr), "");
          return new TextDecoder().decode(stdout).split("\n").map((one) => one.split(":")[0]!).filter((one) =>
            one !== ""
          );
        };
        assert.deepEqual(await offer("mycelium", "invite", ""), ["create", "list", "revoke"]);
        assert.ok((await offer("mycelium", "--state", "up", "node", "ap")).includes("approve"));
        assert.deepEqual(await offer("mycelium", "invite", "create", "--role", "h"), [
          "auto",
          "sclerotium",
          "rhizomorph",
          "hypha",
        ]);
        assert.ok((await offer("mycelium", "status", "--w")).includes("--watch"));
        assert.deepEqual(await offer("mycelium", "config", "validate", "x"), ["files"]);
        return;
      }
      const offer = async (line: string) => {
        const { stdout } = await new Deno.Command("fish", {
          args: ["--no-config", "-c", `source ${script}; complete -C '${line}'`],
          env: { HOME: folder.path },
        }).output();
        return new TextDecoder().decode(stdout).split("\n").map((one) => one.split("\t")[0]!).filter((one) =>
          one !== ""
        );
      };
      assert.deepEqual(await offer("mycelium invite "), ["create", "list", "revoke"]);
      assert.deepEqual(await offer("mycelium --state up node ap"), ["approve"]);
      assert.deepEqual(await offer("mycelium invite create --role h"), ["hypha"]);
    },
  });
}

Deno.test("The guide is what the program says: docs/guide/cli.md", async () => {
  const path = new URL("../../docs/guide/cli.md", import.meta.url);
  assert.equal(
    await Deno.readTextFile(path),
    guide(program),
    "docs/guide/cli.md is stale: deno run -A tools/cli_guide.ts writes it",
  );
});
