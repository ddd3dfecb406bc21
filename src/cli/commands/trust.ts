/** `trust` and `evidence`: who is trusted how much, why, and what may be done with it. @module */

import type { Command } from "commander";
import type { PolicyRow, ProofRow, TrustDetail, TrustRow } from "../../agent/trust_console.ts";
import { TRUST_POLICY_KEY } from "../../access/change.ts";
import { publicKeyOf } from "../../core/ids.ts";
import { decodePolicy } from "../../trust/policy.ts";
import { NEUTRAL_PPM } from "../../trust/score.ts";
import { parseYaml } from "../../edge/config.ts";
import type { Context, Register } from "../context.ts";
import { CliError, EXIT } from "../exit.ts";
import { changePolicy, type KeyFlags, keyFlags } from "../operator_key.ts";
import { readText } from "../files.ts";
import { byteSize, type Cell, instant, plural, safe } from "../output.ts";
import { examples } from "./up.ts";

/** A policy as the agent answers it. */
interface Policy {
  readonly actions: readonly PolicyRow[];
  readonly vouched: readonly string[];
  readonly classes: readonly { readonly prefix: string; readonly class: string }[];
  readonly changes?: readonly { readonly name: string; readonly action: string; readonly may: boolean }[];
  readonly set?: boolean;
}

/** What an action is, for people. */
const ACTION_TEXT: Readonly<Record<PolicyRow["action"], string>> = {
  "vote": "has a seat where the network agrees",
  "lead": "votes in the Primary Spore and may lead it",
  "record": "its records are used before they are confirmed",
  "seed": "seeds that it signed are read",
  "relay": "carries traffic of others",
  "storage/standard": "keeps data",
  "storage/sensitive": "keeps sensitive data",
  "place/standard": "runs services",
  "place/trusted": "runs services that ask for trust",
};

