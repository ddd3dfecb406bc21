/** The first minutes with mycelium, as a person has them; one suite, run from source and on the binary. @module */

import assert from "node:assert/strict";
import { join } from "node:path";
import type { Status } from "../../src/agent/status.ts";
import { eventually, LOOPBACK_NODE, type ProgramCommand, type Ready, RunningNode, runProgram } from "./program.ts";

/** Most milliseconds until three nodes see each other after the last one has joined (the figure). */
const SEE_EACH_OTHER_MS = 5_000;

async function statusOf(node: Ready): Promise<Status> {
  const response = await fetch(new URL("/status", node.statusUrl));
  assert.equal(response.status, 200, await response.clone().text());
  return await response.json() as Status;
}

/** Ids of the members that a node holds for alive, itself included, sorted. */
function aliveIn(status: Status): string[] {
  return status.members.filter((one) => one.state === "alive" || one.state === "self").map((one) => one.nodeId).sort();
}

/**
 * Registers the suite.
 *
 * @param name In the titles: how the program runs.
 */
export function smokeSuite(name: string, command: ProgramCommand): void {
  const inScratch = (title: string, body: (home: string) => Promise<void>) =>
    Deno.test(`${name}: ${title}`, async () => {
      const home = await Deno.makeTempDir({ prefix: "mycelium-smoke-" });
      try {
        await body(home);
      } finally {
        await Deno.remove(home, { recursive: true });
      }
    });

  inScratch(
    "[1.2e, 1.3d, 10.2b, 11.1a, 11.2a] three nodes form a network, see each other, survive kill -9 and stop in order",
    async (home) => {
      const state = (node: string) => ["--state", join(home, node)];
      await using first = new RunningNode(command, ["up", "--network", "smoke", ...state("a"), ...LOOPBACK_NODE], {
        home,
      });
      const a = await first.ready();
      assert.ok(a.invite?.startsWith("myc1"), "the first node prints an invite");

      await using second = new RunningNode(command, ["join", a.invite!, ...state("b"), ...LOOPBACK_NODE], { home });
      const b = await second.ready();
      const made = await runProgram(command, ["invite", "create", "--quiet", ...state("a")], { home });
      assert.equal(made.code, 0, made.stderr);
      await using third = new RunningNode(command, ["join", made.stdout.trim(), ...state("c"), ...LOOPBACK_NODE], {
        home,
      });
      const c = await third.ready();

      const everybody = [a, b, c].map((one) => one.nodeId).sort();
      assert.equal(new Set(everybody).size, 3);
      assert.equal(new Set([a, b, c].map((one) => one.networkId)).size, 1);
      let views: string[][] = [];
      const seen = await eventually("three members on all three nodes", SEE_EACH_OTHER_MS, async () => {
        views = (await Promise.all([a, b, c].map(statusOf))).map(aliveIn);
        return views.every((view) => view.join() === everybody.join()) || undefined;
      }).catch((cause: unknown) => {
        const logs = [first, second, third].map((one) => one.output.split("\n").slice(-12).join("\n")).join("\n---\n");
        throw new Error(`${cause}; they see ${JSON.stringify(views)}\n${logs}`);
      });
      console.log(`three members on all three nodes ${seen.tookMs.toFixed(0)} ms after the last join`);
      assert.equal((await statusOf(c)).bootstrap.stage, "verified");

      const told = await runProgram(command, ["status", "--json", ...state("b")], { home });
      assert.equal(told.code, 0, told.stderr);
      assert.deepEqual(aliveIn(JSON.parse(told.stdout) as Status), everybody);

      // kill -9 takes the process, not the member: the same node is back from its folder, with no invite.
      await second.end("SIGKILL");
      await using again = new RunningNode(command, ["up", ...state("b"), ...LOOPBACK_NODE], { home });
      const back = await again.ready();
      assert.equal(back.nodeId, b.nodeId);
      assert.equal(back.networkId, a.networkId);

      for (const node of [first, again, third]) {
        const started = performance.now();
        assert.equal(await node.end("SIGTERM"), 0, node.output);
        assert.ok(performance.now() - started < 10_000, "a node stops within its drain deadline");
      }
    },
  );

  inScratch("an invite works once", async (home) => {
    await using first = new RunningNode(
      command,
      ["up", "--network", "smoke", "--state", join(home, "a"), ...LOOPBACK_NODE],
      { home },
    );
    const { invite } = await first.ready();
    await using second = new RunningNode(command, ["join", invite!, "--state", join(home, "b"), ...LOOPBACK_NODE], {
      home,
    });
    await second.ready();
    await using thief = new RunningNode(command, ["join", invite!, "--state", join(home, "c"), ...LOOPBACK_NODE], {
      home,
    });
    await assert.rejects(thief.ready(5_000));
    const status = await runProgram(command, ["status", "--json", "--state", join(home, "a")], { home });
    assert.equal((JSON.parse(status.stdout) as Status).members.length, 2);
  });

  inScratch("wrong input is refused with a reason, a cure and an exit code of its own", async (home) => {
    const run = (...args: string[]) => runProgram(command, args, { home });
    const invite = await run("join", "myc1notaninvite", "--state", join(home, "a"));
    assert.equal(invite.code, 2, invite.stderr);
    assert.match(invite.stderr, /invite/i);
    const verb = await run("statsu");
    assert.equal(verb.code, 2, verb.stderr);
    assert.match(verb.stderr, /status/, "a near miss is named");
    const nobody = await run("status", "--state", join(home, "none"));
    assert.equal(nobody.code, 3, nobody.stderr);
    assert.match(nobody.stderr, /mycelium up/, "the cure is named");
    const port = await run("up", "--port", "99999999", "--state", join(home, "a"));
    assert.equal(port.code, 2, port.stderr);
    for (const { stderr } of [invite, verb, nobody, port]) {
      assert.doesNotMatch(stderr, /\n\s+at .*:\d+:\d+/, "no stack trace for a person");
    }
  });

  inScratch("help and completion are there without an agent", async (home) => {
    const help = await runProgram(command, ["--help"], { home });
    assert.equal(help.code, 0);
    for (const verb of ["up", "init", "join", "status", "peers", "invite", "node", "doctor", "config", "version"]) {
      assert.match(help.stdout, new RegExp(`^\\s+${verb}\\b`, "m"), verb);
    }
    const completion = await runProgram(command, ["completion", "bash"], { home });
    assert.equal(completion.code, 0);
    assert.match(completion.stdout, /complete /);
  });
}
