/** `agreement`: who decides, how the quorum is, what is decided, and going on where it is lost. @module */

import { resolve } from "node:path";
import type { Command } from "commander";
import type { OperationView } from "../../agent/agreement_operations.ts";
import type { AgreementStatus, DecisionStatus, Status } from "../../agent/status.ts";
import { toBase64Url, utf8 } from "../../core/bytes.ts";
import type { Context, Register } from "../context.ts";
import { durationFlag } from "../context.ts";
import { CliError, EXIT, usageError } from "../exit.ts";
import { byteSize, type Cell, instant, plural, safe } from "../output.ts";
import { registerShow } from "./agreed.ts";
import { examples } from "./up.ts";

/** Between two looks of `watch`. */
const WATCH_MS = 500;

interface Lists {
  readonly operations: readonly OperationView[];
  readonly decisions: readonly DecisionStatus[];
}

/** Adds the commands. */
export function registerAgreement(program: Command, register: Register): void {
  const agreement = program.command("agreement").summary("decisions that no single machine can make or change")
    .description(
      "What matters is decided by more than two thirds of the voters' seats: who votes, who may do what, how much a node is " +
        "trusted. Each decision has a certificate that any device can check. From four voters on, less than a third of " +
        "them may lie.",
    );
  const status = agreement.command("status").summary("who votes, how many may fail, how the quorum is");
  examples(status, [["mycelium agreement status", ""], ["mycelium agreement status --json", ""]]);
  register(status, async (context) => {
    using client = await context.agent();
    const all = await client.status();
    const found = agreementOf(all);
    if (context.out.json) context.out.document({ ...found });
    else show(context, all, found);
    return found.health === "lost" || found.broken ? EXIT.failed : EXIT.ok;
  });
  registerShow(agreement, register);
  registerSubmit(agreement, register);
  registerLists(agreement, register);
  registerEmergency(agreement, register);
}

function registerSubmit(agreement: Command, register: Register): void {
  const submit = agreement.command("submit").argument("<key>").argument("[value]").summary("have a record decided")
    .description(
      "Waits until it is decided and applied. Keys under app/ ask for fast agreement (one voter signs, the others check), " +
        "net/ for standard (a committee), agreed/ for critical (all voters).",
    )
    .option("--class <class>", "fast, standard or critical; at least what the key asks for")
    .option("--priority <number>", "0 (background) to 7 (urgent); what waits rises by itself")
    .option("--delete", "delete what stands there")
    .option("--timeout <duration>", "wait at most so long (default: 60s)");
  examples(submit, [
    ["mycelium agreement submit app/shop/limit 20 --class critical", ""],
    ["mycelium agreement submit app/shop/limit --delete", ""],
  ]);
  register(submit, async (context, args, command) => {
    const flags = command.opts<{ class?: string; priority?: string; delete?: boolean; timeout?: string }>();
    const [key, value] = args;
    if ((value === undefined) === (flags.delete !== true)) throw usageError("Give a value, or --delete");
    if (flags.class !== undefined && !["fast", "standard", "critical"].includes(flags.class)) {
      throw usageError(`Cannot use --class "${flags.class}": wanted fast, standard or critical`);
    }
    const priority = flags.priority === undefined ? undefined : Number(flags.priority);
    if (priority !== undefined && !(Number.isInteger(priority) && priority >= 0 && priority <= 7)) {
      throw usageError(`Cannot use --priority "${flags.priority}": wanted 0 to 7`);
    }
    const timeoutMs = durationFlag("--timeout", flags.timeout) ?? 60_000;
    using client = await context.agent();
    const result = await client.control({
      verb: "agreement-submit",
      key,
      ...(value === undefined ? {} : { value: toBase64Url(utf8(value)) }),
      ...(flags.class === undefined ? {} : { class: flags.class }),
      ...(priority === undefined ? {} : { priority }),
      timeoutMs,
    }) as { readonly instance: string; readonly index?: number; readonly round: number; readonly tookMs: number };
    if (context.out.json) context.out.document(result);
    else {
      const applied = result.index === undefined ? "certified, not applied yet" : `entry ${result.index}`;
      context.out.note(`Decided in ${result.tookMs} ms, ${applied} (${result.instance.slice(0, 16)})`);
    }
    return EXIT.ok;
  });
  const cancel = agreement.command("cancel").argument("<id>").summary("take back what waits to be decided");
  examples(cancel, [["mycelium agreement cancel 12", "the number that agreement list shows"]]);
  register(cancel, async (context, args) => {
    const id = Number(args[0]);
    if (!Number.isSafeInteger(id) || id < 0) throw usageError(`Cannot use id "${args[0]}": wanted a number`);
    using client = await context.agent();
    const result = await client.control({ verb: "agreement-cancel", id }) as { readonly cancelled: boolean };
    if (context.out.json) context.out.document(result);
    else context.out.note(result.cancelled ? "Taken back" : "Too late: it is over, or the others are deciding it");
    return result.cancelled ? EXIT.ok : EXIT.refused;
  });
}

