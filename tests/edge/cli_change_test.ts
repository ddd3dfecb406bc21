/** Commands that change something: what they ask of the agent, what they refuse to, how they end. */

import assert from "node:assert/strict";
import { join } from "node:path";
import type { Failure, JoinStage, Status } from "../../src/agent/status.ts";
import { AgentSocket, run, temporaryFolder } from "../testkit/cli.ts";
import { testInvite } from "../testkit/invites.ts";
import { FIXTURE_NOW_MS, fixtureNodeId, singleNodeStatus, troubledStatus } from "../testkit/status_fixture.ts";

const INVITE = testInvite(Date.UTC(2100, 0, 1));
const created = {
  ok: true,
  result: { token: INVITE, id: "7f3a9c00", expiresMs: FIXTURE_NOW_MS + 86_400_000 },
} as const;

/** The fixture on its way into a network. */
function joining(stage: JoinStage, failures: readonly Failure[] = []): Status {
  const base = singleNodeStatus();
  const { network: _, credential: __, ...rest } = base;
  const timeline = [{ stage, atMs: FIXTURE_NOW_MS + 1 }];
  return { ...rest, nowMs: FIXTURE_NOW_MS, bootstrap: { ...base.bootstrap, stage, failures, timeline } };
}

Deno.test("invite create asks for what the flags say and prints the invite, alone where stdout is no terminal", async () => {
  using folder = temporaryFolder();
  await using agent = new AgentSocket(folder.path, { status: singleNodeStatus(), control: () => created });
  const args = [
    "invite",
    "create",
    "--role",
    "hypha",
    "--uses",
    "3",
    "--ttl",
    "7d",
    "--approval",
    "--socket",
    agent.socket,
  ];
  const { code, stdout, stderr } = await run(args);
  assert.equal(code, 0);
  assert.equal(stdout, INVITE + "\n");
  assert.match(stderr, /7f3a9c00.*a secret/s);
  assert.deepEqual(agent.requests, [{
    verb: "invite-create",
    role: "hypha",
    uses: 3,
    ttlMs: 604_800_000,
    approval: true,
  }]);
  const terminal = await run(["invite", "create", "--socket", agent.socket], { terminal: true });
  assert.ok(terminal.stdout.includes(`mycelium join ${INVITE}`));
  const json = JSON.parse((await run(["invite", "create", "--json", "--socket", agent.socket])).stdout);
  assert.deepEqual(json, created.result);
});

Deno.test("invite create refuses wrong flags before it asks anybody", async () => {
  for (const flags of [["--role", "king"], ["--uses", "0"], ["--uses", "1.5"], ["--ttl", "soon"], ["--ttl", "5"]]) {
    const { code, stderr } = await run(["invite", "create", ...flags, "--socket", "/nonexistent.sock"]);
    assert.equal(code, 2, flags.join(" "));
    assert.match(stderr, /^Error: Cannot use --/);
  }
});

Deno.test("invite list and revoke: open ones, all, and the start of an id", async () => {
  using folder = temporaryFolder();
  await using agent = new AgentSocket(folder.path, { status: singleNodeStatus() });
  const { stdout } = await run(["invite", "list", "--socket", agent.socket]);
  assert.match(stdout, /7f3a9c +open +any +default +1\/1/);
  assert.equal((await run(["invite", "revoke", "7f3a", "--socket", agent.socket])).code, 0);
  assert.deepEqual(agent.requests, [{ verb: "invite-revoke", id: "7f3a9c" }]);
  const unknown = await run(["invite", "revoke", "ffff", "--socket", agent.socket]);
  assert.equal(unknown.code, 2);
  assert.match(unknown.stderr, /invite list --all/);
});

