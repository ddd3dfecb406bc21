/** `incident`: what this node found suspicious, and what is done about it. @module */

import type { Command } from "commander";
import type { IncidentRule } from "../../access/incidents.ts";
import type { IncidentView } from "../../agent/incidents.ts";
import { type Context, durationFlag, type Register } from "../context.ts";
import { EXIT, usageError } from "../exit.ts";
import { duration, instant, plural, safe } from "../output.ts";
import { examples } from "./up.ts";

const RESPONSES = ["throttle", "quarantine", "revoke", "release"];
const STATE_STYLES = { open: "red", acknowledged: "yellow", closed: "dim" } as const;

/** Adds the commands. */
export function registerIncident(program: Command, register: Register): void {
  const incident = program.command("incident").summary("what this node found suspicious, and what is done about it")
    .description(
      "Rules look at what is refused and at the audit log. What they find is an incident of this node: it alerts, and slows " +
        "down who did it. Every response ends by itself, is in the audit log, and can be taken back. See docs/runbooks/incident.md.",
    );
  const list = incident.command("list").alias("ls").summary("list incidents")
    .option("-a, --all", "also those that are closed");
  register(list, async (context, _args, command) => {
    using client = await context.agent();
    const all = command.opts<{ all?: boolean }>().all ?? false;
    const found = await client.control({ verb: "incident-list", all }) as readonly IncidentView[];
    const { out } = context;
    if (out.json) out.document(found);
    else if (found.length === 0) out.note(all ? "There was none" : "There is none. Closed ones: --all");
    else {
      const nowMs = context.deps.now();
      out.table(
        ["ID", "STATE", "SEVERITY", "RULE", "SUBJECT", ">EVENTS", "LAST", "IN FORCE"],
        found.map((one) => [
          String(one.id),
          [STATE_STYLES[one.state], one.state],
          one.severity,
          one.rule,
          one.subject,
          String(one.count),
          `${duration(nowMs - one.lastMs)} ago`,
          one.measures.filter((measure) => measure.active).map((measure) => measure.response).join(", "),
        ]),
      );
    }
    return EXIT.ok;
  });

  const show = incident.command("show").argument("<id>", "number of the incident").summary("all about one incident");
  register(show, async (context, args) => {
    using client = await context.agent();
    const found = await client.control({ verb: "incident-show", id: idOf(args[0]!) }) as IncidentView;
    if (context.out.json) context.out.document(found);
    else showOne(context, found);
    return EXIT.ok;
  });

  const ack = incident.command("ack").argument("<id>", "number of the incident")
    .summary("say that you know of it").option("--note <text>", "what you found out")
    .description(
      "Acknowledges an incident: the alert ends. Responses in force stay; end them with: respond --action release.",
    );
  examples(ack, [['mycelium incident ack 3 --note "our scanner"', ""]]);
  register(ack, async (context, args, command) => {
    const { note } = command.opts<{ note?: string }>();
    using client = await context.agent();
    const found = await client.control({
      verb: "incident-ack",
      id: idOf(args[0]!),
      ...(note === undefined ? {} : { note }),
    }) as IncidentView;
    if (context.out.json) context.out.document(found);
    else context.out.note(`Incident ${found.id} is acknowledged`);
    return EXIT.ok;
  });

  const respond = incident.command("respond").argument("<id>", "number of the incident")
    .summary("begin a response, or end all that are in force")
    .requiredOption("--action <action>", `one of ${RESPONSES.join(", ")}; release ends those in force`)
    .option("--for <duration>", "how long throttle or quarantine last (default: 1h)")
    .option("--dry-run", "say what would happen, change nothing")
    .option("-y, --yes", "do not ask")
    .description(
      "throttle: calls are let through a few at a time. quarantine: this node has nothing to do with that node for a time. " +
        "revoke: the node is removed from the network, or the invites are taken back, for good.",
    );
  examples(respond, [
    ["mycelium incident respond 3 --action quarantine --for 6h --dry-run", ""],
    ["mycelium incident respond 3 --action release", "it was nothing"],
  ]);
  register(respond, async (context, args, command) => {
    const flags = command.opts<{ action: string; for?: string; dryRun?: boolean; yes?: boolean }>();
    const response = RESPONSES.find((one) => one === flags.action);
    if (!response) throw usageError(`Cannot use --action "${flags.action}": wanted one of ${RESPONSES.join(", ")}`);
    const forMs = durationFlag("--for", flags.for);
    using client = await context.agent();
    const request = {
      verb: "incident-respond",
      id: idOf(args[0]!),
      response,
      ...(forMs === undefined ? {} : { forMs }),
    };
    const plan = await client.control({ ...request, dryRun: true }) as Responded;
    const { out } = context;
    if (flags.dryRun) {
      if (out.json) out.document(plan);
      else out.line(`Would ${describe(plan)}`);
      return EXIT.ok;
    }
    if (response === "quarantine" || response === "revoke") {
      await context.confirm(`${describe(plan).replace(/^./, (first) => first.toUpperCase())}?`, flags.yes);
    }
    const done = await client.control(request) as Responded;
    if (out.json) out.document(done);
    else out.note(`Done: ${describe(done)}${done.done === undefined ? "" : `, ${safe(done.done)}`}`);
    return EXIT.ok;
  });

  const rules = incident.command("rules").summary("what is looked for, and what follows")
    .description("Rules are set in the configuration file, under security.incidents; see docs/guide/audit.md.");
  register(rules, async (context) => {
    using client = await context.agent();
    const found = await client.control({ verb: "incident-rules" }) as {
      readonly dryRun: boolean;
      readonly rules: readonly IncidentRule[];
    };
    const { out } = context;
    if (out.json) out.document(found);
    else {
      out.table(
        ["RULE", "ON", ">EVENTS", "WITHIN", "RESPONSE", "THEN", "FOR", "FINDS"],
        found.rules.map((one) => [
          one.id,
          one.enabled ? "yes" : "no",
          String(one.threshold),
          duration(one.windowMs),
          one.response,
          one.sharperAt > 0 ? `${one.sharper} at ${one.sharperAt}` : "",
          duration(one.holdMs),
          one.title,
        ]),
      );
      if (found.dryRun) out.note("Dry run: responses beyond the alert are only told of");
    }
    return EXIT.ok;
  });
}

