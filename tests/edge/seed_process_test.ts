/** Seed Spores over real processes: primaries gone, a file is all there is. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { temporaryFolder } from "../testkit/cli.ts";
import { eventually, FROM_SOURCE, LOOPBACK_NODE, RunningNode, runProgram } from "../testkit/program.ts";

Deno.test("[3.2c] the primaries are gone: a node that starts with a Service Seed and nobody in reach finds the service", async () => {
  using folder = temporaryFolder();
  const home = folder.path;
  const state = (name: string) => join(home, name);
  const cli = async (name: string, ...args: string[]) => {
    const { code, stdout, stderr } = await runProgram(FROM_SOURCE, [...args, "--state", state(name)], { home });
    assert.equal(code, 0, `${args.join(" ")}: ${stdout} ${stderr}`);
    return stdout;
  };
  const invited = async (name: string) => {
    const { token } = JSON.parse(await cli("alpha", "invite", "create", "--json"));
    await Deno.writeTextFile(join(home, `${name}.invite`), token);
    const file = join(home, `${name}.invite`);
    return new RunningNode(FROM_SOURCE, ["join", "--invite-file", file, ...LOOPBACK_NODE, "--state", state(name)], {
      home,
    });
  };
  await using alpha = new RunningNode(
    FROM_SOURCE,
    ["up", "--network", "forest", ...LOOPBACK_NODE, "--state", state("alpha")],
    { home },
  );
  await alpha.ready();
  // A member that is switched off before the service is there.
  await using late = await invited("late");
  await late.ready();
  await late.end();
  await using web = await invited("web");
  const { nodeId } = await web.ready();
  const key = `service/shop/${nodeId}`;
  await cli("web", "spore", "put", key, "http://192.0.2.7:8080");
  const seed = join(home, "home.seed");
  await eventually("the issuer has heard of it", 15_000, async () => {
    await cli("alpha", "seed", "export", "--kind", "service", "--out", seed);
    const report = JSON.parse(await cli("alpha", "seed", "verify", seed, "--json"));
    return report.counts.renewed || report.counts.known ? report : undefined;
  });
  await alpha.end("SIGKILL");
  await web.end("SIGKILL");

  // Whoever has only the file can check it against the network's id.
  const alone = JSON.parse(await cli("nobody", "seed", "verify", seed, "--json"));
  assert.equal(alone.networkId, (await alpha.ready()).networkId);

  await using again = new RunningNode(
    FROM_SOURCE,
    ["up", ...LOOPBACK_NODE, "--state", state("late"), "--seed-file", seed],
    { home },
  );
  const { value: found } = await eventually("the record is there", 20_000, async () => {
    const { code, stdout } = await runProgram(FROM_SOURCE, ["spore", "show", key, "--json", "--state", state("late")], {
      home,
    });
    return code === 0 ? JSON.parse(stdout) : undefined;
  });
  // The word of one issuer, or of the majority that had it by then: the bundle carries the better proof.
  assert.ok(["seed", "primary"].includes(found.tier), found.tier);
  assert.match(JSON.stringify(found), /192\.0\.2\.7:8080/);
  const { seeds } = JSON.parse(await cli("late", "status", "--json"));
  assert.equal(seeds.taken[0].kind, "service");
  assert.deepEqual(seeds.sources.map((one: { state: string }) => one.state), ["ok"]);
  assert.ok(!again.output.includes("Unexpected"));
});
