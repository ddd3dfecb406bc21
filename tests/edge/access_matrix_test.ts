/**
 * Every verb, command, path and method × every role × every entrance, against what is written here by hand.
 *
 * The rows below say who may, independently of the table in `src/agent/access_table.ts` and of the built-in roles; that
 * there is a row for everything in that table is checked as well.
 */

import assert from "node:assert/strict";
import { toBase64Url } from "../../src/core/bytes.ts";
import { encodeCbor } from "../../src/core/codec.ts";
import { hashParts, keyPairFromSeed, signBytes } from "../../src/core/crypto.ts";
import { utf8 } from "../../src/core/bytes.ts";
import { LIMITS } from "../../src/core/limits.ts";
import { seededRng } from "../../src/core/rng.ts";
import { encodeBinding } from "../../src/access/bindings.ts";
import { encodeChange, policyChange, TRUST_POLICY_KEY } from "../../src/access/change.ts";
import type { Need, Subject } from "../../src/access/decide.ts";
import { parseGrant } from "../../src/access/permission.ts";
import { BINDING_PREFIX, ROLE_PREFIX } from "../../src/access/policy.ts";
import { encodeRole } from "../../src/access/roles.ts";
import { loginMessage } from "../../src/access/sessions.ts";
import { Agent } from "../../src/agent/agent.ts";
import { ANYONE, LOCAL, READER, SELF } from "../../src/agent/access.ts";
import {
  CONTROL_NEEDS,
  controlNeed,
  EDGE_NEEDS,
  type Method,
  METHOD_NEEDS,
  ROUTE_NEEDS,
} from "../../src/agent/access_table.ts";
import { COMMAND_VERBS, commandBody, type CommandVerb, sealCommand } from "../../src/agent/commands.ts";
import { type ControlRequest, readControlRequest } from "../../src/agent/control.ts";
import type { AgentEffect } from "../../src/agent/effects.ts";
import { nodeIdOf } from "../../src/core/ids.ts";
import { ask, bind, bindToken, login, newPair, NOBODY, send, type Shows } from "../testkit/access.ts";
import { SERVER } from "../agent/attack_kit.ts";
import { RunningNode } from "../testkit/running_node.ts";
import { settle, warmUp } from "../testkit/p2p.ts";

/**
 * Who asks. `n`: nobody, without anything. `t`: a token of service shop. `v`, `o`, `a`: viewer, operator, admin. `c`: a role
 * of the network's own, that may status.read and primary.dump. Who may use the socket and shows nothing may everything.
 */
const COLUMNS = ["n", "t", "v", "c", "o", "a"] as const;
type Column = typeof COLUMNS[number];

const B32 = toBase64Url(new Uint8Array(32));
const B64 = toBase64Url(new Uint8Array(64));

interface Row {
  readonly verb: string;
  /** Fields with which it does no harm to the node of the test, or is refused for another reason. */
  readonly fields: { readonly [field: string]: unknown };
  /** Letters of {@linkcode COLUMNS} of those who may. */
  readonly who: string;
  /** It would: asked by who may in a node of its own only. */
  readonly harmful?: boolean;
}

const row = (verb: string, fields: Row["fields"], who: string): Row => ({ verb, fields, who });
const harmful = (verb: string, fields: Row["fields"], who: string): Row => ({ verb, fields, who, harmful: true });

