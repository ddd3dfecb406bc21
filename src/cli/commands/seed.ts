/** `seed`, and `spore export` and `spore import`: what the network knows, outside of it. @module */

import { resolve } from "node:path";
import type { Command } from "commander";
import type { ImportReport } from "../../agent/seeds.ts";
import type { SeedStatus } from "../../agent/status.ts";
import { verifyAuthority } from "../../agent/seed_authority.ts";
import { SEED_FIRST_BYTE } from "../../bootstrap/seed_document.ts";
import { rawOrBase64Url, toHex, utf8 } from "../../core/bytes.ts";
import { nodeIdOf } from "../../core/ids.ts";
import {
  BUNDLE_KINDS,
  BUNDLE_TEXT_BYTES_MAX,
  bundleBytes,
  looksLikeBundle,
  openBundle,
  spellBundle,
} from "../../spore/seed_bundle.ts";
import { readBounded, TooLargeError, writeWhole } from "../../edge/disk/whole_file.ts";
import type { PublishOutcome } from "../../edge/disk/seed_publisher.ts";
import { FetchRefusal, fetchSeed } from "../../edge/discovery/seed_fetch.ts";
import type { ControlClient } from "../client.ts";
import { type Context, durationFlag, type Register } from "../context.ts";
import { CliError, EXIT, usageError } from "../exit.ts";
import { byteSize, type Cell, duration, plural, safe } from "../output.ts";
import { ago, stateCell } from "./status.ts";
import { examples } from "./up.ts";

/** Adds the commands below `seed`. */
export function registerSeed(program: Command, register: Register): void {
  const seed = program.command("seed").summary("put what the network knows into a file or on a web server")
    .description(
      "A Seed Spore is a signed, numbered bundle: the genesis record, who may sign, addresses of members, and records such " +
        "as where services run. It holds no secret, and whoever keeps it needs no trust: it leads a machine that has an " +
        "invite, or a member that comes back, to the network, and tells it where services are while nobody answers.",
    );
  const make = exportFlags(seed.command("export").summary("print a bundle"));
  examples(make, [
    ["mycelium seed export --out home.seed", "for a USB stick: up --seed-file home.seed"],
    ["mycelium seed export --kind service > /var/www/home.seed", "for a web server: up --seed-url https://…/home.seed"],
  ]);
  register(make, (context, _args, command) => exportBundle(context, command.opts(), "service"));

  const publish = seed.command("publish").summary(
    "look at the places of the setting seeds.publish, put there what is new",
  )
    .option("--now", "put a new bundle everywhere, whoever comes first and whatever is there");
  register(publish, async (context, _args, command) => {
    const { out } = context;
    using client = await context.agent();
    const force = command.opts<{ now?: boolean }>().now ?? false;
    const outcomes = readOutcomes(await client.control({ verb: "seed-publish", force }));
    if (out.json) out.document(outcomes);
    else if (outcomes.length === 0) out.note("No place is configured: see the setting seeds.publish");
    else {
      const rows = outcomes.map((one): Cell[] => [
        safe(one.to),
        one.kind,
        stateCell(one.published ? "published" : one.state),
        one.seq === undefined ? "-" : String(one.seq),
        safe(one.reason),
      ]);
      out.table(["TO", "KIND", "STATE", ">NUMBER", ""], rows);
    }
    return outcomes.some((one) => one.state === "failed") ? EXIT.failed : EXIT.ok;
  });

  register(seed.command("status").summary("where seeds are read from and published to"), async (context) => {
    using client = await context.agent();
    const { seeds, nowMs } = await client.status();
    if (context.out.json) context.out.document(seeds ?? {});
    else showSeeds(context, seeds, nowMs);
    return EXIT.ok;
  });

  const verify = seed.command("verify").argument("<file-or-url>", "a file, - for stdin, or an address")
    .summary("say what a bundle holds, and whether it counts");
  examples(verify, [["mycelium seed verify home.seed", ""], [
    "mycelium seed verify https://example.net/home.seed",
    "",
  ]]);
  register(verify, (context, args) => verifyFile(context, args[0]!));

  const decide = seed.command("decide").summary("end a split: this half counts")
    .description(
      "Makes a Master Seed, signed with the genesis key, that names this node's newest authority epoch. Nodes that went on " +
        "with another one adopt it when they find the bundle or import it. See docs/runbooks/split-brain.md.",
    )
    .option("--key <file>", "file with the genesis key, where it is not on this machine")
    .option("--out <file>", "write the bundle there instead of to stdout")
    .option("--dry-run", "say what would be decided, change nothing")
    .option("-y, --yes", "do not ask");
  examples(decide, [
    ["mycelium seed decide --dry-run", ""],
    ["mycelium seed decide --key /mnt/stick/genesis.key --out decision.seed", ""],
  ]);
  register(decide, async (context, _args, command) => {
    const flags = command.opts<{ key?: string; out?: string; dryRun?: boolean; yes?: boolean }>();
    const { out } = context;
    using client = await context.agent();
    const keyFile = flags.key === undefined ? {} : { keyFile: resolve(context.deps.cwd, flags.key) };
    const shown = readDecided(await client.control({ verb: "seed-decide", dryRun: true, ...keyFile }));
    const what = `epoch ${shown.epoch} (${shown.hash.slice(0, 16)}) with ${shown.names.map(safe).join(", ")}`;
    if (flags.dryRun) {
      if (out.json) out.document({ dryRun: true, ...shown });
      else out.line(`Would decide for ${what}`);
      return EXIT.ok;
    }
    await context.confirm(`Decide for ${what}? Nodes of the other half will forget their epochs.`, flags.yes);
    const made = readDecided(await client.control({ verb: "seed-decide", ...keyFile }));
    await deliver(context, made.text, flags.out, made);
    if (!out.json) {
      out.note(`Decided for ${what}. Import it on the other half: mycelium spore import ${flags.out ?? "FILE"}`);
    }
    return EXIT.ok;
  });
}

