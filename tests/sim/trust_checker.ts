/**
 * Trust: all nodes have the same scores under the same version, versions follow each other, a ban is for good, and where nobody
 * lies nobody is banned.
 *
 * @module
 */

import { toHex } from "../../src/core/bytes.ts";
import { nodeIdOf } from "../../src/core/ids.ts";
import { trustHash, type TrustState } from "../../src/trust/agreed.ts";
import type { Host } from "./world.ts";

/** Remembers a whole run. */
export class TrustChecker {
  /** Hash of each version, by network and number. */
  readonly #versions = new Map<string, string>();
  readonly #states = new WeakMap<Host, TrustState>();
  /** Highest version that was seen. */
  newest = 0;

  /** Looks at a host; `fail` throws. `forks`: an operator was told to fork the authority; `liars`: somebody lies. */
  check(
    host: Host,
    options: { readonly forks: boolean; readonly liars: boolean },
    fail: (what: string) => never,
  ): void {
    const { state, trust } = host.view;
    const agreed = trust.state;
    if (!state.network || !agreed || this.#states.get(host) === agreed) return;
    const before = this.#states.get(host);
    this.#states.set(host, agreed);
    const banned = agreed.rows.filter((one) => one.banned);
    if (!options.liars && banned.length > 0) fail(`${nodeIdOf(banned[0]!.publicKey)} is banned, and nobody lies`);
    if (options.forks) return;
    const key = `${toHex(state.networkId)} ${agreed.version}`;
    const hash = toHex(trustHash(agreed));
    const known = this.#versions.get(key);
    if (known !== undefined && known !== hash) fail(`two versions ${agreed.version} of the agreed scores`);
    this.#versions.set(key, hash);
    this.newest = Math.max(this.newest, agreed.version);
    const previous = this.#versions.get(`${toHex(state.networkId)} ${agreed.version - 1}`);
    if (previous !== undefined && previous !== toHex(agreed.basis.previous)) {
      fail(`version ${agreed.version} does not follow the one before`);
    }
    if (!before || before.version > agreed.version) return;
    for (const one of before.rows) {
      const now = agreed.rows.find((row) => toHex(row.publicKey) === toHex(one.publicKey));
      if (one.banned && !now?.banned) fail(`${nodeIdOf(one.publicKey)} was banned and is not any more`);
    }
  }
}
