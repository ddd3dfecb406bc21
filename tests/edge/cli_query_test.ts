/** Commands that look: over a real unix socket, against the product's own control app. */

import assert from "node:assert/strict";
import { join } from "node:path";
import type { Status } from "../../src/agent/status.ts";
import { AgentSocket, run, temporaryFolder } from "../testkit/cli.ts";
import { FIXTURE_NOW_MS, fixtureNodeId, singleNodeStatus, troubledStatus } from "../testkit/status_fixture.ts";

// deno-lint-ignore no-control-regex -- what is looked for
const ESCAPE = /\u001b\[/;

Deno.test("No agent: exit code 3, the paths that were tried, and what to do", async () => {
  using folder = temporaryFolder();
  const { code, stdout, stderr } = await run(["status"], { cwd: folder.path, env: { HOME: folder.path } });
  assert.equal(code, 3);
  assert.equal(stdout, "");
  assert.match(stderr, new RegExp(`${folder.path}/mycelium-data/agent\\.sock: not there`));
  assert.match(stderr, /\.local\/share\/mycelium\/agent\.sock: not there/);
  assert.match(stderr, /mycelium up/);
  const json = await run(["status", "--json", "--state", folder.path]);
  assert.equal(json.code, 3);
  assert.equal(JSON.parse(json.stdout).error.code, "no-agent");
});

Deno.test("A socket that an agent left behind is told apart from none", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "agent.sock");
  const script = `Deno.listen({ transport: "unix", path: ${
    JSON.stringify(path)
  } }); console.log(1); setInterval(() => {}, 1e6)`;
  await using child = new Deno.Command(Deno.execPath(), { args: ["eval", script], stdin: "null", stdout: "piped" })
    .spawn();
  const reader = child.stdout.getReader();
  assert.ok((await reader.read()).value);
  child.kill("SIGKILL");
  await child.status;
  await reader.cancel();
  const { code, stderr } = await run(["peers", "--socket", path]);
  assert.equal(code, 3);
  assert.match(stderr, /left behind, nobody listens/);
});

Deno.test("A state folder whose socket path Linux cannot take is refused with the reason", async () => {
  const { code, stderr } = await run(["status", "--state", "/tmp/" + "x".repeat(120)]);
  assert.equal(code, 2);
  assert.match(stderr, /longer than the 107 bytes/);
});

Deno.test("status: a person reads it, --json is the document of /status, --quiet says nothing", async () => {
  using folder = temporaryFolder();
  const status = troubledStatus();
  await using agent = new AgentSocket(folder.path, { status });
  const { code, stdout, stderr } = await run(["status", "--socket", agent.socket]);
  assert.equal(code, 0);
  assert.equal(stderr, "");
  for (const word of ["attic", "home", "barn-north", "dead", "suspect", "epoch 4", "Waiting for an operator"]) {
    assert.ok(stdout.includes(word), word);
  }
  assert.doesNotMatch(stdout, ESCAPE);
  const json = await run(["status", "--json", "--state", folder.path]);
  const document = JSON.parse(json.stdout) as Status;
  assert.equal(document.schema, 1);
  assert.deepEqual(document.members, status.members);
  assert.equal((await run(["status", "--quiet", "--state", folder.path])).stdout, "");
});

Deno.test("Colours: on a terminal, and not with NO_COLOR, --no-color, TERM=dumb or --json", async () => {
  using folder = temporaryFolder();
  await using agent = new AgentSocket(folder.path, { status: troubledStatus() });
  const base = ["status", "--socket", agent.socket];
  assert.match((await run(base, { terminal: true })).stdout, ESCAPE);
  assert.doesNotMatch((await run(base)).stdout, ESCAPE);
  assert.doesNotMatch((await run([...base, "--no-color"], { terminal: true })).stdout, ESCAPE);
  assert.doesNotMatch((await run([...base, "--json"], { terminal: true })).stdout, ESCAPE);
  for (const env of [{ NO_COLOR: "1" }, { TERM: "dumb" }]) {
    assert.doesNotMatch((await run(base, { terminal: true, env })).stdout, ESCAPE);
  }
});

