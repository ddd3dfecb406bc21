/** Prometheus text, the samples for the plots, the process's own figures. */

import assert from "node:assert/strict";
import { createStatusApp } from "../../src/edge/http/app.ts";
import { rates } from "../../src/edge/http/plots.ts";
import { parseRss, parseStat, readProcessStat } from "../../src/edge/process/proc_stat.ts";
import { LoopLag } from "../../src/edge/telemetry/loop_lag.ts";
import { Exposition, renderMetrics } from "../../src/edge/telemetry/metrics.ts";
import {
  fixtureNodeId,
  FixtureSource,
  isolatedStatus,
  singleNodeStatus,
  troubledStatus,
} from "../testkit/status_fixture.ts";

interface Series {
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

interface Family {
  readonly type: string;
  readonly help: string;
  readonly series: Series[];
}

/** Parses the exposition format 0.0.4 strictly: what it does not know is an error. */
function parse(text: string): Map<string, Family> {
  const families = new Map<string, Family>();
  assert.ok(text.endsWith("\n"));
  let help: string | undefined;
  let current: Family | undefined;
  let name = "";
  for (const line of text.slice(0, -1).split("\n")) {
    const comment = /^# (HELP|TYPE) ([a-z_]+) (.+)$/.exec(line);
    if (comment?.[1] === "HELP") {
      [, , name = "", help] = comment;
      assert.ok(!families.has(name), `${name} appears twice`);
      continue;
    }
    if (comment?.[1] === "TYPE") {
      assert.equal(comment[2], name);
      assert.ok(help && /^(gauge|counter)$/.test(comment[3] ?? ""), line);
      current = { type: comment[3] ?? "", help, series: [] };
      families.set(name, current);
      continue;
    }
    const sample = /^([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (\S+)$/.exec(line);
    assert.ok(sample && current, `not a sample: ${line}`);
    assert.equal(sample[1], name, line);
    const labels = Object.fromEntries(
      [...(sample[2] ?? "").matchAll(/([a-z_]+)="((?:[^"\\]|\\.)*)"/g)].map(([, key, value]) => {
        return [key, (value ?? "").replace(/\\(.)/g, (_, char) => char === "n" ? "\n" : char)];
      }),
    );
    const value = Number(sample[3]);
    assert.ok(!Number.isNaN(value) || sample[3] === "NaN", line);
    current.series.push({ labels, value });
  }
  return families;
}

Deno.test("[9.1d] /metrics is valid exposition text: prefix, unit suffixes, help and type for every metric", () => {
  for (const status of [singleNodeStatus(), troubledStatus(), isolatedStatus()]) {
    const families = parse(renderMetrics(status));
    for (const [name, family] of families) {
      assert.match(name, /^mycelium_[a-z_]+$/);
      assert.equal(name.endsWith("_total"), family.type === "counter", name);
      assert.ok(family.help.length > 10 && family.help.endsWith("."), name);
      assert.ok(!/_(ms|millis|kb|mb|percent)(_|$)/.test(name), `${name}: base units only`);
      const keys = family.series.map((one) => JSON.stringify(one.labels));
      assert.equal(new Set(keys).size, keys.length, `${name} has a series twice`);
    }
  }
});

Deno.test("[11.1e] the metrics say what the status says", () => {
  const status = troubledStatus();
  const families = parse(renderMetrics(status));
  const value = (name: string, labels: Readonly<Record<string, string>> = {}) => {
    const found = families.get(name)?.series.find((one) =>
      Object.entries(labels).every(([key, text]) => one.labels[key] === text)
    );
    assert.ok(found, `${name} ${JSON.stringify(labels)}`);
    return found.value;
  };
  assert.equal(value("mycelium_members", { state: "alive" }), 4);
  assert.equal(value("mycelium_members", { state: "dead" }), 1);
  assert.equal(value("mycelium_members", { state: "suspect" }), 1);
  assert.equal(value("mycelium_refusals_total", { reason: "beacon-bad-mac" }), 1_204);
  assert.equal(value("mycelium_traffic_bytes_total", { direction: "in" }), status.traffic.bytesIn);
  assert.equal(value("mycelium_join_stage", { stage: "verified" }), 1);
  assert.equal(value("mycelium_join_stage", { stage: "isolated" }), 0);
  assert.equal(value("mycelium_credential_expiry_timestamp_seconds"), (status.credential?.expiresMs ?? 0) / 1000);
  assert.equal(value("mycelium_process_resident_memory_bytes"), status.process.rssBytes);
  assert.equal(value("mycelium_process_cpu_seconds_total"), status.process.cpuMs / 1000);
  assert.equal(value("mycelium_event_loop_lag_seconds", { stat: "max" }), 0.0118);
  assert.equal(value("mycelium_path_rtt_seconds", { member: fixtureNodeId("office") }), 0.0234);
  assert.equal(value("mycelium_ready"), 1);
  assert.equal(value("mycelium_component_health", { component: "discovery" }), 0.5);
  assert.equal(value("mycelium_tolerated_faults", { kind: "crash" }), 1);
  assert.equal(value("mycelium_pending_joins"), 1);
  assert.equal(value("mycelium_build_info", { version: "0.1.0" }), 1);
});

