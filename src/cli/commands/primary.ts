/** `primary`: what the primaries agree on: who they are, handing over, recovery, backup and restore. @module */

import { join, resolve } from "node:path";
import type { Command } from "commander";
import type { PrimaryStatus, Status } from "../../agent/status.ts";
import { concatBytes, equalBytes, fromBase64Url, fromHex, toBase64Url, toHex } from "../../core/bytes.ts";
import { encodeCbor, WireError } from "../../core/codec.ts";
import { sha256 } from "../../core/crypto.ts";
import { envelopeValue } from "../../core/envelope.ts";
import { LIMITS } from "../../core/limits.ts";
import { readBounded, TooLargeError, writeWhole } from "../../edge/disk/whole_file.ts";
import { StateMachine } from "../../spore/state_machine.ts";
import { type BackupSecret, openBackup, PASSPHRASE_CHARS_MIN, sealBackup } from "../backup_file.ts";
import type { ControlClient } from "../client.ts";
import { type Context, type Register, resolveNode } from "../context.ts";
import { CliError, EXIT, usageError } from "../exit.ts";
import { byteSize, type Cell, instant, plural, safe } from "../output.ts";
import { resultText } from "./node.ts";
import { examples } from "./up.ts";

/** Records in one request. */
const ROWS_MAX = 32;

/** Adds the commands. */
export function registerPrimary(program: Command, register: Register): void {
  const primary = program.command("primary").summary("who agrees on the network's records; recovery and backup")
    .description(
      "The Primary Spore is agreed on by the issuers: 1, 3, 5 or 7 of them vote, the others are learners. It survives the loss " +
        "of any minority of those that vote.",
    );
  const status = primary.command("status").summary("who votes, who leads, how far it is");
  register(status, async (context) => {
    using client = await context.agent();
    const all = await client.status();
    const found = primaryOf(all);
    if (context.out.json) context.out.document({ ...found });
    else show(context, all, found);
    return found.leader === undefined ? EXIT.failed : EXIT.ok;
  });
  registerTransfer(primary, register);
  registerRecover(primary, register);
  registerBackup(primary, register);
  registerRestore(primary, register);
}

function registerTransfer(primary: Command, register: Register): void {
  const transfer = primary.command("transfer").argument("<node>").summary("let another voter lead, before maintenance");
  examples(transfer, [["mycelium primary transfer rack2", "run it on the node that leads"]]);
  register(transfer, async (context, args) => {
    using client = await context.agent();
    const { nodeId } = resolveNode(await client.status(), args[0]!);
    const result = await client.control({ verb: "primary-transfer", node: nodeId }) as {
      readonly leader: string | null;
    };
    if (context.out.json) context.out.document(result);
    else {context.out.note(
        result.leader ? `${safe(result.leader)} leads` : "It leads no more; another one is being elected",
      );}
    return EXIT.ok;
  });
}

function registerRecover(primary: Command, register: Register): void {
  const recover = primary.command("recover").summary("go on without a majority that is lost for good")
    .description(
      "For a network whose majority of voters is gone and does not come back. This node goes on as the only voter with " +
        "what it holds; what only the lost ones held is lost. Needs the operator's key or the genesis key. Should the lost " +
        "nodes come back, they begin anew when they meet this one; until then they could agree among themselves, so make " +
        "sure that they are off. See docs/runbooks/lost-majority.md.",
    )
    .option(
      "--without <node>",
      "a voter or learner that is given up, may be repeated",
      (one: string, all: readonly string[] = []) => [...all, one],
    )
    .option("--key <file>", "file with the genesis key or the operator's (default: what is on this node)")
    .option("--dry-run", "say what would happen, change nothing")
    .option("-y, --yes", "do not ask");
  examples(recover, [
    ["mycelium primary recover --without rack1 --without rack2 --dry-run", ""],
    ["mycelium primary recover --without rack1 --without rack2 --yes", ""],
  ]);
  register(recover, async (context, _args, command) => {
    const flags = command.opts<{ without?: readonly string[]; key?: string; dryRun?: boolean; yes?: boolean }>();
    if (!flags.without?.length) throw usageError("Name what is given up: --without <node>");
    using client = await context.agent();
    const request = {
      verb: "primary-recover",
      without: flags.without,
      ...(flags.key === undefined ? {} : { keyFile: resolve(context.deps.cwd, flags.key) }),
    };
    const plan = await client.control({ ...request, dryRun: true });
    if (flags.dryRun) {
      if (context.out.json) context.out.document({ dryRun: true, ...plan as object });
      else context.out.line(`Would go on with this node as the only voter${resultText(plan)}`);
      return EXIT.ok;
    }
    await context.confirm(
      `Go on without ${flags.without.map(safe).join(", ")}? What only they held is lost. They are off and stay off?`,
      flags.yes,
    );
    const result = await client.control(request);
    if (context.out.json) context.out.document(result ?? {});
    else {context.out.note(
        "This node leads, and votes alone. Others vote again as they catch up: mycelium primary status",
      );}
    return EXIT.ok;
  });
}

