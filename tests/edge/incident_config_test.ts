/** The settings about incidents: what they take, and what they mean. */

import assert from "node:assert/strict";
import { ConfigError, formatConfig, incidentSettings, parseConfigText, resolveConfig } from "../../src/edge/config.ts";
import { rulesOf } from "../../src/access/incidents.ts";

const load = (yaml: string) => resolveConfig([parseConfigText(yaml, "test.yaml")]);

Deno.test("[2.4e] security.incidents sets rules, and says what is wrong with them", () => {
  assert.deepEqual(incidentSettings(load("").config), { dryRun: false, rules: [] });
  const loaded = load(`
security:
  incidents:
    dryRun: true
    rules:
      - {rule: invite-guessing, threshold: 3, window: 1h, hold: 1d, sharperAt: 0}
      - {rule: replay, enabled: false}
`);
  const settings = incidentSettings(loaded.config);
  assert.deepEqual(settings, {
    dryRun: true,
    rules: [
      { rule: "invite-guessing", threshold: 3, windowMs: 3_600_000, holdMs: 86_400_000, sharperAt: 0 },
      { rule: "replay", enabled: false },
    ],
  });
  const rules = new Map(rulesOf(settings.rules).map((one) => [one.id, one]));
  assert.deepEqual(
    [rules.get("invite-guessing")!.threshold, rules.get("invite-guessing")!.sharperAt, rules.get("replay")!.enabled],
    [3, 0, false],
  );
  assert.equal(rules.get("forged")!.enabled, true, "what is not named stays");
  // What is printed reads again.
  assert.deepEqual(incidentSettings(load(formatConfig(loaded)).config), settings);
  for (
    const entry of [
      "{}",
      "{rule: nonsense}",
      "{rule: replay, threshold: 0}",
      "{rule: replay, threshold: 1.5}",
      "{rule: replay, window: 5}",
      "{rule: replay, window: forever}",
      "{rule: replay, response: shoot}",
      "{rule: replay, other: 1}",
      "text",
      "[]",
    ]
  ) {
    assert.throws(
      () => load(`security: {incidents: {rules: [${entry}]}}`),
      (error) => error instanceof ConfigError && error.message.includes("security.incidents.rules"),
      entry,
    );
  }
});