Deno.test("node approve and deny take the end of an id or a name of a machine that waits", async () => {
  using folder = temporaryFolder();
  await using agent = new AgentSocket(folder.path, { status: troubledStatus() });
  const nodeId = fixtureNodeId("porch-camera");
  assert.equal((await run(["node", "approve", nodeId.slice(-8), "--socket", agent.socket])).code, 0);
  assert.equal((await run(["node", "deny", "porch-camera", "--reason", "not ours", "--socket", agent.socket])).code, 0);
  assert.deepEqual(agent.requests, [
    { verb: "node-approve", node: nodeId },
    { verb: "node-deny", node: nodeId, reason: "not ours" },
  ]);
  // A member waits for nothing.
  assert.equal((await run(["node", "approve", "cellar", "--socket", agent.socket])).code, 2);
});

Deno.test("Dangerous commands ask on a terminal, take --yes, and refuse where nobody can be asked", async () => {
  using folder = temporaryFolder();
  await using agent = new AgentSocket(folder.path, { status: troubledStatus() });
  for (const command of [["node", "remove", "old-laptop"], ["bootstrap", "reset"], ["leave"]]) {
    const args = [...command, "--socket", agent.socket];
    const refused = await run(args);
    assert.equal(refused.code, 4, command.join(" "));
    assert.match(refused.stderr, /--dry-run, then add --yes/);
    assert.equal((await run(args, { terminal: true, stdin: "no\n" })).code, 4);
    assert.equal((await run(args, { terminal: true, stdin: "" })).code, 4);
    assert.deepEqual(agent.requests, [], command.join(" "));
    assert.equal((await run(args, { terminal: true, stdin: "y\n" })).code, 0);
    assert.equal((await run([...args, "--yes"])).code, 0);
    assert.equal(agent.requests.length, 2);
    agent.requests.length = 0;
  }
});

Deno.test("--dry-run says what would happen and changes nothing", async () => {
  using folder = temporaryFolder();
  await using agent = new AgentSocket(folder.path, { status: singleNodeStatus() });
  const remove = await run(["node", "remove", "attic", "--dry-run", "--socket", agent.socket]);
  assert.equal(remove.code, 0);
  assert.match(remove.stdout, /Would remove attic .*issuer.*this machine itself/);
  const reset = await run(["bootstrap", "reset", "--dry-run", "--socket", agent.socket]);
  assert.match(reset.stdout, /Would forget network home/);
  const leave = await run(["leave", "--dry-run", "--socket", agent.socket]);
  assert.match(leave.stdout, /only member.*genesis key/);
  for (const request of agent.requests) assert.equal(request.dryRun, true, request.verb);
});

Deno.test("node drain: this node by mode, another by a signed command", async () => {
  using folder = temporaryFolder();
  const asked: unknown[] = [];
  await using agent = new AgentSocket(folder.path, {
    status: troubledStatus(),
    exec: async function* (request) {
      asked.push(request);
      yield { type: "output", text: "draining" };
      yield { type: "end", code: 0, message: "" };
    },
  });
  assert.equal((await run(["node", "drain", "attic", "--socket", agent.socket])).code, 0);
  assert.deepEqual(agent.requests, [{ verb: "set-mode", mode: "drained" }]);
  const other = await run(["node", "drain", "cellar", "--off", "--socket", agent.socket]);
  assert.equal(other.stdout, "draining\n");
  assert.deepEqual(asked, [{ verb: "undrain", args: {}, node: fixtureNodeId("cellar"), timeoutMs: 30_000 }]);
});

Deno.test("exec prints output as it comes and ends as the command ended", async () => {
  using folder = temporaryFolder();
  const asked: unknown[] = [];
  const seen: [string, number][] = [];
  await using agent = new AgentSocket(folder.path, {
    status: troubledStatus(),
    exec: async function* (request) {
      asked.push(request);
      yield { type: "output", text: "one\n" };
      await new Promise((resolve) => setTimeout(resolve, 200));
      yield { type: "output", text: "two\u001b[2J" };
      yield { type: "end", code: 3, message: "It did not work" };
    },
  });
  const args = [
    "exec",
    "logs",
    "--on",
    "cellar",
    "--timeout",
    "5s",
    "--socket",
    agent.socket,
    "--",
    "lines=10",
    "filter=a=b",
  ];
  const { code, stdout, stderr } = await run(args, { onOutput: (text) => seen.push([text, performance.now()]) });
  assert.equal(code, 1);
  assert.equal(stdout, "one\ntwo�[2J\n");
  assert.match(stderr, /It did not work/);
  assert.ok(seen[1]![1] - seen[0]![1] > 150, "the first line came before the command ended");
  assert.deepEqual(asked[0], {
    verb: "logs",
    args: { lines: "10", filter: "a=b" },
    node: fixtureNodeId("cellar"),
    timeoutMs: 5_000,
  });
  const json = (await run(["exec", "logs", "--json", "--on", "cellar", "--socket", agent.socket])).stdout.trim().split(
    "\n",
  );
  assert.deepEqual(json.map((line) => JSON.parse(line).type), ["output", "output", "end"]);
});

