/** `spore`: look at the network's records, write them, compare them. @module */

import { resolve } from "node:path";
import type { Command } from "commander";
import type { SporeRow } from "../../agent/status.ts";
import { fromBase64Url, fromUtf8, toBase64Url, utf8 } from "../../core/bytes.ts";
import { RECORD_LIFE_MS_MAX, VALUE_BYTES_MAX } from "../../spore/record.ts";
import type { ControlClient } from "../client.ts";
import { type Context, countFlag, durationFlag, type Register } from "../context.ts";
import { CliError, EXIT, usageError } from "../exit.ts";
import { byteSize, type Cell, duration, instant, plural, safe, type Style } from "../output.ts";
import { sleep } from "../progress.ts";
import { verifyFile } from "./seed.ts";
import { examples } from "./up.ts";

const TIER_STYLES: Readonly<Record<SporeRow["tier"], Style>> = { primary: "green", seed: "cyan", latent: "dim" };
/** Time between two looks of `watch`. */
const WATCH_MS = 500;

/** One page of a listing, as the agent answers it. */
interface Page {
  readonly rows: readonly SporeRow[];
  readonly after?: string;
  readonly nowMs: number;
  /** Node that answered: a device that keeps a part of the records asks another. */
  readonly from: string;
}

/** What a write came to. */
interface Written {
  readonly key: string;
  readonly seq: number;
  readonly hash: string;
  readonly tier: SporeRow["tier"];
  readonly term?: number;
  readonly index?: number;
  /** The Primary Spore holds another version, and could not be reached. */
  readonly challenges: boolean;
}

