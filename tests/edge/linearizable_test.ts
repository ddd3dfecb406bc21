/** A history of real processes: clients at three issuers, whose leader is killed, judged by the simulator's checker. */

import assert from "node:assert/strict";
import { History } from "../sim/history.ts";
import { checkLinearizable } from "../sim/linearizable.ts";
import { FROM_SOURCE } from "../testkit/program.ts";
import { type Primary, PrimaryGroup } from "../testkit/primary_group.ts";

const KEYS = ["app/x", "app/y"];
/** What says for sure that a write did not happen. */
const REFUSED = new Set(["conflict", "not-permitted", "from-future", "malformed", "full", "stale-seq", "bad-request"]);

interface Found {
  readonly versions: readonly { readonly value?: string; readonly index: number }[];
}

/** Whoever asks a node that is killed may never hear of it. */
async function within<T>(ms: number, answer: Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => timer = setTimeout(() => reject(new Error("no answer")), ms));
  try {
    return await Promise.race([answer, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** One client at one node, until told to stop: it reads, writes, deletes, and compares and sets. */
async function client(history: History, at: Primary, name: string, now: () => number, stopped: () => boolean) {
  const known = new Map<string, { readonly value: string | null; readonly index: number }>();
  for (let i = 0; !stopped(); i++) {
    if (!at.node) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      continue;
    }
    const key = KEYS[i % KEYS.length]!;
    const value = i % 17 === 16 ? null : `${name}.${i}`;
    const last = known.get(key);
    const kind = i % 3 === 0 ? "read" : i % 3 === 1 || !last ? "write" : "cas";
    const asked = kind === "read" ? null : kind === "write" ? value : [last!.value, value] as const;
    const operation = history.invoke(name, kind, key, asked, now());
    try {
      const answer = await within(
        12_000,
        at.client.control(
          kind === "read" ? { verb: "primary-get", key } : {
            verb: "primary-put",
            key,
            ...(value === null ? {} : { value }),
            ...(kind === "cas" ? { expect: last!.index } : {}),
          },
        ),
      );
      if (kind !== "read") {
        history.end(operation, "ok", now());
        continue;
      }
      const [version] = (answer as Found).versions;
      known.set(key, { value: version?.value ?? null, index: version?.index ?? 0 });
      history.end(operation, "ok", now(), version?.value ?? null);
    } catch (error) {
      const code = (error as { readonly code?: string }).code ?? "";
      history.end(operation, kind === "read" || REFUSED.has(code) ? "fail" : "info", now());
      // A node that is starting refuses at once.
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

Deno.test("[3.1c] [3.1a] [10.2b] [10.3c] primaries as processes: what clients see while leaders are killed is linearizable", async () => {
  await using group = await PrimaryGroup.start(FROM_SOURCE, 3);
  const history = new History();
  const startMs = performance.now();
  const now = () => Math.round(performance.now() - startMs);
  let stopped = false;
  const clients = group.members.flatMap((one) =>
    [0, 1].map((i) => client(history, one, `${one.name}-${i}`, now, () => stopped))
  );
  try {
    for (let kill = 0; kill < 2; kill++) {
      await new Promise((resolve) => setTimeout(resolve, 1_000));
      const leader = await group.leader();
      await leader.end();
      await new Promise((resolve) => setTimeout(resolve, 1_500));
      await leader.start();
    }
    await new Promise((resolve) => setTimeout(resolve, 1_000));
  } finally {
    stopped = true;
    await Promise.all(clients);
  }
  history.close(now());
  const ended = (type: string) => history.lines.filter((one) => one.type === type).length;
  const verdict = checkLinearizable(history.lines);
  assert.ok(verdict.linearizable !== false, `not linearizable: ${JSON.stringify(verdict)}\n${history.toText()}`);
  assert.equal(verdict.linearizable, true, "the search came to an end");
  // It was worth looking at.
  assert.ok(ended("ok") > 100, `${ended("ok")} answered`);
  assert.ok(ended("info") > 0, "some calls ended without an answer");
  assert.ok(history.lines.some((one) => one.f === "cas" && one.type === "ok"), "somebody compared and set");
});
