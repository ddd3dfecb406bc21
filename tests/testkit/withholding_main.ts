/**
 * `mycelium` as it ships, but for one thing: as a voter it never opens what it has committed to. A liar for tests.
 *
 * @module
 */

import { Consensus } from "../../src/consensus/consensus.ts";
import type { ConsensusEffect } from "../../src/consensus/effects.ts";

const honest = Consensus.prototype.step;

/** Effects without openings. */
function withheld(effects: readonly ConsensusEffect[]): readonly ConsensusEffect[] {
  return effects.flatMap((one): ConsensusEffect[] => {
    if (one.type === "send" && one.message.type === "open") return [];
    return one.type === "persist" ? [{ ...one, then: withheld(one.then) }] : [one];
  });
}

Consensus.prototype.step = function (event) {
  return withheld(honest.call(this, event));
};

await import("../../main.ts");
