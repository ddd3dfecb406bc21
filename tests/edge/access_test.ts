/** Access to running nodes: sessions, tokens, the second factor, an SSH agent, two nodes of one network. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { toBase64Url, toHex } from "../../src/core/bytes.ts";
import { signBytes } from "../../src/core/crypto.ts";
import { totpCode, totpStep } from "../../src/access/totp.ts";
import { parsePublicKey } from "../../src/cli/operator_key.ts";
import { sessionHeader } from "../../src/cli/session_file.ts";
import { SshAgent } from "../../src/cli/ssh_agent.ts";
import { ask, bind, bindToken, founderPair, login, newPair, NOBODY, prepareLogin, send } from "../testkit/access.ts";
import { run } from "../testkit/cli.ts";
import { settle, warmUp } from "../testkit/p2p.ts";
import { RunningNode } from "../testkit/running_node.ts";

await warmUp();

function folder(): Disposable & { readonly path: string } {
  const path = Deno.makeTempDirSync({ prefix: "access-" });
  return { path, [Symbol.dispose]: () => Deno.removeSync(path, { recursive: true }) };
}

async function founder(path: string): Promise<RunningNode> {
  const node = await RunningNode.start({ stateDir: path, form: "forest" });
  await node.until("verified", ({ bootstrap }) => bootstrap.stage === "verified");
  return node;
}

function audit(node: RunningNode): string {
  return Deno.readTextFileSync(join(node.stateDir, "audit.log"));
}

/** Waits for a time when the step of the codes does not end soon. */
async function steadyStep(): Promise<void> {
  const leftMs = 30_000 - Date.now() % 30_000;
  if (leftMs < 12_000) await new Promise((resolve) => setTimeout(resolve, leftMs + 50));
}

/** Code of a secret in Base32, `steps` from now. */
function codeOf(secret: string, steps = 0): string {
  const bits = [...secret].map((one) => "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".indexOf(one).toString(2).padStart(5, "0"))
    .join("");
  const bytes = Uint8Array.from(bits.match(/.{8}/g)!, (one) => Number.parseInt(one, 2));
  return totpCode(bytes, totpStep(Date.now()) + steps);
}

Deno.test("[2.4a] over HTTP whoever shows nothing reads the status and changes nothing; a session does", async () => {
  using dir = folder();
  await using node = await founder(dir.path);
  assert.equal((await send(node, "tcp", { method: "GET", path: "/status" })).status, 200);
  for (const verb of ["invite-create", "leave", "spore-list", "access-whoami"]) {
    const answer = await ask(node, "tcp", { verb });
    assert.equal(answer.status, 403, verb);
    assert.equal(answer.code, "not-granted", verb);
  }
  const { shows } = await login(node, "tcp", founderPair(node));
  const who = await ask(node, "tcp", { verb: "access-whoami" }, shows);
  assert.deepEqual((who.result as { roles: unknown }).roles, ["admin"]);
  assert.equal((await ask(node, "tcp", { verb: "invite-create" }, shows)).status, 200);
  // What is shown and is nothing is not the local person, not even on the socket.
  for (const header of ["Bearer x", "Bearer mct1.00.00", "Mycelium AAAA", "Mycelium ", "Basic !!", "x", "Bearer"]) {
    for (const way of ["socket", "tcp"] as const) {
      const answer = await ask(node, way, { verb: "access-whoami" }, () => header);
      assert.ok([401, 429].includes(answer.status), `${header} over ${way}: ${answer.status} ${answer.code}`);
    }
  }
  // A web page never: whatever session its reader has.
  const page = await ask(node, "tcp", { verb: "invite-create" }, shows, { origin: "https://evil.example" });
  assert.equal(page.code, "forbidden");
});