/** Adds the commands below `spore`, but for those that read and write files. */
export function registerSpore(spore: Command, register: Register): void {
  spore.description(
    "Spore records are what members say under keys: app/… by any member, net/… by issuers, node/<id>/… and " +
      "service/<name>/<id> by that node. Each is signed. What the primaries agreed on counts before what a seed says, and " +
      "that before what members tell each other.",
  );

  const list = spore.command("list").alias("ls").argument("[prefix]", "start of the keys", "")
    .summary("list records").option("-a, --all", "also those that were deleted or have run out")
    .option("--max <count>", "at most so many");
  examples(list, [["mycelium spore list", ""], ["mycelium spore list service/web", "where the service web runs"]]);
  register(list, async (context, args, command) => {
    const flags = command.opts<{ all?: boolean; max?: string }>();
    const max = countFlag("--max", flags.max, 1, 1_000_000) ?? 10_000;
    using client = await context.agent();
    const { rows, nowMs, more } = await readAll(client, args[0] ?? "", max, flags.all === true);
    const { out } = context;
    if (out.json) out.document({ rows, nowMs, more });
    else if (out.quiet) { for (const one of rows) out.line(one.key); }
    else if (rows.length === 0) out.note("No records. Write one with: mycelium spore put app/greeting hello");
    else showTable(context, rows, nowMs);
    if (more) out.warn(`There are more than ${plural(max, "record")}: --max, or a longer prefix`);
    return EXIT.ok;
  });

  const show = spore.command("show").argument("<key>", "key of the record").summary("show a record and its value")
    .option("--value", "only the value, as it is");
  examples(show, [["mycelium spore show app/greeting", ""], ["mycelium spore show app/greeting --value > file", ""]]);
  register(show, async (context, args, command) => {
    using client = await context.agent();
    const row = await client.control({ verb: "spore-show", key: args[0]! }) as SporeRow & { readonly nowMs: number };
    const { out } = context;
    const value = row.value === undefined ? undefined : fromBase64Url(row.value);
    const text = value && textOf(value);
    if (command.opts<{ value?: boolean }>().value || out.quiet) {
      if (row.state !== "live" || !value) throw notLive(row);
      if (text === undefined) {
        throw new CliError(`The value of "${row.key}" is no text: ${byteSize(value.length)}`, {
          code: "not-text",
          cure: "With --json it comes as base64url",
        });
      }
      context.deps.stdout.write(text);
      return EXIT.ok;
    }
    if (out.json) out.document({ ...row, ...(text === undefined ? {} : { text }) });
    else describe(context, row, text ?? (value ? `${byteSize(value.length)} that are no text` : undefined));
    return row.state === "live" ? EXIT.ok : EXIT.failed;
  });

  const put = spore.command("put").argument("<key>", "for example app/greeting").argument("[value]", "- reads stdin")
    .summary("write a record")
    .option("--file <path>", "take the value from a file")
    .option("--ttl <duration>", "how long it is good (default: for as long as this node lives and says it again)")
    .option("--expect <index>", "only where the version with this index stands in the Primary Spore, 0 for none");
  examples(put, [
    ["mycelium spore put app/greeting hello", ""],
    ["mycelium spore put app/cert --file cert.pem --ttl 12h", ""],
    ["mycelium spore put app/lock me --expect 0", "only where nobody has it yet"],
  ]);
  register(put, async (context, args, command) => {
    const flags = command.opts<{ file?: string; ttl?: string; expect?: string }>();
    const value = await valueOf(context, args[1], flags.file);
    const ttlMs = durationFlag("--ttl", flags.ttl);
    const expect = countFlag("--expect", flags.expect, 0, 999_999_999_999);
    using client = await context.agent();
    const written = await client.control({
      verb: "spore-put",
      key: args[0]!,
      value: toBase64Url(value),
      ...(ttlMs === undefined ? {} : { ttlMs }),
      ...(expect === undefined ? {} : { expect }),
    }) as Written;
    return report(context, written, "written");
  });

  const remove = spore.command("delete").alias("rm").argument("<key>", "key of the record").summary("delete a record")
    .option("--expect <index>", "only where the version with this index stands in the Primary Spore");
  examples(remove, [["mycelium spore delete app/greeting", ""]]);
  register(remove, async (context, args, command) => {
    const expect = countFlag("--expect", command.opts<{ expect?: string }>().expect, 0, 999_999_999_999);
    using client = await context.agent();
    const written = await client.control({
      verb: "spore-delete",
      key: args[0]!,
      ...(expect === undefined ? {} : { expect }),
    }) as Written;
    return report(context, written, "deleted");
  });

  const watch = spore.command("watch").argument("[prefix]", "start of the keys", "").summary("follow changes")
    .description("Prints records as they change, until Ctrl-C. With --json one object a line.");
  examples(watch, [["mycelium spore watch service/", ""]]);
  register(watch, async (context, args) => {
    using client = await context.agent();
    const { out, deps } = context;
    let known: ReadonlyMap<string, SporeRow> | undefined;
    while (!deps.signal.aborted) {
      const { rows, nowMs } = await readAll(client, args[0] ?? "", 100_000, true);
      const now = new Map(rows.map((one) => [one.key, one]));
      if (known) {
        for (const row of rows) {
          const before = known.get(row.key);
          const same = before && before.hash === row.hash && before.tier === row.tier && before.state === row.state;
          if (!same) showChange(context, row, before, nowMs);
        }
        for (const [key, row] of known) {
          if (now.has(key)) continue;
          if (out.json) out.record({ key, change: "gone", atMs: nowMs });
          else out.line(`${instant(nowMs)}  ${out.style("dim", "gone")}  ${safe(row.key)}`);
        }
      } else out.note(`${plural(rows.length, "record")} now; waiting for changes. Ctrl-C ends`);
      known = now;
      await sleep(WATCH_MS, deps.signal);
    }
    return EXIT.ok;
  });

  const verify = spore.command("verify").argument("[file-or-url]", "a bundle: a file, - for stdin, or an address")
    .summary("check all records again, or a bundle").description(
      "Checks signatures, authors and proofs of everything that this node keeps; or says what a bundle holds, and " +
        "whether it counts.",
    );
  examples(verify, [["mycelium spore verify", ""], ["mycelium spore verify home.seed", "as seed verify"]]);
  register(verify, (context, args) => args[0] === undefined ? verifyRecords(context) : verifyFile(context, args[0]));

  const diff = spore.command("diff").summary("compare with another node").requiredOption(
    "--with <node>",
    "a connected member: its name, id, or the end of it",
  ).description("Compares this node's records with another one's by their digests, and changes nothing.");
  examples(diff, [["mycelium spore diff --with beta", "exit code 1 where they differ"]]);
  register(diff, async (context, _args, command) => {
    using client = await context.agent();
    const answer = await client.control({
      verb: "spore-diff",
      node: command.opts<{ with: string }>().with,
    }) as {
      readonly nodeId: string;
      readonly same: boolean;
      readonly differences: readonly { readonly key: string; readonly here?: SporeRow; readonly there?: SporeRow }[];
      readonly more: number;
    };
    const { out } = context;
    if (out.json) out.document(answer);
    else if (answer.same) out.note("Both know the same records");
    else {
      const side = (row: SporeRow | undefined): Cell =>
        row ? `${row.tier} ${row.state} ${row.seq} by ${row.authorName}` : ["dim", "not there"];
      out.table(["KEY", "HERE", "THERE"], answer.differences.map((one) => [one.key, side(one.here), side(one.there)]));
      if (answer.more > 0) out.note(`and ${answer.more} more`);
    }
    return answer.same ? EXIT.ok : EXIT.failed;
  });
}

