/** Seven voters as processes on loopback: one of them never opens its votes; then it and another one are killed. */

import assert from "node:assert/strict";
import { join } from "node:path";
import type { ProofRow } from "../../src/agent/trust_console.ts";
import type { AgreementStatus } from "../../src/agent/status.ts";
import { toBase64Url, utf8 } from "../../src/core/bytes.ts";
import { FROM_SOURCE, type ProgramCommand } from "../testkit/program.ts";
import { type Primary, PrimaryGroup } from "../testkit/primary_group.ts";

const WITHHOLDING: ProgramCommand = [
  Deno.execPath(),
  "run",
  "-A",
  "--no-check",
  join(import.meta.dirname!, "..", "testkit", "withholding_main.ts"),
];

interface Done {
  readonly index?: number;
  readonly signers: number;
  readonly round: number;
  readonly tookMs: number;
}

/** Asks until it is decided: on a machine that does much else a decision may take longer than its caller waits. */
async function submit(at: Primary, key: string, value: string): Promise<Done> {
  const request = {
    verb: "agreement-submit",
    key,
    value: toBase64Url(utf8(value)),
    class: "critical",
    timeoutMs: 25_000,
  };
  const endMs = performance.now() + 120_000;
  for (;;) {
    try {
      return await at.client.control(request) as Done;
    } catch (error) {
      if (performance.now() > endMs) throw error;
    }
  }
}

async function agreement(at: Primary): Promise<AgreementStatus> {
  return (await at.status()).agreement!;
}

Deno.test("[4.1a] [4.1b] [4.1d] [4.1e] seven voters as processes: who withholds its opening changes nothing and is convicted; two are killed, the rest decides", async (t) => {
  await using group = await PrimaryGroup.start(FROM_SOURCE, 1);
  const [founder] = group.members as [Primary];
  for (let i = 1; i < 6; i++) await group.add(`p${i}`).start(["join", await group.invite("sclerotium")]);
  const liar = group.add("liar", WITHHOLDING);
  await liar.start(["join", await group.invite("sclerotium")]);
  const honest = group.members.filter((one) => one !== liar);
  await group.until("all seven vote", async () => {
    const seen = await Promise.all(group.members.map(agreement));
    return seen.every((one) => one.voters.length === 7 && one.health === "full");
  }, 180_000);
  assert.equal((await agreement(founder)).tolerated, 2);

  await t.step("decided although one never opens", async () => {
    for (const [i, one] of honest.entries()) {
      const { index, signers } = await submit(one, `app/from${i}`, `${i}`);
      assert.ok(index! > 0 && signers >= 5, `${index} ${signers}`);
    }
    for (const [i] of honest.entries()) assert.equal(await founder.get(`app/from${i}`), `${i}`);
  });

  await t.step("there is evidence against it that anybody can check, and against nobody else", async () => {
    const proofs = async (at: Primary) =>
      (await at.client.control({ verb: "evidence-list" }) as { readonly rows: readonly ProofRow[] }).rows;
    // Who has the evidence waits a little, so that not all tell of it at once.
    await group.until("all have the evidence", async () => {
      const all = await Promise.all(honest.map(proofs));
      return all.every((rows) => rows.some((one) => one.nodeId === liar.nodeId));
    }, 120_000);
    for (const one of honest) {
      for (const { nodeId, kind } of await proofs(one)) {
        // On a machine that does much else an honest node may be late; it never says two things, nor what is not so.
        if (nodeId !== liar.nodeId) assert.equal(kind, "withheld");
      }
    }
  });

  await t.step("with f = 2 killed the others decide", async () => {
    const gone = honest.at(-1)!;
    await Promise.all([liar.end(), gone.end()]);
    for (const one of [founder, honest[1]!, honest[2]!]) {
      // Trust may have taken its seat from who withholds meanwhile.
      const { index, signers } = await submit(one, `app/two-gone-${one.name}`, "x");
      assert.ok(index! > 0 && signers >= 4, `${index} ${signers}`);
    }
  });

  await t.step("status says who does not answer", async () => {
    await group.until("it is seen", async () => (await agreement(founder)).voters.some((one) => !one.answers), 120_000);
  });
});
