/** `login`, `operator`, `role`, `token`, `totp`: who may do what. @module */

import { randomBytes } from "node:crypto";
import type { Command } from "commander";
import { resolve } from "node:path";
import { equalBytes, fromBase64Url, toBase64Url, toHex, utf8 } from "../../core/bytes.ts";
import { type BoundSubject, decodeBinding } from "../../access/bindings.ts";
import { formatGrant, parseGrant } from "../../access/permission.ts";
import { BINDING_PREFIX, ROLE_PREFIX } from "../../access/policy.ts";
import { keyPairFromSeed } from "../../core/crypto.ts";
import { loginMessage, SESSION_MS, SESSION_MS_MAX } from "../../access/sessions.ts";
import { formatToken, makeToken, tokenHash } from "../../access/tokens.ts";
import { decodeRole, GIVEN_ROLES } from "../../access/roles.ts";
import { badAnswer, fields } from "../answers.ts";
import { type Context, durationFlag, type Register, resolveNode } from "../context.ts";
import { CliError, EXIT, usageError } from "../exit.ts";
import { readText } from "../files.ts";
import { changePolicy, type KeyFlags, keyFlags, operatorSigner, parsePublicKey } from "../operator_key.ts";
import { type Cell, duration, instant, safe } from "../output.ts";
import { forgetSession, hexField, keepSession, writeSecret } from "../session_file.ts";
import { formatPublicKey } from "../ssh_agent.ts";
import { examples } from "./up.ts";

/** Adds the commands. */
export function registerAccess(program: Command, register: Register): void {
  registerSession(program, register);
  registerOperator(program, register);
  registerRole(program, register);
  registerToken(program, register);
  registerTotp(program, register);
}

/** How the policy is changed, for the help of the commands that do. */
const SIGNED =
  "The nodes agree on it, and want an operator's signature who may: on the founder the node signs, elsewhere " +
  "name your key with --key or --ssh-agent.";