const VERBS: readonly Row[] = [
  row("init", { name: "x" }, "a"),
  row("join", { invite: "myc1x" }, "a"),
  row("invite-create", {}, "oa"),
  row("invite-revoke", { id: "00" }, "oa"),
  row("node-approve", { node: "nobody" }, "oa"),
  row("node-deny", { node: "nobody" }, "oa"),
  row("node-remove", { node: "nobody" }, "a"),
  row("node-remove", { node: "nobody", dryRun: true }, "a"),
  row("bootstrap-retry", {}, "oa"),
  harmful("bootstrap-reset", {}, "a"),
  row("bootstrap-reset", { dryRun: true }, "a"),
  row("bootstrap-force-endpoint", { address: "/ip4/127.0.0.1/tcp/1" }, "oa"),
  row("genesis-export", { path: "/" }, "a"),
  row("authority-recover", { without: ["nobody"] }, "a"),
  row("assign", { node: "nobody", id: "x", service: "shop", action: "run" }, "oa"),
  row("sign-command", { node: "nobody", command: "ping", args: {}, ttlMs: 60_000 }, "oa"),
  row("sign-command", { node: "nobody", command: "leave", args: {}, ttlMs: 60_000 }, "a"),
  row("sign-command", { node: "nobody", command: "nonsense", args: {}, ttlMs: 60_000 }, "a"),
  row("set-mode", { mode: "normal" }, "oa"),
  harmful("set-mode", { mode: "isolated" }, "a"),
  harmful("set-mode", { mode: "safe" }, "a"),
  harmful("leave", {}, "a"),
  row("spore-list", {}, "voa"),
  row("spore-list", { prefix: "app/shop/" }, "tvoa"),
  row("spore-list", { prefix: "app/shop" }, "voa"),
  row("spore-list", { prefix: "app/bank/" }, "voa"),
  row("spore-show", { key: "app/shop/x" }, "tvoa"),
  row("spore-show", { key: "app/bank/x" }, "voa"),
  row("agreed-show", { key: "agreed/trust" }, "voa"),
  row("spore-put", { key: "app/shop/x", value: "" }, "toa"),
  row("spore-put", { key: "app/bank/x", value: "" }, "oa"),
  row("spore-delete", { key: "app/shop/x" }, "toa"),
  row("spore-delete", { key: "app/bank/x" }, "oa"),
  row("spore-verify", {}, "voa"),
  row("spore-diff", { node: "nobody" }, "voa"),
  row("primary-put", { key: "app/shop/y", value: "v" }, "toa"),
  row("primary-put", { key: "app/bank/y", value: "v" }, "oa"),
  row("primary-get", { key: "app/shop/y" }, "tvoa"),
  row("primary-get", { key: "app/bank/y" }, "voa"),
  row("primary-transfer", { node: "nobody" }, "oa"),
  row("primary-recover", { without: ["nobody"] }, "a"),
  row("primary-dump", {}, "ca"),
  row("primary-restore", { rows: [] }, "a"),
  row("seed-export", {}, "oa"),
  row("seed-import", { text: "x" }, "oa"),
  row("seed-decide", { dryRun: true }, "a"),
  row("access-challenge", {}, "na"),
  row("access-login", { challenge: B64, key: B32, sessionKey: B32, ttlMs: 1_000, signature: B64 }, "na"),
  harmful("access-logout", {}, "tvoa"),
  row("access-logout", { session: "00".repeat(16) }, "a"),
  row("access-whoami", {}, "tvoa"),
  row("access-sessions", {}, "voa"),
  // Dangerous, and a token is never let do what is.
  row("factor-enroll", {}, "voa"),
  row("factor-verify", { code: "000000" }, "tvoa"),
  row("factor-remove", {}, "voa"),
  row("factor-remove", { subject: "local" }, "a"),
  row("role-list", {}, "voa"),
  row("role-show", { role: "viewer" }, "voa"),
  row("role-create", { role: "viewer", grants: ["status.read"] }, "a"),
  row("role-create", { role: "more", grants: ["status.read"], prepare: true }, "a"),
  row("role-delete", { role: "nosuch" }, "a"),
  row("role-bind", { binding: "me", role: "nosuch", node: "x" }, "a"),
  row("role-unbind", { binding: "nosuch" }, "a"),
  row("access-submit", { change: "", signer: B32, signature: B64 }, "a"),
  row("binding-list", {}, "voa"),
  row("audit-heads", {}, "oa"),
  row("incident-list", {}, "oa"),
  row("incident-show", { id: 1 }, "oa"),
  row("incident-rules", {}, "oa"),
  row("incident-ack", { id: 1 }, "a"),
  row("incident-respond", { id: 1, response: "release" }, "a"),
  row("incident-respond", { id: 1, response: "revoke" }, "a"),
  row("agreement-list", {}, "voa"),
  row("agreement-submit", { key: "agreed/role/x", value: "" }, "a"),
  row("agreement-submit", { key: "agreed/policy", value: "" }, "a"),
  row("agreement-submit", { key: "node/x/y", value: "" }, "oa"),
  row("agreement-cancel", { id: 1 }, "oa"),
  row("agreement-emergency", { without: [], dryRun: true }, "a"),
  row("trust-list", {}, "voa"),
  row("trust-show", { node: "nobody" }, "voa"),
  row("trust-policy-show", {}, "voa"),
  row("trust-policy-set", { min: {}, vouched: [], classes: {}, dryRun: true }, "a"),
  row("evidence-list", {}, "voa"),
  row("evidence-verify", {}, "voa"),
  // What the edge answers.
  row("invite-list", {}, "oa"),
  row("node-drain", { node: "nobody" }, "oa"),
  row("seed-publish", {}, "oa"),
  row("audit-verify", {}, "oa"),
  row("audit-search", {}, "oa"),
  row("audit-export", {}, "oa"),
  row("audit-lines", {}, "oa"),
  row("config-get", {}, "voa"),
  row("config-try", { text: "nonsense: true" }, "oa"),
  row("config-confirm", {}, "oa"),
  row("config-revert", {}, "oa"),
];

