/**
 * Operator keys of the command line: a file of mode 0600, or a key in an SSH agent.
 *
 * @module
 */

import type { Command } from "commander";
import { resolve } from "node:path";
import { changeMessage, decodeChange, policyChange } from "../access/change.ts";
import { equalBytes, fromBase64Url, fromHex, toBase64Url } from "../core/bytes.ts";
import { WireError } from "../core/codec.ts";
import { keyPairFromSeed, signBytes } from "../core/crypto.ts";
import { badAnswer, fields } from "./answers.ts";
import type { ControlClient } from "./client.ts";
import type { Context } from "./context.ts";
import { CliError, EXIT, usageError } from "./exit.ts";
import { readText } from "./files.ts";
import { hexField } from "./session_file.ts";
import { keyOfBlob, SshAgent, SshFormatError } from "./ssh_agent.ts";

/** What signs for an operator. */
export interface OperatorSigner {
  /** 32 bytes. */
  readonly publicKey: Uint8Array;
  /** Where the key is, for messages. */
  readonly from: string;
  sign(message: Uint8Array): Promise<Uint8Array>;
}

/** Flags that name a key. */
export interface KeyFlags {
  /** File with the secret key. */
  readonly key?: string;
  /** `true`, or which key of the agent: its comment, or a file with its public key. */
  readonly sshAgent?: boolean | string;
}

/**
 * The key that the flags name.
 *
 * @throws {CliError} Where they name none, or it cannot be used.
 */
export async function operatorSigner(context: Context, flags: KeyFlags): Promise<OperatorSigner> {
  if (flags.key !== undefined && flags.sshAgent !== undefined) throw usageError("Give --key or --ssh-agent, not both");
  if (flags.key !== undefined) return fileSigner(resolve(context.deps.cwd, flags.key));
  if (flags.sshAgent === undefined) {
    throw usageError("No key is named", "Give --key FILE, or --ssh-agent for a key in an SSH agent");
  }
  return await agentSigner(context, flags.sshAgent);
}

/** A key in a file: 32 bytes, readable by its owner alone. */
function fileSigner(path: string): OperatorSigner {
  const refuse = (why: string, cure: string) =>
    new CliError(`Cannot use key "${path}": ${why}`, { code: "bad-key", cure, exitCode: EXIT.usage });
  let seed: Uint8Array;
  try {
    const { isFile, size, mode } = Deno.statSync(path);
    if (!isFile || size !== 32) {
      throw refuse("wanted a file of 32 bytes", "Make one: mycelium operator keygen --out FILE");
    }
    if (mode !== null && (mode & 0o077) !== 0) {
      throw refuse(`its mode is ${(mode & 0o777).toString(8)}, wanted 600: others can read it`, `chmod 600 ${path}`);
    }
    seed = Deno.readFileSync(path);
  } catch (error) {
    if (error instanceof CliError) throw error;
    throw refuse(
      error instanceof Error ? error.message : "unreadable",
      "Make one: mycelium operator keygen --out FILE",
    );
  }
  const pair = keyPairFromSeed(seed);
  return {
    publicKey: pair.publicKey,
    from: path,
    sign: (message) => Promise.resolve(signBytes(pair, message)),
  };
}

async function agentSigner(context: Context, which: boolean | string): Promise<OperatorSigner> {
  const path = context.deps.env.SSH_AUTH_SOCK;
  if (!path) {
    throw new CliError("There is no SSH agent: SSH_AUTH_SOCK is not set", {
      code: "ssh-agent",
      cure: "Start one: eval $(ssh-agent) && ssh-add",
      exitCode: EXIT.usage,
    });
  }
  const agent = new SshAgent(path);
  const keys = await agent.keys();
  let found = keys;
  if (typeof which === "string") {
    const wanted = /\.pub$/.test(which) ? parsePublicKey(await readText(context, which)) : undefined;
    found = keys.filter((one) => wanted ? equalBytes(one.publicKey, wanted) : one.comment === which);
  }
  const [key] = found;
  if (!key || found.length > 1) {
    const shown = keys.map((one) => one.comment).join(", ");
    throw new CliError(
      found.length > 1
        ? `The SSH agent has ${found.length} Ed25519 keys that fit: ${shown}`
        : `The SSH agent has no such Ed25519 key${keys.length > 0 ? `, only: ${shown}` : ""}`,
      { code: "ssh-agent", cure: "Name one by its comment or its .pub file: --ssh-agent NAME", exitCode: EXIT.usage },
    );
  }
  const { publicKey, comment } = key;
  return { publicKey, from: `SSH agent, ${comment}`, sign: (message) => agent.sign(publicKey, message) };
}