Deno.test("[2.4a] a login and a request that were heard on the way are of no use", async () => {
  using dir = folder();
  await using node = await founder(dir.path);
  const pair = founderPair(node);
  const prepared = await prepareLogin(node, "tcp", pair);
  const first = await ask(node, "tcp", prepared.request);
  assert.equal(first.code, "ok");
  assert.equal((await ask(node, "tcp", prepared.request)).code, "login-replayed");
  const session = prepared.session(first.result);
  const body = JSON.stringify({ verb: "invite-create" });
  const heard = sessionHeader(
    session,
    { method: "POST", path: "/control", body: new TextEncoder().encode(body) },
    Date.now(),
  );
  const request = { method: "POST", path: "/control", body };
  assert.equal((await send(node, "tcp", request, () => heard)).code, "ok");
  assert.equal((await send(node, "tcp", request, () => heard)).code, "request-replayed");
  const other = JSON.stringify({ verb: "leave" });
  assert.equal((await send(node, "tcp", { ...request, body: other }, () => heard)).code, "signature-invalid");
  assert.match(audit(node), /"request-replayed"/);
  assert.match(audit(node), /"login-replayed"/);
  // Somebody else's key, and one that has no role: the same answer for both.
  const stranger = newPair();
  const strange = await prepareLogin(node, "tcp", stranger);
  assert.equal((await ask(node, "tcp", strange.request)).code, "signature-invalid");
  const forged = await prepareLogin(node, "tcp", pair);
  const signature = toBase64Url(signBytes(stranger, new Uint8Array(32)));
  assert.equal((await ask(node, "tcp", { ...forged.request, signature })).code, "signature-invalid");
  // After a restart of the node nothing of before counts, not even a challenge.
  const early = await prepareLogin(node, "tcp", pair);
  await node.stop();
  await using again = await RunningNode.start({ stateDir: dir.path });
  await again.until("verified", ({ bootstrap }) => bootstrap.stage === "verified");
  assert.equal((await ask(again, "tcp", early.request)).code, "challenge-foreign");
  const shows = (line: { method: string; path: string; body: Uint8Array }) => sessionHeader(session, line, Date.now());
  assert.equal((await ask(again, "tcp", { verb: "invite-create" }, shows)).code, "session-unknown");
  await settle();
});

Deno.test("[2.4a] [2.4b] a session ends with its key's role, at once", async () => {
  using dir = folder();
  await using node = await founder(dir.path);
  const anna = newPair();
  await bind(node, "anna", "operator", anna);
  const { shows } = await login(node, "tcp", anna);
  assert.equal((await ask(node, "tcp", { verb: "invite-create" }, shows)).code, "ok");
  await node.ask({ verb: "role-unbind", binding: "anna" });
  assert.equal((await ask(node, "tcp", { verb: "invite-create" }, shows)).code, "session-unknown");
  assert.equal((await ask(node, "tcp", (await prepareLogin(node, "tcp", anna)).request)).code, "signature-invalid");
  assert.match(audit(node), /agreed\/binding\/anna deleted/);
});

Deno.test("[2.4a] where a second factor is set up, what is dangerous asks for it, each code once", async () => {
  using dir = folder();
  await using node = await founder(dir.path);
  await steadyStep();
  const { shows } = await login(node, "tcp", founderPair(node));
  const danger = { verb: "node-remove", node: "nobody" };
  assert.equal((await ask(node, "tcp", danger, shows)).code, "not-found", "allowed: none is set up");
  const { secret } = (await ask(node, "tcp", { verb: "factor-enroll" }, shows)).result as { secret: string };
  assert.equal((await ask(node, "tcp", danger, shows)).code, "not-found", "it counts once a code was shown");
  assert.equal(
    (await ask(node, "tcp", { verb: "factor-verify", code: codeOf(secret, 5) }, shows)).code,
    "second-factor-wrong",
  );
  const first = codeOf(secret, -1);
  assert.equal((await ask(node, "tcp", { verb: "factor-verify", code: first }, shows)).code, "ok");
  assert.equal((await ask(node, "tcp", danger, shows)).code, "not-found", "shown a moment ago");
  // A new session has not shown it.
  const { shows: fresh } = await login(node, "tcp", founderPair(node));
  assert.equal((await ask(node, "tcp", danger, fresh)).code, "second-factor");
  assert.equal((await ask(node, "tcp", { verb: "invite-create" }, fresh)).code, "ok", "what is not dangerous");
  assert.equal(
    (await ask(node, "tcp", danger, fresh, { "mycelium-code": first })).code,
    "second-factor-wrong",
    "used before",
  );
  assert.equal((await ask(node, "tcp", danger, fresh, { "mycelium-code": codeOf(secret) })).code, "not-found");
  assert.equal((await ask(node, "tcp", danger, fresh)).code, "not-found", "for some minutes");
  // The local person has none of his own, and is asked for none.
  assert.equal((await ask(node, "socket", danger)).code, "not-found");
  // It is kept over a restart, in a file of mode 0600; and nobody sees the secret again.
  const [name] = [...Deno.readDirSync(join(dir.path, "secret"))].map((one) => one.name).filter((one) =>
    one.startsWith("totp-")
  );
  assert.equal(Deno.statSync(join(dir.path, "secret", name!)).mode! & 0o777, 0o600);
  await node.stop();
  assert.ok(!(audit(node) + node.lines.join("\n")).includes(secret));
  await using again = await RunningNode.start({ stateDir: dir.path });
  await again.until("verified", ({ bootstrap }) => bootstrap.stage === "verified");
  const { shows: later } = await login(again, "tcp", founderPair(again));
  assert.equal((await ask(again, "tcp", danger, later)).code, "second-factor");
  // Guessing is slowed down, and then no code counts, the right one neither.
  const codes: string[] = [];
  for (let i = 0; i < 7; i++) {
    codes.push((await ask(again, "tcp", danger, later, { "mycelium-code": codeOf(secret, 100 + i) })).code);
  }
  assert.deepEqual(codes, [...Array(5).fill("second-factor-wrong"), "throttled", "throttled"]);
  assert.equal((await ask(again, "tcp", danger, later, { "mycelium-code": codeOf(secret, 1) })).code, "throttled");
  assert.match(audit(again), /"locked-out"/);
  await settle();
});