/** Checks all records of the node again. */
async function verifyRecords(context: Context): Promise<number> {
  using client = await context.agent();
  const { checked, bad } = await client.control({ verb: "spore-verify" }) as {
    readonly checked: number;
    readonly bad: readonly string[];
  };
  const { out } = context;
  if (out.json) out.document({ checked, bad });
  else if (bad.length === 0) out.note(`${plural(checked, "record")} checked: signatures, authors and proofs hold`);
  else {
    for (const one of bad) out.line(one);
    out.error(
      `${plural(bad.length, "record")} of ${checked} do not hold`,
      "They are not used: they go at the next restart",
    );
  }
  return bad.length === 0 ? EXIT.ok : EXIT.failed;
}

async function readAll(
  client: ControlClient,
  prefix: string,
  max: number,
  dead: boolean,
): Promise<{ readonly rows: readonly SporeRow[]; readonly nowMs: number; readonly more: boolean }> {
  const rows: SporeRow[] = [];
  let after: string | undefined, nowMs = 0;
  do {
    const page = await client.control({
      verb: "spore-list",
      prefix,
      ...(after === undefined ? {} : { after }),
    }) as Page;
    nowMs = page.nowMs;
    after = page.after;
    rows.push(...page.rows.filter((one) => dead || one.state === "live"));
  } while (after !== undefined && rows.length <= max);
  return { rows: rows.slice(0, max), nowMs, more: rows.length > max || after !== undefined };
}

function showTable(context: Context, rows: readonly SporeRow[], nowMs: number): void {
  context.out.table(
    ["KEY", "TIER", "AUTHOR", ">SEQ", ">SIZE", ">AGE", "EXPIRES", "STATE"],
    rows.map((one) => [
      one.key,
      [TIER_STYLES[one.tier], one.tier],
      one.authorName,
      String(one.seq),
      byteSize(one.sizeBytes),
      duration(Math.max(0, nowMs - one.issuedMs)),
      expiry(one, nowMs),
      stateOf(one),
    ]),
  );
}

function stateOf(row: SporeRow): Cell {
  if (row.state !== "live") return ["dim", row.state];
  if (row.provisional) return ["yellow", "provisional"];
  return row.challenger ? ["yellow", "contradicted"] : ["green", "live"];
}

function expiry(row: SporeRow, nowMs: number): string {
  if (row.state !== "live") return "-";
  if (isKept(row)) return "kept";
  return `in ${duration(Math.max(0, row.expiresMs - nowMs))}`;
}

