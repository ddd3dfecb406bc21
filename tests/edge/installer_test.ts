/** The installer and the unit, run for real into a folder of the test. @module */

import assert from "node:assert/strict";
import { join } from "node:path";

const ROOT = join(import.meta.dirname!, "..", "..");
const SCRIPT = join(ROOT, "installer", "install.sh");
const UNIT = join(ROOT, "systemd", "mycelium-agent.service");

async function sh(args: readonly string[], env: Record<string, string> = {}) {
  const { code, stdout, stderr } = await new Deno.Command(args[0]!, {
    args: args.slice(1),
    env: { PATH: Deno.env.get("PATH") ?? "", ...env },
    clearEnv: true,
    stdin: "null",
  }).output();
  return { code, text: new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr) };
}

async function has(program: string): Promise<boolean> {
  return (await sh(["sh", "-c", `command -v ${program}`])).code === 0;
}

function files(dir: string): string[] {
  try {
    return [...Deno.readDirSync(dir)].map((entry) => entry.name).sort();
  } catch {
    return [];
  }
}

const shellcheck = await has("shellcheck");
const systemd = await has("systemd-analyze");
if (!shellcheck) console.error("SKIP installer: shellcheck is not installed");
if (!systemd) console.error("SKIP unit: systemd-analyze is not installed");

Deno.test("[11.4a] install.sh installs, changes nothing the second time, and uninstalls without a trace", async () => {
  const dir = await Deno.makeTempDir();
  try {
    const env = {
      MYCELIUM_INSTALL_BIN_DIR: join(dir, "bin"),
      MYCELIUM_INSTALL_UNIT_DIR: join(dir, "unit"),
      MYCELIUM_INSTALL_SKIP_ENABLE: "1",
    };
    // Stands in for the binary: the installer only asks it for its version.
    const binary = join(dir, "program");
    await Deno.writeTextFile(binary, "#!/bin/sh\necho mycelium 0.0.0\n", { mode: 0o755 });
    const dry = await sh(["sh", SCRIPT, "--dry-run", binary], env);
    assert.equal(dry.code, 0, dry.text);
    assert.match(dry.text, /would run: install/);
    assert.deepEqual(files(env.MYCELIUM_INSTALL_BIN_DIR), []);
    const first = await sh(["sh", SCRIPT, binary], env);
    assert.equal(first.code, 0, first.text);
    assert.deepEqual([files(env.MYCELIUM_INSTALL_BIN_DIR), files(env.MYCELIUM_INSTALL_UNIT_DIR)], [["mycelium"], [
      "mycelium-agent.service",
    ]]);
    const second = await sh(["sh", SCRIPT, binary], env);
    assert.equal(second.code, 0, second.text);
    assert.equal(second.text.match(/^unchanged:/gm)?.length, 2, second.text);
    const gone = await sh(["sh", SCRIPT, "--uninstall"], env);
    assert.equal(gone.code, 0, gone.text);
    assert.deepEqual([files(env.MYCELIUM_INSTALL_BIN_DIR), files(env.MYCELIUM_INSTALL_UNIT_DIR)], [[], []]);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

Deno.test("install.sh refuses what it cannot install with a sentence and a cure", async () => {
  const dir = await Deno.makeTempDir();
  try {
    const env = {
      MYCELIUM_INSTALL_BIN_DIR: dir,
      MYCELIUM_INSTALL_UNIT_DIR: dir,
      MYCELIUM_INSTALL_TMPFILES_DIR: dir,
    };
    const broken = join(dir, "broken");
    await Deno.writeTextFile(broken, "no program", { mode: 0o644 });
    for (
      const [args, wanted] of [[[], /no binary named/], [["/nonexistent"], /there is no file/], [
        [broken],
        /does not run/,
      ], [["--what"], /no option/]] as const
    ) {
      const result = await sh(["sh", SCRIPT, ...args], env);
      assert.equal(result.code, 1, result.text);
      assert.match(result.text, wanted);
    }
    assert.deepEqual(files(dir), ["broken"]);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

Deno.test({
  name: "install.sh is clean by shellcheck",
  ignore: !shellcheck,
  fn: async () => {
    const result = await sh(["shellcheck", SCRIPT]);
    assert.equal(result.code, 0, result.text);
  },
});

Deno.test({
  name: "the agent's unit is valid and exposed by 2.0 at the most",
  ignore: !systemd,
  fn: async () => {
    const security = await sh(["systemd-analyze", "security", "--offline=true", "--no-pager", UNIT]);
    const level = Number(/Overall exposure level for [^:]+: ([0-9.]+)/.exec(security.text)?.[1]);
    assert.ok(level <= 2, `exposure is ${level}`);
    const verify = await sh(["systemd-analyze", "verify", "--man=no", UNIT]);
    // The program itself need not be installed on the machine that runs the tests.
    const complaints = verify.text.split("\n").filter((line) => line !== "" && !line.includes("is not executable"));
    assert.deepEqual(complaints, []);
  },
});