/** Adds the commands. */
export function registerTrust(program: Command, register: Register): void {
  const trust = program.command("trust").summary("who is trusted how much, and what that allows")
    .description(
      "A node earns trust slowly by taking part and loses it quickly by faults that were proved. The agreed score is the same " +
        "on every node, and only the voters change it; the other one is what this node has seen itself. New nodes start at " +
        "50 %. Formula and figures: docs/guide/trust.md.",
    );

  const list = trust.command("list").alias("ls").summary("list members with their scores");
  examples(list, [["mycelium trust list", ""], ["mycelium trust list --json", ""]]);
  register(list, async (context) => {
    using client = await context.agent();
    const answer = await client.control({ verb: "trust-list" }) as {
      readonly version: number;
      readonly rows: readonly TrustRow[];
    };
    const { out } = context;
    if (out.json) out.document(answer);
    else {
      out.table(
        ["NODE", "ROLE", ">AGREED", ">SEEN HERE", ">SEATS", "MAY NOT"],
        answer.rows.map((one) => [
          one.name,
          one.role,
          score(one.agreedPpm, one.banned),
          score(one.localPpm, false),
          one.seats === undefined ? ["dim", "–"] : String(one.seats),
          one.banned ? ["red", "banned for good"] : one.denied.join(", "),
        ]),
      );
      out.note(
        answer.version === 0 ? "Nothing agreed yet: everybody is neutral" : `Agreed scores, version ${answer.version}`,
      );
    }
    return EXIT.ok;
  });

  const show = trust.command("show").argument("<node>", "its name, id, or the end of it").summary("show one node");
  examples(show, [["mycelium trust show beta", ""]]);
  register(show, async (context, args) => {
    const detail = await detailOf(context, args[0]!);
    const { out } = context;
    if (out.json) out.document(detail);
    else describe(context, detail);
    return EXIT.ok;
  });

  const explain = trust.command("explain").argument("<node>", "its name, id, or the end of it")
    .summary("say what a node may do, and why").description(
      "Exit code 1 where it is banned, or not trusted with a vote.",
    );
  examples(explain, [["mycelium trust explain beta", ""]]);
  register(explain, async (context, args) => {
    const detail = await detailOf(context, args[0]!);
    const { out } = context;
    if (out.json) out.document(detail);
    else explainNode(context, detail);
    return detail.denied.includes("vote") ? EXIT.failed : EXIT.ok;
  });

  const policy = trust.command("policy").summary("how much trust is asked for what")
    .description("Least scores by action, nodes that the network vouches for, and classes of agreement by key.");
  const showPolicy = policy.command("show").summary("show the policy");
  examples(showPolicy, [["mycelium trust policy show", ""]]);
  register(showPolicy, async (context) => {
    using client = await context.agent();
    const answer = await client.control({ verb: "trust-policy-show" }) as Policy;
    if (context.out.json) context.out.document(answer);
    else showPolicyTable(context, answer);
    return EXIT.ok;
  });
  const set = policy.command("set").argument("<file>", "YAML or JSON, - for stdin").summary("have a policy agreed on")
    .description(
      "The file takes the place of the policy: what it leaves out is as built in. Keys: min (score by action, 400000 or 40%), " +
        "vouched (nodes), classes (standard or critical, by key prefix). The nodes want an operator's signature who may: on " +
        "the founder the node signs, elsewhere name your key with --key or --ssh-agent.",
    )
    .option("--dry-run", "only say what would change")
    .option("-y, --yes", "do not ask");
  keyFlags(set);
  examples(set, [
    ["mycelium trust policy set policy.yaml --dry-run", ""],
    ["mycelium trust policy set policy.yaml --yes", ""],
  ]);
  register(set, async (context, args, command) => {
    const flags = command.opts<KeyFlags & { dryRun?: boolean; yes?: boolean }>();
    const request = readPolicyFile(await readText(context, args[0]!), args[0]!);
    using client = await context.agent();
    const wanted = { verb: "trust-policy-set", ...request } as const;
    const { out } = context;
    const plan = await client.control({ ...wanted, dryRun: true }) as Policy;
    if (flags.dryRun) {
      if (out.json) out.document(plan);
      else {
        showPolicyTable(context, plan);
        showChanges(context, plan);
      }
      return EXIT.ok;
    }
    if (!out.json) {
      showChanges(context, plan);
      for (const node of plan.vouched) out.line(`vouched for  ${safe(node)}`);
    }
    await context.confirm("Have this policy agreed on by the network?", flags.yes);
    const done = await changePolicy(context, client, wanted, {
      key: TRUST_POLICY_KEY,
      flags,
      fits: (value) => value !== undefined && isPolicy(value, request, plan.vouched),
    });
    if (out.json) out.document(done);
    else out.note("Agreed: the policy is in force");
    return EXIT.ok;
  });

  const evidence = program.command("evidence").summary("proofs of faults")
    .description(
      "What shows that a node did what it must not. Anybody can check a proof; who tells of it adds nothing.",
    );
  const proofs = evidence.command("list").alias("ls").summary("list proofs");
  examples(proofs, [["mycelium evidence list", ""]]);
  register(proofs, async (context) => {
    using client = await context.agent();
    const { rows } = await client.control({ verb: "evidence-list" }) as { readonly rows: readonly ProofRow[] };
    const { out } = context;
    if (out.json) out.document({ rows });
    else if (out.quiet) { for (const one of rows) out.line(one.hash); }
    else if (rows.length === 0) out.note("No proofs of faults");
    else showProofs(context, rows);
    return EXIT.ok;
  });
  const verify = evidence.command("verify").argument("[hash]", "start of the hash; all without it")
    .summary("check proofs again").description("Exit code 1 where one does not hold.");
  examples(verify, [["mycelium evidence verify", ""]]);
  register(verify, async (context, args) => {
    using client = await context.agent();
    const answer = await client.control({
      verb: "evidence-verify",
      ...(args[0] === undefined ? {} : { hash: args[0] }),
    }) as {
      readonly checked: number;
      readonly rows: readonly {
        readonly hash: string;
        readonly nodeId: string;
        readonly kind: string;
        readonly result: string;
      }[];
    };
    const { out } = context;
    const bad = answer.rows.filter((one) => one.result !== "holds");
    if (out.json) out.document(answer);
    else {
      for (const one of bad) out.line(`${one.hash}  ${one.kind}  ${one.result}`);
      if (bad.length === 0) out.note(`${plural(answer.checked, "proof")} checked: all hold`);
    }
    return answer.rows.some((one) => one.result === "does not hold") ? EXIT.failed : EXIT.ok;
  });
}

async function detailOf(context: Context, node: string): Promise<TrustDetail> {
  using client = await context.agent();
  return await client.control({ verb: "trust-show", node }) as TrustDetail;
}

function describe(context: Context, one: TrustDetail): void {
  const { out } = context;
  const label = (name: string, value: string) => out.line(`${name.padEnd(11)}${value}`);
  label("Node", `${safe(one.name)}  ${one.nodeId}`);
  label(
    "Agreed",
    one.banned ? out.style("red", "banned for good") : `${percent(one.agreedPpm)}, version ${one.version}`,
  );
  label("Seen here", percent(one.localPpm));
  label("Seats", one.seats === undefined ? "no vote" : String(one.seats));
  const seen = Object.entries(one.facts).filter(([, count]) => count > 0);
  label("Facts", seen.length === 0 ? "none yet" : seen.map(([fact, count]) => `${fact} ${count}`).join(", "));
  if (one.proofs.length > 0) {
    out.line();
    showProofs(context, one.proofs);
  }
}

function explainNode(context: Context, one: TrustDetail): void {
  const { out } = context;
  describe(context, one);
  out.line();
  out.table(
    ["ACTION", "MAY", ">SCORE", ">NEEDS", "MEANS"],
    one.actions.map((each): Cell[] => [
      each.action,
      each.ok ? ["green", "yes"] : ["red", each.reason === "banned" ? "no, banned" : "no"],
      percent(each.ppm),
      percent(each.minPpm),
      ACTION_TEXT[each.action],
    ]),
  );
  if (one.banned) {
    out.note(
      "It signed two things that contradict each other. That is for good: remove the node and let it join with a new key.",
    );
  } else if (Math.min(one.agreedPpm, one.localPpm) < NEUTRAL_PPM - 10_000) {
    out.note(
      "Half of the way back to neutral takes 30 days in the agreed score, 7 in this node's own; work is faster.",
    );
  }
}

