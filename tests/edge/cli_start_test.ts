/** `up`, `init` and `join` that start a node: what they hand over, what they print, how they stop. */

import assert from "node:assert/strict";
import { join } from "node:path";
import type { StartNodeOptions } from "../../src/cli/deps.ts";
import type { JoinStage, Status } from "../../src/agent/status.ts";
import { AgentSocket, run, temporaryFolder } from "../testkit/cli.ts";
import { testInvite } from "../testkit/invites.ts";
import { FIXTURE_NOW_MS, singleNodeStatus } from "../testkit/status_fixture.ts";

const INVITE = testInvite(Date.UTC(2100, 0, 1));
// deno-lint-ignore no-control-regex -- what is looked for
const ESCAPE = /\u001b/;

function at(stage: JoinStage, timeline: readonly JoinStage[] = [stage], invites: Status["invites"] = []): Status {
  const base = singleNodeStatus();
  const { network, credential, ...rest } = base;
  return {
    ...rest,
    ...(stage === "verified" && network && credential ? { network, credential } : {}),
    invites,
    bootstrap: {
      ...base.bootstrap,
      stage,
      timeline: timeline.map((one, i) => ({ stage: one, atMs: FIXTURE_NOW_MS + i })),
    },
  };
}

/** A node that listens, goes through statuses, and ends when it is told to or after a while. */
function nodeThat(options: {
  readonly statuses: readonly Status[];
  readonly seen?: StartNodeOptions[];
  readonly logs?: readonly string[];
  readonly untilStopped?: boolean;
  readonly agents?: AgentSocket[];
}): (start: StartNodeOptions) => Promise<number> {
  return async (start) => {
    options.seen?.push(start);
    const token = { ok: true, result: { token: INVITE, id: "1", expiresMs: FIXTURE_NOW_MS + 3_600_000 } } as const;
    await using agent = new AgentSocket(start.stateDir, { status: options.statuses[0]!, control: () => token });
    options.agents?.push(agent);
    const { nodeId } = agent.status.node;
    start.onListening({ nodeId, socket: agent.socket, statusUrl: "http://127.0.0.1:4873" });
    for (const line of options.logs ?? []) start.writeLog(line);
    for (const status of options.statuses.slice(1)) {
      await new Promise((resolve) => setTimeout(resolve, 350));
      agent.status = status;
    }
    if (options.untilStopped) await new Promise((resolve) => start.signal.addEventListener("abort", resolve));
    else await new Promise((resolve) => setTimeout(resolve, 700));
    return 0;
  };
}

Deno.test("up --network hands over the settings and prints status URL, ids and an invite", async () => {
  using folder = temporaryFolder();
  const seen: StartNodeOptions[] = [];
  const flags = [
    "--port",
    "0",
    "--http",
    "off",
    "--no-mdns",
    "--listen",
    "127.0.0.1",
    "--listen",
    "::1",
    "--role",
    "hypha",
  ];
  const more = ["--domain", "a.example", "--seed-url", "https://s.example/x", "--approval", "--log-level", "debug"];
  const { code, stdout, stderr } = await run(["up", "--network", "home", "--state", folder.path, ...flags, ...more], {
    startNode: nodeThat({ statuses: [at("forming"), at("verified", ["forming", "verified"])], seen }),
  });
  assert.equal(code, 0);
  const [start] = seen;
  assert.deepEqual(start!.form, { name: "home", approval: true });
  assert.equal(start!.stateDir, folder.path);
  assert.equal(start!.socketPath, join(folder.path, "agent.sock"));
  const { config } = start!;
  assert.deepEqual([config.port, config.http.listen, config.role, config.name], [0, "off", "hypha", "testhost"]);
  assert.deepEqual(config.listen, ["127.0.0.1", "::1"]);
  assert.deepEqual([config.discovery.mdns, config.discovery.multicast], [false, true]);
  assert.deepEqual([config.discovery.domains, config.discovery.seedUrls], [["a.example"], ["https://s.example/x"]]);
  assert.deepEqual(config.log, { level: "debug", format: "json" });
  assert.match(stdout, /^Node +12D3KooW\w+\nStatus +http:\/\/127\.0\.0\.1:4873\nSocket /);
  assert.match(stdout, /^Network +home, [0-9a-f]{64}$/m);
  assert.ok(stdout.includes(`mycelium join ${INVITE}`));
  assert.match(stderr, /• Forming a network\n• Member of the network\n/);
  assert.doesNotMatch(stdout + stderr, ESCAPE);
});

Deno.test("up again: no new invite where there is one, and one JSON line with --json", async () => {
  using folder = temporaryFolder();
  const status = at("verified", ["verified"], singleNodeStatus().invites);
  const agents: AgentSocket[] = [];
  const again = await run(["up", "--network", "home", "--state", folder.path], {
    startNode: nodeThat({ statuses: [status], agents }),
  });
  assert.doesNotMatch(again.stdout, /myc1/);
  assert.deepEqual(agents[0]!.requests, []);
  const { stdout } = await run(["up", "--network", "home", "--state", folder.path, "--json"], {
    startNode: nodeThat({ statuses: [at("verified")] }),
  });
  const line = JSON.parse(stdout);
  assert.equal(line.event, "ready");
  assert.equal(line.invite, INVITE);
  assert.equal(line.socket, join(folder.path, "agent.sock"));
});

