import assert from "node:assert/strict";
import fc from "fast-check";
import { LIMITS } from "../../src/core/limits.ts";
import { type CborValue, decodeCbor, encodeCbor, WireError } from "../../src/core/codec.ts";
import { type ControlRequest, readControlRequest } from "../../src/agent/control.ts";
import type { PeerView } from "../../src/agent/effects.ts";
import { type Answer, type Host, WORLD_START_MS } from "../sim/world.ts";
import { keyOf, Net, Newcomer, outcome, registrationValue } from "./kit.ts";

const METHODS = [
  "session.hello",
  "join.hello",
  "join.register",
  "renew",
  "push",
  "sync",
  "seen",
  "authority.sign",
  "assign",
  "status.report",
  "exec",
] as const;

/** Whatever CBOR can say. */
const anyCbor: fc.Arbitrary<CborValue> = fc.letrec<{ value: CborValue }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    fc.maxSafeInteger(),
    fc.boolean(),
    fc.constant(null),
    fc.string({ maxLength: 40 }),
    fc.uint8Array({ maxLength: 80 }),
    fc.array(tie("value"), { maxLength: 4 }),
    fc.dictionary(
      fc.constantFrom("v", "n", "m", "c", "e", "es", "g", "w", "pn", "pi", "r", "p", "d", "a", "t", "k", "s", "b"),
      tie("value"),
      { maxKeys: 6 },
    ),
  ),
})).value;

const anyBody = fc.oneof(anyCbor.map((value) => encodeCbor(value)), fc.uint8Array({ maxLength: 200 }));

/** Real requests, as they went over the wire while a network came up, with who sent each. */
function recorded(): { net: Net; beta: Host; bodies: Map<string, Uint8Array[]> } {
  const net = new Net(1);
  const bodies = new Map<string, Uint8Array[]>();
  net.world.onMessage = (one) => {
    if (one.kind === "request") bodies.set(one.method, [...bodies.get(one.method) ?? [], one.body]);
    return "pass";
  };
  const beta = net.join("beta", { as: "sclerotium" });
  const gamma = net.join("gamma", { as: "sclerotium" });
  net.world.until("three issuers", () => gamma.view.state.network!.chain!.issuers.length === 3, 120_000);
  net.world.ask(net.founder, { verb: "assign", node: "beta", id: "web-1", service: "web", action: "run" });
  net.world.run(120_000);
  const row = beta.view.state.self!;
  bodies.set("renew", [encodeCbor({ m: envelope(row.recordEnvelope), c: envelope(row.credentialEnvelope), e: 1 })]);
  bodies.set("status.report", [encodeCbor({})]);
  bodies.set("exec", [encodeCbor({ c: {} })]);
  net.world.onMessage = undefined;
  // So much nonsense is an incident: its rules are shown elsewhere.
  for (const host of net.world.hosts) {
    const settings = { dryRun: true, rules: [] };
    net.world.dispatch(host, { type: "incident-settings", nowMs: net.world.nowMs, settings });
  }
  return { net, beta, bodies };
}

/** Every answer to nonsense: a code, never a throw, and nothing learnt. The simulator throws where there is no answer. */
function check(answer: Answer, what: string): void {
  if (answer.ok) return;
  assert.match(answer.code, /^[a-z][a-z-]{2,40}$/, what);
  assert.ok(answer.message.length > 0 && answer.message.length < 600, what);
}

Deno.test("[10.1a] [10.1b] every method answers random CBOR and random bytes with a code, from strangers and from members", () => {
  const { net, beta } = recorded();
  const stranger = net.world.addPuppet("stranger", keyOf("stranger"));
  const member = beta.view.sessions.get(net.founder.nodeId)!.peer;
  const before = beta.view.state.members.size;
  fc.assert(
    fc.property(fc.constantFrom(...METHODS, "no.such", ""), anyBody, fc.boolean(), (method, body, asMember) => {
      // Some time for each call: the checker of spinning counts steps per second.
      net.world.nowMs += 50;
      const answer = asMember
        ? net.world.inject(beta, member, method, body)
        : net.world.callAs(stranger, beta, method, body);
      check(answer, method);
      if (!METHODS.includes(method as typeof METHODS[number])) {
        assert.ok((asMember ? ["unknown-method", "bad-request"] : ["not-a-member"]).includes(outcome(answer)));
      }
    }),
    { numRuns: 600 },
  );
  assert.equal(beta.view.state.members.size, before);
});