Deno.test("status --exit-code ends with 6 where the node is not ready", async () => {
  using folder = temporaryFolder();
  const base = singleNodeStatus();
  await using agent = new AgentSocket(folder.path, { status: base });
  const args = ["status", "--exit-code", "--quiet", "--socket", agent.socket];
  assert.equal((await run(args)).code, 0);
  agent.status = { ...base, nowMs: base.nowMs + 1, health: { ...base.health, ready: false, reasons: ["no issuer"] } };
  await new Promise((resolve) => setTimeout(resolve, 300)); // The app renders a status four times a second at most.
  assert.equal((await run(args)).code, 6);
});

Deno.test("status --watch shows each change until Ctrl-C, as lines where stdout is no terminal", async () => {
  using folder = temporaryFolder();
  const base = singleNodeStatus();
  await using agent = new AgentSocket(folder.path, { status: base });
  const stop = new AbortController();
  let seen = "";
  const change = setInterval(() => {
    const { nowMs, bootstrap } = agent.status;
    agent.status = { ...agent.status, nowMs: nowMs + 1_000, bootstrap: { ...bootstrap, stage: "isolated" } };
  }, 100);
  try {
    const { code, stdout } = await run(["status", "--watch", "--socket", agent.socket], {
      signal: stop.signal,
      onOutput: (text) => {
        seen += text;
        if (seen.includes(" isolated ")) stop.abort();
      },
    });
    assert.equal(code, 0);
    assert.match(stdout, /^\S+Z verified ready members=1 alive=1\n/);
    assert.match(stdout, / isolated ready members=1/);
  } finally {
    clearInterval(change);
  }
});

Deno.test("status --watch on a terminal draws in place, and no more lines than there are rows", async () => {
  using folder = temporaryFolder();
  await using agent = new AgentSocket(folder.path, { status: troubledStatus() });
  const stop = new AbortController();
  const drawn: string[] = [];
  await run(["status", "--watch", "--socket", agent.socket], {
    terminal: true,
    signal: stop.signal,
    onOutput: (text) => drawn.push(text) >= 2 && stop.abort(),
  });
  assert.ok(drawn[0]!.startsWith("\u001b[2J\u001b[H"));
  assert.ok(drawn[1]!.startsWith("\u001b[H"));
  for (const text of drawn) {
    assert.ok(text.endsWith("\u001b[J"));
    assert.ok(text.split("\n").length <= 24);
  }
});

Deno.test("doctor looks at the folder of the agent that answered, wherever it was found", async () => {
  using folder = temporaryFolder();
  const state = join(folder.path, "mycelium-data");
  Deno.mkdirSync(state, { mode: 0o755 });
  const options = { cwd: folder.path, env: { HOME: folder.path }, nowMs: FIXTURE_NOW_MS };
  assert.match((await run(["doctor"], options)).stdout, new RegExp(`state-permissions\\]\\n +tried: ${state}`));
  await using _agent = new AgentSocket(state, { status: singleNodeStatus() });
  const { code, stdout } = await run(["doctor"], options);
  assert.equal(code, 0);
  assert.match(stdout, new RegExp(`state-permissions\\]\\n +tried: ${state}`));
});

Deno.test("status --watch --json prints one document a line", async () => {
  using folder = temporaryFolder();
  await using agent = new AgentSocket(folder.path, { status: singleNodeStatus() });
  const stop = new AbortController();
  let lines = 0;
  const { stdout } = await run(["status", "--watch", "--json", "--socket", agent.socket], {
    signal: stop.signal,
    onOutput: () => ++lines >= 2 && stop.abort(),
  });
  for (const line of stdout.trim().split("\n")) assert.equal(JSON.parse(line).schema, 1);
});

Deno.test("status --watch ends with 3 when the agent goes away", async () => {
  using folder = temporaryFolder();
  const agent = new AgentSocket(folder.path, { status: singleNodeStatus() });
  let ended: Promise<void> | undefined;
  const { code } = await run(["status", "--watch", "--socket", agent.socket], {
    onOutput: () => void (ended ??= agent[Symbol.asyncDispose]()),
  });
  await ended;
  assert.equal(code, 3);
});