/**
 * Reads a public key: a line of an OpenSSH file, or its 32 bytes in hexadecimal or Base64url.
 *
 * @throws {CliError} Where it is none of these.
 */
export function parsePublicKey(written: string): Uint8Array {
  const line = written.trim();
  const [kind, blob] = line.split(/\s+/);
  if (kind === "ssh-ed25519" && blob !== undefined) {
    try {
      const bytes = fromBase64Url(blob.replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, ""));
      const key = bytes && keyOfBlob(bytes);
      if (key) return key;
    } catch (error) {
      if (!(error instanceof SshFormatError)) throw error;
    }
  }
  const key = /^[0-9a-fA-F]{64}$/.test(line) ? fromHex(line) : line.length === 43 ? fromBase64Url(line) : undefined;
  if (key?.length === 32) return key;
  throw usageError(
    'Cannot read the public key: wanted a line such as "ssh-ed25519 AAAA… name", or 64 hexadecimal digits',
    "It is the file FILE.pub that mycelium operator keygen made, or a line of: ssh-add -L",
  );
}

/** Flags that name a key, added to a command. */
export function keyFlags(command: Command): Command {
  return command.option("--key <file>", "file with the operator key, of mode 0600")
    .option("--ssh-agent [name]", "a key in the SSH agent: by its comment or its .pub file, or the only one there");
}

/**
 * Changes the policy: signed here where a key is named, else by the key that the node holds.
 *
 * What comes back to be signed is read and compared with what was asked for: a node must not get another signature.
 */
export async function changePolicy(
  context: Context,
  client: ControlClient,
  request: { readonly verb: string; readonly [field: string]: unknown },
  wanted: {
    readonly key: string;
    readonly flags: KeyFlags;
    /** `issuedMs`: date of the change, which voters hold against their clocks. */
    readonly fits: (value: Uint8Array | undefined, issuedMs: number) => boolean;
  },
): Promise<unknown> {
  const { key, flags, fits } = wanted;
  if (flags.key === undefined && flags.sshAgent === undefined) return await client.control(request);
  const signer = await operatorSigner(context, flags);
  const asked = fields(await client.control({ ...request, prepare: true }));
  const payload = typeof asked.change === "string" ? fromBase64Url(asked.change) : undefined;
  const value = typeof asked.value === "string" ? fromBase64Url(asked.value) : undefined;
  const networkId = hexField(asked.networkId, 32);
  if (!payload || !networkId) throw badAnswer();
  let same = false;
  try {
    const change = decodeChange(payload);
    same = change.key === key && equalBytes(change.valueHash, policyChange(key, value, 0).valueHash) &&
      fits(value, change.issuedMs);
  } catch (error) {
    if (!(error instanceof WireError)) throw error;
  }
  if (!same) {
    throw new CliError("The agent wants something else signed than what was asked for", {
      code: "tampered",
      cure: "Do not trust this node: ask another one",
      exitCode: EXIT.refused,
    });
  }
  const signature = await signer.sign(changeMessage(payload, networkId));
  return await client.control({
    verb: "access-submit",
    change: asked.change,
    ...(value ? { value: asked.value } : {}),
    signer: toBase64Url(signer.publicKey),
    signature: toBase64Url(signature),
  });
}
