/** The drill of docs/runbooks/split-brain.md, command by command. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { eventually } from "../testkit/program.ts";
import { type HostNode, hostsTest, SILENT } from "../testkit/hosts.ts";

const authorityOf = async (node: HostNode) => (await node.status()).network!.authority;

hostsTest(
  "[3.2b] two halves that were both recovered with the genesis key are one network again by one Master Seed",
  async (lab) => {
    const [h1, h2, h3] = await lab.hosts(3);
    const n1 = await lab.founder({ name: "n1", host: h1!, flags: SILENT });
    const [n2, n3] = [
      lab.node({ name: "n2", host: h2!, flags: SILENT }),
      lab.node({ name: "n3", host: h3!, flags: SILENT }),
    ];
    for (const node of [n2, n3]) {
      node.join(await n1.invite({ role: "sclerotium" }));
      await node.verified();
    }
    for (const node of [n1, n2, n3]) {
      await node.until("three issuers", 30_000, (status) => status.network!.authority.issuers.length === 3);
    }
    const key = join(lab.home, "stick.genesis");
    await Deno.copyFile(join(n1.state, "secret", "genesis.key"), key);
    const ok = async (node: HostNode, ...args: string[]) => {
      const { code, stdout, stderr } = await node.cli(...args);
      assert.equal(code, 0, `${args.join(" ")}: ${stdout}${stderr}`);
      return stdout;
    };

    await lab.cut([h1!], [h2!, h3!]);
    await n1.until("alone", 40_000, (status) => status.members.filter((one) => one.state === "alive").length === 0);
    await ok(n1, "genesis", "recover", "--without", "n2", "--without", "n3", "--yes");
    await ok(n2, "genesis", "recover", "--without", "n1", "--key", key, "--yes");

    await lab.heal();
    const decision = join(lab.home, "decision.seed");
    assert.match(await ok(n2, "seed", "decide", "--key", key, "--dry-run"), /Would decide for epoch/);
    await ok(n2, "seed", "decide", "--key", key, "--out", decision, "--yes");
    assert.match(await ok(n1, "spore", "import", decision, "--dry-run"), /would replace epochs from 4 on/);
    await ok(n1, "spore", "import", decision);

    await n1.until(
      "one network again",
      60_000,
      (status) =>
        status.bootstrap.stage === "verified" && status.network!.authority.issuers.length === 3 &&
        status.members.every((one) => one.state === "self" || one.state === "alive"),
    );
    const [a, b] = [await authorityOf(n1), await authorityOf(n2)];
    assert.deepEqual([...a.issuers].sort(), [...b.issuers].sort());
    assert.equal(a.epoch, b.epoch);
    const audit = await Deno.readTextFile(join(n1.state, "audit.log"));
    assert.match(audit, /split-resolved/);
    await eventually("the primaries agree again", 40_000, async () => {
      const { stderr } = await n3.cli("spore", "put", "app/after", "the split");
      return /the primaries agreed/.test(stderr) ? true : undefined;
    });
  },
);