function registerSession(program: Command, register: Register): void {
  const login = keyFlags(
    program.command("login").summary("begin a session with an operator key")
      .description(
        "Shows an operator key to the agent, which answers with a session. Until it ends or `logout`, commands to this " +
          "agent are of this operator. Without a session, who may use the agent's socket may do everything.",
      ),
  ).option("--ttl <duration>", "how long the session lives, at most 12h", "1h");
  examples(login, [
    ["mycelium login --key ~/.config/mycelium/me.key", ""],
    ["mycelium login --ssh-agent", "the key may lie in hardware"],
    ["mycelium login --url https://server:4873 --key me.key", "the agent of another machine"],
  ]);
  register(login, async (context, _args, command) => {
    const flags = command.opts<KeyFlags & { ttl: string }>();
    const ttlMs = durationFlag("--ttl", flags.ttl) ?? SESSION_MS;
    if (ttlMs < 1_000 || ttlMs > SESSION_MS_MAX) throw usageError("Cannot use --ttl: wanted 1s to 12h");
    const signer = await operatorSigner(context, flags);
    using client = await context.agentAnonymously();
    const asked = fields(await client.control({ verb: "access-challenge" }));
    const challenge = typeof asked.challenge === "string" ? fromBase64Url(asked.challenge) : undefined;
    const networkId = hexField(asked.networkId, 32);
    const nodeKey = hexField(asked.nodeKey, 32);
    if (!challenge || !networkId || !nodeKey) throw badAnswer();
    const pair = keyPairFromSeed(new Uint8Array(randomBytes(32)));
    const words = { challenge, key: signer.publicKey, sessionKey: pair.publicKey, ttlMs };
    const signature = await signer.sign(loginMessage(words, { networkId, nodeKey }));
    const answer = fields(
      await client.control({
        verb: "access-login",
        challenge: asked.challenge,
        key: toBase64Url(signer.publicKey),
        sessionKey: toBase64Url(pair.publicKey),
        ttlMs,
        signature: toBase64Url(signature),
      }),
    );
    const id = hexField(answer.session, 16);
    if (!id || typeof answer.expiresMs !== "number" || typeof answer.nowMs !== "number") throw badAnswer();
    const name = String(answer.name);
    await keepSession(context.deps, {
      target: client.socket,
      id,
      pair,
      networkId,
      nodeKey,
      expiresMs: answer.expiresMs,
      aheadMs: Math.round(answer.nowMs - context.deps.now()),
      name,
    });
    const { out } = context;
    if (out.json) out.document(answer);
    else {
      out.note(`You are ${safe(name)} (${list(answer.roles)}) until ${instant(answer.expiresMs)}`);
      if (answer.secondFactor === "enrolled") out.note("Dangerous commands ask for a code: mycelium totp verify");
    }
    return EXIT.ok;
  });

  const logout = program.command("logout").summary("end the session").option(
    "--session <id>",
    "another one's session, by its id",
  );
  register(logout, async (context, _args, command) => {
    const { session } = command.opts<{ session?: string }>();
    using client = await context.agent();
    if (session !== undefined) {
      const result = await client.control({ verb: "access-logout", session });
      if (context.out.json) context.out.document(result ?? {});
      else context.out.note(`Session ${session} has ended`);
      return EXIT.ok;
    }
    // The key goes first: whatever the agent says, nobody signs with it any more.
    const kept = await forgetSession(context.deps, client.socket);
    if (!kept) throw new CliError("There is no session with this agent", { code: "no-session" });
    const result = await client.control({ verb: "access-logout" }).catch((error) => {
      if (error instanceof CliError && error.exitCode === EXIT.refused) return { ended: false };
      throw error;
    });
    if (context.out.json) context.out.document(result ?? {});
    else context.out.note("Logged out");
    return EXIT.ok;
  });

  const access = program.command("access").summary("who is logged in at this node");
  const sessions = access.command("sessions").summary("list the sessions of this node").description(
    "One is ended with: mycelium logout --session ID; all of an operator with: mycelium operator remove NAME.",
  );
  register(sessions, async (context) => {
    using client = await context.agent();
    const answer = fields(await client.control({ verb: "access-sessions" }));
    const { out, deps } = context;
    if (out.json) out.document(answer);
    else if (out.quiet) { for (const one of rows(answer.sessions)) out.line(safe(String(one.id))); }
    else {
      out.table(
        ["ID", "OPERATOR", ">OPEN FOR", ">ENDS IN", "KEY"],
        rows(answer.sessions).map((one): Cell[] => [
          String(one.id),
          String(one.name),
          duration(Math.max(0, deps.now() - Number(one.openedMs))),
          duration(Math.max(0, Number(one.expiresMs) - deps.now())),
          String(one.key),
        ]),
      );
    }
    return EXIT.ok;
  });

  const whoami = program.command("whoami").summary("who you are to the agent, and what you may");
  register(whoami, async (context) => {
    using client = await context.agent();
    const answer = fields(await client.control({ verb: "access-whoami" }));
    const { out } = context;
    if (out.json) out.document(answer);
    else {
      out.line(`${safe(String(answer.name))} (${list(answer.roles)})`);
      if (answer.service !== undefined) out.line(`Service        ${safe(String(answer.service))}`);
      if (typeof answer.id === "string" && answer.id !== "") out.line(`Id             ${safe(answer.id)}`);
      if (typeof answer.expiresMs === "number") out.line(`Session until  ${instant(answer.expiresMs)}`);
      out.line(`Second factor  ${safe(String(answer.secondFactor))}`);
    }
    return EXIT.ok;
  });
}

