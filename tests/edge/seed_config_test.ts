import assert from "node:assert/strict";
import { join } from "node:path";
import {
  type Config,
  configJsonSchema,
  formatConfig,
  parseConfigEnv,
  parseConfigText,
  resolveConfig,
} from "../../src/edge/config.ts";
import { temporaryFolder } from "../testkit/cli.ts";
import { RunningNode } from "../testkit/running_node.ts";
import { warmUp } from "../testkit/p2p.ts";

// libp2p opens a channel of its own once in a process.
await warmUp();

const publishOf = (yaml: string): Config["seeds"]["publish"] =>
  resolveConfig([parseConfigText(yaml, "test.yaml")]).config.seeds.publish;

Deno.test("[3.2a] seeds.publish takes files, servers and commands, each with its defaults", () => {
  const yaml = `
seeds:
  publish:
    - to: /var/www/home.seed
    - {to: "https://dav.example.net/home.seed", kind: service, every: 1h, tokenFile: /etc/mycelium/dav.token, redundant: true}
    - to: {command: [rclone, rcat, "remote:bucket/home.seed"]}
      keep: 0
`;
  const preset = { kind: "full", every: "5m", keep: 3 };
  assert.deepEqual(publishOf(yaml), [
    { ...preset, to: "/var/www/home.seed" },
    {
      ...preset,
      to: "https://dav.example.net/home.seed",
      kind: "service",
      every: "1h",
      tokenFile: "/etc/mycelium/dav.token",
      redundant: true,
    },
    { ...preset, to: { command: ["rclone", "rcat", "remote:bucket/home.seed"] }, keep: 0 },
  ]);
  // The environment says a list of mappings in JSON.
  const env = parseConfigEnv({ MYCELIUM_SEEDS_PUBLISH: '[{"to":"/srv/home.seed","every":"90s"}]' });
  assert.deepEqual(resolveConfig([env]).config.seeds.publish, [{ ...preset, to: "/srv/home.seed", every: "90s" }]);
  // What is printed reads again, without a password that stood in an address.
  const loaded = resolveConfig([parseConfigText(yaml, "test.yaml")]);
  assert.deepEqual(publishOf(formatConfig(loaded)), loaded.config.seeds.publish);
  const secret = resolveConfig([parseConfigText("seeds: {publish: [{to: 'https://me:pw@example.net/x'}]}", "t")]);
  assert.ok(!formatConfig(secret).includes("pw"));
});

Deno.test("[3.2a] what seeds.publish cannot be is an error with its place, and never a crash", () => {
  for (
    const entry of [
      "{}",
      "{to: relative/path}",
      "{to: /folder/}",
      "{to: ftp://example.net/x}",
      "{to: {command: []}}",
      "{to: {command: sh}}",
      "{to: /x, kind: everything}",
      "{to: /x, every: 1s}",
      "{to: /x, every: soon}",
      "{to: /x, every: 31d}",
      "{to: /x, keep: -1}",
      "{to: /x, token: secret}",
      "/x",
      "{to: {to: {to: {to: {to: {to: /x}}}}}}",
    ]
  ) {
    assert.throws(() => publishOf(`seeds: {publish: [${entry}]}`), /Cannot use seeds\.publish.*test\.yaml:1/s, entry);
  }
  const many = Array.from({ length: 9 }, (_, i) => `{to: /x${i}}`).join(", ");
  assert.throws(() => publishOf(`seeds: {publish: [${many}]}`), /at most 8/);
});

Deno.test("[3.2a] the JSON Schema of the configuration knows seeds.publish", async () => {
  const schema = await configJsonSchema() as { properties: { seeds: { properties: { publish: object } } } };
  assert.match(JSON.stringify(schema.properties.seeds.properties.publish), /"array"/);
});

Deno.test("[3.2a] [3.2d] a node publishes what its configuration names, tells so, and takes no such setting from afar", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "home.seed");
  const flags = { "seeds.publish": [{ to: path, kind: "master", every: "10s" }] };
  await using node = await RunningNode.start({ stateDir: join(folder.path, "state"), form: "forest", flags });
  await node.until("a member", (status) => status.bootstrap.stage === "verified");
  await node.until("published", (status) => status.seeds?.targets[0]?.state === "ok", 20_000);
  const status = await node.status();
  assert.equal(status.seeds!.targets[0]!.to, path);
  assert.equal(status.health.components.find((one) => one.name === "seeds")!.health, "ok");
  const { seq } = await node.ask<{ seq: number }>({
    verb: "seed-import",
    text: await Deno.readTextFile(path),
    dryRun: true,
  });
  assert.equal(seq, status.seeds!.targets[0]!.seq);
  const [now] = await node.ask<{ published: boolean; seq: number }[]>({ verb: "seed-publish", force: true });
  assert.ok(now!.published && now!.seq > seq);
  const metrics = await (await fetch(`${node.statusUrl}/metrics`)).text();
  assert.match(metrics, /mycelium_seed_targets\{state="ok"\} 1/);
  const page = await (await fetch(`${node.statusUrl}/`)).text();
  assert.ok(page.includes("Seeds outside") && page.includes(path));
  // Who may configure from afar may not name programs to run.
  const refused = await node.control({
    verb: "config-try",
    text: "seeds: {publish: [{to: {command: [reboot]}}]}",
    confirmWithinMs: 5_000,
  });
  assert.ok(!refused.ok && /a version may not change it/.test(refused.error!.message), JSON.stringify(refused.error));
});