Deno.test("peers: a table, JSON, or ids only; it fits a narrow terminal", async () => {
  using folder = temporaryFolder();
  const status = troubledStatus();
  await using agent = new AgentSocket(folder.path, { status });
  const { stdout } = await run(["peers", "--socket", agent.socket]);
  const lines = stdout.trimEnd().split("\n");
  assert.equal(lines.length, status.members.length + 1);
  assert.match(lines[0]!, /^NAME +NODE +STATE +SEEN +RTT +VIA +ADDRESS$/);
  assert.deepEqual(JSON.parse((await run(["peers", "--json", "--socket", agent.socket])).stdout), status.members);
  const quiet = (await run(["peers", "--quiet", "--socket", agent.socket])).stdout;
  assert.deepEqual(quiet.trim().split("\n"), status.members.map((one) => one.nodeId));
  const narrow = (await run(["peers", "--no-color", "--socket", agent.socket], { terminal: true, columns: 60 })).stdout;
  for (const line of narrow.trimEnd().split("\n")) assert.ok(line.length <= 60, line);
});

Deno.test("A node whose name steers terminals is shown harmless", async () => {
  using folder = temporaryFolder();
  const base = singleNodeStatus();
  const hostile = base.members.map((one) => ({ ...one, name: "x\u001b[2J\u0007\ny" }));
  await using agent = new AgentSocket(folder.path, { status: { ...base, members: hostile } });
  for (const command of [["status"], ["peers"], ["node", "list"]]) {
    const { stdout } = await run([...command, "--socket", agent.socket]);
    // deno-lint-ignore no-control-regex -- these are what must not be there
    assert.doesNotMatch(stdout, /[\u0000-\u0009\u000b-\u001f]/);
  }
});

Deno.test("node list shows members and machines that wait; --json has both", async () => {
  using folder = temporaryFolder();
  const status = troubledStatus();
  await using agent = new AgentSocket(folder.path, { status });
  const { stdout, stderr } = await run(["node", "list", "--socket", agent.socket]);
  assert.match(stdout, /porch-camera.*waiting/);
  assert.match(stderr, /node approve/);
  const json = JSON.parse((await run(["node", "ls", "--json", "--socket", agent.socket])).stdout);
  assert.deepEqual(json, { members: status.members, pending: status.pending });
});

Deno.test("[1.3b] doctor: findings with cause, what was tried and cure; 6 where an error is among them", async () => {
  using folder = temporaryFolder();
  const base = singleNodeStatus();
  const { network: _, ...rest } = base;
  const failure = {
    code: "invite-expired",
    stage: "registering" as const,
    tried: "/ip4/10.0.0.1/udp/4871/quic-v1",
    what: "The invite has run out",
    cure: "Make a new one",
    atMs: FIXTURE_NOW_MS - 1_000,
    count: 2,
  };
  await using _agent = new AgentSocket(folder.path, {
    status: { ...rest, bootstrap: { ...base.bootstrap, stage: "registering", failures: [failure] } },
  });
  Deno.chmodSync(folder.path, 0o755);
  const options = {
    nowMs: FIXTURE_NOW_MS,
    env: { MYCELIUM_LOG_LVL: "x", MYCELIUM_CONFIG: join(folder.path, "c.yaml") },
  };
  Deno.writeTextFileSync(join(folder.path, "c.yaml"), "name: test\n");
  const { code, stdout } = await run(["doctor", "--state", folder.path], options);
  assert.equal(code, 6);
  assert.match(
    stdout,
    /^error +The invite has run out {2}\[invite-expired\]\n +tried: \/ip4\/10\.0\.0\.1.*2 times.*\n +cure: +Make a new one/m,
  );
  assert.match(stdout, /\[state-permissions\]\n.*\n +cure: +chmod 700/);
  assert.match(stdout, /MYCELIUM_LOG_LEVEL\?/);
  assert.ok(stdout.indexOf("[invite-expired]") < stdout.indexOf("[state-permissions]"));
  const json = JSON.parse((await run(["doctor", "--json", "--state", folder.path], options)).stdout);
  assert.equal(json.findings[0].code, "invite-expired");
  assert.ok(json.checked.length >= 3);
});