/** Says what a bundle in a file, on stdin or at an address holds, and whether it counts. */
export async function verifyFile(context: Context, from: string): Promise<number> {
  const text = await readSeedText(context, from);
  using client = await context.agentIfAny();
  const member = client && (await client.status()).network !== undefined;
  return member ? await importBundle(context, client, text, { from, verify: true }) : verifyAlone(context, text);
}

/** Adds `export` and `import` to the commands below `spore`. */
export function registerSporeFiles(spore: Command, register: Register): void {
  const make = exportFlags(spore.command("export").summary("write all records into a file"));
  examples(make, [["mycelium spore export --out forest.seed", "everything that this network knows"]]);
  register(make, (context, _args, command) => exportBundle(context, command.opts(), "full"));

  const take = spore.command("import").argument("<file-or-url>", "a file, - for stdin, or an address")
    .summary("take records, addresses and epochs out of a bundle")
    .description("Each record competes by its rank with what is known: importing never brings back what was replaced.")
    .option("--dry-run", "say what would change, change nothing")
    .option("--force", "take a bundle although a newer one of its signer was seen");
  examples(take, [
    ["mycelium spore import forest.seed --dry-run", ""],
    ["mycelium spore import https://example.net/home.seed", ""],
  ]);
  register(take, async (context, args, command) => {
    const flags = command.opts<{ dryRun?: boolean; force?: boolean }>();
    const text = await readSeedText(context, args[0]!);
    using client = await context.agent();
    return await importBundle(context, client, text, { from: args[0]!, ...flags });
  });
}

function exportFlags(command: Command): Command {
  return command
    .option("--kind <kind>", `what to put in: ${BUNDLE_KINDS.join(", ")}`)
    .option("--ttl <duration>", "how long it counts as fresh (default: 14d)")
    .option("--out <file>", "write it there, whole or not at all, instead of to stdout");
}

