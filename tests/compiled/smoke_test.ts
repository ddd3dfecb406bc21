import assert from "node:assert/strict";
import type { BuildInfo } from "../../src/edge/process/build_info.ts";
import { COMPILED, runProgram } from "../testkit/program.ts";
import { smokeSuite } from "../testkit/smoke.ts";

smokeSuite("compiled", COMPILED);

Deno.test("compiled: version names the build", async () => {
  const home = await Deno.makeTempDir();
  try {
    const { code, stdout } = await runProgram(COMPILED, ["version", "--json"], { home });
    assert.equal(code, 0);
    const info = JSON.parse(stdout) as BuildInfo;
    assert.match(info.version, /^\d+\.\d+\.\d+/);
    assert.match(info.commit, /^[0-9a-f]{12}(-dirty)?$/);
    assert.ok(!Number.isNaN(Date.parse(info.builtAt)), info.builtAt);
  } finally {
    await Deno.remove(home, { recursive: true });
  }
});

Deno.test("compiled: no code cache is left where others may write", async () => {
  const home = await Deno.makeTempDir();
  try {
    assert.equal((await runProgram(COMPILED, ["version"], { home })).code, 0);
    // TMPDIR is the same folder.
    assert.deepEqual([...Deno.readDirSync(home)], []);
  } finally {
    await Deno.remove(home, { recursive: true });
  }
});

Deno.test("compiled: the binary is one file of at most 102 MB", async () => {
  const { size, isFile } = await Deno.stat(COMPILED[0]);
  assert.ok(isFile);
  assert.ok(size < 102e6, `${size} bytes`);
});
