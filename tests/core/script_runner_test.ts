import assert from "node:assert/strict";
import { backoffMs, type Rng, seededRng, shuffled } from "../../src/core/rng.ts";
import { runScript, type ScriptHandler, testScripts } from "../testkit/script_runner.ts";

testScripts("tests/core/testdata", () => {
  let rng: Rng = seededRng(0);
  return (command) => {
    switch (command.name) {
      case "rng":
        rng = seededRng(command.int("seed"));
        return [];
      case "wait": {
        const options = { baseMs: command.int("base"), maxMs: command.int("max") };
        const attempt = command.int("attempt");
        return Array.from({ length: command.int("times", 1) }, () => `${backoffMs(attempt, options, rng)} ms`);
      }
      case "shuffle":
        return [shuffled(command.input, rng).join(" ")];
      default:
        throw command.unknown();
    }
  };
});

/** Prints a command as it was understood. */
const echo: ScriptHandler = (command) => [
  [command.name, ...[...command.args.keys()].map((key) => `${key}:${command.text(key)}`)].join(" "),
  ...command.input.map((line) => `> ${line}`),
];

Deno.test("runScript() gives a script back unchanged where its outputs are as expected", () => {
  const script = `# What it shows.

# A comment before a command.
put key=a value="two words" flag
----
put key:a value:two words flag:

load from=here
first line
  second line
----
load from:here
> first line
>   second line
`;
  assert.equal(runScript(script, echo), script);
});

Deno.test("runScript() writes outputs that differ, are missing or are too many, and keeps the rest to the letter", () => {
  assert.equal(
    runScript("a x=1\n----\nold\nolder\n\n# c\nb\n----", echo),
    "a x:1\n".replace(/^/, "a x=1\n----\n") + "\n# c\nb\n----\nb\n",
  );
  assert.equal(runScript("a\n----\n", () => []), "a\n----\nok (no output)\n");
  assert.equal(runScript("a\n----\n", () => ["x\ny"]), "a\n----\nx\ny\n");
});

Deno.test("runScript() says where a script is wrong", () => {
  const cases: [string, RegExp][] = [
    ["a\nb\n", /s\.txt:1: the command has no "----"/],
    ["# c\n\na\n\nb\n----\n", /s\.txt:3: the command has no "----"/],
    ["a =1\n----\n", /s\.txt:1: "=1" is no key=value/],
    ["a x=1 x=2\n----\n", /x= comes twice/],
    ['a x="1\n----\n', /is no key=value/],
  ];
  for (const [script, message] of cases) assert.throws(() => runScript(script, echo, "s.txt"), message, script);
  assert.throws(() => runScript("a x=1\n----\n", () => ["ok"], "s.txt"), /s\.txt:1: "a" does not know x=/);
  assert.throws(() => runScript("a\n----\n", (command) => [String(command.int("n"))]), /wants n=/);
  assert.throws(() => runScript("a n=1x\n----\n", (command) => [String(command.int("n"))]), /wanted an integer/);
  assert.throws(() => runScript("a\n----\n", (command) => [String(command.unknown())].concat("")), /blank/);
  assert.throws(
    () =>
      runScript("dance\n----\n", (command) => {
        throw command.unknown();
      }),
    /no command is called "dance"/,
  );
});

Deno.test("runScript() runs commands in order with one handler, so that state carries over within a script", () => {
  let sum = 0;
  const script = "add n=1\n----\n1\n\nadd n=2\n----\n3\n\nadd n=-5\n----\n-2\n";
  assert.equal(runScript(script, (command) => [String(sum += command.int("n"))]), script);
});