Deno.test("[2.4a] the local person can have a second factor as well: each dangerous request needs a code", async () => {
  using dir = folder();
  await using node = await founder(dir.path);
  await steadyStep();
  const { secret } = await node.ask<{ secret: string }>({ verb: "factor-enroll" });
  await node.ask({ verb: "factor-verify", code: codeOf(secret, -1) });
  const danger = { verb: "node-remove", node: "nobody" };
  assert.equal((await ask(node, "socket", danger)).code, "second-factor");
  assert.equal((await ask(node, "socket", danger, NOBODY, { "mycelium-code": codeOf(secret) })).code, "not-found");
  assert.equal((await ask(node, "socket", danger)).code, "second-factor", "it is of that request alone");
  // The command line takes it from the variable, or from the terminal.
  const state = ["--state", dir.path];
  const refused = await run(["genesis", "export", "/", "--yes", ...state]);
  assert.equal(refused.code, 4);
  assert.match(refused.stderr, /code of the second factor/);
  const asked = await run(["genesis", "export", "/", "--yes", ...state], {
    terminal: true,
    stdin: `${codeOf(secret, 1)}\n`,
  });
  assert.match(asked.stderr, /Code of the second factor: /);
  assert.doesNotMatch(asked.stderr, /needs a code/);
});

