/** A small network in the simulator's world, and a newcomer that does by hand what an agent does. @module */

import { workOf } from "../../src/bootstrap/capability_check.ts";
import { utf8 } from "../../src/core/bytes.ts";
import type { Capabilities } from "../../src/core/capabilities.ts";
import { type CborValue, decodeCbor, encodeCbor } from "../../src/core/codec.ts";
import { type KeyPair, keyPairFromSeed, sha256 } from "../../src/core/crypto.ts";
import { type Envelope, envelopeValue } from "../../src/core/envelope.ts";
import type { Role } from "../../src/core/roles.ts";
import { registerHash } from "../../src/agent/registrar.ts";
import { type Invite, parseInvite } from "../../src/identity/invite.ts";
import { type JoinTranscript, proveFactor } from "../../src/identity/join_proof.ts";
import { type MemberRecord, sealMember } from "../../src/membership/record.ts";
import { Checkers } from "../sim/checkers.ts";
import { type Answer, type Host, type HostOptions, Puppet, SERVER, World, type WorldOptions } from "../sim/world.ts";

/** A key that follows from a name. */
export function keyOf(name: string): KeyPair {
  return keyPairFromSeed(sha256(utf8(`agent test ${name}`)));
}

/** An invite as the tests use it. */
export interface GivenInvite {
  readonly token: string;
  readonly id: string;
}

/** A network and what checks it. */
export class Net {
  readonly world: World;
  readonly checkers = new Checkers();
  readonly founder: Host;

  /** Life of the credentials that all issuers give: a quarter of an hour instead of a day, so that days pass quickly. */
  readonly lifetimeMs: number = 900_000;

  constructor(seed: number, options: Omit<WorldOptions, "seed" | "check"> & { readonly approval?: boolean } = {}) {
    this.world = new World({ seed, ...options, check: this.checkers.check });
    this.checkers.world = this.world;
    this.founder = this.world.boot(this.host("alpha"));
    this.world.ask(this.founder, { verb: "init", name: "forest", approval: options.approval ?? false });
    this.world.run(500);
  }

  /** Makes an invite at a host, the founder unless said otherwise. */
  invite(
    options: { uses?: number; role?: Role; ttlMs?: number; approval?: boolean; pool?: string; at?: Host } = {},
  ): GivenInvite {
    const { at, ...rest } = options;
    const given = this.world.ask<GivenInvite>(at ?? this.founder, { verb: "invite-create", ...rest });
    this.checkers.uses.set(given.id, options.uses ?? 1);
    return given;
  }

  /** Adds a machine that is off. */
  host(name: string, options: HostOptions = {}): Host {
    return this.world.addHost(name, {
      ...options,
      config: { credentialLifetimeMs: this.lifetimeMs, ...options.config },
    });
  }

  /** Starts a machine that joins with an invite; does not wait for it. */
  start(name: string, invite: GivenInvite, options: HostOptions = {}): Host {
    const host = this.world.boot(this.host(name, options));
    this.world.ask(host, { verb: "join", invite: invite.token });
    return host;
  }

  /** Starts a machine, and waits until it is verified. */
  join(name: string, options: HostOptions & { readonly invite?: GivenInvite; readonly as?: Role } = {}): Host {
    const { invite, as, ...rest } = options;
    const host = this.start(name, invite ?? this.invite(as ? { role: as } : {}), rest);
    this.verified(host);
    return host;
  }

  /** Waits until hosts are verified. */
  verified(...hosts: readonly Host[]): number {
    return this.world.until(
      `${hosts.map((one) => one.name)} verified`,
      () => hosts.every((one) => one.agent && one.view.stage === "verified"),
    );
  }

  /** Waits until each of the hosts has a session with each other. */
  meshed(...hosts: readonly Host[]): number {
    return this.world.until("all see each other", () => meshed(hosts), 120_000);
  }

  /** The code of the last failure that a host reports. */
  lastFailure(host: Host): string | undefined {
    return this.world.status(host).bootstrap.failures.at(-1)?.code;
  }

  /** Waits until a host reports a failure; returns how long it took. */
  failing(host: Host, code: string, withinMs = 60_000): number {
    return this.world.until(
      `${host.name} reports ${code}`,
      () => host.agent !== undefined && this.world.status(host).bootstrap.failures.some((one) => one.code === code),
      withinMs,
    );
  }
}