function registerLists(agreement: Command, register: Register): void {
  const list = agreement.command("list").alias("ls").summary("what waits, and the last decisions");
  examples(list, [["mycelium agreement list", ""]]);
  register(list, async (context) => {
    using client = await context.agent();
    const lists = await client.control({ verb: "agreement-list" }) as Lists;
    const { out } = context;
    if (out.json) {
      out.document(lists);
      return EXIT.ok;
    }
    const names = namesOf(await client.status());
    out.table(
      [">ID", "KEY", "CLASS", "STATE", "SINCE", ""],
      lists.operations.map((one): Cell[] => [
        String(one.id),
        safe(one.key),
        one.class,
        one.state,
        instant(one.createdMs),
        one.reason ?? "",
      ]),
    );
    out.line("");
    out.table(
      ["DECIDED", "CLASS", "BY", ">SIGNED", ">ACCEPTED", "KEYS"],
      lists.decisions.map((one) => decisionCells(one, names)),
    );
    return EXIT.ok;
  });
  const watch = agreement.command("watch").summary("show decisions as they are made, until interrupted")
    .option("--count <number>", "stop after so many");
  examples(watch, [["mycelium agreement watch", ""], ["mycelium agreement watch --count 1 --json", ""]]);
  register(watch, async (context, _args, command) => {
    const { count } = command.opts<{ count?: string }>();
    const most = count === undefined ? Infinity : Number(count);
    if (!(most > 0)) throw usageError(`Cannot use --count "${count}": wanted a number above 0`);
    using client = await context.agent();
    const names = namesOf(await client.status());
    const seen = new Set<string>();
    let shown = 0;
    for (let first = true; shown < most; first = false) {
      const { decisions } = await client.control({ verb: "agreement-list" }) as Lists;
      for (const one of decisions) {
        if (seen.has(one.instance)) continue;
        seen.add(one.instance);
        // What was decided before is not what a person waits for.
        if (first || shown >= most) continue;
        shown += 1;
        if (context.out.json) context.out.document(one);
        else {
          context.out.line(
            decisionCells(one, names).map((cell) => typeof cell === "string" ? cell : cell[1]).join("  "),
          );
        }
      }
      if (shown < most) await new Promise((resolve) => setTimeout(resolve, WATCH_MS));
    }
    return EXIT.ok;
  });
}

function registerEmergency(agreement: Command, register: Register): void {
  const emergency = agreement.command("emergency").summary("go on where the voters that are left are too few")
    .description(
      "For a network whose voters with more than a third of the seats do not answer and do not come back soon. The others " +
        "go on without them. Needs the operator's key or the genesis key; is audited on all nodes. When the missing ones " +
        "answer again they are taken back by themselves. See docs/runbooks/lost-quorum.md.",
    )
    .option(
      "--without <node>",
      "a voter to go on without, may be repeated (default: those that do not answer)",
      (one: string, all: readonly string[] = []) => [...all, one],
    )
    .option("--reason <text>", "why; it stays with the electorate")
    .option("--key <file>", "file with the operator's key or the genesis key (default: what is on this node)")
    .option("--dry-run", "say what would happen, change nothing")
    .option("-y, --yes", "do not ask");
  examples(emergency, [
    ["mycelium agreement emergency --dry-run", ""],
    ["mycelium agreement emergency --without rack2 --reason 'rack2 has burnt' --yes", ""],
  ]);
  register(emergency, async (context, _args, command) => {
    const flags = command.opts<
      { without?: readonly string[]; reason?: string; key?: string; dryRun?: boolean; yes?: boolean }
    >();
    using client = await context.agent();
    const request = {
      verb: "agreement-emergency",
      without: flags.without ?? [],
      ...(flags.reason === undefined ? {} : { reason: flags.reason }),
      ...(flags.key === undefined ? {} : { keyFile: resolve(context.deps.cwd, flags.key) }),
    };
    const names = namesOf(await client.status());
    const plan = await client.control({ ...request, dryRun: true }) as {
      readonly voters: readonly string[];
      readonly without: readonly string[];
      readonly tolerated: number;
      readonly silent: readonly string[];
    };
    const { out } = context;
    if (out.json && flags.dryRun) out.document(plan);
    else {
      out.note(
        `Would go on without ${plan.without.map(names).join(", ")}: ${plural(plan.voters.length, "voter")} (${
          plan.voters.map(names).join(", ")
        }), of which ${plan.tolerated} may fail`,
      );
      if (plan.silent.length > 0) out.note(`Of these ${plan.silent.map(names).join(", ")} do not answer now`);
    }
    if (flags.dryRun) return EXIT.ok;
    await context.confirm("Put this electorate in the place of the one that is lost?", flags.yes);
    const result = await client.control(request);
    if (out.json) out.document(result ?? {});
    else out.note("Signed and told to all members. See: mycelium agreement status");
    return EXIT.ok;
  });
}