Deno.test("up without network or invite says what to do, and announces the network when it comes", async () => {
  using folder = temporaryFolder();
  const { stdout, stderr } = await run(["up", "--state", folder.path], {
    startNode: nodeThat({
      statuses: [at("idle"), at("idle"), at("idle"), at("verified"), at("verified"), at("verified"), at("verified")],
    }),
  });
  assert.match(stderr, /no network yet.*mycelium init home --socket.*mycelium join/s);
  assert.match(stdout, /^Ready/m);
});

Deno.test("up takes the invite from flag, file, stdin, variable and configuration, in this order", async () => {
  using folder = temporaryFolder();
  const file = join(folder.path, "invite.txt");
  Deno.writeTextFileSync(file, INVITE + "\n");
  const config = join(folder.path, "c.yaml");
  Deno.writeTextFileSync(config, `join: {inviteFile: ${file}, network: other}\n`);
  const cases: [string[], Parameters<typeof run>[1]][] = [
    [["--join", INVITE], {}],
    [["--invite-file", file], {}],
    [["--invite-file", "-"], { stdin: INVITE }],
    [[], { env: { MYCELIUM_INVITE: INVITE } }],
    [["--config", config], {}],
  ];
  for (const [flags, options] of cases) {
    const seen: StartNodeOptions[] = [];
    const startNode = (start: StartNodeOptions) => {
      seen.push(start);
      return Promise.resolve(0);
    };
    assert.equal((await run(["up", "--state", folder.path, ...flags], { ...options, startNode })).code, 0);
    assert.equal(seen[0]!.invite, INVITE, flags.join(" "));
    assert.equal(seen[0]!.form, undefined, "an invite goes before a network of one's own");
  }
  assert.equal((await run(["up", "--join", INVITE, "--invite-file", file])).code, 2);
});

Deno.test("A configured invite that is gone or has run out does not keep a node from starting again", async () => {
  using folder = temporaryFolder();
  const config = join(folder.path, "c.yaml");
  Deno.writeTextFileSync(config, `join: {inviteFile: ${join(folder.path, "gone")}}\n`);
  const startNode = (start: StartNodeOptions) => Promise.resolve(start.invite === undefined ? 0 : 9);
  assert.equal((await run(["up", "--state", folder.path, "--config", config], { startNode })).code, 0);
  const flag = await run(["up", "--state", folder.path, "--invite-file", join(folder.path, "gone")], { startNode });
  assert.equal(flag.code, 2);
});

Deno.test("join without an agent starts a node in the foreground; init too", async () => {
  using folder = temporaryFolder();
  const seen: StartNodeOptions[] = [];
  const startNode = nodeThat({ statuses: [at("contacting"), at("verified", ["contacting", "verified"])], seen });
  const joined = await run(["join", "-", "--state", folder.path, "--port", "0"], { startNode, stdin: INVITE });
  assert.equal(joined.code, 0);
  assert.equal(seen[0]!.invite, INVITE);
  assert.equal(seen[0]!.config.port, 0);
  assert.doesNotMatch(joined.stdout, /myc1/);
  const init = await run(["init", "home", "--state", folder.path], { startNode });
  assert.equal(init.code, 0);
  assert.deepEqual(seen[1]!.form, { name: "home", approval: false });
  assert.equal((await run(["init", "no good", "--state", folder.path], { startNode })).code, 2);
  assert.equal((await run(["join", INVITE, "--detach", "--state", folder.path], { startNode })).code, 3);
});

Deno.test("init by an agent that runs forms there and prints an invite", async () => {
  using folder = temporaryFolder();
  await using agent = new AgentSocket(folder.path, {
    status: singleNodeStatus(),
    control: () => ({ ok: true, result: { networkId: "ab", invite: INVITE } }),
  });
  const { code, stdout } = await run(["init", "home", "--socket", agent.socket]);
  assert.equal(code, 0);
  assert.deepEqual(agent.requests, [{ verb: "init", name: "home", approval: false }]);
  assert.ok(stdout.includes(INVITE));
});

Deno.test("up beside an agent that runs with the same folder is refused with its process", async () => {
  using folder = temporaryFolder();
  await using _agent = new AgentSocket(folder.path, { status: singleNodeStatus() });
  const { code, stderr } = await run(["up", "--state", folder.path]);
  assert.equal(code, 1);
  assert.match(stderr, /runs already.*process 4242.*another folder/s);
});

