import assert from "node:assert/strict";
import { join } from "node:path";

const PRELOAD = join(import.meta.dirname!, "..", "testkit", "no_ambient.ts");

/** Runs `bodies`, one test each, as the pure suite runs them; returns what `deno test` printed. */
async function runPure(bodies: readonly string[]): Promise<string> {
  // Inside the repository, so that deno.json's imports hold; ignored by git.
  const cache = join(import.meta.dirname!, "..", "..", ".cache");
  await Deno.mkdir(cache, { recursive: true });
  const folder = await Deno.makeTempDir({ dir: cache, prefix: "pure_" });
  try {
    const file = join(folder, "probe_test.ts");
    const source = bodies.map((body, i) => `Deno.test("probe ${i}", () => { ${body} });`).join("\n");
    await Deno.writeTextFile(file, `import fc from "fast-check";\n${source}\nvoid fc;\n`);
    const { stdout } = await new Deno.Command(Deno.execPath(), {
      args: ["test", "--no-check", "--no-prompt", "--allow-read=tests", `--preload=${PRELOAD}`, file],
      env: { NO_COLOR: "1" },
      stdin: "null",
      stderr: "null",
    }).output();
    return new TextDecoder().decode(stdout);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("a pure test that reads a clock, waits, draws or reaches out fails", async () => {
  const bodies = [
    "Date.now()",
    "new Date()",
    "Math.random()",
    "performance.now()",
    "setTimeout(() => {}, 0)",
    "setInterval(() => {}, 1)",
    "queueMicrotask(() => {})",
    "AbortSignal.timeout(1)",
    "crypto.getRandomValues(new Uint8Array(1))",
    "crypto.randomUUID()",
    'fetch("http://127.0.0.1:1")',
    'Deno.readTextFileSync("/etc/hostname")',
    'Deno.listen({ port: 0, hostname: "127.0.0.1" })',
    'Deno.env.get("HOME")',
  ];
  const output = await runPure(bodies);
  assert.match(output, new RegExp(`FAILED \\| 0 passed \\| ${bodies.length} failed`), output);
});

Deno.test("a pure test may compute: a given date, a hash, a property", async () => {
  const output = await runPure([
    'if (new Date(0).toISOString() !== "1970-01-01T00:00:00.000Z") throw new Error("date")',
    'if (!(new Date(0) instanceof Date)) throw new Error("instanceof")',
    "fc.assert(fc.property(fc.integer(), (n) => n === n))",
  ]);
  assert.match(output, /ok \| 3 passed \| 0 failed/, output);
});
