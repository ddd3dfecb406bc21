/** What a reader would have to check by eye: names, links, leftovers, the map against the country. @module */

import assert from "node:assert/strict";
import { dirname, join, normalize } from "node:path";
import { LAYERS } from "../../tools/lint_layers.ts";

const ROOT = join(import.meta.dirname!, "..", "..");
const SELF = "tests/tidy/tidy_test.ts";

/** Files of the repository, tracked or new, without what git ignores. */
async function repositoryFiles(): Promise<string[]> {
  const { success, stdout } = await new Deno.Command("git", {
    args: ["ls-files", "-co", "--exclude-standard", "-z"],
    cwd: ROOT,
    stdin: "null",
  }).output();
  assert.ok(success, "git ls-files failed");
  const listed = new TextDecoder().decode(stdout).split("\0").filter((one) => one !== "" && one !== SELF);
  const there = await Promise.all(
    listed.map((one) => Deno.stat(join(ROOT, one)).then((info) => info.isFile, () => false)),
  );
  return listed.filter((_, i) => there[i]);
}

const FILES = await repositoryFiles();
const CODE = FILES.filter((one) => /\.tsx?$/.test(one));

/** Lines of `files` that match, as `file:line: text`. */
async function linesThatMatch(files: readonly string[], pattern: RegExp): Promise<string[]> {
  const found: string[] = [];
  for (const file of files) {
    const lines = (await Deno.readTextFile(join(ROOT, file))).split("\n");
    lines.forEach((line, i) => {
      if (pattern.test(line)) found.push(`${file}:${i + 1}: ${line.trim().slice(0, 120)}`);
    });
  }
  return found;
}

Deno.test("no FIXME is left in the code", async () => {
  assert.deepEqual(await linesThatMatch(CODE, /\bFIXME\b|\bXXX\b/), []);
});

Deno.test("no test is singled out, which would switch off the others", async () => {
  const tests = FILES.filter((one) => one.startsWith("tests/"));
  assert.deepEqual(await linesThatMatch(tests, /\btest\.only\(|\bonly: true\b/), []);
});

Deno.test("no machine's own path and no package registry's host stands in a file", async () => {
  const text = FILES.filter((one) => !/\.(png|ico|gz|db|bin)$/.test(one));
  assert.deepEqual(await linesThatMatch(text, /\/work\/(main|shared|\.)|\/tmp\/w\/|\/root\/(?!\.kube\b)/), []);
  assert.deepEqual(
    await linesThatMatch(
      text,
      /registry\.npmjs|npmjs\.org|pythonhosted|pypi\.org|proxy\.golang|deb\.debian\.org|jsr\.io/,
    ),
    [],
  );
});

Deno.test("code files have snake_case names", () => {
  assert.deepEqual(CODE.filter((one) => !/^([a-z0-9_]+\/|\.ci\/)*[a-z0-9_]+(\.d)?\.tsx?$/.test(one)), []);
});

Deno.test("every folder of src/ has a layer, and no file lies between them", () => {
  const layered = new Set(LAYERS.flat());
  const first = CODE.filter((one) => one.startsWith("src/")).map((one) => one.split("/")[1]!);
  assert.deepEqual([...new Set(first)].filter((one) => !layered.has(one)), []);
});

Deno.test("every folder of src/ is named in ARCHITECTURE.md", async (t) => {
  const text = await Deno.readTextFile(join(ROOT, "ARCHITECTURE.md")).catch(() => undefined);
  if (text === undefined) {
    await t.step({ name: "there is no ARCHITECTURE.md yet", ignore: true, fn: () => {} });
    return;
  }
  const folders = new Set(CODE.filter((one) => one.startsWith("src/")).map((one) => dirname(one).slice("src/".length)));
  const missing = [...folders].filter((one) => !one.split("/").every((part) => new RegExp(`\\b${part}\\b`).test(text)));
  assert.deepEqual(missing, []);
});

Deno.test("relative links in Markdown lead to a file", async () => {
  const broken: string[] = [];
  for (const file of FILES.filter((one) => one.endsWith(".md"))) {
    const text = (await Deno.readTextFile(join(ROOT, file))).replaceAll(/```[\s\S]*?```/g, "");
    for (const [, link] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (link === undefined || /^([a-z]+:|#)/.test(link)) continue;
      const target = normalize(join(ROOT, dirname(file), link.split("#")[0]!));
      if (!await Deno.stat(target).then(() => true, () => false)) broken.push(`${file}: ${link}`);
    }
  }
  assert.deepEqual(broken, []);
});

Deno.test("every requirement named in a test exists", async (t) => {
  const spec = await Deno.readTextFile(join(ROOT, "..", "shared", "spec", "requirements.md")).catch(() => undefined);
  if (spec === undefined) {
    await t.step({ name: "the requirements are not beside the repository", ignore: true, fn: () => {} });
    return;
  }
  const ids = new Set([...spec.matchAll(/^- `(\d+\.\d+[a-h])` /gm)].map((one) => one[1]));
  assert.ok(ids.size > 0, "requirements.md has no ids");
  const unknown: string[] = [];
  for (const file of FILES.filter((one) => /^(tests|bench)\/.*\.(tsx?|sh)$/.test(one))) {
    for (const [, group] of (await Deno.readTextFile(join(ROOT, file))).matchAll(/\[((?:\d+\.\d+[a-h][ ,]*)+)\]/g)) {
      for (const [id] of group!.matchAll(/\d+\.\d+[a-h]/g)) {
        if (!ids.has(id)) unknown.push(`${file}: ${id}`);
      }
    }
  }
  assert.deepEqual(unknown, []);
});

Deno.test("[10.2e] one version of Deno is named everywhere, and CI runs the README's test command", async () => {
  const ci = await Deno.readTextFile(join(ROOT, ".ci", "run"));
  const version = ci.match(/^DENO_VERSION=(\d+\.\d+\.\d+)$/m)?.[1];
  assert.ok(version, ".ci/run has no DENO_VERSION");
  const others: string[] = [];
  for (
    const file of FILES.filter((one) => /\.(md|sh|ts|json|service)$|^\.ci\//.test(one) && !one.startsWith("docs/adr/"))
  ) {
    for (const [, found] of (await Deno.readTextFile(join(ROOT, file))).matchAll(/\bnpx --yes deno@(\d[\d.]*\d)/g)) {
      if (found !== version) others.push(`${file}: ${found}`);
    }
  }
  assert.deepEqual(others, []);
  const readme = await Deno.readTextFile(join(ROOT, "README.md")).catch(() => undefined);
  if (readme !== undefined) {
    assert.ok(readme.includes(`npx --yes deno@${version} task test`), "README.md has no test command");
    assert.ok(readme.includes(`npx --yes deno@${version} task start`), "README.md has no start command");
  }
});

Deno.test("decisions are numbered without gaps and have their five parts", async () => {
  const records = FILES.filter((one) => one.startsWith("docs/adr/")).sort();
  for (const [i, file] of records.entries()) {
    assert.match(file, new RegExp(`^docs/adr/${String(i + 1).padStart(4, "0")}-[a-z0-9-]+\\.md$`));
    const text = await Deno.readTextFile(join(ROOT, file));
    for (const part of ["# ADR ", "\nDate: ", "\nStatus: ", "\n## Context", "\n## Decision", "\n## Consequences"]) {
      assert.ok(text.includes(part), `${file} has no "${part.trim()}"`);
    }
  }
});