function registerOperator(program: Command, register: Register): void {
  const operator = program.command("operator").summary("people: make keys, say who may do what")
    .description(
      "An operator is a person with an Ed25519 key, in a file or in an SSH agent. The founder's key " +
        "(secret/operator.key on the first node) is admin from the beginning.",
    );

  const keygen = operator.command("keygen").summary("make an operator key").requiredOption(
    "--out <file>",
    "where it goes, with mode 0600; its public half goes to FILE.pub",
  ).option("--name <text>", "stands in the public half", "operator");
  examples(keygen, [["mycelium operator keygen --out ~/.config/mycelium/me.key --name anna", ""]]);
  register(keygen, async (context, _args, command) => {
    const flags = command.opts<{ out: string; name: string }>();
    const path = resolve(context.deps.cwd, flags.out);
    const pair = keyPairFromSeed(new Uint8Array(randomBytes(32)));
    await writeSecret(path, pair.seed);
    const line = formatPublicKey(pair.publicKey, flags.name.replace(/[^A-Za-z0-9@._-]/g, "-"));
    await Deno.writeTextFile(`${path}.pub`, line + "\n");
    const { out } = context;
    if (out.json) out.document({ key: path, publicKey: toHex(pair.publicKey), line });
    else {
      out.line(line);
      out.note(`The key is in ${path}. An admin lets it in: mycelium operator add ${flags.name} ${flags.out}.pub`);
    }
    return EXIT.ok;
  });

  const add = keyFlags(
    operator.command("add").argument("<name>", "lower-case letters, digits, dashes").argument(
      "<file>",
      "public key: FILE.pub, or - for stdin",
    ).summary("give an operator key a role").description(SIGNED),
  )
    .option("--role <role>", "what the operator may", "operator")
    .option("--ttl <duration>", "until when, for example 30d (default: until it is removed)");
  examples(add, [
    ["mycelium operator add anna anna.pub", ""],
    ["ssh-add -L | grep anna | mycelium operator add anna -", "a key in an SSH agent"],
    ["mycelium operator add guest guest.pub --role viewer --ttl 7d", ""],
  ]);
  register(add, async (context, args, command) => {
    const [name, file] = args as [string, string];
    const flags = command.opts<KeyFlags & { role: string; ttl?: string }>();
    const key = parsePublicKey(await readText(context, file));
    const ttlMs = durationFlag("--ttl", flags.ttl);
    using client = await context.agent();
    const result = await changePolicy(context, client, {
      verb: "role-bind",
      binding: name,
      role: flags.role,
      key: toBase64Url(key),
      ...(ttlMs === undefined ? {} : { ttlMs }),
    }, {
      key: `${BINDING_PREFIX}${name}`,
      flags,
      fits: binds(name, flags.role, ttlMs, (subject) => subject.kind === "operator" && equalBytes(subject.key, key)),
    });
    return said(context, result, `${name} is ${flags.role}`);
  });

  const show = operator.command("list").alias("ls").summary("list operators");
  register(show, (context) => bindings(context, "operator"));

  const remove = keyFlags(
    operator.command("remove").alias("rm").argument("<name>").summary("take an operator's role away")
      .description(SIGNED),
  )
    .option("-y, --yes", "do not ask");
  register(remove, async (context, args, command) => {
    const [name] = args as [string];
    const flags = command.opts<KeyFlags & { yes?: boolean }>();
    await context.confirm(`Take the role of ${name} away?`, flags.yes);
    return await unbind(context, name, flags, "operator");
  });
}