const COMMANDS: { readonly [C in CommandVerb]: string } = {
  "ping": "oa",
  "status": "oa",
  "doctor": "oa",
  "logs": "oa",
  "config-get": "oa",
  "config-try": "oa",
  "config-confirm": "oa",
  "config-revert": "oa",
  "drain": "oa",
  "undrain": "oa",
  "isolate": "a",
  "rejoin": "oa",
  "safe-mode": "a",
  "normal-mode": "oa",
  "revert": "oa",
  "restart": "oa",
  "leave": "a",
};
/** Commands that a node survives unchanged. */
const HARMLESS = ["ping", "status", "doctor", "logs", "config-get", "normal-mode"] as const;

/** On loopback the status page is everybody's, as it was. */
const ROUTES: { readonly [R in keyof typeof ROUTE_NEEDS]: string } = {
  "/": "ntvcoa",
  "/healthz": "ntvcoa",
  "/readyz": "ntvcoa",
  "/status": "ntvcoa",
  "/spores": "nvoa",
  "/metrics": "ntvcoa",
  "/events": "ntvcoa",
  "/openapi.json": "ntvcoa",
  "/logs": "oa",
  "/shutdown": "a",
};

/** Methods that a machine without a credential reaches; all others are for members. */
const OPEN_METHODS = ["join.hello", "join.register", "renew", "session.hello", "exec", "seed.offer"];

/** Codes that mean: you may not. */
const DENIALS = new Set(["no-role", "not-granted", "too-dangerous", "second-factor", "suspended", "unauthorized"]);

await warmUp();

Deno.test("[2.4b] the matrix has a row for every verb, command, path and method that there is", () => {
  const verbs = new Set(VERBS.map((one) => one.verb));
  assert.deepEqual([...verbs].sort(), [...Object.keys(CONTROL_NEEDS), ...Object.keys(EDGE_NEEDS)].sort());
  assert.deepEqual(Object.keys(COMMANDS).sort(), [...COMMAND_VERBS].sort());
  assert.deepEqual(Object.keys(ROUTES).sort(), Object.keys(ROUTE_NEEDS).sort());
  for (const one of VERBS) if (one.verb in CONTROL_NEEDS) readControlRequest({ ...one.fields, verb: one.verb });
});

