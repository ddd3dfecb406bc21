/**
 * A member that lies: a machine whose agent works, and which alters, repeats, withholds and makes up what leaves it.
 *
 * It holds its own key and credential only: it can sign whatever it likes as itself, and nothing as anybody else. It is
 * no issuer; what a lying issuer can do is limited by the Byzantine protocol, not by Raft.
 *
 * @module
 */

import { type CborValue, decodeCbor, encodeCbor, WireError } from "../../src/core/codec.ts";
import { keyPairFromSeed } from "../../src/core/crypto.ts";
import type { Rng } from "../../src/core/rng.ts";
import { encodeMessage, type RaftMessage } from "../../src/raft/messages.ts";
import { pushValue } from "../../src/spore/messages.ts";
import type { RankProof } from "../../src/spore/proof.ts";
import { sealSpore } from "../../src/spore/record.ts";
import type { Host, World } from "./world.ts";

/** Something that a host says: a call or an answer of a method, or a datagram. */
export interface Said {
  readonly kind: "call" | "answer" | "datagram";
  readonly method: string;
  readonly body: Uint8Array;
}

/** Things that it remembers to say them again. */
const REMEMBERED_MAX = 64;

/** One liar. */
export class Byzantine {
  readonly #world: World;
  readonly #host: Host;
  readonly #rng: Rng;
  readonly #memory: Said[] = [];
  #life = 0;
  #seq = 0;

  /** What it did, for a failure's message. */
  readonly counts: Map<string, number> = new Map();

  constructor(world: World, host: Host, rng: Rng) {
    this.#world = world;
    this.#host = host;
    this.#rng = rng;
    host.tamper = (said) => this.#tamper(said);
    this.#plan();
  }

  /** It is honest from now on. */
  stop(): void {
    this.#life += 1;
    this.#host.tamper = undefined;
  }

  #count(what: string): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
  }

  /** What leaves in the place of something: nothing, that, or several things. */
  #tamper(said: Said): readonly Uint8Array[] {
    // Should it be made an issuer, it is honest from then on: Raft promises nothing where a replica lies.
    if (this.#host.agent?.inspect().state.isIssuer) return [said.body];
    const rng = this.#rng;
    if (this.#memory.length < REMEMBERED_MAX) this.#memory.push(said);
    else this.#memory[rng.below(REMEMBERED_MAX)] = said;
    switch (rng.below(16)) {
      case 0:
        this.#count("withheld");
        return [];
      case 1:
        this.#count("damaged");
        return [flipped(said.body, rng)];
      case 2:
      case 3:
        this.#count("altered");
        return [altered(said, rng)];
      case 4: {
        const other = this.#memory.filter((one) => one.method === said.method && one.kind === said.kind);
        this.#count("replaced by something old");
        return [other[rng.below(other.length)]!.body];
      }
      case 5:
        this.#count("said twice");
        return said.kind === "datagram" ? [said.body, said.body] : [said.body];
      default:
        return [said.body];
    }
  }

  #plan(): void {
    const life = this.#life;
    this.#world.at(this.#world.nowMs + 100 + this.#rng.below(1_500), () => {
      if (life !== this.#life) return;
      if (this.#host.agent?.isMember && !this.#host.view.state.isIssuer) this.#act();
      this.#plan();
    });
  }

  #act(): void {
    const rng = this.#rng;
    const peers = [...this.#host.channels.keys()];
    if (peers.length === 0) return;
    const peer = peers[rng.below(peers.length)]!;
    switch (rng.below(7)) {
      case 0:
        return this.#replay(peer, 1 + rng.below(4));
      case 1:
        this.#count("flooded");
        return this.#replay(peer, 60);
      case 2:
        return this.#garbage(peer);
      case 3:
      case 4:
        return this.#equivocate(peers);
      case 5:
        return this.#forge(peers);
      default:
        return this.#raft(peer);
    }
  }

  /** Says to somebody what it said to somebody else, or heard, some time ago. */
  #replay(peer: string, count: number): void {
    for (let i = 0; i < count && this.#memory.length > 0; i++) {
      const said = this.#memory[this.#rng.below(this.#memory.length)]!;
      this.#count("repeated");
      if (said.kind === "datagram") this.#world.datagramAs(this.#host, peer, said.body);
      else if (said.kind === "call") this.#world.callOf(this.#host, peer, said.method, said.body);
    }
  }

  #garbage(peer: string): void {
    const rng = this.#rng;
    this.#count("garbage");
    const bytes = Uint8Array.from({ length: 1 + rng.below(400) }, () => rng.below(256));
    // Often with the first byte of some protocol.
    if (rng.below(2) === 0) bytes[0] = [0x47, 0x53, 0x72][rng.below(3)]!;
    this.#world.datagramAs(this.#host, peer, bytes);
    const methods = ["gossip", "raft", "spore.push", "spore.digest", "primary.propose", "sync", "push", "swim.ping"];
    this.#world.callOf(this.#host, peer, methods[rng.below(methods.length)]!, bytes);
  }

  /** Says one thing to these and another to those, under one number. */
  #equivocate(peers: readonly string[]): void {
    const { state } = this.#host.view;
    const nowMs = this.#world.local(this.#host);
    const pair = keyPairFromSeed(this.#host.disk.get("secret/node.key")!);
    this.#seq = Math.max(this.#seq + 1, nowMs);
    this.#count("said two things at once");
    for (const [i, peer] of peers.entries()) {
      const value = i % 3 === 0 ? undefined : Uint8Array.of(i % 2);
      const spore = sealSpore(
        {
          key: this.#rng.below(2) === 0 ? `node/${state.nodeId}/note` : "app/k0",
          seq: this.#seq,
          value,
          issuedMs: nowMs,
          expiresMs: nowMs + 3_600_000,
        },
        state.networkId,
        pair,
      );
      this.#world.callOf(this.#host, peer, "spore.push", encodeCbor(pushValue([{ spore, proof: undefined }])));
    }
  }

  /** Writes in somebody else's name, far in the future, or with a proof of nothing. */
  #forge(peers: readonly string[]): void {
    const { state } = this.#host.view;
    const rng = this.#rng;
    const nowMs = this.#world.local(this.#host);
    const pair = keyPairFromSeed(this.#host.disk.get("secret/node.key")!);
    const victim = peers[rng.below(peers.length)]!;
    const seq = nowMs + [0, 60_000, 86_400_000, 2 ** 40][rng.below(4)]!;
    const spore = sealSpore(
      {
        key: [`node/${victim}/note`, `service/web/${victim}`, "net/policy", "app/k1"][rng.below(4)]!,
        seq,
        value: rng.below(2) === 0 ? undefined : Uint8Array.of(7),
        issuedMs: seq,
        expiresMs: seq + 3_600_000,
      },
      state.networkId,
      pair,
    );
    this.#count("forged");
    const proof: RankProof | undefined = rng.below(2) === 0 ? undefined : {
      tier: "primary",
      epoch: state.network!.chain!.epoch,
      term: 1_000,
      index: 1_000_000,
      untilMs: nowMs + 86_400_000,
      signatures: [{ key: pair.publicKey, signature: new Uint8Array(64) }],
    };
    const body = encodeCbor(pushValue([{ spore, proof }]));
    this.#world.callOf(this.#host, victim, "spore.push", body);
    this.#world.callOf(this.#host, peers[rng.below(peers.length)]!, "spore.push", body);
  }

  /** Takes part in elections where it has no part. */
  #raft(peer: string): void {
    const rng = this.#rng;
    const term = 1 + rng.below(1_000);
    const messages: readonly RaftMessage[] = [
      { type: "vote", term, lastLogIndex: 2 ** 40, lastLogTerm: term, transfer: true },
      { type: "heartbeat", term, commitIndex: 2 ** 40, round: 1 },
      { type: "append", term, prevLogIndex: 0, prevLogTerm: 0, entries: [], commitIndex: 0 },
      { type: "append-response", term, index: 2 ** 40 },
      { type: "vote-response", term, granted: true },
      { type: "timeout-now", term },
    ];
    this.#count("Raft messages");
    const target = this.#world.hosts.find((one) => one.nodeId === peer)?.agent?.inspect().primary?.id;
    const body = encodeCbor({
      f: `${this.#host.nodeId}.00000000`,
      t: target ?? `${peer}.00000000`,
      m: messages.filter(() => rng.below(2) === 0).map(encodeMessage),
    });
    this.#world.callOf(this.#host, peer, "raft", body);
    const datagram = new Uint8Array(body.length + 1);
    datagram[0] = 0x72;
    datagram.set(body, 1);
    if (datagram.length < 1_100) this.#world.datagramAs(this.#host, peer, datagram);
  }
}