async function exportBundle(
  context: Context,
  flags: { readonly kind?: string; readonly ttl?: string; readonly out?: string },
  preset: string,
): Promise<number> {
  const ttlMs = durationFlag("--ttl", flags.ttl);
  const kind = BUNDLE_KINDS.find((one) => one === (flags.kind ?? preset));
  if (!kind) throw usageError(`Cannot use --kind "${flags.kind}": wanted one of ${BUNDLE_KINDS.join(", ")}`);
  using client = await context.agent();
  const made = readExported(
    await client.control({ verb: "seed-export", kind, ...(ttlMs === undefined ? {} : { ttlMs }) }),
  );
  await deliver(context, made.text, flags.out, made);
  if (made.leftOut > 0) {
    context.out.warn(`${plural(made.leftOut, "record")} did not fit: a bundle has room for some hundreds`);
  }
  const { addresses, records, bytes, expiresMs } = made;
  if (!context.out.json) {
    const what = `${addresses.length} addresses, ${plural(records, "record")}`;
    context.out.note(`${kind}: ${what}, ${byteSize(bytes)}, fresh for ${duration(expiresMs - context.deps.now())}`);
  }
  return EXIT.ok;
}

function showSeeds(context: Context, seeds: SeedStatus | undefined, nowMs: number): void {
  const { out } = context;
  if (!seeds) return out.note("This node is of no network");
  if (seeds.decision) out.line(`A decision of the genesis key stands, for epoch ${seeds.decision.epoch}`);
  if (seeds.sources.length > 0) {
    out.table(
      ["READ FROM", "STATE", "KIND", ">NUMBER", ">READ", ""],
      seeds.sources.map((one): Cell[] => [
        safe(one.from),
        stateCell(one.state),
        one.kind ?? "-",
        one.seq === undefined ? "-" : String(one.seq),
        ago(nowMs, one.atMs),
        safe(one.reason),
      ]),
    );
  }
  if (seeds.targets.length > 0) {
    out.table(
      ["PUBLISHED TO", "STATE", "KIND", ">NUMBER", ">PUT", ""],
      seeds.targets.map((one): Cell[] => [
        safe(one.to),
        stateCell(one.state),
        one.kind,
        one.seq === undefined ? "-" : String(one.seq),
        ago(nowMs, one.publishedMs ?? 0),
        safe(one.reason),
      ]),
    );
  }
  if (seeds.taken.length > 0) {
    out.table(
      ["TAKEN FROM", "KIND", ">NUMBER", ">RECORDS", ">REFUSED", ">TAKEN"],
      seeds.taken.map((one): Cell[] => [
        safe(one.from),
        one.kind + (one.stale ? ", stale" : ""),
        String(one.seq),
        String(one.records),
        String(one.refused),
        ago(nowMs, one.atMs),
      ]),
    );
  }
  if (seeds.sources.length + seeds.targets.length + seeds.taken.length === 0) {
    out.note("Nothing is read and nothing published: see discovery.seedFiles, discovery.seedUrls and seeds.publish");
  }
}

async function deliver(context: Context, text: string, file: string | undefined, document: unknown): Promise<void> {
  const { out } = context;
  if (file !== undefined) {
    const path = resolve(context.deps.cwd, file);
    try {
      await writeWhole(path, utf8(text), { mode: 0o644 });
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : "unknown";
      throw new CliError(`Cannot write "${file}": ${why}`, {
        code: "failed",
        cure: "Name a file in a folder that is there",
        cause,
      });
    }
  }
  if (out.json) out.document(document);
  else if (file === undefined) out.line(text.trimEnd());
}