Deno.test("what is not known is left out, not 0: no credential, no lag", () => {
  const families = parse(renderMetrics(isolatedStatus()));
  assert.ok(!families.has("mycelium_credential_expiry_timestamp_seconds"));
  assert.equal(families.get("mycelium_ready")?.series[0]?.value, 0);
});

Deno.test("labels with quotes, backslashes and line breaks come through, and odd numbers have their words", () => {
  const out = new Exposition();
  const odd = 'a"b\\c\nd';
  out.family("mycelium_x", "gauge", "Help with \\ and\nbreak.", [[{ reason: odd }, 1], [{ reason: "inf" }, Infinity], [{
    reason: "nan",
  }, NaN]]);
  const text = out.toString();
  assert.ok(text.includes("+Inf") && text.includes("NaN") && text.includes("Help with \\\\ and\\nbreak."));
  assert.equal(parse(text.replace("+Inf", "Infinity")).get("mycelium_x")?.series[0]?.labels.reason, odd);
});

Deno.test("reasons and members from outside make a bounded number of series", () => {
  const status = troubledStatus();
  const [, second] = status.members;
  assert.ok(second);
  const families = parse(renderMetrics({
    ...status,
    refusals: Object.fromEntries(Array.from({ length: 500 }, (_, i) => [`reason-${i}`, 2])),
    members: Array.from({ length: 5_000 }, (_, i) => ({ ...second, nodeId: fixtureNodeId(`n${i}`) })),
  }));
  const refusals = families.get("mycelium_refusals_total")?.series ?? [];
  assert.equal(refusals.length, 101);
  assert.equal(refusals.reduce((sum, one) => sum + one.value, 0), 1_000, "none is lost");
  assert.equal(families.get("mycelium_path_rtt_seconds")?.series.length, 200);
});

Deno.test("/metrics counts the requests of its own interface", async () => {
  const source = new FixtureSource();
  using app = createStatusApp({ getStatus: source.getStatus, subscribe: source.subscribe });
  for (const path of ["/status", "/status", "/nothing", "/a/b/c", "/readyz"]) {
    await (await app.request(path)).body?.cancel();
  }
  await (await app.request("/status", { headers: { host: "evil.example" } })).body?.cancel();
  const answer = await app.request("/metrics");
  assert.equal(answer.headers.get("content-type"), "text/plain; version=0.0.4; charset=utf-8");
  const requests = parse(await answer.text()).get("mycelium_http_requests_total")?.series ?? [];
  const count = (route: string, code: string) =>
    requests.find((one) => one.labels.route === route && one.labels.code === code)?.value;
  assert.deepEqual([count("/status", "200"), count("other", "404"), count("/readyz", "200"), count("refused", "421")], [
    2,
    2,
    1,
    1,
  ]);
});

Deno.test("rates() leaves out what a restart or a clock made meaningless", () => {
  const sample = (atMs: number, bytesIn: number) => ({ atMs, bytesIn, bytesOut: 0, rssBytes: 0, cpuMs: 0 });
  const samples = [sample(0, 0), sample(5_000, 500), sample(10_000, 100), sample(10_000, 900), sample(15_000, 1_100)];
  assert.deepEqual(rates(samples, (one) => one.bytesIn), [{ atMs: 5_000, value: 100 }, { atMs: 15_000, value: 40 }]);
  assert.deepEqual(rates([], (one) => one.bytesIn), []);
});

Deno.test("[9.1d] readProcessStat() agrees with what the process does: memory, CPU time, open files", async () => {
  const before = readProcessStat();
  assert.equal(before.pid, Deno.pid);
  assert.ok(before.rssBytes > 10 << 20 && Math.abs(before.rssBytes - Deno.memoryUsage().rss) < 64 << 20);
  const files = await Promise.all(Array.from({ length: 10 }, () => Deno.open("/dev/null")));
  const begin = performance.now();
  let after = readProcessStat();
  // By CPU time and not by the clock: the machine may have other work.
  while (after.cpuMs - before.cpuMs < 50 && performance.now() - begin < 20_000) after = readProcessStat();
  assert.equal(after.openFiles - before.openFiles, 10);
  assert.ok(after.cpuMs - before.cpuMs >= 50, `${after.cpuMs - before.cpuMs} ms of CPU`);
  assert.ok(after.cpuMs - before.cpuMs <= (performance.now() - begin) * navigator.hardwareConcurrency + 50);
  for (const file of files) file.close();
});

Deno.test("parseStat() is not misled by a program's name, and both parsers survive what they do not know", () => {
  const tail = "S 1 2 3 4 5 6 7 8 9 10 150 50 0 0";
  assert.equal(parseStat(`42 (a) b) R (x) ${tail}`), 2_000);
  assert.equal(parseStat(""), undefined);
  assert.equal(parseStat("1 (x) S"), undefined);
  assert.equal(parseRss("Name: x\nVmRSS:\t  1234 kB\n"), 1_263_616);
  assert.equal(parseRss("Name: x\n"), undefined);
});

Deno.test("LoopLag sees that the loop was blocked, and its timer keeps no process alive", async () => {
  using lag = new LoopLag();
  assert.equal(lag.read(), undefined);
  await new Promise((resolve) => setTimeout(resolve, 900));
  const end = performance.now() + 300;
  while (performance.now() < end);
  await new Promise((resolve) => setTimeout(resolve, 30));
  const read = lag.read();
  assert.ok(read && read.max >= 100 && read.max < 5_000, JSON.stringify(read));
});