Deno.test("doctor without an agent checks the machine and says what the state folder knows; exit code 3", async () => {
  using folder = temporaryFolder();
  Deno.chmodSync(folder.path, 0o700);
  const taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = taken.addr as Deno.NetAddr;
  try {
    const config = join(folder.path, "c.yaml");
    Deno.writeTextFileSync(config, `listen: ["/ip4/127.0.0.1/tcp/${port}"]\nhttp: {listen: "127.0.0.1:0"}\n`);
    const { code, stdout } = await run(["doctor", "--state", folder.path, "--config", config], {
      nowMs: FIXTURE_NOW_MS,
      readState: () =>
        Promise.resolve({
          nodeId: fixtureNodeId("attic"),
          networkId: "ab".repeat(32),
          networkName: "home",
          stage: "verified",
          credentialExpiresMs: FIXTURE_NOW_MS - 3_600_000,
        }),
    });
    assert.equal(code, 3);
    assert.match(stdout, new RegExp(`Another program uses /ip4/127\\.0\\.0\\.1/tcp/${port} .*\\[port-taken\\]`));
    assert.match(stdout, /\[no-agent\]/);
    assert.match(
      stdout,
      /last state: node 12D3\w+, network home abababababab, stage verified, credential ran out 1h ago/,
    );
    assert.doesNotMatch(stdout, /state-permissions/);
  } finally {
    taken.close();
  }
});

Deno.test("doctor names what is wrong with the configuration instead of failing on it", async () => {
  using folder = temporaryFolder();
  const config = join(folder.path, "c.yaml");
  Deno.writeTextFileSync(config, "prot: 1\n");
  const { stdout } = await run(["doctor", "--state", folder.path, "--config", config]);
  assert.match(stdout, /perhaps port.*\[config-invalid\]/);
});

Deno.test("logs prints time, level, message and the rest; --json as it is", async () => {
  using folder = temporaryFolder();
  const logs = [{
    ts: "2026-11-23T04:00:00Z",
    level: "warn",
    component: "p2p",
    event: "dial",
    msg: "No answer",
    peer: "a b",
  }, {
    odd: 1,
  }];
  await using agent = new AgentSocket(folder.path, { status: singleNodeStatus(), logs });
  const { stdout } = await run(["logs", "--socket", agent.socket]);
  assert.match(stdout, /^2026-11-23T04:00:00Z warn +p2p: No answer peer="a b"\n/);
  const json = (await run(["logs", "--json", "-n", "1", "--socket", agent.socket])).stdout;
  assert.deepEqual(JSON.parse(json), { odd: 1 });
  assert.equal((await run(["logs", "-n", "0", "--socket", agent.socket])).code, 2);
});

Deno.test("version: this program's, and a warning when the agent's is another", async () => {
  using folder = temporaryFolder();
  const base = singleNodeStatus();
  const version = { ...base.version, version: "0.2.0" };
  await using agent = new AgentSocket(folder.path, { status: { ...base, version } });
  const { code, stdout, stderr } = await run(["version", "--socket", agent.socket]);
  assert.equal(code, 0);
  assert.match(stdout, /^mycelium 0\.1\.0 \(0123abc, 2026-11-20T00:00:00Z, deno 2\.9\.6\)\nagent +0\.2\.0/);
  assert.match(stderr, /another version/);
  const alone = await run(["version", "--json", "--socket", join(folder.path, "none.sock")]);
  assert.deepEqual(JSON.parse(alone.stdout), {
    version: "0.1.0",
    commit: "0123abc",
    builtAt: "2026-11-20T00:00:00Z",
    runtime: "deno 2.9.6",
  });
});

Deno.test("An agent that answers nonsense gives an error, not a crash", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "agent.sock");
  const answers = [
    () => new Response("not json"),
    () => Response.json({ schema: 2 }),
    () => Response.json({ schema: 1 }),
    () => Response.json([1]),
    () => new Response("oops", { status: 500 }),
    () => new Response(null, { status: 204 }),
  ];
  let next = 0;
  const server = Deno.serve({ path, onListen: () => {} }, () => answers[next]!());
  try {
    for (; next < answers.length; next++) {
      const { code, stderr, stdout } = await run(["status", "--socket", path]);
      assert.equal(code, 1, String(next));
      assert.match(stderr, /^Error: /);
      assert.equal(stdout, "");
    }
  } finally {
    await server.shutdown();
  }
});
