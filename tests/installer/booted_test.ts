/**
 * The installer on a bare Debian that boots, with the compiled program: from `curl … | sh` to a network, upgrades that go
 * wrong, and off again without a trace.
 *
 * @module
 */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { join } from "node:path";
import type { Status } from "../../src/agent/status.ts";
import { difference, folder, makeKey, makeRelease, ROOT, snapshot } from "./kit.ts";
import { Machine, whyNoMachine } from "./machine.ts";

const COMPILED = Deno.env.get("MYCELIUM_BINARY") ?? join(ROOT, "dist", `mycelium-${Deno.build.target}`);
const reason = await Deno.stat(COMPILED).then(whyNoMachine, () => "there is no binary: run deno task compile");
if (reason) console.error(`SKIP installer on a booted machine: ${reason}`);

/** What any machine changes while it runs. User management keeps copies from before its last change. */
const LIVING =
  /^\/(proc|sys|dev|run|tmp|\.old|var\/log|var\/tmp|var\/lib\/systemd|var\/cache\/ldconfig)$|^\/etc\/(\w+-|\.pwd\.lock)$/;

/** Programs that are the real one, that one with a byte changed, and one that never becomes ready. */
async function releases(path: string): Promise<(version: string) => string> {
  const key = await makeKey(join(path, "key.pem"));
  const real = await Deno.readFile(COMPILED);
  // In the text that says when it was built: another program to a checksum, the same to V8.
  const at = new TextDecoder("latin1").decode(real).indexOf('builtAt:"');
  assert.ok(at > 0);
  const changed = Uint8Array.from(real);
  changed[at + '"builtAt:"'.length] = changed[at + '"builtAt:"'.length]! ^ 1;
  const broken =
    '#!/bin/sh\ncase $1 in version) echo "mycelium 0.1.2" ;; *) echo "broken on purpose" >&2; exit 1 ;; esac\n';
  const silent = '#!/bin/sh\ncase $1 in version) echo "mycelium 0.1.3" ;; agent) exec sleep 600 ;; *) exit 3 ;; esac\n';
  for (
    const [version, program] of [["0.1.0", real], ["0.1.1", changed], ["0.1.2", broken], ["0.1.3", silent]] as const
  ) {
    await makeRelease({ folder: path, version, program, key });
  }
  return (version) => `release-${version}`;
}

