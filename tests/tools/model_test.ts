import assert from "node:assert/strict";
import { join } from "node:path";

const MODEL = join(import.meta.dirname!, "..", "..", "docs", "models", "commit_reveal.pml");
const CODE = join(import.meta.dirname!, "..", "..", "src", "consensus", "instance.ts");

async function run(cwd: string, command: string, ...args: string[]): Promise<string | undefined> {
  try {
    const { stdout, stderr } = await new Deno.Command(command, { args, cwd, stdin: "null" }).output();
    return new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** Checks the model with Spin; `undefined` where there is no Spin or no C compiler. */
async function check(...defines: string[]): Promise<string | undefined> {
  const folder = await Deno.makeTempDir({ prefix: "mycelium-model-" });
  try {
    await Deno.copyFile(MODEL, join(folder, "model.pml"));
    const made = await run(folder, "spin", ...defines, "-a", "model.pml");
    const built = made !== undefined &&
      await run(folder, "gcc", "-w", "-O2", "-DSAFETY", "-DNOFAIR", "-DMEMLIM=1024", "-o", "pan", "pan.c");
    if (built === false || built === undefined) return undefined;
    return await run(folder, "timeout", "100", "./pan", "-m20000");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const there = await run(".", "spin", "-V") !== undefined && await run(".", "gcc", "--version") !== undefined;
if (!there) console.error("SKIPPED: the model of commit-reveal is not checked, there is no spin or no gcc here");

Deno.test({
  name: "[4.1b] [4.4d] model: one liar of four, all runs of three rounds: agreement and validity",
  ignore: !there,
  fn: async () => {
    const output = await check();
    assert.ok(output !== undefined);
    assert.match(output, /errors: 0/);
    // Every run, not as many as there was time or memory for.
    assert.doesNotMatch(output, /Search not completed|max search depth too small|out of memory/);
    assert.ok(Number(output.match(/(\d+) states, stored/)?.[1]) > 1_000_000, output);
  },
});

for (const broken of ["BROKEN_LOCK", "BROKEN_QUORUM", "TWO_LIARS"]) {
  Deno.test({
    name: `model: with ${broken} the checker finds two decisions`,
    ignore: !there,
    fn: async () => {
      const output = await check(`-D${broken}`);
      assert.match(output ?? "", /assertion violated \(\(decided==7\)\|\|\(decided==v\)\)/);
    },
  });
}

Deno.test("model: the words for its steps are those of the code", async () => {
  const [model, code] = await Promise.all([Deno.readTextFile(MODEL), Deno.readTextFile(CODE)]);
  for (const word of ["enterRound", "freeze", "carried", "frozen", "tally", "precommit", "decide", "lock"]) {
    const whole = new RegExp(`#?\\b${word}\\b`);
    assert.match(model, whole);
    assert.match(code, whole);
  }
});
