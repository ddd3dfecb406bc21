import assert from "node:assert/strict";
import plugin, { LAYERS } from "../../tools/lint_layers.ts";

/** Rule ids that the plugin reports for `source` at `path`. */
function reported(path: string, source: string): string[] {
  return Deno.lint.runPlugin(plugin, path, source).map((one) => one.id);
}

const FORBIDDEN_IMPORTS: readonly (readonly [string, string, string])[] = [
  ["src/core/a.ts", `import { b } from "../identity/b.ts";`, "core sees nothing above it"],
  ["src/raft/a.ts", `import type { B } from "../trust/b.ts";`, "siblings are blind, for types too"],
  ["src/raft/a.ts", `export * from "../agent/b.ts";`, "a re-export is an import"],
  ["src/raft/a.ts", `export { b } from "../ports/b.ts";`, "a named re-export is an import"],
  ["src/agent/a.ts", `import type { B } from "../ports/b.ts";`, "ports come after agent"],
  ["src/ports/a.ts", `type B = import("../edge/p2p/b.ts").B;`, "an import type is an import"],
  ["src/edge/http/a.ts", `await import("../../cli/b.ts");`, "a dynamic import is an import"],
  ["src/cli/a.ts", `import "../../main.ts";`, "nothing imports main"],
  ["src/core/a.ts", `import { x } from "zod";`, "core wraps a closed list"],
  ["src/core/a.ts", `import fs from "node:fs";`, "core has no files"],
  ["src/trust/a.ts", `import { createHash } from "node:crypto";`, "protocols go through core/crypto.ts"],
  ["src/agent/a.ts", `import { encode } from "cborg";`, "agent goes through core/codec.ts"],
  ["src/ports/a.ts", `import type { Libp2p } from "libp2p";`, "ports name no library"],
  ["main.ts", `import { Command } from "commander";`, "main composes ours"],
  ["src/core/a.ts", `import x from "../../deno.json" with { type: "json" };`, "pure code reads nothing outside src"],
  ["src/new_folder/a.ts", `export const a = 1;`, "a folder without a layer"],
];

for (const [path, source, why] of FORBIDDEN_IMPORTS) {
  Deno.test(`layers/imports reports ${path}: ${source} (${why})`, () => {
    assert.deepEqual(reported(path, source).filter((id) => id === "layers/imports"), ["layers/imports"]);
  });
}

const ALLOWED_IMPORTS: readonly (readonly [string, string])[] = [
  ["src/core/codec.ts", `import { encode } from "cborg"; import { createHash } from "node:crypto";`],
  ["src/core/a.ts", `import { sha256 } from "@noble/hashes/sha2.js"; import { b } from "./b.ts";`],
  ["src/identity/a.ts", `import { b } from "../core/b.ts"; import { c } from "./c.ts";`],
  ["src/agent/a.ts", `import { b } from "../raft/b.ts"; import { c } from "../trust/c.ts";`],
  ["src/ports/a.ts", `import type { S } from "../agent/status.ts";`],
  ["src/edge/p2p/a.ts", `import { l } from "libp2p"; import d from "../disk/d.ts"; import p from "../../ports/p.ts";`],
  ["src/cli/a.ts", `import { Command } from "commander"; import { b } from "../edge/http/b.ts";`],
  ["main.ts", `import { b } from "./src/cli/b.ts"; import { c } from "./src/edge/c.ts"; import p from "node:process";`],
  ["tests/raft/a_test.ts", `import fc from "fast-check"; import { a } from "../../src/raft/a.ts";`],
];

for (const [path, source] of ALLOWED_IMPORTS) {
  Deno.test(`layers/imports lets ${path}: ${source}`, () => {
    assert.deepEqual(reported(path, source).filter((id) => id === "layers/imports"), []);
  });
}

const IMPURE = [
  `const t = Date.now();`,
  `const t = Date["now"]();`,
  `const t = new Date();`,
  `const t = Date();`,
  `const t = performance.now();`,
  `setTimeout(f, 1);`,
  `setInterval(f, 1);`,
  `globalThis.setTimeout(f, 1);`,
  `queueMicrotask(f);`,
  `const s = AbortSignal.timeout(1);`,
  `const r = Math.random();`,
  `crypto.getRandomValues(a);`,
  `const u = crypto.randomUUID();`,
  `const k = crypto.subtle;`,
  `import { randomBytes } from "node:crypto";`,
  `import { randomUUID as id } from "node:crypto";`,
  `import { generateKeyPairSync } from "node:crypto";`,
  `import crypto from "node:crypto"; crypto.randomBytes(1);`,
  `async function f() {}`,
  `const f = async () => {};`,
  `class A { async f() {} }`,
  `await f();`,
  `for await (const x of y) f(x);`,
  `const m = import("./b.ts");`,
  `const r = fetch("http://x");`,
  `const deps = { fetch };`,
  `Deno.env.get("X");`,
  `const d = Deno;`,
];

for (const source of IMPURE) {
  Deno.test(`layers/pure reports: ${source}`, () => {
    for (const folder of ["core", "raft", "agent", "ports"]) {
      assert.ok(reported(`src/${folder}/a.ts`, source).includes("layers/pure"), folder);
    }
    assert.ok(!reported("src/edge/a.ts", source).includes("layers/pure"), "edge may");
    assert.ok(!reported("tests/edge/a_test.ts", source).includes("layers/pure"), "tests may");
  });
}

const PURE = [
  `const t = new Date(event.nowMs).toISOString();`,
  `export interface Clock { now(): number; setTimeout(f: () => void): void; fetch: string }`,
  `export interface Port { start(): Promise<void> }`,
  `const value = { performance: 1, Deno: 2 }.performance;`,
  `import { createHash, sign, verify } from "node:crypto";`,
  `const x = record.setTimeout + record.fetch;`,
  `type D = typeof import("./b.ts");`,
];

for (const source of PURE) {
  Deno.test(`layers/pure lets: ${source}`, () => {
    assert.deepEqual(reported("src/core/a.ts", source), []);
  });
}

Deno.test("the layer table is the one in the architecture document", () => {
  assert.deepEqual(LAYERS.map((group) => group[0]), ["core", "identity", "agent", "ports", "edge", "cli", "main"]);
});