/** Whether each of the hosts has a session with each other. */
export function meshed(hosts: readonly Host[]): boolean {
  return hosts.every((a) => a.agent && hosts.every((b) => a === b || a.view.sessions.get(b.nodeId)?.member === true));
}

/** What an agent sends in `join.register`, each part to be changed by a test. */
export interface Registration {
  readonly n: Uint8Array;
  readonly g: Envelope;
  readonly m: Envelope;
  readonly w: Uint8Array;
  readonly pn: Uint8Array;
  readonly pi: Uint8Array;
}

/** A newcomer that does by hand what an agent does, and whatever else a test wants. */
export class Newcomer {
  readonly puppet: Puppet;
  readonly key: KeyPair;
  readonly invite: Invite;
  seq = 1;

  constructor(readonly net: Net, readonly name: string, invite: GivenInvite) {
    this.key = keyOf(name);
    this.puppet = net.world.addPuppet(name, this.key);
    this.invite = parseInvite(invite.token);
  }

  call(host: Host, method: string, body: CborValue): Answer {
    return this.net.world.callAs(this.puppet, host, method, encodeCbor(body));
  }

  /** Asks for a challenge; returns what a transcript needs. */
  hello(host: Host): JoinTranscript {
    const joinerNonce = sha256(utf8(`${this.name} nonce ${this.seq++}`));
    const answer = this.call(host, "join.hello", { v: 1, n: joinerNonce });
    if (!answer.ok || !("body" in answer)) throw new Error(`join.hello: ${JSON.stringify(answer)}`);
    const hello = decodeCbor(answer.body) as unknown as { n: Uint8Array; s: { m: { k: Uint8Array } } };
    // What the timed chain of hashes takes.
    this.net.world.run(15);
    const view = this.net.world.peerView(this.puppet, host);
    return {
      networkId: this.invite.networkId,
      registrarKey: hello.s.m.k,
      joinerKey: this.key.publicKey,
      registrarNonce: hello.n,
      joinerNonce,
      channelBinding: view.channelBinding ?? new Uint8Array(0),
      requestHash: new Uint8Array(32),
    };
  }

  /** This newcomer's record of itself. */
  record(change: Partial<MemberRecord> & { readonly can?: Partial<Capabilities> } = {}): Envelope {
    const { can, ...rest } = change;
    return sealMember(
      {
        seq: this.net.world.nowMs + this.seq++,
        name: this.name,
        role: "rhizomorph",
        addresses: [],
        capabilities: { ...SERVER, ...can },
        version: "0.1.0",
        startedMs: this.net.world.nowMs,
        left: false,
        drained: false,
        ...rest,
      },
      this.invite.networkId,
      this.key,
    );
  }

  /** A whole registration for a challenge. */
  registration(transcript: JoinTranscript, change: Partial<MemberRecord> & { can?: Partial<Capabilities> } = {}) {
    const request = { g: this.invite.grantEnvelope, m: this.record(change), w: workOf(transcript.registrarNonce) };
    const whole = { ...transcript, requestHash: registerHash(request) };
    return {
      n: transcript.registrarNonce,
      ...request,
      pn: proveFactor("node", whole, this.key),
      pi: proveFactor("invite", whole, this.invite.keyPair),
    } satisfies Registration;
  }

  /** Sends a registration as it is. */
  send(host: Host, registration: Registration): Answer {
    return this.call(host, "join.register", registrationValue(registration));
  }

  /** The whole way: challenge, answer. */
  register(host: Host, change: Partial<MemberRecord> & { can?: Partial<Capabilities> } = {}): Answer {
    return this.send(host, this.registration(this.hello(host), change));
  }
}

/** A registration as a value for the codec. */
export function registrationValue(one: Registration): CborValue {
  return { n: one.n, g: envelopeValue(one.g), m: envelopeValue(one.m), w: one.w, pn: one.pn, pi: one.pi };
}

/** What an answer came to: its state for a registration, `ok` or the code. */
export function outcome(answer: Answer): string {
  if (!answer.ok) return answer.code;
  if (!("body" in answer)) return "command";
  const body = decodeCbor(answer.body) as { readonly s?: unknown };
  return typeof body.s === "string" ? body.s : "ok";
}