function agreementOf(status: Status): AgreementStatus {
  if (status.agreement) return status.agreement;
  throw new CliError("This node is not a member of a network yet", {
    code: "no-network",
    cure: "Form one: mycelium init; or join one: mycelium join <invite>",
    exitCode: EXIT.failed,
  });
}

function namesOf(status: Status): (nodeId: string) => string {
  return (nodeId) => safe(status.members.find((one) => one.nodeId === nodeId)?.name ?? nodeId.slice(-8));
}

function decisionCells(one: DecisionStatus, names: (nodeId: string) => string): Cell[] {
  return [
    instant(one.atMs),
    one.class,
    names(one.proposer),
    `${one.signers} of ${one.voters}`,
    `${one.accepted} of ${one.operations}`,
    one.keys.map(safe).join(" "),
  ];
}

function show(context: Context, status: Status, found: AgreementStatus): void {
  const { out } = context;
  const names = namesOf(status);
  if (found.broken) out.line(`This node   takes no part: ${safe(found.broken)}`);
  else out.line(`This node   ${found.votes ? "votes" : "does not vote"}`);
  out.line(`Electorate  number ${found.epoch}, ${plural(found.voters.length, "voter")}`);
  out.line(`Tolerates   ${toleratesText(found)}`);
  out.line(`Quorum      ${quorumText(found)}`);
  out.line(
    `Work        ${found.queued} queued, ${found.voting} under way` +
      `${found.waiting > 0 ? ` (${found.waiting} wait for state)` : ""}` +
      `${found.handovers > 0 ? `, ${plural(found.handovers, "decision")} to be applied` : ""}`,
  );
  out.line(
    `So far      ${plural(found.decided, "decision")}, ${found.failed} not decided, ` +
      `${found.messages} messages (${byteSize(found.messageBytes)})`,
  );
  if (found.evidence > 0) out.line(`Evidence    ${found.evidence} faults of voters: mycelium evidence list`);
  if (found.emergency) {
    const { reason, issuedMs, without } = found.emergency;
    out.line(
      `Emergency   since ${instant(issuedMs)} without ${without.map(names).join(", ") || "nobody"}: ${safe(reason)}`,
    );
  }
  out.line("");
  out.table(
    ["NAME", "NODE", ">SEATS", "SINCE", ""],
    found.voters.map((one): Cell[] => [
      names(one.nodeId),
      one.nodeId.slice(-8),
      String(one.seats),
      instant(one.sinceMs),
      one.answers ? "answers" : ["yellow", "does not answer"],
    ]),
  );
}

/** What the electorate bears, plainly. */
export function toleratesText(found: AgreementStatus): string {
  const count = found.voters.length;
  if (found.tolerated > 0) return `${found.tolerated} of ${count} voters that lie or fail`;
  if (count === 1) return "nothing: one voter decides alone, and what it signs can be checked";
  return `no fault (f = 0): all ${count} have to agree; from four voters on one may fail`;
}

/** How the quorum is, plainly. */
export function quorumText(found: AgreementStatus): string {
  const seats = `${found.seats} of ${found.seatsOf} seats answer, ${found.seatsNeeded} decide`;
  switch (found.health) {
    case "full":
      return `full: ${seats}`;
    case "sound":
      return `sound: ${seats}; one more may fail`;
    case "fragile":
      return `fragile: ${seats}; no further one may fail`;
    case "lost":
      return `lost: ${seats}; bring voters back, or see docs/runbooks/lost-quorum.md`;
  }
}