Deno.test("A node that cannot start: its reason and cure, exit code 1, no stack; a mistake of ours shows its place", async () => {
  using folder = temporaryFolder();
  const damaged = Object.assign(new Error("Cannot use state folder"), { name: "StateError", cure: "Restore it" });
  const up = (error: unknown, ...flags: string[]) =>
    run(["up", "--state", folder.path, ...flags], { startNode: () => Promise.reject(error) });
  assert.deepEqual(await up(damaged), {
    code: 1,
    stdout: "",
    stderr: "Error: Cannot use state folder\n  Restore it\n",
  });
  assert.deepEqual(JSON.parse((await up(damaged, "--json")).stdout), {
    error: { code: "state-error", message: "Cannot use state folder", cure: "Restore it" },
  });
  const ours = await up(new TypeError("x is not a function"));
  assert.equal(ours.code, 1);
  assert.match(ours.stderr, /^Error: Unexpected: x is not a function\n.*report it.*\nTypeError: x.*\n +at /s);
});

Deno.test("A node that stops by itself is not called gone", async () => {
  using folder = temporaryFolder();
  const startNode = async (start: StartNodeOptions) => {
    await nodeThat({ statuses: [at("discovering")] })(start);
    return 1;
  };
  const { code, stderr } = await run(["up", "--state", folder.path], { startNode });
  assert.equal(code, 1);
  assert.doesNotMatch(stderr, /Warning/);
});

Deno.test("Ctrl-C: the node is told to stop, and its exit code is the command's", async () => {
  using folder = temporaryFolder();
  const stop = new AbortController();
  setTimeout(() => stop.abort(), 400);
  const startNode = async (start: StartNodeOptions) => {
    await nodeThat({ statuses: [at("discovering")], untilStopped: true })(start);
    return 7;
  };
  const { code, stderr } = await run(["up", "--state", folder.path], { startNode, signal: stop.signal });
  assert.equal(code, 7);
  assert.match(stderr, /Looking for the network/);
});

Deno.test("On a terminal a moving line shows the stage; everyday log lines stay away unless asked for", async () => {
  using folder = temporaryFolder();
  const logs = ["04:00:00.000 INFO  node: dull", "04:00:00.000 WARN  node: alarm"];
  const statuses = [at("discovering"), at("verified", ["discovering", "verified"])];
  const up = (...flags: string[]) =>
    run(["up", "--state", folder.path, ...flags], { startNode: nodeThat({ statuses, logs }), terminal: true });
  const { stderr } = await up();
  assert.ok(stderr.includes("\r\u001b[K"), "the line is drawn in place");
  assert.match(stderr, /⠙.*Looking for the network/);
  assert.match(stderr, /alarm\n/);
  assert.doesNotMatch(stderr, /dull/);
  assert.match((await up("--log-level", "info")).stderr, /dull/);
  // A terminal that does not know its width gets plain lines.
  const narrow = await run(["up", "--state", folder.path], {
    startNode: nodeThat({ statuses }),
    terminal: true,
    columns: 0,
  });
  assert.doesNotMatch(narrow.stderr, /⠙/);
  assert.match(narrow.stderr, /• .*Looking for the network\n/);
});

Deno.test("down stops the agent that runs and waits for it; 5 where it does not stop, 3 where none runs", async () => {
  using folder = temporaryFolder();
  let ended: Promise<void> | undefined;
  const stops = new AgentSocket(folder.path, {
    status: singleNodeStatus(),
    shutdown: () => void setTimeout(() => ended = stops[Symbol.asyncDispose](), 150),
  });
  const { code, stderr } = await run(["down", "--socket", stops.socket]);
  assert.equal(code, 0);
  assert.match(stderr, /has stopped/);
  await ended;
  assert.equal((await run(["down", "--socket", stops.socket])).code, 3);
  await using stays = new AgentSocket(folder.path, { status: singleNodeStatus(), shutdown: () => {} });
  assert.equal((await run(["down", "--timeout", "300ms", "--socket", stays.socket])).code, 5);
});

Deno.test("SIGHUP's configuration is read anew with the same flags on top", async () => {
  using folder = temporaryFolder();
  const config = join(folder.path, "c.yaml");
  Deno.writeTextFileSync(config, "pool: a\nport: 1\n");
  let pools: unknown[] = [];
  const startNode = async (start: StartNodeOptions) => {
    Deno.writeTextFileSync(config, "pool: b\nport: 2\n");
    const { config: again } = await start.reloadConfig();
    pools = [start.config.pool, again.pool, again.port];
    Deno.writeTextFileSync(config, "pool: [\n");
    await assert.rejects(start.reloadConfig(), { name: "ConfigError" });
    return 0;
  };
  assert.equal((await run(["up", "--state", folder.path, "--config", config, "--port", "9"], { startNode })).code, 0);
  assert.deepEqual(pools, ["a", "b", 9]);
});

Deno.test("systemd's folders are used where nothing else is said", async () => {
  using folder = temporaryFolder();
  const seen: StartNodeOptions[] = [];
  const env = { STATE_DIRECTORY: join(folder.path, "state"), RUNTIME_DIRECTORY: join(folder.path, "run") };
  const startNode = (start: StartNodeOptions) => {
    seen.push(start);
    return Promise.resolve(0);
  };
  assert.equal((await run(["agent"], { env, startNode })).code, 0);
  assert.equal(seen[0]!.stateDir, join(folder.path, "state"));
  assert.equal(seen[0]!.socketPath, join(folder.path, "run/agent.sock"));
});