/** What is at a place, as the text that goes to the agent. @throws {CliError} Where it cannot be read, or is no seed. */
async function readSeedText(context: Context, from: string): Promise<string> {
  let content: Uint8Array;
  try {
    content = await readSeed(context, from);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : "unknown";
    const oversize = cause instanceof TooLargeError || cause instanceof FetchRefusal && cause.code === "oversize";
    throw oversize
      ? noSeed(from, "oversize", why)
      : new CliError(`Cannot read "${from}": ${why}`, { code: "usage", exitCode: EXIT.usage, cause });
  }
  if (!content.some((byte) => byte > 0x20)) throw noSeed(from, "malformed", "it is empty");
  if (looksLikeBundle(content)) {
    const opened = openBundle(content);
    // Whether what reads counts as well, the agent knows better.
    if (!opened.ok && (opened.reason === "malformed" || opened.reason === "oversize")) {
      throw noSeed(from, opened.reason, `it is damaged or not whole (${opened.detail})`);
    }
    return spellBundle(bundleBytes(content));
  }
  const list = rawOrBase64Url(content, SEED_FIRST_BYTE);
  if (list?.[0] !== SEED_FIRST_BYTE) throw noSeed(from, "malformed", "it is no bundle");
  return spellBundle(list);
}

async function readSeed(context: Context, from: string): Promise<Uint8Array> {
  if (/^https?:\/\//.test(from)) {
    return await fetchSeed(from, AbortSignal.any([context.deps.signal, AbortSignal.timeout(FETCH_MS)]));
  }
  if (from !== "-") return await readBounded(resolve(context.deps.cwd, from), BUNDLE_TEXT_BYTES_MAX);
  const typed = utf8(await context.deps.stdin.readAll(BUNDLE_TEXT_BYTES_MAX + 1));
  if (typed.length > BUNDLE_TEXT_BYTES_MAX) throw new TooLargeError(`more than ${BUNDLE_TEXT_BYTES_MAX} bytes`);
  return typed;
}

function noSeed(from: string, code: "malformed" | "oversize", why: string): CliError {
  return new CliError(`Cannot read "${from}": ${why}, wanted a bundle of at most ${BUNDLE_TEXT_BYTES_MAX} bytes`, {
    code,
    cure: "Fetch it again, or make a new one on an issuer: mycelium seed export --out home.seed",
    exitCode: EXIT.refused,
  });
}

async function importBundle(
  context: Context,
  client: ControlClient,
  text: string,
  flags: { readonly from: string; readonly dryRun?: boolean; readonly force?: boolean; readonly verify?: boolean },
): Promise<number> {
  const { from, dryRun = false, force = false, verify = false } = flags;
  const report = readReport(
    await client.control({ verb: "seed-import", text, from: from.slice(0, 200), dryRun: dryRun || verify, force }),
  );
  const { out } = context;
  if (out.json) {
    out.document(report);
    return EXIT.ok;
  }
  const nowMs = context.deps.now();
  const age = report.stale
    ? `stale since ${duration(nowMs - report.expiresMs)}`
    : `fresh for ${duration(report.expiresMs - nowMs)}`;
  out.line(`${report.kind} ${report.seq}, ${age}, signed by ${report.signer}`);
  const { before, after } = report.epoch;
  const would = report.applied ? "" : "would ";
  if (report.replaces) {
    out.line(
      out.style(
        "yellow",
        `A decision of the genesis key ${would}replace${would ? "" : "s"} epochs from ${report.replaces.fromEpoch} on`,
      ),
    );
    out.line(`  issuers before: ${report.replaces.issuersBefore.join(", ")}`);
    out.line(`  issuers after:  ${report.replaces.issuersAfter.join(", ")}`);
  } else if (after > before) out.line(`Authority: epoch ${before} ${would ? "would become" : "became"} ${after}`);
  const counts = Object.entries(report.counts).map(([outcome, count]) => `${count} ${outcome}`);
  out.line(counts.length === 0 ? "No records" : `Records: ${counts.join(", ")}`);
  if (report.records.length > 0) {
    out.table(["RECORD", "BECOMES"], report.records.map((one) => [safe(one.key), one.outcome]));
  }
  if (verify) out.note("It counts");
  else out.note(report.applied ? "Imported" : "Nothing was changed");
  return EXIT.ok;
}

