/** The audit log and incidents of real nodes, from the command line: verify, search, tail, export; a log that was cut; invites that are guessed over a socket. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { AuditTrail } from "../../src/edge/audit_trail.ts";
import { run, temporaryFolder } from "../testkit/cli.ts";
import { warmUp } from "../testkit/p2p.ts";
import { RunningNode } from "../testkit/running_node.ts";

// libp2p opens a channel of its own once in a process.
await warmUp();

Deno.test("[2.4d] audit verify, search, tail and export on a running node; an export verifies with the node's id alone", async () => {
  using dir = temporaryFolder();
  const state = join(dir.path, "state");
  await using node = await RunningNode.start({ stateDir: state, form: "forest" });
  const cli = (...args: string[]) => run([...args, "--socket", node.socket], { cwd: dir.path });
  await cli("invite", "create", "--role", "hypha");
  const revoked = await cli("invite", "create", "--json");
  await cli("invite", "revoke", JSON.parse(revoked.stdout).id);
  const verified = await cli("audit", "verify", "--json");
  assert.equal(verified.code, 0, verified.stderr);
  const report = JSON.parse(verified.stdout);
  assert.deepEqual([report.ok, report.first, report.findings], [true, 1, []]);
  const found = await cli("audit", "search", "--action", "invite-*", "--json");
  const entries = JSON.parse(found.stdout);
  assert.deepEqual(entries.map((one: { action: string }) => one.action), [
    "invite-created",
    "invite-created",
    "invite-revoked",
  ]);
  for (const one of entries) {
    assert.deepEqual(
      [one.by, one.entrance, one.outcome],
      ["local", "socket", "ok"],
      "who, by which way in, how it ended",
    );
  }
  assert.match((await cli("audit", "search", "hypha")).stdout, /invite-created/);
  assert.match((await cli("audit", "search", "--outcome", "failed")).stderr, /No entry fits/);
  assert.equal((await cli("audit", "search", "--since", "yesterday")).code, 2);
  assert.equal(JSON.parse((await cli("audit", "search", "--since", "1h", "--max", "1", "--json")).stdout).length, 1);
  const tail = await cli("audit", "tail", "-n", "2", "--json");
  assert.equal(tail.stdout.trimEnd().split("\n").length, 2);

  const exported = await cli("audit", "export", "all.ndjson");
  assert.equal(exported.code, 0, exported.stderr);
  assert.match(exported.stderr, /--node 12D3KooW/);
  assert.equal((await cli("audit", "export", "all.ndjson")).code, 4, "what is there is not replaced");
  const path = join(dir.path, "all.ndjson");
  assert.equal(Deno.statSync(path).mode! & 0o777, 0o600);
  // Without any agent.
  const offline = await run(["audit", "verify", path, "--node", node.nodeId, "--json"]);
  assert.equal(offline.code, 0, offline.stdout);
  assert.equal(JSON.parse(offline.stdout).whole, true);
  const text = Deno.readTextFileSync(path);
  for (
    const [what, bad] of [
      ["changed", text.replace("invite-revoked", "invite-created")],
      ["cut", text.split("\n").slice(0, -2).join("\n") + "\n"],
      ["shortened", text.split("\n").toSpliced(2, 1).join("\n")],
      ["without its heading", text.slice(text.indexOf("\n") + 1)],
    ] as const
  ) {
    const spoilt = join(dir.path, "spoilt.ndjson");
    Deno.writeTextFileSync(spoilt, bad);
    const result = await run(["audit", "verify", spoilt, "--node", node.nodeId]);
    // A piece of a log that begins at a segment is a log by itself: what it lacks is the word that it is an export.
    if (what === "without its heading") assert.doesNotMatch(result.stdout, /export/);
    else assert.equal(result.code, 1, what);
  }
  const other = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";
  assert.equal((await run(["audit", "verify", path, "--node", other])).code, 1, "of another node");
  assert.equal((await run(["audit", "verify", join(dir.path, "nothing")])).code, 2);
  assert.match((await run(["audit", "search", "--file", path])).stdout, /network-formed/);
  // What the running node has in mind is compared with the disk.
  const log = join(state, "audit.log");
  const whole = Deno.readTextFileSync(log);
  Deno.writeTextFileSync(log, whole.split("\n").slice(0, 3).join("\n") + "\n");
  const cut = await cli("audit", "verify", "--json");
  assert.equal(cut.code, 1);
  assert.ok(JSON.parse(cut.stdout).findings.some((one: { what: string }) => one.what === "truncated"));
  Deno.writeTextFileSync(log, whole);
  // The incident commands, on a node where nothing happened.
  assert.match((await cli("incident", "list")).stderr, /There is none/);
  assert.match((await cli("incident", "rules")).stdout, /invite-guessing/);
  assert.equal((await cli("incident", "show", "1")).code, 1);
  assert.equal((await cli("incident", "respond", "1", "--action", "shoot")).code, 2);
});

Deno.test("[2.4d] a log that was cut and written on while the node was down is found by what the others were told", async () => {
  using one = temporaryFolder();
  using two = temporaryFolder();
  const states = [join(one.path, "s"), join(two.path, "s")];
  let founder = await RunningNode.start({ stateDir: states[0]!, form: "forest" });
  const invite = await founder.ask<{ token: string }>({ verb: "invite-create" });
  await using member = await RunningNode.start({ stateDir: states[1]!, name: "beta", invite: invite.token });
  await member.until("is in", ({ bootstrap }) => bootstrap.stage === "verified");
  // The heads go out at the start and with each closed segment; an export closes one.
  await founder.ask({ verb: "audit-export" });
  const { sealedTo } = await founder.ask<{ sealedTo: number }>({ verb: "audit-verify" });
  await founder.until("is published", ({ audit }) => audit?.publishedTo === sealedTo, 90_000);
  await member.until("watches it", ({ audit }) => (audit?.watched ?? 0) > 0, 60_000);
  await founder.stop();
  const log = join(states[0]!, "audit.log");
  // All but the first entry goes, and what follows is signed as the node would: whoever has the machine has its key.
  Deno.writeTextFileSync(log, Deno.readTextFileSync(log).split("\n").slice(0, 1).join("\n") + "\n");
  founder = await RunningNode.start({ stateDir: states[0]! });
  try {
    await founder.until("is in again", ({ bootstrap }) => bootstrap.stage === "verified");
    await founder.until(
      "the member is there",
      ({ members }) => members.some((m) => m.name === "beta" && m.path),
      60_000,
    );
    const report = await founder.ask<{ ok: boolean; findings: { what: string }[]; answered: number }>({
      verb: "audit-verify",
    });
    assert.equal(report.ok, false);
    assert.ok(report.findings.some(({ what }) => what === "truncated" || what === "rewritten"), JSON.stringify(report));
    await founder.ask({ verb: "audit-export" });
    // The member hears of a log that ends before, and says so.
    await member.until(
      "tells of it",
      ({ incidents }) =>
        incidents?.latest.some(({ rule, subject }) =>
          rule === "audit-damage" && subject === `node:${founder.nodeId}`
        ) ??
          false,
      120_000,
    );
  } finally {
    await founder.stop();
  }
});

Deno.test("[2.4d] a disk that takes nothing does not stop the node: entries wait, and what is lost is written down later", () => {
  using dir = temporaryFolder();
  const trouble: (string | undefined)[] = [];
  const trail = new AuditTrail({ dir: dir.path, sealed: () => {}, trouble: (message) => void trouble.push(message) });
  const path = join(dir.path, "audit.log");
  const act = (n: number) => trail.append({ atMs: n, action: "act", by: "x", detail: `${n} myc1AAAAAAAAAAAAAAAAAAAA` });
  act(1);
  assert.ok(!Deno.readTextFileSync(path).includes("AAAA"), "no invite stands in the log");
  // The log cannot be written: its file is closed under it, as a disk that is gone would.
  const writeSync = Deno.FsFile.prototype.writeSync;
  try {
    Deno.FsFile.prototype.writeSync = () => {
      throw new Error("No space left on device (os error 28)");
    };
    for (let n = 2; n <= 300; n++) act(n);
    assert.deepEqual([trail.status().waiting, trail.status().lost], [256, 43]);
    assert.deepEqual(trouble.length, 1);
    assert.match(trouble[0]!, /No space/);
  } finally {
    Deno.FsFile.prototype.writeSync = writeSync;
  }
  trail.tick(400);
  assert.deepEqual([trail.status().waiting, trouble.at(-1)], [0, undefined]);
  trail[Symbol.dispose]();
  const log = Deno.readTextFileSync(path);
  assert.match(log, /"action":"audit-lost".*43 entries were lost/);
  assert.equal(log.match(/"action":"act"/g)?.length, 257);
});