function registerRole(program: Command, register: Register): void {
  const role = program.command("role").summary("what somebody may do")
    .description(
      "A role is a list of permissions, such as status.read, spore.* or spore.write:app/shop/*. What no role grants is " +
        `refused. Built in: ${GIVEN_ROLES.join(", ")} for people, service for tokens, node for members.`,
    );

  const ls = role.command("list").alias("ls").summary("list roles");
  register(ls, async (context) => {
    using client = await context.agent();
    const answer = fields(await client.control({ verb: "role-list" }));
    const roles = rows(answer.roles);
    const { out } = context;
    if (out.json) out.document(answer);
    else if (out.quiet) { for (const one of roles) out.line(safe(String(one.role))); }
    else {
      out.table(
        ["ROLE", "BUILT IN", ">PERMISSIONS", "WHAT"],
        roles.map((one): Cell[] => [
          String(one.role),
          one.builtIn ? "yes" : "no",
          String(Array.isArray(one.grants) ? one.grants.length : 0),
          String(one.description),
        ]),
      );
    }
    return EXIT.ok;
  });

  const show = role.command("show").argument("<role>").summary("what a role allows, and who has it");
  register(show, async (context, args) => {
    using client = await context.agent();
    const answer = fields(await client.control({ verb: "role-show", role: args[0]! }));
    const { out } = context;
    if (out.json) out.document(answer);
    else {
      for (const grant of Array.isArray(answer.grants) ? answer.grants : []) out.line(safe(String(grant)));
      for (const one of rows(answer.bindings)) out.note(`${safe(String(one.binding))} has it`);
    }
    return EXIT.ok;
  });

  const create = role.command("create").argument("<role>", "lower-case letters, digits, dashes").argument(
    "<permissions...>",
    "such as status.read, spore.*, spore.write:app/shop/*",
  ).summary("make a role").description(SIGNED).option("--description <text>", "one line");
  keyFlags(create);
  examples(create, [["mycelium role create backup status.read primary.dump", ""]]);
  register(create, async (context, args, command) => {
    const [name, ...grants] = args as [string, ...string[]];
    const { description, ...flags } = command.opts<KeyFlags & { description?: string }>();
    using client = await context.agent();
    const result = await changePolicy(context, client, {
      verb: "role-create",
      role: name,
      grants,
      ...(description === undefined ? {} : { description }),
    }, {
      key: `${ROLE_PREFIX}${name}`,
      flags,
      fits: (value) => {
        const role = value && decodeRole(name, value);
        // As the nodes write it: `spore.read:*` is `spore.read`.
        const wanted = grants.map((one) => parseGrant(one)).map((one) => one && formatGrant(one));
        return role !== undefined && role.description === (description ?? "") &&
          role.grants.map(formatGrant).join(" ") === wanted.join(" ");
      },
    });
    return said(context, result, `Role ${name} is made. Give it to somebody: mycelium role bind`);
  });

  const remove = keyFlags(
    role.command("delete").alias("rm").argument("<role>").summary("delete a role: who has it loses it").description(
      SIGNED,
    ),
  );
  register(remove, async (context, args, command) => {
    const [name] = args as [string];
    using client = await context.agent();
    const result = await changePolicy(context, client, { verb: "role-delete", role: name }, {
      key: `${ROLE_PREFIX}${name}`,
      flags: command.opts<KeyFlags>(),
      fits: deletes,
    });
    return said(context, result, `Role ${name} is deleted`);
  });

  const bind = role.command("bind").argument("<binding>", "a name for it").argument("<role>").summary(
    "give a role to a key or a node",
  ).option("--public-key <file>", "public key of an operator, or - for stdin")
    .option("--node <node>", "a node, besides what it may as a member")
    .option("--ttl <duration>", "until when").description(SIGNED);
  keyFlags(bind);
  examples(bind, [
    ["mycelium role bind anna-backup backup --public-key anna.pub", ""],
    ["mycelium role bind edge-backup backup --node pi-kitchen", ""],
  ]);
  register(bind, async (context, args, command) => {
    const [binding, name] = args as [string, string];
    const flags = command.opts<KeyFlags & { publicKey?: string; node?: string; ttl?: string }>();
    const ttlMs = durationFlag("--ttl", flags.ttl);
    if ((flags.publicKey === undefined) === (flags.node === undefined)) {
      throw usageError("Cannot bind a role: wanted --public-key or --node");
    }
    const key = flags.publicKey === undefined ? undefined : parsePublicKey(await readText(context, flags.publicKey));
    using client = await context.agent();
    const node = key ? undefined : resolveNode(await client.status(), flags.node!).nodeId;
    const result = await changePolicy(context, client, {
      verb: "role-bind",
      binding,
      role: name,
      ...(key ? { key: toBase64Url(key) } : { node }),
      ...(ttlMs === undefined ? {} : { ttlMs }),
    }, {
      key: `${BINDING_PREFIX}${binding}`,
      flags,
      fits: binds(
        binding,
        name,
        ttlMs,
        (subject) =>
          subject.kind === "operator"
            ? key !== undefined && equalBytes(subject.key, key)
            : subject.kind === "node" && subject.nodeId === node,
      ),
    });
    return said(context, result, `${binding} has role ${name}`);
  });

  const loose = keyFlags(
    role.command("unbind").argument("<binding>").summary("take a role back").description(SIGNED),
  );
  register(loose, (context, args, command) => unbind(context, args[0]!, command.opts<KeyFlags>()));

  const who = role.command("bindings").summary("list who has which role");
  register(who, (context) => bindings(context));
}