/** Where no agent knows the network: whether the bundle proves itself. */
function verifyAlone(context: Context, text: string): number {
  if (!looksLikeBundle(utf8(text))) {
    throw new CliError("Cannot verify the seed: it is no bundle, but at best a list of addresses", {
      code: "malformed",
      cure: "Only an agent of its network can judge one: start it here, or make a bundle with mycelium seed export",
      exitCode: EXIT.refused,
    });
  }
  const opened = openBundle(utf8(text));
  if (!opened.ok) throw refusedSeed(opened.reason, opened.detail);
  const { bundle } = opened;
  const verdict = verifyAuthority(bundle, {});
  if (!verdict.ok) throw refusedSeed(verdict.reason, verdict.detail);
  const { out } = context;
  const shown = {
    kind: bundle.kind,
    seq: bundle.seq,
    networkId: toHex(bundle.networkId),
    signer: nodeIdOf(bundle.signer),
    epoch: verdict.chain?.epoch ?? 0,
    addresses: bundle.addresses,
    records: bundle.records.length,
    issuedMs: bundle.issuedMs,
    expiresMs: bundle.expiresMs,
    stale: context.deps.now() >= bundle.expiresMs,
  };
  if (out.json) {
    out.document(shown);
    return EXIT.ok;
  }
  out.line(`${shown.kind} ${shown.seq}, signed by ${shown.signer}, an issuer in epoch ${shown.epoch}`);
  out.line(`Network ${shown.networkId}`);
  out.line(`${shown.addresses.length} addresses, ${plural(shown.records, "record")}`);
  out.warn("No agent of this network runs here: compare the network's id with what you expect");
  return EXIT.ok;
}

function refusedSeed(reason: string, detail: string): CliError {
  return new CliError(`The bundle does not count: ${detail}`, { code: reason, exitCode: EXIT.refused });
}

const FETCH_MS = 20_000;

function badAnswer(): CliError {
  return new CliError("The agent's answer cannot be read", {
    code: "bad-answer",
    cure: "Compare versions: mycelium version",
  });
}

function readExported(result: unknown) {
  const { text, addresses, expiresMs, records, leftOut, bytes, seq, kind, content } = (result ?? {}) as Record<
    string,
    unknown
  >;
  const numbers = [expiresMs, records, leftOut, bytes, seq].every((one) => typeof one === "number");
  if (typeof text !== "string" || !Array.isArray(addresses) || !numbers) throw badAnswer();
  return {
    text,
    kind: String(kind),
    seq: seq as number,
    content: String(content),
    addresses: addresses.map(String),
    records: records as number,
    leftOut: leftOut as number,
    bytes: bytes as number,
    expiresMs: expiresMs as number,
  };
}

function readOutcomes(result: unknown): readonly PublishOutcome[] {
  if (!Array.isArray(result) || !result.every((one) => typeof one?.to === "string" && typeof one.state === "string")) {
    throw badAnswer();
  }
  return result;
}

function readDecided(result: unknown) {
  const { epoch, hash, issuers, names, text } = (result ?? {}) as Record<string, unknown>;
  if (typeof epoch !== "number" || typeof hash !== "string" || !Array.isArray(issuers) || !Array.isArray(names)) {
    throw badAnswer();
  }
  return {
    epoch,
    hash,
    issuers: issuers.map(String),
    names: names.map(String),
    text: typeof text === "string" ? text : "",
  };
}

function readReport(result: unknown): ImportReport {
  const report = (result ?? {}) as ImportReport;
  if (typeof report.kind !== "string" || typeof report.counts !== "object" || !Array.isArray(report.records)) {
    throw badAnswer();
  }
  return report;
}