Deno.test("[2.4b] a verb, a command, a path or a method without a row does not compile", () => {
  const { leave: _leave, ...verbs } = CONTROL_NEEDS;
  // @ts-expect-error: the verb `leave` has no row
  const lessVerbs: typeof CONTROL_NEEDS = verbs;
  const { "config-try": _try, ...edge } = EDGE_NEEDS;
  // @ts-expect-error: the verb `config-try` of the edge has no row
  const lessEdge: typeof EDGE_NEEDS = edge;
  const { "/logs": _logs, ...routes } = ROUTE_NEEDS;
  // @ts-expect-error: the path `/logs` has no row
  const lessRoutes: typeof ROUTE_NEEDS = routes;
  // @ts-expect-error: a part cannot serve a method without a row
  const method: Method = "no.such";
  // @ts-expect-error: nor is there a need without a permission of the closed list
  const need: Need = { permission: "no.such" };
  assert.ok([lessVerbs, lessEdge, lessRoutes, method, need].length === 5, "what is shown is that the file compiles");
});

Deno.test("[2.4b] a change that was signed elsewhere needs what its record does", () => {
  const needOf = (change: Uint8Array) =>
    controlNeed({ verb: "access-submit", change, signer: new Uint8Array(32), signature: new Uint8Array(64) });
  for (
    const [key, permission] of [
      [TRUST_POLICY_KEY, "policy.write"],
      [`${ROLE_PREFIX}x`, "access.write"],
      [`${BINDING_PREFIX}x`, "access.write"],
    ] as const
  ) {
    const need = { permission, danger: true };
    assert.deepEqual(needOf(encodeChange(policyChange(key, utf8("x"), 0))), need, key);
    assert.deepEqual(controlNeed({ verb: "agreement-submit", key }), need, key);
  }
  assert.deepEqual(needOf(utf8("nonsense")), { permission: "access.write", danger: true });
  // What is only prepared changes nothing: with a second factor, one code is enough for both requests.
  const set = { verb: "trust-policy-set", min: new Map(), vouched: [], classes: new Map() } as const;
  assert.deepEqual(controlNeed({ ...set, prepare: true }), { permission: "policy.write" });
  assert.deepEqual(controlNeed({ ...set, dryRun: true }), { permission: "policy.write" });
  assert.deepEqual(controlNeed(set), { permission: "policy.write", danger: true });
});