function flipped(body: Uint8Array, rng: Rng): Uint8Array {
  const out = body.slice();
  if (out.length > 0) out[rng.below(out.length)]! ^= 1 << rng.below(8);
  return out;
}

/** The same thing with one value in it changed: it reads as well as before, and says something else. */
function altered({ kind, body }: Said, rng: Rng): Uint8Array {
  const skip = kind === "datagram" ? 1 : 0;
  let value: CborValue;
  try {
    value = decodeCbor(body.subarray(skip));
  } catch (error) {
    if (!(error instanceof WireError)) throw error;
    return flipped(body, rng);
  }
  const leaves = countLeaves(value);
  const encoded = encodeCbor(withLeaf(value, { left: rng.below(Math.max(1, leaves)) }, rng) ?? null);
  const out = new Uint8Array(skip + encoded.length);
  out.set(body.subarray(0, skip));
  out.set(encoded, skip);
  return out;
}

function countLeaves(value: CborValue | undefined): number {
  if (value instanceof Uint8Array || value === null || typeof value !== "object") return 1;
  const inner = Array.isArray(value) ? value : Object.values(value);
  return inner.reduce((sum: number, one) => sum + countLeaves(one as CborValue), 0);
}

function withLeaf(value: CborValue | undefined, at: { left: number }, rng: Rng): CborValue | undefined {
  if (value instanceof Uint8Array || value === null || typeof value !== "object") {
    return at.left-- === 0 ? changed(value, rng) : value;
  }
  if (Array.isArray(value)) return value.map((one) => withLeaf(one as CborValue, at, rng) ?? null);
  return Object.fromEntries(
    Object.entries(value).map(([key, one]) => [key, withLeaf(one as CborValue, at, rng)]),
  );
}

function changed(value: CborValue | undefined, rng: Rng): CborValue {
  if (typeof value === "number") return [0, value + 1, Math.max(0, value - 1), value * 2, 2 ** 40][rng.below(5)]!;
  if (typeof value === "boolean") return !value;
  if (value instanceof Uint8Array) return flipped(value, rng);
  if (typeof value === "string") return value.slice(1) + "x";
  return 1;
}
