/**
 * The installer, run for real from a server on loopback onto the root folder of the test. A booted machine with systemd
 * is in `booted_test.ts`.
 *
 * @module
 */

import assert from "node:assert/strict";
import { join } from "node:path";
import { difference, folder, has, makeKey, makeRelease, Mirror, ROOT, sh, type ShOptions, snapshot } from "./kit.ts";

const systemd = await has("systemd-sysusers") && await has("userdel");
const shellcheck = await has("shellcheck");
const root = Deno.uid() === 0;
for (
  const [there, what] of [[systemd, "systemd-sysusers and userdel: no test of what is installed"], [
    shellcheck,
    "shellcheck: nothing checks install.sh",
  ], [root, "root: no test with a full disk"]] as const
) {
  if (!there) console.error(`SKIP installer: there is no ${what}`);
}

/** A program that says what it is: the installer asks for no more. The padding makes its archive worth cutting. */
function program(version: string): string {
  const padding = Array.from(crypto.getRandomValues(new Uint8Array(60_000)), (one) => one.toString(36)).join("");
  return `#!/bin/sh\necho "mycelium ${version}"\nexit\n${padding}\n`;
}

/** A release, its server, and an empty root. */
async function lab() {
  await using stack = new AsyncDisposableStack();
  const { path } = stack.use(await folder());
  const key = await makeKey(join(path, "key.pem"));
  const release = await makeRelease({ folder: path, version: "1.0.0", program: program("1.0.0"), key });
  const mirror = stack.use(new Mirror(release));
  const target = join(path, "root");
  await Deno.mkdir(join(target, "etc"), { recursive: true });
  // As on a bare system; the tools of user management keep copies of these.
  for (const name of ["passwd", "group", "shadow", "gshadow"]) {
    for (const copy of ["", "-"]) {
      await Deno.writeTextFile(join(target, "etc", `${name}${copy}`), name === "gshadow" ? "" : "");
    }
  }
  const kept = stack.move();
  return {
    path,
    key,
    release,
    mirror,
    target,
    program: join(target, "usr/local/bin/mycelium"),
    /** `curl … | sh -s -- WORDS`, without curl for the script itself. */
    install: async (words: readonly string[] = [], options: ShOptions = {}) =>
      await sh(["sh", "-s", "--", ...words], {
        stdin: await Deno.readFile(join(release, "install.sh")),
        ...options,
        env: { MYCELIUM_INSTALL_ROOT: target, MYCELIUM_INSTALL_URL: mirror.url, ...options.env },
      }),
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}

/** What user management leaves: its copies of the files before the last change, and its lock. */
const COPIES = /^\/etc\/((passwd|group|shadow|gshadow)-|\.pwd\.lock|.*\.lock)$/;

Deno.test({
  name: "[11.4a] install.sh: one command installs, a second changes nothing, uninstall leaves the root as it was",
  ignore: !systemd || !root,
  fn: async () => {
    await using at = await lab();
    const before = await snapshot(at.target, COPIES);
    const dry = await at.install(["--dry-run"]);
    assert.equal(dry.code, 0, dry.text);
    assert.match(dry.text, /would install: .*bin\/mycelium \(mycelium 1\.0\.0\)/);
    assert.deepEqual(difference(before, await snapshot(at.target, COPIES)), []);

    const piped = await sh(["sh", "-c", `curl -fsSL ${at.mirror.url}/install.sh | sh`], {
      env: { MYCELIUM_INSTALL_ROOT: at.target, MYCELIUM_INSTALL_URL: at.mirror.url },
    });
    assert.equal(piped.code, 0, piped.text);
    assert.equal((await sh([at.program, "version"])).stdout, "mycelium 1.0.0\n");
    const installed = await snapshot(at.target, COPIES);
    assert.deepEqual(difference(before, installed).filter((line) => /^\+.*\/[^/]*mycelium[^/]*$/.test(line)), [
      "+/etc/mycelium",
      "+/etc/systemd/system/multi-user.target.wants/mycelium-agent.service",
      "+/etc/systemd/system/mycelium-agent.service",
      "+/usr/local/bin/mycelium",
      "+/usr/local/bin/mycelium-uninstall",
    ]);

    const asked = at.mirror.asked.length;
    // The address is known from the first time.
    const second = await at.install([], { env: { MYCELIUM_INSTALL_URL: "" } });
    assert.equal(second.code, 0, second.text);
    assert.doesNotMatch(second.text, /^(install|user)/m);
    assert.deepEqual(difference(installed, await snapshot(at.target, COPIES)), []);
    assert.ok(!at.mirror.asked.slice(asked).some((url) => url.endsWith(".gz")), "the program was downloaded again");

    const gone = await sh([join(at.target, "usr/local/bin/mycelium-uninstall"), "--purge"]);
    assert.equal(gone.code, 0, gone.text);
    // Folders that any package would have made, too, are not the installer's to remove.
    const left = difference(before, await snapshot(at.target, COPIES));
    for (const line of left) {
      assert.equal((await Deno.lstat(join(at.target, line.slice(1)))).isDirectory, true, `${line} is left`);
      assert.doesNotMatch(line, /mycelium/);
    }
    assert.equal((await sh(["grep", "-r", "mycelium", at.target])).stdout.replaceAll(/^.*\/etc\/\w+-:.*\n/gm, ""), "");
  },
});

Deno.test({
  name: "install.sh is clean by shellcheck",
  ignore: !shellcheck,
  fn: async () => {
    const result = await sh(["shellcheck", join(ROOT, "installer", "install.sh")]);
    assert.equal(result.code, 0, result.text);
  },
});
