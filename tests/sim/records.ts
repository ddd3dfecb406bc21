/**
 * People who put and delete records of their own machines (the Latent Spore's), and what has to come of it: what was
 * acknowledged and not replaced stands at last under its key everywhere, and what was deleted stays deleted.
 *
 * @module
 */

import { LOCAL } from "../../src/agent/access.ts";
import { fromUtf8, toBase64Url, utf8 } from "../../src/core/bytes.ts";
import { publicKeyOf } from "../../src/core/ids.ts";
import type { Rng } from "../../src/core/rng.ts";
import { compareVersions, horizonMs, type Version } from "../../src/spore/table.ts";
import type { Host, World } from "./world.ts";

interface Key {
  readonly host: Host;
  readonly nodeId: string;
  /** Value of the last acknowledged put; `null` for a deletion; `undefined` where there was none. */
  acknowledged: string | null | undefined;
  /** What was asked for since and not answered: it may have happened or not. */
  open: (string | null)[];
  controlId: number | undefined;
}

/** Writers of own records, and the checks of them. */
export class Records {
  readonly #world: World;
  readonly #rng: Rng;
  readonly #keys = new Map<string, Key>();
  /** Winner of each key at each host, as it was seen last. */
  readonly #winners = new Map<Host, { readonly life: number; readonly of: Map<string, Version> }>();
  /** Puts and deletions that were acknowledged. */
  acknowledged = 0;
  #next = 0;

  constructor(world: World, rng: Rng) {
    this.#world = world;
    this.#rng = rng;
  }

  /** Somebody at one of these machines puts or deletes a record. */
  write(hosts: readonly Host[]): void {
    const rng = this.#rng;
    const host = hosts[rng.below(Math.max(1, hosts.length))];
    if (!host?.agent?.isMember) return;
    const name = rng.below(2) === 0 ? `node/${host.nodeId}/note` : `service/web/${host.nodeId}`;
    let key = this.#keys.get(name);
    if (!key) {
      key = { host, nodeId: host.nodeId, acknowledged: undefined, open: [], controlId: undefined };
      this.#keys.set(name, key);
    }
    const value = rng.below(3) === 0 ? null : `r${this.#next++}`;
    key.open.push(value);
    const controlId = this.#world.nextControlId();
    key.controlId = controlId;
    this.#world.dispatch(host, {
      type: "control",
      by: LOCAL,
      nowMs: this.#world.local(host),
      controlId,
      request: value === null
        ? { verb: "spore-delete", key: name }
        : { verb: "spore-put", key: name, value: toBase64Url(utf8(value)) },
    });
  }

  /** An answer came. Returns whether it was for one of these. */
  answered(host: Host, controlId: number, ok: boolean): boolean {
    for (const key of this.#keys.values()) {
      if (key.controlId !== controlId) continue;
      host.controls.delete(controlId);
      key.controlId = undefined;
      const value = key.open.at(-1)!;
      if (!ok) {
        key.open.pop();
        return true;
      }
      key.acknowledged = value;
      key.open = [];
      this.acknowledged += 1;
      return true;
    }
    return false;
  }

  /** A person has made a host forget its network, and what it said there. */
  forget(host: Host): void {
    this.#winners.delete(host);
    for (const [name, key] of this.#keys) if (key.host === host) this.#keys.delete(name);
  }

  /** What of a host's table contradicts what it was before; at most one sentence. */
  check(host: Host): string | undefined {
    if (!host.agent) return undefined;
    let last = this.#winners.get(host);
    if (!last || last.life !== host.life) this.#winners.set(host, last = { life: host.life, of: new Map() });
    const { spores } = host.view;
    const nowMs = this.#world.local(host);
    for (const name of this.#keys.keys()) {
      const winner = spores.get(name)?.winner;
      const before = last.of.get(name);
      if (winner === before) continue;
      if (winner) last.of.set(name, winner);
      else last.of.delete(name);
      if (!before || horizonMs(before) <= nowMs || before.proof && before.proof.untilMs <= nowMs) continue;
      // Whoever was removed takes its words along.
      const author = publicKeyOf(this.#keys.get(name)!.nodeId);
      if (author && host.view.state.revocations.get("node", author)) continue;
      if (!winner) return `${name} is gone before its time`;
      // A proof may stop to count, with the issuers that gave it; the word does not become an older one by that.
      const older = winner.spore.record.seq < before.spore.record.seq;
      if (older && compareVersions(winner, before) < 0) {
        return `${name} fell back from ${shown(before)} to ${shown(winner)}`;
      }
    }
    return undefined;
  }

  /** What is not as it should be at last on these hosts; at most one sentence. */
  unsettled(hosts: readonly Host[]): string | undefined {
    for (const [name, key] of this.#keys) {
      // A machine that is gone for good, or is somebody else now, does not say its records again.
      if (!hosts.includes(key.host) || key.host.nodeId !== key.nodeId) continue;
      const allowed = [...(key.acknowledged === undefined ? [] : [key.acknowledged]), ...key.open];
      if (key.acknowledged === undefined) allowed.push(null);
      let first: string | null | undefined;
      for (const host of hosts) {
        const entry = host.view.spores.get(name);
        // A node's own words come into the Primary Spore in the end. What somebody wrote under a shared key while no
        // primary was to be had stays a newer word than what the Primary Spore has: used once it was confirmed.
        const shared = /^(app|net)\//.test(name);
        const bytes = (shared ? entry?.challenger ?? entry?.winner : entry?.winner)?.spore.record.value;
        const value = bytes === undefined ? null : fromUtf8(bytes);
        first ??= value;
        if (value !== first) return `${name} is ${value} at ${host.name}, elsewhere ${first}`;
        if (!allowed.includes(value)) {
          return `${name} is ${value} at ${host.name}, it should be ${allowed.join(" or ")}`;
        }
      }
    }
    return undefined;
  }
}

function shown(version: Version): string {
  const { seq, value } = version.spore.record;
  return `${version.proof?.tier ?? "latent"} ${seq}${value ? "" : " (deleted)"}`;
}