Deno.test("[2.4c] a token is of one service, until it runs out or is taken back; guessing is slowed down, and nobody else", async () => {
  using dir = folder();
  await using node = await founder(dir.path);
  const shop = await bindToken(node, "shop-prod", "shop");
  const bank = await bindToken(node, "bank-prod", "bank");
  const put = (key: string, shows = shop.shows) => ask(node, "tcp", { verb: "spore-put", key, value: "aGk" }, shows);
  assert.equal((await put("app/shop/price")).code, "ok");
  assert.equal((await put("app/bank/money")).code, "not-granted");
  assert.equal((await put("app/bank/money", bank.shows)).code, "ok");
  assert.equal((await put("app/shop/price", bank.shows)).code, "not-granted");
  const show = await ask(node, "tcp", { verb: "spore-show", key: "app/bank/money" }, shop.shows);
  assert.equal(show.code, "not-granted", "nor read");
  // The network holds no token, only what it is checked by.
  const held = await send(node, "socket", { method: "GET", path: "/spores" });
  const shown = await node.ask({ verb: "spore-show", key: "agreed/binding/shop-prod" });
  const secret = shop.text.split(".")[2]!;
  assert.ok(!(held.text + JSON.stringify(shown) + audit(node) + node.lines.join("")).includes(secret));
  // Taken back.
  await node.ask({ verb: "role-unbind", binding: "shop-prod" });
  assert.equal((await put("app/shop/price")).code, "token-invalid");
  // Run out.
  const brief = await bindToken(node, "brief", "shop", { ttlMs: 1_000 });
  const endMs = Date.now() + 20_000;
  while ((await put("app/shop/price", brief.shows)).code === "ok") {
    assert.ok(Date.now() < endMs, "it runs out");
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  const codes = new Set<string>();
  for (let i = 0; i < 8; i++) codes.add((await put("app/shop/price", () => `Bearer mct1.${"0".repeat(16)}.x`)).code);
  assert.ok(codes.has("throttled"), [...codes].join());
  assert.equal((await put("app/bank/money", bank.shows)).code, "ok", "who has one does not wait for who guesses");
  assert.equal((await ask(node, "socket", { verb: "access-whoami" })).code, "ok", "not the local person");
  assert.match(audit(node), /"locked-out"/);
});

Deno.test("[2.4b] roles are of the whole network: given on one node, they count on another, and end there as well", async () => {
  using one = folder();
  using two = folder();
  await using alpha = await founder(one.path);
  const { token } = await alpha.ask<{ token: string }>({ verb: "invite-create" });
  await using beta = await RunningNode.start({ stateDir: two.path, name: "beta", invite: token });
  await beta.until("verified", ({ bootstrap }) => bootstrap.stage === "verified");
  const anna = newPair();
  await bind(alpha, "anna", "operator", anna);
  const shop = await bindToken(alpha, "shop-prod", "shop");
  const until = async (what: string, done: () => Promise<boolean>) => {
    const endMs = Date.now() + 60_000;
    while (!await done()) {
      assert.ok(Date.now() < endMs, what);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  };
  await until("beta knows anna", async () => {
    const answer = await beta.ask<{ bindings: readonly { binding: string }[] }>({ verb: "binding-list" });
    return answer.bindings.length === 2;
  });
  const { shows, session } = await login(beta, "tcp", anna);
  assert.equal((await ask(beta, "tcp", { verb: "access-whoami" }, shop.shows)).code, "ok");
  // A session is of one node.
  assert.equal((await ask(alpha, "tcp", { verb: "access-whoami" }, shows)).code, "session-unknown");
  const foreign = await prepareLogin(beta, "tcp", anna);
  assert.equal((await ask(alpha, "tcp", foreign.request)).code, "challenge-foreign");
  assert.equal(session.nodeKey.length, 32);
  // Beta holds no operator's key: it cannot give roles by itself, whoever owns the machine.
  const bare = await ask(beta, "socket", {
    verb: "role-bind",
    binding: "boss",
    role: "admin",
    key: toBase64Url(newPair().publicKey),
  });
  assert.equal(bare.code, "no-operator-key");
  // Nor around the verb: the voters want to see the signature.
  const around = await ask(beta, "socket", {
    verb: "agreement-submit",
    key: "agreed/binding/boss",
    value: "oA",
    timeoutMs: 5_000,
  });
  assert.notEqual(around.code, "ok", around.text);
  // An operator who may not change the policy signs in vain; the founder's key signs from wherever.
  const cli = (args: readonly string[], env: Record<string, string> = {}) =>
    run([...args, "--state", two.path], { env: { MYCELIUM_SESSIONS: two.path, ...env }, cwd: two.path });
  Deno.writeFileSync(join(two.path, "anna.key"), anna.seed, { mode: 0o600 });
  Deno.writeFileSync(join(two.path, "founder.key"), founderPair(alpha).seed, { mode: 0o600 });
  const guest = newPair();
  Deno.writeTextFileSync(join(two.path, "guest.pub"), `${toHex(guest.publicKey)}\n`);
  const vain = await cli(["operator", "add", "guest", "guest.pub", "--role", "viewer", "--key", "anna.key"]);
  assert.equal(vain.code, 4, vain.stderr);
  const good = await cli(["operator", "add", "guest", "guest.pub", "--role", "viewer", "--key", "founder.key"]);
  assert.equal(good.code, 0, good.stderr);
  // So it is with the policy of trust.
  Deno.writeTextFileSync(join(two.path, "policy.yaml"), "min: {relay: 45%}\nvouched: [beta, beta]\n");
  const policy = ["trust", "policy", "set", "policy.yaml", "--yes"];
  const unsigned = await cli(policy);
  assert.equal(unsigned.code, 4, unsigned.stderr);
  const refused = await cli([...policy, "--key", "anna.key"]);
  assert.equal(refused.code, 4, refused.stderr);
  const set = await cli([...policy, "--key", "founder.key"]);
  assert.equal(set.code, 0, set.stderr);
  await until("alpha follows the policy", async () => {
    const { actions, vouched } = await alpha.ask<{
      readonly actions: readonly { readonly action: string; readonly minPpm: number }[];
      readonly vouched: readonly string[];
    }>({ verb: "trust-policy-show" });
    return actions.find((one) => one.action === "relay")!.minPpm === 450_000 && vouched.join() === beta.nodeId;
  });
  const gone = await cli(["operator", "remove", "anna", "--yes", "--key", "founder.key"]);
  assert.equal(gone.code, 0, gone.stderr);
  await until(
    "anna's session ends on beta",
    async () => (await ask(beta, "tcp", { verb: "access-whoami" }, shows)).code !== "ok",
  );
  await until("alpha knows of it", async () => {
    const { bindings } = await alpha.ask<{ bindings: readonly { binding: string }[] }>({ verb: "binding-list" });
    return bindings.map((one) => one.binding).join() === "guest,shop-prod";
  });
  // Who is alone after a restart knows the policy from its own disk.
  await alpha.stop();
  await beta.stop();
  await using again = await RunningNode.start({ stateDir: two.path, name: "beta" });
  const { shows: later } = await login(again, "tcp", guest);
  assert.deepEqual((await ask(again, "tcp", { verb: "access-whoami" }, later)).result, {
    ...(await ask(again, "tcp", { verb: "access-whoami" }, later)).result as object,
    name: "guest",
    roles: ["viewer"],
  });
  assert.equal((await ask(again, "tcp", { verb: "access-whoami" }, shop.shows)).code, "ok");
  assert.equal((await ask(again, "tcp", (await prepareLogin(again, "tcp", anna)).request)).code, "signature-invalid");
});

Deno.test("[2.4a] the command line logs in with a key file, is who it says, and logs out", async () => {
  using dir = folder();
  await using node = await founder(dir.path);
  const cli = (args: readonly string[], options: Parameters<typeof run>[1] = {}) =>
    run(args, {
      ...options,
      cwd: dir.path,
      env: { MYCELIUM_SESSIONS: join(dir.path, "sessions"), MYCELIUM_STATE: dir.path, ...options.env },
    });
  const made = await cli(["operator", "keygen", "--out", "anna.key", "--name", "anna"]);
  assert.equal(made.code, 0, made.stderr);
  assert.equal(Deno.statSync(join(dir.path, "anna.key")).mode! & 0o777, 0o600);
  const again = await cli(["operator", "keygen", "--out", "anna.key"]);
  assert.equal(again.code, 2, "a key is never written over");
  assert.equal((await cli(["operator", "add", "anna", "anna.key.pub", "--role", "viewer"])).code, 0);
  assert.equal((await cli(["login", "--key", "anna.key", "--json"])).code, 0);
  const who = JSON.parse((await cli(["whoami", "--json"])).stdout);
  assert.deepEqual([who.name, who.roles, who.kind], ["anna", ["viewer"], "operator"]);
  const denied = await cli(["spore", "put", "app/x", "hello"]);
  assert.equal(denied.code, 4);
  assert.match(denied.stderr, /not allowed to anna, who has viewer/);
  // Its session is in a file that only its owner reads, and ends with it.
  const [file] = [...Deno.readDirSync(join(dir.path, "sessions"))];
  assert.equal(Deno.statSync(join(dir.path, "sessions", file!.name)).mode! & 0o777, 0o600);
  assert.equal((await cli(["logout"])).code, 0);
  assert.equal([...Deno.readDirSync(join(dir.path, "sessions"))].length, 0);
  assert.equal((await cli(["spore", "put", "app/x", "hello"])).code, 0, "the local person again");
  // By the address of another machine there is no local person.
  const url = ["--url", node.statusUrl];
  assert.equal((await cli([...url, "invite", "create"])).code, 4);
  assert.equal((await cli([...url, "login", "--key", "secret/operator.key"])).code, 0);
  assert.equal((await cli([...url, "invite", "create"])).code, 0);
  assert.equal((await cli([...url, "logs"])).code, 0);
  const executed = await cli([...url, "exec", "ping", "--on", node.nodeId]);
  assert.equal(executed.code, 0, executed.stderr);
  assert.match(executed.stdout, /pong/);
  // A key that others can read is none.
  Deno.chmodSync(join(dir.path, "anna.key"), 0o644);
  const open = await cli(["login", "--key", "anna.key"]);
  assert.equal(open.code, 2);
  assert.match(open.stderr, /mode is 644.*chmod 600/s);
});

Deno.test("[2.4c] the command line of a program: a token in a file, made and taken back by name", async () => {
  using dir = folder();
  await using node = await founder(dir.path);
  assert.ok(node.nodeId);
  const cli = (args: readonly string[], env: Record<string, string> = {}) =>
    run(args, {
      cwd: dir.path,
      env: { MYCELIUM_SESSIONS: join(dir.path, "sessions"), MYCELIUM_STATE: dir.path, ...env },
    });
  assert.equal((await cli(["token", "create", "shop-prod", "--service", "shop", "--out", "shop.token"])).code, 0);
  const path = join(dir.path, "shop.token");
  assert.equal(Deno.statSync(path).mode! & 0o777, 0o600);
  const as = { MYCELIUM_TOKEN_FILE: path };
  assert.equal((await cli(["spore", "put", "app/shop/x", "hello"], as)).code, 0);
  assert.equal((await cli(["spore", "put", "app/bank/x", "hello"], as)).code, 4);
  assert.equal((await cli(["token", "revoke", "nosuch"])).code, 2);
  assert.equal((await cli(["token", "revoke", "shop-prod"])).code, 0);
  assert.equal((await cli(["spore", "put", "app/shop/x", "hello"], as)).code, 4);
});

const hasSshAgent = await new Deno.Command("ssh-agent", { args: ["-h"], stdout: "null", stderr: "null" }).output()
  .then(() => true, () => false);
if (!hasSshAgent) console.error("SKIPPED: no ssh-agent on this machine (package openssh-client)");

Deno.test({
  name: "[2.4a] an operator key that lies in an SSH agent logs in and signs changes of the policy",
  ignore: !hasSshAgent, // Said above.
  fn: async () => {
    using dir = folder();
    await using node = await founder(dir.path);
    const socket = join(dir.path, "ssh.sock");
    await using agent = new Deno.Command("ssh-agent", { args: ["-D", "-a", socket], stdout: "null", stderr: "null" })
      .spawn();
    const endMs = Date.now() + 20_000;
    while (![...Deno.readDirSync(dir.path)].some((one) => one.name === "ssh.sock")) {
      assert.ok(Date.now() < endMs, "the SSH agent listens");
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    const tool = async (command: string, args: readonly string[]) => {
      const { success, stderr } = await new Deno.Command(command, {
        args: [...args],
        env: { SSH_AUTH_SOCK: socket },
        stdin: "null",
      }).output();
      assert.ok(success, new TextDecoder().decode(stderr));
    };
    for (const name of ["anna", "other"]) {
      const file = join(dir.path, name);
      await tool("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", name, "-f", file]);
      await tool("ssh-add", ["-q", file]);
      Deno.removeSync(file);
    }
    await tool("ssh-keygen", ["-q", "-t", "ecdsa", "-N", "", "-C", "another kind", "-f", join(dir.path, "ecdsa")]);
    await tool("ssh-add", ["-q", join(dir.path, "ecdsa")]);
    const keys = await new SshAgent(socket).keys();
    assert.deepEqual(keys.map((one) => one.comment).sort(), ["anna", "other"], "Ed25519 only");
    const anna = parsePublicKey(Deno.readTextFileSync(join(dir.path, "anna.pub")));
    assert.deepEqual(keys.find((one) => one.comment === "anna")!.publicKey, anna);
    const env = { MYCELIUM_SESSIONS: join(dir.path, "sessions"), MYCELIUM_STATE: dir.path, SSH_AUTH_SOCK: socket };
    const cli = (...args: string[]) => run(args, { cwd: dir.path, env });
    assert.equal((await cli("operator", "add", "anna", "anna.pub", "--role", "admin")).code, 0);
    const many = await cli("login", "--ssh-agent");
    assert.equal(many.code, 2);
    assert.match(many.stderr, /2 Ed25519 keys that fit: /);
    for (const which of ["anna", "anna.pub"]) {
      const done = await cli("login", "--ssh-agent", which);
      assert.equal(done.code, 0, done.stderr);
      assert.equal(JSON.parse((await cli("whoami", "--json")).stdout).name, "anna");
    }
    const signed = await cli("role", "create", "reader-of-x", "spore.read:app/x/*", "--ssh-agent", "anna");
    assert.equal(signed.code, 0, signed.stderr);
    const unknown = await cli("login", "--ssh-agent", "other");
    assert.equal(unknown.code, 4, "a key without a role");
    agent.kill("SIGTERM");
    await agent.status;
    const silent = await cli("login", "--ssh-agent", "anna");
    assert.equal(silent.code, 1);
    assert.match(silent.stderr, /Cannot use the SSH agent/);
    assert.ok(audit(node).includes("agreed/role/reader-of-x set"));
  },
});
