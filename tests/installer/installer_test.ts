/**
 * The installer, run for real from a server on loopback onto the root folder of the test. A booted machine with systemd
 * is in `booted_test.ts`.
 *
 * @module
 */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
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

/** Without user and service: on a machine without systemd these run, too. */
const PLAIN = { MYCELIUM_INSTALL_SKIP_USER: "1", MYCELIUM_INSTALL_SKIP_ENABLE: "1" };
/** Programs that can check a signature, in the order in which they are asked. */
const VERIFIERS = ["openssl", "ssh-keygen", "gpgv"];

/** A folder for PATH with the tools of this machine but those named. */
async function toolsWithout(folder: string, names: readonly string[]): Promise<string> {
  const bin = join(folder, `tools-without-${names.join("-")}`);
  await Deno.mkdir(bin);
  for (const from of ["/usr/bin", "/bin", "/usr/sbin", "/sbin"]) {
    for await (const { name } of Deno.readDir(from)) {
      if (!names.includes(name)) await Deno.symlink(join(from, name), join(bin, name)).catch(() => {});
    }
  }
  return bin;
}

/** A release, its server, and an empty root. */
async function lab() {
  await using stack = new AsyncDisposableStack();
  const { path } = stack.use(await folder());
  const key = await makeKey(join(path, "key.pem"));
  const release = await makeRelease({ folder: path, version: "1.0.0", program: program("1.0.0"), key });
  const mirror = stack.use(new Mirror(release));
  const target = join(path, "root");
  for (const one of ["etc/systemd/system/multi-user.target.wants", "usr/local/bin", "usr/local/lib", "var/cache"]) {
    await Deno.mkdir(join(target, one), { recursive: true });
  }
  // As on a bare system; the tools of user management keep copies of these.
  for (const name of ["passwd", "group", "shadow", "gshadow"]) {
    for (const copy of ["", "-"]) {
      await Deno.writeTextFile(join(target, "etc", `${name}${copy}`), "");
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
  name: "install.sh: one command installs, a second changes nothing, uninstall leaves the root as it was",
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
    assert.deepEqual(difference(before, await snapshot(at.target, COPIES)), []);
    assert.equal((await sh(["grep", "-r", "mycelium", at.target])).stdout, "");
  },
});

Deno.test("install.sh keeps earlier settings and an own config.yaml through an upgrade", async () => {
  await using at = await lab();
  const config = join(at.path, "mine.yaml");
  await Deno.writeTextFile(config, "name: first\n");
  const env = { MYCELIUM_INSTALL_BIN_DIR: "/opt/bin", MYCELIUM_INSTALL_CONFIG: config, ...PLAIN };
  const first = await at.install([], { env });
  assert.equal(first.code, 0, first.text);
  assert.match(
    await Deno.readTextFile(join(at.target, "etc/systemd/system/mycelium-agent.service")),
    /^ExecStart=\/opt\/bin\/mycelium /m,
  );

  await Deno.writeTextFile(config, "name: second\n");
  const next = await makeRelease({ folder: at.path, version: "1.1.0", program: program("1.1.0"), key: at.key });
  const second = await sh(["sh", join(next, "install.sh")], {
    env: { MYCELIUM_INSTALL_ROOT: at.target, MYCELIUM_INSTALL_FROM: next, MYCELIUM_INSTALL_CONFIG: config, ...PLAIN },
  });
  assert.equal(second.code, 0, second.text);
  assert.equal((await sh([join(at.target, "opt/bin/mycelium"), "version"])).stdout, "mycelium 1.1.0\n");
  assert.equal(await Deno.readTextFile(join(at.target, "etc/mycelium/config.yaml")), "name: first\n");
  assert.match(await Deno.readTextFile(join(at.target, "etc/mycelium/install.conf")), /^URL=http/m);

  const back = await sh(["sh", join(next, "install.sh"), "--rollback"], { env: { MYCELIUM_INSTALL_ROOT: at.target } });
  assert.equal(back.code, 0, back.text);
  assert.equal((await sh([join(at.target, "opt/bin/mycelium"), "version"])).stdout, "mycelium 1.0.0\n");
  const nothing = await sh(["sh", join(next, "install.sh"), "--rollback"], {
    env: { MYCELIUM_INSTALL_ROOT: at.target },
  });
  assert.equal(nothing.code, 1);
  assert.match(nothing.text, /there is nothing to go back to/);
});