function registerBackup(primary: Command, register: Register): void {
  const backup = primary.command("backup").argument("<file>").summary("save everything that was agreed on, encrypted")
    .option("--passphrase-file <file>", `encrypt with a passphrase of at least ${PASSPHRASE_CHARS_MIN} characters`)
    .option("--operator-key <file>", "encrypt with the operator's key (default: the one on this node)")
    .option("--force", "replace the file");
  examples(backup, [
    ["mycelium primary backup home.backup --passphrase-file ~/pass", ""],
    ["mycelium primary backup /media/stick/home.backup", "on the founder, with the operator's key"],
  ]);
  register(backup, async (context, args, command) => {
    const flags = command.opts<SecretFlags & { force?: boolean }>();
    const path = resolve(context.deps.cwd, args[0]!);
    const secret = await secretOf(context, flags);
    if (!flags.force && await exists(path)) {
      throw new CliError(`Cannot write "${path}": it is there already`, {
        code: "exists",
        cure: "Name another file, or --force",
        exitCode: EXIT.refused,
      });
    }
    using client = await context.agent();
    const dump = await readDump(client);
    const machine = new StateMachine(dump.networkId);
    machine.restore(dump.state);
    const createdMs = context.deps.now();
    const { networkId, networkName, index } = dump;
    const sealed = sealBackup(dump.state, { networkId, networkName, index, createdMs }, secret);
    // What cannot be opened again is no backup.
    openBackup(sealed, secret);
    await writeWhole(path, sealed, { mode: 0o600 }).catch((cause) => {
      throw new CliError(`Cannot write "${path}": ${(cause as Error).message}`, { code: "failed", cause });
    });
    const { keys } = machine.size;
    if (context.out.json) {
      context.out.document({ path, sizeBytes: sealed.length, index, keys, networkId: toHex(networkId) });
    } else context.out.note(`${plural(keys, "key")} as of entry ${index} are in ${path}, ${byteSize(sealed.length)}`);
    return EXIT.ok;
  });
}