Deno.test("[2.4a] [2.4b] [2.4c] every verb × every role, over the unix socket and over HTTP", async () => {
  const dir = Deno.makeTempDirSync({ prefix: "matrix-" });
  try {
    await using node = await RunningNode.start({ stateDir: dir, form: "forest" });
    await node.until("verified", ({ bootstrap }) => bootstrap.stage === "verified");
    const shows: Record<Column, Shows> = { n: NOBODY, t: NOBODY, v: NOBODY, o: NOBODY, c: NOBODY, a: NOBODY };
    await node.ask({ verb: "role-create", role: "backup", grants: ["status.read", "primary.dump"] });
    for (const [column, role] of [["v", "viewer"], ["o", "operator"], ["c", "backup"], ["a", "admin"]] as const) {
      const pair = newPair();
      await bind(node, `person-${role}`, role, pair);
      shows[column] = (await login(node, "socket", pair)).shows;
    }
    shows.t = (await bindToken(node, "shop", "shop")).shows;
    const wrong: string[] = [];
    const check = (what: string, column: string, who: string, code: string) => {
      const denied = DENIALS.has(code);
      if (denied === who.includes(column)) wrong.push(`${what} by ${column}: ${code}, wanted ${who}`);
    };
    let asked = 0;
    for (const { verb, fields, who, harmful: harms } of VERBS) {
      for (const way of ["socket", "tcp"] as const) {
        for (const column of COLUMNS) {
          // Nobody on the socket is the local person, who may everything.
          if (column === "n" && way === "socket") continue;
          if (harms && who.includes(column)) continue;
          const answer = await ask(node, way, { ...fields, verb }, shows[column]);
          check(`${verb} ${JSON.stringify(fields)} over ${way}`, column, who, answer.code);
          asked++;
        }
      }
      if (harms) continue;
      const local = await ask(node, "socket", { ...fields, verb });
      if (DENIALS.has(local.code)) wrong.push(`${verb} by the local person: ${local.code}`);
    }
    for (const [command, who] of Object.entries(COMMANDS)) {
      for (const way of ["socket", "tcp"] as const) {
        for (const column of COLUMNS) {
          if (column === "n" && way === "socket") continue;
          if (who.includes(column) && !(HARMLESS as readonly string[]).includes(command)) continue;
          for (const target of ["this", "nobody"]) {
            const body = JSON.stringify({ verb: command, node: target, args: {} });
            const answer = await send(node, way, { method: "POST", path: "/exec", body }, shows[column]);
            check(`exec ${command} on ${target} over ${way}`, column, who, answer.code);
            asked++;
          }
        }
      }
    }
    for (const [path, who] of Object.entries(ROUTES)) {
      for (const way of ["socket", "tcp"] as const) {
        for (const column of COLUMNS) {
          if (column === "n" && way === "socket") continue;
          if (path === "/shutdown" && who.includes(column)) continue;
          // A stream: its head says enough.
          const method = path === "/shutdown" ? "POST" : path === "/events" ? "HEAD" : "GET";
          const answer = await send(
            node,
            way,
            { method, path, ...(method === "POST" ? { body: "{}" } : {}) },
            shows[column],
          );
          const denied = answer.status === 401 || answer.status === 403;
          check(`${path} over ${way}`, column, who, denied ? "not-granted" : "ok");
          asked++;
        }
      }
    }
    // Another spelling of a path is another path: what is asked about is what is answered.
    for (const path of ["/%73pores", "/%6Cogs", "/spores/", "//spores"]) {
      assert.equal((await send(node, "tcp", { method: "GET", path }, shows.t)).status, 404, path);
    }
    assert.deepEqual(wrong, []);
    assert.ok(asked > 1_000, `${asked} requests`);
    // Who may stop it does.
    const stopped = await send(node, "tcp", { method: "POST", path: "/shutdown", body: "{}" }, shows.a);
    assert.equal(stopped.code, "ok");
    assert.equal(await node.ended, 0);
  } finally {
    Deno.removeSync(dir, { recursive: true });
    await settle();
  }
});

const SECRET = (name: string) => hashParts("test/matrix", utf8(name));
const PEOPLE = { v: "viewer", o: "operator", c: "backup", a: "admin" } as const;

/** An agent that has formed a network, with the people of the matrix in it. */
class Core {
  readonly agent: Agent;
  #count = 0;
  #nowMs = 1_800_000_000_000;