Deno.test("install.sh needs no network: a folder, and a bundle in one file", async () => {
  await using at = await lab();
  const bundle = join(at.release, "mycelium-1.0.0-bundle.tar");
  for (const from of [at.release, bundle]) {
    const target = join(at.path, `air-${from.length}`);
    await Deno.mkdir(target);
    const script = await sh(["tar", "-xOf", bundle, "install.sh"]);
    const result = await sh(["sh"], {
      stdin: script.stdout,
      env: { MYCELIUM_INSTALL_ROOT: target, MYCELIUM_INSTALL_FROM: from, ...PLAIN },
    });
    assert.equal(result.code, 0, result.text);
    assert.equal((await sh([join(target, "usr/local/bin/mycelium"), "version"])).stdout, "mycelium 1.0.0\n");
  }
  assert.deepEqual(at.mirror.asked, []);
});

Deno.test("install.sh refuses what is not what was signed, with every verifier, and leaves nothing", async () => {
  await using at = await lab();
  const other = await makeKey(join(at.path, "other.pem"));
  const forged = await makeRelease({
    folder: join(at.path),
    version: "1.0.0-other",
    program: program("1.0.0"),
    key: other,
  });
  const older = await makeRelease({ folder: at.path, version: "0.9.0", program: program("0.9.0"), key: at.key });
  const before = await snapshot(at.target);
  const name = `mycelium-1.0.0-${Deno.build.target}.gz`;
  const flip = async (path: string) => {
    const bytes = await Deno.readFile(path);
    bytes[bytes.length >> 1] = bytes[bytes.length >> 1]! ^ 1;
    return bytes;
  };
  const from = async (folder: string, names: readonly string[]) =>
    new Map(await Promise.all(names.map(async (one) => [one, await Deno.readFile(join(folder, one))] as const)));
  const LISTS = ["SHA256SUMS", "SHA256SUMS.sig", "SHA256SUMS.sshsig", "SHA256SUMS.gpg"];
  const list = new TextDecoder().decode(await Deno.readFile(join(at.release, "SHA256SUMS")));
  const evil = await flip(join(at.release, name));
  const fitting = list.replace(new RegExp(`^.{64}(?=  ${name})`, "m"), createHash("sha256").update(evil).digest("hex"));
  const cases: readonly (readonly [what: string, files: ReadonlyMap<string, Uint8Array>, wanted: RegExp])[] = [
    ["a changed program", new Map([[name, evil]]), /refused: .*gz is not what was released/],
    ["a shortened program", new Map([[name, evil.subarray(0, 1000)]]), /refused: .*gz is not what was released/],
    [
      "a changed unit",
      new Map([["mycelium-1.0.0-agent.service", await flip(join(at.release, "mycelium-1.0.0-agent.service"))]]),
      /refused: .*service is not/,
    ],
    [
      "a changed program with its checksum",
      new Map([[name, evil], ["SHA256SUMS", new TextEncoder().encode(fitting)]]),
      /refused: the release is not signed/,
    ],
    ["another's signature", await from(forged, LISTS), /refused: the release is not signed/],
    ["an older release", await from(older, LISTS), /the release's list names no mycelium-1\.0\.0/],
    [
      "no signature",
      new Map(LISTS.slice(1).map((one) => [one, new Uint8Array()])),
      /refused: the release is not signed/,
    ],
  ];
  for (const verifier of VERIFIERS) {
    const path = await toolsWithout(at.path, VERIFIERS.filter((one) => one !== verifier));
    if (!(await sh(["sh", "-c", `command -v ${verifier}`], { path })).stdout) {
      console.error(`SKIP verifier ${verifier}: it is not installed here`);
      continue;
    }
    for (const [what, files, wanted] of cases) {
      at.mirror.fault = (asked) => files.has(asked) ? { bytes: files.get(asked)! } : {};
      const result = await at.install([], { env: PLAIN, path });
      assert.equal(result.code, 1, `${verifier}, ${what}: ${result.text}`);
      assert.match(result.text, wanted, `${verifier}, ${what}`);
      assert.deepEqual(difference(before, await snapshot(at.target)), [], `${verifier}, ${what}`);
    }
    at.mirror.fault = () => ({});
    const target = join(at.path, `good-${verifier}`);
    await Deno.mkdir(target);
    const good = await at.install([], { env: { ...PLAIN, MYCELIUM_INSTALL_ROOT: target }, path });
    assert.equal(good.code, 0, good.text);
    assert.match(good.text, new RegExp(`signature: good \\(${verifier}\\)`));
  }
  const none = await at.install([], { env: PLAIN, path: await toolsWithout(at.path, VERIFIERS) });
  assert.equal(none.code, 1);
  assert.match(none.text, /no program on this machine can check the release's signature\n.*openssl/);
  assert.deepEqual(difference(before, await snapshot(at.target)), []);
});

Deno.test("install.sh that was cut off on the way does nothing, wherever", async () => {
  await using at = await lab();
  const script = await Deno.readFile(join(at.release, "install.sh"));
  const before = await snapshot(at.target);
  // Each of the last bytes, and some of all before.
  const lengths = [
    ...Array.from({ length: 32 }, (_, i) => script.length - 2 - i),
    ...Array.from({ length: 40 }, (_, i) => Math.floor(script.length * i / 40)),
  ];
  for (const length of lengths) {
    await sh(["sh"], {
      stdin: script.subarray(0, length),
      env: { MYCELIUM_INSTALL_ROOT: at.target, MYCELIUM_INSTALL_URL: at.mirror.url, ...PLAIN },
    });
    assert.deepEqual(difference(before, await snapshot(at.target)), [], `the first ${length} bytes did something`);
  }
  assert.deepEqual(at.mirror.asked, []);
});

for (const [downloader, other] of [["curl", "wget"], ["wget", "curl"]] as const) {
  const there = await has(downloader);
  if (!there) console.error(`SKIP installer: there is no ${downloader}`);
  Deno.test({
    name:
      `install.sh with ${downloader} goes on where the network was cut, gives up after some tries, and goes on from there`,
    ignore: !there,
    fn: async () => {
      await using at = await lab();
      const path = await toolsWithout(at.path, [other]);
      const name = `mycelium-1.0.0-${Deno.build.target}.gz`;
      const { size } = await Deno.stat(join(at.release, name));
      const before = await snapshot(at.target);
      at.mirror.fault = (asked) => asked === name ? { cutAfter: Math.floor(size / 5) } : {};
      const gaveUp = await at.install([], { env: { ...PLAIN, MYCELIUM_INSTALL_TRIES: "2" }, path });
      assert.equal(gaveUp.code, 1, gaveUp.text);
      assert.match(gaveUp.text, /cannot download .*tried 2 times\n.*goes on where it was cut off/);
      const left = difference(before, await snapshot(at.target)).filter((line) =>
        !/\+\/var(\/cache(\/mycelium(\/1\.0\.0)?)?)?$/.test(line)
      );
      assert.deepEqual(left, [`+/var/cache/mycelium/1.0.0/${name}`]);

      const done = await at.install([], { env: PLAIN, path });
      assert.equal(done.code, 0, done.text);
      assert.equal(at.mirror.sent.get(name), size, "bytes were sent twice");
      assert.equal((await sh([at.program, "version"])).stdout, "mycelium 1.0.0\n");
      assert.equal(
        [...(await snapshot(at.target)).keys()].some((path) => path.startsWith("/var/cache/mycelium")),
        false,
      );
    },
  });
}

Deno.test("install.sh that begins with the part of something else begins anew", async () => {
  await using at = await lab();
  const cache = join(at.target, "var/cache/mycelium/1.0.0");
  await Deno.mkdir(cache, { recursive: true });
  await Deno.writeFile(join(cache, `mycelium-1.0.0-${Deno.build.target}.gz`), new Uint8Array(5000));
  const result = await at.install([], { env: PLAIN });
  assert.equal(result.code, 0, result.text);
  assert.equal((await sh([at.program, "version"])).stdout, "mycelium 1.0.0\n");
});

Deno.test("install.sh goes through a proxy", async () => {
  await using at = await lab();
  for (const name of ["http_proxy", "HTTP_PROXY"]) {
    const result = await at.install(["--dry-run"], {
      env: { ...PLAIN, MYCELIUM_INSTALL_URL: "http://release.invalid", [name]: at.mirror.url },
    });
    assert.equal(result.code, 0, result.text);
  }
  assert.ok(at.mirror.asked.includes("http://release.invalid/SHA256SUMS"), at.mirror.asked.join());
});

Deno.test({
  name: "install.sh on a full disk: refused, what ran before is whole, nothing new is left",
  ignore: !root,
  fn: async () => {
    await using at = await lab();
    const first = await at.install([], { env: PLAIN });
    assert.equal(first.code, 0, first.text);
    const next = await makeRelease({
      folder: at.path,
      version: "1.1.0",
      program: program("1.1.0") + "#".repeat(8_000_000),
      key: at.key,
    });
    const before = await snapshot(at.target);
    // A disk of 4 MB in a mount namespace of its own: the program fits as it was, and not as it is to be.
    const script =
      `mount -t tmpfs -o size=4m small "$1" && cp -a "$2/." "$1/" && shift 2 && "$@"; status=$?; rm -rf "$COPY"; cp -a "$DISK" "$COPY"; exit $status`;
    for (const place of ["BIN_DIR", "TMPDIR"]) {
      const disk = join(at.path, `disk-${place}`);
      const copy = join(at.path, `copy-${place}`);
      await Deno.mkdir(disk);
      const env: Record<string, string> = { MYCELIUM_INSTALL_FROM: next, ...PLAIN, DISK: disk, COPY: copy };
      if (place === "TMPDIR") {
        env.TMPDIR = disk;
        env.MYCELIUM_INSTALL_ROOT = at.target;
        await Deno.writeFile(join(at.path, "fill"), new Uint8Array(4_190_000));
      } else env.MYCELIUM_INSTALL_ROOT = disk;
      const source = place === "TMPDIR" ? join(at.path, "filled") : at.target;
      if (place === "TMPDIR") {
        await Deno.mkdir(source);
        await Deno.rename(join(at.path, "fill"), join(source, "fill"));
      }
      const result = await sh(
        ["unshare", "-m", "sh", "-c", script, "sh", disk, source, "sh", join(next, "install.sh")],
        { env },
      );
      assert.equal(result.code, 1, result.text);
      assert.match(result.text, /Is the disk full\?|No space left/);
      assert.deepEqual(difference(before, await snapshot(place === "TMPDIR" ? at.target : copy)), [], result.text);
    }
  },
});

Deno.test("install.sh refuses a machine that the program is not made for, with a sentence and a cure", async () => {
  await using at = await lab();
  const fakes: readonly (readonly [command: string, body: string, wanted: RegExp])[] = [
    ["uname", "case $1 in -m) echo armv7l ;; *) echo Linux ;; esac", /32-bit ARM \(armv7l\)\n.*64-bit image/],
    [
      "uname",
      "case $1 in -m) echo riscv64 ;; *) echo Linux ;; esac",
      /does not run on riscv64\n.*Wanted: Linux on x86_64/,
    ],
    ["uname", "case $1 in -m) echo x86_64 ;; *) echo Darwin ;; esac", /this is Darwin\n/],
    [
      "uname",
      "case $1 in -m) echo x86_64 ;; -r) echo 4.19.0-21-amd64 ;; *) echo Linux ;; esac",
      /kernel is 4\.19\.0-21-amd64, wanted 5\.4 or newer\n/,
    ],
    [
      "getconf",
      "case $1 in LONG_BIT) echo 32 ;; *) echo glibc 2.36 ;; esac",
      /the kernel is 64-bit, the system on it is 32-bit\n.*Raspberry Pi OS/,
    ],
    [
      "getconf",
      "case $1 in LONG_BIT) echo 64 ;; *) echo glibc 2.26 ;; esac",
      /this is glibc 2\.26, wanted 2\.27 or newer\n/,
    ],
    ["systemctl", "echo 'systemd 241 (241)'", /systemd 241, wanted 245 or newer\n/],
  ];
  // Not below a root folder: these ask the machine itself; --dry-run, so that nothing happens to it.
  const env = { MYCELIUM_INSTALL_ROOT: "", MYCELIUM_INSTALL_SKIP_START: "1" };
  for (const [i, [command, body, wanted]] of fakes.entries()) {
    const bin = join(at.path, `fake-${i}`);
    await Deno.mkdir(bin);
    await Deno.writeTextFile(join(bin, command), `#!/bin/sh\n${body}\n`, { mode: 0o755 });
    const result = await at.install(["--dry-run"], { env, path: `${bin}:${Deno.env.get("PATH")}` });
    assert.equal(result.code, 1, result.text);
    assert.match(result.text, wanted);
  }
  const without = await at.install(["--dry-run"], { env, path: await toolsWithout(at.path, ["systemctl"]) });
  assert.match(without.text, /there is no systemd on this machine\n.*mycelium up/);
  await Deno.mkdir(join(at.target, "lib"));
  await Deno.writeTextFile(join(at.target, "lib/ld-musl-x86_64.so.1"), "");
  const musl = await at.install([]);
  assert.match(musl.text, /built on musl, the program needs glibc\n.*Debian/);
  assert.deepEqual(at.mirror.asked, []);
});

Deno.test("install.sh says what is wrong with how it was called", async () => {
  await using at = await lab();
  const cases: readonly (readonly [words: readonly string[], env: Record<string, string>, wanted: RegExp])[] = [
    [["--what"], {}, /no option --what\n.*--help/],
    [[], { MYCELIUM_INSTALL_FROM: "/nonexistent" }, /there is no \/nonexistent/],
    [[], { MYCELIUM_INSTALL_URL: "ftp://example" }, /cannot use MYCELIUM_INSTALL_URL "ftp:/],
    [[], { MYCELIUM_INSTALL_URL: "" }, /not said where the release is\n.*MYCELIUM_INSTALL_URL/],
    [[], { MYCELIUM_INSTALL_BIN_DIR: "/a b" }, /cannot use the folder "\/a b"/],
    [[], { MYCELIUM_INSTALL_URL: `${at.mirror.url}/nowhere` }, /cannot download .*404.*\n.*folder of release 1\.0\.0/],
  ];
  for (const [words, env, wanted] of cases) {
    const result = await at.install(words, { env: { ...PLAIN, ...env } });
    assert.equal(result.code, 1, result.text);
    assert.match(result.text, wanted);
  }
  const checkout = await sh(["sh", join(ROOT, "installer", "install.sh"), "--dry-run"], {
    env: { MYCELIUM_INSTALL_ROOT: at.target, MYCELIUM_INSTALL_URL: at.mirror.url },
  });
  assert.match(checkout.text, /this script is of no release.*\n.*deno task release/);
  assert.equal((await at.install(["--version"])).stdout, "1.0.0\n");
  const help = (await at.install(["--help"])).stdout;
  const script = await Deno.readTextFile(join(ROOT, "installer", "install.sh"));
  const used = new Set([...script.matchAll(/\b(MYCELIUM_IN\w+)/g)].map(([name]) => name));
  for (const name of used) {
    assert.ok(name === "MYCELIUM_INSTALL_" || help.includes(`  ${name}=`), `${name} is not in --help`);
  }
});

Deno.test({
  name: "install.sh is clean by shellcheck",
  ignore: !shellcheck,
  fn: async () => {
    const result = await sh(["shellcheck", join(ROOT, "installer", "install.sh")]);
    assert.equal(result.code, 0, result.text);
  },
});