function registerRestore(primary: Command, register: Register): void {
  const restore = primary.command("restore").argument("<file>").summary("write a backup's records into this network")
    .description(
      "Records are written like any others and agreed on. Those of this network keep their signatures; those of another " +
        "one, or that have run out, are signed by this node, which leaves out what belongs to other nodes. What stands " +
        "under a key now is kept unless --overwrite is given.",
    )
    .option("--passphrase-file <file>", "passphrase of the backup")
    .option("--operator-key <file>", "the operator's key (default: the one on this node)")
    .option("--overwrite", "also where something stands now")
    .option("--dry-run", "say what would happen, change nothing")
    .option("-y, --yes", "do not ask");
  examples(restore, [["mycelium primary restore home.backup --passphrase-file ~/pass --dry-run", ""]]);
  register(restore, async (context, args, command) => {
    const flags = command.opts<SecretFlags & { overwrite?: boolean; dryRun?: boolean; yes?: boolean }>();
    const path = resolve(context.deps.cwd, args[0]!);
    const { header, state } = openBackup(
      await readFile(path, LIMITS.raftSnapshotBytesMax),
      await secretOf(context, flags),
    );
    const machine = new StateMachine(header.networkId);
    try {
      machine.restore(state);
    } catch (cause) {
      if (!(cause instanceof WireError)) throw cause;
      throw new CliError(`Cannot read the backup's state: ${cause.message}`, { code: "bad-backup", cause });
    }
    using client = await context.agent();
    const { network } = await client.status();
    const same = network?.networkId === toHex(header.networkId);
    const live = [...machine.versions()].filter((one) => one.spore.record.value !== undefined)
      .sort((a, b) => a.spore.record.key < b.spore.record.key ? -1 : 1);
    const { out } = context;
    out.note(
      `${plural(live.length, "record")} of ${same ? "this network" : `network ${safe(header.networkName)}`}, saved ${
        instant(header.createdMs)
      }`,
    );
    if (!flags.dryRun) await context.confirm("Write them?", flags.yes);
    const outcomes: { readonly key: string; readonly outcome: string; readonly reason?: string }[] = [];
    for (let at = 0; at < live.length; at += ROWS_MAX) {
      const rows = live.slice(at, at + ROWS_MAX).map(({ spore }) => ({
        key: spore.record.key,
        value: toBase64Url(spore.record.value!),
        ...(same ? { envelope: toBase64Url(encodeCbor(envelopeValue(spore.envelope))) } : {}),
      }));
      const result = await client.control({
        verb: "primary-restore",
        rows,
        ...(flags.overwrite ? { overwrite: true } : {}),
        ...(flags.dryRun ? { dryRun: true } : {}),
      });
      outcomes.push(...(result as { readonly rows: typeof outcomes }).rows);
    }
    const counts: Record<string, number> = {};
    for (const { outcome } of outcomes) counts[outcome] = (counts[outcome] ?? 0) + 1;
    if (out.json) out.document({ dryRun: flags.dryRun ?? false, sameNetwork: same, counts, rows: outcomes });
    else {
      for (const one of outcomes.filter((one) => one.reason)) out.warn(`${one.key}: ${one.outcome}, ${one.reason}`);
      const told = Object.entries(counts).map(([outcome, count]) => `${count} ${outcome}`).join(", ");
      out.note(`${flags.dryRun ? "Would be" : "Done"}: ${told || "nothing"}`);
    }
    return counts.failed ? EXIT.failed : EXIT.ok;
  });
}

interface SecretFlags {
  readonly passphraseFile?: string;
  readonly operatorKey?: string;
}

/** The secret that the flags name, else the operator's key of the state folder. */
async function secretOf(context: Context, flags: SecretFlags): Promise<BackupSecret> {
  if (flags.passphraseFile !== undefined && flags.operatorKey !== undefined) {
    throw usageError("Give one of --passphrase-file and --operator-key");
  }
  const { cwd } = context.deps;
  if (flags.passphraseFile !== undefined) {
    const text = new TextDecoder().decode(await readFile(resolve(cwd, flags.passphraseFile), 4_096));
    const passphrase = text.replace(/\r?\n$/, "");
    if (passphrase.length >= PASSPHRASE_CHARS_MIN) return { kind: "passphrase", passphrase };
    throw usageError(
      `Cannot use the passphrase: it has ${passphrase.length} characters, wanted ${PASSPHRASE_CHARS_MIN} or more`,
    );
  }
  const file = flags.operatorKey !== undefined
    ? resolve(cwd, flags.operatorKey)
    : context.flags.state !== undefined
    ? join(resolve(cwd, context.flags.state), "secret", "operator.key")
    : undefined;
  if (file === undefined) throw usageError("Name the secret: --passphrase-file or --operator-key");
  const seed = await readFile(file, 64);
  if (seed.length !== 32) throw usageError(`Cannot use "${file}": it has ${seed.length} bytes, a key has 32`);
  return { kind: "operator", seed };
}