function registerToken(program: Command, register: Register): void {
  const token = program.command("token").summary("programs: make, list and revoke service tokens")
    .description(
      "A service token lets a program speak for one service, over HTTP with `Authorization: Bearer`. The network keeps " +
        "its hash only; it is shown once.",
    );

  const create = token.command("create").argument("<name>", "lower-case letters, digits, dashes").summary(
    "make a token",
  )
    .requiredOption("--service <service>", "service that it speaks for")
    .option("--role <role>", "what it may: service, viewer, or a role of your own", "service")
    .option("--ttl <duration>", "how long it is good, for example 90d", "90d")
    .option("--out <file>", "where it goes, with mode 0600 (default: stdout)").description(SIGNED);
  keyFlags(create);
  examples(create, [["mycelium token create shop-prod --service shop --out shop.token", ""]]);
  register(create, async (context, args, command) => {
    const [name] = args as [string];
    const flags = command.opts<KeyFlags & { service: string; role: string; ttl: string; out?: string }>();
    const ttlMs = durationFlag("--ttl", flags.ttl)!;
    const made = makeToken(new Uint8Array(randomBytes(40)));
    const hash = tokenHash(made, flags.service);
    using client = await context.agent();
    const path = flags.out === undefined ? undefined : resolve(context.deps.cwd, flags.out);
    // Written first: a token that counts and that nobody has is worse than a file that does not count.
    if (path !== undefined) await writeSecret(path, utf8(formatToken(made) + "\n"));
    const result = fields(
      await changePolicy(context, client, {
        verb: "role-bind",
        binding: name,
        role: flags.role,
        token: { id: made.id, hash: toBase64Url(hash), service: flags.service },
        ttlMs,
      }, {
        key: `${BINDING_PREFIX}${name}`,
        flags,
        fits: binds(
          name,
          flags.role,
          ttlMs,
          (subject) =>
            subject.kind === "service" && subject.tokenId === made.id && subject.service === flags.service &&
            equalBytes(subject.hash, hash),
        ),
      }).catch(async (error) => {
        if (path !== undefined) await Deno.remove(path).catch(() => {});
        throw error;
      }),
    );
    const { out } = context;
    if (out.json) out.document({ ...result, ...(path === undefined ? { token: formatToken(made) } : { file: path }) });
    else {
      if (path === undefined) out.line(formatToken(made));
      out.note(
        `Token ${name}, good for ${duration(ttlMs)}. It is a secret${
          path === undefined ? " and is not shown again" : `, in ${path}`
        }`,
      );
    }
    return EXIT.ok;
  });

  const ls = token.command("list").alias("ls").summary("list tokens");
  register(ls, (context) => bindings(context, "service"));

  const revoke = keyFlags(
    token.command("revoke").alias("rm").argument("<name>").summary("make a token worthless").description(SIGNED),
  );
  register(revoke, (context, args, command) => unbind(context, args[0]!, command.opts<KeyFlags>(), "service"));
}

function registerTotp(program: Command, register: Register): void {
  const totp = program.command("totp").summary("the second factor: one-time codes of an authenticator app")
    .description(
      "Where one is set up, dangerous commands need a code: they ask on a terminal, or take it from MYCELIUM_CODE. It is " +
        "set up for who you are (`mycelium whoami`), on this node.",
    );

  const enroll = totp.command("enroll").summary("set up the second factor, and show its secret once").option(
    "--out <file>",
    "where the address for the app goes, with mode 0600 (default: stdout)",
  );
  register(enroll, async (context, _args, command) => {
    const { out: file } = command.opts<{ out?: string }>();
    using client = await context.agent();
    const answer = fields(await client.control({ verb: "factor-enroll" }));
    const { out } = context;
    if (file !== undefined) {
      const path = resolve(context.deps.cwd, file);
      await writeSecret(path, utf8(`${String(answer.uri)}\n`));
      if (out.json) out.document({ file: path, confirmed: false });
      else out.note(`The address for the app is in ${path}`);
    } else if (out.json) out.document(answer);
    else {
      out.line(`Secret   ${safe(String(answer.secret))}`);
      out.line(`Address  ${safe(String(answer.uri))}`);
    }
    if (!out.json) out.note("It counts once a code was shown: mycelium totp verify");
    return EXIT.ok;
  });

  const verify = totp.command("verify").summary(
    "show a code: confirms what was set up, or lets dangerous commands pass",
  )
    .description(
      "Reads the code from the terminal, from stdin, or from the variable MYCELIUM_CODE. In a session, dangerous commands " +
        "pass for five minutes after it.",
    );
  register(verify, async (context) => {
    const code = context.deps.env.MYCELIUM_CODE ??
      (context.out.interactive
        ? await context.out.ask("Code of the second factor: ")
        : await context.deps.stdin.readLine());
    if (code === undefined || !/^\s*\d{6}\s*$/.test(code)) throw usageError("Cannot use the code: wanted six digits");
    using client = await context.agent();
    const result = await client.control({ verb: "factor-verify", code: code.trim() });
    return said(context, result, "The code is right");
  });

  const remove = totp.command("remove").alias("rm").summary("take the second factor away").option(
    "--of <key>",
    "of another operator: key in hexadecimal, or local",
  );
  register(remove, async (context, _args, command) => {
    const { of } = command.opts<{ of?: string }>();
    using client = await context.agent();
    const result = await client.control({ verb: "factor-remove", ...(of === undefined ? {} : { subject: of }) });
    return said(context, result, "The second factor is taken away");
  });
}

