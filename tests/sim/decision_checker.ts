/**
 * Agreement: no two certificates of one instance say different things, whoever holds them; all have the same electorates; and
 * honest voters give nobody evidence that they have done more than be late.
 *
 * @module
 */

import { toHex } from "../../src/core/bytes.ts";
import type { Host } from "./world.ts";

/** Remembers a whole run. */
export class DecisionChecker {
  /** What each instance has decided, by the first who said it. */
  readonly #said = new Map<string, string>();
  /** Record of each electorate, by network and number. */
  readonly #electorates = new Map<string, string>();
  readonly #chains = new Map<Host, string>();
  /** Whether somebody lies: then there is evidence. */
  liars = false;
  /** Instances that were decided. */
  get seen(): number {
    return this.#said.size;
  }

  /** Looks at a host; `fail` throws. `forks`: an operator was told to fork the authority. */
  check(host: Host, forks: boolean, fail: (what: string) => never): void {
    const { state, agreement } = host.view;
    if (!state.network) return;
    for (const [instance, said] of agreement.said) {
      const known = this.#said.get(instance);
      if (known !== undefined && known !== said) fail(`two certificates of ${instance}: ${known} and ${said}`);
      this.#said.set(instance, said);
    }
    if (!this.liars) {
      for (const kind of agreement.faults) if (kind !== "withheld") fail(`evidence against an honest voter: ${kind}`);
    }
    const { chain } = agreement;
    if (!chain || forks) return;
    const newest = `${chain.epoch} ${toHex(chain.recordHash)}`;
    if (this.#chains.get(host) === newest) return;
    this.#chains.set(host, newest);
    const key = `${toHex(state.networkId)} ${chain.epoch}`;
    const known = this.#electorates.get(key);
    const hash = toHex(chain.recordHash);
    if (known !== undefined && known !== hash) fail(`two electorates of number ${chain.epoch}`);
    this.#electorates.set(key, hash);
  }
}