Deno.test("exec: unknown commands, nodes and arguments are refused here, a missing operator key by the agent", async () => {
  using folder = temporaryFolder();
  const refusal = {
    type: "error",
    code: "not-authorised",
    message: "No operator key",
    cure: "Run it where the key is",
  } as const;
  await using agent = new AgentSocket(folder.path, {
    status: troubledStatus(),
    exec: async function* () {
      yield refusal;
    },
  });
  const exec = (...words: string[]) => run(["exec", "--socket", agent.socket, ...words]);
  assert.match((await exec("statsu", "--on", "cellar")).stderr, /did you mean status\?/);
  assert.equal((await exec("status", "--on", "nobody")).code, 2);
  assert.equal((await exec("status", "--on", "cellar", "--", "novalue")).code, 2);
  assert.equal((await exec("status")).code, 2);
  const denied = await exec("status", "--on", "cellar");
  assert.equal(denied.code, 4);
  assert.match(denied.stderr, /No operator key\n {2}Run it where the key is/);
  assert.equal((await exec("leave", "--on", "cellar")).code, 4);
});

Deno.test("exec stops when Ctrl-C comes, and the agent learns of it", async () => {
  using folder = temporaryFolder();
  const stop = new AbortController();
  let aborted: (() => void) | undefined;
  const learned = new Promise<void>((resolve) => aborted = resolve);
  await using agent = new AgentSocket(folder.path, {
    status: troubledStatus(),
    exec: async function* (_request, signal) {
      signal.addEventListener("abort", () => aborted?.());
      yield { type: "output", text: "begun" };
      await learned;
    },
  });
  const { code } = await run(["exec", "ping", "--on", "cellar", "--socket", agent.socket], {
    signal: stop.signal,
    onOutput: () => stop.abort(),
  });
  assert.equal(code, 130);
  await learned;
});

Deno.test("genesis export and recover ask, and hand over whole paths", async () => {
  using folder = temporaryFolder();
  await using agent = new AgentSocket(folder.path, { status: singleNodeStatus() });
  const genesis = (...words: string[]) => run(["genesis", ...words, "--socket", agent.socket], { cwd: folder.path });
  assert.equal((await genesis("export", "key")).code, 4);
  assert.equal((await genesis("recover", "--key", "key")).code, 4);
  assert.deepEqual(agent.requests, []);
  const path = join(folder.path, "key");
  assert.ok((await genesis("export", "key", "--dry-run")).stdout.includes(path));
  assert.equal((await genesis("export", "key", "--yes")).code, 0);
  assert.equal(
    (await genesis("recover", "--without", "attic", "--without", "cellar", "--key", "key", "--yes")).code,
    0,
  );
  assert.deepEqual(agent.requests, [
    { verb: "genesis-export", path, dryRun: true },
    { verb: "genesis-export", path },
    { verb: "authority-recover", without: ["attic", "cellar"], keyFile: path },
  ]);
});

