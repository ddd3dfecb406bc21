/** `node`, `leave`: what operators do to members. @module */

import type { Command } from "commander";
import { resolve } from "node:path";
import { type Context, durationFlag, type Register, resolveNode } from "../context.ts";
import { CliError, EXIT } from "../exit.ts";
import { byteSize, type Cell, duration, safe } from "../output.ts";
import { runOn } from "./exec.ts";
import { ago, stateCell } from "./status.ts";
import { examples } from "./up.ts";

/** Adds the commands. */
export function registerNode(program: Command, register: Register): void {
  const node = program.command("node").summary("list, approve, deny, remove and drain nodes")
    .description(
      "Members of the network and machines that want to become one. A node is named by its id, the end of " +
        "it (4 characters or more), or its name.",
    );

  const list = node.command("list").alias("ls").summary("list members and machines that wait for approval");
  register(list, async (context) => {
    using client = await context.agent();
    const { members, pending, nowMs } = await client.status();
    const { out } = context;
    if (out.json) out.document({ members, pending });
    else if (out.quiet) { for (const one of [...members, ...pending]) out.line(one.nodeId); }
    else {
      out.table(
        ["NAME", "NODE", "ROLE", "POOL", "STATE", ">SEEN", ">CPU", ">MEMORY", ">DISK FREE", "ARCH", ">CREDENTIAL"],
        [
          ...members.map((one): Cell[] => [
            one.name,
            one.nodeId.slice(-8),
            one.role + (one.issuer ? ", issuer" : ""),
            one.pool,
            one.drained ? ["yellow", `${one.state}, drained`] : stateCell(one.state),
            one.state === "self" ? "-" : ago(nowMs, one.lastSeenMs),
            String(one.capabilities.cpus),
            byteSize(one.capabilities.memoryBytes),
            byteSize(one.capabilities.diskFreeBytes),
            one.capabilities.arch,
            one.credentialExpiresMs > nowMs ? duration(one.credentialExpiresMs - nowMs) : ["red", "ran out"],
          ]),
          ...pending.map((one): Cell[] => [
            one.name,
            one.nodeId.slice(-8),
            one.role,
            "-",
            ["yellow", "waiting"],
            ago(nowMs, one.sinceMs),
            String(one.capabilities.cpus),
            byteSize(one.capabilities.memoryBytes),
            byteSize(one.capabilities.diskFreeBytes),
            one.capabilities.arch,
            "-",
          ]),
        ],
      );
      if (pending.length > 0) out.note(`\n${pending.length} wait: mycelium node approve <node>, or deny`);
    }
    return EXIT.ok;
  });

  const approve = node.command("approve").argument("<node>").summary("let a waiting machine in");
  examples(approve, [["mycelium node approve x7Kq2mPd", "the end of the id, as the machine itself shows it"]]);
  register(approve, (context, args) => decide(context, args[0]!, "node-approve", "is let in"));

  const deny = node.command("deny").argument("<node>").summary("refuse a waiting machine")
    .option("--reason <text>", "told to the machine");
  register(deny, (context, args, command) => {
    const { reason } = command.opts<{ reason?: string }>();
    return decide(context, args[0]!, "node-deny", "is refused", reason);
  });

  const remove = node.command("remove").alias("rm").argument("<node>").summary(
    "take a member's membership away, for good",
  )
    .description(
      "Revokes a member: it is cut off as the revocation spreads and cannot come back with its old identity.",
    )
    .option("--reason <text>", "kept in the record")
    .option("--dry-run", "say what would happen, change nothing")
    .option("-y, --yes", "do not ask");
  examples(remove, [["mycelium node remove old-laptop --dry-run", ""], ["mycelium node remove old-laptop --yes", ""]]);
  register(remove, async (context, args, command) => {
    const flags = command.opts<{ reason?: string; dryRun?: boolean; yes?: boolean }>();
    using client = await context.agent();
    const status = await client.status();
    const found = resolveNode(status, args[0]!);
    const { out } = context;
    const member = status.members.find((one) => one.nodeId === found.nodeId);
    const facts = [
      `${safe(found.name)} (${found.nodeId}), ${found.role}`,
      ...member?.issuer ? ["it is an issuer: the network loses one of those that admit members"] : [],
      ...found.nodeId === status.node.nodeId ? ["it is this machine itself"] : [],
    ];
    const request = { verb: "node-remove", node: found.nodeId, ...(flags.reason ? { reason: flags.reason } : {}) };
    if (flags.dryRun) {
      const result = await client.control({ ...request, dryRun: true });
      if (out.json) out.document({ dryRun: true, nodeId: found.nodeId, name: found.name, result: result ?? {} });
      else out.line(`Would remove ${facts.join("; ")}${resultText(result)}`);
      return EXIT.ok;
    }
    await context.confirm(`Remove ${facts.join("; ")}? It cannot come back with this identity`, flags.yes);
    const result = await client.control(request);
    if (out.json) out.document(result ?? {});
    else out.note(`${safe(found.name)} is removed`);
    return EXIT.ok;
  });

  const drain = node.command("drain").argument("<node>").summary("move work away from a node, before maintenance")
    .option("--off", "let work come back")
    .option("--timeout <duration>", "for a node that is not this one", "30s");
  examples(drain, [["mycelium node drain pi-kitchen", ""], ["mycelium node drain pi-kitchen --off", ""]]);
  register(drain, async (context, args, command) => {
    const flags = command.opts<{ off?: boolean; timeout?: string }>();
    const timeoutMs = durationFlag("--timeout", flags.timeout)!;
    using client = await context.agent();
    const status = await client.status();
    const found = resolveNode(status, args[0]!);
    if (found.nodeId !== status.node.nodeId) {
      return await runOn(context, client, {
        verb: flags.off ? "undrain" : "drain",
        args: {},
        node: found.nodeId,
        timeoutMs,
      });
    }
    const result = await client.control({ verb: "set-mode", mode: flags.off ? "normal" : "drained" });
    if (context.out.json) context.out.document(result ?? {});
    else context.out.note(`${safe(found.name)} is ${flags.off ? "back" : "drained"}`);
    return EXIT.ok;
  });

  const leave = program.command("leave").summary("take this machine out of the network, for good")
    .description("Says good-bye to the network. This machine needs a new invite to come back.")
    .option("--dry-run", "say what would happen, change nothing")
    .option("-y, --yes", "do not ask");
  register(leave, async (context, _args, command) => {
    const flags = command.opts<{ dryRun?: boolean; yes?: boolean }>();
    using client = await context.agent();
    const { network, node: own, members } = await client.status();
    if (!network) throw new CliError("This machine is in no network", { code: "no-network" });
    const alone = members.length <= 1 ? "; it is the only member: the network ends" : "";
    const genesis = network.genesisKey === "here" ? "; the genesis key of the network is on it" : "";
    const what = `${safe(own.name)} leaves network ${safe(network.name)}${alone}${genesis}`;
    if (flags.dryRun) {
      if (context.out.json) {
        context.out.document({
          dryRun: true,
          nodeId: own.nodeId,
          networkId: network.networkId,
          lastMember: alone !== "",
        });
      } else context.out.line(`Would do: ${what}`);
      return EXIT.ok;
    }
    await context.confirm(`${what}. Go on?`, flags.yes);
    const result = await client.control({ verb: "leave" });
    if (context.out.json) context.out.document(result ?? {});
    else context.out.note("This machine has left the network");
    return EXIT.ok;
  });
}