  constructor() {
    this.agent = new Agent({
      config: {
        name: "alpha",
        role: "auto",
        pool: "default",
        version: "0.1.0",
        addresses: [],
        credentialLifetimeMs: 86_400_000,
      },
      entries: new Map(),
      rng: seededRng(1),
      entropy: { bytes: (length) => SECRET(`entropy ${this.#count++}`).slice(0, length) },
    });
    this.agent.step({ type: "start", nowMs: this.#nowMs, capabilities: SERVER });
    this.control({ verb: "init", name: "forest", approval: false }, LOCAL);
    const { policy } = this.agent.access;
    const grants = ["status.read", "primary.dump"].map((one) => parseGrant(one)!);
    policy.put(`${ROLE_PREFIX}backup`, encodeRole({ name: "backup", description: "", grants }));
    for (const [column, role] of Object.entries(PEOPLE)) {
      const key = keyPairFromSeed(SECRET(column)).publicKey;
      policy.put(
        `${BINDING_PREFIX}person-${column}`,
        encodeBinding({ name: `person-${column}`, role, subject: { kind: "operator", key }, createdMs: 0 }),
      );
    }
    const token = { kind: "service", tokenId: "00".repeat(8), hash: new Uint8Array(32), service: "shop" } as const;
    policy.put(
      `${BINDING_PREFIX}token`,
      encodeBinding({ name: "token", role: "service", subject: token, createdMs: 0 }),
    );
  }

  subject(column: Column): Subject {
    if (column === "n") return ANYONE;
    const secondFactor = "none";
    if (column === "t") return { kind: "service", id: "00".repeat(8), name: "token", service: "shop", secondFactor };
    return { ...this.agent.access.signer(keyPairFromSeed(SECRET(column)).publicKey), secondFactor };
  }

  /** Code of the answer; `later` where it is not there at once. */
  control(request: ControlRequest, by: Subject): string {
    const effects = this.agent.step({ type: "control", nowMs: this.#nowMs, controlId: 1, request, by });
    const reply = flat(effects).find((one) => one.type === "control-reply");
    if (reply?.type !== "control-reply") return "later";
    return reply.result.ok ? "ok" : reply.result.error.code;
  }

  /** Code of the answer to a call of another node. */
  call(method: string, member: boolean, body = encodeCbor({})): string {
    const pair = keyPairFromSeed(SECRET(member ? "member" : "stranger"));
    const peer = {
      nodeId: nodeIdOf(pair.publicKey),
      publicKey: pair.publicKey,
      remoteAddress: "/ip4/10.0.0.9/udp/4871",
      transport: "quic",
      direction: "inbound",
      openedMs: this.#nowMs,
      channelBinding: new Uint8Array(32),
    } as const;
    this.agent.step({ type: "peer-up", nowMs: this.#nowMs, peer });
    if (member) (this.agent.inspect().sessions.get(peer.nodeId) as { member: boolean }).member = true;
    const effects = flat(this.agent.step({ type: "inbound", nowMs: this.#nowMs, inboundId: 7, peer, method, body }));
    const error = effects.find((one) => one.type === "reply-error");
    if (error?.type === "reply-error") return error.code;
    return effects.some((one) => one.type === "run-command") ? "run" : "ok";
  }

  /** Logins of as many strangers, each with a key of its own; returns the entries of the audit log that they cost. */
  flood(count: number): number {
    const { networkId, keyPair } = this.agent.inspect().state;
    const place = { networkId, nodeKey: keyPair.publicKey };
    let written = 0;
    for (let i = 0; i < count; i++) {
      const pair = keyPairFromSeed(SECRET(`stranger ${i}`));
      const challenge = this.agent.access.sessions.challenge(this.#nowMs, SECRET(`challenge ${i}`).slice(0, 24));
      const words = { challenge, key: pair.publicKey, sessionKey: pair.publicKey, ttlMs: 1_000 };
      const signature = signBytes(pair, loginMessage(words, place));
      const request = { verb: "access-login", ...words, signature } as const;
      const effects = flat(this.agent.step({ type: "control", nowMs: this.#nowMs, controlId: 1, request, by: ANYONE }));
      assert.ok(effects.some((one) => one.type === "control-reply" && !one.result.ok));
      written += effects.filter((one) => one.type === "audit").length;
    }
    return written;
  }

  /** The same, by a member that is suspended. */
  suspend(): void {
    const id = nodeIdOf(keyPairFromSeed(SECRET("member")).publicKey);
    assert.ok(this.agent.access.suspend({ kind: "node", id }, this.#nowMs + 1_000, "quarantine"));
  }

  command(verb: CommandVerb, signer: string): Uint8Array {
    const { state } = this.agent.inspect();
    const pair = keyPairFromSeed(SECRET(signer));
    return encodeCbor(commandBody(sealCommand(
      {
        verb,
        args: new Map(),
        target: state.keyPair.publicKey,
        issuedMs: this.#nowMs,
        expiresMs: this.#nowMs + 60_000,
        nonce: SECRET(`nonce ${this.#count++}`).slice(0, 16),
      },
      state.networkId,
      pair,
    )));
  }
}

function flat(effects: readonly AgentEffect[]): AgentEffect[] {
  return effects.flatMap((one) => one.type === "persist" ? [one, ...flat(one.then)] : [one]);
}

Deno.test("[2.4b] [2.4c] every verb × every role, in the agent itself: whoever forgets the gate outside meets it here", () => {
  const wrong: string[] = [];
  for (const { verb, fields, who } of VERBS) {
    if (!(verb in CONTROL_NEEDS)) continue;
    const request = readControlRequest({ ...fields, verb });
    const askers: (readonly [string, Subject | Column, boolean])[] = [
      ...COLUMNS.map((one) => [one, one, who.includes(one)] as const),
      ["local", LOCAL, true],
      ["self", SELF, true],
      ["reader", READER, verb === "spore-list" || verb === "spore-verify" || verb === "spore-diff"],
    ];
    for (const [name, one, may] of askers) {
      // A node of its own for who may: what is allowed is really done.
      const core = may ? new Core() : SHARED;
      const code = core.control(request, typeof one === "string" ? core.subject(one) : one);
      if (DENIALS.has(code) === may) wrong.push(`${verb} ${JSON.stringify(fields)} by ${name}: ${code}`);
    }
  }
  assert.deepEqual(wrong, []);
});

Deno.test("[2.4b] every method of nodes × stranger, member, suspended member", () => {
  const core = new Core();
  for (const method of Object.keys(METHOD_NEEDS)) {
    const open = OPEN_METHODS.includes(method);
    if (open) assert.notEqual(core.call(method, false), "not-a-member", `${method} by a stranger`);
    else assert.equal(core.call(method, false), "not-a-member", `${method} by a stranger`);
    assert.ok(
      !["not-a-member", "not-granted", "unknown-method"].includes(core.call(method, true)),
      `${method} by a member`,
    );
  }
  core.suspend();
  for (const method of Object.keys(METHOD_NEEDS)) {
    if (method === "exec") continue;
    assert.equal(core.call(method, true), "suspended", `${method} by a suspended member`);
  }
  for (const method of ["nosuch", "toString", "__proto__", ""]) {
    assert.equal(core.call(method, false), "not-a-member", method);
  }
});

Deno.test("[2.4b] every signed command × every role: the key that signed it decides, whoever carries it", () => {
  for (const verb of COMMAND_VERBS) {
    for (const column of ["v", "o", "c", "a"] as const) {
      for (const member of [false, true]) {
        const core = new Core();
        const code = core.call("exec", member, core.command(verb, column));
        assert.equal(code, COMMANDS[verb].includes(column) ? "run" : "command-not-allowed", `${verb} by ${column}`);
      }
    }
    const core = new Core();
    assert.equal(core.call("exec", true, core.command(verb, "nobody")), "command-not-operator", verb);
  }
});

Deno.test("[2.4a] whoever guesses tokens from many addresses gets no further guesses at a code by that", () => {
  const { access } = new Core().agent;
  const nowMs = 1_800_000_000_000;
  access.factors.set("local", { secret: SECRET("code").slice(0, 20), confirmed: true, nowMs });
  const guess = () => {
    const known = access.authenticate({ kind: "socket", source: "socket", code: "000000" }, nowMs);
    return known.ok ? "ok" : known.code;
  };
  for (let i = 0; i < 4; i++) assert.equal(guess(), "second-factor-wrong");
  for (let i = 0; i < 2 * LIMITS.throttledMax; i++) {
    assert.ok(!access.authenticate({ kind: "token", source: `2001:db8::${i}`, token: "mct1.x" }, nowMs).ok);
  }
  assert.deepEqual([guess(), guess()], ["second-factor-wrong", "throttled"]);
});

Deno.test("[10.5e] whoever makes keys of his own fills neither the disk nor what is remembered of logins", () => {
  const core = new Core();
  const written = core.flood(2_000);
  assert.ok(written > 0 && written < 100, `${written} entries in the audit log`);
  assert.equal(core.agent.access.sessions.size, 0);
});

const SHARED = new Core();