/** Whether a value binds this subject to this role, for no longer than was asked for. */
function binds(name: string, role: string, ttlMs: number | undefined, is: (subject: BoundSubject) => boolean) {
  return (value: Uint8Array | undefined, issuedMs: number): boolean => {
    if (!value) return false;
    const { role: given, subject, expiresMs } = decodeBinding(name, value);
    const ends = ttlMs === undefined
      ? expiresMs === undefined
      : expiresMs !== undefined && expiresMs <= issuedMs + ttlMs;
    return given === role && ends && is(subject);
  };
}

const deletes = (value: Uint8Array | undefined): boolean => value === undefined;

async function bindings(context: Context, kind?: "operator" | "service"): Promise<number> {
  using client = await context.agent();
  const answer = fields(await client.control({ verb: "binding-list", ...(kind ? { kind } : {}) }));
  const { out } = context;
  const found = rows(answer.bindings);
  if (out.json) out.document(answer);
  else if (out.quiet) { for (const one of found) out.line(safe(String(one.binding))); }
  else {
    const nowMs = context.deps.now();
    const founder = kind !== "service" && typeof answer.founder === "string"
      ? [["founder", "admin", "operator", answer.founder, "-"]]
      : [];
    out.table(["NAME", "ROLE", "KIND", "WHO", "EXPIRES"], [
      ...founder,
      ...found.map((one): Cell[] => [
        String(one.binding),
        String(one.role),
        String(one.kind),
        one.kind === "service" ? `${one.service} (${one.tokenId})` : String(one.key ?? one.node),
        typeof one.expiresMs !== "number"
          ? "-"
          : one.expiresMs > nowMs
          ? `in ${duration(one.expiresMs - nowMs)}`
          : ["red", "ran out"],
      ]),
    ]);
  }
  return EXIT.ok;
}

async function unbind(
  context: Context,
  name: string,
  flags: KeyFlags,
  kind?: "operator" | "service",
): Promise<number> {
  using client = await context.agent();
  if (kind) {
    const found = rows(fields(await client.control({ verb: "binding-list", kind })).bindings);
    if (!found.some((one) => one.binding === name)) {
      const what = kind === "service" ? "token" : "operator";
      throw new CliError(`There is no ${what} "${name}"`, {
        code: "not-found",
        cure: `See which there are: mycelium ${what} list`,
        exitCode: EXIT.usage,
      });
    }
  }
  const result = await changePolicy(context, client, { verb: "role-unbind", binding: name }, {
    key: `${BINDING_PREFIX}${name}`,
    flags,
    fits: deletes,
  });
  return said(context, result, `${name} has no role any more`);
}

function said(context: Context, result: unknown, note: string): number {
  const { out } = context;
  if (out.json) out.document(result ?? {});
  else out.note(note);
  return EXIT.ok;
}

function rows(value: unknown): readonly Readonly<Record<string, unknown>>[] {
  return Array.isArray(value) ? value.map(fields) : [];
}

function list(value: unknown): string {
  return Array.isArray(value) && value.length > 0 ? safe(value.join(", ")) : "no role";
}
