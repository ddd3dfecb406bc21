/** `seed`: addresses of the network for machines that cannot hear it. @module */

import type { Command } from "commander";
import { durationFlag, type Register } from "../context.ts";
import { CliError, EXIT } from "../exit.ts";
import { duration } from "../output.ts";
import { examples } from "./up.ts";

/** Adds the commands. */
export function registerSeed(program: Command, register: Register): void {
  const seed = program.command("seed").summary("put the network's addresses into a file or on a web server")
    .description(
      "A seed document is a signed list of addresses. It is no secret and proves nothing: it leads a machine that has an " +
        "invite, or a member that comes back, to the network.",
    );
  const make = seed.command("export").summary("print a seed document")
    .option("--ttl <duration>", "how long it counts as fresh (default: 30d)");
  examples(make, [
    ["mycelium seed export > home.seed", "for a USB stick: up --seed-file home.seed"],
    ["mycelium seed export > /var/www/home.seed", "for a web server: up --seed-url https://example.net/home.seed"],
  ]);
  register(make, async (context, _args, command) => {
    const ttlMs = durationFlag("--ttl", command.opts<{ ttl?: string }>().ttl);
    using client = await context.agent();
    const result = await client.control({ verb: "seed-export", ...(ttlMs === undefined ? {} : { ttlMs }) });
    const { text, addresses, expiresMs } = readExported(result);
    if (context.out.json) context.out.document({ text, addresses, expiresMs });
    else {
      context.out.line(text.trimEnd());
      context.out.note(`${addresses.length} addresses, fresh for ${duration(expiresMs - context.deps.now())}`);
    }
    return EXIT.ok;
  });
}

function readExported(
  result: unknown,
): { readonly text: string; readonly addresses: readonly string[]; readonly expiresMs: number } {
  const { text, addresses, expiresMs } = (result ?? {}) as Record<string, unknown>;
  if (typeof text !== "string" || !Array.isArray(addresses) || typeof expiresMs !== "number") {
    throw new CliError("The agent's answer cannot be read", {
      code: "bad-answer",
      cure: "Compare versions: mycelium version",
    });
  }
  return { text, addresses: addresses.map(String), expiresMs };
}