Deno.test("bootstrap retry and force-endpoint", async () => {
  using folder = temporaryFolder();
  await using agent = new AgentSocket(folder.path, { status: joining("isolated") });
  const address = "/ip4/192.0.2.7/udp/4871/quic-v1";
  assert.equal((await run(["bootstrap", "retry", "--socket", agent.socket])).code, 0);
  assert.equal((await run(["bootstrap", "force-endpoint", address, "--socket", agent.socket])).code, 0);
  assert.deepEqual(agent.requests, [{ verb: "bootstrap-retry" }, { verb: "bootstrap-force-endpoint", address }]);
  const wrong = await run(["bootstrap", "force-endpoint", "192.0.2.7:4871", "--socket", agent.socket]);
  assert.equal(wrong.code, 2);
  assert.match(wrong.stderr, /multiaddr/);
});

Deno.test("join gives the invite to the agent and follows it until it is a member", async () => {
  using folder = temporaryFolder();
  const base = singleNodeStatus();
  await using agent = new AgentSocket(folder.path, {
    status: joining("idle"),
    control: () => {
      agent.status = joining("contacting");
      setTimeout(() => {
        const { stage: _, timeline: __, ...rest } = base.bootstrap;
        const timeline = (["contacting", "registering", "verified"] as const).map((stage, i) => ({
          stage,
          atMs: FIXTURE_NOW_MS + 1 + i,
        }));
        agent.status = { ...base, bootstrap: { ...rest, stage: "verified", timeline } };
      }, 600);
      return { ok: true, result: { networkId: "ab" } };
    },
  });
  const { code, stdout, stderr } = await run(["join", "-", "--socket", agent.socket], { stdin: `${INVITE}\n` });
  assert.equal(code, 0);
  assert.deepEqual(agent.requests, [{ verb: "join", invite: INVITE }]);
  assert.match(stdout, /^Network +home, [0-9a-f]{64}\nJoined +as sclerotium, with 1 member/);
  assert.match(stderr, /Calling nodes.*Registering.*Member of the network/s);
  assert.doesNotMatch(stdout + stderr, /myc1/);
});

Deno.test("join from a terminal copy: the whole line, wrapped, with the command in front", async () => {
  using folder = temporaryFolder();
  const file = join(folder.path, "invite.txt");
  const half = INVITE.length >> 1;
  Deno.writeTextFileSync(file, `  mycelium join ${INVITE.slice(0, half)}\n  ${INVITE.slice(half)}\n`);
  await using agent = new AgentSocket(folder.path, { status: singleNodeStatus() });
  assert.equal((await run(["join", "--invite-file", file, "--detach", "--socket", agent.socket])).code, 0);
  assert.deepEqual(agent.requests, [{ verb: "join", invite: INVITE }]);
});

Deno.test("[1.3b] join ends with the class of a failure that only a person can settle, and its cure", async () => {
  using folder = temporaryFolder();
  const failure = (code: string): Failure => ({
    code,
    stage: "registering",
    tried: "/ip4/192.0.2.7/udp/4871/quic-v1",
    what: "The invite was used as often as it may be",
    cure: "Make a new one",
    atMs: FIXTURE_NOW_MS + 5,
    count: 1,
  });
  await using agent = new AgentSocket(folder.path, {
    status: joining("idle"),
    control: () => {
      agent.status = joining("registering", [failure("invite-used-up")]);
      return { ok: true, result: {} };
    },
  });
  const { code, stderr } = await run(["join", INVITE, "--timeout", "20s", "--socket", agent.socket]);
  assert.equal(code, 4);
  assert.match(stderr, /invite-used-up, tried \/ip4\/192\.0\.2\.7/);
  assert.match(stderr, /Make a new one/);
});

Deno.test("join that waits for approval shows what the operator has to type, and ends with 6 in time", async () => {
  using folder = temporaryFolder();
  await using agent = new AgentSocket(folder.path, { status: joining("awaiting-approval") });
  const { code, stderr } = await run(["join", INVITE, "--timeout", "1s", "--socket", agent.socket]);
  assert.equal(code, 6);
  const nodeId = agent.status.node.nodeId;
  assert.match(stderr, new RegExp(`mycelium node approve ${nodeId.slice(-8)}`));
  assert.ok(stderr.includes(nodeId));
});

