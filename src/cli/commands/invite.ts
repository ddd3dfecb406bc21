/** `invite`: what lets machines in. @module */

import type { Command } from "commander";
import { ROLES } from "../../core/roles.ts";
import type { InviteStatus } from "../../agent/status.ts";
import { durationFlag, type Register } from "../context.ts";
import { CliError, EXIT, usageError } from "../exit.ts";
import { duration, instant } from "../output.ts";
import { examples, readCreatedInvite, usesFlag } from "./up.ts";

const STATE_STYLES = { "open": "green", "used-up": "dim", "expired": "dim", "revoked": "red" } as const;

/** Adds the commands. */
export function registerInvite(program: Command, register: Register): void {
  const invite = program.command("invite").summary("make, list and revoke invites")
    .description("Invites let machines join. An invite is a secret: it is shown once, when it is made.");
  const create = invite.command("create").summary("make an invite and print it")
    .option("--role <role>", `role that the machine takes: ${ROLES.join(", ")} (default: what it is fit for)`)
    .option("--pool <pool>", "resource pool that the machine enters")
    .option("--uses <count>", "machines that may join with it (default: 1)")
    .option("--ttl <duration>", "how long it is good, for example 15m, 24h, 7d (default: 24h)")
    .option("--approval", "an operator has to approve each join as well");
  examples(create, [
    ["mycelium invite create", "one machine, 24 hours"],
    ["mycelium invite create --role hypha --uses 10 --ttl 7d", "ten edge devices in a week"],
    ["mycelium invite create --quiet > invite.txt", "only the invite, for scripts"],
  ]);
  register(create, async (context, _args, command) => {
    const flags = command.opts<{ role?: string; pool?: string; uses?: string; ttl?: string; approval?: boolean }>();
    if (flags.role !== undefined && !(ROLES as readonly string[]).includes(flags.role)) {
      throw usageError(`Cannot use --role "${flags.role}": wanted one of ${ROLES.join(", ")}`);
    }
    const uses = usesFlag(flags.uses);
    const ttlMs = durationFlag("--ttl", flags.ttl);
    using client = await context.agent();
    const answer = readCreatedInvite(
      await client.control({
        verb: "invite-create",
        ...(flags.role === undefined ? {} : { role: flags.role }),
        ...(flags.pool === undefined ? {} : { pool: flags.pool }),
        ...(uses === undefined ? {} : { uses }),
        ...(ttlMs === undefined ? {} : { ttlMs }),
        ...(flags.approval ? { approval: true } : {}),
      }),
    );
    const { out } = context;
    if (out.json) out.document(answer);
    else if (out.quiet || !out.onTerminal) {
      out.line(answer.token);
      const until = Number.isFinite(answer.expiresMs) ? ` until ${instant(answer.expiresMs)}` : "";
      out.note(`Invite ${answer.id}, good${until}. It is a secret. On the new machine: mycelium join -`);
    } else {
      out.line(`Invite     ${answer.id}`);
      if (Number.isFinite(answer.expiresMs)) out.line(`Good until ${instant(answer.expiresMs)}`);
      out.line();
      out.line(`  mycelium join ${answer.token}`);
      out.line();
      out.note("It is a secret and is not shown again.");
    }
    return EXIT.ok;
  });

  const list = invite.command("list").alias("ls").summary("list invites").option(
    "-a, --all",
    "also those that count no longer",
  );
  register(list, async (context, _args, command) => {
    using client = await context.agent();
    const { invites, nowMs } = await client.status();
    const shown = invites.filter((one) => command.opts<{ all?: boolean }>().all || one.state === "open");
    const { out } = context;
    if (out.json) out.document(shown);
    else if (out.quiet) { for (const one of shown) out.line(one.id); }
    else if (shown.length === 0) out.note("No open invites. Make one with: mycelium invite create");
    else {
      out.table(
        ["ID", "STATE", "ROLE", "POOL", ">LEFT", "EXPIRES", "APPROVAL", "USED BY"],
        shown.map((one) => [
          one.id,
          [STATE_STYLES[one.state] ?? "dim", one.state],
          one.role ?? "any",
          one.pool,
          `${one.usesLeft}/${one.uses}`,
          one.expiresMs > nowMs ? `in ${duration(one.expiresMs - nowMs)}` : instant(one.expiresMs),
          one.approval ? "yes" : "no",
          one.usedBy.map((id) => id.slice(-8)).join(" "),
        ]),
      );
    }
    return EXIT.ok;
  });

  const revoke = invite.command("revoke").alias("rm").argument("<id>", "id of the invite, or the start of it")
    .summary("make an invite worthless").description("Revokes an invite. Machines that joined with it stay members.");
  examples(revoke, [["mycelium invite revoke 3f9c", "the start of the id is enough where it is unique"]]);
  register(revoke, async (context, args) => {
    using client = await context.agent();
    const found = findInvite((await client.status()).invites, args[0]!);
    const result = await client.control({ verb: "invite-revoke", id: found.id });
    if (context.out.json) context.out.document(result ?? {});
    else context.out.note(`Invite ${found.id} is revoked`);
    return EXIT.ok;
  });
}

function findInvite(invites: readonly InviteStatus[], word: string): InviteStatus {
  const found = invites.filter((one) => one.id === word || word.length >= 4 && one.id.startsWith(word));
  const exact = found.find((one) => one.id === word) ?? (found.length === 1 ? found[0] : undefined);
  if (exact) return exact;
  const cause = found.length > 1 ? `"${word}" is the start of ${found.length} invites` : `There is no invite "${word}"`;
  throw new CliError(cause, {
    code: found.length > 1 ? "id-ambiguous" : "id-unknown",
    cure: "See them with: mycelium invite list --all. An invite is named by its id or at least its first 4 characters",
    exitCode: EXIT.usage,
  });
}