/** Adds `genesis`. */
export function registerGenesis(program: Command, register: Register): void {
  const genesis = program.command("genesis").summary(
    "keep the key of the network's beginning offline, and recover with it",
  );
  const take = genesis.command("export").argument("<file>", "where the key goes, best on a medium that is taken away")
    .summary("move the genesis key out of this node")
    .description(
      "Writes the genesis key into a file and forgets it here. The network works without it; it is needed only where " +
        "too few issuers are left to sign who is one: all of two or three do, more than two thirds of more.",
    )
    .option("--dry-run", "say what would happen, change nothing")
    .option("-y, --yes", "do not ask");
  examples(take, [["mycelium genesis export /media/stick/home.genesis", ""]]);
  register(take, async (context, args, command) => {
    const flags = command.opts<{ dryRun?: boolean; yes?: boolean }>();
    const path = resolve(context.deps.cwd, args[0]!);
    using client = await context.agent();
    if (!flags.dryRun) await context.confirm(`Move the genesis key to ${path} and forget it here?`, flags.yes);
    const result = await client.control({ verb: "genesis-export", path, ...(flags.dryRun ? { dryRun: true } : {}) });
    if (context.out.json) context.out.document(result ?? {});
    else if (flags.dryRun) context.out.line(`Would move the genesis key to ${path}`);
    else context.out.note(`The genesis key is in ${path} and nowhere else. Keep it safe`);
    return EXIT.ok;
  });
  registerRecover(genesis, register);
}

/** Adds `genesis recover`. */
function registerRecover(genesis: Command, register: Register): void {
  const recover = genesis.command("recover").summary("sign a new set of issuers with the genesis key")
    .description(
      "For a network whose issuers are lost, or have locked each other out by proposals that contradict: the genesis " +
        "key alone signs the next set of issuers, which is the present one without those named here and those removed. " +
        "Run it on an issuer. Where two parts of a network are cut off from each other, run it in one of them only.",
    )
    .option(
      "--without <node>",
      "an issuer to leave out, may be repeated",
      (one: string, all: readonly string[] = []) => [...all, one],
    )
    .option("--key <file>", "file with the genesis key (default: the one on this node)")
    .option("-y, --yes", "do not ask");
  examples(recover, [["mycelium genesis recover --without old-server --key /media/stick/home.genesis", ""]]);
  register(recover, async (context, _args, command) => {
    const flags = command.opts<{ without?: readonly string[]; key?: string; yes?: boolean }>();
    using client = await context.agent();
    await context.confirm("Sign a new set of issuers with the genesis key?", flags.yes);
    const result = await client.control({
      verb: "authority-recover",
      without: flags.without ?? [],
      ...(flags.key === undefined ? {} : { keyFile: resolve(context.deps.cwd, flags.key) }),
    });
    if (context.out.json) context.out.document(result ?? {});
    else context.out.note(`The new set of issuers is in force${resultText(result)}`);
    return EXIT.ok;
  });
}

/** What the agent adds to a dry run, in a line. */
export function resultText(result: unknown): string {
  if (typeof result === "string") return `: ${safe(result)}`;
  if (typeof result !== "object" || result === null || Object.keys(result).length === 0) return "";
  return `\n${safe(JSON.stringify(result, undefined, 2))}`;
}

async function decide(context: Context, word: string, verb: string, done: string, reason?: string): Promise<number> {
  using client = await context.agent();
  const status = await client.status();
  const found = resolveNode({ ...status, members: [] }, word);
  const result = await client.control({ verb, node: found.nodeId, ...(reason === undefined ? {} : { reason }) });
  if (context.out.json) context.out.document(result ?? {});
  else context.out.note(`${safe(found.name)} (${found.nodeId}) ${done}`);
  return EXIT.ok;
}
