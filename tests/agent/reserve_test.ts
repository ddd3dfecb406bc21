/** Invites at another issuer than the one that gave them. @module */

import assert from "node:assert/strict";
import { type CborValue, encodeCbor } from "../../src/core/codec.ts";
import { Net, Newcomer, outcome, registrationValue } from "./kit.ts";

/** A registration that says that there is no way to the invite's own issuer. */
function cutOff(newcomer: Newcomer, host: Parameters<Newcomer["register"]>[0]): string {
  const registration = newcomer.registration(newcomer.hello(host));
  const value = { ...registrationValue(registration) as { readonly [key: string]: CborValue }, u: 1 };
  return outcome(newcomer.call(host, "join.register", value));
}

Deno.test("[1.2a] a newcomer that reaches one issuer only is admitted there, and the use counts at home", () => {
  const net = new Net(70);
  const beta = net.join("beta", { as: "sclerotium" });
  net.world.until("beta issues", () => beta.view.state.isIssuer);
  const invite = net.invite();
  assert.equal(cutOff(new Newcomer(net, "gamma", invite), beta), "accepted");
  net.world.run(1_000);
  const status = net.world.status(net.founder).invites.find((one) => one.id === invite.id)!;
  assert.deepEqual([status.state, status.usesLeft], ["used-up", 0]);
});

Deno.test("[2.1b] [10.3e] who claims to be cut off gets no second use out of an invite, at the same moment or later", () => {
  const net = new Net(71);
  const beta = net.join("beta", { as: "sclerotium" });
  const gamma = net.join("gamma", { as: "sclerotium" });
  net.world.until("both issue", () => beta.view.state.isIssuer && gamma.view.state.isIssuer);
  const invite = net.invite();
  const thieves = ["one", "two", "three"].map((name) => new Newcomer(net, name, invite));
  const at = [beta, gamma, net.founder];
  const registrations = thieves.map((thief, i) => thief.registration(thief.hello(at[i]!)));
  // The requests are under way together: nobody has heard of anybody yet.
  const calls = thieves.map((thief, i) => {
    const value = { ...registrationValue(registrations[i]!) as { readonly [key: string]: CborValue }, u: 1 };
    return net.world.callLater(thief.puppet, at[i]!, "join.register", encodeCbor(value));
  });
  net.world.until("all are answered", () => calls.every((call) => call.answer !== undefined));
  const outcomes = calls.map((call) => outcome(call.answer!));
  assert.deepEqual(outcomes.filter((one) => one === "accepted").length, 1, outcomes.join(" "));
  assert.ok(outcomes.every((one) => one === "accepted" || one === "invite-used-up"), outcomes.join(" "));
});

Deno.test("[2.1b] a revoked invite, and one that asks for approval, are not settled at another issuer", () => {
  const net = new Net(72);
  const beta = net.join("beta", { as: "sclerotium" });
  net.world.until("beta issues", () => beta.view.state.isIssuer);
  const [revoked, approved] = [net.invite(), net.invite({ approval: true })];
  net.world.ask(net.founder, { verb: "invite-revoke", id: revoked.id });
  assert.equal(cutOff(new Newcomer(net, "one", revoked), beta), "invite-revoked");
  assert.equal(cutOff(new Newcomer(net, "two", approved), beta), "redirect");
});

Deno.test("[2.4e] what the invite's own issuer says, lying or without its state, is not held against the newcomer", () => {
  const net = new Net(74);
  const beta = net.join("beta", { as: "sclerotium" });
  net.world.until("beta issues", () => beta.view.state.isIssuer);
  const newcomer = new Newcomer(net, "gamma", net.invite());
  net.founder.view.state.grants.clear();
  for (let i = 0; i < 20; i++) {
    assert.equal(cutOff(newcomer, beta), "invite-unknown");
    net.world.run(50);
  }
  assert.deepEqual(net.world.ask(beta, { verb: "incident-list", all: true }), []);
  assert.equal(beta.refused.get("reserve-invite-unknown"), 20);
});

Deno.test("[10.5c] only issuers reserve a use of an invite", () => {
  const net = new Net(73);
  const beta = net.join("beta");
  const invite = net.invite();
  const id = net.world.status(net.founder).invites.find((one) => one.id === invite.id)!.id;
  const body = { i: Uint8Array.from(id.match(/../g)!, (two) => Number.parseInt(two, 16)), n: beta.nodeId };
  const stranger = new Newcomer(net, "stranger", invite);
  assert.equal(outcome(stranger.call(net.founder, "invite.reserve", body)), "not-a-member");
  const status = net.world.status(net.founder).invites.find((one) => one.id === invite.id)!;
  assert.equal(status.usesLeft, 1);
});
