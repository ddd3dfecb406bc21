/** `agreement show`: an agreed record with what shows it, verified from the founder's key. @module */

import type { Command } from "commander";
import type { Register } from "../context.ts";
import { EXIT } from "../exit.ts";
import { byteSize, instant, plural, safe } from "../output.ts";
import { examples } from "./up.ts";

/** What the agent answers to `agreed-show`. */
interface Shown {
  readonly key: string;
  readonly hash: string;
  readonly author: string;
  readonly seq: number;
  readonly issuedMs: number;
  readonly deleted: boolean;
  readonly valueBytes: number;
  readonly class: string;
  readonly epoch: number;
  readonly newestEpoch: number;
  readonly seats: number;
  readonly of: number;
  readonly chainBytes: number;
  readonly warrantBytes: number;
  readonly primary?: boolean;
  readonly latent: boolean;
}

/** Adds the command. */
export function registerShow(agreement: Command, register: Register): void {
  const show = agreement.command("show").argument("<key>", "for example agreed/electorate")
    .summary("what shows that a record was decided")
    .description(
      "Fetches the certificate and all electorates since the founder, and verifies them on this node with the founder's key " +
        "alone. Fails where the record on this node is another one.",
    );
  examples(show, [["mycelium agreement show agreed/electorate", ""], [
    "mycelium agreement show agreed/trust --json",
    "",
  ]]);
  register(show, async (context, args) => {
    using client = await context.agent();
    const shown = await client.control({ verb: "agreed-show", key: args[0]! }) as Shown;
    const { out } = context;
    const same = shown.latent && shown.primary !== false;
    if (out.json) {
      out.document(shown);
      return same ? EXIT.ok : EXIT.failed;
    }
    const by = shown.class === "operator"
      ? "the operator's word, in place of a lost quorum"
      : `${shown.class}: ${shown.seats} of ${shown.of} seats of electorate ${shown.epoch}`;
    out.line(safe(shown.key));
    out.line(`  decided by   ${by}`);
    out.line(`  said by      ${safe(shown.author)}, ${instant(shown.issuedMs)}`);
    out.line(
      `  record       ${shown.deleted ? "deleted" : byteSize(shown.valueBytes)}, hash ${shown.hash.slice(0, 16)}`,
    );
    out.line(
      `  verified     certificate ${byteSize(shown.warrantBytes)}; ${
        plural(shown.newestEpoch, "electorate")
      } since the founder, ${byteSize(shown.chainBytes)}`,
    );
    out.line(`  on this node ${same ? "the same" : "another one, or none yet"}`);
    return same ? EXIT.ok : EXIT.failed;
  });
}
