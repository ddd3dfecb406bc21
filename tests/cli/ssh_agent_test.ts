/** Answers of an SSH agent that are none, and public keys as people have them. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { concatBytes, toHex, utf8 } from "../../src/core/bytes.ts";
import { keyPairFromSeed } from "../../src/core/crypto.ts";
import { CliError } from "../../src/cli/exit.ts";
import { parsePublicKey } from "../../src/cli/operator_key.ts";
import {
  formatPublicKey,
  keyBlob,
  keyOfBlob,
  readIdentities,
  readSignature,
  SshAgent,
  SshFormatError,
} from "../../src/cli/ssh_agent.ts";

const PAIR = keyPairFromSeed(new Uint8Array(32).fill(7));

function word(value: number): Uint8Array {
  const out = new Uint8Array(4);
  new DataView(out.buffer).setUint32(0, value);
  return out;
}

const text = (content: Uint8Array) => concatBytes(word(content.length), content);

const IDENTITIES = concatBytes(
  Uint8Array.of(12),
  word(2),
  text(concatBytes(text(utf8("ssh-rsa")), text(new Uint8Array(9)))),
  text(utf8("old key")),
  text(keyBlob(PAIR.publicKey)),
  text(utf8("anna\u001b[2J")),
);
const SIGNATURE = concatBytes(
  Uint8Array.of(14),
  text(concatBytes(text(utf8("ssh-ed25519")), text(new Uint8Array(64).fill(3)))),
);

Deno.test("of an agent's keys those of Ed25519 count, with names that a terminal can show", () => {
  assert.deepEqual(readIdentities(IDENTITIES), [{ publicKey: PAIR.publicKey, comment: "anna [2J" }]);
  assert.deepEqual(readSignature(SIGNATURE), new Uint8Array(64).fill(3));
  assert.throws(() => readIdentities(Uint8Array.of(5)), SshFormatError, "it refuses");
  assert.throws(() => readSignature(Uint8Array.of(5)), SshFormatError);
});

Deno.test("[10.5e] answers of garbage, cut off or changed, give an error of ours and nothing else", () => {
  const readers = [readIdentities, readSignature, keyOfBlob] as const;
  const tried = (bytes: Uint8Array) => {
    for (const read of readers) {
      try {
        read(bytes);
      } catch (error) {
        assert.ok(error instanceof SshFormatError, String(error));
      }
    }
  };
  fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), tried));
  for (const good of [IDENTITIES, SIGNATURE, keyBlob(PAIR.publicKey)]) {
    for (let i = 0; i < good.length; i++) {
      tried(good.slice(0, i));
      for (const bit of [1, 16, 128]) tried(good.map((byte, at) => at === i ? byte ^ bit : byte));
    }
    tried(concatBytes(good, Uint8Array.of(0)));
  }
  // A length that says more than there is does not make room for it.
  assert.throws(() => readIdentities(concatBytes(Uint8Array.of(12), word(0xffff_ffff))), SshFormatError);
});

Deno.test("a public key is read as OpenSSH writes it, in hexadecimal, and not as anything else", () => {
  const line = formatPublicKey(PAIR.publicKey, "anna@home");
  assert.match(line, /^ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI[A-Za-z0-9+/]+ anna@home$/);
  assert.deepEqual(parsePublicKey(`${line}\n`), PAIR.publicKey);
  assert.deepEqual(parsePublicKey(toHex(PAIR.publicKey)), PAIR.publicKey);
  for (
    const bad of [
      "",
      "ssh-rsa AAAA",
      "ssh-ed25519",
      "ssh-ed25519 AAAA",
      line.slice(0, 40),
      toHex(PAIR.publicKey).slice(2),
    ]
  ) {
    assert.throws(() => parsePublicKey(bad), CliError, bad);
  }
  fc.assert(fc.property(fc.string({ maxLength: 100 }), (one) => {
    try {
      assert.equal(parsePublicKey(one).length, 32);
    } catch (error) {
      assert.ok(error instanceof CliError);
    }
  }));
});

Deno.test("an agent that hangs up, talks nonsense or promises too much is said to be none", async () => {
  const folder = await Deno.makeTempDir();
  try {
    for (
      const [i, answer] of [
        new Uint8Array(0),
        word(0),
        word(0xffff_ffff),
        text(Uint8Array.of(5)),
        text(utf8("nonsense")),
      ].entries()
    ) {
      const path = `${folder}/${i}.sock`;
      using listener = Deno.listen({ transport: "unix", path });
      const served = listener.accept().then(async (connection) => {
        await connection.read(new Uint8Array(64));
        if (answer.length > 0) await connection.write(answer);
        connection.close();
      });
      await assert.rejects(
        new SshAgent(path).keys(),
        (error) => error instanceof CliError && error.code === "ssh-agent" && error.message.includes(path),
      );
      await served;
    }
    await assert.rejects(new SshAgent(`${folder}/nothing.sock`).keys(), CliError);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
