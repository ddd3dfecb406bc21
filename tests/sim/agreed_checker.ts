/**
 * That nothing is agreed which was not decided: every record under `agreed/`, in a replica or in the Latent Spore of anybody,
 * is covered by a certificate that follows from the founder's key alone.
 *
 * Verifies with `verifyAgreedRecord`, as a device would; what replicas hold beside it is not believed.
 *
 * @module
 */

import { toHex } from "../../src/core/bytes.ts";
import { NetworkLaw, type Root } from "../../src/agent/agreed_law.ts";
import { ELECTORATE_KEY } from "../../src/agent/agreed.ts";
import type { Host } from "./world.ts";

/** The Latent Spore of a host is looked at so often, by the world's clock; its replica whenever it has come further. */
const EVERY_MS = 200;

/** Remembers a whole run. */
export class AgreedChecker {
  /** `network key hash` of each record that a certificate covers. */
  readonly #covered = new Set<string>();
  /** Electorates of a chain, by its links: a replica keeps the same array until it has another electorate. */
  readonly #chains = new WeakMap<object, readonly Uint8Array[]>();
  readonly #warrants = new WeakSet<Uint8Array>();
  readonly #laws = new Map<string, NetworkLaw>();
  readonly #lookedMs = new Map<Host, number>();
  readonly #indexes = new Map<Host, { readonly life: number; readonly index: number }>();
  /** Records that were found to be covered. */
  seen = 0;

  /** Looks at a host; `fail` throws. */
  check(host: Host, nowMs: number, fail: (what: string) => never): void {
    const { state, primary, spores } = host.view;
    const { genesis, chain } = state.network ?? {};
    const [founder] = chain?.issuersAt(1) ?? [];
    if (!genesis || !founder) return;
    const network = toHex(state.networkId);
    const { genesisKey, operatorKey } = genesis.record;
    const index = this.#indexes.get(host);
    if (primary && (index?.life !== host.life || index.index !== primary.stateIndex)) {
      this.#indexes.set(host, { life: host.life, index: primary.stateIndex });
      const law = this.#lawOf(network, { networkId: state.networkId, founder, operators: [genesisKey, operatorKey] });
      const { agreed } = primary;
      const electorates = this.#follow(network, law, agreed.links) ??
        fail("an electorate does not follow from the one before");
      for (const key of [ELECTORATE_KEY, ...agreed.keys]) {
        const [warrant, hash] = [agreed.warrantOf(key), agreed.hashOf(key)];
        if (!hash && key === ELECTORATE_KEY) continue;
        if (!hash || !warrant) return fail(`"${key}" has a record or a warrant, and not both`);
        if (!this.#warrants.has(warrant)) {
          this.#warrants.add(warrant);
          const shown = law.read(warrant, electorates) ?? fail(`the warrant of "${key}" shows nothing`);
          this.#covered.add(`${network} ${shown.spore.record.key} ${toHex(shown.spore.hash)}`);
        }
        if (!this.#covered.has(`${network} ${key} ${toHex(hash)}`)) fail(`no certificate covers "${key}" in a replica`);
        this.seen += 1;
      }
    }
    if (nowMs < (this.#lookedMs.get(host) ?? -Infinity) + EVERY_MS) return;
    this.#lookedMs.set(host, nowMs);
    for (const { key, winner } of spores.list("agreed/")) {
      if (winner.proof?.tier !== "primary") fail(`"${key}" stands without a majority's proof`);
      if (!this.#covered.has(`${network} ${key} ${toHex(winner.spore.hash)}`)) fail(`no certificate covers "${key}"`);
      this.seen += 1;
    }
  }

  #lawOf(network: string, root: Root): NetworkLaw {
    const law = this.#laws.get(network) ?? new NetworkLaw(root);
    this.#laws.set(network, law);
    return law;
  }

  #follow(network: string, law: NetworkLaw, links: readonly Uint8Array[]): readonly Uint8Array[] | undefined {
    const known = this.#chains.get(links);
    if (known) return known;
    const electorates = [law.genesis];
    for (const link of links) {
      const next = law.follow(electorates.at(-1)!, link);
      const shown = next && law.read(link, electorates.slice(-1));
      if (!shown) return undefined;
      this.#covered.add(`${network} ${ELECTORATE_KEY} ${toHex(shown.spore.hash)}`);
      electorates.push(next);
    }
    this.#chains.set(links, electorates);
    return electorates;
  }
}
