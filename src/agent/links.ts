/**
 * Keeps channels to other members: to all of a small network, to a few of a large one.
 *
 * @module
 */

import { backoffMs } from "../core/rng.ts";
import { LIMITS } from "../core/limits.ts";
import { parseAddress } from "../core/ids.ts";
import type { AuthorityChain } from "../identity/authority.ts";
import type { Member, MemberTable } from "../membership/table.ts";
import type { Context, Session } from "./context.ts";

/** Up to this many members everybody has a channel to everybody. */
const FULL_MESH_MAX = 32;
const REDIAL = { baseMs: 500, maxMs: 15_000 } as const;
/** For members that have not been seen for an hour. */
const REDIAL_OLD = { baseMs: 15_000, maxMs: 120_000 } as const;
/** The node with the greater id gives the other this long to dial first. */
const YIELD_MS = 1_500;
/** Least wait after a channel that led to no session. */
const REFUSED_MS = 1_000;
/** Dials under way at once. */
const DIALS_MAX = 8;
/** Without any other member for so long, a node counts itself isolated. */
export const ISOLATED_AFTER_MS = 20_000;

interface Attempt {
  failures: number;
  nextMs: number;
  dialing: boolean;
}

/** What was found of the table of members, and by what one sees that it has changed. */
interface Known {
  readonly table: MemberTable;
  readonly version: number;
  readonly revoked: number;
  readonly chain: AuthorityChain | undefined;
  readonly others: readonly Member[];
  readonly wanted: readonly Member[];
}

/** Keeps channels to other members. */
export class Links {
  /** A member could not be dialed at any of its addresses. */
  failed: (nodeId: string) => void = () => {};
  /** Whether a member is not to be dialed for the time being. */
  avoided: (nodeId: string) => boolean = () => false;
  readonly #attempts = new Map<string, Attempt>();
  #lonelySinceMs: number | undefined;
  #last: Known | undefined;

  constructor(readonly ctx: Context, readonly reachable: (reachable: boolean) => void) {}