Deno.test({
  name: "[11.4c, 11.4d, 11.4e] a bare machine: one command, upgrades, a broken one goes back, uninstall leaves nothing",
  ignore: reason !== undefined,
  fn: async (t) => {
    await using stack = new AsyncDisposableStack();
    const { path } = stack.use(await folder());
    const nameOf = await releases(path);
    const machine = stack.use(await Machine.create());
    const second = stack.use(await Machine.create());
    await machine.link(second);
    await machine.boot();
    const server = new Deno.Command("ip", {
      args: [
        "netns",
        "exec",
        machine.netns,
        Deno.execPath(),
        "run",
        "-A",
        join(import.meta.dirname!, "serve.ts"),
        path,
      ],
      stdin: "null",
      stdout: "piped",
    }).spawn();
    stack.defer(async () => {
      server.kill("SIGKILL");
      await server.status;
    });
    const reader = server.stdout.pipeThrough(new TextDecoderStream()).getReader();
    stack.defer(() => reader.cancel());
    const url = (await reader.read()).value!.trim();

    const run = async (script: string) => await machine.run(script);
    const install = (version: string, variables = "", words = "") =>
      run(
        `curl -fsSL ${url}/${nameOf(version)}/install.sh | MYCELIUM_INSTALL_URL=${url}/${nameOf(version)} ` +
          `MYCELIUM_INSTALL_SETTLE_SEC=1 ${variables} sh -s -- ${words}`,
      );
    const pid = async () => (await run("systemctl show -P MainPID mycelium-agent")).stdout.trim();
    const status = async () => JSON.parse((await run("mycelium status --json")).stdout) as Pick<Status, "node">;
    const sum = async () =>
      createHash("sha256").update(await Deno.readFile(join(machine.root, "usr/local/bin/mycelium"))).digest("hex");
    const before = await snapshot(machine.root, LIVING);
    let nodeId = "";

    await t.step("a first release that does not run is taken off again", async () => {
      const result = await install("0.1.2");
      assert.equal(result.code, 1, result.text);
      assert.match(result.text, /broken on purpose/);
      assert.match(result.text, /it was taken off again/);
      assert.deepEqual(difference(before, await snapshot(machine.root, LIVING)), []);
    });
    await t.step("a dry run changes nothing", async () => {
      const result = await install("0.1.0", "", "--dry-run");
      assert.equal(result.code, 0, result.text);
      assert.deepEqual(difference(before, await snapshot(machine.root, LIVING)), []);
    });
    await t.step("one command: the agent runs, in a network of its own, without a right", async () => {
      const result = await install("0.1.0", "MYCELIUM_INSTALL_NETWORK=home");
      assert.equal(result.code, 0, result.text);
      assert.equal((await run("mycelium status --exit-code --quiet")).code, 0);
      nodeId = (await status()).node.nodeId;
      const process = await run(`cat /proc/${await pid()}/status`);
      assert.match(process.text, /^CapEff:\t0{16}$/m);
      assert.doesNotMatch(process.text, /^Uid:\t0/m);
      const journal = await run("journalctl -u mycelium-agent -o json --no-pager -n 1");
      assert.equal(JSON.parse(journal.stdout).MYCELIUM_COMPONENT, "agent");
    });
    await t.step("again: nothing changes, the agent is not disturbed", async () => {
      const [was, files] = [await pid(), await snapshot(machine.root, LIVING)];
      const result = await install("0.1.0", "MYCELIUM_INSTALL_NETWORK=other");
      assert.equal(result.code, 0, result.text);
      assert.equal(await pid(), was);
      const changed = difference(files, await snapshot(machine.root, LIVING));
      assert.deepEqual(changed.filter((line) => !line.includes("/var/lib/mycelium")), []);
    });
    await t.step("killed, it is back; after a reboot, too", async () => {
      const was = await pid();
      await run(`kill -9 ${was}`);
      await until(async () => (await run("mycelium status --exit-code --quiet")).code === 0 && await pid() !== was);
      const boot = (await run("cat /proc/sys/kernel/random/boot_id")).stdout;
      await machine.run("systemctl reboot", 5_000);
      await until(async () => {
        const now = await machine.run("cat /proc/sys/kernel/random/boot_id", 3_000);
        return now.code === 0 && now.stdout !== boot;
      });
      await machine.up();
      await until(async () => (await run("mycelium status --exit-code --quiet")).code === 0);
      assert.equal((await status()).node.nodeId, nodeId);
    });
    await t.step("one that hangs is ended by the watchdog and started again", async () => {
      const was = await pid();
      const dropIn = "/run/systemd/system/mycelium-agent.service.d";
      // A stopped process does not hear the signal that ends it, so it is killed after another 2 s.
      await run(
        `mkdir ${dropIn} && printf '[Service]\\nWatchdogSec=4\\nTimeoutAbortSec=2\\n' > ${dropIn}/quick.conf &&
        systemctl daemon-reload && systemctl restart mycelium-agent`,
      );
      const quick = await pid();
      assert.notEqual(quick, was);
      await run(`kill -STOP ${quick}`);
      await until(async () => (await run("mycelium status --exit-code --quiet")).code === 0 && await pid() !== quick);
      const journal = await run("journalctl -u mycelium-agent --no-pager -o cat");
      assert.match(journal.stdout, /Watchdog timeout/);
      await run(`rm -r ${dropIn} && systemctl daemon-reload`);
    });
    await t.step("a second machine, without a server: one command with an invite, and both are members", async () => {
      const invite = await run("mycelium invite create --quiet");
      assert.equal(invite.code, 0, invite.text);
      await Deno.writeTextFile(join(second.root, "opt/invite.txt"), invite.stdout);
      const bundle = "mycelium-0.1.0-bundle.tar";
      await Deno.copyFile(join(path, nameOf("0.1.0"), bundle), join(second.root, "opt", bundle));
      await second.boot();
      const result = await second.run(
        `cd /opt && tar -xOf ${bundle} install.sh > install.sh && MYCELIUM_INSTALL_FROM=${bundle} ` +
          "MYCELIUM_INVITE_FILE=/opt/invite.txt MYCELIUM_INSTALL_SETTLE_SEC=1 sh install.sh",
      );
      assert.equal(result.code, 0, result.text);
      await until(async () =>
        (JSON.parse((await second.run("mycelium peers --json")).stdout) as Status["members"]).length === 2
      );
      await second.run("mycelium leave --yes");
    });
    await t.step("an upgrade keeps node and network; --rollback goes back", async () => {
      const old = await sum();
      const up = await install("0.1.1");
      assert.equal(up.code, 0, up.text);
      assert.notEqual(await sum(), old);
      assert.equal((await status()).node.nodeId, nodeId);
      const back = await install("0.1.1", "", "--rollback");
      assert.equal(back.code, 0, back.text);
      assert.equal(await sum(), old);
      await until(async () => (await run("mycelium status --exit-code --quiet")).code === 0);
    });
    for (const [version, what] of [["0.1.2", "ends at once"], ["0.1.3", "hangs"]] as const) {
      await t.step(`an upgrade that ${what} goes back by itself`, async () => {
        const [old, files] = [await sum(), await snapshot(machine.root, LIVING)];
        const result = await install(version, "MYCELIUM_INSTALL_READY_SEC=10");
        assert.equal(result.code, 1, result.text);
        assert.match(result.text, /what ran before runs again/);
        assert.equal(await sum(), old);
        assert.equal((await run("mycelium status --exit-code --quiet")).code, 0);
        assert.equal((await status()).node.nodeId, nodeId);
        const changed = difference(files, await snapshot(machine.root, LIVING));
        assert.deepEqual(
          changed.filter((line) => !/\/var\/lib\/mycelium|mycelium-uninstall|install\.conf/.test(line)),
          [],
        );
      });
    }
    await t.step("uninstall leaves nothing", async () => {
      const kept = await run("mycelium-uninstall");
      assert.equal(kept.code, 0, kept.text);
      assert.ok((await snapshot(machine.root, LIVING)).has("/var/lib/mycelium"), "the state went without --purge");
      const again = await install("0.1.0");
      assert.equal(again.code, 0, again.text);
      assert.equal((await status()).node.nodeId, nodeId);
      const gone = await run("mycelium-uninstall --purge");
      assert.equal(gone.code, 0, gone.text);
      assert.deepEqual(difference(before, await snapshot(machine.root, LIVING)), []);
      const traces = await run(
        "id mycelium; grep -rl mycelium /etc; ls /run | grep mycelium; pgrep -a mycelium; systemctl list-unit-files | grep mycelium",
      );
      assert.equal(traces.stdout, "");
    });
  },
});

/** Waits for a condition. */
async function until(condition: () => Promise<boolean>): Promise<void> {
  for (const end = Date.now() + 60_000; Date.now() < end;) {
    if (await condition().catch(() => false)) return;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  throw new Error("it did not become true within 60 s");
}