interface Responded {
  readonly incident: number;
  readonly subject: string;
  readonly response: string;
  readonly untilMs?: number;
  readonly ends?: readonly string[];
  readonly done?: string;
}

function describe(one: Responded): string {
  const subject = safe(one.subject);
  if (one.response === "release") {
    return one.ends?.length
      ? `end ${one.ends.join(" and ")} of ${subject}`
      : `end nothing: nothing is in force for ${subject}`;
  }
  const until = one.untilMs ? ` until ${instant(one.untilMs)}` : ", for good";
  return `${one.response} ${subject}${until}`;
}

function showOne(context: Context, one: IncidentView): void {
  const { out } = context;
  out.line(`${out.style("bold", `Incident ${one.id}`)}: ${one.title}`);
  out.line(`Rule       ${one.rule}, ${one.severity}`);
  out.line(`Subject    ${safe(one.subject)}`);
  out.line(
    `State      ${one.state}${one.ackBy === "" ? "" : `, by ${safe(one.ackBy)}`}${
      one.note === "" ? "" : `: ${safe(one.note)}`
    }`,
  );
  out.line(`Events     ${plural(one.count, "event")}, from ${instant(one.firstMs)} to ${instant(one.lastMs)}`);
  out.line(`Last       ${safe(one.detail)}`);
  for (const measure of one.measures) {
    const until = measure.endedMs > 0
      ? `ended ${instant(measure.endedMs)}`
      : measure.untilMs === 0
      ? "for good"
      : `${measure.active ? "" : "was "}until ${instant(measure.untilMs)}`;
    out.line(`Response   ${measure.response}${measure.dryRun ? " (dry run)" : ""}, ${until}, by ${safe(measure.by)}`);
  }
  if (one.possible.length > 0) {
    out.note(`To do: mycelium incident respond ${one.id} --action ${[...one.possible, "release"].join("|")}`);
  }
}

function idOf(text: string): number {
  if (/^[1-9]\d{0,9}$/.test(text)) return Number(text);
  throw usageError(`Cannot use "${text}": wanted the number of an incident, see: mycelium incident list`);
}
