/** `bootstrap`: a person's hand on each stage of joining. @module */

import type { Command } from "commander";
import { parseAddress } from "../../core/ids.ts";
import type { Register } from "../context.ts";
import { EXIT, usageError } from "../exit.ts";
import { safe } from "../output.ts";
import { resultText } from "./node.ts";
import { examples } from "./up.ts";

/** Adds the commands. */
export function registerBootstrap(program: Command, register: Register): void {
  const bootstrap = program.command("bootstrap").summary(
    "help a node that does not get into its network",
  )
    .description(
      "By itself a node keeps trying for ever. These commands are for a person who knows more than it does.",
    );

  const retry = bootstrap.command("retry").summary("try again now, without waiting");
  register(retry, async (context) => {
    using client = await context.agent();
    const result = await client.control({ verb: "bootstrap-retry" });
    if (context.out.json) context.out.document(result ?? {});
    else context.out.note("It tries again. See how it goes with: mycelium status --watch");
    return EXIT.ok;
  });

  const reset = bootstrap.command("reset").summary("forget the network and begin anew")
    .description("Forgets the network, the credential and the invite; the node key stays. It needs a new invite then.")
    .option("--dry-run", "say what would be forgotten, change nothing")
    .option("-y, --yes", "do not ask");
  examples(reset, [["mycelium bootstrap reset --dry-run", ""]]);
  register(reset, async (context, _args, command) => {
    const flags = command.opts<{ dryRun?: boolean; yes?: boolean }>();
    using client = await context.agent();
    const { network, members } = await client.status();
    const { out } = context;
    if (flags.dryRun) {
      const result = await client.control({ verb: "bootstrap-reset", dryRun: true });
      if (out.json) out.document({ dryRun: true, networkId: network?.networkId, result: result ?? {} });
      else {out.line(
          `Would forget ${network ? `network ${safe(network.name)}` : "the attempt to join"}${resultText(result)}`,
        );}
      return EXIT.ok;
    }
    const genesis = network?.genesisKey === "here" ? " Its genesis key is on this machine and is lost with it." : "";
    const alone = network && members.length <= 1 ? " This machine is its only member." : "";
    const what = network ? `network ${safe(network.name)} (${network.networkId.slice(0, 12)})` : "the attempt to join";
    await context.confirm(`Forget ${what}?${alone}${genesis} Go on?`, flags.yes);
    const result = await client.control({ verb: "bootstrap-reset" });
    if (out.json) out.document(result ?? {});
    else out.note("Forgotten. Join again with: mycelium join --invite-file <path>");
    return EXIT.ok;
  });

  const force = bootstrap.command("force-endpoint").argument("<address>", "multiaddr of a member")
    .summary("try this address next");
  examples(force, [["mycelium bootstrap force-endpoint /ip4/192.0.2.7/udp/4871/quic-v1", ""]]);
  register(force, async (context, args) => {
    const address = args[0]!;
    if (!parseAddress(address)) {
      throw usageError(
        `Cannot use address "${address.slice(0, 200)}": not a multiaddr`,
        "Wanted for example /ip4/192.0.2.7/udp/4871/quic-v1 or /dns/host.example/tcp/4871; a member shows its own " +
          "with: mycelium status --json | jq .node.addresses",
      );
    }
    using client = await context.agent();
    const result = await client.control({ verb: "bootstrap-force-endpoint", address });
    if (context.out.json) context.out.document(result ?? {});
    else context.out.note(`It tries ${address} next. See how it goes with: mycelium status --watch`);
    return EXIT.ok;
  });
}