  /** Regular work; returns when it wants to be woken. */
  wake(): number {
    const { ctx } = this;
    const { state } = ctx;
    if (!state.network?.credential || state.mode === "isolated") return Infinity;
    let nextMs = Infinity;
    const before = this.#last;
    const known = this.#known();
    const { wanted } = known;
    if (known !== before) {
      const live = new Set(wanted.map((one) => one.nodeId));
      for (const nodeId of this.#attempts.keys()) if (!live.has(nodeId)) this.#attempts.delete(nodeId);
    }
    let dialing = [...this.#attempts.values()].filter((one) => one.dialing).length;
    for (const member of wanted) {
      const session = ctx.sessions.get(member.nodeId);
      if (session) {
        if (session.member) this.#attempts.delete(member.nodeId);
        continue;
      }
      if (this.avoided(member.nodeId)) continue;
      let attempt = this.#attempts.get(member.nodeId);
      if (!attempt) {
        const waitMs = state.nodeId < member.nodeId ? 0 : YIELD_MS;
        attempt = { failures: 0, nextMs: ctx.nowMs + waitMs, dialing: false };
        this.#attempts.set(member.nodeId, attempt);
      }
      if (attempt.dialing) continue;
      if (ctx.nowMs < attempt.nextMs) nextMs = Math.min(nextMs, attempt.nextMs);
      else if (dialing < DIALS_MAX) {
        dialing += 1;
        this.#dial(member, attempt);
      } else nextMs = Math.min(nextMs, ctx.nowMs + 250);
    }
    return Math.min(nextMs, this.#connectivity());
  }

  /** Nodes that this node wants a channel to. */
  wanted(): string[] {
    return this.#known().wanted.map((one) => one.nodeId);
  }

  /** The clock was set back: times that were set with it count no longer. */
  clockSetBack(): void {
    for (const attempt of this.#attempts.values()) attempt.nextMs = 0;
    this.#lonelySinceMs = undefined;
  }

  /**
   * A channel closed. Where it was a member's session the next dial comes soon; where the other end took it and
   * then would not have us, it waits longer each time.
   */
  closed(nodeId: string, member: boolean): void {
    const attempt = this.#attempts.get(nodeId);
    if (member || !attempt) {
      this.#attempts.delete(nodeId);
      this.ctx.wakeAt(this.ctx.nowMs);
      return;
    }
    attempt.failures += 1;
    attempt.nextMs = this.ctx.nowMs + REFUSED_MS + backoffMs(attempt.failures, REDIAL_OLD, this.ctx.rng);
    this.ctx.wakeAt(attempt.nextMs);
  }

  #dial(member: Member, attempt: Attempt): void {
    const { ctx } = this;
    const addresses = [...member.record.addresses].sort((a, b) => rank(a) - rank(b));
    const address = addresses[attempt.failures % Math.max(1, addresses.length)];
    const failed = () => {
      attempt.dialing = false;
      attempt.failures += 1;
      const seen = ctx.state.members.observation(member.nodeId);
      const old = ctx.nowMs - Math.max(seen.seenMs, seen.sinceMs, ctx.state.self?.record.startedMs ?? 0) > 3_600_000;
      const rounds = Math.floor(attempt.failures / Math.max(1, addresses.length));
      // The other addresses of the same node get their turn at once; only a whole round of failures waits.
      const again = attempt.failures % Math.max(1, addresses.length) !== 0;
      if (!again) this.failed(member.nodeId);
      attempt.nextMs = ctx.nowMs + (again ? 50 : Math.max(200, backoffMs(rounds, old ? REDIAL_OLD : REDIAL, ctx.rng)));
      ctx.wakeAt(attempt.nextMs);
    };
    if (!address) return failed();
    attempt.dialing = true;
    ctx.dial(address.includes("/p2p/") ? address : `${address}/p2p/${member.nodeId}`, true, (result) => {
      if (!result.ok) return failed();
      attempt.dialing = false;
      attempt.nextMs = ctx.nowMs + 1_000;
      ctx.wakeAt(attempt.nextMs);
    });
  }

  /** The others that are there, and those of them that this node wants a channel to; found anew when something changes. */
  #known(): Known {
    const { state } = this.ctx;
    const table = state.members;
    const { version } = table;
    const revoked = state.revocations.size;
    const chain = state.network?.chain;
    const known = this.#last;
    if (
      known && known.table === table && known.version === version && known.revoked === revoked && known.chain === chain
    ) return known;
    const others = state.members.all().filter((one) =>
      one.nodeId !== state.nodeId && !one.record.left && !state.revocations.get("node", one.publicKey)
    );
    return this.#last = { table, version, revoked, chain, others, wanted: this.#wanted(others) };
  }

  #wanted(others: readonly Member[]): readonly Member[] {
    const { state } = this.ctx;
    if (others.length < FULL_MESH_MAX) return others;
    // Fingers as in Chord: the members at distances 1, 2, 4 … along the ring of ids, and all issuers.
    const ring = [...others, state.self!].sort((a, b) => a.nodeId < b.nodeId ? -1 : 1);
    const at = ring.findIndex((one) => one.nodeId === state.nodeId);
    const wanted = new Set<Member>();
    for (let step = 1; step < ring.length; step *= 2) wanted.add(ring[(at + step) % ring.length]!);
    const issuers = state.network!.chain?.issuers ?? [];
    for (const one of others) {
      if (issuers.some((key) => key.every((byte, i) => byte === one.publicKey[i]))) wanted.add(one);
    }
    return [...wanted].slice(0, LIMITS.channelsMax / 2);
  }

  #connectivity(): number {
    const { ctx } = this;
    if (this.#known().others.length === 0 || hasMember(ctx.sessions)) {
      this.#lonelySinceMs = undefined;
      this.reachable(true);
      return Infinity;
    }
    this.#lonelySinceMs ??= ctx.nowMs;
    const dueMs = this.#lonelySinceMs + ISOLATED_AFTER_MS;
    if (ctx.nowMs < dueMs) return dueMs;
    this.reachable(false);
    return Infinity;
  }
}

function hasMember(sessions: ReadonlyMap<string, Session>): boolean {
  for (const session of sessions.values()) if (session.member) return true;
  return false;
}

/** QUIC before TCP, IPv4 and IPv6 alike, loopback last. */
function rank(address: string): number {
  const parsed = parseAddress(address);
  if (!parsed) return 9;
  const loopback = parsed.host.startsWith("127.") || parsed.host === "::1";
  return (loopback ? 2 : 0) + (parsed.transport === "quic" ? 0 : 1);
}