/** What the primaries hold stays for as long as there are any, unless it was given a shorter life. */
function isKept(row: SporeRow): boolean {
  return row.tier === "primary" && row.expiresMs - row.issuedMs === RECORD_LIFE_MS_MAX;
}

function describe(context: Context, row: SporeRow & { readonly nowMs: number }, value: string | undefined): void {
  const { out } = context;
  const rank = row.tier === "primary"
    ? `primary, term ${row.term} index ${row.index}`
    : row.tier === "seed"
    ? `seed, document ${row.index}`
    : "latent";
  const lines: [string, string][] = [
    ["Key", row.key],
    ["State", row.provisional ? "live, provisional: confirmed by connection against a higher tier" : row.state],
    ["Tier", rank + (row.provenUntilMs ? `, proven until ${instant(row.provenUntilMs)}` : "")],
    ["Author", `${row.authorName} (${row.author})`],
    ["Number", String(row.seq)],
    ["Issued", `${instant(row.issuedMs)}, ${duration(Math.max(0, row.nowMs - row.issuedMs))} ago`],
    ["Expires", isKept(row) ? "kept by the Primary Spore" : instant(row.expiresMs)],
    ["Hash", row.hash],
  ];
  for (const [name, text] of lines) out.line(`${name.padEnd(8)} ${safe(text)}`);
  if (row.challenger) {
    const { authorName, seq, confirmation } = row.challenger;
    out.warn(
      `${
        safe(authorName)
      } says something newer (number ${seq}) that no higher tier has: not used, confirmation ${confirmation}`,
    );
  }
  if (value === undefined) return;
  out.line();
  out.line(safe(value));
}

function showChange(context: Context, row: SporeRow, before: SporeRow | undefined, nowMs: number): void {
  const { out } = context;
  const change = row.state !== "live" ? row.state : before === undefined ? "new" : "changed";
  if (out.json) return out.record({ change, atMs: nowMs, ...row });
  const style: Style = change === "new" ? "green" : change === "changed" ? "yellow" : "dim";
  out.line(
    `${instant(nowMs)}  ${out.style(style, change)}  ${safe(row.key)}  ${row.tier}  ${row.seq}  by ${
      safe(row.authorName)
    }`,
  );
}

function report(context: Context, written: Written, what: string): number {
  const { out } = context;
  if (out.json) out.document(written);
  else {
    const rank = written.tier === "primary"
      ? `the primaries agreed, index ${written.index}`
      : "told to the members, the primaries have not agreed yet";
    out.note(`${safe(written.key)} is ${what}: ${rank}`);
  }
  if (written.challenges) {
    out.warn(
      "A higher tier holds another version, and could not be reached: this one is not used until it is confirmed",
    );
  }
  return EXIT.ok;
}

async function valueOf(context: Context, word: string | undefined, file: string | undefined): Promise<Uint8Array> {
  if ((word === undefined) === (file === undefined)) {
    throw usageError(
      "Cannot put a record: wanted a value, or --file",
      "For example: mycelium spore put app/greeting hello",
    );
  }
  let value: Uint8Array;
  if (file !== undefined) {
    try {
      value = await Deno.readFile(resolve(context.deps.cwd, file));
    } catch (cause) {
      throw usageError(`Cannot read "${file}": ${cause instanceof Error ? cause.message : String(cause)}`);
    }
  } else value = utf8(word === "-" ? await context.deps.stdin.readAll(VALUE_BYTES_MAX + 1) : word!);
  if (value.length > VALUE_BYTES_MAX) {
    throw usageError(
      `Cannot put ${byteSize(value.length)}: a record holds at most ${byteSize(VALUE_BYTES_MAX)}`,
      "Keep the data elsewhere, and put where it is",
    );
  }
  return value;
}

function notLive(row: SporeRow): CliError {
  return new CliError(`"${row.key}" has no value: it is ${row.state}`, { code: `spore-${row.state}` });
}

function textOf(value: Uint8Array): string | undefined {
  try {
    return fromUtf8(value);
  } catch {
    return undefined;
  }
}