Deno.test("join that nobody answers ends with 5 in time; the agent goes on", async () => {
  using folder = temporaryFolder();
  await using agent = new AgentSocket(folder.path, { status: joining("discovering") });
  const { code, stderr } = await run(["join", INVITE, "--timeout", "500ms", "--socket", agent.socket]);
  assert.equal(code, 5);
  assert.match(stderr, /keeps trying/);
  const stop = new AbortController();
  setTimeout(() => stop.abort(), 300);
  assert.equal((await run(["join", INVITE, "--socket", agent.socket], { signal: stop.signal })).code, 130);
});

Deno.test("join refuses invites that cannot be good without asking anybody, and does not repeat them", async () => {
  using folder = temporaryFolder();
  const broken = INVITE.slice(0, -9);
  for (const [invite, code] of [[broken, 2], ["hello", 2], ["", 2], [testInvite(FIXTURE_NOW_MS), 4]] as const) {
    const result = await run(["join", "-", "--state", folder.path], { stdin: invite, nowMs: FIXTURE_NOW_MS });
    assert.equal(result.code, code, invite.slice(0, 10));
    assert.ok(invite === "" || !result.stderr.includes(invite));
  }
  assert.equal((await run(["join", "--state", folder.path])).code, 2);
  assert.equal((await run(["join", INVITE, "--invite-file", "x", "--state", folder.path])).code, 2);
});

Deno.test("The agent's refusals come through with their cure and exit code, as text and as JSON", async () => {
  using folder = temporaryFolder();
  const error = { code: "not-issuer", message: "This node may not admit members", cure: "Ask an issuer" };
  await using agent = new AgentSocket(folder.path, {
    status: singleNodeStatus(),
    control: () => ({ ok: false, error }),
  });
  const text = await run(["invite", "create", "--socket", agent.socket]);
  assert.equal(text.code, 4);
  assert.equal(text.stderr, "Error: This node may not admit members\n  Ask an issuer\n");
  const json = await run(["invite", "create", "--json", "--socket", agent.socket]);
  assert.equal(json.code, 4);
  assert.deepEqual(JSON.parse(json.stdout), { error });
});

Deno.test("[9.1b] config show, validate, schema, try, confirm, revert", async () => {
  using folder = temporaryFolder();
  const file = join(folder.path, "config.yaml");
  Deno.writeTextFileSync(file, "name: pi\nlog: {level: debug}\n");
  const show = await run(["config", "show", "--origin", "--config", file]);
  assert.match(show.stdout, new RegExp(`^name: pi {2}# ${file}:1$`, "m"));
  const json = JSON.parse((await run(["config", "show", "--json", "--config", file])).stdout);
  assert.equal(json.config.log.level, "debug");
  assert.equal(json.origins["log.level"], `${file}:2`);
  assert.equal((await run(["config", "validate", "--config", file])).code, 0);
  assert.equal(JSON.parse((await run(["config", "schema"])).stdout).additionalProperties, false);
  const bad = join(folder.path, "bad.yaml");
  Deno.writeTextFileSync(bad, "prot: 1\n");
  const invalid = await run(["config", "validate", bad, "--json"]);
  assert.equal(invalid.code, 2);
  assert.equal(JSON.parse(invalid.stdout).problems[0].path, "prot");
  await using agent = new AgentSocket(folder.path, { status: singleNodeStatus() });
  assert.equal((await run(["config", "try", bad, "--socket", agent.socket])).code, 2);
  assert.deepEqual(agent.requests, []);
  assert.equal((await run(["config", "try", file, "--confirm-within", "1m", "--socket", agent.socket])).code, 0);
  assert.equal((await run(["config", "confirm", "--socket", agent.socket])).code, 0);
  assert.equal((await run(["config", "revert", "--socket", agent.socket])).code, 0);
  assert.deepEqual(agent.requests, [
    { verb: "config-try", text: "name: pi\nlog: {level: debug}\n", confirmWithinMs: 60_000 },
    { verb: "config-confirm" },
    { verb: "config-revert" },
  ]);
});