function showProofs(context: Context, rows: readonly ProofRow[]): void {
  context.out.table(
    ["HASH", "NODE", "FAULT", "WHEN", "REPORTED BY", ">SIZE", "COUNTED", "WHAT"],
    rows.map((one) => [
      one.hash,
      one.name || one.nodeId.slice(-8),
      one.kind === "safety" ? ["red", one.kind] : one.kind,
      instant(one.atMs),
      one.reporter.length > 20 ? one.reporter.slice(-8) : one.reporter,
      byteSize(one.sizeBytes),
      one.counted ? "yes" : ["dim", "not yet"],
      one.what,
    ]),
  );
}

function showPolicyTable(context: Context, policy: Policy): void {
  const { out } = context;
  out.table(
    ["ACTION", ">NEEDS", ">AT MOST", "FROM", "MEANS"],
    policy.actions.map((one) => [
      one.action,
      percent(one.minPpm),
      percent(one.maxPpm),
      one.set ? ["cyan", "policy"] : ["dim", "built in"],
      ACTION_TEXT[one.action],
    ]),
  );
  for (const node of policy.vouched) out.line(`vouched for  ${node}`);
  for (const one of policy.classes) out.line(`${one.class}  ${safe(one.prefix)}…`);
}

function showChanges(context: Context, { changes = [] }: Policy): void {
  const { out } = context;
  for (const one of changes) {
    out.line(
      `${safe(one.name)} ${one.may ? out.style("green", "may") : out.style("red", "may no longer")} ${one.action}`,
    );
  }
  if (changes.length === 0) out.note("Nobody may more or less than now");
}

/**
 * Whether a record says what the file says.
 *
 * @param shown Nodes that were shown as vouched for: names only the agent can resolve, ids are those of the file.
 */
function isPolicy(value: Uint8Array, wanted: ReturnType<typeof readPolicyFile>, shown: readonly string[]): boolean {
  const { min, vouched, classes } = decodePolicy(value);
  return vouched.join() === shown.join() && vouched.length <= wanted.vouched.length &&
    wanted.vouched.every((one) => publicKeyOf(one) === undefined || vouched.includes(one)) &&
    min.size === Object.keys(wanted.min).length && [...min].every(([action, ppm]) => wanted.min[action] === ppm) &&
    classes.length === Object.keys(wanted.classes).length &&
    classes.every((one) => wanted.classes[one.prefix] === one.class);
}

/** A policy file: reads what it says, the agent checks the rest. */
function readPolicyFile(text: string, file: string): {
  readonly min: Readonly<Record<string, number>>;
  readonly vouched: readonly string[];
  readonly classes: Readonly<Record<string, string>>;
} {
  const fail = (cause: string) =>
    new CliError(`Cannot read policy "${file}": ${cause}`, {
      code: "bad-policy",
      cure: "For example: {min: {vote: 40%}, vouched: [], classes: {net/: critical}}",
      exitCode: EXIT.usage,
    });
  let parsed: unknown;
  try {
    parsed = parseYaml(text) ?? {};
  } catch (error) {
    throw fail(error instanceof Error ? error.message : String(error));
  }
  if (!isMap(parsed)) throw fail("wanted a map with min, vouched and classes");
  for (const key of Object.keys(parsed)) {
    if (!["min", "vouched", "classes"].includes(key)) throw fail(`no key "${key}", wanted min, vouched or classes`);
  }
  const { min = {}, vouched = [], classes = {} } = parsed;
  if (!isMap(min) || !isMap(classes) || !Array.isArray(vouched)) {
    throw fail("min and classes are maps, vouched is a list");
  }
  const ppm = Object.fromEntries(
    Object.entries(min).map(([action, one]) => {
      const score = readScore(one);
      if (score === undefined) throw fail(`min.${action} is ${JSON.stringify(one)}, wanted for example 40% or 400000`);
      return [action, score];
    }),
  );
  return {
    min: ppm,
    vouched: vouched.map(String),
    classes: Object.fromEntries(Object.entries(classes).map(([k, v]) => [k, String(v)])),
  };
}

function isMap(value: unknown): value is Readonly<Record<string, unknown>> {
  return value !== null && typeof value === "object" && !Array.isArray(value);
}

/** Parts per million, from an integer or a percentage. */
function readScore(value: unknown): number | undefined {
  if (typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= 1_000_000) return value;
  const match = typeof value === "string" ? /^(\d{1,3})(?:\.(\d{1,4}))?\s*%$/.exec(value) : null;
  if (!match) return undefined;
  const ppm = Number(match[1]) * 10_000 + Number((match[2] ?? "").padEnd(4, "0"));
  return ppm <= 1_000_000 ? ppm : undefined;
}

function score(ppm: number, banned: boolean): Cell {
  if (banned) return ["red", "0 %"];
  return ppm < 300_000 ? ["yellow", percent(ppm)] : percent(ppm);
}

function percent(ppm: number): string {
  return `${(ppm / 10_000).toFixed(1)} %`;
}
