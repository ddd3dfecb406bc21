/** What only a process shows: signals, pipes that end early, stdin, a terminal. */

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { AgentSocket, temporaryFolder } from "../testkit/cli.ts";
import { testInvite } from "../testkit/invites.ts";
import { troubledStatus } from "../testkit/status_fixture.ts";

const PROGRAM = fileURLToPath(new URL("../testkit/cli_process.ts", import.meta.url));
const COMMAND = [Deno.execPath(), "run", "-A", "--no-check", PROGRAM];
const quote = (words: readonly string[]) => words.map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(" ");

/** Runs `up`, sends signals when the program says its words, and returns what it ended with. */
async function upWith(stops: "quickly" | "never", signals: readonly (readonly [word: string, signal: Deno.Signal])[]) {
  using folder = temporaryFolder();
  await using child = new Deno.Command(COMMAND[0]!, {
    args: [...COMMAND.slice(1), "up", "--state", folder.path],
    env: { STOPS: stops },
    stdin: "null",
    stdout: "piped",
    stderr: "null",
  }).spawn();
  let text = "";
  const queue = [...signals];
  for await (const part of child.stdout.pipeThrough(new TextDecoderStream())) {
    text += part;
    if (queue[0] && text.includes(queue[0][0])) child.kill(queue.shift()![1]);
  }
  return { code: (await child.status).code, text };
}

Deno.test("[9.1e] The first SIGINT or SIGTERM stops a node in order, the second ends it at once", async () => {
  for (const [signal, code] of [["SIGINT", 130], ["SIGTERM", 143]] as const) {
    assert.deepEqual(await upWith("quickly", [["started", signal]]), { code: 0, text: "started\nstopping\n" });
    const twice = await upWith("never", [["started", signal], ["stopping", signal]]);
    assert.deepEqual(twice, { code, text: "started\nstopping\n" });
  }
});

async function shell(code: string): Promise<{ readonly text: string; readonly errors: string }> {
  const { stdout, stderr } = await new Deno.Command("bash", { args: ["--norc", "-c", code], stdin: "null" }).output();
  return { text: new TextDecoder().decode(stdout), errors: new TextDecoder().decode(stderr) };
}

Deno.test("A reader that has seen enough is no failure: status --json | true", async () => {
  using folder = temporaryFolder();
  await using agent = new AgentSocket(folder.path, { status: troubledStatus() });
  const { text, errors } = await shell(
    `${quote([...COMMAND, "status", "--json", "--socket", agent.socket])} | true; echo "\${PIPESTATUS[0]}"`,
  );
  assert.equal(text, "0\n");
  assert.equal(errors, "");
});

Deno.test("join - reads the invite from a pipe", async () => {
  using folder = temporaryFolder();
  await using agent = new AgentSocket(folder.path, { status: troubledStatus() });
  const invite = testInvite(Date.UTC(2100, 0, 1));
  const { errors } = await shell(
    `echo ${invite} | ${quote([...COMMAND, "join", "-", "--detach", "--socket", agent.socket])}`,
  );
  assert.match(errors, /took the invite/);
  assert.deepEqual(agent.requests, [{ verb: "join", invite }]);
});

const hasScript = await new Deno.Command("script", { args: ["--version"], stdout: "null", stderr: "null" }).output()
  .then(({ success }) => success, () => false);

Deno.test({
  name: "On a real terminal: colours, and a question that is answered there",
  ignore: !hasScript, // `script` of util-linux makes the terminal.
  fn: async () => {
    using folder = temporaryFolder();
    await using agent = new AgentSocket(folder.path, { status: troubledStatus() });
    const onTerminal = (...args: string[]) =>
      `TERM=xterm NO_COLOR= script -qec ${
        quote([`${quote([...COMMAND, ...args, "--socket", agent.socket])}`])
      } /dev/null`;
    const { text } = await shell(onTerminal("status"));
    assert.ok(text.includes("\u001b[32m"), "green");
    const asked = await shell(`(sleep 1; echo y; sleep 1) | ${onTerminal("leave")}`);
    assert.match(asked.text, /Go on\? \[y\/N\]/);
    assert.deepEqual(agent.requests, [{ verb: "leave" }]);
  },
});
