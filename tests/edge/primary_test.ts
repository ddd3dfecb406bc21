/** Three issuers as processes: writes from each, a killed leader, a restart of all, a lost majority, backup and restore. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { FROM_SOURCE, runProgram } from "../testkit/program.ts";
import { type Primary, PrimaryGroup } from "../testkit/primary_group.ts";

/** Runs a command at a node. */
async function mycelium(
  at: Primary,
  ...args: string[]
): Promise<{ readonly code: number; readonly stdout: string; readonly stderr: string }> {
  return await runProgram(FROM_SOURCE, [...args, "--socket", at.socket], { home: at.dir });
}

Deno.test("[3.1a] [3.1c] [3.1e] primaries as processes: agreed, led, killed, restarted, lost and recovered", async (t) => {
  await using group = await PrimaryGroup.start(FROM_SOURCE, 3);
  const [a, b, c] = group.members as [Primary, Primary, Primary];
  let gapMs = 0;

  await t.step("what is written at any of them is read at every one", async () => {
    for (const one of group.members) assert.equal((await one.put(`app/from-${one.name}`, one.name)).code, "ok");
    for (const one of group.members) {
      for (const other of group.members) assert.equal(await one.get(`app/from-${other.name}`), other.name);
    }
    const hashes = new Map<number, Set<string>>();
    for (const one of group.members) {
      const { appliedIndex, stateHash } = await one.primary();
      hashes.set(appliedIndex, (hashes.get(appliedIndex) ?? new Set()).add(stateHash));
    }
    for (const [index, set] of hashes) assert.equal(set.size, 1, `one state at entry ${index}`);
  });

  await t.step("writes on a condition from all of them at once: each version is replaced once", async () => {
    await a.put("app/counter", "0");
    const add = async (one: Primary) => {
      for (let done = 0; done < 5;) {
        const found = await one.client.control({ verb: "primary-get", key: "app/counter" });
        const [version] =
          (found as { readonly versions: readonly { readonly index: number; readonly value: string }[] }).versions;
        try {
          await one.put("app/counter", String(Number(version!.value) + 1), version!.index);
          done += 1;
        } catch (error) {
          assert.equal((error as { readonly code?: string }).code, "conflict", String(error));
        }
      }
    };
    await Promise.all(group.members.map(add));
    assert.equal(await b.get("app/counter"), "15");
  });

  await t.step("the leader is killed: the others go on", async () => {
    const leader = await group.leader();
    await leader.end();
    const startMs = performance.now();
    assert.equal((await group.alive[0]!.put("app/after", "kill")).code, "ok");
    gapMs = performance.now() - startMs;
    await leader.start();
    await group.until("it is back", async () => await leader.get("app/after") === "kill");
  });

  await t.step("all are killed and started again: nothing is lost", async () => {
    await Promise.all(group.members.map((one) => one.end()));
    await Promise.all(group.members.map((one) => one.start()));
    await group.leader();
    for (const one of group.members) assert.equal(await one.get("app/after"), "kill");
  });

  await t.step("backup, and restore of what was deleted since", async () => {
    const file = join(group.home, "b.backup");
    const pass = join(group.home, "pass");
    Deno.writeTextFileSync(pass, "a passphrase for tests\n");
    const saved = await mycelium(b, "primary", "backup", file, "--passphrase-file", pass, "--json");
    assert.equal(saved.code, 0, saved.stderr);
    assert.ok(JSON.parse(saved.stdout).keys >= 5);
    assert.equal(Deno.statSync(file).mode! & 0o777, 0o600);
    await c.client.control({ verb: "primary-put", key: "app/from-p1" });
    await c.put("app/from-p2", "newer");
    assert.equal(await a.get("app/from-p1"), undefined);
    const dry = await mycelium(a, "primary", "restore", file, "--passphrase-file", pass, "--dry-run", "--json");
    assert.equal(JSON.parse(dry.stdout).dryRun, true);
    assert.equal(await a.get("app/from-p1"), undefined);
    const restored = await mycelium(a, "primary", "restore", file, "--passphrase-file", pass, "--yes", "--json");
    assert.equal(restored.code, 0, restored.stderr);
    const { counts, sameNetwork } = JSON.parse(restored.stdout);
    assert.ok(sameNetwork && counts.written >= 1 && counts.kept >= 1, restored.stdout);
    assert.equal(await c.get("app/from-p1"), "p1");
    assert.equal(await c.get("app/from-p2"), "newer");
  });

  await t.step("two of three are lost: nothing is agreed on until an operator says so, and then it is", async () => {
    await Promise.all([b.end(), c.end()]);
    await group.until("nobody leads", async () => (await a.primary()).leader === undefined);
    const dry = await mycelium(a, "primary", "recover", "--without", "p1", "--without", "p2", "--dry-run");
    assert.equal(dry.code, 0, dry.stderr);
    const done = await mycelium(a, "primary", "recover", "--without", "p1", "--without", "p2", "--yes", "--json");
    assert.equal(done.code, 0, done.stderr);
    assert.equal(await a.get("app/counter"), "15");
    assert.equal((await a.put("app/alone", "1")).code, "ok");
    const status = await mycelium(a, "primary", "status");
    assert.match(status.stdout, /Recovered .* without p1, p2|Recovered .* without p2, p1/);
    await b.start();
    await group.until("it has begun anew, and listens", async () => (await b.primary()).learners.includes(b.nodeId));
    assert.equal(await b.get("app/alone", true), "1");
  });
  console.log(`leader killed to next write: ${Math.round(gapMs)} ms`);
});