async function readFile(path: string, bytesMax: number): Promise<Uint8Array> {
  try {
    return await readBounded(path, bytesMax);
  } catch (cause) {
    if (cause instanceof TooLargeError) throw usageError(`Cannot read "${path}": it has more than ${bytesMax} bytes`);
    throw new CliError(`Cannot read "${path}": ${(cause as Error).message}`, {
      code: "usage",
      exitCode: EXIT.usage,
      cause,
    });
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await Deno.lstat(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** Reads the whole state of the agent in pieces. */
async function readDump(client: ControlClient): Promise<
  { readonly networkId: Uint8Array; readonly networkName: string; readonly index: number; readonly state: Uint8Array }
> {
  const pieces: Uint8Array[] = [];
  let offset = 0;
  let dump: string | undefined;
  for (;;) {
    const answer = await client.control({ verb: "primary-dump", ...(dump === undefined ? {} : { dump, offset }) });
    const { sizeBytes, digest, index, networkId, networkName, piece, ...rest } = answer as Record<string, unknown>;
    const part = typeof piece === "string" ? fromBase64Url(piece) : undefined;
    const network = typeof networkId === "string" ? fromHex(networkId) : undefined;
    const known = typeof sizeBytes === "number" && sizeBytes <= LIMITS.raftSnapshotBytesMax &&
      typeof index === "number" && typeof digest === "string" && typeof networkName === "string";
    if (!known || !part || part.length === 0 || !network) throw badDump();
    pieces.push(part);
    offset += part.length;
    dump = String(rest.dump);
    if (offset < sizeBytes) continue;
    const state = concatBytes(...pieces);
    if (!equalBytes(sha256(state), fromHex(digest) ?? new Uint8Array(0))) throw badDump();
    return { networkId: network, networkName, index, state };
  }
}

function badDump(): CliError {
  return new CliError("The agent's answer cannot be read", {
    code: "bad-answer",
    cure: "Compare versions: mycelium version",
  });
}

function primaryOf(status: Status): PrimaryStatus {
  if (status.primary) return status.primary;
  throw new CliError("This node is not a member of a network yet", {
    code: "no-network",
    cure: "Form one: mycelium init; or join one: mycelium join <invite>",
    exitCode: EXIT.refused,
  });
}

function show(context: Context, status: Status, primary: PrimaryStatus): void {
  const { out } = context;
  const nameOf = (nodeId: string) =>
    safe(status.members.find((one) => one.nodeId === nodeId)?.name ?? nodeId.slice(-8));
  const role = primary.role === "client" ? "no replica (only issuers hold one)" : primary.role;
  out.line(`This node   ${role}${primary.role === "client" ? "" : `, term ${primary.term}`}`);
  out.line(`Leader      ${primary.leader === undefined ? "none" : nameOf(primary.leader)}`);
  if (primary.role === "client") return;
  const tolerated = Math.floor((primary.voters.length - 1) / 2);
  out.line(`Tolerates   the loss of ${tolerated} of ${plural(primary.voters.length, "voter")}`);
  out.line(
    `State       ${plural(primary.keys, "key")}, ${
      byteSize(primary.bytes)
    }, entry ${primary.appliedIndex} of ${primary.commitIndex}` +
      ` (log of ${primary.logEntries}, ${byteSize(primary.logBytes)})`,
  );
  if (primary.unproven > 0) {
    out.line(`Unproven    ${plural(primary.unproven, "key")} wait for signatures of a majority`);
  }
  for (const one of primary.recoveries) {
    out.line(`Recovered   ${instant(one.timeMs)} at ${nameOf(one.by)} without ${one.without.map(nameOf).join(", ")}`);
  }
  const rows = [
    ...primary.voters.map((one) => [one, "voter"] as const),
    ...primary.learners.map((one) => [one, "learner"] as const),
  ].map(([one, part]): Cell[] => {
    const member = status.members.find((other) => other.nodeId === one);
    return [nameOf(one), one.slice(-8), part, member?.state ?? "unknown", one === primary.leader ? "leads" : ""];
  });
  out.line("");
  out.table(["NAME", "NODE", "PART", "STATE", ""], rows);
  if (primary.changing) out.note("A change of the voters is under way");
}