Deno.test("[10.1a] [10.1b] real requests cut off, flipped and spliced: answered with a code, and nothing changes", () => {
  const { net, beta, bodies } = recorded();
  const peers: readonly PeerView[] = [
    beta.view.sessions.get(net.founder.nodeId)!.peer,
    net.world.peerView(net.world.addPuppet("stranger", keyOf("stranger")), beta),
  ];
  const all = [...bodies].flatMap(([method, list]) => list.slice(0, 4).map((body) => ({ method, body })));
  assert.ok(new Set(all.map((one) => one.method)).size >= 9, [...bodies.keys()].join());
  fc.assert(
    fc.property(
      fc.constantFrom(...all),
      fc.constantFrom(...all),
      fc.constantFrom(...peers),
      fc.nat(),
      fc.nat(7),
      fc.constantFrom("cut", "flip", "splice", "other method", "value"),
      (one, other, peer, at, bit, how) => {
        net.world.nowMs += 50;
        const { body } = one;
        let bytes: Uint8Array = body.slice();
        let method = one.method;
        if (how === "cut") bytes = body.slice(0, at % body.length);
        else if (how === "flip") bytes[at % body.length]! ^= 1 << bit;
        else if (how === "splice") {
          bytes = new Uint8Array([...body.slice(0, at % body.length), ...other.body.slice(at % other.body.length)]);
        } else if (how === "other method") method = other.method;
        else bytes = mutated(body, at);
        const epoch = beta.view.state.network!.chain!.epoch;
        const members = beta.view.state.members.size;
        check(net.world.inject(beta, peer, method, bytes), `${method} ${how}`);
        assert.equal(beta.view.state.members.size, members);
        assert.equal(beta.view.state.network!.chain!.epoch, epoch);
      },
    ),
    { numRuns: 600 },
  );
});

/** One value inside a body replaced by something else of its kind. */
function mutated(body: Uint8Array, at: number): Uint8Array {
  const value = decodeCbor(body);
  const spots: ((change: (one: CborValue) => CborValue) => void)[] = [];
  const visit = (holder: Record<string, CborValue> | CborValue[], key: string | number) => {
    const inner = (holder as Record<string | number, CborValue>)[key] as CborValue;
    spots.push((change) => (holder as Record<string | number, CborValue>)[key] = change(inner));
    if (inner !== null && typeof inner === "object" && !(inner instanceof Uint8Array)) {
      for (const next of Object.keys(inner)) visit(inner as Record<string, CborValue>, next);
    }
  };
  const root = { value } as Record<string, CborValue>;
  visit(root, "value");
  spots[at % spots.length]!((one) => {
    if (typeof one === "number") return one === 0 ? Number.MAX_SAFE_INTEGER : 0;
    if (typeof one === "string") return one === "" ? "x".repeat(3_000) : "";
    if (one instanceof Uint8Array) return new Uint8Array(one.length).fill(at % 256);
    if (Array.isArray(one)) return one.length === 0 ? [null] : [...one, ...one, ...one];
    return null;
  });
  return encodeCbor(root.value!);
}

