/** Attestation: an issuer signs what stands in its own state, whatever a leader asks for. */

import assert from "node:assert/strict";
import { Attestation, PROOF_MS } from "../../src/agent/attestation.ts";
import { Context, Refusal } from "../../src/agent/context.ts";
import { utf8 } from "../../src/core/bytes.ts";
import type { CborValue } from "../../src/core/codec.ts";
import type { KeyPair } from "../../src/core/crypto.ts";
import { nodeIdOf } from "../../src/core/ids.ts";
import { seededRng } from "../../src/core/rng.ts";
import { verifyRankSignature } from "../../src/spore/proof.ts";
import { sealSpore } from "../../src/spore/record.ts";
import { type Command, encodeCommand, StateMachine, type Version } from "../../src/spore/state_machine.ts";
import { Net } from "./kit.ts";

Deno.test("[3.4a] [10.1a] attestation: a leader that lies gets signatures for nothing but what stands here, by who may write it", () => {
  const net = new Net(31);
  const issuer = net.join("issuer1", { as: "sclerotium" });
  const hypha = net.join("hypha");
  net.world.until("two issue", () => net.founder.view.state.network!.chain!.issuers.length === 2, 60_000);
  const { state, sessions } = net.founder.view;
  const chain = state.network!.chain!;
  const config = {
    name: "alpha",
    role: "auto",
    pool: "default",
    version: "0",
    addresses: [],
    credentialLifetimeMs: net.lifetimeMs,
  } as const;
  const ctx = new Context(state, config, seededRng(1), { bytes: (length) => new Uint8Array(length) });
  ctx.nowMs = net.world.nowMs;
  const machine = new StateMachine(state.networkId);
  const add = (command: Command) =>
    machine.apply({ index: machine.index + 1, term: 3, data: encodeCommand(command) }).result;
  const write = (key: string, by: KeyPair, session: number, seq: number): Version => {
    const record = { key, seq: 1, value: utf8("x"), issuedMs: ctx.nowMs, expiresMs: ctx.nowMs + 60_000 };
    const { envelope } = sealSpore(record, state.networkId, by);
    add({ op: "write", timeMs: ctx.nowMs, client: hypha.nodeId, session, seq, floor: 1, envelope });
    return machine.get(key)!;
  };
  // A leader that lies names a member as issuer; the log does not know better, the chain of authority does.
  const issuers = [...chain.issuers.map(nodeIdOf), hypha.nodeId];
  add({ op: "issuers", timeMs: ctx.nowMs, epoch: chain.epoch, issuers });
  const session = add({ op: "open", timeMs: ctx.nowMs, client: hypha.nodeId }).index;
  const agreed = write("app/a", hypha.view.state.keyPair, session, 1);
  const usurped = write("net/a", hypha.view.state.keyPair, session, 2);
  assert.ok(agreed && usurped, "both stand in the state");

  const attestation = new Attestation(ctx, () => machine);
  const peer = sessions.get(issuer.nodeId)!.peer;
  const untilMs = ctx.nowMs + PROOF_MS;
  const item = ({ spore, term, index }: Version) => ({ k: spore.record.key, h: spore.hash, m: term, i: index });
  const ask = (items: readonly CborValue[], more: { readonly [name: string]: CborValue } = {}) =>
    (attestation.serve(peer, { e: chain.epoch, u: untilMs, q: items, ...more }) as {
      readonly s: readonly (Uint8Array | null)[];
    }).s;

  const [signature] = ask([item(agreed)]);
  const subject = { networkId: state.networkId, key: "app/a", hash: agreed.spore.hash };
  const statement = { tier: "primary", term: agreed.term, index: agreed.index, epoch: chain.epoch, untilMs } as const;
  assert.ok(verifyRankSignature(subject, statement, { key: state.keyPair.publicKey, signature: signature! }));
  const lies = [
    { ...item(agreed), h: usurped.spore.hash },
    { ...item(agreed), i: agreed.index + 1 },
    { ...item(agreed), m: agreed.term + 1 },
    { ...item(agreed), k: "app/other" },
    item(usurped),
  ];
  assert.deepEqual(ask(lies), lies.map(() => null));
  const refused = (code: string, run: () => unknown) =>
    assert.throws(run, (error) => error instanceof Refusal && error.code === code);
  refused("stale-epoch", () => ask([item(agreed)], { e: chain.epoch + 1 }));
  refused("bad-request", () => ask([item(agreed)], { u: untilMs + 3_600_000 }));
  const stranger = sessions.get(hypha.nodeId)!.peer;
  refused("not-issuer", () => attestation.serve(stranger, { e: chain.epoch, u: untilMs, q: [item(agreed)] }));
});
