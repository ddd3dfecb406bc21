/** The agent's unit, as systemd reads it. @module */

import assert from "node:assert/strict";
import { join } from "node:path";
import { has, ROOT, sh } from "./kit.ts";

const UNIT = join(ROOT, "systemd", "mycelium-agent.service");
const systemd = await has("systemd-analyze");
if (!systemd) console.error("SKIP unit: systemd-analyze is not installed, nothing checks the unit");

Deno.test({
  name: "the agent's unit is exposed by 2.0 at the most",
  ignore: !systemd,
  fn: async () => {
    const { text } = await sh(["systemd-analyze", "security", "--offline=true", "--no-pager", UNIT]);
    const level = Number(/Overall exposure level for [^:]+: ([0-9.]+)/.exec(text)?.[1]);
    assert.ok(level <= 2, `exposure is ${level}`);
  },
});

Deno.test({
  name: "the agent's unit is valid",
  ignore: !systemd,
  fn: async () => {
    const { text } = await sh(["systemd-analyze", "verify", "--man=no", UNIT]);
    // The program itself need not be installed on the machine that runs the tests.
    assert.deepEqual(text.split("\n").filter((line) => line !== "" && !line.includes("is not executable")), []);
  },
});