Deno.test("[2.1b] [10.1a] [10.5c] method × session: by default nothing is served; only what a stranger needs is", () => {
  const net = new Net(2);
  const beta = net.join("beta");
  const host = net.founder;
  const states = {
    stranger: new Newcomer(net, "stranger", net.invite()),
    member: new Newcomer(net, "member", net.invite()),
    revoked: new Newcomer(net, "revoked", net.invite()),
    expired: new Newcomer(net, "expired", net.invite()),
  };
  const show = (one: Newcomer) => {
    const row = host.view.state.members.get(one.puppet.nodeId)!;
    return one.call(host, "session.hello", {
      v: 1,
      m: envelope(row.recordEnvelope),
      c: envelope(row.credentialEnvelope),
      e: 1,
      es: [],
    });
  };
  assert.equal(outcome(states.expired.register(host)), "accepted");
  assert.equal(outcome(show(states.expired)), "ok");
  net.world.run(net.lifetimeMs + 6 * 60_000);
  for (const one of [states.member, states.revoked]) {
    assert.equal(outcome(one.register(host)), "accepted");
    assert.equal(outcome(show(one)), "ok");
  }
  net.world.ask(host, { verb: "node-remove", node: "revoked" });
  net.world.run(1_000);
  const open = new Set(["join.hello", "join.register", "renew", "session.hello", "exec"]);
  for (const method of [...METHODS, "no.such", "toString", "__proto__", "constructor"]) {
    for (const [state, one] of Object.entries(states)) {
      const got = outcome(one.call(host, method, {}));
      const served = state === "member" || open.has(method);
      assert.equal(got !== "not-a-member", served, `${method} for ${state}: ${got}`);
      if (state !== "member" && !open.has(method)) assert.equal(got, "not-a-member");
    }
  }
  assert.equal(outcome(states.member.call(host, "seen", { n: beta.nodeId })), "ok");
  assert.equal(outcome(states.member.call(host, "no.such", {})), "unknown-method");
});

Deno.test("[2.1b] a node that is no member itself serves nobody", () => {
  const net = new Net(3);
  const fresh = net.world.boot(net.host("fresh"));
  const stranger = net.world.addPuppet("stranger", keyOf("stranger"));
  for (const method of METHODS) {
    const got = outcome(net.world.callAs(stranger, fresh, method, encodeCbor({ v: 1, n: new Uint8Array(32) })));
    assert.ok(["not-a-member", "bad-request", "not-issuer"].includes(got), `${method}: ${got}`);
  }
});

const garbageRequests: fc.Arbitrary<unknown> = fc.oneof(
  fc.anything(),
  fc.record({
    verb: fc.constantFrom(
      "init",
      "join",
      "invite-create",
      "invite-revoke",
      "node-approve",
      "node-deny",
      "node-remove",
      "bootstrap-retry",
      "bootstrap-reset",
      "bootstrap-force-endpoint",
      "genesis-export",
      "authority-recover",
      "assign",
      "sign-command",
      "set-mode",
      "leave",
      "constructor",
      "__proto__",
    ),
    name: fc.oneof(fc.string(), fc.anything()),
    invite: fc.oneof(fc.string(), fc.constant("myc1"), fc.anything()),
    node: fc.oneof(fc.string(), fc.constantFrom("alpha", "beta", "")),
    id: fc.oneof(fc.string(), fc.anything()),
    address: fc.oneof(fc.string(), fc.constant("/ip4/10.1.0.1/udp/4871/quic-v1")),
    uses: fc.oneof(fc.integer(), fc.constant(Number.NaN), fc.anything()),
    ttlMs: fc.oneof(fc.double(), fc.integer()),
    role: fc.oneof(fc.constantFrom("sclerotium", "king"), fc.anything()),
    mode: fc.oneof(fc.constantFrom("normal", "safe", "drained", "isolated", "wild")),
    command: fc.string(),
    args: fc.anything(),
    service: fc.string(),
    action: fc.constantFrom("run", "stop", "burn"),
    dryRun: fc.oneof(fc.boolean(), fc.anything()),
    path: fc.string(),
    without: fc.anything(),
    pool: fc.string(),
  }, { requiredKeys: ["verb"] }),
);

Deno.test("[10.1a] [10.1b] every control verb with garbage: read as a request or refused in words, answered once, never a throw", () => {
  const net = new Net(4, { lan: false });
  const beta = net.join("beta");
  const fresh = net.world.boot(net.host("fresh"));
  let read = 0;
  fc.assert(
    fc.property(garbageRequests, fc.constantFrom(net.founder, beta, fresh), (garbage, host) => {
      net.world.nowMs += 100;
      let request: ControlRequest;
      try {
        request = readControlRequest(garbage);
      } catch (error) {
        assert.ok(error instanceof WireError, `${error}`);
        return;
      }
      read += 1;
      const answer = net.world.control(host, request);
      if (!answer.ok) {
        assert.match(answer.error.code, /^[a-z][a-z-]{2,40}$/);
        assert.ok(answer.error.message.length > 0);
      }
      JSON.stringify(net.world.status(host));
    }),
    { numRuns: 1_500 },
  );
  assert.ok(read > 100, `${read} requests were readable`);
});

