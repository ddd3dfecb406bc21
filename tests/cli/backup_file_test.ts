import assert from "node:assert/strict";
import fc from "fast-check";
import { type BackupSecret, openBackup, readBackupHeader, sealBackup } from "../../src/cli/backup_file.ts";
import { CliError } from "../../src/cli/exit.ts";

const STATE = new TextEncoder().encode("everything that was agreed on ".repeat(50));
const ABOUT = { networkId: new Uint8Array(32).fill(7), networkName: "forest", createdMs: 1_767_225_600_000, index: 42 };
const OPERATOR: BackupSecret = { kind: "operator", seed: new Uint8Array(32).fill(1) };
const PASSPHRASE: BackupSecret = { kind: "passphrase", passphrase: "correct horse battery" };

function refused(code: string): (error: unknown) => boolean {
  return (error) => error instanceof CliError && error.code === code;
}

Deno.test("[3.1e] backup: opens with its secret, and says what it is of", () => {
  for (const secret of [OPERATOR, PASSPHRASE]) {
    const file = sealBackup(STATE, ABOUT, secret);
    const { header, state } = openBackup(file, secret);
    assert.deepEqual(state, STATE);
    assert.deepEqual(readBackupHeader(file), header);
    assert.deepEqual({ ...header, kind: undefined, digest: undefined }, {
      ...ABOUT,
      kind: undefined,
      digest: undefined,
    });
  }
});

Deno.test("[3.1e] [10.5c] backup: nothing of its content shows, and no two are alike", () => {
  const [a, b] = [sealBackup(STATE, ABOUT, OPERATOR), sealBackup(STATE, ABOUT, OPERATOR)];
  assert.notDeepEqual(a, b);
  assert.ok(!new TextDecoder("latin1").decode(a).includes("agreed"));
});

Deno.test("[10.5c] backup: another secret, or the other kind of one, does not open it", () => {
  const file = sealBackup(STATE, ABOUT, PASSPHRASE);
  assert.throws(
    () => openBackup(file, { kind: "passphrase", passphrase: "correct horse batterz" }),
    refused("wrong-secret"),
  );
  assert.throws(() => openBackup(file, OPERATOR), refused("wrong-secret"));
  const other: BackupSecret = { kind: "operator", seed: new Uint8Array(32).fill(2) };
  assert.throws(() => openBackup(sealBackup(STATE, ABOUT, OPERATOR), other), refused("wrong-secret"));
});

Deno.test("[10.1b] backup: any change and any cut is noticed, the header's included", () => {
  const file = sealBackup(STATE, ABOUT, OPERATOR);
  fc.assert(
    fc.property(fc.nat(file.length - 1), fc.integer({ min: 1, max: 255 }), fc.boolean(), (at, mask, cut) => {
      const bad = cut ? file.slice(0, at) : file.slice();
      if (!cut) bad[at]! ^= mask;
      assert.throws(() => openBackup(bad, OPERATOR), CliError);
    }),
    { numRuns: 500 },
  );
});