Deno.test("[1.3b] [10.1a] the status document builds in every state of every node and is JSON", () => {
  const net = new Net(5, { lan: false });
  const seen = new Set<string>();
  const look = (host: Host) => {
    if (!host.agent) return;
    const status = net.world.status(host);
    const text = JSON.stringify(status);
    assert.deepEqual(JSON.parse(text), JSON.parse(JSON.stringify(JSON.parse(text))));
    assert.ok(!/"(undefined|NaN|\[object)/.test(text));
    assert.ok(text.length < 200_000);
    // No secret leaves by it.
    for (const [key, value] of host.disk) {
      if (!key.startsWith("secret/") || value.length !== 32) continue;
      assert.ok(!text.includes(Array.from(value, (byte) => byte.toString(16).padStart(2, "0")).join("")), key);
    }
    seen.add(status.bootstrap.stage);
    assert.equal(status.schema, 1);
    // An issuer that is left alone goes on as the network that it is.
    if (status.bootstrap.stage !== "verified" && !host.view.state.isIssuer) assert.ok(!status.health.ready);
    for (const one of status.bootstrap.waitingFor) assert.ok(one.what.length > 5);
  };
  const beta = net.world.boot(net.host("beta"));
  look(beta);
  const step = beta.agent!.step.bind(beta.agent!);
  beta.agent!.step = (event) => {
    const effects = step(event);
    look(beta);
    return effects;
  };
  net.world.cut([beta], [net.founder]);
  net.world.ask(beta, { verb: "join", invite: net.invite({ approval: true }).token });
  net.world.run(60_000);
  net.world.heal();
  net.world.until("waiting", () => beta.view.stage === "awaiting-approval", 120_000);
  net.world.ask(net.founder, { verb: "node-approve", node: "beta" });
  net.verified(beta);
  for (const mode of ["safe", "drained", "isolated", "normal"] as const) {
    net.world.ask(beta, { verb: "set-mode", mode });
    net.world.run(5_000);
    look(beta);
  }
  net.verified(beta);
  net.world.cut([beta], [net.founder]);
  net.world.run(3 * net.lifetimeMs);
  look(beta);
  look(net.founder);
  net.world.ask(net.founder, { verb: "node-remove", node: "beta" });
  net.world.heal();
  net.failing(beta, "revoked", 600_000);
  look(beta);
  net.world.ask(beta, { verb: "bootstrap-reset" });
  look(beta);
  for (
    const stage of [
      "idle",
      "discovering",
      "contacting",
      "authenticating",
      "registering",
      "awaiting-approval",
      "verifying",
      "verified",
      "isolated",
    ]
  ) {
    assert.ok(seen.has(stage), `${stage} was seen: ${[...seen]}`);
  }
});

Deno.test("[2.1b] challenges are bounded: a flood of hellos leaves other peers' challenges alone", () => {
  const net = new Net(6);
  const invite = net.invite({ uses: 3 });
  const honest = new Newcomer(net, "honest", invite);
  const registration = honest.registration(honest.hello(net.founder));
  const flood = net.world.addPuppet("flood", keyOf("flood"));
  for (let i = 0; i < 3 * LIMITS.challengesMax; i++) {
    if (i % 100 === 0) net.world.run(1_000);
    const body = encodeCbor({ v: 1, n: new Uint8Array(32).fill(i) });
    assert.equal(outcome(net.world.callAs(flood, net.founder, "join.hello", body)), "ok");
  }
  assert.ok(net.world.nowMs - WORLD_START_MS < 60_000);
  assert.equal(
    outcome(honest.call(net.founder, "join.register", registrationValue(registration))),
    "capability-implausible",
    "late, but not replayed",
  );
});

/** An envelope as it travels. */
function envelope(one: { type: string; payload: Uint8Array; signer: Uint8Array; signature: Uint8Array }) {
  return { t: one.type, p: one.payload, k: one.signer, s: one.signature };
}
